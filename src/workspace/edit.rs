//! Replacing text: where `old_string` lies in a file, and the file with `new_string` in its place. Pure text, no IO.
//!
//! `old_string` must lie at exactly one place. Where it lies nowhere, drift that models are known for is bridged,
//! the smallest first, and the first kind that finds anything decides: line endings, trailing white space, Unicode
//! normal form ([`View`]), then whole lines with another indentation or other blank lines around them (`lines`).
//! Every kind compares the remaining characters exactly: numbers and identifiers are never matched by likeness.
//! What is nearest when nothing matches is found in `nearest`, for the error only.

pub(in crate::workspace) mod lines;
mod nearest;

use super::text::LineEnding;
use std::borrow::Cow;
use std::fmt::Write;
use std::ops::Range;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::{canonical_combining_class, decompose_canonical};

/// In larger texts only line endings are bridged: a view takes a multiple of the text's size.
const MAX_BRIDGED: usize = 4 * 1024 * 1024;
/// More matches than this are not counted.
const MAX_MATCHES: usize = 10_000;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    pub old_string: String,
    pub new_string: String,
    pub replace_all: bool,
}

/// A text after an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    pub text: String,
    pub replaced: usize,
    /// Line of the first replacement, from 1.
    pub line: usize,
    /// What was bridged, in words for the model; `None` where `old_string` was exact.
    pub bridged: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EditError {
    /// `old_string` and `new_string` are the same.
    Same,
    /// `old_string` is empty and the text is not.
    Empty,
    /// Found at these lines, but more than once.
    Ambiguous { lines: Vec<usize>, more: bool, bridged: Option<&'static str> },
    Missing {
        /// Where `new_string` already stands.
        already: Option<usize>,
        nearest: Option<Nearest>,
    },
}

/// Lines of the file that are most like `old_string`, with their exact text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearest {
    pub first_line: usize,
    pub text: String,
}

impl EditError {
    /// What went wrong and what to do next, for a model.
    pub fn explain(&self, path: &str) -> String {
        match self {
            Self::Same => {
                format!(
                    "old_string and new_string are the same: nothing to change in {path}. If it is right as it is, go on"
                )
            }
            Self::Empty => format!(
                "old_string is empty, but {path} is not; copy the text to replace into old_string, or use write_file"
            ),
            Self::Ambiguous { lines, more, bridged } => {
                let shown: Vec<String> = lines.iter().map(usize::to_string).collect();
                let more = if *more { " and others" } else { "" };
                let how = bridged.map_or(String::new(), |what| format!(" (with {what})"));
                format!(
                    "old_string is in {path} more than once{how}, at lines {}{more}; add the lines around the one \
                     you mean to old_string, or set replace_all to true to change every one",
                    shown.join(", ")
                )
            }
            Self::Missing { already, nearest } => {
                let mut message = format!("old_string is not in {path}; nothing was changed.");
                if let Some(line) = already {
                    let _ = write!(
                        message,
                        " new_string is already there at line {line}: perhaps this edit was made before."
                    );
                }
                match nearest {
                    Some(Nearest { first_line, text }) => {
                        let last_line = first_line + text.lines().count().max(1) - 1;
                        let lines = if last_line == *first_line {
                            format!("line {first_line}")
                        } else {
                            format!("lines {first_line}-{last_line}")
                        };
                        let _ = write!(
                            message,
                            " The nearest text is {lines}:\n{text}\nCopy old_string from these lines exactly and call edit again."
                        );
                    }
                    None if already.is_none() => {
                        message.push_str(" No line is like it; look with read_file or grep_search.");
                    }
                    None => {}
                }
                message
            }
        }
    }
}

/// Applies `edit` to a text with any line endings. The text's own endings and its final newline stay.
pub fn apply(text: &str, edit: &Edit) -> Result<Edited, EditError> {
    if edit.old_string == edit.new_string {
        return Err(EditError::Same);
    }
    if edit.old_string.is_empty() {
        return match text.is_empty() {
            true => Ok(Edited { text: edit.new_string.clone(), replaced: 1, line: 1, bridged: None }),
            false => Err(EditError::Empty),
        };
    }
    let ending = LineEnding::of(text);
    let found = find(text, edit)?;
    let mut out = String::with_capacity(text.len() + edit.new_string.len());
    let mut done = 0;
    for place in &found.places {
        out.push_str(&text[done..place.range.start]);
        let ending = match ending {
            // In a file of both endings the text that is replaced tells which one belongs there.
            LineEnding::Mixed => match LineEnding::of(&text[place.range.clone()]) {
                LineEnding::None => LineEnding::Lf,
                own => own,
            },
            whole => whole,
        };
        out.push_str(&ending.adapt(&place.new));
        done = place.range.end;
    }
    out.push_str(&text[done..]);
    keep_final_newline(text, &mut out, ending);
    let first = found.places.first().map_or(0, |place| place.range.start);
    if out == text {
        return Err(EditError::Same);
    }
    Ok(Edited { text: out, replaced: found.places.len(), line: line_of(text, first), bridged: found.bridged })
}

/// One replacement: bytes of the text, and what comes there.
struct Place<'e> {
    range: Range<usize>,
    new: Cow<'e, str>,
}

struct Found<'e> {
    places: Vec<Place<'e>>,
    bridged: Option<&'static str>,
}

fn find<'e>(text: &str, edit: &'e Edit) -> Result<Found<'e>, EditError> {
    const KINDS: [(Drift, Option<&str>); 3] = [
        (Drift { trailing: false, decompose: false }, None),
        (Drift { trailing: true, decompose: false }, Some("other white space at line ends")),
        (Drift { trailing: true, decompose: true }, Some("another Unicode normal form")),
    ];
    for (drift, bridged) in KINDS {
        if drift.trailing && text.len() > MAX_BRIDGED {
            return Err(missing(text, edit));
        }
        let ranges = View::of(text, drift).find(&edit.old_string, drift);
        if !ranges.is_empty() {
            let ranges = choose(text, ranges, edit.replace_all, bridged)?;
            let new = || Cow::Borrowed(edit.new_string.as_str());
            let places = ranges.into_iter().map(|range| Place { range, new: new() }).collect();
            return Ok(Found { places, bridged });
        }
    }
    for (blank_lines, bridged) in [(false, "another indentation"), (true, "other blank lines around it")] {
        let windows = lines::find(text, edit, blank_lines);
        if windows.is_empty() {
            continue;
        }
        let ranges = windows.iter().map(|window| window.range.clone()).collect();
        let ranges = choose(text, ranges, edit.replace_all, Some(bridged))?;
        let places: Option<Vec<Place<'_>>> = windows
            .into_iter()
            .filter(|window| ranges.contains(&window.range))
            .map(|window| Some(Place { range: window.range, new: Cow::Owned(window.new?) }))
            .collect();
        // Where new_string cannot be indented the same way, what is meant is not certain.
        return match places {
            Some(places) => Ok(Found { places, bridged: Some(bridged) }),
            None => Err(missing(text, edit)),
        };
    }
    Err(missing(text, edit))
}

/// The lines of a text most like `old`, for an error; `None` where nothing is like it.
pub(in crate::workspace) fn nearest(text: &str, old: &str) -> Option<Nearest> {
    (text.len() <= MAX_BRIDGED).then(|| nearest::find(text, old)).flatten()
}

fn missing(text: &str, edit: &Edit) -> EditError {
    let already = match edit.new_string.trim().is_empty() {
        true => None,
        false => text.find(&*LineEnding::of(text).adapt(&edit.new_string)).map(|at| line_of(text, at)),
    };
    EditError::Missing { already, nearest: nearest(text, &edit.old_string) }
}

/// One place, or with `replace_all` every one that does not overlap the one before.
fn choose(
    text: &str,
    ranges: Vec<Range<usize>>,
    replace_all: bool,
    bridged: Option<&'static str>,
) -> Result<Vec<Range<usize>>, EditError> {
    const SHOWN: usize = 5;
    if !replace_all && ranges.len() > 1 {
        let mut lines: Vec<usize> = ranges.iter().map(|range| line_of(text, range.start)).collect();
        let more = lines.len() > SHOWN;
        lines.truncate(SHOWN);
        return Err(EditError::Ambiguous { lines, more, bridged });
    }
    let mut end = 0;
    Ok(ranges
        .into_iter()
        .filter(|range| {
            let free = range.start >= end;
            if free {
                end = range.end;
            }
            free
        })
        .collect())
}

/// What a [`View`] leaves out of a text, besides the `\r` of `\r\n`.
#[derive(Clone, Copy)]
struct Drift {
    /// White space at line ends.
    trailing: bool,
    /// Composed characters (NFD).
    decompose: bool,
}

/// A text without what is not compared, and where each of its bytes lies in the original.
struct View<'t> {
    text: Cow<'t, str>,
    /// Original range of each byte's character; `None` where the text is its own view.
    origin: Option<Vec<(u32, u32)>>,
    original: &'t str,
}

impl<'t> View<'t> {
    fn of(original: &'t str, drift: Drift) -> Self {
        let plain = !original.contains("\r\n") && !drift.trailing && !drift.decompose;
        if plain || u32::try_from(original.len()).is_err() {
            return Self { text: Cow::Borrowed(original), origin: None, original };
        }
        let mut chars: Vec<(char, u32, u32)> = Vec::with_capacity(original.len());
        let mut at = 0;
        for line in original.split_inclusive('\n') {
            let body = line.strip_suffix('\n').map_or(line, |body| body.strip_suffix('\r').unwrap_or(body));
            let kept = if drift.trailing { body.trim_end_matches([' ', '\t']) } else { body };
            for (offset, c) in kept.char_indices() {
                let start = (at + offset) as u32;
                let end = start + c.len_utf8() as u32;
                match drift.decompose {
                    true => decompose_canonical(c, |part| chars.push((part, start, end))),
                    false => chars.push((c, start, end)),
                }
            }
            if line.ends_with('\n') {
                chars.push(('\n', (at + body.len()) as u32, (at + line.len()) as u32));
            }
            at += line.len();
        }
        if drift.decompose {
            order_marks(&mut chars);
        }
        let mut text = String::with_capacity(original.len());
        let mut origin = Vec::with_capacity(original.len());
        for (c, start, end) in chars {
            text.push(c);
            origin.resize(text.len(), (start, end));
        }
        Self { text: Cow::Owned(text), origin: Some(origin), original }
    }

    /// Where `old` lies, as ranges of the original; places may overlap.
    fn find(&self, old: &str, drift: Drift) -> Vec<Range<usize>> {
        let unix = old.replace("\r\n", "\n");
        let mut wanted = unix.clone();
        if drift.trailing {
            wanted = unix
                .split('\n')
                .map(|line| line.trim_end_matches([' ', '\t']))
                .collect::<Vec<_>>()
                .join("\n");
        }
        if drift.decompose {
            wanted = wanted.nfd().collect();
        }
        let Some(first) = wanted.chars().next() else { return Vec::new() };
        // `x ` without its blank must not match the beginning of `xy`.
        let to_line_end = drift.trailing && unix.ends_with([' ', '\t']);
        let mut ranges = Vec::new();
        let mut from = 0;
        while let Some(found) = self.text[from..].find(&wanted) {
            let (start, end) = (from + found, from + found + wanted.len());
            from = start + first.len_utf8();
            let next = self.text[end..].chars().next();
            if to_line_end && next.is_some_and(|c| c != '\n') {
                continue;
            }
            // `e` must not match the first half of a decomposed `é`.
            if drift.decompose && next.is_some_and(|c| canonical_combining_class(c) != 0) {
                continue;
            }
            let mut range = self.original_range(start, end);
            if to_line_end {
                let rest = &self.original[range.end..];
                range.end += rest.len() - rest.trim_start_matches([' ', '\t']).len();
            }
            if ranges.last() != Some(&range) {
                ranges.push(range);
            }
            if ranges.len() >= MAX_MATCHES {
                break;
            }
        }
        ranges
    }

    fn original_range(&self, start: usize, end: usize) -> Range<usize> {
        match &self.origin {
            None => start..end,
            // `end` is past at least one byte: what is sought is never empty.
            Some(origin) => {
                let first = origin.get(start).map_or(0, |(start, _)| *start as usize);
                let last = origin.get(end.saturating_sub(1)).map_or(first, |(_, end)| *end as usize);
                first..last
            }
        }
    }
}

/// Canonical order of combining marks: each run sorted by class, equal classes in their order.
fn order_marks(chars: &mut [(char, u32, u32)]) {
    let class = |entry: &(char, u32, u32)| canonical_combining_class(entry.0);
    for run in chars.chunk_by_mut(|a, b| class(a) != 0 && class(b) != 0) {
        run.sort_by_key(class);
    }
}

/// An edit at the end of a file easily drops or doubles its last line break. It stays as it was, unless it is all
/// that the edit changes.
fn keep_final_newline(before: &str, after: &mut String, ending: LineEnding) {
    let line_break = if ending == LineEnding::Crlf { "\r\n" } else { "\n" };
    if before.is_empty() || after.is_empty() || before.ends_with('\n') == after.ends_with('\n') {
        return;
    }
    let body = |text: &str| text.trim_end_matches(['\r', '\n']).len();
    if before[..body(before)] == after[..body(after)] {
        return;
    }
    if before.ends_with('\n') {
        after.push_str(line_break);
    } else {
        after.truncate(after.len() - 1);
        if after.ends_with('\r') && ending == LineEnding::Crlf {
            after.truncate(after.len() - 1);
        }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edit(old: &str, new: &str) -> Edit {
        Edit { old_string: old.into(), new_string: new.into(), replace_all: false }
    }

    /// How often `old` lies in `text`, overlapping places counted.
    fn places(text: &str, old: &str) -> usize {
        text.char_indices().filter(|(at, _)| text[*at..].starts_with(old)).count()
    }

    proptest! {
        #[test]
        fn an_edit_of_a_unique_text_is_a_plain_replacement(
            before in "[ab \n\té]{0,40}", old in "[ab \n\té]{1,6}", new in "[abc \n]{0,8}", after in "[ab \n\té]{0,40}",
        ) {
            // A last line of its own: what becomes of the final newline has its own test.
            let text = format!("{before}{old}{after}\nend\n");
            prop_assume!(old != new && places(&text, &old) == 1);
            let edited = apply(&text, &edit(&old, &new)).unwrap();
            prop_assert_eq!(edited.text, text.replacen(&old, &new, 1));
            prop_assert_eq!(edited.bridged, None);
        }

        #[test]
        fn a_crlf_file_is_edited_as_its_lf_twin(
            text in "([ab\té]{0,3}\n){1,12}", old in "[ab\té\n]{1,8}", new in "[abc\n]{0,8}",
        ) {
            let crlf = text.replace('\n', "\r\n");
            let (unix, dos) = (apply(&text, &edit(&old, &new)), apply(&crlf, &edit(&old, &new)));
            match (unix, dos) {
                (Ok(unix), Ok(dos)) => prop_assert_eq!(unix.text.replace('\n', "\r\n"), dos.text),
                (unix, dos) => prop_assert_eq!(unix.is_ok(), dos.is_ok()),
            }
        }

        #[test]
        fn any_texts_give_an_answer_and_never_an_empty_change(
            text in "\\PC{0,30}([ \t]{0,3}[ab\r\ne\u{301}é]{0,6}){0,8}", old in "[ \t]{0,3}[ab\r\ne\u{301}é ]{0,8}",
            new in "[ \tab\r\n]{0,8}", replace_all: bool,
        ) {
            let edit = Edit { old_string: old, new_string: new, replace_all };
            match apply(&text, &edit) {
                Ok(edited) => prop_assert!(edited.text != text && edited.replaced > 0),
                Err(error) => prop_assert!(!error.explain("f").is_empty()),
            }
        }

        #[test]
        fn uniform_shifts_are_bridged_and_new_text_is_shifted_with_them(
            depth in 1..4usize, extra in 1..3usize, names in prop::collection::vec("[a-z]{3,8}", 2..5),
        ) {
            // Unique names at two depths; the model wrote them `extra` levels too shallow or too deep.
            let lines = |indent: usize| -> String {
                names.iter().enumerate().map(|(n, name)| {
                    format!("{}{name}_{n}();\n", "    ".repeat(indent + n % 2))
                }).collect()
            };
            let text = format!("fn first() {{\n{}}}\n", lines(depth));
            let wrong = if depth > extra { depth - extra } else { depth + extra };
            let (old, new) = (lines(wrong), lines(wrong).replace("();", "(1);"));
            let edited = apply(&text, &edit(&old, &new)).unwrap();
            prop_assert_eq!(edited.text, text.replace("();", "(1);"));
        }
    }

    #[test]
    fn overlapping_places_are_not_unique() {
        let error = apply("aaa\n", &edit("aa", "b")).unwrap_err();
        assert!(matches!(error, EditError::Ambiguous { ref lines, .. } if lines == &[1, 1]), "{error:?}");
        let all = Edit { replace_all: true, ..edit("aa", "b") };
        assert_eq!(apply("aaa aaaa\n", &all).unwrap().text, "ba bb\n");
    }

    #[test]
    fn the_final_newline_stays_unless_it_is_what_is_edited() {
        assert_eq!(apply("a\nb\n", &edit("b\n", "c")).unwrap().text, "a\nc\n");
        assert_eq!(apply("a\nb", &edit("b", "c\n")).unwrap().text, "a\nc");
        assert_eq!(apply("a\r\nb\r\n", &edit("b\n", "c")).unwrap().text, "a\r\nc\r\n");
        assert_eq!(apply("a\nb", &edit("b", "b\n")).unwrap().text, "a\nb\n");
        assert_eq!(apply("a\n", &edit("a\n", "")).unwrap().text, "");
    }

    #[test]
    fn errors_say_where_and_what_next() {
        let text = "fn area(w: u32, h: u32) -> u32 {\n    w * h\n}\n";
        let message =
            apply(text, &edit("fn area(w: i32, h: i32) -> i32 {", "x")).unwrap_err().explain("a.rs");
        assert!(message.contains("line 1:\nfn area(w: u32, h: u32) -> u32 {\n"), "{message}");
        let message = apply(text, &edit("completely different", "x")).unwrap_err().explain("a.rs");
        assert!(message.contains("No line is like it"), "{message}");
        let message = apply(text, &edit("w + h", "w * h")).unwrap_err().explain("a.rs");
        assert!(message.contains("already there at line 2"), "{message}");
    }
}
