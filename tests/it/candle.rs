//! The candle backend: a third opinion on the dense files, sequences that are cut and forked though its cache cannot
//! be, and what it refuses. Bounds are those of our own engine; candle keeps them with the same digits.

use crate::oracle::{folders, json, manifest, median_error};
use qwright::engine::backend::{Backend, BackendKind};
use qwright::engine::candle::CandleEngine;
use qwright::engine::gguf::Gguf;
use qwright::engine::kv::KvType;
use qwright::engine::{EngineError, EngineOptions, Sequence, TokenId, Want};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

fn tiny(name: &str) -> PathBuf {
    manifest().join(format!("fixtures/oracle/tiny-{name}.gguf"))
}

/// Small batches, so that these sequences need several.
fn open(name: &str) -> CandleEngine {
    CandleEngine::open(&tiny(name), EngineOptions { batch: 16, ..EngineOptions::default() }).unwrap()
}

fn append(engine: &mut CandleEngine, sequence: &mut Sequence, tokens: &[TokenId], want: Want) -> Vec<f32> {
    engine.append(sequence, tokens, want, &AtomicBool::new(false), &mut |_| {}).unwrap()
}

fn tokens(n: u32, seed: u32) -> Vec<TokenId> {
    (0..n).map(|i| (i * 7 + 3 + seed * 31) % 280).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let off: f32 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    (off / b.iter().map(|b| b * b).sum::<f32>()).sqrt()
}

#[test]
fn dense_models_match_the_reference() {
    let mut files = 0;
    for folder in folders() {
        let reference = json(&folder.join("reference.json"));
        let peers = json(&folder.join("llama_cpp_error.json"));
        for (name, cases) in reference.as_object().unwrap().iter().filter(|(name, _)| !name.contains("moe")) {
            let mut engine = BackendKind::Candle.open(&folder.join(name), EngineOptions::default()).unwrap();
            let error = median_error(engine.as_mut(), cases, KvType::F32);
            let bound = if name.contains("f32") { 1e-5 } else { 1.3 * peers[name].as_f64().unwrap() };
            println!("{name}: {error:.2e} (bound {bound:.2e})");
            assert!(error <= bound, "{name}: {error:.3e} > {bound:.3e}");
            files += 1;
        }
    }
    assert!(files >= 3, "only {files} files were tested");
}

/// Whatever was done to a sequence, the logits are those of its tokens in a fresh model.
#[test]
fn sequences_are_cut_forked_and_continued_as_if_fresh() {
    // f32 to rounding. Where activations are quantised, a value on the edge between two steps may fall to either side.
    for (name, bound) in [("qwen2-f32", 1e-5), ("qwen2-q4_k_m", 5e-3), ("qwen3-q4_k_m", 5e-3)] {
        let mut engine = open(name);
        let mut worst: f32 = 0.0;
        let mut check = |what: &str, sequence: &Sequence, last: &[f32]| {
            let mut fresh = open(name);
            let mut again = fresh.sequence(400, KvType::F32);
            let expected = append(&mut fresh, &mut again, sequence.tokens(), Want::Last);
            let off = distance(last, &expected);
            worst = worst.max(off);
            assert!(off <= bound, "{name}, {what}: {off}");
        };
        let mut one = engine.sequence(400, KvType::F32);
        append(&mut engine, &mut one, &tokens(40, 0), Want::Nothing);
        // Candle's qwen3 would not see the three in the passes of many that follow: few tokens, then many.
        for token in tokens(3, 1) {
            append(&mut engine, &mut one, &[token], Want::Last);
        }
        let last = append(&mut engine, &mut one, &tokens(3, 2), Want::Last);
        check("a few after some alone", &one, &last);
        let last = append(&mut engine, &mut one, &tokens(50, 3), Want::Last);
        check("many after some alone", &one, &last);
        one.truncate(30);
        let last = append(&mut engine, &mut one, &tokens(5, 4), Want::Last);
        check("cut", &one, &last);
        let aside = one.fork(one.len());
        one.truncate(20);
        let last = append(&mut engine, &mut one, &tokens(25, 5), Want::Last);
        check("tried in its place", &one, &last);
        one = aside;
        let last = append(&mut engine, &mut one, &[7], Want::Last);
        check("put back", &one, &last);
        // Two sequences share one cache.
        let mut two = engine.sequence(400, KvType::F32);
        let last = append(&mut engine, &mut two, &tokens(20, 6), Want::Last);
        check("another", &two, &last);
        let last = append(&mut engine, &mut one, &tokens(2, 7), Want::Last);
        check("the first again", &one, &last);
        let rows = append(&mut engine, &mut one, &tokens(4, 8), Want::All);
        assert_eq!(rows.len(), 4 * engine.config().vocab);
        check("all rows", &one, &rows[3 * engine.config().vocab..]);
        println!("{name}: {worst:.1e}");
    }
}

/// What a cut costs is paid when nothing is appended, so that what follows can be timed alone.
#[test]
fn appending_nothing_computes_again_what_a_cut_lost() {
    for name in ["qwen2-f32", "qwen3-q4_k_m"] {
        let mut engine = open(name);
        let mut sequence = engine.sequence(100, KvType::F32);
        append(&mut engine, &mut sequence, &tokens(60, 0), Want::Nothing);
        sequence.truncate(40);
        assert!(append(&mut engine, &mut sequence, &[], Want::Nothing).is_empty());
        assert_eq!(sequence.tokens(), &tokens(60, 0)[..40]);
        assert_eq!(engine.held(), sequence.tokens());
        let last = append(&mut engine, &mut sequence, &[7], Want::Last);
        let mut fresh = open(name);
        let mut again = fresh.sequence(100, KvType::F32);
        let expected = append(&mut fresh, &mut again, sequence.tokens(), Want::Last);
        assert!(distance(&last, &expected) <= 5e-3, "{name}");
        sequence.truncate(0);
        append(&mut engine, &mut sequence, &[], Want::Nothing);
        assert!(engine.held().is_empty());
    }
}

#[test]
fn a_cancelled_or_impossible_request_leaves_the_sequence_as_it_was() {
    let mut engine = open("qwen3-q4_k_m");
    let mut sequence = engine.sequence(60, KvType::F16);
    append(&mut engine, &mut sequence, &tokens(20, 0), Want::Last);
    let held = sequence.tokens().to_vec();
    let raised = AtomicBool::new(true);
    let cancelled = engine.append(&mut sequence, &tokens(20, 1), Want::Last, &raised, &mut |_| {});
    assert!(matches!(cancelled, Err(EngineError::Cancelled)));
    let never = AtomicBool::new(false);
    let full = engine.append(&mut sequence, &tokens(41, 1), Want::Last, &never, &mut |_| {});
    assert!(matches!(full, Err(EngineError::ContextFull { needed: 61, limit: 60 })));
    let foreign = engine.append(&mut sequence, &[1, 999_999], Want::Last, &never, &mut |_| {});
    assert!(matches!(foreign, Err(EngineError::BadToken { token: 999_999, .. })));
    assert_eq!(sequence.tokens(), held);
    // Raised between two batches: the first stays.
    let raised = AtomicBool::new(false);
    let cancelled = engine.append(&mut sequence, &tokens(40, 1), Want::Last, &raised, &mut |done| {
        assert_eq!(done, 16);
        raised.store(true, Ordering::Relaxed);
    });
    assert!(matches!(cancelled, Err(EngineError::Cancelled)));
    assert_eq!(sequence.tokens(), [&held[..], &tokens(40, 1)[..16]].concat());
}

#[test]
fn what_candle_cannot_run_is_refused_with_a_way_out() {
    let refused = |gguf: Gguf| match CandleEngine::new(gguf, EngineOptions::default()) {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error.to_string(),
    };
    if !cfg!(feature = "cuda") {
        let error = refused(Gguf::open(&tiny("qwen3moe-q8_0")).unwrap());
        assert!(
            error.contains("qwen3moe on CUDA only") && error.ends_with("--backend native runs it"),
            "{error}"
        );
    }
    // The same file, but for the type of one tensor: Q4_K or Q6_K becomes IQ4_XS, which needs fewer bytes.
    let mut bytes = std::fs::read(tiny("qwen2-q4_k_m")).unwrap();
    let name = b"blk.0.ffn_down.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len();
    let kind = at + 4 + 2 * 8;
    assert!([12, 14].contains(&bytes[kind]));
    bytes[kind] = 23;
    let error = refused(Gguf::from_bytes("x.gguf", bytes).unwrap());
    assert!(error.contains("type IQ4_XS (blk.0.ffn_down.weight); --backend native runs it"), "{error}");
}

#[test]
fn the_flag_chooses_the_backend() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qwright"));
        let output = command.args(arguments).env_clear().env("HOME", "/nonexistent");
        let output = output.stdin(std::process::Stdio::null()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (dense, moe) = (tiny("qwen2-q4_k_m"), tiny("qwen3moe-q8_0"));
    let logits = |file: &PathBuf, backend: &str| {
        run(&["inspect", "logits", "-m", file.to_str().unwrap(), "--backend", backend])
    };
    for backend in ["native", "candle"] {
        assert_eq!(logits(&dense, backend), (0, String::new()));
    }
    assert_eq!(logits(&moe, "native").0, 0);
    if !cfg!(feature = "cuda") {
        let (code, error) = logits(&moe, "candle");
        assert!(code == 6 && error.contains("--backend native"), "{error}");
    }
    let (code, error) = logits(&dense, "gpu");
    assert!(code == 2 && error.contains("`gpu` is none of native, candle"), "{error}");
}
