//! What comes after a turn: nothing, or, with `--until`, the check and another round. Pure: events in, ops out; the
//! outcomes of all rounds add up to one.

use super::{Until, UntilReport};
use crate::agent::protocol::{Attachment, CheckEnd, Ending, Event, Limit, OUT_OF_TIME, Op, TurnOutcome};

/// Rounds in a row without one tool call after which the model has given up.
const IDLE: usize = 2;

pub(super) struct Rounds<'o> {
    until: Option<&'o Until>,
    /// All turns so far.
    sum: Option<TurnOutcome>,
    rounds: usize,
    idle: usize,
    passed: bool,
}

pub(super) enum Next {
    Nothing,
    Ops(Vec<Op>),
    End(Box<TurnOutcome>),
}

impl<'o> Rounds<'o> {
    pub fn new(until: Option<&'o Until>) -> Self {
        Self { until, sum: None, rounds: 0, idle: 0, passed: false }
    }

    pub fn next(&mut self, event: &Event) -> Next {
        match (event, self.until) {
            (Event::TurnFinished { outcome }, until) => {
                self.idle = if outcome.tool_calls == 0 { self.idle + 1 } else { 0 };
                self.rounds += 1;
                self.add(outcome);
                match until.filter(|_| can_be_checked(&outcome.ending)) {
                    Some(until) => Next::Ops(vec![Op::Check { command: until.command.clone() }]),
                    None => self.end(outcome.ending.clone()),
                }
            }
            (Event::Checked { end, output, .. }, Some(until)) => self.checked(until, end, output),
            _ => Next::Nothing,
        }
    }

    fn checked(&mut self, until: &Until, end: &CheckEnd, output: &str) -> Next {
        match end {
            CheckEnd::Passed => {
                self.passed = true;
                return self.end(Ending::Done);
            }
            CheckEnd::Failed => {}
            CheckEnd::Interrupted => return self.end(Ending::Interrupted),
            CheckEnd::OutOfTime => {
                let message = OUT_OF_TIME.into();
                return self.end(Ending::Limit { limit: Limit::WallTime, message });
            }
            CheckEnd::NotRun { message, hint } => {
                return self.end(Ending::Failed { message: message.clone(), hint: hint.clone() });
            }
        }
        let stuck = |message: String| Ending::Stuck { message };
        let fails = format!("`{}` still fails", until.command);
        match self.sum.as_ref().map(|outcome| outcome.ending.clone()) {
            // What ended the last turn would end the next one as well.
            Some(ending @ (Ending::Limit { .. } | Ending::Failed { .. })) => self.end(ending),
            Some(Ending::Stuck { message }) => self.end(stuck(format!("{fails}. {message}"))),
            Some(Ending::Denied) if self.rounds >= until.max_rounds => self.end(Ending::Denied),
            _ if self.rounds >= until.max_rounds => {
                let rounds = if self.rounds == 1 { "round" } else { "rounds" };
                self.end(stuck(format!("{fails} after {} {rounds} (--max-rounds).", self.rounds)))
            }
            _ if self.idle >= IDLE => self
                .end(stuck(format!("{fails}, and the model gave up: it called no tool in {IDLE} rounds."))),
            _ => {
                let (command, output) = (until.command.clone(), output.to_string());
                Next::Ops(vec![
                    Op::Attach { attachment: Attachment::FailedCheck { command, output } },
                    Op::Submit { text: until.again.clone() },
                ])
            }
        }
    }

    /// The outcome of all rounds, with this ending.
    pub fn ended(&mut self, ending: Ending) -> TurnOutcome {
        let mut outcome = self.sum.take().unwrap_or_else(|| TurnOutcome::ended(Ending::Done));
        outcome.ending = ending;
        outcome
    }

    fn end(&mut self, ending: Ending) -> Next {
        Next::End(Box::new(self.ended(ending)))
    }

    /// Counts add up; answer, ending and diff (which is of the whole run) are the last turn's.
    fn add(&mut self, outcome: &TurnOutcome) {
        let mut sum = outcome.clone();
        if let Some(before) = self.sum.take() {
            sum.model_calls += before.model_calls;
            sum.tool_calls += before.tool_calls;
            sum.usage += before.usage;
            sum.compactions += before.compactions;
            let mut denials = before.denials;
            denials.append(&mut sum.denials);
            sum.denials = denials;
        }
        self.sum = Some(sum);
    }

    pub fn report(&self) -> Option<UntilReport> {
        self.until.map(|until| UntilReport {
            command: until.command.clone(),
            passed: self.passed,
            rounds: self.rounds,
            protected: until.protected.clone(),
        })
    }
}

/// Whether there is time and a model for another look. A limit on calls or tokens may have been hit by the last step.
fn can_be_checked(ending: &Ending) -> bool {
    match ending {
        Ending::Done | Ending::Denied | Ending::Stuck { .. } | Ending::Failed { .. } => true,
        Ending::Limit { limit, .. } => *limit != Limit::WallTime,
        Ending::Interrupted | Ending::ContextFull { .. } | Ending::ModelUnavailable { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until() -> Until {
        Until { command: "make".into(), again: "again".into(), max_rounds: 3, protected: Vec::new() }
    }

    fn turn(ending: Ending, tool_calls: usize) -> Event {
        Event::TurnFinished { outcome: TurnOutcome { tool_calls, ..TurnOutcome::ended(ending) } }
    }

    fn check(end: CheckEnd) -> Event {
        Event::Checked { command: "make".into(), end, output: "no".into() }
    }

    /// What comes after these events: `?` a check, `+` another round, else the ending.
    fn told(events: &[Event]) -> String {
        let until = until();
        let mut rounds = Rounds::new(Some(&until));
        let mut told = String::new();
        for event in events {
            match rounds.next(event) {
                Next::Nothing => told.push('.'),
                Next::Ops(ops) if matches!(ops[..], [Op::Check { .. }]) => told.push('?'),
                Next::Ops(ops) => {
                    assert!(matches!(&ops[..], [Op::Attach { .. }, Op::Submit { text }] if text == "again"));
                    told.push('+');
                }
                Next::End(outcome) => {
                    assert_eq!(rounds.report().unwrap().passed, outcome.ending == Ending::Done);
                    told.push_str(&format!("{:?}", outcome.ending));
                }
            }
        }
        told
    }

    #[test]
    fn rounds_go_on_while_there_is_a_point() {
        let done = || turn(Ending::Done, 1);
        let limit = |limit| Ending::Limit { limit, message: "m".into() };
        let fails = || check(CheckEnd::Failed);
        for (events, expected) in [
            (vec![done(), check(CheckEnd::Passed)], "?Done"),
            (vec![done(), fails(), done(), check(CheckEnd::Passed)], "?+?Done"),
            (vec![done(), fails(), done(), fails(), done(), fails()], "?+?+?Stuck"),
            (vec![turn(Ending::Done, 0), fails(), turn(Ending::Done, 0), fails()], "?+?Stuck"),
            (vec![turn(Ending::Denied, 1), fails(), done(), check(CheckEnd::Passed)], "?+?Done"),
            (vec![turn(limit(Limit::ModelCalls), 1), check(CheckEnd::Passed)], "?Done"),
            (vec![turn(limit(Limit::ModelCalls), 1), fails()], "?Limit"),
            (vec![turn(limit(Limit::WallTime), 1)], "Limit"),
            (vec![turn(Ending::Interrupted, 1)], "Interrupted"),
            (vec![done(), check(CheckEnd::Interrupted)], "?Interrupted"),
            (vec![done(), check(CheckEnd::OutOfTime)], "?Limit"),
        ] {
            let told = told(&events);
            assert_eq!(told.split(' ').next().unwrap(), expected, "{told}");
        }
    }

    #[test]
    fn without_a_command_the_first_turn_is_all() {
        let mut rounds = Rounds::new(None);
        assert!(
            matches!(rounds.next(&turn(Ending::Denied, 1)), Next::End(outcome) if outcome.ending == Ending::Denied)
        );
        assert_eq!(rounds.report(), None);
    }

    #[test]
    fn counts_add_up() {
        let until = until();
        let mut rounds = Rounds::new(Some(&until));
        for calls in [2, 3] {
            rounds.next(&turn(Ending::Done, calls));
        }
        assert_eq!(rounds.ended(Ending::Done).tool_calls, 5);
    }
}
