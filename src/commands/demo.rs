//! `qwright demo`: a small broken project in a temporary folder, fixed before your eyes. The same path as `exec`, on a
//! project of ours; without a model the smallest one is pulled first. What the bug is, only the project knows.

use super::exec::{self, ExecArgs};
use super::{CommandResult, Failure, exit, load, models};
use crate::config::Config;
use crate::hub;
use crate::workspace::shell::{SandboxChoice, SandboxTier, Shell, ShellCommand, ShellSettings};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The project: path and text of each file.
const FILES: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../../demo/shop/Cargo.toml.in")),
    ("src/lib.rs", include_str!("../../demo/shop/src/lib.rs")),
    ("tests/prices.rs", include_str!("../../demo/shop/tests/prices.rs")),
];
const CHECK: &str = "cargo test";
const REQUEST: &str = "A test of this project fails: `cargo test`. Find the bug in src/lib.rs and fix it, then run `cargo test` again.";

#[derive(Debug, Clone, Default, clap::Args)]
pub struct DemoArgs {
    #[command(flatten)]
    pub model: crate::cli::ModelArgs,
    /// Seed of the sampler
    #[arg(long)]
    pub seed: Option<u64>,
    /// Break and fix a copy of this project instead (its tests run with `cargo test`, its bug is in src/lib.rs)
    #[arg(long, value_name = "DIR")]
    pub project: Option<PathBuf>,
    /// Model calls at most
    #[arg(long, default_value_t = 100)]
    pub max_turns: usize,
}

pub fn run(args: &DemoArgs, cancel: Arc<AtomicBool>) -> CommandResult {
    let config = args.model.config()?;
    // Without a model named or present the smallest one is fetched.
    let mut model = args.model.clone();
    if config.settings.endpoint.is_none()
        && let Err(missing) = hub::locate(None, &config)
    {
        if config.settings.model.is_some() {
            return Err(missing.into());
        }
        eprintln!("No model is here yet: fetching {} (1.1 GB, once).", hub::SMALLEST);
        let path = models::pull(hub::SMALLEST, false, &config, &cancel)?;
        model.model = Some(path.to_string_lossy().into_owned());
    }
    let folder = tempfile::Builder::new().prefix("qwright-demo-").tempdir().map_err(|error| disk(&error))?;
    let root = folder.path().join("project");
    match &args.project {
        Some(from) => copy(from, &root),
        None => write(&root),
    }
    .map_err(|error| disk(&error))?;

    // The project is ours, so where no sandbox can be had the demo says so and goes on.
    let mut shell = Shell::with(ShellSettings::default());
    let boxed = shell.unavailable().is_none();
    if !boxed {
        eprintln!(
            "{}\nThe demo's project is harmless, so it goes on without a sandbox.",
            shell.status_line()
        );
        shell = Shell::probe(SandboxChoice::None);
    }
    println!("A small project in {}. Its tests:\n", root.display());
    if check(&shell, &root, &cancel)? {
        return Err(Failure::new(exit::TASK_FAILED, "the project's tests pass before anything was done"));
    }
    println!("\nThe request: {REQUEST}\n");
    let exec_args = ExecArgs {
        prompt: Some(REQUEST.into()),
        model,
        directory: Some(root.clone()),
        seed: args.seed,
        max_turns: Some(args.max_turns),
        leave_stdin: true,
        sandbox: (!boxed).then(|| "none".to_string()),
        // Nobody is asked here, and the project is ours.
        yolo: shell.tier() == SandboxTier::Reduced,
        ..ExecArgs::default()
    };
    let flag = cancel.clone();
    let result = exec::run(
        &exec_args,
        |config: &Config, _| Ok(vec![load::local(config, false, &flag)?]),
        cancel.clone(),
    )?;
    let code = exec::code(&result)?;
    if code == exit::INTERRUPTED {
        return Ok(code);
    }
    println!("\nThe tests now:\n");
    let passed = check(&shell, &root, &cancel)?;
    let tier = shell.tier();
    let seconds = result.duration.as_secs_f64();
    println!("\n{} in {seconds:.0} s, sandbox: {tier}", if passed { "Fixed" } else { "Not fixed" });
    if passed { Ok(exit::DONE) } else { Ok(exit::TASK_FAILED) }
}

/// Runs the project's tests and shows their lines; true if they pass.
fn check(shell: &Shell, root: &Path, cancel: &AtomicBool) -> Result<bool, Failure> {
    let command = ShellCommand { command: CHECK.into(), directory: None, timeout: None, network: false };
    let outcome = shell
        .run(root, &command, cancel, &mut |_| {})
        .map_err(|error| Failure::new(exit::TASK_FAILED, error.to_string()).hint(error.hint()))?;
    for line in outcome.output.lines().filter(|line| line.starts_with("test ")) {
        println!("  {}", crate::chat::escape::escape_line(line));
    }
    if outcome.exit != Some(0) && !outcome.output.contains("test result") {
        println!("{}", crate::chat::escape::escape_for_terminal(&outcome.output));
    }
    Ok(outcome.exit == Some(0))
}

fn write(root: &Path) -> std::io::Result<()> {
    for (path, text) in FILES {
        let path = root.join(path);
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(path, text)?;
    }
    Ok(())
}

/// Copies a project's sources; `Cargo.toml.in` stands for a manifest that no outer build should find.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == "target" || name == ".git" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to.join(name))?;
        } else {
            let name = if name == "Cargo.toml.in" { "Cargo.toml".into() } else { name };
            std::fs::copy(entry.path(), to.join(name))?;
        }
    }
    Ok(())
}

fn disk(error: &std::io::Error) -> Failure {
    Failure::new(exit::USAGE, format!("the demo's project cannot be written: {error}"))
        .hint("set TMPDIR to a folder with room")
}
