//! The XML calls of Qwen3-Coder. What is hard here is where a value ends: its text is not escaped, so the automaton
//! follows the parser's rule of what closes a value and what is part of it, and refuses a text that the parser would
//! not give back. Beyond that rule, what looks like the end of a value is one: after a line that ends in
//! `</parameter>` the call goes on, and no line begins with the end of a call, unless the text itself opened such an
//! element. A value that is held to the workspace must also be closed in the one canonical way.

use super::json::{Json, Step};
use super::live::{Live, Rule, Value};
use super::machine::{At, Literal, Machine, State, continuations, is_blank, matched};
use super::names::Pick;
use super::source::{Source, Span};
use super::trie::Kind;
use super::utf8::{Wide, WideStep};
use std::rc::Rc;

/// Before `<parameter=` or `</function>`: so much of either came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Between {
    came: u8,
    closes: bool,
}

const PARAMETER: &[u8] = b"<parameter=";
const FUNCTION_CLOSE: &[u8] = b"</function>";

/// Tags that mean something within a value; the last ones only open an element of the text itself.
const TAGS: [&[u8]; 10] = [
    b"</parameter>",
    b"</function>",
    b"</tool_call>",
    b"<parameter=",
    b"<function=",
    b"<tool_call>",
    b"<parameter>",
    b"<parameter ",
    b"<function>",
    b"<function ",
];
/// States that are looked at to see whether a value can be closed; beyond, it is taken to.
const LOOKS: usize = 500;
/// Bytes of a closing tag that tell it from others that a text may hold: `</fu`, `</to`.
const TELLS: u8 = 4;

/// What stood before this place of a value, with nothing but white space since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum After {
    #[default]
    Text,
    /// `</parameter>`
    Value,
    /// `</parameter>` and the end of the line: the call goes on.
    Due,
    /// `</parameter>` that closes an element of the text.
    Element,
    /// `</function>` or `</tool_call>`
    Call,
    /// These, and `<tool_call>`.
    Opening,
}

/// Within a value that is text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Content {
    /// The text as part of the value; `None` where it can only be the value's end.
    text: Option<Held>,
    /// The value if it ended before the line break of the canonical close, of which `closing` bytes came.
    before: Value,
    closing: u8,
    /// Of the two ways the close goes on.
    next: Between,
}

/// Text of a value: what is allowed of it, and what the parser would see in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Held {
    value: Value,
    /// A tag of `TAGS` and how much of it came.
    tag: u8,
    came: u8,
    after: After,
    /// Only blanks on this line so far.
    line: bool,
    wide: Wide,
    /// A parameter's name, after its tag within the value.
    name: Option<Pick>,
    /// Elements that the text opened and did not close: `parameter`, `function`, `tool_call`.
    open: [u8; 3],
}

const CLOSE: &[u8] = b"\n</parameter>\n";

/// Does a text hold anything that means something within a value?
pub fn has_tags(text: &str) -> bool {
    TAGS[..6].iter().any(|tag| text.contains(&*String::from_utf8_lossy(tag)))
}

impl Content {
    fn new(value: Value) -> Self {
        let text = Held {
            value,
            tag: 0,
            came: 0,
            after: After::Text,
            line: true,
            wide: Wide::default(),
            name: None,
            open: [0; 3],
        };
        Self { text: Some(text), before: value, closing: 0, next: Between::default() }
    }

    /// What means something here, and how a tag that has begun goes on; as in `State::is_free`.
    pub fn is_free(&self, live: Option<&Live<'_>>) -> Option<(Kind, Vec<u8>)> {
        if let Some(Held { value: value @ Value::Path(..), came: 0, after: After::Text, .. }) = self.text {
            return live?.is_free(value).map(|tag| (Kind::Names, tag));
        }
        let text = self
            .text
            .filter(|text| text.value == Value::Free && text.name.is_none() && text.after != After::Due)?;
        let kind = if text.after == After::Text { Kind::Tags } else { Kind::Lines };
        let tag = if text.came > 0 { continuations(&TAGS, text.tag, text.came) } else { Vec::new() };
        Some((kind, tag))
    }

    pub fn is_live(&self) -> bool {
        self.before != Value::Free || self.text.is_some_and(|text| text.value != Value::Free)
    }

    /// The value, where its text goes on and no close has begun.
    pub fn value(&self) -> Option<Value> {
        self.text.filter(|text| text.came == 0 && self.closing == 0).map(|text| text.value)
    }
}

/// What a byte of the text comes to.
enum Within {
    Text(Held),
    /// The parser sees the value's end before a tag that is now complete.
    Ended {
        closes: bool,
    },
    Refused,
}

impl Machine<'_> {
    pub(super) fn between(&self, state: &State, between: Between, byte: u8) -> Option<State> {
        let tool = self.called(state)?;
        let more = Self::may_give_any(tool, state);
        match between.step(byte, more, self.may_close(state))? {
            Ok(between) => Some(state.to(At::Between(between))),
            Err(true) => Some(state.to(At::Literal(Literal::CallClose, 0))),
            Err(false) => Some(state.to(At::Parameter(tool.names.start()))),
        }
    }

    pub(super) fn parameter(&self, state: &State, pick: Pick, byte: u8) -> Option<State> {
        let tool = self.called(state)?;
        let free = |number: u16| Self::may_give(tool, state, number);
        if byte == b'>'
            && let Some(parameter) = tool.names.exact(pick).filter(|number| free(*number))
        {
            return Some(State { parameter, ..state.to(At::Literal(Literal::ValueBreak, 0)) });
        }
        Some(state.to(At::Parameter(tool.names.step(pick, byte, free)?)))
    }

    pub(super) fn begin_value(&self, state: &State) -> Option<State> {
        let parameter = self.current(state)?;
        let node = self.rules.nodes.get(parameter.node);
        if let Some(texts) = &node.texts {
            return Some(state.to(At::Choice(texts.start())));
        }
        if parameter.is_text {
            let held = state.to(At::Content(Content::new(self.held(state, parameter.rule))));
            // Where no text of the file could be closed, the tool says what is wrong.
            return Some(match self.can_end(&held) {
                true => held,
                false => state.to(At::Content(Content::new(Value::Free))),
            });
        }
        let mut json = Json::new(parameter.node, false, Value::Free);
        json.count = parameter.rule == Rule::Count;
        json.in_xml = true;
        Some(State { json: Some(json), ..state.to(At::Typed) })
    }

    pub(super) fn choice(&self, state: &State, pick: Pick, byte: u8) -> Option<State> {
        let texts = self.rules.nodes.get(self.current(state)?.node).texts.as_ref()?;
        if let Some(next) = texts.step(pick, byte, |_| true) {
            return Some(state.to(At::Choice(next)));
        }
        texts.exact(pick)?;
        let next = self.given(state, Value::Free, false);
        (byte == b'\n').then(|| next.to(At::Literal(Literal::ParameterClose, 1)))
    }

    pub(super) fn typed(&self, state: &State, byte: u8) -> Option<State> {
        let json = state.json?;
        // As the templates print it, and as JSON.
        match json.step(&self.rules.nodes, self.live, if json.is_untouched() { python(byte) } else { byte }) {
            Step::On(json) => Some(State { json: Some(json), ..*state }),
            Step::Past => {
                let next = self.given(state, Value::Free, json.truth);
                (byte == b'\n').then(|| next.to(At::Literal(Literal::ParameterClose, 1)))
            }
            Step::Refused => None,
        }
    }

    pub(super) fn content(&self, state: &State, content: Content, byte: u8) -> Option<State> {
        self.content_step(state, content, byte).filter(|next| self.can_end(next))
    }

    /// The file that a value is text of, where that holds tags, and the text so far.
    fn tagged(&self, state: &State) -> Option<(Rc<Source>, Span)> {
        let At::Content(Content { text: Some(Held { value: Value::Text(file, span), .. }), .. }) = state.at
        else {
            return None;
        };
        self.live?.source(file).filter(|source| source.has_tags()).map(|source| (source, span))
    }

    /// Can a value that is held to a file still be closed? Not a matter of course where the file holds tags: the text
    /// that tells a place from another may be one that the parser would not give back.
    fn can_end(&self, state: &State) -> bool {
        if self.tagged(state).is_none() {
            return true;
        }
        let mut waiting = vec![*state];
        let mut looks = 0;
        while let Some(state) = waiting.pop() {
            let Some((source, span)) = self.tagged(&state) else { return true };
            looks += 1;
            if looks > LOOKS || self.can_close(&state) {
                return true;
            }
            let At::Content(content) = state.at else { return true };
            let next = source.next(span).into_iter();
            waiting.extend(next.filter_map(|byte| self.content_step(&state, content, byte)));
        }
        false
    }

    /// Is the value complete as it stands?
    fn can_close(&self, state: &State) -> bool {
        let on = |state: State, bytes: &[u8]| {
            bytes.iter().try_fold(state, |state, byte| match state.at {
                At::Content(content) => self.content_step(&state, content, *byte),
                _ => Some(state),
            })
        };
        let closed = on(*state, CLOSE);
        let ends = |tag: &[u8]| {
            closed.and_then(|state| on(state, tag)).is_some_and(|state| !matches!(state.at, At::Content(_)))
        };
        ends(PARAMETER) || ends(FUNCTION_CLOSE)
    }

    fn content_step(&self, state: &State, content: Content, byte: u8) -> Option<State> {
        // Most bytes are none of what the value is held to, and most of a walk is to find that out.
        let value = content.text.map_or(Value::Free, |text| text.value);
        if value != Value::Free && content.closing == 0 && byte != b'\n' {
            self.live?.step(value, byte)?;
        }
        let utf8 = state.utf8.step(byte);
        let text = match (content.text, utf8) {
            (Some(text), Some(_)) => self.within(state, text, byte),
            _ => Within::Refused,
        };
        if let Within::Ended { closes } = text {
            // A free text may end as the parser takes it; another one where its canonical close does.
            let value = match content.text?.value {
                Value::Free => Value::Free,
                _ if content.closes(byte) => content.before,
                _ => return None,
            };
            return self.after_value(state, value, closes);
        }
        let mut next = content;
        next.text = if let Within::Text(text) = text { Some(text) } else { None };
        // The close, as far as it came; a value may end before this line break.
        let tool = self.called(state)?;
        let after = self.given(state, content.before, false);
        let more = Self::may_give_any(tool, &after);
        if usize::from(content.closing) == CLOSE.len() {
            match content.next.step(byte, more, self.may_close(&after)) {
                Some(Ok(between)) => next.next = between,
                // Where the text is none of the file's, only the close goes on.
                Some(Err(closes)) => return self.after_value(state, content.before, closes),
                None => next.drop_close(),
            }
        } else if content.closing > 0 && matched(CLOSE, content.closing, byte).is_some() {
            next.closing += 1;
        } else {
            next.drop_close();
            let value = content.text.map(|text| text.value);
            let ends = |value: &Value| match self.live {
                Some(live) => live.may_end(*value, state.everywhere),
                None => true,
            };
            if byte == b'\n'
                && state.utf8.is_whole()
                && let Some(value) = value.filter(ends)
            {
                next.closing = 1;
                next.before = value;
            }
        }
        if next.text.is_none() && next.closing == 0 {
            return None;
        }
        let utf8 = utf8.unwrap_or_default();
        Some(State { utf8, ..state.to(At::Content(next)) })
    }

    fn after_value(&self, state: &State, value: Value, closes: bool) -> Option<State> {
        let tool = self.called(state)?;
        let next = self.given(state, value, false);
        match closes {
            true if self.may_close(&next) => Some(next.to(At::Literal(Literal::CallClose, 0))),
            false if Self::may_give_any(tool, &next) => Some(next.to(At::Parameter(tool.names.start()))),
            _ => None,
        }
    }

    /// A byte of a value's text.
    fn within(&self, state: &State, held: Held, byte: u8) -> Within {
        let value = match (held.value, self.live) {
            (Value::Free, _) => Value::Free,
            (value, Some(live)) => match live.step(value, byte) {
                Some(value) => value,
                None => return Within::Refused,
            },
            (_, None) => return Within::Refused,
        };
        self.follow(state, Held { value, ..held }, byte)
    }

    /// What the parser would see.
    fn follow(&self, state: &State, mut held: Held, byte: u8) -> Within {
        if let Some(pick) = held.name {
            return self.quoted_name(state, held, pick, byte);
        }
        if held.came > 0 {
            let so_far = &TAGS[usize::from(held.tag)][..usize::from(held.came)];
            for (number, tag) in (0u8..).zip(TAGS).filter(|(_, tag)| tag.starts_with(so_far)) {
                if matched(tag, held.came, byte).is_none() {
                    continue;
                }
                let came = held.came + 1;
                if !self.may_be_tag(state, &held, number, came) {
                    return Within::Refused;
                }
                if usize::from(came) == tag.len() {
                    return self.tag(state, Held { came: 0, tag: 0, ..held }, number);
                }
                return Within::Text(Held { tag: number, came, ..held });
            }
            if held.after == After::Due {
                return Within::Refused;
            }
            held.came = 0;
            held.tag = 0;
            held.after = After::Text;
            held.line = false;
        }
        if held.after == After::Due && byte != b'<' {
            return Within::Refused;
        }
        // The parser's white space is Unicode's.
        match held.wide.step(byte) {
            WideStep::On(wide) if held.after != After::Text => held.wide = wide,
            WideStep::Blank if held.after != After::Text => {
                held.wide = Wide::default();
                held.line = false;
            }
            _ => {
                held.wide = Wide::default();
                match byte {
                    b'<' => held.came = 1,
                    _ if is_blank(byte) => {
                        held.line = byte == b'\n' || held.line && matches!(byte, b' ' | b'\t');
                        if byte == b'\n'
                            && held.after == After::Value
                            && held.value == Value::Free
                            && self.goes_on(state) != (false, false)
                        {
                            held.after = After::Due;
                        }
                    }
                    _ => {
                        held.after = After::Text;
                        held.line = false;
                    }
                }
            }
        }
        Within::Text(held)
    }

    /// After the value: may a parameter come, and may the call close?
    fn goes_on(&self, state: &State) -> (bool, bool) {
        let next = self.given(state, Value::Free, false);
        let more = self.called(state).is_some_and(|tool| Self::may_give_any(tool, &next));
        (more, self.may_close(&next))
    }

    /// May the tag with this number come, of which there are `came` bytes now? What is refused early leaves text that
    /// only begins so.
    fn may_be_tag(&self, state: &State, held: &Held, number: u8, came: u8) -> bool {
        let after_value = matches!(held.after, After::Value | After::Element | After::Due);
        if held.after == After::Due {
            return match number {
                3 => self.goes_on(state).0,
                // `</` is common to all that close.
                0 | 1 if came <= 2 => self.goes_on(state).1,
                1 => self.goes_on(state).1,
                _ => false,
            };
        }
        if held.value != Value::Free || came != TELLS {
            return true;
        }
        let is_open = held.open.get(usize::from(number)).is_some_and(|open| *open > 0);
        match number {
            1 if after_value => self.goes_on(state).1,
            2 if after_value => false,
            1 | 2 => !held.line || is_open,
            _ => true,
        }
    }

    /// A tag is complete within a value.
    fn tag(&self, state: &State, mut held: Held, number: u8) -> Within {
        let (was, line) = (held.open, held.line);
        match number {
            0..=2 => held.open[usize::from(number)] = was[usize::from(number)].saturating_sub(1),
            6 | 7 => held.open[0] = was[0].saturating_add(1),
            4 | 8 | 9 => held.open[1] = was[1].saturating_add(1),
            5 => held.open[2] = was[2].saturating_add(1),
            _ => {}
        }
        let text = |after: After| Within::Text(Held { after, line: false, ..held });
        match (number, held.after) {
            // One that closes an element of the text is no end, but for the parser it may be.
            (0, _) if was[0] > 0 => text(After::Element),
            (0, _) => text(After::Value),
            (1, After::Value | After::Element | After::Due) => Within::Ended { closes: true },
            (3, After::Value | After::Element | After::Due) => Within::Ended { closes: false },
            (2, After::Value | After::Element) | (4, After::Call | After::Opening) => Within::Refused,
            (1 | 2, _) => text(After::Call),
            (5, After::Call) => text(After::Opening),
            (3, _) => match self.called(state) {
                Some(tool) if line => {
                    Within::Text(Held { name: Some(tool.names.start()), after: After::Text, ..held })
                }
                Some(_) => text(After::Text),
                None => Within::Refused,
            },
            _ => text(After::Text),
        }
    }

    /// In the name of a `<parameter=` within a value: where it stands on its own line, the parser takes it for one that
    /// was not closed if the call gives that parameter nowhere else.
    fn quoted_name(&self, state: &State, mut held: Held, pick: Pick, byte: u8) -> Within {
        let Some(tool) = self.called(state) else { return Within::Refused };
        let as_text = Held { name: None, line: false, ..held };
        let here = tool.names.exact(pick);
        let known = here.filter(|number| state.given >> number & 1 == 0 && *number != state.parameter);
        match byte {
            b'>' if known.is_some() => Within::Refused,
            // Blanks around a name do not count to the parser.
            _ if is_blank(byte) || byte >= 0x80 => Within::Refused,
            _ => match tool.names.step(pick, byte, |_| true) {
                Some(next) => {
                    held.name = Some(next);
                    Within::Text(held)
                }
                None => self.follow(state, as_text, byte),
            },
        }
    }
}

impl Between {
    /// Goes on, or is complete: `Err(true)` for the close of the call.
    fn step(self, byte: u8, more: bool, may_close: bool) -> Option<Result<Self, bool>> {
        for (closes, tag) in [(false, PARAMETER), (true, FUNCTION_CLOSE)] {
            let open = if closes { may_close } else { more };
            // The two part at their second byte.
            if !open || (self.came > 1 && self.closes != closes) {
                continue;
            }
            match matched(tag, self.came, byte) {
                Some(true) => return Some(Err(closes)),
                Some(false) => return Some(Ok(Self { came: self.came + 1, closes })),
                None => {}
            }
        }
        None
    }
}

impl Content {
    fn drop_close(&mut self) {
        self.closing = 0;
        self.before = Value::Free;
        self.next = Between::default();
    }

    /// Does the canonical close end with this byte?
    fn closes(&self, byte: u8) -> bool {
        usize::from(self.closing) == CLOSE.len() && matches!(self.next.step(byte, true, true), Some(Err(_)))
    }
}

/// `True` as `true`: the templates print the one, and models write either.
fn python(byte: u8) -> u8 {
    match byte {
        b'T' => b't',
        b'F' => b'f',
        _ => byte,
    }
}
