//! Chat formats: how a conversation becomes the text a Qwen model was trained on.
use super::{Message, ToolSpec};

/// A piece of a rendered prompt. Only template text may become added tokens (`<|im_start|>`, `<tool_call>`, ...);
/// content that users, files or commands wrote is encoded as ordinary text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    Template(String),
    Content(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatFormat {
    /// Qwen3-Coder: XML tool calls.
    Qwen3Coder,
    /// Qwen3 Instruct: Hermes JSON.
    Hermes,
    /// Qwen2.5: Hermes JSON with a default system prompt (and, for the Coder files, doubled braces).
    HermesQwen25,
    /// Qwen3 Thinking-2507: Hermes JSON, the prompt opens `<think>`.
    Thinking,
}

impl ChatFormat {
    pub fn render(
        self,
        _messages: &[Message],
        _tools: &[ToolSpec],
        _add_generation_prompt: bool,
    ) -> Vec<Segment> {
        Vec::new()
    }
}
