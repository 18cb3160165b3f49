//! What a tree was and what it is, as trees of a git store of our own, and the difference as a patch. Bytes are raw: no
//! filter, attribute or configuration of the repository has a say. What the repository holds already is not stored
//! again. Ignored files are left out, by the rules as they were at the beginning.

use crate::workspace::WorkspaceError;
use crate::workspace::check::Paths;
use crate::workspace::git;
use crate::workspace::node::Stamp;
use crate::workspace::walk::{Rules, walk};
use git2::{
    Config, Diff, DiffFormat, DiffOptions, FileMode, Index, IndexEntry, IndexTime, ObjectType, Oid,
    Repository, RepositoryOpenFlags,
};
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Metadata};
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
    /// None of the work's.
    left_out: Paths,
    /// The work's wherever they lie.
    kept: HashSet<PathBuf>,
}

/// What came of the work: a patch for all that is text, links too, and the rest.
pub struct Parts {
    pub patch: Vec<u8>,
    pub raw: Vec<Raw>,
    pub files: usize,
}

/// A change of a file that is no text.
pub struct Raw {
    pub path: PathBuf,
    pub before: Option<Vec<u8>>,
    pub after: Option<Vec<u8>>,
    pub executable: bool,
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
            left_out: Paths::default(),
            kept: HashSet::new(),
        };
        let mut wanted = snapshots.not_ignored();
        wanted.extend(snapshots.tracked());
        let (wanted, ignored): (Vec<PathBuf>, Vec<PathBuf>) =
            paths.into_iter().partition(|path| wanted.contains(path));
        snapshots.before = snapshots.take_in(&wanted)?;
        snapshots.ignored = ignored.into_iter().collect();
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

    /// The same for whoever makes the changes himself.
    pub fn parts(&self) -> Result<Parts, WorkspaceError> {
        let diff = self.diff()?;
        let mut parts = Parts { patch: Vec::new(), raw: Vec::new(), files: diff.deltas().len() };
        for (index, delta) in diff.deltas().enumerate() {
            let (old, new) = (delta.old_file(), delta.new_file());
            let bytes = |file: &git2::DiffFile<'_>| -> Result<Option<Vec<u8>>, WorkspaceError> {
                let there = !file.id().is_zero();
                let blob = there.then(|| self.store.find_blob(file.id())).transpose().map_err(failed)?;
                Ok(blob.map(|blob| blob.content().to_vec()))
            };
            let (before, after) = (bytes(&old)?, bytes(&new)?);
            let is_text = |bytes: &Vec<u8>| !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok();
            if before.iter().chain(&after).all(is_text) {
                if let Some(mut one) = git2::Patch::from_diff(&diff, index).map_err(failed)? {
                    parts.patch.extend_from_slice(&one.to_buf().map_err(failed)?);
                }
            } else if let Some(path) = new.path().or(old.path()) {
                let executable = new.mode() == FileMode::BlobExecutable;
                parts.raw.push(Raw { path: path.to_path_buf(), before, after, executable });
            }
        }
        Ok(parts)
    }

    fn diff(&self) -> Result<Diff<'_>, WorkspaceError> {
        let is_new = |path: &PathBuf| !self.ignored.contains(path) && !self.before.contains_key(path);
        let new = self.not_ignored().into_iter().filter(is_new);
        let known = self.before.keys().cloned();
        let (left, wanted): (Vec<PathBuf>, Vec<PathBuf>) =
            new.chain(known).partition(|path| self.is_left_out(path));
        let mut after = self.take_in(&wanted)?;
        // As they were.
        after.extend(
            left.into_iter().filter_map(|path| {
                self.before.get_key_value(&path).map(|(path, entry)| (path.clone(), *entry))
            }),
        );
        let trees = [self.tree(&self.before)?, self.tree(&after)?];
        let [before, after] = trees.map(|id| self.store.find_tree(id));
        let (before, after) = (before.map_err(failed)?, after.map_err(failed)?);
        let mut options = DiffOptions::new();
        options.show_binary(true).id_abbrev(40).context_lines(3);
        self.store.diff_tree_to_tree(Some(&before), Some(&after), Some(&mut options)).map_err(failed)
    }

    /// What was there when the copy was made, and is not as it was.
    pub fn changed_paths(&self) -> Result<Vec<PathBuf>, WorkspaceError> {
        let paths: Vec<PathBuf> = self.before.keys().cloned().collect();
        let now = self.take_in(&paths)?;
        let same = |path: &PathBuf| {
            let (old, new) = (&self.before[path], now.get(path));
            new.is_some_and(|new| (new.id, new.mode) == (old.id, old.mode))
        };
        Ok(paths.into_iter().filter(|path| !same(path)).map(|path| self.top.join(path)).collect())
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

fn file_mode(of: &Metadata) -> u32 {
    if of.mode() & 0o100 == 0 { 0o100_644 } else { 0o100_755 }
}

fn failed(error: git2::Error) -> WorkspaceError {
    WorkspaceError::Machine {
        message: format!("the patch cannot be made: git: {}", error.message()),
        hint: "see that there is room on the disk".into(),
    }
}
