//! A repository of its own for a copy whose original only says where one is: a linked work tree, a submodule. Without,
//! what is committed in the copy would land on a branch of the original, and no command in a sandbox would find it.

use super::copy;
use crate::workspace::WorkspaceError;
use git2::{Config, ErrorCode};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// What linked work trees have in common.
const SHARED: &[&str] =
    &["config", "hooks", "info", "lfs", "logs", "objects", "packed-refs", "refs", "remotes", "shallow"];
/// What says of a directory that it is a linked work tree's.
const TIES: &[&str] = &["commondir", "gitdir"];

/// Makes `.git` in the copy at `top` a directory, if the original is a repository. `original`: where it keeps what is its
/// own, and what it shares.
pub fn give_own(
    top: &Path,
    original: Option<(PathBuf, PathBuf)>,
    cancel: &AtomicBool,
) -> Result<(), WorkspaceError> {
    let git = top.join(".git");
    if git.symlink_metadata().map_or(true, |of| of.is_dir()) {
        return Ok(());
    }
    fs::remove_file(&git).map_err(|error| copy::failed(&git, &error))?;
    // Better none than the original's.
    let Some((own, shared)) = original else { return Ok(()) };
    let tree = |from: &Path, to: &Path| copy::tree(from, to, Path::new(""), cancel).map(drop);
    if own != shared {
        fs::create_dir(&git).map_err(|error| copy::failed(&git, &error))?;
        for part in SHARED {
            let (from, to) = (shared.join(part), git.join(part));
            match from.symlink_metadata() {
                Ok(of) if of.is_dir() => tree(&from, &to)?,
                Ok(of) if of.is_file() => {
                    fs::copy(&from, &to).map_err(|error| copy::failed(&from, &error))?;
                }
                // A link may lead anywhere.
                _ => {}
            }
        }
    }
    tree(&own, &git)?;
    for tie in TIES.iter().map(|tie| git.join(tie)) {
        match fs::remove_file(&tie) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(copy::failed(&tie, &error)),
            _ => {}
        }
    }
    untie(&git).map_err(|error| WorkspaceError::Machine {
        message: format!("the repository cannot be copied: git: {}", error.message()),
        hint: "see that its config can be read".into(),
    })
}

/// Takes out of the settings what they say of another work tree, or that there is none (of a bare repository).
fn untie(git: &Path) -> Result<(), git2::Error> {
    for file in ["config", "config.worktree"].map(|name| git.join(name)) {
        if !file.is_file() {
            continue;
        }
        let mut config = Config::open(&file)?;
        match config.remove_multivar("core.worktree", ".*") {
            Err(error) if error.code() != ErrorCode::NotFound => return Err(error),
            _ => config.set_bool("core.bare", false)?,
        }
    }
    Ok(())
}
