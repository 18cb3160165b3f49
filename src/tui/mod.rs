//! The terminal interface. `App` is the state, and changes by inputs alone (keys, what the agent tells, what the host
//! tells); `draw` shows it; the loop here joins them to a terminal and to threads. Knows the agent through its protocol,
//! and asks a [`Host`] for what needs more: loading models, listing sessions and files.
//!
//! | file | what it is |
//! |---|---|
//! | `input` | inputs and effects, what is asked of the host and told by it |
//! | `app`, `events`, `keys`, `slash`, `permissions` | the state, and how events, keys and slash commands change it |
//! | `transcript`, `block`, `markdown`, `highlight` | what was said and done, laid out as it comes into view |
//! | `composer`, `vim`, `search`, `picker`, `help` | writing, and choosing |
//! | `review`, `approval` | changes hunk by hunk, commands byte for byte |
//! | `meter` | what runs, how fast, how long still |
//! | `text`, `theme` | the one way of text onto the screen, and its colours |
//! | `draw`, `terminal`, `backend`, `editor` | the screen, the terminal's state, the user's editor |
//!
//! Nothing is drawn but on a change, and at most sixty times a second.

mod app;
mod approval;
mod backend;
mod block;
mod composer;
mod draw;
mod editor;
mod events;
mod help;
mod highlight;
pub mod input;
mod keys;
mod markdown;
mod meter;
mod permissions;
mod picker;
mod plan;
mod review;
mod search;
mod slash;
pub mod terminal;
mod text;
pub mod theme;
mod transcript;
mod vim;

use crate::agent::protocol::{Event, Op};
use app::{App, Phase};
use crossterm::event::{self, Event as TerminalEvent, KeyEventKind, MouseEventKind};
use input::{Ask, Effect, Input, Purpose, Told};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};
use terminal::Screen;
use theme::ThemeName;

/// Between two drawings of what the agent does; and of three drawings, between the first and the last: sixty a second.
const FRAME: Duration = Duration::from_micros(33_300);
/// Between two drawings of something that moves by itself.
const TICK: Duration = Duration::from_millis(100);
/// How long inputs are taken in before they are drawn.
const DRAIN: Duration = Duration::from_millis(8);
/// How often the reader of the terminal looks whether it should let go of it.
const POLL: Duration = Duration::from_millis(100);
/// What a session has to finish is waited for so long.
const LEAVING: Duration = Duration::from_secs(10);
/// Lines of one step of the wheel.
const WHEEL: isize = 3;

/// What the interface cannot do itself. `ask` returns at once; the answers come through the outbox.
pub trait Host {
    /// The interface is there.
    fn begin(&mut self, outbox: &Outbox);
    fn ask(&mut self, ask: Ask, outbox: &Outbox);
}

/// The host's way to the interface.
#[derive(Clone)]
pub struct Outbox(Sender<Incoming>);

impl Outbox {
    pub fn tell(&self, told: Told) {
        let _ = self.0.send(Incoming::Input(Input::Told(told)));
    }

    /// A session has begun.
    pub fn session(&self, ops: Sender<Op>, events: Receiver<Event>) {
        let _ = self.0.send(Incoming::Session(ops, events));
    }
}

enum Incoming {
    Input(Input),
    Session(Sender<Op>, Receiver<Event>),
    /// The number tells sessions apart.
    Agent(u64, Event),
    AgentGone(u64),
    Suspend,
    /// The program was stopped and goes on.
    Continued,
    /// The user did something.
    Woken,
    /// A polite kill, or the terminal is gone.
    End,
}

/// How it ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// The session that can be continued.
    pub session: Option<String>,
    /// A signal ended it.
    pub killed: bool,
}

struct Reader {
    paused: Arc<AtomicBool>,
    /// The reader has let go of the terminal.
    idle: Arc<AtomicBool>,
}

/// Runs the interface until the user leaves.
pub fn run(host: &mut dyn Host, theme: ThemeName) -> io::Result<Ended> {
    let (sender, inputs) = channel();
    // What the user does waits behind nothing that the agent does.
    let (presses, pressed) = channel();
    let outbox = Outbox(sender.clone());
    let (panics, panicked) = channel();
    terminal::tell_panics(panics);
    let mut screen = Screen::enter()?;
    signals(&sender)?;
    let reader = read_terminal(sender.clone(), presses);
    let mut ui = Interface {
        app: App::new(theme),
        host,
        outbox,
        sender,
        reader,
        ops: None,
        number: 0,
        leaving: false,
        ended: Ended::default(),
    };
    ui.host.begin(&ui.outbox);
    let mut pace = Pace::default();
    while !ui.leaving {
        let wait = match pace.wait(Instant::now()) {
            Some(wait) => wait,
            None if ui.app.is_alive() => TICK,
            None => Duration::from_secs(3600),
        };
        match inputs.recv_timeout(wait) {
            Ok(incoming) => {
                let until = Instant::now() + DRAIN;
                let mut next = Some(incoming);
                while let Some(incoming) = next {
                    while !ui.leaving
                        && let Ok(input) = pressed.try_recv()
                    {
                        ui.input(input, &mut screen)?;
                        pace.change(true, true);
                    }
                    pace.change(false, ui.take_in(incoming, &mut screen)?);
                    let goes_on = !ui.leaving && Instant::now() < until;
                    next = if goes_on { inputs.try_recv().ok() } else { None };
                }
            }
            Err(RecvTimeoutError::Timeout) => pace.change(false, ui.app.is_alive()),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        while let Ok(message) = panicked.try_recv() {
            ui.input(Input::Panicked(message), &mut screen)?;
        }
        let now = Instant::now();
        if !ui.leaving && pace.wait(now) == Some(Duration::ZERO) {
            // A terminal that takes nothing any more is gone; the session is not.
            if screen.draw(&mut ui.app, now).is_err() {
                ui.leave_killed();
            }
            pace.drew(now);
        }
    }
    drop(screen);
    let Interface { app, ops, number, mut ended, .. } = ui;
    ended.session = app.session.filter(|_| !app.transcript.requests().is_empty()).map(|session| session.id);
    // What the session leaves for the next one is on disk before this process ends.
    if ops.is_some() {
        drop(ops);
        let end = Instant::now() + LEAVING;
        while let Ok(incoming) = inputs.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if matches!(incoming, Incoming::AgentGone(gone) if gone == number) {
                break;
            }
        }
    }
    Ok(ended)
}

/// When to draw next. What the user does is drawn at once, also right behind a drawing of what the agent did.
#[derive(Default)]
struct Pace {
    /// The last two drawings, the latest first.
    drawn: [Option<Instant>; 2],
    /// The screen may have to change; for something that the user did.
    dirty: bool,
    urgent: bool,
}

impl Pace {
    fn change(&mut self, users: bool, changes: bool) {
        self.dirty |= changes;
        self.urgent |= users && changes;
    }

    /// How long a drawing has to wait; `None`: there is nothing to draw.
    fn wait(&self, now: Instant) -> Option<Duration> {
        let [last, before] = self.drawn;
        let since = |drawn: Option<Instant>| drawn.map_or(FRAME, |drawn| now.duration_since(drawn));
        match (last, self.dirty) {
            (None, _) => Some(Duration::ZERO),
            (_, false) => None,
            (_, true) => Some(FRAME.saturating_sub(since(if self.urgent { before } else { last }))),
        }
    }

    fn drew(&mut self, now: Instant) {
        self.drawn = [Some(now), self.drawn[0]];
        (self.dirty, self.urgent) = (false, false);
    }
}

struct Interface<'h> {
    app: App,
    host: &'h mut dyn Host,
    outbox: Outbox,
    sender: Sender<Incoming>,
    reader: Reader,
    ops: Option<Sender<Op>>,
    number: u64,
    leaving: bool,
    ended: Ended,
}

impl Interface<'_> {
    /// True where the screen may have to change.
    fn take_in(&mut self, incoming: Incoming, screen: &mut Screen) -> io::Result<bool> {
        match incoming {
            Incoming::Input(input) => return self.input(input, screen).map(|()| true),
            Incoming::Session(ops, events) => {
                self.number += 1;
                self.ops = Some(ops);
                let (number, to) = (self.number, self.sender.clone());
                thread::spawn(move || {
                    for event in events {
                        if to.send(Incoming::Agent(number, event)).is_err() {
                            return;
                        }
                    }
                    let _ = to.send(Incoming::AgentGone(number));
                });
            }
            Incoming::Agent(number, event) if number == self.number => {
                self.input(Input::Agent(event), screen)?
            }
            Incoming::AgentGone(number) if number == self.number => {
                self.ops = None;
                self.input(Input::AgentGone, screen)?;
            }
            // Of a session that was left.
            Incoming::Agent(..) | Incoming::AgentGone(_) => return Ok(false),
            Incoming::Suspend => self.suspend(screen)?,
            Incoming::Continued => screen.clear()?,
            Incoming::End => self.leave_killed(),
            Incoming::Woken => return Ok(false),
        }
        Ok(true)
    }

    fn leave_killed(&mut self) {
        self.ended.killed = true;
        self.leaving = true;
    }

    fn input(&mut self, input: Input, screen: &mut Screen) -> io::Result<()> {
        if let Input::Key(key) = &input
            && key.code == event::KeyCode::Char('l')
            && key.modifiers.contains(event::KeyModifiers::CONTROL)
        {
            return screen.clear();
        }
        let mut effects = self.app.handle(input, Instant::now());
        while !effects.is_empty() {
            let mut more = Vec::new();
            for effect in effects {
                more.extend(self.carry_out(effect, screen)?);
            }
            effects = more;
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect, screen: &mut Screen) -> io::Result<Vec<Effect>> {
        match effect {
            Effect::Op(op) => {
                // A session that went away says so by its events' end.
                if let Some(ops) = &self.ops {
                    let _ = ops.send(op);
                }
            }
            Effect::Ask(ask) => self.host.ask(ask, &self.outbox),
            Effect::Edit { text, name, purpose } => {
                self.reader.pause();
                let edited = screen.lend(|| editor::edit(&text, &name))?;
                self.reader.go_on();
                let (text, problem) = match edited {
                    // A plan that is as it was is carried out as it is.
                    Ok(after) => {
                        (Some(after).filter(|after| *after != text || purpose == Purpose::Plan), None)
                    }
                    Err(problem) => (None, Some(problem)),
                };
                return Ok(self.app.handle(Input::Edited { purpose, text, problem }, Instant::now()));
            }
            Effect::Copy(text) => screen.copy(&text)?,
            Effect::Notify(text) => screen.notify(&text)?,
            Effect::Mouse(on) => screen.mouse(on)?,
            Effect::Suspend => self.suspend(screen)?,
            Effect::Quit => {
                if self.app.phase == Phase::Running
                    && let Some(ops) = &self.ops
                {
                    let _ = ops.send(Op::Interrupt);
                }
                self.leaving = true;
            }
        }
        Ok(Vec::new())
    }

    /// Stops as a shell expects it, the terminal being as it was.
    fn suspend(&mut self, screen: &mut Screen) -> io::Result<()> {
        if !has_shell() {
            self.app.note("there is no shell here to go back to, so this goes on (Ctrl+D leaves)");
            return Ok(());
        }
        self.reader.pause();
        screen.lend(stop)?;
        self.reader.go_on();
        Ok(())
    }
}

/// Stops the job, a script that this was started by among it, until somebody has it go on.
fn stop() {
    if has_shell() {
        let _ = rustix::process::kill_current_process_group(rustix::process::Signal::STOP);
    }
}

/// Whether a shell watches this job, which is told that it stopped: nobody else would have it go on (POSIX: the process
/// group is not orphaned).
fn has_shell() -> bool {
    use rustix::process::{Pid, getpgid, getpgrp, getppid, getsid};
    let group = getpgrp();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", group.as_raw_pid()));
    // PID (NAME) STATE PARENT ...; a name may hold anything.
    let parent = |stat: &str| stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok();
    let leaders = stat.ok().and_then(|stat| Pid::from_raw(parent(&stat)?));
    leaders.or_else(getppid).is_some_and(|parent| {
        getsid(Some(parent)).ok() == getsid(None).ok() && getpgid(Some(parent)).is_ok_and(|of| of != group)
    })
}

impl Reader {
    /// Waits until the reader has let go of the terminal.
    fn pause(&self) {
        self.idle.store(false, Ordering::SeqCst);
        self.paused.store(true, Ordering::SeqCst);
        let until = Instant::now() + POLL * 5;
        while !self.idle.load(Ordering::SeqCst) && Instant::now() < until {
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn go_on(&self) {
        self.paused.store(false, Ordering::SeqCst);
    }
}

fn read_terminal(to: Sender<Incoming>, presses: Sender<Input>) -> Reader {
    let paused = Arc::new(AtomicBool::new(false));
    let idle = Arc::new(AtomicBool::new(false));
    let reader = Reader { paused: paused.clone(), idle: idle.clone() };
    thread::spawn(move || {
        loop {
            if paused.load(Ordering::SeqCst) {
                idle.store(true, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(10));
                continue;
            }
            let read = match event::poll(POLL) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let input = match read {
                Ok(TerminalEvent::Key(key)) if key.kind != KeyEventKind::Release => Input::Key(key),
                Ok(TerminalEvent::Paste(text)) => Input::Paste(text),
                Ok(TerminalEvent::Resize(..)) => Input::Resize,
                Ok(TerminalEvent::Mouse(mouse)) => match mouse.kind {
                    MouseEventKind::ScrollUp => Input::Wheel(-WHEEL),
                    MouseEventKind::ScrollDown => Input::Wheel(WHEEL),
                    _ => continue,
                },
                Ok(_) => continue,
                Err(_) => {
                    let _ = to.send(Incoming::End);
                    return;
                }
            };
            if presses.send(input).is_err() || to.send(Incoming::Woken).is_err() {
                return;
            }
        }
    });
    reader
}

/// Signals become inputs: the terminal is given back by the loop, and the session's log is whole.
fn signals(to: &Sender<Incoming>) -> io::Result<()> {
    use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP};
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGHUP, SIGINT, SIGTSTP, SIGCONT])?;
    let to = to.clone();
    thread::spawn(move || {
        for signal in signals.forever() {
            // The editor has the terminal, and what is pressed there is meant for it.
            if editor::RUNS.load(Ordering::SeqCst) {
                match signal {
                    SIGTSTP => stop(),
                    SIGHUP | SIGTERM => drop(to.send(Incoming::End)),
                    _ => {}
                }
                continue;
            }
            let incoming = match signal {
                SIGTSTP => Incoming::Suspend,
                SIGCONT => Incoming::Continued,
                _ => Incoming::End,
            };
            if to.send(incoming).is_err() {
                return;
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drawings within `ms` milliseconds, in each of which the agent does something, and every `key` the user.
    fn drawings(ms: u64, key: u64) -> (usize, Duration) {
        let begun = Instant::now();
        let (mut pace, mut drawn, mut most) = (Pace::default(), 0, Duration::ZERO);
        let mut pressed: Option<Instant> = None;
        for at in 0..ms {
            let now = begun + Duration::from_millis(at);
            let is_key = at % key == key - 1;
            if is_key {
                pressed.get_or_insert(now);
            }
            pace.change(is_key, true);
            if pace.wait(now) == Some(Duration::ZERO) {
                pace.drew(now);
                drawn += 1;
                most = most.max(pressed.take().map_or(Duration::ZERO, |pressed| now.duration_since(pressed)));
            }
        }
        (drawn, most)
    }

    #[test]
    fn keys_are_drawn_at_once_and_at_most_sixty_times_a_second() {
        // A fast typist while an answer streams.
        let (drawn, most) = drawings(10_000, 71);
        assert!(drawn <= 601 && most == Duration::ZERO, "{drawn} {most:?}");
        // A key held down, and a paste key by key.
        for key in [30, 1] {
            let (drawn, most) = drawings(10_000, key);
            assert!(drawn <= 601 && most <= FRAME, "{drawn} {most:?}");
        }
    }

    #[test]
    fn nothing_is_drawn_where_nothing_changes() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.wait(now), Some(Duration::ZERO), "the first screen");
        pace.drew(now);
        pace.change(true, false);
        assert_eq!(pace.wait(now), None);
        pace.change(false, true);
        assert_eq!(pace.wait(now), Some(FRAME));
    }
}
