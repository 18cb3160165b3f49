//! What the parts of a text are, for colours: the grammar's own query, its many names brought down to the few kinds that
//! a screen tells apart. Which colour a kind has is the front end's.

use super::{Deadline, Language, Parsed};
use std::cmp::Reverse;
use std::ops::Range;
use std::sync::OnceLock;
use tree_sitter::{Query, QueryCursor, QueryCursorOptions, QueryCursorState, StreamingIterator};

/// Patterns that may be half matched at a time.
const HALF_MATCHED: u32 = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Keyword,
    String,
    Comment,
    Number,
    Function,
    Type,
}

/// Bytes that are of one class. What lies between runs is plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub start: usize,
    pub end: usize,
    pub class: Class,
}

struct Paint {
    query: Query,
    /// Of each capture: what it paints. A plain part in a string is painted too, plainly.
    classes: Vec<Option<Class>>,
}

/// A query takes longer to prepare than a file to parse, so each is prepared once.
static PAINTS: [OnceLock<Option<Paint>>; Language::ALL.len()] =
    [const { OnceLock::new() }; Language::ALL.len()];

fn paint(language: Language) -> Option<&'static Paint> {
    let prepare = || {
        let query = Query::new(&language.grammar(), &language.highlights()).ok()?;
        let classes = query.capture_names().iter().map(|name| class(name)).collect();
        Some(Paint { query, classes })
    };
    PAINTS[language as usize].get_or_init(prepare).as_ref()
}

fn class(name: &str) -> Option<Class> {
    let first = name.split('.').next().unwrap_or_default();
    match first {
        // The keys of JSON and TOML.
        _ if name == "string.special.key" => Some(Class::Function),
        "keyword" => Some(Class::Keyword),
        "string" => Some(Class::String),
        "comment" => Some(Class::Comment),
        "number" | "boolean" | "constant" | "escape" => Some(Class::Number),
        "function" | "tag" => Some(Class::Function),
        "type" | "constructor" => Some(Class::Type),
        _ => None,
    }
}

impl Parsed<'_> {
    /// The runs that lie in `ranges` (bytes, ascending), in order; none overlap.
    pub fn highlights(&self, ranges: &[Range<usize>]) -> Vec<Run> {
        let Some(paint) = paint(self.language) else { return Vec::new() };
        let deadline = Deadline::after(self.patience);
        let mut runs = Vec::new();
        for range in ranges {
            let mut captures = self.captures(paint, range, deadline);
            // The outer before the inner, and on one node the later pattern last: what comes later paints over. That
            // something is but a name or a sign paints over nothing, for grammars say so early or late.
            captures.sort_by_key(|capture| {
                (capture.start, Reverse(capture.end), capture.class.is_some(), capture.pattern)
            });
            lay(&captures, range, &mut runs);
        }
        runs
    }

    fn captures(&self, paint: &Paint, range: &Range<usize>, deadline: Deadline) -> Vec<Capture> {
        let mut cursor = QueryCursor::new();
        cursor.set_match_limit(HALF_MATCHED);
        cursor.set_byte_range(range.clone());
        let mut progress = |_: &QueryCursorState| deadline.check();
        let options = QueryCursorOptions::new().progress_callback(&mut progress);
        let root = self.tree.root_node();
        let mut matches = cursor.matches_with_options(&paint.query, root, self.text.as_bytes(), options);
        let mut captures = Vec::new();
        while let Some(found) = matches.next() {
            captures.extend(found.captures.iter().map(|capture| Capture {
                start: capture.node.start_byte(),
                end: capture.node.end_byte(),
                pattern: found.pattern_index,
                class: paint.classes.get(capture.index as usize).copied().flatten(),
            }));
        }
        captures
    }
}

struct Capture {
    start: usize,
    end: usize,
    pattern: usize,
    class: Option<Class>,
}

/// Nested captures as runs side by side, clipped to `range`. Linear, however deep they nest.
fn lay(captures: &[Capture], range: &Range<usize>, runs: &mut Vec<Run>) {
    let mut open: Vec<&Capture> = Vec::new();
    let mut at = range.start;
    let mut emit = |at: &mut usize, to: usize, class: Option<Class>| {
        let (start, end) = (*at, to.min(range.end));
        if start >= end {
            return;
        }
        *at = end;
        let Some(class) = class else { return };
        match runs.last_mut() {
            Some(last) if last.end == start && last.class == class => last.end = end,
            _ => runs.push(Run { start, end, class }),
        }
    };
    for capture in captures {
        while let Some(top) = open.pop_if(|top| top.end <= capture.start) {
            emit(&mut at, top.end, top.class);
        }
        emit(&mut at, capture.start, open.last().and_then(|top| top.class));
        open.push(capture);
    }
    while let Some(top) = open.pop() {
        emit(&mut at, top.end, top.class);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(language: Language, text: &str) -> String {
        let parsed = Parsed::new(language, text).unwrap();
        let runs = parsed.highlights(std::slice::from_ref(&(0..text.len())));
        let run = |run: &Run| format!("{:?}:{}", run.class, &text[run.start..run.end]);
        runs.iter().map(run).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_query_fits_its_grammar() {
        for language in Language::ALL {
            let query = Query::new(&language.grammar(), &language.highlights());
            assert!(query.is_ok(), "{language:?}: {query:?}");
        }
    }

    #[test]
    fn each_language_has_its_colours() {
        let cases = [
            (Language::Rust, "fn f() { 1 } // c", "Keyword:fn Function:f Number:1 Comment:// c"),
            (Language::Python, "def f(): return 'a'", "Keyword:def Function:f Keyword:return String:'a'"),
            (Language::JavaScript, "const f = `a${1}`", "Keyword:const String:`a Number:1 String:`"),
            (Language::TypeScript, "type A = string", "Keyword:type Type:A Type:string"),
            (Language::Tsx, "const a = <p>x</p>", "Keyword:const Function:p Function:p"),
            (Language::Go, "func f() {}", "Keyword:func Function:f"),
            (
                Language::C,
                "int f(void) { return 1; }",
                "Type:int Function:f Type:void Keyword:return Number:1",
            ),
            (Language::Cpp, "class A {};", "Keyword:class Type:A"),
            (Language::Java, "class A { int b; }", "Keyword:class Type:A Type:int"),
            (
                Language::Shell,
                "if true; then echo 'a'; fi",
                "Keyword:if Function:true Keyword:then Function:echo String:'a' Keyword:fi",
            ),
            (Language::Json, "{\"a\": 1}", "Function:\"a\" Number:1"),
            (Language::Toml, "a = 'b' # c", "Type:a String:'b' Comment:# c"),
        ];
        for (language, text, expected) in cases {
            assert_eq!(shown(language, text), expected, "{language:?}");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_painted() {
        let text = "/* a\nb\nc */\nfn f() {}\n";
        let parsed = Parsed::new(Language::Rust, text).unwrap();
        let runs = parsed.highlights(&[5..7, 12..14]);
        let expected = [(5, 7, Class::Comment), (12, 14, Class::Keyword)];
        assert_eq!(runs, expected.map(|(start, end, class)| Run { start, end, class }));
    }
}
