//! The screen from the state: transcript, what runs, composer or what stands in its place, status line. Draws into a
//! buffer; the terminal gets what changed.

use super::app::{App, Overlay, Phase};
use super::help;
use super::meter::{bytes, seconds, thousands};
use super::text::{is_unsafe_cell, shortened, span, width};
use super::vim;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};
use std::time::Instant;

const SPINNER: &[&str] = &["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
/// Rows of the composer at most.
const COMPOSER: usize = 10;
/// Smaller than this there is nothing to draw on.
const LEAST: (u16, u16) = (20, 6);

pub fn draw(app: &mut App, frame: &mut Frame<'_>, now: Instant) {
    let area = frame.area();
    app.width = usize::from(area.width);
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let line = Line::from("too small");
        frame.buffer_mut().set_line(area.x, area.y, &line, area.width);
        return;
    }
    let cursor = screen(app, area, frame.buffer_mut(), now);
    for cell in &mut frame.buffer_mut().content {
        if is_unsafe_cell(cell.symbol()) {
            cell.set_symbol("?");
        }
    }
    if let Some(cursor) = cursor {
        frame.set_cursor_position(cursor);
    }
}

fn screen(app: &mut App, area: Rect, buffer: &mut Buffer, now: Instant) -> Option<Position> {
    let theme = app.theme;
    let status = Rect { y: area.bottom() - 1, height: 1, ..area };
    let main = Rect { height: area.height - 1, ..area };
    draw_status(app, status, buffer);
    let columns = usize::from(area.width);
    match &mut app.overlay {
        Some(Overlay::Review(review)) => {
            review.render(main, buffer, &theme);
            return None;
        }
        Some(Overlay::Help { top }) => {
            help::render(main, buffer, &theme, top);
            return None;
        }
        _ => {}
    }
    // What stands below the transcript.
    let room = usize::from(main.height).saturating_sub(3).max(3);
    let mut cursor = None;
    let bottom = match &mut app.overlay {
        Some(Overlay::Approval(approval)) => {
            let height = approval.height(columns, &theme).min(room).max(3) as u16;
            let pane = below(main, height);
            approval.render(pane, buffer, &theme);
            pane
        }
        Some(Overlay::Picker(picker)) => {
            let height = (picker.height() + 1).min(room).max(4) as u16;
            let pane = below(main, height);
            rule(pane, buffer, app);
            let inner = Rect { y: pane.y + 1, height: pane.height - 1, ..pane };
            if let Some(Overlay::Picker(picker)) = &app.overlay {
                picker.render(inner, buffer, &theme);
            }
            pane
        }
        Some(Overlay::Search(_)) => {
            let pane = below(main, 3);
            rule(pane, buffer, app);
            let inner = Rect { y: pane.y + 1, height: 2, ..pane };
            if let Some(Overlay::Search(search)) = &app.overlay {
                search.render(inner, buffer, &theme, app.composer.history());
            }
            pane
        }
        _ => {
            let rows = app.composer.rows(columns.saturating_sub(3));
            let at = rows.iter().position(|row| row.cursor.is_some()).unwrap_or(0);
            let height = rows.len().min(COMPOSER).min(room);
            let pane = below(main, height as u16 + 1);
            rule(pane, buffer, app);
            let from = (at + 1).saturating_sub(height);
            for (index, row) in rows.iter().enumerate().skip(from).take(height) {
                let y = pane.y + 1 + (index - from) as u16;
                let mark = if index == 0 { mark(app) } else { "  " };
                let style = if app.phase == Phase::Ready || app.phase == Phase::Running {
                    theme.accent
                } else {
                    theme.dim
                };
                let line =
                    Line::from(vec![Span::styled(mark, style), Span::styled(row.text.clone(), theme.text)]);
                buffer.set_line(pane.x, y, &line, pane.width);
                if let Some(column) = row.cursor {
                    cursor = Some(Position { x: pane.x + 2 + column as u16, y });
                }
            }
            pane
        }
    };
    let above = Rect { height: bottom.y - main.y, ..main };
    let activity = activity(app, now, columns);
    let waiting: Vec<Line<'static>> = app
        .queue
        .iter()
        .chain(app.sent.as_ref().filter(|_| app.phase != Phase::Running))
        .map(|text| {
            Line::from(span(
                &shortened(&format!("  waits: {}", text.lines().next().unwrap_or("")), columns),
                theme.dim,
            ))
        })
        .collect();
    let lines: Vec<Line<'static>> =
        activity.into_iter().chain(waiting).take(usize::from(above.height) / 2).collect();
    // A blank line keeps what moves apart from the text.
    let gap = u16::from(!lines.is_empty());
    let text = Rect { height: above.height.saturating_sub(lines.len() as u16 + gap), ..above };
    let look = app.look();
    app.transcript.render(text, buffer, &look);
    for (index, line) in lines.iter().enumerate() {
        buffer.set_line(above.x, text.bottom() + gap + index as u16, line, above.width);
    }
    if app.overlay.is_none() {
        popup(app, above, buffer);
    }
    cursor
}

fn below(area: Rect, height: u16) -> Rect {
    let height = height.min(area.height.saturating_sub(1));
    Rect { y: area.bottom() - height, height, ..area }
}

fn mark(app: &App) -> &'static str {
    match &app.vim {
        Some(vim) if vim.mode == vim::Mode::Normal => "· ",
        _ if app.composer.text().starts_with('!') => "! ",
        _ => "> ",
    }
}

/// The line above the composer; it tells when the view is not at the end.
fn rule(pane: Rect, buffer: &mut Buffer, app: &App) {
    let columns = usize::from(pane.width);
    let word = if app.transcript.is_at_end() { "" } else { " more below: Ctrl+End " };
    let line = format!("{}{word}", "─".repeat(columns.saturating_sub(width(word))));
    buffer.set_line(pane.x, pane.y, &Line::from(Span::styled(line, app.theme.dim)), pane.width);
}

fn activity(app: &App, now: Instant, columns: usize) -> Option<Line<'static>> {
    let theme = &app.theme;
    let (doing, since) = match (&app.meter.doing, &app.meter.progress) {
        (Some((doing, since)), _) => (doing.clone(), Some(*since)),
        (None, Some(progress)) => (progress.phase.clone(), None),
        (None, None) => return None,
    };
    let whole = app.meter.turn_since.or(since);
    let spent = whole.map(|since| now.saturating_duration_since(since));
    let frame = spent.map_or(0, |spent| spent.as_millis() as usize / 100);
    let mut spans = vec![Span::styled(format!("{} ", SPINNER[frame % SPINNER.len()]), theme.accent)];
    if let Some(progress) = &app.meter.progress {
        let share = progress.done as f64 / progress.total.max(1) as f64;
        let cells = (columns / 4).clamp(8, 30);
        let full = (share * cells as f64) as usize;
        spans.push(Span::styled(format!("{} ", progress.phase), theme.text));
        spans.push(Span::styled(format!("{}{}", "━".repeat(full), "╌".repeat(cells - full)), theme.accent));
        let amount = match progress.phase.as_str() {
            "reading" => format!(
                "{} of {} tokens",
                thousands(progress.done as usize),
                thousands(progress.total as usize)
            ),
            _ => format!("{} of {}", bytes(progress.done), bytes(progress.total)),
        };
        spans.push(Span::styled(format!(" {:.0} % · {amount}", share * 100.0), theme.dim));
        if let Some(left) = progress.remaining(now) {
            spans.push(Span::styled(format!(" · {} left", seconds(left)), theme.dim));
        }
    } else {
        let doing = if app.interrupting { "interrupting".to_string() } else { doing };
        spans.push(span(&shortened(&doing, columns.saturating_sub(30).max(10)), theme.text));
        if let Some(spent) = spent {
            spans.push(Span::styled(format!(" · {}", seconds(spent)), theme.dim));
        }
    }
    // A model that is being loaded cannot be stopped.
    let stops = !matches!(app.phase, Phase::Loading | Phase::NoModel | Phase::Switching { .. });
    if columns >= 50 && stops {
        spans.push(Span::styled(" · Esc interrupts", theme.dim));
    }
    Some(Line::from(spans))
}

fn popup(app: &App, above: Rect, buffer: &mut Buffer) {
    let Some(popup) = &app.popup else { return };
    let theme = &app.theme;
    let rows = popup.items.len().min(8).min(usize::from(above.height));
    let from = (popup.at + 1).saturating_sub(rows);
    let widest = popup.items.iter().map(|(item, _)| width(item)).max().unwrap_or(0);
    let top = above.bottom() - rows as u16;
    for (index, (item, detail)) in popup.items.iter().enumerate().skip(from).take(rows) {
        let y = top + (index - from) as u16;
        for x in above.x..above.right() {
            buffer[(x, y)].reset();
        }
        let style = if index == popup.at { theme.selected } else { theme.text };
        let item = shortened(item, usize::from(above.width).saturating_sub(4));
        let pad = " ".repeat(widest.saturating_sub(width(&item)) + 2);
        let room = usize::from(above.width).saturating_sub(2 + widest + 2);
        let line = Line::from(vec![
            Span::raw("  "),
            Span::styled(item, style),
            Span::raw(pad),
            Span::styled(shortened(detail, room), theme.dim),
        ]);
        buffer.set_line(above.x, y, &line, above.width);
    }
}

fn draw_status(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = &app.theme;
    let columns = usize::from(area.width);
    if let Some(hint) = &app.hint {
        buffer.set_line(area.x, area.y, &Line::from(span(&shortened(hint, columns), theme.warn)), area.width);
        return;
    }
    let mut left: Vec<(String, ratatui::style::Style)> = Vec::new();
    let mode_style = match app.mode {
        crate::agent::protocol::ApprovalMode::Yolo => theme.bad,
        crate::agent::protocol::ApprovalMode::Plan => theme.accent,
        _ => theme.text,
    };
    left.push((app.mode.name().to_string(), mode_style));
    match &app.session {
        Some(session) => {
            left.push((session.model.clone(), theme.text));
            let style = if session.sandbox == "full" { theme.dim } else { theme.warn };
            left.push((format!("sandbox {}", session.sandbox), style));
        }
        None => left.push((
            match app.phase {
                Phase::Loading => "loading",
                Phase::NoModel => "no model",
                Phase::Pulling(_) => "downloading",
                _ => "no session",
            }
            .to_string(),
            theme.dim,
        )),
    }
    if let Some(branch) = &app.start.branch {
        left.push((branch.clone(), theme.dim));
    }
    let meter = &app.meter;
    let mut right: Vec<String> = Vec::new();
    if let Some(speed) = meter.tokens_per_second {
        right.push(format!("{speed:.1} tok/s"));
    }
    if meter.limit > 0 {
        right.push(format!(
            "{}/{} ({} %)",
            thousands(meter.used),
            thousands(meter.limit),
            meter.used * 100 / meter.limit
        ));
    }
    if let Some(share) = (meter.last.cached * 100).checked_div(meter.last.prompt) {
        right.push(format!("cached {share} %"));
    }
    // On a narrow screen the least needed goes first.
    let length = |left: &[(String, ratatui::style::Style)], right: &[String]| {
        left.iter().map(|(text, _)| width(text) + 3).sum::<usize>()
            + right.iter().map(|text| width(text) + 3).sum::<usize>()
    };
    while length(&left, &right) > columns + 3 && (left.len() > 2 || right.len() > 1) {
        if left.len() > 3 {
            left.pop();
        } else if right.len() > 1 {
            right.pop();
        } else {
            left.pop();
        }
    }
    let mut spans = Vec::new();
    for (index, (text, style)) in left.iter().enumerate() {
        if index > 0 {
            spans.push(Span::styled(" · ", theme.dim));
        }
        spans.push(span(&shortened(text, columns / 2), *style));
    }
    let right = shortened(&right.join(" · "), columns);
    let used: usize = spans.iter().map(Span::width).sum();
    let pad = columns.saturating_sub(used + width(&right));
    spans.push(Span::raw(" ".repeat(pad)));
    spans.push(Span::styled(right, theme.dim));
    buffer.set_line(area.x, area.y, &Line::from(spans), area.width);
}
