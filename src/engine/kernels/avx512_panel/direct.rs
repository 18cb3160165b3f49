//! The two types that models of four bits are made of, Q4_K and Q6_K, unpacked straight into a panel: four values of
//! sixteen rows are one register once packed bytes are transposed as numbers of 32 bits, and are taken apart there. No
//! byte goes through memory on the way, which is what small batches wait for (a draft, a few versions at once).

use super::super::panel::{Buffers, ROWS, Rows};
use super::lay::transpose16;
use crate::engine::quant::QuantType;
use std::arch::x86_64::*;

/// What a row that is not there consists of.
static NOTHING: [u8; 256] = [0; 256];

/// Whether `unpack` knows the type.
pub fn knows(kind: QuantType) -> bool {
    matches!(kind, QuantType::Q4_K | QuantType::Q6_K)
}

/// Unpacks `blocks` blocks of each row; a row that is not there counts as zeros.
///
/// # Safety
/// Needs the features; `knows(kind)`; the rows that are there have `blocks` blocks, `to` has room for as many.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,f16c")]
pub unsafe fn unpack(kind: QuantType, blocks: usize, rows: &Rows<'_>, to: &mut Buffers<'_>) {
    let bytes = kind.block_bytes();
    let row_bytes = blocks * bytes;
    // Where the next panel begins: its bytes are asked for while this one is made and used.
    let together = rows[16].as_ptr() == rows[15].as_ptr().wrapping_add(row_bytes);
    let next = if together { ROWS * row_bytes } else { ROWS / 2 * row_bytes };
    for half in 0..2 {
        let mut at = [NOTHING.as_ptr(); 16];
        let mut step = [0; 16];
        for i in 0..16 {
            let row = rows[half * 16 + i];
            if !row.is_empty() {
                assert!(row.len() >= row_bytes);
                (at[i], step[i]) = (row.as_ptr(), bytes);
            }
        }
        for b in 0..blocks {
            for i in 0..16 {
                for line in (0..bytes).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T1>(at[i].wrapping_add(next + line).cast());
                }
            }
            // SAFETY: as promised; the places are those of block b and of this half.
            unsafe {
                match kind {
                    QuantType::Q4_K => q4_k(&at, to, b, half),
                    _ => q6_k(&at, to, b, half),
                }
            }
            for i in 0..16 {
                at[i] = at[i].wrapping_add(step[i]);
            }
        }
    }
}

/// Where the panel has what block `b` and one half of the rows are made into.
struct Place {
    q: *mut u8,
    scale: *mut i32,
    min: *mut i32,
    d: *mut f32,
    dmin: *mut f32,
}

impl Place {
    #[inline(always)]
    fn of(to: &mut Buffers<'_>, b: usize, groups: usize, half: usize) -> Self {
        let at = half * 16;
        assert!(to.q.len() >= (b + 1) * 256 * ROWS && to.scale.len() >= (b + 1) * groups * ROWS);
        assert!(to.d.len() >= (b + 1) * ROWS && to.dmin.len() >= (b + 1) * ROWS);
        assert!(to.min.is_empty() || to.min.len() >= (b + 1) * groups * ROWS);
        Self {
            q: to.q[b * 256 * ROWS + at * 4..].as_mut_ptr(),
            scale: to.scale[b * groups * ROWS + at..].as_mut_ptr(),
            // A pair of minima is as wide as one scale.
            min: to.min.as_mut_ptr().cast::<i32>().wrapping_add(b * groups / 2 * ROWS + at),
            d: to.d[b * ROWS + at..].as_mut_ptr(),
            dmin: to.dmin[b * ROWS + at..].as_mut_ptr(),
        }
    }

    /// Values k to k + 3 of the sixteen rows.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn put(&self, k: usize, values: __m512i) {
        // SAFETY: the caller's block.
        unsafe { _mm512_storeu_si512(self.q.add(k / 4 * 4 * ROWS).cast(), values) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn put_scale(&self, group: usize, scales: __m512i) {
        // SAFETY: the caller's block.
        unsafe { _mm512_storeu_si512(self.scale.add(group * ROWS).cast(), scales) }
    }
}

/// Sixteen bytes of each of sixteen rows, as four numbers: register j holds number j of every row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn four_words(at: &[*const u8; 16], offset: usize) -> [__m512i; 4] {
    // SAFETY: the caller's bytes.
    unsafe {
        let load = |row: usize| _mm_loadu_si128(at[row].add(offset).cast());
        let mut by_four = [_mm512_setzero_si512(); 4];
        for i in 0..4 {
            let v = _mm512_castsi128_si512(load(i));
            let v = _mm512_inserti32x4::<1>(v, load(4 + i));
            let v = _mm512_inserti32x4::<2>(v, load(8 + i));
            by_four[i] = _mm512_inserti32x4::<3>(v, load(12 + i));
        }
        let [a, b, c, d] = by_four;
        let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
        let (ab2, cd2) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
        [
            _mm512_unpacklo_epi64(ab, cd),
            _mm512_unpackhi_epi64(ab, cd),
            _mm512_unpacklo_epi64(ab2, cd2),
            _mm512_unpackhi_epi64(ab2, cd2),
        ]
    }
}

/// Sixty-four bytes of each row, as sixteen numbers: register j holds number j of every row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn sixteen_words(at: &[*const u8; 16], offset: usize) -> [__m512i; 16] {
    let mut words = [_mm512_setzero_si512(); 16];
    for (word, row) in words.iter_mut().zip(at) {
        // SAFETY: the caller's bytes.
        *word = unsafe { _mm512_loadu_si512(row.add(offset).cast()) };
    }
    transpose16(&mut words);
    words
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
fn halves(words: __m512i) -> __m512 {
    _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,f16c")]
unsafe fn q4_k(at: &[*const u8; 16], to: &mut Buffers<'_>, b: usize, half: usize) {
    let place = Place::of(to, b, 8, half);
    let (low4, low6, low2) = (_mm512_set1_epi8(15), _mm512_set1_epi8(63), _mm512_set1_epi8(3));
    // SAFETY: inside the block's 144 bytes, and the caller's place.
    unsafe {
        let [d, u0, u1, u2] = four_words(at, 0);
        _mm512_storeu_ps(place.d, halves(d));
        _mm512_storeu_ps(place.dmin, halves(_mm512_srli_epi32::<16>(d)));
        // The upper two bits of the first eight are the upper ones of the last eight.
        let upper = |u| _mm512_slli_epi32::<4>(_mm512_and_si512(_mm512_srli_epi32::<6>(u), low2));
        let scales = [_mm512_and_si512(u0, low6), _mm512_or_si512(_mm512_and_si512(u2, low4), upper(u0))];
        let mins = [
            _mm512_and_si512(u1, low6),
            _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32::<4>(u2), low4), upper(u1)),
        ];
        let byte = _mm512_set1_epi32(255);
        for (i, (scales, mins)) in scales.into_iter().zip(mins).enumerate() {
            place.put_scale(4 * i, _mm512_and_si512(scales, byte));
            place.put_scale(4 * i + 1, _mm512_and_si512(_mm512_srli_epi32::<8>(scales), byte));
            place.put_scale(4 * i + 2, _mm512_and_si512(_mm512_srli_epi32::<16>(scales), byte));
            place.put_scale(4 * i + 3, _mm512_srli_epi32::<24>(scales));
            // Bytes 0 and 1, and 2 and 3, each as sixteen bits.
            let pairs = [
                _mm512_or_si512(
                    _mm512_and_si512(mins, byte),
                    _mm512_slli_epi32::<8>(_mm512_and_si512(mins, _mm512_set1_epi32(0xff00))),
                ),
                _mm512_or_si512(
                    _mm512_and_si512(_mm512_srli_epi32::<16>(mins), byte),
                    _mm512_slli_epi32::<16>(_mm512_srli_epi32::<24>(mins)),
                ),
            ];
            for (j, pair) in pairs.into_iter().enumerate() {
                _mm512_storeu_si512(place.min.add((2 * i + j) * ROWS).cast(), pair);
            }
        }
        for c in 0..2 {
            for (i, word) in sixteen_words(at, 16 + c * 64).into_iter().enumerate() {
                let k = (c * 2 + i / 8) * 64 + i % 8 * 4;
                place.put(k, _mm512_and_si512(word, low4));
                place.put(k + 32, _mm512_and_si512(_mm512_srli_epi32::<4>(word), low4));
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,f16c")]
unsafe fn q6_k(at: &[*const u8; 16], to: &mut Buffers<'_>, b: usize, half: usize) {
    let place = Place::of(to, b, 16, half);
    let (low4, high2) = (_mm512_set1_epi8(15), _mm512_set1_epi8(0x30));
    // The stored value is 32 too large; 128 is what it is to be.
    let offset = _mm512_set1_epi8(96);
    // SAFETY: inside the block's 210 bytes, and the caller's place.
    unsafe {
        let mut d = [0u16; 16];
        for (d, row) in d.iter_mut().zip(at) {
            *d = row.add(208).cast::<u16>().read_unaligned();
        }
        _mm512_storeu_ps(place.d, _mm512_cvtph_ps(_mm256_loadu_si256(d.as_ptr().cast())));
        _mm512_storeu_ps(place.dmin, _mm512_setzero_ps());
        for (i, word) in four_words(at, 192).into_iter().enumerate() {
            place.put_scale(4 * i, _mm512_srai_epi32::<24>(_mm512_slli_epi32::<24>(word)));
            place.put_scale(4 * i + 1, _mm512_srai_epi32::<24>(_mm512_slli_epi32::<16>(word)));
            place.put_scale(4 * i + 2, _mm512_srai_epi32::<24>(_mm512_slli_epi32::<8>(word)));
            place.put_scale(4 * i + 3, _mm512_srai_epi32::<24>(word));
        }
        let upper = sixteen_words(at, 128);
        for part in 0..2 {
            let lower = sixteen_words(at, part * 64);
            for i in 0..8 {
                let (first, second, high) = (lower[i], lower[8 + i], upper[part * 8 + i]);
                let join = |low, high| {
                    let value = _mm512_or_si512(_mm512_and_si512(low, low4), _mm512_and_si512(high, high2));
                    _mm512_add_epi8(value, offset)
                };
                let k = part * 128 + i * 4;
                place.put(k, join(first, _mm512_slli_epi32::<4>(high)));
                place.put(k + 32, join(second, _mm512_slli_epi32::<2>(high)));
                place.put(k + 64, join(_mm512_srli_epi32::<4>(first), high));
                place.put(k + 96, join(_mm512_srli_epi32::<4>(second), _mm512_srli_epi32::<2>(high)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::panel::{Panel, lay_plain};
    use super::*;

    #[test]
    fn a_panel_is_what_the_plain_code_makes_of_it() {
        if !crate::engine::kernels::KernelSet::Avx512Vnni.available() {
            return;
        }
        let mut state = 7u64;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        for kind in [QuantType::Q4_K, QuantType::Q6_K] {
            for there in [32, 20, 1] {
                let bytes = 3 * kind.block_bytes();
                let data: Vec<u8> = (0..ROWS * bytes).map(|_| byte()).collect();
                let rows: Rows<'_> =
                    std::array::from_fn(|r| if r < there { &data[r * bytes..][..bytes] } else { &[] });
                let (mut fast, mut plain) = (Panel::default(), Panel::default());
                plain.unpack(kind, 768, &rows, |_, _, _, _| false, lay_plain);
                // SAFETY: asked for above.
                unsafe { unpack(kind, 3, &rows, &mut fast.buffers(kind, 768)) };
                let (fast, plain) = (fast.buffers(kind, 768), plain.buffers(kind, 768));
                let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                // What a row that is not there holds is multiplied by a scale of zero.
                let is_there = |at: usize, wide: usize| at / wide % ROWS < there;
                assert!((0..fast.q.len()).all(|i| !is_there(i, 4) || fast.q[i] == plain.q[i]));
                assert!((0..fast.scale.len()).all(|i| !is_there(i, 1) || fast.scale[i] == plain.scale[i]));
                assert!((0..fast.min.len()).all(|i| !is_there(i, 2) || fast.min[i] == plain.min[i]));
                let numbers = |values: &[f32]| {
                    let there = values.iter().enumerate().filter(|(i, _)| is_there(*i, 1));
                    bits(&there.map(|(_, v)| if v.is_nan() { 0.0 } else { *v }).collect::<Vec<_>>())
                };
                assert_eq!(numbers(fast.d), numbers(plain.d));
                assert!(fast.d.iter().enumerate().all(|(i, d)| is_there(i, 1) || *d == 0.0));
                if kind.has_min() {
                    assert_eq!(numbers(fast.dmin), numbers(plain.dmin));
                }
            }
        }
    }
}
