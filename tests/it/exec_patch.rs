//! `qwright exec --patch`: the checkout stays as it is to the byte, and the real `git` applies what is written.

use crate::agent::call;
use crate::exec::{Project, assert_code, err, object, out};
use crate::workspace::git;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Everything beneath a directory: what it is, its mode and its bytes; with `times` also when it was written.
fn everything(top: &Path, times: bool) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![top.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let of = path.symlink_metadata().unwrap();
            let bytes = if of.is_dir() {
                waiting.push(path.clone());
                Vec::new()
            } else if of.is_symlink() {
                std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                std::fs::read(&path).unwrap()
            };
            let time = if times { (of.mtime(), of.mtime_nsec(), of.ino()) } else { (0, 0, 0) };
            let told = format!("{:o} {time:?} {bytes:?}", of.mode());
            all.insert(path.strip_prefix(top).unwrap().to_path_buf(), told);
        }
    }
    all
}

/// A repository with a bit of everything, some of it uncommitted, some of it ignored.
fn checkout() -> Project {
    let project = Project::new();
    let top = project.files.path();
    let write = |name: &str, bytes: &[u8]| {
        let path = top.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    write(".gitignore", b"*.log\nbuild/\n");
    write(".gitattributes", b"*.txt text eol=crlf\n*.dat diff=none\n");
    write("src/main.txt", b"one\r\ntwo\r\nthree");
    write("src/gone.txt", b"to be deleted\n");
    write("src/with space.md", b"old\n");
    write("src/latin", b"caf\xe9\nrest\n");
    write("picture.dat", b"\x00\x01\x02\x03picture");
    write("tool", b"#!/bin/sh\necho tool\n");
    write("kept.log", b"tracked all the same\n");
    symlink("tool", top.join("link")).unwrap();
    git(top, &["init", "-q"]);
    git(top, &["add", "-A"]);
    git(top, &["add", "-f", "kept.log"]);
    git(top, &["commit", "-qm", "first"]);
    write("src/main.txt", b"one\r\ntwo, uncommitted\r\nthree");
    write("untracked.md", b"not added yet\n");
    write("notes.log", b"ignored\n");
    write("build/out", b"built\n");
    project
}

fn run(command: &str) -> Value {
    json!(call("run_shell_command", &[("command", command)]))
}

fn copies(project: &Project) -> Vec<PathBuf> {
    let place = project.home.path().join(".cache/qwright/copies");
    std::fs::read_dir(place).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

const WORK: &str = "cat notes.log build/out && rm src/gone.txt && chmod +x greet.sh && chmod -x tool; chmod 755 tool; \
    printf 'new\\000binary' > new.dat; printf '\\001\\000changed' > picture.dat; printf 'sp\\n' >> 'src/with space.md'; \
    printf 'more\\351\\n' >> src/latin; rm link; ln -s greet.sh link; ln -s nowhere 'src/dangling'; mkdir -p deep/er; \
    printf 'no newline' > deep/er/file; : > empty; echo more >> notes.log; echo more >> kept.log; echo 2 > build/out; \
    echo 'untracked.md' >> .gitignore; echo changed >> untracked.md; printf 'tab' > 'we\tird\"name'; : > src/main.txt.lock; \
    git -c core.pager= status >/dev/null 2>&1; true";

#[test]
fn the_checkout_stays_and_git_applies_the_patch() {
    let project = checkout();
    let top = project.files.path();
    let file = project.home.path().join("work.patch");
    let patch = file.to_str().unwrap();
    let before = everything(top, true);
    let turns = [
        json!(call(
            "edit",
            &[("file_path", "src/main.txt"), ("old_string", "uncommitted"), ("new_string", "changed")]
        )),
        json!(call("write_file", &[("file_path", "src/made.rs"), ("content", "fn main() {}\n")])),
        run(WORK),
        json!("Done."),
    ];
    let output = project.run(&turns, &["-o", "json", "--patch", patch, "Work"]);
    assert_code(&output, 0);
    assert_eq!(everything(top, true), before);
    assert_eq!(copies(&project), Vec::<PathBuf>::new());
    let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
    let result = object(&output);
    assert_eq!(result["patch"]["file"], patch);
    assert!(result["patch"]["files_changed"].as_u64().unwrap() > 10, "{result}");
    for part in
        ["GIT binary patch", "deleted file mode 100644", "new mode 100755", "\\ No newline at end of file"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains("build/out") && !text.contains("notes.log"), "ignored files: {text}");

    // The same work done in place is what the patch comes to.
    let (applied, done) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for copy in [&applied, &done] {
        let status = Command::new("cp").args(["-a", "."]).arg(copy.path()).current_dir(top).status().unwrap();
        assert!(status.success());
    }
    git(applied.path(), &["apply", patch]);
    let output = project.command(&turns, &["-C", done.path().to_str().unwrap(), "Work"]).output().unwrap();
    assert_code(&output, 0);
    let [mut got, mut wanted] = [&applied, &done].map(|copy| everything(copy.path(), false));
    for all in [&mut got, &mut wanted] {
        // Git's own index, and what the patch leaves out.
        all.retain(|path, _| !path.starts_with(".git") || path == Path::new(".gitignore"));
        all.retain(|path, _| !path.ends_with("notes.log") && !path.starts_with("build"));
    }
    assert_eq!(got, wanted);
}

#[test]
fn in_a_part_of_a_repository_the_paths_are_the_repositorys() {
    let project = checkout();
    let top = project.files.path();
    let file = project.home.path().join("work.patch");
    let before = everything(top, true);
    let turns = [run("test -f ../greet.sh && echo made > made"), json!("Done.")];
    let output = project.run(&turns, &["-C", "src", "--patch", file.to_str().unwrap(), "Work"]);
    assert_code(&output, 0);
    assert!(err(&output).contains("work.patch (1 file changed)"), "{}", err(&output));
    assert_eq!(everything(top, true), before);
    git(&top.join("src"), &["apply", file.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(top.join("src/made")).unwrap(), "made\n");
}

#[test]
fn outside_a_repository_too_and_beside_until() {
    let project = Project::new();
    let file = project.home.path().join("work.patch");
    let patch = file.to_str().unwrap();
    let until = ["--until", "grep -q hello greet.sh", "--until-may-edit", "--patch", patch];
    let output = project.run(&[run("echo echo hello > greet.sh"), json!("Done.")], &until);
    assert_code(&output, 0);
    let text = |name: &str| std::fs::read_to_string(project.files.path().join(name)).unwrap();
    assert_eq!(text("greet.sh"), "echo helo\n");
    git(project.files.path(), &["apply", patch]);
    assert_eq!(text("greet.sh"), "echo hello\n");
    // It passes now, and nothing is to be done: the patch says so.
    assert_code(&project.run(&[], &until), 0);
    assert_eq!(std::fs::read(&file).unwrap(), b"");
}

#[test]
fn the_session_belongs_to_the_checkout() {
    let project = checkout();
    let file = project.home.path().join("work.patch");
    let arguments = ["-o", "stream-json", "--patch", file.to_str().unwrap(), "Hello"];
    let output = project.run(&[json!("Hi.")], &arguments);
    assert_code(&output, 0);
    let text = out(&output);
    let init: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let real = project.files.path().canonicalize().unwrap();
    assert_eq!(init["cwd"], real.to_str().unwrap());
    assert_code(&project.run(&[json!("Again.")], &["-c", "And now?"]), 0);
}

#[test]
fn a_patch_that_cannot_be_written_is_refused_before_the_work() {
    let project = checkout();
    // In the last one nobody may make a file, not even root.
    for file in ["no/such/place.patch", ".", "/proc/work.patch"] {
        let output = project.run(&[], &["--patch", file, "Work"]);
        assert_code(&output, 2);
        assert!(err(&output).contains("cannot be written"), "{}", err(&output));
    }
    assert!(copies(&project).is_empty());
}

#[test]
fn a_patch_goes_where_its_name_leads() {
    let project = checkout();
    let at = |name: &str| project.home.path().join(name);
    let work = |file: &Path| {
        let turns = [run("echo made > made"), json!("Done.")];
        assert_code(&project.run(&turns, &["--patch", file.to_str().unwrap(), "Work"]), 0);
    };
    std::fs::create_dir(at("patches")).unwrap();
    symlink("patches/real.patch", at("link.patch")).unwrap();
    // The first time it leads to nothing yet.
    for _ in 0..2 {
        work(&at("link.patch"));
        assert_eq!(std::fs::read_link(at("link.patch")).unwrap(), Path::new("patches/real.patch"));
        let text = std::fs::read_to_string(at("patches/real.patch")).unwrap();
        assert!(text.ends_with("+made\n"), "{text}");
        std::fs::write(at("patches/real.patch"), "of before").unwrap();
    }
    let pipe = at("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::read_to_string(pipe).unwrap()
    });
    work(&pipe);
    assert!(!pipe.symlink_metadata().unwrap().is_file(), "it is a pipe still");
    assert!(reader.join().unwrap().ends_with("+made\n"));
}

#[test]
fn what_a_copy_of_a_linked_work_tree_or_a_submodule_commits_stays_in_it() {
    let project = checkout();
    let top = project.files.path();
    let (linked, inner) = (project.home.path().join("linked"), project.home.path().join("inner"));
    git(top, &["worktree", "add", "-q", "-b", "side", linked.to_str().unwrap()]);
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(inner.join("greet.sh"), "echo helo\n").unwrap();
    git(&inner, &["init", "-q"]);
    git(&inner, &["add", "-A"]);
    git(&inner, &["commit", "-qm", "first"]);
    let from = inner.to_str().unwrap();
    git(top, &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", from, "sub"]);
    let work = "echo more >> kept.log && git add -f kept.log greet.sh && \
        git -c user.name=t -c user.email=t@example.org commit -qm inside && \
        test \"$(git log -1 --format=%s) $(git rev-parse --show-toplevel)\" = \"inside $(pwd -P)\" && \
        echo fine > fine";
    for tree in [linked, top.join("sub")] {
        let state = || {
            let refs = git(&tree, &["for-each-ref"]);
            [refs, git(&tree, &["rev-parse", "HEAD"]), git(&tree, &["status", "--porcelain"])]
        };
        let (before, files) = (state(), everything(&tree, true));
        let file = project.home.path().join("work.patch");
        let arguments = ["-y", "-C", tree.to_str().unwrap(), "--patch", file.to_str().unwrap(), "Work"];
        assert_code(&project.run(&[run(work), json!("Done.")], &arguments), 0);
        assert_eq!(everything(&tree, true), files);
        assert_eq!(state(), before);
        let patch = std::fs::read_to_string(&file).unwrap();
        // Tracked, though it is ignored.
        for part in ["+fine\n", "b/kept.log", "+more\n"] {
            assert!(patch.contains(part), "{part} is not in {patch}");
        }
        git(&tree, &["apply", "--check", file.to_str().unwrap()]);
    }
}

#[test]
fn an_interrupt_leaves_no_copy_and_the_patch_so_far() {
    let project = checkout();
    let file = project.home.path().join("work.patch");
    let before = everything(project.files.path(), true);
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::KILL] {
        let killed = signal == rustix::process::Signal::KILL;
        let turns =
            [run("mkdir locked && echo made > locked/made && chmod 555 locked"), json!({"hang": true})];
        let mut child =
            project.command(&turns, &["--patch", file.to_str().unwrap(), "Work"]).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let (mut seen, mut bytes) = (String::new(), [0; 1024]);
        while !seen.contains("exit code 0") {
            let count = stderr.read(&mut bytes).unwrap();
            assert!(count > 0, "it ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        let code = child.wait().unwrap().code();
        assert_eq!(code, (!killed).then_some(130));
        assert_eq!(copies(&project).len(), usize::from(killed), "a killed one leaves its copy");
        if !killed {
            assert!(std::fs::read_to_string(&file).unwrap().contains("+made"));
        }
        assert_eq!(everything(project.files.path(), true), before);
    }
    // The next one removes what was left.
    assert_code(&project.run(&[json!("Hi.")], &["--patch", file.to_str().unwrap(), "Hi"]), 0);
    assert!(copies(&project).is_empty());
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}

#[test]
fn ten_runs_at_once_in_one_repository_do_not_disturb_each_other() {
    let project = checkout();
    let top = project.files.path();
    let at = |name: String| project.home.path().join(name);
    let children: Vec<_> = (0..10)
        .map(|n| {
            let (own, content) = (format!("own-{n}.txt"), format!("of run {n}\n"));
            let turns = json!([
                call("write_file", &[("file_path", &own), ("content", &content)]),
                call("run_shell_command", &[("command", &format!("sleep 0.3; cat {own} >> {own}.twice"))]),
                format!("Done {n}."),
            ]);
            let script = at(format!("script-{n}.json"));
            std::fs::write(&script, turns.to_string()).unwrap();
            let patch = at(format!("{n}.patch")).display().to_string();
            let kept_apart: &[&str] = if n % 2 == 1 { &["--patch", &patch] } else { &[] };
            let arguments = [kept_apart, &["-o", "json", "Work"]].concat();
            project.command_of(&script, &arguments).spawn().unwrap()
        })
        .collect();
    let mut ids = Vec::new();
    for (n, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        assert_code(&output, 0);
        let result = object(&output);
        assert_eq!(result["result"], format!("Done {n}."));
        let own = [format!("own-{n}.txt"), format!("own-{n}.txt.twice")];
        let made = if n % 2 == 1 {
            own.iter().for_each(|name| assert!(!top.join(name).exists(), "{name} belongs to the copy"));
            String::from_utf8(std::fs::read(at(format!("{n}.patch"))).unwrap()).unwrap()
        } else {
            own.iter().map(|name| std::fs::read_to_string(top.join(name)).unwrap()).collect()
        };
        assert_eq!(made.matches(&format!("of run {n}")).count(), 2, "{made}");
        if n % 2 == 1 {
            assert!((0..10).all(|other| other == n || !made.contains(&format!("of run {other}"))), "{made}");
        }
        ids.push(result["session_id"].as_str().unwrap().to_string());
    }
    assert_eq!(copies(&project), Vec::<PathBuf>::new());
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 10);
    // Each log is whole, and nobody holds it: it can be gone on with.
    for id in &ids {
        let output = project.run(&[json!("Again.")], &["-o", "json", "-r", id, "And now?"]);
        assert_code(&output, 0);
        assert!(err(&output).find("damaged").is_none(), "{}", err(&output));
        assert_eq!(object(&output)["session_id"], **id);
    }
}
