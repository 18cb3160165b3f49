//! Masks for a turn with tools: a call cannot be malformed, and its values can be held to what is there. From the tool
//! specs and the chat format comes an automaton over bytes (`machine`); a walk of the vocabulary as a trie (`trie`) asks
//! it which tokens may come. `Turn` is one answer that is being written: its mask, its forced tokens, its place.
//!
//! | file | what it is |
//! |---|---|
//! | `machine`, `xml`, `hermes` | the answer, the calls of each format |
//! | `json`, `schema`, `names`, `utf8` | a value held to a schema |
//! | `live`, `paths`, `source` | a value held to the workspace, through `trait LiveValues` |
//! | `trie` | from bytes to tokens |
//!
//! The agent implements `LiveValues`; sampling and drafts are `decode`'s.

mod hermes;
mod json;
mod live;
mod machine;
mod names;
mod paths;
mod schema;
mod source;
mod trie;
mod utf8;
mod xml;

pub use live::{Entry, EntryKind, LiveValues, Rule};
pub use source::Source;

use crate::chat::schema::{Types, types};
use crate::chat::{ChatFormat, ToolSpec};
use crate::engine::TokenId;
use crate::engine::sampler::TokenMask;
use crate::engine::tokenizer::Tokenizer;
use live::{Live, Value};
use machine::{Machine, Parameter, Rules, State, Tool};
use names::Names;
use schema::{Nodes, between_quotes};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use trie::Automaton;
pub use trie::Vocabulary;

/// Masks that are kept; beyond, all go and the ones in use come again.
const KEPT_MASKS: usize = 512;
/// Longest text that is forced at once.
const LONGEST_FORCED: usize = 400;

/// The masks of a tool set in a format.
pub struct Grammar {
    rules: Rules,
    vocabulary: Arc<Vocabulary>,
    /// Masks of states that depend on nothing but the rules.
    masks: HashMap<State, Arc<TokenMask>>,
}

impl Grammar {
    /// `None` where there is nothing to hold to: no tools.
    pub fn new(
        format: ChatFormat,
        tools: &[ToolSpec],
        values: Option<&dyn LiveValues>,
        vocabulary: Arc<Vocabulary>,
    ) -> Option<Self> {
        if tools.is_empty() {
            return None;
        }
        let xml = format.is_xml();
        let written = |name: &str| if xml { name.to_string() } else { between_quotes(name) };
        let mut nodes = Nodes::default();
        let mut compiled = Vec::with_capacity(tools.len());
        for spec in tools {
            compiled.push(tool(spec, values, &mut nodes, &written));
        }
        let names: Vec<String> = tools.iter().map(|spec| written(&spec.name)).collect();
        let tool_names = Names::new(names.iter().map(|name| name.as_bytes()));
        let rules = Rules { xml, opens_think: format.opens_think(), tool_names, tools: compiled, nodes };
        Some(Self { rules, vocabulary, masks: HashMap::new() })
    }

    /// The vocabulary as a grammar needs it; `logits`: as many as the model has.
    pub fn vocabulary(tokenizer: &Tokenizer, logits: usize) -> Arc<Vocabulary> {
        Arc::new(Vocabulary::new(tokenizer, logits))
    }
}

fn tool(
    spec: &ToolSpec,
    values: Option<&dyn LiveValues>,
    nodes: &mut Nodes,
    written: &dyn Fn(&str) -> String,
) -> Tool {
    let empty = json!({});
    let schema = if spec.parameters.is_object() { &spec.parameters } else { &empty };
    let properties = schema.get("properties").and_then(|p| p.as_object());
    let required = schema.get("required").and_then(|list| list.as_array());
    let is_required = |name: &str| required.is_some_and(|list| list.iter().any(|v| v == name));
    // A bit for each; of more than that, those that must be there.
    let mut names: Vec<&String> = properties.map(|p| p.keys().collect()).unwrap_or_default();
    names.sort_by_key(|name| !is_required(name));
    names.truncate(64);
    let rule = |name: &str| values.map(|values| values.rule(&spec.name, name)).unwrap_or_default();
    let of_rule = |wanted: Rule| names.iter().position(|name| rule(name) == wanted).map(|at| at as u16);
    let mut parameters = Vec::with_capacity(names.len());
    let mut bits = 0u64;
    for (bit, name) in names.iter().enumerate() {
        let property = properties.and_then(|p| p.get(*name)).unwrap_or(&empty);
        let rule = rule(name);
        let after = match rule {
            Rule::TextOfFile => of_rule(Rule::Edited),
            Rule::Instead => of_rule(Rule::TextOfFile),
            _ => None,
        };
        bits |= u64::from(is_required(name)) << bit;
        let is_text = types(property, schema).has(Types::STRING);
        parameters.push(Parameter { node: nodes.add(property, schema), rule, after, is_text });
    }
    let written: Vec<String> = names.iter().map(|name| written(name)).collect();
    Tool { names: Names::new(written.iter().map(|name| name.as_bytes())), parameters, required: bits }
}

/// Where an answer stands; kept and put back to try a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark(State);

/// What the answer is about to write, for whoever guesses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// Text, or a value that is held to nothing.
    Free,
    /// Text of a file that stands at so few places.
    TextOfFile { places: usize },
    /// What comes instead of a text of a file.
    Instead,
    /// Names and marks of a call.
    Marks,
}

/// An answer that is being written.
pub struct Turn<'a> {
    grammar: &'a mut Grammar,
    tokenizer: &'a Tokenizer,
    live: Option<Live<'a>>,
    state: State,
    /// Masks of states that depend on the workspace as this answer sees it.
    masks: HashMap<State, Arc<TokenMask>>,
}

impl<'a> Turn<'a> {
    pub fn new(
        grammar: &'a mut Grammar,
        tokenizer: &'a Tokenizer,
        values: Option<&'a dyn LiveValues>,
    ) -> Self {
        let state = State::new(&grammar.rules);
        Self { grammar, tokenizer, live: values.map(Live::new), state, masks: HashMap::new() }
    }

    fn machine(&self) -> Machine<'_> {
        Machine { rules: &self.grammar.rules, live: self.live.as_ref() }
    }

    pub fn mark(&self) -> Mark {
        Mark(self.state)
    }

    pub fn go_back(&mut self, mark: Mark) {
        self.state = mark.0;
    }

    /// Goes over what was written; false where that is nothing this grammar allows: it then allows everything.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        let machine = self.machine();
        let next = bytes.iter().try_fold(self.state, |state, &byte| machine.step(&state, byte));
        self.state = next.unwrap_or_else(State::off);
        next.is_some()
    }

    /// No call is open, so what comes is up to the model alone.
    pub fn is_outside(&self) -> bool {
        self.state.is_outside()
    }

    pub fn may_stop(&self) -> bool {
        self.state.may_stop()
    }

    /// The tokens that may come next.
    pub fn mask(&mut self) -> Arc<TokenMask> {
        let live = self.state.is_live();
        let known = if live { &self.masks } else { &self.grammar.masks };
        if let Some(mask) = known.get(&self.state) {
            return mask.clone();
        }
        let vocabulary = self.grammar.vocabulary.clone();
        let machine = self.machine();
        let mut mask;
        if let Some((kind, tag)) = self.state.is_free(machine.rules.xml, machine.live) {
            let split = vocabulary.split(kind);
            mask = split.plain.clone();
            tag.iter().for_each(|first| vocabulary.all.walk_after(&machine, self.state, &mut mask, *first));
            split.telling.walk(&machine, self.state, &mut mask);
        } else {
            mask = TokenMask::none(vocabulary.logits());
            vocabulary.all.walk(&machine, self.state, &mut mask);
        }
        if self.state.may_stop() {
            self.tokenizer.stops().iter().for_each(|&stop| mask.allow(stop));
        }
        let mask = Arc::new(mask);
        let known = if live { &mut self.masks } else { &mut self.grammar.masks };
        if known.len() >= KEPT_MASKS {
            known.clear();
        }
        known.insert(self.state, mask.clone());
        mask
    }

    /// The tokens that must come next, as the tokenizer would write them; without the last word, which may be the
    /// beginning of a longer one.
    pub fn forced(&self) -> Vec<TokenId> {
        let machine = self.machine();
        let mut state = self.state;
        let mut pieces: Vec<(bool, Vec<u8>)> = Vec::new();
        let mut length = 0;
        while length < LONGEST_FORCED
            && !state.may_stop()
            && let Some((byte, next)) = only(&machine, &state)
        {
            let template = !state.is_in_value();
            match pieces.last_mut() {
                Some((kind, bytes)) if *kind == template => bytes.push(byte),
                _ => pieces.push((template, vec![byte])),
            }
            state = next;
            length += 1;
        }
        let mut texts: Vec<(bool, &str)> = Vec::with_capacity(pieces.len());
        for (template, bytes) in &pieces {
            match std::str::from_utf8(bytes) {
                Ok(text) => texts.push((*template, text)),
                // Amid a character: what is whole before it.
                Err(error) => {
                    let whole = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
                    texts.push((*template, whole));
                    break;
                }
            }
        }
        self.tokenizer.encode_settled(&texts)
    }

    pub fn writing(&self) -> Writing {
        let value = self.value();
        match (value, &self.live) {
            (Some(Value::Text(file, span)), Some(live)) => match live.source(file) {
                Some(source) => Writing::TextOfFile { places: source.count(span) },
                None => Writing::Free,
            },
            (Some(_), _) if self.machine().current(&self.state).is_some_and(|p| p.rule == Rule::Instead) => {
                Writing::Instead
            }
            _ if self.state.is_outside() || self.state.is_in_value() => Writing::Free,
            _ => Writing::Marks,
        }
    }

    fn value(&self) -> Option<Value> {
        self.state.value_so_far()
    }

    /// What follows in the file the text that is being copied.
    pub fn rest_of_file(&self) -> Option<String> {
        match (self.value()?, &self.live) {
            (Value::Text(file, span), Some(live)) => {
                let source = live.source(file)?;
                let rest = source.rest(span);
                let end = rest.char_indices().nth(400).map_or(rest.len(), |(at, _)| at);
                Some(rest[..end].to_string())
            }
            _ => None,
        }
    }
}

/// The one byte that may come, if it is one.
fn only(machine: &Machine<'_>, state: &State) -> Option<(u8, State)> {
    let mut found = None;
    if state.is_free(machine.rules.xml, machine.live).is_some() {
        return None;
    }
    for byte in 0..=u8::MAX {
        if let Some(next) = machine.step(state, byte) {
            if found.is_some() {
                return None;
            }
            found = Some((byte, next));
        }
    }
    found
}
