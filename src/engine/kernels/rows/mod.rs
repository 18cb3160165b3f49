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
pub const TOKENS: usize = 8;

/// How many of `n` tokens a set takes at a call: as many as their sums have registers for, and each number of them is a
/// kernel of its own, so only some are compiled.
pub fn at_once(set: KernelSet, n: usize) -> usize {
    match n {
        8.. if set == KernelSet::Avx2 => 8,
        4.. => 4,
        2.. => 2,
        _ => n,
    }
}

/// Buffers of a thread, kept from call to call.
#[derive(Default)]
pub struct Parts {
    avx512: avx512::Parts,
    avx2: avx2::Parts,
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

/// Dot products of up to eight rows with `at_once` tokens, [token][row]; what lies behind the last of either is
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
            [a, b, c, d] => out[..4].copy_from_slice(&several(set, matrix, rows, act, [a, b, c, d], parts)),
            [a, b, c, d, e, f, g, h] if set == KernelSet::Avx2 => {
                let walk = walk(matrix, rows, act, [a, b, c, d, e, f, g, h]);
                out = avx2::dot_rows(matrix.kind, walk, &mut parts.avx2);
            }
            _ => unreachable!("{} tokens are no number of `at_once`", tokens.len()),
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
    let walk = walk(matrix, rows, act, tokens);
    // SAFETY: `walk` holds what it says; the rest as promised.
    unsafe {
        match set {
            KernelSet::Avx512Vnni => avx512::dot_rows(matrix.kind, walk, &mut parts.avx512),
            _ => avx2::dot_rows(matrix.kind, walk, &mut parts.avx2),
        }
    }
}

/// Bounds once, here; the kernels walk raw pointers inside these ranges.
fn walk<'a, const T: usize>(
    matrix: &Matrix<'a>,
    rows: Range<usize>,
    act: &'a Activations,
    tokens: [usize; T],
) -> Walk<'a, T> {
    let (stride, blocks) = (matrix.row_bytes(), matrix.cols / matrix.kind.block_len());
    let data = &matrix.data[rows.start * stride..rows.end * stride];
    let sums = if matrix.kind.block_len() == 32 { blocks } else { blocks * 16 };
    let acts = tokens.map(|token| act.row(token, matrix.kind));
    assert!(rows.len() <= ROWS);
    for act in &acts {
        assert!(act.q.len() == matrix.cols && act.d.len() == blocks && act.sums.len() == sums);
    }
    Walk { data: data.as_ptr(), stride, count: rows.len(), blocks, acts }
}

/// What both sets write alike, once for the features of each: the choice of a type's kernel. `wide256`, `wide32`,
/// `rows256`, `rows32` and `Parts` are the set's own.
macro_rules! walk_rows {
    ($features:literal) => {
        /// # Safety
        /// Needs the features; `walk` holds what it says; `kind` has a kernel.
        #[target_feature(enable = $features)]
        pub unsafe fn dot_rows<const T: usize>(
            kind: QuantType,
            walk: Walk<'_, T>,
            parts: &mut Parts,
        ) -> [[f32; ROWS]; T] {
            parts.reserve(walk.blocks, T);
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
    };
}
use walk_rows;
