//! Git data in the workspace that runs code later: hooks, configuration, and the files that say where those are.
//!
//! [`Snapshot::of`] finds the repositories before a command and says what to pin and make read-only; what does not
//! exist cannot be mounted over, so [`Snapshot::check`] looks again afterwards: a hook or configuration planted in a
//! repository is moved out of the way, a new or exchanged repository is named.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Entries looked at in one walk, nearest first: a bound on time in huge trees.
const MOST_ENTRIES: usize = 50_000;

/// In a git directory: read-only where they exist, not to appear where they do not.
const STEERING: &[&str] = &["config", "config.worktree", "hooks", "commondir", "gitdir"];
/// Git directories of submodules and linked worktrees: read-only as a whole.
const INNER: &[&str] = &["modules", "worktrees"];

#[derive(Debug, Default)]
pub struct Snapshot {
    /// Every `.git`, with what tells it from another one put in its place.
    found: BTreeMap<PathBuf, Identity>,
    /// Steering files that could be there and are not.
    absent: Vec<PathBuf>,
    pub pinned: Vec<PathBuf>,
    pub read_only: Vec<PathBuf>,
}

#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    /// Where it is a link: to where.
    target: Option<PathBuf>,
}

impl Snapshot {
    pub fn of(root: &Path) -> Self {
        let mut snapshot = Self { found: find(root), ..Self::default() };
        let paths: Vec<PathBuf> = snapshot.found.keys().cloned().collect();
        for path in paths {
            let Ok(metadata) = path.symlink_metadata() else { continue };
            if metadata.is_file() {
                snapshot.read_only.push(path);
            } else if metadata.is_dir() {
                snapshot.guard(root, &path);
            } else if let Ok(target) = path.canonicalize()
                && target.is_dir()
                && target.starts_with(root)
            {
                snapshot.guard(root, &target);
            }
        }
        snapshot
    }

    fn guard(&mut self, root: &Path, git: &Path) {
        self.pinned.push(git.to_path_buf());
        for name in STEERING {
            let path = git.join(name);
            match path.symlink_metadata() {
                // A link cannot be mounted over, but what it shows can.
                Ok(metadata) if metadata.is_symlink() => {
                    self.read_only.extend(path.canonicalize().ok().filter(|real| real.starts_with(root)));
                }
                Ok(_) => self.read_only.push(path),
                Err(_) => self.absent.push(path),
            }
        }
        let inner = INNER.iter().map(|name| git.join(name));
        self.read_only.extend(inner.filter(|path| path.symlink_metadata().is_ok_and(|found| found.is_dir())));
        // Hooks kept in the working tree are hooks all the same.
        if let Some(hooks) = hooks_path(&git.join("config"))
            && let Some(tree) = git.parent()
            && let Ok(hooks) = tree.join(hooks).canonicalize()
            && hooks.starts_with(root)
            && hooks != root
        {
            self.read_only.push(hooks);
        }
    }

    /// Compares with what is there now; each line is for the user.
    pub fn check(&self, root: &Path) -> Vec<String> {
        let mut warnings = Vec::new();
        let shown = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
        for path in self.absent.iter().filter(|path| path.symlink_metadata().is_ok()) {
            warnings.push(match set_aside(path) {
                Ok(aside) => format!(
                    "the command made {}, which git would run or obey: it was moved to {}",
                    shown(path),
                    shown(&aside)
                ),
                Err(error) => format!(
                    "the command made {}, which git would run or obey, and it could not be moved away: {error}",
                    shown(path)
                ),
            });
        }
        let now = find(root);
        for (path, identity) in &now {
            match self.found.get(path) {
                None => warnings.push(format!(
                    "the command made a repository at {}: look at its config and hooks before using git there",
                    shown(path)
                )),
                Some(before) if before != identity => warnings.push(format!(
                    "the command exchanged {}: look at its config and hooks before using git there",
                    shown(path)
                )),
                Some(_) => {}
            }
        }
        for path in self.found.keys().filter(|path| !now.contains_key(*path)) {
            warnings.push(format!("the command removed or moved {}", shown(path)));
        }
        warnings
    }
}

fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    for number in 1.. {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".set-aside-{number}"));
        let aside = PathBuf::from(name);
        if aside.symlink_metadata().is_err() {
            std::fs::rename(path, &aside)?;
            return Ok(aside);
        }
    }
    Err(std::io::Error::other("no free name"))
}

/// All `.git` below `root`, without following links or looking inside git directories.
fn find(root: &Path) -> BTreeMap<PathBuf, Identity> {
    let mut found = BTreeMap::new();
    let mut seen = 0;
    let mut waiting = VecDeque::from([root.to_path_buf()]);
    while let Some(directory) = waiting.pop_front() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            seen += 1;
            // Case-folding file systems take `.GIT` for `.git`, and so does git there.
            if entry.file_name().eq_ignore_ascii_case(".git") {
                if let Ok(metadata) = entry.path().symlink_metadata() {
                    let target = std::fs::read_link(entry.path()).ok();
                    let identity = Identity { device: metadata.dev(), inode: metadata.ino(), target };
                    found.insert(entry.path(), identity);
                }
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push_back(entry.path());
            }
        }
        if seen > MOST_ENTRIES {
            break;
        }
    }
    found
}

/// `core.hooksPath` of a configuration, read as lines: good enough to protect more, never less.
fn hooks_path(config: &Path) -> Option<String> {
    let text = std::fs::read(config).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().rev().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (name.trim().eq_ignore_ascii_case("hookspath") && !value.is_empty()).then(|| value.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, read_to_string, remove_dir_all, rename, write};

    fn repository(root: &Path) -> PathBuf {
        let git = root.join(".git");
        create_dir_all(git.join("hooks")).unwrap();
        write(git.join("config"), "[core]\n\thooksPath = .githooks\n").unwrap();
        git
    }

    #[test]
    fn what_steers_git_is_guarded() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let git = repository(&root);
        create_dir_all(git.join("modules/a")).unwrap();
        create_dir_all(root.join(".githooks")).unwrap();
        create_dir_all(root.join("deep/er")).unwrap();
        write(root.join("deep/er/.git"), "gitdir: elsewhere\n").unwrap();
        let snapshot = Snapshot::of(&root);
        assert_eq!(snapshot.pinned, [git.clone()]);
        for path in [".git/config", ".git/hooks", ".git/modules", ".githooks", "deep/er/.git"] {
            assert!(snapshot.read_only.contains(&root.join(path)), "{path}");
        }
        assert_eq!(snapshot.check(&root), Vec::<String>::new());
    }

    #[test]
    fn planted_steering_files_are_set_aside_and_kept() {
        let root = tempfile::tempdir().unwrap();
        let git = repository(root.path());
        let snapshot = Snapshot::of(root.path());
        write(git.join("commondir"), "evil").unwrap();
        let warnings = snapshot.check(root.path());
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(!git.join("commondir").exists());
        assert_eq!(read_to_string(git.join("commondir.set-aside-1")).unwrap(), "evil");
    }

    #[test]
    fn new_exchanged_and_removed_repositories_are_named() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        repository(&root.join("old"));
        repository(&root.join("gone"));
        let snapshot = Snapshot::of(root);
        repository(&root.join("new"));
        rename(root.join("old/.git"), root.join("old/elsewhere")).unwrap();
        repository(&root.join("old"));
        remove_dir_all(root.join("gone")).unwrap();
        let warnings = snapshot.check(root).join("\n");
        for expected in ["made a repository at new/.git", "exchanged old/.git", "removed or moved gone/.git"] {
            assert!(warnings.contains(expected), "{expected}: {warnings}");
        }
    }
}
