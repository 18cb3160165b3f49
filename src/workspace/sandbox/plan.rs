//! What the agent's process tells the helper (a [`Plan`], over its standard input) and what the helper tells back
//! (a [`Report`], one JSON line over its standard error). Paths and values are bytes: they need not be UTF-8.

use super::layout::Layout;
use super::reach::Reach;
use std::ffi::OsString;
use std::io::{Error, Read, Result};
use std::time::Duration;

/// A plan longer than this is refused by the helper: something else is talking to it.
const LONGEST_PLAN: u64 = 64 * 1024 * 1024;

#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Plan {
    /// The process that must outlive the command.
    pub parent: u32,
    /// What the command sees of the file system; `None`: no namespaces, everything as it is.
    pub layout: Option<Layout>,
    /// Without namespaces: all that may be reached; `None`: everything.
    pub reach: Option<Reach>,
    pub network: bool,
    /// Program and arguments.
    pub arguments: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
    pub directory: OsString,
    pub limits: Limits,
}

#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    pub cpu_seconds: u64,
    pub processes: u64,
    pub file_bytes: u64,
    /// Resident, of all processes together. (An address-space limit would break what reserves much and uses little.)
    pub memory_bytes: u64,
}

impl Limits {
    pub fn for_timeout(timeout: Duration) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        Self {
            // One process may keep all cores busy for the whole time, no more.
            cpu_seconds: timeout.as_secs().saturating_add(10).saturating_mul(cores),
            processes: 4096,
            file_bytes: 8 << 30,
            memory_bytes: (available_memory() / 4 * 3).max(1 << 30),
        }
    }
}

fn available_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.map_or(u64::MAX, |kibibytes| kibibytes.saturating_mul(1024))
}

impl Plan {
    /// Length, then JSON: the pipe stays open after the plan, so its end cannot mark the plan's end.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self).map_err(Error::other)?;
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json);
        Ok(bytes)
    }

    pub fn read(input: &mut impl Read) -> Result<Self> {
        let mut length = [0; 8];
        input.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length > LONGEST_PLAN {
            return Err(Error::other("the plan is too long"));
        }
        let mut json = Vec::new();
        input.take(length).read_to_end(&mut json)?;
        serde_json::from_slice(&json).map_err(Error::other)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Report {
    /// The command was not started: what could not be done, and the system's error number.
    Failed {
        step: String,
        errno: i32,
    },
    Exited(i32),
    /// Ended by this signal.
    Killed(i32),
    /// Killed by us for a reason to tell.
    Stopped(String),
}

impl Report {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    pub fn from_bytes(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn a_plan_survives_the_pipe_with_paths_that_are_not_text() {
        let odd = OsString::from_vec(vec![b'/', 0xff, b'a']);
        let plan = Plan {
            parent: 7,
            layout: None,
            reach: None,
            network: true,
            arguments: vec![odd.clone()],
            environment: vec![("A".into(), odd.clone())],
            directory: odd.clone(),
            limits: Limits::for_timeout(Duration::from_secs(1)),
        };
        let mut bytes = plan.to_bytes().unwrap();
        bytes.extend(b"what comes later is not read");
        let read = Plan::read(&mut bytes.as_slice()).unwrap();
        assert_eq!((read.parent, read.network, read.directory), (7, true, odd.clone()));
        assert_eq!(read.environment, [("A".into(), odd)]);
    }

    #[test]
    fn a_torn_or_lying_plan_is_refused() {
        assert!(Plan::read(&mut [9, 0, 0].as_slice()).is_err());
        assert!(Plan::read(&mut [255; 20].as_slice()).is_err());
        assert!(Plan::read(&mut [9, 0, 0, 0, 0, 0, 0, 0, b'{'].as_slice()).is_err());
    }

    #[test]
    fn reports_are_lines() {
        for report in [Report::Exited(3), Report::Failed { step: "x\n".into(), errno: 1 }] {
            let line = report.to_bytes();
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(Report::from_bytes(&line), Some(report));
        }
        assert_eq!(Report::from_bytes(b""), None);
    }
}
