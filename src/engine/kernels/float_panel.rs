//! Rows of floats (F32, F16, BF16) times many tokens, with AVX-512 or AVX2. A few rows are widened to F32 once and meet
//! every token, a tile of rows and tokens at a time, so that each load serves several products. Every product keeps its
//! sixteen lanes by k mod 16 and its one tree, multiplication and addition apart, as `scalar::dot_f32` states.

#![allow(clippy::needless_range_loop)] // tiles of registers read best by number

use super::act::Activations;
use super::panel::Aligned;
use super::rows::widen;
use super::scalar::tree16;
use super::{KernelSet, Matrix};
use crate::engine::quant::QuantType;
use std::arch::x86_64::*;
use std::ops::Range;

/// Rows that are widened at a time: with a few tokens they stay in the cache.
const ROWS: usize = 16;
/// Rows and tokens of a tile of AVX-512: thirty-two registers.
const WIDE: (usize, usize) = (4, 6);
/// Of AVX2, which has sixteen and needs two of them for a product.
const NARROW: (usize, usize) = (2, 3);

/// Gives `put` (token, row, product) for all tokens and `rows` of a matrix of floats.
///
/// # Safety
/// The machine has the set, and it is AVX2 or AVX-512.
pub unsafe fn matmul(
    set: KernelSet,
    matrix: &Matrix<'_>,
    rows: Range<usize>,
    act: &Activations,
    tokens: &[usize],
    floats: &mut Aligned,
    mut put: impl FnMut(usize, usize, f32),
) {
    let cols = matrix.cols;
    // Rows start on a register's boundary, whatever their length.
    let stride = cols.next_multiple_of(16);
    assert!(act.cols == cols);
    for row in rows.clone().step_by(ROWS) {
        let n = ROWS.min(rows.end - row);
        let w: &mut [f32] = floats.values(ROWS * stride);
        for r in 0..n {
            // SAFETY: as promised.
            unsafe { widen(matrix.kind, matrix.row(row + r), &mut w[r * stride..r * stride + cols]) };
        }
        let mut put = |t: usize, r: usize, lanes: &mut [f32; 16]| {
            let (w, x) = (&w[r * stride..r * stride + cols], act.row(tokens[t], QuantType::F32).values);
            for lane in 0..cols % 16 {
                lanes[lane] += w[cols - cols % 16 + lane] * x[cols - cols % 16 + lane];
            }
            put(t, row + r, tree16(lanes));
        };
        // SAFETY: as promised; `w` holds n rows, `act` as many tokens as `tokens` says, all of `cols` values.
        unsafe {
            if set == KernelSet::Avx512Vnni {
                tiles(WIDE, n, tokens.len(), |r, t, size| {
                    let w = w.as_ptr().add(r * stride);
                    let x = |i: usize| act.row(tokens[t + i], QuantType::F32).values.as_ptr();
                    let put = |i: usize, j: usize, lanes: &mut [f32; 16]| put(t + j, r + i, lanes);
                    match size {
                        (4, 6) => avx512::<4, 6>(w, stride, cols, x, put),
                        (4, _) => avx512::<4, 1>(w, stride, cols, x, put),
                        (_, 6) => avx512::<1, 6>(w, stride, cols, x, put),
                        _ => avx512::<1, 1>(w, stride, cols, x, put),
                    }
                });
            } else {
                tiles(NARROW, n, tokens.len(), |r, t, size| {
                    let w = w.as_ptr().add(r * stride);
                    let x = |i: usize| act.row(tokens[t + i], QuantType::F32).values.as_ptr();
                    let put = |i: usize, j: usize, lanes: &mut [f32; 16]| put(t + j, r + i, lanes);
                    match size {
                        (2, 3) => avx2::<2, 3>(w, stride, cols, x, put),
                        (2, _) => avx2::<2, 1>(w, stride, cols, x, put),
                        (_, 3) => avx2::<1, 3>(w, stride, cols, x, put),
                        _ => avx2::<1, 1>(w, stride, cols, x, put),
                    }
                });
            }
        }
    }
}

/// Calls `tile` (first row, first token, rows and tokens) until all are covered: whole tiles, then single ones.
fn tiles(
    (rows, tokens): (usize, usize),
    n: usize,
    count: usize,
    mut tile: impl FnMut(usize, usize, (usize, usize)),
) {
    let mut t = 0;
    while t < count {
        let wide = if count - t >= tokens { tokens } else { 1 };
        let mut r = 0;
        while r < n {
            let high = if n - r >= rows { rows } else { 1 };
            tile(r, t, (high, wide));
            r += high;
        }
        t += wide;
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2,f16c")]
unsafe fn avx512<const R: usize, const T: usize>(
    w: *const f32,
    stride: usize,
    cols: usize,
    x: impl Fn(usize) -> *const f32,
    mut put: impl FnMut(usize, usize, &mut [f32; 16]),
) {
    let mut xs = [std::ptr::null(); T];
    (0..T).for_each(|t| xs[t] = x(t));
    let mut acc = [[_mm512_setzero_ps(); T]; R];
    // SAFETY: the caller's rows and tokens of `cols` values.
    unsafe {
        for k in (0..cols / 16).map(|i| i * 16) {
            let mut y = [_mm512_setzero_ps(); T];
            for t in 0..T {
                y[t] = _mm512_loadu_ps(xs[t].add(k));
            }
            for r in 0..R {
                let w = _mm512_load_ps(w.add(r * stride + k));
                for t in 0..T {
                    acc[r][t] = _mm512_add_ps(acc[r][t], _mm512_mul_ps(w, y[t]));
                }
            }
        }
        for r in 0..R {
            for t in 0..T {
                let mut lanes = [0f32; 16];
                _mm512_storeu_ps(lanes.as_mut_ptr(), acc[r][t]);
                put(r, t, &mut lanes);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn avx2<const R: usize, const T: usize>(
    w: *const f32,
    stride: usize,
    cols: usize,
    x: impl Fn(usize) -> *const f32,
    mut put: impl FnMut(usize, usize, &mut [f32; 16]),
) {
    let mut xs = [std::ptr::null(); T];
    (0..T).for_each(|t| xs[t] = x(t));
    let mut acc = [[[_mm256_setzero_ps(); 2]; T]; R];
    // SAFETY: the caller's rows and tokens of `cols` values.
    unsafe {
        for k in (0..cols / 16).map(|i| i * 16) {
            for half in 0..2 {
                let mut v = [_mm256_setzero_ps(); R];
                for r in 0..R {
                    v[r] = _mm256_load_ps(w.add(r * stride + k + half * 8));
                }
                for t in 0..T {
                    let y = _mm256_loadu_ps(xs[t].add(k + half * 8));
                    for r in 0..R {
                        acc[r][t][half] = _mm256_add_ps(acc[r][t][half], _mm256_mul_ps(v[r], y));
                    }
                }
            }
        }
        for r in 0..R {
            for t in 0..T {
                let mut lanes = [0f32; 16];
                _mm256_storeu_ps(lanes.as_mut_ptr(), acc[r][t][0]);
                _mm256_storeu_ps(lanes.as_mut_ptr().add(8), acc[r][t][1]);
                put(r, t, &mut lanes);
            }
        }
    }
}
