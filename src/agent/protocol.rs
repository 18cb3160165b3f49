//! The one thing front ends and the agent share: `Op` in, `Event` out, over one queue pair. Plain data that
//! serialises, so that a front end may live in another process. Text in events is as the model, a file or a command
//! wrote it: escape it (`chat::escape`) before a terminal sees it.

use crate::chat::Message;
use crate::workspace::Touched;
use serde::{Deserialize, Serialize};

pub use super::rules::{HeldRule, Rule, RuleEffect, RuleScope};
pub use crate::model::Usage;
pub use crate::tools::Access;

/// What the user may want.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// A request. While a turn runs it waits until that turn ends.
    Submit {
        text: String,
    },
    /// What the user has written so far of a request: while nothing runs, what is certain of it is prefilled. Empty
    /// text prefills what stands before any request.
    Typing {
        text: String,
    },
    /// The answer to `ApprovalRequested`.
    Approve {
        id: u64,
        decision: Decision,
    },
    /// Stop the turn that runs; the session goes on.
    Interrupt,
    /// Take back the last turn: files and conversation.
    Undo,
    /// Take back turns until so many are left.
    Rewind {
        turns: usize,
    },
    SetMode {
        mode: ApprovalMode,
    },
    /// From now on this runs unasked, or never; it holds for the next call of a turn that runs.
    AddRule {
        rule: Rule,
        scope: RuleScope,
    },
    /// A rule that holds no longer.
    RemoveRule {
        rule: Rule,
        scope: RuleScope,
    },
    /// A side question: answered from the conversation as it is, without tools, and then forgotten. While a turn runs
    /// it is answered before the next model call.
    Ask {
        text: String,
    },
    /// Shorten the history; `keep` names what the summary must not lose. While a turn runs it waits for its end.
    Compact {
        keep: Option<String>,
    },
    /// Begin a new conversation, with a log of its own; files stay.
    Clear,
    /// A command of the user's own (`!`), in the sandbox; the model does not hear of it.
    Shell {
        command: String,
    },
    /// Comes with the next request, and is not the user's words.
    Attach {
        attachment: Attachment,
    },
    /// Does this command pass? Run in the sandbox and answered by `Checked`; the model does not hear of it. While a
    /// turn runs it waits for its end.
    Check {
        command: String,
    },
    /// Answered by `Answer`, also between two steps of a turn.
    Query {
        query: Query,
    },
    Quit,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    Allow,
    /// These texts land, byte for byte, instead of what was proposed. The reason goes to the model, and what landed.
    Settle {
        changes: Vec<Change>,
        reason: Option<String>,
    },
    /// The reason goes to the model.
    Deny {
        reason: Option<String>,
    },
}

/// What goes to the model beside the user's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "attachment", rename_all = "snake_case")]
pub enum Attachment {
    /// What was piped in.
    Input { text: String },
    /// A command that is to pass, and what it said instead.
    FailedCheck { command: String, output: String },
}

/// How the command of a `Check` ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum CheckEnd {
    Passed,
    Failed,
    Interrupted,
    /// The time of the whole run is over.
    OutOfTime,
    NotRun {
        message: String,
        hint: String,
    },
}

/// A file before (`None`: it does not exist) and after; texts as they are on disk, line endings and all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub path: String,
    pub before: Option<String>,
    /// `None`: the file is deleted.
    pub after: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Query {
    /// What tools and commands of this process changed.
    Changes,
    /// What was said so far, for a front end that comes later.
    History,
    /// What takes up the context.
    Context,
    /// The rules that hold.
    Rules,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// `others`: changed files that are no text, too long to show, or changed in their mode alone.
    Changes {
        changes: Vec<Change>,
        others: Vec<String>,
    },
    History {
        past: Vec<Past>,
    },
    /// Tokens by what they are of.
    Context {
        parts: Vec<(String, usize)>,
        limit: usize,
    },
    /// `file`: where those lie that are kept.
    Rules {
        rules: Vec<HeldRule>,
        file: Option<String>,
    },
}

/// One thing that was said or done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "past", rename_all = "snake_case")]
pub enum Past {
    /// The user's own words; each begins a turn.
    Request {
        text: String,
    },
    Said {
        text: String,
        thinking: Option<String>,
    },
    Called {
        name: String,
        summary: String,
    },
    Result {
        text: String,
    },
}

/// How much may happen unasked; the table is in `agent::approval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalMode {
    Plan,
    Default,
    AutoEdit,
    Yolo,
}

impl ApprovalMode {
    pub const ALL: [Self; 4] = [Self::Plan, Self::Default, Self::AutoEdit, Self::Yolo];

    pub fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Default => "default",
            Self::AutoEdit => "auto-edit",
            Self::Yolo => "yolo",
        }
    }
}

impl std::str::FromStr for ApprovalMode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.name() == name)
            .ok_or_else(|| format!("`{name}` is not one of plan, default, auto-edit, yolo"))
    }
}

/// What the agent has to say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    SessionStarted {
        id: String,
        model: String,
        context: usize,
        directory: String,
        mode: ApprovalMode,
        /// The tier: full, reduced or none.
        sandbox: String,
        /// One line: the tier, what it does not protect, and what would help.
        sandbox_note: String,
        /// The tools there are, by name.
        #[serde(default)]
        tools: Vec<String>,
    },
    TurnStarted,
    /// `phase` is "load" or "prefill".
    Progress {
        phase: String,
        done: u64,
        total: u64,
    },
    TextDelta {
        text: String,
    },
    ThinkingDelta {
        text: String,
    },
    /// The model has begun to write a call (`summary` empty), or a call is about to run (what it will do).
    ToolCallStarted {
        id: u64,
        name: String,
        summary: String,
    },
    ApprovalRequested {
        id: u64,
        name: String,
        summary: String,
        access: Access,
        /// Why this needs asking.
        reason: String,
        /// The change as a unified diff, where it can be shown.
        preview: Option<String>,
        /// The same as texts, where they are; then `Settle` may answer.
        #[serde(default)]
        changes: Vec<Change>,
        /// What a shell would be given, byte for byte.
        #[serde(default)]
        command: Option<String>,
        /// The rule that would let this and its like run unasked; a front end that adds it (`Op::AddRule`) answers with
        /// `Approve` all the same. `None` where no rule can.
        #[serde(default)]
        suggested: Option<Rule>,
    },
    ToolOutput {
        id: u64,
        text: String,
    },
    ToolCallFinished {
        id: u64,
        name: String,
        ok: bool,
        summary: String,
    },
    /// What one call changed.
    DiffProduced {
        id: u64,
        diff: String,
    },
    ContextUsage {
        used: usize,
        limit: usize,
        usage: Usage,
    },
    TurnFinished {
        outcome: TurnOutcome,
    },
    /// An earlier session goes on: what it held, and what of its log could not be read (lines from 1).
    Resumed {
        messages: usize,
        turns: usize,
        /// The session this one was forked from.
        forked_from: Option<String>,
        damaged: Vec<usize>,
    },
    /// The words of a side answer as they come.
    AsideDelta {
        text: String,
    },
    /// A side question is answered, or `problem` says why not.
    AsideFinished {
        question: String,
        answer: String,
        usage: Usage,
        problem: Option<String>,
    },
    /// The history was shortened: tokens before and after, and what went. It is still in the log.
    Compacted {
        before: usize,
        after: usize,
        dropped: Vec<String>,
    },
    /// The last turn was taken back; `kept` names files that were left alone, and why, `outside` what commands did that
    /// undo does not cover, a line per kind.
    Undone {
        restored: Vec<String>,
        kept: Vec<(String, String)>,
        outside: Vec<String>,
    },
    Answer {
        answer: Answer,
    },
    /// Entered the conversation during a turn, as it stands there; told only where it was asked for.
    Message {
        message: Message,
    },
    /// The answer to `Check`; `output` is what a model is shown of it.
    Checked {
        command: String,
        end: CheckEnd,
        output: String,
    },
    /// Something the user should know that ended no turn.
    Error {
        message: String,
        hint: Option<String>,
    },
}

/// What whoever set an end to the time of a run is told, wherever it comes.
pub const OUT_OF_TIME: &str = "The time is used up (--max-wall-time).";

/// A limit the user or the model's context sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    ModelCalls,
    ToolCalls,
    Tokens,
    WallTime,
    /// The answers of the model were cut off for length again and again.
    AnswerLength,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ending", rename_all = "snake_case")]
pub enum Ending {
    Done,
    /// The model gave up after its last call was denied.
    Denied,
    Interrupted,
    Limit {
        limit: Limit,
        message: String,
    },
    ContextFull {
        needed: usize,
        limit: usize,
    },
    /// The model went in circles.
    Stuck {
        message: String,
    },
    /// A tool failed in a way only the user can repair.
    Failed {
        message: String,
        hint: String,
    },
    ModelUnavailable {
        message: String,
        hint: String,
    },
}

impl Ending {
    /// Why the turn did not end with an answer; `None` where it did.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::Done => None,
            Self::Denied => Some("The model stopped because what it wanted to do was denied.".into()),
            Self::Interrupted => Some("Interrupted.".into()),
            Self::Limit { message, .. } | Self::Stuck { message } => Some(message.clone()),
            Self::ContextFull { needed, limit } => Some(format!(
                "The request needs {needed} tokens (system prompt, tools, what must stay of the conversation, \
                     room for an answer) and the context holds {limit}."
            )),
            Self::Failed { message, .. } | Self::ModelUnavailable { message, .. } => Some(message.clone()),
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ContextFull { needed, .. } => Some(format!(
                "a larger context (--ctx {}, if the model has it), or a shorter request",
                needed.next_power_of_two().max(4096)
            )),
            Self::Failed { hint, .. } | Self::ModelUnavailable { hint, .. } => Some(hint.clone()),
            _ => None,
        }
    }
}

/// A call that was not allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    pub tool: String,
    pub summary: String,
    pub reason: String,
}

/// What one request of the user came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnOutcome {
    #[serde(flatten)]
    pub ending: Ending,
    /// The last answer of the model.
    pub answer: String,
    pub model_calls: usize,
    pub tool_calls: usize,
    /// Summed over all model calls, those for summaries included.
    pub usage: Usage,
    /// How often the history had to be shortened.
    #[serde(default)]
    pub compactions: usize,
    pub denials: Vec<Denial>,
    /// What this turn changed in the workspace, as one unified diff.
    pub diff: String,
    /// All that was touched, where the requests are one piece of work; known to this process alone.
    #[serde(skip)]
    pub touched: Touched,
}

impl TurnOutcome {
    /// A turn that came to nothing else.
    pub fn ended(ending: Ending) -> Self {
        Self {
            ending,
            answer: String::new(),
            model_calls: 0,
            tool_calls: 0,
            usage: Usage::default(),
            compactions: 0,
            denials: Vec::new(),
            diff: String::new(),
            touched: Touched::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_names_read_back() {
        for mode in ApprovalMode::ALL {
            assert_eq!(mode.name().parse::<ApprovalMode>(), Ok(mode));
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.name());
        }
        assert!("Yolo!".parse::<ApprovalMode>().is_err());
    }

    #[test]
    fn ops_and_events_survive_serialisation() {
        let op = Op::Approve { id: 3, decision: Decision::Deny { reason: Some("no".into()) } };
        let text = serde_json::to_string(&op).unwrap();
        assert_eq!(serde_json::from_str::<Op>(&text).unwrap(), op);
        let rule: Rule = "deny run_shell_command(git push)".parse().unwrap();
        let op = Op::AddRule { rule, scope: RuleScope::Always };
        let text = serde_json::to_string(&op).unwrap();
        assert!(text.contains("deny run_shell_command(git push)"), "{text}");
        assert_eq!(serde_json::from_str::<Op>(&text).unwrap(), op);
        let event = Event::TurnFinished {
            outcome: TurnOutcome {
                model_calls: 1,
                tool_calls: 2,
                compactions: 1,
                denials: vec![Denial { tool: "edit".into(), summary: "s".into(), reason: "r".into() }],
                ..TurnOutcome::ended(Ending::Limit { limit: Limit::WallTime, message: "m".into() })
            },
        };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
