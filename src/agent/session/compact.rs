//! When the history is shortened, and with what: `compaction` says how. The one place where the prompt does not only
//! grow; what it costs is counted in the turn, and what went is told and stays in the log.

use super::Session;
use super::model_calls::{LEAST_ANSWER, answer_reserve, forward};
use crate::agent::compaction::{Counts, Kept, Shortened, drop_outputs, question, rewrite};
use crate::agent::protocol::{Event, Usage};
use crate::agent::transcript::Record;
use crate::agent::turn::{Input, Stop};
use crate::chat::{Message, Role};
use crate::model::{ModelError, ModelEvent, StopReason};
use crate::workspace::ReadContent;

/// Tokens of the message that asks for the notes.
const QUESTION: usize = 256;

/// Why the history was not shortened, where that ends the turn.
pub(super) enum Failed {
    Stopped(Stop),
    Model(ModelError),
}

impl From<Failed> for Input {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Stopped(why) => Self::Stopped { why, partial: None },
            Failed::Model(error) => Self::ModelFailed(error),
        }
    }
}

/// Tokens of the model's notes.
fn notes_room(context: usize) -> usize {
    (context / 16).clamp(256, 2048)
}

/// Tokens kept free for asking for the notes.
pub(super) fn room(context: usize) -> usize {
    notes_room(context) + QUESTION
}

impl Session {
    /// Before a model call: shortens the history where less than the reserve is left.
    pub(super) fn make_room(&mut self) -> Result<(), Failed> {
        let context = self.model.info().context;
        let used = self.used();
        let left = context.saturating_sub(used);
        // Undo and clear make it shorter too.
        self.compacted_to = self.compacted_to.min(used);
        let grown = used.saturating_sub(self.compacted_to);
        // A history that is as short as it gets is left alone until it has grown, or nothing more fits.
        let again = grown >= context / 16 || left < LEAST_ANSWER;
        if left >= answer_reserve(context) + room(context) || !again {
            return Ok(());
        }
        self.compacted_to = used;
        // Enough is freed for a few more steps, or it would soon be done again.
        let aim = context.saturating_sub(answer_reserve(context) + room(context) + context / 8);
        let dropped = self.without_outputs(used.saturating_sub(aim));
        if !dropped.dropped.is_empty() && self.count(&dropped.history) <= aim {
            self.shorten(used, dropped, Usage::default());
            return Ok(());
        }
        self.summarise(used, aim, None).map(|_| ())
    }

    /// `/compact`.
    pub(super) fn compact_now(&mut self, keep: Option<&str>) {
        let used = self.used();
        let done = self.summarise(used, self.model.info().context / 2, keep);
        // No turn runs whose cost this could be; the log has it.
        self.spent = Usage::default();
        self.compactions = 0;
        let (message, hint) = match done {
            Ok(true) => return,
            Ok(false) => {
                ("There is nothing to shorten: the conversation is as short as it gets.".into(), None)
            }
            Err(Failed::Model(ModelError::Unavailable { message, hint })) => (message, Some(hint)),
            Err(_) => ("Interrupted: nothing was shortened.".into(), None),
        };
        self.emit(Event::Error { message, hint });
    }

    fn count(&self, history: &[Message]) -> usize {
        self.model.count_history(history, &self.specs)
    }

    /// Messages of the opening: system prompt and first request.
    fn opening_len(&self) -> usize {
        let is_opening = |role: Role| matches!(role, Role::System | Role::User);
        self.talk.history.iter().take(2).take_while(|message| is_opening(message.role)).count()
    }

    /// The history with `spare` tokens of old outputs dropped.
    fn without_outputs(&self, spare: usize) -> Shortened {
        let text = |text: &str| self.model.count_tokens(text);
        let history = |messages: &[Message]| self.count(messages);
        let counts = Counts { text: &text, history: &history };
        drop_outputs(&self.talk.history, self.talk.needed_from(), spare, &counts)
    }

    /// Everything between the opening and the step in hand becomes one message. False where that frees nothing.
    fn summarise(&mut self, used: usize, aim: usize, keep: Option<&str>) -> Result<bool, Failed> {
        let opening = self.opening_len();
        let from = self.talk.needed_from().max(opening);
        let between = from > opening;
        let (summary, usage) = if between { self.notes(used, keep)? } else { (None, Usage::default()) };
        let files = if between { self.files_in_work() } else { Vec::new() };
        let text = |text: &str| self.model.count_tokens(text);
        let history = |messages: &[Message]| self.count(messages);
        let asks = |message: &Message| message.role == Role::User && message.content.ends_with(&self.request);
        let kept = Kept {
            history: &self.talk.history,
            opening,
            from,
            words: self.talk.words(from),
            summary,
            files,
            at_work: self.talk.running && !self.talk.history[from..].iter().any(asks),
        };
        let short = rewrite(&kept, aim, &Counts { text: &text, history: &history });
        if short.dropped.is_empty() || self.count(&short.history) >= used {
            self.spent += usage;
            return Ok(false);
        }
        self.shorten(used, short, usage);
        Ok(true)
    }

    /// The model's notes on the conversation, asked for beside it, so that all of it is still in the cache; without
    /// old outputs where the question would not fit otherwise. None where even that is too much, or nothing came.
    fn notes(&mut self, used: usize, keep: Option<&str>) -> Result<(Option<String>, Usage), Failed> {
        let context = self.model.info().context;
        let most = notes_room(context);
        let whole = used + room(context) <= context;
        let mut messages =
            if whole { self.talk.history.clone() } else { self.without_outputs(usize::MAX).history };
        messages.push(question(keep, most));
        self.emit(Event::Progress { phase: "shortening".into(), done: 0, total: 0 });
        let events = self.events.clone();
        // The notes are for the model: they are not shown as an answer.
        let mut on_event = |event: ModelEvent| {
            if let ModelEvent::Progress { .. } = event {
                forward(&events, event);
            }
        };
        match self.aside(&messages, self.cool(most), None, &mut on_event) {
            Ok(generated) => match generated.stop {
                StopReason::Cancelled => {
                    self.spent += generated.usage;
                    Err(Failed::Stopped(self.stop().unwrap_or(Stop::Interrupted)))
                }
                StopReason::Repetition => Ok((None, generated.usage)),
                StopReason::End | StopReason::Length => {
                    Ok((Some(generated.message.content), generated.usage))
                }
            },
            Err(ModelError::ContextFull { .. }) => Ok((None, Usage::default())),
            Err(error) => Err(Failed::Model(error)),
        }
    }

    /// The files that were written in this session, the latest first, as they are now.
    fn files_in_work(&self) -> Vec<(String, String)> {
        let text = |path: &String| match self.workspace.read(path).ok()?.content {
            ReadContent::Text(text) if text.valid_utf8 => Some((path.clone(), text.shown().into_owned())),
            _ => None,
        };
        self.talk.written.iter().rev().filter_map(text).collect()
    }

    fn shorten(&mut self, before: usize, short: Shortened, usage: Usage) {
        let after = self.count(&short.history);
        let dropped = short.dropped;
        self.compacted_to = after;
        self.spent += usage;
        self.compactions += 1;
        self.record(Record::Compacted {
            history: short.history,
            dropped: dropped.clone(),
            before,
            after,
            usage,
        });
        // What was tried before counts messages of the longer history.
        self.before_try = self.talk.history.len();
        self.emit(Event::Compacted { before, after, dropped });
        self.emit(Event::ContextUsage { used: after, limit: self.model.info().context, usage });
    }
}
