//! Changes as models write them, as data (`fixtures/edits/*.toml`, one file a kind), through what `qwright apply` runs;
//! random valid patches beside `git apply` and GNU `patch`; and the command itself.

use qwright::commands::apply::{perform, read};
use qwright::workspace::Workspace;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

type Tree = BTreeMap<String, String>;

fn tree(root: &Path) -> Tree {
    fn walk(root: &Path, folder: &Path, tree: &mut Tree) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, tree);
            } else {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                tree.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut found = Tree::new();
    walk(root, root, &mut found);
    found
}

fn text_map(value: Option<&toml::Value>) -> Tree {
    let table = value.map(|value| value.as_table().unwrap().clone()).unwrap_or_default();
    table.into_iter().map(|(path, text)| (path, text.as_str().unwrap().to_string())).collect()
}

/// `read_sha256 = "as read"` is the sum of the file as the case has it.
fn with_sums(edit: &mut Value, files: &Tree) {
    if edit["read_sha256"] == "as read" {
        let digest = Sha256::digest(files[edit["path"].as_str().unwrap()].as_bytes());
        edit["read_sha256"] = digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
    }
}

fn check(kind: &str, case: &toml::Value) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    // A folder of its own, so that whatever climbs out of it is seen.
    let root = directory.path().join("work");
    fs::create_dir(&root).unwrap();
    let before = text_map(case.get("files"));
    for (path, text) in &before {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), text).unwrap();
    }
    let mut edit = serde_json::to_value(&case["edit"]).unwrap();
    if edit.is_string() {
        edit = json!({ "text": edit });
    } else if let Some(edits) = edit.as_array_mut() {
        edits.iter_mut().for_each(|edit| with_sums(edit, &before));
        edit = json!({ "edits": edit });
    } else {
        with_sums(&mut edit, &before);
    }
    let request = json!({ "kind": kind, "edit": edit }).to_string();
    let workspace = Workspace::open(&root, &[]).unwrap();
    let dry = perform(&workspace, read(&request, true), true);
    if tree(directory.path()) != tree(&root).into_iter().map(|(k, v)| (format!("work/{k}"), v)).collect()
        || tree(&root) != before
    {
        return Err("a dry run wrote something".into());
    }
    let workspace = Workspace::open(&root, &[]).unwrap();
    let answer = perform(&workspace, read(&request, true), false);
    if answer.ok != dry.ok {
        return Err(format!("a dry run says otherwise: {dry:?}"));
    }
    let mut want = before.clone();
    want.extend(text_map(case.get("want")));
    for path in case.get("removed").and_then(|value| value.as_array()).into_iter().flatten() {
        want.remove(path.as_str().unwrap());
    }
    let outside = tree(directory.path()).keys().any(|path| !path.starts_with("work/"));
    let after = tree(&root);
    if after != want || outside {
        return Err(format!("{after:?} instead of {want:?}: {answer:?}"));
    }
    match (&answer.error, case.get("error").map(|code| code.as_str().unwrap())) {
        (None, None) => Ok(()),
        (Some(error), Some(code)) if error.code == code => {
            let words = case.get("says").and_then(|value| value.as_array()).cloned().unwrap_or_default();
            match words.iter().find(|word| !error.message.contains(word.as_str().unwrap())) {
                Some(word) => Err(format!("{word} is not in {:?}", error.message)),
                None => Ok(()),
            }
        }
        (error, wanted) => Err(format!("{error:?} instead of {wanted:?}")),
    }
}

#[test]
fn changes_as_models_write_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/edits");
    let kinds = ["apply_patch", "multi_edit", "search_replace", "search_replace_block", "unified_diff"];
    let (mut found, mut ran, mut lines) = (Vec::new(), 0, 0);
    let mut failures = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let kind = path.file_stem().unwrap().to_str().unwrap().to_string();
        match path.extension().unwrap().to_str().unwrap() {
            // Those are `edit_fixtures`' in workspace.rs.
            "jsonl" => {
                lines += text.lines().count();
                continue;
            }
            "toml" if kinds.contains(&kind.as_str()) => {}
            _ => panic!("nothing runs the cases of {}", path.display()),
        }
        let cases: toml::Table = text.parse().unwrap();
        let cases = cases["case"].as_array().unwrap();
        let headings = text.lines().filter(|line| *line == "[[case]]").count();
        assert_eq!(cases.len(), headings, "{kind}: cases were lost in a text");
        for case in cases {
            let name = case["name"].as_str().unwrap();
            ran += 1;
            if let Err(why) = check(&kind, case) {
                failures.push(format!("{kind}: {name}: {why}"));
            }
        }
        found.push(kind);
    }
    found.sort();
    assert_eq!(found, kinds);
    assert!(ran >= 150 && lines >= 60, "{ran} cases and {lines} lines");
    assert!(failures.is_empty(), "{} of {ran}:\n{}", failures.len(), failures.join("\n"));
}

// ---- beside git apply and GNU patch ----

/// A small generator of our own, so that a seed is a case for ever.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % sides
    }
}

fn random_lines(dice: &mut Dice, most: usize) -> Vec<String> {
    const WORDS: [&str; 10] = ["a", "b", "", "}", "    x = 1", "\tgo", "-- c", "++ d", "é", "@@ e"];
    let crlf = dice.roll(8) == 0;
    let count = dice.roll(most);
    let mut lines: Vec<String> = (0..count)
        .map(|n| {
            let word = WORDS[dice.roll(WORDS.len())];
            let body = if dice.roll(3) == 0 { format!("{word}{n}") } else { word.to_string() };
            body + if crlf { "\r\n" } else { "\n" }
        })
        .collect();
    if dice.roll(5) == 0
        && let Some(last) = lines.last_mut()
    {
        last.pop();
        if last.is_empty() || last == "\r" {
            *last = "end".into();
        }
    }
    lines
}

fn tool(root: &Path, program: &str, arguments: &[&str], input: &str) -> Option<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(root)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", root)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let fine = child.wait().unwrap().success();
    fine.then(|| fs::read_to_string(root.join("f")).unwrap_or_default())
}

/// Random files and edits; the patch with its own file, or with one that has more lines. Says how many patches both
/// tools took, and how many of those were refused here as ambiguous.
pub fn compare_with_git_and_patch(seeds: std::ops::Range<u64>) -> (usize, usize) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let (mut both, mut refused) = (0, 0);
    for seed in seeds {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1);
        let old = random_lines(&mut dice, 40);
        let mut new = old.clone();
        for _ in 0..=dice.roll(3) {
            let (at, span) = (dice.roll(new.len() + 1), dice.roll(3));
            let end = (at + span).min(new.len());
            new.splice(at..end, random_lines(&mut dice, 4));
        }
        // Lines that lost their break in the middle get it back.
        let whole = |lines: &[String]| -> String {
            let count = lines.len();
            let end = |(n, line): (usize, &String)| {
                if n + 1 < count && !line.ends_with('\n') { format!("{line}\n") } else { line.clone() }
            };
            lines.iter().enumerate().map(end).collect()
        };
        let (before, after) = (whole(&old), whole(&new));
        if before == after || before.is_empty() || after.is_empty() {
            continue;
        }
        let sides = qwright::workspace::diff::Sides {
            before: Some(before.as_bytes()),
            after: Some(after.as_bytes()),
            mode: 0o644,
        };
        let patch = qwright::workspace::diff::unified("f", sides);
        let drifted = dice.roll(3) == 0;
        let start =
            if drifted { format!("{}{before}", "new 1\nnew 2\n".repeat(1 + dice.roll(3))) } else { before };
        let fresh = || fs::write(root.join("f"), &start).unwrap();
        fresh();
        let git = tool(root, "git", &["apply", "-"], &patch);
        fresh();
        let gnu = tool(root, "patch", &["-p1", "-s", "-F0", "--binary", "--no-backup-if-mismatch"], &patch);
        fresh();
        let workspace = Workspace::open(root, &[]).unwrap();
        let request = json!({ "kind": "unified_diff", "edit": { "text": patch } }).to_string();
        let answer = perform(&workspace, read(&request, true), false);
        let ours = answer.ok.then(|| fs::read_to_string(root.join("f")).unwrap());
        let (Some(git), Some(gnu)) = (git, gnu) else { continue };
        if git != gnu {
            continue;
        }
        both += 1;
        match ours {
            Some(ours) => assert_eq!(ours, git, "seed {seed}:\n{patch}\non {start:?}"),
            None => {
                let code = answer.error.unwrap().code;
                assert!(drifted && code == "ambiguous", "seed {seed}: {code}\n{patch}\non {start:?}");
                refused += 1;
            }
        }
    }
    (both, refused)
}

#[test]
fn valid_patches_give_what_git_and_patch_give() {
    let cases = std::env::var("QWRIGHT_PATCH_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let (both, refused) = compare_with_git_and_patch(0..cases);
    eprintln!(
        "{both} of {cases} patches taken by git and patch, {refused} of them refused here as ambiguous"
    );
    assert!(both as u64 * 2 > cases, "only {both} of {cases} patches were taken by both");
    assert!(refused * 4 < both, "{refused} of {both} refused");
}

// ---- the command ----

fn apply(root: &Path, arguments: &[&str], input: &str) -> (i32, String, String) {
    let state = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_qwright"))
        .arg("apply")
        .args(arguments)
        .current_dir(root)
        .env("XDG_STATE_HOME", state.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_says_how_it_went() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::write(root.join("f"), "a\nb\n").unwrap();
    let patch = "--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n a\n-b\n+B\n";
    let (code, out, _) = apply(root, &["--dry-run"], patch);
    assert!(code == 0 && out.contains("-b\n+B\n"), "{out}");
    assert_eq!(fs::read_to_string(root.join("f")).unwrap(), "a\nb\n");
    fs::write(root.join("p.diff"), patch).unwrap();
    let (code, out, _) = apply(root, &["p.diff"], "");
    assert!(code == 0 && out.contains("modified f, line 2"), "{out}");
    assert_eq!(fs::read_to_string(root.join("f")).unwrap(), "a\nB\n");
    let (code, _, err) = apply(root, &["-"], patch);
    assert!(code == 1 && err.contains("applied before"), "{err}");
    assert_eq!(apply(root, &[], "no patch").0, 2);
    assert_eq!(apply(root, &["absent.diff"], "").0, 2);
    let (code, out, _) = apply(root, &["--json"], "nonsense");
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert!(code == 2 && answer["error"]["code"] == "invalid", "{out}");
    let request =
        json!({"kind": "search_replace", "edit": {"path": "f", "old_string": "bB", "new_string": "c"}});
    let (code, out, _) = apply(root, &["--json"], &request.to_string());
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert!(code == 1 && answer["ok"] == false && answer["error"]["code"] == "not_found", "{out}");
}

#[test]
fn a_link_out_of_the_workspace_is_never_written_through() {
    let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = inside.path();
    fs::write(outside.path().join("f"), "a\n").unwrap();
    std::os::unix::fs::symlink(outside.path(), root.join("out")).unwrap();
    fs::write(root.join("real"), "a\n").unwrap();
    std::os::unix::fs::symlink("real", root.join("link")).unwrap();
    for patch in [
        "--- a/out/f\n+++ b/out/f\n@@ -1 +1 @@\n-a\n+b\n",
        "*** Begin Patch\n*** Add File: out/new\n+x\n*** End Patch\n",
        "*** Begin Patch\n*** Delete File: out/f\n*** End Patch\n",
        "*** Begin Patch\n*** Delete File: link\n*** End Patch\n",
    ] {
        assert_eq!(apply(root, &[], patch).0, 1, "{patch}");
    }
    assert_eq!(tree(outside.path()), Tree::from([("f".into(), "a\n".into())]));
    assert_eq!(fs::read_to_string(root.join("real")).unwrap(), "a\n");
}

#[test]
fn a_write_that_fails_takes_the_others_back() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::write(root.join("a"), "a\n").unwrap();
    fs::write(root.join("b"), "b\n").unwrap();
    let workspace = Workspace::open(root, &[]).unwrap();
    let patch = "*** Begin Patch\n*** Update File: a\n-a\n+A\n*** Add File: n/new\n+n\n*** Update File: b\n-b\n+B\n*** End Patch\n";
    let plans = workspace.plan_change(&read(patch, false).unwrap()).unwrap();
    // Somebody else changes the last file between the plan and the write.
    fs::write(root.join("b"), "theirs\n").unwrap();
    assert!(workspace.apply_all(&plans).is_err());
    let expected = [("a".to_string(), "a\n".to_string()), ("b".to_string(), "theirs\n".to_string())];
    assert_eq!(tree(root), Tree::from(expected));
    assert!(!root.join("n").exists());
}
