//! GGUF files: header, metadata, tensor directory, shards; memory-mapped, every field checked before use.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little-endian.
//!
//! A file is hostile input. `header` holds it against the bytes that are there, so that whoever has a `Gguf` may take
//! a tensor's bytes without asking again; a file that was cut off is refused here, not by a signal later. What
//! the tensors mean, and whether a model is complete, is for the loader of weights to say.
//! `value` holds metadata; its arrays are read from the map when asked for.
#![allow(unsafe_code)]

mod checksum;
mod header;
mod value;

use super::EngineError;
use super::memory::{Anonymous, gb, too_little_for};
use super::quant::QuantType;
use header::{Header, quoted};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use value::Bytes;
pub use value::{FromMeta, MetaValue, NumberArray, NumberKind, StringArray};

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

impl TensorInfo {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }
    /// A tensor of an opened file has at least one value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Bytes of one row of `dims[0]` values.
    pub fn row_bytes(&self) -> usize {
        self.dims.first().map_or(0, |row| row / self.kind.block_len() * self.kind.block_bytes())
    }
}

/// An open model file (all its shards), mapped read-only.
pub struct Gguf {
    path: PathBuf,
    version: u32,
    shards: Vec<Arc<Bytes>>,
    metadata: Vec<(String, MetaValue)>,
    /// Key to its place in `metadata`.
    keys: HashMap<String, usize>,
    tensors: Vec<TensorInfo>,
    /// Name to its place in `tensors`.
    names: HashMap<String, usize>,
}

impl Gguf {
    /// Opens `path` and, where it is one shard of several (`NAME-00001-of-00006.gguf`), its siblings. Any shard will
    /// do; the metadata is the first one's.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let name = ShardName::of(path);
        let first_path = match &name {
            Some(name) => name.path(0),
            None => path.to_owned(),
        };
        if first_path != path && !first_path.exists() {
            // Say what the file at hand is before what it lacks.
            map(path)?;
            let problem =
                format!("it is one shard of a model and the first, {}, is missing", file_name(&first_path));
            return Err(refuse(path, &problem));
        }
        let (file, header) = read(&first_path, 0)?;
        let first = Split::of(&first_path, &header)?;
        match (&name, &first) {
            (None, None) => Self::assemble(first_path, vec![file], header, Vec::new()),
            (Some(name), None) if name.count == 1 => {
                Self::assemble(first_path, vec![file], header, Vec::new())
            }
            (Some(name), None) => {
                let problem = format!(
                    "it is named as one of {} shards and its metadata has no split.count",
                    name.count
                );
                Err(refuse(&first_path, &problem))
            }
            (None, Some(split)) => {
                let number = split.no.saturating_add(1);
                let problem = format!(
                    "it is shard {number} of {0}; the name of such a file must end in -{number:05}-of-{0:05}.gguf",
                    split.count
                );
                Err(refuse(&first_path, &problem))
            }
            (Some(name), Some(split)) => Self::open_shards(name, split, file, header),
        }
    }

    /// Reads a model of one file that is already in memory; `name` is what messages call it.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self, EngineError> {
        let path = PathBuf::from(name);
        let file = Arc::new(Bytes::Owned(bytes));
        let header = header::parse(&file, 0).map_err(|problem| located(&path, &problem))?;
        if let Some(split) = Split::of(&path, &header)? {
            return Err(refuse(&path, &format!("it is one of {} shards", split.count)));
        }
        Self::assemble(path, vec![file], header, Vec::new())
    }

    fn open_shards(
        name: &ShardName,
        first: &Split,
        file: Arc<Bytes>,
        header: Header,
    ) -> Result<Self, EngineError> {
        first.expect(&name.path(0), name, 0)?;
        let mut files = vec![file];
        let mut others = Vec::new();
        for number in 1..name.count {
            let path = name.path(number);
            if !path.exists() {
                let missing = file_name(&path);
                let problem = format!("shard {} of {}, {missing}, is missing", number + 1, name.count);
                return Err(refuse(&name.path(0), &problem));
            }
            let (file, header) = read(&path, number)?;
            match Split::of(&path, &header)? {
                Some(split) => {
                    split.expect(&path, name, number)?;
                    if split.tensors != first.tensors {
                        let (here, there) = (split.tensors, first.tensors);
                        let problem =
                            format!("split.tensors.count is {here} and the first shard says {there}");
                        return Err(refuse(&path, &problem));
                    }
                }
                None => {
                    return Err(refuse(&path, "it is named as a shard and its metadata has no split.count"));
                }
            }
            files.push(file);
            others.extend(header.tensors);
        }
        let gguf = Self::assemble(name.path(0), files, header, others)?;
        if gguf.tensors.len() as u64 != first.tensors {
            let (found, claimed) = (gguf.tensors.len(), first.tensors);
            let problem = format!("split.tensors.count is {claimed} and the shards hold {found} tensors");
            return Err(refuse(&gguf.path, &problem));
        }
        Ok(gguf)
    }

    fn assemble(
        path: PathBuf,
        shards: Vec<Arc<Bytes>>,
        header: Header,
        others: Vec<TensorInfo>,
    ) -> Result<Self, EngineError> {
        let Header { version, metadata, index: keys, mut tensors } = header;
        tensors.extend(others);
        let mut names = HashMap::with_capacity(tensors.len());
        for (place, tensor) in tensors.iter().enumerate() {
            if names.insert(tensor.name.clone(), place).is_some() {
                return Err(refuse(&path, &format!("tensor {} is in two shards", quoted(&tensor.name))));
            }
        }
        Ok(Self { path, version, shards, metadata, keys, tensors, names })
    }

    /// The same model with all its bytes in memory of our own. Refused, with the figures, where they do not fit.
    pub(super) fn copied(self, threads: usize) -> Result<Self, EngineError> {
        let needed = self.file_bytes();
        if let Some(free) = too_little_for(needed) {
            return Err(self.refuse(&format!(
                "to copy its weights takes {} and {} of memory are free; from the map (--load map) it runs all the same",
                gb(needed),
                gb(free)
            )));
        }
        let io = |source| EngineError::Io { path: self.path.display().to_string(), source };
        let mut shards = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let mut copy = Anonymous::new(shard.len(), true).map_err(io)?;
            copy.fill(threads, |at, part| part.copy_from_slice(&shard[at..at + part.len()]));
            shards.push(Arc::new(Bytes::Copy(copy)));
        }
        // The arrays of the metadata must not keep the map alive.
        let first = shards.first().ok_or_else(|| self.refuse("it has no shard"))?;
        let header = header::parse(first, 0).map_err(|problem| located(&self.path, &problem))?;
        Ok(Self { shards, metadata: header.metadata, keys: header.index, ..self })
    }

    /// Bytes that no file stands behind, and no directory: who made them up knows what lies where.
    pub(super) fn of_memory(name: &str, memory: Anonymous) -> Self {
        Self {
            path: PathBuf::from(name),
            version: 3,
            shards: vec![Arc::new(Bytes::Copy(memory))],
            metadata: Vec::new(),
            keys: HashMap::new(),
            tensors: Vec::new(),
            names: HashMap::new(),
        }
    }

    /// The first (or only) file.
    pub fn path(&self) -> &Path {
        &self.path
    }
    pub fn version(&self) -> u32 {
        self.version
    }
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }
    /// Whether the bytes come from files page by page as they are read, not from memory of our own.
    pub fn is_mapped(&self) -> bool {
        self.shards.iter().any(|shard| matches!(**shard, Bytes::Map(_)))
    }
    /// Bytes of all files together.
    pub fn file_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.len() as u64).sum()
    }

    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.names.get(name)?)
    }
    pub fn require_tensor(&self, name: &str) -> Result<&TensorInfo, EngineError> {
        self.tensor(name).ok_or_else(|| self.refuse(&format!("tensor {} is missing", quoted(name))))
    }
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }
    /// The bytes of a tensor, straight from the map.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        self.shards.get(tensor.shard).and_then(|shard| shard.get(tensor.range.clone())).unwrap_or_default()
    }

    pub fn metadata(&self) -> &[(String, MetaValue)] {
        &self.metadata
    }
    pub fn meta(&self, key: &str) -> Option<&MetaValue> {
        Some(&self.metadata.get(*self.keys.get(key)?)?.1)
    }
    /// The value of `key` if it is there; an error if it has another type than `T`.
    pub fn get<'a, T: FromMeta<'a>>(&'a self, key: &str) -> Result<Option<T>, EngineError> {
        let Some(value) = self.meta(key) else { return Ok(None) };
        match T::from_meta(value) {
            Some(value) => Ok(Some(value)),
            None => {
                let (found, expected) = (value.kind_name(), T::EXPECTED);
                Err(self.refuse(&format!("metadata key {} is {found}; {expected} is expected", quoted(key))))
            }
        }
    }
    /// The value of `key`; an error if it is absent or has another type than `T`.
    pub fn require<'a, T: FromMeta<'a>>(&'a self, key: &str) -> Result<T, EngineError> {
        self.get(key)?.ok_or_else(|| self.refuse(&format!("metadata key {} is missing", quoted(key))))
    }

    pub fn u64(&self, key: &str) -> Option<u64> {
        u64::from_meta(self.meta(key)?)
    }
    pub fn f64(&self, key: &str) -> Option<f64> {
        f64::from_meta(self.meta(key)?)
    }
    pub fn bool(&self, key: &str) -> Option<bool> {
        bool::from_meta(self.meta(key)?)
    }
    pub fn str(&self, key: &str) -> Option<&str> {
        FromMeta::from_meta(self.meta(key)?)
    }
    pub fn strings(&self, key: &str) -> Option<impl ExactSizeIterator<Item = &[u8]>> {
        Some(<&StringArray>::from_meta(self.meta(key)?)?.iter())
    }
    /// An array of integers of any width.
    pub fn ints(&self, key: &str) -> Option<impl Iterator<Item = i64>> {
        <&NumberArray>::from_meta(self.meta(key)?)?.ints()
    }
    /// An array of numbers of any type.
    pub fn floats(&self, key: &str) -> Option<impl Iterator<Item = f64>> {
        <&NumberArray>::from_meta(self.meta(key)?)?.floats()
    }
    pub fn require_u64(&self, key: &str) -> Result<u64, EngineError> {
        self.require(key)
    }
    pub fn require_f64(&self, key: &str) -> Result<f64, EngineError> {
        self.require(key)
    }
    pub fn require_str(&self, key: &str) -> Result<&str, EngineError> {
        self.require(key)
    }
    pub fn require_strings(&self, key: &str) -> Result<&StringArray, EngineError> {
        self.require(key)
    }

    /// An error about this file, for whoever finds that it is no model after all.
    pub fn refuse(&self, problem: &str) -> EngineError {
        refuse(&self.path, problem)
    }
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (keys, tensors) = (self.metadata.len(), self.tensors.len());
        write!(f, "Gguf({}, {keys} keys, {tensors} tensors)", self.path.display())
    }
}

fn refuse(path: &Path, problem: &str) -> EngineError {
    EngineError::BadModel(format!("{}: {problem}", path.display()))
}

fn located(path: &Path, problem: &header::Problem) -> EngineError {
    refuse(path, &format!("{} (at byte {})", problem.what, problem.at))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn map(path: &Path) -> Result<Arc<Bytes>, EngineError> {
    let io = |source| EngineError::Io { path: path.display().to_string(), source };
    // Before opening: opening a pipe would wait for a writer.
    let found = std::fs::metadata(path).map_err(io)?;
    if !found.is_file() {
        return Err(refuse(path, "not a file"));
    }
    if found.len() == 0 {
        return Err(refuse(path, "the file is empty"));
    }
    let file = File::open(path).map_err(io)?;
    // SAFETY: the map is read-only and handed out as `&[u8]`, any value of which is valid. That the file is
    // neither cut nor rewritten while it is mapped is asked of the user, as of every program that maps its model;
    // what is read here is checked for length first, so a file that was whole when opened stays readable.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
    Ok(Arc::new(Bytes::Map(map)))
}

fn read(path: &Path, shard: usize) -> Result<(Arc<Bytes>, Header), EngineError> {
    let file = map(path)?;
    let header = header::parse(&file, shard).map_err(|problem| located(path, &problem))?;
    Ok((file, header))
}

/// A file name of the form `NAME-00001-of-00006.gguf`.
struct ShardName {
    /// Directory and name up to the number.
    folder: PathBuf,
    stem: String,
    count: usize,
}

impl ShardName {
    fn of(path: &Path) -> Option<Self> {
        let (stem, count) = path.file_name()?.to_str()?.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (stem, number) = stem.rsplit_once('-')?;
        let digits = |text: &str| (text.len() == 5).then(|| text.parse::<usize>().ok()).flatten();
        let (number, count) = (digits(number)?, digits(count)?);
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        (1..=count).contains(&number).then(|| Self { folder, stem: stem.to_owned(), count })
    }
    /// The file of shard `number`, counted from zero.
    fn path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{}-{:05}-of-{:05}.gguf", self.stem, number + 1, self.count))
    }
}

/// What the metadata of a shard says about the set it belongs to.
struct Split {
    /// Counted from zero.
    no: u64,
    count: u64,
    tensors: u64,
}

impl Split {
    /// `None`: the file is whole.
    fn of(path: &Path, header: &Header) -> Result<Option<Self>, EngineError> {
        let number = |key: &str| -> Result<Option<u64>, EngineError> {
            let Some((_, value)) = header.index.get(key).and_then(|place| header.metadata.get(*place)) else {
                return Ok(None);
            };
            match u64::from_meta(value) {
                Some(value) => Ok(Some(value)),
                None => Err(refuse(
                    path,
                    &format!("{key} is {}; an unsigned integer is expected", value.kind_name()),
                )),
            }
        };
        let count = match number("split.count")? {
            None | Some(0 | 1) => return Ok(None),
            Some(count) => count,
        };
        let require =
            |key: &str| number(key)?.ok_or_else(|| refuse(path, &format!("metadata key {key} is missing")));
        Ok(Some(Self { no: require("split.no")?, count, tensors: require("split.tensors.count")? }))
    }

    fn expect(&self, path: &Path, name: &ShardName, number: usize) -> Result<(), EngineError> {
        if self.count != name.count as u64 {
            let problem = format!("split.count is {} and its name says {}", self.count, name.count);
            return Err(refuse(path, &problem));
        }
        if self.no != number as u64 {
            let problem =
                format!("split.no is {} (counted from 0) and its name says shard {}", self.no, number + 1);
            return Err(refuse(path, &problem));
        }
        Ok(())
    }
}
