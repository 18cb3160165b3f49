//! Causal attention with grouped query heads. Keys are taken in tiles of 512 at absolute positions; each tile gives a
//! partial result with its own maximum, and partials merge in tile order. A token's result so depends on neither the
//! chunk it came in nor the thread that worked on it. A tile's keys and values are decoded once and used by every
//! query head of the group and every token of the work item.
#![allow(unsafe_code)]

use super::kernels::dispatch;
use super::kernels::scalar::tree16;
use super::kv::KvCache;
use super::ops::exp;
use super::pool::Shards;
use std::cell::RefCell;

/// Keys of one tile.
pub const TILE: usize = 512;
/// Tokens of a prefill batch that share one decoding of a tile.
pub const TOKENS: usize = 32;

#[derive(Default)]
struct Scratch {
    /// [TILE][head_dim] each
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
    /// Per token and head of the group: running maximum, sum, and [head_dim] of weighted values.
    max: Vec<f32>,
    sum: Vec<f32>,
    acc: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// One work item: the tokens `first..first + n` of the batch, all query heads of one key head.
pub struct Item<'a> {
    pub layer: usize,
    pub kv_head: usize,
    /// Query heads per key head.
    pub group: usize,
    pub head_dim: usize,
    /// Position of the batch's first token.
    pub start: usize,
    pub first: usize,
    pub n: usize,
    /// [batch][heads][head_dim]
    pub queries: &'a [f32],
    pub cache: &'a KvCache,
}

/// # Safety
/// `out` is [batch][heads][head_dim]; nobody else touches this item's tokens and heads.
pub unsafe fn attend(set: super::kernels::KernelSet, item: &Item<'_>, out: &Shards<'_, f32>) {
    let Item { group, head_dim, n, .. } = *item;
    let heads = item.cache.shape().heads * group;
    SCRATCH.with_borrow_mut(|s| {
        s.keys.resize(TILE * head_dim, 0.0);
        s.values.resize(TILE * head_dim, 0.0);
        s.scores.resize(TILE, 0.0);
        s.max.clear();
        s.max.resize(n * group, f32::NEG_INFINITY);
        s.sum.clear();
        s.sum.resize(n * group, 0.0);
        s.acc.clear();
        s.acc.resize(n * group * head_dim, 0.0);
        let last = item.start + item.first + n;
        for tile in (0..last).step_by(TILE) {
            let loaded = TILE.min(last - tile);
            item.cache.load(item.layer, false, item.kv_head, tile, loaded, &mut s.keys);
            item.cache.load(item.layer, true, item.kv_head, tile, loaded, &mut s.values);
            for t in 0..n {
                let position = item.start + item.first + t;
                if position < tile {
                    continue;
                }
                let keys = loaded.min(position + 1 - tile);
                for h in 0..group {
                    let at = ((item.first + t) * heads + item.kv_head * group + h) * head_dim;
                    let i = t * group + h;
                    tile_step(
                        set,
                        &item.queries[at..at + head_dim],
                        &s.keys[..keys * head_dim],
                        &s.values[..keys * head_dim],
                        &mut s.scores[..keys],
                        (&mut s.max[i], &mut s.sum[i], &mut s.acc[i * head_dim..(i + 1) * head_dim]),
                    );
                }
            }
        }
        for t in 0..n {
            let at = ((item.first + t) * heads + item.kv_head * group) * head_dim;
            // SAFETY: the caller promises that these tokens and heads are ours.
            let out = unsafe { out.slice(at, group * head_dim) };
            for h in 0..group {
                let i = t * group + h;
                let from = &s.acc[i * head_dim..(i + 1) * head_dim];
                for (out, x) in out[h * head_dim..(h + 1) * head_dim].iter_mut().zip(from) {
                    *out = x / s.sum[i];
                }
            }
        }
    });
}

dispatch! {
    /// One query against one tile of keys; merges into the running (maximum, sum, accumulated values).
    fn tile_step(
        query: &[f32],
        keys: &[f32],
        values: &[f32],
        scores: &mut [f32],
        running: (&mut f32, &mut f32, &mut [f32]),
    ) {
        let dim = query.len();
        let (run_max, run_sum, run_acc) = running;
        let scale = 1.0 / (dim as f32).sqrt();
        let mut largest = f32::NEG_INFINITY;
        for (score, key) in scores.iter_mut().zip(keys.chunks_exact(dim)) {
            let mut lanes = [0f32; 16];
            for (q, k) in query.as_chunks::<16>().0.iter().zip(key.as_chunks::<16>().0) {
                for lane in 0..16 {
                    lanes[lane] += q[lane] * k[lane];
                }
            }
            *score = tree16(&lanes) * scale;
            largest = if *score > largest { *score } else { largest };
        }
        let mut lanes = [0f32; 16];
        let (whole, tail) = scores.as_chunks_mut::<16>();
        for part in whole {
            for lane in 0..16 {
                part[lane] = exp(part[lane] - largest);
                lanes[lane] += part[lane];
            }
        }
        for (lane, score) in tail.iter_mut().enumerate() {
            *score = exp(*score - largest);
            lanes[lane] += *score;
        }
        let sum = tree16(&lanes);
        // The tile's weighted values, 64 dimensions at a time so that they stay in registers.
        let first = *run_max == f32::NEG_INFINITY;
        let new_max = if largest > *run_max { largest } else { *run_max };
        let keep = if first { 0.0 } else { exp(*run_max - new_max) };
        let take = exp(largest - new_max);
        for (part, acc) in run_acc.chunks_mut(64).enumerate() {
            let mut tile = [0f32; 64];
            if acc.len() == 64 {
                for (p, value) in scores.iter().zip(values.chunks_exact(dim)) {
                    let value = &value[part * 64..part * 64 + 64];
                    for i in 0..64 {
                        tile[i] += p * value[i];
                    }
                }
            } else {
                for (p, value) in scores.iter().zip(values.chunks_exact(dim)) {
                    for (tile, v) in tile.iter_mut().zip(&value[part * 64..]) {
                        *tile += p * v;
                    }
                }
            }
            for (acc, tile) in acc.iter_mut().zip(&tile) {
                *acc = *acc * keep + tile * take;
            }
        }
        *run_sum = *run_sum * keep + sum * take;
        *run_max = new_max;
    }
}
