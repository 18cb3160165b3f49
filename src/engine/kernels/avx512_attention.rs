//! Attention with AVX-512: query heads that share a key head share each load of its keys and values. The sums are those
//! of `attention::tile_step`, each in the same order, so the bits are the same.

use crate::engine::attention::{Running, TILE, weigh};
use std::arch::x86_64::*;

/// Query heads that share each load: as many as leave their sums in registers.
pub const HEADS: usize = 4;

/// One to `HEADS` query heads of one token against one tile of keys; merges into the running state.
/// `queries`: [heads][dim], `keys` and `values`: [keys][dim], `scores`: [HEADS][TILE] of scratch.
///
/// # Safety
/// Needs AVX-512 F, BW, VL and DQ; dim is a multiple of 64.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,f16c,bmi2")]
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
            1 => steps::<1>(queries, keys, values, scores, running),
            2 => steps::<2>(queries, keys, values, scores, running),
            3 => steps::<3>(queries, keys, values, scores, running),
            _ => steps::<HEADS>(queries, keys, values, scores, running),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,f16c,bmi2")]
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
    assert!(dim.is_multiple_of(64) && queries.len() == N * dim && n_keys <= TILE && scores.len() >= N * TILE);
    assert!(keys.len() == n_keys * dim && values.len() == keys.len());
    assert!(running.max.len() == N && running.sum.len() == N && running.acc.len() == N * dim);
    let mut largest = [f32::NEG_INFINITY; N];
    for j in 0..n_keys {
        let mut lanes = [_mm512_setzero_ps(); N];
        for c in (0..dim).step_by(16) {
            // SAFETY: j < n_keys and c + 16 <= dim.
            let key = unsafe { _mm512_loadu_ps(keys.as_ptr().add(j * dim + c)) };
            for (n, lanes) in lanes.iter_mut().enumerate() {
                // SAFETY: n < N and c + 16 <= dim.
                let query = unsafe { _mm512_loadu_ps(queries.as_ptr().add(n * dim + c)) };
                *lanes = _mm512_add_ps(*lanes, _mm512_mul_ps(query, key));
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
    for part in (0..dim).step_by(64) {
        let mut tile = [[_mm512_setzero_ps(); 4]; N];
        for j in 0..n_keys {
            // SAFETY: j < n_keys and part + 64 <= dim.
            let at = unsafe { values.as_ptr().add(j * dim + part) };
            // SAFETY: as above.
            let value: [__m512; 4] = std::array::from_fn(|i| unsafe { _mm512_loadu_ps(at.add(i * 16)) });
            for (n, tile) in tile.iter_mut().enumerate() {
                // SAFETY: j < TILE, n < N.
                let p = _mm512_set1_ps(unsafe { *scores.get_unchecked(n * TILE + j) });
                for (tile, value) in tile.iter_mut().zip(value) {
                    *tile = _mm512_add_ps(*tile, _mm512_mul_ps(p, value));
                }
            }
        }
        for n in 0..N {
            let (keep, take) = (_mm512_set1_ps(keep[n]), _mm512_set1_ps(take[n]));
            for (i, tile) in tile[n].iter().enumerate() {
                // SAFETY: n < N and part + 64 <= dim.
                let acc = unsafe { running.acc.as_mut_ptr().add(n * dim + part + i * 16) };
                // SAFETY: as above.
                unsafe {
                    let sum = _mm512_mul_ps(_mm512_loadu_ps(acc), keep);
                    _mm512_storeu_ps(acc, _mm512_add_ps(sum, _mm512_mul_ps(*tile, take)));
                }
            }
        }
    }
}

/// `scalar::tree16` in registers: halves are added, sixteen lanes to one.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2")]
fn fold(lanes: __m512) -> f32 {
    let eight = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps::<1>(lanes));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::kernels::scalar::tree16;

    #[test]
    fn the_fold_is_the_reference_tree() {
        if !std::arch::is_x86_feature_detected!("avx512dq") {
            return;
        }
        let lanes: [f32; 16] = std::array::from_fn(|i| 1.0 / (i as f32 - 7.3));
        // SAFETY: asked for above; sixteen floats are loaded.
        let folded = unsafe { fold(_mm512_loadu_ps(lanes.as_ptr())) };
        assert_eq!(folded.to_bits(), tree16(&lanes).to_bits());
    }
}
