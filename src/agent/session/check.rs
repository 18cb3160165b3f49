//! Whether a command passes: run as the model's own would be, shown to the front end, and kept from the conversation.

use super::Session;
use crate::agent::fit::fit;
use crate::agent::prompts::exec_text;
use crate::agent::protocol::{CheckEnd, Event};
use crate::tools::{Arguments, Registry, ToolContext, ToolError};
use crate::workspace::Workspace;
use crate::workspace::shell::Shell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(super) const SHELL: &str = "run_shell_command";
/// A check is the user's own and may build a whole project; one that waits for ever ends all the same.
const LONGEST: Duration = Duration::from_secs(600);
/// Characters of output that are kept for the model; what fits is counted in tokens later.
const KEPT: usize = 48 * 1024;

/// Runs `command` and says how it ended, with what a model is shown of it.
pub fn run_check(
    workspace: &Workspace,
    shell: &Shell,
    command: &str,
    time_left: Option<Duration>,
    cancel: &AtomicBool,
    on_output: &mut dyn FnMut(&str),
) -> (CheckEnd, String) {
    let tools = Registry::standard();
    let Some(tool) = tools.get(SHELL) else {
        let hint = "this is a fault of Qwright; please report it".into();
        return (CheckEnd::NotRun { message: format!("there is no tool {SHELL}"), hint }, String::new());
    };
    let seconds = time_left.map_or(LONGEST, |left| left.min(LONGEST)).as_secs().max(1);
    let arguments = Arguments::from_iter([
        ("command".to_string(), command.into()),
        ("timeout".to_string(), seconds.into()),
    ]);
    let mut context = ToolContext { workspace, shell, cancel, on_output, max_chars: KEPT };
    match tool.run(&mut context, &arguments) {
        Ok(output) if output.ok => (CheckEnd::Passed, output.text),
        Ok(output) if cancel.load(Ordering::SeqCst) => (CheckEnd::Interrupted, output.text),
        Ok(output) => (CheckEnd::Failed, output.text),
        Err(ToolError::ToModel(message)) => {
            let hint = "see that the command can be run here".into();
            (CheckEnd::NotRun { message, hint }, String::new())
        }
        Err(ToolError::ToUser { message, hint }) => (CheckEnd::NotRun { message, hint }, String::new()),
    }
}

impl Session {
    /// Calls are numbered from the end, as those of the user's own commands are.
    pub(super) fn check(&mut self, command: &str) {
        self.lower_flags();
        self.commands += 1;
        let (id, name) = (u64::MAX - self.commands, "check".to_string());
        self.emit(Event::ToolCallStarted { id, name: name.clone(), summary: format!("check {command}") });
        let left = self.time_left();
        let deadline = left.map(|time| self.watch(time));
        let mut show = |text: &str| self.emit(Event::ToolOutput { id, text: text.to_string() });
        let (end, output) = run_check(&self.workspace, &self.shell, command, left, &self.cancel, &mut show);
        drop(deadline);
        let end = match end {
            CheckEnd::Interrupted if self.overtime.load(Ordering::SeqCst) => CheckEnd::OutOfTime,
            end => end,
        };
        let how = match &end {
            CheckEnd::NotRun { message, .. } => message,
            _ => output.lines().next().unwrap_or_default(),
        };
        let summary = format!("check {command} ({how})");
        self.emit(Event::ToolCallFinished { id, name, ok: end == CheckEnd::Passed, summary });
        let put_back = std::mem::take(&mut self.put_back);
        let output = match put_back.is_empty() {
            true => output,
            false => format!("{output}\n\n{}", exec_text("put_back", &[("paths", &put_back.join(", "))])),
        };
        let output = fit(&output, self.tool_room(), &|text: &str| self.model.count_tokens(text));
        self.emit(Event::Checked { command: command.to_string(), end, output });
    }
}
