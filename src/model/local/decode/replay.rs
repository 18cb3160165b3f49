//! An answer that was written before, held against what would be written now: its tokens are fed to the model, and at each
//! place the token that is forced or sampled must be the recorded one. What comes after the first that is not says
//! nothing any more.

use super::{Answer, Next, Run};
use crate::chat::Message;
use crate::engine::{EngineError, TokenId, Want};
use crate::model::local::{LocalModel, broken};
use crate::model::{ModelError, Request, StopReason};

/// Tokens of a batch.
const PIECE: usize = 64;
/// Tokens of either side that a difference shows.
const SHOWN: usize = 12;

/// What came of comparing an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Tokens before the answer, as they are here.
    pub prompt: usize,
    /// Tokens that are the same.
    pub same: usize,
    pub difference: Option<Difference>,
    pub cancelled: bool,
}

/// The first place where an answer would have gone on in another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Tokens of the answer before it.
    pub at: usize,
    /// The text before it, the recorded text from there on, and what would come here; `None`: the answer ends.
    pub before: String,
    pub recorded: Option<String>,
    pub here: Option<String>,
}

/// The answer that is compared with, and what came of it.
pub(in crate::model::local) struct Against<'r> {
    recorded: &'r [TokenId],
    /// How many tokens agreed, and what came instead of the next one.
    different: Option<(usize, Option<TokenId>)>,
}

impl Run<'_> {
    /// As `all`, along the recorded tokens; the stop reason is the one that would have ended them here.
    pub(super) fn compare(
        &mut self,
        answer: &mut Answer<'_, '_>,
        mut row: Vec<f32>,
        against: &mut Against<'_>,
    ) -> Result<StopReason, ModelError> {
        let vocab = self.engine.config().vocab;
        for piece in against.recorded.chunks(PIECE) {
            // The row before each of them, and the one behind.
            let mut rows = row;
            match self.engine.append(self.sequence, piece, Want::All, self.cancel, &mut |_| {}) {
                Ok(more) => rows.extend(more),
                Err(EngineError::Cancelled) => return Ok(StopReason::Cancelled),
                Err(error) => return Err(broken(error)),
            }
            for (at, &token) in piece.iter().enumerate() {
                match answer.next(&mut rows[at * vocab..][..vocab]) {
                    Next::Token(chosen) if chosen == token => {}
                    Next::Token(chosen) => {
                        against.different = Some((answer.written(), Some(chosen)));
                        return Ok(StopReason::End);
                    }
                    Next::Stop => {
                        against.different = Some((answer.written(), None));
                        return Ok(StopReason::End);
                    }
                }
                if let Some(reason) = answer.accept(token) {
                    return Ok(reason);
                }
            }
            row = rows.split_off(piece.len() * vocab);
        }
        if answer.written() >= self.most {
            return Ok(StopReason::Length);
        }
        match answer.next(&mut row) {
            Next::Stop => Ok(StopReason::End),
            Next::Token(chosen) => {
                against.different = Some((answer.written(), Some(chosen)));
                Ok(StopReason::End)
            }
        }
    }
}

impl LocalModel {
    /// Compares `answer`, which `request` once gave and which ended with `stop`, with what it would give here. The model
    /// then holds the conversation with that answer, as if it had just written it.
    pub fn replay(
        &mut self,
        request: &Request<'_>,
        answer: &Message,
        stop: StopReason,
    ) -> Result<Replayed, ModelError> {
        let recorded = answer.written.as_ref().map_or(&[][..], |written| &written.tokens);
        let begun = self.begin(request, &mut |_| {})?;
        let mut replayed = Replayed { prompt: begun.usage.prompt, ..Replayed::default() };
        let Some(logits) = begun.logits else {
            replayed.cancelled = true;
            return Ok(replayed);
        };
        // The opening of a call that must be made is given to the model, and is a part of its answer.
        let opened = self.sequence.tokens()[begun.usage.prompt - begun.opened..].to_vec();
        let Some(rest) = recorded.strip_prefix(&opened[..]) else {
            let here = Some(self.tokenizer.decode(&opened));
            let recorded = Some(self.shown(recorded));
            replayed.difference = Some(Difference { at: 0, before: String::new(), recorded, here });
            return Ok(replayed);
        };
        let mut against = Against { recorded: rest, different: None };
        let (_, ended, same) =
            self.decode(request, &begun.opening, logits, &mut |_| {}, Some(&mut against))?;
        replayed.same = same;
        let whole = same == rest.len();
        // An answer that was stopped from outside, or for turning in circles, could have gone on.
        let open = matches!(stop, StopReason::Cancelled | StopReason::Repetition);
        match against.different {
            None if ended == StopReason::Cancelled => replayed.cancelled = true,
            Some((_, Some(_))) if whole && open => {}
            Some((at, chosen)) => {
                replayed.difference = Some(Difference {
                    at: opened.len() + at,
                    before: self
                        .tokenizer
                        .decode(&recorded[(opened.len() + at).saturating_sub(SHOWN)..opened.len() + at]),
                    recorded: (!whole).then(|| self.shown(&rest[at..])),
                    here: chosen.map(|token| self.tokenizer.decode(&[token])),
                });
            }
            None => {}
        }
        if whole && !replayed.cancelled {
            self.close(request, answer.clone());
        }
        Ok(replayed)
    }

    /// The beginning of a text.
    fn shown(&self, tokens: &[TokenId]) -> String {
        self.tokenizer.decode(&tokens[..tokens.len().min(SHOWN)])
    }

    /// Names the vocabulary: tokens of another cannot be compared.
    pub fn vocabulary(&self) -> &str {
        &self.vocabulary
    }
}
