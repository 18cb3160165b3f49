//! Weight rows times one token, as decode multiplies them: GB/s of weights on one thread, for every kernel set and type,
//! over more than the caches hold. `cargo bench --bench kernels -- avx2/Q4_K` runs one.
#![allow(unsafe_code)]

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use qwright::engine::kernels::act::{Activations, Form};
use qwright::engine::kernels::{KernelSet, Matrix, Output, matmul_rows, quantize_32, quantize_256};
use qwright::engine::pool::Shards;
use qwright::engine::quant::QuantType;
use std::time::Duration;

const BYTES: usize = 256 << 20;
const COLS: usize = 4096;

fn activations() -> Activations {
    let mut act = Activations::default();
    act.reserve(1, COLS, &[Form::Blocks32, Form::Blocks256]);
    for (i, value) in act.values.iter_mut().enumerate() {
        *value = (i as f32).sin();
    }
    let Activations { values, by32, by256, .. } = &mut act;
    quantize_32(KernelSet::Scalar, values, &mut by32.q, &mut by32.d, &mut by32.sums);
    quantize_256(KernelSet::Scalar, values, &mut by256.q, &mut by256.d, &mut by256.sums);
    by32.derive();
    by256.derive();
    act
}

fn rows(c: &mut Criterion) {
    let act = activations();
    // The bytes mean nothing: no kernel's time depends on them, but for subnormal and infinite scales, which 0x2d lacks.
    let data = vec![0x2d; BYTES];
    for set in KernelSet::ALL.into_iter().filter(|set| set.available()) {
        let mut group = c.benchmark_group(set.name());
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_secs(1));
        for kind in QuantType::ALL {
            one(&mut group, set, kind, &act, &data);
        }
        group.finish();
    }
}

fn one(
    group: &mut BenchmarkGroup<'_, criterion::measurement::WallTime>,
    set: KernelSet,
    kind: QuantType,
    act: &Activations,
    data: &[u8],
) {
    let row = COLS / kind.block_len() * kind.block_bytes();
    // The reference would take seconds over all of it.
    let rows = data.len() / row / if set == KernelSet::Scalar { 16 } else { 1 };
    let matrix = Matrix { kind, rows, cols: COLS, data: &data[..rows * row] };
    let mut out = vec![0.0; rows];
    group.throughput(Throughput::Bytes(matrix.data.len() as u64));
    group.bench_function(kind.name(), |bencher| {
        bencher.iter(|| {
            let shards = Shards::new(&mut out);
            let target = Output { shards: &shards, slot: 0, stride: rows, add: false };
            // SAFETY: one thread, and the machine has the set.
            unsafe { matmul_rows(set, &matrix, 0..rows, act, &[0], &target) };
        });
    });
}

criterion_group!(benches, rows);
criterion_main!(benches);
