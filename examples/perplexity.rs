//! Perplexity of a model over a text, in windows of 512 tokens of which the second half counts, as `llama-perplexity
//! -c 512` does it, so that the two can be compared. With several types of keys and values each window is scored with
//! each, and the difference to the first type is given with its standard error:
//! `cargo run --release --example perplexity -- MODEL.gguf TEXT [f16[,q8_0...] [TOKENS]]`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use qwright::engine::backend::Backend as _;
use qwright::engine::kv::KvType;
use qwright::engine::tokenizer::Tokenizer;
use qwright::engine::{Engine, EngineOptions};
use std::io::{IsTerminal, Write};
use std::sync::atomic::AtomicBool;

const WINDOW: usize = 512;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, text, rest @ ..] = &arguments[..] else {
        panic!("usage: perplexity MODEL.gguf TEXT [f16,q8_0 [TOKENS]]")
    };
    let kinds = rest.first().map_or("f16", String::as_str).split(',');
    let kinds: Vec<KvType> = kinds.map(|name| KvType::from_name(name).expect("f32, f16 or q8_0")).collect();
    let most: usize = rest.get(1).map_or(usize::MAX, |tokens| tokens.parse().expect("a number of tokens"));
    let text = std::fs::read_to_string(text).expect("a text in UTF-8");
    let mut engine = Engine::open(model.as_ref(), EngineOptions::default()).expect("a model");
    let tokens = Tokenizer::from_gguf(engine.gguf()).expect("its tokenizer").encode(&text, false);
    let tokens = &tokens[..tokens.len().min(most)];
    let cancel = AtomicBool::new(false);
    // [kind][token]: minus the logarithm of its probability
    let mut losses = vec![Vec::new(); kinds.len()];
    for (i, window) in tokens.chunks_exact(WINDOW).enumerate() {
        for (kind, losses) in kinds.iter().zip(&mut losses) {
            let mut sequence = engine.sequence(WINDOW, *kind);
            let scored = engine.append_scored(&mut sequence, window, 0, &cancel, &mut |_| {}).unwrap();
            losses.extend(scored[WINDOW / 2..].iter().map(|place| -f64::from(place.logprob)));
        }
        if std::io::stderr().is_terminal() {
            eprint!("\r{} of {} windows", i + 1, tokens.len() / WINDOW);
            let _ = std::io::stderr().flush();
        }
    }
    assert!(!losses[0].is_empty(), "the text is shorter than {WINDOW} tokens");
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    for (kind, losses_of) in kinds.iter().zip(&losses) {
        let perplexity = mean(losses_of).exp();
        println!(
            "{} tokens, {} of them scored, KV {}: perplexity {perplexity:.4}",
            tokens.len(),
            losses_of.len(),
            kind.name()
        );
        // The same tokens with both: the difference is far less noisy than either.
        let changes: Vec<f64> = losses_of.iter().zip(&losses[0]).map(|(a, b)| a - b).collect();
        let change = mean(&changes);
        let variance = changes.iter().map(|c| (c - change).powi(2)).sum::<f64>() / (changes.len() - 1) as f64;
        if kind != &kinds[0] {
            let error = (variance / changes.len() as f64).sqrt();
            println!(
                "  {:+.3} % (± {:.3}) of {}",
                (change.exp() - 1.0) * 100.0,
                error * 100.0,
                kinds[0].name()
            );
        }
    }
}
