//! What becomes of a plan that was made in plan mode: it is carried out, changed first in the user's editor, or refused,
//! with the reason in the composer. A plan is an answer with steps; other answers ask nothing.

use super::app::{App, Overlay};
use super::input::{Choice, Effect, Purpose};
use super::picker::{About, Picker};
use crate::agent::protocol::{ApprovalMode, Ending, TurnOutcome};

const CARRY_OUT: &str = "Carry out your plan.";
const ASKING: &str = "asking";
const UNASKED: &str = "unasked";
const CHANGE: &str = "change";

impl App {
    /// A turn ended: if it made a plan, the user says what becomes of it. Not while they write or other requests wait.
    pub(super) fn offer_plan(&mut self, outcome: &TurnOutcome) {
        let free = self.overlay.is_none() && self.queue.is_empty() && self.composer.is_empty();
        if self.mode != ApprovalMode::Plan
            || outcome.ending != Ending::Done
            || !free
            || steps(&outcome.answer) < 2
        {
            return;
        }
        let choice = |value: &str, label: &str, detail: &str| Choice {
            value: value.into(),
            label: label.into(),
            detail: detail.into(),
            preferred: value == ASKING,
        };
        let choices = vec![
            choice(ASKING, "carry it out", "each change is shown to you first"),
            choice(UNASKED, "carry it out, changes unasked", "mode auto-edit"),
            choice(CHANGE, "change it first", "in your editor"),
            choice("", "not like this", "say what should be otherwise"),
        ];
        self.plan = outcome.answer.clone();
        self.overlay = Some(Overlay::Picker(Picker::new(About::Plan, "Is this the plan?", choices)));
    }

    pub(super) fn plan_settled(&mut self, value: &str) {
        match value {
            ASKING => self.carry_out(ApprovalMode::Default, CARRY_OUT.into()),
            UNASKED => self.carry_out(ApprovalMode::AutoEdit, CARRY_OUT.into()),
            CHANGE => self.effects.push(Effect::Edit {
                text: format!("{}\n", self.plan.trim_end()),
                name: "plan.md".into(),
                purpose: Purpose::Plan,
            }),
            _ => self.hint = Some("say what should be otherwise".into()),
        }
    }

    /// The plan as it came out of the editor.
    pub(super) fn plan_edited(&mut self, text: &str) {
        let text = text.trim();
        if text.is_empty() {
            return self.note("The plan was left; nothing is carried out.");
        }
        let request = match text == self.plan.trim() {
            true => CARRY_OUT.to_string(),
            false => format!("Carry out this plan instead:\n\n{text}"),
        };
        self.carry_out(ApprovalMode::Default, request);
    }

    fn carry_out(&mut self, mode: ApprovalMode, request: String) {
        self.set_mode(mode);
        self.submit(request);
    }
}

/// Lines that begin as the steps of a list do.
fn steps(answer: &str) -> usize {
    let is_step = |line: &str| {
        let line = line.trim_start();
        let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
        let numbered = number.len() < line.len() && number.starts_with(['.', ')']);
        numbered || ["- ", "* ", "+ "].iter().any(|mark| line.starts_with(mark))
    };
    answer.lines().filter(|line| is_step(line)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_steps() {
        for (answer, count) in [
            ("1. Read it.\n2. Change it.", 2),
            ("I would:\n\n- read\n  - and read\n* change", 3),
            ("10) one\n1.5 is a number", 2),
            ("It adds two numbers.", 0),
            ("2 files\n-x\n**bold**", 0),
        ] {
            assert_eq!(steps(answer), count, "{answer}");
        }
    }
}
