//! Makes the original what a copy became: an undo told the other way round. Whatever undo puts back (files, links,
//! directories, modes), under the guard and in the order in which one can take the place of another, is put here; and
//! where any of it fails, the same puts back the rest.

use crate::workspace::guard::{self, Location};
use crate::workspace::journal::{By, Entry};
use crate::workspace::node::{Node, PERMISSIONS};
use crate::workspace::pending::{Begun, Part};
use crate::workspace::{Workspace, WorkspaceError, write};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// By path beneath the top of the work tree.
pub type Changes = BTreeMap<PathBuf, Change>;

/// What a place was when the copy was made, and what the work made of it.
pub struct Change {
    pub from: Side,
    pub to: Side,
}

pub struct Side {
    pub node: Node,
    /// Those of a file.
    pub bytes: Option<Vec<u8>>,
}

impl Side {
    pub const ABSENT: Self = Self { node: Node::Absent, bytes: None };

    fn directory(mode: u32) -> Self {
        Self { node: Node::Directory { mode }, bytes: None }
    }

    fn file(&self) -> Option<(Vec<u8>, u32)> {
        match (&self.node, &self.bytes) {
            (Node::File { mode, .. }, Some(bytes)) => Some((bytes.clone(), *mode)),
            _ => None,
        }
    }
}

/// Adds the directories that came or went with what lies in them; they are looked at in the copy, at `top`.
pub fn add_directories(changes: &mut Changes, top: &Path) {
    let ends: Vec<(PathBuf, bool)> =
        changes.iter().map(|(path, change)| (path.clone(), change.to.node != Node::Absent)).collect();
    for (path, is_there) in ends {
        for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            let mode = match top.join(above).symlink_metadata() {
                Ok(of) if of.is_dir() => Some(of.mode() & PERMISSIONS),
                _ => None,
            };
            // One that stays, empty.
            if mode.is_some() && !is_there {
                continue;
            }
            let nothing = || Change { from: Side::ABSENT, to: Side::ABSENT };
            let change = changes.entry(above.to_path_buf()).or_insert_with(nothing);
            match mode {
                Some(mode) => change.to = Side::directory(mode),
                None => change.from = Side::directory(0o777),
            }
        }
    }
}

impl Workspace {
    /// Makes all changes or none. An error where a place is no longer what it was.
    pub(super) fn take_over(&self, changes: Changes) -> Result<(), WorkspaceError> {
        let mut steps = Vec::new();
        for (path, mut change) in changes {
            let shown = path.display().to_string();
            let Some(location) = self.guard.place(0, &path) else {
                return Err(WorkspaceError::Refused(format!("{shown} is no place in the workspace")));
            };
            self.guard.check_writable(&location)?;
            let now = self.node(&location).map_err(|errno| guard::io_error("read", &shown, errno))?;
            let is_directory = |node: &Node| matches!(node, Node::Directory { .. });
            if now == change.to.node || is_directory(&now) && is_directory(&change.to.node) {
                continue;
            }
            if !change.from.node.is_like(&now) {
                return Err(WorkspaceError::Stale(format!("{shown} was changed by someone else meanwhile")));
            }
            if is_directory(&now) {
                change.from.node = now;
            }
            steps.push((location, change));
        }
        self.take_steps(&steps)
    }

    fn take_steps(&self, steps: &[(Location, Change)]) -> Result<(), WorkspaceError> {
        let begun = self.begin(|| parts(steps))?;
        let temporary = begun.as_ref().map_or_else(write::temporary_name, |begun| begun.temporary().into());
        let finish = || {
            let done = begun.as_ref().map_or(Ok(()), Begun::finish);
            done.map_err(|errno| guard::io_error("write", "the state directory", errno))
        };
        let there =
            steps.iter().map(|(location, Change { from, to })| entry(location, from.node.clone(), to));
        let failed = self.turn(there, &temporary);
        let error = match failed.first() {
            Some((path, why)) => WorkspaceError::Refused(format!("{path}: {why}")),
            None => match finish() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
        };
        let back = steps.iter().map(|(location, Change { from, to })| {
            // What was in the way is gone already where nothing could take its place.
            let is_gone = self.node(location) == Ok(Node::Absent);
            entry(location, if is_gone { Node::Absent } else { to.node.clone() }, from)
        });
        let kept = self.turn(back, &temporary);
        // What failed both times is somebody else's by now.
        let is_ours = |path: &String| failed.iter().all(|(other, _)| other != path);
        let Some((path, why)) = kept.iter().find(|(path, _)| is_ours(path)) else {
            let _ = finish();
            return Err(error);
        };
        let hint = match &begun {
            // The record stays.
            Some(_) => "the next start of qwright puts it back, unless it is changed until then",
            None => "look at that file: it is as the work left it, the others are as they were",
        };
        Err(WorkspaceError::Machine {
            message: format!("{error}. {path} was changed already and could not be put back: {why}"),
            hint: hint.into(),
        })
    }

    /// Takes the places of `entries` from what they are `after` to what they are `before`; what was left, and why.
    fn turn(&self, entries: impl Iterator<Item = Entry>, temporary: &str) -> Vec<(String, String)> {
        let entries: Vec<Entry> = entries.collect();
        let mut state = self.state();
        let mark = state.journal.mark();
        entries.into_iter().for_each(|entry| state.journal.record(entry));
        let report = self.take_back(&mut state, mark, |_| true, Some(temporary));
        state.journal.entries.retain(|(number, _)| *number < mark.0);
        report.kept
    }
}

fn entry(location: &Location, expected: Node, wanted: &Side) -> Entry {
    Entry {
        location: location.clone(),
        before: wanted.node.clone(),
        bytes: wanted.bytes.clone(),
        after: expected,
        by: By::Tool,
        foreign: false,
    }
}

/// What a record says of it: it knows files, and the directories that are made for them. Where anything else is among
/// the changes there is none.
fn parts(steps: &[(Location, Change)]) -> Vec<Part> {
    let mut parts = Vec::new();
    for (location, Change { from, to }) in steps {
        let after = match (&from.node, &to.node) {
            (Node::Directory { .. }, Node::Absent) | (Node::Absent, Node::Directory { .. }) => continue,
            (Node::Absent | Node::File { .. }, Node::File { hash, mode }) => Some((*hash, Some(*mode))),
            (Node::File { .. }, Node::Absent) => None,
            _ => return Vec::new(),
        };
        parts.push(Part::new(location, from.file(), after));
    }
    parts
}
