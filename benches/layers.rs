//! Whole layers of made-up models: prefill of 512 tokens and decoding at several depths, dense (attention weighs most at
//! depth) and with experts. `cargo bench --bench layers`.

#![allow(clippy::expect_used)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qwright::engine::kv::KvType;
use qwright::engine::synthetic::Synthetic;
use qwright::engine::weights::{Arch, ModelConfig};
use qwright::engine::{Engine, EngineOptions, Want};
use std::sync::atomic::AtomicBool;

fn engine(name: &str) -> Engine {
    let moe = name == "moe";
    // Two layers of Qwen2.5-Coder-1.5B, or one of Qwen3-Coder-30B-A3B.
    let config = ModelConfig {
        arch: if moe { Arch::Qwen3Moe } else { Arch::Qwen2 },
        layers: if moe { 1 } else { 2 },
        hidden: if moe { 2048 } else { 1536 },
        heads: if moe { 32 } else { 12 },
        kv_heads: if moe { 4 } else { 2 },
        head_dim: 128,
        ff: if moe { 0 } else { 8960 },
        vocab: 1000,
        context: 65_536,
        eps: 1e-6,
        rope_theta: 1e6,
        yarn: None,
        experts: if moe { 128 } else { 0 },
        experts_used: if moe { 8 } else { 0 },
        expert_ff: if moe { 768 } else { 0 },
    };
    let plan = Synthetic::plan(config, 0).expect("a shape that can be laid out");
    plan.engine(name, EngineOptions::default()).expect("memory for some layers")
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i * 7 % 1000).collect()
}

fn layers(criterion: &mut Criterion) {
    let cancel = AtomicBool::new(false);
    for name in ["dense", "moe"] {
        let mut engine = engine(name);
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10);
        for kv in [KvType::F16, KvType::Q8_0] {
            let mut sequence = engine.sequence(16_384 + 512, kv);
            for depth in [0, 4096, 16_384] {
                sequence.truncate(0);
                engine
                    .append(&mut sequence, &tokens(depth), Want::Nothing, &cancel, &mut |_| {})
                    .expect("room");
                for n in [1, 512] {
                    let prompt = tokens(n);
                    group.throughput(Throughput::Elements(n as u64));
                    let id = BenchmarkId::new(format!("{n} at {depth}"), kv.name());
                    group.bench_function(id, |bencher| {
                        bencher.iter(|| {
                            sequence.truncate(depth);
                            engine
                                .append(&mut sequence, &prompt, Want::All, &cancel, &mut |_| {})
                                .expect("room")
                        });
                    });
                }
            }
        }
        group.finish();
    }
}

criterion_group!(benches, layers);
criterion_main!(benches);
