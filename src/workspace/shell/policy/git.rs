//! Which `git` commands only read. Git runs programs that configuration names (file-system monitors, external diffs,
//! filters, pagers, signature checkers), and a repository carries its own configuration: where the workspace is known,
//! that is looked at, and a repository that names any program, or holds another inside, is asked about.

use super::line::Word;
use super::readers::{Doubt, Listed, Seen, check_listed};
use git2::Repository;
use std::path::Path;

/// In the text of a configuration: what can make a reading command start a program, go to the network or elsewhere.
const PROGRAMS: &[&str] = &[
    "fsmonitor",
    "external",
    "textconv",
    "clean",
    "smudge",
    "process",
    "pager",
    "program",
    "sshcommand",
    "hookspath",
    "include",
    "command",
    "promisor",
    "partialclone",
    "worktree",
    "editor",
    "askpass",
];

const LOG: &[&str] = &[
    "--abbrev=",
    "--abbrev-commit",
    "--all",
    "--ancestry-path",
    "--after=",
    "--author=",
    "--before=",
    "--branches=",
    "--cached",
    "--cc",
    "--check",
    "--committer=",
    "--color=",
    "--compact-summary",
    "--date=",
    "--date-order",
    "--decorate=",
    "--diff-filter=",
    "--dirstat=",
    "--exit-code",
    "--first-parent",
    "--find-copies=",
    "--find-renames=",
    "--follow",
    "--format=",
    "--full-index",
    "--graph",
    "--grep=",
    "--ignore-all-space",
    "--ignore-blank-lines",
    "--ignore-space-change",
    "--ignore-submodules=",
    "--inter-hunk-context=",
    "--max-count=",
    "--merge-base",
    "--merges",
    "--minimal",
    "--name-only",
    "--name-status",
    "--no-abbrev",
    "--no-color",
    "--no-decorate",
    "--no-ext-diff",
    "--no-merges",
    "--no-notes",
    "--no-patch",
    "--no-prefix",
    "--no-renames",
    "--no-textconv",
    "--numstat",
    "--oneline",
    "--patch",
    "--patch-with-stat",
    "--patience",
    "--pretty=",
    "--quiet",
    "--raw",
    "--relative",
    "--remotes=",
    "--reverse",
    "--shortstat",
    "--since=",
    "--skip=",
    "--staged",
    "--stat=",
    "--summary",
    "--tags=",
    "--text",
    "--topo-order",
    "--unified=",
    "--until=",
    "--word-diff=",
    "--source",
    "--function-context",
    "--histogram",
    "--left-right",
    "--cherry-pick",
    "--cherry",
    "--simplify-by-decoration",
];

const fn listed(flags: &'static str, valued: &'static str, long: &'static [&'static str]) -> Listed {
    Listed { flags, valued, long, operands: usize::MAX, pattern: false }
}

pub fn only_reads(words: &[Word], seen: &Seen<'_>) -> Doubt {
    const HARMLESS: &[&str] =
        &["--no-pager", "--no-optional-locks", "--no-lazy-fetch", "--literal-pathspecs"];
    let mut rest = words;
    while let [first, more @ ..] = rest
        && HARMLESS.contains(&first.text.as_str())
    {
        rest = more;
    }
    let Some((first, rest)) = rest.split_first() else { return Ok(()) };
    let command = first.text.as_str();
    if command == "--version" && rest.is_empty() {
        return Ok(());
    }
    if command.starts_with('-') {
        return Err(format!("`git {command}` can change what git runs"));
    }
    check_subcommand(command, rest, seen)?;
    runs_nothing(seen)
}

fn check_subcommand(command: &str, words: &[Word], seen: &Seen<'_>) -> Doubt {
    let unlisted = || Err(format!("`git {command}` is not on the list of commands that only read"));
    // Without words of their own these list; with some they make, move or remove.
    let only_lists = |known: &[&str]| match words.iter().find(|word| !known.contains(&word.text.as_str())) {
        Some(word) => Err(format!("`git {command} {}` is not known to only read", word.text)),
        None => Ok(()),
    };
    if words.iter().any(|word| word.text.contains("%G") || word.text.contains("%(signature")) {
        return Err("showing signatures starts the program that checks them".into());
    }
    let is_no_count = |word: &&Word| {
        let number = word.text.strip_prefix('-');
        !number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let name = format!("git {command}");
    let listed = match command {
        "status" => listed(
            "sbvz",
            "u",
            &[
                "--short",
                "--branch",
                "--porcelain=",
                "--long",
                "--untracked-files=",
                "--ignored=",
                "--show-stash",
                "--ahead-behind",
                "--no-ahead-behind",
                "--no-renames",
                "--ignore-submodules=",
                "--no-column",
            ],
        ),
        "diff" | "log" | "show" | "whatchanged" => {
            let given = words.iter().filter(is_no_count);
            return check_listed(&name, &listed("abcmpqrstuwzMCRW0", "nSGLUX", LOG), given, seen);
        }
        "shortlog" => {
            listed("nsec", "", &["--numbered", "--summary", "--email", "--no-merges", "--all", "--since="])
        }
        "rev-parse" => listed(
            "",
            "",
            &[
                "--show-toplevel",
                "--abbrev-ref=",
                "--short=",
                "--verify",
                "--git-dir",
                "--is-inside-work-tree",
                "--show-prefix",
                "--show-cdup",
                "--symbolic-full-name",
                "--all",
                "--quiet",
                "--is-bare-repository",
            ],
        ),
        "rev-list" => listed(
            "",
            "n",
            &[
                "--count",
                "--all",
                "--max-count=",
                "--left-right",
                "--since=",
                "--until=",
                "--no-merges",
                "--reverse",
            ],
        ),
        "ls-files" => listed(
            "cdmosuztivk",
            "x",
            &[
                "--cached",
                "--deleted",
                "--modified",
                "--others",
                "--ignored",
                "--stage",
                "--exclude-standard",
                "--error-unmatch",
                "--full-name",
                "--unmerged",
                "--killed",
                "--exclude=",
                "--deduplicate",
            ],
        ),
        "ls-tree" => {
            listed("drtlz", "", &["--name-only", "--name-status", "--full-tree", "--full-name", "--long"])
        }
        "cat-file" => listed("tspe", "", &[]),
        "blame" | "annotate" => {
            listed("bcefhklnpstwMC", "LS", &["--porcelain", "--line-porcelain", "--show-email", "--date="])
        }
        "describe" => listed(
            "",
            "",
            &["--tags", "--all", "--always", "--abbrev=", "--long", "--dirty=", "--exact-match"],
        ),
        "merge-base" => {
            listed("a", "", &["--all", "--is-ancestor", "--octopus", "--independent", "--fork-point"])
        }
        "show-ref" => {
            listed("dqs", "", &["--heads", "--tags", "--head", "--verify", "--quiet", "--branches"])
        }
        "for-each-ref" => listed("", "", &["--format=", "--sort=", "--count=", "--contains=", "--merged="]),
        "name-rev" | "count-objects" | "check-ignore" => {
            listed("vqHn", "", &["--name-only", "--tags", "--all"])
        }
        "grep" => Listed {
            pattern: true,
            ..listed(
                "ivwEFGPnlLcqhHoIap0123456789",
                "eABCm",
                &[
                    "--cached",
                    "--untracked",
                    "--ignore-case",
                    "--line-number",
                    "--files-with-matches",
                    "--count",
                    "--name-only",
                    "--word-regexp",
                    "--fixed-strings",
                    "--extended-regexp",
                    "--heading",
                    "--break",
                    "--max-depth=",
                    "--show-function",
                    "--function-context",
                    "--and",
                    "--or",
                    "--not",
                    "--no-color",
                ],
            )
        },
        "branch" => {
            return only_lists(&[
                "-a",
                "-r",
                "-v",
                "-vv",
                "-av",
                "-avv",
                "-rv",
                "--all",
                "--remotes",
                "--list",
                "--show-current",
                "--no-color",
                "--verbose",
                "--no-column",
            ]);
        }
        "tag" => return only_lists(&["-l", "--list", "-n", "--no-column"]),
        "remote" => return only_lists(&["-v", "--verbose"]),
        "stash" => {
            return match words.first().map(|word| word.text.as_str()) {
                Some("list") if words.len() == 1 => Ok(()),
                _ => unlisted(),
            };
        }
        "reflog" => {
            return match words.first().map(|word| word.text.as_str()) {
                None | Some("show") => only_lists(&["show", "HEAD", "--oneline", "--all"]),
                _ => unlisted(),
            };
        }
        "worktree" if words.len() == 1 => return only_lists(&["list"]),
        "config" => {
            return match words.first().map(|word| word.text.as_str()) {
                Some("--get" | "--get-all" | "get") if words.len() == 2 => Ok(()),
                Some("--list" | "-l" | "list") if words.len() == 1 => Ok(()),
                _ => unlisted(),
            };
        }
        _ => return unlisted(),
    };
    check_listed(&name, &listed, words.iter(), seen)
}

/// Whether the repository here is one whose configuration starts nothing.
fn runs_nothing(seen: &Seen<'_>) -> Doubt {
    let Some(root) = &seen.place.root else { return Ok(()) };
    let refuse = |text: &str| Err(format!("{text}, so git may run what it names"));
    for directory in &seen.directories {
        // Git goes up from the real place, whatever links led there; into what is not there no `cd` leads.
        let Ok(real) = root.join(directory).canonicalize() else { continue };
        if !real.starts_with(root) {
            return refuse("git may run outside the workspace");
        }
        for here in real.ancestors().take_while(|here| here.starts_with(root)) {
            // A repository below the workspace's own, or a folder that git would take for a bare one.
            if here != root && is_there(&here.join(".git")) || is_there(&here.join("HEAD")) {
                return refuse("there is another repository inside the workspace, or a bare one");
            }
        }
    }
    // The nearest, as git takes it, and no farther one because this one is odd.
    let is_git = |here: &&Path| [".git", "HEAD"].iter().any(|name| is_there(&here.join(name)));
    let Some(home) = root.ancestors().find(is_git) else { return Ok(()) };
    let Ok(repository) = Repository::open(home) else { return refuse("the repository here cannot be read") };
    for folder in [repository.commondir(), repository.path()] {
        // Looking at the work tree renews the index.
        if is_there(&folder.join("hooks/post-index-change")) {
            return refuse("the repository has a hook for what only reads");
        }
        for name in ["config", "config.worktree"] {
            if names_a_program(&folder.join(name)) {
                return refuse("the repository's own configuration names programs");
            }
        }
    }
    let Ok(index) = repository.index() else { return refuse("the index of the repository cannot be read") };
    // A link to another repository: git looks into it, with that one's configuration.
    if index.iter().any(|entry| entry.mode == 0o160_000) {
        return refuse("the repository holds others");
    }
    Ok(())
}

/// Also a link that leads nowhere: git takes a HEAD by where it says that it leads.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn names_a_program(path: &Path) -> bool {
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).to_lowercase(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return false,
        Err(_) => return true,
    };
    text.lines().map(str::trim).any(|line| {
        // Names of branches and remotes are free text; what stands behind them on the line is not.
        let named = ["[branch \"", "[remote \""].iter().any(|start| line.starts_with(start))
            && line.ends_with("\"]")
            && line.matches(['[', ']']).count() == 2
            && !line.contains('=');
        !named && PROGRAMS.iter().any(|word| line.contains(word))
    })
}
