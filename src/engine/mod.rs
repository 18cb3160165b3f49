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
pub mod sampler;
pub mod score;
pub mod synthetic;
pub mod tokenizer;
pub mod weights;

pub use forward::Want;
use forward::{Buffers, Pass};
use gguf::Gguf;
use kernels::KernelSet;
use kv::{KvCache, KvShape, KvType};
use memory::Load;
use pool::Pool;
use std::path::Path;
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
}

impl Default for EngineOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads, kernels: KernelSet::best(), batch: 2048, load: Load::Map }
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
}

/// The tokens of one conversation and what the model keeps of them.
pub struct Sequence {
    cache: KvCache,
    tokens: Vec<TokenId>,
}

impl Sequence {
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }
    pub fn capacity(&self) -> usize {
        self.cache.capacity()
    }
    /// Forgets all but the first `n` tokens; exact, and costs nothing.
    pub fn truncate(&mut self, n: usize) {
        self.tokens.truncate(n);
    }
    /// Goes back to the first `at` tokens to try another continuation of at most `most` tokens; `put_back` undoes it.
    pub fn set_aside(&mut self, at: usize, most: usize) -> Aside {
        let at = at.min(self.tokens.len());
        let most = most.min(self.capacity() - at);
        let rows = self.cache.save(at, most.min(self.tokens.len() - at));
        Aside { at, most, tokens: self.tokens.split_off(at), rows }
    }
    /// What was set aside continues the sequence again, bit for bit, in place of what was tried.
    pub fn put_back(&mut self, aside: Aside) {
        debug_assert!(self.tokens.len() <= aside.at + aside.most);
        self.tokens.truncate(aside.at);
        self.cache.restore(aside.at, aside.most.min(aside.tokens.len()), &aside.rows);
        self.tokens.extend_from_slice(&aside.tokens);
    }
}

/// The end of a sequence while another one is tried in its place.
#[derive(Debug)]
pub struct Aside {
    at: usize,
    /// Tokens that may be tried: so many keys and values are kept.
    most: usize,
    tokens: Vec<TokenId>,
    rows: Vec<u8>,
}

impl Engine {
    pub fn open(path: &Path, options: EngineOptions) -> Result<Self, EngineError> {
        Self::new(Gguf::open(path)?, options)
    }

    pub fn new(gguf: Gguf, options: EngineOptions) -> Result<Self, EngineError> {
        let config = ModelConfig::from_gguf(&gguf)?;
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
        Ok(Self { config, weights, pool, options, buffers: Buffers::default() })
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

    /// An empty sequence with room for `context` tokens.
    pub fn sequence(&self, context: usize, kind: KvType) -> Sequence {
        Sequence { cache: KvCache::new(self.kv_shape(kind), context), tokens: Vec::new() }
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
        let needed = sequence.tokens.len() + tokens.len();
        if needed > sequence.capacity() {
            return Err(EngineError::ContextFull { needed, limit: sequence.capacity() });
        }
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= self.config.vocab) {
            return Err(EngineError::BadToken { token, vocab: self.config.vocab });
        }
        let mut logits = Vec::new();
        let mut done = 0;
        for batch in tokens.chunks(self.options.batch.max(1)) {
            let last = done + batch.len() == tokens.len();
            let wanted = if want == Want::Last && !last { Want::Nothing } else { want };
            let mut pass = Pass {
                config: &self.config,
                weights: &self.weights,
                pool: &mut self.pool,
                set: self.options.kernels,
                cancel,
            };
            let start = sequence.tokens.len();
            let (layers, mut told) = (self.config.layers, 0);
            let mut by_layer = |layer: usize| {
                // A batch may take seconds: what the layers come to is told as tokens.
                let part = batch.len() * layer / layers;
                if part >= told + PROGRESS && layer < layers {
                    told = part;
                    progress(done + part);
                }
            };
            let cache = &mut sequence.cache;
            logits.extend(pass.run(batch, start, cache, wanted, &mut self.buffers, &mut by_layer)?);
            sequence.tokens.extend_from_slice(batch);
            done += batch.len();
            progress(done);
        }
        Ok(logits)
    }
}
