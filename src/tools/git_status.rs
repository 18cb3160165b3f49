//! The branch and the changed files.

use super::{Access, Arguments, Tool, ToolContext, ToolError, ToolOutput};
use crate::chat::ToolSpec;
use crate::workspace::text::fit;

pub struct GitStatus {
    spec: ToolSpec,
}

impl GitStatus {
    pub fn new() -> Option<Self> {
        Some(Self { spec: super::parse_spec(include_str!("../../tools/git_status.json"))? })
    }
}

impl Tool for GitStatus {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn access(&self, _: &Arguments) -> Access {
        Access::Read
    }

    fn describe(&self, _: &Arguments) -> String {
        "git status".into()
    }

    fn run(&self, context: &mut ToolContext<'_>, _: &Arguments) -> Result<ToolOutput, ToolError> {
        let status = context.workspace.git_status()?;
        let text = fit(&status, context.max_chars, "ask for git_diff of one path");
        Ok(ToolOutput::ok(text, "git status"))
    }
}
