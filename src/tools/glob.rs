//! Finds files by name.

use super::{Access, Arguments, Tool, ToolContext, ToolError, ToolOutput, arguments};
use crate::chat::ToolSpec;
use crate::workspace::text::fit;

const NAME: &str = "glob";
const MAX_PATHS: usize = 200;

pub struct Glob {
    spec: ToolSpec,
}

impl Glob {
    pub fn new() -> Option<Self> {
        Some(Self { spec: super::parse_spec(include_str!("../../tools/glob.json"))? })
    }
}

impl Tool for Glob {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn access(&self, _: &Arguments) -> Access {
        Access::Read
    }

    fn describe(&self, arguments: &Arguments) -> String {
        format!("find {}", arguments::shown(arguments, "pattern"))
    }

    fn run(&self, context: &mut ToolContext<'_>, arguments: &Arguments) -> Result<ToolOutput, ToolError> {
        let pattern = arguments::text(NAME, arguments, "pattern")?;
        let path = arguments::optional_text(NAME, arguments, "path")?;
        let listing = context.workspace.glob(pattern, path, MAX_PATHS, context.cancel)?;
        let count = listing.paths.len() + listing.left_out;
        let mut text = listing.paths.join("\n");
        if listing.paths.is_empty() {
            text =
                format!("no file matches {pattern}; try a wider pattern such as **/*.rs, or list_directory");
        }
        if listing.left_out > 0 {
            text.push_str(&format!("\n[... {} more; use a narrower pattern]", listing.left_out));
        }
        let text = fit(&text, context.max_chars, "use a narrower pattern");
        Ok(ToolOutput::ok(text, format!("find {pattern} ({count} files)")))
    }
}
