//! `qwright sessions` and `qwright completions` as a user runs them: logs of scripted sessions, and of a tiny model that a
//! replay runs again.

use crate::agent::call;
use crate::oracle::manifest;
use crate::real_model::model_path;
use qwright::agent::transcript::{Record, Transcript, recover};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

struct Project {
    files: tempfile::TempDir,
    home: tempfile::TempDir,
}

impl Project {
    fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("greet.sh"), "echo helo\nexit 0\n").unwrap();
        Self { files, home: tempfile::tempdir().unwrap() }
    }

    fn run_in(&self, directory: &Path, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_qwright"))
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.run_in(self.files.path(), arguments)
    }

    /// The output of a command that ends with this code.
    fn out(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
        assert!(!out.contains('\u{1b}') && !err.contains('\u{1b}'), "{out}\n{err}");
        if code == 2 { err } else { out }
    }

    /// A session with these turns of a script.
    fn scripted(&self, turns: &[Value], arguments: &[&str]) {
        let script = self.home.path().join("script.json");
        std::fs::write(&script, Value::from(turns.to_vec()).to_string()).unwrap();
        let exec = ["exec", "--sandbox", "none", "--scripted", script.to_str().unwrap()];
        self.run(&[&exec, arguments].concat());
    }

    fn state(&self) -> PathBuf {
        self.home.path().join(".local/state/qwright")
    }

    fn logs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.state().join("sessions")).unwrap();
        let mut logs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        logs.sort();
        logs
    }

    fn id(&self) -> String {
        self.logs()[0].file_stem().unwrap().to_str().unwrap().to_string()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn fix() -> Vec<Value> {
    vec![
        json!(call("edit", &[("file_path", "greet.sh"), ("old_string", "helo"), ("new_string", "hello")])),
        json!(call("run_shell_command", &[("command", "sh greet.sh")])),
        json!("It says \u{1b}[31mhello\u{1b}[0m now."),
    ]
}

#[test]
fn a_session_is_listed_shown_and_exported() {
    let project = Project::new();
    assert!(project.run(&["sessions"]).stdout.is_empty());
    project.scripted(&fix(), &["--system-prompt", "s", "-y", "Fix the \u{1b}]0;greeting\u{7}\nof greet.sh"]);
    let id = project.id();
    let list = project.out(0, &["sessions", "list"]);
    assert!(list.starts_with(&id) && list.contains("Fix the \\u{1b}]0;greeting"), "{list}");
    assert!(list.contains("(1 turn, 1 file changed)"), "{list}");
    let rows: Value = serde_json::from_str(&project.out(0, &["sessions", "list", "--json"])).unwrap();
    assert_eq!((&rows[0]["id"], &rows[0]["turns"]), (&json!(id), &json!(1)));
    assert_eq!((&rows[0]["files"], &rows[0]["running"]), (&json!(["greet.sh"]), &json!(false)));
    let show = project.out(0, &["sessions", "show", "latest"]);
    for part in [
        "> Fix the \\u{1b}]0;greeting\\u{7}\n> of greet.sh\n",
        "* edit greet.sh: ",
        "* run sh greet.sh",
        "It says \\u{1b}[31mhello\\u{1b}[0m now.\n",
        "- changed: greet.sh\n",
    ] {
        assert!(show.contains(part), "{part} is not in {show}");
    }
    assert_eq!(show.lines().filter(|line| line.starts_with("* ")).count(), 2, "{show}");
    let markdown = project.out(0, &["sessions", "export", &id[..12]]);
    assert!(
        markdown.contains("## Request\n\n> Fix the") && markdown.contains("```diff\ndiff --git"),
        "{markdown}"
    );
    let file = project.home.path().join("out.json");
    project.out(0, &["sessions", "export", &id, "--format", "json", "-o", file.to_str().unwrap()]);
    let exported: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!((&exported["id"], &exported["records"][0]["type"]), (&json!(id), &json!("started")));
    assert!(exported["records"].to_string().contains("\\u001b[31mhello"));
    // Elsewhere it is one of all, and shown by its id.
    let elsewhere = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| project.run_in(elsewhere.path(), arguments);
    assert!(run(&["sessions", "list"]).stdout.is_empty());
    let place = project.files.path().canonicalize().unwrap();
    assert!(text(&run(&["sessions", "list", "--all"]).stdout).contains(place.to_str().unwrap()));
    assert_eq!(run(&["sessions", "show", &id]).status.code(), Some(0));
    assert_eq!(run(&["sessions", "show", "latest"]).status.code(), Some(2));
}

#[test]
fn what_is_not_there_says_what_is() {
    let project = Project::new();
    assert!(project.out(2, &["sessions", "show", "x"]).contains("no session was logged yet"));
    for _ in 0..2 {
        project.scripted(&[json!("Hello.")], &["Hi"]);
    }
    let (id, both) = (project.id(), project.logs().len());
    assert_eq!(both, 2);
    let unknown = project.out(2, &["sessions", "export", "nope"]);
    assert!(unknown.contains("there is no session `nope`") && unknown.contains(&id), "{unknown}");
    let several = project.out(2, &["sessions", "replay", &id[..4]]);
    assert!(several.contains(&format!("the ids of 2 sessions begin with `{}`", &id[..4])), "{several}");
    assert!(several.contains(&id), "{several}");
    project.out(2, &["sessions", "show", "../x"]);
}

#[test]
fn a_damaged_log_is_shown_as_far_as_it_goes() {
    let project = Project::new();
    project.scripted(&fix(), &["-y", "Fix it"]);
    let log = project.logs()[0].clone();
    let mut bytes = std::fs::read(&log).unwrap();
    let third = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0 + 100;
    bytes[third] ^= 1;
    bytes.extend_from_slice(b"{\"bytes\":99,\"sha");
    std::fs::write(&log, &bytes).unwrap();
    for action in [&["sessions", "show", "latest"][..], &["sessions", "export", "latest"]] {
        let shown = project.out(0, action);
        assert!(shown.contains("line 3 of the log is damaged and was left out"), "{shown}");
        assert!(shown.contains("the last 16 bytes of the log are no whole line"), "{shown}");
        assert!(shown.contains("now."), "{shown}");
    }
    assert!(project.out(0, &["sessions", "list"]).contains(", damaged)"));
    // Where nothing is left of the first line it is still found, and removed.
    bytes[10] ^= 1;
    std::fs::write(&log, &bytes).unwrap();
    let id = project.id();
    assert!(text(&project.run(&["sessions", "list"]).stderr).contains(&id));
    assert!(project.out(0, &["sessions", "show", &id]).contains("lines 1, 3 of the log"));
    assert_eq!(std::fs::read(&log).unwrap(), bytes, "nothing was written");
    project.out(0, &["sessions", "rm", "--yes", &id]);
    assert!(!log.exists());
}

#[test]
fn a_session_is_removed_where_that_is_meant_and_nobody_leads_it() {
    let project = Project::new();
    project.scripted(&[json!("Hello.")], &["Hi"]);
    project.scripted(&[json!("Hello.")], &["Hi again"]);
    let logs = project.logs();
    let ids: Vec<&str> = logs.iter().map(|log| log.file_stem().unwrap().to_str().unwrap()).collect();
    let other = project.state().join("kv");
    std::fs::create_dir_all(&other).unwrap();
    assert!(project.out(2, &["sessions", "rm", ids[0]]).contains("add --yes"));
    // One of them is not there: none goes.
    project.out(2, &["sessions", "rm", "--yes", ids[0], "nope"]);
    let (running, _) = Transcript::open(&project.state(), ids[0]).unwrap();
    assert!(project.out(2, &["sessions", "rm", "--yes", ids[0]]).contains("at work in another process"));
    assert!(project.out(0, &["sessions", "list"]).contains(", at work)"));
    assert!(logs.iter().all(|log| log.exists()));
    drop(running);
    assert_eq!(project.out(0, &["sessions", "rm", "--yes", ids[0]]), format!("removed {}\n", ids[0]));
    assert!(!logs[0].exists() && logs[1].exists() && other.exists());
}

#[test]
fn every_shell_gets_its_completions() {
    let project = Project::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = project.out(0, &["completions", shell]);
        assert!(script.contains("sessions") && script.contains("max-tool-calls"), "{shell}");
    }
    project.out(2, &["completions", "cmd"]);
}

fn tiny(name: &str) -> String {
    manifest().join(format!("fixtures/oracle/tiny-{name}.gguf")).to_str().unwrap().to_string()
}

/// Three turns of a tiny model, with calls that are held to files and commands that run.
fn tiny_session(model: &str) -> Project {
    let project = Project::new();
    // Where a request names two files, the model is made to edit the first.
    std::fs::write(project.files.path().join("also.sh"), "echo helo\n").unwrap();
    let model = tiny(model);
    let exec = |more: &[&str], tokens: &str| {
        let flags = ["exec", "--sandbox", "none", "-y", "-q", "-m", &model, "--ctx", "16384"];
        let flags = [&flags[..], &["--max-turns", "3", "--max-tokens", tokens], more].concat();
        // What so small a model says ends in all ways.
        project.run(&flags);
    };
    exec(&["Change helo to hello in greet.sh and in also.sh"], "70");
    exec(&["-c", "Why is it so?"], "40");
    exec(&["-c", "--seed", "5", "Fix greet.sh so that `sh greet.sh` passes"], "60");
    project
}

#[test]
fn a_session_of_a_real_engine_is_run_again_token_by_token() {
    for model in ["qwen2-q4_k_m", "qwen3moe-q4_k_m"] {
        let project = tiny_session(model);
        let records = recover(&std::fs::read(&project.logs()[0]).unwrap()).records;
        let tokens = |record: &Record| match record {
            Record::Message { message, asked: Some(_) } => Some(message.written.as_ref()?.tokens.len()),
            _ => None,
        };
        let tokens: Vec<usize> = records.iter().filter_map(tokens).collect();
        assert!(tokens.len() >= 2 && tokens.iter().sum::<usize>() > 20, "{tokens:?}");
        // What the files are now is nothing to it.
        std::fs::remove_file(project.files.path().join("greet.sh")).unwrap();
        let found = project.out(0, &["sessions", "replay", "latest", "--threads", "1", "--json"]);
        let found: Value = serde_json::from_str(&found).unwrap();
        assert_eq!((&found["identical"], &found["difference"]), (&json!(true), &Value::Null), "{found}");
        assert_eq!(found["answers"], json!(tokens.len()), "{found}");
        assert!(!project.files.path().join("greet.sh").exists());
    }
}

#[test]
fn a_session_runs_again_with_its_tools_and_the_first_result_that_differs_is_named() {
    let project = tiny_session("qwen2-q4_k_m");
    let replay = ["sessions", "replay", "latest", "--live", "--json", "--threads", "1"];
    let found = |code: i32| -> Value { serde_json::from_str(&project.out(code, &replay)).unwrap() };
    let at = |name: &str| project.files.path().join(name);
    let (greet, also) = (std::fs::read(at("greet.sh")).unwrap(), std::fs::read(at("also.sh")).unwrap());
    let same = found(0);
    assert_eq!(same["identical"], true, "{same}");
    assert!(same["turns"].as_u64() >= Some(2) && same["answers"].as_u64() >= Some(2), "{same}");
    assert!(same["results"].as_u64() >= Some(1), "{same}");
    // Nothing of it touched the directory, whose file is another one now.
    assert_eq!(
        (std::fs::read(at("greet.sh")).unwrap(), std::fs::read(at("also.sh")).unwrap()),
        (greet, also)
    );
    std::fs::write(at("greet.sh"), "\necho helo\nexit 0\n").unwrap();
    let other = found(1);
    let result = &other["different_result"];
    assert_eq!(result["recorded"].as_str(), Some("edited greet.sh at line 2"), "{other}");
    assert_eq!(result["here"].as_str(), Some("edited greet.sh at line 3"), "{other}");
    assert_eq!((&result["turn"], &result["call"]), (&json!(1), &json!("edit(greet.sh)")), "{other}");
    // Where the text that was quoted is gone it is the token.
    std::fs::write(at("greet.sh"), "echo other\n").unwrap();
    let text = project.out(1, &["sessions", "replay", "latest", "--live"]);
    assert!(text.starts_with("different: turn 1, answer 1, token "), "{text}");
    assert!(text.contains("greet.sh is another file than it was") && !text.contains("temperature"), "{text}");
}

/// Ten requests to the real model: questions, changes, commands, a new file.
const TEN: [&str; 10] = [
    "what does area do in shapes.py?",
    "fix area in shapes.py: it must multiply",
    "change the port in app.toml to 9090",
    "run `cat app.toml`",
    "what does greet return?",
    "in shapes.py let greet say Hello instead of Hallo",
    "run `sh show.sh`",
    "create a file notes.txt that says done",
    "what is port used for?",
    "which host does app.toml name?",
];

#[test]
fn ten_turns_of_the_real_model_run_again_token_by_token_and_with_their_tools() {
    let project = Project::new();
    let at = |name: &str| project.files.path().join(name);
    let shapes = "def area(w, h):\n    return w + h\n\n\ndef greet(name):\n    return \"Hallo \" + name\n";
    let files = [
        ("shapes.py", shapes),
        ("app.toml", "port = 8080\nhost = \"localhost\"\n"),
        ("show.sh", "grep return shapes.py\n"),
    ];
    files.iter().for_each(|(name, text)| std::fs::write(at(name), text).unwrap());
    let model = model_path();
    for (number, request) in TEN.iter().enumerate() {
        let exec = ["exec", "-q", "-y", "--sandbox", "none", "-m", model.to_str().unwrap()];
        let more: &[&str] = if number > 0 { &["-c"] } else { &[] };
        project.out(0, &[&exec, more, &[*request]].concat());
    }
    let changed = std::fs::read_to_string(at("shapes.py")).unwrap();
    assert!(changed.contains("w * h") && at("notes.txt").exists(), "{changed}");
    let replay = |code: i32, more: &[&str]| -> Value {
        let replay = ["sessions", "replay", "latest", "--json"];
        serde_json::from_str(&project.out(code, &[&replay, more].concat())).unwrap()
    };
    let tokens = replay(0, &[]);
    assert_eq!(tokens["identical"], true, "{tokens}");
    let live = replay(0, &["--live"]);
    for (key, expected) in [("identical", json!(true)), ("turns", json!(10)), ("taken_back", json!(true))] {
        assert_eq!(live[key], expected, "{key}: {live}");
    }
    assert_eq!(
        (&live["tokens"], &live["answers"]),
        (&tokens["tokens"], &tokens["answers"]),
        "{live} {tokens}"
    );
    assert!(live["results"].as_u64() >= Some(6), "{live}");
    // The line that the session changed itself, and one that it only read of.
    let app = std::fs::read_to_string(at("app.toml")).unwrap();
    std::fs::write(at("app.toml"), app.replace("9090", "7070")).unwrap();
    let other = replay(1, &["--live"]);
    assert_eq!(other["parted"], "in turn 3 app.toml is another file than it was", "{other}");
    assert_eq!(other["turns"], 2, "{other}");
    std::fs::write(at("app.toml"), &app).unwrap();
    std::fs::write(at("show.sh"), "echo other\n").unwrap();
    let other = replay(1, &["--live"]);
    let result = &other["different_result"];
    // A search sees it before the command does.
    assert_eq!((&result["turn"], &result["here"]), (&json!(5), &Value::Null), "{other}");
    assert_eq!(result["recorded"].as_str(), Some("show.sh:1: grep return shapes.py"), "{other}");
}

#[test]
fn the_first_difference_of_a_replay_is_named() {
    let project = tiny_session("qwen2-q4_k_m");
    assert!(project.out(0, &["sessions", "replay", "latest"]).starts_with("identical, "));
    let other = project.out(1, &["sessions", "replay", "latest", "--seed", "77", "--temperature", "4"]);
    assert!(other.contains("different: turn 1, answer 1, token "), "{other}");
    assert!(other.contains("seed: 0 was recorded, and here it is 77") && !other.contains("kv:"), "{other}");
    let other = project.out(1, &["sessions", "replay", "latest", "-m", &tiny("qwen3-q4_k_m"), "--kv", "f32"]);
    for part in ["model file: ", "checksum of the model file: ", "kv: q8_0 was recorded, and here it is f32"]
    {
        assert!(other.contains(part), "{part} is not in {other}");
    }
}

#[test]
fn what_an_older_log_cannot_support_is_said() {
    let project = tiny_session("qwen2-q4_k_m");
    let log = project.logs()[0].clone();
    let records = recover(&std::fs::read(&log).unwrap()).records;
    let write = |id: &str, keep: usize| {
        let (mut transcript, _) = Transcript::open(&project.state(), id).unwrap();
        let mut answers = 0;
        for mut record in records.clone() {
            if let Record::Message { asked: asked @ Some(_), .. } = &mut record {
                answers += 1;
                if answers > keep {
                    *asked = None;
                }
            }
            if let Record::Started { run, .. } = &mut record
                && keep == 0
            {
                *run = None;
            }
            transcript.append(&record).unwrap();
        }
    };
    write("older", 0);
    let older = project.out(2, &["sessions", "replay", "older"]);
    assert!(
        older.contains("nothing of session older can be compared") && older.contains("did not log how"),
        "{older}"
    );
    write("mixed", 1);
    let mixed = project.out(0, &["sessions", "replay", "mixed"]);
    assert!(
        mixed.contains(" in 1 turn\n") && mixed.contains("answer(s) of a qwright that did not"),
        "{mixed}"
    );
    project.scripted(&[json!("Hello.")], &["Hi"]);
    let scripted = project.out(2, &["sessions", "replay", "latest"]);
    assert!(scripted.contains("of a model that it does not run itself"), "{scripted}");
}
