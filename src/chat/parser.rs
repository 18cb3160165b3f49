//! The streaming tool-call parser: reads what a model wrote and never fails; what it cannot read is a problem in
//! words. Both call formats are read whatever the model's own is, since small models mix them. Text is gathered and
//! read as a whole at the end, so the way it was split cannot matter; while it streams, text is passed on as soon as it
//! can no longer be the opening of a call.

use super::{ChatFormat, ToolCall, ToolSpec, json};
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
    /// Text before the first call, untrimmed.
    pub content: String,
    pub calls: Vec<ToolCall>,
    pub reasoning: Option<String>,
    /// A call was open when the text ended: it is not among `calls`.
    pub truncated: bool,
    pub problems: Vec<String>,
}

pub struct ToolCallParser {
    format: ChatFormat,
    tools: Vec<ToolSpec>,
    text: String,
    /// Still inside the thoughts that the prompt (or the model) opened.
    thinking: bool,
    /// Bytes already passed on as events.
    shown: usize,
    started: bool,
}

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const FUNCTION: &str = "<function=";
const END_FUNCTION: &str = "</function>";
const PARAMETER: &str = "<parameter=";
const END_PARAMETER: &str = "</parameter>";
const END_THINK: &str = "</think>";

impl ToolCallParser {
    /// `opened_think`: the prompt already ended with `<think>`.
    pub fn new(format: ChatFormat, tools: &[ToolSpec], opened_think: bool) -> Self {
        let tools = tools.to_vec();
        Self { format, tools, text: String::new(), thinking: opened_think, shown: 0, started: false }
    }

    pub fn push(&mut self, text: &str) -> Vec<ParseEvent> {
        self.text.push_str(text);
        let mut events = Vec::new();
        if self.thinking {
            let unseen = &self.text[self.shown..];
            let (end, closes) = match unseen.find(END_THINK) {
                Some(at) => (at, true),
                None => (unseen.len() - partial(unseen, END_THINK), false),
            };
            if end > 0 {
                events.push(ParseEvent::Thinking(unseen[..end].into()));
            }
            self.shown += end;
            if !closes {
                return events;
            }
            self.shown += END_THINK.len();
            self.thinking = false;
        }
        if self.started {
            return events;
        }
        let unseen = &self.text[self.shown..];
        let (safe, opened) = self.safe(unseen);
        if safe > 0 {
            events.push(ParseEvent::Text(unseen[..safe].into()));
            self.shown += safe;
        }
        if let Some(name) = opened {
            self.started = true;
            events.push(ParseEvent::CallStarted(name));
        }
        events
    }

    /// Reads the whole; the events are what `push` had to hold back.
    pub fn finish(self) -> (Vec<ParseEvent>, Parsed) {
        let mut parsed = Parsed::default();
        let mut body = self.text.as_str();
        let opened = self.format == ChatFormat::Thinking;
        if let Some((thoughts, rest)) = body.split_once(END_THINK).filter(|(before, _)| opened || before.trim_start().starts_with("<think>")) {
            parsed.reasoning = Some(thoughts.trim_start().strip_prefix("<think>").unwrap_or(thoughts).trim().into());
            body = rest.trim_start_matches('\n');
        } else if opened && self.thinking {
            parsed.reasoning = Some(body.trim().into());
            body = "";
        }
        self.read(body, &mut parsed);
        let mut events = Vec::new();
        let shown = self.text[..self.shown].len();
        let begin = self.text.len() - body.len();
        let end = begin + parsed.content.len();
        if !self.started && shown < end {
            events.push(ParseEvent::Text(self.text[shown.max(begin)..end].into()));
        }
        events.extend(parsed.calls.iter().cloned().map(ParseEvent::Call));
        (events, parsed)
    }

    fn known(&self, name: &str) -> bool {
        self.tools.iter().any(|tool| tool.name == name)
    }

    /// How much of `text` is certainly not the opening of a call, and the name of the call that follows it at once.
    fn safe(&self, text: &str) -> (usize, Option<String>) {
        if let Some((at, name)) = self.opening(text) {
            return (at, Some(name));
        }
        let mut hold = partial(text, OPEN).max(partial(text, FUNCTION));
        for mark in [OPEN, FUNCTION] {
            // An opening whose name has not come yet.
            if let Some(at) = text.rfind(mark) {
                let rest = &text[at + mark.len()..];
                let open = if mark == OPEN { undecided(rest) } else { !rest.contains('>') && rest.len() < 80 };
                if open {
                    hold = hold.max(text.len() - at);
                }
            }
        }
        // A JSON object or fenced block at the start of a line may turn out to be a call: wait for its end.
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let begins = line.trim_start();
            if begins.starts_with('{') || begins.starts_with("```") {
                hold = hold.max(text.len() - start);
                break;
            }
            start += line.len();
        }
        (text.len() - hold, None)
    }

    /// The first opening of a call with tags: where it begins and the name, if that is there already.
    fn opening(&self, text: &str) -> Option<(usize, String)> {
        let mut best: Option<(usize, String)> = None;
        for (at, _) in text.match_indices(OPEN) {
            let rest = text[at + OPEN.len()..].trim_start();
            let name = match rest.strip_prefix(FUNCTION) {
                Some(rest) => rest.split_once('>').map(|(name, _)| name.trim().to_string()),
                None if rest.starts_with('{') => json_name(rest),
                None => None,
            };
            if let Some(name) = name {
                best = Some((at, name));
                break;
            }
        }
        for (at, _) in text.match_indices(FUNCTION) {
            let Some((name, _)) = text[at + FUNCTION.len()..].split_once('>') else { continue };
            if self.known(name) && best.as_ref().is_none_or(|(first, _)| at < *first) {
                best = Some((at, name.into()));
                break;
            }
        }
        best
    }

    fn read(&self, text: &str, parsed: &mut Parsed) {
        let mut at = 0;
        let mut first = None;
        while let Some((begin, next)) = self.next_call(text, at, parsed) {
            first.get_or_insert(begin);
            at = next;
            if parsed.truncated {
                break;
            }
        }
        if first.is_none() && !self.tools.is_empty() && self.format != ChatFormat::Qwen3Coder {
            if let Some((begin, call)) = self.bare_object(text) {
                first = Some(begin);
                parsed.calls.push(call);
            }
        }
        parsed.content = text[..first.unwrap_or(text.len())].into();
    }

    /// Reads the next call with tags from `from` on; returns where it began and where reading goes on.
    fn next_call(&self, text: &str, from: usize, parsed: &mut Parsed) -> Option<(usize, usize)> {
        let mut at = from;
        loop {
            let rest = &text[at..];
            let tag = rest.find(OPEN);
            let bare = rest.match_indices(FUNCTION).map(|(i, _)| i).find(|&i| {
                rest[i + FUNCTION.len()..].split_once('>').is_some_and(|(name, _)| self.known(name))
            });
            let begin = match (tag, bare) {
                (Some(tag), Some(bare)) => tag.min(bare),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => return None,
            };
            let open = at + begin;
            let mut inner = open;
            if text[open..].starts_with(OPEN) {
                inner += OPEN.len();
                inner += text[inner..].len() - text[inner..].trim_start().len();
            }
            let body = &text[inner..];
            if body.starts_with(FUNCTION) {
                return Some((open, inner + self.xml_call(body, parsed)));
            }
            if body.starts_with('{') {
                return Some((open, inner + self.json_call(body, parsed)));
            }
            if body.is_empty() {
                parsed.truncated = true;
                return Some((open, text.len()));
            }
            // A literal tag in prose.
            at = open + OPEN.len();
        }
    }

    /// `<function=NAME>...`: returns how much of `body` it took.
    fn xml_call(&self, body: &str, parsed: &mut Parsed) -> usize {
        let Some(close) = body.find('>') else {
            parsed.truncated = true;
            return body.len();
        };
        let name = body[FUNCTION.len()..close].trim().to_string();
        let schema = self.tools.iter().find(|tool| tool.name == name).map(|tool| &tool.parameters);
        let schema = schema.unwrap_or(&Value::Null);
        let known = |key: &str| schema.get("properties").is_some_and(|p| p.get(key).is_some());
        let mut arguments = Map::new();
        let mut at = close + 1;
        loop {
            let skipped = body[at..].len() - body[at..].trim_start().len();
            let rest = &body[at + skipped..];
            if rest.starts_with(END_FUNCTION) {
                at += skipped + END_FUNCTION.len();
                let tail = &body[at..];
                let gap = tail.len() - tail.trim_start().len();
                if tail.trim_start().starts_with(CLOSE) {
                    at += gap + CLOSE.len();
                }
                break;
            }
            if rest.starts_with(CLOSE) {
                at += skipped + CLOSE.len();
                break;
            }
            let Some(after) = rest.strip_prefix(PARAMETER) else {
                // Text between parameters belongs to nothing: skip to what can be read.
                let next = [PARAMETER, END_FUNCTION, CLOSE].iter().filter_map(|mark| rest.find(mark)).min();
                match next {
                    Some(next) if !rest.is_empty() => at += skipped + next,
                    _ => {
                        parsed.truncated = true;
                        return body.len();
                    }
                }
                continue;
            };
            let Some(end_of_key) = after.find('>') else {
                parsed.truncated = true;
                return body.len();
            };
            let key = after[..end_of_key].trim().to_string();
            let start = at + skipped + PARAMETER.len() + end_of_key + 1;
            let Some((length, taken)) = value_end(&body[start..], &known) else {
                parsed.truncated = true;
                return body.len();
            };
            let value = &body[start..start + length];
            let value = value.strip_prefix("\r\n").or_else(|| value.strip_prefix('\n')).unwrap_or(value);
            let value = value.strip_suffix("\r\n").or_else(|| value.strip_suffix('\n')).unwrap_or(value);
            let field = schema.get("properties").and_then(|p| p.get(&key)).unwrap_or(&Value::Null);
            arguments.insert(key, json::convert_text(value, field, schema));
            at = start + length + taken;
        }
        parsed.calls.push(ToolCall { name, arguments });
        at
    }

    /// `{"name": .., "arguments": ..}` after the tag, one or several: returns how much of `body` was taken.
    fn json_call(&self, body: &str, parsed: &mut Parsed) -> usize {
        let mut at = 0;
        loop {
            let rest = &body[at..];
            let skipped = rest.len() - rest.trim_start_matches([' ', '\n', '\r', '\t', ',']).len();
            let rest = &rest[skipped..];
            if rest.starts_with(CLOSE) {
                return at + skipped + CLOSE.len();
            }
            if !rest.starts_with('{') {
                return at;
            }
            let whole = json::object_end(rest).or_else(|| rest.find(CLOSE));
            let Some(end) = whole else {
                parsed.truncated = true;
                return body.len();
            };
            match json::lenient(&rest[..end]).and_then(|value| self.call_of(value)) {
                Some(call) => parsed.calls.push(call),
                None => {
                    let text: String = rest[..end].chars().take(200).collect();
                    parsed.problems.push(format!(
                        "this tool call is not valid JSON and was not run: {text}\nWrite {{\"name\": ..., \"arguments\": {{...}}}}; inside strings write line breaks as \\n and quotes as \\\""
                    ));
                }
            }
            at += skipped + end;
        }
    }

    /// A call out of any of the shapes models use for it.
    fn call_of(&self, value: Value) -> Option<ToolCall> {
        let Value::Object(mut map) = value else { return None };
        if let Some(Value::Object(inner)) = map.remove("function") {
            map = inner;
        }
        let name = map.remove("name")?.as_str()?.to_string();
        let arguments = map.remove("arguments").or_else(|| map.remove("parameters"));
        let arguments = match arguments {
            Some(Value::Object(arguments)) => arguments,
            Some(Value::String(text)) => match json::lenient(&text)? {
                Value::Object(arguments) => arguments,
                _ => return None,
            },
            Some(Value::Null) => Map::new(),
            Some(_) => return None,
            // Arguments beside the name.
            None => map,
        };
        let tool = self.tools.iter().find(|tool| tool.name == name);
        let arguments = match tool {
            Some(tool) => json::convert_arguments(arguments, &tool.parameters),
            None => arguments,
        };
        Some(ToolCall { name, arguments })
    }

    /// A bare JSON object, or one in a fenced block, where exactly one of the text names a known tool.
    fn bare_object(&self, text: &str) -> Option<(usize, ToolCall)> {
        let mut found = None;
        let mut at = 0;
        while let Some(begin) = text[at..].find('{').map(|i| at + i) {
            let Some(length) = json::object_end(&text[begin..]) else {
                at = begin + 1;
                continue;
            };
            let value = json::lenient(&text[begin..begin + length]);
            match value.and_then(|value| self.call_of(value)).filter(|call| self.known(&call.name)) {
                Some(_) if found.is_some() => return None,
                Some(call) => {
                    // The fence, and the line it stands on, is not part of the content.
                    let before = &text[..begin];
                    let fence = before.rfind("```").filter(|&i| before[i..].trim_start_matches('`').trim().len() < 12);
                    found = Some((fence.unwrap_or(begin), call));
                    at = begin + length;
                }
                None => at = begin + 1,
            }
        }
        found
    }
}

/// Bytes at the end of `text` that may be the beginning of `mark`.
fn partial(text: &str, mark: &str) -> usize {
    (1..mark.len().min(text.len() + 1)).rev().find(|&n| text.ends_with(&mark[..n])).unwrap_or(0)
}

/// Whether what follows `<tool_call>` may still become a call.
fn undecided(rest: &str) -> bool {
    let rest = rest.trim_start();
    rest.is_empty()
        || FUNCTION.starts_with(rest)
        || (rest.starts_with(FUNCTION) && !rest.contains('>'))
        || rest.starts_with('{')
}

/// The tool's name in a JSON call that is still being written.
fn json_name(text: &str) -> Option<String> {
    let after = text.split_once("\"name\"")?.1.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    after.split_once('"').map(|(name, _)| name.to_string())
}

/// Length of a value and of the tag that closes it. A closing tag counts only where something that may follow a value
/// follows; so content that holds such tags survives.
fn value_end(text: &str, known: &dyn Fn(&str) -> bool) -> Option<(usize, usize)> {
    for (at, _) in text.match_indices(END_PARAMETER) {
        let rest = text[at + END_PARAMETER.len()..].trim_start();
        if rest.is_empty() || [PARAMETER, END_FUNCTION, CLOSE].iter().any(|mark| rest.starts_with(mark)) {
            return Some((at, END_PARAMETER.len()));
        }
    }
    for (at, _) in text.match_indices(PARAMETER) {
        if text[at + PARAMETER.len()..].split_once('>').is_some_and(|(key, _)| known(key)) {
            return Some((at, 0));
        }
    }
    text.find(END_FUNCTION).or_else(|| text.find(CLOSE)).map(|at| (at, 0))
}
