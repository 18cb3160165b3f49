//! What the tools of this session wrote, and what was there before: the session's diff, and undo.
//!
//! The originals are kept in memory; what commands do to files is not seen here. A file that someone else changed
//! after the tool did is never restored over their text: it is kept and named.

use super::guard::Location;
use super::write::{self, Attributes, Hash, WriteError};
use super::{Workspace, WorkspaceError, diff};
use rustix::fs::AtFlags;
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
}

impl Workspace {
    /// Now; pass it to [`Workspace::undo_since`].
    pub fn mark(&self) -> Mark {
        Mark(self.state().journal.next)
    }

    /// Every file that tools wrote and that is not as it was before, by path.
    pub fn changes(&self) -> Vec<FileChange> {
        self.changes_since(Mark(0))
    }

    pub fn changes_since(&self, mark: Mark) -> Vec<FileChange> {
        let state = self.state();
        let mut first: BTreeMap<&Location, &Entry> = BTreeMap::new();
        for (number, entry) in &state.journal.entries {
            if *number >= mark.0 {
                first.entry(&entry.location).or_insert(entry);
            }
        }
        let mut changes: Vec<FileChange> = first
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
            match self.restore(&location, &entries) {
                Ok(()) => {
                    made.extend(entries.into_iter().flat_map(|(_, entry)| entry.made));
                    // The model last saw the text that is now gone: it has to read again.
                    report.restored.push(path);
                }
                Err(reason) => {
                    report.kept.push((path, reason));
                    left.extend(entries);
                }
            }
        }
        left.sort_by_key(|(number, _)| *number);
        state.journal.entries = left;
        // The innermost first; those that hold anything else stay.
        made.sort();
        for directory in made.iter().rev() {
            self.remove_directory_if_empty(directory);
        }
        Ok(report)
    }

    fn restore(&self, location: &Location, entries: &[(u64, Entry)]) -> Result<(), String> {
        let (Some((_, first)), Some((_, last))) = (entries.first(), entries.last()) else { return Ok(()) };
        let changed = || "it was changed by someone else since".to_string();
        let now = self.now(location);
        match (&now, last.after) {
            (None, Some(_)) if first.before.is_none() => return Ok(()),
            (None, Some(_)) => return Err("it was removed since".into()),
            (None, None) if first.before.is_none() => return Ok(()),
            (None, None) => {}
            (Some((now, _)), after) if Some(write::hash(now)) == after => {}
            (Some(_), _) => return Err(changed()),
        }
        let describe = |error: WriteError| match error {
            WriteError::Changed => changed(),
            WriteError::Io(errno) => errno.to_string(),
        };
        let to_text = |error: WorkspaceError| error.to_string();
        let (directory, _) = self.guard.make_parent(location).map_err(to_text)?;
        let name = self.guard.name(location).map_err(to_text)?;
        match (&first.before, last.after) {
            (None, Some(after)) => write::remove(&directory, name, after).map_err(describe),
            (None, None) => Ok(()),
            (Some((bytes, mode)), Some(after)) => {
                let Ok(Some((_, mut stat))) = self.guard.open_file(location) else { return Err(changed()) };
                stat.st_mode = *mode;
                let expected = write::Expected::Hash(after);
                write::replace(&directory, name, bytes, Attributes::Like(stat), expected).map_err(describe)
            }
            (Some((bytes, mode)), None) => {
                let attributes = Attributes::Exactly(*mode);
                write::replace(&directory, name, bytes, attributes, write::Expected::Absent).map_err(describe)
            }
        }
    }

    fn now(&self, location: &Location) -> Option<(Vec<u8>, u32)> {
        let (mut file, stat): (File, _) = self.guard.open_file(location).ok()??;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        Some((bytes, stat.st_mode))
    }

    pub(super) fn remove_directory_if_empty(&self, location: &Location) {
        if let (Ok((parent, _)), Ok(name)) = (self.guard.make_parent(location), self.guard.name(location)) {
            let _ = rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR);
        }
    }
}
