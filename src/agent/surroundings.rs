//! Gathers what the first message shows: looks at the workspace, the clock and the model's size. What it then looks
//! like is `opening`'s part.

use super::memory::Memory;
use super::nudge::Wish;
use super::opening::{Surroundings, first_message, is_folded, named_files};
use super::prompts::SYSTEM;
use super::session::SessionOptions;
use crate::chat::{Message, Role};
use crate::model::ModelInfo;
use crate::tools::{Registry, repository_map};
use crate::workspace::{ReadContent, Workspace};
use std::sync::atomic::AtomicBool;

/// Below this many billions of weights a model gets help: few tools, named files up front, nudges.
const SMALL_BILLIONS: f64 = 8.0;
/// The tools a small model is offered; more of them cost it more than they give.
const SMALL_TOOLS: &[&str] =
    &["read_file", "edit", "write_file", "grep_search", "list_directory", "run_shell_command"];
/// Files that are walked for the list; a larger repository is listed in part.
const MAX_FILES: usize = 20_000;
/// The share of the context that notes of the repository may take, and at most so many characters.
const MEMORY_SHARE: usize = 8;
const MEMORY_CHARS: usize = 12_000;
/// Characters of the map of a repository, about 500 tokens.
const MAP_CHARS: usize = 1600;
/// The share of the context that files named in the request may take together.
const NAMED_SHARE: usize = 4;

pub fn is_small(info: &ModelInfo) -> bool {
    info.billions > 0.0 && info.billions < SMALL_BILLIONS
}

/// The tools that a model of this size is offered.
pub fn offered_tools(registry: &Registry, info: &ModelInfo) -> Registry {
    if is_small(info) { registry.subset(SMALL_TOOLS).foreground() } else { registry.clone() }
}

/// The messages a new session here sends for `request`, before any answer.
pub fn opening_messages(
    workspace: &Workspace,
    info: &ModelInfo,
    options: &SessionOptions,
    request: &str,
    count: &dyn Fn(&str) -> usize,
) -> Vec<Message> {
    let mut system = options.system_prompt.clone().unwrap_or_else(|| SYSTEM.to_string());
    if let Some(more) = &options.append_system_prompt {
        system = format!("{}\n\n{more}", system.trim_end());
    }
    let surroundings = gather(workspace, info, options, request, count);
    vec![
        Message::new(Role::System, system.trim_end()),
        Message::new(Role::User, first_message(&surroundings, request)),
    ]
}

fn gather(
    workspace: &Workspace,
    info: &ModelInfo,
    options: &SessionOptions,
    request: &str,
    count: &dyn Fn(&str) -> usize,
) -> Surroundings {
    let mut files = workspace.files(MAX_FILES);
    files.sort();
    let root = workspace.root();
    // A small model is led to its files; a map would only cost it.
    let map = match !is_small(info) && is_folded(&files) {
        true => repository_map(workspace, "", MAP_CHARS, &AtomicBool::new(false)),
        false => String::new(),
    };
    Surroundings {
        directory: root.file_name().unwrap_or(root.as_os_str()).to_string_lossy().into_owned(),
        date: jiff::ZonedDateTime::now().strftime("%Y-%m-%d").to_string(),
        branch: workspace.git_branch(),
        mode: options.mode,
        files,
        map,
        memory: memory(workspace, (info.context / MEMORY_SHARE * 3).min(MEMORY_CHARS)),
        named: named_texts(workspace, info, request, count),
    }
}

/// The notes of the repository that stand nearest: in the workspace, else above it up to the top of the work tree.
fn memory(workspace: &Workspace, max_chars: usize) -> Option<Memory> {
    let above = || {
        workspace.enclosing().iter().enumerate().find_map(|(up, directory)| {
            let above = Workspace::open(directory, &[]).ok()?;
            let found = Memory::find(|path| text_of(&above, path), max_chars)?;
            Some(Memory { path: format!("{}{}", "../".repeat(up + 1), found.path), ..found })
        })
    };
    Memory::find(|path| text_of(workspace, path), max_chars).or_else(above)
}

/// A text file as the model is shown it; `None` where it is none.
pub fn text_of(workspace: &Workspace, path: &str) -> Option<String> {
    match workspace.read(path).ok()?.content {
        ReadContent::Text(text) if text.valid_utf8 => Some(text.shown().into_owned()),
        _ => None,
    }
}

/// The files that a request to a small model names, with their text.
pub fn named_texts(
    workspace: &Workspace,
    info: &ModelInfo,
    request: &str,
    count: &dyn Fn(&str) -> usize,
) -> Vec<(String, String)> {
    let mut named = Vec::new();
    // Where the turn leads it reads the file itself, after what the command shows.
    if !is_small(info) || Wish::of(request).leads() {
        return named;
    }
    let mut left = info.context / NAMED_SHARE;
    for path in named_files(request, &workspace.files(MAX_FILES)) {
        let Some(text) = text_of(workspace, &path) else { continue };
        let tokens = count(&text);
        // A part of a file misleads more than it helps: such a file is left to read_file.
        if tokens <= left {
            left -= tokens;
            named.push((path, text));
        }
    }
    named
}
