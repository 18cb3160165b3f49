//! A request as the API wants it: messages with the calls they made and the results by the calls' ids, tools as JSON
//! schemas. The ids are counted from the first call of the history, so the same history is the same text every time and
//! the server finds it in its cache.
//!
//! Servers that sample under a grammar are asked to: a call that must be made is named in `tool_choice`, and it is then
//! written to its schema (vLLM and SGLang take the tool's name, llama-server only that there must be a call, and holds any
//! call to its schema unasked); `strict` asks vLLM and SGLang for the same where the model is free to call. These three also
//! go on with the first words of an answer where they are given.

use super::served::Server;
use crate::chat::{Message, Role, ToolSpec};
use crate::model::{Frame, Request};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;

/// The body of POST /chat/completions.
pub(super) fn body(model: &str, server: Server, request: &Request<'_>) -> Value {
    let mut body = json!({
        "model": model,
        "messages": messages(request.messages),
        "stream": true,
        "stream_options": {"include_usage": true},
        "max_tokens": request.sampling.max_tokens,
        // Some servers hold seeds in 32 bits.
        "seed": request.sampling.seed & 0x7fff_ffff,
    });
    if !request.tools.is_empty() {
        body["tools"] = request.tools.iter().map(|tool| self::tool(tool, server)).collect();
        if let Some(choice) = choice(server, request) {
            body["tool_choice"] = choice;
        }
    }
    if let Some(frame) = framed(server, request)
        && let Some(messages) = body["messages"].as_array_mut()
    {
        messages.push(json!({"role": "assistant", "content": frame.begins}));
        body["stop"] = json!([frame.ends]);
        if server != Server::Llama {
            body["continue_final_message"] = true.into();
            body["add_generation_prompt"] = false.into();
        }
    }
    if let Some(temperature) = request.sampling.temperature {
        // As it was written: 0.7 and not 0.699999988.
        body["temperature"] = temperature.to_string().parse::<f64>().unwrap_or_default().into();
    }
    body
}

/// How the answer begins and ends, where this server can be told.
pub(super) fn framed<'r>(server: Server, request: &Request<'r>) -> Option<Frame<'r>> {
    request.frame.filter(|_| server != Server::Other)
}

fn tool(spec: &ToolSpec, server: Server) -> Value {
    let mut tool = spec.to_openai();
    if matches!(server, Server::Vllm | Server::Sglang) {
        tool["function"]["strict"] = true.into();
    }
    tool
}

fn choice(server: Server, request: &Request<'_>) -> Option<Value> {
    match request.must_call {
        _ if request.words_only => Some("none".into()),
        Some(_) if server == Server::Llama => Some("required".into()),
        Some(call) => Some(json!({"type": "function", "function": {"name": call.tool}})),
        None => None,
    }
}

pub(super) fn messages(history: &[Message]) -> Vec<Value> {
    let mut calls = 0;
    let mut waiting: VecDeque<String> = VecDeque::new();
    let mut out = Vec::with_capacity(history.len());
    for message in history {
        let mut object = Map::new();
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            // A result of no call cannot be sent as one.
            Role::Tool if waiting.is_empty() => "user",
            Role::Tool => "tool",
        };
        object.insert("role".into(), role.into());
        object.insert("content".into(), message.content.clone().into());
        if message.role == Role::Tool
            && let Some(id) = waiting.pop_front()
        {
            object.insert("tool_call_id".into(), id.into());
        }
        if message.role == Role::Assistant {
            waiting.clear();
        }
        if !message.tool_calls.is_empty() {
            let made = message.tool_calls.iter().map(|call| {
                calls += 1;
                let id = format!("call{calls:05}");
                waiting.push_back(id.clone());
                let arguments = Value::Object(call.arguments.clone()).to_string();
                json!({"id": id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
            });
            object.insert("tool_calls".into(), made.collect());
        }
        out.push(Value::Object(object));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::ToolCall;
    use crate::model::{RequiredCall, Sampling};
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_call_that_must_be_made_is_named_as_each_server_takes_it() {
        let parameters = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
        let spec = ToolSpec { name: "count".into(), description: None, parameters, extra: Map::new() };
        let required = RequiredCall { tool: "count".into(), next: "n".into(), ..RequiredCall::default() };
        let named = json!({"type": "function", "function": {"name": "count"}});
        for (server, must, words_only, choice, strict) in [
            (Server::Vllm, true, false, named.clone(), json!(true)),
            (Server::Sglang, true, false, named.clone(), json!(true)),
            (Server::Other, true, false, named, Value::Null),
            (Server::Llama, true, false, json!("required"), Value::Null),
            (Server::Llama, false, true, json!("none"), Value::Null),
            (Server::Vllm, false, false, Value::Null, json!(true)),
        ] {
            let request = Request {
                messages: &[Message::new(Role::User, "How many?")],
                tools: std::slice::from_ref(&spec),
                sampling: Sampling::default(),
                must_call: must.then_some(&required),
                words_only,
                values: None,
                aside: false,
                frame: None,
                cancel: &AtomicBool::new(false),
            };
            let body = body("m", server, &request);
            assert_eq!(body["tool_choice"], choice, "{server:?} {must} {words_only}");
            assert_eq!(body["tools"][0]["function"]["strict"], strict, "{server:?}");
        }
    }

    #[test]
    fn the_first_words_of_an_answer_are_given_to_servers_that_go_on_with_them() {
        for (server, given, goes_on) in [
            (Server::Llama, true, Value::Null),
            (Server::Vllm, true, json!(true)),
            (Server::Other, false, Value::Null),
        ] {
            let request = Request {
                messages: &[Message::new(Role::User, "Write it.")],
                tools: &[],
                sampling: Sampling::default(),
                must_call: None,
                words_only: true,
                values: None,
                aside: true,
                frame: Some(Frame { begins: "```rust\n", ends: "\n```" }),
                cancel: &AtomicBool::new(false),
            };
            let body = body("m", server, &request);
            let last = body["messages"].as_array().unwrap().last().unwrap();
            assert_eq!(last["role"] == "assistant" && last["content"] == "```rust\n", given, "{server:?}");
            assert_eq!(body["stop"] == json!(["\n```"]), given);
            assert_eq!(body["continue_final_message"], goes_on);
        }
    }

    fn calling(names: &[&str]) -> Message {
        let call = |name: &&str| ToolCall { name: (*name).into(), arguments: Map::new() };
        Message { tool_calls: names.iter().map(call).collect(), ..Message::new(Role::Assistant, "") }
    }

    #[test]
    fn results_carry_the_ids_of_their_calls_and_a_longer_history_begins_the_same() {
        let history = [
            Message::new(Role::System, "s"),
            Message::new(Role::User, "u"),
            calling(&["a", "b"]),
            Message::new(Role::Tool, "of a"),
            Message::new(Role::Tool, "of b"),
            calling(&["c"]),
            Message::new(Role::Tool, "of c"),
            Message::new(Role::Tool, "of nothing"),
        ];
        let sent = messages(&history);
        assert_eq!(sent[2]["tool_calls"][1]["id"], "call00002");
        assert_eq!(sent[2]["tool_calls"][1]["function"], json!({"name": "b", "arguments": "{}"}));
        let ids: Vec<&Value> = sent[3..].iter().map(|message| &message["tool_call_id"]).collect();
        assert_eq!(
            ids,
            [&json!("call00001"), &json!("call00002"), &Value::Null, &json!("call00003"), &Value::Null]
        );
        assert_eq!(sent[7]["role"], "user");
        assert_eq!(messages(&history[..5]), sent[..5]);
    }
}
