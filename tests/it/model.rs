//! The scripted model: it reads its script strictly, writes through the real parser, and counts like a cache would.

use qwright::chat::{Message, Role};
use qwright::model::scripted::ScriptedModel;
use qwright::model::{Generated, Model, ModelError, ModelEvent, Request, Sampling, StopReason};
use std::sync::atomic::AtomicBool;

fn ask(
    model: &mut ScriptedModel,
    messages: &[Message],
    max_tokens: usize,
) -> (Result<Generated, ModelError>, String) {
    let specs = qwright::tools::Registry::standard().specs();
    let mut streamed = String::new();
    let result = model.generate(
        Request {
            messages,
            tools: &specs,
            must_call: None,
            words_only: false,
            values: None,
            aside: false,
            frame: None,
            sampling: Sampling { max_tokens, ..Sampling::default() },
            cancel: &AtomicBool::new(false),
        },
        &mut |event| {
            if let ModelEvent::Text(text) = event {
                streamed.push_str(&text);
            }
        },
    );
    (result, streamed)
}

#[test]
fn plays_lines_or_an_array_and_says_when_it_is_over() {
    for script in ["\"one\"\n{\"text\": \"two\"}\n", "[\"one\", {\"text\": \"two\"}]"] {
        let mut model = ScriptedModel::parse(script).unwrap();
        let mut history = vec![Message::new(Role::User, "Hi")];
        for expected in ["one", "two"] {
            let (answer, streamed) = ask(&mut model, &history, 100);
            let answer = answer.unwrap();
            assert_eq!((answer.message.content.as_str(), streamed.as_str()), (expected, expected));
            assert_eq!(answer.stop, StopReason::End);
            assert_eq!(answer.usage.prompt, answer.usage.cached + answer.usage.prefilled);
            history.push(answer.message);
            history.push(Message::new(Role::User, "more"));
        }
        let (over, _) = ask(&mut model, &history, 100);
        assert!(matches!(over, Err(ModelError::Unavailable { .. })));
    }
}

#[test]
fn reads_calls_and_cuts_like_a_real_model() {
    let call = crate::agent::call("read_file", &[("file_path", "a")]);
    let script =
        serde_json::json!([{"model": {"format": "qwen3-coder", "billions": 1.5}}, call, call]).to_string();
    let mut model = ScriptedModel::parse(&script).unwrap();
    assert_eq!(model.info().billions, 1.5);
    let history = [Message::new(Role::User, "Hi")];
    let whole = ask(&mut model, &history, 1000).0.unwrap();
    assert_eq!(whole.message.tool_calls[0].arguments["file_path"], "a");
    let cut = ask(&mut model, &history, 10).0.unwrap();
    assert!(cut.truncated && cut.stop == StopReason::Length && cut.message.tool_calls.is_empty());
}

#[test]
fn a_history_that_does_not_grow_is_counted() {
    let mut model = ScriptedModel::parse("\"one\" \"two\" \"three\"").unwrap();
    let mut history = vec![Message::new(Role::System, "s"), Message::new(Role::User, "Hi")];
    let first = ask(&mut model, &history, 100).0.unwrap();
    assert_eq!((first.usage.cached, first.usage.repeated), (0, 0));
    history.push(first.message);
    history.push(Message::new(Role::User, "more"));
    let second = ask(&mut model, &history, 100).0.unwrap();
    assert!(second.usage.cached > 0 && second.usage.repeated == 0);
    history[1].content = "Hello".into();
    assert!(ask(&mut model, &history, 100).0.unwrap().usage.repeated > 0);
}

#[test]
fn a_wrong_script_is_refused() {
    for script in ["[1]", "{\"txt\": \"typo\"}", "[\"open", "{\"model\": {\"format\": \"gpt\"}}"] {
        assert!(ScriptedModel::parse(script).is_err(), "{script}");
    }
}
