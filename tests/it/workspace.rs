//! The workspace in real directories: edits as data (`fixtures/edits`), attempts to escape the guard, atomic writes,
//! stale files, undo, diffs that `git apply` takes, search, and git.

use qwright::workspace::{Edit, GrepQuery, ReadContent, Workspace, WorkspaceError, edit};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tempfile::TempDir;

static NOT_CANCELLED: AtomicBool = AtomicBool::new(false);

fn workspace(files: &[(&str, &str)]) -> (TempDir, Workspace) {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let workspace = Workspace::open(directory.path(), &[]).unwrap();
    (directory, workspace)
}

fn replacement(old: &str, new: &str) -> Edit {
    Edit { old_string: old.into(), new_string: new.into(), replace_all: false }
}

fn read_text(workspace: &Workspace, path: &str) -> String {
    match workspace.read(path).unwrap().content {
        ReadContent::Text(text) => text.shown().into_owned(),
        other => panic!("{path}: {other:?}"),
    }
}

// ---- edits as data ----

/// Every line of `fixtures/edits/*.jsonl`: file, old, new, and either the text expected or words of the error.
fn edit_cases() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/edits");
    let mut cases = Vec::new();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        // The other kinds of change are run by edits.rs.
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let kind = path.file_stem().unwrap().to_string_lossy().into_owned();
        for line in fs::read_to_string(&path).unwrap().lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            cases.push((format!("{kind}: {}", case["name"].as_str().unwrap()), case));
        }
    }
    cases
}

#[test]
fn edit_fixtures() {
    let cases = edit_cases();
    assert!(cases.len() >= 60, "only {} cases were found", cases.len());
    let mut failures = Vec::new();
    for (name, case) in &cases {
        let text = |key: &str| case[key].as_str().unwrap_or_else(|| panic!("{name}: {key}"));
        let edit = Edit {
            old_string: text("old").into(),
            new_string: text("new").into(),
            replace_all: case["replace_all"].as_bool().unwrap_or(false),
        };
        let result = edit::apply(text("file"), &edit);
        if let Some(words) = case["error"].as_array() {
            match result {
                Ok(edited) => failures.push(format!("{name}: should be refused, gave {:?}", edited.text)),
                Err(error) => {
                    let message = error.explain("src/a.rs");
                    for word in words {
                        if !message.contains(word.as_str().unwrap()) {
                            failures.push(format!("{name}: {word} is not in {message:?}"));
                        }
                    }
                }
            }
            continue;
        }
        match result {
            Ok(edited) if edited.text != text("expect") => {
                failures.push(format!("{name}: {:?} instead of {:?}", edited.text, text("expect")))
            }
            Ok(edited) if edited.bridged.is_some() != case["bridged"].as_bool().unwrap_or(false) => {
                failures.push(format!("{name}: bridged {:?}", edited.bridged))
            }
            Ok(_) => {}
            Err(error) => failures.push(format!("{name}: {error:?}")),
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn an_edit_keeps_bom_line_endings_and_mode() {
    let (directory, workspace) = workspace(&[]);
    let path = directory.path().join("a.cs");
    fs::write(&path, "\u{feff}using A;\r\nusing B;\r\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    assert_eq!(read_text(&workspace, "a.cs"), "using A;\nusing B;\n");
    workspace.edit("a.cs", &replacement("using A;\nusing B;", "using A;\nusing C;\nusing D;")).unwrap();
    assert_eq!(fs::read(&path).unwrap(), "\u{feff}using A;\r\nusing C;\r\nusing D;\r\n".as_bytes());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o750);
    workspace.write("a.cs", "using E;\n").unwrap();
    assert_eq!(fs::read(&path).unwrap(), "\u{feff}using E;\r\n".as_bytes());
}

#[test]
fn what_is_no_text_is_read_but_not_edited() {
    let (directory, workspace) = workspace(&[]);
    fs::write(directory.path().join("latin1.txt"), b"caf\xe9 au lait\n").unwrap();
    fs::write(directory.path().join("x.png"), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").unwrap();
    assert_eq!(read_text(&workspace, "latin1.txt"), "caf\u{fffd} au lait\n");
    assert!(matches!(workspace.read("x.png").unwrap().content, ReadContent::Binary("PNG image")));
    for path in ["latin1.txt", "x.png"] {
        let before = fs::read(directory.path().join(path)).unwrap();
        let error = workspace.edit(path, &replacement("au", "ou")).unwrap_err();
        assert!(matches!(error, WorkspaceError::Refused(_)), "{error:?}");
        assert_eq!(fs::read(directory.path().join(path)).unwrap(), before);
    }
}

#[test]
fn a_huge_file_shows_its_ends_and_is_not_edited() {
    let (directory, workspace) = workspace(&[]);
    let file = fs::File::create(directory.path().join("big.log")).unwrap();
    use std::io::{Seek, Write};
    let line = "x".repeat(99) + "\n";
    let block = line.repeat(10_000);
    let mut writer = std::io::BufWriter::new(file);
    writer.write_all(b"first line\n").unwrap();
    for _ in 0..17 {
        writer.write_all(block.as_bytes()).unwrap();
    }
    writer.write_all(b"last line\n").unwrap();
    let size = writer.stream_position().unwrap();
    drop(writer);
    let read = workspace.read("big.log").unwrap();
    assert_eq!(read.size, size);
    match read.content {
        ReadContent::Huge { head, tail } => {
            assert!(head.starts_with("first line\n") && tail.ends_with("last line\n"));
        }
        other => panic!("{other:?}"),
    }
    let error = workspace.edit("big.log", &replacement("first line", "x")).unwrap_err();
    assert!(error.to_string().contains("MB"), "{error}");
}

// ---- the guard ----

/// A workspace in a directory with secrets beside it, and every kind of trap inside.
struct Traps {
    directory: TempDir,
    workspace: Workspace,
}

impl Traps {
    fn set() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path();
        let root = top.join("root");
        fs::create_dir_all(root.join("src/deep")).unwrap();
        fs::create_dir_all(root.join(".git/hooks")).unwrap();
        fs::create_dir_all(root.join(".qwright")).unwrap();
        fs::create_dir_all(root.join("sub/.git")).unwrap();
        fs::create_dir_all(top.join("outside/inner")).unwrap();
        fs::create_dir_all(top.join("root-twin")).unwrap();
        fs::write(top.join("outside/secret"), "secret").unwrap();
        fs::write(top.join("root-twin/secret"), "secret").unwrap();
        fs::write(root.join("src/main.rs"), "fn main() {}\n").unwrap();
        fs::write(root.join(".git/config"), "[core]\n").unwrap();
        fs::write(root.join("real.txt"), "real\n").unwrap();
        let links: [(&str, PathBuf); 14] = [
            ("abs-file", top.join("outside/secret")),
            ("abs-dir", top.join("outside")),
            ("rel-file", "../outside/secret".into()),
            ("rel-dir", "../outside".into()),
            ("src/deep/up", "../../../outside".into()),
            ("chain1", "chain2".into()),
            ("chain2", "src/deep/up".into()),
            ("loop1", "loop2".into()),
            ("loop2", "loop1".into()),
            ("dangling-out", "../outside/new".into()),
            ("git-link", ".git".into()),
            ("src/git-link", "../.git/hooks".into()),
            ("inside-abs", root.join("src")),
            ("proc-cwd", "/proc/self/cwd".into()),
        ];
        for (name, target) in links {
            symlink(target, root.join(name)).unwrap();
        }
        for pipe in ["pipe", "src/pipe"] {
            assert!(Command::new("mkfifo").arg(root.join(pipe)).status().unwrap().success());
        }
        std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let workspace = Workspace::open(&root, &[]).unwrap();
        Self { directory, workspace }
    }

    /// Every file outside the workspace and in `.git` and `.qwright`, with its bytes.
    fn protected(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let top = self.directory.path();
        let mut found = Vec::new();
        for directory in ["outside", "root-twin", "root/.git", "root/.qwright", "root/sub/.git"] {
            collect(&top.join(directory), &mut found);
        }
        let mut names: Vec<_> = fs::read_dir(top).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        found.extend(names.into_iter().map(|name| (name, Vec::new())));
        found
    }
}

fn collect(directory: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    let mut entries: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, found);
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
}

#[test]
fn nothing_outside_is_read_or_written() {
    let traps = Traps::set();
    let top = traps.directory.path().to_string_lossy().into_owned();
    let long_name = "n".repeat(256);
    let long_path = "d/".repeat(2100) + "f";
    let twin = format!("{top}/root-twin/secret");
    let absolute = format!("{top}/outside/secret");
    let dotted = format!("{top}/root/../outside/secret");
    let own_root = format!("{top}/root");
    let attempts: Vec<&str> = vec![
        // empty, unreadable, too long
        "",
        " ",
        "\t",
        "a\0b",
        "a\nb",
        "a\rb",
        "a\u{2028}b",
        "src/main.rs\n",
        &long_name,
        &long_path,
        "src/",
        "real.txt/",
        // upwards
        "..",
        "../outside/secret",
        "src/../../outside/secret",
        "src/deep/../../../outside/secret",
        "./../outside/secret",
        "src/./.././../outside/secret",
        "nothing/../../outside/secret",
        "..//outside/secret",
        "src/deep/../../..",
        // absolute
        &absolute,
        &twin,
        &dotted,
        "/etc/passwd",
        "//etc/passwd",
        "/",
        &own_root,
        "/proc/self/cwd/src/main.rs",
        "/proc/self/root/etc/passwd",
        "/dev/null",
        "/dev/stdin",
        // links
        "abs-file",
        "abs-dir/secret",
        "abs-dir/inner/new",
        "rel-file",
        "rel-dir/secret",
        "rel-dir/new",
        "src/deep/up/secret",
        "chain1/secret",
        "chain2/new",
        "loop1",
        "loop1/x",
        "dangling-out",
        "rel-dir/../outside/secret",
        "inside-abs/main.rs",
        "proc-cwd/src/main.rs",
        "src/deep/up/../outside/secret",
        // not files
        "src",
        ".",
        "./",
        "src/.",
        "src/deep/..",
        "pipe",
        "src/pipe",
        "socket",
        "src/main.rs/x",
        "real.txt/../real.txt",
        // not paths
        "~",
        "~/secret",
        "file:///etc/passwd",
        "https://example.org/x",
    ];
    let protected = traps.protected();
    for path in &attempts {
        let read = traps.workspace.read(path);
        assert!(read.is_err(), "{path:?} was read: {read:?}");
        let message = read.unwrap_err().to_string();
        assert!(!message.contains("secret\n") && !message.is_empty(), "{message}");
        assert!(!message.contains('\n'), "one line, please: {message:?}");
        let written = traps.workspace.write(path, "evil");
        assert!(written.is_err(), "{path:?} was written");
        let edited = traps.workspace.edit(path, &replacement("", "evil"));
        assert!(edited.is_err(), "{path:?} was edited");
        let edited = traps.workspace.edit(path, &replacement("secret", "evil"));
        assert!(edited.is_err(), "{path:?} was edited");
    }
    assert!(attempts.len() >= 60);
    assert_eq!(traps.protected(), protected);
    assert!(traps.workspace.changes().is_empty());
}

#[test]
fn git_and_our_own_settings_are_not_written_by_any_name() {
    let traps = Traps::set();
    let protected = traps.protected();
    let attempts = [
        ".git/config",
        ".git/hooks/pre-commit",
        ".GIT/config",
        ".Git/hooks/x",
        ".git./config",
        ".git /config",
        ".g\u{200c}it/config",
        "git~1/config",
        "GIT~1/config",
        "git-link/config",
        "git-link/hooks/pre-commit",
        "src/git-link/pre-commit",
        "src/../.git/config",
        "./.git/config",
        "sub/.git/config",
        "sub/.git/hooks/x",
        "src/.git/config",
        "src/.git",
        "new/.git/hooks/post-checkout",
        ".git",
        ".qwright/config.toml",
        ".QWRIGHT/config.toml",
        "src/.qwright/commands/x.md",
        ".git/new/x",
    ];
    for path in attempts {
        let written = traps.workspace.write(path, "evil");
        assert!(matches!(written, Err(WorkspaceError::Refused(_))), "{path:?}: {written:?}");
        let edited = traps.workspace.edit(path, &replacement("", "evil"));
        assert!(edited.is_err(), "{path:?} was edited");
    }
    assert_eq!(traps.protected(), protected);
    // What only looks like them may be written.
    for path in [".gitignore", ".github/x.yml", "git/config", "src/.gitattributes", "not.git/x"] {
        traps.workspace.write(path, "fine\n").unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

#[test]
fn what_lies_inside_is_reached_by_any_honest_name() {
    let traps = Traps::set();
    let root = traps.directory.path().join("root");
    symlink("../real.txt", root.join("src/to-real")).unwrap();
    symlink("src/deep", root.join("to-deep")).unwrap();
    let absolute = root.join("src/main.rs").to_string_lossy().into_owned();
    let canonical = root.canonicalize().unwrap().join("src/main.rs").to_string_lossy().into_owned();
    for path in [
        "src/main.rs",
        "./src/main.rs",
        "src//main.rs",
        "src/deep/../main.rs",
        "src/./main.rs",
        &absolute,
        &canonical,
    ] {
        let read = traps.workspace.read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(read.path, "src/main.rs");
    }
    // A link keeps pointing where it did; what it points to is written.
    assert_eq!(read_text(&traps.workspace, "src/to-real"), "real\n");
    traps.workspace.edit("src/to-real", &replacement("real", "changed")).unwrap();
    assert_eq!(fs::read_to_string(root.join("real.txt")).unwrap(), "changed\n");
    assert!(fs::symlink_metadata(root.join("src/to-real")).unwrap().is_symlink());
    traps.workspace.write("to-deep/a/b/new.txt", "new\n").unwrap();
    assert_eq!(fs::read_to_string(root.join("src/deep/a/b/new.txt")).unwrap(), "new\n");
    traps.workspace.write("line with blanks & 'quotes' é.txt", "x\n").unwrap();
}

#[test]
fn a_path_that_begins_with_the_name_of_the_workspace_is_understood() {
    let (directory, workspace) = workspace(&[("a/b.txt", "b"), ("c.txt", "c")]);
    let name = directory.path().file_name().unwrap().to_str().unwrap();
    let read = |path: String| read_text(&workspace, &path);
    assert_eq!(read(format!("{name}/a/b.txt")), "b");
    // What is there as written comes first.
    fs::create_dir(directory.path().join(name)).unwrap();
    fs::write(directory.path().join(name).join("c.txt"), "inner").unwrap();
    assert_eq!(read(format!("{name}/c.txt")), "inner");
    // A new file goes where it was asked for.
    workspace.write(&format!("{name}/new.txt"), "x").unwrap();
    assert!(directory.path().join(name).join("new.txt").exists());
}

#[test]
fn extra_roots_are_reached_by_absolute_paths() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(second.path().join("lib.h"), "int f();\n").unwrap();
    let workspace = Workspace::open(first.path(), &[second.path().to_path_buf()]).unwrap();
    let path = second.path().join("lib.h").to_string_lossy().into_owned();
    assert_eq!(read_text(&workspace, &path), "int f();\n");
    workspace.edit(&path, &replacement("int", "long")).unwrap();
    assert_eq!(fs::read_to_string(second.path().join("lib.h")).unwrap(), "long f();\n");
    assert!(workspace.read("lib.h").is_err());
    let escape = second.path().join("../x").to_string_lossy().into_owned();
    assert!(workspace.write(&escape, "x").is_err());
}

#[test]
fn a_directory_that_becomes_a_link_again_and_again_never_leads_outside() {
    const SWAPS: usize = 2000;
    let directory = tempfile::tempdir().unwrap();
    let (root, outside) = (directory.path().join("root"), directory.path().join("outside"));
    fs::create_dir_all(root.join("d")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    fs::write(root.join("d/f"), "inside").unwrap();
    fs::write(outside.join("f"), "outside").unwrap();
    symlink(&outside, root.join("absolute")).unwrap();
    symlink("../outside", root.join("relative")).unwrap();
    let workspace = Workspace::open(&root, &[]).unwrap();
    let swapped = AtomicUsize::new(0);
    let finished = AtomicBool::new(false);
    let (mut reads, mut writes, mut created) = (0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            // Bounded, so that a failure on the other side ends the test instead of waiting for it.
            while swapped.load(Ordering::SeqCst) < SWAPS
                || (!finished.load(Ordering::SeqCst) && swapped.load(Ordering::SeqCst) < 500 * SWAPS)
            {
                let count = swapped.fetch_add(1, Ordering::SeqCst);
                let link = root.join(if count % 4 < 2 { "absolute" } else { "relative" });
                renameat_with(CWD, root.join("d"), CWD, &link, RenameFlags::EXCHANGE).unwrap();
                std::thread::yield_now();
            }
        });
        let mut round = 0;
        while swapped.load(Ordering::SeqCst) < SWAPS || round < 300 {
            round += 1;
            if let Ok(read) = workspace.read("d/f") {
                reads += 1;
                let ReadContent::Text(text) = read.content else { panic!("not text") };
                assert!(text.text.starts_with("inside"), "read {:?}", text.text);
                writes += usize::from(workspace.write("d/f", &format!("inside {round}")).is_ok());
            }
            created += usize::from(
                workspace.edit(&format!("d/new-{}", round % 100), &replacement("", "inside")).is_ok(),
            );
            let query = GrepQuery { pattern: "outside".into(), limit: 5, ..GrepQuery::default() };
            if round % 20 == 0
                && let Ok(found) = workspace.grep(&query, &NOT_CANCELLED)
            {
                assert!(found.matches.is_empty(), "{found:?}");
            }
        }
        finished.store(true, Ordering::SeqCst);
    });
    assert!(reads > 0 && writes + created > 0, "{reads} reads, {writes} writes, {created} new files");
    let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["f"]);
    assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "outside");
}

// ---- stale files, undo, diffs ----

#[test]
fn a_file_changed_since_it_was_read_is_not_overwritten() {
    let (directory, workspace) = workspace(&[("a.txt", "one\ntwo\n")]);
    let path = directory.path().join("a.txt");
    read_text(&workspace, "a.txt");
    fs::write(&path, "one\ntwo\nthree\n").unwrap();
    for result in [workspace.edit("a.txt", &replacement("one", "1")), workspace.write("a.txt", "gone\n")] {
        let error = result.unwrap_err();
        assert!(
            matches!(error, WorkspaceError::Stale(_)) && error.to_string().contains("read it again"),
            "{error}"
        );
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");
    read_text(&workspace, "a.txt");
    workspace.edit("a.txt", &replacement("one", "1")).unwrap();
    // Our own write is no surprise.
    workspace.edit("a.txt", &replacement("two", "2")).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\nthree\n");
}

#[test]
fn what_was_planned_is_what_is_written_or_nothing() {
    let (directory, workspace) = workspace(&[("a.txt", "one\n")]);
    let path = directory.path().join("a.txt");
    let plan = workspace.plan_edit("a.txt", &replacement("one", "1")).unwrap();
    fs::write(&path, "one more\n").unwrap();
    assert!(matches!(workspace.apply(&plan), Err(WorkspaceError::Stale(_))));
    let new = workspace.plan_write("new.txt", "ours\n").unwrap();
    fs::write(directory.path().join("new.txt"), "theirs\n").unwrap();
    assert!(matches!(workspace.apply(&new), Err(WorkspaceError::Stale(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "one more\n");
    assert_eq!(fs::read_to_string(directory.path().join("new.txt")).unwrap(), "theirs\n");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "a temporary file was left behind");
    assert!(workspace.changes().is_empty());
}

#[test]
fn a_whole_file_is_replaced_only_after_it_was_read() {
    let (directory, workspace) = workspace(&[("a.txt", "precious\n"), ("empty.txt", "")]);
    let error = workspace.write("a.txt", "gone\n").unwrap_err();
    assert!(error.to_string().contains("read_file"), "{error}");
    assert_eq!(fs::read_to_string(directory.path().join("a.txt")).unwrap(), "precious\n");
    // Edits that fail or succeed without a read do not count as one.
    assert!(workspace.edit("a.txt", &replacement("nothing", "x")).is_err());
    workspace.edit("a.txt", &replacement("pre", "very pre")).unwrap();
    assert!(workspace.write("a.txt", "gone\n").is_err());
    workspace.write("empty.txt", "x\n").unwrap();
    read_text(&workspace, "a.txt");
    workspace.write("a.txt", "new\n").unwrap();
}

#[test]
fn a_read_only_file_is_left_alone() {
    let (directory, workspace) = workspace(&[("a.txt", "one\n")]);
    fs::set_permissions(directory.path().join("a.txt"), fs::Permissions::from_mode(0o444)).unwrap();
    let error = workspace.edit("a.txt", &replacement("one", "1")).unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
}

#[test]
fn undo_restores_bytes_modes_and_directories_but_not_over_others_work() {
    let (directory, workspace) = workspace(&[("a.sh", "echo one\n"), ("b.txt", "b\r\n"), ("c.txt", "c\n")]);
    let at = |path: &str| directory.path().join(path);
    fs::set_permissions(at("a.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    workspace.edit("a.sh", &replacement("one", "two")).unwrap();
    let mark = workspace.mark();
    workspace.edit("a.sh", &replacement("two", "three")).unwrap();
    workspace.edit("b.txt", &replacement("b", "B")).unwrap();
    workspace.edit("c.txt", &replacement("c", "C")).unwrap();
    workspace.write("new/deep/file.txt", "new\n").unwrap();
    fs::write(at("c.txt"), "the user's\n").unwrap();

    let report = workspace.undo_since(mark).unwrap();
    assert_eq!(report.restored, ["a.sh", "b.txt", "new/deep/file.txt"]);
    assert_eq!(report.kept.len(), 1);
    assert_eq!(report.kept[0].0, "c.txt");
    assert_eq!(fs::read_to_string(at("a.sh")).unwrap(), "echo two\n");
    assert_eq!(fs::read(at("b.txt")).unwrap(), b"b\r\n");
    assert_eq!(fs::read_to_string(at("c.txt")).unwrap(), "the user's\n");
    assert!(!at("new").exists());

    let report = workspace.undo_all().unwrap();
    assert_eq!(report.restored, ["a.sh"]);
    assert_eq!(fs::read_to_string(at("a.sh")).unwrap(), "echo one\n");
    assert_eq!(fs::metadata(at("a.sh")).unwrap().permissions().mode() & 0o777, 0o755);
    // The model has to read what it can no longer know.
    assert!(matches!(workspace.write("a.sh", "x"), Err(WorkspaceError::Stale(_))));
}

/// The real git, without the settings of this machine.
pub fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"])
        .args(["-c", "commit.gpgsign=false", "-c", "core.autocrlf=false"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_session_diff_is_what_git_applies() {
    let files = [
        ("a.txt", "one\ntwo\nthree\n"),
        ("crlf.txt", "a\r\nb\r\n"),
        ("no newline.txt", "x\ny"),
        ("cr.txt", "a\rb\nc\n"),
        ("sub/b \"q\".txt", "deep\n"),
        ("long.txt", &"line\n".repeat(100)),
        ("empty.txt", ""),
    ];
    let (copy, _) = workspace(&files);
    let (directory, workspace) = workspace(&files);
    workspace.edit("a.txt", &replacement("two", "2")).unwrap();
    workspace.edit("a.txt", &replacement("three", "3\nfour")).unwrap();
    workspace.edit("crlf.txt", &replacement("b", "b\nc")).unwrap();
    workspace.edit("no newline.txt", &replacement("y", "z")).unwrap();
    workspace.edit("cr.txt", &replacement("\rb", "\rB")).unwrap();
    workspace.edit("sub/b \"q\".txt", &replacement("deep", "deeper")).unwrap();
    workspace.write("new/empty", "").unwrap();
    workspace.write("new/no newline", "x").unwrap();
    workspace.write("new/file.rs", "fn f() {}\n").unwrap();
    workspace.write("empty.txt", "no longer\n").unwrap();
    read_text(&workspace, "long.txt");
    workspace.write("long.txt", &format!("start\n{}end\n", "line\n".repeat(99))).unwrap();
    let diff = workspace.session_diff();
    let patch =
        copy.path().parent().unwrap().join(format!("{}.patch", copy.path().file_name().unwrap().display()));
    fs::write(&patch, &diff).unwrap();
    git(copy.path(), &["apply", "--verbose", patch.to_str().unwrap()]);
    fs::remove_file(&patch).unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    collect(directory.path(), &mut ours);
    collect(copy.path(), &mut theirs);
    let relative = |files: Vec<(PathBuf, Vec<u8>)>, top: &Path| -> Vec<_> {
        files
            .into_iter()
            .map(|(path, bytes)| (path.strip_prefix(top).unwrap().to_path_buf(), bytes))
            .collect()
    };
    assert_eq!(relative(ours, directory.path()), relative(theirs, copy.path()), "{diff}");
    workspace.undo_all().unwrap();
    assert_eq!(workspace.session_diff(), "");
}

// ---- search ----

#[test]
fn search_follows_the_ignore_rules_and_sorts() {
    let (directory, workspace) = workspace(&[
        (".gitignore", "target/\n*.log\n"),
        (".git/config", "needle\n"),
        (".hidden/x.rs", "needle\n"),
        ("target/debug/x.rs", "needle\n"),
        ("a.log", "needle\n"),
        ("src/z.rs", "one\nneedle two\n"),
        ("src/a.rs", "Needle\n"),
        ("src/a/b.rs", "let needle = 1;\nneedle()\n"),
        ("README.md", "none\n"),
    ]);
    fs::write(directory.path().join("binary"), b"needle\0needle").unwrap();
    symlink("/etc", directory.path().join("etc")).unwrap();
    let all = workspace.files(100);
    assert_eq!(
        all,
        [".gitignore", ".hidden/x.rs", "README.md", "binary", "src/a/b.rs", "src/a.rs", "src/z.rs"],
    );
    let listing = workspace.list(".", 100).unwrap();
    assert_eq!(listing.paths, [".gitignore", ".hidden/", "README.md", "binary", "etc@", "src/"]);
    assert_eq!(workspace.list("target/debug/", 100).unwrap().paths, ["x.rs"], "what is named is shown");

    let glob =
        |pattern: &str, path: Option<&str>| workspace.glob(pattern, path, 100, &NOT_CANCELLED).unwrap().paths;
    assert_eq!(glob("*.rs", None), [".hidden/x.rs", "src/a.rs", "src/a/b.rs", "src/z.rs"]);
    assert_eq!(glob("src/*.rs", None), ["src/a.rs", "src/z.rs"]);
    assert_eq!(glob("**/b.{rs,py}", None), ["src/a/b.rs"]);
    assert_eq!(glob("*.rs", Some("src/a")), ["src/a/b.rs"]);
    assert!(workspace.glob("../*", None, 9, &NOT_CANCELLED).is_err());
    assert!(workspace.glob("a[", None, 9, &NOT_CANCELLED).is_err());
    let few = workspace.glob("**/*", None, 3, &NOT_CANCELLED).unwrap();
    assert_eq!((few.paths.len(), few.left_out), (3, 4));

    let grep = |query: GrepQuery| {
        let found = workspace.grep(&query, &NOT_CANCELLED).unwrap();
        let lines: Vec<String> =
            found.matches.iter().map(|m| format!("{}:{}: {}", m.path, m.line, m.text)).collect();
        (lines, found)
    };
    let query = |pattern: &str| GrepQuery { pattern: pattern.into(), limit: 100, ..GrepQuery::default() };
    let (lines, found) = grep(query("needle"));
    assert_eq!(
        lines,
        [
            ".hidden/x.rs:1: needle",
            "src/a/b.rs:1: let needle = 1;",
            "src/a/b.rs:2: needle()",
            "src/z.rs:2: needle two"
        ]
    );
    assert!(!found.more && !found.literal && !found.any_case);
    assert_eq!(
        grep(GrepQuery { path: Some("src/z.rs".into()), ..query("e+dle") }).0,
        ["src/z.rs:2: needle two"]
    );
    assert_eq!(grep(GrepQuery { glob: Some("z.*".into()), ..query("needle") }).0, ["src/z.rs:2: needle two"]);
    let (lines, found) = grep(GrepQuery { limit: 2, ..query("needle") });
    assert!(lines.len() == 2 && found.more);
    let (lines, found) = grep(query("needle("));
    assert!(found.literal && lines == ["src/a/b.rs:2: needle()"], "{lines:?}");
    let (lines, found) = grep(query("NEEDLE t"));
    assert!(found.any_case && lines == ["src/z.rs:2: needle two"], "{lines:?}");
    assert!(
        workspace
            .grep(&GrepQuery { path: Some("etc/passwd".into()), ..query("root") }, &NOT_CANCELLED)
            .is_err()
    );
    assert!(
        workspace.grep(&GrepQuery { path: Some("nowhere".into()), ..query("x") }, &NOT_CANCELLED).is_err()
    );
}

#[test]
fn a_missing_path_names_the_nearest() {
    let (_directory, workspace) =
        workspace(&[("src/food.rs", ""), ("src/parser/mod.rs", ""), ("docs/a.md", "")]);
    let message = |result: Result<(), WorkspaceError>| result.unwrap_err().to_string();
    assert_eq!(
        message(workspace.read("src/foo.rs").map(|_| ())),
        "no file src/foo.rs; did you mean src/food.rs?"
    );
    let edited = workspace.edit("food.rs", &replacement("a", "b")).map(|_| ());
    assert_eq!(message(edited), "no file food.rs; did you mean src/food.rs?");
    assert_eq!(
        message(workspace.list("src/parse", 9).map(|_| ())),
        "no directory src/parse; did you mean src/parser?"
    );
    assert_eq!(message(workspace.read("src").map(|_| ())), "src is a directory; see list_directory");
    assert_eq!(
        message(workspace.read("x/y.py").map(|_| ())),
        "no file x/y.py; look with list_directory or glob"
    );
}

// ---- git ----

#[test]
fn git_shows_status_and_diff_and_runs_nothing() {
    let (directory, workspace) = workspace(&[("a.txt", "one\n"), ("sub/b.txt", "b\n"), ("gone.txt", "x\n")]);
    let root = directory.path();
    assert!(workspace.git_status().unwrap_err().to_string().contains("not in a git repository"));
    git(root, &["init", "-q"]);
    assert!(workspace.git_status().unwrap().starts_with("## no commits yet\n"));
    git(root, &["add", "."]);
    git(root, &["commit", "-qm", "first"]);
    assert_eq!(workspace.git_status().unwrap(), "## main\nnothing changed\n");
    assert_eq!(workspace.git_diff(None).unwrap(), "");

    // Everything in a repository that could run a program, pointed at one that leaves a trace.
    let trace = root.join("trace");
    let script = root.join(".git/evil.sh");
    fs::write(&script, format!("#!/bin/sh\necho ran >> {}\ncat\n", trace.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let script = script.to_str().unwrap();
    for key in [
        "core.fsmonitor",
        "diff.external",
        "diff.evil.textconv",
        "diff.evil.command",
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "core.pager",
        "core.sshCommand",
    ] {
        git(root, &["config", key, script]);
    }
    fs::write(root.join(".git/info/attributes"), "* diff=evil filter=evil\n").unwrap();
    fs::write(root.join("a.txt"), "two\n").unwrap();
    fs::write(root.join("new.txt"), "new\n").unwrap();
    fs::remove_file(root.join("gone.txt")).unwrap();
    assert_eq!(workspace.git_status().unwrap(), "## main\n M a.txt\n D gone.txt\n?? new.txt\n");
    let diff = workspace.git_diff(None).unwrap();
    for part in ["-one\n+two\n", "+++ b/new.txt", "+new\n", "deleted file mode"] {
        assert!(diff.contains(part), "{part:?} is not in {diff}");
    }
    let one = workspace.git_diff(Some("a.txt")).unwrap();
    assert!(one.contains("a.txt") && !one.contains("new.txt"));
    assert!(workspace.git_diff(Some("../x")).is_err());
    assert!(!trace.exists(), "a program of the repository's configuration was run");

    // From a directory of the repository only what lies beneath it is shown.
    fs::write(root.join("sub/b.txt"), "B\n").unwrap();
    let sub = Workspace::open(&root.join("sub"), &[]).unwrap();
    assert_eq!(sub.git_status().unwrap(), "## main\n M b.txt\n");
    let diff = sub.git_diff(None).unwrap();
    assert!(diff.contains("b.txt") && !diff.contains("a.txt"), "{diff}");
}

#[test]
fn a_repository_whose_work_tree_is_elsewhere_is_refused() {
    let (directory, workspace) = workspace(&[("a.txt", "one\n")]);
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("secret.txt"), "secret\n").unwrap();
    git(directory.path(), &["init", "-q"]);
    git(directory.path(), &["config", "core.worktree", elsewhere.path().to_str().unwrap()]);
    assert!(workspace.git_status().is_err());
    assert!(workspace.git_diff(None).is_err());
}

#[test]
fn a_git_directory_that_belongs_to_another_tree_is_not_opened() {
    let top = tempfile::tempdir().unwrap();
    let (own, other) = (top.path().join("own"), top.path().join("other"));
    for (repository, name) in [(&own, "own.txt"), (&other, "secret.txt")] {
        std::fs::create_dir(repository).unwrap();
        std::fs::write(repository.join(name), "x\n").unwrap();
        git(repository, &["init", "-q"]);
        git(repository, &["add", "."]);
        git(repository, &["commit", "-qm", "x"]);
    }
    let diff = |at: &Path| Workspace::open(at, &[]).unwrap().git_diff(None);
    git(&own, &["worktree", "add", "-q", "../linked"]);
    git(&own, &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../other", "sub"]);
    for at in [own.join("sub"), top.path().join("linked")] {
        assert_eq!(diff(&at).unwrap(), "", "{}", at.display());
    }
    let thief = top.path().join("thief");
    std::fs::create_dir(&thief).unwrap();
    for named in ["../other/.git", "../own/.git/worktrees/linked", "../own/.git/modules/sub"] {
        std::fs::write(thief.join(".git"), format!("gitdir: {named}\n")).unwrap();
        assert!(diff(&thief).is_err(), "{named}");
    }
    std::fs::remove_file(thief.join(".git")).unwrap();
    git(&thief, &["init", "-q"]);
    for part in ["objects", "refs"] {
        std::fs::remove_dir_all(thief.join(".git").join(part)).unwrap();
        std::os::unix::fs::symlink(other.join(".git").join(part), thief.join(".git").join(part)).unwrap();
    }
    assert!(diff(&thief).is_err(), "links in .git");
}
