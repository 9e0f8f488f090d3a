//! The controlling terminal. A command at a terminal has the foreground while it runs, so that Ctrl+C goes to it. Then
//! the foreground goes back to the earlier group. In a pipeline, a pager may read the terminal, and keeps the
//! foreground. The agent then forwards Ctrl+C, until the command reads the terminal too.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal as _, stderr, stdin, stdout};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::killpg;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// The controlling terminal.
#[derive(Debug)]
pub struct Terminal {
    tty: File,
    own: Pid,
    /// The command had the foreground, so it gets it again when the agent has it.
    is_given: bool,
}

impl Terminal {
    /// `None`: this process has none.
    pub fn of_self() -> Option<Self> {
        let flags = libc::O_NOCTTY | libc::O_CLOEXEC;
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/tty").ok();
        // An image may not have this device.
        let tty = opened.or_else(|| {
            let streams =
                [stdin().as_fd(), stdout().as_fd(), stderr().as_fd()].map(|it| it.try_clone_to_owned());
            streams.into_iter().flatten().find(|it| tcgetpgrp(it).is_ok()).map(File::from)
        })?;
        tcgetpgrp(&tty).is_ok().then(|| Self { tty, own: getpgrp(), is_given: false })
    }

    /// Descriptor by which the command takes the foreground before it begins; `None`: another group has it, or there
    /// may be a pager.
    pub fn for_command(&mut self) -> Option<RawFd> {
        let is_at_terminal = tcgetpgrp(&self.tty) == Ok(self.own) && tcgetpgrp(stdin()).is_ok();
        self.is_given = is_at_terminal && !is_pipe(stdout().as_fd());
        self.is_given.then(|| self.tty.as_raw_fd())
    }

    /// Gives the foreground to the command's group, if the agent's group has it. Returns whether it did.
    pub fn give(&mut self, command: Pid) -> bool {
        let is_given = tcgetpgrp(&self.tty) == Ok(self.own) && tcsetpgrp(&self.tty, command).is_ok();
        self.is_given |= is_given;
        is_given
    }

    /// The same for a command that had it before.
    pub fn give_again(&mut self, command: Pid) {
        if self.is_given {
            self.give(command);
        }
    }

    /// Takes it back from the group of a command that has ended or stopped, or from a group without processes, such as
    /// one that the command gave it to. Any other group keeps it: a shell after `bg`.
    pub fn take_back(&self, command: Option<Pid>) {
        let Ok(holder) = tcgetpgrp(&self.tty) else { return };
        if Some(holder) == command || killpg(holder, None) == Err(Errno::ESRCH) {
            // TTOU, which would stop the agent for this, is blocked.
            let _ = tcsetpgrp(&self.tty, self.own);
        }
    }
}

/// Whether stdin, stdout and stderr are the same terminal, so that a person may use it.
pub fn is_at_one() -> bool {
    let (input, output, errors) = (stdin(), stdout(), stderr());
    let streams = [input.as_fd(), output.as_fd(), errors.as_fd()];
    let device = |stream: &BorrowedFd<'_>| fstat(stream).ok().map(|it| it.st_rdev);
    let first = device(&streams[0]);
    first.is_some() && streams.iter().all(|it| it.is_terminal() && device(it) == first)
}

fn is_pipe(stream: BorrowedFd<'_>) -> bool {
    let kind = |mode| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
    fstat(stream).is_ok_and(|it| matches!(kind(it.st_mode), SFlag::S_IFIFO | SFlag::S_IFSOCK))
}
