//! Memory: what the system has left and what this process holds, the caches in front of it, and large buffers of our
//! own in huge pages. Weights are usually no buffer at all but a mapped file; `Anonymous` is for those who copy them
//! (`Load::Copy`), for made-up weights and for measuring bandwidth. What the system lets us have is read by `system`;
//! everyone who takes memory, or announces that it will be taken, asks here.
#![allow(unsafe_code)]

mod system;

use memmap2::{Advice, MmapMut};
use std::collections::HashMap;
use std::path::Path;
use system::{Sources, field};

/// Where the weights of a file lie while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Load {
    /// In the page cache: nothing is copied, other programs share it, and it may be larger than memory.
    #[default]
    Map,
    /// In memory of our own, in huge pages: fewer misses in the address translation, at the price of a copy.
    Copy,
}

impl Load {
    pub const ALL: [Self; 2] = [Self::Map, Self::Copy];
    pub fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Copy => "copy",
        }
    }
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|load| load.name() == name)
    }
}

/// Bytes for messages that do arithmetic: gigabytes of one decimal, so that the sums come out; megabytes where that
/// would say nothing.
pub fn gb(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Memory that no file stands behind, zero until written.
pub struct Anonymous(MmapMut);

impl Anonymous {
    /// `huge`: in huge pages where the system has them; else never, so that it reads as a mapped file does.
    pub fn new(len: usize, huge: bool) -> std::io::Result<Self> {
        let map = MmapMut::map_anon(len.max(1))?;
        // Advice only: a system without huge pages refuses it, and the memory is as good.
        let _ = map.advise(if huge { Advice::HugePage } else { Advice::NoHugePage });
        Ok(Self(map))
    }

    /// Fills the buffer on `threads` threads: `fill` gets the place of a part and the part.
    pub fn fill(&mut self, threads: usize, fill: impl Fn(usize, &mut [u8]) + Sync) {
        const PART: usize = 8 << 20;
        let parts = std::sync::Mutex::new(self.0.chunks_mut(PART).enumerate());
        let next = || parts.lock().ok().and_then(|mut parts| parts.next());
        std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    while let Some((i, part)) = next() {
                        fill(i * PART, part);
                    }
                });
            }
        });
    }
}

impl std::ops::Deref for Anonymous {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::DerefMut for Anonymous {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// `values.resize`, in huge pages where they are many: a pass walks such a buffer row by row, and each row of it would
/// begin in a small page of its own whose address is looked up again for every panel of weights.
pub fn resize<T: Copy>(values: &mut Vec<T>, n: usize, value: T) {
    const HUGE: usize = 2 << 20;
    if n > values.capacity() {
        values.reserve(n - values.len());
        let (start, bytes) = (values.as_ptr() as usize, values.capacity() * size_of::<T>());
        let (first, end) = (start.next_multiple_of(HUGE), (start + bytes) / HUGE * HUGE);
        #[cfg(target_os = "linux")]
        if end > first {
            // SAFETY: whole pages of this allocation; it is advice only, which changes no byte and may be refused.
            unsafe { libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_HUGEPAGE) };
        }
    }
    values.resize(n, value);
}

/// Bytes of memory that can be had without swapping, of the machine and of the control groups this process runs in;
/// cached files count, since they give way. `None` where the system does not say.
pub fn memory_available() -> Option<u64> {
    Sources::default().available()
}

/// Bytes of memory that there are, in use or not.
pub fn memory_total() -> Option<u64> {
    Sources::default().total()
}

/// What is free, where that is less than `bytes`; `None` where they fit, or nobody knows.
pub fn too_little_for(bytes: u64) -> Option<u64> {
    too_little(bytes, memory_available())
}

/// The same of `free` bytes that were asked for before: the one place that says what fits.
pub fn too_little(bytes: u64, free: Option<u64>) -> Option<u64> {
    free.filter(|free| bytes > *free)
}

/// The most that this process ever held in memory, mapped weights included; `None` where the system does not say.
pub fn peak_resident() -> Option<u64> {
    field(Path::new("/proc/self/status"), "VmHWM")
}

/// What this process holds now beside mapped files.
pub fn resident_beside_files() -> Option<u64> {
    field(Path::new("/proc/self/status"), "RssAnon")
}

/// Bytes of the last level of cache, all of it together where groups of cores have their own.
pub fn last_level_cache() -> u64 {
    /// Where the system does not say: a large desktop's.
    const UNKNOWN: u64 = 64 << 20;
    caches(Path::new("/sys/devices/system/cpu")).unwrap_or(UNKNOWN)
}

fn caches(root: &Path) -> Option<u64> {
    let mut found: HashMap<(u32, String), u64> = HashMap::new();
    for cpu in std::fs::read_dir(root).ok()?.flatten() {
        for cache in std::fs::read_dir(cpu.path().join("cache")).into_iter().flatten().flatten() {
            let text = |name: &str| {
                std::fs::read_to_string(cache.path().join(name)).map(|t| t.trim().to_string()).ok()
            };
            let (Some(level), Some(size), Some(shared)) =
                (text("level"), text("size"), text("shared_cpu_list"))
            else {
                continue;
            };
            let kib = size.strip_suffix('K').and_then(|n| n.parse::<u64>().ok());
            if let (Ok(level), Some(kib)) = (level.parse(), kib) {
                found.insert((level, shared), kib * 1024);
            }
        }
    }
    let last = found.keys().map(|(level, _)| *level).max()?;
    Some(found.iter().filter(|((level, _), _)| *level == last).map(|(_, bytes)| bytes).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_of_cores_adds_its_own_last_level() {
        let dir = tempfile::tempdir().unwrap();
        let cache = |cpu: &str, index: &str, level: &str, size: &str, shared: &str| {
            let folder = dir.path().join(cpu).join("cache").join(index);
            std::fs::create_dir_all(&folder).unwrap();
            for (name, text) in [("level", level), ("size", size), ("shared_cpu_list", shared)] {
                std::fs::write(folder.join(name), format!("{text}\n")).unwrap();
            }
        };
        for (cpu, group) in [("cpu0", "0-1"), ("cpu1", "0-1"), ("cpu2", "2-3")] {
            cache(cpu, "index2", "2", "1024K", cpu);
            cache(cpu, "index3", "3", "32768K", group);
        }
        assert_eq!(caches(dir.path()), Some(64 << 20));
        assert_eq!(caches(&dir.path().join("none")), None);
    }

    #[test]
    fn what_is_larger_than_what_is_free_does_not_fit() {
        assert_eq!(too_little(8, Some(7)), Some(7));
        assert_eq!(too_little(7, Some(7)), None);
        assert_eq!(too_little(u64::MAX, None), None);
    }

    #[test]
    fn a_buffer_is_filled_once_everywhere() {
        let mut buffer = Anonymous::new((8 << 20) * 3 + 5, true).unwrap();
        buffer
            .fill(2, |at, part| part.iter_mut().enumerate().for_each(|(i, b)| *b += ((at + i) % 251) as u8));
        assert!(buffer.iter().enumerate().all(|(i, b)| *b == (i % 251) as u8));
    }
}
