//! Ctrl+R: what was sent before, found by any part of it; again goes further back.

use super::text::{field, shortened};
use super::theme::Theme;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

#[derive(Debug, Default)]
pub struct Search {
    pattern: String,
    /// Into the history; what was found.
    found: Option<usize>,
}

pub enum Outcome {
    Stay,
    Close,
    Take(String),
}

impl Search {
    pub fn key(&mut self, key: KeyEvent, history: &[String]) -> Outcome {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Esc => return Outcome::Close,
            KeyCode::Char('c' | 'g') if control => return Outcome::Close,
            KeyCode::Char('r') if control => {
                let before = self.found.unwrap_or(history.len());
                if let Some(found) = self.find(history, before) {
                    self.found = Some(found);
                }
            }
            KeyCode::Enter | KeyCode::Tab | KeyCode::Right => {
                return match self.found.and_then(|at| history.get(at)) {
                    Some(text) => Outcome::Take(text.clone()),
                    None => Outcome::Close,
                };
            }
            KeyCode::Backspace => {
                self.pattern.pop();
                self.found = self.find(history, history.len());
            }
            KeyCode::Char(c) if !control => {
                self.pattern.push(c);
                self.found = self.find(history, history.len());
            }
            _ => {}
        }
        Outcome::Stay
    }

    fn find(&self, history: &[String], before: usize) -> Option<usize> {
        let pattern = self.pattern.to_lowercase();
        history[..before].iter().rposition(|text| text.to_lowercase().contains(&pattern))
    }

    pub fn render(&self, area: Rect, buffer: &mut Buffer, theme: &Theme, history: &[String]) {
        let found = self.found.and_then(|at| history.get(at));
        let head = field("history: ", &self.pattern, usize::from(area.width), theme);
        buffer.set_line(area.x, area.y, &head, area.width);
        let columns = usize::from(area.width).saturating_sub(2);
        let (text, style) = match found {
            Some(text) => (shortened(text, columns), theme.text),
            None if self.pattern.is_empty() => {
                ("type a part of it; Ctrl+R goes further back".into(), theme.dim)
            }
            None => ("nothing of the kind".into(), theme.dim),
        };
        let line = Line::from(vec![Span::raw("  "), Span::styled(text, style)]);
        buffer.set_line(area.x, area.y + 1, &line, area.width);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_latest_and_goes_back() {
        let history: Vec<String> =
            ["fix the test", "explain main", "fix the lint"].map(String::from).to_vec();
        let mut search = Search::default();
        for c in "FIX".chars() {
            search.key(KeyEvent::from(KeyCode::Char(c)), &history);
        }
        assert_eq!(search.found, Some(2));
        let again = KeyEvent::new(KeyCode::Char('r'), KeyModifiers::CONTROL);
        search.key(again, &history);
        search.key(again, &history);
        assert!(
            matches!(search.key(KeyEvent::from(KeyCode::Enter), &history), Outcome::Take(text) if text == "fix the test")
        );
    }
}
