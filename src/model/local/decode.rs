//! Writes an answer: samples under the mask of the grammar, appends what is forced without sampling, tries drafts in one
//! batch. At each place the token is what it would be alone (randomness is a function of seed and position, and logits do
//! not depend on the batch), so drafts change how long it takes and nothing else. `replay` goes along an answer that was
//! written before.

mod replay;

pub(super) use replay::Against;
pub use replay::{Difference, Replayed};

use super::drafts::{Copied, Kind, Matches, Record};
use super::{LocalModel, PENALTY_BEFORE, broken, emit};
use crate::chat::{ChatFormat, ToolCallParser};
use crate::engine::sampler::{Sampler, TokenMask};
use crate::engine::tokenizer::{Tokenizer, Utf8Stream};
use crate::engine::{EngineError, TokenId, Want};
use crate::model::grammar::{Grammar, Turn, Writing};
use crate::model::tail::Tail;
use crate::model::{ModelError, ModelEvent, Request, StopReason};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Which of the aids are used; all are, but to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoding {
    pub masks: bool,
    pub drafts: bool,
}

impl Default for Decoding {
    fn default() -> Self {
        Self { masks: true, drafts: true }
    }
}

/// What the last answer took, for whoever measures.
#[derive(Debug, Clone, Default)]
pub struct DecodeStats {
    /// Tokens written, and those of them that were forced or drafted.
    pub tokens: usize,
    pub forced: usize,
    pub drafted: usize,
    /// Tokens of drafts that did not stand.
    pub rejected: usize,
    /// Batches that were run.
    pub batches: usize,
    pub time: Duration,
    /// What the mask took at each place that was sampled.
    pub masks: Vec<Duration>,
    /// All that was written, tags and all.
    pub text: String,
}

/// An answer as it is written.
struct Answer<'a, 'e> {
    tokenizer: &'a Tokenizer,
    sampler: Sampler,
    turn: Option<Turn<'a>>,
    /// Masks where there is no grammar: of the first token, and of the others.
    plain: (TokenMask, TokenMask),
    parser: ToolCallParser,
    utf8: Utf8Stream,
    tail: Tail,
    /// The text that ends the answer, and what was written, where there is such a text.
    ends: Option<&'a str>,
    so_far: String,
    on_event: &'e mut dyn FnMut(ModelEvent),
    /// Tokens of the sequence before the answer.
    start: usize,
    /// The whole conversation, and what of it the penalty looks at begins here.
    tokens: Vec<TokenId>,
    penalty_from: usize,
    /// Tokens that must come next; `unforced`: at this place none must.
    must: VecDeque<TokenId>,
    unforced: bool,
    /// What asking the grammar took at this place.
    asked: Duration,
    stats: DecodeStats,
}

/// What comes at a place.
enum Next {
    Token(TokenId),
    Stop,
}

impl Answer<'_, '_> {
    fn written(&self) -> usize {
        self.tokens.len() - self.start
    }

    /// The token at the next place, whose logits these are.
    fn next(&mut self, logits: &mut [f32]) -> Next {
        if let Some(token) = self.forced() {
            return Next::Token(token);
        }
        let begun = Instant::now();
        let position = self.tokens.len() as u64;
        let recent = &self.tokens[self.penalty_from..];
        let token = match &mut self.turn {
            Some(turn) => {
                let mask = turn.mask();
                self.stats.masks.push(self.asked + begun.elapsed());
                // A grammar that has come to where nothing fits gives way.
                let mask = if mask.is_empty() { &self.plain.1 } else { &*mask };
                self.sampler.sample(logits, recent, Some(mask), position)
            }
            None => {
                let (first, others) = &self.plain;
                let mask = if self.tokens.len() == self.start { first } else { others };
                self.sampler.sample(logits, recent, Some(mask), position)
            }
        };
        if self.tokenizer.stops().contains(&token) { Next::Stop } else { Next::Token(token) }
    }

    /// The next token, if no other may come.
    fn forced(&mut self) -> Option<TokenId> {
        if self.must.is_empty()
            && !self.unforced
            && let Some(turn) = self.turn.as_ref().filter(|turn| !turn.is_outside())
        {
            let begun = Instant::now();
            self.must.extend(turn.forced());
            self.asked = begun.elapsed();
            self.unforced = self.must.is_empty();
        }
        let token = self.must.pop_front();
        self.stats.forced += usize::from(token.is_some());
        token
    }

    /// Takes a token in; what it stops the answer for, if it does.
    fn accept(&mut self, token: TokenId) -> Option<StopReason> {
        self.tokens.push(token);
        self.unforced = false;
        self.asked = Duration::ZERO;
        self.stats.tokens += 1;
        let bytes = self.tokenizer.bytes(token);
        if let Some(turn) = &mut self.turn {
            turn.push(bytes);
        }
        let text = self.utf8.push(bytes);
        self.show(&text)
    }

    fn show(&mut self, text: &str) -> Option<StopReason> {
        if text.is_empty() {
            return None;
        }
        self.parser.push(text).into_iter().for_each(|event| emit(event, self.on_event));
        if let Some(end) = self.ends {
            self.so_far.push_str(text);
            if self.so_far.contains(end) {
                return Some(StopReason::End);
            }
        }
        self.tail.repeats(text).then_some(StopReason::Repetition)
    }
}

impl LocalModel {
    /// Generates until a stop token; returns what was read, why it stopped, and how many tokens it is. With `against`
    /// nothing is generated: the tokens there are what is compared.
    pub(super) fn decode(
        &mut self,
        request: &Request<'_>,
        opening: &str,
        logits: Vec<f32>,
        on_event: &mut dyn FnMut(ModelEvent),
        against: Option<&mut Against<'_>>,
    ) -> Result<(ToolCallParser, StopReason, usize), ModelError> {
        let mut params = self.sampling.clone();
        params.seed = request.sampling.seed;
        if let Some(temperature) = request.sampling.temperature {
            params.temperature = temperature;
        }
        // What is copied repeats what stands before it.
        if request.frame.is_some() {
            params.repetition_penalty = 1.0;
        }
        let plain = self.plain_masks(request.words_only);
        let mut grammar = self.take_grammar(request);
        let start = self.sequence.tokens().len();
        let room = self.sequence.capacity().saturating_sub(start + 8);
        let most =
            if request.sampling.max_tokens == 0 { room } else { request.sampling.max_tokens.min(room) };
        let opened_think = self.info.format == ChatFormat::Thinking;
        let mut turn = grammar.as_mut().map(|grammar| Turn::new(grammar, &self.tokenizer, request.values));
        if let Some(turn) = &mut turn {
            turn.push(opening.as_bytes());
        }
        let mut answer = Answer {
            tokenizer: &self.tokenizer,
            sampler: Sampler::new(params, logits.len()),
            turn,
            plain,
            parser: ToolCallParser::new(self.info.format, request.tools, opened_think),
            utf8: Utf8Stream::default(),
            tail: Tail::default(),
            ends: request.frame.map(|frame| frame.ends),
            so_far: String::new(),
            on_event,
            start,
            tokens: self.sequence.tokens().to_vec(),
            penalty_from: start.saturating_sub(PENALTY_BEFORE),
            must: VecDeque::new(),
            unforced: false,
            asked: Duration::ZERO,
            stats: DecodeStats::default(),
        };
        answer.parser.push(opening).into_iter().for_each(|event| emit(event, answer.on_event));
        let begun = Instant::now();
        let mut run = Run {
            engine: self.engine.as_mut(),
            sequence: &mut self.sequence,
            record: &mut self.record,
            format: self.info.format,
            drafts: self.decoding.drafts,
            cancel: request.cancel,
            most,
            matches: Matches::default(),
            escaped: None,
            copied: Copied::default(),
            replaced: None,
            instead: None,
        };
        let stopped = match against {
            None => run.all(&mut answer, logits),
            Some(against) => run.compare(&mut answer, logits, against),
        };
        answer.stats.time = begun.elapsed();
        let rest = answer.utf8.finish();
        answer.show(&rest);
        let written = answer.written();
        answer.stats.text = answer.tokenizer.decode(&answer.tokens[start..]);
        let Answer { parser, stats, turn, .. } = answer;
        drop(turn);
        self.stats = stats;
        self.grammar = grammar;
        Ok((parser, stopped?, written))
    }

    /// Masks of an answer that no grammar holds: of its first token, and of the others.
    fn plain_masks(&self, words_only: bool) -> (TokenMask, TokenMask) {
        let mut others = self.allowed.clone();
        if words_only {
            self.deny_calls(&mut others);
        }
        // Words do not begin with a brace either.
        let mut first = others.clone();
        if words_only {
            self.deny_text(&mut first, b"{");
        }
        (first, others)
    }

    /// The grammar of the request's tools, which is taken from the model for the time of an answer.
    fn take_grammar(&mut self, request: &Request<'_>) -> Option<Grammar> {
        if !self.decoding.masks || request.words_only || request.tools.is_empty() {
            return None;
        }
        let known = self.grammar.take();
        let held = request.values.is_some();
        if known.is_some() && self.grammar_of.1 == held && self.grammar_of.0 == request.tools {
            return known;
        }
        let vocabulary = self
            .trie
            .get_or_insert_with(|| Grammar::vocabulary(&self.tokenizer, self.engine.config().vocab))
            .clone();
        self.grammar_of = (request.tools.to_vec(), held);
        Grammar::new(self.info.format, request.tools, request.values, vocabulary)
    }

    /// What the last answer took.
    pub fn stats(&self) -> &DecodeStats {
        &self.stats
    }

    pub fn set_decoding(&mut self, decoding: Decoding) {
        self.decoding = decoding;
    }

    /// What is drafted follows from this and not from the clock: each further token of a batch costs so much of the
    /// first.
    pub fn assume_batches(&mut self, further: f64) {
        self.record = Record::said(further);
    }
}

/// What an answer is run with.
struct Run<'a> {
    engine: &'a mut dyn crate::engine::backend::Backend,
    sequence: &'a mut crate::engine::Sequence,
    record: &'a mut super::drafts::Record,
    format: ChatFormat,
    drafts: bool,
    cancel: &'a AtomicBool,
    most: usize,
    matches: Matches,
    /// The same within a call, where the format writes text otherwise there.
    escaped: Option<Escaped>,
    copied: Copied,
    /// Where the text that is being replaced begins among the tokens.
    replaced: Option<usize>,
    /// Where what comes instead begins.
    instead: Option<usize>,
}

/// A context in the words of a call, and the answer behind it.
struct Escaped {
    tokens: Vec<TokenId>,
    /// Tokens of the context.
    context: usize,
    matches: Matches,
}

/// What may come next, and where in the context it stands (within `Escaped`: true), if it is from there.
struct Guess {
    kind: Kind,
    tokens: Vec<TokenId>,
    from: Option<(usize, bool)>,
}

impl Run<'_> {
    /// Writes on until something stops it. What was accepted is in the sequence at the end, unless it was cancelled.
    fn all(&mut self, answer: &mut Answer<'_, '_>, mut logits: Vec<f32>) -> Result<StopReason, ModelError> {
        // Tokens that were accepted and are not in the sequence yet; the logits are those after the others.
        let mut ahead: Vec<TokenId> = Vec::new();
        let vocab = self.engine.config().vocab;
        loop {
            if self.cancel.load(Ordering::Relaxed) {
                return Ok(StopReason::Cancelled);
            }
            if ahead.is_empty() {
                if answer.written() >= self.most {
                    return Ok(StopReason::Length);
                }
                match answer.next(&mut logits) {
                    Next::Stop => return Ok(StopReason::End),
                    Next::Token(token) => ahead.push(token),
                }
                if let Some(reason) = answer.accept(ahead[0]) {
                    return Ok(reason);
                }
            }
            while answer.written() < self.most
                && let Some(token) = answer.forced()
            {
                ahead.push(token);
                if let Some(reason) = answer.accept(token) {
                    return Ok(reason);
                }
            }
            let left = self.most - answer.written();
            let draft = if self.drafts { self.draft(answer, ahead.len(), left) } else { None };
            let (kind, draft, from) = draft.map_or((None, Vec::new(), None), |draft| {
                let Guess { kind, tokens, from } = draft;
                (Some(kind), tokens, from)
            });
            let settled = self.sequence.tokens().len() + ahead.len();
            let first = ahead.len() - 1;
            ahead.extend_from_slice(&draft);
            let want = if draft.is_empty() { Want::Last } else { Want::All };
            let begun = Instant::now();
            match self.engine.append(self.sequence, &ahead, want, self.cancel, &mut |_| {}) {
                Ok(rows) => logits = rows,
                Err(EngineError::Cancelled) => return Ok(StopReason::Cancelled),
                Err(error) => return Err(broken(error)),
            }
            self.record.took(ahead.len(), begun.elapsed());
            answer.stats.batches += 1;
            ahead.clear();
            let Some(kind) = kind else { continue };
            // The draft stands as far as it is what comes anyway.
            let mut right = 0;
            let stopped = loop {
                let row = &mut logits[(first + right) * vocab..][..vocab];
                if right == draft.len() {
                    break None;
                }
                let token = match answer.next(row) {
                    Next::Stop => break Some(StopReason::End),
                    Next::Token(token) => token,
                };
                let agrees = token == draft[right];
                right += usize::from(agrees);
                if let Some(reason) = answer.accept(token) {
                    break Some(reason);
                }
                if !agrees {
                    ahead.push(token);
                    break None;
                }
            };
            self.record.judge(kind, right, right == draft.len());
            if let Some((place, within)) = from {
                self.copied.went_on(place, right, within);
            }
            answer.stats.drafted += right;
            answer.stats.rejected += draft.len() - right;
            self.sequence.truncate(settled + right);
            if let Some(reason) = stopped {
                return Ok(reason);
            }
            if right == draft.len() {
                logits.drain(..(first + right) * vocab);
            }
        }
    }

    /// What was written and stands before it, as it is looked through for what comes next. Within a call the context is
    /// looked at as the format would write it there: a file that was read as lines is written as one JSON string.
    fn context<'s>(&'s mut self, answer: &'s Answer<'_, '_>) -> (&'s [TokenId], &'s mut Matches, bool) {
        let is_call = answer.turn.as_ref().is_some_and(|turn| !turn.is_outside());
        if !is_call || self.format.value_text("\n") == "\n" {
            return (&answer.tokens, &mut self.matches, false);
        }
        let escaped = self.escaped.get_or_insert_with(|| {
            let context = answer.tokenizer.decode(&answer.tokens[..answer.start]);
            let tokens = answer.tokenizer.encode(&self.format.value_text(&context), false);
            Escaped { context: tokens.len(), tokens, matches: Matches::default() }
        });
        let known = escaped.tokens.len() - escaped.context;
        escaped.tokens.extend_from_slice(&answer.tokens[answer.start + known..]);
        (&escaped.tokens, &mut escaped.matches, true)
    }

    /// What follows the longest match of the end of what was written; or what goes on with what was being copied, where
    /// that has come true more often.
    fn copy(&mut self, answer: &Answer<'_, '_>) -> Option<(usize, Guess)> {
        let copied = self.copied.clone();
        let (tokens, matches, within) = self.context(answer);
        let longest = matches.find(tokens).map(|(at, length)| (at, length, Kind::Match(length)));
        let resumed = copied.resume(tokens, within);
        let resumed = resumed.map(|(at, length)| (at, length, Kind::Resumed(length)));
        let guess = |(at, length, kind): (usize, usize, Kind)| {
            let tokens = tokens[at..].iter().copied().take(64).collect();
            (length, Guess { kind, tokens, from: Some((at, within)) })
        };
        let (longest, resumed) = (longest.map(guess), resumed.map(guess));
        match (longest, resumed) {
            (Some(a), Some(b)) if self.record.likely(b.1.kind) > self.record.likely(a.1.kind) => Some(b),
            (Some(a), _) => Some(a),
            (None, b) => b,
        }
    }

    /// What will come after the tokens so far, of which `ahead` are to be appended anyway.
    fn draft(&mut self, answer: &Answer<'_, '_>, ahead: usize, left: usize) -> Option<Guess> {
        let tokens = &answer.tokens[..];
        let copy = self.copy(answer);
        let length = copy.as_ref().map_or(0, |(length, _)| *length);
        let writing = answer.turn.as_ref().map_or(Writing::Free, Turn::writing);
        match writing {
            Writing::TextOfFile { .. } => {
                self.replaced.get_or_insert(tokens.len());
                self.instead = None;
            }
            Writing::Instead => {
                self.instead.get_or_insert(tokens.len());
            }
            Writing::Free => (self.replaced, self.instead) = (None, None),
            Writing::Marks => {}
        }
        let beside = ahead - 1;
        let own = |kind, tokens| Guess { kind, tokens, from: None };
        let mut guess = match writing {
            Writing::TextOfFile { places: 1 } if length < 6 => {
                let rest = answer.turn.as_ref()?.rest_of_file()?;
                own(Kind::File, answer.tokenizer.encode(&self.format.value_text(&rest), false))
            }
            Writing::Instead if self.replaced.is_some() && self.instead == Some(tokens.len()) => {
                let from = self.replaced?;
                own(Kind::Replaced, tokens[from..].iter().copied().take(64).collect())
            }
            Writing::Marks => return None,
            _ => copy?.1,
        };
        guess.tokens.truncate(left.min(self.sequence.capacity().saturating_sub(tokens.len() + 1)));
        guess.tokens.truncate(self.record.length(guess.kind, guess.tokens.len(), beside));
        (!guess.tokens.is_empty()).then_some(guess)
    }
}
