//! Types with blocks of 32 values and one scale: Q8_0, Q4_0, Q4_1, Q5_0, Q5_1. The lower nibbles of a block are its
//! first 16 values and the upper ones the last 16. Only the first 32 `q` and two groups of an `Unpacked` are written.
use super::{Unpacked, half_at};

/// A scale and no minimum.
#[inline(always)]
fn plain(out: &mut Unpacked, d: f32) {
    out.d = d;
    out.dmin = 0.0;
    out.scale[..2].fill(1);
    out.min[..2].fill(0);
}

/// `value = d * q + m`: the minimum is subtracted, so it is -m.
#[inline(always)]
fn with_min(out: &mut Unpacked, d: f32, m: f32) {
    out.d = d;
    out.dmin = -m;
    out.scale[..2].fill(1);
    out.min[..2].fill(1);
}

#[inline(always)]
fn nibbles(qs: &[u8], out: &mut Unpacked, offset: i8) {
    for i in 0..16 {
        out.q[i] = (qs[i] & 15) as i8 - offset;
        out.q[16 + i] = (qs[i] >> 4) as i8 - offset;
    }
}

/// Nibbles with a fifth bit each: bit i of `high` belongs to value i.
#[inline(always)]
fn five_bits(high: &[u8], qs: &[u8], out: &mut Unpacked, offset: i8) {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    for i in 0..16 {
        let (first, second) = ((high >> i & 1) as u8, (high >> (i + 16) & 1) as u8);
        out.q[i] = (qs[i] & 15 | first << 4) as i8 - offset;
        out.q[16 + i] = (qs[i] >> 4 | second << 4) as i8 - offset;
    }
}

/// d: f16, q: 32 x i8
pub(super) fn q8_0(block: &[u8; 34], out: &mut Unpacked) {
    plain(out, half_at(block, 0));
    for i in 0..32 {
        out.q[i] = block[2 + i] as i8;
    }
}

/// d: f16, q: 16 bytes of two nibbles, each 8 too large
pub(super) fn q4_0(block: &[u8; 18], out: &mut Unpacked) {
    plain(out, half_at(block, 0));
    nibbles(&block[2..18], out, 8);
}

/// d: f16, m: f16, q: 16 bytes of two nibbles
pub(super) fn q4_1(block: &[u8; 20], out: &mut Unpacked) {
    with_min(out, half_at(block, 0), half_at(block, 2));
    nibbles(&block[4..20], out, 0);
}

/// d: f16, fifth bits: u32, nibbles: 16 bytes; each value 16 too large
pub(super) fn q5_0(block: &[u8; 22], out: &mut Unpacked) {
    plain(out, half_at(block, 0));
    five_bits(&block[2..6], &block[6..22], out, 16);
}

/// d: f16, m: f16, fifth bits: u32, nibbles: 16 bytes
pub(super) fn q5_1(block: &[u8; 24], out: &mut Unpacked) {
    with_min(out, half_at(block, 0), half_at(block, 2));
    five_bits(&block[4..8], &block[8..24], out, 0);
}
