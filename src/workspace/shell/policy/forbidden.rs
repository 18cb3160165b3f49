//! What is refused in every mode, wherever in the line it hides: behind wrappers (`env`, `timeout`, `xargs`), in
//! `sh -c`, in substitutions, quoting and here-documents. Finding it is an extra; the sandbox is what holds.

use super::commands::{Words, sure_words};
use super::line::{Command, Line, RedirectKind, Word, parse_at};
use super::{Place, paths};
use std::cell::RefCell;

/// Lines inside lines that are still looked into.
const MAX_DEPTH: usize = 16;

const SHELLS: &[&str] =
    &["sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "fish", "csh", "tcsh", "rbash", "yash", "pwsh"];
const INTERPRETERS: &[&str] =
    &["python", "python2", "python3", "perl", "ruby", "node", "deno", "bun", "php", "lua", "osascript"];
const NETWORK: &[&str] = &[
    "curl", "wget", "fetch", "aria2c", "nc", "ncat", "netcat", "http", "https", "lynx", "ftp", "tftp",
    "socat",
];
const PRIVILEGE: &[&str] = &[
    "sudo",
    "su",
    "doas",
    "pkexec",
    "sudoedit",
    "visudo",
    "runuser",
    "run0",
    "gosu",
    "su-exec",
    "setcap",
    "nsenter",
    "chroot",
    "capsh",
    "machinectl",
    "newgrp",
    "sg",
    "kexec",
    "insmod",
    "modprobe",
    "rmmod",
];
const DISKS: &[&str] = &[
    "mkswap",
    "swapon",
    "swapoff",
    "fdisk",
    "sfdisk",
    "cfdisk",
    "gdisk",
    "sgdisk",
    "parted",
    "wipefs",
    "blkdiscard",
    "mount",
    "umount",
    "losetup",
    "cryptsetup",
    "hdparm",
    "badblocks",
    "debugfs",
    "tune2fs",
    "resize2fs",
    "pvremove",
    "vgremove",
    "lvremove",
    "diskutil",
    "zpool",
    "format.com",
];
const STOP: &[&str] = &["shutdown", "reboot", "halt", "poweroff", "telinit"];
const BY_NAME: &[&str] = &["pkill", "killall", "killall5", "skill", "slay", "taskkill"];

/// A command that runs another.
struct Wrapper {
    name: &'static str,
    /// Letters and long names of options that take a value.
    valued: &'static str,
    long: &'static [&'static str],
    /// Operands before the command.
    operands: usize,
}

const fn wrapper(
    name: &'static str,
    valued: &'static str,
    long: &'static [&'static str],
    operands: usize,
) -> Wrapper {
    Wrapper { name, valued, long, operands }
}

#[rustfmt::skip]
const WRAPPERS: &[Wrapper] = &[
    wrapper("env", "uCSa", &["argv0", "chdir", "split-string", "unset"], 0),
    wrapper("timeout", "ks", &["kill-after", "signal"], 1),
    wrapper("nice", "n", &["adjustment"], 0),
    wrapper("nohup", "", &[], 0),
    wrapper("setsid", "", &[], 0),
    wrapper("stdbuf", "ioe", &["error", "input", "output"], 0),
    wrapper("ionice", "cnpPu", &["class", "classdata", "pgid", "pid", "uid"], 0),
    wrapper("time", "fo", &["format", "output"], 0),
    wrapper("command", "", &[], 0),
    wrapper("builtin", "", &[], 0),
    wrapper("exec", "a", &[], 0),
    wrapper(
        "xargs", "ILnPsdaE",
        &["arg-file", "delimiter", "max-args", "max-chars", "max-procs", "process-slot-var"], 0,
    ),
    wrapper("busybox", "", &[], 0),
    wrapper("toybox", "", &[], 0),
    wrapper("chrt", "TPD", &["sched-deadline", "sched-period", "sched-runtime"], 1),
    wrapper("taskset", "", &[], 1),
    wrapper("flock", "wE", &["conflict-exit-code", "timeout", "wait"], 1),
    wrapper("strace", "oepsuEaSPbOX", &["attach", "env", "output", "string-limit", "trace", "user"], 0),
    wrapper("ltrace", "oepsuEaSn", &["output"], 0),
    wrapper("unshare", "RwSG", &["root", "setgid", "setuid", "wd"], 0),
    wrapper("prlimit", "", &["pid"], 0),
    wrapper(
        "systemd-run", "pEuH",
        &["description", "gid", "host", "machine", "nice", "property", "setenv", "slice", "uid", "unit"], 0,
    ),
    wrapper("caffeinate", "tw", &[], 0),
    wrapper("parallel", "jaSN", &["arg-file", "delay", "jobs", "max-args", "sshlogin", "timeout"], 0),
    wrapper("unbuffer", "", &[], 0),
    wrapper("catchsegv", "", &[], 0),
    wrapper("setarch", "", &[], 1),
    wrapper("linux32", "", &[], 0),
    wrapper("linux64", "", &[], 0),
    wrapper("proot", "rbwq", &["bind", "cwd", "qemu", "rootfs"], 0),
    wrapper("fakeroot", "", &[], 0),
    wrapper("entr", "", &[], 0),
    wrapper("hyperfine", "wmrN", &[], 0),
    wrapper("script", "", &[], 0),
    wrapper("watch", "n", &["interval"], 0),
    wrapper("doit", "", &[], 0),
    wrapper("then", "", &[], 0),
    wrapper("do", "", &[], 0),
];

/// Why the line is refused, if it is. `text` is what `line` was parsed from.
pub fn find(text: &str, line: &Line, place: &Place) -> Option<String> {
    if is_fork_bomb(text) {
        return Some("it starts copies of itself without end".into());
    }
    Finder { place, seen: None, here: RefCell::default() }.line(line, 0)
}

/// The commands that a line runs, as far as the search for what is forbidden meets them.
#[derive(Debug, Default)]
pub struct Met {
    pub commands: Vec<Words>,
    /// What a wrapper may run, where its options are read otherwise than it reads them.
    pub perhaps: Vec<Words>,
    /// There may be others.
    pub unsure: bool,
}

/// `text` is what `line` was parsed from.
pub fn meet(text: &str, line: &Line, place: &Place) -> Met {
    let finder = Finder { place, seen: Some(RefCell::default()), here: RefCell::default() };
    // What is forbidden ends the search.
    let ended = is_fork_bomb(text) || finder.line(line, 0).is_some();
    let mut met = finder.seen.map(RefCell::into_inner).unwrap_or_default();
    met.unsure |= ended || line.doubt.is_some();
    met
}

/// Whether a command runs another one that it is given: its own name says little.
pub fn is_wrapper(name: &str) -> bool {
    const OTHERS: &[&str] = &["eval", "source", ".", "trap", "alias", "find", "fd", "fdfind", "ssh"];
    let name = base_name(name);
    WRAPPERS.iter().any(|known| known.name == name) || OTHERS.contains(&name.as_str())
}

/// Whether a command runs programs that it is given as text or file.
pub fn runs_programs(name: &str) -> bool {
    let name = base_name(name);
    SHELLS.contains(&name.as_str()) || is_interpreter(&name)
}

struct Finder<'a> {
    place: &'a Place,
    seen: Option<RefCell<Met>>,
    /// Where `cd` led; empty: where the line begins.
    here: RefCell<Word>,
}

/// Words after a wrapper that may begin its command.
const MOST_PERHAPS: usize = 32;

pub fn base_name(text: &str) -> String {
    let name = text.rsplit('/').next().unwrap_or(text).to_lowercase();
    name.strip_suffix(".exe").map(str::to_string).unwrap_or(name)
}

fn name_of(words: &[Word]) -> String {
    words.first().map(|word| base_name(&word.text)).unwrap_or_default()
}

/// `python3.12` is python3.
fn is_interpreter(name: &str) -> bool {
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    INTERPRETERS.iter().any(|known| known.trim_end_matches(|c: char| c.is_ascii_digit()) == name)
}

fn options(words: &[Word]) -> impl Iterator<Item = &str> {
    words.iter().skip(1).map(|word| word.text.as_str()).filter(|text| text.starts_with('-') && text.len() > 1)
}

/// A short letter in a cluster, or a long name (also abbreviated).
fn has_option(words: &[Word], letters: &str, long: &str) -> bool {
    options(words).any(|option| match option.strip_prefix("--") {
        Some(name) => {
            !name.is_empty() && long.starts_with(name.split('=').next().unwrap_or(name)) && !long.is_empty()
        }
        None => option[1..].chars().any(|c| letters.contains(c)),
    })
}

impl Finder<'_> {
    fn meet(&self, met: impl FnOnce(&mut Met)) {
        if let Some(seen) = &self.seen {
            met(&mut seen.borrow_mut());
        }
    }

    fn text(&self, text: &str, depth: usize) -> Option<String> {
        if depth >= MAX_DEPTH {
            self.meet(|met| met.unsure = true);
            return None;
        }
        let line = parse_at(text, depth);
        self.meet(|met| met.unsure |= line.doubt.is_some());
        find_bomb(text).or_else(|| self.line(&line, depth))
    }

    fn line(&self, line: &Line, depth: usize) -> Option<String> {
        self.list(&line.pipelines, depth)
    }

    fn list(&self, pipelines: &[Vec<Command>], depth: usize) -> Option<String> {
        let start = self.here.borrow().clone();
        let found = pipelines.iter().find_map(|pipeline| self.pipeline(pipeline, depth));
        self.here.replace(start);
        found
    }

    fn pipeline(&self, pipeline: &[Command], depth: usize) -> Option<String> {
        for (index, command) in pipeline.iter().enumerate() {
            if let Some(reason) = self.command(command, depth) {
                return Some(reason);
            }
            let held = command.with_group();
            let reads_program = held.iter().any(|held| reads_program_from_stdin(&held.words));
            let before = &pipeline[..index];
            if reads_program && runs_any(before.iter(), NETWORK) {
                return Some("it pipes from the network into a program that runs it".into());
            }
            if runs_any([command], SHELLS) {
                // `echo 'sudo x' | sh`
                let earlier = before.last().filter(|_| reads_program).map(Command::with_group);
                for earlier in earlier.unwrap_or_default() {
                    if !["echo", "printf"].contains(&name_of(&earlier.words).as_str()) {
                        continue;
                    }
                    let said: Vec<&str> =
                        earlier.words.iter().skip(1).map(|word| word.text.as_str()).collect();
                    if let Some(reason) = self.text(&said.join(" "), depth + 1) {
                        return Some(reason);
                    }
                }
                let sends = |later: &Command| {
                    ["nc", "ncat", "netcat", "socat", "telnet", "openssl"]
                        .contains(&name_of(&later.words).as_str())
                };
                if pipeline[index + 1..].iter().flat_map(Command::with_group).any(sends) {
                    return Some("it connects a shell to the network".into());
                }
            }
        }
        None
    }

    fn command(&self, command: &Command, depth: usize) -> Option<String> {
        if let Some(reason) = self.list(&command.group, depth) {
            return Some(reason);
        }
        for redirect in &command.redirects {
            if redirect.kind == RedirectKind::Write && is_device(&redirect.target.text) {
                return Some(format!("it writes to the device {}", redirect.target.text));
            }
            if let Some(reason) = self.word(&redirect.target, depth) {
                return Some(reason);
            }
            let runs_body = runs_any([command], SHELLS);
            let body = match redirect.kind {
                RedirectKind::HereString => Some(redirect.target.text.as_str()),
                _ => redirect.body.get().map(String::as_str),
            };
            if let Some(reason) = body.filter(|_| runs_body).and_then(|body| self.text(body, depth + 1)) {
                return Some(reason);
            }
        }
        for assignment in &command.assignments {
            if let Some(reason) = self.nested(assignment, depth) {
                return Some(reason);
            }
        }
        self.words(&command.words, depth)
    }

    fn nested(&self, word: &Word, depth: usize) -> Option<String> {
        if depth >= MAX_DEPTH {
            self.meet(|met| met.unsure |= !word.nested.is_empty());
            return None;
        }
        word.nested.iter().find_map(|line| self.line(line, depth + 1))
    }

    fn word(&self, word: &Word, depth: usize) -> Option<String> {
        if let Some(reason) = self.nested(word, depth) {
            return Some(reason);
        }
        let text = &word.text;
        if text.contains("/dev/tcp/") || text.contains("/dev/udp/") {
            return Some("it opens a network connection by a file name".into());
        }
        let option_value = text.split_once('=').map(|(_, value)| value).or_else(|| text.strip_prefix('@'));
        let secret = |text: &str, home: bool| {
            paths::is_secret(&Word { text: text.into(), home, ..Word::default() }, self.place)
        };
        if secret(text, word.home) || option_value.is_some_and(|value| secret(value, true)) {
            return Some(format!("`{text}` holds keys or passwords"));
        }
        None
    }

    /// One command with its arguments, and the commands that it runs.
    fn words(&self, words: &[Word], depth: usize) -> Option<String> {
        if let Some(reason) = words.iter().find_map(|word| self.word(word, depth)) {
            return Some(reason);
        }
        self.run(words, depth)
    }

    fn run(&self, words: &[Word], depth: usize) -> Option<String> {
        let name = name_of(words);
        if depth >= MAX_DEPTH || name.is_empty() {
            self.meet(|met| met.unsure |= !words.is_empty());
            return None;
        }
        self.meet(|met| met.commands.push(sure_words(words)));
        let found = self.by_name(&name, words).or_else(|| self.inner(&name, words, depth));
        if ["cd", "chdir", "pushd"].contains(&name.as_str()) {
            self.go(words);
        }
        found
    }

    /// Follows a `cd`; back (`cd -`) is not known.
    fn go(&self, words: &[Word]) {
        let home = Word { text: "~".into(), home: true, ..Word::default() };
        if words.iter().any(|word| word.text == "-") {
            return;
        }
        let target = words.iter().skip(1).find(|word| !word.text.starts_with('-')).unwrap_or(&home);
        let led = paths::beneath(&self.here.borrow(), target);
        self.here.replace(led);
    }

    fn is_vital(&self, word: &Word) -> bool {
        paths::is_vital(word, self.place)
            || paths::is_vital(&paths::beneath(&self.here.borrow(), word), self.place)
    }

    fn by_name(&self, name: &str, words: &[Word]) -> Option<String> {
        let said = |text: &str| Some(format!("`{name}` {text}"));
        if PRIVILEGE.contains(&name) {
            return said("gives other privileges");
        }
        if DISKS.contains(&name) || name.starts_with("mkfs") || name.starts_with("newfs") {
            return said("changes disks or mounts");
        }
        if STOP.contains(&name) {
            return said("stops the machine");
        }
        if BY_NAME.contains(&name) {
            return said("kills processes by name");
        }
        let operands = || words.iter().skip(1).filter(|word| !word.text.starts_with('-') || word.text == "-");
        let recursive = || has_option(words, "rR", "recursive");
        let vital = || operands().find(|word| self.is_vital(word)).map(|word| word.text.clone());
        match name {
            "rm" | "chmod" | "chown" | "chgrp" | "shred" | "srm" => {
                let all = name == "shred" || recursive();
                if options(words).any(|option| option == "--no-preserve-root") {
                    return said("without its guard for the root directory");
                }
                if all && let Some(text) = vital() {
                    return Some(format!("`{name}` of all that is in {text}"));
                }
                if name == "shred" && operands().any(|word| is_device(&word.text)) {
                    return said("overwrites a device");
                }
                if name == "chmod" && operands().next().is_some_and(|word| sets_id(&word.text)) {
                    return said("makes a program run as its owner");
                }
                None
            }
            "mv" => vital()
                .filter(|_| {
                    // The last word is where it goes; moving *into* a directory of the system is for the sandbox.
                    let last = operands().next_back().map(|word| word.text.clone());
                    operands().any(|word| self.is_vital(word) && Some(&word.text) != last.as_ref())
                        || operands().count() < 2
                        || has_option(words, "t", "target-directory")
                })
                .map(|text| format!("`mv` of {text}")),
            "dd" => words
                .iter()
                .filter_map(|word| word.text.strip_prefix("of="))
                .find(|target| is_device(target))
                .map(|target| format!("it writes to the device {target}")),
            "cp" | "tee" | "install" | "ln" | "cat"
                if operands().any(|word| name != "cat" && is_device(&word.text)) =>
            {
                let last = operands().next_back().is_some_and(|word| is_device(&word.text));
                (last || name == "tee").then(|| "it writes to a device".to_string())
            }
            "kill" => {
                let of_names = |word: &Word| {
                    substituted(word)
                        .any(|command| ["pgrep", "pidof", "ps"].contains(&name_of(&command.words).as_str()))
                };
                // A first one is the signal, where another word follows.
                let mut everyone = words.iter().enumerate().skip(1).filter(|(_, word)| word.text == "-1");
                if everyone.any(|(at, _)| at > 1 || words.len() == 2) {
                    return said("of every process");
                }
                words.iter().any(of_names).then(|| "it kills processes by name".to_string())
            }
            "fuser" if has_option(words, "k", "kill") => said("kills processes by name"),
            "init" if operands().any(|word| ["0", "6"].contains(&word.text.as_str())) => {
                said("stops the machine")
            }
            "systemctl" | "loginctl" => {
                const VERBS: &[&str] = &[
                    "reboot",
                    "poweroff",
                    "halt",
                    "kexec",
                    "suspend",
                    "hibernate",
                    "rescue",
                    "emergency",
                    "soft-reboot",
                ];
                operands()
                    .any(|word| VERBS.contains(&word.text.as_str()))
                    .then(|| "it stops the machine".to_string())
            }
            "nc" | "ncat" | "netcat"
                if has_option(words, "ec", "exec") || has_option(words, "", "sh-exec") =>
            {
                Some("it connects a shell to the network".into())
            }
            "socat"
                if operands().any(|word| {
                    let text = word.text.to_lowercase();
                    text.starts_with("exec:") || text.starts_with("system:")
                }) =>
            {
                Some("it connects a shell to the network".into())
            }
            _ if is_interpreter(name) => {
                let code =
                    words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ").to_lowercase();
                let connects = code.contains("socket") && code.contains("connect")
                    || code.contains("fsockopen")
                    || code.contains("tcpsocket");
                let starts =
                    ["subprocess", "pty", "dup2", "exec", "/bin/sh", "/bin/bash", "spawn", "child_process"];
                if connects && starts.iter().any(|word| code.contains(word)) {
                    return Some("it connects a shell to the network".into());
                }
                (code.replace(' ', "").contains("forkwhilefork"))
                    .then(|| "it starts copies of itself without end".into())
            }
            "find" => self.find(words),
            _ => None,
        }
    }

    fn find(&self, words: &[Word]) -> Option<String> {
        let start = words.iter().skip(1).take_while(|word| {
            !word.text.starts_with('-') || ["-H", "-L", "-P"].contains(&word.text.as_str())
        });
        let vital = start.into_iter().any(|word| self.is_vital(word));
        let deletes = words.iter().any(|word| word.text == "-delete");
        let runs = words.iter().zip(words.iter().skip(1)).any(|(option, program)| {
            ["-exec", "-execdir", "-ok", "-okdir"].contains(&option.text.as_str())
                && ["rm", "chmod", "chown", "shred", "mv", "unlink"]
                    .contains(&base_name(&program.text).as_str())
        });
        (vital && (deletes || runs))
            .then(|| "it removes or changes all that is in a directory of the system".into())
    }

    /// The commands that this one runs.
    fn inner(&self, name: &str, words: &[Word], depth: usize) -> Option<String> {
        let joined =
            |words: &[Word]| words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
        if SHELLS.contains(&name) {
            if words.iter().skip(1).any(from_network) {
                return Some("it runs what comes from the network".into());
            }
            let at = words.iter().position(|word| {
                let letters = word.text.strip_prefix(['-', '+']).filter(|letters| !letters.starts_with('-'));
                letters.is_some_and(|letters| letters.contains('c'))
            })?;
            return words[at + 1..].iter().take(4).find_map(|word| self.text(&word.text, depth + 1));
        }
        match name {
            "eval" | "source" | "." if words.iter().any(from_network) => {
                Some("it runs what comes from the network".into())
            }
            _ if is_interpreter(name) && words.iter().any(from_network) => {
                Some("it runs what comes from the network".into())
            }
            "eval" => self.text(&joined(&words[1..]), depth + 1),
            "trap" => words.get(1).and_then(|word| self.text(&word.text, depth + 1)),
            "alias" => words[1..]
                .iter()
                .filter_map(|word| word.text.split_once('='))
                .find_map(|(_, text)| self.text(text, depth + 1)),
            "watch" | "entr" | "hyperfine" | "parallel" | "script" => {
                let whole = self.text(&joined(&words[1..]), depth + 1);
                whole
                    .or_else(|| words[1..].iter().find_map(|word| self.text(&word.text, depth + 1)))
                    .or_else(|| self.wrapped(name, words, depth))
            }
            "find" | "fd" | "fdfind" => words
                .iter()
                .enumerate()
                .filter(|(_, word)| {
                    ["-exec", "-execdir", "-ok", "-okdir", "-x", "-X", "--exec", "--exec-batch"]
                        .contains(&word.text.as_str())
                })
                .find_map(|(at, _)| {
                    let rest = &words[at + 1..];
                    let end = rest
                        .iter()
                        .position(|word| word.text == ";" || word.text == "+")
                        .unwrap_or(rest.len());
                    self.run(&rest[..end], depth + 1)
                }),
            _ => self.wrapped(name, words, depth),
        }
    }

    fn wrapped(&self, name: &str, words: &[Word], depth: usize) -> Option<String> {
        let rest = wrapped(name, words)?;
        self.meet(|met| {
            let from = 1..words.len().min(MOST_PERHAPS);
            met.perhaps.extend(from.map(|at| sure_words(&words[at..])));
            // These add words that they read.
            met.unsure |= ["xargs", "parallel"].contains(&name) || words.len() > MOST_PERHAPS;
        });
        if name == "env"
            && let Some(reason) = self.split_string(words, depth)
        {
            return Some(reason);
        }
        if name == "xargs" && name_of(rest) == "kill" {
            return None;
        }
        self.run(rest, depth + 1)
    }

    /// `env -S 'sudo x'`, among other letters too.
    fn split_string(&self, words: &[Word], depth: usize) -> Option<String> {
        words.iter().enumerate().skip(1).find_map(|(at, word)| {
            let option = word.text.strip_prefix('-')?;
            let value = match option.strip_prefix('-') {
                Some(long) => {
                    let (name, value) = long.split_once('=').unwrap_or((long, ""));
                    (!name.is_empty() && "split-string".starts_with(name)).then_some(value)?
                }
                None => &option[option.find('S')? + 1..],
            };
            let text = if value.is_empty() { &words.get(at + 1)?.text } else { value };
            self.text(text, depth + 1)
        })
    }
}

/// The command that a wrapper runs; `None` where it is none.
fn wrapped<'w>(name: &str, words: &'w [Word]) -> Option<&'w [Word]> {
    let wrapper = WRAPPERS.iter().find(|known| known.name == name)?;
    let takes_next = |option: &str| match option.strip_prefix("--") {
        // Names may be cut short.
        Some(name) => wrapper.long.iter().any(|known| known.starts_with(name)),
        // What follows such a letter in its word is its value.
        None => option.find(|c| wrapper.valued.contains(c)).is_some_and(|at| at + 1 == option.len()),
    };
    let (mut at, mut left, mut options) = (1, wrapper.operands, true);
    while let Some(word) = words.get(at) {
        let text = word.text.as_str();
        if options && text == "--" {
            options = false;
        } else if options && text.starts_with('-') {
            at += usize::from(takes_next(text));
        } else if left > 0 {
            left -= 1;
        } else if !(name == "env" && text.contains('=')) {
            break;
        }
        at += 1;
    }
    Some(words.get(at..).unwrap_or_default())
}

/// Whether the command, or what it wraps, is one of these.
fn runs(words: &[Word], names: &[&str]) -> bool {
    let mut rest = words;
    loop {
        let name = name_of(rest);
        if names.contains(&name.as_str()) {
            return true;
        }
        match wrapped(&name, rest) {
            Some(inner) => rest = inner,
            None => return false,
        }
    }
}

/// The same of any of them, or of what stands in their groups.
fn runs_any<'c>(commands: impl IntoIterator<Item = &'c Command>, names: &[&str]) -> bool {
    commands.into_iter().flat_map(Command::with_group).any(|command| runs(&command.words, names))
}

/// The commands of which a word holds the output.
fn substituted(word: &Word) -> impl Iterator<Item = &Command> {
    word.nested.iter().flat_map(|line| line.pipelines.iter().flatten()).flat_map(Command::with_group)
}

/// A shell or interpreter that is given its program on standard input.
fn reads_program_from_stdin(words: &[Word]) -> bool {
    if runs(words, SHELLS) {
        return !words.iter().any(|word| word.text == "-c");
    }
    let Some(at) = words.iter().position(|word| is_interpreter(&base_name(&word.text))) else { return false };
    let before_is_wrapper = at == 0 || runs(words, &[&base_name(&words[at].text)]);
    before_is_wrapper
        && words[at + 1..].iter().all(|word| {
            word.text == "-"
                || word.text.starts_with('-') && !["-c", "-e", "-m"].contains(&word.text.as_str())
        })
}

/// A word that holds the output of a network command.
fn from_network(word: &Word) -> bool {
    substituted(word).any(|command| runs(&command.words, NETWORK) || command.words.iter().any(from_network))
}

fn sets_id(mode: &str) -> bool {
    let numeric = mode.len() >= 4 && mode.bytes().all(|b| b.is_ascii_digit());
    if numeric {
        let special = mode.as_bytes()[mode.len() - 4] - b'0';
        return special & 6 != 0;
    }
    mode.split(',').any(|part| part.split_once(['+', '=']).is_some_and(|(_, bits)| bits.contains('s')))
}

fn is_device(text: &str) -> bool {
    const FINE: &[&str] = &[
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/tty",
        "/dev/stdin",
        "/dev/stdout",
        "/dev/stderr",
        "/dev/random",
        "/dev/urandom",
    ];
    let inside = text.starts_with("/dev/") && !text.starts_with("/dev/fd/") && !text.starts_with("/dev/shm/");
    inside && !FINE.contains(&text) && !text.starts_with("/dev/tcp")
        || text.starts_with("/proc/sys")
        || text.starts_with("/sys/")
}

fn find_bomb(text: &str) -> Option<String> {
    is_fork_bomb(text).then(|| "it starts copies of itself without end".into())
}

/// A function that pipes itself into itself, or starts itself in the background.
fn is_fork_bomb(text: &str) -> bool {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let word = |text: &str| text.chars().take_while(|c| !";|&(){}".contains(*c)).collect::<String>();
    text.match_indices("(){").any(|(at, _)| {
        let (before, body) = (&text[..at], &text[at + 3..]);
        let is_it = |name: &str| !name.is_empty() && before.ends_with(name);
        let pipes_into_itself = body.match_indices('|').any(|(pipe, _)| {
            let left = body[..pipe].rsplit([';', '|', '&', '(', ')', '{', '}']).next().unwrap_or_default();
            is_it(left) && word(&body[pipe + 1..]) == left
        });
        let first = word(body);
        pipes_into_itself || is_it(&first) && body[first.len()..].starts_with('&')
    })
}
