//! The directory of one process for logs and for the private layers of build caches: mode 0700, gone when the process
//! ends, and swept away by a later one where the process was killed.

use crate::workspace::sandbox::layout::make_deletable;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const PREFIX: &str = "qwright-";
/// A file that tells our directories from a user's that happen to have such a name.
const MARK: &str = ".qwright-commands";
/// A directory this young may belong to a process that has not locked it yet.
const SETTLED: Duration = Duration::from_secs(60);

/// The per-process directory (mode 0700) for logs and the private layers of build caches.
pub struct State {
    directory: tempfile::TempDir,
    /// Locked as long as we live, so that another process can tell what was left behind.
    _lock: OwnedFd,
    next_log: AtomicUsize,
    /// Cache layers no command is using; two commands never write one layer.
    idle_layers: Mutex<Vec<PathBuf>>,
    next_layer: AtomicUsize,
}

impl State {
    pub fn new() -> std::io::Result<Self> {
        let only_us = std::fs::Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new().prefix(PREFIX).permissions(only_us).tempdir()?;
        let lock = lock(directory.path()).ok_or_else(|| std::io::Error::other("it is locked"))?;
        std::fs::write(directory.path().join(MARK), "")?;
        sweep(&std::env::temp_dir());
        Ok(Self {
            directory,
            _lock: lock,
            next_log: AtomicUsize::new(1),
            idle_layers: Mutex::new(Vec::new()),
            next_layer: AtomicUsize::new(0),
        })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn next_log(&self) -> PathBuf {
        let number = self.next_log.fetch_add(1, Ordering::Relaxed);
        self.directory.path().join(format!("command-{number}.log"))
    }

    pub fn take_layer(&self) -> Layer<'_> {
        let idle = self.idle_layers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let path = idle.unwrap_or_else(|| {
            let number = self.next_layer.fetch_add(1, Ordering::Relaxed);
            self.directory.path().join(format!("caches-{number}"))
        });
        Layer { state: self, path }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // overlayfs leaves a directory of mode 0 behind, which its owner cannot list and so not delete.
        make_deletable(self.directory.path());
    }
}

/// The private layer of the build caches, lent to one command at a time and kept for the next.
pub struct Layer<'a> {
    state: &'a State,
    path: PathBuf,
}

impl Layer<'_> {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Layer<'_> {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        self.state.idle_layers.lock().unwrap_or_else(PoisonError::into_inner).push(path);
    }
}

/// Locks a directory; `None` where another process has it.
fn lock(directory: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(directory, flags, Mode::empty()).ok()?;
    flock(&opened, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(opened)
}

/// Removes the directories of processes that were killed. Best effort: others may be sweeping as well.
fn sweep(temporary: &Path) {
    for entry in std::fs::read_dir(temporary).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let ours = metadata.is_dir()
            && metadata.uid() == rustix::process::getuid().as_raw()
            && metadata.permissions().mode() & 0o777 == 0o700
            && entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
        let settled =
            metadata.modified().ok().and_then(|time| time.elapsed().ok()).is_some_and(|age| age > SETTLED);
        if ours && settled && path.join(MARK).is_file() && lock(&path).is_some() {
            make_deletable(&path);
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, FileTimes};
    use std::time::SystemTime;

    #[test]
    fn only_what_a_dead_process_left_is_swept() {
        let temporary = tempfile::tempdir().unwrap();
        let make = |name: &str, mark: bool, old: bool| {
            let path = temporary.path().join(name);
            std::fs::create_dir_all(path.join("caches-0/work")).unwrap();
            if mark {
                File::create(path.join(MARK)).unwrap();
            }
            std::fs::set_permissions(path.join("caches-0/work"), PermissionsExt::from_mode(0o000)).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
            let time = SystemTime::now() - if old { SETTLED * 2 } else { Duration::ZERO };
            File::open(&path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
            path
        };
        let dead = make("qwright-dead", true, true);
        let living = make("qwright-living", true, true);
        let _held = lock(&living).unwrap();
        let young = make("qwright-young", true, false);
        let project = make("qwright-project", false, true);
        let other = make("something", true, true);
        sweep(temporary.path());
        assert!(!dead.exists());
        assert!(living.exists() && young.exists() && project.exists() && other.exists());
        make_deletable(temporary.path());
    }
}
