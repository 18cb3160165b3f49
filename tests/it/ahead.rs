//! What the user has typed so far reaches the model as far as it is certain, and a request ends it: a scripted session
//! whose model keeps what it was shown.

use crate::agent::{Project, says};
use qwright::agent::Session;
use qwright::agent::protocol::{Event, Op};
use qwright::chat::{Message, ToolSpec};
use qwright::model::scripted::ScriptedModel;
use qwright::model::{Generated, Model, ModelError, ModelEvent, ModelInfo, Request};
use qwright::workspace::Workspace;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Shown the last message of each look ahead; one that asks to `wait` lasts until it is stopped.
struct Watched {
    model: ScriptedModel,
    seen: Sender<String>,
}

impl Model for Watched {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }
    fn count_tokens(&self, text: &str) -> usize {
        self.model.count_tokens(text)
    }
    fn count_history(&self, messages: &[Message], tools: &[ToolSpec]) -> usize {
        self.model.count_history(messages, tools)
    }
    fn generate(
        &mut self,
        request: Request<'_>,
        on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<Generated, ModelError> {
        self.model.generate(request, on_event)
    }
    fn look_ahead(
        &mut self,
        messages: &[Message],
        _tools: &[ToolSpec],
        cancel: &AtomicBool,
    ) -> Result<usize, ModelError> {
        let text = messages.last().map_or("", |message| &message.content);
        self.seen.send(text.to_string()).unwrap();
        while text.contains("wait") && !cancel.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(0)
    }
}

#[test]
fn certain_words_are_looked_at_and_any_op_ends_it() {
    let project = Project::new();
    let (seen, shown) = channel();
    let turns = vec![says("one"), says("two")];
    let model = Watched { model: ScriptedModel::new(project.info.clone(), turns), seen };
    let workspace = Workspace::open(project.files.path(), &[]).unwrap();
    let (ops, events) = Session::start(Box::new(model), workspace, project.shell(), project.options.clone());
    let typing = |text: &str| ops.send(Op::Typing { text: text.into() }).unwrap();
    let submit = |text: &str| {
        ops.send(Op::Submit { text: text.into() }).unwrap();
        while !matches!(events.recv_timeout(Duration::from_secs(20)).unwrap(), Event::TurnFinished { .. }) {}
    };
    let next = || shown.recv_timeout(Duration::from_secs(20)).unwrap();
    // Before any request: the opening, without a word that may still change.
    typing("Wha");
    assert!(next().ends_with("Request:"), "the opening");
    typing("What is th");
    assert!(next().ends_with("Request: What is"));
    // It lasts until the request comes.
    typing("Please wait for");
    assert!(next().ends_with("Please wait"));
    submit("Please wait for me");
    typing("And then wait f");
    assert_eq!(next(), "And then wait");
    submit("And then wait for me");
    drop(ops);
    assert!(shown.try_recv().is_err(), "nothing else was looked at");
}
