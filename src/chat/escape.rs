//! The choke point before a terminal: what a model, a file, a command or a file name wrote is made harmless here,
//! visibly. Control characters and escape sequences cannot move the cursor or set the title, bidi controls cannot
//! reorder a diff, and invisible characters cannot hide text from the person who approves it. Our own styling is
//! added by the front ends *after* this. Stateless by character, so a stream may be escaped piece by piece.

use std::borrow::Cow;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Characters that draw nothing (or a blank) though their category says letter or mark, and the variation
/// selectors: a run of those can carry a hidden text. U+FE0F alone is let through; emoji need it.
const INVISIBLE: &[(char, char)] = &[
    ('\u{034f}', '\u{034f}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0e}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// True for a character that must not reach a terminal as it is.
pub fn is_unsafe_for_terminal(c: char) -> bool {
    if c == '\n' || c == '\t' || (' '..='~').contains(&c) {
        return false;
    }
    matches!(
        c.general_category(),
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    ) || INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// Text for a terminal: unsafe characters are shown as `\u{202e}`; line breaks and tabs stay.
pub fn escape_for_terminal(text: &str) -> Cow<'_, str> {
    replace(text, |c, out| out.push_str(&format!("\\u{{{:x}}}", u32::from(c))))
}

/// As [`escape_for_terminal`], on one line: line breaks and tabs are shown too (names, summaries).
pub fn escape_line(text: &str) -> Cow<'_, str> {
    let escaped = escape_for_terminal(text);
    if escaped.contains(['\n', '\t']) {
        Cow::Owned(escaped.replace('\n', "\\n").replace('\t', "\\t"))
    } else {
        escaped
    }
}

/// Serialised JSON for a terminal: unsafe characters become `\uXXXX`, so the value it stands for is unchanged.
/// (Raw control characters cannot occur in serialised JSON, and all others can only stand inside a string.)
pub fn escape_json(json: &str) -> Cow<'_, str> {
    replace(json, |c, out| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    })
}

fn replace(text: &str, mut write: impl FnMut(char, &mut String)) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe_for_terminal) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe_for_terminal(c) {
            write(c, &mut out);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_would_act_on_the_terminal_or_hide() {
        let cases = [
            ("plain text\n\twith lines", "plain text\n\twith lines"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("zero\u{200b}width\u{feff}", "zero\\u{200b}width\\u{feff}"),
            ("tag\u{e0041}", "tag\\u{e0041}"),
            ("over\rwrite", "over\\u{d}write"),
            ("\u{2028}", "\\u{2028}"),
            ("日本語 é ❤\u{fe0f} 😀", "日本語 é ❤\u{fe0f} 😀"),
        ];
        for (given, expected) in cases {
            assert_eq!(escape_for_terminal(given), expected, "{given:?}");
        }
    }

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(escape_line("a\nb\tc"), "a\\nb\\tc");
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({"text": "x\u{202e}\u{e0041}\u{1b}\n"});
        let shown = escape_json(&value.to_string()).into_owned();
        assert!(shown.is_ascii(), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    proptest::proptest! {
        #[test]
        fn nothing_unsafe_passes_and_pieces_equal_the_whole(a in ".*", b in "\\PC*") {
            let whole = escape_for_terminal(&format!("{a}{b}")).into_owned();
            proptest::prop_assert!(!whole.chars().any(is_unsafe_for_terminal));
            proptest::prop_assert_eq!(whole, format!("{}{}", escape_for_terminal(&a), escape_for_terminal(&b)));
        }
    }
}
