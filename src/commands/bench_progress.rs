//! What `qwright bench` is doing, on stderr, once it takes more than a second: a bar on a terminal, elsewhere a plain
//! line now and then. Knows nothing of the tests; what it is told of every token must cost nothing to speak of.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

/// Nothing is said of what is done sooner.
const WORTH_SAYING: Duration = Duration::from_secs(1);
/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Nothing,
    Bar,
    Lines,
}

impl Style {
    /// Where it is a program that reads the result, no one reads the progress.
    pub fn of(quiet: bool, json: bool, stdout_is_terminal: bool, stderr_is_terminal: bool) -> Self {
        match (quiet || (json && !stdout_is_terminal), stderr_is_terminal) {
            (true, _) => Self::Nothing,
            (false, true) => Self::Bar,
            (false, false) => Self::Lines,
        }
    }
}

#[derive(Debug)]
pub struct Progress {
    style: Style,
    bar: Option<ProgressBar>,
    what: String,
    total: usize,
    began: Instant,
    last_line: Option<Instant>,
}

impl Progress {
    pub fn new(style: Style) -> Self {
        let began = Instant::now();
        Self { style, bar: None, what: String::new(), total: 0, began, last_line: None }
    }

    #[cfg(test)]
    pub fn none() -> Self {
        Self::new(Style::Nothing)
    }

    /// Something of `total` steps begins; what was before is over.
    pub fn begin(&mut self, what: impl Into<String>, total: usize) {
        (self.what, self.total, self.began) = (what.into(), total, Instant::now());
        if let Some(bar) = &self.bar {
            self.set(bar, 0);
        }
    }

    /// So many steps are done.
    pub fn at(&mut self, done: usize) {
        if self.style == Style::Nothing || self.began.elapsed() < WORTH_SAYING {
            return;
        }
        self.say(done);
    }

    /// Something that cannot count its steps begins, and takes more than a second.
    pub fn announce(&mut self, what: impl Into<String>) {
        self.begin(what, 0);
        if self.style != Style::Nothing {
            self.say(0);
        }
    }

    fn say(&mut self, done: usize) {
        if self.style == Style::Bar {
            let bar = self.bar.take().unwrap_or_else(bar);
            self.set(&bar, done);
            self.bar = Some(bar);
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            eprintln!("{}", line(&self.what, done, self.total));
        }
    }

    fn set(&self, bar: &ProgressBar, done: usize) {
        bar.set_message(line(&self.what, done, self.total));
        bar.set_length(self.total as u64);
        bar.set_position(done as u64);
    }

    /// Nothing stays on the screen.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

/// Drawn four times a second: the tests have the cores.
fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(4));
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}") {
        bar.set_style(style);
    }
    bar
}

fn line(what: &str, done: usize, total: usize) -> String {
    match total {
        0 => what.to_string(),
        _ => format!("{what}: {done} of {total} tokens"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_not_told() {
        let (yes, no) = (true, false);
        assert_eq!(Style::of(no, no, yes, yes), Style::Bar);
        assert_eq!(Style::of(no, no, no, no), Style::Lines);
        assert_eq!(Style::of(no, yes, yes, yes), Style::Bar);
        assert_eq!(Style::of(no, yes, no, yes), Style::Nothing);
        assert_eq!(Style::of(yes, no, yes, yes), Style::Nothing);
    }

    #[test]
    fn a_line_counts_where_there_is_something_to_count() {
        assert_eq!(
            line("tg64@d32768: filling its context", 128, 32768),
            "tg64@d32768: filling its context: 128 of 32768 tokens"
        );
        assert_eq!(line("measuring bandwidth", 0, 0), "measuring bandwidth");
    }
}
