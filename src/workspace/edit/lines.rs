//! Whole lines that are `old_string` but for their indentation: where they lie, and `new_string` moved with them.
//!
//! The indentation must differ in the same way in every line: one prefix more, one prefix less, or tabs for a fixed
//! number of blanks. Anything else is no match. White space at line ends and the Unicode normal form do not count.

use super::Edit;
use std::ops::Range;
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Lines of the text that match. `new` is `None` where `new_string` cannot be moved the way they are.
pub(super) struct Window {
    pub range: Range<usize>,
    pub new: Option<String>,
}

/// With `blank_lines`, blank lines before and after `old_string` do not count either.
pub(super) fn find(text: &str, edit: &Edit, blank_lines: bool) -> Vec<Window> {
    let old = edit.old_string.replace("\r\n", "\n");
    let new = edit.new_string.replace("\r\n", "\n");
    let Some((old, new)) = core(&old, &new, blank_lines) else { return Vec::new() };
    let wanted: Vec<Line<'_>> = old.text.split('\n').map(Line::of).collect();
    let lines = Lines::of(text);
    let Some(anchor) = wanted.iter().position(|line| !line.key.is_empty()) else { return Vec::new() };
    let mut windows = Vec::new();
    for start in 0..lines.parsed.len().saturating_sub(wanted.len() - 1) {
        let here = &lines.parsed[start..start + wanted.len()];
        if here[anchor].key != wanted[anchor].key || !here.iter().zip(&wanted).all(|(a, b)| a.key == b.key) {
            continue;
        }
        let pairs = here.iter().zip(&wanted).filter(|(line, _)| !line.key.is_empty());
        let Some(shift) = Shift::between(pairs.map(|(line, old)| (line.indent, old.indent))) else {
            continue;
        };
        let (first, last) = (&lines.ranges[start], &lines.ranges[start + wanted.len() - 1]);
        // Lines that are deleted take their line break with them.
        let end = if new.text.is_empty() && old.terminated { last.full_end } else { last.end };
        windows.push(Window { range: first.start..end, new: shift.apply(new.text) });
    }
    windows
}

/// A string without its closing line break, and whether it had one.
struct Core<'s> {
    text: &'s str,
    terminated: bool,
}

fn core<'s>(old: &'s str, new: &'s str, blank_lines: bool) -> Option<(Core<'s>, Core<'s>)> {
    let terminated = old.ends_with('\n');
    if !blank_lines {
        let old_text = old.strip_suffix('\n').unwrap_or(old);
        let new_text = if terminated { new.strip_suffix('\n').unwrap_or(new) } else { new };
        return Some((Core { text: old_text, terminated }, Core { text: new_text, terminated }));
    }
    let mut old_text = old;
    let mut new_text = new;
    let mut removed = 0;
    while let Some((line, rest)) = old_text.split_once('\n')
        && line.trim().is_empty()
    {
        old_text = rest;
        removed += 1;
        if let Some((line, rest)) = new_text.split_once('\n')
            && line.trim().is_empty()
        {
            new_text = rest;
        }
    }
    while let Some((rest, line)) = old_text.rsplit_once('\n')
        && line.trim().is_empty()
    {
        old_text = rest;
        removed += 1;
        if let Some((rest, line)) = new_text.rsplit_once('\n')
            && line.trim().is_empty()
        {
            new_text = rest;
        }
    }
    (removed > 0 && !old_text.is_empty())
        .then_some((Core { text: old_text, terminated }, Core { text: new_text, terminated }))
}

pub(in crate::workspace) struct Line<'l> {
    pub indent: &'l str,
    /// The rest without white space at its end, composed.
    pub key: std::borrow::Cow<'l, str>,
}

impl<'l> Line<'l> {
    pub fn of(line: &'l str) -> Self {
        let rest = line.trim_start_matches([' ', '\t']);
        let indent = &line[..line.len() - rest.len()];
        let rest = rest.trim_end_matches([' ', '\t', '\r']);
        let key = if is_nfc(rest) { rest.into() } else { rest.nfc().collect::<String>().into() };
        Self { indent, key }
    }
}

struct LineRange {
    start: usize,
    /// Without the line break.
    end: usize,
    full_end: usize,
}

struct Lines<'t> {
    parsed: Vec<Line<'t>>,
    ranges: Vec<LineRange>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let mut parsed = Vec::new();
        let mut ranges = Vec::new();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let body = line.strip_suffix('\n').map_or(line, |body| body.strip_suffix('\r').unwrap_or(body));
            parsed.push(Line::of(body));
            ranges.push(LineRange { start, end: start + body.len(), full_end: start + line.len() });
            start += line.len();
        }
        Self { parsed, ranges }
    }
}

/// How the file's indentation comes from the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::workspace) enum Shift<'l> {
    Add(&'l str),
    Remove(&'l str),
    /// The file has one tab where the model wrote this many blanks.
    BlanksToTabs(usize),
    TabsToBlanks(usize),
}

impl<'l> Shift<'l> {
    /// The one way that explains every pair of (file, model); `None` where there is no such way.
    pub fn between(pairs: impl Iterator<Item = (&'l str, &'l str)> + Clone) -> Option<Self> {
        let (file, model) = pairs.clone().next()?;
        if let Some(prefix) = file.strip_suffix(model)
            && pairs.clone().all(|(file, model)| file.strip_suffix(model) == Some(prefix))
        {
            return Some(Self::Add(prefix));
        }
        if let Some(prefix) = model.strip_suffix(file)
            && pairs.clone().all(|(file, model)| model.strip_suffix(file) == Some(prefix))
        {
            return Some(Self::Remove(prefix));
        }
        let all = |text: &str, c: char| text.chars().all(|own| own == c);
        for width in [4, 2, 8, 3] {
            if pairs.clone().all(|(f, m)| all(f, '\t') && all(m, ' ') && m.len() == f.len() * width) {
                return Some(Self::BlanksToTabs(width));
            }
            if pairs.clone().all(|(f, m)| all(f, ' ') && all(m, '\t') && f.len() == m.len() * width) {
                return Some(Self::TabsToBlanks(width));
            }
        }
        None
    }

    pub fn apply(&self, new: &str) -> Option<String> {
        let lines: Option<Vec<String>> = new
            .split('\n')
            .map(|line| {
                if line.trim().is_empty() {
                    return Some(line.to_string());
                }
                Some(match self {
                    Self::Add(prefix) => format!("{prefix}{line}"),
                    Self::Remove(prefix) => line.strip_prefix(prefix)?.to_string(),
                    Self::BlanksToTabs(width) => {
                        let rest = line.trim_start_matches(' ');
                        let blanks = line.len() - rest.len();
                        format!("{}{}{rest}", "\t".repeat(blanks / width), " ".repeat(blanks % width))
                    }
                    Self::TabsToBlanks(width) => {
                        let rest = line.trim_start_matches('\t');
                        format!("{}{rest}", " ".repeat((line.len() - rest.len()) * width))
                    }
                })
            })
            .collect();
        Some(lines?.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_must_explain_every_line() {
        let shift = |pairs: &[(&'static str, &'static str)]| Shift::between(pairs.iter().copied());
        assert_eq!(shift(&[("    ", ""), ("        ", "    ")]), Some(Shift::Add("    ")));
        assert_eq!(shift(&[("", "  "), ("    ", "      ")]), Some(Shift::Remove("  ")));
        assert_eq!(shift(&[("\t", "    "), ("\t\t", "        ")]), Some(Shift::BlanksToTabs(4)));
        assert_eq!(shift(&[("  ", "\t"), ("", "")]), Some(Shift::TabsToBlanks(2)));
        assert_eq!(shift(&[("    ", ""), ("    ", "    ")]), None);
        assert_eq!(shift(&[("\t", "    "), ("\t\t", "      ")]), None);
    }
}
