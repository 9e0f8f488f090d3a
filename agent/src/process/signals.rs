//! Signals to the agent, read one by one with their senders. They are blocked for the whole process, which also works
//! for PID 1: the kernel drops only signals that are neither handled nor blocked.

use std::fmt;
use std::sync::OnceLock;

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;

use super::tree;
use crate::sys::{self, Inherited};

/// Only forwarded to the command's group.
const FORWARDED: [Signal; 5] =
    [Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH];

/// A signal that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caught {
    /// A child ended or stopped.
    Child,
    /// TERM, or INT unless it was ignored at the start: terminates the agent.
    End(Signal, Sender),
    /// To forward to the command.
    Forward(Signal),
    /// HUP from the kernel: the terminal is closed, or the parent of the stopped agent ended.
    Hangup,
    /// TSTP: stops the agent.
    Stop {
        /// Sent by the terminal to all of the agent's group.
        by_terminal: bool,
    },
    /// CONT: the agent continues, or it was not stopped.
    Continue,
}

/// Sender of a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    pid: i32,
    uid: u32,
    name: Option<String>,
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.pid) {
            // The kernel shows 0 for a process of another pid namespace, such as a container runtime.
            (_, 0) => write!(f, "a process outside of the container, uid {}", self.uid),
            (Some(name), pid) => write!(f, "pid {pid} ({name}), uid {}", self.uid),
            (None, pid) => write!(f, "pid {pid}, uid {}", self.uid),
        }
    }
}

fn all() -> SigSet {
    let mut signals = SigSet::empty();
    for signal in FORWARDED {
        signals.add(signal);
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD, Signal::SIGTSTP, Signal::SIGCONT] {
        signals.add(signal);
    }
    signals
}

/// Signal settings at the start of the agent, which its command inherits.
static INHERITED: OnceLock<Inherited> = OnceLock::new();

/// Blocks every signal that [`Signals`] reads, and enables SIGCHLD. Call it before the process has a second thread,
/// since threads inherit the signal mask.
///
/// # Errors
/// Those of `pthread_sigmask` and `sigaction`.
pub fn block() -> nix::Result<()> {
    let mut blocked = all();
    // So that a file size limit fails the write, and taking the terminal back does not stop the agent.
    blocked.add(Signal::SIGXFSZ);
    blocked.add(Signal::SIGTTOU);
    let blocked = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let ignored = sys::ignored_at_start();
    sys::enable_sigchld()?;
    INHERITED.get_or_init(|| Inherited { blocked, ignored });
    Ok(())
}

/// Signal settings for a command.
pub fn inherited() -> Inherited {
    let none = || Inherited { blocked: SigSet::empty(), ignored: SigSet::empty() };
    INHERITED.get().copied().unwrap_or_else(none)
}

/// Reads the signals that [`block`] blocked.
#[derive(Debug)]
pub struct Signals {
    fd: AsyncFd<SignalFd>,
    ignores_interrupts: bool,
}

impl Signals {
    /// Reads pending and future signals.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn new() -> anyhow::Result<Self> {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let fd = sys::watch(SignalFd::with_flags(&all(), flags)?)?;
        Ok(Self { fd, ignores_interrupts: inherited().ignored.contains(Signal::SIGINT) })
    }

    /// Waits for the next signal. Safe to cancel.
    pub async fn next(&self) -> Caught {
        loop {
            let Ok(mut ready) = self.fd.readable().await else { return std::future::pending().await };
            match self.fd.get_ref().read_signal() {
                Ok(Some(info)) => {
                    let signal = i32::try_from(info.ssi_signo).ok().and_then(|it| Signal::try_from(it).ok());
                    match signal {
                        Some(Signal::SIGCHLD) => return Caught::Child,
                        Some(Signal::SIGTSTP) => {
                            return Caught::Stop { by_terminal: info.ssi_code == libc::SI_KERNEL };
                        }
                        Some(Signal::SIGCONT) => return Caught::Continue,
                        // Shells start the background jobs of a script with INT ignored: Ctrl+C is for the foreground.
                        // A blocked signal arrives here although it is ignored. The command may handle it.
                        Some(Signal::SIGINT) if self.ignores_interrupts => {
                            return Caught::Forward(Signal::SIGINT);
                        }
                        Some(signal @ (Signal::SIGTERM | Signal::SIGINT)) => {
                            let pid = i32::try_from(info.ssi_pid).unwrap_or(0);
                            let name = tree::name(Pid::from_raw(pid));
                            return Caught::End(signal, Sender { pid, uid: info.ssi_uid, name });
                        }
                        Some(Signal::SIGHUP) if info.ssi_code == libc::SI_KERNEL => return Caught::Hangup,
                        Some(signal) => return Caught::Forward(signal),
                        None => {}
                    }
                }
                // Nothing more, or an interrupted read: wait again.
                Ok(None) | Err(_) => ready.clear_ready(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_sender_is_described() {
        let sender =
            |pid, name: Option<&str>| Sender { pid, uid: 1000, name: name.map(str::to_owned) }.to_string();
        assert_eq!(sender(17, Some("bash")), "pid 17 (bash), uid 1000");
        assert_eq!(sender(17, None), "pid 17, uid 1000");
        assert_eq!(sender(0, None), "a process outside of the container, uid 1000");
    }
}
