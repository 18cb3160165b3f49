//! `qwright inspect`: what the model sees and says, as JSON lines in and out, one answer a line. For people who debug
//! and for tests. A line that cannot be answered gets `{"error": ...}` and the exit code 2 at the end; the rest are
//! answered all the same.

use super::bench::kernel_set;
use super::{CommandResult, Failure, exit, inspect_gguf};
use crate::chat::ChatFormat;
use crate::chat::escape::escape_json;
use crate::engine::backend::BackendKind;
use crate::engine::gguf::Gguf;
use crate::engine::kv::KvType;
use crate::engine::{EngineOptions, TokenId, Want};
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Answers every line of standard input.
pub fn lines(mut answer: impl FnMut(&Value) -> Result<Value, String>) -> CommandResult {
    let mut out = std::io::stdout().lock();
    let mut code = exit::DONE;
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line.map_err(|error| {
            Failure::new(exit::USAGE, format!("standard input, line {}: {error}", number + 1))
        })?;
        if line.trim().is_empty() {
            continue;
        }
        let reply = serde_json::from_str(&line)
            .map_err(|error| format!("not JSON: {error}"))
            .and_then(|value| answer(&value))
            .unwrap_or_else(|error| {
                code = exit::USAGE;
                json!({ "error": format!("line {}: {error}", number + 1) })
            });
        // A reader that left early (`| head -1`) is no error of ours.
        if writeln!(out, "{}", escape_json(&reply.to_string())).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(code)
}

pub fn gguf(path: &Path) -> CommandResult {
    let gguf = Gguf::open(path).map_err(|error| Failure::new(exit::USAGE, error.to_string()))?;
    println!("{}", escape_json(&inspect_gguf::header_json(&gguf).to_string()));
    Ok(exit::DONE)
}

/// The token ids of a field of a request.
fn ids(value: &Value) -> Result<Vec<TokenId>, String> {
    let list = value.as_array().ok_or("\"tokens\" must be a list of token ids")?;
    let id = |v: &Value| v.as_u64().and_then(|v| TokenId::try_from(v).ok());
    list.iter().map(|v| id(v).ok_or_else(|| format!("{v} is no token id"))).collect()
}

/// `{"tokens", "top"?}` -> `{"logits": [[..]]}` or `{"top": [[[id, logit], ..], ..]}`, a row per position.
pub fn logits(
    model: &Path,
    backend: BackendKind,
    threads: usize,
    kv: KvType,
    kernels: Option<&str>,
) -> CommandResult {
    if kernels.is_some() && backend != BackendKind::Native {
        return Err(
            Failure::new(exit::USAGE, "kernel sets are the native backend's").hint("leave --kernels out")
        );
    }
    let kernels = kernel_set(kernels)?;
    let mut engine = backend
        .open(model, EngineOptions { threads, kernels, ..Default::default() })
        .map_err(|error| Failure::new(exit::NO_MODEL, error.to_string()))?;
    lines(|request| {
        let tokens = ids(&request["tokens"])?;
        if tokens.is_empty() {
            return Err("\"tokens\" is empty".into());
        }
        let mut sequence = engine.sequence(tokens.len(), kv);
        let all = engine
            .append(&mut sequence, &tokens, Want::All, &AtomicBool::new(false), &mut |_| {})
            .map_err(|error| error.to_string())?;
        let rows = all.chunks_exact(engine.config().vocab);
        let Some(top) = request.get("top") else {
            return Ok(json!({ "logits": rows.collect::<Vec<_>>() }));
        };
        let top = top.as_u64().ok_or("\"top\" must be a number")? as usize;
        let best = |row: &[f32]| {
            let mut order: Vec<usize> = (0..row.len()).collect();
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
            order.truncate(top);
            order.into_iter().map(|id| json!([id, row[id]])).collect::<Vec<_>>()
        };
        Ok(json!({ "top": rows.map(best).collect::<Vec<_>>() }))
    })
}

/// `{"text", "added"?}` -> `{"ids"}`
pub fn tokens(model: &Path) -> CommandResult {
    let broken = |error: crate::engine::EngineError| Failure::new(exit::NO_MODEL, error.to_string());
    let gguf = Gguf::open(model).map_err(broken)?;
    let tokenizer = crate::engine::tokenizer::Tokenizer::from_gguf(&gguf).map_err(broken)?;
    lines(|request| {
        let text = request["text"].as_str().ok_or("\"text\" must be a text")?;
        let added = request.get("added").and_then(Value::as_bool).unwrap_or(false);
        Ok(json!({ "ids": tokenizer.encode(text, added) }))
    })
}

/// The chat format by name, else the one a model file speaks.
pub fn format(name: Option<&str>, model: Option<&Path>) -> Result<ChatFormat, Failure> {
    if let Some(name) = name {
        return name.parse::<ChatFormat>().map_err(|_| ()).ok().ok_or_else(|| {
            Failure::new(exit::USAGE, format!("no chat format is called {name:?}"))
                .hint("choose qwen3-coder, hermes, hermes-qwen2.5 or thinking")
        });
    }
    let Some(path) = model else {
        return Err(
            Failure::new(exit::USAGE, "which chat format?").hint("name it with --format, or a model with -m")
        );
    };
    let gguf = Gguf::open(path).map_err(|error| Failure::new(exit::NO_MODEL, error.to_string()))?;
    let name = gguf.str("general.name").unwrap_or_default();
    ChatFormat::detect(gguf.str("tokenizer.chat_template"), name).ok_or_else(|| {
        Failure::new(exit::USAGE, format!("{}: its chat format is none of ours", path.display()))
            .hint("name one with --format")
    })
}
