//! A few tokens times weight rows, straight from the file's layout: what decode does, and decode is bandwidth. Each
//! weight byte is read once, in file order, up to eight rows at a call. A kernel leaves the integers of every block in
//! a buffer (`Part`: integer sums are exact, so their order is free), and one pass of floats follows for all eight rows,
//! block after block, in the order of operations that `scalar` states; so the bits are those of the reference.
//!
//! `avx512` and `avx2` hold the two sets, each with a file for the types of 256 and of 32 values a block; `common` what
//! they share, `float` the rows of floats. A type without a kernel (the lattices of IQ1 to IQ3) takes the reference.
//! Activations are -127..=127, as `act` makes them: -128 would overflow the products of AVX2.

mod avx2;
mod avx512;
pub(super) mod common;
mod float;

use super::act::ActivationRow;
use super::{KernelSet, Matrix};
use crate::engine::quant::QuantType;
pub use float::{dot_float, widen};
use std::ops::Range;

/// Rows that `dot_rows` takes at a time, at most.
pub const ROWS: usize = 8;

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

/// The rows of one call: `count` (at most eight) of `blocks` blocks each, `stride` bytes apart, and the token.
#[derive(Clone, Copy)]
struct Walk<'a> {
    data: *const u8,
    stride: usize,
    count: usize,
    blocks: usize,
    act: ActivationRow<'a>,
}

/// Dot products of up to eight rows with one token; what lies behind the last of them is meaningless.
///
/// # Safety
/// The machine has the set, and `has_kernel(set, matrix.kind)`.
pub unsafe fn dot_rows(
    set: KernelSet,
    matrix: &Matrix<'_>,
    rows: Range<usize>,
    act: ActivationRow<'_>,
    parts: &mut Parts,
) -> [f32; ROWS] {
    let (stride, blocks) = (matrix.row_bytes(), matrix.cols / matrix.kind.block_len());
    // Bounds once, here; the kernels walk raw pointers inside these ranges.
    let data = &matrix.data[rows.start * stride..rows.end * stride];
    let sums = if matrix.kind.block_len() == 32 { blocks } else { blocks * 16 };
    assert!(rows.len() <= ROWS && act.q.len() == matrix.cols);
    assert!(act.d.len() == blocks && act.sums.len() == sums);
    let walk = Walk { data: data.as_ptr(), stride, count: rows.len(), blocks, act };
    // SAFETY: `data` holds `count` rows of `blocks` blocks and `act` a block for each of them; the rest as promised.
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
        pub unsafe fn dot_rows(kind: QuantType, walk: Walk<'_>, parts: &mut Vec<Part>) -> [f32; ROWS] {
            if parts.len() < walk.blocks {
                let zero = Part { sum: [$zero; ROWS], d: [0; ROWS], min: [0; ROWS] };
                parts.resize(walk.blocks, zero);
            }
            let mut out = [0f32; ROWS];
            // SAFETY: as promised; `parts` has a place for each block; eight floats are stored.
            unsafe {
                let acc = match kind {
                    QuantType::Q2_K => rows256::<wide256::Q2K>(walk, parts),
                    QuantType::Q3_K => rows256::<wide256::Q3K>(walk, parts),
                    QuantType::Q4_K => rows256::<wide256::Q4K>(walk, parts),
                    QuantType::Q5_K => rows256::<wide256::Q5K>(walk, parts),
                    QuantType::Q6_K => rows256::<wide256::Q6K>(walk, parts),
                    QuantType::IQ4_XS => rows256::<wide256::Iq4Xs>(walk, parts),
                    QuantType::Q4_0 => rows32::<wide32::Q4_0>(walk, parts),
                    QuantType::Q4_1 => rows32::<wide32::Q4_1>(walk, parts),
                    QuantType::Q5_0 => rows32::<wide32::Q5_0>(walk, parts),
                    QuantType::Q5_1 => rows32::<wide32::Q5_1>(walk, parts),
                    QuantType::IQ4_NL => rows32::<wide32::Iq4Nl>(walk, parts),
                    QuantType::MXFP4 => rows32::<wide32::Mxfp4>(walk, parts),
                    _ => rows32::<wide32::Q8_0>(walk, parts),
                };
                _mm256_storeu_ps(out.as_mut_ptr(), acc);
            }
            out
        }

        #[target_feature(enable = $features)]
        unsafe fn rows256<K: Block256>(walk: Walk<'_>, parts: &mut [Part]) -> __m256 {
            let Walk { data, stride, count, blocks, act } = walk;
            let bytes = K::KIND.block_bytes();
            for r in 0..count {
                for b in 0..blocks {
                    // SAFETY: block b of row r, and of the activations.
                    unsafe {
                        let part = parts.get_unchecked_mut(b);
                        let p = data.add(r * stride + b * bytes);
                        ahead(p, bytes);
                        let block = K::block(p, act.q.as_ptr().add(b * 256), act.sums.as_ptr().add(b * 16));
                        (part.sum[r], part.d[r], part.min[r]) = (block.sum, block.d, block.min);
                    }
                }
            }
            let mut acc = _mm256_setzero_ps();
            for (b, part) in parts.iter().enumerate().take(blocks) {
                // SAFETY: eight values each.
                let (d, min) = unsafe {
                    (_mm256_loadu_si256(part.d.as_ptr().cast()), _mm256_loadu_si256(part.min.as_ptr().cast()))
                };
                let dy = _mm256_set1_ps(act.d[b]);
                let sum = _mm256_cvtepi32_ps(sum8(&part.sum));
                acc = _mm256_add_ps(acc, _mm256_mul_ps(_mm256_mul_ps(halves(d), dy), sum));
                if K::KIND.has_min() {
                    let dmin = halves(_mm256_srli_epi32::<16>(d));
                    acc = _mm256_sub_ps(acc, _mm256_mul_ps(_mm256_mul_ps(dmin, dy), _mm256_cvtepi32_ps(min)));
                }
            }
            acc
        }
    };
}
use walk_rows;
