//! Git data in the workspace that runs code later: hooks, configuration, and the files that say where those are.
//!
//! [`Snapshot::of`] finds the repositories before a command and says what to pin and make read-only; what does not
//! exist cannot be mounted over, so [`Snapshot::check`] looks again afterwards: a hook or configuration planted in a
//! repository is moved out of the way, a new or exchanged repository is named. Nor does a mount keep a directory above
//! it from being renamed, it goes along: [`Snapshot::check_kept`] looks for what was put in its place.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Entries looked at in one walk, nearest first: a bound on time in huge trees.
const MOST_ENTRIES: usize = 50_000;

/// In a git directory: read-only where they exist, not to appear where they do not.
const STEERING: &[&str] = &["config", "config.worktree", "hooks", "commondir", "gitdir"];
/// Git directories of submodules and linked worktrees: read-only as a whole.
const INNER: &[&str] = &["modules", "worktrees"];

#[derive(Debug, Default)]
pub struct Snapshot {
    /// Every `.git`, with what tells it from another one put in its place.
    found: BTreeMap<PathBuf, Identity>,
    /// Whether the walk ended before the tree did, and when it began.
    cut: bool,
    started: i64,
    /// Steering files that could be there and are not.
    absent: Vec<PathBuf>,
    /// Steering files that are links, and to where: a link cannot be mounted over.
    links: Vec<(PathBuf, PathBuf)>,
    /// What steers git from the working tree.
    kept: Vec<Kept>,
    pub pinned: Vec<PathBuf>,
    pub read_only: Vec<PathBuf>,
}

#[derive(Debug)]
struct Identity {
    device: u64,
    inode: u64,
    /// Seconds since 1970.
    changed: i64,
    /// Where it is a link: to where.
    target: Option<PathBuf>,
}

/// Read-only where it is, with all that tells it from another put in its place.
#[derive(Debug)]
struct Kept {
    /// As git is told.
    path: PathBuf,
    real: PathBuf,
    itself: Identity,
    parent: Identity,
}

impl Kept {
    fn is_exchanged(&self) -> bool {
        let is = |path: &Path, before: &Identity| Identity::of(path).is_some_and(|now| now.is(before));
        // No command exchanges it in its own directory, where it is a mount point: whoever did was outside.
        let same =
            is(&self.real, &self.itself) || self.real.parent().is_some_and(|parent| is(parent, &self.parent));
        !(same && self.path.canonicalize().is_ok_and(|real| real == self.real))
    }
}

impl Identity {
    fn of(path: &Path) -> Option<Self> {
        let metadata = path.symlink_metadata().ok()?;
        let target = std::fs::read_link(path).ok();
        Some(Self { device: metadata.dev(), inode: metadata.ino(), changed: metadata.ctime(), target })
    }

    fn is(&self, other: &Self) -> bool {
        (self.device, self.inode, &self.target) == (other.device, other.inode, &other.target)
    }
}

impl Snapshot {
    pub fn of(root: &Path) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let (found, cut) = find(root);
        let mut snapshot = Self { found, cut, started: now as i64, ..Self::default() };
        let paths: Vec<PathBuf> = snapshot.found.keys().cloned().collect();
        for path in paths {
            let Ok(metadata) = path.symlink_metadata() else { continue };
            if metadata.is_file() {
                snapshot.read_only.push(path);
            } else if metadata.is_dir() {
                snapshot.guard(root, &path);
            } else if let Ok(target) = path.canonicalize()
                && target.is_dir()
                && target.starts_with(root)
            {
                snapshot.guard(root, &target);
            }
        }
        snapshot
    }

    fn guard(&mut self, root: &Path, git: &Path) {
        self.pinned.push(git.to_path_buf());
        for name in STEERING {
            let path = git.join(name);
            match path.symlink_metadata() {
                Ok(metadata) if metadata.is_symlink() => {
                    if let Ok(target) = std::fs::read_link(&path) {
                        self.links.push((path.clone(), target));
                    }
                    if let Some(real) = path.canonicalize().ok().filter(|real| real.starts_with(root)) {
                        self.keep(root, &path, real);
                    }
                }
                Ok(_) => self.read_only.push(path),
                Err(_) => self.absent.push(path),
            }
        }
        let inner = INNER.iter().map(|name| git.join(name));
        self.read_only.extend(inner.filter(|path| path.symlink_metadata().is_ok_and(|found| found.is_dir())));
        // Hooks and configuration kept in the working tree are hooks and configuration all the same.
        for path in steered_to(git) {
            match path.canonicalize() {
                Ok(real) if real.starts_with(root) && real != root => self.keep(root, &path, real),
                Ok(_) => {}
                Err(_) if path.starts_with(root) => self.absent.push(path),
                Err(_) => {}
            }
        }
    }

    fn keep(&mut self, root: &Path, path: &Path, real: PathBuf) {
        let path = if path.starts_with(root) { path } else { &real };
        if let (Some(itself), Some(parent)) = (Identity::of(&real), real.parent().and_then(Identity::of)) {
            self.kept.push(Kept { path: path.to_path_buf(), real: real.clone(), itself, parent });
        }
        self.read_only.push(real);
    }

    /// Compares with what is there now; each line is for the user.
    pub fn check(&self, root: &Path) -> Vec<String> {
        let mut warnings = Vec::new();
        let shown = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
        for path in self.absent.iter().filter(|path| path.symlink_metadata().is_ok()) {
            warnings.push(match move_away(root, path) {
                Ok(aside) => format!(
                    "the command made {}, which git would run or obey: it was moved to {}",
                    shown(path),
                    shown(&aside)
                ),
                Err(error) => format!(
                    "the command made {}, which git would run or obey, and it could not be moved away: {error}",
                    shown(path)
                ),
            });
        }
        for (path, target) in &self.links {
            if std::fs::read_link(path).is_ok_and(|now| now == *target) {
                continue;
            }
            let restored = match path.symlink_metadata() {
                Err(_) if way_out(root, path).is_none() => Ok(()),
                _ => move_away(root, path).map(drop),
            };
            let restored = restored.and_then(|()| std::os::unix::fs::symlink(target, path));
            let result =
                restored.map_or_else(|error| format!("not restored: {error}"), |()| "restored".into());
            warnings
                .push(format!("the command exchanged the link {}, which steers git: {result}", shown(path)));
        }
        let (now, _) = find(root);
        for (path, identity) in &now {
            match self.found.get(path) {
                // An incomplete first walk did not see everything that was there.
                None if self.cut && identity.changed < self.started => {}
                None => warnings.push(format!(
                    "the command made a repository at {}: look at its config and hooks before using git there",
                    shown(path)
                )),
                Some(before) if !before.is(identity) => warnings.push(format!(
                    "the command exchanged {}: look at its config and hooks before using git there",
                    shown(path)
                )),
                Some(_) => {}
            }
        }
        for path in self.found.keys().filter(|path| path.symlink_metadata().is_err()) {
            warnings.push(format!("the command removed or moved {}", shown(path)));
        }
        warnings
    }

    /// The same of what was read-only for the command: only with the directory around it could it be exchanged.
    pub fn check_kept(&self, root: &Path) -> Vec<String> {
        let shown = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
        let exchanged = self.kept.iter().filter(|kept| kept.is_exchanged()).map(|kept| &kept.path);
        let told = exchanged.map(|path| {
            let what = format!("the command moved {}, which steers git", shown(path));
            let Ok(now) = path.canonicalize() else { return what };
            match move_away(root, if now.starts_with(root) { &now } else { path }) {
                Ok(aside) => format!("{what}: what it put there was moved to {}", shown(&aside)),
                Err(error) => format!("{what}: what it put there could not be moved away: {error}"),
            }
        });
        told.collect()
    }
}

/// The git directory that `workspace` shares where it is a linked work tree (`git worktree add`): it lies elsewhere.
/// What the `.git` file says is believed only where that directory says the same of the workspace, so that a repository
/// cannot name any other.
pub fn shared_by(workspace: &Path) -> Option<PathBuf> {
    let read = |path: &Path| {
        let is_file = path.symlink_metadata().is_ok_and(|of| of.is_file() && of.len() < 16 * 1024);
        is_file.then(|| std::fs::read_to_string(path).ok()).flatten()
    };
    let link = workspace.join(".git");
    let named = read(&link)?;
    let own = workspace.join(named.strip_prefix("gitdir:")?.trim()).canonicalize().ok()?;
    let back = own.join(read(&own.join("gitdir"))?.trim()).canonicalize().ok()?;
    if back != link.canonicalize().ok()? {
        return None;
    }
    let common = own.join(read(&own.join("commondir"))?.trim()).canonicalize().ok()?;
    let is_git = common.join("HEAD").is_file() && common.join("objects").is_dir();
    (is_git && own.parent() == Some(&common.join("worktrees"))).then_some(common)
}

/// Moves something out of git's sight, beside where it is.
pub fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    for number in 1.. {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".set-aside-{number}"));
        let aside = PathBuf::from(name);
        if aside.symlink_metadata().is_err() {
            std::fs::rename(path, &aside)?;
            return Ok(aside);
        }
    }
    Err(std::io::Error::other("no free name"))
}

/// What on the way to `path` leads out of the workspace: what lies behind it is not the command's, nor ours to move.
fn way_out<'p>(root: &Path, path: &'p Path) -> Option<&'p Path> {
    let real = root.canonicalize().ok()?;
    let below = path.ancestors().take_while(|here| here.starts_with(root) && *here != root);
    below.filter(|here| here.canonicalize().is_ok_and(|here| !here.starts_with(&real))).last()
}

/// Moves away what git would find there.
fn move_away(root: &Path, path: &Path) -> std::io::Result<PathBuf> {
    set_aside(way_out(root, path).unwrap_or(path))
}

/// All `.git` below `root`, without following links or looking inside git directories; and whether the walk was cut.
fn find(root: &Path) -> (BTreeMap<PathBuf, Identity>, bool) {
    let mut found = BTreeMap::new();
    let mut seen = 0;
    let mut waiting = VecDeque::from([root.to_path_buf()]);
    while let Some(directory) = waiting.pop_front() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            seen += 1;
            // Case-folding file systems take `.GIT` for `.git`, and so does git there.
            if entry.file_name().eq_ignore_ascii_case(".git") {
                found.extend(Identity::of(&entry.path()).map(|identity| (entry.path(), identity)));
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push_back(entry.path());
            }
        }
        if seen > MOST_ENTRIES {
            return (found, true);
        }
    }
    (found, false)
}

/// Where a configuration sends git for hooks and for more configuration. Read as lines: that may protect more than
/// git would obey, not less.
fn steered_to(git: &Path) -> Vec<PathBuf> {
    let text = std::fs::read(git.join("config")).unwrap_or_default();
    let mut including = false;
    let mut paths = Vec::new();
    for line in String::from_utf8_lossy(&text).lines().map(str::trim) {
        including = line.to_ascii_lowercase().contains("[include") || including && !line.starts_with('[');
        // A key may follow its section's name on the same line; a bracket may also stand in a name or comment.
        let rests = line.match_indices(']').map(|(at, _)| &line[at + 1..]).chain([line]);
        for (key, value) in rests.filter_map(|rest| rest.split_once('=')) {
            let base = match key.trim().to_ascii_lowercase().as_str() {
                "hookspath" => git.parent(),
                "path" if including => Some(git),
                _ => None,
            };
            let Some(base) = base else { continue };
            // Outside quotes these begin a comment.
            let short = value.split([';', '#']).next().unwrap_or_default();
            for value in [value, short].map(|value| value.trim().trim_matches('"')) {
                if !value.is_empty() {
                    paths.push(base.join(value));
                }
            }
        }
    }
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, read_to_string, remove_dir_all, rename, write};

    fn repository(root: &Path) -> PathBuf {
        let git = root.join(".git");
        create_dir_all(git.join("hooks")).unwrap();
        let config = "[core]\n\thooksPath = .githooks\n[Include] path = ../Shared.config\n";
        write(git.join("config"), config).unwrap();
        git
    }

    #[test]
    fn what_steers_git_is_guarded() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let git = repository(&root);
        create_dir_all(git.join("modules/a")).unwrap();
        create_dir_all(root.join(".githooks")).unwrap();
        write(root.join("Shared.config"), "").unwrap();
        create_dir_all(root.join("deep/er")).unwrap();
        write(root.join("deep/er/.git"), "gitdir: elsewhere\n").unwrap();
        let snapshot = Snapshot::of(&root);
        assert_eq!(snapshot.pinned, std::slice::from_ref(&git));
        for path in
            [".git/config", ".git/hooks", ".git/modules", ".githooks", "Shared.config", "deep/er/.git"]
        {
            assert!(snapshot.read_only.contains(&root.join(path)), "{path}");
        }
        assert_eq!(snapshot.check(&root), Vec::<String>::new());
    }

    #[test]
    fn a_work_tree_shares_only_what_says_so_too() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let (tree, common) = (root.join("tree"), root.join("main/.git"));
        let own = common.join("worktrees/tree");
        for directory in [&tree, &own, &common.join("objects")] {
            create_dir_all(directory).unwrap();
        }
        write(common.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        write(tree.join(".git"), format!("gitdir: {}\n", own.display())).unwrap();
        write(own.join("commondir"), "../..\n").unwrap();
        assert_eq!(shared_by(&tree), None, "it does not name the tree");
        write(own.join("gitdir"), format!("{}\n", tree.join(".git").display())).unwrap();
        assert_eq!(shared_by(&tree), Some(common.clone()));
        write(tree.join(".git"), "gitdir: ../main/.git/worktrees/tree\n").unwrap();
        assert_eq!(shared_by(&tree), Some(common.clone()));
        // Another work tree's is not shared.
        create_dir_all(root.join("other")).unwrap();
        write(root.join("other/.git"), format!("gitdir: {}\n", own.display())).unwrap();
        assert_eq!(shared_by(&root.join("other")), None);
        // Nor is what the link leads to on the way around.
        create_dir_all(root.join("secret/objects")).unwrap();
        write(root.join("secret/HEAD"), "").unwrap();
        write(own.join("commondir"), "../../../../secret").unwrap();
        assert_eq!(shared_by(&tree), None);
        assert_eq!(shared_by(&root.join("main")), None, "it has a directory of its own");
    }

    #[test]
    fn planted_steering_files_are_set_aside_and_kept() {
        let root = tempfile::tempdir().unwrap();
        let git = repository(root.path());
        let snapshot = Snapshot::of(root.path());
        write(git.join("commondir"), "evil").unwrap();
        create_dir_all(root.path().join(".githooks")).unwrap();
        let warnings = snapshot.check(root.path());
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(!root.path().join(".githooks").exists());
        assert!(!git.join("commondir").exists());
        assert_eq!(read_to_string(git.join("commondir.set-aside-1")).unwrap(), "evil");
    }

    #[test]
    fn what_lies_outside_is_not_set_aside() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let git = repository(root.path());
        write(git.join("config"), "[core] hooksPath = .husky/_\n").unwrap();
        let snapshot = Snapshot::of(root.path());
        create_dir_all(outside.path().join("_")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join(".husky")).unwrap();
        let warnings = snapshot.check(root.path());
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(outside.path().join("_").is_dir());
        assert!(root.path().join(".husky").symlink_metadata().is_err());
        assert!(root.path().join(".husky.set-aside-1").is_symlink());
    }

    #[test]
    fn what_steers_git_is_not_exchanged_with_the_directory_around_it() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let git = repository(&root);
        write(git.join("config"), "[core] hooksPath = .husky/_ ;]\n").unwrap();
        let hooks = root.join(".husky/_");
        create_dir_all(&hooks).unwrap();
        let snapshot = Snapshot::of(&root);
        assert!(snapshot.read_only.contains(&hooks));
        // The user, meanwhile: no command can do that.
        rename(&hooks, root.join(".husky/old")).unwrap();
        create_dir_all(&hooks).unwrap();
        assert_eq!(snapshot.check_kept(&root), Vec::<String>::new());

        let snapshot = Snapshot::of(&root);
        rename(root.join(".husky"), root.join("moved")).unwrap();
        assert_eq!(snapshot.check_kept(&root).len(), 1);
        create_dir_all(&hooks).unwrap();
        write(hooks.join("pre-commit"), "evil").unwrap();
        let warnings = snapshot.check_kept(&root);
        assert!(warnings.len() == 1 && warnings[0].ends_with(".husky/_.set-aside-1"), "{warnings:?}");
        assert!(!hooks.exists());
        assert_eq!(read_to_string(root.join(".husky/_.set-aside-1/pre-commit")).unwrap(), "evil");
        // A link to where it is now would be the next command's to turn.
        remove_dir_all(root.join(".husky")).unwrap();
        std::os::unix::fs::symlink("moved", root.join(".husky")).unwrap();
        assert_eq!(snapshot.check_kept(&root).len(), 1);
        assert!(!hooks.exists());
    }

    #[test]
    fn a_link_that_steers_git_is_put_back() {
        let root = tempfile::tempdir().unwrap();
        let git = root.path().join(".git");
        create_dir_all(&git).unwrap();
        std::os::unix::fs::symlink("/elsewhere/hooks", git.join("hooks")).unwrap();
        let snapshot = Snapshot::of(root.path());
        std::fs::remove_file(git.join("hooks")).unwrap();
        create_dir_all(git.join("hooks")).unwrap();
        let warnings = snapshot.check(root.path());
        assert!(warnings.len() == 1 && warnings[0].ends_with("restored"), "{warnings:?}");
        assert_eq!(std::fs::read_link(git.join("hooks")).unwrap(), Path::new("/elsewhere/hooks"));
        assert!(git.join("hooks.set-aside-1").is_dir());
    }

    #[test]
    fn new_exchanged_and_removed_repositories_are_named() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        repository(&root.join("old"));
        repository(&root.join("gone"));
        let snapshot = Snapshot::of(root);
        repository(&root.join("new"));
        rename(root.join("old/.git"), root.join("old/elsewhere")).unwrap();
        repository(&root.join("old"));
        remove_dir_all(root.join("gone")).unwrap();
        let warnings = snapshot.check(root).join("\n");
        for expected in ["made a repository at new/.git", "exchanged old/.git", "removed or moved gone/.git"]
        {
            assert!(warnings.contains(expected), "{expected}: {warnings}");
        }
    }
}
