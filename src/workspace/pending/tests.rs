//! A change of several files that is stopped at each of its steps in turn: the disk fails once, or nothing happens any
//! more, as after a kill.

use super::*;
use crate::workspace::faults::Injected;
use crate::workspace::patch::Form;
use crate::workspace::{Change, Edit, Plan};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

/// An edit, a new file in new directories, a removal, a rename with an edit, and a mode.
const PATCH: &str = "\
diff --git a/edited b/edited
--- a/edited
+++ b/edited
@@ -1,2 +1,2 @@
-one
+ONE
 two
diff --git a/new/deep/made b/new/deep/made
new file mode 100644
--- /dev/null
+++ b/new/deep/made
@@ -0,0 +1 @@
+made
diff --git a/removed b/removed
deleted file mode 100644
--- a/removed
+++ /dev/null
@@ -1 +0,0 @@
-removed
diff --git a/from.sh b/moved/to.sh
similarity index 50%
rename from from.sh
rename to moved/to.sh
--- a/from.sh
+++ b/moved/to.sh
@@ -1,2 +1,2 @@
-echo old
+echo new
 exit
diff --git a/runs b/runs
old mode 100644
new mode 100755
";

/// Every file with its mode and bytes; directories have no bytes.
type Tree = BTreeMap<PathBuf, (u32, Option<Vec<u8>>)>;

struct Scene {
    root: TempDir,
    state: TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { root: tempfile::tempdir().unwrap(), state: tempfile::tempdir().unwrap() };
        for (name, text, mode) in [
            ("edited", "one\ntwo\n", 0o640),
            ("removed", "removed\n", 0o600),
            ("from.sh", "echo old\nexit\n", 0o755),
            ("runs", "runs\n", 0o644),
        ] {
            fs::write(scene.at(name), text).unwrap();
            fs::set_permissions(scene.at(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn open(&self) -> (Workspace, Recovery) {
        let mut workspace = Workspace::open(self.root.path(), &[]).unwrap();
        let recovery = workspace.use_state(self.state.path());
        (workspace, recovery)
    }

    fn tree(&self) -> Tree {
        fn walk(root: &Path, folder: &Path, tree: &mut Tree) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let mode = path.symlink_metadata().unwrap().permissions().mode() & 0o7777;
                let bytes = (!path.is_dir()).then(|| fs::read(&path).unwrap());
                tree.insert(path.strip_prefix(root).unwrap().into(), (mode, bytes));
                if path.is_dir() {
                    walk(root, &path, tree);
                }
            }
        }
        let mut tree = Tree::new();
        walk(self.root.path(), self.root.path(), &mut tree);
        tree
    }

    fn records(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.state.path().join(DIRECTORY)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Applies the patch, and everything stops when `at` steps are done.
    fn stopped_at(at: usize) -> Self {
        let scene = Self::new();
        let (workspace, _) = scene.open();
        let plans = plan(&workspace);
        let _fault = Injected::from_then_on(at, Errno::IO);
        let _ = workspace.apply_all(&plans);
        scene
    }

    /// Stopped when `holds` does for the first time.
    fn stopped_when(holds: impl Fn(&Self) -> bool) -> Self {
        (0..200).map(Self::stopped_at).find(holds).unwrap()
    }

    /// `edited` is new, and the rest is not.
    fn begun() -> Self {
        Self::stopped_when(|scene| fs::read(scene.at("edited")).unwrap().starts_with(b"ONE"))
    }
}

fn plan(workspace: &Workspace) -> Vec<Plan> {
    workspace.plan_change(&Change::Patch(Form::UnifiedDiff, PATCH.into())).unwrap()
}

fn both_sides() -> (Tree, Tree) {
    let scene = Scene::new();
    let before = scene.tree();
    let (workspace, recovery) = scene.open();
    workspace.apply_all(&plan(&workspace)).unwrap();
    assert_eq!(recovery, Recovery::default());
    assert!(scene.records().is_empty());
    (before, scene.tree())
}

fn errno(at: usize) -> Errno {
    if at.is_multiple_of(2) { Errno::NOSPC } else { Errno::IO }
}

#[test]
fn a_disk_that_fails_once_costs_all_of_a_change_or_nothing() {
    let (before, after) = both_sides();
    let mut failed = 0;
    for at in 0.. {
        let scene = Scene::new();
        let (workspace, _) = scene.open();
        let plans = plan(&workspace);
        let fault = Injected::once(at, errno(at));
        let done = workspace.apply_all(&plans);
        let met = fault.was_met();
        drop(fault);
        if let Err(error) = &done {
            failed += 1;
            assert_eq!(scene.tree(), before, "step {at}: {error}");
            let words =
                ["the disk is full", "No space left", "the disk reports an error", "Input/output error"];
            assert!(words.iter().any(|word| error.to_string().contains(word)), "step {at}: {error}");
            workspace.apply_all(&plan(&workspace)).unwrap();
        }
        assert_eq!(scene.tree(), after, "step {at}");
        assert_eq!(scene.open().1, Recovery::default(), "step {at}");
        assert!(scene.records().is_empty(), "step {at}: {:?}", scene.records());
        if !met {
            assert!(done.is_ok() && failed > 20, "{failed} of {at} steps failed");
            break;
        }
    }
}

#[test]
fn what_is_stopped_at_any_step_is_whole_or_gone_after_the_next_start() {
    let (before, after) = both_sides();
    let (mut torn, mut steps) = (0, 0);
    for at in 0.. {
        let scene = Scene::new();
        let (workspace, _) = scene.open();
        let plans = plan(&workspace);
        let fault = Injected::from_then_on(at, errno(at));
        let done = workspace.apply_all(&plans);
        let met = fault.was_met();
        drop((fault, workspace));
        let left = scene.tree();
        let (again, recovery) = scene.open();
        let now = scene.tree();
        assert!(
            now == before || now == after,
            "step {at}: {done:?} left {left:?}, then {now:?}: {recovery:?}"
        );
        assert!(recovery.kept.is_empty() && recovery.notes.is_empty(), "step {at}: {recovery:?}");
        assert!(scene.records().is_empty(), "step {at}: {:?}", scene.records());
        if done.is_ok() {
            assert_eq!(now, after, "step {at}");
        }
        torn += usize::from(left != before && left != after);
        if now == before {
            again.apply_all(&plan(&again)).unwrap();
            assert_eq!(scene.tree(), after, "step {at}");
        }
        if !met {
            steps = at;
            break;
        }
    }
    assert!(torn > 20, "only {torn} of {steps} steps left something to do");
}

#[test]
fn an_undo_that_is_stopped_is_whole_or_not_done() {
    // Directories that are left empty at the very end stay; no file is in them.
    let files = |mut tree: Tree| {
        tree.retain(|_, (_, bytes)| bytes.is_some());
        tree
    };
    let (before, after) = both_sides();
    let (before, after) = (files(before), files(after));
    let mut torn = 0;
    for at in 0.. {
        let scene = Scene::new();
        let (workspace, _) = scene.open();
        let mark = workspace.mark();
        workspace.apply_all(&plan(&workspace)).unwrap();
        let fault = Injected::from_then_on(at, errno(at));
        workspace.undo_since(mark).unwrap();
        let met = fault.was_met();
        drop((fault, workspace));
        let left = files(scene.tree());
        torn += usize::from(left != before && left != after);
        let (_, recovery) = scene.open();
        let now = files(scene.tree());
        assert!(now == before || now == after, "step {at}: {left:?}, then {now:?}: {recovery:?}");
        assert!(scene.records().is_empty(), "step {at}: {:?}", scene.records());
        if !met {
            assert_eq!(now, before);
            break;
        }
    }
    assert!(torn > 10, "{torn}");
}

#[test]
fn what_somebody_changed_since_is_theirs() {
    let (before, _) = both_sides();
    let scene = Scene::begun();
    fs::write(scene.at("edited"), "theirs\n").unwrap();
    let (_, recovery) = scene.open();
    let names: Vec<&str> = recovery.kept.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(names, ["edited"]);
    assert!(recovery.lines()[0].starts_with("edited stays as it is"), "{:?}", recovery.lines());
    let mut expected = before;
    expected.insert("edited".into(), (0o640, Some(b"theirs\n".to_vec())));
    assert_eq!(scene.tree(), expected);
    assert_eq!(scene.open().1, Recovery::default(), "it is said once");
}

#[test]
fn what_was_taken_back_is_named() {
    let (before, _) = both_sides();
    let scene = Scene::stopped_when(|scene| !scene.at("removed").exists());
    let (_, recovery) = scene.open();
    assert_eq!(scene.tree(), before);
    assert_eq!(recovery.restored, ["edited", "moved/to.sh", "new/deep/made", "removed", "runs"]);
    assert_eq!(
        recovery.lines(),
        ["a change that was cut off was taken back: edited, moved/to.sh, new/deep/made, removed, runs"]
    );
}

#[test]
fn a_damaged_record_is_set_aside_and_not_used() {
    let scene = Scene::begun();
    let left = scene.tree();
    let record = scene.records().into_iter().find(|path| path.to_string_lossy().ends_with(RECORD)).unwrap();
    assert_eq!(fs::metadata(&record).unwrap().permissions().mode() & 0o777, 0o600);
    let mut bytes = fs::read(&record).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&record, bytes).unwrap();
    let (_, recovery) = scene.open();
    assert_eq!(scene.tree(), left);
    let aside = format!("{}{DAMAGED}", record.display());
    assert!(recovery.notes[0].contains(&aside), "{recovery:?}");
    assert_eq!(scene.records(), [PathBuf::from(aside)]);
    assert_eq!(scene.open().1, Recovery::default(), "it is said once");
}

#[test]
fn a_change_that_is_being_made_is_left_to_whoever_makes_it() {
    let scene = Scene::new();
    let before = scene.tree();
    let (living, _) = scene.open();
    let plans = plan(&living);
    let begun = living.begin(|| plans.iter().map(Plan::part).collect()).unwrap().unwrap();
    living.apply(&plans[0]).unwrap();
    let half = scene.tree();
    assert_ne!(half, before);
    let (_, recovery) = scene.open();
    assert!(recovery.restored.is_empty() && recovery.notes[0].contains("another process"), "{recovery:?}");
    assert_eq!(scene.tree(), half);
    // Its death lets go of the lock.
    drop(begun);
    assert_eq!(scene.open().1.restored, ["edited"]);
    assert_eq!(scene.tree(), before);
}

#[test]
fn a_record_is_for_its_own_directory_and_those_that_hold_it() {
    let outer = tempfile::tempdir().unwrap();
    let mut scene = Scene::begun();
    let left = scene.tree();
    // Another workspace with the same state directory.
    let mut other = Workspace::open(outer.path(), &[]).unwrap();
    assert_eq!(other.use_state(scene.state.path()), Recovery::default());
    assert_eq!(scene.tree(), left);
    assert_eq!(scene.records().len(), 1);
    let mut above = Workspace::open(scene.root.path().parent().unwrap(), &[]).unwrap();
    let recovery = above.use_state(scene.state.path());
    let edited = fs::canonicalize(scene.at("edited")).unwrap();
    assert_eq!(recovery.restored, [edited.to_string_lossy()]);
    // A directory that is gone leaves nothing to do.
    scene = Scene::begun();
    let (root, state) = (scene.root, scene.state);
    let mut above = Workspace::open(root.path().parent().unwrap(), &[]).unwrap();
    drop(root);
    assert_eq!(above.use_state(state.path()), Recovery::default());
    assert_eq!(fs::read_dir(state.path().join(DIRECTORY)).unwrap().count(), 0);
}

#[test]
fn one_file_needs_no_record_and_no_tool_writes_where_they_lie() {
    let scene = Scene::new();
    let mut workspace = Workspace::open(scene.root.path(), &[]).unwrap();
    let state = scene.at(".state");
    assert_eq!(workspace.use_state(&state), Recovery::default());
    let edit = Edit { old_string: "one".into(), new_string: "1".into(), ..Edit::default() };
    workspace.edit("edited", &edit).unwrap();
    assert!(!state.exists());
    for path in [".state/pending/0.change", ".state/sessions/x.jsonl", ".state"] {
        assert!(matches!(workspace.write(path, "x"), Err(WorkspaceError::Refused(_))), "{path}");
    }
}

#[test]
fn without_a_state_directory_that_can_be_written_changes_are_made_all_the_same() {
    let (_, after) = both_sides();
    let scene = Scene::new();
    let mut workspace = Workspace::open(scene.root.path(), &[]).unwrap();
    let file = scene.state.path().join("file");
    fs::write(&file, "").unwrap();
    let recovery = workspace.use_state(&file);
    assert!(recovery.lines().is_empty() && recovery.unavailable.unwrap().contains("file/pending"));
    workspace.apply_all(&plan(&workspace)).unwrap();
    assert_eq!(scene.tree(), after);
}
