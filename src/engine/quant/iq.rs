//! The IQ types with blocks of 256 values, and the 32-wide IQ4_NL and MXFP4. Groups of 8 (or 4) values are indices into
//! the lattices of `tables`; IQ2 and IQ3 keep signs apart. Formats that scale by `0.5 + s` or add an eighth are written
//! with whole numbers here, and their power of two goes into `d`; both are exact.
use super::{Unpacked, half_at, tables};

/// A block of one scale and no minimum: `d` for the whole, then a scale per 16 values from `scale`.
#[inline(always)]
fn scaled(out: &mut Unpacked, d: f32, scale: impl Fn(usize) -> i16) {
    out.d = d;
    out.dmin = 0.0;
    out.min = [0; 16];
    for (group, to) in out.scale.iter_mut().enumerate() {
        *to = scale(group);
    }
}

/// Bit i % 8 of `signs` negates value i.
#[inline(always)]
fn negated<const N: usize>(grid: &[i8; N], signs: u8) -> [i8; N] {
    std::array::from_fn(|i| {
        let mask = -((signs >> (i % 8) & 1) as i8);
        (grid[i] ^ mask) - mask
    })
}

/// Eight signs stored as seven: their number is even, which gives the last.
#[inline(always)]
fn even_signs(seven: u32) -> u8 {
    let seven = (seven & 127) as u8;
    seven | (seven.count_ones() as u8 & 1) << 7
}

#[inline(always)]
fn u16_at<const N: usize>(block: &[u8; N], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

#[inline(always)]
fn u32_at<const N: usize>(block: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// Nibble `i` of the bytes from `at` on, lower half first.
#[inline(always)]
fn nibble<const N: usize>(block: &[u8; N], at: usize, i: usize) -> u8 {
    block[at + i / 2] >> (4 * (i % 2)) & 15
}

/// The scale `0.5 + s`, doubled.
#[inline(always)]
fn odd(s: impl Into<i16>) -> i16 {
    2 * s.into() + 1
}

#[inline(always)]
fn put<const N: usize>(out: &mut Unpacked, at: usize, values: [i8; N]) {
    out.q[at..at + N].copy_from_slice(&values);
}

/// d: f16, 8 x (4 indices: u8, then u32 of 4 x 7 signs and a scale of 4 bits)
pub(super) fn iq2_xxs(block: &[u8; 66], out: &mut Unpacked) {
    scaled(out, half_at(block, 0) / 8.0, |group| odd(block[2 + 8 * (group / 2) + 7] >> 4));
    for part in 0..8 {
        let signs = u32_at(block, 2 + 8 * part + 4);
        for j in 0..4 {
            let grid = &tables::IQ2_XXS[usize::from(block[2 + 8 * part + j])];
            put(out, 32 * part + 8 * j, negated(grid, even_signs(signs >> (7 * j))));
        }
    }
}

/// d: f16, 32 x u16 (index: 9 bits, 7 signs), 16 x scale: 4 bits
pub(super) fn iq2_xs(block: &[u8; 74], out: &mut Unpacked) {
    scaled(out, half_at(block, 0) / 8.0, |group| odd(nibble(block, 66, group)));
    for part in 0..32 {
        let packed = u16_at(block, 2 + 2 * part);
        let grid = &tables::IQ2_XS[usize::from(packed & 511)];
        put(out, 8 * part, negated(grid, even_signs(u32::from(packed >> 9))));
    }
}

/// d: f16, 32 x lower index: u8, 32 x signs: u8, 32 x upper index: 2 bits, 16 x scale: 4 bits
pub(super) fn iq2_s(block: &[u8; 82], out: &mut Unpacked) {
    scaled(out, half_at(block, 0) / 8.0, |group| odd(nibble(block, 74, group)));
    for part in 0..32 {
        let upper = usize::from(block[66 + part / 4] >> (2 * (part % 4)) & 3);
        let grid = &tables::IQ2_S[usize::from(block[2 + part]) | upper << 8];
        put(out, 8 * part, negated(grid, block[34 + part]));
    }
}

/// d: f16, 64 x index: u8, 8 x u32 of 4 x 7 signs and a scale of 4 bits
pub(super) fn iq3_xxs(block: &[u8; 98], out: &mut Unpacked) {
    scaled(out, half_at(block, 0) / 4.0, |group| odd(block[66 + 4 * (group / 2) + 3] >> 4));
    for part in 0..32 {
        let signs = even_signs(u32_at(block, 66 + 4 * (part / 4)) >> (7 * (part % 4)));
        let first = &tables::IQ3_XXS[usize::from(block[2 + 2 * part])];
        let second = &tables::IQ3_XXS[usize::from(block[2 + 2 * part + 1])];
        put(out, 8 * part, negated(first, signs));
        put(out, 8 * part + 4, negated(second, signs >> 4));
    }
}

/// d: f16, 64 x lower index: u8, 64 x upper index: 1 bit, 32 x signs: u8, 8 x scale: 4 bits
pub(super) fn iq3_s(block: &[u8; 110], out: &mut Unpacked) {
    scaled(out, half_at(block, 0), |group| odd(nibble(block, 106, group / 2)));
    for part in 0..64 {
        let upper = usize::from(block[66 + part / 8] >> (part % 8) & 1);
        let grid = &tables::IQ3_S[usize::from(block[2 + part]) | upper << 8];
        put(out, 4 * part, negated(grid, block[74 + part / 2] >> (4 * (part % 2))));
    }
}

/// IQ1 adds or subtracts an eighth from each value of a lattice of -1, 0 and 1; in eighths these are whole numbers.
#[inline(always)]
fn eighths(index: usize, minus: bool) -> [i8; 8] {
    let delta = if minus { -1 } else { 1 };
    // Both types have 11 bits of index; the mask says so to the compiler.
    tables::IQ1[index & 2047].map(|value| 8 * value + delta)
}

/// d: f16, 32 x lower index: u8, 8 x u16 (4 x upper index: 3 bits, scale: 3 bits, sign of the eighth)
pub(super) fn iq1_s(block: &[u8; 50], out: &mut Unpacked) {
    scaled(out, half_at(block, 0) / 8.0, |group| odd((u16_at(block, 34 + 2 * (group / 2)) >> 12 & 7) as u8));
    for part in 0..32 {
        let packed = usize::from(u16_at(block, 34 + 2 * (part / 4)));
        let upper = packed >> (3 * (part % 4)) & 7;
        put(out, 8 * part, eighths(usize::from(block[2 + part]) | upper << 8, packed & 0x8000 != 0));
    }
}

/// 32 x lower index: u8, 32 x (upper index: 3 bits, sign of the eighth), 4 x u16 (4 x scale: 3 bits, a nibble of d)
pub(super) fn iq1_m(block: &[u8; 56], out: &mut Unpacked) {
    let scales: [u16; 4] = std::array::from_fn(|i| u16_at(block, 48 + 2 * i));
    let d = scales[0] >> 12 | scales[1] >> 12 << 4 | scales[2] >> 12 << 8 | scales[3] >> 12 << 12;
    let d = half::f16::from_bits(d).to_f32();
    scaled(out, d / 8.0, |group| odd((scales[group / 4] >> (3 * (group % 4)) & 7) as u8));
    for part in 0..32 {
        let high = nibble(block, 32, part);
        let index = usize::from(block[part]) | usize::from(high & 7) << 8;
        put(out, 8 * part, eighths(index, high & 8 != 0));
    }
}

/// The nibbles of 16 bytes through a table: the lower ones first.
#[inline(always)]
fn looked_up<const N: usize>(block: &[u8; N], at: usize, table: &[i8; 16], out: &mut Unpacked, to: usize) {
    for l in 0..16 {
        out.q[to + l] = table[usize::from(block[at + l] & 15)];
        out.q[to + 16 + l] = table[usize::from(block[at + l] >> 4)];
    }
}

/// d: f16, 32 x index: 4 bits
pub(super) fn iq4_nl(block: &[u8; 18], out: &mut Unpacked) {
    scaled(out, half_at(block, 0), |_| 1);
    looked_up(block, 2, &tables::IQ4, out, 0);
}

/// d: f16, 8 x upper scale: 2 bits, 8 x lower scale: 4 bits, 256 x index: 4 bits; the scales are 32 too large
pub(super) fn iq4_xs(block: &[u8; 136], out: &mut Unpacked) {
    let upper = u16_at(block, 2);
    scaled(out, half_at(block, 0), |group| {
        let part = group / 2;
        i16::from(nibble(block, 4, part)) + ((upper >> (2 * part) & 3) << 4) as i16 - 32
    });
    for part in 0..8 {
        looked_up(block, 8 + 16 * part, &tables::IQ4, out, 32 * part);
    }
}

/// Exponent: u8 (a power of two, biased by 127), 32 x E2M1: 4 bits. The values are doubled, so the scale is halved.
pub(super) fn mxfp4(block: &[u8; 17], out: &mut Unpacked) {
    let exponent = u32::from(block[0]);
    // Half of 2^-127 and of 2^-126 are below the normal floats and have their bit in the fraction.
    let bits = if exponent < 2 { 0x0020_0000 << exponent } else { (exponent - 1) << 23 };
    scaled(out, f32::from_bits(bits), |_| 1);
    looked_up(block, 1, &tables::E2M1_DOUBLED, out, 0);
}
