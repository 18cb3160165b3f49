//! `qwright sessions export`: a session as Markdown to read and pass on, or its log as JSON with all that it holds.

use super::parts::{Part, parts};
use super::{CommandResult, Failure, exit, out};
use crate::agent::store::Stored;
use crate::chat::escape::{escape_for_terminal, escape_json, escape_line};
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Characters that a terminal would obey or that show nothing are written as \\u{1b} in Markdown, and as JSON escapes, \
which change no value, in JSON.")]
pub struct ExportArgs {
    pub(super) id: String,
    /// markdown: what was said and done, with outputs and diffs; json: every record of the log
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write to this file instead of standard output; one that is there is replaced
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    #[default]
    Markdown,
    Json,
}

pub(super) fn run(args: &ExportArgs, stored: &Stored) -> CommandResult {
    let text = match args.format {
        Format::Markdown => markdown(stored),
        Format::Json => json(stored)?,
    };
    match &args.output {
        None => out(&text)?,
        Some(path) => std::fs::write(path, text).map_err(|error| {
            Failure::new(exit::USAGE, format!("{}: {error}", path.display()))
                .hint("name a file that can be written with -o")
        })?,
    }
    Ok(exit::DONE)
}

fn json(stored: &Stored) -> Result<String, Failure> {
    let object = json!({
        "id": stored.id, "directory": stored.directory, "damaged_lines": stored.damaged,
        "torn_bytes": stored.torn, "records": stored.records,
    });
    let text = serde_json::to_string_pretty(&object)
        .map_err(|error| Failure::new(exit::TASK_FAILED, error.to_string()))?;
    Ok(format!("{}\n", escape_json(&text)))
}

fn markdown(stored: &Stored) -> String {
    let mut text = format!("# Session {}\n", escape_line(&stored.id));
    if !stored.directory.is_empty() {
        text.push_str(&format!("\nIn {}.\n", code(&stored.directory)));
    }
    for part in parts(&stored.records) {
        let block = match &part {
            Part::Started { time, model, mode, sandbox, again } => {
                let on = if *again { "Goes on" } else { "Begun" };
                escape_line(&format!("*{on} {time} with {model}, mode {mode}, sandbox {sandbox}.*"))
                    .into_owned()
            }
            Part::Request(request) => format!("## Request\n\n{}", quote(request)),
            Part::Said(said) => escape_for_terminal(said).into_owned(),
            Part::Note(note) => format!("The model was told:\n\n{}", quote(note)),
            Part::Called { summary, result: Some(result) } => {
                format!("**Call** {}\n\n{}", code(summary), fenced("", result))
            }
            Part::Called { summary, result: None } => {
                format!("**Call** {}, which was not run.", code(summary))
            }
            Part::Aside { question, answer } => {
                format!("**Beside**\n\n{}\n\n{}", quote(question), escape_for_terminal(answer.trim()))
            }
            Part::Changed { diff, .. } => format!("**Changed**\n\n{}", fenced("diff", diff)),
            Part::Mark(mark) => format!("*{}*", escape_line(mark)),
        };
        text.push_str(&format!("\n{block}\n"));
    }
    stored.losses().iter().for_each(|loss| text.push_str(&format!("\n*What could not be read: {loss}.*\n")));
    text
}

fn quote(text: &str) -> String {
    let lines = escape_for_terminal(text.trim()).lines().map(|line| format!("> {line}")).collect::<Vec<_>>();
    lines.join("\n")
}

/// The longest run of backticks in a text.
fn ticks(text: &str) -> usize {
    let mut longest = 0;
    let mut run = 0;
    for c in text.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

/// A text as code in a line, whatever backticks it holds.
fn code(text: &str) -> String {
    let fence = "`".repeat(ticks(text) + 1);
    let blank = if text.contains('`') { " " } else { "" };
    format!("{fence}{blank}{}{blank}{fence}", escape_line(text))
}

/// A block of code that nothing in the text closes.
fn fenced(language: &str, text: &str) -> String {
    let fence = "`".repeat((ticks(text) + 1).max(3));
    format!("{fence}{language}\n{}\n{fence}", escape_for_terminal(text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_leaves_its_block() {
        assert_eq!(fenced("", "a\n"), "```\na\n```");
        assert_eq!(fenced("", "```\nx\n````\n"), "`````\n```\nx\n````\n`````");
        assert_eq!(code("a"), "`a`");
        assert_eq!(code("a`b"), "`` a`b ``");
        assert_eq!(quote("a\n\nb\u{1b}"), "> a\n> \n> b\\u{1b}");
    }
}
