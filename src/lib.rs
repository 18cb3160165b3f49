//! Qwright: a coding agent for the terminal with its inference engine inside.
//!
//! # The map
//!
//! | module | what it is |
//! |---|---|
//! | [`engine`] | tokens in, tokens out: GGUF, weights, kernels, forward pass, KV cache, sampler |
//! | [`chat`] | messages <-> text: chat formats and the tool-call parser; pure text, no IO |
//! | [`model`] | `trait Model` and its implementations (local engine, an OpenAI-compatible server, scripted turns) |
//! | [`hub`] | the catalogue of models, what fits this machine, download and verification |
//! | [`syntax`] | programs as trees: colours, outlines, what an edit broke; pure text, no IO |
//! | [`workspace`] | the user's files: guarded paths, edits, diffs, search, git, shell and sandbox, checkpoints and undo |
//! | [`tools`] | one file per tool the model can call; thin |
//! | [`agent`] | protocol (`Op`, `Event`), the pure `Turn`, the `Session` that carries effects out |
//! | [`headless`] | `exec`: text and JSON output, exit codes |
//! | [`tui`] | the terminal interface |
//! | [`commands`] | one file per other subcommand |
//! | [`config`] | layered settings and directories |
//!
//! Who may import whom is a table in `tests/it/layers.rs`, and a test. It confines as well: only `workspace::shell` may spawn
//! processes (and `hub::pip` its pip client, `tui::editor` the user's editor); `git2` stays in `workspace`, `unsafe` in `engine` and the sandbox,
//! candle in `engine::candle`, connections in `hub` and `model::endpoint`, tree-sitter in `syntax`, Jinja in `chat::template`.
//!
//! # Invariants (most are about what is absent)
//!
//! 1. `engine` knows nothing of messages, tools, files of the user, or terminals.
//! 2. `Turn::handle(Input) -> Vec<Effect>` is pure: no IO, no clock, no async. `Session` carries effects out.
//! 3. Front ends share with the agent one queue pair and nothing else: `Op` in, `Event` out.
//! 4. **The prompt only grows.** The tokens of message k never change when message k+1 comes. Only a compaction breaks
//!    this (it is counted, told, and the log keeps what went), and a chat template of the model's own file may.
//! 5. Sampling is reproducible: same model, messages, seed and settings give the same tokens, whatever the
//!    prefill chunking, thread count or cached prefix.
//! 6. One enforcement point for paths: file tools, patches and shell all reach the disk through `workspace`.
//! 7. Every write is atomic, a change of several files is whole or, by the next start, gone; every turn can be undone, or
//!    says what is outside undo.
//! 8. Errors that the model can repair go to the model; the rest to the user with a hint; only `main` picks
//!    exit codes. No panic on any input.
//! 9. Everything a model or file wrote is escaped at one choke point before a terminal sees it.
//! 10. Nothing connects to the network but what the user asked for.

pub mod agent;
pub mod chat;
pub mod cli;
pub mod commands;
pub mod config;
pub mod engine;
pub mod headless;
pub mod hub;
pub mod model;
pub mod syntax;
pub mod tools;
pub mod tui;
pub mod workspace;
