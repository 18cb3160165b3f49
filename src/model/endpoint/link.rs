//! Short answers as JSON, and the patience with a server that is busy, not up yet or gone for a moment. What streams is
//! `stream`'s.

use super::failure::{self, Failure};
use super::http::{Came, Exchange, Head};
use super::{Address, Key};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Times that the list of models is asked for when a session begins: somebody sits and waits.
const FIRST_TRIES: u32 = 3;
/// A server that wants more patience than this is given up.
const LONGEST: Duration = Duration::from_secs(120);
/// Bytes of an answer that comes in one piece.
pub(super) const WHOLE: usize = 64 << 20;

/// Why there is no answer.
pub(super) enum Stopped {
    Cancelled,
    Failed(Failure),
}

/// How often to ask, and how long to wait before the second time; twice as long before each later one.
pub(super) struct Patience<'a> {
    pub tries: u32,
    pub pause: Duration,
    pub cancel: &'a AtomicBool,
}

/// Asks until there is an answer, it fails for good, or it was asked often enough. `note` is told of each pause.
pub(super) fn with_patience<T, C>(
    patience: &Patience<'_>,
    context: &mut C,
    note: impl Fn(&mut C, &str),
    once: impl Fn(&mut C) -> Result<T, Stopped>,
) -> Result<T, Stopped> {
    let mut pause = patience.pause;
    let mut tried = 0;
    loop {
        let mut failure = match once(context) {
            Err(Stopped::Failed(failure)) => failure,
            other => return other,
        };
        tried += 1;
        let wait = failure.retry_after.unwrap_or(pause);
        if failure.passing && wait > LONGEST {
            failure.message.push_str(&format!(" (it asks for {} s of patience)", wait.as_secs()));
            return Err(Stopped::Failed(failure));
        }
        if !failure.passing || tried >= patience.tries {
            if tried > 1 {
                failure.message.push_str(&format!(" ({tried} tries)"));
            }
            return Err(Stopped::Failed(failure));
        }
        let (next, of) = (tried + 1, patience.tries);
        tracing::warn!(problem = %failure.message, wait = wait.as_secs_f32(), next, of, "the server is asked again");
        note(
            context,
            &format!("{}; again in {:.1} s (try {next} of {of})", failure.message, wait.as_secs_f32()),
        );
        let until = Instant::now() + wait;
        while Instant::now() < until {
            if patience.cancel.load(Ordering::Relaxed) {
                return Err(Stopped::Cancelled);
            }
            std::thread::sleep(wait.min(Duration::from_millis(20)));
        }
        pause *= 2;
    }
}

/// What short requests are made with.
pub(super) struct Link<'a> {
    pub address: &'a Address,
    pub key: Option<&'a Key>,
    pub pause: Duration,
    pub cancel: &'a AtomicBool,
    pub note: &'a mut dyn FnMut(&str),
}

impl Link<'_> {
    /// GET; `patient`: more than once, where that may help.
    pub fn get_json(&mut self, url: &str, patient: bool) -> Result<Value, Stopped> {
        let (address, key, cancel) = (self.address, self.key, self.cancel);
        let once = |_: &mut _| {
            let exchange = Exchange::start(address, key, url, None);
            let read = || {
                let head = head(&exchange, key, cancel)?;
                json(&whole(&exchange, WHOLE, cancel)?, &head, key).map_err(Stopped::Failed)
            };
            read().map_err(|stopped| at(stopped, address, url))
        };
        let patience = Patience { tries: if patient { FIRST_TRIES } else { 1 }, pause: self.pause, cancel };
        with_patience(&patience, &mut self.note, |note, text| note(text), once)
    }
}

/// With what was asked, for the user.
pub(super) fn at(stopped: Stopped, address: &Address, url: &str) -> Stopped {
    match stopped {
        Stopped::Failed(failure) => Stopped::Failed(failure.at(address, url)),
        Stopped::Cancelled => Stopped::Cancelled,
    }
}

/// The beginning of an answer; with any status but 200 it is read to its end and becomes a failure.
pub(super) fn head(exchange: &Exchange, key: Option<&Key>, cancel: &AtomicBool) -> Result<Head, Stopped> {
    let head = match exchange.next(cancel, None) {
        None => return Err(Stopped::Cancelled),
        Some(Came::Head(head)) => head,
        Some(Came::Failed(failure)) => return Err(Stopped::Failed(failure)),
        Some(Came::Bytes(_) | Came::End) => return Err(Stopped::Failed(Failure::cut_off(false))),
    };
    if head.status == 200 {
        return Ok(head);
    }
    let body = whole(exchange, failure::READ, cancel)?;
    Err(Stopped::Failed(Failure::status(&head, &body, key)))
}

/// The rest of an answer, as far as it comes: half an error message says more than none.
pub(super) fn whole(exchange: &Exchange, most: usize, cancel: &AtomicBool) -> Result<Vec<u8>, Stopped> {
    let mut body = Vec::new();
    loop {
        match exchange.next(cancel, None) {
            None => return Err(Stopped::Cancelled),
            Some(Came::Bytes(bytes)) if body.len() + bytes.len() <= most => body.extend(bytes),
            Some(Came::Head(_)) => {}
            Some(Came::Bytes(_) | Came::End | Came::Failed(_)) => return Ok(body),
        }
    }
}

pub(super) fn json(body: &[u8], head: &Head, key: Option<&Key>) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|_| {
        let page = head.kind.contains("html");
        let what = if page { "it answers with a web page" } else { "its answer is no whole JSON" };
        Failure::garbage(what, &String::from_utf8_lossy(body), key)
    })
}
