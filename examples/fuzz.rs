//! Random answers of a model through the parser (`tests/it/chat/fuzz.rs` says what must hold).
//!
//!     cargo run --release --example fuzz -- [ANSWERS [SEED]]

#[path = "../tests/it/chat/fuzz.rs"]
mod fuzz;

use qwright::chat::ToolSpec;
use std::time::Instant;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let numbers: Vec<u64> = std::env::args().skip(1).map(|word| word.parse()).collect::<Result<_, _>>()?;
    let (answers, seed) =
        (numbers.first().copied().unwrap_or(1_000_000), numbers.get(1).copied().unwrap_or(1));
    let tools: serde_json::Value = serde_json::from_str(include_str!("../fixtures/chat/tools.json"))?;
    let tools = tools.as_array().into_iter().flatten();
    let specs: Vec<ToolSpec> =
        tools.map(|tool| serde_json::from_value(tool["function"].clone())).collect::<Result<_, _>>()?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let started = Instant::now();
    let tallies = std::thread::scope(|scope| {
        let part = |thread: u64| {
            let specs = &specs;
            let range = answers * thread / threads..answers * (thread + 1) / threads;
            scope.spawn(move || fuzz::run(specs, seed, range))
        };
        let parts: Vec<_> = (0..threads).map(part).collect();
        parts
            .into_iter()
            .map(|part| part.join().map_err(|_| "a thread panicked".to_string())?)
            .collect::<Result<Vec<_>, _>>()
    })?;
    let sum = |of: fn(&fuzz::Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    println!(
        "{} answers of {:.0} bytes on average, each whole, byte by byte and in pieces: no difference, no panic; {} calls read, \
         {} cut off, {} problems told; {:.0} s",
        sum(|tally| tally.answers),
        sum(|tally| tally.bytes) as f64 / answers.max(1) as f64,
        sum(|tally| tally.calls),
        sum(|tally| tally.truncated),
        sum(|tally| tally.problems),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}
