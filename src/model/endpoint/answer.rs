//! An answer as it streams in: text through the parser of the model's own format (a server without a parser of calls
//! leaves them in the text), calls that the server took apart itself, thoughts, the reason of the end and the usage.

use crate::chat::{
    ChatFormat, Message, ParseEvent, Parsed, Role, ToolCall, ToolCallParser, ToolSpec, structured_call,
};
use crate::model::tail::Tail;
use crate::model::{Generated, ModelEvent, StopReason, Usage};
use serde_json::Value;

pub(super) struct Answer<'a> {
    tools: &'a [ToolSpec],
    format: ChatFormat,
    /// There once the text begins: whether it begins amid thoughts is known only then.
    parser: Option<ToolCallParser>,
    reasoning: String,
    calls: Vec<Call>,
    tail: Tail,
    finish: Option<String>,
    usage: Option<Value>,
    /// Choices were there at all.
    pub chosen: bool,
    /// Something of the answer has been shown.
    pub began: bool,
    /// The text turns in circles.
    pub repeats: bool,
}

/// A call whose pieces come one by one.
#[derive(Default)]
struct Call {
    index: u64,
    id: String,
    name: String,
    arguments: String,
}

impl Call {
    /// Whether a piece in the same place begins another call: it brings a name, and this call is done. Nothing else tells
    /// them apart everywhere: servers count each call as the first, give each piece an id of its own, or leave out both.
    fn is_before(&self, id: &str, name: &str) -> bool {
        let same = !id.is_empty() && id == self.id;
        let done = || name != self.name || serde_json::from_str::<Value>(&self.arguments).is_ok();
        !same && !name.is_empty() && !self.name.is_empty() && done()
    }
}

impl<'a> Answer<'a> {
    pub fn new(format: ChatFormat, tools: &'a [ToolSpec]) -> Self {
        Self {
            tools,
            format,
            parser: None,
            reasoning: String::new(),
            calls: Vec::new(),
            tail: Tail::default(),
            finish: None,
            usage: None,
            chosen: false,
            began: false,
            repeats: false,
        }
    }

    /// The server said how it ended.
    pub fn ended(&self) -> bool {
        self.finish.is_some()
    }

    /// The server said how many tokens it was.
    pub fn is_counted(&self) -> bool {
        self.usage.as_ref().is_some_and(|usage| usage.get("prompt_tokens").is_some_and(Value::is_u64))
    }

    /// A piece of a stream, or an answer in one piece.
    pub fn take(&mut self, chunk: &Value, on_event: &mut dyn FnMut(ModelEvent)) {
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            self.usage = Some(usage.clone());
        }
        let Some(choice) = chunk.get("choices").and_then(|choices| choices.get(0)) else { return };
        self.chosen = true;
        if let Some(delta) = choice.get("delta").or_else(|| choice.get("message")) {
            let text = |key: &str| delta.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
            if let Some(thought) = text("reasoning_content").or_else(|| text("reasoning")) {
                self.watch(thought);
                self.reasoning.push_str(thought);
                on_event(ModelEvent::Thinking(thought.to_string()));
            }
            if let Some(content) = text("content") {
                self.watch(content);
                // Where the server keeps thoughts apart, the text holds none.
                let opened_think = self.format.opens_think() && self.reasoning.is_empty();
                let parser = self
                    .parser
                    .get_or_insert_with(|| ToolCallParser::new(self.format, self.tools, opened_think));
                forward(parser.push(content), on_event);
            }
            for (at, piece) in
                delta.get("tool_calls").and_then(Value::as_array).into_iter().flatten().enumerate()
            {
                self.piece(at as u64, piece, on_event);
            }
        }
        // Where it is empty, no reason is meant.
        let reason = choice.get("finish_reason").and_then(Value::as_str).filter(|reason| !reason.is_empty());
        if let Some(reason) = reason {
            self.finish = Some(reason.to_string());
        }
    }

    fn piece(&mut self, at: u64, piece: &Value, on_event: &mut dyn FnMut(ModelEvent)) {
        self.began = true;
        let index = piece.get("index").and_then(Value::as_u64).unwrap_or(at);
        let id = piece.get("id").and_then(Value::as_str).unwrap_or_default();
        let name = piece.pointer("/function/name").and_then(Value::as_str).unwrap_or_default();
        let open = self.calls.iter().rposition(|call| call.index == index);
        let open = open.filter(|open| !self.calls[*open].is_before(id, name)).unwrap_or_else(|| {
            self.calls.push(Call { index, ..Call::default() });
            self.calls.len() - 1
        });
        let call = &mut self.calls[open];
        if call.id.is_empty() {
            call.id = id.to_string();
        }
        if call.name.is_empty() && !name.is_empty() {
            call.name = name.to_string();
            on_event(ModelEvent::ToolCallStarted(name.to_string()));
        }
        let more = match piece.pointer("/function/arguments") {
            Some(Value::String(text)) => text.clone(),
            Some(object @ Value::Object(_)) => object.to_string(),
            _ => return,
        };
        call.arguments.push_str(&more);
        self.watch(&more);
    }

    fn watch(&mut self, text: &str) {
        self.began = true;
        self.repeats |= self.tail.repeats(text);
    }

    /// The answer; `stopped` where it was not its end that ended it. `estimated`: tokens of the prompt where the server
    /// does not say them; `count`: of a text.
    pub fn finish(
        mut self,
        stopped: Option<StopReason>,
        estimated: usize,
        count: &dyn Fn(&str) -> usize,
        on_event: &mut dyn FnMut(ModelEvent),
    ) -> Generated {
        let stop = stopped.unwrap_or(match self.finish.as_deref() {
            Some("length") => StopReason::Length,
            _ => StopReason::End,
        });
        let parsed = self.parser.take().map_or_else(Parsed::default, |parser| {
            let (events, parsed) = parser.finish();
            forward(events, on_event);
            parsed
        });
        let written = count(&parsed.content)
            + parsed.reasoning.as_deref().map_or(0, count)
            + count(&self.reasoning)
            + self.calls.iter().map(|call| count(&call.arguments)).sum::<usize>();
        let usage = usage(self.usage.as_ref(), estimated, written);
        let (mut truncated, mut problems) = (parsed.truncated, parsed.problems.clone());
        let mut message = parsed.into_message();
        if !self.calls.is_empty() {
            (message.tool_calls, truncated, problems) = self.structured(stop == StopReason::End);
        }
        if !self.reasoning.is_empty() {
            message.reasoning = Some(self.reasoning.trim_matches('\n').to_string());
        }
        let made = message.tool_calls.iter().cloned();
        made.for_each(|call| on_event(ModelEvent::ToolCall(call)));
        on_event(ModelEvent::Usage(usage));
        Generated { message: Message { role: Role::Assistant, ..message }, stop, usage, truncated, problems }
    }

    /// The calls that can be read, whether the last was cut off, and what is wrong with the others.
    fn structured(&self, whole: bool) -> (Vec<ToolCall>, bool, Vec<String>) {
        let (mut calls, mut truncated, mut problems) = (Vec::new(), false, Vec::new());
        for (at, call) in self.calls.iter().enumerate() {
            let last = at + 1 == self.calls.len();
            match structured_call(&call.name, &call.arguments, whole || !last, self.tools) {
                _ if call.name.is_empty() => problems.push("a call without a name was not run".into()),
                Ok(call) => calls.push(call),
                Err(_) if last && !whole => {
                    truncated = true;
                    problems.push(format!(
                        "the call to `{}` was cut off before its end, so it was not run",
                        call.name
                    ));
                }
                Err(problem) => problems.push(problem),
            }
        }
        (calls, truncated, problems)
    }
}

fn usage(told: Option<&Value>, prompt: usize, completion: usize) -> Usage {
    let number = |path: &str| told.and_then(|usage| usage.pointer(path)?.as_u64()).map(|n| n as usize);
    let prompt = number("/prompt_tokens").unwrap_or(prompt);
    let cached = number("/prompt_tokens_details/cached_tokens").unwrap_or(0).min(prompt);
    let completion = number("/completion_tokens").unwrap_or(completion);
    Usage { prompt, cached, prefilled: prompt - cached, completion, ..Usage::default() }
}

fn forward(events: Vec<ParseEvent>, on_event: &mut dyn FnMut(ModelEvent)) {
    for event in events {
        match event {
            ParseEvent::Text(text) => on_event(ModelEvent::Text(text)),
            ParseEvent::Thinking(text) => on_event(ModelEvent::Thinking(text)),
            ParseEvent::CallStarted(name) => on_event(ModelEvent::ToolCallStarted(name)),
            // Told at the end, with those that the server took apart.
            ParseEvent::Call(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tools() -> Vec<ToolSpec> {
        serde_json::from_value(json!([
            {"name": "read_file", "parameters": {"properties": {"path": {"type": "string"}, "line": {"type": "integer"}}}}
        ]))
        .unwrap()
    }

    fn answer(format: ChatFormat, deltas: &[Value], end: &str, stopped: Option<StopReason>) -> Generated {
        let tools = tools();
        let mut answer = Answer::new(format, &tools);
        for delta in deltas {
            answer.take(&json!({"choices": [{"delta": delta, "finish_reason": null}]}), &mut |_| {});
        }
        answer.take(&json!({"choices": [{"delta": {}, "finish_reason": end}]}), &mut |_| {});
        answer.finish(stopped, 10, &|text| text.len(), &mut |_| {})
    }

    fn piece(index: u64, id: &str, name: &str, arguments: &str) -> Value {
        json!({"tool_calls": [{"index": index, "id": id, "function": {"name": name, "arguments": arguments}}]})
    }

    fn made(generated: &Generated) -> Vec<Value> {
        generated.message.tool_calls.iter().map(|call| call.arguments.clone().into()).collect()
    }

    #[test]
    fn calls_in_pieces() {
        let format = ChatFormat::Qwen3Coder;
        let deltas = [
            json!({"content": "I look."}),
            piece(0, "x", "read_file", ""),
            piece(0, "", "", "{\"path\": \"a"),
            piece(1, "y", "read_file", "{\"line\": \"3\"}"),
            piece(0, "", "", ".rs\"}"),
        ];
        let generated = answer(format, &deltas, "tool_calls", None);
        assert_eq!(generated.message.content, "I look.");
        assert_eq!(made(&generated), [json!({"path": "a.rs"}), json!({"line": 3})]);
        // The same index, other ids.
        let deltas = [piece(0, "x", "read_file", "{}"), piece(0, "y", "read_file", "{\"line\": 1}")];
        assert_eq!(made(&answer(format, &deltas, "tool_calls", None)), [json!({}), json!({"line": 1})]);
    }

    #[test]
    fn where_a_call_begins_is_known_whatever_the_server_counts() {
        let whole = |name: &str, arguments: Value| json!({"tool_calls": [{"function": {"name": name, "arguments": arguments}}]});
        for (deltas, expected) in [
            // An id for each piece, with the name in each and in the first only.
            (
                vec![
                    piece(0, "a", "read_file", ""),
                    piece(0, "b", "", "{\"path\":"),
                    piece(0, "c", "read_file", "\"a\"}"),
                ],
                vec![json!({"path": "a"})],
            ),
            // Whole calls, one after another, with neither place nor id.
            (
                vec![whole("read_file", json!("{\"line\": 1}")), whole("read_file", json!({"line": 2}))],
                vec![json!({"line": 1}), json!({"line": 2})],
            ),
            (vec![whole("list", Value::Null), whole("read_file", json!("{}"))], vec![json!({}), json!({})]),
            // The last piece of a call may say its name once more.
            (
                vec![piece(0, "a", "read_file", "{\"line\": 1}"), piece(0, "a", "read_file", "")],
                vec![json!({"line": 1})],
            ),
        ] {
            let generated = answer(ChatFormat::Qwen3Coder, &deltas, "tool_calls", None);
            assert_eq!((made(&generated), generated.problems), (expected, vec![]), "{deltas:?}");
        }
    }

    #[test]
    fn an_empty_reason_is_no_end() {
        let mut answer = Answer::new(ChatFormat::Qwen3Coder, &[]);
        for (reason, ended) in [(json!(null), false), (json!(""), false), (json!("stop"), true)] {
            answer.take(
                &json!({"choices": [{"delta": {"content": "x"}, "finish_reason": reason}]}),
                &mut |_| {},
            );
            assert_eq!(answer.ended(), ended, "{reason}");
        }
    }

    #[test]
    fn a_call_that_was_cut_off_is_not_made() {
        let deltas = [piece(0, "x", "read_file", "{}"), piece(1, "y", "read_file", "{\"path\": \"a\"")];
        for (end, stopped) in [("length", None), ("stop", Some(StopReason::Cancelled))] {
            let generated = answer(ChatFormat::Qwen3Coder, &deltas, end, stopped);
            assert_eq!((made(&generated), generated.truncated), (vec![json!({})], true));
            assert!(generated.problems[0].contains("cut off"), "{:?}", generated.problems);
        }
    }

    #[test]
    fn calls_in_the_text_and_thoughts_in_either_place() {
        let xml = "<tool_call>\n<function=read_file>\n<parameter=path>\na.rs\n</parameter>\n</function>\n</tool_call>";
        let deltas: Vec<Value> =
            xml.as_bytes().chunks(5).map(|part| json!({"content": String::from_utf8_lossy(part)})).collect();
        assert_eq!(made(&answer(ChatFormat::Qwen3Coder, &deltas, "stop", None)), [json!({"path": "a.rs"})]);
        let hermes =
            [json!({"content": "<tool_call>\n{\"name\": \"read_file\", \"arguments\": {}}\n</tool_call>"})];
        assert_eq!(made(&answer(ChatFormat::Hermes, &hermes, "stop", None)), [json!({})]);
        for deltas in [
            vec![json!({"reasoning_content": "hm"}), json!({"content": "yes"})],
            vec![json!({"reasoning": "hm"}), json!({"content": "yes"})],
            vec![json!({"content": "hm</think>\n\nyes"})],
        ] {
            let message = answer(ChatFormat::Thinking, &deltas, "stop", None).message;
            assert_eq!((message.reasoning.as_deref(), message.content.as_str()), (Some("hm"), "yes"));
        }
    }

    #[test]
    fn usage_is_the_servers_else_an_estimate() {
        let told = json!({"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 60}});
        let usage = |told| super::usage(told, 10, 3);
        let expected = Usage { prompt: 100, cached: 60, prefilled: 40, completion: 7, ..Usage::default() };
        assert_eq!(usage(Some(&told)), expected);
        assert_eq!((usage(None).prompt, usage(None).completion), (10, 3));
        let nothing = json!({"prompt_tokens": 5, "prompt_tokens_details": null});
        assert_eq!((usage(Some(&nothing)).cached, usage(Some(&nothing)).prefilled), (0, 5));
    }
}
