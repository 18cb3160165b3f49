//! Sixteen weight rows unpacked to int8, laid out so that one 512-bit register holds four values of each row. Made
//! once per strip and used for every token of a batch; any quantised type ends in the same layout.

use super::{Matrix, STRIP};
use crate::engine::quant::{QuantType, Unpacked};

/// Per block of 256 (or 32): values, scales, minima of sixteen rows.
#[derive(Default)]
pub struct Strip {
    pub kind: Option<QuantType>,
    pub blocks: usize,
    /// Values per block: 256 or 32.
    pub block_len: usize,
    /// [block][k / 4][row 16][4]: the value plus 128, or the value itself where the type has none below zero.
    pub q: Vec<u8>,
    /// [block][group of 16][row 16]; 256-wide types only.
    pub scale: Vec<i32>,
    /// [block][pair of groups][row 16][2]: the minimum, or 128 * scale to take the offset of `q` away again.
    pub min: Vec<i16>,
    /// [block][row 16]
    pub d: Vec<f32>,
    pub dmin: Vec<f32>,
}

impl Strip {
    /// `q` holds the value plus 128: the correction is part of the integer sum.
    pub fn offset(&self) -> bool {
        self.kind.is_some_and(|kind| !kind.has_min())
    }

    /// Unpacks `rows` (at most 16) rows of `matrix` from row `first`; missing rows are zero.
    pub fn unpack(&mut self, matrix: &Matrix<'_>, first: usize, rows: usize) {
        let kind = matrix.kind;
        let len = kind.block_len();
        let blocks = matrix.cols / len;
        (self.kind, self.blocks, self.block_len) = (Some(kind), blocks, len);
        self.q.resize(blocks * len * STRIP, 0);
        self.d.resize(blocks * STRIP, 0.0);
        self.dmin.resize(blocks * STRIP, 0.0);
        if len == 256 {
            self.scale.resize(blocks * 16 * STRIP, 0);
            self.min.resize(blocks * 16 * STRIP, 0);
        }
        let offset = self.offset();
        let flip = if offset { 0x80 } else { 0 };
        let mut block = Unpacked::default();
        for row in 0..STRIP {
            if row >= rows {
                for b in 0..blocks {
                    (self.d[b * STRIP + row], self.dmin[b * STRIP + row]) = (0.0, 0.0);
                }
                continue;
            }
            let raw = matrix.row(first + row);
            for (b, raw) in raw.chunks_exact(kind.block_bytes()).enumerate() {
                kind.unpack(raw, &mut block);
                self.d[b * STRIP + row] = block.d;
                self.dmin[b * STRIP + row] = block.dmin;
                let q = &mut self.q[b * len * STRIP..(b + 1) * len * STRIP];
                for (out, four) in q[row * 4..].chunks_mut(STRIP * 4).zip(block.q.as_chunks::<4>().0) {
                    for i in 0..4 {
                        out[i] = four[i] as u8 ^ flip;
                    }
                }
                if len == 256 {
                    for group in 0..16 {
                        let scale = block.scale[group];
                        self.scale[(b * 16 + group) * STRIP + row] = i32::from(scale);
                        let min = if offset { 128 * scale } else { block.min[group] };
                        self.min[((b * 8 + group / 2) * STRIP + row) * 2 + group % 2] = min;
                    }
                }
            }
        }
    }
}
