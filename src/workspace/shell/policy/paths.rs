//! Words as paths: which lead out of the workspace, which hold secrets, and which must never be removed as a whole.
//! By text first; where the workspace is known, by what the names lead to.

use super::Place;
use super::line::Word;
use std::path::{Component, Path, PathBuf};

/// Reading these anywhere is refused: keys and tokens live there.
const SECRET_FOLDERS: &[&str] = &[".ssh", ".gnupg", ".aws", ".azure", ".kube", ".password-store"];
const SECRET_FILES: &[&str] = &[
    ".netrc",
    "_netrc",
    ".git-credentials",
    ".pgpass",
    ".pypirc",
    ".npmrc",
    ".docker/config.json",
    ".config/gcloud",
    ".config/gh",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".config/git/credentials",
    ".my.cnf",
    ".terraform.d/credentials.tfrc.json",
    ".local/share/keyrings",
    ".bash_history",
    ".zsh_history",
    ".ivy2/.credentials",
    ".cabal/config",
    ".gradle/init.gradle",
    ".gradle/gradle.properties",
    ".dotnet/corefx/cryptography",
];
/// By name, inside the workspace: reading them asks.
const PRIVATE_NAMES: &[&str] = &[
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".pgpass",
    ".git-credentials",
    "credentials",
    "credentials.json",
    "secrets.json",
];

/// Why a word that a command would open is not surely inside the workspace. `directories`: where the command may be,
/// relative to the root.
pub fn leads_out(word: &Word, place: &Place, directories: &[PathBuf]) -> Option<String> {
    if word.home {
        return Some("it reads outside the workspace".into());
    }
    text_leads_out(&word.text, word.glob, place, directories)
}

pub fn text_leads_out(text: &str, glob: bool, place: &Place, directories: &[PathBuf]) -> Option<String> {
    let outside = || Some(format!("`{text}` lies outside the workspace"));
    if text == "/dev/null" || text == "-" {
        return None;
    }
    let path = Path::new(text);
    if path.components().any(|part| part == Component::ParentDir) {
        return outside();
    }
    if path.is_absolute() {
        match &place.root {
            Some(root) if path.starts_with(root) => {}
            _ => return outside(),
        }
    }
    if is_private(path) {
        return Some(format!("`{text}` may hold secrets"));
    }
    let root = place.root.as_ref()?;
    let starts = directories.iter().map(|directory| root.join(directory)).collect();
    let Some(named) = all_named(starts, path, glob) else {
        return Some(format!("`{text}` stands for more names than are looked at"));
    };
    named.iter().find_map(|named| {
        let real = named.canonicalize().ok()?;
        if !real.starts_with(root) {
            return Some(format!("`{text}` leads out of the workspace"));
        }
        let private = (is_private(named) || is_private(&real)) && !real.is_dir();
        private.then(|| format!("`{text}` may hold secrets"))
    })
}

const SIGNS: [char; 3] = ['*', '?', '['];

/// What a name may stand for; a pattern for all that bash would put there, and perhaps more. `None`: too many to look at.
fn all_named(starts: Vec<PathBuf>, path: &Path, glob: bool) -> Option<Vec<PathBuf>> {
    const MOST: usize = 1000;
    let mut named = starts;
    let mut seen = 0;
    for part in path.components() {
        let Some(pattern) = part.as_os_str().to_str().filter(|part| glob && part.contains(SIGNS)) else {
            named.iter_mut().for_each(|named| named.push(part));
            continue;
        };
        let mut matching = Vec::new();
        for entry in named.iter().flat_map(std::fs::read_dir).flatten().flatten() {
            seen += 1;
            if seen > MOST {
                return None;
            }
            if may_match(pattern, &entry.file_name().to_string_lossy()) {
                matching.push(entry.path());
            }
        }
        named = matching;
    }
    Some(named)
}

/// By what stands before the first sign and after the last one.
fn may_match(pattern: &str, name: &str) -> bool {
    let first = pattern.find(SIGNS).unwrap_or(pattern.len());
    let last = pattern.rfind(['*', '?', '[', ']']).map_or(first, |at| first.max(at + 1));
    let hidden = name.starts_with('.') && !pattern.starts_with('.');
    !hidden && name.starts_with(&pattern[..first]) && name.ends_with(&pattern[last..])
}

/// Whether a word may name a directory.
pub fn is_directory(word: &Word, place: &Place, directories: &[PathBuf]) -> bool {
    let Some(root) = &place.root else { return false };
    directories.iter().any(|directory| root.join(directory).join(&word.text).is_dir())
}

fn is_private(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_lowercase) else {
        return false;
    };
    let sample = [".example", ".sample", ".template", ".dist"].iter().any(|end| name.ends_with(end));
    (name == ".env" || name.starts_with(".env.")) && !sample
        || PRIVATE_NAMES.contains(&name.as_str())
        || name.starts_with("id_rsa")
        || name.starts_with("id_ed25519")
        || [".pem", ".key", ".p12", ".pfx", ".kdbx"].iter().any(|end| name.ends_with(end))
}

/// The text with the home directory as `~` and without `//`, `/./` and `x/..`; a closing `/` goes.
fn normal(text: &str, home: bool, place: &Place) -> String {
    let mut text = text.to_string();
    for name in ["$HOME", "$USERPROFILE"] {
        if let Some(rest) = text.strip_prefix(name) {
            text = format!("~{rest}");
        }
    }
    if let Some(rest) = text.strip_prefix("$PWD").filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        text = format!(".{rest}");
    }
    if !home && text.starts_with('~') && !text.starts_with("~/") && text != "~" {
        return text;
    }
    if let Some(own) = place.home.as_ref().and_then(|home| home.to_str()).filter(|home| home.len() > 1)
        && let Some(rest) = text.strip_prefix(own)
        && (rest.is_empty() || rest.starts_with('/'))
    {
        text = format!("~{rest}");
    }
    let absolute = text.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&"..") => parts.push(part),
                Some(&"~") => parts.push(part),
                Some(_) => {
                    parts.pop();
                }
                None if absolute => {}
                None => parts.push(part),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    if absolute { format!("/{joined}") } else { joined }
}

/// A word as it reads where the line began, after a `cd` to `here`.
pub fn beneath(here: &Word, word: &Word) -> Word {
    if here.text.is_empty() || word.home || word.text.starts_with(['/', '$']) {
        return word.clone();
    }
    let text = format!("{}/{}", here.text, word.text);
    Word { text, home: here.home, glob: word.glob, ..Word::default() }
}

/// Root, home, the parent, or a directory of the system: nothing that works on all of it is ever right.
pub fn is_vital(word: &Word, place: &Place) -> bool {
    const SYSTEM: &[&str] = &[
        "bin",
        "boot",
        "dev",
        "etc",
        "home",
        "lib",
        "lib32",
        "lib64",
        "opt",
        "proc",
        "root",
        "run",
        "sbin",
        "srv",
        "sys",
        "usr",
        "var",
        "users",
        "system",
        "library",
        "applications",
        "private",
        "volumes",
    ];
    let mut text = normal(&word.text, word.home, place);
    // All that is in it is no less.
    for end in ["/*", "/.*", "/?*", "/.[!.]*", "/{*,.*}"] {
        if let Some(rest) = text.strip_suffix(end).filter(|_| word.glob) {
            text = if rest.is_empty() { "/".into() } else { rest.to_string() };
        }
    }
    if text.starts_with('~') && (word.home || text == "~" || text.starts_with("~/")) {
        let rest = text.trim_start_matches('~');
        return !rest.contains('/') || rest.contains("/..");
    }
    if let Some(rest) = text.strip_prefix('/') {
        return rest.is_empty() || rest == "*" || SYSTEM.contains(&rest.to_lowercase().as_str());
    }
    text == ".." || text.starts_with("../") && text.split('/').all(|part| part == "..")
}

/// Keys and tokens, by any of the names they are reached by.
pub fn is_secret(word: &Word, place: &Place) -> bool {
    let text = normal(&word.text, word.home, place);
    let inside = place.root.as_ref().is_some_and(|root| Path::new(&word.text).starts_with(root));
    if inside || !(text.starts_with('/') || text.starts_with('~')) {
        return false;
    }
    let lower = text.to_lowercase();
    let folder = lower.split('/').skip(1).any(|part| SECRET_FOLDERS.contains(&part));
    let file = SECRET_FILES.iter().any(|file| {
        lower.strip_suffix(file).is_some_and(|before| before.ends_with('/'))
            || lower.contains(&format!("/{file}/"))
    });
    let process =
        lower.starts_with("/proc/") && ["/environ", "/mem", "/maps"].iter().any(|end| lower.ends_with(end));
    let system =
        ["/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/master.passwd"].contains(&lower.as_str());
    folder || file || process || system
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Word {
        Word { text: text.into(), home: text.starts_with('~'), glob: text.contains('*'), ..Word::default() }
    }

    #[test]
    fn vital_places_by_all_their_names() {
        let place = Place { home: Some("/home/me".into()), ..Place::default() };
        for text in [
            "/",
            "//",
            "/.",
            "/*",
            "/tmp/..",
            "~",
            "~/",
            "~/*",
            "~other",
            "$HOME",
            "$HOME/",
            "$PWD/..",
            "$PWD/../*",
            "..",
            "../",
            "../..",
            "../*",
            "a/../..",
            "/home/me",
            "/home/me/",
            "/usr",
            "/etc/",
            "/home",
            "~/..",
            "/./usr/../",
        ] {
            assert!(is_vital(&word(text), &place), "{text}");
        }
        for text in [
            "target",
            "./build",
            "*",
            ".",
            "/tmp/x",
            "~/project/target",
            "a..b",
            "../other",
            "/home/me/x",
            "$PWD",
            "$PWD/*",
        ] {
            assert!(!is_vital(&word(text), &place), "{text}");
        }
    }

    #[test]
    fn patterns_match_no_less_than_those_of_bash() {
        for (pattern, name) in [
            ("*.md", "notes.md"),
            (".en*", ".env"),
            ("a?c", "abc"),
            ("[!a]*[[:digit:]]x", "b1x"),
            ("[a]", "[a]"),
            ("a]*", "a]b"),
            ("*", "any"),
        ] {
            assert!(may_match(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("*", ".env"), ("*.md", "notes.txt"), ("a*", "b")] {
            assert!(!may_match(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn secrets_by_all_their_names() {
        let place = Place { home: Some("/home/me".into()), ..Place::default() };
        for text in [
            "~/.ssh/id_rsa",
            "/root/.ssh",
            "$HOME/.aws/credentials",
            "/home/me/.netrc",
            "/etc/shadow",
            "/proc/1/environ",
            "/proc/self/environ",
            "~/.docker/config.json",
            "/home/x/.config/gh/hosts.yml",
            "~/.ivy2/.credentials",
            "~/.dotnet/corefx/cryptography/x509stores/my/key.pfx",
        ] {
            assert!(is_secret(&word(text), &place), "{text}");
        }
        for text in ["src/.ssh", "~/notes", "/etc/hosts", "/proc/cpuinfo", "fix ~/.ssh"] {
            assert!(!is_secret(&word(text), &place), "{text}");
        }
    }
}
