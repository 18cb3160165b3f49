//! Matrix times activations, for every weight type, in every instruction set.
//!
//! `scalar` is the reference and states the order of summation; all sets give the same bits. Small batches go row by
//! row straight from the mapped file (decode is bandwidth): `rows`. Larger ones unpack a panel of 32 rows to bytes once
//! and use it for every token: `panel` and `unpack`, multiplied by `avx512_panel` or `avx2_panel`; floats are widened and
//! go by tiles in `float_panel`. A set without a kernel for a type takes the reference, compiled for its vectors. Who
//! calls which chunk on which thread is for the caller.
#![allow(unsafe_code)]

pub mod act;
#[cfg(target_arch = "x86_64")]
pub mod avx2_attention;
#[cfg(target_arch = "x86_64")]
pub mod avx2_int8;
#[cfg(target_arch = "x86_64")]
mod avx2_panel;
#[cfg(target_arch = "x86_64")]
pub mod avx512_attention;
#[cfg(target_arch = "x86_64")]
pub mod avx512_int8;
#[cfg(target_arch = "x86_64")]
mod avx512_panel;
#[cfg(target_arch = "x86_64")]
mod float_panel;
mod panel;
#[cfg(target_arch = "x86_64")]
mod rows;
pub mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod unpack;

use super::ops;
use super::pool::Shards;
use super::quant::QuantType;
use act::{ActivationRow, Activations, Form, quantize_row};
use std::cell::RefCell;

/// No set goes row by row for more tokens than these.
const MOST_BY_ROWS: usize = 19;

/// Batches of at least this many tokens are worth unpacking a panel of weights for.
fn panel_from(set: KernelSet, kind: QuantType) -> usize {
    match set {
        #[cfg(target_arch = "x86_64")]
        KernelSet::Avx512Vnni if avx512_panel::unpacks_at_once(kind) => 3,
        KernelSet::Avx512Vnni => 8,
        _ => MOST_BY_ROWS + 1,
    }
}

/// An instruction set the kernels were compiled for, chosen at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelSet {
    Scalar,
    Avx2,
    Avx512Vnni,
}

impl KernelSet {
    pub const ALL: [Self; 3] = [Self::Avx512Vnni, Self::Avx2, Self::Scalar];

    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512Vnni => "avx512-vnni",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name)
    }

    /// Whether this machine can run the set.
    pub fn available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni")
                    && is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The fastest set of this machine.
    pub fn best() -> Self {
        Self::ALL.into_iter().find(|set| set.available()).unwrap_or(Self::Scalar)
    }
}

/// Compiles `body` (an `#[inline(always)]` expression over the arguments) once per instruction set and picks one.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        $vis fn $name(set: $crate::engine::kernels::KernelSet, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,f16c,bmi2")]
            fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,f16c,bmi2")]
            fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
            match set {
                $crate::engine::kernels::KernelSet::Scalar => body($($arg),*),
                // SAFETY: an engine is given a set only after `available` said this machine has its features.
                #[cfg(target_arch = "x86_64")]
                $crate::engine::kernels::KernelSet::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::engine::kernels::KernelSet::Avx512Vnni => unsafe { avx512($($arg),*) },
                #[cfg(not(target_arch = "x86_64"))]
                _ => body($($arg),*),
            }
        }
    };
}
pub(crate) use dispatch;

/// Quantises one row in blocks of 256, a sum to sixteen values.
pub fn quantize_256(set: KernelSet, x: &[f32], q: &mut [i8], d: &mut [f32], sums: &mut [i16]) {
    #[cfg(target_arch = "x86_64")]
    if set == KernelSet::Avx512Vnni {
        // SAFETY: the set is only chosen where the machine has it.
        return unsafe { avx512_panel::quantize_256(x, q, d, sums) };
    }
    quantize_256_plain(set, x, q, d, sums);
}
dispatch! {
    fn quantize_256_plain(x: &[f32], q: &mut [i8], d: &mut [f32], sums: &mut [i16]) {
        quantize_row::<256, 16>(x, q, d, sums);
    }
}
dispatch! {
    pub fn quantize_32(x: &[f32], q: &mut [i8], d: &mut [f32], sums: &mut [i16]) {
        quantize_row::<32, 32>(x, q, d, sums);
    }
}
dispatch! {
    fn dots_float(w: &[f32], x: &[f32]) -> f32 {
        scalar::dot_f32(w, x)
    }
}
dispatch! {
    fn dot_row(kind: QuantType, row: &[u8], act: ActivationRow<'_>) -> f32 {
        scalar::dot_quantized(kind, row, act)
    }
}

/// A weight matrix in the file's own layout: `rows` rows of `cols` values, `data` row after row.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub kind: QuantType,
    pub rows: usize,
    pub cols: usize,
    pub data: &'a [u8],
}

impl<'a> Matrix<'a> {
    pub fn row_bytes(&self) -> usize {
        self.cols / self.kind.block_len() * self.kind.block_bytes()
    }
    pub fn row(&self, row: usize) -> &'a [u8] {
        &self.data[row * self.row_bytes()..(row + 1) * self.row_bytes()]
    }
    /// Matrix `index` of a stack of `count` equal ones (experts).
    pub fn part(&self, index: usize, count: usize) -> Self {
        let rows = self.rows / count;
        let bytes = self.row_bytes() * rows;
        Self { rows, data: &self.data[index * bytes..(index + 1) * bytes], ..*self }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

#[derive(Default)]
struct Scratch {
    floats: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    panel: panel::Panel,
    #[cfg(target_arch = "x86_64")]
    avx2_panel: avx2_panel::Panel,
    #[cfg(target_arch = "x86_64")]
    avx2: avx2_panel::Buffers,
    /// What a tile makes of its activations.
    #[cfg(target_arch = "x86_64")]
    prepared: panel::Aligned,
    #[cfg(target_arch = "x86_64")]
    parts: rows::Parts,
}

thread_local! {
    /// [2][tokens][rows]: gate and up where they are not made in one pass.
    static HALVES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Where a product goes: token t's row r at `(slot + t) * stride + r`, in place of what is there or added to it.
pub struct Output<'a, 'b> {
    pub shards: &'a Shards<'b, f32>,
    pub slot: usize,
    pub stride: usize,
    pub add: bool,
}

impl Output<'_, '_> {
    /// Asks for the memory of these elements, to be written.
    #[cfg(target_arch = "x86_64")]
    fn ahead(&self, t: usize, row: usize, n: usize) {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a prefetch of any address is allowed; the slice is inside the buffer and not looked at.
        unsafe {
            let at = self.shards.slice((self.slot + t) * self.stride + row, n).as_ptr();
            for line in (0..n).step_by(16) {
                _mm_prefetch::<_MM_HINT_ET0>(at.wrapping_add(line).cast());
            }
        }
    }

    /// # Safety
    /// Nobody else touches these elements.
    #[allow(clippy::mut_from_ref)]
    unsafe fn at(&self, t: usize, row: usize, n: usize) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { self.shards.slice((self.slot + t) * self.stride + row, n) }
    }

    /// # Safety
    /// Nobody else touches these elements.
    unsafe fn put(&self, t: usize, row: usize, values: &[f32]) {
        // SAFETY: the caller's promise.
        let out = unsafe { self.at(t, row, values.len()) };
        if self.add {
            out.iter_mut().zip(values).for_each(|(out, value)| *out += value);
        } else {
            out.copy_from_slice(values);
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Scratch {
    /// Unpacks some rows of a quantised type and gives `sink` their products with every token.
    ///
    /// # Safety
    /// The machine has the set, and it is AVX2 or AVX-512.
    unsafe fn panel_times(
        &mut self,
        set: KernelSet,
        kind: QuantType,
        rows: &panel::Rows<'_>,
        act: &Activations,
        tokens: &[usize],
        sink: &mut impl avx512_panel::Sink,
    ) {
        // SAFETY: as promised; the rows are as long as those of `act`.
        unsafe {
            if set == KernelSet::Avx512Vnni {
                avx512_panel::unpack(&mut self.panel, kind, act.cols, rows);
                avx512_panel::matmul(&self.panel, act, tokens, sink);
            } else {
                self.avx2_panel.unpack(kind, act.cols, rows);
                avx2_panel::matmul(&self.avx2_panel, act, tokens, &mut self.avx2, sink);
            }
        }
    }
}

/// Products of a panel's first `n` rows, which are the matrix's from `row`.
#[cfg(target_arch = "x86_64")]
struct Plain<'a, 'b, 'c> {
    out: &'a Output<'b, 'c>,
    row: usize,
    n: usize,
}

#[cfg(target_arch = "x86_64")]
impl avx512_panel::Sink for Plain<'_, '_, '_> {
    #[inline]
    fn ahead(&self, t: usize) {
        self.out.ahead(t, self.row, self.n);
    }
    #[inline]
    fn put(&mut self, t: usize, sums: &avx512_panel::Sums) {
        // SAFETY: whoever made this was promised the elements.
        unsafe { self.out.put(t, self.row, &sums[..self.n]) };
    }
}

/// Half of the panel is of the gate, half of up: what goes out is one of both.
#[cfg(target_arch = "x86_64")]
struct SiluMul<'a, 'b, 'c> {
    set: KernelSet,
    out: &'a Output<'b, 'c>,
    row: usize,
    n: usize,
}

#[cfg(target_arch = "x86_64")]
impl avx512_panel::Sink for SiluMul<'_, '_, '_> {
    #[inline]
    fn ahead(&self, t: usize) {
        self.out.ahead(t, self.row, self.n);
    }
    #[inline]
    fn put(&mut self, t: usize, sums: &avx512_panel::Sums) {
        let (gate, up) = sums.split_at(panel::ROWS / 2);
        // SAFETY: whoever made this was promised the elements.
        let out = unsafe { self.out.at(t, self.row, self.n) };
        ops::silu_mul(self.set, &gate[..self.n], &up[..self.n], out);
    }
}

/// `out[t][r] = silu(gate[r] . act[tokens[t]]) * (up[r] . act[tokens[t]])` for the rows r of `rows`.
///
/// # Safety
/// While it runs nobody else touches these elements of `out`.
pub unsafe fn gate_up_rows(
    set: KernelSet,
    gate: &Matrix<'_>,
    up: &Matrix<'_>,
    rows: std::ops::Range<usize>,
    act: &Activations,
    tokens: &[usize],
    out: &Output<'_, '_>,
) {
    #[cfg(target_arch = "x86_64")]
    if set != KernelSet::Scalar
        && tokens.len() >= panel_from(set, gate.kind)
        && gate.kind == up.kind
        && Form::of(gate.kind) != Form::Float
    {
        const HALF: usize = panel::ROWS / 2;
        SCRATCH.with_borrow_mut(|scratch| {
            for row in rows.clone().step_by(HALF) {
                let n = HALF.min(rows.end - row);
                let of: panel::Rows<'_> = std::array::from_fn(|i| {
                    let matrix = if i < HALF { gate } else { up };
                    if i % HALF < n { matrix.row(row + i % HALF) } else { &[] }
                });
                let mut sink = SiluMul { set, out, row, n };
                // SAFETY: the set is only chosen where the machine has it; elements as promised.
                unsafe { scratch.panel_times(set, gate.kind, &of, act, tokens, &mut sink) };
            }
        });
        return;
    }
    let (first, n) = (rows.start, rows.len());
    HALVES.with_borrow_mut(|halves| {
        halves.resize(2 * tokens.len() * n, 0.0);
        let (gates, ups) = halves.split_at_mut(tokens.len() * n);
        for (matrix, half) in [(gate, &mut *gates), (up, &mut *ups)] {
            // Rows are numbered from the first of this chunk.
            let matrix = Matrix { rows: n, data: &matrix.data[first * matrix.row_bytes()..], ..*matrix };
            let out = Output { shards: &Shards::new(half), slot: 0, stride: n, add: false };
            // SAFETY: the buffer is this thread's own.
            unsafe { matmul_rows(set, &matrix, 0..n, act, tokens, &out) };
        }
        for (t, (gate, up)) in gates.chunks_exact(n).zip(ups.chunks_exact(n)).enumerate() {
            // SAFETY: elements as promised.
            ops::silu_mul(set, gate, up, unsafe { out.at(t, first, n) });
        }
    });
}

/// `out[t][r] = matrix[r] . act[tokens[t]]` for the rows r of `rows`.
///
/// # Safety
/// While it runs nobody else touches these elements of `out`.
pub unsafe fn matmul_rows(
    set: KernelSet,
    matrix: &Matrix<'_>,
    rows: std::ops::Range<usize>,
    act: &Activations,
    tokens: &[usize],
    out: &Output<'_, '_>,
) {
    let (first, last, n) = (rows.start, rows.end, tokens.len());
    let token = |t: usize| tokens[t];
    // SAFETY: the caller promises that these elements are ours.
    let put = |t: usize, r: usize, value: f32| unsafe { out.put(t, r, &[value]) };
    SCRATCH.with_borrow_mut(|scratch| {
        #[cfg(target_arch = "x86_64")]
        if Form::of(matrix.kind) == Form::Float && set != KernelSet::Scalar {
            if n >= panel_from(set, matrix.kind) {
                // SAFETY: the set is only chosen where the machine has it.
                unsafe { float_panel::matmul(set, matrix, rows, act, tokens, &mut scratch.prepared, put) };
                return;
            }
            for r in first..last {
                for t in 0..n {
                    let x = act.row(token(t), matrix.kind).values;
                    // SAFETY: the set is only chosen where the machine has it.
                    put(t, r, unsafe { rows::dot_float(set, matrix.kind, matrix.row(r), x) });
                }
            }
            return;
        }
        if Form::of(matrix.kind) == Form::Float {
            scratch.floats.resize(matrix.cols, 0.0);
            for r in first..last {
                matrix.kind.dequantize(matrix.row(r), &mut scratch.floats);
                for t in 0..n {
                    put(t, r, dots_float(set, &scratch.floats, act.row(token(t), matrix.kind).values));
                }
            }
            return;
        }
        #[cfg(target_arch = "x86_64")]
        if set != KernelSet::Scalar && n >= panel_from(set, matrix.kind) {
            for row in rows.step_by(panel::ROWS) {
                let n = panel::ROWS.min(last - row);
                let of: panel::Rows<'_> =
                    std::array::from_fn(|i| if i < n { matrix.row(row + i) } else { &[] });
                let mut sink = Plain { out, row, n };
                // SAFETY: the set is only chosen where the machine has it; elements as promised.
                unsafe { scratch.panel_times(set, matrix.kind, &of, act, tokens, &mut sink) };
            }
            return;
        }
        #[cfg(target_arch = "x86_64")]
        if rows::has_kernel(set, matrix.kind) {
            for r in (first..last).step_by(rows::ROWS) {
                let some = r..last.min(r + rows::ROWS);
                let mut done = 0;
                while done < n {
                    let few = &tokens[done..done + rows::at_once(set, n - done)];
                    // SAFETY: the set is only chosen where the machine has it; it has the kernel; elements as promised.
                    unsafe {
                        let sums = rows::dot_rows(set, matrix, some.clone(), act, few, &mut scratch.parts);
                        for (t, sums) in sums.iter().enumerate().take(few.len()) {
                            out.put(done + t, r, &sums[..some.len()]);
                        }
                    }
                    done += few.len();
                }
            }
            return;
        }
        for r in first..last {
            for t in 0..n {
                put(t, r, dot_row(set, matrix.kind, matrix.row(r), act.row(token(t), matrix.kind)));
            }
        }
    });
}
