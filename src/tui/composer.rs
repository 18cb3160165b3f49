//! What the user writes: a text of many lines with a cursor, by signs as a person counts them; words, kills, undo and
//! the history of what was sent. Knows no keys and draws nothing; `keys` maps keys to it, `vim` its other keys.

use super::text::{clean, width};
use unicode_segmentation::UnicodeSegmentation;

const UNDO: usize = 200;
const HISTORY: usize = 1000;

#[derive(Debug, Default)]
pub struct Composer {
    text: String,
    /// A byte of `text`, between two signs.
    cursor: usize,
    killed: String,
    undo: Vec<(String, usize)>,
    history: Vec<String>,
    /// The entry of the history that is shown, and what was being written before.
    recalled: Option<(usize, String)>,
}

/// One row as it is drawn.
pub struct Row {
    pub text: String,
    /// The column of the cursor, where it is in this row.
    pub cursor: Option<usize>,
}

impl Composer {
    pub fn with_history(history: Vec<String>) -> Self {
        Self { history, ..Self::default() }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn cursor(&self) -> usize {
        self.cursor
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub fn history(&self) -> &[String] {
        &self.history
    }

    pub fn set(&mut self, text: &str) {
        self.save();
        self.text = text.to_string();
        self.cursor = self.text.len();
        self.recalled = None;
    }

    pub fn extend_history(&mut self, earlier: Vec<String>) {
        self.history.splice(0..0, earlier);
    }

    /// The text, which is sent now; it is remembered.
    pub fn take(&mut self) -> String {
        let text = std::mem::take(&mut self.text);
        self.cursor = 0;
        self.undo.clear();
        self.recalled = None;
        if self.history.last() != Some(&text) {
            self.history.push(text.clone());
            if self.history.len() > HISTORY {
                self.history.remove(0);
            }
        }
        text
    }

    pub fn clear(&mut self) {
        self.save();
        self.text.clear();
        self.cursor = 0;
        self.recalled = None;
    }

    pub fn insert(&mut self, text: &str) {
        if text.trim().is_empty() || text.chars().count() > 1 {
            self.save();
        }
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        self.text.insert_str(self.cursor, &text);
        self.cursor += text.len();
    }

    fn save(&mut self) {
        if self.undo.last().is_none_or(|(text, _)| *text != self.text) {
            self.undo.push((self.text.clone(), self.cursor));
            if self.undo.len() > UNDO {
                self.undo.remove(0);
            }
        }
    }

    pub fn undo(&mut self) {
        while let Some((text, cursor)) = self.undo.pop() {
            if text != self.text {
                (self.text, self.cursor) = (text, cursor);
                return;
            }
        }
    }

    pub fn before(&self, at: usize) -> usize {
        self.text[..at].grapheme_indices(true).next_back().map_or(0, |(at, _)| at)
    }

    pub fn after(&self, at: usize) -> usize {
        self.text[at..].graphemes(true).next().map_or(at, |sign| at + sign.len())
    }

    pub fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |at| at + 1)
    }

    pub fn line_end(&self, at: usize) -> usize {
        self.text[at..].find('\n').map_or(self.text.len(), |end| at + end)
    }

    /// The start of the word before `at`.
    pub fn word_before(&self, at: usize) -> usize {
        let words = self.text[..at].split_word_bound_indices();
        words.rev().find(|(_, word)| !word.trim().is_empty()).map_or(0, |(at, _)| at)
    }

    /// The end of the word after `at`.
    pub fn word_after(&self, at: usize) -> usize {
        let mut words = self.text[at..].split_word_bound_indices();
        words
            .find(|(_, word)| !word.trim().is_empty())
            .map_or(self.text.len(), |(from, word)| at + from + word.len())
    }

    /// The start of the next word.
    pub fn next_word(&self, at: usize) -> usize {
        let mut words = self.text[at..].split_word_bound_indices().skip(1);
        words.find(|(_, word)| !word.trim().is_empty()).map_or(self.text.len(), |(from, _)| at + from)
    }

    pub fn go(&mut self, to: usize) {
        self.cursor = to.min(self.text.len());
    }

    /// Removes what lies between the cursor and `to`, and keeps it for `yank`.
    pub fn kill(&mut self, to: usize) {
        self.save();
        let (from, to) = (self.cursor.min(to), self.cursor.max(to));
        self.killed = self.text[from..to].to_string();
        self.text.replace_range(from..to, "");
        self.cursor = from;
    }

    /// Removes without keeping.
    pub fn delete(&mut self, to: usize) {
        let killed = std::mem::take(&mut self.killed);
        self.kill(to);
        self.killed = killed;
    }

    pub fn keep(&mut self, text: &str) {
        self.killed = text.to_string();
    }

    pub fn killed(&self) -> &str {
        &self.killed
    }

    pub fn yank(&mut self) {
        let killed = self.killed.clone();
        self.save();
        self.insert(&killed);
    }

    /// One line up, in the same column; false on the first line.
    pub fn up(&mut self) -> bool {
        let start = self.line_start(self.cursor);
        if start == 0 {
            return false;
        }
        let column = width(&self.text[start..self.cursor]);
        self.go_to_column(self.line_start(start - 1), column);
        true
    }

    pub fn down(&mut self) -> bool {
        let end = self.line_end(self.cursor);
        if end == self.text.len() {
            return false;
        }
        let column = width(&self.text[self.line_start(self.cursor)..self.cursor]);
        self.go_to_column(end + 1, column);
        true
    }

    fn go_to_column(&mut self, start: usize, column: usize) {
        let end = self.line_end(start);
        let mut at = start;
        while at < end && width(&self.text[start..self.after(at)]) <= column {
            at = self.after(at);
        }
        self.cursor = at;
    }

    pub fn earlier(&mut self) {
        let at = self.recalled.as_ref().map_or(self.history.len(), |(at, _)| *at);
        if at > 0 {
            self.recall(at - 1);
        }
    }

    pub fn later(&mut self) {
        let Some((at, writing)) = self.recalled.take() else { return };
        if at + 1 < self.history.len() {
            self.recalled = Some((at, writing));
            self.recall(at + 1);
        } else {
            self.text = writing;
            self.cursor = self.text.len();
        }
    }

    fn recall(&mut self, at: usize) {
        // What was changed in an earlier one can be had back.
        self.save();
        let writing = match self.recalled.take() {
            Some((_, writing)) => writing,
            None => self.text.clone(),
        };
        self.text = self.history[at].clone();
        self.cursor = self.text.len();
        self.recalled = Some((at, writing));
    }

    /// The word from a blank, or the start of a line, up to the cursor.
    pub fn word_at_cursor(&self) -> (usize, &str) {
        let before = &self.text[..self.cursor];
        let start = before
            .rfind(char::is_whitespace)
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        (start, &before[start..])
    }

    pub fn replace(&mut self, from: usize, with: &str) {
        self.save();
        self.text.replace_range(from..self.cursor, with);
        self.cursor = from + with.len();
    }

    /// The text in rows of `columns`.
    pub fn rows(&self, columns: usize) -> Vec<Row> {
        let columns = columns.max(4);
        let mut rows = Vec::new();
        let mut at = 0;
        for line in self.text.split('\n') {
            let mut row = Row { text: String::new(), cursor: None };
            let mut used = 0;
            for sign in line.graphemes(true) {
                let shown = clean(sign);
                let wide = width(&shown);
                if used + wide > columns && used > 0 {
                    rows.push(std::mem::replace(&mut row, Row { text: String::new(), cursor: None }));
                    used = 0;
                }
                // What was inserted or removed may have joined two signs around the cursor.
                if (at..at + sign.len()).contains(&self.cursor) {
                    row.cursor = Some(used);
                }
                row.text.push_str(&shown);
                used += wide;
                at += sign.len();
            }
            if at == self.cursor {
                if used >= columns {
                    rows.push(std::mem::replace(&mut row, Row { text: String::new(), cursor: None }));
                    used = 0;
                }
                row.cursor = Some(used);
            }
            rows.push(row);
            at += 1;
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn composer(text: &str) -> Composer {
        let mut composer = Composer::default();
        composer.insert(text);
        composer
    }

    #[test]
    fn the_cursor_goes_by_signs_and_words() {
        let mut c = composer("a 日本 e\u{301}");
        c.go(c.before(c.cursor()));
        assert_eq!(&c.text()[c.cursor()..], "e\u{301}");
        c.go(c.word_before(c.cursor()));
        c.delete(c.text().len());
        c.insert("x");
        assert!(c.text().ends_with('x'));
        let mut c = composer("one two  three");
        c.go(c.word_before(c.cursor()));
        assert_eq!(&c.text()[c.cursor()..], "three");
        c.kill(c.word_before(c.cursor()));
        assert_eq!((c.text(), c.killed()), ("one three", "two  "));
        c.yank();
        assert_eq!(c.text(), "one two  three");
        c.undo();
        assert_eq!(c.text(), "one three");
    }

    #[test]
    fn lines_and_history() {
        let mut c = composer("first line\nx");
        assert!(c.up());
        assert_eq!(c.cursor(), 1);
        assert!(!c.up());
        assert!(c.down() && !c.down());
        assert_eq!(c.take(), "first line\nx");
        c.insert("second");
        c.take();
        c.insert("begun");
        c.earlier();
        assert_eq!(c.text(), "second");
        c.earlier();
        c.earlier();
        assert_eq!(c.text(), "first line\nx");
        c.later();
        c.later();
        assert_eq!(c.text(), "begun");
    }

    #[test]
    fn rows_are_cut_at_the_width_and_hold_one_cursor() {
        let c = composer("abcdef\n日本語");
        let rows: Vec<(String, Option<usize>)> =
            c.rows(4).into_iter().map(|row| (row.text, row.cursor)).collect();
        let row = |text: &str, cursor| (text.to_string(), cursor);
        assert_eq!(rows, [row("abcd", None), row("ef", None), row("日本", None), row("語", Some(2))]);
        let full = composer("abcd");
        assert_eq!(full.rows(4).iter().map(|row| row.cursor).collect::<Vec<_>>(), [None, Some(0)]);
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_done_the_cursor_stays_between_signs(text in "\\PC{0,20}", steps in proptest::collection::vec(0u8..12, 0..30)) {
            let mut c = composer(&text);
            for step in steps {
                match step {
                    0 => c.go(c.before(c.cursor())),
                    1 => c.go(c.after(c.cursor())),
                    2 => c.go(c.word_before(c.cursor())),
                    3 => c.go(c.word_after(c.cursor())),
                    4 => c.delete(c.before(c.cursor())),
                    5 => c.kill(c.line_end(c.cursor())),
                    6 => c.yank(),
                    7 => c.undo(),
                    8 => { c.up(); }
                    9 => { c.down(); }
                    10 => c.insert("\n"),
                    _ => c.go(c.next_word(c.cursor())),
                }
                assert!(c.text().is_char_boundary(c.cursor()));
                let rows = c.rows(5);
                assert_eq!(rows.iter().filter(|row| row.cursor.is_some()).count(), 1);
            }
        }
    }
}
