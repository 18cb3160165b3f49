//! The slow, obvious reference of every matrix kernel, and the body that other kernel sets compile with wider vectors.
//!
//! The order of summation is the contract of the engine (all fast kernels keep it): inside a block all is integer and
//! exact; blocks are added to one float accumulator in ascending order, the product with the scale first, then the
//! minimum; multiplications and additions stay apart (no fused multiply-add), so every kernel set gives the same bits.
//! Float weights: sixteen lanes by k mod 16, then one fixed tree.

use super::act::ActivationRow;
use crate::engine::quant::{QuantType, Unpacked};

/// sum(row * activations) for one weight row of any quantised type.
#[inline(always)]
pub fn dot_quantized(kind: QuantType, row: &[u8], act: ActivationRow<'_>) -> f32 {
    let bytes = kind.block_bytes();
    let mut block = Unpacked::default();
    let mut acc = 0f32;
    if kind.block_len() == 32 {
        for (b, raw) in row.chunks_exact(bytes).enumerate() {
            kind.unpack(raw, &mut block);
            let (q, y) = (&block.q[..32], &act.q[b * 32..b * 32 + 32]);
            let sum: i32 = (0..32).map(|i| i32::from(q[i]) * i32::from(y[i])).sum();
            acc += (block.d * act.d[b]) * sum as f32;
            if kind.has_min() {
                acc -= (block.dmin * act.d[b]) * f32::from(act.sums[b]);
            }
        }
    } else {
        for (b, raw) in row.chunks_exact(bytes).enumerate() {
            kind.unpack(raw, &mut block);
            let y = &act.q[b * 256..b * 256 + 256];
            let sums = &act.sums[b * 16..b * 16 + 16];
            let (mut sum, mut min) = (0i32, 0i32);
            for j in 0..16 {
                let mut part = 0i32;
                for i in 0..16 {
                    part += i32::from(i16::from(block.q[j * 16 + i]) * i16::from(y[j * 16 + i]));
                }
                sum += part * i32::from(block.scale[j]);
                min += i32::from(block.min[j]) * i32::from(sums[j]);
            }
            acc += (block.d * act.d[b]) * sum as f32;
            if kind.has_min() {
                acc -= (block.dmin * act.d[b]) * min as f32;
            }
        }
    }
    acc
}

/// sum(w * x) in sixteen lanes and one tree; `w` in floats already.
#[inline(always)]
pub fn dot_f32(w: &[f32], x: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (ws, w_tail) = w.as_chunks::<16>();
    let (xs, x_tail) = x.as_chunks::<16>();
    for (w, x) in ws.iter().zip(xs) {
        for lane in 0..16 {
            lanes[lane] += w[lane] * x[lane];
        }
    }
    for (lane, (w, x)) in w_tail.iter().zip(x_tail).enumerate() {
        lanes[lane] += w * x;
    }
    tree16(&lanes)
}

/// The one tree that folds sixteen lanes.
#[inline(always)]
pub fn tree16(lanes: &[f32; 16]) -> f32 {
    let mut a = *lanes;
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            a[i] += a[i + width];
        }
        width /= 2;
    }
    a[0]
}
