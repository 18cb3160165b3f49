//! What was said and done, as blocks. A block is laid out when it comes into view and kept for its width; only the last
//! one grows, and a long answer is cut into blocks as it comes. So a screen costs the same after a hundred thousand
//! lines as after ten. Where the view is: at the end, or with a certain line of a certain block on top.

use super::block::{Block, Call, Kind, Look};
use super::markdown;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

/// Lines of output in one block.
const OUTPUT: usize = 200;
/// Laid-out lines that are kept; what is out of view goes first.
const KEPT: usize = 20_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    End,
    /// Block and line on top.
    At(usize, usize),
}

pub struct Transcript {
    blocks: Vec<Block>,
    view: View,
    /// The rows of the last drawing.
    height: usize,
    /// The last block is an answer, or thinking, that may go on.
    open: bool,
    /// The call that began last.
    called: usize,
}

impl Default for Transcript {
    fn default() -> Self {
        Self { blocks: Vec::new(), view: View::End, height: 24, open: false, called: 0 }
    }
}

impl Transcript {
    pub fn clear(&mut self) {
        *self = Self { height: self.height, ..Self::default() };
    }

    pub fn push(&mut self, kind: Kind) {
        self.open = false;
        let gap = self.blocks.last().is_some_and(|above| kind.stands_apart(&above.kind));
        if let Kind::Call(_) = kind {
            self.called = self.blocks.len();
        }
        self.blocks.push(Block::new(kind, gap));
    }

    pub fn kinds(&self) -> impl DoubleEndedIterator<Item = &Kind> {
        self.blocks.iter().map(|block| &block.kind)
    }

    /// Words of the answer as they come.
    pub fn say(&mut self, text: &str) {
        if !(self.open && matches!(self.blocks.last(), Some(Block { kind: Kind::Answer(_), .. }))) {
            // White space alone opens no answer.
            let text = text.trim_start();
            if text.is_empty() {
                return;
            }
            self.push(Kind::Answer(text.to_string()));
            self.open = true;
        } else if let Some(Kind::Answer(answer)) = self.last_mut() {
            answer.push_str(text);
        }
        while let Some(Kind::Answer(answer)) = self.last_mut()
            && let Some(cut) = markdown::cut(answer)
        {
            let rest = format!("{}{}", cut.open, &answer[cut.at..]);
            answer.truncate(cut.at);
            answer.push_str(cut.close);
            let gap = cut.close.is_empty();
            let seam = (cut.close.len(), cut.open.len());
            let mut block = Block::new(Kind::Answer(rest), gap);
            block.seam = seam;
            self.blocks.push(block);
        }
    }

    /// What comes next begins a block of its own.
    pub fn close(&mut self) {
        self.open = false;
    }

    pub fn think(&mut self, text: &str) {
        if self.open
            && let Some(Kind::Thinking(thinking)) = self.last_mut()
        {
            thinking.push_str(text);
            return;
        }
        if !text.trim().is_empty() {
            self.push(Kind::Thinking(text.trim_start().to_string()));
            self.open = true;
        }
    }

    fn last_mut(&mut self) -> Option<&mut Kind> {
        self.blocks.last_mut().map(Block::change)
    }

    fn call(&self, id: u64) -> Option<usize> {
        // Its output stands behind it, and there may be much of that.
        let is_it = |block: &Block| matches!(&block.kind, Kind::Call(call) if call.id == id);
        if self.blocks.get(self.called).is_some_and(is_it) {
            return Some(self.called);
        }
        self.blocks.iter().rposition(|block| matches!(&block.kind, Kind::Call(call) if call.id == id))
    }

    fn shows(&self, id: u64) -> (usize, usize) {
        match self.call(id).map(|at| &self.blocks[at].kind) {
            Some(Kind::Call(call)) => call.shows(),
            _ => (0, 0),
        }
    }

    pub fn call_mut(&mut self, id: u64) -> Option<&mut Call> {
        let at = self.call(id)?;
        match self.blocks[at].change() {
            Kind::Call(call) => Some(call),
            _ => None,
        }
    }

    /// Output of a call as it comes, in pieces of any size.
    pub fn output(&mut self, id: u64, text: &str) {
        self.open = false;
        let shown = self.shows(id).0;
        let count = text.bytes().filter(|byte| *byte == b'\n').count();
        for piece in text.split_inclusive('\n') {
            match self.blocks.last_mut().map(Block::change) {
                Some(Kind::Output { call, text, lines, .. })
                    if *call == id && (*lines < OUTPUT || !text.ends_with('\n')) =>
                {
                    text.push_str(piece);
                    *lines += usize::from(piece.ends_with('\n'));
                }
                _ => {
                    if let Some(Kind::Output { call, shown, .. }) = self.last_mut()
                        && *call == id
                    {
                        *shown = 0;
                    }
                    let lines = usize::from(piece.ends_with('\n'));
                    let kind = Kind::Output { call: id, text: piece.to_string(), lines, shown };
                    self.blocks.push(Block::new(kind, false));
                }
            }
        }
        if let Some(call) = self.call_mut(id) {
            call.output_lines += count;
        }
    }

    /// The output of a call of an earlier process, which stands after the call wherever that is.
    pub fn past_output(&mut self, id: u64, text: &str) {
        let Some(at) = self.call(id) else { return };
        let whole: Vec<&str> = text.split_inclusive('\n').collect();
        if let Kind::Call(call) = self.blocks[at].change() {
            call.output_lines = whole.len();
            call.ok = Some(!text.starts_with("Error") && !text.starts_with("Not run"));
        }
        let parts = whole.chunks(OUTPUT).map(|lines| {
            let kind = Kind::Output { call: id, text: lines.concat(), lines: lines.len(), shown: 0 };
            Block::new(kind, false)
        });
        self.blocks.splice(at + 1..at + 1, parts);
    }

    pub fn finish(&mut self, id: u64, name: &str, ok: bool, summary: &str) {
        let (_, left) = self.shows(id);
        for block in self.blocks.iter_mut().rev().take(50) {
            if matches!(&block.kind, Kind::Output { call, shown: 1.., .. } if *call == id)
                && let Kind::Output { shown, .. } = block.change()
            {
                *shown = left;
            }
        }
        match self.call_mut(id).filter(|call| call.ok.is_none()) {
            Some(call) => {
                call.ok = Some(ok);
                call.summary = if ok { summary.to_string() } else { failed(&call.summary, summary) };
            }
            None => {
                // It never began: refused, or it could not be read.
                let summary = if ok { summary.to_string() } else { failed(name, summary) };
                let call = Call { ok: Some(ok), ..Call::new(id, name, &summary) };
                self.push(Kind::Call(call));
            }
        }
    }

    /// A turn was interrupted: nothing of it runs any longer.
    pub fn stop(&mut self) {
        self.open = false;
        for block in self.blocks.iter_mut().rev().take(50) {
            let running = matches!(&block.kind, Kind::Call(call) if call.ok.is_none())
                || matches!(&block.kind, Kind::Output { shown: 1.., .. });
            if running {
                match block.change() {
                    Kind::Call(call) => call.ok = Some(false),
                    Kind::Output { shown, .. } => *shown = 0,
                    _ => {}
                }
            }
        }
    }

    /// The user's requests that are still part of the conversation.
    pub fn requests(&self) -> Vec<&str> {
        let requests = self.kinds().filter_map(|kind| match kind {
            Kind::Request { text, taken_back: false } => Some(text.as_str()),
            _ => None,
        });
        requests.collect()
    }

    /// Marks the last request as taken back, and gives its words.
    pub fn take_back(&mut self) -> Option<String> {
        let at = self
            .blocks
            .iter()
            .rposition(|block| matches!(block.kind, Kind::Request { taken_back: false, .. }))?;
        match self.blocks[at].change() {
            Kind::Request { text, taken_back } => {
                *taken_back = true;
                Some(text.clone())
            }
            _ => None,
        }
    }

    /// The words of the last answer.
    pub fn last_answer(&self) -> Option<String> {
        let end = self.blocks.iter().rposition(|block| matches!(block.kind, Kind::Answer(_)))?;
        let start = self.blocks[..end]
            .iter()
            .rposition(|block| !matches!(block.kind, Kind::Answer(_)))
            .map_or(0, |at| at + 1);
        let mut whole = String::new();
        for block in &self.blocks[start..=end] {
            if let Kind::Answer(text) = &block.kind {
                // What was written in between so that each block is whole.
                let (closed, opened) = block.seam;
                whole.truncate(whole.len() - closed);
                whole.push_str(&text[opened..]);
            }
        }
        Some(whole.trim().to_string())
    }

    pub fn is_at_end(&self) -> bool {
        self.view == View::End
    }

    pub fn scroll_to_end(&mut self) {
        self.view = View::End;
    }

    pub fn scroll_to_start(&mut self) {
        self.view = View::At(0, 0);
    }

    /// Moves the view; negative is up.
    pub fn scroll(&mut self, by: isize, look: &Look) {
        let (mut block, mut line) = match self.view {
            View::At(block, line) => (block, line),
            View::End if by == 0 => return,
            View::End => self.top_of_end(look),
        };
        if by < 0 {
            let mut left = by.unsigned_abs();
            while left > line && block > 0 {
                left -= line;
                block -= 1;
                line = self.lines(block, look).len();
            }
            line = line.saturating_sub(left);
            self.view = View::At(block, line);
        } else {
            line += by as usize;
            while block < self.blocks.len() && line >= self.lines(block, look).len() {
                line -= self.lines(block, look).len();
                block += 1;
            }
            self.view = View::At(block, line);
            if (block, line) >= self.top_of_end(look) {
                self.view = View::End;
            }
        }
    }

    pub fn page(&self) -> isize {
        self.height.saturating_sub(2).max(1) as isize
    }

    fn lines(&mut self, block: usize, look: &Look) -> &[Line<'static>] {
        self.blocks[block].lines(look)
    }

    /// Block and line on top when the end is at the bottom.
    fn top_of_end(&mut self, look: &Look) -> (usize, usize) {
        let mut left = self.height;
        for block in (0..self.blocks.len()).rev() {
            let height = self.lines(block, look).len();
            if height >= left {
                return (block, height - left);
            }
            left -= height;
        }
        (0, 0)
    }

    pub fn render(&mut self, area: Rect, buffer: &mut Buffer, look: &Look) {
        self.height = usize::from(area.height);
        // Blocks may have become shorter, or the screen taller.
        self.scroll(0, look);
        let (first, skip) = match self.view {
            View::End => self.top_of_end(look),
            View::At(block, line) => (block, line),
        };
        let mut y = area.y;
        let mut block = first;
        let mut skip = skip;
        while y < area.bottom() && block < self.blocks.len() {
            for line in self.blocks[block].lines(look).iter().skip(skip) {
                if y >= area.bottom() {
                    break;
                }
                buffer.set_line(area.x, y, line, area.width);
                y += 1;
            }
            skip = 0;
            block += 1;
        }
        self.forget(first, block);
    }

    /// Lines that are out of view are laid out again when they come back.
    fn forget(&mut self, first: usize, last: usize) {
        let kept: usize = self.blocks.iter().map(Block::kept).sum();
        if kept > KEPT {
            let near = first.saturating_sub(20)..last + 20;
            let far = self.blocks.iter_mut().enumerate().filter(|(at, _)| !near.contains(at));
            far.for_each(|(_, block)| block.forget());
        }
    }
}

/// An error says what is wrong, not of what; what a tool says of its own failure does both.
fn failed(what: &str, why: &str) -> String {
    why.strip_prefix("Error: ").map_or_else(|| why.to_string(), |why| format!("{what}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::super::theme::{Theme, ThemeName};
    use super::*;

    fn look() -> Look {
        Look { columns: 40, expanded: false, theme: Theme::new(ThemeName::Plain) }
    }

    fn screen(transcript: &mut Transcript, height: u16) -> Vec<String> {
        let area = Rect::new(0, 0, 40, height);
        let mut buffer = Buffer::empty(area);
        transcript.render(area, &mut buffer, &look());
        (0..height)
            .map(|y| (0..40).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_string())
            .collect()
    }

    #[test]
    fn an_answer_grows_and_is_cut_into_blocks() {
        let mut t = Transcript::default();
        for piece in ["\n", "one", " two\n", "\nthr", "ee\n\nfour"] {
            t.say(piece);
        }
        assert_eq!(t.blocks.len(), 3);
        assert_eq!(t.last_answer().unwrap(), "one two\n\nthree\n\nfour");
        assert_eq!(screen(&mut t, 6), ["one two", "", "three", "", "four", ""]);
    }

    #[test]
    fn an_answer_that_was_cut_within_code_is_whole_for_whoever_copies_it() {
        let mut t = Transcript::default();
        let code: String = (0..700).map(|n| format!("let x{n} = {n};\n")).collect();
        let answer = format!("So:\n\n```rust\n{code}```\n\nThat is all.");
        for piece in answer.as_bytes().chunks(100) {
            t.say(std::str::from_utf8(piece).unwrap());
        }
        assert!(t.blocks.len() > 3);
        assert_eq!(t.last_answer().unwrap(), answer);
    }

    #[test]
    fn the_view_is_never_behind_the_end() {
        let mut t = Transcript::default();
        t.say(&"word ".repeat(400));
        screen(&mut t, 5);
        t.scroll(-3, &look());
        let wide = Look { columns: 200, ..look() };
        let area = Rect::new(0, 0, 200, 5);
        let mut buffer = Buffer::empty(area);
        t.render(area, &mut buffer, &wide);
        assert!((0..5).any(|y| buffer[(0, y)].symbol() == "w"));
        // All of it is in view: there is nothing above to stay at.
        let mut t = Transcript::default();
        t.say("one");
        screen(&mut t, 5);
        t.scroll(-3, &look());
        screen(&mut t, 5);
        assert!(t.is_at_end());
    }

    #[test]
    fn the_view_stays_where_it_was_put_while_text_comes() {
        let mut t = Transcript::default();
        t.say(&(0..50).map(|n| format!("line {n}\n\n")).collect::<String>());
        assert_eq!(screen(&mut t, 3), ["line 48", "", "line 49"]);
        t.scroll(-4, &look());
        assert_eq!(screen(&mut t, 3), ["line 46", "", "line 47"]);
        t.say("more\n\nand more");
        assert_eq!(screen(&mut t, 3), ["line 46", "", "line 47"]);
        t.scroll(1000, &look());
        assert!(t.is_at_end());
        t.scroll(-1000, &look());
        assert_eq!(screen(&mut t, 1), ["line 0"]);
        t.scroll(2, &look());
        assert_eq!(screen(&mut t, 1), ["line 1"]);
    }

    #[test]
    fn output_is_folded_and_its_end_is_shown_while_it_comes() {
        let mut t = Transcript::default();
        t.push(Kind::Call(Call::new(1, "run_shell_command", "run x")));
        for n in 0..1000 {
            t.output(1, &format!("{n}\n"));
        }
        assert_eq!(t.blocks.len(), 6);
        let shown = screen(&mut t, 10);
        assert!(shown.contains(&"    999".to_string()) && !shown.contains(&"    5".to_string()), "{shown:?}");
        t.finish(1, "run_shell_command", true, "ran x");
        let shown = screen(&mut t, 10);
        assert!(
            shown[0].contains("ran x") && shown[0].contains("1000 lines") && shown[1].is_empty(),
            "{shown:?}"
        );
        // What the user ran is what they want to see.
        t.push(Kind::Call(Call::new(2, "shell", "date")));
        t.output(2, "Monday\n");
        t.finish(2, "shell", true, "date");
        assert_eq!(screen(&mut t, 10)[1..3], ["✓ date", "    Monday"]);
    }
}
