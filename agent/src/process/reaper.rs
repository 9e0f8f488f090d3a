//! The one owner of exit statuses: nothing else in the agent waits for a process. As subreaper (or PID 1) the agent
//! also inherits, and reaps here, whatever the command left behind.

use nix::errno::Errno;
use nix::libc::{WEXITSTATUS, WIFEXITED, WIFSIGNALED, WTERMSIG};
use nix::unistd::Pid;

use crate::supervise::ExitStatus;
use crate::sys;

/// What one look found.
#[derive(Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Processes that ended.
    pub ended: Vec<(Pid, ExitStatus)>,
    /// No child is left, and so no descendant either: orphans become our children.
    pub alone: bool,
}

/// Collects every process that has ended.
pub fn reap() -> Reaped {
    let mut ended = Vec::new();
    loop {
        match sys::wait_any() {
            Ok(Some((pid, status))) if WIFEXITED(status) => {
                ended.push((pid, ExitStatus::Code(WEXITSTATUS(status))));
            }
            Ok(Some((pid, status))) if WIFSIGNALED(status) => {
                ended.push((pid, ExitStatus::Signal(WTERMSIG(status))));
            }
            // Stopped or continued, which is not asked for.
            Ok(Some(_)) | Err(Errno::EINTR) => {}
            Ok(None) => return Reaped { ended, alone: false },
            Err(_) => return Reaped { ended, alone: true },
        }
    }
}
