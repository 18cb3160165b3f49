//! A few tokens times weight rows, straight from the file's layout: what decode does, and decode is bandwidth. Each
//! weight byte is read once, in file order, up to eight rows at a call, and taken apart once for up to `TOKENS` tokens.
//! A kernel leaves the integers of every block in a buffer (`Part`: integer sums are exact, so their order is free), and
//! one pass of floats follows for all eight rows, block after block, in the order of operations that `scalar` states; so
//! the bits are those of the reference.
//!
//! `avx512` and `avx2` hold the two sets, each with a file for the types of 256 and of 32 values a block; `common` what
//! they share, `float` the rows of floats. A type without a kernel (the lattices of IQ1 to IQ3) takes the reference.
//! Activations are -127..=127, as `act` makes them: -128 would overflow the products of AVX2.

mod avx2;
mod avx512;
pub(super) mod common;
mod float;

use super::act::{ActivationRow, Activations};
use super::{KernelSet, Matrix};
use crate::engine::quant::QuantType;
pub use float::{dot_float, widen};
use std::ops::Range;

/// Rows that `dot_rows` takes at a time, at most.
pub const ROWS: usize = 8;

/// Tokens that `dot_rows` takes at a time, at most.
pub const TOKENS: usize = 4;

/// Buffers of a thread, kept from call to call.
#[derive(Default)]
pub struct Parts {
    avx512: Vec<avx512::Part>,
    avx2: Vec<avx2::Part>,
}

/// Whether `dot_rows` of this set knows the type.
pub fn has_kernel(set: KernelSet, kind: QuantType) -> bool {
    use QuantType::*;
    let known = matches!(
        kind,
        Q8_0 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | IQ4_NL | MXFP4 | Q2_K | Q3_K | Q4_K | Q5_K | Q6_K | IQ4_XS
    );
    known && set != KernelSet::Scalar
}

/// The rows of one call: `count` (at most eight) of `blocks` blocks each, `stride` bytes apart, and the tokens.
#[derive(Clone, Copy)]
struct Walk<'a, const T: usize> {
    data: *const u8,
    stride: usize,
    count: usize,
    blocks: usize,
    acts: [ActivationRow<'a>; T],
}

/// Dot products of up to eight rows with up to `TOKENS` tokens, [token][row]; what lies behind the last of either is
/// meaningless.
///
/// # Safety
/// The machine has the set, and `has_kernel(set, matrix.kind)`.
pub unsafe fn dot_rows(
    set: KernelSet,
    matrix: &Matrix<'_>,
    rows: Range<usize>,
    act: &Activations,
    tokens: &[usize],
    parts: &mut Parts,
) -> [[f32; ROWS]; TOKENS] {
    let mut out = [[0.0; ROWS]; TOKENS];
    // SAFETY: as promised.
    unsafe {
        match *tokens {
            [a] => out[..1].copy_from_slice(&several(set, matrix, rows, act, [a], parts)),
            [a, b] => out[..2].copy_from_slice(&several(set, matrix, rows, act, [a, b], parts)),
            [a, b, c] => out[..3].copy_from_slice(&several(set, matrix, rows, act, [a, b, c], parts)),
            [a, b, c, d] => out = several(set, matrix, rows, act, [a, b, c, d], parts),
            _ => assert!(tokens.is_empty(), "at most {TOKENS} tokens"),
        }
    }
    out
}

/// As `dot_rows`, for exactly `T` tokens.
unsafe fn several<const T: usize>(
    set: KernelSet,
    matrix: &Matrix<'_>,
    rows: Range<usize>,
    act: &Activations,
    tokens: [usize; T],
    parts: &mut Parts,
) -> [[f32; ROWS]; T] {
    let (stride, blocks) = (matrix.row_bytes(), matrix.cols / matrix.kind.block_len());
    // Bounds once, here; the kernels walk raw pointers inside these ranges.
    let data = &matrix.data[rows.start * stride..rows.end * stride];
    let sums = if matrix.kind.block_len() == 32 { blocks } else { blocks * 16 };
    let acts = tokens.map(|token| act.row(token, matrix.kind));
    assert!(rows.len() <= ROWS);
    for act in &acts {
        assert!(act.q.len() == matrix.cols && act.d.len() == blocks && act.sums.len() == sums);
    }
    let walk = Walk { data: data.as_ptr(), stride, count: rows.len(), blocks, acts };
    // SAFETY: `data` holds `count` rows of `blocks` blocks and each of `acts` a block for each of them; the rest as promised.
    unsafe {
        match set {
            KernelSet::Avx512Vnni => avx512::dot_rows(matrix.kind, walk, &mut parts.avx512),
            _ => avx2::dot_rows(matrix.kind, walk, &mut parts.avx2),
        }
    }
}

/// What both sets write alike, once for the features and the register of each: the choice of a type's kernel, and the walk
/// over blocks of 256. `wide256`, `wide32`, `rows32`, `sum8` and `Part` are the set's own.
macro_rules! walk_rows {
    ($features:literal, $zero:expr) => {
        /// # Safety
        /// Needs the features; `walk` holds what it says; `kind` has a kernel.
        #[target_feature(enable = $features)]
        pub unsafe fn dot_rows<const T: usize>(
            kind: QuantType,
            walk: Walk<'_, T>,
            parts: &mut Vec<Part>,
        ) -> [[f32; ROWS]; T] {
            if parts.len() < walk.blocks * T {
                let zero = Part { sum: [$zero; ROWS], d: [0; ROWS], min: [0; ROWS] };
                parts.resize(walk.blocks * T, zero);
            }
            let mut out = [[0f32; ROWS]; T];
            // SAFETY: as promised; `parts` has a place for each block and token; eight floats are stored.
            unsafe {
                let acc = match kind {
                    QuantType::Q2_K => rows256::<wide256::Q2K, T>(walk, parts),
                    QuantType::Q3_K => rows256::<wide256::Q3K, T>(walk, parts),
                    QuantType::Q4_K => rows256::<wide256::Q4K, T>(walk, parts),
                    QuantType::Q5_K => rows256::<wide256::Q5K, T>(walk, parts),
                    QuantType::Q6_K => rows256::<wide256::Q6K, T>(walk, parts),
                    QuantType::IQ4_XS => rows256::<wide256::Iq4Xs, T>(walk, parts),
                    QuantType::Q4_0 => rows32::<wide32::Q4_0, T>(walk, parts),
                    QuantType::Q4_1 => rows32::<wide32::Q4_1, T>(walk, parts),
                    QuantType::Q5_0 => rows32::<wide32::Q5_0, T>(walk, parts),
                    QuantType::Q5_1 => rows32::<wide32::Q5_1, T>(walk, parts),
                    QuantType::IQ4_NL => rows32::<wide32::Iq4Nl, T>(walk, parts),
                    QuantType::MXFP4 => rows32::<wide32::Mxfp4, T>(walk, parts),
                    _ => rows32::<wide32::Q8_0, T>(walk, parts),
                };
                for (out, acc) in out.iter_mut().zip(acc) {
                    _mm256_storeu_ps(out.as_mut_ptr(), acc);
                }
            }
            out
        }

        #[allow(clippy::needless_range_loop)] // registers read best by number
        #[target_feature(enable = $features)]
        unsafe fn rows256<K: Block256, const T: usize>(walk: Walk<'_, T>, parts: &mut [Part]) -> [__m256; T] {
            let Walk { data, stride, count, blocks, acts } = walk;
            let bytes = K::KIND.block_bytes();
            for r in 0..count {
                for b in 0..blocks {
                    // SAFETY: block b of row r, and of the activations.
                    unsafe {
                        let p = data.add(r * stride + b * bytes);
                        ahead(p, bytes);
                        // Nothing is stored between these, so that the compiler takes the weights apart once for all.
                        // A closure would not be inlined: it has features that `from_fn` lacks.
                        let mut made = [Block { sum: $zero, d: 0, min: 0 }; T];
                        for t in 0..T {
                            let act = acts.get_unchecked(t);
                            made[t] = K::block(p, act.q.as_ptr().add(b * 256), act.sums.as_ptr().add(b * 16));
                        }
                        for t in 0..T {
                            let (block, part) = (made[t], parts.get_unchecked_mut(b * T + t));
                            (part.sum[r], part.d[r], part.min[r]) = (block.sum, block.d, block.min);
                        }
                    }
                }
            }
            let mut acc = [_mm256_setzero_ps(); T];
            for (b, parts) in parts.chunks_exact(T).enumerate().take(blocks) {
                for (t, part) in parts.iter().enumerate() {
                    // SAFETY: eight values each.
                    let (d, min) = unsafe {
                        (
                            _mm256_loadu_si256(part.d.as_ptr().cast()),
                            _mm256_loadu_si256(part.min.as_ptr().cast()),
                        )
                    };
                    let dy = _mm256_set1_ps(acts[t].d[b]);
                    let sum = _mm256_cvtepi32_ps(sum8(&part.sum));
                    acc[t] = _mm256_add_ps(acc[t], _mm256_mul_ps(_mm256_mul_ps(halves(d), dy), sum));
                    if K::KIND.has_min() {
                        let dmin = _mm256_mul_ps(halves(_mm256_srli_epi32::<16>(d)), dy);
                        acc[t] = _mm256_sub_ps(acc[t], _mm256_mul_ps(dmin, _mm256_cvtepi32_ps(min)));
                    }
                }
            }
            acc
        }
    };
}
use walk_rows;
