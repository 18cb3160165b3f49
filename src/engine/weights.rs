//! What kind of model a file holds and where its tensors are: `ModelConfig` from the metadata, `Weights` from the
//! tensor directory, every shape checked before a kernel sees it. Weights stay in the mapped file; only the small
//! float vectors (norms, biases) are copied.

use super::EngineError;
use super::gguf::{Gguf, TensorInfo};
use super::kernels::Matrix;
use super::kv::{KvShape, KvType};
use super::yarn::Yarn;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    Qwen2,
    Qwen3,
    Qwen3Moe,
}

impl Arch {
    /// By the name of `general.architecture`.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "qwen2" => Self::Qwen2,
            "qwen3" => Self::Qwen3,
            "qwen3moe" => Self::Qwen3Moe,
            _ => return None,
        })
    }
}

/// Shapes and constants of a model.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    pub arch: Arch,
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Feed-forward width of a dense layer (0 for MoE).
    pub ff: usize,
    pub vocab: usize,
    pub context: usize,
    pub eps: f32,
    pub rope_theta: f64,
    /// How positions beyond those of the training are met, if they are.
    pub yarn: Option<Yarn>,
    /// Experts, experts used per token, width of one; 0 for dense models.
    pub experts: usize,
    pub experts_used: usize,
    pub expert_ff: usize,
}

impl ModelConfig {
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, EngineError> {
        let name = gguf.require_str("general.architecture")?;
        let Some(arch) = Arch::from_name(name) else {
            let other: String = name.chars().take(40).collect();
            return Err(gguf.refuse(&format!(
                "architecture {other:?} is not one this engine runs (qwen2, qwen3, qwen3moe)"
            )));
        };
        let size = |key: &str, least: u64, most: u64| -> Result<usize, EngineError> {
            let key = format!("{name}.{key}");
            let value = gguf.require_u64(&key)?;
            if !(least..=most).contains(&value) {
                return Err(gguf.refuse(&format!("{key} is {value}; {least} to {most} is expected")));
            }
            Ok(value as usize)
        };
        let layers = size("block_count", 1, 4096)?;
        let hidden = size("embedding_length", 16, 1 << 20)?;
        let heads = size("attention.head_count", 1, 4096)?;
        let kv_heads = size("attention.head_count_kv", 1, 4096)?;
        let head_dim = match gguf.u64(&format!("{name}.attention.key_length")) {
            Some(_) => size("attention.key_length", 32, 1024)?,
            None => hidden / heads,
        };
        if heads % kv_heads != 0 {
            return Err(gguf.refuse(&format!("{heads} heads do not share {kv_heads} key heads evenly")));
        }
        if head_dim % 32 != 0 || head_dim == 0 {
            return Err(gguf.refuse(&format!("a head dimension of {head_dim} is no multiple of 32")));
        }
        let value_dim = gguf.u64(&format!("{name}.attention.value_length")).unwrap_or(head_dim as u64);
        if value_dim != head_dim as u64 {
            return Err(gguf.refuse(&format!("values of {value_dim} and keys of {head_dim} per head differ")));
        }
        let moe = arch == Arch::Qwen3Moe;
        let experts = if moe { size("expert_count", 1, 65_536)? } else { 0 };
        let experts_used = if moe { size("expert_used_count", 1, experts as u64)? } else { 0 };
        let expert_ff = if moe { size("expert_feed_forward_length", 1, 1 << 20)? } else { 0 };
        let ff = if moe { 0 } else { size("feed_forward_length", 1, 1 << 20)? };
        let eps = gguf.require_f64(&format!("{name}.attention.layer_norm_rms_epsilon"))?;
        let rope_theta = gguf.f64(&format!("{name}.rope.freq_base")).unwrap_or(10_000.0);
        if !(eps.is_finite() && eps > 0.0 && rope_theta.is_finite() && rope_theta > 0.0) {
            return Err(gguf.refuse("rms epsilon and rope base must be positive numbers"));
        }
        let yarn = Yarn::from_gguf(gguf, name)?;
        let vocab = gguf.require_tensor("token_embd.weight")?.dims.get(1).copied().unwrap_or(0);
        let context = size("context_length", 1, 1 << 30)?;
        Ok(Self {
            arch,
            layers,
            hidden,
            heads,
            kv_heads,
            head_dim,
            ff,
            vocab,
            context,
            eps: eps as f32,
            rope_theta,
            yarn,
            experts,
            experts_used,
            expert_ff,
        })
    }

    /// Reaches `context` tokens: beyond the model's own by YaRN.
    pub fn extend(&mut self, context: usize) {
        if context > self.context {
            let original = self.yarn.map_or(self.context, |yarn| yarn.original);
            self.yarn = Some(Yarn { factor: context as f64 / original as f64, original });
            self.context = context;
        }
    }

    /// The shape of its cache of keys and values.
    pub fn kv_shape(&self, kind: KvType) -> KvShape {
        KvShape { layers: self.layers, heads: self.kv_heads, head_dim: self.head_dim, kind }
    }
}

/// One layer's tensors. Matrices are places in the file; vectors are copied.
pub struct Layer {
    pub attn_norm: Vec<f32>,
    pub q: TensorInfo,
    pub k: TensorInfo,
    pub v: TensorInfo,
    pub q_bias: Vec<f32>,
    pub k_bias: Vec<f32>,
    pub v_bias: Vec<f32>,
    /// RMS weights over a head, or empty.
    pub q_norm: Vec<f32>,
    pub k_norm: Vec<f32>,
    pub o: TensorInfo,
    pub ffn_norm: Vec<f32>,
    pub router: Option<TensorInfo>,
    pub gate: TensorInfo,
    pub up: TensorInfo,
    pub down: TensorInfo,
}

pub struct Weights {
    pub gguf: Gguf,
    pub embedding: TensorInfo,
    pub output: TensorInfo,
    pub output_norm: Vec<f32>,
    pub layers: Vec<Layer>,
}

impl Weights {
    pub fn new(gguf: Gguf, config: &ModelConfig) -> Result<Self, EngineError> {
        let c = config;
        let matrix = |name: &str, cols: usize, rows: usize| tensor(&gguf, name, &[cols, rows]);
        let vector = |name: &str, len: usize| -> Result<Vec<f32>, EngineError> {
            let info = tensor(&gguf, name, &[len])?;
            let mut out = vec![0.0; len];
            info.kind.dequantize(gguf.data(&info), &mut out);
            Ok(out)
        };
        let optional = |name: &str, len: usize, there: bool| {
            if there { vector(name, len) } else { Ok(Vec::new()) }
        };
        let (q_dim, kv_dim) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let embedding = matrix("token_embd.weight", c.hidden, c.vocab)?;
        let output = match gguf.tensor("output.weight") {
            Some(_) => matrix("output.weight", c.hidden, c.vocab)?,
            None => embedding.clone(),
        };
        let output_norm = vector("output_norm.weight", c.hidden)?;
        let mut layers = Vec::with_capacity(c.layers);
        for l in 0..c.layers {
            let name = |part: &str| format!("blk.{l}.{part}");
            let (bias, norm, moe) = (c.arch == Arch::Qwen2, c.arch != Arch::Qwen2, c.experts > 0);
            let ffn = |part: &str, cols: usize, rows: usize| {
                if moe {
                    tensor(&gguf, &name(&format!("ffn_{part}_exps.weight")), &[cols, rows, c.experts])
                } else {
                    matrix(&name(&format!("ffn_{part}.weight")), cols, rows)
                }
            };
            let ff = if moe { c.expert_ff } else { c.ff };
            layers.push(Layer {
                attn_norm: vector(&name("attn_norm.weight"), c.hidden)?,
                q: matrix(&name("attn_q.weight"), c.hidden, q_dim)?,
                k: matrix(&name("attn_k.weight"), c.hidden, kv_dim)?,
                v: matrix(&name("attn_v.weight"), c.hidden, kv_dim)?,
                q_bias: optional(&name("attn_q.bias"), q_dim, bias)?,
                k_bias: optional(&name("attn_k.bias"), kv_dim, bias)?,
                v_bias: optional(&name("attn_v.bias"), kv_dim, bias)?,
                q_norm: optional(&name("attn_q_norm.weight"), c.head_dim, norm)?,
                k_norm: optional(&name("attn_k_norm.weight"), c.head_dim, norm)?,
                o: matrix(&name("attn_output.weight"), q_dim, c.hidden)?,
                ffn_norm: vector(&name("ffn_norm.weight"), c.hidden)?,
                router: if moe {
                    Some(matrix(&name("ffn_gate_inp.weight"), c.hidden, c.experts)?)
                } else {
                    None
                },
                gate: ffn("gate", c.hidden, ff)?,
                up: ffn("up", c.hidden, ff)?,
                down: ffn("down", ff, c.hidden)?,
            });
        }
        Ok(Self { gguf, embedding, output, output_norm, layers })
    }

    /// A tensor as a matrix of all its rows (a stack of experts is one tall matrix).
    pub fn matrix(&self, info: &TensorInfo) -> Matrix<'_> {
        let cols = info.dims.first().copied().unwrap_or(1);
        Matrix { kind: info.kind, rows: info.len() / cols.max(1), cols, data: self.gguf.data(info) }
    }

    /// Bytes that decoding one token reads: every matrix once, of the experts those that are used, of the embedding
    /// nothing to speak of (unless it is the output too).
    pub fn bytes_per_token(&self, config: &ModelConfig) -> u64 {
        let bytes = |info: &TensorInfo| info.range.len() as u64;
        let layer = |l: &Layer| {
            let always = bytes(&l.q) + bytes(&l.k) + bytes(&l.v) + bytes(&l.o);
            let router = l.router.as_ref().map_or(0, bytes);
            let ffn = bytes(&l.gate) + bytes(&l.up) + bytes(&l.down);
            always + router + ffn * config.experts_used.max(1) as u64 / config.experts.max(1) as u64
        };
        self.layers.iter().map(layer).sum::<u64>() + bytes(&self.output)
    }
}

fn tensor(gguf: &Gguf, name: &str, dims: &[usize]) -> Result<TensorInfo, EngineError> {
    let info = gguf.require_tensor(name)?;
    // A trailing dimension of one may be written or left out.
    let trimmed = |dims: &[usize]| {
        let end = dims.iter().rposition(|&d| d != 1).map_or(0, |i| i + 1);
        dims[..end].to_vec()
    };
    if trimmed(&info.dims) != trimmed(dims) {
        return Err(gguf.refuse(&format!("tensor {name} has shape {:?}; {dims:?} is expected", info.dims)));
    }
    Ok(info.clone())
}
