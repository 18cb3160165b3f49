//! The real 1.5B coder against llama.cpp's own top ten logits, and its reproducibility. These tests fail where the
//! model is missing: `.ci/run` fetches it, a developer runs `qwright models pull qwen2.5-coder-1.5b`.

use crate::oracle::{ids, json, manifest};
use qwright::engine::kv::KvType;
use qwright::engine::{Engine, EngineOptions, Want};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

pub const FILE: &str = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf";

/// Where the real model lies: `QWRIGHT_TEST_MODEL`, else the folder that `qwright models pull` fills.
pub fn model_path() -> PathBuf {
    if let Some(path) = std::env::var_os("QWRIGHT_TEST_MODEL") {
        return path.into();
    }
    let folder = std::env::var_os("QWRIGHT_MODELS_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        cache.or(home).expect("HOME is set").join("qwright/models")
    });
    let path = folder.join(FILE);
    assert!(path.exists(), "{} is missing: run `qwright models pull qwen2.5-coder-1.5b`", path.display());
    path
}

fn engine(threads: usize, batch: usize) -> Engine {
    Engine::open(&model_path(), EngineOptions { threads, batch, ..Default::default() }).unwrap()
}

#[test]
fn logits_agree_with_llama_cpp() {
    let oracle = json(&manifest().join("fixtures/oracle/real_qwen2.5-coder-1.5b_q4_k_m.json"));
    let mut engine = engine(2, 512);
    let (mut positions, mut same, mut off) = (0, 0, Vec::new());
    for case in oracle["cases"].as_array().unwrap() {
        let tokens = ids(&case["tokens"]);
        let mut sequence = engine.sequence(tokens.len(), KvType::F32);
        let logits =
            engine.append(&mut sequence, &tokens, Want::All, &AtomicBool::new(false), &mut |_| {}).unwrap();
        let rows = logits.chunks_exact(engine.config.vocab);
        for (row, top) in rows.zip(case["top10"].as_array().unwrap()) {
            let top: Vec<(usize, f64)> = top
                .as_array()
                .unwrap()
                .iter()
                .map(|pair| (pair[0].as_u64().unwrap() as usize, pair[1].as_f64().unwrap()))
                .collect();
            let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
            positions += 1;
            same += usize::from(best == top[0].0);
            if top[0].1 - top[1].1 > 0.5 {
                assert_eq!(best, top[0].0, "argmax differs where llama.cpp is sure");
            }
            off.push(top.iter().map(|&(id, logit)| (f64::from(row[id]) - logit).abs()).fold(0.0, f64::max));
        }
    }
    off.sort_by(f64::total_cmp);
    let median = off[off.len() / 2];
    println!("{same} of {positions} argmax equal; median of the largest difference among ten: {median:.3}");
    assert!(positions > 50, "only {positions} positions");
    assert!(same * 100 >= positions * 97, "{same} of {positions} argmax equal");
    assert!(median <= 0.35, "median difference {median}");
}

#[test]
fn same_bits_with_any_threads_and_chunks() {
    let tokens: Vec<u32> = (0..61).map(|i| 1000 + i * 37).collect();
    let mut first: Option<Vec<f32>> = None;
    for (threads, batch) in [(2, 512), (1, 512), (2, 7), (2, 1)] {
        let mut engine = engine(threads, batch);
        let mut sequence = engine.sequence(tokens.len(), KvType::F16);
        let logits =
            engine.append(&mut sequence, &tokens, Want::Last, &AtomicBool::new(false), &mut |_| {}).unwrap();
        match &first {
            None => first = Some(logits),
            Some(first) => {
                let same = first.iter().zip(&logits).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{threads} threads, chunks of {batch}");
            }
        }
    }
}
