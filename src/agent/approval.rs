//! Who decides on a call: the table of modes and the user's rules over it, as pure functions. Knows what a call needs
//! (`Access`) and how well commands are contained; asks nobody and runs nothing. What a command's text tells is
//! `workspace::shell::policy`'s, which rule is about which call `rules`' part.

use super::protocol::{ApprovalMode, Rule};
use super::rules::{Call, Denied, Rules};
use crate::tools::{Access, Arguments, Tool};
use crate::workspace::Workspace;
use crate::workspace::shell::policy::{CommandVerdict, Commands, Judgement};
use crate::workspace::shell::{SandboxTier, Shell};
use std::path::Path;

/// How well a command is contained, as far as the table cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Containment {
    Full,
    Reduced,
    /// No sandbox can be had here, and nobody said to go on without.
    Absent,
    /// The user named `--sandbox none`: the full tier's column holds, and every result says so.
    Waived,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Run,
    /// Ask the user; with nobody to ask this is a denial. The text says why.
    Ask(String),
    Deny(String),
    /// It cannot do what it says: the model is told why, and nobody is asked.
    Vain(String),
}

impl Containment {
    pub fn of(shell: &Shell) -> Self {
        match (shell.unavailable(), shell.tier()) {
            (Some(_), _) => Self::Absent,
            (None, SandboxTier::Full) => Self::Full,
            (None, SandboxTier::Reduced) => Self::Reduced,
            (None, SandboxTier::None) => Self::Waived,
        }
    }
}

/// Bytes of text in one call that writes, beyond which the user is asked.
const HUGE: usize = 256 * 1024;

/// What a call would touch.
struct Looked<'a> {
    tool: &'a dyn Tool,
    access: Access,
    paths: Vec<String>,
    commands: Option<Commands>,
    steers: bool,
}

impl<'a> Looked<'a> {
    fn at(tool: &'a dyn Tool, arguments: &Arguments, workspace: &Workspace) -> Self {
        // Every name under which a tool takes a path: which of two it takes, only the tool knows.
        const NAMES: &[&str] = &["file_path", "path", "absolute_path", "filename", "directory", "dir_path"];
        let listed = arguments.get("paths").and_then(|paths| paths.as_array()).into_iter().flatten();
        let alone = NAMES.iter().chain(&["paths"]).filter_map(|name| arguments.get(*name));
        let named: Vec<&str> = alone.chain(listed).filter_map(|path| path.as_str()).collect();
        let mut paths: Vec<String> =
            named.iter().map(|path| workspace.leads_to(path).unwrap_or_else(|| path.to_string())).collect();
        paths.dedup();
        Self {
            tool,
            access: tool.access(arguments),
            steers: named.iter().copied().chain(paths.iter().map(String::as_str)).any(steers_later_runs),
            paths,
            commands: tool.commands(workspace, arguments),
        }
    }

    fn is_huge(&self, arguments: &Arguments) -> Option<&'static str> {
        let texts = arguments.values().filter_map(|value| value.as_str());
        let huge = self.access == Access::Write && texts.map(str::len).sum::<usize>() > HUGE;
        huge.then_some("it writes more than 256 KiB at once")
    }

    fn call(&self) -> Call<'_> {
        Call {
            tool: &self.tool.spec().name,
            access: self.access,
            paths: &self.paths,
            commands: self.commands.as_ref(),
            steers: self.steers,
        }
    }
}

/// What the table and the rules say of a call, with all that is known of it.
pub fn of_call(
    mode: ApprovalMode,
    tool: &dyn Tool,
    arguments: &Arguments,
    workspace: &Workspace,
    containment: Containment,
    rules: &Rules,
) -> Verdict {
    let mut looked = Looked::at(tool, arguments, workspace);
    let own = |path: &String| rules.file().is_some_and(|file| workspace.root().join(path) == file);
    if looked.access == Access::Write && looked.paths.iter().any(own) {
        return Verdict::Deny("the user's rules are written by the user alone".into());
    }
    // The user named it: it was run before the model was loaded, and is run after each round, as it is.
    let text = |name: &str| arguments.get(name).and_then(|value| value.as_str());
    let is_check = text("command")
        .filter(|_| matches!(looked.access, Access::Execute | Access::Network))
        .is_some_and(|command| workspace.is_check(command, text("directory").map(Path::new)));
    // Where no sandbox holds it, no command is without the network.
    if looked.access == Access::Network && (is_check || containment == Containment::Waived) {
        looked.access = Access::Execute;
    }
    let command = tool.judge_command(workspace, arguments);
    let table = match (
        verdict(mode, looked.access, containment, looked.steers, command.as_ref()),
        tool.always_asked().or_else(|| looked.is_huge(arguments)),
    ) {
        (Verdict::Run, Some(why)) if mode != ApprovalMode::Yolo => Verdict::Ask(why.to_string()),
        (table, _) => table,
    };
    by_rules(table, containment, &looked.call(), rules, is_check)
}

/// The rule that would let this call, and others like it, run unasked; `None` where no rule can.
pub fn suggestion(
    tool: &dyn Tool,
    arguments: &Arguments,
    workspace: &Workspace,
    containment: Containment,
    rules: &Rules,
) -> Option<Rule> {
    let looked = Looked::at(tool, arguments, workspace);
    let call = looked.call();
    let answers = rules_answer(looked.access, containment) && rules.denied(&call) == Denied::No;
    rules.suggest(&call).filter(|_| answers && !rules.are_lost())
}

/// Whether a rule may stand for the user's word: not where nothing holds a command, nor on the network.
fn rules_answer(access: Access, containment: Containment) -> bool {
    access == Access::Write || access == Access::Execute && containment != Containment::Absent
}

/// What the rules make of the table's word. What the table denies no rule allows.
fn by_rules(
    table: Verdict,
    containment: Containment,
    call: &Call<'_>,
    rules: &Rules,
    is_check: bool,
) -> Verdict {
    let perhaps = match rules.denied(call) {
        Denied::By(rule) => return Verdict::Deny(format!("the user's rule `{rule}` forbids it")),
        Denied::Perhaps(rule) => {
            Some(format!("it cannot be ruled out that it does what the rule `{rule}` forbids"))
        }
        Denied::No if rules.are_lost() && call.access != Access::Read => {
            Some("the file of the user's rules cannot be read, so what they forbid is not known".into())
        }
        Denied::No => None,
    };
    match (table, perhaps) {
        (Verdict::Deny(reason), _) => Verdict::Deny(reason),
        (_, Some(reason)) => Verdict::Ask(reason),
        (Verdict::Ask(_), None)
            if rules_answer(call.access, containment) && (is_check || rules.allow(call)) =>
        {
            Verdict::Run
        }
        (table, None) => table,
    }
}

/// The table. `steers`: the file that is written steers later runs. `command`: what the text of a command tells.
pub fn verdict(
    mode: ApprovalMode,
    access: Access,
    containment: Containment,
    steers: bool,
    command: Option<&Judgement>,
) -> Verdict {
    use ApprovalMode::*;
    let ask = |why: &str| Verdict::Ask(why.to_string());
    match command.map(|command| (command.verdict, &command.reason)) {
        Some((CommandVerdict::Forbidden, reason)) => {
            return Verdict::Deny(format!("this command is refused in every mode: {reason}"));
        }
        // Without any sandbox not even these run unasked: parsing saves prompts, it holds nothing.
        Some((CommandVerdict::ReadOnly, _)) if containment != Containment::Absent => return Verdict::Run,
        _ => {}
    }
    match (access, mode) {
        (Access::Read, _) => Verdict::Run,
        (_, Plan) => Verdict::Deny("plan mode changes no file and runs no command".into()),
        (Access::Write, _) if steers => {
            ask("this file runs code or steers an agent later, so each change of it is approved by itself")
        }
        (Access::Write, Default) => ask("in default mode each change is approved"),
        (Access::Write, AutoEdit | Yolo) => Verdict::Run,
        (Access::Execute, _) if containment == Containment::Absent => {
            ask("there is no sandbox here, so no command runs unasked")
        }
        (Access::Execute, Default) => ask("in default mode each command is approved"),
        (Access::Execute, AutoEdit) if containment == Containment::Reduced => {
            ask("the sandbox is the reduced tier, so in auto-edit mode each command is approved")
        }
        (Access::Execute, AutoEdit | Yolo) => Verdict::Run,
        (Access::Network, _) => ask("network access is always approved by itself"),
    }
}

/// Files that run code when something opens or builds the project, or that steer an agent: an edit there outlives
/// this session, so none goes unasked in any mode. Names are compared without case, as some file systems do.
fn steers_later_runs(path: &str) -> bool {
    const FILES: &[&str] = &[
        "agents.md",
        "agents.override.md",
        "claude.md",
        "claude.local.md",
        "qwen.md",
        "gemini.md",
        ".cursorrules",
        ".windsurfrules",
        ".mcp.json",
        ".envrc",
        ".gitmodules",
        ".gitattributes",
        ".gitconfig",
        ".gitlab-ci.yml",
        ".travis.yml",
        "jenkinsfile",
        ".pre-commit-config.yaml",
        "rust-toolchain",
        "rust-toolchain.toml",
        ".npmrc",
        ".yarnrc",
        ".yarnrc.yml",
        ".python-version",
        ".tool-versions",
        "mise.toml",
        ".mise.toml",
        "lefthook.yml",
        "azure-pipelines.yml",
        "bitbucket-pipelines.yml",
        ".drone.yml",
        ".woodpecker.yml",
        ".pnpmfile.cjs",
        ".nvmrc",
        ".node-version",
        ".exrc",
        ".nvimrc",
        ".nvim.lua",
        ".clinerules",
        ".aider.conf.yml",
        "opencode.json",
        "opencode.jsonc",
    ];
    const DIRECTORIES: &[&str] = &[
        ".vscode",
        ".idea",
        ".zed",
        ".devcontainer",
        ".cargo",
        ".github",
        ".circleci",
        ".husky",
        ".ci",
        ".qwright",
        ".claude",
        ".qwen",
        ".gemini",
        ".codex",
        ".cursor",
        ".windsurf",
        ".opencode",
        ".buildkite",
        ".gitea",
        ".forgejo",
        ".woodpecker",
        ".mvn",
        ".yarn",
    ];
    let parts: Vec<String> = path
        .split(['/', '\\'])
        .filter(|part| !part.is_empty() && *part != ".")
        .map(str::to_lowercase)
        .collect();
    let Some((file, directories)) = parts.split_last() else { return false };
    FILES.contains(&file.as_str())
        || file.ends_with(".code-workspace")
        || DIRECTORIES.contains(&file.as_str())
        || directories.iter().any(|directory| DIRECTORIES.contains(&directory.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(verdict: Verdict) -> char {
        match verdict {
            Verdict::Run => 'r',
            Verdict::Ask(_) => 'a',
            Verdict::Deny(_) | Verdict::Vain(_) => 'd',
        }
    }

    /// One row per mode; columns: read, edit, command full / reduced / absent / waived, network.
    #[test]
    fn the_table() {
        use Containment::*;
        let expected = ["plan rdddddd", "default raaaaaa", "auto-edit rrraara", "yolo rrrrara"];
        let got: Vec<String> = ApprovalMode::ALL
            .into_iter()
            .map(|mode| {
                let cells = [
                    (Access::Read, Full),
                    (Access::Write, Full),
                    (Access::Execute, Full),
                    (Access::Execute, Reduced),
                    (Access::Execute, Absent),
                    (Access::Execute, Waived),
                    (Access::Network, Full),
                ]
                .map(|(access, tier)| letter(verdict(mode, access, tier, false, None)));
                format!("{} {}", mode.name(), cells.iter().collect::<String>())
            })
            .collect();
        assert_eq!(got, expected);
    }

    /// One row per mode; columns: full / reduced / absent / waived.
    #[test]
    fn what_a_command_is_known_to_do_comes_before_the_table() {
        use Containment::*;
        let row = |mode, known| -> String {
            let judgement = Judgement { verdict: known, reason: "why".into() };
            let of = |tier| letter(verdict(mode, Access::Execute, tier, false, Some(&judgement)));
            [Full, Reduced, Absent, Waived].into_iter().map(of).collect()
        };
        for (mode, reads) in [("plan", "rrdr"), ("default", "rrar"), ("auto-edit", "rrar"), ("yolo", "rrar")]
        {
            let mode: ApprovalMode = mode.parse().unwrap();
            assert_eq!(row(mode, CommandVerdict::ReadOnly), reads, "{mode:?}");
            assert_eq!(row(mode, CommandVerdict::Forbidden), "dddd", "{mode:?}");
        }
        assert_eq!(row(ApprovalMode::Plan, CommandVerdict::NeedsApproval), "dddd");
        assert_eq!(row(ApprovalMode::AutoEdit, CommandVerdict::NeedsApproval), "raar");
    }

    #[test]
    fn files_that_steer_later_runs_are_asked_for_in_every_mode() {
        for path in [
            "AGENTS.md",
            "./sub/Claude.md",
            ".github/workflows/ci.yml",
            "a/.VSCode/tasks.json",
            ".envrc",
            ".cargo/config.toml",
        ] {
            assert!(steers_later_runs(path), "{path}");
        }
        for path in ["src/agents.rs", "github/x.yml", "docs/AGENTS.md.txt"] {
            assert!(!steers_later_runs(path), "{path}");
        }
        let row = |mode| letter(verdict(mode, Access::Write, Containment::Full, true, None));
        assert_eq!(ApprovalMode::ALL.map(row), ['d', 'a', 'a', 'a']);
    }
}
