//! From logits to one token. Order: repetition penalty, mask, temperature, top-k, top-p, min-p.
//!
//! Randomness is a function of (seed, position): nothing is carried from one position to the next, so a token does
//! not depend on how the text before it came about (chunks, drafts, a cached prefix). All ties go to the lowest id.
//!
//! Every filter keeps the best so many of what the filter before it kept. So the candidates are put in order from
//! the best on, as far as they are needed, and never all 150,000 of them. What the recent tokens are, and which
//! tokens are allowed, is the caller's to say.
use super::TokenId;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SamplingParams {
    pub seed: u64,
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 is off.
    pub top_k: usize,
    /// 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub min_p: f32,
    /// 1 is off.
    pub repetition_penalty: f32,
}

/// Which tokens may come next; a bit per token. Ids at or beyond its length are denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenMask {
    /// Bit `id % 64` of word `id / 64`; bits from `len` on are zero.
    words: Vec<u64>,
    len: usize,
}

impl TokenMask {
    pub fn none(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    pub fn all(len: usize) -> Self {
        let mut words = vec![u64::MAX; len / 64];
        if !len.is_multiple_of(64) {
            words.push((1 << (len % 64)) - 1);
        }
        Self { words, len }
    }

    /// Tokens it speaks of, allowed or not.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it allows nothing.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Tokens it allows.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    fn word_and_bit(&self, id: TokenId) -> Option<(usize, u64)> {
        let id = usize::try_from(id).ok().filter(|&id| id < self.len)?;
        Some((id / 64, 1 << (id % 64)))
    }

    /// An id beyond the length stays denied.
    pub fn allow(&mut self, id: TokenId) {
        if let Some((word, bit)) = self.word_and_bit(id) {
            self.words[word] |= bit;
        }
    }

    pub fn deny(&mut self, id: TokenId) {
        if let Some((word, bit)) = self.word_and_bit(id) {
            self.words[word] &= !bit;
        }
    }

    pub fn contains(&self, id: TokenId) -> bool {
        self.word_and_bit(id).is_some_and(|(word, bit)| self.words[word] & bit != 0)
    }

    /// Denies what `other` denies.
    pub fn intersect(&mut self, other: &TokenMask) {
        for (at, word) in self.words.iter_mut().enumerate() {
            *word &= other.words.get(at).copied().unwrap_or(0);
        }
    }

    /// Allows what `other` allows, as far as this mask reaches.
    pub fn union(&mut self, other: &TokenMask) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
        if let (Some(last), tail @ 1..) = (self.words.last_mut(), self.len % 64) {
            *last &= (1 << tail) - 1;
        }
    }

    /// The allowed tokens, ascending.
    pub fn iter(&self) -> impl Iterator<Item = TokenId> {
        (0..).zip(&self.words).flat_map(|(at, &word)| bits(word).map(move |bit| at * 64 + bit))
    }
}

/// The places of the ones, ascending.
fn bits(mut word: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros())?;
        word &= word - 1;
        Some(bit)
    })
}

/// A token and its logit in one number, the better the smaller: ascending order is from the best logit to the worst,
/// equals by id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate(u64);

impl Candidate {
    /// `logit` is not NaN. Infinity counts as the largest number, so that differences of logits are numbers.
    fn new(logit: f32, id: TokenId) -> Self {
        // A sum with zero has no negative zero.
        let bits = (logit.min(f32::MAX) + 0.0).to_bits();
        // Ascending as numbers: the sign bit flipped, of negative numbers all the bits.
        let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
        Self(u64::from(!ascending) << 32 | u64::from(id))
    }

    fn id(self) -> TokenId {
        self.0 as u32
    }

    fn logit(self) -> f32 {
        let ascending = !((self.0 >> 32) as u32);
        f32::from_bits(if ascending >> 31 == 1 { ascending & !(1 << 31) } else { !ascending })
    }
}

pub struct Sampler {
    params: SamplingParams,
    vocab: usize,
    /// Scratch: tokens that had their penalty. Empty between calls.
    penalised: TokenMask,
    /// Scratch: what is still in the running.
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// `vocab`: the tokens that have a meaning; logits beyond it are padding and never looked at.
    pub fn new(params: SamplingParams, vocab: usize) -> Self {
        Self { params, vocab, penalised: TokenMask::none(vocab), candidates: Vec::new() }
    }

    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// Picks the token for absolute position `position`. `recent`: the tokens of this answer and the 64 before it.
    /// `mask`: tokens that may come; it must allow at least one, as one that allows nothing has no answer and counts
    /// as absent. `logits` is scratch and may be changed. NaN counts as minus infinity; where no token that may
    /// come has a better logit than that, the lowest of them is picked.
    pub fn sample(
        &mut self,
        logits: &mut [f32],
        recent: &[TokenId],
        mask: Option<&TokenMask>,
        position: u64,
    ) -> TokenId {
        let count = logits.len().min(self.vocab);
        let logits = &mut logits[..count];
        self.penalise(logits, recent);
        let mask = mask.filter(|mask| mask.iter().next().is_some_and(|id| (id as usize) < count));
        // NaN is greedy too.
        let greedy = self.params.temperature.partial_cmp(&0.0) != Some(Ordering::Greater);
        let top_k = match self.params.top_k {
            _ if greedy => 1,
            0 => usize::MAX,
            k => k,
        };
        self.keep_top(logits, mask, top_k);
        match self.candidates[..] {
            [] => mask.and_then(|mask| mask.iter().next()).unwrap_or(0),
            [only] => only.id(),
            _ => self.draw(uniform(self.params.seed, position)),
        }
    }

    /// Each distinct token once: towards less likely by the factor.
    fn penalise(&mut self, logits: &mut [f32], recent: &[TokenId]) {
        let penalty = self.params.repetition_penalty;
        if penalty.partial_cmp(&0.0) != Some(Ordering::Greater) || penalty == 1.0 {
            return;
        }
        for &id in recent {
            if let Some(logit) = logits.get_mut(id as usize)
                && !self.penalised.contains(id)
            {
                self.penalised.allow(id);
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
        for &id in recent {
            self.penalised.deny(id);
        }
    }

    /// Fills `candidates` with the `top_k` best of what `mask` allows, in any order.
    fn keep_top(&mut self, logits: &[f32], mask: Option<&TokenMask>, top_k: usize) {
        let candidates = &mut self.candidates;
        candidates.clear();
        // So many that the selection, which takes time in proportion, comes seldom.
        let full = top_k.saturating_mul(2).max(256);
        // What a logit has to exceed. A later token that equals it would lose by its id.
        let mut threshold = f32::NEG_INFINITY;
        for (at, chunk) in logits.chunks(64).enumerate() {
            let allowed = mask.map_or(u64::MAX, |mask| mask.words.get(at).copied().unwrap_or(0));
            if allowed == 0 || largest(chunk) <= threshold {
                continue;
            }
            for (bit, &logit) in chunk.iter().enumerate() {
                if logit > threshold && allowed >> bit & 1 == 1 {
                    candidates.push(Candidate::new(logit, (at * 64 + bit) as TokenId));
                }
            }
            if candidates.len() >= full {
                let (_, worst, _) = candidates.select_nth_unstable(top_k - 1);
                threshold = worst.logit();
                candidates.truncate(top_k);
            }
        }
        if candidates.len() > top_k {
            candidates.select_nth_unstable(top_k - 1);
            candidates.truncate(top_k);
        }
    }

    /// Temperature, top-p and min-p over `candidates`, then the one in whose part of the probability `u`, a number in
    /// [0, 1), falls, counted from the best on. There is at least one candidate.
    fn draw(&mut self, u: f64) -> TokenId {
        let SamplingParams { temperature, top_p, min_p, .. } = self.params;
        let mut order = Ordered { candidates: &mut self.candidates, sorted: 0 };
        let best = order.get(0).map_or(0.0, Candidate::logit);
        // Probabilities as multiples of the best one's.
        let weight = |candidate: Candidate| {
            ((f64::from(candidate.logit()) - f64::from(best)) / f64::from(temperature)).exp()
        };
        let has_top_p = top_p < 1.0;
        let has_min_p = min_p > 0.0;
        let (mut mass, mut kept) = (1.0, 1);
        if has_top_p || !has_min_p {
            mass = order.candidates.iter().map(|&candidate| weight(candidate)).sum();
            kept = order.candidates.len();
        }
        if has_top_p || has_min_p {
            let nucleus = if has_top_p { f64::from(top_p) * mass } else { f64::INFINITY };
            (mass, kept) = (1.0, 1);
            while mass < nucleus
                && let Some(weight) = order.get(kept).map(weight)
                && !(has_min_p && weight < f64::from(min_p))
            {
                (mass, kept) = (mass + weight, kept + 1);
            }
        }
        let mut rest = u * mass;
        for at in 0..kept - 1 {
            let Some(candidate) = order.get(at) else { break };
            rest -= weight(candidate);
            if rest < 0.0 {
                return candidate.id();
            }
        }
        order.get(kept - 1).map_or(0, Candidate::id)
    }
}

/// The largest number in at most 64; NaN is no number. In lanes, so that the compiler makes vectors of it.
fn largest(chunk: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    for part in chunk.chunks(16) {
        for (lane, &logit) in lanes.iter_mut().zip(part) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
}

/// Candidates of which the first `sorted` are the best ones, in order; more as they are asked for.
struct Ordered<'a> {
    candidates: &'a mut [Candidate],
    sorted: usize,
}

impl Ordered<'_> {
    fn get(&mut self, at: usize) -> Option<Candidate> {
        while at >= self.sorted && self.sorted < self.candidates.len() {
            let rest = &mut self.candidates[self.sorted..];
            let more = rest.len().min(self.sorted.max(64) * 2);
            if more < rest.len() {
                rest.select_nth_unstable(more);
            }
            rest[..more].sort_unstable();
            self.sorted += more;
        }
        self.candidates.get(at).copied()
    }
}

/// A number in [0, 1) for a seed and a position: the mixing function of SplitMix64 (Steele, Lea and Flood, 2014) as
/// a hash of both.
pub fn uniform(seed: u64, position: u64) -> f64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |mut x: u64| {
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    };
    let of_seed = mix(seed.wrapping_add(GOLDEN));
    let bits = mix(of_seed ^ mix(position.wrapping_mul(GOLDEN).wrapping_add(GOLDEN)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests;
