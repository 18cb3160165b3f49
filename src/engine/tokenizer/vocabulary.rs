//! What a file says of its vocabulary, checked: the pieces in the byte-level alphabet, the merges by name, and which
//! tokens are text, added or unused. The file is hostile input; what is inconsistent is refused with one line. Only
//! ordinary tokens take part in merges, so no vocabulary can make text encode to an added token.
use super::Tokenizer;
use super::bpe::Bpe;
use crate::engine::gguf::Gguf;
use crate::engine::{EngineError, TokenId};
use std::collections::HashMap;

/// The longest piece that is believed; Qwen's is 128 bytes.
const MAX_PIECE: usize = 1 << 16;
const MAX_TOKENS: usize = 1 << 24;

/// A vocabulary as a GGUF holds it.
#[derive(Debug, Clone, Default)]
pub struct Parts<'a> {
    /// In the byte-level alphabet, except those of the added tokens.
    pub tokens: Vec<&'a [u8]>,
    /// `LEFT RIGHT`, from the lowest rank on.
    pub merges: Vec<&'a [u8]>,
    /// As GGUF numbers them, see `Kind`; one per token.
    pub kinds: Vec<i64>,
    /// Name of the rule by which text is cut into words.
    pub pre: &'a str,
    pub end_of_text: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ordinary,
    Added,
    Unused,
}

/// The bytes of every token, end to end.
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// Where token i ends.
    ends: Vec<usize>,
}

impl Pieces {
    pub fn get(&self, id: TokenId) -> &[u8] {
        let Ok(id) = usize::try_from(id) else { return &[] };
        let start = match id.checked_sub(1) {
            Some(before) => self.ends.get(before).copied(),
            None => Some(0),
        };
        match (start, self.ends.get(id)) {
            (Some(start), Some(&end)) => self.bytes.get(start..end).unwrap_or_default(),
            _ => &[],
        }
    }
}

/// The added tokens by their text.
pub(super) struct Added {
    ids: HashMap<Box<[u8]>, TokenId>,
    /// By first byte: the lengths there are, longest first.
    lengths: Box<[Vec<usize>; 256]>,
}

impl Added {
    pub fn get(&self, text: &[u8]) -> Option<TokenId> {
        self.ids.get(text).copied()
    }

    /// The first added token in `text`, of several at one place the longest: start, end, id.
    pub fn find(&self, text: &str) -> Option<(usize, usize, TokenId)> {
        let bytes = text.as_bytes();
        bytes.iter().enumerate().find_map(|(start, &first)| {
            self.lengths[usize::from(first)].iter().find_map(|length| {
                let end = start.checked_add(*length)?;
                Some((start, end, self.get(bytes.get(start..end)?)?))
            })
        })
    }
}

pub(super) fn from_gguf(gguf: &Gguf) -> Result<Tokenizer, EngineError> {
    if gguf.meta("tokenizer.ggml.tokens").is_none() {
        return Err(gguf.refuse("it has no tokenizer (metadata key tokenizer.ggml.tokens is missing)"));
    }
    let model = gguf.require_str("tokenizer.ggml.model")?;
    if model != "gpt2" {
        return Err(gguf.refuse(&format!(
            "its tokenizer is of the kind {}; only \"gpt2\" is known",
            shortened(model.as_bytes())
        )));
    }
    let parts = Parts {
        tokens: gguf.require_strings("tokenizer.ggml.tokens")?.iter().collect(),
        merges: gguf.require_strings("tokenizer.ggml.merges")?.iter().collect(),
        kinds: gguf
            .ints("tokenizer.ggml.token_type")
            .ok_or_else(|| gguf.refuse("metadata key tokenizer.ggml.token_type is no array of integers"))?
            .collect(),
        // Files from before the key was invented are Qwen's too, by their architecture.
        pre: gguf.get("tokenizer.ggml.pre")?.unwrap_or("qwen2"),
        end_of_text: gguf.u64("tokenizer.ggml.eos_token_id"),
    };
    build(&parts).map_err(|problem| gguf.refuse(&problem))
}

pub(super) fn build(parts: &Parts) -> Result<Tokenizer, String> {
    let Parts { tokens, merges, kinds, pre, end_of_text } = parts;
    if *pre != "qwen2" {
        return Err(format!("its pre-tokenizer is {}; only \"qwen2\" is known", shortened(pre.as_bytes())));
    }
    if tokens.len() > MAX_TOKENS || merges.len() > MAX_TOKENS {
        return Err(format!("a vocabulary of {} tokens and {} merges", tokens.len(), merges.len()));
    }
    if kinds.len() != tokens.len() {
        return Err(format!("{} token types for {} tokens", kinds.len(), tokens.len()));
    }
    let alphabet = ByteAlphabet::new();
    let mut pieces = Pieces {
        bytes: Vec::with_capacity(tokens.iter().map(|piece| piece.len().min(MAX_PIECE)).sum()),
        ends: Vec::with_capacity(tokens.len()),
    };
    let mut ordinary: HashMap<&[u8], TokenId> = HashMap::with_capacity(tokens.len());
    let mut added = Added { ids: HashMap::new(), lengths: Box::new([const { Vec::new() }; 256]) };
    let mut unused = Vec::with_capacity(tokens.len());
    for (id, (&piece, &number)) in (0..).zip(tokens.iter().zip(kinds)) {
        if piece.len() > MAX_PIECE {
            return Err(format!("token {id} has {} bytes", piece.len()));
        }
        let kind = kind_of(id, piece, number)?;
        let former = match kind {
            Kind::Ordinary => {
                alphabet.decode(piece, &mut pieces.bytes);
                ordinary.insert(piece, id)
            }
            Kind::Added => {
                // Text is cut where such a token begins and ends: it has to be text itself.
                std::str::from_utf8(piece).map_err(|_| format!("token {id} is no UTF-8"))?;
                pieces.bytes.extend_from_slice(piece);
                added.ids.insert(piece.into(), id)
            }
            Kind::Unused => None,
        };
        if let Some(former) = former {
            return Err(format!("tokens {former} and {id} are both {}", shortened(piece)));
        }
        if kind != Kind::Unused && piece.is_empty() {
            return Err(format!("token {id} is empty"));
        }
        pieces.ends.push(pieces.bytes.len());
        unused.push(kind == Kind::Unused);
    }
    for text in added.ids.keys() {
        if let Some(&first) = text.first() {
            added.lengths[usize::from(first)].push(text.len());
        }
    }
    for lengths in added.lengths.iter_mut() {
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
    }
    let bpe = merge_table(merges, &ordinary, &alphabet)?;
    let mut stops: Vec<TokenId> =
        [&b"<|im_end|>"[..], b"<|endoftext|>"].iter().filter_map(|text| added.get(text)).collect();
    if let Some(end) = end_of_text {
        let id = TokenId::try_from(*end).ok().filter(|&id| unused.get(id as usize) == Some(&false));
        let id = id.ok_or_else(|| format!("its end-of-text token is {end}, which is no token"))?;
        if !stops.contains(&id) {
            stops.push(id);
        }
    }
    Ok(Tokenizer { pieces, added, unused, stops, bpe })
}

fn kind_of(id: TokenId, piece: &[u8], number: i64) -> Result<Kind, String> {
    Ok(match number {
        // Some converters called padding "user-defined".
        _ if piece.starts_with(b"[PAD") && piece == format!("[PAD{id}]").as_bytes() => Kind::Unused,
        // Normal, byte.
        1 | 6 => Kind::Ordinary,
        // Control, user-defined.
        3 | 4 => Kind::Added,
        // Unknown, unused.
        2 | 5 => Kind::Unused,
        _ => return Err(format!("token {id} is of type {number}")),
    })
}

fn merge_table(
    merges: &[&[u8]],
    ordinary: &HashMap<&[u8], TokenId>,
    alphabet: &ByteAlphabet,
) -> Result<Bpe, String> {
    let mut byte_tokens = [0; 256];
    for (byte, token) in (0..=u8::MAX).zip(&mut byte_tokens) {
        let mut text = [0; 4];
        let text = alphabet.chars[usize::from(byte)].encode_utf8(&mut text);
        *token = *ordinary.get(text.as_bytes()).ok_or_else(|| format!("no token for byte 0x{byte:02x}"))?;
    }
    let mut bpe = Bpe::new(byte_tokens, merges.len());
    let mut joined = Vec::new();
    for (rank, merge) in (0..).zip(merges) {
        let wrong = |problem: &str| format!("merge {rank}, {}, {problem}", shortened(merge));
        let mut halves = merge.split(|&byte| byte == b' ');
        let (Some(left), Some(right), None) = (halves.next(), halves.next(), halves.next()) else {
            return Err(wrong("is not two tokens"));
        };
        joined.clear();
        joined.extend_from_slice(left);
        joined.extend_from_slice(right);
        let id = |piece: &[u8]| {
            ordinary
                .get(piece)
                .copied()
                .ok_or_else(|| wrong(&format!("names {}, no token", shortened(piece))))
        };
        bpe.push(id(left)?, id(right)?, rank, id(&joined)?);
    }
    Ok(bpe)
}

/// The alphabet in which byte-level vocabularies are written: a printable character for each byte. Bytes that are
/// printable in Latin-1 stand for themselves, the others are numbered from U+0100 on.
struct ByteAlphabet {
    chars: [char; 256],
    /// `bytes[c]` for a character c of the alphabet.
    bytes: [Option<u8>; 512],
}

impl ByteAlphabet {
    fn new() -> Self {
        let mut alphabet = Self { chars: ['\0'; 256], bytes: [None; 512] };
        let mut others = '\u{100}'..;
        for byte in 0..=u8::MAX {
            let itself = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
            let char = if itself { char::from(byte) } else { others.next().unwrap_or_default() };
            alphabet.chars[usize::from(byte)] = char;
            alphabet.bytes[char as usize] = Some(byte);
        }
        alphabet
    }

    /// Appends the bytes that `piece` stands for: its own where it is not written in this alphabet.
    fn decode(&self, piece: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        let mut push = |c: char| match self.bytes.get(c as usize) {
            Some(&Some(byte)) => {
                out.push(byte);
                true
            }
            _ => false,
        };
        if !std::str::from_utf8(piece).is_ok_and(|text| text.chars().all(&mut push)) {
            out.truncate(start);
            out.extend_from_slice(piece);
        }
    }
}

/// For a message: quoted, escaped, not longer than a line has room for.
fn shortened(piece: &[u8]) -> String {
    let text = String::from_utf8_lossy(piece);
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
