//! Ops while a turn runs: what concerns it is done at once, the rest waits; and the thread that passes ops on.

use super::Session;
use crate::agent::protocol::{ApprovalMode, HeldRule, Op};
use crate::agent::transcript::Record;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};

impl Session {
    /// Ops that came meanwhile: what concerns the running turn is done now, the rest waits.
    pub(super) fn poll_ops(&mut self) {
        while let Ok(op) = self.ops.try_recv() {
            self.sort(op);
        }
    }

    pub(super) fn sort(&mut self, op: Op) {
        match op {
            Op::SetMode { mode } => self.set_mode(mode),
            Op::AddRule { rule, scope } => self.add_rule(HeldRule { rule, scope }),
            Op::RemoveRule { rule, scope } => self.remove_rule(&HeldRule { rule, scope }),
            Op::Interrupt => self.cancel.store(true, Ordering::SeqCst),
            Op::Approve { .. } | Op::Typing { .. } => {}
            Op::Query { query } => self.answer(query),
            Op::Ask { text } if self.talk.running => self.questions.push_back(text),
            Op::Quit => {
                self.cancel.store(true, Ordering::SeqCst);
                self.pending.push_front(Op::Quit);
            }
            later => self.pending.push_back(later),
        }
    }

    pub(super) fn set_mode(&mut self, mode: ApprovalMode) {
        self.record(Record::Mode { mode });
    }
}

/// Passes ops from the front end to the session. An interrupt is passed on *before* the flag is raised: whoever lowers
/// the flag afterwards finds it in the queue. So it is with `news`, which any op raises.
pub(super) fn pass_on(from: &Receiver<Op>, to: &Sender<Op>, cancel: &AtomicBool, news: &AtomicBool) {
    for op in from {
        let stops = matches!(op, Op::Interrupt | Op::Quit);
        if to.send(op).is_err() {
            return;
        }
        news.store(true, Ordering::SeqCst);
        if stops {
            cancel.store(true, Ordering::SeqCst);
        }
    }
    // The front end is gone: nothing that runs has anyone to run for.
    let _ = to.send(Op::Quit);
    news.store(true, Ordering::SeqCst);
    cancel.store(true, Ordering::SeqCst);
}
