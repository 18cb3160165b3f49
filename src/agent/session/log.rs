//! The conversation and its log: what changes the one is written to the other; and an earlier one is taken up from its
//! log.

use super::Session;
use crate::agent::asked::{Asked, RunSettings};
use crate::agent::conversation::well_formed;
use crate::agent::protocol::{Ending, Event, Query, TurnOutcome};
use crate::agent::resume::Resumed;
use crate::agent::transcript::{Record, Transcript};
use crate::chat::Message;

/// Why a call of an earlier process has no result.
const STOPPED: &str = "The program was stopped.";

impl Session {
    /// An answer that a model of this program wrote is logged with what it was asked for with.
    pub(super) fn push(&mut self, message: Message) {
        let asked = self.asked.take_if(|_| message.written.is_some()).map(|asked| {
            let seen = self.seen.take_in(asked.seen);
            Box::new(Asked { seen, ..asked })
        });
        self.record(Record::Message { message, asked });
    }

    /// The one way in which the conversation changes.
    pub(super) fn record(&mut self, record: Record) {
        self.log(&record);
        self.talk.apply(record);
    }

    pub(super) fn open_transcript(&mut self) {
        if let Some(state) = &self.options.state {
            match Transcript::open(state, &self.id) {
                Ok((transcript, _)) => self.transcript = Some(transcript),
                Err(error) => self.emit(Event::Error {
                    message: format!("this session is not logged: {}: {error}", state.display()),
                    hint: Some("set XDG_STATE_HOME to a directory that can be written".into()),
                }),
            }
        }
        self.record(self.started());
    }

    fn started(&self) -> Record {
        Record::Started {
            id: self.id.clone(),
            time: jiff::Timestamp::now().to_string(),
            directory: self.directory(),
            model: self.model.info().name.clone(),
            sandbox: self.shell.tier().to_string(),
            mode: self.talk.mode,
            run: Some(Box::new(RunSettings {
                version: env!("CARGO_PKG_VERSION").into(),
                seed: self.options.seed,
                temperature: self.options.temperature,
                tools: self.specs.to_vec(),
                model: self.model.setup(),
            })),
        }
    }

    /// Goes on with an earlier conversation. What a kill or a damaged line left open in it is closed first, as an
    /// interrupt closes a turn, so that the history is one that a model can be sent.
    pub(super) fn take_up(&mut self, resumed: Resumed) {
        let Resumed { transcript, conversation, damaged, forked_from, model, .. } = resumed;
        self.transcript = Some(transcript);
        self.talk = conversation;
        self.emit(Event::Resumed {
            messages: self.talk.history.len(),
            turns: self.talk.turns.len(),
            forked_from,
            damaged,
        });
        // Before anything new is said.
        self.answer(Query::History);
        let now = self.model.info().name.clone();
        if model != now && !model.is_empty() {
            let message = format!("this session was led with {model} until now, and goes on with {now}");
            self.emit(Event::Error { message, hint: None });
        }
        let whole = well_formed(&self.talk.history, STOPPED);
        match whole.strip_prefix(&self.talk.history[..]) {
            Some(missing) => missing.iter().cloned().for_each(|message| self.push(message)),
            None => self.record(Record::Restored { messages: whole, turns: self.talk.turns.len() }),
        }
        if self.talk.running {
            self.record(Record::Finished { outcome: TurnOutcome::ended(Ending::Interrupted) });
        }
        if self.talk.mode != self.options.mode {
            self.set_mode(self.options.mode);
        }
        self.record(self.started());
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
