//! The latest commits, or the commits behind some lines of a file.

use super::{Access, Arguments, Tool, ToolContext, ToolError, ToolOutput, arguments};
use crate::chat::ToolSpec;
use crate::workspace::text::fit;

const NAME: &str = "git_log";
const USUAL_LIMIT: usize = 20;
const MAX_LIMIT: usize = 500;

pub struct GitLog {
    spec: ToolSpec,
}

impl GitLog {
    pub fn new() -> Option<Self> {
        Some(Self { spec: super::parse_spec(include_str!("../../tools/git_log.json"))? })
    }
}

impl Tool for GitLog {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn access(&self, _: &Arguments) -> Access {
        Access::Read
    }

    fn describe(&self, arguments: &Arguments) -> String {
        let text = |name| arguments::optional_text(NAME, arguments, name).ok().flatten();
        match (text("path"), text("lines")) {
            (Some(path), Some(lines)) => format!("git log {path}:{lines}"),
            (Some(path), None) => format!("git log {path}"),
            _ => "git log".into(),
        }
    }

    fn run(&self, context: &mut ToolContext<'_>, arguments: &Arguments) -> Result<ToolOutput, ToolError> {
        let path = arguments::optional_text(NAME, arguments, "path")?;
        let limit =
            arguments::optional_count(NAME, arguments, "limit")?.unwrap_or(USUAL_LIMIT).clamp(1, MAX_LIMIT);
        let text = match (path, arguments::optional_text(NAME, arguments, "lines")?) {
            (path, None) => context.workspace.git_log(path, limit)?,
            (Some(path), Some(lines)) => {
                let (first, last) = range(lines)?;
                context.workspace.git_blame(path, first, last)?
            }
            (None, Some(_)) => {
                return Err(ToolError::ToModel(
                    "git_log: lines are those of a file; give its path too".into(),
                ));
            }
        };
        let text = fit(&text, context.max_chars, "ask for one path or a smaller limit");
        Ok(ToolOutput::ok(text, self.describe(arguments)))
    }
}

/// `10-20`, or one line.
fn range(lines: &str) -> Result<(usize, usize), ToolError> {
    let wrong = || ToolError::ToModel(format!("git_log: lines are given as 10-20, not as {lines}"));
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|line| *line > 0).ok_or_else(wrong);
    let (first, last) = match lines.split_once(['-', ',', ':']) {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(lines)?, number(lines)?),
    };
    if first <= last { Ok((first, last)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_models_write_them() {
        assert_eq!(range("10-20").unwrap(), (10, 20));
        assert_eq!(range(" 7 ").unwrap(), (7, 7));
        assert_eq!(range("3, 4").unwrap(), (3, 4));
        for wrong in ["", "a", "0", "5-2", "-3", "1-2-3"] {
            assert!(range(wrong).unwrap_err().to_string().contains("10-20"), "{wrong}");
        }
    }
}
