//! The automaton of an answer: what may follow, byte by byte. Free text until a call opens, in any way that the parser
//! takes for an opening; from there on a call of a known tool with its parameters, to its proper end. This file is the
//! state, the text before a call and what is common to both formats; `xml` and `hermes` are the calls of each.

use super::hermes::{self, Spot};
use super::json::Json;
use super::live::{Live, Rule, Value};
use super::names::{Names, Pick};
use super::schema::{NodeId, Nodes};
use super::trie::{Automaton, Kind};
use super::utf8::{Utf8, Wide, WideStep};
use super::xml::{self, Content};

/// A tool as calls of it are written.
#[derive(Debug)]
pub struct Tool {
    /// Names as they stand in the format.
    pub names: Names,
    pub parameters: Vec<Parameter>,
    pub required: u64,
}

#[derive(Debug)]
pub struct Parameter {
    pub node: NodeId,
    pub rule: Rule,
    /// A parameter that must stand before this one.
    pub after: Option<u16>,
    /// Its value stands as text in an XML call, not as JSON.
    pub is_text: bool,
}

/// All that does not change while an answer is written.
#[derive(Debug)]
pub struct Rules {
    pub xml: bool,
    /// The answer begins within the thinking.
    pub opens_think: bool,
    pub tool_names: Names,
    pub tools: Vec<Tool>,
    pub nodes: Nodes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum At {
    /// Outside of everything known: no mask.
    Off,
    /// White space so far, then perhaps a part of `<think>`.
    Start(u8),
    /// Matched so much of `</think>`.
    Think(u8),
    /// Free text.
    Text(Text),
    /// A text that must come, and how much of it has.
    Literal(Literal, u8),
    /// The name of a tool.
    Tool(Pick),
    /// XML: before `<parameter=` or `</function>`.
    Between(xml::Between),
    /// XML: a parameter's name.
    Parameter(Pick),
    /// XML: a value that is text, one of few texts, or JSON.
    Content(Content),
    Choice(Pick),
    Typed,
    /// Hermes: before a mark of the call.
    Spot(Spot),
    Key(Pick),
    Argument,
    /// After a call: another one, or the end.
    AfterCall(u8),
    /// Only the end.
    End,
}

/// Free text: what could become an opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Text {
    /// `true`: only white space on this line so far.
    Plain(bool),
    /// So much of the tag with this number.
    Tag(u8, u8),
    /// Backticks at the start of a line, and what follows three of them.
    Ticks(u8),
    FenceWord(u8),
    FenceLine,
    FenceGap,
    /// Behind a brace amid a line: with a quote next it begins an object, in which no call may be written. `true`: only white
    /// space on this line so far.
    Inline(bool),
    /// What may be white space beyond ASCII, and where it leads back to if it is.
    Wide(Wide, Before),
    /// An object that may be a call without its tag.
    Object(hermes::Object),
}

/// Where white space changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Before {
    Answer,
    Line,
    Fenced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Literal {
    /// To the name of the tool.
    XmlOpening,
    HermesOpening,
    /// From a tool's or parameter's name on.
    LineBreak,
    ValueBreak,
    /// From a typed value to what follows it.
    ParameterClose,
    CallClose,
    /// After the arguments.
    HermesClose,
}

impl Literal {
    pub fn text(self) -> &'static [u8] {
        match self {
            Literal::XmlOpening => b"\n<function=",
            Literal::HermesOpening => b"\n{\"name\": \"",
            Literal::LineBreak | Literal::ValueBreak => b"\n",
            Literal::ParameterClose => b"\n</parameter>\n",
            Literal::CallClose => b"\n</tool_call>",
            Literal::HermesClose => b"}\n</tool_call>",
        }
    }
}

/// How the open call was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) enum Style {
    #[default]
    Tagged,
    Bare,
    Fenced,
}

/// Where an answer stands. Equal states allow the same, in one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    pub(super) at: At,
    pub(super) style: Style,
    pub(super) tool: u16,
    pub(super) parameter: u16,
    /// A bit for each parameter given.
    pub(super) given: u64,
    /// The file that the call's path names.
    pub(super) file: Option<u16>,
    pub(super) everywhere: bool,
    pub(super) json: Option<Json>,
    pub(super) utf8: Utf8,
}

impl State {
    pub fn new(rules: &Rules) -> Self {
        let mut state = Self::off();
        state.at = At::Start(0);
        if rules.opens_think {
            state.at = At::Think(0);
        }
        state
    }

    pub fn off() -> Self {
        Self {
            at: At::Off,
            style: Style::Tagged,
            tool: u16::MAX,
            parameter: u16::MAX,
            given: 0,
            file: None,
            everywhere: false,
            json: None,
            utf8: Utf8::default(),
        }
    }

    pub(super) fn to(self, at: At) -> Self {
        Self { at, ..self }
    }

    /// No call is open.
    pub fn is_outside(&self) -> bool {
        matches!(self.at, At::Off | At::Start(_) | At::Think(_) | At::Text(_))
    }

    /// Within a value whose text the model chose.
    pub fn is_in_value(&self) -> bool {
        matches!(self.at, At::Content(_) | At::Argument | At::Typed | At::Choice(_))
    }

    /// The answer may end here.
    pub fn may_stop(&self) -> bool {
        self.is_outside() && !self.promises_call() || matches!(self.at, At::AfterCall(0 | 1) | At::End)
    }

    /// An object has begun that is a call already.
    fn promises_call(&self) -> bool {
        matches!(self.at, At::Text(Text::Object(object)) if object.is_call())
    }

    /// Where the answer is in free text: the bytes that mean something there are those of this kind, and every text
    /// without them may follow, but for texts that begin with one of the bytes given, which go on with a tag.
    pub fn is_free(&self, xml: bool, live: Option<&Live<'_>>) -> Option<(Kind, Vec<u8>)> {
        let kind = if xml { Kind::Tags } else { Kind::Objects };
        let tags = tags(xml);
        let free = Some((kind, Vec::new()));
        match self.at {
            At::Off | At::Start(0) | At::Think(0) => free,
            // `<` alone, so that these agree so far, and what of the tags goes on from there.
            At::Start(came) => {
                let tags: Vec<&[u8]> = [THINK].iter().chain(tags).copied().collect();
                Some((kind, continuations(&tags, 0, came)))
            }
            At::Think(came) => Some((kind, continuations(&[THINK_END], 0, came))),
            At::Text(Text::Tag(number, came)) => Some((kind, continuations(tags, number, came))),
            At::Text(Text::Object(object)) => object.is_free().map(|tag| (kind, tag)),
            At::Text(_) => free,
            At::Content(content) if self.utf8.is_whole() => content.is_free(live),
            At::Argument | At::Typed => self.json?.is_free(live),
            _ => None,
        }
    }

    /// What comes may depend on the workspace.
    pub fn is_live(&self) -> bool {
        self.file.is_some()
            || matches!(self.at, At::Content(content) if content.is_live())
            || self.json.is_some_and(|json| json.text != Value::Free)
    }
}

/// The rules and the world: what a state is asked with.
pub struct Machine<'a> {
    pub rules: &'a Rules,
    pub live: Option<&'a Live<'a>>,
}

const THINK: &[u8] = b"<think>";
const THINK_END: &[u8] = b"</think>";
/// Tags that mean something in free text: those that open a call; then, in the Hermes formats, those of calls as no parser
/// reads them (small models take the list of tools in the prompt for a pattern): they are not written.
const XML_TAGS: &[&[u8]] = &[b"<tool_call>", b"<function="];
const HERMES_TAGS: &[&[u8]] = &[b"<tool_call>", b"<tools", b"<function"];

fn tags(xml: bool) -> &'static [&'static [u8]] {
    if xml { XML_TAGS } else { HERMES_TAGS }
}

impl Automaton for Machine<'_> {
    type State = State;

    fn step(&self, state: &State, byte: u8) -> Option<State> {
        match state.at {
            At::Off => Some(*state),
            At::Start(came) => self.start(state, came, byte),
            At::Think(came) => Some(state.to(match matched(THINK_END, came, byte) {
                Some(true) => At::Text(Text::Plain(true)),
                Some(false) => At::Think(came + 1),
                None => At::Think(u8::from(byte == b'<')),
            })),
            At::Text(text) => self.text(state, text, byte),
            At::Literal(literal, came) => match matched(literal.text(), came, byte)? {
                false => Some(state.to(At::Literal(literal, came + 1))),
                true => self.after_literal(state, literal),
            },
            At::Tool(pick) => self.tool(state, pick, byte),
            At::Between(between) => self.between(state, between, byte),
            At::Parameter(pick) => self.parameter(state, pick, byte),
            At::Content(content) => self.content(state, content, byte),
            At::Choice(pick) => self.choice(state, pick, byte),
            At::Typed => self.typed(state, byte),
            At::Spot(spot) => self.spot(state, spot, byte),
            At::Key(pick) => self.key(state, pick, byte),
            At::Argument => self.argument(state, byte),
            At::AfterCall(came) => {
                // A line break, then the tag; the break alone is nothing, so the tag may come at once.
                let whole: &[u8] = b"\n<tool_call>";
                let came = if came == 0 && byte == b'<' { 1 } else { came };
                match matched(whole, came, byte)? {
                    true => Some(self.open(state)),
                    false => Some(state.to(At::AfterCall(came + 1))),
                }
            }
            At::End => None,
        }
    }
}

/// The bytes that go on with a tag of which the first `came` are those of the tag with this number.
pub(super) fn continuations(tags: &[&[u8]], number: u8, came: u8) -> Vec<u8> {
    let so_far = &tags[usize::from(number)][..usize::from(came)];
    let fits = tags.iter().filter(|tag| tag.starts_with(so_far));
    fits.filter_map(|tag| tag.get(usize::from(came)).copied()).collect()
}

/// Is `byte` the next one of `text`, of which `came` bytes have come; and is it the last? `None`: it is another.
pub(super) fn matched(text: &[u8], came: u8, byte: u8) -> Option<bool> {
    let at = usize::from(came);
    (text.get(at) == Some(&byte)).then(|| at + 1 == text.len())
}

/// White space to the parsers, as far as it is ASCII.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}

impl Machine<'_> {
    fn start(&self, state: &State, came: u8, byte: u8) -> Option<State> {
        match matched(THINK, came, byte) {
            Some(true) => return Some(state.to(At::Think(0))),
            Some(false) => return Some(state.to(At::Start(came + 1))),
            None if came == 0 && is_blank(byte) => return Some(*state),
            None if came == 0 && Wide::may_begin(byte) => {
                return self.text(state, Text::Wide(Wide::default(), Before::Answer), byte);
            }
            None => {}
        }
        // Text after all: what looked like the tag is read again as such.
        let mut text = state.to(At::Text(Text::Plain(true)));
        for &byte in &THINK[..usize::from(came)] {
            text = self.step(&text, byte)?;
        }
        self.step(&text, byte)
    }

    /// After `<tool_call>`, spelled or as a token.
    fn open(&self, state: &State) -> State {
        let literal = if self.rules.xml { Literal::XmlOpening } else { Literal::HermesOpening };
        Self::fresh(state, Style::Tagged).to(At::Literal(literal, 0))
    }

    pub(super) fn fresh(state: &State, style: Style) -> State {
        State { style, at: state.at, ..State::off() }
    }

    fn text(&self, state: &State, text: Text, byte: u8) -> Option<State> {
        let to = |text: Text| Some(state.to(At::Text(text)));
        let tags = tags(self.rules.xml);
        match text {
            Text::Plain(_) if byte == b'<' => to(Text::Tag(0, 1)),
            Text::Plain(line) if is_blank(byte) => to(Text::Plain(line || byte == b'\n')),
            Text::Plain(true) if !self.rules.xml && Wide::may_begin(byte) => {
                self.text(state, Text::Wide(Wide::default(), Before::Line), byte)
            }
            Text::Plain(true) if !self.rules.xml && byte == b'`' => to(Text::Ticks(1)),
            Text::Plain(true) if !self.rules.xml && byte == b'{' => {
                to(Text::Object(hermes::Object::new(false)))
            }
            Text::Plain(false) if !self.rules.xml && byte == b'{' => to(Text::Inline(false)),
            Text::Plain(_) => to(Text::Plain(false)),
            Text::Inline(line) => match byte {
                b'"' => to(Text::Object(hermes::Object::inline(self.rules.tool_names.start()))),
                b'{' if !line => to(Text::Inline(false)),
                _ if is_blank(byte) => to(Text::Inline(line || byte == b'\n')),
                _ => self.text(state, Text::Plain(line), byte),
            },
            Text::Tag(number, came) => {
                // The tags differ after their first letters: the other one may fit where this one does not.
                let so_far = &tags[usize::from(number)][..usize::from(came)];
                let agree = |tag: &&[u8]| tag.starts_with(so_far);
                let fits = (0u8..).zip(tags.iter().copied()).filter(|(_, tag)| agree(tag));
                for (number, tag) in fits {
                    match matched(tag, came, byte) {
                        Some(false) => return to(Text::Tag(number, came + 1)),
                        Some(true) if number == 0 => return Some(self.open(state)),
                        Some(true) if self.rules.xml => {
                            let start = At::Tool(self.rules.tool_names.start());
                            return Some(Self::fresh(state, Style::Tagged).to(start));
                        }
                        Some(true) => return None,
                        None => {}
                    }
                }
                self.text(state, Text::Plain(false), byte)
            }
            Text::Ticks(came @ 1..=2) if byte == b'`' => {
                to(if came == 2 { Text::FenceWord(0) } else { Text::Ticks(came + 1) })
            }
            Text::FenceWord(length) => match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' if length < 16 => {
                    to(Text::FenceWord(length + 1))
                }
                _ => self.text(state, Text::FenceLine, byte),
            },
            Text::FenceLine => match byte {
                b' ' | b'\t' | b'\r' => to(Text::FenceLine),
                b'\n' => to(Text::FenceGap),
                _ => self.text(state, Text::Plain(false), byte),
            },
            Text::FenceGap => match byte {
                b'{' => to(Text::Object(hermes::Object::new(true))),
                _ if is_blank(byte) => to(Text::FenceGap),
                _ if Wide::may_begin(byte) => {
                    self.text(state, Text::Wide(Wide::default(), Before::Fenced), byte)
                }
                _ => self.text(state, Text::Plain(true), byte),
            },
            Text::Wide(wide, before) => match (wide.step(byte), before) {
                (WideStep::On(wide), _) => to(Text::Wide(wide, before)),
                (WideStep::No, _) => self.text(state, Text::Plain(false), byte),
                (WideStep::Blank, Before::Answer) => Some(state.to(At::Start(0))),
                (WideStep::Blank, Before::Line) => to(Text::Plain(true)),
                (WideStep::Blank, Before::Fenced) => to(Text::FenceGap),
            },
            Text::Object(object) => self.object(state, object, byte),
            Text::Ticks(_) => self.text(state, Text::Plain(false), byte),
        }
    }

    fn tool(&self, state: &State, pick: Pick, byte: u8) -> Option<State> {
        let names = &self.rules.tool_names;
        let end = if self.rules.xml { b'>' } else { b'"' };
        if byte == end
            && let Some(tool) = names.exact(pick)
        {
            let state = State { tool, ..*state };
            return Some(match self.rules.xml {
                true => state.to(At::Literal(Literal::LineBreak, 0)),
                false => state.to(At::Spot(Spot::after_name())),
            });
        }
        Some(state.to(At::Tool(names.step(pick, byte, |_| true)?)))
    }

    fn after_literal(&self, state: &State, literal: Literal) -> Option<State> {
        Some(match literal {
            Literal::XmlOpening | Literal::HermesOpening => state.to(At::Tool(self.rules.tool_names.start())),
            Literal::LineBreak | Literal::ParameterClose => state.to(At::Between(xml::Between::default())),
            Literal::ValueBreak => self.begin_value(state)?,
            Literal::CallClose | Literal::HermesClose => {
                Self::fresh(state, Style::Tagged).to(At::AfterCall(0))
            }
        })
    }

    pub(super) fn called(&self, state: &State) -> Option<&Tool> {
        self.rules.tools.get(usize::from(state.tool))
    }

    pub(super) fn current(&self, state: &State) -> Option<&Parameter> {
        self.called(state)?.parameters.get(usize::from(state.parameter))
    }

    /// May the parameter with this number come now?
    pub(super) fn may_give(tool: &Tool, state: &State, number: u16) -> bool {
        let given = |number: u16| state.given >> number & 1 == 1;
        let parameter = tool.parameters.get(usize::from(number));
        parameter.is_some_and(|p| !given(number) && p.after.is_none_or(given))
    }

    /// May any parameter come now?
    pub(super) fn may_give_any(tool: &Tool, state: &State) -> bool {
        (0..tool.parameters.len() as u16).any(|number| Self::may_give(tool, state, number))
    }

    pub(super) fn may_close(&self, state: &State) -> bool {
        self.called(state).is_some_and(|tool| tool.required & !state.given == 0)
    }

    /// What the value of the parameter `rule` speaks of is held to.
    pub(super) fn held(&self, state: &State, rule: Rule) -> Value {
        let Some(live) = self.live else { return Value::Free };
        match rule {
            Rule::File | Rule::Edited | Rule::Directory | Rule::Any | Rule::New => live.path(rule),
            Rule::TextOfFile => state.file.map_or(Value::Free, |file| live.text_of(file)),
            Rule::Free | Rule::Instead | Rule::Everywhere | Rule::Count => Value::Free,
        }
    }

    /// The state after the value of the current parameter, which was `value`.
    pub(super) fn given(&self, state: &State, value: Value, flag: bool) -> State {
        let mut next = State { json: None, utf8: Utf8::default(), ..*state };
        next.given |= 1 << state.parameter;
        let rule = self.current(state).map(|p| p.rule).unwrap_or_default();
        if rule == Rule::Edited
            && let Some(live) = self.live
        {
            next.file = live.file(value);
        }
        if rule == Rule::Everywhere {
            next.everywhere = flag;
        }
        next.parameter = u16::MAX;
        next
    }
}

impl State {
    /// The value that is being written, where its text goes on.
    pub fn value_so_far(&self) -> Option<Value> {
        match self.at {
            At::Content(content) => content.value(),
            At::Argument => self.json.filter(|json| json.is_in_text()).map(|json| json.text),
            _ => None,
        }
    }
}
