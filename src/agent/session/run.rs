//! What belongs to all requests of a session together: the budgets they share, what comes with the next one, and the
//! files that stay as they are.

use super::Session;
use crate::agent::approval::Verdict;
use crate::agent::fit::fit;
use crate::agent::prompts::exec_text;
use crate::agent::protocol::{Access, Attachment, Denial, Event, TurnOutcome};
use crate::agent::turn::{Spent, Turn};
use crate::chat::ToolCall;
use crate::workspace::shell::portable;
use std::time::{Duration, Instant};

/// What the requests of this process came to so far.
pub(super) struct Run {
    began: Instant,
    spent: Spent,
}

impl Run {
    pub fn new() -> Self {
        Self { began: Instant::now(), spent: Spent::default() }
    }

    pub fn spend(&mut self, outcome: &TurnOutcome) {
        self.spent.model_calls += outcome.model_calls;
        self.spent.tool_calls += outcome.tool_calls;
        self.spent.tokens += outcome.usage.completion;
    }
}

impl Session {
    /// What earlier requests took of the next one's budgets.
    pub(super) fn spent_before(&self) -> Spent {
        if self.options.one_run { self.so_far.spent } else { Spent::default() }
    }

    /// The time that is left to what begins now.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let gone = if self.options.one_run { self.so_far.began.elapsed() } else { Duration::ZERO };
        self.options.limits.wall_time.map(|time| time.saturating_sub(gone))
    }

    /// What was attached, as the end of the message that opens `turn`.
    pub(super) fn take_attached(&mut self, turn: &Turn) -> String {
        let attached = std::mem::take(&mut self.attached);
        let count = |text: &str| self.model.count_tokens(text);
        let mut text = String::new();
        for attachment in attached {
            let shown = match attachment {
                // A turn that begins with this very command sees what it says then.
                Attachment::FailedCheck { command, .. } if turn.first_check() == Some(command.clone()) => {
                    continue;
                }
                Attachment::FailedCheck { command, output } => {
                    let output = portable(output.trim_end(), self.workspace.root());
                    let output = fit(&output, self.tool_room(), &count);
                    exec_text("check_failed", &[("command", &command), ("output", &output)])
                }
                Attachment::Input { text } => exec_text("input", &[("text", text.trim_end_matches('\n'))]),
            };
            text.push_str(&format!("\n\n{shown}"));
        }
        text
    }

    /// What is said of a call that would write a protected file; `None` where the table decides.
    pub(super) fn of_protected(&self, access: Access, call: &ToolCall) -> Option<Verdict> {
        let path = ["file_path", "path"].iter().find_map(|key| call.arguments.get(*key)?.as_str())?;
        let held = access == Access::Write && self.workspace.is_kept(&self.kept, path);
        held.then(|| Verdict::Deny(exec_text("protected", &[("path", path)])))
    }

    /// Protected files that a command changed all the same are put back; each is a denial of its own.
    pub(super) fn put_back_protected(&mut self) -> Vec<Denial> {
        let report = self.workspace.put_back(&self.kept);
        for (path, why) in report.kept {
            let message = format!("{path} is protected and was changed, and could not be put back: {why}");
            self.emit(Event::Error { message, hint: None });
        }
        let denial = |path: &String| Denial {
            tool: super::check::SHELL.into(),
            summary: format!("change {path}"),
            reason: "it belongs to the check that has to pass, so it was put back".into(),
        };
        let denials = report.restored.iter().map(denial).collect();
        self.put_back.extend(report.restored);
        denials
    }
}
