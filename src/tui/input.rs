//! What comes into the interface and what goes out of it: plain data. The state (`App`) maps one to the other; the loop
//! and the host carry effects out.

use crate::agent::protocol::{Event, Op};

/// What happens to the interface.
#[derive(Debug)]
pub enum Input {
    Key(crossterm::event::KeyEvent),
    Paste(String),
    /// The wheel: lines, negative is up.
    Wheel(isize),
    Resize,
    Agent(Event),
    /// The session's thread has ended.
    AgentGone,
    Told(Told),
    /// The editor is closed; `None`: it failed, or the text is as it was.
    Edited {
        purpose: Purpose,
        text: Option<String>,
        problem: Option<String>,
    },
    /// A panic on another thread.
    Panicked(String),
    Tick,
}

/// What the interface wants done.
#[derive(Debug, PartialEq)]
pub enum Effect {
    Op(Op),
    Ask(Ask),
    /// Open `text` in the user's editor; `name` is what it is of.
    Edit {
        text: String,
        name: String,
        purpose: Purpose,
    },
    /// Into the clipboard, by the terminal.
    Copy(String),
    /// The user may be elsewhere.
    Notify(String),
    Mouse(bool),
    Suspend,
    Quit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Composer,
    /// A plan, before it is carried out.
    Plan,
    Hunk,
    /// A memory file, which is written back.
    Memory,
}

/// What only the host (the command that opened the interface) can do. It answers with `Told`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Load a model (none: as the settings say) and begin or take up a session. One that runs has ended before.
    Open {
        model: Option<String>,
        session: Which,
    },
    Models,
    Sessions,
    Files,
    /// What this machine can run.
    Plan,
    Pull(String),
    CancelPull,
    /// Keep what was sent for the next time.
    Remember(String),
    /// Save the memory file of the workspace.
    SaveMemory(String),
    Memory,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    New,
    Latest,
    Id(String),
    ForkLatest,
    ForkId(String),
}

#[derive(Debug, Clone)]
pub enum Told {
    /// What the interface begins with.
    Start(Box<Start>),
    Loading {
        done: u64,
        total: u64,
    },
    /// Something about loading that is worth a line.
    Note(String),
    Failed {
        message: String,
        hint: Option<String>,
    },
    /// There is no model: `Plan` says what there could be.
    NoModel,
    Models(Vec<Choice>),
    Sessions(Vec<Choice>),
    Files(Vec<String>),
    Plan {
        machine: String,
        rows: Vec<Choice>,
    },
    Pulling {
        done: u64,
        total: Option<u64>,
        note: Option<String>,
    },
    Pulled {
        name: String,
    },
    Memory {
        path: String,
        text: String,
    },
    Saved(String),
}

/// One line of a list to choose from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// What choosing it means to the host.
    pub value: String,
    pub label: String,
    pub detail: String,
    /// Where the list begins.
    pub preferred: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Start {
    pub version: String,
    pub directory: String,
    pub branch: Option<String>,
    /// What was sent in earlier sessions, the latest last.
    pub history: Vec<String>,
    /// Own commands: name and text.
    pub commands: Vec<(String, String)>,
    pub theme: Option<String>,
    pub vim: bool,
    /// Submitted at once.
    pub prompt: Option<String>,
    /// Earlier sessions are offered first.
    pub choose: bool,
}
