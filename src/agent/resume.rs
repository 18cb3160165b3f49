//! Takes an earlier session up: whether its log may be written, what it adds up to. Which one is meant, `store` knows;
//! the session goes on from there; nothing here knows a model.

use super::conversation::Conversation;
use super::protocol::ApprovalMode;
use super::store::{ResumeError, Which, by_id, latest, sessions};
use super::transcript::{self, Record, Recovered, Transcript, recover};
use std::io::ErrorKind;
use std::path::Path;

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
    let session = match which {
        Which::Latest => latest(&known, &directory, "to continue ")?,
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
        let bytes = std::fs::read(transcript::path(state, id)).map_err(failed)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Role};
    use std::time::SystemTime;

    fn log(state: &Path, id: &str, directory: &str, said: bool) {
        let (mut log, _) = Transcript::open(state, id).unwrap();
        let started = Record::Started {
            id: id.into(),
            time: "t".into(),
            directory: directory.into(),
            model: "m".into(),
            sandbox: "full".into(),
            mode: ApprovalMode::Plan,
            run: None,
        };
        log.append(&started).unwrap();
        if said {
            log.append(&Record::Message { message: Message::new(Role::User, id), asked: None }).unwrap();
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
        assert_eq!(error.message, "the ids of 2 sessions begin with `2026`");
        assert_eq!(error.hint, "the known ones are 20260103-ab, 20260102-aa");
        let error = problem(state, Which::Id("20250102".into()), "/a");
        assert!(error.hint.starts_with("the known ones are 20250101-cc (in /b), 2026"), "{}", error.hint);
        assert_eq!(problem(state, Which::Id("20250101-cc".into()), "/a").hint, "add -C /b");
        for id in ["../x", ".", "a/b"] {
            assert!(problem(state, Which::Id(id.into()), "/a").message.starts_with("there is no session"));
        }
    }
}
