//! Matrix times activations, for every weight type, in every instruction set.
//!
//! `scalar` is the reference and states the order of summation; all sets give the same bits. Small batches go row by
//! row straight from the mapped file (decode is bandwidth): `rows`. Larger ones unpack a strip of sixteen rows to int8
//! once and use it for every token: `strip` and `avx512`. A set without a kernel for a type takes the reference,
//! compiled for its vectors. Who calls which chunk on which thread is for the caller.
#![allow(unsafe_code)]

pub mod act;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
pub mod avx512_attention;
#[cfg(target_arch = "x86_64")]
mod rows;
pub mod scalar;
mod strip;

use super::pool::Shards;
use super::quant::QuantType;
use act::{ActivationRow, Activations, Form, quantize_row};
use std::cell::RefCell;

/// Batches of at least this many tokens are worth unpacking a strip of weights for.
const STRIP_FROM: usize = 6;
/// Rows of a strip: the int32 lanes of one 512-bit register.
pub const STRIP: usize = 16;

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

dispatch! {
    /// Fills the quantised forms of one row from its values. `row`: which of `act`'s rows these buffers are.
    pub fn quantize_256(x: &[f32], q: &mut [i8], d: &mut [f32], sums: &mut [i16]) {
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
    strip: strip::Strip,
    #[cfg(target_arch = "x86_64")]
    parts: rows::Parts,
}

/// Where a product goes: token t's row r at `(slot + t) * stride + r`.
pub struct Output<'a, 'b> {
    pub shards: &'a Shards<'b, f32>,
    pub slot: usize,
    pub stride: usize,
}

impl Output<'_, '_> {
    /// # Safety
    /// Nobody else touches these elements.
    unsafe fn put(&self, t: usize, row: usize, values: &[f32]) {
        // SAFETY: the caller's promise.
        unsafe { self.shards.slice((self.slot + t) * self.stride + row, values.len()) }
            .copy_from_slice(values);
    }
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
        if set == KernelSet::Avx512Vnni && n >= STRIP_FROM {
            let mut row = first;
            while row < last {
                let rows = STRIP.min(last - row);
                scratch.strip.unpack(matrix, row, rows);
                // SAFETY: the set is only chosen where the machine has it; elements as promised.
                unsafe { avx512::strip_matmul(&scratch.strip, row..row + rows, act, tokens, out) };
                row += rows;
            }
            return;
        }
        #[cfg(target_arch = "x86_64")]
        if rows::has_kernel(set, matrix.kind) {
            for r in (first..last).step_by(rows::ROWS) {
                let some = r..last.min(r + rows::ROWS);
                for t in 0..n {
                    let x = act.row(token(t), matrix.kind);
                    // SAFETY: the set is only chosen where the machine has it; it has the kernel; elements as promised.
                    unsafe {
                        let sums = rows::dot_rows(set, matrix, some.clone(), x, &mut scratch.parts);
                        out.put(t, r, &sums[..some.len()]);
                    }
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
