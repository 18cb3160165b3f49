//! A context filled to its end, and what the process then holds beside mapped files, against what was announced before
//! loading: `cargo run --release --example memory -- MODEL.gguf TOKENS f16|q8_0`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use qwright::commands::memory::Ask;
use qwright::engine::EngineOptions;
use qwright::engine::backend::BackendKind;
use qwright::engine::gguf::Gguf;
use qwright::engine::kv::KvType;
use qwright::engine::memory::{Load, resident_beside_files};
use qwright::engine::tokenizer::Tokenizer;
use qwright::engine::weights::ModelConfig;
use qwright::engine::{Engine, TokenId, Want};
use std::sync::atomic::AtomicBool;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, tokens, kv] = &arguments[..] else { panic!("usage: memory MODEL.gguf TOKENS f16|q8_0") };
    let tokens: usize = tokens.parse().expect("a number of tokens");
    let kv = KvType::from_name(kv).expect("f32, f16 or q8_0");
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let gguf = Gguf::open(path.as_ref()).expect("a model");
    let model = ModelConfig::from_gguf(&gguf).expect("a model");
    let ask = Ask::of_file(BackendKind::Native, &gguf, &model, Load::Map, (tokens, kv));
    let announced = ask.kv.0 + ask.work;
    println!(
        "announced {:.1} MB: {:.1} keys and values, {:.1} to work with",
        mb(announced),
        mb(ask.kv.0),
        mb(ask.work)
    );
    drop(gguf);
    let start = resident_beside_files().unwrap();
    let mut engine = Engine::open(path.as_ref(), EngineOptions::default()).expect("a model");
    let opened = resident_beside_files().unwrap();
    let tokenizer = Tokenizer::from_gguf(engine.gguf()).expect("a vocabulary");
    let vocabulary = resident_beside_files().unwrap();
    println!(
        "held: {:.1} MB at the start, {:.1} opened, {:.1} with the vocabulary",
        mb(start),
        mb(opened),
        mb(vocabulary)
    );
    let text = tokenizer.encode(include_str!("../src/engine/forward.rs"), false);
    let filling: Vec<TokenId> = text.iter().copied().cycle().take(tokens).collect();
    let mut sequence = engine.sequence(tokens, kv);
    let mut done = 0;
    for part in filling.chunks(2048) {
        engine.append(&mut sequence, part, Want::Last, &AtomicBool::new(false), &mut |_| {}).expect("room");
        done += part.len();
        let held = resident_beside_files().unwrap();
        println!(
            "{done} tokens: {:.1} MB held, {:.3} of what was announced",
            mb(held),
            held as f64 / announced as f64
        );
    }
}
