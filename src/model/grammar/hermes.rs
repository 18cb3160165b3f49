//! The JSON calls of the Hermes formats: within tags in one style to the letter; as a bare or fenced object, which small
//! models write, in the white space that they chose. An object that only looks like a call is text to the parser, up to
//! its last brace, and so it is here.

use super::json::{Json, Step};
use super::live::Rule;
use super::live::Value;
use super::machine::{At, Literal, Machine, State, Style, Text, is_blank, matched};
use super::names::Pick;
use super::utf8::{Wide, WideStep};

/// White space between two marks, where it is free.
const MOST_SPACE: u8 = 48;

/// How much of a tag's beginning has come; `None` at its end. In an object that is not closed a call would be read or
/// not for what follows: it waits.
fn begun(tag: u8, byte: u8) -> Option<u8> {
    match matched(OPENS, tag, byte) {
        Some(true) => None,
        Some(false) => Some(tag + 1),
        None => Some(u8::from(byte == b'<')),
    }
}

/// White space that is none in JSON.
fn is_strange(byte: u8) -> bool {
    matches!(byte, 0x0b | 0x0c)
}

/// Before a mark of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spot {
    mark: Mark,
    /// White space since the last one, and how much of the mark itself came.
    space: u8,
    came: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Mark {
    NameComma,
    ArgumentsKey,
    ArgumentsColon,
    ArgumentsOpen,
    FirstKey,
    KeyColon,
    Value,
    Next,
    NextKey,
    Close,
    Fence,
}

impl Mark {
    /// Blanks that stand before it where there is no choice.
    fn blanks(self) -> u8 {
        match self {
            Mark::ArgumentsKey | Mark::ArgumentsOpen | Mark::Value | Mark::NextKey => 1,
            _ => 0,
        }
    }
}

impl Spot {
    fn at(mark: Mark) -> Self {
        Self { mark, space: 0, came: 0 }
    }

    pub fn after_name() -> Self {
        Self::at(Mark::NameComma)
    }
}

/// An object outside of tags, from its brace on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Object {
    fenced: bool,
    part: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    /// After the brace or two; white space moved on, over a line break.
    Brace {
        double: bool,
        moved: bool,
        line: bool,
        wide: Wide,
        /// White space came that is none in JSON.
        strange: bool,
    },
    /// In the first key: its number in `KEYS` and how much came. `odd`: not as a call is written.
    Key {
        quote: u8,
        odd: bool,
        number: u8,
        came: u8,
    },
    /// After the key `name`, before its value.
    Colon {
        came: bool,
    },
    Name(Pick),
    /// In a name that is no tool's, and to the key after it.
    OtherName {
        escaped: bool,
        tag: u8,
    },
    OtherComma,
    OtherQuote,
    OtherKey {
        number: u8,
        came: u8,
    },
    /// Text to the last brace. No string in it is the name of a tool (the parser finds calls in more shapes than ours), or
    /// the word that a call has for its arguments.
    Rest {
        depth: u8,
        quote: u8,
        escaped: bool,
        tag: u8,
        name: Option<Pick>,
        /// So much of that word; `NO_WORD`: it is another.
        word: u8,
    },
}

/// What `<tool_call>` and `<tools>` begin with.
const OPENS: &[u8] = b"<tool";
const ARGUMENTS: &[u8] = b"arguments";
/// The string that is open is another word.
const NO_WORD: u8 = u8::MAX;
const KEYS: [&[u8]; 5] = [b"name", b"arguments", b"parameters", b"type", b"function"];

impl Object {
    pub fn new(fenced: bool) -> Self {
        Self {
            fenced,
            part: Part::Brace {
                double: false,
                moved: false,
                line: false,
                wide: Wide::default(),
                strange: false,
            },
        }
    }

    /// From the quote of its first key on, amid a line, where the parser reads no call.
    pub fn inline(names: Pick) -> Self {
        let part = Part::Rest { depth: 1, quote: b'"', escaped: false, tag: 0, name: Some(names), word: 0 };
        Self { fenced: false, part }
    }

    /// It must become a call: a bare object with a name is one.
    pub fn is_call(&self) -> bool {
        !self.fenced && matches!(self.part, Part::Colon { .. } | Part::Name(_))
    }

    /// What is refused here holds a brace, a quote, a backtick or `<`, or begins with a byte given.
    pub fn is_free(&self) -> Option<Vec<u8>> {
        match self.part {
            Part::Rest { tag, .. } | Part::OtherName { tag, .. } if tag > 0 => {
                Some(vec![OPENS[usize::from(tag)]])
            }
            _ if self.is_call() => None,
            _ => Some(Vec::new()),
        }
    }
}

impl Machine<'_> {
    pub(super) fn object(&self, state: &State, object: Object, byte: u8) -> Option<State> {
        let to = |part: Part| Some(state.to(At::Text(Text::Object(Object { part, ..object }))));
        let text = |line: bool| self.again(state, Text::Plain(line), byte);
        let rest =
            |quote: u8| Part::Rest { depth: 1, quote, escaped: false, tag: 0, name: None, word: NO_WORD };
        let as_rest = |quote: u8| self.object(state, Object { part: rest(quote), ..object }, byte);
        match object.part {
            Part::Brace { double, moved, line, wide, strange } => match (byte, wide.step(byte)) {
                (_, WideStep::On(wide)) => to(Part::Brace { double, moved: true, line, wide, strange }),
                (_, WideStep::Blank) => {
                    to(Part::Brace { double, moved: true, line, wide: Wide::default(), strange: true })
                }
                _ if wide != Wide::default() => text(false),
                (b'{', _) if !double && !moved => {
                    to(Part::Brace { double: true, moved, line, wide, strange })
                }
                (b'"' | b'\'', _) => {
                    let odd = double || strange || byte == b'\'';
                    to(Part::Key { quote: byte, odd, number: 0, came: 0 })
                }
                _ if is_blank(byte) => {
                    let (line, strange) = (line || byte == b'\n', strange || is_strange(byte));
                    to(Part::Brace { double, moved: true, line, wide, strange })
                }
                _ => text(line),
            },
            Part::Key { quote, odd, number, came } => {
                // An object with other keys is no call to the parser, and must not be one to the model either
                // (`{"function_name": "edit", ...}`). In a fence it may be any JSON, unless its first key begins as a
                // call's does.
                let other = || if object.fenced && came == 0 { text(false) } else { as_rest(quote) };
                if came == 0 {
                    // Their first letters differ.
                    return match (0u8..).zip(KEYS).find(|(_, key)| key.first() == Some(&byte)) {
                        Some((number, _)) => to(Part::Key { quote, odd, number, came: 1 }),
                        None => other(),
                    };
                }
                let key = KEYS[usize::from(number)];
                if usize::from(came) < key.len() {
                    return match matched(key, came, byte) {
                        Some(_) => to(Part::Key { quote, odd, number, came: came + 1 }),
                        None => other(),
                    };
                }
                match (byte == quote, number) {
                    (false, _) => other(),
                    (true, 0) if !odd => to(Part::Colon { came: false }),
                    // What else a call might begin with: it is written name first.
                    (true, 3) if !odd => to(rest(0)),
                    (true, _) => None,
                }
            }
            Part::Colon { came } => match byte {
                b':' if !came => to(Part::Colon { came: true }),
                b'"' if came => to(Part::Name(self.rules.tool_names.start())),
                _ if is_strange(byte) => None,
                _ if is_blank(byte) => to(Part::Colon { came }),
                _ if object.fenced => as_rest(0),
                _ => None,
            },
            Part::Name(pick) => {
                let names = &self.rules.tool_names;
                if byte == b'"'
                    && let Some(tool) = names.exact(pick)
                {
                    let style = if object.fenced { Style::Fenced } else { Style::Bare };
                    let state = State { tool, ..Self::fresh(state, style) };
                    return Some(state.to(At::Spot(Spot::after_name())));
                }
                match names.step(pick, byte, |_| true) {
                    Some(next) => to(Part::Name(next)),
                    None if object.fenced => self.object(
                        state,
                        Object { part: Part::OtherName { escaped: false, tag: 0 }, ..object },
                        byte,
                    ),
                    None => None,
                }
            }
            Part::OtherName { escaped, tag } => {
                let tag = begun(tag, byte)?;
                match byte {
                    _ if escaped => to(Part::OtherName { escaped: false, tag }),
                    b'\\' => to(Part::OtherName { escaped: true, tag }),
                    b'"' => to(Part::OtherComma),
                    _ => to(Part::OtherName { escaped: false, tag }),
                }
            }
            Part::OtherComma => match byte {
                b',' => to(Part::OtherQuote),
                _ if is_blank(byte) => to(Part::OtherComma),
                _ => as_rest(0),
            },
            Part::OtherQuote => match byte {
                b'"' => to(Part::OtherKey { number: 0, came: 0 }),
                _ if is_blank(byte) => to(Part::OtherQuote),
                _ => as_rest(0),
            },
            Part::OtherKey { number, came } => {
                let mut keys = (1u8..3).filter(|key| came == 0 || *key == number);
                match keys.find(|key| KEYS[usize::from(*key)].get(usize::from(came)) == Some(&byte)) {
                    Some(number) => to(Part::OtherKey { number, came: came + 1 }),
                    // An object with a name and arguments is a call: of a tool that is none.
                    None if came > 0
                        && byte == b'"'
                        && usize::from(came) == KEYS[usize::from(number)].len() =>
                    {
                        None
                    }
                    None => as_rest(b'"'),
                }
            }
            Part::Rest { depth, quote, escaped, tag, name, word } => {
                let tag = begun(tag, byte)?;
                let names = &self.rules.tool_names;
                let begun = |name: Option<Pick>, word: u8, quote: u8| {
                    to(Part::Rest { depth, quote, escaped: false, tag, name, word })
                };
                let on = |depth: u8, quote: u8, escaped: bool| {
                    to(Part::Rest { depth, quote, escaped, tag, name: None, word: NO_WORD })
                };
                let is_call =
                    || name.is_some_and(|pick| names.exact(pick).is_some()) || word == ARGUMENTS.len() as u8;
                match (quote, byte) {
                    (1.., _) if escaped => on(depth, quote, false),
                    (1.., b'\\') => on(depth, quote, true),
                    (1.., _) if byte == quote && is_call() => None,
                    // A quote that was left out turns what is a string and what is not around: both are looked at.
                    (1.., _) if byte == quote => begun(Some(names.start()), 0, 0),
                    (0, b'"' | b'\'') if is_call() => None,
                    (0, b'"' | b'\'') => begun(Some(names.start()), 0, byte),
                    (0, b'{') => on(depth.checked_add(1)?, 0, false),
                    (0, b'}') if depth <= 1 => Some(state.to(At::Text(Text::Plain(false)))),
                    (0, b'}') => on(depth - 1, 0, false),
                    _ => {
                        let word = matched(ARGUMENTS, word, byte).map_or(NO_WORD, |_| word + 1);
                        begun(name.and_then(|pick| names.step(pick, byte, |_| true)), word, quote)
                    }
                }
            }
        }
    }

    /// Reads a byte as ordinary text.
    fn again(&self, state: &State, text: Text, byte: u8) -> Option<State> {
        use super::trie::Automaton;
        self.step(&state.to(At::Text(text)), byte)
    }

    pub(super) fn spot(&self, state: &State, mut spot: Spot, byte: u8) -> Option<State> {
        if spot.came == 0 {
            if state.style != Style::Tagged {
                let blank = byte == b' ' || (byte == b'\n' && spot.space == 0);
                if blank && spot.space < MOST_SPACE {
                    spot.space += 1;
                    return Some(state.to(At::Spot(spot)));
                }
            } else if spot.space < spot.mark.blanks() {
                spot.space += 1;
                return (byte == b' ').then(|| state.to(At::Spot(spot)));
            }
        }
        let to = |mark: Mark| Some(state.to(At::Spot(Spot::at(mark))));
        let tool = self.called(state)?;
        let more = || Self::may_give_any(tool, state);
        match (spot.mark, byte) {
            (Mark::NameComma, b',') => to(Mark::ArgumentsKey),
            (Mark::ArgumentsKey, _) => match matched(b"\"arguments\"", spot.came, byte)? {
                true => to(Mark::ArgumentsColon),
                false => Some(state.to(At::Spot(Spot { came: spot.came + 1, ..spot }))),
            },
            (Mark::ArgumentsColon, b':') => to(Mark::ArgumentsOpen),
            (Mark::ArgumentsOpen, b'{') => to(Mark::FirstKey),
            (Mark::FirstKey | Mark::NextKey, b'"') if more() => Some(state.to(At::Key(tool.names.start()))),
            (Mark::Next, b',') if more() => to(Mark::NextKey),
            (Mark::FirstKey | Mark::Next, b'}') if self.may_close(state) => match state.style {
                Style::Tagged => Some(state.to(At::Literal(Literal::HermesClose, 0))),
                Style::Bare | Style::Fenced => to(Mark::Close),
            },
            (Mark::KeyColon, b':') => to(Mark::Value),
            (Mark::Value, _) => {
                let parameter = self.current(state)?;
                let held = self.held(state, parameter.rule);
                let mut json = Json::new(parameter.node, state.style != Style::Tagged, held);
                json.everywhere = state.everywhere;
                json.count = parameter.rule == Rule::Count;
                self.argument(&State { json: Some(json), ..state.to(At::Argument) }, byte)
            }
            (Mark::Close, b'}') if state.style == Style::Bare => {
                Some(Self::fresh(state, Style::Bare).to(At::End))
            }
            (Mark::Close, b'}') => to(Mark::Fence),
            (Mark::Fence, _) => match matched(b"```", spot.came, byte)? {
                true => Some(Self::fresh(state, Style::Fenced).to(At::End)),
                false => Some(state.to(At::Spot(Spot { came: spot.came + 1, ..spot }))),
            },
            _ => None,
        }
    }

    pub(super) fn key(&self, state: &State, pick: Pick, byte: u8) -> Option<State> {
        let tool = self.called(state)?;
        let free = |number: u16| Self::may_give(tool, state, number);
        if byte == b'"'
            && let Some(parameter) = tool.names.exact(pick).filter(|number| free(*number))
        {
            return Some(State { parameter, ..state.to(At::Spot(Spot::at(Mark::KeyColon))) });
        }
        Some(state.to(At::Key(tool.names.step(pick, byte, free)?)))
    }

    pub(super) fn argument(&self, state: &State, byte: u8) -> Option<State> {
        let json = state.json?;
        match json.step(&self.rules.nodes, self.live, byte) {
            Step::On(json) if json.is_done() => {
                let next = self.given(state, json.text, json.truth);
                Some(next.to(At::Spot(Spot::at(Mark::Next))))
            }
            Step::On(json) => Some(State { json: Some(json), ..*state }),
            Step::Past => {
                let next = self.given(state, Value::Free, json.truth);
                self.spot(&next, Spot::at(Mark::Next), byte)
            }
            Step::Refused => None,
        }
    }
}
