//! Byte-level BPE of Qwen, built from the GGUF's own vocabulary and merges.
use super::gguf::Gguf;
use super::{EngineError, TokenId};

pub struct Tokenizer {}

impl Tokenizer {
    pub fn from_gguf(_gguf: &Gguf) -> Result<Self, EngineError> {
        Err(EngineError::BadModel("skeleton".into()))
    }
    pub fn vocab_size(&self) -> usize {
        0
    }
    /// Encodes pieces as one text: `true` marks template text in which added tokens are recognised; runs of text
    /// between added tokens are pre-tokenised as one string, across pieces.
    pub fn encode_pieces(&self, _pieces: &[(bool, &str)]) -> Vec<TokenId> {
        Vec::new()
    }
    pub fn encode(&self, _text: &str, _added: bool) -> Vec<TokenId> {
        Vec::new()
    }
    /// The bytes of a token (an added token gives its text; unused padding gives nothing).
    pub fn bytes(&self, _id: TokenId) -> &[u8] {
        &[]
    }
    pub fn decode(&self, _ids: &[TokenId]) -> String {
        String::new()
    }
    /// Added token by its text, e.g. `<|im_end|>`.
    pub fn added(&self, _text: &str) -> Option<TokenId> {
        None
    }
    /// End-of-turn tokens: `<|im_end|>` and `<|endoftext|>`.
    pub fn stops(&self) -> &[TokenId] {
        &[]
    }
    /// True for ids that must never be sampled (padding, unused).
    pub fn never_sampled(&self, _id: TokenId) -> bool {
        false
    }
}
