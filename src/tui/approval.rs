//! The question before a command runs, or before anything else that is no text to look through: what exactly, why it
//! is asked, and the answers. What is shown is what would run, byte for byte; signs that a terminal would not show are
//! marked.

use super::input::{Ask, Effect};
use super::text::{Break, shortened, span, wrap};
use super::theme::Theme;
use crate::agent::protocol::{Access, Decision, Op};
use crate::chat::escape::is_unsafe_for_terminal;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

pub struct Approval {
    pub id: u64,
    name: String,
    why: String,
    /// What would run, or a diff.
    body: String,
    pub command: Option<String>,
    access: Access,
    at: usize,
    top: usize,
    reason: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Once,
    Session,
    Always,
    No,
    NoBecause,
}

pub enum Outcome {
    Stay,
    /// Answered; the command, where it may run again in this session.
    Close {
        effects: Vec<Effect>,
        allow: Option<String>,
    },
}

impl Approval {
    pub fn new(
        id: u64,
        name: String,
        why: String,
        body: String,
        command: Option<String>,
        access: Access,
    ) -> Self {
        Self { id, name, why, body, command, access, at: 0, top: 0, reason: None }
    }

    /// A command may be allowed again as it stands; network is asked for each time.
    fn answers(&self) -> Vec<(char, Answer, &'static str)> {
        let mut answers = vec![('y', Answer::Once, "yes, once")];
        if self.command.is_some() && self.access == Access::Execute {
            answers.push(('s', Answer::Session, "yes, and this very command for the rest of the session"));
            answers.push(('a', Answer::Always, "yes, and this very command always in this directory"));
        }
        answers.push(('n', Answer::No, "no"));
        answers.push(('r', Answer::NoBecause, "no, and tell the model why"));
        answers
    }

    pub fn key(&mut self, key: KeyEvent) -> Outcome {
        if let Some(reason) = &mut self.reason {
            match key.code {
                KeyCode::Enter => {
                    let reason = Some(reason.trim().to_string()).filter(|reason| !reason.is_empty());
                    return self.close(Decision::Deny { reason }, None, Vec::new());
                }
                KeyCode::Esc => self.reason = None,
                KeyCode::Backspace => drop(reason.pop()),
                KeyCode::Char(c) if !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => {
                    reason.push(c);
                }
                _ => {}
            }
            return Outcome::Stay;
        }
        let answers = self.answers();
        match key.code {
            KeyCode::Up => self.at = self.at.saturating_sub(1),
            KeyCode::Down => self.at = (self.at + 1).min(answers.len() - 1),
            KeyCode::PageUp => self.top = self.top.saturating_sub(5),
            KeyCode::PageDown => self.top += 5,
            KeyCode::Enter => return self.choose(answers[self.at].1),
            KeyCode::Esc => return self.choose(Answer::No),
            KeyCode::Char(c) => {
                let by_number = c.to_digit(10).and_then(|n| answers.get((n as usize).checked_sub(1)?));
                if let Some((_, answer, _)) = answers.iter().find(|(key, ..)| *key == c).or(by_number) {
                    return self.choose(*answer);
                }
            }
            _ => {}
        }
        Outcome::Stay
    }

    pub fn paste(&mut self, text: &str) {
        if let Some(reason) = &mut self.reason {
            reason.push_str(&text.replace(['\r', '\n'], " "));
        }
    }

    pub fn scroll(&mut self, by: isize) {
        self.top = self.top.saturating_add_signed(by);
    }

    fn choose(&mut self, answer: Answer) -> Outcome {
        match answer {
            Answer::Once => self.close(Decision::Allow, None, Vec::new()),
            Answer::Session => self.close(Decision::Allow, self.command.clone(), Vec::new()),
            Answer::Always => {
                let ask = self.command.clone().map(|command| Effect::Ask(Ask::Always(command)));
                self.close(Decision::Allow, self.command.clone(), ask.into_iter().collect())
            }
            Answer::No => self.close(Decision::Deny { reason: None }, None, Vec::new()),
            Answer::NoBecause => {
                self.reason = Some(String::new());
                Outcome::Stay
            }
        }
    }

    fn close(&self, decision: Decision, allow: Option<String>, mut effects: Vec<Effect>) -> Outcome {
        effects.insert(0, Effect::Op(Op::Approve { id: self.id, decision }));
        Outcome::Close { effects, allow }
    }

    fn body(&self, columns: usize, theme: &Theme) -> Vec<Line<'static>> {
        let margin = [Span::styled("  ", theme.text)];
        let shown = |text: &str| wrap(&marked(text, theme), columns, Break::Anywhere, &margin, &margin);
        self.body.split('\n').flat_map(shown).collect()
    }

    pub fn height(&self, columns: usize, theme: &Theme) -> usize {
        self.body(columns, theme).len() + self.answers().len() + 3
    }

    pub fn render(&mut self, area: Rect, buffer: &mut Buffer, theme: &Theme) {
        let columns = usize::from(area.width);
        let mut y = area.y;
        let mut put = |line: Line<'static>| {
            if y < area.bottom() {
                buffer.set_line(area.x, y, &line, area.width);
            }
            y += 1;
        };
        put(Line::from(Span::styled("─".repeat(columns), theme.dim)));
        let what = match self.access {
            Access::Execute => "Run this command?",
            Access::Network => "Run this command, with network?",
            _ => "Allow this?",
        };
        let why = shortened(&format!("  {}: {}", self.name, self.why), columns.saturating_sub(what.len()));
        put(Line::from(vec![Span::styled(what, theme.warn), Span::styled(why, theme.dim)]));
        let answers = self.answers();
        let body = self.body(columns, theme);
        let room = usize::from(area.height).saturating_sub(answers.len() + 3).max(1);
        self.top = self.top.min(body.len().saturating_sub(room));
        let below = body.len().saturating_sub(self.top + room);
        body.into_iter().skip(self.top).take(room).for_each(&mut put);
        if below > 0 || self.top > 0 {
            put(Line::from(Span::styled(format!("  … {below} more lines below (PgUp/PgDn)"), theme.warn)));
        } else {
            put(Line::default());
        }
        if let Some(reason) = &self.reason {
            put(Line::from(Span::styled("  Why not? Enter sends, Esc goes back", theme.dim)));
            put(Line::from(vec![
                Span::styled("  > ", theme.accent),
                span(reason, theme.text),
                Span::styled("▏", theme.accent),
            ]));
            return;
        }
        for (index, (key, _, text)) in answers.iter().enumerate() {
            let (mark, style) = if index == self.at { ("▸ ", theme.selected) } else { ("  ", theme.text) };
            let text = shortened(&format!("{key}  {text}"), columns.saturating_sub(2));
            put(Line::from(vec![Span::styled(mark, theme.accent), Span::styled(text, style)]));
        }
    }
}

/// A line with the signs that a terminal must not get, or would not show, standing out.
fn marked(text: &str, theme: &Theme) -> Vec<Span<'static>> {
    let mut spans = Vec::new();
    let mut plain = String::new();
    for sign in text.chars() {
        if is_unsafe_for_terminal(sign) || sign == '\r' {
            if !plain.is_empty() {
                spans.push(span(&std::mem::take(&mut plain), theme.code));
            }
            spans.push(span(&sign.to_string(), theme.selected));
        } else {
            plain.push(sign);
        }
    }
    // What is blank at the end runs as well.
    let end = plain.len() - plain.trim_end().len();
    if end > 0 {
        spans.push(span(plain.trim_end(), theme.code));
        spans.push(Span::styled("·".repeat(end), theme.dim));
    } else if !plain.is_empty() {
        spans.push(span(&plain, theme.code));
    }
    spans
}
