//! Walks of a tree by its ignore rules: one way for search, for the patch of a private copy and for checkpoints, which
//! differ in [`Rules`] alone. Links are not followed and `.git` is never shown. Names come from here; what is read is
//! opened through the guard by whoever reads it.

use ignore::{DirEntry, Walk, WalkBuilder};
use std::path::Path;

/// Which rules a walk follows besides those of git in the tree itself.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Those of `.ignore` files: they say what to search, not what belongs to the project.
    pub ignore_files: bool,
    /// Those of the directories above: the tree may be a part of a repository.
    pub above: bool,
    /// Directories that tools fill and that nobody reads are left out, also where no rule names them.
    pub without_made: bool,
}

impl Rules {
    /// What is worth searching.
    pub const SEARCH: Self = Self { ignore_files: true, above: true, without_made: true };
    /// What git would see in a whole work tree.
    pub const GIT: Self = Self { ignore_files: false, above: false, without_made: false };
    /// What undo takes back.
    pub const UNDO: Self = Self { ignore_files: false, above: true, without_made: true };
}

/// Everything beneath `top` that the rules leave, `top` itself first, then by name.
pub fn walk(top: &Path, rules: Rules, depth: Option<usize>) -> Walk {
    builder(top, rules).max_depth(depth).sort_by_file_name(|a, b| a.cmp(b)).build()
}

/// The same, for whoever walks in another order or with several threads.
pub fn builder(top: &Path, rules: Rules) -> WalkBuilder {
    let mut builder = WalkBuilder::new(top);
    builder
        .hidden(false)
        .parents(rules.above)
        .ignore(rules.ignore_files)
        .git_ignore(true)
        .git_exclude(true)
        // The user's own excludes would make the same repository look different on every machine.
        .git_global(false)
        .require_git(false)
        .follow_links(false)
        .filter_entry(move |entry: &DirEntry| {
            entry.depth() == 0 || entry.file_name() != ".git" && !(rules.without_made && is_made(entry))
        });
    builder
}

/// Build directories tagged as caches (<https://bford.info/cachedir/>; cargo's `target` is), installed packages,
/// bytecode.
fn is_made(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    entry.file_type().is_some_and(|kind| kind.is_dir())
        && (name == "node_modules" || name == "__pycache__" || entry.path().join("CACHEDIR.TAG").is_file())
}
