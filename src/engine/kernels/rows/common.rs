//! Pieces of both vector sets that AVX2 suffices for: scales out of their packings, half floats, sums over lanes,
//! prefetch. All are inlined into kernels compiled for more.

use crate::engine::quant::{E2M1_DOUBLED, IQ4, QuantType};
use std::arch::x86_64::*;

/// Asks for the cache lines of the next `bytes` some way ahead in the file; addresses beyond its end are harmless.
#[inline(always)]
pub fn ahead(p: *const u8, bytes: usize) {
    const DISTANCE: usize = 4096;
    for line in 0..bytes.div_ceil(64) {
        // SAFETY: a prefetch of any address is allowed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(DISTANCE + 64 * line).cast()) };
    }
}

#[inline(always)]
pub unsafe fn load_u32(p: *const u8) -> u32 {
    // SAFETY: the caller's four bytes.
    unsafe { p.cast::<u32>().read_unaligned() }
}

#[inline(always)]
pub unsafe fn load_u16(p: *const u8) -> u32 {
    // SAFETY: the caller's two bytes.
    u32::from(unsafe { p.cast::<u16>().read_unaligned() })
}

/// The stored scale of a 32-wide block, and its minimum in the upper half where the type has one.
#[inline(always)]
pub unsafe fn head(kind: QuantType, p: *const u8) -> u32 {
    // SAFETY: the caller's block, which begins with these bytes.
    unsafe {
        match kind {
            QuantType::MXFP4 => u32::from(p.read()),
            _ if kind.has_min() => load_u32(p),
            _ => load_u16(p),
        }
    }
}

/// The lower half of each lane as a half-precision float.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub fn halves(bits: __m256i) -> __m256 {
    let low = _mm256_and_si256(bits, _mm256_set1_epi32(0xffff));
    let packed = _mm256_permute4x64_epi64::<0b10_00_10_00>(_mm256_packus_epi32(low, low));
    _mm256_cvtph_ps(_mm256_castsi256_si128(packed))
}

/// The scales out of eight `head`s.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub fn scales(kind: QuantType, heads: __m256i) -> __m256 {
    if kind != QuantType::MXFP4 {
        return halves(heads);
    }
    // Half of 2^(e - 127); for the two smallest it is below the normal floats and has its bit in the fraction.
    let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(heads, _mm256_set1_epi32(1)));
    let small = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), heads);
    let is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), heads);
    _mm256_castsi256_ps(_mm256_blendv_epi8(normal, small, is_small))
}

/// The sum of eight lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub fn sum_lanes(v: __m256i) -> i32 {
    let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
    _mm_cvtsi128_si32(v) + _mm_extract_epi32::<1>(v)
}

/// Sums of 32 activations out of the sixteen sums of 16, as int32.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn sums_of_32(sums: *const i16) -> __m256i {
    // SAFETY: the caller's sixteen sums.
    let sums = unsafe { _mm256_loadu_si256(sums.cast()) };
    _mm256_madd_epi16(sums, _mm256_set1_epi16(1))
}

/// Q4_K and Q5_K: the eight scales and the eight minima, as int16.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn scales_and_mins(packed: *const u8) -> (__m128i, __m128i) {
    // SAFETY: the caller's twelve bytes.
    let (u0, u1, u2) = unsafe { (load_u32(packed), load_u32(packed.add(4)), load_u32(packed.add(8))) };
    let wide = |low: u32, high: u32| {
        _mm_cvtepu8_epi16(_mm_cvtsi64_si128((u64::from(low) | u64::from(high) << 32) as i64))
    };
    let scales = wide(u0 & 0x3f3f_3f3f, (u2 & 0x0f0f_0f0f) | ((u0 >> 6 & 0x0303_0303) << 4));
    let mins = wide(u1 & 0x3f3f_3f3f, (u2 >> 4 & 0x0f0f_0f0f) | ((u1 >> 6 & 0x0303_0303) << 4));
    (scales, mins)
}

/// Q4_K and Q5_K: the eight scales as int16, and the minima times the sums of their groups.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn scales_and_min(packed: *const u8, sums: *const i16) -> (__m128i, i32) {
    // SAFETY: the caller's twelve bytes and sixteen sums.
    let ((scales, mins), sums) = unsafe { (scales_and_mins(packed), sums_of_32(sums)) };
    let sums = _mm_packs_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let min = _mm_madd_epi16(mins, sums);
    let min = _mm_add_epi32(min, _mm_shuffle_epi32::<0b01_00_11_10>(min));
    (scales, _mm_cvtsi128_si32(min) + _mm_extract_epi32::<1>(min))
}

/// Q2_K: sixteen scales as int8, and the minima times the sums of their groups.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn q2_k_scales(packed: *const u8, sums: *const i16) -> (__m128i, i32) {
    // SAFETY: the caller's sixteen bytes and sixteen sums.
    let (packed, sums) = unsafe { (_mm_loadu_si128(packed.cast()), _mm256_loadu_si256(sums.cast())) };
    let nibble = _mm_set1_epi8(15);
    let mins = _mm_and_si128(_mm_srli_epi16::<4>(packed), nibble);
    let min = sum_lanes(_mm256_madd_epi16(_mm256_cvtepu8_epi16(mins), sums));
    (_mm_and_si128(packed, nibble), min)
}

/// Q3_K: sixteen scales as int8. The nibbles of bytes 0..8 are their lower bits, the pairs of bits of bytes 8..12 the
/// upper ones, both in runs: lower nibbles first, lowest pairs first.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn q3_k_scales(block: *const u8) -> __m128i {
    // SAFETY: the last sixteen bytes of the caller's block of 110.
    let tail = unsafe { _mm_loadu_si128(block.add(94).cast()) };
    let low = _mm_shuffle_epi8(tail, _mm_setr_epi8(2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9));
    let high =
        _mm_shuffle_epi8(tail, _mm_setr_epi8(10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13));
    let low = _mm_and_si128(_mm_srlv_epi32(low, _mm_setr_epi32(0, 0, 4, 4)), _mm_set1_epi8(15));
    let high = _mm_and_si128(_mm_srlv_epi32(high, _mm_setr_epi32(0, 2, 4, 6)), _mm_set1_epi8(3));
    _mm_sub_epi8(_mm_or_si128(low, _mm_slli_epi16::<4>(high)), _mm_set1_epi8(32))
}

/// IQ4_XS: the scales of its eight parts.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn iq4_xs_scales(block: *const u8) -> __m256i {
    // SAFETY: the caller's block of 136 bytes.
    let (upper, lower) = unsafe { (load_u16(block.add(2)), load_u32(block.add(4))) };
    let counts = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let lower = _mm256_srlv_epi32(_mm256_set1_epi32(lower as i32), _mm256_slli_epi32::<2>(counts));
    let upper = _mm256_srlv_epi32(_mm256_set1_epi32(upper as i32), _mm256_slli_epi32::<1>(counts));
    let lower = _mm256_and_si256(lower, _mm256_set1_epi32(15));
    let upper = _mm256_and_si256(upper, _mm256_set1_epi32(3));
    let scales = _mm256_or_si256(lower, _mm256_slli_epi32::<4>(upper));
    _mm256_sub_epi32(scales, _mm256_set1_epi32(32))
}

/// The sixteen values of a type whose nibbles are looked up.
#[inline]
#[target_feature(enable = "avx2")]
pub fn table(kind: QuantType) -> __m128i {
    let values = if kind == QuantType::MXFP4 { &E2M1_DOUBLED } else { &IQ4 };
    // SAFETY: sixteen bytes.
    unsafe { _mm_loadu_si128(values.as_ptr().cast()) }
}

/// The nibbles of sixteen bytes, the lower ones first.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn nibbles(p: *const u8) -> __m256i {
    // SAFETY: the caller's sixteen bytes.
    let twice = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(p.cast()) });
    let moved = _mm256_srlv_epi64(twice, _mm256_set_epi64x(4, 4, 0, 0));
    _mm256_and_si256(moved, _mm256_set1_epi8(15))
}

/// Nibbles with a fifth bit each: bit i of `fifth` belongs to value i.
#[inline]
#[target_feature(enable = "avx2")]
pub fn five_bits(fifth: u32, nibbles: __m256i) -> __m256i {
    let fifth = _mm256_set1_epi32(fifth as i32);
    // Each of the four bytes eight times, then one bit of each.
    let spread = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let bit = _mm256_set1_epi64x(i64::from_le_bytes([1, 2, 4, 8, 16, 32, 64, 128]));
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(fifth, spread), bit), bit);
    _mm256_or_si256(nibbles, _mm256_and_si256(set, _mm256_set1_epi8(16)))
}
