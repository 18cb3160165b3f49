//! Unified diffs that `git apply` accepts: `a/` and `b/` headers, new and deleted files, missing newlines at the
//! end. Lines are split at `\n` alone, as git does, so that a carriage return stays part of its line.

use similar::{Algorithm, DiffOp, capture_diff_slices_deadline, group_diff_ops};
use std::fmt::Write;
use std::time::{Duration, Instant};

const CONTEXT: usize = 3;
/// A diff of two huge, unlike files becomes coarser after this long instead of taking minutes.
const PATIENCE: Duration = Duration::from_secs(2);

/// The mode of a symbolic link, whose text is where it leads.
pub const LINK: u32 = 0o120_000;

/// One file before and after; `None` where it does not exist.
#[derive(Debug, Clone, Copy)]
pub struct Sides<'b> {
    pub before: Option<&'b [u8]>,
    pub after: Option<&'b [u8]>,
    /// Permission bits of a file that was created or deleted.
    pub mode: u32,
}

/// Empty where the sides are the same.
pub fn unified(path: &str, sides: Sides<'_>) -> String {
    unified_with_mode(path, sides, sides.mode)
}

/// The same for a file whose mode changes as well.
pub fn unified_with_mode(path: &str, sides: Sides<'_>, new_mode: u32) -> String {
    let (before, after) = (sides.before.unwrap_or_default(), sides.after.unwrap_or_default());
    let letters = |mode: u32| match mode {
        LINK => "120000",
        mode if mode & 0o111 == 0 => "100644",
        _ => "100755",
    };
    let (mode, new_mode) = (letters(sides.mode), letters(new_mode));
    let both = sides.before.is_some() && sides.after.is_some();
    let chmod = both && mode != new_mode;
    if sides.before.is_some() == sides.after.is_some() && before == after && !chmod {
        return String::new();
    }
    let (a, b) = (quoted(&format!("a/{path}")), quoted(&format!("b/{path}")));
    let mut out = format!("diff --git {a} {b}\n");
    match (sides.before, sides.after) {
        (None, _) => out.push_str(&format!("new file mode {new_mode}\n")),
        (_, None) => out.push_str(&format!("deleted file mode {mode}\n")),
        _ if chmod => out.push_str(&format!("old mode {mode}\nnew mode {new_mode}\n")),
        _ => {}
    }
    if before.contains(&0) || after.contains(&0) {
        let (a, b) = headers(&a, &b, &sides);
        out.push_str(&format!("Binary files {a} and {b} differ\n"));
        return out;
    }
    if before == after {
        // An empty file made or deleted, or only a mode: that line says it all.
        return out;
    }
    let (a, b) = headers(&a, &b, &sides);
    // git ends a name that holds a space with a tab, so that the name's end is clear.
    let end = if path.contains(' ') { "\t" } else { "" };
    let tab = |name: &str| if name == "/dev/null" { "" } else { end };
    let _ = writeln!(out, "--- {a}{}\n+++ {b}{}", tab(&a), tab(&b));
    let old: Vec<&[u8]> = before.split_inclusive(|byte| *byte == b'\n').collect();
    let new: Vec<&[u8]> = after.split_inclusive(|byte| *byte == b'\n').collect();
    let ops = capture_diff_slices_deadline(Algorithm::Myers, &old, &new, Some(Instant::now() + PATIENCE));
    for group in group_diff_ops(ops, CONTEXT) {
        hunk(&mut out, &group, &old, &new);
    }
    out
}

/// The names of `---` and `+++`.
fn headers(a: &str, b: &str, sides: &Sides<'_>) -> (String, String) {
    let null = || "/dev/null".to_string();
    let name = |there: bool, name: &str| if there { name.to_string() } else { null() };
    (name(sides.before.is_some(), a), name(sides.after.is_some(), b))
}

fn hunk(out: &mut String, group: &[DiffOp], old: &[&[u8]], new: &[&[u8]]) {
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return };
    let old_range = first.old_range().start..last.old_range().end;
    let new_range = first.new_range().start..last.new_range().end;
    let span = |range: &std::ops::Range<usize>| match range.len() {
        // An empty range names the line before it.
        0 => format!("{},0", range.start),
        1 => format!("{}", range.start + 1),
        n => format!("{},{n}", range.start + 1),
    };
    let _ = writeln!(out, "@@ -{} +{} @@", span(&old_range), span(&new_range));
    for op in group {
        match op {
            DiffOp::Equal { .. } => lines(out, ' ', &old[op.old_range()]),
            _ => {
                lines(out, '-', &old[op.old_range()]);
                lines(out, '+', &new[op.new_range()]);
            }
        }
    }
}

fn lines(out: &mut String, sign: char, lines: &[&[u8]]) {
    for line in lines {
        out.push(sign);
        out.push_str(&String::from_utf8_lossy(line));
        if !line.ends_with(b"\n") {
            out.push_str("\n\\ No newline at end of file\n");
        }
    }
}

/// A path as git writes it: in C quotes where it holds a quote, a backslash or a control character.
fn quoted(path: &str) -> String {
    if !path.contains(|c: char| c.is_ascii_control() || c == '"' || c == '\\') {
        return path.to_string();
    }
    let mut out = String::from('"');
    for c in path.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\{:03o}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(before: Option<&str>, after: Option<&str>) -> String {
        let sides = Sides { before: before.map(str::as_bytes), after: after.map(str::as_bytes), mode: 0o644 };
        unified("f", sides)
    }

    #[test]
    fn says_only_what_changed() {
        assert_eq!(diff(Some("a\n"), Some("a\n")), "");
        assert_eq!(
            diff(Some("a\nb\nc\n"), Some("a\nB\nc")),
            "diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n a\n-b\n-c\n+B\n+c\n\\ No newline at end of file\n"
        );
        assert_eq!(
            diff(None, Some("a\n")),
            "diff --git a/f b/f\nnew file mode 100644\n--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+a\n"
        );
        assert_eq!(diff(None, Some("")), "diff --git a/f b/f\nnew file mode 100644\n");
    }

    #[test]
    fn quotes_names_that_need_it() {
        assert_eq!(quoted("a/b c"), "a/b c");
        assert_eq!(quoted("a/\"x\"\\\t\u{1}"), "\"a/\\\"x\\\"\\\\\\t\\001\"");
    }
}
