//! What a session asks of its model: the next answer, the next version of a file; how much room is left for it, and
//! what the front end is told meanwhile.

use super::{EDIT, FILES, Session, WRITE};
use crate::agent::asked::{Asked, Witness};
use crate::agent::live_values::WorkspaceValues;
use crate::agent::opening::{named_files, new_file};
use crate::agent::prompts::note;
use crate::agent::protocol::Event;
use crate::agent::repair::{self, FENCE};
use crate::agent::surroundings::{is_small, text_of};
use crate::agent::turn::{Input, Must, Stop};
use crate::chat::{Message, Role};
use crate::model::{
    Frame, Generated, ModelError, ModelEvent, Request, RequiredCall, Revised, Revision, Sampling, StopReason,
    Usage,
};
use std::sync::mpsc::Sender;

/// An answer with less room than this is not worth starting.
pub(super) const LEAST_ANSWER: usize = 256;
/// Tokens of a file that is written anew as a whole; a longer one takes too long.
const MOST_REWRITTEN: usize = 1500;
/// Temperature of what a small model is made to say or to call.
const COOL: f32 = 0.2;

impl Session {
    /// The next version of a file, as the call that makes it.
    pub(super) fn revise(&mut self, file: &str) -> Input {
        self.before_try = self.talk.history.len();
        let Some(text) = text_of(&self.workspace, file) else {
            return Input::Revised { call: None, usage: Usage::default() };
        };
        // A block of code ends with a line break; a file may not.
        let ended = if text.ends_with('\n') { text.clone() } else { format!("{text}\n") };
        let ask = Message::new(Role::User, note("revise", &[("path", file)]));
        let revision = Revision {
            messages: &self.talk.history,
            tools: &self.specs,
            ask: &ask,
            text: &ended,
            language: repair::language(file).unwrap_or_default(),
            until: repair::changeable(&ended),
            sampling: self.sampling(0),
            cancel: &self.cancel,
        };
        let events = &self.events;
        let revised = self.model.revise(revision, &mut |event| forward(events, event));
        match revised {
            Ok(revised) if revised.cancelled => {
                Input::Stopped { why: self.stop().unwrap_or(Stop::Interrupted), partial: None }
            }
            Ok(Revised { text: version, usage, .. }) => {
                let new = version.map(|version| match text.ends_with('\n') {
                    true => version,
                    false => version.trim_end_matches('\n').to_string(),
                });
                let call = new.map(|new| repair::edit_call(file, &text, &new));
                Input::Revised { call, usage }
            }
            // A file too long for the context is left to the model's own reading.
            Err(ModelError::ContextFull { .. }) => Input::Revised { call: None, usage: Usage::default() },
            Err(error) => Input::ModelFailed(error),
        }
    }

    /// A file as it is after the change that was asked for, as the call that makes it so.
    pub(super) fn rewrite(
        &mut self,
        file: &str,
        refused: Option<&str>,
        begun: bool,
        max_tokens: Option<usize>,
    ) -> Input {
        let none = Input::Revised { call: None, usage: Usage::default() };
        let Some(text) = text_of(&self.workspace, file) else { return none };
        let length = self.model.count_tokens(&text);
        if text.contains(FENCE) || text.trim().is_empty() || length > MOST_REWRITTEN {
            return none;
        }
        let request = match refused {
            Some(reason) => note("request_after_refusal", &[("request", &self.request), ("reason", reason)]),
            None => self.request.clone(),
        };
        let ask = note("rewrite", &[("request", request.trim_end()), ("path", file)]);
        let ask = Message::new(Role::User, ask.trim_end());
        let messages: Vec<Message> = self.talk.history.iter().cloned().chain([ask]).collect();
        let first = text.split_inclusive('\n').next().filter(|_| begun).unwrap_or_default();
        let begins = format!("{FENCE}{}\n{first}", repair::language(file).unwrap_or_default());
        let frame = Frame { begins: &begins, ends: &format!("\n{FENCE}") };
        let (mut spent, mut kept) = (Usage::default(), None);
        // Where a line got lost on the way the model is asked once more, less surely; then it is left to `edit`.
        let again = self.options.temperature.is_none().then(|| self.sampling(0));
        for sampling in [Some(self.cool(0)), again].into_iter().flatten() {
            let left = max_tokens.map_or(usize::MAX, |most| most.saturating_sub(spent.completion));
            let sampling = Sampling { max_tokens: (length * 2 + 512).min(left), ..sampling };
            if left == 0 {
                break;
            }
            let (events, phase) = (self.events.clone(), format!("writing {file}"));
            let mut written = 0;
            let answered = self.aside(&messages, sampling, Some(frame), &mut |event| match event {
                ModelEvent::Text(text) => {
                    written += text.len() as u64;
                    let progress = Event::Progress { phase: phase.clone(), done: written, total: 0 };
                    drop(events.send(progress));
                }
                other => forward(&events, other),
            });
            let Generated { message, stop, usage, .. } = match answered {
                Ok(generated) => generated,
                Err(ModelError::ContextFull { .. }) => break,
                Err(error) => return Input::ModelFailed(error),
            };
            spent += usage;
            let new = match stop {
                StopReason::Cancelled => {
                    return Input::Stopped { why: self.stop().unwrap_or(Stop::Interrupted), partial: None };
                }
                StopReason::End => repair::rewritten(&message.content, &text, &request),
                StopReason::Length | StopReason::Repetition => None,
            };
            let Some(new) = new else { continue };
            if !repair::loses(&text, &new) {
                kept = Some(repair::edit_call(file, &text, &new));
                break;
            }
        }
        Input::Revised { call: kept, usage: spent }
    }

    /// What a small model must say it says best where it is surest.
    pub(super) fn cool(&self, max_tokens: usize) -> Sampling {
        let small = is_small(self.model.info()).then_some(COOL);
        Sampling { temperature: self.options.temperature.or(small), ..self.sampling(max_tokens) }
    }

    pub(super) fn sampling(&self, max_tokens: usize) -> Sampling {
        Sampling { seed: self.options.seed, temperature: self.options.temperature, max_tokens }
    }

    /// The beginning of a call that must come: of `edit`, with the file that the request names.
    pub(super) fn required_call(&self, tool: &str) -> RequiredCall {
        let spec = self.specs.iter().find(|spec| spec.name == tool);
        let required = spec.and_then(|spec| spec.parameters.get("required")?.get(0)?.as_str());
        let named = || spec.and_then(|spec| spec.parameters.get("properties")?.as_object()?.keys().next());
        let next = required.or_else(|| named().map(String::as_str)).unwrap_or_default().to_string();
        let files = self.workspace.files(FILES);
        if tool == WRITE
            && let Some(path) = new_file(&self.request, &files)
        {
            return RequiredCall { tool: tool.into(), given: vec![(next, path)], next: "content".into() };
        }
        match named_files(&self.request, &files).first() {
            Some(path) if tool == EDIT => RequiredCall {
                tool: tool.into(),
                given: vec![(next, path.clone())],
                next: "old_string".into(),
            },
            _ => RequiredCall { tool: tool.into(), given: Vec::new(), next },
        }
    }

    /// Tokens that the history takes with the tools, as it would be sent now.
    pub(super) fn used(&self) -> usize {
        self.model.count_history(&self.talk.history, &self.specs)
    }

    pub(super) fn call_model(&mut self, max_tokens: Option<usize>, must: Must) -> Input {
        while let Some(question) = self.questions.pop_front() {
            self.ask(&question);
        }
        if let Err(failed) = self.make_room() {
            return failed.into();
        }
        let context = self.model.info().context;
        let needed = self.used();
        let room = context.saturating_sub(needed);
        if room < LEAST_ANSWER {
            let needed = needed + LEAST_ANSWER;
            return Input::ModelFailed(ModelError::ContextFull { needed, limit: context });
        }
        let required = match must {
            Must::Call(tool) => Some(self.required_call(tool)),
            Must::Nothing | Must::Answer => None,
        };
        let most = answer_room(context).min(room).min(max_tokens.unwrap_or(usize::MAX));
        let sampling = if must == Must::Nothing { self.sampling(most) } else { self.cool(most) };
        let values = WorkspaceValues(&self.workspace);
        let witness = Witness::new(&values);
        let request = Request {
            messages: &self.talk.history,
            tools: &self.specs,
            sampling: sampling.clone(),
            must_call: required.as_ref(),
            words_only: must == Must::Answer,
            values: Some(&witness),
            aside: false,
            frame: None,
            cancel: &self.cancel,
        };
        let events = &self.events;
        match self.model.generate(request, &mut |event| forward(events, event)) {
            Ok(generated) => {
                let usage = generated.usage;
                self.asked = Some(Asked {
                    most,
                    temperature: sampling.temperature,
                    words_only: must == Must::Answer,
                    stop: generated.stop,
                    prompt: usage.prompt,
                    seen: witness.seen(&generated),
                    must_call: required,
                });
                self.emit(Event::ContextUsage {
                    used: usage.prompt + usage.completion,
                    limit: context,
                    usage,
                });
                match (generated.stop, self.stop()) {
                    (StopReason::Cancelled, why) => {
                        Input::Stopped { why: why.unwrap_or(Stop::Interrupted), partial: Some(generated) }
                    }
                    _ => Input::Generated(generated),
                }
            }
            Err(error) => Input::ModelFailed(error),
        }
    }
}

/// What the front end is told of a model's work. The turn says when a call runs; the usage comes with the answer.
pub(super) fn forward(events: &Sender<Event>, event: ModelEvent) {
    let event = match event {
        ModelEvent::Text(text) => Event::TextDelta { text },
        ModelEvent::Thinking(text) => Event::ThinkingDelta { text },
        ModelEvent::Progress { phase, done, total } => {
            Event::Progress { phase: phase.to_string(), done, total }
        }
        ModelEvent::ToolCallStarted(name) => {
            Event::Progress { phase: format!("writing {name}"), done: 0, total: 0 }
        }
        ModelEvent::Note(message) => Event::Error { message, hint: None },
        ModelEvent::ToolCall(_) | ModelEvent::Usage(_) => return,
    };
    let _ = events.send(event);
}

/// Tokens kept free for an answer by what is put into the history.
pub(super) fn answer_reserve(context: usize) -> usize {
    (context / 8).max(512).min(context / 2)
}

/// Tokens that an answer may take where they are free.
fn answer_room(context: usize) -> usize {
    (context / 8).max(2048).min(context / 2)
}
