//! The driver: takes `Op`s, carries out the effects of the turn (model, tools, approvals, log), emits `Event`s. Runs on
//! a thread of its own; all decisions are the turn's. A second thread passes ops on, so that an interrupt is seen
//! while the model or a tool runs.

mod ahead;
mod aside;
mod check;
mod compact;
mod log;
mod model_calls;
mod ops;
mod query;
mod rules;
mod run;
mod settle;
mod tools;
mod trace;

use super::asked::{Asked, Seen};
use super::conversation::Conversation;
use super::opening::later_message;
use super::protocol::{Access, ApprovalMode, Attachment, Ending, Event, HeldRule, Op, TurnOutcome, Usage};
use super::resume::Resumed;
use super::rules::{RuleSource, Rules};
use super::surroundings::{is_small, named_texts, offered_tools, opening_messages};
use super::transcript::{self, Record, Transcript};
use super::turn::{Effect, Input, Rules as TurnRules, Stop, Turn};
use crate::chat::{Message, Role, ToolSpec};
use crate::model::Model;
use crate::tools::Registry;
use crate::workspace::shell::Shell;
use crate::workspace::{Kept, UndoReport, Workspace};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

pub use check::run_check;
use run::Run;

/// The tool whose calls can be settled in part, the one that makes files, and files looked through for the one a request
/// names.
const EDIT: &str = "edit";
const WRITE: &str = "write_file";
const FILES: usize = 20_000;

/// Budgets of one request, or of all of them (`SessionOptions::one_run`).
#[derive(Debug, Clone, Default)]
pub struct Limits {
    pub model_calls: Option<usize>,
    pub tool_calls: Option<usize>,
    /// Tokens the model may generate.
    pub tokens: Option<usize>,
    pub wall_time: Option<Duration>,
}

#[derive(Debug, Clone)]
pub struct SessionOptions {
    pub mode: ApprovalMode,
    /// Whether the front end answers `ApprovalRequested`; without, asking is denying.
    pub can_ask: bool,
    pub limits: Limits,
    pub seed: u64,
    pub temperature: Option<f32>,
    /// In place of the built-in system prompt.
    pub system_prompt: Option<String>,
    pub append_system_prompt: Option<String>,
    /// The state directory for the session log; `None` keeps no log.
    pub state: Option<PathBuf>,
    /// The directory that the session belongs to, where the workspace is only a copy of it.
    pub directory: Option<PathBuf>,
    /// All requests are one piece of work: they share the limits, and an outcome's diff is of all of them.
    pub one_run: bool,
    /// Files that stay as they are, whatever the mode.
    pub protected: Vec<String>,
    /// What runs unasked and what never runs, by the user's word.
    pub rules: RuleSource,
    /// The only tools there are; `None`: those that a model of this size is offered.
    pub allowed_tools: Option<Vec<String>>,
    /// The tool by which the model gives its answer (`answer::tool`), where it is to have a form.
    pub answer: Option<ToolSpec>,
    /// What enters the conversation is told as well (`Event::Message`).
    pub tell_messages: bool,
    /// What the user is to be told at the start.
    pub notices: Vec<String>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            mode: ApprovalMode::Default,
            can_ask: true,
            limits: Limits::default(),
            seed: 0,
            temperature: None,
            system_prompt: None,
            append_system_prompt: None,
            state: None,
            directory: None,
            one_run: false,
            protected: Vec::new(),
            rules: RuleSource::default(),
            allowed_tools: None,
            answer: None,
            tell_messages: false,
            notices: Vec::new(),
        }
    }
}

pub struct Session {
    id: String,
    model: Box<dyn Model>,
    workspace: Workspace,
    shell: Shell,
    tools: Registry,
    specs: Arc<[ToolSpec]>,
    options: SessionOptions,
    talk: Conversation,
    /// The request of the turn that runs.
    request: String,
    /// Messages of the history before the version of a file that is being tried.
    before_try: usize,
    /// What shortening the history cost in this turn, and how often it was done.
    spent: Usage,
    compactions: usize,
    /// Tokens of the history when it was last shortened.
    compacted_to: usize,
    transcript: Option<Transcript>,
    /// What the last answer was asked for with, until it is logged; and what the log holds of the workspace.
    asked: Option<Asked>,
    seen: Seen,
    events: Sender<Event>,
    ops: Receiver<Op>,
    /// Ops that came while a turn ran and are for later.
    pending: VecDeque<Op>,
    /// Commands of the user's own that ran.
    commands: u64,
    /// Side questions that came while a turn ran.
    questions: VecDeque<String>,
    /// What goes with the next request.
    attached: Vec<Attachment>,
    /// What all requests so far came to.
    so_far: Run,
    /// The protected files as they were, and those that had to be put back since the last check.
    kept: Kept,
    put_back: Vec<String>,
    rules: Rules,
    cancel: Arc<AtomicBool>,
    /// Raised by any op: what is done only while there is nothing to do stops.
    news: Arc<AtomicBool>,
    overtime: Arc<AtomicBool>,
}

impl Session {
    /// Starts a session on threads of its own. It ends with `Op::Quit` or when the sender is dropped; the events end
    /// when it has.
    pub fn start(
        model: Box<dyn Model>,
        workspace: Workspace,
        shell: Shell,
        options: SessionOptions,
    ) -> (Sender<Op>, Receiver<Event>) {
        Self::begin(model, workspace, shell, options, None)
    }

    /// The same with the conversation of an earlier session, whose log goes on. The mode is that of the options.
    pub fn go_on(
        model: Box<dyn Model>,
        workspace: Workspace,
        shell: Shell,
        options: SessionOptions,
        resumed: Resumed,
    ) -> (Sender<Op>, Receiver<Event>) {
        Self::begin(model, workspace, shell, options, Some(resumed))
    }

    fn begin(
        model: Box<dyn Model>,
        workspace: Workspace,
        shell: Shell,
        options: SessionOptions,
        resumed: Option<Resumed>,
    ) -> (Sender<Op>, Receiver<Event>) {
        let (front, passed) = channel();
        let (pass, ops) = channel();
        let (events, shown) = channel();
        let cancel = Arc::new(AtomicBool::new(false));
        let news = Arc::new(AtomicBool::new(false));
        let flags = (cancel.clone(), news.clone());
        thread::spawn(move || ops::pass_on(&passed, &pass, &flags.0, &flags.1));
        // Where there is no place for state there is one for what ends with the session.
        let places = options.state.as_ref().map(|state| state.join("checkpoints"));
        workspace.keep_checkpoints(&places.unwrap_or_else(std::env::temp_dir), options.state.as_deref());
        let tools = match &options.allowed_tools {
            Some(allowed) => {
                Registry::standard().subset(&allowed.iter().map(String::as_str).collect::<Vec<_>>())
            }
            None => offered_tools(&Registry::standard(), model.info()),
        };
        let session = Self {
            id: resumed.as_ref().map_or_else(transcript::new_id, |resumed| resumed.id.clone()),
            specs: tools.specs().into_iter().chain(options.answer.clone()).collect(),
            tools,
            model,
            shell,
            talk: Conversation::new(options.mode),
            kept: workspace.keep(&options.protected),
            workspace,
            options,
            request: String::new(),
            before_try: 0,
            spent: Usage::default(),
            compactions: 0,
            compacted_to: 0,
            transcript: None,
            asked: None,
            seen: Seen::default(),
            events,
            ops,
            pending: VecDeque::new(),
            commands: 0,
            questions: VecDeque::new(),
            attached: Vec::new(),
            so_far: Run::new(),
            put_back: Vec::new(),
            rules: Rules::default(),
            cancel,
            news,
            overtime: Arc::new(AtomicBool::new(false)),
        };
        thread::spawn(move || session.run(resumed));
        (front, shown)
    }

    fn tell_started(&self) {
        self.emit(Event::SessionStarted {
            id: self.id.clone(),
            model: self.model.info().name.clone(),
            context: self.model.info().context,
            directory: self.directory(),
            mode: self.talk.mode,
            sandbox: self.shell.tier().to_string(),
            sandbox_note: self.shell.status_line(),
            tools: self.tools.names().map(str::to_string).collect(),
        });
    }

    /// A conversation of its own, in a log of its own; the one before is in its log, as it was.
    fn begin_anew(&mut self) {
        if self.talk.history.is_empty() {
            return;
        }
        self.id = transcript::new_id();
        self.talk = Conversation::new(self.talk.mode);
        self.transcript = None;
        (self.asked, self.seen, self.compacted_to) = (None, Seen::default(), 0);
        self.attached.clear();
        self.tell_started();
        self.open_transcript();
    }

    fn run(mut self, resumed: Option<Resumed>) {
        self.tell_started();
        self.read_rules();
        match resumed {
            Some(resumed) => self.take_up(resumed),
            None => self.open_transcript(),
        }
        for message in std::mem::take(&mut self.options.notices) {
            self.emit(Event::Error { message, hint: None });
        }
        while let Some(op) = self.pending.pop_front().or_else(|| self.ops.recv().ok()) {
            match op {
                Op::Submit { text } => self.submit(&text),
                Op::Typing { text } => self.look_ahead(&text),
                Op::Undo => self.undo(),
                Op::Rewind { turns } => self.rewind(turns),
                Op::Shell { command } => self.shell(&command),
                Op::Attach { attachment } => self.attached.push(attachment),
                Op::Check { command } => self.check(&command),
                Op::Query { query } => self.answer(query),
                Op::SetMode { mode } => self.set_mode(mode),
                Op::AddRule { rule, scope } => self.add_rule(HeldRule { rule, scope }),
                Op::RemoveRule { rule, scope } => self.remove_rule(&HeldRule { rule, scope }),
                Op::Ask { text } => {
                    self.lower_flags();
                    self.ask(&text);
                }
                Op::Compact { keep } => {
                    self.lower_flags();
                    self.compact_now(keep.as_deref());
                }
                Op::Clear => self.begin_anew(),
                Op::Quit => return,
                // Too late, or for nothing that runs.
                Op::Approve { .. } | Op::Interrupt => {}
            }
        }
    }

    fn submit(&mut self, text: &str) {
        self.request = text.to_string();
        self.lower_flags();
        // A session beside this one may have added some.
        self.read_rules();
        let new_mode = (self.talk.mode != self.talk.told_mode).then_some(self.talk.mode);
        let is_first = self.talk.history.is_empty();
        self.record(Record::Request { text: text.to_string() });
        if let Some(turn) = self.talk.turns.last_mut() {
            turn.mark = Some(self.workspace.mark());
        }
        self.emit(Event::TurnStarted);
        let rules = TurnRules {
            small: is_small(self.model.info()),
            max_model_calls: self.options.limits.model_calls,
            max_tool_calls: self.options.limits.tool_calls,
            max_tokens: self.options.limits.tokens,
            spent: self.spent_before(),
            answers: self.options.answer.is_some(),
            can_ask: self.options.can_ask,
            first_call: self.talk.calls,
            files: if is_small(self.model.info()) { self.workspace.files(FILES) } else { Vec::new() }.into(),
            root: self.workspace.root().to_path_buf(),
        };
        let mut turn = Turn::new(text, self.specs.clone(), rules);
        let mut messages = match is_first {
            true => self.opening(text),
            false => vec![Message::new(Role::User, self.later(text, new_mode))],
        };
        if let Some(last) = messages.last_mut() {
            last.content.push_str(&self.take_attached(&turn));
        }
        messages.into_iter().for_each(|message| self.push(message));
        let deadline = self.time_left().map(|time| self.watch(time));
        let outcome = self.drive(&mut turn);
        drop(deadline);
        self.finish(outcome);
    }

    /// The messages of a new session whose first request is `text`.
    fn opening(&self, text: &str) -> Vec<Message> {
        let options = SessionOptions { mode: self.talk.mode, ..self.options.clone() };
        let count = |text: &str| self.model.count_tokens(text);
        opening_messages(&self.workspace, self.model.info(), &options, text, &count)
    }

    /// The message of a later request.
    fn later(&self, text: &str, new_mode: Option<ApprovalMode>) -> String {
        let shown = |block: &str| self.talk.history.iter().any(|message| message.content.contains(block));
        let count = |text: &str| self.model.count_tokens(text);
        let named = named_texts(&self.workspace, self.model.info(), text, &count);
        later_message(text, new_mode, &named, &shown)
    }

    fn directory(&self) -> String {
        self.options.directory.as_deref().unwrap_or(self.workspace.root()).display().to_string()
    }

    /// Before something begins that can be interrupted.
    fn lower_flags(&mut self) {
        self.overtime.store(false, Ordering::SeqCst);
        self.cancel.store(false, Ordering::SeqCst);
        // An interrupt that overtook the line above is still in the queue.
        self.poll_ops();
    }

    /// Carries out effects until the turn finishes.
    fn drive(&mut self, turn: &mut Turn) -> Option<TurnOutcome> {
        let mut effects: VecDeque<Effect> = turn.handle(Input::Start).into();
        while let Some(effect) = effects.pop_front() {
            let input = match effect {
                Effect::Append(message) => {
                    if self.options.tell_messages {
                        self.emit(Event::Message { message: message.clone() });
                    }
                    self.push(message);
                    continue;
                }
                Effect::Emit(event) => {
                    self.emit(event);
                    continue;
                }
                Effect::Finish(outcome) => return Some(outcome),
                waiting => {
                    self.poll_ops();
                    match self.stop() {
                        Some(why) => Input::Stopped { why, partial: None },
                        None => self.carry_out(waiting),
                    }
                }
            };
            effects.extend(turn.handle(input));
        }
        None
    }

    fn carry_out(&mut self, effect: Effect) -> Input {
        match effect {
            Effect::CallModel { max_tokens, must } => self.call_model(max_tokens, must),
            Effect::Judge { call } => self.judge(&call),
            Effect::AskApproval { id, call, access, summary, reason } => {
                let preview = self
                    .tools
                    .get(&call.name)
                    .and_then(|tool| tool.preview(&self.workspace, &call.arguments));
                let changes = self.proposed(&call);
                let text = |key: &str| call.arguments.get(key)?.as_str().map(str::to_string);
                let command = text("command").filter(|_| matches!(access, Access::Execute | Access::Network));
                let suggested = self.suggested(&call);
                self.emit(Event::ApprovalRequested {
                    id,
                    name: call.name,
                    summary,
                    access,
                    reason,
                    preview,
                    changes,
                    command,
                    suggested,
                });
                self.wait_for_decision(id)
            }
            Effect::TakeBack { forget } => {
                self.take_back(forget);
                Input::Start
            }
            Effect::Revise { file } => self.revise(&file),
            Effect::Rewrite { file, refused, begun, max_tokens } => {
                self.rewrite(&file, refused.as_deref(), begun, max_tokens)
            }
            Effect::RunTool { id, call } => Input::ToolDone(self.run_tool(id, &call)),
            Effect::Settle { changes, reason } => Input::ToolDone(self.settle(&changes, reason.as_deref())),
            Effect::Append(_) | Effect::Emit(_) | Effect::Finish(_) => Input::Start,
        }
    }

    /// A change that did not help goes; what cannot be taken back stays, and the model reads the files as they are.
    fn take_back(&mut self, forget: bool) {
        let mark = self.talk.turns.last().and_then(|turn| turn.mark);
        // What the check made of the files that were tried (a build, caches) stays for the next one.
        let taken = mark.and_then(|mark| self.workspace.undo_writes_since(mark).ok());
        if forget && self.before_try < self.talk.history.len() {
            self.record(Record::Cut { messages: self.before_try });
        }
        if let Some(report) = taken {
            self.emit(undone(report));
        }
    }

    /// Why the turn must stop now, if it must.
    fn stop(&self) -> Option<Stop> {
        if self.overtime.load(Ordering::SeqCst) {
            Some(Stop::WallTime)
        } else {
            self.cancel.load(Ordering::SeqCst).then_some(Stop::Interrupted)
        }
    }

    /// Raises the cancel flag when the time is over; dropping the sender calls it off.
    fn watch(&self, time: Duration) -> Sender<()> {
        let (calls_off, called_off) = channel();
        let (cancel, overtime) = (self.cancel.clone(), self.overtime.clone());
        thread::spawn(move || {
            if called_off.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
                overtime.store(true, Ordering::SeqCst);
                cancel.store(true, Ordering::SeqCst);
            }
        });
        calls_off
    }

    fn finish(&mut self, outcome: Option<TurnOutcome>) {
        let Some(mut outcome) = outcome else {
            // Cannot be by the turn's contract; said rather than swallowed.
            self.emit(Event::Error { message: "the turn ended without an outcome".into(), hint: None });
            return;
        };
        self.so_far.spend(&outcome);
        outcome.usage += std::mem::take(&mut self.spent);
        outcome.compactions = std::mem::take(&mut self.compactions);
        // What a command did to them is no part of the turn's diff.
        outcome.denials.extend(self.put_back_protected());
        if let Some(mark) = self.talk.turns.last().and_then(|turn| turn.mark) {
            outcome.diff = self.workspace.diff_since(mark);
        }
        self.record(Record::Finished { outcome: outcome.clone() });
        if self.options.one_run {
            outcome.diff = self.workspace.session_diff();
            outcome.touched = self.workspace.touched();
        }
        let asked = self.questions.drain(..).rev().map(|text| Op::Ask { text });
        asked.for_each(|op| self.pending.push_front(op));
        if outcome.ending == Ending::Interrupted {
            self.pending.retain(|op| *op != Op::Interrupt);
        }
        self.emit(Event::TurnFinished { outcome });
    }

    fn undo(&mut self) {
        let (Some(turn), Some(back)) = (self.talk.turns.last(), self.talk.without_last_turn()) else {
            return self.emit(Event::Error { message: "There is no turn to undo.".into(), hint: None });
        };
        let taken = match turn.mark {
            Some(mark) => self.workspace.undo_since(mark),
            // What files were before is kept in memory, by the process that changed them.
            None if turn.changed => {
                return self.emit(Event::Error {
                    message: "Nothing was undone: the last turn changed files before this session was resumed, and \
                              what they were is no longer known.".into(),
                    hint: Some("git diff and git restore see what was committed; the session log holds each edit".into()),
                });
            }
            None => Ok(UndoReport::default()),
        };
        match taken {
            Ok(report) => {
                self.record(back);
                self.emit(undone(report));
            }
            Err(error) => {
                self.emit(Event::Error { message: format!("nothing was undone: {error}"), hint: None });
            }
        }
    }

    fn rewind(&mut self, turns: usize) {
        while self.talk.turns.len() > turns {
            let before = self.talk.turns.len();
            self.undo();
            // What cannot be taken back was said, and ends it.
            if self.talk.turns.len() == before {
                return;
            }
        }
    }

    /// A front end that went away is noticed where ops are read.
    fn emit(&self, event: Event) {
        trace::trace(&event);
        let _ = self.events.send(event);
    }
}

fn undone(report: UndoReport) -> Event {
    Event::Undone { restored: report.restored, kept: report.kept, outside: report.outside }
}
