//! How a rule is written: `run_shell_command(cargo test)`, `edit(src/**)`, `write_file`, `*(secrets/)` for every tool that
//! names a path; with `allow` or `deny` before it where both may stand.

use super::{KNOWN, Only, Rule, RuleEffect};
use crate::workspace::shell::policy::{Place, read_commands};
use crate::workspace::shell::quote;
use std::fmt;
use std::str::FromStr;

impl RuleEffect {
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl Rule {
    /// The rule without its effect, as users write it.
    pub fn parse(effect: RuleEffect, text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (name, inner) = match text.split_once('(') {
            None => (text, None),
            Some((name, rest)) => match rest.strip_suffix(')') {
                Some(inner) => (name, Some(inner.trim())),
                None => return Err(format!("`{text}` lacks its closing bracket, as in edit(src/**)")),
            },
        };
        let name = name.trim();
        let known = KNOWN.iter().find(|known| known.name == name);
        if known.is_none() && name != "*" {
            let names: Vec<&str> = KNOWN.iter().map(|known| known.name.as_str()).collect();
            return Err(format!(
                "`{text}` names no tool; a rule begins with one of {}, or with * for all that name a path",
                names.join(", ")
            ));
        }
        let only = match (inner, known) {
            (None, None) => return Err("`*` needs a path, as in *(secrets/)".into()),
            (None, Some(_)) => None,
            (Some(""), _) => return Err(format!("`{text}` names nothing in its brackets; leave them out")),
            (Some(inner), Some(known)) if known.takes_command => Some(Only::Command(words(inner)?)),
            (Some(_), Some(known)) if !known.takes_path => {
                return Err(format!("{name} takes no path, so a rule for it is `{name}` alone"));
            }
            (Some(inner), _) => Some(Only::Path(path(inner)?)),
        };
        Ok(Self { effect, tool: known.map(|known| known.name.clone()), only })
    }
}

/// A prefix is plain words; quotes are taken off as a shell would.
fn words(text: &str) -> Result<Vec<String>, String> {
    let plain = read_commands(text, &Place::default()).plain.unwrap_or_default();
    let words: Option<Vec<String>> = match &plain[..] {
        [one] => one.words.iter().cloned().collect(),
        _ => None,
    };
    words.filter(|_| !text.contains(['<', '>', '\n'])).ok_or_else(|| {
        format!(
            "`{text}` is more than the first words of one command: no operators, variables or patterns (`cargo test` \
             means all that begins so; quote what is to be taken as it stands)"
        )
    })
}

fn path(text: &str) -> Result<String, String> {
    let text = text.strip_prefix("./").unwrap_or(text);
    let leaves = text.split('/').any(|part| part == "..");
    if text.starts_with(['/', '~']) || leaves || text.is_empty() || text.contains(char::is_control) {
        return Err(format!("`{text}` is no path relative to the workspace, as in src/** or docs/"));
    }
    let glob = if text.ends_with('/') { format!("{text}**") } else { text.to_string() };
    match super::matching::glob(&glob, RuleEffect::Allow) {
        Ok(_) => Ok(glob),
        Err(problem) => Err(format!("`{text}` is no path or pattern: {problem}")),
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.effect.name(), self.text())
    }
}

impl Rule {
    /// Without `allow` or `deny`.
    pub fn text(&self) -> String {
        let tool = self.tool.as_deref().unwrap_or("*");
        match &self.only {
            None => tool.to_string(),
            Some(Only::Path(path)) => format!("{tool}({path})"),
            Some(Only::Command(words)) => {
                let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
                format!("{tool}({})", words.join(" "))
            }
        }
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().split_once(char::is_whitespace) {
            Some(("allow", rest)) => Self::parse(RuleEffect::Allow, rest),
            Some(("deny", rest)) => Self::parse(RuleEffect::Deny, rest),
            _ => Err(format!("`{text}` begins with neither allow nor deny")),
        }
    }
}

impl TryFrom<String> for Rule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.to_string()
    }
}
