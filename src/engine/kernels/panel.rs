//! Thirty-two weight rows unpacked to bytes, laid out so that one 512-bit register holds four values of sixteen rows.
//! Made once per panel and used for every token of a batch; any quantised type ends in the same layout. The rows need
//! not lie together: half of a panel may be of one matrix, half of another. What multiplies it is in `avx512_panel`.

use crate::engine::quant::{QuantType, Unpacked};

/// Rows of a panel: the int32 lanes of two 512-bit registers.
pub const ROWS: usize = 32;
/// Panels may hold fewer rows; a row that is not there is empty and counts as zeros.
pub type Rows<'a> = [&'a [u8]; ROWS];

/// One cache line, so that no load of a register touches two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A growing buffer of plain values that starts on a cache line.
#[derive(Default)]
pub struct Aligned {
    lines: Vec<Line>,
}

/// # Safety
/// Any bytes are a value, and its size divides a cache line.
pub unsafe trait Plain: Copy {}
// SAFETY: numbers.
unsafe impl Plain for u8 {}
// SAFETY: numbers.
unsafe impl Plain for i16 {}
// SAFETY: numbers.
unsafe impl Plain for i32 {}
// SAFETY: numbers.
unsafe impl Plain for f32 {}

impl Aligned {
    /// The first `n` values; what they hold is whatever was there.
    pub fn values<T: Plain>(&mut self, n: usize) -> &mut [T] {
        let lines = (n * size_of::<T>()).div_ceil(64);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; 64]));
        }
        // SAFETY: that many bytes are there, aligned for any `Plain`, whose every bit pattern is a value.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), n) }
    }

    pub fn as_ptr<T: Plain>(&self) -> *const T {
        self.lines.as_ptr().cast()
    }
}

/// The rows of one block of a panel, before they are laid out for the kernel.
pub struct Block {
    /// [row][value]: as in `Panel::q`
    pub q: [[u8; 256]; ROWS],
    /// [row][group]
    pub scale: [[i16; 16]; ROWS],
    pub min: [[i16; 16]; ROWS],
    pub d: [f32; ROWS],
    pub dmin: [f32; ROWS],
}

impl Default for Block {
    fn default() -> Self {
        Self {
            q: [[0; 256]; ROWS],
            scale: [[0; 16]; ROWS],
            min: [[0; 16]; ROWS],
            d: [0.0; ROWS],
            dmin: [0.0; ROWS],
        }
    }
}

impl Block {
    /// Block `b` of each row; a row that is not there counts as zeros. `fast` unpacks what it can of a block of one row,
    /// faster than the reference does, and says whether it did.
    pub fn fill(
        &mut self,
        kind: QuantType,
        rows: &Rows<'_>,
        b: usize,
        fast: impl Fn(QuantType, &[u8], &mut Self, usize) -> bool,
    ) {
        let bytes = kind.block_bytes();
        let flip = if kind.has_min() { 0 } else { 0x80 };
        let mut unpacked = Unpacked::default();
        for (r, row) in rows.iter().enumerate() {
            let Some(raw) = row.get(b * bytes..(b + 1) * bytes) else {
                (self.d[r], self.dmin[r]) = (0.0, 0.0);
                continue;
            };
            if fast(kind, raw, self, r) {
                continue;
            }
            kind.unpack(raw, &mut unpacked);
            (self.d[r], self.dmin[r]) = (unpacked.d, unpacked.dmin);
            (self.scale[r], self.min[r]) = (unpacked.scale, unpacked.min);
            for (out, q) in self.q[r].iter_mut().zip(unpacked.q).take(kind.block_len()) {
                *out = q as u8 ^ flip;
            }
        }
    }
}

/// Per block of 256 (or 32): values, scales, minima of thirty-two rows.
#[derive(Default)]
pub struct Panel {
    pub kind: Option<QuantType>,
    pub blocks: usize,
    /// Values per block: 256 or 32.
    pub block_len: usize,
    /// Scales per block: 16 or 8; none (0) where the block has one scale, `d`.
    pub groups: usize,
    /// u8 [block][k / 4][row 32][4]: the value plus 128, or the value itself where the type has none below zero.
    pub q: Aligned,
    /// i32 [block][group][row 32]
    pub scale: Aligned,
    /// i16 [block][pair of groups][row 32][2]: minima, where the type has them
    pub min: Aligned,
    /// f32 [block][row 32]
    pub d: Aligned,
    pub dmin: Aligned,
    block: Option<Box<Block>>,
}

/// Scales per block of 256 that a type really has; 16 fits all.
fn groups(kind: QuantType) -> usize {
    match (kind.block_len(), kind) {
        (32, _) => 0,
        (_, QuantType::Q4_K | QuantType::Q5_K) => 8,
        _ => 16,
    }
}

impl Panel {
    /// `q` holds the value plus 128; the kernel takes 128 times the sum of the activations away.
    pub fn offset(&self) -> bool {
        self.kind.is_some_and(|kind| !kind.has_min())
    }

    /// Unpacks `rows`, `cols` values each: `fast` as in `Block::fill`; `lay` lays `values` of each row out as `q` wants them.
    pub fn unpack(
        &mut self,
        kind: QuantType,
        cols: usize,
        rows: &Rows<'_>,
        fast: impl Fn(QuantType, &[u8], &mut Block, usize) -> bool,
        lay: impl Fn(&[[u8; 256]; ROWS], usize, &mut [u8]),
    ) {
        let mut made = self.block.take().unwrap_or_default();
        let Buffers { q, scale, min, d, dmin } = self.buffers(kind, cols);
        let (len, groups) = (kind.block_len(), groups(kind));
        let blocks = cols / len;
        let step = if groups == 8 { 2 } else { 1 };
        let block = &mut *made;
        for b in 0..blocks {
            block.fill(kind, rows, b, &fast);
            d[b * ROWS..(b + 1) * ROWS].copy_from_slice(&block.d);
            dmin[b * ROWS..(b + 1) * ROWS].copy_from_slice(&block.dmin);
            lay(&block.q, len, &mut q[b * len * ROWS..(b + 1) * len * ROWS]);
            for (g, out) in
                scale[b * groups * ROWS..(b + 1) * groups * ROWS].chunks_exact_mut(ROWS).enumerate()
            {
                for (out, scale) in out.iter_mut().zip(&block.scale) {
                    *out = i32::from(scale[g * step]);
                }
            }
            if !kind.has_min() {
                continue;
            }
            for (p, out) in
                min[b * groups * ROWS..(b + 1) * groups * ROWS].chunks_exact_mut(2 * ROWS).enumerate()
            {
                for (out, min) in out.as_chunks_mut::<2>().0.iter_mut().zip(&block.min) {
                    *out = [min[2 * p * step], min[(2 * p + 1) * step]];
                }
            }
        }
        self.block = Some(made);
    }

    /// Sets it up for rows of `cols` values, and gives the places to be filled.
    pub fn buffers(&mut self, kind: QuantType, cols: usize) -> Buffers<'_> {
        let len = kind.block_len();
        let (blocks, groups) = (cols / len, groups(kind));
        (self.kind, self.blocks, self.block_len, self.groups) = (Some(kind), blocks, len, groups);
        Buffers {
            q: self.q.values(blocks * len * ROWS),
            scale: self.scale.values(blocks * groups * ROWS),
            min: self.min.values(if kind.has_min() { blocks * groups * ROWS } else { 0 }),
            d: self.d.values(blocks * ROWS),
            dmin: self.dmin.values(blocks * ROWS),
        }
    }
}

/// What a panel is filled through; the layouts are those of `Panel`.
pub struct Buffers<'a> {
    pub q: &'a mut [u8],
    pub scale: &'a mut [i32],
    pub min: &'a mut [i16],
    pub d: &'a mut [f32],
    pub dmin: &'a mut [f32],
}

/// The plain form of `lay`: [row][k] becomes [k / 4][row][4].
#[cfg(test)]
pub fn lay_plain(rows: &[[u8; 256]; ROWS], len: usize, out: &mut [u8]) {
    for k in (0..len).step_by(4) {
        for (r, row) in rows.iter().enumerate() {
            out[(k / 4 * ROWS + r) * 4..][..4].copy_from_slice(&row[k..k + 4]);
        }
    }
}
