//! `trait Model`: messages in, one assistant message out, streamed. The agent knows a model only through this.
//! `local` joins engine and chat, `grammar` is what it holds calls to; `endpoint` asks a server; `scripted` plays turns from a
//! file, for deterministic tests of the loop.

pub mod endpoint;
pub mod grammar;
pub mod local;
mod revise;
pub mod scripted;
mod setup;
mod tail;

use crate::chat::{ChatFormat, Message, ToolCall, ToolSpec};
use serde::{Deserialize, Serialize};
pub use setup::{ModelSetup, difference};
use std::sync::atomic::AtomicBool;

/// What a model can do and how much it can hold.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    pub name: String,
    /// Tokens of context this model was loaded with.
    pub context: usize,
    pub format: ChatFormat,
    /// Number of weights, in billions; decides how much help the loop gives (`0.0`: unknown).
    pub billions: f64,
}

/// Sampling settings of one request. `None` takes the model's own (catalogue) value.
#[derive(Debug, Clone, Default)]
pub struct Sampling {
    pub seed: u64,
    pub temperature: Option<f32>,
    pub max_tokens: usize,
}

/// One model call. `messages` is the whole history; a model that holds state prefills only what is new.
pub struct Request<'a> {
    pub messages: &'a [Message],
    pub tools: &'a [ToolSpec],
    pub sampling: Sampling,
    /// A call the answer must make. A model that thinks before it answers, or that we do not sample ourselves, may
    /// leave it aside.
    pub must_call: Option<&'a RequiredCall>,
    /// The answer may not open a call with the tag that a call opens with.
    pub words_only: bool,
    /// What the values of a call are held to, beside their schemas.
    pub values: Option<&'a dyn grammar::LiveValues>,
    /// A question beside the conversation: the last message asks it, and neither it nor the answer leaves a trace in
    /// what the model holds. The conversation's next token is the one it would have been.
    pub aside: bool,
    /// How the answer to a question beside the conversation begins and ends. A model that we do not sample ourselves may
    /// leave it aside.
    pub frame: Option<Frame<'a>>,
    pub cancel: &'a AtomicBool,
}

/// An answer that copies, and so is free to repeat: it begins with the one text, given to the model as its first words,
/// and is over where it comes to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub begins: &'a str,
    pub ends: &'a str,
}

/// The beginning of a call that an answer must make: given to the model as its first words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequiredCall {
    pub tool: String,
    /// Parameters whose values are settled, in order.
    pub given: Vec<(String, String)>,
    /// The parameter the model writes next.
    pub next: String,
}

/// A text that is to be set right, a version at a time: asked again with the same text, a model gives the next one.
/// The history and `ask` are what it is shown before it; neither `ask` nor the versions enter the history.
pub struct Revision<'a> {
    pub messages: &'a [Message],
    pub tools: &'a [ToolSpec],
    pub ask: &'a Message,
    pub text: &'a str,
    /// The word that a block of code in its language opens with.
    pub language: &'a str,
    /// Only what stands before this byte may change.
    pub until: usize,
    pub sampling: Sampling,
    pub cancel: &'a AtomicBool,
}

/// The next version of a text; `None` where there are no more, or the model gives none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revised {
    pub text: Option<String>,
    pub usage: Usage,
    pub cancelled: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ModelEvent {
    /// `phase` is "load" or "prefill"; in tokens or bytes.
    Progress {
        phase: &'static str,
        done: u64,
        total: u64,
    },
    Text(String),
    Thinking(String),
    ToolCallStarted(String),
    ToolCall(ToolCall),
    Usage(Usage),
    /// Something the user should know and the answer does not depend on.
    Note(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model ended its turn (or asked for tools).
    End,
    /// `max_tokens` or the context limit.
    Length,
    /// The cancel flag was raised.
    Cancelled,
    /// The text repeats itself (the same 50 characters ten times).
    Repetition,
}

/// Tokens of one model call. `prompt = cached + prefilled`; what was prefilled while the user typed counts as cached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    pub prompt: usize,
    pub cached: usize,
    pub prefilled: usize,
    pub completion: usize,
    /// Tokens that were prefilled a second time; the expected count is zero.
    pub repeated: usize,
    /// Tokens that a draft had right, and so were not decoded one by one; tokens of drafts that were wrong. Both are
    /// zero where drafts are off, and what is written is the same.
    #[serde(default)]
    pub drafted: usize,
    #[serde(default)]
    pub rejected: usize,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.prompt += other.prompt;
        self.cached += other.cached;
        self.prefilled += other.prefilled;
        self.completion += other.completion;
        self.repeated += other.repeated;
        self.drafted += other.drafted;
        self.rejected += other.rejected;
    }
}

#[derive(Debug, Clone)]
pub struct Generated {
    /// The assistant's message; push this very value into the history (a local model compares it with its cache).
    pub message: Message,
    pub stop: StopReason,
    pub usage: Usage,
    /// A call was cut off; it is not in `message.tool_calls`.
    pub truncated: bool,
    /// What the parser could not read, in words the model can act on.
    pub problems: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("the request needs {needed} tokens and the context holds {limit}")]
    ContextFull { needed: usize, limit: usize },
    #[error("{message}")]
    Unavailable { message: String, hint: String },
}

pub trait Model: Send {
    fn info(&self) -> &ModelInfo;
    /// How it is run, where that decides what it says: a model of this program.
    fn setup(&self) -> Option<ModelSetup> {
        None
    }
    /// The text that an answer to `messages` would begin behind.
    fn prompt(&self, messages: &[Message], tools: &[ToolSpec]) -> Result<String, ModelError> {
        Ok(crate::chat::format::text(&self.info().format.render(messages, tools, true)))
    }
    /// Number of tokens of `text` as message content: exact where the model runs here, else an estimate.
    fn count_tokens(&self, text: &str) -> usize;
    /// Tokens held by the history `messages` with `tools`, as they would be sent.
    fn count_history(&self, messages: &[Message], tools: &[ToolSpec]) -> usize;
    fn generate(
        &mut self,
        request: Request<'_>,
        on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<Generated, ModelError>;
    /// Prefills what is certain of a request that is still being written: `messages`, whose last one may grow at its
    /// end. Returns how many tokens; `cancel` stops it at no cost. Changes no answer, only how soon it comes.
    fn look_ahead(
        &mut self,
        _messages: &[Message],
        _tools: &[ToolSpec],
        _cancel: &AtomicBool,
    ) -> Result<usize, ModelError> {
        Ok(0)
    }
    /// The next version of a text, the likeliest first. Only a model that is sampled here can give them.
    fn revise(
        &mut self,
        _revision: Revision<'_>,
        _on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<Revised, ModelError> {
        Ok(Revised::default())
    }
}
