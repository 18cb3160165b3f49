//! An answer in a form that the user gave as a JSON schema: the model gives it by a call of a tool that is offered for
//! this alone, so whatever holds calls to their schemas holds the answer. Here are that tool, which schemas can be held
//! to, and how a call becomes the answer; asking for it is the turn's.

use crate::chat::schema::{Types, reference, types};
use crate::chat::{ToolCall, ToolSpec, validate};
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
/// Keywords of an object that are not checked where it is the arguments of a call.
const NOT_OF_ARGUMENTS: &[&str] = &["$ref", "allOf", "anyOf", "const", "enum"];
/// An argument that no schema names.
const TRIED: &str = "\0";

/// The tool that takes an answer of this form; an error says what of the schema cannot be held to.
pub fn tool(schema: &Value) -> Result<ToolSpec, String> {
    let Value::Object(map) = schema else { return Err("a schema is a JSON object".into()) };
    // One that would look like what is wrapped is wrapped as well.
    let named = |named: &Map<String, Value>| !named.is_empty() && !is_one_answer(named);
    let named = map.get("properties").and_then(Value::as_object).is_some_and(named);
    let is_object = map.get("type").is_some_and(|kind| kind == "object") && named;
    let is_plain = is_object && !NOT_OF_ARGUMENTS.iter().any(|key| map.contains_key(*key));
    let parameters = if is_plain { schema.clone() } else { wrapped(map) };
    look(schema, (schema, &parameters), "", 0)?;
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

fn is_one_answer(named: &Map<String, Value>) -> bool {
    named.len() == 1 && named.contains_key(ANSWER)
}

/// The answer that a valid call of the tool gives.
pub fn given(call: &ToolCall, spec: &ToolSpec) -> Value {
    let root = &spec.parameters;
    let mut answer = said(&Value::Object(call.arguments.clone()), root, root);
    let wraps = root.get("properties").and_then(Value::as_object).is_some_and(is_one_answer);
    match answer.get_mut(ANSWER).filter(|_| wraps) {
        Some(inner) => inner.take(),
        None => answer,
    }
}

/// A call may say null for what it leaves out; an answer may not, unless its schema has it so.
fn said(value: &Value, schema: &Value, root: &Value) -> Value {
    let mut answer = match value {
        Value::Object(map) => {
            let property = |key: &str| schema.get("properties")?.get(key);
            let left_out = |key: &str, value: &Value| {
                value.is_null() && property(key).is_some_and(|part| !types(part, root).has(Types::NULL))
            };
            let kept = map.iter().filter(|(key, value)| !left_out(key, value));
            let said = kept.map(|(key, value)| {
                let part = property(key).or_else(|| schema.get("additionalProperties"));
                (key.clone(), part.map_or_else(|| value.clone(), |part| said(value, part, root)))
            });
            Value::Object(said.collect())
        }
        Value::Array(items) => match schema.get("items") {
            Some(part) => items.iter().map(|item| said(item, part, root)).collect(),
            None => value.clone(),
        },
        _ => return value.clone(),
    };
    for part in parts(schema, "allOf").chain(reference(schema, root)) {
        answer = said(&answer, part, root);
    }
    // Of several forms it has the first that it fits, but rather one that leaves it as it is.
    let forms = parts(schema, "anyOf").filter(|form| fits(&answer, form, root));
    let forms: Vec<Value> = forms.map(|form| said(&answer, form, root)).collect();
    match forms.first() {
        Some(first) if !forms.contains(&answer) => first.clone(),
        _ => answer,
    }
}

fn parts<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    schema.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// Whether a value has this form: as an argument of its own, beside all that references may name.
fn fits(value: &Value, form: &Value, root: &Value) -> bool {
    let mut spec =
        ToolSpec { name: ANSWER.into(), description: None, parameters: root.clone(), extra: Map::new() };
    if let Value::Object(parameters) = &mut spec.parameters {
        parameters.insert("required".into(), json!([TRIED]));
        if let Some(Value::Object(properties)) = parameters.get_mut("properties") {
            properties.insert(TRIED.into(), form.clone());
        }
    }
    let arguments = Map::from_iter([(TRIED.to_string(), value.clone())]);
    validate(&ToolCall { name: ANSWER.into(), arguments }, &spec).is_ok()
}

/// Whether judging a value comes to an end: what is said of it leads back to no schema that is asked already.
fn ends(schema: &Value, root: &Value, depth: usize) -> bool {
    let mut same = parts(schema, "allOf").chain(parts(schema, "anyOf")).chain(reference(schema, root));
    depth < DEEPEST && same.all(|part| ends(part, root, depth + 1))
}

/// `roots`: what references were written for, and what they are looked up in.
fn look(schema: &Value, roots: (&Value, &Value), path: &str, depth: usize) -> Result<(), String> {
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
    if let Some(target) = map.get("$ref") {
        if target == "#" {
            return Err(format!("{place} refers to the whole schema, which an answer cannot be held to"));
        }
        let found = reference(schema, roots.1);
        let is_schema = matches!(found, Some(Value::Object(_) | Value::Bool(true)));
        if !is_schema || found != reference(schema, roots.0) {
            return Err(format!("{place} refers to {target}, which is not found: define it under `$defs`"));
        }
        if !ends(schema, roots.1, 0) {
            return Err(format!("{place} refers to {target}, which leads back to itself"));
        }
    }
    for key in ["properties", "$defs", "definitions"] {
        for (name, part) in map.get(key).and_then(Value::as_object).into_iter().flatten() {
            look(part, roots, &format!("{path}.{name}"), depth + 1)?;
        }
    }
    for (at, part) in parts(schema, "allOf").chain(parts(schema, "anyOf")).enumerate() {
        look(part, roots, &format!("{path}[{at}]"), depth + 1)?;
    }
    if let Some(items) = map.get("items") {
        look(items, roots, &format!("{path}[]"), depth + 1)?;
    }
    match map.get("additionalProperties") {
        Some(Value::Bool(_)) | None => Ok(()),
        Some(part) => look(part, roots, &format!("{path}.*"), depth + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // An object with a name like the tool's is an object all the same.
        let text = json!({"type": "string"});
        let two = json!({"type": "object", "properties": {"answer": text, "n": {"type": "integer"}}});
        assert_eq!(answer(&two, json!({"answer": "x"})).unwrap(), json!({"answer": "x"}));
        let one = json!({"type": "object", "properties": {"answer": text}});
        assert_eq!(answer(&one, json!({"answer": {"answer": "x"}})).unwrap(), json!({"answer": "x"}));
        // Deep inside, too, null stands for what is left out only where it is no value.
        let deep = json!({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": ["string", "null"]}}}});
        assert_eq!(answer(&deep, json!({"answer": [{"a": null, "b": null}]})).unwrap(), json!([{"b": null}]));
    }

    #[test]
    fn what_a_call_leaves_out_by_null_is_left_out_in_every_form() {
        let text = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let nothing = json!({"type": "object", "properties": {"a": {"type": "null"}}});
        let nested = json!({"type": "object", "properties": {"b": {"anyOf": [{"$ref": "#/$defs/text"}, {"type": "integer"}]}}});
        for (form, said, expected) in [
            (json!({"anyOf": [text, {"type": "integer"}]}), json!({"a": null}), json!({})),
            (json!({"anyOf": [{"type": "integer"}, text]}), json!({"a": null}), json!({})),
            (json!({"anyOf": [text, nothing], "required": ["a"]}), json!({"a": null}), json!({"a": null})),
            (json!({"allOf": [text]}), json!({"a": null, "b": null}), json!({"b": null})),
            (
                json!({"$ref": "#/$defs/text", "properties": {"b": {"type": "null"}}}),
                json!({"a": null, "b": null}),
                json!({"b": null}),
            ),
            (json!({"additionalProperties": text}), json!({"k": {"a": null}}), json!({"k": {}})),
            (nested, json!({"b": {"a": null}}), json!({"b": {}})),
        ] {
            let schema = json!({"type": "object", "properties": {"x": form}, "$defs": {"text": text}});
            assert_eq!(answer(&schema, json!({"x": said})).unwrap(), json!({"x": expected}), "{form}");
            let list = json!({"type": "array", "items": form, "$defs": {"text": text}});
            assert_eq!(answer(&list, json!({"answer": [said]})).unwrap(), json!([expected]), "{form}");
        }
    }

    #[test]
    fn all_that_is_said_of_an_object_is_checked() {
        let either = json!({"type": "object", "properties": {"a": {}, "b": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]});
        assert!(answer(&either, json!({"answer": {}})).is_err());
        assert_eq!(answer(&either, json!({"answer": {"b": 1}})).unwrap(), json!({"b": 1}));
        // Trees are no circles.
        let tree = json!({"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties":
            {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}}}}});
        let deep = json!({"v": null, "next": {"v": 2, "next": null}});
        assert_eq!(answer(&tree, json!({"answer": deep})).unwrap(), json!({"next": {"v": 2, "next": null}}));
        assert!(answer(&tree, json!({"answer": {"next": {"v": "x"}}})).is_err());
        let own = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/properties/a"}}});
        assert!(answer(&own, json!({"b": "x"})).is_err());
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
            (json!({"type": "array", "items": {"$ref": "#/$defs/N"}}), "[] refers to \"#/$defs/N\""),
            (
                json!({"type": "object", "properties": {"a": {"$ref": "common.json#/N"}, "b": {}}}),
                "a refers to \"common.json#/N\"",
            ),
            // These move where they are wrapped.
            (
                json!({"properties": {"a": {}, "b": {"$ref": "#/properties/a"}}}),
                "b refers to \"#/properties/a\"",
            ),
            (
                json!({"properties": {"answer": {"type": "string"}}, "items": {"$ref": "#/properties/answer"}}),
                "[] refers to",
            ),
            (
                json!({"$ref": "#/$defs/n", "$defs": {"n": {"anyOf": [{"$ref": "#/$defs/n"}]}}}),
                "leads back to itself",
            ),
        ] {
            let error = tool(&schema).unwrap_err();
            assert!(error.contains(why), "{schema}: {error}");
        }
    }
}
