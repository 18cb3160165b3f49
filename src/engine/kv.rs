//! Keys and values of one sequence, in f32, f16 or q8_0 (32 int8 values and one f16 scale): a table of blocks, which
//! other sequences may share. Before positions are written, `prepare` makes their blocks this table's own. What was
//! stored is what everyone reads, the chunk that stored it too. Which token a position holds is for `Sequence` to know.

#![allow(unsafe_code)]

pub mod blocks;
pub mod int8;
pub mod snapshot;
pub mod tree;

use super::EngineError;
use blocks::{BLOCK, BlockPool, KvBlock, blocks_of, plane_bytes};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvType {
    F32,
    F16,
    Q8_0,
}

impl KvType {
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Q8_0];
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
        }
    }
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
    /// Bytes of `n` values (a multiple of 32).
    pub fn bytes(self, n: usize) -> usize {
        match self {
            Self::F32 => n * 4,
            Self::F16 => n * 2,
            Self::Q8_0 => n / 32 * 34,
        }
    }
}

/// The shape of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    pub layers: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub kind: KvType,
}

impl KvShape {
    /// Bytes that one token takes, keys and values of all layers.
    pub fn bytes_per_token(&self) -> usize {
        2 * self.layers * self.heads * self.kind.bytes(self.head_dim)
    }

    /// Where one head's keys or values lie in a block.
    fn plane(&self, layer: usize, value: bool, head: usize) -> std::ops::Range<usize> {
        let [keys, values] = [false, true].map(|value| plane_bytes(self.kind, self.head_dim, value));
        let at = layer * self.heads * (keys + values);
        if value {
            let at = at + self.heads * keys + head * values;
            return at..at + values;
        }
        at + head * keys..at + (head + 1) * keys
    }
}

/// The blocks of one sequence.
#[derive(Clone)]
pub struct KvCache {
    pool: Arc<BlockPool>,
    table: Vec<Arc<KvBlock>>,
    capacity: usize,
}

impl KvCache {
    /// A cache with memory of its own.
    pub fn new(shape: KvShape, capacity: usize) -> Self {
        Self::of(&BlockPool::new(shape, blocks_of(capacity) + blocks::SPARE), capacity)
    }

    /// An empty cache for `capacity` positions at most, with memory from `pool`.
    pub fn of(pool: &Arc<BlockPool>, capacity: usize) -> Self {
        Self { pool: pool.clone(), table: Vec::new(), capacity }
    }

    pub fn shape(&self) -> KvShape {
        self.pool.shape()
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub fn pool(&self) -> &Arc<BlockPool> {
        &self.pool
    }

    pub fn table(&self) -> &[Arc<KvBlock>] {
        &self.table
    }

    /// Positions from `n` on are no longer needed.
    pub fn truncate(&mut self, n: usize) {
        self.table.truncate(blocks_of(n));
    }

    /// Takes the blocks that hold the first `n` positions in place of what was there.
    pub fn take_over(&mut self, n: usize, blocks: Vec<Arc<KvBlock>>) {
        self.table = blocks;
        self.truncate(n);
    }

    /// Makes room for positions `start..start + n`, those before `start` being held: blocks that others share, or that
    /// are a file's, are copied first.
    pub fn prepare(&mut self, start: usize, n: usize) -> Result<(), EngineError> {
        self.truncate(start);
        if !start.is_multiple_of(BLOCK)
            && let Some(last) = self.table.last_mut()
            && Arc::get_mut(last).and_then(KvBlock::own).is_none()
        {
            let mut copy = self.pool.take()?;
            copy.copy_from(last);
            *last = Arc::new(copy);
        }
        while self.table.len() < blocks_of(start + n) {
            self.table.push(Arc::new(self.pool.take()?));
        }
        Ok(())
    }

    /// Lets the blocks held, all of them whole, be followed by copies of themselves until there are `n` positions.
    pub fn repeat(&mut self, n: usize) -> Result<(), EngineError> {
        let whole = self.table.len();
        while whole > 0 && self.table.len() < blocks_of(n) {
            let mut copy = self.pool.take()?;
            copy.copy_from(&self.table[self.table.len() % whole]);
            self.table.push(Arc::new(copy));
        }
        Ok(())
    }

    /// What a pass stores the keys and values of positions from `start` on through, after `prepare`.
    pub fn planes(&mut self, start: usize) -> Planes {
        let first = start / BLOCK;
        let own = |block: &mut Arc<KvBlock>| {
            Arc::get_mut(block).and_then(KvBlock::own).unwrap_or(std::ptr::null_mut())
        };
        let blocks = self.table.iter_mut().skip(first).map(own).collect();
        Planes { shape: self.pool.shape(), first, blocks }
    }

    /// The bytes of one head's keys or values in a block.
    fn plane(&self, layer: usize, value: bool, head: usize, block: usize) -> &[u8] {
        let shape = self.pool.shape();
        &self.table[block].bytes()[shape.plane(layer, value, head)]
    }

    /// `n` groups of one head's int8 keys or values from group `first` (see `int8`), all of one block.
    pub fn groups(&self, layer: usize, value: bool, head: usize, first: usize, n: usize) -> &[u8] {
        const GROUPS: usize = BLOCK / int8::GROUP;
        let bytes = int8::group_bytes(self.pool.shape().head_dim);
        let at = first % GROUPS * bytes;
        &self.plane(layer, value, head, first / GROUPS)[at..at + n * bytes]
    }

    /// What one head's int8 keys of a block have in common (see `int8`).
    pub fn common(&self, layer: usize, head: usize, block: usize) -> &[u8] {
        let dim = self.pool.shape().head_dim;
        &self.plane(layer, false, head, block)[BLOCK / int8::GROUP * int8::group_bytes(dim)..]
    }

    /// Decodes positions `first..first + n` of one head into `out`: [n][head_dim].
    pub fn load(&self, layer: usize, value: bool, head: usize, first: usize, n: usize, out: &mut [f32]) {
        let dim = self.pool.shape().head_dim;
        let (mut at, mut out) = (first, &mut out[..n * dim]);
        while at < first + n {
            let part = (first + n - at).min(BLOCK - at % BLOCK);
            let (here, rest) = out.split_at_mut(part * dim);
            self.load_part(self.plane(layer, value, head, at / BLOCK), value, at % BLOCK, here);
            (at, out) = (at + part, rest);
        }
    }

    fn load_part(&self, plane: &[u8], value: bool, first: usize, out: &mut [f32]) {
        let KvShape { head_dim, kind, .. } = self.pool.shape();
        let rows = &plane[first * kind.bytes(head_dim)..];
        match kind {
            KvType::Q8_0 => {
                let bytes = int8::group_bytes(head_dim);
                let (_, common) = plane.split_at(BLOCK / int8::GROUP * bytes);
                for (i, out) in out.chunks_exact_mut(head_dim).enumerate() {
                    let position = first + i;
                    let group = &plane[position / int8::GROUP * bytes..][..bytes];
                    int8::load(group, value, position % int8::GROUP, common, out);
                }
            }
            KvType::F32 => {
                for (out, x) in out.iter_mut().zip(rows.as_chunks::<4>().0) {
                    *out = f32::from_le_bytes(*x);
                }
            }
            KvType::F16 => {
                let mut words = [f16::ZERO; 128];
                for (out, x) in out.chunks_mut(128).zip(rows.chunks(256)) {
                    for (word, x) in words.iter_mut().zip(x.as_chunks::<2>().0) {
                        *word = f16::from_le_bytes(*x);
                    }
                    words[..out.len()].convert_to_f32_slice(out);
                }
            }
        }
    }
}

/// Where a pass stores the keys and values of one sequence; several threads may at once. Good until the table changes.
pub struct Planes {
    shape: KvShape,
    /// Number of the first block.
    first: usize,
    blocks: Vec<*mut u8>,
}

// SAFETY: the blocks are this pass's own, and `store` has its caller promise that no two write to the same place.
unsafe impl Sync for Planes {}

impl Planes {
    /// Stores one head's key (`value` false) or value at `position`. `common` is what keys of a block are expected to
    /// have in common: taken from int8 keys, and not looked at but with the first of a block, which is stored before
    /// its others.
    ///
    /// # Safety
    /// The table that this came from is there and unchanged, and nobody else stores keys (or values) of this layer's
    /// head meanwhile, or reads them.
    pub unsafe fn store(
        &self,
        layer: usize,
        value: bool,
        head: usize,
        position: usize,
        row: &[f32],
        common: Option<&[f32]>,
    ) {
        let KvShape { head_dim, kind, .. } = self.shape;
        assert!(row.len() == head_dim && layer < self.shape.layers && head < self.shape.heads);
        let block = self.blocks[position / BLOCK - self.first];
        assert!(!block.is_null(), "a block was not prepared");
        let plane = self.shape.plane(layer, value, head);
        // SAFETY: this plane of a block of that shape; the caller's promise.
        let plane = unsafe { std::slice::from_raw_parts_mut(block.add(plane.start), plane.len()) };
        let (slot, bytes) = (position % BLOCK, kind.bytes(head_dim));
        match kind {
            KvType::Q8_0 => {
                let bytes = int8::group_bytes(head_dim);
                let (groups, place) = plane.split_at_mut(BLOCK / int8::GROUP * bytes);
                if slot == 0 && !value {
                    int8::store_common(place, common);
                }
                let group = &mut groups[slot / int8::GROUP * bytes..][..bytes];
                int8::store(group, value, slot % int8::GROUP, place, row);
            }
            KvType::F32 => {
                let out = &mut plane[slot * bytes..][..bytes];
                for (out, x) in out.as_chunks_mut::<4>().0.iter_mut().zip(row) {
                    *out = x.to_le_bytes();
                }
            }
            KvType::F16 => {
                let out = &mut plane[slot * bytes..][..bytes];
                for (out, x) in out.as_chunks_mut::<2>().0.iter_mut().zip(row) {
                    *out = f16::from_f32(*x).to_le_bytes();
                }
            }
        }
    }
}
