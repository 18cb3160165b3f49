//! One call of a tool, from the verdict on it to its result in the history; and what the model is told of calls that
//! did not run.

use super::{
    EDIT, Effect, Kind, Must, Repair, SAME_CALL_STOPS, SAME_ERROR_WARNS, State, ToolReport, Turn, WRITE,
};
use crate::agent::approval::Verdict;
use crate::agent::prompts::note;
use crate::agent::protocol::{Access, Denial, Ending, Event};
use crate::chat::{Message, Role, ToolCall, ToolSpec};
use crate::workspace::shell::portable;

impl Turn {
    pub(super) fn judged(
        &mut self,
        call: ToolCall,
        verdict: Verdict,
        access: Access,
        summary: String,
        effects: &mut Vec<Effect>,
    ) {
        // A small model that is asked a question reaches for `edit` all the same.
        if self.rules.small && self.wish.kind == Kind::Question && access == Access::Write {
            self.must = Must::Answer;
            if !self.refuse(call, note("only_a_question", &[]), effects) {
                self.next(effects);
            }
            return;
        }
        match verdict {
            Verdict::Run => self.run(call, access, summary, effects),
            Verdict::Ask(reason) if self.rules.can_ask => {
                self.asked = true;
                let id = self.id();
                self.state = State::Asking { call: call.clone(), access, summary: summary.clone() };
                effects.push(Effect::AskApproval { id, call, access, summary, reason });
            }
            Verdict::Ask(reason) | Verdict::Deny(reason) => {
                let text = note("denied", &[("reason", &reason)]);
                self.deny(call, summary, reason, text, effects);
            }
            Verdict::Vain(message) => {
                if !self.refuse(call, note("tool_failed", &[("message", &message)]), effects) {
                    self.next(effects);
                }
            }
        }
    }

    pub(super) fn run(&mut self, call: ToolCall, access: Access, summary: String, effects: &mut Vec<Effect>) {
        let id = self.id();
        effects.push(Effect::Emit(Event::ToolCallStarted { id, name: call.name.clone(), summary }));
        self.state = State::Running { call: call.clone(), access };
        effects.push(Effect::RunTool { id, call });
    }

    /// With a reason the user wants it otherwise, and is asked again.
    pub(super) fn denied_by_user(
        &mut self,
        call: ToolCall,
        access: Access,
        summary: String,
        reason: Option<String>,
        effects: &mut Vec<Effect>,
    ) {
        let tool = [EDIT, WRITE].into_iter().find(|tool| *tool == call.name);
        if let (Some(reason), Some(tool)) = (&reason, tool)
            && (self.rules.small && access == Access::Write && wants_another(reason))
        {
            self.refused = Some((tool, reason.clone()));
        }
        let text = match &reason {
            Some(reason) => note("denied_with_reason", &[("reason", reason)]),
            None => note("denied_by_user", &[]),
        };
        let reason = reason.unwrap_or_else(|| "no reason given".into());
        self.deny(call, summary, reason, text, effects);
    }

    pub(super) fn deny(
        &mut self,
        call: ToolCall,
        summary: String,
        reason: String,
        text: String,
        effects: &mut Vec<Effect>,
    ) {
        self.denials.push(Denial { tool: call.name.clone(), summary, reason });
        self.denied_last = !self.own;
        if !self.refuse(call, text, effects) {
            self.next(effects);
        }
    }

    /// A call that did not run: the reason is its result. True where that ended the turn.
    pub(super) fn refuse(&mut self, call: ToolCall, text: String, effects: &mut Vec<Effect>) -> bool {
        let summary = text.lines().next().unwrap_or_default().to_string();
        let name = call.name.clone();
        effects.push(Effect::Emit(Event::ToolCallFinished { id: self.id(), name, ok: false, summary }));
        self.result(call, text, true, effects)
    }

    pub(super) fn tool_done(
        &mut self,
        call: ToolCall,
        access: Access,
        report: ToolReport,
        effects: &mut Vec<Effect>,
    ) {
        let id = self.id();
        let name = call.name.clone();
        let ended = match report {
            ToolReport::Output { text, summary, diff, ok, seconds } => {
                if !diff.is_empty() || (access == Access::Write && ok) {
                    self.changed = true;
                    self.last_run = None;
                    self.again.clear();
                }
                let ran = matches!(access, Access::Execute | Access::Network);
                if ran {
                    if self.repair == Repair::Untried {
                        self.check_seconds = seconds;
                    }
                    self.last_run = Some(ok);
                }
                effects.push(Effect::Emit(Event::ToolCallFinished { id, name, ok, summary }));
                if !diff.is_empty() {
                    effects.push(Effect::Emit(Event::DiffProduced { id, diff }));
                }
                let text = match text.is_empty() {
                    true => note("empty_output", &[]),
                    // How long a check took and where it ran would make every run another conversation.
                    false if ran && self.own && self.wish.leads() => portable(&text, &self.rules.root),
                    false => text,
                };
                self.result(call, text, false, effects)
            }
            ToolReport::Error(message) => {
                let summary = message.lines().next().unwrap_or_default().to_string();
                effects.push(Effect::Emit(Event::ToolCallFinished { id, name, ok: false, summary }));
                self.result(call, note("tool_failed", &[("message", &message)]), true, effects)
            }
            ToolReport::Fatal { message, hint } => {
                effects.push(Effect::Emit(Event::ToolCallFinished {
                    id,
                    name,
                    ok: false,
                    summary: message.clone(),
                }));
                effects.push(Effect::Append(Message::new(
                    Role::Tool,
                    note("tool_failed", &[("message", &message)]),
                )));
                self.finish(Ending::Failed { message, hint }, effects);
                true
            }
        };
        if !ended {
            self.next(effects);
        }
    }

    /// Adds the result of a call to the history. True where going on makes no sense, and the turn has ended.
    pub(super) fn result(
        &mut self,
        call: ToolCall,
        text: String,
        error: bool,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let now = Some((call, text));
        self.same = if self.last == now { self.same + 1 } else { 1 };
        self.last = now;
        let Some((call, text)) = &self.last else { return false };
        let (name, shown) = (call.name.clone(), text.clone());
        // Going to and fro between two calls is no better than one again and again.
        let pair = format!("{name}\n{}\n{text}", serde_json::Value::from(call.arguments.clone()));
        let again = self.again.entry(pair).or_default();
        *again += 1;
        if *again > 1 && self.rules.small && (self.wish.kind == Kind::Question || self.changed) {
            // What was asked for twice is known by now, or done.
            self.must = Must::Answer;
        }
        let circles = self.same >= SAME_CALL_STOPS || *again >= SAME_CALL_STOPS;
        let shown = if error { self.count_error(&name, shown).0 } else { shown };
        effects.push(Effect::Append(Message::new(Role::Tool, shown)));
        if !circles {
            return false;
        }
        let ending = if self.denied_last {
            Ending::Denied
        } else {
            let message = format!(
                "The model made the same call of {name} {SAME_CALL_STOPS} times with the same result, so it was stopped."
            );
            Ending::Stuck { message }
        };
        self.finish(ending, effects);
        true
    }

    /// The text for the model, with "do something else" where it came before, and how often it came.
    pub(super) fn count_error(&mut self, name: &str, text: String) -> (String, usize) {
        let count = self.errors.entry(format!("{name}\n{text}")).or_default();
        *count += 1;
        let count = *count;
        if count < SAME_ERROR_WARNS {
            return (text, count);
        }
        let warning = note("do_something_else", &[("count", &count.to_string())]);
        (format!("{text}\n{warning}"), count)
    }

    pub(super) fn id(&self) -> u64 {
        self.rules.first_call + self.tool_calls as u64
    }
}

/// Whether a reason for a refusal says how to do it, and not that it is not to be done.
fn wants_another(reason: &str) -> bool {
    let words = reason.to_lowercase();
    let ends =
        ["stop", "not now", "never mind", "nevermind", "forget it", "leave it", "later", "no need", "cancel"];
    !ends.iter().any(|end| words.trim_start().starts_with(end))
}

/// A tool as one line: `edit(file_path: string, old_string: string, replace_all?: boolean)`.
pub(super) fn form(spec: &ToolSpec) -> String {
    let required: Vec<&str> = spec.parameters["required"]
        .as_array()
        .map(|names| names.iter().filter_map(|name| name.as_str()).collect())
        .unwrap_or_default();
    let parameters: Vec<String> = spec.parameters["properties"]
        .as_object()
        .map(|properties| {
            properties
                .iter()
                .map(|(name, schema)| {
                    let optional = if required.contains(&name.as_str()) { "" } else { "?" };
                    format!("{name}{optional}: {}", schema["type"].as_str().unwrap_or("any"))
                })
                .collect()
        })
        .unwrap_or_default();
    format!("{}({})", spec.name, parameters.join(", "))
}
