//! The command that a piece of work is to make pass, and what it leaves behind by itself (build output): that is none of
//! the work's changes, wherever it is asked for, and no file of the project that a model is told of. Undo takes it back as
//! it does all else.

use super::Workspace;
use super::walk::{Rules, walk};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

pub(super) struct Check {
    command: String,
    /// Files, and directories with all in them, that its first run made.
    made: Vec<PathBuf>,
}

impl Workspace {
    /// Says what the check is. `made`: what its first run left behind (`new_since`).
    pub fn set_check(&mut self, command: &str, made: &[PathBuf]) {
        let top = self.git_top();
        let made = made.iter().map(|path| top.join(path)).collect();
        self.check = Some(Check { command: command.trim().to_string(), made });
    }

    pub(super) fn is_check(&self, command: &str) -> bool {
        self.check.as_ref().is_some_and(|check| check.command == command.trim())
    }

    /// Whether the first run of the check made the file at `path`, beneath the root.
    pub fn is_of_check(&self, path: &str) -> bool {
        let full = self.root().join(path);
        self.check.as_ref().is_some_and(|check| check.made.iter().any(|made| full.starts_with(made)))
    }

    /// Every file and link of the whole work tree that its own ignore rules leave in; paths are those of the tree.
    pub fn tree_files(&self) -> HashSet<PathBuf> {
        not_ignored(&self.git_top())
    }

    /// What is new since `tree_files` gave `before`, a directory that is new as a whole.
    pub fn new_since(&self, before: &HashSet<PathBuf>) -> Vec<PathBuf> {
        let old: HashSet<&Path> = before.iter().flat_map(|path| path.ancestors()).collect();
        let outermost = |path: &PathBuf| {
            let new = path.ancestors().take_while(|above| !old.contains(above) && *above != Path::new(""));
            new.last().map(Path::to_path_buf)
        };
        let new: HashSet<PathBuf> = self.tree_files().difference(before).filter_map(outermost).collect();
        new.into_iter().collect()
    }
}

/// Every file and link beneath `top` that the ignore rules of the tree itself leave in.
pub(super) fn not_ignored(top: &Path) -> HashSet<PathBuf> {
    let files = walk(top, Rules::GIT, None)
        .flatten()
        .filter(|entry| entry.file_type().is_some_and(|kind| !kind.is_dir()));
    files.filter_map(|entry| Some(entry.path().strip_prefix(top).ok()?.to_path_buf())).collect()
}
