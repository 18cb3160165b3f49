//! The box that commands run in. Two halves of one program:
//!
//! - the parent side, in the agent's process and without `unsafe`: [`layout`] says what the command will see of the
//!   file system, [`repositories`] which git data must be guarded, and [`plan`] carries both to the other half;
//! - the helper side: our own binary started again as `__sandbox-init`, single-threaded, which makes the namespaces
//!   ([`init`]), the file system ([`mounts`]), gives up its privileges and installs the filter ([`confine`]), then
//!   runs the command as a child of a process 1 whose death takes everything with it.
//!
//! Where the kernel gives no namespaces, the reduced tier makes do with Landlock and the filter: [`reach`] says what may
//! be reached, `restrict` holds to it, and [`steering`] puts back what steers git.
//!
//! Starting again rather than forking: after `fork` in a program with threads nearly nothing may be called.

pub mod layout;
pub mod plan;
pub mod reach;
pub mod repositories;
pub mod steering;

#[cfg(target_os = "linux")]
mod confine;
#[cfg(target_os = "linux")]
mod init;
#[cfg(target_os = "linux")]
mod mounts;
#[cfg(target_os = "linux")]
mod restrict;

#[cfg(target_os = "linux")]
pub use init::sandbox_init_main;

use rustix::io::Errno;
use std::path::Path;

/// The first argument that makes our binary the helper.
pub const INIT_ARGUMENT: &str = "__sandbox-init";

/// How strongly commands are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxTier {
    Full,
    Reduced,
    #[default]
    None,
}

impl std::fmt::Display for SandboxTier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Full => "full",
            Self::Reduced => "reduced",
            Self::None => "none",
        })
    }
}

/// Why there is no sandbox here, and what would give one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unavailable {
    pub reason: String,
    pub remedy: String,
}

impl Unavailable {
    pub fn general_remedy() -> String {
        "use `--sandbox none` only where the machine itself is disposable".into()
    }
}

/// On systems without these namespaces there is no helper to be.
#[cfg(not(target_os = "linux"))]
pub fn sandbox_init_main() -> ! {
    let failed =
        plan::Report::Failed { step: "start: this system has no Linux namespaces".into(), errno: 38 };
    use std::io::Write;
    let _ = std::io::stderr().write_all(&failed.to_bytes());
    std::process::exit(1)
}

/// From the step that failed and its error to the cause and the remedy.
pub fn diagnose(step: &str, errno: i32) -> Unavailable {
    let error = std::io::Error::from_raw_os_error(errno);
    let setting = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_string()).ok();
    let reason = format!("the sandbox could not {step}: {error}");
    let unless = "or use `--sandbox none` where the machine is disposable";
    let remedy = if in_container() {
        format!(
            "this is a container: start it with `--security-opt seccomp=unconfined --security-opt \
             apparmor=unconfined --security-opt systempaths=unconfined`, {unless}"
        )
    } else if setting("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        format!("run `sudo sysctl -w kernel.unprivileged_userns_clone=1`, {unless}")
    } else if setting("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        format!("run `sudo sysctl -w user.max_user_namespaces=15000`, {unless}")
    } else if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        format!(
            "AppArmor restricts user namespaces: add a profile for qwright with `userns,`, or run `sudo sysctl -w \
             kernel.apparmor_restrict_unprivileged_userns=0`, {unless}"
        )
    } else if errno == Errno::NOSYS.raw_os_error() {
        format!("the sandbox needs Linux 5.12 or later, {unless}")
    } else {
        Unavailable::general_remedy()
    };
    Unavailable { reason, remedy }
}

fn in_container() -> bool {
    Path::new("/.dockerenv").exists()
        || Path::new("/run/.containerenv").exists()
        || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}
