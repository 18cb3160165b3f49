//! Activations as the matrix kernels read them: the float rows, and the same rows quantised to int8 in blocks of 256
//! (for 256-wide weight types) or 32 (for 32-wide ones), with the sums the kernels need beside them.
#![allow(unsafe_code, clippy::mut_from_ref)]

use super::{KernelSet, quantize_32, quantize_256};
use crate::engine::memory::resize;
use crate::engine::pool::Shards;
use crate::engine::quant::QuantType;

/// Which form of the activations a weight type multiplies with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Float,
    Blocks32,
    Blocks256,
}

impl Form {
    pub fn of(kind: QuantType) -> Self {
        match kind.block_len() {
            1 => Self::Float,
            32 => Self::Blocks32,
            _ => Self::Blocks256,
        }
    }
}

/// `n` rows of `cols` activations in one quantised form.
#[derive(Default)]
pub struct Quantized {
    /// [n][cols]
    pub q: Vec<i8>,
    /// [n][cols / block]: value = d * q
    pub d: Vec<f32>,
    /// Blocks of 256: [n][cols / 16], the sum of each 16 `q`. Blocks of 32: [n][cols / 32], of each 32.
    pub sums: Vec<i16>,
    /// As many: minus 128 times the sum, for weights that are stored 128 too large.
    pub taken: Vec<i32>,
    /// [n][cols / 64] of blocks of 256: sums of two times 32 `q`, two bytes each, for minima that come in pairs.
    pub pairs: Vec<i32>,
}

/// Activations of `n` tokens, `cols` each, in the forms that were asked for.
#[derive(Default)]
pub struct Activations {
    pub n: usize,
    pub cols: usize,
    /// [n][cols]
    pub values: Vec<f32>,
    pub by32: Quantized,
    pub by256: Quantized,
}

/// One token's activations.
#[derive(Clone, Copy)]
pub struct ActivationRow<'a> {
    pub values: &'a [f32],
    pub q: &'a [i8],
    pub d: &'a [f32],
    pub sums: &'a [i16],
    pub taken: &'a [i32],
    pub pairs: &'a [i32],
}

/// What panels want beside the sums, made once for all of them.
fn derive(sums: &[i16], taken: &mut [i32], pairs: &mut [i32]) {
    for (taken, sum) in taken.iter_mut().zip(sums) {
        *taken = -128 * i32::from(*sum);
    }
    for (pair, [a, b, c, d]) in pairs.iter_mut().zip(sums.as_chunks::<4>().0) {
        *pair = i32::from(a + b) & 0xffff | i32::from(c + d) << 16;
    }
}

impl Quantized {
    fn reserve(&mut self, n: usize, cols: usize, block: usize, sum_of: usize) {
        resize(&mut self.q, n * cols, 0);
        resize(&mut self.d, n * cols / block, 0.0);
        resize(&mut self.sums, n * cols / sum_of, 0);
        resize(&mut self.taken, n * cols / sum_of, 0);
        resize(&mut self.pairs, if sum_of == 16 { n * cols / 64 } else { 0 }, 0);
    }

    /// Makes of the sums what is made of them; the writer does it row by row.
    pub fn derive(&mut self) {
        derive(&self.sums, &mut self.taken, &mut self.pairs);
    }
}

impl Activations {
    /// Makes room for `n` rows of `cols` in `forms`; the contents are whatever was there.
    pub fn reserve(&mut self, n: usize, cols: usize, forms: &[Form]) {
        self.n = n;
        self.cols = cols;
        resize(&mut self.values, n * cols, 0.0);
        for form in forms {
            match form {
                Form::Float => {}
                Form::Blocks32 => self.by32.reserve(n, cols, 32, 32),
                Form::Blocks256 => self.by256.reserve(n, cols, 256, 16),
            }
        }
    }

    /// The row of `token` in the form that `kind` multiplies with. Always inlined: a result that comes back through memory
    /// makes a kernel's next load wait for all that it wrote before.
    #[inline(always)]
    pub fn row(&self, token: usize, kind: QuantType) -> ActivationRow<'_> {
        let cols = self.cols;
        let values = &self.values[token * cols..(token + 1) * cols];
        let (from, block, sum_of) = match Form::of(kind) {
            Form::Float => {
                return ActivationRow { values, q: &[], d: &[], sums: &[], taken: &[], pairs: &[] };
            }
            Form::Blocks32 => (&self.by32, 32, 32),
            Form::Blocks256 => (&self.by256, 256, 16),
        };
        ActivationRow {
            values,
            q: &from.q[token * cols..(token + 1) * cols],
            d: &from.d[token * cols / block..(token + 1) * cols / block],
            sums: &from.sums[token * cols / sum_of..(token + 1) * cols / sum_of],
            taken: &from.taken[token * cols / sum_of..(token + 1) * cols / sum_of],
            pairs: if block == 32 { &[] } else { &from.pairs[token * cols / 64..(token + 1) * cols / 64] },
        }
    }
}

/// The rows of activations that a region fills, one token after the other on any thread.
pub struct Writer<'a> {
    cols: usize,
    values: Shards<'a, f32>,
    by32: Option<QuantizedWriter<'a>>,
    by256: Option<QuantizedWriter<'a>>,
}

struct QuantizedWriter<'a> {
    q: Shards<'a, i8>,
    d: Shards<'a, f32>,
    sums: Shards<'a, i16>,
    taken: Shards<'a, i32>,
    pairs: Shards<'a, i32>,
}

impl<'a> QuantizedWriter<'a> {
    fn new(to: &'a mut Quantized) -> Self {
        Self {
            q: Shards::new(&mut to.q),
            d: Shards::new(&mut to.d),
            sums: Shards::new(&mut to.sums),
            taken: Shards::new(&mut to.taken),
            pairs: Shards::new(&mut to.pairs),
        }
    }
}

impl Activations {
    pub fn writer(&mut self, forms: &[Form]) -> Writer<'_> {
        Writer {
            cols: self.cols,
            values: Shards::new(&mut self.values),
            by32: forms.contains(&Form::Blocks32).then(|| QuantizedWriter::new(&mut self.by32)),
            by256: forms.contains(&Form::Blocks256).then(|| QuantizedWriter::new(&mut self.by256)),
        }
    }
}

impl Writer<'_> {
    /// Token t's row of values.
    ///
    /// # Safety
    /// Nobody else touches this row.
    pub unsafe fn values(&self, t: usize) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { self.values.slice(t * self.cols, self.cols) }
    }

    /// Quantises token t's row.
    ///
    /// # Safety
    /// Nobody else touches this row.
    pub unsafe fn quantize(&self, set: KernelSet, t: usize) {
        let cols = self.cols;
        // SAFETY: the caller's promise.
        unsafe {
            let values = self.values.slice(t * cols, cols);
            if let Some(to) = &self.by32 {
                let (d, sums) =
                    (to.d.slice(t * cols / 32, cols / 32), to.sums.slice(t * cols / 32, cols / 32));
                quantize_32(set, values, to.q.slice(t * cols, cols), d, sums);
                derive(sums, to.taken.slice(t * cols / 32, cols / 32), &mut []);
            }
            if let Some(to) = &self.by256 {
                let (d, sums) =
                    (to.d.slice(t * cols / 256, cols / 256), to.sums.slice(t * cols / 16, cols / 16));
                quantize_256(set, values, to.q.slice(t * cols, cols), d, sums);
                let pairs = to.pairs.slice(t * cols / 64, cols / 64);
                derive(sums, to.taken.slice(t * cols / 16, cols / 16), pairs);
            }
        }
    }
}

/// Quantises one row in blocks of `B`, `S` values to a sum: d = max|x| / 127, q = round-half-even(x / d).
#[inline(always)]
pub fn quantize_row<const B: usize, const S: usize>(
    x: &[f32],
    q: &mut [i8],
    d: &mut [f32],
    sums: &mut [i16],
) {
    for (block, values) in x.as_chunks::<B>().0.iter().enumerate() {
        let mut lanes = [0f32; 16];
        for part in values.as_chunks::<16>().0 {
            for lane in 0..16 {
                let a = part[lane].abs();
                lanes[lane] = if a > lanes[lane] { a } else { lanes[lane] };
            }
        }
        let largest = lanes.iter().fold(0f32, |a, &b| if b > a { b } else { a });
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        d[block] = largest / 127.0;
        let out = &mut q[block * B..(block + 1) * B];
        for i in 0..B {
            // Adding and taking away 1.5 * 2^23 rounds half to even, in any instruction set.
            let rounded = (values[i] * inverse + 12_582_912.0) - 12_582_912.0;
            out[i] = rounded as i32 as i8;
        }
        for (s, part) in out.as_chunks::<S>().0.iter().enumerate() {
            sums[block * (B / S) + s] = part.iter().map(|&v| i16::from(v)).sum();
        }
    }
}
