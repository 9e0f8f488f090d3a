//! Stops this process, as Ctrl+Z does.

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::unistd::Pid;

use crate::sys;

/// What to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// This process.
    Process,
    /// All of its group: the shell may wait for it through a script.
    Group,
}

/// Result of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// This process was stopped, and then continued.
    AndContinued,
    /// The kernel did not stop it: no shell could continue it (its group is orphaned, or it is PID 1), or the signal is
    /// ignored.
    Not,
}

/// Stops by TSTP, TTIN or TTOU, and returns when this process is continued. Call it on the main thread, with CONT
/// blocked. STOP would also stop a process that no shell could continue.
pub fn stop(scope: Scope, signal: Signal) -> Stopped {
    let whom = match scope {
        Scope::Process => Pid::this(),
        Scope::Group => Pid::from_raw(0),
    };
    let Ok(before) = SigSet::from(signal).thread_swap_mask(SigmaskHow::SIG_UNBLOCK) else {
        return Stopped::Not;
    };
    // All other threads block the signal, so it takes effect before the call returns. It also removes a pending CONT.
    let _ = kill(whom, signal);
    let _ = before.thread_set_mask();
    if sys::is_pending(Signal::SIGCONT) { Stopped::AndContinued } else { Stopped::Not }
}
