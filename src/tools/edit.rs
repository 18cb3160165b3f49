//! Replaces text in a file; the matching rules are `workspace::edit`'s.

use super::syntax_note::syntax_note;
use super::{Access, Arguments, Tool, ToolContext, ToolError, ToolOutput, arguments};
use crate::chat::ToolSpec;
use crate::workspace::{Edit, Plan, Workspace};

const NAME: &str = "edit";

pub struct EditFile {
    spec: ToolSpec,
}

impl EditFile {
    pub fn new() -> Option<Self> {
        Some(Self { spec: super::parse_spec(include_str!("../../tools/edit.json"))? })
    }
}

fn read(arguments: &Arguments) -> Result<(&str, Edit), ToolError> {
    let edit = Edit {
        old_string: arguments::text(NAME, arguments, "old_string")?.to_string(),
        new_string: arguments::text(NAME, arguments, "new_string")?.to_string(),
        replace_all: arguments::flag(NAME, arguments, "replace_all")?,
    };
    Ok((arguments::text(NAME, arguments, "file_path")?, edit))
}

impl Tool for EditFile {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn access(&self, _: &Arguments) -> Access {
        Access::Write
    }

    fn describe(&self, arguments: &Arguments) -> String {
        format!("edit {}", arguments::shown(arguments, "file_path"))
    }

    fn preview(&self, workspace: &Workspace, arguments: &Arguments) -> Option<String> {
        let (path, edit) = read(arguments).ok()?;
        Some(workspace.plan_edit(path, &edit).ok()?.diff)
    }

    fn in_vain(&self, workspace: &Workspace, arguments: &Arguments) -> Option<String> {
        let plan = || -> Result<Plan, ToolError> {
            let (path, edit) = read(arguments)?;
            Ok(workspace.plan_edit(path, &edit)?)
        };
        plan().err()?.repairable()
    }

    fn plans(&self, workspace: &Workspace, arguments: &Arguments) -> Vec<Plan> {
        let Ok((path, edit)) = read(arguments) else { return Vec::new() };
        workspace.plan_edit(path, &edit).into_iter().collect()
    }

    fn run(&self, context: &mut ToolContext<'_>, arguments: &Arguments) -> Result<ToolOutput, ToolError> {
        let (path, edit) = read(arguments)?;
        let plan = context.workspace.edit(path, &edit)?;
        let path = &plan.path;
        let text = match (plan.creates, plan.replaced) {
            (true, _) => format!("created {path}"),
            (false, 0 | 1) => format!("edited {path} at line {}", plan.line),
            (false, n) => format!("edited {path}: {n} places, the first at line {}", plan.line),
        };
        let note = plan.bridged.map_or(String::new(), |what| {
            format!(" (old_string was found with {what}; copy it exactly next time)")
        });
        let summary = text.clone();
        let note = note + &syntax_note(&plan);
        Ok(ToolOutput { text: text + &note, summary, diff: plan.diff, ok: true })
    }
}
