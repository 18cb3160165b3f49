//! GGUF files: header, metadata, tensor directory, shards; memory-mapped, every field checked before use.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. A file is hostile input.
use super::EngineError;
use super::quant::QuantType;
use std::path::Path;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum MetaValue {
    U64(u64),
    I64(i64),
    F64(f64),
    Bool(bool),
    Str(String),
    Array(Vec<MetaValue>),
}

/// One tensor: `dims[0]` is the fastest (row length), as GGUF stores them.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    pub name: String,
    pub dims: Vec<usize>,
    pub kind: QuantType,
    /// Which shard, and the byte range in its map; checked to lie inside.
    pub shard: usize,
    pub range: std::ops::Range<usize>,
}

/// An open model file (all its shards), mapped read-only.
pub struct Gguf {}

impl Gguf {
    /// Opens `path` and, where it is one shard of several (`NAME-00001-of-00006.gguf`), its siblings.
    pub fn open(_path: &Path) -> Result<Self, EngineError> {
        Err(EngineError::BadModel("skeleton".into()))
    }
    pub fn meta(&self, _key: &str) -> Option<&MetaValue> {
        None
    }
    pub fn metadata(&self) -> &[(String, MetaValue)] {
        &[]
    }
    pub fn tensor(&self, _name: &str) -> Option<&TensorInfo> {
        None
    }
    pub fn tensors(&self) -> &[TensorInfo] {
        &[]
    }
    /// The bytes of a tensor, straight from the map.
    pub fn data(&self, _tensor: &TensorInfo) -> &[u8] {
        &[]
    }
}
