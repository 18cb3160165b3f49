//! Creates a file or replaces its whole text.

use super::syntax_note::syntax_note;
use super::{Access, Arguments, Tool, ToolContext, ToolError, ToolOutput, arguments};
use crate::chat::ToolSpec;
use crate::workspace::{Plan, Workspace};

const NAME: &str = "write_file";

pub struct WriteFile {
    spec: ToolSpec,
}

impl WriteFile {
    pub fn new() -> Option<Self> {
        Some(Self { spec: super::parse_spec(include_str!("../../tools/write_file.json"))? })
    }
}

impl Tool for WriteFile {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn access(&self, _: &Arguments) -> Access {
        Access::Write
    }

    fn describe(&self, arguments: &Arguments) -> String {
        format!("write {}", arguments::shown(arguments, "file_path"))
    }

    fn preview(&self, workspace: &Workspace, arguments: &Arguments) -> Option<String> {
        let path = arguments::text(NAME, arguments, "file_path").ok()?;
        let content = arguments::text(NAME, arguments, "content").ok()?;
        Some(workspace.plan_write(path, content).ok()?.diff)
    }

    fn in_vain(&self, workspace: &Workspace, arguments: &Arguments) -> Option<String> {
        let plan = || -> Result<Plan, ToolError> {
            let path = arguments::text(NAME, arguments, "file_path")?;
            Ok(workspace.plan_write(path, arguments::text(NAME, arguments, "content")?)?)
        };
        plan().err()?.repairable()
    }

    fn plans(&self, workspace: &Workspace, arguments: &Arguments) -> Vec<Plan> {
        let text = |key| arguments::text(NAME, arguments, key);
        let (Ok(path), Ok(content)) = (text("file_path"), text("content")) else { return Vec::new() };
        workspace.plan_write(path, content).into_iter().collect()
    }

    fn run(&self, context: &mut ToolContext<'_>, arguments: &Arguments) -> Result<ToolOutput, ToolError> {
        let path = arguments::text(NAME, arguments, "file_path")?;
        let content = arguments::text(NAME, arguments, "content")?;
        let plan = context.workspace.write(path, content)?;
        let lines = content.lines().count();
        let text = match (plan.creates, plan.diff.is_empty()) {
            (true, _) => format!("created {} ({lines} lines)", plan.path),
            (false, true) => format!("{} already has this text; nothing was changed", plan.path),
            (false, false) => format!("replaced the text of {} ({lines} lines)", plan.path),
        };
        let summary = text.clone();
        Ok(ToolOutput { text: text + &syntax_note(&plan), summary, diff: plan.diff, ok: true })
    }
}
