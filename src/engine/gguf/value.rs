//! Metadata values. Scalars and single strings are owned; arrays stay where they are in the file and are decoded on
//! the way out, because a vocabulary of 150,000 strings must not become 150,000 allocations (nor let a hostile file
//! turn one byte of itself into forty bytes of ours). Reading back from the file is checked once more: another
//! process may have written to it since, and then a wrong value is acceptable where a panic is not.
use crate::engine::memory::Anonymous;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The bytes of one file: mapped, copied, or in memory from the first.
pub(super) enum Bytes {
    Map(memmap2::Mmap),
    Copy(Anonymous),
    Owned(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Map(map) => map,
            Bytes::Copy(memory) => memory,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum MetaValue {
    U64(u64),
    I64(i64),
    F64(f64),
    Bool(bool),
    Str(String),
    Strings(StringArray),
    Numbers(NumberArray),
    /// Arrays of arrays; no published model has one.
    Array(Vec<MetaValue>),
}

impl MetaValue {
    /// What a message calls it.
    pub fn kind_name(&self) -> &'static str {
        match self {
            MetaValue::U64(_) => "an unsigned integer",
            MetaValue::I64(_) => "a signed integer",
            MetaValue::F64(_) => "a float",
            MetaValue::Bool(_) => "a boolean",
            MetaValue::Str(_) => "a string",
            MetaValue::Strings(_) => "an array of strings",
            MetaValue::Numbers(_) => "an array of numbers",
            MetaValue::Array(_) => "an array of arrays",
        }
    }
}

/// What a key can be asked for as: `Gguf::get::<u64>("general.alignment")`.
pub trait FromMeta<'a>: Sized {
    /// What a message calls the type that was expected.
    const EXPECTED: &'static str;
    fn from_meta(value: &'a MetaValue) -> Option<Self>;
}

impl FromMeta<'_> for u64 {
    const EXPECTED: &'static str = "an unsigned integer";
    fn from_meta(value: &MetaValue) -> Option<Self> {
        match *value {
            MetaValue::U64(v) => Some(v),
            MetaValue::I64(v) => u64::try_from(v).ok(),
            _ => None,
        }
    }
}

impl FromMeta<'_> for f64 {
    const EXPECTED: &'static str = "a number";
    fn from_meta(value: &MetaValue) -> Option<Self> {
        match *value {
            MetaValue::F64(v) => Some(v),
            MetaValue::U64(v) => Some(v as f64),
            MetaValue::I64(v) => Some(v as f64),
            _ => None,
        }
    }
}

impl FromMeta<'_> for bool {
    const EXPECTED: &'static str = "a boolean";
    fn from_meta(value: &MetaValue) -> Option<Self> {
        match *value {
            MetaValue::Bool(v) => Some(v),
            _ => None,
        }
    }
}

impl<'a> FromMeta<'a> for &'a str {
    const EXPECTED: &'static str = "a string";
    fn from_meta(value: &'a MetaValue) -> Option<Self> {
        match value {
            MetaValue::Str(v) => Some(v),
            _ => None,
        }
    }
}

impl<'a> FromMeta<'a> for &'a StringArray {
    const EXPECTED: &'static str = "an array of strings";
    fn from_meta(value: &'a MetaValue) -> Option<Self> {
        match value {
            MetaValue::Strings(v) => Some(v),
            _ => None,
        }
    }
}

impl<'a> FromMeta<'a> for &'a NumberArray {
    const EXPECTED: &'static str = "an array of numbers";
    fn from_meta(value: &'a MetaValue) -> Option<Self> {
        match value {
            MetaValue::Numbers(v) => Some(v),
            _ => None,
        }
    }
}

/// An array of strings, as bytes: nothing says that the pieces of a vocabulary are UTF-8.
#[derive(Clone)]
pub struct StringArray {
    pub(super) bytes: Arc<Bytes>,
    /// Where each string's length prefix stands in the file.
    pub(super) offsets: Arc<[u64]>,
}

impl StringArray {
    pub fn len(&self) -> usize {
        self.offsets.len()
    }
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let at = usize::try_from(*self.offsets.get(index)?).ok()?;
        let (length, rest) = self.bytes.get(at..)?.split_first_chunk::<8>()?;
        rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)
    }
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index).unwrap_or_default())
    }
}

impl fmt::Debug for StringArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StringArray({})", self.len())
    }
}

impl PartialEq for StringArray {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// The scalar types of GGUF that are not strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberKind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    Bool,
}

impl NumberKind {
    /// By the number GGUF gives the type.
    pub(super) fn from_gguf(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }
    pub fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Bool => "bool",
        }
    }
    /// Decodes one value; `bytes` holds `size()` bytes (missing ones read as zero).
    pub(super) fn decode(self, bytes: &[u8]) -> MetaValue {
        let mut wide = [0u8; 8];
        for (to, from) in wide.iter_mut().zip(bytes) {
            *to = *from;
        }
        let bits = u64::from_le_bytes(wide);
        match self {
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => MetaValue::U64(bits),
            Self::I8 => MetaValue::I64(i64::from(bits as i8)),
            Self::I16 => MetaValue::I64(i64::from(bits as i16)),
            Self::I32 => MetaValue::I64(i64::from(bits as i32)),
            Self::I64 => MetaValue::I64(bits as i64),
            Self::F32 => MetaValue::F64(f64::from(f32::from_bits(bits as u32))),
            Self::F64 => MetaValue::F64(f64::from_bits(bits)),
            Self::Bool => MetaValue::Bool(bits != 0),
        }
    }
}

/// An array of numbers or booleans, as it lies in the file.
#[derive(Clone)]
pub struct NumberArray {
    pub(super) bytes: Arc<Bytes>,
    pub(super) kind: NumberKind,
    pub(super) start: usize,
    pub(super) len: usize,
}

impl NumberArray {
    pub fn kind(&self) -> NumberKind {
        self.kind
    }
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Each value as a scalar `MetaValue`.
    pub fn iter(&self) -> impl Iterator<Item = MetaValue> {
        let end = self.start.saturating_add(self.len.saturating_mul(self.kind.size()));
        let bytes = self.bytes.get(self.start..end).unwrap_or_default();
        bytes.chunks_exact(self.kind.size()).map(|value| self.kind.decode(value))
    }
    /// Each value as an integer; `None` where these are floats or booleans. A u64 above i64::MAX saturates.
    pub fn ints(&self) -> Option<impl Iterator<Item = i64>> {
        if matches!(self.kind, NumberKind::F32 | NumberKind::F64 | NumberKind::Bool) {
            return None;
        }
        Some(self.iter().map(|value| match value {
            MetaValue::U64(v) => i64::try_from(v).unwrap_or(i64::MAX),
            MetaValue::I64(v) => v,
            _ => 0,
        }))
    }
    /// Each value as a float; `None` where these are booleans.
    pub fn floats(&self) -> Option<impl Iterator<Item = f64>> {
        if self.kind == NumberKind::Bool {
            return None;
        }
        Some(self.iter().map(|value| f64::from_meta(&value).unwrap_or_default()))
    }
}

impl fmt::Debug for NumberArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NumberArray({}, {})", self.kind.name(), self.len)
    }
}

impl PartialEq for NumberArray {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.iter().eq(other.iter())
    }
}
