//! The session log: append-only JSON lines, each with the length and a checksum of its record, written by one
//! `write`. A kill at any moment loses at most the record being written: the torn tail is cut before the next
//! append, and a damaged line in the middle is skipped and reported. Knows where a log lies, not what it is for.

use super::asked::{Asked, RunSettings};
use super::protocol::{ApprovalMode, TurnOutcome, Usage};
use crate::chat::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Record {
    /// A process took the session up: the first line of a log, and one more for every resume.
    Started {
        id: String,
        time: String,
        directory: String,
        model: String,
        sandbox: String,
        mode: ApprovalMode,
        /// How the model was run; logs of earlier versions do not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<Box<RunSettings>>,
    },
    /// What stands before this line was copied from that session.
    Forked {
        from: String,
    },
    /// A turn begins; the user's own words.
    Request {
        text: String,
    },
    /// Exactly what entered the history, in order.
    Message {
        message: Message,
        /// What the answer was asked for with, where a model of this program wrote it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<Box<Asked>>,
    },
    Mode {
        mode: ApprovalMode,
    },
    Finished {
        outcome: TurnOutcome,
    },
    /// The history was cut back to this many messages (undo, clear).
    Cut {
        messages: usize,
    },
    /// The history was shortened to this one; what it was stands in the lines before.
    Compacted {
        history: Vec<Message>,
        /// What went, in words for the user.
        dropped: Vec<String>,
        /// Tokens of the history.
        before: usize,
        after: usize,
        /// What the summary cost.
        usage: Usage,
    },
    /// The history became these messages, and so many turns are left (undo of a turn from before a compaction, or a
    /// log that was not whole).
    Restored {
        messages: Vec<Message>,
        turns: usize,
    },
    /// A side question; nothing of it is in the history.
    Aside {
        question: String,
        answer: String,
        usage: Usage,
    },
}

/// What could be read of a log.
#[derive(Debug, Default, PartialEq)]
pub struct Recovered {
    pub records: Vec<Record>,
    /// Lines (from 1) that were skipped because length, checksum or content do not fit.
    pub damaged: Vec<usize>,
    /// Length of the log without a torn tail.
    pub sound_bytes: u64,
}

pub struct Transcript {
    file: File,
    path: PathBuf,
}

impl Transcript {
    /// Opens `STATE/sessions/ID.jsonl` for appending, cuts a torn tail, and returns what it holds. Whoever has it open
    /// is alone: another gets `ErrorKind::WouldBlock`.
    pub fn open(state: &Path, id: &str) -> io::Result<(Self, Recovered)> {
        if !is_id(id) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{id}` is not a session id")));
        }
        let directory = directory(state);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let path = path(state, id);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            // A log is a plain file of ours; a link planted in its place is not followed.
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&path)?;
        // The lock goes with the file's last descriptor, however the process ends.
        lock(&file)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let recovered = recover(&bytes);
        if recovered.sound_bytes < bytes.len() as u64 {
            file.set_len(recovered.sound_bytes)?;
        }
        Ok((Self { file, path }, recovered))
    }

    /// Opens a log under a new id that begins with `bytes`, whole lines of another one.
    pub fn copy(state: &Path, id: &str, bytes: &[u8]) -> io::Result<Self> {
        let (mut copy, _) = Self::open(state, id)?;
        copy.file.write_all(bytes)?;
        Ok(copy)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one record with one `write`. A short write (disk full) is taken back, so the log stays sound.
    pub fn append(&mut self, record: &Record) -> io::Result<()> {
        let line = encode(record)?;
        let before = self.file.seek(SeekFrom::End(0))?;
        let written = self.file.write(line.as_bytes());
        match written {
            Ok(count) if count == line.len() => Ok(()),
            other => {
                self.file.set_len(before)?;
                Err(other.err().unwrap_or_else(|| io::Error::from(io::ErrorKind::StorageFull)))
            }
        }
    }
}

/// Where the logs lie.
pub fn directory(state: &Path) -> PathBuf {
    state.join("sessions")
}

/// The log of the session `id`.
pub fn path(state: &Path, id: &str) -> PathBuf {
    directory(state).join(format!("{id}.jsonl"))
}

/// Whether a process has this log open to write.
pub fn is_open(path: &Path) -> bool {
    use rustix::fs::{FlockOperation, flock};
    // The lock that says so goes with the file.
    existing(path).is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
}

/// Removes a log that nobody has open; who has gets to keep it (`ErrorKind::WouldBlock`).
pub fn remove(state: &Path, id: &str) -> io::Result<()> {
    if !is_id(id) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{id}` is not a session id")));
    }
    let path = path(state, id);
    let file = existing(&path)?;
    lock(&file)?;
    std::fs::remove_file(&path)
}

fn existing(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(path)
}

/// Whether `id` can name a log: it cannot leave the directory.
pub fn is_id(id: &str) -> bool {
    !(id.is_empty() || id.starts_with('.') || id.contains(['/', '\\', '\0']))
}

/// One process at a time. One that was killed holds its lock until the system has taken its memory back.
fn lock(file: &File) -> io::Result<()> {
    const TRIES: u32 = 20;
    for again in 1.. {
        match rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(error) if again == TRIES => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    Ok(())
}

fn encode(record: &Record) -> io::Result<String> {
    let body = serde_json::to_string(record)?;
    Ok(format!("{{\"bytes\":{},\"sha256\":\"{}\",\"record\":{body}}}\n", body.len(), checksum(&body)))
}

/// Reads a log as far as it is sound. Never fails: what cannot be read is named.
pub fn recover(bytes: &[u8]) -> Recovered {
    let mut recovered = Recovered::default();
    let mut start = 0;
    let mut number = 0;
    while let Some(length) = bytes[start..].iter().position(|byte| *byte == b'\n') {
        number += 1;
        match decode(&bytes[start..start + length]) {
            Some(record) => recovered.records.push(record),
            None => recovered.damaged.push(number),
        }
        start += length + 1;
    }
    recovered.sound_bytes = start as u64;
    recovered
}

/// The record of one line without its line break; `None` if anything about it does not fit.
fn decode(line: &[u8]) -> Option<Record> {
    let line = std::str::from_utf8(line).ok()?;
    let rest = line.strip_prefix("{\"bytes\":")?;
    let (length, rest) = rest.split_once(",\"sha256\":\"")?;
    let (sum, rest) = rest.split_once("\",\"record\":")?;
    let body = rest.strip_suffix('}')?;
    if length.parse() != Ok(body.len()) || checksum(body) != sum {
        return None;
    }
    serde_json::from_str(body).ok()
}

/// The first 64 bits of SHA-256: against accidents, not against forgery.
fn checksum(body: &str) -> String {
    Sha256::digest(body.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A new id: sorts by time, and two sessions of the same second differ.
pub fn new_id() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let noise = RandomState::new().build_hasher().finish() as u32;
    format!("{}-{noise:08x}", jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Role;

    fn samples() -> Vec<Record> {
        vec![
            Record::Started {
                id: "a".into(),
                time: "t".into(),
                directory: "d\n".into(),
                model: "m".into(),
                sandbox: "full".into(),
                mode: ApprovalMode::Plan,
                run: None,
            },
            Record::Message {
                message: Message::new(Role::User, "line\nbreak, \"quotes\" and ümläut"),
                asked: None,
            },
            Record::Mode { mode: ApprovalMode::Yolo },
            Record::Cut { messages: 1 },
        ]
    }

    fn log() -> Vec<u8> {
        samples().iter().map(|record| encode(record).unwrap()).collect::<String>().into_bytes()
    }

    #[test]
    fn a_log_cut_at_any_byte_keeps_every_whole_record_and_goes_on() {
        let log = log();
        for cut in 0..=log.len() {
            let whole = log[..cut].iter().filter(|byte| **byte == b'\n').count();
            let directory = tempfile::tempdir().unwrap();
            std::fs::create_dir(directory.path().join("sessions")).unwrap();
            let path = directory.path().join("sessions/s.jsonl");
            std::fs::write(&path, &log[..cut]).unwrap();
            let (mut transcript, recovered) = Transcript::open(directory.path(), "s").unwrap();
            assert_eq!(recovered.records, samples()[..whole], "cut at {cut}");
            assert!(recovered.damaged.is_empty());
            transcript.append(&Record::Cut { messages: 9 }).unwrap();
            let after = recover(&std::fs::read(&path).unwrap());
            assert_eq!(after.records.len(), whole + 1);
            assert_eq!(after.records[whole], Record::Cut { messages: 9 });
            assert!(after.damaged.is_empty());
        }
    }

    #[test]
    fn any_flipped_bit_costs_its_own_line_alone_and_is_reported() {
        let log = log();
        for position in 0..log.len() {
            for bit in 0..8 {
                let mut broken = log.clone();
                broken[position] ^= 1 << bit;
                let line = log[..position].iter().filter(|byte| **byte == b'\n').count();
                let recovered = recover(&broken);
                let lost = samples().len() - recovered.records.len();
                // A flipped line break joins two lines; every other flip hits one.
                let allowed = if log[position] == b'\n' { 2 } else { 1 };
                assert!((1..=allowed).contains(&lost), "byte {position} bit {bit}: {lost} lost");
                assert!(recovered.records.iter().all(|record| samples().contains(record)));
                assert!(
                    recovered.damaged.contains(&(line + 1)) || recovered.sound_bytes < log.len() as u64,
                    "byte {position} bit {bit} is not reported"
                );
            }
        }
    }

    #[test]
    fn only_the_owner_reads_a_log_and_ids_cannot_leave_the_store() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let (transcript, _) = Transcript::open(&directory.path().join("state"), "x").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(transcript.path()), 0o600);
        assert_eq!(mode(transcript.path().parent().unwrap()), 0o700);
        for id in ["", "../x", "a/b", ".hidden"] {
            assert!(Transcript::open(directory.path(), id).is_err(), "{id}");
        }
    }

    #[test]
    fn a_log_is_open_once() {
        let directory = tempfile::tempdir().unwrap();
        let first = Transcript::open(directory.path(), "x").unwrap();
        let second = Transcript::open(directory.path(), "x").err().map(|error| error.kind());
        assert_eq!(second, Some(io::ErrorKind::WouldBlock));
        drop(first);
        Transcript::open(directory.path(), "x").unwrap();
    }

    #[test]
    fn a_log_that_is_open_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let (first, _) = Transcript::open(directory.path(), "x").unwrap();
        let log = first.path().to_path_buf();
        assert!(is_open(&log));
        assert_eq!(remove(directory.path(), "x").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        assert!(log.exists() && !is_open(&log));
        remove(directory.path(), "x").unwrap();
        assert!(!log.exists() && remove(directory.path(), "../x").is_err());
    }

    /// What an earlier version wrote is read, and what a later one adds to a record is passed over.
    #[test]
    fn records_may_lack_or_have_more_than_this_version_knows() {
        let body = r#"{"type":"message","message":{"role":"user","content":"Hi"}}"#;
        let expected = Record::Message { message: Message::new(Role::User, "Hi"), asked: None };
        for body in [body.to_string(), body.replace("\"type\"", "\"later\":[1],\"type\"")] {
            let line =
                format!("{{\"bytes\":{},\"sha256\":\"{}\",\"record\":{body}}}", body.len(), checksum(&body));
            assert_eq!(decode(line.as_bytes()), Some(expected.clone()), "{body}");
        }
    }

    #[test]
    fn ids_differ() {
        assert_ne!(new_id(), new_id());
    }
}
