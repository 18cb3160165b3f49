//! Changes of several files as one: edits in order, or a patch. All of it is worked out in memory first, each part on
//! what the parts before it made; then it is written, and if a write fails what was written is put back. So is, by the
//! next start, what a kill or a full disk left half written (`pending`).
//!
//! What a change does to a text is up to `edit` and `patch`; this knows files: which a name means, whether they are
//! there, fresh and text, and how they are created, removed and renamed.

use super::edit::{EditError, Nearest};
use super::guard::Location;
use super::patch::{self, FilePatch, Form, Hunk, Name, Patch, PlaceError, PlaceErrorKind};
use super::write::{self, Attributes};
use super::{Edit, Existing, Plan, Seen, Workspace, WorkspaceError, edit, editable, guard, with_execution};

/// A change as a model asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// In order, each on what the ones before it made.
    Edits(Vec<FileEdit>),
    Patch(Form, String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileEdit {
    pub path: String,
    pub edit: Edit,
    /// SHA-256 of the file as the model read it, in hexadecimal digits.
    pub read_sha256: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeErrorCode {
    /// The change itself cannot be read.
    Invalid,
    /// The text to change is not in the file.
    NotFound,
    /// It is there more than once, or it is not certain where or what is meant.
    Ambiguous,
    /// Nothing would be different.
    NoChange,
    /// A file to be made is there already.
    Exists,
    MissingFile,
    /// The file is not what it was when it was read.
    Stale,
    /// Not allowed: outside the workspace, protected, not text.
    Refused,
    /// The disk.
    Io,
}

impl ChangeErrorCode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Ambiguous => "ambiguous",
            Self::NoChange => "no_change",
            Self::Exists => "exists",
            Self::MissingFile => "missing_file",
            Self::Stale => "stale",
            Self::Refused => "refused",
            Self::Io => "io",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ChangeError {
    pub code: ChangeErrorCode,
    /// What happened, where, and what to do next.
    pub message: String,
    /// The file it is about.
    pub path: Option<String>,
    /// Its lines that are nearest to what was looked for.
    pub nearest: Option<Nearest>,
    /// What the user can do, where only they can.
    pub hint: Option<String>,
}

impl ChangeError {
    fn new(code: ChangeErrorCode, path: &str, message: String) -> Self {
        Self { code, message, path: Some(path.to_string()), nearest: None, hint: None }
    }

    /// What to tell first: which of several edits it was.
    fn within(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl From<WorkspaceError> for ChangeError {
    fn from(error: WorkspaceError) -> Self {
        let code = match &error {
            WorkspaceError::Missing(_) => ChangeErrorCode::MissingFile,
            WorkspaceError::Refused(_) => ChangeErrorCode::Refused,
            WorkspaceError::Stale(_) => ChangeErrorCode::Stale,
            WorkspaceError::Unmatched(_) => ChangeErrorCode::NotFound,
            WorkspaceError::Machine { .. } => ChangeErrorCode::Io,
        };
        let message = error.to_string();
        let hint = match error {
            WorkspaceError::Machine { hint, .. } => Some(hint),
            _ => None,
        };
        Self { code, message, path: None, nearest: None, hint }
    }
}

impl From<ChangeError> for WorkspaceError {
    fn from(error: ChangeError) -> Self {
        match (error.code, error.hint) {
            (ChangeErrorCode::Io, hint) => {
                Self::Machine { message: error.message, hint: hint.unwrap_or_default() }
            }
            (ChangeErrorCode::MissingFile, _) => Self::Missing(error.message),
            (ChangeErrorCode::Stale, _) => Self::Stale(error.message),
            (ChangeErrorCode::NotFound | ChangeErrorCode::Ambiguous, _) => Self::Unmatched(error.message),
            _ => Self::Refused(error.message),
        }
    }
}

impl Workspace {
    /// Works out what a change makes of each file it touches. Nothing is written.
    pub fn plan_change(&self, change: &Change) -> Result<Vec<Plan>, ChangeError> {
        let mut batch = Batch { workspace: self, slots: Vec::new() };
        match change {
            Change::Edits(edits) => {
                for (index, edit) in edits.iter().enumerate() {
                    batch.edit(edit).map_err(|error| match edits.len() {
                        1 => error,
                        n => error.within(&format!("edit {} of {n}, so none was made", index + 1)),
                    })?;
                }
            }
            Change::Patch(form, text) => {
                let patch = Patch::parse(*form, text).map_err(|error| ChangeError {
                    code: ChangeErrorCode::Invalid,
                    message: error.0,
                    path: None,
                    nearest: None,
                    hint: None,
                })?;
                let parts = patch.files.len();
                for part in &patch.files {
                    batch.patch(part).map_err(|error| match parts {
                        1 => error,
                        _ => error.within(&format!("nothing was changed; the part at line {}", part.line)),
                    })?;
                }
            }
        }
        batch.finish()
    }

    /// Makes all planned changes or none.
    pub fn apply_all(&self, plans: &[Plan]) -> Result<(), WorkspaceError> {
        let mut state = self.state();
        let mark = state.journal.mark();
        // What is removed is removed last: until then every text is on disk.
        let (removed, written): (Vec<&Plan>, Vec<&Plan>) = plans.iter().partition(|plan| plan.removes());
        let ordered: Vec<&Plan> = written.into_iter().chain(removed).collect();
        let begun = self.begin(|| ordered.iter().map(|plan| plan.part()).collect())?;
        let finish = || match &begun {
            Some(begun) => {
                begun.finish().map_err(|errno| guard::io_error("write", "the state directory", errno))
            }
            None => Ok(()),
        };
        let temporary = begun.as_ref().map_or_else(write::temporary_name, |begun| begun.temporary().into());
        let done = ordered.iter().try_for_each(|plan| self.apply_one(&mut state, plan, &temporary));
        let Err(error) = done.and_then(|()| finish()) else { return Ok(()) };
        let report = self.take_back(&mut state, mark, |_| true, Some(&temporary));
        for plan in plans {
            if let (Some(seen), Some(before)) = (state.seen.get_mut(&plan.location), &plan.before) {
                seen.hash = write::hash(&before.bytes);
            }
        }
        let Some((path, why)) = report.kept.first() else {
            // Where not even that can be written the next start finds all files as they were.
            let _ = finish();
            return Err(error);
        };
        let hint = match &begun {
            // The record stays.
            Some(_) => "the next start of qwright puts it back, unless it is changed until then",
            None => "look at that file: it has the new text, the others the old",
        };
        Err(WorkspaceError::Machine {
            message: format!("{error}. {path} was changed already and could not be put back: {why}"),
            hint: hint.into(),
        })
    }
}

/// Files as the change has made them so far.
struct Batch<'w> {
    workspace: &'w Workspace,
    slots: Vec<Slot>,
}

struct Slot {
    location: Location,
    /// As the model should name it.
    path: String,
    before: Option<Existing>,
    now: Option<Vec<u8>>,
    attributes: Option<Attributes>,
    replaced: usize,
    line: Option<usize>,
    bridged: Option<&'static str>,
    /// The model wrote all of it.
    whole: bool,
}

impl Batch<'_> {
    fn slot(&mut self, path: &str) -> Result<&mut Slot, ChangeError> {
        let location = self.workspace.guard.file(path)?;
        self.workspace.guard.check_writable(&location)?;
        let known = self.slots.iter().position(|slot| slot.location == location);
        let index = match known {
            Some(index) => index,
            None => {
                let before = self.workspace.existing(&location)?;
                let path = self.workspace.guard.display(&location);
                if let Some(before) = &before {
                    self.workspace.check_fresh(&location, before, &path)?;
                }
                let now = before.as_ref().map(|before| before.bytes.clone());
                self.slots.push(Slot {
                    location,
                    path,
                    before,
                    now,
                    attributes: None,
                    replaced: 0,
                    line: None,
                    bridged: None,
                    whole: false,
                });
                self.slots.len() - 1
            }
        };
        // The index was found or pushed above.
        self.slots.get_mut(index).ok_or_else(|| ChangeError::new(ChangeErrorCode::Io, path, String::new()))
    }

    fn exists(&self, path: &str) -> bool {
        let Ok(location) = self.workspace.guard.file(path) else { return false };
        match self.slots.iter().find(|slot| slot.location == location) {
            Some(slot) => slot.now.is_some(),
            None => matches!(self.workspace.guard.open_file(&location), Ok(Some(_))),
        }
    }

    fn missing(&self, path: &str) -> ChangeError {
        let mut error = ChangeError::from(self.workspace.missing_file(path));
        error.path = Some(path.to_string());
        error
    }

    fn edit(&mut self, file: &FileEdit) -> Result<(), ChangeError> {
        let edit = &file.edit;
        let slot = self.slot(&file.path)?;
        if let Some(read) = &file.read_sha256 {
            check_read(slot, read)?;
        }
        let Some(now) = &slot.now else {
            if !edit.old_string.is_empty() {
                return Err(self.missing(&file.path));
            }
            slot.now = Some(edit.new_string.clone().into_bytes());
            slot.whole = true;
            return Ok(());
        };
        let text = editable(now, &slot.path)?;
        let edited =
            edit::apply(&text.text, edit).map_err(|error| unmatched(&error, &slot.path, &text.text))?;
        slot.now = Some(text.bytes_with(&edited.text));
        slot.replaced += edited.replaced;
        slot.line.get_or_insert(edited.line);
        slot.bridged = slot.bridged.or(edited.bridged);
        Ok(())
    }

    fn patch(&mut self, part: &FilePatch) -> Result<(), ChangeError> {
        let (from, to) = match &part.name {
            Name::Plain(path) => (Some(path.clone()), None),
            Name::Diff { old, new } => patch::resolve(old.as_deref(), new.as_deref(), &|path| self.exists(path))
                .ok_or_else(|| {
                    let (old, new) = (old.as_deref().unwrap_or("?"), new.as_deref().unwrap_or("?"));
                    let message = format!(
                        "the diff at line {} names two files, {old} and {new}, and it is not clear which is meant; \
                         write the same path in both lines, or 'rename from' and 'rename to' for a renamed file",
                        part.line
                    );
                    ChangeError::new(ChangeErrorCode::Ambiguous, new, message)
                })?,
        };
        let path = from.or(to).unwrap_or_default();
        match &part.change {
            patch::Change::Create { text, executable } => self.create(&path, text, *executable),
            patch::Change::Delete { hunks } => self.delete(&path, hunks.as_deref()),
            patch::Change::Update { hunks, moved_to, executable } => {
                let new = matches!(part.name, Name::Diff { .. }) && hunks.iter().all(Hunk::adds_only);
                if new && moved_to.is_none() && !hunks.is_empty() && !self.exists(&path) {
                    // A new file whose header lacks /dev/null.
                    let text: String = hunks.iter().map(Hunk::new_text).collect();
                    return self.create(&path, &text, executable.unwrap_or(false));
                }
                self.update(&path, hunks, *executable)?;
                moved_to.as_ref().map_or(Ok(()), |to| self.rename(&path, to))
            }
        }
    }

    fn create(&mut self, path: &str, text: &str, executable: bool) -> Result<(), ChangeError> {
        let slot = self.slot(path)?;
        if slot.now.as_ref().is_some_and(|now| !now.is_empty()) {
            let message = format!(
                "{} is there already, so it is not made anew; change it with its lines as context, or use another name",
                slot.path
            );
            return Err(ChangeError::new(ChangeErrorCode::Exists, path, message));
        }
        slot.now = Some(text.as_bytes().to_vec());
        slot.whole = true;
        if executable {
            slot.attributes = Some(Attributes::New(0o777));
        }
        Ok(())
    }

    /// A removed name must be the file itself: behind a link it would take another file away.
    fn check_no_link(&self, path: &str) -> Result<(), ChangeError> {
        let named = self.workspace.root().join(path);
        if named.symlink_metadata().is_ok_and(|entry| entry.file_type().is_symlink()) {
            let message = format!("{path} is a symbolic link; patches remove and rename regular files only");
            return Err(ChangeError::new(ChangeErrorCode::Refused, path, message));
        }
        Ok(())
    }

    fn delete(&mut self, path: &str, hunks: Option<&[Hunk]>) -> Result<(), ChangeError> {
        self.check_no_link(path)?;
        let slot = self.slot(path)?;
        let Some(now) = &slot.now else { return Err(self.missing(path)) };
        if let Some(hunks) = hunks
            && !now.is_empty()
        {
            let rest = placed(slot, hunks)?.0;
            if !rest.is_empty() {
                let message = format!(
                    "the diff removes {0}, but {0} has lines that are not in the diff; to remove it whatever it holds \
                     use '*** Delete File: {0}'",
                    slot.path
                );
                let nearest =
                    rest.lines().next().map(|line| Nearest { first_line: 1, text: line.to_string() });
                return Err(ChangeError {
                    nearest,
                    ..ChangeError::new(ChangeErrorCode::NotFound, path, message)
                });
            }
        }
        slot.now = None;
        Ok(())
    }

    fn update(&mut self, path: &str, hunks: &[Hunk], executable: Option<bool>) -> Result<(), ChangeError> {
        let slot = self.slot(path)?;
        if slot.now.is_none() {
            return Err(self.missing(path));
        }
        if !hunks.is_empty() {
            let (text, applied) = placed(slot, hunks)?;
            slot.now = Some(text.into_bytes());
            slot.replaced += hunks.len();
            slot.line.get_or_insert(applied.line);
            slot.bridged = slot.bridged.or(applied.bridged);
        }
        if let Some(executable) = executable
            && let Some(before) = &slot.before
        {
            let stat = with_execution(before.stat, executable);
            slot.attributes = (stat.st_mode != before.stat.st_mode).then_some(Attributes::Like(stat));
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), ChangeError> {
        self.check_no_link(from)?;
        let slot = self.slot(from)?;
        let location = slot.location.clone();
        let mode =
            slot.attributes.as_ref().map(Attributes::mode).or(slot.before.as_ref().map(|b| b.stat.st_mode));
        let (text, line, bridged) = (slot.now.clone(), slot.line, slot.bridged);
        let target = self.slot(to)?;
        if target.location == location {
            return Ok(());
        }
        if target.now.is_some() {
            let message =
                format!("{} is there already, so {from} is not renamed to it; use another name", target.path);
            return Err(ChangeError::new(ChangeErrorCode::Exists, to, message));
        }
        (target.now, target.line, target.bridged) = (text, line, bridged);
        target.attributes = mode.map(|mode| Attributes::Exactly(mode & 0o7777));
        let slot = self.slot(from)?;
        (slot.now, slot.attributes) = (None, None);
        Ok(())
    }

    fn finish(self) -> Result<Vec<Plan>, ChangeError> {
        let workspace = self.workspace;
        let mut plans = Vec::new();
        let mut last = None;
        for slot in self.slots {
            last = Some(slot.path.clone());
            let same = slot.before.as_ref().map(|before| &before.bytes) == slot.now.as_ref();
            if same && (slot.attributes.is_none() || slot.now.is_none()) {
                continue;
            }
            if let Some(before) = &slot.before {
                // A plan may be shown to the user: what is approved is what will be changed.
                let seen = Seen { hash: write::hash(&before.bytes), read: false };
                workspace.state().seen.entry(slot.location.clone()).or_insert(seen);
            }
            let plan = workspace.plan_with(slot.location, slot.before, slot.now, slot.attributes);
            plans.push(Plan {
                whole: slot.whole,
                replaced: slot.replaced,
                line: slot.line.unwrap_or(1),
                bridged: slot.bridged,
                ..plan
            });
        }
        if plans.is_empty() {
            let path = last.unwrap_or_default();
            let message = format!("this would change nothing in {path}. If it is right as it is, go on");
            return Err(ChangeError::new(ChangeErrorCode::NoChange, &path, message));
        }
        Ok(plans)
    }
}

fn check_read(slot: &Slot, read: &str) -> Result<(), ChangeError> {
    let hash = slot.before.as_ref().map(|before| write::hash(&before.bytes));
    let hex = hash.map(|hash| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    if hex.is_some_and(|hex| hex.eq_ignore_ascii_case(read.trim())) {
        return Ok(());
    }
    let message = match slot.before {
        Some(_) => format!(
            "{} is not what it was when it was read; read it again, then repeat the change",
            slot.path
        ),
        None => format!("{} is no longer there; look what became of it", slot.path),
    };
    Err(ChangeError::new(ChangeErrorCode::Stale, &slot.path, message))
}

fn unmatched(error: &EditError, path: &str, text: &str) -> ChangeError {
    let line = |line: usize| {
        text.lines().nth(line - 1).map(|text| Nearest { first_line: line, text: text.to_string() })
    };
    let (code, nearest) = match error {
        EditError::Same => (ChangeErrorCode::NoChange, None),
        EditError::Empty => (ChangeErrorCode::Ambiguous, None),
        EditError::Ambiguous { lines, .. } => {
            (ChangeErrorCode::Ambiguous, lines.first().and_then(|first| line(*first)))
        }
        EditError::Missing { nearest, .. } => (ChangeErrorCode::NotFound, nearest.clone()),
    };
    ChangeError { nearest, ..ChangeError::new(code, path, error.explain(path)) }
}

/// The text of a file after its hunks, with its BOM.
fn placed(slot: &Slot, hunks: &[Hunk]) -> Result<(String, patch::Applied), ChangeError> {
    const BOM: char = '\u{feff}';
    let bytes = slot.now.as_deref().unwrap_or_default();
    let text = editable(bytes, &slot.path)?;
    // A diff of the bytes has the BOM in its first line; a model does not see it.
    let mut lines = hunks.iter().flat_map(|hunk| hunk.readings.iter().flatten());
    let with_bom = text.bom && lines.any(|line| line.text.starts_with(BOM));
    let whole = if with_bom { format!("{BOM}{}", text.text) } else { text.text.clone() };
    let applied = patch::apply(&whole, hunks).map_err(|error| explain(&error, &slot.path, &whole, hunks))?;
    let out = match text.bom && !with_bom {
        true => format!("{BOM}{}", applied.text),
        false => applied.text.clone(),
    };
    Ok((out, applied))
}

fn explain(error: &PlaceError, path: &str, text: &str, hunks: &[Hunk]) -> ChangeError {
    let Some(hunk) = hunks.get(error.hunk) else {
        return ChangeError::new(
            ChangeErrorCode::NotFound,
            path,
            format!("the patch does not apply to {path}"),
        );
    };
    let which = format!("the hunk at line {} does not apply to {path}: ", hunk.line);
    let near = |wanted: &str| edit::nearest(text, wanted);
    let show = |nearest: &Option<Nearest>| match nearest {
        Some(Nearest { first_line, text }) => format!(
            " The nearest text begins at line {first_line}:\n{text}\nCopy the lines to change from there exactly."
        ),
        None => " No line is like it; read the file again.".to_string(),
    };
    let (code, message, nearest) = match &error.kind {
        PlaceErrorKind::Missing { already } => {
            let nearest = near(&hunk.old_text());
            let already = already.map_or(String::new(), |line| {
                format!(" Its result is there already at line {line}: perhaps it was applied before.")
            });
            let message = format!("its lines are not in the file.{already}{}", show(&nearest));
            (ChangeErrorCode::NotFound, message, nearest)
        }
        PlaceErrorKind::Ambiguous(lines) => {
            let shown: Vec<String> = lines.iter().take(5).map(usize::to_string).collect();
            let more = if lines.len() > shown.len() { " and others" } else { "" };
            let first = lines.first().copied().unwrap_or(1);
            let count = hunk.old_text().lines().count().clamp(1, 20);
            let at: Vec<&str> = text.lines().skip(first - 1).take(count).collect();
            let message = format!(
                "its lines are there more than once, at lines {}{more}; add the lines around the ones you mean",
                shown.join(", ")
            );
            (ChangeErrorCode::Ambiguous, message, Some(Nearest { first_line: first, text: at.join("\n") }))
        }
        PlaceErrorKind::NoContext => (
            ChangeErrorCode::Ambiguous,
            "it only adds lines and does not say where; write the lines around them with a blank in front"
                .into(),
            None,
        ),
        PlaceErrorKind::Anchor(anchor) => {
            let nearest = near(anchor);
            let message = format!("there is no line '{}'.{}", anchor.trim(), show(&nearest));
            (ChangeErrorCode::NotFound, message, nearest)
        }
        PlaceErrorKind::NotBelow(anchor) => {
            let nearest = near(&hunk.old_text());
            let message = format!("its lines are not below '{}'.{}", anchor.trim(), show(&nearest));
            (ChangeErrorCode::NotFound, message, nearest)
        }
        PlaceErrorKind::Overlap => (
            ChangeErrorCode::Ambiguous,
            "it changes lines that another hunk changes too; write both changes as one hunk".into(),
            None,
        ),
    };
    ChangeError { nearest, ..ChangeError::new(code, path, which + &message) }
}
