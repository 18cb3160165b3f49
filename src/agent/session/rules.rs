//! The rules of a session: taken up from where they are kept, added and removed by the front end, told to it.

use super::Session;
use crate::agent::approval::{self, Containment};
use crate::agent::protocol::{Answer, Event, HeldRule, Rule};
use crate::chat::ToolCall;

impl Session {
    /// What is wrong with the file is told once; what can be read of it holds.
    pub(super) fn read_rules(&mut self) {
        let problems = self.rules.reload(&self.options.rules, &self.directory());
        for problem in problems {
            let hint = match self.rules.are_lost() {
                true => "correct the file; until then nothing but reading happens unasked",
                false => "correct the file; the other rules hold",
            };
            self.emit(Event::Error { message: problem, hint: Some(hint.into()) });
        }
    }

    pub(super) fn add_rule(&mut self, held: HeldRule) {
        let added = self.rules.add(held, &self.options.rules, &self.directory());
        self.tell_problem(added);
    }

    pub(super) fn remove_rule(&mut self, held: &HeldRule) {
        let removed = self.rules.remove(held, &self.options.rules, &self.directory());
        self.tell_problem(removed);
    }

    fn tell_problem(&self, done: Result<(), String>) {
        if let Err(message) = done {
            self.emit(Event::Error { message, hint: None });
        }
    }

    pub(super) fn told_rules(&self) -> Answer {
        let file = self.options.rules.file.as_deref();
        Answer::Rules { rules: self.rules.held().to_vec(), file: file.map(|file| file.display().to_string()) }
    }

    pub(super) fn suggested(&self, call: &ToolCall) -> Option<Rule> {
        let tool = self.tools.get(&call.name)?;
        let containment = Containment::of(&self.shell);
        approval::suggestion(tool, &call.arguments, &self.workspace, containment, &self.rules)
    }
}
