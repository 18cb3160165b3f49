//! Attention with AVX2: query heads that share a key head share each load of its keys and values. The sums are those of
//! `attention::tile_step`, each in the same order, so the bits are the same.

use crate::engine::attention::{Running, TILE, weigh};
use std::arch::x86_64::*;

/// Query heads that share each load: as many as leave their sums in registers.
pub const HEADS: usize = 6;

/// Two to `HEADS` query heads of one token against one tile of keys; merges into the running state.
/// `queries`: [heads][dim], `keys` and `values`: [keys][dim], `scores`: [HEADS][TILE] of scratch.
///
/// # Safety
/// Needs AVX2 and F16C; dim is a multiple of 16.
#[target_feature(enable = "avx2,f16c,bmi2")]
pub unsafe fn tile_steps(
    queries: &[f32],
    keys: &[f32],
    values: &[f32],
    scores: &mut [f32],
    running: Running<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match running.max.len() {
            2 => steps::<2>(queries, keys, values, scores, running),
            3 => steps::<3>(queries, keys, values, scores, running),
            4 => steps::<4>(queries, keys, values, scores, running),
            5 => steps::<5>(queries, keys, values, scores, running),
            _ => steps::<HEADS>(queries, keys, values, scores, running),
        }
    }
}

#[target_feature(enable = "avx2,f16c,bmi2")]
unsafe fn steps<const N: usize>(
    queries: &[f32],
    keys: &[f32],
    values: &[f32],
    scores: &mut [f32],
    mut running: Running<'_>,
) {
    let dim = queries.len() / N;
    let n_keys = keys.len() / dim;
    let scale = 1.0 / (dim as f32).sqrt();
    // Bounds once, here; the loops below walk raw pointers inside them.
    assert!(dim.is_multiple_of(16) && queries.len() == N * dim && n_keys <= TILE && scores.len() >= N * TILE);
    assert!(keys.len() == n_keys * dim && values.len() == keys.len());
    assert!(running.max.len() == N && running.sum.len() == N && running.acc.len() == N * dim);
    let mut largest = [f32::NEG_INFINITY; N];
    for j in 0..n_keys {
        // Sixteen lanes each.
        let mut lanes = [[_mm256_setzero_ps(); 2]; N];
        for c in (0..dim).step_by(16) {
            // SAFETY: j < n_keys and c + 16 <= dim.
            let at = unsafe { keys.as_ptr().add(j * dim + c) };
            // SAFETY: as above.
            let key = unsafe { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] };
            for (n, lanes) in lanes.iter_mut().enumerate() {
                for h in 0..2 {
                    // SAFETY: n < N and c + 16 <= dim.
                    let query = unsafe { _mm256_loadu_ps(queries.as_ptr().add(n * dim + c + h * 8)) };
                    lanes[h] = _mm256_add_ps(lanes[h], _mm256_mul_ps(query, key[h]));
                }
            }
        }
        for n in 0..N {
            let score = fold(lanes[n]) * scale;
            // SAFETY: j < TILE, n < N.
            unsafe { *scores.get_unchecked_mut(n * TILE + j) = score };
            largest[n] = if score > largest[n] { score } else { largest[n] };
        }
    }
    let (mut keep, mut take) = ([0f32; N], [0f32; N]);
    for n in 0..N {
        let sum = weigh(&mut scores[n * TILE..n * TILE + n_keys], largest[n]);
        (keep[n], take[n]) = running.merge(n, largest[n], sum);
    }
    for part in (0..dim).step_by(16) {
        let mut tile = [[_mm256_setzero_ps(); 2]; N];
        for j in 0..n_keys {
            // SAFETY: j < n_keys and part + 16 <= dim.
            let at = unsafe { values.as_ptr().add(j * dim + part) };
            // SAFETY: as above.
            let value = unsafe { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] };
            for (n, tile) in tile.iter_mut().enumerate() {
                // SAFETY: j < TILE, n < N.
                let p = _mm256_set1_ps(unsafe { *scores.get_unchecked(n * TILE + j) });
                for (tile, value) in tile.iter_mut().zip(value) {
                    *tile = _mm256_add_ps(*tile, _mm256_mul_ps(p, value));
                }
            }
        }
        for n in 0..N {
            let (keep, take) = (_mm256_set1_ps(keep[n]), _mm256_set1_ps(take[n]));
            for (h, tile) in tile[n].iter().enumerate() {
                // SAFETY: n < N and part + 16 <= dim.
                let acc = unsafe { running.acc.as_mut_ptr().add(n * dim + part + h * 8) };
                // SAFETY: as above.
                unsafe {
                    let sum = _mm256_mul_ps(_mm256_loadu_ps(acc), keep);
                    _mm256_storeu_ps(acc, _mm256_add_ps(sum, _mm256_mul_ps(*tile, take)));
                }
            }
        }
    }
}

/// `scalar::tree16` in registers: halves are added, sixteen lanes to one.
#[target_feature(enable = "avx2")]
fn fold(lanes: [__m256; 2]) -> f32 {
    let eight = _mm256_add_ps(lanes[0], lanes[1]);
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}
