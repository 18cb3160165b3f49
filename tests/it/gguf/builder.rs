//! Writes small GGUF files, right or wrong: every count, length and offset can be made to lie.

/// A metadata value to write.
#[derive(Clone)]
pub enum Meta {
    U16(u16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(u8),
    Str(&'static str),
    Ints(Vec<i32>),
    Strings(Vec<&'static str>),
    Nested(Vec<Meta>),
    /// Type number and the bytes after it, as they are.
    Raw(u32, Vec<u8>),
}

impl Meta {
    fn kind(&self) -> u32 {
        match self {
            Meta::U16(_) => 2,
            Meta::U32(_) => 4,
            Meta::I32(_) => 5,
            Meta::F32(_) => 6,
            Meta::Bool(_) => 7,
            Meta::Str(_) => 8,
            Meta::Ints(_) | Meta::Strings(_) | Meta::Nested(_) => 9,
            Meta::Raw(kind, _) => *kind,
        }
    }
    fn write(&self, out: &mut Vec<u8>) {
        let mut array = |kind: u32, len: usize| {
            out.extend(kind.to_le_bytes());
            out.extend((len as u64).to_le_bytes());
        };
        match self {
            Meta::U16(v) => out.extend(v.to_le_bytes()),
            Meta::U32(v) => out.extend(v.to_le_bytes()),
            Meta::I32(v) => out.extend(v.to_le_bytes()),
            Meta::F32(v) => out.extend(v.to_le_bytes()),
            Meta::Bool(v) => out.push(*v),
            Meta::Str(v) => string(v, out),
            Meta::Ints(v) => {
                array(5, v.len());
                v.iter().for_each(|v| out.extend(v.to_le_bytes()));
            }
            Meta::Strings(v) => {
                array(8, v.len());
                v.iter().for_each(|v| string(v, out));
            }
            Meta::Nested(v) => {
                array(9, v.len());
                v.iter().for_each(|v| v.write(out));
            }
            Meta::Raw(_, bytes) => out.extend(bytes),
        }
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub dims: Vec<u64>,
    pub kind: u32,
    pub data: Vec<u8>,
    /// What the directory says instead of the truth.
    pub rank: Option<u32>,
    pub offset: Option<u64>,
}

#[derive(Clone)]
pub struct GgufBuilder {
    pub version: u32,
    pub alignment: usize,
    pub metadata: Vec<(String, Meta)>,
    pub tensors: Vec<Tensor>,
    /// What the header says instead of the truth.
    pub key_count: Option<u64>,
    pub tensor_count: Option<u64>,
}

impl GgufBuilder {
    pub fn new() -> Self {
        Self {
            version: 3,
            alignment: 32,
            metadata: Vec::new(),
            tensors: Vec::new(),
            key_count: None,
            tensor_count: None,
        }
    }
    /// A valid file with something of everything.
    pub fn tiny() -> Self {
        Self::new()
            .meta("general.architecture", Meta::Str("qwen3"))
            .meta("general.alignment", Meta::U32(32))
            .meta("qwen3.block_count", Meta::U32(1))
            .meta("qwen3.eps", Meta::F32(1e-6))
            .meta("tokenizer.add_bos", Meta::Bool(0))
            .meta("tokenizer.tokens", Meta::Strings(vec!["a", "bc", ""]))
            .meta("tokenizer.types", Meta::Ints(vec![1, -1]))
            .meta("nested", Meta::Nested(vec![Meta::Ints(vec![3])]))
            .tensor("norm.weight", &[2, 3], 0, &[1; 24])
            .tensor("output.weight", &[32, 2], 8, &[2; 68])
    }
    pub fn meta(mut self, key: &str, value: Meta) -> Self {
        self.metadata.push((key.into(), value));
        self
    }
    pub fn tensor(mut self, name: &str, dims: &[u64], kind: u32, data: &[u8]) -> Self {
        let (name, dims, data) = (name.into(), dims.to_vec(), data.to_vec());
        self.tensors.push(Tensor { name, dims, kind, data, rank: None, offset: None });
        self
    }
    /// Everything before the data.
    pub fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.key_count.unwrap_or(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            string(key, &mut out);
            out.extend(value.kind().to_le_bytes());
            value.write(&mut out);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            string(&tensor.name, &mut out);
            out.extend(tensor.rank.unwrap_or(tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(offset).to_le_bytes());
            offset += tensor.data.len().next_multiple_of(self.alignment) as u64;
        }
        out
    }
    /// The file; it ends with the last byte of the last tensor.
    pub fn build(&self) -> Vec<u8> {
        let mut out = self.header();
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&tensor.data);
        }
        out
    }
}
