//! Python literals as JSON: models trained on Python write `True`, `None`, `{'a': 1}` and `(1, 2)` where JSON was
//! asked for. Reads what `ast.literal_eval` reads and JSON can say; anything else, infinities included, is `None`.

use serde_json::{Map, Number, Value};

const MAX_DEPTH: usize = 100;

pub fn parse(text: &str) -> Option<Value> {
    let mut reader = Reader { rest: text };
    reader.space();
    let value = reader.value(0)?;
    reader.space();
    reader.rest.is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.rest.chars().next()? {
            '[' => self.sequence("[", "]", depth).map(|(items, _)| Value::Array(items)),
            '(' => {
                let (mut items, commas) = self.sequence("(", ")", depth)?;
                // `(1)` is 1 in brackets, `(1,)` is a tuple.
                if items.len() == 1 && commas == 0 { items.pop() } else { Some(Value::Array(items)) }
            }
            '{' => self.dict(depth),
            '\'' | '"' | 'r' | 'R' | 'u' | 'U' => self.strings(),
            _ => self.word(),
        }
    }

    fn sequence(&mut self, open: &str, close: &str, depth: usize) -> Option<(Vec<Value>, usize)> {
        let (mut items, mut commas) = (Vec::new(), 0);
        self.eat(open);
        loop {
            self.space();
            if self.eat(close) {
                return Some((items, commas));
            }
            if items.len() > commas {
                return None;
            }
            items.push(self.value(depth + 1)?);
            self.space();
            commas += usize::from(self.eat(","));
        }
    }

    fn dict(&mut self, depth: usize) -> Option<Value> {
        let (mut map, mut comma) = (Map::new(), true);
        self.eat("{");
        loop {
            self.space();
            if self.eat("}") {
                return Some(Value::Object(map));
            }
            if !comma {
                return None;
            }
            let Value::String(key) = self.value(depth + 1)? else { return None };
            self.space();
            if !self.eat(":") {
                return None;
            }
            self.space();
            let value = self.value(depth + 1)?;
            map.insert(key, value);
            self.space();
            comma = self.eat(",");
        }
    }

    /// Neighbouring strings are one.
    fn strings(&mut self) -> Option<Value> {
        let mut out = String::new();
        loop {
            self.string(&mut out)?;
            self.space();
            if !matches!(self.rest.chars().next(), Some('\'' | '"')) {
                return Some(Value::String(out));
            }
        }
    }

    fn string(&mut self, out: &mut String) -> Option<()> {
        let raw = self.eat("r") || self.eat("R");
        if !raw {
            let _ = self.eat("u") || self.eat("U");
        }
        let quote = ["'''", "\"\"\"", "'", "\""].into_iter().find(|quote| self.rest.starts_with(quote))?;
        self.eat(quote);
        loop {
            if self.eat(quote) {
                return Some(());
            }
            let c = self.next()?;
            match c {
                '\n' if quote.len() == 1 => return None,
                '\\' if raw => {
                    out.push('\\');
                    out.push(self.next()?);
                }
                '\\' => self.escape(out)?,
                c => out.push(c),
            }
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn escape(&mut self, out: &mut String) -> Option<()> {
        let c = self.next()?;
        match c {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(c),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'v' => out.push('\u{b}'),
            '0'..='7' => {
                let more = self.rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
                let code = u32::from_str_radix(&format!("{c}{}", &self.rest[..more]), 8).ok()?;
                self.rest = &self.rest[more..];
                out.push(char::from_u32(code)?);
            }
            'x' => out.push(self.hex(2)?),
            'u' => out.push(self.hex(4)?),
            'U' => out.push(self.hex(8)?),
            'N' => return None,
            c => {
                out.push('\\');
                out.push(c);
            }
        }
        Some(())
    }

    fn hex(&mut self, digits: usize) -> Option<char> {
        let text = self.rest.get(..digits)?;
        if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        self.rest = &self.rest[digits..];
        char::from_u32(u32::from_str_radix(text, 16).ok()?)
    }

    fn word(&mut self) -> Option<Value> {
        let is_end = |c: char| ",:]})[({'\" \t\r\n\u{c}".contains(c);
        let mut end = self.rest.find(is_end).unwrap_or(self.rest.len());
        if end == 1 && self.rest.starts_with(['-', '+']) {
            // A sign may stand apart from its number.
            let tail = self.rest[1..].trim_start();
            end = self.rest.len() - tail.len() + tail.find(is_end).unwrap_or(tail.len());
        }
        let word = &self.rest[..end];
        let value = match word {
            "None" => Value::Null,
            "True" => Value::Bool(true),
            "False" => Value::Bool(false),
            _ => number(word)?,
        };
        self.rest = &self.rest[end..];
        Some(value)
    }
}

fn number(word: &str) -> Option<Value> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(rest) => ("-", rest.trim_start()),
        None => ("", word.strip_prefix('+').map_or(word, str::trim_start)),
    };
    // Underscores stand between digits only.
    let misplaced = digits.starts_with('_') || digits.ends_with('_') || digits.contains("__");
    if misplaced || !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let digits = digits.replace('_', "").to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(rest) = digits.strip_prefix(prefix) {
            if rest.starts_with(['+', '-']) {
                return None;
            }
            let magnitude = i64::from_str_radix(rest, radix).ok()?;
            return Some(Value::from(if sign.is_empty() { magnitude } else { -magnitude }));
        }
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        if digits.len() > 1 && digits.starts_with('0') && digits.bytes().any(|b| b != b'0') {
            return None;
        }
        let text = format!("{sign}{digits}");
        return text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from)).ok();
    }
    if !digits.bytes().all(|b| b.is_ascii_digit() || b".e+-".contains(&b)) || digits == "." {
        return None;
    }
    let x: f64 = format!("{sign}{digits}").parse().ok()?;
    Number::from_f64(x).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_python_literals() {
        for (text, value) in [
            ("True", json!(true)),
            (" None ", json!(null)),
            ("{'a': [1, 2.5, 'x'], \"b\": (1,), 'c': (2)}", json!({"a": [1, 2.5, "x"], "b": [1], "c": 2})),
            ("['it\\'s', r'\\d', '''two\nlines''', 'a' 'b']", json!(["it's", "\\d", "two\nlines", "ab"])),
            ("[1, 2,]", json!([1, 2])),
            ("()", json!([])),
            ("+5", json!(5)),
            ("- 5", json!(-5)),
            ("0x10", json!(16)),
            ("1_000", json!(1000)),
            ("1e3", json!(1000.0)),
            ("'\\x41\\u00e9\\101'", json!("AéA")),
        ] {
            assert_eq!(parse(text), Some(value), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_literal() {
        for text in [
            "", "true", "nan", "inf", "1e999", "[1e999]", "{1, 2}", "{1: 2}", "f(x)", "[1 2]", "[,]",
            "'open", "05", "1__0", "_1", "1 2", "b'x'", "x", "'a\nb'", "0x-5", "-", ".", "{'a' 1}", "[",
            "\\",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&"[".repeat(100_000)), None);
    }
}
