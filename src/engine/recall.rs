//! What an engine has computed before and need not compute again: the prefix tree of its pools, and behind it snapshots
//! on disk. A snapshot fits the model (its tensors' places, sizes and a sample of the bytes of each, the file's size and
//! time), the kind of keys and values, RoPE, the kernel set and the arithmetic of this version. Who remembers what, and
//! when, is for the callers.

use super::kv::KvType;
use super::kv::blocks::{BLOCK, BlockPool};
use super::kv::snapshot::{Key, SnapshotStore};
use super::{Engine, EngineError, Sequence, TokenId};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// Raised whenever the same tokens may come to other keys and values than before.
const ARITHMETIC: u32 = 2;

/// Where and how much to keep.
#[derive(Debug, Clone, Copy)]
pub struct Snapshots<'a> {
    pub folder: &'a Path,
    /// Bytes of all files.
    pub budget: u64,
}

impl Engine {
    /// Keeps snapshots of sequences with keys and values of `kind` from now on.
    pub fn keep_snapshots(&mut self, kind: KvType, snapshots: Snapshots<'_>) -> Result<(), EngineError> {
        let store = SnapshotStore::open(snapshots.folder, self.snapshot_key(kind), snapshots.budget);
        let io = |source| EngineError::Io { path: snapshots.folder.display().to_string(), source };
        let pool = self.pool(0, kind);
        self.snapshots = Some((pool, store.map_err(io)?));
        Ok(())
    }

    fn snapshot_key(&self, kind: KvType) -> Key {
        let mut hash = Sha256::new();
        hash.update(ARITHMETIC.to_le_bytes());
        hash.update(env!("CARGO_PKG_VERSION"));
        hash.update(self.options.kernels.name());
        hash.update(kind.name());
        // Every number of the configuration, RoPE and YaRN among them.
        hash.update(format!("{:?}", self.config));
        let gguf = &self.weights.gguf;
        hash.update(gguf.file_bytes().to_le_bytes());
        let changed = std::fs::metadata(gguf.path()).and_then(|data| data.modified()).ok();
        hash.update(format!("{changed:?}"));
        gguf.sample(&mut hash);
        hash.finalize().into()
    }

    /// The store for sequences of this pool.
    fn store(&mut self, pool: &Arc<BlockPool>) -> Option<&mut SnapshotStore> {
        self.snapshots.as_mut().filter(|(own, _)| Arc::ptr_eq(own, pool)).map(|(_, store)| store)
    }

    /// Keeps what `sequence` holds for others that begin as it does.
    pub fn remember(&mut self, sequence: &Sequence) {
        let pool = sequence.cache.pool().clone();
        pool.remember(&sequence.tokens, sequence.cache.table());
        if let Some(store) = self.store(&pool) {
            store.save(&sequence.tokens, sequence.cache.table());
        }
    }

    /// Makes `sequence` hold the longest beginning of `tokens` that is known; returns its length.
    pub fn recall(&mut self, sequence: &mut Sequence, tokens: &[TokenId]) -> usize {
        let tokens = &tokens[..tokens.len().min(sequence.capacity())];
        let held = sequence.recall(tokens);
        let pool = sequence.cache.pool().clone();
        let Some(store) = self.store(&pool).filter(|_| held < tokens.len()) else { return held };
        let (reached, more) = store.load(&pool, tokens, held);
        if reached > held {
            let mut blocks = sequence.cache.table()[..held / BLOCK].to_vec();
            blocks.extend(more);
            sequence.cache.take_over(reached, blocks);
            sequence.tokens = tokens[..reached].to_vec();
            pool.remember(&sequence.tokens, sequence.cache.table());
        }
        sequence.len()
    }

    /// What could not be used since this was last asked, a line each.
    pub fn complaints(&mut self) -> Vec<String> {
        self.snapshots.as_mut().map(|(_, store)| store.complaints()).unwrap_or_default()
    }
}
