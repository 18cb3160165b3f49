//! What the masks admit, on random walks: a checker of its own, apart from the parser, finds every call well-formed, and
//! the parser reads it just so. Values held to the workspace are held against the disk.

use crate::real_model::model_path;
use proptest::prelude::*;
use qwright::agent::{SessionOptions, WorkspaceValues, offered_tools, opening_messages};
use qwright::chat::{ChatFormat, Parsed, ToolCallParser, ToolSpec, validate};
use qwright::engine::EngineOptions;
use qwright::engine::gguf::Gguf;
use qwright::engine::kv::KvType;
use qwright::engine::tokenizer::{Parts, Tokenizer};
use qwright::model::grammar::{Grammar, LiveValues, Turn};
use qwright::model::local::{Decoding, LocalModel, LocalOptions};
use qwright::model::{Model, Request, Sampling, StopReason};
use qwright::tools::Registry;
use qwright::workspace::Workspace;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Bytes, a few longer tokens that cross the borders of a call's marks, and the tags.
fn small_tokenizer() -> Tokenizer {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut others = '\u{100}'..;
    let letters: Vec<String> = (0..=255u8)
        .map(|b| if printable(b) { char::from(b) } else { others.next().unwrap() }.to_string())
        .collect();
    let spell = |text: &str| text.bytes().map(|b| letters[usize::from(b)].clone()).collect::<String>();
    let longer = [
        "</", "</p", ">\n", ">\n<", "\n</", "\n<", "\": ", "\",", "\"}", "}}", "{\"", "=f", "e\n", "\\n",
        "\n\n", " \"", "<f", "<t", "`\n", "``", "a\"", "\"\n", "/a", "a/", ": \"", "\r\n", "\r\n\r\n", "},",
        "[{", "}]", "tr", "1,",
    ];
    let mut tokens: Vec<String> = letters.clone();
    tokens.extend(longer.iter().map(|text| spell(text)));
    let added = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"];
    let kinds = tokens.iter().map(|_| 1).chain(added.iter().map(|_| 3)).collect();
    tokens.extend(added.iter().map(|text| text.to_string()));
    let parts = Parts {
        tokens: tokens.iter().map(|token| token.as_bytes()).collect(),
        merges: Vec::new(),
        kinds,
        pre: "qwen2",
        end_of_text: None,
    };
    Tokenizer::from_parts(&parts).unwrap()
}

/// A tool of every kind of parameter, beside the standard ones.
fn specs() -> Vec<ToolSpec> {
    let mut specs = Registry::standard().specs();
    let odd = json!({"name": "odd", "parameters": {"type": "object", "$defs": {"tree": {"type": "object",
        "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
        "required": ["name"]}},
        "properties": {
            "mode": {"type": "string", "enum": ["fast", "fas\"ter", "slow"]}, "count": {"type": "integer", "minimum": 1, "maximum": 40},
            "ratio": {"type": "number"}, "flag": {"type": "boolean"}, "level": {"enum": [1, 12, null, "x"]},
            "tree": {"$ref": "#/$defs/tree"}, "any": {}, "maybe": {"type": ["integer", "null"]},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
            "list": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
            "nested": {"anyOf": [{"type": "array", "items": {"type": "boolean"}}, {"type": "null"}]},
            "text": {"type": "string"}
        }, "required": ["mode", "count"]}});
    specs.push(serde_json::from_value(odd).unwrap());
    specs.push(serde_json::from_value(json!({"name": "bare"})).unwrap());
    specs
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
    fn one_of<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }
}

const SNIPPETS: &[&str] = &[
    "\n</parameter>\n",
    "</parameter>",
    "<parameter=",
    "</function>",
    "\n</function>\n",
    "\n</tool_call>",
    "</tool_call>",
    "<tool_call>",
    "<function=",
    ">",
    "\n",
    "\"",
    "}",
    "{",
    "[",
    "]",
    ",",
    ": ",
    " ",
    "true",
    "True",
    "null",
    "1",
    "-7",
    "0.5",
    "2e3",
    "\\n",
    "\\\"",
    "\\u00e9",
    "\\ud83d",
    "\\",
    "é",
    "\u{1f600}",
    "\u{a0}",
    "\r\n",
    "\t",
    "x",
    "fn main() {",
    "file_path",
    "content",
    "<parameter=content>",
    "<parameter=text>\n",
    "old_string",
    "new_string",
    "replace_all",
    "edit",
    "odd",
    "bare",
    "write_file",
    "src/a.rs",
    "./",
    "..",
    "/",
    ".git/x",
    "mode",
    "count",
    "tree",
    "list",
    "name",
    "children",
    "any",
    "fast",
    "\n</parameter>\n</function>",
    "</parameter> \n <parameter=",
    "```",
    "<parameter>",
    "</param",
    "</fun",
    "</parameter>\n",
    "</parameter></",
    "<\\/",
    "\\u000",
    "```json\n{\"name\": \"",
    "\n{\"name\": \"",
    "<tools>",
    "</think>",
    "  <parameter=mode>",
    "\n<parameter=count>",
    "</function>\n</tool_call>\n<tool_call>\n<function=edit>",
];

/// Random bytes, snippets and tokens that are admitted; the text when the answer may end after a call, or `None`.
fn walk(
    turn: &mut Turn<'_>,
    tokenizer: &Tokenizer,
    random: &mut Random,
    opening: &str,
    xml: bool,
) -> Option<String> {
    let mut text = opening.as_bytes().to_vec();
    assert!(turn.push(opening.as_bytes()), "{opening:?} is admitted");
    let tries = |turn: &mut Turn<'_>, text: &mut Vec<u8>, bytes: &[u8]| {
        let mark = turn.mark();
        let fits = turn.push(bytes);
        if fits {
            text.extend_from_slice(bytes);
        } else {
            turn.go_back(mark);
        }
        fits
    };
    for step in 0..3000 {
        if !turn.is_outside() && turn.may_stop() && random.below(3) > 0 {
            return String::from_utf8(text).ok();
        }
        let forced = turn.forced();
        for &id in &forced {
            let mask = turn.mask();
            assert!(
                mask.contains(id),
                "a forced token is admitted: {:?}",
                String::from_utf8_lossy(tokenizer.bytes(id))
            );
            assert!(tries(turn, &mut text, tokenizer.bytes(id)));
        }
        // In the end what closes a value is tried first.
        if step > 200 && !turn.is_outside() && random.below(4) > 0 {
            let closes =
                ["\n</parameter>\n</function>", "\n</parameter>\n<parameter=", "\"", "}", "]", "\n```"];
            let closes = if xml { &closes[..5] } else { &closes[2..] };
            if closes.iter().any(|close| tries(turn, &mut text, close.as_bytes())) {
                continue;
            }
        }
        if random.below(3) > 0 && tries(turn, &mut text, random.one_of(SNIPPETS).as_bytes()) {
            continue;
        }
        let mask = turn.mask();
        // What it denies does not fit either.
        for _ in 0..4 {
            let id = random.below(tokenizer.vocab_size()) as u32;
            if !tokenizer.never_sampled(id) && !tokenizer.is_added(id) {
                let mark = turn.mark();
                assert_eq!(turn.push(tokenizer.bytes(id)), mask.contains(id), "{:?}", tokenizer.bytes(id));
                turn.go_back(mark);
            }
        }
        let ids: Vec<u32> = mask.iter().filter(|id| !tokenizer.stops().contains(id)).collect();
        if ids.is_empty() {
            assert!(turn.may_stop(), "nothing may follow {:?}", String::from_utf8_lossy(&text));
            return String::from_utf8(text).ok();
        }
        let id = ids[random.below(ids.len())];
        let fits = tries(turn, &mut text, tokenizer.bytes(id));
        assert!(fits, "the mask admits {:?} after {:?}", tokenizer.bytes(id), String::from_utf8_lossy(&text));
    }
    assert!(turn.is_outside(), "never ends: {:?}", String::from_utf8_lossy(&text));
    None
}

/// Calls as a strict reader sees them: names, and arguments as they are written.
type Strict = Vec<(String, Vec<(String, String)>)>;

fn strict_xml(text: &str) -> Result<Strict, String> {
    let tag = text.find("<tool_call>").unwrap_or(usize::MAX);
    let bare = text.find("<function=").unwrap_or(usize::MAX);
    let mut rest = &text[tag.min(bare).min(text.len())..];
    let mut calls = Vec::new();
    fn eat(rest: &mut &str, text: &str) -> Result<(), String> {
        *rest = rest
            .strip_prefix(text)
            .ok_or(format!("{text:?} is missing before {:?}", rest.get(..60).unwrap_or(rest)))?;
        Ok(())
    }
    let name = |rest: &mut &str| -> Result<String, String> {
        let (name, after) = rest.split_once('>').ok_or("a name without an end")?;
        let name = name.to_string();
        *rest = after;
        Ok(name)
    };
    while !rest.is_empty() {
        if calls.is_empty() && bare < tag {
        } else {
            eat(&mut rest, "<tool_call>\n")?;
        }
        eat(&mut rest, "<function=")?;
        let function = name(&mut rest)?;
        eat(&mut rest, "\n")?;
        let mut arguments = Vec::new();
        while rest.starts_with("<parameter=") {
            eat(&mut rest, "<parameter=")?;
            let key = name(&mut rest)?;
            eat(&mut rest, "\n")?;
            let ends = |at: usize| {
                let after = rest[at + 12..].trim_start();
                after.starts_with("<parameter=") || after.starts_with("</function>")
            };
            let mut closes = rest.match_indices("</parameter>").map(|(at, _)| at);
            let at = closes.find(|at| ends(*at)).ok_or("a value without an end")?;
            let value = rest[..at].strip_suffix('\n').unwrap_or(&rest[..at]);
            arguments.push((key, value.to_string()));
            rest = rest[at + 12..].trim_start();
        }
        eat(&mut rest, "</function>\n</tool_call>")?;
        calls.push((function, arguments));
        rest = rest.strip_prefix('\n').unwrap_or(rest);
    }
    Ok(calls)
}

fn strict_hermes(format: ChatFormat, text: &str) -> Result<Vec<Map<String, Value>>, String> {
    let object = |text: &str| -> Result<Map<String, Value>, String> {
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(map),
            other => Err(format!("{other:?}: {text:?}")),
        }
    };
    // After the thinking, where there is some; what ends with an object or a fence is one.
    let thought = text.split_once("</think>").filter(|_| format == ChatFormat::Thinking);
    let text = thought.map_or(text, |(_, rest)| rest);
    let untagged = !text.trim_end().ends_with("</tool_call>");
    if let Some(at) = text.find("<tool_call>").filter(|_| !untagged) {
        let mut rest = &text[at..];
        let mut calls = Vec::new();
        while !rest.is_empty() {
            rest = rest.strip_prefix("<tool_call>\n").ok_or("no opening")?;
            let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
            let Some(Ok(Value::Object(map))) = stream.next() else {
                return Err(format!("no object: {rest:?}"));
            };
            rest = rest[stream.byte_offset()..].strip_prefix("\n</tool_call>").ok_or("no close")?;
            rest = rest.strip_prefix('\n').unwrap_or(rest);
            calls.push(map);
        }
        return Ok(calls);
    }
    // Bare or fenced: the last object.
    let body = text.trim_end().strip_suffix("```").unwrap_or(text);
    let starts: Vec<usize> = body.match_indices('{').map(|(at, _)| at).collect();
    let found = starts
        .into_iter()
        .find_map(|at| object(&body[at..]).ok().filter(|map| map.contains_key("arguments")));
    found.map(|map| vec![map]).ok_or("no object".into())
}

fn read(format: ChatFormat, text: &str, specs: &[ToolSpec]) -> Parsed {
    let mut parser = ToolCallParser::new(format, specs, format == ChatFormat::Thinking);
    parser.push(text);
    parser.finish().1
}

/// Every call of `text` is well-formed to the strict reader, and just what the parser reads; the calls.
fn as_python_reads(literal: &str) -> Value {
    let program = "import ast, json, sys; print(json.dumps(ast.literal_eval(sys.argv[1])))";
    let output = std::process::Command::new("python3").args(["-c", program, literal]).output().unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{literal:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn python_is_asked_what_a_literal_is() {
    assert_eq!(as_python_reads("{'a': (1, None)}"), json!({"a": [1, null]}));
}

fn check(format: ChatFormat, text: &str, specs: &[ToolSpec]) -> Vec<(String, Map<String, Value>)> {
    let parsed = read(format, text, specs);
    assert!(parsed.problems.is_empty() && !parsed.truncated, "{:?} in {text:?}", parsed.problems);
    let calls: Vec<(String, Map<String, Value>)> =
        parsed.calls.iter().map(|call| (call.name.clone(), call.arguments.clone())).collect();
    for call in &parsed.calls {
        let spec = specs.iter().find(|spec| spec.name == call.name).unwrap_or_else(|| panic!("{call:?}"));
        validate(call, spec).unwrap_or_else(|error| panic!("{error} in {text:?}"));
    }
    if format == ChatFormat::Qwen3Coder {
        let strict = strict_xml(text).unwrap_or_else(|error| panic!("{error} in {text:?}"));
        assert_eq!(strict.len(), calls.len(), "{text:?}");
        for ((name, raw), (read_name, arguments)) in strict.iter().zip(&calls) {
            assert_eq!(name, read_name);
            assert_eq!(raw.len(), arguments.len(), "each once: {text:?}");
            for ((key, value), (read_key, read)) in raw.iter().zip(arguments) {
                assert_eq!(key, read_key, "{text:?}");
                // Where the schema admits any type the mask leaves the text free, and readers take blanks off as Python
                // does and read literals of Python.
                let free = key == "any";
                let bare = value
                    .trim_matches(|c: char| free && (c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)));
                match read {
                    Value::String(read) => assert_eq!(read, value, "{key} in {text:?}"),
                    Value::Bool(flag) => {
                        assert_eq!(flag.to_string(), bare.to_lowercase(), "{key} in {text:?}")
                    }
                    other => match serde_json::from_str::<Value>(bare) {
                        Ok(strict) => assert_eq!(&strict, other, "{key} in {text:?}"),
                        Err(error) => {
                            assert!(free, "{error}: {key} in {text:?}");
                            assert_eq!(&as_python_reads(bare), other, "{key} in {text:?}");
                        }
                    },
                }
            }
        }
    } else {
        let strict = strict_hermes(format, text).unwrap_or_else(|error| panic!("{error} in {text:?}"));
        assert_eq!(strict.len(), calls.len(), "{text:?}");
        for (map, (name, arguments)) in strict.iter().zip(&calls) {
            assert_eq!(map.keys().collect::<Vec<_>>(), ["name", "arguments"], "{text:?}");
            assert_eq!((&map["name"], &map["arguments"]), (&json!(name), &json!(arguments)), "{text:?}");
        }
    }
    calls
}

const FORMATS: [ChatFormat; 3] = [ChatFormat::Qwen3Coder, ChatFormat::HermesQwen25, ChatFormat::Thinking];

fn openings(format: ChatFormat) -> &'static [&'static str] {
    match format {
        ChatFormat::Qwen3Coder => {
            &["<tool_call>", "Now.\n\n<tool_call>\n", "<function=", "<tool_call>\n<function=odd>\n"]
        }
        ChatFormat::Thinking => &["hm</think>\n\n<tool_call>", "{\"name\": \"edit\"</think>"],
        _ => &[
            "<tool_call>",
            "Now.\n\n<tool_call>\n{\"name\": \"odd\"",
            "{\"name\": \"",
            "```json\n{\n  \"name\": \"odd\",",
            "```\n{\"name\":\"edit\"",
            "\u{3000}{\"name\": \"",
            "<tool_call>\n{\"name\": \"write_file\"",
        ],
    }
}

/// Walks with and without values from a workspace.
fn walks(
    tokenizer: &Tokenizer,
    count: usize,
    seed: u64,
    values: Option<&dyn LiveValues>,
) -> Vec<(ChatFormat, String)> {
    let specs = specs();
    let mut found = Vec::new();
    for format in FORMATS {
        let vocabulary = Grammar::vocabulary(tokenizer, tokenizer.vocab_size());
        let mut grammar = Grammar::new(format, &specs, values, vocabulary).unwrap();
        for number in 0..count {
            let mut random = Random(seed.wrapping_mul(0x9e37_79b9).wrapping_add(number as u64));
            let openings = openings(format);
            let opening = openings[number % openings.len()];
            let mut turn = Turn::new(&mut grammar, tokenizer, values);
            found.extend(
                walk(&mut turn, tokenizer, &mut random, opening, format.is_xml()).map(|text| (format, text)),
            );
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 0, failure_persistence: None, ..Default::default() })]
    #[test]
    fn what_the_mask_admits_is_a_call_and_is_read_as_it_stands(seed in any::<u64>()) {
        let tokenizer = small_tokenizer();
        let specs = specs();
        let found = walks(&tokenizer, 30, seed, None);
        let calls: usize = found.iter().map(|(format, text)| check(*format, text, &specs).len()).sum();
        prop_assert!(found.len() > 70, "{} of 90 walks came to an end", found.len());
        prop_assert!(calls > 50, "{calls} calls");
    }
}

/// Files with what is hard about text: tags, no line end, CRLF, characters of several bytes, repeated lines, none at all.
fn fill(folder: &Path) {
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("src/a.rs", "fn main() {\n    one();\n    one();\n}\n\nfn one() {}\n");
    write(
        "src/tags.xml",
        "<parameter=content>\nx\n</parameter>\n<parameter=text>\n</parameter>\n</function>\n</tool_call>\n",
    );
    write("src/deep/er/crlf.txt", "a\r\nb\r\na\r\nb");
    write("wide é.md", "# \u{201e}é\u{201c} \u{1f600}\n\t\"quoted\" \\n \\\n");
    write(
        "src/quoted.md",
        "a\n<parameter=new_string>\nb\n<parameter=new_string>\n</parameter>\n<parameter=x>\nb\n",
    );
    write("empty.txt", "");
    write("logo.png", "\u{89}PNG\0\0");
    write(".hidden/x", "x");
    std::fs::create_dir_all(folder.join("nothing/here")).unwrap();
    std::os::unix::fs::symlink("/etc", folder.join("out")).unwrap();
}

fn check_live(workspace: &Workspace, name: &str, arguments: &Map<String, Value>) {
    let text = |key: &str| arguments.get(key).and_then(Value::as_str);
    // The workspace's own name may lead a path.
    let own = format!("{}/", workspace.root().file_name().unwrap().to_str().unwrap());
    let file = |path: &str| workspace.root().join(path.strip_prefix(&own).unwrap_or(path));
    match name {
        "read_file" => assert!(file(text("file_path").unwrap()).is_file(), "{arguments:?}"),
        "edit" => {
            let path = text("file_path").unwrap();
            let shown = std::fs::read_to_string(file(path))
                .unwrap_or_else(|error| panic!("{path}: {error}"))
                .replace("\r\n", "\n");
            let old = text("old_string").unwrap();
            let count = (0..shown.len())
                .filter(|at| shown.is_char_boundary(*at) && shown[*at..].starts_with(old))
                .count();
            let all = arguments.get("replace_all") == Some(&Value::Bool(true));
            if old.is_empty() {
                assert!(shown.is_empty(), "{arguments:?}");
            } else {
                assert!(count == 1 || (count > 1 && all), "{count} times in {path}: {arguments:?}");
            }
            assert!(
                arguments.keys().position(|k| k == "file_path")
                    < arguments.keys().position(|k| k == "old_string")
            );
        }
        "write_file" => {
            let path = text("file_path").unwrap();
            match workspace.plan_write(path, "x") {
                Ok(plan) => assert!(!plan.path.starts_with('/'), "{path}"),
                Err(error) => assert!(error.to_string().contains("was not read yet"), "{path:?}: {error}"),
            }
        }
        "list_directory" => {
            if let Some(path) = text("path") {
                assert!(workspace.list(path, 1).is_ok(), "{path}");
            }
        }
        _ => {}
    }
}

#[test]
fn values_are_of_the_workspace() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let workspace = Workspace::open(folder.path(), &[]).unwrap();
    let values = WorkspaceValues(&workspace);
    let tokenizer = small_tokenizer();
    let specs = specs();
    let mut seen: std::collections::BTreeMap<String, usize> = Default::default();
    for seed in 0..12 {
        for (format, text) in walks(&tokenizer, 40, seed, Some(&values)) {
            for (name, arguments) in check(format, &text, &specs) {
                check_live(&workspace, &name, &arguments);
                *seen.entry(name).or_default() += 1;
            }
        }
    }
    println!("{seen:?}");
    for tool in ["edit", "read_file", "write_file", "list_directory"] {
        assert!(seen.get(tool).copied().unwrap_or(0) > 10, "{tool}: {seen:?}");
    }
}

/// What is admitted before a call, as an answer that ends there.
const WORDS: &[&str] = &[
    "{\"",
    "{",
    "}",
    "{{",
    "'",
    "\"",
    "\u{a0}",
    "\u{3000}",
    "\u{2028}",
    "\u{e9}",
    "\u{e2}\u{80}",
    "```",
    "```json\n",
    "`",
    "\n",
    " ",
    "name\"",
    "\"name\": \"",
    "type\": \"function\"",
    "arguments\": {}",
    "\"edit\"",
    "\"bare\"",
    ": ",
    ", ",
    "<tools>",
    "<tool",
    "<think>",
    "</think>",
    "<",
    ">",
    "\r\n",
    "x",
    "\t",
    "\u{b}",
    "parameters\"",
    "function\"",
    "{\"type\": \"",
    "\n```json\n{\"name\": \"",
    "\", \"name\": \"edit\"",
];

/// What a small model takes for a call and no parser reads is not written: it has to write the call.
#[test]
fn what_only_looks_like_a_call_is_not_written() {
    let tokenizer = small_tokenizer();
    let specs = specs();
    let admitted = |format: ChatFormat, text: &str| {
        let vocabulary = Grammar::vocabulary(&tokenizer, tokenizer.vocab_size());
        let mut grammar = Grammar::new(format, &specs, None, vocabulary).unwrap();
        Turn::new(&mut grammar, &tokenizer, None).push(text.as_bytes())
    };
    for text in [
        "<tools>",
        "I look.\n<tools>\n",
        "a <function name=",
        "<function_call>",
        "Say `{\"name\": \"edit\", ",
        "<{{\"name\": \"edit \", \"arguments\"",
        "Say {\n  \"tool\": \"edit\"",
        "{\n  \"function_name\": \"edit\"",
        "{\"function_name\": \"unknown\", \"arguments\"",
        "```json\n{\"function_name\": \"edit\"",
        "{\n  \"function_name\": \"edit,\n  \"arguments\"",
        "```\n{{\"name \": \"edit\"",
    ] {
        assert!(!admitted(ChatFormat::HermesQwen25, text), "{text}");
        assert!(admitted(ChatFormat::Qwen3Coder, text) || text.starts_with("a <f"), "{text}");
    }
    for text in [
        "a <tooltip>",
        "<fun>",
        "Say {\"name\": \"ed",
        "a {\"name\": \"x\"}",
        "{\"colour\": \"red\"}\nThat.",
        "```json\n{\"directory\": \".\", \"arguments\": []}\n```",
        "<tool_call>\n{",
        "{\"name\": \"edit\"",
    ] {
        assert!(admitted(ChatFormat::HermesQwen25, text), "{text}");
    }
}

/// An answer that may end while no call is open has none to the parser either: every way in which a call opens to it is
/// one in which the mask comes on.
#[test]
fn words_are_no_call() {
    let tokenizer = small_tokenizer();
    let specs = specs();
    let mut words = 0;
    for format in FORMATS {
        let vocabulary = Grammar::vocabulary(&tokenizer, tokenizer.vocab_size());
        let mut grammar = Grammar::new(format, &specs, None, vocabulary).unwrap();
        for seed in 0..400 {
            let mut random = Random(seed);
            let mut turn = Turn::new(&mut grammar, &tokenizer, None);
            let mut text = String::new();
            for _ in 0..60 {
                let mark = turn.mark();
                let more = random.one_of(WORDS);
                if !turn.push(more.as_bytes()) || !turn.is_outside() {
                    turn.go_back(mark);
                    continue;
                }
                text.push_str(more);
                let mask = turn.mask();
                for _ in 0..3 {
                    let mark = turn.mark();
                    let id = random.below(tokenizer.vocab_size()) as u32;
                    if !tokenizer.never_sampled(id) && !tokenizer.is_added(id) {
                        assert_eq!(turn.push(tokenizer.bytes(id)), mask.contains(id), "{id} after {text:?}");
                        turn.go_back(mark);
                    }
                }
                if turn.may_stop() {
                    let parsed = read(format, &text, &specs);
                    // An open object that names a tool may be taken for a call that was cut off.
                    let open = |problem: &String| {
                        problem.starts_with("the call to ") || problem.contains("thinking")
                    };
                    let fine = parsed.calls.is_empty() && parsed.problems.iter().all(open);
                    assert!(fine, "{format}: {parsed:?} in {text:?}");
                    words += 1;
                }
            }
        }
    }
    assert!(words > 10_000, "{words}");
}

fn admits(format: ChatFormat, values: Option<&dyn LiveValues>, text: &str) -> bool {
    let tokenizer = small_tokenizer();
    let vocabulary = Grammar::vocabulary(&tokenizer, tokenizer.vocab_size());
    let mut grammar = Grammar::new(format, &specs(), values, vocabulary).unwrap();
    let mut turn = Turn::new(&mut grammar, &tokenizer, values);
    turn.push(text.as_bytes()) && turn.may_stop()
}

#[test]
fn calls_as_they_should_be_are_admitted_and_others_are_not() {
    let xml = |call: &str| format!("I look.\n<tool_call>\n{call}\n</tool_call>");
    let hermes = |call: &str| format!("I look.\n<tool_call>\n{call}\n</tool_call>");
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let workspace = Workspace::open(folder.path(), &[]).unwrap();
    let live = WorkspaceValues(&workspace);
    let absolute = workspace.root().join("src/a.rs").display().to_string();
    let edit = |path: &str, old: &str, more: &str| {
        xml(&format!(
            "<function=edit>\n<parameter=file_path>\n{path}\n</parameter>\n{more}<parameter=old_string>\n{old}\n</parameter>\n<parameter=new_string>\ny\n</parameter>\n</function>"
        ))
    };
    let all = "<parameter=replace_all>\ntrue\n</parameter>\n";
    let write = |path: &str, content: &str| {
        xml(&format!(
            "<function=write_file>\n<parameter=file_path>\n{path}\n</parameter>\n<parameter=content>\n{content}\n</parameter>\n</function>"
        ))
    };
    for (text, held, expected) in [
        (xml("<function=git_status>\n</function>"), false, true),
        (xml("<function=git_stat>\n</function>"), false, false),
        (xml("<function=read_file>\n</function>"), false, false),
        (xml("<function=read_file>\n<parameter=file_path>\nx\n</parameter>\n</function>"), false, true),
        (xml("<function=read_file>\n<parameter=file_path>\nx\n</parameter>\n</function>"), true, false),
        (
            xml("<function=read_file>\n<parameter=file_path>\n.hidden/x\n</parameter>\n</function>"),
            true,
            true,
        ),
        (
            xml("<function=read_file>\n<parameter=file_path>\n./src/a.rs\n</parameter>\n</function>"),
            true,
            true,
        ),
        (
            xml(&format!(
                "<function=read_file>\n<parameter=file_path>\n{absolute}\n</parameter>\n</function>"
            )),
            true,
            true,
        ),
        (
            xml("<function=read_file>\n<parameter=file_path>\nout/passwd\n</parameter>\n</function>"),
            true,
            false,
        ),
        (xml("<function=read_file>\n<parameter=file_path>\nsrc\n</parameter>\n</function>"), true, false),
        (edit("src/a.rs", "    one();\n}", ""), true, true),
        (edit("src/a.rs", "    one();", ""), true, false),
        (edit("src/a.rs", "    one();", all), true, true),
        (edit("src/a.rs", "two", ""), true, false),
        (edit("src/a.rs", "", ""), true, false),
        (edit("empty.txt", "", ""), true, true),
        (edit("logo.png", "PNG", ""), true, false),
        (edit("src/deep/er/crlf.txt", "b\na", ""), true, true),
        (edit("src/deep/er/crlf.txt", "b\r\na", ""), true, false),
        (edit("src/tags.xml", "x\n</parameter>", ""), true, true),
        (edit("wide é.md", "é\u{201c} \u{1f600}", ""), true, true),
        (write("new/dir/file.rs", "x </parameter> y"), true, true),
        (write("new/dir/file.rs", "x </parameter> y\n</parameter>\nz"), true, false),
        (write("pom.xml", "<parameter>\nx\n</parameter>\n<parameter>y</parameter>\nz"), true, true),
        (write("x", "a</parameter>\u{a0}\nb"), true, false),
        (write("x", "a</parameter>\u{a0}b"), true, true),
        (write("x", "a\n</function>\nb"), true, false),
        (write("x", "<function>\na\n</function>\nb"), true, true),
        (write("x", "a\n</tool_call>\nb"), true, false),
        (write("x", "a </tool_call> b"), true, true),
        (write("out", "x"), true, false),
        (write("outer", "x"), true, true),
        (xml("<function=list_directory>\n<parameter=path>\n./\n</parameter>\n</function>"), true, true),
        (xml("<function=list_directory>\n<parameter=path>\n\n</parameter>\n</function>"), true, false),
        (edit("src/quoted.md", "<parameter=new_string", ""), true, false),
        (edit("src/quoted.md", "a\n", ""), true, true),
        (write("../x", "x"), true, false),
        (write("src/../../x", "x"), true, false),
        (write("/etc/x", "x"), true, false),
        (write(".git/hooks/x", "x"), true, false),
        (write(".GIT/hooks/x", "x"), true, false),
        (write(".github/x", "x"), true, true),
        (write("src/a.rs/x", "x"), true, false),
        (write("src", "x"), true, false),
        (write("x", "a\n<parameter=content>\nb"), false, true),
        (write("x", "a\n<parameter=file_path>\nb"), false, true),
    ] {
        let values = held.then_some(&live as &dyn LiveValues);
        assert_eq!(admits(ChatFormat::Qwen3Coder, values, &text), expected, "{text}");
        if expected {
            check(ChatFormat::Qwen3Coder, &text, &specs());
        }
    }
    for (text, held, expected) in [
        (hermes("{\"name\": \"git_status\", \"arguments\": {}}"), false, true),
        (hermes("{\"name\": \"read_file\", \"arguments\": {}}"), false, false),
        (
            hermes("{\"name\": \"read_file\", \"arguments\": {\"file_path\": \"x\", \"limit\": 12}}"),
            false,
            true,
        ),
        (
            hermes("{\"name\": \"read_file\", \"arguments\": {\"file_path\": \"x\", \"limit\": -12}}"),
            true,
            false,
        ),
        (
            hermes("{\"name\": \"read_file\", \"arguments\": {\"file_path\": \"src/a.rs\", \"limit\": 12}}"),
            true,
            true,
        ),
        (
            hermes("{\"name\": \"read_file\", \"arguments\": {\"file_path\": \"x\", \"file_path\": \"x\"}}"),
            false,
            false,
        ),
        (
            hermes(
                "{\"name\": \"edit\", \"arguments\": {\"file_path\": \"wide é.md\", \"old_string\": \"\\\"quoted\\\" \\\\n\", \"new_string\": \"\\u00e9\"}}",
            ),
            true,
            true,
        ),
        (hermes("{\"name\": \"edit\", \"arguments\": {\"old_string\": \"x\""), true, false),
        (
            hermes(
                "{\"name\": \"edit\", \"arguments\": {\"file_path\": \"src/a.rs\", \"old_string\": \"fn main() {\\u000a\", \"new_string\": \"\"}}",
            ),
            true,
            true,
        ),
        (
            hermes(
                "{\"name\": \"edit\", \"arguments\": {\"file_path\": \"src/a.rs\", \"old_string\": \"\\u0066n main\", \"new_string\": \"\"}}",
            ),
            true,
            false,
        ),
        ("{\"name\": \"git_status\", \"arguments\": {}}".into(), false, true),
        ("\u{a0}{ \"name\": \"git_status\", \"arguments\": {}}".into(), false, true),
        ("{\u{3000}\"name\": \"git_status\", \"arguments\": {}}".into(), false, false),
        ("{\u{b}\"name\"".into(), false, false),
        ("{\"type\": \"object\", \"edits\": 1}\n".into(), false, true),
        ("{\"type\": \"function\", \"name\": \"edit\"}".into(), false, false),
        ("```\n{\"name\": \"x\", \"function\": {\"name\": 'edit'}}\n```".into(), false, false),
        ("\u{2003}{\"name\": \"my-app\"".into(), false, false),
        ("\u{2003}\u{e9}{\"name\": \"my-app\"".into(), false, true),
        ("{\"name\": \"my-app\", \"version\": \"1\"}".into(), false, false),
        (
            "Here:\n```json\n{\n  \"name\": \"my-app\",\n  \"version\": {\"a\": 1}\n}\n```\nThat is all."
                .into(),
            false,
            true,
        ),
        ("```json\n{\"name\": \"my-app\", \"arguments\"".into(), false, false),
        ("```json\n{\"name\": \"git_status\", \"arguments\": {}}\n```".into(), false, true),
        ("```json\n{\"name\": \"git_status\", \"arguments\": {}}\n```\n\nDone.".into(), false, false),
        ("Use `x {` and {{ jinja }} and { \"a\": 1 }.\n{\"b\": 2}\n".into(), false, true),
    ] {
        let values = held.then_some(&live as &dyn LiveValues);
        assert_eq!(admits(ChatFormat::HermesQwen25, values, &text), expected, "{text}");
        if expected && text.contains("arguments") {
            check(ChatFormat::HermesQwen25, &text, &specs());
        }
    }
}

/// The vocabulary of the real model: its long tokens cross more borders.
#[test]
fn the_real_vocabulary_admits_nothing_else() {
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(&model_path()).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let workspace = Workspace::open(folder.path(), &[]).unwrap();
    let values = WorkspaceValues(&workspace);
    let specs = specs();
    let mut calls = 0;
    for (format, text) in walks(&tokenizer, 20, 5, Some(&values)) {
        for (name, arguments) in check(format, &text, &specs) {
            check_live(&workspace, &name, &arguments);
            calls += 1;
        }
    }
    assert!(calls > 20, "{calls}");
}

/// The real model at temperature 1: every call it makes is well-formed, of the workspace, and the same with drafts,
/// and without them.
#[test]
fn sampled_turns_hold_and_drafts_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let workspace = Workspace::open(folder.path(), &[]).unwrap();
    let values = WorkspaceValues(&workspace);
    let never = AtomicBool::new(false);
    let requests = ["In src/a.rs call one only once.", "Write a file hello.py that prints hello."];
    for format in [ChatFormat::Qwen3Coder, ChatFormat::HermesQwen25] {
        let mut model = model(format, 2);
        // That drafts are tried must not hang on how busy this machine is.
        model.assume_batches(0.05);
        let specs = offered_tools(&Registry::standard(), model.info()).specs();
        let (mut called, mut drafted) = (0, 0);
        for (seed, request) in (0..).zip(requests) {
            let options = SessionOptions::default();
            let count = |text: &str| model.count_tokens(text);
            let messages = opening_messages(&workspace, model.info(), &options, request, &count);
            let mut answers = Vec::new();
            for drafts in [true, false] {
                model.set_decoding(Decoding { masks: true, drafts });
                let request = Request {
                    messages: &messages,
                    tools: &specs,
                    sampling: Sampling { seed, temperature: Some(1.0), max_tokens: 160 },
                    must_call: None,
                    words_only: false,
                    aside: false,
                    frame: None,
                    values: Some(&values),
                    cancel: &never,
                };
                let answer = model.generate(request, &mut |_| {}).unwrap();
                drafted += model.stats().drafted;
                let text = model.stats().text.clone();
                if answer.stop == StopReason::End {
                    for (name, arguments) in check_answer(format, &text, &specs) {
                        check_live(&workspace, &name, &arguments);
                        called += 1;
                    }
                }
                answers.push((text, answer.stop));
            }
            assert_eq!(answers[0], answers[1], "{format}: {request}");
        }
        assert!(called > 0, "{format}: no call in {} turns", requests.len());
        assert!(drafted > 0, "{format}: no draft stood");
    }
}

/// As `check`, where the answer may be words alone.
fn check_answer(format: ChatFormat, text: &str, specs: &[ToolSpec]) -> Vec<(String, Map<String, Value>)> {
    let calls = ["<tool_call>", "<function=", "\"arguments\""].iter().any(|mark| text.contains(mark));
    if calls { check(format, text, specs) } else { Vec::new() }
}

fn model(format: ChatFormat, threads: usize) -> LocalModel {
    let options = LocalOptions {
        engine: EngineOptions { threads, ..Default::default() },
        kv: KvType::F16,
        context: Some(4096),
        format: Some(format),
        ..LocalOptions::default()
    };
    LocalModel::load(&model_path(), &options, &AtomicBool::new(false), &mut |_, _| {}).unwrap()
}
