//! The command that a piece of work is to make pass, and what it leaves behind by itself (build output): that is none of
//! the work's changes, wherever it is asked for, and no file of the project that a model is told of. Undo takes it back as
//! it does all else.

use super::Workspace;
use super::shell::ShellCommand;
use super::shell::policy::{self, CommandVerdict, Place};
use super::walk::{Rules, walk};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

pub(super) struct Check {
    command: String,
    /// What its first run left behind.
    made: Paths,
}

/// Absolute paths; a directory stands for all in it.
#[derive(Debug, Default)]
pub(super) struct Paths(HashSet<PathBuf>);

impl Paths {
    pub fn add(&mut self, paths: &[PathBuf]) {
        self.0.extend(paths.iter().cloned());
    }

    pub fn covers(&self, path: &Path) -> bool {
        !self.0.is_empty() && path.ancestors().any(|above| self.0.contains(above))
    }
}

/// The files, links and directories of a tree, but for ignored ones, as they were at one moment.
pub struct Tree {
    top: PathBuf,
    paths: HashSet<PathBuf>,
}

impl Tree {
    pub fn of(top: &Path) -> Self {
        let paths = walk(top, Rules::GIT, None).flatten().map(|entry| entry.into_path());
        Self { top: top.to_path_buf(), paths: paths.collect() }
    }

    /// What is there now and was not then, a directory that is new as a whole; absolute.
    pub fn new_paths(&self) -> Vec<PathBuf> {
        let now = Self::of(&self.top);
        let outermost = |path: &PathBuf| !path.parent().is_some_and(|above| now.is_newer(self, above));
        now.paths.iter().filter(|path| now.is_newer(self, path) && outermost(path)).cloned().collect()
    }

    fn is_newer(&self, before: &Self, path: &Path) -> bool {
        self.paths.contains(path) && !before.paths.contains(path)
    }
}

impl Workspace {
    /// Says what the check is. `made`: what its first run left behind ([`Tree::new_paths`]).
    pub fn set_check(&mut self, command: &str, made: &[PathBuf]) {
        let mut paths = Paths::default();
        paths.add(made);
        self.check = Some(Check { command: command.trim().to_string(), made: paths });
    }

    /// Whether this is the check, word for word and in its place.
    pub fn is_check(&self, command: &str, directory: Option<&Path>) -> bool {
        self.check_and(command, directory) == Some("")
    }

    /// Whether a command runs the check and does nothing else but to read: `make test 2>&1 | tail -5`.
    pub(super) fn runs_check(&self, asked: &ShellCommand, place: &Place) -> bool {
        let rest = self.check_and(&asked.command, asked.directory.as_deref()).map(str::trim_start);
        rest.is_some_and(|rest| {
            let goes_on = rest.starts_with(['|', ';', '&']) || rest.starts_with("2>");
            let only_reads =
                || policy::judge(&format!("true {rest}"), place).verdict == CommandVerdict::ReadOnly;
            rest.is_empty() || goes_on && only_reads()
        })
    }

    /// What stands behind the check in a command that begins with it.
    fn check_and<'a>(&self, command: &'a str, directory: Option<&Path>) -> Option<&'a str> {
        let check = self.check.as_ref()?;
        let here = directory.is_none_or(|directory| self.root().join(directory) == self.root());
        command.trim().strip_prefix(&check.command).filter(|_| here)
    }

    /// Whether the first run of the check made the file at `path` (absolute, or from the root).
    pub(super) fn is_of_check(&self, path: &Path) -> bool {
        self.check.as_ref().is_some_and(|check| check.made.covers(&self.root().join(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_directory_that_was_there_is_not_new_even_where_it_was_empty() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for directory in ["empty", "data", "src"] {
            fs::create_dir(at(directory)).unwrap();
        }
        fs::write(at(".gitignore"), "*.log\nbuild/\n").unwrap();
        fs::write(at("data/a.log"), "").unwrap();
        let tree = Tree::of(root.path());
        fs::create_dir_all(at("made/deep/er")).unwrap();
        fs::create_dir(at("build")).unwrap();
        for file in ["empty/x", "data/out", "data/b.log", "made/deep/er/y", "src/z", "build/o"] {
            fs::write(at(file), "").unwrap();
        }
        let mut new = tree.new_paths();
        new.sort();
        assert_eq!(new, ["data/out", "empty/x", "made", "src/z"].map(at));
        let mut paths = Paths::default();
        assert!(!paths.covers(&at("made")));
        paths.add(&new);
        for (path, covered) in [("made", true), ("made/deep/new", true), ("empty/y", false), ("empty", false)]
        {
            assert_eq!(paths.covers(&at(path)), covered, "{path}");
        }
    }

    #[test]
    fn what_runs_the_check() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("docs")).unwrap();
        let mut workspace = Workspace::open(root.path(), &[]).unwrap();
        assert!(!workspace.is_check("make test", None));
        workspace.set_check("make test", &[]);
        let place = Place::in_workspace(workspace.root());
        for (command, directory, itself, runs) in [
            ("make test", None, true, true),
            (" make test\n", Some("."), true, true),
            ("make test", Some("docs"), false, false),
            ("make test 2>&1 | tail -20", None, false, true),
            ("make test; echo $?", None, false, true),
            ("make test && touch done", None, false, false),
            ("make test | tee log", None, false, false),
            ("make test install", None, false, false),
            ("make tests", None, false, false),
            ("make", None, false, false),
        ] {
            let directory = directory.map(PathBuf::from);
            assert_eq!(workspace.is_check(command, directory.as_deref()), itself, "{command}");
            let asked = ShellCommand { command: command.into(), directory, ..ShellCommand::default() };
            assert_eq!(workspace.runs_check(&asked, &place), runs, "{command}");
        }
    }
}
