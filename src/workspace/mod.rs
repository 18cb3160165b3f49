//! The user's files: guarded paths, reads, atomic writes, edits, diffs, search, git, shell and sandbox.
//! The one way to the disk for tools. Knows nothing of models, messages or approval.

pub mod sandbox;
pub mod shell;

/// A directory the agent works in. All paths are resolved beneath it by one guard.
pub struct Workspace {}
