//! Review: changes to look through, hunk by hunk. Before they land (an approval) each is accepted, rejected or edited,
//! and what is accepted is what lands; afterwards (`/diff`) the same view is for reading. Unified, or side by side where
//! there is room.

pub mod hunks;
mod rows;

use super::highlight::Highlighted;
use super::input::{Effect, Purpose};
use super::permissions::lasts;
use super::text::{Break, field, shortened, span, wrap};
use super::theme::Theme;
use crate::agent::protocol::{Change, Decision, Op, Rule, RuleScope};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use hunks::{FileReview, Verdict};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use rows::{Painter, Row, rows};

/// Columns from which both sides stand beside each other.
const WIDE: u16 = 110;

pub struct Review {
    pub files: Vec<FileReview>,
    /// The call that waits for an answer; none: the changes are only looked at.
    ask: Option<u64>,
    why: String,
    /// The rule that would answer for the user from now on, and for how long, where that is about to be said.
    suggested: Option<Rule>,
    offered: Option<RuleScope>,
    file: usize,
    hunk: usize,
    /// The first row of the screen, in rows of the file.
    top: usize,
    /// The user's word on the layout; else the width decides.
    side_by_side: Option<bool>,
    /// A reason is being written.
    reason: Option<String>,
    /// Hunks that leaving refused.
    left: Vec<(usize, usize)>,
    /// Both sides of each file in colours, from when it first comes into view.
    code: Vec<Option<(Highlighted, Highlighted)>>,
    /// Set when the hunk changed: the view follows it.
    follow: bool,
    height: usize,
    columns: u16,
}

/// What became of a key.
pub enum Outcome {
    Stay(Vec<Effect>),
    /// The review is over.
    Close(Vec<Effect>),
}

impl Review {
    /// Of a call that waits.
    pub fn ask(id: u64, changes: Vec<Change>, why: String, suggested: Option<Rule>) -> Self {
        Self { ask: Some(id), why, suggested, ..Self::show(changes) }
    }

    /// Of changes that were made.
    pub fn show(changes: Vec<Change>) -> Self {
        let files: Vec<FileReview> = changes.into_iter().map(FileReview::new).collect();
        let code = files.iter().map(|_| None).collect();
        Self {
            files,
            ask: None,
            why: String::new(),
            suggested: None,
            offered: None,
            left: Vec::new(),
            file: 0,
            hunk: 0,
            top: 0,
            side_by_side: None,
            reason: None,
            code,
            follow: true,
            height: 10,
            columns: 0,
        }
    }

    pub fn id(&self) -> Option<u64> {
        self.ask
    }

    fn go(&mut self, file: usize, hunk: usize) {
        if file != self.file {
            self.top = 0;
        }
        (self.file, self.hunk, self.follow) = (file, hunk, true);
    }

    fn next(&mut self) {
        if self.hunk + 1 < self.files[self.file].hunks.len() {
            self.go(self.file, self.hunk + 1);
        } else if self.file + 1 < self.files.len() {
            self.go(self.file + 1, 0);
        }
    }

    fn previous(&mut self) {
        if self.hunk > 0 {
            self.go(self.file, self.hunk - 1);
        } else if self.file > 0 {
            let last = self.files[self.file - 1].hunks.len() - 1;
            self.go(self.file - 1, last);
        }
    }

    /// The next hunk that nobody decided, from here on and then from the start.
    fn next_open(&mut self) -> bool {
        let all: Vec<(usize, usize)> = self
            .files
            .iter()
            .enumerate()
            .flat_map(|(file, review)| (0..review.hunks.len()).map(move |hunk| (file, hunk)))
            .collect();
        let here = all.iter().position(|place| *place == (self.file, self.hunk)).unwrap_or(0);
        let order = all[here..].iter().chain(&all[..here]);
        let open = order.copied().find(|(file, hunk)| self.files[*file].hunks[*hunk].verdict.is_none());
        if let Some((file, hunk)) = open {
            self.go(file, hunk);
        }
        open.is_some()
    }

    fn decide(&mut self, verdict: Verdict) -> Outcome {
        self.files[self.file].hunks[self.hunk].verdict = Some(verdict);
        if self.next_open() { Outcome::Stay(Vec::new()) } else { self.offer_end() }
    }

    fn decide_all(&mut self, files: std::ops::Range<usize>, verdict: &Verdict, over: bool) {
        for hunk in self.files[files].iter_mut().flat_map(|file| &mut file.hunks) {
            if over || hunk.verdict.is_none() {
                hunk.verdict = Some(verdict.clone());
            }
        }
    }

    fn open_places(&self) -> Vec<(usize, usize)> {
        let hunks = |(file, review): (usize, &FileReview)| {
            let open = review.hunks.iter().enumerate().filter(|(_, hunk)| hunk.verdict.is_none());
            open.map(|(hunk, _)| (file, hunk)).collect::<Vec<_>>()
        };
        self.files.iter().enumerate().flat_map(hunks).collect()
    }

    /// All is decided. What was rejected is worth a reason, which the model gets.
    fn offer_end(&mut self) -> Outcome {
        let rejected = self
            .files
            .iter()
            .flat_map(|file| &file.hunks)
            .any(|hunk| hunk.verdict == Some(Verdict::Rejected));
        if rejected {
            self.reason = Some(String::new());
            return Outcome::Stay(Vec::new());
        }
        self.finish(None)
    }

    fn finish(&mut self, reason: Option<String>) -> Outcome {
        let Some(id) = self.ask else { return Outcome::Close(Vec::new()) };
        let reason = reason.filter(|reason| !reason.trim().is_empty());
        let decision = if self.files.iter().all(FileReview::is_whole) {
            Decision::Allow
        } else {
            let changes: Vec<Change> = self.files.iter().filter_map(FileReview::settled).collect();
            match changes.is_empty() {
                true => Decision::Deny { reason },
                false => Decision::Settle { changes, reason },
            }
        };
        let rule = self.offered.zip(self.suggested.clone());
        let rule = rule.map(|(scope, rule)| Effect::Op(Op::AddRule { rule, scope }));
        let answer = Effect::Op(Op::Approve { id, decision });
        Outcome::Close(rule.into_iter().chain([answer]).collect())
    }

    /// The hunk came back from the editor.
    pub fn edited(&mut self, text: String) -> Outcome {
        self.decide(Verdict::Edited(text))
    }

    pub fn paste(&mut self, text: &str) {
        if let Some(reason) = &mut self.reason {
            reason.push_str(&text.replace(['\r', '\n'], " "));
        }
    }

    pub fn key(&mut self, key: KeyEvent) -> Outcome {
        let stay = || Outcome::Stay(Vec::new());
        if let Some(reason) = &mut self.reason {
            match key.code {
                KeyCode::Enter => {
                    let reason = self.reason.take();
                    return self.finish(reason);
                }
                KeyCode::Esc => {
                    self.reason = None;
                    // What leaving refused is open again.
                    for (file, hunk) in std::mem::take(&mut self.left) {
                        self.files[file].hunks[hunk].verdict = None;
                    }
                }
                KeyCode::Backspace => drop(reason.pop()),
                KeyCode::Char(c) if !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => {
                    reason.push(c);
                }
                _ => {}
            }
            return stay();
        }
        if self.files.is_empty() {
            return Outcome::Close(Vec::new());
        }
        if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
            return stay();
        }
        let asks = self.ask.is_some();
        if self.offered.is_some() {
            match key.code {
                KeyCode::Char('y') | KeyCode::Enter => {
                    self.decide_all(0..self.files.len(), &Verdict::Accepted, false);
                    return self.finish(None);
                }
                KeyCode::Char('n' | 'q') | KeyCode::Esc => self.offered = None,
                _ => {}
            }
            return stay();
        }
        let page = self.height.saturating_sub(2).max(1);
        let all = 0..self.files.len();
        match key.code {
            KeyCode::Char('j') | KeyCode::Down => self.next(),
            KeyCode::Char('k') | KeyCode::Up => self.previous(),
            KeyCode::Char('J') | KeyCode::Tab if self.file + 1 < self.files.len() => {
                self.go(self.file + 1, 0)
            }
            KeyCode::Char('K') | KeyCode::BackTab if self.file > 0 => self.go(self.file - 1, 0),
            KeyCode::PageDown | KeyCode::Char(' ') => self.top += page,
            KeyCode::PageUp => self.top = self.top.saturating_sub(page),
            KeyCode::Char('s') => {
                self.side_by_side = Some(!self.is_side_by_side());
                self.follow = true;
            }
            KeyCode::Char('y') if asks => return self.decide(Verdict::Accepted),
            KeyCode::Char('n') if asks => return self.decide(Verdict::Rejected),
            KeyCode::Char('Y') if asks => {
                self.decide_all(self.file..self.file + 1, &Verdict::Accepted, true);
                return if self.next_open() { stay() } else { self.offer_end() };
            }
            KeyCode::Char('N') if asks => {
                self.decide_all(self.file..self.file + 1, &Verdict::Rejected, true);
                return if self.next_open() { stay() } else { self.offer_end() };
            }
            KeyCode::Char('S') if self.suggested.is_some() => self.offered = Some(RuleScope::Session),
            KeyCode::Char('A') if self.suggested.is_some() => self.offered = Some(RuleScope::Always),
            KeyCode::Char('a') if asks => {
                self.decide_all(all, &Verdict::Accepted, false);
                return self.offer_end();
            }
            KeyCode::Char('r') if asks => {
                self.decide_all(all, &Verdict::Rejected, false);
                return self.offer_end();
            }
            KeyCode::Char('u') if asks => self.files[self.file].hunks[self.hunk].verdict = None,
            KeyCode::Char('e') if asks => {
                let text = self.files[self.file].new_text(self.hunk);
                let name = self.files[self.file].change.path.clone();
                return Outcome::Stay(vec![Effect::Edit { text, name, purpose: Purpose::Hunk }]);
            }
            KeyCode::Char('q') | KeyCode::Esc if asks => {
                // Leaving is refusing what is still open, and says why if the user likes.
                self.left = self.open_places();
                self.decide_all(all, &Verdict::Rejected, false);
                return self.offer_end();
            }
            KeyCode::Enter if asks => return if self.next_open() { stay() } else { self.offer_end() },
            KeyCode::Char('q') | KeyCode::Esc | KeyCode::Enter => return Outcome::Close(Vec::new()),
            _ => {}
        }
        stay()
    }

    pub fn scroll(&mut self, by: isize) {
        self.top = self.top.saturating_add_signed(by);
    }

    fn is_side_by_side(&self) -> bool {
        self.side_by_side.unwrap_or(self.columns >= WIDE)
    }

    pub fn render(&mut self, area: Rect, buffer: &mut Buffer, theme: &Theme) {
        if area.height < 4 || self.files.is_empty() {
            return;
        }
        let mut y = area.y;
        let mut put = |y: &mut u16, line: Line<'static>| {
            buffer.set_line(area.x, *y, &line, area.width);
            *y += 1;
        };
        let open: usize =
            self.files.iter().flat_map(|file| &file.hunks).filter(|hunk| hunk.verdict.is_none()).count();
        let what = if self.ask.is_some() { "Review" } else { "Changes" };
        let mut head = vec![Span::styled(format!("{what}  "), theme.accent)];
        if self.files.len() > 1 {
            head.push(Span::styled(format!("file {} of {}  ", self.file + 1, self.files.len()), theme.text));
        }
        if self.ask.is_some() {
            head.push(Span::styled(format!("{open} open  "), theme.warn));
            let room = usize::from(area.width).saturating_sub(30);
            head.push(Span::styled(shortened(&self.why, room), theme.dim));
        }
        put(&mut y, Line::from(head));
        for (index, file) in self.overview(usize::from(area.height) / 4) {
            let mark = if index == self.file { "▸ " } else { "  " };
            let mut spans = vec![Span::styled(mark, theme.accent)];
            spans.extend(rows::title(file, theme));
            let left = file.hunks.iter().filter(|hunk| hunk.verdict.is_none()).count();
            if self.ask.is_some() && left == 0 {
                spans.push(Span::styled("  decided", theme.dim));
            }
            put(&mut y, Line::from(spans));
        }
        let offer = self.offer(usize::from(area.width), theme);
        let footer = match () {
            () if self.reason.is_some() => 2,
            () if !offer.is_empty() => (offer.len() as u16).min(area.height / 2),
            () => 1,
        };
        let body = Rect { y, height: area.bottom().saturating_sub(y + footer), ..area };
        self.render_file(body, buffer, theme);
        let footer = Rect { y: body.bottom(), height: footer, ..area };
        if offer.is_empty() {
            return self.render_footer(footer, buffer, theme);
        }
        for (line, y) in offer.iter().zip(footer.y..footer.bottom()) {
            buffer.set_line(area.x, y, line, area.width);
        }
    }

    /// The question whether a rule is to be made, with all of its text.
    fn offer(&self, columns: usize, theme: &Theme) -> Vec<Line<'static>> {
        let Some((scope, rule)) = self.offered.zip(self.suggested.as_ref()) else { return Vec::new() };
        let ask = format!("Accept what is open, and from now on, {}: {rule}? y yes  Esc no", lasts(scope));
        wrap(&[span(&ask, theme.warn)], columns, Break::Anywhere, &[], &[])
    }

    /// The files around the one in view.
    fn overview(&self, most: usize) -> impl Iterator<Item = (usize, &FileReview)> {
        let most = most.max(1);
        let from = (self.file + 1).saturating_sub(most).min(self.files.len().saturating_sub(most));
        self.files.iter().enumerate().skip(from).take(most)
    }

    fn render_file(&mut self, area: Rect, buffer: &mut Buffer, theme: &Theme) {
        self.height = usize::from(area.height);
        self.columns = area.width;
        let side_by_side = self.is_side_by_side();
        let file = &self.files[self.file];
        let rows = rows(file, side_by_side);
        let (old_code, new_code) = self.code[self.file].get_or_insert_with(|| file.highlighted());
        let painter = Painter {
            file,
            old: file.old_lines(),
            new: file.new_lines(),
            old_code,
            new_code,
            theme,
            columns: usize::from(area.width),
            side_by_side,
            at: self.hunk,
            reads_only: self.ask.is_none(),
        };
        if std::mem::take(&mut self.follow) {
            let start = rows.iter().position(|row| row.hunk() == self.hunk).unwrap_or(0);
            let end = rows.iter().rposition(|row| row.hunk() == self.hunk).unwrap_or(start);
            let fits = end - start < self.height;
            if start < self.top || !fits || end >= self.top + self.height {
                // The whole of it, with what is above as far as there is room.
                let above = if fits { (self.height - (end - start) - 1) / 2 } else { 0 };
                self.top = start.saturating_sub(above);
            }
        }
        self.top = self.top.min(rows.len().saturating_sub(1));
        let mut y = area.y;
        for row in rows.iter().skip(self.top) {
            for line in painter.paint(row) {
                if y >= area.bottom() {
                    return;
                }
                // The ground of a changed line reaches to the edge.
                if !side_by_side && let Row::Line { changed: true, .. } = row {
                    let ground: Style = line.spans.get(2).map(|span| span.style).unwrap_or_default();
                    buffer.set_style(
                        Rect { y, height: 1, x: area.x + 6, width: area.width.saturating_sub(6) },
                        ground,
                    );
                }
                buffer.set_line(area.x, y, &line, area.width);
                y += 1;
            }
        }
    }

    fn render_footer(&self, area: Rect, buffer: &mut Buffer, theme: &Theme) {
        let columns = usize::from(area.width);
        if let Some(reason) = &self.reason {
            let ask =
                "Why not? The model reads it. Enter sends (empty: no reason), Esc goes back to the hunks.";
            buffer.set_line(
                area.x,
                area.y,
                &Line::from(span(&shortened(ask, columns), theme.warn)),
                area.width,
            );
            let line = field("> ", reason, columns, theme);
            buffer.set_line(area.x, area.y + 1, &line, area.width);
            return;
        }
        let rule = self.suggested.is_some();
        let keys = match (self.ask.is_some(), columns) {
            (false, _) => "j/k hunk  Tab file  PgUp/PgDn  s side by side  q back",
            (true, ..80) if rule => "y/n hunk  a all  r none  S/A rule  e edit  j/k  s  q refuse",
            (true, ..80) => "y/n hunk  a all  r none  e edit  j/k  s  q refuse",
            (true, ..110) if rule => {
                "y/n hunk  Y/N file  a all  r rest  S/A rule  e edit  j/k move  s side  q refuse"
            }
            (true, _) if rule => {
                "y/n hunk  Y/N file  a all  r reject the rest  S/A with a rule  e edit  j/k move  s side by side  q refuse"
            }
            (true, _) => {
                "y/n hunk  Y/N file  a all  r reject the rest  e edit  j/k move  s side by side  q refuse"
            }
        };
        buffer.set_line(area.x, area.y, &Line::from(span(&shortened(keys, columns), theme.dim)), area.width);
    }
}
