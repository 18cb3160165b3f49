//! Checkpoints around commands: what the workspace holds before one and after it, so that what it did enters the
//! journal as what tools write does, and undo and diffs cover both alike.
//!
//! A checkpoint ([`scan`]) is every file, link and directory that the repository does not ignore, with its mode; the
//! bytes of files lie outside the repository in a [`store`] that ends with the session: like the journal it serves,
//! it is of no use to another process. [`difference`] says what a command did; [`outside`] what it did that undo does
//! not cover. Commands that surely only read (`shell::policy`) run without. Not kept at all are times, owners, extended
//! attributes, and that two names were one file.

mod difference;
mod outside;
mod scan;
mod store;

pub(super) use outside::Ran;

use super::Workspace;
use super::journal::{By, Entry};
use super::shell::policy::{self, CommandVerdict, Place};
use super::shell::{Shell, ShellCommand, ShellError, ShellOutcome};
use super::write::Hash;
use difference::Difference;
use scan::{Checkpoint, Failed, scan};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, MutexGuard, PoisonError};
use store::Store;

/// Bytes that the originals of one session may take.
const LIMIT: u64 = 1024 * 1024 * 1024;

/// The checkpoints of a workspace.
pub(super) struct Checkpoints {
    directory: PathBuf,
    own: Option<PathBuf>,
    limit: u64,
    /// Made with the first checkpoint.
    store: Option<Store>,
    last: Option<Arc<Checkpoint>>,
    /// Why no more are taken.
    given_up: Option<String>,
}

/// What there is to compare with after a command.
enum Before {
    /// Nobody asked for checkpoints.
    Off,
    Taken(Arc<Checkpoint>),
    /// There is none: why.
    Missing(String),
    Cancelled,
}

impl Workspace {
    /// From now on checkpoints are taken around commands. Their bytes lie in `directory`, under no name; `own` is the
    /// directory of this program's state, which they never cover.
    pub fn keep_checkpoints(&self, directory: &Path, own: Option<&Path>) {
        self.keep_checkpoints_within(directory, own, LIMIT);
    }

    fn keep_checkpoints_within(&self, directory: &Path, own: Option<&Path>, limit: u64) {
        *self.checkpoints() = Some(Checkpoints {
            directory: directory.to_path_buf(),
            own: own.map(Path::to_path_buf),
            limit,
            store: None,
            last: None,
            given_up: None,
        });
    }

    /// Runs a command in the workspace. What it does to files is recorded for undo where checkpoints are kept.
    pub fn run_command(
        &self,
        shell: &Shell,
        command: &ShellCommand,
        cancel: &AtomicBool,
        on_output: &mut dyn FnMut(&str),
    ) -> Result<ShellOutcome, ShellError> {
        let place = Place { directory: command.directory.clone(), ..Place::in_workspace(self.root()) };
        let only_reads = policy::judge(&command.command, &place).verdict == CommandVerdict::ReadOnly;
        if only_reads || shell.unavailable().is_some() {
            return shell.run(self.root(), command, cancel, on_output);
        }
        let before = self.checkpoint_before(cancel);
        if let Before::Cancelled = before {
            return Ok(ShellOutcome { cancelled: true, sandbox: shell.tier(), ..ShellOutcome::default() });
        }
        let outcome = shell.run(self.root(), command, cancel, on_output);
        let by = if self.runs_check(command, &place) { By::Check } else { By::Command };
        self.record_since(before, by);
        outcome
    }

    fn checkpoint_before(&self, cancel: &AtomicBool) -> Before {
        let crowded = self.checkpoints().as_ref().is_some_and(Checkpoints::is_crowded);
        // The journal is locked first wherever both are.
        let needed = if crowded { self.state().journal.hashes() } else { HashSet::new() };
        let mut held = self.checkpoints();
        let Some(checkpoints) = held.as_mut() else { return Before::Off };
        if crowded {
            checkpoints.make_room(needed);
        }
        match checkpoints.take(self, cancel) {
            Ok(checkpoint) => Before::Taken(checkpoint),
            Err(Failed::Cancelled) => Before::Cancelled,
            Err(Failed::Impossible(why)) => Before::Missing(why),
        }
    }

    /// Enters into the journal what became of the workspace since `before`.
    fn record_since(&self, before: Before, by: By) {
        let (before, after) = match before {
            Before::Off | Before::Cancelled => return,
            Before::Missing(why) => return self.state().journal.record_command(Ran::without(why)),
            Before::Taken(before) => {
                // Whoever stopped the command wants to know what it did until then.
                let never = AtomicBool::new(false);
                let after = self.checkpoints().as_mut().map(|checkpoints| checkpoints.take(self, &never));
                match after {
                    Some(Ok(after)) => (before, after),
                    Some(Err(Failed::Impossible(why))) => {
                        return self.state().journal.record_command(Ran::without(why));
                    }
                    Some(Err(Failed::Cancelled)) | None => return,
                }
            }
        };
        let difference = Difference::between(&before, &after);
        let ran = Ran::between(self.root(), &before, &after, &difference);
        let base = self.guard.first_root();
        let mut state = self.state();
        for change in difference.changes {
            state.journal.record(Entry {
                location: self.guard.beneath(&base, &change.path),
                before: change.before,
                bytes: None,
                after: change.after,
                by,
                foreign: change.foreign,
            });
        }
        state.journal.record_command(ran);
    }

    /// The bytes of a file that a checkpoint held.
    pub(super) fn stored(&self, hash: &Hash) -> Option<Vec<u8>> {
        self.checkpoints().as_ref()?.store.as_ref()?.get(hash)
    }

    /// How many they are.
    pub(super) fn stored_length(&self, hash: &Hash) -> Option<u64> {
        self.checkpoints().as_ref()?.store.as_ref()?.length_of(hash)
    }

    fn checkpoints(&self) -> MutexGuard<'_, Option<Checkpoints>> {
        // A panic elsewhere leaves a store that knows no more than it holds.
        self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Checkpoints {
    fn take(&mut self, workspace: &Workspace, cancel: &AtomicBool) -> Result<Arc<Checkpoint>, Failed> {
        if let Some(why) = &self.given_up {
            return Err(Failed::Impossible(why.clone()));
        }
        let taken = self.store().and_then(|(store, last, own)| scan(workspace, store, last, own, cancel));
        match taken {
            Ok(checkpoint) => {
                let checkpoint = Arc::new(checkpoint);
                self.last = Some(checkpoint.clone());
                Ok(checkpoint)
            }
            Err(failed) => {
                if let Failed::Impossible(why) = &failed {
                    self.given_up = Some(why.clone());
                    self.last = None;
                }
                Err(failed)
            }
        }
    }

    /// The store, made where there is none yet; and what a scan needs besides.
    fn store(&mut self) -> Result<(&mut Store, Option<&Checkpoint>, Option<&Path>), Failed> {
        let store = match &mut self.store {
            Some(store) => store,
            none => {
                let made = Store::create(&self.directory, self.limit)
                    .or_else(|_| Store::create(&std::env::temp_dir(), self.limit));
                let failed = |error: std::io::Error| {
                    let place = self.directory.display();
                    Failed::Impossible(format!("their originals cannot be kept in {place}: {error}"))
                };
                none.insert(made.map_err(failed)?)
            }
        };
        Ok((store, self.last.as_deref(), self.own.as_deref()))
    }

    fn is_crowded(&self) -> bool {
        self.store.as_ref().is_some_and(Store::is_crowded)
    }

    /// Drops what neither the journal nor the last checkpoint needs. Where that fails the store is as full as it was.
    fn make_room(&mut self, mut needed: HashSet<Hash>) {
        if let Some(last) = &self.last {
            needed.extend(last.items.values().filter_map(|item| item.node.hash()));
        }
        if let Some(store) = &mut self.store {
            let _ = store.clear_but(&needed);
        }
    }
}

#[cfg(test)]
mod tests;
