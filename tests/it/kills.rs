//! `qwright apply` killed while it applies a patch of many files: the next start takes back what was done. A longer run
//! with other moments is `examples/kills.rs`.

use qwright::workspace::Workspace;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// So many that a kill at the sight of one of them comes before the last.
const FILES: usize = 40;

fn old(i: usize) -> String {
    format!("file {i}\nold\n")
}

/// Every file is changed, and has a new one beside it; the last is removed.
fn patch() -> String {
    let one =
        |i: usize| format!("*** Update File: f{i}\n-old\n+new\n*** Add File: made/in/n{i}\n+made {i}\n");
    let all: String = (0..FILES).map(one).collect();
    format!("*** Begin Patch\n{all}*** Delete File: last\n*** End Patch\n")
}

fn write_old(root: &Path) {
    (0..FILES).for_each(|i| fs::write(root.join(format!("f{i}")), old(i)).unwrap());
    fs::write(root.join("last"), "last\n").unwrap();
}

/// How many files are new, and whether anything is there that belongs to neither side.
fn state_of(root: &Path) -> (usize, Vec<String>) {
    let (mut new, mut strange) = (0, Vec::new());
    let mut there = |folder: &Path| {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            if path.is_dir() {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let number = name[1..].parse().ok();
            match (name.as_bytes()[0], number) {
                (b'f', Some(i)) if text == old(i) => {}
                (b'f', Some(i)) if text == old(i).replace("old", "new") => new += 1,
                (b'n', Some(i)) if text == format!("made {i}\n") => new += 1,
                _ if name == "last" && text == "last\n" => {}
                _ => strange.push(name),
            }
        }
    };
    there(root);
    there(&root.join("made/in"));
    new += usize::from(!root.join("last").exists());
    (new, strange)
}

fn command(root: &Path, state: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qwright"));
    command
        .arg("apply")
        .args(arguments)
        .current_dir(root)
        .env("XDG_STATE_HOME", state)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn apply(root: &Path, state: &Path, arguments: &[&str]) -> Output {
    let mut child = command(root, state, arguments).spawn().unwrap();
    child.stdin.take().unwrap().write_all(patch().as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_patch_that_was_killed_is_taken_back_by_the_next_start() {
    let all = 2 * FILES + 1;
    let (mut half, mut dice) = (0, 1u64);
    for round in 0..10 {
        let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (root, state) = (root.path(), state.path());
        write_old(root);
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let seen = root.join(format!("made/in/n{}", (dice >> 33) as usize % (FILES / 2)));
        let mut child = command(root, state, &[]).spawn().unwrap();
        child.stdin.take().unwrap().write_all(patch().as_bytes()).unwrap();
        while !seen.exists() && child.try_wait().unwrap().is_none() {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let (left, _) = state_of(root);
        half += usize::from(left > 0 && left < all);
        // Each way of starting in turn: the command itself, and whatever else opens the workspace.
        let said = if round % 2 == 0 {
            let output = apply(root, state, &["--dry-run"]);
            assert_eq!(output.status.code() == Some(0), left < all, "round {round}");
            String::from_utf8(output.stderr).unwrap()
        } else {
            let recovery = Workspace::open(root, &[]).unwrap().use_state(&state.join("qwright"));
            recovery.lines().join("\n")
        };
        let now = if left < all { 0 } else { all };
        assert_eq!(state_of(root), (now, Vec::new()), "round {round}: {left} files were new: {said}");
        assert_eq!(said.contains("was taken back"), left > 0 && left < all, "round {round}: {said}");
        assert_eq!(root.join("made").exists(), left == all, "round {round}");
        assert_eq!(fs::read_dir(state.join("qwright/pending")).unwrap().count(), 0, "round {round}");
        if left < all && round < 2 {
            let output = apply(root, state, &[]);
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(state_of(root), (all, Vec::new()), "round {round}");
        }
    }
    assert!(half > 0, "no kill came in the middle");
}
