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
    let top = top.canonicalize().unwrap_or_else(|_| top.to_path_buf());
    // The library opens those above whether it heeds them or not.
    let readable = top.ancestors().all(|directory| holds_rules(directory, &top));
    builder
        .hidden(false)
        .parents(rules.above && readable)
        .ignore(rules.ignore_files && readable)
        .git_ignore(readable)
        .git_exclude(readable)
        // The user's own excludes would make the same repository look different on every machine.
        .git_global(false)
        .require_git(false)
        .follow_links(false)
        .filter_entry(move |entry: &DirEntry| {
            entry.depth() == 0 || entry.file_name() != ".git" && !(rules.without_made && is_made(entry))
        });
    builder
}

/// Rules are read whole, whatever they are: a link of a repository's to a device would never end. (Those of directories
/// further down are opened by the library before anybody is asked.)
const MOST_RULES: u64 = 1 << 20;

/// Whether the files of rules in `directory` are files that can be read to their end.
fn holds_rules(directory: &Path, top: &Path) -> bool {
    [".gitignore", ".ignore", ".git/info/exclude"].iter().map(|name| directory.join(name)).all(|file| {
        match file.symlink_metadata() {
            Ok(found) if found.is_file() => found.len() <= MOST_RULES,
            Ok(found) if found.is_symlink() => match file.canonicalize() {
                // Files of other names may stand for what the kernel says, and wait for it.
                Ok(real) if real.starts_with(top) || real.file_name() == file.file_name() => {
                    real.metadata().is_ok_and(|found| found.is_file() && found.len() <= MOST_RULES)
                }
                Ok(_) => false,
                Err(_) => true,
            },
            Ok(_) => false,
            Err(_) => true,
        }
    })
}

/// Build directories tagged as caches (<https://bford.info/cachedir/>; cargo's `target` is), installed packages,
/// bytecode.
fn is_made(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    entry.file_type().is_some_and(|kind| kind.is_dir())
        && (name == "node_modules" || name == "__pycache__" || entry.path().join("CACHEDIR.TAG").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn rules_that_cannot_be_read_to_their_end_are_not_read() {
        let top = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = top.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let names = |rules| -> Vec<String> {
            let entries = walk(top.path(), rules, None).flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).skip(1).collect()
        };
        write(".gitignore", "x\n");
        write("a/x", "");
        write("a/y", "");
        let a = top.path().join("a");
        let below = || walk(&a, Rules::SEARCH, None).flatten().count();
        assert_eq!((names(Rules::GIT), below()), ([".gitignore", "a", "y"].map(String::from).to_vec(), 2));
        // A link to a file of rules is as good; opening a pipe would wait for ever, and a device never end.
        std::fs::rename(top.path().join(".gitignore"), top.path().join("rules")).unwrap();
        std::os::unix::fs::symlink("rules", top.path().join(".gitignore")).unwrap();
        assert_eq!(names(Rules::SEARCH), [".gitignore", "a", "y", "rules"]);
        std::fs::remove_file(top.path().join(".gitignore")).unwrap();
        let pipe = top.path().join(".gitignore");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(names(Rules::SEARCH), [".gitignore", "a", "x", "y", "rules"]);
        assert_eq!(below(), 3);
    }
}
