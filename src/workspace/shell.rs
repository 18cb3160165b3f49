//! Runs one shell command in the sandbox and says how it ended: output, exit, limits that were hit, log on disk.
//!
//! [`Shell::probe`] finds out once, by doing it, which protection this machine gives; [`Shell::run`] starts our own
//! binary as a helper (see [`super::sandbox`]), hands it a plan and reads output, report and clock in one loop.
//! Nothing here decides *whether* a command may run: that is the agent's, by `safety.md`'s table. Nothing here
//! escapes output for a terminal: that is the front end's.

mod background;
mod capture;
mod environment;
pub mod policy;
mod running;
mod state;
mod steady;

pub use super::sandbox::{SandboxTier, Unavailable};
pub use background::JobStatus;
pub use steady::{portable, steady};

use super::sandbox::{self, layout, plan, reach, steering};
use capture::Capture;
use running::Running;
use state::State;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How long a command may run unless it asks for another time.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// Which sandbox the user asked for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum SandboxChoice {
    /// The strongest that can be had here; nothing runs where none can.
    #[default]
    Auto,
    /// Namespaces, seccomp, no network; or nothing runs.
    Full,
    /// Landlock and seccomp, for places without user namespaces.
    Reduced,
    /// No sandbox, said in every result.
    None,
}

/// What a `Shell` is built from. `Default` is right for the binary itself.
#[derive(Debug, Clone, Default)]
pub struct ShellSettings {
    pub choice: SandboxChoice,
    /// The program that answers to `__sandbox-init`; our own executable unless a test says otherwise.
    pub helper: Option<PathBuf>,
    /// Variables of our environment that commands see besides the built-in list.
    pub environment: Vec<String>,
    /// Read-only inside the sandbox, also within the workspace; relative paths are the workspace's.
    pub read_only: Vec<PathBuf>,
    /// Not readable inside the sandbox (session store, settings with keys).
    pub hidden: Vec<PathBuf>,
    /// Bytes of output kept in memory: half for the head, half for the tail. 0: the built-in 64 KiB.
    pub keep_bytes: usize,
}

/// One command as the model or the user gave it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShellCommand {
    /// Run by `bash -c` (`sh -c` where there is no bash).
    pub command: String,
    /// Where it runs: relative to the workspace or absolute inside it. The workspace itself if `None`.
    pub directory: Option<PathBuf>,
    pub timeout: Option<Duration>,
    /// Give it the machine's network; needs its own approval.
    pub network: bool,
}

/// How a command ended. A command that failed is an outcome, not an error.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ShellOutcome {
    /// Standard output and error as they came; head and tail where it was long, the middle named.
    pub output: String,
    /// Exit status, if it ended by itself.
    pub exit: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    pub timed_out: bool,
    pub cancelled: bool,
    pub truncated: bool,
    /// The whole output, where `output` is not.
    pub log: Option<PathBuf>,
    pub sandbox: SandboxTier,
    /// What the user should know: a repository or hook that the command planted, a limit that ended it.
    pub warnings: Vec<String>,
}

/// Why a command did not run, or its end is unknown.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    #[error("no command was run: {0}")]
    Unavailable(Unavailable),
    #[error("{path} is not a directory of the workspace")]
    Directory { path: PathBuf },
    #[error("no command was run: {path} cannot be a sandboxed workspace, {reason}")]
    Workspace { path: PathBuf, reason: &'static str },
    #[error("the command cannot hold a NUL character")]
    Nul,
    #[error("{doing}: {source}")]
    Io { doing: &'static str, source: std::io::Error },
    #[error("the sandbox helper ended without a report")]
    Lost,
    #[error("{most} commands run in the background already")]
    TooMany { most: usize },
}

impl ShellError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Unavailable(unavailable) => unavailable.remedy.clone(),
            Self::Directory { .. } => "name a directory inside the workspace".into(),
            Self::Workspace { .. } => "start in a project directory".into(),
            Self::Nul => "write the command without NUL".into(),
            Self::Io { .. } => "check free disk space, memory and process limits, then try again".into(),
            Self::TooMany { .. } => "stop one of them first".into(),
            Self::Lost => "it was killed from outside, perhaps for memory; run the command again".into(),
        }
    }
}

fn io_error(doing: &'static str) -> impl FnOnce(std::io::Error) -> ShellError {
    move |source| ShellError::Io { doing, source }
}

/// A way to run commands, with the protection that was found for it.
pub struct Shell {
    // Dropped before the core, whose directory its commands use.
    background: background::Background,
    core: Arc<Core>,
}

/// What every command needs, also those that another thread runs.
struct Core {
    settings: ShellSettings,
    /// What commands run in, or why none may run.
    found: Result<SandboxTier, Unavailable>,
    /// Why it is not the full tier, where the user did not choose.
    instead: Option<Unavailable>,
    state: Result<State, String>,
}

impl Shell {
    /// Finds the sandbox of this machine by running one command through the whole path.
    pub fn probe(choice: SandboxChoice) -> Self {
        Self::with(ShellSettings { choice, ..ShellSettings::default() })
    }

    /// As [`Shell::probe`], with every setting.
    pub fn with(settings: ShellSettings) -> Self {
        let state = State::new().map_err(|error| error.to_string());
        let mut core = Core { found: Ok(SandboxTier::None), instead: None, settings, state };
        core.found = match core.settings.choice {
            SandboxChoice::None => Ok(SandboxTier::None),
            SandboxChoice::Full => core.try_tier(SandboxTier::Full),
            SandboxChoice::Reduced => core.try_tier(SandboxTier::Reduced),
            SandboxChoice::Auto => core.try_tier(SandboxTier::Full).or_else(|full| {
                let reduced = core.try_tier(SandboxTier::Reduced).map_err(|_| full.clone())?;
                core.instead = Some(full);
                Ok(reduced)
            }),
        };
        Self { background: Default::default(), core: Arc::new(core) }
    }

    /// What commands run in. `None` also where nothing runs at all: see [`Shell::unavailable`].
    pub fn tier(&self) -> SandboxTier {
        self.core.found.as_ref().copied().unwrap_or(SandboxTier::None)
    }

    /// Why no command can run here; `None` where commands run.
    pub fn unavailable(&self) -> Option<&Unavailable> {
        self.core.found.as_ref().err()
    }

    /// One line: the tier, what it does not protect, and what would help.
    pub fn status_line(&self) -> String {
        match &self.core.found {
            Ok(SandboxTier::Full) => {
                "sandbox: full (writes only in the workspace, no network, home hidden; does \
                 not protect files in the workspace, reads outside home, or against kernel bugs)"
                    .into()
            }
            Ok(SandboxTier::Reduced) => {
                let full = self.core.instead.as_ref();
                let full =
                    full.map_or(String::new(), |why| format!("; full: {}, {}", why.reason, why.remedy));
                format!(
                    "sandbox: reduced (writes only in the workspace, no network, home hidden, what steers git put back \
                     after each command; does not protect modes and times of other files, or other processes from \
                     signals before Linux 6.12{full})"
                )
            }
            Ok(SandboxTier::None) => {
                "sandbox: none, as asked (commands can read and write what you can, and use \
                 the network; leave out `--sandbox none` to be protected)"
                    .into()
            }
            Err(Unavailable { reason, remedy }) => {
                format!("sandbox: unavailable, no command runs ({reason}; {remedy})")
            }
        }
    }

    /// Runs a command to its end, its time limit or `cancel`, whichever is first. Everything it started is dead
    /// when this returns. `on_output` gets text as it comes, unescaped.
    pub fn run(
        &self,
        workspace_root: &Path,
        command: &ShellCommand,
        cancel: &AtomicBool,
        on_output: &mut dyn FnMut(&str),
    ) -> Result<ShellOutcome, ShellError> {
        let tier = self.core.found.clone().map_err(ShellError::Unavailable)?;
        self.core.run_in(tier, workspace_root, command, cancel, on_output)
    }

    /// Starts a command that goes on in the background until it ends, is stopped, or this `Shell` is dropped.
    pub fn start(&self, workspace_root: &Path, command: &ShellCommand) -> Result<usize, ShellError> {
        self.background.start(&self.core, workspace_root, command)
    }

    /// The commands that were started in the background, ended ones too.
    pub fn jobs(&self) -> Vec<JobStatus> {
        self.background.list()
    }

    /// How command `id` is, what it wrote since this was last asked, and how many bytes before that were not kept.
    pub fn read_job(&self, id: usize) -> Option<(JobStatus, String, usize)> {
        self.background.read(id)
    }

    /// Stops command `id`; everything it started is dead when this returns.
    pub fn stop_job(&self, id: usize) -> Option<JobStatus> {
        self.background.stop(id)
    }
}

impl Core {
    fn run_in(
        &self,
        tier: SandboxTier,
        workspace_root: &Path,
        command: &ShellCommand,
        cancel: &AtomicBool,
        on_output: &mut dyn FnMut(&str),
    ) -> Result<ShellOutcome, ShellError> {
        if command.command.contains('\0') {
            return Err(ShellError::Nul);
        }
        let state = self.state.as_ref().map_err(|reason| ShellError::Io {
            doing: DIRECTORY,
            source: std::io::Error::other(reason.clone()),
        })?;
        let root = workspace_root.canonicalize().map_err(io_error("cannot open the workspace"))?;
        let directory = directory_of(&root, command.directory.as_deref())?;
        let mut environment = environment::scrubbed(&self.settings.environment, command.network);
        let place =
            policy::Place { directory: Some(directory.clone()), ..policy::Place::in_workspace(&root) };
        if policy::judge(&command.command, &place).verdict == policy::CommandVerdict::ReadOnly {
            environment = environment::for_reading(environment);
        }
        let layer = state.take_layer();
        let repositories = sandbox::repositories::Snapshot::of(&root);
        let wanted = layout::Wanted {
            workspace: &root,
            environment: &environment,
            repositories: &repositories,
            read_only: &self.settings.read_only,
            hidden: &self.settings.hidden,
            state: state.path(),
            layer: layer.path(),
        };
        let odd = |reason| ShellError::Workspace { path: root.clone(), reason };
        let (mut layout, mut reduced) = (None, None);
        match tier {
            SandboxTier::Full => layout = Some(layout::Layout::new(&wanted).map_err(odd)?),
            SandboxTier::Reduced => {
                reduced = Some(Reduced::new(&wanted).map_err(io_error(DIRECTORY))?.map_err(odd)?)
            }
            SandboxTier::None => {}
        }
        let environment = match &reduced {
            Some(Reduced { temporary, caches, .. }) => {
                reach::Reach::environment(environment, temporary.path(), caches)
            }
            None => environment,
        };
        let timeout = command.timeout.unwrap_or(DEFAULT_TIMEOUT);
        let plan = plan::Plan {
            parent: std::process::id(),
            layout,
            reach: reduced.as_mut().map(|reduced| std::mem::take(&mut reduced.reach)),
            network: command.network,
            arguments: vec![shell_program().into(), "-c".into(), OsString::from(&command.command)],
            environment,
            directory: directory.into(),
            limits: plan::Limits::for_timeout(timeout),
        };
        // The link names our program even where its file was replaced by an update meanwhile.
        let helper = self.settings.helper.as_deref().unwrap_or(Path::new("/proc/self/exe"));
        let started = std::time::Instant::now();
        let mut running = Running::start(helper, &plan)?;
        let mut capture = Capture::new(self.settings.keep_bytes, state.next_log());
        let ended = running.follow(timeout, cancel, &mut capture, on_output)?;
        let mut outcome = ended.outcome(tier)?;
        if let Some(reduced) = &reduced {
            outcome.warnings.extend(reduced.steering.restore(&root));
        }
        outcome.warnings.extend(repositories.check(&root));
        if tier == SandboxTier::Full {
            outcome.warnings.extend(repositories.check_kept(&root));
        }
        let (output, log) = capture.finish();
        outcome.truncated = log.is_some();
        (outcome.output, outcome.log) = (output, log);
        tracing::debug!(
            command = command.command,
            sandbox = %tier,
            exit = outcome.exit,
            signal = outcome.signal,
            timed_out = outcome.timed_out,
            seconds = started.elapsed().as_secs_f32(),
            "command ran"
        );
        Ok(outcome)
    }

    /// The tier, if commands can be held by it here.
    fn try_tier(&self, tier: SandboxTier) -> Result<SandboxTier, Unavailable> {
        match self.try_to_leave(tier) {
            Ok(()) => Ok(tier),
            Err(ShellError::Unavailable(unavailable)) => Err(unavailable),
            Err(other) => {
                let remedy = format!("{}, or {}", other.hint(), Unavailable::general_remedy());
                Err(Unavailable { reason: other.to_string(), remedy })
            }
        }
    }

    /// Runs a command that tries to leave the sandbox, and looks from outside whether it did.
    fn try_to_leave(&self, tier: SandboxTier) -> Result<(), ShellError> {
        const DOING: &str = DIRECTORY;
        let inside = tempfile::tempdir().map_err(io_error(DOING))?;
        let outside = tempfile::tempdir().map_err(io_error(DOING))?;
        let escape = outside.path().join("escaped");
        let command = ShellCommand {
            command: format!(
                "{{ mkdir -p {0}; : > {0}/escaped; : > /qwright-escaped; }} 2>/dev/null; : > inside && exit 7",
                quote(&outside.path().to_string_lossy())
            ),
            timeout: Some(Duration::from_secs(10)),
            ..ShellCommand::default()
        };
        let never = AtomicBool::new(false);
        let outcome = self.run_in(tier, inside.path(), &command, &never, &mut |_| {})?;
        let held = !escape.exists() && !Path::new("/qwright-escaped").exists();
        if outcome.exit == Some(7) && held && inside.path().join("inside").exists() {
            return Ok(());
        }
        Err(ShellError::Unavailable(Unavailable {
            reason: format!(
                "the trial command {}: exit {:?}, signal {:?}, {}",
                if held { "failed" } else { "could write outside the workspace" },
                outcome.exit,
                outcome.signal,
                outcome.output.trim()
            ),
            remedy: Unavailable::general_remedy(),
        }))
    }
}

const DIRECTORY: &str = "cannot make a temporary directory";

/// What a command of the reduced tier needs besides its plan.
struct Reduced {
    reach: reach::Reach,
    temporary: tempfile::TempDir,
    caches: PathBuf,
    steering: steering::Steering,
}

impl Reduced {
    fn new(wanted: &layout::Wanted<'_>) -> std::io::Result<Result<Self, &'static str>> {
        let temporary = tempfile::Builder::new().prefix("temporary-").tempdir_in(wanted.state)?;
        // Kept from command to command, as the layers of the full tier are.
        let caches = wanted.layer.join("caches");
        std::fs::create_dir_all(&caches)?;
        let (own, kept) = (temporary.path().canonicalize()?, caches.canonicalize()?);
        let made = reach::Reach::new(wanted, &own, &kept).and_then(|reach| {
            let steering = steering::Steering::of(&wanted.repositories.read_only)?;
            Ok(Self { reach, temporary, caches: kept, steering })
        });
        Ok(made)
    }
}

/// The directory to run in, which must lie in the workspace once links are resolved.
fn directory_of(root: &Path, directory: Option<&Path>) -> Result<PathBuf, ShellError> {
    let Some(wanted) = directory else { return Ok(root.to_path_buf()) };
    match root.join(wanted).canonicalize() {
        Ok(path) if path.starts_with(root) && path.is_dir() => Ok(path),
        _ => Err(ShellError::Directory { path: wanted.to_path_buf() }),
    }
}

fn shell_program() -> &'static str {
    ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash", "/run/current-system/sw/bin/bash"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("/bin/sh")
}

/// A word that the shell reads as itself.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_string();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
