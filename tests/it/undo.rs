//! What commands do to a workspace, taken back: with a real shell, in real repositories, through scripted sessions.
//! The single cases are `workspace::checkpoint`'s own tests.

mod history;

use crate::agent::{Project, Running, calls, says};
use qwright::agent::protocol::{Answer, Event, Op, Query};
use qwright::workspace::shell::{Shell, ShellCommand};
use qwright::workspace::{UndoReport, Workspace};
use std::fs;
use std::sync::atomic::AtomicBool;

fn run(workspace: &Workspace, shell: &Shell, command: &str) {
    let command = ShellCommand { command: command.into(), ..ShellCommand::default() };
    workspace.run_command(shell, &command, &AtomicBool::new(false), &mut |_| {}).unwrap();
}

fn shell() -> Shell {
    Project::new().shell()
}

fn undone(running: &Running) -> UndoReport {
    running.send(Op::Undo);
    running.until(|event| match event {
        Event::Undone { restored, kept, outside } => {
            Some(UndoReport { restored: restored.clone(), kept: kept.clone(), outside: outside.clone() })
        }
        _ => None,
    })
}

#[test]
fn random_histories_are_taken_back_byte_for_byte() {
    let shell = shell();
    for seed in [1, 2] {
        let tally = history::run(&shell, 60, seed, true).unwrap();
        assert!(tally.restored > 20 && tally.writes > 3 && tally.outside > 0, "{tally}");
    }
}

#[test]
fn the_same_history_without_checkpoints_is_not() {
    let error = history::run(&shell(), 60, 1, false).err().expect("a command stays");
    assert!(error.to_string().contains("turn "), "{error}");
}

#[test]
fn commands_that_only_read_cost_nothing() {
    let (files, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(files.path().join("a"), "a").unwrap();
    let workspace = Workspace::open(files.path(), &[]).unwrap();
    let store = state.path().join("checkpoints");
    workspace.keep_checkpoints(&store, Some(state.path()));
    let shell = shell();
    run(&workspace, &shell, "ls -l | head -3; cat a");
    assert!(!store.exists());
    run(&workspace, &shell, "echo b > a");
    assert!(store.exists());
    assert_eq!(fs::read_dir(&store).unwrap().count(), 0, "the originals have no name");
    assert_eq!(workspace.undo_all().unwrap().restored, ["a"]);
    assert_eq!(fs::read_to_string(files.path().join("a")).unwrap(), "a");
}

#[test]
fn a_command_that_is_stopped_is_taken_back_too() {
    let (files, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let workspace = Workspace::open(files.path(), &[]).unwrap();
    workspace.keep_checkpoints(store.path(), None);
    let cancel = AtomicBool::new(false);
    let command =
        ShellCommand { command: "echo made > made; echo ready; sleep 60".into(), ..Default::default() };
    let mut stop = |_: &str| cancel.store(true, std::sync::atomic::Ordering::SeqCst);
    let outcome = workspace.run_command(&shell(), &command, &cancel, &mut stop).unwrap();
    assert!(outcome.cancelled && files.path().join("made").exists());
    // Stopped before it began, it does not run.
    let command = ShellCommand { command: "echo late > late".into(), ..Default::default() };
    fs::write(files.path().join("a"), "a").unwrap();
    assert!(workspace.run_command(&shell(), &command, &cancel, &mut |_| {}).unwrap().cancelled);
    assert!(!files.path().join("late").exists());
    assert_eq!(workspace.undo_all().unwrap().restored, ["made"]);
    assert!(!files.path().join("made").exists());
}

#[test]
fn a_session_shows_and_takes_back_what_its_commands_did() {
    let project = Project::new();
    fs::write(project.path(".gitignore"), "out/\n").unwrap();
    let command = "rm src/add.sh; mkdir -p made/deep out; printf 'x\\n' > made/deep/x; chmod 755 check.sh; echo > out/o";
    let running = project.start(vec![
        says("Hello."),
        calls("run_shell_command", &[("command", command)]),
        says("Done."),
        says("Again."),
    ]);
    running.request("Hi");
    let outcome = running.request("Do it");
    for part in ["deleted file mode 100644", "+++ b/made/deep/x", "new mode 100755"] {
        assert!(outcome.diff.contains(part), "{part}: {}", outcome.diff);
    }
    running.send(Op::Query { query: Query::Changes });
    let (changes, others) = running.until(|event| match event {
        Event::Answer { answer: Answer::Changes { changes, others } } => {
            Some((changes.clone(), others.clone()))
        }
        _ => None,
    });
    let paths: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!((paths, others), (vec!["made/deep/x", "src/add.sh"], vec!["check.sh".to_string()]));
    let report = undone(&running);
    assert_eq!(report.restored, ["check.sh", "made/deep/x", "src/add.sh"]);
    assert_eq!(report.outside, ["ignored files: 1 under out/"]);
    assert_eq!(project.text("src/add.sh"), "echo $(($1 - $2))\n");
    assert!(!project.path("made").exists() && project.path("out/o").exists());
    running.quit();
}

#[test]
fn a_command_of_the_users_own_belongs_to_the_turn_before_it() {
    let project = Project::new();
    let running = project.start(vec![says("Hello.")]);
    running.request("Hi");
    running.send(Op::Shell { command: "echo mine > mine; rm -r src".into() });
    running.until(|event| matches!(event, Event::ToolCallFinished { .. }).then_some(()));
    assert!(project.path("mine").exists() && !project.path("src").exists());
    assert_eq!(undone(&running).restored, ["mine", "src/add.sh"]);
    assert_eq!(project.text("src/add.sh"), "echo $(($1 - $2))\n");
    assert!(!project.path("mine").exists());
    running.quit();
}
