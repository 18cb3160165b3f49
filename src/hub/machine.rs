//! What this machine has: memory (with the limits of its control groups), room on disk, cores. A figure that cannot be
//! had is `None`, and the plan says so rather than guess. How fast memory reads is the engine's to measure.

use std::path::Path;

#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    pub memory_total: Option<u64>,
    /// Without swapping; the page cache counts, since it gives way.
    pub memory_available: Option<u64>,
    pub cores: usize,
}

impl Machine {
    pub fn measure() -> Self {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let limit = cgroup_limit(Path::new("/sys/fs/cgroup"), Path::new("/proc/self/cgroup"));
        let least = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self {
            memory_total: least(meminfo_field(&meminfo, "MemTotal"), limit),
            memory_available: least(meminfo_field(&meminfo, "MemAvailable"), limit),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
        }
    }
}

/// `MemTotal:       24589464 kB` in bytes.
fn meminfo_field(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The smallest memory limit of this process's control group and those above it, version 2 or 1.
fn cgroup_limit(root: &Path, own: &Path) -> Option<u64> {
    let own = std::fs::read_to_string(own).unwrap_or_default();
    let mut limits = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (controllers, path) = match (fields.next(), fields.next(), fields.next()) {
            (Some(_), Some(controllers), Some(path)) => (controllers, path.trim_start_matches('/')),
            _ => continue,
        };
        let (base, file) = match controllers {
            "" => (root.to_path_buf(), "memory.max"),
            c if c.split(',').any(|c| c == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        // In a container the path may not exist below the mount; its ancestors up to the root do.
        for dir in Path::new(path).ancestors() {
            let text = std::fs::read_to_string(base.join(dir).join(file)).unwrap_or_default();
            limits.extend(text.trim().parse::<u64>().ok().filter(|l| *l > 0));
        }
    }
    limits.into_iter().min()
}

/// Bytes an ordinary user may still write on the file system of `dir`, or of the nearest ancestor that exists.
pub fn disk_free(dir: &Path) -> Option<u64> {
    let dir = dir.ancestors().find(|d| d.exists()).filter(|d| !d.as_os_str().is_empty());
    let stat = rustix::fs::statvfs(dir.unwrap_or(Path::new("."))).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_bytes() {
        let text = "MemTotal:       24589464 kB\nMemFree:  1 kB\nMemAvailable:   23000000 kB\nOdd: 3 pages\n";
        assert_eq!(meminfo_field(text, "MemTotal"), Some(24_589_464 * 1024));
        assert_eq!(meminfo_field(text, "MemAvailable"), Some(23_000_000 * 1024));
        assert_eq!(meminfo_field(text, "Mem"), None);
        assert_eq!(meminfo_field(text, "Odd"), None);
    }

    #[test]
    fn the_tightest_control_group_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("user/app")).unwrap();
        std::fs::write(root.join("user/memory.max"), "5000\n").unwrap();
        std::fs::write(root.join("user/app/memory.max"), "max\n").unwrap();
        let own = root.join("own");
        std::fs::write(&own, "0::/user/app\n").unwrap();
        assert_eq!(cgroup_limit(root, &own), Some(5000));
        std::fs::create_dir_all(root.join("memory/x")).unwrap();
        std::fs::write(root.join("memory/x/memory.limit_in_bytes"), "4000\n").unwrap();
        std::fs::write(&own, "9:cpu,memory:/x\n0::/user/app\n").unwrap();
        assert_eq!(cgroup_limit(root, &own), Some(4000));
        std::fs::write(&own, "0::/elsewhere\n").unwrap();
        assert_eq!(cgroup_limit(root, &own), None);
    }

    #[test]
    fn free_space_is_known_even_for_a_folder_to_come() {
        let dir = tempfile::tempdir().unwrap();
        assert!(disk_free(&dir.path().join("a/b/c")).is_some_and(|b| b > 0));
    }
}
