//! `inspect prompt --session TEXT`: what a new session in this directory would send for TEXT, to the letter, by the
//! session's own code. With a model also how many tokens that is.

use super::{CommandResult, Failure, exit, load};
use crate::agent::protocol::ApprovalMode;
use crate::agent::{SessionOptions, offered_tools, opening_messages};
use crate::chat::{ChatFormat, format};
use crate::config::Config;
use crate::model::ModelInfo;
use crate::tools::Registry;
use crate::workspace::Workspace;
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Context that is assumed where no model says its own.
const CONTEXT: usize = 32_768;

/// Prints `{"text", "tokens"?}`. `with_model`: the settings name one; else the prompt is that of a large model.
pub fn session(config: &Config, with_model: bool, chat: Option<ChatFormat>, request: &str) -> CommandResult {
    let workspace =
        Workspace::open(Path::new("."), &[]).map_err(|error| Failure::new(exit::USAGE, error.to_string()))?;
    // The model that was named is a file here, whatever sessions speak with.
    let mut config = config.clone();
    config.settings.endpoint = None;
    let model = if with_model { Some(load::local(&config, true, &AtomicBool::new(false))?) } else { None };
    let mut info = model.as_ref().map_or_else(
        || ModelInfo { name: String::new(), context: CONTEXT, format: ChatFormat::Qwen3Coder, billions: 0.0 },
        |model| model.info().clone(),
    );
    info.format = chat.unwrap_or(info.format);
    // As `exec` starts it unless told otherwise.
    let options = SessionOptions { mode: ApprovalMode::AutoEdit, ..SessionOptions::default() };
    let count = |text: &str| model.as_ref().map_or(text.len() / 4, |model| model.count_tokens(text));
    let messages = opening_messages(&workspace, &info, &options, request, &count);
    let specs = offered_tools(&Registry::standard(), &info).specs();
    let text = match model.as_ref().filter(|_| chat.is_none()) {
        Some(model) => model.prompt(&messages, &specs).map_err(load::failure)?,
        None => format::text(&info.format.render(&messages, &specs, true)),
    };
    let mut answer = json!({ "text": text });
    if let Some(model) = &model {
        answer["tokens"] = model.count_history(&messages, &specs).into();
    }
    writeln!(std::io::stdout(), "{answer}")
        .map_err(|error| Failure::new(exit::TASK_FAILED, format!("standard output: {error}")))?;
    Ok(exit::DONE)
}
