//! What a tree was and what it is, as trees of a git store of our own, and the difference as a patch. Bytes are raw: no
//! filter, attribute or configuration of the repository has a say. What the repository holds already is not stored
//! again. Ignored files are left out, by the rules as they were at the beginning.

use crate::workspace::WorkspaceError;
use crate::workspace::check::not_ignored;
use crate::workspace::git;
use crate::workspace::node::Stamp;
use git2::{
    Config, DiffFormat, DiffOptions, Index, IndexEntry, IndexTime, ObjectType, Oid, Repository,
    RepositoryOpenFlags,
};
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Larger files are not held in memory while they are stored.
const LARGE: u64 = 64 * 1024 * 1024;

pub struct Snapshots {
    top: PathBuf,
    store: Repository,
    before: BTreeMap<PathBuf, Entry>,
    /// Files that were there and ignored: a change of the rules makes them no new ones.
    ignored: HashSet<PathBuf>,
    /// Files, and directories with all in them, that are none of the work's; `None` where nothing is looked for.
    left_out: Option<Vec<PathBuf>>,
    /// Files that are the work's wherever they lie.
    kept: HashSet<PathBuf>,
}

#[derive(Clone, Copy)]
struct Entry {
    id: Oid,
    mode: u32,
    stamp: Stamp,
}

impl Snapshots {
    /// Takes in the tree at `top`, which holds `paths`. `objects`: a store that is read and never written.
    pub fn begin(
        top: PathBuf,
        paths: Vec<PathBuf>,
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
        let mut snapshots = Self {
            top,
            store,
            before: BTreeMap::new(),
            ignored: HashSet::new(),
            left_out: None,
            kept: HashSet::new(),
        };
        let mut wanted = not_ignored(&snapshots.top);
        wanted.extend(snapshots.tracked());
        let (wanted, ignored): (Vec<PathBuf>, Vec<PathBuf>) =
            paths.into_iter().partition(|path| wanted.contains(path));
        snapshots.before = snapshots.take_in(&wanted)?;
        snapshots.ignored = ignored.into_iter().collect();
        Ok(snapshots)
    }

    pub fn patch(&self) -> Result<(Vec<u8>, usize), WorkspaceError> {
        let new = self.new_files();
        let wanted: HashSet<PathBuf> = new.into_iter().chain(self.before.keys().cloned()).collect();
        let after = self.take_in(&wanted.into_iter().collect::<Vec<_>>())?;
        let trees = [self.tree(&self.before)?, self.tree(&after)?];
        let [before, after] = trees.map(|id| self.store.find_tree(id));
        let (before, after) = (before.map_err(failed)?, after.map_err(failed)?);
        let mut options = DiffOptions::new();
        options.show_binary(true).id_abbrev(40).context_lines(3);
        let diff =
            self.store.diff_tree_to_tree(Some(&before), Some(&after), Some(&mut options)).map_err(failed)?;
        let mut patch = Vec::new();
        diff.print(DiffFormat::Patch, |_, _, line| {
            if matches!(line.origin(), ' ' | '+' | '-') {
                patch.push(line.origin() as u8);
            }
            patch.extend_from_slice(line.content());
            true
        })
        .map_err(failed)?;
        let mut files = HashSet::new();
        for delta in diff.deltas() {
            files.extend(delta.new_file().path().map(Path::to_path_buf));
        }
        Ok((patch, files.len()))
    }

    /// Leaves `paths` out of every patch from here on, and new files that are no text: a check built them, at once or
    /// when it came so far.
    pub fn leave_out(&mut self, paths: Vec<PathBuf>) {
        self.left_out.get_or_insert_default().extend(paths);
    }

    /// Takes these in all the same.
    pub fn keep(&mut self, files: Vec<PathBuf>) {
        let below = files.iter().filter_map(|path| path.strip_prefix(&self.top).ok());
        self.kept.extend(below.map(Path::to_path_buf));
    }

    fn new_files(&self) -> Vec<PathBuf> {
        let is_left_out = |path: &Path| {
            let of_check = |left_out: &Vec<PathBuf>| {
                left_out.iter().any(|other| path.starts_with(other)) || is_binary(&self.top.join(path))
            };
            !self.kept.contains(path) && self.left_out.as_ref().is_some_and(of_check)
        };
        let is_new = |path: &PathBuf| {
            !self.ignored.contains(path) && !self.before.contains_key(path) && !is_left_out(path)
        };
        not_ignored(&self.top).into_iter().filter(is_new).collect()
    }

    /// What the repository tracks, whatever its rules say.
    fn tracked(&self) -> Vec<PathBuf> {
        let none: [&std::ffi::OsStr; 0] = [];
        let Ok(repository) = Repository::open_ext(&self.top, RepositoryOpenFlags::NO_SEARCH, none) else {
            return Vec::new();
        };
        git::tracked(&repository)
    }

    fn take_in(&self, paths: &[PathBuf]) -> Result<BTreeMap<PathBuf, Entry>, WorkspaceError> {
        let mut entries = BTreeMap::new();
        for path in paths {
            let full = self.top.join(path);
            let Ok(of) = full.symlink_metadata() else { continue };
            let stamp = Stamp::of(&of);
            if let Some(known) = self.before.get(path).filter(|known| known.stamp == stamp) {
                entries.insert(path.clone(), *known);
                continue;
            }
            let unreadable = |error: std::io::Error| WorkspaceError::Machine {
                message: format!("{} cannot be read: {error}", full.display()),
                hint: "see that it may be read".into(),
            };
            let (mode, id) = if of.is_symlink() {
                let leads_to = fs::read_link(&full).map_err(unreadable)?;
                (0o120_000, self.blob(leads_to.as_os_str().as_bytes())?)
            } else if of.is_file() && of.size() > LARGE {
                let mut writer = self.store.blob_writer(None).map_err(failed)?;
                let mut file = fs::File::open(&full).map_err(unreadable)?;
                std::io::copy(&mut file, &mut writer).map_err(unreadable)?;
                (file_mode(&of), writer.commit().map_err(failed)?)
            } else if of.is_file() {
                (file_mode(&of), self.blob(&fs::read(&full).map_err(unreadable)?)?)
            } else {
                continue;
            };
            entries.insert(path.clone(), Entry { id, mode, stamp });
        }
        Ok(entries)
    }

    fn blob(&self, bytes: &[u8]) -> Result<Oid, WorkspaceError> {
        let id = Oid::hash_object(ObjectType::Blob, bytes).map_err(failed)?;
        if self.store.odb().map_err(failed)?.exists(id) {
            return Ok(id);
        }
        self.store.blob(bytes).map_err(failed)
    }

    fn tree(&self, entries: &BTreeMap<PathBuf, Entry>) -> Result<Oid, WorkspaceError> {
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

/// As git sees it: a NUL among the first 8,000 bytes.
fn is_binary(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(8000).read_to_end(&mut head));
    read.is_ok() && head.contains(&0)
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
