//! Byte-pair merging of one word: bytes become tokens, then the adjacent pair of the lowest rank becomes one token,
//! leftmost first, until no pair has a merge. Ranks are the order of the file's list of merges.
//!
//! Words are nearly always short, and short words are merged by scanning an array. A word may also be a megabyte
//! without a space, where scanning would take the square of that: there a heap of pairs over a linked list does it.
//! Both give the same tokens. Where words begin and end is `pretokenize`'s, what the ids mean is the vocabulary's.
use crate::engine::TokenId;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// From this many tokens on, the heap.
const LONG: usize = 128;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Merge {
    rank: u32,
    result: TokenId,
}

/// The rank of a pair that has no merge.
const NONE: Merge = Merge { rank: u32::MAX, result: 0 };

pub(super) struct Bpe {
    byte_tokens: [TokenId; 256],
    merges: HashMap<(TokenId, TokenId), Merge>,
}

/// Buffers that are kept from word to word.
#[derive(Default)]
pub(super) struct Scratch {
    tokens: Vec<TokenId>,
    /// `pairs[i]`: what tokens i and i + 1 merge to.
    pairs: Vec<Merge>,
}

impl Bpe {
    pub fn new(byte_tokens: [TokenId; 256], merges: usize) -> Self {
        Self { byte_tokens, merges: HashMap::with_capacity(merges) }
    }

    /// Adds the next merge. A pair that is there already keeps its rank, which is lower.
    pub fn push(&mut self, left: TokenId, right: TokenId, rank: u32, result: TokenId) {
        self.merges.entry((left, right)).or_insert(Merge { rank, result });
    }

    fn merge(&self, left: TokenId, right: TokenId) -> Merge {
        self.merges.get(&(left, right)).copied().unwrap_or(NONE)
    }

    /// Appends the tokens of `word` to `out`.
    pub fn encode(&self, word: &[u8], scratch: &mut Scratch, out: &mut Vec<TokenId>) {
        let tokens = &mut scratch.tokens;
        tokens.clear();
        tokens.extend(word.iter().map(|&byte| self.byte_tokens[usize::from(byte)]));
        if tokens.len() < LONG {
            self.scan(tokens, &mut scratch.pairs);
        } else {
            self.heap(tokens);
        }
        out.extend_from_slice(tokens);
    }

    fn scan(&self, tokens: &mut Vec<TokenId>, pairs: &mut Vec<Merge>) {
        pairs.clear();
        pairs.extend(tokens.windows(2).map(|pair| self.merge(pair[0], pair[1])));
        // `min_by_key` takes the first of equals: the leftmost.
        while let Some((at, &best)) = pairs.iter().enumerate().min_by_key(|(_, merge)| merge.rank)
            && best != NONE
        {
            tokens[at] = best.result;
            tokens.remove(at + 1);
            pairs.remove(at);
            if at < pairs.len() {
                pairs[at] = self.merge(tokens[at], tokens[at + 1]);
            }
            if at > 0 {
                pairs[at - 1] = self.merge(tokens[at - 1], tokens[at]);
            }
        }
    }

    fn heap(&self, tokens: &mut Vec<TokenId>) {
        const GONE: TokenId = TokenId::MAX;
        let len = tokens.len();
        // A list over the places of `tokens`; a token stands at the place of its first byte.
        let mut next: Vec<usize> = (1..=len).collect();
        let mut previous: Vec<usize> = (0..len).map(|at| at.wrapping_sub(1)).collect();
        let mut heap = BinaryHeap::with_capacity(len);
        // The pair's tokens go along: an entry whose tokens are no longer there is out of date.
        let entry = |at: usize, left: TokenId, right: TokenId| {
            let merge = self.merge(left, right);
            (merge != NONE).then_some(Reverse((merge.rank, at, left, right)))
        };
        heap.extend((1..len).filter_map(|at| entry(at - 1, tokens[at - 1], tokens[at])));
        while let Some(Reverse((_, at, left, right))) = heap.pop() {
            let second = next[at];
            if tokens[at] != left || second == len || tokens[second] != right {
                continue;
            }
            let result = self.merge(left, right).result;
            tokens[at] = result;
            tokens[second] = GONE;
            let third = next[second];
            next[at] = third;
            if third < len {
                previous[third] = at;
                heap.extend(entry(at, result, tokens[third]));
            }
            if at > 0 {
                let before = previous[at];
                heap.extend(entry(before, tokens[before], result));
            }
        }
        tokens.retain(|&token| token != GONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 256 bytes and random merges of what is there; token ids are arbitrary but for being distinct.
    fn random_bpe(pairs: &[(u32, u32)]) -> Bpe {
        let mut bpe = Bpe::new(std::array::from_fn(|byte| byte as TokenId), pairs.len());
        for (rank, &(left, right)) in pairs.iter().enumerate() {
            let known = 256 + rank as u32;
            // The four letters that words are made of, and what came of them, more often than other bytes.
            let pick =
                |n: u32| if n.is_multiple_of(2) { 97 + n / 2 % 4 } else { 256 + n / 2 % (rank as u32 + 1) };
            let (left, right) = (pick(left).min(known - 1), pick(right).min(known - 1));
            bpe.push(left, right, rank as u32, known);
        }
        bpe
    }

    /// The definition, word for word.
    fn by_definition(bpe: &Bpe, word: &[u8]) -> Vec<TokenId> {
        let mut tokens: Vec<TokenId> = word.iter().map(|&byte| bpe.byte_tokens[usize::from(byte)]).collect();
        loop {
            let mut best: Option<(Merge, usize)> = None;
            for at in 1..tokens.len() {
                if let Some(&merge) = bpe.merges.get(&(tokens[at - 1], tokens[at]))
                    && best.is_none_or(|(other, _)| merge.rank < other.rank)
                {
                    best = Some((merge, at - 1));
                }
            }
            let Some((merge, at)) = best else { return tokens };
            tokens.splice(at..at + 2, [merge.result]);
        }
    }

    proptest! {
        #[test]
        fn scan_and_heap_do_what_the_definition_says(
            pairs in prop::collection::vec((any::<u32>(), any::<u32>()), 1..80),
            word in "[abcdx]{0,200}",
        ) {
            let bpe = random_bpe(&pairs);
            let expected = by_definition(&bpe, word.as_bytes());
            let start: Vec<TokenId> = word.bytes().map(TokenId::from).collect();
            let mut scanned = start.clone();
            bpe.scan(&mut scanned, &mut Vec::new());
            prop_assert_eq!(&scanned, &expected);
            let mut heaped = start;
            bpe.heap(&mut heaped);
            prop_assert_eq!(&heaped, &expected);
        }
    }

    #[test]
    fn a_megabyte_without_a_space_is_merged() {
        let mut bpe = Bpe::new(std::array::from_fn(|byte| byte as TokenId), 3);
        let a = TokenId::from(b'a');
        bpe.push(a, a, 0, 256);
        bpe.push(256, 256, 1, 257);
        bpe.push(257, 257, 2, 258);
        let mut out = Vec::new();
        bpe.encode(&[b'a'; 1_000_003], &mut Scratch::default(), &mut out);
        assert_eq!(out.len(), 125_002);
        assert!(out[..125_000].iter().all(|&token| token == 258));
        assert_eq!(out[125_000..], [256, a]);
    }

    #[test]
    fn of_two_merges_of_a_pair_the_first_counts() {
        let mut bpe = Bpe::new(std::array::from_fn(|byte| byte as TokenId), 3);
        bpe.push(1, 2, 0, 300);
        bpe.push(1, 2, 1, 301);
        let mut out = Vec::new();
        bpe.encode(&[1, 2], &mut Scratch::default(), &mut out);
        assert_eq!(out, [300]);
    }
}
