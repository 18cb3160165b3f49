//! A search for a better version of a text. The model is shown a text, as if it had begun to write it again; where it
//! would rather have gone on in another way, that other way is followed until it meets the text again. The versions come
//! the likeliest first, each once: sampling without replacement (Kool, van Hoof and Welling, 2019: a Gumbel number on
//! each branch), at the price of one prefill of the text and a short decode for each version, in which the text itself
//! is the draft. Two neighbouring statements in the other order (`moves`) are versions too, without a decode. Whether a
//! version is any good is for the caller to find out: a test, say.

mod moves;
mod shared;
mod text;

pub use shared::{Shared, lock};

use crate::engine::backend::Backend;
use crate::engine::sampler::uniform;
use crate::engine::score::{Scored, likeliest};
use crate::engine::tokenizer::Tokenizer;
use crate::engine::{EngineError, Sequence, TokenId, Want};
use crate::model::Usage;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use text::{essence, is_comment, is_head, kinship, rejoin, tells};

/// Other tokens that are considered at a place of the text, and at one of a version.
const OTHERS: usize = 8;
const SIBLINGS: usize = 3;
/// The first tokens of a version at which it may branch again.
const BRANCHING: usize = 5;
/// Tokens of a version between the place where it leaves the text and the place where it meets it again.
const LONGEST: usize = 96;
/// Branches that are followed at once: few while the first versions are waited for, then as many as cost little more.
const NARROW: usize = 2;
const WIDE: usize = 8;
/// Tokens of a batch, drafts included, and those of one branch at most.
const BATCH: usize = 48;
const DRAFT: usize = 16;
/// A guess is worth trying where it is right this often: one more token in a batch of some takes a third of what a token
/// costs there (measured on two cores: 8 in 93 ms, 16 in 120, 49 in 245).
const WORTH: f32 = 0.35;
/// How much less likely than the branch before it in a batch one is to be needed: versions are asked for one at a time,
/// and the right one may come first.
const NEEDED: f32 = 0.9;
/// Kinds of guesses, by how many of the tokens before agree with the text, and how often each is right at first.
const KINDS: usize = 6;
const RIGHT: [f32; KINDS] = [0.5, 0.5, 0.6, 0.7, 0.8, 0.9];
/// Branches that are held as far as they were followed.
const KEPT_OPEN: usize = 16;
/// Tokens that are compared, and around where a version stands.
const NEAR: usize = 12;
/// Room in the sequence that a version can need beside the text.
pub const SLACK: usize = LONGEST + DRAFT + 8;

/// What each version of a line that came, and so was of no use, takes from the others that leave the text there, in
/// units of log-probability: the fault is the less likely to lie there.
const STALE: f32 = 0.5;

/// What each line that a version changes beyond the first takes: most mistakes lie in one line (Karampatsis and Sutton,
/// 2020), and what a model rewrites at length says the same in other words.
const LINE: f32 = 1.5;
/// What a line takes that declares something, an import or a head of a function: code that runs and is wrong is
/// seldom wrong there.
const HEAD: f32 = 2.0;

/// What two statements that change places get: the wrong order is a mistake that people make.
const MOVED: f32 = 2.0;

/// A branch: `path` instead of the text's tokens from `at` on.
#[derive(Debug, Clone, Default, PartialEq)]
struct Branch {
    /// Tells it from all others of the search.
    id: u64,
    /// Log-probability against that of the text as it stands, with `luck`, less what versions of its line took.
    score: f32,
    /// The Gumbel number of the branch, times the temperature.
    luck: f32,
    at: usize,
    path: Vec<TokenId>,
    /// Versions of its line that took from the score.
    charged: usize,
    /// The whole version, where the branch was followed to its end.
    done: Option<String>,
}

impl Eq for Branch {}
impl Ord for Branch {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let by_place = || other.at.cmp(&self.at).then_with(|| other.path.cmp(&self.path));
        self.score.total_cmp(&other.score).then_with(by_place)
    }
}
impl PartialOrd for Branch {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A branch that is followed, as the engine has it: all of its path but `feed`.
struct Open {
    sequence: Sequence,
    feed: Vec<TokenId>,
}

pub struct Search {
    text: String,
    /// Tokens of the text and of the fence that closes it.
    body: Vec<TokenId>,
    /// Where in the text each token begins.
    starts: Vec<usize>,
    /// Tokens in the sequence before the text.
    base: usize,
    seed: u64,
    temperature: f32,
    branches: BinaryHeap<Branch>,
    /// Versions that came, and the text itself, without what does not count.
    seen: HashSet<String>,
    /// Versions that came, by the line in which they leave the text, and all of them.
    came: HashMap<usize, usize>,
    given: usize,
    /// By their branches' numbers, the last of which is `ids`.
    open: HashMap<u64, Open>,
    ids: u64,
    /// How often a token of a guess of each kind was right, of late.
    right: [f32; KINDS],
    /// Memory holds several at once.
    wide: bool,
}

/// What the search works with.
pub struct Means<'a> {
    pub engine: &'a mut dyn Backend,
    pub sequence: &'a mut Sequence,
    pub tokenizer: &'a Tokenizer,
    /// The text is offered as what a version goes on with; the versions are the same without.
    pub drafts: bool,
    pub cancel: &'a AtomicBool,
}

impl Search {
    /// Appends `text` and the fence `close` to the sequence, scoring it. Only what stands before byte `until` may
    /// change. `None` if the tokens do not give the text back (it is not in the tokenizer's normal form).
    pub fn start(
        text: &str,
        close: &str,
        until: usize,
        (seed, temperature): (u64, f32),
        means: &mut Means<'_>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Option<Self>, EngineError> {
        let body = means.tokenizer.encode(&format!("{text}{close}"), false);
        if means.tokenizer.decode(&body) != format!("{text}{close}") {
            return Ok(None);
        }
        let base = means.sequence.tokens().len();
        // The last token before the text predicts its first: it is run again.
        let Some(&before) = means.sequence.tokens().last() else { return Ok(None) };
        means.sequence.truncate(base - 1);
        let mut tokens = vec![before];
        tokens.extend_from_slice(&body);
        let total = tokens.len();
        let scored =
            means.engine.append_scored(means.sequence, &tokens, OTHERS, means.cancel, &mut |done| {
                progress(done, total);
            })?;
        let mut starts = Vec::with_capacity(body.len());
        let mut at = 0;
        for &id in &body {
            starts.push(at);
            at += means.tokenizer.bytes(id).len();
        }
        let seen = HashSet::from([essence(text)]);
        let mut search = Self {
            text: text.to_string(),
            body,
            starts,
            base,
            seed,
            temperature,
            branches: BinaryHeap::new(),
            seen,
            came: HashMap::new(),
            given: 0,
            open: HashMap::new(),
            ids: 0,
            right: RIGHT,
            wide: true,
        };
        for (at, place) in scored.iter().enumerate() {
            let start = search.starts[at];
            let token = means.tokenizer.bytes(search.body[at]);
            if start >= until || search.in_comment(start, token) {
                continue;
            }
            let line = search.text[..start].rfind('\n').map_or(0, |at| at + 1);
            let head = if is_head(&search.text[line..]) { HEAD } else { 0.0 };
            for &(id, logprob) in &place.others {
                if tells(means.tokenizer.bytes(id), token) && !means.tokenizer.never_sampled(id) {
                    let other = means.tokenizer.bytes(id);
                    let known = kinship(&search.text, token, other);
                    search.branch(logprob - place.logprob + known - head, at, vec![id], 0);
                }
            }
        }
        search.moved(&scored, until, means.tokenizer);
        Ok(Some(search))
    }

    /// Appends what `start` did to a sequence that held the same before.
    fn join(&self, means: &mut Means<'_>) -> Result<(), EngineError> {
        let Some(&before) = means.sequence.tokens().last() else { return Ok(()) };
        means.sequence.truncate(self.base - 1);
        let tokens = [&[before], &self.body[..]].concat();
        means.engine.append(means.sequence, &tokens, Want::Nothing, means.cancel, &mut |_| {}).map(drop)
    }

    /// Lets go of memory; what was followed is read again where it goes on.
    pub fn let_go(&mut self) {
        self.open.clear();
    }

    /// Tokens in the sequence while no version is tried.
    pub fn len(&self) -> usize {
        self.base + self.body.len()
    }

    /// The next version; what was decoded for it is added to `usage`. `None`: there are no more.
    pub fn next(&mut self, means: &mut Means<'_>, usage: &mut Usage) -> Result<Option<String>, EngineError> {
        while let Some(mut best) = self.pop() {
            if let Some(version) = best.done.take() {
                let line = self.line(best.at);
                if self.seen.insert(essence(&version)) {
                    *self.came.entry(line).or_default() += 1;
                    self.given += 1;
                    return Ok(Some(version));
                }
                continue;
            }
            let (mut batch, mut done) = (vec![best], Vec::new());
            let width = if self.wide { (NARROW + self.given).min(WIDE) } else { 1 };
            while batch.len() < width
                && let Some(other) = self.pop()
            {
                if other.done.is_some() { done.push(other) } else { batch.push(other) }
            }
            self.branches.extend(done);
            self.follow(batch, means, usage)?;
        }
        Ok(None)
    }

    /// The likeliest branch, after versions of its line that came took from it.
    fn pop(&mut self) -> Option<Branch> {
        loop {
            let mut branch = self.branches.pop()?;
            let came = self.came.get(&self.line(branch.at)).copied().unwrap_or(0);
            if came == branch.charged {
                return Some(branch);
            }
            branch.score -= STALE * (came - branch.charged) as f32;
            branch.charged = came;
            self.branches.push(branch);
        }
    }

    fn line(&self, at: usize) -> usize {
        self.text[..self.starts[at].min(self.text.len())].matches('\n').count()
    }

    /// Decodes on from each of `batch`, the likeliest token each time, in one batch of the engine: a token, and as many
    /// of what the text is guessed to go on with as are right. Which come first is decided by their scores alone, and
    /// these do not depend on what is followed at the same time.
    fn follow(
        &mut self,
        batch: Vec<Branch>,
        means: &mut Means<'_>,
        usage: &mut Usage,
    ) -> Result<(), EngineError> {
        let mut runs: Vec<(Branch, Open, Vec<TokenId>)> = Vec::with_capacity(batch.len());
        let mut room = BATCH.saturating_sub(batch.len());
        for (rank, branch) in batch.into_iter().enumerate() {
            let open = self.open.remove(&branch.id).unwrap_or_else(|| Open {
                sequence: means.sequence.fork(self.base + branch.at),
                feed: branch.path.clone(),
            });
            let guess = self.guess(&branch).filter(|_| means.drafts);
            let draft = guess.map_or(&[][..], |(place, kind)| {
                // As long as all of it is right, and needed, often enough.
                let worth = (WORTH.ln() - rank as f32 * NEEDED.ln()) / self.right[kind].ln();
                let worth = worth.max(0.0) as usize;
                let rest = &self.body[place..];
                &rest[..worth.min(DRAFT).min(room).min(rest.len())]
            });
            let draft = draft.to_vec();
            room -= draft.len();
            usage.rejected += draft.len();
            runs.push((branch, open, draft));
        }
        // Those that are not followed now are read again when they are: they cost memory.
        if self.open.len() > KEPT_OPEN {
            self.open.clear();
        }
        let fed: Vec<Vec<TokenId>> =
            runs.iter().map(|(_, open, draft)| [&open.feed[..], draft].concat()).collect();
        let mut parts: Vec<(&mut Sequence, &[TokenId])> =
            runs.iter_mut().zip(&fed).map(|((_, open, _), fed)| (&mut open.sequence, &fed[..])).collect();
        let logits = match means.engine.append_many(&mut parts, means.cancel) {
            Ok(logits) => logits,
            Err(error) => {
                let full = matches!(error, EngineError::CacheFull { .. }) && parts.len() > 1;
                drop(parts);
                self.branches.extend(runs.into_iter().map(|(branch, ..)| branch));
                self.open.clear();
                // Where memory holds no more of them, one at a time.
                return if full && self.wide {
                    self.wide = false;
                    Ok(())
                } else {
                    Err(error)
                };
            }
        };
        let vocab = means.engine.config().vocab;
        let mut rows = &logits[..];
        for ((branch, open, draft), fed) in runs.into_iter().zip(&fed) {
            let (own, others) = rows.split_at(fed.len() * vocab);
            rows = others;
            self.read(branch, open, &draft, own, means, usage);
        }
        Ok(())
    }

    /// Takes in what the model says behind `feed` and each token of `draft` that it says as well.
    fn read(
        &mut self,
        mut branch: Branch,
        mut open: Open,
        draft: &[TokenId],
        logits: &[f32],
        means: &Means<'_>,
        usage: &mut Usage,
    ) {
        let vocab = means.engine.config().vocab;
        let kind = self.guess(&branch).map(|(_, kind)| kind);
        let mut agreed = 0;
        loop {
            let row = &logits[(open.feed.len() - 1 + agreed) * vocab..][..vocab];
            let mut best = likeliest(row, SIBLINGS + 1);
            best.retain(|(id, _)| !means.tokenizer.never_sampled(*id));
            let Some(&(token, logprob)) = best.first() else { return };
            let right = draft.get(agreed) == Some(&token);
            usage.completion += 1;
            usage.drafted += usize::from(right);
            usage.rejected -= usize::from(right);
            if let Some(kind) = kind.filter(|_| agreed < draft.len()) {
                let known = &mut self.right[kind];
                // Never so sure, nor so unsure, that it could not turn.
                *known = (*known + (f32::from(u8::from(right)) - *known) * 0.08).clamp(0.36, 0.97);
            }
            if means.tokenizer.stops().contains(&token) {
                return;
            }
            if branch.path.len() < BRANCHING {
                for &(id, other) in &best[1..] {
                    let mut path = branch.path.clone();
                    path.push(id);
                    self.branch(branch.score - branch.luck + other, branch.at, path, branch.charged);
                }
            }
            branch.score += logprob;
            branch.path.push(token);
            let written = means.tokenizer.decode(&branch.path);
            branch.done = rejoin(&self.text, self.starts[branch.at], &written);
            if branch.done.is_some() {
                self.branches.push(branch);
                return;
            }
            if branch.path.len() >= LONGEST {
                return;
            }
            if means.tokenizer.bytes(token).contains(&b'\n') && written.matches('\n').count() > 1 {
                branch.score -= LINE;
            }
            if !right {
                let held = open.sequence.tokens().len() - draft.len() + agreed;
                open.sequence.truncate(held);
                open.feed = vec![token];
                self.open.insert(branch.id, open);
                self.branches.push(branch);
                return;
            }
            agreed += 1;
        }
    }

    /// Where in the text what comes next may stand, and the kind of this guess: a single token in place of another most
    /// often leaves the rest of the line as it is, and where a version has come back to the text's own words, it most often
    /// goes on with them.
    fn guess(&self, branch: &Branch) -> Option<(usize, usize)> {
        match branch.path.len() {
            1 => Some((branch.at + 1, 0)),
            _ => back(&self.body, branch.at, &branch.path).map(|(place, same)| (place, same.min(KINDS - 1))),
        }
    }

    /// Two statements that change places are a version of their own, as likely as the model is to begin with the second one
    /// there. What else it would write is not asked: having begun so it would leave nothing out later on.
    fn moved(&mut self, scored: &[Scored], until: usize, tokenizer: &Tokenizer) {
        for moves::Swap { version, end } in moves::swaps(&self.text) {
            let differs = self.text.bytes().zip(version.bytes()).position(|(a, b)| a != b).unwrap_or(0);
            let at = self.starts.partition_point(|start| *start <= differs).saturating_sub(1);
            let Some(place) = scored.get(at).filter(|_| end <= until) else { continue };
            // A token may be a part of a character.
            let Some(written) = version.get(self.starts[at]..end) else { continue };
            let first = tokenizer.encode(written, false).first().copied();
            if let Some(&(id, logprob)) = place.others.iter().find(|(id, _)| first == Some(*id)) {
                let branch = self.branch_of(logprob - place.logprob + MOVED, at, vec![id], 0);
                self.branches.push(Branch { done: Some(version), ..branch });
            }
        }
    }

    fn branch(&mut self, plain: f32, at: usize, path: Vec<TokenId>, charged: usize) {
        let branch = self.branch_of(plain, at, path, charged);
        self.branches.push(branch);
    }

    fn branch_of(&mut self, plain: f32, at: usize, path: Vec<TokenId>, charged: usize) -> Branch {
        let place = path.iter().fold(at as u64, |hash, &id| hash.wrapping_mul(0x100_0193) ^ u64::from(id));
        let gumbel = -(-uniform(self.seed, place).max(1e-12).ln()).ln();
        let luck = self.temperature * gumbel as f32;
        self.ids += 1;
        let id = self.ids;
        Branch { id, score: plain + luck, luck, at, path, charged, ..Branch::default() }
    }

    fn in_comment(&self, start: usize, token: &[u8]) -> bool {
        let line = self.text[..start.min(self.text.len())].rsplit('\n').next().unwrap_or_default();
        is_comment(&format!("{line}{}", String::from_utf8_lossy(token)))
    }
}

/// Where in `body` what follows `written` stands, which took the place of the tokens from `at` on: behind the longest run of
/// tokens that are its last ones, of several the one nearest to where a version stands that replaces as many tokens as it
/// writes. One token alone tells something near there only. With it comes how many tokens of the run are the same.
fn back(body: &[TokenId], at: usize, written: &[TokenId]) -> Option<(usize, usize)> {
    let here = at + written.len();
    let found = (1..body.len()).filter_map(|end| {
        let ends = body[..end].iter().rev().zip(written.iter().rev());
        let same = ends.take(NEAR).take_while(|(a, b)| a == b).count();
        let away = end.abs_diff(here);
        (same > 1 || same == 1 && away <= NEAR).then_some((same, usize::MAX - away, end))
    });
    found.max().map(|(same, _, end)| (end, same))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_guessed_to_go_on_as_the_text_does_where_it_has_come_back_to_it() {
        let body = [1, 2, 3, 4, 5, 6, 2, 3, 9];
        for (at, written, place) in [
            (1, &[8, 3][..], Some((3, 1))),
            (1, &[8, 8, 8, 3], Some((3, 1))),
            (1, &[8, 8, 8, 4, 5], Some((5, 2))),
            (5, &[2, 3], Some((8, 2))),
            (5, &[7], None),
            (8, &[9], None),
            (0, &[], None),
        ] {
            assert_eq!(back(&body, at, written), place, "{at} {written:?}");
        }
    }

    #[test]
    fn branches_come_in_order_of_their_score() {
        let branch = |score, at| Branch { score, at, path: vec![1], ..Branch::default() };
        let mut heap = BinaryHeap::from([branch(-2.0, 1), branch(-1.0, 9), branch(-1.0, 3)]);
        assert_eq!(heap.pop(), Some(branch(-1.0, 3)));
        assert_eq!(heap.pop(), Some(branch(-1.0, 9)));
    }
}
