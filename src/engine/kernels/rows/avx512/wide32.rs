//! AVX-512: the types with blocks of 32, two blocks to a register. The dot product instruction takes unsigned weights,
//! so those of signed types are shifted up (`OFFSET`), and the sum of the activations is taken away that many times.

use super::super::common::{load_u32, table};
use crate::engine::quant::QuantType;
use std::arch::x86_64::*;

/// How two blocks of a type become a register of unsigned bytes.
pub trait Block32 {
    const KIND: QuantType;
    /// What the bytes are too large by.
    const OFFSET: i32;
    /// # Safety
    /// Needs the features of `dot_rows`; `a` and `b` are at blocks of the type.
    unsafe fn values(a: *const u8, b: *const u8) -> __m512i;
}

/// The nibbles of sixteen bytes and of another sixteen, of each the lower ones first.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
unsafe fn nibbles(a: *const u8, b: *const u8) -> __m512i {
    // SAFETY: the caller's sixteen bytes, twice.
    let (a, b) = unsafe { (_mm_loadu_si128(a.cast()), _mm_loadu_si128(b.cast())) };
    let both = _mm512_castsi256_si512(_mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b));
    let twice = _mm512_permutexvar_epi64(_mm512_set_epi64(3, 2, 3, 2, 1, 0, 1, 0), both);
    let moved = _mm512_srlv_epi64(twice, _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0));
    _mm512_and_si512(moved, _mm512_set1_epi8(15))
}

/// Nibbles with a fifth bit each: bit i of the four bytes before the nibbles belongs to value i.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
unsafe fn five_bits(a: *const u8, b: *const u8) -> __m512i {
    // SAFETY: the caller's twenty bytes, twice.
    let (fifth, low) =
        unsafe { (u64::from(load_u32(a)) | u64::from(load_u32(b)) << 32, nibbles(a.add(4), b.add(4))) };
    _mm512_mask_add_epi8(low, fifth, low, _mm512_set1_epi8(16))
}

/// Nibbles looked up in the type's table, 128 added.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
unsafe fn looked_up(kind: QuantType, a: *const u8, b: *const u8) -> __m512i {
    let table = _mm512_broadcast_i32x4(_mm_xor_si128(table(kind), _mm_set1_epi8(-128)));
    // SAFETY: the caller's sixteen bytes, twice.
    _mm512_shuffle_epi8(table, unsafe { nibbles(a, b) })
}

pub struct Q8_0;
impl Block32 for Q8_0 {
    const KIND: QuantType = QuantType::Q8_0;
    const OFFSET: i32 = 128;
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
    unsafe fn values(a: *const u8, b: *const u8) -> __m512i {
        // SAFETY: 32 bytes behind the scale of each block.
        let (a, b) = unsafe { (_mm256_loadu_si256(a.add(2).cast()), _mm256_loadu_si256(b.add(2).cast())) };
        _mm512_xor_si512(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b), _mm512_set1_epi8(-128))
    }
}

macro_rules! packed {
    ($name:ident, $kind:ident, $offset:literal, |$a:ident, $b:ident| $values:expr) => {
        pub struct $name;
        impl Block32 for $name {
            const KIND: QuantType = QuantType::$kind;
            const OFFSET: i32 = $offset;
            #[inline]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c")]
            unsafe fn values($a: *const u8, $b: *const u8) -> __m512i {
                // SAFETY: the type's packed values lie there in each block.
                unsafe { $values }
            }
        }
    };
}

packed!(Q4_0, Q4_0, 8, |a, b| nibbles(a.add(2), b.add(2)));
packed!(Q4_1, Q4_1, 0, |a, b| nibbles(a.add(4), b.add(4)));
packed!(Q5_0, Q5_0, 16, |a, b| five_bits(a.add(2), b.add(2)));
packed!(Q5_1, Q5_1, 0, |a, b| five_bits(a.add(4), b.add(4)));
packed!(Iq4Nl, IQ4_NL, 128, |a, b| looked_up(Self::KIND, a.add(2), b.add(2)));
packed!(Mxfp4, MXFP4, 128, |a, b| looked_up(Self::KIND, a.add(1), b.add(1)));
