//! Patches as models write them: unified diffs, search/replace blocks and the `*** Begin Patch` form. Pure text, no IO.
//!
//! Every form is read into the same [`Patch`]: files, and for each of them whole texts or [`Hunk`]s (`unified`,
//! `blocks`, `envelope`; what the forms have in common of a hunk is in `body`). `place` finds where hunks lie in a text
//! and makes the new one. Line numbers and counts are hints: a hunk lies where its lines are, exactly or with drift
//! that leaves one place only; what is not certain is refused. Files are read and written by `workspace::batch`.

mod blocks;
mod body;
mod envelope;
mod place;
mod unified;

pub use place::{Applied, PlaceError, PlaceErrorKind, apply};
pub use unified::resolve;

/// The forms a patch can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    UnifiedDiff,
    SearchReplaceBlock,
    ApplyPatch,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patch {
    /// In the order of the text. A file may come more than once: the later part sees what the earlier one made.
    pub files: Vec<FilePatch>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePatch {
    pub name: Name,
    pub change: Change,
    /// Line of the patch at which this part begins, from 1.
    pub line: usize,
}

/// Which file a part is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    Plain(String),
    /// The two names of a diff's header as written, `None` for `/dev/null`: whether `a/` is a prefix or a directory
    /// shows only where the files are.
    Diff {
        old: Option<String>,
        new: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A file that is not there yet, or is empty.
    Create {
        text: String,
        executable: bool,
    },
    /// With hunks, those must be all of its text.
    Delete {
        hunks: Option<Vec<Hunk>>,
    },
    Update {
        hunks: Vec<Hunk>,
        moved_to: Option<String>,
        executable: Option<bool>,
    },
}

/// Lines that lie together in a file, and what becomes of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hunk {
    /// Line of the patch, from 1.
    pub line: usize,
    /// Where the header says it begins, from 1.
    pub stated: Option<usize>,
    /// Lines that stand above it, the outermost first (`@@ class A`).
    pub anchors: Vec<String>,
    /// It ends where the file ends.
    pub at_end: bool,
    /// How it may be read: one way, but for a block with more than one `=======`.
    pub readings: Vec<Vec<HunkLine>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Context,
    Remove,
    Add,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HunkLine {
    pub sign: Sign,
    /// Without the line feed; a carriage return stays.
    pub text: String,
    /// False where `\ No newline at end of file` follows.
    pub newline: bool,
}

/// Why a text is no patch: what is wrong, at which line, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Patch {
    pub fn parse(form: Form, text: &str) -> Result<Self, Malformed> {
        let lines = lines_of(text);
        let files = match form {
            Form::UnifiedDiff => unified::parse(&lines),
            Form::SearchReplaceBlock => blocks::parse(&lines),
            Form::ApplyPatch => envelope::parse(&lines),
        }?;
        Ok(Self { files })
    }
}

impl Form {
    /// The form whose first mark comes first in the text.
    pub fn detect(text: &str) -> Option<Self> {
        let lines = lines_of(text);
        let mark = |at: usize| {
            if envelope::begins(lines[at]) {
                Some(Self::ApplyPatch)
            } else if blocks::begins(lines[at]) {
                Some(Self::SearchReplaceBlock)
            } else if unified::begins(&lines, at) {
                Some(Self::UnifiedDiff)
            } else {
                None
            }
        };
        (0..lines.len()).find_map(mark)
    }
}

/// The lines of a patch. Where every line ends in CRLF that is how the patch was sent, and says nothing of the file.
fn lines_of(text: &str) -> Vec<&str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines: Vec<&str> = text.split('\n').collect();
    if lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    let sent_as_crlf = lines.iter().rev().skip(1).all(|line| line.ends_with('\r'));
    if sent_as_crlf && lines.len() > 1 {
        return lines.iter().map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    }
    lines
}

impl HunkLine {
    fn new(sign: Sign, text: &str) -> Self {
        Self { sign, text: text.to_string(), newline: true }
    }

    pub fn is_old(&self) -> bool {
        self.sign != Sign::Add
    }

    pub fn is_new(&self) -> bool {
        self.sign != Sign::Remove
    }
}

impl Hunk {
    /// What the file has, for showing.
    pub fn old_text(&self) -> String {
        self.side(HunkLine::is_old)
    }

    /// What the file shall have.
    pub fn new_text(&self) -> String {
        self.side(HunkLine::is_new)
    }

    fn side(&self, wanted: fn(&HunkLine) -> bool) -> String {
        let lines = self.readings.first().map_or(&[][..], Vec::as_slice);
        lines.iter().filter(|line| wanted(line)).map(|line| line.text.clone() + "\n").collect()
    }

    pub fn adds_only(&self) -> bool {
        self.readings.iter().all(|lines| lines.iter().all(|line| line.sign == Sign::Add))
    }
}

/// A path as models decorate it: quotes, backticks, stars, a comment sign or a colon around it.
fn bare_path(text: &str) -> &str {
    let mut path = text.trim();
    loop {
        let before = path;
        for (open, close) in [("`", "`"), ("**", "**"), ("\"", "\""), ("'", "'")] {
            if path.len() > open.len() + close.len()
                && let Some(inner) = path.strip_prefix(open).and_then(|rest| rest.strip_suffix(close))
            {
                path = inner;
            }
        }
        path = path.strip_suffix(':').unwrap_or(path).trim();
        if path == before {
            return path;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_form_is_told_by_its_first_mark() {
        for (text, form) in [
            ("Here:\n```\n*** Begin Patch\n*** Delete File: a\n*** End Patch\n", Some(Form::ApplyPatch)),
            ("a.py\n<<<<<<< SEARCH\n--- a\n+++ b\n=======\n>>>>>>> REPLACE", Some(Form::SearchReplaceBlock)),
            ("--- a/f\n+++ b/f\n@@\n-*** Begin Patch\n", Some(Form::UnifiedDiff)),
            ("diff --git a/x b/y\nrename from x\nrename to y\n", Some(Form::UnifiedDiff)),
            ("a list:\n--- one\n", None),
            ("", None),
        ] {
            assert_eq!(Form::detect(text), form, "{text}");
        }
    }

    #[test]
    fn paths_lose_their_decoration_only() {
        for (text, path) in
            [("**`src/a b.rs`**:", "src/a b.rs"), (" 'x' ", "x"), ("\"", "\""), ("*.rs", "*.rs"), ("a:", "a")]
        {
            assert_eq!(bare_path(text), path);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            text in "((@@|---|\\+\\+\\+|diff --git|\\*\\*\\*|<<<<<<<|=======|>>>>>>>|```|[-+ \\\\])[ ]?[-a/b,0-9@\"\\\\ \r]{0,9}\n?){0,14}",
        ) {
            for form in [Form::UnifiedDiff, Form::SearchReplaceBlock, Form::ApplyPatch] {
                if let Err(error) = Patch::parse(form, &text) {
                    prop_assert!(!error.0.is_empty());
                }
            }
        }
    }
}
