//! The AVX2 set (with F16C, without VNNI). `wide256` and `wide32` say how a block of each type becomes int32 lanes; the
//! walk over rows and the pass of floats are here.

mod wide256;
mod wide32;

use super::common::{ahead, halves, head, scales};
use super::{ROWS, Walk, walk_rows};
use crate::engine::quant::QuantType;
use std::arch::x86_64::*;
use wide32::Block32;
use wide256::{Block, Block256};

/// What one block of each row gave, before the float steps.
#[derive(Clone, Copy)]
pub struct Part {
    /// int32 lanes to be added up.
    sum: [__m256i; ROWS],
    /// The scale as stored, with what is stored for the minimum above it.
    d: [u32; ROWS],
    /// The sum with the minima of a block of 256.
    min: [i32; ROWS],
}

walk_rows!("avx2,f16c", _mm256_setzero_si256());

#[target_feature(enable = "avx2,f16c")]
unsafe fn rows32<K: Block32, const T: usize>(walk: Walk<'_, T>, parts: &mut [Part]) -> [__m256; T] {
    let Walk { data, stride, count, blocks, acts } = walk;
    let bytes = K::KIND.block_bytes();
    for r in 0..count {
        for (b, parts) in parts.chunks_exact_mut(T).enumerate().take(blocks) {
            // SAFETY: block b of row r, and of the activations.
            unsafe {
                let p = data.add(r * stride + b * bytes);
                ahead(p, bytes);
                let head = head(K::KIND, p);
                // Nothing is stored between these, so that the compiler takes the weights apart once for all.
                let mut sums = [_mm256_setzero_si256(); T];
                for (sum, act) in sums.iter_mut().zip(&acts) {
                    let y = _mm256_loadu_si256(act.q.as_ptr().add(b * 32).cast());
                    *sum = _mm256_madd_epi16(K::products(p, y), _mm256_set1_epi16(1));
                }
                for (part, sum) in parts.iter_mut().zip(sums) {
                    (part.sum[r], part.d[r]) = (sum, head);
                }
            }
        }
    }
    let mut acc = [_mm256_setzero_ps(); T];
    for (b, parts) in parts.chunks_exact(T).enumerate().take(blocks) {
        for (t, part) in parts.iter().enumerate() {
            // SAFETY: eight values.
            let head = unsafe { _mm256_loadu_si256(part.d.as_ptr().cast()) };
            let (dy, sum_y) = (_mm256_set1_ps(acts[t].d[b]), i32::from(acts[t].sums[b]));
            let sum = _mm256_sub_epi32(sum8(&part.sum), _mm256_set1_epi32(K::OFFSET * sum_y));
            let scale = _mm256_mul_ps(scales(K::KIND, head), dy);
            acc[t] = _mm256_add_ps(acc[t], _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sum)));
            if K::KIND.has_min() {
                // The file holds the minimum with its sign turned: adding it is the reference's subtraction.
                let m = _mm256_mul_ps(halves(_mm256_srli_epi32::<16>(head)), dy);
                acc[t] = _mm256_add_ps(acc[t], _mm256_mul_ps(m, _mm256_set1_ps(sum_y as f32)));
            }
        }
    }
    acc
}

/// The sums of eight registers of eight int32 lanes, a lane each.
#[inline]
#[target_feature(enable = "avx2")]
fn sum8(v: &[__m256i; 8]) -> __m256i {
    let pair = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let quad = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    // In 128-bit lanes: the lower halves of four rows, then their upper halves.
    let first = quad(pair(v[0], v[1]), pair(v[2], v[3]));
    let second = quad(pair(v[4], v[5]), pair(v[6], v[7]));
    _mm256_add_epi32(
        _mm256_permute2x128_si256::<0x20>(first, second),
        _mm256_permute2x128_si256::<0x31>(first, second),
    )
}

/// Pairs of products of signed values, added, as int16: the sign moves to the activation, as the instruction wants one
/// unsigned side. 2 * 128 * 127 is the most there can be, and fits.
#[inline]
#[target_feature(enable = "avx2")]
fn signed_products(w: __m256i, y: __m256i) -> __m256i {
    _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(y, w))
}
