//! A model that speaks by the chat template of its own file: a tiny model with one written into it, and the real model's
//! own template beside our format for it.

use crate::oracle::manifest;
use crate::real_model::model_path;
use qwright::chat::{ChatFormat, Message, Role, SpecialTokens, Template, ToolCall, ToolSpec, format};
use qwright::engine::EngineOptions;
use qwright::engine::gguf::Gguf;
use qwright::engine::kv::KvType;
use qwright::model::local::{LocalModel, LocalOptions};
use qwright::model::{Generated, Model, ModelError, Request, Sampling};
use serde_json::{Map, json};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// The tiny model with a chat template. Filled up with a comment to where all that follows keeps its alignment.
fn with_template(folder: &Path, source: &str) -> std::path::PathBuf {
    const KEY: &str = "tokenizer.chat_template";
    let bytes = std::fs::read(manifest().join("fixtures/oracle/tiny-qwen2-f32.gguf")).unwrap();
    let (head, rest) = bytes.split_at(24);
    let count = u64::from_le_bytes(head[16..].try_into().unwrap());
    let fixed = 8 + KEY.len() + 4 + 8;
    let fill = (32 - (fixed + source.len() + 4) % 32) % 32;
    let source = format!("{{#{}#}}{source}", " ".repeat(fill));
    assert_eq!((fixed + source.len()) % 32, 0);
    let mut out = [&head[..16], &(count + 1).to_le_bytes()].concat();
    out.extend((KEY.len() as u64).to_le_bytes());
    out.extend(KEY.as_bytes());
    out.extend(8u32.to_le_bytes());
    out.extend((source.len() as u64).to_le_bytes());
    out.extend(source.as_bytes());
    out.extend(rest);
    let path = folder.join("tiny.gguf");
    std::fs::write(&path, out).unwrap();
    path
}

fn load(path: &Path) -> Result<LocalModel, ModelError> {
    let options = LocalOptions {
        engine: EngineOptions { threads: 1, ..Default::default() },
        kv: KvType::F16,
        ..LocalOptions::default()
    };
    LocalModel::load(path, &options, &AtomicBool::new(false), &mut |_, _| {})
}

fn ask(model: &mut LocalModel, messages: &[Message], aside: bool) -> Generated {
    let request = Request {
        messages,
        tools: &[],
        sampling: Sampling { seed: 3, temperature: None, max_tokens: 8 },
        must_call: None,
        words_only: false,
        values: None,
        aside,
        frame: None,
        cancel: &AtomicBool::new(false),
    };
    model.generate(request, &mut |_| {}).unwrap()
}

const PLAIN: &str = "{% for m in messages %}### {{ m.role }}\n{{ m.content }}{{ eos_token if m.role == 'assistant' }}\n\
    {% endfor %}{% if add_generation_prompt %}### assistant\n{% endif %}";

#[test]
fn a_model_speaks_by_its_own_template_and_keeps_what_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = load(&with_template(folder.path(), PLAIN)).unwrap();
    assert_eq!(model.info().format, ChatFormat::Hermes);
    let mut messages = vec![Message::new(Role::System, "be brief"), Message::new(Role::User, "one")];
    assert_eq!(model.prompt(&messages, &[]).unwrap(), "### system\nbe brief\n### user\none\n### assistant\n");
    let first = ask(&mut model, &messages, false);
    assert_eq!((first.usage.cached, first.usage.repeated), (0, 0));
    messages.push(first.message);
    messages.push(Message::new(Role::User, "two"));
    let second = ask(&mut model, &messages, false);
    assert!(second.usage.cached >= first.usage.prompt, "{:?} {:?}", first.usage, second.usage);
    assert_eq!(second.usage.prompt, model.count_history(&messages, &[]));
    // A question beside it leaves no trace.
    let mut beside = messages.clone();
    beside.push(second.message.clone());
    beside.push(Message::new(Role::User, "and what else"));
    ask(&mut model, &beside, true);
    let again = ask(&mut model, &messages, false);
    assert_eq!(again.message.content, second.message.content);
    let fresh = ask(&mut load(&with_template(folder.path(), PLAIN)).unwrap(), &messages, false);
    assert_eq!(fresh.message.content, second.message.content, "as without what was kept");
}

#[test]
fn a_template_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (source, why) in [
        ("{% for m in messages %}", "chat template cannot be used"),
        ("{{ raise_exception('only for poems') }}", "only for poems (line 1 of the template)"),
        (
            "{% for a in range(90000) %}{% for b in range(90000) %}x{% endfor %}{% endfor %}",
            "computes too much",
        ),
    ] {
        match load(&with_template(folder.path(), source)) {
            Err(ModelError::Unavailable { message, .. }) => assert!(message.contains(why), "{message}"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{source} was taken"),
        }
    }
}

#[test]
fn the_real_models_template_prints_what_our_format_prints() {
    let gguf = Gguf::open(&model_path()).unwrap();
    let source = gguf.str("tokenizer.chat_template").unwrap();
    let added = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<tool_call>", "</tool_call>"];
    let added = added.map(str::to_string).to_vec();
    let template =
        Template::new(source, SpecialTokens { end: "<|im_end|>".into(), added, ..Default::default() })
            .unwrap();
    assert_eq!(template.format(), ChatFormat::Hermes);
    let tool = |name: &str| ToolSpec {
        name: name.into(),
        description: Some("Reads a \"file\" é.".into()),
        parameters: json!({"type": "object", "properties": {"path": {"type": "string"}, "n": {"type": ["integer", "null"]}},
            "required": ["path"]}),
        extra: Map::new(),
    };
    let call = |name: &str, value: &str| ToolCall {
        name: name.into(),
        arguments: Map::from_iter([("path".to_string(), value.into()), ("n".to_string(), json!(2))]),
    };
    let say = |role, text: &str| Message::new(role, text);
    let calling = |content: &str, calls: &[ToolCall]| Message {
        tool_calls: calls.to_vec(),
        ..say(Role::Assistant, content)
    };
    let conversations = [
        vec![say(Role::User, "hi")],
        vec![
            say(Role::System, "Be brief.\n"),
            say(Role::User, "a <|im_end|> b\n\n"),
            say(Role::Assistant, " c "),
        ],
        vec![
            say(Role::System, "s"),
            say(Role::User, "u"),
            calling("I look.", &[call("read", "<tool_call>\n\"x\""), call("list", "é")]),
            say(Role::Tool, "one\n"),
            say(Role::Tool, "two"),
            calling("", &[call("read", "b")]),
            say(Role::Tool, "<|im_start|>user"),
            say(Role::Assistant, "done"),
            say(Role::User, "again"),
        ],
    ];
    for messages in &conversations {
        for tools in [vec![], vec![tool("read"), tool("list")]] {
            for answer in [false, true] {
                let theirs = template.render(messages, &tools, answer).unwrap();
                let ours = ChatFormat::HermesQwen25.render(messages, &tools, answer);
                assert_eq!(format::text(&theirs), format::text(&ours));
            }
        }
    }
}
