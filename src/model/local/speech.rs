//! How a conversation becomes tokens: in one of our formats message by message, so that what is held only grows; or by the
//! template of the model's own file, which prints the whole of it every time, and then the longest common prefix of
//! tokens is kept. Where in the sequence they stand is for others.

use super::{LocalModel, Plan};
use crate::chat::{ChatFormat, Message, Role, Segment, ToolSpec};
use crate::engine::TokenId;
use crate::model::ModelError;

impl LocalModel {
    pub(super) fn encode(&self, segments: &[Segment]) -> Vec<TokenId> {
        let pieces: Vec<(bool, &str)> = segments
            .iter()
            .map(|segment| match segment {
                Segment::Template(text) => (true, text.as_str()),
                Segment::Content(text) => (false, text.as_str()),
            })
            .collect();
        self.tokenizer.encode_pieces(&pieces)
    }

    pub(super) fn text_of(&self, messages: &[Message], tools: &[ToolSpec]) -> Result<String, ModelError> {
        let segments = match &self.template {
            Some(template) => template.render(messages, tools, true).map_err(unprintable)?,
            None => self.info.format.render(messages, tools, true),
        };
        Ok(crate::chat::format::text(&segments))
    }

    /// How `messages` stand to what the sequence holds; `answer`: and the model can begin to write.
    pub(super) fn plan(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
        answer: bool,
    ) -> Result<Plan, ModelError> {
        let held = self.history.len();
        // A thinking model's earlier thoughts leave the history at the next user message: rendered anew.
        let drops_thoughts = self.info.format == ChatFormat::Thinking
            && messages.get(held..).is_some_and(|new| new.iter().any(|m| m.role == Role::User));
        // Of a template of the file nobody knows what it prints anew.
        let continues = self.template.is_none()
            && held > 0
            && messages.len() >= held + usize::from(answer)
            && messages[..held] == self.history[..]
            && tools == &self.tools[..]
            && !drops_thoughts;
        if continues {
            return Ok(Plan::Continues(self.held, self.render(messages, held, tools, answer)?));
        }
        let same = messages.iter().zip(&self.history).take_while(|(a, b)| a == b).count();
        let known = match same {
            0 => 0,
            _ if tools != &self.tools[..] => 0,
            same => self.render(&messages[..same], 0, tools, false)?.len(),
        };
        Ok(Plan::Whole(self.render(messages, 0, tools, answer)?, known))
    }

    /// The tokens of `messages` from message `from` on. Answers that this vocabulary wrote are the tokens they were
    /// written with, and what stands between them is encoded as it was when they were.
    fn render(
        &self,
        messages: &[Message],
        from: usize,
        tools: &[ToolSpec],
        answer: bool,
    ) -> Result<Vec<TokenId>, ModelError> {
        if let Some(template) = &self.template {
            return template
                .render(messages, tools, answer)
                .map(|text| self.encode(&text))
                .map_err(unprintable);
        }
        let format = self.info.format;
        let part = |from: usize, to: usize, answer: bool| match from {
            0 => format.render(&messages[..to], tools, answer),
            _ => format.render_more(&messages[..from], &messages[from..to], answer),
        };
        let (mut tokens, mut from) = (Vec::new(), from);
        for (i, message) in messages.iter().enumerate().skip(from) {
            // Thoughts of turns before the last request are not sent again.
            let changed =
                format == ChatFormat::Thinking && messages[i..].iter().any(|m| m.role == Role::User);
            let ours = message.written.as_ref().filter(|w| w.vocabulary == self.vocabulary && !changed);
            if let Some(written) = ours {
                tokens.extend(self.encode(&part(from, i, true)));
                tokens.extend(
                    written.tokens.iter().copied().filter(|id| (*id as usize) < self.tokenizer.vocab_size()),
                );
                tokens.extend(self.encode(&format.close_turn()));
                from = i + 1;
            }
        }
        if from < messages.len() || answer {
            tokens.extend(self.encode(&part(from, messages.len(), answer)));
        }
        Ok(tokens)
    }

    /// The tokens of one more message of the user behind `messages`, up to where the answer begins.
    pub(super) fn more(
        &self,
        messages: &[Message],
        question: &[Message],
        tools: &[ToolSpec],
    ) -> Result<Vec<TokenId>, ModelError> {
        let segments = match &self.template {
            Some(template) => template.render_more(messages, question, tools, true).map_err(unprintable)?,
            None => self.info.format.render_more(messages, question, true),
        };
        Ok(self.encode(&segments))
    }

    /// What closes an answer. A template's end of it comes with the next message.
    pub(super) fn closing(&self) -> Vec<TokenId> {
        match self.template {
            Some(_) => Vec::new(),
            None => self.encode(&self.info.format.close_turn()),
        }
    }
}

fn unprintable(why: String) -> ModelError {
    ModelError::Unavailable {
        message: format!("the model's chat template cannot print this conversation: {why}"),
        hint: "qwright models list shows the models that are known to work".into(),
    }
}
