//! Rows of floats times a token: converted in registers straight from the file, in sixteen lanes by k mod 16 and one
//! tree, multiplication and addition apart, as `scalar::dot_f32` states.

use super::super::KernelSet;
use super::super::scalar::tree16;
use super::common::ahead;
use crate::engine::quant::QuantType;
use std::arch::x86_64::*;

/// How sixteen or eight stored values become floats.
trait Stored {
    const KIND: QuantType;
    /// # Safety
    /// Needs AVX-512 F; sixteen values are at `p`.
    unsafe fn sixteen(p: *const u8) -> __m512;
    /// # Safety
    /// Needs AVX2 and F16C; eight values are at `p`.
    unsafe fn eight(p: *const u8) -> __m256;
}

struct F32;
impl Stored for F32 {
    const KIND: QuantType = QuantType::F32;
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn sixteen(p: *const u8) -> __m512 {
        // SAFETY: the caller's values.
        unsafe { _mm512_loadu_ps(p.cast()) }
    }
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn eight(p: *const u8) -> __m256 {
        // SAFETY: the caller's values.
        unsafe { _mm256_loadu_ps(p.cast()) }
    }
}

struct F16;
impl Stored for F16 {
    const KIND: QuantType = QuantType::F16;
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn sixteen(p: *const u8) -> __m512 {
        // SAFETY: the caller's values.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(p.cast()) })
    }
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn eight(p: *const u8) -> __m256 {
        // SAFETY: the caller's values.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(p.cast()) })
    }
}

/// The upper halves of F32.
struct BF16;
impl Stored for BF16 {
    const KIND: QuantType = QuantType::BF16;
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn sixteen(p: *const u8) -> __m512 {
        // SAFETY: the caller's values.
        let wide = _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(p.cast()) });
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
    }
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn eight(p: *const u8) -> __m256 {
        // SAFETY: the caller's values.
        let wide = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(p.cast()) });
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
    }
}

/// sum(row * x) of a float type (F32, F16 or BF16).
///
/// # Safety
/// The machine has the set, and it is AVX2 or AVX-512.
pub unsafe fn dot_float(set: KernelSet, kind: QuantType, row: &[u8], x: &[f32]) -> f32 {
    assert!(row.len() == x.len() * kind.block_bytes());
    let mut lanes = [0f32; 16];
    // SAFETY: the row holds as many values as `x`; the rest as promised.
    unsafe {
        match (set, kind) {
            (KernelSet::Avx512Vnni, QuantType::F16) => avx512::<F16>(row, x, &mut lanes),
            (KernelSet::Avx512Vnni, QuantType::BF16) => avx512::<BF16>(row, x, &mut lanes),
            (KernelSet::Avx512Vnni, _) => avx512::<F32>(row, x, &mut lanes),
            (_, QuantType::F16) => avx2::<F16>(row, x, &mut lanes),
            (_, QuantType::BF16) => avx2::<BF16>(row, x, &mut lanes),
            (..) => avx2::<F32>(row, x, &mut lanes),
        }
    }
    let (_, x) = x.as_chunks::<16>();
    if !x.is_empty() {
        let mut w = [0f32; 16];
        kind.dequantize(&row[row.len() - x.len() * kind.block_bytes()..], &mut w[..x.len()]);
        for (lane, (w, x)) in w.iter().zip(x).enumerate() {
            lanes[lane] += w * x;
        }
    }
    tree16(&lanes)
}

/// The values of a row of a float type as F32.
///
/// # Safety
/// Needs AVX2 and F16C.
pub unsafe fn widen(kind: QuantType, row: &[u8], out: &mut [f32]) {
    assert!(row.len() == out.len() * kind.block_bytes());
    // SAFETY: the row holds as many values as `out`; the rest as promised.
    unsafe {
        match kind {
            QuantType::F16 => widen_eights::<F16>(row, out),
            QuantType::BF16 => widen_eights::<BF16>(row, out),
            _ => widen_eights::<F32>(row, out),
        }
    }
    let tail = out.len() % 8;
    let (from, to) = (row.len() - tail * kind.block_bytes(), out.len() - tail);
    kind.dequantize(&row[from..], &mut out[to..]);
}

#[target_feature(enable = "avx2,f16c")]
unsafe fn widen_eights<S: Stored>(row: &[u8], out: &mut [f32]) {
    let bytes = 8 * S::KIND.block_bytes();
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        // SAFETY: eight values of both.
        unsafe {
            let p = row.as_ptr().add(i * bytes);
            ahead(p, bytes);
            _mm256_storeu_ps(out.as_mut_ptr(), S::eight(p));
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn avx512<S: Stored>(row: &[u8], x: &[f32], lanes: &mut [f32; 16]) {
    let bytes = 16 * S::KIND.block_bytes();
    let mut acc = _mm512_setzero_ps();
    for i in 0..x.len() / 16 {
        // SAFETY: sixteen values of both.
        unsafe {
            let p = row.as_ptr().add(i * bytes);
            ahead(p, bytes);
            let x = _mm512_loadu_ps(x.as_ptr().add(i * 16));
            acc = _mm512_add_ps(acc, _mm512_mul_ps(S::sixteen(p), x));
        }
    }
    // SAFETY: sixteen floats.
    unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), acc) };
}

#[target_feature(enable = "avx2,f16c")]
unsafe fn avx2<S: Stored>(row: &[u8], x: &[f32], lanes: &mut [f32; 16]) {
    let bytes = 16 * S::KIND.block_bytes();
    let mut acc = [_mm256_setzero_ps(); 2];
    for i in 0..x.len() / 16 {
        // SAFETY: sixteen values of both.
        unsafe {
            let p = row.as_ptr().add(i * bytes);
            ahead(p, bytes);
            for (half, acc) in acc.iter_mut().enumerate() {
                let x = _mm256_loadu_ps(x.as_ptr().add(i * 16 + half * 8));
                *acc = _mm256_add_ps(*acc, _mm256_mul_ps(S::eight(p.add(half * bytes / 2)), x));
            }
        }
    }
    // SAFETY: eight floats, twice.
    unsafe {
        _mm256_storeu_ps(lanes.as_mut_ptr(), acc[0]);
        _mm256_storeu_ps(lanes.as_mut_ptr().add(8), acc[1]);
    }
}
