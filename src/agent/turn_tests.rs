//! A test per transition of the turn.
use super::*;
use crate::agent::approval::Verdict;
use crate::agent::protocol::{Event, TurnOutcome};
use serde_json::json;

pub(super) fn tools() -> Arc<[ToolSpec]> {
    let spec = |name: &str, properties: serde_json::Value, required: &[&str]| {
        serde_json::from_value::<ToolSpec>(json!({
            "name": name, "description": "d",
            "parameters": {"type": "object", "properties": properties, "required": required}
        }))
        .unwrap()
    };
    Arc::from(vec![
        spec(
            "read_file",
            json!({"file_path": {"type": "string"}, "limit": {"type": "integer"}}),
            &["file_path"],
        ),
        spec("edit", json!({"file_path": {"type": "string"}}), &["file_path"]),
        spec("write_file", json!({"file_path": {"type": "string"}}), &["file_path"]),
        spec("list_directory", json!({"path": {"type": "string"}}), &[]),
        spec("grep_search", json!({"pattern": {"type": "string"}}), &["pattern"]),
        spec("run_shell_command", json!({"command": {"type": "string"}}), &["command"]),
    ])
}

pub(super) fn rules() -> Rules {
    Rules {
        answers: false,
        small: false,
        max_model_calls: None,
        max_tool_calls: None,
        max_tokens: None,
        spent: Spent::default(),
        can_ask: true,
        first_call: 0,
        files: Arc::from([]),
        root: "/home/me/project".into(),
    }
}

pub(super) fn turn(rules: Rules) -> Turn {
    let mut turn = Turn::new("Fix it", tools(), rules);
    assert_eq!(
        turn.handle(Input::Start),
        [Effect::CallModel { max_tokens: turn.rules.max_tokens, must: Must::Nothing }]
    );
    turn
}

pub(super) fn call(name: &str, arguments: serde_json::Value) -> ToolCall {
    ToolCall { name: name.into(), arguments: arguments.as_object().unwrap().clone() }
}

pub(super) fn read(path: &str) -> ToolCall {
    call("read_file", json!({ "file_path": path }))
}

pub(super) fn answer(text: &str, calls: &[ToolCall]) -> Generated {
    let mut message = Message::new(Role::Assistant, text);
    message.tool_calls = calls.to_vec();
    Generated {
        message,
        stop: StopReason::End,
        usage: Usage { prompt: 100, completion: 10, ..Usage::default() },
        truncated: false,
        problems: Vec::new(),
    }
}

pub(super) fn judged(verdict: Verdict, access: Access) -> Input {
    Input::Judged { verdict, access, summary: "does it".into() }
}

pub(super) fn output(text: &str) -> Input {
    Input::ToolDone(ToolReport::Output {
        text: text.into(),
        summary: "did it".into(),
        diff: String::new(),
        ok: true,
        seconds: 1,
    })
}

/// What enters the history, as (role, text).
pub(super) fn appended(effects: &[Effect]) -> Vec<(Role, &str)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Append(message) => Some((message.role, message.content.as_str())),
            _ => None,
        })
        .collect()
}

pub(super) fn outcome(effects: &[Effect]) -> &TurnOutcome {
    match effects.last() {
        Some(Effect::Finish(outcome)) => outcome,
        other => panic!("the turn goes on: {other:?}"),
    }
}

pub(super) fn calls_model(effects: &[Effect]) -> bool {
    matches!(effects.last(), Some(Effect::CallModel { .. }))
}

/// Runs one call to its end with `report`.
pub(super) fn step(turn: &mut Turn, call: ToolCall, access: Access, report: ToolReport) -> Vec<Effect> {
    turn.handle(Input::Generated(answer("", &[call])));
    turn.handle(judged(Verdict::Run, access));
    turn.handle(Input::ToolDone(report))
}

#[test]
fn an_answer_without_calls_ends_the_turn() {
    let mut turn = turn(rules());
    let effects = turn.handle(Input::Generated(answer(" It is done. ", &[])));
    assert_eq!(appended(&effects), [(Role::Assistant, " It is done. ")]);
    let outcome = outcome(&effects);
    assert_eq!((&outcome.ending, outcome.answer.as_str()), (&Ending::Done, "It is done."));
    assert_eq!((outcome.model_calls, outcome.tool_calls, outcome.usage.completion), (1, 0, 10));
    assert_eq!(turn.handle(Input::Generated(answer("more", &[]))), []);
}

#[test]
fn a_call_is_judged_run_and_answered() {
    let mut turn = turn(rules());
    let effects = turn.handle(Input::Generated(answer("Let me look.", &[read("a")])));
    assert_eq!(effects.last(), Some(&Effect::Judge { call: read("a") }));
    let effects = turn.handle(judged(Verdict::Run, Access::Read));
    assert_eq!(
        effects,
        [
            Effect::Emit(Event::ToolCallStarted {
                id: 1,
                name: "read_file".into(),
                summary: "does it".into()
            }),
            Effect::RunTool { id: 1, call: read("a") }
        ]
    );
    let effects = turn.handle(output("text of a"));
    assert_eq!(appended(&effects), [(Role::Tool, "text of a")]);
    assert!(calls_model(&effects));
}

#[test]
fn several_calls_run_in_order_and_an_error_in_one_stops_none() {
    let mut turn = turn(rules());
    let effects = turn.handle(Input::Generated(answer("", &[read("a"), call("nope", json!({})), read("b")])));
    assert_eq!(effects.last(), Some(&Effect::Judge { call: read("a") }));
    turn.handle(judged(Verdict::Run, Access::Read));
    let effects = turn.handle(Input::ToolDone(ToolReport::Error("no such file".into())));
    let texts = appended(&effects);
    assert_eq!(texts[0], (Role::Tool, "Error: no such file"));
    assert_eq!(
        texts[1].1,
        "Error: there is no tool `nope`. The tools are: read_file, edit, write_file, list_directory, grep_search, run_shell_command."
    );
    assert_eq!(effects.last(), Some(&Effect::Judge { call: read("b") }));
}

#[test]
fn invalid_arguments_go_back_with_the_reason_and_the_valid_form() {
    let mut turn = turn(rules());
    let effects = turn.handle(Input::Generated(answer("", &[call("read_file", json!({"limit": 3}))])));
    let texts = appended(&effects);
    assert_eq!(texts[1].0, Role::Tool);
    assert!(texts[1].1.contains("file_path"), "{}", texts[1].1);
    assert!(
        texts[1].1.ends_with("Valid form: read_file(file_path: string, limit?: integer)"),
        "{}",
        texts[1].1
    );
    assert!(calls_model(&effects));
}

#[test]
fn the_third_identical_error_says_do_something_else() {
    let mut turn = turn(rules());
    for round in 1..=3 {
        // Other calls between do not make it another error.
        step(&mut turn, read("x"), Access::Read, ToolReport::Error("y".repeat(round)));
        let effects = step(&mut turn, read("a"), Access::Read, ToolReport::Error("gone".into()));
        let text = appended(&effects)[0].1;
        assert_eq!(text.contains("Do something else"), round == 3, "{text}");
    }
}

#[test]
fn the_same_call_five_times_with_the_same_result_stops_the_turn() {
    let mut turn = turn(rules());
    let report = || ToolReport::Output {
        text: "t".into(),
        summary: "s".into(),
        diff: String::new(),
        ok: true,
        seconds: 1,
    };
    for _ in 0..4 {
        assert!(calls_model(&step(&mut turn, read("a"), Access::Read, report())));
    }
    let effects = step(&mut turn, read("a"), Access::Read, report());
    match &outcome(&effects).ending {
        Ending::Stuck { message } => assert!(message.contains("read_file 5 times"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_result_or_another_call_between_is_no_loop() {
    let mut turn = turn(rules());
    for round in 0..12 {
        let report = ToolReport::Output {
            text: (round / 4).to_string(),
            summary: String::new(),
            diff: String::new(),
            ok: true,
            seconds: 1,
        };
        assert!(calls_model(&step(&mut turn, read("a"), Access::Read, report)));
    }
}

#[test]
fn a_cut_off_call_is_not_run_and_the_model_is_told_to_split() {
    let mut turn = turn(rules());
    let mut cut = answer("", &[]);
    cut.truncated = true;
    cut.stop = StopReason::Length;
    for _ in 0..3 {
        let effects = turn.handle(Input::Generated(cut.clone()));
        assert!(appended(&effects)[1].1.contains("Split the work"));
        assert!(calls_model(&effects));
    }
    let effects = turn.handle(Input::Generated(cut));
    assert!(matches!(outcome(&effects).ending, Ending::Limit { limit: Limit::AnswerLength, .. }));
}

#[test]
fn whole_calls_before_the_cut_run_and_the_note_comes_after_their_results() {
    let mut turn = turn(rules());
    let mut cut = answer("", &[read("a")]);
    cut.truncated = true;
    turn.handle(Input::Generated(cut));
    turn.handle(judged(Verdict::Run, Access::Read));
    let effects = turn.handle(output("text"));
    let texts = appended(&effects);
    assert_eq!((texts[0].0, texts[1].0), (Role::Tool, Role::User));
    assert!(texts[1].1.contains("cut off"));
}

#[test]
fn a_whole_answer_restores_the_chances_after_length() {
    let mut turn = turn(rules());
    for _ in 0..4 {
        let mut cut = answer("text", &[]);
        cut.stop = StopReason::Length;
        assert!(calls_model(&turn.handle(Input::Generated(cut))));
        step(&mut turn, read("a"), Access::Read, ToolReport::Error("e".into()));
    }
}

#[test]
fn problems_of_the_parser_are_told() {
    let mut turn = turn(rules());
    let mut bad = answer("", &[]);
    bad.problems = vec!["the arguments are not JSON".into()];
    for round in 1..5 {
        let effects = turn.handle(Input::Generated(bad.clone()));
        let text = appended(&effects)[1].1;
        assert!(text.contains("the arguments are not JSON"));
        assert_eq!(text.contains("Do something else"), round >= 3);
        assert!(calls_model(&effects));
    }
    assert!(matches!(outcome(&turn.handle(Input::Generated(bad))).ending, Ending::Stuck { .. }));
}

#[test]
fn repetition_stops_the_turn_and_its_calls_do_not_run() {
    let mut turn = turn(rules());
    let mut repeated = answer("la la la", &[read("a")]);
    repeated.stop = StopReason::Repetition;
    let effects = turn.handle(Input::Generated(repeated));
    assert!(matches!(outcome(&effects).ending, Ending::Stuck { .. }));
    assert!(appended(&effects)[1].1.starts_with("Not run"));
}

#[test]
fn asking_allows_or_denies_with_the_users_reason() {
    let mut turn = turn(rules());
    turn.handle(Input::Generated(answer("", &[call("edit", json!({"file_path": "a"})), read("b")])));
    let effects = turn.handle(judged(Verdict::Ask("why".into()), Access::Write));
    assert!(matches!(effects.last(), Some(Effect::AskApproval { id: 1, .. })), "{effects:?}");
    let effects = turn.handle(Input::Decided(Decision::Deny { reason: Some("wrong file".into()) }));
    let told = "Error: the user refused this: wrong file\nGo on the way the user says.";
    assert_eq!(appended(&effects), [(Role::Tool, told)]);
    assert_eq!(effects.last(), Some(&Effect::Judge { call: read("b") }));
    turn.handle(judged(Verdict::Ask("why".into()), Access::Read));
    let effects = turn.handle(Input::Decided(Decision::Allow));
    assert!(matches!(effects.last(), Some(Effect::RunTool { id: 2, .. })));
}

#[test]
fn with_nobody_to_ask_asking_is_denying_and_it_is_recorded() {
    let mut turn = turn(Rules { can_ask: false, ..rules() });
    turn.handle(Input::Generated(answer("", &[call("edit", json!({"file_path": "a"}))])));
    let effects = turn.handle(judged(Verdict::Ask("each change is approved".into()), Access::Write));
    assert!(appended(&effects)[0].1.contains("not allowed: each change is approved"));
    let effects = turn.handle(Input::Generated(answer("I may not.", &[])));
    let outcome = outcome(&effects);
    assert_eq!(outcome.ending, Ending::Denied);
    assert_eq!(
        outcome.denials,
        [Denial { tool: "edit".into(), summary: "does it".into(), reason: "each change is approved".into() }]
    );
}

#[test]
fn a_denial_that_did_not_end_the_work_is_only_listed() {
    let mut turn = turn(rules());
    turn.handle(Input::Generated(answer("", &[call("edit", json!({"file_path": "a"}))])));
    turn.handle(judged(Verdict::Deny("plan".into()), Access::Write));
    step(&mut turn, read("a"), Access::Read, ToolReport::Error("x".into()));
    let effects = turn.handle(Input::Generated(answer("Here is the plan.", &[])));
    assert_eq!(outcome(&effects).ending, Ending::Done);
    assert_eq!(outcome(&effects).denials.len(), 1);
}

#[test]
fn an_interrupt_leaves_a_well_formed_history_from_every_state() {
    let stop = || Input::Stopped { why: Stop::Interrupted, partial: None };
    // While the model writes; what it wrote is kept.
    let mut one = turn(rules());
    let partial = Some(answer("half an ans", &[read("a")]));
    let effects = one.handle(Input::Stopped { why: Stop::Interrupted, partial });
    assert_eq!(
        appended(&effects).iter().map(|(role, _)| *role).collect::<Vec<_>>(),
        [Role::Assistant, Role::Tool]
    );
    assert_eq!(outcome(&effects).ending, Ending::Interrupted);
    // While a call is judged, asked about, or runs: it and the next get a result each.
    for inputs in [
        vec![],
        vec![judged(Verdict::Ask("why".into()), Access::Write)],
        vec![judged(Verdict::Run, Access::Write)],
    ] {
        let mut turn = turn(rules());
        turn.handle(Input::Generated(answer("", &[read("a"), read("b")])));
        for input in inputs {
            turn.handle(input);
        }
        let effects = turn.handle(stop());
        assert_eq!(appended(&effects), [(Role::Tool, "Not run: Interrupted."); 2]);
    }
}

#[test]
fn limits_end_the_turn() {
    let limit_of = |effects: &[Effect]| match &outcome(effects).ending {
        Ending::Limit { limit, .. } => *limit,
        other => panic!("{other:?}"),
    };
    let mut calls = turn(Rules { max_model_calls: Some(2), ..rules() });
    assert!(calls_model(&step(&mut calls, read("a"), Access::Read, ToolReport::Error("e".into()))));
    assert_eq!(
        limit_of(&step(&mut calls, read("b"), Access::Read, ToolReport::Error("e".into()))),
        Limit::ModelCalls
    );

    let mut tools = turn(Rules { max_tool_calls: Some(1), ..rules() });
    tools.handle(Input::Generated(answer("", &[read("a"), read("b")])));
    tools.handle(judged(Verdict::Run, Access::Read));
    let effects = tools.handle(output("t"));
    assert_eq!(limit_of(&effects), Limit::ToolCalls);
    assert_eq!(appended(&effects).len(), 2, "both calls have a result");

    let mut tokens = turn(Rules { max_tokens: Some(10), ..rules() });
    assert_eq!(
        limit_of(&step(&mut tokens, read("a"), Access::Read, ToolReport::Error("e".into()))),
        Limit::Tokens
    );

    let mut time = turn(rules());
    let stopped = Input::Stopped { why: Stop::WallTime, partial: None };
    assert_eq!(limit_of(&time.handle(stopped)), Limit::WallTime);
}

#[test]
fn the_last_allowed_answer_may_be_the_final_one() {
    let mut turn = turn(Rules { max_model_calls: Some(1), max_tokens: Some(10), ..rules() });
    assert_eq!(outcome(&turn.handle(Input::Generated(answer("done", &[])))).ending, Ending::Done);
}

#[test]
fn what_only_the_user_can_repair_ends_the_turn() {
    let mut turn = turn(rules());
    let report = ToolReport::Fatal { message: "disk full".into(), hint: "make room".into() };
    let effects = step(&mut turn, read("a"), Access::Read, report);
    assert!(matches!(&outcome(&effects).ending, Ending::Failed { hint, .. } if hint == "make room"));
    let mut turn = self::turn(rules());
    let effects = turn.handle(Input::ModelFailed(ModelError::ContextFull { needed: 9, limit: 8 }));
    assert_eq!(outcome(&effects).ending, Ending::ContextFull { needed: 9, limit: 8 });
}

#[test]
fn an_empty_answer_gets_one_more_chance() {
    let mut turn = turn(rules());
    assert!(calls_model(&turn.handle(Input::Generated(answer("  ", &[])))));
    assert!(matches!(outcome(&turn.handle(Input::Generated(answer("", &[])))).ending, Ending::Stuck { .. }));
}

#[test]
fn an_input_nobody_waits_for_changes_nothing() {
    let mut turn = turn(rules());
    assert_eq!(turn.handle(output("late")), []);
    assert_eq!(turn.handle(Input::Decided(Decision::Allow)), []);
    assert!(matches!(turn.handle(Input::Generated(answer("ok", &[]))).last(), Some(Effect::Finish(_))));
}

#[test]
fn to_and_fro_between_two_calls_is_going_in_circles() {
    let mut turn = turn(rules());
    let Input::ToolDone(same) = output("same") else { unreachable!() };
    for round in 1.. {
        assert!(round < 10, "it never ends");
        let mut ended = false;
        for path in ["a", "b"] {
            let effects = step(&mut turn, read(path), Access::Read, same.clone());
            ended |= matches!(effects.last(), Some(Effect::Finish(_)));
        }
        if ended {
            assert_eq!(round, SAME_CALL_STOPS);
            break;
        }
    }
}
