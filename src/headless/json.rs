//! The result as one JSON object on one line. Field names follow what other agents print, so that scripts carry over.

use super::{AttemptReport, ExecResult, Options, Streams, View};
use crate::agent::protocol::{Ending, Event, Limit, Usage};
use crate::chat::escape::{escape_for_terminal, escape_json};
use serde_json::{Value, json};
use std::io;

pub(super) struct Json {
    quiet: bool,
    /// Lines of a resumed session's log that could not be read.
    damaged: Vec<usize>,
}

impl Json {
    pub fn new(options: &Options) -> Self {
        Self { quiet: options.quiet, damaged: Vec::new() }
    }
}

impl View for Json {
    fn event(&mut self, event: &Event, streams: &mut Streams<'_>) -> io::Result<()> {
        match event {
            Event::Error { message, .. } if !self.quiet => {
                writeln!(streams.err, "qwright: {}", escape_for_terminal(message))
            }
            Event::Resumed { damaged, .. } => {
                self.damaged.clone_from(damaged);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn end(&mut self, result: &ExecResult, streams: &mut Streams<'_>) -> io::Result<()> {
        let object = with_damage(object(result), &self.damaged);
        writeln!(streams.out, "{}", escape_json(&object.to_string()))
    }
}

/// The word for an ending; also what text mode's exit codes stand for.
pub(super) fn subtype(ending: &Ending) -> &'static str {
    match ending {
        Ending::Done => "success",
        Ending::Denied => "error_denied",
        Ending::Interrupted => "error_interrupted",
        Ending::Limit { limit, .. } => match limit {
            Limit::ModelCalls => "error_max_turns",
            Limit::ToolCalls => "error_max_tool_calls",
            Limit::Tokens => "error_max_tokens",
            Limit::WallTime => "error_max_wall_time",
            Limit::AnswerLength => "error_answer_length",
        },
        Ending::ContextFull { .. } => "error_context",
        Ending::Stuck { .. } => "error_stuck",
        Ending::Failed { .. } => "error_during_execution",
        Ending::ModelUnavailable { .. } => "error_model",
    }
}

/// The object of a run that ended before it had a session.
pub fn failure(subtype: &str, message: &str, hint: Option<&str>) -> Value {
    let mut object = object(&ExecResult::new(String::new()));
    object["subtype"] = subtype.into();
    object["error"] = message.into();
    object["hint"] = hint.into();
    object
}

pub(super) fn with_damage(mut object: Value, damaged: &[usize]) -> Value {
    if !damaged.is_empty() {
        object["damaged_log_lines"] = json!(damaged);
    }
    object
}

pub(super) fn usage(usage: &Usage) -> Value {
    json!({
        "prompt": usage.prompt,
        "cached": usage.cached,
        "prefilled": usage.prefilled,
        "completion": usage.completion,
        "repeated": usage.repeated,
        "drafted": usage.drafted,
        "rejected": usage.rejected,
    })
}

fn attempt(report: &AttemptReport) -> Value {
    json!({
        "attempt": report.number,
        "seed": report.seed,
        "session_id": report.session_id,
        "passed": report.passed,
        "ending": report.ending,
        "rounds": report.rounds,
        "files_changed": report.files_changed,
        "lines_added": report.added,
        "lines_removed": report.removed,
        "completion": report.completion,
    })
}

pub(super) fn object(result: &ExecResult) -> Value {
    let ending = result.ending();
    let outcome = result.outcome.as_ref();
    let usage = outcome.map(|outcome| outcome.usage).unwrap_or_default();
    let answer = outcome.map_or("", |outcome| &outcome.answer);
    let structured = || serde_json::from_str::<Value>(answer).ok();
    json!({
        "type": "result",
        "subtype": subtype(&ending),
        "is_error": ending != Ending::Done,
        "result": answer,
        "structured_output": if result.structured && ending == Ending::Done { structured() } else { None },
        "error": ending.message(),
        "hint": ending.hint(),
        "session_id": result.session_id,
        "model": result.model,
        "num_turns": outcome.map_or(0, |outcome| outcome.model_calls),
        "num_tool_calls": outcome.map_or(0, |outcome| outcome.tool_calls),
        "usage": self::usage(&usage),
        "compactions": outcome.map_or(0, |outcome| outcome.compactions),
        "duration_ms": u64::try_from(result.duration.as_millis()).unwrap_or(u64::MAX),
        "sandbox": result.sandbox,
        "denials": outcome.map(|outcome| &outcome.denials).cloned().unwrap_or_default(),
        "diff": outcome.map_or("", |outcome| &outcome.diff),
        "until": result.until.as_ref().map(|until| json!({
            "command": until.command,
            "passed": until.passed,
            "rounds": until.rounds,
            "protected": until.protected,
        })),
        "patch": result.patch.as_ref().map(|patch| json!({
            "file": patch.file,
            "files_changed": patch.files_changed,
        })),
        "attempts": result.attempts.iter().map(attempt).collect::<Vec<_>>(),
    })
}
