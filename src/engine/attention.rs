//! Causal attention with grouped query heads. Keys are taken in tiles of 512 at absolute positions; each tile gives a
//! partial result with its own maximum, and partials merge in tile order. A token's result so depends on neither the
//! chunk it came in nor the thread that worked on it. Here are float keys and values (f16, f32): a tile's are decoded once
//! and used by every query head of the group and every token of the work item. `int8` works on whole numbers.
#![allow(unsafe_code)]

pub mod int8;

#[cfg(target_arch = "x86_64")]
use super::kernels::avx512_attention;
use super::kernels::scalar::tree16;
use super::kernels::{KernelSet, dispatch};
use super::kv::{KvCache, KvType};
use super::ops::exp;
use super::pool::{Pool, Shards};
use std::cell::RefCell;

/// Keys of one tile.
pub const TILE: usize = 512;
/// Tokens of a prefill batch that share one decoding of a tile.
pub const TOKENS: usize = 32;
/// Query heads that share each load of a key or value, at most: as many as leave their sums in registers.
pub const HEADS: usize = 4;

#[derive(Default)]
struct Scratch {
    /// [TILE][head_dim] each
    keys: Vec<f32>,
    values: Vec<f32>,
    /// [HEADS][TILE]
    scores: Vec<f32>,
    /// Per token and head of the group: running maximum, sum, and [head_dim] of weighted values.
    max: Vec<f32>,
    sum: Vec<f32>,
    acc: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Some rows of a batch: tokens of one sequence at `start..start + n`.
#[derive(Clone, Copy)]
pub struct Span<'a> {
    pub cache: &'a KvCache,
    pub start: usize,
    /// Row of the first token.
    pub row: usize,
    pub n: usize,
}

/// The queries of a batch, each to meet what its own sequence holds up to it.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    pub layer: usize,
    pub heads: usize,
    /// [n][heads][head_dim]
    pub queries: &'a [f32],
    pub spans: &'a [Span<'a>],
}

impl<'a> Batch<'a> {
    /// The span that chunk `chunk` of a region works on, and which of its chunks it is, where each has `chunks`.
    fn find(&self, mut chunk: usize, chunks: impl Fn(&Span<'a>) -> usize) -> Option<(usize, usize)> {
        for (i, span) in self.spans.iter().enumerate() {
            let own = chunks(span);
            if chunk < own {
                return Some((i, chunk));
            }
            chunk -= own;
        }
        None
    }
}

/// One work item: the tokens `first..first + n` of a span, all query heads of one key head.
struct Item<'a> {
    layer: usize,
    kv_head: usize,
    heads: usize,
    span: Span<'a>,
    first: usize,
    n: usize,
    /// [batch][heads][head_dim]
    queries: &'a [f32],
}

/// One region or two: `out` ([n][heads][head_dim]) = attention of the queries. `partials` is room kept between calls.
pub fn run(pool: &mut Pool, set: KernelSet, batch: &Batch<'_>, partials: &mut Vec<f32>, out: &mut [f32]) {
    let Some(shape) = batch.spans.first().map(|span| span.cache.shape()) else { return };
    if shape.kind == KvType::Q8_0 {
        return int8::run(pool, set, batch, partials, out);
    }
    let out = Shards::new(out);
    let chunks = |span: &Span<'_>| span.n.div_ceil(TOKENS) * shape.heads;
    pool.run(batch.spans.iter().map(chunks).sum(), &|chunk| {
        let Some((i, chunk)) = batch.find(chunk, chunks) else { return };
        let span = batch.spans[i];
        // The last tokens see the most keys: longest work first.
        let first = (span.n.div_ceil(TOKENS) - 1 - chunk / shape.heads) * TOKENS;
        let item = Item {
            layer: batch.layer,
            kv_head: chunk % shape.heads,
            heads: batch.heads,
            span,
            first,
            n: TOKENS.min(span.n - first),
            queries: batch.queries,
        };
        // SAFETY: each chunk has its own tokens and heads.
        unsafe { attend(set, &item, &out) };
    });
}

/// # Safety
/// `out` is [batch][heads][head_dim]; nobody else touches this item's tokens and heads.
unsafe fn attend(set: KernelSet, item: &Item<'_>, out: &Shards<'_, f32>) {
    let Item { heads, n, span, .. } = *item;
    let shape = span.cache.shape();
    let (head_dim, group) = (shape.head_dim, heads / shape.heads);
    SCRATCH.with_borrow_mut(|s| {
        s.keys.resize(TILE * head_dim, 0.0);
        s.values.resize(TILE * head_dim, 0.0);
        s.scores.resize(HEADS * TILE, 0.0);
        // Where there are kernels for it, heads of a group share loads; the sums are the same.
        let shared =
            cfg!(target_arch = "x86_64") && set == KernelSet::Avx512Vnni && head_dim.is_multiple_of(64);
        let step = if shared { HEADS } else { 1 };
        s.max.clear();
        s.max.resize(n * group, f32::NEG_INFINITY);
        s.sum.clear();
        s.sum.resize(n * group, 0.0);
        s.acc.clear();
        s.acc.resize(n * group * head_dim, 0.0);
        let last = span.start + item.first + n;
        for tile in (0..last).step_by(TILE) {
            let loaded = TILE.min(last - tile);
            span.cache.load(item.layer, false, item.kv_head, tile, loaded, &mut s.keys);
            span.cache.load(item.layer, true, item.kv_head, tile, loaded, &mut s.values);
            for t in 0..n {
                let position = span.start + item.first + t;
                if position < tile {
                    continue;
                }
                let keys = loaded.min(position + 1 - tile);
                let at = ((span.row + item.first + t) * heads + item.kv_head * group) * head_dim;
                let (keys, values) = (&s.keys[..keys * head_dim], &s.values[..keys * head_dim]);
                for h in (0..group).step_by(step) {
                    let step = step.min(group - h);
                    let (i, at) = (t * group + h, at + h * head_dim);
                    let running = Running {
                        max: &mut s.max[i..i + step],
                        sum: &mut s.sum[i..i + step],
                        acc: &mut s.acc[i * head_dim..(i + step) * head_dim],
                    };
                    let queries = &item.queries[at..at + step * head_dim];
                    #[cfg(target_arch = "x86_64")]
                    if shared {
                        // SAFETY: the set says that the machine has the instructions, `shared` that the sizes fit.
                        unsafe {
                            avx512_attention::tile_steps(queries, keys, values, &mut s.scores, running)
                        };
                        continue;
                    }
                    tile_step(set, queries, keys, values, &mut s.scores, running);
                }
            }
        }
        for t in 0..n {
            let at = ((span.row + item.first + t) * heads + item.kv_head * group) * head_dim;
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

/// What query heads have come to so far: [heads], [heads], [heads][head_dim].
pub struct Running<'a> {
    pub max: &'a mut [f32],
    pub sum: &'a mut [f32],
    pub acc: &'a mut [f32],
}

impl Running<'_> {
    /// Takes a tile's maximum and sum in; returns what the sums before and the tile's are multiplied with.
    #[inline(always)]
    pub fn merge(&mut self, head: usize, largest: f32, sum: f32) -> (f32, f32) {
        let before = self.max[head];
        let new_max = if largest > before { largest } else { before };
        let keep = if before == f32::NEG_INFINITY { 0.0 } else { exp(before - new_max) };
        let take = exp(largest - new_max);
        self.sum[head] = self.sum[head] * keep + sum * take;
        self.max[head] = new_max;
        (keep, take)
    }
}

/// Scores become weights, exp(score - largest); returns their sum, in sixteen lanes and one tree.
#[inline(always)]
pub fn weigh(scores: &mut [f32], largest: f32) -> f32 {
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
    tree16(&lanes)
}

dispatch! {
    /// One query against one tile of keys; merges into the running (maximum, sum, accumulated values).
    fn tile_step(
        query: &[f32],
        keys: &[f32],
        values: &[f32],
        scores: &mut [f32],
        running: Running<'_>,
    ) {
        let dim = query.len();
        let mut running = running;
        let scores = &mut scores[..keys.len() / dim];
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
        let sum = weigh(scores, largest);
        let (keep, take) = running.merge(0, largest, sum);
        // The tile's weighted values, 64 dimensions at a time so that they stay in registers.
        for (part, acc) in running.acc.chunks_mut(64).enumerate() {
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
    }
}
