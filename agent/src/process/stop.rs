//! Stopping this process, as Ctrl+Z does it.

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::unistd::Pid;

use crate::sys;

/// Who is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// This process.
    Process,
    /// All of its group: the shell that waits for it may do so by way of a script.
    Group,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// This process was stopped, and then continued.
    AndContinued,
    /// The kernel did not stop it: there is no shell that could continue it (its group is orphaned, or it is PID 1), or
    /// the signal is ignored.
    Not,
}

/// Stops by TSTP, TTIN or TTOU, and returns when this process is continued. Call it on the main thread, with CONT
/// blocked. STOP would also stop a process that nobody could continue.
pub fn stop(scope: Scope, signal: Signal) -> Stopped {
    let whom = match scope {
        Scope::Process => Pid::this(),
        Scope::Group => Pid::from_raw(0),
    };
    let Ok(before) = SigSet::from(signal).thread_swap_mask(SigmaskHow::SIG_UNBLOCK) else {
        return Stopped::Not;
    };
    // All other threads block it, so it takes effect here, before the call returns. It also removes a pending CONT.
    let _ = kill(whom, signal);
    let _ = before.thread_set_mask();
    if sys::is_pending(Signal::SIGCONT) { Stopped::AndContinued } else { Stopped::Not }
}
