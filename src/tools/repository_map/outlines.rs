//! Outlines of files by the hash of what they hold, kept in the state directory: the next session parses only what
//! changed. No more than a cache: what cannot be read or written is worked out again.

use crate::syntax::{Definition, Language, Parsed};
use crate::workspace::Workspace;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::PathBuf;

const DIRECTORY: &str = "outlines";
/// Outlines of another version of this program are not used.
const VERSION: &str = concat!("1 ", env!("CARGO_PKG_VERSION"));
/// When there are more, those go that were not asked for.
const MOST: usize = 20_000;

#[derive(Serialize, Deserialize)]
struct Stored {
    version: String,
    outlines: HashMap<String, Vec<Definition>>,
}

/// The outlines that are known.
pub struct Outlines {
    /// Where they are kept; `None` keeps none.
    file: Option<PathBuf>,
    known: HashMap<String, Vec<Definition>>,
    /// Of these the texts are still there.
    asked: HashSet<String>,
    /// Worked out since they were read.
    pub new: usize,
}

impl Outlines {
    pub fn of(workspace: &Workspace) -> Self {
        let name = hex(&Sha256::digest(workspace.root().as_os_str().as_encoded_bytes()).as_slice()[..16]);
        let file =
            workspace.state_directory().map(|state| state.join(DIRECTORY).join(format!("{name}.json")));
        let stored = file.as_ref().and_then(|file| std::fs::read(file).ok());
        let stored: Option<Stored> = stored.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let known = stored.filter(|stored| stored.version == VERSION).map(|stored| stored.outlines);
        Self { file, known: known.unwrap_or_default(), asked: HashSet::new(), new: 0 }
    }

    /// `None` where the text takes too long to parse.
    pub fn outline(&mut self, language: Language, text: &str) -> Option<Vec<Definition>> {
        let mut digest = Sha256::new();
        digest.update(format!("{language:?}\n"));
        digest.update(text);
        let key = hex(&digest.finalize());
        self.asked.insert(key.clone());
        if let Some(known) = self.known.get(&key) {
            return Some(known.clone());
        }
        let outline = Parsed::new(language, text)?.outline();
        self.new += 1;
        self.known.insert(key, outline.clone());
        Some(outline)
    }

    /// Keeps them for the next session.
    pub fn save(mut self) {
        let Some(file) = self.file.filter(|_| self.new > 0) else { return };
        if self.known.len() > MOST {
            self.known.retain(|key, _| self.asked.contains(key));
        }
        let stored = Stored { version: VERSION.into(), outlines: self.known };
        let write = || -> std::io::Result<()> {
            let directory = file.parent().unwrap_or(&file);
            std::fs::create_dir_all(directory)?;
            let mut draft = tempfile::NamedTempFile::new_in(directory)?;
            draft.write_all(&serde_json::to_vec(&stored)?)?;
            draft.persist(&file)?;
            Ok(())
        };
        // Without it the next session parses again.
        let _ = write();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
