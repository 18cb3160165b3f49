//! Runs one shell command in the sandbox and says how it ended: output, exit, limits that were hit, log on disk.
//!
//! [`Shell::probe`] finds out once, by doing it, which protection this machine gives; [`Shell::run`] starts our own
//! binary as a helper (see [`super::sandbox`]), hands it a plan and reads output, report and clock in one loop.
//! Nothing here decides *whether* a command may run: that is the agent's, by `safety.md`'s table. Nothing here
//! escapes output for a terminal: that is the front end's.

mod capture;
mod environment;

pub use super::sandbox::{SandboxTier, Unavailable};

use super::sandbox::{self, layout, plan};
use capture::Capture;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a command may run unless it asks for another time.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
/// How often the clock and the cancel flag are looked at while the command is silent.
const TICK: Duration = Duration::from_millis(20);
/// How long the helper may take to kill its processes before it is killed itself.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// Which sandbox the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
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
            Self::Lost => "it was killed from outside, perhaps for memory; run the command again".into(),
        }
    }
}

fn io_error(doing: &'static str) -> impl FnOnce(std::io::Error) -> ShellError {
    move |source| ShellError::Io { doing, source }
}

/// A way to run commands, with the protection that was found for it.
pub struct Shell {
    settings: ShellSettings,
    /// What commands run in, or why none may run.
    found: Result<SandboxTier, Unavailable>,
    state: Result<State, String>,
}

/// The per-process directory (mode 0700) for logs and the private layers of build caches.
struct State {
    directory: tempfile::TempDir,
    next_log: AtomicUsize,
    /// Cache layers no command is using; two commands never write one layer.
    idle_layers: Mutex<Vec<PathBuf>>,
    next_layer: AtomicUsize,
}

impl Shell {
    /// Finds the sandbox of this machine by running one command through the whole path.
    pub fn probe(choice: SandboxChoice) -> Self {
        Self::with(ShellSettings { choice, ..ShellSettings::default() })
    }

    /// As [`Shell::probe`], with every setting.
    pub fn with(settings: ShellSettings) -> Self {
        let state = State::new().map_err(|error| error.to_string());
        let mut shell = Self { found: Ok(SandboxTier::None), settings, state };
        shell.found = match shell.settings.choice {
            SandboxChoice::None => Ok(SandboxTier::None),
            SandboxChoice::Reduced => Err(Unavailable::not_built_yet()),
            SandboxChoice::Auto | SandboxChoice::Full => match shell.try_full() {
                Ok(()) => Ok(SandboxTier::Full),
                Err(ShellError::Unavailable(unavailable)) => Err(unavailable),
                Err(other) => Err(Unavailable { reason: other.to_string(), remedy: other.hint() }),
            },
        };
        shell
    }

    /// What commands run in. `None` also where nothing runs at all: see [`Shell::unavailable`].
    pub fn tier(&self) -> SandboxTier {
        self.found.as_ref().copied().unwrap_or(SandboxTier::None)
    }

    /// Why no command can run here; `None` where commands run.
    pub fn unavailable(&self) -> Option<&Unavailable> {
        self.found.as_ref().err()
    }

    /// One line: the tier, what it does not protect, and what would help.
    pub fn status_line(&self) -> String {
        match &self.found {
            Ok(SandboxTier::Full) => "sandbox: full (writes only in the workspace, no network, home hidden; does \
                 not protect files in the workspace, reads outside home, or against kernel bugs)"
                .into(),
            Ok(SandboxTier::Reduced) => "sandbox: reduced".into(),
            Ok(SandboxTier::None) => "sandbox: none, as asked (commands can read and write what you can, and use \
                 the network; leave out `--sandbox none` to be protected)"
                .into(),
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
        let tier = self.found.clone().map_err(ShellError::Unavailable)?;
        self.run_in(tier, workspace_root, command, cancel, on_output)
    }

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
            doing: "cannot make a temporary directory",
            source: std::io::Error::other(reason.clone()),
        })?;
        let root = workspace_root.canonicalize().map_err(io_error("cannot open the workspace"))?;
        let directory = directory_of(&root, command.directory.as_deref())?;
        let environment = environment::scrubbed(&self.settings.environment, command.network);
        let layer = state.take_layer();
        let repositories = sandbox::repositories::Snapshot::of(&root);
        let layout = match tier {
            SandboxTier::Full => Some(
                layout::Layout::new(&layout::Wanted {
                    workspace: &root,
                    environment: &environment,
                    repositories: &repositories,
                    read_only: &self.settings.read_only,
                    hidden: &self.settings.hidden,
                    state: state.directory.path(),
                    layer: layer.path(),
                })
                .map_err(|reason| ShellError::Workspace { path: root.clone(), reason })?,
            ),
            SandboxTier::Reduced | SandboxTier::None => None,
        };
        let timeout = command.timeout.unwrap_or(DEFAULT_TIMEOUT);
        let plan = plan::Plan {
            parent: std::process::id(),
            layout,
            network: command.network,
            arguments: vec![shell_program().into(), "-c".into(), OsString::from(&command.command)],
            environment,
            directory: directory.into(),
            limits: plan::Limits::for_timeout(timeout),
        };
        let mut running = self.start(&plan)?;
        let mut capture = Capture::new(self.settings.keep_bytes, state.next_log());
        let ended = running.follow(timeout, cancel, &mut capture, on_output)?;
        let mut outcome = ended.outcome(tier)?;
        outcome.warnings.extend(repositories.check(&root));
        let (output, log) = capture.finish();
        outcome.truncated = log.is_some();
        (outcome.output, outcome.log) = (output, log);
        Ok(outcome)
    }

    fn start(&self, plan: &plan::Plan) -> Result<Running, ShellError> {
        const DOING: &str = "cannot start the sandbox helper";
        // The link names our program even where its file was replaced by an update meanwhile.
        let helper = self.settings.helper.clone().unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
        let (output, output_writer) = std::io::pipe().map_err(io_error(DOING))?;
        let (reports, reports_writer) = std::io::pipe().map_err(io_error(DOING))?;
        let mut child = Command::new(helper)
            .arg(sandbox::INIT_ARGUMENT)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(output_writer)
            .stderr(reports_writer)
            .spawn()
            .map_err(io_error(DOING))?;
        let mut control = child.stdin.take().ok_or(ShellError::Lost)?;
        let bytes = plan.to_bytes().map_err(io_error(DOING))?;
        if let Err(error) = control.write_all(&bytes) {
            drop(control);
            let _ = child.wait();
            return Err(io_error(DOING)(error));
        }
        Ok(Running { child, control: Some(control), output: Some(output), reports: Some(reports), report: vec![] })
    }

    /// Runs a command that tries to leave the sandbox, and looks from outside whether it did.
    fn try_full(&self) -> Result<(), ShellError> {
        const DOING: &str = "cannot make a temporary directory";
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
        let outcome = self.run_in(SandboxTier::Full, inside.path(), &command, &never, &mut |_| {})?;
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

impl State {
    fn new() -> std::io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("qwright-").tempdir()?;
        Ok(Self {
            directory,
            next_log: AtomicUsize::new(1),
            idle_layers: Mutex::new(Vec::new()),
            next_layer: AtomicUsize::new(0),
        })
    }

    fn next_log(&self) -> PathBuf {
        let number = self.next_log.fetch_add(1, Ordering::Relaxed);
        self.directory.path().join(format!("command-{number}.log"))
    }

    fn take_layer(&self) -> Layer<'_> {
        let idle = self.idle_layers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let path = idle.unwrap_or_else(|| {
            let number = self.next_layer.fetch_add(1, Ordering::Relaxed);
            self.directory.path().join(format!("caches-{number}"))
        });
        Layer { state: self, path }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // overlayfs leaves a directory of mode 0 behind, which its owner cannot list and so not delete.
        sandbox::layout::make_deletable(self.directory.path());
    }
}

/// The private layer of the build caches, lent to one command at a time and kept for the next.
struct Layer<'a> {
    state: &'a State,
    path: PathBuf,
}

impl Layer<'_> {
    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Layer<'_> {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        self.state.idle_layers.lock().unwrap_or_else(PoisonError::into_inner).push(path);
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

/// A command between start and end.
struct Running {
    child: Child,
    /// Closing this is the order to kill everything; our death closes it as well.
    control: Option<std::process::ChildStdin>,
    output: Option<std::io::PipeReader>,
    reports: Option<std::io::PipeReader>,
    report: Vec<u8>,
}

/// What was seen of a command's end.
struct Ended {
    report: Option<plan::Report>,
    timed_out: bool,
    cancelled: bool,
}

impl Running {
    fn follow(
        &mut self,
        timeout: Duration,
        cancel: &AtomicBool,
        capture: &mut Capture,
        on_output: &mut dyn FnMut(&str),
    ) -> Result<Ended, ShellError> {
        const DOING: &str = "cannot read the command's output";
        let deadline = Instant::now().checked_add(timeout);
        let mut kill_by: Option<Instant> = None;
        let (mut timed_out, mut cancelled) = (false, false);
        // The report pipe is held by the helper alone: its end means that the helper is gone.
        while self.reports.is_some() {
            if kill_by.is_none() {
                cancelled = cancel.load(Ordering::Relaxed);
                timed_out = !cancelled && deadline.is_some_and(|deadline| Instant::now() >= deadline);
                if cancelled || timed_out {
                    self.control = None;
                    kill_by = Some(Instant::now() + KILL_GRACE);
                }
            } else if kill_by.is_some_and(|by| Instant::now() >= by) {
                let _ = self.child.kill();
                break;
            }
            self.read_ready(TICK, capture, on_output).map_err(io_error(DOING))?;
        }
        self.control = None;
        let _ = self.child.wait();
        // What is still in the pipe. Without namespaces something that got away may hold it open: do not wait for it.
        let until = Instant::now() + Duration::from_millis(200);
        while self.output.is_some() && Instant::now() < until {
            if !self.read_ready(TICK, capture, on_output).map_err(io_error(DOING))? && kill_by.is_some() {
                break;
            }
        }
        capture.flush(on_output);
        let report = self.report.split(|byte| *byte == b'\n').rev().find_map(plan::Report::from_bytes);
        Ok(Ended { report, timed_out, cancelled })
    }

    /// Waits up to `wait` and reads once from what has something; false if nothing had.
    fn read_ready(
        &mut self,
        wait: Duration,
        capture: &mut Capture,
        on_output: &mut dyn FnMut(&str),
    ) -> std::io::Result<bool> {
        let (mut output_ready, mut reports_ready) = (false, false);
        {
            let mut waiting = Vec::with_capacity(2);
            if let Some(output) = &self.output {
                waiting.push(PollFd::new(output, PollFlags::IN));
            }
            if let Some(reports) = &self.reports {
                waiting.push(PollFd::new(reports, PollFlags::IN));
            }
            let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
            match poll(&mut waiting, Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut ready = waiting.iter().map(|fd| !fd.revents().is_empty());
            if self.output.is_some() {
                output_ready = ready.next().unwrap_or(false);
            }
            if self.reports.is_some() {
                reports_ready = ready.next().unwrap_or(false);
            }
        }
        let mut buffer = [0; 64 * 1024];
        if output_ready && let Some(output) = &mut self.output {
            match output.read(&mut buffer)? {
                0 => self.output = None,
                count => capture.push(&buffer[..count], on_output),
            }
        }
        if reports_ready && let Some(reports) = &mut self.reports {
            match reports.read(&mut buffer)? {
                0 => self.reports = None,
                count => self.report.extend_from_slice(&buffer[..count]),
            }
        }
        Ok(output_ready || reports_ready)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.control = None;
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Ended {
    fn outcome(self, sandbox: SandboxTier) -> Result<ShellOutcome, ShellError> {
        let Self { report, timed_out, cancelled } = self;
        let mut outcome = ShellOutcome { timed_out, cancelled, sandbox, ..ShellOutcome::default() };
        match report {
            Some(plan::Report::Failed { step, errno }) => {
                return Err(ShellError::Unavailable(sandbox::diagnose(&step, errno)));
            }
            Some(plan::Report::Exited(code)) => outcome.exit = Some(code),
            Some(plan::Report::Killed(signal)) => outcome.signal = Some(signal),
            Some(plan::Report::Stopped(why)) => {
                outcome.signal = Some(libc::SIGKILL);
                outcome.warnings.push(why);
            }
            None if timed_out || cancelled => outcome.signal = Some(libc::SIGKILL),
            None => return Err(ShellError::Lost),
        }
        Ok(outcome)
    }
}
