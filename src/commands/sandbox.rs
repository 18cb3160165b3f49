//! `qwright sandbox`: what protects commands on this machine, the verdict on a command, and running one by hand the way the model's run.

use super::{CommandResult, Failure, exit};
use crate::chat::escape::{escape_json, escape_line};
use crate::workspace::shell::policy::{self, CommandVerdict};
use crate::workspace::shell::{SandboxChoice, Shell, ShellCommand, ShellError, quote};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Show or try the sandbox that commands run in
#[derive(Debug, clap::Args)]
pub struct SandboxArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Say what protects commands here, what that leaves open, and what would help; exit 4 if nothing does
    Status {
        #[arg(long, value_enum, default_value_t = SandboxChoice::Auto)]
        sandbox: SandboxChoice,
    },
    /// Say whether a command may run unasked, needs approval or is refused, and why; it is not run
    Check {
        /// One object: {"verdict": "read_only"|"needs_approval"|"forbidden", "reason"}
        #[arg(long)]
        json: bool,
        /// The directory it would run in [default: the current one]
        #[arg(short = 'C', long)]
        workspace: Option<PathBuf>,
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Run a command as the model's are run; one word is a line for the shell, several are taken as they are
    Run {
        #[arg(long, value_enum, default_value_t = SandboxChoice::Auto)]
        sandbox: SandboxChoice,
        /// The directory it may write to [default: the current one]
        #[arg(short = 'C', long)]
        workspace: Option<PathBuf>,
        /// Seconds after which it is killed [default: 120]
        #[arg(long)]
        timeout: Option<u64>,
        /// Let it use the network
        #[arg(long)]
        network: bool,
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
}

pub fn run(args: &SandboxArgs) -> CommandResult {
    match &args.action {
        Action::Status { sandbox } => {
            let shell = Shell::probe(*sandbox);
            println(&shell.status_line());
            Ok(if shell.unavailable().is_some() { exit::NO_SANDBOX } else { exit::DONE })
        }
        Action::Check { json, workspace, command } => {
            check(*json, workspace.as_deref().unwrap_or(Path::new(".")), &line_of(command))
        }
        Action::Run { sandbox, workspace, timeout, network, command } => {
            let command = ShellCommand {
                command: line_of(command),
                directory: None,
                timeout: timeout.map(Duration::from_secs),
                network: *network,
            };
            run_one(*sandbox, workspace.clone().unwrap_or_else(|| ".".into()), &command)
        }
    }
}

/// One word is a line for the shell, several are taken as they are.
fn line_of(command: &[String]) -> String {
    match command {
        [line] => line.clone(),
        words => words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "),
    }
}

fn check(json: bool, workspace: &Path, line: &str) -> CommandResult {
    let root = workspace.canonicalize().map_err(|error| {
        Failure::new(exit::USAGE, format!("cannot open {}: {error}", workspace.display()))
            .hint("name a directory with -C")
    })?;
    let judgement = policy::judge(line, &policy::Place::in_workspace(&root));
    if json {
        let object = serde_json::to_string(&judgement)
            .map_err(|error| Failure::new(exit::TASK_FAILED, error.to_string()))?;
        println(&escape_json(&object));
    } else {
        let verdict = match judgement.verdict {
            CommandVerdict::ReadOnly => "read-only",
            CommandVerdict::NeedsApproval => "needs approval",
            CommandVerdict::Forbidden => "forbidden",
        };
        println(&escape_line(&format!("{verdict}: {}", judgement.reason)));
    }
    Ok(exit::DONE)
}

fn run_one(choice: SandboxChoice, workspace: PathBuf, command: &ShellCommand) -> CommandResult {
    let cancel = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&cancel))
            .map_err(|error| Failure::new(exit::TASK_FAILED, format!("cannot catch signals: {error}")))?;
    }
    let shell = Shell::probe(choice);
    let mut show = |text: &str| {
        let mut out = std::io::stdout().lock();
        // Whoever closed our output does not want the rest.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    };
    let outcome = shell.run(&workspace, command, &cancel, &mut show).map_err(|error| {
        let code = match error {
            ShellError::Unavailable(_) | ShellError::Workspace { .. } => exit::NO_SANDBOX,
            ShellError::Directory { .. } | ShellError::Nul => exit::USAGE,
            ShellError::Io { .. } | ShellError::Lost | ShellError::TooMany { .. } => exit::TASK_FAILED,
        };
        Failure::new(code, error.to_string()).hint(error.hint())
    })?;
    for warning in &outcome.warnings {
        eprintln(&format!("sandbox {}: {warning}", outcome.sandbox));
    }
    if outcome.cancelled {
        return Ok(exit::INTERRUPTED);
    }
    if outcome.timed_out {
        return Err(Failure::new(exit::LIMIT, "the command was killed at its time limit")
            .hint("give it longer with --timeout SECONDS"));
    }
    // As a shell reports it: the status itself, or 128 and the signal.
    let code = outcome.exit.unwrap_or_else(|| 128 + outcome.signal.unwrap_or(libc::SIGKILL));
    Ok(u8::try_from(code).unwrap_or(exit::TASK_FAILED))
}

fn println(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn eprintln(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Args;

    fn parse(words: &[&str]) -> Result<SandboxArgs, clap::Error> {
        let command = SandboxArgs::augment_args(clap::Command::new("sandbox"));
        command.clone().debug_assert();
        let words = ["sandbox"].iter().chain(words);
        command.try_get_matches_from(words).and_then(|found| clap::FromArgMatches::from_arg_matches(&found))
    }

    #[test]
    fn the_command_stands_behind_two_dashes() {
        let parsed =
            parse(&["run", "--sandbox", "none", "--network", "--", "ls", "-l", "--timeout"]).unwrap();
        let Action::Run { sandbox, network, timeout, command, .. } = parsed.action else { panic!("not run") };
        assert_eq!((sandbox, network, timeout), (SandboxChoice::None, true, None));
        assert_eq!(command, ["ls", "-l", "--timeout"]);
        assert!(parse(&["run", "ls"]).is_err() && parse(&["run", "--"]).is_err());
        assert!(matches!(
            parse(&["status"]).unwrap().action,
            Action::Status { sandbox: SandboxChoice::Auto }
        ));
    }

    #[test]
    fn the_end_of_the_command_is_the_exit_code() {
        let workspace = tempfile::tempdir().unwrap();
        let line = |line: &str| ShellCommand { command: line.into(), ..ShellCommand::default() };
        // The test program is no helper, so nothing can be run: that too has its code, and a hint.
        let failure = run_one(SandboxChoice::Full, workspace.path().into(), &line("true")).unwrap_err();
        assert_eq!(failure.code, exit::NO_SANDBOX);
        assert!(failure.hint.is_some_and(|hint| hint.contains("--sandbox none")));
        let failure = run_one(SandboxChoice::None, workspace.path().into(), &line("a\0b")).unwrap_err();
        assert_eq!(failure.code, exit::USAGE);
    }
}
