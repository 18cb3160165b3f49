//! Commands that go on while the session does: started, listed, read and stopped by their number. The same sandbox and
//! limits hold them as any command, but for the time limit; none outlives the `Shell` that started it. What they change
//! in the workspace belongs to no turn, so undo does not cover it.

use super::{Core, ShellCommand, ShellError, ShellOutcome};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Commands that run at the same time.
const MOST: usize = 8;
/// Bytes of output that wait to be read; older ones go.
const UNREAD: usize = 64 * 1024;
/// Longer than any session; the limit on processor time stands beside it.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What is known of a command in the background.
#[derive(Debug, Clone, PartialEq)]
pub struct JobStatus {
    pub id: usize,
    pub command: String,
    pub running_for: Duration,
    /// `None` while it runs; a text where its end is unknown.
    pub ended: Option<Result<ShellOutcome, String>>,
}

#[derive(Default)]
pub struct Background(Mutex<Vec<Arc<Job>>>);

struct Job {
    id: usize,
    command: String,
    started: Instant,
    stop: AtomicBool,
    seen: Mutex<Seen>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Seen {
    unread: String,
    /// Bytes that went unread.
    lost: usize,
    ended: Option<(Duration, Result<ShellOutcome, String>)>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one step: what a panic elsewhere left is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    fn push(&mut self, text: &str) {
        self.unread.push_str(text);
        if self.unread.len() > UNREAD {
            let mut cut = self.unread.len() - UNREAD;
            while !self.unread.is_char_boundary(cut) {
                cut += 1;
            }
            self.lost += cut;
            self.unread.drain(..cut);
        }
    }
}

impl Job {
    fn status(&self) -> JobStatus {
        let seen = held(&self.seen);
        JobStatus {
            id: self.id,
            command: self.command.clone(),
            running_for: seen.ended.as_ref().map_or_else(|| self.started.elapsed(), |(after, _)| *after),
            ended: seen.ended.as_ref().map(|(_, outcome)| outcome.clone()),
        }
    }

    /// Stops it and waits until nothing of it is left.
    fn end(&self) {
        self.stop.store(true, Ordering::SeqCst);
        let thread = held(&self.thread).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Background {
    /// Starts a command and returns its number.
    pub fn start(&self, core: &Arc<Core>, root: &Path, command: &ShellCommand) -> Result<usize, ShellError> {
        let tier = core.found.clone().map_err(ShellError::Unavailable)?;
        let mut jobs = held(&self.0);
        if jobs.iter().filter(|job| held(&job.seen).ended.is_none()).count() >= MOST {
            return Err(ShellError::TooMany { most: MOST });
        }
        let job = Arc::new(Job {
            id: jobs.len() + 1,
            command: command.command.clone(),
            started: Instant::now(),
            stop: AtomicBool::new(false),
            seen: Mutex::default(),
            thread: Mutex::default(),
        });
        let command = ShellCommand { timeout: Some(LIFETIME), ..command.clone() };
        let (core, root, own): (_, PathBuf, _) = (core.clone(), root.to_path_buf(), job.clone());
        let run = move || {
            let mut take = |text: &str| held(&own.seen).push(text);
            let outcome = core.run_in(tier, &root, &command, &own.stop, &mut take);
            let outcome = outcome.map_err(|error| format!("{error}; {}", error.hint()));
            held(&own.seen).ended = Some((own.started.elapsed(), outcome));
        };
        let thread = std::thread::Builder::new().name("background".into()).spawn(run);
        *held(&job.thread) = Some(thread.map_err(super::io_error("cannot start a thread"))?);
        jobs.push(job.clone());
        Ok(job.id)
    }

    pub fn list(&self) -> Vec<JobStatus> {
        held(&self.0).iter().map(|job| job.status()).collect()
    }

    /// Its state, and what it wrote since it was last read; the count is of bytes that were not kept until now.
    pub fn read(&self, id: usize) -> Option<(JobStatus, String, usize)> {
        let job = self.find(id)?;
        // The state first: what it wrote before its end is then there.
        let status = job.status();
        let mut seen = held(&job.seen);
        Some((status, std::mem::take(&mut seen.unread), std::mem::take(&mut seen.lost)))
    }

    pub fn stop(&self, id: usize) -> Option<JobStatus> {
        let job = self.find(id)?;
        job.end();
        Some(job.status())
    }

    fn find(&self, id: usize) -> Option<Arc<Job>> {
        held(&self.0).iter().find(|job| job.id == id).cloned()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let jobs = std::mem::take(&mut *held(&self.0));
        // All are told before the first is waited for.
        jobs.iter().for_each(|job| job.stop.store(true, Ordering::SeqCst));
        jobs.iter().for_each(|job| job.end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_is_bounded_and_counted() {
        let mut seen = Seen::default();
        for _ in 0..3 {
            seen.push(&"é".repeat(UNREAD / 4));
        }
        assert_eq!(seen.unread.len(), UNREAD);
        assert_eq!(seen.lost, UNREAD / 2);
        seen.push("x");
        assert!(seen.unread.ends_with("éx") && seen.unread.len() <= UNREAD);
    }
}
