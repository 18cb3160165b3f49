//! A question beside the conversation. The sequence is brought to the conversation as the next answer would bring it,
//! the question and its answer are appended, and then cut off again: cutting is exact, and the next token of the
//! conversation has the bits it would have had.

use super::{LocalModel, emit};
use crate::chat::{Message, Role, ToolSpec};
use crate::engine::TokenId;
use crate::model::{Generated, ModelError, ModelEvent, Request, StopReason, Usage};
use std::sync::atomic::AtomicBool;

impl LocalModel {
    /// Answers `request`, whose last message is the question; what stands before it is what the model holds afterwards.
    pub(super) fn answer_aside(
        &mut self,
        request: &Request<'_>,
        on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<Generated, ModelError> {
        let (conversation, question) = request.messages.split_at(request.messages.len().saturating_sub(1));
        let mut asked = self.more(conversation, question, request.tools)?;
        asked.extend(self.tokenizer.encode(request.frame.map_or("", |frame| frame.begins), false));
        let mut usage = self.reach(conversation, request.tools, asked.len(), request.cancel, on_event)?;
        if self.history != conversation {
            return Ok(unanswered(usage));
        }
        let answered = self.ask(request, &asked, &mut usage, on_event);
        // Whatever came of it, the sequence ends where the conversation does.
        self.sequence.truncate(self.held);
        answered
    }

    /// Brings the sequence to `conversation`; not to its end where that was cancelled, and then it is no history that
    /// can be continued. `beside`: tokens that must fit behind it.
    fn reach(
        &mut self,
        conversation: &[Message],
        tools: &[ToolSpec],
        beside: usize,
        cancel: &AtomicBool,
        on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<Usage, ModelError> {
        let plan = self.plan(conversation, tools, false)?;
        let prompt = plan.len() + beside;
        if prompt + 1 > self.sequence.capacity() {
            return Err(ModelError::ContextFull { needed: prompt + 1, limit: self.sequence.capacity() });
        }
        let (kept, new, repeated) = self.hold(plan);
        // Versions of a text stand behind the conversation: they give way, and a search for more begins anew.
        self.end_search();
        self.history.clear();
        self.held = kept;
        let (done, logits) = self.prefill(&new, cancel, on_event)?;
        if logits.is_some() {
            self.history = conversation.to_vec();
            self.tools = tools.to_vec();
            self.held = self.sequence.tokens().len();
        }
        Ok(Usage { prompt, cached: kept, prefilled: done, repeated, ..Usage::default() })
    }

    /// Prefills `asked` behind the sequence and lets the model answer.
    fn ask(
        &mut self,
        request: &Request<'_>,
        asked: &[TokenId],
        usage: &mut Usage,
        on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<Generated, ModelError> {
        let (done, logits) = self.prefill(asked, request.cancel, on_event)?;
        usage.prefilled += done;
        let Some(logits) = logits else { return Ok(unanswered(*usage)) };
        let (parser, stop, completion) =
            self.decode(request, request.frame.map_or("", |frame| frame.begins), logits, on_event, None)?;
        let (events, parsed) = parser.finish();
        events.into_iter().for_each(|event| emit(event, on_event));
        self.wrote(usage, completion);
        on_event(ModelEvent::Usage(*usage));
        let message = Message {
            role: Role::Assistant,
            content: parsed.content,
            reasoning: parsed.reasoning,
            tool_calls: parsed.calls,
            written: Some(self.written(self.held + asked.len())),
        };
        let (truncated, problems) = (parsed.truncated, parsed.problems);
        Ok(Generated { message, stop, usage: *usage, truncated, problems })
    }
}

/// An answer that was cancelled before its first word.
fn unanswered(usage: Usage) -> Generated {
    Generated {
        message: Message::new(Role::Assistant, ""),
        stop: StopReason::Cancelled,
        usage,
        truncated: false,
        problems: Vec::new(),
    }
}
