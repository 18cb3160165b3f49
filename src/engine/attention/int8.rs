//! Attention over int8 keys and values, in whole numbers: queries are quantised to int8 (a scale to 32 values), scores
//! are exact sums of products per 32 dimensions; the weights of a tile become 15-bit numbers, the scale of a value and
//! the largest such scale of the tile folded in, and multiply the values exactly. What is rounded is rounded once per
//! tile, the same whatever the batch, the thread or the instruction set. Here is who works on what, and the plain form,
//! which states the arithmetic; the fast one is `kernels::avx512_int8`.
#![allow(unsafe_code)]

use super::{Batch, Running, Span, TILE, TOKENS, weigh};
#[cfg(target_arch = "x86_64")]
use crate::engine::kernels::avx512_int8;
use crate::engine::kernels::{KernelSet, dispatch, quantize_32};
use crate::engine::kv::blocks;
use crate::engine::kv::int8::{BLOCK, GROUP, group_bytes, scale, whole};
use crate::engine::pool::{Pool, Shards};
use std::cell::RefCell;

/// Query heads that share each load of a key or value: as many as leave their sums in registers.
pub const HEADS: usize = 6;
/// A weight of one. A tile's 512 products with values of at most 127 then stay within 31 bits.
pub const ONE: f32 = 32_766.0;

/// Query heads of one token, as attention multiplies them.
#[derive(Clone, Copy)]
pub struct Heads<'a> {
    /// [heads][dim]
    pub q: &'a [i8],
    /// [heads][dim / 32], divided by the root of dim
    pub d: &'a [f32],
    /// [heads][dim / 32]: minus 128 times the sum of the block, for keys are stored 128 too large
    pub taken: &'a [i32],
}

/// A tile lies in two blocks of the cache: groups of each.
pub const HALF: usize = blocks::BLOCK / GROUP;
const _: () = assert!(TILE == 2 * blocks::BLOCK);

/// Spans of at most so many tokens spread a sequence's tiles over the threads: they have too few heads for it.
const FEW: usize = 4;

thread_local! {
    static WORK: RefCell<Work> = RefCell::new(Work::default());
}

#[derive(Default)]
struct Work {
    queries: Queries,
    scratch: Scratch,
    /// A tile's results: [HEADS], [HEADS], [HEADS][dim].
    max: [f32; HEADS],
    sum: [f32; HEADS],
    acc: Vec<f32>,
    /// Per token and head of an item: running maximum, sum, and [dim] of weighted values.
    running: (Vec<f32>, Vec<f32>, Vec<f32>),
}

/// `out` ([n][heads][dim]) = attention of the queries over what their caches hold up to each. `partials` is room that is
/// kept between calls.
pub fn run(pool: &mut Pool, set: KernelSet, batch: &Batch<'_>, partials: &mut Vec<f32>, out: &mut [f32]) {
    let Some(shape) = batch.spans.first().map(|span| span.cache.shape()) else { return };
    let (dim, kv_heads, group) = (shape.head_dim, shape.heads, batch.heads / shape.heads);
    let out = Shards::new(out);
    let few = |span: &Span<'_>| span.n <= FEW;
    let tiles = |span: &Span<'_>| (span.start + span.n).div_ceil(TILE);
    // Of each span with few tokens: [n][heads][tiles][maximum, sum, dim of weighted values]
    let wide = dim + 2;
    let kept = |span: &Span<'_>| if few(span) { span.n * batch.heads * tiles(span) * wide } else { 0 };
    let begins = |i: usize| batch.spans[..i].iter().map(kept).sum::<usize>();
    partials.resize(begins(batch.spans.len()), 0.0);
    let shards = Shards::new(partials);
    let chunks = |span: &Span<'_>| kv_heads * if few(span) { tiles(span) } else { span.n.div_ceil(TOKENS) };
    pool.run(batch.spans.iter().map(chunks).sum(), &|chunk| {
        let Some((i, chunk)) = batch.find(chunk, chunks) else { return };
        let (span, kv_head) = (&batch.spans[i], chunk % kv_heads);
        if !few(span) {
            // The last tokens see the most keys: longest work first.
            let first = (span.n.div_ceil(TOKENS) - 1 - chunk / kv_heads) * TOKENS;
            let tokens = first..(first + TOKENS).min(span.n);
            return WORK.with_borrow_mut(|work| item(set, batch, span, tokens, kv_head, work, &out));
        }
        let (index, tiles) = (chunk / kv_heads, tiles(span));
        WORK.with_borrow_mut(|work| {
            let rows = &batch.queries[span.row * batch.heads * dim..][..span.n * batch.heads * dim];
            work.queries.fill(set, rows, span.n, kv_head * group, group, dim);
            for t in 0..span.n {
                let Some(tile) = tile_of(batch, span, kv_head, index * TILE, t) else { continue };
                each_heads(set, tile, t, group, work, |work, head, m| {
                    let at = ((t * batch.heads + kv_head * group + head) * tiles + index) * wide;
                    // SAFETY: this tile's results for this head.
                    let out = unsafe { shards.slice(begins(i) + at, wide) };
                    (out[0], out[1]) = (work.max[m], work.sum[m]);
                    out[2..].copy_from_slice(&work.acc[m * dim..(m + 1) * dim]);
                });
            }
        });
    });
    let partials = &partials[..];
    let chunks = |span: &Span<'_>| if few(span) { span.n * batch.heads } else { 0 };
    pool.run(batch.spans.iter().map(chunks).sum(), &|chunk| {
        let Some((i, chunk)) = batch.find(chunk, chunks) else { return };
        let span = &batch.spans[i];
        let (t, tiles) = (chunk / batch.heads, tiles(span));
        let seen = (span.start + t + 1).div_ceil(TILE);
        // SAFETY: this token's row for this head.
        let acc = unsafe { out.slice((span.row * batch.heads + chunk) * dim, dim) };
        let (mut max, mut sum) = ([f32::NEG_INFINITY], [0f32]);
        acc.fill(0.0);
        for part in partials[begins(i) + chunk * tiles * wide..].chunks_exact(wide).take(seen) {
            let running = Running { max: &mut max, sum: &mut sum, acc: &mut *acc };
            merge(set, running, part[0], part[1], &part[2..]);
        }
        acc.iter_mut().for_each(|x| *x /= sum[0]);
    });
}

/// The query heads of one key head for the tokens of one item, tile after tile.
fn item(
    set: KernelSet,
    batch: &Batch<'_>,
    span: &Span<'_>,
    tokens: std::ops::Range<usize>,
    kv_head: usize,
    work: &mut Work,
    out: &Shards<'_, f32>,
) {
    let shape = span.cache.shape();
    let (dim, group, n) = (shape.head_dim, batch.heads / shape.heads, tokens.len());
    let wide = batch.heads * dim;
    let rows = &batch.queries[(span.row + tokens.start) * wide..(span.row + tokens.end) * wide];
    work.queries.fill(set, rows, n, kv_head * group, group, dim);
    let (mut max, mut sum, mut acc) = std::mem::take(&mut work.running);
    max.clear();
    max.resize(n * group, f32::NEG_INFINITY);
    sum.clear();
    sum.resize(n * group, 0.0);
    acc.clear();
    acc.resize(n * group * dim, 0.0);
    for first in (0..span.start + tokens.end).step_by(TILE) {
        for t in 0..n {
            let Some(tile) = tile_of(batch, span, kv_head, first, tokens.start + t) else { continue };
            each_heads(set, tile, t, group, work, |work, head, i| {
                let at = t * group + head;
                let running = Running {
                    max: &mut max[at..at + 1],
                    sum: &mut sum[at..at + 1],
                    acc: &mut acc[at * dim..(at + 1) * dim],
                };
                merge(set, running, work.max[i], work.sum[i], &work.acc[i * dim..(i + 1) * dim]);
            });
        }
    }
    for t in 0..n {
        let at = (span.row + tokens.start + t) * wide + kv_head * group * dim;
        // SAFETY: this item's tokens and heads.
        let out = unsafe { out.slice(at, group * dim) };
        let from = &acc[t * group * dim..(t + 1) * group * dim];
        for (head, (out, from)) in out.chunks_exact_mut(dim).zip(from.chunks_exact(dim)).enumerate() {
            out.iter_mut().zip(from).for_each(|(out, x)| *out = x / sum[t * group + head]);
        }
    }
    work.running = (max, sum, acc);
}

/// What token `t` of a span sees of the tile that begins at `first`.
fn tile_of<'a>(
    batch: &Batch<'a>,
    span: &Span<'a>,
    kv_head: usize,
    first: usize,
    t: usize,
) -> Option<Tile<'a>> {
    let n = (span.start + t + 1).saturating_sub(first).min(TILE);
    let halves = |value| {
        std::array::from_fn(|half| {
            // Groups of this half that are seen.
            let groups = n.div_ceil(GROUP).saturating_sub(half * HALF).min(HALF);
            match groups {
                0 => &[][..],
                _ => span.cache.groups(batch.layer, value, kv_head, first / GROUP + half * HALF, groups),
            }
        })
    };
    let dim = span.cache.shape().head_dim;
    (n > 0).then(|| Tile { keys: halves(false), values: halves(true), dim, n })
}

/// Works on all heads of token `t` of what `work.queries` holds, some at a time; `done` is told each head and where its
/// results are.
fn each_heads(
    set: KernelSet,
    tile: Tile<'_>,
    t: usize,
    group: usize,
    work: &mut Work,
    mut done: impl FnMut(&Work, usize, usize),
) {
    let dim = tile.dim;
    work.acc.resize(HEADS * dim, 0.0);
    // As even as can be: eight heads are twice four.
    let step = group.div_ceil(group.div_ceil(HEADS));
    for first in (0..group).step_by(step) {
        let m = step.min(group - first);
        let heads = work.queries.heads(t * group + first, m, dim);
        let partial =
            Partial { max: &mut work.max[..m], sum: &mut work.sum[..m], acc: &mut work.acc[..m * dim] };
        match set {
            // SAFETY: the set says that the machine has the instructions.
            #[cfg(target_arch = "x86_64")]
            KernelSet::Avx512Vnni => unsafe { avx512_int8::tile(heads, tile, &mut work.scratch, partial) },
            _ => tile_plain(set, heads, tile, &mut work.scratch, partial),
        }
        (0..m).for_each(|i| done(work, first + i, i));
    }
}

dispatch! {
    /// Takes a tile's results for one head into what the tiles before it came to.
    fn merge(running: Running<'_>, max: f32, sum: f32, part: &[f32]) {
        let mut running = running;
        let (keep, take) = running.merge(0, max, sum);
        for (acc, part) in running.acc.iter_mut().zip(part) {
            *acc = *acc * keep + part * take;
        }
    }
}

/// Quantised queries of a work item.
#[derive(Default)]
pub struct Queries {
    q: Vec<i8>,
    d: Vec<f32>,
    sums: Vec<i16>,
    taken: Vec<i32>,
}

impl Queries {
    /// `rows`: [n][heads of all][dim], of which `heads` from `first` are taken.
    pub fn fill(&mut self, set: KernelSet, rows: &[f32], n: usize, first: usize, heads: usize, dim: usize) {
        let (stride, wide) = (rows.len() / n, heads * dim);
        let root = 1.0 / (dim as f32).sqrt();
        self.q.resize(n * wide, 0);
        self.d.resize(n * wide / BLOCK, 0.0);
        self.sums.resize(n * wide / BLOCK, 0);
        for t in 0..n {
            let row = &rows[t * stride + first * dim..][..wide];
            let blocks = t * wide / BLOCK..(t + 1) * wide / BLOCK;
            let (d, sums) = (&mut self.d[blocks.clone()], &mut self.sums[blocks]);
            quantize_32(set, row, &mut self.q[t * wide..(t + 1) * wide], d, sums);
        }
        self.d.iter_mut().for_each(|d| *d *= root);
        self.taken.clear();
        self.taken.extend(self.sums.iter().map(|sum| -128 * i32::from(*sum)));
    }

    /// `count` heads of the item from head `first` (token t's begin at t * heads).
    pub fn heads(&self, first: usize, count: usize, dim: usize) -> Heads<'_> {
        let blocks = first * dim / BLOCK..(first + count) * dim / BLOCK;
        Heads {
            q: &self.q[first * dim..(first + count) * dim],
            d: &self.d[blocks.clone()],
            taken: &self.taken[blocks],
        }
    }
}

/// The keys and values of one tile, as far as a token sees them.
#[derive(Clone, Copy)]
pub struct Tile<'a> {
    /// Whole groups, `HALF` of them at most in each half.
    pub keys: [&'a [u8]; 2],
    pub values: [&'a [u8]; 2],
    pub dim: usize,
    /// Positions that are seen: 1 to `TILE`.
    pub n: usize,
}

/// What a tile gives for some heads: [heads], [heads], [heads][dim].
pub struct Partial<'a> {
    pub max: &'a mut [f32],
    pub sum: &'a mut [f32],
    pub acc: &'a mut [f32],
}

/// Room for what a tile needs on the way.
#[derive(Default)]
pub struct Scratch {
    /// [HEADS][TILE]: scores, then weights
    pub scores: Vec<f32>,
    /// [dim / 32][TILE]: scales of the values, the largest become `ONE`
    pub scales: Vec<f32>,
    /// [dim / 32][HEADS][TILE]
    pub weights: Vec<i16>,
    /// [dim / 32]: what a whole number of the result is worth
    pub worth: Vec<f32>,
}

impl Scratch {
    pub fn reserve(&mut self, dim: usize) {
        self.scores.resize(HEADS * TILE, 0.0);
        self.scales.resize(dim / BLOCK * TILE, 0.0);
        self.weights.resize(dim / BLOCK * HEADS * TILE, 0);
        self.worth.resize(dim / BLOCK, 0.0);
    }
}

/// The largest of scores, in sixteen lanes.
#[inline(always)]
pub fn largest(scores: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (whole, tail) = scores.as_chunks::<16>();
    for part in whole {
        for lane in 0..16 {
            lanes[lane] = if part[lane] > lanes[lane] { part[lane] } else { lanes[lane] };
        }
    }
    lanes.iter().chain(tail).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

/// Group `g` of a tile's keys or values.
fn group_of<'a>(halves: [&'a [u8]; 2], g: usize, bytes: usize) -> &'a [u8] {
    &halves[g / HALF][g % HALF * bytes..][..bytes]
}

dispatch! {
    /// At most `HEADS` query heads of one token against one tile.
    pub fn tile_plain(heads: Heads<'_>, tile: Tile<'_>, s: &mut Scratch, partial: Partial<'_>) {
        let Tile { keys, values, dim, n } = tile;
        let (bytes, blocks) = (group_bytes(dim), dim / BLOCK);
        s.reserve(dim);
        for block in 0..blocks {
            let scales = &mut s.scales[block * TILE..block * TILE + n];
            for (j, out) in scales.iter_mut().enumerate() {
                *out = scale(group_of(values, j / GROUP, bytes), dim, j % GROUP, block);
            }
            let most = largest(scales);
            let one = if most > 0.0 { ONE / most } else { 0.0 };
            scales.iter_mut().for_each(|scale| *scale *= one);
            s.worth[block] = most / ONE;
        }
        for (head, q) in heads.q.chunks_exact(dim).enumerate() {
            let scores = &mut s.scores[head * TILE..head * TILE + n];
            for (j, score) in scores.iter_mut().enumerate() {
                let group = group_of(keys, j / GROUP, bytes);
                *score = 0.0;
                for block in 0..blocks {
                    let dot: i32 = (block * BLOCK..(block + 1) * BLOCK)
                        .map(|i| i32::from(q[i]) * i32::from(whole(group, false, dim, j % GROUP, i)))
                        .sum();
                    *score += dot as f32 * scale(group, dim, j % GROUP, block) * heads.d[head * blocks + block];
                }
            }
            let most = largest(scores);
            partial.max[head] = most;
            partial.sum[head] = weigh(scores, most);
            for block in 0..blocks {
                let scales = &s.scales[block * TILE..block * TILE + n];
                let weights = &mut s.weights[block * TILE..block * TILE + n];
                for ((weight, p), scale) in weights.iter_mut().zip(&*scores).zip(scales) {
                    *weight = (p * scale).round_ties_even() as i16;
                }
                for i in block * BLOCK..(block + 1) * BLOCK {
                    let sum: i32 = (0..n)
                        .map(|j| {
                            let group = group_of(values, j / GROUP, bytes);
                            let value = whole(group, true, dim, j % GROUP, i);
                            i32::from(weights[j]) * i32::from(value)
                        })
                        .sum();
                    partial.acc[head * dim + i] = sum as f32 * s.worth[block];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::kv::{KvCache, KvShape, KvType};

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
        let dot =
            |key: &[f32]| -> f64 { q.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
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
        for (kv_heads, group, dim, total) in
            [(2, 6, 128, 1100), (1, 8, 64, 530), (2, 1, 32, 17), (1, 13, 96, 515)]
        {
            let shape = KvShape { layers: 1, heads: kv_heads, head_dim: dim, kind: KvType::Q8_0 };
            let mut cache = KvCache::new(shape, total + 5);
            let heads = kv_heads * group;
            cache.prepare(0, total).unwrap();
            let planes = cache.planes(0);
            for position in 0..total {
                for (value, head) in (0..kv_heads).flat_map(|head| [(false, head), (true, head)]) {
                    let row: Vec<f32> = (0..dim).map(|_| next()).collect();
                    // SAFETY: one thread.
                    unsafe { planes.store(0, value, head, position, &row) };
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
            assert_eq!(whole, tokens(KernelSet::Scalar, 2, &[total - 4, 3, 1]));
            let spans = [Span { cache: &cache, start: 0, row: 0, n: total }];
            let batch = Batch { layer: 0, heads, queries: &queries, spans: &spans };
            for (t, head) in [(0, 0), (total / 2, heads - 1), (total - 1, 0), (total - 1, heads / 2)] {
                let got = &whole[(t * heads + head) * dim..][..dim];
                let want = exact(&batch, t, head);
                let error: f64 = got.iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
                let size: f64 = want.iter().map(|x| x * x).sum();
                assert!((error / size).sqrt() < 0.02, "{t} {head}: {}", (error / size).sqrt());
            }
        }
    }
}
