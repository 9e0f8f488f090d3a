//! Ctrl+Z, `fg` and `bg`. The agent and its command have groups of their own, and the terminal stops only one of them. The
//! shell waits for the agent alone, so both stop and continue together, whichever was stopped first.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{Command, Runner};
use crate::process::reaper;
use crate::process::stop::{Scope, Stopped, stop};

/// Who told the agent to stop, when it passed that on and waits for its command to stop first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopRequest {
    /// The terminal, which tells all of the agent's group.
    ByTerminal,
    ByProcess,
}

impl Runner {
    /// The command's group. A submitter has no terminal, and nobody who continues it.
    fn job(&self) -> Option<Pid> {
        match self.command {
            Command::Running(group) if !self.config.is_submitter => Some(group),
            Command::Running(_) | Command::NotStarted | Command::Ended => None,
        }
    }

    /// Follows the command if it has stopped. Without a terminal its stops are left to the one who causes them.
    pub(super) fn stop_with_command(&mut self) {
        let Some(group) = self.job() else { return };
        let Some(signal) = reaper::stopped_by(group) else { return };
        let told = self.stop_request.take();
        if self.terminal.is_none() && told.is_none() {
            return;
        }
        let wants_terminal = matches!(signal, Signal::SIGTTIN | Signal::SIGTTOU);
        // The shell's `fg` gives the terminal to our group, and sends no CONT when the job runs already.
        if wants_terminal && self.give_terminal(group) {
            let _ = killpg(group, Signal::SIGCONT);
            return;
        }
        self.take_terminal_back(Some(group));
        tracing::info!(%signal, "the command stopped");
        let ours = if signal == Signal::SIGSTOP { Signal::SIGTSTP } else { signal };
        let scope = match told {
            Some(StopRequest::ByTerminal) => Scope::Process,
            // In a pipeline the others are stopped by the terminal only together with us.
            Some(StopRequest::ByProcess) | None => Scope::Group,
        };
        // Without the agent the terminal would not have stopped the command there either.
        if stop(scope, ours) == Stopped::AndContinued {
            return;
        }
        match signal {
            Signal::SIGTSTP => self.continue_command(),
            // Nobody else could: the terminal is ours by now.
            _ if wants_terminal && self.give_terminal(group) => {
                let _ = killpg(group, Signal::SIGCONT);
            }
            _ if wants_terminal => self.end_for_want_of_terminal(group, signal),
            _ => {}
        }
    }

    /// The command would stay stopped for ever, or be stopped and continued without end. The kernel sends HUP to a group that
    /// nobody can continue; a command that ignores it, as with nohup, gets TERM, and then KILL.
    fn end_for_want_of_terminal(&mut self, group: Pid, stopped_by: Signal) {
        const ENDS: [Signal; 3] = [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGKILL];
        if self.ends_tried == 0 {
            self.warn(format!(
                "the command was stopped by {stopped_by}: it uses a terminal that is not its own"
            ));
        }
        let _ = killpg(group, ENDS[self.ends_tried.min(ENDS.len() - 1)]);
        let _ = killpg(group, Signal::SIGCONT);
        self.ends_tried += 1;
    }

    /// TSTP came to the agent: its own group has the foreground, or somebody sent it.
    pub(super) fn stop_signaled(&mut self, told: StopRequest) {
        match self.job() {
            // We follow it; a command that takes no notice goes on, and so does the agent.
            Some(group) => {
                self.stop_request = Some(told);
                let _ = killpg(group, Signal::SIGTSTP);
            }
            None => {
                stop(Scope::Process, Signal::SIGTSTP);
            }
        }
    }

    /// The agent was continued, by `fg` or `bg`: then another has the terminal, and the command goes on without it.
    pub(super) fn continue_command(&mut self) {
        self.stop_request = None;
        if let Some(group) = self.job() {
            if let Some(terminal) = &mut self.terminal {
                terminal.give_again(group);
            }
            let _ = killpg(group, Signal::SIGCONT);
        }
    }

    fn give_terminal(&mut self, group: Pid) -> bool {
        self.terminal.as_mut().is_some_and(|terminal| terminal.give(group))
    }
}
