//! What the tools of this session wrote, and what was there before: the session's diff, and undo.
//!
//! The originals are kept in memory; what commands do to files is not seen here. A file that someone else changed
//! after the tool did is never restored over their text: it is kept and named.

use super::guard::Location;
use super::pending::Part;
use super::write::{self, Attributes, Hash, WriteError};
use super::{State, Workspace, WorkspaceError, diff};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

/// A moment of the session to which files can be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// One file that tools wrote: before the first write, and now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    pub path: String,
    pub before: Option<Vec<u8>>,
    pub after: Option<Vec<u8>>,
    pub mode: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UndoReport {
    /// Files that are again as they were.
    pub restored: Vec<String>,
    /// Files that were left alone, and why.
    pub kept: Vec<(String, String)>,
}

pub(super) struct Entry {
    pub location: Location,
    /// Bytes and mode; `None` where the write created the file.
    pub before: Option<(Vec<u8>, u32)>,
    /// `None` where the file was removed.
    pub after: Option<Hash>,
    /// Directories that were made for it, the outermost first.
    pub made: Vec<Location>,
}

#[derive(Default)]
pub(super) struct Journal {
    entries: Vec<(u64, Entry)>,
    next: u64,
}

impl Journal {
    pub fn record(&mut self, entry: Entry) {
        self.entries.push((self.next, entry));
        self.next += 1;
    }

    pub fn mark(&self) -> Mark {
        Mark(self.next)
    }

    /// Of each file that was written since `mark`, what it was then.
    fn first_since(&self, mark: Mark) -> BTreeMap<&Location, &Entry> {
        let mut first = BTreeMap::new();
        for (number, entry) in &self.entries {
            if *number >= mark.0 {
                first.entry(&entry.location).or_insert(entry);
            }
        }
        first
    }
}

/// Why a file was not put back.
#[derive(Debug)]
pub(super) enum Unrestored {
    /// It is somebody else's by now.
    Changed(&'static str),
    Failed(String),
}

impl std::fmt::Display for Unrestored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Changed(why) => f.write_str(why),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl Workspace {
    /// Now; pass it to [`Workspace::undo_since`].
    pub fn mark(&self) -> Mark {
        self.state().journal.mark()
    }

    /// Every file that tools wrote and that is not as it was before, by path.
    pub fn changes(&self) -> Vec<FileChange> {
        self.changes_since(Mark(0))
    }

    pub fn changes_since(&self, mark: Mark) -> Vec<FileChange> {
        let state = self.state();
        let mut changes: Vec<FileChange> = state
            .journal
            .first_since(mark)
            .into_iter()
            .map(|(location, entry)| {
                let now = self.now(location);
                let before = entry.before.as_ref();
                FileChange {
                    path: self.guard.display(location),
                    mode: before.map(|(_, mode)| *mode).or(now.as_ref().map(|now| now.1)).unwrap_or(0o644),
                    before: before.map(|(bytes, _)| bytes.clone()),
                    after: now.map(|(bytes, _)| bytes),
                }
            })
            .filter(|change| change.before != change.after)
            .collect();
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        changes
    }

    /// All changes of the session as one diff that `git apply` accepts.
    pub fn session_diff(&self) -> String {
        let sides = |change: &FileChange| {
            let sides = diff::Sides {
                before: change.before.as_deref(),
                after: change.after.as_deref(),
                mode: change.mode,
            };
            diff::unified(&change.path, sides)
        };
        self.changes().iter().map(sides).collect()
    }

    pub fn undo_all(&self) -> Result<UndoReport, WorkspaceError> {
        self.undo_since(Mark(0))
    }

    /// Takes every file that tools wrote since `mark` back to what it was then.
    pub fn undo_since(&self, mark: Mark) -> Result<UndoReport, WorkspaceError> {
        let mut state = self.state();
        // To take back what was done must not need a record where none can be written: the disk may be full of it.
        let begun = self.begin(|| self.parts_of_undo(&state, mark)).ok().flatten();
        let temporary = begun.as_ref().map_or_else(write::temporary_name, |begun| begun.temporary().into());
        let report = self.take_back(&mut state, mark, &temporary);
        if let Some(begun) = begun {
            let _ = begun.finish();
        }
        Ok(report)
    }

    /// What an undo does to each file, as far as can be told before.
    fn parts_of_undo(&self, state: &State, mark: Mark) -> Vec<Part> {
        let first = state.journal.first_since(mark).into_iter();
        let parts = first.filter_map(|(location, entry)| {
            let now = self.now(location);
            let after = entry.before.as_ref().map(|(bytes, mode)| (write::hash(bytes), Some(*mode)));
            (now != entry.before).then(|| Part::new(location, now, after))
        });
        parts.collect()
    }

    /// The undo itself. `temporary`: what new files are called until they are in place.
    pub(super) fn take_back(&self, state: &mut State, mark: Mark, temporary: &str) -> UndoReport {
        let (undone, mut left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.journal.entries).into_iter().partition(|(number, _)| *number >= mark.0);
        let mut files: BTreeMap<Location, Vec<(u64, Entry)>> = BTreeMap::new();
        for (number, entry) in undone {
            files.entry(entry.location.clone()).or_default().push((number, entry));
        }
        let mut report = UndoReport::default();
        let mut made: Vec<Location> = Vec::new();
        for (location, entries) in files {
            let path = self.guard.display(&location);
            let (Some((_, first)), Some((_, last))) = (entries.first(), entries.last()) else { continue };
            let before = first.before.as_ref().map(|(bytes, mode)| (&bytes[..], *mode));
            match self.restore(&location, before, last.after, temporary) {
                Ok(()) => {
                    made.extend(entries.into_iter().flat_map(|(_, entry)| entry.made));
                    // The model last saw the text that is now gone: it has to read again.
                    report.restored.push(path);
                }
                Err(reason) => {
                    report.kept.push((path, reason.to_string()));
                    left.extend(entries);
                }
            }
        }
        left.sort_by_key(|(number, _)| *number);
        state.journal.entries = left;
        // The innermost first; those that hold anything else stay.
        made.sort();
        for directory in made.iter().rev() {
            self.guard.remove_directory_if_empty(directory);
        }
        report
    }

    /// Makes one file what it was, where it still is what was written (`after`).
    pub(super) fn restore(
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

    fn now(&self, location: &Location) -> Option<(Vec<u8>, u32)> {
        let (mut file, stat): (File, _) = self.guard.open_file(location).ok()??;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        Some((bytes, stat.st_mode))
    }
}
