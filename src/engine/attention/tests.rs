//! Attention of every kind of keys and values against softmax in f64 over what is stored, and every kernel set and batch
//! against the others.

use super::*;
use crate::engine::kv::KvShape;
use crate::engine::kv::blocks::BLOCK;

/// Softmax attention in f64 over the keys and values as stored.
fn exact(batch: &Batch<'_>, t: usize, head: usize) -> Vec<f64> {
    let cache = batch.spans[0].cache;
    let shape = cache.shape();
    let (dim, kv_head) = (shape.head_dim, head / (batch.heads / shape.heads));
    let n = t + 1;
    let (mut keys, mut values) = (vec![0f32; n * dim], vec![0f32; n * dim]);
    cache.load(batch.layer, false, kv_head, 0, n, &mut keys);
    cache.load(batch.layer, true, kv_head, 0, n, &mut values);
    let q = &batch.queries[(t * batch.heads + head) * dim..][..dim];
    let dot = |key: &[f32]| -> f64 { q.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    let scores: Vec<f64> = keys.chunks_exact(dim).map(|key| dot(key) / (dim as f64).sqrt()).collect();
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    (0..dim).map(|i| (0..n).map(|j| weights[j] / sum * f64::from(values[j * dim + i])).sum()).collect()
}

#[test]
fn close_to_exact_and_the_same_bits_in_every_set_and_batch() {
    let mut state = 3u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / 8_388_608.0 - 1.0) * 3.0
    };
    // Every group that heads are shared in, each dimension, and ends about groups, blocks and tiles.
    let few = (1..=16).map(|group| (1, group, [32, 64, 96, 128][group % 4], 14 + group));
    let ends = [15, 16, 17, 255, 256, 257, 511, 512, 513].map(|total| (1, 2 + total % 5, 64, total));
    let many = [(2, 6, 128, 1100), (1, 8, 64, 530), (2, 1, 32, 17), (1, 13, 96, 515)];
    let shapes: Vec<_> = few.chain(ends).chain(many).collect();
    for (kind, (kv_heads, group, dim, total)) in
        [KvType::Q8_0, KvType::F16].iter().flat_map(|kind| shapes.iter().map(move |shape| (*kind, *shape)))
    {
        let shape = KvShape { layers: 1, heads: kv_heads, head_dim: dim, kind };
        let mut cache = KvCache::new(shape, total + 5);
        let heads = kv_heads * group;
        cache.prepare(0, total).unwrap();
        let planes = cache.planes(0);
        // Keys of odd heads have nothing in common, the others much.
        for position in 0..total {
            for (value, head) in (0..kv_heads).flat_map(|head| [(false, head), (true, head)]) {
                let block = (position / BLOCK) as f32;
                let much: Vec<f32> = (0..dim).map(|i| (i as f32).sin() * 50.0 + block * 0.01).collect();
                let common = (head % 2 == 0 && !value).then_some(&much[..]);
                let row: Vec<f32> =
                    (0..dim).map(|i| next() + common.map_or(0.0, |common| common[i])).collect();
                // SAFETY: one thread.
                unsafe { planes.store(0, value, head, position, &row, common) };
            }
        }
        let queries: Vec<f32> = (0..total * heads * dim).map(|_| next()).collect();
        let tokens = |set: KernelSet, threads: usize, parts: &[usize]| {
            let mut pool = Pool::new(threads).unwrap();
            let mut out = vec![0f32; total * heads * dim];
            let (mut start, mut partials) = (0, Vec::new());
            for &n in parts {
                let span = start * heads * dim..(start + n) * heads * dim;
                let queries = &queries[span.clone()];
                let spans = [Span { cache: &cache, start, row: 0, n }];
                let batch = Batch { layer: 0, heads, queries, spans: &spans };
                run(&mut pool, set, &batch, &mut partials, &mut out[span]);
                start += n;
            }
            out
        };
        let whole = tokens(KernelSet::best(), 2, &[total]);
        let mut parts = vec![7, 1, 2];
        parts.push(total - 13);
        parts.extend([1, 1, 1]);
        assert_eq!(whole, tokens(KernelSet::best(), 1, &parts));
        for set in KernelSet::ALL.into_iter().filter(|set| set.available()) {
            let same = whole == tokens(set, 2, &[total - 4, 3, 1]);
            assert!(same, "{shape:?} with {group} heads to a key, {total} tokens: {} differs", set.name());
        }
        let spans = [Span { cache: &cache, start: 0, row: 0, n: total }];
        let batch = Batch { layer: 0, heads, queries: &queries, spans: &spans };
        for (t, head) in [(0, 0), (total / 2, heads - 1), (total - 1, 0), (total - 1, heads / 2)] {
            let got = &whole[(t * heads + head) * dim..][..dim];
            let want = exact(&batch, t, head);
            let error: f64 = got.iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
            let size: f64 = want.iter().map(|x| x * x).sum();
            let most = if kind == KvType::Q8_0 { 1e-3 } else { 1e-5 };
            assert!((error / size).sqrt() < most, "{shape:?} {t} {head}: {}", (error / size).sqrt());
        }
    }
}
