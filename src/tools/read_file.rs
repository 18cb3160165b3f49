//! Reads a file as plain text, without line numbers: small models copy those into `old_string`.
//! Where less than the whole file is shown, a first line in brackets says what, and how to read on.

use super::{Access, Arguments, Tool, ToolContext, ToolError, ToolOutput, arguments};
use crate::chat::ToolSpec;
use crate::workspace::text::{cut_middle, human_size};
use crate::workspace::{FileRead, ReadContent};

const NAME: &str = "read_file";

pub struct ReadFile {
    spec: ToolSpec,
}

impl ReadFile {
    pub fn new() -> Option<Self> {
        Some(Self { spec: super::parse_spec(include_str!("../../tools/read_file.json"))? })
    }
}

impl Tool for ReadFile {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn access(&self, _: &Arguments) -> Access {
        Access::Read
    }

    fn describe(&self, arguments: &Arguments) -> String {
        format!("read {}", arguments::shown(arguments, "file_path"))
    }

    fn run(&self, context: &mut ToolContext<'_>, arguments: &Arguments) -> Result<ToolOutput, ToolError> {
        let path = arguments::text(NAME, arguments, "file_path")?;
        let offset = arguments::optional_count(NAME, arguments, "offset")?;
        let limit = arguments::optional_count(NAME, arguments, "limit")?;
        let file = context.workspace.read(path)?;
        let size = human_size(file.size);
        let path = &file.path;
        match &file.content {
            ReadContent::Binary(kind) => {
                let text = format!("{path} is a {kind} of {size}; its bytes are not shown");
                Ok(ToolOutput::ok(text.clone(), text))
            }
            ReadContent::Huge { head, tail } => {
                let fitted = |text: &str, part: usize| {
                    cut_middle(text, part).map_or(text.to_string(), |cut| cut.head.to_string())
                };
                let part = context.max_chars / 2;
                let text = format!(
                    "[{path} has {size}: its beginning and its end; search the rest with grep_search]\n{}\n[...]\n{}",
                    fitted(head, part),
                    fitted(tail, part)
                );
                Ok(ToolOutput::ok(text, format!("read {path} ({size}, cut)")))
            }
            ReadContent::Text(text) if text.text.is_empty() => {
                Ok(ToolOutput::ok(format!("[{path} is empty]"), format!("read {path} (empty)")))
            }
            ReadContent::Text(text) => {
                let mut output = lines(&file, &text.shown(), offset, limit, context.max_chars)?;
                if !text.valid_utf8 {
                    let note = format!(
                        "[{path} is not valid UTF-8: \u{fffd} stands for other bytes, and it cannot be edited]\n"
                    );
                    output.text.insert_str(0, &note);
                }
                Ok(output)
            }
        }
    }
}

fn lines(
    file: &FileRead,
    text: &str,
    offset: Option<usize>,
    limit: Option<usize>,
    max_chars: usize,
) -> Result<ToolOutput, ToolError> {
    let path = &file.path;
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let total = lines.len();
    let first = offset.unwrap_or(1).max(1);
    if first > total {
        return Err(ToolError::ToModel(format!(
            "{path} has {total} lines; call read_file with an offset from 1 to {total}"
        )));
    }
    let end = limit.map_or(total, |limit| first.saturating_sub(1).saturating_add(limit.max(1)).min(total));
    let part: String = lines[first - 1..end].concat();
    let whole = first == 1 && end == total;
    let (header, body) = match cut_middle(&part, max_chars) {
        None if whole => (String::new(), part),
        None => {
            let next = if end < total { format!("; read on with offset {}", end + 1) } else { String::new() };
            (format!("[{path}: lines {first} to {end} of {total}{next}]\n"), part)
        }
        Some(cut) => {
            let from = first + cut.head_lines;
            let until = from + cut.left_out_lines.max(1) - 1;
            let header = format!(
                "[{path}: lines {first} to {end} of {total} ({}), without lines {from} to {until}; read on with offset {from}]\n",
                human_size(file.size)
            );
            let gap = if cut.head.ends_with('\n') { "" } else { "\n" };
            let body = format!("{}{gap}[... lines {from} to {until} left out ...]\n{}", cut.head, cut.tail);
            (header, body)
        }
    };
    let shown = if whole { format!("{total} lines") } else { format!("lines {first} to {end} of {total}") };
    let cut = if header.contains("without lines") { ", cut" } else { "" };
    Ok(ToolOutput::ok(header + &body, format!("read {path} ({shown}{cut})")))
}
