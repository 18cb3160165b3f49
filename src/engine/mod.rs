//! Tokens in, tokens out: GGUF, tokenizer, weights, kernels, forward pass, KV cache, sampler, threads.
//! Knows nothing of messages, tools, the user's files or terminals.

mod attention;
pub mod backend;
pub mod bandwidth;
#[cfg(feature = "candle")]
pub mod candle;
mod forward;
pub mod gguf;
pub mod kernels;
pub mod kv;
pub mod memory;
pub mod ops;
pub mod pool;
pub mod quant;
pub mod recall;
mod rope;
pub mod sampler;
pub mod score;
mod sequence;
pub mod shared;
pub mod synthetic;
pub mod tokenizer;
pub mod weights;
pub mod yarn;

use forward::{Buffers, Part, Pass};
pub use forward::{Want, working_bytes};
use gguf::Gguf;
use kernels::KernelSet;
use kv::blocks::{BlockPool, SPARE, blocks_of};
use kv::snapshot::SnapshotStore;
use kv::{KvCache, KvShape, KvType};
use memory::Load;
use pool::Pool;
pub use sequence::Sequence;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use weights::{ModelConfig, Weights};

/// Index into the vocabulary.
pub type TokenId = u32;

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The file is not a model this engine can run: where and why, in one line.
    #[error("{0}")]
    BadModel(String),
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("{needed} tokens do not fit the context of {limit}")]
    ContextFull { needed: usize, limit: usize },
    #[error("memory for keys and values is used up: {held} tokens are in use and there is room for {limit}")]
    CacheFull { held: usize, limit: usize },
    #[error("token {token} is not in the vocabulary of {vocab}")]
    BadToken { token: TokenId, vocab: usize },
    #[error("cancelled")]
    Cancelled,
}

/// How to run a model.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    pub threads: usize,
    pub kernels: KernelSet,
    /// Tokens of a prefill batch.
    pub batch: usize,
    pub load: Load,
    /// Tokens that a sequence may reach, where they are more than the model's own: by YaRN. 0: no more.
    pub context: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads, kernels: KernelSet::best(), batch: 2048, load: Load::Map, context: 0 }
    }
}

/// Progress is told in steps of so many tokens, at least.
const PROGRESS: usize = 128;

/// A loaded model and the threads that run it.
pub struct Engine {
    pub config: ModelConfig,
    weights: Weights,
    pool: Pool,
    options: EngineOptions,
    buffers: Buffers,
    /// Memory for keys and values, by their type.
    pools: Vec<Arc<BlockPool>>,
    snapshots: Option<(Arc<BlockPool>, SnapshotStore)>,
}

impl Engine {
    pub fn open(path: &Path, options: EngineOptions) -> Result<Self, EngineError> {
        Self::new(Gguf::open(path)?, options)
    }

    pub fn new(gguf: Gguf, options: EngineOptions) -> Result<Self, EngineError> {
        let mut config = ModelConfig::from_gguf(&gguf)?;
        config.extend(options.context);
        // Everything is checked on the map before memory is taken for a copy.
        let weights = Weights::new(gguf, &config)?;
        let weights = match options.load {
            Load::Map => weights,
            Load::Copy => Weights { gguf: weights.gguf.copied(options.threads)?, ..weights },
        };
        Self::from_weights(config, weights, options)
    }

    fn from_weights(
        config: ModelConfig,
        weights: Weights,
        options: EngineOptions,
    ) -> Result<Self, EngineError> {
        let pool = Pool::new(options.threads.max(1))
            .map_err(|source| EngineError::Io { path: "engine threads".into(), source })?;
        Ok(Self {
            config,
            weights,
            pool,
            options,
            buffers: Buffers::default(),
            pools: Vec::new(),
            snapshots: None,
        })
    }

    pub fn gguf(&self) -> &Gguf {
        &self.weights.gguf
    }

    pub fn options(&self) -> EngineOptions {
        self.options
    }

    pub fn kv_shape(&self, kind: KvType) -> KvShape {
        self.config.kv_shape(kind)
    }

    /// Bytes of weights that decoding one token reads.
    pub fn bytes_per_token(&self) -> u64 {
        self.weights.bytes_per_token(&self.config)
    }

    /// The memory that sequences of this type share: grown to one context of `context` tokens and some blocks more.
    pub fn pool(&mut self, context: usize, kind: KvType) -> Arc<BlockPool> {
        let (shape, most) = (self.kv_shape(kind), blocks_of(context) + SPARE);
        if let Some(pool) = self.pools.iter().find(|pool| pool.shape() == shape) {
            pool.at_least(most);
            return pool.clone();
        }
        let pool = BlockPool::new(shape, most);
        self.pools.push(pool.clone());
        pool
    }

    /// An empty sequence with room for `context` tokens.
    pub fn sequence(&mut self, context: usize, kind: KvType) -> Sequence {
        Sequence::new(KvCache::of(&self.pool(context, kind), context))
    }

    /// Appends `tokens` in batches and returns the logits of the last one (or of all). `progress` is told how many
    /// are done, in the middle of a batch as well. When cancelled, whole batches that were done stay; the rest is as if
    /// never asked for.
    pub fn append(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[TokenId],
        want: Want,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<f32>, EngineError> {
        self.known(tokens)?;
        let (needed, limit) = (sequence.len() + tokens.len(), sequence.capacity());
        if needed > limit {
            return Err(EngineError::ContextFull { needed, limit });
        }
        let mut logits = Vec::new();
        let mut done = 0;
        for batch in tokens.chunks(self.options.batch.max(1)) {
            let last = done + batch.len() == tokens.len();
            let wanted = if want == Want::Last && !last { Want::Nothing } else { want };
            let (layers, mut told) = (self.config.layers, 0);
            let mut by_layer = |layer: usize| {
                // A batch may take seconds: what the layers come to is told as tokens.
                let part = batch.len() * layer / layers;
                if part >= told + PROGRESS && layer < layers {
                    told = part;
                    progress(done + part);
                }
            };
            logits.extend(self.pass(&mut [(sequence, batch)], wanted, cancel, &mut by_layer)?);
            done += batch.len();
            progress(done);
        }
        Ok(logits)
    }

    /// Appends to several sequences in one batch, each its own tokens: the weights are read once for all. Returns the
    /// logits of all tokens in order. On an error none has changed.
    pub fn append_many(
        &mut self,
        parts: &mut [(&mut Sequence, &[TokenId])],
        cancel: &AtomicBool,
    ) -> Result<Vec<f32>, EngineError> {
        parts.iter().try_for_each(|(_, tokens)| self.known(tokens))?;
        self.pass(parts, Want::All, cancel, &mut |_| {})
    }

    fn known(&self, tokens: &[TokenId]) -> Result<(), EngineError> {
        match tokens.iter().find(|&&token| token as usize >= self.config.vocab) {
            Some(&token) => Err(EngineError::BadToken { token, vocab: self.config.vocab }),
            None => Ok(()),
        }
    }

    fn pass(
        &mut self,
        parts: &mut [(&mut Sequence, &[TokenId])],
        want: Want,
        cancel: &AtomicBool,
        by_layer: &mut dyn FnMut(usize),
    ) -> Result<Vec<f32>, EngineError> {
        for (sequence, tokens) in parts.iter_mut() {
            sequence.prepare(tokens.len())?;
        }
        let mut pass = Pass {
            config: &self.config,
            weights: &self.weights,
            pool: &mut self.pool,
            set: self.options.kernels,
            cancel,
        };
        let mut batch: Vec<Part<'_>> = parts
            .iter_mut()
            .filter(|(_, tokens)| !tokens.is_empty())
            .map(|(sequence, tokens)| Part::new(tokens, sequence.tokens.len(), &mut sequence.cache))
            .collect();
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let logits = pass.run(&mut batch, want, &mut self.buffers, by_layer)?;
        for (sequence, tokens) in parts {
            sequence.tokens.extend_from_slice(tokens);
        }
        Ok(logits)
    }
}
