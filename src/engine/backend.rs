//! The seam for other hardware: all that the layers above need of whatever runs a model. A `Sequence` says which tokens
//! stand in a conversation, and may be cut back, set aside and continued at will; a backend appends to it and gives
//! logits. What a backend keeps between calls is its own affair, and what it cannot keep it computes again: a
//! sequence's tokens alone decide what comes out. `Engine` is the backend of this crate, `candle` the other.

use super::gguf::Gguf;
use super::kv::KvType;
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

/// A loaded model and the hardware that runs it.
pub trait Backend: Send {
    fn gguf(&self) -> &Gguf;
    fn config(&self) -> &ModelConfig;
    /// An empty sequence with room for `context` tokens. It belongs to the backend that made it.
    fn sequence(&mut self, context: usize, kind: KvType) -> Sequence;
    /// Appends `tokens` and returns the logits of the last one (or of all). `progress` is told how many are done. When
    /// cancelled, what was done stays; the rest is as if never asked for.
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
