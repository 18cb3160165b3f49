//! A command's output: passed on as text while it comes, head and tail kept in memory, the whole of it on disk once
//! memory does not hold it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Kept in memory unless told otherwise: half head, half tail.
const KEEP_BYTES: usize = 64 * 1024;
/// The log on disk ends here, and so does what is passed on: a command that floods must not fill the disk.
const LOG_BYTES: u64 = 64 * 1024 * 1024;

pub struct Capture {
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
    path: PathBuf,
    log: Option<File>,
    log_failed: bool,
    /// The start of a character whose rest has not come yet.
    partial: Vec<u8>,
}

impl Capture {
    pub fn new(keep_bytes: usize, path: PathBuf) -> Self {
        let keep = if keep_bytes == 0 { KEEP_BYTES } else { keep_bytes };
        Self {
            half: (keep / 2).max(1),
            head: Vec::new(),
            tail: VecDeque::new(),
            total: 0,
            path,
            log: None,
            log_failed: false,
            partial: Vec::new(),
        }
    }

    pub fn push(&mut self, bytes: &[u8], on_output: &mut dyn FnMut(&str)) {
        self.keep(bytes);
        if self.total <= LOG_BYTES {
            self.partial.extend_from_slice(bytes);
            let text = take_text(&mut self.partial);
            if !text.is_empty() {
                on_output(&text);
            }
        }
    }

    /// Passes on what waited for the rest of a character.
    pub fn flush(&mut self, on_output: &mut dyn FnMut(&str)) {
        if !self.partial.is_empty() {
            on_output(&String::from_utf8_lossy(&std::mem::take(&mut self.partial)));
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.total + bytes.len() as u64 > 2 * self.half as u64 {
            self.write_log(bytes);
        }
        self.total += bytes.len() as u64;
        let to_head = bytes.len().min(self.half - self.head.len());
        self.head.extend_from_slice(&bytes[..to_head]);
        self.tail.extend(&bytes[to_head..]);
        let excess = self.tail.len().saturating_sub(self.half);
        self.tail.drain(..excess);
    }

    /// Called before `bytes` are counted. The first call also writes what memory held until now, which is all.
    fn write_log(&mut self, bytes: &[u8]) {
        if self.log_failed {
            return;
        }
        let room = LOG_BYTES.saturating_sub(self.total).min(bytes.len() as u64) as usize;
        let result = match &mut self.log {
            Some(log) => log.write_all(&bytes[..room]),
            None => std::fs::OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&self.path)
                .and_then(|mut log| {
                    log.write_all(&self.head)?;
                    let (first, second) = self.tail.as_slices();
                    log.write_all(first)?;
                    log.write_all(second)?;
                    log.write_all(&bytes[..room])?;
                    self.log = Some(log);
                    Ok(())
                }),
        };
        self.log_failed = result.is_err();
    }

    /// The text to show, and the log where that is not all of it.
    pub fn finish(self) -> (String, Option<PathBuf>) {
        let tail: Vec<u8> = self.tail.into();
        if self.total <= 2 * self.half as u64 {
            let all = [self.head, tail].concat();
            return (String::from_utf8_lossy(&all).into_owned(), None);
        }
        let head = until_last_line(&self.head);
        let tail = from_first_line(&tail);
        let left_out = self.total - (head.len() + tail.len()) as u64;
        let (place, log) = if self.log_failed {
            ("the log could not be written".to_string(), None)
        } else if self.total > LOG_BYTES {
            (format!("the first {LOG_BYTES} bytes are in {}", self.path.display()), Some(self.path))
        } else {
            (format!("all of it is in {}", self.path.display()), Some(self.path))
        };
        let text = format!(
            "{}\n[... {left_out} of {} bytes left out here; {place} ...]\n{}",
            String::from_utf8_lossy(head).trim_end_matches('\n'),
            self.total,
            String::from_utf8_lossy(tail)
        );
        (text, log)
    }
}

/// Cuts at a line end where there is one in the last quarter, else at a character.
fn until_last_line(bytes: &[u8]) -> &[u8] {
    match bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(end) if end >= bytes.len() / 4 * 3 => &bytes[..=end],
        _ => {
            let mut end = bytes.len();
            // A character is at most four bytes: its start is among the last four.
            for back in 1..=bytes.len().min(4) {
                let byte = bytes[bytes.len() - back];
                if byte & 0b1100_0000 != 0b1000_0000 {
                    let length = match byte {
                        0xf0.. => 4,
                        0xe0.. => 3,
                        0xc0.. => 2,
                        _ => 1,
                    };
                    if length > back {
                        end = bytes.len() - back;
                    }
                    break;
                }
            }
            &bytes[..end]
        }
    }
}

fn from_first_line(bytes: &[u8]) -> &[u8] {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) if end < bytes.len() / 4 => &bytes[end + 1..],
        _ => {
            let start = bytes.iter().take(4).position(|byte| byte & 0b1100_0000 != 0b1000_0000);
            &bytes[start.unwrap_or(0)..]
        }
    }
}

/// Takes all whole characters; the start of one that may still be completed stays.
fn take_text(bytes: &mut Vec<u8>) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut used = 0;
    while used < bytes.len() {
        match std::str::from_utf8(&bytes[used..]) {
            Ok(rest) => {
                text.push_str(rest);
                used = bytes.len();
            }
            Err(error) => {
                let valid = used + error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&bytes[used..valid]));
                used = valid;
                match error.error_len() {
                    Some(length) => {
                        text.push('\u{fffd}');
                        used += length;
                    }
                    None => break,
                }
            }
        }
    }
    bytes.drain(..used);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(keep: usize, chunks: &[&[u8]]) -> (String, String, Option<PathBuf>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let mut capture = Capture::new(keep, directory.path().join("log"));
        let mut passed = String::new();
        for chunk in chunks {
            capture.push(chunk, &mut |text| passed.push_str(text));
        }
        capture.flush(&mut |text| passed.push_str(text));
        let (text, log) = capture.finish();
        (passed, text, log, directory)
    }

    #[test]
    fn short_output_is_whole_and_has_no_log() {
        let (passed, text, log, directory) = capture(100, &[b"one\n", b"two\n"]);
        assert_eq!((passed.as_str(), text.as_str(), log), ("one\ntwo\n", "one\ntwo\n", None));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_character_split_between_reads_is_one_character() {
        let (passed, text, ..) = capture(100, &[b"a\xe2", b"\x82", b"\xac\xff!", b"\xe2"]);
        assert_eq!(passed, "a\u{20ac}\u{fffd}!\u{fffd}");
        assert_eq!(text, passed);
    }

    #[test]
    fn long_output_keeps_both_ends_and_all_of_it_on_disk() {
        let lines: Vec<String> = (0..1000).map(|n| format!("line {n}\n")).collect();
        let chunks: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
        let (passed, text, log, _directory) = capture(400, &chunks);
        assert_eq!(passed, lines.concat());
        assert_eq!(std::fs::read_to_string(log.unwrap()).unwrap(), lines.concat());
        assert!(text.starts_with("line 0\nline 1\n") && text.ends_with("line 998\nline 999\n"), "{text}");
        assert!(text.contains("bytes left out here") && text.len() < 700, "{text}");
        for line in text.lines() {
            assert!(line.starts_with("[...") || lines.contains(&format!("{line}\n")), "cut line {line:?}");
        }
    }

    #[test]
    fn the_cut_never_splits_a_character() {
        let text = "\u{20ac}".repeat(200);
        for keep in 20..40 {
            let (_, shown, ..) = capture(keep, &[text.as_bytes()]);
            assert!(!shown.contains('\u{fffd}'), "{keep}: {shown}");
        }
    }
}
