//! The workspace as a grammar of calls sees it: which parameter of which tool is a path or text of a file, and what
//! stands there now. Only the standard tools are known by name; values of others are free.

use crate::model::grammar::{Entry, EntryKind, LiveValues, Rule};
use crate::workspace::{EntryKind as Kind, Workspace};

pub struct WorkspaceValues<'a>(pub &'a Workspace);

impl LiveValues for WorkspaceValues<'_> {
    fn rule(&self, tool: &str, parameter: &str) -> Rule {
        rule(tool, parameter)
    }

    fn entries(&self, directory: &str) -> Vec<Entry> {
        let entries = self.0.entries(directory).into_iter();
        let entry = |(name, kind)| {
            let kind = match kind {
                Kind::File => EntryKind::File,
                Kind::Directory => EntryKind::Directory,
                Kind::Closed => EntryKind::Blocked,
            };
            Entry { name, kind }
        };
        entries.map(entry).collect()
    }

    fn spellings(&self) -> Vec<(String, String)> {
        self.0.spellings()
    }

    fn text(&self, path: &str) -> Option<String> {
        self.0.text_to_edit(path)
    }
}

/// What the value of a tool's parameter is held to.
pub(super) fn rule(tool: &str, parameter: &str) -> Rule {
    match (tool, parameter) {
        ("read_file", "file_path") => Rule::File,
        ("edit", "file_path") => Rule::Edited,
        ("edit", "old_string") => Rule::TextOfFile,
        ("edit", "new_string") => Rule::Instead,
        ("edit", "replace_all") => Rule::Everywhere,
        ("write_file", "file_path") => Rule::New,
        ("list_directory" | "glob", "path") | ("run_shell_command", "directory") => Rule::Directory,
        ("grep_search" | "git_diff", "path") => Rule::Any,
        ("read_file", "offset" | "limit") | ("grep_search", "limit") => Rule::Count,
        ("run_shell_command", "timeout") => Rule::Count,
        _ => Rule::Free,
    }
}
