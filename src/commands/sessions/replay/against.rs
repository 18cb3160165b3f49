//! Goes along a log and has each answer that it holds as tokens compared. The messages before an answer are those the log
//! gives, whatever would have come instead of them.

use crate::agent::asked::{Asked, RunSettings, Seen, SeenValues};
use crate::agent::conversation::Conversation;
use crate::agent::protocol::ApprovalMode;
use crate::agent::store::Stored;
use crate::agent::transcript::Record;
use crate::chat::{Message, Role};
use crate::commands::{Failure, exit};
use crate::model::local::{Difference, LocalModel, Replayed};
use crate::model::{Model, ModelError, ModelSetup, Request, Sampling, difference};
use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

/// What came of it.
#[derive(Default)]
pub(super) struct Walk {
    /// Compared, and found the same up to the difference.
    pub tokens: usize,
    pub answers: usize,
    /// Turns with an answer that was compared.
    pub turns: BTreeSet<usize>,
    pub difference: Option<Found>,
    pub skipped: Skipped,
}

/// The first difference.
pub(super) struct Found {
    /// From 1; the answer within the turn as well.
    pub turn: usize,
    pub answer: usize,
    /// `None`: what comes before the answer is another text already, or other tokens.
    pub difference: Option<Difference>,
    /// What the log says of the session that is otherwise here.
    pub differs: Vec<String>,
}

/// What is not compared, and why.
#[derive(Default)]
pub(super) struct Skipped {
    /// Answers that were logged without what they were asked for with.
    unsaid: usize,
    /// Messages that no model of this program wrote.
    others: usize,
    /// Side answers, and notes for a shortened history.
    beside: usize,
    /// Answers held to files that the log does not have.
    lacking: usize,
    /// Records behind a damaged line.
    behind: usize,
}

impl Skipped {
    pub fn lines(&self) -> Vec<String> {
        let kinds = [
            (self.unsaid, "answer(s) of a qwright that did not log how they were asked for"),
            (self.others, "step(s) of the program's own, or of a model that it does not run itself"),
            (self.beside, "side answer(s) and summaries, which are in the log as text only"),
            (self.lacking, "answer(s) that were held to files which the log does not have"),
            (self.behind, "record(s) behind a damaged line"),
        ];
        kinds
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect()
    }
}

pub(super) type Open<'o> = dyn FnMut(&RunSettings, &ModelSetup) -> Result<LocalModel, Failure> + 'o;

/// `instead`: a seed and a temperature in place of the recorded ones. `open` loads the model that a part of the log was
/// written with.
pub(super) fn walk(
    stored: &Stored,
    instead: (Option<u64>, Option<f32>),
    open: &mut Open<'_>,
    cancel: &AtomicBool,
) -> Result<Walk, Failure> {
    let records = stored.sound();
    let mut walk = Walk::default();
    walk.skipped.behind = stored.records.len() - records.len();
    let mut talk = Conversation::new(ApprovalMode::Default);
    let mut run: Option<&RunSettings> = None;
    let mut seen = Seen::default();
    let mut held: Option<Held> = None;
    let (mut turn, mut answer) = (0, 0);
    for record in records {
        match record {
            Record::Started { run: settings, .. } => {
                run = settings.as_deref();
                seen = Seen::default();
            }
            Record::Request { .. } => (turn, answer) = (turn + 1, 0),
            Record::Aside { .. } => walk.skipped.beside += 1,
            Record::Compacted { usage, .. } => walk.skipped.beside += usize::from(usage.completion > 0),
            Record::Message { message, .. } if message.role != Role::Assistant => {}
            Record::Message { message, .. } if message.written.is_none() => walk.skipped.others += 1,
            Record::Message { message, asked } => {
                answer += 1;
                let settings = run.and_then(|run| Some((run, run.model.as_ref()?)));
                match (asked, settings) {
                    (Some(asked), Some((run, setup))) => {
                        seen.take_in(asked.seen.clone());
                        let held = Held::of(&mut held, run, setup, open)?;
                        let sampling = Sampling {
                            seed: instead.0.unwrap_or(run.seed),
                            temperature: instead.1.or(asked.temperature).or(run.temperature),
                            max_tokens: asked.most,
                        };
                        let values = SeenValues::new(&seen);
                        let request = Request {
                            messages: &talk.history,
                            tools: &run.tools,
                            sampling: sampling.clone(),
                            must_call: asked.must_call.as_ref(),
                            words_only: asked.words_only,
                            values: Some(&values),
                            aside: false,
                            frame: None,
                            cancel,
                        };
                        let (same, found) = held.compare(request, message, asked)?;
                        match found {
                            None => walk.count(turn, same),
                            // It is not known what the recorded answer had to choose from.
                            Some(_) if values.is_lacking() => walk.skipped.lacking += 1,
                            Some(difference) => {
                                walk.tokens += same;
                                let differs = held.differs(run, asked, &sampling, &difference);
                                let difference = difference.in_answer;
                                walk.difference = Some(Found { turn, answer, difference, differs });
                                return Ok(walk);
                            }
                        }
                    }
                    _ => walk.skipped.unsaid += 1,
                }
            }
            Record::Forked { .. }
            | Record::Mode { .. }
            | Record::Finished { .. }
            | Record::Cut { .. }
            | Record::Restored { .. } => {}
        }
        talk.apply(record.clone());
    }
    Ok(walk)
}

impl Walk {
    fn count(&mut self, turn: usize, tokens: usize) {
        self.tokens += tokens;
        self.answers += 1;
        self.turns.insert(turn);
    }
}

/// The model that runs, and the one the log asks for.
pub(super) struct Held {
    recorded: ModelSetup,
    here: ModelSetup,
    pub model: LocalModel,
}

/// How an answer differs.
pub(super) struct Differs {
    pub in_answer: Option<Difference>,
    /// What is before it or how it is counted, in words.
    before: Option<String>,
}

impl Held {
    pub fn new(recorded: &ModelSetup, model: LocalModel) -> Self {
        let here = model.setup().unwrap_or_else(|| recorded.clone());
        Self { recorded: recorded.clone(), here, model }
    }

    fn of<'h>(
        held: &'h mut Option<Self>,
        run: &RunSettings,
        setup: &ModelSetup,
        open: &mut Open<'_>,
    ) -> Result<&'h mut Self, Failure> {
        if held.as_ref().is_some_and(|held| held.recorded != *setup) {
            // Two models at once might not fit.
            *held = None;
        }
        match held {
            Some(held) => Ok(held),
            None => {
                let model = open(run, setup)?;
                Ok(held.insert(Self::new(setup, model)))
            }
        }
    }

    /// Tokens that are the same, and the difference.
    pub fn compare(
        &mut self,
        request: Request<'_>,
        message: &Message,
        asked: &Asked,
    ) -> Result<(usize, Option<Differs>), Failure> {
        let written = message.written.as_ref().map(|written| written.vocabulary.as_str());
        if written != Some(self.model.vocabulary()) {
            // The list of what differs says so.
            return Ok((0, Some(Differs { in_answer: None, before: None })));
        }
        let replayed = self.model.replay(&request, message, asked.stop).map_err(|error| match error {
            ModelError::Unavailable { message, hint } => Failure::new(exit::NO_MODEL, message).hint(hint),
            full @ ModelError::ContextFull { .. } => {
                Failure::new(exit::USAGE, full.to_string()).hint("name a larger context with --ctx")
            }
        })?;
        let Replayed { prompt, same, difference: in_answer, cancelled } = replayed;
        if cancelled {
            return Err(Failure::new(exit::INTERRUPTED, "interrupted"));
        }
        let before = difference("tokens before the answer", &asked.prompt.to_string(), &prompt.to_string());
        let found = in_answer.is_some() || before.is_some();
        Ok((same, found.then_some(Differs { in_answer, before })))
    }

    pub fn differs(
        &self,
        run: &RunSettings,
        asked: &Asked,
        sampling: &Sampling,
        found: &Differs,
    ) -> Vec<String> {
        let recorded = asked.temperature.or(run.temperature);
        let temperature =
            |given: Option<f32>, setup: &ModelSetup| given.unwrap_or(setup.sampling.temperature).to_string();
        let session = [
            difference("version of qwright", &run.version, env!("CARGO_PKG_VERSION")),
            difference("seed", &run.seed.to_string(), &sampling.seed.to_string()),
            difference(
                "temperature",
                &temperature(recorded, &self.recorded),
                &temperature(sampling.temperature, &self.here),
            ),
            found.before.clone(),
        ];
        session.into_iter().flatten().chain(self.recorded.differences(&self.here)).collect()
    }
}
