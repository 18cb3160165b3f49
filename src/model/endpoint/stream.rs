//! One try of a model call: the request goes out, the answer streams in until it ends, is interrupted, or turns out to be
//! something else.

use super::answer::Answer;
use super::failure::{self, Failure};
use super::http::{Came, Exchange};
use super::link::{Stopped, WHOLE, at, head, json, whole};
use super::sse::Events;
use super::{Address, Key};
use crate::chat::{ChatFormat, ToolSpec};
use crate::model::{ModelEvent, StopReason};
use serde_json::Value;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

pub(super) struct Call<'a> {
    pub address: &'a Address,
    pub key: Option<&'a Key>,
    pub url: String,
    pub body: &'a str,
    pub format: ChatFormat,
    pub tools: &'a [ToolSpec],
    pub linger: Duration,
    pub cancel: &'a AtomicBool,
}

/// Whether the answer is over.
enum Read {
    On,
    Over,
}

impl<'a> Call<'a> {
    /// The answer, and what stopped it where it did not end of itself.
    pub fn answer(
        &self,
        on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<(Answer<'a>, Option<StopReason>), Stopped> {
        let mut answer = Answer::new(self.format, self.tools);
        match self.read(&mut answer, on_event) {
            Ok(()) if answer.repeats => Ok((answer, Some(StopReason::Repetition))),
            Ok(()) => Ok((answer, None)),
            Err(Stopped::Cancelled) => Ok((answer, Some(StopReason::Cancelled))),
            Err(failed) => Err(at(failed, self.address, &self.url)),
        }
    }

    fn read(&self, answer: &mut Answer<'_>, on_event: &mut dyn FnMut(ModelEvent)) -> Result<(), Stopped> {
        let (key, cancel) = (self.key, self.cancel);
        let exchange = Exchange::start(self.address, key, &self.url, Some(self.body.to_string()));
        let head = head(&exchange, key, cancel)?;
        if head.kind.contains("json") {
            // In one piece, whatever was asked for.
            let value = json(&whole(&exchange, WHOLE, cancel)?, &head, key).map_err(Stopped::Failed)?;
            self.chunk(&value, answer, on_event)?;
            return complete(answer);
        }
        if head.kind.contains("html") {
            let page = whole(&exchange, failure::READ, cancel)?;
            return fail(Failure::garbage(
                "it answers with a web page",
                &String::from_utf8_lossy(&page),
                key,
            ));
        }
        let (mut events, mut until) = (Events::default(), None);
        loop {
            match exchange.next(cancel, until) {
                None => return Err(Stopped::Cancelled),
                Some(Came::Head(_)) => {}
                Some(Came::Bytes(bytes)) => {
                    let data = events.push(&bytes);
                    for data in data.map_err(|problem| Stopped::Failed(Failure::garbage(problem, "", key)))? {
                        if let Read::Over = self.event(&data, answer, on_event)? {
                            return Ok(());
                        }
                    }
                }
                Some(Came::Failed(_)) if answer.ended() => return Ok(()),
                Some(Came::Failed(_)) => return fail(Failure::cut_off(answer.began)),
                Some(Came::End) => return self.end(&mut events, answer, on_event),
            }
            if answer.ended() {
                until.get_or_insert_with(|| Instant::now() + self.linger);
            }
        }
    }

    fn event(
        &self,
        data: &str,
        answer: &mut Answer<'_>,
        on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<Read, Stopped> {
        if data.trim() == "[DONE]" {
            return complete(answer).map(|()| Read::Over);
        }
        match serde_json::from_str(data) {
            Ok(chunk) => self.chunk(&chunk, answer, on_event),
            Err(_) => fail(Failure::garbage("a part of its answer is no JSON", data, self.key)),
        }
    }

    fn chunk(
        &self,
        chunk: &Value,
        answer: &mut Answer<'_>,
        on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<Read, Stopped> {
        if chunk.get("error").is_some_and(|error| !error.is_null()) {
            return fail(Failure::told(chunk, answer.began, self.key));
        }
        answer.take(chunk, on_event);
        Ok(if answer.repeats { Read::Over } else { Read::On })
    }

    /// The stream is over without having said so.
    fn end(
        &self,
        events: &mut Events,
        answer: &mut Answer<'_>,
        on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<(), Stopped> {
        for data in events.finish() {
            // The last one may be half of one.
            if data.trim() == "[DONE]" || serde_json::from_str::<Value>(&data).is_ok() {
                self.event(&data, answer, on_event)?;
            }
        }
        match &events.stray {
            _ if answer.ended() => Ok(()),
            Some(stray) if !answer.began => {
                fail(Failure::garbage("what it sends is no stream of events", stray, self.key))
            }
            _ => fail(Failure::cut_off(answer.began)),
        }
    }
}

/// The server says that it is done: then an answer must have been there.
fn complete(answer: &Answer<'_>) -> Result<(), Stopped> {
    if answer.chosen { Ok(()) } else { fail(Failure::no_api("its answer holds no choices")) }
}

fn fail<T>(failure: Failure) -> Result<T, Stopped> {
    Err(Stopped::Failed(failure))
}
