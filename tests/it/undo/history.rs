//! Random histories of a repository: turns of edits and commands, then every turn taken back, the last one first, and
//! the tree compared byte for byte with what it was. Shared by the test and by `examples/undo.rs`.
//!
//! Covered is all but `.git`, `ignored/` and `*.log`: of those a turn that touched them must say so. Nothing random
//! leaves the repository: links lead inside or nowhere.

use qwright::workspace::shell::{Shell, ShellCommand, quote};
use qwright::workspace::{Mark, Workspace};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

/// What stands at a path: kind, mode and bytes.
type Tree = BTreeMap<PathBuf, (char, u32, Vec<u8>)>;

/// Entries of a tree from which on whole directories go.
const MOST: usize = 200;

pub type Failure = Box<dyn std::error::Error>;

/// What a history came to.
#[derive(Default)]
pub struct Tally {
    pub turns: usize,
    pub writes: usize,
    pub commands: usize,
    pub failed: usize,
    pub restored: usize,
    pub outside: usize,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} turns, {} writes, {} commands ({} failed), {} restored, {} lines outside undo",
            self.turns, self.writes, self.commands, self.failed, self.restored, self.outside
        )
    }
}

/// Where the random numbers come from (splitmix64): the same seed gives the same history.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn one<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

/// A turn: where it began, what the tree was then, and whether it touched what undo does not cover.
struct Turn {
    mark: Mark,
    tree: Tree,
    ignored: bool,
    git: bool,
}

struct History {
    root: PathBuf,
    workspace: Workspace,
    dice: Dice,
    tally: Tally,
    number: usize,
    /// A turn that was taken back had touched ignored files.
    seen_ignored: bool,
}

/// `steps` edits and commands from `seed`, all of them taken back. `covers`: whether checkpoints are kept.
pub fn run(shell: &Shell, steps: usize, seed: u64, covers: bool) -> Result<Tally, Failure> {
    let place = tempfile::tempdir()?;
    let (root, state) = (place.path().join("project"), place.path().join("state"));
    let ran = place.path().join("a filter ran");
    fs::create_dir_all(&root)?;
    begin(&root, &ran)?;
    let workspace = Workspace::open(&root, &[])?;
    if covers {
        workspace.keep_checkpoints(&state.join("checkpoints"), Some(&state));
    }
    let mut history = History {
        root,
        workspace,
        dice: Dice(seed),
        tally: Tally::default(),
        number: 0,
        seen_ignored: false,
    };
    let mut turns: Vec<Turn> = Vec::new();
    let mut left = steps;
    while left > 0 {
        let (mark, tree) = (history.workspace.mark(), history.tree()?);
        let (mut ignored, mut git) = (false, false);
        for _ in 0..(1 + history.dice.below(4)).min(left) {
            let touched = history.step(shell)?;
            ignored |= touched == Touched::Ignored;
            git |= touched == Touched::Git;
            left -= 1;
        }
        turns.push(Turn { mark, tree, ignored, git });
    }
    history.tally.turns = turns.len();
    for (number, turn) in turns.iter().enumerate().rev() {
        history.take_back(number, turn).map_err(|error| format!("seed {seed}: {error}"))?;
    }
    if ran.exists() {
        return Err(format!("seed {seed}: a filter of the repository ran").into());
    }
    Ok(history.tally)
}

/// A repository with a commit, ignored files, and a filter that nobody is to run.
fn begin(root: &Path, ran: &Path) -> Result<(), Failure> {
    for (path, bytes) in [
        (".gitignore", &b"ignored/\n*.log\n"[..]),
        ("a.txt", b"one\ntwo\n"),
        ("crlf.txt", b"\xef\xbb\xbfone\r\ntwo\r\n"),
        ("no end", b"x\ny"),
        ("latin.txt", b"caf\xe9\n"),
        ("binary", b"\0\x01\x02\xff"),
        ("empty", b""),
        ("d/x.txt", b"in d\n"),
        ("d/deep er/\u{fc}.txt", b"deep\n"),
        ("run.sh", b"#!/bin/sh\necho run\n"),
        ("ignored/i", b"ignored\n"),
        ("a.log", b"log\n"),
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        fs::write(path, bytes)?;
    }
    fs::create_dir_all(root.join("void/inner"))?;
    let git = |arguments: &[&str]| -> Result<(), Failure> {
        let mut command = Command::new("git");
        command
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
            .args(arguments)
            .current_dir(root);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        let output = command.output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
        }
    };
    git(&["init", "-q"])?;
    git(&["add", "-A"])?;
    git(&["commit", "-qm", "first"])?;
    let touch = format!("touch {}; cat", quote(&ran.to_string_lossy()));
    for key in ["filter.evil.clean", "filter.evil.smudge", "filter.evil.process"] {
        git(&["config", key, &touch])?;
    }
    git(&["config", "core.autocrlf", "true"])?;
    fs::write(root.join(".gitattributes"), "* filter=evil text eol=crlf ident\n")?;
    Ok(())
}

/// What a step touched besides what is covered.
#[derive(PartialEq)]
enum Touched {
    Covered,
    Ignored,
    Git,
}

impl History {
    /// Everything but `.git`.
    fn tree(&self) -> Result<Tree, Failure> {
        let mut tree = Tree::new();
        let mut waiting = vec![PathBuf::new()];
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(self.root.join(&directory))? {
                let path = directory.join(entry?.file_name());
                if path == Path::new(".git") {
                    continue;
                }
                let full = self.root.join(&path);
                let of = full.symlink_metadata()?;
                let mode = of.mode() & 0o7777;
                let node = if of.is_dir() {
                    waiting.push(path.clone());
                    ('d', mode, Vec::new())
                } else if of.is_symlink() {
                    ('l', 0, fs::read_link(&full)?.into_os_string().into_encoded_bytes())
                } else {
                    ('f', mode, fs::read(&full)?)
                };
                tree.insert(path, node);
            }
        }
        Ok(tree)
    }

    fn covered(tree: &Tree) -> Tree {
        let is_covered = |path: &Path| {
            !path.starts_with("ignored") && path.extension().is_none_or(|extension| extension != "log")
        };
        tree.iter().filter(|(path, _)| is_covered(path)).map(|(a, b)| (a.clone(), b.clone())).collect()
    }

    fn take_back(&mut self, number: usize, turn: &Turn) -> Result<(), Failure> {
        let report = self.workspace.undo_since(turn.mark)?;
        self.tally.restored += report.restored.len();
        self.tally.outside += report.outside.len();
        let (now, then) = (Self::covered(&self.tree()?), Self::covered(&turn.tree));
        let mut wrong: Vec<String> = Vec::new();
        for path in now.keys().chain(then.keys()) {
            if now.get(path) != then.get(path) {
                wrong.push(format!("{}: {:?}, not {:?}", path.display(), now.get(path), then.get(path)));
            }
        }
        if !wrong.is_empty() || !report.kept.is_empty() {
            return Err(format!("turn {number}: {report:?}\n{}", wrong.join("\n")).into());
        }
        // What a later turn wrote over or removed again was named with that one.
        let ignored = turn.ignored && !self.seen_ignored;
        self.seen_ignored |= turn.ignored;
        for (touched, name) in [(ignored, "ignored files"), (turn.git, "git's own files")] {
            if touched && !report.outside.iter().any(|line| line.starts_with(name)) {
                return Err(format!("turn {number}: {name} are not named: {:?}", report.outside).into());
            }
        }
        Ok(())
    }

    /// One edit or command.
    fn step(&mut self, shell: &Shell) -> Result<Touched, Failure> {
        self.number += 1;
        let number = self.number;
        if self.dice.below(4) == 0 {
            self.write()?;
            return Ok(Touched::Covered);
        }
        if self.tree()?.len() > MOST {
            let a = self.some_path();
            let top = a.trim_start_matches("./").split('/').next().unwrap_or_default();
            self.command(shell, &format!("rm -rf ./{}", quote(top)))?;
            return Ok(Touched::Covered);
        }
        let (a, b) = (self.some_path(), self.some_path());
        let (qa, qb) = (quote(&a), quote(&b));
        let above =
            |path: &str| quote(&path.rsplit_once('/').map_or(".".into(), |(above, _)| above.to_string()));
        let text =
            self.dice.one(&["new\\n", "a\\r\\nb\\r\\n", "\\357\\273\\277bom\\n", "\\000\\001", "", "no end"]);
        let mut touched = Touched::Covered;
        let command = match self.dice.below(19) {
            0 | 1 => format!("mkdir -p {}; printf '{number} {text}' > {qa}", above(&a)),
            2 => format!("printf '{number}\\n' >> {qa}"),
            3 | 4 => {
                let of_file = self.dice.one(&["644", "755", "600", "700", "640", "444"]);
                let of_directory = self.dice.one(&["755", "700", "750", "2755"]);
                format!("if [ -d {qa} ]; then chmod {of_directory} {qa}; else chmod {of_file} {qa}; fi")
            }
            5 => {
                let target = self.dice.one(&["a.txt", "d", "e.rs", "/nonexistent-for-links/x", "no where"]);
                format!("ln -s {} {qa}", quote(target))
            }
            6 => format!("mkdir -p {qa}/{}", quote(self.dice.one(&["e", "f g", "h/i"]))),
            7 => format!("rmdir {qa}"),
            8 | 9 => format!("mkdir -p {}; mv {qa} {qb}", above(&b)),
            10 => format!("rm -rf {qa}"),
            11 => format!("rm -rf {qa}; mkdir -p {qa}; printf '{number}' > {qa}/inner"),
            12 => format!("rm -rf {qa}; mkdir -p {}; printf '{number}' > {qa}", above(&a)),
            13 => format!("rm -rf {qa}; ln -s d {qa}"),
            14 => format!("cp -pR {qa} {qb}"),
            // As many bytes and the old times: only the time of the change of status tells.
            15 => format!(
                "touch -r {qa} ignored-times.log && n=$(wc -c < {qa}) && head -c \"$n\" /dev/zero > {qa} && \
                 touch -r ignored-times.log {qa}; rm -f ignored-times.log"
            ),
            16 => {
                touched = Touched::Ignored;
                self.dice
                    .one(&[
                        "mkdir -p ignored/sub; date > ignored/sub/new",
                        "date > a.log",
                        "rm -rf ignored; mkdir ignored; date > ignored/new",
                        "date > ignored/new; date > b.log",
                    ])
                    .replace("date", &format!("echo {number}"))
            }
            17 => {
                touched = Touched::Git;
                format!("git tag t{number}")
            }
            _ => format!("mkdir -p {}; mv {qa} {qb}; printf '{number}' > {qa}; chmod 755 {qa}", above(&b)),
        };
        self.command(shell, &command)?;
        Ok(touched)
    }

    fn command(&mut self, shell: &Shell, command: &str) -> Result<(), Failure> {
        self.tally.commands += 1;
        let asked = ShellCommand { command: command.into(), ..ShellCommand::default() };
        let outcome = self.workspace.run_command(shell, &asked, &AtomicBool::new(false), &mut |_| {})?;
        self.tally.failed += usize::from(outcome.exit != Some(0));
        Ok(())
    }

    /// A whole file, or its first line, by a tool; what tools refuse (a link that leads out, a read-only file, a
    /// directory in the way) changes nothing.
    fn write(&mut self) -> Result<(), Failure> {
        let path = self.some_path();
        let text = format!("tool {}\n{}", self.number, self.dice.one(&["", "more\r\n", "end"]));
        let _ = self.workspace.read(&path);
        if self.workspace.write(&path, &text).is_ok() {
            self.tally.writes += 1;
        }
        Ok(())
    }

    /// A path that is there, or one that might be.
    fn some_path(&mut self) -> String {
        let there: Vec<String> = self
            .tree()
            .map(|tree| Self::covered(&tree))
            .unwrap_or_default()
            .into_keys()
            .filter_map(|path| path.into_os_string().into_string().ok())
            .filter(|path| !path.starts_with(".gitignore"))
            .collect();
        if !there.is_empty() && self.dice.below(3) > 0 {
            return format!("./{}", there[self.dice.below(there.len())]);
        }
        let names = ["a.txt", "b c", "\u{fc}", "d", "e.rs", "-dash", "na\u{ef}ve \u{540d}", "quo'te"];
        let depth = 1 + self.dice.below(3);
        let path = (0..depth).map(|_| self.dice.one(&names)).collect::<Vec<_>>().join("/");
        format!("./{path}")
    }
}
