//! What a tree was and what it is, as trees of a git store of our own, and the difference as a patch. Bytes are raw: no
//! filter, attribute or configuration of the repository has a say. What the repository holds already is not stored
//! again. Ignored files are left out, by the rules as they were at the beginning, but for those that the work itself wrote.

use super::copy::Copied;
use super::land::{Change, Changes, Side};
use crate::workspace::check::Paths;
use crate::workspace::node::{Node, PERMISSIONS, Stamp};
use crate::workspace::walk::{Rules, walk};
use crate::workspace::{WorkspaceError, git, write};
use git2::{
    Config, Diff, DiffFormat, DiffOptions, Index, IndexEntry, IndexTime, ObjectType, Oid, Repository,
    RepositoryOpenFlags,
};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Larger files are not held in memory while they are stored.
const LARGE: u64 = 64 * 1024 * 1024;
/// The mode of a link, as git knows it.
const LINK: u32 = 0o120_000;

pub struct Snapshots {
    top: PathBuf,
    /// The tree that this one is a copy of.
    original: PathBuf,
    store: Repository,
    before: Tree,
    /// Files that were there and ignored, with the stamps of the original's: a change of the rules makes them no new ones.
    ignored: HashMap<PathBuf, Stamp>,
    /// None of the work's.
    left_out: Paths,
    /// The work's wherever they lie.
    kept: HashSet<PathBuf>,
}

type Tree = BTreeMap<PathBuf, Entry>;

#[derive(Clone, Copy)]
struct Entry {
    id: Oid,
    mode: u32,
    stamp: Stamp,
}

impl Entry {
    fn is_like(&self, other: &Self) -> bool {
        (self.id, self.mode) == (other.id, other.mode)
    }
}

impl Snapshots {
    /// Takes in a tree that was copied from `original`. `objects`: a store that is read and never written.
    pub fn begin(
        original: PathBuf,
        copied: Copied,
        store: &Path,
        objects: Option<&Path>,
    ) -> Result<Self, WorkspaceError> {
        let store = Repository::init_bare(store).map_err(failed)?;
        // Settings of the user's (prefixes of diffs, say) are none of this store's.
        Config::new().and_then(|none| store.set_config(&none)).map_err(failed)?;
        if let Some(objects) = objects.and_then(Path::to_str) {
            // Without it all files are stored here: slower, no less right.
            let _ = store.odb().and_then(|odb| odb.add_disk_alternate(objects));
        }
        let Copied { top, paths } = copied;
        let mut snapshots = Self {
            top,
            original,
            store,
            before: Tree::new(),
            ignored: HashMap::new(),
            left_out: Paths::default(),
            kept: HashSet::new(),
        };
        let mut wanted = snapshots.not_ignored();
        wanted.extend(snapshots.tracked());
        let (wanted, ignored): (HashMap<_, _>, HashMap<_, _>) =
            paths.into_iter().partition(|(path, _)| wanted.contains(path));
        snapshots.before = snapshots.take_in(wanted.keys())?;
        snapshots.ignored = ignored;
        Ok(snapshots)
    }

    pub fn top(&self) -> &Path {
        &self.top
    }

    /// All of it as a patch that `git apply` takes, and in how many files.
    pub fn patch(&self) -> Result<(Vec<u8>, usize), WorkspaceError> {
        let diff = self.diff()?;
        let mut patch = Vec::new();
        diff.print(DiffFormat::Patch, |_, _, line| {
            if matches!(line.origin(), ' ' | '+' | '-') {
                patch.push(line.origin() as u8);
            }
            patch.extend_from_slice(line.content());
            true
        })
        .map_err(failed)?;
        Ok((patch, diff.deltas().len()))
    }

    /// The same for whoever makes the changes himself: every file and link that is not as it was.
    pub fn changes(&self) -> Result<Changes, WorkspaceError> {
        let (before, after) = self.sides()?;
        let mut changes = Changes::new();
        for path in before.keys().chain(after.keys()) {
            let (old, new) = (before.get(path), after.get(path));
            if changes.contains_key(path) || old.zip(new).is_some_and(|(old, new)| old.is_like(new)) {
                continue;
            }
            changes.insert(path.clone(), Change { from: self.side(old)?, to: self.side(new)? });
        }
        Ok(changes)
    }

    fn side(&self, entry: Option<&Entry>) -> Result<Side, WorkspaceError> {
        let Some(entry) = entry else { return Ok(Side::ABSENT) };
        let bytes = self.store.find_blob(entry.id).map_err(failed)?.content().to_vec();
        if entry.mode == LINK {
            return Ok(Side { node: Node::Link { target: OsString::from_vec(bytes) }, bytes: None });
        }
        let node = Node::File { hash: write::hash(&bytes), mode: entry.stamp.mode & PERMISSIONS };
        Ok(Side { node, bytes: Some(bytes) })
    }

    fn diff(&self) -> Result<Diff<'_>, WorkspaceError> {
        let (before, after) = self.sides()?;
        let trees = [self.tree(&before)?, self.tree(&after)?];
        let [before, after] = trees.map(|id| self.store.find_tree(id));
        let (before, after) = (before.map_err(failed)?, after.map_err(failed)?);
        let mut options = DiffOptions::new();
        options.show_binary(true).id_abbrev(40).context_lines(3);
        self.store.diff_tree_to_tree(Some(&before), Some(&after), Some(&mut options)).map_err(failed)
    }

    /// What was there, and what is there now. Of what is ignored only what the work itself wrote is in it.
    fn sides(&self) -> Result<(Tree, Tree), WorkspaceError> {
        let beneath = |path: &PathBuf| Some(path.strip_prefix(&self.top).ok()?.to_path_buf());
        let kept: Vec<PathBuf> = self.kept.iter().filter_map(beneath).collect();
        let mut before = self.before.clone();
        for path in &kept {
            if let Some(stamp) = self.ignored.get(path) {
                before.extend(self.as_it_was(path, stamp)?.map(|entry| (path.clone(), entry)));
            }
        }
        let mut paths = self.not_ignored();
        paths.retain(|path| !self.ignored.contains_key(path));
        paths.extend(kept);
        paths.extend(before.keys().cloned());
        let (left, wanted): (Vec<PathBuf>, Vec<PathBuf>) =
            paths.into_iter().partition(|path| self.is_left_out(path));
        let mut after = self.take_in(&wanted)?;
        // As they were.
        after.extend(left.iter().filter_map(|path| Some((path.clone(), *before.get(path)?))));
        // What is seen through a link that took the place of a directory does not lie there.
        let is_link = |entry: Option<&Entry>| entry.is_some_and(|entry| entry.mode == LINK);
        let new_link = |path: &&PathBuf| is_link(after.get(*path)) && !is_link(before.get(*path));
        let links: Vec<PathBuf> = after.keys().filter(new_link).cloned().collect();
        after.retain(|path, _| !links.iter().any(|link| path != link && path.starts_with(link)));
        Ok((before, after))
    }

    /// An ignored file before the work changed it: the original has it still.
    fn as_it_was(&self, path: &Path, stamp: &Stamp) -> Result<Option<Entry>, WorkspaceError> {
        let full = self.original.join(path);
        match full.symlink_metadata() {
            Ok(of) if Stamp::of(&of) == *stamp => self.entry(&full, &of),
            _ => {
                let path = path.display();
                Err(WorkspaceError::Stale(format!("{path} was changed by someone else meanwhile")))
            }
        }
    }

    /// What was there when the copy was made, and is not as it was.
    pub fn changed_paths(&self) -> Result<Vec<PathBuf>, WorkspaceError> {
        let now = self.take_in(self.before.keys())?;
        let before = self.before.iter();
        let other = before.filter(|(path, old)| now.get(*path).is_none_or(|new| !new.is_like(old)));
        Ok(other.map(|(path, _)| self.top.join(path)).collect())
    }

    /// Leaves `paths` out of every patch from here on. All paths of these are absolute.
    pub fn leave_out(&mut self, paths: &[PathBuf]) {
        self.left_out.add(paths);
    }

    /// Takes these in all the same.
    pub fn keep(&mut self, files: &[PathBuf]) {
        self.kept.extend(files.iter().cloned());
    }

    fn is_left_out(&self, path: &Path) -> bool {
        let full = self.top.join(path);
        self.left_out.covers(&full) && !self.kept.contains(&full)
    }

    /// Every file and link that the ignore rules of the tree itself leave in.
    fn not_ignored(&self) -> HashSet<PathBuf> {
        let files = walk(&self.top, Rules::GIT, None)
            .flatten()
            .filter(|entry| entry.file_type().is_some_and(|kind| !kind.is_dir()));
        files.filter_map(|entry| Some(entry.path().strip_prefix(&self.top).ok()?.to_path_buf())).collect()
    }

    /// What the repository tracks, whatever its rules say.
    fn tracked(&self) -> Vec<PathBuf> {
        let none: [&std::ffi::OsStr; 0] = [];
        let Ok(repository) = Repository::open_ext(&self.top, RepositoryOpenFlags::NO_SEARCH, none) else {
            return Vec::new();
        };
        git::tracked(&repository)
    }

    fn take_in<'p>(&self, paths: impl IntoIterator<Item = &'p PathBuf>) -> Result<Tree, WorkspaceError> {
        let mut entries = Tree::new();
        for path in paths {
            let full = self.top.join(path);
            let Ok(of) = full.symlink_metadata() else { continue };
            let stamp = Stamp::of(&of);
            if let Some(known) = self.before.get(path).filter(|known| known.stamp == stamp) {
                entries.insert(path.clone(), *known);
                continue;
            }
            if let Some(entry) = self.entry(&full, &of)? {
                entries.insert(path.clone(), entry);
            }
        }
        Ok(entries)
    }

    /// A file or a link, with its bytes in the store; anything else is none.
    fn entry(&self, full: &Path, of: &Metadata) -> Result<Option<Entry>, WorkspaceError> {
        let unreadable = |error: std::io::Error| WorkspaceError::Machine {
            message: format!("{} cannot be read: {error}", full.display()),
            hint: "see that it may be read".into(),
        };
        let (mode, id) = if of.is_symlink() {
            let leads_to = fs::read_link(full).map_err(unreadable)?;
            (LINK, self.blob(leads_to.as_os_str().as_bytes())?)
        } else if of.is_file() && of.size() > LARGE {
            let mut writer = self.store.blob_writer(None).map_err(failed)?;
            let mut file = fs::File::open(full).map_err(unreadable)?;
            std::io::copy(&mut file, &mut writer).map_err(unreadable)?;
            (file_mode(of), writer.commit().map_err(failed)?)
        } else if of.is_file() {
            (file_mode(of), self.blob(&fs::read(full).map_err(unreadable)?)?)
        } else {
            return Ok(None);
        };
        Ok(Some(Entry { id, mode, stamp: Stamp::of(of) }))
    }

    fn blob(&self, bytes: &[u8]) -> Result<Oid, WorkspaceError> {
        let id = Oid::hash_object(ObjectType::Blob, bytes).map_err(failed)?;
        if self.store.odb().map_err(failed)?.exists(id) {
            return Ok(id);
        }
        self.store.blob(bytes).map_err(failed)
    }

    fn tree(&self, entries: &Tree) -> Result<Oid, WorkspaceError> {
        let mut index = Index::new().map_err(failed)?;
        let zero = IndexTime::new(0, 0);
        for (path, entry) in entries {
            index
                .add(&IndexEntry {
                    ctime: zero,
                    mtime: zero,
                    dev: 0,
                    ino: 0,
                    mode: entry.mode,
                    uid: 0,
                    gid: 0,
                    file_size: 0,
                    id: entry.id,
                    flags: 0,
                    flags_extended: 0,
                    path: path.as_os_str().as_bytes().to_vec(),
                })
                .map_err(failed)?;
        }
        index.write_tree_to(&self.store).map_err(failed)
    }
}

fn file_mode(of: &Metadata) -> u32 {
    if of.mode() & 0o100 == 0 { 0o100_644 } else { 0o100_755 }
}

fn failed(error: git2::Error) -> WorkspaceError {
    WorkspaceError::Machine {
        message: format!("the patch cannot be made: git: {}", error.message()),
        hint: "see that there is room on the disk".into(),
    }
}
