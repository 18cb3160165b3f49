//! Whether one rule is about a call. What allows must match for certain, what denies may also match perhaps: an unknown
//! word of a command could be any words or none.

use super::{Call, KNOWN, Only, Rule, RuleEffect};
use crate::tools::Access;
use crate::workspace::shell::policy;
use globset::{GlobBuilder, GlobMatcher};
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hit {
    No,
    Perhaps,
    Yes,
}

/// Signs of a prefix that is taken from a whole command.
const LONGEST: usize = 100;

impl Rule {
    pub fn is_of(&self, tool: &str) -> bool {
        self.tool.as_deref().is_none_or(|name| name == tool)
    }

    /// What denies one tool that writes denies the others too: they do the same to a file.
    pub fn denies(&self, call: &Call<'_>) -> Hit {
        let writes = |name: &String| KNOWN.iter().any(|known| known.name == *name && known.writes);
        let as_others = call.access == Access::Write && self.tool.as_ref().is_some_and(writes);
        if !self.is_of(call.tool) && !as_others {
            return Hit::No;
        }
        match &self.only {
            None => Hit::Yes,
            Some(Only::Path(path)) => {
                // What lies in a directory that is denied is denied.
                let path = path.strip_suffix("/**").unwrap_or(path);
                let Ok(glob) = glob(path, RuleEffect::Deny) else { return Hit::Perhaps };
                let matches = |path: &String| Path::new(path).ancestors().any(|path| glob.is_match(path));
                if call.paths.iter().any(matches) { Hit::Yes } else { Hit::No }
            }
            Some(Only::Command(prefix)) => {
                let Some(commands) = call.commands else { return Hit::Perhaps };
                if commands.all.iter().any(|words| begins(words, prefix, false)) {
                    return Hit::Yes;
                }
                let mut all = commands.all.iter().chain(&commands.perhaps);
                if commands.unsure || all.any(|words| begins(words, prefix, true)) {
                    return Hit::Perhaps;
                }
                Hit::No
            }
        }
    }

    pub fn allows_command(&self, words: &[Option<String>]) -> bool {
        match &self.only {
            None => true,
            Some(Only::Command(prefix)) => {
                let mut pairs = words.iter().zip(prefix);
                words.len() >= prefix.len() && pairs.all(|(word, rule)| word.as_ref() == Some(rule))
            }
            Some(Only::Path(_)) => false,
        }
    }

    /// A file that steers later runs must be named itself: no pattern was written with it in mind.
    pub fn allows_path(&self, path: &str, steers: bool) -> bool {
        match &self.only {
            None => !steers,
            Some(Only::Path(rule)) if steers => rule == path || *rule == globset::escape(path),
            Some(Only::Path(rule)) => glob(rule, RuleEffect::Allow).is_ok_and(|glob| glob.is_match(path)),
            Some(Only::Command(_)) => false,
        }
    }
}

/// `*` stops at a `/`. What denies takes no notice of case, as some file systems do not.
pub fn glob(text: &str, effect: RuleEffect) -> Result<GlobMatcher, String> {
    let glob = GlobBuilder::new(text)
        .literal_separator(true)
        .case_insensitive(effect == RuleEffect::Deny)
        .build()
        .map_err(|error| error.kind().to_string())?;
    Ok(glob.compile_matcher())
}

/// Whether a command begins with these words, options and their values among them passed over (`git -C x push` is
/// `git push`), and the program called by any path. `perhaps`: an unknown word counts as any words or none.
fn begins(words: &[Option<String>], prefix: &[String], perhaps: bool) -> bool {
    let (Some((name, words)), Some((program, prefix))) = (words.split_first(), prefix.split_first()) else {
        return false;
    };
    match name {
        None => return perhaps,
        Some(name) if name != program && policy::base_name(name) != policy::base_name(program) => {
            return false;
        }
        Some(_) => {}
    }
    // How much of the prefix may have been met so far, and whether an option came last, which may take a value.
    let end = prefix.len();
    let mut met = vec![false; end + 1];
    let mut after_option = vec![false; end + 1];
    met[0] = true;
    for word in words {
        if met[end] || after_option[end] {
            return true;
        }
        let mut next = vec![false; end + 1];
        let mut next_option = vec![false; end + 1];
        for at in (0..end).filter(|at| met[*at] || after_option[*at]) {
            match word {
                Some(word) => {
                    next[at + 1] |= *word == prefix[at];
                    next_option[at] |= word.starts_with('-');
                    next[at] |= after_option[at];
                }
                None if perhaps => next[at..].fill(true),
                None => next[at] |= after_option[at],
            }
        }
        (met, after_option) = (next, next_option);
    }
    met[end] || after_option[end]
}

/// The words that a rule for a command and its like begins with: the first two; the whole command where those say too
/// little (an option, a command that runs another). `None` where nothing of use can be said.
pub fn prefix_of(words: &[Option<String>]) -> Option<Vec<String>> {
    let sure = |words: &[Option<String>]| words.iter().cloned().collect::<Option<Vec<String>>>();
    let name = words.first()?.as_ref()?;
    match words.get(1) {
        None => sure(words).filter(|_| !policy::is_wrapper(name) && !policy::runs_programs(name)),
        Some(Some(second)) if !second.starts_with('-') && !policy::is_wrapper(name) => sure(&words[..2]),
        Some(_) => {
            sure(words).filter(|words| words.iter().map(|word| word.len() + 1).sum::<usize>() <= LONGEST)
        }
    }
}

/// The directory of a file as a pattern; the file itself where nothing else will do.
pub fn around(path: &str, exactly: bool) -> String {
    match path.rsplit_once('/') {
        _ if exactly => globset::escape(path),
        Some((directory, _)) => format!("{}/**", globset::escape(directory)),
        None => "*".into(),
    }
}
