//! One integration binary, a file per area.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod agent;
mod ahead;
mod aside;
mod bench;
#[cfg(feature = "candle")]
mod candle;
mod chat;
mod config;
mod determinism;
mod edits;
mod exec;
mod gguf;
mod grammar;
mod hub;
mod kv;
mod large;
mod layers;
mod model;
mod oracle;
mod policy;
mod quant;
mod real_model;
mod revise;
mod sessions;
mod shell;
mod syntax;
mod tokenizer;
mod tools;
mod tools_command;
mod tui;
mod workspace;
