//! Where files live: the XDG base directories, with the overrides of the environment.
//! A directory that is not known is an error only for whoever asks for it: `--help` needs no home.

use super::ConfigError;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// The environment variables that were there when the program started.
#[derive(Debug, Clone, Default)]
pub struct Env(BTreeMap<OsString, OsString>);

impl Env {
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// An environment of exactly these variables.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a OsStr)>) -> Self {
        Self(pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }

    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|v| !v.is_empty())
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(OsStr::to_str)
    }

    /// Set to something other than `0`, `false`, `no` or `off`.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name)
            .is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "0" | "false" | "no" | "off"))
    }

    /// An absolute path; the XDG specification says to ignore others.
    fn absolute(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from).filter(|p| p.is_absolute())
    }
}

/// The directories of this user. Nothing is created here.
#[derive(Debug, Clone, Default)]
pub struct Dirs {
    config: Option<PathBuf>,
    cache: Option<PathBuf>,
    state: Option<PathBuf>,
    models: Option<PathBuf>,
}

impl Dirs {
    pub fn new(env: &Env) -> Self {
        let home = env.absolute("HOME");
        let dir = |xdg: &str, below_home: &str| {
            env.absolute(xdg).or_else(|| home.as_ref().map(|h| h.join(below_home))).map(|d| d.join("qwright"))
        };
        Self {
            config: dir("XDG_CONFIG_HOME", ".config"),
            cache: dir("XDG_CACHE_HOME", ".cache"),
            state: dir("XDG_STATE_HOME", ".local/state"),
            models: env.get("QWRIGHT_MODELS_DIR").map(PathBuf::from),
        }
    }

    /// The user's settings: `config.toml` (it need not exist).
    pub fn config_file(&self) -> Result<PathBuf, ConfigError> {
        Ok(known(&self.config, "XDG_CONFIG_HOME")?.join("config.toml"))
    }

    /// Sessions, trust and KV snapshots.
    pub fn state(&self) -> Result<PathBuf, ConfigError> {
        known(&self.state, "XDG_STATE_HOME")
    }

    pub fn cache(&self) -> Result<PathBuf, ConfigError> {
        known(&self.cache, "XDG_CACHE_HOME")
    }

    /// Pulled models: `QWRIGHT_MODELS_DIR`, else `models` in the cache.
    pub fn models(&self) -> Result<PathBuf, ConfigError> {
        match &self.models {
            Some(dir) => Ok(dir.clone()),
            None => Ok(self.cache()?.join("models")),
        }
    }
}

fn known(dir: &Option<PathBuf>, xdg: &'static str) -> Result<PathBuf, ConfigError> {
    dir.clone().ok_or(ConfigError::NoHome(xdg))
}
