//! The forward pass of qwen2, qwen3 and qwen3moe, read top to bottom. A batch of `n` tokens of one sequence goes
//! through the layers region by region; every region is a loop over chunks on the pool, and each output element is
//! computed by one thread in a fixed order, so results depend on neither the number of threads nor the batch.
//! What the tokens mean, and which of them to keep, is for the callers.
#![allow(unsafe_code)]

use super::attention::{self, Item};
use super::kernels::act::{Activations, Form};
use super::kernels::{KernelSet, Matrix, Output, matmul_rows, quantize_32, quantize_256};
use super::kv::KvCache;
use super::ops;
use super::pool::{Pool, Shards};
use super::weights::{Layer, ModelConfig, Weights};
use super::{EngineError, TokenId};
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows of a matrix that one chunk of a region computes: a multiple of the strip.
const ROWS: usize = 64;

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
    /// attention's result, [n][heads * head_dim]
    mixed: Activations,
    /// [n][hidden] (dense) or [n * used][hidden] (MoE)
    y: Vec<f32>,
    /// [n][ff] or [n * used][expert_ff]
    gate: Vec<f32>,
    up: Vec<f32>,
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
    /// Runs `tokens` at positions `start..`, storing their keys and values; returns logits, [wanted][vocab].
    /// On an error (cancelled) what was stored beyond `start` is not to be used.
    pub fn run(
        &mut self,
        tokens: &[TokenId],
        start: usize,
        cache: &mut KvCache,
        want: Want,
        b: &mut Buffers,
    ) -> Result<Vec<f32>, EngineError> {
        let (c, n, set) = (self.config, tokens.len(), self.set);
        let weights = self.weights;
        let embedding = weights.matrix(&weights.embedding);
        b.x.resize(n * c.hidden, 0.0);
        for (x, &token) in b.x.chunks_exact_mut(c.hidden).zip(tokens) {
            embedding.kind.dequantize(embedding.row(token as usize), x);
        }
        b.everyone.clear();
        b.everyone.extend(0..n);
        self.angles(start, n, b);
        for (l, layer) in weights.layers.iter().enumerate() {
            self.attention_block(l, layer, start, n, cache, b)?;
            self.normed(&layer.ffn_norm, n, &self.forms(&[&layer.gate, &layer.up]), b)?;
            if c.experts > 0 { self.moe_block(layer, n, b)? } else { self.dense_block(layer, n, b)? }
        }
        let first = match want {
            Want::Nothing => return Ok(Vec::new()),
            Want::Last => n - 1,
            Want::All => 0,
        };
        b.x.copy_within(first * c.hidden.., 0);
        let n = n - first;
        b.everyone.truncate(n);
        self.normed(&weights.output_norm, n, &self.forms(&[&weights.output]), b)?;
        let mut logits = vec![0f32; n * c.vocab];
        self.matmul(&b.act, &b.everyone, &mut [(weights.matrix(&weights.output), &mut logits)]);
        debug_assert_eq!(set, self.set);
        Ok(logits)
    }

    fn attention_block(
        &mut self,
        l: usize,
        layer: &Layer,
        start: usize,
        n: usize,
        cache: &mut KvCache,
        b: &mut Buffers,
    ) -> Result<(), EngineError> {
        let (c, set, w) = (self.config, self.set, self.weights);
        let (dim, q_dim, kv_dim) = (c.head_dim, c.heads * c.head_dim, c.kv_heads * c.head_dim);
        self.normed(&layer.attn_norm, n, &self.forms(&[&layer.q, &layer.k, &layer.v]), b)?;
        b.q.resize(n * q_dim, 0.0);
        b.k.resize(n * kv_dim, 0.0);
        b.v.resize(n * kv_dim, 0.0);
        let jobs = &mut [
            (w.matrix(&layer.q), &mut b.q[..]),
            (w.matrix(&layer.k), &mut b.k[..]),
            (w.matrix(&layer.v), &mut b.v[..]),
        ];
        self.matmul(&b.act, &b.everyone, jobs);
        self.check()?;

        // Bias, norm of each head, rotation; then keys and values as stored are what attention reads.
        let (q, k, v) = (Shards::new(&mut b.q), Shards::new(&mut b.k), Shards::new(&mut b.v));
        let (cos, sin) = (&b.cos, &b.sin);
        self.pool.run(n, &|t| {
            let angles = t * dim / 2..(t + 1) * dim / 2;
            let (cos, sin) = (&cos[angles.clone()], &sin[angles]);
            // SAFETY: token t's rows, one chunk each.
            let (q, k, v) = unsafe {
                (q.slice(t * q_dim, q_dim), k.slice(t * kv_dim, kv_dim), v.slice(t * kv_dim, kv_dim))
            };
            for (row, bias) in [(&mut *q, &layer.q_bias), (&mut *k, &layer.k_bias), (v, &layer.v_bias)] {
                if !bias.is_empty() {
                    ops::add(set, row, bias);
                }
            }
            let mut normed = [0f32; 1024];
            for (row, norm) in [(q, &layer.q_norm), (k, &layer.k_norm)] {
                for head in row.chunks_exact_mut(dim) {
                    if !norm.is_empty() {
                        ops::rms_norm(set, head, norm, c.eps, &mut normed[..dim]);
                        head.copy_from_slice(&normed[..dim]);
                    }
                    ops::rope_neox(set, head, cos, sin);
                }
            }
        });
        for t in 0..n {
            for head in 0..c.kv_heads {
                let at = t * kv_dim + head * dim;
                cache.store(l, false, head, start + t, &b.k[at..at + dim]);
                cache.store(l, true, head, start + t, &b.v[at..at + dim]);
            }
        }

        b.mixed.reserve(n, q_dim, &self.forms(&[&layer.o]));
        let out = Shards::new(&mut b.mixed.values);
        let groups = n.div_ceil(attention::TOKENS);
        let (queries, cache) = (&b.q[..], &*cache);
        // The last tokens see the most keys: longest work first.
        self.pool.run(groups * c.kv_heads, &|chunk| {
            let first = (groups - 1 - chunk / c.kv_heads) * attention::TOKENS;
            let item = Item {
                layer: l,
                kv_head: chunk % c.kv_heads,
                group: c.heads / c.kv_heads,
                head_dim: dim,
                start,
                first,
                n: attention::TOKENS.min(n - first),
                queries,
                cache,
            };
            // SAFETY: each chunk has its own tokens and heads.
            unsafe { attention::attend(set, &item, &out) };
        });
        self.check()?;
        self.quantize(&mut b.mixed, n, &[&layer.o]);
        b.y.resize(n * c.hidden, 0.0);
        self.matmul(&b.mixed, &b.everyone, &mut [(w.matrix(&layer.o), &mut b.y)]);
        ops::add(set, &mut b.x[..n * c.hidden], &b.y[..n * c.hidden]);
        self.check()
    }

    fn dense_block(&mut self, layer: &Layer, n: usize, b: &mut Buffers) -> Result<(), EngineError> {
        let (c, set, w) = (self.config, self.set, self.weights);
        b.gate.resize(n * c.ff, 0.0);
        b.up.resize(n * c.ff, 0.0);
        let jobs = &mut [(w.matrix(&layer.gate), &mut b.gate[..]), (w.matrix(&layer.up), &mut b.up[..])];
        self.matmul(&b.act, &b.everyone, jobs);
        self.check()?;
        self.activate(c.ff, n, layer, b);
        b.y.resize(n * c.hidden, 0.0);
        self.matmul(&b.inner, &b.everyone, &mut [(w.matrix(&layer.down), &mut b.y)]);
        ops::add(set, &mut b.x[..n * c.hidden], &b.y[..n * c.hidden]);
        self.check()
    }

    /// Softmax over all experts, the best `used` of them, weights renormalised; each expert meets its tokens in one
    /// product; results are summed in rank order.
    fn moe_block(&mut self, layer: &Layer, n: usize, b: &mut Buffers) -> Result<(), EngineError> {
        let (c, set, w) = (self.config, self.set, self.weights);
        let Some(router) = &layer.router else { return Ok(()) };
        b.routes.resize(n * c.experts, 0.0);
        self.matmul(&b.act, &b.everyone, &mut [(w.matrix(router), &mut b.routes)]);
        b.moe.choose(&mut b.routes, c.experts, c.experts_used);
        let pairs = n * c.experts_used;
        let ff = c.expert_ff;
        b.gate.resize(pairs * ff, 0.0);
        b.up.resize(pairs * ff, 0.0);
        let jobs = &mut [(w.matrix(&layer.gate), &mut b.gate[..]), (w.matrix(&layer.up), &mut b.up[..])];
        self.matmul_experts(&b.act, &b.moe, &b.moe.token, jobs);
        self.check()?;
        self.activate(ff, pairs, layer, b);
        b.y.resize(pairs * c.hidden, 0.0);
        self.matmul_experts(&b.inner, &b.moe, &b.moe.own, &mut [(w.matrix(&layer.down), &mut b.y)]);
        let x = Shards::new(&mut b.x);
        let (y, moe, used) = (&b.y, &b.moe, c.experts_used);
        self.pool.run(n, &|t| {
            // SAFETY: token t's row.
            let x = unsafe { x.slice(t * c.hidden, c.hidden) };
            for rank in t * used..(t + 1) * used {
                let row = moe.slot[rank] * c.hidden;
                ops::add_scaled(set, x, &y[row..row + c.hidden], moe.chosen[rank].1);
            }
        });
        self.check()
    }

    /// inner = silu(gate) * up, quantised for the down projection.
    fn activate(&mut self, ff: usize, n: usize, layer: &Layer, b: &mut Buffers) {
        let set = self.set;
        b.inner.reserve(n, ff, &self.forms(&[&layer.down]));
        let out = Shards::new(&mut b.inner.values);
        let (gate, up) = (&b.gate, &b.up);
        self.pool.run(n, &|t| {
            // SAFETY: token t's row.
            let out = unsafe { out.slice(t * ff, ff) };
            ops::silu_mul(set, &gate[t * ff..(t + 1) * ff], &up[t * ff..(t + 1) * ff], out);
        });
        self.quantize(&mut b.inner, n, &[&layer.down]);
    }

    /// act = rms_norm(x) in the forms its readers need.
    fn normed(&mut self, norm: &[f32], n: usize, forms: &[Form], b: &mut Buffers) -> Result<(), EngineError> {
        let (c, set) = (self.config, self.set);
        b.act.reserve(n, c.hidden, forms);
        let out = Shards::new(&mut b.act.values);
        let x = &b.x;
        self.pool.run(n, &|t| {
            // SAFETY: token t's row.
            let out = unsafe { out.slice(t * c.hidden, c.hidden) };
            ops::rms_norm(set, &x[t * c.hidden..(t + 1) * c.hidden], norm, c.eps, out);
        });
        self.quantize_forms(&mut b.act, n, forms);
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

    fn quantize(&mut self, act: &mut Activations, n: usize, readers: &[&super::gguf::TensorInfo]) {
        self.quantize_forms(act, n, &self.forms(readers));
    }

    fn quantize_forms(&mut self, act: &mut Activations, n: usize, forms: &[Form]) {
        let (set, cols) = (self.set, act.cols);
        for form in forms {
            let (to, block, sum_of) = match form {
                Form::Float => continue,
                Form::Blocks32 => (&mut act.by32, 32, 32),
                Form::Blocks256 => (&mut act.by256, 256, 16),
            };
            let values = &act.values;
            let (q, d, sums) = (Shards::new(&mut to.q), Shards::new(&mut to.d), Shards::new(&mut to.sums));
            let quantize = if block == 32 { quantize_32 } else { quantize_256 };
            self.pool.run(n, &|t| {
                // SAFETY: token t's row of each.
                unsafe {
                    quantize(
                        set,
                        &values[t * cols..(t + 1) * cols],
                        q.slice(t * cols, cols),
                        d.slice(t * cols / block, cols / block),
                        sums.slice(t * cols / sum_of, cols / sum_of),
                    );
                }
            });
        }
    }

    /// One region: every matrix times the same tokens.
    fn matmul(&mut self, act: &Activations, tokens: &[usize], jobs: &mut [(Matrix<'_>, &mut [f32])]) {
        let set = self.set;
        let mut chunks = Vec::with_capacity(64);
        let mut targets = Vec::with_capacity(jobs.len());
        for (j, (matrix, out)) in jobs.iter_mut().enumerate() {
            chunks.extend((0..matrix.rows).step_by(ROWS).map(|row| (j, row)));
            targets.push((*matrix, Shards::new(out)));
        }
        self.pool.run(chunks.len(), &|chunk| {
            let (j, row) = chunks[chunk];
            let (matrix, shards) = &targets[j];
            let rows = row..(row + ROWS).min(matrix.rows);
            let out = Output { shards, slot: 0, stride: matrix.rows };
            // SAFETY: each chunk has its own rows.
            unsafe { matmul_rows(set, matrix, rows, act, tokens, &out) };
        });
    }

    /// One region: every expert that is met times its own tokens (`rows_of[pair]` is the pair's row in `act`).
    fn matmul_experts(
        &mut self,
        act: &Activations,
        routing: &Routing,
        rows_of: &[usize],
        jobs: &mut [(Matrix<'_>, &mut [f32])],
    ) {
        let (set, experts) = (self.set, self.config.experts);
        let mut chunks = Vec::with_capacity(256);
        let mut targets = Vec::with_capacity(jobs.len());
        for (j, (matrix, out)) in jobs.iter_mut().enumerate() {
            for met in &routing.met {
                chunks.extend((0..matrix.rows / experts).step_by(ROWS).map(|row| (j, *met, row)));
            }
            targets.push((*matrix, Shards::new(out)));
        }
        self.pool.run(chunks.len(), &|chunk| {
            let (j, (expert, slot, n), row) = chunks[chunk];
            let (stack, shards) = &targets[j];
            let matrix = stack.part(expert, experts);
            let rows = row..(row + ROWS).min(matrix.rows);
            let out = Output { shards, slot, stride: matrix.rows };
            // SAFETY: each chunk has its own rows of its own expert's pairs.
            unsafe { matmul_rows(set, &matrix, rows, act, &rows_of[slot..slot + n], &out) };
        });
    }

    /// cos and sin of each position's angles: position * theta^(-2i / head_dim), in f64 until the end.
    fn angles(&self, start: usize, n: usize, b: &mut Buffers) {
        let half = self.config.head_dim / 2;
        b.cos.resize(n * half, 0.0);
        b.sin.resize(n * half, 0.0);
        for i in 0..half {
            let frequency = self.config.rope_theta.powf(-(2.0 * i as f64) / (2 * half) as f64);
            for t in 0..n {
                let (sin, cos) = ((start + t) as f64 * frequency).sin_cos();
                (b.cos[t * half + i], b.sin[t * half + i]) = (cos as f32, sin as f32);
            }
        }
    }

    fn check(&self) -> Result<(), EngineError> {
        if self.cancel.load(Ordering::Relaxed) { Err(EngineError::Cancelled) } else { Ok(()) }
    }
}

impl Routing {
    fn choose(&mut self, routes: &mut [f32], experts: usize, used: usize) {
        self.chosen.clear();
        for logits in routes.chunks_exact_mut(experts) {
            ops::softmax(logits);
            let mut order: Vec<usize> = (0..experts).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
            let total: f32 = order[..used].iter().map(|&e| logits[e]).sum();
            self.chosen.extend(order[..used].iter().map(|&e| (e, logits[e] / total)));
        }
        let pairs = self.chosen.len();
        let mut sorted: Vec<usize> = (0..pairs).collect();
        sorted.sort_by_key(|&pair| (self.chosen[pair].0, pair));
        self.slot.resize(pairs, 0);
        self.token.clear();
        self.own.clear();
        self.own.extend(0..pairs);
        self.met.clear();
        for (slot, &pair) in sorted.iter().enumerate() {
            self.slot[pair] = slot;
            self.token.push(pair / used);
            let expert = self.chosen[pair].0;
            match self.met.last_mut() {
                Some((last, _, n)) if *last == expert => *n += 1,
                _ => self.met.push((expert, slot, 1)),
            }
        }
    }
}
