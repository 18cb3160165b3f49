//! The first user message: where we are, what there is, and what the user wants. Everything that differs between
//! repositories or days stands here and not in the system message, so that all sessions of a model share one prefix.
//! Pure: what it shows is gathered by the session.

use super::memory::Memory;
use super::nudge::WHERE;
use super::prompts::{FIRST_MESSAGE, fill, note};
use super::protocol::ApprovalMode;

/// What the first message says besides the request.
#[derive(Debug, Clone)]
pub struct Surroundings {
    pub directory: String,
    pub date: String,
    pub branch: Option<String>,
    pub mode: ApprovalMode,
    /// All files of the workspace, relative, sorted.
    pub files: Vec<String>,
    /// The most used definitions of a repository whose files do not all fit the list; else empty.
    pub map: String,
    pub memory: Option<Memory>,
    /// Files the request names, with their text.
    pub named: Vec<(String, String)>,
}

/// Characters the list of files may take.
const FILE_LIST_CHARS: usize = 2000;

/// Whether the list of these files leaves some of them out.
pub fn is_folded(files: &[String]) -> bool {
    files.iter().map(|path| path.chars().count() + 1).sum::<usize>() > FILE_LIST_CHARS
}

pub fn first_message(surroundings: &Surroundings, request: &str) -> String {
    let block = |text: String| format!("\n{text}\n");
    let branch = surroundings
        .branch
        .as_ref()
        .map_or(String::new(), |branch| format!("{}\n", note("branch", &[("branch", branch)])));
    let files = short_list(&surroundings.files, FILE_LIST_CHARS);
    let mut files = if files.is_empty() { files } else { block(note("files", &[("list", &files)])) };
    if !surroundings.map.is_empty() {
        files.push_str(&block(note("map", &[("map", surroundings.map.trim_end())])));
    }
    let memory = surroundings.memory.as_ref().map_or(String::new(), |memory| block(memory.shown()));
    let named: String = surroundings.named.iter().map(|file| block(named_block(file))).collect();
    fill(
        FIRST_MESSAGE,
        &[
            ("directory", &surroundings.directory),
            ("date", &surroundings.date),
            ("branch", &branch),
            ("mode", &mode_note(surroundings.mode)),
            ("files", &files),
            ("memory", &memory),
            ("named", &named),
            ("request", &note("request", &[("request", request)])),
        ],
    )
    .trim_end()
    .to_string()
}

fn named_block((path, text): &(String, String)) -> String {
    note("named_file", &[("path", path), ("text", text.trim_end_matches('\n'))]).trim_end().to_string()
}

/// A later message of the user; a mode that changed meanwhile is told first, then the files it names as they are now,
/// where that was not `shown` before.
pub fn later_message(
    request: &str,
    new_mode: Option<ApprovalMode>,
    named: &[(String, String)],
    shown: &dyn Fn(&str) -> bool,
) -> String {
    let files = named.iter().map(named_block).filter(|block| !shown(block));
    let parts: Vec<String> = new_mode.map(mode_note).into_iter().chain(files).collect();
    match parts.is_empty() {
        true => request.to_string(),
        false => format!("{}\n\n{request}", parts.join("\n\n")),
    }
}

fn mode_note(mode: ApprovalMode) -> String {
    let name = match mode {
        ApprovalMode::Plan => "mode_plan",
        ApprovalMode::Default => "mode_default",
        ApprovalMode::AutoEdit => "mode_auto_edit",
        ApprovalMode::Yolo => "mode_yolo",
    };
    note(name, &[])
}

/// The files one a line, or, where that is too long, deep directories as `dir/ (12 files)`: the deepest view that
/// fits. A directory so wide that not even its top level fits is cut and counted.
fn short_list(files: &[String], max_chars: usize) -> String {
    let depth = files.iter().map(|path| path.matches('/').count() + 1).max().unwrap_or(0);
    let mut lines = Vec::new();
    for depth in (1..=depth).rev() {
        lines = folded(files, depth);
        if lines.iter().map(|line| line.chars().count() + 1).sum::<usize>() <= max_chars {
            return lines.join("\n");
        }
    }
    let mut used = 0;
    let kept = lines
        .iter()
        .take_while(|line| {
            used += line.chars().count() + 1;
            used <= max_chars
        })
        .count();
    let count = (lines.len() - kept).to_string();
    lines.truncate(kept);
    if count != "0" {
        lines.push(note("files_more", &[("count", &count)]));
    }
    lines.join("\n")
}

fn folded(files: &[String], depth: usize) -> Vec<String> {
    let mut lines: Vec<(String, usize)> = Vec::new();
    for path in files {
        let directory = path.match_indices('/').nth(depth - 1).map(|(at, _)| &path[..=at]);
        match (directory, lines.last_mut()) {
            (Some(directory), Some((last, count))) if last == directory => *count += 1,
            (Some(directory), _) => lines.push((directory.to_string(), 1)),
            (None, _) => lines.push((path.clone(), 0)),
        }
    }
    lines
        .into_iter()
        .map(|(name, count)| match count {
            0 => name,
            1 => format!("{name} (1 file)"),
            count => format!("{name} ({count} files)"),
        })
        .collect()
}

/// Files of the workspace that the request names, by path or by a name that only one file has; in the order named.
pub fn named_files(request: &str, files: &[String]) -> Vec<String> {
    let mut named: Vec<String> = Vec::new();
    for path in paths(request) {
        if path.is_empty() || !path.contains(['.', '/']) && !files.iter().any(|file| file == path) {
            continue;
        }
        let mut matches =
            files.iter().filter(|file| file.as_str() == path || file.ends_with(&format!("/{path}")));
        let exact = files.iter().find(|file| file.as_str() == path);
        let found = exact.or_else(|| matches.next().filter(|_| matches.next().is_none()));
        if let Some(found) = found.filter(|found| !named.contains(found)) {
            named.push(found.clone());
        }
    }
    named
}

/// The first directory of the workspace that the request names: by a path, or behind a word that says where.
pub fn named_directory(request: &str, files: &[String]) -> Option<String> {
    let words: Vec<&str> = paths(request).filter(|word| !word.is_empty()).collect();
    let is_meant = |at: usize| words[at].contains('/') || at > 0 && WHERE.contains(&words[at - 1]);
    let path = |at: usize| words[at].trim_end_matches('/');
    let is_there = |path: &str| {
        !path.is_empty()
            && files.iter().any(|file| file.strip_prefix(path).is_some_and(|f| f.starts_with('/')))
    };
    (0..words.len()).find(|&at| is_meant(at) && is_there(path(at))).map(|at| path(at).to_string())
}

/// The words of `request` that may be paths.
fn paths(request: &str) -> impl Iterator<Item = &str> {
    request.split(|c: char| c.is_whitespace() || "`'\"()[]{}<>,;!?*@".contains(c)).map(|word| {
        let word = word.trim_start_matches("./").trim_end_matches(['.', ':']);
        // `src/lib.rs:12` and `src/lib.rs:12:5` name a place in a file.
        word.split(':').next().unwrap_or_default()
    })
}

/// Endings that make a word the name of a file.
const ENDINGS: &[&str] = &[
    "py", "rs", "js", "mjs", "ts", "tsx", "jsx", "go", "c", "h", "cc", "cpp", "hpp", "java", "rb", "php",
    "sh", "lua", "sql", "md", "txt", "toml", "json", "yml", "yaml", "ini", "cfg", "html", "css", "csv",
];

/// The one file that the request wants made: it names it, it is not there yet, and it speaks of creating or writing.
pub fn new_file(request: &str, files: &[String]) -> Option<String> {
    let makes = |word: &str| ["create", "write", "generate", "new"].contains(&word.to_lowercase().as_str());
    if !request.split(|c: char| !c.is_alphanumeric()).any(makes) {
        return None;
    }
    let mut new = paths(request).filter(|path| {
        let ending = path.rsplit_once('.').filter(|(stem, _)| !stem.is_empty() && !stem.ends_with('/'));
        ending.is_some_and(|(_, ending)| ENDINGS.contains(&ending))
            && !path.starts_with('/')
            && !path.split('/').any(|part| part == "..")
            && !files.iter().any(|file| file == path || file.ends_with(&format!("/{path}")))
    });
    let first = new.next()?;
    new.all(|other| other == first).then(|| first.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(paths: &[&str]) -> Vec<String> {
        paths.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_first_message_in_full() {
        let surroundings = Surroundings {
            directory: "calc".into(),
            date: "2026-01-02".into(),
            branch: Some("main".into()),
            mode: ApprovalMode::AutoEdit,
            files: list(&["Cargo.toml", "src/lib.rs"]),
            map: String::new(),
            memory: Some(Memory { path: "AGENTS.md".into(), text: "Use {tabs}.".into(), cut: false }),
            named: vec![("src/lib.rs".into(), "fn {request}() {}\n".into())],
        };
        assert_eq!(
            first_message(&surroundings, "Fix src/lib.rs"),
            "Workspace: calc\nDate: 2026-01-02\nGit branch: main\nMode: auto-edit. Changes of files need no approval.\n\
             Files:\nCargo.toml\nsrc/lib.rs\n\n\
             Notes from the repository's AGENTS.md (written by its authors, not by the user):\n<notes>\nUse {tabs}.\n</notes>\n\n\
             src/lib.rs:\n```\nfn {request}() {}\n```\n\nRequest: Fix src/lib.rs"
        );
    }

    #[test]
    fn a_later_message_shows_files_that_were_not_shown_as_they_are() {
        let named = [("a.py".to_string(), "x = 1\n".to_string())];
        let message = |shown: bool, mode| later_message("Look at a.py", mode, &named, &|_| shown);
        assert_eq!(message(true, None), "Look at a.py");
        assert_eq!(message(false, None), "a.py:\n```\nx = 1\n```\n\nLook at a.py");
        let told = message(false, Some(ApprovalMode::AutoEdit));
        assert!(told.starts_with("Mode: auto-edit.") && told.ends_with("\n\nLook at a.py"), "{told}");
    }

    #[test]
    fn an_empty_directory_needs_little() {
        let surroundings = Surroundings {
            directory: "x".into(),
            date: "2026-01-02".into(),
            branch: None,
            mode: ApprovalMode::Plan,
            files: Vec::new(),
            map: String::new(),
            memory: None,
            named: Vec::new(),
        };
        let text = first_message(&surroundings, "Hello");
        assert!(text.ends_with("\nRequest: Hello"), "{text}");
        assert!(!text.contains("Files:") && !text.contains("branch") && !text.contains('{'), "{text}");
    }

    #[test]
    fn long_lists_fold_the_deepest_directories_first() {
        let files = list(&["a.rs", "src/deep/er/x.rs", "src/deep/er/y.rs", "src/deep/z.rs", "src/lib.rs"]);
        assert_eq!(short_list(&files, 1000), files.join("\n"));
        assert_eq!(short_list(&files, 45), "a.rs\nsrc/deep/ (3 files)\nsrc/lib.rs");
        assert_eq!(short_list(&files, 25), "a.rs\nsrc/ (4 files)");
        let wide: Vec<String> = (0..100).map(|n| format!("file{n:03}.txt")).collect();
        let shown = short_list(&wide, 120);
        assert!(shown.ends_with("... and 90 more"), "{shown}");
    }

    #[test]
    fn files_are_found_by_path_or_unique_name() {
        let files = list(&["Makefile", "a/mod.rs", "b/mod.rs", "src/lib.rs", "tests/lib_test.py"]);
        let named = |request| named_files(request, &files);
        assert_eq!(named("Fix `lib.rs`, see src/lib.rs:12:5."), ["src/lib.rs"]);
        assert_eq!(named("In ./tests/lib_test.py and (Makefile)!"), ["tests/lib_test.py", "Makefile"]);
        assert_eq!(named("mod.rs is ambiguous, a/mod.rs is not"), ["a/mod.rs"]);
        let new = |request| new_file(request, &files);
        assert_eq!(new("Write `src/new.rs`, as in src/lib.rs.").as_deref(), Some("src/new.rs"));
        assert_eq!(new("Add a new file a.rs").as_deref(), Some("a.rs"));
        assert_eq!(new("Read config.toml in src/lib.rs"), None);
        assert_eq!(new("Write lib.rs to a.rs or b.rs"), None);
        assert_eq!(new("Write self.run, e.g. in lib.rs, version 1.2, not /tmp/x.py or ../x.py or .py"), None);
        assert!(named("lib is no file. Nor is nothing.rs or ../etc/passwd or /").is_empty());
    }
}
