//! One file per subcommand, and how a command ends: an exit code with a message and a hint.

pub mod apply;
pub mod bench;
mod bench_progress;
pub mod bench_report;
mod bench_run;
pub mod completions;
pub mod config;
pub mod demo;
pub mod exec;
mod exec_attempts;
mod exec_input;
mod exec_patch;
mod exec_until;
pub mod inspect;
pub mod inspect_chat;
pub mod inspect_gguf;
pub mod inspect_outline;
pub mod inspect_session;
pub mod load;
pub mod log;
pub mod memory;
pub mod models;
mod rules;
pub mod sandbox;
pub mod sessions;
pub mod tools;
pub mod tui;

use crate::chat::escape::escape_line;
use crate::config::{Config, Dirs};
use crate::workspace::{Recovery, Workspace};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Exit codes, as documented in the README.
pub mod exit {
    pub const DONE: u8 = 0;
    pub const TASK_FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const DENIED: u8 = 3;
    pub const NO_SANDBOX: u8 = 4;
    pub const LIMIT: u8 = 5;
    pub const NO_MODEL: u8 = 6;
    pub const INTERRUPTED: u8 = 130;
}

/// Why a command ended otherwise than well. `main` prints it on stderr and exits with `code`.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: u8,
    pub message: String,
    /// What to do next; printed on its own line.
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What a command returns: the exit code of a run that ended as it should, or a failure.
pub type CommandResult = Result<u8, Failure>;

/// Has a workspace keep its records in the state directory, and says on standard error what became of changes that an
/// earlier process left unfinished.
fn use_state(workspace: &mut Workspace, state: &Path) -> Recovery {
    let recovery = workspace.use_state(state);
    recovery.lines().iter().for_each(|line| tell(line));
    recovery
}

/// Where the user's own settings are.
fn settings_directory(dirs: &Dirs) -> Option<PathBuf> {
    Some(dirs.config_file().ok()?.parent()?.to_path_buf())
}

/// Lets no tool write the user's own settings, where the workspace holds them.
fn close_settings(workspace: &mut Workspace, dirs: &Dirs) {
    settings_directory(dirs).iter().for_each(|directory| workspace.close(directory));
}

/// What a user is told of a repository's settings that were left unread.
fn not_trusted(config: &Config) -> Vec<String> {
    let told = config.ignored_file.iter().map(|file| {
        format!("{} is not read: this repository is not trusted (qwright --trust reads it)", file.display())
    });
    told.collect()
}

/// A line on standard error; one that nobody reads is lost.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "qwright: {}", escape_line(line));
}
