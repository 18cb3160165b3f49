//! The tokenizer: the real vocabulary against two other implementations (`fixtures/tokenizer`), a small one for what
//! pieces and added tokens mean, and vocabularies that lie. The splitter and the merges have their own tests beside
//! them, against a regex engine and the definition.
use crate::gguf::{GgufBuilder, Meta};
use crate::oracle::{ids, manifest};
use proptest::prelude::*;
use qwright::engine::TokenId;
use qwright::engine::gguf::Gguf;
use qwright::engine::tokenizer::{Parts, Tokenizer, Utf8Stream};
use serde_json::Value;
use std::sync::LazyLock;
use unicode_normalization::UnicodeNormalization;

/// The vocabulary of the real model; fails where that is missing.
fn real() -> &'static Tokenizer {
    static REAL: LazyLock<Tokenizer> = LazyLock::new(|| {
        Tokenizer::from_gguf(&Gguf::open(&crate::real_model::model_path()).unwrap()).unwrap()
    });
    &REAL
}

/// (text, added, ids)
fn cases() -> Vec<(String, bool, Vec<TokenId>)> {
    let lines = std::fs::read_to_string(manifest().join("fixtures/tokenizer/cases.jsonl")).unwrap();
    let case = |line| {
        let case: Value = serde_json::from_str(line).unwrap();
        let added = case.get("added").is_some_and(|added| added.as_bool().unwrap());
        (case["text"].as_str().unwrap().to_string(), added, ids(&case["ids"]))
    };
    lines.lines().map(case).collect()
}

#[test]
fn the_real_vocabulary_encodes_as_other_implementations_do() {
    let cases = cases();
    assert!(cases.len() > 400);
    for (text, added, ids) in cases {
        assert_eq!(real().encode(&text, added), ids, "{text:?}, added {added}");
    }
}

#[test]
fn what_was_encoded_decodes_to_its_normal_form() {
    for (text, _, ids) in cases() {
        let normal: String = text.nfc().collect();
        assert_eq!(real().decode(&ids), normal);
        let mut stream = Utf8Stream::default();
        let mut streamed: String = ids.iter().map(|&id| stream.push(real().bytes(id))).collect();
        streamed.push_str(&stream.finish());
        assert_eq!(streamed, normal);
    }
}

#[test]
fn content_in_pieces_is_one_text() {
    for (text, _, ids) in cases().into_iter().filter(|(_, added, _)| !added) {
        let characters: Vec<String> = text.chars().map(String::from).collect();
        let pieces: Vec<(bool, &str)> = characters.iter().map(|piece| (false, piece.as_str())).collect();
        assert_eq!(real().encode_pieces(&pieces), ids, "{text:?}");
        // Single characters of a template are no added token either.
        let pieces: Vec<(bool, &str)> = characters.iter().map(|piece| (true, piece.as_str())).collect();
        assert_eq!(real().encode_pieces(&pieces), ids, "{text:?}");
    }
}

#[test]
fn a_turn_of_the_real_template() {
    let real = real();
    let turn = [(true, "<|im_start|>user\n"), (false, "\n\n<|im_end|> don't"), (true, "<|im_end|>\n")];
    let mut expected = vec![151644];
    expected.extend(real.encode("user\n\n\n<|im_end|> don't", false));
    expected.extend([151645, 198]);
    assert_eq!(real.encode_pieces(&turn), expected);
    // The line breaks of template and content are one token.
    assert_eq!(expected[..3], [151644, 872, 1406]);
}

#[test]
fn the_real_vocabulary_is_qwens() {
    let real = real();
    assert_eq!(real.vocab_size(), 151_936);
    assert_eq!(real.stops(), [151_645, 151_643]);
    assert_eq!(real.added("<tool_call>"), Some(151_657));
    assert_eq!(real.added("<|file_sep|>"), Some(151_664));
    assert_eq!((real.added("<think>"), real.added("hello"), real.added("")), (None, None, None));
    assert!(real.is_added(151_657) && real.is_added(151_645) && !real.is_added(1) && !real.is_added(151_665));
    assert_eq!(real.bytes(151_644), b"<|im_start|>");
    assert_eq!((real.bytes(0), real.bytes(220)), (&b"!"[..], &b" "[..]));
    assert!(!real.never_sampled(151_664) && real.never_sampled(151_665) && real.never_sampled(u32::MAX));
    assert!(real.bytes(151_665).is_empty() && real.bytes(u32::MAX).is_empty());
    let mask = real.base_mask(151_936);
    assert_eq!((mask.len(), mask.count()), (151_936, 151_665));
    assert!(!mask.contains(151_665) && mask.contains(151_664));
}

#[test]
fn a_megabyte_in_one_word_or_one_blank_is_encoded() {
    for unit in ["ab", " ", "\n", "=", "1", "é", "\u{301}", "你"] {
        let text = unit.repeat(1_000_000 / unit.len());
        let ids = real().encode(&text, false);
        assert_eq!(real().decode(&ids), text);
    }
}

/// The character that stands for a byte in a vocabulary.
fn character(byte: u8) -> char {
    let shown = |byte: &u8| (33..=126).contains(byte) || (161..=172).contains(byte) || *byte >= 174;
    if shown(&byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !shown(byte)).count();
    char::from_u32(256 + before as u32).unwrap()
}

/// A small vocabulary that can be changed before it is used.
#[derive(Clone, Debug)]
struct Small {
    tokens: Vec<Vec<u8>>,
    merges: Vec<Vec<u8>>,
    kinds: Vec<i64>,
    pre: &'static str,
    end_of_text: Option<u64>,
}

impl Small {
    fn new() -> Self {
        let mut small = Self {
            tokens: Vec::new(),
            merges: Vec::new(),
            kinds: Vec::new(),
            pre: "qwen2",
            end_of_text: None,
        };
        (0..=255).for_each(|byte| small.push(&character(byte).to_string(), 1));
        for (left, right) in [("Ċ", "Ċ"), ("a", "b"), ("ab", "ab"), ("Ġ", "ab"), ("Ã", "©")] {
            small.push(&format!("{left}{right}"), 1);
            small.merges.push(format!("{left} {right}").into_bytes());
        }
        for (text, kind) in [("<|im_end|>", 3), ("<x>", 4), ("<x>>", 4), ("[PAD264]", 5), ("[PAD265]", 4)] {
            small.push(text, kind);
        }
        small
    }

    fn push(&mut self, token: &str, kind: i64) {
        self.tokens.push(token.into());
        self.kinds.push(kind);
    }

    fn build(&self) -> Result<Tokenizer, String> {
        let parts = Parts {
            tokens: self.tokens.iter().map(Vec::as_slice).collect(),
            merges: self.merges.iter().map(Vec::as_slice).collect(),
            kinds: self.kinds.clone(),
            pre: self.pre,
            end_of_text: self.end_of_text,
        };
        Tokenizer::from_parts(&parts).map_err(|error| error.to_string())
    }
}

const NN: TokenId = 256;
const AB: TokenId = 257;
const ABAB: TokenId = 258;
const SPACE_AB: TokenId = 259;
const E_ACUTE: TokenId = 260;
const IM_END: TokenId = 261;
const X: TokenId = 262;
const X_LONG: TokenId = 263;

#[test]
fn added_tokens_are_cut_out_of_template_text_only() {
    let small = Small::new().build().unwrap();
    let b = TokenId::from;
    let check = |pieces: &[(bool, &str)], expected: &[TokenId]| {
        assert_eq!(small.encode_pieces(pieces), expected, "{pieces:?}");
    };
    check(&[(true, "ab<|im_end|>ab")], &[AB, IM_END, AB]);
    check(&[(true, "<x><x>><x>")], &[X, X_LONG, X]);
    check(&[(true, "<<x")], &[b(b'<'), b(b'<'), b(b'x')]);
    check(&[(false, "<x>")], &[b(b'<'), b(b'x'), b(b'>')]);
    check(&[(true, "<x"), (false, ">")], &[b(b'<'), b(b'x'), b(b'>')]);
    check(&[(true, "<x"), (true, ">")], &[b(b'<'), b(b'x'), b(b'>')]);
    check(&[(true, "<x>"), (false, ">")], &[X, b(b'>')]);
    check(&[(true, "[PAD264][PAD265]")], &small.encode("[PAD264][PAD265]", false));
    check(&[], &[]);
    check(&[(true, ""), (false, "")], &[]);
}

#[test]
fn text_between_added_tokens_is_one_string() {
    let small = Small::new().build().unwrap();
    let a = TokenId::from(b'a');
    assert_eq!(small.encode_pieces(&[(true, "<x>a"), (false, "ba"), (true, "b<x>")]), [X, ABAB, X]);
    assert_eq!(small.encode_pieces(&[(true, "\n"), (false, "\n ab")]), [NN, SPACE_AB]);
    // Composed across a border, but not across an added token.
    assert_eq!(small.encode_pieces(&[(true, "e"), (false, "\u{301}")]), [E_ACUTE]);
    assert_eq!(small.encode("e\u{301}", false), [E_ACUTE]);
    let apart = small.encode_pieces(&[(true, "e<x>"), (false, "\u{301}a")]);
    assert_eq!((apart[..2].to_vec(), apart.last()), (vec![TokenId::from(b'e'), X], Some(&a)));
}

#[test]
fn padding_is_nothing_by_name_or_by_type() {
    let small = Small::new().build().unwrap();
    for id in [264, 265] {
        assert!(small.never_sampled(id) && small.bytes(id).is_empty() && !small.is_added(id));
    }
    assert_eq!(small.base_mask(300).iter().collect::<Vec<_>>(), (0..264).collect::<Vec<_>>());
    assert_eq!(small.base_mask(10).count(), 10);
    assert_eq!(small.stops(), [IM_END]);
    let with_end = Small { end_of_text: Some(u64::from(X)), ..Small::new() }.build().unwrap();
    assert_eq!(with_end.stops(), [IM_END, X]);
}

#[test]
fn every_byte_has_a_token_and_every_token_its_bytes() {
    let small = Small::new().build().unwrap();
    for byte in 0..=255u8 {
        assert_eq!(small.bytes(TokenId::from(byte)), [byte]);
    }
    assert_eq!(
        small.decode(&[NN, SPACE_AB, E_ACUTE, IM_END, 264, 99_999, 0xff]),
        "\n\n ab\u{e9}<|im_end|>\u{fffd}"
    );
    // A piece outside the alphabet stands for itself.
    let mut odd = Small::new();
    odd.tokens[E_ACUTE as usize] = "Ã© ☃".into();
    odd.merges.pop();
    assert_eq!(odd.build().unwrap().bytes(E_ACUTE), "Ã© ☃".as_bytes());
}

#[test]
fn vocabularies_that_lie_are_refused_with_one_line() {
    let refused = |change: &dyn Fn(&mut Small), reason: &str| {
        let mut small = Small::new();
        change(&mut small);
        let error = small.build().err().unwrap_or_else(|| panic!("not refused: {reason}"));
        assert!(error.contains(reason), "{error}");
        assert!(error.len() < 200 && !error.contains('\n'), "{error}");
    };
    refused(&|small| small.tokens[65] = b"AAA".to_vec(), "no token for byte 0x41");
    refused(&|small| small.kinds[65] = 5, "no token for byte 0x41");
    refused(&|small| small.kinds[65] = 3, "no token for byte 0x41");
    refused(&|small| small.push("ab", 1), "tokens 257 and 266 are both \"ab\"");
    refused(&|small| small.push("<x>", 3), "tokens 262 and 266 are both");
    refused(&|small| small.push("", 1), "token 266 is empty");
    refused(&|small| small.push("", 3), "token 266 is empty");
    refused(&|small| small.push("zz", 9), "token 266 is of type 9");
    refused(&|small| small.push("zz", i64::MIN), "token 266 is of type");
    refused(&|small| small.push(&"z".repeat(100_000), 1), "token 266 has 100000 bytes");
    refused(&|small| small.kinds.truncate(9), "9 token types for 266 tokens");
    refused(&|small| small.tokens.clear(), "token types for 0 tokens");
    refused(&|small| small.pre = "llama-bpe", "llama-bpe");
    refused(&|small| small.end_of_text = Some(264), "end-of-text token is 264");
    refused(&|small| small.end_of_text = Some(u64::MAX), "end-of-text token is");
    refused(&|small| small.tokens[262] = b"<\xff".to_vec(), "token 262 is no UTF-8");
    let merge = |merge: &'static [u8]| move |small: &mut Small| small.merges.push(merge.to_vec());
    refused(&merge(b"ab zz"), "merge 5, \"ab zz\", names \"zz\"");
    refused(&merge(b"ab a"), "names \"aba\"");
    refused(&merge(b"ab"), "is not two tokens");
    refused(&merge(b"a b ab"), "is not two tokens");
    refused(&merge(b" "), "names \"\"");
    refused(&merge(b"a\n\xff b"), "merge 5, \"a\\n\u{fffd} b\"");
    // Else text could encode to an added token.
    refused(&merge(b"<x >"), "names \"<x\"");
    refused(
        &|small| {
            small.push("<x", 1);
            small.merges.push(b"<x >".to_vec());
        },
        "names \"<x>\"",
    );
    refused(&|small| small.merges.push([b'a'; 70_000].to_vec()), "is not two tokens");
}

proptest! {
    #[test]
    fn no_vocabulary_makes_it_panic(
        changes in prop::collection::vec((0usize..300, prop::collection::vec(any::<u8>(), 0..4), 0i64..8), 0..6),
        merges in prop::collection::vec("[abĊĠ© ]{0,5}", 0..4),
        text in "(<x>|<|im_end|>|[ab\n é\u{301}])*",
    ) {
        let mut small = Small::new();
        for (at, token, kind) in changes {
            let at = at % (small.tokens.len() + 5);
            if at < small.tokens.len() {
                small.tokens[at] = token;
                small.kinds[at] = kind;
            } else {
                small.push(&String::from_utf8_lossy(&token), kind);
            }
        }
        small.merges.extend(merges.into_iter().map(String::into_bytes));
        if let Ok(tokenizer) = small.build() {
            let ids = tokenizer.encode(&text, true);
            prop_assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size() && !tokenizer.never_sampled(id)));
            tokenizer.decode(&ids);
        }
    }

    #[test]
    fn text_survives_and_never_becomes_an_added_token(text in "([ab\n 1'!é\u{301}\u{a0}<x>|]|<x>|<|im_end|>|\\PC){0,40}") {
        let small = Small::new().build().unwrap();
        let ids = small.encode(&text, false);
        prop_assert!(ids.iter().all(|&id| !small.is_added(id)));
        prop_assert_eq!(small.decode(&ids), text.nfc().collect::<String>());
    }
}

#[test]
fn the_small_models_have_a_vocabulary_too() {
    let gguf = Gguf::open(&manifest().join("fixtures/oracle/tiny-qwen2-q4_k_m.gguf")).unwrap();
    let tiny = Tokenizer::from_gguf(&gguf).unwrap();
    assert_eq!(tiny.vocab_size(), 288);
    let text = "the string is\n\tdon't <|im_end|> é";
    assert_eq!(tiny.decode(&tiny.encode(text, false)), text);
    assert!(tiny.encode(text, false).len() < text.len(), "no merge was used");
}

#[test]
fn files_without_a_usable_tokenizer_are_refused() {
    let refused = |builder: GgufBuilder, reason: &str| {
        let gguf = Gguf::from_bytes("m.gguf", builder.build()).unwrap();
        let error = Tokenizer::from_gguf(&gguf).err().unwrap().to_string();
        assert!(error.starts_with("m.gguf: ") && error.contains(reason), "{error}");
    };
    let with = |model| {
        GgufBuilder::new()
            .meta("tokenizer.ggml.model", Meta::Str(model))
            .meta("tokenizer.ggml.tokens", Meta::Strings(vec!["a", "b"]))
    };
    refused(GgufBuilder::tiny(), "has no tokenizer");
    refused(with("llama"), "of the kind \"llama\"");
    refused(with("gpt2"), "merges");
    let with_merges = || with("gpt2").meta("tokenizer.ggml.merges", Meta::Strings(vec![]));
    refused(with_merges(), "token_type");
    refused(with_merges().meta("tokenizer.ggml.token_type", Meta::Strings(vec!["1"])), "token_type");
    refused(
        with_merges().meta("tokenizer.ggml.token_type", Meta::Ints(vec![1])),
        "1 token types for 2 tokens",
    );
    let whole = || with_merges().meta("tokenizer.ggml.token_type", Meta::Ints(vec![1, 1]));
    refused(whole(), "no token for byte 0x00");
    refused(whole().meta("tokenizer.ggml.pre", Meta::Str("gpt-2")), "pre-tokenizer is \"gpt-2\"");
    refused(GgufBuilder::new().meta("tokenizer.ggml.tokens", Meta::Ints(vec![1])), "tokenizer.ggml.model");
}
