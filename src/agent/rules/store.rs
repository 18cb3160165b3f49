//! Rules that outlive a session: one TOML file of the user, outside every repository, with lists for all directories and
//! for each by its real path. It is replaced as a whole, and read again under a lock before that, so that sessions beside
//! each other lose no rule of one another. Readable by its owner alone. Comments in it are not kept.

use super::{HeldRule, Rule, RuleEffect, RuleScope};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;
use toml::Spanned;

const HEAD: &str = "# Rules that Qwright keeps: which calls run unasked (allow), and which never run (deny).\n\
                    # `/permissions` changes them; you may too.\n\n";

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    #[serde(default, skip_serializing_if = "Lists::is_empty")]
    everywhere: Lists,
    /// By the real path of the directory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    directory: BTreeMap<String, Lists>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allow: Vec<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deny: Vec<Spanned<String>>,
}

impl Lists {
    fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    fn of(&mut self, effect: RuleEffect) -> &mut Vec<Spanned<String>> {
        match effect {
            RuleEffect::Allow => &mut self.allow,
            RuleEffect::Deny => &mut self.deny,
        }
    }
}

/// What a file says of one directory.
#[derive(Debug, Default)]
pub struct Stored {
    pub rules: Vec<HeldRule>,
    /// What could not be read, with file and line.
    pub problems: Vec<String>,
    /// Rules that deny may be among it.
    pub lost: bool,
}

/// Reads what can be read; a file that is not there holds no rules.
pub fn read(file: &Path, directory: &str) -> Stored {
    let mut stored = Stored::default();
    let (text, mut kept) = match parse(file) {
        Ok(read) => read,
        Err(problem) => {
            return Stored { problems: vec![problem], lost: true, ..stored };
        }
    };
    let here = kept.directory.remove(directory).unwrap_or_default();
    for (mut lists, scope) in [(kept.everywhere, RuleScope::Everywhere), (here, RuleScope::Always)] {
        for effect in [RuleEffect::Deny, RuleEffect::Allow] {
            for entry in std::mem::take(lists.of(effect)) {
                match Rule::parse(effect, entry.get_ref()) {
                    Ok(rule) => stored.rules.push(HeldRule { rule, scope }),
                    Err(problem) => {
                        let line = line_of(&text, entry.span().start);
                        stored.problems.push(format!("{}:{line}: {problem}", file.display()));
                        stored.lost |= effect == RuleEffect::Deny;
                    }
                }
            }
        }
    }
    stored
}

/// Adds a rule to the file, or takes it out.
pub fn change(file: &Path, directory: &str, held: &HeldRule, add: bool) -> Result<(), String> {
    let wrong = |error: io::Error| format!("{}: {error}", file.display());
    let folder = file.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong)?;
    let _lock = lock(file).map_err(wrong)?;
    // A file that is not understood as a whole is not written over.
    let (_, mut kept) = parse(file)?;
    let lists = match held.scope {
        RuleScope::Everywhere => &mut kept.everywhere,
        _ => kept.directory.entry(directory.to_string()).or_default(),
    };
    let (list, rule) = (lists.of(held.rule.effect), held.rule.text());
    // Hands may have written it otherwise than we do.
    let same =
        |entry: &Spanned<String>| Rule::parse(held.rule.effect, entry.get_ref()).as_ref() == Ok(&held.rule);
    match (add, list.iter().any(same)) {
        (true, false) => list.push(Spanned::new(0..0, rule)),
        (false, true) => list.retain(|entry| !same(entry)),
        _ => return Ok(()),
    }
    kept.directory.retain(|_, lists| !lists.is_empty());
    let body = toml::to_string_pretty(&kept).map_err(|error| format!("{}: {error}", file.display()))?;
    write(folder, file, &format!("{HEAD}{body}")).map_err(wrong)
}

fn parse(file: &Path) -> Result<(String, Kept), String> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    match toml::from_str(&text) {
        Ok(kept) => Ok((text, kept)),
        Err(error) => {
            let line = error.span().map_or(1, |span| line_of(&text, span.start));
            Err(format!("{}:{line}: {}", file.display(), error.message().replace('\n', " ")))
        }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// The file itself is replaced, so the lock is one beside it. It goes with the handle.
fn lock(file: &Path) -> io::Result<File> {
    const TRIES: u32 = 250;
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(file.with_extension("lock"))?;
    for again in 1.. {
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(error) if again == TRIES => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    Ok(lock)
}

fn write(folder: &Path, file: &Path, text: &str) -> io::Result<()> {
    // Made with the mode 0600.
    let mut fresh = tempfile::NamedTempFile::new_in(folder)?;
    fresh.write_all(text.as_bytes())?;
    fresh.as_file().sync_all()?;
    fresh.persist(file).map_err(|error| error.error)?;
    // Without this the rename may be lost with the power; a file system that cannot do it does not undo it.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn held(rule: &str, scope: RuleScope) -> HeldRule {
        HeldRule { rule: rule.parse().unwrap(), scope }
    }

    fn rules(file: &Path, directory: &str) -> Vec<String> {
        let stored = read(file, directory);
        assert!(stored.problems.is_empty() && !stored.lost, "{:?}", stored.problems);
        stored.rules.iter().map(|held| format!("{:?} {}", held.scope, held.rule)).collect()
    }

    #[test]
    fn rules_are_kept_by_directory_and_for_its_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("not/yet/rules.toml");
        assert!(rules(&file, "/a").is_empty());
        let first = held("allow run_shell_command(git commit -m 'a \"b\"')", RuleScope::Always);
        let other = held("deny *(secrets/)", RuleScope::Everywhere);
        change(&file, "/a", &first, true).unwrap();
        change(&file, "/a", &first, true).unwrap();
        change(&file, "/b", &other, true).unwrap();
        change(&file, "/b", &held("allow edit(src/**)", RuleScope::Always), true).unwrap();
        let a = ["Everywhere deny *(secrets/**)", "Always allow run_shell_command(git commit -m 'a \"b\"')"];
        assert_eq!(rules(&file, "/a"), a);
        assert_eq!(rules(&file, "/b"), [a[0], "Always allow edit(src/**)"]);
        assert_eq!(rules(&file, "/c"), [a[0]]);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        change(&file, "/a", &first, false).unwrap();
        change(&file, "/c", &other, false).unwrap();
        assert!(rules(&file, "/a").is_empty());
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains("\"/a\"") && text.contains("\"/b\""), "{text}");
    }

    #[test]
    fn what_is_damaged_is_named_and_not_written_over() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("rules.toml");
        let one = held("allow edit", RuleScope::Always);
        for (text, line, lost, left) in [
            ("[everywhere]\nallow = [\"edit\", \"fly(me)\"]\ndeny = [\"write_file\"]\n", 2, false, 2),
            (
                "[everywhere]\nallow = [\"edit\"]\n\ndeny = [\n  \"run_shell_command(a | b)\",\n]\n",
                5,
                true,
                1,
            ),
            ("[everywhere]\ndeny = [\"edit\"]\nalow = []\n", 3, true, 0),
            ("[everywhere]\ndeny = [\"edit\"\n\nx", 4, true, 0),
            ("[everywhere]\ndeny = \"edit\"\n", 2, true, 0),
        ] {
            std::fs::write(&file, text).unwrap();
            let stored = read(&file, "/a");
            let place = format!("rules.toml:{line}: ");
            assert!(stored.problems[0].contains(&place), "{text}: {:?}", stored.problems);
            assert_eq!((stored.lost, stored.rules.len()), (lost, left), "{text}");
            let refused = change(&file, "/a", &one, true).is_err();
            let now = std::fs::read_to_string(&file).unwrap();
            assert!(if refused { now == text } else { now.contains("fly(me)") || now.contains("a | b") });
            assert_eq!(refused, left == 0, "{text}");
        }
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(read(&file, "/a").lost);
    }

    #[test]
    fn writers_beside_each_other_lose_nothing() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("rules.toml");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let file = &file;
                scope.spawn(move || {
                    for number in 0..8 {
                        let rule = format!("allow run_shell_command(make w{writer}-{number})");
                        change(file, "/a", &held(&rule, RuleScope::Always), true).unwrap();
                    }
                });
            }
        });
        assert_eq!(rules(&file, "/a").len(), 32);
    }
}
