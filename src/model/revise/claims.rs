//! What several searches in one text share, those of attempts at one task: its scores, which the first of them works out,
//! and who follows which branch, so that together they go through the versions once.

use super::Means;
use crate::engine::score::Scored;
use crate::engine::{EngineError, TokenId, Want};
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub struct Claims {
    taken: Mutex<HashSet<u64>>,
    /// By all tokens up to the text's end.
    scores: Mutex<HashMap<Vec<TokenId>, Arc<Vec<Scored>>>>,
}

// What a thread that panicked left is whole: every change is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Claims {
    /// Whether nobody had this before.
    pub fn take(&self, what: impl Hash) -> bool {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        lock(&self.taken).insert(hasher.finish())
    }

    /// Appends `tokens` and scores them; where another search did so it is the appending alone.
    pub fn scored(
        &self,
        tokens: &[TokenId],
        most: usize,
        means: &mut Means<'_>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Arc<Vec<Scored>>, EngineError> {
        let key = [means.sequence.tokens(), tokens].concat();
        // Who comes meanwhile waits: it would only do the same at the same time.
        let mut scores = lock(&self.scores);
        if let Some(known) = scores.get(&key).cloned() {
            drop(scores);
            means.engine.append(means.sequence, tokens, Want::Nothing, means.cancel, progress)?;
            return Ok(known);
        }
        let scored = means.engine.append_scored(means.sequence, tokens, most, means.cancel, progress)?;
        means.engine.remember(means.sequence);
        let scored = Arc::new(scored);
        scores.insert(key, scored.clone());
        Ok(scored)
    }
}
