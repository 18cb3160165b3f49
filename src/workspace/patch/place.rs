//! Where the hunks of one file lie in its text, and the text with them applied.
//!
//! Each hunk's old lines are looked for in the text as it was: exactly, then without line endings, white space at line
//! ends and the Unicode normal form, then moved in or out as a whole, then without blank lines around; the first kind
//! that finds anything decides ([`Level`]). Of several places one is taken only where it is the only one that can be
//! meant: by the header's line number (or its distance from the hunk before), by the lines above (`anchors`), or
//! because hunks come in the order of the file. Context lines stay as the file has them; only `+` lines are new.

use super::{Hunk, HunkLine, Sign};
use crate::workspace::edit::lines::{Line, Shift};
use crate::workspace::text::LineEnding;
use std::borrow::Cow;
use std::ops::Range;
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// A text after its hunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub text: String,
    /// Line of the first change, from 1.
    pub line: usize,
    /// What was bridged, in words for the model.
    pub bridged: Option<&'static str>,
}

/// Why the hunk with this index cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceError {
    pub hunk: usize,
    pub kind: PlaceErrorKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlaceErrorKind {
    Missing {
        /// Line where the hunk's result stands already.
        already: Option<usize>,
    },
    /// At these lines, and nothing tells which is meant.
    Ambiguous(Vec<usize>),
    /// Only additions, and nothing that says where.
    NoContext,
    /// A line of `@@` is not in the file.
    Anchor(String),
    /// The lines are there, but not below the `@@` line.
    NotBelow(String),
    /// It changes the same lines as another hunk.
    Overlap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Level {
    Exact,
    Endings,
    Trailing,
    Composed,
    Moved,
    Trimmed,
}

impl Level {
    const ALL: [Self; 6] =
        [Self::Exact, Self::Endings, Self::Trailing, Self::Composed, Self::Moved, Self::Trimmed];

    /// Line endings are the file's business; the model need not be told.
    fn in_words(self) -> Option<&'static str> {
        match self {
            Self::Exact | Self::Endings => None,
            Self::Trailing => Some("other white space at line ends"),
            Self::Composed => Some("another Unicode normal form"),
            Self::Moved => Some("another indentation"),
            Self::Trimmed => Some("other blank lines around it"),
        }
    }

    fn key(self, line: &str) -> Cow<'_, str> {
        let line = match self {
            Self::Exact => return line.into(),
            Self::Endings => return line.strip_suffix('\r').unwrap_or(line).into(),
            _ => line.trim_end_matches([' ', '\t', '\r']),
        };
        if self == Self::Trailing || is_nfc(line) {
            line.into()
        } else {
            line.nfc().collect::<String>().into()
        }
    }
}

struct FileLine<'t> {
    /// Without the line feed; a carriage return stays.
    body: &'t str,
    newline: bool,
}

/// A place where a hunk's old lines are.
#[derive(Clone)]
struct Candidate<'a> {
    start: usize,
    lines: &'a [HunkLine],
    /// Which of the hunk's readings.
    reading: usize,
    level: Level,
    shift: Option<Shift<'a>>,
}

impl Candidate<'_> {
    fn end(&self) -> usize {
        self.start + self.lines.iter().filter(|line| line.is_old()).count()
    }

    /// The lines of the file from the first that changes to the last; empty where the hunk only adds.
    fn changed(&self) -> Range<usize> {
        let mut at = self.start;
        let mut range: Option<Range<usize>> = None;
        for line in self.lines {
            let next = if line.is_old() { at + 1 } else { at };
            if line.sign != Sign::Context {
                range = Some(range.map_or(at..next, |range| range.start..next));
            }
            at = next;
        }
        range.unwrap_or(self.start..self.start)
    }

    /// Hunks come in the order of the file.
    fn follows(&self, before: &Self) -> bool {
        self.start > before.start && self.changed().start >= before.changed().end
    }

    fn marked(&self) -> bool {
        self.lines.iter().any(|line| !line.newline)
    }

    fn is_at(&self, other: &Self) -> bool {
        (self.start, self.reading) == (other.start, other.reading)
    }
}

/// Applies all hunks or none. `text` may have any line endings; they stay, and so does whether it ends in one.
pub fn apply(text: &str, hunks: &[Hunk]) -> Result<Applied, PlaceError> {
    let file: Vec<FileLine<'_>> = text
        .split_inclusive('\n')
        .map(|line| match line.strip_suffix('\n') {
            Some(body) => FileLine { body, newline: true },
            None => FileLine { body: line, newline: false },
        })
        .collect();
    let mut found = Vec::with_capacity(hunks.len());
    for (index, hunk) in hunks.iter().enumerate() {
        found.push(candidates(&file, hunk).map_err(|kind| PlaceError { hunk: index, kind })?);
    }
    put(text, &file, &choose(hunks, found)?)
}

fn candidates<'a>(file: &'a [FileLine<'a>], hunk: &'a Hunk) -> Result<Vec<Candidate<'a>>, PlaceErrorKind> {
    if hunk.adds_only() {
        // The end is a place; so is anywhere in an empty file.
        let lines = hunk.readings.first().map_or(&[][..], Vec::as_slice);
        let level = if file.is_empty() { Level::Exact } else { Level::Endings };
        let here = Candidate { start: file.len(), lines, reading: 0, level, shift: None };
        let certain = file.is_empty() || (hunk.at_end && hunk.anchors.is_empty());
        return if certain { Ok(vec![here]) } else { Err(PlaceErrorKind::NoContext) };
    }
    for level in Level::ALL {
        let mut found = Vec::new();
        for (reading, lines) in hunk.readings.iter().enumerate() {
            let lines = if level == Level::Trimmed { trimmed(lines) } else { lines };
            search(file, hunk.at_end, lines, level, &mut |start, shift| {
                found.push(Candidate { start, lines, reading, level, shift });
            });
        }
        if !found.is_empty() {
            return below_anchors(file, hunk, found);
        }
    }
    Err(PlaceErrorKind::Missing { already: already(file, hunk) })
}

/// Without the blank context lines at both ends.
fn trimmed(lines: &[HunkLine]) -> &[HunkLine] {
    let blank = |line: &HunkLine| line.sign == Sign::Context && line.text.trim().is_empty();
    let from = lines.iter().position(|line| !blank(line)).unwrap_or(0);
    let to = lines.iter().rposition(|line| !blank(line)).map_or(0, |last| last + 1);
    lines.get(from..to).unwrap_or_default()
}

fn search<'a>(
    file: &'a [FileLine<'a>],
    at_end: bool,
    lines: &'a [HunkLine],
    level: Level,
    found: &mut dyn FnMut(usize, Option<Shift<'a>>),
) {
    let old: Vec<&HunkLine> = lines.iter().filter(|line| line.is_old()).collect();
    let blank = old.iter().all(|line| line.text.trim().is_empty());
    if old.is_empty() || old.len() > file.len() || (blank && level > Level::Exact) {
        return;
    }
    let marked = lines.iter().any(|line| !line.newline);
    let moved = level >= Level::Moved;
    let key = |line: &'a str| if moved { Line::of(line).key } else { level.key(line) };
    let wanted: Vec<Cow<'a, str>> = old.iter().map(|line| key(&line.text)).collect();
    // The longest line is the rarest: it is compared first.
    let probe = (0..wanted.len()).max_by_key(|n| wanted[*n].len()).unwrap_or(0);
    for start in 0..=file.len() - old.len() {
        let here = &file[start..start + old.len()];
        let ends = start + old.len() == file.len();
        let same = |n: usize| key(here[n].body) == wanted[n];
        if (at_end && !ends) || !same(probe) || !(0..old.len()).all(same) {
            continue;
        }
        if level == Level::Exact {
            // What the hunk says of the end of the last line must be so.
            let agree = here.iter().zip(&old).all(|(line, old)| line.newline == old.newline);
            if !agree || (marked && !ends) {
                continue;
            }
        }
        if !moved {
            found(start, None);
            continue;
        }
        let pairs = here.iter().zip(&old).map(|(line, old)| (Line::of(line.body), Line::of(&old.text)));
        let indents =
            pairs.filter(|(line, _)| !line.key.is_empty()).map(|(line, old)| (line.indent, old.indent));
        if let Some(shift) = Shift::between(indents) {
            found(start, Some(shift));
        }
    }
}

/// The candidates in the blocks that the anchors head; where there are none, those anywhere below.
fn below_anchors<'a>(
    file: &[FileLine<'_>],
    hunk: &Hunk,
    found: Vec<Candidate<'a>>,
) -> Result<Vec<Candidate<'a>>, PlaceErrorKind> {
    let Some(last) = hunk.anchors.last() else { return Ok(found) };
    let whole: Range<usize> = 0..file.len();
    let mut scopes: Vec<Range<usize>> = std::iter::once(whole).collect();
    for anchor in &hunk.anchors {
        let ways: [fn(&str, &str) -> bool; 3] = [
            |line, anchor| line.trim_end() == anchor.trim_end(),
            |line, anchor| line.trim() == anchor.trim(),
            // `class A` for `class A(Base):`
            |line, anchor| {
                let rest = line.trim().strip_prefix(anchor.trim());
                rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
            },
        ];
        let heads = |way: &fn(&str, &str) -> bool| -> Vec<usize> {
            scopes.iter().cloned().flatten().filter(|n| way(file[*n].body, anchor)).collect()
        };
        let heads = ways.iter().map(heads).find(|heads| !heads.is_empty());
        let Some(heads) = heads else { return Err(PlaceErrorKind::Anchor(anchor.clone())) };
        scopes = heads.into_iter().map(|head| head..block_end(file, head)).collect();
    }
    let within = |candidate: &&Candidate<'_>| scopes.iter().any(|scope| scope.contains(&candidate.start));
    let below = |candidate: &&Candidate<'_>| scopes.iter().any(|scope| candidate.start >= scope.start);
    let mut kept: Vec<Candidate<'a>> = found.iter().filter(within).cloned().collect();
    if kept.is_empty() {
        kept = found.iter().filter(below).cloned().collect();
    }
    if kept.is_empty() { Err(PlaceErrorKind::NotBelow(last.clone())) } else { Ok(kept) }
}

/// The end of what a line heads: the next line that is not further in, brackets aside.
fn block_end(file: &[FileLine<'_>], head: usize) -> usize {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let own = indent(file[head].body);
    let outside = |line: &FileLine<'_>| {
        let text = line.body.trim();
        !text.is_empty() && indent(line.body) <= own && !text.starts_with(['}', ')', ']', '{'])
    };
    (head + 1..file.len()).find(|n| outside(&file[*n])).unwrap_or(file.len())
}

fn already(file: &[FileLine<'_>], hunk: &Hunk) -> Option<usize> {
    let new: Vec<&str> =
        hunk.readings.first()?.iter().filter(|line| line.is_new()).map(|line| line.text.trim_end()).collect();
    let adds =
        hunk.readings.first()?.iter().any(|line| line.sign == Sign::Add && !line.text.trim().is_empty());
    if !adds || new.len() > file.len() {
        return None;
    }
    let windows = file.windows(new.len());
    windows
        .into_iter()
        .position(|lines| lines.iter().zip(&new).all(|(a, b)| a.body.trim_end() == *b))
        .map(|n| n + 1)
}

/// One place for each hunk, where only one can be meant.
fn choose<'a>(hunks: &[Hunk], mut found: Vec<Vec<Candidate<'a>>>) -> Result<Vec<Candidate<'a>>, PlaceError> {
    for index in 0..found.len() {
        let Some(stated) = hunks[index].stated else { continue };
        // The hunk before was so far from where it said; so may this one be.
        let drift = (0..index).rev().find_map(|n| match found[n].as_slice() {
            [only] => Some((only.start + 1).cast_signed() - hunks[n].stated?.cast_signed()),
            _ => None,
        });
        let moved = drift.and_then(|drift| stated.checked_add_signed(drift));
        // Where both fit, nothing tells which: both stay.
        let here = |candidate: &Candidate<'_>| [Some(stated), moved].contains(&Some(candidate.start + 1));
        if found[index].iter().any(here) {
            found[index].retain(here);
        }
    }
    let ambiguous = |hunk: usize| {
        let lines = found[hunk].iter().map(|candidate| candidate.start + 1).collect();
        PlaceError { hunk, kind: PlaceErrorKind::Ambiguous(lines) }
    };
    // Every hunk as early as can be, and as late as can be: where both are the same there is no choice.
    let mut early: Vec<Candidate<'a>> = Vec::with_capacity(found.len());
    for candidates in &found {
        let next = candidates.iter().find(|next| early.last().is_none_or(|before| next.follows(before)));
        early.extend(next.cloned());
    }
    let mut late: Vec<Candidate<'a>> = Vec::with_capacity(found.len());
    for candidates in found.iter().rev() {
        let next = candidates.iter().rev().find(|next| late.last().is_none_or(|behind| behind.follows(next)));
        late.extend(next.cloned());
    }
    late.reverse();
    if early.len() == found.len() && late.len() == found.len() {
        return match (0..found.len()).find(|n| !early[*n].is_at(&late[*n])) {
            None => Ok(early),
            Some(hunk) => Err(ambiguous(hunk)),
        };
    }
    // Out of order, but each certain by itself.
    match found.iter().position(|candidates| candidates.len() > 1) {
        Some(hunk) => Err(ambiguous(hunk)),
        None => Ok(found.into_iter().flatten().collect()),
    }
}

/// A line of the new text.
struct NewLine<'a> {
    body: Cow<'a, str>,
    newline: bool,
    /// Its number in the old text.
    kept: Option<usize>,
}

fn put(text: &str, file: &[FileLine<'_>], places: &[Candidate<'_>]) -> Result<Applied, PlaceError> {
    let ending = LineEnding::of(text);
    let mut removed = vec![false; file.len()];
    let mut added: Vec<Option<(usize, Vec<NewLine<'_>>)>> = Vec::new();
    added.resize_with(file.len() + 1, || None);
    for (hunk, place) in places.iter().enumerate() {
        let overlap = PlaceError { hunk, kind: PlaceErrorKind::Overlap };
        let mut at = place.start;
        for line in place.lines {
            match line.sign {
                Sign::Context => at += 1,
                Sign::Remove if removed[at] => return Err(overlap),
                Sign::Remove => {
                    removed[at] = true;
                    at += 1;
                }
                Sign::Add => {
                    let (owner, lines) = added[at].get_or_insert_with(|| (hunk, Vec::new()));
                    if *owner != hunk {
                        return Err(overlap);
                    }
                    let body = new_body(file, at, line, place, ending);
                    // What cannot be moved like the rest is not certain.
                    let missing = PlaceError { hunk, kind: PlaceErrorKind::Missing { already: None } };
                    lines.push(NewLine { body: body.ok_or(missing)?, newline: line.newline, kept: None });
                }
            }
        }
    }
    let first = (0..=file.len()).find(|n| added[*n].is_some() || removed.get(*n) == Some(&true)).unwrap_or(0);
    let mut lines: Vec<NewLine<'_>> = Vec::with_capacity(file.len());
    for (at, new) in added.into_iter().enumerate() {
        lines.extend(new.into_iter().flat_map(|(_, new)| new));
        if let Some(line) = file.get(at).filter(|_| !removed[at]) {
            lines.push(NewLine { body: line.body.into(), newline: line.newline, kept: Some(at) });
        }
    }
    end_lines(&mut lines, file, places, ending);
    let text = lines.iter().flat_map(|line| [&*line.body, if line.newline { "\n" } else { "" }]).collect();
    let level = places.iter().map(|place| place.level).fold(Level::Exact, |a, b| if b > a { b } else { a });
    Ok(Applied { text, line: first + 1, bridged: level.in_words() })
}

/// An added line as the file's own lines are written; exactly as given where the hunk was exact.
fn new_body<'a>(
    file: &[FileLine<'_>],
    at: usize,
    line: &'a HunkLine,
    place: &Candidate<'_>,
    ending: LineEnding,
) -> Option<Cow<'a, str>> {
    if place.level == Level::Exact {
        return Some(Cow::Borrowed(&line.text));
    }
    let bare = line.text.strip_suffix('\r').unwrap_or(&line.text);
    let mut body = match &place.shift {
        Some(shift) => Cow::Owned(shift.apply(bare)?),
        None => Cow::Borrowed(bare),
    };
    let neighbour = at.checked_sub(1).and_then(|n| file.get(n)).or_else(|| file.get(at));
    let crlf = match ending {
        LineEnding::Crlf => true,
        LineEnding::Mixed => neighbour.is_some_and(|line| line.body.ends_with('\r')),
        LineEnding::Lf | LineEnding::None => false,
    };
    if crlf {
        body.to_mut().push('\r');
    }
    Some(body)
}

/// Only the last line may lack its line break, and whether it does is the file's affair unless the patch says so.
fn end_lines(lines: &mut [NewLine<'_>], file: &[FileLine<'_>], places: &[Candidate<'_>], ending: LineEnding) {
    let Some((last, others)) = lines.split_last_mut() else { return };
    for line in others.iter_mut().filter(|line| !line.newline) {
        line.newline = true;
        if line.kept.is_some() && ending == LineEnding::Crlf && !line.body.ends_with('\r') {
            line.body.to_mut().push('\r');
        }
    }
    let Some(old_last) = file.last() else { return };
    let at_end = places.iter().filter(|place| place.end() == file.len()).max_by_key(|place| place.start);
    let Some(at_end) = at_end.filter(|place| place.level > Level::Exact) else { return };
    let said = at_end.lines.iter().rfind(|line| line.is_new()).filter(|_| at_end.marked());
    let newline = said.map_or(old_last.newline, |line| line.newline);
    if last.newline != newline {
        last.newline = newline;
        match (newline, last.body.strip_suffix('\r').map(str::to_string)) {
            (false, Some(bare)) => last.body = Cow::Owned(bare),
            (true, None) if ending == LineEnding::Crlf => last.body.to_mut().push('\r'),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Change, Form, Patch};
    use super::*;

    fn hunks(text: &str) -> Vec<Hunk> {
        let text = format!("--- a/f\n+++ b/f\n{text}");
        match Patch::parse(Form::UnifiedDiff, &text).unwrap().files.remove(0).change {
            Change::Update { hunks, .. } => hunks,
            other => panic!("{other:?}"),
        }
    }

    fn applied(text: &str, patch: &str) -> String {
        apply(text, &hunks(patch)).unwrap_or_else(|error| panic!("{patch}: {error:?}")).text
    }

    fn kind(text: &str, patch: &str) -> PlaceErrorKind {
        apply(text, &hunks(patch)).unwrap_err().kind
    }

    #[test]
    fn of_several_places_the_one_that_can_be_meant() {
        let text = "a\nx\nb\nx\nc\nx\n";
        assert!(matches!(kind(text, "@@\n-x\n+y\n"), PlaceErrorKind::Ambiguous(lines) if lines == [2, 4, 6]));
        assert!(matches!(kind(text, "@@ -3 +3 @@\n-x\n+y\n"), PlaceErrorKind::Ambiguous(_)));
        assert_eq!(applied(text, "@@ -4 +4 @@\n-x\n+y\n"), "a\nx\nb\ny\nc\nx\n");
        // By the distance of the hunk before.
        assert_eq!(applied(text, "@@ -2 +2 @@\n-b\n+B\n@@ -3 +3 @@\n-x\n+y\n"), "a\nx\nB\ny\nc\nx\n");
        // By the order of hunks.
        assert_eq!(applied(text, "@@\n-c\n+C\n@@\n-x\n+y\n"), "a\nx\nb\nx\nC\ny\n");
        assert_eq!(applied(text, "@@\n-x\n+1\n@@\n-x\n+2\n@@\n-x\n+3\n"), "a\n1\nb\n2\nc\n3\n");
        // Hunks in the wrong order, each certain.
        assert_eq!(applied(text, "@@\n-c\n+C\n@@\n-b\n+B\n"), "a\nx\nB\nx\nC\nx\n");
        assert_eq!(kind(text, "@@\n a\n-x\n+y\n@@\n-x\n+z\n b\n"), PlaceErrorKind::Overlap);
        assert_eq!(kind(text, "@@ -2,0 +3 @@\n+y\n"), PlaceErrorKind::NoContext);
        assert_eq!(applied("", "@@ -0,0 +1 @@\n+y\n"), "y\n");
    }

    #[test]
    fn the_end_of_the_file_stays_unless_the_patch_says_so() {
        let end = "\\ No newline at end of file\n";
        assert_eq!(applied("a\nb", &format!("@@ -2 +2 @@\n-b\n{end}+c\n")), "a\nc\n");
        assert_eq!(applied("a\nb\n", &format!("@@ -2 +2 @@\n-b\n+c\n{end}")), "a\nc");
        assert_eq!(applied("a\nb", "@@ -2 +2,2 @@\n b\n+c\n"), "a\nb\nc");
        assert_eq!(applied("a\r\nb", "@@ -2 +2,2 @@\n b\n+c\n"), "a\r\nb\r\nc");
        assert_eq!(applied("a\nb", "@@\n-a\n+c\n"), "c\nb");
        // Said of a line that is not the last: it cannot be so.
        assert_eq!(applied("a\nb\nc\n", &format!("@@\n a\n-b\n+B\n{end}")), "a\nB\nc\n");
    }

    #[test]
    fn context_stays_as_the_file_has_it() {
        assert_eq!(applied("a  \r\nb\r\n", "@@\n a\n-b\n+c\n"), "a  \r\nc\r\n");
        assert_eq!(
            applied("if x:\n\ta()\n\tb()\n", "@@\n     a()\n-    b()\n+    c()\n"),
            "if x:\n\ta()\n\tc()\n"
        );
        assert_eq!(applied("cafe\u{301}\nb\n", "@@\n café\n-b\n+c\n"), "cafe\u{301}\nc\n");
        // Exactly as written where the match is exact, as git does it.
        assert_eq!(applied("a\r\nb\n", "@@\n a\r\n-b\n+c\n"), "a\r\nc\n");
        assert_eq!(kind("x = 10\n", "@@\n-x = 1\n+x = 2\n"), PlaceErrorKind::Missing { already: None });
        assert_eq!(kind("y = 2\n", "@@\n-y = 1\n+y = 2\n"), PlaceErrorKind::Missing { already: Some(1) });
    }

    #[test]
    fn anchors_name_the_block() {
        let text = "class A:\n    def f(self):\n        return 1\n\nclass B(A):\n    def f(self):\n        return 1\n";
        let patch = |anchors: &str| format!("{anchors}\n-        return 1\n+        return 2\n");
        let second = text.rfind("return 1").unwrap();
        let expected = format!("{}return 2\n", &text[..second]);
        assert_eq!(applied(text, &patch("@@ class B(A):")), expected);
        assert_eq!(applied(text, &patch("@@ class B\n@@ def f(self):")), expected);
        assert!(matches!(kind(text, &patch("@@ def f(self):")), PlaceErrorKind::Ambiguous(_)));
        assert_eq!(kind(text, &patch("@@ class C:")), PlaceErrorKind::Anchor("class C:".into()));
        assert_eq!(
            kind("a\nclass A:\n", "@@ class A:\n-a\n+b\n"),
            PlaceErrorKind::NotBelow("class A:".into())
        );
    }
}
