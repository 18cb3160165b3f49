//! What a shell line may do, as far as its text tells: read-only, in need of approval, or forbidden in every mode.
//!
//! The rule is one-sided. A line is read-only only if every part of it is surely understood ([`line`]) and every command
//! is on the list with arguments that keep it so ([`readers`], [`git`], [`programs`]); a line is forbidden if something on the other
//! list can be found anywhere inside it ([`forbidden`]); everything else needs approval. Parsing saves prompts; the
//! sandbox is what holds. Whether a line then runs, and with the network it may need ([`network`]), is the agent's to say.

mod commands;
mod forbidden;
mod git;
mod line;
mod network;
mod paths;
mod programs;
mod readers;

pub use commands::{Commands, PlainCommand, Words, read_commands};
pub use forbidden::{base_name, is_wrapper, runs_programs};
pub use network::needs_network;

use std::path::PathBuf;

/// Longer lines are not looked at closely.
const MAX_LINE: usize = 256 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandVerdict {
    ReadOnly,
    NeedsApproval,
    Forbidden,
}

/// The verdict on a line, and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Judgement {
    pub verdict: CommandVerdict,
    pub reason: String,
}

/// Where a line will run. What is not known is not looked at: then the text alone is judged.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The workspace, by its real path.
    pub root: Option<PathBuf>,
    /// The directory of the command: absolute, or relative to the root.
    pub directory: Option<PathBuf>,
    pub home: Option<PathBuf>,
}

impl Place {
    /// In this workspace, with the home directory of this process.
    pub fn in_workspace(root: &std::path::Path) -> Self {
        Self {
            root: Some(root.to_path_buf()),
            directory: None,
            home: std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute()),
        }
    }
}

/// Judges one line. Never fails, whatever the text holds.
pub fn judge(text: &str, place: &Place) -> Judgement {
    let judged = |verdict, reason: String| Judgement { verdict, reason };
    if text.len() > MAX_LINE || text.contains('\0') {
        return judged(CommandVerdict::NeedsApproval, "it is too long to read, or holds a NUL".into());
    }
    let parsed = line::parse(text);
    if let Some(reason) = forbidden::find(text, &parsed, place) {
        return judged(CommandVerdict::Forbidden, reason);
    }
    match readers::only_reads(&parsed, place) {
        Ok(()) => judged(CommandVerdict::ReadOnly, "every command in it only reads".into()),
        Err(reason) => judged(CommandVerdict::NeedsApproval, reason),
    }
}

/// The commands of a line as plain words, for rules by prefix; `None` where the line is more than plain words joined
/// by `&& || ; |`, so that no rule can be sure of it.
pub fn plain_commands(text: &str) -> Option<Vec<Vec<String>>> {
    let parsed = line::parse(text);
    if parsed.doubt.is_some() || text.len() > MAX_LINE || text.contains('\0') {
        return None;
    }
    let mut commands = Vec::new();
    for command in parsed.pipelines.into_iter().flatten() {
        let writes = |redirect: &line::Redirect| {
            redirect.kind == line::RedirectKind::Write && redirect.target.text != "/dev/null"
        };
        if command.words.is_empty() || command.redirects.iter().any(writes) {
            return None;
        }
        if command.words.first().is_some_and(|first| first.variable || first.glob || first.home) {
            return None;
        }
        commands.push(command.words.into_iter().map(|word| word.text).collect());
    }
    (!commands.is_empty()).then_some(commands)
}

/// Every word of a line, whatever joins them: of substitutions, assignments and redirections as well.
pub fn words(text: &str) -> Vec<String> {
    fn take(line: line::Line, out: &mut Vec<String>) {
        for command in line.pipelines.into_iter().flatten() {
            take(line::Line { pipelines: command.group, doubt: None }, out);
            let targets = command.redirects.into_iter().map(|redirect| redirect.target);
            for word in command.assignments.into_iter().chain(command.words).chain(targets) {
                out.push(word.text);
                word.nested.into_iter().for_each(|line| take(line, out));
            }
        }
    }
    let mut out = Vec::new();
    take(line::parse(text), &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_wherever_they_stand() {
        assert_eq!(
            words("cd a && X=b sh 'c d';ls <e | (f $(g h))>i"),
            ["cd", "a", "X=b", "sh", "c d", "ls", "e", "f", "$()", "g", "h", "i"]
        );
    }

    #[test]
    fn plain_commands_are_plain() {
        let words = |text: &str| {
            plain_commands(text)
                .map(|commands| commands.iter().map(|words| words.join(" ")).collect::<Vec<_>>().join(" / "))
        };
        assert_eq!(
            words("cargo test && git 'status' | head").as_deref(),
            Some("cargo test / git status / head")
        );
        for text in
            ["cargo test > x", "cargo test $(x)", "A=1 cargo test", "(cargo test)", "", "$x y", "ls &"]
        {
            assert_eq!(words(text), None, "{text}");
        }
    }
}
