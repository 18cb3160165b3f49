//! The memory a model is about to take: said before it is taken, and refused with the arithmetic where it cannot fit.
//! Mapped weights are no such memory, since the page cache gives way; where they do not fit beside the rest the
//! model still runs, at the speed of the disk, and that is said too.

use super::{Failure, exit};
use crate::engine::kv::KvType;
use crate::engine::memory::{Load, gb};
use crate::hub::machine::Machine;

/// What is about to be asked of the system.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    pub weights: u64,
    /// Whether the weights take memory of our own.
    pub held: bool,
    /// Bytes, tokens and type of the KV cache.
    pub kv: (u64, usize, KvType),
}

impl Ask {
    pub fn new(weights: u64, load: Load, kv: (u64, usize, KvType)) -> Self {
        Self { weights, held: load == Load::Copy, kv }
    }

    /// One line for stderr, or why it cannot be.
    pub fn announce(&self) -> Result<String, Failure> {
        self.against(Machine::measure().memory_available)
    }

    fn against(&self, free: Option<u64>) -> Result<String, Failure> {
        let (bytes, tokens, kind) = self.kv;
        let cache = format!("{} for the keys and values of {tokens} tokens ({})", gb(bytes), kind.name());
        let weights = gb(self.weights);
        let own = bytes.saturating_add(if self.held { self.weights } else { 0 });
        let Some(free) = free else {
            return Ok(format!("memory: {weights} of weights, {cache}; how much is free is unknown"));
        };
        if own > free {
            let sum = match self.held {
                true => format!("{weights} of weights + {cache} = {}", gb(own)),
                false => cache,
            };
            return Err(Failure::new(
                exit::NO_MODEL,
                format!("not enough memory: {sum}, and {} are free", gb(free)),
            )
            .hint(
                "a shorter context (--ctx; in bench -p and -d) or --kv q8_0 takes less; weights in a file (--load map) take none",
            ));
        }
        if self.held {
            return Ok(format!("memory: takes {weights} for weights and {cache}, of {} free", gb(free)));
        }
        let beyond = own.saturating_add(self.weights) > free;
        let slow = if beyond {
            "; they do not fit: runs from the map all the same, reading the disk again"
        } else {
            ""
        };
        Ok(format!(
            "memory: takes {cache}, of {} free; {weights} of weights stay in the file{slow}",
            gb(free)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(weights: u64, load: Load, kv: u64, free: u64) -> Result<String, String> {
        let gb = |n: u64| n * 1_000_000_000;
        Ask::new(gb(weights), load, (gb(kv), 4096, KvType::F16))
            .against(Some(gb(free)))
            .map_err(|failure| failure.message)
    }

    #[test]
    fn what_is_taken_is_said_and_what_cannot_be_is_refused_with_the_sum() {
        assert_eq!(
            ask(291, Load::Map, 8, 24).unwrap(),
            "memory: takes 8.0 GB for the keys and values of 4096 tokens (f16), of 24.0 GB free; 291.0 GB of weights \
             stay in the file; they do not fit: runs from the map all the same, reading the disk again"
        );
        assert!(ask(10, Load::Map, 8, 24).unwrap().ends_with("10.0 GB of weights stay in the file"));
        assert_eq!(
            ask(10, Load::Copy, 8, 24).unwrap(),
            "memory: takes 10.0 GB for weights and 8.0 GB for the keys and values of 4096 tokens (f16), of 24.0 GB free"
        );
        assert_eq!(
            ask(18, Load::Copy, 8, 24).unwrap_err(),
            "not enough memory: 18.0 GB of weights + 8.0 GB for the keys and values of 4096 tokens (f16) = 26.0 GB, \
             and 24.0 GB are free"
        );
        assert!(
            ask(1, Load::Map, 25, 24).unwrap_err().starts_with("not enough memory: 25.0 GB for the keys")
        );
    }
}
