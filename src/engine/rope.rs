//! Rotary positions: the pace at which pairs of dimensions turn, and what turning leaves of a bias that all keys have.
//! Turning heads is `ops::rope_neox`; YaRN's paces are in `yarn`.

use super::kv::blocks::BLOCK;
use super::weights::ModelConfig;

/// The angle that dimension pair `i` turns by at each position, and what it is multiplied with.
pub fn frequency(config: &ModelConfig, i: usize) -> (f64, f64) {
    let (theta, dim) = (config.rope_theta, config.head_dim);
    let plain = theta.powf(-(2.0 * i as f64) / dim as f64);
    match &config.yarn {
        Some(yarn) => (yarn.frequency(i, dim, theta, plain), yarn.scale()),
        None => (plain, 1.0),
    }
}

/// What the bias of a head's keys comes to, turned, on average over the block of the cache that begins at `first`:
/// what its keys have in common.
pub fn common(config: &ModelConfig, bias: &[f32], first: usize, out: &mut [f32]) {
    let half = bias.len() / 2;
    for i in 0..half {
        let (frequency, scale) = frequency(config, i);
        // The mean of unit vectors at equal angles about their middle.
        let shrunk = (frequency * BLOCK as f64 / 2.0).sin() / (BLOCK as f64 * (frequency / 2.0).sin());
        let (sin, cos) = ((first as f64 + (BLOCK - 1) as f64 / 2.0) * frequency).sin_cos();
        let (sin, cos) = (sin * shrunk * scale, cos * shrunk * scale);
        let (a, b) = (f64::from(bias[i]), f64::from(bias[i + half]));
        out[i] = (a * cos - b * sin) as f32;
        out[i + half] = (a * sin + b * cos) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::weights::Arch;
    use crate::engine::yarn::Yarn;

    #[test]
    fn what_keys_have_in_common_is_the_mean_of_the_turned_bias() {
        for yarn in [None, Some(Yarn { factor: 4.0, original: 32_768 })] {
            let config = ModelConfig {
                arch: Arch::Qwen2,
                layers: 1,
                hidden: 128,
                heads: 1,
                kv_heads: 1,
                head_dim: 128,
                ff: 128,
                vocab: 100,
                context: 131_072,
                eps: 1e-6,
                rope_theta: 1e6,
                yarn,
                experts: 0,
                experts_used: 0,
                expert_ff: 0,
            };
            let bias: Vec<f32> = (0..128).map(|i| (i as f32 * 0.7).sin() * 100.0).collect();
            for first in [0, 3 * BLOCK, 400 * BLOCK] {
                let mut got = vec![0f32; 128];
                common(&config, &bias, first, &mut got);
                for i in 0..64 {
                    let (frequency, scale) = frequency(&config, i);
                    let (a, b) = (f64::from(bias[i]), f64::from(bias[i + 64]));
                    let (mut low, mut high) = (0.0, 0.0);
                    for position in first..first + BLOCK {
                        let (sin, cos) = (position as f64 * frequency).sin_cos();
                        low += (a * cos - b * sin) * scale / BLOCK as f64;
                        high += (a * sin + b * cos) * scale / BLOCK as f64;
                    }
                    let far = (f64::from(got[i]) - low).abs() + (f64::from(got[i + 64]) - high).abs();
                    assert!(far < 1e-3, "pair {i} from {first}: {} {} for {low} {high}", got[i], got[i + 64]);
                }
            }
        }
    }
}
