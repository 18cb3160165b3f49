//! What a front end may ask of a session, and a command of the user's own. Nothing here changes the conversation.

use super::Session;
use crate::agent::protocol::{Answer, Change, Event, Past, Query};
use crate::chat::Role;
use crate::workspace::shell::ShellCommand;
use crate::workspace::shell::policy::needs_network;

impl Session {
    pub(super) fn answer(&self, query: Query) {
        let answer = match query {
            Query::Changes => self.changes(),
            Query::History => Answer::History { past: self.past() },
            Query::Context => self.context(),
            Query::Rules => self.told_rules(),
        };
        self.emit(Event::Answer { answer });
    }

    fn changes(&self) -> Answer {
        let (mut changes, mut others) = (Vec::new(), Vec::new());
        for change in self.workspace.changes() {
            match change.texts() {
                Some((before, after)) => changes.push(Change { path: change.path, before, after }),
                None => others.push(change.path),
            }
        }
        Answer::Changes { changes, others }
    }

    /// Turns from before a compaction are there as requests alone.
    fn past(&self) -> Vec<Past> {
        let mut past = Vec::new();
        let mut turns = self.talk.turns.iter().peekable();
        while let Some(turn) = turns.next_if(|turn| turn.is_shortened()) {
            past.push(Past::Request { text: turn.request.clone() });
        }
        for (index, message) in self.talk.history.iter().enumerate() {
            match message.role {
                Role::System => {}
                Role::User => {
                    if let Some(turn) = turns.next_if(|turn| turn.start() <= index) {
                        past.push(Past::Request { text: turn.request.clone() });
                    }
                }
                Role::Assistant => {
                    let text = message.content.trim().to_string();
                    let thinking = message.reasoning.clone();
                    if !text.is_empty() || thinking.is_some() {
                        past.push(Past::Said { text, thinking });
                    }
                    past.extend(message.tool_calls.iter().map(|call| Past::Called {
                        name: call.name.clone(),
                        summary: match self.tools.get(&call.name) {
                            Some(tool) => tool.describe(&call.arguments),
                            None => call.name.clone(),
                        },
                    }));
                }
                Role::Tool => past.push(Past::Result { text: message.content.clone() }),
            }
        }
        past
    }

    fn context(&self) -> Answer {
        let count = |role: Role| {
            let texts = self.talk.history.iter().filter(|message| message.role == role);
            texts.map(|message| self.model.count_tokens(&message.content)).sum::<usize>()
        };
        let tools = self.model.count_history(&[], &self.specs);
        let mut parts = vec![
            ("descriptions of the tools".to_string(), tools),
            ("system prompt".to_string(), count(Role::System)),
            ("requests, files given with them, notes".to_string(), count(Role::User)),
            ("results of tools".to_string(), count(Role::Tool)),
        ];
        let rest = self.used().saturating_sub(parts.iter().map(|(_, tokens)| tokens).sum());
        parts.push(("answers and calls".to_string(), rest));
        Answer::Context { parts, limit: self.model.info().context }
    }

    /// A command of the user's own; its calls are numbered from the end, so that no turn's call has the same number.
    pub(super) fn shell(&mut self, command: &str) {
        self.lower_flags();
        self.commands += 1;
        let (id, name) = (u64::MAX - self.commands, "shell".to_string());
        self.emit(Event::ToolCallStarted { id, name: name.clone(), summary: command.to_string() });
        // The user wrote it: what needs the network has it.
        let network = needs_network(command);
        let asked = ShellCommand { command: command.into(), network, ..ShellCommand::default() };
        let mut show = |text: &str| self.emit(Event::ToolOutput { id, text: text.to_string() });
        let (ok, summary) = match self.workspace.run_command(&self.shell, &asked, &self.cancel, &mut show) {
            Ok(outcome) => match outcome.exit {
                Some(0) => (true, command.to_string()),
                Some(code) => (false, format!("{command}: exit status {code}")),
                None => (false, format!("{command}: stopped")),
            },
            Err(error) => (false, format!("{error}; {}", error.hint())),
        };
        self.emit(Event::ToolCallFinished { id, name, ok, summary });
    }
}
