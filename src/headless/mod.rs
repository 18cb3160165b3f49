//! `exec` as a front end: submits one request, shows what happens, and says how it ended. Text mode prints the answer
//! on stdout and everything else on stderr; JSON mode prints one object on stdout. Knows the agent through its
//! protocol alone. Exit codes are for whoever calls this.

mod json;
mod rounds;
mod stream;
mod text;

pub use json::failure;

use crate::agent::protocol::{Attachment, Decision, Ending, Event, Op, TurnOutcome};
use rounds::{Next, Rounds};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// How often the cancel flag is looked at.
const TICK: Duration = Duration::from_millis(50);
/// How long a turn may take to end after an interrupt before it is left behind.
const GRACE: Duration = Duration::from_millis(700);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OutputFormat {
    /// The answer on stdout, everything else on stderr
    #[default]
    Text,
    /// One JSON object on stdout
    Json,
    /// JSON lines on stdout: what happens as it happens, the object of `json` last
    StreamJson,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub prompt: String,
    /// What the model gets beside the prompt.
    pub attachments: Vec<Attachment>,
    pub until: Option<Until>,
    /// The answer is to have the form of a schema.
    pub structured: bool,
    pub format: OutputFormat,
    /// With `StreamJson`: the parts of an answer as they come, too.
    pub partial_messages: bool,
    /// Only the answer, and errors.
    pub quiet: bool,
    pub stdout_is_terminal: bool,
    pub stderr_is_terminal: bool,
    /// When the command began, so that loading counts.
    pub started: Instant,
}

/// Work goes on until a command passes.
#[derive(Debug, Clone)]
pub struct Until {
    pub command: String,
    /// The request of every round but the first.
    pub again: String,
    pub max_rounds: usize,
    /// Files that may not be changed for it.
    pub protected: Vec<String>,
}

/// What became of `Until`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UntilReport {
    pub command: String,
    pub passed: bool,
    /// Requests that were made of the model.
    pub rounds: usize,
    pub protected: Vec<String>,
}

/// Where the changes of a run in a private copy went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchReport {
    pub file: String,
    pub files_changed: usize,
}

/// What became of one of several attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptReport {
    /// From 1.
    pub number: usize,
    pub seed: u64,
    pub session_id: String,
    pub passed: bool,
    /// The word for how it ended, as `subtype` of a result.
    pub ending: &'static str,
    pub rounds: usize,
    pub files_changed: usize,
    /// Lines.
    pub added: usize,
    pub removed: usize,
    /// Tokens written.
    pub completion: usize,
}

impl AttemptReport {
    pub fn new(number: usize, seed: u64, result: &ExecResult) -> Self {
        let diff = result.outcome.as_ref().map_or("", |outcome| &outcome.diff);
        let lines = |sign: &str, header: &str| {
            diff.lines().filter(|line| line.starts_with(sign) && !line.starts_with(header)).count()
        };
        Self {
            number,
            seed,
            session_id: result.session_id.clone(),
            passed: result.until.as_ref().is_some_and(|until| until.passed),
            ending: json::subtype(&result.ending()),
            rounds: result.until.as_ref().map_or(0, |until| until.rounds),
            files_changed: diff.lines().filter(|line| line.starts_with("diff --git ")).count(),
            added: lines("+", "+++ "),
            removed: lines("-", "--- "),
            completion: result.outcome.as_ref().map_or(0, |outcome| outcome.usage.completion),
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct ExecResult {
    pub session_id: String,
    pub model: String,
    pub sandbox: String,
    pub duration: Duration,
    /// `None` where the agent went away without one.
    pub outcome: Option<TurnOutcome>,
    pub until: Option<UntilReport>,
    pub patch: Option<PatchReport>,
    /// With `--attempts`: all of them, in their order.
    pub attempts: Vec<AttemptReport>,
    /// The answer has the form of a schema.
    pub structured: bool,
    /// The answer could not be written to stdout (a closed pipe is not an error).
    pub write_error: Option<String>,
}

impl ExecResult {
    /// Nothing has come of it yet.
    pub fn new(sandbox: String) -> Self {
        Self {
            session_id: String::new(),
            model: String::new(),
            sandbox,
            duration: Duration::ZERO,
            outcome: None,
            until: None,
            patch: None,
            attempts: Vec::new(),
            structured: false,
            write_error: None,
        }
    }

    pub fn ending(&self) -> Ending {
        match &self.outcome {
            Some(outcome) => outcome.ending.clone(),
            None => Ending::Failed {
                message: "the agent ended without a result".into(),
                hint: "this is a fault of Qwright; please report it".into(),
            },
        }
    }
}

/// Where output goes.
pub struct Streams<'a> {
    pub out: &'a mut dyn Write,
    pub err: &'a mut dyn Write,
}

/// What a way of showing does with events and with the end.
trait View {
    fn event(&mut self, event: &Event, streams: &mut Streams<'_>) -> io::Result<()>;
    fn end(&mut self, result: &ExecResult, streams: &mut Streams<'_>) -> io::Result<()>;
}

/// Runs one request to its end. `cancel` is raised by Ctrl-C; `finishing` has its say before the end is shown.
pub fn run(
    ops: &Sender<Op>,
    events: &Receiver<Event>,
    options: &Options,
    cancel: &AtomicBool,
    streams: &mut Streams<'_>,
    finishing: &mut dyn FnMut(&mut ExecResult),
) -> ExecResult {
    let mut view = view(options);
    let mut rounds = Rounds::new(options.until.as_ref());
    let mut result = ExecResult::new(String::new());
    let mut interrupted: Option<Instant> = None;
    // A send fails only where the agent is gone; then the events end as well.
    let first = options.attachments.iter().cloned().map(|attachment| Op::Attach { attachment });
    for op in first.chain([Op::Submit { text: options.prompt.clone() }]) {
        let _ = ops.send(op);
    }
    loop {
        if cancel.load(Ordering::SeqCst) && interrupted.is_none() {
            interrupted = Some(Instant::now());
            let _ = ops.send(Op::Interrupt);
        }
        if interrupted.is_some_and(|since| since.elapsed() > GRACE) {
            result.outcome = Some(rounds.ended(Ending::Interrupted));
            break;
        }
        let event = match events.recv_timeout(TICK) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        match &event {
            Event::SessionStarted { id, model, sandbox, .. } => {
                result.session_id.clone_from(id);
                result.model.clone_from(model);
                result.sandbox.clone_from(sandbox);
            }
            // The session is told that nobody can be asked; should it ask all the same, the answer is no.
            Event::ApprovalRequested { id, .. } => {
                let decision = Decision::Deny { reason: Some("nobody is there to ask".into()) };
                let _ = ops.send(Op::Approve { id: *id, decision });
            }
            _ => {}
        }
        match rounds.next(&event) {
            Next::Nothing => {}
            Next::Ops(next) => next.into_iter().for_each(|op| _ = ops.send(op)),
            Next::End(outcome) => result.outcome = Some(*outcome),
        }
        // What is shown on the way may be lost (a closed stderr); the end may not.
        let _ = view.event(&event, streams);
        if result.outcome.is_some() {
            break;
        }
    }
    let _ = ops.send(Op::Quit);
    result.until = rounds.report();
    finishing(&mut result);
    finish(result, view.as_mut(), options, streams)
}

/// Shows the end of a run that needed no session.
pub fn report(result: ExecResult, options: &Options, streams: &mut Streams<'_>) -> ExecResult {
    finish(result, view(options).as_mut(), options, streams)
}

fn view(options: &Options) -> Box<dyn View> {
    match options.format {
        OutputFormat::Text => Box::new(text::Text::new(options)),
        OutputFormat::Json => Box::new(json::Json::new(options)),
        OutputFormat::StreamJson => Box::new(stream::Stream::new(options)),
    }
}

fn finish(
    mut result: ExecResult,
    view: &mut dyn View,
    options: &Options,
    streams: &mut Streams<'_>,
) -> ExecResult {
    result.duration = options.started.elapsed();
    result.structured = options.structured;
    let written = view.end(&result, streams).and_then(|()| streams.out.flush());
    result.write_error = written
        .err()
        .filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
        .map(|error| error.to_string());
    result
}
