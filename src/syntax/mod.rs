//! Programs as trees: which language a path or a word means, and text parsed by that language's grammar (tree-sitter).
//! On the tree stand the colours of the screen (`highlight`), what an edit broke (`errors`) and the definitions of a
//! file (`outline`). Pure: text in, facts out. Reading files, styles and wording are others'.
//!
//! A tree is a help, never a judge: grammars lag behind their languages, so nothing is refused for what is found here.
//! Text may be hostile. It is bounded twice, by its size and by the time that parser and queries may take: their steps
//! cannot be counted, for one may read to the end of the text or look through a whole grammar.

mod errors;
mod highlight;
mod language;
mod outline;

pub use errors::{SyntaxError, introduced};
pub use highlight::{Class, Run};
pub use language::Language;
pub use outline::Definition;

use rustix::time::{ClockId, clock_gettime};
use std::ops::ControlFlow;
use std::time::Duration;
use tree_sitter::{ParseOptions, ParseState, Parser, Tree};

/// Longer texts are not parsed.
pub const MAX_BYTES: usize = 1024 * 1024;
/// What parsing a text may take, and then each question to its tree.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same where a screen waits for it.
const SCREEN: Duration = Duration::from_millis(60);
/// The parser gets the text in pieces, so that time is looked at where it reads far ahead.
const PIECE: usize = 4096;

/// A text and its tree.
pub struct Parsed<'t> {
    language: Language,
    text: &'t str,
    tree: Tree,
    patience: Duration,
}

impl<'t> Parsed<'t> {
    /// `None` where the text is too long or takes too much time; an ill-formed text has a tree all the same.
    pub fn new(language: Language, text: &'t str) -> Option<Self> {
        Self::within(language, text, PATIENCE)
    }

    /// The same for a screen, which cannot wait.
    pub fn for_screen(language: Language, text: &'t str) -> Option<Self> {
        Self::within(language, text, SCREEN)
    }

    fn within(language: Language, text: &'t str, patience: Duration) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let mut parser = Parser::new();
        parser.set_language(&language.grammar()).ok()?;
        let deadline = Deadline::after(patience);
        let mut progress = |_: &ParseState| deadline.check();
        let options = ParseOptions::new().progress_callback(&mut progress);
        let bytes = text.as_bytes();
        // A text that seems to end is read no further; what comes of it is thrown away.
        let mut read = |at: usize, _| match deadline.check() {
            ControlFlow::Continue(()) => bytes.get(at..bytes.len().min(at + PIECE)).unwrap_or_default(),
            ControlFlow::Break(()) => &[],
        };
        let tree = parser.parse_with_options(&mut read, None, Some(options))?;
        deadline.check().is_continue().then_some(Self { language, text, tree, patience })
    }
}

/// When a work is given up, in processor time of its thread: that others keep the machine busy changes no answer.
#[derive(Clone, Copy)]
struct Deadline(Duration);

impl Deadline {
    fn after(patience: Duration) -> Self {
        Self(used() + patience)
    }

    fn check(self) -> ControlFlow<()> {
        if used() > self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn used() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known to make parsers slow or deep, and texts cut anywhere.
    #[test]
    fn hostile_texts_end_and_break_nothing() {
        let pieces =
            ["(", "{", "[", "<", "a<", "\"", "'", "`${", "$(", "/*", "<<E\n", "a?b:", "if x:\n\t", "\0", "é"];
        for language in Language::ALL {
            for piece in pieces {
                let text = piece.repeat(6_000 / piece.len());
                let Some(parsed) = Parsed::new(language, &text) else { continue };
                parsed.outline();
                parsed.highlights(std::slice::from_ref(&(0..text.len())));
                let ending = Language::endings_of(language).first().copied().unwrap_or_default();
                introduced("", &text, &format!("a.{ending}"));
            }
        }
        assert!(Parsed::new(Language::Rust, &" ".repeat(MAX_BYTES + 1)).is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken(text in "[-+(){}<>\\[\\]\"'`$#@:;,.=/*\\\\ \n\ta-cé]{0,200}", at in 0..Language::ALL.len()) {
            let language = Language::ALL[at];
            if let Some(parsed) = Parsed::new(language, &text) {
                let mut last = 0;
                for run in parsed.highlights(std::slice::from_ref(&(0..text.len()))) {
                    proptest::prop_assert!(last <= run.start && run.start < run.end && run.end <= text.len());
                    last = run.end;
                }
                parsed.outline();
            }
        }
    }
}
