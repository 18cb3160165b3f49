//! The loop with scripted turns against the real tools, in real temporary projects. What the model saw is read from
//! the session log, which is what a user would have.

use qwright::agent::conversation::Conversation;
use qwright::agent::protocol::{ApprovalMode, Decision, Ending, Event, Limit, Op, TurnOutcome};
use qwright::agent::transcript::{Record, recover};
use qwright::agent::{Limits, ResumeError, Session, SessionOptions, Which, resume};
use qwright::chat::{ChatFormat, Message, Role};
use qwright::model::ModelInfo;
use qwright::model::scripted::{ScriptedModel, ScriptedTurn};
use qwright::workspace::Workspace;
use qwright::workspace::shell::{SandboxChoice, Shell, ShellSettings};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

/// A call as Qwen3-Coder writes it.
pub fn call(name: &str, parameters: &[(&str, &str)]) -> String {
    let parameters: String = parameters
        .iter()
        .map(|(name, value)| format!("<parameter={name}>\n{value}\n</parameter>\n"))
        .collect();
    format!("<tool_call>\n<function={name}>\n{parameters}</function>\n</tool_call>")
}

pub fn says(text: &str) -> ScriptedTurn {
    ScriptedTurn { text: text.into(), ..ScriptedTurn::default() }
}

pub fn calls(name: &str, parameters: &[(&str, &str)]) -> ScriptedTurn {
    says(&call(name, parameters))
}

pub fn read_add() -> ScriptedTurn {
    calls("read_file", &[("file_path", "src/add.sh")])
}

pub fn fix_add() -> ScriptedTurn {
    calls("edit", &[("file_path", "src/add.sh"), ("old_string", "$1 - $2"), ("new_string", "$1 + $2")])
}

fn run_check() -> ScriptedTurn {
    calls("run_shell_command", &[("command", "sh check.sh")])
}

/// A project whose check fails, a session in it, and its log.
pub struct Project {
    pub files: tempfile::TempDir,
    pub state: tempfile::TempDir,
    pub info: ModelInfo,
    pub options: SessionOptions,
}

pub struct Running {
    pub ops: Sender<Op>,
    pub events: Receiver<Event>,
}

impl Project {
    pub fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = files.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("src/add.sh", "echo $(($1 - $2))\n");
        write("check.sh", "test \"$(sh src/add.sh 2 3)\" = 5 && echo passed\n");
        write("AGENTS.md", "Shell only, no Python.\n");
        let state = tempfile::tempdir().unwrap();
        Self {
            options: SessionOptions {
                mode: ApprovalMode::AutoEdit,
                can_ask: false,
                state: Some(state.path().to_path_buf()),
                ..SessionOptions::default()
            },
            info: ModelInfo {
                name: "scripted".into(),
                context: 32_768,
                format: ChatFormat::Qwen3Coder,
                billions: 0.0,
            },
            files,
            state,
        }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.files.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn start(&self, turns: Vec<ScriptedTurn>) -> Running {
        let model = ScriptedModel::new(self.info.clone(), turns);
        let workspace = Workspace::open(self.files.path(), &[]).unwrap();
        let (ops, events) = Session::start(Box::new(model), workspace, self.shell(), self.options.clone());
        Running { ops, events }
    }

    /// Goes on with an earlier session here, in its own mode.
    pub fn go_on(&self, which: &Which, fork: bool, turns: Vec<ScriptedTurn>) -> Result<Running, ResumeError> {
        let workspace = Workspace::open(self.files.path(), &[]).unwrap();
        let resumed = resume(self.state.path(), which, workspace.root(), fork)?;
        let options = SessionOptions { mode: resumed.mode(), ..self.options.clone() };
        let model = Box::new(ScriptedModel::new(self.info.clone(), turns));
        let (ops, events) = Session::go_on(model, workspace, self.shell(), options, resumed);
        Ok(Running { ops, events })
    }

    pub fn shell(&self) -> Shell {
        // The scripts are ours; the sandbox has tests of its own.
        Shell::with(ShellSettings {
            choice: SandboxChoice::None,
            helper: Some(env!("CARGO_BIN_EXE_qwright").into()),
            ..ShellSettings::default()
        })
    }

    /// The logs, by name.
    pub fn logs(&self) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(self.state.path().join("sessions")).unwrap();
        let mut logs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        logs.sort();
        logs
    }

    /// The records of the only session's log.
    pub fn records(&self) -> Vec<Record> {
        let logs = self.logs();
        assert_eq!(logs.len(), 1, "one session, one log");
        let recovered = recover(&std::fs::read(&logs[0]).unwrap());
        assert!(recovered.damaged.is_empty());
        recovered.records
    }

    /// One request to its end.
    pub fn run(&self, request: &str, turns: Vec<ScriptedTurn>) -> TurnOutcome {
        let running = self.start(turns);
        let outcome = running.request(request);
        running.quit();
        outcome
    }

    /// The history that the only session's log gives.
    pub fn history(&self) -> Vec<Message> {
        Conversation::of(self.records()).history
    }

    /// What the model was told by tools and by the agent, after the first message.
    pub fn told(&self) -> Vec<String> {
        let told = self.history().into_iter().skip(2).filter(|message| message.role != Role::Assistant);
        told.map(|message| message.content).collect()
    }
}

impl Running {
    pub fn send(&self, op: Op) {
        self.ops.send(op).unwrap();
    }

    pub fn next(&self) -> Event {
        self.events.recv_timeout(Duration::from_secs(60)).expect("the session says something")
    }

    pub fn until<T>(&self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(&self.next()) {
                return found;
            }
        }
    }

    pub fn finished(&self) -> TurnOutcome {
        self.until(|event| match event {
            Event::TurnFinished { outcome } => Some(outcome.clone()),
            _ => None,
        })
    }

    pub fn request(&self, text: &str) -> TurnOutcome {
        self.send(Op::Submit { text: text.into() });
        self.finished()
    }

    /// Ends the session and waits until it has.
    pub fn quit(self) {
        self.send(Op::Quit);
        while self.events.recv_timeout(Duration::from_secs(60)).is_ok() {}
    }
}

#[test]
fn a_question_is_answered_from_a_file() {
    let project = Project::new();
    let outcome =
        project.run("What does src/add.sh do?", vec![read_add(), says("It subtracts (src/add.sh).")]);
    assert_eq!((&outcome.ending, outcome.answer.as_str()), (&Ending::Done, "It subtracts (src/add.sh)."));
    assert_eq!((outcome.model_calls, outcome.tool_calls, outcome.diff.as_str()), (2, 1, ""));
    assert_eq!(outcome.usage.repeated, 0, "the prompt only grows");
    assert!(outcome.usage.cached > 0);
    let history = project.history();
    let roles: Vec<Role> = history.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::Tool, Role::Assistant]);
    assert_eq!(history[3].content.trim_end(), "echo $(($1 - $2))");
    let first = &history[1].content;
    for part in
        ["AGENTS.md\ncheck.sh\nsrc/add.sh", "Shell only, no Python.", "Mode: auto-edit", "Request: What does"]
    {
        assert!(first.contains(part), "{part} is not in {first}");
    }
    assert!(!history[0].content.contains("Shell only"), "the system message is the same everywhere");
}

#[test]
fn a_bug_is_fixed_with_an_edit_and_a_command() {
    let project = Project::new();
    let turns = vec![run_check(), read_add(), fix_add(), run_check(), says("Fixed: it adds now.")];
    let outcome = project.run("Fix add so that `sh check.sh` passes", turns);
    assert_eq!(outcome.ending, Ending::Done);
    assert_eq!(project.text("src/add.sh"), "echo $(($1 + $2))\n");
    assert!(outcome.diff.contains("-echo $(($1 - $2))\n+echo $(($1 + $2))"), "{}", outcome.diff);
    let told = project.told();
    assert!(told[0].contains("exit code 1"), "{}", told[0]);
    assert!(told[3].contains("exit code 0") && told[3].contains("passed"), "{}", told[3]);
}

#[test]
fn several_calls_in_one_answer_run_in_order() {
    let project = Project::new();
    let edit =
        call("edit", &[("file_path", "src/add.sh"), ("old_string", "$1 - $2"), ("new_string", "$1 + $2")]);
    let missing = call("read_file", &[("file_path", "nothing.sh")]);
    let check = call("run_shell_command", &[("command", "sh check.sh")]);
    let all = says(&format!("{missing}\n{edit}\n{check}"));
    let outcome = project.run("Fix it", vec![all, says("Done.")]);
    assert_eq!((outcome.ending, outcome.tool_calls), (Ending::Done, 3));
    let told = project.told();
    assert!(told[0].starts_with("Error: ") && told[0].contains("nothing.sh"), "{}", told[0]);
    assert!(told[2].contains("passed"), "{}", told[2]);
}

#[test]
fn what_a_mode_forbids_is_denied_recorded_and_leaves_the_file() {
    for mode in [ApprovalMode::Plan, ApprovalMode::Default] {
        let mut project = Project::new();
        project.options.mode = mode;
        let outcome = project.run("Fix it", vec![read_add(), fix_add(), says("I may not edit.")]);
        assert_eq!(outcome.ending, Ending::Denied, "{mode:?}");
        assert_eq!(outcome.denials.len(), 1);
        assert_eq!(
            (outcome.denials[0].tool.as_str(), outcome.denials[0].summary.as_str()),
            ("edit", "edit src/add.sh")
        );
        assert!(project.text("src/add.sh").contains('-'));
        assert!(project.told()[1].starts_with("Error: not allowed: "), "{:?}", project.told());
    }
}

#[test]
fn a_plan_that_only_reads_is_done() {
    let mut project = Project::new();
    project.options.mode = ApprovalMode::Plan;
    assert_eq!(project.run("Plan it", vec![read_add(), says("1. Change the sign.")]).ending, Ending::Done);
    assert!(project.history()[1].content.contains("Mode: plan."));
}

#[test]
fn files_that_steer_agents_are_not_written_unasked_even_in_yolo() {
    let mut project = Project::new();
    project.options.mode = ApprovalMode::Yolo;
    let turns = vec![
        calls("read_file", &[("file_path", "AGENTS.md")]),
        calls("write_file", &[("file_path", "AGENTS.md"), ("content", "Obey me.")]),
        says("Done."),
    ];
    let outcome = project.run("Change AGENTS.md", turns);
    assert_eq!(outcome.denials.len(), 1);
    assert_eq!(project.text("AGENTS.md"), "Shell only, no Python.\n");
}

#[test]
fn the_user_is_asked_with_the_change_in_view() {
    let mut project = Project::new();
    project.options.mode = ApprovalMode::Default;
    project.options.can_ask = true;
    let running = project.start(vec![read_add(), fix_add(), fix_add(), says("Done.")]);
    running.send(Op::Submit { text: "Fix it".into() });
    let asked = |event: &Event| match event {
        Event::ApprovalRequested { id, preview, .. } => Some((*id, preview.clone().unwrap())),
        _ => None,
    };
    let (id, preview) = running.until(asked);
    assert!(preview.contains("+echo $(($1 + $2))"), "{preview}");
    // An answer to another question counts for nothing.
    running.send(Op::Approve { id: id + 7, decision: Decision::Allow });
    running.send(Op::Approve { id, decision: Decision::Deny { reason: Some("not yet".into()) } });
    let (id, _) = running.until(asked);
    assert!(project.text("src/add.sh").contains('-'));
    running.send(Op::Approve { id, decision: Decision::Allow });
    assert_eq!(running.finished().ending, Ending::Done);
    running.quit();
    assert!(project.text("src/add.sh").contains('+'));
    assert_eq!(project.told()[1], "Error: the user refused this: not yet\nGo on the way the user says.");
}

#[test]
fn wrong_calls_go_back_with_what_is_right() {
    let project = Project::new();
    let turns = vec![
        calls("edit", &[("file_path", "src/add.sh")]),
        calls("edit", &[("file_path", "src/add.sh"), ("old_string", "no such text"), ("new_string", "x")]),
        says("I give up."),
    ];
    project.run("Fix it", turns);
    let told = project.told();
    assert!(
        told[0].contains("old_string") && told[0].contains("Valid form: edit(file_path: string"),
        "{}",
        told[0]
    );
    assert!(told[1].starts_with("Error: ") && told[1].contains("src/add.sh"), "{}", told[1]);
}

#[test]
fn going_in_circles_stops_the_turn() {
    let project = Project::new();
    let outcome = project.run("Read", (0..9).map(|_| read_add()).collect());
    assert!(matches!(outcome.ending, Ending::Stuck { .. }), "{:?}", outcome.ending);
    assert_eq!(outcome.tool_calls, 5);
    let repeated = ScriptedTurn { text: "la la ".repeat(9), repeat: true, ..ScriptedTurn::default() };
    let outcome = Project::new().run("Sing", vec![repeated]);
    assert!(matches!(outcome.ending, Ending::Stuck { .. }), "{:?}", outcome.ending);
}

#[test]
fn a_write_that_was_cut_off_is_not_run() {
    let project = Project::new();
    let whole = call("write_file", &[("file_path", "big.txt"), ("content", "one\ntwo\nthree")]);
    let cut =
        ScriptedTurn { text: whole[..whole.len() - 40].into(), length: true, ..ScriptedTurn::default() };
    let turns =
        vec![cut, calls("write_file", &[("file_path", "big.txt"), ("content", "one")]), says("Done.")];
    let outcome = project.run("Write big.txt", turns);
    assert_eq!((outcome.ending, outcome.tool_calls), (Ending::Done, 1));
    assert!(project.told()[0].contains("was not run. Split the work"), "{:?}", project.told());
    assert_eq!(project.text("big.txt").trim_end(), "one");
}

#[test]
fn an_interrupt_ends_the_turn_and_not_the_session() {
    let project = Project::new();
    let hang = ScriptedTurn { hang: true, text: "Let me think".into(), ..ScriptedTurn::default() };
    let slow = calls("run_shell_command", &[("command", "sleep 60")]);
    let running = project.start(vec![hang.clone(), slow, says("Here I am."), hang]);
    let started = Instant::now();
    // While the model writes.
    running.send(Op::Submit { text: "One".into() });
    running.until(|event| matches!(event, Event::Progress { .. }).then_some(()));
    running.send(Op::Interrupt);
    assert_eq!(running.finished().ending, Ending::Interrupted);
    // While a command runs.
    running.send(Op::Submit { text: "Two".into() });
    running.until(|event| matches!(event, Event::ToolCallStarted { .. }).then_some(()));
    std::thread::sleep(Duration::from_millis(200));
    running.send(Op::Interrupt);
    assert_eq!(running.finished().ending, Ending::Interrupted);
    assert!(started.elapsed() < Duration::from_secs(30), "the command was waited for");
    // An interrupt of nothing does not reach the next turn.
    running.send(Op::Interrupt);
    let outcome = running.request("Three");
    assert_eq!((outcome.ending, outcome.answer.as_str()), (Ending::Done, "Here I am."));
    // Right after the request, wherever that finds it.
    running.send(Op::Submit { text: "Four".into() });
    running.send(Op::Interrupt);
    assert_eq!(running.finished().ending, Ending::Interrupted);
    running.quit();
    let calls: usize = project.history().iter().map(|message| message.tool_calls.len()).sum();
    let results = project.history().iter().filter(|message| message.role == Role::Tool).count();
    assert_eq!(calls, results, "every call has a result");
}

#[test]
fn a_front_end_that_goes_away_ends_the_session() {
    let project = Project::new();
    let hang = ScriptedTurn { hang: true, ..ScriptedTurn::default() };
    let Running { ops, events } = project.start(vec![hang]);
    ops.send(Op::Submit { text: "One".into() }).unwrap();
    drop(ops);
    while events.recv_timeout(Duration::from_secs(60)).is_ok() {}
    assert!(matches!(
        events.recv_timeout(Duration::ZERO),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
    ));
}

#[test]
fn limits_and_a_full_context_end_the_turn_with_what_was_done() {
    let limit = |limits: Limits, turns: Vec<ScriptedTurn>| {
        let mut project = Project::new();
        project.options.limits = limits;
        match project.run("Fix it", turns).ending {
            Ending::Limit { limit, .. } => limit,
            other => panic!("{other:?}"),
        }
    };
    let some = Limits { model_calls: Some(1), ..Limits::default() };
    assert_eq!(limit(some, vec![read_add()]), Limit::ModelCalls);
    let some = Limits { tool_calls: Some(0), ..Limits::default() };
    assert_eq!(limit(some, vec![read_add()]), Limit::ToolCalls);
    let some = Limits { tokens: Some(3), ..Limits::default() };
    assert_eq!(limit(some, vec![read_add()]), Limit::Tokens);
    let hang = ScriptedTurn { hang: true, ..ScriptedTurn::default() };
    let some = Limits { wall_time: Some(Duration::from_millis(50)), ..Limits::default() };
    assert_eq!(limit(some, vec![hang]), Limit::WallTime);

    let mut project = Project::new();
    project.info.context = 1200;
    match project.run(&"long ".repeat(2000), vec![says("never")]).ending {
        Ending::ContextFull { needed, limit: 1200 } => assert!(needed > 2000, "{needed}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn output_is_fitted_to_the_context() {
    let mut project = Project::new();
    project.info.context = 12_000;
    let long: String = (1..=20_000).map(|n| format!("line {n}\n")).collect();
    std::fs::write(project.path("long.txt"), &long).unwrap();
    let turns = vec![
        calls("run_shell_command", &[("command", "cat long.txt")]),
        calls("read_file", &[("file_path", "long.txt")]),
        says("Long."),
    ];
    assert_eq!(project.run("How long?", turns).ending, Ending::Done);
    for told in project.told() {
        assert!(told.len() < 3000 * 4 + 200, "{} bytes", told.len());
        assert!(told.contains("line 1\n") && told.contains("line 20000"), "head and tail stay: {told:.200}");
    }
}

#[test]
fn a_small_model_gets_its_files_few_tools_and_nudges() {
    let mut project = Project::new();
    project.info.billions = 1.5;
    // No version and no block of code comes of it, also where it is asked again.
    let turns = vec![
        says("I cannot."),
        says("I cannot."),
        calls("glob", &[("pattern", "*.sh")]),
        says("Here is the fix:\n```sh\necho $(($1 + $2))\n```"),
        fix_add(),
        says("Fixed."),
    ];
    let outcome = project.run("Fix add.sh so that `sh check.sh` passes", turns);
    assert_eq!((outcome.ending, outcome.answer.as_str()), (Ending::Done, "Fixed."));
    let told = project.told();
    assert!(told[0].contains("exit code 1"), "the named check runs first: {}", told[0]);
    assert_eq!(told[1], "echo $(($1 - $2))\n", "then the named file is read");
    assert!(told[2].contains("there is no tool `glob`"), "{}", told[2]);
    assert!(told[3].starts_with("Nothing was changed"), "{}", told[3]);
    assert!(told[5].contains("passed"), "the check runs again after the edit: {}", told[5]);
    let mut project = Project::new();
    project.info.billions = 1.5;
    project.run("What does add.sh do?", vec![says("It subtracts.")]);
    assert!(project.history()[1].content.contains("src/add.sh:\n```\necho $(($1 - $2))\n```"));
}

#[test]
fn a_small_model_writes_a_file_anew_where_one_is_to_change() {
    let mut project = Project::new();
    project.info.billions = 1.5;
    let turns = vec![says("```sh\necho $(($1 + $2))\n```"), says("It adds.")];
    let running = project.start(turns);
    let outcome = running.request("In add.sh add instead of subtracting");
    let said =
        "src/add.sh is changed. This\n```\necho $(($1 - $2))\n```\nis now\n```\necho $(($1 + $2))\n```";
    assert_eq!((outcome.ending, outcome.answer.as_str()), (Ending::Done, said));
    assert_eq!(project.text("src/add.sh"), "echo $(($1 + $2))\n");
    // The block of code was beside the conversation, which holds the edit that came of it.
    let outcome = running.request("What does add.sh do?");
    assert_eq!(outcome.answer, "It adds.");
    let history = project.history();
    assert!(!history.iter().any(|message| message.content.contains("```sh")), "{history:?}");
    assert_eq!(history[2].tool_calls[0].name, "edit");
    // A later request that names the file shows it as it is now.
    let later = history.iter().rev().find(|message| message.content.contains("What does add.sh do?"));
    assert!(later.unwrap().content.starts_with("src/add.sh:\n```\necho $(($1 + $2))\n```"), "{later:?}");
}

#[test]
fn versions_of_the_named_file_are_tried_until_the_check_passes() {
    let version = |text: &str| ScriptedTurn { revised: Some(text.into()), ..ScriptedTurn::default() };
    let mut project = Project::new();
    project.info.billions = 1.5;
    let turns =
        vec![version("echo $(($1 * $2))\n"), version("echo $(($1 - $2)\n"), version("echo $(($1 + $2))\n")];
    let outcome = project.run("Fix add.sh so that `sh check.sh` passes", turns);
    assert_eq!(outcome.ending, Ending::Done);
    assert!(
        outcome
            .answer
            .starts_with("`sh check.sh` passes now. In src/add.sh this\n```\necho $(($1 - $2))\n```")
    );
    assert!(
        outcome
            .answer
            .ends_with("2 other versions were tried before; they did not help and were taken back.")
    );
    assert!(outcome.diff.contains("-echo $(($1 - $2))\n+echo $(($1 + $2))\n"), "{}", outcome.diff);
    let told = project.told();
    // What was taken back is not in the history: check, file, the edit that helped, check.
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[3].contains("passed"), "{told:?}");

    // Where only the check is named, its head tells what it is about.
    let mut project = Project::new();
    project.info.billions = 1.5;
    let outcome = project.run("`sh check.sh` fails, fix it", vec![version("echo $(($1 + $2))\n")]);
    assert_eq!(outcome.ending, Ending::Done, "{outcome:?}");
    assert_eq!(std::fs::read_to_string(project.path("src/add.sh")).unwrap(), "echo $(($1 + $2))\n");

    // Where none can be had, as from a server, the file is written anew.
    let mut project = Project::new();
    project.info.billions = 1.5;
    let turns = vec![says("```sh\necho $(($1 + $2))\n```"), says("It adds.")];
    let outcome = project.run("Fix add.sh so that `sh check.sh` passes", turns);
    assert_eq!((&outcome.ending, outcome.answer.as_str()), (&Ending::Done, "It adds."), "{outcome:?}");
    assert_eq!(project.text("src/add.sh"), "echo $(($1 + $2))\n");

    let mut project = Project::new();
    project.info.billions = 1.5;
    let turns = vec![version("echo $(($1 * $2))\n"), version("echo 6\n")];
    let outcome = project.run("Fix add.sh so that `sh check.sh` passes", turns);
    let Ending::Stuck { message } = outcome.ending else { panic!("{:?}", outcome.ending) };
    assert!(message.contains("2 versions of src/add.sh"), "{message}");
    assert_eq!(std::fs::read_to_string(project.path("src/add.sh")).unwrap(), "echo $(($1 - $2))\n");
    assert_eq!(outcome.diff, "");
}

#[test]
fn undo_takes_back_files_and_conversation() {
    let project = Project::new();
    let running = project.start(vec![says("Hello."), read_add(), fix_add(), says("Done."), says("Again.")]);
    running.request("Hi");
    running.request("Fix it");
    assert!(project.text("src/add.sh").contains('+'));
    running.send(Op::Undo);
    let restored = running.until(|event| match event {
        Event::Undone { restored, kept, .. } => Some((restored.clone(), kept.clone())),
        _ => None,
    });
    assert_eq!(restored, (vec!["src/add.sh".to_string()], vec![]));
    assert_eq!(project.text("src/add.sh"), "echo $(($1 - $2))\n");
    running.send(Op::SetMode { mode: ApprovalMode::Plan });
    running.request("Go on");
    running.quit();
    let history = project.history();
    let said: Vec<&str> = history.iter().skip(2).map(|message| message.content.trim()).collect();
    assert_eq!(said[0], "Hello.");
    assert!(said[1].starts_with("Mode: plan.") && said[1].ends_with("Go on"), "{}", said[1]);
    assert_eq!(said[2..], ["Again."]);
}

#[test]
fn clearing_starts_anew() {
    let project = Project::new();
    let running = project.start(vec![says("One."), says("Two.")]);
    running.request("First");
    running.send(Op::Clear);
    running.request("Second");
    running.quit();
    // Each conversation has a log of its own.
    let mut requests: Vec<String> = Vec::new();
    for log in project.logs() {
        let history = Conversation::of(recover(&std::fs::read(log).unwrap()).records).history;
        assert_eq!(history.len(), 3);
        requests.extend(history[1].content.lines().last().map(str::to_string));
    }
    requests.sort();
    assert_eq!(requests, ["Request: First", "Request: Second"]);
}

#[test]
fn a_log_that_cannot_be_written_is_said_and_the_work_goes_on() {
    let mut project = Project::new();
    let file = project.path("file");
    std::fs::write(&file, "").unwrap();
    project.options.state = Some(file);
    let running = project.start(vec![says("Hello.")]);
    running.send(Op::Submit { text: "Hi".into() });
    let message = running.until(|event| match event {
        Event::Error { message, .. } => Some(message.clone()),
        _ => None,
    });
    assert!(message.starts_with("this session is not logged"), "{message}");
    assert_eq!(running.finished().ending, Ending::Done);
    running.quit();
}

#[test]
fn the_promise_on_the_size_of_prompt_and_tools_holds() {
    let tools: usize = qwright::tools::Registry::standard()
        .specs()
        .iter()
        .map(|spec| serde_json::to_string(spec).unwrap().len())
        .sum();
    let prompt =
        std::fs::metadata(Path::new(env!("CARGO_MANIFEST_DIR")).join("prompts/system.md")).unwrap().len();
    // Four bytes a token is what this text has; the exact count is asserted where a tokenizer is at hand.
    assert!((tools + prompt as usize) / 4 < 2000, "{tools} + {prompt} bytes");
}
