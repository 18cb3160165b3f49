//! Git data in the workspace that runs code later: hooks, configuration, and the files that say where those are.
//!
//! [`Snapshot::of`] finds the repositories before a command and says what to pin and make read-only; what does not
//! exist cannot be mounted over, so [`Snapshot::check`] looks again afterwards: a hook or configuration planted in a
//! repository is moved out of the way, a new or exchanged repository is named.

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

impl Identity {
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
                    self.read_only.extend(path.canonicalize().ok().filter(|real| real.starts_with(root)));
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
                Ok(real) if real.starts_with(root) && real != root => self.read_only.push(real),
                Ok(_) => {}
                Err(_) if path.starts_with(root) => self.absent.push(path),
                Err(_) => {}
            }
        }
    }

    /// Compares with what is there now; each line is for the user.
    pub fn check(&self, root: &Path) -> Vec<String> {
        let mut warnings = Vec::new();
        let shown = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
        for path in self.absent.iter().filter(|path| path.symlink_metadata().is_ok()) {
            warnings.push(match set_aside(path) {
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
                Ok(_) => set_aside(path).map(drop),
                Err(_) => Ok(()),
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
                if let Ok(metadata) = entry.path().symlink_metadata() {
                    let target = std::fs::read_link(entry.path()).ok();
                    let (device, inode, changed) = (metadata.dev(), metadata.ino(), metadata.ctime());
                    let identity = Identity { device, inode, changed, target };
                    found.insert(entry.path(), identity);
                }
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
    for line in String::from_utf8_lossy(&text).lines().map(|line| fold_key(line.trim())) {
        if line.starts_with('[') {
            including = line.starts_with("[include");
        }
        // A key may follow its section's name on the same line.
        let Some((key, value)) = line.rsplit(']').next().and_then(|rest| rest.split_once('=')) else {
            continue;
        };
        let value = value.trim().trim_matches('"');
        let base = match key.trim() {
            "hookspath" => git.parent(),
            "path" if including => Some(git),
            _ => None,
        };
        if let Some(base) = base.filter(|_| !value.is_empty()) {
            paths.push(base.join(value));
        }
    }
    paths
}

/// Keys and sections of a configuration have no case; values do.
fn fold_key(line: &str) -> String {
    let (key, value) = line.split_at(line.find('=').unwrap_or(line.len()));
    format!("{}{value}", key.to_ascii_lowercase())
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
