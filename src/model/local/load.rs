//! From a file to a model that can be asked: what of the file must be known, how often it is read, and how several models
//! share one engine.

use super::{DEFAULT_CONTEXT, DecodeStats, Decoding, FARTHEST, LocalModel, LocalOptions, broken};
use crate::chat::{ChatFormat, SpecialTokens, Template};
use crate::engine::backend::{Backend, BackendKind};
use crate::engine::gguf::Gguf;
use crate::engine::memory::too_little_for;
use crate::engine::recall::Snapshots;
use crate::engine::shared::SharedEngine;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::{EngineOptions, TokenId};
use crate::model::revise::Shared;
use crate::model::{ModelError, ModelInfo};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn open(path: &Path, options: &LocalOptions) -> Result<Box<dyn Backend>, ModelError> {
    let context = options.context.unwrap_or(0);
    if context > FARTHEST {
        return Err(ModelError::Unavailable {
            message: format!("a context of {context} tokens is more than any model is known to use"),
            hint: format!("--ctx takes up to {FARTHEST}: the model's own context, and beyond it YaRN"),
        });
    }
    options.backend.open(path, EngineOptions { context, ..options.engine }).map_err(broken)
}

impl LocalModel {
    /// Opens the file and reads it once, telling `progress` (done, total) bytes.
    pub fn load(
        path: &Path,
        options: &LocalOptions,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ModelError> {
        let engine = open(path, options)?;
        Self::with(engine, path, options, &mut |gguf| read_once(gguf, cancel, progress))
    }

    /// Several models that share one engine, and with it what they have in common: each has a context of its own, and
    /// what they write at the same time is decoded in one batch.
    pub fn load_several(
        path: &Path,
        options: &LocalOptions,
        n: usize,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<Self>, ModelError> {
        let engines = SharedEngine::several(open(path, options)?, path, n).map_err(broken)?;
        // What was read once, and is kept on disk, is so for all.
        let others = LocalOptions { snapshots: None, ..options.clone() };
        let searches = Arc::new(Shared::default());
        let one = |(i, engine): (usize, SharedEngine)| {
            let mut read = |gguf: &Gguf| read_once(gguf, cancel, progress);
            let mut model = match i {
                0 => Self::with(Box::new(engine), path, options, &mut read)?,
                _ => Self::with(Box::new(engine), path, &others, &mut |_| {})?,
            };
            model.searches = Some(searches.clone());
            Ok(model)
        };
        engines.into_iter().enumerate().map(one).collect()
    }

    fn with(
        mut engine: Box<dyn Backend>,
        path: &Path,
        options: &LocalOptions,
        read: &mut dyn FnMut(&Gguf),
    ) -> Result<Self, ModelError> {
        let tokenizer = Tokenizer::from_gguf(engine.gguf()).map_err(broken)?;
        let gguf = engine.gguf();
        let stem = path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
        let name = gguf.str("general.name").unwrap_or(&stem);
        let known = options.format.or_else(|| ChatFormat::detect(gguf.str("tokenizer.chat_template"), name));
        let (format, template) = match known {
            Some(format) => (format, None),
            None => {
                let template = own_template(gguf, &tokenizer).map_err(|why| ModelError::Unavailable {
                    message: format!("{}: its chat template cannot be used: {why}", path.display()),
                    hint: "use a Qwen2, Qwen2.5 or Qwen3 instruct model (qwright models list)".into(),
                })?;
                (template.format(), Some(template))
            }
        };
        let billions = gguf.tensors().iter().map(|t| t.len() as f64).sum::<f64>() / 1e9;
        let own = engine.config().context;
        let context = options.context.unwrap_or(own.min(DEFAULT_CONTEXT));
        let info = ModelInfo { name: stem, context, format, billions };
        // A backend of its own memory has read the file.
        if options.backend == BackendKind::Native {
            read(engine.gguf());
        }
        let sequence = engine.sequence(context, options.kv);
        let mut notes = Vec::new();
        if let Some((folder, budget)) = &options.snapshots {
            // A session without snapshots is slower and no worse.
            if let Err(error) = engine.keep_snapshots(options.kv, Snapshots { folder, budget: *budget }) {
                notes.push(format!("nothing is kept for later sessions: {error}"));
            }
        }
        let allowed = tokenizer.base_mask(engine.config().vocab);
        let vocabulary = tokenizer.fingerprint();
        Ok(Self {
            engine,
            batch: options.engine.batch,
            tokenizer,
            info,
            template,
            sampling: options.sampling.clone(),
            allowed,
            sequence,
            kv: options.kv,
            history: Vec::new(),
            held: 0,
            search: None,
            searches: None,
            tools: Vec::new(),
            vocabulary,
            notes,
            // What another backend computes may depend on the batch.
            decoding: Decoding {
                drafts: options.decoding.drafts && options.backend == BackendKind::Native,
                ..options.decoding
            },
            grammar: None,
            grammar_of: Default::default(),
            trie: None,
            record: Default::default(),
            stats: DecodeStats::default(),
        })
    }
}

/// The template that the file brings along.
fn own_template(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Template, String> {
    let source =
        gguf.str("tokenizer.chat_template").ok_or("the file has none, and its name says no format")?;
    let text = |id: TokenId| String::from_utf8_lossy(tokenizer.bytes(id)).into_owned();
    let named = |key: &str| {
        let id = gguf.u64(key).and_then(|id| TokenId::try_from(id).ok());
        id.map_or_else(String::new, text)
    };
    let added = (0..tokenizer.vocab_size() as TokenId).filter(|id| tokenizer.is_added(*id)).map(text);
    let tokens = SpecialTokens {
        begin: named("tokenizer.ggml.bos_token_id"),
        end: named("tokenizer.ggml.eos_token_id"),
        added: added.collect(),
    };
    Template::new(source, tokens)
}

/// Reads the file front to back, so that the first answer does not wait for the disk page by page. Files larger than
/// memory would only push themselves out again; they are read as they are needed. What was copied was read by that.
pub fn read_once(gguf: &Gguf, cancel: &AtomicBool, progress: &mut dyn FnMut(u64, u64)) {
    const STEP: usize = 64 << 20;
    let total: u64 = gguf.tensors().iter().map(|t| t.range.len() as u64).sum();
    if !gguf.is_mapped() || too_little_for(total).is_some() {
        return;
    }
    let (mut done, mut sum) = (0u64, 0u64);
    for tensor in gguf.tensors() {
        for part in gguf.data(tensor).chunks(STEP) {
            if cancel.load(Ordering::Relaxed) {
                return;
            }
            sum += part.iter().step_by(4096).map(|&byte| u64::from(byte)).sum::<u64>();
            done += part.len() as u64;
            progress(done, total);
        }
    }
    std::hint::black_box(sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::engine::memory::Load;

    #[test]
    fn a_mapped_file_is_read_once_and_a_copied_one_was_read_already() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/oracle/tiny-qwen2-f32.gguf");
        for (load, reads) in [(Load::Map, true), (Load::Copy, false)] {
            let engine = Engine::open(&path, EngineOptions { load, ..EngineOptions::default() }).unwrap();
            let mut last = None;
            read_once(engine.gguf(), &AtomicBool::new(false), &mut |done, total| last = Some((done, total)));
            assert_eq!(last.is_some(), reads, "{load:?}");
            assert!(last.is_none_or(|(done, total)| done == total), "{load:?}: {last:?}");
        }
    }
}
