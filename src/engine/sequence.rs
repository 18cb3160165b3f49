//! The tokens of one conversation and the blocks of keys and values that stand for them. Cutting back and forking are
//! exact and cost nothing: a fork shares every block, and whoever writes into one that is shared copies it first.

use super::kv::KvCache;
use super::kv::blocks::{BLOCK, KvBlock};
use super::{EngineError, TokenId};
use std::sync::Arc;

/// A conversation, as a backend holds it. It belongs to the backend that made it.
#[derive(Clone)]
pub struct Sequence {
    pub(super) cache: KvCache,
    pub(super) tokens: Vec<TokenId>,
}

impl Sequence {
    pub(super) fn new(cache: KvCache) -> Self {
        Self { cache, tokens: Vec::new() }
    }

    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub fn capacity(&self) -> usize {
        self.cache.capacity()
    }

    /// The blocks that hold the tokens, in order.
    pub fn blocks(&self) -> &[Arc<KvBlock>] {
        self.cache.table()
    }

    /// Forgets all but the first `n` tokens.
    pub fn truncate(&mut self, n: usize) {
        self.tokens.truncate(n);
        self.cache.truncate(n);
    }

    /// Another sequence that begins with the first `n` tokens of this one.
    pub fn fork(&self, n: usize) -> Self {
        let mut fork = self.clone();
        fork.truncate(n);
        fork
    }

    /// Room for `n` more tokens; an error where the context does not reach so far, or memory does not.
    pub(super) fn prepare(&mut self, n: usize) -> Result<(), EngineError> {
        let (held, limit) = (self.tokens.len(), self.capacity());
        if held + n > limit {
            return Err(EngineError::ContextFull { needed: held + n, limit });
        }
        self.cache.prepare(held, n)
    }

    /// Goes on to hold `tokens`, of which it holds the beginning, with keys and values that are copies of its own whole
    /// blocks'. For measurements: how long a token takes depends on how many stand before it, not on which.
    pub(super) fn pretend(&mut self, tokens: &[TokenId]) -> Result<(), EngineError> {
        let limit = self.capacity();
        if tokens.len() > limit {
            return Err(EngineError::ContextFull { needed: tokens.len(), limit });
        }
        self.truncate(self.len() / BLOCK * BLOCK);
        if !self.is_empty() {
            self.cache.repeat(tokens.len())?;
            self.tokens.extend_from_slice(&tokens[self.tokens.len()..]);
        }
        Ok(())
    }

    /// Holds the longest beginning of `tokens` that is known, at least what this sequence has in common with them.
    pub(super) fn recall(&mut self, tokens: &[TokenId]) -> usize {
        let own = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let (known, blocks) = self.cache.pool().recall(tokens);
        if known > own && known <= self.capacity() {
            self.cache.take_over(known, blocks);
            self.tokens = tokens[..known].to_vec();
        } else {
            self.truncate(own);
        }
        self.tokens.len()
    }
}
