//! Search/replace blocks: `<<<<<<< SEARCH`, the lines as they are, `=======`, the lines as they shall be,
//! `>>>>>>> REPLACE`, with the path on a line before. A block without a path is for the file of the one before.
//!
//! A block is a hunk whose context is what both halves have in common. Where a text holds more than one `=======`
//! (a heading's underline is one) every split is a reading; which one is meant shows in the file.

use super::{Change, FilePatch, Hunk, HunkLine, Malformed, Name, Sign, bare_path};
use similar::{Algorithm, DiffOp, capture_diff_slices};

pub fn begins(line: &str) -> bool {
    is_marker(line, '<') && word(line, '<').starts_with("SEARCH")
}

pub fn parse(lines: &[&str]) -> Result<Vec<FilePatch>, Malformed> {
    let mut files: Vec<FilePatch> = Vec::new();
    let mut path: Option<String> = None;
    let mut at = 0;
    // Where the text after the last block begins.
    let mut free = 0;
    while at < lines.len() {
        if !begins(lines[at]) {
            at += 1;
            continue;
        }
        let own = path_before(&lines[free..at]).or_else(|| path_behind(lines[at]));
        if let Some(own) = own {
            path = Some(own);
        }
        let Some(name) = path.clone() else {
            return Err(Malformed(format!(
                "the block at line {} names no file: write its path alone on the line before '<<<<<<< SEARCH'",
                at + 1
            )));
        };
        let missing = |what: &str| {
            Malformed(format!("the block at line {} has no '{what}' line; write the whole block", at + 1))
        };
        let end =
            (at + 1..lines.len()).find(|n| is_end(lines[*n])).ok_or_else(|| missing(">>>>>>> REPLACE"))?;
        if let Some(inner) = (at + 1..end).find(|n| begins(lines[*n])) {
            return Err(Malformed(format!(
                "the block at line {} has no '>>>>>>> REPLACE' before the next begins at line {}",
                at + 1,
                inner + 1
            )));
        }
        let dividers: Vec<usize> = (at + 1..end).filter(|n| is_divider(lines[*n])).collect();
        if dividers.is_empty() {
            return Err(missing("======="));
        }
        let halves = dividers.iter().map(|divider| (&lines[at + 1..*divider], &lines[divider + 1..end]));
        let change = change(at + 1, halves);
        files.push(FilePatch { name: Name::Plain(name), change, line: at + 1 });
        at = end + 1;
        free = at;
    }
    if files.is_empty() {
        return Err(Malformed(
            "there is no search/replace block in this text: write the path, then '<<<<<<< SEARCH', the lines to replace, \
             '=======', the new lines and '>>>>>>> REPLACE', each mark on its own line"
                .into(),
        ));
    }
    Ok(files)
}

fn change<'h, 'l: 'h>(line: usize, halves: impl Iterator<Item = (&'h [&'l str], &'h [&'l str])>) -> Change {
    let mut readings = Vec::new();
    for (search, replace) in halves {
        if search.iter().all(|line| line.trim().is_empty()) {
            // With nothing to search for it is a new file.
            let text = replace.iter().map(|line| format!("{line}\n")).collect();
            return Change::Create { text, executable: false };
        }
        readings.push(reading(search, replace));
    }
    let hunk = Hunk { line, readings, ..Hunk::default() };
    Change::Update { hunks: vec![hunk], moved_to: None, executable: None }
}

fn reading(search: &[&str], replace: &[&str]) -> Vec<HunkLine> {
    let mut lines = Vec::new();
    for op in capture_diff_slices(Algorithm::Myers, search, replace) {
        let (old, new) = (&search[op.old_range()], &replace[op.new_range()]);
        if let DiffOp::Equal { .. } = op {
            lines.extend(old.iter().map(|line| HunkLine::new(Sign::Context, line)));
        } else {
            lines.extend(old.iter().map(|line| HunkLine::new(Sign::Remove, line)));
            lines.extend(new.iter().map(|line| HunkLine::new(Sign::Add, line)));
        }
    }
    lines
}

fn is_marker(line: &str, sign: char) -> bool {
    let count = line.chars().take_while(|c| *c == sign).count();
    (5..=9).contains(&count)
}

fn word(line: &str, sign: char) -> &str {
    line.trim_start_matches(sign).trim()
}

fn is_divider(line: &str) -> bool {
    is_marker(line, '=') && word(line, '=').is_empty()
}

fn is_end(line: &str) -> bool {
    is_marker(line, '>') && word(line, '>').starts_with("REPLACE")
}

/// The last line above a block that is not blank and opens no fence, if it is a path: `src/a.py`, `` `src/a.py` ``,
/// `### src/a.py`, `File: src/a.py`, `# src/a.py`, or the word behind a fence's language (```` ```python src/a.py ````).
fn path_before(lines: &[&str]) -> Option<String> {
    let mut fenced = false;
    for line in lines.iter().rev().take(4) {
        let text = line.trim();
        if text.is_empty() {
            continue;
        }
        if let Some(info) = text.strip_prefix("```") {
            if fenced {
                return None;
            }
            fenced = true;
            // The language alone is no path; what stands behind it may be one.
            let word = info.split([' ', ':']).next_back().unwrap_or_default();
            if word.contains(['.', '/']) && looks_like_path(word) {
                return Some(word.to_string());
            }
            continue;
        }
        // A heading, a comment or a list sets it off with a blank; without one the sign is part of the path.
        let sign = text.trim_start_matches(['#', '/', ';', '*', '-']);
        let text = if sign.starts_with(' ') { sign.trim_start() } else { text };
        let labels = ["File:", "file:", "Path:", "path:", "Filename:", "filename:"];
        let text = labels.iter().find_map(|label| text.strip_prefix(label)).unwrap_or(text);
        let path = bare_path(text);
        return looks_like_path(path).then(|| path.to_string());
    }
    None
}

/// `<<<<<<< SEARCH src/a.py`.
fn path_behind(line: &str) -> Option<String> {
    let path = bare_path(word(line, '<').strip_prefix("SEARCH")?);
    looks_like_path(path).then(|| path.to_string())
}

/// One word, or a path with blanks whose end has an extension; sentences are none.
fn looks_like_path(text: &str) -> bool {
    if text.is_empty()
        || text.ends_with(['.', ',', ';', '!', '?', ':'])
        || text.contains(['`', '<', '>', '|', '"'])
    {
        return false;
    }
    if !text.contains(char::is_whitespace) {
        return text.chars().any(|c| c.is_alphanumeric());
    }
    let name = text.rsplit('/').next().unwrap_or(text);
    let extension = name.rsplit_once('.').map(|(_, extension)| extension).unwrap_or_default();
    text.contains('/') && (1..=8).contains(&extension.len()) && extension.chars().all(char::is_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::super::{Form, Patch};
    use super::*;

    #[test]
    fn the_path_stands_before_the_block_in_many_dresses() {
        let block = "<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE\n";
        for before in [
            "src/a.py\n",
            "`src/a.py`\n",
            "**src/a.py**\n```python\n",
            "```python\nsrc/a.py\n",
            "### File: `src/a.py`\n\n```\n",
            "File: src/a.py\n",
            "# src/a.py\n",
            "// src/a.py\n",
            "src/a.py:\n",
            "```python src/a.py\n",
            "```python:src/a.py\n",
        ] {
            let files = Patch::parse(Form::SearchReplaceBlock, &format!("{before}{block}")).unwrap().files;
            assert_eq!(files[0].name, Name::Plain("src/a.py".into()), "{before}");
        }
        let behind = block.replace("SEARCH", "SEARCH src/a.py");
        let files = Patch::parse(Form::SearchReplaceBlock, &behind).unwrap().files;
        assert_eq!(files[0].name, Name::Plain("src/a.py".into()));
        for before in ["", "Now I change the function.\n", "This is what you want:\n"] {
            let error = Patch::parse(Form::SearchReplaceBlock, &format!("{before}{block}")).unwrap_err();
            assert!(error.0.contains("names no file"), "{before}: {error}");
        }
    }

    #[test]
    fn blocks_without_a_path_are_for_the_file_before() {
        let text = "a.py\n<<<<<<< SEARCH\n1\n=======\n2\n>>>>>>> REPLACE\n\n<<<<<<< SEARCH\n3\n=======\n4\n>>>>>>> REPLACE\n";
        let files = Patch::parse(Form::SearchReplaceBlock, text).unwrap().files;
        assert_eq!(files.len(), 2);
        assert!(files.iter().all(|file| file.name == Name::Plain("a.py".into())));
    }

    #[test]
    fn broken_blocks_name_what_is_missing() {
        let error = |text: &str| Patch::parse(Form::SearchReplaceBlock, text).unwrap_err().0;
        assert!(error("a\n<<<<<<< SEARCH\nx\n=======\ny\n").contains("REPLACE"));
        assert!(error("a\n<<<<<<< SEARCH\nx\n>>>>>>> REPLACE\n").contains("======="));
        assert!(
            error("a\n<<<<<<< SEARCH\nx\n=======\n<<<<<<< SEARCH\n=======\n>>>>>>> REPLACE")
                .contains("line 5")
        );
    }
}
