//! `qwright exec --until`: rounds until a command passes, the files of the check, limits over all rounds; and what is
//! piped in beside a request.

use crate::agent::call;
use crate::exec::{Project, assert_code, err, fix, newest_log, object, out};
use serde_json::{Value, json};
use std::process::Output;

/// A project whose check looks at `greet.sh`, and is no word of the command that could be mistaken for it.
fn project() -> Project {
    let project = Project::new();
    std::fs::write(project.files.path().join("check.sh"), "sh greet.sh\ntest \"$(sh greet.sh)\" = hello\n")
        .unwrap();
    project
}

const CHECK: &str = "sh check.sh";

fn text(project: &Project, name: &str) -> String {
    std::fs::read_to_string(project.files.path().join(name)).unwrap()
}

fn edit(file: &str, old: &str, new: &str) -> Value {
    json!(call("edit", &[("file_path", file), ("old_string", old), ("new_string", new)]))
}

fn run(command: &str) -> Value {
    json!(call("run_shell_command", &[("command", command)]))
}

fn until(project: &Project, turns: &[Value], arguments: &[&str]) -> Output {
    let arguments: Vec<&str> =
        ["-o", "json", "--until", CHECK].into_iter().chain(arguments.iter().copied()).collect();
    project.run(turns, &arguments)
}

#[test]
fn a_check_that_passes_needs_no_model() {
    let project = project();
    std::fs::write(project.files.path().join("greet.sh"), "echo hello\n").unwrap();
    let output = project.run(&[json!({"no such key": 1})], &["--until", CHECK]);
    assert_code(&output, 0);
    assert_eq!(out(&output), "`sh check.sh` passes already, so nothing was done.\n");
    let output = until(&project, &[], &[]);
    assert_code(&output, 0);
    let object = object(&output);
    let expected = json!({"command": CHECK, "passed": true, "rounds": 0, "protected": ["check.sh"]});
    assert_eq!(
        (&object["until"], &object["num_turns"], &object["subtype"]),
        (&expected, &json!(0), &json!("success"))
    );
}

#[test]
fn the_model_is_told_what_fails_until_it_passes() {
    let project = project();
    let turns = [
        edit("greet.sh", "helo", "hallo"),
        json!("Done."),
        edit("greet.sh", "hallo", "hello"),
        json!("Now it says hello."),
    ];
    let output = until(&project, &turns, &[]);
    assert_code(&output, 0);
    let object = object(&output);
    assert_eq!(object["until"]["rounds"], 2);
    assert_eq!(object["result"], "Now it says hello.");
    assert_eq!((&object["num_turns"], &object["num_tool_calls"]), (&json!(4), &json!(2)));
    let diff = object["diff"].as_str().unwrap();
    assert!(diff.contains("-echo helo\n") && diff.contains("+echo hello\n"), "of both rounds: {diff}");
    assert_eq!(object["usage"]["repeated"], 0, "the prompt only grows");
    let log = newest_log(&project);
    for part in [
        "Make `sh check.sh` pass.",
        "What `sh check.sh` says now:\\n\\nexit code 1 (not sandboxed)\\nhelo",
        "`sh check.sh` still fails. Go on and make it pass.",
        "exit code 1 (not sandboxed)\\nhallo",
    ] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
    let text = project.run(&turns, &["--until", CHECK, "Set it right"]);
    assert_code(&text, 0);
}

#[test]
fn a_request_of_the_users_own_comes_first() {
    let project = project();
    let output = project.run(&fix(), &["--until", CHECK, "The greeting is misspelt"]);
    assert_code(&output, 0);
    assert_eq!(out(&output), "It says hello now.\n");
    assert!(err(&output).contains("`sh check.sh` passes after 1 round\n"), "{}", err(&output));
    assert!(
        newest_log(&project)
            .contains("The greeting is misspelt\\n\\nThe work is done when `sh check.sh` passes.")
    );
}

#[test]
fn rounds_and_patience_end() {
    let talk = || vec![json!("Cannot."), json!("Really cannot."), json!("No.")];
    let output = until(&project(), &talk(), &[]);
    assert_code(&output, 1);
    assert!(object(&output)["error"].as_str().unwrap().contains("the model gave up"), "{}", out(&output));
    let output = until(&project(), &talk(), &["--max-rounds", "1"]);
    assert_code(&output, 1);
    let object = object(&output);
    assert_eq!(object["error"], "`sh check.sh` still fails after 1 round (--max-rounds).");
    assert_eq!((&object["until"]["passed"], &object["is_error"]), (&json!(false), &json!(true)));
    assert_code(&project().run(&[], &["--max-rounds", "1", "Hi"]), 2);
    assert_code(&project().run(&[], &["--until", " "]), 2);
}

#[test]
fn limits_are_those_of_all_rounds() {
    let read = || json!(call("read_file", &[("file_path", "greet.sh")]));
    let turns = [read(), json!("Seen."), read(), json!("Seen again.")];
    for (flag, limit, subtype) in [
        ("--max-turns", "3", "error_max_turns"),
        ("--max-tool-calls", "1", "error_max_tool_calls"),
        ("--max-tokens", "40", "error_max_tokens"),
    ] {
        let output = until(&project(), &turns, &[flag, limit]);
        assert_code(&output, 5);
        let object = object(&output);
        assert_eq!(
            (&object["subtype"], &object["until"]["rounds"]),
            (&json!(subtype), &json!(2)),
            "{object}"
        );
    }
    // The last step that the limit allowed may have been the one that mattered.
    let output = until(&project(), &[edit("greet.sh", "helo", "hello")], &["--max-turns", "1"]);
    assert_code(&output, 0);
    let slow = [json!({"hang": true})];
    let output = until(&project(), &slow, &["--max-wall-time", "2"]);
    assert_code(&output, 5);
    assert_eq!(object(&output)["subtype"], "error_max_wall_time");
}

#[test]
fn the_files_of_the_check_stay_as_they_are() {
    let project = project();
    let before = text(&project, "check.sh");
    let turns = [
        edit("./check.sh", "sh greet.sh", "exit 0"),
        run("echo exit 0 > check.sh"),
        json!("It passes."),
        edit("greet.sh", "helo", "hello"),
        json!("It passes now."),
    ];
    let output = until(&project, &turns, &[]);
    assert_code(&output, 0);
    let object = object(&output);
    let denials: Vec<&str> = object["denials"]
        .as_array()
        .unwrap()
        .iter()
        .map(|denial| denial["summary"].as_str().unwrap())
        .collect();
    assert_eq!(denials, ["edit ./check.sh", "change check.sh"]);
    assert_eq!(text(&project, "check.sh"), before);
    let log = newest_log(&project);
    assert!(log.contains("./check.sh belongs to the check that has to pass"), "{log}");
    assert!(log.contains("so they were put back: check.sh."), "{log}");
    let may = until(&Project::new(), &[], &["--until-may-edit", "--max-rounds", "1"]);
    assert_code(&may, 6);
    let project = self::project();
    let output = until(
        &project,
        &[edit("check.sh", "sh greet.sh\n", "exit 0\n"), json!("Done.")],
        &["--until-may-edit"],
    );
    assert_code(&output, 0);
    assert_eq!(object_of(&output)["until"]["protected"], json!([]));
}

fn object_of(output: &Output) -> Value {
    object(output)
}

#[test]
fn a_denial_that_ended_the_work_is_told_as_one() {
    let project = project();
    let turns = [edit("check.sh", "sh greet.sh\n", "exit 0\n"), json!("I may not.")];
    let output = until(&project, &turns, &["--max-rounds", "1"]);
    assert_code(&output, 3);
}

#[test]
fn what_is_piped_in_goes_with_the_request() {
    let project = Project::new();
    let output = project.with_input(&[json!("Fine.")], &["Review this"], "+ a line\n".as_bytes());
    assert_code(&output, 0);
    let log = newest_log(&project);
    assert!(log.contains("Request: Review this"), "{log}");
    assert!(log.contains("Standard input:\\n\\n+ a line"), "{log}");
    assert_code(&project.with_input(&[], &["Review this"], b"\xff\xfeh\0i\0"), 2);
    let nothing = Project::new();
    assert_code(&nothing.with_input(&[json!("Hi.")], &["Hi"], b""), 0);
    assert!(!newest_log(&nothing).contains("Standard input"));
}

/// Scripts of attempts by their number, and the flag that names them.
fn attempts(project: &Project, scripts: &[Vec<Value>], arguments: &[&str]) -> Output {
    for (number, turns) in (1..).zip(scripts) {
        let path = project.home.path().join(format!("script{number}.json"));
        std::fs::write(path, Value::from(turns.clone()).to_string()).unwrap();
    }
    let scripts = project.home.path().join("script{attempt}.json");
    let arguments = [&["-o", "json", "--until", CHECK], arguments].concat();
    project.command_of(&scripts, &arguments).output().unwrap()
}

fn copies(project: &Project) -> usize {
    std::fs::read_dir(project.home.path().join(".cache/qwright/copies")).map_or(0, Iterator::count)
}

#[test]
fn of_several_attempts_the_one_that_passes_is_kept() {
    let wrong = || vec![edit("greet.sh", "helo", "hallo"), json!("Done."), json!("I give up."), json!("No.")];
    let right = vec![edit("greet.sh", "helo", "hello"), run("touch by-the-way"), json!("It says hello.")];
    let project = project();
    let output = attempts(&project, &[wrong(), right.clone(), wrong()], &["--attempts", "3", "-y"]);
    assert_code(&output, 0);
    let object = object(&output);
    assert_eq!(text(&project, "greet.sh"), "echo hello\n");
    assert!(project.files.path().join("by-the-way").exists(), "what the command made came along");
    assert_eq!((&object["result"], &object["until"]["passed"]), (&json!("It says hello."), &json!(true)));
    let list = object["attempts"].as_array().unwrap();
    assert_eq!(list.len(), 3);
    for (number, (attempt, passed)) in (1..).zip(list.iter().zip([false, true, false])) {
        assert_eq!((&attempt["attempt"], &attempt["passed"]), (&json!(number), &json!(passed)), "{list:?}");
        assert_eq!(attempt["seed"], json!(number - 1));
    }
    assert_eq!((&list[1]["lines_added"], &list[1]["lines_removed"]), (&json!(1), &json!(1)));
    assert_eq!(copies(&project), 0, "nothing is left behind");
    let ids: std::collections::BTreeSet<_> =
        list.iter().map(|attempt| &attempt["session_id"]).map(Value::to_string).collect();
    assert_eq!(ids.len(), 3);
}

#[test]
fn what_attempts_do_is_told_with_their_numbers() {
    let project = project();
    for (number, word) in [(1, "hallo"), (2, "hello")] {
        let turns = [edit("greet.sh", "helo", word), json!("Done."), json!("No."), json!("No.")];
        let path = project.home.path().join(format!("script{number}.json"));
        std::fs::write(path, Value::from(turns.to_vec()).to_string()).unwrap();
    }
    let scripts = project.home.path().join("script{attempt}.json");
    let output = project.command_of(&scripts, &["--until", CHECK, "--attempts", "2"]).output().unwrap();
    assert_code(&output, 0);
    let err = err(&output);
    for part in [
        "2 attempts, each in a private copy",
        "[1] -> edit greet.sh",
        "[2] -> edit greet.sh",
        "attempt 2 of 2 (seed 1): passes after 1 round, 1 file (+1 -1)",
        "attempt 1 of 2 (seed 0): ",
    ] {
        assert!(err.contains(part), "{part} is not in {err}");
    }
    assert_eq!(err.matches("sandbox: none, as asked").count(), 1, "once for all: {err}");
    assert_eq!(out(&output), "Done.\n");
}

#[test]
fn where_no_attempt_passes_everything_is_as_it_was() {
    let wrong =
        |word: &str| vec![edit("greet.sh", "helo", word), json!("Done."), json!("I give up."), json!("No.")];
    let project = project();
    let output = attempts(&project, &[wrong("hallo"), wrong("hi")], &["--attempts", "2"]);
    assert_code(&output, 1);
    let object = object(&output);
    assert_eq!(object["subtype"], "error_stuck");
    let error = object["error"].as_str().unwrap();
    assert!(error.contains("none of 2 attempts passes; everything is as it was"), "{error}");
    assert_eq!((text(&project, "greet.sh").as_str(), &object["diff"]), ("echo helo\n", &json!("")));
    assert_eq!(object["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(copies(&project), 0);
}

#[test]
fn an_attempt_that_passes_can_be_a_patch() {
    let right = || vec![edit("greet.sh", "helo", "hello"), json!("It says hello.")];
    let project = project();
    let file = project.home.path().join("work.patch");
    let output =
        attempts(&project, &[right(), right()], &["--attempts", "2", "--patch", file.to_str().unwrap()]);
    assert_code(&output, 0);
    assert_eq!(text(&project, "greet.sh"), "echo helo\n");
    assert!(std::fs::read_to_string(file).unwrap().contains("+echo hello\n"));
    assert_eq!(object(&output)["patch"]["files_changed"], 1);
    // Where nothing is to be done there is a patch too, of nothing.
    std::fs::write(project.files.path().join("greet.sh"), "echo hello\n").unwrap();
    let file = project.home.path().join("none.patch");
    let output = attempts(&project, &[], &["--attempts", "2", "--patch", file.to_str().unwrap()]);
    assert_code(&output, 0);
    assert_eq!(object(&output)["patch"]["files_changed"], 0);
    assert_eq!(std::fs::read(file).unwrap(), b"");
}

#[test]
fn what_a_check_leaves_behind_is_no_change_of_the_work() {
    let note = json!(call("write_file", &[("file_path", "built/notes.md"), ("content", "why\n")]));
    // The check itself, as a turn that begins with it runs it, and the same for whoever reads only its end.
    let again = || [run(CHECK), run("sh check.sh 2>&1 | tail -3")];
    let right = || {
        let work = [note.clone(), edit("greet.sh", "helo", "hello"), run("echo more >> built/by-command")];
        [&again()[..], &work, &again(), &[json!("It says hello.")]].concat()
    };
    let project = project();
    // One is built where it is right at last, one is another each time, and one was there before.
    let check = format!(
        "mkdir -p built/deep && printf 'x\\000y' > built/deep/x && echo once > seen && printf \"\\000$(date +%N)\" > bin\n\
        echo 2 > versions\n\
        grep -q hello greet.sh && printf 'x\\000y' > program && echo ready > report.txt\n{}",
        text(&project, "check.sh")
    );
    std::fs::write(project.files.path().join("check.sh"), check).unwrap();
    let made = |name: &str| project.files.path().join(name);
    let file = project.home.path().join("work.patch");
    let patch = ["--patch", file.to_str().unwrap()];
    let first_messages = || {
        let logs = std::fs::read_dir(project.home.path().join(".local/state/qwright/sessions")).unwrap();
        let logs = logs.map(|log| std::fs::read_to_string(log.unwrap().path()).unwrap());
        logs.map(|log| log.split_once("Files:").unwrap().1.split_once("Request").unwrap().0.to_string())
    };
    // The second time in a directory in which everything was built already.
    for built in [false, true] {
        for (attempts_of, patched) in [(2, true), (2, false), (1, true), (1, false)] {
            std::fs::write(made("greet.sh"), "echo helo\n").unwrap();
            std::fs::write(made("versions"), "1\n").unwrap();
            let _ = std::fs::remove_file(made("built/notes.md"));
            let _ = std::fs::remove_file(made("built/by-command"));
            let what = format!("{attempts_of} attempts, patch: {patched}, built before: {built}");
            let arguments = [&["-y"][..], if patched { &patch } else { &[] }].concat();
            let output = match attempts_of {
                1 => until(&project, &right(), &arguments),
                _ => {
                    attempts(&project, &[right(), right()], &[&["--attempts", "2"][..], &arguments].concat())
                }
            };
            assert_code(&output, 0);
            let object = object(&output);
            let diff = object["diff"].as_str().unwrap();
            let changed: Vec<&str> =
                diff.lines().filter_map(|line| line.strip_prefix("diff --git a/")).collect();
            let names: Vec<&str> = changed.iter().map(|names| names.split(' ').next().unwrap()).collect();
            assert_eq!(names, ["built/by-command", "built/notes.md", "greet.sh"], "{what}");
            assert_eq!(copies(&project), 0, "{what}");
            if patched {
                assert_eq!(object["patch"]["files_changed"], 3, "{what}");
                assert_eq!(text(&project, "greet.sh"), "echo helo\n", "{what}");
                continue;
            }
            assert_eq!(text(&project, "greet.sh"), "echo hello\n", "{what}");
            assert_eq!(text(&project, "built/notes.md"), "why\n", "{what}");
            assert_eq!(text(&project, "built/by-command"), "more\n", "{what}");
            let in_place = attempts_of == 1;
            assert_eq!(text(&project, "versions"), if in_place { "2\n" } else { "1\n" }, "{what}");
            let left = ["built/deep", "seen", "program", "bin", "report.txt"].map(|name| made(name).exists());
            assert_eq!(left, [built || attempts_of == 1; 5], "in place it stays where it was built: {what}");
        }
        if !built {
            let lists: std::collections::BTreeSet<String> = first_messages().collect();
            assert_eq!(lists.len(), 1, "every session is told the same files: {lists:?}");
        }
    }
}

#[test]
fn what_a_command_of_an_attempt_makes_lands_also_where_it_is_no_text() {
    let project = project();
    let at = |name: &str| project.files.path().join(name);
    for (name, bytes) in [("old.bin", &b"a\0b"[..]), ("gone.bin", b"\0"), ("latin", b"\xe9\n")] {
        std::fs::write(at(name), bytes).unwrap();
    }
    let work = "printf 'new\\000' > new.bin; chmod +x new.bin; printf 'c\\000d' > old.bin; rm gone.bin; printf '\\350\\n' > latin";
    let right = || vec![run(work), edit("greet.sh", "helo", "hello"), json!("It says hello.")];
    let output = attempts(&project, &[right(), right()], &["--attempts", "2", "-y"]);
    assert_code(&output, 0);
    assert_eq!(text(&project, "greet.sh"), "echo hello\n");
    for (name, bytes) in [("old.bin", &b"c\0d"[..]), ("new.bin", b"new\0"), ("latin", b"\xe8\n")] {
        assert_eq!(std::fs::read(at(name)).unwrap(), bytes, "{name}");
    }
    assert!(!at("gone.bin").exists());
    let mode = std::os::unix::fs::PermissionsExt::mode(&at("new.bin").metadata().unwrap().permissions());
    assert_eq!(mode & 0o111, 0o111);
}

#[test]
fn an_ignored_file_that_an_attempt_wrote_comes_along() {
    let project = Project::new();
    let at = |name: &str| project.files.path().join(name);
    for (name, bytes) in [
        (".gitignore", "*.conf\nbuilt/\n"),
        ("local.conf", "mode=bad\n"),
        ("check.sh", "grep -q mode=good local.conf && grep -q yes new.conf\n"),
    ] {
        std::fs::write(at(name), bytes).unwrap();
    }
    let right = || {
        let new = json!(call("write_file", &[("file_path", "new.conf"), ("content", "yes\n")]));
        let build = run("mkdir -p built && echo 1 > built/by-command && echo 1 > made.conf");
        vec![edit("local.conf", "bad", "good"), new, build, json!("Done.")]
    };
    let file = project.home.path().join("work.patch");
    let patched = ["-y", "--attempts", "2", "--patch", file.to_str().unwrap()];
    assert_code(&attempts(&project, &[right(), right()], &patched), 0);
    assert_eq!(text(&project, "local.conf"), "mode=bad\n");
    let patch = std::fs::read_to_string(&file).unwrap();
    assert!(patch.contains("+mode=good\n") && patch.contains("b/new.conf"), "{patch}");
    assert!(!patch.contains("by-command") && !patch.contains("made.conf"), "{patch}");
    assert_code(&attempts(&project, &[right(), right()], &patched[..3]), 0);
    assert_eq!(["local.conf", "new.conf"].map(|name| text(&project, name)), ["mode=good\n", "yes\n"]);
    assert!(!at("built").exists() && !at("made.conf").exists());
}

#[test]
fn an_attempt_lands_with_its_links_and_directories() {
    let project = project();
    let at = |name: &str| project.files.path().join(name);
    std::fs::write(at("was-file"), "text\n").unwrap();
    std::os::unix::fs::symlink("greet.sh", at("link")).unwrap();
    let work = "rm was-file link && mkdir was-file && echo in > was-file/in && ln -s check.sh link && ln -s no/where new";
    let right = || vec![run(work), edit("greet.sh", "helo", "hello"), json!("It says hello.")];
    let output = attempts(&project, &[right(), right()], &["--attempts", "2", "-y"]);
    assert_code(&output, 0);
    assert_eq!(["greet.sh", "was-file/in"].map(|name| text(&project, name)), ["echo hello\n", "in\n"]);
    for (name, leads_to) in [("link", "check.sh"), ("new", "no/where")] {
        assert_eq!(std::fs::read_link(at(name)).unwrap(), std::path::Path::new(leads_to));
    }
}

#[test]
fn attempts_end_with_the_code_of_the_first() {
    let long = "x".repeat(40_000);
    let denied = || vec![edit("check.sh", "sh greet.sh\n", "exit 0\n"), json!("I may not.")];
    let full = || vec![json!({"model": {"context": 4096}}), json!("Hi.")];
    for (scripts, arguments, code, subtype) in [
        ([denied(), denied()], ["--max-rounds", "1"], 3, "error_denied"),
        ([full(), full()], ["--max-rounds=2", long.as_str()], 5, "error_context"),
    ] {
        let output = attempts(&project(), &scripts, &[&["--attempts", "2"][..], &arguments].concat());
        assert_code(&output, code);
        assert_eq!(object(&output)["subtype"], subtype);
    }
}

#[test]
fn attempts_that_cannot_be_are_refused() {
    let project = project();
    for (arguments, told) in [
        (&["--attempts", "0"][..], "--attempts 0 is none of 1 to 16"),
        (&["--attempts", "17"], "--attempts 17 is none of 1 to 16"),
        (&["--attempts", "2", "-c"], "--attempts begins new sessions"),
        (&["--attempts", "2", "-o", "stream-json"], "cannot share a stream"),
    ] {
        let output =
            until(&project, &[], &arguments.iter().copied().filter(|a| *a != "-o").collect::<Vec<_>>());
        let output = if arguments.contains(&"-o") {
            project.run(&[], &[&["--until", CHECK], arguments].concat())
        } else {
            output
        };
        assert_code(&output, 2);
        assert!(err(&output).contains(told), "{}", err(&output));
    }
}

/// Neither namespaces nor Landlock, as in a container that forbids both: the kernel says so.
#[test]
#[allow(unsafe_code)]
fn without_a_sandbox_it_ends_before_a_model_is_looked_for() {
    use seccompiler::{SeccompAction, SeccompFilter};
    use std::os::unix::process::CommandExt;
    let denied = [libc::SYS_unshare, libc::SYS_landlock_create_ruleset, libc::SYS_mount, libc::SYS_setns];
    let rules = denied.into_iter().map(|call| (call, Vec::new())).collect();
    let errno = SeccompAction::Errno(libc::EPERM as u32);
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, errno, std::env::consts::ARCH.try_into().unwrap());
    let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
    let project = project();
    let before = text(&project, "greet.sh");
    for sandbox in ["auto", "full", "reduced"] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_qwright"));
        command.args([
            "exec",
            "-m",
            "/no/such/model.gguf",
            "--sandbox",
            sandbox,
            "-o",
            "json",
            "--until",
            CHECK,
        ]);
        command.current_dir(project.files.path()).env("HOME", project.home.path());
        let program = program.clone();
        // SAFETY: one system call, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                let applied = seccompiler::apply_filter(&program);
                applied.map_err(|_| std::io::Error::from_raw_os_error(libc::EPERM))
            });
        }
        let output = command.output().unwrap();
        assert_code(&output, 4);
        let object = object(&output);
        assert_eq!((&object["subtype"], &object["is_error"]), (&json!("error_sandbox"), &json!(true)));
        let told = format!("{} {}", object["error"], object["hint"]);
        assert!(told.contains("no sandbox") && told.contains("--sandbox none"), "{sandbox}: {told}");
        assert_eq!(text(&project, "greet.sh"), before);
    }
}

#[test]
fn what_is_piped_in_may_hold_other_encodings() {
    let project = Project::new();
    let output = project.with_input(&[json!("Fine.")], &["Review this"], b"+ caf\xe9\n");
    assert_code(&output, 0);
    assert!(err(&output).contains("not all valid UTF-8"), "{}", err(&output));
    assert!(newest_log(&project).contains("+ caf\u{fffd}"), "{}", newest_log(&project));
}

#[test]
fn what_a_target_does_stays_as_it_is() {
    let project = project();
    let makefile = "test:\n\tsh check.sh\n";
    std::fs::write(project.files.path().join("Makefile"), makefile).unwrap();
    // `make` need not be there: it is a word of a command that runs what the Makefile says.
    let command = ": make test; sh $(sed -n 's/.*sh //p' M*file)";
    let turns = [
        edit("Makefile", "sh check.sh", "true"),
        run("echo 'test:; true' > Makefile"),
        edit("greet.sh", "helo", "hello"),
        json!("It says hello."),
    ];
    let output = project.run(&turns, &["-o", "json", "-y", "--until", command]);
    assert_code(&output, 0);
    assert_eq!(text(&project, "Makefile"), makefile);
    assert_eq!(object(&output)["until"]["protected"], json!(["Makefile"]));
}
