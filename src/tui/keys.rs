//! What keys do. `KEYS` is what `?` shows; a test goes through it.

use super::app::{App, Overlay, Phase, Popup, SETTLE};
use super::approval;
use super::input::{Ask, Choice, Effect, Purpose, Which};
use super::picker::{About, Picked, Picker, fuzzy};
use super::search::{self, Search};
use super::slash::{self, COMMANDS};
use super::text::shortened;
use super::theme::{Theme, ThemeName};
use super::vim;
use crate::agent::protocol::{ApprovalMode, Op};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::time::Instant;

/// Completions shown at once.
const COMPLETIONS: usize = 8;

/// Key and what it does, for `?`.
pub const KEYS: &[(&str, &str)] = &[
    ("Enter", "send"),
    ("Ctrl+J, Alt+Enter", "new line"),
    ("Esc", "interrupt what runs"),
    ("Esc Esc", "go back to an earlier request"),
    ("Ctrl+C", "interrupt, or clear the line; twice to leave"),
    ("Ctrl+D", "leave, when nothing is written"),
    ("Ctrl+Z", "suspend; fg comes back"),
    ("Shift+Tab", "next approval mode: default, auto-edit, plan"),
    ("Ctrl+O", "open or fold outputs, diffs and thinking"),
    ("Ctrl+R", "search what was sent before"),
    ("Ctrl+G", "write in $EDITOR"),
    ("Ctrl+L", "draw the screen anew"),
    ("Up, Down", "earlier and later requests"),
    ("PgUp, PgDn, wheel", "scroll; Ctrl+Home, Ctrl+End to the ends"),
    ("Alt+M", "the wheel scrolls, or the terminal selects text"),
    ("Tab", "complete a file (@) or a command (/)"),
    ("Alt+B, Alt+F, Ctrl+Left, Ctrl+Right", "a word back, forward"),
    ("Ctrl+A, Ctrl+E", "start, end of the line"),
    ("Ctrl+W, Ctrl+U, Ctrl+K, Ctrl+Y", "cut a word, to the start, to the end; paste"),
    ("Ctrl+_", "take back what was typed"),
    ("? @ ! /", "at the start: help, file, own command, slash command"),
];

/// Keys of the review, for `?`.
pub const REVIEW_KEYS: &[(&str, &str)] = &[
    ("j, k", "next, previous hunk"),
    ("Tab, Shift+Tab", "next, previous file"),
    ("y, n", "accept, reject the hunk"),
    ("Y, N", "accept, reject the file"),
    ("a, r", "accept, reject all that is open"),
    ("e", "edit the hunk in $EDITOR"),
    ("S, A", "accept, and add a rule that is shown first: for this session, always (a command: s, A)"),
    ("u", "undecided again"),
    ("s", "side by side, or unified"),
    ("q", "back; refuses what is open"),
];

impl App {
    pub(super) fn key(&mut self, key: KeyEvent, now: Instant) {
        let typed = self.last_key.replace(now);
        self.hint = None;
        // A gesture of two is one only with nothing between.
        let is_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        self.ctrl_c = self.ctrl_c.filter(|_| is_c);
        self.escape = self.escape.filter(|_| key.code == KeyCode::Esc);
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        if control && key.code == KeyCode::Char('z') {
            return self.effects.push(Effect::Suspend);
        }
        // A question that came up while the user was typing does not take what was meant for the composer.
        self.typing_on &= typed.is_some_and(|typed| now.saturating_duration_since(typed) < SETTLE);
        if self.typing_on && self.overlay.is_some() && !control && !alt {
            match key.code {
                KeyCode::Char(sign) if !self.is_normal() => {
                    return self.composer.insert(sign.encode_utf8(&mut [0; 4]));
                }
                KeyCode::Backspace => {
                    return self.composer.delete(self.composer.before(self.composer.cursor()));
                }
                KeyCode::Char(_) | KeyCode::Enter | KeyCode::Esc => return,
                // Whoever moves in it has seen it.
                _ => self.typing_on = false,
            }
        }
        if control && key.code == KeyCode::Char('c') {
            return self.control_c(now);
        }
        if self.overlay.is_some() {
            return self.overlay_key(key);
        }
        if self.popup.is_some() && self.popup_key(key) {
            return;
        }
        let look = self.look();
        match key.code {
            KeyCode::Char('d') if control => {
                if self.composer.is_empty() {
                    self.effects.push(Effect::Quit);
                } else {
                    self.composer.delete(self.composer.after(self.composer.cursor()));
                }
            }
            KeyCode::Esc => self.escape(now),
            KeyCode::BackTab => {
                // Yolo is named: nobody gets there by one press too many.
                self.set_mode(match self.mode {
                    ApprovalMode::Default => ApprovalMode::AutoEdit,
                    ApprovalMode::AutoEdit => ApprovalMode::Plan,
                    ApprovalMode::Plan | ApprovalMode::Yolo => ApprovalMode::Default,
                });
            }
            KeyCode::Char('o') if control => self.expanded = !self.expanded,
            KeyCode::Char('r') if control => self.overlay = Some(Overlay::Search(Search::default())),
            KeyCode::Char('g') if control => {
                let text = self.composer.text().to_string();
                self.effects.push(Effect::Edit {
                    text,
                    name: "request.md".into(),
                    purpose: Purpose::Composer,
                });
            }
            KeyCode::Char('m') if alt => {
                self.mouse = !self.mouse;
                self.hint =
                    Some(if self.mouse { "the wheel scrolls" } else { "the mouse selects text" }.into());
                self.effects.push(Effect::Mouse(self.mouse));
            }
            KeyCode::PageUp => self.transcript.scroll(-self.transcript.page(), &look),
            KeyCode::PageDown => self.transcript.scroll(self.transcript.page(), &look),
            KeyCode::Home if control => self.transcript.scroll_to_start(),
            KeyCode::End if control => self.transcript.scroll_to_end(),
            KeyCode::Char('?') if self.composer.is_empty() && !self.is_normal() => {
                self.overlay = Some(Overlay::Help { top: 0 });
            }
            _ => self.composer_key(key),
        }
    }

    fn is_normal(&self) -> bool {
        self.vim.as_ref().is_some_and(|vim| vim.mode == vim::Mode::Normal)
    }

    fn control_c(&mut self, now: Instant) {
        if Self::again(self.ctrl_c, now) {
            return self.effects.push(Effect::Quit);
        }
        self.ctrl_c = Some(now);
        self.hint = Some("Ctrl+C again leaves".into());
        match (&self.overlay, &self.phase) {
            (Some(Overlay::Approval(_) | Overlay::Review(_)), Phase::Running) => {
                self.overlay = None;
                self.interrupt();
            }
            (Some(_), _) => self.overlay = None,
            (None, Phase::Running) => self.interrupt(),
            (None, Phase::Pulling(_)) => self.effects.push(Effect::Ask(Ask::CancelPull)),
            (None, _) => {
                self.composer.clear();
                self.popup = None;
                if self.meter.doing.is_some() {
                    self.send(Op::Interrupt);
                }
            }
        }
    }

    fn escape(&mut self, now: Instant) {
        if let Some(vim) = &mut self.vim
            && vim.mode == vim::Mode::Insert
        {
            return vim.escape(&mut self.composer);
        }
        let again = Self::again(self.escape.replace(now), now);
        match self.phase {
            Phase::Running => {
                self.escape = None;
                self.interrupt();
            }
            Phase::Pulling(_) => self.effects.push(Effect::Ask(Ask::CancelPull)),
            // A command of the user's own, or a compaction.
            _ if self.own_runs || self.meter.doing.is_some() || self.meter.progress.is_some() => {
                self.interrupt();
            }
            _ if again && self.composer.is_empty() => {
                self.escape = None;
                self.rewind();
            }
            _ if again => {
                self.popup = None;
                self.composer.clear();
            }
            _ if self.composer.is_empty() => {
                self.hint = Some("Esc again goes back to an earlier request".into())
            }
            _ => self.hint = Some("Esc again clears what is written".into()),
        }
        self.interrupting &= self.phase == Phase::Running;
    }

    /// The requests of this session, the latest at hand.
    pub fn rewind(&mut self) {
        if self.phase == Phase::Running {
            return self.note("A turn runs: Esc interrupts it, then try again.");
        }
        let requests = self.transcript.requests();
        let last = requests.len().saturating_sub(1);
        let choices: Vec<Choice> = requests
            .iter()
            .enumerate()
            .map(|(index, text)| Choice {
                value: index.to_string(),
                label: shortened(text.lines().next().unwrap_or(""), 60),
                detail: String::new(),
                preferred: index == last,
            })
            .collect();
        if choices.is_empty() {
            return self.note("There is no request to go back to.");
        }
        let title = "Go back to before which request? Files and conversation become what they were.";
        self.overlay = Some(Overlay::Picker(Picker::new(About::Rewind, title, choices)));
    }

    fn overlay_key(&mut self, key: KeyEvent) {
        match self.overlay.as_mut() {
            Some(Overlay::Help { top }) => match key.code {
                KeyCode::Down | KeyCode::Char('j') => *top += 1,
                KeyCode::Up | KeyCode::Char('k') => *top = top.saturating_sub(1),
                KeyCode::PageDown | KeyCode::Char(' ') => *top += 10,
                KeyCode::PageUp => *top = top.saturating_sub(10),
                _ => self.overlay = None,
            },
            Some(Overlay::Picker(picker)) => {
                let about = picker.about;
                match picker.key(key) {
                    Picked::Stay => {}
                    Picked::Close => {
                        self.overlay = None;
                        match about {
                            About::First => self.hint = Some("/model shows the list again".into()),
                            // None was chosen at the start.
                            About::Session if self.phase == Phase::Idle => self.open(None, Which::New),
                            _ => {}
                        }
                    }
                    Picked::Chosen(value) => {
                        self.overlay = None;
                        self.picked(about, value);
                    }
                }
            }
            Some(Overlay::Review(review)) => {
                let outcome = review.key(key);
                self.reviewed(outcome);
            }
            Some(Overlay::Approval(approval)) => match approval.key(key) {
                approval::Outcome::Stay => {}
                approval::Outcome::Close(effects) => {
                    self.effects.extend(effects);
                    self.overlay = None;
                }
            },
            Some(Overlay::Search(search)) => match search.key(key, self.composer.history()) {
                search::Outcome::Stay => {}
                search::Outcome::Close => self.overlay = None,
                search::Outcome::Take(text) => {
                    self.overlay = None;
                    self.compose(&text);
                }
            },
            None => {}
        }
    }

    fn picked(&mut self, about: About, value: String) {
        match about {
            About::Model => self.change_model(value),
            About::Session => {
                self.transcript.clear();
                self.meter = Default::default();
                self.open(None, Which::Id(value));
            }
            About::Rewind => {
                let turns = value.parse().unwrap_or(usize::MAX);
                self.taking_back = true;
                self.send(Op::Rewind { turns });
            }
            About::Theme => self.set_theme(&value),
            About::Plan => self.plan_settled(&value),
            About::Rules => self.remove_rule(value.parse().unwrap_or(usize::MAX)),
            About::First => {
                self.phase = Phase::Pulling(value.clone());
                self.effects.push(Effect::Ask(Ask::Pull(value)));
            }
        }
    }

    pub fn set_theme(&mut self, name: &str) {
        match ThemeName::from_name(name) {
            Some(theme) => self.theme = Theme::new(theme),
            None => self.note(&format!("There is no theme `{name}`: dark, light and none are.")),
        }
    }

    /// A key for the list of completions. False where it is the composer's.
    fn popup_key(&mut self, key: KeyEvent) -> bool {
        let Some(popup) = &mut self.popup else { return false };
        match key.code {
            KeyCode::Up => popup.at = popup.at.checked_sub(1).unwrap_or(popup.items.len() - 1),
            KeyCode::Down => popup.at = (popup.at + 1) % popup.items.len(),
            KeyCode::Esc => self.popup = None,
            KeyCode::Tab | KeyCode::Enter if key.modifiers.is_empty() => {
                let (from, item) = (popup.from, popup.items[popup.at].0.clone());
                self.popup = None;
                let whole = self.composer.text().get(from..self.composer.cursor()) == Some(&item);
                // What is already there in full is sent.
                if key.code == KeyCode::Enter && whole {
                    return false;
                }
                let is_command = item.starts_with('/');
                self.composer.replace(from, &format!("{item} "));
                // A command that needs no more is done at once.
                if key.code == KeyCode::Enter && is_command && !slash::takes_words(&item) {
                    return false;
                }
            }
            _ => return false,
        }
        true
    }

    fn composer_key(&mut self, key: KeyEvent) {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        if self.is_normal()
            && let KeyCode::Char(c) = key.code
            && !control
            && !alt
        {
            if let Some(vim) = &mut self.vim
                && !vim.key(c, &mut self.composer)
            {
                match c {
                    'k' => self.composer.earlier(),
                    _ => self.composer.later(),
                }
            }
            return;
        }
        let c = &mut self.composer;
        match key.code {
            KeyCode::Enter if alt || key.modifiers.contains(KeyModifiers::SHIFT) => c.insert("\n"),
            KeyCode::Char('j') if control => c.insert("\n"),
            KeyCode::Enter => return self.enter(),
            KeyCode::Left if control || alt => c.go(c.word_before(c.cursor())),
            KeyCode::Right if control || alt => c.go(c.word_after(c.cursor())),
            KeyCode::Char('b') if alt => c.go(c.word_before(c.cursor())),
            KeyCode::Char('f') if alt => c.go(c.word_after(c.cursor())),
            KeyCode::Char('d') if alt => c.kill(c.word_after(c.cursor())),
            KeyCode::Left => c.go(c.before(c.cursor())),
            KeyCode::Right => c.go(c.after(c.cursor())),
            KeyCode::Char('b') if control => c.go(c.before(c.cursor())),
            KeyCode::Char('f') if control => c.go(c.after(c.cursor())),
            KeyCode::Home => c.go(c.line_start(c.cursor())),
            KeyCode::End => c.go(c.line_end(c.cursor())),
            KeyCode::Char('a') if control => c.go(c.line_start(c.cursor())),
            KeyCode::Char('e') if control => c.go(c.line_end(c.cursor())),
            KeyCode::Char('w') if control => c.kill(c.word_before(c.cursor())),
            KeyCode::Backspace if alt || control => c.kill(c.word_before(c.cursor())),
            KeyCode::Char('h') if control => c.delete(c.before(c.cursor())),
            KeyCode::Char('u') if control => c.kill(c.line_start(c.cursor())),
            KeyCode::Char('k') if control => c.kill(c.line_end(c.cursor())),
            KeyCode::Char('y') if control => c.yank(),
            KeyCode::Char('_' | '7' | '-') if control => c.undo(),
            KeyCode::Backspace => c.delete(c.before(c.cursor())),
            KeyCode::Delete => c.delete(c.after(c.cursor())),
            // What was sent before is complete.
            KeyCode::Up => {
                if !c.up() {
                    self.recall();
                }
                self.popup = None;
                return self.read_ahead();
            }
            KeyCode::Down => {
                if !c.down() {
                    c.later();
                }
                self.popup = None;
                return self.read_ahead();
            }
            KeyCode::Char(sign) if !control && !alt => c.insert(sign.encode_utf8(&mut [0; 4])),
            _ => return,
        }
        self.complete();
    }

    /// What waits comes back first, then what was sent before.
    fn recall(&mut self) {
        match self.queue.pop_back() {
            Some(text) if self.composer.is_empty() => self.compose(&text),
            Some(text) => self.queue.push_back(text),
            None => self.composer.earlier(),
        }
    }

    fn enter(&mut self) {
        self.popup = None;
        let text = self.composer.text().trim().to_string();
        if text.is_empty() {
            return;
        }
        // A backslash at the end is a new line, as in a shell.
        if self.composer.text().ends_with('\\') && self.composer.cursor() == self.composer.text().len() {
            self.composer.delete(self.composer.before(self.composer.cursor()));
            return self.composer.insert("\n");
        }
        self.composer.take();
        self.effects.push(Effect::Ask(Ask::Remember(text.clone())));
        if let Some(vim) = &mut self.vim {
            vim.mode = vim::Mode::Insert;
        }
        if text == "?" {
            self.overlay = Some(Overlay::Help { top: 0 });
        } else if let Some(command) = text.strip_prefix('!') {
            self.own_command(command.trim());
        } else if text.starts_with('/') && slash::is_command(&text, &self.start.commands) {
            self.slash(&text);
        } else {
            self.submit(text);
        }
    }

    fn own_command(&mut self, command: &str) {
        match (command.is_empty(), &self.session) {
            (true, _) => {}
            (_, None) => self.note("No session is open yet."),
            _ => {
                self.transcript.scroll_to_end();
                self.queue.push_back(format!("!{command}"));
                self.send_next();
            }
        }
    }

    /// Offers what the word at the cursor may become.
    pub fn complete(&mut self) {
        self.read_ahead();
        self.popup = None;
        if self.is_normal() {
            return;
        }
        let (from, word) = self.composer.word_at_cursor();
        if let Some(part) = word.strip_prefix('@') {
            if part.is_empty() {
                self.effects.push(Effect::Ask(Ask::Files));
            }
            let found = fuzzy(part, self.files.iter().map(String::as_str), COMPLETIONS);
            let items: Vec<_> =
                found.into_iter().map(|at| (format!("@{}", self.files[at]), String::new())).collect();
            self.popup = (!items.is_empty()).then_some(Popup { from, items, at: 0 });
        } else if from == 0 && word.starts_with('/') && !word[1..].contains('/') {
            let own = self
                .start
                .commands
                .iter()
                .map(|(name, _)| (format!("/{name}"), "a command of yours".to_string()));
            let known =
                COMMANDS.iter().map(|command| (format!("/{}", command.name), command.help.to_string()));
            let all: Vec<(String, String)> = known.chain(own).collect();
            let items: Vec<_> = all.into_iter().filter(|(name, _)| name.starts_with(word)).collect();
            self.popup = (!items.is_empty()).then_some(Popup { from, items, at: 0 });
        }
    }
}
