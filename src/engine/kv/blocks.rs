//! Where keys and values lie: blocks of 256 positions, all layers of a model in one piece of memory, counted against a
//! budget and used again. Blocks are shared by reference (`Arc`); whoever writes owns its block alone. A block may also
//! be a part of a snapshot's file, mapped and never written. Which tokens a block holds is for sequences and the prefix
//! tree to know.

use super::tree::PrefixTree;
use super::{KvShape, KvType};
use crate::engine::memory::Anonymous;
use crate::engine::{EngineError, TokenId};
use memmap2::Mmap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Positions of a block.
pub const BLOCK: usize = 256;
/// Blocks beyond what one full context takes: forks, and what the tree keeps beside it.
pub const SPARE: usize = 4;

/// Blocks that hold `tokens`.
pub const fn blocks_of(tokens: usize) -> usize {
    tokens.div_ceil(BLOCK)
}

/// Keys and values of 256 positions: [layer][key or value][head][position][head_dim], encoded.
pub struct KvBlock {
    memory: Option<Memory>,
    /// Where the memory goes back to; it may be gone before its blocks are.
    pool: Weak<BlockPool>,
}

enum Memory {
    Own(Anonymous),
    /// A file, of which the block begins at a byte.
    Mapped(Mmap, usize),
}

impl KvBlock {
    pub fn bytes(&self) -> &[u8] {
        match &self.memory {
            Some(Memory::Own(own)) => own,
            Some(Memory::Mapped(map, at)) => &map[*at..],
            None => &[],
        }
    }

    pub(super) fn copy_from(&mut self, other: &KvBlock) {
        if let Some(Memory::Own(own)) = &mut self.memory {
            own.copy_from_slice(other.bytes());
        }
    }

    /// Where to write; `None` for a part of a file.
    pub(super) fn own(&mut self) -> Option<*mut u8> {
        match &mut self.memory {
            Some(Memory::Own(own)) => Some(own.as_mut_ptr()),
            _ => None,
        }
    }
}

impl Drop for KvBlock {
    fn drop(&mut self) {
        if let (Some(Memory::Own(own)), Some(pool)) = (self.memory.take(), self.pool.upgrade()) {
            pool.lock().give(own);
        }
    }
}

/// The memory of all sequences of one shape, and the tree of what they hold in common.
pub struct BlockPool {
    shape: KvShape,
    state: Mutex<State>,
    /// Locked before `state`, never after.
    tree: Mutex<PrefixTree>,
}

#[derive(Default)]
struct State {
    /// Memory that was a block's and waits for the next.
    free: Vec<Anonymous>,
    held: usize,
    /// Blocks there may be.
    most: usize,
}

impl State {
    fn give(&mut self, own: Anonymous) {
        self.held -= 1;
        self.free.push(own);
    }
}

impl BlockPool {
    /// A pool of `most` blocks; memory is taken as they are needed.
    pub fn new(shape: KvShape, most: usize) -> Arc<Self> {
        let state = State { most, ..State::default() };
        Arc::new(Self { shape, state: Mutex::new(state), tree: Mutex::new(PrefixTree::default()) })
    }

    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> usize {
        block_bytes(&self.shape)
    }

    // What a thread that panicked left is whole: every change is one step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tree(&self) -> MutexGuard<'_, PrefixTree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the pool have at least `most` blocks.
    pub fn at_least(&self, most: usize) {
        let mut state = self.lock();
        state.most = state.most.max(most);
    }

    /// (blocks in use, blocks there may be)
    pub fn used(&self) -> (usize, usize) {
        let state = self.lock();
        (state.held, state.most)
    }

    /// A block to write, with whatever was in it. What the tree has not used for longest makes room.
    pub fn take(self: &Arc<Self>) -> Result<KvBlock, EngineError> {
        loop {
            {
                let mut state = self.lock();
                if state.held < state.most {
                    let own = match state.free.pop() {
                        Some(own) => own,
                        None => Anonymous::new(self.block_bytes(), true).map_err(|source| {
                            EngineError::Io { path: "memory for keys and values".into(), source }
                        })?,
                    };
                    state.held += 1;
                    return Ok(KvBlock { memory: Some(Memory::Own(own)), pool: Arc::downgrade(self) });
                }
            }
            let evicted = self.tree().evict();
            if evicted.is_none() {
                let (held, most) = self.used();
                return Err(EngineError::CacheFull { held: held * BLOCK, limit: most * BLOCK });
            }
        }
    }

    /// A block that is a part of a file, from byte `at`.
    pub fn mapped(self: &Arc<Self>, map: Mmap, at: usize) -> Option<KvBlock> {
        let whole = map.len() == at + self.block_bytes();
        whole.then(|| KvBlock { memory: Some(Memory::Mapped(map, at)), pool: Arc::downgrade(self) })
    }

    /// Keeps what `blocks` hold for those that begin with `tokens` too.
    pub fn remember(&self, tokens: &[TokenId], blocks: &[Arc<KvBlock>]) {
        let replaced = self.tree().insert(tokens, blocks);
        drop(replaced);
    }

    /// The longest beginning of `tokens` that is known: its length and its blocks.
    pub fn recall(&self, tokens: &[TokenId]) -> (usize, Vec<Arc<KvBlock>>) {
        self.tree().find(tokens)
    }

    /// Forgets what no sequence uses.
    pub fn forget(&self) {
        while self.tree().evict().is_some() {}
    }
}

pub fn block_bytes(shape: &KvShape) -> usize {
    BLOCK * shape.bytes_per_token()
}

/// Bytes that a budget of one context of `tokens` takes, spare blocks included.
pub fn budget_bytes(shape: &KvShape, tokens: usize) -> u64 {
    ((blocks_of(tokens) + SPARE) as u64).saturating_mul(block_bytes(shape) as u64)
}

/// Bytes of one head's keys or values in a block.
pub fn plane_bytes(kind: KvType, head_dim: usize) -> usize {
    BLOCK * kind.bytes(head_dim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_holds_and_memory_is_used_again() {
        let shape = KvShape { layers: 1, heads: 1, head_dim: 32, kind: KvType::F16 };
        let pool = BlockPool::new(shape, 2);
        let (a, b) = (pool.take().unwrap(), pool.take().unwrap());
        assert_eq!(a.bytes().len(), 256 * 2 * 64);
        assert!(matches!(pool.take(), Err(EngineError::CacheFull { held: 512, limit: 512 })));
        let place = b.bytes().as_ptr();
        drop(b);
        assert_eq!(pool.take().unwrap().bytes().as_ptr(), place);
        // What only the tree holds gives way; what is in use does not.
        let shared = Arc::new(pool.take().unwrap());
        pool.remember(&[1, 2, 3], std::slice::from_ref(&shared));
        drop(shared);
        assert_eq!(pool.used(), (2, 2));
        let c = pool.take().unwrap();
        assert!(pool.take().is_err());
        assert_eq!(pool.recall(&[1, 2, 3]).0, 0);
        drop((a, c));
        assert_eq!(pool.used(), (0, 2));
    }
}
