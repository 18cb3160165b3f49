//! Quantised block formats of GGUF and how each unpacks to integers. One shape serves every type:
//! a block is `value[i] = d * scale[i / 16] * q[i] - dmin * min[i / 16]`, with small integers `q`, `scale`, `min`.

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

impl QuantType {
    pub fn from_ggml(_id: u32) -> Option<Self> {
        None
    }
    pub fn name(self) -> &'static str {
        ""
    }
    /// Values per block: 1 for floats, 32 or 256.
    pub fn block_len(self) -> usize {
        1
    }
    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        1
    }
    /// Unpacks one block of a quantised type (not F32/F16/BF16). `block.len() == block_bytes()`.
    pub fn unpack(self, _block: &[u8], _out: &mut Unpacked) {}
    /// Dequantises a row: `out.len()` values from `row`, any type.
    pub fn dequantize(self, _row: &[u8], _out: &mut [f32]) {}
}
