//! Flags and subcommands. The help texts are the documentation of each.

use crate::commands::bench::BenchArgs;
use crate::commands::log::LogArgs;
use crate::commands::{self, CommandResult, Failure, exit, inspect_chat, load};
use crate::config::{Config, Env, LoadOptions};
use crate::engine::kv::KvType;
use crate::hub;
use clap::{Args, Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A coding agent for the terminal with its inference engine inside.
#[derive(Debug, Parser)]
#[command(name = "qwright", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub tui: commands::tui::TuiArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// Which model, and how it runs.
#[derive(Debug, Args, Clone, Default)]
pub struct ModelArgs {
    /// Model: a name of the catalogue (`qwright models list`) or the path of a GGUF file
    #[arg(short = 'm', long)]
    pub model: Option<String>,
    /// What runs the model: native (our engine) or candle, which takes its threads from RAYON_NUM_THREADS and has one
    /// kind of keys and values [default: native]
    #[arg(long)]
    pub backend: Option<String>,
    /// Threads [default: all cores]
    #[arg(short = 't', long)]
    pub threads: Option<usize>,
    /// Keys and values in f32, f16 or q8_0
    #[arg(long)]
    pub kv: Option<String>,
    /// Tokens of context [default: the model's, at most 32768]
    #[arg(long)]
    pub ctx: Option<usize>,
    /// Where the weights lie: map (in the file) or copy (in memory, in huge pages) [default: map]
    #[arg(long)]
    pub load: Option<String>,
}

/// What runs unasked, and what never runs.
#[derive(Debug, Args, Clone, Default)]
pub struct RuleArgs {
    /// Let such calls run unasked: a tool, with the first words of a command or a path where only those are meant, like
    /// `run_shell_command(cargo test)` or `edit(src/**)`. May be repeated
    #[arg(long, value_name = "RULE")]
    pub allow: Vec<String>,
    /// Never run such calls, whatever the mode and whatever is allowed. May be repeated
    #[arg(long, value_name = "RULE")]
    pub deny: Vec<String>,
}

impl RuleArgs {
    /// As `LoadOptions` takes them.
    pub fn flags(&self) -> impl Iterator<Item = (&'static str, String, &'static str)> {
        let allow = self.allow.iter().map(|rule| ("allow", rule.clone(), "--allow"));
        allow.chain(self.deny.iter().map(|rule| ("deny", rule.clone(), "--deny")))
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// A small broken project in a temporary folder, fixed before your eyes: the quick start
    Demo(commands::demo::DemoArgs),
    #[command(short_flag = 'p')]
    Exec(Box<commands::exec::ExecArgs>),
    Apply(commands::apply::ApplyArgs),
    /// Tokens per second of prefill and decode on this machine
    Bench {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        args: BenchArgs,
    },
    /// What exists, what fits this machine, download
    Models(commands::models::ModelsArgs),
    /// Every setting and where its value came from
    Config(commands::config::ConfigArgs),
    /// The sandbox of this machine: its tier, and a command inside it
    Sandbox(commands::sandbox::SandboxArgs),
    Tools(commands::tools::ToolsArgs),
    Sessions(commands::sessions::SessionsArgs),
    Completions(commands::completions::CompletionsArgs),
    /// What the model sees and says, as JSON lines
    #[command(subcommand)]
    Inspect(Inspect),
}

#[derive(Debug, Subcommand)]
pub enum Inspect {
    /// The header of a GGUF file
    Gguf { file: PathBuf },
    /// {"text", "added"?} -> {"ids"}
    Tokens {
        #[command(flatten)]
        model: ModelArgs,
    },
    /// {"messages", "tools"?, "add_generation_prompt"?} -> {"text"}
    Prompt {
        /// Print what a new session in this directory would send for TEXT (with -m: and how many tokens it is)
        #[arg(long, value_name = "TEXT")]
        session: Option<String>,
        #[command(flatten)]
        model: ModelArgs,
        /// qwen3-coder, hermes, hermes-qwen2.5 or thinking
        #[arg(long)]
        format: Option<String>,
    },
    /// {"tools", "output", "chunks"?, "prompt_opened_think"?} -> {"content", "calls", ...}
    Calls {
        #[command(flatten)]
        model: ModelArgs,
        /// qwen3-coder, hermes, hermes-qwen2.5 or thinking
        #[arg(long)]
        format: Option<String>,
    },
    /// {"tokens", "top"?} -> {"logits"} or {"top"}
    Logits {
        #[command(flatten)]
        model: ModelArgs,
        /// Kernel set: avx512-vnni, avx2 or scalar
        #[arg(long)]
        kernels: Option<String>,
    },
    /// The definitions of a source file, a JSON line each: {"kind", "name", "first_line", "last_line", "depth"}
    Outline { file: PathBuf },
}

impl ModelArgs {
    pub fn load_options(&self) -> LoadOptions {
        let mut flags = Vec::new();
        let mut flag = |key, value: Option<String>, flag| flags.extend(value.map(|value| (key, value, flag)));
        flag("model", self.model.clone(), "--model");
        flag("backend", self.backend.clone(), "--backend");
        flag("threads", self.threads.map(|n| n.to_string()), "--threads");
        flag("kv", self.kv.clone(), "--kv");
        flag("ctx", self.ctx.map(|n| n.to_string()), "--ctx");
        flag("load", self.load.clone(), "--load");
        LoadOptions { env: Env::of_process(), flags, ..LoadOptions::default() }
    }
    /// The settings with these flags on top.
    pub fn config(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.load_options())?)
    }
    /// The chat format by name, else the model's.
    fn format(&self, name: Option<&str>) -> Result<crate::chat::ChatFormat, Failure> {
        let path = if name.is_none() && self.model.is_some() { Some(self.path()?) } else { None };
        commands::inspect::format(name, path.as_deref())
    }
    pub fn path(&self) -> Result<PathBuf, Failure> {
        Ok(hub::locate(None, &self.config()?)?.path)
    }
}

impl Cli {
    pub fn run(self) -> CommandResult {
        self.log.begin(self.command.is_none())?;
        let result = self.carry_out();
        LogArgs::end(&result);
        result
    }

    fn carry_out(self) -> CommandResult {
        let Some(command) = self.command else { return commands::tui::command(self.tui) };
        match command {
            Command::Demo(args) => commands::demo::run(&args, interrupts()?),
            Command::Exec(args) => commands::exec::command(&args, interrupts()?),
            Command::Apply(args) => commands::apply::run(&args),
            Command::Bench { model, args } => commands::bench::run(&args, &model.config()?),
            Command::Inspect(Inspect::Outline { file }) => commands::inspect_outline::outline(&file),
            Command::Inspect(Inspect::Gguf { file }) => commands::inspect::gguf(&file),
            Command::Inspect(Inspect::Tokens { model }) => commands::inspect::tokens(&model.path()?),
            Command::Inspect(Inspect::Prompt { session: Some(request), model, format }) => {
                let chat =
                    format.as_deref().map(|name| commands::inspect::format(Some(name), None)).transpose()?;
                let config = model.config()?;
                commands::inspect_session::session(&config, model.model.is_some(), chat, &request)
            }
            Command::Inspect(Inspect::Prompt { session: None, model, format }) => {
                let format = model.format(format.as_deref())?;
                commands::inspect::lines(|line| inspect_chat::prompt_line(format, line))
            }
            Command::Inspect(Inspect::Calls { model, format }) => {
                let format = model.format(format.as_deref())?;
                commands::inspect::lines(|line| inspect_chat::calls_line(format, line))
            }
            Command::Inspect(Inspect::Logits { model, kernels }) => {
                let config = model.config()?;
                let (threads, kv) = (load::threads(&config), load::kv(&config, KvType::F32));
                commands::inspect::logits(
                    &model.path()?,
                    load::backend(&config),
                    threads,
                    kv,
                    kernels.as_deref(),
                )
            }
            Command::Models(args) => {
                commands::models::run(&args, &ModelArgs::default().config()?, interrupts()?.as_ref())
            }
            Command::Config(args) => {
                let options = ModelArgs::default().load_options();
                commands::config::run(&args, &options.in_repository(Path::new("."), false, true))
            }
            Command::Sandbox(args) => commands::sandbox::run(&args),
            Command::Tools(args) => commands::tools::run(&args, interrupts()?.as_ref()),
            Command::Sessions(args) => commands::sessions::run(&args, interrupts),
            Command::Completions(args) => commands::completions::run(&args),
        }
    }
}

/// A flag that Ctrl-C and a polite kill raise. A second Ctrl-C ends the program at once.
fn interrupts() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(exit::INTERRUPTED), flag.clone())
            .and_then(|_| signal_hook::flag::register(signal, flag.clone()))
            .map_err(|error| Failure::new(exit::USAGE, format!("signals cannot be handled: {error}")))?;
    }
    Ok(flag)
}
