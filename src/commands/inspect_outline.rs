//! `qwright inspect outline FILE`: the definitions of a source file, a JSON line each, in the order of the file. What
//! counts as a definition is `syntax`'s.

use super::{CommandResult, Failure, exit};
use crate::chat::escape::escape_json;
use crate::syntax::{Language, MAX_BYTES, Parsed};
use std::io::Write;
use std::path::Path;

pub fn outline(path: &Path) -> CommandResult {
    let shown = path.display();
    let failed = |message: String| Failure::new(exit::USAGE, message);
    let language = path.to_str().and_then(Language::of_path).ok_or_else(|| {
        let endings: Vec<&str> = Language::endings().collect();
        failed(format!("{shown}: no grammar for this kind of file"))
            .hint(format!("there is one for files that end in {}", endings.join(", ")))
    })?;
    let text = std::fs::read_to_string(path)
        .map_err(|error| failed(format!("{shown}: {error}")).hint("name a text file in UTF-8"))?;
    let parsed = Parsed::new(language, &text).ok_or_else(|| {
        failed(format!("{shown}: too much for the parser")).hint(format!(
            "files of up to {} KiB are parsed, if they look like programs; cut it",
            MAX_BYTES / 1024
        ))
    })?;
    let mut out = std::io::stdout().lock();
    for definition in parsed.outline() {
        let line = serde_json::to_string(&definition).map_err(|error| failed(format!("{shown}: {error}")))?;
        // A reader that left early (`| head -1`) is no error of ours.
        if writeln!(out, "{}", escape_json(&line)).is_err() {
            break;
        }
    }
    Ok(exit::DONE)
}
