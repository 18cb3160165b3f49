//! `qwright bench`: tokens per second of prefill and decode on this machine, of a model's file or of made-up weights in
//! a model's shape, by any backend. Here a model is opened; `bench_run` runs the tests, `bench_report` works out what they
//! say and prints it.

use super::bench_progress::{Progress, Style};
use super::bench_report::Report;
use super::bench_run::{Repeats, Tests};
use super::memory::Ask;
use super::{CommandResult, Failure, exit, load};
use crate::config::Config;
use crate::engine::backend::{Backend, BackendKind, Place};
use crate::engine::kernels::KernelSet;
use crate::engine::kv::KvType;
use crate::engine::memory::{self, Load};
use crate::engine::synthetic::Synthetic;
use crate::engine::weights::{Arch, ModelConfig};
use crate::engine::{EngineError, EngineOptions, bandwidth, gguf::Gguf, working_bytes};
use crate::hub;
use crate::model::local;
use std::io::IsTerminal;
use std::sync::atomic::AtomicBool;

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
    /// Tokens of context already there when decoding starts (beyond 512, copies of those stand for them)
    #[arg(short = 'd', long, value_delimiter = ',', default_value = "0")]
    pub depth: Vec<usize>,
    /// Sequences that decode together; they share what is already there
    #[arg(long, value_delimiter = ',', default_value = "1")]
    pub batch: Vec<usize>,
    /// Runs of every test; the median counts [default: 5, and of what takes more than a minute one]
    #[arg(short = 'r', long)]
    pub repeats: Option<usize>,
    /// Kernel set: avx512-vnni, avx2 or scalar [default: the best this machine has]
    #[arg(long)]
    pub kernels: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Nothing on stderr while it runs
    #[arg(short = 'q', long)]
    pub quiet: bool,
}

/// A model to measure.
struct Opened {
    engine: Box<dyn Backend>,
    name: String,
    /// What was made up, where no file was read.
    made_up: Option<String>,
}

fn broken(error: EngineError) -> Failure {
    Failure::new(exit::NO_MODEL, error.to_string())
}

pub fn run(args: &BenchArgs, config: &Config) -> CommandResult {
    let backend = load::backend(config);
    native_only(args, backend)?;
    let kernels = kernel_set(args.kernels.as_deref())?;
    let options = EngineOptions {
        threads: load::threads(config),
        kernels,
        load: load::load(config),
        ..Default::default()
    };
    let kv = backend.kv(load::kv(config, KvType::Q8_0));
    let (stdout, stderr) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
    let style = Style::of(args.quiet, args.json, stdout, stderr);
    let mut progress = Progress::new(style);
    let repeats = Repeats::of(args.repeats);
    if let Some(wrong) = args.batch.iter().find(|size| !(1..=64).contains(*size)) {
        return Err(Failure::new(exit::USAGE, format!("a batch of {wrong} sequences is none of 1 to 64")));
    }
    let tests = Tests {
        prefill: &args.prefill,
        decode: args.decode,
        depths: &args.depth,
        batches: &args.batch,
        repeats,
    };
    let mut opened = match &args.shape {
        Some(name) => made_up(name, options, (tests.room(), kv), args.quiet, &mut progress)?,
        None => of_file(config, options, (tests.room(), kv), args.quiet, &mut progress)?,
    };
    let rows = tests.run(opened.engine.as_mut(), kv, &mut progress).map_err(broken)?;
    let setup = opened.engine.setup();
    let mut report = Report::new(opened.name, opened.made_up, &setup, kv, rows);
    report.peak_rss_mb = memory::peak_resident().map(mb);
    report.anonymous_rss_mb = memory::resident_beside_files().map(mb);
    // After the peak was read, and with the weights gone: the buffer is neither's.
    drop(opened.engine);
    progress.announce("measuring how fast memory reads");
    report.hold_against(bandwidth::measure(setup.load.unwrap_or_default()));
    report.bandwidth_huge_pages_gbs = bandwidth::measure(Load::Copy).map(|m| m.bytes_per_second / 1e9);
    progress.end();
    report.print(args.json);
    Ok(exit::DONE)
}

/// Refuses what another backend would leave out without a word.
fn native_only(args: &BenchArgs, backend: BackendKind) -> Result<(), Failure> {
    let refuse = |problem: &str, hint: &str| Err(Failure::new(exit::USAGE, problem).hint(hint));
    match backend {
        BackendKind::Candle if args.shape.is_some() => refuse(
            "made-up weights run on the native backend only",
            "leave --backend out, or name a file with -m",
        ),
        BackendKind::Candle if args.kernels.is_some() => {
            refuse("kernel sets are the native backend's", "leave --kernels out")
        }
        _ => Ok(()),
    }
}

fn mb(bytes: u64) -> u64 {
    bytes / 1_000_000
}

/// A model's file.
fn of_file(
    config: &Config,
    options: EngineOptions,
    kv: (usize, KvType),
    quiet: bool,
    progress: &mut Progress,
) -> Result<Opened, Failure> {
    let backend = load::backend(config);
    let path = hub::locate(None, config)?.path;
    let gguf = Gguf::open(&path).map_err(broken)?;
    let model = ModelConfig::from_gguf(&gguf).map_err(broken)?;
    let note = Ask::of_file(backend, &gguf, &model, options.load, kv).announce()?;
    if !quiet {
        eprintln!("{note}");
    }
    drop(gguf);
    let place = backend.place(options.load);
    if place != Place::File {
        progress.announce("copying the weights");
    }
    let engine = backend.open(&path, options).map_err(broken)?;
    // Every page once, so that no test pays for the disk.
    if place == Place::File {
        progress.begin("reading the file", 0);
        local::read_once(engine.gguf(), &AtomicBool::new(false), &mut |_, _| progress.at(0));
    }
    let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    Ok(Opened { engine, name, made_up: None })
}

/// Made-up weights in the shape of a catalogued model.
fn made_up(
    name: &str,
    options: EngineOptions,
    (room, kv): (usize, KvType),
    quiet: bool,
    progress: &mut Progress,
) -> Result<Opened, Failure> {
    let (entry, _) = hub::find(name)?;
    let plan = Synthetic::plan(config_of(&entry.shape)?, memory::last_level_cache()).map_err(broken)?;
    let cache = BackendKind::Native.kv_bytes(plan.config(), room, kv);
    let work = working_bytes(plan.config(), options.batch.min(room), options.threads);
    let ask = Ask { weights: plan.bytes, place: Place::Memory, kv: (cache, room, kv), work };
    let note = ask.announce()?;
    if !quiet {
        eprintln!("{note}");
    }
    progress.announce("making weights up");
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
    Ok(Opened { engine: Box::new(engine), name: entry.short_name().to_string(), made_up: Some(note) })
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
