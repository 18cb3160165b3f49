//! AVX-512: the types with blocks of 256. Register c holds values 64c to 64c + 63; products with the activations are
//! added in pairs (at most 2 * 63 * 127, so they fit int16) and multiplied with the scale of their group at once.

use super::super::common::{
    iq4_xs_scales, load_u16, load_u32, q2_k_scales, q3_k_scales, scales_and_min, sums_of_32, table,
};
use crate::engine::quant::QuantType;
use std::arch::x86_64::*;

/// What a block gives: sum lanes, the stored d (and dmin in the upper half), the minima times their sums.
#[derive(Clone, Copy)]
pub struct Block {
    pub sum: __m512i,
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

/// [c][int16 lane]: which of sixteen scales belongs there.
const BY_16: [[i16; 32]; 4] = {
    let mut table = [[0; 32]; 4];
    let mut i = 0;
    while i < 128 {
        table[i / 32][i % 32] = (i / 8) as i16;
        i += 1;
    }
    table
};

/// [c][byte]: which byte of eight int16 scales (the same in every 128-bit lane) belongs there.
const BY_32: [[u8; 64]; 4] = {
    let mut table = [[0; 64]; 4];
    let mut i = 0;
    while i < 256 {
        table[i / 64][i % 64] = (i / 32 * 2 + i % 2) as u8;
        i += 1;
    }
    table
};

/// Adds register `c` of the values times the activations, under scales of sixteen values each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
unsafe fn add_by_16(sum: __m512i, c: usize, q: __m512i, y: *const i8, scales: __m512i) -> __m512i {
    // SAFETY: the caller's 256 activations; 64 bytes of a table.
    let (y, by) =
        unsafe { (_mm512_loadu_si512(y.add(c * 64).cast()), _mm512_loadu_si512(BY_16[c].as_ptr().cast())) };
    _mm512_dpwssd_epi32(sum, _mm512_maddubs_epi16(q, y), _mm512_permutexvar_epi16(by, scales))
}

/// The same with scales of 32 values each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
unsafe fn add_by_32(sum: __m512i, c: usize, q: __m512i, y: *const i8, scales: __m512i) -> __m512i {
    // SAFETY: as above.
    let (y, by) =
        unsafe { (_mm512_loadu_si512(y.add(c * 64).cast()), _mm512_loadu_si512(BY_32[c].as_ptr().cast())) };
    _mm512_dpwssd_epi32(sum, _mm512_maddubs_epi16(q, y), _mm512_shuffle_epi8(scales, by))
}

/// The same 32 bytes in both halves, shifted right by `low` and by `high`; bits that cross into a byte are masked later.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
unsafe fn shifted(p: *const u8, low: i64, high: i64) -> __m512i {
    // SAFETY: the caller's 32 bytes.
    let both = _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(p.cast()) });
    _mm512_srlv_epi64(both, _mm512_set_epi64(high, high, high, high, low, low, low, low))
}

/// Bit 2c of 32 bytes (lower half) and bit 2c + 1 (upper half), moved to bit `to`; the others are masked later.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
unsafe fn one_bit(p: *const u8, c: usize, to: i64) -> __m512i {
    // SAFETY: the caller's 32 bytes.
    let both = _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(p.cast()) });
    let low = (to - 2 * c as i64) & 63;
    let high = (to - 2 * c as i64 - 1) & 63;
    _mm512_rolv_epi64(both, _mm512_set_epi64(high, high, high, high, low, low, low, low))
}

/// `a | b & mask`
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
fn or_masked(a: __m512i, b: __m512i, mask: i8) -> __m512i {
    _mm512_ternarylogic_epi64::<0xf8>(a, b, _mm512_set1_epi8(mask))
}

/// Stored values are `1 << SHIFT` too large: scale * sum of the activations, to be taken away that many times.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
unsafe fn minus_offset<const SHIFT: i32>(scales: __m256i, sums: *const i16) -> __m512i {
    // SAFETY: the caller's sixteen sums.
    let products = _mm256_madd_epi16(scales, unsafe { _mm256_loadu_si256(sums.cast()) });
    let offset = _mm512_zextsi256_si512(_mm256_slli_epi32::<SHIFT>(products));
    _mm512_sub_epi32(_mm512_setzero_si512(), offset)
}

pub struct Q2K;
impl Block256 for Q2K {
    const KIND: QuantType = QuantType::Q2_K;
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
    unsafe fn block(p: *const u8, y: *const i8, sums: *const i16) -> Block {
        // SAFETY: inside the block, the activations and their sums.
        unsafe {
            let (scales, min) = q2_k_scales(p, sums);
            let scales = _mm512_castsi256_si512(_mm256_cvtepi8_epi16(scales));
            let mut sum = _mm512_setzero_si512();
            for c in 0..4 {
                let shift = 4 * (c as i64 % 2);
                let q = shifted(p.add(16 + c / 2 * 32), shift, shift + 2);
                sum = add_by_16(sum, c, _mm512_and_si512(q, _mm512_set1_epi8(3)), y, scales);
            }
            Block { sum, d: load_u32(p.add(80)), min }
        }
    }
}

pub struct Q3K;
impl Block256 for Q3K {
    const KIND: QuantType = QuantType::Q3_K;
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
    unsafe fn block(p: *const u8, y: *const i8, sums: *const i16) -> Block {
        // SAFETY: inside the block, the activations and their sums.
        unsafe {
            let scales = _mm256_cvtepi8_epi16(q3_k_scales(p));
            let mut sum = minus_offset::<2>(scales, sums);
            let scales = _mm512_castsi256_si512(scales);
            for c in 0..4 {
                let shift = 4 * (c as i64 % 2);
                let q = shifted(p.add(32 + c / 2 * 32), shift, shift + 2);
                let q = or_masked(_mm512_and_si512(q, _mm512_set1_epi8(3)), one_bit(p, c, 2), 4);
                sum = add_by_16(sum, c, q, y, scales);
            }
            Block { sum, d: load_u16(p.add(108)), min: 0 }
        }
    }
}

pub struct Q4K;
impl Block256 for Q4K {
    const KIND: QuantType = QuantType::Q4_K;
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
    unsafe fn block(p: *const u8, y: *const i8, sums: *const i16) -> Block {
        // SAFETY: inside the block, the activations and their sums.
        unsafe {
            let (scales, min) = scales_and_min(p.add(4), sums);
            let scales = _mm512_broadcast_i32x4(scales);
            let mut sum = _mm512_setzero_si512();
            for c in 0..4 {
                let q = _mm512_and_si512(shifted(p.add(16 + c * 32), 0, 4), _mm512_set1_epi8(15));
                sum = add_by_32(sum, c, q, y, scales);
            }
            Block { sum, d: load_u32(p), min }
        }
    }
}

pub struct Q5K;
impl Block256 for Q5K {
    const KIND: QuantType = QuantType::Q5_K;
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
    unsafe fn block(p: *const u8, y: *const i8, sums: *const i16) -> Block {
        // SAFETY: inside the block, the activations and their sums.
        unsafe {
            let (scales, min) = scales_and_min(p.add(4), sums);
            let scales = _mm512_broadcast_i32x4(scales);
            let mut sum = _mm512_setzero_si512();
            for c in 0..4 {
                let q = _mm512_and_si512(shifted(p.add(48 + c * 32), 0, 4), _mm512_set1_epi8(15));
                let q = or_masked(q, one_bit(p.add(16), c, 4), 16);
                sum = add_by_32(sum, c, q, y, scales);
            }
            Block { sum, d: load_u32(p), min }
        }
    }
}

pub struct Q6K;
impl Block256 for Q6K {
    const KIND: QuantType = QuantType::Q6_K;
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
    unsafe fn block(p: *const u8, y: *const i8, sums: *const i16) -> Block {
        let (nibble, upper) = (_mm512_set1_epi8(15), 0x30);
        // Upper bits of the low-nibble quarters sit at bits 0 and 2 of the 32 bytes, of the high-nibble ones at 4 and
        // 6; all are moved to bits 4 and 5.
        let to_low = _mm512_set_epi64(2, 2, 2, 2, 4, 4, 4, 4);
        let to_high = _mm512_set_epi64(2, 2, 2, 2, 0, 0, 0, 0);
        // SAFETY: inside the block, the activations and their sums.
        unsafe {
            let scales = _mm256_cvtepi8_epi16(_mm_loadu_si128(p.add(192).cast()));
            let mut sum = minus_offset::<5>(scales, sums);
            let scales = _mm512_castsi256_si512(scales);
            for half in 0..2 {
                let low = _mm512_loadu_si512(p.add(half * 64).cast());
                let high = _mm512_broadcast_i64x4(_mm256_loadu_si256(p.add(128 + half * 32).cast()));
                let first = _mm512_and_si512(low, nibble);
                let first = or_masked(first, _mm512_sllv_epi64(high, to_low), upper);
                let second = _mm512_and_si512(_mm512_srli_epi64::<4>(low), nibble);
                let second = or_masked(second, _mm512_srlv_epi64(high, to_high), upper);
                sum = add_by_16(sum, half * 2, first, y, scales);
                sum = add_by_16(sum, half * 2 + 1, second, y, scales);
            }
            Block { sum, d: load_u16(p.add(208)), min: 0 }
        }
    }
}

pub struct Iq4Xs;
impl Block256 for Iq4Xs {
    const KIND: QuantType = QuantType::IQ4_XS;
    /// The values need eight bits with their sign: they are shifted up by 128, summed by fours, and scaled as int32.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
    unsafe fn block(p: *const u8, y: *const i8, sums: *const i16) -> Block {
        let table = _mm512_broadcast_i32x4(_mm_xor_si128(table(Self::KIND), _mm_set1_epi8(-128)));
        // Sixteen bytes hold 32 values, the lower nibbles first: [a, b] becomes [a, a, b, b].
        let twice = _mm512_set_epi64(3, 2, 3, 2, 1, 0, 1, 0);
        let shift = _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0);
        let by = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
        // SAFETY: inside the block, the activations and their sums.
        unsafe {
            let scales = iq4_xs_scales(p);
            let offset = _mm256_slli_epi32::<7>(_mm256_mullo_epi32(scales, sums_of_32(sums)));
            let mut sum = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_zextsi256_si512(offset));
            let scales = _mm512_castsi256_si512(scales);
            for c in 0..4 {
                let bytes = _mm512_castsi256_si512(_mm256_loadu_si256(p.add(8 + c * 32).cast()));
                let nibbles = _mm512_srlv_epi64(_mm512_permutexvar_epi64(twice, bytes), shift);
                let q = _mm512_shuffle_epi8(table, _mm512_and_si512(nibbles, _mm512_set1_epi8(15)));
                let y = _mm512_loadu_si512(y.add(c * 64).cast());
                let by = _mm512_add_epi32(by, _mm512_set1_epi32(2 * c as i32));
                let dots = _mm512_dpbusd_epi32(_mm512_setzero_si512(), q, y);
                let scaled = _mm512_mullo_epi32(dots, _mm512_permutexvar_epi32(by, scales));
                sum = _mm512_add_epi32(sum, scaled);
            }
            Block { sum, d: load_u16(p), min: 0 }
        }
    }
}
