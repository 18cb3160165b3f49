//! Layered settings and directories: defaults, the user's file, a trusted repository's file, `QWRIGHT_*`, flags.
//!
//! Every value carries its [`Origin`], so that `qwright config show` can say where it came from. The process
//! environment enters as a value ([`Env`]), never by global look-up: tests and embedders say what it holds.
//! What a setting *means* is for its reader; whether a repository is trusted is decided by the caller.

mod dirs;
mod keys;
pub mod trust;

pub use dirs::{Dirs, Env};
pub use keys::{
    ApprovalMode, BackendChoice, KEYS, Key, KvKind, LoadKind, SandboxMode, Settings, Switch, ThemeChoice,
    nearest,
};

use keys::Raw;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Where a value came from; later origins win over earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    Default,
    UserFile { path: PathBuf, line: usize },
    RepositoryFile { path: PathBuf, line: usize },
    Env(String),
    Flag(String),
}

impl Origin {
    /// The layer alone, without the place in it.
    fn layer(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::UserFile { .. } => 1,
            Self::RepositoryFile { .. } => 2,
            Self::Env(_) => 3,
            Self::Flag(_) => 4,
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::UserFile { path, line } | Self::RepositoryFile { path, line } => {
                write!(f, "{}:{line}", path.display())
            }
            Self::Env(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A setting or a directory that cannot be had. The command line ends with exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{origin}: unknown setting `{key}`{}", nearest.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey { origin: Origin, key: String, nearest: Option<&'static str> },
    #[error("{origin}: {key}: {problem}")]
    BadValue { origin: Origin, key: &'static str, problem: String },
    #[error("{path}:{line}: {problem}")]
    Syntax { path: String, line: usize, problem: String },
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("no home directory is known: HOME is unset or no absolute path, and so is {0}")]
    NoHome(&'static str),
}

/// What to load the settings from.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    pub env: Env,
    /// The repository's `.qwright/config.toml`, if there is one (see [`repository_file`]).
    pub repository_file: Option<PathBuf>,
    /// The repository's file is read only if the user trusts the repository.
    pub trusted: bool,
    /// (key, value, the flag as typed, e.g. `--kv`), in the order given.
    pub flags: Vec<(&'static str, String, &'static str)>,
}

impl LoadOptions {
    /// With the settings of the repository around `dir`, which are read only if it is trusted: by `said`, or for good
    /// where `stored` says to look.
    pub fn in_repository(mut self, dir: &Path, said: bool, stored: bool) -> Self {
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
        let known = || {
            let state = Dirs::new(&self.env).state();
            state.is_ok_and(|state| trust::is_trusted(&state, &trust::repository_of(&dir)))
        };
        self.trusted = said || stored && known();
        self.repository_file = repository_file(&dir);
        self
    }
}

/// All settings with their origins, and the directories.
#[derive(Debug, Clone)]
pub struct Config {
    pub settings: Settings,
    pub dirs: Dirs,
    pub env: Env,
    origins: BTreeMap<&'static str, Origin>,
    /// A repository file that was left unread because its repository is not trusted.
    pub ignored_file: Option<PathBuf>,
}

impl Config {
    pub fn load(options: &LoadOptions) -> Result<Self, ConfigError> {
        let dirs = Dirs::new(&options.env);
        let mut config = Self {
            settings: Settings::default(),
            dirs,
            env: options.env.clone(),
            origins: BTreeMap::new(),
            ignored_file: None,
        };
        if let Ok(path) = config.dirs.config_file() {
            config.read_file(&path, |path, line| Origin::UserFile { path, line })?;
        }
        match &options.repository_file {
            Some(path) if options.trusted => {
                config.read_file(path, |path, line| Origin::RepositoryFile { path, line })?;
            }
            Some(path) if path.exists() => config.ignored_file = Some(path.clone()),
            _ => {}
        }
        for key in KEYS {
            let name = key.env_name();
            if let Some(value) = options.env.get(&name) {
                let origin = Origin::Env(name);
                let Some(text) = value.to_str() else {
                    let problem = "is not valid UTF-8".to_string();
                    return Err(ConfigError::BadValue { origin, key: key.name, problem });
                };
                config.apply(key.name, Raw::Text(text), origin)?;
            }
        }
        for (key, value, flag) in &options.flags {
            config.apply(key, Raw::Text(value), Origin::Flag((*flag).to_string()))?;
        }
        Ok(config)
    }

    /// Where the value of `key` came from.
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }

    /// The user picks another model: that wins over all layers.
    pub fn choose_model(&mut self, name: String) {
        self.settings.model = Some(name);
        self.origins.insert("model", Origin::Flag("/model".into()));
    }

    /// `key` was set in the layer of `other` or in one that wins over it: whoever set it knew of that.
    pub fn set_with(&self, key: &str, other: &str) -> bool {
        self.origin(key).layer() >= self.origin(other).layer()
    }

    fn read_file(
        &mut self,
        path: &Path,
        origin: impl Fn(PathBuf, usize) -> Origin,
    ) -> Result<(), ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e)
                if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
            {
                return Ok(());
            }
            Err(source) => return Err(ConfigError::Io { path: path.display().to_string(), source }),
        };
        let table = DeTable::parse(&text).map_err(|e| ConfigError::Syntax {
            path: path.display().to_string(),
            line: e.span().map_or(1, |s| line_of(&text, s.start)),
            problem: e.message().replace('\n', " "),
        })?;
        for (key, value) in table.get_ref() {
            let place = |at| origin(path.to_path_buf(), line_of(&text, at));
            if let DeValue::Array(items) = value.get_ref()
                && keys::is_list(key.get_ref())
            {
                for item in items.iter() {
                    let raw = match item.get_ref() {
                        DeValue::String(text) => Raw::Text(text.as_ref()),
                        _ => Raw::Other("what is in the list"),
                    };
                    self.apply(key.get_ref(), raw, place(item.span().start))?;
                }
                continue;
            }
            let origin = place(key.span().start);
            let raw = match value.get_ref() {
                DeValue::String(s) => Raw::Text(s.as_ref()),
                DeValue::Integer(i) => Raw::Number(match i64::from_str_radix(i.as_str(), i.radix()) {
                    Ok(n) => n.to_string(),
                    Err(_) => i.to_string(),
                }),
                DeValue::Float(x) => Raw::Number(x.to_string()),
                DeValue::Boolean(b) => Raw::Other(if *b { "true" } else { "false" }),
                _ => Raw::Other("a table, list or date"),
            };
            self.apply(key.get_ref(), raw, origin)?;
        }
        Ok(())
    }

    fn apply(&mut self, key: &str, raw: Raw<'_>, origin: Origin) -> Result<(), ConfigError> {
        let Some(known) = KEYS.iter().find(|k| k.name == key) else {
            return Err(ConfigError::UnknownKey { origin, key: key.to_string(), nearest: nearest_key(key) });
        };
        let bad = |problem: String, origin| ConfigError::BadValue { origin, key: known.name, problem };
        if matches!(origin, Origin::RepositoryFile { .. })
            && let Some(problem) = keys::not_for_repositories(known.name, &raw)
        {
            return Err(bad(problem, origin));
        }
        match self.settings.set(known.name, raw) {
            Ok(()) => {
                self.origins.insert(known.name, origin);
                Ok(())
            }
            Err(problem) => Err(bad(problem, origin)),
        }
    }
}

/// The `.qwright/config.toml` of the repository around `dir`: the nearest, looked for in `dir` and above it up to what
/// is trusted as one ([`trust::repository_of`]). It need not be trusted; see [`LoadOptions::trusted`].
pub fn repository_file(dir: &Path) -> Option<PathBuf> {
    let top = trust::repository_of(dir);
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let within = dir.ancestors().take_while(|dir| dir.starts_with(&top));
    within.map(|dir| dir.join(".qwright/config.toml")).find(|file| file.is_file())
}

fn nearest_key(key: &str) -> Option<&'static str> {
    nearest(&key.replace('-', "_").to_lowercase(), KEYS.iter().map(|k| k.name))
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}
