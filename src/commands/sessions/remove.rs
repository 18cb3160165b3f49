//! `qwright sessions rm`: removes logs, after asking, and nothing else.

use super::{CommandResult, Failure, Place, exit, head, out};
use crate::agent::store::{self, Stored};
use crate::chat::escape::escape_line;
use std::io::{BufRead, IsTerminal, Write};

/// Remove sessions: their logs, which hold all of what was said and all outputs
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Files that a session changed stay as they are. Keys and values that models keep between sessions (`kv` in the state \
directory) belong to no session alone: they keep to their own budget, and can be removed as a whole at any time.")]
pub struct RemoveArgs {
    #[arg(required = true)]
    ids: Vec<String>,
    /// Without asking
    #[arg(short = 'y', long)]
    yes: bool,
}

pub(super) fn run(args: &RemoveArgs, place: &Place) -> CommandResult {
    // One that is not there is said before another is gone.
    let mut sessions: Vec<Stored> = Vec::new();
    for id in &args.ids {
        let session = place.stored(id)?;
        if !sessions.iter().any(|known| known.id == session.id) {
            sessions.push(session);
        }
    }
    let can_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !args.yes && !can_ask {
        return Err(Failure::new(exit::USAGE, "nothing was removed: there is no terminal to ask on")
            .hint("add --yes to remove without asking"));
    }
    for session in sessions {
        if !args.yes && !confirmed(&session) {
            eprintln!("kept {}", escape_line(&session.id));
            continue;
        }
        store::remove(&place.state, &session.id)
            .map_err(|error| Failure::new(exit::USAGE, error.message).hint(error.hint))?;
        out(&format!("removed {}\n", escape_line(&session.id)))?;
    }
    Ok(exit::DONE)
}

fn confirmed(session: &Stored) -> bool {
    let listed = session.listed();
    let first = listed.first.map_or_else(|| "nothing was said in it".into(), |first| head(&first, 50));
    let question = format!("remove {} ({} turns: {first})? [y/N] ", session.id, listed.requests);
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "{}", escape_line(&question)).and_then(|()| stderr.flush());
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}
