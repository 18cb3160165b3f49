//! `qwright bench`: tokens per second of prefill and decode on this machine, of a model's file or of made-up weights in
//! a model's shape. Here the tests are run; `bench_report` works out what they say and prints it.

use super::bench_report::{Report, Row};
use super::memory::Ask;
use super::{CommandResult, Failure, exit, load};
use crate::config::Config;
use crate::engine::kernels::KernelSet;
use crate::engine::kv::KvType;
use crate::engine::memory::{self, Load};
use crate::engine::synthetic::Synthetic;
use crate::engine::weights::{Arch, ModelConfig};
use crate::engine::{Engine, EngineError, EngineOptions, Want, bandwidth, gguf::Gguf};
use crate::hub;
use crate::model::local;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// The shape of a model of the catalogue (`qwright models list`) on made-up weights, without its file
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    pub shape: Option<String>,
    /// Prompt lengths to prefill, e.g. 512,2048
    #[arg(short = 'p', long, value_delimiter = ',', default_value = "512")]
    pub prefill: Vec<usize>,
    /// Tokens to decode
    #[arg(short = 'n', long, default_value_t = 64)]
    pub decode: usize,
    /// Tokens of context already there when decoding starts
    #[arg(short = 'd', long, value_delimiter = ',', default_value = "0")]
    pub depth: Vec<usize>,
    /// Repeats; the median counts. A test of more than a minute is not repeated
    #[arg(short = 'r', long, default_value_t = 3)]
    pub repeats: usize,
    /// Kernel set: avx512-vnni, avx2 or scalar [default: the best this machine has]
    #[arg(long)]
    pub kernels: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// A test that took so many seconds is not repeated.
const LONG: f64 = 60.0;

fn broken(error: EngineError) -> Failure {
    Failure::new(exit::NO_MODEL, error.to_string())
}

pub fn run(args: &BenchArgs, config: &Config) -> CommandResult {
    let kernels = kernel_set(args.kernels.as_deref())?;
    let threads = load::threads(config);
    let options = EngineOptions { threads, kernels, load: load::load(config), ..Default::default() };
    let kv = load::kv(config, KvType::F16);
    let room = args.prefill.iter().chain(&args.depth).copied().max().unwrap_or(0) + args.decode + 1;
    let (mut engine, model, made_up) = match &args.shape {
        Some(name) => made_up(name, options, kv, room)?,
        None => opened(config, options, kv, room)?,
    };
    let rows = tests(args, &mut engine, kv, room)?;
    let mut report = Report {
        model,
        made_up,
        kernels: kernels.name(),
        threads,
        kv: kv.name(),
        load: options.load.name(),
        bandwidth_gbs: None,
        bandwidth_buffer_gb: 0.0,
        bandwidth_huge_pages_gbs: None,
        weights_gb_per_token: engine.bytes_per_token() as f64 / 1e9,
        peak_rss_mb: memory::peak_resident().map(mb),
        anonymous_rss_mb: memory::resident_beside_files().map(mb),
        rows,
    };
    // After the peak was read, and with the weights gone: the buffer is neither's.
    drop(engine);
    report.hold_against(bandwidth::measure(options.load));
    report.bandwidth_huge_pages_gbs = bandwidth::measure(Load::Copy).map(|m| m.bytes_per_second / 1e9);
    report.print(args.json);
    Ok(exit::DONE)
}

fn mb(bytes: u64) -> u64 {
    bytes / 1_000_000
}

/// The engine on a model's file, its name, and nothing made up.
fn opened(
    config: &Config,
    options: EngineOptions,
    kv: KvType,
    room: usize,
) -> Result<(Engine, String, Option<String>), Failure> {
    let path = hub::locate(None, config)?.path;
    let gguf = Gguf::open(&path).map_err(broken)?;
    let shape = ModelConfig::from_gguf(&gguf).map_err(broken)?.kv_shape(kv);
    let kv = ((shape.bytes_per_token() * room) as u64, room, kv);
    eprintln!("{}", Ask::new(gguf.file_bytes(), options.load, kv).announce()?);
    let engine = Engine::new(gguf, options).map_err(broken)?;
    // Every page once, so that no test pays for the disk.
    local::read_once(engine.gguf(), &AtomicBool::new(false), &mut |_, _| {});
    let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    Ok((engine, name, None))
}

/// The engine on made-up weights in the shape of a catalogued model, its name, and what was made up.
fn made_up(
    name: &str,
    options: EngineOptions,
    kv: KvType,
    room: usize,
) -> Result<(Engine, String, Option<String>), Failure> {
    let (entry, _) = hub::find(name)?;
    let plan = Synthetic::plan(config_of(&entry.shape)?, memory::last_level_cache()).map_err(broken)?;
    let cache = (plan.config().kv_shape(kv).bytes_per_token() * room) as u64;
    eprintln!("{}", Ask::new(plan.bytes, Load::Copy, (cache, room, kv)).announce()?);
    let note = format!(
        "random weights in the shape of {}, Q4_K_M; its {} layers share the bytes of {}: {} are read before any byte \
         comes again, {:.0} times the last-level cache",
        entry.name,
        plan.config().layers,
        plan.distinct,
        memory::gb(plan.before_reuse),
        plan.before_reuse as f64 / memory::last_level_cache() as f64,
    );
    let engine = plan.engine(entry.short_name(), options).map_err(broken)?;
    Ok((engine, entry.short_name().to_string(), Some(note)))
}

fn config_of(shape: &hub::Shape) -> Result<ModelConfig, Failure> {
    let arch = Arch::from_name(&shape.arch)
        .ok_or_else(|| Failure::new(exit::NO_MODEL, format!("no architecture is called {}", shape.arch)))?;
    Ok(ModelConfig {
        arch,
        layers: shape.layers as usize,
        hidden: shape.hidden as usize,
        heads: shape.heads as usize,
        kv_heads: shape.kv_heads as usize,
        head_dim: shape.head_dim as usize,
        ff: shape.ff as usize,
        vocab: shape.vocab as usize,
        context: shape.context as usize,
        eps: 1e-6,
        rope_theta: 1e7,
        yarn: None,
        experts: shape.experts as usize,
        experts_used: shape.experts_used as usize,
        expert_ff: shape.expert_ff as usize,
    })
}

fn tests(args: &BenchArgs, engine: &mut Engine, kv: KvType, room: usize) -> Result<Vec<Row>, Failure> {
    let cancel = AtomicBool::new(false);
    let vocab = engine.config.vocab;
    let tokens =
        |n: usize| -> Vec<u32> { (0..n).map(|i| ((i * 7919 + 13) % vocab.min(100_000)) as u32).collect() };
    let (weights, kv_bytes) = (engine.bytes_per_token(), engine.kv_shape(kv).bytes_per_token() as u64);
    let mut sequence = engine.sequence(room, kv);
    // One token through everything: buffers are there before the first test.
    engine.append(&mut sequence, &tokens(1), Want::Last, &cancel, &mut |_| {}).map_err(broken)?;
    let repeated = |n: usize, run: &mut dyn FnMut() -> Result<f64, EngineError>| {
        let mut rates = Vec::new();
        for _ in 0..args.repeats.max(1) {
            let seconds = run().map_err(broken)?;
            rates.push(n as f64 / seconds);
            if seconds > LONG {
                break;
            }
        }
        Ok::<_, Failure>(rates)
    };
    let mut rows = Vec::new();
    for &n in args.prefill.iter().filter(|&&n| n > 0) {
        let prompt = tokens(n);
        let rates = repeated(n, &mut || {
            sequence.truncate(0);
            let start = Instant::now();
            engine.append(&mut sequence, &prompt, Want::Last, &cancel, &mut |_| {})?;
            Ok(start.elapsed().as_secs_f64())
        })?;
        rows.push(Row::new(format!("pp{n}"), rates, None));
    }
    for &depth in args.depth.iter().filter(|_| args.decode > 0) {
        sequence.truncate(0);
        engine
            .append(&mut sequence, &tokens(depth.max(1)), Want::Nothing, &cancel, &mut |_| {})
            .map_err(broken)?;
        let rates = repeated(args.decode, &mut || {
            sequence.truncate(depth.max(1));
            let start = Instant::now();
            for token in tokens(args.decode) {
                engine.append(&mut sequence, &[token], Want::Last, &cancel, &mut |_| {})?;
            }
            Ok(start.elapsed().as_secs_f64())
        })?;
        let name =
            format!("tg{}", args.decode) + &if depth > 0 { format!("@d{depth}") } else { String::new() };
        // The keys and values before the middle one of the tokens.
        let context = depth.max(1) + args.decode.div_ceil(2);
        rows.push(Row::new(name, rates, Some(weights + kv_bytes * context as u64)));
    }
    Ok(rows)
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
