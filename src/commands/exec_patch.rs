//! `--patch FILE`: the work is done in a private copy, and what came of it is a file.

use super::{Failure, exit};
use crate::agent::protocol::{Ending, TurnOutcome};
use crate::config::Config;
use crate::headless::{ExecResult, PatchReport};
use crate::workspace::{PrivateCopy, Workspace, WorkspaceError};
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// As many as Linux itself follows.
const MOST_LINKS: usize = 40;

pub struct Patching {
    copy: PrivateCopy,
    file: PathBuf,
}

impl Patching {
    /// Whether `file` can be a patch is looked at first; then the workspace is copied.
    pub fn begin(
        file: &Path,
        workspace: &Workspace,
        config: &Config,
        cancel: &AtomicBool,
    ) -> Result<Self, Failure> {
        writable(file)?;
        let copy = private_copy(workspace, config, cancel)?;
        Ok(Self { copy, file: file.to_path_buf() })
    }

    pub fn copy(&self) -> &PrivateCopy {
        &self.copy
    }

    /// What the check left behind before the work (`made`) is none of the work's.
    pub fn checked(&mut self, made: &[PathBuf]) -> Result<(), Failure> {
        self.copy.checked(made).map_err(unusable)
    }

    /// Writes the patch, whatever the ending. Where that fails the work is not thrown away: the copy stays.
    pub fn finish(&mut self, result: &mut ExecResult) {
        if let Some(outcome) = &result.outcome {
            self.copy.settle(&outcome.touched);
        }
        let (message, hint) = match write(&self.file, &self.copy) {
            Ok(files_changed) => {
                let file = self.file.display().to_string();
                result.patch = Some(PatchReport { file, files_changed });
                return;
            }
            Err(told) => told,
        };
        let copy = self.copy.leave();
        let message = format!("{message}; the changed copy stays in {}", copy.display());
        let outcome = result.outcome.get_or_insert_with(|| TurnOutcome::ended(Ending::Done));
        outcome.ending = Ending::Failed { message, hint };
    }
}

/// Whether a patch can be written to `file`: what stands in its way is told before the work.
pub(super) fn writable(file: &Path) -> Result<(), Failure> {
    let place = resolved(file);
    let why = if is_stream(file) {
        None
    } else if place.is_dir() || !folder(&place).is_dir() {
        Some("it needs a directory that exists".to_string())
    } else {
        tempfile::NamedTempFile::new_in(folder(&place)).err().map(|error| error.to_string())
    };
    let Some(why) = why else { return Ok(()) };
    let message = format!("{} cannot be written: {why}", file.display());
    Err(Failure::new(exit::USAGE, message).hint("name a file: --patch work.patch"))
}

/// A copy of the workspace, where copies are kept.
pub(super) fn private_copy(
    workspace: &Workspace,
    config: &Config,
    cancel: &AtomicBool,
) -> Result<PrivateCopy, Failure> {
    let cache = config.dirs.cache().ok().map(|cache| cache.join("copies"));
    let places: Vec<PathBuf> = cache.into_iter().chain([std::env::temp_dir()]).collect();
    PrivateCopy::of(workspace, &places, cancel).map_err(|error| {
        let code = if cancel.load(Ordering::SeqCst) { exit::INTERRUPTED } else { exit::TASK_FAILED };
        Failure { code, ..unusable(error) }
    })
}

/// Of a copy that cannot be made or read.
pub(super) fn unusable(error: WorkspaceError) -> Failure {
    let failure = Failure::new(exit::TASK_FAILED, error.to_string());
    match error {
        WorkspaceError::Machine { hint, .. } => failure.hint(hint),
        _ => failure,
    }
}

/// Writes what changed in `copy`, and says in how many files; else what happened and what to do.
pub(super) fn write(file: &Path, copy: &PrivateCopy) -> Result<usize, (String, String)> {
    let (patch, files) = copy.patch().map_err(|error| match error {
        WorkspaceError::Machine { message, hint } => (message, hint),
        other => (other.to_string(), "make the patch by hand: git diff --no-index".into()),
    })?;
    let written = if is_stream(file) {
        File::options().write(true).open(file).and_then(|mut stream| stream.write_all(&patch))
    } else {
        write_whole(&resolved(file), &patch)
    };
    written.map_err(|error| {
        let hint = "see that there is room, and that the directory can be written".to_string();
        (format!("{} cannot be written: {error}", file.display()), hint)
    })?;
    Ok(files)
}

/// There is the whole patch or none.
fn write_whole(file: &Path, patch: &[u8]) -> std::io::Result<()> {
    let mut made = tempfile::NamedTempFile::new_in(folder(file))?;
    made.write_all(patch)?;
    made.as_file().set_permissions(Permissions::from_mode(0o644))?;
    made.persist(file).map(drop).map_err(|error| error.error)
}

/// What takes bytes as they come and stays what it is: a pipe, a terminal.
fn is_stream(file: &Path) -> bool {
    file.metadata().is_ok_and(|of| !of.is_file() && !of.is_dir())
}

/// Where a name leads, also where nothing is there yet: the links on the way stay.
fn resolved(file: &Path) -> PathBuf {
    let mut file = file.to_path_buf();
    for _ in 0..MOST_LINKS {
        let Ok(leads_to) = file.read_link() else { break };
        file = folder(&file).join(leads_to);
    }
    file
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
