//! Does a call fit its tool's schema? Says every reason at once, in words a model can act on. Checks the keywords
//! that tool schemas use (types, required, additionalProperties, enum, const, bounds, lengths, items, combinations);
//! what it does not know it does not judge. A null for a parameter that is not required counts as left out.

use super::pytext::json_dumps;
use super::schema::{Types, reference, types};
use super::{ToolCall, ToolSpec};
use serde_json::{Map, Value};
use std::cell::Cell;

const MAX_DEPTH: usize = 32;
/// How many values and schemas are compared before the rest is taken to fit (circular schemas).
const MAX_STEPS: usize = 5_000;
/// More reasons than this help nobody.
const MAX_REASONS: usize = 8;

/// Checks the arguments of `call` against the schema of its tool.
pub fn validate(call: &ToolCall, spec: &ToolSpec) -> Result<(), String> {
    let steps = Cell::new(0);
    let mut check = Check { root: &spec.parameters, steps: &steps, reasons: Vec::new() };
    check.object(&call.arguments, &spec.parameters, "", 0);
    let mut reasons = check.reasons;
    if reasons.is_empty() {
        return Ok(());
    }
    reasons.truncate(MAX_REASONS);
    Err(format!("invalid arguments for {}: {}", call.name, reasons.join("; ")))
}

struct Check<'a> {
    root: &'a Value,
    steps: &'a Cell<usize>,
    reasons: Vec<String>,
}

impl Check<'_> {
    fn say(&mut self, reason: String) {
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    fn fits(&self, value: &Value, schema: &Value, depth: usize) -> bool {
        let mut check = Check { root: self.root, steps: self.steps, reasons: Vec::new() };
        check.value(value, schema, "value", depth);
        check.reasons.is_empty()
    }

    fn value(&mut self, value: &Value, schema: &Value, path: &str, depth: usize) {
        self.steps.set(self.steps.get() + 1);
        if depth > MAX_DEPTH || self.steps.get() > MAX_STEPS || !schema.is_object() {
            return;
        }
        let allowed = types(schema, self.root);
        // A number without a fraction is an integer to JSON schema, however it is written.
        let whole = allowed.has(Types::INTEGER) && value.as_f64().is_some_and(|x| x.fract() == 0.0);
        if !allowed.allows(value) && !whole {
            return self.say(format!("`{path}` must be {}, got {}", allowed.describe(), describe(value)));
        }
        if let Some(choices) = schema.get("enum").and_then(Value::as_array)
            && !choices.contains(value)
        {
            let choices: Vec<String> = choices.iter().map(json_dumps).collect();
            self.say(format!("`{path}` must be one of {}, got {}", choices.join(", "), describe(value)));
        }
        if let Some(wanted) = schema.get("const")
            && wanted != value
        {
            self.say(format!("`{path}` must be {}, got {}", json_dumps(wanted), describe(value)));
        }
        match value {
            Value::Object(map) => self.object(map, schema, path, depth),
            Value::Array(items) => self.array(items, schema, path, depth),
            Value::String(text) => self.bounds(
                text.chars().count() as f64,
                schema,
                path,
                ("minLength", "maxLength"),
                " characters",
            ),
            Value::Number(n) => self.number(n.as_f64().unwrap_or_default(), schema, path),
            Value::Null | Value::Bool(_) => {}
        }
        for key in ["anyOf", "oneOf"] {
            let choices = schema.get(key).and_then(Value::as_array);
            if choices.is_some_and(|all| !all.iter().any(|choice| self.fits(value, choice, depth + 1))) {
                self.say(format!("`{path}` fits none of the forms that the tool takes"));
            }
        }
        let parts = schema.get("allOf").and_then(Value::as_array).into_iter().flatten();
        for part in parts.chain(reference(schema, self.root)) {
            self.value(value, part, path, depth + 1);
        }
    }

    fn object(&mut self, map: &Map<String, Value>, schema: &Value, path: &str, depth: usize) {
        let at = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        for name in required.iter().filter(|name| !map.contains_key(**name)) {
            self.say(format!("the required parameter `{}` is missing", at(name)));
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, value) in map {
            match properties.and_then(|p| p.get(name)) {
                Some(_) if value.is_null() && !required.contains(&name.as_str()) => {}
                Some(property) => self.value(value, property, &at(name), depth + 1),
                None => match schema.get("additionalProperties") {
                    Some(Value::Bool(false)) => {
                        let known: Vec<String> =
                            properties.into_iter().flatten().map(|(key, _)| format!("`{key}`")).collect();
                        let known = if known.is_empty() { "it takes none".into() } else { known.join(", ") };
                        self.say(format!("there is no parameter `{}` (known: {known})", at(name)));
                    }
                    Some(extra) => self.value(value, extra, &at(name), depth + 1),
                    None => {}
                },
            }
        }
    }

    fn array(&mut self, items: &[Value], schema: &Value, path: &str, depth: usize) {
        self.bounds(items.len() as f64, schema, path, ("minItems", "maxItems"), " items");
        if let Some(item) = schema.get("items") {
            for (i, value) in items.iter().enumerate() {
                self.value(value, item, &format!("{path}[{i}]"), depth + 1);
            }
        }
    }

    fn number(&mut self, x: f64, schema: &Value, path: &str) {
        self.bounds(x, schema, path, ("minimum", "maximum"), "");
        let limit = |key: &str| schema.get(key).and_then(Value::as_f64);
        if let Some(low) = limit("exclusiveMinimum").filter(|low| x <= *low) {
            self.say(format!("`{path}` must be more than {low}, got {x}"));
        }
        if let Some(high) = limit("exclusiveMaximum").filter(|high| x >= *high) {
            self.say(format!("`{path}` must be less than {high}, got {x}"));
        }
    }

    fn bounds(&mut self, x: f64, schema: &Value, path: &str, keys: (&str, &str), unit: &str) {
        let limit = |key: &str| schema.get(key).and_then(Value::as_f64);
        if let Some(low) = limit(keys.0).filter(|low| x < *low) {
            self.say(format!("`{path}` must be at least {low}{unit}, got {x}"));
        }
        if let Some(high) = limit(keys.1).filter(|high| x > *high) {
            self.say(format!("`{path}` must be at most {high}{unit}, got {x}"));
        }
    }
}

/// "the string "abc"", shortened: what stood there instead.
fn describe(value: &Value) -> String {
    const SHOWN: usize = 60;
    let kind = match value {
        Value::Null => return "null".into(),
        Value::Bool(_) => "",
        Value::Number(_) => "the number ",
        Value::String(_) => "the string ",
        Value::Array(_) => "the array ",
        Value::Object(_) => "the object ",
    };
    let text = json_dumps(value);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{kind}{}...", &text[..end]),
        None => format!("{kind}{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(arguments: Value) -> Result<(), String> {
        let spec: ToolSpec = serde_json::from_value(json!({
            "name": "edit",
            "parameters": {
                "type": "object",
                "properties": {
                    "path": {"type": "string", "minLength": 1},
                    "line": {"type": "integer", "minimum": 1},
                    "mode": {"type": "string", "enum": ["all", "first"]},
                    "items": {"type": "array", "maxItems": 2, "items": {
                        "type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]
                    }},
                    "either": {"anyOf": [{"type": "integer", "maximum": 3}, {"type": "string"}]},
                    "ref": {"$ref": "#/$defs/count"}
                },
                "required": ["path"],
                "additionalProperties": false,
                "$defs": {"count": {"type": "integer", "maximum": 9}}
            }
        }))
        .unwrap();
        let Value::Object(arguments) = arguments else { panic!("an object") };
        validate(&ToolCall { name: "edit".into(), arguments }, &spec)
    }

    #[test]
    fn what_fits_passes() {
        check(json!({"path": "a"})).unwrap();
        check(json!({"path": "a", "line": 3.0, "mode": "all", "either": 2, "ref": 9})).unwrap();
        check(json!({"path": "a", "line": null, "items": [{"text": "x"}]})).unwrap();
    }

    #[test]
    fn the_reason_is_exact() {
        for (arguments, reason) in [
            (json!({}), "the required parameter `path` is missing"),
            (json!({"path": null}), "`path` must be a string, got null"),
            (json!({"path": ""}), "`path` must be at least 1 characters, got 0"),
            (json!({"path": "a", "line": "x"}), "`line` must be an integer, got the string \"x\""),
            (json!({"path": "a", "line": 0}), "`line` must be at least 1, got 0"),
            (json!({"path": "a", "line": 1.5}), "`line` must be an integer, got the number 1.5"),
            (
                json!({"path": "a", "mode": "some"}),
                "`mode` must be one of \"all\", \"first\", got the string \"some\"",
            ),
            (
                json!({"path": "a", "items": [{"text": "x"}, {}]}),
                "the required parameter `items[1].text` is missing",
            ),
            (json!({"path": "a", "items": [{"text": 1}]}), "`items[0].text` must be a string"),
            (json!({"path": "a", "items": [{"text": "x"}, {"text": "x"}, {"text": "x"}]}), "at most 2 items"),
            (json!({"path": "a", "either": 4}), "`either` fits none"),
            (json!({"path": "a", "ref": 10}), "`ref` must be at most 9, got 10"),
            (json!({"path": "a", "pth": 1}), "there is no parameter `pth` (known: `path`, `line`"),
        ] {
            let error = check(arguments.clone()).unwrap_err();
            assert!(error.contains(reason), "{arguments}: {error}");
            assert!(error.starts_with("invalid arguments for edit: "), "{error}");
        }
    }

    #[test]
    fn circular_schemas_end() {
        let spec: ToolSpec = serde_json::from_value(json!({
            "name": "t",
            "parameters": {"properties": {"x": {
                "anyOf": [{"$ref": "#/properties/x"}, {"$ref": "#/properties/x"}], "items": {"$ref": "#/properties/x"}
            }}}
        }))
        .unwrap();
        let Value::Object(arguments) = json!({"x": [[[]]]}) else { panic!("an object") };
        validate(&ToolCall { name: "t".into(), arguments }, &spec).unwrap();
    }
}
