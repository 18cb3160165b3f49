//! What the user says of a change before it is made: the texts that are shown, and those that the user settled on
//! instead, which land as they are.

use super::Session;
use crate::agent::fit::fit;
use crate::agent::prompts::note;
use crate::agent::protocol::Change;
use crate::agent::turn::ToolReport;
use crate::chat::ToolCall;
use crate::tools::{ToolError, syntax_error};
use crate::workspace::WorkspaceError;

impl Session {
    /// What a call would change, as texts; none where one of them is no text.
    pub(super) fn proposed(&self, call: &ToolCall) -> Vec<Change> {
        let Some(tool) = self.tools.get(&call.name) else { return Vec::new() };
        let plans = tool.plans(&self.workspace, &call.arguments);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let change = |plan: &crate::workspace::Plan| {
            let (before, after) = plan.sides();
            let side = |bytes: Option<&[u8]>| match bytes {
                Some(bytes) => text(bytes).map(Some),
                None => Some(None),
            };
            Some(Change { path: plan.path.clone(), before: side(before)?, after: side(after)? })
        };
        plans.iter().map(change).collect::<Option<_>>().unwrap_or_default()
    }

    /// Makes the changes, in order; one that cannot be made ends it, and the model is told of those before it.
    pub(super) fn settle(&self, changes: &[Change], reason: Option<&str>) -> ToolReport {
        let mut diff = String::new();
        let mut paths = Vec::new();
        let mut broken = String::new();
        let mut failed = None;
        for Change { path, before, after } in changes {
            let Some(after) = after else { continue };
            let planned = self.workspace.plan_settled(path, before.as_deref(), after);
            match planned.and_then(|plan| self.workspace.apply(&plan).map(|()| plan)) {
                Ok(plan) => {
                    diff.push_str(&plan.diff);
                    if let Some(error) = syntax_error(&plan) {
                        broken.push_str(&format!("\nNote: {}: {error}", plan.path));
                    }
                    paths.push(plan.path);
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        match failed {
            Some(WorkspaceError::Machine { message, hint }) => return ToolReport::Fatal { message, hint },
            Some(error) if diff.is_empty() => {
                return match ToolError::from(error) {
                    ToolError::ToModel(message) => ToolReport::Error(message),
                    ToolError::ToUser { message, hint } => ToolReport::Fatal { message, hint },
                };
            }
            _ => {}
        }
        let reason = reason.filter(|reason| !reason.trim().is_empty());
        let reason = reason.map_or(String::new(), |reason| note("settled_reason", &[("reason", reason)]));
        let mut text = note("settled_by_user", &[("reason", &reason), ("diff", &diff)]);
        text.push_str(&broken);
        if let Some(error) = failed {
            text.push_str(&format!("\n{error}"));
        }
        let count = |text: &str| self.model.count_tokens(text);
        ToolReport::Output {
            text: fit(&text, self.tool_room(), &count),
            summary: format!("applied in part: {}", paths.join(", ")),
            diff,
            ok: true,
            seconds: 0,
        }
    }
}
