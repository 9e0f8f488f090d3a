//! Job control: Ctrl+Z, `fg` and `bg`. Agent and command have separate process groups, and the terminal stops only one
//! of them. The shell waits for the agent alone, so both stop and continue together.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::Runner;
use super::programs::Process;
use crate::process::reaper;
use crate::process::stop::{Scope, Stopped, stop};

/// Sender of a stop that the agent forwarded. The agent stops after its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopRequest {
    /// The terminal, which stops all of the agent's group.
    ByTerminal,
    ByProcess,
}

impl Runner {
    /// The command's group. A submitter has no terminal, and would not be continued.
    fn job(&self) -> Option<Pid> {
        match self.programs.command {
            Process::Running { group, .. } if !self.config.is_submitter => Some(group),
            Process::Running { .. } | Process::NotStarted | Process::Ended => None,
        }
    }

    /// Stops the agent if the command has stopped. Without a terminal, stops are left to their sender.
    pub(super) fn stop_with_command(&mut self) {
        let Some(group) = self.job() else { return };
        let Some(signal) = reaper::stopped_by(group) else { return };
        let request = self.stop_request.take();
        if self.terminal.is_none() && request.is_none() {
            return;
        }
        let wants_terminal = matches!(signal, Signal::SIGTTIN | Signal::SIGTTOU);
        // The shell's `fg` gives the terminal to the agent's group, and sends no CONT to a running job.
        if wants_terminal && self.give_terminal(group) {
            let _ = killpg(group, Signal::SIGCONT);
            return;
        }
        self.take_terminal_back(Some(group));
        tracing::info!(%signal, "the command stopped");
        let own_signal = if signal == Signal::SIGSTOP { Signal::SIGTSTP } else { signal };
        let scope = match request {
            Some(StopRequest::ByTerminal) => Scope::Process,
            // The terminal stops the others of a pipeline only together with the agent.
            Some(StopRequest::ByProcess) | None => Scope::Group,
        };
        // The kernel did not stop the agent. Without the agent it would not have stopped the command either.
        if stop(scope, own_signal) == Stopped::AndContinued {
            return;
        }
        match signal {
            Signal::SIGTSTP => self.continue_command(),
            // The agent's group has the terminal by now.
            _ if wants_terminal && self.give_terminal(group) => {
                let _ = killpg(group, Signal::SIGCONT);
            }
            _ if wants_terminal => self.end_without_terminal(group, signal),
            _ => {}
        }
    }

    /// Ends a command that would stay stopped, or be stopped and continued without end. As the kernel for an orphaned
    /// group, it sends HUP; a command that ignores HUP, as with nohup, gets TERM, and then KILL.
    fn end_without_terminal(&mut self, group: Pid, stopped_by: Signal) {
        const ENDS: [Signal; 3] = [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGKILL];
        if self.ends_tried == 0 {
            self.warn(format!(
                "the command was stopped by {stopped_by}: it uses a terminal that it does not own; ending it"
            ));
        }
        let _ = killpg(group, ENDS[self.ends_tried.min(ENDS.len() - 1)]);
        let _ = killpg(group, Signal::SIGCONT);
        self.ends_tried += 1;
    }

    /// Handles TSTP to the agent, from the terminal or another process.
    pub(super) fn stop_signaled(&mut self, request: StopRequest) {
        match self.job() {
            // The agent stops after the command. If the command ignores TSTP, both go on.
            Some(group) => {
                self.stop_request = Some(request);
                let _ = killpg(group, Signal::SIGTSTP);
            }
            None => {
                stop(Scope::Process, Signal::SIGTSTP);
            }
        }
    }

    /// Continues the command after `fg` or `bg`. After `bg` another group has the terminal.
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
