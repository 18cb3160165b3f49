//! From settings to a model that is ready: a server's, where an endpoint is set, else which file, which chat format and
//! sampling (the catalogue's where it knows the model), how many threads, what KV type, context and backend; with
//! progress on stderr while the file is read.

use super::memory::Ask;
use super::{Failure, exit};
use crate::chat::ChatFormat;
use crate::chat::escape::escape_line;
use crate::config::{Config, Switch};
use crate::engine::EngineOptions;
use crate::engine::backend::BackendKind;
use crate::engine::gguf::Gguf;
use crate::engine::kernels::KernelSet;
use crate::engine::kv::KvType;
use crate::engine::memory::Load;
use crate::engine::sampler::SamplingParams;
use crate::engine::weights::ModelConfig;
use crate::hub::{self, Located};
use crate::model::endpoint::{EndpointModel, EndpointOptions, Key, Served, served as list};
use crate::model::local::{DEFAULT_CONTEXT, Decoding, LocalModel, LocalOptions, SAMPLING};
use crate::model::{Model, ModelError};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of snapshots when nothing is asked for: some long sessions of a small model, one of a large one.
const SNAPSHOTS: u64 = 8_000_000_000;

pub fn threads(config: &Config) -> usize {
    config.settings.threads.unwrap_or_else(|| EngineOptions::default().threads).max(1)
}

pub fn backend(config: &Config) -> BackendKind {
    config.settings.backend.and_then(|kind| BackendKind::from_name(kind.as_str())).unwrap_or_default()
}

pub fn kv(config: &Config, default: KvType) -> KvType {
    config.settings.kv.and_then(|kind| KvType::from_name(kind.as_str())).unwrap_or(default)
}

pub fn load(config: &Config) -> Load {
    config.settings.load.and_then(|kind| Load::from_name(kind.as_str())).unwrap_or_default()
}

/// What loading will take, said before it is taken; a failure where that cannot be had.
fn announce(
    path: &std::path::Path,
    options: &LocalOptions,
    contexts: usize,
    note: &mut dyn FnMut(&str),
) -> Result<(), Failure> {
    // A file that is no model, or a context it was not made for, is for the loading itself to refuse.
    let opened = Gguf::open(path).and_then(|gguf| Ok((ModelConfig::from_gguf(&gguf)?, gguf)));
    let Ok((model, gguf)) = opened else { return Ok(()) };
    let tokens = options.context.unwrap_or(DEFAULT_CONTEXT.min(model.context));
    let kv = (tokens.saturating_mul(contexts), options.kv);
    note(&Ask::of_file(options.backend, &gguf, &model, options.engine.load, kv).announce()?);
    Ok(())
}

/// Where the key of an endpoint may stand; the first that is set counts.
const KEYS: [&str; 2] = ["QWRIGHT_API_KEY", "OPENAI_API_KEY"];

/// The server that the settings name, if they name one.
fn endpoint(config: &Config) -> Option<EndpointOptions> {
    let url = config.settings.endpoint.as_deref()?;
    // A model that was set where the endpoint was not known yet is one of the own engine's.
    let model = config.settings.model.clone().filter(|_| config.set_with("model", "endpoint"));
    let key = KEYS.iter().find_map(|variable| Some(Key::new(variable, config.env.text(variable)?)));
    Some(EndpointOptions { key, model, context: config.settings.ctx, ..EndpointOptions::new(url) })
}

/// What the endpoint of the settings serves; `None` without one.
pub fn served(config: &Config) -> Option<Result<Vec<Served>, Failure>> {
    let options = endpoint(config)?;
    Some(list(&options, &AtomicBool::new(false)).map_err(failure))
}

pub(super) fn failure(error: ModelError) -> Failure {
    match error {
        ModelError::Unavailable { message, hint } => Failure::new(exit::NO_MODEL, message).hint(hint),
        full @ ModelError::ContextFull { .. } => Failure::new(exit::LIMIT, full.to_string()),
    }
}

/// The model the settings name, loaded, with a bar on stderr.
pub fn local(config: &Config, quiet: bool, cancel: &AtomicBool) -> Result<Box<dyn Model>, Failure> {
    with_bar(quiet, &mut |note, progress| local_with(config, cancel, note, progress))
}

/// Several of it that share one engine (or one server).
pub fn several(
    config: &Config,
    n: usize,
    quiet: bool,
    cancel: &AtomicBool,
) -> Result<Vec<Box<dyn Model>>, Failure> {
    with_bar(quiet, &mut |note, progress| {
        if endpoint(config).is_some() {
            let mut models = vec![local_with(config, cancel, note, progress)?];
            while models.len() < n {
                models.push(local_with(config, cancel, &mut |_| {}, progress)?);
            }
            return Ok(models);
        }
        let located = hub::locate(None, config)?;
        let options = options(config, &located);
        announce(&located.path, &options, n, note)?;
        let loaded = LocalModel::load_several(&located.path, &options, n, cancel, progress);
        let models = unless_interrupted(loaded, cancel)?.into_iter();
        Ok(models.map(|model| Box::new(model) as Box<dyn Model>).collect())
    })
}

/// Who is told what is to be said while a model loads, and who how far it is.
type Note<'n> = &'n mut dyn FnMut(&str);
type Done<'d> = &'d mut dyn FnMut(u64, u64);

fn with_bar<T>(
    quiet: bool,
    load: &mut dyn FnMut(Note<'_>, Done<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let bar = if quiet || !std::io::stderr().is_terminal() {
        indicatif::ProgressBar::hidden()
    } else {
        indicatif::ProgressBar::new(0)
    };
    bar.set_style(
        indicatif::ProgressStyle::with_template("load {bar:30} {bytes}/{total_bytes} {eta}")
            .unwrap_or_else(|_| indicatif::ProgressStyle::default_bar()),
    );
    let mut note = |text: &str| {
        if !quiet {
            // A server's words among it.
            eprintln!("{}", escape_line(text));
        }
    };
    let mut progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let loaded = load(&mut note, &mut progress);
    bar.finish_and_clear();
    loaded
}

/// The model the settings name, loaded; what is to be said, and how far it is, goes to the caller.
pub fn local_with(
    config: &Config,
    cancel: &AtomicBool,
    note: &mut dyn FnMut(&str),
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn Model>, Failure> {
    if let Some(options) = endpoint(config) {
        let opened = EndpointModel::open(&options, cancel, note);
        if let Ok(model) = &opened {
            let info = model.info();
            note(&format!("{}, {} tokens of context", info.name, info.context));
        }
        return Ok(Box::new(unless_interrupted(opened, cancel)?));
    }
    let located = hub::locate(None, config)?;
    let model = open(&located.path, &options(config, &located), cancel, note, progress)?;
    Ok(Box::new(model))
}

/// The model in a file, loaded with these options.
pub(super) fn open(
    path: &std::path::Path,
    options: &LocalOptions,
    cancel: &AtomicBool,
    note: &mut dyn FnMut(&str),
    progress: &mut dyn FnMut(u64, u64),
) -> Result<LocalModel, Failure> {
    announce(path, options, 1, note)?;
    unless_interrupted(LocalModel::load(path, options, cancel, progress), cancel)
}

fn unless_interrupted<T>(loaded: Result<T, ModelError>, cancel: &AtomicBool) -> Result<T, Failure> {
    if cancel.load(Ordering::Relaxed) {
        return Err(Failure::new(exit::INTERRUPTED, "interrupted"));
    }
    loaded.map_err(failure)
}

pub(super) fn options(config: &Config, located: &Located) -> LocalOptions {
    let sampling = located.entry.map_or(SAMPLING, |entry| {
        let s = entry.sampling;
        SamplingParams {
            seed: 0,
            temperature: s.temperature,
            top_k: s.top_k,
            top_p: s.top_p,
            min_p: s.min_p,
            repetition_penalty: s.repetition_penalty,
        }
    });
    LocalOptions {
        backend: backend(config),
        engine: EngineOptions {
            threads: threads(config),
            kernels: KernelSet::best(),
            load: load(config),
            ..EngineOptions::default()
        },
        kv: kv(config, KvType::Q8_0),
        context: config.settings.ctx,
        format: located.entry.and_then(|entry| entry.format.parse::<ChatFormat>().ok()),
        sampling,
        decoding: Decoding {
            masks: config.settings.masks != Some(Switch::Off),
            drafts: config.settings.drafts != Some(Switch::Off),
        },
        snapshots: snapshots(config),
    }
}

/// Where keys and values are kept between sessions, and how many bytes of them; `None` where nothing is to be kept.
fn snapshots(config: &Config) -> Option<(std::path::PathBuf, u64)> {
    let budget = config.settings.snapshots.map_or(SNAPSHOTS, |gb| gb * 1_000_000_000);
    let state = config.dirs.state().ok().filter(|_| budget > 0)?;
    Some((state.join("kv"), budget))
}
