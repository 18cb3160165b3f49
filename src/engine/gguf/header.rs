//! The header of one GGUF file: magic, metadata, tensor directory, where the data begins. Pure: bytes in, `Header` or
//! one `Problem` out. Nothing is allocated on the word of a count: every loop ends where the bytes end, every
//! length is compared with what is left of the file, and limits far above any published model bound the rest.
use super::TensorInfo;
use super::value::{Bytes, MetaValue, NumberArray, NumberKind, StringArray};
use crate::engine::quant::QuantType;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A published file has about 40 keys and, unmerged experts included, at most 37,000 tensors.
const MAX_KEYS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 17;
/// The format's own limit is 65,535 for keys and 64 for tensor names.
const MAX_KEY_LEN: usize = 65_535;
const MAX_NAME_LEN: usize = 256;
/// Arrays of arrays: how deep, and how many in a whole file.
const MAX_DEPTH: usize = 4;
const MAX_INNER_ARRAYS: usize = 1 << 14;
const MAX_ALIGNMENT: u64 = 1 << 20;

/// What is wrong and at which byte.
#[derive(Debug)]
pub(super) struct Problem {
    pub at: usize,
    pub what: String,
}

type Checked<T> = Result<T, Problem>;

#[derive(Debug)]
pub(super) struct Header {
    pub version: u32,
    pub metadata: Vec<(String, MetaValue)>,
    /// Key to its place in `metadata`.
    pub index: HashMap<String, usize>,
    pub tensors: Vec<TensorInfo>,
}

/// A name out of the file, fit for one line of a message whatever it holds.
pub(super) fn quoted(name: &str) -> String {
    const SHOWN: usize = 80;
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}...", &name[..end]),
        None => format!("{name:?}"),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn fail<T>(&self, what: impl Into<String>) -> Checked<T> {
        Err(Problem { at: self.at, what: what.into() })
    }
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }
    fn take(&mut self, len: usize, what: &str) -> Checked<&'a [u8]> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        match end {
            Some(end) => {
                let taken = &self.bytes[self.at..end];
                self.at = end;
                Ok(taken)
            }
            None => {
                self.fail(format!("the file ends inside {what}: {len} bytes needed, {} left", self.left()))
            }
        }
    }
    fn array<const N: usize>(&mut self, what: &str) -> Checked<[u8; N]> {
        let taken = self.take(N, what)?;
        let mut out = [0; N];
        out.copy_from_slice(taken);
        Ok(out)
    }
    fn u32(&mut self, what: &str) -> Checked<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }
    fn u64(&mut self, what: &str) -> Checked<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }
    /// A length-prefixed run of bytes.
    fn string(&mut self, what: &str) -> Checked<&'a [u8]> {
        let start = self.at;
        let len = self.u64(what)?;
        match usize::try_from(len).ok().filter(|len| *len <= self.left()) {
            Some(len) => self.take(len, what),
            None => Err(Problem {
                at: start,
                what: format!("{what} claims {len} bytes and {} are left", self.left()),
            }),
        }
    }
    fn name(&mut self, what: &str, max: usize) -> Checked<&'a str> {
        let at = self.at;
        let bytes = self.string(what)?;
        if bytes.is_empty() || bytes.len() > max {
            return Err(Problem {
                at,
                what: format!("{what} is {} bytes long; 1 to {max} are allowed", bytes.len()),
            });
        }
        std::str::from_utf8(bytes).map_err(|_| Problem { at, what: format!("{what} is not UTF-8") })
    }
}

/// Parses the header of `file`, which is shard number `shard` of its model.
pub(super) fn parse(file: &Arc<Bytes>, shard: usize) -> Checked<Header> {
    let mut reader = Reader { bytes: file, at: 0 };
    let version = magic_and_version(&mut reader)?;
    let tensor_count = count(&mut reader, "tensors", MAX_TENSORS)?;
    let key_count = count(&mut reader, "metadata keys", MAX_KEYS)?;

    let mut values = ValueReader { file, inner_arrays: 0 };
    let mut metadata: Vec<(String, MetaValue)> = Vec::new();
    let mut index = HashMap::new();
    let mut alignment = 32;
    for number in 0..key_count {
        let at = reader.at;
        let key = reader.name(&format!("the name of metadata key {number}"), MAX_KEY_LEN)?.to_owned();
        let value_at = reader.at;
        let kind = reader.u32("the type of a metadata value")?;
        let value = values.value(&mut reader, kind, &key, 0)?;
        if key == "general.alignment" {
            alignment = checked_alignment(&value).map_err(|what| Problem { at: value_at, what })?;
        }
        if index.insert(key.clone(), metadata.len()).is_some() {
            return Err(Problem { at, what: format!("metadata key {} appears twice", quoted(&key)) });
        }
        metadata.push((key, value));
    }

    let mut entries = Vec::new();
    let mut names = HashSet::new();
    for number in 0..tensor_count {
        let entry = tensor_entry(&mut reader, number)?;
        if !names.insert(entry.name) {
            return Err(Problem {
                at: entry.at,
                what: format!("tensor {} appears twice", quoted(entry.name)),
            });
        }
        entries.push(entry);
    }
    let tensors = place(&entries, reader.at, alignment, file.len(), shard)?;
    Ok(Header { version, metadata, index, tensors })
}

fn magic_and_version(reader: &mut Reader<'_>) -> Checked<u32> {
    let magic: [u8; 4] = reader.array("the magic number")?;
    if &magic != b"GGUF" {
        return Err(Problem {
            at: 0,
            what: "not a GGUF file (it does not begin with the letters GGUF)".into(),
        });
    }
    let at = reader.at;
    let version = reader.u32("the format version")?;
    let what = match version {
        2 | 3 => return Ok(version),
        v if matches!(v.swap_bytes(), 1..=3) => {
            "a big-endian GGUF file; only little-endian ones are read".to_string()
        }
        v => format!("GGUF version {v}; versions 2 and 3 are read"),
    };
    Err(Problem { at, what })
}

fn count(reader: &mut Reader<'_>, what: &str, max: u64) -> Checked<u64> {
    let at = reader.at;
    let count = reader.u64(&format!("the number of {what}"))?;
    if count > max {
        return Err(Problem { at, what: format!("the file claims {count} {what}; at most {max} are read") });
    }
    Ok(count)
}

fn checked_alignment(value: &MetaValue) -> Result<u64, String> {
    match *value {
        MetaValue::U64(v) if v.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(&v) => Ok(v),
        MetaValue::U64(v) => {
            Err(format!("general.alignment is {v}; a power of two from 8 to {MAX_ALIGNMENT} is expected"))
        }
        _ => Err(format!("general.alignment is {}; an unsigned integer is expected", value.kind_name())),
    }
}

struct ValueReader<'f> {
    file: &'f Arc<Bytes>,
    inner_arrays: usize,
}

impl ValueReader<'_> {
    fn value(&mut self, reader: &mut Reader<'_>, kind: u32, key: &str, depth: usize) -> Checked<MetaValue> {
        const STRING: u32 = 8;
        const ARRAY: u32 = 9;
        // `what` is built only where a message needs it: this runs once per key, but arrays loop below.
        let what = || format!("the value of {}", quoted(key));
        match kind {
            STRING => {
                let bytes = reader.string(&what())?;
                Ok(MetaValue::Str(String::from_utf8_lossy(bytes).into_owned()))
            }
            ARRAY => {
                let element = reader.u32(&what())?;
                let at = reader.at;
                let len = reader.u64(&what())?;
                match element {
                    STRING => self.strings(reader, len, key, at),
                    ARRAY => self.nested(reader, len, key, at, depth),
                    _ => self.numbers(reader, element, len, key, at),
                }
            }
            _ => {
                let Some(number) = NumberKind::from_gguf(kind) else {
                    return reader.fail(format!("{} has type {kind}, which GGUF does not define", what()));
                };
                let at = reader.at;
                let bytes = reader.take(number.size(), &what())?;
                if number == NumberKind::Bool && bytes[0] > 1 {
                    return Err(Problem { at, what: format!("{} is a boolean of {}", what(), bytes[0]) });
                }
                Ok(number.decode(bytes))
            }
        }
    }

    fn strings(&self, reader: &mut Reader<'_>, len: u64, key: &str, at: usize) -> Checked<MetaValue> {
        let len = fitting(reader, len, 8, key, at)?;
        let mut offsets = Vec::with_capacity(len);
        for _ in 0..len {
            offsets.push(reader.at as u64);
            reader.string("a string of an array").map_err(|problem| Problem {
                at: problem.at,
                what: format!("{} (element {} of {})", problem.what, offsets.len() - 1, quoted(key)),
            })?;
        }
        Ok(MetaValue::Strings(StringArray { bytes: self.file.clone(), offsets: offsets.into() }))
    }

    fn numbers(
        &self,
        reader: &mut Reader<'_>,
        kind: u32,
        len: u64,
        key: &str,
        at: usize,
    ) -> Checked<MetaValue> {
        let Some(kind) = NumberKind::from_gguf(kind) else {
            let what = format!("{} is an array of type {kind}, which GGUF does not define", quoted(key));
            return Err(Problem { at, what });
        };
        let len = fitting(reader, len, kind.size(), key, at)?;
        let start = reader.at;
        reader.take(len * kind.size(), "an array")?;
        Ok(MetaValue::Numbers(NumberArray { bytes: self.file.clone(), kind, start, len }))
    }

    fn nested(
        &mut self,
        reader: &mut Reader<'_>,
        len: u64,
        key: &str,
        at: usize,
        depth: usize,
    ) -> Checked<MetaValue> {
        const ARRAY: u32 = 9;
        if depth + 1 >= MAX_DEPTH {
            let what = format!("{} nests arrays more than {MAX_DEPTH} deep", quoted(key));
            return Err(Problem { at, what });
        }
        let len = fitting(reader, len, 12, key, at)?;
        self.inner_arrays = self.inner_arrays.saturating_add(len);
        if self.inner_arrays > MAX_INNER_ARRAYS {
            let what =
                format!("{} brings the arrays inside arrays to more than {MAX_INNER_ARRAYS}", quoted(key));
            return Err(Problem { at, what });
        }
        let mut values = Vec::with_capacity(len);
        for _ in 0..len {
            values.push(self.value(reader, ARRAY, key, depth + 1)?);
        }
        Ok(MetaValue::Array(values))
    }
}

/// `len` as a usize if that many elements of at least `size` bytes can still follow.
fn fitting(reader: &Reader<'_>, len: u64, size: usize, key: &str, at: usize) -> Checked<usize> {
    match usize::try_from(len).ok().filter(|len| *len <= reader.left() / size) {
        Some(len) => Ok(len),
        None => Err(Problem {
            at,
            what: format!(
                "the array {} claims {len} elements and {} bytes are left",
                quoted(key),
                reader.left()
            ),
        }),
    }
}

/// A directory entry whose type and shape hold together; `place` then finds its bytes.
struct Entry<'a> {
    at: usize,
    name: &'a str,
    dims: Vec<usize>,
    kind: QuantType,
    bytes: usize,
    offset: u64,
}

fn tensor_entry<'a>(reader: &mut Reader<'a>, number: u64) -> Checked<Entry<'a>> {
    let at = reader.at;
    let name = reader.name(&format!("the name of tensor {number}"), MAX_NAME_LEN)?;
    let what = || format!("tensor {}", quoted(name));

    let dims_at = reader.at;
    let rank = reader.u32("the number of dimensions of a tensor")?;
    if !(1..=4).contains(&rank) {
        return Err(Problem {
            at: dims_at,
            what: format!("{} has {rank} dimensions; 1 to 4 are read", what()),
        });
    }
    let mut dims = Vec::with_capacity(rank as usize);
    let mut values: usize = 1;
    for _ in 0..rank {
        let at = reader.at;
        let dim = reader.u64("a dimension of a tensor")?;
        let sized = usize::try_from(dim).ok().filter(|dim| *dim > 0);
        match sized.and_then(|dim| Some((dim, values.checked_mul(dim)?))) {
            Some((dim, product)) => {
                dims.push(dim);
                values = product;
            }
            None if dim == 0 => {
                return Err(Problem { at, what: format!("{} has a dimension of zero", what()) });
            }
            None => {
                let what = format!("{} has a dimension of {dim}: more values than can be counted", what());
                return Err(Problem { at, what });
            }
        }
    }

    let kind_at = reader.at;
    let id = reader.u32("the type of a tensor")?;
    let Some(kind) = QuantType::from_ggml(id) else {
        let known = unread_type(id).map(|known| format!(" ({known})")).unwrap_or_default();
        let what = format!("{} has type {id}{known}, which this engine does not read", what());
        return Err(Problem { at: kind_at, what });
    };
    if dims[0] % kind.block_len() != 0 {
        let (name, len) = (kind.name(), kind.block_len());
        let what =
            format!("{} has rows of {} values, no multiple of the {len} of a {name} block", what(), dims[0]);
        return Err(Problem { at: dims_at, what });
    }
    let Some(bytes) = (values / kind.block_len()).checked_mul(kind.block_bytes()) else {
        return Err(Problem { at: dims_at, what: format!("{} has more bytes than can be counted", what()) });
    };
    let offset = reader.u64("the offset of a tensor")?;
    Ok(Entry { at, name, dims, kind, bytes, offset })
}

/// Names of tensor types that ggml defines and no model of this engine is published in.
fn unread_type(id: u32) -> Option<&'static str> {
    Some(match id {
        9 => "Q8_1",
        15 => "Q8_K",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        34 => "TQ1_0",
        35 => "TQ2_0",
        40 => "NVFP4",
        _ => return None,
    })
}

/// Finds the bytes of every tensor in a file of `file_len` bytes whose header ends at `header_end`.
fn place(
    entries: &[Entry<'_>],
    header_end: usize,
    alignment: u64,
    file_len: usize,
    shard: usize,
) -> Checked<Vec<TensorInfo>> {
    let data_start = (header_end as u64).next_multiple_of(alignment);
    let mut tensors = Vec::with_capacity(entries.len());
    for entry in entries {
        if entry.offset % alignment != 0 {
            let (name, offset) = (quoted(entry.name), entry.offset);
            let what =
                format!("tensor {name} lies at offset {offset}, no multiple of the alignment {alignment}");
            return Err(Problem { at: entry.at, what });
        }
        let start = data_start.checked_add(entry.offset).and_then(|start| usize::try_from(start).ok());
        let range = start.and_then(|start| Some(start..start.checked_add(entry.bytes)?));
        match range.filter(|range| range.end <= file_len) {
            Some(range) => tensors.push(TensorInfo {
                name: entry.name.to_owned(),
                dims: entry.dims.clone(),
                kind: entry.kind,
                shard,
                range,
            }),
            None => {
                let (name, bytes, offset) = (quoted(entry.name), entry.bytes, entry.offset);
                let what = format!(
                    "tensor {name} needs {bytes} bytes at {data_start} + {offset} and the file has {file_len}: it is cut off or damaged"
                );
                return Err(Problem { at: entry.at, what });
            }
        }
    }
    disjoint(entries, &tensors)?;
    Ok(tensors)
}

/// No writer lets tensors share bytes; where they do, the directory is wrong about at least one of them.
fn disjoint(entries: &[Entry<'_>], tensors: &[TensorInfo]) -> Checked<()> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_unstable_by_key(|&i| tensors[i].range.start);
    for pair in order.windows(2) {
        let (first, second) = (&tensors[pair[0]], &tensors[pair[1]]);
        if second.range.start < first.range.end {
            let what = format!("tensors {} and {} overlap", quoted(&first.name), quoted(&second.name));
            return Err(Problem { at: entries[pair[1]].at, what });
        }
    }
    Ok(())
}
