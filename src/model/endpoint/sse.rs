//! Server-sent events: bytes as they come become the data of whole events. Comments and fields other than `data` are
//! passed over; lines that are no such stream are kept for the error message.

/// Bytes of one event, and of a whole answer, that are believed.
const EVENT: usize = 8 << 20;
const ANSWER: usize = 256 << 20;

#[derive(Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: String,
    seen: usize,
    /// The first line that belongs to no event stream.
    pub stray: Option<String>,
}

impl Events {
    /// The data of the events that `bytes` complete; an error where they are too long to be any.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, &'static str> {
        self.seen += bytes.len();
        let mut events = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            self.line(String::from_utf8_lossy(&line).trim_end_matches('\r'), &mut events);
        }
        if self.line.len() + self.data.len() > EVENT || self.seen > ANSWER {
            return Err("the answer is far too long");
        }
        Ok(events)
    }

    fn line(&mut self, line: &str, events: &mut Vec<String>) {
        if line.is_empty() {
            if !self.data.is_empty() {
                events.push(std::mem::take(&mut self.data));
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        match field {
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value.strip_prefix(' ').unwrap_or(value));
            }
            // Earlier llama-servers say so that they failed.
            "error" => events.push(format!("{{\"error\": {value}}}")),
            "" | "event" | "id" | "retry" => {}
            _ => {
                self.stray.get_or_insert_with(|| line.chars().take(500).collect());
            }
        }
    }

    /// What stands at the end, where the stream ended: an event whose last line break is missing.
    pub fn finish(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.line(&String::from_utf8_lossy(&line), &mut events);
        }
        self.line("", &mut events);
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_bytes_are_split() {
        let stream = ": hello\r\ndata: {\"a\": \"ü\"}\r\n\r\nevent: x\ndata:one\ndata: two\n\n\ndata: [DONE]";
        for size in [1, 2, 3, 7, 1000] {
            let mut reader = Events::default();
            let mut events = Vec::new();
            for piece in stream.as_bytes().chunks(size) {
                events.extend(reader.push(piece).unwrap());
            }
            events.extend(reader.finish());
            assert_eq!(events, ["{\"a\": \"ü\"}", "one\ntwo", "[DONE]"]);
            assert_eq!(reader.stray, None);
        }
    }

    #[test]
    fn what_is_no_stream_is_kept_and_an_endless_line_is_not() {
        let mut reader = Events::default();
        assert!(reader.push(b"hello there\nmore\n").unwrap().is_empty());
        assert_eq!(reader.stray.as_deref(), Some("hello there"));
        let piece = vec![b'x'; 1 << 20];
        assert!((0..10).any(|_| reader.push(&piece).is_err()));
    }
}
