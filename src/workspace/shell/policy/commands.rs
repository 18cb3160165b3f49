//! The commands of a line as words, for rules by prefix: those that the line surely consists of, those that it may run
//! anywhere inside it, and whether these are all. What a rule makes of them is the agent's to say.

use super::line::{Line, RedirectKind, Word, parse};
use super::{MAX_LINE, Place, forbidden, readers};

/// The words of a command; `None` for one that is known only when the command runs.
pub type Words = Vec<Option<String>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainCommand {
    pub words: Words,
    /// It only reads, with these arguments and in this place.
    pub reads: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commands {
    /// The commands, where the line is plain words joined by `&& || ; |` and no more: no substitution, assignment or
    /// redirection that does something (one that reads belongs to a command that only reads).
    pub plain: Option<Vec<PlainCommand>>,
    /// Every command that is seen: inside substitutions, `sh -c` and wrappers (`env`, `timeout`, `xargs`) as well.
    pub all: Vec<Words>,
    /// What a wrapper may run, where its options are read otherwise than it reads them.
    pub perhaps: Vec<Words>,
    /// There may be commands that are not seen.
    pub unsure: bool,
}

/// Never fails, whatever the text holds.
pub fn read_commands(text: &str, place: &Place) -> Commands {
    if text.len() > MAX_LINE || text.contains('\0') {
        return Commands { unsure: true, ..Commands::default() };
    }
    let line = parse(text);
    let met = forbidden::meet(text, &line, place);
    Commands { plain: plain(&line, place), all: met.commands, perhaps: met.perhaps, unsure: met.unsure }
}

fn plain(line: &Line, place: &Place) -> Option<Vec<PlainCommand>> {
    if line.doubt.is_some() {
        return None;
    }
    let mut plain = Vec::new();
    for (command, reads) in line.pipelines.iter().flatten().zip(readers::each_only_reads(line, place)) {
        let harmless = command.redirects.iter().all(|redirect| match redirect.kind {
            RedirectKind::Duplicate => true,
            RedirectKind::Write => redirect.target.text == "/dev/null" && !redirect.target.variable,
            RedirectKind::Read | RedirectKind::HereDocument | RedirectKind::HereString => false,
        });
        if command.words.is_empty() || !(reads || harmless) {
            return None;
        }
        plain.push(PlainCommand { words: sure_words(&command.words), reads });
    }
    (!plain.is_empty()).then_some(plain)
}

pub(super) fn sure_words(words: &[Word]) -> Words {
    let unknown = |word: &Word| {
        let expands = word.variable || word.glob || word.home || word.brace && word.brace_list;
        // `find -exec` and `xargs -I{}` put something in its place.
        expands || !word.nested.is_empty() || word.text.contains("{}")
    };
    words.iter().map(|word| (!unknown(word)).then(|| word.text.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commands by `/`, an unknown word as `?`.
    fn shown(commands: &[Words]) -> String {
        let words = |words: &Words| {
            let words: Vec<&str> = words.iter().map(|word| word.as_deref().unwrap_or("?")).collect();
            words.join(" ")
        };
        commands.iter().map(words).collect::<Vec<_>>().join(" / ")
    }

    #[test]
    fn plain_lines_and_what_of_them_only_reads() {
        for (text, expected) in [
            ("cargo test --lib", Some("cargo test --lib")),
            ("cargo test 2>&1 >/dev/null | tail -3", Some("cargo test / tail -3*")),
            ("\"cargo\"  t'es't\ngit $x *.rs ~", Some("cargo test / git ? ? ?")),
            ("cat < in", Some("cat*")),
            ("cd /elsewhere && ls", Some("cd /elsewhere / ls")),
            ("cargo test < in", None),
            ("cargo test <<'E'\nx\nE", None),
            ("cargo test > out", None),
            ("cargo test $(x)", None),
            ("A=1 cargo test", None),
            ("cargo test &", None),
            ("(cargo test)", None),
            ("", None),
            ("> out", None),
        ] {
            let place = Place { root: Some("/w".into()), ..Place::default() };
            let plain = read_commands(text, &place).plain.map(|plain| {
                let mark = |command: &PlainCommand| if command.reads { "*" } else { "" };
                let one = |c: &PlainCommand| shown(std::slice::from_ref(&c.words)) + mark(c);
                plain.iter().map(one).collect::<Vec<_>>().join(" / ")
            });
            assert_eq!(plain.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn commands_are_met_wherever_they_hide() {
        for (text, met, unsure) in [
            ("a && b | c; d", "a / b / c / d", false),
            ("env A=1 timeout 5 sh -c 'git push; x'", "git push", false),
            ("find . -exec rm {} +", "rm ?", false),
            ("echo $(git push)", "git push", true),
            ("if git push; then x; fi", "git push / x", true),
            ("sh -c 'git pu{sh,}'", "git ?", true),
            ("echo push | xargs git", "git", true),
            ("eval \"$x\"", "?", false),
            ("echo 'git push' | sh", "git push", false),
        ] {
            let read = read_commands(text, &Place::default());
            let all: Vec<String> = read.all.iter().map(|words| shown(std::slice::from_ref(words))).collect();
            let found = met.split(" / ").all(|command| all.iter().any(|one| one == command));
            assert!(found && read.unsure == unsure, "{text}: {read:?}");
        }
        let perhaps = read_commands("timeout --signal KILL 5 git push", &Place::default()).perhaps;
        assert!(shown(&perhaps).ends_with("git push / push"));
        assert!(read_commands("a\0b", &Place::default()).unsure);
    }
}
