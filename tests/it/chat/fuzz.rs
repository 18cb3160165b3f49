//! Random answers of a model, read whole, byte by byte and in pieces: what comes out must be the same, and whole. Shared by
//! the test and by `examples/fuzz.rs`; a seed is an answer for ever.

use qwright::chat::{ChatFormat, ParseEvent, Parsed, ToolCall, ToolCallParser, ToolSpec};
use std::ops::Range;

/// Everything that could be mistaken for structure, and some plain text.
pub const FRAGMENTS: [&str; 40] = [
    "<tool_call>",
    "</tool_call>",
    "<function=read_file>",
    "<function=",
    "</function>",
    "<parameter=path>",
    "<parameter=content>",
    "<parameter=",
    "</parameter>",
    "<tools>",
    "</tools>",
    "<think>",
    "</think>",
    "\n",
    "\n\n",
    "\r\n",
    " ",
    "\t",
    "{",
    "}",
    "{{",
    "}}",
    "[",
    "]",
    "\"",
    "'",
    "\\",
    ":",
    ",",
    "```",
    "```json\n",
    "{\"name\": \"read_file\", ",
    "\"arguments\": {\"path\": \"a\"}}",
    "{\"name\"",
    "<",
    ">",
    "read_file",
    "é漢",
    "null",
    "x",
];

/// Whole calls in both formats.
const CALLS: [&str; 4] = [
    "<tool_call>\n<function=read_file>\n<parameter=path>\na b\n</parameter>\n<parameter=limit>\n3\n</parameter>\n</function>\n</tool_call>",
    "<function=write_file>\n<parameter=path>\na\n</parameter>\n<parameter=content>\n<é>\r\n\n</parameter>\n</function>\n</tool_call>",
    "<tool_call>\n{\"name\": \"read_file\", \"arguments\": {\"path\": \"a\\n\\u00e9\", \"limit\": 3}}\n</tool_call>",
    "```json\n{\"name\": \"write_file\", \"arguments\": {\"path\": \"a\", \"content\": \"{\\\"}\"}}\n```",
];

pub fn read(
    specs: &[ToolSpec],
    format: ChatFormat,
    pieces: &[&[u8]],
    opened_think: bool,
) -> (Vec<ParseEvent>, Parsed) {
    let mut parser = ToolCallParser::new(format, specs, opened_think);
    let mut events = Vec::new();
    for piece in pieces {
        events.extend(parser.push_bytes(piece));
    }
    let (last, parsed) = parser.finish();
    events.extend(last);
    let mut merged: Vec<ParseEvent> = Vec::new();
    for event in events {
        match (merged.last_mut(), event) {
            (Some(ParseEvent::Text(text)), ParseEvent::Text(more)) => text.push_str(&more),
            (Some(ParseEvent::Thinking(text)), ParseEvent::Thinking(more)) => text.push_str(&more),
            (_, event) => merged.push(event),
        }
    }
    (merged, parsed)
}

/// What the answers came to.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub answers: u64,
    pub bytes: u64,
    pub calls: u64,
    pub truncated: u64,
    pub problems: u64,
}

/// Where the random numbers come from (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    fn answer(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // One in eight is no text at all.
        let wild = self.below(8) == 0;
        for _ in 0..self.below(24) {
            match self.below(if wild { 2 } else { 8 }) {
                0 => (0..self.below(6)).for_each(|_| bytes.push(self.below(256) as u8)),
                1 => bytes.extend_from_slice(CALLS[self.below(CALLS.len())].as_bytes()),
                _ => bytes.extend_from_slice(FRAGMENTS[self.below(FRAGMENTS.len())].as_bytes()),
            }
        }
        // A few bytes are lost.
        if self.below(3) == 0 {
            let start = self.below(bytes.len());
            let end = (start + self.below(4)).min(bytes.len());
            bytes.drain(start..end);
        }
        bytes
    }
}

/// Reads the answers of `numbers`; the first that reads differently, or is not whole, is the error.
pub fn run(specs: &[ToolSpec], seed: u64, numbers: Range<u64>) -> Result<Tally, String> {
    let mut tally = Tally::default();
    for number in numbers {
        let mut dice =
            Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let format = ChatFormat::ALL[dice.below(ChatFormat::ALL.len())];
        let opened = dice.below(4) == 0;
        let answer = dice.answer();
        let failed = |what: &str| {
            Err(format!(
                "answer {number} of seed {seed}, {format}, thinking opened {opened}: {what}: {}",
                answer.escape_ascii()
            ))
        };
        let whole = read(specs, format, &[&answer], opened);
        let bytes: Vec<&[u8]> = answer.chunks(1).collect();
        if read(specs, format, &bytes, opened) != whole {
            return failed("byte by byte it reads differently");
        }
        let mut cuts: Vec<usize> = (0..dice.below(6)).map(|_| dice.below(answer.len() + 1)).collect();
        cuts.extend([0, answer.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &answer[pair[0]..pair[1]]).collect();
        if read(specs, format, &pieces, opened) != whole {
            return failed(&format!("cut at {cuts:?} it reads differently"));
        }
        if number % 64 == 0 {
            for cut in 0..=answer.len() {
                let (left, right) = answer.split_at(cut);
                if read(specs, format, &[left, right], opened) != whole {
                    return failed(&format!("cut at {cut} it reads differently"));
                }
            }
        }
        let (events, parsed) = whole;
        let shown: String = events
            .iter()
            .filter_map(|event| match event {
                ParseEvent::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        if shown != parsed.content {
            return failed("what was shown is not the answer's text");
        }
        let calls: Vec<&ToolCall> = events
            .iter()
            .filter_map(|event| match event {
                ParseEvent::Call(call) => Some(call),
                _ => None,
            })
            .collect();
        if calls != parsed.calls.iter().collect::<Vec<_>>() {
            return failed("the calls that were told are not those of the answer");
        }
        tally.answers += 1;
        tally.bytes += answer.len() as u64;
        tally.calls += calls.len() as u64;
        tally.truncated += u64::from(parsed.truncated);
        tally.problems += parsed.problems.len() as u64;
    }
    Ok(tally)
}
