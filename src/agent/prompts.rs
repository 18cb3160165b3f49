//! The words the agent says to the model. They live in `prompts/`, so that wording changes without code; this file
//! only finds and fills them.

pub const SYSTEM: &str = include_str!("../../prompts/system.md");
pub const FIRST_MESSAGE: &str = include_str!("../../prompts/first_message.md");
/// What asks for the notes that a shortened conversation goes on with.
pub const COMPACTION: &str = include_str!("../../prompts/compaction.md");
const NOTES: &str = include_str!("../../prompts/notes.md");
/// What is said only in a run without a screen.
const EXEC: &str = include_str!("../../prompts/exec.md");

/// The note under `## name` in `prompts/notes.md`, filled.
pub fn note(name: &str, values: &[(&str, &str)]) -> String {
    fill(section(NOTES, name).unwrap_or_default(), values)
}

/// The same of `prompts/exec.md`.
pub fn exec_text(name: &str, values: &[(&str, &str)]) -> String {
    fill(section(EXEC, name).unwrap_or_default(), values)
}

/// The request of work that is to go on until `command` passes; `words` are the user's, if there are any.
pub fn until_request(command: &str, words: Option<&str>) -> String {
    match words {
        Some(words) if words.contains(command) => words.to_string(),
        Some(words) => exec_text("until_with_words", &[("words", words), ("command", command)]),
        None => exec_text("until", &[("command", command)]),
    }
}

/// The request after a round of it.
pub fn until_again(command: &str) -> String {
    exec_text("until_again", &[("command", command)])
}

fn section(text: &'static str, name: &str) -> Option<&'static str> {
    text.split("\n## ").skip(1).find_map(|part| {
        let (heading, body) = part.split_once('\n')?;
        (heading.trim() == name).then(|| body.trim_end_matches('\n'))
    })
}

/// Replaces `{name}` by its value, in one pass: a value that holds `{other}` is left as it is, and braces around
/// no known name stay.
pub fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let known = values.iter().find_map(|(name, value)| {
            let after = rest[1..].strip_prefix(name)?.strip_prefix('}')?;
            Some((*value, after))
        });
        match known {
            Some((value, after)) => {
                out.push_str(value);
                rest = after;
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filling_is_one_pass_and_leaves_other_braces() {
        assert_eq!(fill("{a} {b} {c} {", &[("a", "{b}"), ("b", "x")]), "{b} x {c} {");
    }

    #[test]
    fn every_note_the_code_names_exists_and_every_note_is_named() {
        let mut sources = String::new();
        let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/agent")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false if path.ends_with("prompts.rs") => {}
                    false => sources.push_str(&std::fs::read_to_string(path).unwrap()),
                }
            }
        }
        for part in NOTES.split("\n## ").skip(1) {
            let name = part.lines().next().unwrap().trim();
            assert!(sources.contains(&format!("\"{name}\"")), "`{name}` is used nowhere");
            assert!(!section(NOTES, name).unwrap().is_empty(), "`{name}` is empty");
        }
        for (call, text) in [("note(\"", NOTES), ("exec_text(\"", EXEC)] {
            for (at, _) in sources.match_indices(call) {
                let name = sources[at + call.len()..].split('"').next().unwrap();
                assert!(section(text, name).is_some(), "there is no note `{name}`");
            }
        }
    }

    /// The system prompt is sent in every session; its size is a promise (2,000 tokens together with the tools).
    #[test]
    fn the_system_prompt_is_short() {
        assert!(SYSTEM.len() <= 1500, "{} bytes", SYSTEM.len());
    }
}
