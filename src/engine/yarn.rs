//! YaRN: a model is made to meet positions beyond its training by turning slowly where its heads look far, at a pace
//! blended with the old one where they look near (Peng, Quesnelle, Fan and Shippole, 2023, "YaRN: Efficient Context Window
//! Extension of Large Language Models", with the paper's bounds for the Llama family, which Qwen publishes its
//! settings for). Only frequencies and one scale are computed here; who turns what is for the forward pass.

use super::EngineError;
use super::gguf::Gguf;

/// Rotations over the original context between which frequencies are blended.
const FAST: f64 = 32.0;
const SLOW: f64 = 1.0;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yarn {
    /// How many times as far as in the training.
    pub factor: f64,
    /// Positions of the training.
    pub original: usize,
}

impl Yarn {
    /// What a file asks for; an error where it asks for another kind of scaling.
    pub(super) fn from_gguf(gguf: &Gguf, arch: &str) -> Result<Option<Self>, EngineError> {
        let key = |key: &str| format!("{arch}.rope.scaling.{key}");
        let kind = gguf.str(&key("type")).unwrap_or("none");
        let factor = gguf.f64(&key("factor")).unwrap_or(1.0);
        if kind == "none" || factor == 1.0 {
            return Ok(None);
        }
        if kind != "yarn" {
            return Err(gguf.refuse(&format!(
                "{} is {:?}; yarn is what this engine knows",
                key("type"),
                kind.chars().take(40).collect::<String>()
            )));
        }
        let original = gguf.u64(&key("original_context_length")).unwrap_or(0);
        if !(factor > 1.0 && factor <= 1024.0) || !(1..=1 << 30).contains(&original) {
            return Err(gguf.refuse(&format!(
                "{} of {factor} over {original} tokens is no extension of a context",
                key("factor")
            )));
        }
        Ok(Some(Self { factor, original: original as usize }))
    }

    /// The angle that dimension pair `i` of a head of `dim` turns by at each position, where it was `frequency`.
    pub fn frequency(&self, i: usize, dim: usize, theta: f64, frequency: f64) -> f64 {
        // The pair that turns `rotations` times over the original context.
        let pair = |rotations: f64| {
            let turns = self.original as f64 / (rotations * 2.0 * std::f64::consts::PI);
            dim as f64 * turns.ln() / (2.0 * theta.ln())
        };
        let last = dim as f64 - 1.0;
        let (low, high) = (pair(FAST).floor().clamp(0.0, last), pair(SLOW).ceil().clamp(0.0, last));
        let slow = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
        frequency / self.factor * slow + frequency * (1.0 - slow)
    }

    /// What queries and keys are multiplied with each, so that attention stays as sharp as it was.
    pub fn scale(&self) -> f64 {
        0.1 * self.factor.ln() + 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_pairs_stay_slow_pairs_are_stretched_and_those_between_are_blended() {
        let yarn = Yarn { factor: 4.0, original: 32_768 };
        let (dim, theta) = (128, 1e6f64);
        let plain = |i: usize| theta.powf(-(2.0 * i as f64) / dim as f64);
        let ratio = |i: usize| yarn.frequency(i, dim, theta, plain(i)) / plain(i);
        // 128 ln(32768 / (32 * 2 pi)) / (2 ln 1e6) = 23.6 and 128 ln(32768 / (2 pi)) / (2 ln 1e6) = 39.7.
        assert_eq!((ratio(0), ratio(23)), (1.0, 1.0));
        assert_eq!((ratio(40), ratio(63)), (0.25, 0.25));
        let blended = 0.25 * 8.0 / 17.0 + 9.0 / 17.0;
        assert!((ratio(31) - blended).abs() < 1e-12, "{}", ratio(31));
        assert!((yarn.scale() - 1.138_629_436_111_989).abs() < 1e-12);
    }
}
