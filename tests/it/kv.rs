//! The cache of keys and values as callers meet it: whatever was appended, forked, cut, forgotten, written to disk and
//! read back in whatever order, what comes out is what one plain pass over the tokens gives, bit for bit.

use proptest::prelude::*;
use qwright::engine::kv::KvType;
use qwright::engine::recall::Snapshots;
use qwright::engine::synthetic::Synthetic;
use qwright::engine::weights::{Arch, ModelConfig};
use qwright::engine::{Engine, EngineError, EngineOptions, Sequence, Want};
use std::path::Path;
use std::sync::atomic::AtomicBool;

const VOCAB: u32 = 60;
const CONTEXT: usize = 1400;

fn engine(theta: f64) -> Engine {
    let config = ModelConfig {
        arch: Arch::Qwen3,
        layers: 2,
        hidden: 64,
        heads: 4,
        kv_heads: 2,
        head_dim: 32,
        ff: 96,
        vocab: VOCAB as usize,
        context: CONTEXT,
        eps: 1e-6,
        rope_theta: theta,
        yarn: None,
        experts: 0,
        experts_used: 0,
        expert_ff: 0,
    };
    let options = EngineOptions { threads: 2, batch: 300, ..EngineOptions::default() };
    Synthetic::plan(config, 0).unwrap().engine("made up", options).unwrap()
}

fn append(engine: &mut Engine, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<u32>, EngineError> {
    let logits = engine.append(sequence, tokens, Want::Last, &AtomicBool::new(false), &mut |_| {})?;
    Ok(logits.iter().map(|x| x.to_bits()).collect())
}

/// The logits after `tokens`, by an engine that knows nothing.
fn plain(tokens: &[u32], kind: KvType) -> Vec<u32> {
    let mut engine = engine(1e6);
    let mut sequence = engine.sequence(CONTEXT, kind);
    append(&mut engine, &mut sequence, tokens).unwrap()
}

/// Few different tokens in few different runs: conversations often begin alike.
fn run(seed: u32, n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * (seed % 3 + 1) + seed % 3) % VOCAB).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize, u32, usize),
    /// Some sequences at once.
    Together(u32, usize),
    Fork(usize, usize),
    Truncate(usize, usize),
    Drop(usize),
    Remember(usize),
    /// Nothing stays that no sequence uses.
    Forget,
    /// A new sequence that is to hold what a fresh one would have to compute.
    Recall(usize, u32, usize),
    /// Another process: only the disk remembers.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let lengths = prop_oneof![1usize..12, 200usize..420];
    prop_oneof![
        5 => (0usize..4, 0u32..3, lengths.clone()).prop_map(|(s, seed, n)| Step::Append(s, seed, n)),
        2 => (0u32..3, 1usize..8).prop_map(|(seed, n)| Step::Together(seed, n)),
        2 => (0usize..4, 0usize..900).prop_map(|(s, n)| Step::Fork(s, n)),
        2 => (0usize..4, 0usize..900).prop_map(|(s, n)| Step::Truncate(s, n)),
        1 => (0usize..4).prop_map(Step::Drop),
        2 => (0usize..4).prop_map(Step::Remember),
        1 => Just(Step::Forget),
        2 => (0usize..4, 0u32..3, lengths).prop_map(|(s, seed, n)| Step::Recall(s, seed, n)),
        1 => Just(Step::Restart),
    ]
}

fn snapshots(engine: &mut Engine, folder: &Path, kind: KvType) {
    engine.keep_snapshots(kind, Snapshots { folder, budget: 40 << 20 }).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn any_history_of_a_cache_gives_the_bits_of_a_plain_pass(
        kind in prop_oneof![Just(KvType::F16), Just(KvType::Q8_0), Just(KvType::F32)],
        steps in proptest::collection::vec(step(), 1..24),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut engine = engine(1e6);
        snapshots(&mut engine, folder.path(), kind);
        let mut held: Vec<Sequence> = vec![engine.sequence(CONTEXT, kind)];
        for step in steps {
            let n = held.len();
            match step {
                Step::Append(s, seed, count) => {
                    let sequence = &mut held[s % n];
                    let tokens = run(seed, count);
                    match append(&mut engine, sequence, &tokens) {
                        Ok(bits) => prop_assert_eq!(bits, plain(sequence.tokens(), kind)),
                        // A budget that is used up, or a full context, changes nothing.
                        Err(EngineError::ContextFull { .. } | EngineError::CacheFull { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                Step::Together(seed, count) => {
                    let tokens: Vec<Vec<u32>> =
                        (0..n).map(|i| run(seed + i as u32, 1 + (count + i) % 7)).collect();
                    let mut parts: Vec<(&mut Sequence, &[u32])> =
                        held.iter_mut().zip(tokens.iter().map(Vec::as_slice)).collect();
                    if let Ok(logits) = engine.append_many(&mut parts, &AtomicBool::new(false)) {
                        let rows: Vec<&[f32]> = logits.chunks_exact(VOCAB as usize).collect();
                        let mut row = 0;
                        for (sequence, tokens) in held.iter().zip(&tokens) {
                            row += tokens.len();
                            let bits: Vec<u32> = rows[row - 1].iter().map(|x| x.to_bits()).collect();
                            prop_assert_eq!(bits, plain(sequence.tokens(), kind));
                        }
                    }
                }
                Step::Fork(s, at) => {
                    let fork = held[s % n].fork(at);
                    prop_assert_eq!(fork.tokens(), &held[s % n].tokens()[..at.min(held[s % n].len())]);
                    if n < 4 { held.push(fork) } else { held[(s + 1) % n] = fork }
                }
                Step::Truncate(s, at) => held[s % n].truncate(at),
                Step::Drop(s) => held[s % n] = engine.sequence(CONTEXT, kind),
                Step::Remember(s) => engine.remember(&held[s % n]),
                Step::Forget => engine.pool(0, kind).forget(),
                Step::Recall(s, seed, count) => {
                    let mut tokens = held[s % n].tokens().to_vec();
                    tokens.extend(run(seed, count));
                    let mut sequence = engine.sequence(CONTEXT, kind);
                    let known = engine.recall(&mut sequence, &tokens);
                    prop_assert_eq!(sequence.tokens(), &tokens[..known]);
                    held[(s + 1) % n] = sequence;
                }
                Step::Restart => {
                    let tokens: Vec<Vec<u32>> = held.iter().map(|s| s.tokens().to_vec()).collect();
                    held.clear();
                    drop(engine);
                    engine = self::engine(1e6);
                    snapshots(&mut engine, folder.path(), kind);
                    for tokens in tokens {
                        let mut sequence = engine.sequence(CONTEXT, kind);
                        engine.recall(&mut sequence, &tokens);
                        held.push(sequence);
                    }
                }
            }
        }
        prop_assert!(engine.complaints().is_empty());
        for sequence in &mut held {
            if let Ok(bits) = append(&mut engine, sequence, &[3]) {
                prop_assert_eq!(bits, plain(sequence.tokens(), kind));
            }
        }
    }
}

#[test]
fn a_restart_finds_all_but_the_last_token_and_other_settings_find_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = run(1, 900);
    let mut first = engine(1e6);
    snapshots(&mut first, folder.path(), KvType::Q8_0);
    let mut sequence = first.sequence(CONTEXT, KvType::Q8_0);
    append(&mut first, &mut sequence, &tokens).unwrap();
    first.remember(&sequence);
    drop((first, sequence));
    let found = |theta: f64, kind: KvType| {
        let mut engine = engine(theta);
        snapshots(&mut engine, folder.path(), kind);
        let mut sequence = engine.sequence(CONTEXT, kind);
        engine.recall(&mut sequence, &tokens)
    };
    assert_eq!(found(1e6, KvType::Q8_0), 900);
    assert_eq!(found(1e7, KvType::Q8_0), 0);
    assert_eq!(found(1e6, KvType::F16), 0);
}

#[test]
fn what_does_not_fit_the_budget_is_refused_and_nothing_is_lost() {
    let mut engine = engine(1e6);
    let mut one = engine.sequence(256, KvType::F16);
    append(&mut engine, &mut one, &run(0, 255)).unwrap();
    // One block of context and the spare ones.
    let mut forks: Vec<Sequence> = Vec::new();
    let refused = loop {
        let mut fork = one.fork(200);
        match append(&mut engine, &mut fork, &[1]) {
            Ok(_) => forks.push(fork),
            Err(error) => break error,
        }
    };
    assert_eq!(forks.len(), 4);
    assert_eq!(
        refused.to_string(),
        "memory for keys and values is used up: 1280 tokens are in use and there is room for 1280"
    );
    forks.pop();
    let mut fork = one.fork(200);
    assert!(append(&mut engine, &mut fork, &[1]).is_ok());
    assert_eq!(append(&mut engine, &mut one, &[5]).unwrap(), plain(one.tokens(), KvType::F16));
}
