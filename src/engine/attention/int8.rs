//! Attention over int8 keys and values, in whole numbers: queries are quantised to 15 bits (a scale to 32 values), scores
//! are exact sums of products per 32 dimensions; the weights of a tile become 15-bit numbers, the scale of a value and
//! the largest such scale of the tile folded in, and multiply the values exactly. What is rounded is rounded once per
//! tile, the same whatever the batch, the thread or the instruction set. Here is who works on what, and the plain form,
//! which states the arithmetic; the fast ones are `kernels::avx512_int8` and `kernels::avx2_int8`.
#![allow(unsafe_code)]

use super::{Batch, Running, Span, TILE, TOKENS, weigh};
use crate::engine::kernels::scalar::tree16;
use crate::engine::kernels::{KernelSet, dispatch};
#[cfg(target_arch = "x86_64")]
use crate::engine::kernels::{avx2_int8, avx512_int8};
use crate::engine::kv::blocks;
use crate::engine::kv::int8::{BLOCK, GROUP, group_bytes, scale, whole};
use crate::engine::pool::{Pool, Shards};
use std::cell::RefCell;

/// Query heads that share each load of a key or value: as many as leave their sums in registers.
pub const HEADS: usize = 6;
/// A weight of one. A tile's 512 products with values of at most 127 then stay within 31 bits.
pub const ONE: f32 = 32_766.0;
/// The largest quantised query: 127 parts of 128, so that it is two bytes (see `Heads`).
const MOST: f32 = 16_256.0;

/// Query heads of one token, as attention multiplies them.
#[derive(Clone, Copy)]
pub struct Heads<'a> {
    /// [heads][dim]
    pub q: &'a [i16],
    /// [heads][dim] each, for kernels that multiply bytes: q = 128 * high + low, with low of -64 to 63
    pub high: &'a [i8],
    pub low: &'a [i8],
    /// [heads][dim / 32], divided by the root of dim
    pub d: &'a [f32],
    /// [half of a tile][heads]: the product with what the keys of the half have in common, divided by the root of dim
    pub common: [[f32; HEADS]; 2],
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
    let common = std::array::from_fn(|half| match n > half * blocks::BLOCK {
        true => span.cache.common(batch.layer, kv_head, first / blocks::BLOCK + half),
        false => &[][..],
    });
    (n > 0).then(|| Tile { keys: halves(false), values: halves(true), common, dim, n })
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
        let heads = work.queries.heads(set, t * group + first, m, tile);
        let partial =
            Partial { max: &mut work.max[..m], sum: &mut work.sum[..m], acc: &mut work.acc[..m * dim] };
        match set {
            // SAFETY: the set says that the machine has the instructions.
            #[cfg(target_arch = "x86_64")]
            KernelSet::Avx512Vnni => unsafe { avx512_int8::tile(heads, tile, &mut work.scratch, partial) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            KernelSet::Avx2 => unsafe { avx2_int8::tile(heads, tile, &mut work.scratch, partial) },
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
    /// As they came, divided by the root of dim.
    rows: Vec<f32>,
    q: Vec<i16>,
    high: Vec<i8>,
    low: Vec<i8>,
    d: Vec<f32>,
    taken: Vec<i32>,
}

impl Queries {
    /// `rows`: [n][heads of all][dim], of which `heads` from `first` are taken.
    pub fn fill(&mut self, set: KernelSet, rows: &[f32], n: usize, first: usize, heads: usize, dim: usize) {
        let (stride, wide) = (rows.len() / n, heads * dim);
        let root = 1.0 / (dim as f32).sqrt();
        self.rows.clear();
        self.q.resize(n * wide, 0);
        self.high.resize(n * wide, 0);
        self.low.resize(n * wide, 0);
        self.d.resize(n * wide / BLOCK, 0.0);
        self.taken.resize(n * wide / BLOCK, 0);
        for t in 0..n {
            let row = &rows[t * stride + first * dim..][..wide];
            self.rows.extend(row.iter().map(|x| x * root));
            let blocks = t * wide / BLOCK..(t + 1) * wide / BLOCK;
            let (d, taken) = (&mut self.d[blocks.clone()], &mut self.taken[blocks]);
            quantize(set, row, root, &mut self.q[t * wide..(t + 1) * wide], d, taken);
        }
        split(set, &self.q, &mut self.high, &mut self.low);
    }

    /// `count` heads of the item from head `first` (token t's begin at t * heads), to meet `tile`.
    fn heads(&self, set: KernelSet, first: usize, count: usize, tile: Tile<'_>) -> Heads<'_> {
        let dim = tile.dim;
        let mut common = [[0f32; HEADS]; 2];
        for (products, common) in common.iter_mut().zip(tile.common).filter(|(_, common)| !common.is_empty())
        {
            let rows = self.rows[first * dim..].chunks_exact(dim);
            products[..count].iter_mut().zip(rows).for_each(|(out, row)| *out = meet(set, row, common));
        }
        let values = first * dim..(first + count) * dim;
        let blocks = values.start / BLOCK..values.end / BLOCK;
        Heads {
            q: &self.q[values.clone()],
            high: &self.high[values.clone()],
            low: &self.low[values],
            common,
            d: &self.d[blocks.clone()],
            taken: &self.taken[blocks],
        }
    }
}

dispatch! {
    /// Blocks of 32 queries: d = max|x| / `MOST` * root, q = round-half-even(x / max|x| * `MOST`).
    fn quantize(rows: &[f32], root: f32, q: &mut [i16], d: &mut [f32], taken: &mut [i32]) {
        let q = q.as_chunks_mut::<BLOCK>().0;
        for (((x, q), d), taken) in rows.as_chunks::<BLOCK>().0.iter().zip(q).zip(d).zip(taken) {
            let mut lanes = [0f32; 16];
            for part in x.as_chunks::<16>().0 {
                for lane in 0..16 {
                    let a = part[lane].abs();
                    lanes[lane] = if a > lanes[lane] { a } else { lanes[lane] };
                }
            }
            let largest = lanes.iter().fold(0f32, |a, &b| if b > a { b } else { a });
            let inverse = if largest > 0.0 { MOST / largest } else { 0.0 };
            *d = largest / MOST * root;
            for (q, x) in q.iter_mut().zip(x) {
                // Adding and taking away 1.5 * 2^23 rounds half to even, in any instruction set.
                *q = ((x * inverse + 12_582_912.0) - 12_582_912.0) as i32 as i16;
            }
            *taken = -128 * q.iter().map(|&q| i32::from(q)).sum::<i32>();
        }
    }
}

dispatch! {
    /// A query and what keys have in common, in sixteen lanes and one tree.
    fn meet(row: &[f32], common: &[u8]) -> f32 {
        let mut lanes = [0f32; 16];
        let (common, _) = common.as_chunks::<4>();
        for (row, common) in row.as_chunks::<16>().0.iter().zip(common.as_chunks::<16>().0) {
            for lane in 0..16 {
                lanes[lane] += row[lane] * f32::from_le_bytes(common[lane]);
            }
        }
        tree16(&lanes)
    }
}

dispatch! {
    /// Queries in two bytes.
    fn split(q: &[i16], high: &mut [i8], low: &mut [i8]) {
        for ((&q, high), low) in q.iter().zip(high).zip(low) {
            *high = ((q + 64) >> 7) as i8;
            *low = (q - (i16::from(*high) << 7)) as i8;
        }
    }
}

/// The keys and values of one tile, as far as a token sees them.
#[derive(Clone, Copy)]
pub struct Tile<'a> {
    /// Whole groups, `HALF` of them at most in each half.
    pub keys: [&'a [u8]; 2],
    pub values: [&'a [u8]; 2],
    /// What the keys of each half have in common: f32 [dim], nothing where none is seen.
    pub common: [&'a [u8]; 2],
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
fn group_of(halves: [&[u8]; 2], g: usize, bytes: usize) -> &[u8] {
    &halves[g / HALF][g % HALF * bytes..][..bytes]
}

dispatch! {
    /// At most `HEADS` query heads of one token against one tile.
    pub fn tile_plain(heads: Heads<'_>, tile: Tile<'_>, s: &mut Scratch, partial: Partial<'_>) {
        let Tile { keys, values, dim, n, .. } = tile;
        let (bytes, parts) = (group_bytes(dim), dim / BLOCK);
        s.reserve(dim);
        for block in 0..parts {
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
                *score = heads.common[j / blocks::BLOCK][head];
                for block in 0..parts {
                    let dot: i32 = (block * BLOCK..(block + 1) * BLOCK)
                        .map(|i| i32::from(q[i]) * i32::from(whole(group, false, dim, j % GROUP, i)))
                        .sum();
                    *score += dot as f32 * scale(group, dim, j % GROUP, block) * heads.d[head * parts + block];
                }
            }
            let most = largest(scores);
            partial.max[head] = most;
            partial.sum[head] = weigh(scores, most);
            for block in 0..parts {
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
