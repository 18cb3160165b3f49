//! Takes places of the workspace back to what they were: files, links, directories and modes, through the guard.
//!
//! First every place is looked at: what someone else changed since is left alone and named. Then what is in the way
//! goes, children before their directories, and what was there comes, directories before their children; modes of
//! directories come last. So a file can become a directory again and the other way round. Nothing is removed that
//! is not, at that moment, what tools or commands of this session left there.

use super::checkpoint::Ran;
use super::guard::Location;
use super::journal::{By, Entry, Mark};
use super::node::{Node, PERMISSIONS};
use super::pending::{Begun, Part};
use super::write::{self, Attributes, Expected, Sync, WriteError};
use super::{State, Workspace, WorkspaceError, faults};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;

/// So many files are synced one by one, more of them together at the end.
const SYNCED_ALONE: usize = 32;
/// What the owner needs to change what is in a directory.
const OWN: u32 = 0o700;

const CHANGED: &str = "it was changed by someone else since";
const MODE_CHANGED: &str = "its mode was changed by someone else since";
const REMOVED: &str = "it was removed since";
const FOREIGN: &str = "a command moved it here from where undo does not reach";
const NOT_EMPTY: &str = "it holds what this session did not put there";
const GONE: &str = "what it held is no longer kept";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UndoReport {
    /// Files that are again as they were; directories only where no file in them is named.
    pub restored: Vec<String>,
    /// Files that were left alone, and why.
    pub kept: Vec<(String, String)>,
    /// What commands did besides, and undo does not cover: a line per kind.
    pub outside: Vec<String>,
}

/// A place that is to be taken back.
struct Step {
    location: Location,
    /// What was done to it, in order.
    entries: Vec<(u64, Entry)>,
    now: Node,
    progress: Progress,
}

enum Progress {
    /// What it has to become.
    Open(Node),
    Done {
        /// It was not so before.
        changed: bool,
    },
    /// Left alone: why.
    Kept(String),
    /// A directory that was made and is needed still.
    Stays,
}

impl Step {
    fn entry(&self) -> Option<&Entry> {
        self.entries.first().map(|(_, entry)| entry)
    }

    fn keep(&mut self, why: impl ToString) {
        self.progress = Progress::Kept(why.to_string());
    }

    /// What was done to it came to nothing by itself.
    fn is_nothing(&self) -> bool {
        let last = self.entries.last().map(|(_, entry)| &entry.after);
        self.entry().map(|entry| &entry.before) == last
    }

    /// Directories are not named where what lies in them is.
    fn is_directory(&self) -> bool {
        self.entries.iter().all(|(_, entry)| {
            entry.before.is_no_more_than_directory() && entry.after.is_no_more_than_directory()
        })
    }

    fn settle(&mut self, done: Result<(), String>) {
        self.progress = match done {
            Ok(()) => Progress::Done { changed: true },
            Err(why) => Progress::Kept(why),
        };
    }
}

impl Workspace {
    pub fn undo_all(&self) -> Result<UndoReport, WorkspaceError> {
        self.undo_since(Mark(0))
    }

    /// Takes everything that tools and commands changed since `mark` back to what it was then.
    pub fn undo_since(&self, mark: Mark) -> Result<UndoReport, WorkspaceError> {
        let (mut report, commands) = self.undo(mark, |_| true);
        report.outside = self.outside(&commands);
        Ok(report)
    }

    /// Takes back only what tools wrote since `mark`: what commands made of it (a build, say) stays.
    pub fn undo_writes_since(&self, mark: Mark) -> Result<UndoReport, WorkspaceError> {
        Ok(self.undo(mark, |by| by == By::Tool).0)
    }

    /// Also gives the commands that were taken back, where those of commands were meant.
    fn undo(&self, mark: Mark, whose: impl Fn(By) -> bool) -> (UndoReport, Vec<Ran>) {
        let state = &mut self.state();
        let mut commands = Vec::new();
        if whose(By::Command) {
            let all = std::mem::take(&mut state.journal.commands);
            let (undone, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|(number, _)| *number >= mark.0);
            state.journal.commands = left;
            commands.extend(undone.into_iter().map(|(_, ran)| ran));
        }
        (self.take_back(state, mark, whose, None), commands)
    }

    /// The undo itself. `recorded`: what new files are called until they are in place, where that was begun already.
    pub(super) fn take_back(
        &self,
        state: &mut State,
        mark: Mark,
        whose: impl Fn(By) -> bool,
        recorded: Option<&str>,
    ) -> UndoReport {
        let (undone, mut left): (Vec<_>, Vec<_>) = std::mem::take(&mut state.journal.entries)
            .into_iter()
            .partition(|(number, entry)| *number >= mark.0 && whose(entry.by));
        let mut places: BTreeMap<Location, Vec<(u64, Entry)>> = BTreeMap::new();
        for (number, entry) in undone {
            places.entry(entry.location.clone()).or_default().push((number, entry));
        }
        // Directories come before what lies in them.
        let mut steps: Vec<Step> =
            places.into_iter().map(|(location, entries)| self.look(location, entries)).collect();
        // To take back what was done must not need a record where none can be written: the disk may be full of it.
        let begun = match recorded {
            Some(_) => None,
            None => self.begin(|| self.parts_of_undo(&steps)).ok().flatten(),
        };
        let temporary = recorded.or(begun.as_ref().map(Begun::temporary));
        let temporary = temporary.map_or_else(write::temporary_name, str::to_string);
        self.open_up(&mut steps);
        self.clear(&mut steps);
        self.put_back_all(&mut steps, &temporary);
        self.close_up(&mut steps);
        if let Some(begun) = begun {
            let _ = begun.finish();
        }
        let report = self.report(&steps);
        for step in steps {
            match step.progress {
                Progress::Done { .. } => {
                    // Later entries of a place that is as it was before them are no longer true.
                    let first = step.entries.first().map_or(0, |(number, _)| *number);
                    left.retain(|(number, entry)| *number < first || entry.location != step.location);
                }
                _ => left.extend(step.entries),
            }
        }
        left.sort_by_key(|(number, _)| *number);
        state.journal.entries = left;
        report
    }

    /// What an undo does to each file, as far as can be told before. A record knows no links and no directories but those
    /// that files lie in: an undo of such is made without.
    fn parts_of_undo(&self, steps: &[Step]) -> Vec<Part> {
        let mut parts = Vec::new();
        for step in steps {
            let Progress::Open(target) = &step.progress else { continue };
            let after = match (&step.now, target) {
                (Node::Absent | Node::File { .. }, Node::File { hash, mode }) => Some((*hash, Some(*mode))),
                (Node::File { .. }, Node::Absent) => None,
                (Node::Directory { .. }, Node::Absent) => continue,
                _ => return Vec::new(),
            };
            parts.push(Part::new(&step.location, self.now(&step.location), after));
        }
        parts
    }

    fn report(&self, steps: &[Step]) -> UndoReport {
        let mut report = UndoReport::default();
        let mut named: Vec<&Location> = Vec::new();
        // What lies in a directory was looked at when it is the directory's turn.
        for step in steps.iter().rev() {
            let changed = match &step.progress {
                Progress::Done { changed: false } if step.is_nothing() => continue,
                Progress::Done { changed } => *changed,
                Progress::Kept(why) => {
                    report.kept.push((self.guard.display(&step.location), why.clone()));
                    continue;
                }
                Progress::Open(_) | Progress::Stays => continue,
            };
            match step.is_directory() {
                false => report.restored.push(self.guard.display(&step.location)),
                true if changed && !named.iter().any(|other| step.location.holds(other)) => {
                    report.restored.push(format!("{}/", self.guard.display(&step.location)));
                }
                true => continue,
            }
            named.push(&step.location);
        }
        report.restored.reverse();
        report.kept.reverse();
        report
    }

    /// What stands at a place, and what has to become of it.
    fn look(&self, location: Location, entries: Vec<(u64, Entry)>) -> Step {
        let mut step =
            Step { location, entries, now: Node::Absent, progress: Progress::Done { changed: false } };
        let (Some((_, first)), Some((_, last))) = (step.entries.first(), step.entries.last()) else {
            return step;
        };
        if let Err(error) = self.guard.check_writable(&step.location) {
            step.keep(error);
            return step;
        }
        match self.node_as(&step.location, &last.after) {
            Ok(now) => {
                step.progress = aim(&first.before, last, &now);
                step.now = now;
            }
            Err(errno) => step.keep(errno),
        }
        step
    }

    /// Lets the directories be written whose modes are to change anyway.
    fn open_up(&self, steps: &mut [Step]) {
        for step in steps {
            if let (Progress::Open(_), Node::Directory { mode }) = (&step.progress, &step.now)
                && mode & OWN != OWN
                && let Err(errno) = self.set_mode(&step.location, mode | OWN)
            {
                step.keep(errno);
            }
        }
    }

    /// Removes what stands in the way of what was there.
    fn clear(&self, steps: &mut [Step]) {
        for step in steps.iter_mut().rev() {
            let Progress::Open(target) = &step.progress else { continue };
            if matches!(
                (&step.now, target),
                (Node::Absent, _)
                    | (Node::File { .. }, Node::File { .. })
                    | (Node::Directory { .. }, Node::Directory { .. })
            ) {
                continue;
            }
            let for_good = *target == Node::Absent;
            match self.remove(&step.location, &step.now) {
                Ok(()) if for_good => step.progress = Progress::Done { changed: true },
                Ok(()) => step.now = Node::Absent,
                Err(WriteError::Changed) => step.keep(CHANGED),
                Err(WriteError::Io(Errno::NOTEMPTY | Errno::EXIST)) if for_good => {
                    step.progress = Progress::Stays;
                }
                Err(WriteError::Io(Errno::NOTEMPTY | Errno::EXIST)) => step.keep(NOT_EMPTY),
                Err(WriteError::Io(errno)) => step.keep(errno),
            }
        }
    }

    fn remove(&self, location: &Location, now: &Node) -> Result<(), WriteError> {
        let Some(parent) = self.guard.open_parent(location)? else { return Ok(()) };
        let Ok(name) = self.guard.name(location) else { return Err(WriteError::Changed) };
        match now {
            Node::Absent => {}
            Node::File { hash, .. } => write::remove(&parent, name, *hash)?,
            Node::Directory { .. } => {
                faults::step()?;
                rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?;
            }
            Node::Link { .. } | Node::Opaque { .. } => {
                if self.node_as(location, now)? != *now {
                    return Err(WriteError::Changed);
                }
                write::unlink(&parent, name)?;
            }
        }
        Ok(())
    }

    /// Puts back what was there; of directories only that they are there.
    fn put_back_all(&self, steps: &mut [Step], temporary: &str) {
        let is_file = |step: &&Step| matches!(step.progress, Progress::Open(Node::File { .. }));
        let many = steps.iter().filter(is_file).count() > SYNCED_ALONE;
        let sync = if many && cfg!(target_os = "linux") { Sync::Later } else { Sync::Now };
        for step in steps.iter_mut() {
            let Progress::Open(target) = &step.progress else { continue };
            let done = match target {
                Node::Directory { .. } => {
                    if let Err(why) = self.make_directory(step) {
                        step.keep(why);
                    }
                    continue;
                }
                Node::File { hash, mode } => self.put_file(step, hash, *mode, (temporary, sync)),
                Node::Link { target } => self.put_link(step, target),
                Node::Absent => Ok(()),
                Node::Opaque { why, .. } => Err((*why).to_string()),
            };
            step.settle(done);
        }
        #[cfg(target_os = "linux")]
        if sync == Sync::Later
            && let Ok(Some(root)) = self.guard.open_directory(&self.guard.first_root())
        {
            let _ = rustix::fs::syncfs(root);
        }
    }

    fn make_directory(&self, step: &Step) -> Result<(), String> {
        if step.now != Node::Absent {
            return Ok(());
        }
        let (parent, name) = self.place(&step.location)?;
        let make = || {
            faults::step()?;
            rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(OWN))
        };
        make().map_err(|errno| match errno {
            Errno::EXIST => CHANGED.to_string(),
            errno => errno.to_string(),
        })
    }

    fn put_file(
        &self,
        step: &Step,
        hash: &write::Hash,
        mode: u32,
        (temporary, sync): (&str, Sync),
    ) -> Result<(), String> {
        if step.now.hash().as_ref() == Some(hash) {
            return self.set_mode(&step.location, mode).map_err(|errno| errno.to_string());
        }
        let kept = step.entry().and_then(|entry| entry.bytes.clone());
        let bytes = kept.or_else(|| self.stored(hash)).ok_or(GONE)?;
        let (parent, name) = self.place(&step.location)?;
        let (attributes, expected) = match &step.now {
            Node::File { hash, .. } => {
                let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW);
                let mut stat = stat.map_err(|_| CHANGED)?;
                stat.st_mode = stat.st_mode & !PERMISSIONS | mode;
                (Attributes::Like(stat), Expected::Hash(*hash))
            }
            _ => (Attributes::Exactly(mode), Expected::Absent),
        };
        write::put(&parent, name, &bytes, attributes, expected, temporary, sync).map_err(
            |error| match error {
                WriteError::Changed => CHANGED.to_string(),
                WriteError::Io(errno) => errno.to_string(),
            },
        )
    }

    fn put_link(&self, step: &Step, target: &OsStr) -> Result<(), String> {
        let (parent, name) = self.place(&step.location)?;
        rustix::fs::symlinkat(target, &parent, name).map_err(|errno| match errno {
            Errno::EXIST => CHANGED.to_string(),
            errno => errno.to_string(),
        })
    }

    /// The directory of a location, made where it is missing, and the name in it.
    fn place<'l>(&self, location: &'l Location) -> Result<(OwnedFd, &'l OsStr), String> {
        let (parent, _) = self.guard.make_parent(location).map_err(|error| error.to_string())?;
        let name = self.guard.name(location).map_err(|error| error.to_string())?;
        Ok((parent, name))
    }

    /// Gives directories their modes, the innermost first: the one around it may be closed then.
    fn close_up(&self, steps: &mut [Step]) {
        for step in steps.iter_mut().rev() {
            let Progress::Open(Node::Directory { mode }) = step.progress else { continue };
            let done = self.set_mode(&step.location, mode).map_err(|errno| errno.to_string());
            step.settle(done);
        }
    }

    /// Of a file or a directory, never of what a link leads to.
    fn set_mode(&self, location: &Location, mode: u32) -> Result<(), Errno> {
        let (Some(parent), Ok(name)) = (self.guard.open_parent(location)?, self.guard.name(location)) else {
            return Err(Errno::NOENT);
        };
        faults::step()?;
        let mode = Mode::from_raw_mode(mode);
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::openat(&parent, name, flags | OFlags::RDONLY, Mode::empty()) {
            Ok(opened) => rustix::fs::fchmod(&opened, mode),
            // Its owner may not read it, and may let himself.
            #[cfg(target_os = "linux")]
            Err(Errno::ACCESS) => {
                use rustix::fd::AsRawFd;
                let place = rustix::fs::openat(&parent, name, flags | OFlags::PATH, Mode::empty())?;
                let stat = rustix::fs::fstat(&place)?;
                if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Symlink {
                    return Err(Errno::LOOP);
                }
                rustix::fs::chmod(format!("/proc/self/fd/{}", place.as_raw_fd()), mode)
            }
            Err(errno) => Err(errno),
        }
    }
}

/// What a place has to become that was `before`, was left as `last` says and is `now`.
fn aim(before: &Node, last: &Entry, now: &Node) -> Progress {
    let after = &last.after;
    let done = Progress::Done { changed: false };
    if before == now {
        return done;
    }
    match (before, after, now) {
        (
            Node::File { hash, mode: old },
            Node::File { hash: left, mode: new },
            Node::File { hash: found, mode },
        ) if found == left || found == hash => match mode_of(*old, *new, *mode) {
            None if found == hash => done,
            None => Progress::Kept(MODE_CHANGED.into()),
            Some(wanted) if found == hash && wanted == *mode => done,
            Some(_) if last.foreign => Progress::Kept(FOREIGN.into()),
            Some(wanted) => Progress::Open(Node::File { hash: *hash, mode: wanted }),
        },
        (Node::Directory { mode: old }, Node::Directory { mode: new }, Node::Directory { mode }) => {
            match mode_of(*old, *new, *mode) {
                Some(wanted) if wanted != *mode => Progress::Open(Node::Directory { mode: wanted }),
                _ => done,
            }
        }
        // It is there again, whoever brought it back.
        _ if before.is_like(now) => done,
        _ if after.is_like(now) && last.foreign => Progress::Kept(FOREIGN.into()),
        _ if after.is_like(now) => Progress::Open(before.clone()),
        (_, _, Node::Absent) => Progress::Kept(REMOVED.into()),
        _ => Progress::Kept(CHANGED.into()),
    }
}

/// The mode that takes back a change from `old` to `new` where it is `now`; `None` where someone else set it since.
fn mode_of(old: u32, new: u32, now: u32) -> Option<u32> {
    match () {
        () if old == new => Some(now),
        () if now == new || now == old => Some(old),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(byte: u8, mode: u32) -> Node {
        Node::File { hash: [byte; 32], mode }
    }

    fn aimed(before: Node, after: Node, now: Node) -> String {
        let location = Location::default();
        let last = Entry { location, before: Node::Absent, bytes: None, after, by: By::Tool, foreign: false };
        match aim(&before, &last, &now) {
            Progress::Open(Node::File { mode, .. }) => format!("file {mode:o}"),
            Progress::Open(Node::Directory { mode }) => format!("directory {mode:o}"),
            Progress::Open(Node::Absent) => "nothing".into(),
            Progress::Open(_) => "link".into(),
            Progress::Done { .. } => "done".into(),
            Progress::Kept(why) => why,
            Progress::Stays => "stays".into(),
        }
    }

    #[test]
    fn only_our_own_change_is_taken_back() {
        let directory = |mode| Node::Directory { mode };
        let cases = [
            (file(1, 0o644), file(2, 0o644), file(2, 0o644), "file 644"),
            (file(1, 0o644), file(2, 0o644), file(3, 0o644), CHANGED),
            (file(1, 0o644), file(2, 0o644), Node::Absent, REMOVED),
            (file(1, 0o644), file(2, 0o644), file(1, 0o600), "done"),
            // The user's own chmod stays; ours goes; both at once are the user's to look at.
            (file(1, 0o644), file(2, 0o644), file(2, 0o755), "file 755"),
            (file(1, 0o644), file(1, 0o755), file(1, 0o755), "file 644"),
            (file(1, 0o644), file(2, 0o755), file(2, 0o700), MODE_CHANGED),
            (Node::Absent, file(1, 0o644), file(1, 0o600), "nothing"),
            (Node::Absent, file(1, 0o644), Node::Absent, "done"),
            (Node::Absent, file(1, 0o644), file(2, 0o644), CHANGED),
            (file(1, 0o600), Node::Absent, Node::Absent, "file 600"),
            (file(1, 0o644), Node::Absent, file(2, 0o644), CHANGED),
            (directory(0o755), directory(0o700), directory(0o700), "directory 755"),
            (directory(0o755), directory(0o700), directory(0o711), "done"),
            (file(1, 0o644), directory(0o755), directory(0o755), "file 644"),
            (directory(0o750), file(1, 0o644), file(1, 0o644), "directory 750"),
            (Node::Link { target: "a".into() }, Node::Absent, Node::Absent, "link"),
        ];
        for (before, after, now, expected) in cases {
            let case = format!("{before:?} {after:?} {now:?}");
            assert_eq!(aimed(before, after, now), expected, "{case}");
        }
    }
}
