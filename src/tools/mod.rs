//! One file per tool and the registry. A tool is thin: its spec (the JSON of `tools/`), its access, and a call into
//! `workspace`. Tools never ask for approval and never touch the disk themselves.
//!
//! A new tool is a file here, a JSON in `tools/` and a line in [`Registry::standard`]. What a model is told when it
//! can repair a call comes from `workspace`; reading arguments the way models write them is `arguments`' part.

mod arguments;
mod background;
mod edit;
mod git_commit;
mod git_diff;
mod git_log;
mod git_status;
mod glob;
mod grep_search;
mod list_directory;
mod outline;
mod read_file;
mod repository_map;
mod run_shell_command;
mod syntax_note;
mod todo_write;
mod write_file;

pub use repository_map::repository_map;
pub use run_shell_command::NOT_SANDBOXED;
pub use syntax_note::syntax_error;

use crate::chat::ToolSpec;
use crate::workspace::shell::Shell;
use crate::workspace::shell::policy::{Commands, Judgement};
use crate::workspace::{Plan, Workspace, WorkspaceError};
use serde_json::{Map, Value};
use std::sync::Arc;
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
    pub shell: &'a Shell,
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

impl ToolOutput {
    fn ok(text: impl Into<String>, summary: impl Into<String>) -> Self {
        Self { text: text.into(), summary: summary.into(), diff: String::new(), ok: true }
    }
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

impl ToolError {
    /// What the model can repair.
    fn repairable(self) -> Option<String> {
        match self {
            Self::ToModel(message) => Some(message),
            Self::ToUser { .. } => None,
        }
    }
}

impl From<WorkspaceError> for ToolError {
    fn from(error: WorkspaceError) -> Self {
        match error {
            WorkspaceError::Machine { message, hint } => Self::ToUser { message, hint },
            repairable => Self::ToModel(repairable.to_string()),
        }
    }
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
    /// Why a call could not do what it says, as things stand: nobody need be asked for it.
    fn in_vain(&self, _workspace: &Workspace, _arguments: &Arguments) -> Option<String> {
        None
    }
    /// Why a call is asked for in every mode but yolo, whatever the table says of its access.
    fn always_asked(&self) -> Option<&'static str> {
        None
    }
    /// What the text of the command that a call runs tells; `None` where it runs none.
    fn judge_command(&self, _workspace: &Workspace, _arguments: &Arguments) -> Option<Judgement> {
        None
    }
    /// The commands that a call runs, as words; `None` where it runs none.
    fn commands(&self, _workspace: &Workspace, _arguments: &Arguments) -> Option<Commands> {
        None
    }
    /// The changes behind the preview, where the user may settle on a part of them.
    fn plans(&self, _workspace: &Workspace, _arguments: &Arguments) -> Vec<Plan> {
        Vec::new()
    }
    fn run(&self, context: &mut ToolContext<'_>, arguments: &Arguments) -> Result<ToolOutput, ToolError>;
}

/// The tools of a session, in the order the model sees them.
#[derive(Clone, Default)]
pub struct Registry {
    tools: Vec<Arc<dyn Tool>>,
}

impl Registry {
    /// Every tool, with a todo list of its own.
    pub fn standard() -> Self {
        let mut registry = Self::default();
        registry.add(read_file::ReadFile::new);
        registry.add(list_directory::ListDirectory::new);
        registry.add(glob::Glob::new);
        registry.add(grep_search::GrepSearch::new);
        registry.add(edit::EditFile::new);
        registry.add(write_file::WriteFile::new);
        registry.add(run_shell_command::RunShell::new);
        registry.add(todo_write::TodoWrite::new);
        registry.add(git_status::GitStatus::new);
        registry.add(git_diff::GitDiff::new);
        registry.add(git_log::GitLog::new);
        registry.add(git_commit::GitCommit::new);
        registry.add(outline::Outline::new);
        registry.add(background::Background::new);
        registry
    }

    /// A spec that cannot be parsed leaves its tool out; a test over `tools/` keeps that from ever shipping.
    fn add<T: Tool + 'static>(&mut self, new: fn() -> Option<T>) {
        if let Some(tool) = new() {
            self.tools.push(Arc::new(tool));
        }
    }

    pub fn specs(&self) -> Vec<ToolSpec> {
        self.tools.iter().map(|tool| tool.spec().clone()).collect()
    }

    pub fn get(&self, name: &str) -> Option<&dyn Tool> {
        self.tools.iter().find(|tool| tool.spec().name == name).map(|tool| &**tool)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tools.iter().map(|tool| tool.spec().name.as_str())
    }

    /// The same without what runs in the background, of which a small model makes nothing good.
    pub fn foreground(&self) -> Self {
        let plain = run_shell_command::RunShell::foreground().map(|tool| Arc::new(tool) as Arc<dyn Tool>);
        let narrow = |tool: &Arc<dyn Tool>| match &plain {
            Some(plain) if tool.spec().name == plain.spec().name => plain.clone(),
            _ => tool.clone(),
        };
        Self { tools: self.tools.iter().map(narrow).collect() }
    }

    /// The named tools, in this registry's order; they share their state with it.
    pub fn subset(&self, names: &[&str]) -> Self {
        let named = |tool: &&Arc<dyn Tool>| names.contains(&tool.spec().name.as_str());
        Self { tools: self.tools.iter().filter(named).cloned().collect() }
    }
}

/// Reads the spec of a tool from its JSON in `tools/`.
fn parse_spec(json: &str) -> Option<ToolSpec> {
    serde_json::from_str(json).ok()
}
