//! Whether two outputs of one command are the same: but for how long something took, where something lies in memory, and
//! the numbers of processes and threads. Pure.

use std::iter::Peekable;
use std::str::Chars;

/// Units of time that follow a number, and words that stand before one.
const UNITS: &[&str] = &["ns", "us", "µs", "ms", "s", "sec", "secs", "second", "seconds", "min"];
const BEFORE: &[&str] = &["duration_ms", "duration_ms:", "pid", "pid:", "thread", "time:"];

/// The first line that differs, from 1, and what it is in both; `None` for a line that is not there.
pub(super) fn first_difference(
    recorded: &str,
    here: &str,
) -> Option<(usize, Option<String>, Option<String>)> {
    let (mut recorded, mut here) = (recorded.trim_end().lines(), here.trim_end().lines());
    for line in 1.. {
        match (recorded.next(), here.next()) {
            (None, None) => return None,
            (Some(a), Some(b)) if a == b || steady(a) == steady(b) => {}
            (a, b) => return Some((line, a.map(str::to_string), b.map(str::to_string))),
        }
    }
    None
}

/// A line without what differs from run to run.
fn steady(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let in_word = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if !c.is_ascii_digit() || in_word {
            out.push(c);
            continue;
        }
        let number = number(c, &mut chars);
        if out.trim_end().ends_with(BEFORE_PAREN)
            || follows(&out)
            || is_time(chars.clone())
            || number.starts_with("0x")
        {
            out.push('#');
        } else {
            out.push_str(&number);
        }
    }
    out
}

/// `thread 'name' (4711) panicked`.
const BEFORE_PAREN: &str = "' (";

/// The digits that begin with `first`, with points within; or a number in base 16.
fn number(first: char, chars: &mut Peekable<Chars<'_>>) -> String {
    let mut number = first.to_string();
    let hexadecimal = first == '0' && chars.peek() == Some(&'x');
    while let Some(&next) = chars.peek() {
        let belongs = next.is_ascii_digit()
            || next == '.' && chars.clone().nth(1).is_some_and(|after| after.is_ascii_digit())
            || hexadecimal && (next == 'x' || next.is_ascii_hexdigit());
        if !belongs {
            break;
        }
        number.push(next);
        chars.next();
    }
    number
}

fn follows(before: &str) -> bool {
    let word = before.trim_end().rsplit([' ', '\t', '(', '#']).next().unwrap_or_default();
    before.ends_with([' ', '=']) && BEFORE.contains(&word.trim_end_matches('='))
}

/// Whether a unit of time comes next.
fn is_time(chars: Peekable<Chars<'_>>) -> bool {
    let rest: String = chars.take(12).collect();
    let rest = rest.strip_prefix(' ').unwrap_or(&rest);
    let unit: String = rest.chars().take_while(|c| c.is_alphabetic()).collect();
    UNITS.contains(&unit.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_addresses_are_no_difference() {
        for (a, b) in [
            ("Ran 3 tests in 0.001s", "Ran 3 tests in 12.5s"),
            ("test result: ok. 2 passed; finished in 0.03s", "test result: ok. 2 passed; finished in 0.00s"),
            ("# duration_ms 71.2", "# duration_ms 9"),
            ("ok  \tpager\t0.004s", "ok  \tpager\t1.004s"),
            ("--- FAIL: TestA (0.00s)", "--- FAIL: TestA (0.01s)"),
            ("thread 'main' (4711) panicked at a.rs:3:5:", "thread 'main' (12) panicked at a.rs:3:5:"),
            ("<A object at 0x7f00aa>", "<A object at 0x7f11bb>"),
            ("took 3 ms", "took 14 ms"),
            ("", "\n"),
        ] {
            assert_eq!(first_difference(a, b), None, "{a} / {b}");
        }
    }

    #[test]
    fn all_else_is() {
        for (a, b) in [
            ("Ran 3 tests in 0.001s", "Ran 4 tests in 0.001s"),
            ("expected 5, got 6", "expected 5, got 7"),
            ("a.rs:3:5", "a.rs:4:5"),
            ("x1s", "x2s"),
            ("1.5", "1.6"),
        ] {
            assert!(first_difference(a, b).is_some(), "{a} / {b}");
        }
        let line = |text: &str| Some(text.to_string());
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some((2, line("b"), line("c"))));
        assert_eq!(first_difference("a\nb", "a"), Some((2, line("b"), None)));
    }
}
