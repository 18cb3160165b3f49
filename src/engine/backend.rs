//! The seam for other hardware: all that the layers above need of whatever runs a model. A `Sequence` says which tokens
//! stand in a conversation, and may be cut back, set aside and continued at will; a backend appends to it and gives
//! logits. What a backend keeps between calls is its own affair, and what it cannot keep it computes again: a
//! sequence's tokens alone decide what comes out. `Engine` is the backend of this crate, `candle` the other.

use super::gguf::Gguf;
use super::kernels::KernelSet;
use super::kv::{KvType, blocks};
use super::memory::Load;
use super::recall::Snapshots;
use super::score::{self, Scored};
use super::weights::ModelConfig;
use super::{Engine, EngineError, EngineOptions, Sequence, TokenId, Want};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// What runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackendKind {
    /// The engine of this crate.
    #[default]
    Native,
    /// Candle's models, on the device that this binary was built for.
    Candle,
}

impl BackendKind {
    pub const ALL: [Self; 2] = [Self::Native, Self::Candle];
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Candle => "candle",
        }
    }
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
    /// The type it keeps keys and values in when asked for `kind`.
    pub fn kv(self, kind: KvType) -> KvType {
        match self {
            Self::Native => kind,
            Self::Candle => KvType::F32,
        }
    }
    /// Where the weights lie once a file is open.
    pub fn place(self, load: Load) -> Place {
        match (self, load) {
            (Self::Native, Load::Map) => Place::File,
            (Self::Native, Load::Copy) => Place::Memory,
            (Self::Candle, _) if cfg!(feature = "cuda") => Place::Device,
            // Metal's memory is the machine's.
            (Self::Candle, _) => Place::Memory,
        }
    }
    /// Bytes that keys and values of `tokens` take at most.
    pub fn kv_bytes(self, config: &ModelConfig, tokens: usize, kind: KvType) -> u64 {
        let shape = config.kv_shape(kind);
        match self {
            Self::Native => blocks::budget_bytes(&shape, tokens),
            Self::Candle => (shape.bytes_per_token() as u64).saturating_mul(tokens as u64),
        }
    }
    /// Bytes it makes of the weights beside those of the file: candle keeps embeddings in f32.
    pub fn bytes_beside_file(self, config: &ModelConfig) -> u64 {
        match self {
            Self::Native => 0,
            Self::Candle => 4 * config.vocab as u64 * config.hidden as u64,
        }
    }
    /// Opens a model file.
    pub fn open(self, path: &Path, options: EngineOptions) -> Result<Box<dyn Backend>, EngineError> {
        match self {
            Self::Native => Ok(Box::new(Engine::open(path, options)?)),
            #[cfg(feature = "candle")]
            Self::Candle => Ok(Box::new(super::candle::CandleEngine::open(path, options)?)),
            #[cfg(not(feature = "candle"))]
            Self::Candle => {
                let problem = "this qwright was built without candle: --backend native, or build it with --features candle";
                Err(EngineError::BadModel(problem.into()))
            }
        }
    }
}

/// Where weights lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the page cache, which gives way.
    File,
    /// In memory of this process.
    Memory,
    /// In the device's own.
    Device,
}

/// How a backend runs its model, for reports. What is not ours to choose, or not known, is `None`.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub backend: BackendKind,
    pub device: &'static str,
    pub kernels: Option<KernelSet>,
    pub threads: usize,
    pub load: Option<Load>,
    /// Bytes of weights that decoding one token reads.
    pub bytes_per_token: Option<u64>,
}

/// A loaded model and the hardware that runs it.
pub trait Backend: Send {
    fn gguf(&self) -> &Gguf;
    fn config(&self) -> &ModelConfig;
    fn setup(&self) -> Setup;
    /// An empty sequence with room for `context` tokens. It belongs to the backend that made it.
    fn sequence(&mut self, context: usize, kind: KvType) -> Sequence;
    /// Appends `tokens` and returns the logits of the last one (or of all). `progress` is told how many are done. When
    /// cancelled, what was done stays; the rest is as if never asked for. Appending nothing makes ready to go on from
    /// where the sequence ends, which takes time only where a cut makes the backend compute again.
    fn append(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[TokenId],
        want: Want,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<f32>, EngineError>;
    /// Appends to several sequences, each its own tokens; the logits of all in order.
    fn append_many(
        &mut self,
        parts: &mut [(&mut Sequence, &[TokenId])],
        cancel: &AtomicBool,
    ) -> Result<Vec<f32>, EngineError> {
        let mut logits = Vec::new();
        for (sequence, tokens) in parts {
            logits.extend(self.append(sequence, tokens, Want::All, cancel, &mut |_| {})?);
        }
        Ok(logits)
    }
    /// Makes `sequence`, which holds a beginning of `tokens` of at least a block, hold them all for measurements: where
    /// this backend can, with made-up keys and values in no time.
    fn pretend(&mut self, sequence: &mut Sequence, tokens: &[TokenId]) -> Result<(), EngineError> {
        let rest = &tokens[sequence.len()..];
        self.append(sequence, rest, Want::Nothing, &AtomicBool::new(false), &mut |_| {}).map(drop)
    }
    /// Keeps what `sequence` holds for others that begin as it does, where this backend can.
    fn remember(&mut self, _sequence: &Sequence) {}
    /// Makes `sequence` hold the longest beginning of `tokens` that is known; returns its length.
    fn recall(&mut self, sequence: &mut Sequence, tokens: &[TokenId]) -> usize {
        sequence.recall(tokens)
    }
    /// Keeps what is remembered on disk too, and finds it there; nothing where this backend cannot.
    fn keep_snapshots(&mut self, _kind: KvType, _snapshots: Snapshots<'_>) -> Result<(), EngineError> {
        Ok(())
    }
    /// What could not be used of what was kept, a line each.
    fn complaints(&mut self) -> Vec<String> {
        Vec::new()
    }
    /// Appends `tokens` and scores all but the first: each given what stands before it. `most` others a place.
    fn append_scored(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[TokenId],
        most: usize,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Scored>, EngineError> {
        score::append_scored(self, sequence, tokens, most, cancel, progress)
    }
}

impl Backend for Engine {
    fn gguf(&self) -> &Gguf {
        Engine::gguf(self)
    }
    fn config(&self) -> &ModelConfig {
        &self.config
    }
    fn setup(&self) -> Setup {
        let EngineOptions { threads, kernels, load, .. } = self.options();
        Setup {
            backend: BackendKind::Native,
            device: "cpu",
            kernels: Some(kernels),
            threads,
            load: Some(load),
            bytes_per_token: Some(self.bytes_per_token()),
        }
    }
    fn sequence(&mut self, context: usize, kind: KvType) -> Sequence {
        Engine::sequence(self, context, kind)
    }
    fn append_many(
        &mut self,
        parts: &mut [(&mut Sequence, &[TokenId])],
        cancel: &AtomicBool,
    ) -> Result<Vec<f32>, EngineError> {
        Engine::append_many(self, parts, cancel)
    }
    fn pretend(&mut self, sequence: &mut Sequence, tokens: &[TokenId]) -> Result<(), EngineError> {
        sequence.pretend(tokens)
    }
    fn remember(&mut self, sequence: &Sequence) {
        Engine::remember(self, sequence);
    }
    fn recall(&mut self, sequence: &mut Sequence, tokens: &[TokenId]) -> usize {
        Engine::recall(self, sequence, tokens)
    }
    fn keep_snapshots(&mut self, kind: KvType, snapshots: Snapshots<'_>) -> Result<(), EngineError> {
        Engine::keep_snapshots(self, kind, snapshots)
    }
    fn complaints(&mut self) -> Vec<String> {
        Engine::complaints(self)
    }
    fn append(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[TokenId],
        want: Want,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<f32>, EngineError> {
        Engine::append(self, sequence, tokens, want, cancel, progress)
    }
}
