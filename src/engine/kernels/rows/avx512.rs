//! The AVX-512 VNNI set. `wide256` and `wide32` say how a block of each type becomes integers; the walk over rows and
//! the pass of floats are here, once for each of the two block lengths.

mod wide256;
mod wide32;

use super::common::{ahead, halves, head, scales};
use super::{ROWS, Walk, walk_rows};
use crate::engine::quant::QuantType;
use std::arch::x86_64::*;
use wide32::Block32;
use wide256::{Block, Block256};

/// What one block of 256 (or two of 32) of each row gave, before the float steps.
#[derive(Clone, Copy)]
pub struct Part {
    /// int32 lanes to be added up; of two blocks, eight lanes each.
    sum: [__m512i; ROWS],
    /// The scale as stored, with what is stored for the minimum above it; of two blocks, the first one's.
    d: [u32; ROWS],
    /// The sum with the minima; of two blocks, `d` of the second one.
    min: [i32; ROWS],
}

/// [block][token]
#[derive(Default)]
pub struct Parts(Vec<Part>);

impl Parts {
    #[target_feature(enable = "avx512f")]
    fn reserve(&mut self, blocks: usize, tokens: usize) {
        if self.0.len() < blocks * tokens {
            let zero = Part { sum: [_mm512_setzero_si512(); ROWS], d: [0; ROWS], min: [0; ROWS] };
            self.0.resize(blocks * tokens, zero);
        }
    }
}

walk_rows!("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c");

#[allow(clippy::needless_range_loop)] // registers read best by number
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
unsafe fn rows256<K: Block256, const T: usize>(walk: Walk<'_, T>, parts: &mut Parts) -> [__m256; T] {
    let Walk { data, stride, count, blocks, acts } = walk;
    let (bytes, parts) = (K::KIND.block_bytes(), &mut parts.0);
    for r in 0..count {
        for b in 0..blocks {
            // SAFETY: block b of row r, and of the activations.
            unsafe {
                let p = data.add(r * stride + b * bytes);
                ahead(p, bytes);
                // Nothing is stored between these, so that the compiler takes the weights apart once for all.
                // A closure would not be inlined: it has features that `from_fn` lacks.
                let mut made = [Block { sum: _mm512_setzero_si512(), d: 0, min: 0 }; T];
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
                (_mm256_loadu_si256(part.d.as_ptr().cast()), _mm256_loadu_si256(part.min.as_ptr().cast()))
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
unsafe fn rows32<K: Block32, const T: usize>(walk: Walk<'_, T>, parts: &mut Parts) -> [__m256; T] {
    let Walk { data, stride, count, blocks, acts } = walk;
    let (bytes, parts) = (K::KIND.block_bytes(), &mut parts.0);
    for r in 0..count {
        for (pair, parts) in parts.chunks_exact_mut(T).enumerate().take(blocks.div_ceil(2)) {
            // SAFETY: blocks b and b + 1 of row r, and of the activations; where a last one is alone, it is taken twice
            // for the weights, the upper activations are zeros, and what is made of them is not read.
            unsafe {
                let p = data.add((r * stride) + pair * 2 * bytes);
                let alone = pair * 2 + 1 == blocks;
                let second = if alone { p } else { p.add(bytes) };
                ahead(p, 2 * bytes);
                let (values, heads) = (K::values(p, second), [head(K::KIND, p), head(K::KIND, second)]);
                for (part, act) in parts.iter_mut().zip(&acts) {
                    let y = act.q.as_ptr().add(pair * 64);
                    let y = if alone {
                        _mm512_zextsi256_si512(_mm256_loadu_si256(y.cast()))
                    } else {
                        _mm512_loadu_si512(y.cast())
                    };
                    (part.d[r], part.min[r]) = (heads[0], heads[1] as i32);
                    part.sum[r] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), values, y);
                }
            }
        }
    }
    let mut acc = [_mm256_setzero_ps(); T];
    for (pair, parts) in parts.chunks_exact(T).enumerate().take(blocks.div_ceil(2)) {
        for (t, part) in parts.iter().enumerate() {
            // SAFETY: eight values each.
            let heads = unsafe {
                [_mm256_loadu_si256(part.d.as_ptr().cast()), _mm256_loadu_si256(part.min.as_ptr().cast())]
            };
            for (i, (sum, head)) in split8(&part.sum).into_iter().zip(heads).enumerate() {
                let b = pair * 2 + i;
                if b == blocks {
                    break;
                }
                let (dy, sum_y) = (_mm256_set1_ps(acts[t].d[b]), i32::from(acts[t].sums[b]));
                let sum = _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, _mm256_set1_epi32(K::OFFSET * sum_y)));
                acc[t] = _mm256_add_ps(acc[t], _mm256_mul_ps(_mm256_mul_ps(scales(K::KIND, head), dy), sum));
                if K::KIND.has_min() {
                    // The file holds the minimum with its sign turned: adding it is the reference's subtraction.
                    let m = _mm256_mul_ps(halves(_mm256_srli_epi32::<16>(head)), dy);
                    acc[t] = _mm256_add_ps(acc[t], _mm256_mul_ps(m, _mm256_set1_ps(sum_y as f32)));
                }
            }
        }
    }
    acc
}

/// Folds eight registers of sixteen int32 lanes to the sums of their lower and of their upper halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn split8(v: &[__m512i; 8]) -> [__m256i; 2] {
    let pair = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let quad = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    let first = quad(pair(v[0], v[1]), pair(v[2], v[3]));
    let second = quad(pair(v[4], v[5]), pair(v[6], v[7]));
    // In 128-bit lanes: [rows 0-3 of the low half, rows 0-3 of the high half, rows 4-7 low, rows 4-7 high].
    let folded = _mm512_add_epi32(
        _mm512_shuffle_i32x4::<0x88>(first, second),
        _mm512_shuffle_i32x4::<0xdd>(first, second),
    );
    [
        _mm512_castsi512_si256(_mm512_shuffle_i32x4::<0b00_00_10_00>(folded, folded)),
        _mm512_castsi512_si256(_mm512_shuffle_i32x4::<0b00_00_11_01>(folded, folded)),
    ]
}

/// The whole sums of eight registers, a lane each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn sum8(v: &[__m512i; 8]) -> __m256i {
    let [low, high] = split8(v);
    _mm256_add_epi32(low, high)
}
