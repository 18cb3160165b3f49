//! AVX-512 VNNI kernels. Integer sums are exact, so their order is free; the float steps are those of `scalar`, in
//! its order, so the bits are the same. `dot_rows` reads eight weight rows at once straight from the file's layout.

use super::Matrix;
use super::act::ActivationRow;
use crate::engine::quant::QuantType;
use std::arch::x86_64::*;

/// Rows that `dot_rows` takes at a time.
pub const ROWS: usize = 8;

/// Dot products of eight rows from `row` with one token.
///
/// # Safety
/// Needs AVX-512 F, BW, VL, DQ, VNNI and F16C; the kind is Q4_K, Q6_K or Q8_0; eight rows are there.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
pub unsafe fn dot_rows(
    matrix: &Matrix<'_>,
    row: usize,
    act: ActivationRow<'_>,
    parts: &mut Vec<Part>,
) -> [f32; ROWS] {
    let blocks = matrix.cols / matrix.kind.block_len();
    if parts.len() < blocks {
        parts.resize(blocks, Part { sum: [_mm512_setzero_si512(); ROWS], d: [0; ROWS], min: [0; ROWS] });
    }
    let stride = matrix.row_bytes();
    // Bounds once, here; the kernels below walk raw pointers inside this range.
    let data = &matrix.data[row * stride..(row + ROWS) * stride];
    assert!(act.q.len() == matrix.cols);
    let mut out = [0f32; ROWS];
    // SAFETY: `data` holds eight rows of `cols / block_len` blocks and `act` a block for each of them.
    let acc = unsafe {
        match matrix.kind {
            QuantType::Q4_K => q4_k(data.as_ptr(), stride, blocks, act, parts),
            QuantType::Q6_K => q6_k(data.as_ptr(), stride, blocks, act, parts),
            _ => q8_0(data.as_ptr(), stride, blocks, act, parts),
        }
    };
    // SAFETY: eight floats.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), acc) };
    out
}

/// Folds eight registers of sixteen int32 lanes to halves: in 128-bit lane order
/// [rows 0-3 of the low half, rows 0-3 of the high half, rows 4-7 low, rows 4-7 high].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn fold8(v: &[__m512i; 8]) -> __m512i {
    let pair = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let quad = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    let low = quad(pair(v[0], v[1]), pair(v[2], v[3]));
    let high = quad(pair(v[4], v[5]), pair(v[6], v[7]));
    _mm512_add_epi32(_mm512_shuffle_i32x4::<0x88>(low, high), _mm512_shuffle_i32x4::<0xdd>(low, high))
}

/// The whole sums of eight registers, a lane each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn sum8(v: &[__m512i; 8]) -> __m256i {
    let halves = fold8(v);
    // [low 0-3, high 0-3, low 4-7, high 4-7] -> low + high
    let low = _mm512_castsi512_si256(_mm512_shuffle_i32x4::<0b00_00_10_00>(halves, halves));
    let high = _mm512_castsi512_si256(_mm512_shuffle_i32x4::<0b00_00_11_01>(halves, halves));
    _mm256_add_epi32(low, high)
}

/// What one block (Q8_0: two blocks) of eight rows gave, before the float steps. Rows are read one after the other,
/// as they lie in the file: one stream is what the memory prefetcher follows best.
#[derive(Clone, Copy)]
pub struct Part {
    sum: [__m512i; ROWS],
    d: [u32; ROWS],
    min: [i32; ROWS],
}

/// Asks for the cache lines that lie some way ahead in the file; addresses beyond its end are harmless.
#[inline]
fn ahead(p: *const u8) {
    const BYTES: usize = 4096;
    // SAFETY: a prefetch of any address is allowed.
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(BYTES).cast());
        _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(BYTES + 64).cast());
        _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(BYTES + 128).cast());
    }
}

#[inline]
unsafe fn load_u32(p: *const u8) -> u32 {
    // SAFETY: the caller's four bytes.
    unsafe { p.cast::<u32>().read_unaligned() }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
unsafe fn q4_k(
    data: *const u8,
    stride: usize,
    blocks: usize,
    act: ActivationRow<'_>,
    parts: &mut [Part],
) -> __m256 {
    let nibble = _mm512_set1_epi8(15);
    // The upper half of a register takes the high nibbles of the same 32 bytes.
    let shift = _mm512_set_epi64(4, 4, 4, 4, 0, 0, 0, 0);
    // Scale 2c for the lower half, 2c + 1 for the upper, out of eight int16 repeated in every 128-bit lane.
    let pick = |c: i16| {
        let byte_pair = |s: i16| _mm256_set1_epi16(2 * s + ((2 * s + 1) << 8));
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(byte_pair(2 * c)), byte_pair(2 * c + 1))
    };
    let picks = [pick(0), pick(1), pick(2), pick(3)];
    let ones = _mm256_set1_epi16(1);
    for r in 0..ROWS {
        for b in 0..blocks {
            // SAFETY: block b of row r, and of the activations.
            unsafe {
                let part = parts.get_unchecked_mut(b);
                let y = act.q.as_ptr().add(b * 256);
                let sums = _mm256_loadu_si256(act.sums.as_ptr().add(b * 16).cast());
                // Pairs of 16-sums make the 32-sums of Q4_K's eight groups.
                let sums = _mm256_cvtepi32_epi16(_mm256_madd_epi16(sums, ones));
                let p = data.add(r * stride + b * 144);
                ahead(p);
                part.d[r] = load_u32(p);
                let (u0, u1, u2) = (load_u32(p.add(4)), load_u32(p.add(8)), load_u32(p.add(12)));
                let low = u64::from(u0 & 0x3f3f_3f3f);
                let high = u64::from((u2 & 0x0f0f_0f0f) | ((u0 >> 6 & 0x0303_0303) << 4));
                let scales = _mm_cvtepu8_epi16(_mm_cvtsi64_si128((low | high << 32) as i64));
                let low = u64::from(u1 & 0x3f3f_3f3f);
                let high = u64::from((u2 >> 4 & 0x0f0f_0f0f) | ((u1 >> 6 & 0x0303_0303) << 4));
                let min =
                    _mm_madd_epi16(_mm_cvtepu8_epi16(_mm_cvtsi64_si128((low | high << 32) as i64)), sums);
                let min = _mm_add_epi32(min, _mm_shuffle_epi32::<0b01_00_11_10>(min));
                part.min[r] = _mm_cvtsi128_si32(min) + _mm_extract_epi32::<1>(min);
                let scales = _mm512_broadcast_i32x4(scales);
                let mut sum = _mm512_setzero_si512();
                for (c, pick) in picks.into_iter().enumerate() {
                    let bytes = _mm256_loadu_si256(p.add(16 + c * 32).cast());
                    let q = _mm512_and_si512(_mm512_srlv_epi64(_mm512_broadcast_i64x4(bytes), shift), nibble);
                    let products = _mm512_maddubs_epi16(q, _mm512_loadu_si512(y.add(c * 64).cast()));
                    sum = _mm512_dpwssd_epi32(sum, products, _mm512_shuffle_epi8(scales, pick));
                }
                part.sum[r] = sum;
            }
        }
    }
    let mut acc = _mm256_setzero_ps();
    for (b, part) in parts.iter().enumerate().take(blocks) {
        // SAFETY: eight values each.
        let (d, min) = unsafe {
            (_mm256_loadu_si256(part.d.as_ptr().cast()), _mm256_loadu_si256(part.min.as_ptr().cast()))
        };
        let dmin = _mm256_cvtph_ps(_mm256_cvtepi32_epi16(_mm256_srli_epi32::<16>(d)));
        let d = _mm256_cvtph_ps(_mm256_cvtepi32_epi16(d));
        let dy = _mm256_set1_ps(act.d[b]);
        let sum = _mm256_cvtepi32_ps(sum8(&part.sum));
        acc = _mm256_add_ps(acc, _mm256_mul_ps(_mm256_mul_ps(d, dy), sum));
        acc = _mm256_sub_ps(acc, _mm256_mul_ps(_mm256_mul_ps(dmin, dy), _mm256_cvtepi32_ps(min)));
    }
    acc
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
unsafe fn q6_k(
    data: *const u8,
    stride: usize,
    blocks: usize,
    act: ActivationRow<'_>,
    parts: &mut [Part],
) -> __m256 {
    let nibble = _mm512_set1_epi8(15);
    let two = _mm512_set1_epi8(0x30);
    // High bits of the low-nibble quarters sit at bits 0 and 2 of the 32 bytes, of the high-nibble ones at 4 and 6;
    // all are moved to bits 4 and 5.
    let to_low = _mm512_set_epi64(2, 2, 2, 2, 4, 4, 4, 4);
    let to_high = _mm512_set_epi64(2, 2, 2, 2, 0, 0, 0, 0);
    let group = |c: i16| {
        let lanes: [i16; 32] = std::array::from_fn(|i| 4 * c + i as i16 / 8);
        // SAFETY: 64 bytes.
        unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
    };
    let groups = [group(0), group(1), group(2), group(3)];
    for r in 0..ROWS {
        for b in 0..blocks {
            // SAFETY: block b of row r, and of the activations.
            unsafe {
                let part = parts.get_unchecked_mut(b);
                let y = act.q.as_ptr().add(b * 256);
                let sums = _mm256_loadu_si256(act.sums.as_ptr().add(b * 16).cast());
                let p = data.add(r * stride + b * 210);
                ahead(p);
                part.d[r] = u32::from(p.add(208).cast::<u16>().read_unaligned());
                let scales = _mm256_cvtepi8_epi16(_mm_loadu_si128(p.add(192).cast()));
                let wide = _mm512_castsi256_si512(scales);
                // The stored values are 32 too large: take 32 * scale * sum away.
                let offset = _mm256_slli_epi32::<5>(_mm256_madd_epi16(scales, sums));
                let mut sum = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_zextsi256_si512(offset));
                for half in 0..2 {
                    let low = _mm512_loadu_si512(p.add(half * 64).cast());
                    let high = _mm512_broadcast_i64x4(_mm256_loadu_si256(p.add(128 + half * 32).cast()));
                    let high12 = _mm512_and_si512(_mm512_sllv_epi64(high, to_low), two);
                    let high34 = _mm512_and_si512(_mm512_srlv_epi64(high, to_high), two);
                    let q12 = _mm512_or_si512(_mm512_and_si512(low, nibble), high12);
                    let q34 = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi64::<4>(low), nibble), high34);
                    for (i, q) in [q12, q34].into_iter().enumerate() {
                        let c = half * 2 + i;
                        let products = _mm512_maddubs_epi16(q, _mm512_loadu_si512(y.add(c * 64).cast()));
                        sum = _mm512_dpwssd_epi32(sum, products, _mm512_permutexvar_epi16(groups[c], wide));
                    }
                }
                part.sum[r] = sum;
            }
        }
    }
    let mut acc = _mm256_setzero_ps();
    for (b, part) in parts.iter().enumerate().take(blocks) {
        // SAFETY: eight values.
        let d = unsafe { _mm256_loadu_si256(part.d.as_ptr().cast()) };
        let d = _mm256_cvtph_ps(_mm256_cvtepi32_epi16(d));
        let sum = _mm256_cvtepi32_ps(sum8(&part.sum));
        acc = _mm256_add_ps(acc, _mm256_mul_ps(_mm256_mul_ps(d, _mm256_set1_ps(act.d[b])), sum));
    }
    acc
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
unsafe fn q8_0(
    data: *const u8,
    stride: usize,
    blocks: usize,
    act: ActivationRow<'_>,
    parts: &mut [Part],
) -> __m256 {
    let flip = _mm512_set1_epi8(-128);
    for r in 0..ROWS {
        for (pair, part) in parts.iter_mut().enumerate().take(blocks.div_ceil(2)) {
            let b = pair * 2;
            // SAFETY: block b (and b + 1 where there is one) of row r, and of the activations.
            unsafe {
                let p = data.add(r * stride + b * 34);
                let y = act.q.as_ptr().add(b * 32);
                ahead(p);
                part.d[r] = u32::from(p.cast::<u16>().read_unaligned());
                let mut q = _mm512_zextsi256_si512(_mm256_loadu_si256(p.add(2).cast()));
                let mut values = _mm512_zextsi256_si512(_mm256_loadu_si256(y.cast()));
                if b + 1 < blocks {
                    part.d[r] |= u32::from(p.add(34).cast::<u16>().read_unaligned()) << 16;
                    q = _mm512_inserti64x4::<1>(q, _mm256_loadu_si256(p.add(36).cast()));
                    values = _mm512_loadu_si512(y.cast());
                }
                // Unsigned times signed: shift the weights up by 128, and take 128 * sum(y) away below.
                part.sum[r] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_xor_si512(q, flip), values);
            }
        }
    }
    let mut acc = _mm256_setzero_ps();
    for (pair, part) in parts.iter().enumerate().take(blocks.div_ceil(2)) {
        // SAFETY: eight values.
        let d = unsafe { _mm256_loadu_si256(part.d.as_ptr().cast()) };
        let halves = fold8(&part.sum);
        let low = _mm512_castsi512_si256(_mm512_shuffle_i32x4::<0b00_00_10_00>(halves, halves));
        let high = _mm512_castsi512_si256(_mm512_shuffle_i32x4::<0b00_00_11_01>(halves, halves));
        for (i, (sum, d)) in [(low, d), (high, _mm256_srli_epi32::<16>(d))].into_iter().enumerate() {
            let b = pair * 2 + i;
            if b == blocks {
                break;
            }
            let sum =
                _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, _mm256_set1_epi32(128 * i32::from(act.sums[b]))));
            let d = _mm256_cvtph_ps(_mm256_cvtepi32_epi16(d));
            acc = _mm256_add_ps(acc, _mm256_mul_ps(_mm256_mul_ps(d, _mm256_set1_ps(act.d[b])), sum));
        }
    }
    acc
}
