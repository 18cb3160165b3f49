//! Messages <-> text. Chat formats render a conversation to segments (template text and content apart) and the
//! tool-call parser reads what a model wrote. Pure text: no IO, no tokens, no model.
//!
//! | file | what it is |
//! |---|---|
//! | `format` | which formats there are, how one is chosen, rendering whole and by increments |
//! | `render_xml`, `render_hermes`, `pytext` | the blocks of each family, values as Python prints them |
//! | `parser` | the streaming front of reading: bytes, thinking, events |
//! | `read_xml`, `read_hermes`, `lenient_json` | how calls are told from text in each family |
//! | `convert`, `schema`, `literal` | argument text to values by the tool's schema |
//! | `template` | the template of a model's own file, for models that speak none of these |
//! | `structured` | calls that a server took apart |
//! | `validate` | does a call fit its schema, and why not |

mod convert;
pub mod escape;
pub mod format;
mod lenient_json;
mod literal;
pub mod parser;
mod pytext;
mod read_hermes;
mod read_xml;
mod render_hermes;
mod render_xml;
pub mod schema;
mod structured;
pub mod template;
mod validate;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use format::{ChatFormat, Segment};
pub use parser::{ParseEvent, Parsed, ToolCallParser};
pub use structured::structured_call;
pub use template::{SpecialTokens, Template};
pub use validate::validate;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub role: Role,
    #[serde(default)]
    pub content: String,
    /// What a thinking model thought before its answer; shown folded, not sent back in later turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The very tokens that a local model wrote; text alone could come to others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Written>,
}

/// An answer as the model that wrote it counts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Names the vocabulary.
    pub vocabulary: String,
    pub tokens: Vec<u32>,
}

impl Message {
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), reasoning: None, tool_calls: Vec::new(), written: None }
    }
}

/// What the model is told of a tool: exactly the JSON of `tools/NAME.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON schema of the arguments, keys in file order.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub parameters: Value,
    /// Any other key of the function object, kept in order (the XML format renders them too).
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ToolSpec {
    /// `{"type": "function", "function": {...}}`, the shape in which templates and endpoints take a tool.
    pub fn to_openai(&self) -> Value {
        let mut function = Map::new();
        function.insert("name".into(), self.name.clone().into());
        if let Some(description) = &self.description {
            function.insert("description".into(), description.clone().into());
        }
        if !self.parameters.is_null() {
            function.insert("parameters".into(), self.parameters.clone());
        }
        function.extend(self.extra.clone());
        let mut tool = Map::new();
        tool.insert("type".into(), "function".into());
        tool.insert("function".into(), Value::Object(function));
        Value::Object(tool)
    }
}

/// A call the model made, arguments already converted by the tool's schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    pub name: String,
    pub arguments: Map<String, Value>,
}

/// What came back for a call, in the order of the calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    pub name: String,
    pub content: String,
}
