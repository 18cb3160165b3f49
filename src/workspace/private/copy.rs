//! Copies a tree as it is: contents, modes, times (builds go by them) and links. Where the file system can, files share
//! their blocks: that is what the system's own copy does.

use crate::workspace::WorkspaceError;
use crate::workspace::node::Stamp;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

pub struct Copied {
    pub top: PathBuf,
    /// Every file and link, relative to the top, and the stamp of the one that it was copied from.
    pub paths: Vec<(PathBuf, Stamp)>,
}

/// `skip` is left out where it lies in the tree: a copy must not hold itself. What is there already stays, but for files
/// of the same name.
pub fn tree(from: &Path, to: &Path, skip: &Path, cancel: &AtomicBool) -> Result<Copied, WorkspaceError> {
    let mut paths = Vec::new();
    fs::create_dir_all(to).map_err(|error| failed(to, &error))?;
    // Directories whose modes are set at the end: one that may not be written is to be filled first.
    let mut modes: Vec<(PathBuf, u32)> = Vec::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        let source = from.join(&directory);
        let entries = match fs::read_dir(&source) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(&source, &error)),
        };
        for entry in entries {
            if cancel.load(Ordering::SeqCst) {
                let message = "interrupted while the workspace was copied".to_string();
                return Err(WorkspaceError::Machine { message, hint: "start again".into() });
            }
            let entry = entry.map_err(|error| failed(&source, &error))?;
            let relative = directory.join(entry.file_name());
            let (source, target) = (entry.path(), to.join(&relative));
            let of = match entry.metadata() {
                Ok(of) => of,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(&source, &error)),
            };
            let copied = if of.is_dir() {
                if source == skip {
                    continue;
                }
                modes.push((target.clone(), of.mode() & 0o7777));
                waiting.push(relative);
                fs::create_dir_all(&target)
            } else if of.is_symlink() {
                paths.push((relative, Stamp::of(&of)));
                fs::read_link(&source).and_then(|leads_to| symlink(leads_to, &target))
            } else if of.is_file() {
                paths.push((relative, Stamp::of(&of)));
                fs::copy(&source, &target).and_then(|_| same_times(&target, &of))
            } else {
                // Sockets, pipes and devices belong to what runs in the original.
                continue;
            };
            match copied {
                // Gone since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !source.exists() => {}
                Err(error) => return Err(failed(&source, &error)),
                Ok(()) => {}
            }
        }
    }
    for (path, mode) in modes.into_iter().rev() {
        let _ = fs::set_permissions(path, Permissions::from_mode(mode));
    }
    Ok(Copied { top: to.to_path_buf(), paths })
}

/// The build directories of Cargo beneath `top`, known by what it notes there of its compiler.
pub fn cargo_builds(top: &Path, depth: usize) -> Vec<PathBuf> {
    if top.join(".rustc_info.json").is_file() {
        return vec![top.to_path_buf()];
    }
    if depth == 0 {
        return Vec::new();
    }
    let entries = fs::read_dir(top).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.flat_map(|entry| cargo_builds(&entry.path(), depth - 1)).collect()
}

fn same_times(path: &Path, of: &Metadata) -> io::Result<()> {
    let time = |seconds: i64, nanoseconds: i64| Timespec { tv_sec: seconds as _, tv_nsec: nanoseconds as _ };
    let times = Timestamps {
        last_access: time(of.atime(), of.atime_nsec()),
        last_modification: time(of.mtime(), of.mtime_nsec()),
    };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

pub fn failed(path: &Path, error: &io::Error) -> WorkspaceError {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => "see that every file of the workspace can be read",
        io::ErrorKind::StorageFull => {
            "make room, or set XDG_CACHE_HOME or TMPDIR to a directory on the workspace's own file system"
        }
        _ => "see that the workspace can be read whole",
    };
    let message = format!("the workspace cannot be copied: {}: {error}", path.display());
    WorkspaceError::Machine { message, hint: hint.into() }
}

/// Lets every directory of a tree be written.
pub fn open_up(path: &Path) {
    let _ = fs::set_permissions(path, Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_built_is_found_and_brought_with_its_times() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |path: &str| first.path().join(path);
        for directory in ["target/debug/target", "crates/a/target", "a/b/c/d/target", "build", "src"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        for build in ["target", "target/debug/target", "crates/a/target", "a/b/c/d/target"] {
            fs::write(at(build).join(".rustc_info.json"), "{}").unwrap();
        }
        fs::write(at("build/CMakeCache.txt"), "").unwrap();
        let mut builds = cargo_builds(first.path(), 3);
        builds.sort();
        assert_eq!(builds, ["crates/a/target", "target"].map(at));
        let long_ago = fs::File::options().write(true).open(at("target/.rustc_info.json")).unwrap();
        long_ago.set_modified(std::time::UNIX_EPOCH).unwrap();
        let place = second.path().join("target");
        tree(&at("target"), &place, Path::new(""), &AtomicBool::new(false)).unwrap();
        let modified = place.join(".rustc_info.json").metadata().unwrap().modified().unwrap();
        assert_eq!(modified, std::time::UNIX_EPOCH);
        assert!(place.join("debug/target").is_dir());
    }
}
