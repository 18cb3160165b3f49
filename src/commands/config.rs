//! `qwright config show|path`: every setting with its value and where it came from, and the file to edit.

use super::{CommandResult, Failure, exit};
use crate::config::{Config, ConfigError, KEYS, LoadOptions};
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: Option<ConfigCommand>,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Every setting, its value and where the value came from
    Show {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// The file that holds your own settings (it need not exist)
    Path,
}

impl From<ConfigError> for Failure {
    fn from(e: ConfigError) -> Self {
        let hint = match &e {
            ConfigError::NoHome(_) => Some("set HOME, or name the directory itself"),
            ConfigError::UnknownKey { .. } => Some("`qwright config show` lists every setting"),
            _ => None,
        };
        let failure = Failure::new(exit::USAGE, e.to_string());
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

pub fn run(args: &ConfigArgs, options: &LoadOptions) -> CommandResult {
    match &args.command {
        Some(ConfigCommand::Path) => {
            let dirs = crate::config::Dirs::new(&options.env);
            println!("{}", dirs.config_file()?.display());
        }
        Some(ConfigCommand::Show { json: true }) => println!("{:#}", as_json(&Config::load(options)?)),
        Some(ConfigCommand::Show { json: false }) | None => print!("{}", as_text(&Config::load(options)?)),
    }
    Ok(exit::DONE)
}

fn as_json(config: &Config) -> serde_json::Value {
    let settings: serde_json::Map<_, _> = KEYS
        .iter()
        .map(|key| {
            let value = serde_json::json!({
                "value": config.settings.shown(key.name),
                "origin": config.origin(key.name).to_string(),
            });
            (key.name.to_string(), value)
        })
        .collect();
    settings.into()
}

fn as_text(config: &Config) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for key in KEYS {
        let value = config.settings.shown(key.name).unwrap_or_else(|| "-".into());
        let _ = writeln!(out, "{:<15} {value:<24} {:<24} {}", key.name, config.origin(key.name), key.help);
    }
    if let Some(path) = &config.ignored_file {
        let _ = writeln!(out, "not read: {} (this repository is not trusted)", path.display());
    }
    out
}
