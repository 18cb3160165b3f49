//! The small float operations of a layer: RMS norm, rotary embedding, SiLU, exponentials. Each has one body, compiled
//! per instruction set; sums go through sixteen lanes and one tree, so every set gives the same bits.
#![allow(unsafe_code)]

use super::kernels::dispatch;
use super::kernels::scalar::{dot_f32, tree16};

/// e^x for x <= 88, within 2 units in the last place; 0 below -87. After Cephes' expf: x = n ln 2 + r, a polynomial
/// in r, and n added to the exponent.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = clamped * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = (clamped - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut p = 1.987_569_2e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let e = p * r * r + r + 1.0;
    // The lowest bits of the sum with 1.5 * 2^23 are those of n.
    let scaled = f32::from_bits(e.to_bits().wrapping_add(shifted.to_bits() << 23));
    if x < -87.0 { 0.0 } else { scaled }
}

dispatch! {
    /// out = x / rms(x) * weight
    pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let mean = dot_f32(x, x) / x.len() as f32;
        let scale = 1.0 / (mean + eps).sqrt();
        for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
            *out = x * scale * w;
        }
    }
}

dispatch! {
    /// Rotates the halves of one head: (x[i], x[i + half]) by the angle whose cosine and sine are given.
    pub fn rope_neox(head: &mut [f32], cos: &[f32], sin: &[f32]) {
        let (low, high) = head.split_at_mut(cos.len());
        for i in 0..cos.len() {
            let (a, b) = (low[i], high[i]);
            low[i] = a * cos[i] - b * sin[i];
            high[i] = a * sin[i] + b * cos[i];
        }
    }
}

dispatch! {
    /// out = silu(gate) * up
    pub fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, g), u) in out.iter_mut().zip(gate).zip(up) {
            *out = g / (1.0 + exp(-g)) * u;
        }
    }
}

dispatch! {
    pub fn add(x: &mut [f32], y: &[f32]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }
}

dispatch! {
    /// x += scale * y
    pub fn add_scaled(x: &mut [f32], y: &[f32], scale: f32) {
        for (x, y) in x.iter_mut().zip(y) {
            *x += scale * y;
        }
    }
}

/// Softmax in place; the sum in sixteen lanes and one tree.
pub fn softmax(x: &mut [f32]) {
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut lanes = [0f32; 16];
    for (i, x) in x.iter_mut().enumerate() {
        *x = exp(*x - largest);
        lanes[i % 16] += *x;
    }
    let sum = tree16(&lanes);
    x.iter_mut().for_each(|x| *x /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_everywhere() {
        let mut x = -86.9f32;
        while x < 88.0 {
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(((got - want) / want).abs() < 3e-7, "exp({x}) = {got}, not {want}");
            x += 0.0137;
        }
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }
}
