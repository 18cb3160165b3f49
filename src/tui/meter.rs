//! What runs and how fast, from what the agent tells and when: progress with the time it will still take, tokens per
//! second, how full the context is, what was cached. Figures are counted; the clock comes in.

use crate::agent::protocol::Usage;
use std::time::{Duration, Instant};

/// A rate over less than this says nothing.
const LEAST: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub struct Meter {
    /// What runs now, in words, and since when.
    pub doing: Option<(String, Instant)>,
    pub turn_since: Option<Instant>,
    pub progress: Option<Progress>,
    /// Pieces of the answer that came, and when the first did.
    pieces: usize,
    first_piece: Option<Instant>,
    /// Of the last answer, or of the one that is being written.
    pub tokens_per_second: Option<f64>,
    pub used: usize,
    pub limit: usize,
    pub last: Usage,
    pub total: Usage,
    pub turns: usize,
    pub model_calls: usize,
    pub tool_calls: usize,
}

#[derive(Debug, Clone)]
pub struct Progress {
    pub phase: String,
    pub done: u64,
    pub total: u64,
    first: (u64, Instant),
}

impl Progress {
    /// What is left at the speed so far.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        let done = self.done.checked_sub(self.first.0).filter(|done| *done > 0)?;
        let spent = now.duration_since(self.first.1);
        let left = self.total.saturating_sub(self.done);
        (spent >= LEAST).then(|| spent.mul_f64(left as f64 / done as f64))
    }
}

impl Meter {
    pub fn begin_turn(&mut self, now: Instant) {
        self.turn_since = Some(now);
        self.turns += 1;
        self.doing("thinking", now);
    }

    pub fn end_turn(&mut self) {
        self.turn_since = None;
        self.doing = None;
        self.progress = None;
        self.first_piece = None;
    }

    pub fn doing(&mut self, what: &str, now: Instant) {
        self.progress = None;
        if self.doing.as_ref().is_none_or(|(old, _)| old != what) {
            self.doing = Some((what.to_string(), now));
        }
    }

    pub fn progress(&mut self, phase: &str, done: u64, total: u64, now: Instant) {
        if total == 0 {
            self.doing(phase, now);
            return;
        }
        let first = match &self.progress {
            Some(old) if old.phase == phase && old.total == total && old.done <= done => old.first,
            _ => (done, now),
        };
        self.progress = (done < total).then(|| Progress { phase: phase.to_string(), done, total, first });
    }

    /// A piece of an answer: about a token.
    pub fn piece(&mut self, now: Instant) {
        self.progress = None;
        self.pieces += 1;
        let first = *self.first_piece.get_or_insert_with(|| {
            self.pieces = 0;
            now
        });
        let spent = now.duration_since(first);
        if spent >= LEAST {
            self.tokens_per_second = Some(self.pieces as f64 / spent.as_secs_f64());
        }
    }

    /// An answer is whole.
    pub fn usage(&mut self, used: usize, limit: usize, usage: Usage, now: Instant) {
        (self.used, self.limit, self.last) = (used, limit, usage);
        self.total += usage;
        self.model_calls += 1;
        if let Some(first) = self.first_piece.take() {
            let spent = now.duration_since(first);
            if spent >= LEAST && usage.completion > 1 {
                self.tokens_per_second = Some((usage.completion - 1) as f64 / spent.as_secs_f64());
            }
        }
    }
}

pub fn seconds(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{}:{:02} min", s / 60, s % 60),
        s => format!("{}:{:02} h", s / 3600, s % 3600 / 60),
    }
}

/// `1234` as `1.2k`.
pub fn thousands(n: usize) -> String {
    match n {
        0..1000 => n.to_string(),
        1000..100_000 => format!("{:.1}k", n as f64 / 1000.0),
        _ => format!("{}k", n / 1000),
    }
}

pub fn bytes(n: u64) -> String {
    match n {
        0..1_000_000 => format!("{} kB", n / 1000),
        1_000_000..1_000_000_000 => format!("{} MB", n / 1_000_000),
        _ => format!("{:.1} GB", n as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_time_and_rates() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut meter = Meter::default();
        meter.progress("prefill", 100, 1100, at(0));
        assert_eq!(meter.progress.as_ref().unwrap().remaining(at(0)), None);
        meter.progress("prefill", 600, 1100, at(5));
        assert_eq!(meter.progress.as_ref().unwrap().remaining(at(5)), Some(Duration::from_secs(5)));
        meter.progress("prefill", 1100, 1100, at(10));
        assert!(meter.progress.is_none());
        (0..=20).for_each(|_| meter.piece(at(10)));
        assert_eq!(meter.tokens_per_second, None);
        (0..20).for_each(|_| meter.piece(at(14)));
        assert_eq!(meter.tokens_per_second, Some(10.0));
        let usage = Usage { completion: 51, ..Usage::default() };
        meter.usage(500, 1000, usage, at(15));
        assert_eq!((meter.tokens_per_second, meter.used), (Some(10.0), 500));
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(seconds(Duration::from_secs(75)), "1:15 min");
        assert_eq!(
            (thousands(999), thousands(4321), thousands(131_072)),
            ("999".into(), "4.3k".into(), "131k".into())
        );
        assert_eq!(bytes(1_100_000_000), "1.1 GB");
    }
}
