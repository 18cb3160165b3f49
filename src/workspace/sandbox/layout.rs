//! What a command sees of the file system, decided here and carried out by [`super::mounts`] in the helper.
//!
//! Everything is read-only except the workspace. Over that lie private, empty directories (`/tmp`, `/run`, home);
//! what builds need of them is shown again: toolchains read-only, build caches through a layer of our own. Every
//! path keeps its name. Sockets get special care: a read-only mount does not stop `connect`.

use super::repositories::{Snapshot, shared_by};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Paths are absolute and free of links unless said otherwise.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Layout {
    /// Writable.
    pub workspace: OsString,
    /// Private and empty.
    pub scratch: Vec<Scratch>,
    /// Shown inside scratch directories; may go through links.
    pub toolchains: Vec<Toolchain>,
    /// In the workspace, writable, but not to be moved or removed: each becomes a mount point.
    pub pinned: Vec<OsString>,
    pub read_only: Vec<OsString>,
    /// Files and sockets seem empty, directories too.
    pub hidden: Vec<OsString>,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Scratch {
    pub path: OsString,
    pub mode: u32,
    /// Of the machine's memory, at most.
    pub percent: u32,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Toolchain {
    pub path: OsString,
    /// Where writes go instead of to `path`; `None`: read-only.
    pub layer: Option<OsString>,
}

/// What a layout is made from.
pub struct Wanted<'a> {
    pub workspace: &'a Path,
    pub environment: &'a [(OsString, OsString)],
    pub repositories: &'a Snapshot,
    pub read_only: &'a [PathBuf],
    pub hidden: &'a [PathBuf],
    /// Our own temporary directory: logs and layers.
    pub state: &'a Path,
    /// An own directory, outside the workspace, for writes to build caches.
    pub layer: &'a Path,
}

/// In a home: programs and libraries, no settings of the user.
#[rustfmt::skip]
const TOOLCHAINS: &[&str] = &[
    ".asdf", ".bun", ".cabal", ".conda", ".deno", ".dotnet", ".elan", ".fnm", ".ghcup", ".goenv", ".jdks", ".jenv",
    ".juliaup", ".local/bin", ".local/lib", ".local/pipx", ".local/share/fnm", ".local/share/mise",
    ".local/share/pipx", ".local/share/pnpm", ".local/share/rtx", ".local/share/uv", ".nix-profile", ".nvm", ".opam",
    ".pyenv", ".rbenv", ".rustup", ".sdkman", ".stack", ".swiftly", ".volta", "anaconda3", "miniconda3", "miniforge3",
    "sdk",
];
/// In a home: what builds write to.
#[rustfmt::skip]
const CACHES: &[&str] = &[
    ".cache/go-build", ".cache/pip", ".cache/uv", ".cache/yarn", ".cargo", ".gem", ".gradle", ".ivy2", ".m2", ".npm",
    "go",
];
/// Inside the caches: programs that later commands run, so no layer of ours may change them.
const CACHED_PROGRAMS: &[&str] = &["bin"];
/// In a home or a toolchain directory: keys and tokens.
#[rustfmt::skip]
const CREDENTIALS: &[&str] = &[
    ".aws", ".azure", ".bash_history", ".config", ".docker", ".git-credentials", ".gnupg", ".kube",
    ".local/share/keyrings", ".mozilla", ".netrc", ".npmrc", ".password-store", ".pgpass", ".pypirc", ".ssh",
    ".terraform.d", ".terraformrc", ".thunderbird", ".vault-token", ".zsh_history", ".yarnrc.yml",
    ".cabal/config", ".cargo/credentials", ".cargo/credentials.toml", ".dotnet/corefx/cryptography",
    ".gem/credentials", ".gradle/gradle.properties", ".gradle/init.gradle", ".ivy2/.credentials",
    ".m2/settings-security.xml", ".m2/settings.xml", ".npm/_logs",
];
/// What root could read of the system's own.
#[rustfmt::skip]
const SYSTEM_CREDENTIALS: &[&str] = &[
    "/etc/gshadow", "/etc/gshadow-", "/etc/krb5.keytab", "/etc/shadow", "/etc/shadow-", "/etc/ssh", "/etc/ssl/private",
    "/etc/sudoers", "/etc/sudoers.d", "/etc/wireguard", "/etc/NetworkManager", "/var/lib/docker", "/var/lib/kubelet",
    "/var/spool/cron",
];
/// In whatever directory a variable names as a toolchain.
const TOOLCHAIN_CREDENTIALS: &[&str] =
    &["credentials", "credentials.toml", "gradle.properties", "init.gradle", ".npmrc", ".netrc"];
#[rustfmt::skip]
const CACHE_VARIABLES: &[&str] =
    &["CARGO_HOME", "GEM_HOME", "GOCACHE", "GOMODCACHE", "GOPATH", "GRADLE_USER_HOME"];
#[rustfmt::skip]
const TOOLCHAIN_VARIABLES: &[&str] = &[
    "ANDROID_HOME", "BUN_INSTALL", "CONDA_PREFIX", "DENO_DIR", "GOROOT", "JAVA_HOME", "NVM_DIR", "PNPM_HOME",
    "PYENV_ROOT", "RBENV_ROOT", "RUSTUP_HOME", "SDKMAN_DIR", "VIRTUAL_ENV", "VOLTA_HOME",
];
/// A home that is one of these (service users have such) is the system's and stays.
const SYSTEM: &[&str] =
    &["/", "/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr", "/var"];

impl Layout {
    pub fn new(wanted: &Wanted<'_>) -> Result<Self, &'static str> {
        let workspace = wanted.workspace;
        if SYSTEM.iter().any(|system| workspace == Path::new(system)) {
            return Err("it is a directory of the system");
        }
        if ["/dev", "/proc", "/sys"].iter().any(|kernel| workspace.starts_with(kernel))
            && !workspace.starts_with("/dev/shm")
        {
            return Err("it is a directory of the kernel");
        }
        let homes = homes(wanted.environment);
        if homes.iter().any(|home| home == workspace) {
            // Everything there steers later logins and programs; hiding it would hide the workspace.
            return Err("it is your home directory");
        }
        let mut layout = Self { workspace: workspace.into(), ..Self::default() };
        layout.add_scratch(workspace, &homes);
        layout.add_toolchains(wanted, &homes);
        // In a linked work tree git works only with the directory that it shares; it stays read-only.
        if let Some(shared) = shared_by(workspace) {
            layout.show(workspace, &shared, None);
        }
        layout.add_credentials(wanted, &homes);
        for path in &wanted.repositories.pinned {
            layout.pinned.push(path.into());
        }
        for path in &wanted.repositories.read_only {
            layout.read_only.push(path.into());
        }
        for path in wanted.read_only {
            let path = workspace.join(path);
            if path.starts_with(workspace) && path != workspace && path.exists() {
                layout.read_only.push(path.into());
            }
        }
        for path in wanted.hidden.iter().map(PathBuf::as_path).chain([wanted.state]) {
            layout.hide(&workspace.join(path));
        }
        layout.hide_sockets();
        Ok(layout)
    }

    fn add_scratch(&mut self, workspace: &Path, homes: &[PathBuf]) {
        let system = ["/tmp", "/var/tmp", "/run", "/var/run"].map(PathBuf::from);
        // Permissions keep users out of each other's homes, but not root.
        let others = ["/root", "/home"].map(PathBuf::from);
        let others = others.iter().filter(|_| rustix::process::getuid().is_root());
        for path in system.iter().chain(homes).chain(others) {
            // `/var/run` is mostly a link to `/run`: the real directory counts.
            let Ok(path) = path.canonicalize() else { continue };
            let known = self.scratch.iter().any(|scratch| scratch.path == path);
            if known || path == workspace || SYSTEM.iter().any(|system| path == Path::new(system)) {
                continue;
            }
            let (mode, percent) = match path.to_str() {
                Some("/tmp" | "/var/tmp") => (0o1777, 25),
                Some("/run" | "/var/run") => (0o755, 1),
                _ => (0o700, 10),
            };
            self.scratch.push(Scratch { path: path.into(), mode, percent });
        }
    }

    fn in_scratch(&self, path: &Path) -> bool {
        self.scratch.iter().any(|scratch| path != scratch.path && path.starts_with(&scratch.path))
    }

    fn add_toolchains(&mut self, wanted: &Wanted<'_>, homes: &[PathBuf]) {
        let variable = |name: &&str| {
            let value = wanted.environment.iter().find(|(known, _)| known == OsStr::new(name));
            value.map(|(_, value)| PathBuf::from(value)).filter(|path| path.is_absolute())
        };
        let in_homes = |names: &'static [&str]| {
            homes.iter().flat_map(move |home| names.iter().map(move |name| home.join(name)))
        };
        let caches: Vec<PathBuf> =
            CACHE_VARIABLES.iter().filter_map(variable).chain(in_homes(CACHES)).collect();
        for (index, path) in caches.iter().enumerate() {
            let layer = wanted.layer.join(index.to_string());
            if self.show(wanted.workspace, path, Some(layer)) {
                for programs in CACHED_PROGRAMS {
                    self.show(wanted.workspace, &path.join(programs), None);
                }
            }
        }
        let path_variable = wanted.environment.iter().find(|(name, _)| name == "PATH");
        let path_entries: Vec<PathBuf> =
            path_variable.map(|(_, value)| std::env::split_paths(value).collect()).unwrap_or_default();
        let toolchains = TOOLCHAIN_VARIABLES.iter().filter_map(variable).chain(in_homes(TOOLCHAINS));
        for path in toolchains.chain(path_entries) {
            self.show(wanted.workspace, &path, None);
        }
        // The names of machines are looked up in a file that is often a link into `/run`.
        if let Ok(resolver) = Path::new("/etc/resolv.conf").canonicalize() {
            self.show(wanted.workspace, &resolver, None);
        }
    }

    /// Shows `path`; false where that is not needed, would undo the hiding, or would cover the workspace.
    fn show(&mut self, workspace: &Path, path: &Path, layer: Option<PathBuf>) -> bool {
        let Ok(real) = path.canonicalize() else { return false };
        // A path that lies in no scratch directory is there anyway, read-only: only a cache still needs its layer.
        let at = if self.in_scratch(path) { path } else { &real };
        let uncovers = self.scratch.iter().any(|scratch| Path::new(&scratch.path).starts_with(at));
        let known = self.toolchains.iter().any(|toolchain| toolchain.path == at);
        let has_dots = at.components().any(|part| part == std::path::Component::ParentDir);
        if uncovers || known || has_dots || at.starts_with(workspace) || real.starts_with(workspace) {
            return false;
        }
        let inside_shown = self.toolchains.iter().any(|toolchain| at.starts_with(&toolchain.path));
        if layer.is_none() && !self.in_scratch(at) && !inside_shown {
            return false;
        }
        let layer = layer.filter(|layer| {
            real.is_dir()
                && ["upper", "work"].iter().all(|part| std::fs::create_dir_all(layer.join(part)).is_ok())
        });
        self.toolchains.push(Toolchain { path: at.into(), layer: layer.map(Into::into) });
        true
    }

    fn add_credentials(&mut self, wanted: &Wanted<'_>, homes: &[PathBuf]) {
        let mut paths: Vec<PathBuf> =
            homes.iter().flat_map(|home| CREDENTIALS.iter().map(move |name| home.join(name))).collect();
        for toolchain in &self.toolchains {
            paths.extend(TOOLCHAIN_CREDENTIALS.iter().map(|name| Path::new(&toolchain.path).join(name)));
        }
        // Outside scratch directories a variable's toolchain is visible as it is.
        for (name, value) in wanted.environment {
            let names_toolchain = |known: &&str| name == OsStr::new(known);
            if CACHE_VARIABLES.iter().chain(TOOLCHAIN_VARIABLES).any(names_toolchain) {
                paths.extend(TOOLCHAIN_CREDENTIALS.iter().map(|file| Path::new(value).join(file)));
            }
        }
        if rustix::process::getuid().is_root() {
            paths.extend(SYSTEM_CREDENTIALS.iter().map(PathBuf::from));
        }
        for path in paths {
            // What lies in a scratch directory is gone, unless it is shown again as part of a toolchain.
            let shown = self.toolchains.iter().any(|toolchain| path.starts_with(&toolchain.path));
            if shown || !self.in_scratch(&path) {
                self.hide(&path);
            }
        }
    }

    fn hide(&mut self, path: &Path) {
        let Ok(metadata) = path.symlink_metadata() else { return };
        // What a link shows is hidden where it lies; the link itself cannot be covered.
        let real = if metadata.is_symlink() { path.canonicalize().ok() } else { Some(path.to_path_buf()) };
        if let Some(real) = real.filter(|real| !Path::new(&self.workspace).starts_with(real)) {
            let known = self.hidden.iter().any(|hidden| *hidden == real);
            let gone = self.in_scratch(&real)
                && !real.starts_with(&self.workspace)
                && !self.toolchains.iter().any(|toolchain| real.starts_with(&toolchain.path));
            if !known && !gone {
                self.hidden.push(real.into());
            }
        }
    }

    /// Sockets of services (a container daemon's makes whoever connects root) that lie in no hidden directory.
    fn hide_sockets(&mut self) {
        let Ok(table) = std::fs::read("/proc/net/unix") else { return };
        for line in table.split(|byte| *byte == b'\n').skip(1) {
            let Some(start) = line.windows(2).position(|pair| pair == b" /") else { continue };
            let path = Path::new(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&line[start + 1..]));
            if !path.starts_with(&self.workspace) {
                self.hide(path);
            }
        }
    }
}

/// The user's home as the environment and as the system name it.
fn homes(environment: &[(OsString, OsString)]) -> Vec<PathBuf> {
    let named = environment.iter().find(|(name, _)| name == "HOME").map(|(_, value)| PathBuf::from(value));
    let user = rustix::process::getuid().as_raw();
    let listed = std::fs::read_to_string("/etc/passwd").ok().and_then(|text| {
        let mut entries = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let own = entries.find(|fields| fields.get(2).and_then(|id| id.parse::<u32>().ok()) == Some(user))?;
        own.get(5).map(PathBuf::from)
    });
    let ours = std::env::var_os("HOME").map(PathBuf::from);
    let mut homes: Vec<PathBuf> = Vec::new();
    for home in [named, ours, listed].into_iter().flatten() {
        if let Ok(home) = home.canonicalize()
            && !homes.contains(&home)
        {
            homes.push(home);
        }
    }
    homes
}

/// Gives directories below `root` back the modes that deleting needs.
pub fn make_deletable(root: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(metadata) = root.symlink_metadata() else { return };
    if !metadata.is_dir() {
        return;
    }
    if metadata.permissions().mode() & 0o700 != 0o700 {
        let _ = std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o700));
    }
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        make_deletable(&entry.path());
    }
}
