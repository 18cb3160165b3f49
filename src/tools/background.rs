//! The commands that run in the background: which there are, what one wrote since it was last read, and its end.

use super::run_shell_command::ending;
use super::{Access, Arguments, Tool, ToolContext, ToolError, ToolOutput, arguments};
use crate::chat::ToolSpec;
use crate::workspace::shell::JobStatus;
use crate::workspace::text::fit;

const NAME: &str = "background";

pub struct Background {
    spec: ToolSpec,
}

impl Background {
    pub fn new() -> Option<Self> {
        Some(Self { spec: super::parse_spec(include_str!("../../tools/background.json"))? })
    }
}

impl Tool for Background {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    /// It only looks at, or ends, what was approved when it was started.
    fn access(&self, _: &Arguments) -> Access {
        Access::Read
    }

    fn describe(&self, arguments: &Arguments) -> String {
        let action = arguments::shown(arguments, "action");
        match arguments::optional_count(NAME, arguments, "number") {
            Ok(Some(id)) => format!("{action} background command {id}"),
            _ => format!("{action} background commands"),
        }
    }

    fn run(&self, context: &mut ToolContext<'_>, arguments: &Arguments) -> Result<ToolOutput, ToolError> {
        let number = arguments::optional_count(NAME, arguments, "number")?;
        let action = arguments::text(NAME, arguments, "action")?;
        let text = match (action, number) {
            ("list", _) => list(&context.shell.jobs()),
            ("read", Some(id)) => shown(context, id)?,
            ("stop", Some(id)) => {
                context.shell.stop_job(id).ok_or_else(|| unknown(id, &context.shell.jobs()))?;
                shown(context, id)?
            }
            ("read" | "stop", None) => {
                return Err(ToolError::ToModel(format!(
                    "background: {action} needs the number of a command"
                )));
            }
            _ => return Err(ToolError::ToModel("background: action is list, read or stop".into())),
        };
        Ok(ToolOutput::ok(text, self.describe(arguments)))
    }
}

fn list(jobs: &[JobStatus]) -> String {
    let lines: Vec<String> =
        jobs.iter().map(|job| format!("{} {}: {}", job.id, state(job), job.command)).collect();
    if lines.is_empty() { "no command runs in the background".into() } else { lines.join("\n") }
}

fn state(job: &JobStatus) -> String {
    match &job.ended {
        None => format!("runs since {} s", job.running_for.as_secs()),
        // It has no time limit that anybody set, and who stopped it was asked to.
        Some(Ok(outcome)) if outcome.cancelled => "stopped".into(),
        Some(Ok(outcome)) => ending(outcome, job.running_for),
        Some(Err(error)) => error.clone(),
    }
}

fn unknown(id: usize, jobs: &[JobStatus]) -> ToolError {
    ToolError::ToModel(format!("there is no background command {id}\n{}", list(jobs)))
}

/// How a command is, and what it wrote since this was last shown.
pub(super) fn shown(context: &ToolContext<'_>, id: usize) -> Result<String, ToolError> {
    let (job, output, lost) = context.shell.read_job(id).ok_or_else(|| unknown(id, &context.shell.jobs()))?;
    let mut text = format!("background command {id}: {}", state(&job));
    if let Some(Ok(outcome)) = &job.ended {
        outcome.warnings.iter().for_each(|warning| text.push_str(&format!("\n[{warning}]")));
    }
    if lost > 0 {
        text.push_str(&format!("\n[{lost} bytes of output before this were not kept]"));
    }
    match output.trim_end() {
        "" => text.push_str("\n[no new output]"),
        output => {
            text.push('\n');
            text.push_str(&fit(output, context.max_chars, "read it more often"));
        }
    }
    Ok(text)
}
