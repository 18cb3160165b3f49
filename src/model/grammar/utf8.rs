//! UTF-8 byte by byte: what a value holds must be text, so that it is read as it was written.

/// Where a character stands; the default is between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Utf8 {
    /// Bytes that are still to come.
    rest: u8,
    /// Bounds of the next one, where they are narrower than those of any: after E0, ED, F0 and F4.
    lead: u8,
}

impl Utf8 {
    pub fn is_whole(self) -> bool {
        self.rest == 0
    }

    pub fn step(self, byte: u8) -> Option<Self> {
        if self.rest == 0 {
            let rest = match byte {
                0..=0x7f => 0,
                0xc2..=0xdf => 1,
                0xe0..=0xef => 2,
                0xf0..=0xf4 => 3,
                _ => return None,
            };
            let lead = if matches!(byte, 0xe0 | 0xed | 0xf0 | 0xf4) { byte } else { 0 };
            return Some(Self { rest, lead });
        }
        let bounds = match self.lead {
            0xe0 => 0xa0..=0xbf,
            0xed => 0x80..=0x9f,
            0xf0 => 0x90..=0xbf,
            0xf4 => 0x80..=0x8f,
            _ => 0x80..=0xbf,
        };
        bounds.contains(&byte).then_some(Self { rest: self.rest - 1, lead: 0 })
    }
}

/// White space beyond ASCII, which is white space to the parsers too: the bytes of it that came, none at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Wide([u8; 2]);

pub enum WideStep {
    On(Wide),
    Blank,
    /// It is another character.
    No,
}

impl Wide {
    pub fn step(self, byte: u8) -> WideStep {
        match (self.0, byte) {
            ([0, _], 0xc2 | 0xe1..=0xe3) => WideStep::On(Self([byte, 0])),
            ([0xe1, 0], 0x9a) | ([0xe2, 0], 0x80 | 0x81) | ([0xe3, 0], 0x80) => {
                WideStep::On(Self([self.0[0], byte]))
            }
            ([0xc2, 0], 0x85 | 0xa0)
            | ([0xe1, 0x9a], 0x80)
            | ([0xe2, 0x80], 0x80..=0x8a | 0xa8 | 0xa9 | 0xaf)
            | ([0xe2, 0x81], 0x9f)
            | ([0xe3, 0x80], 0x80) => WideStep::Blank,
            _ => WideStep::No,
        }
    }

    /// Could a character that begins with `byte` be one?
    pub fn may_begin(byte: u8) -> bool {
        matches!(Self::default().step(byte), WideStep::On(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_blanks_are_those_of_the_standard_library() {
        for c in (0x80..=0x10_ffff).filter_map(char::from_u32) {
            let mut wide = Some(Wide::default());
            let mut blank = false;
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                wide = match wide.map(|wide| wide.step(byte)) {
                    Some(WideStep::On(wide)) => Some(wide),
                    step => {
                        blank = matches!(step, Some(WideStep::Blank));
                        None
                    }
                };
            }
            assert_eq!(blank, c.is_whitespace(), "{c:?}");
        }
    }

    #[test]
    fn two_and_three_bytes_are_text_exactly_where_the_standard_library_says_so() {
        for word in 0..=u32::from(u16::MAX) {
            for tail in [&[][..], &[0x80], &[0xbf], &[0x80, 0x80], &[0xbf, 0xbf]] {
                let bytes: Vec<u8> = [(word >> 8) as u8, word as u8].iter().chain(tail).copied().collect();
                let state = bytes.iter().try_fold(Utf8::default(), |state, &byte| state.step(byte));
                assert_eq!(
                    state.is_some_and(Utf8::is_whole),
                    std::str::from_utf8(&bytes).is_ok(),
                    "{bytes:x?}"
                );
            }
        }
    }
}
