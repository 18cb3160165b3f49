//! The definitions of a file: kind, name, lines, and how deep each lies in others. A table of node kinds per language,
//! because the grammars' own lists of tags leave out half of what a reader looks for and nest nothing.

use super::{Language, Parsed};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use tree_sitter::Node;

/// Deeper ones are left out: no program nests like that.
const DEEPEST: usize = 30;
const MANY: usize = 20_000;
/// Characters of a name.
const LONG_NAME: usize = 120;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    pub kind: Cow<'static, str>,
    pub name: String,
    /// From 1, both included.
    pub first_line: usize,
    pub last_line: usize,
    /// Definitions around it.
    pub depth: usize,
}

/// As a line of an outline, indented by its depth.
impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, first_line, last_line, depth } = self;
        write!(f, "{:width$}{kind} {name} {first_line}-{last_line}", "", width = 2 * depth)
    }
}

impl Parsed<'_> {
    pub fn outline(&self) -> Vec<Definition> {
        let mut found: Vec<Definition> = Vec::new();
        // Kinds and ends of the definitions around the cursor.
        let mut around: Vec<(&'static str, usize)> = Vec::new();
        let mut decorated = None;
        let mut cursor = self.tree.walk();
        loop {
            let node = cursor.node();
            while around.pop_if(|(_, end)| *end <= node.start_byte()).is_some() {}
            if node.kind() == "decorated_definition" {
                decorated = Some((node.start_position().row, node.end_byte()));
            }
            if let Some(kind) = self.kind(node, around.last().map(|(kind, _)| *kind))
                && let Some(name) = self.name(node, kind)
                && around.len() < DEEPEST
            {
                // Decorators belong to what they stand on.
                let own = node.start_position().row;
                let first = decorated.filter(|(_, end)| *end == node.end_byte()).map_or(own, |(row, _)| row);
                found.push(Definition {
                    kind: kind.into(),
                    name,
                    first_line: first + 1,
                    last_line: last_row(node) + 1,
                    depth: around.len(),
                });
                around.push((kind, node.end_byte()));
            }
            if found.len() < MANY && cursor.goto_first_child() {
                continue;
            }
            while !cursor.goto_next_sibling() {
                if !cursor.goto_parent() {
                    return found;
                }
            }
        }
    }

    fn kind(&self, node: Node<'_>, around: Option<&'static str>) -> Option<&'static str> {
        let kind = match self.language {
            Language::Rust => rust(node.kind()),
            Language::Python => python(node.kind()),
            Language::JavaScript | Language::TypeScript | Language::Tsx => script(node),
            Language::Go => go(node),
            Language::C | Language::Cpp => c(node),
            Language::Java => java(node.kind()),
            Language::Shell => (node.kind() == "function_definition").then_some("function"),
            Language::Json | Language::Toml => None,
        }?;
        let in_type = matches!(around, Some("impl" | "trait" | "class" | "struct" | "union"));
        Some(if kind == "function" && in_type { "method" } else { kind })
    }

    fn name(&self, node: Node<'_>, kind: &str) -> Option<String> {
        let field = |name: &str| node.child_by_field_name(name).map(|node| self.words(node));
        let name = match (self.language, kind) {
            (Language::Rust, "impl") => match (field("trait"), field("type")?) {
                (Some(of), on) => format!("{of} for {on}"),
                (None, on) => on,
            },
            (Language::Go, "method") => {
                let receiver = field("receiver")?;
                let on =
                    receiver.trim_matches(['(', ')']).rsplit(' ').next()?.trim_start_matches('*').to_string();
                format!("{on}.{}", field("name")?)
            }
            (Language::C | Language::Cpp, "function" | "method") => self.words(declared(node)?),
            (Language::C | Language::Cpp, "type") => match field("name") {
                Some(name) => name,
                None => self.words(declared(node)?),
            },
            (Language::JavaScript | Language::TypeScript | Language::Tsx, _) => {
                field("name").or_else(|| field("property"))?
            }
            _ => field("name")?,
        };
        Some(name).filter(|name| !name.is_empty())
    }

    /// The text of a node on one line, cut where it is too long for a name.
    fn words(&self, node: Node<'_>) -> String {
        let text = self.text.get(node.byte_range()).unwrap_or_default();
        let mut words = String::new();
        for word in text.split_whitespace() {
            if !words.is_empty() {
                words.push(' ');
            }
            words.push_str(word);
            if let Some((end, _)) = words.char_indices().nth(LONG_NAME) {
                words.truncate(end);
                words.push('…');
                break;
            }
        }
        words
    }
}

/// A node that ends with a line break does not reach into the next line.
fn last_row(node: Node<'_>) -> usize {
    let end = node.end_position();
    if end.column == 0 { end.row.saturating_sub(1).max(node.start_position().row) } else { end.row }
}

fn rust(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "function_item" | "function_signature_item" => "function",
        "struct_item" => "struct",
        "enum_item" => "enum",
        "union_item" => "union",
        "trait_item" => "trait",
        "impl_item" => "impl",
        "mod_item" => "module",
        "type_item" => "type",
        "const_item" => "constant",
        "static_item" => "static",
        "macro_definition" => "macro",
        _ => return None,
    })
}

fn python(kind: &str) -> Option<&'static str> {
    match kind {
        "class_definition" => Some("class"),
        "function_definition" => Some("function"),
        _ => None,
    }
}

fn script(node: Node<'_>) -> Option<&'static str> {
    Some(match node.kind() {
        "function_declaration" | "generator_function_declaration" | "function_signature" => "function",
        "method_definition" | "abstract_method_signature" => "method",
        "class_declaration" | "abstract_class_declaration" => "class",
        "interface_declaration" => "interface",
        "type_alias_declaration" => "type",
        "enum_declaration" => "enum",
        "internal_module" | "module" => "module",
        // A function or class that a name stands for.
        "variable_declarator" | "field_definition" | "public_field_definition" => {
            match node.child_by_field_name("value")?.kind() {
                "arrow_function" | "function_expression" | "generator_function" => "function",
                "class" => "class",
                _ => return None,
            }
        }
        _ => return None,
    })
}

fn go(node: Node<'_>) -> Option<&'static str> {
    Some(match node.kind() {
        "function_declaration" => "function",
        "method_declaration" => "method",
        "type_alias" => "type",
        "type_spec" => match node.child_by_field_name("type")?.kind() {
            "struct_type" => "struct",
            "interface_type" => "interface",
            _ => "type",
        },
        _ => return None,
    })
}

fn c(node: Node<'_>) -> Option<&'static str> {
    // Without a body it is only named there.
    let body = || node.child_by_field_name("body");
    Some(match node.kind() {
        "function_definition" => "function",
        "class_specifier" => body().map(|_| "class")?,
        "struct_specifier" => body().map(|_| "struct")?,
        "union_specifier" => body().map(|_| "union")?,
        "enum_specifier" => body().map(|_| "enum")?,
        "namespace_definition" => "namespace",
        "type_definition" | "alias_declaration" => "type",
        "concept_definition" => "concept",
        "preproc_function_def" => "macro",
        _ => return None,
    })
}

fn java(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "class_declaration" => "class",
        "interface_declaration" => "interface",
        "enum_declaration" => "enum",
        "record_declaration" => "record",
        "annotation_type_declaration" => "annotation",
        "method_declaration" => "method",
        "constructor_declaration" | "compact_constructor_declaration" => "constructor",
        _ => return None,
    })
}

/// What C declares: within pointers, references and parameters lies the name.
fn declared(node: Node<'_>) -> Option<Node<'_>> {
    let mut inner = node.child_by_field_name("declarator")?;
    loop {
        let next = match inner.child_by_field_name("declarator") {
            Some(next) => next,
            None if matches!(inner.kind(), "reference_declarator" | "parenthesized_declarator") => {
                inner.named_child(0)?
            }
            None => return Some(inner),
        };
        inner = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(language: Language, text: &str, expected: &str) {
        let found: Vec<String> =
            Parsed::new(language, text).unwrap().outline().iter().map(ToString::to_string).collect();
        assert_eq!(found.join("\n"), expected);
    }

    #[test]
    fn rust_and_python() {
        check(
            Language::Rust,
            "struct A;\nimpl B<u8> for A {\n    fn c(&self) {\n        fn d() {}\n    }\n}\nmod e {\n    const F: u8 = 1;\n}\nfn g() {}\n",
            "struct A 1-1\nimpl B<u8> for A 2-6\n  method c 3-5\n    function d 4-4\nmodule e 7-9\n  constant F 8-8\nfunction g 10-10",
        );
        check(
            Language::Python,
            "@a\n@b(1)\nclass C:\n    x = 1\n\n    @d\n    def e(self):\n        pass\n\n\nasync def f():\n    pass\n",
            "class C 1-8\n  method e 6-8\nfunction f 11-12",
        );
    }

    #[test]
    fn scripts() {
        check(
            Language::JavaScript,
            "export class A {\n  b() {}\n  c = () => 1;\n}\nconst d = async () => {};\nlet e = 1;\nfunction f() {}\n",
            "class A 1-4\n  method b 2-2\n  method c 3-3\nfunction d 5-5\nfunction f 7-7",
        );
        check(
            Language::TypeScript,
            "interface A { b(): void }\ntype C = A;\nenum D { E }\nnamespace F {\n  export abstract class G {}\n}\n",
            "interface A 1-1\ntype C 2-2\nenum D 3-3\nmodule F 4-6\n  class G 5-5",
        );
        check(Language::Shell, "f() {\n  :\n}\nfunction g { :; }\n", "function f 1-3\nfunction g 4-4");
    }

    #[test]
    fn compiled_languages() {
        check(
            Language::Go,
            "package a\n\ntype B struct{}\n\nfunc (b *B) C() {\n}\n\nfunc D[T any](t T) {}\n\ntype E = int\n",
            "struct B 3-3\nmethod B.C 5-6\nfunction D 8-8\ntype E 10-10",
        );
        check(
            Language::C,
            "#define M(a) a\nstruct A { int b; };\ntypedef struct { int c; } D;\nstatic char *f(int a)\n{\n  return 0;\n}\nint g(void);\n",
            "macro M 1-1\nstruct A 2-2\ntype D 3-3\nfunction f 4-7",
        );
        check(
            Language::Cpp,
            "namespace a {\ntemplate <class T>\nclass B {\n  int &c() { return d; }\n};\n}\nint a::B<int>::e() { return 1; }\n",
            "namespace a 1-6\n  class B 3-5\n    method c 4-4\nfunction a::B<int>::e 7-7",
        );
        check(
            Language::Java,
            "class A {\n  A() {}\n  void b() {}\n  record C(int d) {}\n}\n",
            "class A 1-5\n  constructor A 2-2\n  method b 3-3\n  record C 4-4",
        );
    }
}
