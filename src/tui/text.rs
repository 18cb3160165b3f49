//! The one way of text onto the screen. What a model, a file, a command or a name holds becomes a span here and nowhere
//! else: escaped (`chat::escape`), on one line, tabs as spaces; then it is wrapped, by words or anywhere, so that wide
//! characters line up. Styles are ours and come after.

use super::theme::Theme;
use crate::chat::escape::{escape_for_terminal, is_unsafe_for_terminal};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use std::ops::Range;
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

const TAB: usize = 4;

/// One line of text as it may be shown: a line break in it is shown, not made.
pub fn clean(text: &str) -> String {
    clean_and_follow(text, &mut [])
}

/// As [`clean`]; `cuts` are places in `text`, ascending, and become those places in the result. One that has no place
/// there, because it is within what is one sign on the screen, moves behind that.
fn clean_and_follow(text: &str, cuts: &mut [usize]) -> String {
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return text.to_string();
    }
    let escaped = escape_for_terminal(text);
    follow_escapes(text, cuts);
    let mut cuts = cuts.iter_mut().peekable();
    let mut out = String::with_capacity(escaped.len());
    let mut column = 0;
    for (at, part) in escaped.grapheme_indices(true) {
        while let Some(cut) = cuts.next_if(|cut| **cut <= at) {
            *cut = out.len();
        }
        match part {
            "\t" => {
                let spaces = TAB - column % TAB;
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            "\n" | "\r\n" => {
                out.push_str("\\n");
                column += 2;
            }
            part => {
                out.push_str(part);
                column += part.width();
            }
        }
    }
    cuts.for_each(|cut| *cut = out.len());
    out
}

/// Places in a text as places in the same text escaped.
fn follow_escapes(text: &str, cuts: &mut [usize]) {
    let mut cuts = cuts.iter_mut().peekable();
    let mut longer = 0;
    for (at, c) in text.char_indices() {
        if cuts.peek().is_none() {
            return;
        }
        while let Some(cut) = cuts.next_if(|cut| **cut <= at) {
            *cut += longer;
        }
        if is_unsafe_for_terminal(c) {
            let own = c.encode_utf8(&mut [0; 4]).len();
            longer += escape_for_terminal(&text[at..at + own]).len() - own;
        }
    }
    cuts.for_each(|cut| *cut += longer);
}

pub fn span(text: &str, style: Style) -> Span<'static> {
    Span::styled(clean(text), style)
}

/// One line in several styles. `parts` (bytes of `text`, ascending, none overlapping) have their own, the rest has that
/// of `ground`. It is cleaned as a whole and cut afterwards, so that it reads as one span of it would.
pub fn spans(text: &str, parts: &[(Range<usize>, Style)], ground: Style) -> Vec<Span<'static>> {
    let mut cuts: Vec<usize> = parts.iter().flat_map(|(range, _)| [range.start, range.end]).collect();
    let shown = clean_and_follow(text, &mut cuts);
    let mut spans = Vec::with_capacity(parts.len() + 1);
    let mut at = 0;
    let mut push = |range: Range<usize>, style| {
        if let Some(part) = shown.get(range).filter(|part| !part.is_empty()) {
            spans.push(Span::styled(part.to_string(), style));
        }
    };
    for (cut, (_, style)) in cuts.chunks_exact(2).zip(parts) {
        let (start, end) = (cut[0].clamp(at, shown.len()), cut[1].clamp(at, shown.len()));
        push(at..start, ground);
        push(start..end, *style);
        at = end;
    }
    push(at..shown.len(), ground);
    if spans.is_empty() {
        spans.push(Span::styled(String::new(), ground));
    }
    spans
}

pub fn line(text: &str, style: Style) -> Line<'static> {
    Line::from(span(text, style))
}

/// True for a cell that must not be drawn as it is. Nothing of the kind comes here but by a fault of ours.
pub fn is_unsafe_cell(symbol: &str) -> bool {
    symbol.chars().any(|c| c == '\n' || c == '\t' || is_unsafe_for_terminal(c))
}

pub fn width(text: &str) -> usize {
    text.width()
}

/// At most so many columns, the end marked where something was left out.
pub fn shortened(text: &str, columns: usize) -> String {
    let text = clean(text);
    if text.width() <= columns {
        return text;
    }
    let mut out = String::new();
    let mut used = 1;
    for part in text.graphemes(true) {
        used += part.width();
        if used > columns {
            break;
        }
        out.push_str(part);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// A line that is being written, of which the end is shown where it is too long: `lead`, the text, a cursor.
pub fn field(lead: &str, text: &str, columns: usize, theme: &Theme) -> Line<'static> {
    let text = clean(text);
    let room = columns.saturating_sub(lead.width() + 1);
    let mut left = text.width();
    // What is left out makes room for the mark of it, too.
    let from = text.grapheme_indices(true).find_map(|(at, part)| {
        let fits = left <= room.saturating_sub(usize::from(at > 0));
        left -= part.width().min(left);
        fits.then_some(at)
    });
    let from = from.unwrap_or(text.len());
    Line::from(vec![
        Span::styled(lead.to_string(), theme.accent),
        Span::styled(if from > 0 { "…" } else { "" }, theme.dim),
        Span::styled(text[from..].to_string(), theme.text),
        Span::styled("▏", theme.accent),
    ])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    Words,
    Anywhere,
}

/// Breaks spans into lines of at most `columns`; `first` and `rest` stand before the first and the other lines.
pub fn wrap(
    spans: &[Span<'static>],
    columns: usize,
    how: Break,
    first: &[Span<'static>],
    rest: &[Span<'static>],
) -> Vec<Line<'static>> {
    let before = |spans: &[Span<'static>]| spans.iter().map(|span| span.content.width()).sum::<usize>();
    let room = columns.saturating_sub(before(first).max(before(rest))).max(2);
    let total: usize = before(spans);
    let prefix = |index: usize| if index == 0 { first } else { rest };
    if total <= room {
        let line = first.iter().chain(spans).cloned().collect::<Vec<_>>();
        return vec![Line::from(line)];
    }
    let cells: Vec<(&str, Style, usize)> = spans
        .iter()
        .flat_map(|span| {
            span.content.graphemes(true).map(|cell| (cell, span.style, cell.width())).collect::<Vec<_>>()
        })
        .collect();
    let mut lines = Vec::new();
    let mut start = 0;
    while start < cells.len() {
        let (mut end, mut used) = (start, 0);
        while end < cells.len() && used + cells[end].2 <= room {
            used += cells[end].2;
            end += 1;
        }
        end = end.max(start + 1);
        let mut next = end;
        if how == Break::Words && end < cells.len() {
            // A space at the very break is swallowed; else the line ends after the last one, or between wide signs.
            let breaks_at = |at: &usize| {
                cells[*at - 1].0 == " " || cells[*at].0 == " " || cells[*at].2 > 1 || cells[*at - 1].2 > 1
            };
            if let Some(at) = (start + 1..=end).rev().find(breaks_at) {
                end = at;
                next = at;
            }
            while next < cells.len() && cells[next].0 == " " {
                next += 1;
            }
            while end > start + 1 && cells[end - 1].0 == " " {
                end -= 1;
            }
        }
        let mut line: Vec<Span<'static>> = prefix(lines.len()).to_vec();
        let mut text = String::new();
        let mut style = cells[start].1;
        for (cell, own, _) in &cells[start..end] {
            if *own != style {
                line.push(Span::styled(std::mem::take(&mut text), style));
                style = *own;
            }
            text.push_str(cell);
        }
        line.push(Span::styled(text, style));
        lines.push(Line::from(line));
        start = next;
    }
    lines
}

/// Plain text of many lines, wrapped.
pub fn wrap_text(text: &str, columns: usize, how: Break, style: Style, margin: &str) -> Vec<Line<'static>> {
    let margin = [Span::styled(margin.to_string(), style)];
    text.split('\n')
        .flat_map(|line| {
            let line = line.strip_suffix('\r').unwrap_or(line);
            wrap(&[span(line, style)], columns, how, &margin, &margin)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::theme::ThemeName;
    use super::*;

    fn wrapped(text: &str, columns: usize, how: Break) -> Vec<String> {
        let lines = wrap(&[span(text, Style::new())], columns, how, &[], &[]);
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn breaks_at_words_and_inside_those_that_are_too_long() {
        assert_eq!(wrapped("one two three", 8, Break::Words), ["one two", "three"]);
        assert_eq!(wrapped("one two", 7, Break::Words), ["one two"]);
        assert_eq!(wrapped("abcdefgh i", 4, Break::Words), ["abcd", "efgh", "i"]);
        assert_eq!(wrapped("one two", 4, Break::Anywhere), ["one ", "two"]);
        assert_eq!(wrapped("", 4, Break::Words), [""]);
    }

    #[test]
    fn wide_signs_count_twice_and_break_anywhere() {
        assert_eq!(wrapped("日本語テキスト", 6, Break::Words), ["日本語", "テキス", "ト"]);
        assert_eq!(wrapped("a日本", 4, Break::Anywhere), ["a日", "本"]);
        assert_eq!(shortened("日本語", 5), "日本…");
    }

    #[test]
    fn of_what_is_being_written_the_end_is_shown() {
        let shown =
            |text: &str, columns| field("> ", text, columns, &Theme::new(ThemeName::Plain)).to_string();
        assert_eq!(shown("", 10), "> ▏");
        assert_eq!(shown("a reason", 11), "> a reason▏");
        assert_eq!(shown("a reason", 10), "> …reason▏");
        assert_eq!(shown("理由理由", 9), "> …理由▏");
        assert_eq!(shown("abc", 3), "> …▏");
    }

    #[test]
    fn nothing_unsafe_comes_out() {
        for text in ["\u{1b}[31mx", "a\u{202e}b", "\u{200b}", "x\r\ny", "\u{9b}0m", "\u{7f}", "\u{e0041}"] {
            let shown = clean(text);
            assert!(!shown.chars().any(|c| is_unsafe_for_terminal(c) || c == '\n'), "{shown:?}");
        }
        assert_eq!(clean("a\tb"), "a   b");
        assert_eq!(clean("日\tb"), "日  b");
    }

    #[test]
    fn parts_in_colours_read_as_the_whole() {
        let bold = Style::new().bold();
        let shown = |text: &str, parts: &[(usize, usize)]| {
            let parts: Vec<_> = parts.iter().map(|(start, end)| (*start..*end, bold)).collect();
            let spans = spans(text, &parts, Style::new());
            let mark = |span: &Span<'_>| {
                if span.style == bold { format!("[{}]", span.content) } else { span.content.to_string() }
            };
            spans.iter().map(mark).collect::<String>()
        };
        assert_eq!(shown("let a", &[(0, 3)]), "[let] a");
        assert_eq!(shown("\ta\tb", &[(1, 2), (3, 4)]), "    [a]   [b]");
        assert_eq!(shown("\u{1b}[0m 日 x", &[(0, 4), (9, 10)]), "[\\u{1b}[0m] 日 [x]");
        assert_eq!(shown("\u{1b}[0m", &[(1, 2)]), "\\u{1b}[[]0m");
        assert_eq!(shown("e\u{301}x", &[(0, 1), (1, 4)]), "[e\u{301}][x]", "a sign is not cut");
        assert_eq!(shown("", &[]), "");
        assert_eq!(shown("ab", &[(0, 9)]), "[ab]");
    }

    proptest::proptest! {
        #[test]
        fn no_cut_changes_what_is_shown(text in "[a-c\t\r\n\u{1b}\u{202e}\u{301}\u{200d}日🦀\u{fe0f}]{0,20}", mut cuts in proptest::collection::vec(0usize..60, 0..8)) {
            cuts.sort_unstable();
            let parts: Vec<_> = cuts.chunks_exact(2).map(|cut| (cut[0]..cut[1], Style::new().bold())).collect();
            let shown: String = spans(&text, &parts, Style::new()).iter().map(|span| span.content.to_string()).collect();
            proptest::prop_assert_eq!(shown, clean(&text));
        }
    }
}
