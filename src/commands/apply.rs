//! `qwright apply`: an edit or patch that a model wrote, applied to this directory whole or not at all.
//!
//! Reads a change from a file or stdin, has the workspace plan and write it, and says what came of it in words or, with
//! `--json`, in one JSON object. What applies and what is refused is the workspace's business.

use super::{CommandResult, Failure, exit};
use crate::chat::escape::escape_for_terminal;
use crate::config::{Dirs, Env};
use crate::workspace::patch::Form;
use crate::workspace::{Change, ChangeError, ChangeErrorCode, Edit, FileEdit, Workspace};
use serde::{Deserialize, Serialize};
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

/// Nobody's model writes more.
const MAX_INPUT: u64 = 64 * 1024 * 1024;

/// Apply an edit or patch a model wrote: a unified diff, SEARCH/REPLACE blocks, or a `*** Begin Patch`
///
/// All of it is applied or nothing; what a kill cuts off, the next start in this directory takes back. What could be
/// meant in more than one way is refused, and the nearest lines are shown. Exit status: 0 applied, 1 it does not apply, 2 it could not be read.
#[derive(Debug, clap::Args)]
pub struct ApplyArgs {
    /// Where the change is [default: -, standard input]
    file: Option<PathBuf>,
    /// Print the diff and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Take {"kind", "edit"} and answer {"ok", "files", "error"?}. Kinds: search_replace ({"path", "old_string",
    /// "new_string", "replace_all"?, "read_sha256"?}), multi_edit ({"edits"}), and search_replace_block, unified_diff,
    /// apply_patch ({"text"})
    #[arg(long)]
    json: bool,
    /// The directory that paths are relative to [default: the current one]
    #[arg(short = 'C', long)]
    workspace: Option<PathBuf>,
}

/// What came of a change; the JSON answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    pub ok: bool,
    pub files: Vec<AnswerFile>,
    /// Of a dry run: what would change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<AnswerError>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AnswerFile {
    pub path: String,
    /// created, modified or removed.
    pub change: &'static str,
    /// First line that is different.
    pub line: usize,
    /// White space or the like that was not as in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridged: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AnswerError {
    pub code: &'static str,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<AnswerNearest>,
    #[serde(skip)]
    hint: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AnswerNearest {
    pub line: usize,
    pub text: String,
}

#[derive(Deserialize)]
#[serde(tag = "kind", content = "edit", rename_all = "snake_case")]
enum Request {
    SearchReplace(RequestEdit),
    MultiEdit { edits: Vec<RequestEdit> },
    SearchReplaceBlock { text: String },
    UnifiedDiff { text: String },
    ApplyPatch { text: String },
}

#[derive(Deserialize)]
struct RequestEdit {
    path: String,
    old_string: String,
    new_string: String,
    #[serde(default)]
    replace_all: bool,
    read_sha256: Option<String>,
}

impl From<RequestEdit> for FileEdit {
    fn from(edit: RequestEdit) -> Self {
        let RequestEdit { path, old_string, new_string, replace_all, read_sha256 } = edit;
        Self { path, edit: Edit { old_string, new_string, replace_all }, read_sha256 }
    }
}

pub fn run(args: &ApplyArgs) -> CommandResult {
    let answer = input(args.file.as_deref()).map(|text| answer(args, &text))??;
    let code = match &answer.error {
        None => exit::DONE,
        Some(error) if error.code == ChangeErrorCode::Invalid.name() => exit::USAGE,
        Some(_) => exit::TASK_FAILED,
    };
    if args.json {
        let text = serde_json::to_string(&answer)
            .map_err(|error| Failure::new(exit::TASK_FAILED, error.to_string()))?;
        print(&(text + "\n"));
        return Ok(code);
    }
    if let Some(error) = answer.error {
        return Err(Failure { code, message: error.message, hint: error.hint });
    }
    if let Some(diff) = answer.diff {
        // Into a file or a pipe the diff goes as it is: git can apply it.
        let shown = std::io::stdout().is_terminal();
        print(&if shown { escape_for_terminal(&diff) } else { diff.as_str().into() });
        return Ok(code);
    }
    for file in &answer.files {
        let note = file.bridged.map_or(String::new(), |what| format!(" (found with {what})"));
        print(&escape_for_terminal(&format!("{} {}, line {}{note}\n", file.change, file.path, file.line)));
    }
    Ok(code)
}

fn answer(args: &ApplyArgs, text: &str) -> Result<Answer, Failure> {
    let root = args.workspace.clone().unwrap_or_else(|| ".".into());
    let mut workspace = Workspace::open(&root, &[])
        .map_err(|error| Failure::new(exit::USAGE, error.to_string()).hint("name a directory with -C"))?;
    let dirs = Dirs::new(&Env::of_process());
    super::close_settings(&mut workspace, &dirs);
    if let Ok(state) = dirs.state() {
        let recovery = super::use_state(&mut workspace, &state);
        if let Some(why) = recovery.unavailable.filter(|_| !args.dry_run) {
            super::tell(&why);
        }
    }
    Ok(perform(&workspace, read(text, args.json), args.dry_run))
}

/// Reads what a change is, from JSON or from the marks of its form; the error says what would be right.
pub fn read(text: &str, json: bool) -> Result<Change, String> {
    let is_json = json || (text.trim_start().starts_with('{') && text.contains("\"kind\""));
    if is_json {
        let request: Request = serde_json::from_str(text).map_err(|error| {
            format!("the input is not {{\"kind\", \"edit\"}} as `qwright apply --help` has it: {error}")
        })?;
        return Ok(match request {
            Request::SearchReplace(edit) => Change::Edits(vec![edit.into()]),
            Request::MultiEdit { edits } if edits.is_empty() => {
                return Err("\"edits\" is empty; name at least one".into());
            }
            Request::MultiEdit { edits } => Change::Edits(edits.into_iter().map(FileEdit::from).collect()),
            Request::SearchReplaceBlock { text } => Change::Patch(Form::SearchReplaceBlock, text),
            Request::UnifiedDiff { text } => Change::Patch(Form::UnifiedDiff, text),
            Request::ApplyPatch { text } => Change::Patch(Form::ApplyPatch, text),
        });
    }
    match Form::detect(text) {
        Some(form) => Ok(Change::Patch(form, text.to_string())),
        None => Err(
            "there is no patch in the input: it needs a unified diff ('--- a/PATH', '+++ b/PATH', '@@'), \
                     '<<<<<<< SEARCH' blocks or a '*** Begin Patch'"
                .into(),
        ),
    }
}

/// Plans a change and, but for a dry run, makes it.
pub fn perform(workspace: &Workspace, change: Result<Change, String>, dry_run: bool) -> Answer {
    let failed = |error: AnswerError| Answer { ok: false, files: Vec::new(), diff: None, error: Some(error) };
    let change = match change {
        Ok(change) => change,
        Err(message) => {
            let code = ChangeErrorCode::Invalid.name();
            return failed(AnswerError { code, message, path: None, nearest: None, hint: None });
        }
    };
    let done = workspace.plan_change(&change).and_then(|plans| {
        if !dry_run {
            workspace.apply_all(&plans)?;
        }
        Ok(plans)
    });
    match done {
        Err(error) => failed(error.into()),
        Ok(plans) => {
            let files = plans.iter().map(|plan| AnswerFile {
                path: plan.path.clone(),
                change: match (plan.creates, plan.removes()) {
                    (true, _) => "created",
                    (_, true) => "removed",
                    _ => "modified",
                },
                line: plan.line,
                bridged: plan.bridged,
            });
            let diff = dry_run.then(|| plans.iter().map(|plan| plan.diff.as_str()).collect());
            Answer { ok: true, files: files.collect(), diff, error: None }
        }
    }
}

impl From<ChangeError> for AnswerError {
    fn from(error: ChangeError) -> Self {
        let nearest = error.nearest.map(|near| AnswerNearest { line: near.first_line, text: near.text });
        Self { code: error.code.name(), message: error.message, path: error.path, nearest, hint: error.hint }
    }
}

fn input(file: Option<&Path>) -> Result<String, Failure> {
    let usage = |what: String| Failure::new(exit::USAGE, what);
    let mut bytes = Vec::new();
    let read = match file.filter(|file| *file != Path::new("-")) {
        None => std::io::stdin().lock().take(MAX_INPUT + 1).read_to_end(&mut bytes),
        Some(path) => {
            std::fs::File::open(path).and_then(|file| file.take(MAX_INPUT + 1).read_to_end(&mut bytes))
        }
    };
    let name = file.map_or("standard input".into(), |file| file.display().to_string());
    read.map_err(|error| usage(format!("cannot read {name}: {error}")))?;
    if bytes.len() as u64 > MAX_INPUT {
        return Err(usage(format!("{name} has more than 64 MB; no patch is that large")));
    }
    String::from_utf8(bytes)
        .map_err(|_| usage(format!("{name} is not UTF-8 text")).hint("patches change text files only"))
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever closed our output does not want the rest.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_from_json_or_by_its_marks() {
        let edit =
            r#"{"kind": "search_replace", "edit": {"path": "a", "old_string": "x", "new_string": "y"}}"#;
        assert!(
            matches!(read(edit, true), Ok(Change::Edits(edits)) if edits[0].path == "a" && !edits[0].edit.replace_all)
        );
        assert!(matches!(read(edit, false), Ok(Change::Edits(_))));
        let patch = r#"{"kind": "apply_patch", "edit": {"text": "t"}}"#;
        assert_eq!(read(patch, true), Ok(Change::Patch(Form::ApplyPatch, "t".into())));
        assert!(matches!(read("--- a/f\n+++ b/f\n", false), Ok(Change::Patch(Form::UnifiedDiff, _))));
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"kind": "other", "edit": {}}"#,
            r#"{"kind": "multi_edit", "edit": {"edits": []}}"#,
        ] {
            assert!(read(bad, true).is_err(), "{bad}");
        }
        assert!(read("just text", false).is_err_and(|message| message.contains("no patch")));
    }
}
