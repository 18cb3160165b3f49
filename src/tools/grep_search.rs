//! Searches the text of files.

use super::{Access, Arguments, Tool, ToolContext, ToolError, ToolOutput, arguments};
use crate::chat::ToolSpec;
use crate::workspace::GrepQuery;
use crate::workspace::text::fit;

const NAME: &str = "grep_search";
const USUAL_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

pub struct GrepSearch {
    spec: ToolSpec,
}

impl GrepSearch {
    pub fn new() -> Option<Self> {
        Some(Self { spec: super::parse_spec(include_str!("../../tools/grep_search.json"))? })
    }
}

impl Tool for GrepSearch {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn access(&self, _: &Arguments) -> Access {
        Access::Read
    }

    fn describe(&self, arguments: &Arguments) -> String {
        format!("search {}", arguments::shown(arguments, "pattern"))
    }

    fn run(&self, context: &mut ToolContext<'_>, arguments: &Arguments) -> Result<ToolOutput, ToolError> {
        let own = |text: Option<&str>| text.map(str::to_string);
        let query = GrepQuery {
            pattern: arguments::text(NAME, arguments, "pattern")?.to_string(),
            path: own(arguments::optional_text(NAME, arguments, "path")?),
            glob: own(arguments::optional_text(NAME, arguments, "glob")?),
            limit: arguments::optional_count(NAME, arguments, "limit")?
                .unwrap_or(USUAL_LIMIT)
                .clamp(1, MAX_LIMIT),
        };
        let found = context.workspace.grep(&query, context.cancel)?;
        let pattern = &query.pattern;
        let mut lines: Vec<String> = Vec::new();
        if found.literal {
            lines.push(format!("[{pattern} is no regular expression; searched for it as it stands]"));
        }
        if found.any_case {
            lines.push(format!("[no match for {pattern} in this case; these ignore case]"));
        }
        lines.extend(found.matches.iter().map(|m| format!("{}:{}: {}", m.path, m.line, m.text)));
        if found.matches.is_empty() {
            let files = found.files_searched;
            lines.push(format!(
                "no match for {pattern} in {files} files; try a shorter pattern or another path"
            ));
        }
        if found.more {
            lines.push("[... more matches; narrow the pattern, path or glob]".into());
        }
        let text = fit(&lines.join("\n"), context.max_chars, "narrow the pattern, path or glob");
        let count = found.matches.len();
        let more = if found.more { "+" } else { "" };
        Ok(ToolOutput::ok(text, format!("search {pattern} ({count}{more} matches)")))
    }
}
