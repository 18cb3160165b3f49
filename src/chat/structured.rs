//! Calls as a server hands them over: a name, and the JSON of the arguments as text. What becomes of them is what becomes
//! of a call that was read from a model's own text: values by the schema, and words for what cannot be read.

use super::{ToolCall, ToolSpec, convert, lenient_json};
use serde_json::{Map, Value};

/// The call. `whole`: the server said that it wrote it to its end; only then is anything mended.
pub fn structured_call(
    name: &str,
    arguments: &str,
    whole: bool,
    tools: &[ToolSpec],
) -> Result<ToolCall, String> {
    let none = arguments.trim().is_empty() && whole;
    let read = match none {
        true => Ok(Value::Object(Map::new())),
        false if whole => lenient_json::object(arguments),
        false => serde_json::from_str(arguments).map_err(|error| error.to_string()),
    };
    match read {
        Ok(Value::Object(given)) => {
            let schema =
                tools.iter().find(|tool| tool.name == name).map_or(&Value::Null, |tool| &tool.parameters);
            Ok(ToolCall { name: name.into(), arguments: convert::from_json(given, schema) })
        }
        Ok(_) => Err(format!("the arguments of the call to `{name}` are not a JSON object")),
        Err(reason) => Err(format!("the arguments of the call to `{name}` could not be read: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_follow_the_schema_and_what_is_cut_off_stays_cut_off() {
        let tools: Vec<ToolSpec> = serde_json::from_value(json!([
            {"name": "read", "parameters": {"properties": {"line": {"type": "integer"}, "path": {"type": "string"}}}}
        ]))
        .unwrap();
        let call = |text: &str, whole| {
            structured_call("read", text, whole, &tools).map(|call| Value::from(call.arguments))
        };
        assert_eq!(call("{\"line\": \"5\", \"path\": 7}", true), Ok(json!({"line": 5, "path": "7"})));
        assert_eq!(call("", true), Ok(json!({})));
        assert_eq!(call("{'path': 'a'}", true), Ok(json!({"path": "a"})));
        assert_eq!(call("{\"path\": \"a\"}", false), Ok(json!({"path": "a"})));
        for (text, whole) in
            [("", false), ("{\"path\": \"a\"", false), ("{\"path\": \"a", true), ("[1]", true)]
        {
            assert!(call(text, whole).unwrap_err().contains("the call to `read`"), "{text}");
        }
    }
}
