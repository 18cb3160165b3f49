//! Rules of the user: which calls run unasked, and which never run. A rule names a tool and, if it likes, the first words
//! of a command or a path; `text` says how that is written, `store` keeps what outlives the session. Matching is pure. A rule
//! that denies wins over the mode and over every rule that allows, of any scope. One that allows answers for the user
//! where the user would be asked; which questions those are is `approval`'s to say.
//!
//! What is not seen: the programs that a script or a build runs, and the files that a command or a search looks at. A rule
//! saves questions and names what is not wanted; the sandbox is the boundary.

mod matching;
mod store;
mod text;

use crate::tools::{Access, Arguments, Registry};
use crate::workspace::shell::policy::Commands;
use matching::Hit;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleEffect {
    Allow,
    Deny,
}

/// Written `allow edit(src/**)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    pub effect: RuleEffect,
    /// `None`: every tool that names a path.
    pub tool: Option<String>,
    /// `None`: every call of the tool.
    pub only: Option<Only>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Only {
    /// Commands that begin with these words.
    Command(Vec<String>),
    /// Calls that name a path like this, relative to the workspace.
    Path(String),
}

/// How long a rule holds, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleScope {
    /// Named by a flag or in the user's settings.
    Settings,
    /// Kept, for every directory.
    Everywhere,
    /// Kept, for this directory.
    Always,
    /// Until the session ends.
    Session,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRule {
    pub rule: Rule,
    pub scope: RuleScope,
}

/// What a session's rules come from.
#[derive(Debug, Clone, Default)]
pub struct RuleSource {
    /// Where rules are kept; `None` keeps none.
    pub file: Option<PathBuf>,
    /// Those of flags and settings.
    pub given: Vec<Rule>,
}

impl RuleSource {
    /// Whether the rules that are kept can all be read, for whoever would rather not begin without them.
    pub fn check(&self, directory: &str) -> Result<(), String> {
        let stored = self.file.as_deref().map(|file| store::read(file, directory)).unwrap_or_default();
        if stored.lost { Err(stored.problems.join("; ")) } else { Ok(()) }
    }
}

/// A call as rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub tool: &'a str,
    pub access: Access,
    /// Where the paths that it names lead, relative to the workspace.
    pub paths: &'a [String],
    pub commands: Option<&'a Commands>,
    /// It changes a file that steers later runs.
    pub steers: bool,
}

/// Whether rules deny a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Denied<'r> {
    No,
    /// What the call does cannot be read for certain, and it may be what this rule denies.
    Perhaps(&'r Rule),
    By(&'r Rule),
}

/// All rules that hold in a session.
#[derive(Debug, Default)]
pub struct Rules {
    held: Vec<HeldRule>,
    /// The file could not be read as a whole: rules that deny may be missing.
    lost: bool,
    /// What was said of the file already.
    told: Vec<String>,
    file: Option<PathBuf>,
}

impl Rules {
    /// Takes up what the source says now; rules of the session stay. Returns what is wrong with the file and was not
    /// told before.
    pub fn reload(&mut self, source: &RuleSource, directory: &str) -> Vec<String> {
        let stored = source.file.as_deref().map(|file| store::read(file, directory)).unwrap_or_default();
        let given =
            source.given.iter().map(|rule| HeldRule { rule: rule.clone(), scope: RuleScope::Settings });
        let session = self.held.drain(..).filter(|held| held.scope == RuleScope::Session);
        self.held = given.chain(stored.rules).chain(session.collect::<Vec<_>>()).collect();
        self.lost = stored.lost;
        self.file = source.file.as_deref().map(|file| file.canonicalize().unwrap_or_else(|_| file.into()));
        let told = std::mem::replace(&mut self.told, stored.problems);
        self.told.iter().filter(|problem| !told.contains(problem)).cloned().collect()
    }

    pub fn held(&self) -> &[HeldRule] {
        &self.held
    }

    /// The file of the rules that are kept.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Rules that deny may be missing.
    pub fn are_lost(&self) -> bool {
        self.lost
    }

    /// Adds a rule. One that cannot be kept holds for the session, and the error says so.
    pub fn add(&mut self, held: HeldRule, source: &RuleSource, directory: &str) -> Result<(), String> {
        let kept = match (held.scope, &source.file) {
            (RuleScope::Session, _) => Ok(()),
            (RuleScope::Settings, _) => Err("rules of the settings are written into config.toml".into()),
            (_, None) => Err("there is no directory to keep rules in; set HOME or XDG_STATE_HOME".into()),
            (_, Some(file)) => store::change(file, directory, &held, true),
        };
        let scope = if kept.is_ok() { held.scope } else { RuleScope::Session };
        let held = HeldRule { scope, ..held };
        if !self.held.contains(&held) {
            self.held.push(held);
        }
        kept.map_err(|problem| format!("the rule holds for this session only: {problem}"))
    }

    pub fn remove(&mut self, held: &HeldRule, source: &RuleSource, directory: &str) -> Result<(), String> {
        match (held.scope, &source.file) {
            (RuleScope::Session, _) => {}
            (RuleScope::Settings, _) => {
                return Err("the rule comes from a flag or from config.toml, so it is changed there".into());
            }
            (_, None) => return Err("no rules are kept here".into()),
            (_, Some(file)) => store::change(file, directory, held, false)?,
        }
        self.held.retain(|one| one != held);
        Ok(())
    }

    pub fn denied(&self, call: &Call<'_>) -> Denied<'_> {
        let mut denied = Denied::No;
        for rule in self.of(RuleEffect::Deny) {
            match rule.denies(call) {
                Hit::Yes => return Denied::By(rule),
                Hit::Perhaps if denied == Denied::No => denied = Denied::Perhaps(rule),
                Hit::Perhaps | Hit::No => {}
            }
        }
        denied
    }

    /// Whether rules answer for the user: each command of the line, or each path, is allowed.
    pub fn allow(&self, call: &Call<'_>) -> bool {
        let rules = || self.of(RuleEffect::Allow).filter(|rule| rule.is_of(call.tool));
        match (call.access, call.commands) {
            (Access::Execute, Some(commands)) => commands.plain.as_ref().is_some_and(|plain| {
                plain.iter().all(|one| one.reads || rules().any(|rule| rule.allows_command(&one.words)))
            }),
            (Access::Write, _) => {
                let allowed = |path: &String| rules().any(|rule| rule.allows_path(path, call.steers));
                !call.paths.is_empty() && call.paths.iter().all(allowed)
            }
            _ => false,
        }
    }

    /// The rule that would let this call, and others like it, run unasked.
    pub fn suggest(&self, call: &Call<'_>) -> Option<Rule> {
        let only = match (call.access, call.commands) {
            (Access::Execute, Some(commands)) => {
                let rules = || self.of(RuleEffect::Allow).filter(|rule| rule.is_of(call.tool));
                let open = commands
                    .plain
                    .as_ref()?
                    .iter()
                    .filter(|one| !one.reads && !rules().any(|rule| rule.allows_command(&one.words)));
                let mut prefixes = open.map(|one| matching::prefix_of(&one.words));
                let first = prefixes.next()??;
                // One question is answered by one rule, or by none.
                prefixes.all(|prefix| prefix.as_ref() == Some(&first)).then_some(Only::Command(first))?
            }
            (Access::Write, _) => match call.paths {
                [path] => Only::Path(matching::around(path, call.steers)),
                _ => return None,
            },
            _ => return None,
        };
        let rule = Rule { effect: RuleEffect::Allow, tool: Some(call.tool.into()), only: Some(only) };
        // What is shown is what is kept.
        let reads_back = rule.to_string().parse::<Rule>().as_ref() == Ok(&rule);
        (reads_back && !rule.to_string().contains(char::is_control)).then_some(rule)
    }

    fn of(&self, effect: RuleEffect) -> impl Iterator<Item = &Rule> {
        self.held.iter().map(|held| &held.rule).filter(move |rule| rule.effect == effect)
    }
}

/// What rules may say of a tool.
struct Known {
    name: String,
    takes_command: bool,
    takes_path: bool,
    writes: bool,
}

static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let registry = Registry::standard();
    let known = |name: &str| {
        let tool = registry.get(name)?;
        let takes = |parameter: &str| !tool.spec().parameters["properties"][parameter].is_null();
        Some(Known {
            name: name.to_string(),
            takes_command: takes("command"),
            takes_path: ["file_path", "path", "paths"].into_iter().any(takes),
            writes: tool.access(&Arguments::new()) == Access::Write,
        })
    };
    registry.names().filter_map(known).collect()
});

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
