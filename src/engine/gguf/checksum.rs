//! Tells one model file from another without reading gigabytes: the header, and a sample of the bytes of every tensor.
//! Against a mistaken file, not against forgery.

use super::Gguf;
use sha2::{Digest, Sha256};

/// Bytes that are looked at in each of three places of a tensor.
const SAMPLE: usize = 256;

impl Gguf {
    /// 128 bits of all that is looked at: the size, the first shard's header, names, shapes and samples of the tensors.
    pub fn checksum(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.file_bytes().to_le_bytes());
        if let Some(first) = self.shards.first() {
            let own = self.tensors.iter().filter(|tensor| tensor.shard == 0);
            let header = own.map(|tensor| tensor.range.start).min().unwrap_or(first.len());
            hash.update(first.get(..header).unwrap_or_default());
        }
        self.sample(&mut hash);
        hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Names, shapes and types of the tensors, and a sample of each.
    pub fn sample(&self, hash: &mut Sha256) {
        for tensor in self.tensors() {
            let data = self.data(tensor);
            hash.update(format!("{} {:?} {}", tensor.name, tensor.dims, tensor.kind.name()));
            for third in 0..3 {
                let at = data.len().saturating_sub(SAMPLE) / 2 * third;
                hash.update(&data[at..(at + SAMPLE).min(data.len())]);
            }
        }
    }
}
