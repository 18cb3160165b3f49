//! What a log keeps beside the messages, so that a session can be run again: how the model was run, what each answer was
//! asked for with, and what the masks of its calls were told of the workspace while it was written (`Witness` listens,
//! `SeenValues` says it again). Only what is new since the last answer is kept.

use super::live_values::rule;
use crate::chat::ToolSpec;
use crate::model::grammar::{Entry, LiveValues, Rule};
use crate::model::{Generated, ModelSetup, RequiredCall, StopReason};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

/// How a process ran the model of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSettings {
    /// Of this program.
    pub version: String,
    pub seed: u64,
    /// In place of the model's own.
    pub temperature: Option<f32>,
    /// The tools as the model was told of them.
    pub tools: Vec<ToolSpec>,
    /// `None`: not a model of this program.
    pub model: Option<ModelSetup>,
}

/// What one answer was asked for with, beside the messages before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Tokens it could have at most.
    pub most: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub must_call: Option<RequiredCall>,
    #[serde(default)]
    pub words_only: bool,
    /// Where it was not the session's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    pub stop: StopReason,
    /// Tokens before it.
    pub prompt: usize,
    /// What was not seen before.
    #[serde(default, skip_serializing_if = "Seen::is_empty")]
    pub seen: Seen,
}

/// What was seen of a workspace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    entries: BTreeMap<String, Vec<Entry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spellings: Option<Vec<(String, String)>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    texts: BTreeMap<String, Text>,
}

/// A file as far as it mattered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Text {
    /// It cannot be edited.
    Closed,
    /// It can, and nothing of it was quoted.
    Open,
    Whole(String),
}

impl Seen {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.spellings.is_none() && self.texts.is_empty()
    }

    /// Files whose text, by `read`, is another than the one that was quoted.
    pub fn changed(&self, read: &dyn Fn(&str) -> Option<String>) -> Vec<&str> {
        let is_other = |(path, text): (&'_ String, &Text)| match text {
            Text::Whole(text) => read(path).as_ref() != Some(text),
            Text::Open | Text::Closed => false,
        };
        let all = self.texts.iter().filter(|(path, text)| is_other((path, text)));
        all.map(|(path, _)| path.as_str()).collect()
    }

    /// Takes in what was seen later; returns what of it is new.
    pub fn take_in(&mut self, mut later: Seen) -> Seen {
        later.entries.retain(|name, entries| self.entries.get(name) != Some(&*entries));
        later.texts.retain(|path, text| match (self.texts.get(path), &*text) {
            // That it can be edited is known of a file whose text is.
            (Some(Text::Open | Text::Whole(_)), Text::Open) => false,
            (known, text) => known != Some(text),
        });
        if later.spellings == self.spellings {
            later.spellings = None;
        }
        self.entries.extend(later.entries.clone());
        self.texts.extend(later.texts.clone());
        if later.spellings.is_some() {
            self.spellings = later.spellings.clone();
        }
        later
    }
}

/// Passes on what there is, and remembers it.
pub struct Witness<'a> {
    values: &'a dyn LiveValues,
    seen: RefCell<Seen>,
}

impl<'a> Witness<'a> {
    pub fn new(values: &'a dyn LiveValues) -> Self {
        Self { values, seen: RefCell::default() }
    }

    /// What `generated` rests on. Of the files only those that its calls name are kept whole; all of them where it
    /// cannot be told what its calls were.
    pub fn seen(self, generated: &Generated) -> Seen {
        let mut seen = self.seen.into_inner();
        if generated.stop != StopReason::End || generated.truncated || !generated.problems.is_empty() {
            return seen;
        }
        let calls = generated.message.tool_calls.iter();
        let named: Vec<&str> = calls.filter_map(|call| call.arguments.get("file_path")?.as_str()).collect();
        for (path, text) in &mut seen.texts {
            let is_named = named.iter().any(|name| {
                name.strip_suffix(path.as_str())
                    .is_some_and(|before| before.is_empty() || before.ends_with('/'))
            });
            if !is_named && *text != Text::Closed {
                *text = Text::Open;
            }
        }
        seen
    }
}

impl LiveValues for Witness<'_> {
    fn rule(&self, tool: &str, parameter: &str) -> Rule {
        self.values.rule(tool, parameter)
    }

    fn entries(&self, directory: &str) -> Vec<Entry> {
        let entries = self.values.entries(directory);
        self.seen.borrow_mut().entries.insert(directory.to_string(), entries.clone());
        entries
    }

    fn spellings(&self) -> Vec<(String, String)> {
        let spellings = self.values.spellings();
        self.seen.borrow_mut().spellings = Some(spellings.clone());
        spellings
    }

    fn text(&self, path: &str) -> Option<String> {
        let text = self.values.text(path);
        let kept = text.clone().map_or(Text::Closed, Text::Whole);
        self.seen.borrow_mut().texts.insert(path.to_string(), kept);
        text
    }
}

/// The workspace as it was seen.
pub struct SeenValues<'a> {
    seen: &'a Seen,
    asked: RefCell<BTreeSet<String>>,
    lacking: Cell<bool>,
}

impl<'a> SeenValues<'a> {
    pub fn new(seen: &'a Seen) -> Self {
        Self { seen, asked: RefCell::default(), lacking: Cell::new(false) }
    }

    /// Something was asked for that was not seen.
    pub fn is_lacking(&self) -> bool {
        self.lacking.get()
    }
}

impl LiveValues for SeenValues<'_> {
    fn rule(&self, tool: &str, parameter: &str) -> Rule {
        rule(tool, parameter)
    }

    fn entries(&self, directory: &str) -> Vec<Entry> {
        let known = self.seen.entries.get(directory).cloned();
        self.lacking.set(self.lacking.get() || known.is_none());
        known.unwrap_or_default()
    }

    fn spellings(&self) -> Vec<(String, String)> {
        self.lacking.set(self.lacking.get() || self.seen.spellings.is_none());
        self.seen.spellings.clone().unwrap_or_default()
    }

    fn text(&self, path: &str) -> Option<String> {
        // First it is asked whether a file can be edited; whoever asks again wants the text.
        let again = !self.asked.borrow_mut().insert(path.to_string());
        match self.seen.texts.get(path) {
            Some(Text::Whole(text)) => Some(text.clone()),
            Some(Text::Closed) => None,
            Some(Text::Open) => {
                self.lacking.set(self.lacking.get() || again);
                Some(String::new())
            }
            None => {
                self.lacking.set(true);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Role, ToolCall};
    use crate::model::grammar::EntryKind;

    struct Files;

    impl LiveValues for Files {
        fn rule(&self, tool: &str, parameter: &str) -> Rule {
            rule(tool, parameter)
        }
        fn entries(&self, directory: &str) -> Vec<Entry> {
            vec![Entry { name: format!("{directory}a"), kind: EntryKind::File }]
        }
        fn spellings(&self) -> Vec<(String, String)> {
            vec![("./".into(), String::new())]
        }
        fn text(&self, path: &str) -> Option<String> {
            (path != "binary").then(|| format!("text of {path}"))
        }
    }

    fn generated(stop: StopReason) -> Generated {
        let mut message = Message::new(Role::Assistant, "");
        let arguments = serde_json::Map::from_iter([("file_path".to_string(), "./src/a".into())]);
        message.tool_calls = vec![ToolCall { name: "edit".into(), arguments }];
        Generated { message, stop, usage: Default::default(), truncated: false, problems: Vec::new() }
    }

    type Looked = (Vec<Entry>, Vec<(String, String)>, [Option<String>; 3]);

    fn look(values: &dyn LiveValues) -> Looked {
        let texts = ["src/a", "rc/a", "binary"].map(|path| values.text(path));
        (values.entries("src"), values.spellings(), texts)
    }

    #[test]
    fn what_was_seen_is_said_again() {
        let witness = Witness::new(&Files);
        let (entries, spellings, texts) = look(&witness);
        let mut known = Seen::default();
        let new = known.take_in(witness.seen(&generated(StopReason::End)));
        assert_eq!(new, known);
        let json = serde_json::to_string(&new).unwrap();
        assert!(json.contains("text of src/a") && !json.contains("text of rc/a"), "{json}");
        let read: Seen = serde_json::from_str(&json).unwrap();
        let again = SeenValues::new(&read);
        assert_eq!(look(&again), (entries, spellings, [texts[0].clone(), Some(String::new()), None]));
        assert!(!again.is_lacking());
        // The text of the file that no call named is not there to be quoted.
        again.text("rc/a");
        assert!(again.is_lacking());
        let other = SeenValues::new(&read);
        assert!(other.entries("lib").is_empty() && other.is_lacking());
    }

    #[test]
    fn only_what_is_new_is_kept() {
        let seen = |stop| {
            let witness = Witness::new(&Files);
            look(&witness);
            witness.seen(&generated(stop))
        };
        let mut known = Seen::default();
        known.take_in(seen(StopReason::End));
        assert!(known.take_in(seen(StopReason::End)).is_empty());
        // A call that was cut off may have quoted any file that was looked at.
        let whole = known.take_in(seen(StopReason::Length));
        assert_eq!(whole.texts, BTreeMap::from([("rc/a".into(), Text::Whole("text of rc/a".into()))]));
        assert!(known.take_in(seen(StopReason::End)).is_empty());
        assert_eq!(known.texts["rc/a"], Text::Whole("text of rc/a".into()));
    }
}
