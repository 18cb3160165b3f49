//! `qwright models list|plan|pull|path|rm`: what exists, what fits this machine, what is here, and getting it.

use super::{CommandResult, Failure, exit, load};
use crate::chat::escape::escape_line;
use crate::config::{Config, KvKind};
use crate::engine::bandwidth;
use crate::hub::{self, HubError, KvWidth, PullOptions, PullProgress, machine, plan};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub struct ModelsArgs {
    #[command(subcommand)]
    command: Option<ModelsCommand>,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// Every model of the catalogue, and which are here
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// What fits this machine's memory and disk, and how fast it would run
    Plan {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Tokens of context to plan for
        #[arg(long, default_value_t = 32_768, value_parser = clap::value_parser!(u64).range(256..=16_777_216))]
        ctx: u64,
        /// Type of the KV cache to plan for
        #[arg(long, default_value = "q8_0", value_parser = ["f32", "f16", "q8_0"])]
        kv: String,
    },
    /// Download a model; goes on where an earlier pull stopped
    Pull {
        /// NAME or NAME:QUANT, as `models list` shows them
        #[arg(default_value = hub::SMALLEST)]
        name: String,
        /// Connect to nothing: only say whether the model is here
        #[arg(long)]
        offline: bool,
    },
    /// Print a model's file (of the default model without NAME)
    Path { name: Option<String> },
    /// Remove a model's files, also half-pulled ones
    Rm {
        /// NAME or NAME:QUANT
        name: String,
    },
}

impl From<HubError> for Failure {
    fn from(e: HubError) -> Self {
        let code = match &e {
            HubError::Cancelled => exit::INTERRUPTED,
            HubError::Config(_) | HubError::UnknownQuant { .. } | HubError::Directory { .. } => exit::USAGE,
            _ => exit::NO_MODEL,
        };
        let failure = Failure::new(code, e.to_string());
        match e.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

pub fn run(args: &ModelsArgs, config: &Config, cancel: &AtomicBool) -> CommandResult {
    match args.command.as_ref().unwrap_or(&ModelsCommand::List { json: false }) {
        ModelsCommand::List { json } => list(config, *json),
        ModelsCommand::Plan { json, ctx, kv } => show_plan(config, *json, *ctx, kv),
        ModelsCommand::Pull { name, offline } => {
            let path = pull(name, *offline, config, cancel)?;
            println!("{}", path.display());
            Ok(exit::DONE)
        }
        ModelsCommand::Path { name } => {
            println!("{}", hub::locate(name.as_deref(), config)?.path.display());
            Ok(exit::DONE)
        }
        ModelsCommand::Rm { name } => remove(name, config),
    }
}

fn list(config: &Config, json: bool) -> CommandResult {
    // Without a home the catalogue can still be shown; nothing is here then.
    let dir = config.dirs.models().unwrap_or_default();
    if json {
        let rows: Vec<_> = hub::catalogue()
            .iter()
            .flat_map(|e| e.quants.iter().map(move |q| (e, q)))
            .map(|(e, q)| {
                serde_json::json!({
                    "model": e.short_name(), "name": e.name, "quant": q.name, "bytes": q.bytes,
                    "repository": e.repository, "format": e.format, "context": e.shape.context,
                    "path": hub::is_present(&dir, q).then(|| hub::first_file(&dir, q)),
                })
            })
            .collect();
        let others = hub::other_files(&dir);
        println!("{:#}", serde_json::json!({ "models": rows, "other_files": others }));
        return Ok(exit::DONE);
    }
    println!("{:<22} {:<7} {:>9}  {:<5} full name", "model", "quant", "file", "here");
    for entry in hub::catalogue() {
        for quant in &entry.quants {
            let here = if hub::is_present(&dir, quant) { "yes" } else { "-" };
            let size = hub::human(quant.bytes);
            println!("{:<22} {:<7} {size:>9}  {here:<5} {}", entry.short_name(), quant.name, entry.name);
        }
    }
    for path in hub::other_files(&dir) {
        println!("{}", escape_line(&path.display().to_string()));
    }
    Ok(exit::DONE)
}

fn show_plan(config: &Config, json: bool, ctx: u64, kv: &str) -> CommandResult {
    let dir = config.dirs.models()?;
    let machine = machine::Machine::measure();
    let question = plan::Question {
        machine: &machine,
        bandwidth: bandwidth::measure(load::load(config)).map(|measured| measured.bytes_per_second),
        disk_free: machine::disk_free(&dir),
        models_dir: &dir,
        ctx,
        kv: match kv.parse() {
            Ok(KvKind::F32) => KvWidth::F32,
            Ok(KvKind::Q8_0) => KvWidth::Q8,
            _ => KvWidth::F16,
        },
    };
    let rows = plan::plan(hub::catalogue(), &question);
    if json {
        let machine = serde_json::json!({
            "memory_total": machine.memory_total, "memory_available": machine.memory_available,
            "disk_free": question.disk_free, "cores": machine.cores, "bytes_per_second": question.bandwidth,
        });
        println!("{:#}", serde_json::json!({ "machine": machine, "ctx": ctx, "kv": kv, "models": rows }));
    } else {
        print!("{}", plan::table(&rows, &question));
    }
    Ok(exit::DONE)
}

/// Pulls with progress on stderr; what `models pull` and the demo do.
pub fn pull(
    name: &str,
    offline: bool,
    config: &Config,
    cancel: &AtomicBool,
) -> Result<std::path::PathBuf, Failure> {
    let (entry, quant) = hub::find(name)?;
    let mut options = PullOptions::from_env(config.dirs.models()?, &config.env);
    options.offline |= offline;
    let mut progress = Progress::new(std::io::stderr().is_terminal());
    let outcome = hub::pull(entry, quant, &options, cancel, &mut |p| progress.show(p));
    progress.end();
    Ok(outcome?)
}

fn remove(name: &str, config: &Config) -> CommandResult {
    let (entry, quant) = hub::find(name)?;
    let dir = config.dirs.models()?;
    // A bare name removes every quantisation that is here: the user asked for the model to go.
    let quants: Vec<_> = match name.contains(':') {
        true => vec![quant],
        false => entry.quants.iter().collect(),
    };
    let mut freed = 0;
    if dir.is_dir() {
        for quant in quants {
            freed += hub::remove(&dir, quant)?;
        }
    }
    if freed == 0 {
        return Err(HubError::NotPulled { name: name.to_string() }.into());
    }
    println!("{} freed", hub::human(freed));
    Ok(exit::DONE)
}

/// A bar on a terminal; elsewhere a plain line now and then.
struct Progress {
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
    /// The last figure told was the whole file.
    whole: bool,
}

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

impl Progress {
    fn new(terminal: bool) -> Self {
        let style = ProgressStyle::with_template(
            "{bar:30} {decimal_bytes:>10} of {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left  {msg}",
        );
        let bar = terminal.then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, last_line: None, whole: false }
    }

    fn show(&mut self, progress: PullProgress) {
        match progress {
            PullProgress::Source { file, source, index, count } => {
                let place = if count > 1 { format!(" ({index} of {count})") } else { String::new() };
                self.line(&format!("{file}{place} from {source}"));
            }
            PullProgress::Checking { file } => self.line(&format!("{file}: checking what is here already")),
            PullProgress::Note(note) => self.line(&note),
            PullProgress::Bytes { done, total } => match &self.bar {
                Some(bar) => {
                    bar.set_length(total.unwrap_or(done));
                    bar.set_position(done);
                }
                None => {
                    let whole =
                        total == Some(done) && !std::mem::replace(&mut self.whole, total == Some(done));
                    if whole || self.last_line.is_none_or(|t| t.elapsed() >= LINE_EVERY) {
                        self.last_line = Some(Instant::now());
                        let of = total.map(|t| format!(" of {}", hub::human(t))).unwrap_or_default();
                        eprintln!("{}{of}", hub::human(done));
                    }
                }
            },
        }
    }

    fn line(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(escape_line(text)),
            None => eprintln!("{}", escape_line(text)),
        }
    }

    fn end(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
