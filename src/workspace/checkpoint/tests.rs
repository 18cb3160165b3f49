//! Checkpoints around what a closure does in place of a command: what is covered, what is not, and how little is kept.

use super::*;
use crate::workspace::UndoReport;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

struct Project {
    files: tempfile::TempDir,
    store: tempfile::TempDir,
    workspace: Workspace,
}

impl Project {
    fn new(files: &[(&str, &str)]) -> Self {
        Self::within(files, LIMIT)
    }

    fn within(files: &[(&str, &str)], limit: u64) -> Self {
        let (directory, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let workspace = Workspace::open(directory.path(), &[]).unwrap();
        workspace.keep_checkpoints_within(store.path(), None, limit);
        let place = Self { files: directory, store, workspace };
        for (path, text) in files {
            place.write(path, text);
        }
        place
    }

    fn at(&self, path: &str) -> PathBuf {
        self.files.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    /// What a command would do.
    fn does(&self, what: impl FnOnce()) {
        let before = self.workspace.checkpoint_before(&AtomicBool::new(false));
        what();
        self.workspace.record_since(before, By::Command);
    }

    fn undo(&self) -> UndoReport {
        self.workspace.undo_all().unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn bytes_modes_links_and_directories_come_back() {
    let place = Project::new(&[("a", "a\r\n"), ("b", "b"), ("d/e/f", "f"), ("run", "#!"), ("file", "file")]);
    let odd = place.files.path().join(std::ffi::OsString::from_vec(b"odd \xff".to_vec()));
    fs::write(&odd, b"\xff\0").unwrap();
    symlink("d/e", place.at("link")).unwrap();
    fs::create_dir_all(place.at("void/inner")).unwrap();
    chmod(&place.at("void"), 0o750);
    place.does(|| {
        fs::write(place.at("a"), "other").unwrap();
        fs::remove_file(place.at("b")).unwrap();
        fs::remove_file(&odd).unwrap();
        chmod(&place.at("run"), 0o755);
        fs::rename(place.at("d"), place.at("moved")).unwrap();
        fs::remove_file(place.at("link")).unwrap();
        symlink("elsewhere", place.at("link")).unwrap();
        fs::remove_dir_all(place.at("void")).unwrap();
        fs::write(place.at("void"), "a file now").unwrap();
        fs::remove_file(place.at("file")).unwrap();
        fs::create_dir_all(place.at("file/with/more")).unwrap();
        fs::write(place.at("file/with/more/x"), "x").unwrap();
        fs::create_dir(place.at("empty")).unwrap();
    });
    let diff = place.workspace.session_diff();
    for part in
        ["old mode 100644\nnew mode 100755", "-d/e", "+elsewhere", "deleted file mode", "+++ b/moved/e/f"]
    {
        assert!(diff.contains(part), "{part}: {diff}");
    }
    let report = place.undo();
    assert!(report.kept.is_empty(), "{report:?}");
    assert_eq!(report.outside, Vec::<String>::new());
    assert!(report.restored.contains(&"empty/".to_string()), "{report:?}");
    assert!(report.restored.contains(&"void/inner/".to_string()), "{report:?}");
    for (path, text) in [("a", "a\r\n"), ("b", "b"), ("d/e/f", "f"), ("run", "#!"), ("file", "file")] {
        assert_eq!(place.text(path), text);
    }
    assert_eq!(fs::read(&odd).unwrap(), b"\xff\0");
    assert_eq!(fs::read_link(place.at("link")).unwrap(), Path::new("d/e"));
    assert_eq!((mode(&place.at("run")), mode(&place.at("void"))), (0o644, 0o750));
    assert!(place.at("void/inner").is_dir());
    assert!(!place.at("moved").exists() && !place.at("empty").exists());
    assert_eq!(place.workspace.session_diff(), "");
}

#[test]
fn what_someone_else_changed_is_kept_and_named() {
    let place = Project::new(&[("a", "a"), ("b", "b"), ("c", "c")]);
    place.does(|| {
        place.write("a", "command");
        place.write("b", "command");
        place.write("made", "command");
        place.write("new/one", "command");
        fs::remove_file(place.at("c")).unwrap();
    });
    place.write("a", "the user's");
    place.write("made", "the user's");
    place.write("new/two", "the user's");
    place.write("c", "the user's");
    let report = place.undo();
    assert_eq!(report.restored, ["b", "new/one"]);
    let kept: Vec<&str> = report.kept.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(kept, ["a", "c", "made"]);
    for path in ["a", "made", "new/two", "c"] {
        assert_eq!(place.text(path), "the user's");
    }
    // What the user did between two commands is no command's work.
    assert_eq!(place.text("b"), "b");
    place.does(|| place.write("b", "command"));
    place.write("d", "the user's");
    place.does(|| place.write("e", "command"));
    assert_eq!(place.workspace.changes().iter().filter(|change| change.path == "d").count(), 0);
}

#[test]
fn a_change_that_hides_from_times_is_seen() {
    let place = Project::new(&[("a", "one")]);
    place.does(|| {});
    let of = fs::metadata(place.at("a")).unwrap();
    place.does(|| {
        place.write("a", "two");
        let file = fs::File::open(place.at("a")).unwrap();
        file.set_modified(of.modified().unwrap()).unwrap();
    });
    assert_eq!(place.undo().restored, ["a"]);
    assert_eq!(place.text("a"), "one");
}

#[test]
fn nothing_that_was_there_before_is_taken_for_a_commands_work() {
    let place =
        Project::new(&[(".gitignore", "secret\nkeys/\n"), ("a", "a"), ("secret", "s"), ("keys/k", "k")]);
    // So old that no clock's slack matters.
    std::thread::sleep(std::time::Duration::from_millis(120));
    place.does(|| {
        fs::rename(place.at("secret"), place.at("secret.txt")).unwrap();
        fs::rename(place.at("keys"), place.at("keyring")).unwrap();
        place.write("made", "made");
    });
    let report = place.undo();
    assert_eq!(report.restored, ["made"]);
    assert_eq!((place.text("secret.txt").as_str(), place.text("keyring/k").as_str()), ("s", "k"));
    let outside = report.outside.join("\n");
    for part in ["keys (removed)", "secret (removed)", "keyring/k", "secret.txt"] {
        assert!(outside.contains(part), "{part}: {outside}");
    }
    // Over a file that is covered: the one that came is the only one of its kind.
    place.write("secret", "t");
    std::thread::sleep(std::time::Duration::from_millis(120));
    place.does(|| fs::rename(place.at("secret"), place.at("a")).unwrap());
    let report = place.undo();
    assert_eq!((report.kept.len(), place.text("a").as_str()), (1, "t"), "{report:?}");
}

#[test]
fn a_change_of_the_rules_takes_nothing_in_or_out() {
    let place = Project::new(&[(".gitignore", "secret\n"), ("src/a", "a"), ("secret", "s")]);
    std::thread::sleep(std::time::Duration::from_millis(120));
    place.does(|| {
        place.write(".gitignore", "src/\n");
        place.write("src/a", "changed");
        place.write("src/CACHEDIR.TAG", "");
        place.write("secret", "s and more");
    });
    let report = place.undo();
    assert_eq!((place.text("src/a").as_str(), place.text(".gitignore").as_str()), ("a", "secret\n"));
    assert_eq!(place.text("secret"), "s and more");
    assert!(report.outside.iter().any(|line| line.contains("secret")), "{report:?}");
}

#[test]
fn what_is_not_covered_is_named_in_a_line_per_kind() {
    let place =
        Project::new(&[(".gitignore", "out/\n"), ("out/old", "o"), (".git/HEAD", "ref: x"), ("big", "b")]);
    let large = |path: &str| fs::File::create(place.at(path)).unwrap().set_len(scan::MOST_BYTES + 1).unwrap();
    large("huge");
    place.does(|| {
        place.write("out/deep/new", "n");
        place.write("out/old", "p");
        place.write(".git/HEAD", "ref: y");
        place.write("node_modules/x/y", "z");
        large("other huge");
        fs::OpenOptions::new().append(true).open(place.at("huge")).unwrap().set_len(1).unwrap();
        large("big");
    });
    let report = place.undo();
    let line = |kind: &str| {
        let lines: Vec<&String> = report.outside.iter().filter(|line| line.starts_with(kind)).collect();
        assert_eq!(lines.len(), 1, "{kind}: {:?}", report.outside);
        lines[0].clone()
    };
    assert_eq!(line("ignored files"), "ignored files: 1 under node_modules/, 2 under out/");
    assert_eq!(line("git's own files"), "git's own files: .git/HEAD");
    let not_kept = line("not kept");
    assert!(not_kept.contains("huge (it is larger") && not_kept.contains("other huge"), "{not_kept}");
    // What it was is known, however large it became.
    assert_eq!((report.restored, place.text("big").as_str()), (vec!["big".to_string()], "b"));
    assert!(place.undo().outside.is_empty(), "it is told once");
}

#[test]
fn tracked_files_are_covered_whatever_the_rules_say() {
    let place = Project::new(&[(".gitignore", "*.bin\n"), ("kept.bin", "1"), ("free.bin", "2")]);
    let repository = git2::Repository::init(place.files.path()).unwrap();
    let mut index = repository.index().unwrap();
    index.add_path(Path::new("kept.bin")).unwrap();
    index.write().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(120));
    place.does(|| {
        place.write("kept.bin", "x");
        place.write("free.bin", "x");
    });
    let report = place.undo();
    assert_eq!((place.text("kept.bin").as_str(), place.text("free.bin").as_str()), ("1", "x"));
    assert_eq!(report.outside, ["ignored files: free.bin"]);
}

#[test]
fn a_check_leaves_its_build_when_a_write_is_taken_back() {
    let place = Project::new(&[("a", "one")]);
    let mark = place.workspace.mark();
    place.workspace.read("a").unwrap();
    place.workspace.write("a", "two").unwrap();
    place.workspace.write("src/new", "n").unwrap();
    place.does(|| place.write("built", "from two"));
    let report = place.workspace.undo_writes_since(mark).unwrap();
    assert_eq!(report.restored, ["a", "src/new"]);
    assert_eq!((place.text("a").as_str(), place.text("built").as_str()), ("one", "from two"));
    assert!(!place.at("src").exists());
    assert_eq!(place.workspace.undo_since(mark).unwrap().restored, ["built"]);
    // A version that a formatter went over is no longer what was written: it stays, as before.
    place.workspace.read("a").unwrap();
    place.workspace.write("a", "three").unwrap();
    place.does(|| place.write("a", "THREE"));
    let mark_of_all = place.workspace.undo_writes_since(mark).unwrap();
    assert_eq!((mark_of_all.kept.len(), place.text("a").as_str()), (1, "THREE"));
    assert_eq!(place.workspace.undo_since(mark).unwrap().restored, ["a"]);
    assert_eq!(place.text("a"), "one");
}

#[test]
fn our_own_state_is_not_covered() {
    let place = Project::new(&[("a", "a")]);
    let state = place.at("state");
    place.write("state/sessions/log", "1");
    place.workspace.keep_checkpoints(&state.join("checkpoints"), Some(&state));
    place.does(|| place.write("state/sessions/log", "2"));
    assert_eq!(place.undo(), UndoReport::default());
    assert_eq!(place.text("state/sessions/log"), "2");
}

#[test]
fn a_store_that_is_full_says_so_and_makes_room() {
    let place = Project::within(&[("small", "s"), ("large", &"l".repeat(3000))], 2000);
    place.does(|| {
        place.write("small", "t");
        place.write("large", "gone");
    });
    let report = place.undo();
    assert_eq!(report.restored, ["small"]);
    assert_eq!(report.outside, ["not kept: large (there is no room for it in the store of checkpoints)"]);
    // What is written over and over is not kept for ever, and what undo needs is.
    place.write("large", "small");
    for turn in 0..40 {
        let text = format!("{turn:0>100}");
        place.does(|| place.write("small", &text));
        place.workspace.undo_all().unwrap();
        place.write("small", &text);
    }
    let mark = place.workspace.mark();
    for turn in 0..10 {
        place.does(|| place.write("small", &format!("{turn:1>100}")));
    }
    assert_eq!(place.workspace.undo_since(mark).unwrap().restored, ["small"]);
    assert_eq!(place.text("small"), format!("{:0>100}", 39));
    assert_eq!(fs::read_dir(place.store.path()).unwrap().count(), 0);
}

#[test]
fn links_lead_undo_nowhere() {
    let place = Project::new(&[("d/a", "a")]);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("a"), "theirs").unwrap();
    place.does(|| {
        fs::remove_dir_all(place.at("d")).unwrap();
        symlink(outside.path(), place.at("d")).unwrap();
    });
    assert_eq!(place.undo().restored, ["d", "d/a"]);
    assert_eq!(place.text("d/a"), "a");
    place.does(|| place.write("d/a", "b"));
    fs::remove_dir_all(place.at("d")).unwrap();
    symlink(outside.path(), place.at("d")).unwrap();
    assert_eq!(place.undo().kept.len(), 1);
    assert_eq!(fs::read_to_string(outside.path().join("a")).unwrap(), "theirs");
}
