//! One search for several models that share an engine and work at the same task: attempts. Each takes the next version as
//! it is free, so together they go through the versions once, the likeliest first, and while one is tried the next is
//! decoded. Models whose conversations differ search each for itself.

use super::{Means, Search};
use crate::engine::{EngineError, TokenId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The tokens before a text, and the text.
type Place = (Vec<TokenId>, String);

#[derive(Default)]
pub struct Shared(Mutex<HashMap<Place, Arc<Mutex<Search>>>>);

/// A search that was not finished where a thread panicked goes on: at worst a branch of it is lost.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The search in `text`, begun by `start` where nobody has; the sequence stands at its end. `start` may find that there
    /// is none.
    pub fn search(
        &self,
        text: &str,
        means: &mut Means<'_>,
        start: impl FnOnce(&mut Means<'_>) -> Result<Option<Search>, EngineError>,
    ) -> Result<Option<Arc<Mutex<Search>>>, EngineError> {
        let key = (means.sequence.tokens().to_vec(), text.to_string());
        // Who comes while it is begun waits: it would only do the same at the same time.
        let mut searches = lock(&self.0);
        if let Some(known) = searches.get(&key).cloned() {
            drop(searches);
            lock(&known).join(means)?;
            return Ok(Some(known));
        }
        let Some(search) = start(means)? else { return Ok(None) };
        means.engine.remember(means.sequence);
        let search = Arc::new(Mutex::new(search));
        searches.insert(key, search.clone());
        Ok(Some(search))
    }
}
