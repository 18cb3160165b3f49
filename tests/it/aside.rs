//! A question beside the conversation leaves no trace: the local model on a tiny file, with and without questions.

use crate::oracle::manifest;
use qwright::chat::{ChatFormat, Message, Role};
use qwright::engine::EngineOptions;
use qwright::engine::backend::BackendKind;
use qwright::engine::kv::KvType;
use qwright::engine::sampler::SamplingParams;
use qwright::model::local::{LocalModel, LocalOptions};
use qwright::model::{Generated, Model, ModelError, Request, Sampling};
use std::sync::atomic::{AtomicBool, Ordering};

fn model(kv: KvType) -> LocalModel {
    let options = LocalOptions {
        backend: BackendKind::Native,
        engine: EngineOptions::default(),
        kv,
        context: Some(CONTEXT),
        format: Some(ChatFormat::Qwen3Coder),
        sampling: SamplingParams {
            seed: 0,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
        },
        decoding: Default::default(),
        snapshots: None,
    };
    let path = manifest().join("fixtures/oracle/tiny-qwen2-q4_k_m.gguf");
    LocalModel::load(&path, &options, &AtomicBool::new(false), &mut |_, _| {}).unwrap()
}

const CONTEXT: usize = 512;

fn ask(
    model: &mut LocalModel,
    messages: &[Message],
    aside: bool,
    cancel: bool,
) -> Result<Generated, ModelError> {
    let cancel = AtomicBool::new(cancel);
    let sampling = Sampling { seed: 7, temperature: None, max_tokens: 24 };
    let request = Request {
        messages,
        tools: &[],
        sampling,
        must_call: None,
        words_only: aside,
        values: None,
        aside,
        cancel: &cancel,
    };
    let answer = model.generate(request, &mut |_| {});
    assert!(!cancel.swap(false, Ordering::SeqCst) || answer.is_ok());
    answer
}

fn user(text: &str) -> Message {
    Message::new(Role::User, text)
}

/// Three requests; before each, and after the last, what `beside` asks with the history so far.
fn conversation(kv: KvType, beside: &dyn Fn(&mut LocalModel, &[Message])) -> Vec<(Message, usize)> {
    let mut model = model(kv);
    let mut history = vec![Message::new(Role::System, "s")];
    let mut answers = Vec::new();
    for text in ["one", "two", "three"] {
        beside(&mut model, &history);
        history.push(user(text));
        let answer = ask(&mut model, &history, false, false).unwrap();
        history.push(answer.message.clone());
        answers.push((answer.message, answer.usage.repeated));
    }
    answers
}

#[test]
fn the_conversation_goes_on_as_if_nothing_had_been_asked() {
    for kv in KvType::ALL {
        let alone = conversation(kv, &|_, _| {});
        assert!(alone.iter().any(|(answer, _)| !answer.content.is_empty()), "the model says something");
        assert!(alone.iter().all(|(_, repeated)| *repeated == 0));
        let disturbed = conversation(kv, &|model, history| {
            let asked = |text: &str| history.iter().cloned().chain([user(text)]).collect::<Vec<_>>();
            let first = ask(model, &asked("beside?"), true, false).unwrap();
            let again = ask(model, &asked("beside?"), true, false).unwrap();
            assert_eq!(first.message, again.message, "{kv:?}");
            assert_eq!(
                (again.usage.repeated, again.usage.prompt),
                (0, again.usage.cached + again.usage.prefilled)
            );
            // One that is cancelled, and one that cannot fit.
            ask(model, &asked("another?"), true, true).unwrap();
            let long = ask(model, &asked(&"long ".repeat(CONTEXT)), true, false);
            assert!(matches!(long, Err(ModelError::ContextFull { .. })), "{long:?}");
        });
        assert_eq!(disturbed, alone, "{kv:?}");
    }
}

#[test]
fn a_side_answer_is_the_one_that_the_conversation_would_have_got() {
    let history = [Message::new(Role::System, "s"), user("one")];
    let beside = ask(&mut model(KvType::F16), &history, true, false).unwrap();
    let mut model = model(KvType::F16);
    let cancel = AtomicBool::new(false);
    let sampling = Sampling { seed: 7, temperature: None, max_tokens: 24 };
    let request = Request {
        messages: &history,
        tools: &[],
        sampling,
        must_call: None,
        words_only: true,
        values: None,
        aside: false,
        cancel: &cancel,
    };
    assert_eq!(beside.message, model.generate(request, &mut |_| {}).unwrap().message);
}
