//! Text mode: what happens as it happens on stderr, the answer on stdout. On a terminal the model's words stream and
//! prefill shows a bar; elsewhere a line marks begin and end. Everything from outside passes the choke point.

use super::{ExecResult, Options, Streams, View};
use crate::agent::protocol::{Event, TurnOutcome};
use crate::chat::escape::{escape_for_terminal, escape_line};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io;

/// Lines of a command's output that are shown while it runs; the model gets more.
const OUTPUT_LINES: usize = 20;
/// Bytes of a line that are waited for before it is shown in part.
const MOST_BEGUN: usize = 4096;
/// Shorter prefills are over before a line about them is read.
const WORTH_SAYING: u64 = 512;

pub(super) struct Text {
    quiet: bool,
    /// Both streams are one screen: the answer streams to stdout as it is written, and is not repeated.
    screen: bool,
    /// The model's words stream to stderr.
    stream_err: bool,
    colour: bool,
    bar: Option<ProgressBar>,
    bars: bool,
    /// Something was streamed that does not end with a line break.
    open_line: bool,
    /// Streamed since the last call: the final answer, if no call follows.
    streamed: bool,
    output_lines: usize,
    /// The begun line of a command's output, which comes in pieces.
    begun: String,
    said_prefill: bool,
}

impl Text {
    pub fn new(options: &Options) -> Self {
        let screen = options.stdout_is_terminal && options.stderr_is_terminal;
        Self {
            quiet: options.quiet,
            screen: screen && !options.quiet,
            stream_err: !screen && options.stderr_is_terminal && !options.quiet,
            colour: options.stderr_is_terminal
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            bar: None,
            bars: options.stderr_is_terminal && !options.quiet,
            open_line: false,
            streamed: false,
            output_lines: 0,
            begun: String::new(),
            said_prefill: false,
        }
    }

    fn style(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_string() }
    }

    fn clear_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// One line on stderr, after whatever was streaming.
    fn line(&mut self, streams: &mut Streams<'_>, text: &str) -> io::Result<()> {
        self.clear_bar();
        self.close_line(streams)?;
        writeln!(streams.err, "{text}")
    }

    fn close_line(&mut self, streams: &mut Streams<'_>) -> io::Result<()> {
        if std::mem::take(&mut self.open_line) {
            let to = if self.screen { &mut *streams.out } else { &mut *streams.err };
            writeln!(to)?;
            to.flush()?;
        }
        Ok(())
    }

    fn stream(&mut self, streams: &mut Streams<'_>, text: &str, styled: bool) -> io::Result<()> {
        if !self.screen && !self.stream_err {
            return Ok(());
        }
        self.clear_bar();
        let shown = escape_for_terminal(text);
        let shown = if styled { self.style("2", &shown) } else { shown.into_owned() };
        let to = if self.screen { &mut *streams.out } else { &mut *streams.err };
        to.write_all(shown.as_bytes())?;
        self.open_line = !text.ends_with('\n');
        to.flush()
    }

    fn progress(&mut self, streams: &mut Streams<'_>, phase: &str, done: u64, total: u64) -> io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        if !self.bars {
            if done < total && !self.said_prefill && total > WORTH_SAYING {
                self.said_prefill = true;
                return writeln!(streams.err, "{}: {total}", escape_line(phase));
            }
            if done >= total && std::mem::take(&mut self.said_prefill) {
                return writeln!(streams.err, "{}: done", escape_line(phase));
            }
            return Ok(());
        }
        if total > 0 && done >= total {
            self.clear_bar();
            return Ok(());
        }
        self.close_line(streams)?;
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style = if total == 0 { "{spinner} {msg}" } else { "{msg} [{wide_bar}] {pos}/{len} {eta}" };
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar
        });
        bar.set_message(escape_line(phase).into_owned());
        if total > 0 {
            bar.set_length(total);
            bar.set_position(done);
        } else {
            bar.tick();
        }
        Ok(())
    }

    fn diff(&mut self, streams: &mut Streams<'_>, diff: &str) -> io::Result<()> {
        self.clear_bar();
        for line in escape_for_terminal(diff).lines() {
            let code = match line.as_bytes().first() {
                Some(b'+' | b'-') if line.starts_with("+++ ") || line.starts_with("--- ") => "1",
                Some(b'+') => "32",
                Some(b'-') => "31",
                Some(b'@') => "36",
                _ => "",
            };
            let line = if code.is_empty() { line.to_string() } else { self.style(code, line) };
            writeln!(streams.err, "  {line}")?;
        }
        Ok(())
    }

    /// A command's output, its first lines only.
    fn output(&mut self, streams: &mut Streams<'_>, text: &str) -> io::Result<()> {
        self.clear_bar();
        self.begun.push_str(text);
        // A line without end is cut where a screen would be full of it.
        let whole = match self.begun.rfind('\n') {
            Some(end) => end + 1,
            None if self.begun.len() > MOST_BEGUN => self.begun.len(),
            None => return Ok(()),
        };
        let rest = self.begun.split_off(whole);
        let text = std::mem::replace(&mut self.begun, rest);
        for line in text.lines() {
            self.output_lines += 1;
            if self.output_lines > OUTPUT_LINES {
                if self.output_lines == OUTPUT_LINES + 1 {
                    writeln!(streams.err, "  {}", self.style("2", "..."))?;
                }
                continue;
            }
            let line = self.style("2", &escape_for_terminal(line));
            writeln!(streams.err, "  {line}")?;
        }
        Ok(())
    }

    /// Lines of the session log that could not be read.
    fn damage(&mut self, streams: &mut Streams<'_>, damaged: &[usize]) -> io::Result<()> {
        if damaged.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = damaged.iter().map(ToString::to_string).collect();
        let text = format!(
            "qwright: the session log is damaged in line {}; what stood there is missing from the conversation",
            lines.join(", ")
        );
        self.line(streams, &text)
    }

    fn statistics(&mut self, result: &ExecResult, outcome: &TurnOutcome) -> String {
        let usage = outcome.usage;
        format!(
            "{}: {:.1} s, {} model calls, {} tool calls, tokens: {} prompt ({} cached, {} prefilled, {} of them again), {} generated ({} from drafts); sandbox: {}; session {}",
            escape_line(&result.model),
            result.duration.as_secs_f64(),
            outcome.model_calls,
            outcome.tool_calls,
            usage.prompt,
            usage.cached,
            usage.prefilled,
            usage.repeated,
            usage.completion,
            usage.drafted,
            escape_line(&result.sandbox),
            escape_line(&result.session_id),
        )
    }
}

impl View for Text {
    fn event(&mut self, event: &Event, streams: &mut Streams<'_>) -> io::Result<()> {
        if self.quiet {
            return match event {
                Event::Error { message, .. } => {
                    self.line(streams, &format!("qwright: {}", escape_for_terminal(message)))
                }
                Event::Resumed { damaged, .. } => self.damage(streams, damaged),
                _ => Ok(()),
            };
        }
        match event {
            Event::SessionStarted { sandbox_note, .. } => {
                let line = self.style("2", &escape_line(sandbox_note));
                self.line(streams, &line)
            }
            Event::Progress { phase, done, total } => self.progress(streams, phase, *done, *total),
            Event::TextDelta { text } => {
                self.streamed = true;
                self.stream(streams, text, false)
            }
            Event::ThinkingDelta { text } => self.stream(streams, text, true),
            Event::ToolCallStarted { summary, .. } => {
                self.streamed = false;
                self.output_lines = 0;
                let line = format!("{} {}", self.style("36", "->"), escape_line(summary));
                self.line(streams, &line)
            }
            Event::ToolOutput { text, .. } => self.output(streams, text),
            Event::ToolCallFinished { ok, summary, .. } => {
                self.streamed = false;
                if !self.begun.is_empty() {
                    self.output(streams, "\n")?;
                }
                let mark = if *ok { self.style("32", "ok") } else { self.style("31", "!!") };
                self.line(streams, &format!("{mark} {}", escape_line(summary)))
            }
            Event::DiffProduced { diff, .. } => self.diff(streams, diff),
            Event::Resumed { messages, turns, forked_from, damaged } => {
                let from = forked_from.as_ref().map_or(String::new(), |id| format!(" (a fork of {id})"));
                let text =
                    format!("continued{}: {messages} messages of {turns} requests", escape_line(&from));
                let text = self.style("2", &text);
                self.line(streams, &text)?;
                self.damage(streams, damaged)
            }
            Event::Compacted { before, after, dropped } => {
                let dropped: Vec<String> =
                    dropped.iter().map(|line| format!("  - {}", escape_line(line))).collect();
                let head = format!(
                    "the conversation was shortened from {before} to {after} tokens; what went is still in the log:"
                );
                let text = self.style("2", &format!("{head}\n{}", dropped.join("\n")));
                self.line(streams, &text)
            }
            Event::AsideFinished { question, answer, problem, .. } => {
                let answer = problem.as_ref().unwrap_or(answer);
                let text = format!("{}\n{}", escape_line(question), escape_for_terminal(answer));
                self.line(streams, &text)
            }
            Event::Undone { restored, .. } if restored.is_empty() => Ok(()),
            Event::Undone { restored, .. } => {
                let text = format!("taken back: {}", escape_line(&restored.join(", ")));
                let text = self.style("2", &text);
                self.line(streams, &text)
            }
            Event::Error { message, hint } => {
                let line = format!("qwright: {}", escape_for_terminal(message));
                self.line(streams, &line)?;
                match hint {
                    Some(hint) => self.line(streams, &format!("  {}", escape_line(hint))),
                    None => Ok(()),
                }
            }
            // A side answer is shown whole; questions to the session are other front ends'.
            Event::AsideDelta { .. }
            | Event::Answer { .. }
            | Event::Checked { .. }
            | Event::Message { .. }
            | Event::TurnStarted
            | Event::ApprovalRequested { .. }
            | Event::ContextUsage { .. }
            | Event::TurnFinished { .. } => Ok(()),
        }
    }

    fn end(&mut self, result: &ExecResult, streams: &mut Streams<'_>) -> io::Result<()> {
        self.clear_bar();
        // What is said beside the answer may be lost; the answer may not.
        let _ = self.close_line(streams);
        let ending = result.ending();
        if let Some(outcome) = &result.outcome {
            for denial in &outcome.denials {
                let text =
                    format!("denied: {} ({})", escape_line(&denial.summary), escape_line(&denial.reason));
                let _ = writeln!(streams.err, "{}", self.style("33", &text));
            }
            if let Some(patch) = result.patch.as_ref().filter(|_| !self.quiet) {
                let files = if patch.files_changed == 1 { "file" } else { "files" };
                let name = escape_line(&patch.file);
                let _ = writeln!(streams.err, "patch: {name} ({} {files} changed)", patch.files_changed);
            }
            if let Some(until) = result.until.as_ref().filter(|until| until.passed && !self.quiet) {
                let rounds = if until.rounds == 1 { "round" } else { "rounds" };
                let command = escape_line(&until.command);
                let _ = writeln!(streams.err, "`{command}` passes after {} {rounds}", until.rounds);
            }
            if !self.quiet && !result.session_id.is_empty() {
                let statistics = self.statistics(result, outcome);
                let _ = writeln!(streams.err, "{}", self.style("2", &statistics));
            } else if result.sandbox != "full" {
                // Going without protection is said in every result.
                let _ = writeln!(streams.err, "sandbox: {}", escape_line(&result.sandbox));
            }
        }
        if let Some(message) = ending.message() {
            let _ = writeln!(streams.err, "qwright: {}", escape_for_terminal(&message));
        }
        if let Some(hint) = ending.hint() {
            let _ = writeln!(streams.err, "  {}", escape_line(&hint));
        }
        let answer = result.outcome.as_ref().map_or("", |outcome| outcome.answer.trim());
        let shown_already = self.screen && self.streamed;
        if answer.is_empty() || shown_already {
            return Ok(());
        }
        writeln!(streams.out, "{}", escape_for_terminal(answer))
    }
}
