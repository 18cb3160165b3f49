//! The rows of a file's diff, unified or side by side: which lines of which side stand in each, and how many rows of
//! the screen they take. Styles come when a row is drawn. Lines are wrapped, never cut: what lands is what is seen.

use super::hunks::{FileReview, Verdict, lines, within};
use crate::tui::highlight::Highlighted;
use crate::tui::text::{Break, clean, span, wrap};
use crate::tui::theme::Theme;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use similar::DiffTag;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Old,
    New,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// Begins a hunk.
    Head(usize),
    /// Line numbers of the old and the new side, from 0; one of them, or both.
    Line { hunk: usize, old: Option<usize>, new: Option<usize>, changed: bool },
    /// A line of the user's own text.
    Own { hunk: usize, line: usize },
}

impl Row {
    pub fn hunk(&self) -> usize {
        match self {
            Self::Head(hunk) | Self::Line { hunk, .. } | Self::Own { hunk, .. } => *hunk,
        }
    }
}

pub fn rows(file: &FileReview, side_by_side: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for (hunk, review) in file.hunks.iter().enumerate() {
        rows.push(Row::Head(hunk));
        if let Some(Verdict::Edited(text)) = &review.verdict {
            rows.extend((0..lines(text).len()).map(|line| Row::Own { hunk, line }));
            continue;
        }
        for op in &review.ops {
            let (old, new) = (op.old_range(), op.new_range());
            if op.tag() == DiffTag::Equal {
                rows.extend(old.zip(new).map(|(old, new)| Row::Line {
                    hunk,
                    old: Some(old),
                    new: Some(new),
                    changed: false,
                }));
            } else if side_by_side {
                for at in 0..old.len().max(new.len()) {
                    let of =
                        |range: &std::ops::Range<usize>| Some(range.start + at).filter(|at| *at < range.end);
                    rows.push(Row::Line { hunk, old: of(&old), new: of(&new), changed: true });
                }
            } else {
                rows.extend(old.map(|old| Row::Line { hunk, old: Some(old), new: None, changed: true }));
                rows.extend(new.map(|new| Row::Line { hunk, old: None, new: Some(new), changed: true }));
            }
        }
    }
    rows
}

pub struct Painter<'a> {
    pub file: &'a FileReview,
    pub old: Vec<&'a str>,
    pub new: Vec<&'a str>,
    /// Code in colours, where a grammar is at hand.
    pub old_code: &'a Highlighted,
    pub new_code: &'a Highlighted,
    pub theme: &'a Theme,
    pub columns: usize,
    pub side_by_side: bool,
    /// The hunk the user is at.
    pub at: usize,
    pub reads_only: bool,
}

impl Painter<'_> {
    pub fn paint(&self, row: &Row) -> Vec<Line<'static>> {
        match row {
            Row::Head(hunk) => vec![self.head(*hunk)],
            Row::Own { hunk, line } => {
                let Some(Verdict::Edited(text)) = &self.file.hunks[*hunk].verdict else { return Vec::new() };
                let text =
                    lines(text).get(*line).copied().unwrap_or("").trim_end_matches(['\n', '\r']).to_string();
                let margin = [self.bar(*hunk), Span::styled("     ~ ", self.theme.warn)];
                let rest = [self.bar(*hunk), Span::raw("       ")];
                wrap(&[span(&text, self.theme.added)], self.columns, Break::Anywhere, &margin, &rest)
            }
            Row::Line { hunk, old, new, changed } if self.side_by_side => {
                self.two(*hunk, *old, *new, *changed)
            }
            Row::Line { hunk, old, new, changed } => {
                let side = if new.is_some() { Side::New } else { Side::Old };
                let number = new.or(*old).unwrap_or(0);
                let sign = match (changed, side) {
                    (false, _) => "  ",
                    (true, Side::Old) => "- ",
                    (true, Side::New) => "+ ",
                };
                let spans = self.code(*hunk, side, number, *changed);
                let ground = self.ground(*hunk, side, *changed);
                let first = [
                    self.bar(*hunk),
                    Span::styled(format!("{:>4} ", number + 1), self.theme.dim),
                    Span::styled(sign, ground),
                ];
                let rest = [self.bar(*hunk), Span::raw("     "), Span::styled("  ", ground)];
                wrap(&spans, self.columns, Break::Anywhere, &first, &rest)
            }
        }
    }

    fn head(&self, at: usize) -> Line<'static> {
        let hunk = &self.file.hunks[at];
        let (mark, style) = match &hunk.verdict {
            _ if self.reads_only => ("", self.theme.dim),
            None => ("?", self.theme.warn),
            Some(Verdict::Accepted) => ("✓ accepted", self.theme.good),
            Some(Verdict::Rejected) => ("✗ rejected", self.theme.bad),
            Some(Verdict::Edited(_)) => ("~ edited", self.theme.warn),
        };
        let place = match (&self.file.change.before, &self.file.change.after) {
            (None, _) => "new file".to_string(),
            (_, None) => "deleted".to_string(),
            _ => format!(
                "lines {}-{}",
                hunk.before().start + 1,
                hunk.before().end.max(hunk.before().start + 1)
            ),
        };
        let text = format!("── hunk {} of {} · {place} ── ", at + 1, self.file.hunks.len());
        let text_style = if at == self.at { self.theme.accent } else { self.theme.dim };
        Line::from(vec![self.bar(at), Span::styled(text, text_style), Span::styled(mark, style)])
    }

    fn bar(&self, hunk: usize) -> Span<'static> {
        if hunk == self.at { Span::styled("▌", self.theme.accent) } else { Span::raw(" ") }
    }

    fn ground(&self, hunk: usize, side: Side, changed: bool) -> Style {
        let rejected = self.file.hunks[hunk].verdict == Some(Verdict::Rejected);
        match (changed, side) {
            (true, Side::New) if rejected => self.theme.dim,
            (true, Side::Old) if rejected => self.theme.text,
            (true, Side::Old) => self.theme.removed,
            (true, Side::New) => self.theme.added,
            (false, _) => self.theme.text,
        }
    }

    /// The spans of one line: code in colours on the ground of its side, what changed within it on a stronger one.
    fn code(&self, hunk: usize, side: Side, number: usize, changed: bool) -> Vec<Span<'static>> {
        let (texts, code) = match side {
            Side::Old => (&self.old, self.old_code),
            Side::New => (&self.new, self.new_code),
        };
        let whole = texts.get(number).copied().unwrap_or("");
        let text = whole.strip_suffix('\n').unwrap_or(whole);
        let ground = self.ground(hunk, side, changed);
        // What will not land recedes; colours would bring it forward.
        let refused =
            changed && side == Side::New && self.file.hunks[hunk].verdict == Some(Verdict::Rejected);
        let styled = |part: &str, from: usize, style: Style| match refused {
            true => vec![span(part, style)],
            false => code.line(number, part, from, style, self.theme),
        };
        let mut spans = match changed.then(|| self.parts(hunk, side, number)).flatten() {
            Some(parts) => {
                let strong = if side == Side::Old { self.theme.removed_part } else { self.theme.added_part };
                let mut at = 0;
                let mut spans = Vec::new();
                for (is_changed, part) in parts {
                    let part = part.strip_suffix('\n').unwrap_or(&part).to_string();
                    let style = if is_changed { strong } else { ground };
                    spans.extend(styled(&part, at, style));
                    at += part.len();
                }
                spans
            }
            None => styled(text, 0, ground),
        };
        if !whole.ends_with('\n') && changed {
            spans.push(Span::styled(" (no line break at the end)", self.theme.dim));
        }
        spans
    }

    /// What changed within a line that stands for a line of the other side.
    fn parts(&self, hunk: usize, side: Side, number: usize) -> Option<super::hunks::Parts> {
        let hunk = &self.file.hunks[hunk];
        if hunk.verdict == Some(Verdict::Rejected) {
            return None;
        }
        let op = hunk.ops.iter().find(|op| {
            let range = if side == Side::Old { op.old_range() } else { op.new_range() };
            op.tag() == DiffTag::Replace && range.contains(&number)
        })?;
        let (old, new) = (op.old_range(), op.new_range());
        let at = number - if side == Side::Old { old.start } else { new.start };
        let before = self.old.get(Some(old.start + at).filter(|at| *at < old.end)?)?;
        let after = self.new.get(Some(new.start + at).filter(|at| *at < new.end)?)?;
        let (before, after) = within(before, after)?;
        Some(if side == Side::Old { before } else { after })
    }

    fn two(&self, hunk: usize, old: Option<usize>, new: Option<usize>, changed: bool) -> Vec<Line<'static>> {
        let half = (self.columns.saturating_sub(4)) / 2;
        let cell = |side: Side, number: Option<usize>| -> Vec<Line<'static>> {
            let Some(number) = number else { return Vec::new() };
            let sign = match (changed, side) {
                (false, _) => "  ",
                (true, Side::Old) => "- ",
                (true, Side::New) => "+ ",
            };
            let ground = self.ground(hunk, side, changed);
            let first =
                [Span::styled(format!("{:>4} ", number + 1), self.theme.dim), Span::styled(sign, ground)];
            let rest = [Span::raw("     "), Span::styled("  ", ground)];
            wrap(&self.code(hunk, side, number, changed), half, Break::Anywhere, &first, &rest)
        };
        let (left, right) = (cell(Side::Old, old), cell(Side::New, new));
        (0..left.len().max(right.len()).max(1))
            .map(|at| {
                let mut spans = vec![self.bar(hunk)];
                let line = left.get(at).cloned().unwrap_or_default();
                let pad = half.saturating_sub(line.width());
                spans.extend(line.spans);
                spans.push(Span::raw(" ".repeat(pad)));
                spans.push(Span::styled(" │ ", self.theme.dim));
                spans.extend(right.get(at).cloned().unwrap_or_default().spans);
                Line::from(spans)
            })
            .collect()
    }
}

/// `path  +1 -2`.
pub fn title(file: &FileReview, theme: &Theme) -> Vec<Span<'static>> {
    vec![
        Span::styled(clean(&file.change.path), theme.bold),
        Span::styled(format!("  +{}", file.added), theme.good),
        Span::styled(format!(" -{}", file.removed), theme.bad),
    ]
}
