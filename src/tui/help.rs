//! `?`: every key and every command, from the tables that do them.

use super::keys::{KEYS, REVIEW_KEYS};
use super::slash::COMMANDS;
use super::text::{Break, span, width, wrap};
use super::theme::Theme;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

pub fn render(area: Rect, buffer: &mut Buffer, theme: &Theme, top: &mut usize) {
    let columns = usize::from(area.width);
    let mut lines: Vec<Line<'static>> = Vec::new();
    let commands: Vec<(String, &str)> =
        COMMANDS.iter().map(|command| (format!("/{}", command.name), command.help)).collect();
    let named = |keys: &[(&str, &'static str)]| {
        keys.iter().map(|(key, help)| (key.to_string(), *help)).collect::<Vec<_>>()
    };
    for (title, rows) in [("Keys", named(KEYS)), ("Review", named(REVIEW_KEYS)), ("Commands", commands)] {
        if !lines.is_empty() {
            lines.push(Line::default());
        }
        lines.push(Line::from(Span::styled(title, theme.heading)));
        let widest = rows.iter().map(|(key, _)| width(key)).max().unwrap_or(0).min(columns / 2);
        for (key, help) in rows {
            let pad = " ".repeat(widest.saturating_sub(width(&key)) + 2);
            let first = [Span::raw("  "), Span::styled(key, theme.accent), Span::raw(pad)];
            let rest = [Span::raw(" ".repeat(widest + 4))];
            lines.extend(wrap(&[span(help, theme.text)], columns, Break::Words, &first, &rest));
        }
    }
    let room = usize::from(area.height).saturating_sub(1);
    *top = (*top).min(lines.len().saturating_sub(room));
    let below = lines.len().saturating_sub(*top + room);
    for (index, line) in lines.iter().skip(*top).take(room).enumerate() {
        buffer.set_line(area.x, area.y + index as u16, line, area.width);
    }
    let keys = if below > 0 {
        format!("↓ {below} more  any other key goes back")
    } else {
        "any other key goes back".into()
    };
    buffer.set_line(area.x, area.bottom() - 1, &Line::from(Span::styled(keys, theme.dim)), area.width);
}
