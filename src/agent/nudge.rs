//! What helps small models at the end of a turn: three rules, each a few times a turn at most, over plain facts. A small
//! model often *shows* a change instead of making it, or stops before the test it was asked to run. Pure.

/// What the user's words ask for, read once a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    pub kind: Kind,
    /// A command or test the request names.
    pub check: Option<String>,
    /// The check as a command line, where the request names one.
    pub command: Option<String>,
    /// The command is to be run, and nothing else is asked for but what it says.
    pub runs: bool,
    /// What files there are is all that is asked for.
    pub lists: bool,
    /// What to search the files for before a question about them is answered.
    pub subject: Option<String>,
    /// Where that finds nothing: any of the words.
    pub words: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Question,
    Change,
    Unclear,
}

impl Wish {
    pub fn of(request: &str) -> Self {
        let check = named_check(request);
        let command = check.as_deref().and_then(|check| check.strip_prefix('`')?.strip_suffix('`'));
        let mut wish = Self {
            kind: kind(request),
            command: command.map(Into::into),
            check,
            runs: false,
            lists: false,
            subject: None,
            words: None,
        };
        let stems = stems(request);
        wish.lists = wish.kind == Kind::Question && lists(request);
        if !wish.lists {
            wish.subject = subject(&stems);
            wish.words = (!stems.is_empty()).then(|| format!("(?i){}", stems.join("|")));
        }
        let first = words(request).next().unwrap_or_default();
        if wish.kind != Kind::Change && matches!(first.as_str(), "run" | "execute" | "rerun") {
            // Whatever stands in the ticks is what to run here.
            let quoted = request.split('`').nth(1).filter(|_| request.matches('`').count() >= 2);
            wish.command = quoted.map(Into::into).or(wish.command);
            wish.runs = wish.command.is_some();
            wish.kind = if wish.runs { Kind::Question } else { wish.kind };
        }
        wish
    }

    /// Whether a command is named that shows what to change: a small model is then led (see `repair`).
    pub fn leads(&self) -> bool {
        self.kind == Kind::Change && self.command.is_some()
    }
}

/// What a request for a list of files speaks of, all the other words it is made of, and those that a place follows.
const LISTED: &[&str] = &["files", "directory", "directories", "folder", "folders"];
const LISTING: &[&str] = &[
    "a",
    "all",
    "any",
    "are",
    "can",
    "contain",
    "contains",
    "current",
    "do",
    "does",
    "exist",
    "give",
    "has",
    "have",
    "here",
    "i",
    "is",
    "it",
    "list",
    "me",
    "name",
    "names",
    "please",
    "project",
    "repository",
    "see",
    "show",
    "that",
    "the",
    "there",
    "this",
    "what",
    "which",
    "workspace",
    "you",
];
pub const WHERE: &[&str] = &["in", "under", "of", "inside"];

/// Whether what files there are is all that is asked for: there is no word that says anything else.
fn lists(request: &str) -> bool {
    let word = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    let words: Vec<String> = request.split_whitespace().map(word).collect();
    let speaks_of_files = words.iter().any(|word| LISTED.contains(&word.as_str()));
    let is_place = |at: usize| at > 0 && WHERE.contains(&words[at - 1].as_str());
    let known = |word: &str| [LISTED, LISTING, WHERE].iter().any(|list| list.contains(&word));
    speaks_of_files && words.iter().enumerate().all(|(at, word)| known(word) || is_place(at))
}

/// Words of a request that are looked for, at most, and the least letters of one.
const SUBJECT_WORDS: usize = 4;
const SUBJECT_LETTERS: usize = 4;

/// The request's own words, in any form.
fn stems(request: &str) -> Vec<String> {
    let mut stems: Vec<String> = Vec::new();
    for word in request.split(|c: char| !c.is_alphanumeric() && c != '_') {
        let word = word.to_lowercase();
        if word.chars().count() < SUBJECT_LETTERS || COMMON.contains(&word.as_str()) {
            continue;
        }
        let stem = ["ing", "es", "ed", "s", "e"].into_iter().find_map(|end| word.strip_suffix(end));
        let stem = stem.filter(|stem| stem.chars().count() >= SUBJECT_LETTERS).unwrap_or(&word);
        if !stems.iter().any(|known| known.starts_with(stem) || stem.starts_with(known.as_str())) {
            stems.push(stem.to_string());
        }
    }
    stems.truncate(SUBJECT_WORDS);
    stems
}

/// A regular expression for the lines where two of the words meet, in any order; `None` where there are fewer than two.
fn subject(stems: &[String]) -> Option<String> {
    let pairs: Vec<String> = stems
        .iter()
        .flat_map(|a| stems.iter().filter(move |b| *b != a).map(move |b| format!("{a}.*{b}")))
        .collect();
    (!pairs.is_empty()).then(|| format!("(?i){}", pairs.join("|")))
}

/// Words that a question is made of, and those that say where to look and not what for.
const COMMON: &[&str] = &[
    "what",
    "which",
    "where",
    "when",
    "that",
    "this",
    "these",
    "those",
    "there",
    "does",
    "with",
    "from",
    "have",
    "into",
    "how",
    "why",
    "who",
    "whose",
    "will",
    "would",
    "could",
    "should",
    "might",
    "must",
    "shall",
    "only",
    "than",
    "then",
    "they",
    "them",
    "their",
    "your",
    "about",
    "explain",
    "tell",
    "show",
    "please",
    "code",
    "project",
    "repository",
    "file",
    "files",
    "module",
    "modules",
    "function",
    "functions",
    "happens",
    "work",
    "works",
];

/// What happened so far in the turn, and what the model would end it with.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub wish: &'a Wish,
    pub answer: &'a str,
    pub changed: bool,
    /// Since the last change: did a command run, and did it succeed?
    pub last_run: Option<bool>,
    /// A write or a command was denied: asking again for it would only lead to another denial.
    pub denied: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nudge {
    NothingChanged,
    NotChecked,
    CheckFailed,
}

impl Nudge {
    /// How often in a turn. A failing check is worth several tries: each edit is another guess, and the check decides.
    pub fn most(self) -> usize {
        match self {
            Self::NothingChanged | Self::NotChecked => 3,
            Self::CheckFailed => 12,
        }
    }

    /// The name of its wording in `prompts/notes.md`.
    pub fn note(self) -> &'static str {
        match self {
            Self::NothingChanged => "nudge_nothing_changed",
            Self::NotChecked => "nudge_not_checked",
            Self::CheckFailed => "nudge_check_failed",
        }
    }
}

/// The nudge this ending deserves, if any.
pub fn nudge(facts: Facts<'_>) -> Option<Nudge> {
    if facts.denied {
        return None;
    }
    if !facts.changed {
        let shows = facts.answer.contains("```") || looks_like_json(facts.answer);
        let due = match facts.wish.kind {
            Kind::Change => true,
            Kind::Unclear => shows,
            Kind::Question => looks_like_call(facts.answer),
        };
        return due.then_some(Nudge::NothingChanged);
    }
    match facts.last_run {
        None if facts.wish.check.is_some() => Some(Nudge::NotChecked),
        Some(false) => Some(Nudge::CheckFailed),
        _ => None,
    }
}

fn looks_like_json(answer: &str) -> bool {
    answer.lines().any(|line| line.trim_start().starts_with("{\"") || line.trim() == "{")
}

fn looks_like_call(answer: &str) -> bool {
    let keys = ["\"name\"", "\"arguments\"", "\"file_path\"", "<function=", "<tool_call>"];
    (looks_like_json(answer) || answer.contains('<')) && keys.iter().any(|key| answer.contains(key))
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|w| !w.is_empty()).map(str::to_lowercase)
}

fn kind(request: &str) -> Kind {
    const QUESTION: &[&str] = &[
        "how",
        "what",
        "what's",
        "why",
        "which",
        "where",
        "who",
        "when",
        "is",
        "are",
        "does",
        "do",
        "explain",
        "describe",
        "tell",
        "show",
        "list",
        "summarise",
        "summarize",
        "find",
        "review",
        "count",
    ];
    const CHANGE: &[&str] = &[
        "fix",
        "add",
        "change",
        "implement",
        "make",
        "write",
        "create",
        "rename",
        "remove",
        "delete",
        "replace",
        "update",
        "refactor",
        "repair",
        "correct",
        "insert",
        "move",
        "convert",
        "edit",
        "extend",
        "improve",
        "set",
        "port",
        "extract",
        "simplify",
        "document",
        "bump",
        "use",
    ];
    let mut all = words(request);
    let Some(first) = all.next() else { return Kind::Unclear };
    if QUESTION.contains(&first.as_str()) {
        // "Find out why it fails and fix it" asks for a change all the same.
        let also_change = words(request).any(|word| word == "fix" || word == "repair");
        return if also_change && !request.trim_end().ends_with('?') { Kind::Change } else { Kind::Question };
    }
    if CHANGE.contains(&first.as_str()) || all.any(|word| CHANGE.contains(&word.as_str())) {
        Kind::Change
    } else if request.trim_end().ends_with('?') {
        Kind::Question
    } else {
        Kind::Unclear
    }
}

/// A command the request names (in back ticks, or a well-known one in plain words), else "the tests" where tests
/// are spoken of.
fn named_check(request: &str) -> Option<String> {
    const RUNNERS: &[&str] = &[
        "cargo",
        "npm",
        "pnpm",
        "yarn",
        "go",
        "pytest",
        "python",
        "python3",
        "make",
        "just",
        "node",
        "tox",
        "mvn",
        "gradle",
        "./gradlew",
        "ctest",
        "bash",
        "sh",
        "ruby",
        "bundle",
        "deno",
        "bun",
        "dotnet",
        "mix",
        "rake",
    ];
    const PLAIN: &[&str] = &[
        "cargo test",
        "cargo check",
        "cargo build",
        "cargo clippy",
        "cargo run",
        "npm test",
        "go test",
        "make test",
        "make check",
        "pytest",
    ];
    let quoted = request.split('`').skip(1).step_by(2).find(|span| {
        let first = span.split_whitespace().next().unwrap_or_default();
        RUNNERS.contains(&first) || first.starts_with("./")
    });
    if let Some(command) = quoted {
        return Some(format!("`{command}`"));
    }
    let lower = request.to_lowercase();
    if let Some(command) = PLAIN.iter().find(|command| lower.contains(**command)) {
        return Some(format!("`{command}`"));
    }
    words(request).any(|word| word == "test" || word == "tests").then(|| "the test".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_requests() {
        use Kind::*;
        for (request, expected) in [
            ("Fix the failing test", Change),
            ("The test fails, please fix it.", Change),
            ("Can you rename foo to bar?", Change),
            ("Find out why it crashes and fix it", Change),
            ("Which module may spawn processes?", Question),
            ("How do I add a flag?", Question),
            ("Explain parse()", Question),
            ("The parser crashes on empty input.", Unclear),
            ("", Unclear),
        ] {
            assert_eq!(kind(request), expected, "{request}");
        }
    }

    #[test]
    fn a_command_to_run_is_no_change_and_needs_no_known_name() {
        let runs = |request: &str| {
            let wish = Wish::of(request);
            wish.runs.then_some((wish.kind, wish.command.unwrap_or_default()))
        };
        let ls = Some((Kind::Question, "ls -la".to_string()));
        assert_eq!(runs("Run `ls -la`."), ls);
        assert_eq!(runs("run `ls -la` and tell me what it prints"), ls);
        assert_eq!(runs("Run cargo test").map(|(_, command)| command).as_deref(), Some("cargo test"));
        assert_eq!(runs("Run `make test` and fix what fails"), None);
        assert_eq!(runs("Run it"), None);
        assert_eq!(runs("Run the `main"), None);
    }

    #[test]
    fn named_checks() {
        for (request, expected) in [
            ("Fix it and run `cargo test --lib`.", Some("`cargo test --lib`")),
            ("make go test pass", Some("`go test`")),
            ("Fix `parse` so that the test passes", Some("the test")),
            ("Fix `parse`", None),
            ("see `src/latest.rs`", None),
        ] {
            assert_eq!(named_check(request).as_deref(), expected, "{request}");
        }
    }

    #[test]
    fn each_rule_and_its_opposite() {
        let change = Wish::of("Fix add and run `cargo test`");
        let plain = Wish::of("Fix add");
        let question = Wish::of("What does add do?");
        let unclear = Wish::of("parse crashes");
        let facts =
            |wish, answer, changed, last_run| Facts { wish, answer, changed, last_run, denied: false };
        let cases = [
            (facts(&change, "Here it is", false, None), Some(Nudge::NothingChanged)),
            (facts(&change, "done", true, None), Some(Nudge::NotChecked)),
            (facts(&change, "done", true, Some(true)), None),
            (facts(&change, "done", true, Some(false)), Some(Nudge::CheckFailed)),
            (facts(&plain, "done", true, None), None),
            (facts(&question, "```rust\nfn add()\n```", false, None), None),
            (facts(&question, "{\"name\": \"read_file\"", false, None), Some(Nudge::NothingChanged)),
            (facts(&unclear, "It overflows.", false, None), None),
            (facts(&unclear, "```\nx\n```", false, None), Some(Nudge::NothingChanged)),
        ];
        for (facts, expected) in cases {
            assert_eq!(nudge(facts), expected, "{facts:?}");
        }
        assert_eq!(nudge(Facts { denied: true, ..facts(&change, "x", false, None) }), None);
    }

    #[test]
    fn a_question_is_searched_for_by_the_words_that_are_its_own() {
        let subject = |request| subject(&stems(request));
        assert_eq!(
            subject("Which module may spawn processes?").as_deref(),
            Some("(?i)spawn.*process|process.*spawn")
        );
        assert_eq!(subject("What does this do?"), None);
        assert_eq!(subject("How are tokens sampled?").as_deref(), Some("(?i)token.*sampl|sampl.*token"));
        assert_eq!(subject("Processing and process"), None);
        assert_eq!(Wish::of("Where are orders paid?").words.as_deref(), Some("(?i)order|paid"));
        assert_eq!(Wish::of("What is it?").words, None);
        for (request, lists) in [
            ("list the files here", true),
            ("Which files are in this directory?", true),
            ("What files does the project have?", true),
            ("list all files in src", true),
            ("list files in src/agent", true),
            ("Which files use the parser?", false),
            ("Which files use the API?", false),
            ("Which files have a bug?", false),
            ("Explain how files work in this project", false),
            ("What does this code do with the files?", false),
            ("List the functions here", false),
            ("Delete the files here", false),
        ] {
            assert_eq!(Wish::of(request).lists, lists, "{request}");
        }
    }
}
