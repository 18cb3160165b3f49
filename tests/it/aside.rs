//! A question beside the conversation leaves no trace: the local model on a tiny file, with and without questions.

use crate::oracle::manifest;
use qwright::chat::{ChatFormat, Message, Role};
use qwright::engine::EngineOptions;
use qwright::engine::backend::BackendKind;
use qwright::engine::kv::KvType;
use qwright::engine::sampler::SamplingParams;
use qwright::model::local::{LocalModel, LocalOptions};
use qwright::model::{Frame, Generated, Model, ModelError, ModelEvent, Request, Sampling, StopReason};
use std::sync::atomic::{AtomicBool, Ordering};

fn model(kv: KvType) -> LocalModel {
    model_with(kv, None)
}

fn model_with(kv: KvType, snapshots: Option<std::path::PathBuf>) -> LocalModel {
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
        snapshots: snapshots.map(|folder| (folder, 1 << 20)),
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
        frame: None,
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
        frame: None,
        cancel: &cancel,
    };
    assert_eq!(beside.message, model.generate(request, &mut |_| {}).unwrap().message);
}

#[test]
fn a_framed_answer_begins_and_ends_as_it_is_told() {
    let history = [Message::new(Role::System, "s"), user("one")];
    let mut model = model(KvType::Q8_0);
    let mut answer = |ends: &str| {
        let request = Request {
            messages: &history,
            tools: &[],
            sampling: Sampling { seed: 7, temperature: None, max_tokens: 64 },
            must_call: None,
            words_only: true,
            values: None,
            aside: true,
            frame: Some(Frame { begins: "```rust\n", ends }),
            cancel: &AtomicBool::new(false),
        };
        model.generate(request, &mut |_| {}).unwrap()
    };
    let whole = answer("no text that comes");
    let written = whole.message.content.strip_prefix("```rust\n").expect("it begins so").to_string();
    assert_eq!(whole.stop, StopReason::Length);
    // It ends at the first place where it comes to a piece of what it says anyway.
    let at = written.char_indices().nth(12).unwrap().0;
    let piece: String = written[at..].chars().take(3).collect();
    let cut = answer(&piece);
    let shorter = cut.message.content.strip_prefix("```rust\n").unwrap();
    assert_eq!(cut.stop, StopReason::End);
    assert!(written.starts_with(shorter) && shorter.len() < written.len(), "{shorter:?} of {written:?}");
    assert!(shorter.contains(&piece) && cut.usage.completion < whole.usage.completion, "{shorter:?}");
}

/// Three requests, each typed bit by bit, and once as another text than the one that is sent.
#[test]
fn what_is_prefilled_while_the_user_types_changes_no_answer() {
    let texts = ["first of all the one thing", "and then the other thing", "three"];
    let converse = |typed: bool| {
        let mut model = model(KvType::Q8_0);
        let mut history = vec![Message::new(Role::System, "s")];
        let (mut answers, mut ahead, mut prefilled) = (Vec::new(), 0, 0);
        for text in texts {
            let mut look = |text: &str, cancelled: bool| {
                let messages: Vec<_> = history.iter().cloned().chain([user(text)]).collect();
                model.look_ahead(&messages, &[], &AtomicBool::new(cancelled)).unwrap()
            };
            if typed {
                let some = look(&text[..text.len() / 2], false);
                look("something else", false);
                look(&text[..text.len() / 3], false);
                assert_eq!(look(text, true), 0, "cancelled");
                ahead += some;
                // All but what may change is there; asked for again only the token that is run for its logits is.
                assert!(look(text, false) > 1 || text.len() < 6, "{text}");
                assert_eq!(look(text, false), 1, "{text}");
            }
            history.push(user(text));
            let answer = ask(&mut model, &history, false, false).unwrap();
            assert_eq!(answer.usage.repeated, 0);
            assert_eq!(answer.usage.prompt, answer.usage.cached + answer.usage.prefilled);
            prefilled += answer.usage.prefilled;
            history.push(answer.message.clone());
            answers.push(answer.message);
        }
        (answers, ahead, prefilled)
    };
    let (plain, _, all) = converse(false);
    let (typed, ahead, rest) = converse(true);
    assert_eq!(typed, plain);
    assert!(ahead > 0 && rest < all, "{ahead} ahead, {rest} of {all} left");
    let mut model = model(KvType::Q8_0);
    let too_long = [user(&"long ".repeat(CONTEXT))];
    assert_eq!(model.look_ahead(&too_long, &[], &AtomicBool::new(false)).unwrap(), 0);
}

#[test]
fn a_folder_that_can_hold_no_snapshots_is_said_and_changes_nothing() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let history = [Message::new(Role::System, "s"), user("one")];
    let answer = |model: &mut LocalModel| {
        let mut notes = Vec::new();
        let cancel = AtomicBool::new(false);
        let sampling = Sampling { seed: 7, temperature: None, max_tokens: 8 };
        let request = Request {
            messages: &history,
            tools: &[],
            sampling,
            must_call: None,
            words_only: false,
            values: None,
            aside: false,
            frame: None,
            cancel: &cancel,
        };
        let answer = model.generate(request, &mut |event| {
            if let ModelEvent::Note(note) = event {
                notes.push(note);
            }
        });
        (answer.unwrap().message.content, notes)
    };
    let (with, notes) = answer(&mut model_with(KvType::Q8_0, Some(file.path().join("kv"))));
    let (without, none) = answer(&mut model(KvType::Q8_0));
    assert_eq!((with, none), (without, vec![]));
    assert!(notes.len() == 1 && notes[0].contains("nothing is kept for later sessions"), "{notes:?}");
}
