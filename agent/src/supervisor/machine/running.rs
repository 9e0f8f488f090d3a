//! While the command runs: what ends it, and how.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::super::event::{Action, Event, Timer};
use super::super::exit_report::{End, Exit};
use super::{Attempt, Drain, Leftovers, SETTLE, State};

/// What was done to end the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    No,
    /// It has the grace to exit by itself: its commit is refused, or was granted before a Cancel came.
    Told,
    Termed,
    Killed,
    /// The same, and it is nearly time to leave, with it or without it.
    LastMoment,
}

/// How long KILL may take. It ends nothing that hangs in the kernel or belongs to another user; a process that gives
/// back much memory needs a while.
const KILL_TIMEOUT: Duration = Duration::from_secs(120);
/// The same when it is time to leave: whoever told the agent to stop may kill it a second or two later.
const LAST_KILL_TIMEOUT: Duration = Duration::from_secs(1);

impl Attempt {
    pub(super) fn running(&mut self, stop: Stop, event: Event) -> Vec<Action> {
        match event {
            Event::StartFailed { message, retryable, fault } => self.start_failed(message, retryable, fault),
            Event::Exited(exit) => {
                self.exited(exit);
                let leftovers = match stop {
                    Stop::No | Stop::Told => Leftovers::Undisturbed,
                    // A program behind a shell that ended at once has the grace, as one without a shell.
                    Stop::Termed => Leftovers::HaveGrace,
                    Stop::Killed | Stop::LastMoment => Leftovers::Killed,
                };
                self.state = State::Draining(Drain { leftovers, ..Drain::default() });
                let mut actions = vec![Action::ForgetCommit, Action::SetTimer(Timer::Settle, SETTLE)];
                if leftovers != Leftovers::HaveGrace {
                    actions.push(Action::SetTimer(Timer::Drain, self.plan.drain));
                }
                actions
            }
            Event::SubmitterFailed(failure) => {
                self.failure = Some(failure);
                Vec::new()
            }
            Event::ChannelBroken(why) => {
                self.channel_broken = Some(why.clone());
                self.end_by(End::ChannelBroken(why.clone()));
                let mut actions = vec![Action::Warn(why)];
                actions.extend(self.terminate(stop, self.plan.grace));
                actions
            }
            Event::ChannelCut => {
                self.channel_cut = true;
                Vec::new()
            }
            Event::StreamsEnded { .. } => {
                self.streams_ended = true;
                Vec::new()
            }
            Event::CommitAsked if self.end.is_none() => vec![Action::AskCommit(Vec::new())],
            // The grant was on its way when the end began. To let the command commit now would have an attempt that
            // is cancelled change something.
            Event::CommitAsked | Event::Granted if self.end.is_some() => {
                vec![Action::AnswerSubmitter(Err("the attempt is being ended".to_owned()))]
            }
            Event::Granted => {
                self.is_granted = true;
                vec![Action::AnswerSubmitter(Ok(()))]
            }
            Event::CommitRefused(why) => {
                self.end_by(End::Refused(why.clone()));
                let mut actions = vec![Action::AnswerSubmitter(Err(why))];
                if stop == Stop::No {
                    self.state = State::Running(Stop::Told);
                    actions.push(Action::SetTimer(Timer::Grace, self.plan.grace));
                }
                actions
            }
            Event::AttachRefused(why) => {
                let end = self.superseded(why);
                self.end_by(end);
                self.terminate(stop, self.plan.grace)
            }
            Event::Cancel { reason, grace } => {
                self.end_by(End::Cancelled(reason));
                self.cancel(stop, grace.unwrap_or(self.plan.grace))
            }
            Event::Terminate { signal, budget, .. } => match self.terminations {
                1 => self.stop(stop, signal, budget.command),
                2 => self.kill(stop),
                _ => self.kill_and_leave(stop),
            },
            Event::Forward(signal) => vec![Action::Forward(signal)],
            Event::TimeUp(Timer::Grace) => match stop {
                Stop::No => Vec::new(),
                Stop::Told => self.terminate(stop, self.plan.grace),
                Stop::Termed | Stop::Killed | Stop::LastMoment => self.kill(stop),
            },
            // A cancelled command has nothing to publish, and its grace has its own timer.
            Event::TimeUp(Timer::PublishBy) if stop == Stop::Termed && self.is_cancelled() => Vec::new(),
            Event::TimeUp(Timer::PublishBy) => self.kill(stop),
            Event::TimeUp(Timer::LeaveBy) => self.kill_and_leave(stop),
            Event::TimeUp(Timer::GiveUp) => self.give_up(),
            _ => Vec::new(),
        }
    }

    pub(super) fn exited(&mut self, exit: Exit) {
        self.exit = Some(exit);
        if !exit.is_success() {
            // A command that still says that all went well is taken at its word.
            self.end_by_termination();
        } else if self.is_granted && !self.plan.publishes {
            self.forget_cancel();
        }
    }

    /// A commit that was granted has the grace to be completed: a TERM in the middle of it would leave its effect half
    /// made, or made by an attempt that reports that it was cancelled.
    fn cancel(&mut self, stop: Stop, grace: Duration) -> Vec<Action> {
        match stop {
            Stop::No if self.is_granted => {
                self.state = State::Running(Stop::Told);
                vec![Action::SetTimer(Timer::Grace, grace)]
            }
            // The same Cancel on a new stream.
            Stop::Told if self.is_granted => Vec::new(),
            _ => self.terminate(stop, grace),
        }
    }

    /// The Cancel came too late to prevent the effect: the commit was granted, and the command succeeded.
    fn forget_cancel(&mut self) {
        if self.is_cancelled() {
            self.end = None;
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        matches!(self.end, Some(End::Cancelled(_)))
    }

    /// TERM, and KILL when the grace is over. A command that has had its TERM gets no second one: a server repeats
    /// its Cancel on every new stream.
    fn terminate(&mut self, stop: Stop, grace: Duration) -> Vec<Action> {
        self.stop(stop, Signal::SIGTERM, grace)
    }

    fn stop(&mut self, stop: Stop, signal: Signal, grace: Duration) -> Vec<Action> {
        match stop {
            Stop::No | Stop::Told => {
                self.state = State::Running(Stop::Termed);
                vec![Action::ForgetCommit, Action::Signal(signal), Action::SetTimer(Timer::Grace, grace)]
            }
            Stop::Termed | Stop::Killed | Stop::LastMoment => Vec::new(),
        }
    }

    fn kill(&mut self, stop: Stop) -> Vec<Action> {
        match stop {
            Stop::No | Stop::Told | Stop::Termed => {
                self.state = State::Running(Stop::Killed);
                vec![Action::Signal(Signal::SIGKILL), Action::SetTimer(Timer::GiveUp, KILL_TIMEOUT)]
            }
            Stop::Killed | Stop::LastMoment => Vec::new(),
        }
    }

    fn kill_and_leave(&mut self, stop: Stop) -> Vec<Action> {
        let mut actions = self.kill(stop);
        if stop != Stop::LastMoment {
            self.state = State::Running(Stop::LastMoment);
            actions.push(Action::SetTimer(Timer::GiveUp, LAST_KILL_TIMEOUT));
        }
        actions
    }

    /// The attempt ends without its command's end.
    fn give_up(&mut self) -> Vec<Action> {
        self.state = State::Draining(Drain { stopping: true, ..Drain::default() });
        if self.streams_ended { self.drained() } else { vec![Action::StopReading] }
    }
}
