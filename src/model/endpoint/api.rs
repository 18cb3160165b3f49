//! A request as the API wants it: messages with the calls they made and the results by the calls' ids, tools as JSON
//! schemas. The ids are counted from the first call of the history, so the same history is the same text every time and
//! the server finds it in its cache.

use crate::chat::{Message, Role, ToolSpec};
use crate::model::Request;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;

/// The body of POST /chat/completions.
pub(super) fn body(model: &str, request: &Request<'_>) -> Value {
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
        body["tools"] = request.tools.iter().map(ToolSpec::to_openai).collect();
        if request.words_only {
            body["tool_choice"] = "none".into();
        }
    }
    if let Some(temperature) = request.sampling.temperature {
        // As it was written: 0.7 and not 0.699999988.
        body["temperature"] = temperature.to_string().parse::<f64>().unwrap_or_default().into();
    }
    body
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
