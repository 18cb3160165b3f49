//! The driver: takes `Op`s, carries out the effects of the turn (model, tools, approvals, log), emits `Event`s. Runs on
//! a thread of its own; all decisions are the turn's. A second thread passes ops on, so that an interrupt is seen
//! while the model or a tool runs.

use super::approval::{Containment, verdict};
use super::fit::fit;
use super::live_values::WorkspaceValues;
use super::opening::{later_message, named_files};
use super::prompts::note;
use super::protocol::{ApprovalMode, Decision, Ending, Event, Op, TurnOutcome};
use super::repair;
use super::surroundings::{is_small, offered_tools, opening_messages};
use super::transcript::{self, Record, Transcript};
use super::turn::{Effect, Input, Must, Rules, Stop, ToolReport, Turn};
use crate::chat::{Message, Role, ToolCall, ToolSpec};
use crate::model::{
    Model, ModelError, ModelEvent, Request, RequiredCall, Revised, Revision, Sampling, StopReason, Usage,
};
use crate::tools::{Registry, ToolContext, ToolError};
use crate::workspace::shell::{SandboxTier, Shell};
use crate::workspace::{Mark, ReadContent, Workspace, diff};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The tool whose calls can be settled in part, and files looked through for the one a request names.
const EDIT: &str = "edit";
const FILES: usize = 20_000;

/// An answer with less room than this is not worth starting.
const LEAST_ANSWER: usize = 256;
/// How often the clock is looked at while the user is asked.
const TICK: Duration = Duration::from_millis(100);

/// Budgets of one request.
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
        }
    }
}

/// Where a turn began, to take it back.
struct Start {
    messages: usize,
    mark: Mark,
}

pub struct Session {
    id: String,
    model: Box<dyn Model>,
    workspace: Workspace,
    shell: Shell,
    tools: Registry,
    specs: Arc<[ToolSpec]>,
    options: SessionOptions,
    mode: ApprovalMode,
    /// The mode the model was last told of.
    told_mode: ApprovalMode,
    history: Vec<Message>,
    /// The request of the turn that runs.
    request: String,
    /// Messages of the history before the version of a file that is being tried.
    before_try: usize,
    turns: Vec<Start>,
    transcript: Option<Transcript>,
    /// Calls numbered so far in this session.
    calls: u64,
    events: Sender<Event>,
    ops: Receiver<Op>,
    /// Ops that came while a turn ran and are for later.
    pending: VecDeque<Op>,
    cancel: Arc<AtomicBool>,
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
        let (front, passed) = channel();
        let (pass, ops) = channel();
        let (events, shown) = channel();
        let cancel = Arc::new(AtomicBool::new(false));
        let flag = cancel.clone();
        thread::spawn(move || pass_on(&passed, &pass, &flag));
        let tools = offered_tools(&Registry::standard(), model.info());
        let session = Self {
            id: transcript::new_id(),
            specs: tools.specs().into(),
            tools,
            model,
            workspace,
            shell,
            mode: options.mode,
            told_mode: options.mode,
            options,
            history: Vec::new(),
            request: String::new(),
            before_try: 0,
            turns: Vec::new(),
            transcript: None,
            calls: 0,
            events,
            ops,
            pending: VecDeque::new(),
            cancel,
            overtime: Arc::new(AtomicBool::new(false)),
        };
        thread::spawn(move || session.run());
        (front, shown)
    }

    fn run(mut self) {
        self.emit(Event::SessionStarted {
            id: self.id.clone(),
            model: self.model.info().name.clone(),
            context: self.model.info().context,
            directory: self.workspace.root().display().to_string(),
            mode: self.mode,
            sandbox: self.shell.tier().to_string(),
            sandbox_note: self.shell.status_line(),
        });
        self.open_transcript();
        while let Some(op) = self.pending.pop_front().or_else(|| self.ops.recv().ok()) {
            match op {
                Op::Submit { text } => self.submit(&text),
                Op::Undo => self.undo(),
                Op::SetMode { mode } => self.set_mode(mode),
                Op::Clear => {
                    self.history.clear();
                    self.turns.clear();
                    self.log(&Record::Cut { messages: 0 });
                }
                Op::Quit => return,
                // Too late, or for nothing that runs.
                Op::Approve { .. } | Op::Interrupt => {}
            }
        }
    }

    fn submit(&mut self, text: &str) {
        self.request = text.to_string();
        self.overtime.store(false, Ordering::SeqCst);
        self.cancel.store(false, Ordering::SeqCst);
        // An interrupt that overtook the line above is still in the queue.
        self.poll_ops();
        self.turns.push(Start { messages: self.history.len(), mark: self.workspace.mark() });
        self.emit(Event::TurnStarted);
        if self.history.is_empty() {
            let options = SessionOptions { mode: self.mode, ..self.options.clone() };
            let model = &self.model;
            let count = |text: &str| model.count_tokens(text);
            let opening = opening_messages(&self.workspace, model.info(), &options, text, &count);
            opening.into_iter().for_each(|message| self.push(message));
        } else {
            let new_mode = (self.mode != self.told_mode).then_some(self.mode);
            self.push(Message::new(Role::User, later_message(text, new_mode)));
        }
        self.told_mode = self.mode;
        let deadline = self.options.limits.wall_time.map(|time| self.watch(time));
        let rules = Rules {
            small: is_small(self.model.info()),
            max_model_calls: self.options.limits.model_calls,
            max_tool_calls: self.options.limits.tool_calls,
            max_tokens: self.options.limits.tokens,
            can_ask: self.options.can_ask,
            first_call: self.calls,
            files: if is_small(self.model.info()) { self.workspace.files(FILES) } else { Vec::new() }.into(),
        };
        let mut turn = Turn::new(text, self.specs.clone(), rules);
        let outcome = self.drive(&mut turn);
        drop(deadline);
        self.calls += turn.calls();
        self.finish(outcome);
    }

    /// Carries out effects until the turn finishes.
    fn drive(&mut self, turn: &mut Turn) -> Option<TurnOutcome> {
        let mut effects: VecDeque<Effect> = turn.handle(Input::Start).into();
        while let Some(effect) = effects.pop_front() {
            let input = match effect {
                Effect::Append(message) => {
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
                self.emit(Event::ApprovalRequested { id, name: call.name, summary, access, reason, preview });
                self.wait_for_decision(id)
            }
            Effect::TakeBack { forget } => {
                self.take_back(forget);
                Input::Start
            }
            Effect::Revise { file } => self.revise(&file),
            Effect::RunTool { id, call } => Input::ToolDone(self.run_tool(id, &call)),
            Effect::Append(_) | Effect::Emit(_) | Effect::Finish(_) => Input::Start,
        }
    }

    /// A change that did not help goes; what cannot be taken back stays, and the model reads the files as they are.
    fn take_back(&mut self, forget: bool) {
        let undone = self.turns.last().and_then(|start| self.workspace.undo_since(start.mark).ok());
        if forget && self.before_try < self.history.len() {
            self.history.truncate(self.before_try);
            self.log(&Record::Cut { messages: self.before_try });
        }
        if let Some(report) = undone {
            self.emit(Event::Undone { restored: report.restored, kept: report.kept });
        }
    }

    /// The next version of a file, as the call that makes it.
    fn revise(&mut self, file: &str) -> Input {
        self.before_try = self.history.len();
        let text = match self.workspace.read(file).map(|read| read.content) {
            Ok(ReadContent::Text(text)) if text.valid_utf8 => text.shown().into_owned(),
            _ => return Input::Revised { call: None, usage: Usage::default() },
        };
        // A block of code ends with a line break; a file may not.
        let ended = if text.ends_with('\n') { text.clone() } else { format!("{text}\n") };
        let ask = Message::new(Role::User, note("revise", &[("path", file)]));
        let revision = Revision {
            messages: &self.history,
            tools: &self.specs,
            ask: &ask,
            text: &ended,
            language: repair::language(file).unwrap_or_default(),
            until: repair::changeable(&ended),
            sampling: self.sampling(0),
            cancel: &self.cancel,
        };
        let events = &self.events;
        let revised = self.model.revise(revision, &mut |event| forward(events, event));
        match revised {
            Ok(revised) if revised.cancelled => {
                Input::Stopped { why: self.stop().unwrap_or(Stop::Interrupted), partial: None }
            }
            Ok(Revised { text: version, usage, .. }) => {
                let new = version.map(|version| match text.ends_with('\n') {
                    true => version,
                    false => version.trim_end_matches('\n').to_string(),
                });
                let call = new.map(|new| repair::edit_call(file, &text, &new));
                Input::Revised { call, usage }
            }
            // A file too long for the context is left to the model's own reading.
            Err(ModelError::ContextFull { .. }) => Input::Revised { call: None, usage: Usage::default() },
            Err(error) => Input::ModelFailed(error),
        }
    }

    fn sampling(&self, max_tokens: usize) -> Sampling {
        Sampling { seed: self.options.seed, temperature: self.options.temperature, max_tokens }
    }

    /// The beginning of a call that must come: of `edit`, with the file that the request names.
    fn required_call(&self, tool: &str) -> RequiredCall {
        let spec = self.specs.iter().find(|spec| spec.name == tool);
        let first = spec.and_then(|spec| spec.parameters.get("required")?.get(0)?.as_str());
        let next = first.unwrap_or_default().to_string();
        match named_files(&self.request, &self.workspace.files(FILES)).first() {
            Some(path) if tool == EDIT => RequiredCall {
                tool: tool.into(),
                given: vec![(next, path.clone())],
                next: "old_string".into(),
            },
            _ => RequiredCall { tool: tool.into(), given: Vec::new(), next },
        }
    }

    fn call_model(&mut self, max_tokens: Option<usize>, must: Must) -> Input {
        let context = self.model.info().context;
        let needed = self.model.count_history(&self.history, &self.specs);
        let room = context.saturating_sub(needed);
        if room < LEAST_ANSWER {
            let needed = needed + LEAST_ANSWER;
            return Input::ModelFailed(ModelError::ContextFull { needed, limit: context });
        }
        let required = match must {
            Must::Call(tool) => Some(self.required_call(tool)),
            Must::Nothing | Must::Answer => None,
        };
        let most = answer_room(context).min(room).min(max_tokens.unwrap_or(usize::MAX));
        let values = WorkspaceValues(&self.workspace);
        let request = Request {
            messages: &self.history,
            tools: &self.specs,
            sampling: self.sampling(most),
            must_call: required.as_ref(),
            words_only: must == Must::Answer,
            values: Some(&values),
            cancel: &self.cancel,
        };
        let events = &self.events;
        match self.model.generate(request, &mut |event| forward(events, event)) {
            Ok(generated) => {
                let usage = generated.usage;
                self.emit(Event::ContextUsage {
                    used: usage.prompt + usage.completion,
                    limit: context,
                    usage,
                });
                match (generated.stop, self.stop()) {
                    (StopReason::Cancelled, why) => {
                        Input::Stopped { why: why.unwrap_or(Stop::Interrupted), partial: Some(generated) }
                    }
                    _ => Input::Generated(generated),
                }
            }
            Err(error) => Input::ModelFailed(error),
        }
    }

    fn judge(&self, call: &ToolCall) -> Input {
        let Some(tool) = self.tools.get(&call.name) else {
            // The turn judges only calls of tools it was given, and those are this registry's.
            return Input::Start;
        };
        let access = tool.access(&call.arguments);
        let path = ["file_path", "path"].iter().find_map(|key| call.arguments.get(*key)?.as_str());
        Input::Judged {
            verdict: verdict(self.mode, access, self.containment(), path),
            access,
            summary: tool.describe(&call.arguments),
        }
    }

    fn containment(&self) -> Containment {
        match (self.shell.unavailable(), self.shell.tier()) {
            (Some(_), _) => Containment::Absent,
            (None, SandboxTier::Full) => Containment::Full,
            (None, SandboxTier::Reduced) => Containment::Reduced,
            (None, SandboxTier::None) => Containment::Waived,
        }
    }

    fn wait_for_decision(&mut self, asked: u64) -> Input {
        loop {
            if let Some(why) = self.stop() {
                return Input::Stopped { why, partial: None };
            }
            match self.ops.recv_timeout(TICK) {
                Ok(Op::Approve { id, decision }) if id == asked => return Input::Decided(decision),
                Ok(op) => self.sort(op),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Input::Decided(Decision::Deny { reason: Some("nobody is there to ask".into()) });
                }
            }
        }
    }

    fn run_tool(&self, id: u64, call: &ToolCall) -> ToolReport {
        let Some(tool) = self.tools.get(&call.name) else {
            return ToolReport::Error(format!("there is no tool {}", call.name));
        };
        let room = self.tool_room();
        let events = &self.events;
        let mut on_output = |text: &str| {
            let _ = events.send(Event::ToolOutput { id, text: text.to_string() });
        };
        let mut context = ToolContext {
            workspace: &self.workspace,
            shell: &self.shell,
            cancel: &self.cancel,
            on_output: &mut on_output,
            // Code has about three characters a token; what is more than fits by count is cut below.
            max_chars: room * 3,
        };
        let count = |text: &str| self.model.count_tokens(text);
        let started = Instant::now();
        match tool.run(&mut context, &call.arguments) {
            Ok(output) => ToolReport::Output {
                seconds: started.elapsed().as_secs_f64().ceil() as u64,
                text: fit(&output.text, room, &count),
                summary: output.summary,
                diff: output.diff,
                ok: output.ok,
            },
            Err(ToolError::ToModel(message)) => ToolReport::Error(fit(&message, room, &count)),
            Err(ToolError::ToUser { message, hint }) => ToolReport::Fatal { message, hint },
        }
    }

    /// Tokens a result may take: what is left beside the answer, and never so much that a few results fill it all.
    fn tool_room(&self) -> usize {
        let context = self.model.info().context;
        let used = self.model.count_history(&self.history, &self.specs);
        let left = context.saturating_sub(used + answer_room(context));
        left.min(context / 4).max(LEAST_ANSWER / 4)
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

    /// Ops that came meanwhile: what concerns the running turn is done now, the rest waits.
    fn poll_ops(&mut self) {
        while let Ok(op) = self.ops.try_recv() {
            self.sort(op);
        }
    }

    fn sort(&mut self, op: Op) {
        match op {
            Op::SetMode { mode } => self.set_mode(mode),
            Op::Interrupt => self.cancel.store(true, Ordering::SeqCst),
            Op::Approve { .. } => {}
            Op::Quit => {
                self.cancel.store(true, Ordering::SeqCst);
                self.pending.push_front(Op::Quit);
            }
            later => self.pending.push_back(later),
        }
    }

    fn set_mode(&mut self, mode: ApprovalMode) {
        self.mode = mode;
        self.log(&Record::Mode { mode });
    }

    fn finish(&mut self, outcome: Option<TurnOutcome>) {
        let Some(mut outcome) = outcome else {
            // Cannot be by the turn's contract; said rather than swallowed.
            self.emit(Event::Error { message: "the turn ended without an outcome".into(), hint: None });
            return;
        };
        if let Some(start) = self.turns.last() {
            outcome.diff = self
                .workspace
                .changes_since(start.mark)
                .iter()
                .map(|change| {
                    let sides = diff::Sides {
                        before: change.before.as_deref(),
                        after: change.after.as_deref(),
                        mode: change.mode,
                    };
                    diff::unified(&change.path, sides)
                })
                .collect();
        }
        self.log(&Record::Finished { outcome: outcome.clone() });
        if outcome.ending == Ending::Interrupted {
            self.pending.retain(|op| *op != Op::Interrupt);
        }
        self.emit(Event::TurnFinished { outcome });
    }

    fn undo(&mut self) {
        let Some(start) = self.turns.pop() else {
            return self.emit(Event::Error { message: "There is no turn to undo.".into(), hint: None });
        };
        match self.workspace.undo_since(start.mark) {
            Ok(report) => {
                self.history.truncate(start.messages);
                self.log(&Record::Cut { messages: start.messages });
                self.emit(Event::Undone { restored: report.restored, kept: report.kept });
            }
            Err(error) => {
                self.turns.push(start);
                self.emit(Event::Error { message: format!("nothing was undone: {error}"), hint: None });
            }
        }
    }

    fn push(&mut self, message: Message) {
        self.log(&Record::Message { message: message.clone() });
        self.history.push(message);
    }

    fn open_transcript(&mut self) {
        let Some(state) = &self.options.state else { return };
        match Transcript::open(state, &self.id) {
            Ok((transcript, _)) => {
                self.transcript = Some(transcript);
                self.log(&Record::Started {
                    id: self.id.clone(),
                    time: jiff::Timestamp::now().to_string(),
                    directory: self.workspace.root().display().to_string(),
                    model: self.model.info().name.clone(),
                    sandbox: self.shell.tier().to_string(),
                });
            }
            Err(error) => self.emit(Event::Error {
                message: format!("this session is not logged: {}: {error}", state.display()),
                hint: Some("set XDG_STATE_HOME to a directory that can be written".into()),
            }),
        }
    }

    /// A log that cannot be written is said once; the session goes on without.
    fn log(&mut self, record: &Record) {
        if let Some(transcript) = &mut self.transcript
            && let Err(error) = transcript.append(record)
        {
            let message = format!("the session log ends here: {}: {error}", transcript.path().display());
            self.transcript = None;
            self.emit(Event::Error { message, hint: None });
        }
    }

    /// A front end that went away is noticed where ops are read.
    fn emit(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

/// What the front end is told of a model's work. The turn says when a call runs; the usage comes with the answer.
fn forward(events: &Sender<Event>, event: ModelEvent) {
    let event = match event {
        ModelEvent::Text(text) => Event::TextDelta { text },
        ModelEvent::Thinking(text) => Event::ThinkingDelta { text },
        ModelEvent::Progress { phase, done, total } => {
            Event::Progress { phase: phase.to_string(), done, total }
        }
        ModelEvent::ToolCallStarted(name) => {
            Event::Progress { phase: format!("writing {name}"), done: 0, total: 0 }
        }
        ModelEvent::ToolCall(_) | ModelEvent::Usage(_) => return,
    };
    let _ = events.send(event);
}

/// Tokens kept free for an answer.
fn answer_room(context: usize) -> usize {
    (context / 8).max(2048).min(context / 2)
}

/// Passes ops from the front end to the session. An interrupt is passed on *before* the flag is raised: whoever lowers
/// the flag afterwards finds it in the queue.
fn pass_on(from: &Receiver<Op>, to: &Sender<Op>, cancel: &AtomicBool) {
    for op in from {
        let stops = matches!(op, Op::Interrupt | Op::Quit);
        if to.send(op).is_err() {
            return;
        }
        if stops {
            cancel.store(true, Ordering::SeqCst);
        }
    }
    // The front end is gone: nothing that runs has anyone to run for.
    let _ = to.send(Op::Quit);
    cancel.store(true, Ordering::SeqCst);
}
