//! `--until CMD`: whether there is anything to do, and which files belong to the check and stay as they are.

use super::exec::{ExecArgs, Prepared};
use super::{Failure, exit};
use crate::agent::protocol::{Attachment, CheckEnd, Ending, TurnOutcome};
use crate::agent::{run_check, until_again};
use crate::headless::{ExecResult, Until, UntilReport};
use crate::workspace::shell::policy::words;
use crate::workspace::shell::portable;
use crate::workspace::{Tree, Workspace};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Rounds unless `--max-rounds` says otherwise. Each is a whole turn of up to `--max-turns` model calls: whoever has
/// not made it in ten is going in circles.
const MAX_ROUNDS: usize = 10;

/// Programs, and the files in which they look up what a target does: `make test` means what the Makefile says. Files that
/// name dependencies above all (Cargo.toml, pom.xml, build.gradle) are not among them: the work may be in there.
const RUNNERS: &[(&[&str], &[&str])] = &[
    (&["make", "gmake"], &["GNUmakefile", "makefile", "Makefile"]),
    (&["just"], &["justfile", "Justfile", ".justfile"]),
    (&["npm", "pnpm", "yarn", "bun"], &["package.json"]),
    (&["tox"], &["tox.ini"]),
    (&["nox"], &["noxfile.py"]),
    (&["task"], &["Taskfile.yml", "Taskfile.yaml"]),
    (&["rake"], &["Rakefile"]),
];

/// What the command says before anything was done.
pub enum First {
    Passes(Box<ExecResult>),
    Fails { until: Until, attachment: Attachment },
}

/// Runs the command once, before a model is loaded. With it comes what it left behind in the tree at `top`, which the
/// workspace lies in.
pub fn first(
    args: &ExecArgs,
    prepared: &Prepared,
    workspace: &Workspace,
    top: &Path,
    cancel: &AtomicBool,
) -> Result<(First, Vec<PathBuf>), Failure> {
    let (command, shell) = (args.until.as_deref().unwrap_or_default(), &prepared.shell);
    if command.trim().is_empty() {
        return Err(Failure::new(exit::USAGE, "the command of --until is empty")
            .hint("name what has to pass: --until 'make test'"));
    }
    let protected = if args.until_may_edit { Vec::new() } else { files_in(command, workspace) };
    // Not even the first run may leave these changed.
    let (kept, tree) = (workspace.keep(&protected), Tree::of(top));
    let (end, output) = run_check(workspace, shell, command, prepared.time_left(), cancel, &mut |_| {});
    workspace.put_back(&kept);
    let made = tree.new_paths();
    let first = match end {
        CheckEnd::Passed => {
            let mut outcome = TurnOutcome::ended(Ending::Done);
            outcome.answer = format!("`{command}` passes already, so nothing was done.");
            let until = UntilReport { command: command.into(), passed: true, rounds: 0, protected };
            let result = ExecResult::new(shell.tier().to_string());
            let result = ExecResult { outcome: Some(outcome), until: Some(until), ..result };
            First::Passes(Box::new(result))
        }
        CheckEnd::Failed | CheckEnd::OutOfTime => {
            let until = Until {
                command: command.into(),
                again: until_again(command),
                max_rounds: args.max_rounds.unwrap_or(MAX_ROUNDS).max(1),
                protected,
            };
            // It may go to attempts that work elsewhere.
            let output = portable(&output, workspace.root());
            let attachment = Attachment::FailedCheck { command: command.into(), output };
            First::Fails { until, attachment }
        }
        CheckEnd::Interrupted => return Err(Failure::new(exit::INTERRUPTED, "interrupted")),
        CheckEnd::NotRun { message, hint } => {
            return Err(Failure::new(exit::TASK_FAILED, message).hint(hint));
        }
    };
    Ok((first, made))
}

/// The files of the workspace that the words of a command name: as paths (`sh ./check.sh`), in options
/// (`--config=test.ini`), as tests of a file (`test_a.py::test_one`), as modules (`tests.test_a.Case`), by a program that
/// reads them (`make test`), and beneath a directory that the command names as well (`cd sub && ./check.sh`).
fn files_in(command: &str, workspace: &Workspace) -> Vec<String> {
    let words = words(command);
    let is_file = |path: &str| workspace.root().join(path).is_file() && !path.is_empty();
    let directories = words.iter().filter(|word| workspace.root().join(word.as_str()).is_dir());
    let bases: Vec<String> = std::iter::once(String::new())
        .chain(directories.map(|word| format!("{}/", word.trim_end_matches('/'))))
        .collect();
    let mut found: Vec<String> = Vec::new();
    for word in &words {
        for name in names(word) {
            let paths = bases.iter().map(|base| format!("{base}{name}"));
            for path in paths.filter(|path| is_file(path)) {
                let inside = !workspace.keep(std::slice::from_ref(&path)).is_empty();
                if inside && !found.contains(&path) {
                    found.push(path);
                }
            }
        }
    }
    found
}

/// What a word may call a file.
fn names(word: &str) -> Vec<String> {
    let value = word.split_once('=').map(|(_, value)| value);
    let program = word.rsplit('/').next().unwrap_or(word);
    let read = RUNNERS.iter().filter(|(programs, _)| programs.contains(&program));
    let mut names: Vec<String> =
        read.flat_map(|(_, files)| files.iter()).map(|file| file.to_string()).collect();
    for word in std::iter::once(word).chain(value) {
        names.push(word.to_string());
        names.extend(word.split_once("::").map(|(file, _)| file.to_string()));
        if word.contains('.') && !word.contains('/') {
            let parts: Vec<&str> = word.split('.').collect();
            names.extend((1..=parts.len()).rev().map(|count| format!("{}.py", parts[..count].join("/"))));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_that_a_command_names() {
        let root = tempfile::tempdir().unwrap();
        for name in [
            "check.sh",
            "sub/check.sh",
            "sub/a b.txt",
            "sub/package.json",
            "tests/test_a.py",
            "test.ini",
            "main.py",
            "Makefile",
            "Cargo.toml",
        ] {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let workspace = Workspace::open(root.path(), &[]).unwrap();
        for (command, expected) in [
            ("/usr/bin/make -k test", vec!["Makefile"]),
            ("env CI=1 make && cd sub && npm test", vec!["Makefile", "sub/package.json"]),
            ("npm test; just test; cargo test", vec![]),
            ("sh ./check.sh", vec!["./check.sh"]),
            ("cd sub && sh check.sh;ls", vec!["check.sh", "sub/check.sh"]),
            ("cat 'sub/a b.txt'>out", vec!["sub/a b.txt"]),
            ("pytest --config=test.ini tests/test_a.py::test_one", vec!["test.ini", "tests/test_a.py"]),
            ("python3 -m unittest tests.test_a.Case.test_one", vec!["tests/test_a.py"]),
            ("pytest tests /etc/passwd ../x", vec![]),
        ] {
            assert_eq!(files_in(command, &workspace), expected, "{command}");
        }
    }
}
