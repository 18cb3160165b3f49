//! What a JSON schema says about one value: which types it may have, with `$ref`, `anyOf`, `oneOf`, `allOf`, type
//! lists, `enum` and `const` followed. Shared by the conversion of arguments and by validation. Schemas come from
//! tools and MCP servers, so they may be circular or nonsense: depth is bounded and nonsense allows everything.

use serde_json::Value;
use std::ops::{BitAnd, BitOr};

/// How many schemas one question may visit. Circular ones run into this and are taken to allow everything.
const MAX_VISITS: usize = 100;

/// A set of JSON types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Types(u8);

impl Types {
    pub const NULL: Types = Types(1);
    pub const BOOLEAN: Types = Types(2);
    pub const INTEGER: Types = Types(4);
    pub const NUMBER: Types = Types(8);
    pub const ARRAY: Types = Types(16);
    pub const OBJECT: Types = Types(32);
    pub const STRING: Types = Types(64);
    pub const NONE: Types = Types(0);
    pub const ALL: Types = Types(127);

    pub fn has(self, other: Types) -> bool {
        self.0 & other.0 != 0
    }

    /// May `value` stand where this set is asked for? Every integer is a number too.
    pub fn allows(self, value: &Value) -> bool {
        self.has(Types::of(value)) || (Types::of(value) == Types::INTEGER && self.has(Types::NUMBER))
    }

    pub fn of(value: &Value) -> Types {
        match value {
            Value::Null => Types::NULL,
            Value::Bool(_) => Types::BOOLEAN,
            Value::Number(n) if n.is_f64() => Types::NUMBER,
            Value::Number(_) => Types::INTEGER,
            Value::String(_) => Types::STRING,
            Value::Array(_) => Types::ARRAY,
            Value::Object(_) => Types::OBJECT,
        }
    }

    /// The type of that name; also the names that Python-minded schemas use. An unknown name means text.
    fn named(name: &str) -> Types {
        match name.to_ascii_lowercase().as_str() {
            "null" | "none" => Types::NULL,
            "boolean" | "bool" => Types::BOOLEAN,
            "integer" | "int" => Types::INTEGER,
            "number" | "float" | "double" => Types::NUMBER,
            "array" | "list" | "tuple" => Types::ARRAY,
            "object" | "dict" => Types::OBJECT,
            "any" => Types::ALL,
            _ => Types::STRING,
        }
    }

    /// Every number may be an integer: "number" on one side and "integer" on the other leave integers.
    fn widened(self) -> Types {
        if self.has(Types::NUMBER) { self | Types::INTEGER } else { self }
    }

    /// "a string", "an integer or null": for messages.
    pub fn describe(self) -> String {
        const WORDS: [(Types, &str); 7] = [
            (Types::STRING, "a string"),
            (Types::INTEGER, "an integer"),
            (Types::NUMBER, "a number"),
            (Types::BOOLEAN, "true or false"),
            (Types::ARRAY, "an array"),
            (Types::OBJECT, "an object"),
            (Types::NULL, "null"),
        ];
        let said = |t: Types| self.has(t) && !(t == Types::INTEGER && self.has(Types::NUMBER));
        let words: Vec<&str> = WORDS.iter().filter(|(t, _)| said(*t)).map(|(_, word)| *word).collect();
        words.join(" or ")
    }
}

impl BitAnd for Types {
    type Output = Types;
    fn bitand(self, other: Types) -> Types {
        Types(self.widened().0 & other.widened().0)
    }
}

impl BitOr for Types {
    type Output = Types;
    fn bitor(self, other: Types) -> Types {
        Types(self.0 | other.0)
    }
}

/// The types that `schema` allows; `root` is the document that `$ref` points into.
pub fn types(schema: &Value, root: &Value) -> Types {
    types_at(schema, root, &mut 0)
}

fn types_at(schema: &Value, root: &Value, visits: &mut usize) -> Types {
    let Some(map) = schema.as_object() else {
        return if schema == &Value::Bool(false) { Types::NONE } else { Types::ALL };
    };
    *visits += 1;
    if *visits > MAX_VISITS {
        return Types::ALL;
    }
    let mut found = match map.get("type") {
        Some(Value::String(name)) => Types::named(name),
        Some(Value::Array(names)) => union(names.iter().filter_map(Value::as_str).map(Types::named)),
        _ => Types::ALL,
    };
    if found == Types::ALL {
        // Without a type its keywords still tell what is meant.
        if map.contains_key("properties") {
            found = Types::OBJECT;
        } else if map.contains_key("items") {
            found = Types::ARRAY;
        }
    }
    if let Some(values) = map.get("enum").and_then(Value::as_array) {
        found = found & union(values.iter().map(Types::of));
    }
    if let Some(value) = map.get("const") {
        found = found & Types::of(value);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(choices) = map.get(key).and_then(Value::as_array) {
            found = found & union(choices.iter().map(|choice| types_at(choice, root, visits)));
        }
    }
    for part in map.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        found = found & types_at(part, root, visits);
    }
    if let Some(target) = reference(schema, root) {
        found = found & types_at(target, root, visits);
    }
    if map.get("nullable") == Some(&Value::Bool(true)) {
        found = found | Types::NULL;
    }
    if found == Types::NONE { Types::ALL } else { found }
}

fn union(types: impl Iterator<Item = Types>) -> Types {
    let all = types.fold(Types::NONE, |a, b| a | b);
    if all == Types::NONE { Types::ALL } else { all }
}

/// The schema that `$ref` names, if it lies in this document.
pub fn reference<'a>(schema: &Value, root: &'a Value) -> Option<&'a Value> {
    let pointer = schema.get("$ref")?.as_str()?.strip_prefix('#')?;
    root.pointer(pointer)
}

/// The schema of one parameter of a tool, or what the tool says of parameters it does not name.
pub fn of_parameter<'a>(parameters: &'a Value, name: &str) -> Option<&'a Value> {
    named_parameter(parameters, name)
        .or_else(|| parameters.get("additionalProperties").filter(|s| s.is_object()))
}

/// The schema of a parameter that the tool names.
pub fn named_parameter<'a>(parameters: &'a Value, name: &str) -> Option<&'a Value> {
    property(parameters, parameters, name, &mut 0)
}

fn property<'a>(schema: &'a Value, root: &'a Value, name: &str, visits: &mut usize) -> Option<&'a Value> {
    *visits += 1;
    if *visits > MAX_VISITS {
        return None;
    }
    if let Some(found) = schema.get("properties").and_then(|p| p.get(name)) {
        return Some(found);
    }
    let parts = ["allOf", "anyOf", "oneOf"].into_iter();
    let mut parts =
        parts.filter_map(|key| schema.get(key)?.as_array()).flatten().chain(reference(schema, root));
    parts.find_map(|part| property(part, root, name, visits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn circular_schemas_end_soon() {
        let root = json!({"x": {"anyOf": [{"$ref": "#/x"}, {"$ref": "#/x"}], "allOf": [{"$ref": "#/x"}]}});
        assert_eq!(types(&root["x"], &root), Types::ALL);
        assert_eq!(of_parameter(&json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}), "p"), None);
    }

    #[test]
    fn types_follow_every_keyword() {
        let root = json!({
            "$defs": {
                "line": {"type": "integer"},
                "loop": {"$ref": "#/$defs/loop"},
                "a/b": {"type": "boolean"}
            }
        });
        let cases = [
            (json!({"type": "string"}), Types::STRING),
            (json!({"type": ["integer", "null"]}), Types::INTEGER | Types::NULL),
            (json!({"$ref": "#/$defs/line"}), Types::INTEGER),
            (json!({"$ref": "#/$defs/a~1b"}), Types::BOOLEAN),
            (json!({"$ref": "#/$defs/loop"}), Types::ALL),
            (json!({"$ref": "#/nowhere"}), Types::ALL),
            (
                json!({"anyOf": [{"type": "string"}, {"$ref": "#/$defs/line"}]}),
                Types::STRING | Types::INTEGER,
            ),
            (json!({"allOf": [{"type": ["string", "integer"]}, {"type": "number"}]}), Types::INTEGER),
            (json!({"enum": ["a", "b"]}), Types::STRING),
            (json!({"const": 3}), Types::INTEGER),
            (json!({"type": "string", "nullable": true}), Types::STRING | Types::NULL),
            (json!({"items": {}}), Types::ARRAY),
            (json!({"description": "whatever"}), Types::ALL),
            (json!(true), Types::ALL),
        ];
        for (schema, expected) in cases {
            assert_eq!(types(&schema, &root), expected, "{schema}");
        }
    }
}
