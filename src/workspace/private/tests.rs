//! Copies without a session: what of them stays, what is part of the work, and what lands, also where the disk fails at
//! any step of it.

use super::*;
use crate::workspace::faults::Injected;
use git2::{IndexAddOption, Oid, Repository, Signature};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

struct Scene {
    files: TempDir,
    place: TempDir,
}

impl Scene {
    fn new(files: &[(&str, &str)]) -> Self {
        let scene = Self { files: tempfile::tempdir().unwrap(), place: tempfile::tempdir().unwrap() };
        files.iter().for_each(|(path, text)| write(&scene.files.path().join(path), text));
        scene
    }

    fn workspace(&self) -> Workspace {
        Workspace::open(self.files.path(), &[]).unwrap()
    }

    fn copy(&self) -> PrivateCopy {
        let places = [self.place.path().to_path_buf()];
        PrivateCopy::of(&self.workspace(), &places, &AtomicBool::new(false)).unwrap()
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.files.path().join(path)).unwrap()
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Everything beneath a directory: its kind and mode, and what it holds or where it leads.
fn everything(top: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![top.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let of = path.symlink_metadata().unwrap();
            let bytes = if of.is_dir() {
                waiting.push(path.clone());
                Vec::new()
            } else if of.is_symlink() {
                fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
            } else {
                fs::read(&path).unwrap()
            };
            all.insert(path.strip_prefix(top).unwrap().to_path_buf(), (of.mode(), bytes));
        }
    }
    all
}

#[test]
fn a_copy_that_was_left_is_not_removed_by_the_next_one() {
    let scene = Scene::new(&[("sub/a", "a")]);
    let workspace = Workspace::open(&scene.files.path().join("sub"), &[]).unwrap();
    let places = [scene.place.path().to_path_buf()];
    let mut copy = PrivateCopy::of(&workspace, &places, &AtomicBool::new(false)).unwrap();
    fs::write(copy.root().join("work"), "done").unwrap();
    let left = copy.leave();
    drop(copy);
    drop(scene.copy());
    assert_eq!(fs::read_to_string(left.join("work")).unwrap(), "done", "{}", left.display());
    assert_eq!(fs::read_dir(scene.place.path()).unwrap().count(), 1);
}

#[test]
fn whoever_removes_what_was_left_takes_no_new_copy() {
    let place = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let holder = Holder::made_in(place.path()).unwrap();
                    sweep(place.path());
                    assert!(holder.path().is_dir());
                }
            });
        }
    });
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn of_what_is_ignored_only_what_the_work_wrote_is_part_of_it() {
    let scene =
        Scene::new(&[(".gitignore", "*.conf\nbuilt/\n"), ("local.conf", "bad\n"), ("old.conf", "old\n")]);
    let mut copy = scene.copy();
    let at = |name: &str| copy.root().join(name);
    write(&at("local.conf"), "good\n");
    write(&at("new.conf"), "new\n");
    fs::remove_file(at("old.conf")).unwrap();
    write(&at("built/out"), "built by a command\n");
    write(&at("other.conf"), "of a command\n");
    let work = ["local.conf", "new.conf", "old.conf"].map(at).to_vec();
    assert_eq!(copy.patch().unwrap().1, 0);
    copy.settle(&Touched { work, built: Vec::new() });
    let (patch, files) = copy.patch().unwrap();
    let patch = String::from_utf8(patch).unwrap();
    assert_eq!(files, 3, "{patch}");
    for part in ["-bad\n+good\n", "+++ b/new.conf", "deleted file mode"] {
        assert!(patch.contains(part), "{part} is not in {patch}");
    }
    copy.land(&scene.workspace()).unwrap();
    assert_eq!((scene.text("local.conf").as_str(), scene.text("new.conf").as_str()), ("good\n", "new\n"));
    let left = ["old.conf", "built", "other.conf"].map(|name| scene.files.path().join(name).exists());
    assert_eq!(left, [false; 3]);
}

#[test]
fn an_ignored_file_that_somebody_else_changed_is_named() {
    let scene = Scene::new(&[(".gitignore", "*.conf\n"), ("local.conf", "bad\n"), ("a", "a")]);
    let mut copy = scene.copy();
    write(&copy.root().join("local.conf"), "good\n");
    write(&copy.root().join("a"), "b");
    copy.settle(&Touched { work: vec![copy.root().join("local.conf")], built: Vec::new() });
    write(&scene.files.path().join("local.conf"), "theirs\n");
    for error in [copy.patch().unwrap_err(), copy.land(&scene.workspace()).unwrap_err()] {
        assert!(matches!(&error, WorkspaceError::Stale(text) if text.contains("local.conf")), "{error}");
    }
    assert_eq!(scene.text("a"), "a");
}

/// Every kind of change: of files, links and directories, and of each into the others.
fn changing() -> (Scene, PrivateCopy) {
    let scene = Scene::new(&[
        ("edited", "one\n"),
        ("run.sh", "echo\n"),
        ("gone/deep/file", "gone"),
        ("stays/gone", "gone"),
        ("kept/ignored.log", "ignored"),
        ("kept/gone", "gone"),
        (".gitignore", "*.log\n"),
        ("file-to-directory", "file"),
        ("directory-to-file/deep/file", "file"),
        ("directory-to-link/file", "file"),
        ("file-to-link", "file"),
        ("target/file", "file"),
    ]);
    let odd = OsStr::from_bytes(b"caf\xe9");
    let links = [("link", "edited"), ("gone-link", "edited"), ("link-to-directory", "target")];
    links.iter().for_each(|(name, to)| symlink(to, scene.files.path().join(name)).unwrap());
    fs::write(scene.files.path().join(odd), "old").unwrap();
    let copy = scene.copy();
    let at = |name: &str| copy.root().join(name);
    write(&at("edited"), "two\0\n");
    fs::set_permissions(at("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    for gone in ["gone", "directory-to-file", "directory-to-link", "kept"] {
        fs::remove_dir_all(at(gone)).unwrap();
    }
    let links = ["link", "gone-link", "link-to-directory"];
    for gone in ["stays/gone", "file-to-directory", "file-to-link"].iter().chain(&links) {
        fs::remove_file(at(gone)).unwrap();
    }
    write(&at("new/deep/file"), "new");
    fs::set_permissions(at("new/deep"), fs::Permissions::from_mode(0o750)).unwrap();
    write(&at("file-to-directory/deep/file"), "new");
    write(&at("directory-to-file"), "new");
    write(&at("link-to-directory/file"), "new");
    let links = [("directory-to-link", "target"), ("file-to-link", "edited"), ("link", "/nowhere")];
    links.iter().for_each(|(name, to)| symlink(to, at(name)).unwrap());
    fs::write(copy.root().join(odd), "new").unwrap();
    (scene, copy)
}

fn assert_landed(scene: &Scene, copy: &PrivateCopy, when: &str) {
    let mut landed = everything(scene.files.path());
    // What is ignored is nobody's to remove, nor is the directory that holds it.
    for ignored in ["kept", "kept/ignored.log"] {
        assert!(landed.remove(Path::new(ignored)).is_some(), "{when}: {ignored}");
    }
    assert_eq!(landed, everything(copy.root()), "{when}");
}

#[test]
fn everything_lands() {
    let (scene, copy) = changing();
    copy.land(&scene.workspace()).unwrap();
    assert_landed(&scene, &copy, "once");
    copy.land(&scene.workspace()).unwrap();
    assert_landed(&scene, &copy, "twice");
}

#[test]
fn what_changed_meanwhile_is_named_and_nothing_lands() {
    let at = |scene: &Scene, name: &str| scene.files.path().join(name);
    let remade = |link: &Path| {
        fs::remove_file(link).unwrap();
        symlink("elsewhere", link).unwrap();
    };
    type Case<'c> = (&'c str, &'c dyn Fn(&Path));
    let cases: [Case<'_>; 5] = [
        ("edited", &|path| fs::write(path, "one\nand mine\n").unwrap()),
        ("new/deep/file", &|path| write(path, "mine")),
        ("gone/deep/file", &|path| fs::remove_file(path).unwrap()),
        ("link", &remade),
        ("directory-to-file/mine", &|path| write(path, "mine")),
    ];
    for (name, theirs) in cases {
        let (scene, copy) = changing();
        theirs(&at(&scene, name));
        let before = everything(scene.files.path());
        let landed = copy.land(&scene.workspace());
        // What is gone already need not go.
        if name == "gone/deep/file" {
            landed.unwrap();
            continue;
        }
        let error = landed.unwrap_err().to_string();
        assert!(error.contains(name.trim_end_matches("/mine")), "{name}: {error}");
        assert_eq!(everything(scene.files.path()), before, "{name}");
    }
}

#[test]
fn where_the_disk_fails_nothing_lands() {
    let (mut scene, mut copy) = changing();
    let before = everything(scene.files.path());
    for step in 0.. {
        let workspace = scene.workspace();
        let fault = Injected::once(step, Errno::NOSPC);
        let landed = copy.land(&workspace);
        let was_met = fault.was_met();
        drop(fault);
        if landed.is_err() {
            assert_eq!(everything(scene.files.path()), before, "step {step}");
            continue;
        }
        assert_landed(&scene, &copy, &format!("step {step}"));
        if !was_met {
            assert!(step > 20, "only {step} steps");
            return;
        }
        (scene, copy) = changing();
    }
}

fn commit(repository: &Repository) -> Oid {
    let mut index = repository.index().unwrap();
    index.add_all(["*"], IndexAddOption::FORCE, None).unwrap();
    index.write().unwrap();
    let tree = repository.find_tree(index.write_tree().unwrap()).unwrap();
    let who = Signature::now("t", "t@example.org").unwrap();
    let parent = repository.head().ok().map(|head| head.peel_to_commit().unwrap());
    repository.commit(Some("HEAD"), &who, &who, "message", &tree, &parent.iter().collect::<Vec<_>>()).unwrap()
}

#[test]
fn a_copy_of_a_linked_work_tree_or_a_submodule_is_a_repository_of_its_own() {
    let scene = Scene::new(&[("main/.gitignore", "*.log\n"), ("main/kept.log", "tracked\n")]);
    let at = |name: &str| scene.files.path().join(name);
    let main = Repository::init(at("main")).unwrap();
    commit(&main);
    main.worktree("linked", &at("linked"), None).unwrap();
    main.worktree("of-bare", &at("of-bare"), None).unwrap();
    let inner = main.submodule("https://example.org/inner.git", Path::new("sub"), true).unwrap();
    write(&at("main/sub/a"), "a\n");
    commit(&inner.open().unwrap());
    // No repository names it.
    write(&at("lost/.git"), &format!("gitdir: {}\n", at("main/.git").display()));
    for (name, tracked) in [("linked", "kept.log"), ("main/sub", "a"), ("lost", ""), ("of-bare", "kept.log")]
    {
        main.config().unwrap().set_bool("core.bare", name == "of-bare").unwrap();
        let workspace = Workspace::open(&at(name), &[]).unwrap();
        let places = [scene.place.path().to_path_buf()];
        let copy = PrivateCopy::of(&workspace, &places, &AtomicBool::new(false)).unwrap();
        if name == "lost" {
            assert!(copy.top().join(".git").symlink_metadata().is_err());
            continue;
        }
        let state = || {
            let repository = Repository::open(at(name)).unwrap();
            let statuses = repository.statuses(None).unwrap();
            let status: Vec<_> = statuses.iter().map(|entry| entry.status()).collect();
            (repository.head().unwrap().target(), status)
        };
        let before = state();
        let own = Repository::open(copy.root()).unwrap();
        assert_eq!((own.head().unwrap().target(), own.is_worktree()), (before.0, false), "{name}");
        for path in [own.path(), own.commondir(), own.workdir().unwrap()] {
            assert!(path.starts_with(copy.top()), "{name}: {}", path.display());
        }
        write(&copy.root().join(tracked), "of the work\n");
        assert_ne!(Some(commit(&own)), before.0);
        assert_eq!(state(), before, "{name}");
        let (patch, files) = copy.patch().unwrap();
        assert_eq!(files, 1, "{name}: {}", String::from_utf8_lossy(&patch));
    }
}
