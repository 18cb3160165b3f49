//! Invariant 5 on random shapes: one token at a time, any chunking and any number of threads give the same bits, with
//! every kernel set and every type of keys and values. The models are made up: true shapes, random weights.

use qwright::engine::kernels::KernelSet;
use qwright::engine::kv::KvType;
use qwright::engine::synthetic::Synthetic;
use qwright::engine::weights::{Arch, ModelConfig};
use qwright::engine::{EngineOptions, Want};
use std::sync::atomic::AtomicBool;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

fn config(random: &mut Random) -> ModelConfig {
    let arch = random.one_of(&[Arch::Qwen2, Arch::Qwen3, Arch::Qwen3Moe]);
    let moe = arch == Arch::Qwen3Moe;
    let kv_heads = 1 + random.below(3);
    // Widths that are a multiple of 256 have K-quants, the others blocks of 32.
    let width = |random: &mut Random| random.one_of(&[32, 96, 160, 256, 288, 512]);
    let experts = if moe { 2 + random.below(15) } else { 0 };
    ModelConfig {
        arch,
        layers: 1 + random.below(3),
        hidden: width(random),
        heads: kv_heads * (1 + random.below(9)),
        kv_heads,
        head_dim: random.one_of(&[32, 64, 96, 128]),
        ff: if moe { 0 } else { width(random) },
        vocab: 100,
        context: 4096,
        eps: 1e-6,
        rope_theta: 1e6,
        yarn: None,
        experts,
        experts_used: if moe { 1 + random.below(experts) } else { 0 },
        expert_ff: if moe { width(random) } else { 0 },
    }
}

#[test]
fn any_chunking_and_thread_count_gives_the_same_bits_on_random_shapes() {
    let mut random = Random(11);
    for case in 0..10 {
        let config = config(&mut random);
        // Beyond a tile of 512 keys in every second case.
        let n = if case % 2 == 0 { 20 + random.below(40) } else { 513 + random.below(40) };
        let tokens: Vec<u32> = (0..n).map(|_| random.below(config.vocab) as u32).collect();
        let kv = KvType::ALL[case % 3];
        let mut first: Option<Vec<u32>> = None;
        for (threads, batch) in [(2, 4096), (1, 1), (3, 1 + random.below(12)), (2, 13 + random.below(200))] {
            for kernels in KernelSet::ALL.into_iter().filter(|set| set.available()) {
                // The portable kernels take their time: they need not do it in every way.
                if kernels == KernelSet::Scalar && batch != 1 {
                    continue;
                }
                let plan = Synthetic::plan(config.clone(), 0).unwrap();
                let options = EngineOptions { threads, kernels, batch, ..Default::default() };
                let mut engine = plan.engine("made up", options).unwrap();
                let mut sequence = engine.sequence(n, kv);
                let cancel = AtomicBool::new(false);
                let logits = engine.append(&mut sequence, &tokens, Want::All, &cancel, &mut |_| {}).unwrap();
                let bits: Vec<u32> = logits.iter().map(|x| x.to_bits()).collect();
                assert!(logits.iter().all(|x| x.is_finite()), "{config:?}");
                let first = first.get_or_insert_with(|| bits.clone());
                assert!(
                    *first == bits,
                    "{config:?}, {n} tokens, KV {}: {} with {threads} threads and batches of {batch} differs",
                    kv.name(),
                    kernels.name()
                );
            }
        }
    }
}
