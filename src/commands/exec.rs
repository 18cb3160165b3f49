//! `qwright exec`: one request without a screen. Wires prompt, workspace, sandbox, model and session together, in the
//! order in which they can fail cheaply, and turns the ending into an exit code.

use super::exec_attempts;
use super::exec_input::{self, Input};
use super::exec_patch::Patching;
use super::exec_until::{self, First};
use super::{CommandResult, Failure, exit, load, rules};
use crate::agent::protocol::{ApprovalMode, Ending, Event, OUT_OF_TIME};
use crate::agent::{self, Limits, Resumed, RuleSource, Session, SessionOptions, Which};
use crate::chat::ToolSpec;
use crate::chat::escape::escape_json;
use crate::cli::{ModelArgs, RuleArgs};
use crate::config::{Config, LoadOptions};
use crate::headless::{self, ExecResult, OutputFormat, Streams};
use crate::model::Model;
use crate::model::scripted::ScriptedModel;
use crate::tools::Registry;
use crate::workspace::Workspace;
use crate::workspace::shell::{SandboxChoice, Shell, ShellSettings};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Model calls of one run unless `--max-turns` says otherwise: far above what work needs, far below a night's loop.
const MAX_TURNS: usize = 100;

/// Answer one request without a screen: read, edit, run, report
#[derive(Debug, Clone, Default, clap::Args)]
#[command(after_help = "\
The answer goes to standard output, everything else to standard error. Nobody is asked: what would need an approval \
is denied, and the result lists it. Rules (--allow, --deny, those of the settings and those that were kept in the terminal \
interface) hold here too: what is allowed runs where it would have been asked, what is denied never runs.

Every run is a session with a log. `-c` goes on with the latest one of this directory, `-r ID` with another one, with \
the same conversation and, unless named anew, the same approval mode. A session runs once at a time; `--fork` goes on \
with a copy of it. A conversation that fills the context is shortened: what went is listed, and stays in the log.

With --until the limits are those of all rounds together. CMD runs in the sandbox and may take ten minutes. The files \
that its words name (`sh check.sh`, `pytest tests/test_a.py`) are taken for the check itself: an edit of them is \
denied, and where a command changes them they are put back. Two rounds in which the model calls no tool, or as many \
as --max-rounds, end the work.

With --attempts one model serves all of them: what they have in common is held once, and they are decoded together. Each \
has the limits to itself (but --max-wall-time). Where one passes its changes come to the directory, or to the file of \
--patch; the other tries, and all of them where none passes, are dropped and listed, and the directory stays as it is. \
The first try is what it would be alone; the others are sampled at a temperature of at least 0.8.

With --patch the copy is of all there is, uncommitted and ignored files too (of the whole work tree, where the \
directory lies in a repository), and is removed at the end. The patch leaves ignored files out, but for those that tools wrote. What holds absolute \
paths of the original, as some virtual environments do, still means the original.

Exit codes: 0 done (with --until: CMD passes), 1 the task failed, 2 usage or configuration (also: no such session, or it is at work elsewhere), 3 a denial ended the work, 4 no sandbox can be had \
here, 5 a limit was hit or the request does not fit the context, 6 no model, or the endpoint gives no answer, 130 interrupted.")]
pub struct ExecArgs {
    /// What to do; `-`, or nothing with a pipe, reads it from standard input. What is piped in beside a PROMPT goes to
    /// the model with it
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
    /// text: the answer on stdout, the rest on stderr; json: one object on stdout; stream-json: JSON lines, that object
    /// last
    #[arg(short = 'o', long, value_enum, default_value_t)]
    pub output_format: OutputFormat,
    /// With stream-json: the parts of an answer as they are written, too
    #[arg(long)]
    pub include_partial_messages: bool,
    /// What may happen unasked: plan, default, auto-edit or yolo [default: auto-edit]
    #[arg(long, value_name = "MODE")]
    pub approval_mode: Option<String>,
    /// The same as --approval-mode yolo
    #[arg(short = 'y', long, conflicts_with = "approval_mode")]
    pub yolo: bool,
    #[command(flatten)]
    pub rules: RuleArgs,
    /// The only tools there are in this run, with commas between them
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub allowed_tools: Option<Vec<String>>,
    /// What commands run in: auto, full, reduced or none. With none they can do what you can
    #[arg(long, value_name = "TIER")]
    pub sandbox: Option<String>,
    /// Read this repository's own settings (.qwright/config.toml); without, none of them is
    #[arg(long)]
    pub trust: bool,
    /// Model calls of this run [default: 100]
    #[arg(long, value_name = "N")]
    pub max_turns: Option<usize>,
    /// Tool calls of this run
    #[arg(long, value_name = "N")]
    pub max_tool_calls: Option<usize>,
    /// Tokens the model may write in this run
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<usize>,
    /// Time of this run, loading included: seconds, or 90s, 10m, 2h
    #[arg(long, value_name = "TIME")]
    pub max_wall_time: Option<String>,
    /// Work until this command passes: it runs first (if it passes already, nothing is done) and after every round, and
    /// what it says goes to the model. PROMPT may be left out
    #[arg(long, value_name = "CMD")]
    pub until: Option<String>,
    /// Rounds of --until [default: 10]
    #[arg(long, value_name = "N", requires = "until")]
    pub max_rounds: Option<usize>,
    /// Let the files that CMD names or its program reads (a Makefile) be edited; without, they stay as they are
    #[arg(long, requires = "until")]
    pub until_may_edit: bool,
    /// With --until: N tries at once, each in a private copy with a seed of its own; the first whose CMD passes is kept
    #[arg(long, value_name = "N", requires = "until")]
    pub attempts: Option<usize>,
    /// Leave the directory as it is: work in a private copy and write the changes to this file, for `git apply`
    #[arg(long, value_name = "FILE")]
    pub patch: Option<PathBuf>,
    /// A file with a JSON schema that the answer must have the form of (object, array, enum, bounds and the like)
    #[arg(long, value_name = "FILE")]
    pub json_schema: Option<PathBuf>,
    /// Go on with the latest session of this directory
    #[arg(short = 'c', long = "continue", conflicts_with = "resume")]
    pub continue_latest: bool,
    /// Go on with this session (its id, or the beginning of it)
    #[arg(short = 'r', long, value_name = "ID")]
    pub resume: Option<String>,
    /// With -c or -r: leave that session as it is and go on under a new id
    #[arg(long)]
    pub fork: bool,
    /// Seed of the sampler; the same seed gives the same words [default: 0]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Sampling temperature, 0 to 2 (0: always the likeliest token) [default: the model's own]
    #[arg(long)]
    pub temperature: Option<f32>,
    /// In place of the built-in system prompt
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["continue_latest", "resume"])]
    pub system_prompt: Option<String>,
    /// After the system prompt
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["continue_latest", "resume"])]
    pub append_system_prompt: Option<String>,
    /// Only the answer, denials and errors
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// The request is all there is: standard input is somebody else's.
    #[arg(skip)]
    pub leave_stdin: bool,
    /// Play a model's turns from a file (for tests)
    #[arg(long, hide = true, env = "QWRIGHT_SCRIPTED", value_name = "FILE")]
    pub scripted: Option<PathBuf>,
}

impl ExecArgs {
    /// What to load the settings from: these flags come last and win.
    pub fn load_options(&self) -> LoadOptions {
        let mut options = self.model.load_options();
        let number = |value: Option<usize>| value.map(|n| n.to_string());
        let mode = if self.yolo { Some("yolo".to_string()) } else { self.approval_mode.clone() };
        for (key, value, flag) in [
            ("approval_mode", mode, if self.yolo { "--yolo" } else { "--approval-mode" }),
            ("endpoint", self.endpoint.clone(), "--endpoint"),
            ("sandbox", self.sandbox.clone(), "--sandbox"),
            ("max_turns", number(self.max_turns), "--max-turns"),
            ("max_tool_calls", number(self.max_tool_calls), "--max-tool-calls"),
            ("max_tokens", number(self.max_tokens), "--max-tokens"),
            ("max_wall_time", self.max_wall_time.clone(), "--max-wall-time"),
            ("seed", self.seed.map(|n| n.to_string()), "--seed"),
            ("temperature", self.temperature.map(|n| n.to_string()), "--temperature"),
        ] {
            options.flags.extend(value.map(|value| (key, value, flag)));
        }
        options.flags.extend(self.rules.flags());
        options.in_repository(self.directory.as_deref().unwrap_or(Path::new(".")), self.trust, false)
    }
}

/// What a session has to finish is waited for so long.
const LEAVING: Duration = Duration::from_secs(10);

/// The subcommand: settings, then the model they name (or a script).
pub fn command(args: &ExecArgs, cancel: Arc<AtomicBool>) -> CommandResult {
    let flag = cancel.clone();
    let json = args.output_format != OutputFormat::Text;
    let quiet = args.quiet || json;
    let models = |config: &Config, n: usize| match &args.scripted {
        Some(path) => (1..=n).map(|number| scripted(&of_attempt(path, number))).collect(),
        None if n == 1 => Ok(vec![load::local(config, quiet, &flag)?]),
        None => load::several(config, n, quiet, &flag),
    };
    let done = run(args, models, cancel).and_then(|result| code(&result));
    if let Some(failure) = done.as_ref().err().filter(|_| json) {
        // Whoever reads JSON gets an object for failures before the session too; the line on stderr comes as well.
        let object = headless::failure(before_session(failure), &failure.message, failure.hint.as_deref());
        let _ = writeln!(std::io::stdout(), "{}", escape_json(&object.to_string()));
    }
    done
}

/// What a run needs before any model is loaded, in the order in which it can fail cheaply.
pub(super) struct Prepared {
    pub config: Config,
    pub input: Input,
    pub allowed_tools: Option<Vec<String>>,
    pub answer: Option<ToolSpec>,
    pub rules: RuleSource,
    pub workspace: Workspace,
    pub state: Option<PathBuf>,
    pub shell: Shell,
    pub started: Instant,
}

impl Prepared {
    fn new(args: &ExecArgs, cancel: &AtomicBool) -> Result<Self, Failure> {
        let started = Instant::now();
        let config = Config::load(&args.load_options())?;
        if !args.quiet && args.output_format == OutputFormat::Text {
            super::not_trusted(&config).iter().for_each(|line| super::tell(line));
        }
        let input = exec_input::read(args, cancel)?;
        let allowed_tools = args.allowed_tools.as_deref().map(known_tools).transpose()?;
        let answer = args.json_schema.as_deref().map(answer_of).transpose()?;
        if args.include_partial_messages && args.output_format != OutputFormat::StreamJson {
            return Err(Failure::new(
                exit::USAGE,
                "--include-partial-messages is for --output-format stream-json",
            ));
        }
        let directory = args.directory.clone().unwrap_or_else(|| PathBuf::from("."));
        let mut workspace = open(&directory)?;
        let rules = rules::whole_source(&config, workspace.root())?;
        let state = config.dirs.state().ok();
        if let Some(state) = &state {
            super::use_state(&mut workspace, state);
        }
        super::close_settings(&mut workspace, &config.dirs);
        let shell = shell(&config, state.as_deref());
        if let Some(unavailable) = shell.unavailable() {
            let message =
                format!("no sandbox can be had here, so no command could run: {}", unavailable.reason);
            let hint =
                format!("{}; or name `--sandbox none` to run commands unprotected", unavailable.remedy);
            return Err(Failure::new(exit::NO_SANDBOX, message).hint(hint));
        }
        Ok(Self { config, input, allowed_tools, answer, rules, workspace, state, shell, started })
    }

    /// What is left of the time of the run, where it has an end.
    pub fn time_left(&self) -> Option<Duration> {
        self.config.settings.max_wall_time.map(|time| time.saturating_sub(self.started.elapsed()))
    }

    pub fn shown(&self, args: &ExecArgs) -> headless::Options {
        headless::Options {
            prompt: self.input.prompt.clone(),
            attachments: self.input.attachment.clone().into_iter().collect(),
            until: None,
            structured: self.answer.is_some(),
            format: args.output_format,
            partial_messages: args.include_partial_messages,
            quiet: args.quiet,
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
            started: self.started,
        }
    }

    /// Of a session in `directory`, where the workspace is but a copy of it. `mode`: that of the session that goes on.
    pub fn session(
        &self,
        args: &ExecArgs,
        mode: Option<ApprovalMode>,
        directory: Option<PathBuf>,
        protected: Vec<String>,
    ) -> Result<SessionOptions, Failure> {
        let settings = &self.config.settings;
        let named = args.yolo || args.approval_mode.is_some();
        let set = settings.approval_mode.map_or(Ok(ApprovalMode::AutoEdit), |mode| mode.as_str().parse());
        let mode = mode.filter(|_| !named).map_or(set, Ok);
        Ok(SessionOptions {
            mode: mode.map_err(|message| Failure::new(exit::USAGE, message))?,
            can_ask: false,
            limits: Limits {
                model_calls: Some(settings.max_turns.unwrap_or(MAX_TURNS)),
                tool_calls: settings.max_tool_calls,
                tokens: settings.max_tokens,
                wall_time: self.time_left(),
            },
            seed: settings.seed.unwrap_or(0),
            temperature: settings.temperature,
            system_prompt: args.system_prompt.clone(),
            append_system_prompt: args.append_system_prompt.clone(),
            state: self.state.clone(),
            directory,
            one_run: true,
            protected,
            rules: self.rules.clone(),
            allowed_tools: self.allowed_tools.clone(),
            answer: self.answer.clone(),
            tell_messages: args.output_format == OutputFormat::StreamJson,
            notices: Vec::new(),
        })
    }
}

/// Runs one request with the models that `models` loads, as many as it is told; it is asked only once all else is in
/// order.
pub fn run(
    args: &ExecArgs,
    models: impl FnOnce(&Config, usize) -> Result<Vec<Box<dyn Model>>, Failure>,
    cancel: Arc<AtomicBool>,
) -> Result<ExecResult, Failure> {
    let mut prepared = Prepared::new(args, &cancel)?;
    if let Some(n) = args.attempts.filter(|n| *n != 1) {
        return exec_attempts::run(args, n, prepared, models, &cancel);
    }
    let resumed = resumed(args, prepared.state.as_deref(), prepared.workspace.root())?;
    let original = prepared.workspace.root().to_path_buf();
    let mut patching = None;
    if let Some(file) = &args.patch {
        let copy = Patching::begin(file, &prepared.workspace, &prepared.config, &cancel)?;
        prepared.workspace = open(copy.copy().root())?;
        patching = Some(copy);
    }
    let first = match &args.until {
        Some(command) => {
            let top = patching.as_ref().map_or(prepared.workspace.root(), |patching| patching.copy().top());
            let (first, made) = exec_until::first(args, &prepared, &prepared.workspace, top, &cancel)?;
            prepared.workspace.set_check(command, &made);
            if let Some(patching) = &mut patching {
                patching.checked(&made)?;
            }
            Some(first)
        }
        None => None,
    };
    let mut finishing = |result: &mut ExecResult| {
        if let Some(patching) = &mut patching {
            patching.finish(result);
        }
    };
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut shown = prepared.shown(args);
    let mut streams = Streams { out: &mut out, err: &mut err };
    match first {
        None => {}
        Some(First::Passes(mut result)) => {
            finishing(&mut result);
            return Ok(headless::report(*result, &shown, &mut streams));
        }
        Some(First::Fails { until, attachment }) => {
            shown.until = Some(until);
            shown.attachments.push(attachment);
        }
    }
    let protected = shown.until.as_ref().map(|until| until.protected.clone()).unwrap_or_default();
    let load = || models(&prepared.config, 1);
    let model = in_time(prepared.time_left(), &cancel, load)?.pop().ok_or_else(interrupted)?;
    let mode = resumed.as_ref().map(Resumed::mode);
    let options = prepared.session(args, mode, args.patch.is_some().then_some(original), protected)?;
    let Prepared { workspace, shell, .. } = prepared;
    let (ops, events) = match resumed {
        Some(resumed) => Session::go_on(model, workspace, shell, options, resumed),
        None => Session::start(model, workspace, shell, options),
    };
    let result = headless::run(&ops, &events, &shown, &cancel, &mut streams, &mut finishing);
    drop(ops);
    await_end(&events);
    Ok(result)
}

/// Loads within the time of the run: a server may not answer, a disk be slow.
pub(super) fn in_time<T>(
    left: Option<Duration>,
    cancel: &AtomicBool,
    load: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let late = AtomicBool::new(false);
    let loaded = std::thread::scope(|scope| {
        let (_loading, loaded) = std::sync::mpsc::channel::<()>();
        if let Some(left) = left {
            let late = &late;
            scope.spawn(move || {
                if loaded.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
                    late.store(true, Ordering::SeqCst);
                    cancel.store(true, Ordering::SeqCst);
                }
            });
        }
        load()
    });
    match cancel.load(Ordering::SeqCst) {
        true if late.load(Ordering::SeqCst) => Err(Failure::new(exit::LIMIT, OUT_OF_TIME)),
        true => Err(interrupted()),
        false => loaded,
    }
}

/// What the session leaves for the next one (keys and values among it) is on disk before this process ends.
pub(super) fn await_end(events: &Receiver<Event>) {
    let end = Instant::now() + LEAVING;
    while events.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok() {}
}

/// What commands run in, by the settings.
pub(super) fn shell(config: &Config, state: Option<&Path>) -> Shell {
    Shell::with(ShellSettings {
        choice: sandbox_choice(config),
        hidden: state.map(Path::to_path_buf).into_iter().collect(),
        read_only: super::settings_directory(&config.dirs).into_iter().collect(),
        ..ShellSettings::default()
    })
}

/// The script of an attempt, where the name of the file has a place for its number.
fn of_attempt(path: &Path, number: usize) -> PathBuf {
    PathBuf::from(path.to_string_lossy().replace("{attempt}", &number.to_string()))
}

pub(super) fn open(directory: &Path) -> Result<Workspace, Failure> {
    Workspace::open(directory, &[]).map_err(|error| {
        Failure::new(exit::USAGE, error.to_string()).hint("name a directory of yours with -C")
    })
}

/// The session that goes on, if one was asked for; opened before the model is loaded, which takes longer.
fn resumed(args: &ExecArgs, state: Option<&Path>, root: &Path) -> Result<Option<Resumed>, Failure> {
    let which = match &args.resume {
        Some(id) => Which::Id(id.clone()),
        None if args.continue_latest => Which::Latest,
        None if args.fork => {
            return Err(Failure::new(exit::USAGE, "--fork needs a session to go on with")
                .hint("add -c for the latest one of this directory, or -r ID"));
        }
        None => return Ok(None),
    };
    let state = state.ok_or_else(|| {
        Failure::new(exit::USAGE, "there is no directory for sessions").hint("set HOME or XDG_STATE_HOME")
    })?;
    let resumed = agent::resume(state, &which, root, args.fork);
    resumed.map(Some).map_err(|error| Failure::new(exit::USAGE, error.message).hint(error.hint))
}

/// The names, where all of them are tools.
fn known_tools(names: &[String]) -> Result<Vec<String>, Failure> {
    let registry = Registry::standard();
    let names: Vec<String> =
        names.iter().map(|name| name.trim().to_string()).filter(|name| !name.is_empty()).collect();
    match names.iter().find(|name| registry.get(name).is_none()) {
        None => Ok(names),
        Some(unknown) => {
            let known: Vec<&str> = registry.names().collect();
            Err(Failure::new(exit::USAGE, format!("there is no tool `{unknown}`"))
                .hint(format!("the tools are {}", known.join(", "))))
        }
    }
}

/// The tool that takes the answer, by the schema in `file`.
fn answer_of(file: &Path) -> Result<ToolSpec, Failure> {
    let wrong = |why: String| {
        Failure::new(exit::USAGE, format!("--json-schema {}: {why}", file.display()))
            .hint("types, properties, required, enum, const, items, anyOf, bounds and lengths can be held to")
    };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let schema = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    agent::answer::tool(&schema).map_err(wrong)
}

/// The exit code of a run.
pub fn code(result: &ExecResult) -> CommandResult {
    if let Some(error) = &result.write_error {
        return Err(Failure::new(exit::TASK_FAILED, format!("the answer could not be written: {error}")));
    }
    Ok(match result.ending() {
        Ending::Done => exit::DONE,
        Ending::Stuck { .. } | Ending::Failed { .. } => exit::TASK_FAILED,
        Ending::Denied => exit::DENIED,
        Ending::Limit { .. } | Ending::ContextFull { .. } => exit::LIMIT,
        Ending::ModelUnavailable { .. } => exit::NO_MODEL,
        Ending::Interrupted => exit::INTERRUPTED,
    })
}

fn before_session(failure: &Failure) -> &'static str {
    match failure.code {
        exit::USAGE => "error_usage",
        exit::NO_SANDBOX => "error_sandbox",
        exit::NO_MODEL => "error_model",
        exit::LIMIT if failure.message == OUT_OF_TIME => "error_max_wall_time",
        exit::LIMIT => "error_context",
        exit::INTERRUPTED => "error_interrupted",
        _ => "error_during_execution",
    }
}

pub(super) fn sandbox_choice(config: &Config) -> SandboxChoice {
    use crate::config::SandboxMode;
    match config.settings.sandbox {
        SandboxMode::Auto => SandboxChoice::Auto,
        SandboxMode::Full => SandboxChoice::Full,
        SandboxMode::Reduced => SandboxChoice::Reduced,
        SandboxMode::None => SandboxChoice::None,
    }
}

pub(super) fn interrupted() -> Failure {
    Failure::new(exit::INTERRUPTED, "interrupted")
}

pub(super) fn scripted(path: &Path) -> Result<Box<dyn Model>, Failure> {
    let wrong = |error: String| Failure::new(exit::NO_MODEL, format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    Ok(Box::new(ScriptedModel::parse(&text).map_err(wrong)?))
}
