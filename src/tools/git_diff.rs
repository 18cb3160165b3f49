//! What changed since the last commit.

use super::{Access, Arguments, Tool, ToolContext, ToolError, ToolOutput, arguments};
use crate::chat::ToolSpec;
use crate::workspace::text::fit;

const NAME: &str = "git_diff";

pub struct GitDiff {
    spec: ToolSpec,
}

impl GitDiff {
    pub fn new() -> Option<Self> {
        Some(Self { spec: super::parse_spec(include_str!("../../tools/git_diff.json"))? })
    }
}

impl Tool for GitDiff {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn access(&self, _: &Arguments) -> Access {
        Access::Read
    }

    fn describe(&self, arguments: &Arguments) -> String {
        match arguments::optional_text(NAME, arguments, "path") {
            Ok(Some(path)) => format!("git diff {path}"),
            _ => "git diff".into(),
        }
    }

    fn run(&self, context: &mut ToolContext<'_>, arguments: &Arguments) -> Result<ToolOutput, ToolError> {
        let path = arguments::optional_text(NAME, arguments, "path")?;
        let diff = context.workspace.git_diff(path)?;
        if diff.is_empty() {
            return Ok(ToolOutput::ok("nothing changed since the last commit", "git diff (nothing)"));
        }
        let files = diff.lines().filter(|line| line.starts_with("diff --git ")).count();
        let text = fit(&diff, context.max_chars, "ask for the diff of one path");
        Ok(ToolOutput::ok(text, format!("git diff ({files} files)")))
    }
}
