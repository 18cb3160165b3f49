//! `--log FILE` and `-v`: what happens, a line each with its time, for whoever looks into a run afterwards. It is `tracing`'s
//! events of this program; nothing of it leaves the machine by itself.

use super::{CommandResult, Failure, exit};
use clap::{ArgAction, Args};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

#[derive(Debug, Args, Clone, Default)]
pub struct LogArgs {
    /// Write to the end of FILE what happens: sessions, turns, calls, commands, how long they took; no texts
    #[arg(long, value_name = "FILE", global = true)]
    pub log: Option<PathBuf>,
    /// Say on standard error what happens, twice: in all detail (where there is no screen)
    #[arg(short = 'v', long, action = ArgAction::Count, global = true)]
    pub verbose: u8,
}

impl LogArgs {
    /// From here on what happens is written down. `screen`: standard error is the screen's.
    pub fn begin(&self, screen: bool) -> Result<(), Failure> {
        let own = |level: Level| Targets::new().with_target("qwright", level);
        let file = self.log.as_ref().map(|path| {
            // It names commands and files, which are the user's own.
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
            file.map_err(|error| {
                Failure::new(exit::USAGE, format!("--log {}: {error}", path.display()))
                    .hint("name a file that can be written")
            })
        });
        let to_file = file.transpose()?.map(|file| {
            fmt::layer().with_ansi(false).with_writer(Mutex::new(file)).with_filter(own(Level::DEBUG))
        });
        let level = match self.verbose {
            0 => None,
            1 => Some(Level::INFO),
            _ => Some(Level::DEBUG),
        };
        let to_stderr = level.filter(|_| !screen).map(|level| {
            fmt::layer()
                .with_ansi(false)
                .with_target(false)
                .with_writer(std::io::stderr)
                .with_filter(own(level))
        });
        if to_file.is_some() || to_stderr.is_some() {
            tracing_subscriber::registry().with(to_file).with(to_stderr).init();
        }
        Ok(())
    }

    /// How it ended.
    pub fn end(result: &CommandResult) {
        match result {
            Ok(code) => tracing::info!(code, "ended"),
            Err(failure) => tracing::error!(code = failure.code, problem = %failure.message, "ended"),
        }
    }
}
