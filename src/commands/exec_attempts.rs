//! `--attempts N`: N tries at making a command pass, at once, each a session of its own in a private copy with a seed of
//! its own. The first that passes is kept, the others are stopped and dropped. That their models share one engine is
//! `engine::shared`'s affair, and that they go through the versions of a file together `model::revise`'s; what a session
//! does, and how its rounds go, is as without attempts. What the command leaves behind by itself is no change of theirs.

use super::exec::{ExecArgs, Prepared, await_end, in_time, open, shell};
use super::exec_patch::{private_copy, unusable, writable, write};
use super::exec_until::{self, First};
use super::{Failure, exit};
use crate::agent::protocol::{Ending, TurnOutcome};
use crate::agent::{Session, SessionOptions};
use crate::chat::escape::escape_line;
use crate::config::Config;
use crate::headless::{self, AttemptReport, ExecResult, OutputFormat, PatchReport, Streams};
use crate::model::Model;
use crate::workspace::{PrivateCopy, Workspace, WorkspaceError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// More would each get too little of the machine.
const MOST: usize = 16;
/// Tries after the first are to differ from it.
const TEMPERATURE: f32 = 0.8;
const TICK: Duration = Duration::from_millis(50);

/// One try, ready to run.
struct Try {
    number: usize,
    seed: u64,
    model: Box<dyn Model>,
    workspace: Workspace,
    options: SessionOptions,
}

pub(super) fn run(
    args: &ExecArgs,
    n: usize,
    prepared: Prepared,
    models: impl FnOnce(&Config, usize) -> Result<Vec<Box<dyn Model>>, Failure>,
    cancel: &AtomicBool,
) -> Result<ExecResult, Failure> {
    check(args, n)?;
    let mut shown = prepared.shown(args);
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut streams = Streams { out: &mut out, err: &mut err };
    let (config, original) = (&prepared.config, &prepared.workspace);
    let mut copies = vec![private_copy(original, config, cancel)?];
    let first = open(copies[0].root())?;
    let (first, made) = exec_until::first(args, &prepared, &first, copies[0].top(), cancel)?;
    match first {
        First::Passes(mut result) => {
            if let Some(file) = &args.patch {
                copies[0].checked(&made).map_err(unusable)?;
                patch(file, &copies[0], &mut result)
                    .map_err(|(message, hint)| Failure::new(exit::TASK_FAILED, message).hint(hint))?;
            }
            return Ok(headless::report(*result, &shown, &mut streams));
        }
        First::Fails { until, attachment } => {
            shown.until = Some(until);
            shown.attachments.push(attachment);
        }
    }
    while copies.len() < n {
        copies.push(private_copy(original, config, cancel)?);
    }
    // Where it is in the first copy it is in each, once the check runs there.
    let made: Vec<PathBuf> = made
        .iter()
        .filter_map(|path| path.strip_prefix(copies[0].top()).ok())
        .map(Path::to_path_buf)
        .collect();
    let (first, others) = copies.split_at(1);
    others.iter().for_each(|copy| copy.bring_builds(&first[0], cancel));
    let protected = shown.until.as_ref().map(|until| until.protected.clone()).unwrap_or_default();
    let mut tries = Vec::new();
    let models = in_time(prepared.time_left(), cancel, || models(config, n))?;
    for ((number, copy), model) in (1..).zip(&mut copies).zip(models) {
        let made: Vec<PathBuf> = made.iter().map(|path| copy.top().join(path)).collect();
        copy.checked(&made).map_err(unusable)?;
        let directory = Some(original.root().to_path_buf());
        let mut options = prepared.session(args, None, directory, protected.clone())?;
        options.seed = options.seed.wrapping_add(number as u64 - 1);
        if number > 1 {
            options.temperature = Some(options.temperature.unwrap_or(0.0).max(TEMPERATURE));
        }
        let mut workspace = open(copy.root())?;
        workspace.set_check(args.until.as_deref().unwrap_or_default(), &made);
        tries.push(Try { number, seed: options.seed, model, workspace, options });
    }
    let silent = args.quiet || args.output_format != OutputFormat::Text;
    // Lines of several: nothing is drawn over.
    let told = headless::Options {
        format: OutputFormat::Text,
        quiet: silent,
        stdout_is_terminal: false,
        stderr_is_terminal: false,
        ..shown.clone()
    };
    if !silent {
        tell(&escape_line(&prepared.shell.status_line()));
        tell(&format!("{n} attempts, each in a private copy; what they do is marked with their number"));
    }
    let ended = all(tries, &prepared, &told, cancel, &mut |report| {
        if !silent {
            let line = format!("attempt {} of {n} (seed {}): {}", report.number, report.seed, say(report));
            tell(&escape_line(&line));
        }
    });
    let result = settle(ended, args, original, &mut copies, cancel.load(Ordering::SeqCst));
    Ok(headless::report(result, &shown, &mut streams))
}

fn check(args: &ExecArgs, n: usize) -> Result<(), Failure> {
    let refuse = |message: String, hint: &str| Err(Failure::new(exit::USAGE, message).hint(hint));
    if !(1..=MOST).contains(&n) {
        return refuse(format!("--attempts {n} is none of 1 to {MOST}"), "name fewer: --attempts 4");
    }
    if args.continue_latest || args.resume.is_some() {
        return refuse("--attempts begins new sessions".into(), "leave out -c and -r, or --attempts");
    }
    if args.output_format == OutputFormat::StreamJson {
        return refuse("the events of several attempts cannot share a stream".into(), "use -o json");
    }
    args.patch.as_deref().map_or(Ok(()), writable)
}

/// A try that has ended.
struct Ended {
    report: AttemptReport,
    result: ExecResult,
}

/// Runs all of them until one passes or none is left; in the order in which they ended.
fn all(
    tries: Vec<Try>,
    prepared: &Prepared,
    told: &headless::Options,
    cancel: &AtomicBool,
    ended_one: &mut dyn FnMut(&AttemptReport),
) -> Vec<Ended> {
    let stops: Vec<AtomicBool> = tries.iter().map(|_| AtomicBool::new(false)).collect();
    let (sender, ends) = channel();
    let stop = || stops.iter().for_each(|stop| stop.store(true, Ordering::SeqCst));
    let mut ended: Vec<Ended> = Vec::new();
    std::thread::scope(|scope| {
        for (one, stop) in tries.into_iter().zip(&stops) {
            let sender: Sender<Ended> = sender.clone();
            scope.spawn(move || one.run(prepared, told, stop, &sender));
        }
        drop(sender);
        loop {
            match ends.recv_timeout(TICK) {
                Ok(end) => {
                    ended_one(&end.report);
                    if end.report.passed {
                        stop();
                    }
                    ended.push(end);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if cancel.load(Ordering::SeqCst) {
                stop();
            }
        }
    });
    ended
}

impl Try {
    fn run(self, prepared: &Prepared, told: &headless::Options, stop: &AtomicBool, ended: &Sender<Ended>) {
        let Self { number, seed, model, workspace, options } = self;
        let shell = shell(&prepared.config, prepared.state.as_deref());
        let (ops, events) = Session::start(model, workspace, shell, options);
        let mut out = std::io::sink();
        let mut err = Tagged { number, said: prepared.shell.status_line(), line: Vec::new() };
        let mut nothing = std::io::sink();
        let err: &mut dyn Write = if told.quiet { &mut nothing } else { &mut err };
        let result =
            headless::run(&ops, &events, told, stop, &mut Streams { out: &mut out, err }, &mut |_| {});
        let report = AttemptReport::new(number, seed, &result);
        let _ = ended.send(Ended { report, result });
        // The copy may go only when nobody works in it.
        drop(ops);
        await_end(&events);
    }
}

/// A line on stderr; one that nobody reads any more is lost.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Passes whole lines on to stderr, each with the number of its attempt.
struct Tagged {
    number: usize,
    /// What was said once for all of them.
    said: String,
    line: Vec<u8>,
}

impl Write for Tagged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.line);
            if !line.trim().is_empty() && line != self.said {
                tell(&format!("[{}] {line}", self.number));
            }
            self.line.clear();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn say(report: &AttemptReport) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let cost = format!("{} written", count(report.completion, "token"));
    match report.passed {
        true => format!(
            "passes after {}, {} (+{} -{}), {cost}",
            count(report.rounds, "round"),
            count(report.files_changed, "file"),
            report.added,
            report.removed
        ),
        false if report.ending == "error_interrupted" => format!("dropped, {cost}"),
        false => format!("does not pass ({}), {cost}", report.ending),
    }
}

/// What all came to: the changes of the best try in their place, or nothing.
fn settle(
    mut ended: Vec<Ended>,
    args: &ExecArgs,
    original: &Workspace,
    copies: &mut [PrivateCopy],
    cancelled: bool,
) -> ExecResult {
    // The first that passed; of those that did so at the same time, the one that changed least.
    let best = (0..ended.len())
        .filter(|i| ended[*i].report.passed)
        .min_by_key(|i| (ended[*i].report.added + ended[*i].report.removed, *i));
    let mut reports: Vec<AttemptReport> = ended.iter().map(|end| end.report.clone()).collect();
    reports.sort_by_key(|report| report.number);
    let cost: Vec<TurnOutcome> = ended.iter().filter_map(|end| end.result.outcome.clone()).collect();
    let chosen = best.or_else(|| ended.iter().position(|end| end.report.number == 1)).unwrap_or(0);
    if ended.is_empty() {
        return ExecResult::new(String::new());
    }
    let Ended { report, mut result } = ended.swap_remove(chosen);
    result.attempts = reports;
    let outcome = result.outcome.get_or_insert_with(|| TurnOutcome::ended(Ending::Done));
    // What it took is what all of them took.
    let own = outcome.clone();
    (outcome.usage, outcome.model_calls, outcome.tool_calls) = Default::default();
    for one in &cost {
        outcome.usage += one.usage;
        outcome.model_calls += one.model_calls;
        outcome.tool_calls += one.tool_calls;
    }
    if best.is_none() {
        outcome.diff = String::new();
        outcome.ending = match own.ending {
            _ if cancelled => Ending::Interrupted,
            // Their own exit codes say what to do.
            ending @ (Ending::ModelUnavailable { .. }
            | Ending::Limit { .. }
            | Ending::ContextFull { .. }
            | Ending::Denied) => ending,
            ending => Ending::Stuck {
                message: format!(
                    "none of {} attempts passes; everything is as it was. The first: {}",
                    result.attempts.len(),
                    ending.message().unwrap_or_else(|| "it gave up".into())
                ),
            },
        };
        return result;
    }
    let copy = &mut copies[report.number - 1];
    copy.settle(&own.touched);
    let landed = match &args.patch {
        Some(file) => patch(file, copy, &mut result),
        None => land(copy, original),
    };
    if let Err((message, hint)) = landed {
        let place = copy.leave();
        let message = format!(
            "attempt {} passes, but {message}; the changed copy stays in {}",
            report.number,
            place.display()
        );
        result.outcome.get_or_insert_with(|| TurnOutcome::ended(Ending::Done)).ending =
            Ending::Failed { message, hint };
    }
    result
}

fn patch(file: &Path, copy: &PrivateCopy, result: &mut ExecResult) -> Result<(), (String, String)> {
    let files_changed = write(file, copy)?;
    result.patch = Some(PatchReport { file: file.display().to_string(), files_changed });
    Ok(())
}

fn land(copy: &PrivateCopy, original: &Workspace) -> Result<(), (String, String)> {
    let root: &Path = original.root();
    copy.land(original).map_err(|error| {
        let hint = match &error {
            WorkspaceError::Machine { hint, .. } => hint.clone(),
            _ => format!("compare it with {}, or run it again with --patch FILE", root.display()),
        };
        (format!("its changes could not be made here: {error}"), hint)
    })
}
