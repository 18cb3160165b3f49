//! `sessions replay --live`: the session runs again with its tools. It is a session like any other, in a private copy of the
//! directory, whose model says what was recorded; each result of a tool is held against the recorded one before the
//! model goes on, and each token of an answer against the one that the model would choose now. The first difference
//! ends it. `plan` says what the log holds of it, `recorded` is the model.
//!
//! What the session changed is taken back in the copy first, by the diffs in its log: each file that is still as the
//! session left it.

mod plan;
mod recorded;

use super::against::{Found, Open};
use crate::agent::answer::ANSWER;
use crate::agent::conversation::changed_files;
use crate::agent::protocol::{Decision, Ending, Event, Op};
use crate::agent::store::Stored;
use crate::agent::{Session, SessionOptions};
use crate::chat::Role;
use crate::commands::{Failure, exec, exec_patch, exit};
use crate::config::Config;
use crate::workspace::patch::Form;
use crate::workspace::{Change, Workspace};
use plan::{Plan, Turn};
use recorded::Recorded;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often it is looked whether the user wants it to end.
const TICK: Duration = Duration::from_millis(50);

/// A result that is not the recorded one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResultDiffers {
    /// From 1.
    pub turn: usize,
    /// The tool and what it was called for.
    pub call: String,
    /// The first line that differs, from 1, and what it is; `None`: there is no such line.
    pub line: usize,
    pub recorded: Option<String>,
    pub here: Option<String>,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Live {
    pub turns: usize,
    pub answers: usize,
    pub tokens: usize,
    /// Results of tools that are the recorded ones.
    pub results: usize,
    /// The changes of the session were taken back first.
    pub taken_back: bool,
    pub result: Option<ResultDiffers>,
    pub token: Option<Found>,
    /// It went another way than the log, in words.
    pub parted: Option<String>,
    /// What of the log was not run again, in words.
    pub left_out: Vec<String>,
    failure: Option<Failure>,
}

impl Live {
    pub fn is_identical(&self) -> bool {
        self.result.is_none() && self.token.is_none() && self.parted.is_none()
    }

    fn goes_on(&self) -> bool {
        self.is_identical() && self.failure.is_none()
    }
}

type Told = Arc<Mutex<Live>>;

fn locked(told: &Told) -> MutexGuard<'_, Live> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `stored` again. `open` loads the model that it was written with.
pub(super) fn run(
    stored: &Stored,
    config: &Config,
    open: &mut Open<'_>,
    cancel: &AtomicBool,
) -> Result<Live, Failure> {
    let mut plan = Plan::of(stored)?;
    let original = exec::open(Path::new(&stored.directory))?;
    let copy = exec_patch::private_copy(&original, config, cancel)?;
    let told = Told::default();
    let others = take_back(&exec::open(copy.root())?, &plan.diffs);
    let root = copy.root().to_path_buf();
    {
        let mut live = locked(&told);
        live.taken_back = !plan.diffs.is_empty() && others.is_empty();
        live.left_out.clone_from(&plan.left_out);
        let stays =
            |path| format!("{path}: it is not as the session left it, so nothing of it was taken back");
        live.left_out.extend(others.into_iter().map(stays));
    }
    let model = open(&plan.run, &plan.setup)?;
    let places = (root.display().to_string(), stored.directory.clone());
    let recorded = Recorded::new(model, &mut plan, exec::open(&root)?, places.clone(), told.clone());
    let options = options(&plan, &stored.directory);
    let state = config.dirs.state().ok();
    let shell = exec::shell(config, state.as_deref());
    let (ops, events) = Session::start(Box::new(recorded), exec::open(&root)?, shell, options);
    for (number, turn) in plan.turns.iter().enumerate() {
        one(turn, number + 1, &places, &ops, &events, &told, cancel)?;
        let mut live = locked(&told);
        if !live.goes_on() {
            break;
        }
        live.turns += 1;
    }
    let _ = ops.send(Op::Quit);
    drop(ops);
    exec::await_end(&events);
    let mut live = std::mem::take(&mut *locked(&told));
    match live.failure.take() {
        Some(failure) => Err(failure),
        None => Ok(live),
    }
}

fn options(plan: &Plan, directory: &str) -> SessionOptions {
    let is_answer = |name: &str| name == ANSWER;
    let names = plan.run.tools.iter().map(|tool| tool.name.clone());
    SessionOptions {
        mode: plan.mode,
        can_ask: true,
        seed: plan.run.seed,
        temperature: plan.run.temperature,
        directory: Some(PathBuf::from(directory)),
        allowed_tools: Some(names.filter(|name| !is_answer(name)).collect()),
        answer: plan.run.tools.iter().find(|tool| is_answer(&tool.name)).cloned(),
        tell_messages: true,
        ..SessionOptions::default()
    }
}

/// One request, and what was done before it.
fn one(
    turn: &Turn,
    number: usize,
    places: &(String, String),
    ops: &Sender<Op>,
    events: &Receiver<Event>,
    told: &Told,
    cancel: &AtomicBool,
) -> Result<(), Failure> {
    let answered = locked(told).answers;
    // A session that is gone ends the events, too.
    for op in turn.before.iter().cloned().chain([Op::Submit { text: turn.request.clone() }]) {
        let _ = ops.send(op);
    }
    let mut results = Vec::new();
    loop {
        if cancel.load(Ordering::SeqCst) {
            let _ = ops.send(Op::Interrupt);
            return Err(Failure::new(exit::INTERRUPTED, "interrupted"));
        }
        match events.recv_timeout(TICK) {
            Ok(Event::ApprovalRequested { id, .. }) => {
                let refused = turn.results.get(results.len()).is_some_and(|result| result.is_refusal());
                let decision = if refused { Decision::Deny { reason: None } } else { Decision::Allow };
                let _ = ops.send(Op::Approve { id, decision });
            }
            Ok(Event::Message { message }) if message.role == Role::Tool => results.push(message.content),
            Ok(Event::TurnFinished { outcome }) => {
                let mut live = locked(told);
                if !live.goes_on() {
                    return Ok(());
                }
                for (here, recorded) in results.iter().zip(&turn.results) {
                    match recorded.difference(here, places) {
                        None => live.results += 1,
                        Some(found) => {
                            live.result = Some(ResultDiffers { turn: number, ..found });
                            return Ok(());
                        }
                    }
                }
                live.parted = match outcome.ending {
                    _ if !turn.whole && results.len() >= turn.results.len() => None,
                    Ending::ModelUnavailable { message, .. } | Ending::Failed { message, .. } => {
                        Some(message)
                    }
                    _ if results.len() != turn.results.len() => Some(format!(
                        "turn {number} came to {} results of tools, and {} were recorded",
                        results.len(),
                        turn.results.len()
                    )),
                    _ if live.answers - answered != turn.answers => Some(format!(
                        "turn {number} came to {} answers of the model, and {} were recorded",
                        live.answers - answered,
                        turn.answers
                    )),
                    _ => None,
                };
                return Ok(());
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                locked(told).parted = Some("the session ended".into());
                return Ok(());
            }
        }
    }
}

/// Takes back what the session changed, the last first, each file for itself. Those are told that are not as the session
/// left them, and stay as they are.
fn take_back(workspace: &Workspace, diffs: &[String]) -> Vec<String> {
    let mut changes: Vec<(String, Vec<String>)> = Vec::new();
    for part in diffs.iter().rev().flat_map(|diff| files_of(diff)) {
        let name = changed_files(part).pop().unwrap_or_default();
        let reversed = reversed(part);
        match changes.iter_mut().find(|(other, _)| *other == name) {
            Some((_, parts)) => parts.push(reversed),
            None => changes.push((name, vec![reversed])),
        }
    }
    changes.retain(|(_, parts)| !undone(workspace, parts));
    changes.into_iter().map(|(name, _)| name).collect()
}

/// Whether all these changes of a file could be made, one after the other; where one cannot, none is.
fn undone(workspace: &Workspace, diffs: &[String]) -> bool {
    let mut made: Vec<&String> = Vec::new();
    let apply = |diff: &str| {
        let change = Change::Patch(Form::UnifiedDiff, diff.into());
        workspace.plan_change(&change).is_ok_and(|plans| workspace.apply_all(&plans).is_ok())
    };
    for diff in diffs {
        if !apply(diff) {
            for diff in made.iter().rev() {
                apply(&reversed(diff));
            }
            return false;
        }
        made.push(diff);
    }
    true
}

/// A diff's files, a part each.
fn files_of(diff: &str) -> Vec<&str> {
    const HEAD: &str = "diff --git ";
    let mut begins: Vec<usize> = diff.match_indices(&format!("\n{HEAD}")).map(|(at, _)| at + 1).collect();
    begins.insert(0, 0);
    let ends = begins.iter().skip(1).copied().chain([diff.len()]);
    begins.iter().zip(ends).map(|(from, to)| &diff[*from..to]).filter(|part| !part.is_empty()).collect()
}

/// A unified diff that takes back what `diff` does. Of the lines of a change those that go stand first, as everywhere.
fn reversed(diff: &str) -> String {
    let mut out = String::new();
    let (mut goes, mut comes) = (String::new(), String::new());
    let mut last_goes = false;
    let mut in_hunk = false;
    let mut old_name = "/dev/null";
    let side = |name: &str, from: &str, to: &str| match name.strip_prefix(from) {
        Some(path) => format!("{to}{path}"),
        None => name.to_string(),
    };
    for line in diff.lines() {
        in_hunk = (in_hunk || line.starts_with("@@ ")) && !line.starts_with("diff --git ");
        let changed = in_hunk && !line.starts_with("@@ ");
        match line.split_at_checked(1) {
            Some(("+", rest)) if changed => {
                goes.push_str(&format!("-{rest}\n"));
                last_goes = true;
                continue;
            }
            Some(("-", rest)) if changed => {
                comes.push_str(&format!("+{rest}\n"));
                last_goes = false;
                continue;
            }
            // That a line has no end is said behind it.
            Some(("\\", _)) if changed && !(goes.is_empty() && comes.is_empty()) => {
                if last_goes { &mut goes } else { &mut comes }.push_str(&format!("{line}\n"));
                continue;
            }
            _ => {}
        }
        out.push_str(&std::mem::take(&mut goes));
        out.push_str(&std::mem::take(&mut comes));
        let turned = if let Some(ranges) = line.strip_prefix("@@ -") {
            let mut parts = ranges.splitn(3, ' ');
            let (old, new, rest) = (parts.next(), parts.next(), parts.next());
            let new = new.unwrap_or_default().trim_start_matches('+');
            format!("@@ -{new} +{} {}", old.unwrap_or_default(), rest.unwrap_or("@@"))
        } else if in_hunk {
            line.to_string()
        } else if let Some(name) = line.strip_prefix("--- ") {
            old_name = name;
            continue;
        } else if let Some(name) = line.strip_prefix("+++ ") {
            format!("--- {}\n+++ {}", side(name, "b/", "a/"), side(old_name, "a/", "b/"))
        } else if let Some(mode) = line.strip_prefix("new file mode ") {
            format!("deleted file mode {mode}")
        } else if let Some(mode) = line.strip_prefix("deleted file mode ") {
            format!("new file mode {mode}")
        } else {
            line.to_string()
        };
        out.push_str(&turned);
        out.push('\n');
    }
    out + &goes + &comes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reversed_diff_takes_back_what_the_diff_does() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| std::fs::read_to_string(folder.path().join(name)).ok();
        std::fs::write(folder.path().join("a.txt"), "one\n--two\n+three\nfour\n").unwrap();
        std::fs::write(folder.path().join("gone.txt"), "x\n").unwrap();
        let workspace = Workspace::open(folder.path(), &[]).unwrap();
        std::fs::write(folder.path().join("end.txt"), "one\ntwo\n").unwrap();
        let before = [file("a.txt"), file("gone.txt"), file("new.txt"), file("end.txt")];
        let diff = "diff --git a/a.txt b/a.txt\n--- a/a.txt\n+++ b/a.txt\n@@ -1,4 +1,4 @@ head\n one\n---two\n-+three\n+--2\n++3\n four\n\
            diff --git a/new.txt b/new.txt\nnew file mode 100644\n--- /dev/null\n+++ b/new.txt\n@@ -0,0 +1 @@\n+n\n\
            diff --git a/gone.txt b/gone.txt\ndeleted file mode 100644\n--- a/gone.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n\
            diff --git a/end.txt b/end.txt\n--- a/end.txt\n+++ b/end.txt\n@@ -1,2 +1 @@\n-one\n-two\n+three\n\\ No newline at end of file\n";
        let plans = workspace.plan_change(&Change::Patch(Form::UnifiedDiff, diff.into())).unwrap();
        workspace.apply_all(&plans).unwrap();
        assert_eq!(file("a.txt").unwrap(), "one\n--2\n+3\nfour\n");
        assert!(file("new.txt").is_some() && file("gone.txt").is_none());
        assert_eq!(file("end.txt").unwrap(), "three");
        assert_eq!(take_back(&workspace, &[diff.to_string()]), [""; 0], "{}", reversed(diff));
        assert_eq!([file("a.txt"), file("gone.txt"), file("new.txt"), file("end.txt")], before);
        assert_eq!(take_back(&workspace, &[diff.to_string()]).len(), 4, "it is taken back already");
    }
}
