//! The terminal interface as a user has it: the binary in a pseudo-terminal, driven by keys and scripted turns, the
//! screen read back.

mod keys;
mod start;

use crate::agent::call;
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A screen that does not come in this time never will.
const HANGS: Duration = Duration::from_secs(30);

const ENTER: &str = "\r";
const ESC: &str = "\x1b";
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_O: &str = "\x0f";

struct Terminal {
    master: Box<dyn MasterPty + Send>,
    writer: Box<dyn Write + Send>,
    child: Ended,
    seen: Arc<Mutex<(vt100::Parser, Vec<u8>)>>,
    /// Nobody looks at the terminal any more.
    closed: Arc<AtomicBool>,
    files: tempfile::TempDir,
    home: tempfile::TempDir,
}

/// Whatever becomes of the test, the program does not outlive it.
struct Ended(Box<dyn Child + Send + Sync>);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

fn size(columns: u16, rows: u16) -> PtySize {
    PtySize { cols: columns, rows, pixel_width: 0, pixel_height: 0 }
}

impl Terminal {
    fn open(turns: &[Value], columns: u16, rows: u16, arguments: &[&str], files: &[(&str, &str)]) -> Self {
        let (project, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (name, text) in files {
            std::fs::write(project.path().join(name), text).unwrap();
        }
        Self::at(project, home, turns, columns, rows, arguments)
    }

    fn at(
        files: tempfile::TempDir,
        home: tempfile::TempDir,
        turns: &[Value],
        columns: u16,
        rows: u16,
        arguments: &[&str],
    ) -> Self {
        let command = Self::command(&files, &home, turns, arguments);
        Self::spawn(files, home, command, columns, rows)
    }

    fn command(
        files: &tempfile::TempDir,
        home: &tempfile::TempDir,
        turns: &[Value],
        arguments: &[&str],
    ) -> CommandBuilder {
        let script = home.path().join("script.json");
        std::fs::write(&script, Value::from(turns.to_vec()).to_string()).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_qwright"));
        command.env_clear();
        command.args(["--sandbox", "none"]);
        if !turns.is_empty() {
            command.arg("--scripted");
            command.arg(&script);
        }
        command.args(arguments);
        command.cwd(files.path());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", home.path());
        command.env("TERM", "xterm-256color");
        command
    }

    fn spawn(
        files: tempfile::TempDir,
        home: tempfile::TempDir,
        command: CommandBuilder,
        columns: u16,
        rows: u16,
    ) -> Self {
        let pair = native_pty_system().openpty(size(columns, rows)).unwrap();
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let seen = Arc::new(Mutex::new((vt100::Parser::new(rows, columns, 0), Vec::new())));
        let (mut reader, fed) = (pair.master.try_clone_reader().unwrap(), seen.clone());
        let closed = Arc::new(AtomicBool::new(false));
        let is_closed = closed.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes)
                && !is_closed.load(Ordering::Relaxed)
            {
                let mut seen = fed.lock().unwrap();
                seen.0.process(&bytes[..count]);
                seen.1.extend_from_slice(&bytes[..count]);
            }
        });
        let writer = pair.master.take_writer().unwrap();
        Self { master: pair.master, writer, child: Ended(child), seen, closed, files, home }
    }

    fn keys(&mut self, keys: &str) {
        self.writer.write_all(keys.as_bytes()).unwrap();
        self.writer.flush().unwrap();
    }

    fn screen(&self) -> String {
        let seen = self.seen.lock().unwrap();
        let rows = seen.0.screen().rows(0, u16::MAX);
        rows.map(|row| row.trim_end().to_string()).collect::<Vec<_>>().join("\n")
    }

    fn raw(&self) -> Vec<u8> {
        self.seen.lock().unwrap().1.clone()
    }

    #[track_caller]
    fn until(&self, what: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + HANGS;
        loop {
            let screen = self.screen();
            if what(&screen) {
                return screen;
            }
            assert!(Instant::now() < end, "this did not come:\n{screen}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[track_caller]
    fn shows(&self, text: &str) -> String {
        self.until(|screen| screen.contains(text))
    }

    fn resize(&self, columns: u16, rows: u16) {
        self.seen.lock().unwrap().0.screen_mut().set_size(rows, columns);
        self.master.resize(size(columns, rows)).unwrap();
    }

    /// The screen without what differs from run to run.
    fn plain(&self) -> String {
        let screen = self.screen();
        let places = [self.files.path(), self.home.path()].map(|path| path.display().to_string());
        let mut screen = places.iter().fold(screen, |screen, place| screen.replace(place, "DIR"));
        for (pattern, with) in [
            (r"\b\d+ s\b", "N s"),
            (r"\d+\.\d tok/s", "N tok/s"),
            (r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]", "*"),
            (r"\d{8}-\d{6}-[0-9a-f]{8}", "SESSION"),
        ] {
            screen = fancy_regex::Regex::new(pattern).unwrap().replace_all(&screen, with).into_owned();
        }
        screen
    }

    /// Colour and ground of the first sign of `text` where it first stands on the screen.
    #[track_caller]
    fn colours(&self, text: &str) -> (vt100::Color, vt100::Color) {
        let seen = self.seen.lock().unwrap();
        let screen = seen.0.screen();
        let place = screen.rows(0, u16::MAX).enumerate().find_map(|(row, line)| {
            let at = line.find(text)?;
            Some((row as u16, line[..at].chars().count() as u16))
        });
        let (row, column) = place.unwrap_or_else(|| panic!("{text} is not on the screen"));
        let cell = screen.cell(row, column).unwrap();
        (cell.fgcolor(), cell.bgcolor())
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn leave(mut self) -> (tempfile::TempDir, tempfile::TempDir) {
        self.keys(CTRL_C);
        self.keys(CTRL_C);
        self.child.0.wait().unwrap();
        (self.files, self.home)
    }

    fn is_restored(&self) -> bool {
        let seen = self.seen.lock().unwrap();
        let screen = seen.0.screen();
        !screen.alternate_screen()
            && !screen.hide_cursor()
            && !screen.bracketed_paste()
            && screen.mouse_protocol_mode() == vt100::MouseProtocolMode::None
    }
}

/// The screen at 120x40 and 60x20 and, the same as it was, at its `first` size again. What `shown` says is seen once
/// it is drawn anew.
#[track_caller]
fn at_other_sizes(t: &Terminal, name: &str, first: (u16, u16), shown: &str) {
    let before = still(t);
    for (columns, rows) in [(120, 40), (60, 20)] {
        t.resize(columns, rows);
        t.shows(shown);
        insta::assert_snapshot!(format!("{name}_{columns}x{rows}"), still(t));
    }
    t.resize(first.0, first.1);
    t.until(|_| t.plain() == before);
}

/// The screen once it says the same for a while, whatever turns on it.
fn still(t: &Terminal) -> String {
    let end = Instant::now() + HANGS;
    let (mut screen, mut since) = (t.plain(), Instant::now());
    while since.elapsed() < Duration::from_millis(200) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
        let now = t.plain();
        if now != screen {
            (screen, since) = (now, Instant::now());
        }
    }
    screen
}

fn numbers(change: &[usize]) -> String {
    (0..30).map(|n| if change.contains(&n) { format!("new {n}\n") } else { format!("line {n}\n") }).collect()
}

#[test]
fn an_answer_and_its_calls_at_three_sizes() {
    let turns = [
        json!(call("read_file", &[("file_path", "list.txt")])),
        json!(
            "# Done\n\nThe **file** has `30` lines:\n\n- one\n- 二 wide 字 and 🦀\n\n```rust\nfn main() {}\n```\n\n|a|b|\n|-|-|\n|1|2|"
        ),
    ];
    for (columns, rows) in [(80, 24), (120, 40), (60, 20)] {
        let mut t = Terminal::open(&turns, columns, rows, &[], &[("list.txt", &numbers(&[]))]);
        t.shows("scripted");
        t.keys("how long is @list.txt?");
        t.keys(ENTER);
        t.shows("tokens written");
        insta::assert_snapshot!(format!("answer_{columns}x{rows}"), t.plain());
        if columns == 80 {
            t.resize(60, 20);
            // In 20 rows the last line is seen only once the screen was drawn anew.
            t.shows("tokens written");
            insta::assert_snapshot!("answer_resized", t.plain());
        }
        t.leave();
    }
}

#[test]
fn one_hunk_lands_and_the_other_does_not_and_undo_takes_it_back() {
    let whole = |change: &[usize]| numbers(change);
    let turns = [
        json!(call("read_file", &[("file_path", "list.txt")])),
        json!(call("write_file", &[("file_path", "list.txt"), ("content", &whole(&[3, 25]))])),
        json!("As you like."),
    ];
    for (columns, rows) in [(80, 24), (140, 30)] {
        let mut t = Terminal::open(&turns, columns, rows, &[], &[("list.txt", &numbers(&[]))]);
        t.shows("scripted");
        t.keys("change it");
        t.keys(ENTER);
        t.shows("hunk 1 of 2");
        insta::assert_snapshot!(format!("review_{columns}"), t.plain());
        if columns == 80 {
            at_other_sizes(&t, "review", (80, 24), "hunk 1 of 2");
        }
        std::thread::sleep(Duration::from_millis(500));
        t.keys("y");
        t.shows("✓ accepted");
        t.keys("n");
        t.shows("Why not?");
        insta::assert_snapshot!(format!("review_reject_{columns}"), t.plain());
        t.keys("keep that line");
        t.keys(ENTER);
        t.shows("As you like.");
        t.shows("tokens written");
        assert_eq!(t.file("list.txt"), numbers(&[3]));
        t.keys("/diff\r");
        t.shows("Changes");
        t.keys("q");
        t.keys("/undo\r");
        t.shows("taken back: list.txt");
        assert_eq!(t.file("list.txt"), numbers(&[]));
        let (_files, home) = t.leave();
        let logs = std::fs::read_dir(home.path().join(".local/state/qwright/sessions")).unwrap();
        let log: String = logs.map(|log| std::fs::read_to_string(log.unwrap().path()).unwrap()).collect();
        assert!(log.contains("The user's reason: keep that line"), "the model was told");
    }
}

#[test]
fn code_and_diffs_are_in_the_colours_of_the_theme() {
    use vt100::Color::{Default, Idx};
    let (old, new) = ("\"one\";", "\"two\";");
    let turns = [
        json!(call("edit", &[("file_path", "a.rs"), ("old_string", old), ("new_string", new)])),
        json!("So:\n\n```rust\nstatic S: u8 = 1;\n```\n"),
    ];
    let source = "fn f() {\n    let a = \"one\";\n    g(a);\n}\n";
    let open = |no_color: bool| {
        let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(files.path().join("a.rs"), source).unwrap();
        let mut command = Terminal::command(&files, &home, &turns, &[]);
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let mut t = Terminal::spawn(files, home, command, 100, 40);
        t.shows("scripted");
        t.keys("go\r");
        t.shows("hunk 1 of 1");
        std::thread::sleep(Duration::from_millis(500));
        t
    };
    let answered = |t: &mut Terminal| {
        t.keys("y");
        t.shows("static S");
        t.shows("tokens written");
    };
    let (keyword, string, function) = (Idx(13), Idx(10), Idx(12));
    let mut t = open(false);
    assert_eq!(t.colours("fn f()"), (keyword, Default), "context of the review");
    assert_eq!(t.colours("let a = \"one"), (keyword, Idx(52)), "a line that goes");
    assert_eq!(t.colours("let a = \"two"), (keyword, Idx(22)), "a line that comes");
    assert_eq!(t.colours("one"), (string, Idx(88)), "what changed within the line");
    assert_eq!(t.colours("two"), (string, Idx(28)));
    answered(&mut t);
    assert_eq!(t.colours("g(a);"), (function, Default), "context of the call's diff");
    assert_eq!(t.colours("let a = \"two"), (keyword, Idx(22)));
    assert_eq!(t.colours("static S"), (keyword, Default), "code of the answer");
    let dark = t.screen();
    t.keys("/theme light\r");
    t.until(|_| t.colours("static S").0 == Idx(90));
    assert_eq!(t.colours("let a = \"two"), (Idx(90), Idx(194)));
    let lines = |screen: &str| screen.lines().take(20).map(str::to_string).collect::<Vec<_>>();
    assert_eq!(lines(&t.screen()), lines(&dark));
    t.leave();

    let mut t = open(true);
    assert_eq!(t.colours("let a = \"one"), (Default, Default));
    answered(&mut t);
    for text in ["fn f()", "let a = \"two", "static S"] {
        assert_eq!(t.colours(text), (Default, Default), "{text}");
    }
    t.leave();
}

#[test]
fn a_command_is_shown_byte_for_byte_and_may_be_refused_with_a_reason() {
    let turns = [
        json!(call("run_shell_command", &[("command", "echo one\u{202e} && \\\n  touch made  ")])),
        json!("I see."),
    ];
    let mut t = Terminal::open(&turns, 80, 24, &[], &[("list.txt", "x\n")]);
    t.shows("scripted");
    t.keys("go\r");
    t.shows("Run this command?");
    insta::assert_snapshot!("approval", t.plain());
    at_other_sizes(&t, "approval", (80, 24), "Run this command?");
    std::thread::sleep(Duration::from_millis(500));
    t.keys("r");
    t.shows("Why not?");
    t.keys("not now\r");
    t.shows("I see.");
    assert!(!t.path("made").exists());
    t.leave();
}

#[test]
fn a_rule_answers_for_the_user_until_it_is_removed() {
    let touch = |name: &str| json!(call("run_shell_command", &[("command", &format!("touch made {name}"))]));
    let edit = json!(call(
        "edit",
        &[("file_path", "list.txt"), ("old_string", "line 3\n"), ("new_string", "new 3\n")]
    ));
    let turns = [touch("a"), touch("b"), json!("Made."), touch("c"), json!("Well."), edit, json!("Edited.")];
    let mut t = Terminal::open(&turns, 80, 24, &[], &[("list.txt", &numbers(&[]))]);
    t.shows("scripted");
    t.keys("make them\r");
    t.shows("A  yes, and always in this directory: run_shell_command(touch made)");
    std::thread::sleep(Duration::from_millis(500));
    t.keys("s");
    t.shows("Made.");
    t.shows("tokens written");
    assert!(t.path("a").exists() && t.path("b").exists(), "the second was not asked for");
    t.keys("/permissions deny write_file\r");
    t.shows("deny write_file, for this session");
    t.keys("/permissions\r");
    t.shows("Enter removes the rule");
    insta::assert_snapshot!("permissions", t.plain());
    t.keys(ENTER);
    t.shows("removed: allow run_shell_command(touch made)");
    t.keys("again\r");
    t.shows("Run this command?");
    std::thread::sleep(Duration::from_millis(500));
    t.keys("n");
    t.shows("Well.");
    // Nothing of the kind was denied by a rule for it, but what denies one tool that writes denies the others.
    t.keys("edit it\r");
    t.shows("Edited.");
    assert_eq!(t.file("list.txt"), numbers(&[]));
    t.leave();
}

#[test]
fn a_review_shows_the_rule_before_it_is_made() {
    let edit = |old: &str, new: &str| {
        json!(call("edit", &[("file_path", "list.txt"), ("old_string", old), ("new_string", new)]))
    };
    let turns = [edit("line 3\n", "new 3\n"), edit("line 25\n", "new 25\n"), json!("Both.")];
    let mut t = Terminal::open(&turns, 80, 24, &[], &[("list.txt", &numbers(&[]))]);
    t.shows("scripted");
    t.keys("change both\r");
    t.shows("hunk 1 of 1");
    std::thread::sleep(Duration::from_millis(500));
    t.keys("A");
    t.shows("from now on, always, in this directory: allow edit(*)?");
    insta::assert_snapshot!("review_rule", t.plain());
    t.keys("y");
    t.shows("Both.");
    assert_eq!(t.file("list.txt"), numbers(&[3, 25]));
    let (_files, home) = t.leave();
    let kept = std::fs::read_to_string(home.path().join(".local/state/qwright/rules.toml")).unwrap();
    assert!(kept.contains("\"edit(*)\""), "{kept}");
}

/// The screen holds still: nothing was written for a while.
fn settled(t: &Terminal) {
    let mut before = t.raw().len();
    loop {
        std::thread::sleep(Duration::from_millis(150));
        let now = t.raw().len();
        if now == before {
            return;
        }
        before = now;
    }
}

#[test]
fn what_files_commands_and_models_write_reaches_no_terminal() {
    let evil = "a\x1b]52;c;aGk=\x07b\x1b[2Jc\x1b]0;title\x07\u{9b}31md\u{202e}e\u{200b}f\u{e0041}g\x7f\x08";
    let long = "x".repeat(1_000_000);
    let turns = [
        json!(call("run_shell_command", &[("command", "cat evil.txt")])),
        json!(format!("answer {evil} `{evil}`\n```{evil}\n{evil}\n```\n[{evil}]({evil})")),
    ];
    let text = format!("{evil}\n{long}\n");
    let mut t = Terminal::open(&turns, 80, 24, &["-y"], &[("evil.txt", &text), ("na\x1b[31mme", "x")]);
    t.shows("scripted");
    t.keys("@na");
    t.shows("@na\\u{1b}");
    t.keys("\x15");
    t.keys(&format!("\x1b[200~{}\x1b[201~", "pasted \u{202e} \x07 text"));
    t.keys(ENTER);
    t.shows("tokens written");
    t.keys(CTRL_O);
    settled(&t);
    let raw = String::from_utf8_lossy(&t.raw()).into_owned();
    for never in
        ["\x1b]52;", "\x1b]0;", "\u{9b}", "\u{202e}", "\u{200b}", "\u{e0041}", "\x7f", "\x08", "\x1b[2Jc"]
    {
        assert!(!raw.contains(never), "{never:?}");
    }
    // Every escape byte begins a sequence that we write.
    let known = fancy_regex::Regex::new(r"^\x1b(\[[0-9;?]*[A-Za-z]|\]9;Qwright|\\)").unwrap();
    for (at, _) in raw.match_indices('\x1b') {
        let rest: String = raw[at..].chars().take(40).collect();
        assert!(known.is_match(&rest).unwrap(), "{rest:?}");
    }
    t.leave();
}

#[test]
fn the_terminal_is_given_back_and_the_session_goes_on_after_a_kill() {
    let turns = [json!("First answer."), json!("Second answer.")];
    let mut t = Terminal::open(&turns, 80, 24, &[], &[("list.txt", "x\n")]);
    t.shows("scripted");
    t.keys("remember 42\r");
    t.shows("First answer.");
    t.shows("tokens written");
    let id = t.child.0.process_id().unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(id as i32).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert_eq!(t.child.0.wait().unwrap().exit_code(), 130);
    t.until(|_| t.is_restored());
    let Terminal { files, home, .. } = t;
    let mut t = Terminal::at(files, home, &turns, 80, 24, &["--continue"]);
    t.shows("First answer.");
    insta::assert_snapshot!("continued", t.plain());
    t.keys(CTRL_D);
    t.child.0.wait().unwrap();
    t.until(|_| t.is_restored());
}

/// What stands in a shell's command line for this command.
fn quoted(command: &CommandBuilder) -> String {
    let words = command.get_argv().iter().map(|word| format!("\"{}\"", word.to_str().unwrap()));
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn suspending_gives_the_terminal_back_and_fg_takes_it_again() {
    // By itself, and in a script that waits for it: the whole job stops.
    for in_script in [false, true] {
        let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let program = Terminal::command(&files, &home, &[json!("Answer.")], &[]);
        let line = match in_script {
            false => quoted(&program),
            true => format!("sh -c '{}; true'", quoted(&program)),
        };
        let mut shell = program.clone();
        let told = format!("{line}; echo the shell is back; read x; fg; echo the job has ended");
        *shell.get_argv_mut() = ["bash", "-mc", &told].map(Into::into).to_vec();
        let mut t = Terminal::spawn(files, home, shell, 80, 24);
        t.shows("scripted");
        t.keys("half a word\x1a");
        t.shows("the shell is back");
        assert!(t.is_restored());
        t.keys("\r");
        t.until(|screen| !t.is_restored() && screen.contains("half a word"));
        t.keys(CTRL_C);
        t.keys(CTRL_D);
        t.shows("the job has ended");
        assert!(t.is_restored());
    }
}

#[test]
fn without_a_shell_to_go_back_to_it_goes_on() {
    let turns = [json!("Answer.")];
    let mut t = Terminal::open(&turns, 80, 24, &[], &[("list.txt", "x\n")]);
    t.shows("scripted");
    t.keys("half a word\x1a");
    t.shows("no shell here to go back to");
    t.keys("\x15hello\r");
    t.shows("Answer.");
    t.leave();
}

#[test]
fn esc_interrupts_and_the_session_goes_on() {
    let turns = [json!({"hang": true}), json!("Here again.")];
    let mut t = Terminal::open(&turns, 80, 24, &[], &[("list.txt", "x\n")]);
    t.shows("scripted");
    t.keys("wait\r");
    t.shows("Esc interrupts");
    t.keys(ESC);
    t.shows("interrupted");
    t.keys("again\r");
    t.shows("Here again.");
    t.leave();
}

#[test]
fn an_answer_is_shown_as_it_is_written() {
    let half =
        "Half of it:\n\n- one **bold** word\n- 二 wide 字 and 🦀\n\n```rust\nfn main() {\n    let half =";
    let turns = [json!({"text": half, "hang": true})];
    for (columns, rows) in [(80, 24), (120, 40), (60, 20)] {
        let mut t = Terminal::open(&turns, columns, rows, &[], &[("list.txt", "x\n")]);
        t.shows("scripted");
        t.keys("write\r");
        t.shows("let half =");
        t.shows("Esc interrupts");
        insta::assert_snapshot!(format!("streaming_{columns}x{rows}"), t.plain());
        t.keys(ESC);
        t.shows("interrupted");
        t.leave();
    }
}

#[test]
fn a_terminal_that_goes_away_leaves_the_session_whole() {
    let turns = [json!("First answer."), json!({"text": "Half an", "hang": true})];
    let mut t = Terminal::open(&turns, 80, 24, &[], &[("list.txt", "x\n")]);
    t.shows("scripted");
    t.keys("remember 42\r");
    t.shows("First answer.");
    t.shows("tokens written");
    t.keys("and on\r");
    t.shows("Half an");
    let Terminal { master, writer, mut child, files, home, closed, .. } = t;
    // What reads the screen ends with the next drawing: it holds the terminal too.
    closed.store(true, Ordering::Relaxed);
    drop((master, writer));
    child.0.wait().unwrap();
    let mut t = Terminal::at(files, home, &turns, 80, 24, &["--continue"]);
    t.shows("First answer.");
    t.shows("and on");
    t.keys(CTRL_D);
    t.child.0.wait().unwrap();
}

#[test]
fn help_names_every_key_and_command_and_lists_open() {
    let mut t = Terminal::open(&[json!("Answer.")], 100, 75, &[], &[("list.txt", "x\n")]);
    t.shows("scripted");
    t.keys("?");
    t.shows("/quit");
    insta::assert_snapshot!("help", t.plain());
    t.keys("q");
    t.keys("/permissions\r");
    t.shows("auto-edit  changes files unasked");
    t.keys("/stats\r");
    t.shows("Tokens read");
    t.keys("/context\r");
    t.shows("descriptions of the tools");
    t.keys("/nothing\r");
    t.shows("there is no command /nothing");
    t.keys("!echo out of the shell\r");
    t.shows("✓ echo out of the shell");
    t.keys("\x1b[Z");
    t.shows("auto-edit ·");
    t.keys("hello\r");
    t.shows("Answer.");
    t.keys("/resume\r");
    t.shows("Resume which session?");
    t.leave();
}

#[test]
fn a_plan_is_carried_out_once_it_is_approved() {
    let turns = [
        json!("I would:\n\n1. read `list.txt`\n2. change its first line"),
        json!(call("read_file", &[("file_path", "list.txt")])),
        json!(call("edit", &[("file_path", "list.txt"), ("old_string", "x"), ("new_string", "y")])),
        json!("Done."),
    ];
    let mut t = Terminal::open(&turns, 80, 24, &["--approval-mode", "plan"], &[("list.txt", "x\n")]);
    t.shows("scripted");
    t.keys("change the first line\r");
    t.shows("Is this the plan?");
    settled(&t);
    insta::assert_snapshot!("plan", t.plain());
    assert_eq!(t.file("list.txt"), "x\n");
    t.keys("\x1b[B");
    t.keys(ENTER);
    t.shows("Done.");
    t.shows("auto-edit");
    assert_eq!(t.file("list.txt"), "y\n");
    t.leave();
}

#[test]
fn an_error_a_shortened_conversation_and_the_list_of_sessions() {
    let turns = [
        json!({"error": "the server went away"}),
        json!(call("read_file", &[("file_path", "list.txt")])),
        json!("Here it is."),
        json!("The user looks for a list."),
    ];
    let long: String = (0..300).map(|n| format!("line {n} of a list\n")).collect();
    let mut t = Terminal::open(&turns, 80, 24, &[], &[("list.txt", &long)]);
    t.shows("scripted");
    t.keys("where is it?\r");
    t.shows("the server went away");
    settled(&t);
    insta::assert_snapshot!("error", t.plain());
    at_other_sizes(&t, "error", (80, 24), "the server went away");
    t.keys("again\r");
    t.shows("1 call");
    t.keys("/compact\r");
    t.shows("shortened from");
    t.until(|screen| !screen.contains("Esc interrupts"));
    settled(&t);
    insta::assert_snapshot!("compaction", t.plain());
    at_other_sizes(&t, "compaction", (80, 24), "shortened from");
    t.keys("/resume\r");
    t.shows("Resume which session?");
    insta::assert_snapshot!("sessions", t.plain());
    at_other_sizes(&t, "sessions", (80, 24), "Resume which session?");
    t.leave();
}

#[test]
fn a_long_output_is_folded_and_opens() {
    let turns = [json!(call("run_shell_command", &[("command", "seq 10000")])), json!("Counted.")];
    let mut t = Terminal::open(&turns, 80, 24, &["-y"], &[("list.txt", "x\n")]);
    t.shows("scripted");
    t.keys("count\r");
    t.shows("tokens written");
    t.shows("(Ctrl+O)");
    insta::assert_snapshot!("long_output_folded", t.plain());
    at_other_sizes(&t, "long_output_folded", (80, 24), "(Ctrl+O)");
    t.keys(CTRL_O);
    t.shows("    10000");
    insta::assert_snapshot!("long_output_open", t.plain());
    at_other_sizes(&t, "long_output_open", (80, 24), "    10000");
    t.keys("\x1b[5~");
    t.until(|screen| !screen.contains("Counted."));
    t.leave();
}

/// Run by the next test as a program of its own; by itself it has nothing to do.
#[test]
fn panics_where_it_is_asked_to() {
    if std::env::var_os("QWRIGHT_TEST_PANIC").is_none() {
        return;
    }
    qwright::tui::terminal::tell_panics(std::sync::mpsc::channel().0);
    let _screen = qwright::tui::terminal::Screen::enter().unwrap();
    panic!("as it was asked to");
}

#[test]
fn a_panic_gives_the_terminal_back_before_it_is_told() {
    let mut command = CommandBuilder::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tui::panics_where_it_is_asked_to", "--nocapture"]);
    command.env("QWRIGHT_TEST_PANIC", "1");
    // A long backtrace would push the message off the screen.
    command.env("RUST_BACKTRACE", "0");
    command.env("TERM", "xterm-256color");
    let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut t = Terminal::spawn(files, home, command, 80, 24);
    t.child.0.wait().unwrap();
    t.shows("as it was asked to");
    assert!(t.is_restored());
    let raw = String::from_utf8_lossy(&t.raw()).into_owned();
    let (entered, told) = (raw.find("?1049h").unwrap(), raw.rfind("as it was asked to").unwrap());
    let left = raw.find("?1049l").unwrap();
    assert!(entered < left && left < told, "{raw:?}");
}
