//! Lets the agent loose on `fixtures/bugs`, one project after the other: `qwright exec --until CHECK` in a copy of it, with
//! one attempt and with several, as a user runs it. Whether a bug is fixed is found by running the check again here.
//!
//!     cargo build --release && cargo run --release --example bugs -- [--attempts 1,4] [--time 240s] [--drafts N] [NAME...] [-- FLAG...]
//!
//! `--drafts N` compares instead: each case with drafts and without, in turns, N times, the same work (at most 24 calls of
//! tools); it prints how many guesses were right and what the drafts bring, and tells where the outcome is not the same.
//!
//! What stands behind `--` goes to `qwright exec`. Exit codes that do not fit what happened are counted at the end.

use serde_json::Value;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

struct Case {
    name: String,
    language: String,
    check: String,
}

/// One case with so many attempts.
struct Run {
    language: String,
    fixed: bool,
    seconds: f64,
    tokens: u64,
    /// Guesses that were right, and that were wrong.
    drafted: u64,
    rejected: u64,
    /// What is left behind, and how often a model and tools were called.
    came: String,
    /// The exit code was not what became of it.
    odd: bool,
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = match entry.file_name().to_str() {
            // Cargo would take it for a member of this package.
            Some("Cargo.toml.in") => to.join("Cargo.toml"),
            _ => to.join(entry.file_name()),
        };
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => std::fs::copy(entry.path(), target).map(drop)?,
        }
    }
    Ok(())
}

fn cases(names: &[String]) -> Result<Vec<(Case, PathBuf)>, Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bugs");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let Ok(text) = std::fs::read_to_string(path.join("case.json")) else { continue };
        let case: Value = serde_json::from_str(&text)?;
        let field = |name: &str| case[name].as_str().unwrap_or_default().to_string();
        let case = Case { name: field("name"), language: field("language"), check: field("check") };
        let has_tool = |tool: &str| {
            let asked =
                Command::new("sh").args(["-c", &format!("command -v {tool}")]).stdout(Stdio::null()).status();
            asked.is_ok_and(|status| status.success())
        };
        let wanted = names.is_empty() || names.contains(&case.name);
        if wanted && case.check.split(' ').next().is_some_and(has_tool) {
            found.push((case, path.join("project")));
        }
    }
    found.sort_by(|a, b| (&a.0.language, &a.0.name).cmp(&(&b.0.language, &b.0.name)));
    Ok(found)
}

/// In `folder`, which is the same for runs that are to be compared: what a check prints names it.
fn run(
    case: &Case,
    project: &Path,
    folder: &Path,
    attempts: &str,
    time: &str,
    drafts: bool,
    flags: &[String],
) -> Result<Run, Box<dyn Error>> {
    let root = folder.join(&case.name);
    let _ = std::fs::remove_dir_all(&root);
    copy(project, &root)?;
    let git =
        ["git init -q", "git add -A", "git -c user.name=a -c user.email=a@b commit -qm begin"].join(" && ");
    Command::new("sh").args(["-c", &git]).current_dir(&root).status()?;
    let binary = std::env::current_exe()?.with_file_name("../qwright");
    let mut command = Command::new(binary);
    command.args(["exec", "-o", "json", "-q", "--until", &case.check, "--max-wall-time", time]);
    command.env("QWRIGHT_DRAFTS", if drafts { "on" } else { "off" });
    // What an earlier run read is not found again: all begin alike.
    command.env("QWRIGHT_SNAPSHOTS", "0");
    // One is what it is without the flag.
    if attempts != "1" {
        command.args(["--attempts", attempts]);
    }
    let started = Instant::now();
    let output =
        command.args(flags).current_dir(&root).stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    let seconds = started.elapsed().as_secs_f64();
    let object: Value = serde_json::from_slice(&output.stdout)?;
    let check = Command::new("sh")
        .args(["-c", &case.check])
        .current_dir(&root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    let fixed = check.success();
    let code = output.status.code();
    let count = |name: &str| object["usage"][name].as_u64().unwrap_or(0);
    let tokens = count("completion");
    let came = format!("{} {} {}", object["num_turns"], object["num_tool_calls"], object["diff"]);
    let passed: Vec<&Value> =
        object["attempts"].as_array().into_iter().flatten().filter(|a| a["passed"] == true).collect();
    let which = passed.first().map_or(String::new(), |attempt| format!(", attempt {}", attempt["attempt"]));
    println!(
        "{:10} {:14} x{attempts:3} {:7} {seconds:6.1} s {tokens:6} tokens, exit {}{which}",
        case.language,
        case.name,
        if fixed { "fixed" } else { "-" },
        code.map_or("none".into(), |code| code.to_string()),
    );
    let odd = fixed != (code == Some(0)) || !matches!(code, Some(0 | 1 | 3 | 5));
    let (drafted, rejected) = (count("drafted"), count("rejected"));
    Ok(Run { language: case.language.clone(), fixed, seconds, tokens, drafted, rejected, came, odd })
}

/// Each case with drafts and without: how many guesses were right, and how much longer it takes without.
fn compare(cases: &[(Case, PathBuf)], times: usize, flags: &[String]) -> Result<(), Box<dyn Error>> {
    let flags = [flags, &["--max-tool-calls".into(), "24".into()]].concat();
    let mut ratios = Vec::new();
    let mut totals = [0; 2];
    let folder = tempfile::tempdir()?;
    for (case, project) in cases {
        let mut seconds = [Vec::new(), Vec::new()];
        let mut came = Vec::new();
        let mut guesses = [0; 2];
        for n in 0..2 * times {
            let on = n % 2 == 0;
            let run = run(case, project, folder.path(), "1", "600s", on, &flags)?;
            seconds[usize::from(on)].push(run.seconds);
            came.push(run.came);
            if on {
                guesses = [run.drafted, run.rejected];
            }
        }
        let [off, on] = seconds.map(median);
        let [right, wrong] = guesses;
        let same = if came.iter().all(|one| *one == came[0]) { "the same" } else { "DIFFERENT" };
        println!(
            "{:14} with {on:5.1} s, without {off:5.1} s: {:.2}x; {right} of {} guesses right; outcome {same}",
            case.name,
            off / on,
            right + wrong
        );
        ratios.push(off / on);
        totals = [totals[0] + right, totals[1] + wrong];
    }
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let [right, wrong] = totals;
    println!(
        "drafts: median {:.2}x, least {least:.2}x, {} of {} guesses right ({:.0} %)",
        median(ratios),
        right,
        right + wrong,
        100.0 * right as f64 / (right + wrong).max(1) as f64
    );
    Ok(())
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(0.0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut attempts, mut time, mut drafts) = ("1".to_string(), "240s".to_string(), 0);
    let (mut names, mut flags) = (Vec::new(), Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(argument) = args.next() {
        match argument.as_str() {
            "--attempts" => attempts = args.next().unwrap_or_default(),
            "--time" => time = args.next().unwrap_or_default(),
            "--drafts" => drafts = args.next().unwrap_or_default().parse()?,
            "--" => flags = args.by_ref().collect(),
            _ => names.push(argument),
        }
    }
    let cases = cases(&names)?;
    if drafts > 0 {
        return compare(&cases, drafts, &flags);
    }
    let counts: Vec<&str> = attempts.split(',').collect();
    let folder = tempfile::tempdir()?;
    let mut runs: Vec<Vec<Run>> = counts.iter().map(|_| Vec::new()).collect();
    for (case, project) in &cases {
        for (runs, count) in runs.iter_mut().zip(&counts) {
            runs.push(run(case, project, folder.path(), count, &time, true, &flags)?);
        }
    }
    for (runs, count) in runs.iter().zip(&counts) {
        let fixed = runs.iter().filter(|run| run.fixed).count();
        let seconds: Vec<f64> = runs.iter().map(|run| run.seconds).collect();
        let tokens: u64 = runs.iter().map(|run| run.tokens).sum();
        println!(
            "\nattempts {count}: {fixed} of {} fixed, median {:.1} s, {:.0} s and {tokens} tokens in all, {} exit codes that do not fit",
            runs.len(),
            median(seconds.clone()),
            seconds.iter().sum::<f64>(),
            runs.iter().filter(|run| run.odd).count(),
        );
        let mut languages: Vec<&str> = runs.iter().map(|run| run.language.as_str()).collect();
        languages.dedup();
        for language in languages {
            let own: Vec<&Run> = runs.iter().filter(|run| run.language == language).collect();
            println!("  {language:10} {} of {}", own.iter().filter(|run| run.fixed).count(), own.len());
        }
    }
    Ok(())
}
