//! `inspect prompt` and `inspect calls`: one JSON line in, one out. Conversations come in OpenAI's shape, in all the
//! spellings that clients use; what cannot be understood is an error that names the place. Rendering and reading are
//! `chat`'s; reading stdin and choosing the format are the caller's.

use crate::chat::{ChatFormat, Message, Role, ToolCall, ToolCallParser, ToolSpec, format};
use serde_json::{Map, Value, json};

/// `{"messages", "tools"?, "add_generation_prompt"?}` -> `{"text"}`.
pub fn prompt_line(format: ChatFormat, line: &Value) -> Result<Value, String> {
    let messages = messages(line.get("messages"))?;
    let tools = tools(line.get("tools"))?;
    let add_generation_prompt = flag(line, "add_generation_prompt")?;
    let segments = format.render_tools_as_given(&messages, &tools, add_generation_prompt);
    Ok(json!({ "text": format::text(&segments) }))
}

/// `{"tools"?, "output", "chunks"?, "prompt_opened_think"?}` -> the reading. `chunks` says how to split the output: its
/// pieces as text, their sizes in bytes, or one size for all; the answer does not depend on it.
pub fn calls_line(format: ChatFormat, line: &Value) -> Result<Value, String> {
    let tools: Vec<ToolSpec> =
        tools(line.get("tools"))?.into_iter().map(tool_spec).collect::<Result<_, String>>()?;
    let chunks = match line.get("chunks") {
        None | Some(Value::Null) => None,
        Some(chunks) => Some(chunks),
    };
    let output = match (line.get("output"), chunks) {
        (Some(Value::String(output)), _) => output.clone(),
        (None, Some(Value::Array(pieces))) => pieces.iter().filter_map(Value::as_str).collect(),
        _ => return Err("`output` must be a string".into()),
    };
    let mut parser = ToolCallParser::new(format, &tools, flag(line, "prompt_opened_think")?);
    for piece in pieces(output.as_bytes(), chunks)? {
        parser.push_bytes(piece);
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

/// The output cut as `chunks` says; what the chunks leave over is the last piece.
fn pieces<'a>(output: &'a [u8], chunks: Option<&Value>) -> Result<Vec<&'a [u8]>, String> {
    let wrong = || "`chunks` must be a size, a list of sizes or a list of strings".to_string();
    let sizes: Vec<usize> = match chunks {
        None => Vec::new(),
        Some(Value::Number(size)) => {
            let size = size.as_u64().filter(|size| *size > 0).ok_or_else(wrong)? as usize;
            return Ok(output.chunks(size).collect());
        }
        Some(Value::Array(items)) => {
            let size = |item: &Value| match item {
                Value::String(text) => Some(text.len()),
                other => other.as_u64().map(|size| size as usize),
            };
            items.iter().map(|item| size(item).ok_or_else(wrong)).collect::<Result<_, String>>()?
        }
        Some(_) => return Err(wrong()),
    };
    let (mut rest, mut pieces) = (output, Vec::new());
    for size in sizes {
        let (piece, tail) = rest.split_at(size.min(rest.len()));
        pieces.push(piece);
        rest = tail;
    }
    pieces.push(rest);
    Ok(pieces)
}

fn flag(line: &Value, name: &str) -> Result<bool, String> {
    match line.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(format!("`{name}` must be true or false")),
    }
}

/// Tools as `{"type": "function", "function": {...}}`; a bare function is wrapped.
fn tools(tools: Option<&Value>) -> Result<Vec<Value>, String> {
    let tools = match tools {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(tools)) => tools,
        Some(_) => return Err("`tools` must be a list".into()),
    };
    let wrap = |(i, tool): (usize, &Value)| {
        let function = tool.get("function").unwrap_or(tool);
        if !function.get("name").is_some_and(Value::is_string) {
            return Err(format!("tools[{i}] has no name"));
        }
        Ok(if tool.get("function").is_some() {
            tool.clone()
        } else {
            json!({"type": "function", "function": tool})
        })
    };
    tools.iter().enumerate().map(wrap).collect()
}

fn tool_spec(tool: Value) -> Result<ToolSpec, String> {
    serde_json::from_value(tool.get("function").cloned().unwrap_or_default())
        .map_err(|error| format!("a tool cannot be read: {error}"))
}

fn messages(messages: Option<&Value>) -> Result<Vec<Message>, String> {
    let Some(Value::Array(messages)) = messages else { return Err("`messages` must be a list".into()) };
    let at = |i: usize| move |error: String| format!("messages[{i}]: {error}");
    messages.iter().enumerate().map(|(i, m)| message(m).map_err(at(i))).collect()
}

fn message(message: &Value) -> Result<Message, String> {
    let role = match message.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool" | "function") => Role::Tool,
        Some(other) => return Err(format!("unknown role `{other}`")),
        None => return Err("`role` must be a string".into()),
    };
    let reasoning = ["reasoning_content", "reasoning"].iter().find_map(|key| message.get(key)?.as_str());
    let tool_calls = match message.get("tool_calls") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(calls)) => calls.iter().map(tool_call).collect::<Result<_, String>>()?,
        Some(_) => return Err("`tool_calls` must be a list".into()),
    };
    Ok(Message {
        role,
        content: content(message.get("content"))?,
        reasoning: reasoning.map(Into::into),
        tool_calls,
        written: None,
    })
}

/// Text, nothing, or a list of text parts (joined by line breaks).
fn content(content: Option<&Value>) -> Result<String, String> {
    match content {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let text = |part: &Value| match part {
                Value::String(text) => Ok(text.clone()),
                part => part.get("text").and_then(Value::as_str).map(str::to_string).ok_or_else(|| {
                    let kind = part.get("type").and_then(Value::as_str).unwrap_or("unknown");
                    format!("a part of type `{kind}` in `content`; only text can be rendered")
                }),
            };
            Ok(parts.iter().map(text).collect::<Result<Vec<String>, String>>()?.join("\n"))
        }
        Some(_) => Err("`content` must be text or a list of text parts".into()),
    }
}

/// `arguments` as an object, or as its JSON text.
fn tool_call(call: &Value) -> Result<ToolCall, String> {
    let function = call.get("function").unwrap_or(call);
    let name = function.get("name").and_then(Value::as_str).ok_or("a tool call has no name")?;
    let wrong = || format!("the arguments of the call to `{name}` are not a JSON object");
    let arguments = match function.get("arguments") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(arguments)) => arguments.clone(),
        Some(Value::String(text)) if text.trim().is_empty() => Map::new(),
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|_| wrong())?,
        Some(_) => return Err(wrong()),
    };
    Ok(ToolCall { name: name.into(), arguments })
}
