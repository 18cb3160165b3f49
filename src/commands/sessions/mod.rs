//! `qwright sessions`: what was said in earlier sessions, read from their logs. No model is loaded, but to replay one.
//! Which session is meant, and what a log holds, `agent::store` knows; `parts` tells it in order, `show` and `export`
//! write it down, `replay` runs it again. All that a log holds is escaped before it is printed.

mod export;
mod list;
mod parts;
mod remove;
mod replay;
mod show;

use super::{CommandResult, Failure, exit};
use crate::agent::Which;
use crate::agent::store::Stored;
use crate::cli::ModelArgs;
use crate::config::Config;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Earlier sessions: list, show, export or remove them, or run one again
#[derive(Debug, clap::Args)]
#[command(after_help = "\
ID is the id of a session, the beginning of one that only one has, or `latest`: the one that was last at work in this \
directory. A log that is damaged is read as far as it goes, and what was left out is said.

Exit codes: 0 done, 1 the replay came out differently, 2 usage (also: no such session, or it is at work).")]
pub struct SessionsArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// The directory whose sessions are meant [default: the current one]
    #[arg(short = 'C', long = "cd", value_name = "DIR", global = true)]
    directory: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// The sessions of this directory in which something was said, the latest first
    List(list::ListArgs),
    /// What was said and done, a line for each call of a tool
    Show {
        id: String,
    },
    /// A session as Markdown, or its log as JSON
    Export(export::ExportArgs),
    Rm(remove::RemoveArgs),
    Replay(Box<replay::ReplayArgs>),
}

/// `interrupts` is asked for only where something runs: elsewhere Ctrl-C ends the program.
pub fn run(args: &SessionsArgs, interrupts: fn() -> Result<Arc<AtomicBool>, Failure>) -> CommandResult {
    let place = Place::find(args.directory.as_deref())?;
    match args.action.as_ref().unwrap_or(&Action::List(list::ListArgs::default())) {
        Action::List(args) => list::run(args, &place),
        Action::Show { id } => {
            let stored = place.stored(id)?;
            out(&show::text(&stored))?;
            Ok(exit::DONE)
        }
        Action::Export(args) => export::run(args, &place.stored(&args.id)?),
        Action::Rm(args) => remove::run(args, &place),
        Action::Replay(args) => replay::run(args, &place.stored(&args.id)?, interrupts()?.as_ref()),
    }
}

/// Where sessions are looked for.
struct Place {
    state: PathBuf,
    /// The directory they worked in.
    root: PathBuf,
}

impl Place {
    fn find(directory: Option<&Path>) -> Result<Self, Failure> {
        let config = Config::load(&ModelArgs::default().load_options())?;
        let state = config.dirs.state().map_err(|error| {
            Failure::new(exit::USAGE, error.to_string()).hint("set HOME or XDG_STATE_HOME")
        })?;
        let directory = directory.unwrap_or(Path::new("."));
        let root = directory.canonicalize().map_err(|error| {
            Failure::new(exit::USAGE, format!("{}: {error}", directory.display()))
                .hint("name the directory of the session with -C")
        })?;
        Ok(Self { state, root })
    }

    fn stored(&self, id: &str) -> Result<Stored, Failure> {
        let which = if id == "latest" { Which::Latest } else { Which::Id(id.into()) };
        Stored::find(&self.state, &which, &self.root)
            .map_err(|error| Failure::new(exit::USAGE, error.message).hint(error.hint))
    }
}

/// Prints text that is escaped already. Whoever closed our output does not want the rest.
fn out(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(exit::TASK_FAILED, format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// A time as a person here reads it.
fn local_time(time: std::time::SystemTime) -> String {
    let stamp = jiff::Timestamp::try_from(time).unwrap_or_default();
    stamp.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}

/// The first line of a text, at most so many characters; with what says that there is more.
fn head(text: &str, most: usize) -> String {
    let text = text.trim();
    let line = text.lines().next().unwrap_or_default().trim_end();
    let cut: String = line.chars().take(most).collect();
    let more = text.lines().count().saturating_sub(1);
    match (cut.len() < line.len(), more) {
        (false, 0) => cut,
        (true, 0) => format!("{cut}..."),
        (_, 1) => format!("{cut}... (and a line)"),
        (_, more) => format!("{cut}... (and {more} lines)"),
    }
}

#[cfg(test)]
mod tests {
    use super::head;

    #[test]
    fn the_head_of_a_text_says_whether_there_is_more() {
        for (text, expected) in [
            ("", ""),
            (" one\n", "one"),
            ("four", "four"),
            ("fives", "five..."),
            ("one\ntwo", "one... (and a line)"),
            ("one\ntwo\nthree", "one... (and 2 lines)"),
        ] {
            assert_eq!(head(text, 4), expected);
        }
    }
}
