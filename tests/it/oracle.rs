//! Every tiny model of the oracle against its float64 reference logits. A chosen set lies in `fixtures/`; where the
//! shared folder is there, all of it. Bounds: the median over positions of |logits - ref| / |ref|, at most 1e-5 for
//! F32 and 1.3 times llama.cpp's own error for the rest (routing of so small a model can flip on a near tie).

use qwright::engine::backend::Backend;
use qwright::engine::kernels::KernelSet;
use qwright::engine::kv::KvType;
use qwright::engine::{Engine, EngineOptions, Want};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

pub fn manifest() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// `fixtures/oracle`, and the whole oracle where this machine has it.
pub fn folders() -> Vec<PathBuf> {
    let mut folders = vec![manifest().join("fixtures/oracle")];
    folders.extend(Some(manifest().join("../shared/oracle")).filter(|folder| folder.exists()));
    folders
}

pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

/// Median relative error over all positions of all cases of one file.
pub fn median_error(engine: &mut dyn Backend, cases: &Value, kv: KvType) -> f64 {
    let mut errors = Vec::new();
    for case in cases.as_array().unwrap() {
        let tokens = ids(&case["tokens"]);
        let mut sequence = engine.sequence(tokens.len(), kv);
        let logits =
            engine.append(&mut sequence, &tokens, Want::All, &AtomicBool::new(false), &mut |_| {}).unwrap();
        let want = case["logits"].as_array().unwrap();
        // Some references hold the last positions only.
        let rows: Vec<&[f32]> = logits.chunks_exact(engine.config().vocab).collect();
        for (row, want) in rows[rows.len() - want.len()..].iter().zip(want) {
            let want: Vec<f64> = want.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            let off: f64 = row.iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
            let size: f64 = want.iter().map(|b| b * b).sum();
            errors.push((off / size).sqrt());
        }
    }
    errors.sort_by(f64::total_cmp);
    errors[errors.len() / 2]
}

#[test]
fn tiny_models_match_the_reference() {
    let mut files = 0;
    for folder in folders() {
        let reference = json(&folder.join("reference.json"));
        let peers = json(&folder.join("llama_cpp_error.json"));
        for (name, cases) in reference.as_object().unwrap() {
            let peer = peers[name].as_f64().unwrap();
            let bound = if name.contains("f32") { 1e-5 } else { 1.3 * peer };
            for set in KernelSet::ALL.into_iter().filter(|set| set.available()) {
                let options = EngineOptions { threads: 2, kernels: set, ..Default::default() };
                let mut engine = Engine::open(&folder.join(name), options).unwrap();
                let error = median_error(&mut engine, cases, KvType::F32);
                println!("{name} {}: {error:.2e} (bound {bound:.2e})", set.name());
                assert!(error <= bound, "{name} with {}: {error:.3e} > {bound:.3e}", set.name());
            }
            files += 1;
        }
        // Every model that lies there has a reference, or the folder is not whole.
        let models = std::fs::read_dir(&folder).unwrap().filter(|entry| {
            let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
            name.starts_with("tiny-") && name.ends_with(".gguf")
        });
        assert_eq!(reference.as_object().unwrap().len(), models.count(), "{}", folder.display());
    }
    // The chosen set of `fixtures`, and the 25 of the shared folder where it is there.
    let expected = if folders().len() > 1 { 11 + 25 } else { 11 };
    assert_eq!(files, expected);
}

#[test]
fn every_kernel_set_chunking_and_thread_count_gives_the_same_bits() {
    for name in ["tiny-qwen3moe-q4_k_m", "tiny-qwen2-q4_k_m", "tiny-qwen3moe-q8_0", "tiny-qwen3moe-iq3_s"] {
        let path = manifest().join(format!("fixtures/oracle/{name}.gguf"));
        let tokens: Vec<u32> = (0..150).map(|i| (i * 7 + 3) % 250).collect();
        let mut first: Option<Vec<f32>> = None;
        for set in KernelSet::ALL.into_iter().filter(|set| set.available()) {
            for (threads, batch) in [(1, 1), (2, 1), (1, 7), (2, 7), (3, 64), (2, 512)] {
                let mut engine =
                    Engine::open(&path, EngineOptions { threads, kernels: set, batch, ..Default::default() })
                        .unwrap();
                let mut sequence = engine.sequence(tokens.len(), KvType::F16);
                let cancel = AtomicBool::new(false);
                let logits = engine.append(&mut sequence, &tokens, Want::All, &cancel, &mut |_| {}).unwrap();
                match &first {
                    None => first = Some(logits),
                    Some(first) => {
                        let same = first.iter().zip(&logits).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{name}: {} threads {threads} batch {batch} differs", set.name());
                    }
                }
            }
        }
    }
}
