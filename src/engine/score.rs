//! How likely a text is, token by token, and what else might have stood there: one pass in batches, as a prefill is.
//! What is made of it (a search for a better text) is for the callers.

use super::backend::Backend;
use super::{EngineError, Sequence, TokenId, Want};
use std::sync::atomic::AtomicBool;

/// Tokens whose logits are held at once: 150,000 floats each.
const BATCH: usize = 128;

/// One place of a text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scored {
    /// Natural logarithm of the probability of the token that stands there.
    pub logprob: f32,
    /// The likeliest tokens that do not, best first, with theirs.
    pub others: Vec<(TokenId, f32)>,
}

/// The likeliest `most` tokens of a row of logits, best first, with the logarithm of their probabilities. Ties go to
/// the lowest id.
pub fn likeliest(logits: &[f32], most: usize) -> Vec<(TokenId, f32)> {
    let norm = log_sum(logits);
    let mut best: Vec<(TokenId, f32)> = Vec::with_capacity(most + 1);
    for (id, &logit) in (0..).zip(logits) {
        if best.len() < most || best.last().is_some_and(|(_, worst)| logit > *worst) {
            let at = best.partition_point(|(_, other)| *other >= logit);
            best.insert(at, (id, logit));
            best.truncate(most);
        }
    }
    best.iter_mut().for_each(|(_, logit)| *logit -= norm);
    best
}

fn log_sum(logits: &[f32]) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    largest + logits.iter().map(|logit| (logit - largest).exp()).sum::<f32>().ln()
}

/// `Backend::append_scored`, for every backend.
pub(super) fn append_scored<B: Backend + ?Sized>(
    backend: &mut B,
    sequence: &mut Sequence,
    tokens: &[TokenId],
    most: usize,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Scored>, EngineError> {
    let vocab = backend.config().vocab;
    let mut scored = Vec::with_capacity(tokens.len());
    for (index, batch) in tokens.chunks(BATCH).enumerate() {
        let logits = backend.append(sequence, batch, Want::All, cancel, &mut |_| {})?;
        let following = &tokens[tokens.len().min(index * BATCH + 1)..];
        for (row, &next) in logits.chunks_exact(vocab).zip(following) {
            let mut others = likeliest(row, most + 1);
            let logprob = row[next as usize] - log_sum(row);
            others.retain(|(id, _)| *id != next);
            others.truncate(most);
            scored.push(Scored { logprob, others });
        }
        progress((index * BATCH + batch.len()).min(tokens.len()));
    }
    Ok(scored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_are_in_order_and_their_probabilities_add_up() {
        let all = likeliest(&[1.0, 3.0, 2.0, 3.0], 4);
        assert_eq!(all.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 2, 0]);
        let sum: f32 = all.iter().map(|(_, logprob)| logprob.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6);
        assert_eq!(likeliest(&[1.0, 3.0, 2.0, 3.0], 2)[..], all[..2]);
        assert!(likeliest(&[], 3).is_empty());
    }
}
