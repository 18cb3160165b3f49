//! Reads the JSON calls of the Hermes formats: objects between `<tool_call>` tags, one or several. Small Qwen2.5-Coder
//! models often leave the tags out or write `<tools>`; so a fenced block that is exactly one object naming a known
//! tool, and such an object alone at the end of the answer, are calls too. Other JSON is text.
//! An object whose braces balance is complete, with or without the closing tag.

use super::convert;
use super::lenient_json::{self, ObjectScan, Scan};
use super::parser::{Prefix, Sink, Tools, prefix};
use serde_json::{Map, Value};

/// Tags that open a list of calls. `<tools>` is the tag of the tool list, which small models take for it.
const TAGS: [(&str, &str); 2] = [("<tool_call>", "</tool_call>"), ("<tools>", "</tools>")];
const FENCE: &str = "```";
/// Longest word after a fence that still may hold a call (`json`, `tool_call`, ...).
const MAX_FENCE_WORD: usize = 16;

pub(super) struct HermesReader {
    tools: Tools,
    state: State,
    scan: ObjectScan,
    /// Where the open object ends, once that is found and what follows decides.
    ended: Option<usize>,
    /// Only white space stands between the last line break (or the beginning) and the undecided text.
    line_start: bool,
    /// Untagged objects are looked for: until one of them turns out to be no call for its surroundings.
    untagged: bool,
}

#[derive(Clone, Copy)]
enum State {
    Text,
    /// Inside tags; the index into `TAGS`.
    Tag(usize),
    /// Undecided text that begins with an untagged object, `lead` bytes in; fenced or bare.
    Untagged {
        lead: usize,
        fenced: bool,
    },
}

/// What may stand at a place in the text.
enum Opening {
    /// Tags; the first object begins after so many bytes.
    Tag(usize, usize),
    Untagged {
        lead: usize,
        fenced: bool,
    },
    Partial,
    /// Tags and a brace, then the end.
    Cut,
    No,
}

enum Step {
    On(usize),
    Wait(usize),
}

impl HermesReader {
    pub fn new(tools: Tools) -> Self {
        Self {
            tools,
            state: State::Text,
            scan: ObjectScan::default(),
            ended: None,
            line_start: true,
            untagged: true,
        }
    }

    /// Reads `text`, all that is undecided; returns how much of it is decided now.
    pub fn read(&mut self, text: &str, at_end: bool, sink: &mut Sink) -> usize {
        let mut at = 0;
        loop {
            let step = match self.state {
                State::Text => self.text(text, at, at_end, sink),
                State::Tag(tag) => self.tag(tag, text, at, at_end, sink),
                State::Untagged { lead, fenced } => self.untagged(lead, fenced, text, at, at_end, sink),
            };
            let (Step::On(next) | Step::Wait(next)) = step;
            self.line_start = starts_line(&text[at..next], self.line_start);
            if let Step::Wait(_) = step {
                return next;
            }
            at = next;
        }
    }

    fn text(&mut self, text: &str, at: usize, at_end: bool, sink: &mut Sink) -> Step {
        let mut from = at;
        while let Some(found) = text[from..].find(['<', '{', '`']) {
            let start = from + found;
            let line_start = starts_line(&text[at..start], self.line_start);
            let opening = self.opening(&text[start..], line_start, at_end);
            if let Opening::No = opening {
                // All backticks of a run are one mark: the second is no line start.
                from = start + 1;
                continue;
            }
            sink.text(&text[at..start]);
            self.forget();
            return match opening {
                Opening::Tag(tag, length) => {
                    self.state = State::Tag(tag);
                    sink.opened(None);
                    Step::On(start + length)
                }
                Opening::Untagged { lead, fenced } => {
                    self.state = State::Untagged { lead, fenced };
                    Step::On(start)
                }
                Opening::Cut => {
                    sink.cut_off(None);
                    Step::Wait(text.len())
                }
                Opening::Partial | Opening::No => Step::Wait(start),
            };
        }
        sink.text(&text[at..]);
        Step::Wait(text.len())
    }

    fn opening(&self, text: &str, line_start: bool, at_end: bool) -> Opening {
        let wait = if at_end { Opening::No } else { Opening::Partial };
        for (index, (open, _)) in TAGS.iter().enumerate() {
            match prefix(text, open) {
                Prefix::Full(rest) => {
                    let rest = match after_fence(rest.trim_start()) {
                        Prefix::Full(rest) => rest.trim_start(),
                        Prefix::Partial => return wait,
                        Prefix::No => rest.trim_start(),
                    };
                    return match object_opening(rest, false) {
                        Some(true) => Opening::Tag(index, text.len() - rest.len()),
                        Some(false) => Opening::No,
                        None if at_end && !rest.is_empty() => Opening::Cut,
                        None => wait,
                    };
                }
                Prefix::Partial => return wait,
                Prefix::No => {}
            }
        }
        if !line_start || !self.untagged {
            return Opening::No;
        }
        let (rest, fenced) = match after_fence(text) {
            Prefix::Full(rest) => {
                // The object stands below the fence, not beside it.
                let line = rest.trim_start_matches([' ', '\t', '\r']);
                match line.starts_with('\n') {
                    true => (line.trim_start(), true),
                    false if line.is_empty() => return wait,
                    false => return Opening::No,
                }
            }
            Prefix::Partial => return wait,
            Prefix::No => (text, false),
        };
        match object_opening(rest, true) {
            Some(true) => Opening::Untagged { lead: text.len() - rest.len(), fenced },
            Some(false) => Opening::No,
            None => wait,
        }
    }

    /// Inside tags, before or in an object.
    fn tag(&mut self, tag: usize, text: &str, at: usize, at_end: bool, sink: &mut Sink) -> Step {
        let close = TAGS[tag].1;
        let rest = text[at..].trim_start();
        let place = text.len() - rest.len();
        if rest.starts_with('{') {
            return self.tagged_object(close, text, place, at_end, sink);
        }
        if rest.starts_with(close) {
            self.state = State::Text;
            return Step::On(place + close.len());
        }
        let marks = [TAGS[0].0, TAGS[1].0, close, FENCE];
        if !at_end && marks.iter().any(|mark| mark.starts_with(rest)) {
            return Step::Wait(place);
        }
        for (open, _) in TAGS {
            if rest.starts_with(open) {
                // The tag before was not closed.
                self.state = State::Text;
                return Step::On(place);
            }
        }
        match after_fence(rest) {
            Prefix::Full(after) => return Step::On(text.len() - after.len()),
            Prefix::Partial if !at_end => return Step::Wait(place),
            _ => {}
        }
        if rest.starts_with([',', ';', '}']) {
            return Step::On(place + 1);
        }
        self.state = State::Text;
        Step::On(place)
    }

    fn tagged_object(&mut self, close: &str, text: &str, at: usize, at_end: bool, sink: &mut Sink) -> Step {
        let object = &text[at..];
        let found = loop {
            if self.ended.is_some() {
                break self.ended;
            }
            match self.scan.run(object) {
                Scan::Balanced(end) => break Some(end),
                Scan::Tag(end) => match prefix(&object[end..], close) {
                    Prefix::Full(_) => break Some(end),
                    Prefix::Partial if !at_end => break None,
                    _ => self.scan.skip(),
                },
                Scan::More => break None,
            }
        };
        // What comes after the object names nothing in it.
        let name = leading_name(&object[..found.unwrap_or(object.len())]);
        if let Some(name) = &name {
            sink.opened(Some(name));
        }
        if let Some(end) = found {
            match self.call(&object[..end]) {
                Ok((name, arguments)) => {
                    sink.call(&name, arguments);
                    self.forget();
                    return Step::On(at + end);
                }
                // Quotes within strings lead the search for the end astray; what stands before the tag is the call.
                Err(reason) => match object[end..].find(close) {
                    Some(more) => {
                        self.unreadable(&object[..end + more], &reason, sink);
                        return Step::On(at + end + more);
                    }
                    None if !at_end => {
                        self.ended = found;
                        return Step::Wait(at);
                    }
                    None => {
                        self.unreadable(object, &reason, sink);
                        return Step::On(text.len());
                    }
                },
            }
        }
        if !at_end {
            return Step::Wait(at);
        }
        let ends = |(i, tag): &(usize, &str)| {
            let rest = object[i + tag.len()..].trim_start();
            rest.is_empty() || TAGS.iter().any(|(open, _)| rest.starts_with(open))
        };
        match object.match_indices(close).find(ends) {
            Some((end, _)) => {
                match self.call(&object[..end]) {
                    Ok((name, arguments)) => sink.call(&name, arguments),
                    Err(reason) => self.unreadable(&object[..end], &reason, sink),
                }
                self.forget();
                Step::On(at + end)
            }
            None => {
                sink.cut_off(name.as_deref());
                self.state = State::Text;
                Step::Wait(text.len())
            }
        }
    }

    fn forget(&mut self) {
        self.scan = ObjectScan::default();
        self.ended = None;
    }

    fn unreadable(&mut self, object: &str, reason: &str, sink: &mut Sink) {
        self.forget();
        match self.call(object) {
            Ok((name, arguments)) => sink.call(&name, arguments),
            Err(_) => {
                let call =
                    leading_name(object).map_or("a call".into(), |name| format!("the call to `{name}`"));
                sink.failed(format!(
                    "{call} could not be read, so it was not run: {reason}. Write one JSON object with \"name\" and \
                     \"arguments\"; inside strings, quotes as \\\" and line breaks as \\n"
                ));
            }
        }
    }

    /// At an object outside of tags: it is a call if it is all there is, within its fence or up to the end.
    fn untagged(
        &mut self,
        lead: usize,
        fenced: bool,
        text: &str,
        at: usize,
        at_end: bool,
        sink: &mut Sink,
    ) -> Step {
        let object = &text[at + lead..];
        let end = loop {
            if self.ended.is_some() {
                break self.ended;
            }
            match self.scan.run(object) {
                Scan::Balanced(end) => break Some(end),
                Scan::Tag(_) => self.scan.skip(),
                Scan::More => break None,
            }
        };
        let Some(end) = end else {
            if !at_end {
                return Step::Wait(at);
            }
            return self.never_ended(lead, fenced, text, at, sink);
        };
        let next = at + lead + end;
        self.state = State::Text;
        let call = self.call(&object[..end]).ok().filter(|(name, _)| self.tools.knows(name));
        let Some((name, arguments)) = call else {
            sink.text(&text[at..next]);
            return Step::On(next);
        };
        let after = object[end..].trim_start();
        if after.is_empty() && at_end {
            sink.call(&name, arguments);
            return Step::On(next);
        }
        match prefix(after, FENCE) {
            Prefix::Full(rest) if fenced => {
                sink.call(&name, arguments);
                return Step::On(text.len() - rest.len());
            }
            Prefix::Partial if !at_end && (fenced || after.is_empty()) => {
                self.state = State::Untagged { lead, fenced };
                self.ended = Some(end);
                return Step::Wait(at);
            }
            _ => {}
        }
        // More than one object: which of it is meant is not for us to guess.
        self.untagged = false;
        sink.problem(format!(
            "an object that names `{name}` stands in the text, with more after it, so it was not run: write calls \
             within <tool_call></tool_call> tags and nothing after them"
        ));
        sink.text(&text[at..next]);
        Step::On(next)
    }

    /// The text ended within an untagged object.
    fn never_ended(&mut self, lead: usize, fenced: bool, text: &str, at: usize, sink: &mut Sink) -> Step {
        let object = &text[at + lead..];
        self.state = State::Text;
        self.untagged = false;
        if let Some(name) = leading_name(object).filter(|name| self.tools.knows(name)) {
            match object.find("\n```").filter(|_| fenced) {
                Some(end) => {
                    let reason = lenient_json::object(&object[..end]).err().unwrap_or_default();
                    self.unreadable(&object[..end], &reason, sink);
                    return Step::On(at + lead + end + 1 + FENCE.len());
                }
                None => {
                    sink.cut_off(Some(&name));
                    return Step::Wait(text.len());
                }
            }
        }
        // Ordinary text after all; a tagged call may stand in it.
        let first = lead.max(1);
        sink.text(&text[at..at + first]);
        Step::On(at + first)
    }

    /// A call from the text of its object.
    fn call(&self, object: &str) -> Result<(String, Map<String, Value>), String> {
        let (name, arguments) = name_and_arguments(lenient_json::object(object)?)?;
        let parameters = self.tools.parameters(&name);
        Ok((name, convert::from_json(arguments, parameters)))
    }
}

/// Is only white space on the last line of `text`? `before`: so it was up to here.
fn starts_line(text: &str, before: bool) -> bool {
    match text.rsplit_once('\n') {
        Some((_, line)) => line.trim().is_empty(),
        None => before && text.trim().is_empty(),
    }
}

/// What follows a fence and its word (`json`, `tool_call`, ...), if `text` begins with one.
fn after_fence(text: &str) -> Prefix<'_> {
    let Prefix::Full(rest) = prefix(text, FENCE) else { return prefix(text, FENCE) };
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match rest.find(|c| !is_word(c)) {
        Some(end) if end <= MAX_FENCE_WORD => Prefix::Full(&rest[end..]),
        None if rest.len() <= MAX_FENCE_WORD => Prefix::Partial,
        _ => Prefix::No,
    }
}

/// Does an object begin here, braces perhaps doubled? With `call_keys`, its first key must be one of a call's.
/// `None`: more text is needed.
fn object_opening(text: &str, call_keys: bool) -> Option<bool> {
    const KEYS: [&str; 5] = ["name", "arguments", "parameters", "type", "function"];
    if text.is_empty() {
        return None;
    }
    let Some(rest) = text.strip_prefix('{') else { return Some(false) };
    let rest = rest.strip_prefix('{').unwrap_or(rest).trim_start();
    let quote = rest.chars().next()?;
    if quote != '"' && quote != '\'' {
        return Some(false);
    }
    let key = &rest[1..];
    if !call_keys {
        return Some(true);
    }
    let mut wait = false;
    for known in KEYS {
        match prefix(key, known) {
            Prefix::Full(after) if after.starts_with(quote) => return Some(true),
            Prefix::Full("") | Prefix::Partial => wait = true,
            _ => {}
        }
    }
    if wait { None } else { Some(false) }
}

/// The name in an object that may not be complete: the first `"name": "..."` before the arguments.
fn leading_name(object: &str) -> Option<String> {
    let (head, rest) = object.split_once("\"name\"")?;
    if head.len() > 100 || head.contains("arguments") || head.contains("parameters") {
        return None;
    }
    let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let (name, _) = rest.split_once('"')?;
    (!name.is_empty() && name.len() <= 256 && !name.contains(['\\', '\n'])).then(|| name.to_string())
}

/// The shapes a call comes in: `{"name", "arguments"}`, `{"name", "parameters"}`, OpenAI's `{"function": {...}}`, and
/// arguments that stand beside the name.
fn name_and_arguments(call: Value) -> Result<(String, Map<String, Value>), String> {
    let Value::Object(mut map) = call else { return Err("it is not a JSON object".into()) };
    match map.remove("function") {
        Some(inner @ Value::Object(_)) => return name_and_arguments(inner),
        Some(Value::String(name)) if !map.contains_key("name") => {
            map.insert("name".into(), Value::String(name));
        }
        _ => {}
    }
    let name = match map.remove("name") {
        Some(Value::String(name)) if !name.trim().is_empty() => name.trim().to_string(),
        _ => return Err("it has no \"name\"".into()),
    };
    let arguments = match (map.remove("arguments"), map.remove("parameters")) {
        (Some(arguments), _) => arguments,
        (None, Some(schema)) if is_schema(&schema) => {
            return Err("it is a tool's description, not a call".into());
        }
        (None, Some(arguments)) => arguments,
        (None, None) => {
            map.retain(|key, _| !matches!(key.as_str(), "type" | "id"));
            Value::Object(map)
        }
    };
    match arguments {
        Value::Object(arguments) => Ok((name, arguments)),
        Value::Null => Ok((name, Map::new())),
        Value::String(text) if text.trim().is_empty() => Ok((name, Map::new())),
        Value::String(text) => match lenient_json::object(&text)? {
            Value::Object(arguments) => Ok((name, arguments)),
            _ => Err("its \"arguments\" are not a JSON object".into()),
        },
        _ => Err("its \"arguments\" are not a JSON object".into()),
    }
}

/// A model that repeats the tool list gives schemas for arguments.
fn is_schema(parameters: &Value) -> bool {
    parameters.get("properties").is_some_and(Value::is_object)
        && parameters.get("type") == Some(&Value::String("object".into()))
}
