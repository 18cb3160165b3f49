//! What a command of the reduced tier may reach: Landlock opens directories, it cannot close a part of an open one. So
//! what the full tier hides or covers is left out here, its siblings opened one by one. [`super::restrict`] carries it
//! out in the helper.

use super::layout::{Layout, Wanted};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Paths are absolute; those that are not there are passed over.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Reach {
    /// Read, run, write, make and remove.
    pub writable: Vec<OsString>,
    /// Read and run.
    pub readable: Vec<OsString>,
}

/// Devices that every program may write to; the others of these only give.
const DEVICES: &[(&str, bool)] = &[
    ("/dev/null", true),
    ("/dev/zero", true),
    ("/dev/full", true),
    ("/dev/random", false),
    ("/dev/urandom", false),
];
/// Build caches that cannot be layered here get a directory of ours.
const CACHES: &[(&str, &str)] = &[
    ("GOCACHE", "go-build"),
    ("PIP_CACHE_DIR", "pip"),
    ("UV_CACHE_DIR", "uv"),
    ("XDG_CACHE_HOME", "other"),
    ("YARN_CACHE_FOLDER", "yarn"),
    ("npm_config_cache", "npm"),
];

impl Reach {
    /// `temporary`: the command's own directory for temporary files, `caches`: for what builds write to.
    pub fn new(wanted: &Wanted<'_>, temporary: &Path, caches: &Path) -> Result<Self, &'static str> {
        let layout = Layout::new(wanted)?;
        let hidden: Vec<&Path> = layout.hidden.iter().map(Path::new).collect();
        if hidden.iter().any(|path| path.starts_with(wanted.workspace)) {
            return Err("it holds what this sandbox has to hide (the session store?)");
        }
        let covered = layout.scratch.iter().map(|scratch| Path::new(&scratch.path));
        let closed: Vec<&Path> = hidden.iter().copied().chain(covered).chain([Path::new("/dev")]).collect();
        let mut readable = Vec::new();
        open_but(Path::new("/"), &closed, &mut readable);
        for toolchain in &layout.toolchains {
            // They may go through links: what counts is where they lead.
            if let Ok(real) = Path::new(&toolchain.path).canonicalize() {
                open_but(&real, &hidden, &mut readable);
            }
        }
        let mut reach = Self { writable: Vec::new(), readable };
        for (device, writes) in DEVICES {
            if *writes { &mut reach.writable } else { &mut reach.readable }.push(device.into());
        }
        reach.writable.extend([wanted.workspace, temporary, caches].map(Into::into));
        Ok(reach)
    }

    /// The environment with temporary files and caches where they may be written.
    pub fn environment(
        environment: Vec<(OsString, OsString)>,
        temporary: &Path,
        caches: &Path,
    ) -> Vec<(OsString, OsString)> {
        let mut own: Vec<(OsString, OsString)> =
            CACHES.iter().map(|(name, directory)| (name.into(), caches.join(directory).into())).collect();
        own.push(("TMPDIR".into(), temporary.into()));
        // Where the home is closed git takes the user's settings for damaged ones and stops; they are not for commands.
        own.push(("GIT_CONFIG_GLOBAL".into(), "/dev/null".into()));
        own.push(("XDG_CONFIG_HOME".into(), caches.join("config").into()));
        let home_is_tmp = environment.iter().any(|(name, value)| name == "HOME" && value == "/tmp");
        if home_is_tmp {
            own.push(("HOME".into(), temporary.into()));
        }
        let kept = environment.into_iter().filter(|(name, _)| !own.iter().any(|(own, _)| own == name));
        let mut kept: Vec<(OsString, OsString)> = kept.collect();
        kept.extend(own);
        kept
    }
}

/// Opens `path`, or where some of it is closed, what lies beside that.
fn open_but(path: &Path, closed: &[&Path], open: &mut Vec<OsString>) {
    if closed.contains(&path) {
        return;
    }
    if !closed.iter().any(|closed| closed.starts_with(path)) {
        open.push(path.into());
        return;
    }
    // A link opens nothing: Landlock looks at where it leads.
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let children = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()));
    let mut children: Vec<PathBuf> = children.map(|entry| entry.path()).collect();
    children.sort();
    children.iter().for_each(|child| open_but(child, closed, open));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_stays_closed_and_its_siblings_open() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for path in ["a/b/secret", "a/c", "d", "e/private"] {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("a/b/secret"), root.join("a/link")).unwrap();
        std::fs::write(root.join("a/b/file"), "").unwrap();
        let closed = [root.join("a/b/secret"), root.join("e")];
        let closed: Vec<&Path> = closed.iter().map(PathBuf::as_path).collect();
        let mut open = Vec::new();
        open_but(root, &closed, &mut open);
        let shown: Vec<&Path> = open.iter().map(|path| Path::new(path).strip_prefix(root).unwrap()).collect();
        assert_eq!(shown, ["a/b/file", "a/c", "d"].map(Path::new));
    }

    #[test]
    fn temporary_files_and_caches_go_where_they_may_be_written() {
        let given = [("PATH", "/bin"), ("TMPDIR", "/tmp"), ("HOME", "/tmp"), ("GOCACHE", "/home/u/x")];
        let given = given.map(|(name, value)| (OsString::from(name), OsString::from(value))).to_vec();
        let environment = Reach::environment(given, Path::new("/t"), Path::new("/c"));
        let get = |wanted: &str| {
            let mut found = environment.iter().filter(|(name, _)| name == wanted);
            let value = found.next().map(|(_, value)| value.to_str().unwrap());
            assert!(found.next().is_none(), "{wanted} twice");
            value
        };
        assert_eq!(get("PATH"), Some("/bin"));
        assert_eq!(
            (get("TMPDIR"), get("HOME"), get("GOCACHE")),
            (Some("/t"), Some("/t"), Some("/c/go-build"))
        );
    }
}
