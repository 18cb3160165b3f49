//! How much memory the system lets this process have: what the kernel says is there, and the limits of the control
//! groups the process runs in (a container's, a service's). Read anew at every call, from files that a test can make
//! up. Whether something fits is for `memory` to say.

use std::path::{Path, PathBuf};

/// Where the figures come from.
pub struct Sources<'a> {
    /// /proc
    pub proc: &'a Path,
    /// Where control groups are mounted.
    pub cgroups: &'a Path,
}

impl Default for Sources<'_> {
    fn default() -> Self {
        Self { proc: Path::new("/proc"), cgroups: Path::new("/sys/fs/cgroup") }
    }
}

/// A control group with a limit on memory.
struct Group {
    limit: u64,
    /// What it can still take: the limit less what its processes hold. Cached files count as free, since they give way.
    left: u64,
}

impl Sources<'_> {
    /// Bytes that can be had without swapping: the machine's, or what the tightest control group leaves.
    pub fn available(&self) -> Option<u64> {
        let left = self.groups().into_iter().map(|group| group.left);
        left.chain(field(&self.proc.join("meminfo"), "MemAvailable")).min()
    }

    /// All there is: the machine's memory, or the limit of the tightest control group.
    pub fn total(&self) -> Option<u64> {
        let limits = self.groups().into_iter().map(|group| group.limit);
        limits.chain(field(&self.proc.join("meminfo"), "MemTotal")).min()
    }

    /// The control groups of this process and those above them that limit memory, version 2 or 1.
    fn groups(&self) -> Vec<Group> {
        let own = std::fs::read_to_string(self.proc.join("self/cgroup")).unwrap_or_default();
        let mut groups = Vec::new();
        for line in own.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let (base, files) = match controllers {
                "" => (self.cgroups.to_path_buf(), &V2),
                c if c.split(',').any(|c| c == "memory") => (self.cgroups.join("memory"), &V1),
                _ => continue,
            };
            // In a container the path may not exist below the mount; its ancestors up to the root do.
            let folders = Path::new(path.trim_start_matches('/')).ancestors();
            groups.extend(folders.filter_map(|folder| files.read(base.join(folder))));
        }
        groups
    }
}

/// What the files of a version of control groups are called.
struct Files {
    limit: &'static str,
    used: &'static str,
    /// Fields of `memory.stat`: cached files, of the groups below as well.
    cached: [&'static str; 2],
}

const V2: Files =
    Files { limit: "memory.max", used: "memory.current", cached: ["inactive_file", "active_file"] };
const V1: Files = Files {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cached: ["total_inactive_file", "total_active_file"],
};

impl Files {
    /// `None` where the group has no limit ("max", or no such file).
    fn read(&self, folder: PathBuf) -> Option<Group> {
        let text = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        let number = |file: &str| text(file).trim().parse::<u64>().ok();
        let limit = number(self.limit).filter(|limit| *limit > 0)?;
        let stat = text("memory.stat");
        let cached: u64 = stat
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(key, _)| self.cached.contains(key))
            .filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok())
            .fold(0, u64::saturating_add);
        let held = number(self.used).unwrap_or(0).saturating_sub(cached);
        Some(Group { limit, left: limit.saturating_sub(held) })
    }
}

/// A line `KEY:   N kB` of a file of /proc, in bytes.
pub fn field(file: &Path, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system of files made up in a folder.
    struct Made(tempfile::TempDir);

    impl Made {
        fn new(own: &str) -> Self {
            let made = Self(tempfile::tempdir().unwrap());
            let meminfo =
                "MemTotal:       24589464 kB\nMemFree:  1 kB\nMemAvailable:   23000000 kB\nOdd: 3 pages\n";
            made.write("proc/meminfo", meminfo);
            made.write("proc/self/cgroup", own);
            made
        }
        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        /// (available, total)
        fn figures(&self) -> (Option<u64>, Option<u64>) {
            let (proc, cgroups) = (self.0.path().join("proc"), self.0.path().join("cgroup"));
            let sources = Sources { proc: &proc, cgroups: &cgroups };
            (sources.available(), sources.total())
        }
    }

    const MACHINE: (Option<u64>, Option<u64>) = (Some(23_000_000 * 1024), Some(24_589_464 * 1024));

    #[test]
    fn without_limits_the_machine_counts_and_unknown_stays_unknown() {
        let made = Made::new("9:cpu:/x\n0::/user/app\n");
        assert_eq!(made.figures(), MACHINE);
        made.write("cgroup/user/app/memory.max", "max\n");
        // As version 1 says that there is none.
        made.write("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(made.figures(), MACHINE);
        let meminfo = made.0.path().join("proc/meminfo");
        assert_eq!((field(&meminfo, "Mem"), field(&meminfo, "Odd")), (None, None));
        std::fs::remove_file(meminfo).unwrap();
        assert_eq!(made.figures(), (None, None));
    }

    #[test]
    fn the_tightest_control_group_counts() {
        let made = Made::new("9:cpu,memory:/x\n0::/user/app\n");
        made.write("cgroup/user/memory.max", "5000\n");
        made.write("cgroup/user/app/memory.max", "max\n");
        assert_eq!(made.figures(), (Some(5000), Some(5000)));
        made.write("cgroup/memory/x/memory.limit_in_bytes", "4000\n");
        assert_eq!(made.figures(), (Some(4000), Some(4000)));
        made.write("proc/self/cgroup", "0::/elsewhere\n");
        assert_eq!(made.figures(), MACHINE);
    }

    #[test]
    fn what_a_group_holds_is_gone_but_its_cached_files_give_way() {
        let made = Made::new("0::/app\n");
        made.write("cgroup/app/memory.max", "5000\n");
        made.write("cgroup/app/memory.current", "3000\n");
        assert_eq!(made.figures(), (Some(2000), Some(5000)));
        made.write("cgroup/app/memory.stat", "anon 1000\nfile 2000\ninactive_file 1500\nactive_file 500\n");
        assert_eq!(made.figures(), (Some(4000), Some(5000)));
        made.write("cgroup/app/memory.current", "9000\n");
        assert_eq!(made.figures().0, Some(0));
        let made = Made::new("4:memory:/app\n");
        made.write("cgroup/memory/app/memory.limit_in_bytes", "5000\n");
        made.write("cgroup/memory/app/memory.usage_in_bytes", "3000\n");
        made.write(
            "cgroup/memory/app/memory.stat",
            "inactive_file 7\ntotal_inactive_file 400\ntotal_active_file 100\n",
        );
        assert_eq!(made.figures(), (Some(2500), Some(5000)));
    }
}
