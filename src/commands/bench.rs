//! `qwright bench`: tokens per second of prefill and decode on this machine, median and spread over repeats.

use super::{CommandResult, Failure, exit};
use crate::engine::kernels::KernelSet;
use crate::engine::kv::KvType;
use crate::engine::{Engine, EngineError, EngineOptions, Want};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// Prompt lengths to prefill, e.g. 512,2048
    #[arg(short = 'p', long, value_delimiter = ',', default_value = "512")]
    pub prefill: Vec<usize>,
    /// Tokens to decode
    #[arg(short = 'n', long, default_value_t = 64)]
    pub decode: usize,
    /// Tokens of context already there when decoding starts
    #[arg(short = 'd', long, value_delimiter = ',', default_value = "0")]
    pub depth: Vec<usize>,
    /// Repeats; the median counts
    #[arg(short = 'r', long, default_value_t = 3)]
    pub repeats: usize,
    /// Kernel set: avx512-vnni, avx2 or scalar [default: the best this machine has]
    #[arg(long)]
    pub kernels: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

struct Row {
    test: String,
    rates: Vec<f64>,
}

pub fn run(args: &BenchArgs, model: &Path, threads: usize, kv: KvType) -> CommandResult {
    let broken = |error: EngineError| Failure::new(exit::NO_MODEL, error.to_string());
    let kernels = kernel_set(args.kernels.as_deref())?;
    let mut engine =
        Engine::open(model, EngineOptions { threads, kernels, ..Default::default() }).map_err(broken)?;
    let cancel = AtomicBool::new(false);
    let vocab = engine.config.vocab;
    let tokens =
        |n: usize| -> Vec<u32> { (0..n).map(|i| ((i * 7919 + 13) % vocab.min(100_000)) as u32).collect() };
    let most = args.prefill.iter().chain(&args.depth).copied().max().unwrap_or(0) + args.decode + 1;
    let mut sequence = engine.sequence(most, kv);
    // Touch every page of the file once, so that no test pays for the disk.
    engine.append(&mut sequence, &tokens(1), Want::Last, &cancel, &mut |_| {}).map_err(broken)?;
    let mut rows = Vec::new();
    let mut timed = |test: String, run: &mut dyn FnMut() -> Result<(usize, f64), EngineError>| {
        let mut rates = Vec::new();
        for _ in 0..args.repeats.max(1) {
            let (n, seconds) = run().map_err(broken)?;
            rates.push(n as f64 / seconds);
        }
        rates.sort_by(f64::total_cmp);
        rows.push(Row { test, rates });
        Ok::<(), Failure>(())
    };
    for &n in args.prefill.iter().filter(|&&n| n > 0) {
        let prompt = tokens(n);
        timed(format!("pp{n}"), &mut || {
            sequence.truncate(0);
            let start = Instant::now();
            engine.append(&mut sequence, &prompt, Want::Last, &cancel, &mut |_| {})?;
            Ok((n, start.elapsed().as_secs_f64()))
        })?;
    }
    for &depth in args.depth.iter().filter(|_| args.decode > 0) {
        sequence.truncate(0);
        engine
            .append(&mut sequence, &tokens(depth.max(1)), Want::Nothing, &cancel, &mut |_| {})
            .map_err(broken)?;
        let name =
            format!("tg{}", args.decode) + &if depth > 0 { format!("@d{depth}") } else { String::new() };
        timed(name, &mut || {
            sequence.truncate(depth.max(1));
            let start = Instant::now();
            for token in tokens(args.decode) {
                engine.append(&mut sequence, &[token], Want::Last, &cancel, &mut |_| {})?;
            }
            Ok((args.decode, start.elapsed().as_secs_f64()))
        })?;
    }
    let ends = |row: &Row| {
        let r = &row.rates;
        (r[r.len() / 2], r.first().copied().unwrap_or(0.0), r.last().copied().unwrap_or(0.0))
    };
    if args.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let (tps, low, high) = ends(row);
                serde_json::json!({"test": row.test, "tps": tps, "tps_min": low, "tps_max": high})
            })
            .collect();
        println!(
            "{}",
            serde_json::json!({"kernels": kernels.name(), "threads": threads, "kv": kv.name(), "rows": rows})
        );
        return Ok(exit::DONE);
    }
    println!("kernels {}, {threads} threads, KV {}", kernels.name(), kv.name());
    for row in &rows {
        let (tps, low, high) = ends(row);
        println!("{:>12}  {tps:8.2} tokens/s  ({low:.2} to {high:.2})", row.test);
    }
    Ok(exit::DONE)
}

/// The kernel set by name, or the best; one this machine cannot run is refused.
pub fn kernel_set(name: Option<&str>) -> Result<KernelSet, Failure> {
    let Some(name) = name else { return Ok(KernelSet::best()) };
    match KernelSet::from_name(name) {
        Some(set) if set.available() => Ok(set),
        Some(set) => {
            Err(Failure::new(exit::USAGE, format!("this machine cannot run the {} kernels", set.name())))
        }
        None => Err(Failure::new(exit::USAGE, format!("no kernel set is called {name:?}"))
            .hint("choose avx512-vnni, avx2 or scalar")),
    }
}
