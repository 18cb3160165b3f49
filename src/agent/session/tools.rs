//! Calls of tools: what a call would do and whether it may, the user's word on it, and running it with its output
//! fitted to the context.

use super::model_calls::{LEAST_ANSWER, answer_reserve};
use super::{Session, compact};
use crate::agent::approval::{self, Containment};
use crate::agent::fit::fit;
use crate::agent::protocol::{Decision, Event, Op};
use crate::agent::turn::{Input, ToolReport};
use crate::chat::ToolCall;
use crate::tools::{ToolContext, ToolError};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// How often the clock is looked at while the user is asked.
const TICK: Duration = Duration::from_millis(100);

impl Session {
    pub(super) fn judge(&self, call: &ToolCall) -> Input {
        let Some(tool) = self.tools.get(&call.name) else {
            // The turn judges only calls of tools it was given, and those are this registry's.
            return Input::Start;
        };
        let access = tool.access(&call.arguments);
        let mut verdict = self.of_protected(access, call).unwrap_or_else(|| {
            approval::of_call(
                self.talk.mode,
                tool,
                &call.arguments,
                &self.workspace,
                Containment::of(&self.shell),
                &self.rules,
            )
        });
        if matches!(verdict, approval::Verdict::Ask(_))
            && self.options.can_ask
            && let Some(why) = tool.in_vain(&self.workspace, &call.arguments)
        {
            verdict = approval::Verdict::Vain(why);
        }
        Input::Judged { verdict, access, summary: tool.describe(&call.arguments) }
    }

    pub(super) fn wait_for_decision(&mut self, asked: u64) -> Input {
        loop {
            if let Some(why) = self.stop() {
                return Input::Stopped { why, partial: None };
            }
            match self.ops.recv_timeout(TICK) {
                Ok(Op::Approve { id, decision }) if id == asked => return Input::Decided(decision),
                Ok(op) => self.sort(op),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Input::Decided(Decision::Deny { reason: Some("nobody is there to ask".into()) });
                }
            }
        }
    }

    pub(super) fn run_tool(&self, id: u64, call: &ToolCall) -> ToolReport {
        let Some(tool) = self.tools.get(&call.name) else {
            return ToolReport::Error(format!("there is no tool {}", call.name));
        };
        let room = self.tool_room();
        let events = &self.events;
        let mut on_output = |text: &str| {
            let _ = events.send(Event::ToolOutput { id, text: text.to_string() });
        };
        let mut context = ToolContext {
            workspace: &self.workspace,
            shell: &self.shell,
            cancel: &self.cancel,
            on_output: &mut on_output,
            // Code has about three characters a token; what is more than fits by count is cut below.
            max_chars: room * 3,
        };
        let count = |text: &str| self.model.count_tokens(text);
        let started = Instant::now();
        match tool.run(&mut context, &call.arguments) {
            Ok(output) => ToolReport::Output {
                seconds: started.elapsed().as_secs_f64().ceil() as u64,
                text: fit(&output.text, room, &count),
                summary: output.summary,
                diff: output.diff,
                ok: output.ok,
            },
            Err(ToolError::ToModel(message)) => ToolReport::Error(fit(&message, room, &count)),
            Err(ToolError::ToUser { message, hint }) => ToolReport::Fatal { message, hint },
        }
    }

    /// Tokens a result may take: what is left beside the answer and what shortening the history takes, and never so
    /// much that a few results fill it all. A full history is shortened before the next answer, so a part is given
    /// even then.
    pub(super) fn tool_room(&self) -> usize {
        let context = self.model.info().context;
        let left = context.saturating_sub(self.used() + compact::room(context));
        let beside_answer = left.saturating_sub(answer_reserve(context)).min(context / 4);
        beside_answer.max(left.min(context / 16)).max(LEAST_ANSWER / 4)
    }
}
