//! AVX2: the types with blocks of 256. Register g holds values 32g to 32g + 31; products with the activations are added
//! in pairs (at most 2 * 63 * 127, so they fit int16), then multiplied with the scale of their group and added again.

use super::super::common::{
    iq4_xs_scales, load_u16, load_u32, nibbles, q2_k_scales, q3_k_scales, scales_and_min, table,
};
use super::signed_products;
use crate::engine::quant::QuantType;
use std::arch::x86_64::*;

/// What a block gives: sum lanes, the stored d (and dmin in the upper half), the minima times their sums.
#[derive(Clone, Copy)]
pub struct Block {
    pub sum: __m256i,
    pub d: u32,
    pub min: i32,
}

/// How a type's block becomes integers.
pub trait Block256 {
    const KIND: QuantType;
    /// # Safety
    /// Needs the features of `dot_rows`; `p` is at a block of the type, `y` at 256 values, `sums` at their 16 sums.
    unsafe fn block(p: *const u8, y: *const i8, sums: *const i16) -> Block;
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

/// Adds pairs of products of register `g` under the g-th scale of each 128-bit lane.
#[inline]
#[target_feature(enable = "avx2")]
fn scaled(sum: __m256i, g: usize, products: __m256i, scales: __m256i) -> __m256i {
    // SAFETY: 32 bytes of the table.
    let pick = unsafe { _mm256_loadu_si256(PICK[g].as_ptr().cast()) };
    _mm256_add_epi32(sum, _mm256_madd_epi16(products, _mm256_shuffle_epi8(scales, pick)))
}

/// Adds register `g` of unsigned values times the activations, scaled.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn add(sum: __m256i, g: usize, q: __m256i, y: *const i8, scales: __m256i) -> __m256i {
    // SAFETY: the caller's 256 activations.
    let y = unsafe { _mm256_loadu_si256(y.add(g * 32).cast()) };
    scaled(sum, g, _mm256_maddubs_epi16(q, y), scales)
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
unsafe fn minus_offset<const SHIFT: i32>(scales: __m128i, sums: *const i16) -> __m256i {
    // SAFETY: the caller's sixteen sums.
    let sums = unsafe { _mm256_loadu_si256(sums.cast()) };
    let products = _mm256_madd_epi16(_mm256_cvtepi8_epi16(scales), sums);
    _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32::<SHIFT>(products))
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

pub struct Q2K;
impl Block256 for Q2K {
    const KIND: QuantType = QuantType::Q2_K;
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn block(p: *const u8, y: *const i8, sums: *const i16) -> Block {
        // SAFETY: inside the block, the activations and their sums.
        unsafe {
            let (scales, min) = q2_k_scales(p, sums);
            let scales = evens_and_odds(scales);
            let mut sum = _mm256_setzero_si256();
            for half in 0..2 {
                let bytes = load(p.add(16 + half * 32));
                for j in 0..4 {
                    sum = add(sum, 4 * half + j, moved(bytes, 2 * j, 0, 3), y, scales);
                }
            }
            Block { sum, d: load_u32(p.add(80)), min }
        }
    }
}

pub struct Q3K;
impl Block256 for Q3K {
    const KIND: QuantType = QuantType::Q3_K;
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn block(p: *const u8, y: *const i8, sums: *const i16) -> Block {
        // SAFETY: inside the block, the activations and their sums.
        unsafe {
            let scales = q3_k_scales(p);
            let mut sum = minus_offset::<2>(scales, sums);
            let scales = evens_and_odds(scales);
            let third = load(p);
            for half in 0..2 {
                let bytes = load(p.add(32 + half * 32));
                for j in 0..4 {
                    let g = 4 * half + j;
                    let q = _mm256_or_si256(moved(bytes, 2 * j, 0, 3), moved(third, g, 2, 4));
                    sum = add(sum, g, q, y, scales);
                }
            }
            Block { sum, d: load_u16(p.add(108)), min: 0 }
        }
    }
}

pub struct Q4K;
impl Block256 for Q4K {
    const KIND: QuantType = QuantType::Q4_K;
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn block(p: *const u8, y: *const i8, sums: *const i16) -> Block {
        // SAFETY: inside the block, the activations and their sums.
        unsafe {
            let (scales, min) = scales_and_min(p.add(4), sums);
            let scales = _mm256_broadcastsi128_si256(scales);
            let mut sum = _mm256_setzero_si256();
            for c in 0..4 {
                let bytes = load(p.add(16 + c * 32));
                sum = add(sum, 2 * c, moved(bytes, 0, 0, 15), y, scales);
                sum = add(sum, 2 * c + 1, moved(bytes, 4, 0, 15), y, scales);
            }
            Block { sum, d: load_u32(p), min }
        }
    }
}

pub struct Q5K;
impl Block256 for Q5K {
    const KIND: QuantType = QuantType::Q5_K;
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn block(p: *const u8, y: *const i8, sums: *const i16) -> Block {
        // SAFETY: inside the block, the activations and their sums.
        unsafe {
            let (scales, min) = scales_and_min(p.add(4), sums);
            let scales = _mm256_broadcastsi128_si256(scales);
            let fifth = load(p.add(16));
            let mut sum = _mm256_setzero_si256();
            for c in 0..4 {
                let bytes = load(p.add(48 + c * 32));
                for i in 0..2 {
                    let g = 2 * c + i;
                    let q = _mm256_or_si256(moved(bytes, 4 * i, 0, 15), moved(fifth, g, 4, 16));
                    sum = add(sum, g, q, y, scales);
                }
            }
            Block { sum, d: load_u32(p), min }
        }
    }
}

pub struct Q6K;
impl Block256 for Q6K {
    const KIND: QuantType = QuantType::Q6_K;
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn block(p: *const u8, y: *const i8, sums: *const i16) -> Block {
        // SAFETY: inside the block, the activations and their sums.
        unsafe {
            let scales = _mm_loadu_si128(p.add(192).cast());
            let mut sum = minus_offset::<5>(scales, sums);
            let scales = evens_and_odds(scales);
            for half in 0..2 {
                let low = [load(p.add(half * 64)), load(p.add(half * 64 + 32))];
                let high = load(p.add(128 + half * 32));
                for j in 0..4 {
                    let nibble = moved(low[j % 2], j / 2 * 4, 0, 15);
                    let q = _mm256_or_si256(nibble, moved(high, 2 * j, 4, 0x30));
                    sum = add(sum, 4 * half + j, q, y, scales);
                }
            }
            Block { sum, d: load_u16(p.add(208)), min: 0 }
        }
    }
}

pub struct Iq4Xs;
impl Block256 for Iq4Xs {
    const KIND: QuantType = QuantType::IQ4_XS;
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn block(p: *const u8, y: *const i8, _sums: *const i16) -> Block {
        let table = _mm256_broadcastsi128_si256(table(Self::KIND));
        // SAFETY: inside the block and the activations.
        unsafe {
            let scales = iq4_xs_scales(p);
            let scales =
                _mm_packs_epi32(_mm256_castsi256_si128(scales), _mm256_extracti128_si256::<1>(scales));
            let scales = _mm256_broadcastsi128_si256(scales);
            let mut sum = _mm256_setzero_si256();
            for g in 0..8 {
                let q = _mm256_shuffle_epi8(table, nibbles(p.add(8 + g * 16)));
                let y = _mm256_loadu_si256(y.add(g * 32).cast());
                sum = scaled(sum, g, signed_products(q, y), scales);
            }
            Block { sum, d: load_u16(p), min: 0 }
        }
    }
}
