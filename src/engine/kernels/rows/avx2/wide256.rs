//! AVX2: the types with blocks of 256. Register g holds values 32g to 32g + 31; products with the activations are added
//! in pairs (at most 2 * 63 * 127, so they fit int16), then multiplied with the scale of their group and added again.

use super::super::common::{iq4_xs_scales, load_u16, load_u32, nibbles, q3_k_scales, scales_and_mins, table};
use super::signed_products;
use crate::engine::quant::QuantType;
use std::arch::x86_64::*;

/// Where a token's 256 activations and their sixteen sums lie.
type At = (*const i8, *const i16);

/// How a type's block becomes integers.
///
/// # Safety
/// All need the features of `dot_rows`; `p` is at a block of the type, `at` at what it says.
pub trait Block256 {
    const KIND: QuantType;
    /// Pairs of minima.
    const PAIRS: usize = 0;
    /// The stored d, with dmin in the upper half.
    unsafe fn head(p: *const u8) -> u32;
    /// The minima as int16.
    unsafe fn mins(_p: *const u8) -> __m256i {
        // SAFETY: the caller has the features.
        unsafe { nothing() }
    }
    /// Lanes whose sum is the block's, minima apart, of each token.
    unsafe fn sums<const T: usize>(p: *const u8, at: [At; T]) -> [__m256i; T];
}

#[inline]
#[target_feature(enable = "avx2")]
fn nothing() -> __m256i {
    _mm256_setzero_si256()
}

/// [g][byte]: spreads the g-th int16 of a 128-bit lane over the lane.
const PICK: [[u8; 32]; 8] = {
    let mut table = [[0; 32]; 8];
    let mut i = 0;
    while i < 256 {
        table[i / 32][i % 32] = (i / 32 * 2 + i % 2) as u8;
        i += 1;
    }
    table
};

/// Spreads the g-th scale of each 128-bit lane over the lane.
#[inline]
#[target_feature(enable = "avx2")]
fn spread(g: usize, scales: __m256i) -> __m256i {
    // SAFETY: 32 bytes of the table.
    _mm256_shuffle_epi8(scales, unsafe { _mm256_loadu_si256(PICK[g].as_ptr().cast()) })
}

/// Adds register `g` of unsigned values times each token's activations, scaled.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn add<const T: usize>(sums: &mut [__m256i; T], g: usize, q: __m256i, at: &[At; T], scales: __m256i) {
    let scale = spread(g, scales);
    for (sum, (y, _)) in sums.iter_mut().zip(at) {
        // SAFETY: the caller's 256 activations.
        let y = unsafe { _mm256_loadu_si256(y.add(g * 32).cast()) };
        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_maddubs_epi16(q, y), scale));
    }
}

/// Sixteen int8 scales as int16, the even ones in the lower lane: value g of each lane is for a half of register g.
#[inline]
#[target_feature(enable = "avx2")]
fn evens_and_odds(scales: __m128i) -> __m256i {
    let order = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    _mm256_cvtepi8_epi16(_mm_shuffle_epi8(scales, order))
}

/// Stored values are `1 << SHIFT` too large: scale * sum of the activations, to be taken away that many times.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn minus_offset<const SHIFT: i32, const T: usize>(scales: __m128i, at: &[At; T]) -> [__m256i; T] {
    let scales = _mm256_cvtepi8_epi16(scales);
    let mut out = [_mm256_setzero_si256(); T];
    for (out, (_, sums)) in out.iter_mut().zip(at) {
        // SAFETY: the caller's sixteen sums.
        let products = _mm256_madd_epi16(scales, unsafe { _mm256_loadu_si256(sums.cast()) });
        *out = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32::<SHIFT>(products));
    }
    out
}

/// The bits of each byte in `mask`, once all are shifted so that bit `from` comes to `to`.
#[inline]
#[target_feature(enable = "avx2")]
fn moved(bytes: __m256i, from: usize, to: usize, mask: i8) -> __m256i {
    let shifted = if from <= to {
        _mm256_sllv_epi32(bytes, _mm256_set1_epi32((to - from) as i32))
    } else {
        _mm256_srlv_epi32(bytes, _mm256_set1_epi32((from - to) as i32))
    };
    _mm256_and_si256(shifted, _mm256_set1_epi8(mask))
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(p: *const u8) -> __m256i {
    // SAFETY: the caller's 32 bytes.
    unsafe { _mm256_loadu_si256(p.cast()) }
}

/// Q4_K and Q5_K begin alike: d, dmin, and twelve bytes of scales and minima.
macro_rules! with_minima {
    () => {
        const PAIRS: usize = 4;
        #[inline]
        #[target_feature(enable = "avx2,f16c")]
        unsafe fn head(p: *const u8) -> u32 {
            // SAFETY: inside the block.
            unsafe { load_u32(p) }
        }
        #[inline]
        #[target_feature(enable = "avx2,f16c")]
        unsafe fn mins(p: *const u8) -> __m256i {
            // SAFETY: inside the block.
            _mm256_zextsi128_si256(unsafe { scales_and_mins(p.add(4)) }.1)
        }
    };
}

/// The scale alone, at this byte.
macro_rules! head_at {
    ($at:literal) => {
        #[inline]
        #[target_feature(enable = "avx2,f16c")]
        unsafe fn head(p: *const u8) -> u32 {
            // SAFETY: inside the block.
            unsafe { load_u16(p.add($at)) }
        }
    };
}

pub struct Q2K;
impl Block256 for Q2K {
    const KIND: QuantType = QuantType::Q2_K;
    const PAIRS: usize = 8;
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn head(p: *const u8) -> u32 {
        // SAFETY: inside the block.
        unsafe { load_u32(p.add(80)) }
    }
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn mins(p: *const u8) -> __m256i {
        // SAFETY: inside the block.
        let packed = unsafe { _mm_loadu_si128(p.cast()) };
        _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16::<4>(packed), _mm_set1_epi8(15)))
    }
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn sums<const T: usize>(p: *const u8, at: [At; T]) -> [__m256i; T] {
        // SAFETY: inside the block and the activations.
        unsafe {
            let scales = evens_and_odds(_mm_and_si128(_mm_loadu_si128(p.cast()), _mm_set1_epi8(15)));
            let mut sums = [_mm256_setzero_si256(); T];
            for half in 0..2 {
                let bytes = load(p.add(16 + half * 32));
                for j in 0..4 {
                    add(&mut sums, 4 * half + j, moved(bytes, 2 * j, 0, 3), &at, scales);
                }
            }
            sums
        }
    }
}

pub struct Q3K;
impl Block256 for Q3K {
    const KIND: QuantType = QuantType::Q3_K;
    head_at!(108);
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn sums<const T: usize>(p: *const u8, at: [At; T]) -> [__m256i; T] {
        // SAFETY: inside the block, the activations and their sums.
        unsafe {
            let scales = q3_k_scales(p);
            let mut sums = minus_offset::<2, T>(scales, &at);
            let scales = evens_and_odds(scales);
            let third = load(p);
            for half in 0..2 {
                let bytes = load(p.add(32 + half * 32));
                for j in 0..4 {
                    let g = 4 * half + j;
                    let q = _mm256_or_si256(moved(bytes, 2 * j, 0, 3), moved(third, g, 2, 4));
                    add(&mut sums, g, q, &at, scales);
                }
            }
            sums
        }
    }
}

pub struct Q4K;
impl Block256 for Q4K {
    const KIND: QuantType = QuantType::Q4_K;
    with_minima!();
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn sums<const T: usize>(p: *const u8, at: [At; T]) -> [__m256i; T] {
        // SAFETY: inside the block and the activations.
        unsafe {
            let scales = _mm256_broadcastsi128_si256(scales_and_mins(p.add(4)).0);
            let mut sums = [_mm256_setzero_si256(); T];
            for c in 0..4 {
                let bytes = load(p.add(16 + c * 32));
                add(&mut sums, 2 * c, moved(bytes, 0, 0, 15), &at, scales);
                add(&mut sums, 2 * c + 1, moved(bytes, 4, 0, 15), &at, scales);
            }
            sums
        }
    }
}

pub struct Q5K;
impl Block256 for Q5K {
    const KIND: QuantType = QuantType::Q5_K;
    with_minima!();
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn sums<const T: usize>(p: *const u8, at: [At; T]) -> [__m256i; T] {
        // SAFETY: inside the block and the activations.
        unsafe {
            let scales = _mm256_broadcastsi128_si256(scales_and_mins(p.add(4)).0);
            let mut sums = [_mm256_setzero_si256(); T];
            let fifth = load(p.add(16));
            for c in 0..4 {
                let bytes = load(p.add(48 + c * 32));
                for i in 0..2 {
                    let g = 2 * c + i;
                    let q = _mm256_or_si256(moved(bytes, 4 * i, 0, 15), moved(fifth, g, 4, 16));
                    add(&mut sums, g, q, &at, scales);
                }
            }
            sums
        }
    }
}

pub struct Q6K;
impl Block256 for Q6K {
    const KIND: QuantType = QuantType::Q6_K;
    head_at!(208);
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn sums<const T: usize>(p: *const u8, at: [At; T]) -> [__m256i; T] {
        // SAFETY: inside the block, the activations and their sums.
        unsafe {
            let scales = _mm_loadu_si128(p.add(192).cast());
            let mut sums = minus_offset::<5, T>(scales, &at);
            let scales = evens_and_odds(scales);
            for half in 0..2 {
                let low = [load(p.add(half * 64)), load(p.add(half * 64 + 32))];
                let high = load(p.add(128 + half * 32));
                for j in 0..4 {
                    let nibble = moved(low[j % 2], j / 2 * 4, 0, 15);
                    let q = _mm256_or_si256(nibble, moved(high, 2 * j, 4, 0x30));
                    add(&mut sums, 4 * half + j, q, &at, scales);
                }
            }
            sums
        }
    }
}

pub struct Iq4Xs;
impl Block256 for Iq4Xs {
    const KIND: QuantType = QuantType::IQ4_XS;
    head_at!(0);
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn sums<const T: usize>(p: *const u8, at: [At; T]) -> [__m256i; T] {
        let table = _mm256_broadcastsi128_si256(table(Self::KIND));
        let mut sums = [_mm256_setzero_si256(); T];
        // SAFETY: inside the block and the activations.
        unsafe {
            let scales = iq4_xs_scales(p);
            let scales =
                _mm_packs_epi32(_mm256_castsi256_si128(scales), _mm256_extracti128_si256::<1>(scales));
            let scales = _mm256_broadcastsi128_si256(scales);
            for g in 0..8 {
                let (q, scale) = (_mm256_shuffle_epi8(table, nibbles(p.add(8 + g * 16))), spread(g, scales));
                for (sum, (y, _)) in sums.iter_mut().zip(&at) {
                    let products = signed_products(q, _mm256_loadu_si256(y.add(g * 32).cast()));
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(products, scale));
                }
            }
        }
        sums
    }
}
