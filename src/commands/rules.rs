//! Where the rules of a session come from: the user's settings and flags, and the file in the state directory that keeps
//! the others. Nothing of a repository.

use super::{Failure, exit};
use crate::agent::RuleSource;
use crate::agent::protocol::{Rule, RuleEffect};
use crate::config::Config;

pub fn source(config: &Config) -> Result<RuleSource, Failure> {
    let mut given = Vec::new();
    for (key, effect, texts) in [
        ("allow", RuleEffect::Allow, &config.settings.allow),
        ("deny", RuleEffect::Deny, &config.settings.deny),
    ] {
        for text in texts {
            let rule = Rule::parse(effect, text).map_err(|problem| {
                Failure::new(exit::USAGE, format!("{key}: {problem} (last set by {})", config.origin(key)))
            })?;
            given.push(rule);
        }
    }
    Ok(RuleSource { file: config.dirs.state().ok().map(|state| state.join("rules.toml")), given })
}

/// The same where nobody is there to see that rules which deny could not be read.
pub fn whole_source(config: &Config, directory: &std::path::Path) -> Result<RuleSource, Failure> {
    let source = source(config)?;
    source.check(&directory.display().to_string()).map_err(|problem| {
        Failure::new(exit::USAGE, problem).hint("correct the file: rules that deny may be missing")
    })?;
    Ok(source)
}
