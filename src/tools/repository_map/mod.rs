//! What a directory's files define, the most used first, as far as it fits: for a reader who sees a repository for the
//! first time. A definition counts by the number of other files that hold its name, shared among all that bear it.
//! Plain text and trees; what a name really refers to is not worked out, and need not be for a ranking.

mod outlines;

use crate::syntax::{Definition, Language};
use crate::workspace::Workspace;
use crate::workspace::text::Content;
use outlines::Outlines;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

/// Files and bytes that are read for it; what a larger directory holds beyond is left out, and that is said.
const MAX_FILES: usize = 20_000;
const MAX_BYTES: usize = 6 * 1024 * 1024;
const MAX_FILE: usize = 256 * 1024;
/// Definitions of a file that are shown, and as many count for its rank.
const PER_FILE: usize = 8;
/// Shorter names stand everywhere.
const SHORTEST: usize = 4;

/// One file as the ranking sees it.
struct File {
    path: String,
    definitions: Vec<Definition>,
    words: HashSet<String>,
}

/// The map of what lies at `beneath` (the workspace where empty), in at most `max_chars` characters; empty where
/// nothing there is of a language with a grammar.
pub fn repository_map(workspace: &Workspace, beneath: &str, max_chars: usize, cancel: &AtomicBool) -> String {
    let (files, all) = read(workspace, beneath, cancel);
    let mut out = draw(&rank(&files), max_chars);
    if !all && !out.is_empty() {
        out.push_str("[... not all files were looked at; ask for the outline of one directory ...]\n");
    }
    out
}

fn read(workspace: &Workspace, beneath: &str, cancel: &AtomicBool) -> (Vec<File>, bool) {
    let inside = |path: &str| {
        beneath.is_empty() || path.strip_prefix(beneath).is_some_and(|rest| rest.starts_with('/'))
    };
    let mut outlines = Outlines::of(workspace);
    let (mut files, mut left, mut all) = (Vec::new(), MAX_BYTES, true);
    for path in workspace.files(MAX_FILES).into_iter().filter(|path| inside(path)) {
        let Some(language) = Language::of_path(&path) else { continue };
        if matches!(language, Language::Json | Language::Toml) {
            continue;
        }
        if cancel.load(Ordering::Relaxed) || left == 0 {
            all = false;
            break;
        }
        let Some(text) = text(workspace, &path) else { continue };
        left = left.saturating_sub(text.len());
        let Some(definitions) = outlines.outline(language, &text) else { continue };
        files.push(File { path, definitions, words: words(&text) });
    }
    outlines.save();
    (files, all)
}

fn text(workspace: &Workspace, path: &str) -> Option<String> {
    match workspace.peek(path)? {
        Content::Text(text) if text.valid_utf8 && text.text.len() <= MAX_FILE => Some(text.text),
        _ => None,
    }
}

fn words(text: &str) -> HashSet<String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| word.len() >= SHORTEST && !word.starts_with(|c: char| c.is_ascii_digit()))
        .map(str::to_string)
        .collect()
}

/// The name that others call a definition by: `b` of `impl A for b<T>`, of `a::b` and of `A.b`.
fn called(definition: &Definition) -> &str {
    let name = definition.name.rsplit(" for ").next().unwrap_or_default();
    let name = name.split(['<', '(']).next().unwrap_or_default();
    name.rsplit(['.', ':']).next().unwrap_or_default()
}

/// Each file with its rank and the definitions that make it up, the highest first.
fn rank(files: &[File]) -> Vec<(&File, Vec<&Definition>)> {
    let mut holding: HashMap<&str, usize> = HashMap::new();
    let mut bearing: HashMap<&str, usize> = HashMap::new();
    for file in files {
        file.words.iter().for_each(|word| *holding.entry(word).or_default() += 1);
        file.definitions.iter().for_each(|definition| *bearing.entry(called(definition)).or_default() += 1);
    }
    let weight = |definition: &Definition| {
        let name = called(definition);
        let others = holding.get(name).copied().unwrap_or_default().saturating_sub(1);
        let deep = if definition.depth > 1 { 4.0 } else { 1.0 };
        others as f64 / bearing.get(name).copied().unwrap_or(1) as f64 / deep
    };
    let mut ranked: Vec<(f64, &File, Vec<&Definition>)> = files
        .iter()
        .map(|file| {
            let mut best: Vec<(f64, &Definition)> =
                file.definitions.iter().map(|definition| (weight(definition), definition)).collect();
            best.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.first_line.cmp(&b.1.first_line)));
            best.truncate(PER_FILE);
            let sum: f64 = best.iter().map(|(weight, _)| weight).sum();
            let mut shown: Vec<&Definition> = best.into_iter().map(|(_, definition)| definition).collect();
            shown.sort_by_key(|definition| definition.first_line);
            (if beside(&file.path) { sum / 5.0 } else { sum }, file, shown)
        })
        .filter(|(_, _, shown)| !shown.is_empty())
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.path.cmp(&b.1.path)));
    ranked.into_iter().map(|(_, file, shown)| (file, shown)).collect()
}

/// Tests, examples and the like use what matters; they are not it.
fn beside(path: &str) -> bool {
    const FOLDERS: [&str; 8] =
        ["test", "tests", "bench", "benches", "example", "examples", "fixtures", "vendor"];
    path.split('/').any(|part| FOLDERS.contains(&part) || part.starts_with("test_") || part.contains("_test"))
}

fn draw(ranked: &[(&File, Vec<&Definition>)], max_chars: usize) -> String {
    let mut out = String::new();
    for (file, shown) in ranked {
        let mut part = format!("{}\n", file.path);
        for definition in shown {
            let Definition { kind, name, first_line, last_line, .. } = definition;
            part.push_str(&format!("  {kind} {name} {first_line}-{last_line}\n"));
        }
        if out.chars().count() + part.chars().count() > max_chars {
            break;
        }
        out.push_str(&part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(files: &[(&str, &str)], beneath: &str, max_chars: usize) -> String {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let workspace = Workspace::open(directory.path(), &[]).unwrap();
        repository_map(&workspace, beneath, max_chars, &AtomicBool::new(false))
    }

    const FILES: &[(&str, &str)] = &[
        (
            "src/money.py",
            "class Money:\n    def add(self):\n        pass\n\ndef unused_helper():\n    pass\n",
        ),
        ("src/shop.py", "from money import Money\ndef basket():\n    return Money()\n"),
        ("src/till.py", "from money import Money\nfrom shop import basket\n"),
        ("tests/test_money.py", "from money import Money\ndef test_it():\n    Money()\n"),
        ("notes.txt", "Money basket"),
    ];

    #[test]
    fn what_others_use_stands_first() {
        let map = map(FILES, "", 1000);
        assert_eq!(
            map.lines().filter(|line| !line.starts_with(' ')).collect::<Vec<_>>(),
            ["src/money.py", "src/shop.py", "tests/test_money.py"]
        );
        assert!(map.contains("\n  class Money 1-3\n"), "{map}");
    }

    #[test]
    fn what_did_not_change_is_not_parsed_again() {
        let (files, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |path: &str, text: &str| std::fs::write(files.path().join(path), text).unwrap();
        write("a.py", "def first():\n    pass\n");
        write("b.py", "def second():\n    pass\n");
        let parsed = || {
            let mut workspace = Workspace::open(files.path(), &[]).unwrap();
            workspace.use_state(state.path());
            let mut outlines = Outlines::of(&workspace);
            for path in ["a.py", "b.py"] {
                let text = text(&workspace, path).unwrap();
                assert_eq!(outlines.outline(Language::Python, &text).unwrap().len(), 1);
            }
            let map = repository_map(&workspace, "", 1000, &AtomicBool::new(false));
            (outlines.new, map)
        };
        let (new, map) = parsed();
        assert_eq!((new, parsed()), (2, (0, map)));
        write("b.py", "def third():\n    pass\n");
        let (new, map) = parsed();
        assert!(new == 1 && map.contains("third") && !map.contains("second"), "{new} {map}");
        // What is damaged is worked out again.
        for kept in std::fs::read_dir(state.path().join("outlines")).unwrap() {
            std::fs::write(kept.unwrap().path(), "{").unwrap();
        }
        assert_eq!(parsed(), (2, map));
    }

    #[test]
    fn a_map_keeps_to_its_budget_and_its_directory() {
        for budget in [0, 20, 60, 90, 1000] {
            assert!(map(FILES, "", budget).chars().count() <= budget);
        }
        assert!(map(FILES, "tests", 1000).starts_with("tests/test_money.py\n"));
        assert_eq!(map(FILES, "nowhere", 1000), "");
    }
}
