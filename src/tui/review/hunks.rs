//! One file's change as hunks that are accepted or not, and the text that comes of it, byte for byte. Lines end at `\n`
//! alone, so that a carriage return stays part of its line. Pure.

use crate::agent::protocol::Change;
use crate::syntax::Language;
use crate::tui::highlight::Highlighted;
use similar::{Algorithm, DiffOp, DiffTag, TextDiff, capture_diff_slices_deadline, group_diff_ops};
use std::ops::Range;
use std::time::{Duration, Instant};

const CONTEXT: usize = 3;
/// Two huge, unlike texts are compared more coarsely after this long.
const PATIENCE: Duration = Duration::from_secs(1);
/// Lines that have less in common than this are shown as two lines, not as one that changed.
const ALIKE: f32 = 0.3;
/// What is compared within a line.
const LONG_LINE: usize = 2000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    Rejected,
    /// In place of the new lines of the whole hunk, its context too.
    Edited(String),
}

#[derive(Debug, Clone)]
pub struct Hunk {
    pub ops: Vec<DiffOp>,
    pub verdict: Option<Verdict>,
}

#[derive(Debug, Clone)]
pub struct FileReview {
    pub change: Change,
    pub hunks: Vec<Hunk>,
    pub added: usize,
    pub removed: usize,
}

pub fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

impl Hunk {
    pub fn before(&self) -> Range<usize> {
        self.ops.first().map_or(0, |op| op.old_range().start)
            ..self.ops.last().map_or(0, |op| op.old_range().end)
    }

    pub fn after(&self) -> Range<usize> {
        self.ops.first().map_or(0, |op| op.new_range().start)
            ..self.ops.last().map_or(0, |op| op.new_range().end)
    }
}

impl FileReview {
    pub fn new(change: Change) -> Self {
        let (before, after) = (change.before.as_deref().unwrap_or(""), change.after.as_deref().unwrap_or(""));
        let (old, new) = (lines(before), lines(after));
        let until = Instant::now() + PATIENCE;
        let ops = capture_diff_slices_deadline(Algorithm::Myers, &old, &new, Some(until));
        let count = |tag: DiffTag, of: fn(&DiffOp) -> usize| {
            ops.iter().filter(|op| op.tag() == tag || op.tag() == DiffTag::Replace).map(of).sum()
        };
        let added = count(DiffTag::Insert, |op| op.new_range().len());
        let removed = count(DiffTag::Delete, |op| op.old_range().len());
        let groups = group_diff_ops(ops, CONTEXT);
        let mut hunks: Vec<Hunk> = groups.into_iter().map(|ops| Hunk { ops, verdict: None }).collect();
        if hunks.is_empty() {
            // An empty file made or deleted: there is one thing to decide all the same.
            hunks.push(Hunk { ops: Vec::new(), verdict: None });
        }
        Self { change, hunks, added, removed }
    }

    /// Both sides in colours, where they are shown.
    pub fn highlighted(&self) -> (Highlighted, Highlighted) {
        let language = Language::of_path(&self.change.path);
        let side = |text: &Option<String>, lines: fn(&Hunk) -> Range<usize>| {
            let lines: Vec<_> = self.hunks.iter().map(lines).collect();
            Highlighted::of_lines(language, text.as_deref().unwrap_or(""), &lines)
        };
        (side(&self.change.before, Hunk::before), side(&self.change.after, Hunk::after))
    }

    pub fn old_lines(&self) -> Vec<&str> {
        lines(self.change.before.as_deref().unwrap_or(""))
    }

    pub fn new_lines(&self) -> Vec<&str> {
        lines(self.change.after.as_deref().unwrap_or(""))
    }

    /// The new side of a hunk, to edit it.
    pub fn new_text(&self, hunk: usize) -> String {
        match &self.hunks[hunk].verdict {
            Some(Verdict::Edited(text)) => text.clone(),
            _ => self.new_lines()[self.hunks[hunk].after()].concat(),
        }
    }

    /// All hunks are taken as they are.
    pub fn is_whole(&self) -> bool {
        self.hunks.iter().all(|hunk| hunk.verdict == Some(Verdict::Accepted))
    }

    pub fn is_refused(&self) -> bool {
        self.hunks.iter().all(|hunk| hunk.verdict == Some(Verdict::Rejected))
    }

    /// What the file comes to; `None` where it is left as it was. A hunk that nobody decided is not taken.
    pub fn settled(&self) -> Option<Change> {
        if self.hunks.iter().all(|hunk| matches!(hunk.verdict, None | Some(Verdict::Rejected))) {
            return None;
        }
        if self.is_whole() {
            return Some(self.change.clone());
        }
        let (old, new) = (self.old_lines(), self.new_lines());
        let mut text = String::new();
        let mut at = 0;
        for hunk in &self.hunks {
            text.extend(old[at..hunk.before().start].iter().copied());
            match &hunk.verdict {
                Some(Verdict::Accepted) => text.extend(new[hunk.after()].iter().copied()),
                Some(Verdict::Edited(edited)) => {
                    text.push_str(edited);
                    // More of the file follows: it begins on a line of its own.
                    let follows = hunk.before().end < old.len();
                    if follows && !edited.is_empty() && !edited.ends_with('\n') {
                        text.push('\n');
                    }
                }
                None | Some(Verdict::Rejected) => text.extend(old[hunk.before()].iter().copied()),
            }
            at = hunk.before().end;
        }
        text.extend(old[at..].iter().copied());
        let after = (self.change.before.as_deref() != Some(&text)).then_some(text)?;
        Some(Change { after: Some(after), ..self.change.clone() })
    }
}

/// Parts of a line; true: this part changed.
pub type Parts = Vec<(bool, String)>;

/// What changed within a line, for both sides; `None` where they have too little in common.
pub fn within(old: &str, new: &str) -> Option<(Parts, Parts)> {
    if old.len().max(new.len()) > LONG_LINE {
        return None;
    }
    let diff = TextDiff::from_unicode_words(old, new);
    if diff.ratio() < ALIKE {
        return None;
    }
    let (mut before, mut after): (Parts, Parts) = Default::default();
    let push = |parts: &mut Parts, changed: bool, text: &str| match parts.last_mut() {
        Some((last, part)) if *last == changed => part.push_str(text),
        _ => parts.push((changed, text.to_string())),
    };
    for change in diff.iter_all_changes() {
        match change.tag() {
            similar::ChangeTag::Equal => {
                push(&mut before, false, change.value());
                push(&mut after, false, change.value());
            }
            similar::ChangeTag::Delete => push(&mut before, true, change.value()),
            similar::ChangeTag::Insert => push(&mut after, true, change.value()),
        }
    }
    Some((before, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(before: &str, after: &str) -> FileReview {
        FileReview::new(Change { path: "f".into(), before: Some(before.into()), after: Some(after.into()) })
    }

    fn numbers(change: &[usize]) -> String {
        (0..40)
            .map(|n| if change.contains(&n) { format!("new {n}\r\n") } else { format!("{n}\r\n") })
            .collect()
    }

    #[test]
    fn each_hunk_lands_or_does_not() {
        let mut review = file(&numbers(&[]), &numbers(&[2, 20, 38]));
        assert_eq!((review.hunks.len(), review.added, review.removed), (3, 3, 3));
        assert_eq!(review.settled(), None, "nothing is decided");
        review.hunks[0].verdict = Some(Verdict::Accepted);
        review.hunks[1].verdict = Some(Verdict::Rejected);
        assert_eq!(review.settled().unwrap().after.unwrap(), numbers(&[2]));
        review.hunks[2].verdict = Some(Verdict::Edited("mine".into()));
        let text = review.settled().unwrap().after.unwrap();
        assert!(text.starts_with(&numbers(&[2])[..100]) && text.ends_with("34\r\nmine"), "{text:?}");
    }

    #[test]
    fn an_edited_hunk_does_not_run_into_the_next_line() {
        let mut review = file("a\nb\nc\nd\ne\nf\ng\nh\n", "A\nb\nc\nd\ne\nf\ng\nh\n");
        review.hunks[0].verdict = Some(Verdict::Edited("x".into()));
        assert_eq!(review.settled().unwrap().after.unwrap(), "x\ne\nf\ng\nh\n");
    }

    #[test]
    fn a_new_file_is_one_hunk_and_an_empty_one_too() {
        let change = |after: &str| Change { path: "f".into(), before: None, after: Some(after.into()) };
        let mut review = FileReview::new(change("a\nb"));
        assert_eq!(review.hunks.len(), 1);
        review.hunks[0].verdict = Some(Verdict::Accepted);
        assert_eq!(review.settled(), Some(change("a\nb")));
        let mut review = FileReview::new(change(""));
        assert_eq!(review.settled(), None);
        review.hunks[0].verdict = Some(Verdict::Accepted);
        assert_eq!(review.settled(), Some(change("")));
    }

    #[test]
    fn what_changed_within_a_line() {
        let (before, after) = within("let a = 1;\n", "let a = 2;\n").unwrap();
        assert_eq!(before, [(false, "let a = ".into()), (true, "1".into()), (false, ";\n".into())]);
        assert_eq!(after[1], (true, "2".to_string()));
        assert!(within("abc", "xyz 123 foo").is_none());
    }

    proptest::proptest! {
        /// Any choice of hunks gives lines of one side or the other; all of them the new text, none the old one.
        #[test]
        fn choices_compose(
            before in "([ab]{0,2}\n|c\r\n){0,40}", after in "([ab]{0,2}\n|c\r\n){0,40}[a-z]?", picks in proptest::collection::vec(proptest::bool::ANY, 40)
        ) {
            let mut review = file(&before, &after);
            for (hunk, pick) in review.hunks.iter_mut().zip(&picks) {
                hunk.verdict = Some(if *pick { Verdict::Accepted } else { Verdict::Rejected });
            }
            let mut expected = String::new();
            let (old, new) = (lines(&before), lines(&after));
            let mut at = 0;
            for hunk in &review.hunks {
                expected += &old[at..hunk.before().start].concat();
                let taken = hunk.verdict == Some(Verdict::Accepted);
                expected += &if taken { new[hunk.after()].concat() } else { old[hunk.before()].concat() };
                at = hunk.before().end;
            }
            expected += &old[at..].concat();
            let got = review.settled().map_or(before.clone(), |change| change.after.unwrap());
            assert_eq!(got, expected);
            review.hunks.iter_mut().for_each(|hunk| hunk.verdict = Some(Verdict::Accepted));
            assert_eq!(review.settled().unwrap().after.unwrap(), after);
            review.hunks.iter_mut().for_each(|hunk| hunk.verdict = Some(Verdict::Rejected));
            assert_eq!(review.settled(), None);
        }
    }
}
