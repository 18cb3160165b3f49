//! One request of the user as a pure state machine: `handle(Input) -> Vec<Effect>`, no IO, no clock. It decides what
//! enters the history, which calls may run, what the model is told about its mistakes, and when to stop.
//! Every answer of `handle` ends with exactly one effect to wait on (call the model, judge a call, ask the user, run a
//! tool) or with `Finish`; the session carries it out and feeds back what came of it.

mod calls;
mod effects;
mod ending;
mod lead;

pub use effects::{Effect, Input, Must, Rules, Spent, Stop, ToolReport};

use super::answer::{self, ANSWER};
use super::nudge::{self, Facts, Kind, Nudge, Wish};
use super::opening::{named_directory, named_files, new_file};
use super::prompts::note;
use super::protocol::{Access, Decision, Denial, Ending, Event, Limit, Usage};
use crate::chat::{self, Message, Role, ToolCall, ToolSpec};
use crate::model::{Generated, ModelError, StopReason};
use calls::form;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The tools that the turn itself may call for.
const SHELL: &str = "run_shell_command";
const EDIT: &str = "edit";
const SEARCH: &str = "grep_search";
const LIST: &str = "list_directory";
const WRITE: &str = "write_file";

/// The same call with the same result so often in a row ends the turn.
const SAME_CALL_STOPS: usize = 5;
/// From this count on, an identical error adds "do something else".
const SAME_ERROR_WARNS: usize = 3;
/// Answers cut off for length in a row that are forgiven.
const LENGTH_CHANCES: usize = 3;

#[derive(Debug, Clone, PartialEq)]
enum State {
    New,
    Generating,
    Revising,
    Judging(ToolCall),
    Asking { call: ToolCall, access: Access, summary: String },
    Running { call: ToolCall, access: Access },
    Finished,
}

/// How far the turn is with mending a file itself (see `repair`).
#[derive(Debug, Clone, PartialEq)]
enum Repair {
    Untried,
    /// At the head of a test, for what it is about.
    Looking {
        test: String,
        /// Of the check.
        output: String,
    },
    Reading {
        file: String,
    },
    Trying {
        file: String,
        tries: usize,
    },
    /// The model writes the file anew, and the turn makes the edit of it.
    Rewriting,
    Over,
}

#[derive(Debug)]
pub struct Turn {
    rules: Rules,
    tools: Arc<[ToolSpec]>,
    wish: Wish,
    state: State,
    /// Calls of the last answer that are still to run.
    queue: VecDeque<ToolCall>,
    /// What the model is told after the results of this step.
    notes: Vec<String>,
    /// The last answer called tools, so the model must be asked again.
    called: bool,
    model_calls: usize,
    tool_calls: usize,
    usage: Usage,
    denials: Vec<Denial>,
    answer: String,
    errors: HashMap<String, usize>,
    last: Option<(ToolCall, String)>,
    same: usize,
    /// How often each call came with the same result since something changed.
    again: HashMap<String, usize>,
    cut_off: usize,
    empty: usize,
    nudged: Vec<Nudge>,
    /// What the next answer must call.
    must: Must,
    /// The turn itself asked for the last call.
    led: bool,
    repair: Repair,
    named: Vec<String>,
    /// A file the request names and that is not there yet.
    new: Option<String>,
    /// The directory that the request names.
    directory: Option<String>,
    /// The lines that the version in hand replaces, and its own.
    version: (String, String),
    /// What the check took before anything was changed.
    check_seconds: u64,
    /// The user had to be asked for something in this turn.
    asked: bool,
    /// Answers in words where a call was to give it.
    unformed: usize,
    /// The user let something else land than what was asked for.
    settled: bool,
    /// A change that the user refused and wants otherwise: the tool of it, and how.
    refused: Option<(&'static str, String)>,
    changed: bool,
    /// Since the last change: whether the last command succeeded.
    last_run: Option<bool>,
    /// The last call that the model made was denied.
    denied_last: bool,
    /// The call in hand is the turn's own: a denial of it is no reason for the model to give up.
    own: bool,
    /// The turn has begun with a search of its own, whose result has not been looked at yet.
    searched: bool,
}

impl Turn {
    pub fn new(request: &str, tools: Arc<[ToolSpec]>, rules: Rules) -> Self {
        let wish = Wish::of(request);
        let named = if rules.small { named_files(request, &rules.files) } else { Vec::new() };
        let new = if rules.small { new_file(request, &rules.files) } else { None };
        let directory = named_directory(request, &rules.files);
        Self {
            rules,
            tools,
            wish,
            new,
            directory,
            state: State::New,
            queue: VecDeque::new(),
            notes: Vec::new(),
            called: false,
            model_calls: 0,
            tool_calls: 0,
            usage: Usage::default(),
            denials: Vec::new(),
            answer: String::new(),
            errors: HashMap::new(),
            last: None,
            same: 0,
            again: HashMap::new(),
            cut_off: 0,
            empty: 0,
            nudged: Vec::new(),
            must: Must::Nothing,
            led: false,
            repair: Repair::Untried,
            named,
            version: Default::default(),
            check_seconds: 0,
            asked: false,
            unformed: 0,
            settled: false,
            refused: None,
            changed: false,
            last_run: None,
            denied_last: false,
            own: false,
            searched: false,
        }
    }

    /// An input that does not fit what is waited for changes nothing.
    pub fn handle(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match (std::mem::replace(&mut self.state, State::Finished), input) {
            (State::Finished, _) => {}
            (state, Input::Stopped { why, partial }) => self.stopped(state, why, partial, &mut effects),
            (State::New, Input::Start) => match (self.first_check(), self.first_search()) {
                (Some(command), _) => self.own_call(command, &mut effects),
                (None, Some(search)) => {
                    self.searched = true;
                    self.own_calls(vec![search], &mut effects);
                }
                (None, None) => match self.first_rewrite() {
                    Some(file) => self.rewrite(file, None, &mut effects),
                    None => {
                        self.must = self.first_answer();
                        self.call_model(&mut effects);
                    }
                },
            },
            (State::Revising, Input::Revised { call, usage }) => self.revised(call, usage, &mut effects),
            (State::Generating, Input::Generated(generated)) => self.generated(generated, &mut effects),
            (State::Generating | State::Revising, Input::ModelFailed(error)) => {
                let ending = match error {
                    ModelError::ContextFull { needed, limit } => Ending::ContextFull { needed, limit },
                    ModelError::Unavailable { message, hint } => Ending::ModelUnavailable { message, hint },
                };
                self.finish(ending, &mut effects);
            }
            (State::Judging(call), Input::Judged { verdict, access, summary }) => {
                self.judged(call, verdict, access, summary, &mut effects);
            }
            (State::Asking { call, access, summary }, Input::Decided(decision)) => match decision {
                Decision::Allow => self.run(call, access, summary, &mut effects),
                Decision::Settle { changes, reason } => {
                    self.settled = true;
                    let id = self.id();
                    let name = call.name.clone();
                    effects.push(Effect::Emit(Event::ToolCallStarted { id, name, summary }));
                    self.state = State::Running { call, access };
                    effects.push(Effect::Settle { changes, reason });
                }
                Decision::Deny { reason } => self.denied_by_user(call, access, summary, reason, &mut effects),
            },
            (State::Running { call, access }, Input::ToolDone(report)) => {
                self.tool_done(call, access, report, &mut effects);
            }
            (state, _) => self.state = state,
        }
        effects
    }

    fn call_model(&mut self, effects: &mut Vec<Effect>) {
        if self.must == Must::Answer {
            self.notes.push(self.asked_for_words());
        }
        for text in std::mem::take(&mut self.notes) {
            effects.push(Effect::Append(Message::new(Role::User, text)));
        }
        let Some(left) = self.tokens_left(effects) else { return };
        self.called = false;
        self.state = State::Generating;
        effects.push(Effect::CallModel { max_tokens: left, must: std::mem::take(&mut self.must) });
    }

    /// Tokens the model may still write (`None` inside: any number); without another call of it left, the turn ends.
    fn tokens_left(&mut self, effects: &mut Vec<Effect>) -> Option<Option<usize>> {
        let calls = self.rules.spent.model_calls + self.model_calls;
        if let Some(limit) = self.rules.max_model_calls.filter(|limit| calls >= *limit) {
            let message = format!("Stopped after {limit} model calls (--max-turns).");
            self.limit(Limit::ModelCalls, message, effects);
            return None;
        }
        let left = self.rules.max_tokens.map(|limit| limit.saturating_sub(self.tokens()));
        if left == Some(0) {
            self.out_of_tokens(effects);
            return None;
        }
        Some(left)
    }

    /// Generated so far, by this request and those that share its budget.
    fn tokens(&self) -> usize {
        self.rules.spent.tokens + self.usage.completion
    }

    fn offers(&self, tool: &str) -> bool {
        self.tools.iter().any(|spec| spec.name == tool)
    }

    /// The command the request names, where commands can be called for.
    fn command(&self) -> Option<String> {
        let command = self.wish.command.clone();
        command.filter(|_| self.offers(SHELL))
    }

    fn generated(&mut self, generated: Generated, effects: &mut Vec<Effect>) {
        let Generated { message, stop, usage, truncated, problems } = generated;
        self.own = false;
        self.take_in(&message, usage, effects);
        match stop {
            StopReason::Cancelled => return self.finish(Ending::Interrupted, effects),
            StopReason::Repetition => {
                let message =
                    "The model repeated the same text again and again, so it was stopped.".to_string();
                return self.finish(Ending::Stuck { message }, effects);
            }
            StopReason::End | StopReason::Length => {}
        }
        self.called = !self.queue.is_empty();
        if truncated || stop == StopReason::Length {
            if self.rules.max_tokens.is_some_and(|limit| self.tokens() >= limit) {
                return self.out_of_tokens(effects);
            }
            self.cut_off += 1;
            if self.cut_off > LENGTH_CHANCES {
                let message = format!(
                    "The model's answers were cut off by the length limit {} times in a row, so it was stopped.",
                    self.cut_off
                );
                return self.limit(Limit::AnswerLength, message, effects);
            }
            self.notes.push(note(if truncated { "call_cut_off" } else { "answer_cut_off" }, &[]));
        } else {
            self.cut_off = 0;
        }
        if !problems.is_empty() {
            let text = note("unreadable_call", &[("problems", &problems.join("; "))]);
            match self.count_error("", text) {
                (_, count) if count >= SAME_CALL_STOPS => {
                    let message =
                        "The model wrote the same unreadable call again and again, so it was stopped.".into();
                    return self.finish(Ending::Stuck { message }, effects);
                }
                (text, _) => self.notes.push(text),
            }
        }
        self.next(effects);
    }

    /// The answer enters the history as it is; its calls wait in the queue.
    fn take_in(&mut self, message: &Message, usage: Usage, effects: &mut Vec<Effect>) {
        self.model_calls += 1;
        self.usage += usage;
        self.answer = message.content.trim().to_string();
        self.queue = message.tool_calls.iter().cloned().collect();
        effects.push(Effect::Append(message.clone()));
    }

    /// The next call of this step, else the next step, else the end.
    fn next(&mut self, effects: &mut Vec<Effect>) {
        while let Some(call) = self.queue.pop_front() {
            let calls = self.rules.spent.tool_calls + self.tool_calls;
            if let Some(limit) = self.rules.max_tool_calls.filter(|limit| calls >= *limit) {
                self.queue.push_front(call);
                let message = format!("Stopped after {limit} tool calls (--max-tool-calls).");
                return self.limit(Limit::ToolCalls, message, effects);
            }
            self.tool_calls += 1;
            self.denied_last = false;
            let Some(spec) = self.tools.iter().find(|spec| spec.name == call.name) else {
                let tools: Vec<&str> = self.tools.iter().map(|spec| spec.name.as_str()).collect();
                let text = note("unknown_tool", &[("name", &call.name), ("tools", &tools.join(", "))]);
                if self.refuse(call, text, effects) {
                    return;
                }
                continue;
            };
            if let Err(reason) = chat::validate(&call, spec) {
                let text = note("invalid_arguments", &[("reason", &reason), ("form", &form(spec))]);
                if self.refuse(call, text, effects) {
                    return;
                }
                continue;
            }
            if self.rules.answers && call.name == ANSWER {
                let text = answer::given(&call, spec).to_string();
                return self.answered(call, text, effects);
            }
            self.state = State::Judging(call.clone());
            effects.push(Effect::Judge { call });
            return;
        }
        if self.step_of_ours(effects) {
            return;
        }
        if self.called || !self.notes.is_empty() {
            return self.call_model(effects);
        }
        self.last_answer(effects);
    }

    /// No call, nothing to tell: the model thinks it is done.
    fn last_answer(&mut self, effects: &mut Vec<Effect>) {
        if self.answer.is_empty() {
            self.empty += 1;
            if self.empty > 1 {
                let message = "The model gave an empty answer twice.".to_string();
                return self.finish(Ending::Stuck { message }, effects);
            }
            self.notes.push(note("empty_answer", &[]));
            return self.call_model(effects);
        }
        if self.rules.small {
            let facts = Facts {
                wish: &self.wish,
                answer: &self.answer,
                changed: self.changed,
                last_run: self.last_run,
                denied: !self.denials.is_empty(),
            };
            let due =
                |nudge: &Nudge| self.nudged.iter().filter(|earlier| *earlier == nudge).count() < nudge.most();
            if let Some(nudge) = nudge::nudge(facts).filter(due) {
                if nudge == Nudge::CheckFailed {
                    self.take_back(effects);
                    return self.call_model(effects);
                }
                self.nudged.push(nudge);
                match (nudge, self.command()) {
                    (Nudge::NotChecked, Some(command)) => return self.own_call(command, effects),
                    (Nudge::NothingChanged, _) => self.require_edit(),
                    _ => {}
                }
                let check = self.wish.check.as_deref().unwrap_or_default();
                self.notes.push(note(nudge.note(), &[("check", check)]));
                return self.call_model(effects);
            }
        }
        if self.rules.small && self.changed && self.last_run == Some(false) {
            let check = self.wish.check.as_deref().unwrap_or("the last command");
            let message = format!("{check} still fails after every try, so the model was stopped.");
            return self.finish(Ending::Stuck { message }, effects);
        }
        let ending = if self.denied_last { Ending::Denied } else { Ending::Done };
        self.end(ending, effects);
    }
}

#[cfg(test)]
mod lead_tests;
#[cfg(test)]
#[path = "turn_tests.rs"]
mod tests;
