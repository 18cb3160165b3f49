//! Random weights of a model's true shape, quantised as a Q4_K_M file would be, without the file: what speed and memory
//! would be, before hundreds of gigabytes are fetched. Layers share their bytes, `distinct` of them being told apart,
//! so many that eight times the last-level cache is read before any byte comes again: the caches help no more than
//! they would with the whole model. Where a token reads a few of many experts, layers overlap: a token's experts lie anywhere in
//! a layer, so hardly a byte is read twice for it, and memory is saved. Says nothing about answers. Which shapes there are is for the callers.

use super::gguf::{Gguf, TensorInfo};
use super::memory::{Anonymous, Load, gb, too_little_for};
use super::quant::QuantType;
use super::weights::{Arch, Layer, ModelConfig, Weights};
use super::{Engine, EngineError, EngineOptions};

/// So many times the last-level cache is read before a byte comes again.
const CACHES: u64 = 8;
/// Layers begin so many times what a token reads of one apart, unless they are smaller.
const APART: usize = 4;
/// As in a GGUF file.
const ALIGNMENT: usize = 32;
/// Both bytes of a half must be one that is finite and small wherever a type looks for it, so two bits of the exponent
/// are zero in every byte: any run of bytes is then a block of any quantised type.
const HARMLESS: u64 = 0x9f9f_9f9f_9f9f_9f9f;

/// Where everything lies; no memory is taken before `engine`.
#[derive(Debug)]
pub struct Synthetic {
    config: ModelConfig,
    /// Layers whose bytes are told apart.
    pub distinct: usize,
    /// From one such layer to the next; less than a layer where most of it is not read.
    stride: usize,
    /// Bytes of all of them, embedding, output and routers.
    pub bytes: u64,
    /// Bytes that decoding reads before any of them comes again.
    pub before_reuse: u64,
    output_at: usize,
    routers_at: usize,
    router_bytes: usize,
}

/// The matrices of a layer in order, with columns and rows (of all experts).
#[derive(Clone, Copy)]
struct Part {
    cols: usize,
    rows: usize,
    /// Q4_K_M holds some layers' values and down projections in more bits.
    more: bool,
    /// Of `rows`, what a token reads: (used, of).
    share: (usize, usize),
}

fn parts(c: &ModelConfig) -> [Part; 7] {
    let (q_dim, kv_dim) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    let experts = c.experts.max(1);
    let ff = if c.experts > 0 { c.expert_ff } else { c.ff };
    let always = |cols, rows, more| Part { cols, rows, more, share: (1, 1) };
    let expert =
        |cols, rows, more| Part { cols, rows: rows * experts, more, share: (c.experts_used.max(1), experts) };
    [
        always(c.hidden, q_dim, false),
        always(c.hidden, kv_dim, false),
        always(c.hidden, kv_dim, true),
        always(q_dim, c.hidden, false),
        expert(c.hidden, ff, false),
        expert(c.hidden, ff, false),
        expert(ff, c.hidden, true),
    ]
}

/// The type such a matrix has in a Q4_K_M file; rows that are no multiple of 256 fall back to blocks of 32.
fn kind(cols: usize, more: bool) -> QuantType {
    match (cols.is_multiple_of(256), more) {
        (true, false) => QuantType::Q4_K,
        (true, true) => QuantType::Q6_K,
        (false, false) => QuantType::Q5_0,
        (false, true) => QuantType::Q8_0,
    }
}

/// Whether layer `l` of `n` has more bits where a `Part` says so: the first and last eighth and every third between.
fn has_more(l: usize, n: usize) -> bool {
    l < n / 8 || l >= 7 * n / 8 || (l - n / 8) % 3 == 2
}

fn matrix_bytes(kind: QuantType, cols: usize, rows: usize) -> usize {
    (cols / kind.block_len() * kind.block_bytes() * rows).next_multiple_of(ALIGNMENT)
}

impl Synthetic {
    /// Lays out a model for a machine with `cache` bytes of last-level cache.
    pub fn plan(config: ModelConfig, cache: u64) -> Result<Self, EngineError> {
        let refuse = |problem: String| Err(EngineError::BadModel(format!("made-up weights: {problem}")));
        let sizes = [config.hidden, config.heads * config.head_dim, config.ff, config.expert_ff];
        if let Some(size) = sizes.iter().find(|size| *size % 32 != 0) {
            return refuse(format!("a width of {size} is no multiple of 32"));
        }
        let (mut slot, mut read) = (0, 0u64);
        for part in parts(&config) {
            slot += matrix_bytes(kind(part.cols, part.more), part.cols, part.rows);
            let least = matrix_bytes(kind(part.cols, false), part.cols, part.rows) as u64;
            read += least * part.share.0 as u64 / part.share.1 as u64;
        }
        let distinct = (CACHES * cache).div_ceil(read.max(1)).clamp(1, config.layers.max(1) as u64) as usize;
        let router_bytes = 4 * config.hidden * config.experts;
        let output = matrix_bytes(kind(config.hidden, true), config.hidden, config.vocab);
        let stride = (APART * read as usize).next_multiple_of(ALIGNMENT).min(slot);
        let output_at = (slot + stride * (distinct - 1)).max(matrix_bytes(
            kind(config.hidden, false),
            config.hidden,
            config.vocab,
        ));
        let routers_at = output_at + output;
        let bytes = (routers_at + distinct * router_bytes) as u64;
        let before_reuse = read * distinct as u64;
        Ok(Self { config, distinct, stride, bytes, before_reuse, output_at, routers_at, router_bytes })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Takes the memory, fills it, and runs on it.
    pub fn engine(self, name: &str, options: EngineOptions) -> Result<Engine, EngineError> {
        if let Some(free) = too_little_for(self.bytes) {
            return Err(EngineError::BadModel(format!(
                "{name}: made-up weights take {} and {} of memory are free",
                gb(self.bytes),
                gb(free)
            )));
        }
        let mut memory = Anonymous::new(self.bytes as usize, options.load == Load::Copy)
            .map_err(|source| EngineError::Io { path: name.into(), source })?;
        memory.fill(options.threads, |at, part| {
            let bytes = self.routers_at.saturating_sub(at).min(part.len());
            let (quantised, floats) = part.split_at_mut(bytes);
            let mut random = Random(at as u64);
            for word in quantised.chunks_mut(8) {
                let random = (random.next() & HARMLESS).to_le_bytes();
                word.copy_from_slice(&random[..word.len()]);
            }
            for float in floats.as_chunks_mut::<4>().0 {
                *float = ((random.next() >> 40) as f32 / (1 << 24) as f32 * 0.07 - 0.035).to_le_bytes();
            }
        });
        let weights = self.weights(Gguf::of_memory(name, memory));
        Engine::from_weights(self.config, weights, options)
    }

    fn weights(&self, gguf: Gguf) -> Weights {
        let c = &self.config;
        let layers = (0..c.layers).map(|l| self.layer(l)).collect();
        let embedding = matrix("token_embd.weight", 0, kind(c.hidden, false), &[c.hidden, c.vocab]);
        let output = matrix("output.weight", self.output_at, kind(c.hidden, true), &[c.hidden, c.vocab]);
        Weights { gguf, embedding, output, output_norm: vec![1.0; c.hidden], layers }
    }

    fn layer(&self, l: usize) -> Layer {
        let c = &self.config;
        let mut at = l % self.distinct * self.stride;
        let mut place =
            parts(c).into_iter().zip(["q", "k", "v", "o", "gate", "up", "down"]).map(|(part, name)| {
                let start = at;
                // Room for the larger type, so that the same part lies at the same place in every layer.
                at += matrix_bytes(kind(part.cols, part.more), part.cols, part.rows);
                let kind = kind(part.cols, part.more && has_more(l, c.layers));
                let experts = part.share.1;
                let dims = [part.cols, part.rows / experts, experts];
                matrix(name, start, kind, if experts > 1 { &dims } else { &dims[..2] })
            });
        // Seven parts, seven names: the default never comes up.
        let mut next = || place.next().unwrap_or_else(|| matrix("none", 0, QuantType::F32, &[0]));
        let (q, k, v, o, gate, up, down) = (next(), next(), next(), next(), next(), next(), next());
        let (q_dim, kv_dim) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let only = |there: bool, len: usize, value: f32| if there { vec![value; len] } else { Vec::new() };
        let bias = c.arch == Arch::Qwen2;
        Layer {
            attn_norm: vec![1.0; c.hidden],
            q,
            k,
            v,
            q_bias: only(bias, q_dim, 0.0),
            k_bias: only(bias, kv_dim, 0.0),
            v_bias: only(bias, kv_dim, 0.0),
            q_norm: only(!bias, c.head_dim, 1.0),
            k_norm: only(!bias, c.head_dim, 1.0),
            o,
            ffn_norm: vec![1.0; c.hidden],
            router: (c.experts > 0).then(|| {
                let at = self.routers_at + l % self.distinct * self.router_bytes;
                matrix("router", at, QuantType::F32, &[c.hidden, c.experts])
            }),
            gate,
            up,
            down,
        }
    }
}

fn matrix(name: &str, at: usize, kind: QuantType, dims: &[usize]) -> TensorInfo {
    let values: usize = dims.iter().product();
    let range = at..at + values / kind.block_len() * kind.block_bytes();
    TensorInfo { name: name.into(), dims: dims.to_vec(), kind, shard: 0, range }
}

/// SplitMix64: any seed will do, neighbouring ones too.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Want;
    use crate::engine::kv::KvType;
    use std::sync::atomic::AtomicBool;

    fn small(arch: Arch) -> ModelConfig {
        let moe = arch == Arch::Qwen3Moe;
        ModelConfig {
            arch,
            layers: 12,
            hidden: 256,
            heads: 4,
            kv_heads: 2,
            head_dim: 64,
            ff: if moe { 0 } else { 288 },
            vocab: 640,
            context: 512,
            eps: 1e-6,
            rope_theta: 1e6,
            yarn: None,
            experts: if moe { 8 } else { 0 },
            experts_used: if moe { 2 } else { 0 },
            expert_ff: if moe { 256 } else { 0 },
        }
    }

    #[test]
    fn every_architecture_runs_on_made_up_weights_and_stays_finite() {
        for arch in [Arch::Qwen2, Arch::Qwen3, Arch::Qwen3Moe] {
            let plan = Synthetic::plan(small(arch), 0).unwrap();
            assert_eq!(plan.distinct, 1);
            let options = EngineOptions { threads: 2, ..Default::default() };
            let mut engine = plan.engine("small", options).unwrap();
            let mut sequence = engine.sequence(64, KvType::F16);
            let tokens: Vec<u32> = (0..40).collect();
            let logits = engine
                .append(&mut sequence, &tokens, Want::All, &AtomicBool::new(false), &mut |_| {})
                .unwrap();
            assert!(logits.iter().all(|x| x.is_finite()), "{arch:?}");
            let rows: Vec<&[f32]> = logits.chunks_exact(640).collect();
            assert!(rows.windows(2).all(|pair| pair[0] != pair[1]), "{arch:?}: tokens tell apart");
        }
    }

    #[test]
    fn bytes_come_again_only_after_eight_caches() {
        for cache in [10 << 10, 1 << 20, 1 << 40] {
            let plan = Synthetic::plan(small(Arch::Qwen3Moe), cache).unwrap();
            assert!(plan.before_reuse >= CACHES * cache || plan.distinct == 12, "{plan:?}");
        }
    }

    #[test]
    fn the_480b_shape_reads_what_its_file_would_and_holds_a_few_gigabytes() {
        let config = ModelConfig {
            layers: 62,
            hidden: 6144,
            heads: 96,
            kv_heads: 8,
            head_dim: 128,
            vocab: 151_936,
            experts: 160,
            experts_used: 8,
            expert_ff: 2560,
            ..small(Arch::Qwen3Moe)
        };
        let plan = Synthetic::plan(config, 32 << 20).unwrap();
        assert_eq!(plan.distinct, 1);
        assert!(plan.bytes < 6_500_000_000, "{plan:?}");
        let nothing = Anonymous::new(1, false).unwrap();
        let read = plan.weights(Gguf::of_memory("", nothing)).bytes_per_token(plan.config());
        assert!((20_500_000_000..21_300_000_000).contains(&read), "{read}");
    }
}
