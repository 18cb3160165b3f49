//! Runs a command in the sandbox. The first line of the answer says how it ended, since that is what matters most.

use super::{Access, Arguments, Tool, ToolContext, ToolError, ToolOutput, arguments};
use crate::chat::ToolSpec;
use crate::workspace::Workspace;
use crate::workspace::sandbox::SandboxTier;
use crate::workspace::shell::policy::{self, Commands, Judgement};
use crate::workspace::shell::{DEFAULT_TIMEOUT, ShellCommand, ShellError, ShellOutcome};
use crate::workspace::text::fit;
use std::sync::atomic::Ordering;
use std::time::Duration;

const NAME: &str = "run_shell_command";
/// What the first line of an answer ends with where nothing held the command.
pub const NOT_SANDBOXED: &str = " (not sandboxed)";
/// Longer is never needed by a step that a model waits for.
const MAX_TIMEOUT: usize = 3600;
/// Qwen's own agent counts in milliseconds, and models remember that: nobody waits this many seconds.
const SURELY_MILLISECONDS: usize = 10_000;

pub struct RunShell {
    spec: ToolSpec,
}

impl RunShell {
    pub fn new() -> Option<Self> {
        Some(Self { spec: super::parse_spec(include_str!("../../tools/run_shell_command.json"))? })
    }

    /// The same for a model that is not told of the background.
    pub fn foreground() -> Option<Self> {
        let mut own = Self::new()?;
        own.spec.parameters.get_mut("properties")?.as_object_mut()?.shift_remove("is_background");
        Some(own)
    }
}

/// The command of a call, and where it would run.
fn placed<'a>(workspace: &Workspace, arguments: &'a Arguments) -> Option<(&'a str, policy::Place)> {
    let command = arguments::text(NAME, arguments, "command").ok()?;
    let directory = arguments::optional_text(NAME, arguments, "directory").ok().flatten();
    let directory = directory.filter(|directory| !workspace.is_own_name(directory));
    let directory = directory.and_then(|directory| workspace.directory(directory).ok());
    Some((command, policy::Place { directory, ..policy::Place::in_workspace(workspace.root()) }))
}

impl Tool for RunShell {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn access(&self, arguments: &Arguments) -> Access {
        match arguments::text(NAME, arguments, "command") {
            Ok(command) if policy::needs_network(command) => Access::Network,
            _ => Access::Execute,
        }
    }

    fn describe(&self, arguments: &Arguments) -> String {
        let command = arguments::shown(arguments, "command");
        match arguments::optional_text(NAME, arguments, "directory") {
            Ok(Some(directory)) => format!("run {command} (in {directory})"),
            _ => format!("run {command}"),
        }
    }

    fn judge_command(&self, workspace: &Workspace, arguments: &Arguments) -> Option<Judgement> {
        let (command, place) = placed(workspace, arguments)?;
        Some(policy::judge(command, &place))
    }

    fn commands(&self, workspace: &Workspace, arguments: &Arguments) -> Option<Commands> {
        let (command, place) = placed(workspace, arguments)?;
        Some(policy::read_commands(command, &place))
    }

    fn run(&self, context: &mut ToolContext<'_>, arguments: &Arguments) -> Result<ToolOutput, ToolError> {
        let command = arguments::text(NAME, arguments, "command")?;
        if command.trim().is_empty() {
            return Err(ToolError::ToModel("the command is empty; give a command to run".into()));
        }
        let directory = match arguments::optional_text(NAME, arguments, "directory")? {
            // Models name the workspace itself by the name they were told; there is no such folder inside.
            Some(directory) if context.workspace.is_own_name(directory) => None,
            Some(directory) => Some(context.workspace.directory(directory)?),
            None => None,
        };
        let timeout = arguments::optional_count(NAME, arguments, "timeout")?
            .filter(|seconds| *seconds > 0)
            .map(|given| {
                let seconds = if given >= SURELY_MILLISECONDS { given / 1000 } else { given };
                Duration::from_secs(seconds.min(MAX_TIMEOUT) as u64)
            });
        // The user was asked for it; not for what the check of the work does, which runs unasked.
        let network = self.access(arguments) == Access::Network
            && !context.workspace.is_check(command, directory.as_deref());
        let command = ShellCommand { command: command.to_string(), directory, timeout, network };
        if arguments::flag(NAME, arguments, "is_background")? {
            return start(context, &command);
        }
        let outcome = context
            .workspace
            .run_command(context.shell, &command, context.cancel, context.on_output)
            .map_err(shell_error)?;
        let ending = ending(&outcome, timeout.unwrap_or(DEFAULT_TIMEOUT));
        let mut text = ending.clone();
        if outcome.sandbox == SandboxTier::None {
            text.push_str(NOT_SANDBOXED);
        }
        for warning in &outcome.warnings {
            text.push_str(&format!("\n[{warning}]"));
        }
        match outcome.output.trim_end() {
            "" => text.push_str("\n[no output]"),
            output => {
                text.push('\n');
                text.push_str(&fit(
                    output,
                    context.max_chars,
                    "filter the output to see it, for example with grep",
                ));
            }
        }
        let ok = outcome.exit == Some(0) && !outcome.timed_out && !outcome.cancelled;
        let summary = format!("run {} ({ending})", command.command);
        Ok(ToolOutput { text, summary, diff: String::new(), ok })
    }
}

/// Starts it, and waits a moment for what goes wrong at once.
fn start(context: &mut ToolContext<'_>, command: &ShellCommand) -> Result<ToolOutput, ToolError> {
    const MOMENT: Duration = Duration::from_secs(1);
    let id = context.shell.start(context.workspace.root(), command).map_err(shell_error)?;
    let began = std::time::Instant::now();
    let ended = || context.shell.jobs().iter().any(|job| job.id == id && job.ended.is_some());
    while began.elapsed() < MOMENT && !context.cancel.load(Ordering::Relaxed) && !ended() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let text = super::background::shown(context, id)?;
    Ok(ToolOutput::ok(text, format!("run {} (in the background, number {id})", command.command)))
}

pub(super) fn ending(outcome: &ShellOutcome, timeout: Duration) -> String {
    if outcome.cancelled {
        return "interrupted by the user".into();
    }
    if outcome.timed_out {
        return format!(
            "timed out after {} seconds and was stopped; give a longer timeout or a shorter command",
            timeout.as_secs()
        );
    }
    match (outcome.exit, outcome.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended in an unknown way".into(),
    }
}

pub(super) fn shell_error(error: ShellError) -> ToolError {
    match &error {
        ShellError::Directory { .. } | ShellError::Nul | ShellError::TooMany { .. } => {
            ToolError::ToModel(format!("{error}; {}", error.hint()))
        }
        _ => ToolError::ToUser { message: error.to_string(), hint: error.hint() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_says_what_stopped_the_command() {
        let outcome = |exit, signal, timed_out, cancelled| {
            let outcome = ShellOutcome { exit, signal, timed_out, cancelled, ..ShellOutcome::default() };
            ending(&outcome, Duration::from_secs(5))
        };
        assert_eq!(outcome(Some(101), None, false, false), "exit code 101");
        assert_eq!(outcome(None, Some(9), false, false), "ended by signal 9");
        assert!(outcome(None, Some(9), true, false).starts_with("timed out after 5 seconds"));
        assert_eq!(outcome(None, Some(9), false, true), "interrupted by the user");
    }
}
