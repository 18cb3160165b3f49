//! `qwright inspect gguf`: the header of a model file as JSON, for people and scripts. What a tensor holds is for
//! other inspections; this reads no weights. Arrays of more than a few values are shown by type, length and beginning,
//! because a vocabulary is not what anyone came for.
use crate::engine::gguf::{Gguf, MetaValue, NumberArray, StringArray};
use serde_json::{Map, Value, json};

/// Arrays up to this long are shown whole; of longer ones, this many values.
const SHOWN: usize = 8;

pub fn header_json(gguf: &Gguf) -> Value {
    let metadata: Map<String, Value> =
        gguf.metadata().iter().map(|(key, value)| (key.clone(), value_json(value))).collect();
    let tensors: Vec<Value> = gguf
        .tensors()
        .iter()
        .map(|tensor| {
            json!({
                "name": tensor.name,
                "type": tensor.kind.name(),
                "dims": tensor.dims,
                "shard": tensor.shard,
                "offset": tensor.range.start,
                "bytes": tensor.range.len(),
            })
        })
        .collect();
    json!({
        "file": gguf.path().to_string_lossy(),
        "version": gguf.version(),
        "shards": gguf.shard_count(),
        "bytes": gguf.file_bytes(),
        "types": types_json(gguf),
        "metadata": metadata,
        "tensors": tensors,
    })
}

/// How many tensors and bytes there are of each type, in order of appearance.
fn types_json(gguf: &Gguf) -> Value {
    let mut types: Vec<(&str, usize, usize)> = Vec::new();
    for tensor in gguf.tensors() {
        let name = tensor.kind.name();
        match types.iter_mut().find(|(known, ..)| *known == name) {
            Some((_, tensors, bytes)) => {
                *tensors += 1;
                *bytes += tensor.range.len();
            }
            None => types.push((name, 1, tensor.range.len())),
        }
    }
    let entry = |(name, tensors, bytes): (&str, usize, usize)| {
        (name.to_owned(), json!({"tensors": tensors, "bytes": bytes}))
    };
    Value::Object(types.into_iter().map(entry).collect())
}

fn value_json(value: &MetaValue) -> Value {
    match value {
        MetaValue::U64(v) => json!(v),
        MetaValue::I64(v) => json!(v),
        // JSON has no infinities; `null` stands for them.
        MetaValue::F64(v) => json!(v),
        MetaValue::Bool(v) => json!(v),
        MetaValue::Str(v) => json!(v),
        MetaValue::Strings(v) => strings_json(v),
        MetaValue::Numbers(v) => numbers_json(v),
        MetaValue::Array(v) => array_json("array", v.len(), v.iter().map(value_json)),
    }
}

fn strings_json(strings: &StringArray) -> Value {
    array_json("string", strings.len(), strings.iter().map(|bytes| json!(String::from_utf8_lossy(bytes))))
}

fn numbers_json(numbers: &NumberArray) -> Value {
    array_json(numbers.kind().name(), numbers.len(), numbers.iter().map(|number| value_json(&number)))
}

fn array_json(kind: &str, len: usize, values: impl Iterator<Item = Value>) -> Value {
    let first: Vec<Value> = values.take(SHOWN).collect();
    if len <= SHOWN { Value::Array(first) } else { json!({"array": kind, "len": len, "first": first}) }
}
