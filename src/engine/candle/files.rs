//! A GGUF file as candle wants to see it. Candle's own reader is not used: it would read the vocabulary too, knows no
//! shards, and the file was checked already. What candle's models ask for is written down from `ModelConfig`; tensors
//! stand one behind the other in a file that does not exist, and `Reader` reads them from the map.

use crate::engine::gguf::Gguf;
use crate::engine::quant::QuantType;
use crate::engine::weights::ModelConfig;
use candle_core::Shape;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, TensorInfo, Value, VersionedMagic};
use std::io::{self, Read, Seek, SeekFrom};

/// Types of experts for which candle has a kernel.
pub const EXPERTS: [QuantType; 6] =
    [QuantType::Q8_0, QuantType::Q2_K, QuantType::Q3_K, QuantType::Q4_K, QuantType::Q5_K, QuantType::Q6_K];

/// Candle's name of a type, if it has it.
pub fn kind(kind: QuantType) -> Option<GgmlDType> {
    Some(match kind {
        QuantType::F32 => GgmlDType::F32,
        QuantType::F16 => GgmlDType::F16,
        QuantType::BF16 => GgmlDType::BF16,
        QuantType::Q8_0 => GgmlDType::Q8_0,
        QuantType::Q4_0 => GgmlDType::Q4_0,
        QuantType::Q4_1 => GgmlDType::Q4_1,
        QuantType::Q5_0 => GgmlDType::Q5_0,
        QuantType::Q5_1 => GgmlDType::Q5_1,
        QuantType::Q2_K => GgmlDType::Q2K,
        QuantType::Q3_K => GgmlDType::Q3K,
        QuantType::Q4_K => GgmlDType::Q4K,
        QuantType::Q5_K => GgmlDType::Q5K,
        QuantType::Q6_K => GgmlDType::Q6K,
        _ => return None,
    })
}

/// Metadata and tensor directory; tensors of a type that candle does not have are left out.
pub fn content(gguf: &Gguf, config: &ModelConfig) -> Content {
    let arch = gguf.str("general.architecture").unwrap_or_default();
    let count = |n: usize| Value::U32(u32::try_from(n).unwrap_or(u32::MAX));
    let metadata = [
        ("block_count", count(config.layers)),
        ("context_length", count(config.context)),
        ("embedding_length", count(config.hidden)),
        ("attention.head_count", count(config.heads)),
        ("attention.head_count_kv", count(config.kv_heads)),
        ("attention.key_length", count(config.head_dim)),
        ("attention.layer_norm_rms_epsilon", Value::F32(config.eps)),
        ("rope.freq_base", Value::F32(config.rope_theta as f32)),
        ("expert_count", count(config.experts)),
        ("expert_used_count", count(config.experts_used)),
        ("expert_feed_forward_length", count(config.expert_ff)),
    ]
    .map(|(key, value)| (format!("{arch}.{key}"), value));
    let general = [
        ("general.architecture".to_string(), Value::String(arch.to_string())),
        // f32: else candle's qwen3 rounds positions and angles to f16, and those beyond a few hundred are wrong.
        ("general.dtype".to_string(), Value::U32(0)),
    ];
    let tensors = gguf.tensors().iter().zip(starts(gguf)).filter_map(|(tensor, start)| {
        let dims: Vec<usize> = tensor.dims.iter().rev().copied().collect();
        let info =
            TensorInfo { ggml_dtype: kind(tensor.kind)?, shape: Shape::from(dims), offset: start as u64 };
        Some((tensor.name.clone(), info))
    });
    Content {
        magic: VersionedMagic::GgufV3,
        metadata: metadata.into_iter().chain(general).collect(),
        tensor_infos: tensors.collect(),
        tensor_data_offset: 0,
    }
}

/// Where each tensor begins, and where the last one ends.
fn starts(gguf: &Gguf) -> Vec<usize> {
    let mut starts = vec![0];
    starts.extend(gguf.tensors().iter().scan(0, |end, tensor| {
        *end += tensor.range.len();
        Some(*end)
    }));
    starts
}

/// All tensors, one behind the other.
pub struct Reader<'a> {
    gguf: &'a Gguf,
    starts: Vec<usize>,
    at: u64,
}

impl<'a> Reader<'a> {
    pub fn new(gguf: &'a Gguf) -> Self {
        Self { gguf, starts: starts(gguf), at: 0 }
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let at = usize::try_from(self.at).unwrap_or(usize::MAX);
        let tensor = self.starts.partition_point(|&start| start <= at) - 1;
        let Some(info) = self.gguf.tensors().get(tensor) else { return Ok(0) };
        let bytes = &self.gguf.data(info)[at - self.starts[tensor]..];
        let n = bytes.len().min(out.len());
        out[..n].copy_from_slice(&bytes[..n]);
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let end = self.starts.last().map_or(0, |&end| end as u64);
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => end.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = to.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}
