//! One block of one row of a panel unpacked with AVX2, which both vector sets have: bytes, scales and minima as `Block`
//! wants them, the same as the reference `QuantType::unpack` gives. The lattices of IQ1 to IQ3 are left to that.

use super::panel::Block;
use super::rows::common::{
    five_bits, iq4_xs_scales, load_u16, load_u32, nibbles, q3_k_scales, scales, scales_and_mins, table,
};
use crate::engine::quant::QuantType;
use std::arch::x86_64::*;

/// Block `raw` of row `r`; false for the kinds that are left to the reference.
///
/// # Safety
/// Needs AVX2 and F16C; `raw` is one block of its kind.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub unsafe fn unpack_row(kind: QuantType, raw: &[u8], block: &mut Block, r: usize) -> bool {
    let p = raw.as_ptr();
    // SAFETY: as promised.
    unsafe {
        match kind {
            QuantType::Q2_K => q2_k(p, block, r),
            QuantType::Q3_K => q3_k(p, block, r),
            QuantType::Q4_K => q4_k(p, block, r),
            QuantType::Q5_K => q5_k(p, block, r),
            QuantType::Q6_K => q6_k(p, block, r),
            QuantType::IQ4_XS => iq4_xs(p, block, r),
            _ if kind.block_len() == 32 => wide32(kind, p, block, r),
            _ => return false,
        }
    }
    true
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn half(p: *const u8) -> f32 {
    // SAFETY: the caller's two bytes.
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(unsafe { load_u16(p) } as i32)))
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(p: *const u8) -> __m256i {
    // SAFETY: the caller's 32 bytes.
    unsafe { _mm256_loadu_si256(p.cast()) }
}

/// Thirty-two values to where number `at` of row `r` belongs.
#[inline]
#[target_feature(enable = "avx2")]
fn put(block: &mut Block, r: usize, at: usize, values: __m256i) {
    let to = &mut block.q[r][at..at + 32];
    // SAFETY: 32 bytes.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), values) };
}

#[inline]
#[target_feature(enable = "avx2")]
fn put16(to: &mut [i16; 16], values: __m256i) {
    // SAFETY: 32 bytes.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), values) };
}

/// Eight numbers, each of them for two groups of sixteen.
#[inline]
#[target_feature(enable = "avx2")]
fn put_twice(to: &mut [i16; 16], eight: __m128i) {
    let (low, high) = (_mm_unpacklo_epi16(eight, eight), _mm_unpackhi_epi16(eight, eight));
    put16(to, _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high));
}

/// The bits of `mask` in each byte, once all are shifted right by `count`.
#[inline]
#[target_feature(enable = "avx2")]
fn right(bytes: __m256i, count: usize, mask: i8) -> __m256i {
    _mm256_and_si256(_mm256_srl_epi16(bytes, _mm_cvtsi32_si128(count as i32)), _mm256_set1_epi8(mask))
}

/// Bit `bit` of each byte, brought to bit `to`.
#[inline]
#[target_feature(enable = "avx2")]
fn one_bit(bytes: __m256i, bit: usize, to: usize) -> __m256i {
    _mm256_sll_epi16(right(bytes, bit, 1), _mm_cvtsi32_si128(to as i32))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn q2_k(p: *const u8, block: &mut Block, r: usize) {
    // SAFETY: inside the block's 84 bytes.
    unsafe {
        (block.d[r], block.dmin[r]) = (half(p.add(80)), half(p.add(82)));
        let packed = _mm256_cvtepu8_epi16(_mm_loadu_si128(p.cast()));
        put16(&mut block.scale[r], _mm256_and_si256(packed, _mm256_set1_epi16(15)));
        put16(&mut block.min[r], _mm256_srli_epi16::<4>(packed));
        for part in 0..2 {
            let bytes = load(p.add(16 + part * 32));
            for j in 0..4 {
                put(block, r, part * 128 + j * 32, right(bytes, 2 * j, 3));
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn q3_k(p: *const u8, block: &mut Block, r: usize) {
    // With its third bit the stored value is 4 too large; 128 is what it is to be.
    let offset = _mm256_set1_epi8(124);
    // SAFETY: inside the block's 110 bytes.
    unsafe {
        block.d[r] = half(p.add(108));
        put16(&mut block.scale[r], _mm256_cvtepi8_epi16(q3_k_scales(p)));
        let third = load(p);
        for part in 0..2 {
            let bytes = load(p.add(32 + part * 32));
            for j in 0..4 {
                let value = _mm256_or_si256(right(bytes, 2 * j, 3), one_bit(third, part * 4 + j, 2));
                put(block, r, part * 128 + j * 32, _mm256_add_epi8(value, offset));
            }
        }
    }
}

/// The head of Q4_K and Q5_K.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn k_head(p: *const u8, block: &mut Block, r: usize) {
    // SAFETY: the caller's sixteen bytes.
    unsafe {
        (block.d[r], block.dmin[r]) = (half(p), half(p.add(2)));
        let (scales, mins) = scales_and_mins(p.add(4));
        put_twice(&mut block.scale[r], scales);
        put_twice(&mut block.min[r], mins);
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn q4_k(p: *const u8, block: &mut Block, r: usize) {
    // SAFETY: inside the block's 144 bytes.
    unsafe {
        k_head(p, block, r);
        for c in 0..4 {
            let bytes = load(p.add(16 + c * 32));
            put(block, r, c * 64, right(bytes, 0, 15));
            put(block, r, c * 64 + 32, right(bytes, 4, 15));
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn q5_k(p: *const u8, block: &mut Block, r: usize) {
    // SAFETY: inside the block's 176 bytes.
    unsafe {
        k_head(p, block, r);
        let fifth = load(p.add(16));
        for c in 0..4 {
            let bytes = load(p.add(48 + c * 32));
            for i in 0..2 {
                let value = _mm256_or_si256(right(bytes, 4 * i, 15), one_bit(fifth, 2 * c + i, 4));
                put(block, r, c * 64 + i * 32, value);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn q6_k(p: *const u8, block: &mut Block, r: usize) {
    // The stored value is 32 too large; 128 is what it is to be.
    let offset = _mm256_set1_epi8(96);
    // SAFETY: inside the block's 210 bytes.
    unsafe {
        block.d[r] = half(p.add(208));
        put16(&mut block.scale[r], _mm256_cvtepi8_epi16(_mm_loadu_si128(p.add(192).cast())));
        for part in 0..2 {
            let low = [load(p.add(part * 64)), load(p.add(part * 64 + 32))];
            let high = load(p.add(128 + part * 32));
            for j in 0..4 {
                let upper = _mm256_slli_epi16::<4>(right(high, 2 * j, 3));
                let value = _mm256_or_si256(right(low[j % 2], j / 2 * 4, 15), upper);
                put(block, r, part * 128 + j * 32, _mm256_add_epi8(value, offset));
            }
        }
    }
}

/// The type's table for looking up nibbles, 128 added.
#[inline]
#[target_feature(enable = "avx2")]
fn table_up(kind: QuantType) -> __m256i {
    _mm256_broadcastsi128_si256(_mm_xor_si128(table(kind), _mm_set1_epi8(-128)))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn iq4_xs(p: *const u8, block: &mut Block, r: usize) {
    let table = table_up(QuantType::IQ4_XS);
    // SAFETY: inside the block's 136 bytes.
    unsafe {
        block.d[r] = half(p);
        let eight = iq4_xs_scales(p);
        let eight = _mm_packs_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
        put_twice(&mut block.scale[r], eight);
        for c in 0..8 {
            put(block, r, c * 32, _mm256_shuffle_epi8(table, nibbles(p.add(8 + c * 16))));
        }
    }
}

/// The types with blocks of 32: a scale, a minimum with its sign turned where there is one, the values.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn wide32(kind: QuantType, p: *const u8, block: &mut Block, r: usize) {
    let up = |values, offset| _mm256_add_epi8(values, _mm256_set1_epi8(offset));
    // SAFETY: inside a block of the type.
    unsafe {
        block.d[r] = if kind == QuantType::MXFP4 {
            _mm256_cvtss_f32(scales(kind, _mm256_set1_epi32(i32::from(p.read()))))
        } else {
            half(p)
        };
        if kind.has_min() {
            block.dmin[r] = -half(p.add(2));
        }
        let values = match kind {
            QuantType::Q4_0 => up(nibbles(p.add(2)), 120),
            QuantType::Q4_1 => nibbles(p.add(4)),
            QuantType::Q5_0 => up(five_bits(load_u32(p.add(2)), nibbles(p.add(6))), 112),
            QuantType::Q5_1 => five_bits(load_u32(p.add(4)), nibbles(p.add(8))),
            QuantType::IQ4_NL => _mm256_shuffle_epi8(table_up(kind), nibbles(p.add(2))),
            QuantType::MXFP4 => _mm256_shuffle_epi8(table_up(kind), nibbles(p.add(1))),
            _ => _mm256_xor_si256(load(p.add(2)), _mm256_set1_epi8(-128)),
        };
        put(block, r, 0, values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::kernels::KernelSet;
    use crate::engine::kernels::panel::Rows;

    #[test]
    fn blocks_are_unpacked_as_the_reference_does() {
        if !KernelSet::Avx2.available() {
            return;
        }
        let mut state = 7u64;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let mut known = 0;
        for kind in QuantType::ALL.into_iter().filter(|kind| kind.block_len() > 1) {
            let data: Vec<u8> = (0..32 * kind.block_bytes()).map(|_| byte()).collect();
            let rows: Rows<'_> =
                std::array::from_fn(|r| &data[r * kind.block_bytes()..][..kind.block_bytes()]);
            let (mut fast, mut plain) = (Block::default(), Block::default());
            plain.fill(kind, &rows, 0, |_, _, _, _| false);
            // SAFETY: asked for above.
            fast.fill(kind, &rows, 0, |kind, raw, block, r| unsafe { unpack_row(kind, raw, block, r) });
            // SAFETY: asked for above.
            known += u32::from(unsafe { unpack_row(kind, rows[0], &mut fast, 0) });
            for r in 0..32 {
                let len = kind.block_len();
                assert_eq!(fast.q[r][..len], plain.q[r][..len], "{} row {r}", kind.name());
                let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                assert!(same(fast.d[r], plain.d[r]), "{} row {r}", kind.name());
                assert!(!kind.has_min() || same(fast.dmin[r], plain.dmin[r]), "{} row {r}", kind.name());
                if len == 256 {
                    assert_eq!(fast.scale[r], plain.scale[r], "{} row {r}", kind.name());
                    assert!(!kind.has_min() || fast.min[r] == plain.min[r], "{} row {r}", kind.name());
                }
            }
        }
        assert_eq!(known, 13, "all but the seven lattices");
    }
}
