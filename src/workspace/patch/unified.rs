//! Unified diffs, from git or from a model: headers with or without `a/` and `b/`, in a Markdown fence or bare, one
//! file or several, new, deleted and renamed files.

use super::body::Cursor;
use super::{Change, FilePatch, Hunk, HunkLine, Malformed, Name, Sign};

pub fn begins(lines: &[&str], at: usize) -> bool {
    let next = |n: usize| lines.get(at + n).copied().unwrap_or_default();
    let line = next(0).trim_start();
    let next_starts = |start: &str| next(1).trim_start().starts_with(start);
    line.starts_with("diff --git ")
        || (line.starts_with("--- ") && (next_starts("+++ ") || next_starts("@@")))
        || (line.starts_with("+++ ") && next_starts("@@"))
}

pub fn parse(lines: &[&str]) -> Result<Vec<FilePatch>, Malformed> {
    let mut cursor = Cursor::new(lines);
    let mut files = Vec::new();
    while let Some(line) = cursor.peek(0) {
        if starts_file(&cursor) {
            files.push(file(&mut cursor)?);
        } else if line.starts_with("@@") {
            return Err(Malformed(format!(
                "the hunk at line {} has no file: write '--- a/PATH' and '+++ b/PATH' above it",
                cursor.number()
            )));
        } else if !cursor.take_fence() {
            cursor.at += 1;
        }
    }
    if files.is_empty() {
        return Err(Malformed(
            "there is no unified diff in this text: a diff begins with '--- a/PATH' and '+++ b/PATH', then '@@' and the \
             lines with ' ', '-' or '+' in front"
                .into(),
        ));
    }
    Ok(files)
}

fn starts_file(cursor: &Cursor<'_>) -> bool {
    let next = |n: usize| cursor.peek(n).unwrap_or_default();
    next(0).starts_with("diff --git ")
        || (next(0).starts_with("--- ") && (next(1).starts_with("+++ ") || next(1).starts_with("@@")))
        || (next(0).starts_with("+++ ") && next(1).starts_with("@@"))
}

/// What the lines above the hunks say.
#[derive(Default)]
struct Heading {
    old: Option<Header>,
    new: Option<Header>,
    /// Both names of the `diff --git` line, where they can be told apart.
    git: Option<(String, String)>,
    renamed: Option<(String, String)>,
    created: bool,
    deleted: bool,
    executable: Option<bool>,
}

/// The name of a `---` or `+++` line.
enum Header {
    Null,
    Path(String),
}

fn file(cursor: &mut Cursor<'_>) -> Result<FilePatch, Malformed> {
    let line = cursor.number();
    let mut heading = heading(cursor)?;
    let mut hunks = Vec::new();
    while cursor.peek(0).is_some_and(|line| line.starts_with("@@") || (hunks.is_empty() && is_signed(line))) {
        hunks.push(cursor.hunk()?);
    }
    let null = |header: &Option<Header>| matches!(header, Some(Header::Null));
    let created = heading.created || null(&heading.old);
    let deleted = heading.deleted || null(&heading.new);
    if created && deleted {
        return Err(Malformed(format!(
            "the diff at line {line} names no file: both its names are /dev/null"
        )));
    }
    let path = |header: Option<Header>| match header {
        Some(Header::Path(path)) => Some(path),
        _ => None,
    };
    let (mut old, mut new) = (path(heading.old.take()), path(heading.new.take()));
    if let (None, None, Some((a, b))) = (&old, &new, heading.git) {
        (old, new) = (Some(a), Some(b));
    }
    if created {
        let name = Name::Diff { old: None, new: new.or(old) };
        let executable = heading.executable.unwrap_or(false);
        return Ok(FilePatch { name, change: Change::Create { text: whole(&hunks)?, executable }, line });
    }
    if deleted {
        let name = Name::Diff { old: old.or(new), new: None };
        return Ok(FilePatch { name, change: Change::Delete { hunks: Some(hunks) }, line });
    }
    let (name, moved_to) = match heading.renamed {
        Some((from, to)) => (Name::Plain(from), Some(to)),
        // One name alone is both.
        None => (Name::Diff { old: old.clone().or(new.clone()), new: new.or(old) }, None),
    };
    if hunks.is_empty() && moved_to.is_none() && heading.executable.is_none() {
        return Err(Malformed(format!(
            "the diff at line {line} has no hunk: write '@@' and the lines with ' ', '-' or '+' in front"
        )));
    }
    Ok(FilePatch { name, change: Change::Update { hunks, moved_to, executable: heading.executable }, line })
}

fn is_signed(line: &str) -> bool {
    line.starts_with([' ', '+', '-']) && !line.starts_with("--- ") && line.trim_end() != "--"
}

fn heading(cursor: &mut Cursor<'_>) -> Result<Heading, Malformed> {
    let mut heading = Heading::default();
    let mut renamed = (None, None);
    if let Some(names) = cursor.peek(0).and_then(|line| line.strip_prefix("diff --git ")) {
        heading.git = git_names(names);
        cursor.at += 1;
        while let Some(line) = cursor.peek(0) {
            if let Some(from) = line.strip_prefix("rename from ") {
                renamed.0 = Some(name_of(from));
            } else if let Some(to) = line.strip_prefix("rename to ") {
                renamed.1 = Some(name_of(to));
            } else if let Some(mode) = line.strip_prefix("new file mode ") {
                heading.created = true;
                heading.executable = Some(plain_mode(cursor.number(), mode)? == 0o755);
            } else if line.starts_with("deleted file mode ") {
                heading.deleted = true;
            } else if let Some(mode) = line.strip_prefix("new mode ") {
                heading.executable = Some(plain_mode(cursor.number(), mode)? == 0o755);
            } else if line.starts_with("copy from ") {
                return Err(Malformed(format!(
                    "line {} copies a file, which is not supported; write the copy as a new file",
                    cursor.number()
                )));
            } else if line.starts_with("GIT binary patch") || line.starts_with("Binary files ") {
                return Err(Malformed(format!(
                    "line {} changes a binary file; patches change text only",
                    cursor.number()
                )));
            } else if !["index ", "old mode ", "similarity index ", "dissimilarity index "]
                .iter()
                .any(|start| line.starts_with(start))
            {
                break;
            }
            cursor.at += 1;
        }
    }
    if let (Some(from), Some(to)) = renamed {
        heading.renamed = Some((from, to));
    }
    let header = |line: &str| match name_of(line) {
        name if name == "/dev/null" => Header::Null,
        name => Header::Path(name),
    };
    if let Some(name) = cursor.peek(0).and_then(|line| line.strip_prefix("--- ")) {
        heading.old = Some(header(name));
        cursor.at += 1;
    }
    if let Some(name) = cursor.peek(0).and_then(|line| line.strip_prefix("+++ ")) {
        heading.new = Some(header(name));
        cursor.at += 1;
    }
    Ok(heading)
}

fn plain_mode(line: usize, text: &str) -> Result<u32, Malformed> {
    match u32::from_str_radix(text.trim(), 8) {
        Ok(mode @ (0o100644 | 0o100755)) => Ok(mode & 0o777),
        Ok(0o100664) => Ok(0o644),
        Ok(0o100775) => Ok(0o755),
        _ => Err(Malformed(format!(
            "line {line} makes something that is no regular file (mode {}); patches change regular files only",
            text.trim()
        ))),
    }
}

/// The text of a new file; a hunk of it can only add.
fn whole(hunks: &[Hunk]) -> Result<String, Malformed> {
    let mut text = String::new();
    let mut open = false;
    for (hunk, lines) in hunks.iter().filter_map(|hunk| Some((hunk, hunk.readings.first()?))) {
        for line in lines {
            let gap = line.sign == Sign::Context && line.text.is_empty();
            if line.sign != Sign::Add && !gap {
                return Err(Malformed(format!(
                    "the hunk at line {} is for a new file, so all its lines begin with '+'; this one does not: {}",
                    hunk.line, line.text
                )));
            }
            if open {
                return Err(Malformed(format!(
                    "the hunk at line {} goes on behind the end of its file",
                    hunk.line
                )));
            }
            text.push_str(&line.text);
            open = !line.newline;
            if line.newline {
                text.push('\n');
            }
        }
    }
    Ok(text)
}

/// A name as git and diff write it: quoted where it has to be, else up to the tab before a time.
fn name_of(text: &str) -> String {
    let text = text.trim_end_matches('\r');
    match unquote(text) {
        Some((name, _)) => name,
        None => super::bare_path(text.split('\t').next().unwrap_or(text)).to_string(),
    }
}

/// The two names of a `diff --git` line. Unquoted names with blanks are told apart by being the same.
fn git_names(text: &str) -> Option<(String, String)> {
    let text = text.trim_end();
    if let Some((old, rest)) = unquote(text) {
        return Some((old, name_of(rest.trim_start())));
    }
    if text.ends_with('"') {
        let at = text.find(" \"")?;
        return Some((text[..at].to_string(), name_of(&text[at + 1..])));
    }
    let behind = |name: &str| name.split_once('/').map(|(_, rest)| rest.to_string());
    let pairs = || text.match_indices(' ').map(|(at, _)| (&text[..at], &text[at + 1..]));
    pairs()
        .find(|(old, new)| old == new || (behind(old).is_some() && behind(old) == behind(new)))
        .or_else(|| pairs().next().filter(|_| text.matches(' ').count() == 1))
        .map(|(old, new)| (old.to_string(), new.to_string()))
}

/// A name in C quotes, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let rest = text.strip_prefix('"')?;
    let mut bytes = Vec::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((String::from_utf8(bytes).ok()?, &rest[at + 1..])),
            '\\' => {
                let (_, escaped) = chars.next()?;
                bytes.push(match escaped {
                    'a' => 7,
                    'b' => 8,
                    't' => b'\t',
                    'n' => b'\n',
                    'v' => 11,
                    'f' => 12,
                    'r' => b'\r',
                    '"' | '\\' => escaped as u8,
                    '0'..='3' => {
                        let digits = [escaped, chars.next()?.1, chars.next()?.1];
                        u8::from_str_radix(&digits.iter().collect::<String>(), 8).ok()?
                    }
                    _ => return None,
                });
            }
            c => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    None
}

/// Which files a diff's two names are, for somebody who knows which exist: (the one to read, the one to make).
/// `None` where the names leave a choice.
pub fn resolve(
    old: Option<&str>,
    new: Option<&str>,
    exists: &dyn Fn(&str) -> bool,
) -> Option<(Option<String>, Option<String>)> {
    let own = |text: &str| Some(text.to_string());
    let behind =
        |name: &str| name.split_once('/').map(|(_, rest)| rest.to_string()).filter(|rest| !rest.is_empty());
    let without =
        |name: &str, prefix: &str| name.strip_prefix(prefix).filter(|rest| !rest.is_empty()).and_then(own);
    match (old, new) {
        (Some(old), Some(new)) => {
            // As git writes them both have their prefix, and then it always goes.
            if let (Some(old), Some(new)) = (without(old, "a/"), without(new, "b/")) {
                return same(old, new, exists);
            }
            if old == new {
                return match (exists(old), without(old, "a/").or_else(|| without(old, "b/"))) {
                    (false, Some(bare)) if exists(&bare) => Some((own(&bare), None)),
                    _ => Some((own(old), None)),
                };
            }
            if let (Some(old_rest), Some(new_rest)) = (behind(old), behind(new))
                && old_rest == new_rest
                && !exists(old)
                && !exists(new)
            {
                return Some((Some(old_rest), None));
            }
            // One of them has a prefix, as written or wrongly.
            let bare = |name: &str, prefix: &str| match without(name, prefix) {
                Some(rest) if !exists(name) => rest,
                _ => name.to_string(),
            };
            same(bare(old, "a/"), bare(new, "b/"), exists)
        }
        (Some(old), None) => {
            let bare = without(old, "a/").filter(|bare| exists(bare) || !exists(old));
            Some((bare.or_else(|| own(old)), None))
        }
        (None, Some(new)) => Some((None, without(new, "b/").or_else(|| own(new)))),
        (None, None) => None,
    }
}

/// Two names that should be one: backups (`x.orig`) and the like.
fn same(old: String, new: String, exists: &dyn Fn(&str) -> bool) -> Option<(Option<String>, Option<String>)> {
    if old == new {
        return Some((Some(new), None));
    }
    match (exists(&old), exists(&new)) {
        (false, true) => Some((Some(new), None)),
        // Both there: only a backup's name is known for what it is. The new one missing: it may be a rename.
        (true, true) if [".orig", ".bak", ".old", "~"].iter().any(|end| old == format!("{new}{end}")) => {
            Some((Some(new), None))
        }
        (false, false) => Some((Some(new), None)),
        _ => None,
    }
}

impl HunkLine {
    fn is_change(&self) -> bool {
        self.sign != Sign::Context
    }
}

impl Hunk {
    /// Whether anything is removed or added.
    pub fn changes(&self) -> bool {
        self.readings.iter().any(|lines| lines.iter().any(HunkLine::is_change))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        assert_eq!(name_of("a/x y.rs\t2024-01-01 10:00:00 +0000"), "a/x y.rs");
        assert_eq!(name_of("\"a/caf\\303\\251 \\\"x\\\"\""), "a/café \"x\"");
        assert_eq!(name_of("`src/a.rs`"), "src/a.rs");
        let names = |text: &str| git_names(text).unwrap();
        assert_eq!(names("a/x y b/x y"), ("a/x y".into(), "b/x y".into()));
        assert_eq!(names("a/x b/y"), ("a/x".into(), "b/y".into()));
        assert_eq!(names("x x"), ("x".into(), "x".into()));
        assert_eq!(names("\"a/\\t\" \"b/\\t\""), ("a/\t".into(), "b/\t".into()));
    }

    #[test]
    fn prefixes_are_told_from_directories_by_what_is_there() {
        let there = ["src/x", "a/only", "y.py", "y.py.orig", "p", "q"];
        let exists = |path: &str| there.contains(&path);
        let read = |old: &str, new: &str| resolve(Some(old), Some(new), &exists).map(|(old, _)| old.unwrap());
        assert_eq!(read("a/src/x", "b/src/x").as_deref(), Some("src/x"));
        assert_eq!(read("src/x", "src/x").as_deref(), Some("src/x"));
        assert_eq!(read("a/src/x", "src/x").as_deref(), Some("src/x"));
        assert_eq!(read("src/x", "b/src/x").as_deref(), Some("src/x"));
        assert_eq!(read("a/src/x", "a/src/x").as_deref(), Some("src/x"));
        assert_eq!(read("a/only", "a/only").as_deref(), Some("a/only"));
        assert_eq!(read("i/src/x", "w/src/x").as_deref(), Some("src/x"));
        assert_eq!(read("old/src/x", "new/src/x").as_deref(), Some("src/x"));
        assert_eq!(read("y.py.orig", "y.py").as_deref(), Some("y.py"));
        assert_eq!(read("p", "q"), None);
        assert_eq!(read("p", "renamed"), None);
        assert_eq!(resolve(None, Some("b/new"), &exists), Some((None, Some("new".into()))));
        assert_eq!(resolve(Some("a/src/x"), None, &exists), Some((Some("src/x".into()), None)));
    }
}
