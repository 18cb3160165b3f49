//! Everyday requests in one small project (`fixtures/asks`): questions, commands to run, small changes. Each goes to
//! `qwright exec` in a fresh copy, as a user asks it; what it says, which files it changed and what a command finds there
//! afterwards decide.
//!
//!     cargo build --release && cargo run --release --example asks -- [--seeds 3] [NAME...] [-- FLAG...]

use serde_json::Value;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/asks")
}

fn texts<'a>(case: &'a Value, key: &str) -> Vec<&'a str> {
    case[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Files that are there with this text in one folder and not in the other.
fn changed(before: &Path, after: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut names = Vec::new();
    for folder in [before, after] {
        for entry in std::fs::read_dir(folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let text = |folder: &Path| std::fs::read(folder.join(&name)).ok();
            if name != "__pycache__" && !names.contains(&name) && text(before) != text(after) {
                names.push(name);
            }
        }
    }
    names.sort();
    Ok(names)
}

/// What is wrong with what became of `case`, if anything, and the seconds it took.
fn run(case: &Value, seed: usize, flags: &[String]) -> Result<(Option<String>, f64), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let project = fixtures().join("project");
    for entry in std::fs::read_dir(&project)? {
        let entry = entry?;
        std::fs::copy(entry.path(), folder.path().join(entry.file_name()))?;
    }
    let started = Instant::now();
    let output = Command::new(std::env::current_exe()?.with_file_name("../qwright"))
        .args(["exec", "-o", "json", "-q", "--seed", &seed.to_string()])
        .args(flags)
        .arg(case["request"].as_str().unwrap_or_default())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    let seconds = started.elapsed().as_secs_f64();
    let object: Value = serde_json::from_slice(&output.stdout)?;
    let answer = object["result"].as_str().unwrap_or_default();
    let changed = changed(&project, folder.path())?;
    let mut wrong = Vec::new();
    if object["subtype"] != "success" {
        wrong.push(format!("ended with {}", object["subtype"]));
    }
    if changed != texts(case, "changes") {
        wrong.push(format!("changed {changed:?}"));
    }
    if let Some(word) = texts(case, "says").iter().find(|word| !answer.contains(**word)) {
        wrong.push(format!("does not say {word:?}: {answer:?}"));
    }
    if let Some(check) = case["check"].as_str() {
        let done = Command::new("sh").args(["-c", check]).current_dir(folder.path()).output()?;
        if !done.status.success() {
            wrong.push(format!("the check fails after\n{}", object["diff"].as_str().unwrap_or_default()));
        }
    }
    Ok(((!wrong.is_empty()).then(|| wrong.join(", ")), seconds))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut seeds, mut names, mut flags) = (3, Vec::new(), Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(argument) = args.next() {
        match argument.as_str() {
            "--seeds" => seeds = args.next().unwrap_or_default().parse()?,
            "--" => flags = args.by_ref().collect(),
            _ => names.push(argument),
        }
    }
    let (mut right, mut all, mut took) = (0, 0, Vec::new());
    for line in std::fs::read_to_string(fixtures().join("cases.jsonl"))?.lines() {
        let case: Value = serde_json::from_str(line)?;
        let name = case["name"].as_str().unwrap_or_default();
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let mut own = 0;
        for seed in 1..=seeds {
            let (wrong, seconds) = run(&case, seed, &flags)?;
            own += usize::from(wrong.is_none());
            took.push(seconds);
            if let Some(wrong) = wrong {
                println!("  {name}, seed {seed}: {wrong}");
            }
        }
        println!("{name:10} {own} of {seeds}");
        (right, all) = (right + own, all + seeds);
    }
    took.sort_by(f64::total_cmp);
    println!("{right} of {all}, median {:.1} s", took.get(took.len() / 2).copied().unwrap_or(0.0));
    Ok(())
}
