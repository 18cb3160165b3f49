//! How fast this machine reads memory: the ceiling that decoding is held against, and what an expected speed is worked
//! out from. No one loop gets the most out of every machine, so several are tried over a buffer far larger than the
//! caches, and the best pass counts. What a model reads per token is for `weights` to say.

use super::memory::{Anonymous, Load, memory_available};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// A measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bandwidth {
    pub bytes_per_second: f64,
    /// Size of the buffer that was read.
    pub buffer: u64,
}

const BUFFER: u64 = 4_000_000_000;
/// Below this, caches would be measured.
const LEAST: u64 = 512 << 20;
/// Passes of each loop.
const PASSES: usize = 4;
/// What a thread takes at a time in the loop that shares the work, as the threads of a forward pass do.
const CHUNK: usize = 1 << 20;

/// Reads 4 GB, or less where memory is short, on all cores, in pages of the kind that weights loaded so lie in (a core
/// can spend as long finding a small page as reading it); about two seconds. `None` where there is no room.
pub fn measure(load: Load) -> Option<Bandwidth> {
    let buffer = memory_available().map_or(BUFFER, |free| BUFFER.min(free / 4));
    if buffer < LEAST {
        return None;
    }
    measure_over(buffer as usize, load == Load::Copy)
}

fn measure_over(len: usize, huge: bool) -> Option<Bandwidth> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut buffer = Anonymous::new(len, huge).ok()?;
    // Written first: untouched pages would all be the same page of zeros.
    buffer.fill(threads, |at, part| part.fill((at >> 20) as u8 | 1));
    let mut best = 0f64;
    for _ in 0..PASSES {
        for streams in [1, 4] {
            best = best.max(pass(&buffer, threads, streams));
        }
        best = best.max(shared_pass(&buffer, threads));
    }
    Some(Bandwidth { bytes_per_second: best, buffer: len as u64 })
}

/// Every thread reads its own part of the buffer, as `streams` runs side by side; bytes per second.
fn pass(buffer: &[u8], threads: usize, streams: usize) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for part in buffer.chunks(buffer.len().div_ceil(threads)) {
            scope.spawn(move || {
                let run = part.len().div_ceil(streams);
                let runs: Vec<&[u8]> = part.chunks(run).collect();
                for at in (0..run).step_by(CHUNK / 16) {
                    for run in &runs {
                        std::hint::black_box(sum(run, at..at + CHUNK / 16));
                    }
                }
            });
        }
    });
    buffer.len() as f64 / start.elapsed().as_secs_f64()
}

/// The threads take the next chunk in order, whoever is free.
fn shared_pass(buffer: &[u8], threads: usize) -> f64 {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(CHUNK, Ordering::Relaxed);
                    if at >= buffer.len() {
                        return;
                    }
                    std::hint::black_box(sum(buffer, at..at + CHUNK));
                }
            });
        }
    });
    buffer.len() as f64 / start.elapsed().as_secs_f64()
}

/// Sums side by side, so that the loads, not the additions, are waited for. What lies beyond the end is left out.
fn sum(bytes: &[u8], range: Range<usize>) -> u64 {
    let bytes = &bytes[range.start.min(bytes.len())..range.end.min(bytes.len())];
    let mut sums = [0u64; 16];
    for line in bytes.as_chunks::<128>().0 {
        for (sum, word) in sums.iter_mut().zip(line.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_a_number() {
        let measured = measure_over(20 << 20, false).unwrap();
        assert!(measured.bytes_per_second > 0.0 && measured.bytes_per_second.is_finite());
        assert_eq!(measured.buffer, 20 << 20);
    }
}
