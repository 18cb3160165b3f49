//! What syntax trees are for, as users and models meet it: a note where an edit broke a file, outlines, colours.

use qwright::syntax::{Definition, Language, Parsed};
use qwright::tools::{Registry, ToolContext};
use qwright::workspace::Workspace;
use qwright::workspace::shell::{SandboxChoice, Shell, ShellSettings};
use serde_json::{Value, json};
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;

/// The texts of the results of calls, one after the other in one directory.
fn results(files: &[(&str, &str)], calls: &[(&str, Value)]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        std::fs::write(directory.path().join(path), text).unwrap();
    }
    let workspace = Workspace::open(directory.path(), &[]).unwrap();
    let registry = Registry::standard();
    let helper = Some(env!("CARGO_BIN_EXE_qwright").into());
    let shell =
        Shell::with(ShellSettings { choice: SandboxChoice::None, helper, ..ShellSettings::default() });
    let cancel = AtomicBool::new(false);
    let run = |(name, arguments): &(&str, Value)| {
        let mut context = ToolContext {
            workspace: &workspace,
            shell: &shell,
            cancel: &cancel,
            on_output: &mut |_| {},
            max_chars: 20_000,
        };
        let output = registry.get(name).unwrap().run(&mut context, arguments.as_object().unwrap());
        output.unwrap_or_else(|error| panic!("{name} {arguments}: {error}")).text
    };
    calls.iter().map(run).collect()
}

fn edit(path: &str, old: &str, new: &str) -> (&'static str, Value) {
    ("edit", json!({ "file_path": path, "old_string": old, "new_string": new }))
}

#[test]
fn the_result_of_an_edit_tells_what_no_longer_parses() {
    let rust = "fn f() {\n    let a = 1;\n    g(a);\n}\n";
    let results = results(
        &[("a.rs", rust), ("a.txt", rust)],
        &[
            edit("a.rs", "= 1;", "= (2;"),
            edit("a.rs", "g(a)", "h(a)"),
            edit("a.rs", "= (2;", "= (2);"),
            edit("a.txt", "= 1;", "= (2;"),
            (
                "write_file",
                json!({ "file_path": "b.py", "content": "def f(x):\n    return x\n\n\ndef g(x)\n    pass\n" }),
            ),
            ("write_file", json!({ "file_path": "b.py", "content": "def f(x):\n    return x\n" })),
        ],
    );
    assert_eq!(
        results,
        [
            "edited a.rs at line 2\nNote: line 2 does not parse now: `)` is missing: let a = (2;",
            "edited a.rs at line 3",
            "edited a.rs at line 2",
            "edited a.txt at line 2",
            "created b.py (6 lines)\nNote: line 5 does not parse now: def g(x)",
            "replaced the text of b.py (2 lines)",
        ]
    );
}

fn outline(file: &str, directory: &std::path::Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qwright"));
    command.args(["inspect", "outline", file]).current_dir(directory).output().unwrap()
}

#[test]
fn inspect_outline_prints_a_line_for_each_definition() {
    let directory = tempfile::tempdir().unwrap();
    let source = "class A:\n    def b(self):\n        pass\n\n\ndef c():\n    pass\n";
    std::fs::write(directory.path().join("a.py"), source).unwrap();
    let output = outline("a.py", directory.path());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "{\"kind\":\"class\",\"name\":\"A\",\"first_line\":1,\"last_line\":3,\"depth\":0}\n\
         {\"kind\":\"method\",\"name\":\"b\",\"first_line\":2,\"last_line\":3,\"depth\":1}\n\
         {\"kind\":\"function\",\"name\":\"c\",\"first_line\":6,\"last_line\":7,\"depth\":0}\n"
    );
    assert_eq!(output.status.code(), Some(0));
    for (file, message) in [("a.md", "no grammar"), ("missing.rs", "missing.rs")] {
        let output = outline(file, directory.path());
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().contains(message));
    }
}

#[test]
fn an_outline_of_five_thousand_lines_has_them_all() {
    let one = |n: usize| {
        let body = format!("        let x{n} = self.a.iter().map(|v| v + {n}).sum::<usize>();\n").repeat(22);
        format!("impl S{n} {{\n    fn f(&self) {{\n{body}    }}\n}}\n")
    };
    let text: String = (0..200).map(one).collect();
    assert!(text.lines().count() >= 5000);
    let found = Parsed::new(Language::Rust, &text).unwrap().outline();
    assert_eq!(found.len(), 400);
    let last =
        Definition { kind: "method".into(), name: "f".into(), first_line: 5176, last_line: 5199, depth: 1 };
    assert_eq!(found[399], last);
}
