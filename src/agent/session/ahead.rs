//! While the user writes a request, what is certain of it is prefilled: the conversation, and of the text all but the
//! word that is being written. Any op stops it. It changes no answer, so what goes wrong here is left to the request
//! itself to say.

use super::Session;
use crate::chat::{Message, Role};
use std::sync::atomic::Ordering;

impl Session {
    pub(super) fn look_ahead(&mut self, text: &str) {
        self.news.store(false, Ordering::SeqCst);
        // What overtook the line above is in the queue: it comes first, and only the newest text counts.
        self.pending.extend(self.ops.try_iter());
        if !self.pending.is_empty() {
            return;
        }
        let messages = self.certain(text);
        let _ = self.model.look_ahead(&messages, &self.specs, &self.news);
    }

    /// The messages of a request that begins with `text`, as far as they are certain.
    fn certain(&self, text: &str) -> Vec<Message> {
        // What is being written may become another word, and blanks at the end are not sent.
        let whole = text
            .trim_start()
            .rfind(char::is_whitespace)
            .map_or("", |end| text.trim_start()[..end].trim_end());
        if self.talk.history.is_empty() {
            return self.opening(whole);
        }
        let new_mode = (self.talk.mode != self.talk.told_mode).then_some(self.talk.mode);
        let message = Message::new(Role::User, self.later(whole, new_mode));
        self.talk.history.iter().cloned().chain([message]).collect()
    }
}
