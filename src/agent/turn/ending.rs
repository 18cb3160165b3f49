//! How a turn ends: stopped, at a limit, or with its answer.

use super::{Effect, Must, State, Stop, Turn};
use crate::agent::answer::ANSWER;
use crate::agent::prompts::note;
use crate::agent::protocol::{Ending, Event, Limit, OUT_OF_TIME, TurnOutcome};
use crate::chat::{Message, Role, ToolCall};
use crate::model::Generated;

/// Answers in words that are forgiven where a call was to give the answer.
const UNFORMED: usize = 3;

impl Turn {
    pub(super) fn stopped(
        &mut self,
        state: State,
        why: Stop,
        partial: Option<Generated>,
        effects: &mut Vec<Effect>,
    ) {
        // An answer that was stopped before its first word leaves nothing in the history.
        if let Some(partial) = partial.filter(|p| p.usage.completion > 0 || !p.message.content.is_empty()) {
            self.take_in(&partial.message, partial.usage, effects);
        }
        match state {
            State::Judging(call) | State::Asking { call, .. } | State::Running { call, .. } => {
                self.queue.push_front(call);
            }
            _ => {}
        }
        match why {
            Stop::Interrupted => self.finish(Ending::Interrupted, effects),
            Stop::WallTime => self.limit(Limit::WallTime, OUT_OF_TIME.into(), effects),
        }
    }

    pub(super) fn out_of_tokens(&mut self, effects: &mut Vec<Effect>) {
        let message = format!("The model has generated {} tokens (--max-tokens).", self.tokens());
        self.limit(Limit::Tokens, message, effects);
    }

    pub(super) fn limit(&mut self, limit: Limit, message: String, effects: &mut Vec<Effect>) {
        self.finish(Ending::Limit { limit, message }, effects);
    }

    /// The work is done, or denied. Where the answer is to have a form it is asked for now.
    pub(super) fn end(&mut self, ending: Ending, effects: &mut Vec<Effect>) {
        if !self.rules.answers || ending != Ending::Done {
            return self.finish(ending, effects);
        }
        self.unformed += 1;
        if self.unformed > UNFORMED {
            let message =
                "The model did not give its answer in the form that was asked for (--json-schema).".into();
            return self.finish(Ending::Stuck { message }, effects);
        }
        self.notes.push(note("answer_in_form", &[]));
        self.must = Must::Call(ANSWER);
        self.call_model(effects);
    }

    /// The call that gives the answer ends the turn; calls after it do not run.
    pub(super) fn answered(&mut self, call: ToolCall, text: String, effects: &mut Vec<Effect>) {
        let (id, name) = (self.id(), call.name);
        effects.push(Effect::Emit(Event::ToolCallFinished {
            id,
            name,
            ok: true,
            summary: "answered".into(),
        }));
        effects.push(Effect::Append(Message::new(Role::Tool, "ok")));
        self.answer = text;
        self.finish(Ending::Done, effects);
    }

    /// Ends the turn. Calls that did not run get a result that says so: the history stays well-formed.
    pub(super) fn finish(&mut self, ending: Ending, effects: &mut Vec<Effect>) {
        let reason = ending.message().unwrap_or_default();
        for _ in self.queue.drain(..) {
            effects.push(Effect::Append(Message::new(Role::Tool, note("not_run", &[("reason", &reason)]))));
        }
        self.state = State::Finished;
        effects.push(Effect::Finish(TurnOutcome {
            ending,
            answer: std::mem::take(&mut self.answer),
            model_calls: self.model_calls,
            tool_calls: self.tool_calls,
            usage: self.usage,
            denials: std::mem::take(&mut self.denials),
            ..TurnOutcome::ended(Ending::Done)
        }));
    }
}
