//! Chat formats: how a conversation becomes the text a Qwen model was trained on. This file says which formats there
//! are, how one is chosen, and what all share; `render_xml` and `render_hermes` print the blocks of each.
//! Rendering is in two steps so that a history can grow: `render` prints a whole conversation, `render_more` what a
//! longer one adds to it. Tokens are the tokenizer's business: `Segment` only keeps template and content apart.

use super::{Message, Role, ToolSpec, render_hermes, render_xml};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;

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
            Segment::Template(text) | Segment::Content(text) => text,
        }
    }
    /// The form the tokenizer takes: `true` where added tokens are recognised.
    pub fn piece(&self) -> (bool, &str) {
        (matches!(self, Segment::Template(_)), self.text())
    }
}

/// The text of a rendered prompt.
pub fn text(segments: &[Segment]) -> String {
    segments.iter().map(Segment::text).collect()
}

/// Collects segments; neighbours of one kind become one.
#[derive(Default)]
pub(super) struct Out {
    segments: Vec<Segment>,
}

impl Out {
    pub fn template(&mut self, text: &str) {
        match self.segments.last_mut() {
            Some(Segment::Template(last)) => last.push_str(text),
            _ if text.is_empty() => {}
            _ => self.segments.push(Segment::Template(text.into())),
        }
    }
    pub fn content(&mut self, text: &str) {
        match self.segments.last_mut() {
            Some(Segment::Content(last)) => last.push_str(text),
            _ if text.is_empty() => {}
            _ => self.segments.push(Segment::Content(text.into())),
        }
    }
    pub fn finish(self) -> Vec<Segment> {
        self.segments
    }
    /// A block that holds one text: system and user messages, answers without calls.
    pub fn block(&mut self, role: &str, content: &str) {
        self.template(OPENS);
        self.template(role);
        self.template("\n");
        self.content(content);
        self.template(END_OF_TURN);
    }
}

/// What every block of ours opens with.
const OPENS: &str = "<|im_start|>";
pub(super) const END_OF_TURN: &str = "<|im_end|>\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChatFormat {
    /// Qwen3-Coder: XML tool calls.
    Qwen3Coder,
    /// Qwen3 Instruct: Hermes JSON.
    Hermes,
    /// Qwen2.5-Coder: Hermes JSON with a default system prompt and doubled braces in the example call.
    HermesQwen25,
    /// Qwen2.5 other than Coder: as `HermesQwen25`, with single braces.
    HermesQwen25Plain,
    /// Qwen2: as `HermesQwen25Plain`, with Qwen2's default system prompt.
    HermesQwen2,
    /// Qwen3 Thinking-2507: Hermes JSON, the prompt opens `<think>`.
    Thinking,
}

impl ChatFormat {
    pub const ALL: [ChatFormat; 6] = [
        ChatFormat::Qwen3Coder,
        ChatFormat::Hermes,
        ChatFormat::HermesQwen25,
        ChatFormat::HermesQwen25Plain,
        ChatFormat::HermesQwen2,
        ChatFormat::Thinking,
    ];

    /// The name `--format` takes.
    pub fn name(self) -> &'static str {
        match self {
            ChatFormat::Qwen3Coder => "qwen3-coder",
            ChatFormat::Hermes => "hermes",
            ChatFormat::HermesQwen25 => "hermes-qwen2.5",
            ChatFormat::HermesQwen25Plain => "hermes-qwen2.5-plain",
            ChatFormat::HermesQwen2 => "hermes-qwen2",
            ChatFormat::Thinking => "thinking",
        }
    }

    /// The format that the markers in a file's template show, else the one its name stands for, else none of ours. A
    /// template that opens no block as ours do is believed more than a name: it is another model's under a known name.
    pub fn detect(template: Option<&str>, model_name: &str) -> Option<ChatFormat> {
        let shown = template.and_then(Self::by_template);
        let may_be_ours = template.is_none_or(|source| source.contains(OPENS));
        shown.or_else(|| Self::by_name(model_name).filter(|_| may_be_ours))
    }

    fn by_template(template: &str) -> Option<ChatFormat> {
        // A template is Jinja source: line breaks and quotes may stand in it escaped or as they are.
        let source = template.replace("\\n", "\n").replace("\\\"", "\"");
        let has = |marker: &str| source.contains(marker);
        if !has(OPENS) {
            return None;
        }
        if has("<function=") && has("<parameter=") {
            return Some(ChatFormat::Qwen3Coder);
        }
        if has("assistant\n<think>\n'") || has("assistant\n<think>\n\"") {
            return Some(ChatFormat::Thinking);
        }
        let calls = has("<tool_call>");
        if has("You are Qwen, created by Alibaba Cloud.") {
            // Without tools in the template there are no braces to copy; the name decides.
            return match (calls, has("{{\"name\"")) {
                (true, true) => Some(ChatFormat::HermesQwen25),
                (true, false) => Some(ChatFormat::HermesQwen25Plain),
                (false, _) => None,
            };
        }
        if has("You are a helpful assistant") && !calls {
            return Some(ChatFormat::HermesQwen2);
        }
        calls.then_some(ChatFormat::Hermes)
    }

    fn by_name(name: &str) -> Option<ChatFormat> {
        let name: String = name.to_lowercase().chars().filter(|c| c.is_ascii_alphanumeric()).collect();
        let has = |part: &str| name.contains(part);
        if has("qwen3") && has("coder") {
            Some(ChatFormat::Qwen3Coder)
        } else if has("qwen3") && has("thinking") {
            Some(ChatFormat::Thinking)
        } else if has("qwen3") {
            Some(ChatFormat::Hermes)
        } else if has("qwen25") && has("coder") {
            Some(ChatFormat::HermesQwen25)
        } else if has("qwen25") {
            Some(ChatFormat::HermesQwen25Plain)
        } else if has("qwen2") {
            Some(ChatFormat::HermesQwen2)
        } else {
            None
        }
    }

    /// True if the generation prompt ends with `<think>`: the answer then begins inside the thinking.
    pub fn opens_think(self) -> bool {
        self == ChatFormat::Thinking
    }

    pub fn is_xml(self) -> bool {
        self == ChatFormat::Qwen3Coder
    }

    /// A whole conversation.
    pub fn render(
        self,
        messages: &[Message],
        tools: &[ToolSpec],
        add_generation_prompt: bool,
    ) -> Vec<Segment> {
        let tools: Vec<Value> = tools.iter().map(ToolSpec::to_openai).collect();
        self.render_tools_as_given(messages, &tools, add_generation_prompt)
    }

    /// As `render`, the tools as JSON (`{"type": "function", "function": {...}}`): keys keep the order they came in.
    pub fn render_tools_as_given(
        self,
        messages: &[Message],
        tools: &[Value],
        add_generation_prompt: bool,
    ) -> Vec<Segment> {
        let mut out = Out::default();
        let (system, first) = match messages.first() {
            Some(message) if message.role == Role::System => (Some(message.content.as_str()), 1),
            _ => (None, 0),
        };
        if self.is_xml() {
            render_xml::head(&mut out, system, tools);
        } else {
            render_hermes::head(self, &mut out, system, tools);
        }
        self.render_from(&mut out, messages, first, add_generation_prompt);
        out.segments
    }

    /// What `new` adds to a conversation that holds `previous` (at least one message, so that the system block is
    /// printed): `render(all) = render(previous) + render_more(previous, new)`, wherever `unchanged` says that all of
    /// `previous` stays. Tool results of one step are one block, so `new` must not begin amid a run of them.
    pub fn render_more(
        self,
        previous: &[Message],
        new: &[Message],
        add_generation_prompt: bool,
    ) -> Vec<Segment> {
        let all: Vec<Message> = previous.iter().chain(new).cloned().collect();
        let mut out = Out::default();
        self.render_from(&mut out, &all, previous.len(), add_generation_prompt);
        out.segments
    }

    /// How many messages of `previous` print the same when `new` follows. All of them, but for thinking: at the next
    /// request of the user the thoughts of the turn before are dropped, so its answers change.
    pub fn unchanged(self, previous: &[Message], new: &[Message]) -> usize {
        if self != ChatFormat::Thinking {
            return previous.len();
        }
        let all: Vec<Message> = previous.iter().chain(new).cloned().collect();
        (0..previous.len())
            .find(|&i| {
                let (mut before, mut after) = (Out::default(), Out::default());
                render_hermes::message(self, &mut before, previous, i);
                render_hermes::message(self, &mut after, &all, i);
                previous[i].role == Role::Assistant && before.segments != after.segments
            })
            .unwrap_or(previous.len())
    }

    /// Closes a turn that the model generated: its tokens stand in the history as they are, without the stop token.
    pub fn close_turn(self) -> Vec<Segment> {
        vec![Segment::Template(END_OF_TURN.into())]
    }

    /// The text with which a call of `tool` opens, up to the value of `next`: given to the model as the start of its
    /// answer, it must make this call. `given` are parameters whose text values are settled.
    pub fn call_opening(self, tool: &str, given: &[(String, String)], next: &str) -> Vec<Segment> {
        let template = |text: &str| Segment::Template(text.into());
        let content = |text: &str| Segment::Content(text.into());
        let xml = self.is_xml();
        let before = if xml { "<tool_call>\n<function=" } else { "<tool_call>\n{\"name\": \"" };
        let between = if xml { ">\n<parameter=" } else { "\", \"arguments\": {\"" };
        let mut out = vec![template(before), content(tool), template(between)];
        for (name, value) in given {
            out.extend([content(name), template(if xml { ">\n" } else { "\": \"" })]);
            out.push(content(&self.value_text(value)));
            out.push(template(if xml { "\n</parameter>\n<parameter=" } else { "\", \"" }));
        }
        out.extend([content(next), template(if xml { ">\n" } else { "\": \"" })]);
        out
    }

    /// What closes one text value of a call and opens the next parameter's.
    pub fn next_parameter(self, name: &str) -> String {
        if self.is_xml() {
            format!("\n</parameter>\n<parameter={name}>\n")
        } else {
            format!("\", \"{name}\": \"")
        }
    }

    /// A text value as it stands inside a call.
    pub fn value_text(self, value: &str) -> String {
        if self.is_xml() {
            return value.to_string();
        }
        let quoted = serde_json::Value::from(value).to_string();
        quoted[1..quoted.len() - 1].to_string()
    }

    /// Opens the turn that the model is to generate.
    pub fn generation_prompt(self) -> &'static str {
        if self.opens_think() { "<|im_start|>assistant\n<think>\n" } else { "<|im_start|>assistant\n" }
    }

    fn render_from(self, out: &mut Out, messages: &[Message], first: usize, add_generation_prompt: bool) {
        for index in first..messages.len() {
            if self.is_xml() {
                render_xml::message(out, messages, index);
            } else {
                render_hermes::message(self, out, messages, index);
            }
        }
        if add_generation_prompt {
            out.template(self.generation_prompt());
        }
    }
}

impl fmt::Display for ChatFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ChatFormat {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|format| format.name()).collect();
            format!("unknown chat format `{name}`; known are {}", names.join(", "))
        })
    }
}

/// True at the first result of a run of tool results, which open one block.
pub(super) fn opens_results(messages: &[Message], index: usize) -> bool {
    index.checked_sub(1).is_none_or(|before| messages[before].role != Role::Tool)
}

/// True at the last result of a run.
pub(super) fn closes_results(messages: &[Message], index: usize) -> bool {
    messages.get(index + 1).is_none_or(|after| after.role != Role::Tool)
}
