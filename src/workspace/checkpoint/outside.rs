//! What a command did that undo does not cover, as far as it can be seen cheaply. The file system keeps when a file last
//! changed, and that time cannot be set: what it puts into the time of a command was changed then. After a command only
//! git's state and the topmost of what is ignored is looked at; what lies deeper is counted when a turn is taken back.

use super::difference::{Difference, SLACK};
use super::scan::Checkpoint;
use crate::workspace::Workspace;
use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Entries of directories that are not covered which are looked at.
const MOST_LOOKED_AT: usize = 50_000;
/// Places that a line names.
const MOST_NAMED: usize = 10;
/// What git keeps of its state besides objects.
const GIT_STATE: &[&str] =
    &["HEAD", "index", "refs", "packed-refs", "config", "hooks", "info", "MERGE_HEAD", "rebase-merge"];

/// A command that ran, for the report of an undo.
pub struct Ran {
    began: SystemTime,
    ended: SystemTime,
    /// What was not covered before and after: the topmost entries.
    uncovered: [Arc<BTreeSet<PathBuf>>; 2],
    left_out: Vec<(PathBuf, &'static str)>,
    foreign: Vec<PathBuf>,
    unreadable: Vec<PathBuf>,
    /// Of what is ignored the topmost entries that changed, and what changed of git's state.
    touched: BTreeSet<PathBuf>,
    git: BTreeSet<PathBuf>,
    /// Why there was no checkpoint.
    problem: Option<String>,
}

impl Ran {
    /// A command that ended just now.
    pub fn between(root: &Path, before: &Checkpoint, after: &Checkpoint, difference: &Difference) -> Self {
        let mut ran = Self {
            began: before.started,
            ended: after.started,
            uncovered: [before.uncovered.clone(), after.uncovered.clone()],
            left_out: difference.left_out.clone(),
            foreign: difference.foreign.clone(),
            unreadable: after.unreadable.difference(&before.unreadable).cloned().collect(),
            touched: BTreeSet::new(),
            git: BTreeSet::new(),
            problem: None,
        };
        let (mut touched, mut git) = (BTreeSet::new(), BTreeSet::new());
        let mut look = Look { commands: std::slice::from_ref(&ran), left: MOST_LOOKED_AT };
        for path in after.uncovered.iter() {
            if is_git(path) {
                look.inside_git(root, path, &mut git);
            } else if of(&root.join(path)).is_some_and(|of| look.changed(&of)) {
                touched.insert(path.clone());
            }
        }
        (ran.touched, ran.git) = (touched, git);
        ran
    }

    pub fn without(why: String) -> Self {
        let now = SystemTime::now();
        Self {
            began: now,
            ended: now,
            uncovered: Default::default(),
            left_out: Vec::new(),
            foreign: Vec::new(),
            unreadable: Vec::new(),
            touched: BTreeSet::new(),
            git: BTreeSet::new(),
            problem: Some(why),
        }
    }
}

impl Workspace {
    /// What the commands did that undo does not cover, in a line per kind.
    pub(in crate::workspace) fn outside(&self, commands: &[Ran]) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        let problems: BTreeSet<&String> = commands.iter().filter_map(|ran| ran.problem.as_ref()).collect();
        lines.extend(problems.iter().map(|why| format!("all that commands did to files: {why}")));
        let mut look = Look { commands, left: MOST_LOOKED_AT };
        let (mut ignored, mut git) = (Vec::new(), Vec::new());
        let uncovered: BTreeSet<&PathBuf> =
            commands.iter().flat_map(|ran| &ran.uncovered).flat_map(|paths| paths.iter()).collect();
        for path in uncovered {
            if of(&self.root().join(path)).is_none() {
                let kind = if is_git(path) { &mut git } else { &mut ignored };
                kind.extend(look.gone(path));
            } else if !is_git(path) {
                ignored.extend(look.inside(self.root(), path));
            }
        }
        let state: BTreeSet<&PathBuf> = commands.iter().flat_map(|ran| &ran.git).collect();
        git.extend(state.iter().map(|path| path.display().to_string()));
        lines.extend(line("ignored files", ignored));
        lines.extend(line("git's own files", git));
        let left_out: BTreeSet<&(PathBuf, &str)> = commands.iter().flat_map(|ran| &ran.left_out).collect();
        let left_out = left_out.iter().map(|(path, why)| format!("{} ({why})", path.display()));
        lines.extend(line("not kept", left_out.collect()));
        let named = |paths: fn(&Ran) -> &Vec<PathBuf>| -> Vec<String> {
            let paths: BTreeSet<&PathBuf> = commands.iter().flat_map(paths).collect();
            paths.iter().map(|path| path.display().to_string()).collect()
        };
        lines.extend(line("there before under a name that is not covered", named(|ran| &ran.foreign)));
        lines.extend(line("in directories that cannot be read", named(|ran| &ran.unreadable)));
        lines
    }
}

fn line(kind: &str, mut named: Vec<String>) -> Option<String> {
    let more = named.len().saturating_sub(MOST_NAMED);
    named.truncate(MOST_NAMED);
    if more > 0 {
        named.push(format!("and {more} more"));
    }
    (!named.is_empty()).then(|| format!("{kind}: {}", named.join(", ")))
}

/// A look at what is not covered, which ends somewhere.
struct Look<'a> {
    commands: &'a [Ran],
    left: usize,
}

impl Look<'_> {
    /// What changed of the entry at `path`, if anything did.
    fn inside(&mut self, root: &Path, path: &Path) -> Option<String> {
        let of = of(&root.join(path))?;
        let touched = self.changed(&of) || self.commands.iter().any(|ran| ran.touched.contains(path));
        if !of.is_dir() {
            return touched.then(|| path.display().to_string());
        }
        let (mut files, mut directories) = (0, usize::from(touched));
        self.count(&root.join(path), &mut files, &mut directories);
        let more = if self.left == 0 { " or more" } else { "" };
        match (files, directories) {
            (0, 0) => None,
            // Something was removed in it.
            (0, _) => Some(format!("{}/", path.display())),
            (files, _) => Some(format!("{files}{more} under {}/", path.display())),
        }
    }

    /// Adds what changed of git's state.
    fn inside_git(&mut self, root: &Path, path: &Path, changed: &mut BTreeSet<PathBuf>) {
        let parts = GIT_STATE.iter().map(|name| path.join(name));
        let mut found: Vec<PathBuf> = Vec::new();
        for part in parts {
            let full = root.join(&part);
            let Some(of) = of(&full) else { continue };
            let (mut files, mut directories) = (0, usize::from(self.changed(&of)));
            if of.is_dir() {
                self.count(&full, &mut files, &mut directories);
            }
            if files + directories > 0 {
                found.push(part);
            }
        }
        // A file of its state that is gone, one that is not on the list, or a file that says where all that is.
        if found.is_empty() && of(&root.join(path)).is_some_and(|of| self.changed(&of)) {
            found.push(path.to_path_buf());
        }
        changed.extend(found);
    }

    fn gone(&self, path: &Path) -> Option<String> {
        let was_there = self.commands.iter().any(|ran| ran.uncovered[0].contains(path));
        was_there.then(|| format!("{} (removed)", path.display()))
    }

    /// Counts the changed entries beneath a directory.
    fn count(&mut self, directory: &Path, files: &mut usize, directories: &mut usize) {
        for entry in directory.read_dir().into_iter().flatten().flatten() {
            if self.left == 0 {
                return;
            }
            self.left -= 1;
            let Ok(of) = entry.metadata() else { continue };
            let changed = usize::from(self.changed(&of));
            if of.is_dir() {
                *directories += changed;
                self.count(&entry.path(), files, directories);
            } else {
                *files += changed;
            }
        }
    }

    fn changed(&self, of: &Metadata) -> bool {
        let seconds = Duration::from_secs(u64::try_from(of.ctime()).unwrap_or(0));
        let rest = Duration::from_nanos(u64::try_from(of.ctime_nsec()).unwrap_or(0));
        let Some(changed) = UNIX_EPOCH.checked_add(seconds).and_then(|time| time.checked_add(rest)) else {
            return false;
        };
        self.commands.iter().any(|ran| ran.began - SLACK <= changed && changed <= ran.ended)
    }
}

fn of(path: &Path) -> Option<Metadata> {
    path.symlink_metadata().ok()
}

/// Whether git calls it its own, on any file system.
fn is_git(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.eq_ignore_ascii_case(".git"))
}
