//! Cuts text into the words that byte-pair merges never cross. Qwen's rule is a regular expression; here it is a
//! hand-written scanner of the same alternatives in the same order:
//!
//! ```text
//! (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//! ```
//!
//! Written by hand because the look-ahead sends a regex engine into backtracking, whose limit a file with a long run
//! of blanks exceeds. Every character is looked at a bounded number of times. The tests hold it against that regex.
//! Normalisation and added tokens are the caller's.
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// The words of `text`; together they are `text`.
pub fn words(text: &str) -> Words<'_> {
    Words { rest: text }
}

pub struct Words<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;
    fn next(&mut self) -> Option<&'a str> {
        let first = self.rest.chars().next()?;
        let (word, rest) = self.rest.split_at(word_len(self.rest, first));
        self.rest = rest;
        Some(word)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `[\r\n]`
    LineBreak,
    /// The rest of `\s`
    Blank,
    /// `[^\s\p{L}\p{N}]`: also marks, controls and what is not assigned
    Other,
}

fn class(c: char) -> Class {
    match c {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' => Class::Number,
        '\r' | '\n' => Class::LineBreak,
        // `\s` is the property White_Space, and so is this.
        _ if c.is_whitespace() => Class::Blank,
        _ if c.is_ascii() => Class::Other,
        _ => match c.general_category_group() {
            GeneralCategoryGroup::Letter => Class::Letter,
            GeneralCategoryGroup::Number => Class::Number,
            _ => Class::Other,
        },
    }
}

/// Bytes of the longest prefix of `text` whose characters are all of `wanted`.
fn run(text: &str, wanted: Class) -> usize {
    text.find(|c| class(c) != wanted).unwrap_or(text.len())
}

/// Bytes of the first word of `text`, which begins with `first`. The alternatives in their order; an alternative
/// whose optional head would take `first` comes to nothing where the body does not follow, as then the body would
/// have to begin with `first` itself, and the classes are disjoint.
fn word_len(text: &str, first: char) -> usize {
    let after_first = &text[first.len_utf8()..];
    let first_class = class(first);
    let second_class = after_first.chars().next().map(class);
    match first_class {
        Class::Letter => run(text, Class::Letter),
        Class::Number => first.len_utf8(),
        Class::LineBreak => white_len(text),
        Class::Other | Class::Blank => {
            if first == '\''
                && let Some(suffix) = contraction(after_first)
            {
                return 1 + suffix;
            }
            if second_class == Some(Class::Letter) {
                return first.len_utf8() + run(after_first, Class::Letter);
            }
            if first_class == Class::Other {
                return symbols_len(text);
            }
            if first == ' ' && second_class == Some(Class::Other) {
                return 1 + symbols_len(after_first);
            }
            white_len(text)
        }
    }
}

/// `[^\s\p{L}\p{N}]+[\r\n]*`
fn symbols_len(text: &str) -> usize {
    let symbols = run(text, Class::Other);
    symbols + run(&text[symbols..], Class::LineBreak)
}

/// `\s*[\r\n]+|\s+(?!\S)|\s+` where `text` begins with white space.
fn white_len(text: &str) -> usize {
    let run = text.find(|c: char| !c.is_whitespace()).unwrap_or(text.len());
    let white = &text[..run];
    // The greedy `\s*` gives back no more than it must: the word ends after the run's last line break.
    if let Some(last) = white.rfind(['\r', '\n']) {
        return last + 1;
    }
    // Before a word, the run's last character is left for that word, unless it is the only one.
    let last = white.chars().next_back().map_or(0, char::len_utf8);
    if run == text.len() || run == last { run } else { run - last }
}

/// Bytes of the letters of a contraction after its apostrophe. Without regard to case, by Unicode's simple folding:
/// so a long s, U+017F, is an s.
fn contraction(text: &str) -> Option<usize> {
    let mut chars = text.chars();
    let first = chars.next()?;
    match first {
        's' | 'S' | 't' | 'T' | 'm' | 'M' | 'd' | 'D' | '\u{17f}' => return Some(first.len_utf8()),
        _ => {}
    }
    match (first, chars.next()?) {
        ('r' | 'R' | 'v' | 'V', 'e' | 'E') | ('l' | 'L', 'l' | 'L') => Some(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    fn by_regex(text: &str) -> Vec<&str> {
        static REGEX: std::sync::LazyLock<fancy_regex::Regex> =
            std::sync::LazyLock::new(|| fancy_regex::Regex::new(PATTERN).unwrap());
        REGEX.find_iter(text).map(|found| found.unwrap().as_str()).collect()
    }

    fn check(text: &str) {
        assert_eq!(words(text).collect::<Vec<_>>(), by_regex(text), "{text:?}");
    }

    #[test]
    fn classes_are_those_of_the_regex() {
        let letter = fancy_regex::Regex::new(r"^\p{L}$").unwrap();
        let number = fancy_regex::Regex::new(r"^\p{N}$").unwrap();
        let white = fancy_regex::Regex::new(r"^\s$").unwrap();
        let mut newer = 0;
        for c in '\0'..=char::MAX {
            let text = c.to_string();
            let of_regex = match c {
                '\r' | '\n' => Class::LineBreak,
                _ if letter.is_match(&text).unwrap() => Class::Letter,
                _ if number.is_match(&text).unwrap() => Class::Number,
                _ if white.is_match(&text).unwrap() => Class::Blank,
                _ => Class::Other,
            };
            if class(c) != of_regex {
                // The regex crate may know an older Unicode, to which a new letter is unassigned; nothing else.
                assert!(
                    of_regex == Class::Other && matches!(class(c), Class::Letter | Class::Number),
                    "U+{:04X}",
                    c as u32
                );
                newer += 1;
            }
        }
        assert!(newer < 20_000, "{newer} characters");
    }

    #[test]
    fn long_runs_are_cut_as_any_other_and_in_linear_time() {
        for unit in [" ", "\t", "\n", " \n", "\r\n", "a", "1", "!", "'", "é", "\u{301}", "\u{3000}", " x"] {
            let text = unit.repeat(1_000_000);
            let (mut bytes, mut count) = (0, 0);
            for word in words(&text) {
                (bytes, count) = (bytes + word.len(), count + 1);
            }
            assert_eq!(bytes, text.len());
            let short = unit.repeat(100);
            check(&short);
            check(&format!("{short}x"));
            let of_short = words(&short).count();
            assert!(count == of_short || count == of_short * 10_000, "{unit:?}: {count}");
        }
    }

    #[test]
    fn every_short_text_of_telling_characters_is_cut_as_by_the_regex() {
        let telling: Vec<char> = "' \t\n\ra1!SlerÉ\u{17f}\u{301}\u{a0}".chars().collect();
        for length in 0..=4u32 {
            for mut number in 0..telling.len().pow(length) {
                let mut text = String::new();
                for _ in 0..length {
                    text.push(telling[number % telling.len()]);
                    number /= telling.len();
                }
                check(&text);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn words_are_those_of_the_regex(
            // Unassigned planes left out: see `classes_are_those_of_the_regex`.
            text in "([ \t\r\n'a-zA-Z0-9!.\u{17f}\u{a0}\u{85}\u{2028}\u{3000}\u{200b}\u{0}]|[\u{c0}-\u{24f}\u{300}-\u{36f}\u{621}-\u{64a}\u{4e00}-\u{4e20}\u{ac00}-\u{ac20}\u{2160}-\u{2170}\u{1f600}-\u{1f64f}]|  +|\n+|'(s|ll|RE|vE)){0,60}"
        ) {
            check(&text);
        }
    }
}
