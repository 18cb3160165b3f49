//! The panel of the AVX2 tiles: as `panel::Panel`, but each half of the rows lies together, with scales twice beside each other as the
//! products in int16 want them, and what an activation that is 128 too large adds. Weights of eight bits lie as int16.

use super::{Shape, Signed, Unsigned, block_sums, is_wide, with_shape};
use crate::engine::kernels::panel::{Aligned, Block, ROWS, Rows};
use crate::engine::kernels::unpack::unpack_row;
use crate::engine::quant::QuantType;
use std::arch::x86_64::*;

/// Per block of 256 (or 32): values, scales, minima of thirty-two rows.
#[derive(Default)]
pub struct Panel {
    pub kind: Option<QuantType>,
    pub blocks: usize,
    /// Of `q`.
    pub block_bytes: usize,
    /// Scales per block: 16 or 8; none (0) where the block has one scale, `d`.
    pub groups: usize,
    /// i8 or u8 [block][half][k / 4][row 16][4]; of eight bits: i16 [block][half][k / 2][row 16][2]
    pub q: Aligned,
    /// [block][group][row 32]: two int16 of the same scale; of eight bits: one int32
    pub scale: Aligned,
    /// i16 [block][pair of groups][row 32][2]: minima, where the type has them
    pub min: Aligned,
    /// i32 [block][row 32]: -128 times the sum of the values under their scales, where the activations are 128 too large
    pub taken: Aligned,
    /// f32 [block][row 32]
    pub d: Aligned,
    pub dmin: Aligned,
    block: Box<Block>,
}

/// Scales per block of 256 that a type really has; 16 fits all.
fn groups(kind: QuantType) -> usize {
    match (kind.block_len(), kind) {
        (32, _) => 0,
        (_, QuantType::Q4_K | QuantType::Q5_K | QuantType::IQ4_XS) => 8,
        _ => 16,
    }
}

impl Panel {
    /// Unpacks `rows`, `cols` values each.
    ///
    /// # Safety
    /// Needs AVX2 and F16C.
    #[target_feature(enable = "avx2,f16c,bmi2")]
    pub unsafe fn unpack(&mut self, kind: QuantType, cols: usize, rows: &Rows<'_>) {
        let (len, wide) = (kind.block_len(), is_wide(kind));
        let (blocks, groups) = (cols / len, groups(kind));
        let signed = !wide && !kind.has_min();
        let bytes = len * ROWS * if wide { 2 } else { 1 };
        (self.kind, self.blocks, self.block_bytes, self.groups) = (Some(kind), blocks, bytes, groups);
        let q = self.q.values::<u8>(blocks * bytes);
        let scale = self.scale.values::<i32>(blocks * groups * ROWS);
        let min = self.min.values::<i16>(if kind.has_min() { blocks * groups * ROWS } else { 0 });
        let taken = self.taken.values::<i32>(if signed { blocks * ROWS } else { 0 });
        let d = self.d.values::<f32>(blocks * ROWS);
        let dmin = self.dmin.values::<f32>(blocks * ROWS);
        let block = &mut *self.block;
        for b in 0..blocks {
            // SAFETY: features as promised; the block has the bytes of its kind.
            block.fill(kind, rows, b, |kind, raw, block, r| unsafe { unpack_row(kind, raw, block, r) });
            d[b * ROWS..(b + 1) * ROWS].copy_from_slice(&block.d);
            dmin[b * ROWS..(b + 1) * ROWS].copy_from_slice(&block.dmin);
            let q = &mut q[b * bytes..(b + 1) * bytes];
            let scale = &mut scale[b * groups * ROWS..(b + 1) * groups * ROWS];
            put_scales(&block.scale, wide, scale);
            // SAFETY: features as promised; sizes are checked inside.
            unsafe {
                if wide {
                    lay_wide(&block.q, len, q);
                } else {
                    lay(&block.q, len, kind.has_min(), q);
                }
            }
            if signed {
                let taken = &mut taken[b * ROWS..(b + 1) * ROWS];
                // SAFETY: `q`, `scale` and `taken` are of one block of the kind.
                unsafe { with_shape!(kind, S => offsets::<S>(q, scale, taken)) };
            }
            if kind.has_min() {
                put_minima(&block.min, &mut min[b * groups * ROWS..(b + 1) * groups * ROWS]);
            }
        }
    }
}

/// [row][16] becomes [group][row]; fewer groups stand for two (or more) of the sixteen.
fn put_scales(scales: &[[i16; 16]; ROWS], wide: bool, out: &mut [i32]) {
    let groups = out.len() / ROWS;
    for (g, out) in out.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
        for (out, scales) in out.iter_mut().zip(scales) {
            let scale = i32::from(scales[g * 16 / groups]);
            *out = if wide { scale } else { scale & 0xffff | scale << 16 };
        }
    }
}

/// [row][16] becomes [pair of groups][row][2].
fn put_minima(mins: &[[i16; 16]; ROWS], out: &mut [i16]) {
    let groups = out.len() / ROWS;
    let step = 16 / groups.max(1);
    for (p, out) in out.chunks_exact_mut(2 * ROWS).enumerate() {
        for (out, mins) in out.as_chunks_mut::<2>().0.iter_mut().zip(mins) {
            *out = [mins[2 * p * step], mins[(2 * p + 1) * step]];
        }
    }
}

/// What activations of 128 give, turned.
#[inline]
#[target_feature(enable = "avx2,f16c,bmi2")]
unsafe fn offsets<S: Shape>(q: &[u8], scales: &[i32], taken: &mut [i32]) {
    let y = [0x80u8; 256];
    let zero = _mm256_setzero_si256();
    for half in 0..2 {
        // SAFETY: the caller's block.
        unsafe {
            let (q, scales) = (q.as_ptr().add(half * q.len() / 2), scales.as_ptr().wrapping_add(half * 16));
            let [sums] = block_sums::<1, S>(q, scales, &[y.as_ptr()], [zero; 2]);
            for (h, sum) in sums.into_iter().enumerate() {
                let to = taken.as_mut_ptr().add(half * 16 + h * 8);
                _mm256_storeu_si256(to.cast(), _mm256_sub_epi32(zero, sum));
            }
        }
    }
}

/// [row][k] becomes [half][k / 4][row 16][4]. What is not `unsigned` is stored 128 too large and is laid out as it is.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn lay(rows: &[[u8; 256]; ROWS], len: usize, unsigned: bool, out: &mut [u8]) {
    assert!(len <= 256 && len.is_multiple_of(32) && out.len() == len * ROWS);
    let flip = _mm256_set1_epi8(if unsigned { 0 } else { -128 });
    for k in (0..len).step_by(32) {
        for part in 0..ROWS / 8 {
            // SAFETY: rows have 256 bytes; `out` has `len / 4` times 128, as asserted.
            unsafe {
                let r = transpose8(std::array::from_fn(|i| {
                    _mm256_xor_si256(_mm256_loadu_si256(rows[part * 8 + i].as_ptr().add(k).cast()), flip)
                }));
                for (i, r) in r.into_iter().enumerate() {
                    let to = part / 2 * out.len() / 2 + (k / 4 + i) * 64 + part % 2 * 32;
                    _mm256_storeu_si256(out.as_mut_ptr().add(to).cast(), r);
                }
            }
        }
    }
}

/// [row][k] of bytes that are 128 too large becomes int16 [half][k / 2][row 16][2] as it is.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn lay_wide(rows: &[[u8; 256]; ROWS], len: usize, out: &mut [u8]) {
    assert!(len <= 256 && len.is_multiple_of(32) && out.len() == len * ROWS * 2);
    let flip = _mm_set1_epi8(-128);
    for k in (0..len).step_by(16) {
        for part in 0..ROWS / 8 {
            // SAFETY: rows have 256 bytes; `out` has `len / 2` times 128, as asserted.
            unsafe {
                let r = transpose8(std::array::from_fn(|i| {
                    let bytes = _mm_loadu_si128(rows[part * 8 + i].as_ptr().add(k).cast());
                    _mm256_cvtepi8_epi16(_mm_xor_si128(bytes, flip))
                }));
                for (i, r) in r.into_iter().enumerate() {
                    let to = part / 2 * out.len() / 2 + (k / 2 + i) * 64 + part % 2 * 32;
                    _mm256_storeu_si256(out.as_mut_ptr().add(to).cast(), r);
                }
            }
        }
    }
}

/// Eight registers of eight numbers, transposed.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose8(r: [__m256i; 8]) -> [__m256i; 8] {
    let mut a = r;
    for i in (0..8).step_by(2) {
        a[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        a[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    let mut b = a;
    for i in (0..8).step_by(4) {
        b[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    // b[4i + j], lane l: rows 4i to 4i + 3 of column 4l + j.
    let mut out = b;
    for j in 0..4 {
        out[j] = _mm256_permute2x128_si256::<0x20>(b[j], b[4 + j]);
        out[4 + j] = _mm256_permute2x128_si256::<0x31>(b[j], b[4 + j]);
    }
    out
}
