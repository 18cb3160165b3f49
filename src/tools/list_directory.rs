//! Lists one directory.

use super::{Access, Arguments, Tool, ToolContext, ToolError, ToolOutput, arguments};
use crate::chat::ToolSpec;
use crate::workspace::text::fit;

const NAME: &str = "list_directory";
const MAX_ENTRIES: usize = 500;

pub struct ListDirectory {
    spec: ToolSpec,
}

impl ListDirectory {
    pub fn new() -> Option<Self> {
        Some(Self { spec: super::parse_spec(include_str!("../../tools/list_directory.json"))? })
    }
}

impl Tool for ListDirectory {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn access(&self, _: &Arguments) -> Access {
        Access::Read
    }

    fn describe(&self, arguments: &Arguments) -> String {
        match arguments::shown(arguments, "path") {
            "?" | "" => "list the workspace".into(),
            path => format!("list {path}"),
        }
    }

    fn run(&self, context: &mut ToolContext<'_>, arguments: &Arguments) -> Result<ToolOutput, ToolError> {
        let path = arguments::optional_text(NAME, arguments, "path")?.unwrap_or(".");
        let listing = context.workspace.list(path, MAX_ENTRIES)?;
        let count = listing.paths.len() + listing.left_out;
        let mut text = listing.paths.join("\n");
        if listing.paths.is_empty() {
            text = format!("[{path} has no files that are not ignored]");
        }
        if listing.left_out > 0 {
            text.push_str(&format!("\n[... {} more; use glob]", listing.left_out));
        }
        let text = fit(&text, context.max_chars, "use glob");
        Ok(ToolOutput::ok(text, format!("list {path} ({count} entries)")))
    }
}
