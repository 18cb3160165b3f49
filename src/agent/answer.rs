//! An answer in a form that the user gave as a JSON schema: the model gives it by a call of a tool that is offered for
//! this alone, so whatever holds calls to their schemas holds the answer. Here are that tool, which schemas can be held
//! to, and how a call becomes the answer; asking for it is the turn's.

use crate::chat::{ToolCall, ToolSpec};
use serde_json::{Map, Value, json};

/// The tool's name. No other tool has it.
pub const ANSWER: &str = "answer";
const DESCRIPTION: &str = "Give the final answer. Call this once, when all work is done.";
/// Keywords whose meaning is checked in full, and those without one.
const HELD: &[&str] = &[
    "$defs",
    "$id",
    "$ref",
    "$schema",
    "$comment",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "default",
    "definitions",
    "deprecated",
    "description",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "properties",
    "required",
    "title",
    "type",
];
/// Deeper ones are circular, or written to be.
const DEEPEST: usize = 64;

/// The tool that takes an answer of this form; an error says what of the schema cannot be held to.
pub fn tool(schema: &Value) -> Result<ToolSpec, String> {
    let Value::Object(map) = schema else { return Err("a schema is a JSON object".into()) };
    look(schema, "", 0)?;
    let named = map.get("properties").and_then(Value::as_object).is_some_and(|named| !named.is_empty());
    let is_object = map.get("type").is_some_and(|kind| kind == "object") && named;
    let parameters = if is_object { schema.clone() } else { wrapped(map) };
    Ok(ToolSpec { name: ANSWER.into(), description: Some(DESCRIPTION.into()), parameters, extra: Map::new() })
}

/// What is no object with names becomes the one argument of the call. Definitions stay where references look for them.
fn wrapped(map: &Map<String, Value>) -> Value {
    let (definitions, own): (Map<String, Value>, Map<String, Value>) =
        map.clone().into_iter().partition(|(key, _)| key == "$defs" || key == "definitions");
    let mut parameters = json!({"type": "object", "properties": {ANSWER: own}, "required": [ANSWER]});
    if let Value::Object(parameters) = &mut parameters {
        parameters.extend(definitions);
    }
    parameters
}

/// The answer that a valid call of the tool gives.
pub fn given(call: &ToolCall, spec: &ToolSpec) -> Value {
    let properties = spec.parameters.get("properties").and_then(Value::as_object);
    let required = spec.parameters.get("required").and_then(Value::as_array);
    let wraps = properties.is_some_and(|named| named.len() == 1 && named.contains_key(ANSWER));
    if let (true, Some(value)) = (wraps, call.arguments.get(ANSWER)) {
        return value.clone();
    }
    // A call may say null for what it leaves out; an answer may not.
    let is_required = |key: &String| required.is_some_and(|list| list.iter().any(|name| name == key));
    let kept = call.arguments.clone().into_iter().filter(|(key, value)| !value.is_null() || is_required(key));
    Value::Object(kept.collect())
}

fn look(schema: &Value, path: &str, depth: usize) -> Result<(), String> {
    let place =
        if path.is_empty() { "the schema".to_string() } else { path.trim_start_matches('.').to_string() };
    if depth > DEEPEST {
        return Err(format!("{place} nests too deep"));
    }
    let map = match schema {
        Value::Object(map) => map,
        Value::Bool(true) => return Ok(()),
        _ => return Err(format!("{place} is no schema")),
    };
    if let Some(key) = map.keys().find(|key| !HELD.contains(&key.as_str())) {
        return Err(format!("{place} has `{key}`, which an answer cannot be held to"));
    }
    if map.get("$ref").is_some_and(|target| target == "#") {
        return Err(format!("{place} refers to the whole schema, which an answer cannot be held to"));
    }
    for key in ["properties", "$defs", "definitions"] {
        for (name, part) in map.get(key).and_then(Value::as_object).into_iter().flatten() {
            look(part, &format!("{path}.{name}"), depth + 1)?;
        }
    }
    for (at, part) in
        ["allOf", "anyOf"].iter().flat_map(|key| map.get(*key)?.as_array()).flatten().enumerate()
    {
        look(part, &format!("{path}[{at}]"), depth + 1)?;
    }
    if let Some(items) = map.get("items") {
        look(items, &format!("{path}[]"), depth + 1)?;
    }
    match map.get("additionalProperties") {
        Some(Value::Bool(_)) | None => Ok(()),
        Some(part) => look(part, &format!("{path}.*"), depth + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::validate;

    fn answer(schema: &Value, arguments: Value) -> Result<Value, String> {
        let spec = tool(schema)?;
        let Value::Object(arguments) = arguments else { panic!("an object") };
        let call = ToolCall { name: ANSWER.into(), arguments };
        validate(&call, &spec)?;
        Ok(given(&call, &spec))
    }

    #[test]
    fn an_answer_has_the_form_of_its_schema() {
        let object = json!({"type": "object", "properties": {"ok": {"type": "boolean"}, "why": {"type": "string"}}, "required": ["ok"]});
        assert_eq!(answer(&object, json!({"ok": true, "why": null})).unwrap(), json!({"ok": true}));
        assert!(answer(&object, json!({"why": "x"})).is_err());
        let list = json!({"type": "array", "items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "integer", "minimum": 1}}});
        assert_eq!(answer(&list, json!({"answer": [1, 2]})).unwrap(), json!([1, 2]));
        assert!(answer(&list, json!({"answer": [0]})).is_err());
        assert_eq!(answer(&json!({"enum": ["a", "b"]}), json!({"answer": "b"})).unwrap(), "b");
        // An object of that one name is no wrapping.
        let own =
            json!({"type": "object", "properties": {"answer": {"type": "string"}, "n": {"type": "integer"}}});
        assert_eq!(answer(&own, json!({"answer": "x"})).unwrap(), json!({"answer": "x"}));
    }

    #[test]
    fn what_cannot_be_held_to_is_refused_by_name() {
        for (schema, why) in [
            (json!([]), "a JSON object"),
            (json!({"type": "string", "pattern": "^a"}), "the schema has `pattern`"),
            (
                json!({"type": "object", "properties": {"a": {"items": {"format": "date"}}}}),
                "a[] has `format`",
            ),
            (json!({"oneOf": [{"type": "string"}]}), "`oneOf`"),
            (json!({"properties": {"a": {"$ref": "#"}}, "type": "object"}), "refers to the whole schema"),
            (json!({"type": "object", "additionalProperties": {"not": {}}}), "* has `not`"),
            (json!({"properties": {"a": 3}}), "a is no schema"),
        ] {
            let error = tool(&schema).unwrap_err();
            assert!(error.contains(why), "{schema}: {error}");
        }
    }
}
