//! The streaming tool-call parser: reads what a model wrote, never fails.
use super::{ChatFormat, ToolCall, ToolSpec};

/// What is certain so far, for showing while the text streams.
#[derive(Debug, Clone, PartialEq)]
pub enum ParseEvent {
    Text(String),
    Thinking(String),
    /// A call has opened; its name is known.
    CallStarted(String),
    Call(ToolCall),
}

/// The reading of a whole answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parsed {
    /// Text before the first call, untrimmed.
    pub content: String,
    pub calls: Vec<ToolCall>,
    pub reasoning: Option<String>,
    /// A call was open when the text ended: it is not among `calls`.
    pub truncated: bool,
    pub problems: Vec<String>,
}

pub struct ToolCallParser {}

impl ToolCallParser {
    /// `opened_think`: the prompt already ended with `<think>`.
    pub fn new(_format: ChatFormat, _tools: &[ToolSpec], _opened_think: bool) -> Self {
        Self {}
    }
    pub fn push(&mut self, _text: &str) -> Vec<ParseEvent> {
        Vec::new()
    }
    pub fn finish(self) -> (Vec<ParseEvent>, Parsed) {
        (Vec::new(), Parsed::default())
    }
}
