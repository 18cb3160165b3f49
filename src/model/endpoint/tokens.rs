//! How many tokens a history is, where the vocabulary is on another machine: what the server counted of it, and an
//! estimate of what came since. How far the estimate was off for the last prompt corrects the next.

use crate::chat::{Message, ToolSpec};
use crate::engine::tokenizer::estimate;
use serde_json::Value;

/// What a template puts around a message, and around all of them.
const PER_MESSAGE: usize = 8;
const AROUND: usize = 32;

pub(super) struct Counter {
    /// By this the server's vocabulary makes more or fewer tokens than the estimate.
    factor: f64,
    /// The longest history that was counted.
    known: Option<Known>,
}

struct Known {
    messages: Vec<Message>,
    tools: Vec<ToolSpec>,
    tokens: usize,
}

impl Default for Counter {
    fn default() -> Self {
        Self { factor: 1.0, known: None }
    }
}

impl Counter {
    pub fn text(&self, text: &str) -> usize {
        self.corrected(estimate(text))
    }

    pub fn history(&self, messages: &[Message], tools: &[ToolSpec]) -> usize {
        match &self.known {
            Some(known) if messages.starts_with(&known.messages) && tools == known.tools => {
                known.tokens + self.corrected(of_messages(&messages[known.messages.len()..]))
            }
            _ => self.corrected(of_prompt(messages, tools)),
        }
    }

    /// The server says what `messages` come to.
    pub fn learn(&mut self, messages: &[Message], tools: &[ToolSpec], tokens: usize) {
        self.known = Some(Known { messages: messages.to_vec(), tools: tools.to_vec(), tokens });
    }

    /// As many tokens was this prompt.
    pub fn adjust(&mut self, messages: &[Message], tools: &[ToolSpec], tokens: usize) {
        self.factor = (tokens as f64 / of_prompt(messages, tools) as f64).clamp(0.5, 2.0);
    }

    fn corrected(&self, tokens: usize) -> usize {
        (tokens as f64 * self.factor).ceil() as usize
    }
}

fn of_messages(messages: &[Message]) -> usize {
    let of_calls = |message: &Message| -> usize {
        let calls = message.tool_calls.iter();
        calls
            .map(|call| {
                let arguments = Value::Object(call.arguments.clone()).to_string();
                estimate(&call.name) + estimate(&arguments) + PER_MESSAGE
            })
            .sum()
    };
    messages.iter().map(|message| PER_MESSAGE + estimate(&message.content) + of_calls(message)).sum()
}

fn of_prompt(messages: &[Message], tools: &[ToolSpec]) -> usize {
    let tools: usize = tools.iter().map(|tool| estimate(&tool.to_openai().to_string())).sum();
    AROUND + tools + of_messages(messages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Role;

    #[test]
    fn what_was_counted_is_known_and_the_rest_is_estimated() {
        let history: Vec<Message> =
            (0..4).map(|n| Message::new(Role::User, format!("the message with number {n}"))).collect();
        let mut counter = Counter::default();
        let guessed = counter.history(&history, &[]);
        counter.learn(&history[..3], &[], 1000);
        let longer = counter.history(&history, &[]);
        assert!(longer > 1000 && longer < 1000 + guessed, "{longer}");
        assert_eq!(counter.history(&history[..3], &[]), 1000);
        // Another beginning is estimated, by what the last prompt showed.
        counter.adjust(&history, &[], guessed * 3 / 2);
        let other = counter.history(&history[1..], &[]);
        assert!(other > counter.history(&[], &[]) && other < guessed * 3 / 2, "{other}");
        assert_eq!(counter.text("one two three four"), 6);
    }
}
