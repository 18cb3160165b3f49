//! How int8 keys and values lie: groups of sixteen positions, an f16 scale to 32 values of a position (the precision of
//! q8_0), in the order that attention multiplies them, so that nothing is moved about when they are read.
//!
//! A group of keys: u8 [dim / 4][position 16][4], the value plus 128, then f16 [dim / 32][position 16].
//! A group of values: i8 [pair of positions 8][dim][2], then f16 [dim / 32][position 16].
//!
//! Keys may have much in common (the bias of Qwen2 is a hundred times what tells them apart): each block of the cache
//! has, after its groups of keys, f32 [dim], which is taken from a key before it is quantised. A query meets it once for
//! all keys of the block. Who knows what keys have in common is the caller.

use half::f16;

/// Positions of a group.
pub const GROUP: usize = 16;
/// Values that share a scale.
pub const BLOCK: usize = 32;

/// Bytes of a group of keys, or of values.
pub const fn group_bytes(dim: usize) -> usize {
    GROUP * (dim + dim / BLOCK * 2)
}

/// Bytes of what the keys of a block have in common.
pub const fn common_bytes(dim: usize) -> usize {
    dim * 4
}

/// Keeps what the keys of a block are to have in common: zeros where nothing is known.
pub fn store_common(place: &mut [u8], common: Option<&[f32]>) {
    for (i, out) in place.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        *out = common.map_or(0.0, |common| common[i]).to_le_bytes();
    }
}

/// Dimension `i` of what keys have in common, of which values have nothing.
fn common_at(common: &[u8], i: usize) -> f32 {
    common.as_chunks::<4>().0.get(i).map_or(0.0, |x| f32::from_le_bytes(*x))
}

fn place(value: bool, dim: usize, slot: usize, i: usize) -> usize {
    if value { (slot / 2 * dim + i) * 2 + slot % 2 } else { (i / 4 * GROUP + slot) * 4 + i % 4 }
}

fn scale_at(dim: usize, slot: usize, block: usize) -> usize {
    GROUP * dim + (block * GROUP + slot) * 2
}

/// The sign bit of a stored key is turned: what is read is the value plus 128.
fn flip(value: bool) -> u8 {
    if value { 0 } else { 0x80 }
}

/// Stores a key (`value` false) or value as position `slot` of its group; `common`: what keys of the block have in common.
pub fn store(group: &mut [u8], value: bool, slot: usize, common: &[u8], row: &[f32]) {
    let dim = row.len();
    for (block, x) in row.as_chunks::<BLOCK>().0.iter().enumerate() {
        let x: [f32; BLOCK] = std::array::from_fn(|i| x[i] - common_at(common, block * BLOCK + i));
        let largest = x.iter().fold(0f32, |a, x| a.max(x.abs()));
        let d = f16::from_f32(largest / 127.0);
        let inverse = if d.to_f32() > 0.0 { 1.0 / d.to_f32() } else { 0.0 };
        let at = scale_at(dim, slot, block);
        group[at..at + 2].copy_from_slice(&d.to_le_bytes());
        for (i, x) in x.iter().enumerate() {
            let q = (x * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
            group[place(value, dim, slot, block * BLOCK + i)] = q as u8 ^ flip(value);
        }
    }
}

/// The scale of block `block` of position `slot`.
pub fn scale(group: &[u8], dim: usize, slot: usize, block: usize) -> f32 {
    let at = scale_at(dim, slot, block);
    f16::from_le_bytes([group[at], group[at + 1]]).to_f32()
}

/// The stored whole number of dimension `i` at position `slot`.
pub fn whole(group: &[u8], value: bool, dim: usize, slot: usize, i: usize) -> i8 {
    (group[place(value, dim, slot, i)] ^ flip(value)) as i8
}

/// Decodes position `slot` of a group.
pub fn load(group: &[u8], value: bool, slot: usize, common: &[u8], row: &mut [f32]) {
    let dim = row.len();
    for (i, x) in row.iter_mut().enumerate() {
        let own = scale(group, dim, slot, i / BLOCK) * f32::from(whole(group, value, dim, slot, i));
        *x = own + common_at(common, i);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_back_and_neighbours_stay() {
        let dim = 64;
        let row = |slot: usize| -> Vec<f32> {
            (0..dim).map(|i| ((i * 7 + slot * 13) % 31) as f32 - 15.0).collect()
        };
        for (value, much) in [(false, 0.0), (false, 1000.0), (true, 0.0)] {
            let mut common = vec![0u8; if value { 0 } else { common_bytes(dim) }];
            let taken: Vec<f32> = (0..dim).map(|i| if i % 3 == 0 { much } else { -much }).collect();
            store_common(&mut common, Some(&taken));
            let row =
                |slot: usize| -> Vec<f32> { row(slot).iter().zip(&taken).map(|(a, b)| a + b).collect() };
            let mut group = vec![0u8; group_bytes(dim)];
            for slot in (0..GROUP).rev() {
                store(&mut group, value, slot, &common, &row(slot));
            }
            for slot in 0..GROUP {
                let mut got = vec![0f32; dim];
                load(&group, value, slot, &common, &mut got);
                for (got, x) in got.iter().zip(row(slot)) {
                    assert!((got - x).abs() <= 0.1, "{value} {slot}: {got} for {x}");
                }
            }
        }
    }
}
