//! The lines of `inspect prompt` and `inspect calls`: OpenAI-shaped messages to the text a model sees, and a model's
//! text to the calls that were read from it.

use crate::chat::{ChatFormat, Message, Role, ToolCall, ToolCallParser, ToolSpec, format};
use serde_json::{Value, json};

/// `{"messages", "tools"?, "add_generation_prompt"?}` -> `{"text"}`
pub fn prompt_line(format: ChatFormat, request: &Value) -> Result<Value, String> {
    let messages = messages(&request["messages"])?;
    let tools = tools(&request["tools"])?;
    let generate = request.get("add_generation_prompt").and_then(Value::as_bool).unwrap_or(false);
    Ok(json!({ "text": format::text(&format.render(&messages, &tools, generate)) }))
}

/// `{"tools", "output", "chunks"?, "prompt_opened_think"?}` -> the reading. `chunks`: lengths in bytes (moved to the
/// next character border) in which the output is fed, or a list of texts instead of `output`.
pub fn calls_line(format: ChatFormat, request: &Value) -> Result<Value, String> {
    let tools = tools(&request["tools"])?;
    let opened = request.get("prompt_opened_think").and_then(Value::as_bool);
    let mut parser = ToolCallParser::new(format, &tools, opened.unwrap_or(format == ChatFormat::Thinking));
    let output = request.get("output").and_then(Value::as_str).unwrap_or_default();
    match request.get("chunks") {
        None | Some(Value::Null) => drop(parser.push(output)),
        Some(Value::Array(chunks)) if chunks.iter().any(Value::is_string) => {
            for chunk in chunks {
                parser.push(chunk.as_str().ok_or("\"chunks\" must be all texts or all lengths")?);
            }
        }
        Some(Value::Array(chunks)) => {
            let mut rest = output;
            for length in chunks {
                let mut end = (length.as_u64().ok_or("a chunk must be a length or a text")? as usize).min(rest.len());
                while !rest.is_char_boundary(end) {
                    end += 1;
                }
                parser.push(&rest[..end]);
                rest = &rest[end..];
            }
            parser.push(rest);
        }
        Some(Value::Number(length)) => {
            let length = length.as_u64().filter(|&n| n > 0).ok_or("\"chunks\" must be positive")? as usize;
            let mut rest = output;
            while !rest.is_empty() {
                let mut end = length.min(rest.len());
                while !rest.is_char_boundary(end) {
                    end += 1;
                }
                parser.push(&rest[..end]);
                rest = &rest[end..];
            }
        }
        Some(_) => return Err("\"chunks\" must be a list or a length".into()),
    }
    let (_, parsed) = parser.finish();
    Ok(json!({
        "content": parsed.content,
        "calls": parsed.calls,
        "reasoning": parsed.reasoning,
        "truncated": parsed.truncated,
        "problems": parsed.problems,
    }))
}

/// Tools in OpenAI's shape (`{"type": "function", "function": {..}}`) or bare.
pub fn tools(value: &Value) -> Result<Vec<ToolSpec>, String> {
    let list = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        _ => return Err("\"tools\" must be a list".into()),
    };
    let spec = |tool: &Value| {
        serde_json::from_value(tool.get("function").unwrap_or(tool).clone()).map_err(|error| format!("a tool: {error}"))
    };
    list.iter().map(spec).collect()
}

fn messages(value: &Value) -> Result<Vec<Message>, String> {
    let list = value.as_array().ok_or("\"messages\" must be a list")?;
    list.iter().map(message).collect()
}

fn message(value: &Value) -> Result<Message, String> {
    let role = match value["role"].as_str() {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        other => return Err(format!("no role is called {}", other.unwrap_or("nothing"))),
    };
    let content = match &value["content"] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => return Err("\"content\" must be text, null or a list of text parts".into()),
    };
    let reasoning = value["reasoning_content"].as_str().or(value["reasoning"].as_str()).map(String::from);
    let mut tool_calls = Vec::new();
    for call in value["tool_calls"].as_array().into_iter().flatten() {
        let call = call.get("function").unwrap_or(call);
        let name = call["name"].as_str().ok_or("a tool call has no name")?.to_string();
        let arguments = match &call["arguments"] {
            Value::Object(map) => map.clone(),
            Value::String(text) => match serde_json::from_str(text) {
                Ok(Value::Object(map)) => map,
                _ => return Err(format!("the arguments of the call to {name} are no JSON object")),
            },
            Value::Null => serde_json::Map::new(),
            _ => return Err(format!("the arguments of the call to {name} are no object")),
        };
        tool_calls.push(ToolCall { name, arguments });
    }
    Ok(Message { role, content, reasoning, tool_calls })
}
