//! What a session outlives: a full context, side questions, its process. Scripted turns, real tools and logs.

use crate::agent::{Project, Running, calls, fix_add, read_add, says};
use qwright::agent::conversation::Conversation;
use qwright::agent::protocol::{ApprovalMode, Ending, Event, Op, TurnOutcome, Usage};
use qwright::agent::transcript::{Record, recover};
use qwright::agent::{Resumed, Which};
use qwright::chat::{Message, Role};
use qwright::model::scripted::ScriptedTurn;
use std::io::Write;

/// A project with three files that a context of 6,000 tokens does not hold together.
fn full() -> Project {
    let mut project = Project::new();
    project.info.context = 6_000;
    for name in ["a", "b", "c"] {
        let text: String = (1..=1000).map(|n| format!("{name} {n}\n")).collect();
        std::fs::write(project.path(&format!("{name}.txt")), text).unwrap();
    }
    project
}

fn read(name: &str) -> ScriptedTurn {
    calls("read_file", &[("file_path", name)])
}

/// Everything until the turn ends, and its outcome.
fn watched(running: &Running, op: Op) -> (Vec<Event>, TurnOutcome) {
    running.send(op);
    let mut events = Vec::new();
    loop {
        match running.next() {
            Event::TurnFinished { outcome } => return (events, outcome),
            event => events.push(event),
        }
    }
}

fn submit(text: &str) -> Op {
    Op::Submit { text: text.into() }
}

fn compactions(events: &[Event]) -> Vec<(usize, usize, Vec<String>)> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Compacted { before, after, dropped } => Some((*before, *after, dropped.clone())),
            _ => None,
        })
        .collect()
}

fn aside(running: &Running, text: &str) -> (String, Usage, Option<String>) {
    running.send(Op::Ask { text: text.into() });
    running.until(side_answer)
}

fn side_answer(event: &Event) -> Option<(String, Usage, Option<String>)> {
    match event {
        Event::AsideFinished { answer, usage, problem, .. } => {
            Some((answer.clone(), *usage, problem.clone()))
        }
        _ => None,
    }
}

fn well_formed(history: &[Message]) {
    let calls: usize = history.iter().map(|message| message.tool_calls.len()).sum();
    let results = history.iter().filter(|message| message.role == Role::Tool).count();
    assert_eq!(calls, results, "every call has a result");
}

#[test]
fn old_outputs_go_first_and_the_work_goes_on() {
    let project = full();
    let turns = vec![read("a.txt"), read("b.txt"), read("c.txt"), fix_add(), says("Done.")];
    let running = project.start(turns);
    let (events, outcome) = watched(&running, submit("Read a, b and c, then fix add"));
    running.quit();
    // No notes were asked for: the script has none.
    assert_eq!((&outcome.ending, outcome.answer.as_str()), (&Ending::Done, "Done."));
    let shortened = compactions(&events);
    assert_eq!(outcome.compactions, shortened.len());
    assert!(!shortened.is_empty());
    for (before, after, dropped) in &shortened {
        assert!(after < before && !dropped.is_empty(), "{before} {after} {dropped:?}");
    }
    let gone: Vec<String> = shortened.into_iter().flat_map(|(_, _, dropped)| dropped).collect();
    assert!(gone[0].starts_with("the output of read_file a.txt ("), "{gone:?}");
    let history = project.history();
    well_formed(&history);
    assert!(
        history[3].content.starts_with("[The output of read_file a.txt stood here."),
        "{}",
        history[3].content
    );
    assert!(history[1].content.ends_with("Request: Read a, b and c, then fix add"));
    assert!(project.text("src/add.sh").contains('+'));
    // The log has what went.
    let logged = |text: &str| {
        project.records().iter().any(|record| {
            matches!(record, Record::Message { message, .. } if message.role == Role::Tool && message.content.contains(text))
        })
    };
    assert!(logged("a 1\n") && logged("c 1\n"));
}

#[test]
fn a_conversation_that_fills_the_context_is_summed_up() {
    let project = full();
    let long = says(&"word ".repeat(1_400));
    let running = project.start(vec![long.clone(), long, says("- all was said"), says("Done.")]);
    running.request("One");
    running.request("Two, and mind the gap");
    let (events, outcome) = watched(&running, submit("Three"));
    running.quit();
    assert_eq!((&outcome.ending, outcome.answer.as_str(), outcome.compactions), (&Ending::Done, "Done.", 1));
    // What the notes cost is in the turn's count: they were asked for with all that was there in the cache.
    assert!(outcome.usage.cached > 4_000, "{:?}", outcome.usage);
    assert_eq!(compactions(&events).len(), 1);
    let shown = events
        .iter()
        .any(|event| matches!(event, Event::TextDelta { text } if text.contains("all was said")));
    assert!(!shown, "the notes are for the model");
    let history = project.history();
    let texts: Vec<&str> = history.iter().skip(3).map(|message| message.content.as_str()).collect();
    assert_eq!(texts, ["Three", "Done."]);
    assert!(history[1].content.ends_with("Request: One"));
    assert!(
        history[2].content.contains("- Two, and mind the gap\n")
            && history[2].content.contains("- all was said")
    );
    assert!(!history[2].content.contains("Three"));
}

#[test]
fn compacting_keeps_words_notes_and_files_in_work() {
    let project = Project::new();
    let running = project.start(vec![
        read_add(),
        fix_add(),
        says("Fixed."),
        says("You are welcome."),
        says("- the sign in src/add.sh was wrong"),
        says("Go on."),
    ]);
    let usage = running.request("Fix it").usage;
    assert_eq!(usage.prompt, usage.cached + usage.prefilled);
    running.request("Thank you, and never touch check.sh");
    running.send(Op::Compact { keep: Some("the sign".into()) });
    let (before, after) = running.until(|event| match event {
        Event::Compacted { before, after, .. } => Some((*before, *after)),
        _ => None,
    });
    assert!(after < before);
    let outcome = running.request("And now?");
    running.quit();
    assert_eq!((outcome.answer.as_str(), outcome.compactions), ("Go on.", 0));
    let history = project.history();
    assert_eq!(history.len(), 5, "{history:?}");
    let text = &history[2].content;
    for part in [
        "- Thank you, and never touch check.sh",
        "- the sign in src/add.sh was wrong",
        "src/add.sh as it is now:\n```\necho $(($1 + $2))\n```",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains("not done yet"));
    let cost = project.records().into_iter().find_map(|record| match record {
        Record::Compacted { usage, .. } => Some(usage),
        _ => None,
    });
    let cost = cost.unwrap();
    assert!(cost.completion > 0 && cost.cached > 0 && cost.repeated == 0, "{cost:?}");
}

#[test]
fn a_turn_is_undone_across_a_compaction() {
    let project = Project::new();
    let running = project.start(vec![says("Hello."), read_add(), fix_add(), says("Fixed."), says("Notes.")]);
    running.request("Hi");
    running.request("Fix it");
    running.send(Op::Compact { keep: None });
    running.until(|event| matches!(event, Event::Compacted { .. }).then_some(()));
    running.send(Op::Undo);
    running.until(|event| matches!(event, Event::Undone { .. }).then_some(()));
    running.quit();
    assert!(project.text("src/add.sh").contains('-'));
    let history = project.history();
    assert_eq!((history.len(), history[2].content.as_str()), (3, "Hello."));
}

#[test]
fn there_may_be_nothing_to_shorten() {
    let project = Project::new();
    let running = project.start(vec![]);
    running.send(Op::Compact { keep: None });
    let message = running.until(|event| match event {
        Event::Error { message, .. } => Some(message.clone()),
        _ => None,
    });
    assert!(message.starts_with("There is nothing to shorten"), "{message}");
    running.quit();
}

#[test]
fn a_side_question_leaves_the_history_and_the_cache_as_they_were() {
    let project = Project::new();
    let running =
        project.start(vec![says("Hello."), says("It is a sum."), says("Again."), says("First."), says("x")]);
    running.request("Hi");
    let before = project.history();
    let (answer, usage, problem) = aside(&running, "What is add?");
    assert_eq!((answer.as_str(), problem), ("It is a sum.", None));
    assert!(usage.cached > 0 && usage.repeated == 0, "{usage:?}");
    assert_eq!(project.history(), before);
    let outcome = running.request("Go on");
    assert_eq!((outcome.answer.as_str(), outcome.usage.repeated), ("Again.", 0));
    running.send(Op::Clear);
    assert_eq!(aside(&running, "Before any request?").0, "First.");
    running.quit();
    let records = |log: &std::path::PathBuf| recover(&std::fs::read(log).unwrap()).records;
    let logs: Vec<Vec<Record>> = project.logs().iter().map(records).collect();
    assert_eq!(logs.len(), 2, "a new conversation has a log of its own");
    let mut asides: Vec<String> = logs
        .into_iter()
        .flatten()
        .filter_map(|record| match record {
            Record::Aside { question, .. } => Some(question),
            _ => None,
        })
        .collect();
    asides.sort();
    assert_eq!(asides, ["Before any request?", "What is add?"]);
}

#[test]
fn a_side_question_in_a_turn_is_answered_before_the_next_model_call() {
    let project = Project::new();
    let slow = calls("run_shell_command", &[("command", "sleep 1")]);
    let running = project.start(vec![slow, says("Aside."), says("Done."), says("Late.")]);
    running.send(submit("Wait"));
    running.until(|event| {
        matches!(event, Event::ToolCallStarted { summary, .. } if !summary.is_empty()).then_some(())
    });
    assert_eq!(aside(&running, "Well?").0, "Aside.");
    assert_eq!(running.finished().answer, "Done.");
    running.quit();
    well_formed(&project.history());
}

#[test]
fn a_session_goes_on_with_the_same_messages_and_mode() {
    let project = Project::new();
    let running = project.start(vec![says("Hello.")]);
    running.request("Hi");
    running.send(Op::SetMode { mode: ApprovalMode::Plan });
    running.quit();
    let before = project.history();
    let running = project.go_on(&Which::Latest, false, vec![says("Again."), says("Bye.")]).unwrap();
    let resumed = running.until(|event| match event {
        Event::Resumed { messages, turns, forked_from, damaged } => {
            Some((*messages, *turns, forked_from.clone(), damaged.clone()))
        }
        _ => None,
    });
    assert_eq!(resumed, (3, 1, None, vec![]));
    assert_eq!(running.request("Go on").answer, "Again.");
    // It is at work: nobody else may take it up.
    let error = project.go_on(&Which::Latest, false, vec![]).err().unwrap();
    assert!(error.message.contains("at work in another process"), "{error}");
    running.quit();
    let history = project.history();
    assert_eq!(history[..3], before);
    assert!(history[3].content.starts_with("Mode: plan.") && history[3].content.ends_with("Go on"));
}

#[test]
fn turns_from_before_a_resume_are_undone_where_they_changed_no_file() {
    let project = Project::new();
    let running = project.start(vec![read_add(), fix_add(), says("Fixed."), says("Hello.")]);
    running.request("Fix it");
    running.request("Hi");
    running.quit();
    let running = project.go_on(&Which::Latest, false, vec![]).unwrap();
    running.send(Op::Undo);
    running.until(|event| matches!(event, Event::Undone { .. }).then_some(()));
    running.send(Op::Undo);
    let message = running.until(|event| match event {
        Event::Error { message, .. } => Some(message.clone()),
        _ => None,
    });
    assert!(message.starts_with("Nothing was undone: the last turn changed files before"), "{message}");
    running.quit();
    assert!(project.text("src/add.sh").contains('+'));
    assert_eq!(project.history().last().unwrap().content, "Fixed.");
}

/// A log cut anywhere, as a kill leaves it, and one with any line damaged: it goes on, well-formed, and what is lost
/// is named.
#[test]
fn a_torn_or_damaged_log_goes_on() {
    let project = Project::new();
    let running = project.start(vec![read_add(), fix_add(), says("Fixed."), says("Hello.")]);
    running.request("Fix it");
    running.request("Hi");
    running.quit();
    let log = project.logs()[0].clone();
    let whole = std::fs::read(&log).unwrap();
    let ends: Vec<usize> =
        whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    let go_on = |text: &[u8]| {
        std::fs::File::create(&log).unwrap().write_all(text).unwrap();
        let id = log.file_stem().unwrap().to_string_lossy().into_owned();
        let running = project.go_on(&Which::Id(id), false, vec![says("On.")]).unwrap();
        let damaged = running.until(|event| match event {
            Event::Resumed { damaged, .. } => Some(damaged.clone()),
            _ => None,
        });
        assert_eq!(running.request("Go on").answer, "On.");
        running.quit();
        let conversation = Conversation::of(recover(&std::fs::read(&log).unwrap()).records);
        assert!(!conversation.running);
        well_formed(&conversation.history);
        (damaged, conversation.history)
    };
    for end in &ends {
        // In the middle of the next line.
        let (damaged, history) = go_on(&whole[..(end + 20).min(whole.len())]);
        assert!(damaged.is_empty());
        let killed = history.iter().filter(|message| message.content == "Not run: The program was stopped.");
        assert!(killed.count() <= 1);
    }
    for (line, end) in ends.iter().enumerate().skip(1) {
        let mut broken = whole.clone();
        broken[end - 10] ^= 1;
        assert_eq!(go_on(&broken).0, [line + 1]);
    }
}

#[test]
fn a_fork_leaves_the_session_as_it_is() {
    let project = Project::new();
    let running = project.start(vec![says("Hello."), says("Still here.")]);
    running.request("Hi");
    let log = project.logs()[0].clone();
    let id = log.file_stem().unwrap().to_string_lossy().into_owned();
    // Also of a session that is at work.
    let fork = project.go_on(&Which::Id(id.clone()), true, vec![says("Elsewhere.")]).unwrap();
    let from = fork.until(|event| match event {
        Event::Resumed { forked_from, .. } => forked_from.clone(),
        _ => None,
    });
    assert_eq!(from, id);
    assert_eq!(fork.request("Go on").answer, "Elsewhere.");
    fork.quit();
    assert_eq!(running.request("And you?").answer, "Still here.");
    running.quit();
    let histories: Vec<Vec<Message>> = project
        .logs()
        .iter()
        .map(|log| Conversation::of(recover(&std::fs::read(log).unwrap()).records).history)
        .collect();
    assert_eq!(histories.len(), 2);
    assert_eq!(histories[0][..3], histories[1][..3]);
    let last: Vec<&str> = histories.iter().map(|history| history[4].content.as_str()).collect();
    assert!(last.contains(&"Still here.") && last.contains(&"Elsewhere."), "{last:?}");
}

#[test]
fn a_shortened_history_is_resumed_as_it_was() {
    let project = Project::new();
    let running = project.start(vec![read_add(), says("It subtracts."), says("Notes.")]);
    running.request("What is it?");
    running.send(Op::Compact { keep: None });
    running.until(|event| matches!(event, Event::Compacted { .. }).then_some(()));
    running.quit();
    let before = project.history();
    let running = project.go_on(&Which::Latest, false, vec![says("On.")]).unwrap();
    running.request("Go on");
    running.send(Op::Undo);
    running.until(|event| matches!(event, Event::Undone { .. }).then_some(()));
    running.send(Op::Undo);
    running.until(|event| matches!(event, Event::Undone { .. }).then_some(()));
    running.quit();
    assert_eq!(before.len(), 3);
    assert!(before[2].content.contains("Notes."));
    assert!(project.history().is_empty(), "both turns are taken back, the second from before the compaction");
}

/// The front ends' crate boundary: what is resumed says its mode and nothing else.
#[test]
fn what_is_resumed_knows_its_mode() {
    let mut project = Project::new();
    project.options.mode = ApprovalMode::Plan;
    project.run("Hi", vec![says("Hello.")]);
    let resumed: Resumed = qwright::agent::resume(
        project.state.path(),
        &Which::Latest,
        &project.files.path().canonicalize().unwrap(),
        false,
    )
    .unwrap();
    assert_eq!(resumed.mode(), ApprovalMode::Plan);
}
