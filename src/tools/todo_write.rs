//! The list of steps of a longer task. It lives in the tool, so it is the session's; the answer repeats it, since
//! the model reads what is near the end of its context best.

use super::{Access, Arguments, Tool, ToolContext, ToolError, ToolOutput};
use crate::chat::ToolSpec;
use serde::Deserialize;
use serde_json::Value;
use std::sync::{Mutex, PoisonError};

const MAX_TODOS: usize = 50;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Todo {
    content: String,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    #[default]
    Pending,
    #[serde(alias = "in progress", alias = "in-progress")]
    InProgress,
    #[serde(alias = "done")]
    Completed,
}

pub struct TodoWrite {
    spec: ToolSpec,
    todos: Mutex<Vec<Todo>>,
}

impl TodoWrite {
    pub fn new() -> Option<Self> {
        let spec = super::parse_spec(include_str!("../../tools/todo_write.json"))?;
        Some(Self { spec, todos: Mutex::default() })
    }
}

impl Tool for TodoWrite {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    /// It changes nothing but the session's own memory.
    fn access(&self, _: &Arguments) -> Access {
        Access::Read
    }

    fn describe(&self, _: &Arguments) -> String {
        "update the list of steps".into()
    }

    fn run(&self, _: &mut ToolContext<'_>, arguments: &Arguments) -> Result<ToolOutput, ToolError> {
        let new = read(arguments.get("todos"))?;
        let mut todos = self.todos.lock().unwrap_or_else(PoisonError::into_inner);
        let same = *todos == new;
        *todos = new;
        let done = todos.iter().filter(|todo| todo.status == Status::Completed).count();
        let mut text: String = todos
            .iter()
            .map(|todo| {
                let mark = match todo.status {
                    Status::Pending => "[ ]",
                    Status::InProgress => "[>]",
                    Status::Completed => "[x]",
                };
                format!("{mark} {}\n", todo.content.trim())
            })
            .collect();
        if todos.is_empty() {
            text = "[no steps]\n".into();
        }
        if same {
            text.push_str("The list was the same before: go on with the next step.\n");
        }
        Ok(ToolOutput::ok(text, format!("steps: {done} of {} done", todos.len())))
    }
}

fn read(value: Option<&Value>) -> Result<Vec<Todo>, ToolError> {
    let wrong = || {
        ToolError::ToModel(
            "todo_write needs todos, a list of objects with content and status (pending, in_progress or completed)"
                .into(),
        )
    };
    let parsed: Vec<Todo> = match value {
        // A list written as text.
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|_| wrong())?,
        Some(value) => Vec::deserialize(value).map_err(|_| wrong())?,
        None => return Err(wrong()),
    };
    if parsed.len() > MAX_TODOS {
        return Err(ToolError::ToModel(format!("at most {MAX_TODOS} steps; join some of them")));
    }
    Ok(parsed)
}
