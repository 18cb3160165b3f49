//! AVX2: the types with blocks of 32, a block to a register. Small unsigned weights multiply as stored, and what they
//! are too large by (`OFFSET`) is taken away from the sum; those of eight bits hand their sign to the activation.

use super::super::common::{five_bits, load_u32, nibbles, table};
use super::signed_products;
use crate::engine::quant::QuantType;
use std::arch::x86_64::*;

/// How a block of a type is multiplied.
pub trait Block32 {
    const KIND: QuantType;
    /// What the weights in the products are too large by.
    const OFFSET: i32;
    /// Products with 32 activations, added in pairs, as int16.
    ///
    /// # Safety
    /// Needs the features of `dot_rows`; `p` is at a block of the type.
    unsafe fn products(p: *const u8, y: __m256i) -> __m256i;
}

/// Nibbles looked up in the type's table.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn looked_up(kind: QuantType, p: *const u8) -> __m256i {
    // SAFETY: the caller's sixteen bytes.
    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table(kind)), unsafe { nibbles(p) })
}

macro_rules! block {
    ($name:ident, $kind:ident, $offset:literal, |$p:ident, $y:ident| $products:expr) => {
        pub struct $name;
        impl Block32 for $name {
            const KIND: QuantType = QuantType::$kind;
            const OFFSET: i32 = $offset;
            #[inline]
            #[target_feature(enable = "avx2,f16c")]
            unsafe fn products($p: *const u8, $y: __m256i) -> __m256i {
                // SAFETY: the type's packed values lie there in the block.
                unsafe { $products }
            }
        }
    };
}

block!(Q8_0, Q8_0, 0, |p, y| signed_products(_mm256_loadu_si256(p.add(2).cast()), y));
block!(Q4_0, Q4_0, 8, |p, y| _mm256_maddubs_epi16(nibbles(p.add(2)), y));
block!(Q4_1, Q4_1, 0, |p, y| _mm256_maddubs_epi16(nibbles(p.add(4)), y));
block!(Q5_0, Q5_0, 16, |p, y| _mm256_maddubs_epi16(five_bits(load_u32(p.add(2)), nibbles(p.add(6))), y));
block!(Q5_1, Q5_1, 0, |p, y| _mm256_maddubs_epi16(five_bits(load_u32(p.add(4)), nibbles(p.add(8))), y));
block!(Iq4Nl, IQ4_NL, 0, |p, y| signed_products(looked_up(Self::KIND, p.add(2)), y));
block!(Mxfp4, MXFP4, 0, |p, y| signed_products(looked_up(Self::KIND, p.add(1)), y));
