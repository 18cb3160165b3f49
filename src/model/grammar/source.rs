//! A file as the set of its substrings: which bytes may follow a text so that it still stands in the file, and at how
//! many places it does. The places are an array that is put in order only where it is asked about: the places that
//! begin with a text lie next to each other, and are parted by their next byte when somebody goes on from there. So a
//! large file costs little before the first question, and each place is touched once for each byte that was asked.

use std::cell::RefCell;
use std::collections::HashMap;

/// The substring so far: `depth` bytes, at the places `from..to` of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    from: u32,
    to: u32,
    depth: u32,
}

/// Places that go on with the same byte.
type Part = (u8, u32, u32);

#[derive(Debug)]
pub struct Source {
    text: String,
    has_tags: bool,
    parted: RefCell<Parted>,
}

#[derive(Debug)]
struct Parted {
    /// Places in the text.
    order: Vec<u32>,
    /// By the first of its places and its depth: the parts of a span.
    parts: HashMap<(u32, u32), Box<[Part]>>,
    scratch: Vec<u32>,
}

impl Source {
    /// Of a text under 4 GiB; what lies beyond is not looked at.
    pub fn new(text: String) -> Self {
        // A substring begins with a whole character.
        let order = (0..u32::MAX).zip(text.bytes()).filter(|(_, b)| b & 0xc0 != 0x80).map(|(at, _)| at);
        let order = order.collect();
        let has_tags = super::xml::has_tags(&text);
        Self {
            has_tags,
            parted: RefCell::new(Parted { order, parts: HashMap::new(), scratch: Vec::new() }),
            text,
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether tags of a call stand in it.
    pub fn has_tags(&self) -> bool {
        self.has_tags
    }

    pub fn start(&self) -> Span {
        let to = u32::try_from(self.parted.borrow().order.len()).unwrap_or(u32::MAX);
        Span { from: 0, to, depth: 0 }
    }

    /// The substring with one byte more, if it stands somewhere.
    pub fn step(&self, span: Span, byte: u8) -> Option<Span> {
        let next = |from, to| Span { from, to, depth: span.depth + 1 };
        let mut parted = self.parted.borrow_mut();
        if span.to - span.from == 1 {
            let place = *parted.order.get(span.from as usize)?;
            let follows = self.text.as_bytes().get((place + span.depth) as usize)?;
            return (*follows == byte).then(|| next(span.from, span.to));
        }
        let parts = parted.parts(self.text.as_bytes(), span);
        let found = parts.binary_search_by_key(&byte, |(byte, ..)| *byte).ok()?;
        let (_, from, to) = parts[found];
        Some(next(from, to))
    }

    /// The bytes that go on from it.
    pub fn next(&self, span: Span) -> Vec<u8> {
        self.parted.borrow_mut().parts(self.text.as_bytes(), span).iter().map(|(byte, ..)| *byte).collect()
    }

    /// At how many places it stands.
    pub fn count(&self, span: Span) -> usize {
        (span.to - span.from) as usize
    }

    /// Where it stands first, of the places known; and what follows there.
    pub fn rest(&self, span: Span) -> &str {
        let place = self.parted.borrow().order.get(span.from as usize).copied().unwrap_or(0);
        self.text.get((place + span.depth) as usize..).unwrap_or_default()
    }

    /// Its bytes so far.
    pub fn is_empty(span: Span) -> bool {
        span.depth == 0
    }
}

impl Parted {
    /// Parts a span by its next byte, once.
    fn parts(&mut self, text: &[u8], span: Span) -> &[Part] {
        let Self { order, parts, scratch } = self;
        parts.entry((span.from, span.depth)).or_insert_with(|| {
            let places = &mut order[span.from as usize..span.to as usize];
            let next = |place: u32| text.get((place + span.depth) as usize);
            // A place at the end of the text has no next byte; these come first and are no part.
            let slot = |place: u32| next(place).map_or(0, |byte| usize::from(*byte) + 1);
            if places.len() < 64 {
                places.sort_unstable_by_key(|place| slot(*place));
            } else {
                let mut ends = [0usize; 257];
                places.iter().for_each(|place| ends[slot(*place)] += 1);
                let mut sum = 0;
                for end in &mut ends {
                    sum += std::mem::replace(end, sum);
                }
                scratch.clear();
                scratch.extend_from_slice(places);
                for &place in scratch.iter() {
                    let at = &mut ends[slot(place)];
                    places[*at] = place;
                    *at += 1;
                }
            }
            let mut found: Vec<Part> = Vec::new();
            for (at, &place) in (span.from..).zip(places.iter()) {
                let Some(&byte) = next(place) else { continue };
                match found.last_mut() {
                    Some((last, _, to)) if *last == byte => *to = at + 1,
                    _ => found.push((byte, at, at + 1)),
                }
            }
            found.into_boxed_slice()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As slow as it is plain: how often `wanted` stands in `text`.
    fn times(text: &str, wanted: &[u8]) -> usize {
        let whole = |at: &usize| text.is_char_boundary(*at);
        (0..text.len()).filter(whole).filter(|&at| text.as_bytes()[at..].starts_with(wanted)).count()
    }

    proptest! {
        #[test]
        fn a_span_counts_the_places_of_its_text(
            text in "[ab\n\u{e9}]{0,300}",
            wanted in prop::collection::vec("[ab\n\u{e9}]{1,6}", 1..20)
        ) {
            let source = Source::new(text.clone());
            for wanted in wanted {
                let mut span = Some(source.start());
                for (at, &byte) in wanted.as_bytes().iter().enumerate() {
                    span = span.and_then(|span| source.step(span, byte));
                    let expected = times(&text, &wanted.as_bytes()[..=at]);
                    prop_assert_eq!(span.map_or(0, |span| source.count(span)), expected);
                }
                if let Some(span) = span {
                    let rest = source.rest(span);
                    let start = text.len() - rest.len() - wanted.len();
                    prop_assert_eq!(&text[start..start + wanted.len()], &wanted);
                }
            }
        }
    }
}
