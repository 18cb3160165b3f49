//! `qwright exec -o stream-json` and what it has in common with `json`: every line against the published schema; and
//! the runs whose output nobody reads, or that have no home.

use crate::agent::call;
use crate::exec::{Project, assert_code, err, fix, object, out};
use crate::oracle::manifest;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// The published schema, read by the words it uses: an unknown one is an error, so that nothing goes unchecked.
struct Schema(Value);

impl Schema {
    fn published() -> Self {
        let text = std::fs::read_to_string(manifest().join("docs/exec-output.schema.json")).unwrap();
        Self(serde_json::from_str(&text).unwrap())
    }

    fn problem(&self, schema: &Value, value: &Value) -> Option<String> {
        let words = schema.as_object().unwrap();
        for (word, rule) in words {
            let problem = match word.as_str() {
                "$schema" | "title" | "description" | "$defs" => None,
                "$ref" => {
                    let rule = self.0.pointer(rule.as_str().unwrap().trim_start_matches('#')).unwrap();
                    self.problem(rule, value)
                }
                "oneOf" => {
                    let problems: Vec<_> =
                        rule.as_array().unwrap().iter().map(|rule| self.problem(rule, value)).collect();
                    let fits = problems.iter().filter(|problem| problem.is_none()).count();
                    (fits != 1).then(|| format!("{fits} of oneOf fit: {problems:?}"))
                }
                "const" => (rule != value).then(|| format!("{value} is not {rule}")),
                "enum" => {
                    (!rule.as_array().unwrap().contains(value)).then(|| format!("{value} is not in {rule}"))
                }
                "type" => {
                    let is = |kind: &Value| match kind.as_str().unwrap() {
                        "string" => value.is_string(),
                        "integer" => value.is_i64() || value.is_u64(),
                        "boolean" => value.is_boolean(),
                        "object" => value.is_object(),
                        "array" => value.is_array(),
                        "null" => value.is_null(),
                        other => panic!("{other}"),
                    };
                    let kinds = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                    (!kinds.iter().any(is)).then(|| format!("{value} is not {rule}"))
                }
                "minimum" => (value.as_i64() < rule.as_i64()).then(|| format!("{value} is less than {rule}")),
                "items" => value.as_array().unwrap().iter().find_map(|item| self.problem(rule, item)),
                "required" => {
                    let missing = |key: &&Value| value.get(key.as_str().unwrap()).is_none();
                    rule.as_array().unwrap().iter().find(missing).map(|key| format!("{key} is missing"))
                }
                "properties" => value.as_object().unwrap().iter().find_map(|(key, value)| {
                    let problem = self.problem(rule.get(key)?, value)?;
                    Some(format!("{key}: {problem}"))
                }),
                "additionalProperties" => {
                    let known = words["properties"].as_object().unwrap();
                    value
                        .as_object()
                        .unwrap()
                        .keys()
                        .find(|key| !known.contains_key(*key))
                        .map(|key| format!("{key} is new"))
                }
                other => panic!("the schema says {other}"),
            };
            // A wrong type is told as such, and not by what else it breaks.
            if problem.is_some() {
                return problem;
            }
        }
        None
    }

    /// The lines of an output, each as the schema has it.
    #[track_caller]
    fn lines(&self, output: &str) -> Vec<Value> {
        output
            .lines()
            .map(|line| {
                let value: Value =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                assert_eq!(self.problem(&self.0, &value), None, "{line}");
                value
            })
            .collect()
    }
}

/// `type`, or `system`'s subtype.
fn kinds(lines: &[Value]) -> Vec<&str> {
    let kind = |line: &'_ Value| if line["type"] == "system" { "subtype" } else { "type" };
    lines.iter().map(|line| line[kind(line)].as_str().unwrap()).collect()
}

#[test]
fn a_session_as_lines() {
    let project = Project::new();
    let output = project.run(&fix(), &["-o", "stream-json", "Fix the greeting"]);
    assert_code(&output, 0);
    assert_eq!(err(&output), "");
    let lines = Schema::published().lines(&out(&output));
    assert_eq!(kinds(&lines), ["init", "assistant", "user", "assistant", "user", "assistant", "result"]);
    assert_eq!(lines[0]["model"], "scripted");
    assert!(lines[0]["tools"].as_array().unwrap().contains(&json!("run_shell_command")));
    let call = &lines[1]["message"]["content"][0];
    assert_eq!((&call["name"], &call["input"]["new_string"]), (&json!("edit"), &json!("hello")));
    assert!(lines[1]["message"]["usage"]["completion"].as_u64().unwrap() > 0);
    let result = &lines[2]["message"]["content"][0];
    assert_eq!((&result["tool_use_id"], &result["is_error"]), (&call["id"], &json!(false)));
    let run = &lines[4]["message"]["content"][0];
    assert_eq!(run["content"], "exit code 0 (not sandboxed)\nhello");
    assert_eq!(lines[5]["message"]["content"], json!([{"type": "text", "text": "It says hello now."}]));
    assert!(lines.iter().all(|line| line["session_id"] == lines[0]["session_id"]));
    // The last line is what `json` prints.
    let project = Project::new();
    let alone = object(&project.run(&fix(), &["-o", "json", "Fix the greeting"]));
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(&alone), keys(&lines[6]));
    assert_eq!((&alone["diff"], &alone["usage"]), (&lines[6]["diff"], &lines[6]["usage"]));
}

#[test]
fn parts_add_up_to_the_whole() {
    let project = Project::new();
    let turns = [
        json!({"model": {"format": "thinking"}}),
        json!(
            "I think.\n</think>\n\nFirst a word.\n<tool_call>\n{\"name\": \"read_file\", \"arguments\": {\"file_path\": \"greet.sh\"}}\n</tool_call>"
        ),
        json!("</think>Done."),
    ];
    let arguments = ["-o", "stream-json", "--include-partial-messages", "Go"];
    let output = project.run(&turns, &arguments);
    assert_code(&output, 0);
    let lines = Schema::published().lines(&out(&output));
    let parts = |kind: &str| -> String {
        let deltas = lines.iter().filter(|line| line["type"] == "stream_event");
        deltas.filter_map(|line| line["event"]["delta"][kind].as_str()).collect()
    };
    let whole = |kind: &str| -> String {
        let content = lines.iter().filter(|line| line["type"] == "assistant");
        let items = content.flat_map(|line| line["message"]["content"].as_array().unwrap());
        items.filter_map(|item| item[kind].as_str()).collect()
    };
    assert_eq!(parts("thinking").trim(), whole("thinking").trim());
    assert_eq!(
        parts("text").split_whitespace().collect::<Vec<_>>(),
        whole("text").split_whitespace().collect::<Vec<_>>()
    );
    assert!(parts("text").contains("First a word") && parts("thinking").contains("I think"));
    assert_code(&project.run(&turns, &["--include-partial-messages", "Go"]), 2);
}

#[test]
fn every_kind_of_ending_fits_the_schema() {
    let schema = Schema::published();
    let edit = || fix()[0].clone();
    let check = "grep -q hello greet.sh";
    type Case<'a> = (Vec<Value>, Vec<&'a str>, i32, Vec<&'a str>);
    let cases: Vec<Case<'_>> = vec![
        (vec![], vec!["--approval-mode", "nonsense", "Hi"], 2, vec!["result"]),
        (vec![json!({"error": "gone"})], vec!["Hi"], 6, vec!["init", "result"]),
        (
            vec![edit(), json!("No.")],
            vec!["--approval-mode", "plan", "Fix"],
            3,
            vec!["init", "assistant", "user", "assistant", "result"],
        ),
        (
            vec![json!("Hm."), edit(), json!("Now.")],
            vec!["--until-may-edit", "--until", check],
            0,
            vec!["init", "check", "assistant", "check", "assistant", "user", "assistant", "check", "result"],
        ),
        (vec![edit()], vec!["--max-tool-calls", "0", "Fix"], 5, vec!["init", "assistant", "user", "result"]),
        (
            vec![json!(call("nothing", &[]))],
            vec!["--max-turns", "1", "Fix"],
            5,
            vec!["init", "assistant", "user", "result"],
        ),
    ];
    for (turns, arguments, code, expected) in cases {
        let project = Project::new();
        let arguments: Vec<&str> = ["-o", "stream-json"].into_iter().chain(arguments).collect();
        let output = project.run(&turns, &arguments);
        assert_code(&output, code);
        let lines = schema.lines(&out(&output));
        assert_eq!(kinds(&lines), expected, "{arguments:?}");
    }
    let project = Project::new();
    assert_code(&project.run(&[json!("Hi.")], &["Hello"]), 0);
    let output = project.run(&[json!("Again.")], &["-o", "stream-json", "-c", "And now?"]);
    assert_eq!(kinds(&schema.lines(&out(&output))), ["init", "resumed", "assistant", "result"]);
}

#[test]
fn only_the_allowed_tools_exist() {
    let project = Project::new();
    let output =
        project.run(&fix(), &["-o", "stream-json", "--allowed-tools", "read_file, grep_search", "Fix it"]);
    assert_code(&output, 0);
    let lines = Schema::published().lines(&out(&output));
    assert_eq!(lines[0]["tools"], json!(["read_file", "grep_search"]));
    let result = lines[2]["message"]["content"][0]["content"].as_str().unwrap();
    assert!(result.contains("read_file, grep_search"), "{result}");
    assert_eq!(std::fs::read_to_string(project.files.path().join("greet.sh")).unwrap(), "echo helo\n");
    let output = project.run(&fix(), &["--allowed-tools", "read_file,rm", "Fix it"]);
    assert_code(&output, 2);
    assert!(
        err(&output).contains("there is no tool `rm`") && err(&output).contains("grep_search"),
        "{}",
        err(&output)
    );
}

#[test]
fn a_reader_that_goes_away_ends_nothing() {
    for format in ["text", "json", "stream-json"] {
        let project = Project::new();
        let mut child = project.command(&fix(), &["-o", format, "Fix the greeting"]).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_code(&output, 0);
        assert!(!err(&output).contains("panic"), "{}", err(&output));
        assert_eq!(std::fs::read_to_string(project.files.path().join("greet.sh")).unwrap(), "echo hello\n");
    }
}

#[test]
fn without_streams_or_home_it_works_all_the_same() {
    let project = Project::new();
    let command = project.command(&[json!("Hi.")], &["Hi"]);
    // Every standard stream is closed, as a careless service manager starts things.
    let mut closed = Command::new("sh");
    closed
        .arg("-c")
        .arg("exec \"$@\" <&- >&- 2>&-")
        .arg("sh")
        .arg(command.get_program())
        .args(command.get_args());
    closed.current_dir(project.files.path()).env("HOME", project.home.path());
    assert_eq!(closed.stdin(Stdio::null()).status().unwrap().code(), Some(0));
    let output = project.command(&[json!("Hi.")], &["Hi"]).env_remove("HOME").output().unwrap();
    assert_code(&output, 0);
    assert_eq!(out(&output), "Hi.\n");
    let output = project.command(&[json!("Hi.")], &["Hi"]).env("HOME", "/proc/self").output().unwrap();
    assert_code(&output, 0);
    assert_eq!(out(&output), "Hi.\n");
}
