//! Tokens in, tokens out: GGUF, tokenizer, weights, kernels, forward pass, KV cache, sampler, threads.
//! Knows nothing of messages, tools, the user's files or terminals.

pub mod gguf;
pub mod quant;
pub mod sampler;
pub mod tokenizer;

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
    #[error("cancelled")]
    Cancelled,
}
