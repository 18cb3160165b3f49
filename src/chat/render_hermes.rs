//! Blocks of the Hermes formats: tools and calls as JSON lines between tags. One dialect per model family: they
//! differ in the default system prompt, the braces of the example call, and what becomes of thinking.

use super::format::{END_OF_TURN, Out, closes_results, opens_results};
use super::pytext::json_dumps;
use super::{ChatFormat, Message, Role, ToolCall};
use serde_json::Value;

const TOOLS_OPEN: &str = "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are \
provided with function signatures within <tools></tools> XML tags:\n<tools>";

const TOOLS_CLOSE: &str = "\n</tools>\n\nFor each function call, return a json object with function name and arguments \
within <tool_call></tool_call> XML tags:\n<tool_call>\n";

const EXAMPLE: &str = "{\"name\": <function-name>, \"arguments\": <args-json-object>}";

fn default_system(format: ChatFormat) -> Option<&'static str> {
    match format {
        ChatFormat::HermesQwen25 | ChatFormat::HermesQwen25Plain => {
            Some("You are Qwen, created by Alibaba Cloud. You are a helpful assistant.")
        }
        ChatFormat::HermesQwen2 => Some("You are a helpful assistant."),
        ChatFormat::Hermes | ChatFormat::Thinking | ChatFormat::Qwen3Coder => None,
    }
}

pub(super) fn head(format: ChatFormat, out: &mut Out, system: Option<&str>, tools: &[Value]) {
    let default = if system.is_none() { default_system(format) } else { None };
    if system.is_none() && default.is_none() && tools.is_empty() {
        return;
    }
    out.template("<|im_start|>system\n");
    out.content(system.unwrap_or_default());
    out.template(default.unwrap_or_default());
    if !tools.is_empty() {
        if system.is_some() || default.is_some() {
            out.template("\n\n");
        }
        offer(format, out, tools);
    }
    out.template(END_OF_TURN);
}

/// What tools there are, and how they are called.
pub(super) fn offer(format: ChatFormat, out: &mut Out, tools: &[Value]) {
    out.template(TOOLS_OPEN);
    for tool in tools {
        out.template("\n");
        out.content(&json_dumps(tool));
    }
    out.template(TOOLS_CLOSE);
    if format == ChatFormat::HermesQwen25 {
        // The Coder files double the braces, as if for a formatting call that never came.
        out.template(&format!("{{{EXAMPLE}}}"));
    } else {
        out.template(EXAMPLE);
    }
    out.template("\n</tool_call>");
}

pub(super) fn message(format: ChatFormat, out: &mut Out, messages: &[Message], index: usize) {
    let message = &messages[index];
    match message.role {
        Role::System => out.block("system", &message.content),
        Role::User => out.block("user", &message.content),
        Role::Assistant => assistant(format, out, messages, index),
        Role::Tool => {
            if opens_results(messages, index) {
                out.template("<|im_start|>user");
            }
            out.template("\n<tool_response>\n");
            out.content(&message.content);
            out.template("\n</tool_response>");
            if closes_results(messages, index) {
                out.template(END_OF_TURN);
            }
        }
    }
}

fn assistant(format: ChatFormat, out: &mut Out, messages: &[Message], index: usize) {
    let message = &messages[index];
    let mut content = message.content.as_str();
    out.template("<|im_start|>assistant\n");
    if format == ChatFormat::Thinking {
        let (thoughts, answer) = split_thinking(message);
        content = answer;
        let this_turn = index > last_request(messages);
        if this_turn && (index + 1 == messages.len() || !thoughts.is_empty()) {
            out.template("<think>\n");
            out.content(thoughts.trim_matches('\n'));
            out.template("\n</think>\n\n");
            out.content(answer.trim_start_matches('\n'));
        } else {
            out.content(answer);
        }
    } else {
        out.content(content);
    }
    for (i, tool_call) in message.tool_calls.iter().enumerate() {
        if i > 0 || !content.is_empty() {
            out.template("\n");
        }
        call(out, tool_call);
    }
    out.template(END_OF_TURN);
}

fn call(out: &mut Out, call: &ToolCall) {
    out.template("<tool_call>\n{\"name\": \"");
    out.content(&call.name);
    out.template("\", \"arguments\": ");
    out.content(&json_dumps(&Value::Object(call.arguments.clone())));
    out.template("}\n</tool_call>");
}

/// Thoughts and answer of a message; one that came from elsewhere may hold both in its content.
fn split_thinking(message: &Message) -> (&str, &str) {
    const CLOSE: &str = "</think>";
    if let Some(reasoning) = &message.reasoning {
        return (reasoning, &message.content);
    }
    match (message.content.split_once(CLOSE), message.content.rsplit_once(CLOSE)) {
        (Some((thoughts, _)), Some((_, answer))) => {
            let thoughts = thoughts.trim_end_matches('\n');
            let thoughts = thoughts.rsplit_once("<think>").map_or(thoughts, |(_, rest)| rest);
            (thoughts.trim_start_matches('\n'), answer.trim_start_matches('\n'))
        }
        _ => ("", &message.content),
    }
}

/// The user's last request. Thoughts after it belong to the turn that runs. Results that came as a user message
/// (logs of other clients) are no request; with no request at all nothing is of this turn.
fn last_request(messages: &[Message]) -> usize {
    let is_request = |m: &Message| {
        m.role == Role::User
            && !(m.content.starts_with("<tool_response>") && m.content.ends_with("</tool_response>"))
    };
    messages.iter().rposition(is_request).unwrap_or(messages.len().saturating_sub(1))
}
