//! The definitions of a file with their lines, or the map of a directory: less to read than the text itself.

use super::repository_map::repository_map;
use super::{Access, Arguments, Tool, ToolContext, ToolError, ToolOutput, arguments};
use crate::chat::ToolSpec;
use crate::syntax::{Language, Parsed};
use crate::workspace::text::fit;
use crate::workspace::{ReadContent, Workspace};

const NAME: &str = "outline";

pub struct Outline {
    spec: ToolSpec,
}

impl Outline {
    pub fn new() -> Option<Self> {
        Some(Self { spec: super::parse_spec(include_str!("../../tools/outline.json"))? })
    }
}

impl Tool for Outline {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn access(&self, _: &Arguments) -> Access {
        Access::Read
    }

    fn describe(&self, arguments: &Arguments) -> String {
        format!("outline {}", arguments::optional_text(NAME, arguments, "path").ok().flatten().unwrap_or("."))
    }

    fn run(&self, context: &mut ToolContext<'_>, arguments: &Arguments) -> Result<ToolOutput, ToolError> {
        let path = arguments::optional_text(NAME, arguments, "path")?.unwrap_or(".");
        let workspace = context.workspace;
        if let Ok(beneath) = workspace.shown_directory(path) {
            let map = repository_map(workspace, &beneath, context.max_chars, context.cancel);
            if map.is_empty() {
                return Ok(ToolOutput::ok(
                    format!("no file in {path} is of a language that can be outlined; see list_directory"),
                    format!("outline {path} (nothing)"),
                ));
            }
            let files = map.lines().filter(|line| !line.starts_with([' ', '['])).count();
            return Ok(ToolOutput::ok(map, format!("outline {path} ({files} files)")));
        }
        let lines = of_file(workspace, path)?;
        let text = match lines.is_empty() {
            true => format!("{path} defines nothing; read_file shows its text"),
            false => fit(&lines.join("\n"), context.max_chars, "read a part of the file with read_file"),
        };
        Ok(ToolOutput::ok(text, format!("outline {path} ({} definitions)", lines.len())))
    }
}

fn of_file(workspace: &Workspace, path: &str) -> Result<Vec<String>, ToolError> {
    let text = match workspace.read(path)?.content {
        ReadContent::Text(text) => text,
        ReadContent::Binary(what) => {
            return Err(ToolError::ToModel(format!("{path} is a {what}, which has no outline")));
        }
        ReadContent::Huge { .. } => {
            return Err(ToolError::ToModel(format!(
                "{path} is too large to outline; search it with grep_search"
            )));
        }
    };
    let Some(language) = Language::of_path(path) else {
        return Err(ToolError::ToModel(format!(
            "{path} is of no language that can be outlined; read it instead"
        )));
    };
    let text = text.shown();
    let Some(parsed) = Parsed::new(language, &text) else {
        return Err(ToolError::ToModel(format!(
            "{path} takes too long to outline; search it with grep_search"
        )));
    };
    Ok(parsed.outline().iter().map(ToString::to_string).collect())
}
