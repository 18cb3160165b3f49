//! A log told in order: what was asked, said, called and changed, and what became of the conversation. Text is as the log
//! has it; how it looks is for `show` and `export`.

use crate::agent::conversation::changed_files;
use crate::agent::transcript::Record;
use crate::chat::{Message, Role, ToolCall};
use crate::tools::Registry;
use std::collections::VecDeque;

pub(super) enum Part<'r> {
    /// A process took the session up.
    Started {
        time: &'r str,
        model: &'r str,
        mode: &'r str,
        sandbox: &'r str,
        again: bool,
    },
    Request(&'r str),
    /// What the program told the model.
    Note(&'r str),
    Said(&'r str),
    /// In words, and what came of it, if it was run.
    Called {
        summary: String,
        result: Option<&'r str>,
    },
    Aside {
        question: &'r str,
        answer: &'r str,
    },
    /// What tools changed in a turn.
    Changed {
        files: Vec<String>,
        diff: &'r str,
    },
    /// What became of the conversation, in a line.
    Mark(String),
}

pub(super) fn parts(records: &[Record]) -> Vec<Part<'_>> {
    let mut teller =
        Teller { tools: Registry::standard(), parts: Vec::new(), calls: VecDeque::new(), asked: false };
    let mut again = false;
    for record in records {
        match record {
            Record::Message { message, .. } => {
                teller.message(message);
                continue;
            }
            Record::Mode { .. } => {}
            _ => teller.unanswered(),
        }
        match record {
            Record::Started { time, model, mode, sandbox, .. } => {
                let mode = mode.name();
                teller.parts.push(Part::Started { time, model, mode, sandbox, again });
                again = true;
            }
            Record::Request { text } => {
                teller.asked = true;
                teller.parts.push(Part::Request(text));
            }
            Record::Aside { question, answer, .. } => teller.parts.push(Part::Aside { question, answer }),
            Record::Finished { outcome } => {
                if !outcome.diff.is_empty() {
                    let files = changed_files(&outcome.diff);
                    teller.parts.push(Part::Changed { files, diff: &outcome.diff });
                }
                if let Some(message) = outcome.ending.message() {
                    teller.mark(message);
                }
            }
            Record::Mode { mode } => teller.mark(format!("mode: {}", mode.name())),
            Record::Forked { from } => teller.mark(format!("a copy of {from} up to here")),
            Record::Cut { .. } | Record::Restored { .. } => teller.mark("taken back".into()),
            Record::Compacted { before, after, dropped, .. } => {
                let what = dropped.join(", ");
                teller.mark(format!("shortened from {before} to {after} tokens, without {what}"));
            }
            Record::Message { .. } => {}
        }
    }
    teller.unanswered();
    teller.parts
}

struct Teller<'r> {
    tools: Registry,
    parts: Vec<Part<'r>>,
    /// Calls that wait for what comes of them.
    calls: VecDeque<String>,
    /// The message of the request comes next.
    asked: bool,
}

impl<'r> Teller<'r> {
    fn message(&mut self, message: &'r Message) {
        match message.role {
            Role::System => {}
            Role::Tool => {
                let summary =
                    self.calls.pop_front().unwrap_or_else(|| "a call that is not in the log".into());
                self.parts.push(Part::Called { summary, result: Some(&message.content) });
            }
            Role::User => {
                self.unanswered();
                // The request itself is told in the user's own words.
                if !std::mem::take(&mut self.asked) {
                    self.parts.push(Part::Note(&message.content));
                }
            }
            Role::Assistant => {
                self.unanswered();
                if !message.content.trim().is_empty() {
                    self.parts.push(Part::Said(message.content.trim()));
                }
                let summaries: Vec<String> =
                    message.tool_calls.iter().map(|call| self.describe(call)).collect();
                self.calls.extend(summaries);
            }
        }
    }

    fn describe(&self, call: &ToolCall) -> String {
        match self.tools.get(&call.name) {
            Some(tool) => tool.describe(&call.arguments),
            None => call.name.clone(),
        }
    }

    fn unanswered(&mut self) {
        let calls = self.calls.drain(..);
        self.parts.extend(calls.map(|summary| Part::Called { summary, result: None }));
    }

    fn mark(&mut self, text: String) {
        self.parts.push(Part::Mark(text));
    }
}
