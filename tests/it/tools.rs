//! Tools as the agent calls them: arguments in, text for the model out, in real directories.

use qwright::tools::{Access, Arguments, Registry, ToolContext, ToolError, ToolOutput};
use qwright::workspace::Workspace;
use qwright::workspace::shell::{SandboxChoice, Shell, ShellSettings};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

/// What is promised for the system prompt and all specs together is 2,000 tokens; JSON has three to four characters
/// a token, so this keeps the specs at some 1,150.
const MAX_SPEC_CHARS: usize = 4400;

struct Bench {
    directory: TempDir,
    workspace: Workspace,
    registry: Registry,
    max_chars: usize,
}

/// Tests of tools want the answer's form; what the sandbox does has tests of its own (`shell.rs`).
fn shell() -> &'static Shell {
    static SHELL: OnceLock<Shell> = OnceLock::new();
    SHELL.get_or_init(|| {
        let helper = Some(env!("CARGO_BIN_EXE_qwright").into());
        Shell::with(ShellSettings { choice: SandboxChoice::None, helper, ..ShellSettings::default() })
    })
}

fn arguments(value: &Value) -> Arguments {
    value.as_object().unwrap().clone()
}

impl Bench {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let workspace = Workspace::open(directory.path(), &[]).unwrap();
        Self { directory, workspace, registry: Registry::standard(), max_chars: 20_000 }
    }

    fn call(&self, name: &str, given: Value) -> Result<ToolOutput, ToolError> {
        let cancel = AtomicBool::new(false);
        let mut context = ToolContext {
            workspace: &self.workspace,
            shell: shell(),
            cancel: &cancel,
            on_output: &mut |_| {},
            max_chars: self.max_chars,
        };
        self.registry.get(name).unwrap().run(&mut context, &arguments(&given))
    }

    fn text(&self, name: &str, given: Value) -> String {
        self.call(name, given.clone()).unwrap_or_else(|error| panic!("{name} {given}: {error}")).text
    }

    fn error(&self, name: &str, given: Value) -> String {
        match self.call(name, given.clone()) {
            Err(ToolError::ToModel(message)) => message,
            other => panic!("{name} {given}: {other:?}"),
        }
    }
}

#[test]
fn every_spec_in_the_folder_is_a_tool_and_all_of_them_are_small() {
    let registry = Registry::standard();
    let specs = registry.specs();
    let mut files: Vec<String> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let mut names: Vec<&str> = registry.names().collect();
    names.sort();
    assert_eq!(names, files);
    let size: usize = specs.iter().map(|spec| serde_json::to_string(spec).unwrap().len()).sum();
    assert!(size < MAX_SPEC_CHARS, "the specs have {size} characters");
    for spec in &specs {
        let parameters = spec.parameters["properties"].as_object().unwrap();
        for required in spec.parameters["required"].as_array().unwrap() {
            assert!(parameters.contains_key(required.as_str().unwrap()), "{}", spec.name);
        }
        assert!(
            spec.description.as_ref().is_some_and(|text| !text.is_empty() && text.len() < 200),
            "{}",
            spec.name
        );
    }
    // What the model writes first decides what the mask can know: the file before the text of the file.
    let edit: Vec<&String> =
        registry.get("edit").unwrap().spec().parameters["properties"].as_object().unwrap().keys().collect();
    assert_eq!(edit, ["file_path", "old_string", "new_string", "replace_all"]);
}

#[test]
fn access_and_description_follow_the_call() {
    let registry = Registry::standard();
    let cases = [
        ("read_file", json!({"file_path": "a.rs"}), Access::Read, "read a.rs"),
        ("list_directory", json!({}), Access::Read, "list the workspace"),
        ("glob", json!({"pattern": "*.rs"}), Access::Read, "find *.rs"),
        ("grep_search", json!({"pattern": "x"}), Access::Read, "search x"),
        ("edit", json!({"file_path": "a.rs"}), Access::Write, "edit a.rs"),
        ("write_file", json!({"file_path": "a.rs"}), Access::Write, "write a.rs"),
        (
            "run_shell_command",
            json!({"command": "ls", "directory": "src"}),
            Access::Execute,
            "run ls (in src)",
        ),
        ("todo_write", json!({}), Access::Read, "update the list of steps"),
        ("git_status", json!({}), Access::Read, "git status"),
        ("git_diff", json!({"path": "src"}), Access::Read, "git diff src"),
        ("git_log", json!({"path": "a.rs", "lines": "1-2"}), Access::Read, "git log a.rs:1-2"),
        ("git_commit", json!({"message": "One\n\nmore"}), Access::Write, "git commit \"One\""),
        ("outline", json!({"path": "a.rs"}), Access::Read, "outline a.rs"),
        ("background", json!({"action": "stop", "number": 2}), Access::Read, "stop background command 2"),
    ];
    for (name, given, access, description) in &cases {
        let tool = registry.get(name).unwrap();
        assert_eq!(tool.access(&arguments(given)), *access, "{name}");
        assert_eq!(tool.describe(&arguments(given)), *description);
    }
    assert_eq!(cases.len(), registry.specs().len());
}

#[test]
fn a_subset_keeps_the_order_and_shares_its_tools() {
    let bench = Bench::new(&[]);
    let few = bench.registry.subset(&["edit", "todo_write", "read_file", "no such tool"]);
    assert_eq!(few.names().collect::<Vec<_>>(), ["read_file", "edit", "todo_write"]);
    assert!(few.get("glob").is_none() && few.get("edit").is_some());
    let todos = json!({"todos": [{"content": "look", "status": "pending"}]});
    bench.text("todo_write", todos.clone());
    let again = Bench { registry: few, ..bench }.text("todo_write", todos);
    assert!(again.contains("the same before"), "{again}");
}

#[test]
fn a_short_file_is_read_as_it_is_and_a_long_one_says_what_is_missing() {
    let long: String = (1..=2000).map(|n| format!("line {n}\n")).collect();
    let mut bench =
        Bench::new(&[("a.rs", "fn main() {\n}\n"), ("long.txt", &long), ("empty", ""), ("crlf", "a\r\nb")]);
    fs::write(bench.directory.path().join("x.bin"), [0u8, 1, 2, 3]).unwrap();
    assert_eq!(bench.text("read_file", json!({"file_path": "a.rs"})), "fn main() {\n}\n");
    assert_eq!(bench.text("read_file", json!({"file_path": "crlf"})), "a\nb");
    assert_eq!(bench.text("read_file", json!({"file_path": "empty"})), "[empty is empty]");
    let binary = bench.text("read_file", json!({"file_path": "x.bin"}));
    assert_eq!(binary, "x.bin is a binary file of 4 bytes; its bytes are not shown");
    let part = bench.text("read_file", json!({"file_path": "long.txt", "offset": 10, "limit": 2}));
    assert_eq!(part, "[long.txt: lines 10 to 11 of 2000; read on with offset 12]\nline 10\nline 11\n");
    let last = bench.text("read_file", json!({"file_path": "long.txt", "offset": "2000"}));
    assert_eq!(last, "[long.txt: lines 2000 to 2000 of 2000]\nline 2000\n");
    let beyond = bench.error("read_file", json!({"file_path": "long.txt", "offset": 2001}));
    assert!(beyond.contains("from 1 to 2000"), "{beyond}");

    bench.max_chars = 500;
    let cut = bench.text("read_file", json!({"file_path": "long.txt"}));
    let (header, rest) = cut.split_once('\n').unwrap();
    assert!(rest.starts_with("line 1\nline 2\n") && rest.ends_with("line 1999\nline 2000\n"), "{cut}");
    assert!(cut.chars().count() < 700);
    // Reading on where the header says gives the line that follows what was shown.
    let next: usize = header.rsplit("offset ").next().unwrap().trim_end_matches(']').parse().unwrap();
    assert!(rest.contains(&format!("line {}\n[...", next - 1)), "{cut}");
    let more = bench.text("read_file", json!({"file_path": "long.txt", "offset": next, "limit": 1}));
    assert!(more.ends_with(&format!("\nline {next}\n")), "{more}");
}

#[test]
fn what_is_read_can_be_copied_into_an_edit() {
    let bench = Bench::new(&[("src/a.rs", "fn a() -> u32 {\n    1\n}\n")]);
    let text = bench.text("read_file", json!({"file_path": "src/a.rs"}));
    let given =
        json!({"file_path": "src/a.rs", "old_string": text, "new_string": "fn a() -> u32 {\n    2\n}\n"});
    let tool = bench.registry.get("edit").unwrap();
    let preview = tool.preview(&bench.workspace, &arguments(&given)).unwrap();
    assert!(preview.contains("-    1\n+    2\n"), "{preview}");
    assert_eq!(bench.text("read_file", json!({"file_path": "src/a.rs"})), text, "a preview changed the file");
    let output = bench.call("edit", given.clone()).unwrap();
    assert_eq!((output.text.as_str(), output.diff), ("edited src/a.rs at line 1", preview));
    let again = bench.error("edit", given);
    assert!(again.contains("already there"), "{again}");
    assert!(tool.preview(&bench.workspace, &arguments(&json!({"file_path": "src/a.rs"}))).is_none());
}

#[test]
fn errors_name_the_next_step() {
    let bench = Bench::new(&[("src/food.rs", "let x = 1;\nlet x = 1;\n"), ("sub/a.txt", "a\n")]);
    let cases = [
        ("read_file", json!({}), "needs file_path"),
        ("read_file", json!({"file_path": 7}), "must be text, not a number"),
        ("read_file", json!({"file_path": "src/foo.rs"}), "did you mean src/food.rs?"),
        ("read_file", json!({"file_path": "src"}), "list_directory"),
        ("read_file", json!({"file_path": "/etc/passwd"}), "outside the workspace"),
        ("list_directory", json!({"path": "src/food.rs"}), "read_file"),
        ("list_directory", json!({"path": "sup"}), "did you mean sub?"),
        ("glob", json!({"pattern": "["}), "is not a glob"),
        ("grep_search", json!({"pattern": ""}), "is empty"),
        (
            "edit",
            json!({"file_path": "src/food.rs", "old_string": "x = 1", "new_string": "x = 2"}),
            "lines 1, 2",
        ),
        (
            "edit",
            json!({"file_path": "src/food.rs", "old_string": "let y = 1;", "new_string": "y"}),
            "let x = 1;",
        ),
        ("edit", json!({"file_path": "src/food.rs", "old_string": "x"}), "needs new_string"),
        ("write_file", json!({"file_path": "src/food.rs", "content": "x"}), "read it with read_file first"),
        ("write_file", json!({"file_path": ".git/config", "content": "x"}), "may not write"),
        ("run_shell_command", json!({"command": " "}), "empty"),
        ("run_shell_command", json!({"command": "ls", "directory": "../"}), "outside the workspace"),
        ("todo_write", json!({"todos": [1]}), "content and status"),
        ("git_status", json!({}), "not in a git repository"),
        ("git_log", json!({"lines": "1-2"}), "give its path too"),
        ("git_log", json!({"path": "a.txt", "lines": "x"}), "10-20"),
        ("git_commit", json!({"message": "x"}), "not in a git repository"),
        ("git_commit", json!({"message": "x", "paths": 3}), "list of file names"),
        ("outline", json!({"path": "nowhere.rs"}), "no file nowhere.rs"),
        ("background", json!({"action": "read"}), "needs the number"),
        ("background", json!({"action": "stop", "number": 7000}), "no background command 7000"),
        ("background", json!({"action": "pause"}), "list, read or stop"),
    ];
    for (name, given, words) in cases {
        let message = bench.error(name, given.clone());
        assert!(message.contains(words), "{name} {given}: {message}");
    }
}

#[test]
fn files_are_written_listed_and_found() {
    let bench = Bench::new(&[("README.md", "hello\n")]);
    let output =
        bench.call("write_file", json!({"file_path": "src/new/a.rs", "content": "fn a() {}\n"})).unwrap();
    assert_eq!(output.text, "created src/new/a.rs (1 lines)");
    assert!(output.diff.contains("new file mode") && output.diff.contains("+fn a() {}\n"));
    assert_eq!(bench.text("list_directory", json!({})), "README.md\nsrc/");
    assert_eq!(bench.text("list_directory", json!({"path": "src/"})), "new/");
    assert_eq!(bench.text("glob", json!({"pattern": "**/*.rs"})), "src/new/a.rs");
    assert!(bench.text("glob", json!({"pattern": "*.py"})).starts_with("no file matches *.py"));
    assert_eq!(bench.text("grep_search", json!({"pattern": "fn \\w+"})), "src/new/a.rs:1: fn a() {}");
    let many = bench.text("grep_search", json!({"pattern": "[a-z]", "limit": "1"}));
    assert_eq!(many.lines().last().unwrap(), "[... more matches; narrow the pattern, path or glob]");
    let none = bench.text("grep_search", json!({"pattern": "nowhere"}));
    assert!(none.starts_with("no match for nowhere in 2 files"), "{none}");
    let same =
        bench.call("write_file", json!({"file_path": "src/new/a.rs", "content": "fn a() {}\n"})).unwrap();
    assert!(same.text.contains("nothing was changed") && same.diff.is_empty());
}

#[test]
fn a_command_says_first_how_it_ended() {
    let mut bench = Bench::new(&[("sub/f", "")]);
    let run = |bench: &Bench, given: Value| bench.call("run_shell_command", given).unwrap();
    let failed = run(&bench, json!({"command": "echo out; echo err >&2; exit 3"}));
    let first = failed.text.lines().next().unwrap();
    assert!(first.starts_with("exit code 3") && first.contains("not sandboxed"), "{}", failed.text);
    assert!(failed.text.contains("out\n") && failed.text.contains("err") && !failed.ok);
    let there = run(&bench, json!({"command": "ls", "directory": "sub"}));
    assert!(there.ok && there.text.ends_with("\nf"), "{}", there.text);
    let silent = run(&bench, json!({"command": "true"}));
    assert!(silent.text.ends_with("[no output]"), "{}", silent.text);
    let slow = run(&bench, json!({"command": "echo begun; sleep 60", "timeout": 1}));
    assert!(slow.text.starts_with("timed out after 1 seconds") && slow.text.contains("begun") && !slow.ok);
    bench.max_chars = 300;
    let long = run(&bench, json!({"command": "seq 1 5000"})).text;
    assert!(
        long.contains("\n1\n2\n") && long.ends_with("5000") && long.contains("left out") && long.len() < 600,
        "{long}"
    );
}

#[test]
fn the_list_of_steps_is_kept_and_rendered() {
    let bench = Bench::new(&[]);
    let todos = json!([
        {"content": "read", "status": "completed"},
        {"content": "fix", "status": "in_progress"},
        {"content": "test"},
    ]);
    let output = bench.call("todo_write", json!({"todos": todos})).unwrap();
    assert_eq!(output.text, "[x] read\n[>] fix\n[ ] test\n");
    assert_eq!(output.summary, "steps: 1 of 3 done");
    let as_text = bench.text("todo_write", json!({"todos": todos.to_string()}));
    assert!(as_text.contains("the same before"), "{as_text}");
    assert_eq!(bench.text("todo_write", json!({"todos": []})), "[no steps]\n");
}

#[test]
fn git_tools_show_the_repository() {
    let bench = Bench::new(&[("a.txt", "one\n")]);
    let repository = git2::Repository::init(bench.directory.path()).unwrap();
    let mut index = repository.index().unwrap();
    index.add_path(Path::new("a.txt")).unwrap();
    let tree = repository.find_tree(index.write_tree().unwrap()).unwrap();
    index.write().unwrap();
    let author = git2::Signature::now("t", "t@example.org").unwrap();
    repository.commit(Some("HEAD"), &author, &author, "first", &tree, &[]).unwrap();
    assert_eq!(bench.text("git_diff", json!({})), "nothing changed since the last commit");
    bench.text("edit", json!({"file_path": "a.txt", "old_string": "one", "new_string": "two"}));
    assert!(bench.text("git_status", json!({})).ends_with("\n M a.txt\n"));
    assert!(bench.text("git_diff", json!({"path": "a.txt"})).contains("-one\n+two\n"));
}

/// A repository in the bench's directory whose author is known, with one commit.
fn committed(bench: &Bench) -> git2::Repository {
    let repository = git2::Repository::init(bench.directory.path()).unwrap();
    let mut config = repository.config().unwrap();
    config.set_str("user.name", "Ada").unwrap();
    config.set_str("user.email", "ada@example.org").unwrap();
    let mut index = repository.index().unwrap();
    index.add_all(["*"], git2::IndexAddOption::DEFAULT, None).unwrap();
    let tree = repository.find_tree(index.write_tree().unwrap()).unwrap();
    index.write().unwrap();
    let author = git2::Signature::now("Ada", "ada@example.org").unwrap();
    repository.commit(Some("HEAD"), &author, &author, "first", &tree, &[]).unwrap();
    drop(tree);
    repository
}

fn head_files(repository: &git2::Repository) -> Vec<String> {
    let mut files = Vec::new();
    let tree = repository.head().unwrap().peel_to_tree().unwrap();
    tree.walk(git2::TreeWalkMode::PreOrder, |folder, entry| {
        if entry.kind() == Some(git2::ObjectType::Blob) {
            files.push(format!("{folder}{}", entry.name().unwrap()));
        }
        git2::TreeWalkResult::Ok
    })
    .unwrap();
    files
}

#[test]
fn a_commit_takes_what_was_asked_and_leaves_the_rest_staged() {
    let bench =
        Bench::new(&[("a.txt", "one\n"), ("b.txt", "one\n"), ("gone.txt", "x\n"), ("src/c.txt", "one\n")]);
    let repository = committed(&bench);
    let root = bench.directory.path();
    for (path, text) in [("a.txt", "two\n"), ("b.txt", "two\n"), ("new.txt", "n\n"), ("staged.txt", "s\n")] {
        std::fs::write(root.join(path), text).unwrap();
    }
    std::fs::remove_file(root.join("gone.txt")).unwrap();
    let mut index = repository.index().unwrap();
    index.add_path(Path::new("staged.txt")).unwrap();
    index.write().unwrap();

    let text = bench
        .text("git_commit", json!({"message": "Only a, and what is new", "paths": ["a.txt", "new.txt"]}));
    assert!(text.contains("Only a, and what is new on ") && text.contains(": 2 files"), "{text}");
    assert_eq!(head_files(&repository), ["a.txt", "b.txt", "gone.txt", "new.txt", "src/c.txt"]);
    let status = bench.text("git_status", json!({}));
    assert!(status.contains(" M b.txt\n D gone.txt\nA  staged.txt\n"), "{status}");

    std::fs::write(root.join("other.txt"), "o\n").unwrap();
    let text = bench.text("git_commit", json!({"message": "The rest"}));
    assert!(text.contains(": 3 files") && text.contains("[not in it: other.txt is not tracked"), "{text}");
    assert_eq!(head_files(&repository), ["a.txt", "b.txt", "new.txt", "src/c.txt", "staged.txt"]);
    let head = repository.head().unwrap().peel_to_commit().unwrap();
    assert_eq!(head.message().unwrap(), "The rest\n");
    assert_eq!(head.author().name().unwrap(), "Ada");
    assert_eq!(bench.text("git_status", json!({})).lines().skip(1).collect::<Vec<_>>(), ["?? other.txt"]);

    let log = bench.text("git_log", json!({}));
    let subjects: Vec<&str> = log.lines().map(|line| line.split_once(": ").unwrap().1).collect();
    assert_eq!(subjects, ["The rest", "Only a, and what is new", "first"]);
    let log = bench.text("git_log", json!({"path": "b.txt"}));
    assert!(log.contains("Ada: The rest") && !log.contains("Only a"), "{log}");
    std::fs::write(root.join("b.txt"), "zero\ntwo\n").unwrap();
    let blame = bench.text("git_log", json!({"path": "b.txt", "lines": "1-9"}));
    assert!(
        blame.starts_with("1-1 not committed yet\n2-2 ") && blame.ends_with("Ada: The rest\n"),
        "{blame}"
    );
}

/// What a commit would need a program or a person for is refused, with nothing changed.
#[test]
fn a_commit_runs_nothing_and_says_why_it_cannot() {
    let bench =
        Bench::new(&[("a.txt", "one\n"), ("big.bin", "x\n"), (".gitattributes", "*.bin filter=lfs\n")]);
    let repository = committed(&bench);
    let root = bench.directory.path();
    let hook = root.join(".git/hooks/pre-commit");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\ntouch \"$(dirname \"$0\")/../../ran\"\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let before = repository.head().unwrap().target();
    let refuses = |given, why: &str| {
        let text = bench.error("git_commit", given);
        assert!(text.contains(why), "{text}");
        assert_eq!(repository.head().unwrap().target(), before);
    };
    refuses(json!({"message": "x"}), "nothing to commit");
    std::fs::write(root.join("a.txt"), "two\n").unwrap();
    refuses(json!({"message": " \n"}), "needs a message");
    refuses(json!({"message": "x", "paths": ["nowhere.txt"]}), "nowhere.txt has no change");
    refuses(json!({"message": "x", "paths": ["../x"]}), "");
    std::fs::write(root.join("big.bin"), "y\n").unwrap();
    refuses(json!({"message": "x"}), "filter \"lfs\"");
    let mut config = repository.config().unwrap();
    config.set_bool("commit.gpgsign", true).unwrap();
    refuses(json!({"message": "x", "paths": ["a.txt"]}), "signed");
    config.set_bool("commit.gpgsign", false).unwrap();
    std::fs::write(root.join(".git/MERGE_HEAD"), format!("{}\n", before.unwrap())).unwrap();
    refuses(json!({"message": "x", "paths": ["a.txt"]}), "under way");
    std::fs::remove_file(root.join(".git/MERGE_HEAD")).unwrap();
    bench.text("git_commit", json!({"message": "x", "paths": "a.txt"}));
    assert!(!root.join("ran").exists() && !root.join(".git/ran").exists());
}

#[test]
fn an_outline_shows_definitions_of_a_file_and_the_map_of_a_directory() {
    let bench = Bench::new(&[
        ("src/lib.rs", "pub struct Basket;\nimpl Basket {\n    pub fn total(&self) {}\n}\n"),
        ("src/main.rs", "fn main() {\n    Basket.total();\n}\n"),
        ("notes.txt", "nothing\n"),
    ]);
    assert_eq!(
        bench.text("outline", json!({"path": "src/lib.rs"})),
        "struct Basket 1-1\nimpl Basket 2-4\n  method total 3-3"
    );
    let map = bench.text("outline", json!({"path": "."}));
    assert!(map.starts_with("src/lib.rs\n  struct Basket 1-1\n"), "{map}");
    assert_eq!(bench.text("outline", json!({"path": "src"})), map);
    assert!(bench.error("outline", json!({"path": "notes.txt"})).contains("no language"));
}

/// A command goes on while others run; it is read piece by piece, and nothing of it is left after it was stopped.
#[test]
fn commands_in_the_background_are_started_read_and_stopped() {
    let bench = Bench::new(&[]);
    let root = bench.directory.path();
    let started = bench.text(
        "run_shell_command",
        json!({"command": "echo ready; while [ ! -e go ]; do sleep 0.05; done; echo went; touch gone; exec sleep 1000", "is_background": true}),
    );
    assert!(started.contains(": runs since ") && started.ends_with("\nready"), "{started}");
    let id: usize = started.split(' ').nth(2).unwrap().trim_end_matches(':').parse().unwrap();
    assert!(bench.text("background", json!({"action": "read", "number": id})).ends_with("\n[no new output]"));
    bench.text("run_shell_command", json!({"command": "touch go"}));
    while !root.join("gone").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let list = bench.text("background", json!({"action": "list"}));
    assert!(list.contains(&format!("{id} runs since ")), "{list}");
    let stopped = bench.text("background", json!({"action": "stop", "number": id}));
    assert!(
        stopped.starts_with(&format!("background command {id}: stopped\n")) && stopped.contains("went"),
        "{stopped}"
    );

    let failed =
        bench.text("run_shell_command", json!({"command": "echo no; exit 3", "is_background": "true"}));
    assert!(failed.contains(": exit code 3\nno"), "{failed}");
}
