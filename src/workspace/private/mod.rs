//! A private copy of a work tree as it stands, uncommitted and ignored files too, to work in while the original stays
//! untouched; and what came of the work (`snapshot`), as a patch that `git apply` takes, or done to the original (`land`).
//! The copy goes with its value; what a kill left behind is removed by the next one.
//!
//! Where the workspace is a part of a repository the whole work tree is copied: builds and git look above it.

mod copy;
mod land;
mod repository;
mod snapshot;
#[cfg(test)]
mod tests;

use super::{Touched, Workspace, WorkspaceError};
use rustix::fs::{FlockOperation, flock};
use snapshot::Snapshots;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

/// How far below the top build directories of Cargo are looked for.
const CARGO_DEPTH: usize = 3;

/// What copies are called; those that nobody holds any more are known by it.
const PREFIX: &str = "qwright-copy-";
/// What those are called that were left for the user.
const LEFT: &str = "qwright-kept-";
/// So often a new one may be taken by somebody who removes what killed processes left.
const TRIES: usize = 16;

pub struct PrivateCopy {
    root: PathBuf,
    snapshots: Snapshots,
    holder: Holder,
}

impl PrivateCopy {
    /// Copies the work tree that `workspace` lies in to one of `places`: the first one on the same file system (where
    /// files may share their blocks), else the first that can be written.
    pub fn of(
        workspace: &Workspace,
        places: &[PathBuf],
        cancel: &AtomicBool,
    ) -> Result<Self, WorkspaceError> {
        let top = workspace.git_top();
        let holder = Holder::new(&top, places)?;
        // The copy has the name of the original: it is what the model is told the project is called.
        let name = top.file_name().unwrap_or("workspace".as_ref());
        let mut copied = copy::tree(&top, &holder.path().join("tree").join(name), holder.path(), cancel)?;
        // What is touched in it is known by real paths.
        copied.top = copied.top.canonicalize().unwrap_or(copied.top);
        let directories = workspace.git_directories();
        let objects = directories.as_ref().map(|(_, shared)| shared.join("objects"));
        repository::give_own(&copied.top, directories, cancel)?;
        let beneath = workspace.root().strip_prefix(&top);
        let root = beneath.map_or_else(|_| copied.top.clone(), |prefix| copied.top.join(prefix));
        let base = holder.path().join("base.git");
        let snapshots = Snapshots::begin(top, copied, &base, objects.as_deref())?;
        Ok(Self { root, snapshots, holder })
    }

    /// Where to work.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The top of the copied work tree.
    pub fn top(&self) -> &Path {
        self.snapshots.top()
    }

    /// Makes what a check did before the work no part of what changes here: whatever was changed so far, and what it
    /// made (`made`) wherever it runs.
    pub fn checked(&mut self, made: &[PathBuf]) -> Result<(), WorkspaceError> {
        let changed = self.snapshots.changed_paths()?;
        self.snapshots.leave_out(&changed);
        self.snapshots.leave_out(made);
        Ok(())
    }

    /// Brings along what Cargo built in another copy of the same tree, so that it need not be built here from the start.
    /// Cargo's build directories may be moved (it knows the workspace's own paths from its root); others hold absolute
    /// paths, and a build that goes on with those would look at the wrong tree. What cannot be brought is built again.
    pub fn bring_builds(&self, from: &Self, cancel: &AtomicBool) {
        let (source, target) = (from.top(), self.top());
        for build in copy::cargo_builds(source, CARGO_DEPTH) {
            let Ok(place) = build.strip_prefix(source).map(|place| target.join(place)) else { continue };
            if !place.exists() && copy::tree(&build, &place, from.holder.path(), cancel).is_err() {
                let _ = std::fs::remove_dir_all(&place);
            }
        }
    }

    /// Leaves out what the check built, and takes in all that the work touched.
    pub fn settle(&mut self, touched: &Touched) {
        self.snapshots.leave_out(&touched.built);
        self.snapshots.keep(&touched.work);
    }

    /// What changed since the copy was made, and in how many files. Paths are those of the work tree. Of the files that
    /// the repository ignores only those that the work itself wrote are in it.
    pub fn patch(&self) -> Result<(Vec<u8>, usize), WorkspaceError> {
        self.snapshots.patch()
    }

    /// Does to the original what was done here, all of it or nothing. An error where the original has changed meanwhile.
    pub fn land(&self, original: &Workspace) -> Result<(), WorkspaceError> {
        let mut changes = self.snapshots.changes()?;
        land::add_directories(&mut changes, self.top());
        // They are of the whole work tree.
        let mut whole = Workspace::open(&original.git_top(), &[])?;
        whole.pending.clone_from(&original.pending);
        whole.take_over(changes)
    }

    /// Leaves the copy for the user and says where. Nothing can be asked of it any more.
    pub fn leave(&mut self) -> PathBuf {
        if let Some((old, new)) = self.holder.leave()
            && let Ok(beneath) = self.root.strip_prefix(old)
        {
            self.root = new.join(beneath);
        }
        self.root.clone()
    }
}

/// The directory that a copy lies in; locked while it is in use.
struct Holder {
    directory: Option<TempDir>,
    /// Only held: its lock says that somebody is here.
    _lock: File,
}

impl Holder {
    fn new(original: &Path, places: &[PathBuf]) -> Result<Self, WorkspaceError> {
        let device = |path: &Path| path.metadata().map(|of| of.dev()).ok();
        let mut usable: Vec<(bool, &PathBuf)> = places
            .iter()
            .filter(|place| std::fs::create_dir_all(place).is_ok())
            .map(|place| (device(place) != device(original), place))
            .collect();
        usable.sort_by_key(|(elsewhere, _)| *elsewhere);
        let mut why = "no directory for it is known".to_string();
        for (_, place) in usable {
            sweep(place);
            match Self::made_in(place) {
                Ok(holder) => return Ok(holder),
                Err(error) => why = format!("{}: {error}", place.display()),
            }
        }
        Err(WorkspaceError::Machine {
            message: format!("no private copy can be made: {why}"),
            hint: "set XDG_CACHE_HOME or TMPDIR to a directory that can be written".into(),
        })
    }

    /// Whoever sweeps at this moment may take it before it is locked: then another one is made.
    fn made_in(place: &Path) -> std::io::Result<Self> {
        let mut more = 1..TRIES;
        loop {
            let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(place)?;
            match locked(directory.path()) {
                Ok(lock) => return Ok(Self { directory: Some(directory), _lock: lock }),
                Err(error) if more.next().is_none() => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Leaves the directory, by a name that no sweep takes for a killed process's; what it was called and what it is.
    fn leave(&mut self) -> Option<(PathBuf, PathBuf)> {
        let old = self.directory.take()?.keep().canonicalize().ok()?;
        let new = old.with_file_name(old.file_name()?.to_str()?.replacen(PREFIX, LEFT, 1));
        std::fs::rename(&old, &new).ok()?;
        Some((old, new))
    }

    fn path(&self) -> &Path {
        self.directory.as_ref().map_or(Path::new(""), TempDir::path)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(directory) = self.directory.take() {
            remove(&directory.keep());
        }
    }
}

/// The directory, locked; an error where somebody else has it, or removed it meanwhile. No name is used twice.
fn locked(path: &Path) -> std::io::Result<File> {
    let directory = File::open(path)?;
    flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
    path.symlink_metadata()?;
    Ok(directory)
}

/// Removes what killed processes left.
fn sweep(place: &Path) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let owned = entry.metadata().is_ok_and(|of| of.uid() == rustix::process::getuid().as_raw());
        if ours
            && is_directory
            && owned
            && let Ok(_lock) = locked(&entry.path())
        {
            remove(&entry.path());
        }
    }
}

/// Removes a tree, also one with directories that nobody may write (module caches have such).
fn remove(path: &Path) {
    if std::fs::remove_dir_all(path).is_err() {
        copy::open_up(path);
        let _ = std::fs::remove_dir_all(path);
    }
}
