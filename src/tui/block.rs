//! One block of the transcript: what it is, and how it looks. Folded or open, and how wide, is the same for all.

use super::highlight::{self, Colours};
use super::markdown;
use super::text::{Break, line, shortened, span, wrap, wrap_text};
use super::theme::Theme;
use ratatui::text::{Line, Span};

/// Lines of a running command's output that are shown while it is folded.
const LIVE: usize = 5;
/// Lines of the output of a command of the user's own, which is what they ran it for.
const OWN: usize = 20;
/// Lines of a diff that are shown while it is folded.
const DIFF: usize = 12;

/// What all blocks have in common when they are laid out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    pub columns: usize,
    pub expanded: bool,
    pub theme: Theme,
}

#[derive(Debug)]
pub struct Call {
    pub id: u64,
    pub name: String,
    pub summary: String,
    /// `None`: it runs.
    pub ok: Option<bool>,
    pub output_lines: usize,
    /// Lines added and removed.
    pub counts: Option<(usize, usize)>,
}

impl Call {
    /// Lines of its output that are shown while it is folded: while it runs, and afterwards.
    pub fn shows(&self) -> (usize, usize) {
        if self.name == "shell" { (OWN, OWN) } else { (LIVE, 0) }
    }

    pub fn new(id: u64, name: &str, summary: &str) -> Self {
        let (name, summary) = (name.to_string(), summary.to_string());
        Self { id, name, summary, ok: None, output_lines: 0, counts: None }
    }
}

#[derive(Debug)]
pub enum Kind {
    Welcome(Vec<String>),
    Request {
        text: String,
        taken_back: bool,
    },
    Answer(String),
    Thinking(String),
    Call(Call),
    /// A part of a call's output; so many of its last lines are `shown` while it is folded.
    Output {
        call: u64,
        text: String,
        lines: usize,
        shown: usize,
    },
    Diff(String),
    Note(String),
    Error {
        message: String,
        hint: Option<String>,
    },
}

impl Kind {
    /// A blank line keeps it apart from `above`.
    pub fn stands_apart(&self, above: &Self) -> bool {
        match self {
            Self::Output { .. } | Self::Diff(_) => false,
            Self::Call(_) => !matches!(above, Self::Call(_) | Self::Output { .. } | Self::Diff(_)),
            Self::Note(_) => !matches!(above, Self::Note(_)),
            _ => true,
        }
    }
}

#[derive(Debug)]
pub struct Block {
    pub kind: Kind,
    /// Bytes that were written at the end of the block before and at the start of this one where an answer was cut.
    pub seam: (usize, usize),
    gap: bool,
    kept: Option<(Look, Vec<Line<'static>>)>,
    colours: Colours,
}

impl Block {
    pub fn new(kind: Kind, gap: bool) -> Self {
        Self { kind, seam: (0, 0), gap, kept: None, colours: Colours::default() }
    }

    /// The kind, to change it: it is laid out anew.
    pub fn change(&mut self) -> &mut Kind {
        self.kept = None;
        self.colours.changed();
        &mut self.kind
    }

    pub fn kept(&self) -> usize {
        self.kept.as_ref().map_or(0, |(_, lines)| lines.len())
    }

    pub fn forget(&mut self) {
        self.kept = None;
        self.colours = Colours::default();
    }

    pub fn lines(&mut self, look: &Look) -> &[Line<'static>] {
        if self.kept.as_ref().is_some_and(|(old, _)| old != look) {
            self.kept = None;
        }
        let (kind, gap, colours) = (&self.kind, self.gap, &mut self.colours);
        let (_, lines) = self.kept.get_or_insert_with(|| {
            let mut lines = layout(kind, look, colours);
            colours.sweep();
            if gap && !lines.is_empty() {
                lines.insert(0, Line::default());
            }
            (*look, lines)
        });
        lines
    }
}

fn layout(kind: &Kind, look: &Look, colours: &mut Colours) -> Vec<Line<'static>> {
    let theme = &look.theme;
    match kind {
        Kind::Welcome(lines) => welcome(lines, look),
        Kind::Request { text, taken_back } => {
            let (style, mark) = if *taken_back { (theme.dim, "✗ ") } else { (theme.user, "> ") };
            let (first, rest) = ([span(mark, style)], [span("  ", style)]);
            let text_style = if *taken_back { theme.dim } else { theme.bold };
            let mut lines = Vec::new();
            for (index, part) in text.split('\n').enumerate() {
                let before = if index == 0 { &first } else { &rest };
                lines.extend(wrap(&[span(part, text_style)], look.columns, Break::Words, before, &rest));
            }
            lines
        }
        Kind::Answer(text) => markdown::layout(text, look.columns, theme, colours),
        Kind::Thinking(text) if look.expanded => {
            let mut lines = vec![line("· thinking", theme.dim)];
            lines.extend(wrap_text(text.trim_end(), look.columns, Break::Words, theme.dim, "  "));
            lines
        }
        Kind::Thinking(text) => {
            let count = text.trim_end().lines().count().max(1);
            vec![line(&format!("· thinking ({})", counted(count, "line")), theme.dim)]
        }
        Kind::Call(call) => vec![call_line(call, look)],
        Kind::Output { text, shown, .. } => {
            let text = text.strip_suffix('\n').unwrap_or(text);
            if look.expanded {
                return wrap_text(text, look.columns, Break::Anywhere, theme.dim, "    ");
            }
            let last: Vec<&str> = text.rsplit('\n').take(*shown).collect();
            let room = look.columns.saturating_sub(4);
            last.iter().rev().map(|text| line(&format!("    {}", shortened(text, room)), theme.dim)).collect()
        }
        Kind::Diff(diff) => diff_lines(diff, look, colours),
        Kind::Note(text) => wrap_text(text, look.columns, Break::Words, theme.dim, ""),
        Kind::Error { message, hint } => {
            let (first, rest) = ([span("! ", theme.bad)], [span("  ", theme.bad)]);
            let mut lines: Vec<Line<'static>> = Vec::new();
            for (index, part) in message.split('\n').enumerate() {
                let before = if index == 0 { &first } else { &rest };
                lines.extend(wrap(&[span(part, theme.bad)], look.columns, Break::Words, before, &rest));
            }
            if let Some(hint) = hint {
                lines.extend(wrap(&[span(hint, theme.dim)], look.columns, Break::Words, &rest, &rest));
            }
            lines
        }
    }
}

fn welcome(lines: &[String], look: &Look) -> Vec<Line<'static>> {
    let mut shown = Vec::new();
    for (index, text) in lines.iter().enumerate() {
        let style = if index == 0 { look.theme.user } else { look.theme.dim };
        shown.extend(wrap(&[span(text, style)], look.columns, Break::Words, &[], &[]));
    }
    shown
}

pub fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn call_line(call: &Call, look: &Look) -> Line<'static> {
    let theme = &look.theme;
    let (mark, style) = match call.ok {
        None => ("● ", theme.warn),
        Some(true) => ("✓ ", theme.good),
        Some(false) => ("✗ ", theme.bad),
    };
    let mut after = Vec::new();
    if let Some((added, removed)) = call.counts {
        after.push(Span::styled(format!("  +{added}"), theme.good));
        after.push(Span::styled(format!(" -{removed}"), theme.bad));
    }
    if call.output_lines > call.shows().1 && call.ok.is_some() && !look.expanded {
        after.push(Span::styled(format!("  {} (Ctrl+O)", counted(call.output_lines, "line")), theme.dim));
    }
    let used: usize = 2 + after.iter().map(Span::width).sum::<usize>();
    let summary = shortened(&call.summary, look.columns.saturating_sub(used).max(8));
    let mut spans = vec![Span::styled(mark, style), Span::styled(summary, theme.text)];
    spans.extend(after);
    Line::from(spans)
}

/// Lines added and removed by a unified diff.
pub fn count_diff(diff: &str) -> (usize, usize) {
    parted(diff).filter(|(header, _)| !header).fold((0, 0), |(added, removed), (_, line)| {
        match line.as_bytes().first() {
            Some(b'+') => (added + 1, removed),
            Some(b'-') => (added, removed + 1),
            _ => (added, removed),
        }
    })
}

/// The lines of a diff, and whether each belongs to the header of a file: behind the first hunk a line that begins with
/// two or three signs is one of text.
fn parted(diff: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut in_header = true;
    diff.lines().map(move |line| {
        in_header = (in_header || line.starts_with("diff --git ")) && !line.starts_with("@@");
        (in_header, line)
    })
}

fn diff_lines(diff: &str, look: &Look, colours: &mut Colours) -> Vec<Line<'static>> {
    let theme = &look.theme;
    let header = |line: &str| {
        ["diff --git", "--- ", "+++ ", "new file", "deleted file", "index "]
            .iter()
            .any(|word| line.starts_with(word))
    };
    let mut language = None;
    let mut body = Vec::new();
    for (in_header, line) in parted(diff) {
        if in_header && header(line) {
            let begins = line.starts_with("diff --git");
            language = highlight::diff_language(line).or(language.filter(|_| !begins));
        } else {
            body.push((line, language));
        }
    }
    // What is folded away gets no colours either.
    let shown = if look.expanded || body.len() <= DIFF + 2 { body.len() } else { DIFF };
    let margin = [span("    ", theme.text)];
    let mut lines = Vec::new();
    for spans in highlight::diff(&body[..shown], theme, colours) {
        lines.extend(wrap(&spans, look.columns, Break::Anywhere, &margin, &margin));
    }
    if shown < body.len() {
        let more = format!("    … {} more (Ctrl+O)", counted(body.len() - shown, "line"));
        lines.push(line(&more, theme.dim));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_text_are_no_header_whatever_they_begin_with() {
        let diff = "diff --git a/q.sql b/q.sql\n--- a/q.sql\n+++ b/q.sql\n@@ -1,2 +1,2 @@\n--- old comment\n+++ new\n x\n\
                    diff --git a/b b/b\n--- a/b\n+++ b/b\n@@ -1 +1 @@\n-x\n+y\n";
        assert_eq!(count_diff(diff), (2, 2));
        let look =
            Look { columns: 80, expanded: true, theme: Theme::new(super::super::theme::ThemeName::Plain) };
        let lines = diff_lines(diff, &look, &mut Colours::default());
        let texts: Vec<String> = lines.iter().map(ToString::to_string).collect();
        assert!(texts.iter().any(|line| line.contains("--- old comment")), "{texts:?}");
        assert!(!texts.iter().any(|line| line.contains("q.sql")), "{texts:?}");
    }
}
