//! The K-quants: blocks of 256 values in groups of 16 or 32, each group with a small integer scale (and, for Q2_K, Q4_K
//! and Q5_K, a minimum) under one or two half-precision floats. Where bits of a value lie apart, they lie so that a
//! run of 32 bytes gives a run of 32 values at each shift; the loops below follow those runs.
use super::{Unpacked, half_at};

/// Two bits per value: byte l of a run of 32 holds values l, l + 32, l + 64 and l + 96 of its 128.
#[inline(always)]
fn two_bits(qs: &[u8; 64], q: &mut [i8; 256]) {
    for half in 0..2 {
        for j in 0..4 {
            for l in 0..32 {
                q[128 * half + 32 * j + l] = (qs[32 * half + l] >> (2 * j) & 3) as i8;
            }
        }
    }
}

/// Four bits per value: byte l of a run of 32 holds values l and l + 32 of its 64.
#[inline(always)]
fn four_bits(qs: &[u8; 128], q: &mut [i8; 256]) {
    for pair in 0..4 {
        for l in 0..32 {
            q[64 * pair + l] = (qs[32 * pair + l] & 15) as i8;
            q[64 * pair + 32 + l] = (qs[32 * pair + l] >> 4) as i8;
        }
    }
}

/// The eight 6-bit scales and minima of Q4_K and Q5_K, each for 32 values. The first four of both stand whole in bytes
/// 0..8; of the last four the lower nibbles stand in bytes 8..12, the upper bits atop the first four.
#[inline(always)]
fn scales_and_mins(packed: &[u8; 12], out: &mut Unpacked) {
    for i in 0..4 {
        let (scale, min, low) = (packed[i], packed[4 + i], packed[8 + i]);
        for half in 0..2 {
            out.scale[2 * i + half] = i16::from(scale & 63);
            out.min[2 * i + half] = i16::from(min & 63);
            out.scale[8 + 2 * i + half] = i16::from(low & 15 | scale >> 6 << 4);
            out.min[8 + 2 * i + half] = i16::from(low >> 4 | min >> 6 << 4);
        }
    }
}

/// The `N` bytes of a block from `at` on.
#[inline(always)]
fn part<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&block[at..at + N]);
    out
}

/// 16 x (scale: 4 bits, min: 4 bits), q: 256 x 2 bits, d: f16, dmin: f16
pub(super) fn q2_k(block: &[u8; 84], out: &mut Unpacked) {
    out.d = half_at(block, 80);
    out.dmin = half_at(block, 82);
    for i in 0..16 {
        out.scale[i] = i16::from(block[i] & 15);
        out.min[i] = i16::from(block[i] >> 4);
    }
    two_bits(&part(block, 16), &mut out.q);
}

/// Third bits: 256 x 1 bit, lower bits: 256 x 2 bits, 16 scales of 6 bits, d: f16. A third bit of zero subtracts 4; the
/// scales are 32 too large.
pub(super) fn q3_k(block: &[u8; 110], out: &mut Unpacked) {
    out.d = half_at(block, 108);
    out.dmin = 0.0;
    out.min = [0; 16];
    let packed: [u8; 12] = part(block, 96);
    for i in 0..16 {
        let low = packed[i % 8] >> (4 * (i / 8)) & 15;
        let high = packed[8 + i % 4] >> (2 * (i / 4)) & 3;
        out.scale[i] = i16::from(low | high << 4) - 32;
    }
    two_bits(&part(block, 32), &mut out.q);
    let high: [u8; 32] = part(block, 0);
    for run in 0..8 {
        for l in 0..32 {
            out.q[32 * run + l] -= (!(high[l] >> run) & 1) as i8 * 4;
        }
    }
}

/// d: f16, dmin: f16, 8 x (scale: 6 bits, min: 6 bits), q: 256 x 4 bits
pub(super) fn q4_k(block: &[u8; 144], out: &mut Unpacked) {
    out.d = half_at(block, 0);
    out.dmin = half_at(block, 2);
    scales_and_mins(&part(block, 4), out);
    four_bits(&part(block, 16), &mut out.q);
}

/// d: f16, dmin: f16, 8 x (scale: 6 bits, min: 6 bits), fifth bits: 256 x 1 bit, lower bits: 256 x 4 bits
pub(super) fn q5_k(block: &[u8; 176], out: &mut Unpacked) {
    out.d = half_at(block, 0);
    out.dmin = half_at(block, 2);
    scales_and_mins(&part(block, 4), out);
    four_bits(&part(block, 48), &mut out.q);
    let high: [u8; 32] = part(block, 16);
    for run in 0..8 {
        for l in 0..32 {
            out.q[32 * run + l] |= ((high[l] >> run & 1) << 4) as i8;
        }
    }
}

/// Lower bits: 256 x 4 bits, upper bits: 256 x 2 bits, 16 x scale: i8, d: f16; each value 32 too large. Byte l of
/// a run of 64 nibble bytes holds values l and l + 64 of its 128.
pub(super) fn q6_k(block: &[u8; 210], out: &mut Unpacked) {
    out.d = half_at(block, 208);
    out.dmin = 0.0;
    out.min = [0; 16];
    for i in 0..16 {
        out.scale[i] = i16::from(block[192 + i] as i8);
    }
    let low: [u8; 128] = part(block, 0);
    let high: [u8; 64] = part(block, 128);
    for half in 0..2 {
        for j in 0..4 {
            for l in 0..32 {
                let nibble = low[64 * half + 32 * (j % 2) + l] >> (4 * (j / 2)) & 15;
                let upper = high[32 * half + l] >> (2 * j) & 3;
                out.q[128 * half + 32 * j + l] = (nibble | upper << 4) as i8 - 32;
            }
        }
    }
}
