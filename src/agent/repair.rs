//! How a small model mends what a named command shows: the command runs, the places its output points at and the file
//! at fault are read, then versions of that file are tried, the likeliest first, until the command passes; what did
//! not help is taken back. Here is what that needs besides the turn's steps, all pure: which file, what to read, and
//! how a version becomes a call of `edit`.

use crate::chat::ToolCall;
use serde_json::json;

/// Versions of a file that are tried.
pub const MOST_TRIES: usize = 160;
/// The same where the user must agree to each.
pub const MOST_ASKED: usize = 3;
/// Lines shown before and after a place that the output points at, and such places of a file.
const BEFORE: usize = 10;
const AFTER: usize = 3;
const PLACES: usize = 3;
/// Files besides the one at fault that are looked at.
const FILES: usize = 2;

/// What to look at before a file is revised.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    /// The file to revise.
    pub file: String,
    /// Reads of what the output points at, the file itself last: what stands last is best remembered.
    pub reads: Vec<ToolCall>,
}

/// Lines at the head of a file that say what it uses.
const HEAD: usize = 60;

/// The file at fault is the first that the request names, else the first that the output names, and that is no test.
/// What `command` itself runs is one where the output speaks of something expected.
pub fn survey(named: &[String], files: &[String], command: &str, output: &str) -> Option<Survey> {
    let file = suspect(named, files, output, &|path| !is_test(path) && !judges(command, path, output))?;
    Some(Survey::of(file, files, output))
}

/// Where only tests are named: the one whose head says what it is about, and the read of that.
pub fn teller(named: &[String], files: &[String], command: &str, output: &str) -> Option<(String, ToolCall)> {
    let by_command = || files.iter().find(|path| names(command, path) && language(path).is_some()).cloned();
    let file = suspect(&[], files, output, &|_| true).or_else(by_command);
    let file = file.or_else(|| suspect(named, files, "", &|_| true))?;
    let look = read(&file, Some((1, HEAD)));
    Some((file, look))
}

/// The file that a test is about: the first of the workspace that its head speaks of, else the one that bears its name, the
/// crate's own or the only one in its language. What is no test by its name and uses nothing is at fault itself.
pub fn blamed(files: &[String], test: &str, head: &str) -> Option<String> {
    let fits = |path: &&String| **path != test && !is_test(path) && language(path).is_some();
    let candidates: Vec<&String> = files.iter().filter(fits).collect();
    let stem = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        name.split_once('.').map_or(name, |(stem, _)| stem).to_string()
    };
    const IMPORTS: [&str; 8] = ["import", "from", "require", "use", "mod", "include", "source", "./"];
    let speaks_of = |line: &str, path: &str| {
        line.contains(path) || IMPORTS.iter().any(|word| line.contains(word)) && holds_word(line, &stem(path))
    };
    let imported =
        head.lines().find_map(|line| candidates.iter().find(|path| speaks_of(line, path)).copied());
    if imported.is_none() && !is_test(test) {
        return Some(test.to_string());
    }
    let bare = |path: &str| -> String {
        let parts = stem(path);
        let parts = parts.split(['_', '-']).filter(|part| !is_test(part));
        parts.collect::<String>().to_lowercase()
    };
    // `roman.test.js` has its mark after the first dot already.
    let namesake = || candidates.iter().find(|path| bare(path) == bare(test)).copied();
    let library = || candidates.iter().find(|path| path.ends_with("src/lib.rs")).copied();
    let only = || candidates.first().filter(|_| candidates.len() == 1).copied();
    let file = imported.or_else(namesake).or_else(library).or_else(only)?;
    // A header declares; what it declares stands beside it.
    let body = file.strip_suffix(".h").map(|stem| format!("{stem}.c"));
    Some(body.filter(|body| files.contains(body)).unwrap_or_else(|| file.clone()))
}

fn holds_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part))
}

/// The first file that the request or the output names and that may be meant.
fn suspect(named: &[String], files: &[String], output: &str, may: &dyn Fn(&str) -> bool) -> Option<String> {
    let places = places(files, output);
    let fits = |path: &&String| language(path).is_some() && may(path);
    named.iter().find(fits).or_else(|| places.iter().map(|(path, _)| path).find(fits)).cloned()
}

/// Whether a command runs a file by its name.
fn names(command: &str, path: &str) -> bool {
    command.split_whitespace().any(|word| word.trim_start_matches("./") == path)
}

/// Whether a file that a command runs may be what judges, not what is judged: the output speaks of something expected, or
/// points nowhere in it.
fn judges(command: &str, path: &str, output: &str) -> bool {
    let points_nowhere = || places(&[path.to_string()], output).is_empty();
    let words = output.to_lowercase();
    names(command, path)
        && (["assert", "expected", "want"].iter().any(|word| words.contains(word)) || points_nowhere())
}

impl Survey {
    /// Before `file` is revised, what else the output points at is looked at.
    pub fn of(file: String, files: &[String], output: &str) -> Self {
        let places = places(files, output);
        let reads = reads(&file, &places);
        Self { file, reads }
    }

    /// The same without what the head of `test` showed already.
    pub fn after_head(mut self, test: &str) -> Self {
        let number = |call: &ToolCall, key: &str| call.arguments.get(key).and_then(|value| value.as_u64());
        self.reads.retain(|call| {
            let end = number(call, "offset").zip(number(call, "limit")).map(|(offset, limit)| offset + limit);
            call.arguments["file_path"] != test || end.is_none_or(|end| end > HEAD as u64 + 1)
        });
        self
    }
}

fn reads(file: &String, places: &[(String, usize)]) -> Vec<ToolCall> {
    let mut reads = Vec::new();
    let mut shown: Vec<&String> = Vec::new();
    for (path, _) in places {
        if path == file || shown.contains(&path) || shown.len() == FILES {
            continue;
        }
        shown.push(path);
        let mut lines: Vec<usize> = places.iter().filter(|(p, _)| p == path).map(|(_, line)| *line).collect();
        lines.sort_unstable();
        lines.dedup();
        lines.truncate(PLACES);
        // Windows around the places, (first line, last line); those that touch are read at once.
        let mut windows: Vec<(usize, usize)> = Vec::new();
        for line in lines {
            let (first, last) = (line.saturating_sub(BEFORE).max(1), line + AFTER);
            match windows.last_mut() {
                Some(window) if first <= window.1 + 1 => window.1 = last,
                _ => windows.push((first, last)),
            }
        }
        reads.extend(windows.iter().map(|(first, last)| read(path, Some((*first, last + 1 - first)))));
    }
    reads.push(read(file, None));
    reads
}

fn read(path: &str, part: Option<(usize, usize)>) -> ToolCall {
    let mut arguments = serde_json::Map::from_iter([("file_path".to_string(), json!(path))]);
    if let Some((offset, limit)) = part {
        arguments.extend([("offset".to_string(), json!(offset)), ("limit".to_string(), json!(limit))]);
    }
    ToolCall { name: "read_file".into(), arguments }
}

/// Where the output points into the workspace, as compilers, test runners and tracebacks print it: `path:line`,
/// `path", line 12`, `path(12`. In the order they come.
fn places(files: &[String], output: &str) -> Vec<(String, usize)> {
    let mut found: Vec<(usize, String, usize)> = Vec::new();
    for path in files {
        let name = path.rsplit('/').next().unwrap_or(path);
        for (at, _) in output.match_indices(name) {
            // The path may be absolute, or relative to somewhere else: its last two parts decide.
            let parent = path.rsplit('/').nth(1);
            let before = &output[..at];
            let fits = match parent {
                Some(parent) => before.ends_with(&format!("{parent}/")),
                None => !before.ends_with(|c: char| c.is_alphanumeric() || "_-.".contains(c)),
            };
            let after = &output[at + name.len()..];
            let number =
                [":", "(", "\", line ", ", line ", " line "].iter().find_map(|mark| after.strip_prefix(mark));
            let digits: String =
                number.unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
            if let (true, Ok(line)) = (fits, digits.parse()) {
                found.push((at, path.clone(), line));
            }
        }
    }
    found.sort();
    found.into_iter().map(|(_, path, line)| (path, line)).collect()
}

fn is_test(path: &str) -> bool {
    path.split(['/', '.', '_', '-'])
        .any(|part| ["test", "tests", "spec", "specs", "__tests__"].contains(&part))
}

/// The word that a Markdown block of code in this file's language opens with; `None` for what is no code.
pub fn language(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let (_, extension) = name.rsplit_once('.')?;
    Some(match extension {
        "rs" => "rust",
        "py" => "python",
        "js" | "mjs" | "cjs" | "jsx" => "javascript",
        "ts" | "tsx" => "typescript",
        "go" => "go",
        "c" | "h" => "c",
        "cc" | "cpp" | "cxx" | "hpp" => "cpp",
        "java" => "java",
        "kt" => "kotlin",
        "rb" => "ruby",
        "php" => "php",
        "cs" => "csharp",
        "swift" => "swift",
        "sh" | "bash" => "bash",
        "lua" => "lua",
        "pl" => "perl",
        _ => return None,
    })
}

/// What a block of code stands between.
pub const FENCE: &str = "```";

/// The text of the first block of code in `answer`, as a version of `old`; `None` where there is none, it is no other
/// text, or it has lost much that nobody asked to remove.
pub fn rewritten(answer: &str, old: &str, request: &str) -> Option<String> {
    let (_, block) = answer.split_once(FENCE)?;
    let (_, text) = block.split_once('\n')?;
    let text = text.split_once(&format!("\n{FENCE}")).map_or(text, |(text, _)| text).trim_end_matches('\n');
    let new = if old.ends_with('\n') { format!("{text}\n") } else { text.to_string() };
    let lines = |text: &str| text.lines().filter(|line| !line.trim().is_empty()).count();
    let goes = ["remove", "delete", "drop", "simplif", "shorten", "replace", "merge", "inline"];
    let may_shrink = goes.iter().any(|word| request.to_lowercase().contains(word));
    let whole = may_shrink || lines(&new) * 4 >= lines(old) * 3;
    (whole && !text.trim().is_empty() && new != old).then_some(new)
}

/// Whether a line of `old` is gone in `new` and none that came resembles it: a small model that writes a file anew may
/// stop too soon or leave out what it had just described.
pub fn loses(old: &str, new: &str) -> bool {
    let words = |line: &str| -> Vec<String> {
        let word = |c: char| !c.is_alphanumeric() && c != '_';
        line.split(word).filter(|word| !word.is_empty()).map(Into::into).collect()
    };
    let only = |a: &str, b: &str| -> Vec<Vec<String>> {
        let mut others: Vec<&str> = b.lines().map(str::trim).collect();
        let mut left = Vec::new();
        for line in a.lines().map(str::trim) {
            match others.iter().position(|other| *other == line) {
                Some(at) => drop(others.swap_remove(at)),
                None => left.push(words(line)),
            }
        }
        left
    };
    let came = only(new, old);
    only(old, new).iter().filter(|gone| gone.len() > 1).any(|gone| {
        let shared = |line: &Vec<String>| gone.iter().filter(|word| line.contains(word)).count();
        came.iter().map(shared).max().unwrap_or(0) * 2 < gone.len()
    })
}

/// Where the code that may change ends: tests in the same file are not to be bent.
pub fn changeable(text: &str) -> usize {
    text.find("#[cfg(test)]").unwrap_or(text.len())
}

/// The smallest call of `edit` that makes `new` of `old`: whole lines, with as many around them as tell the place.
pub fn edit_call(path: &str, old: &str, new: &str) -> ToolCall {
    let (before, after): (Vec<&str>, Vec<&str>) =
        (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let least = before.len().min(after.len());
    let mut head = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
    let behind = before.iter().rev().zip(after.iter().rev()).take_while(|(a, b)| a == b).count();
    let mut tail = behind.min(least - head);
    let part = |head: usize, tail: usize| before[head..before.len() - tail].concat();
    loop {
        let place = part(head, tail);
        let at = before[..head].concat().len();
        // Found from the front and from the back at its own place: nowhere else, overlapping itself neither.
        let alone = old.find(&place) == Some(at) && old.rfind(&place) == Some(at);
        if !place.trim().is_empty() && alone || (head, tail) == (0, 0) {
            break;
        }
        // The line above first, then the one below, and so on.
        if head > 0 && (tail == 0 || tail >= head) {
            head -= 1;
        } else {
            tail -= 1;
        }
    }
    let arguments = [
        ("file_path", json!(path)),
        ("old_string", json!(part(head, tail))),
        ("new_string", json!(after[head..after.len() - tail].concat())),
    ];
    ToolCall {
        name: "edit".into(),
        arguments: arguments.into_iter().map(|(name, value)| (name.to_string(), value)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(paths: &[&str]) -> Vec<String> {
        paths.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn places_as_tools_print_them() {
        let files = list(&["src/lib.rs", "tests/calc.rs", "test_a.py", "calc.py", "src/util/calc.py", "x.c"]);
        let found = |output| {
            places(&files, output).into_iter().map(|(p, l)| format!("{p} {l}")).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(found("panicked at tests/calc.rs:15:5:"), "tests/calc.rs 15");
        assert_eq!(found("error\n --> src/lib.rs:3:1"), "src/lib.rs 3");
        assert_eq!(found("  File \"/tmp/p/test_a.py\", line 7, in test"), "test_a.py 7");
        assert_eq!(found("at /tmp/p/src/util/calc.py:9"), "calc.py 9, src/util/calc.py 9");
        assert_eq!(found("test_ring: x.c:20: main: Assertion"), "x.c 20");
        assert_eq!(found("mycalc.py:3 and calc.py and lib.rs:4"), "");
    }

    #[test]
    fn what_is_read_before_a_revision() {
        let files = list(&["src/lib.rs", "tests/a.rs", "README.md"]);
        let reads = |named: &[&str], output: &str| {
            let survey = survey(&list(named), &files, "make test", output)?;
            let shown = |call: &ToolCall| {
                let get = |key: &str| call.arguments.get(key).cloned().unwrap_or_default();
                format!("{} {} {}", get("file_path"), get("offset"), get("limit")).replace('"', "")
            };
            Some((survey.file, survey.reads.iter().map(shown).collect::<Vec<_>>()))
        };
        let expected = |reads: &[&str]| Some(("src/lib.rs".to_string(), list(reads)));
        let output = "at tests/a.rs:30:5\nat tests/a.rs:5:1\nat tests/a.rs:80:2";
        assert_eq!(
            reads(&["src/lib.rs"], output),
            expected(&["tests/a.rs 1 8", "tests/a.rs 20 14", "tests/a.rs 70 14", "src/lib.rs null null"])
        );
        assert_eq!(
            reads(&[], "src/lib.rs:4:4\ntests/a.rs:30\ntests/a.rs:35\n"),
            expected(&["tests/a.rs 20 19", "src/lib.rs null null"])
        );
        assert_eq!(reads(&["tests/a.rs", "README.md"], "tests/a.rs:30:5"), None);
    }

    #[test]
    fn what_the_command_runs_judges_where_something_was_expected() {
        let files = list(&["calc.py", "check.py"]);
        let of = |command: &str, output: &str| survey(&[], &files, command, output).map(|found| found.file);
        let fails = "  File \"check.py\", line 2\n";
        assert_eq!(of("python3 check.py", &format!("{fails}AssertionError: 0")), None);
        assert_eq!(of("python3 check.py", &format!("{fails}KeyError: 'a'")).unwrap(), "check.py");
        let deeper = format!("{fails}  File \"calc.py\", line 1\nAssertionError");
        assert_eq!(of("python3 ./check.py", &deeper).unwrap(), "calc.py");
        let files = list(&["calc.py", "test_calc.py"]);
        let output = "test_calc.py\", line 5\ntest_calc.py\", line 90\n";
        let survey = Survey::of("calc.py".into(), &files, output);
        assert_eq!((survey.reads.len(), survey.after_head("test_calc.py").reads.len()), (3, 2));
        let files = list(&["calc.py", "check.py"]);
        let (teller, look) = teller(&[], &files, "python3 check.py", "AssertionError").unwrap();
        assert_eq!((teller.as_str(), &look.arguments["limit"]), ("check.py", &json!(HEAD)));
    }

    #[test]
    fn a_test_tells_what_it_is_about() {
        for (files, test, head, about) in [
            (&["calc.py", "util.py"][..], "check.py", "import unittest\nfrom util import x", "util.py"),
            (&["calc.py", "util.py"], "test_calc.py", "import pytest", "calc.py"),
            (
                &["src/a.js", "src/bitmap-rle.js"],
                "test/rle.test.js",
                "require('../src/bitmap-rle')",
                "src/bitmap-rle.js",
            ),
            (&["src/roman.js", "src/b.js"], "test/roman.test.js", "", "src/roman.js"),
            (&["src/lib.rs", "src/parse.rs"], "tests/t.rs", "use shop::parse::Line;", "src/parse.rs"),
            (&["src/lib.rs", "src/parse.rs"], "tests/t.rs", "use shop::Line;", "src/lib.rs"),
            (&["door.go", "main.go"], "door_test.go", "import \"testing\"", "door.go"),
            (&["ring.c", "ring.h"], "test_ring.c", "#include \"ring.h\"", "ring.c"),
            (&["cron.sh", "other.py"], "test_cron.sh", ". ./cron.sh", "cron.sh"),
            (&["snake.py"], "test_it.py", "", "snake.py"),
            (&["src/add.sh", "src/other.sh"], "check.sh", "[ $(sh src/add.sh 2 3) = 5 ]", "src/add.sh"),
            (&["main.py", "util.py"], "main.py", "import os\nimport sys", "main.py"),
        ] {
            assert_eq!(blamed(&list(files), test, head).as_deref(), Some(about), "{test}: {head}");
        }
        assert_eq!(blamed(&list(&["a.py", "b.py"]), "test_c.py", "import unittest"), None);
        assert_eq!(blamed(&list(&["test_c.py"]), "test_c.py", "import test_c"), None);
    }

    #[test]
    fn a_version_becomes_the_smallest_edit_that_tells_its_place() {
        let check = |old: &str, new: &str, from: &str, to: &str| {
            let call = edit_call("a", old, new);
            assert_eq!(call.arguments["old_string"], from);
            assert_eq!(call.arguments["new_string"], to);
            assert_eq!(old.replacen(from, to, 1), new);
        };
        check("a\nb\nc\n", "a\nB\nc\n", "b\n", "B\n");
        // The same line elsewhere: its neighbour tells which.
        check("a\nx\nb\nx\n", "a\nx\nb\ny\n", "b\nx\n", "b\ny\n");
        // New lines need an old one to stand by; lines that go need none.
        check("a\nb\n", "a\nn\nb\n", "a\n", "a\nn\n");
        check("a\nb\nc\n", "a\nc\n", "b\n", "");
        check("x\nx\n", "x\ny\n", "x\nx\n", "x\ny\n");
    }

    #[test]
    fn a_block_of_code_is_a_version_of_its_file() {
        let check = |answer: &str, request: &str, expect: Option<&str>| {
            assert_eq!(rewritten(answer, "a\nb\nc\nd\n", request).as_deref(), expect, "{answer}");
        };
        check("```py\na\nB\nc\nd\n```\nThat was it.", "change b", Some("a\nB\nc\nd\n"));
        check("Here:\n```\na\nb\nc\nd\ne\n\n```", "add e", Some("a\nb\nc\nd\ne\n"));
        check("```\na\nb\nc\nd\n```", "change b", None);
        check("```\na\n```", "change a", None);
        check("```\na\n```", "Remove all but a", Some("a\n"));
        check("```\n\n```", "delete it", None);
        check("I changed it.", "change b", None);
        assert_eq!(rewritten("```\nx\n```", "y", "").as_deref(), Some("x"));
        let old = "def f(a):\n    return a * 2\n\n\ndef g(a):\n    return a + 1\n";
        assert!(loses(old, &old.replace("    return a + 1\n", "    \"\"\"What is added.\"\"\"\n")));
        assert!(loses(old, "def f(a):\n    return a * 2\n"));
        assert!(!loses(old, &old.replace("a + 1", "1 + a").replace("f(a)", "f(b)")));
        assert!(!loses(old, &old.replace("def g", "# more\ndef g")));
    }

    proptest::proptest! {
        #[test]
        fn any_version_is_reached(old in "([ab]\n){1,8}", new in "([abc]\n){1,8}") {
            let call = edit_call("a", &old, &new);
            let get = |key: &str| call.arguments[key].as_str().unwrap().to_string();
            proptest::prop_assert_eq!(old.replacen(&get("old_string"), &get("new_string"), 1), new);
        }
    }
}
