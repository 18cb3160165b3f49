//! One JSON value held to a schema, byte by byte. The text is what `json.dumps` prints (`, ` and `: `), or, where an
//! object was begun in another style, with white space where JSON allows it. Escapes are those that have one reading:
//! no surrogates, no raw control characters. A text held to a file is held to it behind its escapes.

use super::live::{Live, Value};
use super::names::Pick;
use super::schema::{ANY, Node, NodeId, Nodes};
use super::trie::Kind;
use super::utf8::Utf8;
use crate::chat::schema::Types;

/// Arrays and objects within each other.
const DEPTH: usize = 8;
/// Digits of a whole number, so that it is one to every reader.
const DIGITS: u8 = 15;
/// White space between two marks, where it is free.
const MOST_SPACE: u8 = 48;

/// An array or object that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Frame {
    node: NodeId,
    object: bool,
    /// Items so far.
    items: u16,
    /// Keys given.
    given: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    /// Before a value.
    Value,
    Choice(Pick),
    Word(Word, u8),
    Number(Number),
    Text(Escape),
    /// After `{` or `[`.
    Opened,
    /// In a key of the node, or in another one.
    Key(Pick),
    OtherKey(Escape),
    /// Before the colon of the key with this number.
    Colon(u16),
    /// After a comma, before a key.
    NextKey,
    /// After a value in an array or object.
    After,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Word {
    True,
    False,
    Null,
}

impl Word {
    fn text(self) -> &'static [u8] {
        match self {
            Word::True => b"true",
            Word::False => b"false",
            Word::Null => b"null",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Number {
    negative: bool,
    /// Of the whole part, and their value.
    digits: u8,
    whole: u64,
    part: Part,
    /// Digits of the part after the whole one.
    more: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Part {
    #[default]
    Whole,
    Fraction,
    /// After `e`, before its sign or digits.
    Exponent,
    Digits,
}

/// Where a string stands with a backslash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Escape {
    #[default]
    None,
    Backslash,
    /// Hexadecimal digits that came, and their value.
    Hex(u8, u16),
}

/// A value that is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Json {
    at: At,
    node: NodeId,
    /// White space since the last mark.
    space: u8,
    /// White space is free.
    loose: bool,
    depth: u8,
    frames: [Frame; DEPTH],
    utf8: Utf8,
    /// What the outermost text is held to.
    pub text: Value,
    /// A text may stand at several places of its file.
    pub everywhere: bool,
    /// No negative number.
    pub count: bool,
    /// The outermost value is `true`.
    pub truth: bool,
    /// It stands between the tags of an XML call: a string of it holds no closing tag, which JSON can write as `<\/`.
    pub in_xml: bool,
    /// A `<` stands right before.
    angle: bool,
}

/// What a byte did.
pub enum Step {
    On(Json),
    /// The value is complete without it: it belongs to what follows.
    Past,
    Refused,
}

/// A string at a byte: goes on, ends, or neither.
enum InText {
    On(Escape, Option<Decoded>),
    End,
    Refused,
}

/// What a byte of a string stands for.
enum Decoded {
    Byte(u8),
    Char(char),
}

impl Json {
    /// Before a value of `node`. `text`: what it is held to if it is a string.
    pub fn new(node: NodeId, loose: bool, text: Value) -> Self {
        Self {
            at: At::Value,
            node,
            space: 0,
            loose,
            depth: 0,
            frames: [Frame::default(); DEPTH],
            utf8: Utf8::default(),
            text,
            everywhere: false,
            count: false,
            truth: false,
            in_xml: false,
            angle: false,
        }
    }

    pub fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// Nothing of it is written yet.
    pub fn is_untouched(&self) -> bool {
        self.at == At::Value && self.depth == 0
    }

    /// In the text of the outermost value, if that is what is being written and no escape is open.
    pub fn is_in_text(&self) -> bool {
        self.depth == 0 && self.at == At::Text(Escape::None)
    }

    /// Any text that has no telling byte may follow, but for what begins with one of the bytes given.
    pub fn is_free(&self, live: Option<&Live<'_>>) -> Option<(Kind, Vec<u8>)> {
        let inner = self.depth > 0 || self.text == Value::Free;
        if !inner && self.at == At::Text(Escape::None) && self.utf8.is_whole() {
            return live?.is_free(self.text).map(|tag| (Kind::Names, tag));
        }
        let in_text = matches!(self.at, At::Text(Escape::None) | At::OtherKey(Escape::None));
        let slash = if self.angle { vec![b'/'] } else { Vec::new() };
        (in_text && inner && self.utf8.is_whole()).then_some((Kind::Strings, slash))
    }

    fn frame(&mut self) -> Option<&mut Frame> {
        let depth = usize::from(self.depth);
        depth.checked_sub(1).and_then(|at| self.frames.get_mut(at))
    }

    /// A complete value within the innermost array or object, or at the end of all.
    fn completed(mut self) -> Self {
        self.at = if self.depth == 0 { At::Done } else { At::After };
        self.space = 0;
        self
    }

    pub fn step(mut self, nodes: &Nodes, live: Option<&Live<'_>>, byte: u8) -> Step {
        if self.angle && byte == b'/' {
            return Step::Refused;
        }
        self.angle = self.in_xml && byte == b'<';
        if let At::Number(number) = self.at {
            if let Some(number) = number.step(nodes.get(self.node), byte, self.count) {
                self.at = At::Number(number);
                return Step::On(self);
            }
            if !number.is_complete(nodes.get(self.node)) {
                return Step::Refused;
            }
            if self.depth == 0 {
                return Step::Past;
            }
            self = self.completed();
        }
        if self.at == At::Done {
            return Step::Past;
        }
        match self.on(nodes, live, byte) {
            Some(next) => Step::On(next),
            None => Step::Refused,
        }
    }

    /// Eats white space; `None` where `byte` is none that may stand here, and what belongs here may come.
    fn space(&mut self, byte: u8, wanted: u8) -> Option<bool> {
        if self.loose {
            let blank = byte == b' ' || (byte == b'\n' && self.space == 0);
            if blank && self.space < MOST_SPACE {
                self.space += 1;
                return Some(true);
            }
            return Some(false);
        }
        if self.space < wanted {
            self.space += 1;
            return (byte == b' ').then_some(true);
        }
        Some(false)
    }

    fn on(mut self, nodes: &Nodes, live: Option<&Live<'_>>, byte: u8) -> Option<Self> {
        match self.at {
            At::Value => {
                // At the beginning of all, and of an array, no blank is due.
                let due = u8::from(self.depth > 0 && self.frame().is_some_and(|f| f.object || f.items > 0));
                if self.space(byte, due)? {
                    return Some(self);
                }
                self.begin(nodes, byte)
            }
            At::Choice(pick) => {
                let choices = nodes.get(self.node).choices.as_ref()?;
                self.choose(choices.step(pick, byte, |_| true)?, nodes)
            }
            At::Word(word, at) => {
                if word.text().get(usize::from(at)) != Some(&byte) {
                    return None;
                }
                self.at = At::Word(word, at + 1);
                self.truth = word == Word::True && self.depth == 0;
                Some(if usize::from(at) + 1 == word.text().len() { self.completed() } else { self })
            }
            At::Text(Escape::None)
                if self.depth == 0
                    && self.text != Value::Free
                    && !matches!(byte, b'"' | b'\\')
                    && live?.step(self.text, byte).is_none() =>
            {
                None
            }
            At::Text(escape) => match in_text(escape, &mut self.utf8, byte) {
                InText::On(escape, decoded) => {
                    if self.depth == 0 && self.text != Value::Free {
                        self.text = follow(self.text, live?, decoded)?;
                        if !can_end(escape, self.text, live?) {
                            return None;
                        }
                    }
                    self.at = At::Text(escape);
                    Some(self)
                }
                InText::End => {
                    let outer = self.depth == 0 && self.text != Value::Free;
                    let fine = !outer || live?.may_end(self.text, self.everywhere);
                    fine.then(|| self.completed())
                }
                InText::Refused => None,
            },
            At::Opened => {
                if self.space(byte, 0)? {
                    return Some(self);
                }
                let frame = *self.frame()?;
                match (frame.object, byte) {
                    (true, b'"') => self.key(nodes, frame),
                    (true, b'}') => self.close(nodes, frame),
                    (false, b']') => self.close(nodes, frame),
                    (false, _) => {
                        let node = nodes.get(frame.node);
                        if node.most_items == 0 {
                            return None;
                        }
                        self.node = node.items;
                        self.at = At::Value;
                        self.begin(nodes, byte)
                    }
                    _ => None,
                }
            }
            At::Key(pick) => {
                let frame = *self.frame()?;
                let node = nodes.get(frame.node);
                if byte == b'"'
                    && let Some(number) =
                        node.keys.exact(pick).filter(|number| frame.given >> number & 1 == 0)
                {
                    self.at = At::Colon(number);
                    self.space = 0;
                    return Some(self);
                }
                let free = |number: u16| frame.given >> number & 1 == 0;
                self.at = At::Key(node.keys.step(pick, byte, free)?);
                Some(self)
            }
            At::OtherKey(escape) => match in_text(escape, &mut self.utf8, byte) {
                InText::On(escape, _) => {
                    self.at = At::OtherKey(escape);
                    Some(self)
                }
                InText::End => {
                    self.at = At::Colon(u16::MAX);
                    self.space = 0;
                    Some(self)
                }
                InText::Refused => None,
            },
            At::Colon(number) => {
                if self.space(byte, 0)? {
                    return Some(self);
                }
                if byte != b':' {
                    return None;
                }
                let frame = self.frame()?;
                let node = nodes.get(frame.node);
                let child = match number {
                    u16::MAX => node.others.unwrap_or(ANY),
                    number => {
                        frame.given |= 1 << number;
                        node.properties.get(usize::from(number)).copied().unwrap_or(ANY)
                    }
                };
                self.node = child;
                self.at = At::Value;
                self.space = 0;
                Some(self)
            }
            At::NextKey => {
                if self.space(byte, 1)? {
                    return Some(self);
                }
                let frame = *self.frame()?;
                if byte == b'"' { self.key(nodes, frame) } else { None }
            }
            At::After => {
                if self.space(byte, 0)? {
                    return Some(self);
                }
                let frame = self.frame()?;
                let node = nodes.get(frame.node);
                match byte {
                    b',' if frame.object && may_have_key(node, frame) => {
                        self.at = At::NextKey;
                        self.space = 0;
                        Some(self)
                    }
                    b',' if !frame.object && frame.items + 1 < node.most_items => {
                        frame.items += 1;
                        self.node = node.items;
                        self.at = At::Value;
                        self.space = 0;
                        Some(self)
                    }
                    b'}' | b']' if frame.object == (byte == b'}') => {
                        frame.items += u16::from(!frame.object);
                        let frame = *frame;
                        self.close(nodes, frame)
                    }
                    _ => None,
                }
            }
            At::Number(_) | At::Done => None,
        }
    }

    /// The first byte of a value.
    fn begin(mut self, nodes: &Nodes, byte: u8) -> Option<Self> {
        let node = nodes.get(self.node);
        self.space = 0;
        if let Some(choices) = &node.choices {
            return self.choose(choices.step(choices.start(), byte, |_| true)?, nodes);
        }
        let word = |word: Word, types: Types| node.may_be(types).then_some(At::Word(word, 1));
        self.at = match byte {
            b'"' if node.may_be(Types::STRING) => At::Text(Escape::None),
            b't' => word(Word::True, Types::BOOLEAN)?,
            b'f' => word(Word::False, Types::BOOLEAN)?,
            b'n' => word(Word::Null, Types::NULL)?,
            b'{' if node.may_be(Types::OBJECT) => return self.open(true),
            b'[' if node.may_be(Types::ARRAY) => return self.open(false),
            b'-' | b'0'..=b'9' if node.may_be(Types::INTEGER | Types::NUMBER) => {
                At::Number(Number::default().step(node, byte, self.count)?)
            }
            _ => return None,
        };
        Some(self)
    }

    fn choose(mut self, pick: Pick, nodes: &Nodes) -> Option<Self> {
        let choices = nodes.get(self.node).choices.as_ref()?;
        self.at = At::Choice(pick);
        // A choice that is the beginning of another (1 and 12) ends where it cannot go on: the longer one is lost.
        Some(if choices.exact(pick).is_some() { self.completed() } else { self })
    }

    fn open(mut self, object: bool) -> Option<Self> {
        let frame = Frame { node: self.node, object, ..Frame::default() };
        *self.frames.get_mut(usize::from(self.depth))? = frame;
        self.depth += 1;
        self.at = At::Opened;
        Some(self)
    }

    fn key(mut self, nodes: &Nodes, frame: Frame) -> Option<Self> {
        let node = nodes.get(frame.node);
        if !may_have_key(node, &frame) {
            return None;
        }
        self.at = match node.others {
            // Any key at all: those of the node are not told from the others, and so not held to their schema.
            Some(_) if node.properties.is_empty() => At::OtherKey(Escape::None),
            _ => At::Key(node.keys.start()),
        };
        Some(self)
    }

    fn close(mut self, nodes: &Nodes, frame: Frame) -> Option<Self> {
        let node = nodes.get(frame.node);
        let complete =
            if frame.object { node.required & !frame.given == 0 } else { frame.items >= node.least_items };
        if !complete {
            return None;
        }
        self.depth -= 1;
        // Equal states have equal frames.
        if let Some(closed) = self.frames.get_mut(usize::from(self.depth)) {
            *closed = Frame::default();
        }
        Some(self.completed())
    }
}

fn may_have_key(node: &Node, frame: &Frame) -> bool {
    (node.others.is_some() && node.properties.is_empty())
        || (0..node.properties.len()).any(|bit| frame.given >> bit & 1 == 0)
}

fn follow(text: Value, live: &Live<'_>, decoded: Option<Decoded>) -> Option<Value> {
    match decoded {
        None => Some(text),
        Some(Decoded::Byte(byte)) => live.step(text, byte),
        Some(Decoded::Char(c)) => {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().try_fold(text, |text, byte| live.step(text, byte))
        }
    }
}

/// Does the open escape of a text that is held to something come to a byte that may follow?
fn can_end(escape: Escape, text: Value, live: &Live<'_>) -> bool {
    let fits = |byte: u8| live.step(text, byte).is_some();
    match escape {
        Escape::None => true,
        Escape::Backslash => b"\"\\/".iter().any(|byte| fits(*byte)) || (0..0x20).any(fits),
        // Only control characters need their number.
        Escape::Hex(came, value) => {
            (0..0x20).any(|c| u32::from(c) >> (4 * (4 - came)) == u32::from(value) && fits(c))
        }
    }
}

fn in_text(escape: Escape, utf8: &mut Utf8, byte: u8) -> InText {
    let on = |decoded| InText::On(Escape::None, Some(decoded));
    match escape {
        Escape::None => match byte {
            b'"' if utf8.is_whole() => InText::End,
            b'\\' if utf8.is_whole() => InText::On(Escape::Backslash, None),
            b'"' | b'\\' | 0..0x20 => InText::Refused,
            _ => match utf8.step(byte) {
                Some(next) => {
                    *utf8 = next;
                    on(Decoded::Byte(byte))
                }
                None => InText::Refused,
            },
        },
        Escape::Backslash => match byte {
            b'"' | b'\\' | b'/' => on(Decoded::Byte(byte)),
            b'n' => on(Decoded::Byte(b'\n')),
            b't' => on(Decoded::Byte(b'\t')),
            b'r' => on(Decoded::Byte(b'\r')),
            b'b' => on(Decoded::Byte(8)),
            b'f' => on(Decoded::Byte(12)),
            b'u' => InText::On(Escape::Hex(0, 0), None),
            _ => InText::Refused,
        },
        Escape::Hex(came, value) => {
            let Some(digit) = char::from(byte).to_digit(16) else { return InText::Refused };
            let value = value << 4 | digit as u16;
            // Half of a character is none.
            if came == 1 && (0xd8..=0xdf).contains(&value) {
                return InText::Refused;
            }
            match came {
                3 => match char::from_u32(u32::from(value)) {
                    Some(c) => on(Decoded::Char(c)),
                    None => InText::Refused,
                },
                _ => InText::On(Escape::Hex(came + 1, value), None),
            }
        }
    }
}

impl Number {
    fn step(mut self, node: &Node, byte: u8, count: bool) -> Option<Self> {
        let started = self.digits > 0;
        match (self.part, byte) {
            (Part::Whole, b'-') if !started && !self.negative => {
                let none = count || node.minimum.is_some_and(|least| least >= 0.0);
                self.negative = true;
                (!none).then_some(self)
            }
            (Part::Whole, b'0'..=b'9') => {
                // No leading zero, and `-0` is no whole number.
                let zero_before = started && self.whole == 0;
                let minus_zero = self.negative && !started && byte == b'0' && !node.may_be(Types::NUMBER);
                // Nor a zero that can never become large enough.
                let too_small = byte == b'0'
                    && !started
                    && !node.may_be(Types::NUMBER)
                    && node.minimum.is_some_and(|least| least > 0.0);
                if zero_before || minus_zero || too_small || self.digits >= DIGITS {
                    return None;
                }
                self.digits += 1;
                self.whole = self.whole * 10 + u64::from(byte - b'0');
                let far = node.maximum.map_or(f64::INFINITY, f64::abs);
                let far = far.max(node.minimum.map_or(f64::INFINITY, f64::abs));
                (self.whole as f64 <= far).then_some(self)
            }
            (Part::Whole, b'.') if started && node.may_be(Types::NUMBER) => {
                Some(Self { part: Part::Fraction, more: 0, ..self })
            }
            (Part::Whole, b'e' | b'E') if started && node.may_be(Types::NUMBER) => {
                Some(Self { part: Part::Exponent, more: 0, ..self })
            }
            (Part::Fraction, b'e' | b'E') if self.more > 0 => {
                Some(Self { part: Part::Exponent, more: 0, ..self })
            }
            (Part::Exponent, b'+' | b'-') => Some(Self { part: Part::Digits, more: 0, ..self }),
            (Part::Exponent, b'0'..=b'9') => Some(Self { part: Part::Digits, more: 1, ..self }),
            (Part::Fraction, b'0'..=b'9') if self.more < DIGITS => Some(Self { more: self.more + 1, ..self }),
            // Larger exponents are no numbers to a reader.
            (Part::Digits, b'0'..=b'9') if self.more < 2 => Some(Self { more: self.more + 1, ..self }),
            _ => None,
        }
    }

    fn is_complete(self, node: &Node) -> bool {
        let whole = if self.negative { -(self.whole as f64) } else { self.whole as f64 };
        let within = self.part != Part::Whole
            || (node.minimum.is_none_or(|least| whole >= least)
                && node.maximum.is_none_or(|most| whole <= most));
        let written = match self.part {
            Part::Whole => self.digits > 0,
            Part::Fraction | Part::Digits => self.more > 0,
            Part::Exponent => false,
        };
        written && within
    }
}
