//! The terminal at stdin. A command has its foreground while it runs, so that who types Ctrl+C there means the command;
//! then it goes back to where it was, for whoever comes next. Behind a pipe there is mostly a pager that reads the terminal
//! itself: it keeps it, and Ctrl+C comes to the command through the agent.

use std::io::{IsTerminal as _, stdin, stdout};

use nix::errno::Errno;
use nix::sys::signal::killpg;
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// A terminal in whose foreground this process's group was.
#[derive(Debug, Clone, Copy)]
pub struct Foreground {
    own: Pid,
}

impl Foreground {
    /// `None`: there is no terminal at stdin, or it is another's, or what is printed goes elsewhere.
    pub fn of_self() -> Option<Self> {
        let own = getpgrp();
        (stdout().is_terminal() && tcgetpgrp(stdin()) == Ok(own)).then_some(Self { own })
    }

    /// Gives it to the command's group, and says whether it did: only our own group can give it away.
    pub fn give(self, command: Pid) -> bool {
        tcgetpgrp(stdin()) == Ok(self.own) && tcsetpgrp(stdin(), command).is_ok()
    }

    /// Takes it back from the group of a command that has ended or stopped, or from a group of which nobody is left, as one that the
    /// command gave it to. Anybody else has it rightly: a shell that was told to go on without us.
    pub fn take_back(self, command: Option<Pid>) {
        let Ok(holder) = tcgetpgrp(stdin()) else { return };
        if Some(holder) == command || killpg(holder, None) == Err(Errno::ESRCH) {
            // TTOU, which would stop us for that, is blocked.
            let _ = tcsetpgrp(stdin(), self.own);
        }
    }
}
