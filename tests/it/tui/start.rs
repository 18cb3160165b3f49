//! How the interface is started: without a model, in a repository with settings of its own, with a session to choose.

use super::*;
use crate::exec::{Project, assert_code, err, object};

#[test]
fn a_first_start_says_what_this_machine_can_run() {
    let t = Terminal::open(&[], 80, 24, &[], &[]);
    let screen = t.shows("This machine can run");
    assert!(screen.contains("qwen2.5-coder-1.5b") && screen.contains("recommended"), "{screen}");
    settled(&t);
    // What fits, and in which order, is the machine's.
    let row = fancy_regex::Regex::new(r"\bqwen\S*:\S").unwrap();
    let masked = |line: &str| match line {
        line if row.is_match(line).unwrap() => "  MODEL".to_string(),
        // Where it is cut off depends on its numbers.
        line if line.contains(" of memory free, ") && line.ends_with('…') => "MACHINE".to_string(),
        line if line.contains(" of memory free, ") => {
            fancy_regex::Regex::new(r"\d[\d.]*").unwrap().replace_all(line, "N").into_owned()
        }
        line => line.replace(env!("CARGO_PKG_VERSION"), "VERSION"),
    };
    let shown = || {
        let mut lines: Vec<String> = t.plain().lines().map(masked).collect();
        lines.dedup();
        lines.join("\n")
    };
    insta::assert_snapshot!("first_start", shown());
    for (columns, rows) in [(120, 40), (60, 20)] {
        t.resize(columns, rows);
        t.shows("This machine can run");
        settled(&t);
        insta::assert_snapshot!(format!("first_start_{columns}x{rows}"), shown());
    }
    let mut t = t;
    t.keys(ESC);
    t.until(|screen| !screen.contains("This machine can run"));
    t.keys(CTRL_D);
    t.child.0.wait().unwrap();
}

/// A repository that brings settings and commands of its own.
fn with_settings(files: &std::path::Path) {
    std::fs::create_dir_all(files.join(".git")).unwrap();
    std::fs::create_dir_all(files.join(".qwright/commands")).unwrap();
    std::fs::write(files.join(".qwright/config.toml"), "approval_mode = \"plan\"\n").unwrap();
    std::fs::write(files.join(".qwright/commands/greet.md"), "Say hello to $ARGUMENTS.\n").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", files.join(".qwright/commands/link.md")).unwrap();
}

#[test]
fn the_settings_and_commands_of_a_repository_are_read_once_it_is_trusted() {
    let turns = [json!("Hello, Ada.")];
    let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    with_settings(files.path());
    let mut t = Terminal::at(files, home, &turns, 100, 30, &[]);
    t.shows("config.toml is not read: this repository is not trusted");
    t.shows("default · scripted");
    t.keys("/greet Ada\r");
    t.shows("there is no command /greet");
    let (files, home) = t.leave();
    let mut t = Terminal::at(files, home, &turns, 100, 30, &["--trust"]);
    t.shows("plan · scripted");
    assert!(!t.screen().contains("not trusted"));
    t.keys("/greet Ada\r");
    t.shows("> Say hello to Ada.");
    t.shows("Hello, Ada.");
    t.keys("/link\r");
    t.shows("there is no command /link");
    let (files, home) = t.leave();
    // It is remembered.
    let t = Terminal::at(files, home, &turns, 100, 30, &[]);
    t.shows("plan · scripted");
    t.leave();
}

#[test]
fn without_a_screen_it_is_trusted_only_where_that_is_said() {
    let project = Project::new();
    with_settings(project.files.path());
    let state = project.home.path().join(".local/state/qwright");
    std::fs::create_dir_all(&state).unwrap();
    let root = project.files.path().canonicalize().unwrap();
    std::fs::write(state.join("trusted"), format!("{}\n", root.display())).unwrap();
    let turns = crate::exec::fix();
    let output = project.run(&turns, &["Fix it"]);
    assert_code(&output, 0);
    assert!(
        err(&output).contains("config.toml is not read: this repository is not trusted"),
        "{}",
        err(&output)
    );
    let output = project.run(&turns, &["--trust", "-o", "json", "Fix it"]);
    let denials = object(&output)["denials"].to_string();
    assert!(denials.contains("plan mode"), "{denials}");
}

#[test]
fn a_session_is_chosen_from_a_list() {
    let turns = [json!("First answer.")];
    let mut t = Terminal::open(&turns, 80, 24, &[], &[("list.txt", "x\n")]);
    t.shows("scripted");
    t.keys("remember 42\r");
    t.shows("tokens written");
    let (files, home) = t.leave();
    let mut t = Terminal::at(files, home, &turns, 80, 24, &["-r"]);
    t.shows("Resume which session?");
    t.shows("remember 42");
    t.keys(ENTER);
    t.shows("First answer.");
    t.leave();
}
