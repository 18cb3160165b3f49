//! Byte-level BPE of Qwen, built from the GGUF's own vocabulary and merges.
//!
//! Text becomes tokens in four steps: added tokens (`<|im_end|>`, `<tool_call>`, ...) are cut out of template text;
//! what stands between two of them is normalised to NFC; `pretokenize` cuts it into words; `bpe` merges each word.
//! Text of a user, a file or a command is never searched for added tokens, so it cannot end a turn. Which text is
//! template and which is content, the chat formats say. `vocabulary` reads and checks what the file holds.
mod bpe;
mod estimate;
mod pretokenize;
mod utf8;
mod vocabulary;

use super::gguf::Gguf;
use super::sampler::TokenMask;
use super::{EngineError, TokenId};
use bpe::{Bpe, Scratch};
pub use estimate::estimate;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};
pub use utf8::Utf8Stream;
pub use vocabulary::Parts;
use vocabulary::{Added, Pieces};

pub struct Tokenizer {
    pieces: Pieces,
    added: Added,
    /// By id: not in `base_mask`.
    unused: Vec<bool>,
    stops: Vec<TokenId>,
    bpe: Bpe,
}

impl Tokenizer {
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, EngineError> {
        vocabulary::from_gguf(gguf)
    }

    /// From a vocabulary that is in no file.
    pub fn from_parts(parts: &Parts) -> Result<Self, EngineError> {
        vocabulary::build(parts).map_err(EngineError::BadModel)
    }

    /// Ids are below this; with padding, so as many as the model has logits.
    /// Names the vocabulary: the same for files with the same tokens in the same order.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for id in 0..self.vocab_size() as TokenId {
            let bytes = self.bytes(id);
            hash.update((bytes.len() as u32).to_le_bytes());
            hash.update(bytes);
        }
        hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn vocab_size(&self) -> usize {
        self.unused.len()
    }

    /// Encodes pieces as one text: `true` marks template text in which added tokens are recognised; runs of text
    /// between added tokens are pre-tokenised as one string, across pieces. An added token is recognised within one
    /// piece, never across a border of two.
    pub fn encode_pieces(&self, pieces: &[(bool, &str)]) -> Vec<TokenId> {
        let mut ids = Vec::new();
        let mut scratch = Scratch::default();
        let mut between: Cow<str> = Cow::Borrowed("");
        for &(is_template, text) in pieces {
            let mut rest = text;
            while is_template && let Some((start, end, id)) = self.added.find(rest) {
                append(&mut between, &rest[..start]);
                self.encode_between(&between, &mut scratch, &mut ids);
                between = Cow::Borrowed("");
                ids.push(id);
                rest = &rest[end..];
            }
            append(&mut between, rest);
        }
        self.encode_between(&between, &mut scratch, &mut ids);
        ids
    }

    pub fn encode(&self, text: &str, added: bool) -> Vec<TokenId> {
        self.encode_pieces(&[(added, text)])
    }

    /// The tokens of text that is still being written, as far as no continuation changes them: without its last word, and
    /// without white space before more of it. `pieces` as for `encode_pieces`, but taken as they are, in any normal form.
    pub fn encode_settled(&self, pieces: &[(bool, &str)]) -> Vec<TokenId> {
        let mut ids = Vec::new();
        let mut scratch = Scratch::default();
        let mut between: Cow<str> = Cow::Borrowed("");
        for &(is_template, text) in pieces {
            let mut rest = text;
            while is_template && let Some((start, end, id)) = self.added.find(rest) {
                append(&mut between, &rest[..start]);
                for word in pretokenize::words(&between) {
                    self.bpe.encode(word.as_bytes(), &mut scratch, &mut ids);
                }
                between = Cow::Borrowed("");
                ids.push(id);
                rest = &rest[end..];
            }
            append(&mut between, rest);
        }
        let mut words: Vec<&str> = pretokenize::words(&between).collect();
        let mut last = words.pop();
        while let Some(before) = words.last()
            && last.is_some_and(|last| last.starts_with(char::is_whitespace))
            && before.chars().all(char::is_whitespace)
        {
            last = words.pop();
        }
        for word in words {
            self.bpe.encode(word.as_bytes(), &mut scratch, &mut ids);
        }
        ids
    }

    fn encode_between(&self, text: &str, scratch: &mut Scratch, ids: &mut Vec<TokenId>) {
        for word in pretokenize::words(&nfc(text)) {
            self.bpe.encode(word.as_bytes(), scratch, ids);
        }
    }

    /// The bytes of a token (an added token gives its text; unused padding gives nothing).
    pub fn bytes(&self, id: TokenId) -> &[u8] {
        self.pieces.get(id)
    }

    /// The text of `ids`; bytes that are no text become U+FFFD. For tokens as they come there is `Utf8Stream`.
    pub fn decode(&self, ids: &[TokenId]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Added token by its text, e.g. `<|im_end|>`.
    pub fn added(&self, text: &str) -> Option<TokenId> {
        self.added.get(text.as_bytes())
    }

    /// True for an added token, which `encode` makes of template text only.
    pub fn is_added(&self, id: TokenId) -> bool {
        self.added.get(self.bytes(id)) == Some(id)
    }

    /// End-of-turn tokens: `<|im_end|>` and `<|endoftext|>`, and what else the file names as its end of text.
    pub fn stops(&self) -> &[TokenId] {
        &self.stops
    }

    /// True for ids that must never be sampled (padding, unused), and for those beyond the vocabulary.
    pub fn never_sampled(&self, id: TokenId) -> bool {
        usize::try_from(id).ok().and_then(|id| self.unused.get(id)).copied().unwrap_or(true)
    }

    /// All that may be sampled, of `logits` tokens.
    pub fn base_mask(&self, logits: usize) -> TokenMask {
        let mut mask = TokenMask::none(logits);
        for (id, _) in (0..).zip(&self.unused).filter(|&(_, &unused)| !unused) {
            mask.allow(id);
        }
        mask
    }
}

/// Joins without copying where there is nothing to join.
fn append<'a>(text: &mut Cow<'a, str>, more: &'a str) {
    if text.is_empty() {
        *text = Cow::Borrowed(more);
    } else if !more.is_empty() {
        text.to_mut().push_str(more);
    }
}

fn nfc(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.nfc().collect())
    }
}
