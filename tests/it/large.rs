//! Models in several files, and of the largest published size: sparse files stand in for what no test can download.
//! Zero bytes are valid blocks (scales of zero), so a file of holes has a layer for every layer and yields a token.

use crate::gguf::{GgufBuilder, Meta};
use crate::oracle::{ids, json, manifest};
use qwright::engine::gguf::{Gguf, MetaValue};
use qwright::engine::kv::KvType;
use qwright::engine::memory::{Load, too_little_for};
use qwright::engine::quant::QuantType;
use qwright::engine::tokenizer::Tokenizer;
use qwright::engine::{Engine, EngineOptions, Want};
use qwright::hub::machine::Machine;
use qwright::hub::plan::{Question, Verdict, plan};
use qwright::hub::{self, KvWidth, catalogue};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

fn leaked(text: &[u8]) -> &'static str {
    String::from_utf8(text.to_vec()).unwrap().leak()
}

fn meta(value: &MetaValue) -> Meta {
    match value {
        MetaValue::U64(v) => Meta::U32(u32::try_from(*v).unwrap()),
        MetaValue::I64(v) => Meta::I32(i32::try_from(*v).unwrap()),
        MetaValue::F64(v) => Meta::F32(*v as f32),
        MetaValue::Bool(v) => Meta::Bool(u8::from(*v)),
        MetaValue::Str(v) => Meta::Str(leaked(v.as_bytes())),
        MetaValue::Strings(v) => Meta::Strings(v.iter().map(leaked).collect()),
        MetaValue::Numbers(v) => match v.ints() {
            Some(ints) => Meta::Ints(ints.map(|i| i as i32).collect()),
            None => panic!("no fixture has an array of floats"),
        },
        MetaValue::Array(v) => Meta::Nested(v.iter().map(meta).collect()),
    }
}

fn shard(no: usize, count: usize, tensors: usize) -> GgufBuilder {
    GgufBuilder::new()
        .meta("split.no", Meta::U16(no as u16))
        .meta("split.count", Meta::U16(count as u16))
        .meta("split.tensors.count", Meta::I32(tensors as i32))
}

/// Cuts a model of one file into `count` shards of about as many tensors each; the first one's path.
fn split(file: &Path, count: usize, dir: &Path) -> PathBuf {
    let gguf = Gguf::open(file).unwrap();
    let all = gguf.tensors().len();
    let path = |no: usize| dir.join(format!("split-{:05}-of-{count:05}.gguf", no + 1));
    for (no, tensors) in gguf.tensors().chunks(all.div_ceil(count)).enumerate() {
        let mut builder = shard(no, count, all);
        if no == 0 {
            for (key, value) in gguf.metadata() {
                builder = builder.meta(key, meta(value));
            }
        }
        for tensor in tensors {
            let dims: Vec<u64> = tensor.dims.iter().map(|d| *d as u64).collect();
            builder = builder.tensor(&tensor.name, &dims, tensor.kind.ggml_id(), gguf.data(tensor));
        }
        std::fs::write(path(no), builder.build()).unwrap();
    }
    path(0)
}

fn logits(path: &Path, tokens: &[u32], load: Load) -> Vec<f32> {
    let options = EngineOptions { threads: 2, load, ..Default::default() };
    let mut engine = Engine::open(path, options).unwrap();
    let mut sequence = engine.sequence(tokens.len(), KvType::F16);
    engine.append(&mut sequence, tokens, Want::All, &AtomicBool::new(false), &mut |_| {}).unwrap()
}

#[test]
fn a_model_in_shards_or_copied_answers_as_the_whole_one() {
    let folder = manifest().join("fixtures/oracle");
    for name in ["tiny-qwen3moe-q4_k_m.gguf", "tiny-qwen2-q4_k_m.gguf"] {
        let whole = folder.join(name);
        let tokens = ids(&json(&folder.join("reference.json"))[name][0]["tokens"]);
        let answer = logits(&whole, &tokens, Load::Map);
        assert!(answer.iter().any(|x| *x != 0.0));
        assert_eq!(logits(&whole, &tokens, Load::Copy), answer, "{name} copied");
        for count in [2, 3] {
            let dir = tempfile::tempdir().unwrap();
            let first = split(&whole, count, dir.path());
            assert_eq!(Gguf::open(&first).unwrap().shard_count(), count);
            assert_eq!(logits(&first, &tokens, Load::Map), answer, "{name} in {count} shards");
            assert_eq!(logits(&first, &tokens, Load::Copy), answer, "{name} in {count} shards, copied");
            let encoded = |path: &Path| {
                let gguf = Gguf::open(path).unwrap();
                Tokenizer::from_gguf(&gguf).unwrap().encode("fn main() {}", false)
            };
            assert_eq!(encoded(&first), encoded(&whole));
        }
    }
}

/// Name, shape and type of every tensor of Qwen3-Coder-480B-A35B in Q4_K_M, in the order of the published files: filled
/// one after the other they come out at exactly the published sizes.
fn tensors_of_480b() -> Vec<(String, Vec<u64>, QuantType)> {
    use QuantType::{F32, Q4_K, Q6_K};
    let (layers, hidden, q, kv, experts, ff, vocab) = (62, 6144, 96 * 128, 8 * 128, 160, 2560, 151_936);
    let mut all = vec![
        ("output.weight".to_string(), vec![hidden, vocab], Q6_K),
        ("output_norm.weight".to_string(), vec![hidden], F32),
        ("token_embd.weight".to_string(), vec![hidden, vocab], Q4_K),
    ];
    for l in 0..layers {
        let more =
            if l < layers / 8 || l >= 7 * layers / 8 || (l - layers / 8) % 3 == 2 { Q6_K } else { Q4_K };
        for (part, dims, kind) in [
            ("attn_k", vec![hidden, kv], Q4_K),
            ("attn_k_norm", vec![128], F32),
            ("attn_norm", vec![hidden], F32),
            ("attn_output", vec![q, hidden], Q4_K),
            ("attn_q", vec![hidden, q], Q4_K),
            ("attn_q_norm", vec![128], F32),
            ("attn_v", vec![hidden, kv], more),
            ("ffn_down_exps", vec![ff, hidden, experts], more),
            ("ffn_gate_exps", vec![hidden, ff, experts], Q4_K),
            ("ffn_gate_inp", vec![hidden, experts], F32),
            ("ffn_norm", vec![hidden], F32),
            ("ffn_up_exps", vec![hidden, ff, experts], Q4_K),
        ] {
            all.push((format!("blk.{l}.{part}.weight"), dims, kind));
        }
    }
    all
}

fn config_of_480b(builder: GgufBuilder) -> GgufBuilder {
    let mut builder = builder.meta("general.architecture", Meta::Str("qwen3moe"));
    for (key, value) in [
        ("block_count", 62),
        ("context_length", 262_144),
        ("embedding_length", 6144),
        ("feed_forward_length", 8192),
        ("attention.head_count", 96),
        ("attention.head_count_kv", 8),
        ("attention.key_length", 128),
        ("attention.value_length", 128),
        ("expert_count", 160),
        ("expert_used_count", 8),
        ("expert_feed_forward_length", 2560),
    ] {
        builder = builder.meta(&format!("qwen3moe.{key}"), Meta::U32(value));
    }
    builder
        .meta("qwen3moe.attention.layer_norm_rms_epsilon", Meta::F32(1e-6))
        .meta("qwen3moe.rope.freq_base", Meta::F32(1e7))
}

/// Writes the shards, all holes but for their headers, under the names and in the sizes that the catalogue knows.
fn write_480b(dir: &Path) -> PathBuf {
    let quant = hub::find("qwen3-coder-480b:q4_k_m").unwrap().1;
    let tensors = tensors_of_480b();
    let mut left = tensors.iter().peekable();
    for (no, file) in quant.files.iter().enumerate() {
        let size = file.bytes.unwrap();
        let mut builder = shard(no, quant.files.len(), tensors.len());
        if no == 0 {
            builder = config_of_480b(builder);
        }
        let mut offset = 0u64;
        while let Some((name, dims, kind)) = left.peek() {
            let values: u64 = dims.iter().product();
            let bytes = values / kind.block_len() as u64 * kind.block_bytes() as u64;
            if offset + bytes > size {
                break;
            }
            builder = builder.tensor(name, dims, kind.ggml_id(), &[]);
            builder.tensors.last_mut().unwrap().offset = Some(offset);
            offset += bytes.next_multiple_of(32);
            left.next();
        }
        let header = builder.header();
        let needed = header.len().next_multiple_of(32) as u64 + offset;
        let path = dir.join(file.file_name());
        let mut out = std::fs::File::create(&path).unwrap();
        out.write_all(&header).unwrap();
        assert!(needed <= size, "{}", path.display());
        out.set_len(size).unwrap_or_else(|error| {
            panic!("the file system of {} takes no sparse file of {size} bytes: {error}", dir.display())
        });
    }
    assert_eq!(left.next(), None, "every tensor has its place");
    dir.join(quant.files[0].file_name())
}

#[test]
fn a_file_of_the_true_size_of_480b_opens_is_planned_for_and_yields_a_token() {
    // Not the usual folder for temporary files: where that is in memory, reading a hole takes memory for good.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = write_480b(dir.path());
    let gguf = Gguf::open(&path).unwrap();
    assert_eq!((gguf.shard_count(), gguf.tensors().len()), (6, 62 * 12 + 3));
    assert_eq!(gguf.file_bytes(), hub::find("qwen3-coder-480b:q4_k_m").unwrap().1.bytes);

    let twenty_four = Some(24_000_000_000);
    let machine = Machine { memory_total: twenty_four, memory_available: twenty_four, cores: 2 };
    let question = Question {
        machine: &machine,
        bandwidth: Some(40e9),
        disk_free: Some(1 << 40),
        models_dir: dir.path(),
        ctx: 32_768,
        kv: KvWidth::Q8,
    };
    let rows = plan(catalogue(), &question);
    let row = rows.iter().find(|row| row.model == "qwen3-coder-480b").unwrap();
    assert!(row.here && row.verdict == Verdict::Slow, "{row:?}");

    let copy = EngineOptions { load: Load::Copy, ..Default::default() };
    if too_little_for(gguf.file_bytes()).is_some() {
        let refusal = Engine::new(gguf, copy).err().unwrap().to_string();
        assert!(refusal.contains("to copy its weights takes 290"), "{refusal}");
    }
    let start = std::time::Instant::now();
    let mut engine = Engine::open(&path, EngineOptions::default()).unwrap();
    assert!((20_500_000_000..21_300_000_000).contains(&engine.bytes_per_token()));
    let mut sequence = engine.sequence(16, KvType::F16);
    let logits =
        engine.append(&mut sequence, &[7], Want::Last, &AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_eq!(logits.len(), 151_936);
    assert!(logits.iter().all(|x| x.is_finite()));
    println!(
        "a token in {:.1} s; {:?} bytes held beside the files",
        start.elapsed().as_secs_f64(),
        qwright::engine::memory::resident_beside_files()
    );
}
