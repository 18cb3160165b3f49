//! The composer's other keys: a small vi. Motions `h j k l w b e 0 ^ $ G gg`, `i a I A o O`, `x X D C dd cc yy`, `d c y`
//! with a motion, `p P u`, counts. Insert mode is the composer's own.

use super::composer::Composer;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Insert,
    Normal,
}

#[derive(Debug, Default)]
pub struct Vim {
    pub mode: Mode,
    count: usize,
    operator: Option<char>,
    /// `g` was typed.
    prefix: bool,
}

impl Vim {
    pub fn escape(&mut self, composer: &mut Composer) {
        if self.mode == Mode::Insert {
            let start = composer.line_start(composer.cursor());
            composer.go(composer.before(composer.cursor()).max(start));
        }
        *self = Self { mode: Mode::Normal, ..Self::default() };
    }

    /// A key in normal mode. False where the composer's own meaning holds (history at the first and last line).
    pub fn key(&mut self, key: char, c: &mut Composer) -> bool {
        if key.is_ascii_digit() && (key != '0' || self.count > 0) {
            self.count = (self.count * 10 + key as usize - '0' as usize).min(999);
            return true;
        }
        if key == 'g' && !self.prefix {
            self.prefix = true;
            return true;
        }
        let prefix = std::mem::take(&mut self.prefix);
        let count = self.count.max(1);
        if let (Some(operator), true) = (self.operator, matches!(key, 'd' | 'c' | 'y')) {
            self.count = 0;
            self.operator = None;
            if operator == key {
                let end = (1..count)
                    .fold(c.line_end(c.cursor()), |end, _| c.line_end((end + 1).min(c.text().len())));
                let start = c.line_start(c.cursor());
                c.go(start);
                let to = if key == 'c' { end } else { c.after(end) };
                self.operate(operator, to, c);
            }
            return true;
        }
        if matches!(key, 'd' | 'c' | 'y') && !prefix {
            self.operator = Some(key);
            return true;
        }
        self.count = 0;
        let mut to = c.cursor();
        for _ in 0..count {
            match motion(key, prefix, to, c) {
                Some(next) => to = next,
                None => return self.command(key, count, c),
            }
        }
        match self.operator.take() {
            Some(operator) => {
                // `cw` changes the word alone, and `e` and `$` take their last sign along.
                if key == 'w' && operator == 'c' {
                    to = c.word_after(c.cursor());
                } else if key == 'e' {
                    to = c.after(to);
                }
                self.operate(operator, to, c);
            }
            None => c.go(to),
        }
        true
    }

    fn operate(&mut self, operator: char, to: usize, c: &mut Composer) {
        match operator {
            'y' => {
                let (from, to) = (c.cursor().min(to), c.cursor().max(to));
                let text = c.text()[from..to].to_string();
                c.keep(&text);
                c.go(from);
            }
            _ => {
                c.kill(to);
                if operator == 'c' {
                    self.mode = Mode::Insert;
                }
            }
        }
    }

    fn command(&mut self, key: char, count: usize, c: &mut Composer) -> bool {
        self.operator = None;
        let (start, end) = (c.line_start(c.cursor()), c.line_end(c.cursor()));
        match key {
            'i' => self.mode = Mode::Insert,
            'a' => {
                c.go(c.after(c.cursor()).min(end));
                self.mode = Mode::Insert;
            }
            'I' => {
                c.go(start);
                self.mode = Mode::Insert;
            }
            'A' => {
                c.go(end);
                self.mode = Mode::Insert;
            }
            'o' => {
                c.go(end);
                c.insert("\n");
                self.mode = Mode::Insert;
            }
            'O' => {
                c.go(start);
                c.insert("\n");
                c.go(start);
                self.mode = Mode::Insert;
            }
            'x' => c.kill((0..count).fold(c.cursor(), |at, _| c.after(at)).min(end)),
            'X' => c.kill((0..count).fold(c.cursor(), |at, _| c.before(at)).max(start)),
            'D' => c.kill(end),
            'C' => {
                c.kill(end);
                self.mode = Mode::Insert;
            }
            'p' => {
                c.go(c.after(c.cursor()).min(end));
                c.yank();
            }
            'P' => c.yank(),
            'u' => c.undo(),
            'j' => return c.down(),
            'k' => return c.up(),
            _ => {}
        }
        true
    }
}

fn motion(key: char, prefix: bool, at: usize, c: &Composer) -> Option<usize> {
    let (start, end) = (c.line_start(at), c.line_end(at));
    Some(match key {
        'g' if prefix => 0,
        _ if prefix => return None,
        'h' => c.before(at).max(start),
        'l' | ' ' => c.after(at).min(end),
        'w' => c.next_word(at),
        'b' => c.word_before(at),
        'e' => c.before(c.word_after(c.after(at))),
        '0' => start,
        '^' => start + c.text()[start..end].find(|sign: char| !sign.is_whitespace()).unwrap_or(0),
        '$' => end,
        'G' => c.line_start(c.text().len()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str, keys: &str) -> (String, usize, Mode) {
        let mut composer = Composer::default();
        composer.insert(text);
        let mut vim = Vim::default();
        vim.escape(&mut composer);
        keys.chars().for_each(|key| {
            vim.key(key, &mut composer);
        });
        (composer.text().to_string(), composer.cursor(), vim.mode)
    }

    #[test]
    fn motions_operators_and_counts() {
        use Mode::*;
        let cases: &[(&str, &str, &str, usize, Mode)] = &[
            ("one two", "0", "one two", 0, Normal),
            ("one two three", "02w", "one two three", 8, Normal),
            ("one two three", "0dw", "two three", 0, Normal),
            ("one two three", "0d2w", "three", 0, Normal),
            ("one two", "0cw", " two", 0, Insert),
            ("one two", "bD", "one ", 4, Normal),
            ("one", "0x", "ne", 0, Normal),
            ("one", "02x", "e", 0, Normal),
            ("a\nb\nc", "kdd", "a\nc", 2, Normal),
            ("a\nb", "ggyyp", "aa\n\nb", 3, Normal),
            ("one", "A", "one", 3, Insert),
            ("one two", "0de", " two", 0, Normal),
            ("one two", "0d$", "", 0, Normal),
            ("one", "0xu", "one", 0, Normal),
            ("one", "o", "one\n", 4, Insert),
        ];
        for (text, keys, after, cursor, mode) in cases {
            assert_eq!(typed(text, keys), (after.to_string(), *cursor, *mode), "{text:?} {keys}");
        }
    }
}
