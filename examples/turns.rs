//! Turns with tools, sampled and counted: how many calls are malformed, have invalid arguments, or name text that is not in
//! their file, with masks and without; what masks cost; how fast a file is rewritten with drafts and without.
//!
//!     cargo run --release --example turns -- MODEL.gguf [calls [N]] [rewrite [TOKENS]] [large] [--no-masks] [--no-drafts] [--format F] [--at-once N]
//!
//! `--at-once N` decodes N turns in one batch: sooner, and the time of each says nothing then.
//!
//! The checker is strict and shares nothing with the parser: it reads what was written, tags and all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use qwright::agent::{SessionOptions, WorkspaceValues, offered_tools, opening_messages};
use qwright::chat::{ChatFormat, Message, Role, ToolCall, ToolSpec, validate};
use qwright::model::grammar::{Grammar, Turn};
use qwright::model::local::{Decoding, LocalModel, LocalOptions};
use qwright::model::{Model, Request, RequiredCall, Sampling, StopReason};
use qwright::tools::Registry;
use qwright::workspace::Workspace;
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Files that the requests are about.
const FILES: &[(&str, &str)] = &[
    (
        "calc.py",
        "\"\"\"Small calculations.\"\"\"\n\n\ndef add(a, b):\n    return a + b\n\n\ndef area(width, height):\n    return width + height\n\n\ndef mean(values):\n    total = 0\n    for value in values:\n        total += value\n    return total / len(values)\n\n\ndef largest(values):\n    best = 0\n    for value in values:\n        if value > best:\n            best = value\n    return best\n",
    ),
    (
        "src/shapes.rs",
        "//! Shapes.\n\npub struct Circle {\n    pub radius: f64,\n}\n\nimpl Circle {\n    pub fn area(&self) -> f64 {\n        3.14 * self.radius * self.radius\n    }\n\n    pub fn perimeter(&self) -> f64 {\n        3.14 * self.radius\n    }\n}\n\npub struct Square {\n    pub side: f64,\n}\n\nimpl Square {\n    pub fn area(&self) -> f64 {\n        self.side * self.side\n    }\n}\n",
    ),
    (
        "web/server.js",
        "const http = require('http');\n\nconst PORT = 8080;\nconst HOST = 'localhost';\n\nfunction handler(request, response) {\n  // TODO: log the request\n  response.writeHead(200, { 'Content-Type': 'text/plain' });\n  response.end('Hello');\n}\n\nhttp.createServer(handler).listen(PORT, HOST);\n",
    ),
    (
        "config.json",
        "{\n  \"timeout\": 30,\n  \"retries\": 3,\n  \"verbose\": false,\n  \"hosts\": [\"one\", \"two\"]\n}\n",
    ),
    (
        "README.md",
        "# Sample\n\nTeh sample project has a calculator, shapes and a server.\n\n## Usage\n\nRun `python3 calc.py` or `node web/server.js`.\n",
    ),
    (
        "tests/test_calc.py",
        "from calc import add, area\n\n\ndef test_add():\n    assert add(1, 2) == 3\n\n\ndef test_area():\n    assert area(2, 4) == 8\n",
    ),
];

/// Requests that need tools.
const REQUESTS: &[&str] = &[
    "In calc.py the function area adds where it should multiply. Fix it.",
    "Change the port in web/server.js to 9090.",
    "In src/shapes.rs the perimeter of a circle is wrong. Fix it with an edit.",
    "Fix the typo in README.md.",
    "In config.json set the timeout to 60.",
    "In calc.py rename the parameter values of mean to numbers.",
    "Add a docstring to the function add in calc.py.",
    "In web/server.js replace the TODO comment by a console.log of request.url.",
    "In src/shapes.rs use std::f64::consts::PI instead of 3.14 in area.",
    "In calc.py make largest work for negative numbers.",
    "In tests/test_calc.py add a test for mean.",
    "Set verbose to true in config.json.",
    "In README.md add a section License with one line.",
    "Add a method perimeter to Square in src/shapes.rs.",
    "Where is the word TODO in this project? Search for it.",
    "List the files in the directory src.",
    "Run the tests with python3 -m pytest.",
    "Create a file notes.txt with three lines about this project.",
    "Read tests/test_calc.py and web/server.js, then tell me what they do.",
    "Create src/triangle.rs with a struct Triangle that has base and height, and a method area.",
];

#[derive(Default)]
struct Counts {
    turns: usize,
    calling: usize,
    editing: usize,
    calls: usize,
    malformed: usize,
    invalid: usize,
    absent: usize,
    ambiguous: usize,
    truncated: usize,
    tokens: usize,
    forced: usize,
    drafted: usize,
    rejected: usize,
    time: Duration,
    masks: Vec<Duration>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let after = |word: &str| arguments.iter().skip_while(|a| *a != word).nth(1);
    let path = arguments.first().expect(
        "usage: turns MODEL.gguf [calls [N]] [rewrite [TOKENS]] [large] [--no-masks] [--no-drafts] [--format F] [--at-once N]",
    );
    let decoding = Decoding { masks: !has("--no-masks"), drafts: !has("--no-drafts") };
    let formats = match after("--format") {
        Some(name) => vec![name.parse().expect("a chat format")],
        None => vec![ChatFormat::Qwen3Coder, ChatFormat::HermesQwen25],
    };
    for format in formats {
        if has("calls") {
            let count = after("calls").and_then(|n| n.parse().ok()).unwrap_or(250);
            let at_once = after("--at-once").and_then(|n| n.parse().ok()).unwrap_or(1);
            calls(Path::new(path), format, decoding, count, at_once);
        }
        let mut model = load(Path::new(path), format, decoding);
        if has("large") {
            for bytes in [700, 20_000, 2_000_000] {
                large(&model, format, bytes);
            }
        }
        if has("rewrite") {
            rewrite(&mut model, format, after("rewrite").and_then(|n| n.parse().ok()).unwrap_or(3000));
        }
    }
}

fn load(path: &Path, format: ChatFormat, decoding: Decoding) -> LocalModel {
    let never = AtomicBool::new(false);
    LocalModel::load(path, &options(format, decoding), &never, &mut |_, _| {}).expect("a model")
}

fn options(format: ChatFormat, decoding: Decoding) -> LocalOptions {
    LocalOptions { context: Some(8192), format: Some(format), decoding, ..LocalOptions::default() }
}

fn calls(path: &Path, format: ChatFormat, decoding: Decoding, turns: usize, at_once: usize) {
    let never = AtomicBool::new(false);
    let options = options(format, decoding);
    let models = LocalModel::load_several(path, &options, at_once, &never, &mut |_, _| {}).expect("models");
    let next = AtomicUsize::new(0);
    let counts = Mutex::new(Counts::default());
    std::thread::scope(|scope| {
        for model in models {
            scope.spawn(|| {
                let mut model = model;
                sample(&mut model, format, &|| next.fetch_add(1, Ordering::Relaxed), turns, &counts);
            });
        }
    });
    report(format, counts.into_inner().unwrap());
}

/// Samples the turns that `next` names, as long as they are among the first `turns`.
fn sample(
    model: &mut LocalModel,
    format: ChatFormat,
    next: &dyn Fn() -> usize,
    turns: usize,
    counts: &Mutex<Counts>,
) {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in FILES {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let workspace = Workspace::open(folder.path(), &[]).unwrap();
    let specs = offered_tools(&Registry::standard(), model.info()).specs();
    let own = format!("{}/", workspace.root().file_name().and_then(|name| name.to_str()).unwrap_or_default());
    let never = AtomicBool::new(false);
    loop {
        let turn = next();
        if turn >= turns {
            return;
        }
        let request = REQUESTS[turn % REQUESTS.len()];
        let count = |text: &str| model.count_tokens(text);
        let options = SessionOptions::default();
        let messages = opening_messages(&workspace, model.info(), &options, request, &count);
        let values = WorkspaceValues(&workspace);
        let request = Request {
            messages: &messages,
            tools: &specs,
            sampling: Sampling { seed: turn as u64, temperature: Some(1.0), max_tokens: 400 },
            must_call: None,
            words_only: false,
            aside: false,
            frame: None,
            values: Some(&values),
            cancel: &never,
        };
        let answer = model.generate(request, &mut |_| {}).expect("an answer");
        let stats = model.stats();
        let mut counts = counts.lock().unwrap();
        counts.turns += 1;
        eprint!("\r{turn}");
        counts.tokens += stats.tokens;
        counts.forced += stats.forced;
        counts.drafted += stats.drafted;
        counts.rejected += stats.rejected;
        counts.time += stats.time;
        counts.masks.extend_from_slice(&stats.masks);
        let cut = answer.stop != StopReason::End;
        let before = (counts.malformed, counts.invalid, counts.absent, counts.ambiguous);
        judge(format, &stats.text, cut, &specs, (folder.path(), &own), &mut counts);
        if before != (counts.malformed, counts.invalid, counts.absent, counts.ambiguous)
            && std::env::var_os("SHOW").is_some()
        {
            println!("--- turn {turn}, {:?}\n{}\n---", answer.stop, stats.text);
        }
    }
}

fn report(format: ChatFormat, counts: Counts) {
    let Counts { turns, calling, editing, calls, malformed, invalid, absent, ambiguous, truncated, .. } =
        counts;
    println!(
        "{format}: {turns} turns, {calling} call, {editing} edit; {calls} calls: {malformed} malformed, {invalid} invalid, \
         old_string absent {absent}, ambiguous {ambiguous}; {truncated} truncated"
    );
    let Counts { tokens, forced, drafted, rejected, time, mut masks, .. } = counts;
    println!(
        "{format}: {tokens} tokens at {:.1} tokens/s, {forced} forced, {drafted} drafted, {rejected} of drafts rejected",
        tokens as f64 / time.as_secs_f64()
    );
    masks.sort();
    if let (Some(median), Some(high), Some(most)) =
        (masks.get(masks.len() / 2), masks.get(masks.len() * 99 / 100), masks.last())
    {
        println!(
            "{format}: mask of a token: median {:.1} us, 99th percentile {:.1} us, most {:.1} us",
            median.as_secs_f64() * 1e6,
            high.as_secs_f64() * 1e6,
            most.as_secs_f64() * 1e6
        );
    }
}

/// Counts what is wrong with the calls of one answer.
fn judge(
    format: ChatFormat,
    text: &str,
    cut: bool,
    specs: &[ToolSpec],
    folder: (&Path, &str),
    counts: &mut Counts,
) {
    let attempted = ["<tool_call>", "</tool_call>", "<function=", "<tools>", "\"arguments\""]
        .iter()
        .any(|mark| text.contains(mark));
    if !attempted {
        return;
    }
    counts.calling += 1;
    let read = if format == ChatFormat::Qwen3Coder { strict_xml(text, specs) } else { strict_hermes(text) };
    let calls = match read {
        Ok(calls) => calls,
        Err(_) if cut => {
            counts.truncated += 1;
            return;
        }
        Err(_) => {
            counts.calls += 1;
            counts.malformed += 1;
            return;
        }
    };
    counts.editing += usize::from(calls.iter().any(|call| call.name == "edit"));
    for call in calls {
        counts.calls += 1;
        let Some(spec) = specs.iter().find(|spec| spec.name == call.name) else {
            counts.malformed += 1;
            continue;
        };
        let known = |name: &String| spec.parameters["properties"].get(name).is_some();
        if validate(&call, spec).is_err() || !call.arguments.keys().all(known) {
            counts.invalid += 1;
            continue;
        }
        if call.name == "edit" {
            let value = |key: &str| call.arguments.get(key).and_then(Value::as_str).unwrap_or_default();
            // The workspace's own name may lead a path.
            let path = value("file_path");
            let path = folder.0.join(path.strip_prefix(folder.1).unwrap_or(path));
            let Ok(file) = std::fs::read_to_string(path) else {
                counts.absent += 1;
                continue;
            };
            let all = call.arguments.get("replace_all") == Some(&Value::Bool(true));
            match file.matches(value("old_string")).count() {
                0 => counts.absent += 1,
                1 => {}
                _ => counts.ambiguous += usize::from(!all),
            }
        }
    }
}

/// Calls in the XML of the prompt, to the letter.
fn strict_xml(text: &str, specs: &[ToolSpec]) -> Result<Vec<ToolCall>, ()> {
    fn eat<'t>(text: &'t str, mark: &str) -> Result<&'t str, ()> {
        text.strip_prefix(mark).ok_or(())
    }
    let mut rest = &text[text.find("<tool_call>").or_else(|| text.find("<function=")).ok_or(())?..];
    let mut calls = Vec::new();
    while !rest.trim().is_empty() {
        rest = if rest.starts_with("<function=") && calls.is_empty() {
            rest
        } else {
            eat(rest.trim_start(), "<tool_call>\n")?
        };
        let (name, after) = eat(rest, "<function=")?.split_once(">\n").ok_or(())?;
        rest = after;
        let spec = specs.iter().find(|spec| spec.name == name).ok_or(())?;
        let mut arguments = Map::new();
        while let Ok(after) = eat(rest, "<parameter=") {
            let (key, after) = after.split_once(">\n").ok_or(())?;
            let (value, next) = strict_value(after).ok_or(())?;
            rest = next;
            let typed = spec.parameters["properties"][key]["type"] != "string";
            let lower = value.replace("True", "true").replace("False", "false");
            let value =
                typed.then(|| serde_json::from_str(&lower).ok()).flatten().unwrap_or_else(|| value.into());
            if arguments.insert(key.to_string(), value).is_some() {
                return Err(());
            }
        }
        rest = eat(rest, "</function>\n</tool_call>")?;
        calls.push(ToolCall { name: name.into(), arguments });
    }
    Ok(calls)
}

/// A value, and what comes after its closing tag: the first that another parameter or the end of the call follows.
fn strict_value(text: &str) -> Option<(&str, &str)> {
    let ends = |at: usize| {
        let next = text[at + "</parameter>".len()..].trim_start();
        (next.starts_with("<parameter=") || next.starts_with("</function>")).then_some((&text[..at], next))
    };
    let (value, next) = text.match_indices("</parameter>").find_map(|(at, _)| ends(at))?;
    Some((value.strip_suffix('\n').unwrap_or(value), next))
}

/// Calls in the JSON of the prompt, within their tags; or one whole object alone.
fn strict_hermes(text: &str) -> Result<Vec<ToolCall>, ()> {
    let call = |value: Value| -> Result<ToolCall, ()> {
        let keys: Vec<&String> = value.as_object().ok_or(())?.keys().collect();
        if keys != ["name", "arguments"] {
            return Err(());
        }
        serde_json::from_value(value).map_err(|_| ())
    };
    let Some(at) = text.find("<tool_call>") else {
        // The object begins a line; braces within a sentence are none.
        let body = text.trim();
        let body = body.strip_suffix("```").unwrap_or(body);
        let begins = |at: &usize| {
            let before = body[..*at].trim_end_matches([' ', '\t']);
            before.is_empty() || before.ends_with('\n')
        };
        let at = body.match_indices('{').map(|(at, _)| at).find(begins).ok_or(())?;
        return Ok(vec![call(serde_json::from_str(&body[at..]).map_err(|_| ())?)?]);
    };
    let mut rest = &text[at..];
    let mut calls = Vec::new();
    while !rest.trim().is_empty() {
        rest = rest.trim_start().strip_prefix("<tool_call>\n").ok_or(())?;
        let (object, after) = rest.split_once("\n</tool_call>").ok_or(())?;
        calls.push(call(serde_json::from_str(object).map_err(|_| ())?)?);
        rest = after;
    }
    Ok(calls)
}

/// A file of 200 lines is written again with three changed lines, and edited: with drafts and without.
fn rewrite(model: &mut LocalModel, format: ChatFormat, most: usize) {
    let mut text = String::from("\"\"\"Prices of the shop.\"\"\"\n\n");
    for n in 0..66 {
        text.push_str(&format!(
            "def price_{n}(count, rebate=0):\n    total = count * {}\n    return total - rebate\n",
            3 + n * 7 % 40
        ));
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("prices.py"), &text).unwrap();
    let workspace = Workspace::open(folder.path(), &[]).unwrap();
    let specs = offered_tools(&Registry::standard(), model.info()).specs();
    let never = AtomicBool::new(false);
    let ask = |what: &str| {
        vec![
            Message::new(Role::System, "You are a programmer who uses tools."),
            Message::new(Role::User, format!("prices.py:\n```python\n{text}```\n\n{what}")),
        ]
    };
    let cases = [
        (
            "write_file",
            "content",
            ask(
                "Write the whole of prices.py again with write_file. Change three lines: price_10, price_30 and price_50 return total without the rebate. Leave all else as it is.",
            ),
        ),
        (
            "edit",
            "old_string",
            ask(
                "In prices.py change price_10: its total is count * 99. Use edit, and replace the whole function.",
            ),
        ),
    ];
    for (tool, next, messages) in cases {
        let required = RequiredCall {
            tool: tool.into(),
            given: vec![("file_path".into(), "prices.py".into())],
            next: next.into(),
        };
        let mut texts = Vec::new();
        let mut speeds = Vec::new();
        for drafts in [false, true] {
            model.set_decoding(Decoding { masks: true, drafts });
            let values = WorkspaceValues(&workspace);
            let request = Request {
                messages: &messages,
                tools: &specs,
                sampling: Sampling { seed: 1, temperature: Some(0.7), max_tokens: most },
                must_call: Some(&required),
                words_only: false,
                aside: false,
                frame: None,
                values: Some(&values),
                cancel: &never,
            };
            let begun = Instant::now();
            model.generate(request, &mut |_| {}).expect("an answer");
            let stats = model.stats();
            println!(
                "{format} {tool}, drafts {drafts}: {} tokens at {:.1} tokens/s ({} forced, {} drafted, {} rejected, {} batches; {:.1} s with prefill)",
                stats.tokens,
                stats.tokens as f64 / stats.time.as_secs_f64(),
                stats.forced,
                stats.drafted,
                stats.rejected,
                stats.batches,
                begun.elapsed().as_secs_f64()
            );
            speeds.push(stats.tokens as f64 / stats.time.as_secs_f64());
            texts.push(stats.text.clone());
        }
        println!(
            "{format} {tool}: {:.2}x, output {}",
            speeds[1] / speeds[0],
            if texts[0] == texts[1] { "identical" } else { "DIFFERENT" }
        );
    }
}

/// What the masks of an edit in a file of this size take, from the first on.
fn large(model: &LocalModel, format: ChatFormat, bytes: usize) {
    let mut text = String::new();
    let mut random = 1u64;
    while text.len() < bytes {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (n, kind) = (random >> 40, (random >> 33) % 4);
        let word = ["total", "count", "index", "buffer"][kind as usize];
        text.push_str(&format!("    let {word}_{n} = compute({word}, {}); // step {}\n", n % 97, n % 1009));
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("large.rs"), &text).unwrap();
    let workspace = Workspace::open(folder.path(), &[]).unwrap();
    let values = WorkspaceValues(&workspace);
    let specs = offered_tools(&Registry::standard(), model.info()).specs();
    let tokenizer = model.tokenizer();
    let vocabulary = Grammar::vocabulary(tokenizer, tokenizer.vocab_size());
    let mut grammar = Grammar::new(format, &specs, Some(&values), vocabulary).unwrap();
    let mut turn = Turn::new(&mut grammar, tokenizer, Some(&values));
    let opening = format.call_opening("edit", &[("file_path".into(), "large.rs".into())], "old_string");
    let opening: String = qwright::chat::format::text(&opening);
    assert!(turn.push(opening.as_bytes()));
    let mut times = Vec::new();
    let middle = text[text.len() / 2..].find('\n').unwrap() + text.len() / 2 + 1;
    let mut place = middle;
    for token in tokenizer.encode(&text[middle..text.len().min(middle + 400)], false) {
        let begun = Instant::now();
        let mask = turn.mask();
        times.push(begun.elapsed());
        let bytes = tokenizer.bytes(token);
        let escaped = format.value_text(std::str::from_utf8(bytes).unwrap());
        assert!(format != ChatFormat::Qwen3Coder || mask.contains(token), "{place}: {bytes:?}");
        assert!(turn.push(escaped.as_bytes()));
        place += bytes.len();
    }
    let first = times.remove(0);
    times.sort();
    println!(
        "{format}: old_string in {} bytes: first mask {:.1} ms, then median {:.1} us, most {:.1} us of {}",
        text.len(),
        first.as_secs_f64() * 1e3,
        times[times.len() / 2].as_secs_f64() * 1e6,
        times[times.len() - 1].as_secs_f64() * 1e6,
        times.len()
    );
}
