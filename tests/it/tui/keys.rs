//! Every key and every command that `?` names, pressed: what is shown is what the help promises. The tables are held
//! against the screen of the help, so that what is added there is missed here.

use super::*;

const CTRL_A: &str = "\x01";
const CTRL_E: &str = "\x05";
const CTRL_G: &str = "\x07";
const CTRL_K: &str = "\x0b";
const CTRL_L: &str = "\x0c";
const CTRL_R: &str = "\x12";
const CTRL_U: &str = "\x15";
const CTRL_W: &str = "\x17";
const CTRL_Y: &str = "\x19";
const CTRL_UNDERSCORE: &str = "\x1f";
const UP: &str = "\x1b[A";
const DOWN: &str = "\x1b[B";
const BACK_TAB: &str = "\x1b[Z";

/// What the help calls it, and a test of it.
type Case = (&'static str, fn());

const KEYS: &[Case] = &[
    ("Enter", enter),
    ("Ctrl+J, Alt+Enter", new_line),
    ("Esc", esc_interrupts_and_the_session_goes_on),
    ("Esc Esc", esc_esc),
    ("Ctrl+C", ctrl_c),
    ("Ctrl+D", ctrl_d),
    ("Ctrl+Z", suspending_gives_the_terminal_back_and_fg_takes_it_again),
    ("Shift+Tab", shift_tab),
    ("Ctrl+O", ctrl_o),
    ("Ctrl+R", ctrl_r),
    ("Ctrl+G", ctrl_g),
    ("Ctrl+L", ctrl_l),
    ("Up, Down", up_down),
    ("PgUp, PgDn, wheel", scrolling),
    ("Alt+M", alt_m),
    ("Tab", tab),
    ("Alt+B, Alt+F, Ctrl+Left, Ctrl+Right", words),
    ("Ctrl+A, Ctrl+E", ends),
    ("Ctrl+W, Ctrl+U, Ctrl+K, Ctrl+Y", cuts),
    ("Ctrl+_", undo_typing),
    ("? @ ! /", starts),
];

const REVIEW_KEYS: &[Case] = &[
    ("j, k", review_moves),
    ("Tab, Shift+Tab", review_files),
    ("y, n", review_hunks),
    ("Y, N", review_whole_files),
    ("a, r", review_all),
    ("e", review_edit),
    ("S, A", review_rules),
    ("u", review_undecided),
    ("s", review_layout),
    ("q", review_back),
];

const COMMANDS: &[Case] = &[
    ("/help", slash_help),
    ("/model", slash_model),
    ("/compact", an_error_a_shortened_conversation_and_the_list_of_sessions),
    ("/undo", slash_undo),
    ("/rewind", slash_rewind),
    ("/diff", slash_diff),
    ("/resume", slash_resume),
    ("/sessions", slash_sessions),
    ("/context", slash_context_and_stats),
    ("/stats", slash_context_and_stats),
    ("/init", slash_init),
    ("/memory", slash_memory),
    ("/plan", slash_plan),
    ("/permissions", a_rule_answers_for_the_user_until_it_is_removed),
    ("/btw", slash_btw),
    ("/theme", slash_theme),
    ("/vim", slash_vim),
    ("/clear", slash_clear),
    ("/copy", slash_copy),
    ("/quit", slash_quit),
];

#[test]
fn the_help_names_what_is_pressed_here() {
    let mut t = Terminal::open(&[json!("Answer.")], 150, 75, &[], &[]);
    t.shows("scripted");
    t.keys("?");
    let screen = t.shows("/quit");
    let mut named: Vec<Vec<String>> = Vec::new();
    for line in screen.lines() {
        match line.strip_prefix("  ") {
            Some(row) => named.last_mut().unwrap().extend(row.split("  ").next().map(str::to_string)),
            None if ["Keys", "Review", "Commands"].contains(&line) => named.push(Vec::new()),
            None => {}
        }
    }
    let here =
        [KEYS, REVIEW_KEYS, COMMANDS].map(|cases| cases.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    assert_eq!(named, here);
    t.leave();
}

/// All at once: each waits for its own terminal most of the time.
fn all(cases: &[Case]) {
    let mut failed = Vec::new();
    for some in cases.chunks(6) {
        std::thread::scope(|scope| {
            let run: Vec<_> = some.iter().map(|(name, case)| (name, scope.spawn(case))).collect();
            for (name, run) in run {
                failed.extend(run.join().is_err().then_some(*name));
            }
        });
    }
    assert!(failed.is_empty(), "these do not do what the help says: {failed:?}");
}

#[test]
fn every_key_does_what_the_help_says() {
    all(KEYS);
}

#[test]
fn every_key_of_the_review_does_what_the_help_says() {
    all(REVIEW_KEYS);
}

#[test]
fn every_command_does_what_the_help_says() {
    all(COMMANDS);
}

fn open(turns: &[Value]) -> Terminal {
    let t = Terminal::open(turns, 100, 30, &["-y"], &[("list.txt", &numbers(&[]))]);
    t.shows("yolo · scripted");
    t
}

/// What stands in the composer.
fn written(screen: &str) -> String {
    let below = screen.rsplit_once("────\n").map_or("", |(_, below)| below);
    let (lines, _status) = below.rsplit_once('\n').unwrap_or_default();
    let lines: Vec<&str> = lines.lines().map(|line| line.trim_start_matches(['>', '·', ' '])).collect();
    lines.join("\n")
}

impl Terminal {
    #[track_caller]
    fn writes(&self, text: &str) {
        self.until(|screen| written(screen) == text);
    }

    #[track_caller]
    fn hides(&self, text: &str) {
        self.until(|screen| !screen.contains(text));
    }

    /// A request, and all of its turn.
    #[track_caller]
    fn asks(&mut self, request: &str, answer: &str) {
        self.keys(request);
        self.writes(request);
        self.keys(ENTER);
        self.shows(answer);
        self.until(|screen| !screen.contains("Esc interrupts") && written(screen).is_empty());
    }

    fn ends(&mut self) {
        self.child.0.wait().unwrap();
        self.until(|_| self.is_restored());
    }
}

fn with_editor(editor: &str, turns: &[Value], arguments: &[&str]) -> Terminal {
    let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(files.path().join("list.txt"), numbers(&[])).unwrap();
    let mut command = Terminal::command(&files, &home, turns, arguments);
    command.env("EDITOR", editor);
    let t = Terminal::spawn(files, home, command, 100, 30);
    t.shows("scripted");
    t
}

fn write(file: &str, content: &str) -> Value {
    json!(call("write_file", &[("file_path", file), ("content", content)]))
}

fn enter() {
    let mut t = open(&[json!("Answer.")]);
    t.asks("hello", "Answer.");
    assert!(t.screen().contains("> hello"));
    t.leave();
}

fn new_line() {
    let mut t = open(&[json!("Answer.")]);
    t.keys("one\ntwo\x1b\rthree");
    t.writes("one\ntwo\nthree");
    t.leave();
}

fn esc_esc() {
    let mut t = open(&[write("new.txt", "x\n"), json!("Made."), json!("Other.")]);
    t.asks("make it", "Made.");
    t.asks("and then", "Other.");
    assert!(t.path("new.txt").exists());
    t.keys(ESC);
    t.shows("Esc again goes back");
    t.keys(ESC);
    t.shows("before which request?");
    t.keys(UP);
    t.shows("▸ make it");
    t.keys(ENTER);
    t.shows("taken back: new.txt");
    t.writes("make it");
    assert!(!t.path("new.txt").exists());
    t.leave();
}

fn ctrl_c() {
    let mut t = open(&[json!({"hang": true})]);
    t.keys("half");
    t.writes("half");
    t.keys(CTRL_C);
    t.writes("");
    t.shows("Ctrl+C again leaves");
    t.keys("wait\r");
    t.shows("Esc interrupts");
    t.keys(CTRL_C);
    t.shows("interrupted");
    t.keys(CTRL_C);
    t.ends();
}

fn ctrl_d() {
    let mut t = open(&[json!("Answer.")]);
    t.keys("ab");
    t.writes("ab");
    t.keys(CTRL_A);
    t.keys(CTRL_D);
    t.writes("b");
    t.keys(CTRL_D);
    t.writes("");
    t.keys(CTRL_D);
    t.ends();
}

#[test]
fn a_change_that_cannot_be_made_is_not_asked_for() {
    // Of a file that was not read, and of a text that is not in it.
    let absent = [("file_path", "list.txt"), ("old_string", "nowhere"), ("new_string", "x")];
    let turns = [write("list.txt", "x\n"), json!(call("edit", &absent)), json!("I see.")];
    let mut t = Terminal::open(&turns, 100, 30, &[], &[("list.txt", &numbers(&[]))]);
    t.shows("default · scripted");
    t.asks("change it", "I see.");
    let screen = t.screen();
    assert!(screen.contains("✗ write_file: ") && screen.contains("✗ edit: "), "{screen}");
    assert_eq!(t.file("list.txt"), numbers(&[]));
    t.leave();
}

fn shift_tab() {
    let mut t = open(&[json!("Answer.")]);
    // What asks nothing is named, not come by.
    for mode in ["default", "auto-edit", "plan", "default"] {
        t.keys(BACK_TAB);
        t.shows(&format!("{mode} · scripted"));
    }
    t.leave();
}

fn ctrl_o() {
    let mut t = open(&[json!(call("run_shell_command", &[("command", "seq 100")])), json!("Counted.")]);
    t.asks("count", "Counted.");
    t.shows("(Ctrl+O)");
    assert!(!t.screen().contains("    99"));
    t.keys(CTRL_O);
    t.shows("    99");
    t.keys(CTRL_O);
    t.hides("    99");
    t.leave();
}

fn ctrl_r() {
    let mut t = open(&[json!("One."), json!("Two.")]);
    t.asks("the first thing", "One.");
    t.asks("another", "Two.");
    t.keys(CTRL_R);
    t.keys("first");
    t.shows("the first thing");
    t.keys(ENTER);
    t.writes("the first thing");
    t.leave();
}

fn ctrl_g() {
    let mut t = with_editor("printf 'from the editor' >", &[json!("Answer.")], &[]);
    t.keys(CTRL_G);
    t.writes("from the editor");
    t.leave();
}

fn ctrl_l() {
    let mut t = open(&[json!("Answer.")]);
    t.asks("hello", "Answer.");
    settled(&t);
    let before = t.raw().len();
    t.keys(CTRL_L);
    t.until(|_| String::from_utf8_lossy(&t.raw()[before..]).contains("Answer."));
    t.leave();
}

fn up_down() {
    let mut t = open(&[json!("One."), json!("Two.")]);
    t.asks("first", "One.");
    t.asks("second", "Two.");
    for (key, text) in [(UP, "second"), (UP, "first"), (DOWN, "second"), (DOWN, "")] {
        t.keys(key);
        t.writes(text);
    }
    // Through a command, too: it is complete.
    t.keys("/stats\r");
    t.shows("Requests 2");
    for (key, text) in [(UP, "/stats"), (UP, "second"), (DOWN, "/stats"), (DOWN, "")] {
        t.keys(key);
        t.writes(text);
    }
    t.leave();
}

fn scrolling() {
    let long: String = (0..200).map(|n| format!("- row {n} of it\n")).collect();
    let mut t = open(&[json!(long)]);
    t.asks("list", "row 199 of it");
    let page_up = "\x1b[5~";
    let wheel_up = "\x1b[<64;10;10M";
    for (key, back) in [(page_up, "\x1b[6~"), (wheel_up, "\x1b[<65;10;10M")] {
        for _ in 0..3 {
            t.keys(key);
        }
        t.hides("row 199 of it");
        for _ in 0..3 {
            t.keys(back);
        }
        t.shows("row 199 of it");
    }
    t.keys("\x1b[1;5H");
    t.shows("row 0 of it");
    t.keys("\x1b[1;5F");
    t.shows("row 199 of it");
    t.leave();
}

fn alt_m() {
    let mut t = open(&[json!("Answer.")]);
    let mouse = |t: &Terminal| {
        t.seen.lock().unwrap().0.screen().mouse_protocol_mode() != vt100::MouseProtocolMode::None
    };
    assert!(mouse(&t));
    t.keys("\x1bm");
    t.shows("the mouse selects text");
    assert!(!mouse(&t));
    t.keys("\x1bm");
    t.shows("the wheel scrolls");
    assert!(mouse(&t));
    t.leave();
}

fn tab() {
    let mut t = open(&[json!("Answer.")]);
    t.keys("see @lst");
    t.shows("  @list.txt");
    t.keys("\t");
    t.until(|screen| written(screen) == "see @list.txt" && screen.matches("@list.txt").count() == 1);
    t.keys(CTRL_U);
    t.keys("/com");
    t.shows("  /compact");
    t.keys("\t");
    t.writes("/compact");
    t.leave();
}

fn words() {
    let mut t = open(&[json!("Answer.")]);
    t.keys("one two three");
    for (back, on) in [("\x1bb", "\x1bf"), ("\x1b[1;5D", "\x1b[1;5C")] {
        t.writes("one two three");
        t.keys(back);
        t.keys(back);
        t.keys("<");
        t.writes("one <two three");
        t.keys("\x7f");
        t.keys(on);
        t.keys(">");
        t.writes("one two> three");
        t.keys("\x7f");
        t.keys(CTRL_E);
    }
    t.leave();
}

fn ends() {
    let mut t = open(&[json!("Answer.")]);
    t.keys("mid");
    t.keys(CTRL_A);
    t.keys("<");
    t.keys(CTRL_E);
    t.keys(">");
    t.writes("<mid>");
    t.leave();
}

fn cuts() {
    let mut t = open(&[json!("Answer.")]);
    t.keys("one two");
    for (keys, text) in [
        (CTRL_W, "one"),
        (CTRL_Y, "one two"),
        (CTRL_U, ""),
        (CTRL_Y, "one two"),
        ("\x01\x0b", ""),
        (CTRL_Y, "one two"),
        ("\x1bb", "one two"),
        (CTRL_K, "one"),
    ] {
        t.keys(keys);
        t.writes(text);
    }
    t.leave();
}

fn undo_typing() {
    let mut t = open(&[json!("Answer.")]);
    t.keys("one two");
    t.writes("one two");
    t.keys(CTRL_W);
    t.writes("one");
    t.keys(CTRL_UNDERSCORE);
    t.writes("one two");
    t.leave();
}

fn starts() {
    let mut t = open(&[json!("Answer.")]);
    t.keys("?");
    t.shows("any other key goes back");
    t.keys("q");
    t.hides("any other key goes back");
    t.keys("@");
    t.shows("  @list.txt");
    t.keys(CTRL_U);
    t.keys("/");
    t.shows("  /help");
    t.keys(CTRL_U);
    t.keys("!echo $((6 * 7)) it is\r");
    t.shows("42 it is");
    t.leave();
}

/// A change of two hunks to look through, and a smaller one behind it.
fn review(columns: u16, editor: &str) -> Terminal {
    let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(files.path().join("list.txt"), numbers(&[])).unwrap();
    let turns = [
        json!(call("read_file", &[("file_path", "list.txt")])),
        write("list.txt", &numbers(&[3, 25])),
        json!("Well."),
        write("list.txt", &numbers(&[3, 9, 25])),
        json!("Again."),
    ];
    let mut command = Terminal::command(&files, &home, &turns, &[]);
    command.env("EDITOR", editor);
    let mut t = Terminal::spawn(files, home, command, columns, 40);
    t.shows("scripted");
    t.keys("change it\r");
    t.shows("hunk 1 of 2");
    // Keys right behind what was typed are meant for the composer.
    std::thread::sleep(Duration::from_millis(500));
    t
}

impl Terminal {
    /// Ends the review without a reason: what of it is in the file then.
    #[track_caller]
    fn lands(&mut self, list: &[usize]) {
        let screen = self.until(|screen| screen.contains("Why not?") || screen.contains("Well."));
        if screen.contains("Why not?") {
            self.keys(ENTER);
        }
        self.shows("Well.");
        assert_eq!(self.file("list.txt"), numbers(list));
    }
}

fn review_moves() {
    let mut t = review(100, "false");
    for (key, at) in [("j", 2), ("k", 1), (DOWN, 2), (UP, 1)] {
        t.keys(key);
        t.shows(&format!("▌── hunk {at} of 2"));
    }
    t.leave();
}

fn review_files() {
    let mut t = changed();
    t.keys("/diff\r");
    t.shows("▸ a.txt");
    t.keys("\t");
    t.shows("▸ b.txt");
    t.keys(BACK_TAB);
    t.shows("▸ a.txt");
    t.leave();
}

fn review_hunks() {
    let mut t = review(100, "false");
    t.keys("y");
    t.shows("✓ accepted");
    t.keys("n");
    t.shows("✗ rejected");
    t.lands(&[3]);
    t.leave();
}

fn review_whole_files() {
    for (key, landed) in [("Y", &[3, 25][..]), ("N", &[])] {
        let mut t = review(100, "false");
        t.keys(key);
        t.lands(landed);
        t.leave();
    }
}

fn review_all() {
    for (key, landed) in [("a", &[3, 25][..]), ("r", &[])] {
        let mut t = review(100, "false");
        t.keys(key);
        t.lands(landed);
        t.leave();
    }
    // What was decided before stays as it is.
    let mut t = review(100, "false");
    t.keys("y");
    t.shows("✓ accepted");
    t.keys("r");
    t.lands(&[3]);
    t.leave();
}

fn review_edit() {
    let mut t = review(100, "sed -i s/new/edited/");
    t.keys("e");
    t.shows("~ edited");
    t.keys("y");
    t.shows("Well.");
    assert_eq!(t.file("list.txt"), numbers(&[3, 25]).replace("new 3", "edited 3"));
    t.leave();
}

fn review_rules() {
    for (key, lasts) in [("S", "for this session"), ("A", "always")] {
        let mut t = review(100, "false");
        t.keys(key);
        t.shows(lasts);
        t.keys("y");
        t.lands(&[3, 25]);
        t.asks("again", "Again.");
        assert_eq!(t.file("list.txt"), numbers(&[3, 9, 25]), "and was not asked for");
        t.leave();
    }
}

fn review_undecided() {
    let mut t = review(100, "false");
    t.keys("y");
    t.shows("1 open");
    t.keys("k");
    t.shows("▌── hunk 1 of 2");
    t.keys("u");
    t.shows("2 open");
    t.hides("✓ accepted");
    t.leave();
}

fn review_layout() {
    let beside = |screen: &str| screen.lines().any(|line| line.contains("line 3") && line.contains("new 3"));
    for columns in [100, 140] {
        let mut t = review(columns, "false");
        let wide = columns > 110;
        t.until(|screen| beside(screen) == wide);
        t.keys("s");
        t.until(|screen| beside(screen) != wide && screen.contains("new 3"));
        t.keys("s");
        t.until(|screen| beside(screen) == wide);
        t.leave();
    }
}

fn review_back() {
    let mut t = review(100, "false");
    t.keys("q");
    t.shows("Why not?");
    // Not left after all: what was open is open again.
    t.keys(ESC);
    t.shows("2 open");
    t.keys("q");
    t.lands(&[]);
    t.leave();
}

fn slash_help() {
    let mut t = open(&[json!("Answer.")]);
    t.keys("/help\r");
    t.shows("any other key goes back");
    t.leave();
}

fn slash_model() {
    let mut t = open(&[json!("Answer."), json!("More.")]);
    t.keys("/model\r");
    t.shows("There is nothing to choose from.");
    let models = t.home.path().join(".cache/qwright/models");
    std::fs::create_dir_all(&models).unwrap();
    std::fs::write(models.join("own.gguf"), "GGUF").unwrap();
    t.asks("hello", "Answer.");
    t.keys("/model\r");
    t.shows("Go on with which model?");
    t.shows("own.gguf");
    t.keys(ENTER);
    // The script plays whatever is chosen; what was said is still there.
    let screen = t.shows("continued: 3 messages of 1 request");
    assert_eq!(screen.matches("> hello").count(), 1, "{screen}");
    t.keys("/rewind\r");
    t.shows("▸ hello");
    t.keys(ENTER);
    t.writes("hello");
    t.leave();
}

fn changed() -> Terminal {
    let mut t = open(&[write("a.txt", "a\n"), json!("First."), write("b.txt", "b\n"), json!("Second.")]);
    t.asks("make a", "First.");
    t.asks("make b", "Second.");
    t
}

fn slash_undo() {
    let mut t = changed();
    t.keys("/undo\r");
    t.shows("taken back: b.txt");
    assert!(t.path("a.txt").exists() && !t.path("b.txt").exists());
    t.leave();
}

fn slash_rewind() {
    let mut t = changed();
    t.keys("/rewind\r");
    t.shows("▸ make b");
    t.keys(UP);
    t.shows("▸ make a");
    t.keys(ENTER);
    t.shows("taken back:");
    t.until(|_| !t.path("a.txt").exists() && !t.path("b.txt").exists());
    t.leave();
}

fn slash_diff() {
    let mut t = changed();
    t.keys("/diff\r");
    t.shows("file 1 of 2");
    t.shows("▸ a.txt");
    t.keys("q");
    t.hides("file 1 of 2");
    t.leave();
}

fn slash_resume() {
    let (files, home) = changed().leave();
    let mut t = Terminal::at(files, home, &[json!("Third.")], 100, 30, &["-y"]);
    t.shows("yolo · scripted");
    t.keys("/resume\r");
    t.shows("▸ make a  2 requests");
    t.keys(ENTER);
    t.shows("continued: 9 messages of 2 requests");
    t.asks("and now", "Third.");
    t.leave();
}

fn slash_sessions() {
    let mut t = changed();
    t.keys("/sessions\r");
    t.shows("Resume which session?");
    t.shows("▸ make a  2 requests");
    t.leave();
}

fn slash_context_and_stats() {
    let mut t = open(&[json!("Answer.")]);
    t.asks("hello", "Answer.");
    t.keys("/context\r");
    t.shows("descriptions of the tools");
    t.keys("/stats\r");
    t.shows("Requests 1, model calls 1, tool calls 0");
    t.leave();
}

fn slash_init() {
    let mut t = open(&[write("AGENTS.md", "# Notes\n"), json!("Written.")]);
    t.keys("/init\r");
    // What steers an agent later is shown in every mode.
    t.shows("hunk 1 of 1");
    std::thread::sleep(Duration::from_millis(500));
    t.keys("y");
    t.shows("Written.");
    assert_eq!(t.file("AGENTS.md"), "# Notes\n");
    t.leave();
}

fn slash_memory() {
    let mut t = with_editor("printf 'Use tabs.\\n' >", &[json!("Answer.")], &[]);
    t.keys("/memory\r");
    t.until(|_| t.path("AGENTS.md").exists());
    t.until(|_| t.file("AGENTS.md") == "Use tabs.\n");
    t.leave();
}

fn slash_plan() {
    let mut t = open(&[json!("I would do nothing.")]);
    t.keys("/plan what would you do?\r");
    t.shows("plan · scripted");
    t.shows("I would do nothing.");
    t.leave();
}

fn slash_btw() {
    let mut t = open(&[json!("Answer."), json!("Beside it.")]);
    t.asks("hello", "Answer.");
    t.keys("/btw what is this?\r");
    t.shows("beside: what is this?");
    t.shows("Beside it.");
    t.hides("Esc interrupts");
    t.leave();
}

fn slash_theme() {
    let mut t = open(&[json!("So:\n\n```rust\nstatic S: u8 = 1;\n```\n")]);
    t.asks("show", "static S");
    assert_eq!(t.colours("static S").0, vt100::Color::Idx(13));
    t.keys("/theme\r");
    t.shows("Which theme?");
    t.keys("light");
    t.keys(ENTER);
    t.until(|_| t.colours("static S").0 == vt100::Color::Idx(90));
    t.keys("/theme none\r");
    t.until(|_| t.colours("static S").0 == vt100::Color::Default);
    t.leave();
}

fn slash_vim() {
    let mut t = open(&[json!("Answer.")]);
    t.keys("/vim\r");
    t.shows("vi keys are on");
    t.keys("one two");
    t.writes("one two");
    t.keys(ESC);
    settled(&t);
    t.keys("0dw");
    t.writes("two");
    t.keys("ccthree");
    t.writes("three");
    t.keys(CTRL_U);
    t.keys("/vim\r");
    t.shows("vi keys are off");
    t.leave();
}

fn slash_clear() {
    let mut t = open(&[json!("Answer."), json!("More.")]);
    t.asks("hello", "Answer.");
    t.keys("/clear\r");
    t.shows("A new conversation");
    t.hides("Answer.");
    t.asks("again", "More.");
    t.keys("/resume\r");
    t.shows("hello  1 request");
    t.shows("again  1 request");
    t.leave();
}

fn slash_copy() {
    let mut t = open(&[json!("Answer.")]);
    t.asks("hello", "Answer.");
    t.keys("/copy\r");
    t.shows("the last answer is in the clipboard");
    // OSC 52 with the text in base64.
    t.until(|_| String::from_utf8_lossy(&t.raw()).contains("\x1b]52;c;QW5zd2VyLg=="));
    t.leave();
}

fn slash_quit() {
    let mut t = open(&[json!("Answer.")]);
    t.asks("hello", "Answer.");
    t.keys("/quit\r");
    t.ends();
}
