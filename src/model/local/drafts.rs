//! What an answer will probably say next, guessed from what it copies: the file that `old_string` is text of, the text
//! that `new_string` replaces, otherwise the longest match in the context, or where something that was being copied was
//! left for other words. A guess costs a larger batch; how large one
//! may be follows from what batches of each size took here, and from how often guesses of this kind came true.
//! Whether a guess stands is decided by the sampler, at each place as if alone: nothing here changes what is said.

use crate::engine::TokenId;
use std::collections::HashMap;
use std::time::Duration;

/// Tokens of a match that are looked up at once.
const LOOKED_UP: usize = 2;
/// Matches that are compared, the latest first, and how far back.
const CANDIDATES: usize = 256;
const LONGEST_MATCH: usize = 64;
/// How far before and behind the place where a copy was left it may go on.
const BACK: usize = 2;
const ON: usize = 12;
/// Copies that are kept in mind.
const COPIES: usize = 4;
/// Sizes of a guess.
const SIZES: [usize; 11] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48];
const MOST: usize = 48;

/// Where a guess comes from: each has its own record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The file that is being copied, where the text stands at one place.
    File,
    /// The text that is being replaced.
    Replaced,
    /// A match in the context of so many tokens, in classes.
    Match(usize),
    /// What was being copied goes on behind something else, of which so many tokens match there.
    Resumed(usize),
}

const KINDS: usize = 10;

impl Kind {
    fn number(self) -> usize {
        match self {
            Kind::File => 0,
            Kind::Replaced => 1,
            Kind::Match(length) => match length {
                0..=2 => 2,
                3 => 3,
                4..=5 => 4,
                6..=9 => 5,
                10..=19 => 6,
                _ => 7,
            },
            Kind::Resumed(0 | 1) => 8,
            Kind::Resumed(_) => 9,
        }
    }
}

/// What is known of batches and guesses; kept from answer to answer.
#[derive(Debug)]
pub struct Record {
    /// Seconds of a batch of so many tokens, smoothed; zero: not seen yet.
    seconds: [f64; MOST + 2],
    /// Of each kind: how likely each further token of a guess comes true.
    hits: [f64; KINDS],
    /// What batches take was said, and is not measured.
    said: bool,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            seconds: [0.0; MOST + 2],
            hits: [0.8, 0.7, 0.3, 0.4, 0.5, 0.65, 0.8, 0.9, 0.6, 0.85],
            said: false,
        }
    }
}

impl Record {
    /// Each further token of a batch costs so much of the first, whatever the clock says.
    pub fn said(further: f64) -> Self {
        let seconds = std::array::from_fn(|tokens| 1.0 + further * tokens.saturating_sub(1) as f64);
        Self { seconds, said: true, ..Self::default() }
    }

    pub fn took(&mut self, tokens: usize, time: Duration) {
        let Some(known) = self.seconds.get_mut(tokens).filter(|_| !self.said) else { return };
        let seconds = time.as_secs_f64();
        // One slow batch is the machine's doing: it must not stand for all.
        *known = if *known == 0.0 { seconds } else { *known * 0.8 + seconds.min(*known * 2.0) * 0.2 };
    }

    /// What a batch of `tokens` will take, from the sizes around it; each further token is taken for a sixth of the
    /// first until it is known.
    fn expected(&self, tokens: usize) -> Option<f64> {
        let first = *self.seconds.get(1).filter(|seconds| **seconds > 0.0)?;
        let known = |at: &usize| self.seconds.get(*at).is_some_and(|seconds| *seconds > 0.0);
        let below = (1..=tokens).rev().find(known).unwrap_or(1);
        let base = self.seconds[below].max(first);
        if below == tokens {
            return Some(base);
        }
        let steps = (tokens - below) as f64;
        Some(match (tokens + 1..self.seconds.len()).find(known) {
            Some(above) => {
                let slope = (self.seconds[above] - self.seconds[below]) / (above - below) as f64;
                base + slope.max(0.0) * steps
            }
            None => base + first / 6.0 * steps,
        })
    }

    /// How often a token of such a guess comes true.
    pub fn likely(&self, kind: Kind) -> f64 {
        self.hits[kind.number()]
    }

    /// How many tokens of a guess to try: as many as give the most tokens for the time, none where none does.
    pub fn length(&self, kind: Kind, offered: usize, beside: usize) -> usize {
        let hit = self.hits[kind.number()].min(0.995);
        let Some(plain) = self.expected(1 + beside) else { return 0 };
        let mut best = (1.0 / plain * 1.03, 0);
        for size in SIZES.into_iter().filter(|size| *size <= offered) {
            let Some(time) =
                self.expected(1 + beside + size).filter(|_| 1 + beside + size < self.seconds.len())
            else {
                break;
            };
            let tokens = (1.0 - hit.powi(size as i32 + 1)) / (1.0 - hit);
            if tokens / time > best.0 {
                best = (tokens / time, size);
            }
        }
        best.1
    }

    /// `right` tokens of a guess came true, and then one did not, unless it was all of it.
    pub fn judge(&mut self, kind: Kind, right: usize, whole: bool) {
        let hit = &mut self.hits[kind.number()];
        for _ in 0..right {
            *hit += (1.0 - *hit) * 0.06;
        }
        if !whole {
            *hit -= *hit * 0.12;
        }
        // A kind that failed is tried again now and then.
        *hit = hit.max(0.25);
    }
}

/// The context by its pairs of tokens, to find matches of its end.
#[derive(Debug, Default)]
pub struct Matches {
    /// The place after the latest such pair, and from there the one before it.
    latest: HashMap<[TokenId; LOOKED_UP], u32>,
    before: Vec<u32>,
}

const NOWHERE: u32 = u32::MAX;

impl Matches {
    /// Takes in `tokens`, which begin with those taken in before.
    fn index(&mut self, tokens: &[TokenId]) {
        for end in self.before.len()..tokens.len() {
            let pair = tokens[..end].last_chunk::<LOOKED_UP>();
            let place = u32::try_from(end).unwrap_or(NOWHERE);
            let earlier = pair.and_then(|pair| self.latest.insert(*pair, place));
            self.before.push(earlier.unwrap_or(NOWHERE));
        }
    }

    /// Where in `tokens` the longest match of their end goes on, and how long it is.
    pub fn find(&mut self, tokens: &[TokenId]) -> Option<(usize, usize)> {
        self.index(tokens);
        let pair = tokens.last_chunk::<LOOKED_UP>()?;
        let mut place = *self.latest.get(pair)?;
        let mut best: Option<(usize, usize)> = None;
        for _ in 0..CANDIDATES {
            let at = place as usize;
            if place == NOWHERE || at >= tokens.len() {
                break;
            }
            let ends = tokens[..at].iter().rev().zip(tokens.iter().rev());
            let length = ends.take(LONGEST_MATCH).take_while(|(a, b)| a == b).count();
            if best.is_none_or(|(_, longest)| length > longest) {
                best = Some((at, length));
            }
            place = self.before[at];
        }
        best.filter(|(_, length)| *length >= LOOKED_UP)
    }
}

/// Places of the context that were being copied, each where it was left for something else, and whether within the
/// context as a call writes it; the latest last.
#[derive(Debug, Clone, Default)]
pub struct Copied(Vec<(usize, bool)>);

impl Copied {
    /// `right` tokens from `place` on were copied.
    pub fn went_on(&mut self, place: usize, right: usize, within: bool) {
        self.0.retain(|(left, of)| *of != within || !near(*left).contains(&place));
        if self.0.len() == COPIES {
            self.0.remove(0);
        }
        self.0.push((place + right, within));
    }

    /// Where one of them goes on: where it was left or near it, behind as many of the last tokens as match there, of equally
    /// many the latest and nearest. At least one has to.
    pub fn resume(&self, tokens: &[TokenId], within: bool) -> Option<(usize, usize)> {
        let own = self.0.iter().enumerate().filter(|(_, (_, of))| *of == within);
        let found = own.flat_map(|(turn, (left, _))| {
            near(*left).filter(|at| *at < tokens.len()).filter_map(move |at| {
                let ends = tokens[..at].iter().rev().zip(tokens.iter().rev());
                let length = ends.take(LONGEST_MATCH).take_while(|(a, b)| a == b).count();
                (length > 0).then_some((length, turn, usize::MAX - at.abs_diff(*left), at))
            })
        });
        found.max().map(|(length, .., at)| (at, length))
    }
}

fn near(place: usize) -> std::ops::RangeInclusive<usize> {
    place.saturating_sub(BACK)..=place + ON
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_being_copied_goes_on_behind_something_else() {
        // 5 to 9 were copied as far as 6; 50 came in between, or in place of 7.
        let mut copied = Copied::default();
        assert_eq!(copied.resume(&[5, 6, 5], false), None);
        copied.went_on(0, 2, false);
        assert_eq!(copied.resume(&[5, 6, 7, 8, 9, 1, 5, 6, 50, 7], false), Some((3, 1)));
        assert_eq!(copied.resume(&[5, 6, 7, 8, 9, 1, 5, 6, 50, 8], false), Some((4, 1)));
        assert_eq!(copied.resume(&[5, 6, 7, 8, 9, 1, 5, 6, 50, 7, 8], false), Some((4, 2)));
        assert_eq!(copied.resume(&[5, 6, 7, 8, 9, 1, 5, 6, 50], false), None);
        assert_eq!(copied.resume(&[5, 6, 7, 8, 9, 1, 5, 6, 50, 7], true), None, "another text");
        assert_eq!(copied.resume(&[], false), None);
        // What goes on from where one was left is the same copy; others are kept beside it.
        copied.went_on(3, 1, false);
        assert_eq!(copied.0, [(4, false)]);
        copied.went_on(100, 5, false);
        copied.went_on(5, 1, false);
        assert_eq!(copied.0, [(105, false), (6, false)]);
        (0..9).for_each(|n| copied.went_on(1000 * n + 500, 0, false));
        assert_eq!(copied.0.len(), COPIES);
    }

    #[test]
    fn the_longest_match_of_the_end_is_found() {
        let mut matches = Matches::default();
        let tokens = [1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3];
        assert_eq!(matches.find(&tokens[..3]), None);
        assert_eq!(matches.find(&tokens[..7]), Some((3, 2)));
        assert_eq!(matches.find(&tokens), Some((3, 3)), "1 2 3 is longer than 2 3");
    }

    #[test]
    fn guesses_are_as_long_as_they_pay() {
        let mut record = Record::default();
        assert_eq!(record.length(Kind::File, 24, 0), 0, "nothing is known of time yet");
        let took = |record: &mut Record, per_token: f64| {
            for size in 1..=25 {
                record.took(size, Duration::from_secs_f64(0.03 + per_token * (size - 1) as f64));
            }
        };
        took(&mut record, 0.002);
        let cheap = record.length(Kind::File, 24, 0);
        assert!(cheap >= 8, "{cheap}");
        assert!(record.length(Kind::File, 3, 0) <= 3);
        for _ in 0..40 {
            record.judge(Kind::File, 0, false);
        }
        assert!(record.length(Kind::File, 24, 0) <= 2);
        let mut dear = Record::default();
        took(&mut dear, 0.03);
        assert_eq!(dear.length(Kind::Match(4), 24, 0), 0, "a batch of two costs two");
    }
}
