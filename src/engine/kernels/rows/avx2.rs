//! The AVX2 set (with F16C, without VNNI). `wide256` and `wide32` say how a block of each type becomes int32 lanes; the
//! walk over rows and the pass of floats are here.

mod wide256;
mod wide32;

use super::common::{ahead, halves, head, scales, sums_of_32};
use super::{ROWS, Walk, walk_rows};
use crate::engine::quant::QuantType;
use std::arch::x86_64::*;
use wide32::Block32;
use wide256::Block256;

/// What the blocks of up to eight rows gave, before the float steps.
#[derive(Default)]
pub struct Parts {
    /// [block][token][row]: int32 lanes to be added up.
    sums: Vec<[__m256i; ROWS]>,
    /// [block][row]: the scale as stored, with what is stored for the minimum above it.
    heads: Vec<[u32; ROWS]>,
    /// [block][row]: the minima of a block of 256, as int16.
    mins: Vec<[__m256i; ROWS]>,
}

impl Parts {
    #[target_feature(enable = "avx2")]
    fn reserve(&mut self, blocks: usize, tokens: usize) {
        if self.sums.len() < blocks * tokens {
            self.sums.resize(blocks * tokens, [_mm256_setzero_si256(); ROWS]);
        }
        if self.heads.len() < blocks {
            self.heads.resize(blocks, [0; ROWS]);
            self.mins.resize(blocks, [_mm256_setzero_si256(); ROWS]);
        }
    }
}

walk_rows!("avx2,f16c");

#[target_feature(enable = "avx2,f16c")]
unsafe fn rows256<K: Block256, const T: usize>(walk: Walk<'_, T>, parts: &mut Parts) -> [__m256; T] {
    let Walk { data, stride, count, blocks, acts } = walk;
    let bytes = K::KIND.block_bytes();
    let Parts { sums, heads, mins } = parts;
    for r in 0..count {
        for b in 0..blocks {
            // SAFETY: block b of row r, and of the activations; `reserve` made room for both.
            unsafe {
                let p = data.add(r * stride + b * bytes);
                ahead(p, bytes);
                // A loop, since a closure would not be inlined: it has features that `map` lacks.
                let mut at = [(std::ptr::null(), std::ptr::null()); T];
                for (at, act) in at.iter_mut().zip(&acts) {
                    *at = (act.q.as_ptr().add(b * 256), act.sums.as_ptr().add(b * 16));
                }
                // Nothing is stored between these, so that what they share is loaded and taken apart once.
                let (head, min, made) = (K::head(p), K::mins(p), K::sums(p, at));
                heads.get_unchecked_mut(b)[r] = head;
                if K::PAIRS > 0 {
                    mins.get_unchecked_mut(b)[r] = min;
                }
                for (t, made) in made.into_iter().enumerate() {
                    sums.get_unchecked_mut(b * T + t)[r] = made;
                }
            }
        }
    }
    let mut acc = [_mm256_setzero_ps(); T];
    for b in 0..blocks {
        // SAFETY: eight values.
        let head = unsafe { _mm256_loadu_si256(heads[b].as_ptr().cast()) };
        let (d, dmin) = (halves(head), halves(_mm256_srli_epi32::<16>(head)));
        let pairs = if K::PAIRS > 0 { by_pairs(&mins[b], K::PAIRS) } else { [_mm256_setzero_si256(); 8] };
        for t in 0..T {
            let dy = _mm256_set1_ps(acts[t].d[b]);
            let sum = _mm256_cvtepi32_ps(sum8(&sums[b * T + t]));
            acc[t] = _mm256_add_ps(acc[t], _mm256_mul_ps(_mm256_mul_ps(d, dy), sum));
            if K::PAIRS > 0 {
                // SAFETY: the sixteen sums of block b.
                let of = unsafe { acts[t].sums.as_ptr().add(b * 16) };
                let min = _mm256_cvtepi32_ps(unsafe { minima(&pairs, K::PAIRS, of) });
                acc[t] = _mm256_sub_ps(acc[t], _mm256_mul_ps(_mm256_mul_ps(dmin, dy), min));
            }
        }
    }
    acc
}

/// The first `count` pairs of int16 of each of eight rows, turned: register k holds pair k of row r in lane r.
#[inline]
#[target_feature(enable = "avx2")]
fn by_pairs(rows: &[__m256i; ROWS], count: usize) -> [__m256i; 8] {
    let mut out = [_mm256_setzero_si256(); 8];
    for half in 0..count / 4 {
        let mut v = [_mm256_setzero_si256(); 4];
        for (i, v) in v.iter_mut().enumerate() {
            *v = match half {
                0 => _mm256_permute2x128_si256::<0x20>(rows[i], rows[i + 4]),
                _ => _mm256_permute2x128_si256::<0x31>(rows[i], rows[i + 4]),
            };
        }
        let (a, b) = (_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
        let (c, d) = (_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
        out[half * 4] = _mm256_unpacklo_epi64(a, c);
        out[half * 4 + 1] = _mm256_unpackhi_epi64(a, c);
        out[half * 4 + 2] = _mm256_unpacklo_epi64(b, d);
        out[half * 4 + 3] = _mm256_unpackhi_epi64(b, d);
    }
    out
}

/// The minima of eight rows times a token's sums, a row to a lane: eight minima a row are of 32 values each (four
/// `count`ed pairs), sixteen of 16.
///
/// # Safety
/// `sums` is at sixteen sums of 16 values.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn minima(pairs: &[__m256i; 8], count: usize, sums: *const i16) -> __m256i {
    // SAFETY: the caller's sums.
    let halves = unsafe {
        if count == 4 {
            let sums = sums_of_32(sums);
            let sums = _mm_packs_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
            [sums, sums]
        } else {
            [_mm_loadu_si128(sums.cast()), _mm_loadu_si128(sums.add(8).cast())]
        }
    };
    let mut total = _mm256_setzero_si256();
    for (pairs, sums) in pairs.as_chunks::<4>().0.iter().zip(halves).take(count / 4) {
        let sums = _mm256_broadcastsi128_si256(sums);
        for (pair, sums) in pairs.iter().zip([
            _mm256_shuffle_epi32::<0x00>(sums),
            _mm256_shuffle_epi32::<0x55>(sums),
            _mm256_shuffle_epi32::<0xaa>(sums),
            _mm256_shuffle_epi32::<0xff>(sums),
        ]) {
            total = _mm256_add_epi32(total, _mm256_madd_epi16(*pair, sums));
        }
    }
    total
}

#[target_feature(enable = "avx2,f16c")]
unsafe fn rows32<K: Block32, const T: usize>(walk: Walk<'_, T>, parts: &mut Parts) -> [__m256; T] {
    let Walk { data, stride, count, blocks, acts } = walk;
    let bytes = K::KIND.block_bytes();
    let Parts { sums, heads, .. } = parts;
    for r in 0..count {
        for b in 0..blocks {
            // SAFETY: block b of row r, and of the activations; `reserve` made room for both.
            unsafe {
                let p = data.add(r * stride + b * bytes);
                ahead(p, bytes);
                let head = head(K::KIND, p);
                // Nothing is stored between these, so that the compiler takes the weights apart once for all.
                let mut made = [_mm256_setzero_si256(); T];
                for (sum, act) in made.iter_mut().zip(&acts) {
                    let y = _mm256_loadu_si256(act.q.as_ptr().add(b * 32).cast());
                    *sum = _mm256_madd_epi16(K::products(p, y), _mm256_set1_epi16(1));
                }
                heads.get_unchecked_mut(b)[r] = head;
                for (t, made) in made.into_iter().enumerate() {
                    sums.get_unchecked_mut(b * T + t)[r] = made;
                }
            }
        }
    }
    let mut acc = [_mm256_setzero_ps(); T];
    for b in 0..blocks {
        // SAFETY: eight values.
        let head = unsafe { _mm256_loadu_si256(heads[b].as_ptr().cast()) };
        let (scale, min) = (scales(K::KIND, head), halves(_mm256_srli_epi32::<16>(head)));
        for t in 0..T {
            let (dy, sum_y) = (_mm256_set1_ps(acts[t].d[b]), i32::from(acts[t].sums[b]));
            let sum = _mm256_sub_epi32(sum8(&sums[b * T + t]), _mm256_set1_epi32(K::OFFSET * sum_y));
            acc[t] = _mm256_add_ps(acc[t], _mm256_mul_ps(_mm256_mul_ps(scale, dy), _mm256_cvtepi32_ps(sum)));
            if K::KIND.has_min() {
                // The file holds the minimum with its sign turned: adding it is the reference's subtraction.
                let m = _mm256_mul_ps(min, dy);
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
