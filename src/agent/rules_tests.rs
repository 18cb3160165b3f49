//! Rules over the table of modes: (rules, mode, call) -> verdict, in a real workspace with the real tools.

use super::*;
use crate::agent::approval::{Containment, Verdict, of_call, suggestion};
use crate::agent::protocol::ApprovalMode;
use crate::workspace::Workspace;

fn rules(texts: &str) -> Rules {
    let given =
        texts.split(" + ").filter(|text| !text.is_empty()).map(|text| text.parse().unwrap()).collect();
    let mut rules = Rules::default();
    assert!(rules.reload(&RuleSource { file: None, given }, "/").is_empty());
    rules
}

fn workspace() -> (tempfile::TempDir, Workspace) {
    let files = tempfile::tempdir().unwrap();
    let write = |path: &str| {
        let path = files.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x\n").unwrap();
    };
    for path in ["src/a.rs", "src/deep/b.rs", "secrets/key", "AGENTS.md", ".github/ci.yml", "top.md"] {
        write(path);
    }
    std::os::unix::fs::symlink("secrets/key", files.path().join("link")).unwrap();
    let workspace = Workspace::open(files.path(), &[]).unwrap();
    (files, workspace)
}

/// `run LINE`, `edit PATH`, or `TOOL {json}`.
fn call(text: &str) -> (&str, Arguments) {
    let (tool, rest) = text.split_once(' ').unwrap_or((text, "{}"));
    let arguments = match tool {
        "run" => serde_json::json!({ "command": rest }),
        "edit" => serde_json::json!({ "file_path": rest, "old_string": "x", "new_string": "y" }),
        _ => serde_json::from_str(rest).unwrap(),
    };
    let tool = if tool == "run" { "run_shell_command" } else { tool };
    (tool, arguments.as_object().unwrap().clone())
}

/// Run, ask or deny, by its first letter, and the reason.
fn word(texts: &str, mode: &str, tier: Containment, text: &str, workspace: &Workspace) -> (char, String) {
    let (tool, arguments) = call(text);
    let registry = Registry::standard();
    let (tool, mode) = (registry.get(tool).unwrap(), mode.parse::<ApprovalMode>().unwrap());
    match of_call(mode, tool, &arguments, workspace, tier, &rules(texts)) {
        Verdict::Run => ('r', String::new()),
        Verdict::Ask(reason) => ('a', reason),
        Verdict::Deny(reason) | Verdict::Vain(reason) => ('d', reason),
    }
}

fn check(cases: &[(&str, &str, &str, char)]) {
    let (_files, workspace) = workspace();
    for (rules, mode, call, expected) in cases {
        let (got, reason) = word(rules, mode, Containment::Full, call, &workspace);
        assert_eq!(got, *expected, "{rules} | {mode} | {call}: {reason}");
        if rules.starts_with("deny") && got == 'd' && *mode == "yolo" {
            let rule: Rule = rules.split(" + ").next().unwrap().parse().unwrap();
            assert!(reason.contains(&rule.to_string()), "the rule is named: {reason}");
        }
    }
}

const TEST: &str = "allow run_shell_command(cargo test)";
const PUSH: &str = "deny run_shell_command(git push)";

#[test]
fn an_allowed_prefix_answers_for_plain_commands_alone() {
    check(&[
        ("", "default", "run cargo test", 'a'),
        (TEST, "default", "run cargo test", 'r'),
        (TEST, "default", "run cargo test --lib 'a b'", 'r'),
        (TEST, "default", "run cargo  test", 'r'),
        (TEST, "default", "run \"cargo\" test", 'r'),
        (TEST, "default", "run c\\argo 'te'st", 'r'),
        (TEST, "default", "run cargo test $x *.rs", 'r'),
        (TEST, "default", "run cargo test 2>&1 | tail -5", 'r'),
        (TEST, "default", "run cd src && cargo test", 'r'),
        (TEST, "default", "run cargo test && cargo test -q; ls", 'r'),
        (TEST, "default", "run cargo test > /dev/null", 'r'),
        (TEST, "default", "run cargo testx", 'a'),
        (TEST, "default", "run cargo", 'a'),
        (TEST, "default", "run cargo build", 'a'),
        (TEST, "default", "run cargo -q test", 'a'),
        (TEST, "default", "run ./cargo test", 'a'),
        (TEST, "default", "run /tmp/cargo test", 'a'),
        (TEST, "default", "run cargo test; rm -rf x", 'a'),
        (TEST, "default", "run cargo test && curl example.com", 'a'),
        (TEST, "default", "run cargo test || touch y", 'a'),
        (TEST, "default", "run cargo test | tee out", 'a'),
        (TEST, "default", "run cargo test\nrm -rf x", 'a'),
        (TEST, "default", "run cargo test & rm -rf x", 'a'),
        (TEST, "default", "run cargo test &", 'a'),
        (TEST, "default", "run cargo test $(touch x)", 'a'),
        (TEST, "default", "run cargo test `touch x`", 'a'),
        (TEST, "default", "run cargo test \"$(touch x)\"", 'a'),
        (TEST, "default", "run cargo test <(touch x)", 'a'),
        (TEST, "default", "run cargo test > f", 'a'),
        (TEST, "default", "run cargo test >> f 2>&1", 'a'),
        (TEST, "default", "run cargo test < f", 'a'),
        (TEST, "default", "run cargo test <<'E'\nx\nE", 'a'),
        (TEST, "default", "run FOO=1 cargo test", 'a'),
        (TEST, "default", "run env FOO=1 cargo test", 'a'),
        (TEST, "default", "run sh -c 'cargo test'", 'a'),
        (TEST, "default", "run (cargo test)", 'a'),
        (TEST, "default", "run cargo() { touch x; }; cargo test", 'a'),
        (TEST, "default", "run alias cargo='touch x'; cargo test", 'a'),
        (TEST, "default", "run c$x test", 'a'),
        (TEST, "default", "run cargo te*", 'a'),
        (TEST, "default", "run cargo {test,x}", 'a'),
        (TEST, "default", "run cargo\u{a0}test", 'a'),
        (TEST, "default", "run cargo test 'x", 'a'),
        (TEST, "plan", "run cargo test", 'd'),
        (TEST, "auto-edit", "run cargo build", 'r'),
        ("allow run_shell_command(rm)", "yolo", "run rm -rf /", 'd'),
        ("allow run_shell_command(sudo)", "yolo", "run sudo ls", 'd'),
        ("allow run_shell_command", "default", "run touch x; make", 'r'),
        ("allow run_shell_command", "default", "run touch $(x)", 'a'),
        ("allow run_shell_command(touch 'a b')", "default", "run touch a\\ b c", 'r'),
        ("allow run_shell_command(touch 'a b')", "default", "run touch a b", 'a'),
        (
            "allow run_shell_command(cd) + allow run_shell_command(make)",
            "default",
            "run cd /etc; cat passwd; make",
            'a',
        ),
        ("allow edit", "default", "run cargo test", 'a'),
    ]);
}

#[test]
fn a_denied_prefix_wins_wherever_it_hides() {
    let over =
        "deny run_shell_command(git push) + allow run_shell_command + allow run_shell_command(git push)";
    check(&[
        (PUSH, "yolo", "run git push", 'd'),
        (PUSH, "yolo", "run git push origin main", 'd'),
        (over, "yolo", "run git push", 'd'),
        (over, "default", "run git push", 'd'),
        (over, "default", "run git stash", 'r'),
        (PUSH, "yolo", "run git pushx; git stash", 'r'),
        (PUSH, "yolo", "run echo git push", 'r'),
        (PUSH, "yolo", "run git commit -m push", 'r'),
        (PUSH, "yolo", "run cargo test && git push", 'd'),
        (PUSH, "yolo", "run ls | git push", 'd'),
        (PUSH, "yolo", "run ls\ngit push", 'd'),
        (PUSH, "yolo", "run \"git\" pu''sh", 'd'),
        (PUSH, "yolo", "run /usr/bin/git push", 'd'),
        (PUSH, "yolo", "run git -C . --no-pager push", 'd'),
        (PUSH, "yolo", "run A=1 git push", 'd'),
        (PUSH, "yolo", "run git push > log &", 'd'),
        (PUSH, "yolo", "run sh -c 'ls; git push'", 'd'),
        (PUSH, "yolo", "run env A=1 timeout 5 git push", 'd'),
        (PUSH, "yolo", "run echo $(git push)", 'd'),
        (PUSH, "yolo", "run eval 'git push'", 'd'),
        (PUSH, "yolo", "run if true; then git push; fi", 'd'),
        (PUSH, "yolo", "run timeout --signal KILL 5 git push", 'd'),
        (PUSH, "yolo", "run echo push | xargs git", 'a'),
        (PUSH, "yolo", "run export x=push; git $x", 'a'),
        (PUSH, "yolo", "run x=push; git $x", 'a'),
        (PUSH, "yolo", "run $x push", 'a'),
        (PUSH, "yolo", "run git $x push", 'a'),
        (PUSH, "yolo", "run git pus?", 'a'),
        (PUSH, "yolo", "run sh -c 'git pu{sh,}'", 'a'),
        (PUSH, "yolo", "run git push 'x", 'd'),
        (PUSH, "yolo", "run cargo test $(x)", 'a'),
        (PUSH, "yolo", "run cargo test > log", 'r'),
        (PUSH, "yolo", "edit src/a.rs", 'r'),
        ("deny run_shell_command(cat)", "default", "run cat top.md", 'd'),
        ("deny run_shell_command", "yolo", "run ls", 'd'),
        ("deny run_shell_command(git commit --amend)", "yolo", "run git commit", 'r'),
    ]);
}

#[test]
fn paths_are_those_that_are_meant() {
    check(&[
        ("allow edit(src/**)", "default", "edit src/a.rs", 'r'),
        ("allow edit(src/**)", "default", "edit src/deep/b.rs", 'r'),
        ("allow edit(src/**)", "default", "edit ./src/../src/a.rs", 'r'),
        ("allow edit(src/*)", "default", "edit src/deep/b.rs", 'a'),
        ("allow edit(src/)", "default", "edit src/deep/b.rs", 'r'),
        ("allow edit(src/**)", "default", "edit src/../top.md", 'a'),
        ("allow edit(src/**)", "default", "edit ../src/a.rs", 'a'),
        ("allow edit(link)", "default", "edit link", 'a'),
        ("allow edit(src/**)", "default", r#"write_file {"file_path": "src/a.rs", "content": ""}"#, 'a'),
        (
            "allow edit(src/**)",
            "default",
            r#"edit {"file_path": "src/a.rs", "path": "top.md", "old_string": "x", "new_string": "y"}"#,
            'a',
        ),
        ("allow edit", "default", "edit top.md", 'r'),
        ("allow edit", "plan", "edit top.md", 'd'),
        ("allow edit + allow edit(*) + allow edit(**)", "yolo", "edit AGENTS.md", 'a'),
        ("allow edit(AGENTS.md)", "default", "edit AGENTS.md", 'r'),
        ("allow edit(.github/**)", "auto-edit", "edit .github/ci.yml", 'a'),
        ("allow edit(.github/ci.yml)", "auto-edit", "edit .github/ci.yml", 'r'),
        ("deny edit(secrets/**)", "yolo", "edit secrets/key", 'd'),
        ("deny edit(secrets)", "yolo", "edit secrets/key", 'd'),
        ("deny edit(secrets/)", "yolo", "edit Secrets/new", 'd'),
        ("deny edit(secrets/)", "yolo", "edit link", 'd'),
        ("deny edit(secrets/)", "yolo", "edit src/../secrets/key", 'd'),
        ("deny edit(secrets/)", "yolo", r#"write_file {"file_path": "secrets/new", "content": ""}"#, 'd'),
        ("deny edit(secrets/)", "yolo", r#"read_file {"file_path": "secrets/key"}"#, 'r'),
        ("deny edit(secrets/)", "yolo", "edit secretsx", 'r'),
        (
            "deny *(secrets/)",
            "yolo",
            r#"git_commit {"message": "x", "paths": ["src/a.rs", "secrets/key"]}"#,
            'd',
        ),
        ("deny *(secrets/)", "yolo", r#"git_commit {"message": "x", "paths": "secrets/key"}"#, 'd'),
        (
            "allow git_commit(src/**)",
            "auto-edit",
            r#"git_commit {"message": "x", "paths": ["src/a.rs"]}"#,
            'r',
        ),
        (
            "allow git_commit(src/**)",
            "auto-edit",
            r#"git_commit {"message": "x", "paths": ["src/a.rs", "top.md"]}"#,
            'a',
        ),
        ("allow git_commit(src/**)", "auto-edit", r#"git_commit {"message": "x"}"#, 'a'),
        ("deny *(secrets/)", "plan", r#"read_file {"file_path": "secrets/key"}"#, 'd'),
        ("deny *(secrets/)", "yolo", r#"list_directory {"path": "secrets", "file_path": "src"}"#, 'd'),
        ("deny *(secrets/)", "yolo", r#"run_shell_command {"command": "ls", "directory": "secrets"}"#, 'd'),
        ("deny edit(src/**) + allow edit(src/a.rs)", "yolo", "edit src/a.rs", 'd'),
        ("deny git_status", "yolo", "git_status", 'd'),
    ]);
}

#[test]
fn no_rule_lets_a_command_run_that_nothing_holds() {
    let (_files, workspace) = workspace();
    let at = |rules, mode, tier| word(rules, mode, tier, "run cargo test", &workspace).0;
    assert_eq!(at(TEST, "yolo", Containment::Absent), 'a');
    assert_eq!(at(TEST, "auto-edit", Containment::Reduced), 'r');
    assert_eq!(at("", "auto-edit", Containment::Reduced), 'a');
    assert_eq!(at(TEST, "default", Containment::Waived), 'r');
    assert_eq!(word("allow edit", "default", Containment::Absent, "edit top.md", &workspace).0, 'r');
}

#[test]
fn rules_are_read_as_they_are_written_and_errors_say_what_is_wrong() {
    for (text, shown) in [
        ("edit", "edit"),
        (" edit ( ./src/** ) ", "edit(src/**)"),
        ("edit(docs/)", "edit(docs/**)"),
        ("*(secrets/)", "*(secrets/**)"),
        ("edit(a (copy)/{b,c}.rs)", "edit(a (copy)/{b,c}.rs)"),
        ("run_shell_command(cargo   test)", "run_shell_command(cargo test)"),
        ("run_shell_command(git commit -m \"a b\")", "run_shell_command(git commit -m 'a b')"),
        ("run_shell_command", "run_shell_command"),
    ] {
        let rule = Rule::parse(RuleEffect::Deny, text).unwrap();
        assert_eq!(rule.text(), shown);
        assert_eq!(format!("deny {shown}").parse(), Ok(rule));
    }
    for (text, part) in [
        ("", "names no tool"),
        ("edti(src)", "one of read_file"),
        ("edit(src", "closing bracket"),
        ("edit()", "leave them out"),
        ("*", "needs a path"),
        ("edit(/etc/passwd)", "relative to the workspace"),
        ("edit(../x)", "relative to the workspace"),
        ("edit(~/x)", "relative to the workspace"),
        ("edit(a[)", "no path or pattern"),
        ("todo_write(x)", "takes no path"),
        ("run_shell_command(cargo test && ls)", "first words of one command"),
        ("run_shell_command(cargo *)", "first words of one command"),
        ("run_shell_command(cargo $x)", "first words of one command"),
        ("run_shell_command(A=1 make)", "first words of one command"),
        ("run_shell_command(make > x)", "first words of one command"),
    ] {
        let problem = Rule::parse(RuleEffect::Allow, text).unwrap_err();
        assert!(problem.contains(part), "{text}: {problem}");
    }
    assert!("edit".parse::<Rule>().unwrap_err().contains("neither allow nor deny"));
}

#[test]
fn what_is_suggested_is_narrow_and_would_answer() {
    let (_files, workspace) = workspace();
    let registry = Registry::standard();
    for (held, text, expected) in [
        ("", "run cargo test --lib", Some("run_shell_command(cargo test)")),
        ("", "run cd src && cargo test 2>&1 | tail -3", Some("run_shell_command(cargo test)")),
        ("", "run cargo test -p a && cargo test -p b", Some("run_shell_command(cargo test)")),
        ("", "run cargo build && cargo test", None),
        (
            "allow run_shell_command(cargo build)",
            "run cargo build && cargo test",
            Some("run_shell_command(cargo test)"),
        ),
        ("", "run make", Some("run_shell_command(make)")),
        ("", "run sh check.sh 1", Some("run_shell_command(sh check.sh)")),
        ("", "run python3 -m pytest -q", Some("run_shell_command(python3 -m pytest -q)")),
        ("", "run rm -rf build", Some("run_shell_command(rm -rf build)")),
        ("", "run timeout 5 make", Some("run_shell_command(timeout 5 make)")),
        ("", "run rm *.o", None),
        ("", "run bash", None),
        ("", "run cargo test > x", None),
        ("", "run A=1 cargo test", None),
        ("", "run cargo test $(x)", None),
        (PUSH, "run cargo test | xargs make", None),
        ("", "edit src/deep/b.rs", Some("edit(src/deep/**)")),
        ("", "edit top.md", Some("edit(*)")),
        ("", "edit AGENTS.md", Some("edit(AGENTS.md)")),
        ("", "edit .github/ci.yml", Some("edit(.github/ci.yml)")),
        ("", "edit a[b]/c", Some("edit(a[[]b[]]/**)")),
    ] {
        let (tool, arguments) = call(text);
        let tool = registry.get(tool).unwrap();
        let suggest = |tier| suggestion(tool, &arguments, &workspace, tier, &rules(held));
        let rule = suggest(Containment::Full);
        assert_eq!(rule.as_ref().map(Rule::text).as_deref(), expected, "{text}");
        if let Some(rule) = rule {
            let with = [held, &rule.to_string()].join(if held.is_empty() { "" } else { " + " });
            assert_eq!(word(&with, "default", Containment::Full, text, &workspace).0, 'r', "{with}: {text}");
        }
        assert!(suggest(Containment::Absent).is_none() || text.starts_with("edit"));
    }
}

#[test]
fn a_file_that_cannot_be_read_lets_nothing_but_reading_run() {
    let (files, workspace) = workspace();
    let file = files.path().canonicalize().unwrap().join("rules.toml");
    std::fs::write(&file, "[everywhere]\ndeny = [\n").unwrap();
    let source = RuleSource { file: Some(file.clone()), given: Vec::new() };
    let mut rules = Rules::default();
    let problems = rules.reload(&source, "/");
    assert!(problems[0].contains("rules.toml:"), "{problems:?}");
    assert!(rules.reload(&source, "/").is_empty(), "told once");
    let registry = Registry::standard();
    let letter = |text: &str, rules: &Rules| {
        let (tool, arguments) = call(text);
        let tool = registry.get(tool).unwrap();
        let tier = Containment::Full;
        match of_call(ApprovalMode::Yolo, tool, &arguments, &workspace, tier, rules) {
            Verdict::Run => 'r',
            Verdict::Ask(_) => 'a',
            Verdict::Deny(_) | Verdict::Vain(_) => 'd',
        }
    };
    for (text, expected) in
        [("edit top.md", 'a'), ("run make", 'a'), ("git_status", 'r'), ("edit rules.toml", 'd')]
    {
        assert_eq!(letter(text, &rules), expected, "{text}");
    }
    // Nothing is kept over it, and what was added holds all the same.
    let held = HeldRule { rule: PUSH.parse().unwrap(), scope: RuleScope::Always };
    let problem = rules.add(held, &source, "/").unwrap_err();
    assert!(problem.contains("this session only") && problem.contains("rules.toml:"), "{problem}");
    assert_eq!(letter("run git push", &rules), 'd');
    std::fs::write(&file, "").unwrap();
    assert!(rules.reload(&source, "/").is_empty());
    assert_eq!((letter("edit top.md", &rules), letter("run git push", &rules)), ('r', 'd'));
}

#[test]
fn a_huge_write_is_asked_for() {
    let (_files, workspace) = workspace();
    let write = |bytes: usize| {
        format!("write_file {}", serde_json::json!({ "file_path": "new", "content": "x".repeat(bytes) }))
    };
    let word = |mode: &str, bytes| word("", mode, Containment::Full, &write(bytes), &workspace).0;
    assert_eq!(
        (word("auto-edit", 200_000), word("auto-edit", 300_000), word("yolo", 300_000)),
        ('r', 'a', 'r')
    );
}

#[test]
fn the_network_is_asked_for_whatever_the_rules_and_the_mode_say() {
    const NPM: &str = "allow run_shell_command(npm install)";
    check(&[
        ("", "yolo", "run npm install", 'a'),
        ("", "auto-edit", "run npm test", 'r'),
        (NPM, "auto-edit", "run npm install", 'a'),
        (NPM, "plan", "run npm install", 'd'),
        ("deny run_shell_command(npm install)", "yolo", "run npm install", 'd'),
    ]);
    // Where nothing holds commands they have it as they are, and so has the check that the user named.
    let (_files, mut workspace) = workspace();
    assert_eq!(word("", "yolo", Containment::Waived, "run npm install", &workspace).0, 'r');
    workspace.set_check("npm install && npm test", &[]);
    assert_eq!(word("", "yolo", Containment::Full, "run npm install && npm test", &workspace).0, 'r');
}
