//! `qwright exec` as a user runs it: the binary, with scripted turns, in temporary projects.

use crate::agent::call;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

pub struct Project {
    pub files: tempfile::TempDir,
    pub home: tempfile::TempDir,
}

impl Project {
    pub fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("greet.sh"), "echo helo\n").unwrap();
        Self { files, home: tempfile::tempdir().unwrap() }
    }

    fn script(&self, turns: &[Value]) -> PathBuf {
        let path = self.home.path().join("script.json");
        std::fs::write(&path, Value::from(turns.to_vec()).to_string()).unwrap();
        path
    }

    /// `qwright exec` with these turns and arguments; the scripts are ours, so they need no sandbox.
    pub fn command(&self, turns: &[Value], arguments: &[&str]) -> Command {
        self.command_of(&self.script(turns), arguments)
    }

    /// The same with a script that is there.
    pub fn command_of(&self, script: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qwright"));
        command
            .arg("exec")
            .args(["--sandbox", "none", "--scripted"])
            .arg(script)
            .args(arguments)
            .current_dir(self.files.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn run(&self, turns: &[Value], arguments: &[&str]) -> Output {
        self.command(turns, arguments).output().unwrap()
    }

    pub fn with_input(&self, turns: &[Value], arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(turns, arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }
}

pub fn fix() -> Vec<Value> {
    vec![
        json!(call("edit", &[("file_path", "greet.sh"), ("old_string", "helo"), ("new_string", "hello")])),
        json!(call("run_shell_command", &[("command", "sh greet.sh")])),
        json!("It says hello now."),
    ]
}

pub fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub fn object(output: &Output) -> Value {
    let text = out(output);
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[track_caller]
pub fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}\n{}", out(output), err(output));
}

#[test]
fn text_the_answer_on_stdout_and_the_rest_on_stderr() {
    let project = Project::new();
    let output = project.run(&fix(), &["Fix the greeting"]);
    assert_code(&output, 0);
    assert_eq!(out(&output), "It says hello now.\n");
    let err = err(&output);
    for part in [
        "-> edit greet.sh",
        "-echo helo",
        "+echo hello",
        "-> run sh greet.sh",
        "exit code 0",
        "sandbox: none",
    ] {
        assert!(err.contains(part), "{part} is not in {err}");
    }
    assert_eq!(std::fs::read_to_string(project.files.path().join("greet.sh")).unwrap(), "echo hello\n");
}

#[test]
fn quiet_says_only_the_answer_and_that_nothing_protected() {
    let output = Project::new().run(&fix(), &["-q", "Fix the greeting"]);
    assert_code(&output, 0);
    assert_eq!((out(&output).as_str(), err(&output).as_str()), ("It says hello now.\n", "sandbox: none\n"));
}

#[test]
fn json_is_one_object() {
    let output = Project::new().run(&fix(), &["-o", "json", "Fix the greeting"]);
    assert_code(&output, 0);
    let object = object(&output);
    for (key, value) in [
        ("type", json!("result")),
        ("subtype", json!("success")),
        ("is_error", json!(false)),
        ("result", json!("It says hello now.")),
        ("model", json!("scripted")),
        ("num_turns", json!(3)),
        ("num_tool_calls", json!(2)),
        ("sandbox", json!("none")),
        ("denials", json!([])),
        ("error", Value::Null),
    ] {
        assert_eq!(object[key], value, "{key}");
    }
    assert!(object["diff"].as_str().unwrap().contains("+echo hello"));
    assert!(object["usage"]["prompt"].as_u64().unwrap() > object["usage"]["cached"].as_u64().unwrap());
    assert_eq!(object["usage"]["repeated"], 0);
    assert!(object["duration_ms"].is_u64() && !object["session_id"].as_str().unwrap().is_empty());
}

#[test]
fn every_ending_has_its_exit_code() {
    let read = || json!(call("read_file", &[("file_path", "greet.sh")]));
    let long = "x".repeat(40_000);
    let cases: Vec<(Vec<Value>, Vec<&str>, i32, &str)> = vec![
        (vec![json!("Hi.")], vec!["Hi"], 0, "success"),
        ((0..6).map(|_| read()).collect(), vec!["Read"], 1, "error_stuck"),
        (vec![], vec!["--approval-mode", "nonsense", "Hi"], 2, "error_usage"),
        (vec![], vec!["--temperature", "9", "Hi"], 2, "error_usage"),
        (vec![], vec!["-C", "no/such/directory", "Hi"], 2, "error_usage"),
        (vec![], vec![""], 2, "error_usage"),
        (
            fix()[..1].iter().cloned().chain([json!("No.")]).collect(),
            vec!["--approval-mode", "plan", "Fix"],
            3,
            "error_denied",
        ),
        (vec![read()], vec!["--max-turns", "1", "Read"], 5, "error_max_turns"),
        (vec![read()], vec!["--max-tool-calls", "0", "Read"], 5, "error_max_tool_calls"),
        (vec![read()], vec!["--max-tokens", "3", "Read"], 5, "error_max_tokens"),
        (vec![json!({"hang": true})], vec!["--max-wall-time", "1", "Read"], 5, "error_max_wall_time"),
        (vec![json!({"model": {"context": 4096}}), json!("Hi.")], vec![&long], 5, "error_context"),
        (vec![json!({"error": "gone"})], vec!["Hi"], 6, "error_model"),
        (vec![json!({"no such key": 1})], vec!["Hi"], 6, "error_model"),
    ];
    for (turns, arguments, code, subtype) in cases {
        let project = Project::new();
        let arguments: Vec<&str> = ["-o", "json"].into_iter().chain(arguments).collect();
        // The flag of the case replaces the default one.
        let mut command = project.command(&turns, &[]);
        if arguments.contains(&"--sandbox") {
            command = Command::new(env!("CARGO_BIN_EXE_qwright"));
            command.arg("exec").arg("--scripted").arg(project.script(&turns));
            command.current_dir(project.files.path()).env("HOME", project.home.path()).stdin(Stdio::null());
        }
        let output = command.args(&arguments).output().unwrap();
        assert_code(&output, code);
        let object = object(&output);
        assert_eq!(
            (object["subtype"].as_str(), object["is_error"].as_bool()),
            (Some(subtype), Some(code != 0))
        );
        if code != 0 {
            assert!(!object["error"].as_str().unwrap().is_empty());
        }
    }
}

#[test]
fn clap_errors_and_a_missing_script_end_as_documented() {
    let project = Project::new();
    assert_code(&project.run(&[], &["--no-such-flag"]), 2);
    let mut command = project.command(&[], &["Hi"]);
    std::fs::remove_file(project.home.path().join("script.json")).unwrap();
    assert_code(&command.output().unwrap(), 6);
}

#[test]
fn the_request_may_come_from_standard_input() {
    let project = Project::new();
    for arguments in [&["-"][..], &[][..]] {
        let output = project.with_input(&[json!("Hi.")], arguments, "Grüße\nzwei\n".as_bytes());
        assert_code(&output, 0);
        let log = newest_log(&project);
        assert!(log.contains("Request: Grüße\\nzwei"), "{log}");
    }
    assert_code(&project.with_input(&[], &["-"], b"\xff\0"), 2);
    assert_code(&project.with_input(&[], &[], b"  \n"), 2);
}

/// Empty where there is none yet.
pub fn newest_log(project: &Project) -> String {
    let sessions = project.home.path().join(".local/state/qwright/sessions");
    let entries = std::fs::read_dir(sessions).into_iter().flatten();
    let mut logs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    logs.sort();
    logs.last().map(|log| std::fs::read_to_string(log).unwrap()).unwrap_or_default()
}

#[test]
fn an_open_pipe_holds_up_no_request_that_came_as_an_argument() {
    let project = Project::new();
    let mut child = project.command(&[json!("Hi.")], &["Hi"]).stdin(Stdio::piped()).spawn().unwrap();
    let open = child.stdin.take();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(open);
}

#[test]
fn ctrl_c_stops_cleanly() {
    let project = Project::new();
    let slow = json!(call("run_shell_command", &[("command", "echo begun; sleep 60")]));
    for (turns, mark) in [(vec![json!({"hang": true})], ""), (vec![slow], "begun")] {
        let mut child = project.command(&turns, &["Wait"]).spawn().unwrap();
        // Wait until it is at work: the first line on stderr names the sandbox.
        let mut stderr = child.stderr.take().unwrap();
        let mut seen = String::new();
        let mut bytes = [0; 1024];
        while !(seen.contains("sandbox") && seen.contains(mark)) {
            let count = stderr.read(&mut bytes).unwrap();
            assert!(count > 0, "it ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        std::thread::sleep(Duration::from_millis(100));
        let asked = Instant::now();
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        // Not a measure of speed: the command would have slept a minute.
        assert!(asked.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn nothing_from_model_files_or_commands_reaches_the_terminal_raw() {
    let project = Project::new();
    let evil = "\u{1b}]0;title\u{7}\u{202e}\u{200b}\u{e0041}";
    std::fs::write(project.files.path().join("evil.txt"), format!("one {evil}\n")).unwrap();
    let turns = || {
        vec![
            json!(call(
                "edit",
                &[("file_path", "evil.txt"), ("old_string", "one"), ("new_string", &format!("two {evil}"))]
            )),
            json!(call("run_shell_command", &[("command", &format!("cat evil.txt # {evil}"))])),
            json!(format!("Answer {evil}")),
        ]
    };
    for format in ["text", "json"] {
        let output = project.run(&turns(), &["-o", format, "Go"]);
        for (name, text) in [("stdout", out(&output)), ("stderr", err(&output))] {
            let raw: Vec<char> =
                text.chars().filter(|c| qwright::chat::escape::is_unsafe_for_terminal(*c)).collect();
            assert!(raw.is_empty(), "{format} {name}: {raw:?}");
        }
    }
    let output = project.run(&[json!(format!("Answer {evil}"))], &["-o", "json", "Go"]);
    assert_eq!(object(&output)["result"], format!("Answer {evil}"), "JSON keeps the value");
}

#[test]
fn a_closed_pipe_is_no_error_and_a_full_disk_is() {
    let project = Project::new();
    let mut child = project.command(&[json!("Hi.")], &["Hi"]).spawn().unwrap();
    drop(child.stdout.take());
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = project.command(&[json!("Hi.")], &["Hi"]).stdout(full).output().unwrap();
    assert_code(&output, 1);
    assert!(err(&output).contains("could not be written"), "{}", err(&output));
}

#[test]
fn a_home_that_cannot_be_written_costs_only_the_log() {
    let project = Project::new();
    let output =
        project.command(&[json!("Hi.")], &["Hi"]).env("XDG_STATE_HOME", "/proc/self").output().unwrap();
    assert_code(&output, 0);
    assert!(err(&output).contains("this session is not logged"), "{}", err(&output));
}

#[test]
fn the_session_log_is_for_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let project = Project::new();
    assert_code(&project.run(&[json!("Hi.")], &["Hi"]), 0);
    let sessions = project.home.path().join(".local/state/qwright/sessions");
    assert_eq!(std::fs::metadata(&sessions).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_session_goes_on_in_another_run() {
    let project = Project::new();
    let first = project.run(&[json!("Hi.")], &["-o", "json", "--approval-mode", "plan", "Hello"]);
    assert_code(&first, 0);
    let id = object(&first)["session_id"].as_str().unwrap().to_string();
    let again = project.run(&[json!("Still here.")], &["-c", "And now?"]);
    assert_code(&again, 0);
    assert!(err(&again).contains("continued: 3 messages of 1 requests"), "{}", err(&again));
    assert!(err(&again).contains(&format!("session {id}")), "{}", err(&again));
    let fork = project.run(&fix(), &["-o", "json", "-r", &id[..id.len() - 2], "--fork", "Fix it"]);
    // The fork is in plan mode, as the session was left.
    assert_code(&fork, 3);
    assert_eq!(object(&fork)["denials"].as_array().unwrap().len(), 2);
    assert_ne!(object(&fork)["session_id"], id.as_str());
    let named = project.run(&fix(), &["-o", "json", "-r", &id, "-y", "Fix it"]);
    assert_code(&named, 0);
    assert_eq!((&object(&named)["denials"], &object(&named)["session_id"]), (&json!([]), &json!(id)));
    assert_eq!(std::fs::read_to_string(project.files.path().join("greet.sh")).unwrap(), "echo hello\n");
}

#[test]
fn what_cannot_go_on_says_what_can() {
    let project = Project::new();
    for (arguments, message, hint) in [
        (vec!["-c", "Hi"], "there is no session to continue in", "start one"),
        (vec!["-r", "nope", "Hi"], "there is no session `nope`", "no session was logged yet"),
        (vec!["--fork", "Hi"], "--fork needs a session", "-r ID"),
    ] {
        let output = project.run(&[], &arguments);
        assert_code(&output, 2);
        assert!(err(&output).contains(message) && err(&output).contains(hint), "{}", err(&output));
    }
    assert_code(&project.run(&[json!("Hi.")], &["Hi"]), 0);
    let output = project.run(&[], &["-o", "json", "-r", "nope", "Hi"]);
    assert_code(&output, 2);
    assert!(object(&output)["hint"].as_str().unwrap().starts_with("the known ones are 2"));
    assert_code(&project.run(&[], &["-c", "-r", "x", "Hi"]), 2);
    assert_code(&project.run(&[], &["-c", "--system-prompt", "x", "Hi"]), 2);
}

#[test]
fn two_processes_never_lead_one_session() {
    let project = Project::new();
    let mut child = project.command(&[json!({"hang": true})], &["Wait"]).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let mut seen = String::new();
    let mut bytes = [0; 1024];
    while !(seen.contains("sandbox") && newest_log(&project).contains("Request: Wait")) {
        if !seen.contains("sandbox") {
            let count = stderr.read(&mut bytes).unwrap();
            assert!(count > 0, "it ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }
    let second = project.run(&[json!("Hi.")], &["-c", "And I?"]);
    assert_code(&second, 2);
    assert!(err(&second).contains("at work in another process"), "{}", err(&second));
    assert!(err(&second).contains("--fork"));
    child.kill().unwrap();
    child.wait().unwrap();
    // Killed in the middle of a turn: the next run goes on.
    let third = project.run(&[json!("Here.")], &["-c", "And now?"]);
    assert_code(&third, 0);
    assert_eq!(out(&third), "Here.\n");
}

#[test]
fn a_request_that_can_never_fit_is_refused_with_the_numbers() {
    let project = Project::new();
    let long = "x".repeat(40_000);
    let output = project.run(&[json!({"model": {"context": 4096}}), json!("Hi.")], &[&long]);
    assert_code(&output, 5);
    let err = err(&output);
    assert!(err.contains("the context holds 4096") && err.contains("--ctx 16384"), "{err}");
}

/// Inside the reduced tier nobody gets namespaces, so the full one cannot be had there.
#[test]
fn without_a_sandbox_it_ends_before_the_model_is_loaded() {
    use qwright::workspace::shell::{SandboxChoice, Shell, ShellCommand, ShellSettings};
    let project = Project::new();
    let binary = env!("CARGO_BIN_EXE_qwright");
    let settings = ShellSettings {
        choice: SandboxChoice::Reduced,
        helper: Some(binary.into()),
        ..ShellSettings::default()
    };
    let shell = Shell::with(settings);
    assert!(shell.unavailable().is_none(), "{}", shell.status_line());
    std::fs::write(project.files.path().join("script.json"), json!([{"no such key": 1}]).to_string())
        .unwrap();
    // In the workspace it can be run wherever the checkout lies.
    std::fs::copy(binary, project.files.path().join("qwright")).unwrap();
    let line =
        "./qwright exec -o json --sandbox full --scripted script.json Hi; echo \"code $?\"".to_string();
    let command = ShellCommand { command: line, ..ShellCommand::default() };
    let never = std::sync::atomic::AtomicBool::new(false);
    let outcome = shell.run(project.files.path(), &command, &never, &mut |_| {}).unwrap();
    assert!(
        outcome.output.contains("\"error_sandbox\"") && outcome.output.ends_with("code 4\n"),
        "{}",
        outcome.output
    );
}

#[test]
fn an_answer_has_the_form_of_the_schema_that_was_given() {
    let project = Project::new();
    let schema = project.home.path().join("schema.json");
    let form = json!({
        "type": "object",
        "properties": {"fixed": {"type": "boolean"}, "files": {"type": "array", "items": {"type": "string"}}},
        "required": ["fixed"]
    });
    std::fs::write(&schema, form.to_string()).unwrap();
    let schema = schema.to_str().unwrap();
    let run = |turns: &[Value], arguments: &[&str]| {
        let output = project.run(turns, &[&["--json-schema", schema], arguments].concat());
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    // Words first, then a call that does not fit, then one that does.
    let wrong = json!(call("answer", &[("fixed", "perhaps")]));
    let right = json!(call("answer", &[("fixed", "true"), ("files", "[\"a\"]")]));
    let turns = [json!("It is fixed."), wrong, right];
    let (code, out, error) = run(&turns, &["-o", "json", "Is it fixed?"]);
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(object["structured_output"], json!({"fixed": true, "files": ["a"]}));
    assert_eq!(object["result"], json!({"fixed": true, "files": ["a"]}).to_string());
    let (code, out, _) = run(&turns, &["Is it fixed?"]);
    assert_eq!((code, out.trim()), (Some(0), "{\"fixed\":true,\"files\":[\"a\"]}"));
    // A model that keeps to words has failed.
    let (code, out, error) = run(&vec![json!("Yes."); 6], &["-o", "json", "Is it fixed?"]);
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &object["structured_output"]), (Some(1), &Value::Null), "{error}");
    assert!(object["error"].as_str().unwrap().contains("--json-schema"), "{out}");
    // A schema that cannot be held to is refused before anything runs.
    std::fs::write(schema, json!({"type": "string", "pattern": "^a"}).to_string()).unwrap();
    let (code, _, error) = run(&turns, &["Is it fixed?"]);
    assert!(code == Some(2) && error.contains("`pattern`"), "{error}");
}

#[test]
fn a_log_says_what_happened_and_no_texts() {
    let project = Project::new();
    let log = project.home.path().join("log");
    let output = project.run(&fix(), &["--log", log.to_str().unwrap(), "-v", "make it say hello"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let text = std::fs::read_to_string(&log).unwrap();
    for part in [
        "session began",
        "call ended",
        "name=edit ok=true",
        "command ran",
        "sh greet.sh",
        "turn ended",
        "ended code=0",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("helo") && !text.contains("make it say"), "{text}");
    assert!(err(&output).contains("turn ended") && !err(&output).contains("command ran"), "{}", err(&output));
    // Once more: it grows.
    project.run(&fix(), &["--log", log.to_str().unwrap(), "again"]);
    assert!(std::fs::read_to_string(&log).unwrap().starts_with(&text));
    let output = project.run(&fix(), &["--log", "no/such/place", "x"]);
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
    assert!(err(&output).contains("--log no/such/place"), "{}", err(&output));
}

#[test]
fn the_time_of_a_run_ends_while_a_server_is_asked_what_it_has() {
    let project = Project::new();
    // It takes the connection and never answers.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", server.local_addr().unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_qwright"))
        .args([
            "exec",
            "--sandbox",
            "none",
            "--endpoint",
            &endpoint,
            "--max-wall-time",
            "1s",
            "-o",
            "json",
            "x",
        ])
        .current_dir(project.files.path())
        .env_clear()
        .env("HOME", project.home.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_code(&output, 5);
    assert_eq!(object(&output)["subtype"], "error_max_wall_time");
}

#[test]
fn the_users_settings_are_written_by_no_tool_and_no_command() {
    let project = Project::new();
    let home = project.home.path().canonicalize().unwrap();
    let settings = home.join(".config/qwright/config.toml");
    std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
    std::fs::write(&settings, "max_turns = 9\n").unwrap();
    let turns = [
        json!(call(
            "write_file",
            &[("file_path", "qwright/config.toml"), ("content", "sandbox = \"none\"\n")]
        )),
        json!("Done."),
    ];
    let above = home.join(".config");
    let output = project.run(&turns, &["-y", "-o", "stream-json", "-C", above.to_str().unwrap(), "x"]);
    assert!(out(&output).contains("where this program keeps its own records"), "{}", out(&output));
    assert_eq!(std::fs::read_to_string(&settings).unwrap(), "max_turns = 9\n");
}
