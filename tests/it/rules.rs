//! Rules of the user as sessions obey them: made from a question, kept for later sessions, named on the command line.

use crate::agent::{Project, calls, fix_add, says};
use crate::exec;
use qwright::agent::RuleSource;
use qwright::agent::protocol::{
    Answer, ApprovalMode, Decision, Ending, Event, HeldRule, Op, Query, Rule, RuleScope,
};
use qwright::model::scripted::ScriptedTurn;
use serde_json::{Value, json};

fn run(command: &str) -> ScriptedTurn {
    calls("run_shell_command", &[("command", command)])
}

fn rule(text: &str) -> Rule {
    text.parse().unwrap()
}

/// The number of a question, its command or path, and the rule that would answer it.
fn asked(event: &Event) -> Option<(u64, String, Option<Rule>)> {
    match event {
        Event::ApprovalRequested { id, summary, suggested, .. } => {
            Some((*id, summary.clone(), suggested.clone()))
        }
        _ => None,
    }
}

fn told(event: &Event) -> Option<Vec<HeldRule>> {
    match event {
        Event::Answer { answer: Answer::Rules { rules, .. } } => Some(rules.clone()),
        _ => None,
    }
}

#[test]
fn what_is_allowed_for_the_session_is_not_asked_again() {
    let mut project = Project::new();
    project.options.mode = ApprovalMode::Default;
    project.options.can_ask = true;
    let turns = vec![
        run("sh src/add.sh 2 3"),
        run("sh src/add.sh 4 1"),
        run("sh src/add.sh 4 1 > out"),
        says("Done."),
        run("sh src/add.sh 2 3"),
        says("Done again."),
    ];
    let running = project.start(turns);
    running.send(Op::Submit { text: "Try it".into() });
    let (id, _, suggested) = running.until(asked);
    assert_eq!(suggested, Some(rule("allow run_shell_command(sh src/add.sh)")));
    let held = HeldRule { rule: suggested.unwrap(), scope: RuleScope::Session };
    running.send(Op::AddRule { rule: held.rule.clone(), scope: held.scope });
    running.send(Op::Approve { id, decision: Decision::Allow });
    // The second runs unasked, the third is more than the rule says.
    let (id, summary, suggested) = running.until(asked);
    assert_eq!((summary.as_str(), suggested), ("run sh src/add.sh 4 1 > out", None));
    running.send(Op::Query { query: Query::Rules });
    running.send(Op::Approve { id, decision: Decision::Deny { reason: None } });
    assert_eq!(running.until(told), std::slice::from_ref(&held));
    running.finished();
    assert!(!project.path("out").exists());
    running.send(Op::RemoveRule { rule: held.rule, scope: held.scope });
    running.send(Op::Query { query: Query::Rules });
    assert!(running.until(told).is_empty());
    running.send(Op::Submit { text: "Again".into() });
    let (id, ..) = running.until(asked);
    running.send(Op::Approve { id, decision: Decision::Allow });
    assert_eq!(running.finished().ending, Ending::Done);
    running.quit();
    let told = project.told();
    assert!(told[1].starts_with("exit code 0") && told[1].contains('3'), "{}", told[1]);
}

#[test]
fn what_is_denied_runs_in_no_mode_and_the_model_hears_why() {
    let mut project = Project::new();
    project.options.mode = ApprovalMode::Yolo;
    project.options.rules.given =
        vec![rule("deny run_shell_command(touch)"), rule("allow run_shell_command"), rule("deny edit(src/)")];
    let turns =
        vec![run("ls && touch made"), run("sh -c 'touch made'"), fix_add(), run("echo x > y"), says("No.")];
    let outcome = project.run("Make it", turns);
    let (touch, edit) = ("`deny run_shell_command(touch)`", "`deny edit(src/**)`");
    let reasons: Vec<&str> = outcome.denials.iter().map(|denial| denial.reason.as_str()).collect();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    let told = project.told();
    for (at, name) in [touch, touch, edit].into_iter().enumerate() {
        assert!(reasons[at].contains(name) && told[at].contains(name), "{} {}", reasons[at], told[at]);
    }
    assert!(!project.path("made").exists() && project.path("y").exists());
    assert!(project.text("src/add.sh").contains('-'));
}

#[test]
fn what_is_kept_holds_for_later_sessions_of_this_directory() {
    let (mut project, mut other) = (Project::new(), Project::new());
    let file = project.state.path().join("rules.toml");
    for project in [&mut project, &mut other] {
        project.options.mode = ApprovalMode::Default;
        project.options.rules = RuleSource { file: Some(file.clone()), given: Vec::new() };
    }
    let running = project.start(vec![fix_add(), says("Done.")]);
    running.send(Op::AddRule { rule: rule("allow edit(src/**)"), scope: RuleScope::Always });
    running.send(Op::AddRule { rule: rule("deny write_file"), scope: RuleScope::Everywhere });
    let outcome = running.request("Fix it");
    running.quit();
    // Who denies one tool that writes denies all that do.
    assert!(outcome.denials[0].reason.contains("`deny write_file`"), "{:?}", outcome.denials);
    let running = project.start(vec![fix_add(), says("Done.")]);
    running.send(Op::RemoveRule { rule: rule("deny write_file"), scope: RuleScope::Everywhere });
    assert_eq!(running.request("Fix it").denials, []);
    running.quit();
    assert!(project.text("src/add.sh").contains('+'));
    let outcome = other.run("Fix it", vec![fix_add(), says("Done.")]);
    assert_eq!(outcome.denials.len(), 1, "another directory has rules of its own");
}

fn shell(command: &str) -> Value {
    json!(crate::agent::call("run_shell_command", &[("command", command)]))
}

#[test]
fn exec_obeys_rules_of_flags_settings_and_the_file() {
    let project = exec::Project::new();
    let turns = [shell("touch made"), json!("Done.")];
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let go = |arguments: &[&str]| {
        let done = project.run(&turns, &[&["go"][..], arguments].concat());
        (done.status.code().unwrap(), text(&done.stderr))
    };
    let made = || std::fs::remove_file(project.files.path().join("made")).is_ok();
    let asks = ["--approval-mode", "default"];
    assert_eq!((go(&asks).0, made()), (3, false));
    let allow = ["--allow", "run_shell_command(touch made)"];
    assert_eq!((go(&[asks, allow].concat()).0, made()), (0, true));
    let (code, errors) = go(&["-y", "--allow", allow[1], "--deny", "run_shell_command(touch)"]);
    assert!(code == 3 && errors.contains("`deny run_shell_command(touch)`") && !made(), "{errors}");
    let (code, errors) = go(&["--deny", "run_shell_command(touch"]);
    assert!(code == 2 && errors.contains("closing bracket") && errors.contains("--deny"), "{errors}");

    // A repository has no say.
    let settings = project.home.path().join(".config/qwright");
    std::fs::create_dir_all(&settings).unwrap();
    std::fs::create_dir_all(project.files.path().join(".qwright")).unwrap();
    let allowing = "allow = [\"git_status\", \"run_shell_command(touch)\"]\n";
    std::fs::write(project.files.path().join(".qwright/config.toml"), allowing).unwrap();
    assert_eq!((go(&asks).0, made()), (3, false));
    std::fs::write(settings.join("config.toml"), allowing).unwrap();
    assert_eq!((go(&asks).0, made()), (0, true));

    let kept = project.home.path().join(".local/state/qwright/rules.toml");
    std::fs::write(&kept, "[everywhere]\ndeny = [\"run_shell_command(touch)\"]\n").unwrap();
    assert_eq!((go(&["-y"]).0, made()), (3, false));
    std::fs::write(&kept, "[everywhere]\ndeny = [\"run_shell_command(touch)\"\n").unwrap();
    let (code, errors) = go(&["-y"]);
    assert!(code == 2 && errors.contains("rules.toml:") && !made(), "{errors}");
}
