//! Markdown as lines of a screen. A block at a time: the transcript cuts a long answer where Markdown allows it, keeps
//! what was laid out, and only the last block, which still grows, is laid out anew.

use super::highlight::{self, Colours};
use super::text::{Break, clean, span, width, wrap};
use super::theme::Theme;
use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

/// Lines of a code block after which it goes on as another block.
const LONG_CODE: usize = 200;

/// Where the text can be cut: before the offset everything is final, whatever follows. What has to be put before the
/// rest (an opening fence), and after the first part, is given too.
pub struct Cut {
    pub at: usize,
    pub close: &'static str,
    pub open: String,
}

/// The last place where `text` can be cut, if there is one.
pub fn cut(text: &str) -> Option<Cut> {
    let mut fence: Option<(&str, String)> = None;
    let (mut best, mut blank, mut at, mut in_code) = (None, false, 0, 0);
    for line in text.split_inclusive('\n') {
        if !line.ends_with('\n') && fence.is_none() && line.trim().is_empty() {
            break;
        }
        let trimmed = line.trim_start();
        let mark =
            if trimmed.starts_with("```") { Some("```") } else { trimmed.strip_prefix("~~~").map(|_| "~~~") };
        match (&fence, mark) {
            (Some((open, word)), _) => {
                in_code += 1;
                if mark == Some(open) && trimmed.trim_end().trim_matches(['`', '~']).is_empty() {
                    fence = None;
                } else if in_code >= LONG_CODE && line.ends_with('\n') {
                    in_code = 0;
                    let close = if *open == "```" { "```\n" } else { "~~~\n" };
                    best = Some(Cut { at: at + line.len(), close, open: format!("{open}{word}\n") });
                }
            }
            (None, mark) => {
                // A list may go on after a blank line, and what is indented belongs to what came before.
                let own = line.starts_with(|c: char| !c.is_whitespace())
                    && !line.starts_with(['-', '*', '+', '|', '>'])
                    && !line.starts_with(|c: char| c.is_ascii_digit());
                if blank && own && at > 0 {
                    best = Some(Cut { at, close: "", open: String::new() });
                }
                if let Some(mark) = mark {
                    in_code = 0;
                    fence = Some((mark, trimmed.trim_end()[3..].to_string()));
                }
            }
        }
        blank = fence.is_none() && line.trim().is_empty();
        at += line.len();
    }
    best
}

/// `colours` are those of this text's code, so that they are found once for all widths.
pub fn layout(text: &str, columns: usize, theme: &Theme, colours: &mut Colours) -> Vec<Line<'static>> {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut page = Page {
        theme,
        columns,
        lines: Vec::new(),
        spans: Vec::new(),
        styles: vec![theme.text],
        margins: Vec::new(),
        lists: Vec::new(),
        bullet: None,
        code: None,
        link: None,
        table: None,
        quiet: true,
        colours,
    };
    Parser::new_ext(text, options).for_each(|event| page.event(event));
    page.flush();
    page.lines
}

struct Page<'t> {
    theme: &'t Theme,
    columns: usize,
    lines: Vec<Line<'static>>,
    spans: Vec<Span<'static>>,
    styles: Vec<Style>,
    /// What stands before each line: quotes and the indentation of lists.
    margins: Vec<Span<'static>>,
    lists: Vec<Option<u64>>,
    /// Stands before the next line instead of the innermost margin.
    bullet: Option<Span<'static>>,
    /// Language and text of the code block that is open.
    code: Option<(String, String)>,
    link: Option<String>,
    table: Option<Table>,
    /// Nothing stands above that a blank line would have to keep apart.
    quiet: bool,
    colours: &'t mut Colours,
}

#[derive(Default)]
struct Table {
    rows: Vec<Vec<Vec<Span<'static>>>>,
    /// Rows of the head.
    head: usize,
}

impl Page<'_> {
    fn style(&self) -> Style {
        self.styles.last().copied().unwrap_or_default()
    }

    fn push_style(&mut self, change: impl FnOnce(Style) -> Style) {
        self.styles.push(change(self.style()));
    }

    fn gap(&mut self) {
        if !std::mem::replace(&mut self.quiet, false) && self.bullet.is_none() {
            self.lines.push(Line::from(self.margins.clone()));
        }
    }

    fn flush(&mut self) {
        if self.spans.is_empty() && self.bullet.is_none() {
            return;
        }
        let spans = std::mem::take(&mut self.spans);
        let mut first = self.margins.clone();
        if let Some(bullet) = self.bullet.take() {
            first.pop();
            first.push(bullet);
        }
        self.lines.extend(wrap(&spans, self.columns, Break::Words, &first, &self.margins));
        self.quiet = false;
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => match &mut self.code {
                Some((_, code)) => code.push_str(&text),
                None => self.spans.push(span(&text, self.style())),
            },
            Event::Code(text) => {
                let style = self.style().patch(self.theme.code);
                self.spans.push(span(&text, style));
            }
            Event::Html(text) | Event::InlineHtml(text) => {
                for line in text.split_inclusive('\n') {
                    self.spans.push(span(line.trim_end_matches('\n'), self.theme.dim));
                    if line.ends_with('\n') {
                        self.flush();
                    }
                }
            }
            Event::SoftBreak => self.spans.push(span(" ", self.style())),
            Event::HardBreak => self.flush(),
            Event::Rule => {
                self.gap();
                self.lines.push(Line::from(Span::styled("─".repeat(self.columns.min(40)), self.theme.dim)));
            }
            Event::TaskListMarker(done) => {
                self.spans.push(span(if done { "[x] " } else { "[ ] " }, self.style()));
            }
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph => self.gap_in_list(),
            Tag::Heading { level, .. } => {
                self.gap();
                let theme = self.theme;
                self.push_style(|style| {
                    style.patch(if level <= HeadingLevel::H2 { theme.heading } else { theme.bold })
                });
            }
            Tag::BlockQuote(_) => {
                self.gap();
                self.quiet = true;
                self.margins.push(Span::styled("│ ", self.theme.dim));
            }
            Tag::CodeBlock(kind) => {
                self.flush();
                self.gap();
                let language = match kind {
                    CodeBlockKind::Fenced(word) => {
                        word.split([' ', ',']).next().unwrap_or_default().to_string()
                    }
                    CodeBlockKind::Indented => String::new(),
                };
                self.code = Some((language, String::new()));
            }
            Tag::List(start) => {
                self.flush();
                if self.lists.is_empty() {
                    self.gap();
                }
                self.lists.push(start);
            }
            Tag::Item => {
                let bullet = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{}. ", *number - 1)
                    }
                    _ => "• ".to_string(),
                };
                self.margins.push(Span::raw(" ".repeat(width(&bullet))));
                self.bullet = Some(Span::styled(bullet, self.theme.accent));
                self.quiet = true;
            }
            Tag::Emphasis => self.push_style(|style| style.add_modifier(Modifier::ITALIC)),
            Tag::Strong => self.push_style(|style| style.add_modifier(Modifier::BOLD)),
            Tag::Strikethrough => self.push_style(|style| style.add_modifier(Modifier::CROSSED_OUT)),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                self.link = Some(dest_url.to_string());
                self.push_style(|style| style.add_modifier(Modifier::UNDERLINED));
            }
            Tag::Table(_) => {
                self.gap();
                self.table = Some(Table::default());
            }
            Tag::TableHead | Tag::TableRow => {
                if let Some(table) = &mut self.table {
                    table.rows.push(Vec::new());
                }
            }
            _ => {}
        }
    }

    /// Paragraphs of one item stand close to their bullet.
    fn gap_in_list(&mut self) {
        self.flush_text();
        self.gap();
    }

    fn flush_text(&mut self) {
        if !self.spans.is_empty() {
            self.flush();
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph => self.flush(),
            TagEnd::Heading(_) => {
                self.flush();
                self.styles.pop();
            }
            TagEnd::BlockQuote(_) => {
                self.flush();
                self.margins.pop();
            }
            TagEnd::CodeBlock => self.code_block(),
            TagEnd::List(_) => {
                self.flush();
                self.lists.pop();
            }
            TagEnd::Item => {
                self.flush();
                self.margins.pop();
                self.quiet = false;
            }
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough => {
                self.styles.pop();
            }
            TagEnd::Link | TagEnd::Image => {
                self.styles.pop();
                if let Some(url) = self.link.take() {
                    let shown: String =
                        self.spans.last().map(|span| span.content.to_string()).unwrap_or_default();
                    if clean(&url) != shown {
                        self.spans.push(span(&format!(" ({url})"), self.theme.dim));
                    }
                }
            }
            TagEnd::TableCell => {
                let cell = std::mem::take(&mut self.spans);
                if let Some(row) = self.table.as_mut().and_then(|table| table.rows.last_mut()) {
                    row.push(cell);
                }
            }
            TagEnd::TableHead => {
                if let Some(table) = &mut self.table {
                    table.head = table.rows.len();
                }
            }
            TagEnd::Table => self.table_block(),
            _ => {}
        }
    }

    fn code_block(&mut self) {
        let Some((language, code)) = self.code.take() else { return };
        let mut margin = self.margins.clone();
        if let Some(bullet) = self.bullet.take() {
            self.lines.push(Line::from(bullet));
        }
        margin.push(Span::raw("  "));
        for spans in highlight::code(&language, code.trim_end_matches('\n'), self.theme, self.colours) {
            self.lines.extend(wrap(&spans, self.columns, Break::Anywhere, &margin, &margin));
        }
        self.quiet = false;
    }

    fn table_block(&mut self) {
        let Some(table) = self.table.take() else { return };
        let cell_width =
            |cell: &Vec<Span<'static>>| cell.iter().map(|span| width(&span.content)).sum::<usize>();
        let count = table.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0; count];
        for row in &table.rows {
            for (most, cell) in widths.iter_mut().zip(row) {
                *most = (*most).max(cell_width(cell));
            }
        }
        // Too wide: the widest column gives way, its cells are wrapped.
        let room = self.columns.saturating_sub(3 * count.saturating_sub(1));
        while widths.iter().sum::<usize>() > room {
            match widths.iter_mut().max() {
                Some(widest) if *widest > 4 => *widest -= 1,
                _ => break,
            }
        }
        for (index, row) in table.rows.iter().enumerate() {
            let cells: Vec<Vec<Line<'static>>> = row
                .iter()
                .zip(&widths)
                .map(|(cell, columns)| wrap(cell, (*columns).max(1), Break::Words, &[], &[]))
                .collect();
            let height = cells.iter().map(Vec::len).max().unwrap_or(0);
            for at in 0..height {
                let mut spans = self.margins.clone();
                for (column, cell) in cells.iter().enumerate() {
                    if column > 0 {
                        spans.push(Span::styled(" │ ", self.theme.dim));
                    }
                    let line = cell.get(at).cloned().unwrap_or_default();
                    let pad = widths[column].saturating_sub(line.width());
                    let head = index < table.head;
                    spans.extend(line.spans.into_iter().map(|span| match head {
                        true => Span::styled(span.content, span.style.add_modifier(Modifier::BOLD)),
                        false => span,
                    }));
                    spans.push(Span::raw(" ".repeat(pad)));
                }
                self.lines.push(Line::from(spans));
            }
            if index + 1 == table.head {
                let rule: Vec<String> = widths.iter().map(|columns| "─".repeat(*columns)).collect();
                self.lines.push(Line::from(Span::styled(rule.join("─┼─"), self.theme.dim)));
            }
        }
        self.quiet = false;
    }
}

#[cfg(test)]
mod tests {
    use super::super::theme::ThemeName;
    use super::*;

    fn shown(text: &str, columns: usize) -> String {
        let lines = layout(text, columns, &Theme::new(ThemeName::Plain), &mut Colours::default());
        lines.iter().map(|line| line.to_string().trim_end().to_string()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn blocks_and_their_distance() {
        assert_eq!(shown("# A\nb\n\nc *d* `e`", 40), "A\n\nb\n\nc d e");
        assert_eq!(shown("- a\n- b\n  - c\n\nd", 40), "• a\n• b\n  • c\n\nd");
        assert_eq!(shown("3. a\n4. b", 40), "3. a\n4. b");
        assert_eq!(shown("> q\n> r", 40), "│ q r");
        assert_eq!(shown("a\n```rust\nfn f() {}\n```\nb", 40), "a\n\n  fn f() {}\n\nb");
        assert_eq!(shown("- one two three", 9), "• one two\n  three");
    }

    #[test]
    fn tables_line_up_also_with_wide_signs() {
        assert_eq!(shown("|a|b|\n|-|-|\n|日本|c|", 40), "a    │ b\n─────┼──\n日本 │ c");
        assert_eq!(
            shown("|a|b|\n|-|-|\n|one two three|c|", 12),
            "a        │ b\n─────────┼──\none two  │ c\nthree    │"
        );
    }

    #[test]
    fn an_answer_is_cut_where_nothing_depends_on_it() {
        let at = |text: &str| cut(text).map(|cut| cut.at);
        assert_eq!(at("a\n\nb"), Some(3));
        assert_eq!(at("a\nb"), None);
        assert_eq!(at("a\n\n- b\n\n  c\n\n- d"), None, "a list goes on");
        assert_eq!(at("```\na\n\nb"), None, "a code block goes on");
        assert_eq!(at("```\na\n```\n\nb"), Some(11));
        let long = format!("```rust\n{}", "x\n".repeat(250));
        let cut = cut(&long).unwrap();
        assert_eq!((cut.close, cut.open.as_str()), ("```\n", "```rust\n"));
    }
}
