//! The helper: three processes, each single-threaded.
//!
//! 1. *watchman*, started by the agent: reads the plan, makes the namespaces, waits. When the pipe from the agent
//!    closes (an order to stop, or the agent's death) it kills process 1.
//! 2. *process 1* of the new PID namespace: makes the file system, reaps, watches limits. Its death is the death of
//!    everything in the namespace, however often it forked or renamed itself.
//! 3. *the command*: gives up all privileges, then becomes the shell.
//!
//! Without a layout (no namespaces, or no sandbox at all) the watchman starts the command itself and kills what descends
//! from it.
#![allow(unsafe_code)]

use super::confine::Sockets;
use super::plan::{Limits, Plan, Report};
use super::{confine, mounts, restrict};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, WaitStatus, kill_process,
    pidfd_open, set_child_subreaper, set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
    setsid,
};
use rustix::thread::UnshareFlags;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// How often process 1 counts processes and memory.
const WATCH: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The step of the set-up that failed.
#[derive(Debug)]
pub struct Failure {
    step: String,
    errno: i32,
}

impl Failure {
    pub fn new(step: &str, errno: i32) -> Self {
        Self { step: step.into(), errno }
    }
}

/// Names the step in which an error came up.
pub trait Step<T> {
    fn step(self, step: &str) -> Result<T, Failure>;
    fn step_with(self, step: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<std::io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &str) -> Result<T, Failure> {
        self.step_with(|| step.to_string())
    }
    fn step_with(self, step: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| {
            let error: std::io::Error = error.into();
            match error.raw_os_error() {
                Some(errno) => Failure { step: step(), errno },
                None => Failure { step: format!("{} ({error})", step()), errno: libc::EINVAL },
            }
        })
    }
}

/// The pipes to and from the agent, moved away from where a command has its input and output.
struct Channel {
    /// Closed by the agent when all is to stop.
    control: OwnedFd,
    reports: OwnedFd,
}

impl Channel {
    fn report(&self, report: &Report) {
        // If the agent is gone there is nobody to tell.
        let _ = rustix::io::write(&self.reports, &report.to_bytes());
    }

    fn fail(&self, failure: Failure) {
        self.report(&Report::Failed { step: failure.step, errno: failure.errno });
    }
}

/// What `main` calls, before anything else, when the first argument is [`super::INIT_ARGUMENT`].
pub fn sandbox_init_main() -> ! {
    let channel = match open_channel() {
        Ok(channel) => channel,
        Err(failure) => {
            // Somebody called this by hand.
            let _ = writeln!(std::io::stderr(), "could not {} (error {})", failure.step, failure.errno);
            std::process::exit(2);
        }
    };
    let result = read_plan(&channel).and_then(|plan| match plan.layout {
        Some(_) => watch_namespace(&plan, &channel),
        None => watch_plain(&plan, &channel),
    });
    if let Err(failure) = result {
        channel.fail(failure);
        std::process::exit(1);
    }
    std::process::exit(0)
}

fn open_channel() -> Result<Channel, Failure> {
    const STEP: &str = "arrange its input and output";
    // SAFETY: no descriptor above 2 belongs to anything in this process yet; nothing can be left dangling.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    let control = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 10).step(STEP)?;
    let reports = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 10).step(STEP)?;
    let nothing = File::open("/dev/null").step(STEP)?;
    rustix::stdio::dup2_stdin(&nothing).step(STEP)?;
    rustix::stdio::dup2_stderr(std::io::stdout()).step(STEP)?;
    Ok(Channel { control, reports })
}

fn read_plan(channel: &Channel) -> Result<Plan, Failure> {
    const STEP: &str = "read the plan";
    let mut input = File::from(channel.control.try_clone().step(STEP)?);
    let plan = Plan::read(&mut input).step(STEP)?;
    // Out of the terminal's reach: Ctrl-C is for the agent, which decides what becomes of the command.
    setsid().step("start a session")?;
    Ok(plan)
}

/// Dies with the parent from here on.
fn bind_to_parent() -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).step("bind itself to its parent")
}

fn watch_namespace(plan: &Plan, channel: &Channel) -> Result<(), Failure> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut flags = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    flags.set(UnshareFlags::NEWNET, !plan.network);
    // SAFETY: the only thread; the descriptor table stays as it is (no FILES flag).
    unsafe { rustix::thread::unshare_unsafe(flags) }.step("make namespaces")?;
    // The order is the kernel's: groups may be mapped by an ordinary user once they can no longer be changed.
    std::fs::write("/proc/self/setgroups", "deny").step("map users")?;
    std::fs::write("/proc/self/uid_map", format!("{user} {user} 1")).step("map users")?;
    std::fs::write("/proc/self/gid_map", format!("{group} {group} 1")).step("map users")?;
    // Only now: gaining the namespace's capabilities clears it.
    bind_to_parent()?;
    if rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get())
        != i32::try_from(plan.parent).ok()
    {
        return Ok(());
    }
    let first = match fork()? {
        Forked::Child => {
            if let Err(failure) = process_one(plan, channel) {
                channel.fail(failure);
            }
            std::process::exit(0);
        }
        Forked::Parent(child) => child,
    };
    confine::drop_capabilities()?;
    let ended = pidfd_open(first, PidfdFlags::empty()).step("watch process 1")?;
    wait_for(&[ended.as_fd(), channel.control.as_fd()], None)?;
    // Ended or not: nothing survives, and when it is reaped everything in its namespace is gone.
    let _ = kill_process(first, Signal::KILL);
    while matches!(rustix::process::waitpid(Some(first), WaitOptions::empty()), Err(Errno::INTR)) {}
    Ok(())
}

fn process_one(plan: &Plan, channel: &Channel) -> Result<(), Failure> {
    bind_to_parent()?;
    // The command must not read our memory or trace us.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("protect itself")?;
    if !plan.network {
        confine::raise_loopback();
    }
    if let Some(layout) = &plan.layout {
        mounts::apply(layout)?;
    }
    if !mounts::root_is_read_only() {
        return Err(Failure { step: "make the file system read-only".into(), errno: libc::EPERM });
    }
    let command = match fork()? {
        Forked::Child => {
            let Err(failure) = become_command(plan);
            channel.fail(failure);
            std::process::exit(127);
        }
        Forked::Parent(child) => child,
    };
    confine::drop_capabilities()?;
    let ended = pidfd_open(command, PidfdFlags::empty()).step("watch the command")?;
    loop {
        wait_for(&[ended.as_fd(), channel.control.as_fd()], Some(&WATCH))?;
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == command {
                channel.report(&report_of(status));
                return Ok(());
            }
        }
        if is_closed(&channel.control) {
            return Ok(());
        }
        if let Some(why) = excess(&plan.limits, &everyone()) {
            channel.report(&Report::Stopped(why));
            return Ok(());
        }
    }
}

fn watch_plain(plan: &Plan, channel: &Channel) -> Result<(), Failure> {
    // Not bound to its parent: when that dies the pipe closes, and there is cleaning up to do.
    // Processes that leave their parent become ours, so that we can end them.
    set_child_subreaper(Some(rustix::process::getpid())).step("adopt stray processes")?;
    let command = match fork()? {
        Forked::Child => {
            let Err(failure) = become_command(plan);
            channel.fail(failure);
            std::process::exit(127);
        }
        Forked::Parent(child) => child,
    };
    let ended = pidfd_open(command, PidfdFlags::empty()).step("watch the command")?;
    let mut stopped = None;
    let status = loop {
        wait_for(&[ended.as_fd(), channel.control.as_fd()], Some(&WATCH))?;
        let mut found = None;
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == command {
                found = Some(status);
            }
        }
        if found.is_some() || is_closed(&channel.control) {
            break found;
        }
        if plan.reach.is_some() {
            stopped = excess(&plan.limits, &descendants());
            if stopped.is_some() {
                break None;
            }
        }
    };
    let _ = rustix::process::kill_process_group(command, Signal::KILL);
    end_children();
    if let Some(why) = stopped {
        channel.report(&Report::Stopped(why));
    } else if let Some(status) = status {
        channel.report(&report_of(status));
    }
    Ok(())
}

/// Every process there is: in a PID namespace, those of the command.
fn everyone() -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(|c: char| c.is_ascii_digit())).collect()
}

/// The processes that descend from this one; those that were left by their parents are ours as well.
fn descendants() -> Vec<String> {
    let mut found = vec![rustix::process::getpid().as_raw_nonzero().to_string()];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        // Each thread has its own.
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
        let children: Vec<String> =
            lists.flat_map(|list| list.split_whitespace().map(str::to_string).collect::<Vec<_>>()).collect();
        found.extend(children);
        at += 1;
    }
    found.split_off(1)
}

/// Kills children until none is left; those of a killed child become ours in turn.
fn end_children() {
    for _ in 0..1000 {
        let own = format!("/proc/self/task/{}/children", rustix::thread::gettid().as_raw_nonzero());
        let children = std::fs::read_to_string(own).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            let _ = kill_process(child, Signal::KILL);
        }
        if matches!(rustix::process::wait(WaitOptions::NOHANG), Err(Errno::CHILD)) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Never returns where it succeeds: the process is the command then.
fn become_command(plan: &Plan) -> Result<std::convert::Infallible, Failure> {
    bind_to_parent()?;
    setsid().step("start a session")?;
    let limit = |resource, value| {
        let hard = rustix::process::getrlimit(resource).maximum;
        let value = hard.map_or(value, |hard| hard.min(value));
        setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) }).step("set limits")
    };
    // One, not zero: the kernel hands a dump to the machine's crash reporter even at zero, but not at one.
    limit(Resource::Core, 1)?;
    limit(Resource::Cpu, plan.limits.cpu_seconds)?;
    limit(Resource::Fsize, plan.limits.file_bytes)?;
    if plan.layout.is_some() {
        // Counted per namespace; without one it would count what else the user runs.
        limit(Resource::Nproc, plan.limits.processes)?;
    }
    // From the root: our own directory may lie beneath what is covered now.
    std::env::set_current_dir("/").step("enter the directory")?;
    let directory = Path::new(&plan.directory);
    std::env::set_current_dir(directory).step_with(|| format!("enter {}", directory.display()))?;
    confine::no_new_privileges()?;
    if plan.layout.is_some() {
        confine::drop_capabilities()?;
        confine::filter_system_calls(Sockets::Contained)?;
    } else if let Some(reach) = &plan.reach {
        restrict::restrict(reach)?;
        confine::drop_capabilities_if_any()?;
        confine::filter_system_calls(if plan.network { Sockets::Internet } else { Sockets::None })?;
    }
    let Some((program, arguments)) = plan.arguments.split_first() else {
        return Err(Failure { step: "find a program in the plan".into(), errno: libc::EINVAL });
    };
    let variables = plan.environment.iter().map(|(name, value)| (name, value));
    let error = Command::new(program).args(arguments).env_clear().envs(variables).exec();
    Err(error).step_with(|| format!("run {}", Path::new(program).display()))
}

fn report_of(status: WaitStatus) -> Report {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Report::Exited(code),
        (None, Some(signal)) => Report::Killed(signal),
        (None, None) => Report::Killed(libc::SIGKILL),
    }
}

fn wait_for(ends: &[rustix::fd::BorrowedFd<'_>], time: Option<&Timespec>) -> Result<(), Failure> {
    let mut ends: Vec<PollFd<'_>> =
        ends.iter().map(|end| PollFd::from_borrowed_fd(*end, PollFlags::IN)).collect();
    match poll(&mut ends, time) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error).step("wait"),
    }
}

fn is_closed(control: &OwnedFd) -> bool {
    let mut ends = [PollFd::new(control, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut ends, Some(&now)).is_ok() && !ends[0].revents().is_empty()
}

/// What these processes have too much of together. (The kernel's limit on processes does not bind root.)
fn excess(limits: &Limits, all: &[String]) -> Option<String> {
    let (processes, mut pages) = (all.len() as u64, 0);
    for pid in all {
        let sizes = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        let mut sizes = sizes.split(' ').skip(1).map_while(|pages| pages.parse::<u64>().ok());
        // Resident, without what is shared or a file's: several may have the same model or library mapped.
        if let (Some(resident), Some(shared)) = (sizes.next(), sizes.next()) {
            pages += resident.saturating_sub(shared);
        }
    }
    // SAFETY: takes and returns numbers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let memory = pages.saturating_mul(u64::try_from(page).unwrap_or(4096));
    if processes > limits.processes {
        return Some(format!("stopped at {processes} processes at once (at most {})", limits.processes));
    }
    let mebibytes = |bytes: u64| bytes >> 20;
    (memory > limits.memory_bytes).then(|| {
        let (used, most) = (mebibytes(memory), mebibytes(limits.memory_bytes));
        format!("stopped at {used} MiB of memory (at most {most} MiB)")
    })
}

enum Forked {
    Child,
    Parent(Pid),
}

fn fork() -> Result<Forked, Failure> {
    // SAFETY: this program has one thread here, so the child has all of its state in order and may do anything.
    let pid = unsafe { libc::fork() };
    match Pid::from_raw(pid) {
        None => Ok(Forked::Child),
        Some(_) if pid < 0 => Err(std::io::Error::last_os_error()).step("start a process"),
        Some(child) => Ok(Forked::Parent(child)),
    }
}
