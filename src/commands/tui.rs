//! `qwright` without a subcommand: the terminal interface. What it cannot do itself is done here, on threads: loading a
//! model, beginning or taking up a session, listing models, sessions and files, downloading.

use super::exec::{scripted, shell};
use super::{CommandResult, Failure, exit, load, rules};
use crate::agent::protocol::ApprovalMode;
use crate::agent::{self, Limits, Session, SessionOptions};
use crate::cli::{ModelArgs, RuleArgs};
use crate::config::{Config, LoadOptions, Switch, ThemeChoice, trust};
use crate::engine::bandwidth;
use crate::hub::{self, HubError, KvWidth, PullOptions, PullProgress, machine, plan};
use crate::tui::input::{Ask, Choice, Start, Told, Which};
use crate::tui::theme::ThemeName;
use crate::tui::{self, Host, Outbox};
use crate::workspace::{ReadContent, Workspace};
use std::collections::BTreeMap;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Tokens of context that the list of models is made for.
const CONTEXT: u64 = 32_768;
/// Files offered for completion.
const FILES: usize = 50_000;
/// Requests of earlier sessions that are offered again.
const HISTORY: usize = 500;

/// What to open, and how
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TuiArgs {
    /// Submitted at once
    pub prompt: Option<String>,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Let the OpenAI-compatible server at URL (vLLM, SGLang, llama-server) run the model; its key comes from
    /// QWRIGHT_API_KEY, else OPENAI_API_KEY
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Work in this directory [default: the current one]
    #[arg(short = 'C', long = "cd", value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// What may happen unasked: plan, default, auto-edit or yolo [default: default]
    #[arg(long, value_name = "MODE")]
    pub approval_mode: Option<String>,
    /// The same as --approval-mode yolo
    #[arg(short = 'y', long, conflicts_with = "approval_mode")]
    pub yolo: bool,
    #[command(flatten)]
    pub rules: RuleArgs,
    /// What commands run in: auto, full, reduced or none. With none they can do what you can
    #[arg(long, value_name = "TIER")]
    pub sandbox: Option<String>,
    /// Trust this repository, from now on: its settings (.qwright/config.toml) and commands (.qwright/commands) are read
    #[arg(long)]
    pub trust: bool,
    /// Go on with the latest session of this directory
    #[arg(short = 'c', long = "continue", conflicts_with = "resume")]
    pub continue_latest: bool,
    /// Go on with this session (its id, or the beginning of it); without an ID choose one from a list
    #[arg(short = 'r', long, value_name = "ID", num_args = 0..=1, default_missing_value = "")]
    pub resume: Option<String>,
    /// With -c or -r: leave that session as it is and go on under a new id
    #[arg(long)]
    pub fork: bool,
    /// Seed of the sampler
    #[arg(long)]
    pub seed: Option<u64>,
    /// Sampling temperature, 0 to 2
    #[arg(long)]
    pub temperature: Option<f32>,
    /// Play a model's turns from a file (for tests)
    #[arg(long, hide = true, env = "QWRIGHT_SCRIPTED", value_name = "FILE")]
    pub scripted: Option<PathBuf>,
}

impl TuiArgs {
    fn load_options(&self) -> LoadOptions {
        let mut options = self.model.load_options();
        let mode = if self.yolo { Some("yolo".to_string()) } else { self.approval_mode.clone() };
        for (key, value, flag) in [
            ("approval_mode", mode, if self.yolo { "--yolo" } else { "--approval-mode" }),
            ("endpoint", self.endpoint.clone(), "--endpoint"),
            ("sandbox", self.sandbox.clone(), "--sandbox"),
            ("seed", self.seed.map(|n| n.to_string()), "--seed"),
            ("temperature", self.temperature.map(|n| n.to_string()), "--temperature"),
        ] {
            options.flags.extend(value.map(|value| (key, value, flag)));
        }
        options.flags.extend(self.rules.flags());
        options.in_repository(self.directory.as_deref().unwrap_or(Path::new(".")), self.trust, true)
    }

    fn session(&self) -> Which {
        match (&self.resume, self.continue_latest, self.fork) {
            (Some(id), ..) if id.is_empty() => Which::New,
            (Some(id), _, true) => Which::ForkId(id.clone()),
            (Some(id), _, false) => Which::Id(id.clone()),
            (None, true, true) => Which::ForkLatest,
            (None, true, false) => Which::Latest,
            (None, false, _) => Which::New,
        }
    }
}

pub fn command(args: TuiArgs) -> CommandResult {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(Failure::new(exit::USAGE, "the interface needs a terminal")
            .hint("without one: qwright exec \"what to do\" (qwright --help lists the commands)"));
    }
    let options = args.load_options();
    let config = Config::load(&options)?;
    // A rule that cannot be read is said before the screen is taken.
    rules::source(&config)?;
    let directory = args.directory.clone().unwrap_or_else(|| PathBuf::from("."));
    let workspace = Workspace::open(&directory, &[]).map_err(|error| {
        Failure::new(exit::USAGE, error.to_string()).hint("name a directory of yours with -C")
    })?;
    let root = workspace.root().to_path_buf();
    let state = config.dirs.state().ok();
    let repository = trust::repository_of(&root);
    if args.trust
        && let Some(state) = &state
    {
        trust::trust(state, &repository).map_err(|error| {
            Failure::new(exit::USAGE, format!("it cannot be kept that this repository is trusted: {error}"))
                .hint("see that the state directory can be written")
        })?;
    }
    let choose = args.resume.as_deref() == Some("");
    if choose && args.fork {
        return Err(
            Failure::new(exit::USAGE, "--fork needs to know the session").hint("name it: -r ID --fork")
        );
    }
    let theme = theme(&config);
    let start = Start {
        version: env!("CARGO_PKG_VERSION").into(),
        directory: root.display().to_string(),
        // A repository without a commit has words in place of a name.
        branch: workspace.git_branch().filter(|branch| !branch.contains(' ')),
        history: state.as_deref().map(history).unwrap_or_default(),
        commands: own_commands(&config, options.trusted.then_some(&*repository)),
        theme: None,
        vim: config.settings.vim == Some(Switch::On),
        prompt: args.prompt.clone(),
        choose,
    };
    let mut host = TuiHost {
        args,
        config,
        root,
        state,
        cancel_pull: Arc::new(AtomicBool::new(false)),
        start: Some(start),
    };
    let ended = tui::run(&mut host, theme)
        .map_err(|error| Failure::new(exit::TASK_FAILED, format!("the terminal failed: {error}")))?;
    if let Some(id) = &ended.session {
        let _ = writeln!(std::io::stdout(), "Session {id}; qwright --continue goes on with it.");
    }
    Ok(if ended.killed { exit::INTERRUPTED } else { exit::DONE })
}

/// The user's word; else none where the user wants no colour, and light where the terminal says that it is.
fn theme(config: &Config) -> ThemeName {
    let env = &config.env;
    match config.settings.theme {
        Some(ThemeChoice::Dark) => return ThemeName::Dark,
        Some(ThemeChoice::Light) => return ThemeName::Light,
        Some(ThemeChoice::None) => return ThemeName::Plain,
        None => {}
    }
    if env.get("NO_COLOR").is_some() || env.text("TERM") == Some("dumb") {
        return ThemeName::Plain;
    }
    let ground = env.text("COLORFGBG").and_then(|value| value.rsplit(';').next()?.parse::<u8>().ok());
    match ground {
        Some(7 | 15) => ThemeName::Light,
        _ => ThemeName::Dark,
    }
}

struct TuiHost {
    args: TuiArgs,
    config: Config,
    root: PathBuf,
    state: Option<PathBuf>,
    cancel_pull: Arc<AtomicBool>,
    start: Option<Start>,
}

impl Host for TuiHost {
    fn begin(&mut self, outbox: &Outbox) {
        if let Some(start) = self.start.take() {
            outbox.tell(Told::Start(Box::new(start)));
        }
        // Without a name the user chooses first.
        if self.args.resume.as_deref() != Some("") {
            self.ask(Ask::Open { model: None, session: self.args.session() }, outbox);
        }
    }

    fn ask(&mut self, ask: Ask, outbox: &Outbox) {
        let outbox = outbox.clone();
        let (root, config) = (self.root.clone(), self.config.clone());
        match ask {
            Ask::Open { model, session } => {
                let args = self.args.clone();
                let state = self.state.clone();
                thread::spawn(move || match open(&args, config, model, &session, &root, state, &outbox) {
                    Ok(()) => {}
                    Err(Unopened::NoModel) => outbox.tell(Told::NoModel),
                    Err(Unopened::Failed(failure)) => {
                        outbox.tell(Told::Failed { message: failure.message, hint: failure.hint });
                    }
                });
            }
            Ask::Files => {
                thread::spawn(move || {
                    if let Ok(workspace) = Workspace::open(&root, &[]) {
                        outbox.tell(Told::Files(workspace.files(FILES)));
                    }
                });
            }
            Ask::Models => {
                // A server may take its time.
                thread::spawn(move || outbox.tell(models(&config)));
            }
            Ask::Sessions => {
                let sessions = self.state.as_deref().map(|state| sessions(state, &root)).unwrap_or_default();
                outbox.tell(Told::Sessions(sessions));
            }
            Ask::Plan => {
                thread::spawn(move || outbox.tell(what_fits(&config)));
            }
            Ask::Pull(name) => {
                self.cancel_pull = Arc::new(AtomicBool::new(false));
                let cancel = self.cancel_pull.clone();
                thread::spawn(move || pull(&name, &config, &cancel, &outbox));
            }
            Ask::CancelPull => self.cancel_pull.store(true, Ordering::SeqCst),
            Ask::Remember(text) => {
                let line = serde_json::Value::from(text).to_string();
                self.append("history.jsonl", &line);
            }
            Ask::Memory => outbox.tell(match memory(&root) {
                Ok(text) => Told::Memory { path: MEMORY.into(), text },
                Err(why) => Told::Note(format!("{MEMORY} cannot be edited here: {why}")),
            }),
            Ask::SaveMemory(text) => {
                let saved = Workspace::open(&root, &[]).and_then(|workspace| {
                    // It was read for the editor, if it is there.
                    let _ = workspace.read(MEMORY);
                    workspace.write(MEMORY, &text)
                });
                outbox.tell(Told::Saved(match saved {
                    Ok(_) => format!("{MEMORY} is saved; a new session reads it."),
                    Err(error) => format!("{MEMORY} could not be saved: {error}"),
                }));
            }
        }
    }
}

const MEMORY: &str = "AGENTS.md";

/// The text of the memory file, empty where there is none; an error in words where it is there and no text of ours.
fn memory(root: &Path) -> Result<String, String> {
    if root.join(MEMORY).symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Ok(String::new());
    }
    let workspace = Workspace::open(root, &[]).map_err(|error| error.to_string())?;
    match workspace.read(MEMORY).map_err(|error| error.to_string())?.content {
        ReadContent::Text(text) if text.valid_utf8 => Ok(text.shown().into_owned()),
        _ => Err("it is no UTF-8 text".into()),
    }
}

impl TuiHost {
    /// A line more in a file of the state directory; without one nothing is kept.
    fn append(&self, name: &str, line: &str) {
        let Some(state) = &self.state else { return };
        let _ = std::fs::create_dir_all(state);
        let file = std::fs::File::options().append(true).create(true).open(state.join(name));
        let _ = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }
}

enum Unopened {
    NoModel,
    Failed(Failure),
}

impl From<Failure> for Unopened {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn open(
    args: &TuiArgs,
    mut config: Config,
    model: Option<String>,
    session: &Which,
    root: &Path,
    state: Option<PathBuf>,
    outbox: &Outbox,
) -> Result<(), Unopened> {
    if let Some(model) = model {
        config.choose_model(model);
    }
    let usage = |message: String, hint: &str| Failure::new(exit::USAGE, message).hint(hint);
    let mut workspace = Workspace::open(root, &[])
        .map_err(|error| usage(error.to_string(), "name a directory of yours with -C"))?;
    let mut notices = state.as_deref().map(|state| workspace.use_state(state).lines()).unwrap_or_default();
    super::close_settings(&mut workspace, &config.dirs);
    notices.extend(super::not_trusted(&config));
    let shell = shell(&config, state.as_deref());
    let resumed = match (session, &state) {
        (Which::New, _) => None,
        (_, None) => {
            return Err(
                usage("there is no directory for sessions".into(), "set HOME or XDG_STATE_HOME").into()
            );
        }
        (session, Some(state)) => {
            let (which, fork) = match session {
                Which::Id(id) => (agent::Which::Id(id.clone()), false),
                Which::ForkId(id) => (agent::Which::Id(id.clone()), true),
                Which::ForkLatest => (agent::Which::Latest, true),
                _ => (agent::Which::Latest, false),
            };
            let resumed = agent::resume(state, &which, root, fork);
            Some(resumed.map_err(|error| Failure::new(exit::USAGE, error.message).hint(error.hint))?)
        }
    };
    let loaded = match &args.scripted {
        Some(path) => scripted(path)?,
        None => {
            let own = config.settings.endpoint.is_none();
            if own && matches!(hub::locate(None, &config), Err(HubError::NoModel)) {
                return Err(Unopened::NoModel);
            }
            outbox.tell(Told::Loading { done: 0, total: 1 });
            let mut progress = |done, total| outbox.tell(Told::Loading { done, total });
            load::local_with(&config, &AtomicBool::new(false), &mut |_| {}, &mut progress)?
        }
    };
    let named = args.yolo || args.approval_mode.is_some();
    let left_in = resumed.as_ref().filter(|_| !named).map(|resumed| Ok(resumed.mode()));
    let set = config.settings.approval_mode.map_or(Ok(ApprovalMode::Default), |mode| mode.as_str().parse());
    let options = SessionOptions {
        mode: left_in.unwrap_or(set).map_err(|message| Failure::new(exit::USAGE, message))?,
        can_ask: true,
        limits: Limits::default(),
        seed: config.settings.seed.unwrap_or(0),
        temperature: config.settings.temperature,
        state,
        notices,
        rules: rules::source(&config)?,
        ..SessionOptions::default()
    };
    let (ops, events) = match resumed {
        Some(resumed) => Session::go_on(loaded, workspace, shell, options, resumed),
        None => Session::start(loaded, workspace, shell, options),
    };
    outbox.session(ops, events);
    Ok(())
}

fn models(config: &Config) -> Told {
    match load::served(config) {
        None => Told::Models(own_models(config)),
        Some(Ok(served)) => Told::Models(
            served
                .into_iter()
                .map(|model| Choice {
                    label: model.name.clone(),
                    detail: model
                        .context
                        .map_or(String::new(), |tokens| format!("{tokens} tokens of context")),
                    value: model.name,
                    preferred: false,
                })
                .collect(),
        ),
        // The session that is open goes on.
        Some(Err(failure)) => Told::Note(
            [Some(failure.message), failure.hint].into_iter().flatten().collect::<Vec<_>>().join("\n"),
        ),
    }
}

fn own_models(config: &Config) -> Vec<Choice> {
    let dir = config.dirs.models().unwrap_or_default();
    let known =
        hub::catalogue().iter().flat_map(|entry| entry.quants.iter().map(move |quant| (entry, quant)));
    let here = known.filter(|(_, quant)| hub::is_present(&dir, quant)).map(|(entry, quant)| {
        let name = format!("{}:{}", entry.short_name(), quant.name);
        Choice { value: name.clone(), label: name, detail: hub::human(quant.bytes), preferred: false }
    });
    let others = hub::other_files(&dir).into_iter().map(|path| {
        let path = path.display().to_string();
        Choice { value: path.clone(), label: path, ..Choice::default() }
    });
    here.chain(others).collect()
}

fn sessions(state: &Path, root: &Path) -> Vec<Choice> {
    let row = |session: agent::Listed| Choice {
        label: session
            .first
            .unwrap_or_default()
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(50)
            .collect(),
        detail: format!("{} requests · {}", session.requests, session.id),
        value: session.id,
        preferred: false,
    };
    agent::list(state, root).into_iter().map(row).collect()
}

fn what_fits(config: &Config) -> Told {
    let dir = config.dirs.models().unwrap_or_default();
    let machine = machine::Machine::measure();
    let question = plan::Question {
        machine: &machine,
        bandwidth: bandwidth::measure(load::load(config)).map(|measured| measured.bytes_per_second),
        disk_free: machine::disk_free(&dir),
        models_dir: &dir,
        ctx: CONTEXT,
        kv: KvWidth::Q8,
    };
    let rows = plan::plan(hub::catalogue(), &question).into_iter().map(|row| {
        let name = format!("{}:{}", row.model, row.quant);
        let speed = row.tokens_per_second.map_or(String::new(), |speed| format!("≤ {speed:.0} tokens/s · "));
        let verdict = match row.verdict {
            plan::Verdict::Fits => "fits".to_string(),
            plan::Verdict::Slow => format!("{} of memory short", hub::human(row.short_by)),
            plan::Verdict::NoRoom => "no room on disk".to_string(),
        };
        let mark = if row.recommended { " · recommended" } else { "" };
        Choice {
            value: name.clone(),
            label: name,
            detail: format!("{} · {speed}{verdict}{mark}", hub::human(row.bytes)),
            preferred: row.recommended,
        }
    });
    let free = |bytes: Option<u64>| bytes.map_or("unknown".to_string(), hub::human);
    let machine = format!(
        "{} of memory free, {} of disk free, {} cores. Enter downloads.",
        free(machine.memory_available),
        free(question.disk_free),
        machine.cores
    );
    Told::Plan { machine, rows: rows.collect() }
}

fn pull(name: &str, config: &Config, cancel: &AtomicBool, outbox: &Outbox) {
    let run = || -> Result<(), Failure> {
        let (entry, quant) = hub::find(name)?;
        let options = PullOptions::from_env(config.dirs.models()?, &config.env);
        let mut total = None;
        hub::pull(entry, quant, &options, cancel, &mut |progress| {
            let told = match progress {
                PullProgress::Bytes { done, total: of } => {
                    total = of;
                    Told::Pulling { done, total: of, note: None }
                }
                PullProgress::Source { file, source, .. } => {
                    Told::Pulling { done: 0, total, note: Some(format!("{file} from {source}")) }
                }
                PullProgress::Checking { file } => Told::Pulling {
                    done: 0,
                    total,
                    note: Some(format!("{file}: checking what is here already")),
                },
                PullProgress::Note(note) => Told::Pulling { done: 0, total, note: Some(note) },
            };
            outbox.tell(told);
        })?;
        Ok(())
    };
    match run() {
        Ok(()) => outbox.tell(Told::Pulled { name: name.to_string() }),
        Err(failure) => outbox.tell(Told::Failed { message: failure.message, hint: failure.hint }),
    }
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn history(state: &Path) -> Vec<String> {
    let all = lines(&state.join("history.jsonl"));
    let texts = all.iter().filter_map(|line| line.as_str().map(str::to_string));
    let texts: Vec<String> = texts.collect();
    texts[texts.len().saturating_sub(HISTORY)..].to_vec()
}

/// `NAME.md` in the folder `commands` of the user's settings, and of those of a repository that is trusted; the user's
/// own win.
fn own_commands(config: &Config, trusted: Option<&Path>) -> Vec<(String, String)> {
    let own = config.dirs.config_file().ok().map(|file| file.with_file_name("commands"));
    let theirs = trusted.map(|repository| repository.join(".qwright/commands"));
    let mut commands = BTreeMap::new();
    for (folder, links) in [(theirs, false), (own, true)] {
        let entries =
            folder.and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
        // A link of a repository may lead anywhere.
        for entry in entries.filter(|entry| links || entry.file_type().is_ok_and(|kind| kind.is_file())) {
            if let Some(name) = entry.file_name().to_str().and_then(|name| name.strip_suffix(".md"))
                && let Ok(text) = std::fs::read_to_string(entry.path())
            {
                commands.insert(name.to_string(), text);
            }
        }
    }
    commands.into_iter().collect()
}
