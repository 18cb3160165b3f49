//! Which lines are of no use without the network, so that the user is asked for it before they run instead of reading
//! afterwards why they failed. What also works without it (`cargo build` with its crates there, `npm test`) is not
//! among them; a line that is not known to need it simply has none.

use super::line::parse;
use super::{MAX_LINE, Place, Words, forbidden};

/// Programs that reach for it whatever they are told.
const PROGRAMS: &[&str] = &[
    "apk", "apt", "apt-get", "brew", "curl", "dig", "dnf", "ftp", "gh", "glab", "nslookup", "pacman", "ping",
    "scp", "sftp", "ssh", "telnet", "wget", "yum",
];

/// Programs that do for these first words. An empty one: without any.
const SUBCOMMANDS: &[(&[&str], &[&str])] = &[
    (
        &["git"],
        &[
            "clone",
            "fetch",
            "ls-remote",
            "pull",
            "push",
            "remote update",
            "submodule add",
            "submodule update",
        ],
    ),
    (
        &["cargo"],
        &[
            "add",
            "fetch",
            "generate-lockfile",
            "info",
            "install",
            "login",
            "owner",
            "publish",
            "search",
            "update",
            "yank",
        ],
    ),
    (
        &["npm", "pnpm", "yarn", "bun"],
        &[
            "add", "audit", "ci", "create", "dlx", "i", "info", "install", "outdated", "publish", "update",
            "upgrade", "view",
        ],
    ),
    (&["yarn"], &[""]),
    (&["pip", "pip3"], &["download", "index", "install", "wheel"]),
    (
        &["uv"],
        &["add", "lock", "pip compile", "pip install", "pip sync", "python install", "sync", "tool install"],
    ),
    (&["poetry", "pipenv", "pdm"], &["add", "install", "lock", "sync", "update"]),
    (&["pipx", "conda", "mamba"], &["create", "install", "run", "update", "upgrade"]),
    (&["go"], &["get", "install", "mod download", "mod tidy"]),
    (&["gem", "bundle", "bundler", "composer"], &["add", "install", "require", "update"]),
    (&["rustup"], &["component add", "install", "target add", "toolchain install", "update"]),
    (&["deno"], &["add", "cache", "install"]),
    (&["dotnet"], &["add", "restore", "tool install"]),
    (&["mix"], &["deps.get", "deps.update"]),
    (&["swift"], &["package resolve", "package update"]),
    (&["docker", "podman"], &["login", "pull", "push"]),
];

/// With one of these a program keeps to what is here.
const OFFLINE: &[&str] = &["--offline", "--no-index", "--frozen", "--help", "-h", "--version"];

/// Options before the first word that take a word of their own.
const WITH_VALUE: &[&str] = &["-C", "-c", "--prefix", "--cwd", "--directory", "--project", "--manifest-path"];

/// Whether a command somewhere in the line needs the network. Never fails, whatever the text holds.
pub fn needs_network(text: &str) -> bool {
    if text.len() > MAX_LINE || text.contains('\0') {
        return false;
    }
    forbidden::meet(text, &parse(text), &Place::default()).commands.iter().any(needs)
}

fn needs(words: &Words) -> bool {
    let words: Vec<&str> = words.iter().map(|word| word.as_deref().unwrap_or_default()).collect();
    let Some((first, mut rest)) = words.split_first() else { return false };
    let mut program = forbidden::base_name(first);
    if program.starts_with("python") && rest.first() == Some(&"-m") {
        let Some((module, others)) = rest[1..].split_first() else { return false };
        (program, rest) = (module.to_string(), others);
    }
    if rest.iter().any(|word| OFFLINE.contains(word) || is_here(word)) {
        return false;
    }
    if PROGRAMS.contains(&program.as_str()) {
        return !rest.is_empty();
    }
    let mut named =
        SUBCOMMANDS.iter().filter(|(programs, _)| programs.contains(&program.as_str())).peekable();
    if named.peek().is_none() {
        return false;
    }
    let said = said(rest);
    named.any(|(_, subcommands)| {
        subcommands.iter().any(|known| match known.split_once(' ') {
            Some((first, second)) => said.first() == Some(&first) && said.get(1) == Some(&second),
            None => said.first().copied().unwrap_or_default() == *known,
        })
    })
}

/// The words that are no options and belong to none.
fn said<'w>(rest: &[&'w str]) -> Vec<&'w str> {
    let mut said = Vec::new();
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        match word {
            word if said.is_empty() && WITH_VALUE.contains(word) => drop(words.next()),
            word if word.starts_with(['-', '+']) => {}
            word => said.push(*word),
        }
    }
    said
}

/// A place on this machine: a path, or a server of this machine's own.
fn is_here(word: &str) -> bool {
    let host = word.split_once("://").map_or(word, |(_, rest)| rest);
    let own = ["localhost", "127.0.0.1", "[::1]", "0.0.0.0"];
    word.starts_with("file://")
        || own.iter().any(|name| {
            host.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_no_use_without_the_network_is_known() {
        for line in [
            "npm install",
            "npm --prefix web ci",
            "yarn",
            "cd web && pnpm add react",
            "python3 -m pip install requests",
            "pip install -r requirements.txt",
            "uv pip install x",
            "cargo +nightly add serde",
            "git -C sub fetch origin",
            "git submodule update --init",
            "go mod tidy && go build",
            "env FOO=1 timeout 5 curl -s https://example.com",
            "sh -c 'wget http://example.com/x'",
            "rustup target add wasm32-wasip1",
        ] {
            assert!(needs_network(line), "{line}");
        }
        for line in [
            "",
            "cargo test",
            "cargo build --release",
            "cargo fetch --offline",
            "npm test",
            "npm run install-hooks",
            "yarn test",
            "pip list",
            "pip install --no-index x",
            "python3 -m pytest",
            "git status",
            "git commit -m 'fetch and push'",
            "git submodule status",
            "go test ./...",
            "curl -s http://localhost:8080/health",
            "curl 127.0.0.1",
            "curl --version",
            "echo npm install",
            "grep -rn curl src",
        ] {
            assert!(!needs_network(line), "{line}");
        }
    }
}
