//! The terminal that controls the agent's session. A command at a terminal has its foreground while it runs, so that who types
//! Ctrl+C there means the command; then it goes back to where it was, for whoever comes next. In a pipeline there is mostly a
//! pager that reads the terminal itself: it keeps it, and what is typed comes to the command through the agent, until the
//! command wants to read the terminal too.

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
    /// The command has had the foreground, so it gets it back whenever the agent has it.
    is_given: bool,
}

impl Terminal {
    /// `None`: there is none.
    pub fn of_self() -> Option<Self> {
        let flags = libc::O_NOCTTY | libc::O_CLOEXEC;
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/tty").ok();
        // An image may have no such device.
        let tty = opened.or_else(|| {
            let streams =
                [stdin().as_fd(), stdout().as_fd(), stderr().as_fd()].map(|it| it.try_clone_to_owned());
            streams.into_iter().flatten().find(|it| tcgetpgrp(it).is_ok()).map(File::from)
        })?;
        tcgetpgrp(&tty).is_ok().then(|| Self { tty, own: getpgrp(), is_given: false })
    }

    /// For the command to take the foreground itself before it begins; `None`: it is another's, or there may be a pager.
    pub fn for_command(&mut self) -> Option<RawFd> {
        let is_at_terminal = tcgetpgrp(&self.tty) == Ok(self.own) && tcgetpgrp(stdin()).is_ok();
        self.is_given = is_at_terminal && !is_pipe(stdout().as_fd());
        self.is_given.then(|| self.tty.as_raw_fd())
    }

    /// Gives the foreground to the command's group, and says whether it did: only our own group can give it away.
    pub fn give(&mut self, command: Pid) -> bool {
        let is_given = tcgetpgrp(&self.tty) == Ok(self.own) && tcsetpgrp(&self.tty, command).is_ok();
        self.is_given |= is_given;
        is_given
    }

    /// The same to a command that has had it before.
    pub fn give_again(&mut self, command: Pid) {
        if self.is_given {
            self.give(command);
        }
    }

    /// Takes it back from the group of a command that has ended or stopped, or from a group of which nobody is left, as one that the
    /// command gave it to. Anybody else has it rightly: a shell that was told to go on without us.
    pub fn take_back(&self, command: Option<Pid>) {
        let Ok(holder) = tcgetpgrp(&self.tty) else { return };
        if Some(holder) == command || killpg(holder, None) == Err(Errno::ESRCH) {
            // TTOU, which would stop us for that, is blocked.
            let _ = tcsetpgrp(&self.tty, self.own);
        }
    }
}

/// Whether stdin, stdout and stderr are one terminal: then a person sits there, or a program that plays one.
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
