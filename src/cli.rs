//! Flags and subcommands. The help texts are the documentation of each.

use crate::commands::bench::BenchArgs;
use crate::commands::{self, CommandResult, Failure, exit, inspect_chat};
use crate::engine::kv::KvType;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// A coding agent for the terminal with its inference engine inside.
#[derive(Debug, Parser)]
#[command(name = "qwright", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// Which model, and how it runs.
#[derive(Debug, Args, Clone, Default)]
pub struct ModelArgs {
    /// Model: a name of the catalogue (`qwright models list`) or the path of a GGUF file
    #[arg(short = 'm', long)]
    pub model: Option<String>,
    /// Threads [default: all cores]
    #[arg(short = 't', long)]
    pub threads: Option<usize>,
    /// Keys and values in f32, f16 or q8_0
    #[arg(long)]
    pub kv: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tokens per second of prefill and decode on this machine
    Bench {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        args: BenchArgs,
    },
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
}

impl ModelArgs {
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| crate::engine::EngineOptions::default().threads).max(1)
    }
    pub fn kv(&self, default: KvType) -> Result<KvType, Failure> {
        let Some(name) = &self.kv else { return Ok(default) };
        KvType::from_name(name).ok_or_else(|| {
            Failure::new(exit::USAGE, format!("no KV type is called {name:?}"))
                .hint("choose f32, f16 or q8_0")
        })
    }
    /// The chat format by name, else the model's.
    fn format(&self, name: Option<&str>) -> Result<crate::chat::ChatFormat, Failure> {
        let path = if name.is_none() && self.model.is_some() { Some(self.path()?) } else { None };
        commands::inspect::format(name, path.as_deref())
    }
    pub fn path(&self) -> Result<PathBuf, Failure> {
        self.model.clone().map(PathBuf::from).ok_or_else(|| Failure::new(exit::NO_MODEL, "no model"))
    }
}

impl Cli {
    pub fn run(self) -> CommandResult {
        match self.command {
            Command::Bench { model, args } => {
                commands::bench::run(&args, &model.path()?, model.threads(), model.kv(KvType::F16)?)
            }
            Command::Inspect(Inspect::Gguf { file }) => commands::inspect::gguf(&file),
            Command::Inspect(Inspect::Tokens { model }) => commands::inspect::tokens(&model.path()?),
            Command::Inspect(Inspect::Prompt { model, format }) => {
                let format = model.format(format.as_deref())?;
                commands::inspect::lines(|line| inspect_chat::prompt_line(format, line))
            }
            Command::Inspect(Inspect::Calls { model, format }) => {
                let format = model.format(format.as_deref())?;
                commands::inspect::lines(|line| inspect_chat::calls_line(format, line))
            }
            Command::Inspect(Inspect::Logits { model, kernels }) => commands::inspect::logits(
                &model.path()?,
                model.threads(),
                model.kv(KvType::F32)?,
                kernels.as_deref(),
            ),
        }
    }
}
