//! A model that plays turns from a file: for deterministic tests of the loop, never for claims about the product.
//! What it "writes" goes through the real parser of its chat format, in pieces, as a real model's text would.
//!
//! The file is one JSON array or JSON lines. A string is what the model writes in one call; an object is
//! `{"text": ..., "length": true}` (cut off for length), `{"repeat": true}` (stopped for repetition),
//! `{"error": "..."}` (unavailable) or `{"hang": true}` (writes its text and no more until it is cancelled); `{"revised": "..."}` is
//! the next version of a text that is to be set right, and where none is next there is none. An object with `"model"` sets `format`, `context`, `billions` for all. A token counts as four bytes.

use super::{
    Generated, Model, ModelError, ModelEvent, ModelInfo, Request, Revised, Revision, StopReason, Usage,
};
use crate::chat::{ChatFormat, Message, ParseEvent, Role, ToolCallParser, ToolSpec};
use serde::Deserialize;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScriptedTurn {
    pub text: String,
    pub length: bool,
    pub repeat: bool,
    pub error: Option<String>,
    pub hang: bool,
    pub revised: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    format: String,
    context: usize,
    billions: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { format: "qwen3-coder".into(), context: 32_768, billions: 0.0 }
    }
}

pub struct ScriptedModel {
    info: ModelInfo,
    turns: VecDeque<ScriptedTurn>,
    played: usize,
    /// The history as it was after the last answer, to say what a real cache would have held.
    held: Vec<Message>,
}

impl ScriptedModel {
    pub fn new(info: ModelInfo, turns: impl IntoIterator<Item = ScriptedTurn>) -> Self {
        Self { info, turns: turns.into_iter().collect(), played: 0, held: Vec::new() }
    }

    /// Reads a script; the error names what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let values: Vec<Value> = if text.trim_start().starts_with('[') {
            serde_json::from_str(text).map_err(|error| error.to_string())?
        } else {
            serde_json::Deserializer::from_str(text)
                .into_iter::<Value>()
                .collect::<Result<_, _>>()
                .map_err(|error| error.to_string())?
        };
        let mut settings = Settings::default();
        let mut turns = Vec::new();
        for (index, value) in values.into_iter().enumerate() {
            let wrong = |error: serde_json::Error| format!("entry {}: {error}", index + 1);
            match value {
                Value::String(text) => turns.push(ScriptedTurn { text, ..ScriptedTurn::default() }),
                Value::Object(mut object) if object.contains_key("model") => {
                    settings =
                        serde_json::from_value(object.remove("model").unwrap_or_default()).map_err(wrong)?;
                }
                other => turns.push(serde_json::from_value(other).map_err(wrong)?),
            }
        }
        let format = match settings.format.as_str() {
            "qwen3-coder" => ChatFormat::Qwen3Coder,
            "hermes" => ChatFormat::Hermes,
            "hermes-qwen2.5" => ChatFormat::HermesQwen25,
            "thinking" => ChatFormat::Thinking,
            other => return Err(format!("`{other}` is no chat format")),
        };
        let info = ModelInfo {
            name: "scripted".into(),
            context: settings.context,
            format,
            billions: settings.billions,
        };
        Ok(Self::new(info, turns))
    }

    fn usage(&self, request: &Request<'_>, completion: usize) -> Usage {
        let prompt = self.count_history(request.messages, request.tools);
        let common = self.held.iter().zip(request.messages).take_while(|(held, sent)| held == sent).count();
        let cached = match common {
            0 => 0,
            _ => self.count_history(&request.messages[..common], request.tools).min(prompt),
        };
        // What was held and is sent in another form counts as sent twice.
        let repeated = self.count_history(&self.held[common..], &[]);
        Usage { prompt, cached, prefilled: prompt - cached, completion, repeated, ..Usage::default() }
    }
}

impl Model for ScriptedModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.len().div_ceil(4)
    }

    fn count_history(&self, messages: &[Message], tools: &[ToolSpec]) -> usize {
        let json = |value: serde_json::Result<String>| value.map_or(0, |text| self.count_tokens(&text));
        let messages: usize = messages.iter().map(|message| json(serde_json::to_string(message))).sum();
        messages + tools.iter().map(|tool| json(serde_json::to_string(tool))).sum::<usize>()
    }

    fn generate(
        &mut self,
        request: Request<'_>,
        on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<Generated, ModelError> {
        let total = self.count_history(request.messages, request.tools) as u64;
        if total as usize >= self.info.context {
            return Err(ModelError::ContextFull { needed: total as usize + 1, limit: self.info.context });
        }
        let Some(turn) = self.turns.pop_front() else {
            return Err(ModelError::Unavailable {
                message: format!("the script has {} turns, and one more was asked for", self.played),
                hint: "add a turn to the script".into(),
            });
        };
        self.played += 1;
        if let Some(message) = turn.error {
            return Err(ModelError::Unavailable { message, hint: "the script says so".into() });
        }
        on_event(ModelEvent::Progress { phase: "prefill", done: total, total });
        let cancelled = || request.cancel.load(Ordering::Relaxed);
        // The limit on tokens cuts as a real one would; a character is never split.
        let mut end = turn.text.len().min(request.sampling.max_tokens.saturating_mul(4));
        while !turn.text.is_char_boundary(end) {
            end -= 1;
        }
        let cut = end < turn.text.len();
        let text = &turn.text[..end];
        let opened_think = self.info.format == ChatFormat::Thinking;
        let mut parser = ToolCallParser::new(self.info.format, request.tools, opened_think);
        let mut forward = |events: Vec<ParseEvent>| {
            for event in events {
                on_event(match event {
                    ParseEvent::Text(text) => ModelEvent::Text(text),
                    ParseEvent::Thinking(text) => ModelEvent::Thinking(text),
                    ParseEvent::CallStarted(name) => ModelEvent::ToolCallStarted(name),
                    ParseEvent::Call(call) => ModelEvent::ToolCall(call),
                });
            }
        };
        let mut written = 0;
        while written < text.len() && !cancelled() {
            let mut next = (written + 7).min(text.len());
            while !text.is_char_boundary(next) {
                next += 1;
            }
            forward(parser.push(&text[written..next]));
            written = next;
        }
        while turn.hang && !cancelled() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let (events, parsed) = parser.finish();
        forward(events);
        let mut message = Message::new(Role::Assistant, parsed.content);
        message.reasoning = parsed.reasoning;
        message.tool_calls = parsed.calls;
        let usage = self.usage(&request, self.count_tokens(&text[..written]));
        on_event(ModelEvent::Usage(usage));
        self.held = request.messages.to_vec();
        if request.aside {
            self.held.pop();
        } else {
            self.held.push(message.clone());
        }
        let stop = if cancelled() {
            StopReason::Cancelled
        } else if turn.repeat {
            StopReason::Repetition
        } else if turn.length || cut {
            StopReason::Length
        } else {
            StopReason::End
        };
        Ok(Generated { message, stop, usage, truncated: parsed.truncated, problems: parsed.problems })
    }

    fn revise(
        &mut self,
        _revision: Revision<'_>,
        _on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<Revised, ModelError> {
        let is_next = self.turns.front().is_some_and(|turn| turn.revised.is_some());
        let next = if is_next { self.turns.pop_front() } else { None };
        Ok(Revised { text: next.and_then(|turn| turn.revised), ..Revised::default() })
    }
}
