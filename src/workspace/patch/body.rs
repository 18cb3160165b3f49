//! What all forms have in common: the `@@` header and the lines of a hunk, with the slips models make in them.
//!
//! A header's counts are believed only where the lines agree with them; else a hunk goes on to the next header. A line
//! without a sign is a context line that lost its blank: it has to be in the file like any other, so it can never
//! bring wrong text in. What follows a diff as prose is left out, and only where it cannot be part of the diff.

use super::{Hunk, HunkLine, Malformed, Sign};

/// A Markdown fence that is open: how far it is indented, and its ticks.
#[derive(Debug, Clone, Copy)]
pub struct Fence {
    indent: usize,
    tick: char,
    length: usize,
}

/// A place in the lines of a patch.
pub struct Cursor<'t> {
    pub lines: &'t [&'t str],
    pub at: usize,
    pub fence: Option<Fence>,
}

impl<'t> Cursor<'t> {
    pub fn new(lines: &'t [&'t str]) -> Self {
        Self { lines, at: 0, fence: None }
    }

    /// The line `ahead` lines further, without the indentation of the fence it stands in.
    pub fn peek(&self, ahead: usize) -> Option<&'t str> {
        let line = *self.lines.get(self.at + ahead)?;
        let indent = self.fence.map_or(0, |fence| fence.indent);
        let blanks = line.len() - line.trim_start_matches(' ').len();
        line.get(blanks.min(indent)..)
    }

    pub fn number(&self) -> usize {
        self.at + 1
    }

    /// Steps over a line that opens or closes a fence.
    pub fn take_fence(&mut self) -> bool {
        let Some(line) = self.lines.get(self.at) else { return false };
        let Some(fence) = fence_of(line) else { return false };
        self.fence = if self.closes(line) { None } else { Some(fence) };
        self.at += 1;
        true
    }

    fn closes(&self, line: &str) -> bool {
        match (self.fence, fence_of(line)) {
            (Some(open), Some(fence)) => {
                fence.tick == open.tick
                    && fence.length >= open.length
                    && fence.indent == open.indent
                    && line.trim().chars().all(|c| c == open.tick)
            }
            _ => false,
        }
    }

    /// Whether the line `ahead` lines further cannot belong to the hunk before it.
    fn is_boundary(&self, ahead: usize) -> bool {
        let Some(line) = self.peek(ahead) else { return true };
        let next = |n: usize| self.peek(ahead + n).unwrap_or_default();
        line.starts_with("@@")
            || line.starts_with("diff --git ")
            || is_section(line)
            || self.closes(self.lines[self.at + ahead])
            || (line.starts_with("--- ") && next(1).starts_with("+++ ") && next(2).starts_with("@@"))
            || (line.starts_with("--- ") && next(1).starts_with("+++ /dev/null"))
            || (line.starts_with("Index: ") && next(1).starts_with("====="))
            || is_signature(line, self.peek(ahead + 1))
    }

    /// `@@` headers and the lines below them. More than one header in a row: each is an anchor.
    pub fn hunk(&mut self) -> Result<Hunk, Malformed> {
        let mut hunk = Hunk { line: self.number(), ..Hunk::default() };
        let mut counts = None;
        while let Some(header) = self.peek(0).filter(|line| line.starts_with("@@")) {
            if header.starts_with("@@@") {
                return Err(Malformed(format!(
                    "line {} begins a combined diff (of a merge), which has no single meaning; write a diff of two versions",
                    self.number()
                )));
            }
            let header = Header::of(header);
            if let Some((start, old, new)) = header.range {
                hunk.stated = Some(start);
                counts = Some((old, new));
            }
            hunk.anchors.extend(header.anchor);
            self.at += 1;
        }
        let lines = self.body(counts);
        if self.peek(0).is_some_and(|line| line.trim_end() == "*** End of File") {
            hunk.at_end = true;
            self.at += 1;
        }
        if lines.is_empty() {
            return Err(Malformed(format!(
                "the hunk at line {} is empty; write its lines with ' ', '-' or '+' in front",
                hunk.line
            )));
        }
        hunk.readings = vec![lines];
        Ok(hunk)
    }

    fn body(&mut self, counts: Option<(usize, usize)>) -> Vec<HunkLine> {
        if let Some((old, new)) = counts
            && let Some(length) = self.counted(old, new)
            && !self.goes_on(length)
        {
            let lines = self.read(length);
            self.at += length;
            return lines;
        }
        let mut length = 0;
        while !self.is_boundary(length) {
            length += 1;
        }
        let end = self.at + length;
        let mut kept = self.without_prose(length);
        let mut lines = self.read(kept);
        // A blank line that ends a hunk is context where the counts say so, else a gap in the text around.
        let fits = |lines: &[HunkLine]| {
            let count = |wanted: fn(&HunkLine) -> bool| lines.iter().filter(|line| wanted(line)).count();
            counts == Some((count(HunkLine::is_old), count(HunkLine::is_new)))
        };
        while kept > 0 && self.peek(kept - 1) == Some("") && !fits(&lines) {
            lines.pop();
            kept -= 1;
        }
        self.at = end;
        lines
    }

    /// How many lines have exactly the header's counts; `None` where they do not work out.
    fn counted(&self, mut old: usize, mut new: usize) -> Option<usize> {
        let mut length = 0;
        while old > 0 || new > 0 {
            match self.peek(length)?.bytes().next() {
                Some(b' ') | None => (old, new) = (old.checked_sub(1)?, new.checked_sub(1)?),
                Some(b'-') => old = old.checked_sub(1)?,
                Some(b'+') => new = new.checked_sub(1)?,
                Some(b'\\') => {}
                Some(_) => return None,
            }
            length += 1;
        }
        if self.peek(length).is_some_and(|line| line.starts_with('\\')) {
            length += 1;
        }
        Some(length)
    }

    /// Whether lines of the hunk follow behind its counted ones: the counts were wrong.
    fn goes_on(&self, length: usize) -> bool {
        let behind =
            (length..).take_while(|n| !self.is_boundary(*n)).map(|n| self.peek(n).unwrap_or_default());
        let behind: Vec<&str> = behind.collect();
        // A fence holds nothing but the diff; outside one, text may follow.
        let context =
            |line: &&str| !line.trim().is_empty() && (self.fence.is_some() || line.starts_with(' '));
        behind.iter().any(|line| line.starts_with(['+', '-'])) || behind.first().is_some_and(context)
    }

    /// Outside a fence a blank line and then only lines without a sign are the author speaking again.
    fn without_prose(&self, length: usize) -> usize {
        let signed = |n: &usize| self.peek(*n).is_some_and(|line| line.starts_with([' ', '+', '-', '\\']));
        let behind = (0..length).rev().find(signed).map_or(0, |last| last + 1);
        let blank = |n: usize| self.peek(n) == Some("");
        let prose = behind < length && blank(behind) && !(behind..length).all(blank);
        if prose && self.fence.is_none() { behind } else { length }
    }

    fn read(&self, length: usize) -> Vec<HunkLine> {
        let mut lines: Vec<HunkLine> = Vec::with_capacity(length);
        for ahead in 0..length {
            let line = self.peek(ahead).unwrap_or_default();
            match line.bytes().next() {
                Some(b'+') => lines.push(HunkLine::new(Sign::Add, &line[1..])),
                Some(b'-') => lines.push(HunkLine::new(Sign::Remove, &line[1..])),
                Some(b' ') => lines.push(HunkLine::new(Sign::Context, &line[1..])),
                Some(b'\\') if line.starts_with("\\ ") => {
                    if let Some(last) = lines.last_mut() {
                        last.newline = false;
                    }
                }
                _ => lines.push(HunkLine::new(Sign::Context, line)),
            }
        }
        lines
    }
}

/// `*** Update File: x` and the other marks of the `*** Begin Patch` form.
pub fn is_section(line: &str) -> bool {
    const MARKS: [&str; 7] =
        ["Begin Patch", "End Patch", "Add File:", "Update File:", "Delete File:", "Move to:", "End of File"];
    line.strip_prefix("***").is_some_and(|rest| {
        let rest = rest.trim_start();
        MARKS.iter().any(|mark| rest.starts_with(mark))
    })
}

fn fence_of(line: &str) -> Option<Fence> {
    let text = line.trim_start_matches(' ');
    let tick = text.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let length = text.chars().take_while(|c| *c == tick).count();
    (length >= 3).then_some(Fence { indent: line.len() - text.len(), tick, length })
}

/// `-- ` and the version of git, or nothing, end a mailed patch.
fn is_signature(line: &str, next: Option<&str>) -> bool {
    line == "-- " && next.is_none_or(|next| next.starts_with(|c: char| c.is_ascii_digit()))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Header {
    /// First old line, and how many old and new lines.
    range: Option<(usize, usize, usize)>,
    anchor: Option<String>,
}

impl Header {
    fn of(line: &str) -> Self {
        let rest = line.trim_start_matches('@');
        if rest.trim_start().starts_with('-') {
            return Self { range: range(rest.trim_start()), anchor: None };
        }
        let text = rest.trim_end();
        let text = text.strip_suffix("@@").unwrap_or(text).trim_end();
        let text = text.strip_prefix(' ').unwrap_or(text);
        // `@@ ... @@` says nothing.
        let anchor = text.chars().any(|c| c.is_alphanumeric()).then(|| text.to_string());
        Self { range: None, anchor }
    }
}

/// `-1,3 +1,4 @@`; a count that is not written is 1.
fn range(text: &str) -> Option<(usize, usize, usize)> {
    let mut words = text.split_ascii_whitespace();
    let mut side = |sign: char| -> Option<(usize, usize)> {
        let word = words.next()?.strip_prefix(sign)?;
        match word.split_once(',') {
            Some((start, count)) => Some((start.parse().ok()?, count.parse().ok()?)),
            None => Some((word.parse().ok()?, 1)),
        }
    };
    let (start, old) = side('-')?;
    let (_, new) = side('+')?;
    Some((start, old, new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_as_they_come() {
        let header = |line: &str| Header::of(line);
        assert_eq!(header("@@ -1,3 +1,4 @@ fn f() {").range, Some((1, 3, 4)));
        assert_eq!(header("@@ -7 +7 @@").range, Some((7, 1, 1)));
        assert_eq!(header("@@ -a,b +c,d @@"), Header::default());
        assert_eq!(header("@@ ... @@"), Header::default());
        assert_eq!(header("@@"), Header::default());
        assert_eq!(header("@@ class A:").anchor.as_deref(), Some("class A:"));
        assert_eq!(header("@@     def f(self):").anchor.as_deref(), Some("    def f(self):"));
    }

    fn signs(text: &str) -> String {
        let lines: Vec<&str> = text.lines().collect();
        let mut cursor = Cursor::new(&lines);
        let hunk = cursor.hunk().unwrap();
        let sign = |line: &HunkLine| match line.sign {
            Sign::Context => ' ',
            Sign::Remove => '-',
            Sign::Add => '+',
        };
        hunk.readings[0].iter().map(sign).collect()
    }

    #[test]
    fn a_hunk_ends_where_its_counts_or_its_lines_say() {
        assert_eq!(signs("@@ -1,3 +1,3 @@\n a\n-b\n+c\n d\n"), " -+ ");
        // A removed `-- x` and an added `++ y` are no file header.
        assert_eq!(signs("@@ -1,2 +1,2 @@\n a\n--- x\n+++ y\n"), " -+");
        assert_eq!(signs("@@\n a\n--- x\n+++ y\n z\n"), " -+ ");
        // Wrong counts, and a blank line without its blank.
        assert_eq!(signs("@@ -1,1 +1,1 @@\n a\n\n-b\n+c\n d\n"), "  -+ ");
        assert_eq!(signs("@@ -9,2 +9,3 @@\n a\n+b\n\n"), " + ");
        assert_eq!(signs("@@ -9,2 +9,9 @@\n a\n+b\n\n"), " +");
        // Prose behind it, and a mail's end.
        assert_eq!(signs("@@ -1,9 +1,9 @@\n a\n-b\n\nThat removes b.\n"), " -");
        assert_eq!(signs("@@ -1,2 +1 @@\n a\n-b\n-- \n2.47.3\n"), " -");
        // A list behind a diff could be its lines: it stays, and will not be found.
        assert_eq!(signs("@@ -1,2 +1 @@\n a\n-b\n\n- b was unused\n"), " - -");
    }
}
