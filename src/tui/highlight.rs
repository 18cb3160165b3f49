//! Code in colours, line by line. What no grammar is at hand for stays plain. Finding the colours takes longer than
//! laying out lines, so they are kept apart from those: [`Colours`] holds them for one block of the transcript, whatever
//! its width, fold or theme.

use super::text::{span, spans};
use super::theme::Theme;
use crate::syntax::{Language, Parsed, Run};
use ratatui::style::Style;
use ratatui::text::Span;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

/// A text whose lines can be had in colours.
#[derive(Debug, Default)]
pub struct Highlighted {
    runs: Vec<Run>,
    /// Where each line begins; lines end at `\n` alone.
    starts: Vec<usize>,
}

impl Highlighted {
    pub fn of(language: Option<Language>, text: &str) -> Self {
        Self::of_lines(language, text, std::slice::from_ref(&(0..usize::MAX)))
    }

    /// The text is read as a whole, and of it the given lines (ascending) get their colours.
    pub fn of_lines(language: Option<Language>, text: &str, lines: &[Range<usize>]) -> Self {
        let Some(parsed) = language.and_then(|language| Parsed::for_screen(language, text)) else {
            return Self::default();
        };
        let starts: Vec<usize> =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let start = |line: usize| starts.get(line).copied().unwrap_or(text.len());
        let ranges: Vec<Range<usize>> =
            lines.iter().map(|lines| start(lines.start)..start(lines.end)).collect();
        Self { runs: parsed.highlights(&ranges), starts }
    }

    /// A part of line `number` that begins at byte `from`, on the ground of `style`.
    pub fn line(
        &self,
        number: usize,
        part: &str,
        from: usize,
        style: Style,
        theme: &Theme,
    ) -> Vec<Span<'static>> {
        spans(part, &self.parts(number, from..from + part.len(), style, theme), style)
    }

    /// What of some bytes of a line has a style of its own, counted from their first.
    fn parts(
        &self,
        number: usize,
        bytes: Range<usize>,
        style: Style,
        theme: &Theme,
    ) -> Vec<(Range<usize>, Style)> {
        let Some(line) = self.starts.get(number) else { return Vec::new() };
        let (start, end) = (line + bytes.start, line + bytes.end);
        let first = self.runs.partition_point(|run| run.end <= start);
        let within = self.runs[first..].iter().take_while(|run| run.start < end);
        let part = |run: &Run| {
            let range = run.start.max(start) - start..run.end.min(end) - start;
            (range, style.patch(theme.class(run.class)))
        };
        within.map(part).collect()
    }
}

/// The colours of a block's pieces of code, each found once.
#[derive(Debug, Default)]
pub struct Colours {
    kept: Vec<Kept>,
    /// Of the block's text: it grows.
    version: u64,
    /// A text of this block was too much for the parser: what it grows into is not tried.
    gave_up: bool,
}

#[derive(Debug)]
struct Kept {
    /// Of language and text.
    key: u64,
    version: u64,
    code: Highlighted,
}

impl Colours {
    /// Where the colours of a text are kept.
    fn find(&mut self, language: Option<Language>, text: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        (language.map(|language| language as usize), text).hash(&mut hasher);
        let key = hasher.finish();
        let at = self.kept.iter().position(|kept| kept.key == key).unwrap_or_else(|| {
            let code = Highlighted::of(language.filter(|_| !self.gave_up), text);
            self.gave_up |= language.is_some() && code.starts.is_empty();
            self.kept.push(Kept { key, version: self.version, code });
            self.kept.len() - 1
        });
        self.kept[at].version = self.version;
        at
    }

    /// The text of the block becomes another one.
    pub fn changed(&mut self) {
        self.version += 1;
    }

    /// After the block was laid out: what its text no longer holds can go.
    pub fn sweep(&mut self) {
        self.kept.retain(|kept| kept.version == self.version);
    }
}

/// The lines of a block of code, styled.
pub fn code(language: &str, code: &str, theme: &Theme, colours: &mut Colours) -> Vec<Vec<Span<'static>>> {
    let at = colours.find(Language::of_word(language), code);
    let highlighted = &colours.kept[at].code;
    let lines = code.split('\n').enumerate();
    lines.map(|(number, line)| highlighted.line(number, line, 0, theme.text, theme)).collect()
}

/// The language that a header line of a unified diff tells, if it tells one.
pub fn diff_language(header: &str) -> Option<Language> {
    let path = header.strip_prefix("--- ").or_else(|| header.strip_prefix("+++ "))?;
    Language::of_path(path.trim_end().trim_matches('"'))
}

/// The lines of unified diffs without their headers, each with the language of its file, styled. Each side of a hunk is
/// read by itself, as it stands in its file; the colours lie on the grounds that tell the sides apart.
pub fn diff(
    lines: &[(&str, Option<Language>)],
    theme: &Theme,
    colours: &mut Colours,
) -> Vec<Vec<Span<'static>>> {
    let mut shown = Vec::with_capacity(lines.len());
    let mut rest = lines;
    while let Some(&(first, language)) = rest.first() {
        let is_code = |line: &str| line.is_empty() || line.starts_with(['+', '-', ' ', '\\']);
        let hunk = rest.iter().take_while(|(line, own)| is_code(line) && *own == language).count();
        if hunk == 0 {
            let style = if first.starts_with('@') { theme.accent } else { theme.dim };
            shown.push(vec![span(first, style)]);
        } else {
            let texts: Vec<&str> = rest[..hunk].iter().map(|(line, _)| *line).collect();
            shown.extend(sides(&texts, language, theme, colours));
        }
        rest = &rest[hunk.max(1)..];
    }
    shown
}

fn sides(
    hunk: &[&str],
    language: Option<Language>,
    theme: &Theme,
    colours: &mut Colours,
) -> Vec<Vec<Span<'static>>> {
    let text = |other: char| {
        let own = hunk.iter().filter(|line| !line.starts_with([other, '\\']));
        own.map(|line| line.get(1..).unwrap_or_default()).collect::<Vec<_>>().join("\n")
    };
    let new = colours.find(language, &text('-'));
    let removes = hunk.iter().any(|line| line.starts_with('-'));
    let old = if removes { colours.find(language, &text('+')) } else { new };
    let (old, new) = (&colours.kept[old].code, &colours.kept[new].code);
    let (mut old_line, mut new_line) = (0, 0);
    let mut shown = Vec::with_capacity(hunk.len());
    for line in hunk {
        let (code, number, style) = match line.as_bytes().first() {
            Some(b'\\') => {
                shown.push(vec![span(line, theme.dim)]);
                continue;
            }
            Some(b'-') => (old, old_line, theme.removed),
            Some(b'+') => (new, new_line, theme.added),
            _ => (new, new_line, theme.dim),
        };
        old_line += usize::from(!line.starts_with('+'));
        new_line += usize::from(!line.starts_with('-'));
        // The sign is no part of the code.
        let mut parts = code.parts(number, 0..line.len().saturating_sub(1), style, theme);
        parts.iter_mut().for_each(|(range, _)| *range = range.start + 1..range.end + 1);
        shown.push(spans(line, &parts, style));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::super::theme::ThemeName;
    use super::*;

    fn theme() -> Theme {
        Theme::new(ThemeName::Dark)
    }

    fn text(line: &[Span<'_>]) -> String {
        line.iter().map(|span| &*span.content).collect()
    }

    fn style_of(line: &[Span<'_>], part: &str) -> Style {
        line.iter().find(|span| span.content == part).unwrap_or_else(|| panic!("{part} in {line:?}")).style
    }

    #[test]
    fn code_is_in_colours_where_its_language_is_known() {
        let source = "/* a\n b */\nfn f() { \"\u{1b}[31m\" }";
        let lines = code("rust", source, &theme(), &mut Colours::default());
        assert_eq!(style_of(&lines[1], " b */"), theme().comment, "what began a line above");
        assert_eq!(style_of(&lines[2], "fn"), theme().keyword);
        assert_eq!(style_of(&lines[2], "\"\\u{1b}[31m\""), theme().string);
        let plain = code("nothing", source, &theme(), &mut Colours::default());
        assert!(plain.iter().all(|line| line.len() == 1 && line[0].style == theme().text));
        for (coloured, plain) in lines.iter().zip(&plain) {
            assert_eq!(text(coloured), text(plain));
        }
    }

    #[test]
    fn without_colours_there_is_none() {
        let plain = Theme::new(ThemeName::Plain);
        let lines = code("rust", "fn f() { 1 } // c", &plain, &mut Colours::default());
        assert!(lines[0].iter().all(|span| span.style.fg.is_none() && span.style.bg.is_none()));
    }

    #[test]
    fn both_sides_of_a_diff_are_in_colours_on_their_grounds() {
        assert_eq!(diff_language("+++ b/src/a.rs"), Some(Language::Rust));
        assert_eq!(diff_language("+++ /dev/null"), None);
        let rust = Some(Language::Rust);
        let lines = [
            "@@ -1,2 +1,2 @@",
            " fn f() {",
            "-    let a = 1;",
            "+\tlet a = \"b\";",
            "\\ No newline",
            "",
            "+let",
        ];
        let lines: Vec<_> = lines.into_iter().map(|line| (line, rust)).collect();
        let theme = theme();
        let shown = diff(&lines, &theme, &mut Colours::default());
        for ((line, _), shown) in lines.iter().zip(&shown) {
            assert_eq!(text(shown), super::super::text::clean(line));
        }
        assert_eq!(shown[0][0].style, theme.accent);
        assert_eq!(style_of(&shown[1], "fn"), theme.dim.patch(theme.keyword));
        assert_eq!(style_of(&shown[2], "1"), theme.removed.patch(theme.number));
        assert_eq!(style_of(&shown[2], "-    "), theme.removed);
        assert_eq!(style_of(&shown[3], "\"b\""), theme.added.patch(theme.string));
        assert_eq!(shown[4][0].style, theme.dim);
    }

    #[test]
    fn a_text_is_read_once_while_its_block_has_it() {
        let mut colours = Colours::default();
        let first = colours.find(Some(Language::Rust), "fn f() {}");
        colours.sweep();
        assert_eq!(colours.find(Some(Language::Rust), "fn f() {}"), first);
        assert_eq!(colours.kept.len(), 1);
        colours.find(Some(Language::Python), "fn f() {}");
        assert_eq!(colours.kept.len(), 2, "another language is another text");
        colours.changed();
        colours.find(Some(Language::Rust), "fn f() {} // more");
        colours.sweep();
        assert_eq!(colours.kept.len(), 1, "what the block no longer holds is gone");
    }

    #[test]
    fn a_part_of_a_line_keeps_the_ground_of_what_changed() {
        let theme = theme();
        let code = Highlighted::of_lines(
            Some(Language::Rust),
            "fn f() {}\nfn g() {}\n",
            std::slice::from_ref(&(1..2)),
        );
        let part = code.line(1, "n g(", 1, theme.added_part, &theme);
        assert_eq!(style_of(&part, "n"), theme.added_part.patch(theme.keyword));
        assert_eq!(style_of(&part, "g"), theme.added_part.patch(theme.function));
        assert!(part.iter().all(|span| span.style.bg == theme.added_part.bg));
        assert_eq!(code.line(0, "fn", 0, theme.text, &theme)[0].style, theme.text, "not asked for");
    }
}
