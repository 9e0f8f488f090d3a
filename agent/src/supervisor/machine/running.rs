//! The running command, and how it is ended.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::super::event::{Action, CommandEvent, Event, GrantEvent, Timer};
use super::super::exit_report::{End, Exit};
use super::draining::{Drain, Remaining};
use super::{Attempt, SETTLE, State};

/// How far the end of the command has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopStage {
    /// Nothing was done to end it.
    None,
    /// No signal yet, a grace period to exit by itself: its commit was refused, or was granted before a Cancel came.
    GracePeriod,
    TermSent,
    KillSent,
    /// KILL was sent, and the time to leave has come.
    LastMoment,
}

/// Timeout for KILL. It does not end a process that hangs in the kernel or belongs to another user; a process that
/// frees much memory needs a while.
const KILL_TIMEOUT: Duration = Duration::from_secs(120);
/// The same once the agent has to leave: its own KILL may follow a second or two later.
const LAST_KILL_TIMEOUT: Duration = Duration::from_secs(1);

impl Attempt {
    pub(super) fn running(&mut self, stop: StopStage, event: Event) -> Vec<Action> {
        match event {
            Event::Command(CommandEvent::StartFailed { message, fault }) => self.start_failed(message, fault),
            Event::Command(CommandEvent::Exited(exit)) => {
                self.exited(exit);
                let remaining = match stop {
                    StopStage::None | StopStage::GracePeriod => Remaining::NotSignaled,
                    // The shell in front of a program may end at once. The program keeps the grace period.
                    StopStage::TermSent => Remaining::InGracePeriod,
                    StopStage::KillSent | StopStage::LastMoment => Remaining::KillSent,
                };
                self.state = State::Draining(Drain { remaining, ..Drain::default() });
                let mut actions = vec![Action::ForgetCommit, Action::SetTimer(Timer::Settle, SETTLE)];
                if remaining != Remaining::InGracePeriod {
                    actions.push(Action::SetTimer(Timer::Drain, self.plan.drain));
                }
                actions
            }
            Event::Command(CommandEvent::SubmitterFailed(failure)) => {
                self.failure = Some(failure);
                Vec::new()
            }
            Event::Command(CommandEvent::ChannelBroken(why)) => {
                self.channel_broken = Some(why.clone());
                self.end_by(End::ChannelBroken(why.clone()));
                let mut actions = vec![Action::Warn(why)];
                actions.extend(self.terminate(stop, self.plan.grace));
                actions
            }
            Event::Command(CommandEvent::ChannelCut) => {
                self.channel_cut = true;
                Vec::new()
            }
            Event::Command(CommandEvent::StreamsEnded { .. }) => {
                self.streams_ended = true;
                Vec::new()
            }
            // The grant was on its way when the end began. A commit now would let a cancelled attempt change something.
            Event::Command(CommandEvent::CommitAsked) | Event::Grant(GrantEvent::Granted)
                if self.end.is_some() =>
            {
                vec![Action::AnswerSubmitter(Err("the attempt is being ended".to_owned()))]
            }
            Event::Command(CommandEvent::CommitAsked) => vec![Action::AskCommit(Vec::new())],
            Event::Grant(GrantEvent::Granted) => {
                self.is_granted = true;
                vec![Action::AnswerSubmitter(Ok(()))]
            }
            Event::Grant(GrantEvent::CommitRefused(why)) => {
                self.end_by(End::Refused(why.clone()));
                let mut actions = vec![Action::AnswerSubmitter(Err(why))];
                if stop == StopStage::None {
                    self.state = State::Running(StopStage::GracePeriod);
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
                StopStage::None => Vec::new(),
                StopStage::GracePeriod => self.terminate(stop, self.plan.grace),
                StopStage::TermSent | StopStage::KillSent | StopStage::LastMoment => self.kill(stop),
            },
            // A cancelled command has nothing to publish, and its grace period has its own timer.
            Event::TimeUp(Timer::PublishBy) if stop == StopStage::TermSent && self.is_cancelled() => {
                Vec::new()
            }
            Event::TimeUp(Timer::PublishBy) => self.kill(stop),
            Event::TimeUp(Timer::LeaveBy) => self.kill_and_leave(stop),
            Event::TimeUp(Timer::GiveUp) => self.give_up(),
            Event::Attach(_)
            | Event::Prepare(_)
            | Event::Command(CommandEvent::AllExited)
            | Event::Publish(_)
            | Event::Report(_)
            | Event::TimeUp(Timer::Linger | Timer::Settle | Timer::Drain | Timer::StartAgain) => Vec::new(),
        }
    }

    pub(super) fn exited(&mut self, exit: Exit) {
        self.exit = Some(exit);
        if !exit.is_success() {
            // A command that exits with 0 despite the termination has succeeded.
            self.end_by_termination();
        } else if self.is_granted && !self.plan.publishes {
            self.forget_cancel();
        }
    }

    /// A granted commit has the grace period to complete. A TERM during it would leave a partial effect, or the effect
    /// of an attempt that reports to be cancelled.
    fn cancel(&mut self, stop: StopStage, grace: Duration) -> Vec<Action> {
        match stop {
            StopStage::None if self.is_granted => {
                self.state = State::Running(StopStage::GracePeriod);
                vec![Action::SetTimer(Timer::Grace, grace)]
            }
            // The same Cancel on a new stream.
            StopStage::GracePeriod if self.is_granted => Vec::new(),
            StopStage::None
            | StopStage::GracePeriod
            | StopStage::TermSent
            | StopStage::KillSent
            | StopStage::LastMoment => self.terminate(stop, grace),
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

    /// TERM, and KILL after the grace period. A command gets TERM only once: a server repeats its Cancel on every new
    /// stream.
    fn terminate(&mut self, stop: StopStage, grace: Duration) -> Vec<Action> {
        self.stop(stop, Signal::SIGTERM, grace)
    }

    fn stop(&mut self, stop: StopStage, signal: Signal, grace: Duration) -> Vec<Action> {
        match stop {
            StopStage::None | StopStage::GracePeriod => {
                self.state = State::Running(StopStage::TermSent);
                vec![Action::ForgetCommit, Action::Signal(signal), Action::SetTimer(Timer::Grace, grace)]
            }
            StopStage::TermSent | StopStage::KillSent | StopStage::LastMoment => Vec::new(),
        }
    }

    fn kill(&mut self, stop: StopStage) -> Vec<Action> {
        match stop {
            StopStage::None | StopStage::GracePeriod | StopStage::TermSent => {
                self.state = State::Running(StopStage::KillSent);
                vec![Action::Signal(Signal::SIGKILL), Action::SetTimer(Timer::GiveUp, KILL_TIMEOUT)]
            }
            StopStage::KillSent | StopStage::LastMoment => Vec::new(),
        }
    }

    fn kill_and_leave(&mut self, stop: StopStage) -> Vec<Action> {
        let mut actions = self.kill(stop);
        if stop != StopStage::LastMoment {
            self.state = State::Running(StopStage::LastMoment);
            actions.push(Action::SetTimer(Timer::GiveUp, LAST_KILL_TIMEOUT));
        }
        actions
    }

    /// The attempt ends although its command does not.
    fn give_up(&mut self) -> Vec<Action> {
        self.state = State::Draining(Drain { stopping: true, ..Drain::default() });
        if self.streams_ended { self.drained() } else { vec![Action::StopReading] }
    }
}
