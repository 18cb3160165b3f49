//! Output of a command without what differs from run to run: how long something took as tools say it, where something lies
//! in memory, the numbers of threads that Rust prints. Values of the program's own ("expected 90s, got 60s") stay. Pure.

use std::iter::Peekable;
use std::path::Path;
use std::str::Chars;

/// Units of time that follow a number, and what stands before one that is how long something took.
const UNITS: &[&str] = &["ns", "us", "µs", "ms", "s", "sec", "secs", "second", "seconds"];
const TOOK: &[&str] = &[" in ", " (", "\t", "took ", "time: ", "time=", "duration_ms ", "duration_ms: "];
/// What tells that a line holds values: none of its numbers is left out.
const VALUES: &[&str] = &["!=", " == ", "left:", "right:", "xpected", "got", "ssert", "'", "\""];
/// What stands before an address, and the least digits of one, with its `0x`.
const AT: &str = " at ";
const ADDRESS: usize = 10;
/// How Rust says which thread panicked: by name and number.
const THREAD: [&str; 3] = ["thread '", "' (", ") panicked at "];

/// `text` as it would be anywhere: steady, and files of the directory `root` named from there.
pub fn portable(text: &str, root: &Path) -> String {
    let root = root.to_string_lossy();
    match root.trim_end_matches('/') {
        "" => steady(text),
        root => steady(&named_from(text, root)),
    }
}

/// Files without the directory that they lie in; `.` for the directory itself.
fn named_from(text: &str, root: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(root) {
        let goes_on = after.starts_with(|c: char| c.is_alphanumeric() || "_-.".contains(c));
        let within = before.ends_with(|c: char| c.is_alphanumeric() || "_-./".contains(c));
        out.push_str(before);
        rest = after;
        match after.strip_prefix('/') {
            _ if goes_on || within => out.push_str(root),
            Some(path) => rest = path,
            None => out.push('.'),
        }
    }
    out + rest
}

/// `text` with a `#` for each such number, and results of tests that ran at the same time in one order.
pub fn steady(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(without_numbers).collect();
    let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let is_result = |line: &str| line.starts_with("test ") && line.contains(" ... ");
    lines.chunk_by_mut(|a, b| is_result(a) && is_result(b)).for_each(<[_]>::sort);
    lines.join("\n")
}

fn without_numbers(line: &str) -> String {
    let [begins, before, behind] = THREAD;
    if let Some((head, tail)) = line.split_once(behind).filter(|_| line.starts_with(begins))
        && let Some((name, number)) = head.rsplit_once(before)
        && number.bytes().all(|byte| byte.is_ascii_digit())
    {
        return format!("{name}{before}#{behind}{tail}");
    }
    if VALUES.iter().any(|mark| line.contains(mark)) {
        return line.to_string();
    }
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let in_word = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if !c.is_ascii_digit() || in_word {
            out.push(c);
            continue;
        }
        let number = number(c, &mut chars);
        let is_address = number.starts_with("0x") && number.len() >= ADDRESS && out.ends_with(AT);
        let took = TOOK.iter().find(|mark| out.ends_with(*mark));
        let is_time =
            |mark: &&str| mark.starts_with("duration") || is_time(chars.clone(), number.contains('.'));
        if is_address || took.is_some_and(is_time) {
            out.push('#');
        } else {
            out.push_str(&number);
        }
    }
    out
}

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

/// Whether a unit of time comes next; behind a whole number at once, for `in 5 seconds` may be a value.
fn is_time(chars: Peekable<Chars<'_>>, is_fraction: bool) -> bool {
    let rest: String = chars.take(12).collect();
    let rest = rest.strip_prefix(' ').filter(|_| is_fraction).unwrap_or(&rest);
    let unit: String = rest.chars().take_while(|c| c.is_alphabetic()).collect();
    UNITS.contains(&unit.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_from_the_directory() {
        let text = "  File \"/home/me/p/test_a.py\", line 7\nin (/home/me/p) and /home/me/p2/b.py";
        let expected = "  File \"test_a.py\", line 7\nin (.) and /home/me/p2/b.py";
        assert_eq!(portable(text, Path::new("/home/me/p")), expected);
        assert_eq!(portable("/a/b 0.1", Path::new("/")), "/a/b 0.1");
        for foreign in ["/usr/src/app/main.py", "/application/x", "/app.d/x"] {
            assert_eq!(portable(foreign, Path::new("/app")), foreign);
        }
    }

    #[test]
    fn what_differs_from_run_to_run_is_left_out() {
        for (text, expected) in [
            ("Ran 3 tests in 0.001s", "Ran 3 tests in #s"),
            ("test result: ok. 2 passed; finished in 0.03s", "test result: ok. 2 passed; finished in #s"),
            ("===== 2 failed in 0.05s =====", "===== 2 failed in #s ====="),
            ("# duration_ms 71.2", "# duration_ms #"),
            ("ok  \tpager\t0.004s", "ok  \tpager\t#s"),
            ("--- FAIL: TestA (0.00s)", "--- FAIL: TestA (#s)"),
            ("\u{2716} adds (1.2ms)", "\u{2716} adds (#ms)"),
            ("thread 'main' (4711) panicked at a.rs:3:5:", "thread 'main' (#) panicked at a.rs:3:5:"),
            ("<A object at 0x7f00aa001230>", "<A object at #>"),
            ("took 3ms\nreal\t0.2s", "took #ms\nreal\t#s"),
            ("built in 1.5 seconds", "built in # seconds"),
        ] {
            assert_eq!(steady(text), expected);
        }
    }

    #[test]
    fn results_of_tests_stand_in_one_order() {
        let text = "running 3 tests\ntest b ... ok\ntest a ... FAILED\ntest c ... ok\n\ntest b\ntest a\n";
        let expected = "running 3 tests\ntest a ... FAILED\ntest b ... ok\ntest c ... ok\n\ntest b\ntest a\n";
        assert_eq!(steady(text), expected);
        assert_eq!(steady("test b ... ok\ntest a ... ok"), "test a ... ok\ntest b ... ok");
    }

    #[test]
    fn all_else_stays() {
        for text in [
            "Ran 4 tests",
            "expected 5, got 6",
            "expected \"90s\", got \"1.5s\"",
            "a.rs:3:5",
            "x1s",
            "1.5",
            "0x1f != 0x20",
            "checksum 0xcbf43926",
            "  left: Some(90s)",
            "Some(1.5s)",
            "'retry after 5 seconds' != 'retry after 10 seconds'",
            "retry in 5 seconds",
            "within 5s",
            "'apple' (3)",
            "rapid 5",
            "- duration_ms: '1500'",
            "f(3) == 4 (5 of 6)",
        ] {
            assert_eq!(steady(text), text);
        }
    }
}
