//! What a command sees of our environment: where programs are, the language, the toolchain; nothing else, since
//! tokens and keys live there.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Variables that name toolchains and hold no secrets.
#[rustfmt::skip]
const TOOLCHAIN: &[&str] = &[
    "ANDROID_HOME", "BUN_INSTALL", "CARGO_HOME", "CC", "CONDA_PREFIX", "CXX", "DENO_DIR", "GEM_HOME", "GOCACHE",
    "GOMODCACHE", "GOPATH", "GOROOT", "GRADLE_USER_HOME", "JAVA_HOME", "LD_LIBRARY_PATH", "LIBRARY_PATH", "NVM_DIR",
    "PKG_CONFIG_PATH", "PNPM_HOME", "PYENV_ROOT", "RBENV_ROOT", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "SDKMAN_DIR",
    "VIRTUAL_ENV", "VOLTA_HOME",
];
const LANGUAGE: &[&str] = &["LANG", "LANGUAGE", "USER", "LOGNAME", "TZ"];
/// Said to every command: no colours, no pager, no prompt, no network.
const FIXED: &[(&str, &str)] = &[
    ("TERM", "dumb"),
    ("TMPDIR", "/tmp"),
    ("PAGER", "cat"),
    ("GIT_PAGER", "cat"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("CARGO_TERM_COLOR", "never"),
    ("RUSTUP_AUTO_INSTALL", "0"),
];
/// Said besides where a line only reads: git starts nothing and leaves the index as it is, whatever stands in the
/// repository by then.
const READING: &[(&str, &str)] = &[
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_CONFIG_COUNT", "3"),
    ("GIT_CONFIG_KEY_0", "core.hooksPath"),
    ("GIT_CONFIG_VALUE_0", "/dev/null"),
    ("GIT_CONFIG_KEY_1", "core.fsmonitor"),
    ("GIT_CONFIG_VALUE_1", "false"),
    ("GIT_CONFIG_KEY_2", "safe.bareRepository"),
    ("GIT_CONFIG_VALUE_2", "explicit"),
];
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The environment of a command; `extra` names further variables of ours that the user lets through.
pub fn scrubbed(extra: &[String], network: bool) -> Vec<(OsString, OsString)> {
    let mut kept = scrub(std::env::vars_os(), extra);
    if !network {
        // Without it cargo tries the network for a while before it says what is missing.
        kept.push(("CARGO_NET_OFFLINE".into(), "true".into()));
    }
    kept
}

/// The same for a command that only reads.
pub fn for_reading(mut environment: Vec<(OsString, OsString)>) -> Vec<(OsString, OsString)> {
    environment.retain(|(name, _)| !READING.iter().any(|(reading, _)| name == reading));
    environment.extend(READING.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))));
    environment
}

fn scrub(ours: impl Iterator<Item = (OsString, OsString)>, extra: &[String]) -> Vec<(OsString, OsString)> {
    let mut kept: Vec<(OsString, OsString)> = Vec::new();
    let (mut path, mut home) = (None, None);
    for (name, value) in ours {
        let Some(known) = name.to_str() else { continue };
        match known {
            "PATH" => path = Some(absolute_only(&value)),
            "HOME" => home = Some(value),
            _ if extra.iter().any(|wanted| wanted == known)
                || known.starts_with("LC_")
                || LANGUAGE.contains(&known)
                || TOOLCHAIN.contains(&known) =>
            {
                kept.push((name, value));
            }
            _ => {}
        }
    }
    kept.retain(|(name, _)| !FIXED.iter().any(|(fixed, _)| name == fixed));
    kept.push(("PATH".into(), path.filter(|path| !path.is_empty()).unwrap_or_else(|| DEFAULT_PATH.into())));
    // A home that is not there (service users have none) would only make tools fail: they get the private /tmp.
    let home = home.filter(|home| Path::new(home).is_dir()).unwrap_or_else(|| "/tmp".into());
    kept.push(("HOME".into(), home));
    kept.extend(FIXED.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))));
    kept
}

/// PATH without relative and empty entries: those would run programs of whatever directory a command is in.
fn absolute_only(path: &OsStr) -> OsString {
    let entries = std::env::split_paths(path).filter(|entry| entry.is_absolute());
    std::env::join_paths(entries).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrub_of(pairs: &[(&str, &str)], extra: &[&str]) -> Vec<(String, String)> {
        let ours = pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let extra: Vec<String> = extra.iter().map(ToString::to_string).collect();
        let text = |value: OsString| value.into_string().unwrap();
        scrub(ours, &extra).into_iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn secrets_stay_out_and_named_variables_go_in() {
        let pairs =
            [("PATH", "/bin"), ("API_KEY", "k"), ("SSH_AUTH_SOCK", "/s"), ("LC_ALL", "C"), ("MINE", "m")];
        let seen = scrub_of(&pairs, &["MINE"]);
        let has = |name: &str| seen.iter().any(|(seen, _)| seen == name);
        assert!(has("LC_ALL") && has("MINE") && !has("API_KEY") && !has("SSH_AUTH_SOCK"));
    }

    #[test]
    fn fixed_values_win_and_path_is_absolute() {
        let seen =
            scrub_of(&[("TERM", "xterm"), ("PATH", ".:/usr/bin::bin"), ("HOME", "/no/such/home")], &["TERM"]);
        let all = |name: &str| -> Vec<&str> {
            seen.iter().filter(|(seen, _)| seen == name).map(|(_, value)| value.as_str()).collect()
        };
        assert_eq!(all("TERM"), ["dumb"]);
        assert_eq!(all("PATH"), ["/usr/bin"]);
        assert_eq!(all("HOME"), ["/tmp"]);
    }

    #[test]
    fn what_reading_needs_is_said_once() {
        let given = [("PATH", "/bin"), ("GIT_CONFIG_COUNT", "1")];
        let given = given.map(|(name, value)| (OsString::from(name), OsString::from(value))).to_vec();
        let reading = for_reading(given);
        let begins = |start: &str| -> Vec<&OsString> {
            let named = reading.iter().filter(|(name, _)| name.to_string_lossy().starts_with(start));
            named.map(|(_, value)| value).collect()
        };
        let keys = begins("GIT_CONFIG_KEY_").len();
        assert_eq!(begins("GIT_CONFIG_COUNT"), [&OsString::from(keys.to_string())]);
        assert_eq!(begins("PATH").len(), 1);
    }

    #[test]
    fn without_a_path_there_is_a_default() {
        assert!(scrub_of(&[], &[]).contains(&("PATH".into(), DEFAULT_PATH.into())));
    }
}
