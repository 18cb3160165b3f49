//! Watches the end of an answer for text that repeats itself, so that a model that turns in circles is stopped. What
//! then becomes of the answer is for the caller.

/// The end of an answer, watched for text that repeats itself.
#[derive(Default)]
pub(super) struct Tail {
    text: Vec<u8>,
    unchecked: usize,
}

impl Tail {
    /// Longest repeating unit that is looked for, in bytes.
    const UNIT: usize = 200;
    /// Repeats that end the answer: ten of at least fifty bytes, so shorter units need more of them.
    const TIMES: usize = 10;
    const LEAST: usize = 500;

    pub(super) fn repeats(&mut self, text: &str) -> bool {
        self.text.extend_from_slice(text.as_bytes());
        self.unchecked += text.len();
        if self.unchecked < 64 {
            return false;
        }
        self.unchecked = 0;
        let keep = Self::UNIT * Self::TIMES;
        if self.text.len() > keep {
            self.text.drain(..self.text.len() - keep);
        }
        let text = &self.text;
        (1..=Self::UNIT).any(|unit| {
            let span = (unit * Self::TIMES).max(Self::LEAST);
            span <= text.len() && {
                let end = &text[text.len() - span..];
                end.iter().zip(&end[unit..]).all(|(a, b)| a == b)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_is_seen_and_ordinary_text_is_not() {
        let mut tail = Tail::default();
        assert!((0..200).any(|_| tail.repeats("the same line again and again\n")));
        let mut tail = Tail::default();
        assert!(!(0..2000).any(|i| tail.repeats(&format!("let value_{i} = {};\n", i * 7))));
    }
}
