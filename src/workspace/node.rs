//! What stands at a place: a file by the hash of its bytes, a link by where it leads, a directory by its mode. It is
//! looked at through the guard: no link is followed, and nothing but a regular file is opened. What it was and what
//! becomes of it is for `journal`, `undo` and `checkpoint` to say.

use super::Workspace;
use super::guard::Location;
use super::write::{self, Hash};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;

/// The permission bits of a mode.
pub const PERMISSIONS: u32 = 0o7777;

pub const UNREADABLE: &str = "it cannot be read";
const NO_PLAIN_FILE: &str = "it is no plain file";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Absent,
    File {
        hash: Hash,
        mode: u32,
    },
    Link {
        target: OsString,
    },
    Directory {
        mode: u32,
    },
    /// There, and known by its stamp alone.
    Opaque {
        why: &'static str,
        stamp: Stamp,
    },
}

impl Node {
    /// Of the bytes of a file.
    pub fn hash(&self) -> Option<Hash> {
        match self {
            Self::File { hash, .. } => Some(*hash),
            _ => None,
        }
    }

    /// A directory or nothing: whatever lies in it is a node of its own.
    pub fn is_no_more_than_directory(&self) -> bool {
        matches!(self, Self::Absent | Self::Directory { .. })
    }

    /// The same but for the mode.
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { hash, .. }, Self::File { hash: other, .. }) => hash == other,
            (Self::Directory { .. }, Self::Directory { .. }) => true,
            _ => self == other,
        }
    }
}

/// A file that has the same one was not written: the time of a change of status cannot be set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    pub mode: u32,
    pub modified: (i64, i64),
    pub changed: (i64, i64),
}

impl Stamp {
    pub fn of(of: &Metadata) -> Self {
        Self {
            device: of.dev(),
            inode: of.ino(),
            size: of.size(),
            mode: of.mode(),
            modified: (of.mtime(), of.mtime_nsec()),
            changed: (of.ctime(), of.ctime_nsec()),
        }
    }
}

impl Workspace {
    /// What stands at `location` now.
    pub(super) fn node(&self, location: &Location) -> Result<Node, Errno> {
        self.node_with(location, &mut |file, _| write::hash_rest(file).map_err(|_| UNREADABLE))
    }

    /// The same. `hash` takes in the bytes of a file, which had so many when it was opened, or says why it does not.
    pub(super) fn node_with(
        &self,
        location: &Location,
        hash: &mut dyn FnMut(&mut File, u64) -> Result<Hash, &'static str>,
    ) -> Result<Node, Errno> {
        let (Some(parent), Ok(name)) = (self.guard.open_parent(location)?, self.guard.name(location)) else {
            return Ok(Node::Absent);
        };
        let stat = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Node::Absent),
            Err(errno) => return Err(errno),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Ok(Node::Directory { mode: stat.st_mode & PERMISSIONS }),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&parent, name, Vec::new())?;
                Ok(Node::Link { target: OsString::from_vec(target.into_bytes()) })
            }
            FileType::RegularFile => {
                let flags =
                    OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                let mut file = match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
                    Ok(file) => File::from(file),
                    Err(Errno::ACCESS | Errno::PERM) => return Ok(self.opaque(location, UNREADABLE)),
                    Err(errno) => return Err(errno),
                };
                let stat = rustix::fs::fstat(&file)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Ok(self.opaque(location, NO_PLAIN_FILE));
                }
                match hash(&mut file, u64::try_from(stat.st_size).unwrap_or(0)) {
                    Ok(hash) => Ok(Node::File { hash, mode: stat.st_mode & PERMISSIONS }),
                    Err(why) => Ok(self.opaque(location, why)),
                }
            }
            _ => Ok(self.opaque(location, NO_PLAIN_FILE)),
        }
    }

    /// What stands there now, looked at as closely as `wanted` is known.
    pub(super) fn node_as(&self, location: &Location, wanted: &Node) -> Result<Node, Errno> {
        match wanted {
            Node::Opaque { why, .. } => {
                let now = self.opaque(location, why);
                if now == *wanted { Ok(now) } else { self.node(location) }
            }
            _ => self.node(location),
        }
    }

    fn opaque(&self, location: &Location, why: &'static str) -> Node {
        // The way there is looked at first: a name behind a link is none of the workspace's.
        let there = matches!(self.guard.open_parent(location), Ok(Some(_)));
        match self.guard.absolute(location).symlink_metadata() {
            Ok(of) if there => Node::Opaque { why, stamp: Stamp::of(&of) },
            _ => Node::Absent,
        }
    }
}
