//! What a log holds of a session that is to run again: its requests with what was done between them, the answers in their
//! order, the results of tools, and what the turns changed. What stands behind a shortened conversation, a damaged line
//! or another model is left out, and that is said.

use crate::agent::asked::{Asked, RunSettings};
use crate::agent::conversation::Conversation;
use crate::agent::protocol::{ApprovalMode, Ending, Op};
use crate::agent::store::Stored;
use crate::agent::transcript::Record;
use crate::chat::{Message, Role, ToolCall};
use crate::commands::{Failure, exit};
use crate::model::ModelSetup;
use crate::tools::NOT_SANDBOXED;
use crate::workspace::shell::steady;

pub(super) struct Plan {
    pub mode: ApprovalMode,
    pub run: RunSettings,
    pub setup: ModelSetup,
    pub turns: Vec<Turn>,
    pub steps: Vec<Step>,
    /// Of the turns that were not undone, in order.
    pub diffs: Vec<String>,
    pub left_out: Vec<String>,
}

pub(super) struct Turn {
    /// Done before the request.
    pub before: Vec<Op>,
    pub request: String,
    pub results: Vec<Recorded>,
    /// Answers of the model's own.
    pub answers: usize,
    /// It came to its own end: no limit cut it short, and nobody.
    pub whole: bool,
}

/// The result of a call.
pub(super) struct Recorded {
    pub call: String,
    pub text: String,
}

/// A message of the assistant.
pub(super) struct Step {
    /// From 1; the answer within the turn as well.
    pub turn: usize,
    pub answer: usize,
    /// The conversation before it.
    pub history: Vec<Message>,
    pub message: Message,
    /// `None`: a step of the program's own.
    pub asked: Option<Asked>,
}

impl Recorded {
    /// The user said no, or the mode did.
    pub fn is_refusal(&self) -> bool {
        self.text.starts_with("Not run")
    }

    /// `places`: where it runs now, and where it ran. The turn is the caller's to say.
    pub fn difference(&self, here: &str, places: &(String, String)) -> Option<super::ResultDiffers> {
        // With what words somebody refuses does not matter.
        if self.is_refusal() && here.starts_with("Not run") {
            return None;
        }
        // In what sandbox a command ran is no part of what it said.
        let bare = |text: &str| text.replacen(NOT_SANDBOXED, "", 1);
        let here = bare(&here.replace(&places.0, &places.1));
        let (line, recorded, here) = first_difference(&bare(&self.text), &here)?;
        Some(super::ResultDiffers { turn: 0, call: self.call.clone(), line, recorded, here })
    }
}

impl Plan {
    pub fn of(stored: &Stored) -> Result<Self, Failure> {
        let nothing = |why: &str| {
            Failure::new(exit::USAGE, format!("session {} cannot be run again: {why}", stored.id))
                .hint("without --live its tokens alone are compared")
        };
        let mut first: Option<(&RunSettings, &ModelSetup, ApprovalMode)> = None;
        let (mut turns, mut steps, mut left_out) = (Vec::<Turn>::new(), Vec::new(), Vec::new());
        let mut diffs: Vec<(usize, String)> = Vec::new();
        let mut before = Vec::new();
        let mut talk = Conversation::new(ApprovalMode::Default);
        let mut answer = 0;
        let sound = stored.sound();
        if sound.len() < stored.records.len() {
            left_out.push("what stands behind a damaged line".to_string());
        }
        // Why nothing of what comes is run again; what it changed is taken back all the same.
        let mut ends: Option<&str> = None;
        for record in sound {
            match record {
                _ if ends.is_some() => {}
                Record::Started { run, mode, .. } => {
                    let run = run
                        .as_deref()
                        .ok_or_else(|| nothing("its log does not say how the model was run"))?;
                    let setup = run.model.as_ref().ok_or_else(|| nothing("its model ran on a server"))?;
                    match first {
                        None => first = Some((run, setup, *mode)),
                        Some((other, ..)) if other == run => {}
                        Some(_) => ends = Some("what came after it was taken up with other settings"),
                    }
                }
                Record::Compacted { .. } => ends = Some("what came after its conversation was shortened"),
                Record::Mode { mode } if !talk.running => before.push(Op::SetMode { mode: *mode }),
                Record::Cut { .. } if !talk.running => before.push(Op::Undo),
                Record::Request { text } => {
                    let before = std::mem::take(&mut before);
                    let request = text.clone();
                    turns.push(Turn { before, request, results: Vec::new(), answers: 0, whole: false });
                    answer = 0;
                }
                Record::Message { message, asked } if message.role == Role::Assistant => {
                    answer += 1;
                    if let (Some(_), Some(turn)) = (asked, turns.last_mut()) {
                        turn.answers += 1;
                    }
                    steps.push(Step {
                        turn: turns.len(),
                        answer,
                        history: talk.history.clone(),
                        message: message.clone(),
                        asked: asked.as_deref().cloned(),
                    });
                }
                Record::Message { message, .. } if message.role == Role::Tool => {
                    if let Some(turn) = turns.last_mut() {
                        let call = call_of(&talk.history).map(named).unwrap_or_default();
                        turn.results.push(Recorded { call, text: message.content.clone() });
                    }
                }
                Record::Finished { outcome } => {
                    if let Some(turn) = turns.last_mut() {
                        turn.whole = outcome.ending == Ending::Done;
                    }
                }
                _ => {}
            }
            if let Record::Finished { outcome } = record
                && !outcome.diff.is_empty()
            {
                diffs.push((talk.turns.len(), outcome.diff.clone()));
            }
            talk.apply(record.clone());
            diffs.retain(|(turn, _)| *turn <= talk.turns.len());
        }
        left_out.extend(ends.map(str::to_string));
        let (run, setup, mode) = first.ok_or_else(|| nothing("its beginning is damaged"))?;
        if steps.iter().all(|step| step.asked.is_none()) {
            return Err(nothing("no model answered in it, or its log does not say what it was asked"));
        }
        if steps.iter().any(|step| step.message.written.is_some() && step.asked.is_none()) {
            return Err(nothing("its log does not say what each answer was asked for with"));
        }
        let diffs = diffs.into_iter().map(|(_, diff)| diff).collect();
        Ok(Self { mode, run: run.clone(), setup: setup.clone(), turns, steps, diffs, left_out })
    }
}

/// The call that the next result behind `history` belongs to.
fn call_of(history: &[Message]) -> Option<&ToolCall> {
    let results = history.iter().rev().take_while(|message| message.role == Role::Tool).count();
    let calling = history.len().checked_sub(results + 1).and_then(|at| history.get(at))?;
    calling.tool_calls.get(results)
}

/// `edit(a.rs)`: a call by its name and first argument.
pub(super) fn named(call: &ToolCall) -> String {
    let first = call.arguments.values().next();
    let first = first.map_or_else(String::new, |value| match value.as_str() {
        Some(text) => text.to_string(),
        None => value.to_string(),
    });
    format!("{}({first})", call.name)
}

/// The first result in `here` that is another than in `recorded`, the same conversation as it was recorded.
pub(super) fn differing(
    here: &[Message],
    recorded: &[Message],
    places: &(String, String),
) -> Option<super::ResultDiffers> {
    (0..here.len().min(recorded.len())).find_map(|at| {
        let (now, then) = (&here[at], &recorded[at]);
        if now.role != Role::Tool || then.role != Role::Tool {
            return None;
        }
        let call = call_of(&recorded[..at]).map(named).unwrap_or_default();
        Recorded { call, text: then.content.clone() }.difference(&now.content, places)
    })
}

/// The first line that differs, from 1, and what it is in both; `None` for a line that is not there. What differs from
/// run to run is no difference.
fn first_difference(recorded: &str, here: &str) -> Option<(usize, Option<String>, Option<String>)> {
    let (recorded, here) = (steady(recorded.trim_end()), steady(here.trim_end()));
    let (mut recorded, mut here) = (recorded.lines(), here.lines());
    for line in 1.. {
        match (recorded.next(), here.next()) {
            (None, None) => return None,
            (a, b) if a == b => {}
            (a, b) => return Some((line, a.map(str::to_string), b.map(str::to_string))),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn the_first_line_that_differs() {
        let line = |text: &str| Some(text.to_string());
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some((2, line("b"), line("c"))));
        assert_eq!(first_difference("a\nb", "a"), Some((2, line("b"), None)));
        assert_eq!(first_difference("Ran 3 tests in 0.001s\n", "Ran 3 tests in 12.5s"), None);
        assert_eq!(first_difference("", "\n"), None);
        let order = ["test a ... ok\ntest b ... ok\n", "test b ... ok\ntest a ... ok\n"];
        assert_eq!(first_difference(order[0], order[1]), None);
    }
}
