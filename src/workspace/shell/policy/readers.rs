//! The list of commands that only read, each with the arguments that keep it so. An option that is not listed is not
//! read-only: programs grow options, and abbreviate them.

use super::line::{Command, Line, Redirect, RedirectKind, Word};
use super::{Place, git, paths, programs};
use std::path::PathBuf;

/// Why a line is not surely read-only.
pub type Doubt = Result<(), String>;

/// What the arguments of a command may be.
enum Arguments {
    /// No option of it writes or starts anything.
    Any,
    Listed(Listed),
    By(fn(&[Word], &Seen<'_>) -> Doubt),
}

/// Options by letter and name, and how many operands.
pub struct Listed {
    pub flags: &'static str,
    /// Letters that take a value.
    pub valued: &'static str,
    /// Long names; with a closing `=` where they may take a value.
    pub long: &'static [&'static str],
    pub operands: usize,
    /// The first operand is a pattern or program and no path.
    pub pattern: bool,
}

/// What is known where a command stands.
pub struct Seen<'a> {
    pub place: &'a Place,
    /// Where the command may be: each `cd` before it may have failed.
    pub directories: Vec<PathBuf>,
}

const MANY: usize = usize::MAX;

const fn listed(flags: &'static str, valued: &'static str, long: &'static [&'static str]) -> Listed {
    Listed { flags, valued, long, operands: MANY, pattern: false }
}

fn arguments_of(name: &str) -> Option<Arguments> {
    use Arguments::{Any, By, Listed as List};
    Some(match name {
        "cat" | "head" | "tail" | "tac" | "rev" | "wc" | "nl" | "cut" | "tr" | "paste" | "comm" | "cmp"
        | "fold" | "expand" | "unexpand" | "od" | "hexdump" | "ls" | "stat" | "du" | "df" | "basename"
        | "dirname" | "realpath" | "readlink" | "md5sum" | "sha1sum" | "sha224sum" | "sha256sum"
        | "sha384sum" | "sha512sum" | "b2sum" | "cksum" | "sum" | "pwd" | "true" | "false" | ":"
        | "uname" | "whoami" | "id" | "groups" | "nproc" | "arch" | "seq" | "which" | "type" | "column"
        | "numfmt" | "factor" => Any,
        "echo" => By(programs::echo),
        "printf" => By(programs::printf),
        "cd" => By(programs::cd),
        "test" | "[" => By(programs::test),
        "command" => By(programs::command),
        "date" => By(programs::date),
        "grep" | "egrep" | "fgrep" => List(Listed {
            flags: "0123456789EFGPaHILTUVZbchilnoqrsvwxyz",
            valued: "ABCDdefm",
            long: &[
                "--after-context=",
                "--before-context=",
                "--context=",
                "--color=",
                "--colour=",
                "--count",
                "--exclude=",
                "--exclude-dir=",
                "--extended-regexp",
                "--files-with-matches",
                "--files-without-match",
                "--fixed-strings",
                "--help",
                "--ignore-case",
                "--include=",
                "--invert-match",
                "--line-number",
                "--line-regexp",
                "--max-count=",
                "--no-filename",
                "--no-messages",
                "--null",
                "--only-matching",
                "--perl-regexp",
                "--quiet",
                "--recursive",
                "--regexp=",
                "--silent",
                "--text",
                "--version",
                "--with-filename",
                "--word-regexp",
                "--binary-files=",
                "--basic-regexp",
            ],
            operands: MANY,
            pattern: true,
        }),
        "rg" => List(Listed {
            flags: "0FHINPSUVacilnopqsuvwx.",
            valued: "ABCEMTdefgjmrt",
            long: &[
                "--after-context=",
                "--before-context=",
                "--context=",
                "--case-sensitive",
                "--color=",
                "--column",
                "--count",
                "--count-matches",
                "--crlf",
                "--encoding=",
                "--files",
                "--files-with-matches",
                "--files-without-match",
                "--fixed-strings",
                "--glob=",
                "--heading",
                "--help",
                "--hidden",
                "--ignore-case",
                "--iglob=",
                "--invert-match",
                "--json",
                "--line-number",
                "--max-columns=",
                "--max-count=",
                "--max-depth=",
                "--max-filesize=",
                "--multiline",
                "--multiline-dotall",
                "--no-config",
                "--no-filename",
                "--no-heading",
                "--no-ignore",
                "--no-ignore-vcs",
                "--no-line-number",
                "--no-messages",
                "--null",
                "--only-matching",
                "--passthru",
                "--path-separator=",
                "--pcre2",
                "--pretty",
                "--quiet",
                "--regexp=",
                "--replace=",
                "--smart-case",
                "--sort=",
                "--sortr=",
                "--stats",
                "--text",
                "--threads=",
                "--trim",
                "--type=",
                "--type-list",
                "--type-not=",
                "--unrestricted",
                "--version",
                "--vimgrep",
                "--with-filename",
                "--word-regexp",
                "--line-regexp",
            ],
            operands: MANY,
            pattern: true,
        }),
        "find" => By(programs::find),
        "sed" => By(programs::sed),
        "awk" | "gawk" | "mawk" | "nawk" => By(programs::awk),
        "sort" => List(listed(
            "bdfghiMnRrVucCmsz",
            "kt",
            &[
                "--key=",
                "--field-separator=",
                "--numeric-sort",
                "--reverse",
                "--unique",
                "--check",
                "--stable",
                "--ignore-case",
                "--human-numeric-sort",
                "--version-sort",
                "--general-numeric-sort",
                "--month-sort",
                "--dictionary-order",
                "--ignore-leading-blanks",
                "--zero-terminated",
                "--random-sort",
                "--merge",
            ],
        )),
        // A second operand is where it writes.
        "uniq" => List(Listed {
            operands: 1,
            ..listed(
                "cdDuiz",
                "fsw",
                &["--count", "--repeated", "--unique", "--ignore-case", "--skip-fields=", "--skip-chars="],
            )
        }),
        "xxd" => List(Listed { operands: 1, ..listed("abeipruE", "clgos", &[]) }),
        "diff" => List(listed(
            "abBcdEehiHnNpqsTtuwyZ",
            "CDFIUWxX",
            &[
                "--brief",
                "--unified=",
                "--context=",
                "--side-by-side",
                "--new-file",
                "--color=",
                "--ignore-all-space",
                "--ignore-space-change",
                "--ignore-blank-lines",
                "--ignore-case",
                "--strip-trailing-cr",
                "--exclude=",
                "--width=",
                "--suppress-common-lines",
                "--minimal",
                "--text",
                "--report-identical-files",
                "--label=",
                "--normal",
            ],
        )),
        "file" => List(listed(
            "bikLhrEN0",
            "F",
            &["--brief", "--mime", "--mime-type", "--mime-encoding", "--dereference", "--no-dereference"],
        )),
        "tree" => List(listed(
            "aACDdFfghiJNnpQqrSstuUvXcx",
            "LIPH",
            &[
                "--noreport",
                "--dirsfirst",
                "--filelimit=",
                "--gitignore",
                "--prune",
                "--charset=",
                "--si",
                "--du",
                "--filesfirst",
                "--sort=",
                "--matchdirs",
                "--ignore-case",
            ],
        )),
        "base64" | "base32" => List(listed("dD", "w", &["--decode", "--wrap="])),
        "jq" => By(programs::jq),
        "git" => By(git::only_reads),
        _ => return None,
    })
}

/// Whether every command of the line is known to read only, with these arguments.
pub fn only_reads(line: &Line, place: &Place) -> Doubt {
    if let Some(doubt) = line.doubt {
        return Err(format!("it holds {doubt}, so it is not surely read-only"));
    }
    let start = place.directory.clone().unwrap_or_default();
    let mut seen = Seen { place, directories: vec![start] };
    let mut any = false;
    for command in line.pipelines.iter().flatten() {
        any = true;
        only_reads_command(command, &mut seen)?;
    }
    if any { Ok(()) } else { Err("it holds no command".into()) }
}

/// The same of each command, where those before it may have led. Once one of them leads somewhere unknown, the rest of the
/// line does not surely read.
pub fn each_only_reads(line: &Line, place: &Place) -> Vec<bool> {
    let start = place.directory.clone().unwrap_or_default();
    let mut seen = Seen { place, directories: vec![start] };
    let mut lost = false;
    let reads = |command: &Command| {
        let reads = !lost && only_reads_command(command, &mut seen).is_ok();
        let first = command.words.first().map(|word| word.text.as_str());
        lost |= !reads && first.is_some_and(|name| ["cd", "pushd", "popd"].contains(&name));
        reads
    };
    line.pipelines.iter().flatten().map(reads).collect()
}

fn only_reads_command(command: &Command, seen: &mut Seen<'_>) -> Doubt {
    for redirect in &command.redirects {
        check_redirect(redirect, seen)?;
    }
    let Some((first, rest)) = command.words.split_first() else {
        return Err("it holds a redirection without a command".into());
    };
    if first.variable || first.glob || first.home {
        return Err("which command it runs is known only when it runs".into());
    }
    let name = ["/usr/bin/", "/bin/"]
        .iter()
        .find_map(|folder| first.text.strip_prefix(folder))
        .unwrap_or(&first.text);
    let unknown = || Err(format!("`{}` is not on the list of commands that only read", first.text));
    let Some(arguments) = arguments_of(name) else { return unknown() };
    for word in rest {
        if word.variable && name != "echo" {
            return Err(format!("what `{}` stands for is known only when it runs", word.text));
        }
        if word.glob_first && !matches!(arguments, Arguments::Any) && name != "echo" {
            return Err(format!("`{}` may stand for an option", word.text));
        }
    }
    match arguments {
        Arguments::Any => rest.iter().try_for_each(|word| check_word(name, word, seen)),
        Arguments::Listed(listed) => check_listed(name, &listed, rest.iter(), seen),
        Arguments::By(check) => check(rest, seen),
    }?;
    if name == "diff" && rest.iter().any(|word| paths::is_directory(word, seen.place, &seen.directories)) {
        return Err(format!("`{name}` follows the links of a directory"));
    }
    if name == "cd"
        && let Some(target) = rest.last()
    {
        let more: Vec<PathBuf> =
            seen.directories.iter().map(|directory| directory.join(&target.text)).collect();
        seen.directories.extend(more);
        if seen.directories.len() > 64 {
            return Err("it changes the directory too often".into());
        }
    }
    Ok(())
}

fn check_redirect(redirect: &Redirect, seen: &Seen<'_>) -> Doubt {
    let target = &redirect.target;
    match redirect.kind {
        RedirectKind::Write if target.text == "/dev/null" && !target.variable => Ok(()),
        RedirectKind::Write => Err(format!("it writes to `{}`", target.text)),
        RedirectKind::Read if target.variable || target.glob => {
            Err("what it reads is known only when it runs".into())
        }
        RedirectKind::Read => leads_out(target, seen),
        RedirectKind::Duplicate | RedirectKind::HereDocument => Ok(()),
        RedirectKind::HereString => Err("it holds a here-string".into()),
    }
}

pub fn leads_out(word: &Word, seen: &Seen<'_>) -> Doubt {
    paths::leads_out(word, seen.place, &seen.directories).map_or(Ok(()), Err)
}

/// A word of a command without harmful options: as a path, or an option whose value may be one.
fn check_word(name: &str, word: &Word, seen: &Seen<'_>) -> Doubt {
    // Their words are no paths.
    const TEXT: &[&str] =
        &["tr", "seq", "basename", "dirname", "true", "false", ":", "which", "type", "factor"];
    if TEXT.contains(&name) || name == "cut" && word.text.starts_with("-d") {
        return Ok(());
    }
    if !word.text.starts_with('-') || word.text == "-" {
        return leads_out(word, seen);
    }
    // A link is looked at where it is named, not where it is met on the way.
    let follows = match word.text.strip_prefix("--") {
        Some(long) => !long.is_empty() && "dereference".starts_with(long),
        None => word.text.contains('L'),
    };
    if follows && ["ls", "du"].contains(&name) {
        return Err(format!("`{name} {}` follows links", word.text));
    }
    check_option_value(name, word, seen)
}

pub fn check_option_value(name: &str, word: &Word, seen: &Seen<'_>) -> Doubt {
    match word.text.split_once('=') {
        Some((_, value)) => {
            paths::text_leads_out(value, word.glob, seen.place, &seen.directories).map_or(Ok(()), Err)
        }
        None if word.text.contains('/') || word.text.contains("..") => {
            Err(format!("`{name} {}` may read outside the workspace", word.text))
        }
        None => Ok(()),
    }
}

pub fn check_listed<'w>(
    name: &str,
    listed: &Listed,
    mut words: impl Iterator<Item = &'w Word>,
    seen: &Seen<'_>,
) -> Doubt {
    let unlisted = |word: &Word| Err(format!("`{name} {}` is not known to only read", word.text));
    let mut operands: Vec<&Word> = Vec::new();
    let mut pattern = listed.pattern;
    while let Some(word) = words.next() {
        let text = word.text.as_str();
        if text == "--" {
            operands.extend(words.by_ref());
        } else if let Some(long) = text.strip_prefix("--") {
            let bare = long.split_once('=').map_or(long, |(bare, _)| bare);
            let fits = |known: &&&str| {
                let known = known.trim_start_matches("--");
                known == long || known.strip_suffix('=') == Some(bare)
            };
            if listed.long.iter().find(fits).is_none() {
                return unlisted(word);
            }
            if ["regexp", "files", "type-list"].contains(&bare) {
                pattern = false;
            }
            check_option_value(name, word, seen)?;
        } else if let Some(letters) = text.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            let mut letters = letters.chars();
            while let Some(letter) = letters.next() {
                if listed.valued.contains(letter) {
                    // The rest of the word is its value, or the next word is.
                    let rest = letters.as_str();
                    if matches!((name, letter), ("grep" | "egrep" | "fgrep" | "rg", 'e' | 'f')) {
                        pattern = false;
                    }
                    let is_text = letter == 'e' && listed.pattern;
                    match rest.is_empty() {
                        true => match words.next() {
                            Some(_) if is_text => {}
                            Some(value) => leads_out(value, seen)?,
                            None => {}
                        },
                        false if is_text => {}
                        false => paths::text_leads_out(rest, word.glob, seen.place, &seen.directories)
                            .map_or(Ok(()), Err)?,
                    }
                    break;
                }
                if !listed.flags.contains(letter) {
                    return unlisted(word);
                }
            }
        } else {
            operands.push(word);
        }
    }
    if operands.len() > listed.operands {
        return Err(format!("`{name}` with more than {} name may write to the last", listed.operands));
    }
    let paths = operands.iter().skip(usize::from(pattern));
    paths.into_iter().try_for_each(|word| leads_out(word, seen))
}
