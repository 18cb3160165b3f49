//! Changes of several files under kill -9: a child makes one after the other and is killed at a random moment, again and
//! again; after the next start all files must be of one generation, and nothing of the change that was cut off may stay.
//!
//!     cargo run --release --example kills -- 100 [SEED]

use qwright::workspace::diff::{Sides, unified_with_mode};
use qwright::workspace::patch::Form;
use qwright::workspace::{Change, Workspace};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Kills come within so many microseconds of a start.
const WITHIN: u64 = 30_000;

/// Text, and whether it is executable.
type Tree = BTreeMap<String, (String, bool)>;

fn renamed(generation: u64) -> (String, String) {
    let side = if generation.is_multiple_of(2) { "left" } else { "right" };
    (format!("{side}/name.txt"), format!("name of generation {generation}\n"))
}

/// All files of a generation: from one to the next some are changed, one is made, one removed, one renamed, and one has
/// its mode changed.
fn files(generation: u64) -> Tree {
    let filler: String = (0..200).map(|line| format!("line {line}\n")).collect();
    let mut tree = Tree::new();
    for part in 0..6 {
        let text = format!("{generation}\npart {part}\n{filler}end of {generation}\n");
        tree.insert(format!("src/part{part}.txt"), (text, false));
    }
    tree.insert("run.sh".into(), (format!("echo {generation}\n"), generation.is_multiple_of(2)));
    tree.insert(format!("extra/deep/{}.txt", generation % 3), (format!("extra {generation}\n"), false));
    let (name, text) = renamed(generation);
    tree.insert(name, (text, false));
    tree
}

/// From a generation to the one after it.
fn patch(generation: u64) -> String {
    let ((from, old), (to, new)) = (renamed(generation), renamed(generation + 1));
    let mut patch = format!(
        "diff --git a/{from} b/{to}\nsimilarity index 50%\nrename from {from}\nrename to {to}\n--- a/{from}\n+++ b/{to}\n\
         @@ -1 +1 @@\n-{old}+{new}"
    );
    let (before, after) = (files(generation), files(generation + 1));
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for path in paths.into_iter().filter(|path| **path != from && **path != to) {
        let mode = |tree: &Tree| tree.get(path).map_or(0o644, |(_, runs)| if *runs { 0o755 } else { 0o644 });
        let side = |tree: &Tree| tree.get(path).map(|(text, _)| text.clone().into_bytes());
        let (old, new) = (side(&before), side(&after));
        let sides = Sides { before: old.as_deref(), after: new.as_deref(), mode: mode(&before) };
        patch.push_str(&unified_with_mode(path, sides, mode(&after)));
    }
    patch
}

fn tree(root: &Path, folder: &Path, found: &mut Tree) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            tree(root, &path, found)?;
            continue;
        }
        let runs = path.metadata()?.permissions().mode() & 0o111 != 0;
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        found.insert(name, (fs::read_to_string(&path)?, runs));
    }
    Ok(())
}

fn read(root: &Path) -> std::io::Result<Tree> {
    let mut found = Tree::new();
    tree(root, root, &mut found)?;
    Ok(found)
}

/// The generation of all files, if they are of one.
fn generation(tree: &Tree) -> Option<u64> {
    let generation = tree.get("src/part0.txt")?.0.lines().next()?.parse().ok()?;
    (*tree == files(generation)).then_some(generation)
}

/// One change after the other, until somebody kills us.
fn change(root: &Path, state: &Path) -> Result<(), Box<dyn Error>> {
    let mut workspace = Workspace::open(root, &[])?;
    workspace.use_state(state);
    let mut now = generation(&read(root)?).ok_or("the files are not of one generation")?;
    loop {
        let plans = workspace.plan_change(&Change::Patch(Form::UnifiedDiff, patch(now)))?;
        workspace.apply_all(&plans)?;
        now += 1;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, root, state] = &args[..]
        && mode == "change"
    {
        return change(Path::new(root), Path::new(state));
    }
    let rounds: u32 = args.first().map_or(Ok(100), |n| n.parse())?;
    let mut dice: u64 = args.get(1).map_or(Ok(1), |seed| seed.parse())?;
    let (root, state) = (tempfile::tempdir()?, tempfile::tempdir()?);
    for (name, (text, runs)) in files(0) {
        let path = root.path().join(name);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(if runs { 0o755 } else { 0o644 }))?;
    }
    let (mut torn, mut half, mut rolled_back) = (0, 0, 0);
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["change".as_ref(), root.path().as_os_str(), state.path().as_os_str()])
            .stderr(Stdio::null())
            .spawn()?;
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros((dice >> 33) % WITHIN));
        child.kill()?;
        child.wait()?;
        let mut left = read(root.path())?;
        left.retain(|name, _| !name.contains(".qwright-"));
        half += u32::from(generation(&left).is_none());
        let recovery = Workspace::open(root.path(), &[])?.use_state(state.path());
        rolled_back += u32::from(!recovery.restored.is_empty());
        // A temporary file that stayed is a file of no generation.
        let whole = generation(&read(root.path())?).is_some();
        let records = fs::read_dir(state.path().join("pending")).into_iter().flatten().count();
        if !whole || records > 0 || !recovery.kept.is_empty() || !recovery.notes.is_empty() {
            torn += 1;
            eprintln!("round {round}: whole: {whole}, {records} records left: {recovery:?}");
            break;
        }
    }
    println!("{rounds} kills: {torn} torn, {half} half applied, {rolled_back} rolled back at start");
    if torn > 0 { Err("a change was neither made nor taken back".into()) } else { Ok(()) }
}
