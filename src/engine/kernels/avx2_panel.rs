//! A panel of unpacked weights times any number of tokens, with AVX2. There is no VNNI: bytes are multiplied to pairs in
//! int16, and as many pairs as cannot overflow are added there before they meet the scale of their group and become
//! int32. One side of a product must be unsigned: weights that have none below zero are as they are; else the activation
//! is 128 too large, and what that adds is the same for every token and taken away (`Panel::taken`). Weights of eight bits
//! are kept as int16 instead. Integer sums are exact, so their order is free; the float steps are those of `scalar`, in
//! its order, so the bits are the same.
//!
//! `unpack` makes the panel; the tiles are here.

#![allow(clippy::needless_range_loop)] // tiles of registers read best by number

mod unpack;

use super::act::{ActivationRow, Activations};
use super::avx512_panel::{Sink, Sums};
use super::panel::{Aligned, ROWS};
use crate::engine::quant::QuantType;
use std::arch::x86_64::*;
use std::ops::Range;
pub use unpack::Panel;

/// Tokens of a tile: as many as leave the sums of sixteen rows in registers.
const TOKENS: usize = 3;

/// Bytes of a panel's values that are worked on at a time: with scales and activations they stay in the first cache.
const CHUNK: usize = 512 * ROWS;

/// How blocks of bytes are multiplied.
trait Shape {
    /// Steps of four values whose products are added in int16.
    const STEPS: usize;
    /// Scales of a block; a block of 32 has none but `d`.
    const GROUPS: usize;
    /// Weights below zero: the activation is the unsigned side.
    const SIGNED: bool;
    /// Steps of a group.
    const GROUP_STEPS: usize = if Self::GROUPS == 1 { 8 } else { 64 / Self::GROUPS };
    const BLOCK_STEPS: usize = Self::GROUPS * Self::GROUP_STEPS;
}

/// Weights from 0 to `127 / STEPS` or so: `STEPS * 2 * weight * 127` fits int16.
struct Unsigned<const STEPS: usize, const GROUPS: usize>;
impl<const S: usize, const G: usize> Shape for Unsigned<S, G> {
    const STEPS: usize = S;
    const GROUPS: usize = G;
    const SIGNED: bool = false;
}

/// Weights of at most `64 / STEPS` on either side: `STEPS * 2 * weight * 255` fits int16.
struct Signed<const STEPS: usize, const GROUPS: usize>;
impl<const S: usize, const G: usize> Shape for Signed<S, G> {
    const STEPS: usize = S;
    const GROUPS: usize = G;
    const SIGNED: bool = true;
}

/// Weights of eight bits: no product of theirs fits beside another.
fn is_wide(kind: QuantType) -> bool {
    matches!(kind, QuantType::Q8_0 | QuantType::IQ4_NL | QuantType::IQ4_XS)
}

/// `body` with `S` as the shape of a kind whose weights are multiplied as bytes.
macro_rules! with_shape {
    ($kind:expr, $s:ident => $body:expr) => {
        match $kind {
            QuantType::Q4_K => with_shape!(@ $s Unsigned<8, 8> => $body),
            QuantType::Q5_K => with_shape!(@ $s Unsigned<4, 8> => $body),
            QuantType::Q2_K => with_shape!(@ $s Unsigned<4, 16> => $body),
            QuantType::Q4_1 => with_shape!(@ $s Unsigned<8, 1> => $body),
            QuantType::Q5_1 => with_shape!(@ $s Unsigned<4, 1> => $body),
            QuantType::Q4_0 => with_shape!(@ $s Signed<8, 1> => $body),
            QuantType::Q5_0 | QuantType::MXFP4 => with_shape!(@ $s Signed<4, 1> => $body),
            QuantType::Q6_K => with_shape!(@ $s Signed<2, 16> => $body),
            QuantType::Q3_K | QuantType::IQ3_S | QuantType::IQ1_S | QuantType::IQ1_M => {
                with_shape!(@ $s Signed<4, 16> => $body)
            }
            // IQ2 and IQ3_XXS: up to 62.
            _ => with_shape!(@ $s Signed<1, 16> => $body),
        }
    };
    (@ $s:ident $shape:ty => $body:expr) => {{
        type $s = $shape;
        $body
    }};
}
use with_shape;

/// Buffers of a thread, kept from call to call.
#[derive(Default)]
pub struct Buffers {
    /// What a tile makes of its activations.
    prepared: Aligned,
    /// f32 [token][row 32]: the sums of the blocks so far
    sums: Vec<Sums>,
}

/// Gives `sink` the products with every token of `tokens`.
///
/// # Safety
/// Needs AVX2 and F16C; the panel was unpacked from rows as long as those of `act`.
#[target_feature(enable = "avx2,f16c,bmi2")]
pub unsafe fn matmul(
    panel: &Panel,
    act: &Activations,
    tokens: &[usize],
    buffers: &mut Buffers,
    sink: &mut impl Sink,
) {
    let Some(kind) = panel.kind else { return };
    assert!(act.cols == panel.blocks * kind.block_len());
    let Buffers { prepared, sums } = buffers;
    sums.clear();
    sums.resize(tokens.len(), [0.0; ROWS]);
    let step = CHUNK / panel.block_bytes;
    for first in (0..panel.blocks).step_by(step) {
        let blocks = first..panel.blocks.min(first + step);
        let tiles = tokens.chunks(TOKENS).zip(sums.chunks_mut(TOKENS));
        for (tokens, sums) in tiles {
            let of = Tile { panel, kind, act, blocks: blocks.clone() };
            // SAFETY: as promised, and as asserted.
            unsafe {
                match tokens.len() {
                    1 => of.add::<1>(tokens, prepared, sums),
                    2 => of.add::<2>(tokens, prepared, sums),
                    _ => of.add::<TOKENS>(tokens, prepared, sums),
                }
            }
        }
    }
    for (t, sums) in sums.iter().enumerate() {
        sink.ahead((t + 4).min(tokens.len() - 1));
        sink.put(t, sums);
    }
}

/// What the tiles read of some tokens, from the tile's first block on.
struct Tokens<'a, const T: usize> {
    acts: [ActivationRow<'a>; T],
    /// The activations as the weights want them: as they are, 128 too large, or as int16.
    y: [*const u8; T],
    /// Pairs of sums as the pairs of minima want them, [blocks][groups / 2] of two int16.
    pairs: [*const i32; T],
}

/// Some blocks of a panel times a few tokens.
struct Tile<'a> {
    panel: &'a Panel,
    kind: QuantType,
    act: &'a Activations,
    blocks: Range<usize>,
}

impl Tile<'_> {
    /// Adds the products to `sums`, a token each.
    ///
    /// # Safety
    /// As for `matmul`; the blocks are the panel's; there are `T` tokens.
    #[target_feature(enable = "avx2,f16c,bmi2")]
    unsafe fn add<const T: usize>(&self, tokens: &[usize], prepared: &mut Aligned, sums: &mut [Sums]) {
        let Self { panel, kind, act, ref blocks } = *self;
        let Some(out) = sums.first_chunk_mut::<T>() else { return };
        let len = kind.block_len();
        let (from, cols) = (blocks.start * len, blocks.len() * len);
        let sums_of = if len == 32 { 1 } else { 16 };
        let acts: [ActivationRow<'_>; T] = std::array::from_fn(|t| {
            let act = act.row(tokens[t], kind);
            ActivationRow {
                values: &[],
                q: &act.q[from..from + cols],
                d: &act.d[blocks.clone()],
                sums: &act.sums[blocks.start * sums_of..blocks.end * sums_of],
                taken: &[],
                pairs: if len == 32 { &[] } else { &act.pairs[blocks.start * 4..blocks.end * 4] },
            }
        });
        let mut tokens = Tokens {
            acts,
            y: acts.map(|act| act.q.as_ptr().cast()),
            pairs: acts.map(|act| act.sums.as_ptr().cast()),
        };
        if is_wide(kind) {
            let wide: &mut [i16] = prepared.values(T * cols);
            for ((wide, act), y) in wide.chunks_exact_mut(cols).zip(&acts).zip(&mut tokens.y) {
                wide.iter_mut().zip(act.q).for_each(|(wide, q)| *wide = i16::from(*q));
                *y = wide.as_ptr().cast();
            }
        } else if !kind.has_min() {
            let flipped: &mut [u8] = prepared.values(T * cols);
            for ((flipped, act), y) in flipped.chunks_exact_mut(cols).zip(&acts).zip(&mut tokens.y) {
                flipped.iter_mut().zip(act.q).for_each(|(flipped, q)| *flipped = *q as u8 ^ 0x80);
                *y = flipped.as_ptr();
            }
        } else if panel.groups == 8 {
            tokens.pairs = acts.map(|act| act.pairs.as_ptr());
        }
        let first = blocks.start;
        for half in 0..2 {
            // SAFETY: the caller's promise.
            unsafe {
                match kind {
                    QuantType::IQ4_XS => tile_wide::<T, 8>(panel, first, half, &tokens, out),
                    _ if is_wide(kind) => tile_wide::<T, 1>(panel, first, half, &tokens, out),
                    _ => with_shape!(kind, S => tile::<T, S>(panel, first, half, &tokens, out)),
                }
            }
        }
    }
}

/// The integer sums of one block: sixteen rows at `q` and `scales`, `y` at the block's activations.
#[inline]
#[target_feature(enable = "avx2,f16c,bmi2")]
unsafe fn block_sums<const T: usize, S: Shape>(
    q: *const u8,
    scales: *const i32,
    y: &[*const u8; T],
    from: [__m256i; 2],
) -> [[__m256i; 2]; T] {
    let mut sum = [from; T];
    // SAFETY: the caller's block: `BLOCK_STEPS` times 64 bytes, `GROUPS` times 32 scales, four activations a step.
    unsafe {
        for g in 0..S::GROUPS {
            for s in (0..S::GROUP_STEPS).step_by(S::STEPS) {
                let mut part = [[_mm256_setzero_si256(); 2]; T];
                for k in g * S::GROUP_STEPS + s..g * S::GROUP_STEPS + s + S::STEPS {
                    let q = q.add(k * 2 * ROWS);
                    let w = [_mm256_load_si256(q.cast()), _mm256_load_si256(q.add(32).cast())];
                    for t in 0..T {
                        let y = _mm256_set1_epi32(y[t].add(k * 4).cast::<i32>().read_unaligned());
                        for h in 0..2 {
                            let products = if S::SIGNED {
                                _mm256_maddubs_epi16(y, w[h])
                            } else {
                                _mm256_maddubs_epi16(w[h], y)
                            };
                            part[t][h] = _mm256_add_epi16(part[t][h], products);
                        }
                    }
                }
                for h in 0..2 {
                    let scale = if S::GROUPS == 1 {
                        _mm256_set1_epi16(1)
                    } else {
                        _mm256_load_si256(scales.add(g * ROWS + h * 8).cast())
                    };
                    for t in 0..T {
                        sum[t][h] = _mm256_add_epi32(sum[t][h], _mm256_madd_epi16(part[t][h], scale));
                    }
                }
            }
        }
    }
    sum
}

/// The float steps of block `b`: `sum` under both scales, added to what is in `out`.
#[inline]
#[target_feature(enable = "avx2,f16c,bmi2")]
unsafe fn add_block<const T: usize>(
    panel: &Panel,
    (first, b): (usize, usize),
    half: usize,
    tokens: &Tokens<'_, T>,
    sum: &[[__m256i; 2]; T],
    out: &mut [Sums; T],
) {
    // SAFETY: block b of the panel and of each token; sixteen rows from `half` on.
    unsafe {
        for h in 0..2 {
            let row = half * 16 + h * 8;
            let d = _mm256_load_ps(panel.d.as_ptr::<f32>().add((first + b) * ROWS + row));
            for t in 0..T {
                let acc = out[t].as_mut_ptr().add(row);
                let scale = _mm256_mul_ps(d, _mm256_set1_ps(*tokens.acts[t].d.get_unchecked(b)));
                let step = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sum[t][h]));
                _mm256_storeu_ps(acc, _mm256_add_ps(_mm256_loadu_ps(acc), step));
            }
        }
    }
}

/// The minima of block `b`, taken away from what is in `out`.
#[inline]
#[target_feature(enable = "avx2,f16c,bmi2")]
unsafe fn take_minima<const T: usize, S: Shape>(
    panel: &Panel,
    (first, b): (usize, usize),
    half: usize,
    tokens: &Tokens<'_, T>,
    out: &mut [Sums; T],
) {
    // SAFETY: as in `add_block`.
    unsafe {
        for h in 0..2 {
            let row = half * 16 + h * 8;
            let dmin = _mm256_load_ps(panel.dmin.as_ptr::<f32>().add((first + b) * ROWS + row));
            let mins = panel.min.as_ptr::<i16>().add((first + b) * S::GROUPS * ROWS + row * 2);
            for t in 0..T {
                let act = &tokens.acts[t];
                let sum = if S::GROUPS == 1 {
                    _mm256_set1_ps(f32::from(*act.sums.get_unchecked(b)))
                } else {
                    let mut sum = _mm256_setzero_si256();
                    for p in 0..S::GROUPS / 2 {
                        let min = _mm256_load_si256(mins.add(p * ROWS * 2).cast());
                        let pair = tokens.pairs[t].add(b * S::GROUPS / 2 + p).read_unaligned();
                        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(min, _mm256_set1_epi32(pair)));
                    }
                    _mm256_cvtepi32_ps(sum)
                };
                let acc = out[t].as_mut_ptr().add(row);
                let scale = _mm256_mul_ps(dmin, _mm256_set1_ps(*act.d.get_unchecked(b)));
                _mm256_storeu_ps(acc, _mm256_sub_ps(_mm256_loadu_ps(acc), _mm256_mul_ps(scale, sum)));
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c,bmi2")]
unsafe fn tile<const T: usize, S: Shape>(
    panel: &Panel,
    first: usize,
    half: usize,
    tokens: &Tokens<'_, T>,
    out: &mut [Sums; T],
) {
    let scaled = if S::GROUPS == 1 { 0 } else { S::GROUPS };
    // SAFETY: every index stays inside block b of the panel and of the tokens' rows.
    unsafe {
        for b in 0..tokens.acts[0].d.len() {
            let at = first + b;
            let q = panel.q.as_ptr::<u8>().add((at * 2 + half) * S::BLOCK_STEPS * 2 * ROWS);
            let scales = panel.scale.as_ptr::<i32>().add(at * scaled * ROWS + half * 16);
            let y: [*const u8; T] = std::array::from_fn(|t| tokens.y[t].add(b * S::BLOCK_STEPS * 4));
            let from = if S::SIGNED {
                let taken = panel.taken.as_ptr::<i32>().add(at * ROWS + half * 16);
                [_mm256_load_si256(taken.cast()), _mm256_load_si256(taken.add(8).cast())]
            } else {
                [_mm256_setzero_si256(); 2]
            };
            let sum = block_sums::<T, S>(q, scales, &y, from);
            add_block(panel, (first, b), half, tokens, &sum, out);
            if !S::SIGNED {
                take_minima::<T, S>(panel, (first, b), half, tokens, out);
            }
        }
    }
}

/// Weights and activations of int16; blocks of 256 with eight scales, or of 32 with none (`G` is 1).
#[inline]
#[target_feature(enable = "avx2,f16c,bmi2")]
unsafe fn tile_wide<const T: usize, const G: usize>(
    panel: &Panel,
    first: usize,
    half: usize,
    tokens: &Tokens<'_, T>,
    out: &mut [Sums; T],
) {
    // SAFETY: every index stays inside block b of the panel and of the tokens' rows.
    unsafe {
        for b in 0..tokens.acts[0].d.len() {
            let q = panel.q.as_ptr::<i16>().add(((first + b) * 2 + half) * G * 32 * ROWS / 2);
            let mut sum = [[_mm256_setzero_si256(); 2]; T];
            for g in 0..G {
                let mut dot = [[_mm256_setzero_si256(); 2]; T];
                for k in g * 16..(g + 1) * 16 {
                    let q = q.add(k * ROWS);
                    let w = [_mm256_load_si256(q.cast()), _mm256_load_si256(q.add(16).cast())];
                    for t in 0..T {
                        let y =
                            _mm256_set1_epi32(tokens.y[t].cast::<i32>().add(b * G * 16 + k).read_unaligned());
                        for h in 0..2 {
                            dot[t][h] = _mm256_add_epi32(dot[t][h], _mm256_madd_epi16(w[h], y));
                        }
                    }
                }
                if G == 1 {
                    sum = dot;
                    continue;
                }
                for h in 0..2 {
                    let scales = panel.scale.as_ptr::<i32>();
                    let scales = scales.add(((first + b) * G + g) * ROWS + half * 16 + h * 8);
                    let scale = _mm256_load_si256(scales.cast());
                    for t in 0..T {
                        sum[t][h] = _mm256_add_epi32(sum[t][h], _mm256_mullo_epi32(dot[t][h], scale));
                    }
                }
            }
            add_block(panel, (first, b), half, tokens, &sum, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::quant::Unpacked;

    #[test]
    fn sums_of_products_fit_int16() {
        let mut state = 3u64;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        for kind in QuantType::ALL.into_iter().filter(|kind| kind.block_len() > 1 && !is_wide(*kind)) {
            let (mut least, mut most) = (0, 0);
            let mut unpacked = Unpacked::default();
            for _ in 0..2000 {
                let block: Vec<u8> = (0..kind.block_bytes()).map(|_| byte()).collect();
                kind.unpack(&block, &mut unpacked);
                for &q in &unpacked.q[..kind.block_len()] {
                    (least, most) = (least.min(i32::from(q)), most.max(i32::from(q)));
                }
            }
            let (steps, signed) = with_shape!(kind, S => (S::STEPS as i32, S::SIGNED));
            assert_eq!(signed, least < 0, "{}", kind.name());
            // 255: an activation of 127 that is 128 too large.
            let activation = if signed { 255 } else { 127 };
            let largest = 2 * steps * activation * most.max(-least);
            assert!(largest <= i32::from(i16::MAX), "{}: {least} to {most}", kind.name());
        }
    }
}
