//! Why the server gave no answer: what is said of it and what to do next; whether asking again is worth it, and when.
//! What a server wrote is quoted by its first line, without the key.

use super::http::Head;
use super::{Address, Key};
use crate::model::ModelError;
use serde_json::Value;
use std::time::Duration;

/// Bytes of an error that are read, and characters of it that are quoted.
pub(super) const READ: usize = 64 << 10;
const QUOTED: usize = 200;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// The request holds more than the model can: tokens of it and of the context, where they were said.
    Full {
        needed: Option<usize>,
        limit: Option<usize>,
    },
    Other,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Failure {
    pub kind: Kind,
    pub message: String,
    pub hint: String,
    /// The same request may succeed a little later.
    pub passing: bool,
    /// The server is there, and has nothing at that path.
    pub nowhere: bool,
    /// Not before this.
    pub retry_after: Option<Duration>,
}

impl Failure {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        let (message, hint) = (message.into(), hint.into());
        Self { kind: Kind::Other, message, hint, passing: false, nowhere: false, retry_after: None }
    }

    pub fn connection(message: impl Into<String>, passing: bool) -> Self {
        let hint = "is the server running, and is this its address? `--endpoint URL` names another";
        Self { passing, ..Self::new(message, hint) }
    }

    /// The stream ended before the answer did.
    pub fn cut_off(began: bool) -> Self {
        let message = match began {
            true => "the answer broke off in the middle; what came of it is not kept",
            false => "the answer ended before it began",
        };
        let hint = "nothing else of the session is lost: ask again, and see the server's own log";
        Self { passing: !began, ..Self::new(message, hint) }
    }

    pub fn no_api(what: impl Into<String>) -> Self {
        Self::new(what, "is an OpenAI-compatible server at this address? it is usually http://HOST:PORT/v1")
    }

    /// Not what this API sends.
    pub fn garbage(what: &str, quoted: &str, key: Option<&Key>) -> Self {
        Self::no_api(format!("{what}{}", quote(quoted, key)))
    }

    /// An error object amid a stream that began well.
    pub fn told(value: &Value, began: bool, key: Option<&Key>) -> Self {
        let code = value.pointer("/error/code").and_then(Value::as_u64).unwrap_or(0);
        let (message, kind) = (message_of(value), full(value));
        Self {
            kind: kind.unwrap_or(Kind::Other),
            passing: !began && (code == 429 || code >= 500),
            ..Self::new(
                format!("the server stopped with an error{}", quote(&message, key)),
                "its own log says more; ask again",
            )
        }
    }

    /// An answer with a status other than 200.
    pub fn status(head: &Head, body: &[u8], key: Option<&Key>) -> Self {
        let text = String::from_utf8_lossy(body);
        let value: Option<Value> = serde_json::from_str(&text).ok();
        let said = value.as_ref().map_or_else(|| text.to_string(), message_of);
        let status = head.status;
        let message = format!("status {status}{}", quote(&said, key));
        let hint = match (status, key) {
            (401 | 403, None) => "the server wants a key: set QWRIGHT_API_KEY".to_string(),
            (401 | 403, Some(key)) => format!("the key in {} is not accepted", key.variable()),
            (404, _) => "is this the API's address, and is the model served there? -m NAME names another".into(),
            (300..=399, _) => match &head.location {
                Some(location) => format!(
                    "it sends on to {}; if that is your server, name it with --endpoint",
                    quoted(location, key)
                ),
                None => "it sends on to nowhere".into(),
            },
            (429, _) => "the server takes no more requests now: try again later".into(),
            (500.., _) => "the server's own log says why; try again later".into(),
            _ if said.to_lowercase().contains("tool") => {
                "the server must be started for calls of tools (vLLM: --enable-auto-tool-choice --tool-call-parser NAME; SGLang: --tool-call-parser NAME; llama-server: --jinja)".into()
            }
            _ => "the server does not take this request; its own log says more".into(),
        };
        Self {
            kind: value.as_ref().and_then(full).unwrap_or(Kind::Other),
            passing: status == 429 || status >= 500,
            nowhere: matches!(status, 404 | 405),
            retry_after: head.retry_after,
            ..Self::new(message, hint)
        }
    }

    /// For the user: with what was asked.
    pub fn at(mut self, address: &Address, url: &str) -> Self {
        self.message = format!("{}: {}", address.shown(url), self.message);
        self
    }

    /// What the session is told, where the request held about `estimated` tokens and the context `context`.
    pub fn into_error(self, estimated: usize, context: usize) -> ModelError {
        match self.kind {
            Kind::Full { needed, limit } => {
                let limit = limit.unwrap_or(context);
                ModelError::ContextFull { needed: needed.unwrap_or(estimated).max(limit + 1), limit }
            }
            Kind::Other => ModelError::Unavailable { message: self.message, hint: self.hint },
        }
    }
}

/// An error's own words, wherever a server of this kind puts them.
fn message_of(value: &Value) -> String {
    let error = value.get("error").unwrap_or(value);
    let words =
        [error.get("message"), error.get("detail"), value.get("message"), value.get("detail"), Some(error)];
    let first = words.into_iter().flatten().find_map(Value::as_str);
    first.map_or_else(|| error.to_string(), str::to_string)
}

/// Whether an error says that the context is too small: by its type, or in vLLM's and OpenAI's words.
fn full(value: &Value) -> Option<Kind> {
    let error = value.get("error").unwrap_or(value);
    let said = |key: &str, text: &str| error.get(key).and_then(Value::as_str) == Some(text);
    let words = message_of(value);
    let is_full = said("type", "exceed_context_size_error")
        || said("code", "context_length_exceeded")
        || words.contains("maximum context length")
        || words.contains("longer than the model's context length");
    let number = |key: &str| error.get(key).and_then(Value::as_u64).map(|number| number as usize);
    is_full.then(|| Kind::Full { needed: number("n_prompt_tokens"), limit: number("n_ctx") })
}

fn quote(text: &str, key: Option<&Key>) -> String {
    let quoted = quoted(text, key);
    if quoted.is_empty() { String::new() } else { format!(": {quoted}") }
}

/// The first line that says something, without tags and without the key.
fn quoted(text: &str, key: Option<&Key>) -> String {
    let text = match text.trim_start().starts_with('<') {
        true => without_tags(text),
        false => text.to_string(),
    };
    let text = match key {
        Some(key) => text.replace(key.secret(), "[key]"),
        None => text,
    };
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let clean: String = line.chars().filter(|c| !c.is_control()).take(QUOTED + 1).collect();
    match clean.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

fn without_tags(page: &str) -> String {
    let mut text = String::new();
    for piece in page.split('<') {
        text.push_str(piece.split_once('>').map_or(piece, |(_, after)| after));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(status: u16, body: &str) -> Failure {
        Failure::status(&Head { status, ..Head::default() }, body.as_bytes(), None)
    }

    #[test]
    fn the_first_line_of_what_a_server_said() {
        for (body, shown) in [
            (
                json!({"error": {"message": "no such model\nat line 5"}}).to_string(),
                "status 404: no such model",
            ),
            (json!({"error": "busy"}).to_string(), "status 404: busy"),
            (json!({"message": "gone"}).to_string(), "status 404: gone"),
            (json!({"detail": "Not Found"}).to_string(), "status 404: Not Found"),
            ("<html>\n<head><title>502 Bad Gateway</title>".into(), "status 404: 502 Bad Gateway"),
            ("\n plain \u{1b}[31mtext\nmore".into(), "status 404: plain [31mtext"),
            (String::new(), "status 404"),
        ] {
            assert_eq!(said(404, &body).message, shown);
        }
        assert!(said(500, &"x".repeat(999)).message.len() < 250);
    }

    #[test]
    fn what_passes_and_what_does_not() {
        for (status, passing) in
            [(400, false), (401, false), (404, false), (429, true), (500, true), (503, true)]
        {
            assert_eq!(said(status, "").passing, passing, "{status}");
        }
    }

    #[test]
    fn a_context_that_is_too_small_is_told_apart() {
        let llama = json!({"error": {"code": 400, "type": "exceed_context_size_error", "message": "too long",
            "n_prompt_tokens": 9000, "n_ctx": 8192}});
        let error = said(400, &llama.to_string()).into_error(5, 7);
        assert!(matches!(error, ModelError::ContextFull { needed: 9000, limit: 8192 }), "{error}");
        let vllm = json!({"message": "This model's maximum context length is 4096 tokens. However, you asked for 5000"});
        let error = said(400, &vllm.to_string()).into_error(5, 4096);
        assert!(matches!(error, ModelError::ContextFull { needed: 4097, limit: 4096 }), "{error}");
    }
}
