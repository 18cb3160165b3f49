//! One file per tool and the registry. A tool is thin: its spec (the JSON of `tools/`), its access, and a call into
//! `workspace`. Tools never ask for approval and never touch the disk themselves.

use crate::chat::ToolSpec;
use crate::workspace::Workspace;
use serde_json::{Map, Value};
use std::sync::atomic::AtomicBool;

pub type Arguments = Map<String, Value>;

/// What a call needs; the approval table is over this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    Read,
    Write,
    Execute,
    Network,
}

/// What a tool may use while it runs.
pub struct ToolContext<'a> {
    pub workspace: &'a Workspace,
    pub cancel: &'a AtomicBool,
    /// Called with output as it comes (shell), unescaped.
    pub on_output: &'a mut dyn FnMut(&str),
    /// Characters of output that fit; head and tail are kept and the rest is named.
    pub max_chars: usize,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolOutput {
    /// What the model reads.
    pub text: String,
    /// One line for the user, e.g. `read src/lib.rs (42 lines)`.
    pub summary: String,
    /// Unified diff of what the call changed, empty if nothing.
    pub diff: String,
    /// False where the tool ran but what it ran failed (a command's exit status).
    pub ok: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The model can repair this: what happened, where, and the next step to take.
    #[error("{0}")]
    ToModel(String),
    /// The user must act (sandbox missing, disk full): message and hint.
    #[error("{message}")]
    ToUser { message: String, hint: String },
}

pub trait Tool: Send + Sync {
    fn spec(&self) -> &ToolSpec;
    fn access(&self, arguments: &Arguments) -> Access;
    /// One line that tells the user what this call will do, e.g. `edit src/lib.rs`; unescaped.
    fn describe(&self, arguments: &Arguments) -> String;
    /// What would change, as a unified diff, for an approval; `None` where nothing can be shown.
    fn preview(&self, _workspace: &Workspace, _arguments: &Arguments) -> Option<String> {
        None
    }
    fn run(&self, context: &mut ToolContext<'_>, arguments: &Arguments) -> Result<ToolOutput, ToolError>;
}
