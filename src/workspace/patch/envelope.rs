//! The `*** Begin Patch` form: `*** Add File`, `*** Delete File`, `*** Update File` with `*** Move to`, and hunks below
//! `@@` lines that name what stands above them instead of line numbers.

use super::body::{Cursor, is_section};
use super::{Change, FilePatch, Malformed, Name, bare_path};

pub fn begins(line: &str) -> bool {
    let line = line.trim_start();
    is_section(line) && ["Begin", "Add", "Update", "Delete"].iter().any(|word| line.contains(word))
}

pub fn parse(lines: &[&str]) -> Result<Vec<FilePatch>, Malformed> {
    let mut cursor = Cursor::new(lines);
    let mut files = Vec::new();
    while cursor.peek(0).is_some_and(|line| !begins(line)) {
        if !cursor.take_fence() {
            cursor.at += 1;
        }
    }
    while let Some(line) = cursor.peek(0) {
        let number = cursor.number();
        let text = line.trim();
        cursor.at += 1;
        if let Some(path) = mark(text, "Add File:") {
            let change = Change::Create { text: added(&mut cursor, path)?, executable: false };
            files.push(FilePatch { name: plain(path, number)?, change, line: number });
        } else if let Some(path) = mark(text, "Delete File:") {
            files.push(FilePatch {
                name: plain(path, number)?,
                change: Change::Delete { hunks: None },
                line: number,
            });
        } else if let Some(path) = mark(text, "Update File:") {
            files.push(FilePatch {
                name: plain(path, number)?,
                change: update(&mut cursor, path)?,
                line: number,
            });
        } else if mark(text, "End Patch").is_some() {
            // A second patch may follow.
            while cursor.peek(0).is_some_and(|line| !begins(line)) {
                cursor.at += 1;
            }
        } else if !(mark(text, "Begin Patch").is_some() || text.is_empty() || text.starts_with("```")) {
            return Err(Malformed(format!(
                "line {number} belongs to no file: {text}\nWrite '*** Update File: PATH', '*** Add File: PATH' or \
                 '*** Delete File: PATH' above it"
            )));
        }
    }
    if files.is_empty() {
        return Err(Malformed(
            "there is no patch in this text: after '*** Begin Patch' comes '*** Update File: PATH' (or Add, Delete), then \
             '@@' and the lines with ' ', '-' or '+' in front, then '*** End Patch'"
                .into(),
        ));
    }
    Ok(files)
}

/// What stands behind `*** MARK`.
fn mark<'l>(line: &'l str, mark: &str) -> Option<&'l str> {
    line.strip_prefix("***")?.trim_start().strip_prefix(mark)
}

fn plain(path: &str, line: usize) -> Result<Name, Malformed> {
    match bare_path(path) {
        "" => Err(Malformed(format!("line {line} names no file; write its path behind the colon"))),
        path => Ok(Name::Plain(path.to_string())),
    }
}

fn added(cursor: &mut Cursor<'_>, path: &str) -> Result<String, Malformed> {
    let mut text = String::new();
    let mut gap = 0;
    while let Some(line) = cursor.peek(0).filter(|line| !is_section(line)) {
        if let Some(line) = line.strip_prefix('+') {
            text.push_str(&"\n".repeat(gap));
            gap = 0;
            text.push_str(line);
            text.push('\n');
        } else if line.trim().is_empty() {
            // Blank lines lose their sign; those at the end are the gap to the next mark.
            gap += 1;
        } else if line.starts_with("```") {
            break;
        } else {
            return Err(Malformed(format!(
                "line {} of the new file{path} does not begin with '+': {line}\nEvery line of a new file does",
                cursor.number()
            )));
        }
        cursor.at += 1;
    }
    Ok(text)
}

fn update(cursor: &mut Cursor<'_>, path: &str) -> Result<Change, Malformed> {
    let mut moved_to = None;
    if let Some(to) = cursor.peek(0).and_then(|line| mark(line.trim(), "Move to:")) {
        moved_to = Some(bare_path(to).to_string());
        cursor.at += 1;
    }
    let mut hunks = Vec::new();
    while let Some(line) = cursor.peek(0).filter(|line| !is_section(line)) {
        // Blank lines before a header or a mark are a gap.
        let mut ahead = 0;
        while cursor.peek(ahead).is_some_and(|line| line.trim().is_empty()) {
            ahead += 1;
        }
        if cursor.peek(ahead).is_none_or(|line| is_section(line) || line.starts_with("@@") && ahead > 0) {
            cursor.at += ahead;
            continue;
        }
        if line.starts_with("```") && cursor.fence.is_some() {
            break;
        }
        hunks.push(cursor.hunk()?);
    }
    if hunks.is_empty() && moved_to.is_none() {
        return Err(Malformed(format!(
            "there is nothing below '*** Update File:{path}'; write '@@' and the lines with ' ', '-' or '+' in front"
        )));
    }
    Ok(Change::Update { hunks, moved_to, executable: None })
}

#[cfg(test)]
mod tests {
    use super::super::{Form, Patch, Sign};
    use super::*;

    #[test]
    fn all_marks_are_read() {
        let text = "*** Begin Patch\n*** Add File: new.txt\n+a\n\n+b\n\n*** Update File: old.py\n*** Move to: moved.py\n\
                    @@ class A:\n@@     def f(self):\n-        pass\n+        return 1\n*** End of File\n\
                    *** Delete File: `gone.txt`\n*** End Patch\n";
        let files = Patch::parse(Form::ApplyPatch, text).unwrap().files;
        assert_eq!(files[0].change, Change::Create { text: "a\n\nb\n".into(), executable: false });
        let Change::Update { hunks, moved_to, .. } = &files[1].change else { panic!("{:?}", files[1]) };
        assert_eq!(moved_to.as_deref(), Some("moved.py"));
        assert_eq!(hunks[0].anchors, ["class A:", "    def f(self):"]);
        assert!(hunks[0].at_end && hunks[0].readings[0][1].sign == Sign::Add);
        assert_eq!(files[2].name, Name::Plain("gone.txt".into()));
    }

    #[test]
    fn what_belongs_to_no_file_is_named() {
        let error = |text: &str| Patch::parse(Form::ApplyPatch, text).unwrap_err().0;
        assert!(error("*** Begin Patch\nfix it\n*** End Patch").contains("line 2"));
        assert!(error("*** Begin Patch\n*** Add File: x\nraw\n*** End Patch").contains("'+'"));
        assert!(error("*** Begin Patch\n*** Update File: x\n*** End Patch").contains("nothing"));
        assert!(error("nothing").contains("no patch"));
    }
}
