//! Arguments as text to arguments as values, by the tool's schema: the most specific type that parses wins, in the
//! order null, boolean, integer, number, array or object, string. What does not parse stays the text it was: the
//! tool's validation then says what is wrong, in words. Nothing is ever HTML-unescaped.

use super::literal;
use super::pytext::py_trim;
use super::schema::{Types, of_parameter, types};
use serde_json::{Map, Value};

/// One argument that came as text. `parameters` is the schema of all arguments of the tool (null: unknown tool).
pub fn from_text(text: &str, name: &str, parameters: &Value) -> Value {
    // What no schema speaks of stays text.
    let allowed = of_parameter(parameters, name).map_or(Types::STRING, |schema| types(schema, parameters));
    typed(text, allowed).unwrap_or_else(|| Value::String(text.into()))
}

/// `text` as a value of one of the types, other than a string; `None` leaves it as it is. A text has one reading
/// only as JSON (or as a Python literal), so its own type is the most specific one that parses.
fn typed(text: &str, allowed: Types) -> Option<Value> {
    if allowed == Types::STRING {
        return None;
    }
    let trimmed = py_trim(text);
    let value = serde_json::from_str(trimmed).ok().or_else(|| literal::parse(trimmed))?;
    (!value.is_string() && allowed.allows(&value)).then_some(value)
}

/// Arguments that came as JSON. A string where the schema wants another type is read as text would be; a number or
/// boolean where it wants a string alone becomes that string. The rest is left for validation.
pub fn from_json(arguments: Map<String, Value>, parameters: &Value) -> Map<String, Value> {
    let convert = |name: &str, value: Value| {
        let Some(schema) = of_parameter(parameters, name) else { return value };
        let allowed = types(schema, parameters);
        match &value {
            _ if allowed.allows(&value) => value,
            Value::String(text) => typed(text, allowed).unwrap_or(value),
            Value::Number(_) | Value::Bool(_) if allowed == Types::STRING => Value::String(value.to_string()),
            _ => value,
        }
    };
    arguments
        .into_iter()
        .map(|(name, value)| {
            let value = convert(&name, value);
            (name, value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parameters() -> Value {
        json!({
            "type": "object",
            "$defs": {"line": {"type": "integer"}},
            "properties": {
                "s": {"type": "string"}, "i": {"type": "integer"}, "n": {"type": "number"},
                "b": {"type": "boolean"}, "a": {"type": "array"}, "o": {"type": "object"},
                "si": {"type": ["string", "integer", "null"]}, "any": {},
                "ref": {"$ref": "#/$defs/line"},
                "union": {"anyOf": [{"type": "boolean"}, {"type": "array"}, {"type": "string"}]}
            }
        })
    }

    #[test]
    fn the_most_specific_type_that_parses() {
        for (name, text, value) in [
            ("s", "null", json!("null")),
            ("s", "5", json!("5")),
            ("s", "&lt;b&gt;", json!("&lt;b&gt;")),
            ("s", " x ", json!(" x ")),
            ("i", "5", json!(5)),
            ("i", " 5\n", json!(5)),
            ("i", "5.5", json!("5.5")),
            ("i", "five", json!("five")),
            ("i", "99999999999999999999", json!("99999999999999999999")),
            ("n", "5", json!(5)),
            ("n", "5.5", json!(5.5)),
            ("n", "NaN", json!("NaN")),
            ("n", "Infinity", json!("Infinity")),
            ("n", "1e999", json!("1e999")),
            ("b", "true", json!(true)),
            ("b", "True", json!(true)),
            ("b", "yes", json!("yes")),
            ("b", "1", json!("1")),
            ("a", "[1, \"x\"]", json!([1, "x"])),
            ("a", "['x', None]", json!(["x", null])),
            ("a", "[NaN]", json!("[NaN]")),
            ("o", "{\"k\": 1}", json!({"k": 1})),
            ("o", "{'k': True}", json!({"k": true})),
            ("o", "[1]", json!("[1]")),
            ("si", "null", json!(null)),
            ("si", "None", json!(null)),
            ("si", "7", json!(7)),
            ("si", "7.5", json!("7.5")),
            ("si", "\"x\"", json!("\"x\"")),
            ("ref", "12", json!(12)),
            ("union", "false", json!(false)),
            ("union", "[]", json!([])),
            ("union", "12", json!("12")),
            ("any", "12", json!(12)),
            ("any", "word", json!("word")),
            ("unheard_of", "12", json!("12")),
        ] {
            assert_eq!(from_text(text, name, &parameters()), value, "{name}: {text}");
        }
        assert_eq!(from_text("12", "i", &Value::Null), json!("12"));
    }

    #[test]
    fn json_arguments_follow_the_schema_too() {
        let given =
            json!({"i": "5", "s": 5, "b": "True", "a": "[1]", "n": 2, "si": "3", "x": "1", "o": "no"});
        let wanted = json!({"i": 5, "s": "5", "b": true, "a": [1], "n": 2, "si": "3", "x": "1", "o": "no"});
        let Value::Object(given) = given else { unreachable!() };
        assert_eq!(Value::Object(from_json(given, &parameters())), wanted);
    }
}
