//! Statements that change places with the one behind them, told by indentation alone: "wrong order" is a mistake of its own,
//! and a model that writes on token by token seldom comes to it, for it would have to leave out later what it wrote
//! first. Any language that is indented; where the guess is wrong the version is one that does not compile.

use super::text::{is_comment, is_head};
use std::ops::Range;

/// Lines of both statements.
const MOST_LINES: usize = 12;

/// A text in which two neighbours have changed places, and where what moved ends in it.
#[derive(Debug, PartialEq)]
pub struct Swap {
    pub version: String,
    pub end: usize,
}

struct Line<'a> {
    text: &'a str,
    from: usize,
}

impl Line<'_> {
    fn indent(&self) -> usize {
        self.text.len() - self.text.trim_start().len()
    }

    fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }

    /// It belongs to the statement above it, though it is no deeper.
    fn goes_on(&self) -> bool {
        let text = self.text.trim_start();
        let word = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        text.starts_with(['}', ')', ']', '.', '{'])
            || matches!(
                word,
                "else"
                    | "elif"
                    | "except"
                    | "finally"
                    | "catch"
                    | "then"
                    | "do"
                    | "done"
                    | "fi"
                    | "esac"
                    | "end"
            )
    }

    /// What stands behind it would never run.
    fn leaves(&self) -> bool {
        let text = self.text.trim_start();
        ["return", "break", "continue", "raise", "throw"].iter().any(|word| text.starts_with(word))
    }
}

/// All of them, from the start of the text.
pub fn swaps(text: &str) -> Vec<Swap> {
    let mut lines = Vec::new();
    let mut from = 0;
    for line in text.split_inclusive('\n') {
        lines.push(Line { text: line, from });
        from += line.len();
    }
    let at = |line: usize| lines.get(line).map_or(text.len(), |line| line.from);
    let mut found = Vec::new();
    for first in 0..lines.len() {
        let Some(a) = statement(&lines, first) else { continue };
        let Some(second) = (a.end..lines.len()).find(|line| !lines[*line].is_blank()) else { break };
        let Some(b) = statement(&lines, second) else { continue };
        let same = lines[a.start].indent() == lines[b.start].indent();
        if !same || a.len() + b.len() > MOST_LINES || lines[b.start].leaves() {
            continue;
        }
        let [a, between, b] = [at(a.start)..at(a.end), at(a.end)..at(b.start), at(b.start)..at(b.end)];
        // The last line of a text may have no end of its own.
        if text[a.clone()] == text[b.clone()] || !text[b.clone()].ends_with('\n') {
            continue;
        }
        let end = b.end;
        let parts = [&text[..a.start], &text[b], &text[between], &text[a], &text[end..]];
        found.push(Swap { version: parts.concat(), end });
    }
    found
}

/// The statement that begins with a line: what is deeper, or goes on, belongs to it.
fn statement(lines: &[Line<'_>], first: usize) -> Option<Range<usize>> {
    let line = &lines[first];
    if line.is_blank() || line.goes_on() || is_comment(line.text) || is_head(line.text) {
        return None;
    }
    let indent = line.indent();
    let mut end = first + 1;
    for (at, next) in lines.iter().enumerate().skip(end).filter(|(_, next)| !next.is_blank()) {
        if next.indent() < indent || next.indent() == indent && !next.goes_on() {
            break;
        }
        end = at + 1;
    }
    Some(first..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_change_places_with_what_belongs_to_them() {
        let text =
            "def f(n):\n    if n > 5:\n        return a\n    if n == 9:\n        return b\n\n    return c\n";
        let all: Vec<String> = swaps(text).into_iter().map(|swap| swap.version).collect();
        let swapped =
            "def f(n):\n    if n == 9:\n        return b\n    if n > 5:\n        return a\n\n    return c\n";
        assert_eq!(all, [swapped], "nothing goes behind the last return, no function moves");

        let text = "fn f() {\n    if a {\n        b();\n    } else {\n        c();\n    }\n    d();\n    e(\n        1,\n    );\n}\n";
        let all: Vec<(String, usize)> =
            swaps(text).into_iter().map(|swap| (swap.version, swap.end)).collect();
        assert_eq!(all.len(), 2);
        assert!(all[0].0.contains("fn f() {\n    d();\n    if a {"));
        assert!(all[1].0.contains("    e(\n        1,\n    );\n    d();\n}\n"));
        for (version, end) in all {
            assert_eq!(version.len(), text.len());
            assert_eq!(version[end..], text[end..]);
        }
        assert_eq!(swaps("a\n\n\n"), []);
        assert_eq!(swaps(""), []);
    }

    proptest::proptest! {
        #[test]
        fn a_swap_has_the_same_lines(text in "( {0,6}(if a:|else:|\\}|b|return|# c)?\n){0,12}x?") {
            let sorted = |text: &str| {
                let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_string).collect();
                lines.sort();
                lines
            };
            for swap in swaps(&text) {
                proptest::prop_assert_eq!(sorted(&swap.version), sorted(&text));
                proptest::prop_assert_ne!(&swap.version, &text);
                proptest::prop_assert_eq!(&swap.version[swap.end..], &text[swap.end..]);
            }
        }
    }
}
