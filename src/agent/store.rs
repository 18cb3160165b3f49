//! Which sessions there are, which one is meant, what its log holds, and its removal. Reads logs and never writes to
//! them; taking a session up again is `resume`'s part.

use super::conversation::Conversation;
use super::transcript::{self, Record, recover};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Known sessions that an error names.
const NAMED: usize = 5;
/// What is read of a log's first line: more belongs to no record of a beginning.
const FIRST_LINE: u64 = 256 * 1024;

/// Which session is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The one that was last at work in this directory.
    Latest,
    /// By its id, or the beginning of one that only one has.
    Id(String),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ResumeError {
    pub message: String,
    pub hint: String,
}

/// A log and what its first line says.
pub(super) struct Known {
    pub id: String,
    pub directory: String,
    path: PathBuf,
    written: SystemTime,
}

impl Known {
    /// Whether anything was said in it.
    fn is_used(&self) -> bool {
        let recovered = std::fs::read(&self.path).map(|bytes| recover(&bytes)).unwrap_or_default();
        recovered.records.iter().any(|record| matches!(record, Record::Message { .. }))
    }

    fn read(self) -> std::io::Result<Stored> {
        let bytes = std::fs::read(&self.path)?;
        let recovered = recover(&bytes);
        Ok(Stored {
            torn: (bytes.len() as u64).saturating_sub(recovered.sound_bytes),
            records: recovered.records,
            damaged: recovered.damaged,
            id: self.id,
            directory: self.directory,
            path: self.path,
            written: self.written,
        })
    }
}

/// A session as its log tells it.
#[derive(Debug)]
pub struct Stored {
    pub id: String,
    /// Where it worked; empty where the log's first line is damaged.
    pub directory: String,
    pub written: SystemTime,
    pub records: Vec<Record>,
    /// Lines (from 1) that could not be read.
    pub damaged: Vec<usize>,
    /// Bytes of a last line that was not written to its end.
    pub torn: u64,
    path: PathBuf,
}

impl Stored {
    /// The session that is meant, wherever it worked; `Latest` is the latest of `directory`.
    pub fn find(state: &Path, which: &Which, directory: &Path) -> Result<Self, ResumeError> {
        let mut known = sessions(state);
        let directory = directory.display().to_string();
        let id = match which {
            Which::Latest => latest(&known, &directory, "")?.id.clone(),
            Which::Id(id) => by_id(&known, id, &directory)?.id.clone(),
        };
        known.retain(|session| session.id == id);
        let gone = || ResumeError {
            message: format!("there is no session `{id}` any more"),
            hint: "`qwright sessions list` shows those that are there".into(),
        };
        known.pop().ok_or_else(gone)?.read().map_err(|error| ResumeError {
            message: format!("the log of session {id} cannot be read: {error}"),
            hint: format!("look at {}", transcript::directory(state).display()),
        })
    }

    /// A process has the session open.
    pub fn is_running(&self) -> bool {
        transcript::is_open(&self.path)
    }

    /// The records before the first line that could not be read.
    pub fn sound(&self) -> &[Record] {
        let whole = self.damaged.first().map_or(self.records.len(), |line| line.saturating_sub(1));
        &self.records[..whole.min(self.records.len())]
    }

    /// What could not be read, in words.
    pub fn losses(&self) -> Vec<String> {
        let mut losses: Vec<String> = Vec::new();
        match &self.damaged[..] {
            [] => {}
            [line] => losses.push(format!("line {line} of the log is damaged and was left out")),
            lines => {
                let numbers: Vec<String> = lines.iter().map(usize::to_string).collect();
                losses.push(format!("lines {} of the log are damaged and were left out", numbers.join(", ")));
            }
        }
        if self.torn > 0 {
            losses
                .push(format!("the last {} bytes of the log are no whole line and were left out", self.torn));
        }
        losses
    }

    pub fn listed(&self) -> Listed {
        let conversation = Conversation::of(self.records.iter().cloned());
        let logged = self.records.iter().find_map(|record| match record {
            Record::Request { text } => Some(text.clone()),
            _ => None,
        });
        let files: BTreeSet<&String> = conversation.turns.iter().flat_map(|turn| &turn.files).collect();
        Listed {
            id: self.id.clone(),
            directory: self.directory.clone(),
            written: self.written,
            requests: conversation.turns.len(),
            first: conversation.turns.first().map(|turn| turn.request.clone()).or(logged),
            files: files.into_iter().cloned().collect(),
        }
    }
}

/// A session in a list.
#[derive(Debug, Clone)]
pub struct Listed {
    pub id: String,
    pub directory: String,
    pub written: SystemTime,
    /// Requests that were not taken back.
    pub requests: usize,
    /// The first request; of a conversation that was forgotten, the first that was made.
    pub first: Option<String>,
    /// Files that tools changed in those requests.
    pub files: Vec<String>,
}

/// Every session that can be read, of one directory or of all, the one that was last written first.
pub fn stored(state: &Path, directory: Option<&Path>) -> impl Iterator<Item = Stored> {
    let directory = directory.map(|directory| directory.display().to_string());
    let wanted = move |session: &Known| directory.as_ref().is_none_or(|wanted| *wanted == session.directory);
    sessions(state).into_iter().filter(wanted).filter_map(|session| session.read().ok())
}

/// The sessions of a directory that can go on with something that was said, the latest first.
pub fn list(state: &Path, directory: &Path) -> Vec<Listed> {
    stored(state, Some(directory))
        .map(|session| session.listed())
        .filter(|session| session.requests > 0)
        .collect()
}

/// Removes a session's log. One that is at work stays (`ErrorKind::WouldBlock`).
pub fn remove(state: &Path, id: &str) -> Result<(), ResumeError> {
    transcript::remove(state, id).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => ResumeError {
            message: format!("session {id} is at work in another process, and was left as it is"),
            hint: "wait until it ends, or end it there".into(),
        },
        _ => ResumeError {
            message: format!("session {id} could not be removed: {error}"),
            hint: format!("look at {}", transcript::directory(state).display()),
        },
    })
}

/// All sessions, the one that was last written first.
pub(super) fn sessions(state: &Path) -> Vec<Known> {
    let Ok(entries) = std::fs::read_dir(transcript::directory(state)) else { return Vec::new() };
    let mut known: Vec<Known> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let id = name.strip_suffix(".jsonl").filter(|id| transcript::is_id(id))?.to_string();
            let written = entry.metadata().ok()?.modified().ok()?;
            let path = entry.path();
            Some(Known { directory: directory_of(&path).unwrap_or_default(), id, path, written })
        })
        .collect();
    known.sort_by(|a, b| (b.written, &b.id).cmp(&(a.written, &a.id)));
    known
}

/// Where the session of this log worked; none where its first line is damaged.
fn directory_of(path: &Path) -> Option<String> {
    let mut line = Vec::new();
    BufReader::new(std::fs::File::open(path).ok()?.take(FIRST_LINE)).read_until(b'\n', &mut line).ok()?;
    match recover(&line).records.into_iter().next()? {
        Record::Started { directory, .. } => Some(directory),
        _ => None,
    }
}

/// The session of `directory` in which something was said last. `purpose`: what it is wanted for, for the message.
pub(super) fn latest<'a>(
    known: &'a [Known],
    directory: &str,
    purpose: &str,
) -> Result<&'a Known, ResumeError> {
    let here = |session: &&Known| session.directory == directory && session.is_used();
    known.iter().find(here).ok_or_else(|| ResumeError {
        message: format!("there is no session {purpose}in {directory}"),
        hint: match known.first() {
            Some(other) => {
                format!("the latest elsewhere is {} in {}: name it with -C", other.id, other.directory)
            }
            None => "start one: qwright exec \"what to do\"".into(),
        },
    })
}

pub(super) fn by_id<'a>(known: &'a [Known], id: &str, directory: &str) -> Result<&'a Known, ResumeError> {
    if let Some(exact) = known.iter().find(|session| session.id == id) {
        return Ok(exact);
    }
    let begins: Vec<&Known> =
        known.iter().filter(|session| !id.is_empty() && session.id.starts_with(id)).collect();
    if let [only] = begins[..] {
        return Ok(only);
    }
    let message = match begins.len() {
        0 => format!("there is no session `{id}`"),
        several => format!("the ids of {several} sessions begin with `{id}`"),
    };
    // The nearest first: the longest common beginning, then this directory, then the latest.
    let mut near: Vec<&Known> = if begins.is_empty() { known.iter().collect() } else { begins };
    let common = |session: &Known| session.id.chars().zip(id.chars()).take_while(|(a, b)| a == b).count();
    near.sort_by_key(|session| (std::cmp::Reverse(common(session)), session.directory != directory));
    let named: Vec<String> = near
        .iter()
        .take(NAMED)
        .map(|session| match session.directory == directory {
            true => session.id.clone(),
            false => format!("{} (in {})", session.id, session.directory),
        })
        .collect();
    let more = near.len().saturating_sub(NAMED);
    Err(ResumeError {
        message,
        hint: match (named.is_empty(), more) {
            (true, _) => "no session was logged yet".into(),
            (false, 0) => format!("the known ones are {}", named.join(", ")),
            (false, more) => format!("the nearest are {}, and there are {more} more", named.join(", ")),
        },
    })
}
