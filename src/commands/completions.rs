//! `qwright completions SHELL`: a script that completes commands, flags and their values, made from the flags themselves.

use super::{CommandResult, Failure, exit};
use crate::cli::Cli;
use clap::CommandFactory;
use clap_complete::{Shell, generate};
use std::io::Write;

/// A script for your shell that completes commands and flags
#[derive(Debug, clap::Args)]
#[command(after_help = "\
  bash  qwright completions bash > ~/.local/share/bash-completion/completions/qwright
  zsh   qwright completions zsh > a folder of $fpath, as _qwright
  fish  qwright completions fish > ~/.config/fish/completions/qwright.fish")]
pub struct CompletionsArgs {
    shell: Shell,
}

pub fn run(args: &CompletionsArgs) -> CommandResult {
    // Made in memory: a closed output is no reason to panic.
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "qwright", &mut script);
    match std::io::stdout().write_all(&script) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(exit::TASK_FAILED, format!("standard output: {error}")))
        }
        _ => Ok(exit::DONE),
    }
}
