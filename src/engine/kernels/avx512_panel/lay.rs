//! Rows of unpacked bytes laid out as the kernels read them, by transposing registers of numbers.

use super::super::panel::ROWS;
use std::arch::x86_64::*;

/// [row][k] becomes [k / 4][row][4]: four values are one number of 32 bits, so this is a transposition of those.
///
/// # Safety
/// Needs the features of `unpack`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2")]
pub unsafe fn lay(rows: &[[u8; 256]; ROWS], len: usize, out: &mut [u8]) {
    assert!(len <= 256 && out.len() == len * ROWS);
    // SAFETY: rows have 256 bytes; `out` has `len / 4` times 128, as asserted; the mask keeps to `len`.
    unsafe {
        for k in (0..len).step_by(64) {
            let wide = (len - k).min(64) / 4;
            let mask = (0xffffu32 >> (16 - wide)) as u16;
            for half in 0..2 {
                let mut r: [__m512i; 16] = std::array::from_fn(|i| {
                    _mm512_maskz_loadu_epi32(mask, rows[half * 16 + i].as_ptr().add(k).cast())
                });
                transpose16(&mut r);
                for (i, r) in r.iter().enumerate().take(wide) {
                    _mm512_storeu_si512(out.as_mut_ptr().add((k / 4 + i) * 128 + half * 64).cast(), *r);
                }
            }
        }
    }
}

/// Sixteen registers of sixteen numbers, transposed.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2")]
pub fn transpose16(r: &mut [__m512i; 16]) {
    let mut a = *r;
    for i in (0..16).step_by(2) {
        a[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    let mut b = a;
    for i in (0..16).step_by(4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    // b[4i + j], lane l: rows 4i to 4i + 3 of column 4l + j.
    for j in 0..4 {
        let even = _mm512_shuffle_i32x4::<0x88>(b[j], b[4 + j]);
        let odd = _mm512_shuffle_i32x4::<0xdd>(b[j], b[4 + j]);
        let even2 = _mm512_shuffle_i32x4::<0x88>(b[8 + j], b[12 + j]);
        let odd2 = _mm512_shuffle_i32x4::<0xdd>(b[8 + j], b[12 + j]);
        r[j] = _mm512_shuffle_i32x4::<0x88>(even, even2);
        r[8 + j] = _mm512_shuffle_i32x4::<0xdd>(even, even2);
        r[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd, odd2);
        r[12 + j] = _mm512_shuffle_i32x4::<0xdd>(odd, odd2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::kernels::panel::lay_plain;

    #[test]
    fn rows_are_laid_out_as_the_plain_code_does() {
        if !crate::engine::kernels::KernelSet::Avx512Vnni.available() {
            return;
        }
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        for len in [32, 256] {
            let rows: [[u8; 256]; ROWS] = std::array::from_fn(|_| std::array::from_fn(|_| next() as u8));
            let (mut fast, mut plain) = (vec![0; len * ROWS], vec![0; len * ROWS]);
            // SAFETY: asked for above.
            unsafe { lay(&rows, len, &mut fast) };
            lay_plain(&rows, len, &mut plain);
            assert_eq!(fast, plain);
        }
    }
}
