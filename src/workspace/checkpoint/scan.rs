//! One checkpoint: everything beneath the first root that its repository does not ignore, as it is now. What has the
//! stamp it had in the checkpoint before is taken over from there, so that only what changed is read.
//!
//! Covered is what git's rules leave, what the repository tracks whatever they say, and what was covered before: a
//! command that changes the rules does not take files out of undo. `.git`, our own settings and state, and directories
//! that tools fill (installed packages, build directories tagged as caches) are not covered; where they begin is noted.

use super::store::{PutError, Store};
use crate::workspace::Workspace;
use crate::workspace::guard::Location;
use crate::workspace::node::{Node, Stamp, UNREADABLE};
use crate::workspace::walk::{Rules, walk};
use std::collections::{BTreeSet, HashMap};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Larger files are not kept.
pub const MOST_BYTES: u64 = 64 * 1024 * 1024;
/// More entries than this belong to no project that undo is for.
const MOST_ENTRIES: usize = 100_000;
/// What was written so few seconds before a scan may have been written again with the same times.
const RACY: i64 = 2;

const TOO_LARGE: &str = "it is larger than 64 MiB";
const FULL: &str = "there is no room for it in the store of checkpoints";

pub struct Checkpoint {
    pub started: SystemTime,
    /// By path beneath the root.
    pub items: HashMap<PathBuf, Item>,
    /// The topmost entries that are not covered.
    pub uncovered: Arc<BTreeSet<PathBuf>>,
    /// Directories whose entries could not be listed.
    pub unreadable: BTreeSet<PathBuf>,
}

#[derive(Clone)]
pub struct Item {
    pub node: Node,
    pub stamp: Stamp,
    /// When the file system made it, if that is known.
    pub born: Option<SystemTime>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Failed {
    Cancelled,
    /// Why there cannot be one.
    Impossible(String),
}

/// A scan under way.
struct Scan<'a> {
    workspace: &'a Workspace,
    base: Location,
    store: &'a mut Store,
    earlier: Option<&'a Checkpoint>,
    /// Our own state, where it lies beneath the root.
    own: Option<PathBuf>,
    items: HashMap<PathBuf, Item>,
}

/// Takes a checkpoint. `own`: the directory of our own state, which is never covered.
pub fn scan(
    workspace: &Workspace,
    store: &mut Store,
    earlier: Option<&Checkpoint>,
    own: Option<&Path>,
    cancel: &AtomicBool,
) -> Result<Checkpoint, Failed> {
    let started = SystemTime::now();
    let top = workspace.root();
    let own = own.and_then(|own| Some(own.canonicalize().ok()?.strip_prefix(top).ok()?.to_path_buf()));
    if own.as_deref().is_some_and(|own| own.as_os_str().is_empty()) {
        return Err(Failed::Impossible("the workspace is this program's own directory".into()));
    }
    let base = workspace.guard.first_root();
    let items = HashMap::with_capacity(earlier.map_or(0, |earlier| earlier.items.len()));
    let mut scan = Scan { workspace, base, store, earlier, own, items };
    let is_cancelled = || cancel.load(Ordering::Relaxed);
    // All are counted before one is read.
    let mut found = Vec::new();
    for entry in walk(top, Rules::UNDO, None).flatten() {
        if is_cancelled() {
            return Err(Failed::Cancelled);
        }
        if let (Ok(path), Ok(of)) = (entry.path().strip_prefix(top), entry.metadata())
            && entry.depth() > 0
        {
            found.push((path.to_path_buf(), of));
        }
        if found.len() > MOST_ENTRIES {
            return Err(Failed::Impossible(format!("the workspace has more than {MOST_ENTRIES} files")));
        }
    }
    for (path, of) in &found {
        if is_cancelled() {
            return Err(Failed::Cancelled);
        }
        scan.take_in(path, of);
    }
    let known: Vec<&PathBuf> = earlier.map_or_else(Vec::new, |earlier| earlier.items.keys().collect());
    let tracked = workspace.git_tracked();
    for path in known.into_iter().chain(&tracked) {
        if is_cancelled() {
            return Err(Failed::Cancelled);
        }
        if !scan.items.contains_key(path) {
            scan.look_for(path);
        }
    }
    let (uncovered, unreadable) = scan.edges();
    Ok(Checkpoint { started, items: scan.items, uncovered: Arc::new(uncovered), unreadable })
}

impl Scan<'_> {
    /// An entry that is covered, if it may be.
    fn take_in(&mut self, path: &Path, of: &Metadata) {
        let location = self.workspace.guard.beneath(&self.base, path);
        let own = self.own.as_deref().is_some_and(|own| path.starts_with(own));
        if own || self.workspace.guard.check_writable(&location).is_err() {
            return;
        }
        let stamp = Stamp::of(of);
        let known = self.earlier.and_then(|earlier| Some((earlier.items.get(path)?, earlier.started)));
        let item = match known {
            Some((item, taken)) if item.stamp == stamp && !is_racy(&stamp, taken) => item.clone(),
            _ => match self.node(&location, stamp, known.is_some()) {
                Some(node) => Item { node, stamp, born: of.created().ok() },
                None => return,
            },
        };
        self.items.insert(path.to_path_buf(), item);
    }

    /// What stands there, kept; `None` where it is gone meanwhile.
    fn node(&mut self, location: &Location, stamp: Stamp, known: bool) -> Option<Node> {
        let store = &mut *self.store;
        let node = self.workspace.node_with(location, &mut |file, size| {
            if size > MOST_BYTES {
                return Err(TOO_LARGE);
            }
            // Of a workspace that is too large for the store what cannot fit is not even read.
            if size > store.room() && !known {
                return Err(FULL);
            }
            store.put(file, MOST_BYTES).map_err(|error| match error {
                PutError::Full => FULL,
                PutError::TooLarge => TOO_LARGE,
                PutError::Unreadable => UNREADABLE,
            })
        });
        match node {
            Ok(Node::Absent) => None,
            Ok(node) => Some(node),
            Err(_) => Some(Node::Opaque { why: UNREADABLE, stamp }),
        }
    }

    /// A path that the walk did not show: covered where it is there all the same.
    fn look_for(&mut self, path: &Path) {
        let location = self.workspace.guard.beneath(&self.base, path);
        // A name behind a link is none of the workspace's.
        let there: std::io::Result<Metadata> = match self.workspace.guard.open_parent(&location) {
            Ok(Some(_)) => self.workspace.guard.absolute(&location).symlink_metadata(),
            Ok(None) => return,
            Err(errno) => Err(errno.into()),
        };
        match there {
            Ok(of) => self.take_in(path, &of),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            // What cannot be looked at is taken to be as it was.
            Err(_) => {
                if let Some(item) = self.earlier.and_then(|earlier| earlier.items.get(path)) {
                    self.items.insert(path.to_path_buf(), item.clone());
                }
            }
        }
    }

    /// The entries at which what is covered ends, and the directories that cannot be listed.
    fn edges(&self) -> (BTreeSet<PathBuf>, BTreeSet<PathBuf>) {
        let (mut uncovered, mut unreadable) = (BTreeSet::new(), BTreeSet::new());
        let inner = self.items.iter().filter(|(_, item)| matches!(item.node, Node::Directory { .. }));
        for directory in inner.map(|(path, _)| path.as_path()).chain([Path::new("")]) {
            let entries = match self.workspace.root().join(directory).read_dir() {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(_) => {
                    unreadable.insert(directory.to_path_buf());
                    continue;
                }
            };
            for entry in entries.flatten() {
                let path = directory.join(entry.file_name());
                let own = self.own.as_deref().is_some_and(|own| path.starts_with(own));
                if !own && !self.items.contains_key(&path) {
                    uncovered.insert(path);
                }
            }
        }
        (uncovered, unreadable)
    }
}

/// Whether a file of this stamp may have been written again since the scan without its stamp telling.
fn is_racy(stamp: &Stamp, taken: SystemTime) -> bool {
    let taken = taken.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    stamp.modified.0.max(stamp.changed.0) >= i64::try_from(taken).unwrap_or(i64::MAX) - RACY
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_what_was_written_shortly_before_a_scan_is_read_again() {
        let taken = UNIX_EPOCH + Duration::from_secs(1000);
        let at = |modified, changed| Stamp {
            device: 0,
            inode: 0,
            size: 0,
            mode: 0,
            modified: (modified, 0),
            changed: (changed, 0),
        };
        assert!(!is_racy(&at(900, 997), taken));
        assert!(is_racy(&at(900, 998), taken));
        // Times that were set: to the future, the end of time, before 1970.
        assert!(is_racy(&at(5000, 900), taken) && is_racy(&at(i64::MAX, 900), taken));
        assert!(!is_racy(&at(i64::MIN, 900), taken));
    }
}
