//! What the agent tells, taken into the state.

use super::app::{App, Overlay, Phase, Session};
use super::approval::Approval;
use super::block::{Call, Kind, count_diff, counted};
use super::input::Effect;
use super::meter::{seconds, thousands};
use super::review::Review;
use crate::agent::protocol::{Access, Answer, Change, Ending, Event, Op, Past, Rule, TurnOutcome};
use std::time::{Duration, Instant};

/// The user may have gone away meanwhile, and is called when it is over.
const LONG: Duration = Duration::from_secs(20);

impl App {
    pub(super) fn event(&mut self, event: Event, now: Instant) {
        match event {
            Event::SessionStarted { id, model, context, directory, mode, sandbox, sandbox_note, .. } => {
                self.meter.end_turn();
                self.meter.limit = context;
                self.mode = mode;
                self.own_runs = false;
                if sandbox != "full" {
                    self.note(&sandbox_note);
                }
                self.session = Some(Session { id, model, directory, sandbox });
                self.phase = Phase::Ready;
                if let Some((model, session)) = self.next.take() {
                    return self.open(model, session);
                }
                self.left = None;
                if let Some(chosen) = self.chosen_mode.take().filter(|chosen| *chosen != mode) {
                    self.set_mode(chosen);
                }
                self.send_next();
                if self.sent.is_none() {
                    self.send(Op::Typing { text: String::new() });
                }
            }
            Event::Resumed { messages, turns, forked_from, damaged } => {
                let from = forked_from.map_or(String::new(), |id| format!(", a fork of {id}"));
                let what = format!(
                    "continued{from}: {} of {}",
                    counted(messages, "message"),
                    counted(turns, "request")
                );
                self.note(&what);
                if !damaged.is_empty() {
                    let lines: Vec<String> = damaged.iter().map(ToString::to_string).collect();
                    let message = format!("the session log is damaged in line {}", lines.join(", "));
                    self.error(&message, Some("what stood there is missing from the conversation"));
                }
            }
            Event::TurnStarted => {
                self.phase = Phase::Running;
                self.interrupting = false;
                self.meter.begin_turn(now);
                let text = self.sent.take().unwrap_or_default();
                self.transcript.push(Kind::Request { text, taken_back: false });
            }
            Event::Progress { phase, done, total } => {
                let phase = if phase == "prefill" { "reading".to_string() } else { phase };
                self.meter.progress(&phase, done, total, now);
            }
            Event::TextDelta { text } => {
                self.meter.doing("writing", now);
                self.meter.piece(now);
                self.transcript.say(&text);
            }
            Event::ThinkingDelta { text } => {
                self.meter.doing("thinking", now);
                self.meter.piece(now);
                self.transcript.think(&text);
            }
            Event::ToolCallStarted { id, name, summary } => {
                self.meter.doing(&summary, now);
                self.meter.tool_calls += 1;
                self.transcript.push(Kind::Call(Call::new(id, &name, &summary)));
            }
            Event::ToolOutput { id, text } => self.transcript.output(id, &text),
            Event::ToolCallFinished { id, name, ok, summary } => {
                self.transcript.finish(id, &name, ok, &summary);
                self.went_by(now);
            }
            Event::DiffProduced { id, diff } => {
                let counts = count_diff(&diff);
                if let Some(call) = self.transcript.call_mut(id) {
                    call.counts = Some(counts);
                }
                self.transcript.push(Kind::Diff(diff));
            }
            Event::ApprovalRequested {
                id,
                name,
                summary,
                access,
                reason,
                preview,
                changes,
                command,
                suggested,
            } => {
                let asked = Asked { id, name, summary, access, reason, preview, changes, command, suggested };
                self.asked(asked, now);
            }
            Event::ContextUsage { used, limit, usage } => self.meter.usage(used, limit, usage, now),
            Event::Compacted { before, after, dropped } => {
                let head = format!("shortened from {} to {} tokens:", thousands(before), thousands(after));
                let lines: Vec<String> = dropped.iter().map(|line| format!("  - {line}")).collect();
                self.note(&format!("{head}\n{}", lines.join("\n")));
                self.meter.used = after;
                self.went_by(now);
            }
            Event::Undone { restored, kept, outside } => self.undone(&restored, &kept, &outside),
            Event::AsideDelta { .. } => self.meter.doing("answering beside", now),
            Event::AsideFinished { question, answer, problem, .. } => {
                self.transcript.push(Kind::Note(format!("beside: {question}")));
                if !answer.trim().is_empty() {
                    self.transcript.push(Kind::Answer(answer));
                }
                if let Some(problem) = problem {
                    self.error(&problem, None);
                }
                self.went_by(now);
            }
            Event::Answer { answer } => self.answered(answer),
            // Nothing here asks for them.
            Event::Checked { .. } | Event::Message { .. } => {}
            Event::Error { message, hint } => {
                self.error(&message, hint.as_deref());
                self.went_by(now);
            }
            Event::TurnFinished { outcome } => self.finished(&outcome, now),
        }
    }

    /// What was done beside or between turns came to its end.
    fn went_by(&mut self, now: Instant) {
        match self.phase {
            Phase::Running => self.meter.doing("thinking", now),
            _ => {
                self.meter.end_turn();
                self.own_runs = false;
                self.send_next();
            }
        }
    }

    fn asked(&mut self, asked: Asked, now: Instant) {
        let Asked { id, name, summary, access, reason, preview, changes, command, suggested } = asked;
        self.meter.doing("waiting for you", now);
        self.guard(now);
        self.popup = None;
        self.overlay = Some(if changes.is_empty() {
            let body = match (&command, preview) {
                (Some(command), _) => command.clone(),
                (None, Some(preview)) => preview,
                (None, None) => summary,
            };
            Overlay::Approval(Approval::new(id, name, reason, body, access, suggested))
        } else {
            Overlay::Review(Review::ask(id, changes, reason, suggested))
        });
        self.effects.push(Effect::Notify("Qwright waits for your approval".into()));
    }

    fn undone(&mut self, restored: &[String], kept: &[(String, String)], outside: &[String]) {
        // Within a turn only a change was taken back, not the request.
        if self.phase != Phase::Running
            && let Some(words) = self.transcript.take_back()
        {
            self.meter.turns = self.meter.turns.saturating_sub(1);
            if self.composer.is_empty() || self.taking_back {
                self.compose(&words);
            }
        }
        let mut lines = Vec::new();
        match restored.is_empty() {
            true if kept.is_empty() && outside.is_empty() => {
                lines.push("taken back; no file had changed".to_string());
            }
            true => {}
            false => lines.push(format!("taken back: {}", restored.join(", "))),
        }
        lines.extend(kept.iter().map(|(path, why)| format!("left as it is: {path} ({why})")));
        lines.extend(outside.iter().map(|line| format!("outside undo: {line}")));
        self.note(&lines.join("\n"));
    }

    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Changes { changes, others } => {
                if !others.is_empty() {
                    self.note(&format!("changed too, and not shown as text: {}", others.join(", ")));
                }
                match changes.is_empty() {
                    true => self.note("Nothing was changed in this session."),
                    false => self.overlay = Some(Overlay::Review(Review::show(changes))),
                }
            }
            Answer::History { past } => self.replay(past),
            Answer::Rules { rules, file } => self.told_rules(rules, file.as_deref()),
            Answer::Context { parts, limit } => {
                let used: usize = parts.iter().map(|(_, tokens)| tokens).sum();
                let mut lines = vec![format!("Context: {used} of {limit} tokens")];
                for (what, tokens) in parts {
                    let share = (tokens * 40).div_ceil(limit.max(1));
                    lines.push(format!("  {tokens:>7}  {:<12} {what}", "▪".repeat(share.min(12))));
                }
                lines.push(format!("  {:>7}  free", limit.saturating_sub(used)));
                self.note(&lines.join("\n"));
            }
        }
    }

    /// An earlier conversation, as far as it is still there.
    fn replay(&mut self, past: Vec<Past>) {
        let mut calls: Vec<u64> = Vec::new();
        for (number, past) in past.into_iter().enumerate() {
            match past {
                Past::Request { text } => self.transcript.push(Kind::Request { text, taken_back: false }),
                Past::Said { text, thinking } => {
                    if let Some(thinking) = thinking {
                        self.transcript.push(Kind::Thinking(thinking));
                    }
                    self.transcript.close();
                    self.transcript.say(&text);
                }
                Past::Called { name, summary } => {
                    // Numbers that no call of the session has.
                    let id = u64::MAX / 2 + number as u64;
                    let call = Call { ok: Some(true), ..Call::new(id, &name, &summary) };
                    self.transcript.push(Kind::Call(call));
                    calls.push(id);
                }
                Past::Result { text } => {
                    if !calls.is_empty() {
                        let id = calls.remove(0);
                        self.transcript.past_output(id, &text);
                    }
                }
            }
        }
        self.transcript.scroll_to_end();
    }

    fn finished(&mut self, outcome: &TurnOutcome, now: Instant) {
        let took = self.meter.turn_since.map_or(Duration::ZERO, |since| now.duration_since(since));
        self.meter.end_turn();
        self.transcript.stop();
        self.interrupting = false;
        if matches!(&self.overlay, Some(Overlay::Approval(_)))
            || matches!(&self.overlay, Some(Overlay::Review(review)) if review.id().is_some())
        {
            self.overlay = None;
        }
        if let Some(message) = outcome.ending.message() {
            match outcome.ending {
                Ending::Interrupted => self.note("interrupted"),
                _ => self.error(&message, outcome.ending.hint().as_deref()),
            }
        }
        let (added, removed) = count_diff(&outcome.diff);
        let mut done = vec![seconds(took)];
        if added + removed > 0 {
            let files = outcome.diff.lines().filter(|line| line.starts_with("diff --git")).count();
            done.push(format!("{} changed, +{added} -{removed} (/diff, /undo)", counted(files, "file")));
        }
        if outcome.tool_calls > 0 {
            done.push(counted(outcome.tool_calls, "call"));
        }
        done.push(format!("{} tokens written", outcome.usage.completion));
        if outcome.usage.repeated > 0 {
            done.push(format!("{} read again", outcome.usage.repeated));
        }
        self.transcript.push(Kind::Note(format!("· {}", done.join(" · "))));
        if took >= LONG {
            self.effects.push(Effect::Notify("Qwright is done".into()));
        }
        if self.phase == Phase::Running {
            self.phase = Phase::Ready;
        }
        self.offer_plan(outcome);
        if self.overlay.is_some() {
            self.guard(now);
        }
        self.send_next();
    }
}

struct Asked {
    id: u64,
    name: String,
    summary: String,
    access: Access,
    reason: String,
    preview: Option<String>,
    changes: Vec<Change>,
    command: Option<String>,
    suggested: Option<Rule>,
}
