//! Arguments as models write them: a number as text, a path under its other usual name, an empty string for nothing.
//! What cannot be read is an error that names the tool, the argument and its type.

use super::{Arguments, ToolError};
use serde_json::Value;

/// A text that must be there; it may be empty.
pub fn text<'a>(tool: &str, arguments: &'a Arguments, name: &str) -> Result<&'a str, ToolError> {
    match find(arguments, name) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(wrong(tool, name, "text", other)),
        None => Err(ToolError::ToModel(format!("{tool} needs {name}; call it again with {name}"))),
    }
}

/// A text that may be missing; empty counts as missing.
pub fn optional_text<'a>(
    tool: &str,
    arguments: &'a Arguments,
    name: &str,
) -> Result<Option<&'a str>, ToolError> {
    match find(arguments, name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok((!text.trim().is_empty()).then_some(text)),
        Some(other) => Err(wrong(tool, name, "text", other)),
    }
}

/// A whole number that is not negative.
pub fn optional_count(tool: &str, arguments: &Arguments, name: &str) -> Result<Option<usize>, ToolError> {
    let read = |value: &Value| match value {
        Value::Number(number) => number
            .as_u64()
            .or_else(|| number.as_f64().filter(|n| *n >= 0.0 && n.fract() == 0.0).map(|n| n as u64)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match find(arguments, name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(value) => match read(value).and_then(|n| usize::try_from(n).ok()) {
            Some(count) => Ok(Some(count)),
            None => Err(wrong(tool, name, "a whole number", value)),
        },
    }
}

pub fn flag(tool: &str, arguments: &Arguments, name: &str) -> Result<bool, ToolError> {
    match find(arguments, name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(false),
        Some(Value::String(text)) if text.trim().eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.trim().eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => Err(wrong(tool, name, "true or false", other)),
    }
}

/// For the one line that the user sees; whatever is wrong with the argument is said when the call runs.
pub fn shown<'a>(arguments: &'a Arguments, name: &str) -> &'a str {
    find(arguments, name).and_then(Value::as_str).unwrap_or("?")
}

fn find<'a>(arguments: &'a Arguments, name: &str) -> Option<&'a Value> {
    let other_names: &[&str] = match name {
        "file_path" => &["path", "absolute_path", "filename"],
        "path" => &["file_path", "directory", "dir_path"],
        "glob" => &["include"],
        _ => &[],
    };
    arguments.get(name).or_else(|| other_names.iter().find_map(|other| arguments.get(*other)))
}

fn wrong(tool: &str, name: &str, wanted: &str, value: &Value) -> ToolError {
    let got = match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    ToolError::ToModel(format!("{tool}: {name} must be {wanted}, not {got}; call it again with {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn arguments(value: Value) -> Arguments {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn values_are_read_as_models_write_them() {
        let given = arguments(
            json!({"path": "a.rs", "offset": "12", "limit": 3.0, "replace_all": "True", "glob": ""}),
        );
        assert_eq!(text("t", &given, "file_path").unwrap(), "a.rs");
        assert_eq!(optional_count("t", &given, "offset").unwrap(), Some(12));
        assert_eq!(optional_count("t", &given, "limit").unwrap(), Some(3));
        assert!(flag("t", &given, "replace_all").unwrap());
        assert_eq!(optional_text("t", &given, "glob").unwrap(), None);
    }

    #[test]
    fn what_cannot_be_read_names_the_argument() {
        let given = arguments(json!({"file_path": 3, "limit": -1, "offset": 1.5, "replace_all": "perhaps"}));
        for error in [
            text("t", &given, "file_path").map(|_| ()).unwrap_err(),
            text("t", &given, "content").map(|_| ()).unwrap_err(),
            optional_count("t", &given, "limit").map(|_| ()).unwrap_err(),
            optional_count("t", &given, "offset").map(|_| ()).unwrap_err(),
            flag("t", &given, "replace_all").map(|_| ()).unwrap_err(),
        ] {
            let message = error.to_string();
            assert!(message.starts_with('t') && message.contains("call it again"), "{message}");
        }
    }
}
