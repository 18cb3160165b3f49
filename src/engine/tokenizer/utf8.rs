//! Bytes of tokens become text as they come: a character may be spread over several tokens.

/// Holds back the bytes of a character that is not complete yet. All that `push` and `finish` returned, together, is
/// what `String::from_utf8_lossy` makes of all the bytes at once.
#[derive(Debug, Default, Clone)]
pub struct Utf8Stream {
    /// At most three bytes: the beginning of a character.
    pending: Vec<u8>,
}

impl Utf8Stream {
    /// The text that is complete with these bytes; what cannot be text becomes U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = &self.pending[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    // Without a length the bytes are the beginning of a character whose end may still come.
                    let Some(invalid) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[invalid..];
                }
            }
        }
        let kept = rest.len();
        self.pending.drain(..self.pending.len() - kept);
        text
    }

    /// No more bytes come: U+FFFD for a character that was begun.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_character_comes_when_it_is_complete() {
        let mut stream = Utf8Stream::default();
        assert_eq!(stream.push(b"a\xf0\x9f"), "a");
        assert_eq!(stream.push(b"\x98"), "");
        assert_eq!(stream.push(b"\x80b"), "\u{1f600}b");
        assert_eq!(stream.push(b"\xf0\x9fz\xff"), "\u{fffd}z\u{fffd}");
        assert_eq!(stream.push(b"\xe2\x82"), "");
        assert_eq!(stream.finish(), "\u{fffd}");
        assert_eq!(stream.finish(), "");
    }

    proptest! {
        #[test]
        fn however_the_bytes_come_the_text_is_the_same(
            parts in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..6),
                    "[a\u{e9}\u{20ac}\u{1f600}]{0,3}".prop_map(String::into_bytes),
                ],
                0..12,
            ),
            size in 1usize..5,
        ) {
            let whole = parts.concat();
            let mut stream = Utf8Stream::default();
            let mut text: String = whole.chunks(size).map(|bytes| stream.push(bytes)).collect();
            prop_assert!(stream.pending.len() < 4);
            text.push_str(&stream.finish());
            prop_assert_eq!(text, String::from_utf8_lossy(&whole));
        }
    }
}
