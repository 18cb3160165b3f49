//! Searches of a large tree beside ripgrep's: whole commands, in turns, medians; and the outline of a long file and the
//! map of a repository, in this process.
//!
//!     cargo build --release && cargo run --release --example search -- [FILES [ROUNDS [REPOSITORY]]]

use qwright::syntax::{Language, Parsed};
use qwright::tools::repository_map;
use qwright::workspace::Workspace;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error>;

/// Source files of a few kilobytes, in directories of fifty.
fn grow(root: &Path, files: usize) -> Result<(), Failure> {
    for number in 0..files {
        let folder = root.join(format!("part{:02}/module{:03}", number % 40, number / 50 % 1000));
        fs::create_dir_all(&folder)?;
        let mut text = String::new();
        for line in 0..60 {
            text.push_str(&format!(
                "    let value_{line} = compute_{}(input, {number}); // step {line}\n",
                line % 7
            ));
        }
        if number % 100 == 0 {
            text.push_str("    let needle_in_the_hay = find_the_needle(stack);\n");
        }
        fs::write(folder.join(format!("file{number}.{}", if number % 5 == 0 { "py" } else { "rs" })), text)?;
    }
    Ok(())
}

fn time(program: &Path, arguments: &[&str], root: &Path) -> Result<(Duration, usize), Failure> {
    let started = Instant::now();
    let output = Command::new(program).args(arguments).current_dir(root).stderr(Stdio::null()).output()?;
    Ok((started.elapsed(), output.stdout.iter().filter(|byte| **byte == b'\n').count()))
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64) * 1e3
}

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, usual: usize| words.get(index).map_or(Ok(usual), |word| word.parse());
    let (files, rounds) = (number(0, 50_000)?, number(1, 9)?);
    let repository = PathBuf::from(words.get(2).map_or(".", String::as_str));
    let place = tempfile::tempdir()?;
    let root = place.path();
    grow(root, files)?;
    let own = std::env::current_exe()?.with_file_name("../qwright");
    let rg = Path::new("rg");
    let searches: [(&str, [&str; 4], &[&str]); 4] = [
        (
            "a word in one file of a hundred",
            ["tools", "run", "grep_search", r#"{"pattern": "needle_in_the_hay", "limit": 1000}"#],
            &["-n", "--hidden", "--sort", "path", "needle_in_the_hay"],
        ),
        (
            "the same, ripgrep in any order",
            ["tools", "run", "grep_search", r#"{"pattern": "needle_in_the_hay", "limit": 1000}"#],
            &["-n", "--hidden", "needle_in_the_hay"],
        ),
        (
            "a regular expression",
            ["tools", "run", "grep_search", r#"{"pattern": "find_the_\\w+\\(st", "limit": 1000}"#],
            &["-n", "--hidden", r"find_the_\w+\(st"],
        ),
        (
            "names",
            ["tools", "run", "glob", r#"{"pattern": "**/file*5.py"}"#],
            &["--files", "--hidden", "-g", "**/file*5.py"],
        ),
    ];
    for (what, ours, theirs) in searches {
        let (mut own_times, mut rg_times, mut lines) = (Vec::new(), Vec::new(), 0);
        for _ in 0..rounds {
            own_times.push(time(&own, &ours, root)?.0);
            let (time, found) = time(rg, theirs, root)?;
            rg_times.push(time);
            lines = found;
        }
        let (a, b) = (median(own_times), median(rg_times));
        println!("{what} ({lines} lines, {files} files): {a:.0} ms, rg {b:.0} ms, {:.2}", a / b);
    }
    let long: String = (0..1000)
        .map(|n| format!("/// The number.\npub fn number_{n}(x: u32) -> u32 {{\n    x + {n}\n}}\n\n"))
        .collect();
    let mut times = Vec::new();
    let mut found = 0;
    for _ in 0..rounds {
        let started = Instant::now();
        found = Parsed::new(Language::Rust, &long).map_or(0, |parsed| parsed.outline().len());
        times.push(started.elapsed());
    }
    println!("outline of {} lines: {found} definitions, {:.1} ms", long.lines().count(), median(times));
    const CHARS: usize = 4000;
    let state = tempfile::tempdir()?;
    for kept in [false, true] {
        let mut times = Vec::new();
        let mut map = String::new();
        for round in 0..=rounds {
            let mut workspace = Workspace::open(&repository, &[])?;
            if kept {
                workspace.use_state(state.path());
            }
            let started = Instant::now();
            map = repository_map(&workspace, "", CHARS, &AtomicBool::new(false));
            // The first keeps the outlines for the others.
            if round > 0 {
                times.push(started.elapsed());
            }
        }
        println!(
            "map of {}, outlines {}: {} characters of at most {CHARS}, {} lines, {:.0} ms",
            repository.display(),
            if kept { "kept" } else { "made" },
            map.chars().count(),
            map.lines().count(),
            median(times)
        );
    }
    Ok(())
}
