//! Files that steer git, remembered before a command and put back after it: where no mount can make them read-only
//! (the reduced tier). What the full tier prevents is mended here, and each repair is told.

use super::repositories::set_aside;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Bytes and entries that are remembered; a repository with more hooks than this is refused.
const MOST_BYTES: u64 = 32 << 20;
const MOST_ENTRIES: usize = 20_000;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Thing {
    File {
        bytes: Vec<u8>,
        mode: u32,
    },
    Directory {
        mode: u32,
    },
    Link(PathBuf),
    /// A socket or the like; only that it is there counts.
    Other,
}

#[derive(Debug, Default)]
pub struct Steering {
    /// By path, so that a directory comes before what it holds.
    things: BTreeMap<PathBuf, Thing>,
    bytes: u64,
}

fn thing(path: &Path) -> std::io::Result<Thing> {
    let metadata = path.symlink_metadata()?;
    let mode = metadata.mode() & 0o7777;
    Ok(match () {
        () if metadata.is_symlink() => Thing::Link(std::fs::read_link(path)?),
        () if metadata.is_dir() => Thing::Directory { mode },
        () if metadata.is_file() => Thing::File { bytes: std::fs::read(path)?, mode },
        () => Thing::Other,
    })
}

impl Steering {
    /// Remembers `paths` and all that lies beneath them.
    pub fn of(paths: &[PathBuf]) -> Result<Self, &'static str> {
        let mut steering = Self::default();
        for path in paths {
            steering.remember(path)?;
        }
        Ok(steering)
    }

    fn remember(&mut self, path: &Path) -> Result<(), &'static str> {
        const MANY: &str = "its hooks and git settings are too many to be kept safe";
        let size =
            path.symlink_metadata().map_or(0, |metadata| if metadata.is_file() { metadata.len() } else { 0 });
        self.bytes += size;
        if self.bytes > MOST_BYTES || self.things.len() >= MOST_ENTRIES {
            return Err(MANY);
        }
        let Ok(found) = thing(path) else { return Ok(()) };
        let is_directory = matches!(found, Thing::Directory { .. });
        self.things.insert(path.to_path_buf(), found);
        if is_directory {
            for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
                self.remember(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Puts back what is not as it was; a line for each repair.
    pub fn restore(&self, root: &Path) -> Vec<String> {
        let shown = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
        let mut told = Vec::new();
        for (path, before) in &self.things {
            // Where the directory itself was exchanged or removed, something else lies there now, or nothing: that is
            // named by whoever looks for repositories, and nothing is written through it.
            let Some(parent) =
                path.parent().filter(|parent| parent.canonicalize().is_ok_and(|real| real == **parent))
            else {
                continue;
            };
            if !parent.is_dir() || thing(path).is_ok_and(|now| now == *before) {
                continue;
            }
            told.push(match put_back(path, before) {
                Ok(aside) => {
                    let kept = aside
                        .map_or_else(String::new, |aside| format!(", the change kept as {}", shown(&aside)));
                    format!("the command changed {}, which steers git: it was put back{kept}", shown(path))
                }
                Err(error) => {
                    format!(
                        "the command changed {}, which steers git, and it could not be put back: {error}",
                        shown(path)
                    )
                }
            });
        }
        for path in self.new_ones() {
            told.push(match set_aside(&path) {
                Ok(aside) => format!(
                    "the command made {}, which git would run or obey: it was moved to {}",
                    shown(&path),
                    shown(&aside)
                ),
                Err(error) => format!(
                    "the command made {}, which git would run or obey, and it could not be moved away: {error}",
                    shown(&path)
                ),
            });
        }
        told
    }

    /// What lies in a remembered directory now and did not before.
    fn new_ones(&self) -> Vec<PathBuf> {
        let directories = self.things.iter().filter(|(_, thing)| matches!(thing, Thing::Directory { .. }));
        let held = directories.filter(|(path, _)| path.canonicalize().is_ok_and(|real| real == **path));
        let entries = held.flat_map(|(path, _)| std::fs::read_dir(path).into_iter().flatten().flatten());
        let aside = |path: &Path| path.to_string_lossy().contains(".set-aside-");
        entries
            .map(|entry| entry.path())
            .filter(|path| !self.things.contains_key(path) && !aside(path))
            .collect()
    }
}

/// Says where what was there lies now: it may be what the user wrote meanwhile.
fn put_back(path: &Path, before: &Thing) -> std::io::Result<Option<PathBuf>> {
    let now = path.symlink_metadata().ok();
    // Only its mode is another.
    let same = now.as_ref().is_some_and(|now| match before {
        Thing::File { bytes, .. } => {
            now.is_file() && now.nlink() == 1 && std::fs::read(path).is_ok_and(|now| now == *bytes)
        }
        Thing::Directory { .. } => now.is_dir(),
        Thing::Link(_) | Thing::Other => false,
    });
    let aside = if now.is_some() && !same { Some(set_aside(path)?) } else { None };
    match before {
        Thing::File { bytes, mode } => {
            // Written anew beside it and moved over it: whoever still holds the old file writes to nothing.
            let mut beside = path.as_os_str().to_owned();
            beside.push(format!(".set-aside-{}", std::process::id()));
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&beside)?;
            std::io::Write::write_all(&mut file, bytes)?;
            file.set_permissions(std::fs::Permissions::from_mode(*mode))?;
            std::fs::rename(&beside, path)?;
        }
        Thing::Directory { mode } => {
            if !same {
                std::fs::create_dir(path)?;
            }
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode))?;
        }
        Thing::Link(target) => symlink(target, path)?,
        Thing::Other => {}
    }
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn whatever_was_done_to_it_is_put_back() {
        type Change = (&'static str, fn(&Path));
        let changes: &[Change] = &[
            ("nothing", |_| {}),
            ("content", |git| fs::write(git.join("config"), "evil").unwrap()),
            ("removed", |git| fs::remove_file(git.join("config")).unwrap()),
            ("mode", |git| {
                fs::set_permissions(git.join("hooks/a"), fs::Permissions::from_mode(0o777)).unwrap()
            }),
            ("directory", |git| fs::remove_dir_all(git.join("hooks")).unwrap()),
            ("file for directory", |git| {
                fs::remove_dir_all(git.join("hooks")).unwrap();
                fs::write(git.join("hooks"), "x").unwrap();
            }),
            ("link for file", |git| {
                fs::remove_file(git.join("config")).unwrap();
                symlink(git.join("../outside"), git.join("config")).unwrap();
            }),
            ("link for directory", |git| {
                fs::remove_dir_all(git.join("hooks")).unwrap();
                symlink(git.join(".."), git.join("hooks")).unwrap();
            }),
            ("hard link", |git| fs::hard_link(git.join("config"), git.join("../twin")).unwrap()),
            ("planted", |git| fs::write(git.join("hooks/pre-push"), "evil").unwrap()),
        ];
        for (what, change) in changes {
            let root = tempfile::tempdir().unwrap();
            let root = root.path().canonicalize().unwrap();
            let git = root.join(".git");
            fs::create_dir_all(git.join("hooks")).unwrap();
            fs::write(git.join("config"), "[core]\n").unwrap();
            fs::write(git.join("hooks/a"), "#!/bin/sh\n").unwrap();
            fs::write(root.join("outside"), "kept").unwrap();
            let paths = [git.join("config"), git.join("hooks")];
            let before = Steering::of(&paths).unwrap();
            change(&git);
            let told = before.restore(&root);
            assert_eq!(told.is_empty(), ["nothing", "hard link"].contains(what), "{what}: {told:?}");
            let now = Steering::of(&paths).unwrap();
            let left: Vec<_> =
                now.things.iter().filter(|(path, _)| !path.to_string_lossy().contains("set-aside")).collect();
            assert_eq!(left, before.things.iter().collect::<Vec<_>>(), "{what}");
            assert_eq!(fs::read_to_string(root.join("outside")).unwrap(), "kept", "{what}");
            assert!(!git.join("hooks/pre-push").exists());
        }
    }

    #[test]
    fn what_was_written_meanwhile_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let config = root.join("config");
        fs::write(&config, "[core]\n").unwrap();
        let before = Steering::of(std::slice::from_ref(&config)).unwrap();
        fs::write(&config, "[user]\n").unwrap();
        let told = before.restore(&root);
        assert!(told.len() == 1 && told[0].ends_with("config.set-aside-1"), "{told:?}");
        assert_eq!(fs::read_to_string(&config).unwrap(), "[core]\n");
        assert_eq!(fs::read_to_string(root.join("config.set-aside-1")).unwrap(), "[user]\n");
        // With its mode alone nothing is lost.
        fs::set_permissions(&config, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(before.restore(&root).len(), 1);
        assert!(!root.join("config.set-aside-2").exists());
    }

    #[test]
    fn nothing_is_written_through_a_directory_that_was_exchanged() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let git = root.join(".git");
        fs::create_dir_all(&git).unwrap();
        fs::create_dir_all(root.join("elsewhere")).unwrap();
        fs::write(git.join("config"), "[core]\n").unwrap();
        let before = Steering::of(&[git.join("config")]).unwrap();
        fs::rename(&git, root.join("moved")).unwrap();
        symlink(root.join("elsewhere"), &git).unwrap();
        before.restore(&root);
        assert_eq!(fs::read_dir(root.join("elsewhere")).unwrap().count(), 0);
    }
}
