//! What an edit broke: the first place that does not parse and did before. Only more errors than before count, so a
//! file that was broken, or that our grammar cannot read, says nothing until it gets worse.

use super::{Language, Parsed};
use std::fmt;
use std::ops::Range;
use tree_sitter::{Node, Point};

/// Errors that are looked at; a file with more of them is no longer a program.
const MANY: usize = 1000;
/// Characters of a line that are quoted.
const QUOTED: usize = 60;

/// The first place that does not parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong there, as far as it can be told, and the line.
    pub text: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} does not parse now: {}", self.line, self.text)
    }
}

/// The syntax error that turning `before` into `after` brought in, if the language of `path` is known.
pub fn introduced(before: &str, after: &str, path: &str) -> Option<SyntaxError> {
    let language = Language::of_path(path)?;
    let faults = Parsed::new(language, after)?.faults();
    if faults.is_empty() || Parsed::new(language, before)?.faults().len() >= faults.len() {
        return None;
    }
    let changed = changed_lines(before, after);
    let fault = faults
        .iter()
        .find(|fault| changed.contains(&fault.at.row))
        .or_else(|| faults.iter().find(|fault| fault.spans(&changed)))
        .or(faults.first())?;
    let lines: Vec<&str> = after.split('\n').collect();
    // An error that only spans what changed began in lines that were fine: the change is where it came from.
    let moved = !changed.contains(&fault.at.row) && fault.spans(&changed);
    let (row, byte) = if moved { (changed.start, 0) } else { (fault.at.row, fault.at.column) };
    // Of what was taken out nothing is left to quote: what follows stands in its place.
    let blank = |row: &usize| lines.get(*row).is_none_or(|line| line.trim().is_empty());
    let (row, byte) = (row..lines.len())
        .find(|row| !blank(row))
        .map_or((row, byte), |next| if next == row { (row, byte) } else { (next, 0) });
    let line = lines.get(row).copied().unwrap_or_default();
    let column = line.get(..byte).map_or(byte, |start| start.chars().count()) + 1;
    let quoted = quoted(line);
    let text = match &fault.what {
        What::Missing(what) => format!("{what} is missing: {quoted}"),
        What::Open(bracket) if !moved => format!("`{bracket}` is not closed: {quoted}"),
        _ => quoted,
    };
    Some(SyntaxError { line: row + 1, column, text: text.trim_end_matches([':', ' ']).to_string() })
}

fn quoted(line: &str) -> String {
    let line = line.trim();
    match line.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_string(),
    }
}

/// The lines of `after` that are not in `before`; where lines only went, the one that follows.
fn changed_lines(before: &str, after: &str) -> Range<usize> {
    let (before, after): (Vec<&str>, Vec<&str>) = (before.split('\n').collect(), after.split('\n').collect());
    let same = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let start = before.iter().zip(&after).take_while(same).count();
    let most = before.len().min(after.len()) - start;
    let end = before.iter().rev().zip(after.iter().rev()).take_while(same).count().min(most);
    start..(after.len() - end).max(start + 1)
}

enum What {
    /// The parser went on as if it were there.
    Missing(String),
    /// A bracket in a part that makes no sense, without its other half.
    Open(&'static str),
    Nonsense,
}

struct Fault {
    what: What,
    at: Point,
    /// Rows of the whole part.
    rows: Range<usize>,
}

impl Fault {
    fn spans(&self, rows: &Range<usize>) -> bool {
        self.rows.start < rows.end && rows.start < self.rows.end
    }

    fn of(node: Node<'_>) -> Self {
        let (start, end) = (node.start_position(), node.end_position());
        let rows = start.row..end.row + 1;
        if node.is_missing() {
            let kind = node.kind();
            let what = if node.is_named() { kind.replace('_', " ") } else { format!("`{kind}`") };
            return Self { what: What::Missing(what), at: start, rows };
        }
        match unclosed(node) {
            Some((bracket, at)) => Self { what: What::Open(bracket), at, rows },
            None => Self { what: What::Nonsense, at: start, rows },
        }
    }
}

/// The innermost bracket that is open at the end of an error.
fn unclosed(error: Node<'_>) -> Option<(&'static str, Point)> {
    let mut open = Vec::new();
    for child in error.children(&mut error.walk()) {
        match child.kind() {
            kind @ ("(" | "[" | "{") => open.push((kind, child.start_position())),
            ")" | "]" | "}" => drop(open.pop()),
            _ => {}
        }
    }
    open.pop()
}

impl Parsed<'_> {
    /// In the order of the text; an error within an error is one more.
    fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut cursor = self.tree.walk();
        loop {
            let node = cursor.node();
            if node.is_error() || node.is_missing() {
                faults.push(Fault::of(node));
            }
            if faults.len() < MANY && node.has_error() && cursor.goto_first_child() {
                continue;
            }
            while !cursor.goto_next_sibling() {
                if !cursor.goto_parent() {
                    return faults;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path, a text, what is replaced in it, by what, and the line that does not parse then.
    const EDITS: &[(&str, &str, &str, &str, usize)] = &[
        ("a.rs", "fn f() {\n    let a = 1;\n    g(a);\n}\n", "= 1;", "= (1;", 2),
        ("a.rs", "fn f() {\n    if a {\n        b();\n    }\n}\n\nfn g() {}\n", "    }\n}", "}", 4),
        ("a.py", "def f(x):\n    a = 1\n    return a\n", "a = 1", "a = = 1", 2),
        ("a.py", "def f(x):\n    return x\n", "f(x):", "f(x)", 1),
        ("a.js", "function f() {\n  g();\n  h();\n}\n", "g();", "g(;", 2),
        ("a.ts", "type A = {\n  b: string;\n};\nconst c: A = { b: '' };\n", "b: string", "b: : string", 2),
        ("a.tsx", "const a = (\n  <p>\n    b\n  </p>\n);\n", "</p>", "", 5),
        ("a.go", "package a\n\nfunc f() {\n\tg(1)\n}\n", "g(1)", "g(1", 4),
        ("a.c", "int f(void) {\n  int a = 1;\n  return a;\n}\n", "int a = 1", "int a = = 1", 2),
        ("a.cpp", "class A {\n public:\n  int b();\n};\n", "int b();", "int b(;", 3),
        ("A.java", "class A {\n  int b() {\n    return 1;\n  }\n}\n", "return 1;", "return 1 +;", 3),
        ("a.sh", "if true; then\n  echo a\nfi\n", "echo a", "echo \"a", 2),
        ("a.json", "{\n  \"a\": 1,\n  \"b\": 2\n}\n", "1,", "1", 2),
        ("a.toml", "[a]\nb = 1\n", "b = 1", "b = [1", 2),
    ];

    #[test]
    fn a_broken_edit_is_told_with_its_line() {
        for (path, before, old, new, line) in EDITS {
            let after = before.replacen(old, new, 1);
            assert_ne!(*before, after);
            let error = introduced(before, &after, path);
            assert_eq!(error.as_ref().map(|error| error.line), Some(*line), "{path}: {error:?}\n{after}");
        }
    }

    #[test]
    fn a_clean_edit_and_a_repair_tell_nothing() {
        for (path, text, old, new, _) in EDITS {
            let broken = text.replacen(old, new, 1);
            assert_eq!(introduced("", text, path), None, "{path}: new");
            assert_eq!(introduced(text, &text.replace('1', "2"), path), None, "{path}: clean");
            assert_eq!(introduced(&broken, text, path), None, "{path}: repaired");
            assert_eq!(introduced(&broken, &broken.replace('1', "2"), path), None, "{path}: broken before");
            assert!(introduced("", &broken, path).is_some(), "{path}: new and broken");
        }
    }

    #[test]
    fn a_broken_file_that_gets_worse_is_told() {
        let before = "def f(x:\n    return x\n\n\ndef g(x):\n    return x\n";
        let after = before.replace("def g(x):", "def g(x)) = ]:");
        assert_eq!(introduced(before, &after, "a.py").map(|error| error.line), Some(5));
    }

    #[test]
    fn the_remark_is_one_short_line() {
        let error = introduced("", "fn f() {\n    g(1, 2;\n}\n", "a.rs").unwrap();
        assert_eq!(error.to_string(), "line 2 does not parse now: `)` is missing: g(1, 2;");
        assert_eq!(error.column, 11);
        let error = introduced("", &format!("let é = {};", "(".repeat(500)), "a.rs").unwrap();
        assert!(error.to_string().chars().count() < 130 && !error.to_string().contains('\n'), "{error}");
    }

    #[test]
    fn nothing_is_said_of_what_is_not_known() {
        assert_eq!(introduced("", "fn f( {", "a.txt"), None);
        assert_eq!(introduced("", &"(".repeat(super::super::MAX_BYTES + 1), "a.rs"), None);
    }
}
