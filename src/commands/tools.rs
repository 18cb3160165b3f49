//! `qwright tools`: the tools of the model, and one of them run by hand as in a session: same guard, table and sandbox,
//! and nobody is asked.

use super::{CommandResult, Failure, exit, rules};
use crate::agent::Rules;
use crate::agent::approval::{self, Containment, Verdict};
use crate::agent::protocol::ApprovalMode;
use crate::chat::escape::{escape_json, escape_line};
use crate::chat::{ToolCall, validate};
use crate::cli::{ModelArgs, RuleArgs};
use crate::config::Config;
use crate::tools::{Access, Arguments, Registry, Tool, ToolContext, ToolError};
use crate::workspace::Workspace;
use crate::workspace::shell::{SandboxChoice, Shell, ShellSettings};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// Characters of a result, about what a session with a middling context gives.
const MAX_CHARS: usize = 32_000;

/// The tools of the model: list them, show one, run one by hand
#[derive(Debug, clap::Args)]
pub struct ToolsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Every tool and what it does
    List,
    /// One tool, exactly as the model sees it
    Show { name: String },
    /// Run one tool in this workspace, by the rules of a session in which nobody can be asked
    #[command(after_help = "\
Prints {\"decision\": \"allow\"|\"deny\"|\"ask\", \"ok\", \"output\", \"error\": {\"code\", \"message\"}}. Only what is \
allowed is run.

Exit codes: 0 it ran and succeeded, 1 it failed, 2 usage (no such tool, arguments it does not take), 3 it was denied \
or would have to be asked, 4 no sandbox can be had here, 130 interrupted.")]
    Run {
        name: String,
        /// Its arguments as a JSON object; `-` reads them from standard input
        #[arg(default_value = "{}")]
        arguments: String,
        /// The workspace [default: the current directory]
        #[arg(short = 'C', long = "cd", value_name = "DIR")]
        directory: Option<PathBuf>,
        /// plan, default, auto-edit or yolo [default: auto-edit]
        #[arg(long, value_name = "MODE")]
        approval_mode: Option<String>,
        /// What commands run in: auto, full, reduced or none
        #[arg(long, value_enum)]
        sandbox: Option<SandboxChoice>,
        #[command(flatten)]
        rules: RuleArgs,
    },
}

pub fn run(args: &ToolsArgs, cancel: &AtomicBool) -> CommandResult {
    let registry = Registry::standard();
    match &args.action {
        Action::List => {
            for spec in registry.specs() {
                let text = spec
                    .description
                    .as_deref()
                    .unwrap_or_default()
                    .split(". ")
                    .next()
                    .unwrap_or_default()
                    .trim_end_matches('.')
                    .to_string();
                println(&escape_line(&format!("{:<18} {text}", spec.name)));
            }
            Ok(exit::DONE)
        }
        Action::Show { name } => {
            let text = serde_json::to_string_pretty(find(&registry, name)?.spec())
                .map_err(|error| Failure::new(exit::TASK_FAILED, error.to_string()))?;
            println(&escape_json(&text));
            Ok(exit::DONE)
        }
        Action::Run { name, arguments, directory, approval_mode, sandbox, rules: named } => {
            let tool = find(&registry, name)?;
            let arguments = read_arguments(arguments)?;
            let mut options = ModelArgs::default().load_options();
            options
                .flags
                .extend(approval_mode.clone().map(|mode| ("approval_mode", mode, "--approval-mode")));
            options.flags.extend(named.flags());
            let config = Config::load(&options)?;
            let set = config
                .settings
                .approval_mode
                .map_or(Ok(ApprovalMode::AutoEdit), |mode| mode.as_str().parse());
            let mode = set.map_err(|message| Failure::new(exit::USAGE, message))?;
            let directory = directory.clone().unwrap_or_else(|| PathBuf::from("."));
            let mut workspace = Workspace::open(&directory, &[]).map_err(|error| {
                Failure::new(exit::USAGE, error.to_string()).hint("name a directory of yours with -C")
            })?;
            if let Ok(state) = config.dirs.state() {
                super::use_state(&mut workspace, &state);
            }
            super::close_settings(&mut workspace, &config.dirs);
            let mut rules = Rules::default();
            let source = rules::whole_source(&config, workspace.root())?;
            for problem in rules.reload(&source, &workspace.root().display().to_string()) {
                let _ = writeln!(std::io::stderr(), "{}", escape_line(&problem));
            }
            // Only commands need a sandbox, and finding it takes a moment.
            let choice = match tool.access(&arguments) {
                Access::Execute | Access::Network => {
                    sandbox.unwrap_or_else(|| super::exec::sandbox_choice(&config))
                }
                Access::Read | Access::Write => SandboxChoice::None,
            };
            let shell = Shell::with(ShellSettings {
                choice,
                hidden: config.dirs.state().into_iter().collect(),
                ..ShellSettings::default()
            });
            let (code, object) = run_one(tool, &arguments, mode, &rules, &workspace, &shell, cancel);
            println(&escape_json(&object.to_string()));
            Ok(code)
        }
    }
}

fn find<'r>(registry: &'r Registry, name: &str) -> Result<&'r dyn Tool, Failure> {
    registry.get(name).ok_or_else(|| {
        let names: Vec<&str> = registry.names().collect();
        Failure::new(exit::USAGE, format!("there is no tool {name}"))
            .hint(format!("there are {}", names.join(", ")))
    })
}

fn read_arguments(text: &str) -> Result<Arguments, Failure> {
    let wrong = |error: String| {
        Failure::new(exit::USAGE, format!("the arguments cannot be read: {error}"))
            .hint("give one JSON object, for example {\"path\": \".\"}")
    };
    let mut piped = String::new();
    if text == "-" {
        std::io::stdin().read_to_string(&mut piped).map_err(|error| wrong(error.to_string()))?;
    }
    serde_json::from_str(if text == "-" { &piped } else { text }).map_err(|error| wrong(error.to_string()))
}

/// The exit code and the answer.
fn run_one(
    tool: &dyn Tool,
    arguments: &Arguments,
    mode: ApprovalMode,
    rules: &Rules,
    workspace: &Workspace,
    shell: &Shell,
    cancel: &AtomicBool,
) -> (u8, Value) {
    let answer = |decision: &str, ok: bool, output: &str, error: Option<(&str, &str)>| {
        let error = error.map(|(code, message)| json!({"code": code, "message": message}));
        json!({"decision": decision, "ok": ok, "output": output, "error": error})
    };
    let call = ToolCall { name: tool.spec().name.clone(), arguments: arguments.clone() };
    if let Err(reason) = validate(&call, tool.spec()) {
        return (exit::USAGE, answer("deny", false, "", Some(("invalid_arguments", &reason))));
    }
    match approval::of_call(mode, tool, arguments, workspace, Containment::of(shell), rules) {
        Verdict::Deny(reason) | Verdict::Vain(reason) => {
            (exit::DENIED, answer("deny", false, "", Some(("denied", &reason))))
        }
        Verdict::Ask(reason) => match shell.unavailable() {
            Some(unavailable) => {
                let message = format!("{reason}: {} ({})", unavailable.reason, unavailable.remedy);
                (exit::NO_SANDBOX, answer("ask", false, "", Some(("no_sandbox", &message))))
            }
            None => (exit::DENIED, answer("ask", false, "", Some(("needs_approval", &reason)))),
        },
        Verdict::Run => {
            let mut context =
                ToolContext { workspace, shell, cancel, on_output: &mut |_| {}, max_chars: MAX_CHARS };
            match tool.run(&mut context, arguments) {
                Ok(_) if cancel.load(std::sync::atomic::Ordering::SeqCst) => {
                    (exit::INTERRUPTED, answer("allow", false, "", Some(("interrupted", "interrupted"))))
                }
                Ok(output) => {
                    let code = if output.ok { exit::DONE } else { exit::TASK_FAILED };
                    (code, answer("allow", output.ok, &output.text, None))
                }
                Err(ToolError::ToModel(message)) => {
                    (exit::TASK_FAILED, answer("allow", false, "", Some(("tool_failed", &message))))
                }
                Err(ToolError::ToUser { message, hint }) => {
                    let message = format!("{message} ({hint})");
                    (exit::TASK_FAILED, answer("allow", false, "", Some(("machine", &message))))
                }
            }
        }
    }
}

fn println(text: &str) {
    // Whoever closed our output does not want the rest.
    let _ = writeln!(std::io::stdout(), "{text}");
}
