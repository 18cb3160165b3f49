//! What happens as JSON lines while it happens, an object each: `system` (`init` first), `assistant`, `user` (results of
//! tools, notes to the model), `stream_event` for parts of an answer where they are asked for, `result` last. Field
//! names follow what other agents print. The schema of every object is in `docs/exec-output.schema.json`.

use super::{ExecResult, Options, Streams, View, json};
use crate::agent::protocol::{Attachment, CheckEnd, Event, Usage};
use crate::chat::escape::escape_json;
use crate::chat::{Message, Role};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io;

pub(super) struct Stream {
    partial: bool,
    session_id: String,
    /// What the check said before the session began: it comes after `init`.
    first_checks: Vec<Value>,
    damaged: Vec<usize>,
    /// Calls so far, and those whose results are still to come.
    calls: usize,
    waiting: VecDeque<String>,
    /// Whether the call that ended last did what it was to.
    ok: Option<bool>,
    /// Of the answer that comes next.
    usage: Option<Usage>,
    /// The answer that is being written began with thoughts.
    thinking: bool,
}

impl Stream {
    pub fn new(options: &Options) -> Self {
        let first_checks = options.attachments.iter().filter_map(|attachment| match attachment {
            Attachment::FailedCheck { command, output } => Some(check(command, false, output)),
            Attachment::Input { .. } => None,
        });
        Self {
            partial: options.partial_messages,
            session_id: String::new(),
            first_checks: first_checks.collect(),
            damaged: Vec::new(),
            calls: 0,
            waiting: VecDeque::new(),
            ok: None,
            usage: None,
            thinking: false,
        }
    }

    /// One line; whoever reads it sees it at once.
    fn line(&self, streams: &mut Streams<'_>, mut object: Value) -> io::Result<()> {
        object["session_id"] = json!(self.session_id);
        writeln!(streams.out, "{}", escape_json(&object.to_string()))?;
        streams.out.flush()
    }

    fn message(&mut self, message: &Message) -> Option<Value> {
        let text = |text: &str| json!({"type": "text", "text": text});
        let content = match message.role {
            Role::System => return None,
            Role::User => vec![text(&message.content)],
            Role::Tool => {
                let ok = self.ok.take().unwrap_or(false);
                let id = self.waiting.pop_front().unwrap_or_default();
                vec![
                    json!({"type": "tool_result", "tool_use_id": id, "content": message.content, "is_error": !ok}),
                ]
            }
            Role::Assistant => {
                let thinking =
                    message.reasoning.iter().map(|text| json!({"type": "thinking", "thinking": text}));
                let said =
                    Some(&message.content).filter(|content| !content.is_empty()).map(|content| text(content));
                let mut content: Vec<Value> = thinking.chain(said).collect();
                for call in &message.tool_calls {
                    self.calls += 1;
                    let id = format!("call_{}", self.calls);
                    content.push(
                        json!({"type": "tool_use", "id": id, "name": call.name, "input": call.arguments}),
                    );
                    self.waiting.push_back(id);
                }
                content
            }
        };
        if message.role != Role::Assistant {
            return Some(json!({"type": "user", "message": {"role": "user", "content": content}}));
        }
        self.thinking = false;
        let mut message = json!({"role": "assistant", "content": content});
        // A call that the loop itself made was written by nobody.
        if let Some(usage) = self.usage.take() {
            message["usage"] = json::usage(&usage);
        }
        Some(json!({"type": "assistant", "message": message}))
    }

    fn part(&mut self, kind: &str, text: &str) -> Option<Value> {
        self.thinking |= kind == "thinking";
        let index = usize::from(self.thinking && kind == "text");
        let delta = json!({"type": format!("{kind}_delta"), kind: text});
        let event = json!({"type": "content_block_delta", "index": index, "delta": delta});
        self.partial.then(|| json!({"type": "stream_event", "event": event}))
    }
}

impl View for Stream {
    fn event(&mut self, event: &Event, streams: &mut Streams<'_>) -> io::Result<()> {
        let object = match event {
            Event::SessionStarted { id, model, context, directory, mode, sandbox, sandbox_note, tools } => {
                self.session_id.clone_from(id);
                let init = json!({
                    "type": "system",
                    "subtype": "init",
                    "cwd": directory,
                    "model": model,
                    "context": context,
                    "tools": tools,
                    "approval_mode": mode,
                    "sandbox": sandbox,
                    "sandbox_note": sandbox_note,
                    "version": env!("CARGO_PKG_VERSION"),
                });
                self.line(streams, init)?;
                for check in std::mem::take(&mut self.first_checks) {
                    self.line(streams, check)?;
                }
                None
            }
            Event::Resumed { messages, turns, forked_from, damaged } => {
                self.damaged.clone_from(damaged);
                Some(json!({
                    "type": "system", "subtype": "resumed", "messages": messages, "requests": turns,
                    "forked_from": forked_from, "damaged_log_lines": damaged,
                }))
            }
            Event::Message { message } => self.message(message),
            Event::TextDelta { text } => self.part("text", text),
            Event::ThinkingDelta { text } => self.part("thinking", text),
            Event::ToolCallFinished { ok, .. } => {
                self.ok = Some(*ok);
                None
            }
            Event::ContextUsage { usage, .. } => {
                self.usage = Some(*usage);
                None
            }
            Event::Checked { command, end, output } => {
                self.ok = None;
                Some(check(command, *end == CheckEnd::Passed, output))
            }
            Event::Compacted { before, after, dropped } => Some(json!({
                "type": "system", "subtype": "compact_boundary", "before": before, "after": after, "dropped": dropped,
            })),
            Event::Undone { restored, .. } => {
                Some(json!({"type": "system", "subtype": "undone", "restored": restored}))
            }
            Event::Error { message, hint } => {
                Some(json!({"type": "system", "subtype": "notice", "message": message, "hint": hint}))
            }
            _ => None,
        };
        object.map_or(Ok(()), |object| self.line(streams, object))
    }

    fn end(&mut self, result: &ExecResult, streams: &mut Streams<'_>) -> io::Result<()> {
        let object = json::with_damage(json::object(result), &self.damaged);
        writeln!(streams.out, "{}", escape_json(&object.to_string()))
    }
}

fn check(command: &str, passed: bool, output: &str) -> Value {
    json!({"type": "system", "subtype": "check", "command": command, "passed": passed, "output": output})
}
