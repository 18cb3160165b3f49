//! The backend of other hardware: candle's own models of the dense files (qwen2, qwen3) and, on CUDA, of qwen3moe, on
//! the CPU or, where the features `cuda` or `metal` were compiled in, on that device. It is also a third opinion on
//! our engine's logits. `files` hands it the tensors; what can run is decided here, before candle sees a byte.
//!
//! Candle's models keep one hidden cache that only grows and give the logits of the last position alone. So this
//! remembers whose tokens the cache holds: a sequence that goes on from there is appended to, any other is computed
//! again from its first token, and logits of every position are had one token at a time. Candle's kernels differ with
//! the number of tokens of a pass, so logits agree with those of a fresh sequence to rounding, not bit for bit.
//! Candle chooses its own threads (`RAYON_NUM_THREADS`) and keeps keys and values in f32, embeddings too.

mod files;

use super::backend::{Backend, BackendKind, Setup};
use super::gguf::Gguf;
use super::kv::{KvCache, KvShape, KvType};
use super::weights::{Arch, ModelConfig, Weights};
use super::{EngineError, EngineOptions, Sequence, TokenId, Want};
use candle_core::{DType, Device, Tensor};
use candle_transformers::models::{quantized_qwen2, quantized_qwen3, quantized_qwen3_moe};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tokens of a pass of many that cost as much as one alone.
const ALONE: usize = 8;
/// Bytes of attention masks after which a model is loaded anew rather than cleared: candle's qwen2 keeps each for ever.
const MASKS: usize = 256 << 20;

enum Model {
    Qwen2(quantized_qwen2::ModelWeights),
    Qwen3(quantized_qwen3::ModelWeights),
    Qwen3Moe(quantized_qwen3_moe::GGUFQWenMoE),
}

pub struct CandleEngine {
    config: ModelConfig,
    gguf: Gguf,
    device: Device,
    batch: usize,
    model: Model,
    /// The tokens whose keys and values the model holds.
    held: Vec<TokenId>,
    /// A pass failed half-way: what the model holds is anyone's guess.
    broken: bool,
    /// Some were passed alone.
    alone: bool,
    masks: usize,
}

impl CandleEngine {
    pub fn open(path: &Path, options: EngineOptions) -> Result<Self, EngineError> {
        Self::new(Gguf::open(path)?, options)
    }

    pub fn new(gguf: Gguf, options: EngineOptions) -> Result<Self, EngineError> {
        let config = ModelConfig::from_gguf(&gguf)?;
        if options.context > config.context {
            let problem =
                "candle's models reach no further than they were trained for; --backend native does (YaRN)";
            return Err(gguf.refuse(problem));
        }
        // Candle trusts shapes; ours are checked.
        let gguf = Weights::new(gguf, &config)?.gguf;
        let device = device()?;
        runnable(&gguf, &config, &device)?;
        let model = load(&gguf, &config, &device)?;
        let batch = options.batch.max(1);
        let held = Vec::new();
        Ok(Self { config, gguf, device, batch, model, held, broken: false, alone: false, masks: 0 })
    }

    /// The tokens that need not be computed again.
    pub fn held(&self) -> &[TokenId] {
        &self.held
    }

    /// On the CPU candle's qwen3 hides tokens that were passed alone from later passes of more than one.
    fn hides_alone(&self) -> bool {
        matches!(self.model, Model::Qwen3(_)) && self.device.is_cpu()
    }

    /// Forgets every token.
    fn clear(&mut self) -> Result<(), EngineError> {
        if self.held.is_empty() && !self.broken {
            return Ok(());
        }
        match &mut self.model {
            Model::Qwen2(model) if self.masks < MASKS => model.clear_kv_cache(),
            Model::Qwen3(model) => model.clear_kv_cache(),
            // The cache of the MoE model cannot be reached.
            _ => {
                self.model = load(&self.gguf, &self.config, &self.device)?;
                self.masks = 0;
            }
        }
        self.held.clear();
        (self.broken, self.alone) = (false, false);
        Ok(())
    }

    /// One pass over `tokens`, which follow those that are held: the logits of the last.
    fn pass(&mut self, tokens: &[TokenId]) -> Result<Tensor, EngineError> {
        let at = self.held.len();
        self.held.extend_from_slice(tokens);
        if tokens.len() == 1 {
            self.alone = true;
        } else {
            self.masks += tokens.len() * self.held.len();
        }
        self.broken = true;
        let (model, device) = (&mut self.model, &self.device);
        let logits = device.with_context(|| {
            let input = Tensor::new(tokens, device)?.unsqueeze(0)?;
            let logits = match model {
                Model::Qwen2(model) => model.forward(&input, at),
                Model::Qwen3(model) => model.forward(&input, at),
                Model::Qwen3Moe(model) => model.forward(&input, at),
            };
            logits?.squeeze(0)?.to_dtype(DType::F32)
        });
        let logits = logits.map_err(|error| failed(&self.gguf, &error))?;
        self.broken = false;
        Ok(logits)
    }
}

impl Backend for CandleEngine {
    fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Which kernels ran and what they read is candle's own affair: it copies caches as they grow.
    fn setup(&self) -> Setup {
        let device = match &self.device {
            Device::Cpu => "cpu",
            Device::Cuda(_) => "cuda",
            Device::Metal(_) => "metal",
        };
        let threads = candle_core::utils::get_num_threads();
        let backend = BackendKind::Candle;
        Setup { backend, device, kernels: None, threads, load: None, bytes_per_token: None }
    }

    /// Its tokens are all there is to it: no layer's keys and values are kept here.
    fn sequence(&mut self, context: usize, kind: KvType) -> Sequence {
        let (heads, head_dim) = (self.config.kv_heads, self.config.head_dim);
        let shape = KvShape { layers: 0, heads, head_dim, kind };
        Sequence::new(KvCache::new(shape, context))
    }

    fn append(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[TokenId],
        want: Want,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<f32>, EngineError> {
        let kept = sequence.tokens.len();
        let (needed, vocab) = (kept + tokens.len(), self.config.vocab);
        // Candle's tables of angles end where the model's context does.
        let limit = sequence.capacity().min(self.config.context);
        if needed > limit {
            return Err(EngineError::ContextFull { needed, limit });
        }
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab) {
            return Err(EngineError::BadToken { token, vocab });
        }
        if self.broken || !sequence.tokens.starts_with(&self.held) {
            self.clear()?;
        }
        let all: Vec<TokenId> = sequence.tokens.iter().chain(tokens).copied().collect();
        // Tokens up to here may share a pass; after it each one's logits are wanted.
        let shared = if want == Want::All { kept } else { needed };
        let mut size = if matches!(self.model, Model::Qwen3Moe(_)) { 1 } else { self.batch };
        let rest = shared.saturating_sub(self.held.len());
        if self.alone && self.hides_alone() && rest > 1 {
            if rest * ALONE <= shared {
                size = 1;
            } else {
                self.clear()?;
            }
        }
        let mut logits = Vec::new();
        while self.held.len() < needed {
            if cancel.load(Ordering::Relaxed) {
                return Err(EngineError::Cancelled);
            }
            let at = self.held.len();
            let end = if at < shared { shared.min(at + size) } else { at + 1 };
            let last = self.pass(&all[at..end])?;
            if end > kept {
                sequence.tokens.extend_from_slice(&all[sequence.tokens.len()..end]);
                if want == Want::All || (want == Want::Last && end == needed) {
                    logits.extend(last.to_vec1::<f32>().map_err(|error| failed(&self.gguf, &error))?);
                }
                progress(end - kept);
            }
        }
        Ok(logits)
    }
}

/// The device that this binary was built for. None there is an error: what was asked for is not done slowly instead.
fn device() -> Result<Device, EngineError> {
    let (device, name) = if cfg!(feature = "cuda") {
        (Device::new_cuda(0), "CUDA")
    } else if cfg!(feature = "metal") {
        (Device::new_metal(0), "Metal")
    } else {
        return Ok(Device::Cpu);
    };
    device.map_err(|error| {
        let error = first_line(&error);
        EngineError::BadModel(format!("candle finds no {name} device ({error}); --backend native needs none"))
    })
}

/// Refuses, in one line that says what to do, a model that candle would refuse later, crash on or get wrong.
fn runnable(gguf: &Gguf, config: &ModelConfig, device: &Device) -> Result<(), EngineError> {
    const OTHERWISE: &str = "--backend native runs it";
    let refuse = |problem: &str| Err(gguf.refuse(&format!("{problem}; {OTHERWISE}")));
    if config.arch == Arch::Qwen3Moe && !device.is_cuda() {
        return refuse("candle runs qwen3moe on CUDA only (a build with --features cuda)");
    }
    if config.arch == Arch::Qwen2 && config.head_dim * config.heads != config.hidden {
        return refuse(
            "candle's qwen2 takes the heads' dimension from embedding_length, and here they differ",
        );
    }
    let name = gguf.str("general.architecture").unwrap_or_default();
    if gguf.str(&format!("{name}.rope.scaling.type")).is_some_and(|kind| kind != "none") {
        return refuse("candle's models scale no RoPE, and this file asks for it");
    }
    for tensor in gguf.tensors() {
        let experts = tensor.name.ends_with("_exps.weight");
        if files::kind(tensor.kind).is_none() || (experts && !files::EXPERTS.contains(&tensor.kind)) {
            return refuse(&format!(
                "candle cannot run tensors of type {} ({})",
                tensor.kind.name(),
                tensor.name
            ));
        }
    }
    Ok(())
}

fn load(gguf: &Gguf, config: &ModelConfig, device: &Device) -> Result<Model, EngineError> {
    let content = files::content(gguf, config);
    let mut reader = files::Reader::new(gguf);
    let model = match config.arch {
        Arch::Qwen2 => {
            quantized_qwen2::ModelWeights::from_gguf(content, &mut reader, device).map(Model::Qwen2)
        }
        Arch::Qwen3 => {
            quantized_qwen3::ModelWeights::from_gguf(content, &mut reader, device).map(Model::Qwen3)
        }
        // In half precision its positions beyond a few hundred would be rounded; its batches want half precision.
        // So it runs in f32, a token at a time.
        Arch::Qwen3Moe => {
            quantized_qwen3_moe::GGUFQWenMoE::from_gguf(content, &mut reader, device, DType::F32)
                .map(Model::Qwen3Moe)
        }
    };
    model.map_err(|error| failed(gguf, &error))
}

fn failed(gguf: &Gguf, error: &candle_core::Error) -> EngineError {
    gguf.refuse(&format!("candle: {}", first_line(error)))
}

/// Without the backtrace that candle may put below.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}
