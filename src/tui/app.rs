//! The state of the interface and how it changes: an input comes in, effects go out. No terminal, no clock of its own, no
//! threads. What the agent tells is taken in by `events`, keys by `keys`, slash commands by `slash`; `draw` shows it.

use super::approval::Approval;
use super::block::{Kind, Look};
use super::composer::Composer;
use super::input::{Ask, Choice, Effect, Input, Purpose, Start, Told, Which};
use super::meter::Meter;
use super::picker::{About, Picker};
use super::review::{self, Review};
use super::search::Search;
use super::theme::{Theme, ThemeName};
use super::transcript::Transcript;
use super::vim::Vim;
use crate::agent::protocol::{ApprovalMode, HeldRule, Op, Query};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Whoever pauses for so long has stopped writing.
pub const SETTLE: Duration = Duration::from_millis(400);

/// What fills the screen, or the lower part of it, in place of the composer.
pub enum Overlay {
    Help { top: usize },
    Picker(Picker),
    Review(Review),
    Approval(Approval),
    Search(Search),
}

/// Completions of what is being typed.
pub struct Popup {
    /// Where in the text it begins.
    pub from: usize,
    pub items: Vec<(String, String)>,
    pub at: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was begun.
    Idle,
    Loading,
    /// There is no model; one may be on its way.
    NoModel,
    Pulling(String),
    Ready,
    Running,
    /// A session ends so that another can begin.
    Switching {
        model: Option<String>,
        session: Which,
    },
    /// The session went away, or none could be begun.
    Gone,
}

pub struct Session {
    pub id: String,
    pub model: String,
    pub directory: String,
    pub sandbox: String,
}

pub struct App {
    pub theme: Theme,
    pub expanded: bool,
    pub mouse: bool,
    pub width: usize,
    pub transcript: Transcript,
    pub composer: Composer,
    pub vim: Option<Vim>,
    pub overlay: Option<Overlay>,
    pub popup: Option<Popup>,
    pub phase: Phase,
    pub session: Option<Session>,
    pub mode: ApprovalMode,
    pub meter: Meter,
    pub start: Start,
    /// Requests that wait for the turn that runs.
    pub queue: VecDeque<String>,
    /// The request that the session has and has not begun.
    pub sent: Option<String>,
    pub files: Vec<String>,
    /// What the session was told of the request that is being written.
    pub ahead: String,
    /// The rules that hold, as the session told them last, and the one of them that is to go once it tells them again.
    pub rules: Vec<HeldRule>,
    pub removing: Option<usize>,
    pub interrupting: bool,
    /// When Ctrl+C, or Esc, was last pressed with nothing else to stop.
    pub ctrl_c: Option<Instant>,
    pub escape: Option<Instant>,
    pub last_key: Option<Instant>,
    /// The user was writing when a question came up, and has not paused since.
    pub typing_on: bool,
    /// The mode that was chosen while no session was there to be told.
    pub chosen_mode: Option<ApprovalMode>,
    /// The conversation that is to go on, while its session is not there.
    pub left: Option<String>,
    /// What is opened once the session that is being opened is there.
    pub next: Option<(Option<String>, Which)>,
    /// A command of the user's own runs: what they sent behind it waits.
    pub own_runs: bool,
    /// A word on the status line that goes with the next key.
    pub hint: Option<String>,
    /// Turns that are taken back by `/rewind`, the words of the last one go to the composer.
    pub taking_back: bool,
    /// The plan that is asked about.
    pub plan: String,
    pub effects: Vec<Effect>,
}

impl App {
    pub fn new(theme: ThemeName) -> Self {
        Self {
            theme: Theme::new(theme),
            expanded: false,
            mouse: true,
            width: 80,
            transcript: Transcript::default(),
            composer: Composer::default(),
            vim: None,
            overlay: None,
            popup: None,
            phase: Phase::Idle,
            session: None,
            mode: ApprovalMode::Default,
            meter: Meter::default(),
            start: Start::default(),
            queue: VecDeque::new(),
            sent: None,
            files: Vec::new(),
            ahead: String::new(),
            rules: Vec::new(),
            removing: None,
            interrupting: false,
            ctrl_c: None,
            escape: None,
            last_key: None,
            typing_on: false,
            chosen_mode: None,
            left: None,
            next: None,
            own_runs: false,
            hint: None,
            taking_back: false,
            plan: String::new(),
            effects: Vec::new(),
        }
    }

    pub fn look(&self) -> Look {
        Look { columns: self.width.max(8), expanded: self.expanded, theme: self.theme }
    }

    /// Something moves on the screen by itself.
    pub fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Loading | Phase::Running | Phase::Pulling(_))
            || self.meter.doing.is_some()
    }

    pub fn handle(&mut self, input: Input, now: Instant) -> Vec<Effect> {
        match input {
            Input::Key(key) => self.key(key, now),
            Input::Paste(text) => self.paste(&text),
            Input::Wheel(lines) => self.wheel(lines),
            Input::Agent(event) => self.event(event, now),
            Input::AgentGone => self.gone(),
            Input::Told(told) => self.told(told, now),
            Input::Edited { purpose, text, problem } => self.edited(purpose, text, problem),
            Input::Panicked(message) => {
                self.error(
                    &format!("a part of Qwright failed: {message}"),
                    Some("the session log is sound; --continue takes it up"),
                );
            }
            Input::Resize | Input::Tick => {}
        }
        std::mem::take(&mut self.effects)
    }

    pub fn send(&mut self, op: Op) {
        self.effects.push(Effect::Op(op));
    }

    pub fn note(&mut self, text: &str) {
        self.transcript.push(Kind::Note(text.to_string()));
        self.transcript.scroll_to_end();
    }

    pub fn error(&mut self, message: &str, hint: Option<&str>) {
        let hint = hint.map(str::to_string);
        self.transcript.push(Kind::Error { message: message.to_string(), hint });
    }

    /// Puts a text into the composer; what was offered for the one before goes.
    pub fn compose(&mut self, text: &str) {
        self.popup = None;
        self.composer.set(text);
    }

    /// Sends a request, or keeps it until the turn that runs has ended.
    pub fn submit(&mut self, text: String) {
        match self.phase {
            Phase::NoModel => self.note("It waits for a model: /model lists what this machine can run."),
            Phase::Gone => self.note("It waits for a session: /resume goes on with one, /model begins one."),
            _ => {}
        }
        self.transcript.scroll_to_end();
        self.taking_back = false;
        self.queue.push_back(text);
        self.send_next();
    }

    /// The session reads ahead what is certain of the request that is being written: its whole words.
    pub fn read_ahead(&mut self) {
        let text = self.composer.text();
        let whole = text.rfind(char::is_whitespace).map_or("", |end| &text[..end]);
        if self.phase == Phase::Ready && !text.starts_with(['/', '!', '?']) && whole != self.ahead {
            self.ahead = whole.to_string();
            let text = text.to_string();
            self.send(Op::Typing { text });
        }
    }

    pub fn send_next(&mut self) {
        if self.phase != Phase::Ready || self.sent.is_some() || self.own_runs {
            return;
        }
        let Some(text) = self.queue.pop_front() else { return };
        match text.strip_prefix('!') {
            Some(command) => {
                self.own_runs = true;
                self.send(Op::Shell { command: command.to_string() });
            }
            None => {
                self.sent = Some(text.clone());
                self.send(Op::Submit { text });
            }
        }
    }

    pub fn interrupt(&mut self) {
        if !std::mem::replace(&mut self.interrupting, true) {
            self.send(Op::Interrupt);
        }
        // What waited comes back to be looked at again.
        if !self.queue.is_empty() {
            let waiting: Vec<String> = self.queue.drain(..).collect();
            let text = [waiting.join("\n"), self.composer.text().to_string()].join("\n");
            self.compose(text.trim_end_matches('\n'));
        }
    }

    pub fn set_mode(&mut self, mode: ApprovalMode) {
        self.mode = mode;
        match self.session {
            Some(_) => self.send(Op::SetMode { mode }),
            None => self.chosen_mode = Some(mode),
        }
    }

    /// The conversation that is on the screen, also where its session is gone.
    pub fn at_hand(&self) -> Which {
        let session = self.session.as_ref().map(|session| &session.id).filter(|_| self.has_requests());
        session.or(self.left.as_ref()).map_or(Which::New, |id| Which::Id(id.clone()))
    }

    fn has_requests(&self) -> bool {
        !self.transcript.requests().is_empty()
    }

    /// Goes on with what is at hand, led by another model, in the mode that was chosen.
    pub fn change_model(&mut self, model: String) {
        let session = self.at_hand();
        if session != Which::New {
            // It comes back as the session tells it.
            self.transcript.clear();
        }
        self.chosen_mode = Some(self.mode);
        self.open(Some(model), session);
    }

    /// Ends the session that runs, if one does, and opens another. While one is being opened the other waits for it.
    pub fn open(&mut self, model: Option<String>, session: Which) {
        self.overlay = None;
        self.sent = None;
        self.own_runs = false;
        if self.phase == Phase::Loading {
            self.note("It is opened when the model is loaded.");
            self.next = Some((model, session));
            return;
        }
        if let Which::Id(id) = &session {
            self.left = Some(id.clone());
        }
        if self.session.take().is_some() || matches!(self.phase, Phase::Switching { .. }) {
            let leaving = !matches!(self.phase, Phase::Switching { .. });
            self.phase = Phase::Switching { model, session };
            if leaving {
                self.send(Op::Quit);
            }
        } else {
            self.phase = Phase::Loading;
            self.effects.push(Effect::Ask(Ask::Open { model, session }));
        }
    }

    fn gone(&mut self) {
        self.meter.end_turn();
        self.transcript.stop();
        self.own_runs = false;
        if let Some(session) = self.session.as_ref().filter(|_| self.has_requests()) {
            self.left = Some(session.id.clone());
        }
        match std::mem::replace(&mut self.phase, Phase::Gone) {
            Phase::Switching { model, session } => {
                self.phase = Phase::Loading;
                self.effects.push(Effect::Ask(Ask::Open { model, session }));
            }
            _ => {
                self.session = None;
                self.error("the session has ended", Some("/resume takes it up again"));
            }
        }
    }

    fn told(&mut self, told: Told, now: Instant) {
        match told {
            Told::Start(start) => self.begin(*start),
            Told::Loading { done, total } => {
                self.phase = Phase::Loading;
                self.meter.progress("loading the model", done, total, now);
            }
            Told::Note(text) => self.note(&text),
            Told::Failed { message, hint } => {
                self.meter.end_turn();
                // A download that failed leaves the list to choose from.
                let is_pull = matches!(self.phase, Phase::Pulling(_));
                self.phase = if is_pull { Phase::NoModel } else { Phase::Gone };
                self.error(&message, hint.as_deref());
                if let Some((model, session)) = self.next.take() {
                    self.open(model, session);
                }
            }
            Told::NoModel => {
                self.phase = Phase::NoModel;
                self.meter.doing("measuring what this machine can run", now);
                self.effects.push(Effect::Ask(Ask::Plan));
            }
            Told::Plan { machine, rows } => {
                self.meter.end_turn();
                let title = format!("No model is here yet. This machine can run:\n{machine}");
                self.guard(now);
                self.offer(About::First, &title, rows);
            }
            Told::Pulling { done, total, note } => {
                if let Some(note) = note {
                    self.note(&note);
                }
                self.meter.progress("downloading", done, total.unwrap_or(0), now);
            }
            Told::Pulled { name } => {
                self.meter.end_turn();
                self.note(&format!("{name} is here."));
                self.open(Some(name), Which::New);
            }
            Told::Models(choices) => self.pick(About::Model, "Go on with which model?", choices),
            Told::Sessions(choices) => self.pick(About::Session, "Resume which session?", choices),
            Told::Files(files) => {
                self.files = files;
                if self.overlay.is_none() {
                    self.complete();
                }
            }
            Told::Memory { path, text } => {
                self.effects.push(Effect::Edit { text, name: path, purpose: Purpose::Memory });
            }
            Told::Saved(what) => self.note(&what),
        }
    }

    fn pick(&mut self, about: About, title: &str, choices: Vec<Choice>) {
        if choices.is_empty() {
            if self.phase == Phase::Idle {
                self.open(None, Which::New);
            }
            return self.note("There is nothing to choose from.");
        }
        self.offer(about, title, choices);
    }

    /// A list that took its time covers no question that came up meanwhile.
    fn offer(&mut self, about: About, title: &str, choices: Vec<Choice>) {
        match &self.overlay {
            Some(Overlay::Approval(_)) => {}
            Some(Overlay::Review(review)) if review.id().is_some() => {}
            _ => self.overlay = Some(Overlay::Picker(Picker::new(about, title, choices))),
        }
    }

    /// A question comes up: whoever is writing goes on writing.
    pub fn guard(&mut self, now: Instant) {
        self.typing_on = self.last_key.is_some_and(|key| now.duration_since(key) < SETTLE);
    }

    fn begin(&mut self, start: Start) {
        self.composer = Composer::with_history(start.history.clone());
        if start.vim {
            self.vim = Some(Vim::default());
        }
        let lines = vec![
            format!("Qwright {}", start.version),
            start.directory.clone(),
            "? for help, / for commands, @ for files, ! for a command of yours".to_string(),
        ];
        self.transcript.push(Kind::Welcome(lines));
        if let Some(prompt) = &start.prompt {
            self.queue.push_back(prompt.clone());
        }
        let choose = start.choose;
        self.start = start;
        if choose {
            self.slash("/resume");
        }
    }

    fn edited(&mut self, purpose: Purpose, text: Option<String>, problem: Option<String>) {
        if let Some(problem) = problem {
            self.error(&problem, Some("set EDITOR to an editor that runs in a terminal"));
        }
        let Some(text) = text else { return };
        match purpose {
            Purpose::Composer => self.compose(text.trim_end_matches('\n')),
            Purpose::Memory => self.effects.push(Effect::Ask(Ask::SaveMemory(text))),
            Purpose::Plan => self.plan_edited(&text),
            Purpose::Hunk => {
                if let Some(Overlay::Review(review)) = &mut self.overlay {
                    let outcome = review.edited(text);
                    self.reviewed(outcome);
                }
            }
        }
    }

    pub fn reviewed(&mut self, outcome: review::Outcome) {
        match outcome {
            review::Outcome::Stay(effects) => self.effects.extend(effects),
            review::Outcome::Close(effects) => {
                self.effects.extend(effects);
                self.overlay = None;
            }
        }
    }

    pub fn ask(&mut self, query: Query) {
        if self.session.is_some() {
            self.send(Op::Query { query });
        } else {
            self.note("No session is open yet.");
        }
    }

    fn wheel(&mut self, lines: isize) {
        match &mut self.overlay {
            Some(Overlay::Review(review)) => review.scroll(lines),
            Some(Overlay::Approval(approval)) => approval.scroll(lines),
            Some(Overlay::Help { top }) => *top = top.saturating_add_signed(lines),
            _ => {
                let look = self.look();
                self.transcript.scroll(lines, &look);
            }
        }
    }

    fn paste(&mut self, text: &str) {
        match &mut self.overlay {
            Some(Overlay::Review(review)) => review.paste(text),
            Some(Overlay::Approval(approval)) => approval.paste(text),
            Some(_) => {}
            None => {
                self.composer.insert(text);
                self.complete();
            }
        }
    }

    /// Both within so short a time are one gesture.
    pub fn again(last: Option<Instant>, now: Instant) -> bool {
        last.is_some_and(|last| now.duration_since(last) < Duration::from_millis(1500))
    }
}

#[cfg(test)]
mod tests;
