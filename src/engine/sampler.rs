//! Sampling: repetition penalty, mask, temperature, top-k, top-p, min-p; randomness is a function of (seed, position).
use super::TokenId;

#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    pub seed: u64,
    /// 0 is greedy.
    pub temperature: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    pub repetition_penalty: f32,
}

/// Which tokens may come next; a bit per token.
#[derive(Debug, Clone)]
pub struct TokenMask {}

pub struct Sampler {}

impl Sampler {
    pub fn new(_params: SamplingParams, _vocab: usize) -> Self {
        Self {}
    }
    /// Picks the token for absolute position `position`. `recent`: the tokens of this answer and the 64 before it.
    /// `mask`: tokens that may come. `logits` is scratch and may be changed.
    pub fn sample(
        &mut self,
        _logits: &mut [f32],
        _recent: &[TokenId],
        _mask: Option<&TokenMask>,
        _position: u64,
    ) -> TokenId {
        0
    }
}
