//! The one way of text onto the screen. What a model, a file, a command or a name holds becomes a span here and nowhere
//! else: escaped (`chat::escape`), on one line, tabs as spaces; then it is wrapped, by words or anywhere, so that wide
//! characters line up. Styles are ours and come after.

use crate::chat::escape::{escape_for_terminal, is_unsafe_for_terminal};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

const TAB: usize = 4;

/// One line of text as it may be shown: a line break in it is shown, not made.
pub fn clean(text: &str) -> String {
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return text.to_string();
    }
    let escaped = escape_for_terminal(text);
    let mut out = String::with_capacity(escaped.len());
    let mut column = 0;
    for part in escaped.graphemes(true) {
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
    out
}

pub fn span(text: &str, style: Style) -> Span<'static> {
    Span::styled(clean(text), style)
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
    fn nothing_unsafe_comes_out() {
        for text in ["\u{1b}[31mx", "a\u{202e}b", "\u{200b}", "x\r\ny", "\u{9b}0m", "\u{7f}", "\u{e0041}"] {
            let shown = clean(text);
            assert!(!shown.chars().any(|c| is_unsafe_for_terminal(c) || c == '\n'), "{shown:?}");
        }
        assert_eq!(clean("a\tb"), "a   b");
        assert_eq!(clean("日\tb"), "日  b");
    }
}
