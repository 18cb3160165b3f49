//! The history and its log: what enters the one is written to the other.

use super::Session;
use crate::agent::protocol::Event;
use crate::agent::transcript::{Record, Transcript};
use crate::chat::Message;

impl Session {
    pub(super) fn push(&mut self, message: Message) {
        self.log(&Record::Message { message: message.clone() });
        self.history.push(message);
    }

    pub(super) fn open_transcript(&mut self) {
        let Some(state) = &self.options.state else { return };
        match Transcript::open(state, &self.id) {
            Ok((transcript, _)) => {
                self.transcript = Some(transcript);
                self.log(&Record::Started {
                    id: self.id.clone(),
                    time: jiff::Timestamp::now().to_string(),
                    directory: self.workspace.root().display().to_string(),
                    model: self.model.info().name.clone(),
                    sandbox: self.shell.tier().to_string(),
                });
            }
            Err(error) => self.emit(Event::Error {
                message: format!("this session is not logged: {}: {error}", state.display()),
                hint: Some("set XDG_STATE_HOME to a directory that can be written".into()),
            }),
        }
    }

    /// A log that cannot be written is said once; the session goes on without.
    pub(super) fn log(&mut self, record: &Record) {
        if let Some(transcript) = &mut self.transcript
            && let Err(error) = transcript.append(record)
        {
            let message = format!("the session log ends here: {}: {error}", transcript.path().display());
            self.transcript = None;
            self.emit(Event::Error { message, hint: None });
        }
    }
}
