//! What a start does with the records that it finds: changes that were cut off are taken back, file by file, where a file
//! still is exactly what the change made of it. What somebody wrote since is theirs, and is named.

use super::record::{Name, Part, Place, Record};
use super::{DAMAGED, DRAFT, RECORD, remove, sync_directory};
use crate::workspace::guard::Location;
use crate::workspace::write::{self, Attributes, Hash, WriteError};
use crate::workspace::{Workspace, WorkspaceError, read_error};
use rustix::fs::{Access, FlockOperation, Mode, OFlags, flock};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A process that was killed holds its locks until the system has taken its memory back; one that lives is soon done.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// Files that a line names.
const NAMED: usize = 10;

/// What became of changes that were cut off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Files that are again as they were.
    pub restored: Vec<String>,
    /// Files that were left alone, and why.
    pub kept: Vec<(String, String)>,
    /// What else there is to say: of records that cannot be read, say.
    pub notes: Vec<String>,
    /// Why there can be no records here: changes of several files are made without.
    pub unavailable: Option<String>,
}

impl Recovery {
    /// For the user, where there is anything to tell.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.restored.is_empty() {
            let named: Vec<&str> = self.restored.iter().take(NAMED).map(String::as_str).collect();
            let more = match self.restored.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            lines.push(format!("a change that was cut off was taken back: {}{more}", named.join(", ")));
        }
        let kept = self.kept.iter().map(|(path, why)| format!("{path} stays as it is: {why}"));
        lines.into_iter().chain(kept).chain(self.notes.iter().cloned()).collect()
    }
}

/// What a file is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Before,
    After,
    Neither,
}

/// Why a file was not put back.
enum Unrestored {
    /// It is somebody else's by now.
    Changed(&'static str),
    Failed(String),
}

/// What becomes of a record.
enum Fate {
    Done,
    Damaged,
    /// It is for a later start.
    Stays,
}

impl Workspace {
    pub(super) fn recover(&self, path: &Path) -> Recovery {
        let mut recovery = Recovery::default();
        let directory = match look_into(path) {
            Ok(Some(directory)) => directory,
            Ok(None) => return recovery,
            Err(error) => {
                let path = path.display();
                recovery.unavailable = Some(format!(
                    "changes of several files cannot be recorded before they are made: {path}: {error}"
                ));
                return recovery;
            }
        };
        for name in names_in(path) {
            if name.ends_with(DRAFT) {
                // Whoever writes one holds the directory's lock.
                let _ = write::unlink(&directory, name.as_ref());
            } else if name.ends_with(RECORD)
                && let Err(error) = self.take_up(&directory, path, &name, &mut recovery)
            {
                let path = path.join(&name);
                recovery.notes.push(format!("{} was not looked into: {error}", path.display()));
            }
        }
        recovery
    }

    fn take_up(
        &self,
        directory: &File,
        path: &Path,
        name: &str,
        recovery: &mut Recovery,
    ) -> std::io::Result<()> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mut file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            // Somebody's change came to its end.
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let record = Record::decode(&bytes);
        if record.as_ref().is_some_and(|record| !self.concerns(record)) {
            return Ok(());
        }
        if !locked(&file) {
            let text = "a change of several files is being made here by another process at this moment";
            recovery.notes.push(text.into());
            return Ok(());
        }
        // Whoever held the lock may have come to an end meanwhile.
        let now = file.metadata()?;
        let fate = match record {
            _ if now.nlink() == 0 => return Ok(()),
            _ if now.len() == 0 => Fate::Done,
            None => Fate::Damaged,
            Some(record) => self.roll_back(&record, path, recovery),
        };
        match fate {
            Fate::Stays => Ok(()),
            Fate::Done => Ok(remove(directory, &file, name)?),
            Fate::Damaged => {
                let aside = format!("{name}{DAMAGED}");
                rustix::fs::renameat(directory, name, directory, aside.as_str())?;
                let _ = sync_directory(directory);
                recovery.notes.push(format!(
                    "the record of a change that was cut off is damaged, and was not used: {}",
                    path.join(aside).display()
                ));
                Ok(())
            }
        }
    }

    /// Whether a record is of this workspace, of a directory in it, or of the repository it lies in.
    fn concerns(&self, record: &Record) -> bool {
        let Some(Name(root)) = record.roots.first() else { return true };
        self.guard.roots().any(|(_, own)| root.starts_with(own)) || *root == self.git_top()
    }

    fn roll_back(&self, record: &Record, directory: &Path, recovery: &mut Recovery) -> Fate {
        let roots: Vec<PathBuf> = record.roots.iter().map(|Name(root)| root.clone()).collect();
        let Some((first, others)) = roots.split_first() else { return Fate::Damaged };
        if matches!(first.try_exists(), Ok(false)) {
            return Fate::Done;
        }
        let there = match Self::open(first, others) {
            Ok(mut there) => {
                directory.parent().into_iter().for_each(|state| there.guard.close(state));
                there
            }
            Err(error) => {
                recovery.notes.push(format!("a change that was cut off could not be taken back: {error}"));
                return Fate::Stays;
            }
        };
        let place = |place: &Place| there.guard.place(place.root, &place.path.0);
        let parts: Option<Vec<(Location, &Part)>> =
            record.parts.iter().map(|part| Some((place(&part.place)?, part))).collect();
        let Some(parts) = parts else { return Fate::Damaged };
        for (location, _) in &parts {
            if let Ok(Some(parent)) = there.guard.open_parent(location) {
                let _ = write::unlink(&parent, record.temporary.as_ref());
            }
        }
        let mut found = Vec::with_capacity(parts.len());
        for (location, part) in &parts {
            match there.found(location, part) {
                Ok(state) => found.push(state),
                Err(error) => {
                    recovery
                        .notes
                        .push(format!("a change that was cut off could not be taken back: {error}"));
                    return Fate::Stays;
                }
            }
        }
        if found.iter().all(|found| *found == Found::After) {
            // Cut off when all was done.
            return Fate::Done;
        }
        let mut fate = Fate::Done;
        // Backwards: what was removed last is there first, so that until the end every text is on disk.
        for ((location, part), found) in parts.iter().zip(found).rev() {
            let shown = match there.root() == self.root() {
                true => there.guard.display(location),
                false => there.guard.absolute(location).to_string_lossy().into_owned(),
            };
            let done = match found {
                Found::Before => continue,
                Found::Neither => Err(Unrestored::Changed(
                    "a change of several files was cut off, and somebody changed it since",
                )),
                Found::After => there.put_back_part(location, part, &record.temporary),
            };
            match done {
                Ok(()) => recovery.restored.push(shown),
                Err(Unrestored::Changed(why)) => recovery.kept.push((shown, why.into())),
                Err(Unrestored::Failed(why)) => {
                    fate = Fate::Stays;
                    recovery.notes.push(format!(
                        "a change that was cut off could not be taken back in {shown}; the next start tries again: {why}"
                    ));
                }
            }
        }
        let mut made: Vec<Location> = record.made.iter().filter_map(place).collect();
        made.sort();
        made.iter().rev().for_each(|directory| there.guard.remove_directory_if_empty(directory));
        recovery.restored.sort();
        fate
    }

    fn put_back_part(&self, location: &Location, part: &Part, temporary: &str) -> Result<(), Unrestored> {
        // The record lies where tools do not write; should one have made it after all, it does no more than a tool can.
        if self.guard.check_writable(location).is_err() {
            return Err(Unrestored::Changed("no tool may write there"));
        }
        let before = part.before.as_ref().map(|before| (&before.bytes[..], before.mode));
        self.restore(location, before, part.after.as_ref().map(|after| after.hash), temporary)
    }

    /// Makes one file what it was, where it still is what was written (`after`).
    fn restore(
        &self,
        location: &Location,
        before: Option<(&[u8], u32)>,
        after: Option<Hash>,
        temporary: &str,
    ) -> Result<(), Unrestored> {
        let changed = || Unrestored::Changed("it was changed by someone else since");
        let now = self.now(location);
        match (&now, after) {
            (None, _) if before.is_none() => return Ok(()),
            (None, Some(_)) => return Err(Unrestored::Changed("it was removed since")),
            (None, None) => {}
            (Some((now, _)), after) if Some(write::hash(now)) == after => {}
            (Some(_), _) => return Err(changed()),
        }
        let describe = |error: WriteError| match error {
            WriteError::Changed => changed(),
            WriteError::Io(errno) => Unrestored::Failed(errno.to_string()),
        };
        let failed = |error: WorkspaceError| Unrestored::Failed(error.to_string());
        let (directory, _) = self.guard.make_parent(location).map_err(failed)?;
        let name = self.guard.name(location).map_err(failed)?;
        match (before, after) {
            (None, Some(after)) => write::remove(&directory, name, after).map_err(describe),
            (None, None) => Ok(()),
            (Some((bytes, mode)), Some(after)) => {
                let Ok(Some((_, mut stat))) = self.guard.open_file(location) else { return Err(changed()) };
                stat.st_mode = mode;
                let expected = write::Expected::Hash(after);
                write::replace(&directory, name, bytes, Attributes::Like(stat), expected, temporary)
                    .map_err(describe)
            }
            (Some((bytes, mode)), None) => {
                let (attributes, expected) = (Attributes::Exactly(mode), write::Expected::Absent);
                write::replace(&directory, name, bytes, attributes, expected, temporary).map_err(describe)
            }
        }
    }

    /// Bytes and mode of what is there.
    pub(in crate::workspace) fn now(&self, location: &Location) -> Option<(Vec<u8>, u32)> {
        let (mut file, stat) = self.guard.open_file(location).ok()??;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        Some((bytes, stat.st_mode))
    }

    fn found(&self, location: &Location, part: &Part) -> Result<Found, WorkspaceError> {
        let now = match self.guard.open_file(location) {
            Ok(Some((mut file, stat))) => {
                let path = self.guard.display(location);
                let hash = write::hash_rest(&mut file).map_err(|error| read_error(&path, &error))?;
                Some((hash, stat.st_mode & 0o7777))
            }
            Ok(None) => None,
            // A directory or a link took its place.
            Err(WorkspaceError::Refused(_)) => return Ok(Found::Neither),
            Err(error) => return Err(error),
        };
        let before = part.before.as_ref().map(|before| (write::hash(&before.bytes), before.mode & 0o7777));
        let after = part.after.as_ref().map(|after| (after.hash, after.mode.map(|mode| mode & 0o7777)));
        let hash = now.map(|(hash, _)| hash);
        let as_before = hash == before.map(|(hash, _)| hash);
        let as_after = hash == after.map(|(hash, _)| hash);
        Ok(match (as_before, as_after) {
            // Only the mode tells.
            (true, true) if after.and_then(|(_, mode)| mode) == now.map(|(_, mode)| mode) => Found::After,
            (true, _) => Found::Before,
            (false, true) => Found::After,
            (false, false) => Found::Neither,
        })
    }
}

/// The directory of the records, with its lock; none where it is not there yet and can be made. It is made for the first
/// record, not for a look.
fn look_into(path: &Path) -> std::io::Result<Option<File>> {
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(path);
    rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK)?;
    if there != path {
        return if there.is_dir() { Ok(None) } else { Err(Errno::NOTDIR.into()) };
    }
    let directory = File::open(path)?;
    retry_on_intr(|| flock(&directory, FlockOperation::LockExclusive))?;
    Ok(Some(directory))
}

fn names_in(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.reverse();
    names
}

fn locked(file: &File) -> bool {
    (1..=TRIES).any(|again| {
        let done = flock(file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if !done && again < TRIES {
            std::thread::sleep(PAUSE);
        }
        done
    })
}
