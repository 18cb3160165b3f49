//! JSON as the templates print it and as models write it: spaced output like Python's, lenient input (line breaks
//! inside strings, stray escapes), and conversion of a value by its schema.

use serde_json::{Map, Value};

/// JSON with `, ` and `: `, nothing escaped that need not be.
pub fn spaced(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(spaced).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let items: Vec<String> =
                map.iter().map(|(k, v)| format!("{}: {}", Value::String(k.clone()), spaced(v))).collect();
            format!("{{{}}}", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// A value as the XML format writes it: strings verbatim, containers as JSON, the rest as Python prints it.
pub fn python(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Null => "None".into(),
        other => spaced(other),
    }
}

/// A type or a list of types, the list as Python prints it: `['integer', 'null']`.
pub fn python_list(value: &Value) -> String {
    let Value::Array(items) = value else { return python(value) };
    let items: Vec<String> = items
        .iter()
        .map(|item| match item {
            Value::String(text) => format!("'{text}'"),
            other => python(other),
        })
        .collect();
    format!("[{}]", items.join(", "))
}

/// Where the object that begins at `text[0] == '{'` ends (exclusive), braces inside strings not counted.
pub fn object_end(text: &str) -> Option<usize> {
    let (mut depth, mut inside, mut escaped) = (0usize, false, false);
    for (i, byte) in text.bytes().enumerate() {
        if escaped {
            escaped = false;
        } else if inside {
            match byte {
                b'\\' => escaped = true,
                b'"' => inside = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => inside = true,
                b'{' => depth += 1,
                b'}' => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return Some(i + 1);
                    }
                }
                _ => {}
            }
        }
    }
    None
}

/// Parses JSON as small models write it: raw line breaks and tabs inside strings, escapes JSON does not know, doubled
/// braces around the whole.
pub fn lenient(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    let repaired = repair(text);
    if let Ok(value) = serde_json::from_str(&repaired) {
        return Some(value);
    }
    let inner = repaired.strip_prefix('{')?.strip_suffix('}')?.trim();
    if inner.starts_with('{') { serde_json::from_str(inner).ok() } else { None }
}

fn repair(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut inside = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                inside = !inside;
                out.push(c);
            }
            '\\' if inside => match chars.next() {
                Some(next @ ('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' | 'u')) => {
                    out.push('\\');
                    out.push(next);
                }
                Some('\'') => out.push('\''),
                Some('\n') => out.push_str("\\n"),
                Some(next) => {
                    out.push_str("\\\\");
                    out.push(next);
                }
                None => out.push_str("\\\\"),
            },
            '\n' if inside => out.push_str("\\n"),
            '\r' if inside => out.push_str("\\r"),
            '\t' if inside => out.push_str("\\t"),
            c if inside && c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

/// JSON type names a schema admits; empty: anything. `$ref` and the combinations are followed to a bounded depth.
fn types(schema: &Value, root: &Value, depth: usize) -> Vec<String> {
    if depth > 8 {
        return Vec::new();
    }
    let mut found = Vec::new();
    match schema.get("type") {
        Some(Value::String(one)) => found.push(one.clone()),
        Some(Value::Array(many)) => found.extend(many.iter().filter_map(Value::as_str).map(String::from)),
        _ => {}
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        for part in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
            found.extend(types(part, root, depth + 1));
        }
    }
    if let Some(path) = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#')) {
        if let Some(target) = root.pointer(path) {
            found.extend(types(target, root, depth + 1));
        }
    }
    if found.is_empty() {
        for value in schema.get("enum").and_then(Value::as_array).into_iter().flatten() {
            found.push(type_name(value).into());
        }
    }
    found
}

pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_i64() || n.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A value that was written as text, by its schema: the most specific type that parses; otherwise the text itself.
pub fn convert_text(text: &str, schema: &Value, root: &Value) -> Value {
    let kinds = types(schema, root, 0);
    let admits = |kind: &str| kinds.iter().any(|k| k == kind);
    if kinds.is_empty() || kinds.iter().all(|kind| kind == "string") {
        return Value::String(text.into());
    }
    let trimmed = text.trim();
    if admits("null") && matches!(trimmed, "null" | "None" | "none") {
        return Value::Null;
    }
    if admits("boolean") && matches!(trimmed.to_lowercase().as_str(), "true" | "false") {
        return Value::Bool(trimmed.eq_ignore_ascii_case("true"));
    }
    if admits("integer") || admits("number") {
        if let Ok(n) = trimmed.parse::<i64>() {
            return n.into();
        }
        if let Ok(x) = trimmed.parse::<f64>() {
            if x.is_finite() && admits("integer") && !admits("number") && x.fract() == 0.0 && x.abs() < 9e15 {
                return (x as i64).into();
            }
            if let Some(n) = serde_json::Number::from_f64(x).filter(|_| admits("number")) {
                return Value::Number(n);
            }
        }
    }
    if admits("array") || admits("object") {
        let parsed = lenient(trimmed).or_else(|| serde_json::from_str(&unpython(trimmed)).ok());
        if let Some(value) = parsed.filter(|value| admits(type_name(value))) {
            return value;
        }
    }
    Value::String(text.into())
}

/// A Python literal's quotes and constants as JSON's; what is no literal comes out as no JSON either.
fn unpython(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '\'' | '"') => {
                quote = Some(c);
                out.push('"');
            }
            (Some(q), c) if c == q => {
                quote = None;
                out.push('"');
            }
            (Some(_), '"') => out.push_str("\\\""),
            (Some(_), '\\') => match chars.next() {
                Some('\'') => out.push('\''),
                Some(next) => {
                    out.push('\\');
                    out.push(next);
                }
                None => {}
            },
            (None, c) if c.is_alphabetic() => {
                let mut word = String::from(c);
                while let Some(c) = chars.next_if(|c| c.is_alphanumeric()) {
                    word.push(c);
                }
                out.push_str(match word.as_str() {
                    "True" => "true",
                    "False" => "false",
                    "None" => "null",
                    other => other,
                });
            }
            (_, c) => out.push(c),
        }
    }
    out
}

/// Arguments that came as JSON, by the tool's schema: text for a number becomes the number, and the other way round.
pub fn convert_arguments(arguments: Map<String, Value>, parameters: &Value) -> Map<String, Value> {
    let convert = |key: &str, value: Value| -> Value {
        let Some(schema) = parameters.get("properties").and_then(|p| p.get(key)) else { return value };
        let kinds = types(schema, parameters, 0);
        match value {
            Value::String(text) => convert_text(&text, schema, parameters),
            value if !kinds.is_empty() && kinds.iter().all(|kind| kind == "string") && !value.is_null() => {
                Value::String(match &value {
                    Value::Number(_) | Value::Bool(_) => value.to_string(),
                    other => spaced(other),
                })
            }
            value => value,
        }
    };
    arguments.into_iter().map(|(key, value)| { let value = convert(&key, value); (key, value) }).collect()
}

/// What is wrong with a call's arguments, in words the model can act on.
pub fn validate(call: &super::ToolCall, spec: &super::ToolSpec) -> Result<(), String> {
    let empty = Map::new();
    let properties = spec.parameters.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let names: Vec<&str> = properties.keys().map(String::as_str).collect();
    for name in spec.parameters.get("required").and_then(Value::as_array).into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        if !call.arguments.contains_key(name) {
            return Err(format!("{}: the required parameter `{name}` is missing", call.name));
        }
    }
    for (key, value) in &call.arguments {
        let Some(schema) = properties.get(key) else {
            let names = names.join("`, `");
            return Err(format!("{}: there is no parameter `{key}`; the parameters are `{names}`", call.name));
        };
        let kinds = types(schema, &spec.parameters, 0);
        let kind = type_name(value);
        let fits = kinds.is_empty() || kinds.iter().any(|k| k == kind || (k == "number" && kind == "integer"));
        if !fits {
            return Err(format!("{}: `{key}` must be {}, not {kind}", call.name, kinds.join(" or ")));
        }
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
            if !allowed.contains(value) {
                return Err(format!("{}: `{key}` must be one of {}", call.name, spaced(&Value::Array(allowed.clone()))));
            }
        }
    }
    Ok(())
}
