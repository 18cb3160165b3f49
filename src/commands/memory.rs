//! The memory a model is about to take: said before it is taken, and refused with the arithmetic where it cannot fit.
//! Mapped weights are no such memory, since the page cache gives way; where they do not fit beside the rest the
//! model still runs, at the speed of the disk, and that is said too.

use super::{Failure, exit};
use crate::engine::backend::{BackendKind, Place};
use crate::engine::gguf::Gguf;
use crate::engine::kv::KvType;
use crate::engine::memory::{self, Load, gb};
use crate::engine::weights::ModelConfig;
use crate::engine::{EngineOptions, working_bytes};

/// What is about to be asked of the system.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    pub weights: u64,
    pub place: Place,
    /// Bytes, tokens and type of the KV cache.
    pub kv: (u64, usize, KvType),
    /// Buffers of a pass.
    pub work: u64,
}

impl Ask {
    /// For a model in a file with `tokens` of context.
    pub fn of_file(
        backend: BackendKind,
        gguf: &Gguf,
        model: &ModelConfig,
        load: Load,
        kv: (usize, KvType),
    ) -> Self {
        let (tokens, kind) = (kv.0, backend.kv(kv.1));
        let weights = gguf.file_bytes().saturating_add(backend.bytes_beside_file(model));
        let kv = (backend.kv_bytes(model, tokens, kind), tokens, kind);
        let EngineOptions { threads, batch, .. } = EngineOptions::default();
        let work = working_bytes(model, batch.min(tokens), threads);
        Self { weights, place: backend.place(load), kv, work }
    }

    /// One line for stderr, or why it cannot be.
    pub fn announce(&self) -> Result<String, Failure> {
        self.against(memory::memory_available())
    }

    fn against(&self, free: Option<u64>) -> Result<String, Failure> {
        let (bytes, tokens, kind) = self.kv;
        let work = gb(self.work);
        let cache = format!("{} for the keys and values of {tokens} tokens ({})", gb(bytes), kind.name());
        let weights = gb(self.weights);
        let held = match self.place {
            Place::File => false,
            Place::Memory => true,
            Place::Device => {
                return Ok(format!(
                    "memory of the device: takes {weights} for weights, {cache} and {work} to work with"
                ));
            }
        };
        let own = bytes.saturating_add(self.work).saturating_add(if held { self.weights } else { 0 });
        if let Some(free) = memory::too_little(own, free) {
            let sum = match held {
                true => format!("{weights} of weights + {cache} + {work} to work with = {}", gb(own)),
                false => format!("{cache} + {work} to work with = {}", gb(own)),
            };
            return Err(Failure::new(
                exit::NO_MODEL,
                format!("not enough memory: {sum}, and {} are free", gb(free)),
            )
            .hint(
                "a shorter context (--ctx; in bench -p and -d) or --kv q8_0 takes less; weights in a file (--load map) take none",
            ));
        }
        let Some(free) = free else {
            return Ok(format!(
                "memory: {weights} of weights, {cache}, {work} to work with; how much is free is unknown"
            ));
        };
        if held {
            return Ok(format!(
                "memory: takes {weights} for weights, {cache} and {work} to work with, of {} free",
                gb(free)
            ));
        }
        let beyond = memory::too_little(own.saturating_add(self.weights), Some(free));
        let slow = if beyond.is_some() {
            "; they do not fit: runs from the map all the same, reading the disk again"
        } else {
            ""
        };
        Ok(format!(
            "memory: takes {cache} and {work} to work with, of {} free; {weights} of weights stay in the file{slow}",
            gb(free)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn ask(weights: u64, place: Place, kv: u64, free: impl Into<Option<u64>>) -> Result<String, String> {
        let gb = |n: u64| n * 1_000_000_000;
        Ask { weights: gb(weights), place, kv: (gb(kv), 4096, KvType::F16), work: 200_000_000 }
            .against(free.into().map(gb))
            .map_err(|failure| failure.message)
    }

    #[test]
    fn what_is_taken_is_said_and_what_cannot_be_is_refused_with_the_sum() {
        assert_eq!(
            ask(291, Place::File, 8, 24).unwrap(),
            "memory: takes 8.0 GB for the keys and values of 4096 tokens (f16) and 200 MB to work with, of 24.0 GB free; 291.0 GB of weights \
             stay in the file; they do not fit: runs from the map all the same, reading the disk again"
        );
        assert!(ask(10, Place::File, 8, 24).unwrap().ends_with("10.0 GB of weights stay in the file"));
        assert_eq!(
            ask(10, Place::Memory, 8, 24).unwrap(),
            "memory: takes 10.0 GB for weights, 8.0 GB for the keys and values of 4096 tokens (f16) and 200 MB to work with, \
             of 24.0 GB free"
        );
        assert_eq!(
            ask(18, Place::Memory, 8, 24).unwrap_err(),
            "not enough memory: 18.0 GB of weights + 8.0 GB for the keys and values of 4096 tokens (f16) + 200 MB to work \
             with = 26.2 GB, and 24.0 GB are free"
        );
        assert!(
            ask(1, Place::File, 25, 24).unwrap_err().starts_with("not enough memory: 25.0 GB for the keys")
        );
        assert!(ask(18, Place::Memory, 8, None).unwrap().ends_with("how much is free is unknown"));
        assert!(ask(18, Place::Device, 8, 1).unwrap().starts_with("memory of the device: takes 18.0 GB"));
    }

    #[test]
    fn a_backend_that_copies_weights_is_counted_as_such() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/oracle/tiny-qwen2-f32.gguf");
        let gguf = Gguf::open(&path).unwrap();
        let model = ModelConfig::from_gguf(&gguf).unwrap();
        let of = |backend, load| Ask::of_file(backend, &gguf, &model, load, (100, KvType::F16));
        let (map, copy) = (of(BackendKind::Native, Load::Map), of(BackendKind::Native, Load::Copy));
        assert_eq!((map.place, copy.place), (Place::File, Place::Memory));
        assert_eq!((map.weights, copy.weights), (gguf.file_bytes(), gguf.file_bytes()));
        let candle = of(BackendKind::Candle, Load::Map);
        assert_ne!(candle.place, Place::File);
        // Its keys and values are in f32, and so is its embedding, beside the file's.
        let rows = (model.kv_shape(KvType::F32).bytes_per_token() * 100) as u64;
        assert_eq!((candle.kv.0, candle.kv.2), (rows, KvType::F32));
        assert_eq!(candle.weights - map.weights, 4 * (model.vocab * model.hidden) as u64);
    }
}
