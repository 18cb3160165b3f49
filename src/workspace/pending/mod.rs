//! Changes of several files on their way: before the first file of one is touched, a record (`record`) of what all of
//! them were lies in the state directory, outside the repository; when the last is in place it goes. A record that is
//! found at a start is of a change that somebody's death, or a full disk, cut off: `recover` takes it back.
//!
//! Whoever makes the change holds the record's lock. The lock of the directory is for what must not be seen half done:
//! a record is locked before anybody looks whether it is, and one start at a time looks.

mod record;
mod recover;
#[cfg(test)]
mod tests;

use super::guard::Location;
use super::{Workspace, WorkspaceError, faults, write};
pub use record::Part;
use record::{Name, Record};
pub use recover::Recovery;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where the records lie in the state directory, how their names end, and those of records that cannot be read.
const DIRECTORY: &str = "pending";
const RECORD: &str = ".change";
const DAMAGED: &str = ".damaged";
/// A record that is being written.
const DRAFT: &str = ".draft";

/// A change whose record is on disk.
pub struct Begun {
    directory: File,
    /// Holds the lock.
    file: File,
    name: String,
    temporary: String,
}

impl Workspace {
    /// From now on changes of several files are recorded in `state` before they are made, and no tool writes there.
    /// What an earlier process left unfinished in this workspace is taken back.
    pub fn use_state(&mut self, state: &Path) -> Recovery {
        let directory = state.join(DIRECTORY);
        let recovery = self.recover(&directory);
        self.guard.close(state);
        self.pending = recovery.unavailable.is_none().then_some(directory);
        recovery
    }

    /// Lets no tool write in `directory`, unless the workspace lies in it.
    pub fn close(&mut self, directory: &Path) {
        self.guard.close(directory);
    }

    /// The directory of this program's state, outside the repository; `None` where there is none that can be written.
    pub fn state_directory(&self) -> Option<&Path> {
        self.pending.as_deref()?.parent()
    }

    /// Records what is about to be done, where that is more than one file.
    pub(super) fn begin(&self, parts: impl FnOnce() -> Vec<Part>) -> Result<Option<Begun>, WorkspaceError> {
        let Some(directory) = &self.pending else { return Ok(None) };
        let parts = parts();
        if parts.len() < 2 {
            return Ok(None);
        }
        let mut missing: Vec<Location> = Vec::new();
        for part in &parts {
            if let Some(location) = self.guard.place(part.place.root, &part.place.path.0) {
                missing.extend(self.guard.missing_parents(&location)?);
            }
        }
        missing.sort();
        missing.dedup();
        let record = Record {
            roots: self.guard.roots().map(|(_, real)| Name(real.to_path_buf())).collect(),
            temporary: write::temporary_name(),
            parts,
            made: missing.iter().map(Into::into).collect(),
        };
        Begun::write(directory, record).map(Some).map_err(|error| WorkspaceError::Machine {
            message: format!(
                "nothing was changed, since what is to be changed cannot be recorded first in {}: {error}",
                directory.display()
            ),
            hint: "free some space there, or set XDG_STATE_HOME to a directory that can be written".into(),
        })
    }
}

impl Begun {
    fn write(path: &Path, record: Record) -> std::io::Result<Self> {
        let bytes = record.encode()?;
        let directory = open_directory(path)?;
        retry_on_intr(|| flock(&directory, FlockOperation::LockShared))?;
        // Later ones are taken back first, and go by their names.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let unguessable = write::unguessable(&record.temporary).unwrap_or_default();
        let name = format!("{now:032x}-{unguessable}{RECORD}");
        let draft = format!(".{name}{DRAFT}");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        faults::step()?;
        let file = rustix::fs::openat(&directory, draft.as_str(), flags, Mode::from_raw_mode(0o600))?;
        let begun = Self { directory, file: file.into(), name, temporary: record.temporary };
        match begun.publish(&draft, &bytes) {
            Ok(()) => Ok(begun),
            Err(error) => {
                let _ = write::unlink(&begun.directory, draft.as_ref());
                // It may have its name already.
                let _ = begun.finish();
                Err(error)
            }
        }
    }

    fn publish(&self, draft: &str, bytes: &[u8]) -> std::io::Result<()> {
        flock(&self.file, FlockOperation::NonBlockingLockExclusive)?;
        faults::step()?;
        (&self.file).write_all(bytes)?;
        write::sync(&self.file)?;
        faults::step()?;
        rustix::fs::renameat(&self.directory, draft, &self.directory, self.name.as_str())?;
        sync_directory(&self.directory)?;
        Ok(flock(&self.directory, FlockOperation::Unlock)?)
    }

    /// What new files are called until they are in place.
    pub fn temporary(&self) -> &str {
        &self.temporary
    }

    /// The change is whole, or nothing of it is left: the record goes. One that would stay could take back what is done
    /// later; so where it cannot be removed it is made empty, which says the same.
    pub fn finish(&self) -> Result<(), Errno> {
        remove(&self.directory, &self.file, &self.name)
    }
}

fn remove(directory: &File, file: &File, name: &str) -> Result<(), Errno> {
    write::unlink(directory, name.as_ref()).and_then(|()| sync_directory(directory)).or_else(|_| {
        faults::step()?;
        rustix::fs::ftruncate(file, 0)?;
        write::sync(file)
    })
}

/// Some network file systems cannot sync a directory, which is no failure of the disk.
fn sync_directory(directory: &File) -> Result<(), Errno> {
    match write::sync(directory) {
        Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        done => done,
    }
}

fn open_directory(path: &Path) -> std::io::Result<File> {
    faults::step()?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    File::open(path)
}
