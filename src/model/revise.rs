//! A search for a better version of a text. The model is shown a text, as if it had begun to write it again; where it
//! would rather have gone on in another way, that other way is followed until it meets the text again. The versions come
//! the likeliest first, each once: sampling without replacement (Kool, van Hoof and Welling, 2019: a Gumbel number on
//! each branch), at the price of one prefill of the text and a short decode for each version, in which the text itself
//! is the draft. Whether a version is any good is for the caller to find out: a test, say.

use crate::engine::backend::Backend;
use crate::engine::sampler::uniform;
use crate::engine::score::likeliest;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::{EngineError, Sequence, TokenId, Want};
use crate::model::Usage;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::atomic::AtomicBool;

/// Other tokens that are considered at a place of the text, and at one of a version.
const OTHERS: usize = 8;
const SIBLINGS: usize = 3;
/// The first tokens of a version at which it may branch again.
const BRANCHING: usize = 5;
/// Tokens of a version between the place where it leaves the text and the place where it meets it again.
const LONGEST: usize = 96;
/// Tokens of the text that are offered as what comes next.
const DRAFT: usize = 16;
/// Lines of the text behind the place of departure among which a version may meet it again.
const REACH: usize = 8;
/// Room in the sequence that a version can need beside the text.
pub const SLACK: usize = LONGEST + DRAFT + 8;

/// What each version of a line that came, and so was of no use, takes from the others that leave the text there, in
/// units of log-probability: the fault is the less likely to lie there.
const STALE: f32 = 0.5;

/// What each line that a version changes beyond the first takes: most mistakes lie in one line (Karampatsis and Sutton,
/// 2020), and what a model rewrites at length says the same in other words.
const LINE: f32 = 1.5;
/// What a line takes that declares something, an import or a head of a function: code that runs and is wrong is
/// seldom wrong there.
const HEAD: f32 = 2.0;

/// A branch: `path` instead of the text's tokens from `at` on.
#[derive(Debug, Clone, Default, PartialEq)]
struct Branch {
    /// Log-probability against that of the text as it stands, with `luck`, less what versions of its line took.
    score: f32,
    /// The Gumbel number of the branch, times the temperature.
    luck: f32,
    at: usize,
    path: Vec<TokenId>,
    /// Versions of its line that took from the score.
    charged: usize,
    /// The whole version, where the branch was followed to its end.
    done: Option<String>,
}

impl Eq for Branch {}
impl Ord for Branch {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let by_place = || other.at.cmp(&self.at).then_with(|| other.path.cmp(&self.path));
        self.score.total_cmp(&other.score).then_with(by_place)
    }
}
impl PartialOrd for Branch {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

pub struct Search {
    text: String,
    /// Tokens of the text and of the fence that closes it.
    body: Vec<TokenId>,
    /// Where in the text each token begins.
    starts: Vec<usize>,
    /// Tokens in the sequence before the text.
    base: usize,
    seed: u64,
    temperature: f32,
    branches: BinaryHeap<Branch>,
    /// Versions that came, and the text itself, without what does not count.
    seen: HashSet<String>,
    /// Versions that came, by the line in which they leave the text.
    came: HashMap<usize, usize>,
}

/// What the search works with.
pub struct Means<'a> {
    pub engine: &'a mut dyn Backend,
    pub sequence: &'a mut Sequence,
    pub tokenizer: &'a Tokenizer,
    /// The text is offered as what a version goes on with; the versions are the same without.
    pub drafts: bool,
    pub cancel: &'a AtomicBool,
}

impl Search {
    /// Appends `text` and the fence `close` to the sequence, scoring it. Only what stands before byte `until` may
    /// change. `None` if the tokens do not give the text back (it is not in the tokenizer's normal form).
    pub fn start(
        text: &str,
        close: &str,
        until: usize,
        (seed, temperature): (u64, f32),
        means: &mut Means<'_>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Option<Self>, EngineError> {
        let body = means.tokenizer.encode(&format!("{text}{close}"), false);
        if means.tokenizer.decode(&body) != format!("{text}{close}") {
            return Ok(None);
        }
        let base = means.sequence.tokens().len();
        // The last token before the text predicts its first: it is run again.
        let Some(&before) = means.sequence.tokens().last() else { return Ok(None) };
        means.sequence.truncate(base - 1);
        let mut tokens = vec![before];
        tokens.extend_from_slice(&body);
        let total = tokens.len();
        let scored =
            means.engine.append_scored(means.sequence, &tokens, OTHERS, means.cancel, &mut |done| {
                progress(done, total);
            })?;
        let mut starts = Vec::with_capacity(body.len());
        let mut at = 0;
        for &id in &body {
            starts.push(at);
            at += means.tokenizer.bytes(id).len();
        }
        let seen = HashSet::from([essence(text)]);
        let mut search = Self {
            text: text.to_string(),
            body,
            starts,
            base,
            seed,
            temperature,
            branches: BinaryHeap::new(),
            seen,
            came: HashMap::new(),
        };
        for (at, place) in scored.iter().enumerate() {
            let start = search.starts[at];
            let token = means.tokenizer.bytes(search.body[at]);
            if start >= until || search.in_comment(start, token) {
                continue;
            }
            let line = search.text[..start].rfind('\n').map_or(0, |at| at + 1);
            let head = if is_head(&search.text[line..]) { HEAD } else { 0.0 };
            for &(id, logprob) in &place.others {
                if tells(means.tokenizer.bytes(id), token) && !means.tokenizer.never_sampled(id) {
                    let other = means.tokenizer.bytes(id);
                    let known = kinship(&search.text, token, other);
                    search.branch(logprob - place.logprob + known - head, at, vec![id], 0);
                }
            }
        }
        Ok(Some(search))
    }

    /// Tokens in the sequence while no version is tried.
    pub fn len(&self) -> usize {
        self.base + self.body.len()
    }

    /// The next version; what was decoded for it is added to `usage`. `None`: there are no more.
    pub fn next(&mut self, means: &mut Means<'_>, usage: &mut Usage) -> Result<Option<String>, EngineError> {
        while let Some(mut branch) = self.branches.pop() {
            let line = self.line(branch.at);
            let came = self.came.get(&line).copied().unwrap_or(0);
            if came > branch.charged {
                branch.score -= STALE * (came - branch.charged) as f32;
                branch.charged = came;
                self.branches.push(branch);
                continue;
            }
            if let Some(version) = branch.done.take() {
                if self.seen.insert(essence(&version)) {
                    self.came.insert(line, came + 1);
                    return Ok(Some(version));
                }
                continue;
            }
            let mut tried = means.sequence.fork(self.base + branch.at);
            std::mem::swap(means.sequence, &mut tried);
            let followed = self.follow(&mut branch, means, usage);
            *means.sequence = tried;
            if followed? {
                self.branches.push(branch);
            }
        }
        Ok(None)
    }

    fn line(&self, at: usize) -> usize {
        self.text[..self.starts[at].min(self.text.len())].matches('\n').count()
    }

    /// Decodes on from a branch, the likeliest token each time, until the version meets the text again, or until
    /// another branch is likelier. False if it leads nowhere.
    fn follow(
        &mut self,
        branch: &mut Branch,
        means: &mut Means<'_>,
        usage: &mut Usage,
    ) -> Result<bool, EngineError> {
        let vocab = means.engine.config().vocab;
        let mut written: Vec<TokenId> = branch.path.clone();
        let mut feed = branch.path.clone();
        // A single token in place of another most often leaves the rest of the line as it is.
        let mut draft: Vec<TokenId> = match branch.path.len() {
            1 => self.body[branch.at + 1..].iter().copied().take(DRAFT).collect(),
            _ => Vec::new(),
        };
        loop {
            if !means.drafts {
                draft.clear();
            }
            let mut tokens = feed.clone();
            tokens.extend_from_slice(&draft);
            usage.rejected += draft.len();
            let start = means.sequence.tokens().len();
            let logits =
                means.engine.append(means.sequence, &tokens, Want::All, means.cancel, &mut |_| {})?;
            let mut agreed = 0;
            let last = loop {
                let row = &logits[(feed.len() - 1 + agreed) * vocab..][..vocab];
                let mut best = likeliest(row, SIBLINGS + 1);
                best.retain(|(id, _)| !means.tokenizer.never_sampled(*id));
                let Some(&(token, logprob)) = best.first() else { return Ok(false) };
                let right = draft.get(agreed) == Some(&token);
                usage.completion += 1;
                usage.drafted += usize::from(right);
                usage.rejected -= usize::from(right);
                if means.tokenizer.stops().contains(&token) {
                    return Ok(false);
                }
                if written.len() < BRANCHING {
                    for &(id, other) in &best[1..] {
                        let mut path = written.clone();
                        path.push(id);
                        self.branch(branch.score - branch.luck + other, branch.at, path, branch.charged);
                    }
                }
                branch.score += logprob;
                written.push(token);
                branch.done = rejoin(&self.text, self.starts[branch.at], &means.tokenizer.decode(&written));
                if branch.done.is_some() {
                    return Ok(true);
                }
                if written.len() >= LONGEST {
                    return Ok(false);
                }
                if means.tokenizer.bytes(token).contains(&b'\n')
                    && means.tokenizer.decode(&written).matches('\n').count() > 1
                {
                    branch.score -= LINE;
                }
                if !right {
                    break token;
                }
                agreed += 1;
            };
            if self.branches.peek().is_some_and(|other| other.score > branch.score) {
                branch.path = written;
                return Ok(true);
            }
            means.sequence.truncate(start + feed.len() + agreed);
            feed = vec![last];
            draft = self.guess(branch.at, &written, means.tokenizer);
        }
    }

    /// At the start of a line: the text from the line on that follows if lines were changed and none added.
    fn guess(&self, at: usize, written: &[TokenId], tokenizer: &Tokenizer) -> Vec<TokenId> {
        let written = tokenizer.decode(written);
        if !written.ends_with('\n') {
            return Vec::new();
        }
        let line = self.text[..self.starts[at]].matches('\n').count() + written.matches('\n').count();
        let rest: String = self.text.split_inclusive('\n').skip(line).take(3).collect();
        let mut tokens = tokenizer.encode(&rest, false);
        tokens.truncate(DRAFT);
        tokens
    }

    fn branch(&mut self, plain: f32, at: usize, path: Vec<TokenId>, charged: usize) {
        let place = path.iter().fold(at as u64, |hash, &id| hash.wrapping_mul(0x100_0193) ^ u64::from(id));
        let gumbel = -(-uniform(self.seed, place).max(1e-12).ln()).ln();
        let luck = self.temperature * gumbel as f32;
        self.branches.push(Branch { score: plain + luck, luck, at, path, charged, done: None });
    }

    fn in_comment(&self, start: usize, token: &[u8]) -> bool {
        let line = self.text[..start.min(self.text.len())].rsplit('\n').next().unwrap_or_default();
        is_comment(&format!("{line}{}", String::from_utf8_lossy(token)))
    }
}

fn is_comment(line: &str) -> bool {
    let line = line.trim_start();
    ["//", "#", "/*", "* ", "--", "\"\"\""].iter().any(|mark| line.starts_with(mark))
        && !line.starts_with("#[")
        && !line.starts_with("#include")
        && !line.starts_with("#define")
}

/// How much likelier than the model says a mistake of this kind is, in units of log-probability. People write one
/// operator, number or name for another of its kind far oftener than anything else (the mutation operators of DeMillo,
/// Lipton and Sayward, 1978); a model that writes a text again is at least as ready to say the same in other words.
fn kinship(text: &str, token: &[u8], other: &[u8]) -> f32 {
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

fn is_head(line: &str) -> bool {
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
fn tells(other: &[u8], token: &[u8]) -> bool {
    let (other, token) = (String::from_utf8_lossy(other), String::from_utf8_lossy(token));
    other.trim() != token.trim() && !is_comment(&other) && !other.trim_start().starts_with("``")
}

/// What of a text counts: two versions that differ in blank lines, comment lines and trailing blanks are one.
fn essence(text: &str) -> String {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !is_comment(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// `text` up to byte `start`, then `written`, then the rest of `text` from where `written` came back to it: its last
/// whole line is one of the text's, a line that could not be anywhere or the very one that had to follow.
fn rejoin(text: &str, start: usize, written: &str) -> Option<String> {
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

    #[test]
    fn branches_come_in_order_of_their_score() {
        let branch = |score, at| Branch { score, at, path: vec![1], ..Branch::default() };
        let mut heap = BinaryHeap::from([branch(-2.0, 1), branch(-1.0, 9), branch(-1.0, 3)]);
        assert_eq!(heap.pop(), Some(branch(-1.0, 3)));
        assert_eq!(heap.pop(), Some(branch(-1.0, 9)));
    }
}
