//! What this machine has: memory, room on disk, cores. A figure that cannot be had is `None`, and the plan says so
//! rather than guess. How much memory there is, and how fast it reads, the engine says: it is refused by the same figure.

use crate::engine::memory;
use std::path::Path;

#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    pub memory_total: Option<u64>,
    /// Without swapping; what the page cache holds counts, since it gives way.
    pub memory_available: Option<u64>,
    pub cores: usize,
}

impl Machine {
    pub fn measure() -> Self {
        Self {
            memory_total: memory::memory_total(),
            memory_available: memory::memory_available(),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
        }
    }
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
    fn free_space_is_known_even_for_a_folder_to_come() {
        let dir = tempfile::tempdir().unwrap();
        assert!(disk_free(&dir.path().join("a/b/c")).is_some_and(|b| b > 0));
    }
}
