//! Bytes of a file as text: what kind of file it is, its BOM and line endings, and how much of it is shown.
//!
//! A model sees lines that end in `\n` and no BOM; what the file really has is remembered here, and put back by
//! `edit` and `mod` when the file is written. Files that are not text are named, never dumped.

use std::borrow::Cow;

/// As many bytes as git looks at before it calls a file binary.
const SNIFF: usize = 8000;
const BOM: &str = "\u{feff}";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnding {
    /// No line break at all.
    None,
    Lf,
    Crlf,
    Mixed,
}

impl LineEnding {
    pub fn of(text: &str) -> Self {
        let crlf = text.matches("\r\n").count();
        let lf = text.matches('\n').count() - crlf;
        match (crlf, lf) {
            (0, 0) => Self::None,
            (0, _) => Self::Lf,
            (_, 0) => Self::Crlf,
            _ => Self::Mixed,
        }
    }

    /// `text` with the line breaks of a file that has this ending. Mixed files leave it as it is.
    pub fn adapt(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Lf if text.contains("\r\n") => Cow::Owned(text.replace("\r\n", "\n")),
            Self::Crlf if text.contains('\n') => Cow::Owned(text.replace("\r\n", "\n").replace('\n', "\r\n")),
            _ => Cow::Borrowed(text),
        }
    }
}

/// The text of a file. `text` keeps the file's own line breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    pub text: String,
    pub bom: bool,
    pub ending: LineEnding,
    /// False where bytes that are no UTF-8 were replaced by U+FFFD: such text is for showing only.
    pub valid_utf8: bool,
}

impl Text {
    /// With the line breaks a model reads and writes.
    pub fn shown(&self) -> Cow<'_, str> {
        LineEnding::Lf.adapt(&self.text)
    }

    /// The bytes of the file if its text became `text`.
    pub fn bytes_with(&self, text: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(text.len() + BOM.len());
        if self.bom {
            bytes.extend_from_slice(BOM.as_bytes());
        }
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Text(Text),
    /// Not text; the word names what it is, e.g. `PNG image`.
    Binary(&'static str),
}

impl Content {
    pub fn of(bytes: &[u8]) -> Self {
        if let Some(kind) = binary_kind(bytes) {
            return Self::Binary(kind);
        }
        let (bom, body) = match bytes.strip_prefix(BOM.as_bytes()) {
            Some(rest) => (true, rest),
            None => (false, bytes),
        };
        let (text, valid_utf8) = match std::str::from_utf8(body) {
            Ok(text) => (text.to_string(), true),
            Err(_) => (String::from_utf8_lossy(body).into_owned(), false),
        };
        let ending = LineEnding::of(&text);
        Self::Text(Text { text, bom, ending, valid_utf8 })
    }
}

fn binary_kind(bytes: &[u8]) -> Option<&'static str> {
    const SIGNATURES: [(&[u8], &str); 16] = [
        (b"\x89PNG\r\n", "PNG image"),
        (b"\xff\xd8\xff", "JPEG image"),
        (b"GIF8", "GIF image"),
        (b"%PDF-", "PDF document"),
        (b"\x7fELF", "ELF binary"),
        (b"PK\x03\x04", "ZIP archive"),
        (b"\x1f\x8b", "gzip archive"),
        (b"BZh", "bzip2 archive"),
        (b"\xfd7zXZ", "xz archive"),
        (b"\x28\xb5\x2f\xfd", "zstd archive"),
        (b"\0asm", "WebAssembly module"),
        (b"\xca\xfe\xba\xbe", "Java class or Mach-O binary"),
        (b"\xcf\xfa\xed\xfe", "Mach-O binary"),
        (b"SQLite format 3\0", "SQLite database"),
        (b"GGUF", "GGUF model"),
        (b"!<arch>\n", "static library"),
    ];
    let head = &bytes[..bytes.len().min(SNIFF)];
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Some("UTF-16 text");
    }
    // A signature alone is not enough: a text may well begin with `GGUF`.
    let control = head.iter().filter(|b| **b < 9 || (14..32).contains(*b) && **b != 27).count();
    let looks_binary = head.contains(&0)
        || (control * 10 > head.len() && std::str::from_utf8(bytes).is_err())
        || bytes.starts_with(b"%PDF-");
    if !looks_binary && std::str::from_utf8(bytes).is_ok() {
        return None;
    }
    let known = SIGNATURES.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, name)| *name);
    known.or(looks_binary.then_some("binary file"))
}

/// The two ends of a text that was too long, cut at line ends where there are any.
#[derive(Debug, PartialEq, Eq)]
pub struct Cut<'t> {
    pub head: &'t str,
    pub tail: &'t str,
    /// Lines that are whole in `head`, and lines from the first one touched by the cut to the last.
    pub head_lines: usize,
    pub left_out_lines: usize,
    pub left_out_chars: usize,
}

/// Head (two thirds) and tail (one third) of a text of more than `max_chars` characters; `None` where it fits.
pub fn cut_middle(text: &str, max_chars: usize) -> Option<Cut<'_>> {
    if text.len() <= max_chars || text.chars().count() <= max_chars {
        return None;
    }
    let head_chars = max_chars * 2 / 3;
    let tail_chars = max_chars - head_chars;
    let head_end = text.char_indices().nth(head_chars).map_or(text.len(), |(at, _)| at);
    let tail_start = match tail_chars {
        0 => text.len(),
        n => text.char_indices().rev().nth(n - 1).map_or(0, |(at, _)| at),
    };
    let head = &text[..head_end];
    // Only where a line end is near: a file of one long line is cut inside the line.
    let head = match head.rfind('\n') {
        Some(at) if at > head.len() / 2 => &head[..=at],
        _ => head,
    };
    let tail = &text[tail_start..];
    let tail = match tail.find('\n') {
        Some(at) if at < tail.len() / 2 => &tail[at + 1..],
        _ => tail,
    };
    let left_out = &text[head.len()..text.len() - tail.len()];
    Some(Cut {
        head,
        tail,
        head_lines: head.matches('\n').count(),
        left_out_lines: left_out.lines().count(),
        left_out_chars: left_out.chars().count(),
    })
}

/// `text` in at most about `max_chars` characters, saying what was left out and how to get it.
pub fn fit(text: &str, max_chars: usize, how_to_see_the_rest: &str) -> String {
    match cut_middle(text, max_chars) {
        None => text.to_string(),
        Some(cut) => {
            let gap = if cut.head.ends_with('\n') { "" } else { "\n" };
            let what = format!("{} lines, {} characters left out", cut.left_out_lines, cut.left_out_chars);
            format!("{}{gap}[... {what}; {how_to_see_the_rest} ...]\n{}", cut.head, cut.tail)
        }
    }
}

/// `1.4 MB`, for people and models.
pub fn human_size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{:.1} KB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> Text {
        match Content::of(bytes) {
            Content::Text(text) => text,
            Content::Binary(kind) => panic!("{kind}"),
        }
    }

    #[test]
    fn a_file_is_split_into_bom_text_and_ending_and_put_together_again() {
        let crlf = text(b"\xef\xbb\xbfa\r\nb\r\n");
        assert!(crlf.bom && crlf.ending == LineEnding::Crlf && crlf.valid_utf8);
        assert_eq!(crlf.shown(), "a\nb\n");
        assert_eq!(crlf.bytes_with("x\r\n"), b"\xef\xbb\xbfx\r\n");
        assert_eq!(text(b"a\nb\r\n").ending, LineEnding::Mixed);
        assert_eq!(text(b"a").ending, LineEnding::None);
        assert!(!text(b"caf\xe9 au lait").valid_utf8);
    }

    #[test]
    fn binary_files_are_named_and_texts_that_look_like_them_are_not() {
        assert_eq!(Content::of(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), Content::Binary("PNG image"));
        assert_eq!(Content::of(b"\x7fELF\x02\x01\x01\0\0"), Content::Binary("ELF binary"));
        assert_eq!(Content::of(b"ab\0cd"), Content::Binary("binary file"));
        assert_eq!(Content::of(b"\xff\xfea\0b\0"), Content::Binary("UTF-16 text"));
        assert_eq!(Content::of(b"\x1f\x8b\x08\x08\xffabc"), Content::Binary("gzip archive"));
        for plain in
            [&b"GGUF is a file format"[..], b"BZh", b"GIF89a is a format", b"", b"\x1b[1mbold\x1b[0m"]
        {
            assert!(matches!(Content::of(plain), Content::Text(_)), "{plain:?}");
        }
    }

    #[test]
    fn a_cut_keeps_both_ends_and_accounts_for_every_character() {
        let long: String = (1..=1000).map(|n| format!("line {n}\n")).collect();
        assert!(cut_middle(&long, long.len()).is_none());
        for max in [0, 1, 2, 10, 99, 500, 5000] {
            let cut = cut_middle(&long, max).unwrap();
            assert!(cut.head.len() + cut.tail.len() <= max);
            assert_eq!(cut.head.len() + cut.tail.len() + cut.left_out_chars, long.len());
        }
        let cut = cut_middle(&long, 300).unwrap();
        assert!(
            cut.head.ends_with('\n') && cut.tail.starts_with("line ") && cut.tail.ends_with("line 1000\n")
        );
        let one_line = "é".repeat(1000);
        let cut = cut_middle(&one_line, 90).unwrap();
        assert_eq!((cut.head.chars().count(), cut.tail.chars().count()), (60, 30));
    }
}
