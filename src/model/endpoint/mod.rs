//! A model that another program serves: vLLM, SGLang, llama-server, anything that speaks OpenAI's chat completions. It
//! is a `Model` like the others, and what needs the weights at hand is left out: no prefill ahead, no snapshots, no
//! versions of a text; calls are held to their grammar only where the server does it (`api`). Tokens are estimated, and set right by what the server counts.
//!
//! | file | what it is |
//! |---|---|
//! | `address` | where the server is, and the key |
//! | `http`, `sse` | one request on its thread; its events |
//! | `link`, `stream` | answers that are short, and the one that streams; patience with both |
//! | `served` | which models there are, and how much they hold |
//! | `api`, `answer` | history -> request, stream -> answer |
//! | `failure` | what went wrong, in words; whether to ask again |
//! | `tokens` | how many tokens a history is |
//!
//! Only the named server is spoken to, and the key goes to it alone.

mod address;
mod answer;
mod api;
mod failure;
mod http;
mod link;
mod served;
mod sse;
mod stream;
mod tokens;

pub use address::Key;
pub use served::Served;

use super::{Generated, Model, ModelError, ModelEvent, ModelInfo, Request, StopReason};
use crate::chat::{Message, ToolSpec};
use address::Address;
use answer::Answer;
use link::{Link, Patience, Stopped, with_patience};
use served::Server;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokens::Counter;

/// Times a request is made.
const TRIES: u32 = 6;

/// Which server, and how to speak to it.
#[derive(Debug, Clone)]
pub struct EndpointOptions {
    pub url: String,
    pub key: Option<Key>,
    /// Else the first that the server lists.
    pub model: Option<String>,
    /// Tokens of context; else what the server says.
    pub context: Option<usize>,
    /// Before the second try; twice as long before each later one.
    pub pause: Duration,
    /// So long the usage may come once an answer has ended: not every server says that it is done, or hangs up.
    pub linger: Duration,
}

impl EndpointOptions {
    pub fn new(url: &str) -> Self {
        let (pause, linger) = (Duration::from_millis(500), Duration::from_secs(5));
        Self { url: url.into(), key: None, model: None, context: None, pause, linger }
    }

    fn address(&self) -> Result<Address, ModelError> {
        match &self.key {
            Some(key) if !key.is_sendable() => Err(ModelError::Unavailable {
                message: format!("the key in {} holds blanks or signs that no key has", key.variable()),
                hint: "set it again, without quotes and line breaks".into(),
            }),
            _ => Ok(Address::new(&self.url)),
        }
    }
}

/// The models that the server lists.
pub fn served(options: &EndpointOptions, cancel: &AtomicBool) -> Result<Vec<Served>, ModelError> {
    let address = options.address()?;
    let note = &mut |_: &str| {};
    let mut link = Link { address: &address, key: options.key.as_ref(), pause: options.pause, cancel, note };
    served::list(&mut link).map_err(into_error)
}

fn into_error(stopped: Stopped) -> ModelError {
    match stopped {
        Stopped::Failed(failure) => failure.into_error(0, 0),
        Stopped::Cancelled => {
            ModelError::Unavailable { message: "interrupted".into(), hint: "ask again".into() }
        }
    }
}

pub struct EndpointModel {
    address: Address,
    key: Option<Key>,
    /// As the server calls it.
    served: String,
    server: Server,
    info: ModelInfo,
    counter: Counter,
    pause: Duration,
    linger: Duration,
}

impl EndpointModel {
    /// Asks the server what it serves. `note` is told what is worth saying meanwhile.
    pub fn open(
        options: &EndpointOptions,
        cancel: &AtomicBool,
        note: &mut dyn FnMut(&str),
    ) -> Result<Self, ModelError> {
        let address = options.address()?;
        let mut link =
            Link { address: &address, key: options.key.as_ref(), pause: options.pause, cancel, note };
        let chosen = served::choose(&mut link, options.model.as_deref(), options.context);
        let (model, context, format) = chosen.map_err(into_error)?;
        let info = ModelInfo {
            // Where it runs is seen wherever its name is.
            name: format!("{} at {}", model.name, address.host()),
            context,
            format,
            billions: model.billions,
        };
        Ok(Self {
            address,
            key: options.key.clone(),
            served: model.name,
            server: model.server,
            info,
            counter: Counter::default(),
            pause: options.pause,
            linger: options.linger,
        })
    }
}

impl Model for EndpointModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.counter.text(text)
    }

    fn count_history(&self, messages: &[Message], tools: &[ToolSpec]) -> usize {
        self.counter.history(messages, tools)
    }

    fn generate(
        &mut self,
        request: Request<'_>,
        on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<Generated, ModelError> {
        let estimated = self.counter.history(request.messages, request.tools);
        let body = api::body(&self.served, self.server, &request).to_string();
        let call = stream::Call {
            address: &self.address,
            key: self.key.as_ref(),
            url: format!("{}/chat/completions", self.address.base()),
            body: &body,
            format: self.info.format,
            tools: request.tools,
            linger: self.linger,
            cancel: request.cancel,
        };
        let patience = Patience { tries: TRIES, pause: self.pause, cancel: request.cancel };
        let mut events = |event: ModelEvent| on_event(event);
        let told = |events: &mut _, text: &str| tell(events, ModelEvent::Note(text.to_string()));
        let answered = with_patience(&patience, &mut events, told, |events| {
            events(ModelEvent::Progress { phase: "waiting for the server", done: 0, total: 0 });
            call.answer(events)
        });
        let (answer, stopped) = match answered {
            Ok(answered) => answered,
            Err(Stopped::Cancelled) => {
                (Answer::new(self.info.format, request.tools), Some(StopReason::Cancelled))
            }
            Err(Stopped::Failed(failure)) => {
                let error = failure.into_error(estimated, self.info.context);
                if let ModelError::ContextFull { needed, .. } = error
                    && !request.aside
                {
                    // The estimate was too low: what is asked next is shortened first.
                    self.counter.learn(request.messages, request.tools, needed);
                }
                return Err(error);
            }
        };
        let counted = answer.is_counted();
        let counter = &self.counter;
        let mut generated = answer.finish(stopped, estimated, &|text| counter.text(text), on_event);
        // Some say the words again that they were given.
        if let Some(frame) = api::framed(self.server, &request)
            && !generated.message.content.starts_with(frame.begins.trim_end())
        {
            generated.message.content.insert_str(0, frame.begins);
        }
        if counted {
            let usage = generated.usage;
            self.counter.adjust(request.messages, request.tools, usage.prompt);
            if !request.aside {
                let history = [request.messages, std::slice::from_ref(&generated.message)].concat();
                // Thoughts are not sent again.
                let thoughts =
                    generated.message.reasoning.as_deref().map_or(0, |text| self.counter.text(text));
                let tokens = usage.prompt + usage.completion.saturating_sub(thoughts);
                self.counter.learn(&history, request.tools, tokens);
            }
        }
        Ok(generated)
    }
}

fn tell(on_event: &mut impl FnMut(ModelEvent), event: ModelEvent) {
    on_event(event);
}
