//! The vocabulary as a trie over bytes, and the walk that asks an automaton which tokens may come. A subtree that begins
//! with a refused byte is skipped whole, so a mask costs what the automaton admits, not what the vocabulary holds.
//! Knows nothing of grammars: an automaton is anything that says what follows a state and a byte.

use crate::engine::TokenId;
use crate::engine::sampler::TokenMask;
use crate::engine::tokenizer::Tokenizer;

/// What a walk asks: the state after a byte, or `None` where the byte may not come.
pub trait Automaton {
    type State: Copy;
    fn step(&self, state: &Self::State, byte: u8) -> Option<Self::State>;
}

const NO_TOKEN: TokenId = TokenId::MAX;

/// A node is a byte after those of its ancestors.
#[derive(Debug, Clone, Copy)]
struct Node {
    byte: u8,
    /// Bytes from the root to here, this one included.
    depth: u16,
    /// The token of these bytes.
    token: TokenId,
    /// The node after the last descendant.
    next: u32,
}

/// Nodes in depth-first order.
#[derive(Debug, Default)]
pub struct Trie {
    nodes: Vec<Node>,
    deepest: usize,
}

impl Trie {
    /// Of tokens with their bytes. Of two tokens with the same bytes the first counts.
    pub fn new<'t>(tokens: impl IntoIterator<Item = (TokenId, &'t [u8])>) -> Self {
        let mut tokens: Vec<(&[u8], TokenId)> = tokens
            .into_iter()
            .filter(|(_, bytes)| !bytes.is_empty() && bytes.len() < usize::from(u16::MAX))
            .map(|(id, bytes)| (bytes, id))
            .collect();
        tokens.sort();
        tokens.dedup_by_key(|(bytes, _)| *bytes);
        let mut trie = Self::default();
        // Nodes from the root to the last token.
        let mut path: Vec<usize> = Vec::new();
        let mut before: &[u8] = &[];
        for (bytes, id) in tokens {
            let shared = before.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            trie.close(&mut path, shared);
            for (depth, &byte) in (1..).zip(bytes).skip(shared) {
                path.push(trie.nodes.len());
                trie.nodes.push(Node { byte, depth, token: NO_TOKEN, next: 0 });
            }
            if let Some(node) = path.last().and_then(|&last| trie.nodes.get_mut(last)) {
                node.token = id;
            }
            trie.deepest = trie.deepest.max(bytes.len());
            before = bytes;
        }
        trie.close(&mut path, 0);
        trie
    }

    fn close(&mut self, path: &mut Vec<usize>, keep: usize) {
        let next = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        for at in path.drain(keep.min(path.len())..) {
            self.nodes[at].next = next;
        }
    }

    /// Allows in `mask` every token whose bytes `automaton` admits from `state` on.
    pub fn walk<A: Automaton>(&self, automaton: &A, state: A::State, mask: &mut TokenMask) {
        self.walk_part(automaton, state, mask, 0..self.nodes.len());
    }

    /// Decides in `mask` only the tokens that begin with `first`.
    pub fn walk_after<A: Automaton>(&self, automaton: &A, state: A::State, mask: &mut TokenMask, first: u8) {
        let mut at = 0;
        while let Some(node) = self.nodes.get(at) {
            let next = node.next as usize;
            if node.byte == first {
                let tokens = self.nodes[at..next].iter().map(|node| node.token);
                tokens.filter(|token| *token != NO_TOKEN).for_each(|token| mask.deny(token));
                self.walk_part(automaton, state, mask, at..next);
            }
            at = next;
        }
    }

    fn walk_part<A: Automaton>(
        &self,
        automaton: &A,
        state: A::State,
        mask: &mut TokenMask,
        part: std::ops::Range<usize>,
    ) {
        let mut states = vec![state; self.deepest + 1];
        let mut at = part.start;
        while let Some(node) = self.nodes.get(at).filter(|_| at < part.end) {
            let depth = usize::from(node.depth);
            match automaton.step(&states[depth - 1], node.byte) {
                Some(state) => {
                    states[depth] = state;
                    if node.token != NO_TOKEN {
                        mask.allow(node.token);
                    }
                    at += 1;
                }
                None => at = node.next as usize,
            }
        }
    }
}

/// Free text by what means something in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Tags.
    Tags,
    /// After a tag: the end of the line too.
    Lines,
    /// Tags, and objects that may be calls.
    Objects,
    /// What ends a JSON string or may not stand in it.
    Strings,
    /// What ends the name of a new file or may not stand in it.
    Names,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Tags, Kind::Lines, Kind::Objects, Kind::Strings, Kind::Names];

    /// Bytes at which an automaton over text of this kind may change its mind.
    fn is_telling(self, byte: u8) -> bool {
        byte == b'<'
            || match self {
                Kind::Tags => false,
                Kind::Lines => byte == b'\n',
                Kind::Objects => matches!(byte, b'{' | b'`' | b'"' | b'\'' | 0x0b | 0x0c),
                Kind::Strings => byte < 0x20 || matches!(byte, b'"' | b'\\'),
                // c2 and e2 may begin a line break.
                Kind::Names => {
                    byte < 0x20
                        || matches!(
                            byte,
                            b'"' | b'\\' | b'/' | b'>' | b'|' | b'?' | b'*' | 0x7f | 0xc2 | 0xe2
                        )
                }
            }
    }
}

/// Longer tokens are always asked about: a name has an end.
pub const LONG: usize = 128;

/// The vocabulary in two parts.
#[derive(Debug)]
pub struct Split {
    /// Tokens that hold a telling byte, are not whole characters or are long.
    pub telling: Trie,
    /// The others: where all text may come, all of these may.
    pub plain: TokenMask,
}

/// The vocabulary as masks need it.
#[derive(Debug)]
pub struct Vocabulary {
    /// Every token that may be part of a text, and the tags of a call.
    pub all: Trie,
    /// For each kind of free text, in the order of `Kind::ALL`.
    splits: [Split; 5],
    logits: usize,
}

/// Added tokens that are written in an answer: the others are no part of a text.
const TAGS: [&str; 4] = ["<tool_call>", "</tool_call>", "<think>", "</think>"];

impl Vocabulary {
    /// `logits`: as many as the model has.
    pub fn new(tokenizer: &Tokenizer, logits: usize) -> Self {
        let tags: Vec<TokenId> = TAGS.iter().filter_map(|tag| tokenizer.added(tag)).collect();
        let ids = 0..TokenId::try_from(tokenizer.vocab_size().min(logits)).unwrap_or(TokenId::MAX);
        let text: Vec<(TokenId, &[u8])> = ids
            .filter(|id| !tokenizer.never_sampled(*id) && (tags.contains(id) || !tokenizer.is_added(*id)))
            .map(|id| (id, tokenizer.bytes(id)))
            .collect();
        let splits = Kind::ALL.map(|kind| {
            let mut plain = TokenMask::none(logits);
            let mut telling = Vec::new();
            for &(id, bytes) in &text {
                let telling_byte = bytes.iter().any(|&byte| kind.is_telling(byte));
                if telling_byte || bytes.len() > LONG || std::str::from_utf8(bytes).is_err() {
                    telling.push((id, bytes));
                } else {
                    plain.allow(id);
                }
            }
            Split { telling: Trie::new(telling), plain }
        });
        Self { all: Trie::new(text), splits, logits }
    }

    pub fn split(&self, kind: Kind) -> &Split {
        &self.splits[kind as usize]
    }

    /// Tokens that a mask speaks of.
    pub fn logits(&self) -> usize {
        self.logits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Admits texts of which every byte is larger than the one before.
    struct Ascending;
    impl Automaton for Ascending {
        type State = u8;
        fn step(&self, state: &u8, byte: u8) -> Option<u8> {
            (byte > *state).then_some(byte)
        }
    }

    #[test]
    fn the_walk_admits_what_the_automaton_does_to_every_token() {
        let tokens: [&[u8]; 9] = [b"a", b"ab", b"abc", b"ba", b"b", b"abca", b"", b"c", b"acb"];
        let ids = |list: &[u8]| (0..).zip(tokens).filter(|(_, t)| t == &list).map(|(id, _)| id).next();
        let trie = Trie::new((0..).zip(tokens));
        for start in [0, b'a', b'b', b'c'] {
            let mut mask = TokenMask::none(tokens.len());
            trie.walk(&Ascending, start, &mut mask);
            for token in tokens {
                let mut state = Some(start);
                for &byte in token {
                    state = state.and_then(|state| Ascending.step(&state, byte));
                }
                let admitted = state.is_some() && !token.is_empty();
                assert_eq!(mask.contains(ids(token).unwrap()), admitted, "{token:?} after {start}");
            }
        }
    }
}
