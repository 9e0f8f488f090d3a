//! Ctrl+Z, `fg` and `bg`. A command with the foreground of the terminal is stopped by it, and the agent is not: they have
//! groups of their own. The shell waits for the agent alone, so agent and command stop and continue together.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{Command, Shell};
use crate::process::reaper;
use crate::process::stop::{Scope, Stopped, stop};
use crate::process::terminal::Foreground;

impl Shell {
    /// The command's group and the foreground that it was given. Where it was given none, its stops are not our business.
    fn foreground_job(&self) -> Option<(Pid, Foreground)> {
        match self.command {
            Command::Running(group) => Some((group, self.foreground?)),
            Command::NotStarted | Command::Ended => None,
        }
    }

    /// Follows the command if it has stopped.
    pub(super) fn stop_with_command(&self) {
        let Some((group, foreground)) = self.foreground_job() else { return };
        let Some(signal) = reaper::stopped_by(group) else { return };
        let wants_terminal = matches!(signal, Signal::SIGTTIN | Signal::SIGTTOU);
        // The shell's `fg` gives the terminal to our group, and sends no CONT when the job runs already.
        if wants_terminal && foreground.give(group) {
            let _ = killpg(group, Signal::SIGCONT);
            return;
        }
        foreground.take_back(Some(group));
        tracing::info!(%signal, "the command stopped");
        let ours = if signal == Signal::SIGSTOP { Signal::SIGTSTP } else { signal };
        // Without the agent the terminal would not have stopped the command there either.
        if stop(Scope::Group, ours) == Stopped::AndContinued {
            return;
        }
        match signal {
            Signal::SIGTSTP => self.continue_command(),
            // Nobody else could: the terminal is ours by now.
            _ if wants_terminal && foreground.give(group) => {
                let _ = killpg(group, Signal::SIGCONT);
            }
            _ => {}
        }
    }

    /// TSTP came to the agent: its own group has the foreground, or somebody sent it.
    pub(super) fn stop_signaled(&self) {
        match self.foreground_job() {
            // We follow it.
            Some((group, _)) => {
                let _ = killpg(group, Signal::SIGTSTP);
            }
            None => {
                stop(Scope::Process, Signal::SIGTSTP);
            }
        }
    }

    /// The agent was continued, by `fg` or `bg`: then another has the terminal, and the command goes on without it.
    pub(super) fn continue_command(&self) {
        if let Some((group, foreground)) = self.foreground_job() {
            foreground.give(group);
            let _ = killpg(group, Signal::SIGCONT);
        }
    }
}
