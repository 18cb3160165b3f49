//! Keys and values of one sequence, in f32, f16 or q8_0 (32 int8 values and one f16 scale). Memory is asked for whole
//! and touched as the sequence grows. What was stored is what everyone reads, the chunk that stored it too.
//! Which token a position holds is for `Sequence` to know.

#![allow(unsafe_code)]

pub mod int8;

use super::pool::Shards;
use half::f16;
use half::slice::HalfFloatSliceExt;

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
}

/// [layer][key or value][head][position][head_dim], encoded.
pub struct KvCache {
    shape: KvShape,
    capacity: usize,
    /// Positions there is memory for.
    room: usize,
    /// One buffer per layer, keys first, then values.
    layers: Vec<Vec<u8>>,
}

impl KvCache {
    pub fn new(shape: KvShape, capacity: usize) -> Self {
        // Int8 lies in whole groups.
        let room = capacity.next_multiple_of(int8::GROUP);
        let bytes = 2 * shape.heads * room * shape.kind.bytes(shape.head_dim);
        // Zeroed memory comes from the kernel page by page, when it is first written.
        Self { shape, capacity, room, layers: (0..shape.layers).map(|_| vec![0; bytes]).collect() }
    }

    pub fn shape(&self) -> KvShape {
        self.shape
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    fn row_bytes(&self) -> usize {
        self.shape.kind.bytes(self.shape.head_dim)
    }

    /// What a region stores the keys and values of one layer through.
    pub fn planes(&mut self, layer: usize) -> Planes<'_> {
        let (shape, room) = (self.shape, self.room);
        Planes { shape, room, bytes: Shards::new(&mut self.layers[layer]) }
    }

    /// The stored bytes of positions `first..first + n` of every layer, to be put back by `restore`.
    pub fn save(&self, first: usize, n: usize) -> Vec<u8> {
        let mut saved = Vec::with_capacity(n * self.shape.bytes_per_token());
        for (layer, row) in
            (0..self.shape.layers).flat_map(|l| (0..2 * self.shape.heads).map(move |r| (l, r)))
        {
            saved.extend_from_slice(&self.layers[layer][self.span(row, first, n)]);
        }
        saved
    }

    /// Puts back what `save` took from the same positions.
    pub fn restore(&mut self, first: usize, n: usize, saved: &[u8]) {
        let part = self.span(0, first, n).len();
        for (i, part) in saved.chunks_exact(part.max(1)).enumerate() {
            let (layer, row) = (i / (2 * self.shape.heads), i % (2 * self.shape.heads));
            let span = self.span(row, first, n);
            self.layers[layer][span].copy_from_slice(part);
        }
    }

    /// Where positions `first..first + n` of one head's keys or values lie in a layer's buffer.
    fn span(&self, row: usize, first: usize, n: usize) -> std::ops::Range<usize> {
        // What shares a group with them is part of it: it stays as it is meanwhile.
        let (first, n) = match self.shape.kind {
            KvType::Q8_0 => {
                let end = (first + n).next_multiple_of(int8::GROUP);
                let first = first / int8::GROUP * int8::GROUP;
                (first, if n == 0 { 0 } else { end - first })
            }
            _ => (first, n),
        };
        let at = (row * self.room + first) * self.row_bytes();
        at..at + n * self.row_bytes()
    }

    /// `n` groups of one head's int8 keys or values from group `first` (see `int8`).
    pub fn groups(&self, layer: usize, value: bool, head: usize, first: usize, n: usize) -> &[u8] {
        let bytes = int8::group_bytes(self.shape.head_dim);
        let at = ((usize::from(value) * self.shape.heads + head) * (self.room / int8::GROUP) + first) * bytes;
        &self.layers[layer][at..at + n * bytes]
    }

    /// Decodes positions `first..first + n` of one head into `out`: [n][head_dim].
    pub fn load(&self, layer: usize, value: bool, head: usize, first: usize, n: usize, out: &mut [f32]) {
        let bytes = self.row_bytes();
        let at = ((usize::from(value) * self.shape.heads + head) * self.room + first) * bytes;
        let out = &mut out[..n * self.shape.head_dim];
        let rows = &self.layers[layer][at..at + n * bytes];
        match self.shape.kind {
            KvType::Q8_0 => {
                for (i, out) in out.chunks_exact_mut(self.shape.head_dim).enumerate() {
                    let position = first + i;
                    let group = self.groups(layer, value, head, position / int8::GROUP, 1);
                    int8::load(group, value, position % int8::GROUP, out);
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

/// The keys and values of one layer, to be stored by several threads at once.
pub struct Planes<'a> {
    shape: KvShape,
    room: usize,
    bytes: Shards<'a, u8>,
}

impl Planes<'_> {
    /// Stores one head's key (`value` false) or value at `position`.
    ///
    /// # Safety
    /// Nobody else stores keys (or values) of this head meanwhile.
    pub unsafe fn store(&self, value: bool, head: usize, position: usize, row: &[f32]) {
        let bytes = self.shape.kind.bytes(self.shape.head_dim);
        let at = ((usize::from(value) * self.shape.heads + head) * self.room + position) * bytes;
        // SAFETY: the caller's promise, of this place and of the group around it.
        let slice = |at: usize, n: usize| unsafe { self.bytes.slice(at, n) };
        match self.shape.kind {
            KvType::Q8_0 => {
                let slot = position % int8::GROUP;
                int8::store(slice(at - slot * bytes, int8::GROUP * bytes), value, slot, row);
            }
            KvType::F32 => {
                for (out, x) in slice(at, bytes).as_chunks_mut::<4>().0.iter_mut().zip(row) {
                    *out = x.to_le_bytes();
                }
            }
            KvType::F16 => {
                for (out, x) in slice(at, bytes).as_chunks_mut::<2>().0.iter_mut().zip(row) {
                    *out = f16::from_f32(*x).to_le_bytes();
                }
            }
        }
    }
}
