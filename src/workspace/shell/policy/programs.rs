//! Commands whose arguments are small languages of their own: which of their sentences only read.

use super::line::Word;
use super::readers::{Doubt, Listed, Seen, check_listed, check_option_value, leads_out};

fn refuse(text: impl Into<String>) -> Doubt {
    Err(text.into())
}

/// Text goes out; only a pattern looks at the disk.
pub fn echo(words: &[Word], seen: &Seen<'_>) -> Doubt {
    words.iter().filter(|word| word.glob || word.home).try_for_each(|word| leads_out(word, seen))
}

/// `-v` and `%n` set variables, and with them what the next command is.
pub fn printf(words: &[Word], seen: &Seen<'_>) -> Doubt {
    let Some(format) = words.first() else { return Ok(()) };
    if format.text.starts_with('-') {
        return refuse("`printf` with an option may set a variable");
    }
    let mut rest = format.text.chars();
    while let Some(c) = rest.next() {
        if c == '%' {
            let kind = rest.find(|c| !"#-+ '0123456789.".contains(*c));
            if kind.is_none_or(|kind| !"%sbqcdiuxXofeg".contains(kind)) {
                return refuse("`printf` with such a format may set a variable");
            }
        }
    }
    echo(words, seen)
}

pub fn cd(words: &[Word], seen: &Seen<'_>) -> Doubt {
    match words {
        [target] if !target.text.starts_with('-') && !target.glob && !target.text.is_empty() => {
            leads_out(target, seen)
        }
        _ => refuse("where `cd` goes is not plain"),
    }
}

/// Only tests that cannot evaluate: `-v 'a[$(x)]'` runs x.
pub fn test(words: &[Word], seen: &Seen<'_>) -> Doubt {
    const KNOWN: &[&str] =
        &["-e", "-f", "-d", "-r", "-w", "-x", "-s", "-L", "-h", "-n", "-z", "=", "!=", "!", "]"];
    for word in words {
        if word.text.starts_with('-') && !KNOWN.contains(&word.text.as_str()) {
            return refuse(format!("`test {}` is not known to only read", word.text));
        }
        leads_out(word, seen)?;
    }
    Ok(())
}

pub fn command(words: &[Word], _: &Seen<'_>) -> Doubt {
    match words.first().map(|word| word.text.as_str()) {
        Some("-v" | "-V") => Ok(()),
        _ => refuse("`command` runs another command"),
    }
}

pub fn date(words: &[Word], seen: &Seen<'_>) -> Doubt {
    if let Some(word) = words.iter().find(|word| !word.text.starts_with(['-', '+'])) {
        return refuse(format!("`date {}` may set the clock", word.text));
    }
    let listed = Listed {
        flags: "uR",
        valued: "I",
        long: &["--utc", "--universal", "--iso-8601=", "--rfc-3339=", "--rfc-email", "--date="],
        operands: 1,
        pattern: true,
    };
    check_listed("date", &listed, words.iter(), seen)
}

pub fn find(words: &[Word], seen: &Seen<'_>) -> Doubt {
    const ALONE: &[&str] = &[
        "!",
        "(",
        ")",
        ",",
        "-H",
        "-P",
        "-a",
        "-and",
        "-daystart",
        "-depth",
        "-empty",
        "-executable",
        "-false",
        "-ls",
        "-mount",
        "-nogroup",
        "-not",
        "-nouser",
        "-o",
        "-or",
        "-print",
        "-print0",
        "-prune",
        "-quit",
        "-readable",
        "-true",
        "-writable",
        "-xdev",
    ];
    const VALUED: &[&str] = &[
        "-amin",
        "-anewer",
        "-atime",
        "-cmin",
        "-cnewer",
        "-ctime",
        "-fstype",
        "-gid",
        "-group",
        "-ilname",
        "-iname",
        "-inum",
        "-ipath",
        "-iregex",
        "-links",
        "-lname",
        "-maxdepth",
        "-mindepth",
        "-mmin",
        "-mtime",
        "-name",
        "-newer",
        "-path",
        "-perm",
        "-printf",
        "-regex",
        "-regextype",
        "-samefile",
        "-size",
        "-type",
        "-uid",
        "-user",
        "-wholename",
        "-xtype",
    ];
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let text = word.text.as_str();
        if VALUED.contains(&text) {
            let Some(value) = words.next() else { return refuse(format!("`find {text}` lacks its value")) };
            let is_path = ["-anewer", "-cnewer", "-newer", "-samefile"].contains(&text);
            if is_path {
                leads_out(value, seen)?;
            }
        } else if text.starts_with('-') || ["!", "(", ")", ","].contains(&text) {
            if !ALONE.contains(&text) {
                return refuse(format!("`find {text}` may write or run something"));
            }
        } else {
            leads_out(word, seen)?;
        }
    }
    Ok(())
}

/// A program may take others from files that it names, wherever they lie.
pub fn jq(words: &[Word], seen: &Seen<'_>) -> Doubt {
    let listed = Listed {
        flags: "nrRsSceCMaj",
        valued: "",
        long: &[
            "--raw-output",
            "--compact-output",
            "--sort-keys",
            "--slurp",
            "--null-input",
            "--exit-status",
            "--arg=",
            "--argjson=",
            "--tab",
            "--indent=",
            "--raw-input",
            "--join-output",
            "--monochrome-output",
        ],
        operands: usize::MAX,
        pattern: true,
    };
    let takes = |word: &Word| {
        let named =
            word.text.contains('"') && ["import", "include"].iter().any(|name| word.text.contains(name));
        named || word.text.contains("modulemeta")
    };
    if words.iter().any(takes) {
        return refuse("the program of `jq` may read other files");
    }
    check_listed("jq", &listed, words.iter(), seen)
}

/// Options are few, and the script prints, deletes lines of its output and substitutes; it opens and runs nothing.
pub fn sed(words: &[Word], seen: &Seen<'_>) -> Doubt {
    let mut scripts: Vec<&Word> = Vec::new();
    let mut operands: Vec<&Word> = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let text = word.text.as_str();
        match text {
            "--" => operands.extend(rest.by_ref()),
            "--quiet" | "--silent" | "--regexp-extended" | "--null-data" | "--unbuffered" | "--posix"
            | "--sandbox" => {}
            "-e" | "-ne" | "-nEe" | "-Ene" | "-nre" | "-rne" | "-Ee" | "--expression" => match rest.next() {
                Some(script) => scripts.push(script),
                None => return refuse("`sed -e` lacks its script"),
            },
            _ if text.starts_with('-') && text.len() > 1 => {
                if !text[1..].chars().all(|c| "nErsuz".contains(c)) {
                    return refuse(format!("`sed {text}` is not known to only read"));
                }
            }
            _ => operands.push(word),
        }
    }
    let mut operands = operands.into_iter();
    if scripts.is_empty() {
        match operands.next() {
            Some(script) => scripts.push(script),
            None => return refuse("`sed` without a script"),
        }
    }
    if scripts.iter().any(|script| script.glob) {
        return refuse("the script of `sed` is a pattern of file names");
    }
    if !scripts.iter().all(|script| sed_script_reads(&script.text)) {
        return refuse("the script of `sed` is not known to only read");
    }
    operands.try_for_each(|word| leads_out(word, seen))
}

/// Addresses and the commands `p d q = n N g G h H x D P l s y` with plain flags.
fn sed_script_reads(script: &str) -> bool {
    let mut chars = script.chars().peekable();
    let skip_to = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>, end: char| -> bool {
        // A bracket may hold the delimiter; where it could matter, the script is not plain.
        let mut bracket = false;
        while let Some(c) = chars.next() {
            match c {
                '\\' if chars.next().is_none_or(|c| c == '\n') => return false,
                '\\' => {}
                '\n' => return false,
                '[' => bracket = true,
                ']' => bracket = false,
                c if c == end => return !bracket,
                _ => {}
            }
        }
        false
    };
    loop {
        while chars.next_if(|c| c.is_whitespace() || ";{}".contains(*c)).is_some() {}
        if chars.peek().is_none() {
            return true;
        }
        // Addresses: N, $, first~step, +N, /re/flags, with commas and a closing `!`.
        let command = loop {
            match chars.next() {
                Some(c) if c.is_ascii_digit() || "$,~+ !".contains(c) => {}
                Some('/') => {
                    if !skip_to(&mut chars, '/') {
                        return false;
                    }
                    while chars.next_if(|c| "IM".contains(*c)).is_some() {}
                }
                Some(c) => break c,
                None => return false,
            }
        };
        match command {
            '{' => continue,
            'p' | 'd' | 'q' | 'Q' | '=' | 'n' | 'N' | 'g' | 'G' | 'h' | 'H' | 'x' | 'D' | 'P' | 'l' => {
                while chars.next_if(|c| c.is_ascii_digit() || *c == ' ').is_some() {}
            }
            's' | 'y' => {
                let Some(delimiter) = chars.next().filter(|c| c.is_ascii_punctuation() && *c != '\\') else {
                    return false;
                };
                if !skip_to(&mut chars, delimiter) || !skip_to(&mut chars, delimiter) {
                    return false;
                }
                while chars.next_if(|c| c.is_ascii_digit() || "gpiI ".contains(*c)).is_some() {}
            }
            _ => return false,
        }
        match chars.peek() {
            None | Some(';' | '\n' | '}') => {}
            Some(_) => return false,
        }
    }
}

/// A program with none of the signs by which awk writes, reads other files, or runs something.
pub fn awk(words: &[Word], seen: &Seen<'_>) -> Doubt {
    let mut words = words.iter();
    let mut program = None;
    while program.is_none() {
        let Some(word) = words.next() else { return refuse("`awk` without a program") };
        match word.text.as_str() {
            "-F" | "-v" => {
                words.next();
            }
            text if text.starts_with("-F") => {}
            "--" => {}
            text if text.starts_with('-') => {
                return refuse(format!("`awk {text}` is not known to only read"));
            }
            _ => program = Some(word),
        }
    }
    let plain = program.is_some_and(|program| {
        let words =
            ["system", "getline", "close", "fflush", "ENVIRON", "ARGV", "ARGC", "PROCINFO", "extension"];
        !program.glob
            && !program.text.contains(['>', '|', '@'])
            && !words.iter().any(|word| program.text.contains(word))
    });
    if !plain {
        return refuse("the program of `awk` is not known to only read");
    }
    words.try_for_each(|word| {
        check_option_value("awk", word, seen)?;
        leads_out(word, seen)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sed_scripts() {
        for script in [
            "1,20p",
            "$p",
            "/a b/,/c/p",
            "s/a/b/g",
            "s|a|b|; 3d",
            "/x/!d",
            "1p;5q",
            "s/\\//x/gp",
            "2{p;q}",
            "0~3p",
            "/re/I p",
            "5,+3p",
            "$!N",
            "y/abc/xyz/",
            "s/[a-z]*/X/2",
        ] {
            assert!(sed_script_reads(script), "{script}");
        }
        for script in [
            "w out",
            "s/a/b/w out",
            "s/a/b/e",
            "e",
            "1e id",
            "r /etc/passwd",
            "1,2w x",
            "s/a/b/gw x",
            "a\\\ntext",
            "i x",
            "s/[/]/x/w y",
            "p w x",
            "/x/w y",
            "W f",
            "R f",
            "F",
            "s/a",
            "/x",
            "1,2",
            "s\\a\\b\\",
            "s/a/b\\\n/w x",
            "p\nw x",
            "{w x}",
            ":a;ba",
            "c\\x",
            "1!w f",
            "s/a/b/ e",
            "s/a/b/pw x",
            "\\,x,w y",
            "v",
            "z",
            "#n\nw x",
        ] {
            assert!(!sed_script_reads(script), "{script}");
        }
    }
}
