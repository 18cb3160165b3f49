//! JSON as small models write it. Finds where an object ends while it streams, and reads it with the repairs that leave
//! no doubt: raw line breaks inside strings, backslashes that escape nothing, doubled braces (the example in the
//! Qwen2.5-Coder prompt has them), closing braces left out before a closing tag, Python literals. An open string is
//! never closed for the model: what is cut off stays cut off.

use super::literal;
use serde_json::Value;
use std::borrow::Cow;

/// Looks for the end of an object, byte by byte, and keeps its place between calls.
#[derive(Debug, Clone, Default)]
pub struct ObjectScan {
    depth: usize,
    /// The quote that opened the string we are in.
    quote: Option<u8>,
    escaped: bool,
    /// Bytes looked at.
    offset: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// The braces balance; the object is so many bytes long.
    Balanced(usize),
    /// A tag stands outside of strings amid the object.
    Tag(usize),
    More,
}

impl ObjectScan {
    /// `text` begins at the object and holds at least what earlier calls saw.
    pub fn run(&mut self, text: &str) -> Scan {
        for (i, &byte) in text.as_bytes().iter().enumerate().skip(self.offset) {
            self.offset = i + 1;
            match (self.quote, byte) {
                (Some(_), _) if self.escaped => self.escaped = false,
                (Some(_), b'\\') => self.escaped = true,
                (Some(quote), _) if byte == quote => self.quote = None,
                (Some(_), _) => {}
                (None, b'"' | b'\'') => self.quote = Some(byte),
                (None, b'{') => self.depth += 1,
                (None, b'}') if self.depth <= 1 => return Scan::Balanced(i + 1),
                (None, b'}') => self.depth -= 1,
                (None, b'<') => {
                    self.offset = i;
                    return Scan::Tag(i);
                }
                (None, _) => {}
            }
        }
        Scan::More
    }

    /// Goes on behind a `<` that was no tag.
    pub fn skip(&mut self) {
        self.offset += 1;
    }
}

/// Reads one object, repairing what is unambiguous; else the reason why it is none.
pub fn object(text: &str) -> Result<Value, String> {
    let text = text.trim();
    let strict = serde_json::from_str::<Value>(text);
    let reason = match strict {
        Ok(value) if value.is_object() => return Ok(value),
        Ok(_) => return Err("it is not a JSON object".into()),
        Err(error) => error.to_string(),
    };
    let strings = repair_strings(text);
    let mut readings: Vec<Cow<'_, str>> = vec![strings.clone()];
    if let Some(inner) = text.strip_prefix('{').filter(|inner| inner.starts_with('{')) {
        let inner = repair_strings(inner).into_owned();
        if let Some(stripped) = inner.strip_suffix('}') {
            readings.push(stripped.to_string().into());
        }
        readings.push(halve_braces(&strings).into());
        readings.push(inner.clone().into());
        readings.extend(close(&inner).map(Cow::from));
    }
    readings.extend(close(&strings).map(Cow::from));
    for reading in &readings {
        let value = serde_json::from_str::<Value>(reading).ok().or_else(|| literal::parse(reading));
        if let Some(value) = value.filter(Value::is_object) {
            return Ok(value);
        }
    }
    Err(reason)
}

/// Escapes control characters inside strings, and backslashes that begin no JSON escape.
fn repair_strings(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut in_string = false;
    let mut changed = false;
    let mut chars = text.char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => in_string = !in_string,
            '\\' if in_string => {
                let next = chars.peek().map(|(_, next)| *next);
                let hex = |at: usize| {
                    text.get(at..at + 4).is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
                };
                match next {
                    Some('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => {
                        out.push(c);
                        out.extend(chars.next().map(|(_, c)| c));
                        continue;
                    }
                    Some('u') if hex(i + 2) => {}
                    Some('\'') => {
                        changed = true;
                        continue;
                    }
                    _ => {
                        changed = true;
                        out.push('\\');
                    }
                }
            }
            c if c < ' ' && in_string => {
                changed = true;
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
                continue;
            }
            _ => {}
        }
        out.push(c);
    }
    if changed { Cow::Owned(out) } else { Cow::Borrowed(text) }
}

/// Calls `each` with every character and whether it stands inside a string.
fn outside_strings(text: &str, mut each: impl FnMut(char, bool)) -> bool {
    let (mut in_string, mut escaped) = (false, false);
    for c in text.chars() {
        let inside = in_string;
        if in_string {
            if escaped {
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == '"' {
                in_string = false;
            }
        } else if c == '"' {
            in_string = true;
        }
        each(c, inside);
    }
    in_string
}

/// Every run of braces at half its length, for objects that double all of them.
fn halve_braces(text: &str) -> String {
    let mut out = String::new();
    let mut run = 0;
    outside_strings(text, |c, inside| {
        let brace = !inside && (c == '{' || c == '}');
        run = if brace && (run == 0 || out.ends_with(c)) { run + 1 } else { usize::from(brace) };
        if !brace || run % 2 == 1 {
            out.push(c);
        }
    });
    out
}

/// Adds the closing braces and brackets that are missing at the end; none if a string is open.
fn close(text: &str) -> Option<String> {
    let mut open = Vec::new();
    let in_string = outside_strings(text, |c, inside| match c {
        _ if inside => {}
        '{' => open.push('}'),
        '[' => open.push(']'),
        '}' | ']' => {
            open.pop();
        }
        _ => {}
    });
    if in_string || open.is_empty() {
        return None;
    }
    Some(text.chars().chain(open.into_iter().rev()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn repairs_what_is_unambiguous() {
        for (text, value) in [
            (r#"{"a": 1}"#, json!({"a": 1})),
            (r#"{{"a": {"b": 1}}}"#, json!({"a": {"b": 1}})),
            (r#"{{"a": {{"b": "{{x}}"}}}}"#, json!({"a": {"b": "{{x}}"}})),
            (r#"{{"a": {"b": 1}}"#, json!({"a": {"b": 1}})),
            (r#"{{"a": 1}"#, json!({"a": 1})),
            (r#"{"a": {"b": [1"#, json!({"a": {"b": [1]}})),
            ("{\"a\": \"x\ny\tz\"}", json!({"a": "x\ny\tz"})),
            (r#"{"a": "\d\'\u00e9\uzz\\"}"#, json!({"a": "\\d'é\\uzz\\"})),
            ("{'a': 'it', 'b': None}", json!({"a": "it", "b": null})),
        ] {
            assert_eq!(object(text), Ok(value), "{text}");
        }
        for text in [r#"{"a": "open"#, r#"{"a": "x "y" z"}"#, "{a}", "[1]", r#"{"a": tru"#, ""] {
            assert!(object(text).is_err(), "{text}");
        }
    }

    #[test]
    fn finds_the_end_byte_by_byte() {
        let text = r#"{"a": "}{\"<", "b": {"c": '}'}} rest"#;
        let mut scan = ObjectScan::default();
        for end in 1..text.len() - 5 {
            assert_eq!(scan.run(&text[..end]), Scan::More, "{end}");
        }
        assert_eq!(scan.run(text), Scan::Balanced(text.len() - 5));
        assert_eq!(ObjectScan::default().run("{\"a\": 1 </tool_call>"), Scan::Tag(8));
    }
}
