//! Prefill while the user types: what is certain of a history is brought into the sequence behind the messages it holds,
//! and stands there unclaimed. The next plan keeps as much of it as turns out to be right; the rest is cut off, which
//! costs nothing. Nothing else looks at it.

use super::{LocalModel, Plan, broken};
use crate::chat::{Message, Role, ToolSpec};
use crate::engine::{EngineError, Want};
use crate::model::ModelError;
use std::sync::atomic::AtomicBool;

/// Tokens between two looks at whether to stop: what is lost when it does.
const PIECE: usize = 64;

impl LocalModel {
    /// Prefills `messages`, of which the last is a user's and may still grow at its end. Returns how many tokens.
    pub(super) fn look_ahead(
        &mut self,
        messages: &[Message],
        tools: &[ToolSpec],
        cancel: &AtomicBool,
    ) -> Result<usize, ModelError> {
        // Nor is anything certain of what a template of the file will print.
        if messages.last().is_none_or(|last| last.role != Role::User) || self.template.is_some() {
            return Ok(0);
        }
        let mut plan = self.plan(messages, tools, false)?;
        // The message's end is not certain, and its last token may come to be another.
        let open = self.closing().len() + 1;
        let (Plan::Continues(_, tokens) | Plan::Whole(tokens, _)) = &mut plan;
        tokens.truncate(tokens.len().saturating_sub(open));
        // An answer is to fit behind it; if not, the request will say so.
        if tokens.is_empty() || plan.len() + 1 >= self.sequence.capacity() {
            return Ok(0);
        }
        if let Plan::Whole(..) = plan {
            // Another conversation: what was held is not this one's beginning.
            (self.history, self.held) = (Vec::new(), 0);
        }
        self.end_search();
        let (_, new, _) = self.hold(plan);
        let mut done = 0;
        for piece in new.chunks(PIECE) {
            match self.engine.append(&mut self.sequence, piece, Want::Nothing, cancel, &mut |_| {}) {
                Ok(_) => done += piece.len(),
                Err(EngineError::Cancelled) => break,
                Err(error) => return Err(broken(error)),
            }
        }
        Ok(done)
    }
}
