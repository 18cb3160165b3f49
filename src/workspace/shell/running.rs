//! One command between start and end: the helper process, its three pipes, and the loop that reads them and looks at
//! the clock and the cancel flag. What the helper does is [`crate::workspace::sandbox`]'s.

use super::capture::Capture;
use super::{SandboxTier, ShellError, ShellOutcome, io_error};
use crate::workspace::sandbox;
use crate::workspace::sandbox::plan::{Plan, Report};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the clock and the cancel flag are looked at while the command is silent.
const TICK: Duration = Duration::from_millis(20);
/// How long the helper may take to kill its processes before it is killed itself.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// A command between start and end.
pub struct Running {
    child: Child,
    /// Closing this is the order to kill everything; our death closes it as well.
    control: Option<std::process::ChildStdin>,
    output: Option<std::io::PipeReader>,
    reports: Option<std::io::PipeReader>,
    report: Vec<u8>,
}

/// What was seen of a command's end.
pub struct Ended {
    report: Option<Report>,
    timed_out: bool,
    cancelled: bool,
}

impl Running {
    pub fn start(helper: &Path, plan: &Plan) -> Result<Self, ShellError> {
        const DOING: &str = "cannot start the sandbox helper";
        let (output, output_writer) = std::io::pipe().map_err(io_error(DOING))?;
        let (reports, reports_writer) = std::io::pipe().map_err(io_error(DOING))?;
        let mut child = Command::new(helper)
            .arg(sandbox::INIT_ARGUMENT)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(output_writer)
            .stderr(reports_writer)
            .spawn()
            .map_err(io_error(DOING))?;
        let mut control = child.stdin.take().ok_or(ShellError::Lost)?;
        let bytes = plan.to_bytes().map_err(io_error(DOING))?;
        if let Err(error) = control.write_all(&bytes) {
            drop(control);
            let _ = child.wait();
            return Err(io_error(DOING)(error));
        }
        Ok(Self {
            child,
            control: Some(control),
            output: Some(output),
            reports: Some(reports),
            report: vec![],
        })
    }

    pub fn follow(
        &mut self,
        timeout: Duration,
        cancel: &AtomicBool,
        capture: &mut Capture,
        on_output: &mut dyn FnMut(&str),
    ) -> Result<Ended, ShellError> {
        const DOING: &str = "cannot read the command's output";
        let deadline = Instant::now().checked_add(timeout);
        let mut kill_by: Option<Instant> = None;
        let (mut timed_out, mut cancelled) = (false, false);
        // The report pipe is held by the helper alone: its end means that the helper is gone.
        while self.reports.is_some() {
            if kill_by.is_none() {
                cancelled = cancel.load(Ordering::Relaxed);
                timed_out = !cancelled && deadline.is_some_and(|deadline| Instant::now() >= deadline);
                if cancelled || timed_out {
                    self.control = None;
                    kill_by = Some(Instant::now() + KILL_GRACE);
                }
            } else if kill_by.is_some_and(|by| Instant::now() >= by) {
                let _ = self.child.kill();
                break;
            }
            self.read_ready(TICK, capture, on_output).map_err(io_error(DOING))?;
        }
        self.control = None;
        let _ = self.child.wait();
        // What is still in the pipe. Without namespaces something that got away may hold it open: do not wait for it.
        let until = Instant::now() + Duration::from_millis(200);
        while self.output.is_some() && Instant::now() < until {
            if !self.read_ready(TICK, capture, on_output).map_err(io_error(DOING))? && kill_by.is_some() {
                break;
            }
        }
        capture.flush(on_output);
        let report = self.report.split(|byte| *byte == b'\n').rev().find_map(Report::from_bytes);
        Ok(Ended { report, timed_out, cancelled })
    }

    /// Waits up to `wait` and reads once from what has something; false if nothing had.
    fn read_ready(
        &mut self,
        wait: Duration,
        capture: &mut Capture,
        on_output: &mut dyn FnMut(&str),
    ) -> std::io::Result<bool> {
        let (mut output_ready, mut reports_ready) = (false, false);
        {
            let mut waiting = Vec::with_capacity(2);
            if let Some(output) = &self.output {
                waiting.push(PollFd::new(output, PollFlags::IN));
            }
            if let Some(reports) = &self.reports {
                waiting.push(PollFd::new(reports, PollFlags::IN));
            }
            let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
            match poll(&mut waiting, Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut ready = waiting.iter().map(|fd| !fd.revents().is_empty());
            if self.output.is_some() {
                output_ready = ready.next().unwrap_or(false);
            }
            if self.reports.is_some() {
                reports_ready = ready.next().unwrap_or(false);
            }
        }
        let mut buffer = [0; 64 * 1024];
        if output_ready && let Some(output) = &mut self.output {
            match output.read(&mut buffer)? {
                0 => self.output = None,
                count => capture.push(&buffer[..count], on_output),
            }
        }
        if reports_ready && let Some(reports) = &mut self.reports {
            match reports.read(&mut buffer)? {
                0 => self.reports = None,
                count => self.report.extend_from_slice(&buffer[..count]),
            }
        }
        Ok(output_ready || reports_ready)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.control = None;
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Ended {
    pub fn outcome(self, sandbox: SandboxTier) -> Result<ShellOutcome, ShellError> {
        let Self { report, timed_out, cancelled } = self;
        let mut outcome = ShellOutcome { timed_out, cancelled, sandbox, ..ShellOutcome::default() };
        match report {
            Some(Report::Failed { step, errno }) => {
                return Err(ShellError::Unavailable(sandbox::diagnose(&step, errno)));
            }
            Some(Report::Exited(code)) => outcome.exit = Some(code),
            Some(Report::Killed(signal)) => outcome.signal = Some(signal),
            Some(Report::Stopped(why)) => {
                outcome.signal = Some(libc::SIGKILL);
                outcome.warnings.push(why);
            }
            None if timed_out || cancelled => outcome.signal = Some(libc::SIGKILL),
            None => return Err(ShellError::Lost),
        }
        Ok(outcome)
    }
}
