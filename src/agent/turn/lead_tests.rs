//! What the turn does of its own for a small model.
use super::tests::*;
use super::*;
use crate::agent::approval::Verdict;
use crate::agent::protocol::Event;
use serde_json::json;

#[test]
fn small_models_are_nudged_a_few_times_and_others_never() {
    let shown = answer("```rust\nfn fixed() {}\n```", &[]);
    let mut large = turn(rules());
    assert_eq!(outcome(&large.handle(Input::Generated(shown.clone()))).ending, Ending::Done);
    let mut small = turn(Rules { small: true, ..rules() });
    for _ in 0..3 {
        let effects = small.handle(Input::Generated(shown.clone()));
        assert!(appended(&effects)[1].1.starts_with("Nothing was changed"));
        // Words alone did not achieve it, so the answer has to open with the call.
        assert_eq!(effects.last(), Some(&Effect::CallModel { max_tokens: None, must: Must::Call("edit") }));
    }
    assert_eq!(outcome(&small.handle(Input::Generated(shown))).ending, Ending::Done);
}

#[test]
fn a_small_models_edits_are_checked_and_taken_back_until_the_check_passes() {
    let mut turn = Turn::new("Fix it and run `cargo test`", tools(), Rules { small: true, ..rules() });
    let report = |ok, diff: &str| ToolReport::Output {
        text: "t".into(),
        summary: "s".into(),
        diff: diff.into(),
        ok,
        seconds: 1,
    };
    let run = || call("run_shell_command", json!({"command": "cargo test"}));
    let must_edit = Effect::CallModel { max_tokens: None, must: Must::Call("edit") };
    let effects = turn.handle(Input::Start);
    assert_eq!(effects.last(), Some(&Effect::Judge { call: run() }));
    turn.handle(judged(Verdict::Run, Access::Execute));
    assert_eq!(turn.handle(Input::ToolDone(report(false, ""))).last(), Some(&must_edit));
    let effects = step(&mut turn, call("edit", json!({"file_path": "a"})), Access::Write, report(true, "+x"));
    assert!(effects.contains(&Effect::Emit(Event::DiffProduced { id: 2, diff: "+x".into() })));
    assert_eq!(effects.last(), Some(&Effect::Judge { call: run() }), "an edit that was required is checked");
    turn.handle(judged(Verdict::Run, Access::Execute));
    let effects = turn.handle(Input::ToolDone(report(false, "")));
    assert!(effects.contains(&Effect::TakeBack { forget: false }));
    assert!(appended(&effects).iter().any(|(_, text)| text.starts_with("The last command failed")));
    assert_eq!(effects.last(), Some(&must_edit));
    step(&mut turn, call("edit", json!({"file_path": "a"})), Access::Write, report(true, "+y"));
    turn.handle(judged(Verdict::Run, Access::Execute));
    let effects = turn.handle(Input::ToolDone(report(true, "")));
    assert!(calls_model(&effects) && !effects.contains(&Effect::TakeBack { forget: false }));
    assert_eq!(outcome(&turn.handle(Input::Generated(answer("Done.", &[])))).ending, Ending::Done);
}

#[test]
fn a_denial_of_the_turns_own_call_is_listed_and_does_not_end_the_work() {
    let mut turn = Turn::new("Fix it and run `cargo test`", tools(), Rules { small: true, ..rules() });
    turn.handle(Input::Start);
    assert!(calls_model(&turn.handle(judged(Verdict::Deny("plan".into()), Access::Execute))));
    let effects = turn.handle(Input::Generated(answer("The plan: change the sign.", &[])));
    assert_eq!(outcome(&effects).ending, Ending::Done);
    assert_eq!(outcome(&effects).denials.len(), 1);
}

#[test]
fn a_question_to_a_small_model_changes_nothing_and_gets_an_answer() {
    let mut turn = Turn::new("What does a do?", tools(), Rules { small: true, ..rules() });
    turn.handle(Input::Start);
    turn.handle(Input::Generated(answer("", &[call("edit", json!({"file_path": "a"}))])));
    let effects = turn.handle(judged(Verdict::Run, Access::Write));
    let texts = appended(&effects);
    assert!(texts[0].1.contains("a question"), "{effects:?}");
    assert_eq!(texts[1], (Role::User, note("answer_now", &[]).as_str()));
    assert_eq!(effects.last(), Some(&Effect::CallModel { max_tokens: None, must: Must::Answer }));
    assert_eq!(outcome(&turn.handle(Input::Generated(answer("It adds.", &[])))).ending, Ending::Done);
}

#[test]
fn a_small_model_starts_from_the_files_that_the_request_names() {
    let small = || Rules { small: true, files: Arc::from(["src/a.rs".to_string()]), ..rules() };
    for (request, must) in [
        ("What does src/a.rs do?", Must::Answer),
        ("Write src/c.rs with the tests of src/a.rs", Must::Call("write_file")),
        ("src/a.rs crashes", Must::Nothing),
        ("What does src/b.rs do?", Must::Nothing),
    ] {
        let effects = Turn::new(request, tools(), small()).handle(Input::Start);
        assert_eq!(effects.last(), Some(&Effect::CallModel { max_tokens: None, must }), "{request}");
        let asked = note("answer_from_files", &[("files", "src/a.rs")]);
        let told = if must == Must::Answer { vec![(Role::User, asked.as_str())] } else { Vec::new() };
        assert_eq!(appended(&effects), told, "{request}");
    }
}

#[test]
fn a_small_model_writes_the_one_file_anew_and_the_turn_makes_the_edit_of_it() {
    let rules = || Rules { small: true, files: Arc::from(["src/a.rs".to_string()]), ..rules() };
    let begun = || {
        let mut turn = Turn::new("Rename x in src/a.rs", tools(), rules());
        assert_eq!(
            turn.handle(Input::Start),
            [Effect::Rewrite { file: "src/a.rs".into(), refused: None, begun: false, max_tokens: None }]
        );
        turn
    };
    let mut turn = begun();
    let edit = call("edit", json!({"file_path": "src/a.rs", "old_string": "x\n", "new_string": "y\n"}));
    let usage = Usage { completion: 30, ..Usage::default() };
    let effects = turn.handle(Input::Revised { call: Some(edit.clone()), usage });
    assert_eq!(effects.last(), Some(&Effect::Judge { call: edit.clone() }));
    turn.handle(judged(Verdict::Run, Access::Write));
    // Done, and said as it was: the model is not asked.
    let effects = turn.handle(output("edited"));
    let said = note("changed", &[("path", "src/a.rs"), ("old", "x"), ("new", "y")]);
    assert_eq!(appended(&effects)[1], (Role::Assistant, said.trim_end()));
    let done = outcome(&effects);
    assert_eq!(
        (&done.ending, done.answer.as_str(), done.usage.completion),
        (&Ending::Done, said.trim_end(), 30)
    );
    // What the user made of it is told as it is, and what a line of it cannot hold the model tells.
    let settled = |result: &str| {
        let mut turn = begun();
        turn.handle(Input::Revised { call: Some(edit.clone()), usage });
        turn.handle(judged(Verdict::Ask("why".into()), Access::Write));
        turn.handle(Input::Decided(Decision::Settle { changes: Vec::new(), reason: None }));
        let effects = turn.handle(output(result));
        (turn, effects)
    };
    let (_, effects) = settled("Only a part.\n--- src/a.rs\n+++ src/a.rs\n@@ -1 +1 @@\n-x\n+y\n");
    assert_eq!(outcome(&effects).ending, Ending::Done);
    assert!(appended(&effects)[1].1.ends_with("```diff\n@@ -1 +1 @@\n-x\n+y\n```"), "{effects:?}");
    let (mut turn, effects) = settled("edited in part");
    assert_eq!(appended(&effects)[1].1, note("answer_what_changed", &[]));
    assert_eq!(effects.last(), Some(&Effect::CallModel { max_tokens: None, must: Must::Answer }));
    let effects = turn.handle(Input::Generated(answer("Renamed.", &[])));
    assert_eq!((&outcome(&effects).ending, outcome(&effects).usage.completion), (&Ending::Done, 40));
    // No file came of it: the model makes the edit itself.
    let none = Input::Revised { call: None, usage: Usage::default() };
    let effects = begun().handle(none);
    assert_eq!(effects, [Effect::CallModel { max_tokens: None, must: Must::Call("edit") }]);
    // A refused edit is the model's to go on from.
    let mut turn = begun();
    let edit = call("edit", json!({"file_path": "src/a.rs"}));
    turn.handle(Input::Revised { call: Some(edit), usage: Usage::default() });
    turn.handle(judged(Verdict::Ask("why".into()), Access::Write));
    let effects = turn.handle(Input::Decided(Decision::Deny { reason: None }));
    assert_eq!(effects.last(), Some(&Effect::CallModel { max_tokens: None, must: Must::Nothing }));
    // With a reason the file is written again, as the user says; not where nothing is wanted.
    let refused = |reason: &str| {
        let mut turn = begun();
        let edit = call("edit", json!({"file_path": "src/a.rs"}));
        turn.handle(Input::Revised { call: Some(edit), usage: Usage::default() });
        turn.handle(judged(Verdict::Ask("why".into()), Access::Write));
        turn.handle(Input::Decided(Decision::Deny { reason: Some(reason.into()) }))
    };
    let again = Effect::Rewrite {
        file: "src/a.rs".into(),
        refused: Some("call it z".into()),
        begun: false,
        max_tokens: None,
    };
    assert_eq!(refused("call it z").last(), Some(&again));
    assert_eq!(refused("Not now").last(), Some(&Effect::CallModel { max_tokens: None, must: Must::Nothing }));
    // Larger models work as they like.
    let effects = Turn::new("Rename x in src/a.rs", tools(), super::tests::rules()).handle(Input::Start);
    assert_eq!(effects, [Effect::CallModel { max_tokens: None, must: Must::Nothing }]);
}

#[test]
fn a_command_that_a_small_model_is_to_run_runs_and_is_told_of() {
    let small = Rules { small: true, ..rules() };
    let mut turn = Turn::new("Run `ls -a` and tell me what it prints.", tools(), small);
    let ls = call("run_shell_command", json!({"command": "ls -a"}));
    assert_eq!(turn.handle(Input::Start).last(), Some(&Effect::Judge { call: ls }));
    turn.handle(judged(Verdict::Run, Access::Execute));
    let failed = ToolReport::Output {
        text: "exit code 2".into(),
        summary: String::new(),
        diff: String::new(),
        ok: false,
        seconds: 1,
    };
    let effects = turn.handle(Input::ToolDone(failed));
    assert_eq!(appended(&effects)[1].1, note("answer_from_output", &[]));
    assert_eq!(effects.last(), Some(&Effect::CallModel { max_tokens: None, must: Must::Answer }));
    let effects = turn.handle(Input::Generated(answer("```\nnothing\n```", &[])));
    assert_eq!(outcome(&effects).ending, Ending::Done);
}

#[test]
fn a_small_model_asked_about_the_repository_gets_what_the_files_say_first() {
    let small = || Rules { small: true, ..rules() };
    let mut turn = Turn::new("Which module may spawn processes?", tools(), small());
    let effects = turn.handle(Input::Start);
    assert!(
        matches!(effects.last(), Some(Effect::Judge { call }) if call.name == "grep_search"),
        "{effects:?}"
    );
    turn.handle(judged(Verdict::Run, Access::Read));
    let effects = turn.handle(output("lib.rs:1: spawns processes"));
    assert_eq!(appended(&effects)[1].1, note("answer_from_lines", &[]));
    assert_eq!(effects.last(), Some(&Effect::CallModel { max_tokens: None, must: Must::Answer }));
    // Where nothing is found, any of the words will do; where that finds nothing either, the model hears so.
    let mut turn = Turn::new("Which module may spawn processes?", tools(), small());
    turn.handle(Input::Start);
    turn.handle(judged(Verdict::Run, Access::Read));
    let effects = turn.handle(output("no match"));
    assert!(
        matches!(effects.last(), Some(Effect::Judge { call }) if call.arguments["pattern"] == "(?i)spawn|process"),
        "{effects:?}"
    );
    turn.handle(judged(Verdict::Run, Access::Read));
    let effects = turn.handle(output("no match"));
    assert_eq!(appended(&effects)[1].1, note("answer_from_nothing", &[]));
    assert_eq!(effects.last(), Some(&Effect::CallModel { max_tokens: None, must: Must::Answer }));
    // What files there are is no matter for a search.
    let with_files = Rules { files: vec!["src/a.rs".into()].into(), ..small() };
    let mut turn = Turn::new("list the files in src/", tools(), with_files);
    let effects = turn.handle(Input::Start);
    let listed = |call: &ToolCall| call.name == "list_directory" && call.arguments["path"] == "src";
    assert!(matches!(effects.last(), Some(Effect::Judge { call }) if listed(call)), "{effects:?}");
    turn.handle(judged(Verdict::Run, Access::Read));
    let effects = turn.handle(output("src/a.rs"));
    assert_eq!(appended(&effects)[1].1, note("answer_from_output", &[]));
    // A larger model is never led.
    let effects = Turn::new("Which module may spawn processes?", tools(), rules()).handle(Input::Start);
    assert_eq!(effects, [Effect::CallModel { max_tokens: None, must: Must::Nothing }]);
}

#[test]
fn a_check_is_told_without_where_it_ran_and_how_long_and_a_command_to_run_as_it_is() {
    let said = "exit code 1\n  File \"/home/me/project/a.py\", line 3\nRan 1 test in 0.002s";
    let told = |request: &str| {
        let mut turn = Turn::new(request, tools(), Rules { small: true, ..rules() });
        turn.handle(Input::Start);
        turn.handle(judged(Verdict::Run, Access::Execute));
        let effects = turn.handle(output(said));
        appended(&effects)[0].1.to_string()
    };
    let portable = "exit code 1\n  File \"a.py\", line 3\nRan 1 test in #s";
    assert_eq!(told("Fix it and run `cargo test`"), portable);
    assert_eq!(told("Run `cargo test`"), said);
}
