//! Finds an earlier session and takes it up: which log, whether it may be written, what it adds up to. The session
//! goes on from there; nothing here knows a model.

use super::conversation::Conversation;
use super::protocol::ApprovalMode;
use super::transcript::{self, Record, Recovered, Transcript, recover};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Known sessions that an error names.
const NAMED: usize = 5;
/// What is read of a log's first line: more belongs to no record of a beginning.
const FIRST_LINE: u64 = 64 * 1024;

/// Which session goes on.
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

/// A session that can go on: its log, open for this process alone, and what it holds.
pub struct Resumed {
    pub(super) id: String,
    pub(super) transcript: Transcript,
    pub(super) conversation: Conversation,
    pub(super) damaged: Vec<usize>,
    pub(super) forked_from: Option<String>,
    /// The model of the last process that worked on it.
    pub(super) model: String,
}

impl Resumed {
    /// The approval mode the session was left in.
    pub fn mode(&self) -> ApprovalMode {
        self.conversation.mode
    }
}

/// Opens the log of a session that worked in `directory`; with `fork` a copy of it, under a new id.
pub fn resume(state: &Path, which: &Which, directory: &Path, fork: bool) -> Result<Resumed, ResumeError> {
    let known = sessions(state);
    let directory = directory.display().to_string();
    let here = || known.iter().filter(|session| session.directory == directory);
    let session = match which {
        Which::Latest => here().find(|session| session.is_used()).ok_or_else(|| ResumeError {
            message: format!("there is no session to continue in {directory}"),
            hint: match known.first() {
                Some(other) => {
                    format!("the latest elsewhere is {} in {}: name it with -C", other.id, other.directory)
                }
                None => "start one: qwright exec \"what to do\"".into(),
            },
        })?,
        Which::Id(id) => by_id(&known, id, &directory)?,
    };
    if session.directory != directory {
        return Err(ResumeError {
            message: format!(
                "session {} belongs to {}, and this is {directory}",
                session.id, session.directory
            ),
            hint: format!("add -C {}", session.directory),
        });
    }
    open(state, &session.id, fork)
}

fn open(state: &Path, id: &str, fork: bool) -> Result<Resumed, ResumeError> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock => ResumeError {
            message: format!("session {id} is at work in another process"),
            hint: "wait until it ends, or continue a copy of it with --fork".into(),
        },
        _ => ResumeError {
            message: format!("the log of session {id} cannot be opened: {error}"),
            hint: format!("look at {}", transcript::directory(state).display()),
        },
    };
    let (own_id, transcript, recovered) = if fork {
        let bytes = std::fs::read(path(state, id)).map_err(failed)?;
        let recovered = recover(&bytes);
        let new = transcript::new_id();
        let sound = usize::try_from(recovered.sound_bytes).unwrap_or(bytes.len());
        let mut copy = Transcript::copy(state, &new, &bytes[..sound]).map_err(failed)?;
        copy.append(&Record::Forked { from: id.into() }).map_err(failed)?;
        (new, copy, recovered)
    } else {
        let (transcript, recovered) = Transcript::open(state, id).map_err(failed)?;
        (id.to_string(), transcript, recovered)
    };
    let Recovered { records, damaged, .. } = recovered;
    let model = records.iter().rev().find_map(|record| match record {
        Record::Started { model, .. } => Some(model.clone()),
        _ => None,
    });
    Ok(Resumed {
        id: own_id,
        transcript,
        model: model.unwrap_or_default(),
        conversation: Conversation::of(records),
        damaged,
        forked_from: fork.then(|| id.to_string()),
    })
}

/// A log and what its first line says.
struct Known {
    id: String,
    directory: String,
    path: PathBuf,
    written: SystemTime,
}

impl Known {
    /// Whether anything was said in it.
    fn is_used(&self) -> bool {
        let recovered = std::fs::read(&self.path).map(|bytes| recover(&bytes)).unwrap_or_default();
        recovered.records.iter().any(|record| matches!(record, Record::Message { .. }))
    }
}

fn path(state: &Path, id: &str) -> PathBuf {
    transcript::directory(state).join(format!("{id}.jsonl"))
}

/// All sessions, the one that was last written first.
fn sessions(state: &Path) -> Vec<Known> {
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

/// A session that can go on, for a list.
#[derive(Debug, Clone)]
pub struct Listed {
    pub id: String,
    pub written: SystemTime,
    pub requests: usize,
    /// The first request.
    pub first: String,
}

/// The sessions of a directory in which something was said, the latest first.
pub fn list(state: &Path, directory: &Path) -> Vec<Listed> {
    let directory = directory.display().to_string();
    let here = sessions(state).into_iter().filter(|session| session.directory == directory);
    here.filter_map(|session| {
        let recovered = std::fs::read(&session.path).map(|bytes| recover(&bytes)).ok()?;
        let conversation = Conversation::of(recovered.records);
        let first = conversation.turns.first()?.request.clone();
        let requests = conversation.turns.len();
        Some(Listed { id: session.id, written: session.written, requests, first })
    })
    .collect()
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

fn by_id<'a>(known: &'a [Known], id: &str, directory: &str) -> Result<&'a Known, ResumeError> {
    if let Some(exact) = known.iter().find(|session| session.id == id) {
        return Ok(exact);
    }
    let begins: Vec<&Known> =
        known.iter().filter(|session| !id.is_empty() && session.id.starts_with(id)).collect();
    if let [only] = begins[..] {
        return Ok(only);
    }
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
        message: format!("there is no session `{id}`"),
        hint: match (named.is_empty(), more) {
            (true, _) => "no session was logged yet".into(),
            (false, 0) => format!("the known ones are {}", named.join(", ")),
            (false, more) => format!("the nearest are {}, and there are {more} more", named.join(", ")),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Role};

    fn log(state: &Path, id: &str, directory: &str, said: bool) {
        let (mut log, _) = Transcript::open(state, id).unwrap();
        let started = Record::Started {
            id: id.into(),
            time: "t".into(),
            directory: directory.into(),
            model: "m".into(),
            sandbox: "full".into(),
            mode: ApprovalMode::Plan,
        };
        log.append(&started).unwrap();
        if said {
            log.append(&Record::Message { message: Message::new(Role::User, id) }).unwrap();
        }
        // The order of writing is that of the files' times, whatever their grain.
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(id.bytes().map(u64::from).sum());
        std::fs::File::options().append(true).open(log.path()).unwrap().set_modified(time).unwrap();
    }

    fn problem(state: &Path, which: Which, directory: &str) -> ResumeError {
        resume(state, &which, Path::new(directory), false).err().unwrap()
    }

    #[test]
    fn the_latest_of_this_directory_that_was_used() {
        let state = tempfile::tempdir().unwrap();
        let state = state.path();
        assert_eq!(problem(state, Which::Latest, "/a").message, "there is no session to continue in /a");
        for (id, directory, said) in
            [("1", "/a", true), ("2", "/a", true), ("3", "/a", false), ("4", "/b", true)]
        {
            log(state, id, directory, said);
        }
        let latest = resume(state, &Which::Latest, Path::new("/a"), false).unwrap();
        assert_eq!(
            (latest.id.as_str(), latest.mode(), latest.model.as_str()),
            ("2", ApprovalMode::Plan, "m")
        );
        assert!(problem(state, Which::Latest, "/c").hint.contains("4 in /b"));
        // It is taken; a fork of it is another session.
        assert!(problem(state, Which::Id("2".into()), "/a").message.contains("at work in another process"));
        let fork = resume(state, &Which::Id("2".into()), Path::new("/a"), true).unwrap();
        assert_eq!((fork.forked_from.as_deref(), &fork.conversation), (Some("2"), &latest.conversation));
        assert_ne!(fork.id, "2");
    }

    #[test]
    fn an_id_may_be_begun_and_an_unknown_one_is_answered_with_the_nearest() {
        let state = tempfile::tempdir().unwrap();
        let state = state.path();
        assert_eq!(problem(state, Which::Id("x".into()), "/a").hint, "no session was logged yet");
        for (id, directory) in [("20260102-aa", "/a"), ("20260103-ab", "/a"), ("20250101-cc", "/b")] {
            log(state, id, directory, true);
        }
        assert_eq!(
            resume(state, &Which::Id("20260103".into()), Path::new("/a"), false).unwrap().id,
            "20260103-ab"
        );
        let error = problem(state, Which::Id("2026".into()), "/a");
        assert_eq!(error.message, "there is no session `2026`");
        assert_eq!(error.hint, "the known ones are 20260103-ab, 20260102-aa");
        let error = problem(state, Which::Id("20250102".into()), "/a");
        assert!(error.hint.starts_with("the known ones are 20250101-cc (in /b), 2026"), "{}", error.hint);
        assert_eq!(problem(state, Which::Id("20250101-cc".into()), "/a").hint, "add -C /b");
        for id in ["../x", ".", "a/b"] {
            assert!(problem(state, Which::Id(id.into()), "/a").message.starts_with("there is no session"));
        }
    }
}
