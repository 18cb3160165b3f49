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
