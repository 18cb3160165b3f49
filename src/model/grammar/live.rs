//! Values that depend on what is there now. The agent says which parameters are held to what, what stands in a directory
//! and in a file (`LiveValues`); here it becomes states that a byte can be asked of. What was looked up is kept for the
//! answer that is being written, so an answer sees one state of the workspace.

use super::paths::{Paths, Place};
use super::source::{Source, Span};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::rc::Rc;

/// What a parameter's value is held to, beside its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Rule {
    #[default]
    Free,
    /// The path of a file that is there.
    File,
    /// Of one whose text can be edited.
    Edited,
    /// The path of a directory that is there.
    Directory,
    /// Of either.
    Any,
    /// A path inside that a file can be written to.
    New,
    /// Text that stands in the file of the call's path, at one place only (or `Everywhere` was set).
    TextOfFile,
    /// What replaces a `TextOfFile`: free, and after it.
    Instead,
    /// A flag: the text to replace may stand at several places.
    Everywhere,
    /// A whole number that is not negative.
    Count,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    File,
    Directory,
    /// There, and not open to tools.
    Blocked,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    pub kind: EntryKind,
}

/// The world that values come from. Directories are named as their paths relative to the workspace, the workspace "".
pub trait LiveValues {
    fn rule(&self, tool: &str, parameter: &str) -> Rule;
    fn entries(&self, directory: &str) -> Vec<Entry>;
    /// Beginnings of a path (up to a slash) that lead to a directory: `("./", "")`, `("/home/me/work/", "")`.
    fn spellings(&self) -> Vec<(String, String)>;
    /// The text of a file as a model reads and writes it, where it can be edited.
    fn text(&self, path: &str) -> Option<String>;
}

/// A value as far as it is written: what its own text allows next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Value {
    /// Any text, in UTF-8.
    #[default]
    Free,
    Path(Place, Rule),
    /// Of the file with this number.
    Text(u16, Span),
    /// Nothing: no text fits.
    Never,
}

/// The values of one answer.
pub struct Live<'a> {
    values: &'a dyn LiveValues,
    paths: Paths,
    sources: RefCell<Vec<(String, Option<Rc<Source>>)>>,
}

impl<'a> Live<'a> {
    pub fn new(values: &'a dyn LiveValues) -> Self {
        Self { values, paths: Paths::default(), sources: RefCell::default() }
    }

    /// A path; any text where there is nothing that it could name.
    pub fn path(&self, rule: Rule) -> Value {
        let start = self.paths.start(self.values);
        if matches!(rule, Rule::File | Rule::Edited) && !self.paths.lead_to_a_file(self.values, start, rule) {
            return Value::Free;
        }
        Value::Path(start, rule)
    }

    /// Any text of the file with this number.
    pub fn text_of(&self, file: u16) -> Value {
        match self.source(file) {
            Some(source) => Value::Text(file, source.start()),
            None => Value::Never,
        }
    }

    pub fn source(&self, file: u16) -> Option<Rc<Source>> {
        let path = match self.sources.borrow().get(usize::from(file))? {
            (_, Some(source)) => return Some(source.clone()),
            (path, None) => path.clone(),
        };
        let source = Rc::new(Source::new(self.values.text(&path)?));
        if let Some((_, place)) = self.sources.borrow_mut().get_mut(usize::from(file)) {
            *place = Some(source.clone());
        }
        Some(source)
    }

    /// The number of the file that a path has come to.
    pub fn file(&self, value: Value) -> Option<u16> {
        let Value::Path(place, _) = value else { return None };
        let path = self.paths.file(place)?;
        let mut sources = self.sources.borrow_mut();
        let at = sources.iter().position(|(known, _)| *known == path).unwrap_or_else(|| {
            sources.push((path, None));
            sources.len() - 1
        });
        u16::try_from(at).ok()
    }

    /// A new name may go on with any text, but for what begins with one of these bytes.
    pub fn is_free(&self, value: Value) -> Option<Vec<u8>> {
        match value {
            Value::Path(place, rule) => self.paths.is_free(place, rule),
            _ => None,
        }
    }

    pub fn step(&self, value: Value, byte: u8) -> Option<Value> {
        match value {
            Value::Free => Some(Value::Free),
            Value::Path(place, rule) => {
                Some(Value::Path(self.paths.step(self.values, place, byte, rule)?, rule))
            }
            Value::Text(file, span) => Some(Value::Text(file, self.source(file)?.step(span, byte)?)),
            Value::Never => None,
        }
    }

    /// May the value end here? `everywhere`: a text may stand at several places.
    pub fn may_end(&self, value: Value, everywhere: bool) -> bool {
        match value {
            Value::Free => true,
            Value::Path(place, rule) => self.paths.may_end(self.values, place, rule),
            Value::Text(file, span) => self.source(file).is_some_and(|source| {
                if Source::is_empty(span) {
                    return source.text().is_empty();
                }
                source.count(span) == 1 || everywhere
            }),
            Value::Never => false,
        }
    }
}
