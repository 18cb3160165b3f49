//! Status and diff of the repository the workspace lies in, by libgit2: no git program, no hooks, no external diff,
//! no text conversion. Reads only; the index is not even refreshed. `history` reads commits, `commit` makes one.
//!
//! Only the repository's own configuration is read, and of that only what libgit2 itself acts on. Paths are the
//! workspace's, and what lies outside the workspace is not shown even where the repository reaches further.

mod commit;
mod history;

use super::sandbox::repositories::shared_by;
use super::{Workspace, WorkspaceError};
use git2::{
    Config, ConfigLevel, Diff, DiffFormat, DiffOptions, ErrorCode, Repository, RepositoryOpenFlags, Status,
    StatusOptions, Statuses,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Lines of a status; more files than this are counted only.
const MAX_FILES: usize = 200;
/// A diff is not printed further than this many bytes; tools cut it again to what fits.
const MAX_DIFF: usize = 4 * 1024 * 1024;

/// A repository and the workspace's place in it.
struct Place {
    repository: Repository,
    /// Of the workspace beneath the work tree; empty at its top.
    prefix: PathBuf,
}

impl Place {
    /// What changed in the workspace, untracked files too.
    fn statuses(&self, options: &mut StatusOptions) -> Result<Statuses<'_>, WorkspaceError> {
        options
            .include_untracked(true)
            .include_ignored(false)
            .exclude_submodules(true)
            .disable_pathspec_match(true)
            .update_index(false);
        if !self.prefix.as_os_str().is_empty() {
            options.pathspec(&self.prefix);
        }
        self.repository.statuses(Some(options)).map_err(git_error)
    }
}

impl Workspace {
    /// The branch that is checked out; `None` outside a repository.
    pub fn git_branch(&self) -> Option<String> {
        Some(branch(&self.repository().ok()?.repository))
    }

    /// The branch and the changed files, in the letters of `git status --short`.
    pub fn git_status(&self) -> Result<String, WorkspaceError> {
        let place = self.repository()?;
        let statuses = place.statuses(StatusOptions::new().renames_head_to_index(true))?;
        let mut out = format!("## {}\n", branch(&place.repository));
        for entry in statuses.iter().take(MAX_FILES) {
            let path = String::from_utf8_lossy(entry.path_bytes()).into_owned();
            let shown = Path::new(&path).strip_prefix(&place.prefix).unwrap_or(Path::new(&path));
            out.push_str(&format!("{} {}\n", letters(entry.status()), shown.display()));
        }
        match statuses.len() {
            0 => out.push_str("nothing changed\n"),
            n if n > MAX_FILES => out.push_str(&format!("[... {} more files ...]\n", n - MAX_FILES)),
            _ => {}
        }
        Ok(out)
    }

    /// The work tree, untracked files too, against the last commit; empty where nothing changed.
    pub fn git_diff(&self, path: Option<&str>) -> Result<String, WorkspaceError> {
        let place = self.repository()?;
        let mut options = DiffOptions::new();
        options
            .include_untracked(true)
            .recurse_untracked_dirs(true)
            .show_untracked_content(true)
            .ignore_submodules(true)
            .disable_pathspec_match(true)
            .context_lines(3);
        let beneath = self.beneath(&place, path)?;
        if !beneath.as_os_str().is_empty() {
            options.pathspec(&beneath);
        }
        let head = match place.repository.head() {
            Ok(head) => Some(head.peel_to_tree().map_err(git_error)?),
            // No commit yet: everything is new.
            Err(error) if matches!(error.code(), ErrorCode::UnbornBranch | ErrorCode::NotFound) => None,
            Err(error) => return Err(git_error(error)),
        };
        let diff = place
            .repository
            .diff_tree_to_workdir_with_index(head.as_ref(), Some(&mut options))
            .map_err(git_error)?;
        print(&diff)
    }

    /// Where `path`, or the workspace itself, lies in the repository. A path that is gone from disk still has a history.
    fn beneath(&self, place: &Place, path: Option<&str>) -> Result<PathBuf, WorkspaceError> {
        let Some(path) = path else { return Ok(place.prefix.clone()) };
        let location = self.guard.directory(path)?;
        if !location.is_in_first_root() {
            return Err(WorkspaceError::Refused(format!(
                "{path} is not beneath {}, whose repository is shown",
                self.root().display()
            )));
        }
        Ok(place.prefix.join(location.relative()))
    }

    /// The top of the work tree the workspace lies in; outside a repository the workspace itself.
    pub(super) fn git_top(&self) -> PathBuf {
        let depth = self.repository().map_or(0, |place| place.prefix.components().count());
        self.root().ancestors().nth(depth).unwrap_or(self.root()).to_path_buf()
    }

    /// The directories above the workspace up to the top of its work tree, the nearest first.
    pub fn enclosing(&self) -> Vec<PathBuf> {
        let top = self.git_top();
        let above = self.root().ancestors().skip(1);
        above.take_while(|directory| directory.starts_with(&top)).map(Path::to_path_buf).collect()
    }

    /// What the repository tracks in the workspace, whatever its ignore rules say.
    pub(super) fn git_tracked(&self) -> Vec<PathBuf> {
        let Ok(Place { repository, prefix }) = self.repository() else { return Vec::new() };
        let beneath = |path: PathBuf| Some(path.strip_prefix(&prefix).ok()?.to_path_buf());
        tracked(&repository).into_iter().filter_map(beneath).collect()
    }

    /// Where the repository keeps what is this work tree's own, and what all of its work trees share.
    pub(super) fn git_directories(&self) -> Option<(PathBuf, PathBuf)> {
        let Place { repository, .. } = self.repository().ok()?;
        Some((repository.path().to_path_buf(), repository.commondir().to_path_buf()))
    }

    fn repository(&self) -> Result<Place, WorkspaceError> {
        let root = self.root();
        let none: [&OsStr; 0] = [];
        let repository = Repository::open_ext(root, RepositoryOpenFlags::empty(), none).map_err(|error| {
            match error.code() {
                ErrorCode::NotFound => WorkspaceError::Refused(
                    "the workspace is not in a git repository; work without git".into(),
                ),
                ErrorCode::Owner => WorkspaceError::Refused(
                    "the git repository belongs to another user, so it is not opened; work without git"
                        .into(),
                ),
                _ => git_error(error),
            }
        })?;
        let work_tree = repository.workdir().and_then(|path| path.canonicalize().ok());
        if !work_tree.as_deref().is_some_and(|tree| is_its_own(&repository, tree)) {
            return Err(WorkspaceError::Refused(
                "what is called .git here leads to a repository that does not name this work tree, so it is not opened; \
                 work without git"
                    .into(),
            ));
        }
        let mut own = Config::new().map_err(git_error)?;
        // A repository may lack the file; then every setting has its default.
        let file = repository.commondir().join("config");
        if file.is_file() {
            own.add_file(&file, ConfigLevel::Local, false).map_err(git_error)?;
        }
        repository.set_config(&own).map_err(git_error)?;
        // `core.worktree` can name any directory; one that does not hold the workspace is none of its business.
        let prefix = work_tree.and_then(|tree| Some(root.strip_prefix(&tree).ok()?.to_path_buf()));
        match prefix {
            Some(prefix) => Ok(Place { repository, prefix }),
            None => Err(WorkspaceError::Refused(
                "the git repository here has no work tree that holds the workspace; work without git".into(),
            )),
        }
    }
}

/// Whether what the repository is made of lies in its work tree, or in a repository that says so itself (a linked work
/// tree, a submodule): a `.git` file and links in `.git` can name any other one.
fn is_its_own(repository: &Repository, tree: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    let (Some(own), Some(common)) = (real(repository.path()), real(repository.commondir())) else {
        return false;
    };
    let parts = ["objects", "refs", "HEAD", "index", "config"].map(|part| common.join(part));
    let holds = |place: &Path| parts.iter().all(|part| real(part).is_none_or(|part| part.starts_with(place)));
    if own.starts_with(tree) && common.starts_with(tree) {
        return holds(tree);
    }
    if shared_by(tree).is_some_and(|shared| shared == common) {
        return holds(&common);
    }
    // A submodule's directory names its work tree in the settings that it was made with.
    let named = Config::open(&own.join("config")).and_then(|config| config.get_path("core.worktree"));
    own == common && holds(&own) && named.is_ok_and(|named| real(&own.join(named)).as_deref() == Some(tree))
}

/// The paths of the index. Those that lead elsewhere (an index is a file like any other) are left out.
pub(super) fn tracked(repository: &Repository) -> Vec<PathBuf> {
    let Ok(index) = repository.index() else { return Vec::new() };
    let paths = index.iter().map(|entry| PathBuf::from(OsStr::from_bytes(&entry.path)));
    paths.filter(|path| path.components().all(|part| matches!(part, Component::Normal(_)))).collect()
}

fn branch(repository: &Repository) -> String {
    match repository.head() {
        Ok(head) if head.is_branch() => String::from_utf8_lossy(head.shorthand_bytes()).into_owned(),
        Ok(head) => match head.target() {
            Some(id) => format!("HEAD (detached at {})", &id.to_string()[..7]),
            None => "HEAD".into(),
        },
        Err(_) => "no commits yet".into(),
    }
}

fn letters(status: Status) -> String {
    let pick = |pairs: &[(Status, char)]| {
        pairs.iter().find(|(bit, _)| status.intersects(*bit)).map_or(' ', |(_, letter)| *letter)
    };
    if status.contains(Status::CONFLICTED) {
        return "UU".into();
    }
    if status == Status::WT_NEW {
        return "??".into();
    }
    let index = pick(&[
        (Status::INDEX_NEW, 'A'),
        (Status::INDEX_RENAMED, 'R'),
        (Status::INDEX_DELETED, 'D'),
        (Status::INDEX_TYPECHANGE, 'T'),
        (Status::INDEX_MODIFIED, 'M'),
    ]);
    let tree = pick(&[
        (Status::WT_DELETED, 'D'),
        (Status::WT_RENAMED, 'R'),
        (Status::WT_TYPECHANGE, 'T'),
        (Status::WT_MODIFIED, 'M'),
        (Status::WT_NEW, '?'),
    ]);
    [index, tree].iter().collect()
}

fn print(diff: &Diff<'_>) -> Result<String, WorkspaceError> {
    let mut out = String::new();
    let printed = diff.print(DiffFormat::Patch, |_, _, line| {
        if matches!(line.origin(), ' ' | '+' | '-') {
            out.push(line.origin());
        }
        out.push_str(&String::from_utf8_lossy(line.content()));
        out.len() < MAX_DIFF
    });
    match printed {
        Ok(()) => Ok(out),
        Err(error) if error.code() == ErrorCode::User => {
            out.push_str("[... the rest is left out: ask for the diff of one path ...]\n");
            Ok(out)
        }
        Err(error) => Err(git_error(error)),
    }
}

fn git_error(error: git2::Error) -> WorkspaceError {
    WorkspaceError::Refused(format!("git: {}; work without git", error.message()))
}
