//! The user's own editor on a text of ours: `$VISUAL`, `$EDITOR`, else vi. It has the terminal while it runs.

use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// An editor has the terminal now.
pub static RUNS: AtomicBool = AtomicBool::new(false);

/// The text as it was saved; an error in words where the editor failed.
pub fn edit(text: &str, name: &str) -> Result<String, String> {
    let editor = ["VISUAL", "EDITOR"]
        .iter()
        .find_map(|key| std::env::var(key).ok().filter(|value| !value.trim().is_empty()))
        .unwrap_or_else(|| "vi".to_string());
    let run = || -> io::Result<Result<String, String>> {
        // The end of the name tells the editor what kind of text it is.
        let ending = Path::new(name).extension().and_then(|ending| ending.to_str()).unwrap_or("txt");
        let mut file =
            tempfile::Builder::new().prefix("qwright-").suffix(&format!(".{ending}")).tempfile()?;
        file.write_all(text.as_bytes())?;
        file.flush()?;
        // Editors are named with their arguments, so a shell reads the name.
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("{editor} \"$1\""))
            .arg("sh")
            .arg(file.path())
            .status()?;
        if !status.success() {
            return Ok(Err(format!("the editor `{editor}` ended with {status}; nothing was changed")));
        }
        // Some editors put a new file in the place of the old one.
        let mut after = String::new();
        match std::fs::File::open(file.path()) {
            Ok(mut saved) => saved.read_to_string(&mut after)?,
            Err(_) => {
                file.rewind()?;
                file.read_to_string(&mut after)?
            }
        };
        Ok(Ok(after))
    };
    RUNS.store(true, Ordering::SeqCst);
    let edited = run();
    RUNS.store(false, Ordering::SeqCst);
    edited.unwrap_or_else(|error| Err(format!("the editor `{editor}` could not be used: {error}")))
}
