//! The settings: one table of names, and the typed values they parse to. A value is refused with a sentence that
//! names what is accepted, whether it came from a file, a variable or a flag.

use std::str::FromStr;
use std::time::Duration;

/// One setting, as files and `config show` name it.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub help: &'static str,
}

impl Key {
    /// `max_turns` is `QWRIGHT_MAX_TURNS`.
    pub fn env_name(&self) -> String {
        format!("QWRIGHT_{}", self.name.to_uppercase())
    }
}

pub const KEYS: &[Key] = &[
    Key { name: "model", help: "catalogue name or path of the model" },
    Key {
        name: "endpoint",
        help: "OpenAI-compatible server that runs the model, in place of the own engine",
    },
    Key { name: "backend", help: "what runs the model: native or candle" },
    Key { name: "threads", help: "threads of the engine" },
    Key { name: "kv", help: "type of the KV cache: f32, f16 or q8_0" },
    Key { name: "ctx", help: "tokens of context" },
    Key { name: "load", help: "where weights lie: map (in the file) or copy (in memory, huge pages)" },
    Key { name: "snapshots", help: "GB on disk for keys and values of sessions (0: keep none)" },
    Key { name: "masks", help: "on or off: hold tool calls to their grammar and to the workspace" },
    Key { name: "drafts", help: "on or off: guess what comes next (faster, and the output is the same)" },
    Key { name: "sandbox", help: "sandbox tier: auto, full, reduced or none" },
    Key { name: "approval_mode", help: "plan, default, auto-edit or yolo" },
    Key { name: "allow", help: "list of calls that run unasked, like edit(src/**) (variable: one a line)" },
    Key { name: "deny", help: "list of calls that never run, like run_shell_command(git push)" },
    Key { name: "seed", help: "seed of the sampler" },
    Key { name: "temperature", help: "sampling temperature, 0 to 2 (0: greedy)" },
    Key { name: "max_turns", help: "model calls in one run" },
    Key { name: "max_tool_calls", help: "tool calls in one run" },
    Key { name: "max_tokens", help: "tokens the model may write in one run" },
    Key { name: "theme", help: "colours of the terminal interface: dark, light or none" },
    Key { name: "vim", help: "on or off: vi keys in the composer" },
    Key { name: "max_wall_time", help: "time of one run: seconds, or 90s, 10m, 2h" },
];

/// The typed values. `None`: nobody said; the reader's own default holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    pub model: Option<String>,
    pub endpoint: Option<String>,
    pub backend: Option<BackendChoice>,
    pub threads: Option<usize>,
    pub kv: Option<KvKind>,
    pub ctx: Option<usize>,
    pub load: Option<LoadKind>,
    /// Gigabytes.
    pub snapshots: Option<u64>,
    pub masks: Option<Switch>,
    pub drafts: Option<Switch>,
    pub sandbox: SandboxMode,
    pub approval_mode: Option<ApprovalMode>,
    /// As they were written; every layer adds to them.
    pub allow: Vec<String>,
    pub deny: Vec<String>,
    pub seed: Option<u64>,
    pub temperature: Option<f32>,
    pub max_turns: Option<usize>,
    pub max_tool_calls: Option<usize>,
    pub max_tokens: Option<usize>,
    pub max_wall_time: Option<Duration>,
    pub theme: Option<ThemeChoice>,
    pub vim: Option<Switch>,
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($variant),+ }
        impl $name {
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!("`{text}` is none of {}", [$($text),+].join(", "))),
                }
            }
        }
    };
}
choice!(/// What runs the model.
    BackendChoice { Native = "native", Candle = "candle" });
choice!(/// Type of the KV cache.
    KvKind { F32 = "f32", F16 = "f16", Q8_0 = "q8_0" });
choice!(/// Where the weights lie while a model runs.
    LoadKind { Map = "map", Copy = "copy" });
choice!(/// Which sandbox tier commands run in.
    SandboxMode { Auto = "auto", Full = "full", Reduced = "reduced", None = "none" });
choice!(/// Colours of the terminal interface.
    ThemeChoice { Dark = "dark", Light = "light", None = "none" });
choice!(/// On or off.
    Switch { On = "on", Off = "off" });
choice!(/// What runs unasked.
    ApprovalMode { Plan = "plan", Default = "default", AutoEdit = "auto-edit", Yolo = "yolo" });

#[allow(clippy::derivable_impls)] // the macro's variants carry no attributes
impl Default for SandboxMode {
    fn default() -> Self {
        Self::Auto
    }
}

/// A value as it was written, before its key is known.
pub(super) enum Raw<'a> {
    /// A string of a file, or the text of a variable or flag: numbers are read from it too.
    Text(&'a str),
    Number(String),
    /// What it is instead.
    Other(&'a str),
}

impl Raw<'_> {
    fn text(&self, wanted: &str) -> Result<&str, String> {
        match self {
            Raw::Text(s) => Ok(s.trim()),
            Raw::Number(n) => Ok(n),
            Raw::Other(what) => Err(format!("{what} is not {wanted}")),
        }
    }

    fn word(&self) -> Result<&str, String> {
        match self {
            Raw::Text(s) if !s.trim().is_empty() => Ok(s.trim()),
            Raw::Text(_) => Err("is empty".into()),
            Raw::Number(n) => Err(format!("{n} is a number; text is needed")),
            Raw::Other(what) => Err(format!("{what} is not text")),
        }
    }

    fn whole(&self, least: u64, most: u64) -> Result<u64, String> {
        let wanted = format!("a whole number from {least} to {most}");
        let text = self.text(&wanted)?;
        let n: u64 = text.replace('_', "").parse().map_err(|_| format!("`{text}` is not {wanted}"))?;
        if (least..=most).contains(&n) { Ok(n) } else { Err(format!("{n} is not {wanted}")) }
    }
}

/// A fixed ceiling keeps every later sum of these numbers far from overflow.
const MANY: u64 = 1_000_000_000;

impl Settings {
    pub(super) fn set(&mut self, key: &str, raw: Raw<'_>) -> Result<(), String> {
        let count = |least: u64| raw.whole(least, MANY).map(|n| Some(n as usize));
        match key {
            "model" => self.model = Some(raw.word()?.to_string()),
            "endpoint" => self.endpoint = Some(endpoint(raw.word()?)?),
            "backend" => self.backend = Some(raw.word()?.parse()?),
            "threads" => self.threads = Some(raw.whole(1, 1024)? as usize),
            "kv" => self.kv = Some(raw.word()?.parse()?),
            "ctx" => self.ctx = Some(raw.whole(256, 16_777_216)? as usize),
            "load" => self.load = Some(raw.word()?.parse()?),
            "snapshots" => self.snapshots = Some(raw.whole(0, 1_000_000)?),
            "masks" => self.masks = Some(raw.word()?.parse()?),
            "drafts" => self.drafts = Some(raw.word()?.parse()?),
            "sandbox" => self.sandbox = raw.word()?.parse()?,
            "approval_mode" => self.approval_mode = Some(raw.word()?.parse()?),
            "allow" => self.allow.extend(lines(raw.word()?)),
            "deny" => self.deny.extend(lines(raw.word()?)),
            "theme" => self.theme = Some(raw.word()?.parse()?),
            "vim" => self.vim = Some(raw.word()?.parse()?),
            "seed" => self.seed = Some(raw.whole(0, u64::MAX)?),
            "temperature" => {
                let text = raw.text("a number from 0 to 2")?;
                let t = text.parse::<f32>().ok().filter(|t| (0.0..=2.0).contains(t));
                self.temperature = Some(t.ok_or_else(|| format!("`{text}` is not a number from 0 to 2"))?);
            }
            "max_turns" => self.max_turns = count(1)?,
            "max_tool_calls" => self.max_tool_calls = count(0)?,
            "max_tokens" => self.max_tokens = count(1)?,
            "max_wall_time" => self.max_wall_time = Some(duration(raw.text("a time")?)?),
            _ => return Err("is not a setting".into()),
        }
        Ok(())
    }

    /// The value of a key as `config show` prints it; `None` where nobody set one.
    pub fn shown(&self, key: &str) -> Option<String> {
        match key {
            "model" => self.model.clone(),
            "endpoint" => self.endpoint.clone(),
            "backend" => self.backend.map(|b| b.as_str().to_string()),
            "threads" => self.threads.map(|n| n.to_string()),
            "kv" => self.kv.map(|k| k.as_str().to_string()),
            "ctx" => self.ctx.map(|n| n.to_string()),
            "load" => self.load.map(|l| l.as_str().to_string()),
            "snapshots" => self.snapshots.map(|gb| gb.to_string()),
            "masks" => self.masks.map(|s| s.as_str().to_string()),
            "drafts" => self.drafts.map(|s| s.as_str().to_string()),
            "sandbox" => Some(self.sandbox.as_str().to_string()),
            "approval_mode" => self.approval_mode.map(|m| m.as_str().to_string()),
            "allow" => Some(self.allow.join(", ")).filter(|rules| !rules.is_empty()),
            "deny" => Some(self.deny.join(", ")).filter(|rules| !rules.is_empty()),
            "theme" => self.theme.map(|theme| theme.as_str().to_string()),
            "vim" => self.vim.map(|vim| vim.as_str().to_string()),
            "seed" => self.seed.map(|n| n.to_string()),
            "temperature" => self.temperature.map(|t| t.to_string()),
            "max_turns" => self.max_turns.map(|n| n.to_string()),
            "max_tool_calls" => self.max_tool_calls.map(|n| n.to_string()),
            "max_tokens" => self.max_tokens.map(|n| n.to_string()),
            "max_wall_time" => self.max_wall_time.map(|d| format!("{}s", d.as_secs())),
            _ => None,
        }
    }
}

/// The settings that are lists.
pub(super) fn is_list(key: &str) -> bool {
    ["allow", "deny"].contains(&key)
}

fn lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(|line| line.trim().to_string()).filter(|line| !line.is_empty())
}

/// What a repository may not set, even a trusted one: going without a sandbox or without questions, and what is
/// asked, is for the user to name, and so is where the conversation goes; cloned files must not decide it.
pub(super) fn not_for_repositories(key: &str, raw: &Raw<'_>) -> Option<String> {
    match (key, raw) {
        ("sandbox", Raw::Text(v)) if v.trim() == "none" => {}
        ("approval_mode", Raw::Text(v)) if v.trim() == "yolo" => {}
        ("endpoint" | "allow" | "deny", _) => {}
        _ => return None,
    }
    Some("a repository may not set this value; put it in your own settings or name it as a flag".into())
}

/// The address of a server. It is shown and logged, so it holds no password.
fn endpoint(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let authority = rest.and_then(|rest| rest.split('/').next()).filter(|authority| !authority.is_empty());
    let Some(authority) = authority else {
        return Err("needs an address like http://127.0.0.1:8000".into());
    };
    if authority.contains('@') {
        return Err("holds a name or password; put the key into QWRIGHT_API_KEY instead".into());
    }
    if text.contains(['?', '#']) || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("`{}` is more than an address", text.escape_debug()));
    }
    Ok(text.trim_end_matches('/').to_string())
}

/// `90`, `90s`, `10m` or `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let problem = || format!("`{text}` is not a time: seconds, or a number followed by s, m or h");
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, text.as_bytes().last().copied()),
        None => (text, None),
    };
    let n: u64 = number.trim().parse().map_err(|_| problem())?;
    let seconds = match unit {
        Some(b'm') => n.checked_mul(60),
        Some(b'h') => n.checked_mul(3600),
        _ => Some(n),
    };
    match seconds {
        Some(s) if (1..=MANY).contains(&s) => Ok(Duration::from_secs(s)),
        _ => Err(problem()),
    }
}

/// The candidate that `word` was most likely meant to be: at most a third of its letters differ.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|c| (edit_distance(word, c), c))
        .filter(|(d, c)| *d <= (c.chars().count().max(word.chars().count()) / 3).max(1))
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// Edits that turn `a` into `b`; two neighbours in the wrong order are one edit.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut two_above = above.clone();
    let mut previous = None;
    for (i, ca) in a.chars().take(200).enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let mut best = (above[j] + usize::from(ca != *cb)).min(above[j + 1] + 1).min(row[j] + 1);
            if j > 0 && previous == Some(*cb) && b[j - 1] == ca {
                best = best.min(two_above[j - 1] + 1);
            }
            row.push(best);
        }
        two_above = std::mem::replace(&mut above, row);
        previous = Some(ca);
    }
    above.last().copied().unwrap_or(0)
}
