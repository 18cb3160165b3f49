//! What tools and commands of this session did to files, and what was there before: the session's diff. Taking it back
//! is `undo`'s.
//!
//! What tools wrote over is kept in memory, what commands did in the store of `checkpoint`.

use super::checkpoint::Ran;
use super::guard::Location;
use super::node::{Node, PERMISSIONS};
use super::write::{self, Hash};
use super::{Workspace, diff};
use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What commands made or removed is shown up to so many bytes of a file, and of all files together: a build may well
/// write more than anyone can read.
const MOST_SHOWN: u64 = 256 * 1024;
const MOST_SHOWN_OF_ALL: u64 = 2 * 1024 * 1024;

/// A moment of the session to which files can be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub(super) u64);

/// One file or link that tools or commands changed: before the first change, and now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    pub path: String,
    pub before: Option<Side>,
    pub after: Option<Side>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    pub link: bool,
    /// Permission bits.
    pub mode: u32,
    /// A link holds where it leads. `None` where it is too much to show, or no longer known.
    pub bytes: Option<Vec<u8>>,
}

/// Files and links that were touched, by their real paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    pub work: Vec<PathBuf>,
    /// What the check built by itself, and nobody else touched.
    pub built: Vec<PathBuf>,
}

impl FileChange {
    /// As git shows it: what cannot be shown as what is no text, a file that became a link as one that went and one
    /// that came.
    pub fn diff(&self) -> String {
        if let (Some(before), Some(after)) = (&self.before, &self.after)
            && before.link != after.link
        {
            let gone = Self { after: None, ..self.clone() };
            let made = Self { before: None, ..self.clone() };
            return format!("{}{}", gone.diff(), made.diff());
        }
        // In place of what is not shown: no text, and not the same on both sides.
        let before = self.before.as_ref().map(|side| side.bytes.as_deref().unwrap_or(b"\0"));
        let after = self.after.as_ref().map(|side| side.bytes.as_deref().unwrap_or(b"\0\0"));
        let mode = |side: &Side| if side.link { diff::LINK } else { side.mode };
        let (old, new) = (self.before.as_ref().map(mode), self.after.as_ref().map(mode));
        let old = old.or(new).unwrap_or(0o644);
        diff::unified_with_mode(&self.path, diff::Sides { before, after, mode: old }, new.unwrap_or(old))
    }

    /// Both sides, where they are texts that differ.
    pub fn texts(&self) -> Option<(Option<String>, Option<String>)> {
        let text = |side: &Option<Side>| match side {
            None => Some(None),
            Some(Side { link: false, bytes: Some(bytes), .. }) => {
                String::from_utf8(bytes.clone()).ok().map(Some)
            }
            Some(_) => None,
        };
        let (before, after) = (text(&self.before)?, text(&self.after)?);
        (before != after).then_some((before, after))
    }
}

/// Who changed something; where several did, the last of these has the say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum By {
    /// The command that the work is to make pass (`check`).
    Check,
    Command,
    Tool,
}

/// One change of what stands at a place.
pub(super) struct Entry {
    pub location: Location,
    pub before: Node,
    /// What the file held before; `None`: the store of checkpoints has it.
    pub bytes: Option<Vec<u8>>,
    pub after: Node,
    pub by: By,
    /// What stands there now was there before, in a place that is not covered.
    pub foreign: bool,
}

#[derive(Default)]
pub(super) struct Journal {
    pub entries: Vec<(u64, Entry)>,
    pub commands: Vec<(u64, Ran)>,
    next: u64,
}

impl Journal {
    pub fn record(&mut self, entry: Entry) {
        self.entries.push((self.next, entry));
        self.next += 1;
    }

    /// What a tool did to a file: `made` are the directories that were made for it, the outermost first; `before` its
    /// bytes and mode, where it was there.
    pub fn record_write(
        &mut self,
        location: Location,
        made: Vec<Location>,
        before: Option<(Vec<u8>, u32)>,
        after: Node,
    ) {
        let by = By::Tool;
        for location in made {
            // Of a directory that goes again the mode does not matter.
            let after = Node::Directory { mode: 0o777 };
            self.record(Entry { location, before: Node::Absent, bytes: None, after, by, foreign: false });
        }
        let node = before.as_ref().map_or(Node::Absent, |(bytes, mode)| Node::File {
            hash: write::hash(bytes),
            mode: mode & PERMISSIONS,
        });
        let bytes = before.map(|(bytes, _)| bytes);
        self.record(Entry { location, before: node, bytes, after, by, foreign: false });
    }

    pub fn mark(&self) -> Mark {
        Mark(self.next)
    }

    pub fn record_command(&mut self, ran: Ran) {
        self.commands.push((self.next, ran));
        self.next += 1;
    }

    /// Of the files that the store of checkpoints has to keep.
    pub fn hashes(&self) -> HashSet<Hash> {
        let stored = self.entries.iter().filter(|(_, entry)| entry.bytes.is_none());
        stored.filter_map(|(_, entry)| entry.before.hash()).collect()
    }
}

impl Workspace {
    /// Now; pass it to [`Workspace::undo_since`].
    pub fn mark(&self) -> Mark {
        self.state().journal.mark()
    }

    /// Every file and link that tools or commands changed and that is not as it was before, by path.
    pub fn changes(&self) -> Vec<FileChange> {
        self.changes_since(Mark(0))
    }

    pub fn changes_since(&self, mark: Mark) -> Vec<FileChange> {
        let state = self.state();
        let mut room = MOST_SHOWN_OF_ALL;
        let (work, _) = self.touched_places(&state.journal, mark);
        let mut changes: Vec<FileChange> =
            work.into_iter().filter_map(|entry| self.change(entry, &mut room)).collect();
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        changes
    }

    /// All that was touched in the session.
    pub fn touched(&self) -> Touched {
        let state = self.state();
        let (work, built) = self.touched_places(&state.journal, Mark(0));
        let paths = |entries: Vec<&Entry>| {
            entries.into_iter().map(|entry| self.guard.absolute(&entry.location)).collect()
        };
        Touched { work: paths(work), built: paths(built) }
    }

    /// The first change of each place since `mark`: of those that are the work's, and of what the check built.
    fn touched_places<'j>(&self, journal: &'j Journal, mark: Mark) -> (Vec<&'j Entry>, Vec<&'j Entry>) {
        let mut places: BTreeMap<&Location, (&Entry, By)> = BTreeMap::new();
        for (number, entry) in &journal.entries {
            if *number >= mark.0 {
                let (_, by) = places.entry(&entry.location).or_insert((entry, entry.by));
                *by = (*by).max(entry.by);
            }
        }
        let is_of_work = |(entry, by): &(&Entry, By)| {
            let of_check = || self.is_of_check(&self.guard.absolute(&entry.location));
            let is_text = || !self.is_binary(&entry.location);
            match by {
                By::Tool => true,
                // Whatever it did to a text may be meant; a program that the check had built is built again.
                By::Command => !of_check() || is_text(),
                By::Check => false,
            }
        };
        let (work, built): (Vec<_>, Vec<_>) = places.into_values().partition(is_of_work);
        let entries = |all: Vec<(&'j Entry, By)>| all.into_iter().map(|(entry, _)| entry).collect();
        (entries(work), entries(built))
    }

    /// As git sees it: a NUL among the first 8,000 bytes of what stands there.
    fn is_binary(&self, location: &Location) -> bool {
        let mut head = Vec::new();
        let file = self.guard.open_file(location).ok().flatten();
        let read = file.and_then(|(file, _)| file.take(8000).read_to_end(&mut head).ok());
        read.is_some() && head.contains(&0)
    }

    /// What became of the place since `entry`; `None` where that is nothing that a diff shows.
    fn change(&self, entry: &Entry, room: &mut u64) -> Option<FileChange> {
        let now = self.node(&entry.location).unwrap_or(Node::Absent);
        let path = self.guard.display(&entry.location);
        if entry.before == now || entry.before.is_no_more_than_directory() && now.is_no_more_than_directory()
        {
            return None;
        }
        if let (Node::File { mode: old, .. }, Node::File { mode: new, .. }) = (&entry.before, &now)
            && entry.before.is_like(&now)
        {
            // Bytes that are the same need not be read.
            let side = |mode: u32| Some(Side { link: false, mode, bytes: Some(Vec::new()) });
            return Some(FileChange { path, before: side(*old), after: side(*new) });
        }
        let mut fits = |length: u64| {
            let fits = entry.by == By::Tool || length <= MOST_SHOWN.min(*room);
            *room -= if fits { length.min(*room) } else { 0 };
            fits
        };
        let before = side(&entry.before, |hash| match &entry.bytes {
            Some(bytes) => fits(bytes.len() as u64).then(|| bytes.clone()),
            None if fits(self.stored_length(hash)?) => self.stored(hash),
            None => None,
        });
        let after = side(&now, |_| {
            let (file, stat) = self.guard.open_file(&entry.location).ok()??;
            let length = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
            let mut bytes = Vec::new();
            if fits(length) {
                file.take(length).read_to_end(&mut bytes).ok()?;
                return Some(bytes);
            }
            None
        });
        Some(FileChange { path, before, after })
    }

    /// The changes since `mark` as one diff that `git apply` accepts.
    pub fn diff_since(&self, mark: Mark) -> String {
        self.changes_since(mark).iter().map(FileChange::diff).collect()
    }

    /// All changes of the session as such a diff.
    pub fn session_diff(&self) -> String {
        self.diff_since(Mark(0))
    }
}

/// A node as one side of a diff; directories are none.
fn side(node: &Node, bytes: impl FnOnce(&Hash) -> Option<Vec<u8>>) -> Option<Side> {
    match node {
        Node::File { hash, mode } => Some(Side { link: false, mode: *mode, bytes: bytes(hash) }),
        Node::Link { target } => {
            Some(Side { link: true, mode: 0o777, bytes: Some(target.as_bytes().to_vec()) })
        }
        Node::Opaque { stamp, .. } => Some(Side { link: false, mode: stamp.mode, bytes: None }),
        Node::Absent | Node::Directory { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: u32, bytes: Option<&[u8]>) -> Option<Side> {
        Some(Side { link: false, mode, bytes: bytes.map(<[u8]>::to_vec) })
    }

    fn link(target: &str) -> Option<Side> {
        Some(Side { link: true, mode: 0o777, bytes: Some(target.into()) })
    }

    fn diff(before: Option<Side>, after: Option<Side>) -> String {
        FileChange { path: "f".into(), before, after }.diff()
    }

    #[test]
    fn modes_links_and_what_is_not_shown() {
        assert_eq!(
            diff(file(0o644, Some(b"")), file(0o755, Some(b""))),
            "diff --git a/f b/f\nold mode 100644\nnew mode 100755\n"
        );
        assert_eq!(
            diff(None, link("a/b")),
            "diff --git a/f b/f\nnew file mode 120000\n--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+a/b\n\\ No newline at end of file\n"
        );
        let both = diff(file(0o644, Some(b"x\n")), link("a"));
        assert!(both.contains("deleted file mode 100644") && both.contains("new file mode 120000"), "{both}");
        let unknown = diff(file(0o644, None), file(0o644, None));
        assert_eq!(unknown, "diff --git a/f b/f\nBinary files a/f and b/f differ\n");
    }

    #[test]
    fn only_texts_that_differ_are_shown_as_texts() {
        let texts = |before, after| FileChange { path: "f".into(), before, after }.texts();
        assert_eq!(texts(None, file(0o644, Some(b"a"))), Some((None, Some("a".into()))));
        assert_eq!(texts(file(0o644, Some(b"a")), file(0o755, Some(b"a"))), None);
        assert_eq!(texts(None, file(0o644, Some(b"\xff"))), None);
        assert_eq!(texts(None, file(0o644, None)), None);
        assert_eq!(texts(None, link("a")), None);
    }
}
