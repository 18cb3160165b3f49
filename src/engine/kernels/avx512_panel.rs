//! A panel of unpacked weights times any number of tokens, with AVX-512 VNNI. Integer sums are exact, so their order is
//! free; the float steps are those of `scalar`, in its order, so the bits are the same. Six tokens share each load of
//! the weights, two registers of rows share each value of a token: that keeps both multipliers busy. Panels are filled by
//! way of blocks of bytes (`lay`), those of Q4_K and Q6_K in registers alone (`direct`).

#![allow(clippy::needless_range_loop)] // tiles of registers read best by number

mod direct;
mod lay;

use super::act::Activations;
use super::panel::{Panel, ROWS, Rows};
use super::unpack::unpack_row;
use crate::engine::quant::QuantType;
pub use direct::knows as unpacks_at_once;
use std::arch::x86_64::*;

/// Tokens of a tile: as many as leave their sums in registers.
const TOKENS: usize = 6;

/// What the products of a panel with one token are: sums of `ROWS` rows.
pub type Sums = [f32; ROWS];

/// Sums of a tile that do not fit the registers, on cache lines: each store of them is one line.
#[repr(align(64))]
struct Spilled<const T: usize>([Sums; T]);

impl<const T: usize> Spilled<T> {
    #[inline(always)]
    fn at(&mut self, t: usize, h: usize) -> *mut f32 {
        self.0[t][h * 16..].as_mut_ptr()
    }
}

/// Takes the products, token by token.
pub trait Sink {
    /// The products of token t come soon: its memory may be fetched.
    fn ahead(&self, t: usize);
    fn put(&mut self, t: usize, sums: &Sums);
}

/// Unpacks `rows` into `panel`.
///
/// # Safety
/// Needs AVX-512 F, BW, VL, DQ, VNNI and F16C.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c,bmi2")]
pub unsafe fn unpack(panel: &mut Panel, kind: QuantType, cols: usize, rows: &Rows<'_>) {
    if direct::knows(kind) {
        let blocks = cols / kind.block_len();
        // SAFETY: features as promised; the buffers are made for these rows.
        return unsafe { direct::unpack(kind, blocks, rows, &mut panel.buffers(kind, cols)) };
    }
    panel.unpack(
        kind,
        cols,
        rows,
        // SAFETY: features as promised; the block has the bytes of its kind.
        |kind, raw, block, r| unsafe { unpack_row(kind, raw, block, r) },
        // SAFETY: features as promised; sizes are checked inside.
        |rows, len, out| unsafe { lay::lay(rows, len, out) },
    );
}

/// Gives `sink` the products with every token of `tokens`.
///
/// # Safety
/// Needs the features of `unpack`; the panel was unpacked from rows as long as those of `act`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c,bmi2")]
pub unsafe fn matmul(panel: &Panel, act: &Activations, tokens: &[usize], sink: &mut impl Sink) {
    let Some(kind) = panel.kind else { return };
    assert!(act.cols == panel.blocks * panel.block_len);
    let mut first = 0;
    // SAFETY: as promised, and as asserted.
    unsafe {
        while tokens.len() - first >= TOKENS {
            // Seven and eight are two tiles of about the same size: a tile of one or two waits for its weights.
            let few = tokens.len() - first - TOKENS;
            if few == 1 || few == 2 {
                tile_of::<4>(panel, kind, act, &tokens[first..], first, sink);
                first += 4;
                break;
            }
            tile_of::<TOKENS>(panel, kind, act, &tokens[first..], first, sink);
            first += TOKENS;
        }
        let rest = &tokens[first..];
        match rest.len() {
            0 => {}
            1 => tile_of::<1>(panel, kind, act, rest, first, sink),
            2 => tile_of::<2>(panel, kind, act, rest, first, sink),
            3 => tile_of::<3>(panel, kind, act, rest, first, sink),
            4 => tile_of::<4>(panel, kind, act, rest, first, sink),
            _ => tile_of::<5>(panel, kind, act, rest, first, sink),
        }
    }
}

/// Rows of the tokens of a tile.
struct Tokens<const T: usize> {
    q: [*const i8; T],
    d: [*const f32; T],
    taken: [*const i32; T],
    /// Sums of the values of two groups, two bytes each.
    pairs: [*const i32; T],
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c,bmi2")]
unsafe fn tile_of<const T: usize>(
    panel: &Panel,
    kind: QuantType,
    act: &Activations,
    tokens: &[usize],
    first: usize,
    sink: &mut impl Sink,
) {
    // By hand: what a closure returns comes through memory, in pieces that a wider load cannot be served from, and then
    // waits until every result of the tile before is in the cache.
    let mut of = Tokens::<T> {
        q: [std::ptr::null(); T],
        d: [std::ptr::null(); T],
        taken: [std::ptr::null(); T],
        pairs: [std::ptr::null(); T],
    };
    for t in 0..T {
        let row = act.row(tokens[t], kind);
        of.q[t] = row.q.as_ptr();
        of.d[t] = row.d.as_ptr();
        of.taken[t] = row.taken.as_ptr();
        of.pairs[t] = if panel.groups == 8 { row.pairs.as_ptr() } else { row.sums.as_ptr().cast() };
    }
    // Once from afar, and once when a block is left: what came into the first cache before is gone by then, and stores
    // that wait for their lines leave the next tile no room to store.
    let ahead = || (first..first + T).for_each(|t| sink.ahead(t));
    ahead();
    let mut sums = Spilled([[0f32; ROWS]; T]);
    // SAFETY: the caller's promise.
    unsafe {
        match (panel.groups, panel.offset()) {
            (0, true) => tile_32::<T, true>(panel, &of, &mut sums, &ahead),
            (0, false) => tile_32::<T, false>(panel, &of, &mut sums, &ahead),
            (8, _) if kind == QuantType::Q4_K => tile_256::<T, 8, false, true>(panel, &of, &mut sums, &ahead),
            (8, _) => tile_256::<T, 8, false, false>(panel, &of, &mut sums, &ahead),
            (_, true) => tile_256::<T, 16, true, false>(panel, &of, &mut sums, &ahead),
            (_, false) => tile_256::<T, 16, false, false>(panel, &of, &mut sums, &ahead),
        }
    }
    for (t, sums) in sums.0.iter().enumerate() {
        sink.put(first + t, sums);
    }
}

/// Blocks of 256 with `G` scales each. `OFFSET`: the weights are 128 too large, and there are no minima. `FLOAT`: four
/// groups add up to less than 2^24, so their whole numbers are exact in floats, where scaling costs one instruction
/// instead of three; the two halves are rounded once, when they meet, as the whole number is that they stand for.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c,bmi2")]
unsafe fn tile_256<const T: usize, const G: usize, const OFFSET: bool, const FLOAT: bool>(
    panel: &Panel,
    of: &Tokens<T>,
    out: &mut Spilled<T>,
    ahead: &impl Fn(),
) {
    // Sums of the first half of a block.
    let mut half = Spilled([[0f32; ROWS]; T]);
    // SAFETY: every index stays inside block b of the panel and of the rows.
    unsafe {
        for b in 0..panel.blocks {
            if b + 1 == panel.blocks {
                ahead();
            }
            let q = panel.q.as_ptr::<u8>().add(b * 256 * ROWS);
            let scales = panel.scale.as_ptr::<i32>().add(b * G * ROWS);
            let mut sum = [[_mm512_setzero_si512(); 2]; T];
            let mut float = [[_mm512_setzero_ps(); 2]; T];
            for g in 0..G {
                let mut dot = [[_mm512_setzero_si512(); 2]; T];
                if OFFSET {
                    for t in 0..T {
                        dot[t] = [_mm512_set1_epi32(*of.taken[t].add(b * G + g)); 2];
                    }
                }
                for k in g * (64 / G)..(g + 1) * (64 / G) {
                    let low = _mm512_load_si512(q.add(k * 4 * ROWS).cast());
                    let high = _mm512_load_si512(q.add(k * 4 * ROWS + 64).cast());
                    for t in 0..T {
                        let y = of.q[t].add(b * 256 + k * 4).cast::<i32>().read_unaligned();
                        let y = _mm512_set1_epi32(y);
                        dot[t][0] = _mm512_dpbusd_epi32(dot[t][0], low, y);
                        dot[t][1] = _mm512_dpbusd_epi32(dot[t][1], high, y);
                    }
                }
                if FLOAT && g == G / 2 {
                    for t in 0..T {
                        (0..2).for_each(|h| _mm512_store_ps(half.at(t, h), float[t][h]));
                    }
                    float = [[_mm512_setzero_ps(); 2]; T];
                }
                for h in 0..2 {
                    let scale = _mm512_load_si512(scales.add(g * ROWS + h * 16).cast());
                    if FLOAT {
                        let scale = _mm512_cvtepi32_ps(scale);
                        for t in 0..T {
                            float[t][h] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[t][h]), scale, float[t][h]);
                        }
                        continue;
                    }
                    for t in 0..T {
                        sum[t][h] = _mm512_add_epi32(sum[t][h], _mm512_mullo_epi32(dot[t][h], scale));
                    }
                }
            }
            let mins = panel.min.as_ptr::<i16>().add(b * G * ROWS);
            for h in 0..2 {
                let d = _mm512_load_ps(panel.d.as_ptr::<f32>().add(b * ROWS + h * 16));
                let dmin = panel.dmin.as_ptr::<f32>().add(b * ROWS + h * 16);
                for t in 0..T {
                    let dy = _mm512_set1_ps(*of.d[t].add(b));
                    let sum = match FLOAT {
                        true => _mm512_add_ps(_mm512_load_ps(half.at(t, h)), float[t][h]),
                        false => _mm512_cvtepi32_ps(sum[t][h]),
                    };
                    let step = _mm512_mul_ps(_mm512_mul_ps(d, dy), sum);
                    let mut acc = _mm512_add_ps(_mm512_load_ps(out.at(t, h)), step);
                    if !OFFSET {
                        let mut min = _mm512_setzero_si512();
                        for p in 0..G / 2 {
                            let m = _mm512_load_si512(mins.add((p * ROWS + h * 16) * 2).cast());
                            let pair = of.pairs[t].add(b * (G / 2) + p).read_unaligned();
                            min = _mm512_dpwssd_epi32(min, m, _mm512_set1_epi32(pair));
                        }
                        let scale = _mm512_mul_ps(_mm512_load_ps(dmin), dy);
                        acc = _mm512_sub_ps(acc, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(min)));
                    }
                    _mm512_store_ps(out.at(t, h), acc);
                }
            }
        }
    }
}

/// Blocks of 32, one scale each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c,bmi2")]
unsafe fn tile_32<const T: usize, const OFFSET: bool>(
    panel: &Panel,
    of: &Tokens<T>,
    out: &mut Spilled<T>,
    ahead: &impl Fn(),
) {
    let mut acc = [[_mm512_setzero_ps(); 2]; T];
    // SAFETY: every index stays inside block b of the panel and of the rows.
    unsafe {
        for b in 0..panel.blocks {
            if b + 8 == panel.blocks {
                ahead();
            }
            let q = panel.q.as_ptr::<u8>().add(b * 32 * ROWS);
            let mut dot = [[_mm512_setzero_si512(); 2]; T];
            if OFFSET {
                for t in 0..T {
                    dot[t] = [_mm512_set1_epi32(*of.taken[t].add(b)); 2];
                }
            }
            for k in 0..8 {
                let low = _mm512_load_si512(q.add(k * 4 * ROWS).cast());
                let high = _mm512_load_si512(q.add(k * 4 * ROWS + 64).cast());
                for t in 0..T {
                    let y = of.q[t].add(b * 32 + k * 4).cast::<i32>().read_unaligned();
                    let y = _mm512_set1_epi32(y);
                    dot[t][0] = _mm512_dpbusd_epi32(dot[t][0], low, y);
                    dot[t][1] = _mm512_dpbusd_epi32(dot[t][1], high, y);
                }
            }
            for h in 0..2 {
                let d = _mm512_load_ps(panel.d.as_ptr::<f32>().add(b * ROWS + h * 16));
                for t in 0..T {
                    let dy = _mm512_set1_ps(*of.d[t].add(b));
                    let step = _mm512_mul_ps(_mm512_mul_ps(d, dy), _mm512_cvtepi32_ps(dot[t][h]));
                    acc[t][h] = _mm512_add_ps(acc[t][h], step);
                    if !OFFSET {
                        let dmin = _mm512_load_ps(panel.dmin.as_ptr::<f32>().add(b * ROWS + h * 16));
                        let sum = *of.pairs[t].cast::<i16>().add(b);
                        let sum = _mm512_set1_ps(f32::from(sum));
                        acc[t][h] = _mm512_sub_ps(acc[t][h], _mm512_mul_ps(_mm512_mul_ps(dmin, dy), sum));
                    }
                }
            }
        }
        for t in 0..T {
            for h in 0..2 {
                _mm512_store_ps(out.at(t, h), acc[t][h]);
            }
        }
    }
}

/// `act::quantize_row` in blocks of 256, a sum to sixteen values; the same bits.
///
/// # Safety
/// Needs the features of `unpack`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c,bmi2")]
pub unsafe fn quantize_256(x: &[f32], q: &mut [i8], d: &mut [f32], sums: &mut [i16]) {
    let blocks = x.len() / 256;
    assert!(q.len() >= blocks * 256 && d.len() >= blocks && sums.len() >= blocks * 16);
    let ones = _mm_set1_epi8(1);
    for b in 0..blocks {
        // SAFETY: sixteen registers of block b, inside `x` and `q`; sums as asserted.
        unsafe {
            let x = x.as_ptr().add(b * 256);
            let values: [__m512; 16] = std::array::from_fn(|i| _mm512_loadu_ps(x.add(i * 16)));
            let mut most = [_mm512_setzero_ps(); 4];
            for (i, value) in values.iter().enumerate() {
                // `max` gives the second operand where the first is no number: as `a > b` does.
                most[i % 4] = _mm512_max_ps(_mm512_abs_ps(*value), most[i % 4]);
            }
            let most = _mm512_max_ps(_mm512_max_ps(most[0], most[1]), _mm512_max_ps(most[2], most[3]));
            let largest = _mm512_reduce_max_ps(most);
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            *d.get_unchecked_mut(b) = largest / 127.0;
            let inverse = _mm512_set1_ps(inverse);
            let mut parts = [_mm_setzero_si128(); 16];
            for (i, value) in values.iter().enumerate() {
                let whole = _mm512_cvtps_epi32(_mm512_mul_ps(*value, inverse));
                let bytes = _mm512_cvtepi32_epi8(whole);
                _mm_storeu_si128(q.as_mut_ptr().add(b * 256 + i * 16).cast(), bytes);
                parts[i] = _mm_dpbusd_epi32(_mm_setzero_si128(), ones, bytes);
            }
            // Four lanes of each register, transposed, add up to the sums.
            let quad = |a: usize| {
                let four = &parts[a..a + 4];
                let (p, r) = (_mm_unpacklo_epi32(four[0], four[1]), _mm_unpackhi_epi32(four[0], four[1]));
                let (s, t) = (_mm_unpacklo_epi32(four[2], four[3]), _mm_unpackhi_epi32(four[2], four[3]));
                let (u, v) = (_mm_add_epi32(p, r), _mm_add_epi32(s, t));
                _mm_add_epi32(_mm_unpacklo_epi64(u, v), _mm_unpackhi_epi64(u, v))
            };
            let eight = |a: usize| _mm_packs_epi32(quad(a), quad(a + 4));
            let out = sums.as_mut_ptr().add(b * 16);
            _mm_storeu_si128(out.cast(), eight(0));
            _mm_storeu_si128(out.add(8).cast(), eight(8));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_quantised_as_the_plain_code_does() {
        if !crate::engine::kernels::KernelSet::Avx512Vnni.available() {
            return;
        }
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        for scale in [0.0, 1.0, 1e-30, 1e30] {
            let x: Vec<f32> = (0..768).map(|_| (next() as f32 / 1e6 - 8.0) * scale).collect();
            let fresh = || (vec![0i8; 768], vec![0f32; 3], vec![0i16; 48]);
            let (mut fast, mut plain) = (fresh(), fresh());
            // SAFETY: asked for above.
            unsafe { quantize_256(&x, &mut fast.0, &mut fast.1, &mut fast.2) };
            super::super::act::quantize_row::<256, 16>(&x, &mut plain.0, &mut plain.1, &mut plain.2);
            assert_eq!(fast, plain);
        }
    }
}
