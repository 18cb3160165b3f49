//! One file replaced as a whole or not at all: a temporary file beside it, synced, then renamed over it.
//!
//! Works on a directory handle that the guard opened, never on a path. Whether the write is allowed, and what is
//! remembered for undo, is up to `mod`.

use super::faults;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};

pub type Hash = [u8; 32];

pub fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// What must be there at the moment of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Absent,
    Hash(Hash),
}

#[derive(Debug)]
pub enum WriteError {
    /// The file is not what was expected: someone else wrote it meanwhile.
    Changed,
    Io(Errno),
}

impl From<Errno> for WriteError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno)
    }
}

impl From<std::io::Error> for WriteError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

/// Whose mode and owner a written file has.
#[derive(Debug, Clone)]
pub enum Attributes {
    Like(Stat),
    /// This mode, less what the process's umask takes.
    New(u32),
    /// This mode, and the owner who writes.
    Exactly(u32),
}

impl Attributes {
    /// The permission bits asked for.
    pub fn mode(&self) -> u32 {
        match self {
            Self::Like(stat) => stat.st_mode & 0o7777,
            Self::New(mode) | Self::Exactly(mode) => mode & 0o7777,
        }
    }
}

/// When written bytes have to be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// When the call returns.
    Now,
    /// Whoever writes many files syncs all of them at the end.
    Later,
}

/// Puts `bytes` in the place of `name` in `directory`, and on disk. `temporary` is what the new file is called until then: a
/// [`temporary_name`].
pub fn replace(
    directory: &OwnedFd,
    name: &OsStr,
    bytes: &[u8],
    attributes: Attributes,
    expected: Expected,
    temporary: &str,
) -> Result<(), WriteError> {
    put(directory, name, bytes, attributes, expected, temporary, Sync::Now)
}

/// The same, on disk now or later.
pub fn put(
    directory: &OwnedFd,
    name: &OsStr,
    bytes: &[u8],
    attributes: Attributes,
    expected: Expected,
    temporary: &str,
    when: Sync,
) -> Result<(), WriteError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Where the mode is to be copied, nobody else reads the new text before that is done.
    let mode = match &attributes {
        Attributes::Like(_) | Attributes::Exactly(_) => 0o600,
        Attributes::New(mode) => *mode,
    };
    faults::step()?;
    let file = rustix::fs::openat(directory, temporary, flags, Mode::from_raw_mode(mode))?;
    let written = fill(File::from(file), bytes, &attributes, when)
        .and_then(|()| put_in_place(directory, temporary, name, expected));
    if written.is_err() {
        let _ = unlink(directory, temporary.as_ref());
    }
    written?;
    if when == Sync::Now {
        // The rename is done; a directory that cannot be synced (some network file systems) does not undo it.
        let _ = sync(directory);
    }
    Ok(())
}

/// Removes `name` if it still is what was expected.
pub fn remove(directory: &OwnedFd, name: &OsStr, expected: Hash) -> Result<(), WriteError> {
    if current(directory, name)? != Expected::Hash(expected) {
        return Err(WriteError::Changed);
    }
    unlink(directory, name)?;
    let _ = sync(directory);
    Ok(())
}

pub fn unlink(directory: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    faults::step()?;
    rustix::fs::unlinkat(directory, name, AtFlags::empty())
}

pub fn sync(file: impl AsFd) -> Result<(), Errno> {
    faults::step()?;
    rustix::fs::fsync(file)
}

fn fill(mut file: File, bytes: &[u8], attributes: &Attributes, when: Sync) -> Result<(), WriteError> {
    faults::step()?;
    file.write_all(bytes)?;
    if let Attributes::Like(like) = attributes {
        let own = rustix::fs::fstat(&file)?;
        if (own.st_uid, own.st_gid) != (like.st_uid, like.st_gid) {
            // Only root may give files away; anyone else keeps them, which is no reason to fail.
            let (uid, gid) = (
                rustix::fs::Uid::from_raw(like.st_uid), //
                rustix::fs::Gid::from_raw(like.st_gid),
            );
            let _ = rustix::fs::fchown(&file, Some(uid), Some(gid));
        }
    }
    if let Attributes::Like(Stat { st_mode: mode, .. }) | Attributes::Exactly(mode) = attributes {
        // After the owner: changing that clears set-id bits.
        faults::step()?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
    }
    if when == Sync::Now {
        sync(&file)?;
    }
    Ok(())
}

fn put_in_place(
    directory: &OwnedFd,
    temporary: &str,
    name: &OsStr,
    expected: Expected,
) -> Result<(), WriteError> {
    match expected {
        Expected::Hash(_) => {
            if current(directory, name)? != expected {
                return Err(WriteError::Changed);
            }
            faults::step()?;
            rustix::fs::renameat(directory, temporary, directory, name)?;
        }
        // A link fails where the name exists, on every unix; a rename would replace what appeared meanwhile.
        Expected::Absent => match link(directory, temporary, name) {
            Ok(()) => {
                if let Err(errno) = unlink(directory, temporary.as_ref()) {
                    // Not written is not there.
                    let _ = unlink(directory, name);
                    return Err(errno.into());
                }
            }
            Err(Errno::EXIST) => return Err(WriteError::Changed),
            // File systems without hard links (FAT, some shares).
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                if current(directory, name)? != Expected::Absent {
                    return Err(WriteError::Changed);
                }
                rustix::fs::renameat(directory, temporary, directory, name)?;
            }
            Err(errno) => return Err(errno.into()),
        },
    }
    Ok(())
}

fn link(directory: &OwnedFd, from: &str, to: &OsStr) -> Result<(), Errno> {
    faults::step()?;
    rustix::fs::linkat(directory, from, directory, to, AtFlags::empty())
}

/// What is there now. Anything but a regular file counts as changed.
fn current(directory: &OwnedFd, name: &OsStr) -> Result<Expected, WriteError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    faults::step()?;
    let file = match rustix::fs::openat(directory.as_fd(), name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(Expected::Absent),
        Err(Errno::LOOP | Errno::NXIO) => return Err(WriteError::Changed),
        Err(errno) => return Err(errno.into()),
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(WriteError::Changed);
    }
    Ok(Expected::Hash(hash_rest(&mut File::from(file))?))
}

/// The hash of what is left to read of a file.
pub fn hash_rest(file: &mut File) -> std::io::Result<Hash> {
    let mut digest = Sha256::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digest.finalize().into()),
            n => digest.update(&buffer[..n]),
        }
    }
}

const TEMPORARY: (&str, &str) = (".qwright-", ".tmp");

/// A name nobody can guess: `RandomState` is keyed by the operating system's randomness.
pub fn temporary_name() -> String {
    let state = RandomState::new();
    let (start, end) = TEMPORARY;
    format!("{start}{:016x}{:016x}{end}", state.hash_one(0), state.hash_one(1))
}

/// The part of a temporary name that nobody can guess; `None` where it is no such name.
pub fn unguessable(temporary: &str) -> Option<&str> {
    let (start, end) = TEMPORARY;
    let digits = temporary.strip_prefix(start)?.strip_suffix(end)?;
    (digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn open(path: &std::path::Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    #[test]
    fn a_file_that_changed_is_not_replaced_and_nothing_is_left_behind() {
        let root = tempfile::tempdir().unwrap();
        let directory = open(root.path());
        let name = OsStr::new("f");
        let path = root.path().join("f");
        std::fs::write(&path, "theirs").unwrap();
        let stale = Expected::Hash(hash(b"ours"));
        assert!(matches!(
            replace(&directory, name, b"new", Attributes::New(0o666), stale, &temporary_name()),
            Err(WriteError::Changed)
        ));
        assert!(matches!(
            replace(&directory, name, b"new", Attributes::New(0o666), Expected::Absent, &temporary_name()),
            Err(WriteError::Changed)
        ));
        assert!(matches!(remove(&directory, name, hash(b"ours")), Err(WriteError::Changed)));
        assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn mode_is_copied_and_a_hard_link_elsewhere_keeps_its_text() {
        let root = tempfile::tempdir().unwrap();
        let directory = open(root.path());
        let (path, other) = (root.path().join("f"), root.path().join("other"));
        std::fs::write(&path, "old").unwrap();
        std::fs::hard_link(&path, &other).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o751)).unwrap();
        let stat = rustix::fs::stat(&path).unwrap();
        let expected = Expected::Hash(hash(b"old"));
        replace(&directory, "f".as_ref(), b"new", Attributes::Like(stat), expected, &temporary_name())
            .unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o751);
        assert_eq!(std::fs::read(&other).unwrap(), b"old");
    }
}
