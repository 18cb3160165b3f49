//! Every kernel set times every type against the scalar reference, bit for bit: random bytes, random shapes (rows that
//! are no multiple of eight, odd numbers of blocks, float rows that end inside a register), batches that go row by row
//! and such as go by panels, and the extremes at which an int16 would saturate.

use super::act::{Activations, Form};
use super::{KernelSet, Matrix, Output, gate_up_rows, matmul_rows, ops, scalar};
use crate::engine::pool::Shards;
use crate::engine::quant::QuantType;

/// Batches that every kernel takes by panels.
const PANEL_FROM: usize = super::MOST_BY_ROWS + 1;

/// splitmix64
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Makes the scales of a block (or a float) finite and of ordinary size, leaving all other bits alone.
fn tame(kind: QuantType, block: &mut [u8]) {
    use QuantType::*;
    let halves: &[usize] = match kind {
        F32 => return block[3] = block[3] & 0x80 | 0x3e,
        BF16 => return block[1] = block[1] & 0x80 | 0x3e,
        MXFP4 => return block[0] = 120 + block[0] % 16,
        Q4_1 | Q5_1 | Q4_K | Q5_K => &[0, 2],
        Q2_K => &[80, 82],
        Q3_K => &[108],
        Q6_K => &[208],
        // The upper nibble of d, over three others.
        IQ1_M => &[54],
        _ => &[0],
    };
    for at in halves {
        block[at + 1] &= !0x40;
    }
}

fn weights(kind: QuantType, count: usize, mut byte: impl FnMut() -> u8) -> Vec<u8> {
    let mut data: Vec<u8> = (0..count / kind.block_len() * kind.block_bytes()).map(|_| byte()).collect();
    data.chunks_exact_mut(kind.block_bytes()).for_each(|block| tame(kind, block));
    data
}

/// Activations whose quantised values are `q`, whatever the floats.
fn activations(kind: QuantType, n: usize, cols: usize, mut q: impl FnMut(usize) -> i8) -> Activations {
    let mut act = Activations::default();
    act.reserve(n, cols, &[Form::of(kind)]);
    for (i, value) in act.values.iter_mut().enumerate() {
        *value = f32::from(q(i)) / 64.0;
    }
    let (by, sum_of) = if kind.block_len() == 32 { (&mut act.by32, 32) } else { (&mut act.by256, 16) };
    by.q.iter_mut().enumerate().for_each(|(i, value)| *value = q(i));
    by.d.iter_mut().enumerate().for_each(|(i, value)| *value = (1 + i % 7) as f32 / 300.0);
    for (sum, values) in by.sums.iter_mut().zip(by.q.chunks(sum_of)) {
        *sum = values.iter().map(|&v| i16::from(v)).sum();
    }
    by.derive();
    act
}

/// The reference's product of one row and one token.
fn product(matrix: &Matrix<'_>, r: usize, act: &Activations, token: usize) -> f32 {
    let x = act.row(token, matrix.kind);
    if matrix.kind.block_len() > 1 {
        return scalar::dot_quantized(matrix.kind, matrix.row(r), x);
    }
    let mut w = vec![0.0; matrix.cols];
    matrix.kind.dequantize(matrix.row(r), &mut w);
    scalar::dot_f32(&w, x.values)
}

fn same(got: &[f32], want: &[f32], rows: usize, of: &str) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(want.is_finite(), "{of}: the case is no test");
        let (t, r) = (i / rows, i % rows);
        assert_eq!(got.to_bits(), want.to_bits(), "{of}: token {t}, row {r} of {rows}: {got}, not {want}");
    }
}

fn check(kind: QuantType, rows: usize, cols: usize, data: &[u8], act: &Activations, what: &str) {
    let matrix = Matrix { kind, rows, cols, data };
    let tokens: Vec<usize> = (0..act.n).rev().collect();
    let want: Vec<f32> =
        tokens.iter().flat_map(|&t| (0..rows).map(move |r| product(&matrix, r, act, t))).collect();
    for set in KernelSet::ALL.into_iter().filter(|set| set.available()) {
        let of = format!("{} {} {what}, {cols} columns", set.name(), kind.name());
        let mut out = vec![f32::NAN; act.n * rows];
        let shards = Shards::new(&mut out);
        let target = Output { shards: &shards, slot: 0, stride: rows, add: false };
        // SAFETY: one thread, and the machine has the set.
        unsafe { matmul_rows(set, &matrix, 0..rows, act, &tokens, &target) };
        same(&out, &want, rows, &of);
    }
}

#[test]
fn random_weights_give_the_bits_of_the_reference() {
    let mut random = Random(1);
    for kind in QuantType::ALL {
        for round in 0..16 {
            // Few tokens go row by row, more of them by panels.
            let (rows, n) = if round < 10 {
                (1 + random.below(20), 1 + random.below(PANEL_FROM - 1))
            } else {
                (1 + random.below(70), PANEL_FROM + random.below(12))
            };
            let cols = match kind.block_len() {
                1 => 1 + random.below(200),
                len => len * (1 + random.below(5)),
            };
            let data = weights(kind, rows * cols, || random.next() as u8);
            let q: Vec<i8> = (0..n * cols).map(|_| (random.below(255) as i32 - 127) as i8).collect();
            let act = activations(kind, n, cols, |i| q[i]);
            check(kind, rows, cols, &data, &act, &format!("round {round}"));
        }
    }
}

#[test]
fn extremes_saturate_nothing() {
    type Pattern = fn(usize) -> i8;
    for kind in QuantType::ALL {
        let cols = if kind.block_len() == 1 { 48 } else { 3 * kind.block_len() };
        for byte in [0xff, 0x00, 0x80, 0x7f, 0xf0, 0x0f, 0x55, 0xaa, 0x11, 0xee] {
            let data = weights(kind, 9 * cols, || byte);
            let patterns: [(&str, Pattern); 4] = [
                ("all 127", |_| 127),
                ("all -127", |_| -127),
                ("by turns", |i| if i % 2 == 0 { 127 } else { -127 }),
                ("by pairs", |i| if i / 2 % 2 == 0 { 127 } else { -127 }),
            ];
            for (name, q) in patterns {
                for n in [1, 4, PANEL_FROM] {
                    let act = activations(kind, n, cols, q);
                    check(kind, 9, cols, &data, &act, &format!("{byte:#x} {name}"));
                }
            }
        }
    }
}

#[test]
fn the_smallest_and_largest_exponents_of_mxfp4() {
    let kind = QuantType::MXFP4;
    for (exponent, n) in [0, 1, 2, 3, 126, 127, 128, 200].into_iter().flat_map(|e| [(e, 1), (e, PANEL_FROM)])
    {
        let mut data = weights(kind, 4 * 96, || 0x5a);
        data.chunks_exact_mut(kind.block_bytes()).for_each(|block| block[0] = exponent);
        let act = activations(kind, n, 96, |i| (i % 255) as i8 / 2);
        check(kind, 4, 96, &data, &act, &format!("exponent {exponent}"));
    }
}

#[test]
fn gate_and_up_in_one_pass_are_the_products_and_silu() {
    let mut random = Random(2);
    for kind in QuantType::ALL {
        for n in [1, 7, PANEL_FROM, PANEL_FROM + 12] {
            let rows = 1 + random.below(70);
            let cols = if kind.block_len() == 1 { 100 } else { 2 * kind.block_len() };
            let [gate, up] = [0, 1].map(|_| weights(kind, rows * cols, || random.next() as u8));
            let [gate, up] = [&gate, &up].map(|data| Matrix { kind, rows, cols, data });
            let q: Vec<i8> = (0..n * cols).map(|_| (random.below(255) as i32 - 127) as i8).collect();
            let act = activations(kind, n, cols, |i| q[i] / 8);
            let tokens: Vec<usize> = (0..n).collect();
            let all = |m: &Matrix<'_>| -> Vec<f32> {
                tokens
                    .iter()
                    .flat_map(|&t| (0..rows).map(move |r| (t, r)))
                    .map(|(t, r)| product(m, r, &act, t))
                    .collect()
            };
            let mut want = vec![0.0; n * rows];
            ops::silu_mul(KernelSet::Scalar, &all(&gate), &all(&up), &mut want);
            for set in KernelSet::ALL.into_iter().filter(|set| set.available()) {
                let mut out = vec![f32::NAN; n * rows];
                let shards = Shards::new(&mut out);
                let target = Output { shards: &shards, slot: 0, stride: rows, add: false };
                // SAFETY: one thread, and the machine has the set.
                unsafe { gate_up_rows(set, &gate, &up, 0..rows, &act, &tokens, &target) };
                same(&out, &want, rows, &format!("{} {} {n} tokens", set.name(), kind.name()));
            }
        }
    }
}
