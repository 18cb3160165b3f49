//! Reads the XML calls of Qwen3-Coder.
//!
//! A call begins at `<tool_call>` and `<function=NAME>`, or at the latter alone where NAME is a known tool. Values hold
//! whole files, so a closing tag inside one is text unless the call's grammar goes on after it:
//! - `</parameter>` ends a value only before another parameter, the end of the call, or the end of all;
//! - without that, the value ends at the `</function>` (or `</tool_call>`) before the call's end;
//! - when the call is complete, a `<parameter=KNOWN>` inside a value counts as a parameter whose forerunner was not
//!   closed, if the call gives that parameter nowhere else. So a file that quotes such a tag survives.

use super::convert;
use super::parser::{Prefix, Sink, Tools, prefix};
use super::schema;
use serde_json::Map;

const CALL_OPEN: &str = "<tool_call>";
const CALL_CLOSE: &str = "</tool_call>";
const FUNCTION_OPEN: &str = "<function=";
const FUNCTION_CLOSE: &str = "</function>";
const PARAMETER_OPEN: &str = "<parameter=";
const PARAMETER_CLOSE: &str = "</parameter>";
/// No tool or parameter has a longer name.
const MAX_NAME: usize = 256;

pub(super) struct XmlReader {
    tools: Tools,
    state: State,
    /// Up to here the undecided text was searched.
    scanned: usize,
}

enum State {
    Text,
    Call(Call),
}

#[derive(Default)]
struct Call {
    name: String,
    /// Names and values as written.
    arguments: Vec<(String, String)>,
    /// The parameter whose value is being read.
    parameter: Option<String>,
    /// Something stood where only parameters stand.
    stray: bool,
}

/// What may stand at a `<`.
enum Opening {
    /// A call; its opening takes so many bytes.
    Call(String, usize),
    /// More text is needed.
    Partial,
    /// A tagged call whose name was cut off by the end.
    Cut,
    No,
}

/// What a step did: went on to this place, or needs more text to go beyond it.
enum Step {
    On(usize),
    Wait(usize),
}

impl XmlReader {
    pub fn new(tools: Tools) -> Self {
        Self { tools, state: State::Text, scanned: 0 }
    }

    /// Reads `text`, all that is undecided; returns how much of it is decided now.
    pub fn read(&mut self, text: &str, at_end: bool, sink: &mut Sink) -> usize {
        let mut at = 0;
        loop {
            let step = match std::mem::replace(&mut self.state, State::Text) {
                State::Text => self.text(text, at, at_end, sink),
                State::Call(call) if call.parameter.is_some() => self.value(call, text, at, at_end, sink),
                State::Call(call) => self.between(call, text, at, at_end, sink),
            };
            match step {
                Step::On(next) => {
                    at = next;
                    self.scanned = next;
                }
                Step::Wait(next) => {
                    self.scanned = self.scanned.max(next) - next;
                    return next;
                }
            }
        }
    }

    fn text(&mut self, text: &str, at: usize, at_end: bool, sink: &mut Sink) -> Step {
        let mut from = at;
        while let Some(found) = text[from..].find('<') {
            let start = from + found;
            match self.opening(&text[start..], at_end) {
                Opening::No => from = start + 1,
                Opening::Partial => {
                    sink.text(&text[at..start]);
                    return Step::Wait(start);
                }
                Opening::Cut => {
                    sink.text(&text[at..start]);
                    sink.cut_off(None);
                    return Step::Wait(text.len());
                }
                Opening::Call(name, length) => {
                    sink.text(&text[at..start]);
                    return self.open(name, start + length, sink);
                }
            }
        }
        sink.text(&text[at..]);
        Step::Wait(text.len())
    }

    fn open(&mut self, name: String, next: usize, sink: &mut Sink) -> Step {
        sink.opened(Some(&name));
        self.state = State::Call(Call { name, ..Call::default() });
        Step::On(next)
    }

    fn opening(&self, text: &str, at_end: bool) -> Opening {
        let wait = if at_end { Opening::No } else { Opening::Partial };
        let (rest, tagged) = match prefix(text, CALL_OPEN) {
            Prefix::Full(rest) => (rest.trim_start(), true),
            Prefix::Partial => return wait,
            Prefix::No => (text, false),
        };
        let rest = match prefix(rest, FUNCTION_OPEN) {
            Prefix::Full(rest) => rest,
            Prefix::Partial => return wait,
            Prefix::No => return Opening::No,
        };
        match name(rest) {
            Name::Is(name, after) if tagged || self.tools.knows(name) => {
                Opening::Call(name.into(), text.len() - after.len())
            }
            Name::Partial(_) if tagged && at_end => Opening::Cut,
            Name::Partial(name) if tagged || self.tools.begins_name(name.trim()) => wait,
            _ => Opening::No,
        }
    }

    /// Inside a call, outside a value.
    fn between(&mut self, mut call: Call, text: &str, at: usize, at_end: bool, sink: &mut Sink) -> Step {
        let rest = text[at..].trim_start();
        let place = text.len() - rest.len();
        for close in [FUNCTION_CLOSE, CALL_CLOSE] {
            if rest.starts_with(close) {
                self.complete(call, sink);
                return Step::On(place + close.len());
            }
        }
        let mut wait = [FUNCTION_CLOSE, CALL_CLOSE, PARAMETER_OPEN].iter().any(|tag| tag.starts_with(rest));
        if let Some(after) = rest.strip_prefix(PARAMETER_OPEN) {
            match name(after) {
                Name::Is(name, value) => {
                    call.parameter = Some(name.into());
                    self.state = State::Call(call);
                    return Step::On(text.len() - value.len());
                }
                Name::Partial(_) => wait = true,
                Name::No => {}
            }
        }
        match self.opening(rest, at_end) {
            Opening::Call(name, length) => {
                sink.failed(format!("the call to `{}` was not closed, so it was not run", call.name));
                return self.open(name, place + length, sink);
            }
            Opening::Partial => wait = true,
            Opening::Cut | Opening::No => {}
        }
        if wait {
            if at_end {
                sink.cut_off(Some(&call.name));
                return Step::Wait(text.len());
            }
            self.state = State::Call(call);
            return Step::Wait(place);
        }
        call.stray = true;
        self.state = State::Call(call);
        let skipped = rest.char_indices().skip(1).find(|(_, c)| *c == '<').map_or(rest.len(), |(i, _)| i);
        Step::On(place + skipped)
    }

    /// Inside a value that began at `at`.
    fn value(&mut self, mut call: Call, text: &str, at: usize, at_end: bool, sink: &mut Sink) -> Step {
        let mut from = self.scanned.max(at);
        let end = loop {
            let Some(found) = text[from..].find('<') else {
                from = text.len();
                break None;
            };
            from += found;
            match self.ends_value(&text[from..], at_end) {
                Some(true) => break Some(from),
                Some(false) => from += 1,
                None => break None,
            }
        };
        let end = end.or_else(|| if at_end { last_resort(&text[at..]).map(|end| at + end) } else { None });
        let Some(end) = end else {
            if at_end {
                sink.cut_off(Some(&call.name));
                return Step::Wait(text.len());
            }
            self.state = State::Call(call);
            self.scanned = from;
            return Step::Wait(at);
        };
        if let Some(parameter) = call.parameter.take() {
            call.arguments.push((parameter, text[at..end].into()));
        }
        self.state = State::Call(call);
        Step::On(if text[end..].starts_with(PARAMETER_CLOSE) { end + PARAMETER_CLOSE.len() } else { end })
    }

    /// Does the value end at this `<`? `None`: more text is needed.
    fn ends_value(&self, text: &str, at_end: bool) -> Option<bool> {
        if let Prefix::Full(rest) = prefix(text, PARAMETER_CLOSE) {
            let rest = rest.trim_start();
            if rest.is_empty() {
                return if at_end { Some(true) } else { None };
            }
            return any_of(rest, &[PARAMETER_OPEN, FUNCTION_CLOSE, CALL_CLOSE], at_end);
        }
        // Without its own closing tag a value ends before the next call's opening.
        let (rest, closed) = match prefix(text, FUNCTION_CLOSE) {
            Prefix::Full(rest) => (rest.trim_start(), true),
            _ => (text, false),
        };
        let (rest, closed) = match prefix(rest, CALL_CLOSE) {
            Prefix::Full(rest) => (rest.trim_start(), true),
            _ => (rest, closed),
        };
        if !closed {
            return any_of(text, &[PARAMETER_CLOSE, FUNCTION_CLOSE, CALL_CLOSE], at_end).map(|_| false);
        }
        if !at_end && CALL_CLOSE.starts_with(rest) {
            return None;
        }
        match self.opening(rest, at_end) {
            Opening::Call(..) => Some(true),
            Opening::Partial => None,
            Opening::Cut | Opening::No => Some(false),
        }
    }

    fn complete(&mut self, mut call: Call, sink: &mut Sink) {
        let parameters = self.tools.parameters(&call.name);
        let mut at = 0;
        while at < call.arguments.len() {
            if let Some((cut, name, value)) = unclosed(&call.arguments, at, parameters) {
                let rest = call.arguments[at].1.split_off(cut).split_off(value - cut);
                call.arguments.insert(at + 1, (name, rest));
            }
            at += 1;
        }
        let mut arguments = Map::new();
        for (name, raw) in call.arguments {
            let text = raw.strip_prefix('\n').unwrap_or(&raw);
            let text = text.strip_suffix('\n').unwrap_or(text);
            let value = convert::from_text(text, &name, parameters);
            arguments.insert(name, value);
        }
        if call.stray {
            sink.problem(format!(
                "in the call to `{}`, text outside of <parameter=...> was ignored",
                call.name
            ));
        }
        sink.call(&call.name, arguments);
    }
}

/// A parameter opened inside the value of argument `at`: where its tag begins, its name, where its value begins.
/// Where the value began on its own line the tag must too.
fn unclosed(
    arguments: &[(String, String)],
    at: usize,
    parameters: &serde_json::Value,
) -> Option<(usize, String, usize)> {
    let raw = &arguments[at].1;
    let own_line = |start: usize| {
        let before = raw[..start].trim_end_matches([' ', '\t']);
        !raw.starts_with('\n') || before.ends_with('\n')
    };
    raw.match_indices(PARAMETER_OPEN).find_map(|(start, tag)| {
        let Name::Is(name, rest) = name(&raw[start + tag.len()..]) else { return None };
        let known = schema::named_parameter(parameters, name).is_some();
        let given = arguments.iter().any(|(other, _)| other == name);
        (known && !given && own_line(start)).then(|| (start, name.to_string(), raw.len() - rest.len()))
    })
}

/// At the end of all text: the closing tag that a value without `</parameter>` ends before.
fn last_resort(text: &str) -> Option<usize> {
    let closes_function = |(i, tag): &(usize, &str)| {
        let rest = text[i + tag.len()..].trim_start();
        rest.is_empty() || rest.starts_with(CALL_CLOSE)
    };
    let closes_call = |(i, tag): &(usize, &str)| text[i + tag.len()..].trim_start().is_empty();
    let function = text.match_indices(FUNCTION_CLOSE).find(closes_function);
    function.or_else(|| text.match_indices(CALL_CLOSE).find(closes_call)).map(|(i, _)| i)
}

/// Does `text` begin with one of `tags`? `None`: more text is needed.
fn any_of(text: &str, tags: &[&str], at_end: bool) -> Option<bool> {
    if tags.iter().any(|tag| text.starts_with(tag)) {
        Some(true)
    } else if !at_end && tags.iter().any(|tag| tag.starts_with(text)) {
        None
    } else {
        Some(false)
    }
}

enum Name<'a> {
    /// The name, and what follows its `>`.
    Is(&'a str, &'a str),
    Partial(&'a str),
    No,
}

/// The name in a tag such as `<function=NAME>`, from after the `=`.
fn name(text: &str) -> Name<'_> {
    match text.find(['>', '<', '\n']) {
        Some(end) if end <= MAX_NAME && text[end..].starts_with('>') => match text[..end].trim() {
            "" => Name::No,
            name => Name::Is(name, &text[end + 1..]),
        },
        None if text.len() <= MAX_NAME => Name::Partial(text.trim_start()),
        _ => Name::No,
    }
}
