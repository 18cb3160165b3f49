//! What `qwright exec` is asked to do: the argument, standard input, or both.

use super::exec::{ExecArgs, interrupted};
use super::{Failure, exit};
use crate::agent::protocol::Attachment;
use crate::agent::until_request;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{IsTerminal, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(50);
/// So long a pipe may stay silent before a request that came as an argument goes on without it: one that nobody
/// closes must not hold up a run.
const SILENCE: Duration = Duration::from_secs(3);

pub struct Input {
    pub prompt: String,
    /// What was piped in beside it.
    pub attachment: Option<Attachment>,
}

pub fn read(args: &ExecArgs, cancel: &AtomicBool) -> Result<Input, Failure> {
    let stdin = std::io::stdin();
    let from_stdin = match args.prompt.as_deref() {
        Some(text) => text == "-",
        None => args.until.is_none(),
    };
    if !from_stdin {
        let words = args.prompt.as_deref();
        if words.is_some_and(|words| words.trim().is_empty()) {
            return Err(usage("the request is empty"));
        }
        let piped = if stdin.is_terminal() || args.leave_stdin { None } else { piped(cancel)? };
        return Ok(Input {
            prompt: with_until(args, words),
            attachment: piped.map(|text| Attachment::Input { text }),
        });
    }
    if args.prompt.is_none() && stdin.is_terminal() {
        return Err(usage("there is no request"));
    }
    let text = text(read_all(cancel)?)?;
    if text.trim().is_empty() {
        return Err(usage("the request is empty"));
    }
    Ok(Input { prompt: with_until(args, Some(&text)), attachment: None })
}

fn with_until(args: &ExecArgs, words: Option<&str>) -> String {
    let words = words.map(str::trim_end);
    match &args.until {
        Some(command) => until_request(command, words),
        None => words.unwrap_or_default().to_string(),
    }
}

fn usage(message: &str) -> Failure {
    Failure::new(exit::USAGE, message).hint("qwright exec \"what to do\", or pipe it: ... | qwright exec -")
}

/// A diff shows lines of old files in their own encodings: what of them cannot be read is no reason to read none. Zero
/// bytes beside it, though, are an image, a program or UTF-16.
fn text(bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).or_else(|error| {
        let bytes = error.as_bytes();
        if bytes.contains(&0) {
            return Err(usage("standard input is no text in UTF-8"));
        }
        note("standard input is not all valid UTF-8: \u{fffd} stands for other bytes");
        Ok(String::from_utf8_lossy(bytes).into_owned())
    })
}

fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "qwright: {text}");
}

/// What stands on standard input beside the request; nothing where nothing comes.
fn piped(cancel: &AtomicBool) -> Result<Option<String>, Failure> {
    if !something_comes(cancel)? {
        return Ok(None);
    }
    let text = text(read_all(cancel)?)?;
    Ok(Some(text).filter(|text| !text.trim().is_empty()))
}

/// Waits for the first byte or the end.
fn something_comes(cancel: &AtomicBool) -> Result<bool, Failure> {
    let began = Instant::now();
    let stdin = std::io::stdin();
    while began.elapsed() < SILENCE {
        if cancel.load(Ordering::SeqCst) {
            return Err(interrupted());
        }
        let mut watched = [PollFd::new(&stdin, PollFlags::IN)];
        let tick = Timespec { tv_sec: 0, tv_nsec: TICK.as_nanos() as _ };
        match poll(&mut watched, Some(&tick)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            // A closed or broken standard input has nothing to say.
            Ok(_) => return Ok(!watched[0].revents().contains(PollFlags::NVAL)),
            Err(_) => return Ok(false),
        }
    }
    note(&format!(
        "nothing came on standard input within {} seconds, so the request goes on without it (`... | qwright exec -` waits; \
         `< /dev/null` says that nothing comes)",
        SILENCE.as_secs()
    ));
    Ok(false)
}

/// Reads on a thread of its own, so that Ctrl-C ends the wait.
fn read_all(cancel: &AtomicBool) -> Result<Vec<u8>, Failure> {
    let (done, read) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = done.send(std::io::stdin().read_to_end(&mut bytes).map(|_| bytes));
    });
    loop {
        match read.recv_timeout(TICK) {
            Ok(Ok(bytes)) => return Ok(bytes),
            Ok(Err(error)) => {
                return Err(Failure::new(exit::USAGE, format!("standard input cannot be read: {error}")));
            }
            Err(RecvTimeoutError::Timeout) if !cancel.load(Ordering::SeqCst) => {}
            Err(_) => return Err(interrupted()),
        }
    }
}
