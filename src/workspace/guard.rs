//! The guard: every path a tool names becomes a [`Location`] beneath a root, or an error the model can act on.
//!
//! Two steps. *Resolve* walks from the root's directory handle one component at a time, follows symbolic links by
//! reading them, and ends with the real names beneath the root; this is where `..`, links that leave and protected
//! directories are refused, on real names and never on the text the model wrote. *Open* asks the kernel for those
//! names with no link allowed in any place (`openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
//! RESOLVE_NO_MAGICLINKS`, elsewhere `O_NOFOLLOW` per component), so whoever swaps a directory for a link between
//! the steps gets an error, not a file outside. What is done with the opened files is up to `write` and `mod`; `parents` has
//! the directories that files lie in.

mod parents;

use super::WorkspaceError;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// As many links as Linux itself follows.
const MAX_LINKS: usize = 40;
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;

/// A place beneath a root by its real names: no `.`, `..` or symbolic link is left in them. It need not exist.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    root: usize,
    names: Vec<OsString>,
}

impl Location {
    pub fn is_root(&self) -> bool {
        self.names.is_empty()
    }

    /// Beneath the first root, where relative paths start.
    pub fn is_in_first_root(&self) -> bool {
        self.root == 0
    }

    /// The number of its root.
    pub fn root(&self) -> usize {
        self.root
    }

    /// Relative to its root.
    pub fn relative(&self) -> PathBuf {
        self.names.iter().collect()
    }

    /// Whether `other` lies beneath it.
    pub fn holds(&self, other: &Self) -> bool {
        self.root == other.root
            && self.names.len() < other.names.len()
            && other.names.starts_with(&self.names)
    }

    fn split(&self) -> Option<(&[OsString], &OsStr)> {
        self.names.split_last().map(|(name, parent)| (parent, name.as_os_str()))
    }
}

struct Root {
    /// As the user gave it, and as the system knows it: models repeat either.
    given: PathBuf,
    real: PathBuf,
    handle: OwnedFd,
}

pub struct Guard {
    roots: Vec<Root>,
    /// Real paths of directories that tools may not write in, wherever a root reaches them.
    closed: Vec<PathBuf>,
}

impl Guard {
    pub fn open(paths: &[PathBuf]) -> Result<Self, WorkspaceError> {
        let mut roots = Vec::with_capacity(paths.len());
        for given in paths {
            let failed = |error: std::io::Error| WorkspaceError::Machine {
                message: format!("cannot open {}: {error}", given.display()),
                hint: "name a directory that exists and that you may read".into(),
            };
            let real = given.canonicalize().map_err(failed)?;
            let flags = directory_flags();
            let handle = rustix::fs::open(&real, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
            roots.push(Root { given: given.clone(), real, handle });
        }
        Ok(Self { roots, closed: Vec::new() })
    }

    /// Each root as it was given and as it really is, the first one first.
    pub fn roots(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.roots.iter().map(|root| (root.given.as_path(), root.real.as_path()))
    }

    /// Lets no tool write in `directory`, unless it holds a root: then that is where the user wants the work done.
    pub fn close(&mut self, directory: &Path) {
        // It need not be there yet.
        let known = |path: &Path| Some((path.to_path_buf(), path.canonicalize().ok()?));
        let Some((known, real)) = directory.ancestors().find_map(known) else { return };
        let Ok(rest) = directory.strip_prefix(&known) else { return };
        let real = real.join(rest);
        if !self.roots.iter().any(|root| root.real.starts_with(&real)) {
            self.closed.push(real);
        }
    }

    /// The real path of the first root.
    pub fn root_path(&self) -> &Path {
        self.roots.first().map_or(Path::new("/"), |root| &root.real)
    }

    /// Where relative paths start.
    pub fn first_root(&self) -> Location {
        Location::default()
    }

    /// Where a location lies, as an absolute path: for showing and for walkers, never for opening what a tool names.
    pub fn absolute(&self, location: &Location) -> PathBuf {
        let mut path = self.roots.get(location.root).map_or_else(PathBuf::new, |root| root.real.clone());
        path.extend(&location.names);
        path
    }

    /// As the model should name it: relative in the first root, absolute in the others.
    pub fn display(&self, location: &Location) -> String {
        if location.root == 0 {
            if location.is_root() { ".".into() } else { location.relative().to_string_lossy().into_owned() }
        } else {
            self.absolute(location).to_string_lossy().into_owned()
        }
    }

    /// A location beneath the same root by a relative path of plain names (walkers give those).
    pub fn beneath(&self, base: &Location, relative: &Path) -> Location {
        let mut location = base.clone();
        location.names.extend(relative.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_os_string()),
            _ => None,
        }));
        location
    }

    /// A location as it was written down: a root by its number, and real names beneath it.
    pub fn place(&self, root: usize, relative: &Path) -> Option<Location> {
        let plain = |component: Component<'_>| matches!(component, Component::Normal(_));
        let fine = root < self.roots.len() && relative.components().all(plain) && relative != Path::new("");
        fine.then(|| self.beneath(&Location { root, names: Vec::new() }, relative))
    }

    /// A path that is to name a file.
    pub fn file(&self, path: &str) -> Result<Location, WorkspaceError> {
        if path.ends_with('/') {
            return refused(format!("{path} ends in '/', which names a directory; name a file"));
        }
        let location = self.resolve(path)?;
        if location.is_root() {
            return refused(format!("{path} is the workspace itself; name a file in it"));
        }
        Ok(location)
    }

    /// A path that is to name a directory; here a closing `/` is usual.
    pub fn directory(&self, path: &str) -> Result<Location, WorkspaceError> {
        self.resolve(path)
    }

    fn resolve(&self, path: &str) -> Result<Location, WorkspaceError> {
        check_spelling(path)?;
        let (root, relative) = self.take_root(path)?;
        let names = self.walk(root, relative).map_err(|obstacle| self.explain(path, obstacle))?;
        Ok(Location { root, names })
    }

    /// Absolute paths inside a root are what models send; they are taken relative to it, the longest root first.
    fn take_root<'p>(&self, path: &'p str) -> Result<(usize, &'p Path), WorkspaceError> {
        let asked = Path::new(path);
        if !asked.is_absolute() {
            return Ok((0, self.without_own_name(asked)));
        }
        let mut best: Option<(usize, &Path)> = None;
        for (index, root) in self.roots.iter().enumerate() {
            for prefix in [&root.given, &root.real] {
                if !prefix.is_absolute() {
                    continue;
                }
                if let Ok(rest) = asked.strip_prefix(prefix)
                    && best.is_none_or(|(_, shortest)| rest.as_os_str().len() < shortest.as_os_str().len())
                {
                    best = Some((index, rest));
                }
            }
        }
        best.ok_or_else(|| self.outside(path))
    }

    /// Small models begin paths with the name of the workspace itself: `calc/src/lib.rs` where `src/lib.rs` lies in
    /// `calc`. Taken so only where it names something that is there, and nothing does as written.
    fn without_own_name<'p>(&self, path: &'p Path) -> &'p Path {
        let root = self.root_path();
        match root.file_name().map(|name| path.strip_prefix(name)) {
            Some(Ok(rest))
                if root.join(path).symlink_metadata().is_err()
                    && root.join(rest).symlink_metadata().is_ok() =>
            {
                rest
            }
            _ => path,
        }
    }

    fn outside(&self, path: &str) -> WorkspaceError {
        let root = self.root_path().display();
        WorkspaceError::Refused(format!(
            "{path} is outside the workspace {root}; use a path relative to the workspace"
        ))
    }

    fn walk(&self, root: usize, path: &Path) -> Result<Vec<OsString>, Obstacle> {
        let base = self.roots.get(root).ok_or(Obstacle::Escapes)?.handle.as_fd();
        // One handle for each name that exists as a directory; `..` goes back to the handle we came from, so a
        // directory moved away meanwhile cannot lead us to its new parent.
        let mut handles: Vec<OwnedFd> = Vec::new();
        let mut names: Vec<OsString> = Vec::new();
        let mut links = 0;
        let mut pending: VecDeque<OsString> = components(path)?;
        while let Some(name) = pending.pop_front() {
            if name == ".." {
                names.pop().ok_or(Obstacle::Escapes)?;
                handles.truncate(names.len());
                continue;
            }
            let missing_parent = handles.len() < names.len();
            if missing_parent {
                names.push(name);
                continue;
            }
            let here = handles.last().map_or(base, |handle| handle.as_fd());
            let stat = match rustix::fs::statat(here, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => {
                    names.push(name);
                    continue;
                }
                Err(errno) => return Err(Obstacle::Io(errno)),
            };
            match file_type(&stat) {
                FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Obstacle::Links);
                    }
                    let target = rustix::fs::readlinkat(here, &name, Vec::new()).map_err(Obstacle::Io)?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    if target.is_absolute() {
                        return Err(Obstacle::LinkLeaves(name));
                    }
                    for part in components(&target)?.into_iter().rev() {
                        pending.push_front(part);
                    }
                }
                FileType::Directory => {
                    let flags = directory_flags() | OFlags::NOFOLLOW;
                    let handle =
                        rustix::fs::openat(here, &name, flags, Mode::empty()).map_err(Obstacle::Io)?;
                    handles.push(handle);
                    names.push(name);
                }
                _ if pending.is_empty() => names.push(name),
                _ => {
                    names.push(name);
                    return Err(Obstacle::NotADirectory(names.iter().collect()));
                }
            }
        }
        Ok(names)
    }

    fn explain(&self, path: &str, obstacle: Obstacle) -> WorkspaceError {
        match obstacle {
            Obstacle::Escapes => self.outside(path),
            Obstacle::LinkLeaves(link) => WorkspaceError::Refused(format!(
                "{path} goes through the symbolic link {}, which leads out of the workspace; use a path without it",
                link.to_string_lossy()
            )),
            Obstacle::Links => WorkspaceError::Refused(format!(
                "{path} goes through symbolic links that never end; use a path without them"
            )),
            Obstacle::NotADirectory(file) => WorkspaceError::Refused(format!(
                "{} is a file, not a directory, so {path} cannot exist",
                file.display()
            )),
            Obstacle::Io(errno) => io_error("open", path, errno),
        }
    }

    /// Refuses what no tool may write, whatever the mode: `.git`, and the agent's own settings and records.
    pub fn check_writable(&self, location: &Location) -> Result<(), WorkspaceError> {
        if self.closed.iter().any(|closed| self.absolute(location).starts_with(closed)) {
            return refused(format!(
                "{} lies where this program keeps its own records, which tools may not write; leave it to the user",
                self.display(location)
            ));
        }
        for name in &location.names {
            let folded = fold_name(name);
            if [".git", ".qwright", "git~1"].contains(&folded.as_str()) {
                return refused(format!(
                    "{} lies in {}, which tools may not write; leave it to the user",
                    self.display(location),
                    name.to_string_lossy()
                ));
            }
        }
        Ok(())
    }

    /// Opens a regular file for reading; `None` where nothing is there. Devices, pipes and sockets are not even
    /// opened, since opening alone can act.
    pub fn open_file(&self, location: &Location) -> Result<Option<(File, Stat)>, WorkspaceError> {
        let path = self.display(location);
        let Some((parent, name)) = location.split() else {
            return refused(format!("{path} is a directory; see list_directory"));
        };
        let base = self.handle(location)?;
        let not_there = |errno| matches!(errno, Errno::NOENT | Errno::NOTDIR);
        let failed = |errno| io_error("open", &path, errno);
        let parent = match open_beneath(base, parent, directory_flags(), Mode::empty()) {
            Ok(parent) => parent,
            Err(errno) if not_there(errno) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
        match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => check_regular(&path, &stat)?,
            Err(errno) if not_there(errno) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match open_beneath(base, &location.names, flags, Mode::empty()) {
            Ok(file) => file,
            Err(errno) if not_there(errno) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        check_regular(&path, &stat)?;
        Ok(Some((File::from(file), stat)))
    }

    /// A handle on a directory that can also be synced.
    pub fn open_directory(&self, location: &Location) -> Result<Option<OwnedFd>, WorkspaceError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match open_beneath(self.handle(location)?, &location.names, flags, Mode::empty()) {
            Ok(handle) => Ok(Some(handle)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR) => {
                refused(format!("{} is a file, not a directory; see read_file", self.display(location)))
            }
            Err(errno) => Err(io_error("open", &self.display(location), errno)),
        }
    }

    /// The name of `location` in its directory.
    pub fn name<'l>(&self, location: &'l Location) -> Result<&'l OsStr, WorkspaceError> {
        match location.split() {
            Some((_, name)) => Ok(name),
            None => refused("the workspace itself cannot be written; name a file in it".into()),
        }
    }

    fn handle(&self, location: &Location) -> Result<BorrowedFd<'_>, WorkspaceError> {
        match self.roots.get(location.root) {
            Some(root) => Ok(root.handle.as_fd()),
            None => Err(self.outside(&location.relative().to_string_lossy())),
        }
    }
}

enum Obstacle {
    Escapes,
    LinkLeaves(OsString),
    Links,
    NotADirectory(PathBuf),
    Io(Errno),
}

/// The parts of a relative path that matter to the walk.
fn components(path: &Path) -> Result<VecDeque<OsString>, Obstacle> {
    path.components()
        .filter(|component| *component != Component::CurDir)
        .map(|component| match component {
            Component::Normal(name) => Ok(name.to_os_string()),
            Component::ParentDir => Ok(OsString::from("..")),
            _ => Err(Obstacle::Escapes),
        })
        .collect()
}

/// What is wrong with a path by its text alone.
fn check_spelling(path: &str) -> Result<(), WorkspaceError> {
    if path.trim().is_empty() {
        return refused("the path is empty; name a file or directory of the workspace".into());
    }
    if path.contains(['\0', '\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}']) {
        return refused(format!("the path {path:?} holds a NUL or a line break; give one path on one line"));
    }
    if path.len() > MAX_PATH || path.split('/').any(|name| name.len() > MAX_NAME) {
        return refused("the path is too long; a name has at most 255 bytes, a path 4096".into());
    }
    if path.contains("://") {
        return refused(format!("{path} is a URL; file tools read files of the workspace only"));
    }
    if path == "~" || path.starts_with("~/") {
        return refused(format!("{path}: '~' is not expanded; use a path relative to the workspace"));
    }
    Ok(())
}

/// The name as the most forgiving file system would compare it: case, ignorable characters and trailing dots and
/// spaces do not count.
fn fold_name(name: &OsStr) -> String {
    let ignorable = |c: char| matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let folded: String = name.to_string_lossy().chars().filter(|c| !ignorable(*c)).collect();
    folded.to_lowercase().trim_end_matches(['.', ' ']).to_string()
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn check_regular(path: &str, stat: &Stat) -> Result<(), WorkspaceError> {
    let kind = match file_type(stat) {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => return refused(format!("{path} is a directory; see list_directory")),
        FileType::Symlink => "a symbolic link that appeared just now",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "a special file",
    };
    refused(format!("{path} is {kind}, not a regular file; tools do not open it"))
}

fn directory_flags() -> OFlags {
    #[cfg(target_os = "linux")]
    let access = OFlags::PATH;
    #[cfg(not(target_os = "linux"))]
    let access = OFlags::RDONLY;
    access | OFlags::DIRECTORY | OFlags::CLOEXEC
}

/// Opens real names beneath a directory; a symbolic link anywhere among them is an error.
fn open_beneath(
    base: BorrowedFd<'_>,
    names: &[OsString],
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::ResolveFlags;
        let mut path: PathBuf = names.iter().collect();
        if names.is_empty() {
            path.push(".");
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(base, &path, flags | OFlags::NOFOLLOW, mode, resolve) {
            // Kernels before 5.6, and containers whose seccomp profile does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => {}
            answer => return answer,
        }
    }
    open_by_component(base, names, flags, mode)
}

/// The same promise without `openat2`: one component at a time, none of them a link.
fn open_by_component(
    base: BorrowedFd<'_>,
    names: &[OsString],
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let Some((last, parents)) = names.split_last() else {
        return rustix::fs::openat(base, ".", flags, mode);
    };
    let mut handle: Option<OwnedFd> = None;
    for name in parents {
        plain_name(name)?;
        let here = handle.as_ref().map_or(base, |handle| handle.as_fd());
        let next = rustix::fs::openat(here, name, directory_flags() | OFlags::NOFOLLOW, Mode::empty())?;
        handle = Some(next);
    }
    plain_name(last)?;
    let here = handle.as_ref().map_or(base, |handle| handle.as_fd());
    rustix::fs::openat(here, last, flags | OFlags::NOFOLLOW, mode)
}

fn plain_name(name: &OsStr) -> Result<(), Errno> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        return Err(Errno::XDEV);
    }
    Ok(())
}

fn refused<T>(message: String) -> Result<T, WorkspaceError> {
    Err(WorkspaceError::Refused(message))
}

/// What the model can repair stays with it; a full or read-only disk is the user's.
pub fn io_error(verb: &str, path: &str, errno: Errno) -> WorkspaceError {
    let user = |message: String, hint: &str| WorkspaceError::Machine { message, hint: hint.into() };
    match errno {
        Errno::NOSPC | Errno::DQUOT => {
            user(format!("cannot {verb} {path}: the disk is full"), "free some space and try again")
        }
        Errno::ROFS => user(
            format!("cannot {verb} {path}: the file system is read-only"),
            "mount it writable, or work on a copy elsewhere",
        ),
        Errno::MFILE | Errno::NFILE => {
            user(format!("cannot {verb} {path}: too many open files"), "raise the limit with ulimit -n")
        }
        Errno::IO => user(format!("cannot {verb} {path}: the disk reports an error"), "check the disk"),
        Errno::LOOP | Errno::XDEV => WorkspaceError::Refused(format!(
            "{path} changed to a symbolic link while it was being opened; nothing was done"
        )),
        Errno::ACCESS | Errno::PERM => {
            WorkspaceError::Refused(format!("cannot {verb} {path}: permission denied; use another file"))
        }
        Errno::NAMETOOLONG => {
            WorkspaceError::Refused(format!("cannot {verb} {path}: the name is too long; use a shorter one"))
        }
        other => WorkspaceError::Refused(format!("cannot {verb} {path}: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str) -> Vec<OsString> {
        path.split('/').map(OsString::from).collect()
    }

    #[test]
    fn both_ways_of_opening_refuse_links_and_agree_on_plain_files() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        std::fs::write(root.path().join("a/b/f"), "f").unwrap();
        std::fs::write(outside.path().join("f"), "secret").unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("out")).unwrap();
        std::os::unix::fs::symlink("b/f", root.path().join("a/link")).unwrap();
        let base = rustix::fs::open(root.path(), directory_flags(), Mode::empty()).unwrap();
        for open in [open_beneath, open_by_component] {
            let try_open = |path: &str| open(base.as_fd(), &names(path), OFlags::RDONLY, Mode::empty());
            assert!(try_open("a/b/f").is_ok());
            for path in ["out/f", "out", "a/link", "../f", "a/../../f"] {
                assert!(try_open(path).is_err(), "{path} must not open");
            }
        }
    }

    #[test]
    fn names_fold_as_the_most_forgiving_file_system_would() {
        for name in [".git", ".GIT", ".Git", ".git.", ".git ", ".g\u{200c}it", ".git. ."] {
            assert_eq!(fold_name(OsStr::new(name)), ".git", "{name:?}");
        }
        assert_ne!(fold_name(OsStr::new(".gitignore")), ".git");
        assert_ne!(fold_name(OsStr::new(".github")), ".git");
    }
}
