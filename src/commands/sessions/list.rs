//! `qwright sessions list`: a line for each session.

use super::{CommandResult, Place, exit, head, local_time, out};
use crate::agent::store::{Stored, stored};
use crate::chat::escape::{escape_json, escape_line};
use serde_json::{Value, json};

#[derive(Debug, Default, clap::Args)]
pub struct ListArgs {
    /// Those of every directory
    #[arg(long)]
    all: bool,
    /// As a JSON array
    #[arg(long)]
    json: bool,
}

/// Characters of the user's words.
const WORDS: usize = 50;

pub(super) fn run(args: &ListArgs, place: &Place) -> CommandResult {
    let directory = (!args.all).then_some(place.root.as_path());
    // A screen that was opened and left has a log too; a log whose words are damaged is not left out.
    let worth = |session: &Stored| session.listed().first.is_some() || !session.losses().is_empty();
    let mut sessions: Vec<Stored> = stored(&place.state, directory).filter(worth).collect();
    // Of these it is not known where they worked.
    let lost = if args.all { Vec::new() } else { unplaced(place) };
    if args.json {
        sessions.extend(lost);
        let rows: Vec<Value> = sessions.iter().map(row).collect();
        out(&format!("{}\n", escape_json(&Value::from(rows).to_string())))?;
        return Ok(exit::DONE);
    }
    if sessions.is_empty() {
        let (place, all) = match args.all {
            true => (String::new(), ""),
            false => (format!(" of {}", place.root.display()), "; `--all` looks everywhere"),
        };
        eprintln!("there is no session{}{all}", escape_line(&place));
    }
    for session in &sessions {
        out(&line(session, args.all))?;
    }
    if !lost.is_empty() {
        let ids: Vec<&str> = lost.iter().map(|session| session.id.as_str()).collect();
        eprintln!(
            "damaged at their beginning, so it is not known where they worked: {}",
            escape_line(&ids.join(", "))
        );
    }
    Ok(exit::DONE)
}

/// Sessions whose first line is damaged.
fn unplaced(place: &Place) -> Vec<Stored> {
    stored(&place.state, None).filter(|session| session.directory.is_empty()).collect()
}

fn line(session: &Stored, with_directory: bool) -> String {
    let listed = session.listed();
    let words = listed.first.map_or_else(|| "(nothing was said)".into(), |first| head(&first, WORDS));
    let count = |count: usize, one: &str, many: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    };
    let turns = count(listed.requests, "turn", "turns");
    let files = count(listed.files.len(), "file changed", "files changed");
    let mut marks = String::new();
    if session.is_running() {
        marks.push_str(", at work");
    }
    if !session.losses().is_empty() {
        marks.push_str(", damaged");
    }
    let place = if with_directory { format!("  {}", session.directory) } else { String::new() };
    let line =
        format!("{}  {}  {words}  ({turns}, {files}{marks}){place}", session.id, local_time(session.written));
    format!("{}\n", escape_line(&line))
}

fn row(session: &Stored) -> Value {
    let listed = session.listed();
    let written = jiff::Timestamp::try_from(session.written).unwrap_or_default().to_string();
    json!({
        "id": listed.id, "directory": listed.directory, "written": written, "first": listed.first,
        "turns": listed.requests, "files": listed.files, "running": session.is_running(),
        "damaged_lines": session.damaged, "torn_bytes": session.torn,
    })
}
