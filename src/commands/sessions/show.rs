//! `qwright sessions show`: a session as text for a terminal.

use super::head;
use super::parts::{Part, parts};
use crate::agent::store::Stored;
use crate::chat::escape::{escape_for_terminal, escape_line};

/// Characters of a call, and of what came of it.
const CALL: usize = 100;
const RESULT: usize = 60;

/// All of it, escaped.
pub(super) fn text(stored: &Stored) -> String {
    let mut text = format!("session {}\n", escape_line(&stored.id));
    if !stored.directory.is_empty() {
        text.push_str(&format!("in {}\n", escape_line(&stored.directory)));
    }
    let mut before_was_line = true;
    for part in parts(&stored.records) {
        let (block, is_line) = match &part {
            Part::Started { time, model, mode, sandbox, again } => {
                let on = if *again { "goes on" } else { "begun" };
                let line = format!("{on} {time} with {model}, mode {mode}, sandbox {sandbox}");
                (format!("- {}", escape_line(&line)), true)
            }
            Part::Request(text) => {
                (format!("> {}", escape_for_terminal(text.trim()).replace('\n', "\n> ")), false)
            }
            Part::Said(text) => (escape_for_terminal(text).into_owned(), false),
            Part::Note(text) => (format!("- told the model: {}", escape_line(&head(text, CALL))), true),
            Part::Called { summary, result } => {
                let result = result.map_or("not run".into(), |result| head(result, RESULT));
                let line = format!("{}: {result}", head(summary, CALL));
                (format!("* {}", escape_line(line.trim_end_matches([':', ' ']))), true)
            }
            Part::Aside { question, answer } => {
                let text = format!("? {}\n{}", question.trim(), answer.trim());
                (escape_for_terminal(&text).into_owned(), false)
            }
            Part::Changed { files, .. } => (format!("- changed: {}", escape_line(&files.join(", "))), true),
            Part::Mark(text) => (format!("- {}", escape_line(text)), true),
        };
        // Lines stand together, texts apart.
        if !(is_line && before_was_line) {
            text.push('\n');
        }
        before_was_line = is_line;
        text.push_str(&block);
        text.push('\n');
    }
    let losses = stored.losses();
    if !losses.is_empty() {
        text.push('\n');
    }
    losses.iter().for_each(|loss| text.push_str(&format!("! {loss}\n")));
    text
}
