//! The question before a command runs, or before anything else that is no text to look through: what exactly, why it
//! is asked, and the answers. What is shown is what would run, byte for byte; signs that a terminal would not show are
//! marked.

use super::input::Effect;
use super::text::{Break, field, shortened, span, wrap};
use super::theme::Theme;
use crate::agent::protocol::{Access, Decision, Op, Rule, RuleScope};
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
    access: Access,
    /// The rule that would answer for the user from now on.
    suggested: Option<Rule>,
    at: usize,
    top: usize,
    reason: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Once,
    Rule(RuleScope),
    No,
    NoBecause,
}

pub enum Outcome {
    Stay,
    /// Answered.
    Close(Vec<Effect>),
}

impl Approval {
    pub fn new(
        id: u64,
        name: String,
        why: String,
        body: String,
        access: Access,
        suggested: Option<Rule>,
    ) -> Self {
        Self { id, name, why, body, access, suggested, at: 0, top: 0, reason: None }
    }

    /// A rule is shown as it will be kept.
    fn answers(&self) -> Vec<(char, Answer, String)> {
        let mut answers = vec![('y', Answer::Once, "yes, once".to_string())];
        if let Some(rule) = &self.suggested {
            let text = rule.text();
            let session = format!("yes, and for the rest of the session: {text}");
            let always = format!("yes, and always in this directory: {text}");
            answers.push(('s', Answer::Rule(RuleScope::Session), session));
            answers.push(('A', Answer::Rule(RuleScope::Always), always));
        }
        answers.push(('n', Answer::No, "no".into()));
        answers.push(('r', Answer::NoBecause, "no, and tell the model why".into()));
        answers
    }

    /// The answers as they are shown, none of them cut.
    fn answer_lines(&self, columns: usize, theme: &Theme) -> Vec<Line<'static>> {
        let line = |(index, (key, _, text)): (usize, (char, Answer, String))| {
            let (mark, style) = if index == self.at { ("▸ ", theme.selected) } else { ("  ", theme.text) };
            let first = [Span::styled(mark, theme.accent)];
            let rest = [Span::styled("     ", theme.text)];
            wrap(&[span(&format!("{key}  {text}"), style)], columns, Break::Anywhere, &first, &rest)
        };
        self.answers().into_iter().enumerate().flat_map(line).collect()
    }

    pub fn key(&mut self, key: KeyEvent) -> Outcome {
        if let Some(reason) = &mut self.reason {
            match key.code {
                KeyCode::Enter => {
                    let reason = Some(reason.trim().to_string()).filter(|reason| !reason.is_empty());
                    return self.close(Decision::Deny { reason }, None);
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
            // `a` is no `A`: that one holds for good.
            KeyCode::Char(c) if !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => {
                let by_number = c.to_digit(10).and_then(|n| answers.get((n as usize).checked_sub(1)?));
                let by_key = answers.iter().find(|(key, ..)| *key == c);
                if let Some((_, answer, _)) = by_key.or(by_number) {
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
            Answer::Once => self.close(Decision::Allow, None),
            Answer::Rule(scope) => self.close(Decision::Allow, Some(scope)),
            Answer::No => self.close(Decision::Deny { reason: None }, None),
            Answer::NoBecause => {
                self.reason = Some(String::new());
                Outcome::Stay
            }
        }
    }

    /// The rule comes before the answer: it holds for the next call already.
    fn close(&self, decision: Decision, rule: Option<RuleScope>) -> Outcome {
        let rule =
            rule.zip(self.suggested.clone()).map(|(scope, rule)| Effect::Op(Op::AddRule { rule, scope }));
        let answer = Effect::Op(Op::Approve { id: self.id, decision });
        Outcome::Close(rule.into_iter().chain([answer]).collect())
    }

    fn body(&self, columns: usize, theme: &Theme) -> Vec<Line<'static>> {
        let margin = [Span::styled("  ", theme.text)];
        let shown = |text: &str| wrap(&marked(text, theme), columns, Break::Anywhere, &margin, &margin);
        self.body.split('\n').flat_map(shown).collect()
    }

    pub fn height(&self, columns: usize, theme: &Theme) -> usize {
        self.body(columns, theme).len() + self.answer_lines(columns, theme).len() + 3
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
        let answers = self.answer_lines(columns, theme);
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
            put(field("  > ", reason, columns, theme));
            return;
        }
        answers.into_iter().for_each(&mut put);
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
