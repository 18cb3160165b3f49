//! Chat formats: how a conversation becomes the text a Qwen model was trained on. Rendering yields segments: template
//! text, in which the tokenizer may see added tokens, and content, in which it may not. The rendering of a message
//! depends on nothing that comes after it, so a history grows by rendering what is new (`render_more`).
//! Specification: the published chat templates of Qwen3-Coder (2025-08-21), Qwen3-2507 and Qwen2.5(-Coder).

use super::{Message, Role, ToolSpec, json};
use serde_json::Value;

/// A piece of a rendered prompt. Only template text may become added tokens (`<|im_start|>`, `<tool_call>`, ...);
/// content that users, files or commands wrote is encoded as ordinary text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    Template(String),
    Content(String),
}

impl Segment {
    pub fn text(&self) -> &str {
        match self {
            Self::Template(text) | Self::Content(text) => text,
        }
    }
}

/// The text of a rendered prompt.
pub fn text(segments: &[Segment]) -> String {
    segments.iter().map(Segment::text).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatFormat {
    /// Qwen3-Coder: XML tool calls.
    Qwen3Coder,
    /// Qwen3 Instruct: Hermes JSON.
    Hermes,
    /// Qwen2.5: Hermes JSON with a default system prompt; the example call has doubled braces, as in the Coder files.
    HermesQwen25,
    /// Qwen3 Thinking-2507: Hermes JSON, the prompt opens `<think>`.
    Thinking,
}

const CODER_SYSTEM: &str =
    "You are Qwen, a helpful AI assistant that can interact with a computer to solve tasks.";
const QWEN25_SYSTEM: &str = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";
const CODER_TOOLS: &str = "\n\n# Tools\n\nYou have access to the following functions:\n\n<tools>";
const CODER_INSTRUCTION: &str = "\n\nIf you choose to call a function ONLY reply in the following format with NO suffix:\n\n<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n</parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within <tool_call></tool_call> XML tags\n- Required parameters MUST be specified\n- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after\n- If there is no function call available, answer the question like normal with your current knowledge and do not tell the user about function calls\n</IMPORTANT>";
const HERMES_TOOLS: &str = "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>";
const HERMES_INSTRUCTION: &str = "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n";

#[derive(Default)]
struct Builder(Vec<Segment>);

impl Builder {
    fn template(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Segment::Template(last)) => last.push_str(text),
            _ if text.is_empty() => {}
            _ => self.0.push(Segment::Template(text.into())),
        }
    }
    fn content(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Segment::Content(last)) => last.push_str(text),
            _ if text.is_empty() => {}
            _ => self.0.push(Segment::Content(text.into())),
        }
    }
    /// `<tag>` content `</tag>`
    fn element(&mut self, tag: &str, content: &str) {
        self.template("\n<");
        self.content(tag);
        self.template(">");
        self.content(content);
        self.template("</");
        self.content(tag);
        self.template(">");
    }
}

impl ChatFormat {
    pub const ALL: [Self; 4] = [Self::Qwen3Coder, Self::Hermes, Self::HermesQwen25, Self::Thinking];

    pub fn name(self) -> &'static str {
        match self {
            Self::Qwen3Coder => "qwen3-coder",
            Self::Hermes => "hermes",
            Self::HermesQwen25 => "hermes-qwen2.5",
            Self::Thinking => "thinking",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// By the markers in the file's own template, else by the model's name.
    pub fn detect(template: Option<&str>, name: &str) -> Self {
        let name = name.to_lowercase();
        let template = template.unwrap_or_default();
        if template.contains("<function=") {
            return Self::Qwen3Coder;
        }
        if template.contains("created by Alibaba Cloud") {
            return Self::HermesQwen25;
        }
        if !template.is_empty() {
            let opens = template.trim_end().ends_with("{%- endif %}") && template.contains("assistant\\n<think>\\n");
            return if opens || name.contains("thinking") { Self::Thinking } else { Self::Hermes };
        }
        if name.contains("qwen3-coder") || name.contains("qwen3 coder") {
            Self::Qwen3Coder
        } else if name.contains("thinking") {
            Self::Thinking
        } else if name.contains("qwen2") {
            Self::HermesQwen25
        } else {
            Self::Hermes
        }
    }

    /// The whole conversation; with `generate`, up to where the model's answer begins.
    pub fn render(self, messages: &[Message], tools: &[ToolSpec], generate: bool) -> Vec<Segment> {
        let mut out = Builder::default();
        let (system, rest) = match messages.split_first() {
            Some((first, rest)) if first.role == Role::System => (Some(first.content.as_str()), rest),
            _ => (None, messages),
        };
        self.head(system, tools, &mut out);
        self.body(rest, generate, &mut out);
        out.0
    }

    /// What `new` adds after `previous` (whose last message is closed).
    pub fn render_more(self, previous: &[Message], new: &[Message], generate: bool) -> Vec<Segment> {
        debug_assert!(!previous.is_empty());
        let mut out = Builder::default();
        self.body(new, generate, &mut out);
        out.0
    }

    /// Ends the message the model was writing.
    pub fn close_turn(self) -> Vec<Segment> {
        vec![Segment::Template("<|im_end|>\n".into())]
    }

    fn head(self, system: Option<&str>, tools: &[ToolSpec], out: &mut Builder) {
        let default = match self {
            Self::Qwen3Coder if !tools.is_empty() => Some(CODER_SYSTEM),
            Self::HermesQwen25 => Some(QWEN25_SYSTEM),
            _ => None,
        };
        if system.or(default).is_none() && tools.is_empty() {
            return;
        }
        out.template("<|im_start|>system\n");
        match (system, default) {
            (Some(system), _) => out.content(system),
            (None, Some(default)) => out.template(default),
            (None, None) => {}
        }
        if !tools.is_empty() {
            match self {
                Self::Qwen3Coder => coder_tools(tools, out),
                _ => {
                    if system.or(default).is_some() {
                        out.template("\n\n");
                    }
                    out.template(HERMES_TOOLS);
                    for tool in tools {
                        out.template("\n{\"type\": \"function\", \"function\": ");
                        out.content(&json::spaced(&serde_json::to_value(tool).unwrap_or(Value::Null)));
                        out.template("}");
                    }
                    out.template(HERMES_INSTRUCTION);
                    out.template(if self == Self::HermesQwen25 {
                        "{{\"name\": <function-name>, \"arguments\": <args-json-object>}}\n</tool_call>"
                    } else {
                        "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>"
                    });
                }
            }
        }
        out.template("<|im_end|>\n");
    }

    fn body(self, messages: &[Message], generate: bool, out: &mut Builder) {
        let last_user = messages.iter().rposition(|m| m.role == Role::User);
        for (i, message) in messages.iter().enumerate() {
            match message.role {
                Role::System | Role::User => {
                    out.template(if message.role == Role::User { "<|im_start|>user\n" } else { "<|im_start|>system\n" });
                    out.content(&message.content);
                    out.template("<|im_end|>\n");
                }
                Role::Assistant => {
                    let thoughts = message.reasoning.as_deref().filter(|_| last_user.is_none_or(|last| i > last));
                    self.assistant(message, thoughts, out);
                }
                Role::Tool => {
                    let opens = i == 0 || messages[i - 1].role != Role::Tool;
                    let closes = messages.get(i + 1).is_none_or(|next| next.role != Role::Tool);
                    if self == Self::Qwen3Coder {
                        out.template(if opens { "<|im_start|>user\n<tool_response>\n" } else { "<tool_response>\n" });
                        out.content(&message.content);
                        out.template("\n</tool_response>\n");
                    } else {
                        out.template(if opens { "<|im_start|>user\n<tool_response>\n" } else { "\n<tool_response>\n" });
                        out.content(&message.content);
                        out.template("\n</tool_response>");
                    }
                    if closes {
                        out.template("<|im_end|>\n");
                    }
                }
            }
        }
        if generate {
            let think = self == Self::Thinking;
            out.template(if think { "<|im_start|>assistant\n<think>\n" } else { "<|im_start|>assistant\n" });
        }
    }

    fn assistant(self, message: &Message, thoughts: Option<&str>, out: &mut Builder) {
        out.template("<|im_start|>assistant");
        if let Some(thoughts) = thoughts {
            out.template("\n<think>\n");
            out.content(thoughts.trim_matches('\n'));
            out.template("\n</think>\n");
        }
        if message.tool_calls.is_empty() {
            out.template("\n");
            out.content(&message.content);
            out.template("<|im_end|>\n");
            return;
        }
        let coder = self == Self::Qwen3Coder;
        let content = if coder { message.content.trim() } else { message.content.as_str() };
        if !content.is_empty() {
            out.template("\n");
            out.content(content);
            if coder {
                out.template("\n");
            }
        }
        for call in &message.tool_calls {
            if coder {
                out.template("\n<tool_call>\n<function=");
                out.content(&call.name);
                out.template(">\n");
                for (key, value) in &call.arguments {
                    out.template("<parameter=");
                    out.content(key);
                    out.template(">\n");
                    out.content(&json::python(value));
                    out.template("\n</parameter>\n");
                }
                out.template("</function>\n</tool_call>");
            } else {
                out.template("\n<tool_call>\n{\"name\": \"");
                out.content(&call.name);
                out.template("\", \"arguments\": ");
                out.content(&json::spaced(&Value::Object(call.arguments.clone())));
                out.template("}\n</tool_call>");
            }
        }
        out.template("<|im_end|>\n");
    }
}

/// The tool specs of Qwen3-Coder: elements, the keys of each schema in their order.
fn coder_tools(tools: &[ToolSpec], out: &mut Builder) {
    out.template(CODER_TOOLS);
    let empty = serde_json::Map::new();
    let object = |value: &Value| value.as_object().cloned().unwrap_or_else(|| empty.clone());
    for tool in tools {
        out.template("\n<function>");
        out.element("name", &tool.name);
        if let Some(description) = &tool.description {
            out.element("description", description.trim());
        }
        out.template("\n<parameters>");
        let parameters = object(&tool.parameters);
        for (name, field) in object(parameters.get("properties").unwrap_or(&Value::Null)) {
            out.template("\n<parameter>");
            out.element("name", &name);
            if let Some(kind) = field.get("type") {
                out.element("type", &json::python_list(kind));
            }
            if let Some(description) = field.get("description").and_then(Value::as_str) {
                out.element("description", description.trim());
            }
            extra_keys(&object(&field), &["type", "description"], out);
            out.template("\n</parameter>");
        }
        extra_keys(&parameters, &["type", "properties"], out);
        out.template("\n</parameters>");
        extra_keys(&tool.extra, &[], out);
        out.template("\n</function>");
    }
    out.template("\n</tools>");
    out.template(CODER_INSTRUCTION);
}

fn extra_keys(map: &serde_json::Map<String, Value>, but: &[&str], out: &mut Builder) {
    for (key, value) in map.iter().filter(|(key, _)| !but.contains(&key.as_str())) {
        out.element(key, &json::python(value));
    }
}
