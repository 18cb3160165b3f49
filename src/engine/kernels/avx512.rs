//! AVX-512 VNNI kernels. Integer sums are exact, so their order is free; the float steps are those of `scalar`, in
//! its order, so the bits are the same. `strip_matmul` multiplies an unpacked strip of sixteen rows with any number of
//! tokens; a few tokens times rows as they lie in the file are in `rows`.

use super::act::{ActivationRow, Activations};
use super::strip::Strip;
use super::{Output, STRIP};
use std::arch::x86_64::*;

/// Tokens that share one load of a strip's weights.
const TOKENS: usize = 8;

/// The strip times `n` tokens: `out[t][rows]`.
///
/// # Safety
/// Needs AVX-512 F, BW, VL, DQ, VNNI and F16C; nobody else touches these elements of `out`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
pub unsafe fn strip_matmul(
    strip: &Strip,
    rows: std::ops::Range<usize>,
    act: &Activations,
    tokens: &[usize],
    out: &Output<'_, '_>,
) {
    let Some(kind) = strip.kind else { return };
    let (groups, rest) = tokens.as_chunks::<TOKENS>();
    for (g, group) in groups.iter().enumerate() {
        let acts: [ActivationRow<'_>; TOKENS] = std::array::from_fn(|i| act.row(group[i], kind));
        let mut sums = [[0f32; STRIP]; TOKENS];
        // SAFETY: `strip` and the rows hold the same number of blocks; features and elements as promised.
        unsafe {
            strip_tokens::<TOKENS>(strip, &acts, &mut sums);
            for (i, sums) in sums.iter().enumerate() {
                out.put(g * TOKENS + i, rows.start, &sums[..rows.len()]);
            }
        }
    }
    for (i, &token) in rest.iter().enumerate() {
        let mut sums = [[0f32; STRIP]; 1];
        // SAFETY: as above.
        unsafe {
            strip_tokens::<1>(strip, &[act.row(token, kind)], &mut sums);
            out.put(groups.len() * TOKENS + i, rows.start, &sums[0][..rows.len()]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
unsafe fn strip_tokens<const T: usize>(
    strip: &Strip,
    acts: &[ActivationRow<'_>; T],
    out: &mut [[f32; STRIP]; T],
) {
    let offset = strip.offset();
    let mut acc = [_mm512_setzero_ps(); T];
    // SAFETY: every index below stays inside block b of the strip and of the rows.
    unsafe {
        for b in 0..strip.blocks {
            let d = _mm512_loadu_ps(strip.d.as_ptr().add(b * STRIP));
            let dmin = _mm512_loadu_ps(strip.dmin.as_ptr().add(b * STRIP));
            let q = strip.q.as_ptr().add(b * strip.block_len * STRIP);
            if strip.block_len == 32 {
                let mut dot = [_mm512_setzero_si512(); T];
                for k in 0..8 {
                    let w = _mm512_loadu_si512(q.add(k * 64).cast());
                    for t in 0..T {
                        let y = acts[t].q.as_ptr().add(b * 32 + k * 4).cast::<i32>().read_unaligned();
                        dot[t] = _mm512_dpbusd_epi32(dot[t], w, _mm512_set1_epi32(y));
                    }
                }
                for t in 0..T {
                    let dy = _mm512_set1_ps(acts[t].d[b]);
                    let sum_y = i32::from(acts[t].sums[b]);
                    let sum = if offset {
                        _mm512_sub_epi32(dot[t], _mm512_set1_epi32(128 * sum_y))
                    } else {
                        dot[t]
                    };
                    let sum = _mm512_cvtepi32_ps(sum);
                    acc[t] = _mm512_add_ps(acc[t], _mm512_mul_ps(_mm512_mul_ps(d, dy), sum));
                    if !offset {
                        let min = _mm512_mul_ps(_mm512_mul_ps(dmin, dy), _mm512_set1_ps(sum_y as f32));
                        acc[t] = _mm512_sub_ps(acc[t], min);
                    }
                }
                continue;
            }
            let mut sum = [_mm512_setzero_si512(); T];
            for group in 0..16 {
                let mut dot = [_mm512_setzero_si512(); T];
                for k in 0..4 {
                    let w = _mm512_loadu_si512(q.add((group * 4 + k) * 64).cast());
                    for t in 0..T {
                        let at = b * 256 + group * 16 + k * 4;
                        let y = acts[t].q.as_ptr().add(at).cast::<i32>().read_unaligned();
                        dot[t] = _mm512_dpbusd_epi32(dot[t], w, _mm512_set1_epi32(y));
                    }
                }
                let scale = _mm512_loadu_si512(strip.scale.as_ptr().add((b * 16 + group) * STRIP).cast());
                for t in 0..T {
                    sum[t] = _mm512_add_epi32(sum[t], _mm512_mullo_epi32(dot[t], scale));
                }
            }
            let mut min = [_mm512_setzero_si512(); T];
            for pair in 0..8 {
                let m = _mm512_loadu_si512(strip.min.as_ptr().add((b * 8 + pair) * STRIP * 2).cast());
                for t in 0..T {
                    let s = acts[t].sums.as_ptr().add(b * 16 + pair * 2).cast::<i32>().read_unaligned();
                    min[t] = _mm512_dpwssd_epi32(min[t], m, _mm512_set1_epi32(s));
                }
            }
            for t in 0..T {
                let dy = _mm512_set1_ps(acts[t].d[b]);
                let scale = _mm512_mul_ps(d, dy);
                if offset {
                    let whole = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum[t], min[t]));
                    acc[t] = _mm512_add_ps(acc[t], _mm512_mul_ps(scale, whole));
                } else {
                    acc[t] = _mm512_add_ps(acc[t], _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sum[t])));
                    let min = _mm512_mul_ps(_mm512_mul_ps(dmin, dy), _mm512_cvtepi32_ps(min[t]));
                    acc[t] = _mm512_sub_ps(acc[t], min);
                }
            }
        }
        for t in 0..T {
            _mm512_storeu_ps(out[t].as_mut_ptr(), acc[t]);
        }
    }
}
