//! What goes into a turn and what comes out of it: plain data, shared with the session.

use crate::agent::approval::Verdict;
use crate::agent::protocol::{Access, Change, Decision, Event, TurnOutcome, Usage};
use crate::chat::{Message, ToolCall};
use crate::model::{Generated, ModelError};
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct Rules {
    /// Whether the model gets the help of a small one (nudges).
    pub small: bool,
    pub max_model_calls: Option<usize>,
    pub max_tool_calls: Option<usize>,
    /// Tokens the model may generate in this turn.
    pub max_tokens: Option<usize>,
    /// What earlier requests took of these budgets.
    pub spent: Spent,
    /// The answer is given by a call of `answer::ANSWER`, which is among the tools.
    pub answers: bool,
    /// With nobody to ask, asking is denying.
    pub can_ask: bool,
    /// Numbers of calls are unique in a session: a late approval can never meet another call.
    pub first_call: u64,
    /// The files of the workspace; only a small model's turn looks at them.
    pub files: Arc<[String]>,
    /// Where it lies.
    pub root: PathBuf,
}

/// What requests took of the budgets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    pub model_calls: usize,
    pub tool_calls: usize,
    pub tokens: usize,
}

#[derive(Debug)]
pub enum Input {
    Start,
    Generated(Generated),
    ModelFailed(ModelError),
    /// The call that makes the next version of the file; `None`: there are no more.
    Revised {
        call: Option<ToolCall>,
        usage: Usage,
    },
    /// What the table says of the call, and what the call would do in one line.
    Judged {
        verdict: Verdict,
        access: Access,
        summary: String,
    },
    Decided(Decision),
    ToolDone(ToolReport),
    /// In place of what was waited for. `partial`: an answer that was being written.
    Stopped {
        why: Stop,
        partial: Option<Generated>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Interrupted,
    WallTime,
}

/// What running a call came to; texts are already fitted to the context.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolReport {
    Output {
        text: String,
        summary: String,
        diff: String,
        ok: bool,
        /// How long the tool ran.
        seconds: u64,
    },
    /// The model can repair this.
    Error(String),
    /// Only the user can.
    Fatal { message: String, hint: String },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Add to the history.
    Append(Message),
    Emit(Event),
    CallModel {
        max_tokens: Option<usize>,
        must: Must,
    },
    /// Ask the model for the next version of this file.
    Revise {
        file: String,
    },
    /// Ask the model for this file as it is after the change. `refused`: what the user said of the one before. `begun`:
    /// the answer begins with the file's first line, since others were read beside it.
    Rewrite {
        file: String,
        refused: Option<String>,
        begun: bool,
        max_tokens: Option<usize>,
    },
    /// Files go back to what they were before the turn: a change did not help. `forget`: the history goes back to the
    /// last `Revise` too.
    TakeBack {
        forget: bool,
    },
    Judge {
        call: ToolCall,
    },
    AskApproval {
        id: u64,
        call: ToolCall,
        access: Access,
        summary: String,
        reason: String,
    },
    RunTool {
        id: u64,
        call: ToolCall,
    },
    /// In place of running the call: these texts, which the user settled on, land.
    Settle {
        changes: Vec<Change>,
        reason: Option<String>,
    },
    /// `diff` and `compactions` of the outcome are left to the session.
    Finish(TurnOutcome),
}

/// What words alone did not achieve is asked of the next answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Must {
    #[default]
    Nothing,
    /// It opens with a call of this tool.
    Call(&'static str),
    /// It calls nothing.
    Answer,
}
