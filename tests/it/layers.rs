//! Who may import whom: every `crate::MODULE` and every confined crate name in `src/` against the table of the design.
//! The offending file and line is named. Change the table here and in the crate's documentation together.

use crate::oracle::manifest;
use std::path::{Path, PathBuf};

/// Module and the siblings it may import; `*` is anything.
const TABLE: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("chat", &[]),
    ("syntax", &[]),
    ("workspace", &[]),
    ("config", &[]),
    ("hub", &["config", "engine"]),
    ("model", &["engine", "chat"]),
    ("tools", &["chat", "syntax", "workspace"]),
    ("agent", &["model", "tools", "chat", "workspace"]),
    ("headless", &["agent", "chat", "config"]),
    ("tui", &["agent", "chat", "config", "syntax"]),
    ("cli", &["*"]),
    ("commands", &["*"]),
    ("main", &["*"]),
    ("lib", &["*"]),
];

/// Text that may stand only in files whose path begins with one of these.
const CONFINED: &[(&str, &[&str])] = &[
    ("ratatui", &["tui/"]),
    ("crossterm", &["tui/"]),
    ("git2::", &["workspace/"]),
    ("Command::new", &["workspace/shell", "workspace/sandbox", "hub/pip", "tui/editor"]),
    ("unsafe {", &["engine/", "workspace/sandbox"]),
    ("unsafe fn", &["engine/", "workspace/sandbox"]),
    ("allow(unsafe_code)", &["engine/", "workspace/sandbox"]),
    ("candle_core", &["engine/candle"]),
    ("candle_transformers", &["engine/candle"]),
    ("ureq::", &["hub/", "model/endpoint/http"]),
    ("tree_sitter", &["syntax/"]),
    ("minijinja", &["chat/template"]),
];

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The first path component after every `crate::` of a line; `use crate::{a, b::c}` names several.
fn imports(line: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        if line[..at].ends_with('$') || line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push(word(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut start = true;
                for (i, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && depth == 0 && !c.is_whitespace() => {
                            found.push(word(&list[i..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

/// What is wrong with one file, as `path:line: message`.
fn problems(relative: &str, text: &str) -> Vec<String> {
    let module = relative.split('/').next().unwrap().trim_end_matches(".rs");
    let Some((_, allowed)) = TABLE.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{relative}: module {module} is not in the table")];
    };
    let mut problems = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        for import in imports(line) {
            let known = TABLE.iter().any(|(name, _)| *name == import);
            let fine =
                import == module || !known || allowed.contains(&"*") || allowed.contains(&import.as_str());
            if !fine {
                problems.push(format!("{relative}:{}: {module} may not import {import}", number + 1));
            }
        }
        // clap's builder is no process.
        let line = line.replace("clap::Command::new", "");
        for (text, places) in CONFINED {
            if line.contains(text) && !places.iter().any(|place| relative.starts_with(place)) {
                problems.push(format!("{relative}:{}: {text} belongs to {places:?}", number + 1));
            }
        }
    }
    problems
}

#[test]
fn every_module_imports_only_what_the_table_allows() {
    let src = manifest().join("src");
    let files = rust_files(&src);
    assert!(files.len() > 30, "the walk found only {} files", files.len());
    let mut all = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/");
        let text = std::fs::read_to_string(&file).unwrap();
        all.extend(problems(&relative, &text));
        let documented = text.starts_with("//!");
        if !documented {
            all.push(format!("{relative}:1: the module does not open with //!"));
        }
    }
    assert!(all.is_empty(), "\n{}", all.join("\n"));
}

#[test]
fn the_check_itself_sees_what_is_wrong() {
    assert_eq!(problems("engine/x.rs", "use crate::chat::Message;").len(), 1);
    assert_eq!(problems("engine/x.rs", "use crate::{engine::pool, agent::Turn};").len(), 1);
    assert_eq!(problems("agent/x.rs", "fn f() { crate::hub::pull() }").len(), 1);
    assert_eq!(problems("tools/x.rs", "let r = git2::Repository::open(p);").len(), 1);
    assert!(problems("tools/x.rs", "use crate::workspace::Workspace;").is_empty());
    assert_eq!(problems("tools/x.rs", "let c = Command::new(\"sh\");").len(), 1);
    assert!(problems("commands/x.rs", "let c = clap::Command::new(\"x\");").is_empty());
}

#[test]
fn no_test_file_is_forgotten() {
    let folder = manifest().join("tests/it");
    let main = std::fs::read_to_string(folder.join("main.rs")).unwrap();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(
            name == "main" || main.contains(&format!("mod {name};")),
            "tests/it/{name} is not in main.rs"
        );
    }
}
