//! A commit of what changed. A step that undo does not take back, so it is approved by itself.

use super::{Access, Arguments, Tool, ToolContext, ToolError, ToolOutput, arguments};
use crate::chat::ToolSpec;
use serde::Deserialize;
use serde_json::Value;

const NAME: &str = "git_commit";

pub struct GitCommit {
    spec: ToolSpec,
}

impl GitCommit {
    pub fn new() -> Option<Self> {
        Some(Self { spec: super::parse_spec(include_str!("../../tools/git_commit.json"))? })
    }
}

impl Tool for GitCommit {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn access(&self, _: &Arguments) -> Access {
        Access::Write
    }

    fn always_asked(&self) -> Option<&'static str> {
        Some("a commit is outside undo, so each is approved by itself")
    }

    fn describe(&self, arguments: &Arguments) -> String {
        let subject = arguments::shown(arguments, "message").lines().next().unwrap_or_default();
        match paths(arguments).unwrap_or_default().as_slice() {
            [] => format!("git commit \"{subject}\""),
            paths => format!("git commit \"{subject}\" ({})", paths.join(", ")),
        }
    }

    /// The user sees all of the message before it is made.
    fn preview(&self, _: &crate::workspace::Workspace, arguments: &Arguments) -> Option<String> {
        Some(format!("{}\n", arguments::text(NAME, arguments, "message").ok()?.trim()))
    }

    fn run(&self, context: &mut ToolContext<'_>, arguments: &Arguments) -> Result<ToolOutput, ToolError> {
        let message = arguments::text(NAME, arguments, "message")?;
        let text = context.workspace.git_commit(message, &paths(arguments)?)?;
        Ok(ToolOutput::ok(text, self.describe(arguments)))
    }
}

fn paths(arguments: &Arguments) -> Result<Vec<String>, ToolError> {
    let wrong = || ToolError::ToModel("git_commit: paths is a list of file names".into());
    match arguments.get("paths") {
        None | Some(Value::Null) => Ok(Vec::new()),
        // A list written as text, or one name.
        Some(Value::String(text)) if text.trim().is_empty() => Ok(Vec::new()),
        Some(Value::String(text)) if text.trim_start().starts_with('[') => {
            serde_json::from_str(text).map_err(|_| wrong())
        }
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(value) => Vec::deserialize(value).map_err(|_| wrong()),
    }
}
