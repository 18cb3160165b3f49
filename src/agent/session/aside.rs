//! Side questions: answered from the conversation as it is, in words, and forgotten. Nothing of them enters the
//! history; the log has them.

use super::Session;
use super::model_calls::{LEAST_ANSWER, forward};
use crate::agent::prompts::note;
use crate::agent::protocol::{Ending, Event, Usage};
use crate::agent::transcript::Record;
use crate::chat::{Message, Role};
use crate::model::{Frame, Generated, ModelError, ModelEvent, Request, Sampling, StopReason};

/// Tokens of a side answer: it is read beside the work.
const MOST: usize = 1024;

impl Session {
    pub(super) fn ask(&mut self, text: &str) {
        let messages = if self.talk.history.is_empty() {
            self.opening(text)
        } else {
            let question = Message::new(Role::User, note("aside", &[("question", text)]));
            self.talk.history.iter().cloned().chain([question]).collect()
        };
        let events = self.events.clone();
        let answered = self.aside(&messages, self.cool(MOST), None, &mut |event| match event {
            ModelEvent::Text(text) => drop(events.send(Event::AsideDelta { text })),
            other => forward(&events, other),
        });
        let (answer, usage, problem) = match answered {
            Ok(Generated { message, usage, stop, .. }) => {
                let problem = match stop {
                    StopReason::End => None,
                    StopReason::Length => Some("The answer was cut off for length.".to_string()),
                    StopReason::Cancelled => Ending::Interrupted.message(),
                    StopReason::Repetition => Some("The model repeated itself, so it was stopped.".into()),
                };
                (message.content.trim().to_string(), usage, problem)
            }
            Err(ModelError::ContextFull { needed, limit }) => {
                let problem = Ending::ContextFull { needed, limit }.message();
                (String::new(), Usage::default(), problem)
            }
            Err(ModelError::Unavailable { message, .. }) => (String::new(), Usage::default(), Some(message)),
        };
        let question = text.to_string();
        self.record(Record::Aside { question: question.clone(), answer: answer.clone(), usage });
        self.emit(Event::AsideFinished { question, answer, usage, problem });
    }

    /// The answer to the last of `messages`, which leaves nothing behind.
    pub(super) fn aside(
        &mut self,
        messages: &[Message],
        sampling: Sampling,
        frame: Option<Frame<'_>>,
        on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<Generated, ModelError> {
        let limit = self.model.info().context;
        let needed = self.model.count_history(messages, &self.specs);
        let (room, most) = (limit.saturating_sub(needed), sampling.max_tokens);
        if room < LEAST_ANSWER.min(most) {
            return Err(ModelError::ContextFull { needed: needed + LEAST_ANSWER.min(most), limit });
        }
        let request = Request {
            messages,
            tools: &self.specs,
            sampling: Sampling { max_tokens: most.min(room), ..sampling },
            must_call: None,
            words_only: true,
            values: None,
            aside: true,
            frame,
            cancel: &self.cancel,
        };
        self.model.generate(request, on_event)
    }
}
