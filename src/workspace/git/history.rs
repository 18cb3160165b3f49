//! Who changed what, and when: the commits behind the work tree, and the commit behind each line of a file.

use super::git_error;
use crate::workspace::{ReadContent, Workspace, WorkspaceError};
use git2::{BlameOptions, Commit, ErrorCode, Oid, Sort};
use std::collections::HashSet;
use std::path::Path;

/// Commits that are looked at for those that changed a path; an old file in a large repository may have none of them.
const LOOKED_AT: usize = 20_000;
/// Lines of one question; more is no question about some lines.
const MOST_LINES: usize = 400;

impl Workspace {
    /// The newest commits first, a line each: id, day, author, subject. Only those that changed `path`, or where the
    /// workspace is a part of a repository, that part.
    pub fn git_log(&self, path: Option<&str>, limit: usize) -> Result<String, WorkspaceError> {
        let place = self.repository()?;
        let beneath = self.beneath(&place, path)?;
        let mut walk = place.repository.revwalk().map_err(git_error)?;
        walk.set_sorting(Sort::TIME | Sort::TOPOLOGICAL).map_err(git_error)?;
        match walk.push_head() {
            Ok(()) => {}
            Err(error) if matches!(error.code(), ErrorCode::UnbornBranch | ErrorCode::NotFound) => {
                return Ok("no commits yet\n".into());
            }
            Err(error) => return Err(git_error(error)),
        }
        let mut out = String::new();
        let mut shown = 0;
        for (looked_at, id) in walk.enumerate() {
            let commit = place.repository.find_commit(id.map_err(git_error)?).map_err(git_error)?;
            if looked_at == LOOKED_AT {
                out.push_str(&format!(
                    "[... older than the last {LOOKED_AT} commits is not looked at ...]\n"
                ));
                break;
            }
            if !beneath.as_os_str().is_empty() && !changed(&commit, &beneath)? {
                continue;
            }
            if shown == limit {
                out.push_str("[... older commits; ask with a larger limit ...]\n");
                break;
            }
            shown += 1;
            out.push_str(&line(&commit));
        }
        if out.is_empty() {
            out.push_str("no commit changed it\n");
        }
        Ok(out)
    }

    /// The commits that last changed lines `first` to `last` (from 1) of a file, and which of the lines each did.
    pub fn git_blame(&self, path: &str, first: usize, last: usize) -> Result<String, WorkspaceError> {
        let place = self.repository()?;
        let beneath = self.beneath(&place, Some(path))?;
        let last = last.min(first.saturating_add(MOST_LINES - 1));
        let mut options = BlameOptions::new();
        let blame = place.repository.blame_file(&beneath, Some(&mut options)).map_err(|error| match error
            .code()
        {
            ErrorCode::NotFound => WorkspaceError::Refused(format!("{path} is in no commit yet")),
            _ => git_error(error),
        })?;
        // Lines that are not committed yet would move all that stand below them.
        let now = match self.read(path)?.content {
            ReadContent::Text(text) => text.bytes_with(&text.text),
            _ => return Err(WorkspaceError::Refused(format!("{path} is no text file, so it has no lines"))),
        };
        let blame = blame.blame_buffer(&now).map_err(git_error)?;
        let mut out = String::new();
        for hunk in blame.iter() {
            let (start, count) = (hunk.final_start_line(), hunk.lines_in_hunk());
            let (from, to) = (start.max(first), (start + count).saturating_sub(1).min(last));
            if from > to {
                continue;
            }
            let id = hunk.final_commit_id();
            let by = match place.repository.find_commit(id) {
                Ok(commit) if id != Oid::ZERO_SHA1 => line(&commit),
                _ => "not committed yet\n".into(),
            };
            out.push_str(&format!("{from}-{to} {by}"));
        }
        if out.is_empty() {
            return Err(WorkspaceError::Refused(format!("{path} has no line {first}")));
        }
        Ok(out)
    }
}

/// `1a2b3c4 2026-11-26 Name: subject`
fn line(commit: &Commit<'_>) -> String {
    let when = commit.time();
    let local = when.seconds().saturating_add(i64::from(when.offset_minutes()) * 60);
    let day = jiff::Timestamp::from_second(local).unwrap_or_default().strftime("%Y-%m-%d").to_string();
    let author = commit.author();
    let subject = String::from_utf8_lossy(commit.summary_bytes().unwrap_or_default()).into_owned();
    format!("{} {day} {}: {subject}\n", short(commit.id()), String::from_utf8_lossy(author.name_bytes()))
}

pub(super) fn short(id: Oid) -> String {
    id.to_string().chars().take(7).collect()
}

/// Whether a commit made something of `path` that none of its parents has.
fn changed(commit: &Commit<'_>, path: &Path) -> Result<bool, WorkspaceError> {
    let tree = commit.tree().map_err(git_error)?;
    let own = tree.get_path(path).ok().map(|entry| entry.id());
    let mut others = HashSet::new();
    for parent in commit.parents() {
        let tree = parent.tree().map_err(git_error)?;
        others.insert(tree.get_path(path).ok().map(|entry| entry.id()));
    }
    if others.is_empty() {
        return Ok(own.is_some());
    }
    // A merge that took one side's version changed nothing itself.
    Ok(!others.contains(&own))
}
