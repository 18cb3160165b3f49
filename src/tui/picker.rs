//! A list to choose from, with what is typed as a filter: models, sessions, turns to go back to, files, commands.

use super::input::Choice;
use super::text::{field, shortened, span, width};
use super::theme::Theme;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use nucleo_matcher::pattern::{CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config, Matcher, Utf32Str};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    Model,
    Session,
    Rewind,
    Theme,
    /// Which rule is to go.
    Rules,
    /// What becomes of a plan.
    Plan,
    /// What to pull when there is no model yet.
    First,
}

pub struct Picker {
    pub about: About,
    pub title: String,
    choices: Vec<Choice>,
    filter: String,
    /// Into `matches`.
    at: usize,
    matches: Vec<usize>,
}

pub enum Picked {
    Stay,
    Close,
    Chosen(String),
}

/// The best matches first; all, in their order, for an empty pattern.
pub fn fuzzy<'a>(pattern: &str, items: impl Iterator<Item = &'a str>, most: usize) -> Vec<usize> {
    if pattern.is_empty() {
        return (0..items.count()).take(most).collect();
    }
    let pattern = Pattern::parse(pattern, CaseMatching::Smart, Normalization::Smart);
    let mut matcher = Matcher::new(Config::DEFAULT.match_paths());
    let mut buffer = Vec::new();
    let mut scored: Vec<(u32, usize, usize)> = items
        .enumerate()
        .filter_map(|(index, item)| {
            let score = pattern.score(Utf32Str::new(item, &mut buffer), &mut matcher)?;
            Some((score, item.len(), index))
        })
        .collect();
    scored.sort_by_key(|(score, length, index)| (std::cmp::Reverse(*score), *length, *index));
    scored.into_iter().take(most).map(|(_, _, index)| index).collect()
}

impl Picker {
    pub fn new(about: About, title: &str, choices: Vec<Choice>) -> Self {
        let at = choices.iter().position(|choice| choice.preferred).unwrap_or(0);
        let matches = (0..choices.len()).collect();
        Self { about, title: title.into(), choices, filter: String::new(), at, matches }
    }

    pub fn key(&mut self, key: KeyEvent) -> Picked {
        let last = self.matches.len().saturating_sub(1);
        match key.code {
            KeyCode::Esc => return Picked::Close,
            KeyCode::Enter => {
                return match self.matches.get(self.at) {
                    Some(index) => Picked::Chosen(self.choices[*index].value.clone()),
                    None => Picked::Stay,
                };
            }
            KeyCode::Up => self.at = self.at.saturating_sub(1),
            KeyCode::Down => self.at = (self.at + 1).min(last),
            KeyCode::PageUp => self.at = self.at.saturating_sub(10),
            KeyCode::PageDown => self.at = (self.at + 10).min(last),
            KeyCode::Home => self.at = 0,
            KeyCode::End => self.at = last,
            KeyCode::Backspace => {
                self.filter.pop();
                self.search();
            }
            KeyCode::Char(c) if !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => {
                self.filter.push(c);
                self.search();
            }
            _ => {}
        }
        Picked::Stay
    }

    fn search(&mut self) {
        let texts: Vec<String> =
            self.choices.iter().map(|choice| format!("{} {}", choice.label, choice.detail)).collect();
        self.matches = fuzzy(&self.filter, texts.iter().map(String::as_str), usize::MAX);
        self.at = 0;
    }

    pub fn height(&self) -> usize {
        self.choices.len() + 3
    }

    pub fn render(&self, area: Rect, buffer: &mut Buffer, theme: &Theme) {
        let columns = usize::from(area.width);
        let mut y = area.y;
        for text in self.title.split('\n') {
            let head = vec![span(&shortened(text, columns), theme.accent)];
            buffer.set_line(area.x, y, &Line::from(head), area.width);
            y += 1;
        }
        if !self.filter.is_empty() {
            buffer.set_line(area.x, y, &field("  filter: ", &self.filter, columns, theme), area.width);
            y += 1;
        }
        let rows = usize::from(area.bottom().saturating_sub(y + 1));
        let from = (self.at + 1).saturating_sub(rows);
        let widest =
            self.choices.iter().map(|choice| width(&choice.label)).max().unwrap_or(0).min(columns / 2);
        for (place, index) in self.matches.iter().enumerate().skip(from).take(rows) {
            let choice = &self.choices[*index];
            let (mark, style) = if place == self.at { ("▸ ", theme.selected) } else { ("  ", theme.text) };
            let label = shortened(&choice.label, columns.saturating_sub(2));
            let pad = " ".repeat(widest.saturating_sub(width(&label)) + 2);
            let room = columns.saturating_sub(2 + width(&label).max(widest) + 2);
            let line = Line::from(vec![
                Span::styled(mark, theme.accent),
                Span::styled(label, style),
                Span::raw(pad),
                Span::styled(shortened(&choice.detail, room), theme.dim),
            ]);
            buffer.set_line(area.x, y, &line, area.width);
            y += 1;
        }
        if self.matches.is_empty() {
            buffer.set_line(area.x, y, &Line::from(Span::styled("  nothing matches", theme.dim)), area.width);
        }
        let keys = match self.about {
            About::Rules => "Enter removes the rule  ↑/↓ move  type to filter  Esc back",
            _ => "Enter choose  ↑/↓ move  type to filter  Esc back",
        };
        let line = Line::from(Span::styled(shortened(keys, columns), theme.dim));
        buffer.set_line(area.x, area.bottom().saturating_sub(1), &line, area.width);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzzy_finds_paths_and_ranks_them() {
        let files = ["src/tui/app.rs", "src/agent/approval.rs", "README.md", "src/main.rs"];
        let found = |pattern: &str| fuzzy(pattern, files.iter().copied(), 2);
        assert_eq!(found("app"), [0, 1]);
        assert_eq!(found("srcmain"), [3]);
        assert_eq!(found(""), [0, 1]);
        assert!(found("zzz").is_empty());
    }
}
