//! `qwright tools` and `qwright sandbox check` as a user runs them.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

fn qwright(directory: &Path, arguments: &[&str]) -> (i32, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_qwright"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", directory)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (done.status.code().unwrap(), String::from_utf8(done.stdout).unwrap())
}

#[test]
fn a_tool_runs_by_the_rules_of_a_session() {
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("a.txt"), "one\n").unwrap();
    let run = |mode: &str, name: &str, arguments: &str| {
        let flags = ["tools", "run", "--sandbox", "none", "--approval-mode", mode, name, arguments];
        let (code, out) = qwright(files.path(), &flags);
        let answer: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
        let error = answer["error"]["code"].as_str().unwrap_or("").to_string();
        (code, answer["decision"].as_str().unwrap().to_string(), answer["ok"].as_bool().unwrap(), error)
    };
    let is = |code: i32, decision: &str, ok: bool, error: &str| {
        (code, decision.to_string(), ok, error.to_string())
    };
    let edit = r#"{"file_path": "a.txt", "old_string": "one", "new_string": "two"}"#;
    assert_eq!(run("plan", "read_file", r#"{"file_path": "a.txt"}"#), is(0, "allow", true, ""));
    assert_eq!(run("plan", "edit", edit), is(3, "deny", false, "denied"));
    assert_eq!(run("default", "edit", edit), is(3, "ask", false, "needs_approval"));
    assert_eq!(std::fs::read_to_string(files.path().join("a.txt")).unwrap(), "one\n");
    assert_eq!(run("auto-edit", "edit", edit), is(0, "allow", true, ""));
    assert_eq!(std::fs::read_to_string(files.path().join("a.txt")).unwrap(), "two\n");
    assert_eq!(run("auto-edit", "edit", edit), is(1, "allow", false, "tool_failed"));
    assert_eq!(run("yolo", "read_file", r#"{"file_path": "../x"}"#), is(1, "allow", false, "tool_failed"));
    assert_eq!(run("yolo", "read_file", "{}"), is(2, "deny", false, "invalid_arguments"));
    let shell = "run_shell_command";
    assert_eq!(run("plan", shell, r#"{"command": "cat a.txt"}"#), is(0, "allow", true, ""));
    assert_eq!(run("plan", shell, r#"{"command": "touch b"}"#), is(3, "deny", false, "denied"));
    assert_eq!(run("default", shell, r#"{"command": "touch b"}"#), is(3, "ask", false, "needs_approval"));
    assert_eq!(run("yolo", shell, r#"{"command": "sudo -n true"}"#), is(3, "deny", false, "denied"));
    assert!(!files.path().join("b").exists());
    assert_eq!(run("yolo", shell, r#"{"command": "touch b; false"}"#), is(1, "allow", false, ""));
    assert!(files.path().join("b").exists());
}

#[test]
fn rules_stand_over_the_table() {
    let files = tempfile::tempdir().unwrap();
    let run = |flags: &[&str], command: &str| {
        let arguments = format!("{{\"command\": \"{command}\"}}");
        let all =
            [&["tools", "run", "--sandbox", "none"][..], flags, &["run_shell_command", &arguments]].concat();
        let (code, out) = qwright(files.path(), &all);
        let answer: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
        (code, answer["error"]["message"].as_str().unwrap_or_default().to_string())
    };
    let asks = ["--approval-mode", "default", "--allow", "run_shell_command(touch a)"];
    assert_eq!(run(&asks, "touch a b").0, 0);
    assert_eq!(run(&asks, "touch c").0, 3);
    assert_eq!(run(&asks, "touch a; touch c").0, 3);
    let (code, message) = run(&["--approval-mode", "yolo", "--deny", "run_shell_command(touch)"], "touch c");
    assert!(code == 3 && message.contains("`deny run_shell_command(touch)`"), "{message}");
    assert!(files.path().join("b").exists() && !files.path().join("c").exists());
}

#[test]
fn the_tools_can_be_listed_and_shown() {
    let files = tempfile::tempdir().unwrap();
    let (code, out) = qwright(files.path(), &["tools", "list"]);
    assert!(code == 0 && out.lines().any(|line| line.starts_with("read_file ")), "{out}");
    let (code, out) = qwright(files.path(), &["tools", "show", "edit"]);
    let spec: Value = serde_json::from_str(&out).unwrap();
    assert!(code == 0 && spec["name"] == "edit", "{out}");
    assert_eq!(qwright(files.path(), &["tools", "show", "nothing"]).0, 2);
    assert_eq!(qwright(files.path(), &["tools", "run", "edit", "[1]"]).0, 2);
}

#[test]
fn a_command_is_judged_and_not_run() {
    let files = tempfile::tempdir().unwrap();
    for (line, expected) in
        [("ls -la", "read_only"), ("touch made", "needs_approval"), ("rm -rf /", "forbidden")]
    {
        let (code, out) = qwright(files.path(), &["sandbox", "check", "--json", "--", line]);
        let answer: Value = serde_json::from_str(&out).unwrap();
        assert!(code == 0 && answer["verdict"] == expected && answer["reason"].is_string(), "{line}: {out}");
    }
    assert!(!files.path().join("made").exists());
}
