//! The shell and its sandbox, by real commands: what they must be able to do, how they end, and a long list of ways
//! out that must all be closed. The list runs twice where the tests run as root: a second time as an ordinary user.
//!
//! Where no full sandbox can be had these tests fail; `QWRIGHT_TEST_NO_SANDBOX=1` says that this is known.

use qwright::workspace::shell::{
    SandboxChoice, SandboxTier, Shell, ShellCommand, ShellError, ShellOutcome, ShellSettings, quote,
};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ORDINARY_USER: u32 = 65534;

fn helper() -> PathBuf {
    std::env::var_os("QWRIGHT_TEST_HELPER").unwrap_or_else(|| env!("CARGO_BIN_EXE_qwright").into()).into()
}

fn shell_of(choice: SandboxChoice) -> Shell {
    Shell::with(ShellSettings { choice, helper: Some(helper()), ..ShellSettings::default() })
}

/// The full sandbox; `None` only where the environment says that it is known not to be there.
fn full() -> Option<&'static Shell> {
    static SHELL: OnceLock<Shell> = OnceLock::new();
    if std::env::var_os("QWRIGHT_TEST_NO_SANDBOX").is_some_and(|value| value == "1") {
        eprintln!("not tested: QWRIGHT_TEST_NO_SANDBOX=1");
        return None;
    }
    let shell = SHELL.get_or_init(|| shell_of(SandboxChoice::Auto));
    assert_eq!(shell.tier(), SandboxTier::Full, "{}", shell.status_line());
    Some(shell)
}

/// The tier for places without namespaces; `None` as for `full`.
fn reduced() -> Option<&'static Shell> {
    static SHELL: OnceLock<Shell> = OnceLock::new();
    if std::env::var_os("QWRIGHT_TEST_NO_SANDBOX").is_some_and(|value| value == "1") {
        eprintln!("not tested: QWRIGHT_TEST_NO_SANDBOX=1");
        return None;
    }
    let shell = SHELL.get_or_init(|| shell_of(SandboxChoice::Reduced));
    assert_eq!(shell.tier(), SandboxTier::Reduced, "{}", shell.status_line());
    Some(shell)
}

fn none() -> &'static Shell {
    static SHELL: OnceLock<Shell> = OnceLock::new();
    SHELL.get_or_init(|| shell_of(SandboxChoice::None))
}

fn command(line: &str) -> ShellCommand {
    ShellCommand { command: line.into(), ..ShellCommand::default() }
}

fn run(shell: &Shell, root: &Path, line: &str) -> ShellOutcome {
    run_command(shell, root, &command(line))
}

fn run_command(shell: &Shell, root: &Path, command: &ShellCommand) -> ShellOutcome {
    shell.run(root, command, &AtomicBool::new(false), &mut |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

/// Directories to put workspaces in: `/tmp`, which the sandbox replaces, and one that it does not.
fn bases() -> Vec<PathBuf> {
    let elsewhere =
        std::env::var_os("QWRIGHT_TEST_BASE").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    [std::env::temp_dir(), elsewhere.into()].into_iter().filter(|base| base.is_dir()).collect()
}

/// A workspace with a repository in it, and a directory beside it that must stay as it is.
struct Place {
    _directory: tempfile::TempDir,
    workspace: PathBuf,
    outside: PathBuf,
}

impl Place {
    fn new(base: &Path) -> Self {
        let directory = tempfile::tempdir_in(base).unwrap();
        let root = directory.path().canonicalize().unwrap();
        let (workspace, outside) = (root.join("workspace"), root.join("outside"));
        for path in
            [".git/hooks", ".git/objects", ".git/refs/heads", ".git/modules/sub/hooks", ".hooks", "sub"]
        {
            std::fs::create_dir_all(workspace.join(path)).unwrap();
        }
        std::fs::create_dir(&outside).unwrap();
        let config =
            "[core]\n\trepositoryformatversion = 0\n\thooksPath = .hooks\n[include]\n\tpath = ../shared\n";
        for (path, text) in [
            ("workspace/.git/config", config),
            ("workspace/.git/HEAD", "ref: refs/heads/main\n"),
            ("workspace/.git/hooks/pre-push.sample", "#!/bin/sh\n"),
            ("workspace/.git/modules/sub/config", "[core]\n"),
            ("workspace/.hooks/pre-commit", "#!/bin/sh\n"),
            ("workspace/shared", "[user]\n"),
            ("workspace/sub/.git", "gitdir: ../.git/modules/sub\n"),
            ("workspace/evil", "[core]\n\tfsmonitor = touch /tmp/owned\n"),
            ("outside/kept", "kept\n"),
        ] {
            std::fs::write(root.join(path), text).unwrap();
        }
        Self { _directory: directory, workspace, outside }
    }

    fn temporary() -> Self {
        Self::new(&std::env::temp_dir())
    }

    /// All that no command may change: content, mode and time of every file.
    fn guarded(&self) -> BTreeMap<PathBuf, String> {
        let mut seen = BTreeMap::new();
        let paths =
            [".git/config", ".git/hooks", ".git/modules", ".git/commondir", ".hooks", "shared", "sub/.git"];
        for path in paths.iter().map(|path| self.workspace.join(path)).chain([self.outside.clone()]) {
            record(&path, &mut seen);
        }
        seen
    }
}

fn record(path: &Path, seen: &mut BTreeMap<PathBuf, String>) {
    let Ok(metadata) = path.symlink_metadata() else { return };
    let content = if metadata.is_file() { std::fs::read(path).unwrap() } else { Vec::new() };
    let content = String::from_utf8_lossy(&content).into_owned();
    let times = (metadata.mtime(), metadata.mtime_nsec());
    let links = if metadata.is_file() { metadata.nlink() } else { 0 };
    seen.insert(path.into(), format!("{:o} {times:?} {links} {content}", metadata.mode()));
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            record(&entry.unwrap().path(), seen);
        }
    }
}

/// Whether an attempt succeeds without a sandbox, which shows that it is one.
#[derive(Clone, Copy, PartialEq)]
enum Outside {
    Works,
    /// For root alone.
    WorksForRoot,
    /// Depends on the machine, or would harm it.
    Untried,
}
use Outside::{Untried, Works, WorksForRoot};

/// Shell lines that must fail. `$OUT` is the directory beside the workspace, `$PORT` a server on the host,
/// `$ATTEMPT` the program of `fixtures/shell/attempts.c`.
#[rustfmt::skip]
const REFUSED: &[(&str, Outside)] = &[
    // Files outside.
    ("echo x > /etc/qwright-test", Untried),
    ("echo x > /usr/qwright-test", Untried),
    ("echo x > /qwright-test", Untried),
    ("echo x > /var/lib/qwright-test", Untried),
    ("echo x > \"$OUT/new\"", Works),
    ("echo x >> \"$OUT/kept\"", Works),
    ("touch -d 2000-01-01 \"$OUT/kept\"", Works),
    ("chmod 777 \"$OUT/kept\"", Works),
    ("ln \"$OUT/kept\" hard && echo x >> hard", Works),
    ("ln -s \"$OUT/kept\" soft && echo x >> soft", Works),
    ("ln -s \"$OUT\" softly && touch softly/new", Works),
    ("cd .. && echo x >> outside/kept", Works),
    ("truncate -s 0 \"$OUT/kept\"", Works),
    ("mv \"$OUT/kept\" stolen", Works),
    ("rm \"$OUT/kept\"", Works),
    ("rmdir \"$OUT\" || rm -r \"$OUT\"", Works),
    // What steers git.
    ("echo x >> .git/config", Works),
    ("cp evil .git/config", Works),
    ("sed -i s/0/1/ .git/config", Works),
    ("ln .git/config hard && cat evil > hard", Works),
    ("ln -s .git/config soft && cat evil > soft", Works),
    ("chmod 777 .git/config", Works),
    ("mv evil .git/config", Works),
    ("mv .git/config .git/old", Works),
    ("rm .git/config", Works),
    ("git config core.fsmonitor x", Works),
    ("echo x > .git/hooks/pre-commit", Works),
    ("mv .git/hooks .git/old", Works),
    ("rm -r .git/hooks", Works),
    ("echo x >> .git/modules/sub/config", Works),
    ("mkdir -p .git/modules/other/hooks", Works),
    ("mv .git elsewhere", Works),
    ("rm -rf .git", Works),
    ("echo x >> .hooks/pre-commit", Works),
    ("mv .hooks other", Works),
    ("echo x > .hooks/post-checkout", Works),
    ("cat evil > shared", Works),
    ("rm shared", Works),
    ("echo 'gitdir: /tmp/x' > sub/.git", Works),
    ("rm sub/.git", Works),
    ("cd .git && cat ../evil > config", Works),
    ("cat evil > /proc/self/cwd/.git/config", Works),
    ("cat evil > /proc/self/root/\"$PWD\"/.git/config", Works),
    // Mounts and namespaces, with the tools people use.
    ("mount -o remount,rw /", Untried),
    ("mount -o remount,bind,rw .git/config", Untried),
    ("mount --bind \"$OUT\" sub", Untried),
    ("umount .git/config", Untried),
    ("umount -l .git", Untried),
    ("umount -l /tmp", Untried),
    ("unshare -Ur true", Works),
    ("unshare -m true", WorksForRoot),
    ("unshare -Urm mount --bind \"$OUT\" sub", Works),
    ("nsenter -t 1 -m true", Untried),
    ("nsenter -t 1 -U true", Untried),
    ("chroot / true", WorksForRoot),
    ("mknod device c 1 1", WorksForRoot),
    ("mknod device b 8 0", WorksForRoot),
    // The machine.
    ("find /proc/sys /sys -type f -writable 2>/dev/null | grep -q .", WorksForRoot),
    ("echo h > /proc/sysrq-trigger", Untried),
    ("echo x > /proc/sys/kernel/core_pattern", Untried),
    ("echo x > /proc/sys/kernel/hostname", Untried),
    ("hostname qwright", Untried),
    ("cat /proc/1/environ", Untried),
    ("ls /proc/1/root/", Untried),
    ("readlink /proc/1/fd/0", Untried),
    ("cat /etc/shadow | grep .", WorksForRoot),
    ("find / -xdev -maxdepth 1 -newermt 2100-01-01 -o -name 'qwright-test*' | grep -q .", Untried),
    ("ls /dev | grep -vxE 'full|null|random|urandom|zero|shm|pts|ptmx|fd|std(in|out|err)'", Works),
    ("head -c 1 /dev/mem /dev/kmsg /dev/vda /dev/sda /dev/nvme0n1", Untried),
    ("ls /run /var/run/ | grep -vE '^$|:$|^resolvconf$|^systemd$'", Untried),
    ("test -n \"$(find /tmp -mindepth 1 -maxdepth 1 ! -path \"/tmp/$TOP\" ! -path \"$(dirname ~)\")\"", Untried),
    // Privileges.
    ("grep -E '^Cap[A-Z][a-z]+:.*[1-9a-f]' /proc/self/status | grep -vi 'Sec'", WorksForRoot),
    ("grep '^NoNewPrivs:.0' /proc/self/status", Untried),
    ("grep '^Seccomp:.0' /proc/self/status", Works),
    ("su nobody -s /bin/sh -c true", WorksForRoot),
    ("sudo -n true", Untried),
    ("setpriv --reuid 12345 --clear-groups true", WorksForRoot),
    ("chmod u+s evil", Works),
    ("install -m 4755 evil special", Works),
    ("chown 12345 evil", WorksForRoot),
    ("ulimit -f unlimited && ulimit -c unlimited", Untried),
    // The network.
    ("exec 3<> /dev/tcp/127.0.0.1/$PORT", Works),
    ("exec 3<> /dev/tcp/1.1.1.1/53", Untried),
    ("getent hosts example.com", Untried),
    ("ip link add x type dummy", Untried),
    ("grep -qvE '^ *(lo:|face|Inter)' /proc/net/dev", Untried),
    ("$ATTEMPT local-socket \"$OUT/socket\"", Works),
    ("$ATTEMPT abstract-socket \"$ABSTRACT\"", Works),
    // System calls.
    ("$ATTEMPT unshare-user", Works),
    ("$ATTEMPT unshare-mount", WorksForRoot),
    ("$ATTEMPT unshare-time", WorksForRoot),
    ("$ATTEMPT clone-user", Works),
    ("$ATTEMPT clone3-user", Works),
    ("$ATTEMPT setns", Untried),
    ("$ATTEMPT mount", Untried),
    ("$ATTEMPT umount", Untried),
    ("$ATTEMPT open-tree", WorksForRoot),
    ("$ATTEMPT fsopen", WorksForRoot),
    ("$ATTEMPT mount-setattr", Untried),
    ("$ATTEMPT pivot-root", Untried),
    ("$ATTEMPT chroot", WorksForRoot),
    ("$ATTEMPT bpf", Untried),
    ("$ATTEMPT io-uring", Untried),
    ("$ATTEMPT perf", Untried),
    ("$ATTEMPT userfaultfd", Untried),
    ("$ATTEMPT keyring", Untried),
    ("$ATTEMPT syslog", Untried),
    ("$ATTEMPT trace-init", Untried),
    ("$ATTEMPT read-init", Untried),
    ("$ATTEMPT init-descriptors", Untried),
    ("$ATTEMPT type-into-terminal", Untried),
    ("$ATTEMPT type-into-terminal-wide", Untried),
    ("$ATTEMPT netlink-audit", Untried),
    ("$ATTEMPT netlink-netfilter", Untried),
    ("$ATTEMPT packet-socket", WorksForRoot),
    ("$ATTEMPT raw-socket", WorksForRoot),
    ("$ATTEMPT vsock", Untried),
    ("$ATTEMPT alg-socket", Untried),
    ("$ATTEMPT open-by-handle", Untried),
    ("$ATTEMPT block-device", WorksForRoot),
    ("$ATTEMPT character-device", WorksForRoot),
    ("$ATTEMPT set-user-id", Works),
    ("$ATTEMPT set-group-id", Works),
    ("$ATTEMPT set-user-id-at", Untried),
    ("$ATTEMPT create-set-user-id", Works),
    ("$ATTEMPT change-owner", WorksForRoot),
    ("$ATTEMPT become-other", WorksForRoot),
    ("$ATTEMPT drop-groups", WorksForRoot),
    ("$ATTEMPT allow-privileges", Untried),
    ("$ATTEMPT set-hostname", Untried),
    ("$ATTEMPT raise-limit", Untried),
    #[cfg(target_arch = "x86_64")]
    ("$ATTEMPT x32", Untried),
    #[cfg(target_arch = "x86_64")]
    ("$ATTEMPT i386", Untried),
    #[cfg(target_arch = "x86_64")]
    ("$ATTEMPT iopl", Untried),
];

/// Lines that may succeed inside, without effect outside.
const WITHOUT_EFFECT: &[&str] = &[
    "mkdir -p \"$OUT\"; echo x > \"$OUT/kept\"; echo x > \"$OUT/new\"",
    "echo x > ../beside; mkdir -p ../outside/new",
    "kill -9 $VICTIM; kill -9 -1",
    "pkill -9 sleep; killall5 -9",
    "chmod -R 000 ../outside .git/config .hooks; chown -R 12345 ..; true",
];

#[test]
fn every_way_out_is_closed() {
    let Some(shell) = full() else { return };
    let mut failures = Vec::new();
    for base in bases() {
        try_all(&base, REFUSED.iter().map(|(line, _)| *line), |place, line| {
            let outcome = run(shell, &place.workspace, line);
            if outcome.output.contains("ESCAPED") || outcome.exit == Some(99) {
                failures.push(format!("{line}\n-> {:?} {}", outcome.exit, outcome.output));
            }
        });
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// The list is only worth something if what it tries is possible where there is no sandbox.
#[test]
fn the_ways_out_are_open_without_a_sandbox() {
    let root = is_root();
    let open = REFUSED.iter().filter(|(_, outside)| *outside == Works || root && *outside == WorksForRoot);
    assert!(open.clone().count() > 50);
    let mut failures = Vec::new();
    for (line, _) in open {
        let place = Place::temporary();
        let host = Host::new(&place);
        let outcome = run(none(), &place.workspace, &host.line(&place, line));
        if !outcome.output.contains("ESCAPED") {
            failures.push(format!("{line}\n-> {:?} {}", outcome.exit, outcome.output));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn what_succeeds_inside_has_no_effect_outside() {
    let Some(shell) = full() else { return };
    for base in bases() {
        try_all(&base, WITHOUT_EFFECT.iter().copied(), |place, line| {
            run(shell, &place.workspace, line);
        });
    }
}

/// What the reduced tier lets succeed: modes and times of files outside, and looking at what is there.
const NOT_HELD_BY_REDUCED: &[&str] = &[
    "chmod 777 \"$OUT/kept\"",
    "touch -d 2000-01-01 \"$OUT/kept\"",
    "find /proc/sys /sys -type f -writable 2>/dev/null | grep -q .",
    "grep -qvE '^ *(lo:|face|Inter)' /proc/net/dev",
    // A user without capabilities cannot empty the set that bounds them; without new privileges it bounds nothing.
    "grep -E '^Cap[A-Z][a-z]+:.*[1-9a-f]' /proc/self/status | grep -vi 'Sec'",
];

/// Content of what is guarded, without times; and modes of what steers git.
fn contents(place: &Place) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    for (path, _) in place.guarded() {
        let metadata = path.symlink_metadata().unwrap();
        let mode = if path.starts_with(&place.outside) { 0 } else { metadata.mode() };
        let text = if metadata.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        if !path.to_string_lossy().contains(".set-aside-") {
            seen.insert(path, format!("{mode:o} {}", String::from_utf8_lossy(&text)));
        }
    }
    seen
}

/// The same list: what does not fail is mended afterwards and told, or stands in the list above.
#[test]
fn the_reduced_tier_closes_or_mends_every_way_out() {
    let Some(shell) = reduced() else { return };
    let mut failures = Vec::new();
    for base in bases() {
        for (line, _) in REFUSED {
            let place = Place::new(&base);
            let mut host = Host::new(&place);
            let before = contents(&place);
            let outcome = run(shell, &place.workspace, &host.line(&place, line));
            let mut fail = |what: &str| {
                let warnings = outcome.warnings.join("; ");
                failures.push(format!("{line}: {what}\n-> {:?} {} {warnings}", outcome.exit, outcome.output));
            };
            let steers = [".git", "git config", ".hooks", "shared"].iter().any(|path| line.contains(path));
            if outcome.output.contains("ESCAPED") && !steers && !NOT_HELD_BY_REDUCED.contains(line) {
                fail("succeeded");
            }
            let gone = place.workspace.join(".git").symlink_metadata().is_err();
            if gone {
                // A repository that was moved or removed as a whole is named; there is nothing to put it back into.
                if !outcome.warnings.iter().any(|warning| warning.contains("removed or moved .git")) {
                    fail("the repository is gone and nobody says so");
                }
            } else if contents(&place) != before {
                fail("something is not as it was");
            } else if steers && outcome.output.contains("ESCAPED") && outcome.warnings.is_empty() {
                fail("it was mended and not told");
            }
            if host.victim.try_wait().unwrap().is_some() {
                fail("a process outside was killed");
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn builds_and_tests_work_in_the_reduced_tier() {
    let Some(shell) = reduced() else { return };
    for base in bases() {
        let place = Place::new(&base);
        for line in [
            "echo x > new && mkdir -p a/b && mv new a/b/new && ln -s a/b/new link && rm -r a link",
            "chmod 755 evil && test -x evil",
            "echo x > \"$TMPDIR/x\" && mktemp && test \"$(cat \"$TMPDIR/x\")\" = x",
            "mkdir -p \"$XDG_CACHE_HOME\" && echo x > \"$XDG_CACHE_HOME/x\"",
            "echo x > /dev/null && head -c 9 /dev/zero /dev/urandom >/dev/null",
            "echo out > /dev/stdout && echo error > /dev/stderr && cat <(echo substituted)",
            "git --no-optional-locks status >/dev/null || true; echo tree > .git/index && rm .git/index",
            "(echo one; sleep 0.01; echo two) | cat & wait; yes | head -1",
            "printf 'int main(){return 0;}' > x.c && cc -o x x.c && ./x",
            "kill -0 $$ && sh -c 'sleep 100 & kill -9 $!'",
        ] {
            let outcome = run(shell, &place.workspace, line);
            assert_eq!(outcome.exit, Some(0), "{line}: {}", outcome.output);
            assert_eq!(outcome.warnings, Vec::<String>::new(), "{line}");
        }
    }
    // What one command leaves in its temporary directory the next does not find; nothing it started lives on.
    let place = Place::temporary();
    let first =
        run(shell, &place.workspace, "echo x > \"$TMPDIR/left\"; echo $TMPDIR; (setsid sleep 600 &) ; true");
    assert!(!Path::new(first.output.trim()).exists(), "{}", first.output);
}

/// Runs each line in a fresh place and looks whether anything guarded changed.
fn try_all<'a>(base: &Path, lines: impl Iterator<Item = &'a str>, mut attempt: impl FnMut(&Place, &str)) {
    let mut place = Place::new(base);
    let mut host = Host::new(&place);
    let mut before = place.guarded();
    for line in lines {
        attempt(&place, &host.line(&place, line));
        assert_eq!(place.guarded(), before, "{line}");
        assert!(host.victim.try_wait().unwrap().is_none(), "{line}: a process outside was killed");
        if !place.workspace.join("evil").exists() || place.workspace.join("special").exists() {
            place = Place::new(base);
            host = Host::new(&place);
            before = place.guarded();
        }
    }
}

/// What an attempt may reach for on the host.
struct Host {
    server: TcpListener,
    _socket: UnixListener,
    _abstract: UnixListener,
    abstract_name: String,
    victim: Child,
}

impl Host {
    fn new(place: &Place) -> Self {
        static ATTEMPT: OnceLock<Vec<u8>> = OnceLock::new();
        let program = ATTEMPT.get_or_init(|| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("attempt");
            let source = directory.path().join("attempt.c");
            std::fs::write(&source, include_str!("../../fixtures/shell/attempts.c")).unwrap();
            let compiled = Command::new("cc").arg("-o").arg(&path).arg(&source).status().unwrap();
            assert!(compiled.success());
            std::fs::read(path).unwrap()
        });
        let path = place.workspace.join("attempt");
        std::fs::write(&path, program).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let abstract_name = format!("qwright-test-{}", place.workspace.display());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        Self {
            server: TcpListener::bind("127.0.0.1:0").unwrap(),
            _socket: UnixListener::bind(place.outside.join("socket")).unwrap(),
            _abstract: UnixListener::bind_addr(&address).unwrap(),
            abstract_name,
            victim: Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap(),
        }
    }

    fn line(&self, place: &Place, line: &str) -> String {
        let top = place.workspace.components().nth(2).unwrap().as_os_str().to_string_lossy().into_owned();
        format!(
            "OUT={}; PORT={}; ABSTRACT={}; VICTIM={}; TOP={}; ATTEMPT=$PWD/attempt\nif {{ {line}\n}}; then echo ESCAPED; else (exit $?); fi",
            quote(&place.outside.to_string_lossy()),
            self.server.local_addr().unwrap().port(),
            quote(&self.abstract_name),
            self.victim.id(),
            quote(&top),
        )
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.victim.kill();
        let _ = self.victim.wait();
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Runs this test binary again with one test, as a process of its own.
fn again(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]);
    command.env("QWRIGHT_TEST_HELPER", helper());
    command
}

fn assert_passed(command: &mut Command) {
    let output = command.output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !text.contains("running 0 tests"), "{text}");
}

/// A file and the directories above it, readable by everyone.
fn open_to_all(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn all_of_it_holds_for_an_ordinary_user_as_well() {
    if !is_root() || std::env::var_os("QWRIGHT_TEST_NO_SANDBOX").is_some() {
        // Then every other test here runs as one.
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    open_to_all(directory.path(), 0o755);
    let copy = |from: &Path, name: &str| {
        let to = directory.path().join(name);
        std::fs::copy(from, &to).unwrap();
        open_to_all(&to, 0o755);
        to
    };
    let tests = copy(&std::env::current_exe().unwrap(), "it");
    let helper = copy(&helper(), "qwright");
    let own = |path: &Path| {
        std::fs::create_dir(path).unwrap();
        std::os::unix::fs::chown(path, Some(ORDINARY_USER), Some(ORDINARY_USER)).unwrap();
    };
    let home = directory.path().join("home");
    own(&home);
    let elsewhere = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    open_to_all(elsewhere.path(), 0o755);
    let base = elsewhere.path().join("base");
    own(&base);
    assert_passed(
        Command::new(tests)
            // The toolchain of the tests may be closed to this user: that test runs as ourselves.
            .args(["shell::", "--skip", "a_project_builds_and_tests_itself", "--test-threads", "2"])
            .uid(ORDINARY_USER)
            .gid(ORDINARY_USER)
            .current_dir("/")
            .env("HOME", home)
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("QWRIGHT_TEST_HELPER", helper)
            .env("QWRIGHT_TEST_BASE", base),
    );
}

#[test]
fn home_is_hidden_except_for_toolchains_and_caches() {
    const INNER: &str = "QWRIGHT_TEST_HOME";
    let Some(shell) = full() else { return };
    if std::env::var_os(INNER).is_none() {
        for base in bases() {
            let home = tempfile::tempdir_in(base).unwrap();
            assert_passed(
                again("shell::home_is_hidden_except_for_toolchains_and_caches")
                    .env(INNER, "1")
                    .env("HOME", home.path())
                    .env("PATH", format!("{}/tools/bin:/usr/bin:/bin", home.path().display()))
                    .env_remove("CARGO_HOME"),
            );
        }
        return;
    }
    let home = PathBuf::from(std::env::var_os("HOME").unwrap());
    let write = |path: &str, text: &str| {
        let path = home.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        open_to_all(&path, 0o755);
    };
    for path in [
        ".ssh/id",
        ".aws/credentials",
        ".gnupg/key",
        ".docker/config.json",
        ".netrc",
        ".npmrc",
        ".bashrc",
        ".config/gh/hosts.yml",
        ".cargo/credentials.toml",
        ".cargo/credentials",
        ".cabal/config",
        ".dotnet/corefx/cryptography/key",
        ".gradle/init.gradle",
        ".ivy2/.credentials",
        ".m2/settings.xml",
        ".gradle/gradle.properties",
        ".npm/_logs/log",
        "other-project/secret",
        ".local/share/keyrings/key",
    ] {
        write(path, "SECRET");
    }
    symlink(home.join(".ssh"), home.join(".cargo/registry-link")).unwrap();
    for path in [".cargo/bin/tool", "tools/bin/mine", ".rustup/settings.toml", ".local/bin/other"] {
        write(path, "#!/bin/sh\necho tool\n");
    }
    write(".cargo/registry/cache", "cached\n");
    write("project/file", "file\n");
    let project = home.join("project");

    let seen = run(shell, &project, "grep -rsL 'no such text' ~ | sort; grep -rs SECRET ~/ && echo ESCAPED");
    let home_text = home.display();
    for path in [
        ".cargo/bin/tool",
        ".cargo/registry/cache",
        "tools/bin/mine",
        ".rustup/settings.toml",
        "project/file",
    ] {
        assert!(seen.output.contains(&format!("{home_text}/{path}\n")), "{path} is missing: {}", seen.output);
    }
    assert!(!seen.output.contains("ESCAPED") && !seen.output.contains("other-project"), "{}", seen.output);

    let outcome = run(shell, &project, "~/.cargo/bin/tool && mine && cat ~/.cargo/credentials.toml");
    assert_eq!((outcome.exit, outcome.output.as_str()), (Some(0), "tool\ntool\n"), "{outcome:?}");
    for line in [
        "echo x >> ~/.cargo/bin/tool",
        "rm ~/.cargo/bin/tool",
        "mv ~/.cargo/bin ~/.cargo/b",
        "echo x > ~/.rustup/x",
    ] {
        assert_ne!(run(shell, &project, line).exit, Some(0), "{line}");
    }
    // Writes to a cache stay with us, from one command to the next.
    let outcome =
        run(shell, &project, "echo more >> ~/.cargo/registry/cache && touch ~/.cargo/registry/new ~/note");
    assert_eq!(outcome.exit, Some(0), "{outcome:?}");
    let outcome =
        run(shell, &project, "cat ~/.cargo/registry/cache && ls ~/.cargo/registry/new && ls ~/note");
    assert!(
        outcome.output.starts_with("cached\nmore\n") && outcome.output.contains("registry/new\n"),
        "{outcome:?}"
    );
    assert_ne!(outcome.exit, Some(0), "home is private to one command: {outcome:?}");
    assert_eq!(std::fs::read_to_string(home.join(".cargo/registry/cache")).unwrap(), "cached\n");
    assert!(!home.join(".cargo/registry/new").exists() && !home.join("note").exists());

    // Home as the workspace would have to be shown whole.
    let refused = shell.run(&home, &command("true"), &AtomicBool::new(false), &mut |_| {});
    assert!(matches!(refused, Err(ShellError::Workspace { .. })), "{refused:?}");
    // Above home the workspace is writable and home is still hidden.
    let above = home.parent().unwrap();
    if above != Path::new("/tmp") {
        let outcome = run(shell, above, "cat ~/.ssh/id || echo hidden");
        assert!(outcome.output.ends_with("hidden\n"), "{outcome:?}");
    }
}

#[test]
fn a_project_builds_and_tests_itself() {
    for (shell, base) in
        full().into_iter().chain(reduced()).flat_map(|shell| bases().into_iter().map(move |b| (shell, b)))
    {
        let place = Place::new(&base);
        let source = "pub fn two() -> u32 { 2 }\n#[test]\nfn is_two() { assert_eq!(two(), 2); }\n";
        std::fs::create_dir(place.workspace.join("src")).unwrap();
        std::fs::write(place.workspace.join("src/lib.rs"), source).unwrap();
        let manifest = "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
        std::fs::write(place.workspace.join("Cargo.toml"), manifest).unwrap();
        let outcome = run(shell, &place.workspace, "cargo test 2>&1");
        assert_eq!(outcome.exit, Some(0), "{}", outcome.output);
        assert!(outcome.output.contains("test is_two ... ok"), "{}", outcome.output);
        assert!(!outcome.output.contains("warning"), "{}", outcome.output);
    }
}

#[test]
fn what_builds_and_tests_need_is_there() {
    let Some(shell) = full() else { return };
    for base in bases() {
        let place = Place::new(&base);
        for line in [
            "echo x > new && mkdir -p a/b && mv new a/b/new && ln -s a/b/new link && rm -r a link",
            "chmod 755 evil && test -x evil",
            "echo x > /tmp/written-by-a-test && echo x > /var/tmp/x && echo x > /dev/shm/x && echo x > ~/x && mktemp",
            "echo x > /dev/null && head -c 9 /dev/zero /dev/urandom >/dev/null",
            "echo out > /dev/stdout && echo error > /dev/stderr && cat <(echo substituted)",
            "git --no-optional-locks status >/dev/null || true; echo tree > .git/index && rm .git/index",
            "mkdir -p .git/refs/heads/x && rmdir .git/refs/heads/x && echo x > .git/HEAD.lock && mv .git/HEAD.lock .git/HEAD",
            "(echo one; sleep 0.01; echo two) | cat & wait; yes | head -1",
            "ps -e >/dev/null && test $(ls -d /proc/[0-9]* | wc -l) -lt 20",
            "script -qc true /dev/null </dev/null || true; test -c /dev/ptmx",
            "bash -c 'exec 3<>/dev/tcp/127.0.0.1/1' 2>&1 | grep -q refused",
        ] {
            let outcome = run(shell, &place.workspace, line);
            assert_eq!(outcome.exit, Some(0), "{line}: {}", outcome.output);
            assert_eq!(outcome.warnings, Vec::<String>::new(), "{line}");
        }
    }
}

#[test]
fn the_environment_holds_nothing_but_the_list() {
    for shell in full().into_iter().chain([none()]) {
        let place = Place::temporary();
        let outcome = run(shell, &place.workspace, "env -0 | cut -z -d= -f1 | tr '\\0' '\\n'");
        // Cargo and our own runs set variables of these names for the tests; none may arrive.
        assert!(
            std::env::vars().any(|(name, _)| name.starts_with("CARGO_PKG") || name.starts_with("QWRIGHT_"))
        );
        for name in outcome.output.lines() {
            let known =
                ["PATH", "HOME", "LANG", "LANGUAGE", "TERM", "TMPDIR", "USER", "LOGNAME", "TZ", "PAGER"];
            let harmless = ["GIT_PAGER", "GIT_TERMINAL_PROMPT", "CARGO_TERM_COLOR", "CARGO_NET_OFFLINE"];
            let of_shell = ["PWD", "SHLVL", "_", "OLDPWD"];
            let toolchain =
                ["CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "RUSTUP_AUTO_INSTALL", "PYENV_ROOT"];
            let more =
                ["GOPATH", "GOROOT", "JAVA_HOME", "NVM_DIR", "VIRTUAL_ENV", "CC", "CXX", "LD_LIBRARY_PATH"];
            let lists: [&[&str]; 5] = [&known, &harmless, &of_shell, &toolchain, &more];
            let listed = lists.iter().any(|list| list.contains(&name)) || name.starts_with("LC_");
            assert!(listed, "{name} reached the command");
        }
        let outcome = run(shell, &place.workspace, "echo $TERM $CARGO_NET_OFFLINE $TMPDIR");
        assert_eq!(outcome.output, "dumb true /tmp\n");
    }
}

#[test]
fn a_command_runs_where_it_is_told_and_nowhere_else() {
    for shell in full().into_iter().chain([none()]) {
        let place = Place::temporary();
        symlink(&place.outside, place.workspace.join("away")).unwrap();
        symlink("sub", place.workspace.join("inner")).unwrap();
        let in_directory =
            |directory: &str| ShellCommand { directory: Some(directory.into()), ..command("pwd -P") };
        let absolute = place.workspace.join("sub").display().to_string();
        for directory in ["sub", "./sub/", "inner", &absolute] {
            let outcome = run_command(shell, &place.workspace, &in_directory(directory));
            assert_eq!(outcome.output, format!("{absolute}\n"), "{directory}");
        }
        for directory in ["..", "away", "/", "no-such", "evil", "sub/../.."] {
            let never = AtomicBool::new(false);
            let result = shell.run(&place.workspace, &in_directory(directory), &never, &mut |_| {});
            assert!(matches!(result, Err(ShellError::Directory { .. })), "{directory}: {result:?}");
        }
        let result = shell.run(&place.workspace, &command("a\0b"), &AtomicBool::new(false), &mut |_| {});
        assert!(matches!(result, Err(ShellError::Nul)), "{result:?}");
    }
}

#[test]
fn the_end_of_a_command_is_told() {
    for shell in full().into_iter().chain([none()]) {
        let place = Place::temporary();
        let end = |line: &str| {
            let outcome = run(shell, &place.workspace, line);
            assert_eq!(outcome.sandbox, shell.tier());
            assert!(!outcome.timed_out && !outcome.cancelled, "{outcome:?}");
            (outcome.exit, outcome.signal)
        };
        assert_eq!(end("true"), (Some(0), None));
        assert_eq!(end("exit 3"), (Some(3), None));
        assert_eq!(end("kill -TERM $$"), (None, Some(libc::SIGTERM)));
        assert_eq!(end("no-such-program-here"), (Some(127), None));
        assert_eq!(end("cat | wc -c | grep -qx 0"), (Some(0), None), "standard input is empty");
        let outcome = run(shell, &place.workspace, "echo out; echo error >&2; printf end");
        assert_eq!(outcome.output, "out\nerror\nend");
        let outcome =
            run(shell, &place.workspace, "printf 'a\\0\\377\\342\\202\\254'; head -c 5000 /dev/urandom");
        assert!(outcome.output.starts_with("a\0\u{fffd}\u{20ac}"), "{outcome:?}");
    }
}

#[test]
fn long_output_keeps_its_ends_and_lies_whole_on_disk() {
    let Some(shell) = full() else { return };
    let place = Place::temporary();
    let mut passed_on = 0;
    let line = command("seq 1 1000000");
    let never = AtomicBool::new(false);
    let outcome = shell.run(&place.workspace, &line, &never, &mut |text| passed_on += text.len()).unwrap();
    assert!(outcome.truncated && outcome.output.len() < 70_000);
    assert!(outcome.output.starts_with("1\n2\n") && outcome.output.ends_with("\n999999\n1000000\n"));
    assert!(outcome.output.contains("bytes left out here"));
    let log = outcome.log.unwrap();
    assert_eq!(log.metadata().unwrap().len(), 6_888_896);
    assert_eq!(passed_on, 6_888_896);
    assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(log.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);

    // A flood fills neither the disk nor the screen.
    let outcome = run(shell, &place.workspace, "yes | head -c 100000000");
    assert_eq!(outcome.exit, Some(0));
    assert_eq!(outcome.log.unwrap().metadata().unwrap().len(), 64 << 20);
}

#[test]
fn time_limit_and_cancel_end_everything() {
    for (index, shell) in full().into_iter().chain([none()]).enumerate() {
        let place = Place::temporary();
        let marker = format!("{}{index}", 710_000 + std::process::id());
        let spawning = format!(
            "sleep {marker} & (setsid sleep {marker} &) ; echo ready; trap '' TERM INT HUP; sleep {marker}"
        );
        let timed = ShellCommand { timeout: Some(Duration::from_millis(300)), ..command(&spawning) };
        let outcome = run_command(shell, &place.workspace, &timed);
        assert!(outcome.timed_out && !outcome.cancelled, "{outcome:?}");
        assert_eq!(
            (outcome.exit, outcome.signal, outcome.output.as_str()),
            (None, Some(libc::SIGKILL), "ready\n")
        );
        assert_eq!(processes_with(&marker), 0);

        let cancel = AtomicBool::new(false);
        let outcome = shell
            .run(&place.workspace, &command(&spawning), &cancel, &mut |_| {
                cancel.store(true, Ordering::Relaxed)
            })
            .unwrap();
        assert!(outcome.cancelled && !outcome.timed_out, "{outcome:?}");
        assert_eq!(processes_with(&marker), 0);
    }
}

#[test]
fn nothing_survives_the_command_that_started_it() {
    for (index, shell) in full().into_iter().chain([none()]).enumerate() {
        let place = Place::temporary();
        let marker = format!("{}{index}", 720_000 + std::process::id());
        for line in [
            "nohup sleep M >/dev/null 2>&1 & disown",
            "setsid sleep M >/dev/null 2>&1 &",
            "(setsid sh -c '(sleep M &) & (setsid sleep M &)' >/dev/null 2>&1 &) ; sleep 0.1",
            "setsid -f sleep M",
        ] {
            let outcome = run(shell, &place.workspace, &line.replace('M', &marker));
            assert_eq!(outcome.exit, Some(0), "{line}: {outcome:?}");
            assert_eq!(processes_with(&marker), 0, "{line} in {}", shell.tier());
        }
    }
}

/// Processes on this machine that have `marker` as an argument of their own.
fn processes_with(marker: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.split(|byte| *byte == 0).any(|word| word == marker.as_bytes())).count()
}

#[test]
fn our_sudden_death_is_the_commands_death() {
    const INNER: &str = "QWRIGHT_TEST_MARKER";
    if let Ok(marker) = std::env::var(INNER) {
        let tier = std::env::var("QWRIGHT_TEST_TIER").unwrap();
        let shell = if tier == "full" { full().unwrap() } else { none() };
        run(
            shell,
            &Place::temporary().workspace,
            &format!("sleep {marker} & (setsid sleep {marker} &); sleep {marker}"),
        );
        return;
    }
    for (index, shell) in full().into_iter().chain([none()]).enumerate() {
        let marker = format!("{}{index}", 730_000 + std::process::id());
        let mut inner = again("shell::our_sudden_death_is_the_commands_death")
            .env(INNER, &marker)
            .env("QWRIGHT_TEST_TIER", shell.tier().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the command starts", || processes_with(&marker) == 3);
        inner.kill().unwrap();
        assert_eq!(inner.wait().unwrap().signal(), Some(libc::SIGKILL));
        wait_until("the command is dead", || processes_with(&marker) == 0);
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_fork_bomb_is_bounded() {
    let Some(shell) = full() else { return };
    let place = Place::temporary();
    let marker = (740_000 + std::process::id()).to_string();
    let bomb = format!("b() {{ sleep {marker} & b & b & wait; }}; b; sleep {marker}");
    let line = ShellCommand { timeout: Some(Duration::from_secs(20)), ..command(&bomb) };
    let never = AtomicBool::new(false);
    let outcome = shell.run(&place.workspace, &line, &never, &mut |_| {}).unwrap();
    let stopped = outcome.warnings.iter().any(|warning| warning.contains("processes at once"));
    let refused = outcome.output.contains("fork") || outcome.output.contains("Resource");
    assert!(stopped || outcome.timed_out && (refused || is_root()), "{outcome:?}");
    assert_eq!(processes_with(&marker), 0);
}

#[test]
fn planted_hooks_are_set_aside_and_new_repositories_named() {
    for shell in full().into_iter().chain([none()]) {
        let place = Place::temporary();
        let line = "echo /evil > .git/commondir; mkdir -p new/.git; mkdir plain; echo x > plain/file";
        let outcome = run(shell, &place.workspace, line);
        let warnings = outcome.warnings.join("\n");
        assert_eq!(outcome.warnings.len(), 2, "{warnings}");
        assert!(warnings.contains(".git/commondir") && warnings.contains("new/.git"), "{warnings}");
        assert!(!place.workspace.join(".git/commondir").exists());
        let aside = place.workspace.join(".git/commondir.set-aside-1");
        assert_eq!(std::fs::read_to_string(aside).unwrap(), "/evil\n");
    }
}

#[test]
fn hooks_in_the_working_tree_are_not_exchanged_with_the_directory_around_them() {
    let Some(shell) = full() else { return };
    let place = Place::temporary();
    let hooks = place.workspace.join(".husky/_");
    std::fs::create_dir_all(&hooks).unwrap();
    std::fs::write(hooks.join("pre-commit"), "kept\n").unwrap();
    std::fs::write(place.workspace.join(".git/config"), "[core]\n\thooksPath = .husky/_\n").unwrap();
    assert_eq!(
        run(shell, &place.workspace, "echo evil > .husky/_/pre-commit").warnings,
        Vec::<String>::new()
    );
    let line = "mv .husky h && cp -r h .husky && echo evil > .husky/_/pre-commit";
    let outcome = run(shell, &place.workspace, line);
    assert_eq!(outcome.warnings.len(), 1, "{outcome:?}");
    assert!(outcome.warnings[0].contains(".husky/_.set-aside-1") && !hooks.exists(), "{outcome:?}");
    assert_eq!(std::fs::read_to_string(place.workspace.join("h/_/pre-commit")).unwrap(), "kept\n");
}

#[test]
fn git_is_kept_from_starting_anything_where_a_line_only_reads() {
    let place = Place::temporary();
    let config = "[core]\n\trepositoryformatversion = 0\n";
    std::fs::write(place.workspace.join(".git/config"), config).unwrap();
    let asked = "git config --get core.hooksPath";
    assert_eq!(run(none(), &place.workspace, asked).output, "/dev/null\n");
    assert_ne!(run(none(), &place.workspace, &format!("{asked}; : > x")).output, "/dev/null\n");
}

#[test]
fn git_works_in_a_linked_work_tree_and_changes_nothing_there() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().canonicalize().unwrap();
    let line = "git init -q main && cd main && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m begun && \
                git worktree add -q ../tree && echo text > ../tree/new";
    assert!(Command::new("sh").args(["-c", line]).current_dir(&root).status().unwrap().success());
    for shell in [full(), reduced()].into_iter().flatten() {
        let tree = root.join("tree");
        let outcome = run(shell, &tree, "git status --short && git log --format=%s");
        assert_eq!(
            (outcome.exit, outcome.output.as_str()),
            (Some(0), "?? new\nbegun\n"),
            "{}",
            shell.status_line()
        );
        run(shell, &tree, "git config core.pager evil; echo planted >> ../main/.git/config");
        let config = std::fs::read_to_string(root.join("main/.git/config")).unwrap();
        assert!(!config.contains("evil") && !config.contains("planted"), "{config}");
    }
}

#[test]
fn callers_can_add_read_only_and_hidden_paths_and_variables() {
    let Some(_) = full() else { return };
    let place = Place::temporary();
    std::fs::create_dir(place.workspace.join(".settings")).unwrap();
    std::fs::write(place.workspace.join(".settings/s"), "s\n").unwrap();
    let variable = std::env::vars().map(|(name, _)| name).find(|name| name.starts_with("CARGO_PKG_NAME"));
    let shell = Shell::with(ShellSettings {
        helper: Some(helper()),
        read_only: vec![".settings".into()],
        hidden: vec!["shared".into(), place.workspace.join("sub")],
        environment: variable.clone().into_iter().collect(),
        keep_bytes: 100,
        ..ShellSettings::default()
    });
    let outcome = run(&shell, &place.workspace, "cat .settings/s; cat shared; ls sub; echo $CARGO_PKG_NAME");
    let name = if variable.is_some() { "qwright" } else { "" };
    assert_eq!(outcome.output, format!("s\n{name}\n"));
    for line in
        ["echo x > .settings/s", "rm -r .settings", "mv .settings x", "echo x > sub/file", "rm shared"]
    {
        assert_ne!(run(&shell, &place.workspace, line).exit, Some(0), "{line}");
    }
    let outcome = run(&shell, &place.workspace, "seq 1 100");
    assert!(
        outcome.truncated && outcome.output.starts_with("1\n2\n") && outcome.output.len() < 300,
        "{outcome:?}"
    );
}

#[test]
fn the_network_is_there_when_it_is_given() {
    let Some(shell) = full() else { return };
    let place = Place::temporary();
    let host = Host::new(&place);
    let line = host.line(&place, "exec 3<> /dev/tcp/127.0.0.1/$PORT");
    let outcome = run_command(shell, &place.workspace, &ShellCommand { network: true, ..command(&line) });
    assert!(outcome.output.contains("ESCAPED"), "{outcome:?}");
    // And nothing else is.
    let line = host.line(&place, "echo x >> $OUT/kept || $ATTEMPT local-socket \"$OUT/socket\"");
    let outcome = run_command(shell, &place.workspace, &ShellCommand { network: true, ..command(&line) });
    assert!(!outcome.output.contains("ESCAPED"), "{outcome:?}");
}

#[test]
fn directories_of_the_system_are_no_workspace() {
    let Some(shell) = full() else { return };
    for path in ["/", "/etc", "/usr", "/proc/self", "/sys/kernel", "/dev"] {
        let result = shell.run(Path::new(path), &command("true"), &AtomicBool::new(false), &mut |_| {});
        assert!(matches!(result, Err(ShellError::Workspace { .. })), "{path}: {result:?}");
    }
    let result = shell.run(Path::new("/no/such"), &command("true"), &AtomicBool::new(false), &mut |_| {});
    assert!(matches!(result, Err(ShellError::Io { .. })), "{result:?}");
}

#[test]
fn workspaces_in_odd_places_and_with_odd_names_work() {
    let Some(shell) = full() else { return };
    let mut bases = bases();
    bases.extend(["/dev/shm", "/var/tmp"].map(PathBuf::from).into_iter().filter(|path| path.is_dir()));
    for base in bases {
        let directory = tempfile::tempdir_in(base).unwrap();
        for name in ["plain", "with space", "co:lon,comma=\\back", "-dash", "new\nline", "\u{fc}ber\u{1f600}"]
        {
            let workspace = directory.path().join(name);
            std::fs::create_dir_all(workspace.join(".git")).unwrap();
            std::fs::write(workspace.join(".git/config"), "").unwrap();
            let line = "echo x > file && ! echo x 2>/dev/null > .git/config && echo fine";
            let outcome = run(shell, &workspace, line);
            assert_eq!(outcome.output, "fine\n", "{name:?}: {outcome:?}");
            assert_eq!(std::fs::read_to_string(workspace.join("file")).unwrap(), "x\n");
        }
    }
}

#[test]
fn commands_can_run_at_the_same_time() {
    let Some(shell) = full() else { return };
    std::thread::scope(|scope| {
        for number in 0..4 {
            scope.spawn(move || {
                let place = Place::temporary();
                for _ in 0..3 {
                    let outcome =
                        run(shell, &place.workspace, &format!("echo {number} > own; sleep 0.05; cat own"));
                    assert_eq!(outcome.output, format!("{number}\n"));
                }
            });
        }
    });
}

#[test]
fn without_a_sandbox_nothing_runs_unless_the_user_named_none() {
    let place = Place::temporary();
    // A helper that is no helper: as where neither namespaces nor Landlock are there.
    for choice in [SandboxChoice::Auto, SandboxChoice::Full, SandboxChoice::Reduced] {
        let shell = Shell::with(ShellSettings {
            choice,
            helper: Some("/bin/true".into()),
            ..ShellSettings::default()
        });
        assert!(shell.unavailable().is_some());
        assert!(
            shell.status_line().starts_with("sandbox: unavailable, no command runs"),
            "{}",
            shell.status_line()
        );
        let never = AtomicBool::new(false);
        let result = shell.run(&place.workspace, &command("touch ran"), &never, &mut |_| {});
        let error = result.unwrap_err();
        assert!(
            matches!(error, ShellError::Unavailable(_)) && error.hint().contains("--sandbox none"),
            "{error}"
        );
        assert!(!place.workspace.join("ran").exists());
    }
    assert_eq!(none().tier(), SandboxTier::None);
    assert!(none().unavailable().is_none() && none().status_line().contains("none, as asked"));
    assert_eq!(run(none(), &place.workspace, "touch ran").sandbox, SandboxTier::None);
}

#[test]
fn nothing_is_left_behind() {
    const INNER: &str = "QWRIGHT_TEST_LEFTOVERS";
    let Some(shell) = full() else { return };
    if std::env::var_os(INNER).is_some() {
        drop(shell_of(SandboxChoice::Auto));
        let own = shell_of(SandboxChoice::Auto);
        run(&own, &Place::temporary().workspace, "seq 1 100000; touch ~/.cargo/x");
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".cargo")).unwrap();
    assert_passed(
        again("shell::nothing_is_left_behind")
            .env(INNER, "1")
            .env("TMPDIR", temporary.path())
            .env("HOME", home.path()),
    );
    let left: Vec<_> =
        std::fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    // The shell that tests share is never dropped: its directory stays. The two that were are gone.
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(shell.tier(), SandboxTier::Full);
}
