//! The state of the screen driven by keys and events, without a terminal.

use super::*;
use crate::agent::protocol::{Access, Answer, Change, Decision, Ending, Event, RuleScope, TurnOutcome};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

struct Driven {
    app: App,
    now: Instant,
}

impl Driven {
    fn new() -> Self {
        let mut driven = Self { app: App::new(ThemeName::Plain), now: Instant::now() };
        driven.begin();
        driven
    }

    fn begin(&mut self) -> Vec<Effect> {
        self.event(Event::SessionStarted {
            id: "s".into(),
            model: "m".into(),
            context: 1000,
            directory: "d".into(),
            mode: ApprovalMode::Default,
            sandbox: "full".into(),
            sandbox_note: String::new(),
            tools: Vec::new(),
        })
    }

    fn event(&mut self, event: Event) -> Vec<Effect> {
        self.now += Duration::from_secs(1);
        self.app.handle(Input::Agent(event), self.now)
    }

    fn key(&mut self, code: KeyCode, modifiers: KeyModifiers) -> Vec<Effect> {
        self.now += Duration::from_millis(10);
        self.app.handle(Input::Key(KeyEvent::new(code, modifiers)), self.now)
    }

    fn typed(&mut self, text: &str) -> Vec<Effect> {
        let sign = |c| if c == '\n' { KeyCode::Enter } else { KeyCode::Char(c) };
        text.chars().flat_map(|c| self.key(sign(c), KeyModifiers::NONE)).collect()
    }
}

fn submit(text: &str) -> Effect {
    Effect::Op(Op::Submit { text: text.into() })
}

fn remember(text: &str) -> Effect {
    Effect::Ask(Ask::Remember(text.into()))
}

fn finished(ending: Ending) -> Event {
    Event::TurnFinished { outcome: TurnOutcome::ended(ending) }
}

#[test]
fn a_request_waits_for_the_turn_that_runs_and_comes_back_on_an_interrupt() {
    let mut d = Driven::new();
    assert_eq!(d.typed("one\n"), [remember("one"), submit("one")]);
    d.event(Event::TurnStarted);
    assert_eq!(d.typed("two\n"), [remember("two")]);
    assert_eq!(d.event(finished(Ending::Done)), [submit("two")]);
    d.event(Event::TurnStarted);
    d.typed("three\n");
    assert_eq!(d.key(KeyCode::Esc, KeyModifiers::NONE), [Effect::Op(Op::Interrupt)]);
    assert!(d.key(KeyCode::Esc, KeyModifiers::NONE).is_empty(), "once is enough");
    assert_eq!(d.app.composer.text(), "three");
    assert!(d.event(finished(Ending::Interrupted)).is_empty());
}

#[test]
fn a_question_takes_no_key_that_was_meant_for_the_composer() {
    let mut d = Driven::new();
    d.typed("x\n");
    d.event(Event::TurnStarted);
    let ask = Event::ApprovalRequested {
        id: 7,
        name: "edit".into(),
        summary: String::new(),
        access: Access::Write,
        reason: String::new(),
        preview: None,
        changes: vec![Change { path: "f".into(), before: Some("a\n".into()), after: Some("b\n".into()) }],
        command: None,
        suggested: None,
    };
    d.typed("ma");
    d.app.handle(Input::Agent(ask), d.now);
    assert!(d.typed("y").is_empty() && d.app.overlay.is_some());
    d.now += Duration::from_secs(1);
    assert_eq!(d.typed("y"), [Effect::Op(Op::Approve { id: 7, decision: Decision::Allow })]);
}

fn ask_to_run(id: u64) -> Event {
    Event::ApprovalRequested {
        id,
        name: "run_shell_command".into(),
        summary: String::new(),
        access: Access::Execute,
        reason: String::new(),
        preview: None,
        changes: Vec::new(),
        command: Some("make".into()),
        suggested: "allow run_shell_command(make)".parse().ok(),
    }
}

#[test]
fn whoever_writes_on_through_a_question_writes_and_answers_nothing() {
    let mut d = Driven::new();
    d.typed("x\n");
    d.event(Event::TurnStarted);
    d.typed("it ma");
    d.app.handle(Input::Agent(ask_to_run(7)), d.now);
    for c in "y be any key".chars() {
        d.now += Duration::from_millis(300);
        assert!(d.typed(&c.to_string()).is_empty());
    }
    assert!(d.key(KeyCode::Esc, KeyModifiers::NONE).is_empty() && d.app.overlay.is_some());
    assert_eq!(d.app.composer.text(), "it may be any key");
}

#[test]
fn a_rule_for_good_is_made_by_its_own_key_alone() {
    for (code, modifiers) in [
        (KeyCode::Char('a'), KeyModifiers::NONE),
        (KeyCode::Char('A'), KeyModifiers::CONTROL),
        (KeyCode::Char('y'), KeyModifiers::CONTROL),
        (KeyCode::Char('y'), KeyModifiers::ALT),
    ] {
        let mut d = Driven::new();
        d.event(ask_to_run(7));
        d.now += Duration::from_secs(1);
        assert!(d.key(code, modifiers).is_empty() && d.app.overlay.is_some(), "{code:?} {modifiers:?}");
    }
}

#[test]
fn what_was_offered_for_a_text_goes_with_it() {
    let mut d = Driven::new();
    d.app.files = vec!["list.txt".into()];
    d.typed("please see @li");
    assert!(d.app.popup.is_some());
    d.app.handle(
        Input::Edited { purpose: Purpose::Composer, text: Some("日本".into()), problem: None },
        d.now,
    );
    assert_eq!(d.typed("\n"), [remember("日本"), submit("日本")]);
}

#[test]
fn a_mode_that_was_chosen_before_the_session_began_holds() {
    let mut d = Driven { app: App::new(ThemeName::Plain), now: Instant::now() };
    d.typed("/plan do it\n");
    assert_eq!(d.app.mode, ApprovalMode::Plan);
    let effects = d.begin();
    assert_eq!(effects, [Effect::Op(Op::SetMode { mode: ApprovalMode::Plan }), submit("do it")]);
}

#[test]
fn a_model_that_cannot_be_had_costs_no_conversation() {
    let mut d = Driven::new();
    d.typed("one\n");
    d.event(Event::TurnStarted);
    d.event(finished(Ending::Done));
    assert_eq!(d.typed("/model typo\n").last(), Some(&Effect::Op(Op::Quit)));
    let open =
        |model: &str| Effect::Ask(Ask::Open { model: Some(model.into()), session: Which::Id("s".into()) });
    assert_eq!(d.app.handle(Input::AgentGone, d.now), [open("typo")]);
    d.app.handle(Input::Told(Told::Failed { message: "no".into(), hint: None }), d.now);
    assert_eq!(d.typed("/model good\n").last(), Some(&open("good")));
}

#[test]
fn what_is_sent_behind_a_command_of_the_users_own_waits_for_it() {
    let mut d = Driven::new();
    let run = || Effect::Op(Op::Shell { command: "make".into() });
    assert_eq!(d.typed("!make\n"), [remember("!make"), run()]);
    assert_eq!(d.typed("next\n"), [remember("next")]);
    let done = |id| Event::ToolCallFinished { id, name: "shell".into(), ok: true, summary: String::new() };
    assert_eq!(d.event(done(1)), [submit("next")]);
    // And a command waits for the turn.
    d.event(Event::TurnStarted);
    assert_eq!(d.typed("!make\n"), [remember("!make")]);
    assert_eq!(d.event(finished(Ending::Done)), [run()]);
    assert_eq!(d.typed("then\n"), [remember("then")]);
    assert_eq!(d.key(KeyCode::Esc, KeyModifiers::NONE), [Effect::Op(Op::Interrupt)]);
    assert_eq!(d.app.composer.text(), "then");
}

#[test]
fn a_list_that_comes_late_covers_no_question() {
    let mut d = Driven::new();
    d.event(ask_to_run(7));
    let choice = Choice { value: "m".into(), ..Choice::default() };
    d.app.handle(Input::Told(Told::Models(vec![choice])), d.now);
    assert!(matches!(d.app.overlay, Some(Overlay::Approval(_))));
}

#[test]
fn ctrl_c_leaves_at_the_second_time_and_ctrl_d_on_an_empty_line() {
    let mut d = Driven::new();
    d.typed("abc");
    assert!(d.key(KeyCode::Char('d'), KeyModifiers::CONTROL).is_empty());
    assert!(d.key(KeyCode::Char('c'), KeyModifiers::CONTROL).is_empty());
    assert!(d.app.composer.is_empty());
    assert_eq!(d.key(KeyCode::Char('c'), KeyModifiers::CONTROL), [Effect::Quit]);
    assert_eq!(d.key(KeyCode::Char('d'), KeyModifiers::CONTROL), [Effect::Quit]);
}

fn rule(text: &str, scope: RuleScope) -> HeldRule {
    HeldRule { rule: text.parse().unwrap(), scope }
}

fn add(text: &str, scope: RuleScope) -> Effect {
    Effect::Op(Op::AddRule { rule: text.parse().unwrap(), scope })
}

fn approve(id: u64) -> Effect {
    Effect::Op(Op::Approve { id, decision: Decision::Allow })
}

#[test]
fn a_rule_is_shown_and_added_with_the_answer() {
    let mut d = Driven::new();
    let ask = |id, command: Option<&str>, rule: &str| Event::ApprovalRequested {
        id,
        name: "tool".into(),
        summary: String::new(),
        access: if command.is_some() { Access::Execute } else { Access::Write },
        reason: String::new(),
        preview: None,
        changes: match command {
            Some(_) => Vec::new(),
            None => vec![Change { path: "f".into(), before: None, after: Some("b\n".into()) }],
        },
        command: command.map(str::to_string),
        suggested: rule.parse().ok(),
    };
    let (make, edit) = ("allow run_shell_command(make)", "allow edit(src/**)");
    for (keys, scope) in [("s", RuleScope::Session), ("A", RuleScope::Always)] {
        d.event(ask(1, Some("make"), make));
        assert_eq!(d.typed(keys), [add(make, scope), approve(1)]);
        d.event(ask(2, None, edit));
        d.now += Duration::from_secs(1);
        // In a review `s` and `a` mean something else, and the rule is shown before it is made.
        let key = keys.to_uppercase();
        assert!(d.typed(&key).is_empty() && d.app.overlay.is_some());
        assert!(d.key(KeyCode::Esc, KeyModifiers::NONE).is_empty() && d.app.overlay.is_some());
        assert!(d.typed(&key).is_empty());
        assert_eq!(d.typed("y"), [add(edit, scope), approve(2)]);
        assert!(d.app.overlay.is_none());
    }
    d.event(ask(3, Some("make $(x)"), ""));
    d.now += Duration::from_secs(1);
    assert!(d.typed("sA").is_empty(), "no rule, no answer by one");
    assert_eq!(d.typed("y"), [approve(3)]);
}

#[test]
fn permissions_show_rules_and_change_them() {
    let mut d = Driven::new();
    let query = Effect::Op(Op::Query { query: Query::Rules });
    let text = |d: &Driven| format!("{:?}", d.app.transcript.kinds().next_back().unwrap());
    let held =
        vec![rule("deny write_file", RuleScope::Everywhere), rule("allow edit(src/**)", RuleScope::Session)];
    let told = || Event::Answer { answer: Answer::Rules { rules: held.clone(), file: Some("F".into()) } };
    let remove = |held: &HeldRule| Effect::Op(Op::RemoveRule { rule: held.rule.clone(), scope: held.scope });
    assert_eq!(d.typed("/permissions\n").last(), Some(&query));
    d.event(told());
    assert!(matches!(d.app.overlay, Some(Overlay::Picker(_))));
    d.key(KeyCode::Down, KeyModifiers::NONE);
    assert_eq!(d.typed("\n"), [remove(&held[1])]);
    assert_eq!(d.typed("/permissions remove 1\n").last(), Some(&query));
    assert_eq!(d.event(told()), [remove(&held[0])]);
    d.typed("/permissions remove 3\n");
    assert!(d.event(told()).is_empty() && text(&d).contains("no rule 3"), "{}", text(&d));
    let typed = d.typed("/permissions deny run_shell_command(git push)\n");
    assert_eq!(typed.last(), Some(&add("deny run_shell_command(git push)", RuleScope::Session)));
    let typed = d.typed("/permissions always allow edit(docs/)\n");
    assert_eq!(typed.last(), Some(&add("allow edit(docs/**)", RuleScope::Always)));
    for (words, part) in
        [("allow fly", "names no tool"), ("remove x", "remove N"), ("nonsense", "is not one of")]
    {
        d.typed(&format!("/permissions {words}\n"));
        assert!(text(&d).contains(part), "{words}: {}", text(&d));
    }
    d.typed("/permissions yolo\n");
    assert_eq!(d.app.mode, ApprovalMode::Yolo);
}

#[test]
fn every_slash_command_does_something_without_a_session_and_with_one() {
    for command in super::super::slash::COMMANDS {
        for mut d in [Driven::new(), Driven { app: App::new(ThemeName::Plain), now: Instant::now() }] {
            let before = d.app.transcript.kinds().count();
            let effects = d.typed(&format!(" /{}\n", command.name));
            let did = effects.iter().any(|effect| !matches!(effect, Effect::Ask(Ask::Remember(_))))
                || d.app.overlay.is_some()
                || d.app.transcript.kinds().count() != before
                || !d.app.queue.is_empty();
            assert!(did, "/{}", command.name);
        }
    }
}
