//! Blocks of the Qwen3-Coder format: tools as XML, calls as `<function=NAME>` with `<parameter=KEY>` lines.
//! Follows the template published for Qwen3-Coder since 2025-08-21, byte for byte.

use super::format::{END_OF_TURN, Out, closes_results, opens_results};
use super::pytext::{json_dumps, py_str, py_trim};
use super::{Message, Role, ToolCall};
use serde_json::{Map, Value};

const DEFAULT_SYSTEM: &str =
    "You are Qwen, a helpful AI assistant that can interact with a computer to solve tasks.";

const TOOLS_OPEN: &str = "\n\n# Tools\n\nYou have access to the following functions:\n\n<tools>";

const TOOLS_CLOSE: &str = "\n</tools>\n\nIf you choose to call a function ONLY reply in the following format with \
NO suffix:\n\n<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n\
<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n\
</parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n- Function calls MUST follow the specified format: \
an inner <function=...></function> block must be nested within <tool_call></tool_call> XML tags\n- Required parameters \
MUST be specified\n- You may provide optional reasoning for your function call in natural language BEFORE the function \
call, but NOT after\n- If there is no function call available, answer the question like normal with your current \
knowledge and do not tell the user about function calls\n</IMPORTANT>";

/// The system block: there is one if there is a system message or a tool.
pub(super) fn head(out: &mut Out, system: Option<&str>, tools: &[Value]) {
    if system.is_none() && tools.is_empty() {
        return;
    }
    out.template("<|im_start|>system\n");
    match system {
        Some(system) => out.content(system),
        None => out.template(DEFAULT_SYSTEM),
    }
    if !tools.is_empty() {
        out.template(TOOLS_OPEN);
        tools.iter().for_each(|tool| function(out, tool.get("function").unwrap_or(tool)));
        out.template(TOOLS_CLOSE);
    }
    out.template(END_OF_TURN);
}

/// One tool. The names of the elements are the template's, all they hold is the tool's own text.
fn function(out: &mut Out, tool: &Value) {
    out.template("\n<function>");
    element(out, "name", &tool.get("name").map(py_str).unwrap_or_default());
    if let Some(description) = tool.get("description") {
        element(out, "description", py_trim(&py_str(description)));
    }
    out.template("\n<parameters>");
    let parameters = tool.get("parameters").and_then(Value::as_object);
    let properties = parameters.and_then(|p| p.get("properties")).and_then(Value::as_object);
    for (name, schema) in properties.into_iter().flatten() {
        out.template("\n<parameter>");
        element(out, "name", name);
        if let Some(kind) = schema.get("type") {
            element(out, "type", &py_str(kind));
        }
        if let Some(description) = schema.get("description") {
            element(out, "description", py_trim(&py_str(description)));
        }
        extra_keys(out, schema.as_object(), &["name", "type", "description"]);
        out.template("\n</parameter>");
    }
    extra_keys(out, parameters, &["type", "properties"]);
    out.template("\n</parameters>");
    extra_keys(out, tool.as_object(), &["type", "name", "description", "parameters"]);
    out.template("\n</function>");
}

fn extra_keys(out: &mut Out, map: Option<&Map<String, Value>>, handled: &[&str]) {
    for (key, value) in map.into_iter().flatten().filter(|(key, _)| !handled.contains(&key.as_str())) {
        element(out, key, &value_text(value));
    }
}

fn element(out: &mut Out, name: &str, text: &str) {
    out.template("\n");
    out.content(&format!("<{name}>{text}</{name}>"));
}

/// A value inside an element or a parameter: containers as JSON, the rest as Python prints it.
fn value_text(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => json_dumps(value),
        other => py_str(other),
    }
}

pub(super) fn message(out: &mut Out, messages: &[Message], index: usize) {
    let message = &messages[index];
    match message.role {
        Role::System => out.block("system", &message.content),
        Role::User => out.block("user", &message.content),
        Role::Assistant if message.tool_calls.is_empty() => out.block("assistant", &message.content),
        Role::Assistant => {
            out.template("<|im_start|>assistant");
            let content = py_trim(&message.content);
            if !content.is_empty() {
                out.template("\n");
                out.content(content);
                out.template("\n");
            }
            message.tool_calls.iter().for_each(|c| call(out, c));
            out.template(END_OF_TURN);
        }
        Role::Tool => {
            if opens_results(messages, index) {
                out.template("<|im_start|>user\n");
            }
            out.template("<tool_response>\n");
            out.content(&message.content);
            out.template("\n</tool_response>\n");
            if closes_results(messages, index) {
                out.template(END_OF_TURN);
            }
        }
    }
}

fn call(out: &mut Out, call: &ToolCall) {
    out.template("\n<tool_call>\n<function=");
    out.content(&call.name);
    out.template(">\n");
    for (key, value) in &call.arguments {
        out.template("<parameter=");
        out.content(key);
        out.template(">\n");
        out.content(&value_text(value));
        out.template("\n</parameter>\n");
    }
    out.template("</function>\n</tool_call>");
}
