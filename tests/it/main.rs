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
mod endpoint;
mod exec;
mod exec_patch;
mod exec_stream;
mod exec_until;
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
mod sessions_command;
mod shell;
mod syntax;
mod tokenizer;
mod tools;
mod tools_command;
mod tui;
mod workspace;
