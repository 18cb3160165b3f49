//! Attention over int8 keys and values with AVX-512 VNNI: `attention::int8::tile_plain`, the same bits. Sums of whole
//! numbers are exact; the float steps keep its order. Up to six query heads share each load.

#![allow(clippy::needless_range_loop)] // tiles of registers read best by number

use crate::engine::attention::int8::{HALF, HEADS, Heads, ONE, Partial, Scratch, Tile, largest};
use crate::engine::attention::{TILE, weigh};
use crate::engine::kv::int8::{BLOCK, GROUP, group_bytes};
use std::arch::x86_64::*;

/// One to `HEADS` query heads of one token against one tile.
///
/// # Safety
/// Needs AVX-512 F, BW, VL, DQ, VNNI and F16C.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c,bmi2")]
pub unsafe fn tile(heads: Heads<'_>, tile: Tile<'_>, s: &mut Scratch, partial: Partial<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match partial.max.len() {
            1 => tile_of::<1>(heads, tile, s, partial),
            2 => tile_of::<2>(heads, tile, s, partial),
            3 => tile_of::<3>(heads, tile, s, partial),
            4 => tile_of::<4>(heads, tile, s, partial),
            5 => tile_of::<5>(heads, tile, s, partial),
            _ => tile_of::<HEADS>(heads, tile, s, partial),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c,bmi2")]
unsafe fn tile_of<const M: usize>(heads: Heads<'_>, tile: Tile<'_>, s: &mut Scratch, partial: Partial<'_>) {
    let Tile { keys, values, dim, n } = tile;
    let (groups, blocks) = (n.div_ceil(GROUP), dim / BLOCK);
    s.reserve(dim);
    // Bounds once, here; the loops below walk raw pointers inside them.
    assert!((1..=TILE).contains(&n) && dim.is_multiple_of(BLOCK));
    // Groups in each half.
    let seen = [groups.min(HALF), groups.saturating_sub(HALF)];
    for half in 0..2 {
        let bytes = seen[half] * group_bytes(dim);
        assert!(keys[half].len() >= bytes && values[half].len() >= bytes);
    }
    assert!(heads.q.len() == M * dim && heads.d.len() == M * blocks && heads.taken.len() == M * blocks);
    assert!(partial.max.len() == M && partial.sum.len() == M && partial.acc.len() == M * dim);
    // SAFETY: as asserted.
    unsafe {
        scale_values(values, dim, n, s);
        for half in 0..2 {
            let mut g = 0;
            while g + 2 <= seen[half] {
                scores::<M, 2>(heads, keys[half], dim, g, half * HALF + g, s);
                g += 2;
            }
            if g < seen[half] {
                scores::<M, 1>(heads, keys[half], dim, g, half * HALF + g, s);
            }
        }
        for m in 0..M {
            let row = &mut s.scores[m * TILE..m * TILE + groups * GROUP];
            let most = largest(&row[..n]);
            partial.max[m] = most;
            partial.sum[m] = weigh(&mut row[..n], most);
            row[n..].fill(0.0);
            for block in 0..blocks {
                let scales = s.scales.as_ptr().add(block * TILE);
                let out = s.weights.as_mut_ptr().add((block * HEADS + m) * TILE);
                for j in (0..groups * GROUP).step_by(16) {
                    let p = _mm512_loadu_ps(row.as_ptr().add(j));
                    let whole = _mm512_cvtps_epi32(_mm512_mul_ps(p, _mm512_loadu_ps(scales.add(j))));
                    _mm256_storeu_si256(out.add(j).cast(), _mm512_cvtepi32_epi16(whole));
                }
            }
        }
        for block in 0..blocks {
            weighted::<M>(values, dim, block, seen, s, partial.acc);
        }
    }
}

/// Scales of the values, the largest that is seen made `ONE`; those that are not seen are zero.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,f16c")]
unsafe fn scale_values(values: [&[u8]; 2], dim: usize, n: usize, s: &mut Scratch) {
    let groups = n.div_ceil(GROUP);
    for block in 0..dim / BLOCK {
        let out = s.scales[block * TILE..].as_mut_ptr();
        let mut most = _mm512_setzero_ps();
        for g in 0..groups {
            // SAFETY: group g's scales; `out` has room for a tile.
            unsafe {
                let values = values[g / HALF].as_ptr().add(g % HALF * group_bytes(dim));
                let at = values.add(GROUP * dim + block * GROUP * 2);
                let seen = (n - g * GROUP).min(16);
                let scales = _mm512_cvtph_ps(_mm256_loadu_si256(at.cast()));
                let scales = _mm512_maskz_mov_ps((0xffffu32 >> (16 - seen)) as u16, scales);
                most = _mm512_max_ps(most, scales);
                _mm512_storeu_ps(out.add(g * GROUP), scales);
            }
        }
        let most = _mm512_reduce_max_ps(most);
        let one = _mm512_set1_ps(if most > 0.0 { ONE / most } else { 0.0 });
        for g in 0..groups {
            // SAFETY: as above.
            unsafe {
                let at = out.add(g * GROUP);
                _mm512_storeu_ps(at, _mm512_mul_ps(_mm512_loadu_ps(at), one));
            }
        }
        s.worth[block] = most / ONE;
    }
}

/// Scores of `G` groups of keys from group `g`, which is group `to` of the tile.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
unsafe fn scores<const M: usize, const G: usize>(
    heads: Heads<'_>,
    keys: &[u8],
    dim: usize,
    g: usize,
    to: usize,
    s: &mut Scratch,
) {
    let (bytes, blocks) = (group_bytes(dim), dim / BLOCK);
    let mut acc = [[_mm512_setzero_ps(); G]; M];
    // SAFETY: the caller's groups and heads.
    unsafe {
        let keys = keys.as_ptr().add(g * bytes);
        for block in 0..blocks {
            let mut dot = [[_mm512_setzero_si512(); G]; M];
            for m in 0..M {
                dot[m] = [_mm512_set1_epi32(*heads.taken.get_unchecked(m * blocks + block)); G];
            }
            for k in block * 8..block * 8 + 8 {
                let key: [__m512i; G] =
                    std::array::from_fn(|i| _mm512_loadu_si512(keys.add(i * bytes + k * 64).cast()));
                for m in 0..M {
                    let q = heads.q.as_ptr().add(m * dim + k * 4).cast::<i32>().read_unaligned();
                    let q = _mm512_set1_epi32(q);
                    for i in 0..G {
                        dot[m][i] = _mm512_dpbusd_epi32(dot[m][i], key[i], q);
                    }
                }
            }
            for i in 0..G {
                let at = keys.add(i * bytes + GROUP * dim + block * GROUP * 2);
                let d = _mm512_cvtph_ps(_mm256_loadu_si256(at.cast()));
                for m in 0..M {
                    let dq = _mm512_set1_ps(*heads.d.get_unchecked(m * blocks + block));
                    let step = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dot[m][i]), d), dq);
                    acc[m][i] = _mm512_add_ps(acc[m][i], step);
                }
            }
        }
        for m in 0..M {
            for i in 0..G {
                _mm512_storeu_ps(s.scores.as_mut_ptr().add(m * TILE + (to + i) * GROUP), acc[m][i]);
            }
        }
    }
}

/// The weighted values of the 32 dimensions of one block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
unsafe fn weighted<const M: usize>(
    values: [&[u8]; 2],
    dim: usize,
    block: usize,
    seen: [usize; 2],
    s: &Scratch,
    out: &mut [f32],
) {
    let mut acc = [[_mm512_setzero_si512(); 2]; M];
    // SAFETY: the caller's groups and heads.
    unsafe {
        let weights = s.weights.as_ptr().add(block * HEADS * TILE);
        for (half, g) in (0..seen[0]).map(|g| (0, g)).chain((0..seen[1]).map(|g| (1, g))) {
            let values = values[half].as_ptr().add(g * group_bytes(dim) + block * BLOCK * 2);
            let weights = weights.add((half * HALF + g) * GROUP);
            for pair in 0..GROUP / 2 {
                let at = values.add(pair * dim * 2);
                let low = _mm512_cvtepi8_epi16(_mm256_loadu_si256(at.cast()));
                let high = _mm512_cvtepi8_epi16(_mm256_loadu_si256(at.add(32).cast()));
                for m in 0..M {
                    let p = weights.add(m * TILE + pair * 2).cast::<i32>().read_unaligned();
                    let p = _mm512_set1_epi32(p);
                    acc[m][0] = _mm512_dpwssd_epi32(acc[m][0], low, p);
                    acc[m][1] = _mm512_dpwssd_epi32(acc[m][1], high, p);
                }
            }
        }
        let worth = _mm512_set1_ps(s.worth[block]);
        for m in 0..M {
            for h in 0..2 {
                let at = out.as_mut_ptr().add(m * dim + block * BLOCK + h * 16);
                _mm512_storeu_ps(at, _mm512_mul_ps(_mm512_cvtepi32_ps(acc[m][h]), worth));
            }
        }
    }
}
