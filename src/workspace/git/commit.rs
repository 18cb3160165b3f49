//! A commit of the work tree's changes: through libgit2 alone, so no hook, filter program, editor or signing program
//! runs. What would need one of them is refused with the reason, instead of making a commit that the repository's
//! owner would not have made. Nothing is ever pushed.

use super::{Place, git_error, history::short};
use crate::workspace::{Workspace, WorkspaceError};
use git2::{
    AttrCheckFlags, Config, ErrorCode, Index, Repository, RepositoryState, Signature, Status, StatusOptions,
};
use std::path::{Path, PathBuf};

/// Names that a message about several files gives.
const NAMED: usize = 5;

/// A changed file: its path in the repository, and what is known of it.
struct Changed {
    path: PathBuf,
    status: Status,
}

impl Workspace {
    /// Commits `paths` (files or directories of the workspace; what else is staged stays staged), or with none given
    /// every changed file that is tracked or staged. Says what was committed, and what was left out.
    pub fn git_commit(&self, message: &str, paths: &[String]) -> Result<String, WorkspaceError> {
        let place = self.repository()?;
        let repository = &place.repository;
        let message = git2::message_prettify(message, None).map_err(git_error)?;
        if message.trim().is_empty() {
            return refused("a commit needs a message; say in one line what changed");
        }
        if repository.state() != RepositoryState::Clean {
            return refused("a merge, rebase or the like is under way here; the user has to finish it first");
        }
        let own = repository.config().map_err(git_error)?;
        let users = Config::open_default().map_err(git_error)?;
        if [&own, &users].iter().any(|config| config.get_bool("commit.gpgsign").unwrap_or(false)) {
            return refused("commits are signed here, which only the user can do; leave the commit to them");
        }
        let author = author(&own, &users)?;
        let asked =
            paths.iter().map(|path| self.beneath(&place, Some(path))).collect::<Result<Vec<_>, _>>()?;
        let (wanted, left) = changed(&place, &asked)?;
        if let Some(path) = conflicted(&wanted) {
            return refused(&format!("{} has a conflict; the user has to resolve it first", path.display()));
        }
        for (path, asked) in paths.iter().zip(&asked) {
            if !wanted.iter().any(|changed| changed.path.starts_with(asked)) {
                return refused(&format!("{path} has no change to commit"));
            }
        }
        if wanted.is_empty() {
            let hint = if left.is_empty() { String::new() } else { format!("; {}", not_tracked(&left)) };
            return refused(&format!("nothing to commit{hint}"));
        }
        for changed in &wanted {
            let filter = repository.get_attr(&changed.path, "filter", AttrCheckFlags::default());
            // Without its program the file would be stored as it is, which is not what the repository holds.
            if let Ok(Some(filter)) = filter {
                let path = changed.path.display();
                return refused(&format!(
                    "{path} goes through git's filter \"{filter}\", which is not run here; the user has to commit it"
                ));
            }
        }
        let parent = match repository.head() {
            Ok(head) => Some(head.peel_to_commit().map_err(git_error)?),
            Err(error) if matches!(error.code(), ErrorCode::UnbornBranch | ErrorCode::NotFound) => None,
            Err(error) => return Err(git_error(error)),
        };
        let mut index = repository.index().map_err(git_error)?;
        let mut tree = Index::new().map_err(git_error)?;
        if let Some(parent) = &parent {
            tree.read_tree(&parent.tree().map_err(git_error)?).map_err(git_error)?;
        }
        for Changed { path, .. } in &wanted {
            stage(repository, &mut index, &mut tree, path)?;
        }
        let tree = tree.write_tree_to(repository).map_err(git_error)?;
        let tree = repository.find_tree(tree).map_err(git_error)?;
        // Before the commit: a lock that somebody holds then leaves everything as it was.
        index.write().map_err(git_error)?;
        let parents: Vec<_> = parent.iter().collect();
        let id = repository
            .commit(Some("HEAD"), &author, &author, &message, &tree, &parents)
            .map_err(git_error)?;
        let files = if wanted.len() == 1 { "1 file".into() } else { format!("{} files", wanted.len()) };
        let subject = message.lines().next().unwrap_or_default();
        let mut out = format!("{} {} on {}: {files}", short(id), subject, super::branch(repository));
        if asked.is_empty() && !left.is_empty() {
            out.push_str(&format!("\n[not in it: {}]", not_tracked(&left)));
        }
        out.push_str("\n[not pushed, no hook was run; /undo does not take a commit back, git reset --soft HEAD~1 does]");
        Ok(out)
    }
}

fn refused<T>(why: &str) -> Result<T, WorkspaceError> {
    Err(WorkspaceError::Refused(why.to_string()))
}

/// The user's name as git knows it: the repository's settings first, then the user's own.
fn author(own: &Config, users: &Config) -> Result<Signature<'static>, WorkspaceError> {
    let get = |key| {
        own.get_string(key).or_else(|_| users.get_string(key)).ok().filter(|text| !text.trim().is_empty())
    };
    match (get("user.name"), get("user.email")) {
        (Some(name), Some(email)) => Signature::now(&name, &email).map_err(git_error),
        _ => refused(
            "git does not know who commits here; the user has to set it: git config user.name NAME, git config user.email ADDRESS",
        ),
    }
}

/// The changed files that are meant, and those that nobody tracks and nobody named.
fn changed(place: &Place, asked: &[PathBuf]) -> Result<(Vec<Changed>, Vec<PathBuf>), WorkspaceError> {
    let statuses = place.statuses(StatusOptions::new().recurse_untracked_dirs(true))?;
    let (mut wanted, mut left) = (Vec::new(), Vec::new());
    for entry in statuses.iter() {
        let path = path_of(entry.path_bytes());
        let status = entry.status();
        let new = status == Status::WT_NEW;
        if asked.iter().any(|asked| path.starts_with(asked)) || asked.is_empty() && !new {
            wanted.push(Changed { path, status });
        } else if new {
            left.push(path.strip_prefix(&place.prefix).unwrap_or(&path).to_path_buf());
        }
    }
    Ok((wanted, left))
}

fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

fn conflicted(wanted: &[Changed]) -> Option<&Path> {
    wanted.iter().find(|changed| changed.status.contains(Status::CONFLICTED)).map(|changed| &*changed.path)
}

/// Puts the file as it is in the work tree into the index and into the tree of the commit.
fn stage(
    repository: &Repository,
    index: &mut Index,
    tree: &mut Index,
    path: &Path,
) -> Result<(), WorkspaceError> {
    let there = repository.workdir().is_some_and(|top| top.join(path).symlink_metadata().is_ok());
    if there {
        index.add_path(path).map_err(git_error)?;
        if let Some(entry) = index.get_path(path, 0) {
            tree.add(&entry).map_err(git_error)?;
        }
        return Ok(());
    }
    index.remove_path(path).map_err(git_error)?;
    match tree.remove(path, 0) {
        // It was staged as new and is gone again: the commit never had it.
        Err(error) if error.code() != ErrorCode::NotFound => Err(git_error(error)),
        _ => Ok(()),
    }
}

/// `a.rs, b.rs and 3 more are not tracked: name them in paths to commit them`
fn not_tracked(left: &[PathBuf]) -> String {
    let mut names: Vec<String> = left.iter().take(NAMED).map(|path| path.display().to_string()).collect();
    if left.len() > NAMED {
        names.push(format!("{} more", left.len() - NAMED));
    }
    let verb = if left.len() == 1 { "is" } else { "are" };
    format!("{} {verb} not tracked; name new files in paths to commit them", names.join(", "))
}
