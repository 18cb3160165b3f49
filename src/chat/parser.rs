//! The streaming tool-call parser: reads what a model wrote, never fails. This file is its front: bytes to text,
//! thinking apart from the answer, events and the final reading; `read_xml` and `read_hermes` tell calls from text.
//! Every decision is made only when no continuation could change it, so reading whole, byte by byte, or split
//! anywhere gives the same result. A call is complete where its closing tag stands; what is cut off is never run.

use super::read_hermes::HermesReader;
use super::read_xml::XmlReader;
use super::{ChatFormat, Message, Role, ToolCall, ToolSpec};
use serde_json::{Map, Value};

/// What is certain so far, for showing while the text streams.
#[derive(Debug, Clone, PartialEq)]
pub enum ParseEvent {
    Text(String),
    Thinking(String),
    /// A call has opened; its name is known.
    CallStarted(String),
    Call(ToolCall),
}

/// The reading of a whole answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parsed {
    /// Text before the first call, untrimmed. What follows a call is dropped: models invent results there.
    pub content: String,
    pub calls: Vec<ToolCall>,
    /// The thinking, untrimmed; `None` if there was none.
    pub reasoning: Option<String>,
    /// A call was open when the text ended: it is not among `calls`.
    pub truncated: bool,
    pub problems: Vec<String>,
}

impl Parsed {
    /// The message for the history, without the line breaks that belong to the template.
    pub fn into_message(self) -> Message {
        let mut content = self.content.as_str();
        if self.reasoning.is_some() {
            content = content.trim_start_matches('\n');
        }
        if !self.calls.is_empty() {
            content = content.trim_end();
        }
        Message {
            role: Role::Assistant,
            content: content.into(),
            reasoning: self.reasoning.map(|text| text.trim_matches('\n').into()),
            tool_calls: self.calls,
            written: None,
        }
    }
}

const THINK_OPEN: &str = "<think>";
const THINK_CLOSE: &str = "</think>";

pub struct ToolCallParser {
    phase: Phase,
    /// The prompt ended with `<think>`.
    opened_think: bool,
    /// Text that nothing was decided about yet.
    buffer: String,
    /// The start of a character whose rest has not come.
    partial: Vec<u8>,
    reader: Reader,
    sink: Sink,
}

enum Phase {
    /// Nothing but white space so far: a `<think>` may follow.
    Start,
    Thinking,
    Answer,
}

enum Reader {
    Xml(XmlReader),
    Hermes(HermesReader),
}

impl ToolCallParser {
    /// `opened_think`: the prompt already ended with `<think>`.
    pub fn new(format: ChatFormat, tools: &[ToolSpec], opened_think: bool) -> Self {
        let tools = Tools(tools.iter().map(|t| (t.name.clone(), t.parameters.clone())).collect());
        let reader = if format.is_xml() {
            Reader::Xml(XmlReader::new(tools))
        } else {
            Reader::Hermes(HermesReader::new(tools))
        };
        Self {
            phase: Phase::Start,
            opened_think,
            buffer: String::new(),
            partial: Vec::new(),
            reader,
            sink: Sink::default(),
        }
    }

    pub fn push(&mut self, text: &str) -> Vec<ParseEvent> {
        self.flush_partial();
        self.buffer.push_str(text);
        self.advance(false);
        std::mem::take(&mut self.sink.events)
    }

    /// As `push`, for bytes that may end within a character. What is no UTF-8 becomes U+FFFD.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> Vec<ParseEvent> {
        let mut held = std::mem::take(&mut self.partial);
        held.extend_from_slice(bytes);
        let mut rest = held.as_slice();
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.buffer.push_str(text);
                    break;
                }
                Err(error) => {
                    let (valid, tail) = rest.split_at(error.valid_up_to());
                    self.buffer.push_str(&String::from_utf8_lossy(valid));
                    let Some(bad) = error.error_len() else {
                        self.partial = tail.to_vec();
                        break;
                    };
                    self.buffer.push(char::REPLACEMENT_CHARACTER);
                    rest = &tail[bad..];
                }
            }
        }
        self.advance(false);
        std::mem::take(&mut self.sink.events)
    }

    pub fn finish(mut self) -> (Vec<ParseEvent>, Parsed) {
        self.flush_partial();
        self.advance(true);
        (self.sink.events, self.sink.parsed)
    }

    fn flush_partial(&mut self) {
        if !self.partial.is_empty() {
            self.partial.clear();
            self.buffer.push(char::REPLACEMENT_CHARACTER);
        }
    }

    fn advance(&mut self, at_end: bool) {
        if let Phase::Start = self.phase {
            let text = self.buffer.trim_start();
            if let Some(rest) = text.strip_prefix(THINK_OPEN) {
                self.buffer = rest.into();
                self.phase = Phase::Thinking;
            } else if !at_end && THINK_OPEN.starts_with(text) {
                return;
            } else {
                self.phase = if self.opened_think { Phase::Thinking } else { Phase::Answer };
            }
        }
        if let Phase::Thinking = self.phase {
            let reasoning = self.sink.parsed.reasoning.get_or_insert_default();
            let end = self.buffer.find(THINK_CLOSE);
            let certain = match end {
                Some(end) => end,
                None if at_end => self.buffer.len(),
                None => self.buffer.len() - held_back(&self.buffer, THINK_CLOSE),
            };
            let text: String = self.buffer.drain(..certain).collect();
            reasoning.push_str(&text);
            if !text.is_empty() {
                self.sink.events.push(ParseEvent::Thinking(text));
            }
            if end.is_some() {
                self.buffer.drain(..THINK_CLOSE.len());
                self.phase = Phase::Answer;
            } else if at_end {
                self.sink.problem("the answer ended amid the thinking, before </think>".into());
            }
        }
        if let Phase::Answer = self.phase {
            let done = match &mut self.reader {
                Reader::Xml(reader) => reader.read(&self.buffer, at_end, &mut self.sink),
                Reader::Hermes(reader) => reader.read(&self.buffer, at_end, &mut self.sink),
            };
            self.buffer.drain(..done);
        }
    }
}

/// How many bytes at the end of `text` may be the beginning of `tag`.
fn held_back(text: &str, tag: &str) -> usize {
    (1..tag.len()).rev().find(|&n| text.ends_with(&tag[..n])).unwrap_or(0)
}

/// Where `text` stands towards a tag that it may begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefix<'a> {
    /// It begins with the tag; this follows.
    Full(&'a str),
    /// All of it is the tag's beginning (the empty text is): more is needed.
    Partial,
    No,
}

pub(super) fn prefix<'a>(text: &'a str, tag: &str) -> Prefix<'a> {
    match text.strip_prefix(tag) {
        Some(rest) => Prefix::Full(rest),
        None if tag.starts_with(text) => Prefix::Partial,
        None => Prefix::No,
    }
}

/// The tools a call may name, with the schema of their arguments.
pub(super) struct Tools(Vec<(String, Value)>);

impl Tools {
    pub fn knows(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }
    /// Could `text` grow into the name of a known tool?
    pub fn begins_name(&self, text: &str) -> bool {
        self.0.iter().any(|(known, _)| known.starts_with(text))
    }
    /// Null for an unknown tool.
    pub fn parameters(&self, name: &str) -> &Value {
        self.0.iter().find(|(known, _)| known == name).map_or(&Value::Null, |(_, schema)| schema)
    }
}

/// Where the readers put what they are certain of.
#[derive(Default)]
pub(super) struct Sink {
    events: Vec<ParseEvent>,
    parsed: Parsed,
    /// A call was seen, even one that could not be read: the content is over.
    called: bool,
    /// The start of the open call was announced.
    announced: bool,
}

impl Sink {
    pub fn text(&mut self, text: &str) {
        if self.called || text.is_empty() {
            return;
        }
        self.parsed.content.push_str(text);
        match self.events.last_mut() {
            Some(ParseEvent::Text(last)) => last.push_str(text),
            _ => self.events.push(ParseEvent::Text(text.into())),
        }
    }

    /// A call begins; `name` if it is known already.
    pub fn opened(&mut self, name: Option<&str>) {
        self.called = true;
        if let Some(name) = name.filter(|_| !self.announced) {
            self.announced = true;
            self.events.push(ParseEvent::CallStarted(name.into()));
        }
    }

    pub fn call(&mut self, name: &str, arguments: Map<String, Value>) {
        self.opened(Some(name));
        self.announced = false;
        let call = ToolCall { name: name.into(), arguments };
        self.events.push(ParseEvent::Call(call.clone()));
        self.parsed.calls.push(call);
    }

    /// A call that could not be read.
    pub fn failed(&mut self, problem: String) {
        self.opened(None);
        self.announced = false;
        self.problem(problem);
    }

    /// The text ended within a call.
    pub fn cut_off(&mut self, name: Option<&str>) {
        let call = name.map_or("a call".into(), |name| format!("the call to `{name}`"));
        self.failed(format!("{call} was cut off before its end, so it was not run"));
        self.parsed.truncated = true;
    }

    pub fn problem(&mut self, problem: String) {
        self.parsed.problems.push(problem);
    }
}
