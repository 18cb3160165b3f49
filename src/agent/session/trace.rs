//! A session's events as lines for `--log` and `-v`. What was said, what files hold and what commands print stays out of
//! them: a log is sent to others.

use crate::agent::protocol::Event;
use tracing::{debug, info, warn};

pub(super) fn trace(event: &Event) {
    match event {
        Event::SessionStarted { id, model, context, mode, sandbox, .. } => {
            info!(session = %id, %model, context, mode = mode.name(), %sandbox, "session began");
        }
        Event::Resumed { messages, turns, damaged, .. } => {
            info!(messages, turns, damaged_lines = damaged.len(), "session goes on");
        }
        Event::TurnStarted => info!("turn began"),
        // Before that the model only writes it.
        Event::ToolCallStarted { id, name, summary } if !summary.is_empty() => {
            debug!(id, %name, %summary, "call began");
        }
        Event::ApprovalRequested { id, name, reason, .. } => info!(id, %name, %reason, "approval asked"),
        Event::ToolCallFinished { id, name, ok, summary } => info!(id, %name, ok, %summary, "call ended"),
        Event::ContextUsage { used, limit, usage } => debug!(
            used,
            limit,
            prompt = usage.prompt,
            cached = usage.cached,
            prefilled = usage.prefilled,
            repeated = usage.repeated,
            written = usage.completion,
            drafted = usage.drafted,
            rejected = usage.rejected,
            "model answered"
        ),
        Event::Checked { command, end, .. } => info!(%command, ?end, "check ran"),
        Event::Compacted { before, after, .. } => info!(before, after, "conversation was shortened"),
        Event::Undone { restored, kept, outside } => {
            info!(restored = restored.len(), kept = kept.len(), outside = outside.len(), "taken back");
        }
        Event::AsideFinished { usage, .. } => info!(written = usage.completion, "side answer"),
        Event::TurnFinished { outcome } => info!(
            ending = outcome.ending.message().as_deref().unwrap_or("done"),
            model_calls = outcome.model_calls,
            tool_calls = outcome.tool_calls,
            denials = outcome.denials.len(),
            prompt = outcome.usage.prompt,
            written = outcome.usage.completion,
            "turn ended"
        ),
        Event::Error { message, .. } => warn!(problem = %message, "told the user"),
        _ => {}
    }
}
