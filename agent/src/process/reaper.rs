//! The only owner of exit statuses: nothing else in the agent waits for a process. As subreaper (or PID 1) the agent
//! also inherits and reaps the command's remaining processes.

use nix::errno::Errno;
use nix::libc::{WEXITSTATUS, WIFSIGNALED, WTERMSIG};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::preexisting;
use super::tree::{self, Process};
use crate::supervisor::ExitStatus;
use crate::sys;

/// Reaps processes, and remembers the largest one.
#[derive(Debug, Default)]
pub struct Reaper {
    largest: Option<Process>,
}

/// Result of one call.
#[derive(Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Processes that ended.
    pub ended: Vec<(Pid, ExitStatus)>,
    /// No process of the attempt is left. Without children there are no descendants: orphans become children of the
    /// agent.
    pub all_exited: bool,
}

impl Reaper {
    /// Reaps every process that has ended.
    pub fn reap(&mut self) -> Reaped {
        let mut ended = Vec::new();
        loop {
            match self.reap_one() {
                Ok(Some(one)) => ended.push(one),
                Ok(None) => {
                    let all_exited =
                        preexisting::exist() && tree::descendants().is_ok_and(|it| it.is_empty());
                    return Reaped { ended, all_exited };
                }
                Err(Errno::EINTR) => {}
                Err(_) => return Reaped { ended, all_exited: true },
            }
        }
    }

    fn reap_one(&mut self) -> nix::Result<Option<(Pid, ExitStatus)>> {
        let Some(pid) = sys::ended_child()? else { return Ok(None) };
        // The name can be read of a zombie, but not after reaping.
        let name = tree::name(pid);
        let is_preexisting = preexisting::is_preexisting(pid);
        let ended = sys::reap(pid)?;
        preexisting::forget(pid);
        if !is_preexisting && self.largest.as_ref().is_none_or(|largest| ended.memory_peak > largest.memory) {
            self.largest = Some(Process { pid, name: name.unwrap_or_default(), memory: ended.memory_peak });
        }
        let status = match ended.status {
            status if WIFSIGNALED(status) => ExitStatus::Signal(WTERMSIG(status)),
            status => ExitStatus::Code(WEXITSTATUS(status)),
        };
        Ok(Some((pid, status)))
    }

    /// The reaped process with the largest memory.
    pub fn largest(&self) -> Option<&Process> {
        self.largest.as_ref()
    }
}

/// The signal that stopped a child since the last call, unless it runs again.
pub fn stopped_by(child: Pid) -> Option<Signal> {
    match waitid(Id::Pid(child), WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG) {
        Ok(WaitStatus::Stopped(_, signal)) => Some(signal),
        _ => None,
    }
}
