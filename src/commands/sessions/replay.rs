//! `qwright sessions replay`: a session run again from its log. The model is given the recorded messages and results, and
//! every token of its answers must be the one it would choose now. No tool runs, and nothing is written; but with
//! `--live` (`live`), where the tools run again in a private copy. `against` says what of the log can be compared; how a
//! token comes about is the model's own affair.

mod against;
mod live;
mod report;

use super::{CommandResult, Failure, exit};
use crate::agent::asked::RunSettings;
use crate::agent::store::Stored;
use crate::cli::ModelArgs;
use crate::commands::load;
use crate::config::Config;
use crate::engine::backend::BackendKind;
use crate::engine::kv::KvType;
use crate::hub;
use crate::model::ModelSetup;
use crate::model::local::{Decoding, LocalModel};
use against::{Walk, walk};
use report::report;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Run a session again from its log, and compare every token
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The model, its settings and the seed are those of the log, unless flags name others. The recorded results of tools are \
given to the model; no tool is run. Each token is chosen with the recorded ones before it, so the first difference is \
where the two would have parted.

With --live the tools run again, in a private copy of the session's directory, and each result must be the recorded one \
too (but for times). Bring the directory to where the session began first; what the session changed itself is taken back \
in the copy, where it is still as the session left it.

Exit codes: 0 identical, 1 different, 2 the log cannot be compared (or there is no such session), 6 no model, 130 \
interrupted.")]
pub struct ReplayArgs {
    pub(super) id: String,
    #[command(flatten)]
    model: ModelArgs,
    /// Another seed than the recorded one
    #[arg(long)]
    seed: Option<u64>,
    /// Another temperature than the recorded one
    #[arg(long)]
    temperature: Option<f32>,
    /// Run the tools again too, in a private copy of the directory
    #[arg(long, conflicts_with_all = ["seed", "temperature"])]
    live: bool,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ReplayArgs, stored: &Stored, cancel: &AtomicBool) -> CommandResult {
    let config = Config::load(&args.model.load_options())?;
    let mut open = |run: &RunSettings, setup: &ModelSetup| load_model(args, &config, run, setup, cancel);
    if args.live {
        let live = live::run(stored, &config, &mut open, cancel)?;
        super::out(&report::live(&live, stored, args.json))?;
        return Ok(if live.is_identical() { exit::DONE } else { exit::TASK_FAILED });
    }
    let walked = walk(stored, (args.seed, args.temperature), &mut open, cancel)?;
    let Walk { answers: 0, difference: None, ref skipped, .. } = walked else {
        super::out(&report(&walked, stored, args.json))?;
        let identical = walked.difference.is_none();
        return Ok(if identical { exit::DONE } else { exit::TASK_FAILED });
    };
    let why = skipped.lines();
    let why = if why.is_empty() { "no model answered in it".into() } else { why.join("; ") };
    Err(Failure::new(exit::USAGE, format!("nothing of session {} can be compared: {why}", stored.id))
        .hint("`qwright sessions show` shows what is in it"))
}

/// The recorded model, as it was run; with what flags say instead.
fn load_model(
    args: &ReplayArgs,
    config: &Config,
    run: &RunSettings,
    setup: &ModelSetup,
    cancel: &AtomicBool,
) -> Result<LocalModel, Failure> {
    let file = Path::new(&setup.file);
    let located = match &args.model.model {
        Some(_) => hub::locate(None, config)?,
        None if file.is_file() => hub::locate(Some(&setup.file), config)?,
        // It may have moved to where models are looked for.
        None => {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            hub::locate(Some(&stem), config).map_err(|_| {
                let message = format!("the model of this session, {}, is not there any more", setup.file);
                Failure::new(exit::NO_MODEL, message).hint("name its file with -m")
            })?
        }
    };
    let unknown = |what: &str, name: &str| {
        let message = format!(
            "the session was run with the {what} `{name}`, which qwright {} does not know",
            env!("CARGO_PKG_VERSION")
        );
        Failure::new(exit::USAGE, message)
            .hint(format!("replay it with qwright {}, or name another one with a flag", run.version))
    };
    let mut options = load::options(config, &located);
    if args.model.kv.is_none() {
        options.kv = KvType::from_name(&setup.kv).ok_or_else(|| unknown("kv type", &setup.kv))?;
    }
    if args.model.backend.is_none() {
        options.backend =
            BackendKind::from_name(&setup.backend).ok_or_else(|| unknown("backend", &setup.backend))?;
    }
    if args.model.ctx.is_none() {
        options.context = Some(setup.context);
    }
    options.format = Some(setup.format.parse().map_err(|_| unknown("chat format", &setup.format))?);
    options.sampling = setup.sampling.clone();
    options.decoding = Decoding { masks: setup.masks, drafts: false };
    // What was kept of earlier sessions is computed again.
    options.snapshots = None;
    let mut note = |text: &str| {
        if !args.json {
            eprintln!("{text}");
        }
    };
    let path: PathBuf = located.path;
    load::open(&path, &options, cancel, &mut note, &mut |_, _| {})
}
