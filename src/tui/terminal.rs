//! The terminal while we have it, and as it was when we have not: raw mode, the alternate screen, bracketed paste, the
//! wheel. Whatever ends the program, or stops it, gives the terminal back: the guard's drop, a panic, a signal.

use super::app::App;
use super::backend::OwnCursor;
use super::draw::draw;
use crossterm::clipboard::CopyToClipboard;
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode,
};
use crossterm::{cursor, execute, queue};
use ratatui::Terminal;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::ThreadId;
use std::time::Instant;

/// Clicks and the wheel, in the form that has no limit on columns; no motion.
const MOUSE_ON: &[u8] = b"\x1b[?1000h\x1b[?1006h";
const MOUSE_OFF: &[u8] = b"\x1b[?1006l\x1b[?1000l";

/// The terminal is ours now.
static OURS: AtomicBool = AtomicBool::new(false);

pub struct Screen {
    terminal: Terminal<OwnCursor>,
    mouse: bool,
}

impl Screen {
    pub fn enter() -> io::Result<Self> {
        let terminal = Terminal::new(OwnCursor::new())?;
        let mut screen = Self { terminal, mouse: true };
        screen.take()?;
        Ok(screen)
    }

    fn take(&mut self) -> io::Result<()> {
        OURS.store(true, Ordering::SeqCst);
        enable_raw_mode()?;
        let mut out = io::stdout();
        execute!(out, EnterAlternateScreen, EnableBracketedPaste)?;
        self.mouse(self.mouse)?;
        self.terminal.clear()
    }

    pub fn mouse(&mut self, on: bool) -> io::Result<()> {
        self.mouse = on;
        let mut out = io::stdout();
        out.write_all(if on { MOUSE_ON } else { MOUSE_OFF })?;
        out.flush()
    }

    /// Gives the terminal back for as long as `away` takes.
    pub fn lend<T>(&mut self, away: impl FnOnce() -> T) -> io::Result<T> {
        restore();
        let result = away();
        self.take()?;
        Ok(result)
    }

    /// Everything anew: something else has written on the screen.
    pub fn clear(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }

    pub fn draw(&mut self, app: &mut App, now: Instant) -> io::Result<()> {
        queue!(self.terminal.backend_mut(), BeginSynchronizedUpdate)?;
        self.terminal.draw(|frame| draw(app, frame, now))?;
        execute!(self.terminal.backend_mut(), EndSynchronizedUpdate)
    }

    /// On the user's command alone; the text is encoded, so nothing in it reaches the terminal as it is.
    pub fn copy(&mut self, text: &str) -> io::Result<()> {
        execute!(io::stdout(), CopyToClipboard::to_clipboard_from(text))
    }

    /// The bell, and a message where terminals show such. `text` is ours.
    pub fn notify(&mut self, text: &str) -> io::Result<()> {
        let mut out = io::stdout();
        write!(out, "\x07\x1b]9;{text}\x1b\\")?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// The terminal as it was. Does nothing where it is not ours; a terminal that is gone cannot be helped.
pub fn restore() {
    if !OURS.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut out = io::stdout();
    let _ = out.write_all(MOUSE_OFF);
    let _ = execute!(out, EndSynchronizedUpdate, DisableBracketedPaste, LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
}

/// A panic of this thread gives the terminal back before it is told; one of another thread is told on the screen.
pub fn tell_panics(to: Sender<String>) {
    let ours: ThreadId = std::thread::current().id();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == ours {
            restore();
            return before(info);
        }
        if OURS.load(Ordering::SeqCst) {
            let _ = to.send(info.to_string());
        } else {
            before(info);
        }
    }));
}
