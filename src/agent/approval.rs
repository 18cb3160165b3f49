//! Who decides on a call: the table of modes, as a pure function. Knows what a call needs (`Access`) and how well
//! commands are contained; asks nobody and runs nothing. What a command's text tells is
//! `workspace::shell::policy`'s.

use super::protocol::ApprovalMode;
use crate::tools::{Access, Arguments, Tool};
use crate::workspace::Workspace;
use crate::workspace::shell::policy::{CommandVerdict, Judgement};
use crate::workspace::shell::{SandboxTier, Shell};

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

/// What the table says of a call, with all that is known of it.
pub fn of_call(
    mode: ApprovalMode,
    tool: &dyn Tool,
    arguments: &Arguments,
    workspace: &Workspace,
    containment: Containment,
) -> Verdict {
    let path = ["file_path", "path"].iter().find_map(|key| arguments.get(*key)?.as_str());
    let command = tool.judge_command(workspace, arguments);
    match (verdict(mode, tool.access(arguments), containment, path, command.as_ref()), tool.always_asked()) {
        (Verdict::Run, Some(why)) if mode != ApprovalMode::Yolo => Verdict::Ask(why.to_string()),
        (verdict, _) => verdict,
    }
}

/// The table. `path`: the file a write goes to, where the call names one. `command`: what the text of a command tells.
pub fn verdict(
    mode: ApprovalMode,
    access: Access,
    containment: Containment,
    path: Option<&str>,
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
        (Access::Write, _) if path.is_some_and(steers_later_runs) => {
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
    ];
    let parts: Vec<String> = path
        .split(['/', '\\'])
        .filter(|part| !part.is_empty() && *part != ".")
        .map(str::to_lowercase)
        .collect();
    let Some((file, directories)) = parts.split_last() else { return false };
    FILES.contains(&file.as_str())
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
            Verdict::Deny(_) => 'd',
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
                .map(|(access, tier)| letter(verdict(mode, access, tier, Some("src/lib.rs"), None)));
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
            let of = |tier| letter(verdict(mode, Access::Execute, tier, None, Some(&judgement)));
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
            for mode in [ApprovalMode::AutoEdit, ApprovalMode::Yolo] {
                assert_eq!(
                    letter(verdict(mode, Access::Write, Containment::Full, Some(path), None)),
                    'a',
                    "{path}"
                );
            }
            assert_eq!(
                letter(verdict(ApprovalMode::Plan, Access::Write, Containment::Full, Some(path), None)),
                'd'
            );
        }
        for path in ["src/agents.rs", "github/x.yml", "docs/AGENTS.md.txt"] {
            assert_eq!(
                letter(verdict(ApprovalMode::AutoEdit, Access::Write, Containment::Full, Some(path), None)),
                'r'
            );
        }
    }
}
