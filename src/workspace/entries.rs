//! What stands where, for whoever offers paths and texts before a call is made: directories as they are on disk, hidden
//! and ignored files too, since tools open them; the spellings that lead into the workspace; the text that an edit would
//! see. Nothing here remembers that anything was read.

use super::text::Content;
use super::{Workspace, WorkspaceError};

/// Entries of one directory that are looked at.
const MOST: usize = 20_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    File,
    Directory,
    /// A device, a link that leads out: there, and not open to tools.
    Closed,
}

impl Workspace {
    /// What stands in a directory ("": the workspace); nothing where there is none. Names that are no UTF-8, or would
    /// need two lines, are left out.
    pub fn entries(&self, directory: &str) -> Vec<(String, EntryKind)> {
        let path = if directory.is_empty() { "." } else { directory };
        let Ok(location) = self.existing_directory(path) else { return Vec::new() };
        let Ok(read) = std::fs::read_dir(self.guard.absolute(&location)) else { return Vec::new() };
        let mut entries = Vec::new();
        for entry in read.flatten().take(MOST) {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.contains(|c: char| c.is_control()) {
                continue;
            }
            let kind = match entry.file_type() {
                Ok(kind) if kind.is_file() => EntryKind::File,
                Ok(kind) if kind.is_dir() => EntryKind::Directory,
                Ok(kind) if kind.is_symlink() => self.behind_link(&format!("{path}/{name}")),
                _ => EntryKind::Closed,
            };
            entries.push((name, kind));
        }
        entries
    }

    fn behind_link(&self, path: &str) -> EntryKind {
        let Ok(location) = self.guard.directory(path) else { return EntryKind::Closed };
        if !location.is_root() && matches!(self.guard.open_file(&location), Ok(Some(_))) {
            EntryKind::File
        } else if matches!(self.guard.open_directory(&location), Ok(Some(_))) {
            EntryKind::Directory
        } else {
            EntryKind::Closed
        }
    }

    /// Beginnings of a path that lead to a directory, each up to a slash: into the workspace (""), or another root.
    pub fn spellings(&self) -> Vec<(String, String)> {
        let mut spellings = vec![("./".to_string(), String::new())];
        if let Some(name) = self.root().file_name().and_then(|name| name.to_str())
            && self.is_own_name(name)
        {
            spellings.push((format!("{name}/"), String::new()));
        }
        for (number, (given, real)) in self.guard.roots().enumerate() {
            for path in [given, real] {
                let Some(text) = path.to_str().filter(|_| path.is_absolute()) else { continue };
                let text = text.trim_end_matches('/');
                let leads_to = if number == 0 { String::new() } else { text.to_string() };
                spellings.push((format!("{text}/"), leads_to));
            }
        }
        spellings.dedup();
        spellings
    }

    /// What a file holds, for work in which no model reads it.
    pub fn peek(&self, path: &str) -> Option<Content> {
        let location = self.guard.file(path).ok()?;
        Some(Content::of(&self.existing(&location).ok()??.bytes))
    }

    /// A directory that is there as paths beneath it begin; empty for the workspace itself.
    pub fn shown_directory(&self, path: &str) -> Result<String, WorkspaceError> {
        if self.is_own_name(path) {
            return Ok(String::new());
        }
        let shown = self.guard.display(&self.existing_directory(path)?);
        Ok(if shown == "." { String::new() } else { shown })
    }

    /// The text of a file as a model reads and writes it, if `edit` may change it.
    pub fn text_to_edit(&self, path: &str) -> Option<String> {
        let location = self.guard.file(path).ok()?;
        self.guard.check_writable(&location).ok()?;
        match Content::of(&self.existing(&location).ok()??.bytes) {
            Content::Text(text) if text.valid_utf8 => Some(text.shown().into_owned()),
            _ => None,
        }
    }
}
