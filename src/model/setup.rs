//! How a local model is run, as a log keeps it: all that decides which tokens come, and what does not (kernels, threads)
//! but would be looked at first if they came out differently. And what two of them differ in, in words.

use crate::engine::sampler::SamplingParams;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelSetup {
    /// The path of the model's file.
    pub file: String,
    pub bytes: u64,
    /// Of the file's header and a sample of every tensor.
    pub checksum: String,
    /// Names the vocabulary.
    pub vocabulary: String,
    pub backend: String,
    /// None where the backend has no choice of them.
    pub kernels: Option<String>,
    pub threads: usize,
    pub kv: String,
    pub format: String,
    pub context: usize,
    /// Calls are held to their grammar.
    pub masks: bool,
    /// The model's own; a session may set another seed and temperature.
    pub sampling: SamplingParams,
}

impl ModelSetup {
    /// `NAME: A was recorded, and here it is B`, a line for each difference.
    pub fn differences(&self, here: &Self) -> Vec<String> {
        let (a, b) = (&self.sampling, &here.sampling);
        let all = [
            ("model file", self.file.clone(), here.file.clone()),
            ("checksum of the model file", self.checksum.clone(), here.checksum.clone()),
            ("vocabulary", self.vocabulary.clone(), here.vocabulary.clone()),
            ("backend", self.backend.clone(), here.backend.clone()),
            ("kernels", kernels(self), kernels(here)),
            ("threads", self.threads.to_string(), here.threads.to_string()),
            ("kv", self.kv.clone(), here.kv.clone()),
            ("chat format", self.format.clone(), here.format.clone()),
            ("context", self.context.to_string(), here.context.to_string()),
            ("masks", self.masks.to_string(), here.masks.to_string()),
            ("the model's temperature", a.temperature.to_string(), b.temperature.to_string()),
            ("top_k", a.top_k.to_string(), b.top_k.to_string()),
            ("top_p", a.top_p.to_string(), b.top_p.to_string()),
            ("min_p", a.min_p.to_string(), b.min_p.to_string()),
            ("repetition penalty", a.repetition_penalty.to_string(), b.repetition_penalty.to_string()),
        ];
        all.into_iter().filter_map(|(name, recorded, here)| difference(name, &recorded, &here)).collect()
    }
}

fn kernels(setup: &ModelSetup) -> String {
    setup.kernels.clone().unwrap_or_else(|| "the backend's own".into())
}

/// None where there is none.
pub fn difference(name: &str, recorded: &str, here: &str) -> Option<String> {
    (recorded != here).then(|| format!("{name}: {recorded} was recorded, and here it is {here}"))
}
