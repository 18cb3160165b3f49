//! Attention over int8 keys and values with AVX2: `attention::int8::tile_plain`, the same bits. Bytes become 16-bit
//! numbers, whose products are added in pairs: exact, and up to six query heads share each load and widening. The float
//! steps keep the plain form's order.

#![allow(clippy::needless_range_loop)] // tiles of registers read best by number

use crate::engine::attention::int8::{HALF, HEADS, Heads, ONE, Partial, Scratch, Tile, largest};
use crate::engine::attention::{TILE, weigh};
use crate::engine::kv::int8::{BLOCK, GROUP, group_bytes};
use std::arch::x86_64::*;

/// One to `HEADS` query heads of one token against one tile.
///
/// # Safety
/// Needs AVX2 and F16C.
#[target_feature(enable = "avx2,f16c,bmi2")]
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

#[target_feature(enable = "avx2,f16c,bmi2")]
unsafe fn tile_of<const M: usize>(heads: Heads<'_>, tile: Tile<'_>, s: &mut Scratch, partial: Partial<'_>) {
    let Tile { keys, values, dim, n, .. } = tile;
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
            for g in 0..seen[half] {
                scores::<M>(heads, &keys[half][g * group_bytes(dim)..], dim, half * HALF + g, s);
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
                for j in (0..groups * GROUP).step_by(GROUP) {
                    let eight = |j: usize| {
                        let p = _mm256_loadu_ps(row.as_ptr().add(j));
                        _mm256_cvtps_epi32(_mm256_mul_ps(p, _mm256_loadu_ps(scales.add(j))))
                    };
                    // Packing goes by halves of a register: the quarters in the middle change places.
                    let packed = _mm256_packs_epi32(eight(j), eight(j + 8));
                    _mm256_storeu_si256(out.add(j).cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
                }
            }
        }
        for block in 0..blocks {
            for part in 0..2 {
                weighted::<M>(values, dim, block, part, seen, s, partial.acc);
            }
        }
    }
}

/// The scales of positions 8 * `part` and on of a group's block.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn scales_of(group: *const u8, dim: usize, block: usize, part: usize) -> __m256 {
    // SAFETY: the caller's group.
    unsafe {
        _mm256_cvtph_ps(_mm_loadu_si128(group.add(GROUP * dim + (block * GROUP + part * 8) * 2).cast()))
    }
}

/// Scales of the values, the largest that is seen made `ONE`; those that are not seen are zero.
#[target_feature(enable = "avx2,f16c")]
unsafe fn scale_values(values: [&[u8]; 2], dim: usize, n: usize, s: &mut Scratch) {
    let groups = n.div_ceil(GROUP);
    for block in 0..dim / BLOCK {
        let out = &mut s.scales[block * TILE..block * TILE + groups * GROUP];
        for g in 0..groups {
            for part in 0..2 {
                // SAFETY: group g's scales; `out` has room for all groups.
                unsafe {
                    let group = values[g / HALF].as_ptr().add(g % HALF * group_bytes(dim));
                    let at = out.as_mut_ptr().add(g * GROUP + part * 8);
                    _mm256_storeu_ps(at, scales_of(group, dim, block, part));
                }
            }
        }
        out[n..].fill(0.0);
        let most = largest(out);
        let one = if most > 0.0 { ONE / most } else { 0.0 };
        out.iter_mut().for_each(|scale| *scale *= one);
        s.worth[block] = most / ONE;
    }
}

/// Scores of the group that `keys` begins with, which is group `to` of the tile.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn scores<const M: usize>(heads: Heads<'_>, keys: &[u8], dim: usize, to: usize, s: &mut Scratch) {
    let blocks = dim / BLOCK;
    // SAFETY: the caller's group and heads.
    unsafe {
        let keys = keys.as_ptr();
        for part in 0..2 {
            let common = &heads.common[to / HALF];
            let mut acc: [__m256; M] = std::array::from_fn(|m| _mm256_set1_ps(common[m]));
            for block in 0..blocks {
                // Of positions 0, 1, 4, 5 and of 2, 3, 6, 7: each has two sums.
                let mut dot = [[_mm256_setzero_si256(); 2]; M];
                for k in block * 8..block * 8 + 8 {
                    let bytes = _mm256_loadu_si256(keys.add(k * 64 + part * 32).cast());
                    let low = _mm256_unpacklo_epi8(bytes, _mm256_setzero_si256());
                    let high = _mm256_unpackhi_epi8(bytes, _mm256_setzero_si256());
                    for m in 0..M {
                        let q = heads.q.as_ptr().add(m * dim + k * 4).cast::<i64>().read_unaligned();
                        let q = _mm256_set1_epi64x(q);
                        dot[m][0] = _mm256_add_epi32(dot[m][0], _mm256_madd_epi16(low, q));
                        dot[m][1] = _mm256_add_epi32(dot[m][1], _mm256_madd_epi16(high, q));
                    }
                }
                let d = scales_of(keys, dim, block, part);
                for m in 0..M {
                    let taken = _mm256_set1_epi32(*heads.taken.get_unchecked(m * blocks + block));
                    let whole = _mm256_add_epi32(_mm256_hadd_epi32(dot[m][0], dot[m][1]), taken);
                    let dq = _mm256_set1_ps(*heads.d.get_unchecked(m * blocks + block));
                    let step = _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(whole), d), dq);
                    acc[m] = _mm256_add_ps(acc[m], step);
                }
            }
            for m in 0..M {
                let at = s.scores.as_mut_ptr().add(m * TILE + to * GROUP + part * 8);
                _mm256_storeu_ps(at, acc[m]);
            }
        }
    }
}

/// The weighted values of dimensions 16 * `part` to 16 * `part` + 15 of one block.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn weighted<const M: usize>(
    values: [&[u8]; 2],
    dim: usize,
    block: usize,
    part: usize,
    seen: [usize; 2],
    s: &Scratch,
    out: &mut [f32],
) {
    let first = block * BLOCK + part * 16;
    let mut acc = [[_mm256_setzero_si256(); 2]; M];
    // SAFETY: the caller's groups and heads.
    unsafe {
        let weights = s.weights.as_ptr().add(block * HEADS * TILE);
        for half in 0..2 {
            for g in 0..seen[half] {
                let values = values[half].as_ptr().add(g * group_bytes(dim) + first * 2);
                let weights = weights.add((half * HALF + g) * GROUP);
                for pair in 0..GROUP / 2 {
                    let at = values.add(pair * dim * 2);
                    let low = _mm256_cvtepi8_epi16(_mm_loadu_si128(at.cast()));
                    let high = _mm256_cvtepi8_epi16(_mm_loadu_si128(at.add(16).cast()));
                    for m in 0..M {
                        let p = weights.add(m * TILE + pair * 2).cast::<i32>().read_unaligned();
                        let p = _mm256_set1_epi32(p);
                        acc[m][0] = _mm256_add_epi32(acc[m][0], _mm256_madd_epi16(low, p));
                        acc[m][1] = _mm256_add_epi32(acc[m][1], _mm256_madd_epi16(high, p));
                    }
                }
            }
        }
        let worth = _mm256_set1_ps(s.worth[block]);
        for m in 0..M {
            for h in 0..2 {
                let at = out.as_mut_ptr().add(m * dim + first + h * 8);
                _mm256_storeu_ps(at, _mm256_mul_ps(_mm256_cvtepi32_ps(acc[m][h]), worth));
            }
        }
    }
}
