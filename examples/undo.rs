//! Random edits and commands in a repository, then every turn taken back and compared byte for byte (`tests/it/undo`
//! runs a short one).
//!
//!     cargo build --release && cargo run --release --example undo -- [N] [SEED] [SEEDS]

#[path = "../tests/it/undo/history.rs"]
mod history;

use qwright::workspace::shell::{SandboxChoice, Shell, ShellSettings};
use std::time::Instant;

fn main() -> Result<(), history::Failure> {
    let numbers: Vec<u64> = std::env::args().skip(1).map(|word| word.parse()).collect::<Result<_, _>>()?;
    let number = |index: usize, usual: u64| numbers.get(index).copied().unwrap_or(usual);
    let (steps, first, seeds) = (number(0, 1000), number(1, 1), number(2, 1));
    // The commands are ours; the sandbox has tests of its own.
    let shell = Shell::with(ShellSettings {
        choice: SandboxChoice::None,
        helper: Some(std::env::current_exe()?.with_file_name("../qwright")),
        ..ShellSettings::default()
    });
    for seed in first..first + seeds {
        let started = Instant::now();
        let tally = history::run(&shell, steps as usize, seed, true)?;
        println!("seed {seed}: {tally}, {:.1} s", started.elapsed().as_secs_f64());
    }
    Ok(())
}
