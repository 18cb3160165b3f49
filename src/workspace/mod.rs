//! The user's files: guarded paths, reads, atomic writes, edits, diffs, search, git, shell and sandbox, checkpoints, undo.
//! The one way to the disk for tools. Knows nothing of models, messages or approval.
//!
//! [`Workspace`] ties the parts together: `guard` turns a path into a place, `text` reads bytes as text, `edit` works
//! out a change, `write` puts it in place, `journal` remembers what was there, `checkpoint` what was there before a
//! command, `check` which of it is work and which was built, and `undo` brings it back. A change is first *planned* (so that it can be shown) and then *applied*; a plan
//! is refused where the file is no longer what it was when it was read.
//! Changes of several files (`batch`: multi-edits and the patches of `patch`) are planned and applied as one, and recorded
//! on disk before (`pending`), so that one that was cut off is taken back at the next start.

mod batch;
mod check;
mod checkpoint;
pub mod diff;
pub mod edit;
mod entries;
mod faults;
mod git;
mod guard;
mod journal;
mod keep;
mod node;
pub mod patch;
mod pending;
mod private;
pub mod sandbox;
mod search;
pub mod shell;
pub mod text;
mod undo;
mod walk;
mod write;

pub use batch::{Change, ChangeError, ChangeErrorCode, FileEdit};
pub use check::Tree;
pub use edit::Edit;
pub use entries::EntryKind;
pub use journal::{FileChange, Mark, Side, Touched};
pub use keep::Kept;
pub use pending::Recovery;
pub use private::PrivateCopy;
pub use search::{GrepQuery, Listing, Match, Matches};
pub use text::{Content, Text};
pub use undo::UndoReport;

use check::Check;
use checkpoint::Checkpoints;
use guard::{Guard, Location};
use journal::Journal;
use node::{Node, PERMISSIONS};
use pending::Part;
use rustix::fs::{AtFlags, Stat};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use write::{Attributes, Expected, Hash, WriteError};

/// Files up to this size are read whole and can be edited.
const MAX_WHOLE: u64 = 16 * 1024 * 1024;
/// What is read of larger ones.
const HUGE_HEAD: usize = 64 * 1024;
const HUGE_TAIL: usize = 16 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkspaceError {
    /// Nothing is there; names what is, where something is like it.
    #[error("{0}")]
    Missing(String),
    /// Not allowed or not possible; says what to do instead.
    #[error("{0}")]
    Refused(String),
    /// The file on disk is not the one that was read.
    #[error("{0}")]
    Stale(String),
    /// The text to replace is not there, or not unique.
    #[error("{0}")]
    Unmatched(String),
    /// Only the user can help: disk full, read-only, broken.
    #[error("{message}")]
    Machine { message: String, hint: String },
}

/// What reading a file gave.
#[derive(Debug, Clone)]
pub struct FileRead {
    /// As the model should name it.
    pub path: String,
    /// Bytes on disk.
    pub size: u64,
    pub content: ReadContent,
}

#[derive(Debug, Clone)]
pub enum ReadContent {
    Text(Text),
    /// Not text; the word names what it is.
    Binary(&'static str),
    /// Too large to read whole: its two ends, for showing only.
    Huge {
        head: String,
        tail: String,
    },
}

/// A change that was worked out and not made yet.
#[derive(Debug)]
pub struct Plan {
    location: Location,
    before: Option<Existing>,
    /// `None` where the file is removed.
    after: Option<Vec<u8>>,
    /// Mode and owner, where they are not those of `before`, or of any new file.
    attributes: Option<Attributes>,
    /// The model wrote all of `after`.
    whole: bool,
    /// As the model should name it.
    pub path: String,
    /// Unified diff, empty where nothing changes.
    pub diff: String,
    /// Replacements, and the line of the first.
    pub replaced: usize,
    pub line: usize,
    pub bridged: Option<&'static str>,
    pub creates: bool,
}

impl Plan {
    pub fn removes(&self) -> bool {
        self.after.is_none()
    }

    /// Those of the file that is written.
    fn attributes(&self) -> Attributes {
        let usual = || match &self.before {
            Some(before) => Attributes::Like(before.stat),
            None => Attributes::New(0o666),
        };
        self.attributes.clone().unwrap_or_else(usual)
    }

    /// What is done to the file, for the record.
    fn part(&self) -> Part {
        let before = self.before.as_ref().map(|before| (before.bytes.clone(), before.stat.st_mode));
        // What a new file's mode will be is up to the umask.
        let mode = match self.attributes() {
            Attributes::New(_) => None,
            attributes => Some(attributes.mode()),
        };
        Part::new(&self.location, before, self.after.as_ref().map(|after| (write::hash(after), mode)))
    }

    /// The file's bytes before and after.
    pub fn sides(&self) -> (Option<&[u8]>, Option<&[u8]>) {
        (self.before.as_ref().map(|before| &*before.bytes), self.after.as_deref())
    }
}

struct Existing {
    bytes: Vec<u8>,
    stat: Stat,
}

impl std::fmt::Debug for Existing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Existing({} bytes)", self.bytes.len())
    }
}

/// A directory the agent works in. All paths are resolved beneath it by one guard.
pub struct Workspace {
    guard: Guard,
    /// Where changes of several files are recorded before they are made; `None` records none.
    pending: Option<PathBuf>,
    check: Option<Check>,
    state: Mutex<State>,
    /// Locked after the state where both are.
    checkpoints: Mutex<Option<Checkpoints>>,
}

/// A file as the model, or the user who approved a plan, last knew it.
#[derive(Clone, Copy)]
struct Seen {
    hash: Hash,
    /// The model has read it, or written all of it: it may replace it as a whole.
    read: bool,
}

#[derive(Default)]
struct State {
    seen: HashMap<Location, Seen>,
    journal: Journal,
}

impl Workspace {
    /// `root` is where relative paths start; `extra` directories are open to absolute paths too.
    pub fn open(root: &Path, extra: &[PathBuf]) -> Result<Self, WorkspaceError> {
        let mut roots = vec![root.to_path_buf()];
        roots.extend_from_slice(extra);
        Ok(Self {
            guard: Guard::open(&roots)?,
            pending: None,
            check: None,
            state: Mutex::default(),
            checkpoints: Mutex::default(),
        })
    }

    /// Whether `path` is the workspace's own name and nothing inside is called so.
    pub fn is_own_name(&self, path: &str) -> bool {
        let name = self.root().file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name == path.trim_end_matches('/')) && !self.root().join(path).exists()
    }

    /// The real path of the first root.
    pub fn root(&self) -> &Path {
        self.guard.root_path()
    }

    /// Reads a file and remembers what it was, so that a later edit of another text is noticed.
    pub fn read(&self, path: &str) -> Result<FileRead, WorkspaceError> {
        let location = self.guard.file(path)?;
        let Some((file, stat)) = self.guard.open_file(&location)? else {
            return Err(self.missing_file(path));
        };
        let path = self.guard.display(&location);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size > MAX_WHOLE {
            return Ok(FileRead { content: ends_of(file, &path)?, path, size });
        }
        let bytes = read_whole(file, &path)?;
        let hash = write::hash(&bytes);
        self.state().seen.insert(location, Seen { hash, read: true });
        let content = match Content::of(&bytes) {
            Content::Text(text) => ReadContent::Text(text),
            Content::Binary(kind) => ReadContent::Binary(kind),
        };
        Ok(FileRead { path, size: bytes.len() as u64, content })
    }

    /// Works out an edit. With an empty `old_string` a file that is not there is created.
    pub fn plan_edit(&self, path: &str, edit: &Edit) -> Result<Plan, WorkspaceError> {
        let location = self.guard.file(path)?;
        self.guard.check_writable(&location)?;
        let Some(before) = self.existing(&location)? else {
            if edit.old_string.is_empty() {
                return Ok(self.plan(location, None, edit.new_string.clone().into_bytes()));
            }
            return Err(self.missing_file(path));
        };
        let shown = self.guard.display(&location);
        self.check_fresh(&location, &before, &shown)?;
        let text = editable(&before.bytes, &shown)?;
        let edited = edit::apply(&text.text, edit)
            .map_err(|error| WorkspaceError::Unmatched(error.explain(&shown)))?;
        let after = text.bytes_with(&edited.text);
        // A plan may be shown to the user: what is approved is what will be changed.
        let seen = Seen { hash: write::hash(&before.bytes), read: false };
        self.state().seen.entry(location.clone()).or_insert(seen);
        let plan = self.plan(location, Some(before), after);
        Ok(Plan {
            whole: false,
            replaced: edited.replaced,
            line: edited.line,
            bridged: edited.bridged,
            ..plan
        })
    }

    /// Works out a whole new text for a file. An existing file keeps its BOM and line endings, and must have been
    /// read before.
    pub fn plan_write(&self, path: &str, content: &str) -> Result<Plan, WorkspaceError> {
        let location = self.guard.file(path)?;
        self.guard.check_writable(&location)?;
        let Some(before) = self.existing(&location)? else {
            return Ok(self.plan(location, None, content.as_bytes().to_vec()));
        };
        let shown = self.guard.display(&location);
        let read = self.state().seen.get(&location).is_some_and(|seen| seen.read);
        if !before.bytes.is_empty() && !read {
            return Err(WorkspaceError::Stale(format!(
                "{shown} exists and was not read yet; read it with read_file first, or change part of it with edit"
            )));
        }
        self.check_fresh(&location, &before, &shown)?;
        let after = match Content::of(&before.bytes) {
            Content::Text(text) if text.valid_utf8 => {
                let body = content.strip_prefix('\u{feff}').unwrap_or(content);
                text.bytes_with(&text.ending.adapt(body))
            }
            _ => content.as_bytes().to_vec(),
        };
        Ok(self.plan(location, Some(before), after))
    }

    /// Makes a planned change, if the file still is what it was when the plan was made.
    pub fn apply(&self, plan: &Plan) -> Result<(), WorkspaceError> {
        // Held to the end: two calls at once must not write between each other's check and rename.
        self.apply_one(&mut self.state(), plan, &write::temporary_name())
    }

    /// `temporary`: what a new file is called until it is in place.
    fn apply_one(&self, state: &mut State, plan: &Plan, temporary: &str) -> Result<(), WorkspaceError> {
        self.guard.check_writable(&plan.location)?;
        let same = plan.before.as_ref().map(|before| &before.bytes) == plan.after.as_ref();
        if same && plan.attributes.is_none() {
            return Ok(());
        }
        let (directory, made) = self.guard.make_parent(&plan.location)?;
        let name = self.guard.name(&plan.location)?;
        let expected = plan.before.as_ref().map(|before| write::hash(&before.bytes));
        let written = match (&plan.after, expected) {
            (Some(after), expected) => {
                let expected = expected.map_or(Expected::Absent, Expected::Hash);
                write::replace(&directory, name, after, plan.attributes(), expected, temporary)
            }
            (None, Some(expected)) => write::remove(&directory, name, expected),
            (None, None) => Ok(()),
        };
        if let Err(error) = written {
            for made in made.iter().rev() {
                self.guard.remove_directory_if_empty(made);
            }
            return Err(write_error(&plan.path, error));
        }
        let after = plan.after.as_ref().map(|after| write::hash(after));
        let read = plan.whole || state.seen.get(&plan.location).is_some_and(|seen| seen.read);
        match after {
            Some(hash) => state.seen.insert(plan.location.clone(), Seen { hash, read }),
            None => state.seen.remove(&plan.location),
        };
        // What the process's umask took of the mode of a new file is seen only now.
        let mode = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_or(0o644, |stat| stat.st_mode & PERMISSIONS);
        let before = plan.before.as_ref().map(|before| (before.bytes.clone(), before.stat.st_mode));
        let after = after.map_or(Node::Absent, |hash| Node::File { hash, mode });
        state.journal.record_write(plan.location.clone(), made, before, after);
        Ok(())
    }

    /// Works out a text that the user settled on. `before` is what the user saw the file to be.
    pub fn plan_settled(
        &self,
        path: &str,
        before: Option<&str>,
        after: &str,
    ) -> Result<Plan, WorkspaceError> {
        let location = self.guard.file(path)?;
        self.guard.check_writable(&location)?;
        let now = self.existing(&location)?;
        if now.as_ref().map(|now| &*now.bytes) != before.map(str::as_bytes) {
            let shown = self.guard.display(&location);
            return Err(WorkspaceError::Stale(format!(
                "{shown} was changed by someone else while the user looked at this change; read it again with read_file, then repeat the change"
            )));
        }
        Ok(Plan { whole: false, ..self.plan(location, now, after.as_bytes().to_vec()) })
    }

    /// Plans and applies.
    pub fn edit(&self, path: &str, edit: &Edit) -> Result<Plan, WorkspaceError> {
        let plan = self.plan_edit(path, edit)?;
        self.apply(&plan)?;
        Ok(plan)
    }

    /// Plans and applies.
    pub fn write(&self, path: &str, content: &str) -> Result<Plan, WorkspaceError> {
        let plan = self.plan_write(path, content)?;
        self.apply(&plan)?;
        Ok(plan)
    }

    /// Where `path` leads, as the model should name it; `None` where that is nowhere a tool may go.
    pub fn leads_to(&self, path: &str) -> Option<String> {
        let location = self.guard.directory(path).ok()?;
        Some(self.guard.display(&location))
    }

    /// The real path of a directory of the workspace, to run a command in.
    pub fn directory(&self, path: &str) -> Result<PathBuf, WorkspaceError> {
        Ok(self.guard.absolute(&self.existing_directory(path)?))
    }

    fn existing_directory(&self, path: &str) -> Result<Location, WorkspaceError> {
        let location = self.guard.directory(path)?;
        match self.guard.open_directory(&location)? {
            Some(_) => Ok(location),
            None => Err(self.missing("directory", path)),
        }
    }

    fn existing(&self, location: &Location) -> Result<Option<Existing>, WorkspaceError> {
        let Some((file, stat)) = self.guard.open_file(location)? else { return Ok(None) };
        let path = self.guard.display(location);
        if u64::try_from(stat.st_size).unwrap_or(0) > MAX_WHOLE {
            let size = text::human_size(stat.st_size as u64);
            return Err(WorkspaceError::Refused(format!(
                "{path} has {size}; files over {} are changed by commands, not by edits",
                text::human_size(MAX_WHOLE)
            )));
        }
        // The rename that ends a write would not care about this bit, but whoever set it does.
        if stat.st_mode & 0o222 == 0 {
            return Err(WorkspaceError::Refused(format!(
                "{path} is read-only (mode {:o}); leave it, or ask the user",
                stat.st_mode & 0o7777
            )));
        }
        Ok(Some(Existing { bytes: read_whole(file, &path)?, stat }))
    }

    fn check_fresh(&self, location: &Location, before: &Existing, path: &str) -> Result<(), WorkspaceError> {
        match self.state().seen.get(location) {
            Some(seen) if seen.hash != write::hash(&before.bytes) => Err(WorkspaceError::Stale(format!(
                "{path} was changed by someone else since you read it; read it again with read_file, then repeat the change"
            ))),
            _ => Ok(()),
        }
    }

    fn plan(&self, location: Location, before: Option<Existing>, after: Vec<u8>) -> Plan {
        self.plan_with(location, before, Some(after), None)
    }

    fn plan_with(
        &self,
        location: Location,
        before: Option<Existing>,
        after: Option<Vec<u8>>,
        attributes: Option<Attributes>,
    ) -> Plan {
        let path = self.guard.display(&location);
        let mode = before.as_ref().map(|before| before.stat.st_mode);
        let new_mode = attributes.as_ref().map(Attributes::mode).or(mode).unwrap_or(0o644);
        let sides = diff::Sides {
            before: before.as_ref().map(|before| &*before.bytes),
            after: after.as_deref(),
            mode: mode.unwrap_or(new_mode),
        };
        let diff = diff::unified_with_mode(&path, sides, new_mode);
        let creates = before.is_none();
        Plan {
            location,
            before,
            after,
            attributes,
            whole: true,
            path,
            diff,
            replaced: 0,
            line: 1,
            bridged: None,
            creates,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves maps that are whole: every insert is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever may read may execute, as git does it; or nobody may.
fn with_execution(mut stat: Stat, executable: bool) -> Stat {
    stat.st_mode = match executable {
        true => stat.st_mode | (stat.st_mode & 0o444) >> 2,
        false => stat.st_mode & !0o111,
    };
    stat
}

/// The text of a file that edits and patches may change.
fn editable(bytes: &[u8], shown: &str) -> Result<Text, WorkspaceError> {
    match Content::of(bytes) {
        Content::Binary(kind) => {
            Err(WorkspaceError::Refused(format!("{shown} is a {kind}; edit works on text only")))
        }
        Content::Text(text) if !text.valid_utf8 => Err(WorkspaceError::Refused(format!(
            "{shown} is not valid UTF-8, so an edit could damage it; change it with a command that knows its encoding"
        ))),
        Content::Text(text) => Ok(text),
    }
}

fn read_whole(file: File, path: &str) -> Result<Vec<u8>, WorkspaceError> {
    let mut bytes = Vec::new();
    // One byte more than is allowed shows that the file grew meanwhile.
    file.take(MAX_WHOLE + 1).read_to_end(&mut bytes).map_err(|error| read_error(path, &error))?;
    if bytes.len() as u64 > MAX_WHOLE {
        return Err(WorkspaceError::Refused(format!("{path} grows while it is read; try again later")));
    }
    Ok(bytes)
}

fn ends_of(mut file: File, path: &str) -> Result<ReadContent, WorkspaceError> {
    let failed = |error: std::io::Error| read_error(path, &error);
    let mut head = Vec::new();
    (&mut file).take(HUGE_HEAD as u64).read_to_end(&mut head).map_err(failed)?;
    if let Content::Binary(kind) = Content::of(&head) {
        return Ok(ReadContent::Binary(kind));
    }
    let mut tail = Vec::new();
    file.seek(SeekFrom::End(-(HUGE_TAIL as i64))).map_err(failed)?;
    file.take(HUGE_TAIL as u64).read_to_end(&mut tail).map_err(failed)?;
    let lossy = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
    Ok(ReadContent::Huge { head: lossy(head), tail: lossy(tail) })
}

fn read_error(path: &str, error: &std::io::Error) -> WorkspaceError {
    let errno = rustix::io::Errno::from_io_error(error).unwrap_or(rustix::io::Errno::IO);
    guard::io_error("read", path, errno)
}

fn write_error(path: &str, error: WriteError) -> WorkspaceError {
    match error {
        WriteError::Changed => WorkspaceError::Stale(format!(
            "{path} changed while it was being written; nothing was done. Read it again with read_file, then repeat the change"
        )),
        WriteError::Io(errno) => guard::io_error("write", path, errno),
    }
}
