//! What a version of a text is, told by its lines and words alone, in any language: what counts of it, what kind of
//! mistake one token for another would be, and where what was written meets the text again. Pure.

/// Lines of the text behind the place of departure among which a version may meet it again.
const REACH: usize = 8;

pub(super) fn is_comment(line: &str) -> bool {
    let line = line.trim_start();
    ["//", "#", "/*", "* ", "--", "\"\"\""].iter().any(|mark| line.starts_with(mark))
        && !line.starts_with("#[")
        && !line.starts_with("#include")
        && !line.starts_with("#define")
}

/// How much likelier than the model says a mistake of this kind is, in units of log-probability. People write one
/// operator, number or name for another of its kind far oftener than anything else (the mutation operators of DeMillo,
/// Lipton and Sayward, 1978); a model that writes a text again is at least as ready to say the same in other words.
pub(super) fn kinship(text: &str, token: &[u8], other: &[u8]) -> f32 {
    let trimmed = |token: &[u8]| String::from_utf8_lossy(token).trim().trim_start_matches('.').to_string();
    let kind = |token: &str| {
        let all = |of: &dyn Fn(char) -> bool| !token.is_empty() && token.chars().all(of);
        if all(&|c| "+-*/%<>=!&|^~".contains(c)) {
            Some(Kind::Operator)
        } else if all(&|c| c.is_ascii_digit() || c == '_') {
            Some(Kind::Number)
        } else if all(&|c| c.is_alphanumeric() || c == '_') && !KEYWORDS.contains(&token) {
            Some(Kind::Name)
        } else {
            None
        }
    };
    let (token, other) = (trimmed(token), trimmed(other));
    match (kind(&token), kind(&other)) {
        (Some(Kind::Operator), Some(Kind::Operator)) => 2.5,
        (Some(Kind::Number), Some(Kind::Number)) => 1.5,
        // A name that the text knows; a new one is most often another word for the same.
        (Some(Kind::Name), Some(Kind::Name)) if knows(text, &other) => 2.0,
        (Some(Kind::Name), Some(Kind::Name)) => 0.5,
        _ => 0.0,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Operator,
    Number,
    Name,
}

/// Whether `name` stands in the text as a word of its own.
fn knows(text: &str, name: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name)
        .any(|(at, _)| !text[..at].ends_with(word) && !text[at + name.len()..].starts_with(word))
}

pub(super) fn is_head(line: &str) -> bool {
    const HEADS: &[&str] = &[
        "use ",
        "import ",
        "from ",
        "#",
        "struct ",
        "class ",
        "enum ",
        "impl",
        "mod ",
        "fn ",
        "def ",
        "function ",
    ];
    let line = line.trim_start().trim_start_matches("pub ").trim_start_matches("export ");
    HEADS.iter().any(|head| line.starts_with(head))
}

/// Words with which code goes on in another way, rather than names of things.
const KEYWORDS: &[&str] = &[
    "and", "const", "def", "do", "elif", "else", "fn", "for", "function", "if", "import", "in", "let",
    "local", "match", "mut", "not", "or", "return", "self", "then", "this", "use", "var", "while",
];

/// Whether putting `other` for `token` could change what the text does.
pub(super) fn tells(other: &[u8], token: &[u8]) -> bool {
    let (other, token) = (String::from_utf8_lossy(other), String::from_utf8_lossy(token));
    other.trim() != token.trim() && !is_comment(&other) && !other.trim_start().starts_with("``")
}

/// What of a text counts: two versions that differ in blank lines, comment lines and trailing blanks are one.
pub(super) fn essence(text: &str) -> String {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !is_comment(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// `text` up to byte `start`, then `written`, then the rest of `text` from where `written` came back to it: its last
/// whole line is one of the text's, a line that could not be anywhere or the very one that had to follow.
pub(super) fn rejoin(text: &str, start: usize, written: &str) -> Option<String> {
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let first = text[..start].matches('\n').count();
    if let Some((end, _)) = written.split_once("```") {
        // The fence closes the text: nothing but closing lines may have gone.
        let version = format!("{}{end}", &text[..start]);
        let gone = text.lines().count().abs_diff(version.lines().count());
        return (gone <= 1 && version != text).then_some(version);
    }
    if !written.ends_with('\n') {
        return None;
    }
    let tail = format!("{}{written}", &text[line_start..start]);
    let new: Vec<&str> = tail.split_inclusive('\n').collect();
    let old: Vec<&str> = text.split_inclusive('\n').collect();
    let last = *new.last()?;
    let telling = last.chars().filter(|c| c.is_alphanumeric()).count() > 1;
    let same = |line: usize| old.get(line) == Some(&last);
    // As many lines as before; else lines came or went.
    let even = first + new.len() - 1;
    let joint = if new.len() > 1 && same(even) {
        even
    } else {
        let from = if new.len() == 1 { first + 1 } else { first };
        (from..=first + REACH).find(|&line| same(line) && (telling || line == first))?
    };
    let rest: String = old[joint..].concat();
    let version = format!("{}{}{rest}", &text[..line_start], new[..new.len() - 1].concat());
    (version != text).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "fn add(a: u8) {\n    let b = a + 1;\n    if b > 2 {\n        run(b);\n    }\n}\n";

    /// `from` is where the version leaves the text.
    fn check(from: &str, written: &str, expected: Option<&str>) {
        let start = TEXT.find(from).unwrap();
        assert_eq!(rejoin(TEXT, start, written).as_deref(), expected, "{written:?}");
    }

    #[test]
    fn versions_meet_the_text_again() {
        // A change within a line: the next line must be the one that stood there, however little it says.
        check("+ 1;", "- 1;\n", None);
        check("+ 1;", "- 1;\n    if b > 2 {\n", Some(&TEXT.replace("+ 1", "- 1")));
        check("run(b);\n", "go(b);\n    }\n", Some(&TEXT.replace("run", "go")));
        // New lines.
        check(
            "    if b",
            "    let c = 1;\n    if b > 2 {\n",
            Some(&TEXT.replace("    if", "    let c = 1;\n    if")),
        );
        check(
            "    }\n}",
            "        b += 1;\n    }\n",
            Some(&TEXT.replace("    }\n}", "        b += 1;\n    }\n}")),
        );
        // A line that went.
        check("    let b", "    if b > 2 {\n", Some(&TEXT.replace("    let b = a + 1;\n", "")));
        // Nothing new, or the end too early.
        check("    let b", "    let b = a + 1;\n    if b > 2 {\n", None);
        check("run(b)", "run(b);\n```", None);
        check("}\n}", "}\n}}\n```", Some(&TEXT.replace("}\n}", "}\n}}")));
    }

    #[test]
    fn what_does_not_count_makes_no_version() {
        assert_eq!(essence("a\n\n  // x\nb  \n"), essence("a\nb"));
        assert_ne!(essence("a\n b"), essence("a\nb"));
        assert!(
            tells(b" *", b" +") && !tells(b"+ ", b" +") && !tells(b" // why", b" x") && !tells(b"```", b"x")
        );
        assert!(!is_comment("#[test]") && is_comment("  # why"));
    }

    #[test]
    fn mistakes_of_a_kind() {
        let text = "let end = start + total;\n";
        let bonus = |token: &str, other: &str| kinship(text, token.as_bytes(), other.as_bytes());
        assert!(bonus(" >=", " >") > bonus(" start", "end") && bonus(" start", " end") > bonus("1", "0"));
        assert!(bonus(".start", " end") > bonus("start", "ends") && bonus("start", " tot") > 0.0);
        for (token, other) in [(" +", " x"), ("total", " let"), (") {", " &&"), ("\n", " ")] {
            assert_eq!(bonus(token, other), 0.0, "{token} {other}");
        }
        assert!(is_head("    pub fn a() {") && is_head("#[derive(Debug)]") && !is_head("    from_here();"));
    }
}
