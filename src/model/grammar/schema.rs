//! JSON schemas of tools made ready for an automaton: a node per schema, with what its values may be. What an automaton
//! of this kind cannot hold (patterns, lengths, alternatives between objects) is left to `chat::validate`, which sees
//! every call: the node then allows more, never less.

use super::names::Names;
use crate::chat::schema::{Types, reference, types};
use serde_json::{Map, Value};
use std::collections::HashMap;

pub type NodeId = u16;

/// Schemas of one tool set; a circular or endless one is cut off here, and allows everything there.
const MAX_NODES: usize = 4000;

#[derive(Debug)]
pub struct Node {
    pub types: Types,
    /// The only values, as JSON; `None` where there are others.
    pub choices: Option<Names>,
    /// The only values as the text of an XML parameter.
    pub texts: Option<Names>,
    /// Keys as they stand between quotes.
    pub keys: Names,
    /// By the number of the key; the bit of a required one is set in `required`.
    pub properties: Vec<NodeId>,
    pub required: u64,
    /// Keys beside those of `keys`, and their values.
    pub others: Option<NodeId>,
    pub items: NodeId,
    pub least_items: u16,
    pub most_items: u16,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
}

impl Node {
    pub fn may_be(&self, types: Types) -> bool {
        self.types.has(types)
    }
}

/// The node that allows everything.
pub const ANY: NodeId = 0;

#[derive(Debug)]
pub struct Nodes(Vec<Node>);

impl Default for Nodes {
    fn default() -> Self {
        Self(vec![free(Types::ALL)])
    }
}

fn free(types: Types) -> Node {
    Node {
        types,
        choices: None,
        texts: None,
        keys: Names::default(),
        properties: Vec::new(),
        required: 0,
        others: Some(ANY),
        items: ANY,
        least_items: 0,
        most_items: u16::MAX,
        minimum: None,
        maximum: None,
    }
}

/// What is between the quotes of a JSON string.
pub fn between_quotes(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_string()
}

impl Nodes {
    pub fn get(&self, id: NodeId) -> &Node {
        &self.0[usize::from(id)]
    }

    /// The node of `schema`, a part of the document `root`.
    pub fn add(&mut self, schema: &Value, root: &Value) -> NodeId {
        self.add_known(schema, root, &mut HashMap::new())
    }

    fn add_known(
        &mut self,
        schema: &Value,
        root: &Value,
        known: &mut HashMap<*const Value, NodeId>,
    ) -> NodeId {
        if let Some(id) = known.get(&std::ptr::from_ref(schema)) {
            return *id;
        }
        if self.0.len() >= MAX_NODES || !schema.is_object() {
            return ANY;
        }
        let id = self.0.len() as NodeId;
        self.0.push(free(Types::ALL));
        known.insert(std::ptr::from_ref(schema), id);
        let node = self.node(schema, root, known);
        self.0[usize::from(id)] = node;
        id
    }

    fn node(&mut self, schema: &Value, root: &Value, known: &mut HashMap<*const Value, NodeId>) -> Node {
        let mut node = free(types(schema, root));
        // One schema behind a reference, or the only alternative beside null, is that schema.
        let parts = flattened(schema, root);
        let keyword = |key: &str| parts.iter().find_map(|part| part.get(key));
        let listed = keyword("enum").and_then(Value::as_array).cloned();
        let values = keyword("const").map(|value| vec![value.clone()]).or(listed);
        if let Some(values) = values.filter(|values| !values.is_empty() && values.len() < 4096) {
            let texts = values.iter().map(json_text).collect::<Vec<_>>();
            node.choices = Some(Names::new(texts.iter().map(|text| text.as_bytes())));
            let texts: Vec<String> = values
                .iter()
                .map(|value| value.as_str().map_or_else(|| json_text(value), String::from))
                .collect();
            node.texts = Some(Names::new(texts.iter().map(|text| text.as_bytes())));
        }
        if let Some(properties) = keyword("properties").and_then(Value::as_object) {
            let required = keyword("required").and_then(Value::as_array);
            let is_required = |name: &str| required.is_some_and(|list| list.iter().any(|v| v == name));
            // A bit for each; what does not fit is not offered, unless it must be there.
            let mut names: Vec<&String> = properties.keys().collect();
            names.sort_by_key(|name| !is_required(name));
            names.truncate(64);
            let keys: Vec<String> = names.iter().map(|name| between_quotes(name)).collect();
            node.keys = Names::new(keys.iter().map(|key| key.as_bytes()));
            for (bit, name) in names.iter().enumerate() {
                let child = self.add_known(&properties[*name], root, known);
                node.properties.push(child);
                node.required |= u64::from(is_required(name)) << bit;
            }
            node.others = match keyword("additionalProperties") {
                Some(extra @ Value::Object(_)) => Some(self.add_known(extra, root, known)),
                Some(Value::Bool(true)) => Some(ANY),
                _ => None,
            };
        } else if let Some(extra @ Value::Object(_)) = keyword("additionalProperties") {
            node.others = Some(self.add_known(extra, root, known));
        }
        if let Some(items) = keyword("items") {
            node.items = self.add_known(items, root, known);
        }
        let count = |key: &str| keyword(key).and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok());
        node.least_items = count("minItems").unwrap_or(0);
        node.most_items = count("maxItems").unwrap_or(u16::MAX);
        node.minimum = keyword("minimum").and_then(Value::as_f64);
        node.maximum = keyword("maximum").and_then(Value::as_f64);
        node
    }
}

/// The objects whose keywords hold for a value of `schema`, as far as they are certain.
fn flattened<'a>(schema: &'a Value, root: &'a Value) -> Vec<&'a Map<String, Value>> {
    let mut parts = Vec::new();
    let mut waiting = vec![schema];
    while let Some(next) = waiting.pop() {
        let Some(map) = next.as_object().filter(|_| parts.len() < 16) else { continue };
        parts.push(map);
        waiting.extend(reference(next, root));
        waiting.extend(map.get("allOf").and_then(Value::as_array).into_iter().flatten());
        for key in ["anyOf", "oneOf"] {
            let choices = map.get(key).and_then(Value::as_array).into_iter().flatten();
            let real: Vec<&Value> =
                choices.filter(|choice| choice.get("type") != Some(&"null".into())).collect();
            if let [only] = real[..] {
                waiting.push(only);
            }
        }
    }
    parts
}

/// As the templates print JSON: `, ` and `: `.
fn json_text(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[{}]", items.iter().map(json_text).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let pair = |(key, value): (&String, &Value)| {
                format!("{}: {}", Value::from(key.as_str()), json_text(value))
            };
            format!("{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        scalar => scalar.to_string(),
    }
}
