//! Perplexity of a model over a text, in windows of 512 tokens of which the second half counts, as `llama-perplexity
//! -c 512` does it, so that the two can be compared:
//! `cargo run --release --example perplexity -- MODEL.gguf TEXT [f32|f16|q8_0]`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use qwright::engine::backend::Backend as _;
use qwright::engine::kv::KvType;
use qwright::engine::tokenizer::Tokenizer;
use qwright::engine::{Engine, EngineOptions};
use std::sync::atomic::AtomicBool;

const WINDOW: usize = 512;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, text, rest @ ..] = &arguments[..] else {
        panic!("usage: perplexity MODEL.gguf TEXT [f32|f16|q8_0]")
    };
    let kv =
        rest.first().map_or(Some(KvType::F16), |name| KvType::from_name(name)).expect("f32, f16 or q8_0");
    let text = std::fs::read_to_string(text).expect("a text in UTF-8");
    let mut engine = Engine::open(model.as_ref(), EngineOptions::default()).expect("a model");
    let tokens = Tokenizer::from_gguf(engine.gguf()).expect("its tokenizer").encode(&text, false);
    let (cancel, mut sum, mut count) = (AtomicBool::new(false), 0f64, 0usize);
    for window in tokens.chunks_exact(WINDOW) {
        let mut sequence = engine.sequence(WINDOW, kv);
        let scored = engine.append_scored(&mut sequence, window, 0, &cancel, &mut |_| {}).unwrap();
        for place in &scored[WINDOW / 2..] {
            sum -= f64::from(place.logprob);
            count += 1;
        }
    }
    assert!(count > 0, "the text is shorter than {WINDOW} tokens");
    println!("{} tokens, KV {}: perplexity {:.4}", tokens.len(), kv.name(), (sum / count as f64).exp());
}
