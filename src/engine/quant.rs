//! Quantised block formats of GGUF and how each unpacks to integers. One shape serves every type:
//! a block is `value[i] = d * scale[i / 16] * q[i] - dmin * min[i / 16]`, with small integers `q`, `scale`, `min`.
//! This is the reference that the fast kernels are held against, and the unpacker of those that work on whole integers;
//! the kernels themselves are elsewhere. Each type folds into the shape without rounding: what a format writes as a half
//! or an eighth becomes a whole number here, and `d` takes the power of two.
//!
//! `wide32`: blocks of 32 (Q8_0 to Q5_1); `k`: the K-quants; `iq`: IQ types, IQ4_NL and MXFP4; `tables`: their lattices.
// The position of a bit in a block depends on the number of the value, so loops over numbers read best here.
#![allow(clippy::needless_range_loop)]

mod iq;
mod k;
mod tables;
mod wide32;

use half::{bf16, f16};
pub(in crate::engine) use tables::{E2M1_DOUBLED, IQ4};

/// The tensor types of published files of the models this engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)]
pub enum QuantType {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
    IQ3_S,
    IQ3_XXS,
    IQ2_S,
    IQ2_XS,
    IQ2_XXS,
    IQ1_S,
    IQ1_M,
    MXFP4,
}

/// A block of 256 (K- and IQ-types) or 32 values as integers:
/// `value[i] = d * scale[i / 16] * q[i] - dmin * min[i / 16]`. 32-wide types use the first 32 `q` and two scales of 1.
#[derive(Clone)]
pub struct Unpacked {
    pub q: [i8; 256],
    /// One per 16 values, -128..=127 after folding.
    pub scale: [i16; 16],
    /// One per 16 values; zero where the type has no minimum.
    pub min: [i16; 16],
    pub d: f32,
    pub dmin: f32,
}

impl Default for Unpacked {
    fn default() -> Self {
        Self { q: [0; 256], scale: [1; 16], min: [0; 16], d: 0.0, dmin: 0.0 }
    }
}

impl Unpacked {
    /// The first `out.len()` values of the block as floats.
    pub fn write(&self, out: &mut [f32]) {
        for (group, values) in out.chunks_mut(16).enumerate().take(16) {
            let scale = self.d * f32::from(self.scale[group]);
            let min = self.dmin * f32::from(self.min[group]);
            for (value, q) in values.iter_mut().zip(&self.q[group * 16..]) {
                *value = scale * f32::from(*q) - min;
            }
        }
    }
}

impl QuantType {
    /// Every type, in the order of the declaration.
    pub const ALL: [Self; 23] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::IQ4_NL,
        Self::IQ4_XS,
        Self::IQ3_S,
        Self::IQ3_XXS,
        Self::IQ2_S,
        Self::IQ2_XS,
        Self::IQ2_XXS,
        Self::IQ1_S,
        Self::IQ1_M,
        Self::MXFP4,
    ];

    /// The number ggml gives the type.
    pub fn ggml_id(self) -> u32 {
        self.layout().0
    }
    pub fn from_ggml(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.ggml_id() == id)
    }
    pub fn name(self) -> &'static str {
        self.layout().1
    }
    /// Values per block: 1 for floats, 32 or 256.
    pub fn block_len(self) -> usize {
        self.layout().2
    }
    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        self.layout().3
    }
    /// ggml's number, name, values per block, bytes per block.
    const fn layout(self) -> (u32, &'static str, usize, usize) {
        match self {
            Self::F32 => (0, "F32", 1, 4),
            Self::F16 => (1, "F16", 1, 2),
            Self::BF16 => (30, "BF16", 1, 2),
            Self::Q8_0 => (8, "Q8_0", 32, 34),
            Self::Q4_0 => (2, "Q4_0", 32, 18),
            Self::Q4_1 => (3, "Q4_1", 32, 20),
            Self::Q5_0 => (6, "Q5_0", 32, 22),
            Self::Q5_1 => (7, "Q5_1", 32, 24),
            Self::Q2_K => (10, "Q2_K", 256, 84),
            Self::Q3_K => (11, "Q3_K", 256, 110),
            Self::Q4_K => (12, "Q4_K", 256, 144),
            Self::Q5_K => (13, "Q5_K", 256, 176),
            Self::Q6_K => (14, "Q6_K", 256, 210),
            Self::IQ4_NL => (20, "IQ4_NL", 32, 18),
            Self::IQ4_XS => (23, "IQ4_XS", 256, 136),
            Self::IQ3_S => (21, "IQ3_S", 256, 110),
            Self::IQ3_XXS => (18, "IQ3_XXS", 256, 98),
            Self::IQ2_S => (22, "IQ2_S", 256, 82),
            Self::IQ2_XS => (17, "IQ2_XS", 256, 74),
            Self::IQ2_XXS => (16, "IQ2_XXS", 256, 66),
            Self::IQ1_S => (19, "IQ1_S", 256, 50),
            Self::IQ1_M => (29, "IQ1_M", 256, 56),
            Self::MXFP4 => (39, "MXFP4", 32, 17),
        }
    }
    /// Whether blocks have a minimum beside the scale (`dmin` counts).
    pub fn has_min(self) -> bool {
        matches!(self, Self::Q4_1 | Self::Q5_1 | Self::Q2_K | Self::Q4_K | Self::Q5_K)
    }
    /// Unpacks one block of a quantised type (not F32/F16/BF16). `block.len() == block_bytes()`.
    pub fn unpack(self, block: &[u8], out: &mut Unpacked) {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => debug_assert!(false, "floats have no integer form"),
            Self::Q8_0 => sized(block, out, wide32::q8_0),
            Self::Q4_0 => sized(block, out, wide32::q4_0),
            Self::Q4_1 => sized(block, out, wide32::q4_1),
            Self::Q5_0 => sized(block, out, wide32::q5_0),
            Self::Q5_1 => sized(block, out, wide32::q5_1),
            Self::Q2_K => sized(block, out, k::q2_k),
            Self::Q3_K => sized(block, out, k::q3_k),
            Self::Q4_K => sized(block, out, k::q4_k),
            Self::Q5_K => sized(block, out, k::q5_k),
            Self::Q6_K => sized(block, out, k::q6_k),
            Self::IQ4_NL => sized(block, out, iq::iq4_nl),
            Self::IQ4_XS => sized(block, out, iq::iq4_xs),
            Self::IQ3_S => sized(block, out, iq::iq3_s),
            Self::IQ3_XXS => sized(block, out, iq::iq3_xxs),
            Self::IQ2_S => sized(block, out, iq::iq2_s),
            Self::IQ2_XS => sized(block, out, iq::iq2_xs),
            Self::IQ2_XXS => sized(block, out, iq::iq2_xxs),
            Self::IQ1_S => sized(block, out, iq::iq1_s),
            Self::IQ1_M => sized(block, out, iq::iq1_m),
            Self::MXFP4 => sized(block, out, iq::mxfp4),
        }
    }
    /// Dequantises a row: `out.len()` values from `row`, any type. `out` may end inside a block.
    pub fn dequantize(self, row: &[u8], out: &mut [f32]) {
        debug_assert!(row.len() >= out.len().div_ceil(self.block_len()) * self.block_bytes());
        match self {
            Self::F32 => each(row, out, f32::from_le_bytes),
            Self::F16 => each(row, out, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Self::BF16 => each(row, out, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            _ => {
                let mut unpacked = Unpacked::default();
                let blocks = row.chunks_exact(self.block_bytes());
                for (block, values) in blocks.zip(out.chunks_mut(self.block_len())) {
                    self.unpack(block, &mut unpacked);
                    unpacked.write(values);
                }
            }
        }
    }
}

/// Hands `block` to the unpacker of its type as an array, so that the compiler knows every index to be inside.
#[inline(always)]
fn sized<const N: usize>(block: &[u8], out: &mut Unpacked, unpack: impl Fn(&[u8; N], &mut Unpacked)) {
    debug_assert_eq!(block.len(), N);
    if let Some(block) = block.first_chunk() {
        unpack(block, out);
    }
}

fn each<const N: usize>(row: &[u8], out: &mut [f32], decode: impl Fn([u8; N]) -> f32) {
    for (value, bytes) in out.iter_mut().zip(row.as_chunks::<N>().0) {
        *value = decode(*bytes);
    }
}

/// The half-precision float at byte `at` of a block.
#[inline(always)]
fn half_at<const N: usize>(block: &[u8; N], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}
