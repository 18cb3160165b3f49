//! The forward pass of qwen2, qwen3 and qwen3moe, read top to bottom. A batch of `n` tokens, of one sequence or several,
//! goes through the layers region by region; every region is a loop over chunks on the pool, and each output element is
//! computed by one thread in a fixed order, so results depend on neither the number of threads nor the batch.
//! What the tokens mean, and which of them to keep, is for the callers.
#![allow(unsafe_code)]

use super::attention::{self, Batch, Span};
use super::kernels::act::{Activations, Form};
use super::kernels::{KernelSet, Matrix, Output, gate_up_rows, matmul_rows};
use super::kv::blocks::BLOCK;
use super::kv::{KvCache, Planes};
use super::memory::resize;
use super::ops;
use super::pool::{Pool, Shards};
use super::rope;
use super::weights::{Layer, ModelConfig, Weights};
use super::{EngineError, TokenId};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows of a matrix that one chunk of a region computes: a multiple of the panel.
const ROWS: usize = 64;
/// From so many (token, expert) pairs, a chunk of the experts' last product has half as many rows.
const MANY_PAIRS: usize = 4096;

thread_local! {
    /// [pairs][rows of a chunk]
    static PAIRS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Which positions of a batch get logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    Nothing,
    Last,
    All,
}

/// Buffers of a pass, kept between calls. n = tokens of the batch.
#[derive(Default)]
pub struct Buffers {
    /// [n][hidden] the residual stream
    x: Vec<f32>,
    /// normed input of a block, [n][hidden], and its quantised forms
    act: Activations,
    /// [n][heads * head_dim], [n][kv_heads * head_dim] twice
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// what attention keeps of each tile, where few tokens share many
    partials: Vec<f32>,
    /// attention's result, [n][heads * head_dim]
    mixed: Activations,
    /// silu(gate) * up, [n][ff] or [n * used][expert_ff]
    inner: Activations,
    /// [n][head_dim / 2]
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// [n][experts]
    routes: Vec<f32>,
    /// every token of the batch, for matrices that all of them meet
    everyone: Vec<usize>,
    moe: Routing,
}

/// Bytes that the buffers of a pass over `n` tokens take, and the logits of one.
pub fn working_bytes(c: &ModelConfig, n: usize, threads: usize) -> u64 {
    // Values, and their quantised form in blocks of 256: a byte, a scale, and what is kept to sixteen.
    let act = |rows: usize, cols: usize| rows * cols * 5 + rows * cols / 64 + rows * cols / 16 * 7;
    let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    let block = match c.experts {
        0 => act(n, c.ff),
        _ => {
            act(n * c.experts_used, c.expert_ff) + n * c.experts * 4 + threads * n * c.experts_used * ROWS * 4
        }
    };
    let floats = n * (c.hidden + q + 2 * kv + c.head_dim) + c.vocab;
    (floats * 4 + act(n, c.hidden) + act(n, q) + block) as u64
}

/// Which expert meets which token: pairs sorted by expert, so that each expert's tokens lie together.
#[derive(Default)]
struct Routing {
    /// [n][used]: (expert, weight), best first
    chosen: Vec<(usize, f32)>,
    /// [n][used]: where the pair's row lies in the sorted order
    slot: Vec<usize>,
    /// sorted pairs: the token of each
    token: Vec<usize>,
    /// sorted pairs: themselves, 0..pairs
    own: Vec<usize>,
    /// (expert, first pair, pairs), experts that are met at all
    met: Vec<(usize, usize, usize)>,
    /// [experts + 1]: the next free place of each expert while pairs are sorted
    first: Vec<usize>,
}

/// Some tokens of a batch: those of one sequence.
pub struct Part<'a> {
    tokens: &'a [TokenId],
    /// Position of the first.
    start: usize,
    /// Row of the first in the batch.
    row: usize,
    cache: &'a mut KvCache,
    planes: Planes,
}

impl<'a> Part<'a> {
    /// `cache` is prepared for the tokens.
    pub fn new(tokens: &'a [TokenId], start: usize, cache: &'a mut KvCache) -> Self {
        let planes = cache.planes(start);
        Self { tokens, start, row: 0, cache, planes }
    }

    /// Those of its tokens that stand in row `first` of the batch and after, which becomes row 0.
    fn from(&self, first: usize) -> Option<Span<'_>> {
        let skipped = first.saturating_sub(self.row).min(self.tokens.len());
        let n = self.tokens.len() - skipped;
        let row = (self.row + skipped).saturating_sub(first);
        (n > 0).then_some(Span { cache: self.cache, start: self.start + skipped, row, n })
    }
}

/// What a pass needs beside its buffers.
pub struct Pass<'a> {
    pub config: &'a ModelConfig,
    pub weights: &'a Weights,
    pub pool: &'a mut Pool,
    pub set: KernelSet,
    pub cancel: &'a AtomicBool,
}

impl Pass<'_> {
    /// Runs the tokens of all parts, storing their keys and values; returns logits, [wanted][vocab]. `Want::Last` is of
    /// the batch. `progress` is told how many layers are done. On an error (cancelled) what was stored is not to be used.
    pub fn run(
        &mut self,
        parts: &mut [Part<'_>],
        want: Want,
        b: &mut Buffers,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<f32>, EngineError> {
        let c = self.config;
        let mut n = 0;
        for part in parts.iter_mut() {
            part.row = n;
            n += part.tokens.len();
        }
        let weights = self.weights;
        let embedding = weights.matrix(&weights.embedding);
        resize(&mut b.x, n * c.hidden, 0.0);
        let tokens = parts.iter().flat_map(|part| part.tokens);
        for (x, &token) in b.x.chunks_exact_mut(c.hidden).zip(tokens) {
            embedding.kind.dequantize(embedding.row(token as usize), x);
        }
        b.everyone.clear();
        b.everyone.extend(0..n);
        self.angles(parts, n, b);
        // Of the last layer's results, those of this token and after are asked for.
        let first = match want {
            Want::Nothing => n,
            Want::Last => n - 1,
            Want::All => 0,
        };
        for (l, layer) in weights.layers.iter().enumerate() {
            let first = if l + 1 == c.layers { first } else { 0 };
            self.attention_block(l, layer, parts, n, first, b)?;
            n -= first;
            if n == 0 {
                return Ok(Vec::new());
            }
            self.normed(&layer.ffn_norm, n, &self.forms(&[&layer.gate, &layer.up]), b)?;
            if c.experts > 0 {
                self.moe_block(layer, n, b)?
            } else {
                self.dense_block(layer, n, b)?
            }
            progress(l + 1);
        }
        self.normed(&weights.output_norm, n, &self.forms(&[&weights.output]), b)?;
        let mut logits = vec![0f32; n * c.vocab];
        self.matmul(&b.act, &b.everyone[..n], &mut [(weights.matrix(&weights.output), &mut logits)], false);
        Ok(logits)
    }

    /// Tokens before `first` only leave their keys and values; the others' results become rows 0.. of `x`.
    fn attention_block(
        &mut self,
        l: usize,
        layer: &Layer,
        parts: &[Part<'_>],
        n: usize,
        first: usize,
        b: &mut Buffers,
    ) -> Result<(), EngineError> {
        let (c, set, w) = (self.config, self.set, self.weights);
        let (dim, q_dim, kv_dim) = (c.head_dim, c.heads * c.head_dim, c.kv_heads * c.head_dim);
        self.normed(&layer.attn_norm, n, &self.forms(&[&layer.q, &layer.k, &layer.v]), b)?;
        resize(&mut b.q, (n - first) * q_dim, 0.0);
        resize(&mut b.k, n * kv_dim, 0.0);
        resize(&mut b.v, n * kv_dim, 0.0);
        let query = (w.matrix(&layer.q), &mut b.q[..]);
        let others = [(w.matrix(&layer.k), &mut b.k[..]), (w.matrix(&layer.v), &mut b.v[..])];
        if first == 0 {
            let [k, v] = others;
            self.matmul(&b.act, &b.everyone[..n], &mut [query, k, v], false);
        } else {
            self.matmul(&b.act, &b.everyone[first..n], &mut [query], false);
            self.matmul(&b.act, &b.everyone[..n], &mut { others }, false);
        }
        self.check()?;

        // Bias, norm of each head, rotation; then keys and values as stored are what attention reads.
        let (q, k, v) = (Shards::new(&mut b.q), Shards::new(&mut b.k), Shards::new(&mut b.v));
        let (cos, sin) = (&b.cos, &b.sin);
        self.pool.run(n, &|t| {
            let angles = t * dim / 2..(t + 1) * dim / 2;
            let (cos, sin) = (&cos[angles.clone()], &sin[angles]);
            // SAFETY: token t's rows, one chunk each.
            let (k, v) = unsafe { (k.slice(t * kv_dim, kv_dim), v.slice(t * kv_dim, kv_dim)) };
            // SAFETY: as above; tokens before `first` have no query.
            let q = unsafe { q.slice(t.saturating_sub(first) * q_dim, if t < first { 0 } else { q_dim }) };
            if !layer.v_bias.is_empty() {
                ops::add(set, v, &layer.v_bias);
            }
            let mut normed = [0f32; 1024];
            for (row, bias, norm) in [(q, &layer.q_bias, &layer.q_norm), (k, &layer.k_bias, &layer.k_norm)] {
                if !bias.is_empty() {
                    ops::add(set, row, bias);
                }
                for head in row.chunks_exact_mut(dim) {
                    if !norm.is_empty() {
                        ops::rms_norm(set, head, norm, c.eps, &mut normed[..dim]);
                        head.copy_from_slice(&normed[..dim]);
                    }
                    ops::rope_neox(set, head, cos, sin);
                }
            }
        });
        let (keys, values) = (&b.k, &b.v);
        self.pool.run(2 * c.kv_heads, &|plane| {
            let (value, head) = (plane >= c.kv_heads, plane % c.kv_heads);
            let from = if value { values } else { keys };
            let bias = layer.k_bias.chunks_exact(dim).nth(head).filter(|_| !value && layer.k_norm.is_empty());
            let mut common = Vec::new();
            for part in parts {
                for t in 0..part.tokens.len() {
                    let at = (part.row + t) * kv_dim + head * dim;
                    let (row, position) = (&from[at..at + dim], part.start + t);
                    if let Some(bias) = bias
                        && position.is_multiple_of(BLOCK)
                    {
                        common.resize(dim, 0.0);
                        rope::common(c, bias, position, &mut common);
                    }
                    let common = bias.map(|_| &common[..]);
                    // SAFETY: each plane is one chunk's own, and no two parts share a block they write.
                    unsafe { part.planes.store(l, value, head, position, row, common) };
                }
            }
        });
        let kept = n - first;
        if kept == 0 {
            return self.check();
        }
        let forms = self.forms(&[&layer.o]);
        b.mixed.reserve(kept, q_dim, &forms);
        let spans: Vec<Span<'_>> = parts.iter().filter_map(|part| part.from(first)).collect();
        let batch = Batch { layer: l, heads: c.heads, queries: &b.q, spans: &spans };
        attention::run(self.pool, set, &batch, &mut b.partials, &mut b.mixed.values);
        self.check()?;
        let mixed = b.mixed.writer(&forms);
        // SAFETY: token t's row.
        self.pool.run(kept, &|t| unsafe { mixed.quantize(set, t) });
        b.x.copy_within(first * c.hidden.., 0);
        let x = &mut b.x[..kept * c.hidden];
        self.matmul(&b.mixed, &b.everyone[..kept], &mut [(w.matrix(&layer.o), x)], true);
        self.check()
    }

    fn dense_block(&mut self, layer: &Layer, n: usize, b: &mut Buffers) -> Result<(), EngineError> {
        let (c, set, w) = (self.config, self.set, self.weights);
        let forms = self.forms(&[&layer.down]);
        b.inner.reserve(n, c.ff, &forms);
        let (gate, up) = (w.matrix(&layer.gate), w.matrix(&layer.up));
        let shards = Shards::new(&mut b.inner.values);
        let (act, tokens) = (&b.act, &b.everyone[..n]);
        self.pool.run(gate.rows.div_ceil(ROWS), &|chunk| {
            let rows = chunk * ROWS..((chunk + 1) * ROWS).min(gate.rows);
            let out = Output { shards: &shards, slot: 0, stride: gate.rows, add: false };
            // SAFETY: each chunk has its own rows.
            unsafe { gate_up_rows(set, &gate, &up, rows, act, tokens, &out) };
        });
        self.check()?;
        let inner = b.inner.writer(&forms);
        // SAFETY: token t's row.
        self.pool.run(n, &|t| unsafe { inner.quantize(set, t) });
        let x = &mut b.x[..n * c.hidden];
        self.matmul(&b.inner, &b.everyone[..n], &mut [(w.matrix(&layer.down), x)], true);
        self.check()
    }

    /// Softmax over all experts, the best `used` of them, weights renormalised; each expert meets its tokens in one
    /// product; results are summed in rank order.
    fn moe_block(&mut self, layer: &Layer, n: usize, b: &mut Buffers) -> Result<(), EngineError> {
        let (c, set, w) = (self.config, self.set, self.weights);
        let Some(router) = &layer.router else { return Ok(()) };
        let used = c.experts_used;
        resize(&mut b.routes, n * c.experts, 0.0);
        self.matmul(&b.act, &b.everyone[..n], &mut [(w.matrix(router), &mut b.routes)], false);
        b.moe.chosen.resize(n * used, (0, 0.0));
        let (chosen, routes) = (Shards::new(&mut b.moe.chosen), Shards::new(&mut b.routes));
        self.pool.run(n, &|t| {
            // SAFETY: token t's rows.
            let (chosen, routes) =
                unsafe { (chosen.slice(t * used, used), routes.slice(t * c.experts, c.experts)) };
            choose(routes, chosen);
        });
        b.moe.sort(used, c.experts);
        let pairs = n * used;
        let ff = c.expert_ff;
        let forms = self.forms(&[&layer.down]);
        b.inner.reserve(pairs, ff, &forms);
        let (gate, up) = (w.matrix(&layer.gate), w.matrix(&layer.up));
        let per_expert = ff.div_ceil(ROWS);
        let shards = Shards::new(&mut b.inner.values);
        let (act, moe) = (&b.act, &b.moe);
        self.pool.run(moe.met.len() * per_expert, &|chunk| {
            let (expert, slot, count) = moe.met[chunk / per_expert];
            let row = chunk % per_expert * ROWS;
            let (gate, up) = (gate.part(expert, c.experts), up.part(expert, c.experts));
            let out = Output { shards: &shards, slot, stride: ff, add: false };
            let tokens = &moe.token[slot..slot + count];
            // SAFETY: each chunk has its own rows of its own expert's pairs.
            unsafe { gate_up_rows(set, &gate, &up, row..(row + ROWS).min(ff), act, tokens, &out) };
        });
        self.check()?;
        let inner = b.inner.writer(&forms);
        // SAFETY: the pair's row.
        self.pool.run(pairs, &|pair| unsafe { inner.quantize(set, pair) });
        self.experts_down(&w.matrix(&layer.down), n, b);
        self.check()
    }

    /// x += the sum over each token's experts, in rank order, of weight * (down . inner). A chunk makes some rows of
    /// all pairs and sums them at once: no pair's whole result is ever kept.
    fn experts_down(&mut self, down: &Matrix<'_>, n: usize, b: &mut Buffers) {
        let (c, set, used) = (self.config, self.set, self.config.experts_used);
        let rows = if n * used > MANY_PAIRS { ROWS / 2 } else { ROWS };
        let x = Shards::new(&mut b.x);
        let (inner, moe) = (&b.inner, &b.moe);
        self.pool.run(c.hidden.div_ceil(rows), &|chunk| {
            let (first, last) = (chunk * rows, ((chunk + 1) * rows).min(c.hidden));
            let wide = last - first;
            PAIRS.with_borrow_mut(|y| {
                resize(y, n * used * wide, 0.0);
                let shards = Shards::new(y);
                for &(expert, slot, count) in &moe.met {
                    let part = down.part(expert, c.experts);
                    // Rows are numbered from the first of this chunk.
                    let part = Matrix { rows: wide, data: &part.data[first * part.row_bytes()..], ..part };
                    let out = Output { shards: &shards, slot, stride: wide, add: false };
                    let pairs = &moe.own[slot..slot + count];
                    // SAFETY: the buffer is this thread's own.
                    unsafe { matmul_rows(set, &part, 0..wide, inner, pairs, &out) };
                }
                for t in 0..n {
                    // SAFETY: each chunk has its own columns.
                    let x = unsafe { x.slice(t * c.hidden + first, wide) };
                    for rank in t * used..(t + 1) * used {
                        let row = moe.slot[rank] * wide;
                        ops::add_scaled(set, x, &y[row..row + wide], moe.chosen[rank].1);
                    }
                }
            });
        });
    }

    /// act = rms_norm(x) in the forms its readers need.
    fn normed(&mut self, norm: &[f32], n: usize, forms: &[Form], b: &mut Buffers) -> Result<(), EngineError> {
        let (c, set) = (self.config, self.set);
        b.act.reserve(n, c.hidden, forms);
        let (x, act) = (&b.x, b.act.writer(forms));
        self.pool.run(n, &|t| {
            // SAFETY: token t's row.
            unsafe {
                ops::rms_norm(set, &x[t * c.hidden..(t + 1) * c.hidden], norm, c.eps, act.values(t));
                act.quantize(set, t);
            }
        });
        self.check()
    }

    fn forms(&self, readers: &[&super::gguf::TensorInfo]) -> Vec<Form> {
        let mut forms: Vec<Form> = Vec::with_capacity(2);
        for form in readers.iter().map(|info| Form::of(info.kind)) {
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
        forms
    }

    /// One region: every matrix times the same tokens, in place of what is in its output or added to it.
    fn matmul(
        &mut self,
        act: &Activations,
        tokens: &[usize],
        jobs: &mut [(Matrix<'_>, &mut [f32])],
        add: bool,
    ) {
        let set = self.set;
        // (matrix, where it goes, its first chunk)
        let mut targets: [Option<(Matrix<'_>, Shards<'_, f32>, usize)>; 3] = [None, None, None];
        let mut chunks = 0;
        for (target, (matrix, out)) in targets.iter_mut().zip(jobs) {
            *target = Some((*matrix, Shards::new(out), chunks));
            chunks += matrix.rows.div_ceil(ROWS);
        }
        self.pool.run(chunks, &|chunk| {
            let Some((matrix, shards, first)) = targets.iter().flatten().rfind(|(.., first)| *first <= chunk)
            else {
                return;
            };
            let row = (chunk - first) * ROWS;
            let rows = row..(row + ROWS).min(matrix.rows);
            let out = Output { shards, slot: 0, stride: matrix.rows, add };
            // SAFETY: each chunk has its own rows.
            unsafe { matmul_rows(set, matrix, rows, act, tokens, &out) };
        });
    }

    /// cos and sin of each position's angles: position * theta^(-2i / head_dim), in f64 until the end; beyond the
    /// training as YaRN has them, its scale of queries and keys in both.
    fn angles(&self, parts: &[Part<'_>], n: usize, b: &mut Buffers) {
        let half = self.config.head_dim / 2;
        b.cos.resize(n * half, 0.0);
        b.sin.resize(n * half, 0.0);
        for i in 0..half {
            let (frequency, scale) = rope::frequency(self.config, i);
            for part in parts {
                for t in 0..part.tokens.len() {
                    let (sin, cos) = ((part.start + t) as f64 * frequency).sin_cos();
                    let at = (part.row + t) * half + i;
                    (b.cos[at], b.sin[at]) = ((cos * scale) as f32, (sin * scale) as f32);
                }
            }
        }
    }

    fn check(&self) -> Result<(), EngineError> {
        if self.cancel.load(Ordering::Relaxed) { Err(EngineError::Cancelled) } else { Ok(()) }
    }
}

/// Softmax of `routes`, the best of them into `chosen`, best first (ties: the lower expert), weights adding up to one.
fn choose(routes: &mut [f32], chosen: &mut [(usize, f32)]) {
    ops::softmax(routes);
    let mut kept = 0;
    for (expert, &weight) in routes.iter().enumerate() {
        let at = chosen[..kept].partition_point(|(_, other)| *other >= weight);
        if at < chosen.len() {
            kept = (kept + 1).min(chosen.len());
            chosen[at..kept].rotate_right(1);
            chosen[at] = (expert, weight);
        }
    }
    let total: f32 = chosen.iter().map(|(_, weight)| weight).sum();
    chosen.iter_mut().for_each(|(_, weight)| *weight /= total);
}

impl Routing {
    /// Lays the pairs of each expert together.
    fn sort(&mut self, used: usize, experts: usize) {
        let pairs = self.chosen.len();
        self.first.clear();
        self.first.resize(experts + 1, 0);
        for (expert, _) in &self.chosen {
            self.first[expert + 1] += 1;
        }
        self.met.clear();
        for expert in 0..experts {
            let count = self.first[expert + 1];
            self.first[expert + 1] += self.first[expert];
            if count > 0 {
                self.met.push((expert, self.first[expert], count));
            }
        }
        self.slot.resize(pairs, 0);
        self.token.resize(pairs, 0);
        self.own.clear();
        self.own.extend(0..pairs);
        for (pair, (expert, _)) in self.chosen.iter().enumerate() {
            let slot = self.first[*expert];
            self.first[*expert] += 1;
            self.slot[pair] = slot;
            self.token[slot] = pair / used;
        }
    }
}
