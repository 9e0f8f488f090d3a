//! The running command with its companion, and how they are ended.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::super::event::{Action, CommandEvent, Event, GrantEvent, Timer};
use super::super::exit_report::{End, Exit};
use super::super::programs::Program;
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
/// Timeout for a companion whose command has succeeded, without a frame from it, and without a commit that waits for
/// the grant. It has its own timeouts for the database, so this bounds a companion that hangs.
pub(in super::super) const COMPLETION_TIMEOUT: Duration = Duration::from_secs(600);

impl Attempt {
    pub(super) fn running(&mut self, stop: StopStage, event: Event) -> Vec<Action> {
        match event {
            Event::Command(CommandEvent::StartFailed { message, fault }) => self.start_failed(message, fault),
            Event::Command(CommandEvent::Exited { program, exit, told }) => {
                self.exited(program, exit, told);
                match self.programs.running() {
                    Some(other) => self.one_left(stop, other, exit),
                    None => self.drain(stop),
                }
            }
            Event::Command(CommandEvent::SubmitterFailed { program, failure }) => {
                self.programs.failed(program, failure);
                Vec::new()
            }
            Event::Command(CommandEvent::ChannelBroken(why)) => {
                self.channel_broken = Some(why.clone());
                self.end_running(End::ChannelBroken(why.clone()));
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
                if self.end.is_some() || self.programs.has_failed() =>
            {
                vec![Action::AnswerSubmitter(Err("the attempt is being ended".to_owned()))]
            }
            Event::Command(CommandEvent::CommitAsked) => {
                self.is_asking = true;
                vec![Action::AskCommit(Vec::new())]
            }
            Event::Grant(GrantEvent::Granted) => {
                self.is_granted = true;
                self.is_asking = false;
                let mut actions = vec![Action::AnswerSubmitter(Ok(()))];
                if self.is_completing() {
                    actions.push(Action::SetTimer(Timer::Completion, COMPLETION_TIMEOUT));
                }
                actions
            }
            Event::Grant(GrantEvent::CommitRefused(why)) => {
                self.is_asking = false;
                self.end_running(End::Refused(why.clone()));
                let mut actions = vec![Action::AnswerSubmitter(Err(why))];
                if stop == StopStage::None {
                    self.state = State::Running(StopStage::GracePeriod);
                    actions.push(Action::SetTimer(Timer::Grace, self.plan.grace));
                }
                actions
            }
            Event::AttachRefused(why) => {
                let end = self.superseded(why);
                self.end_running(end);
                self.terminate(stop, self.plan.grace)
            }
            Event::Cancel { reason, grace } => {
                self.end_running(End::Cancelled(reason));
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
            Event::TimeUp(Timer::CompanionTerm) if stop == StopStage::TermSent => self.terminate_companion(),
            Event::TimeUp(Timer::Settle) if self.programs.has_failed() => {
                self.terminate(stop, self.plan.grace)
            }
            Event::Command(CommandEvent::CompanionSpoke) if self.is_completing() => {
                vec![Action::SetTimer(Timer::Completion, COMPLETION_TIMEOUT)]
            }
            // The server may be unreachable for a while. The grant sets the timer again.
            Event::TimeUp(Timer::Completion)
                if self.is_completing() && stop == StopStage::None && !self.is_asking =>
            {
                let name = self.name(Program::Companion);
                let seconds = COMPLETION_TIMEOUT.as_secs();
                self.end_by(End::CompanionStuck(format!(
                    "{name} did not end after the command, and was silent for {seconds} s"
                )));
                self.terminate(stop, self.plan.grace)
            }
            // A cancelled command has nothing to publish, and its grace period has its own timer.
            Event::TimeUp(Timer::PublishBy) if stop == StopStage::TermSent && self.is_cancelled() => {
                Vec::new()
            }
            Event::TimeUp(Timer::PublishBy) => self.kill(stop),
            Event::TimeUp(Timer::LeaveBy) => self.kill_and_leave(stop),
            Event::TimeUp(Timer::GiveUp) => self.give_up(),
            Event::Attach(_)
            | Event::Prepare(_)
            | Event::Command(CommandEvent::AllExited | CommandEvent::CompanionSpoke)
            | Event::Publish(_)
            | Event::Report(_)
            | Event::TimeUp(
                Timer::Linger
                | Timer::CompanionTerm
                | Timer::Completion
                | Timer::Settle
                | Timer::Drain
                | Timer::StartAgain,
            ) => Vec::new(),
        }
    }

    /// Sets the cause of the end, unless a program has failed before: then its end is the cause.
    fn end_running(&mut self, end: End) {
        if !self.programs.has_failed() {
            self.end_by(end);
        }
    }

    pub(super) fn exited(&mut self, program: Program, exit: Exit, told: Option<Signal>) {
        // The termination came after the failure of the other one.
        let had_failed = self.programs.has_failed();
        self.programs.ended(program, exit, told);
        if !exit.is_success() && !had_failed {
            // A command that exits with 0 despite the termination has succeeded.
            self.end_by_termination();
        } else if self.programs.succeeded() && self.is_granted && !self.plan.publishes {
            self.forget_cancel();
        }
    }

    /// All programs have ended.
    fn drain(&mut self, stop: StopStage) -> Vec<Action> {
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

    /// One of the programs has ended, and the `other` one runs.
    fn one_left(&mut self, stop: StopStage, other: Program, exit: Exit) -> Vec<Action> {
        match (stop, other) {
            // The end of the one is the end of the other. That one gets a moment, so that one that is failing too can
            // say why.
            (StopStage::None | StopStage::GracePeriod, _) if !exit.is_success() => {
                vec![Action::ForgetCommit, Action::SetTimer(Timer::Settle, SETTLE)]
            }
            (StopStage::TermSent, Program::Companion) if !exit.is_success() || self.end.is_some() => {
                self.terminate_companion()
            }
            // Also after a TERM to the agent: what has been computed is worth the rest of the time.
            (StopStage::None | StopStage::GracePeriod | StopStage::TermSent, Program::Companion)
                if !self.is_companion_told && (self.end.is_none() || self.is_granted) =>
            {
                vec![Action::ReportCommandEnd, Action::SetTimer(Timer::Completion, COMPLETION_TIMEOUT)]
            }
            // A companion that has ended with 0 has nothing more to do; the command may have.
            (
                StopStage::None
                | StopStage::GracePeriod
                | StopStage::TermSent
                | StopStage::KillSent
                | StopStage::LastMoment,
                Program::Command | Program::Companion,
            ) => Vec::new(),
        }
    }

    /// The command has succeeded, and its companion completes its work.
    fn is_completing(&self) -> bool {
        self.programs.running() == Some(Program::Companion) && !self.programs.has_failed()
    }

    fn terminate_companion(&mut self) -> Vec<Action> {
        if self.is_companion_told || !self.programs.is_running(Program::Companion) {
            return Vec::new();
        }
        self.is_companion_told = true;
        vec![Action::ForgetCommit, Action::Signal(Program::Companion, Signal::SIGTERM)]
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

    /// TERM, and KILL after the grace period. A program gets TERM only once: a server repeats its Cancel on every new
    /// stream.
    fn terminate(&mut self, stop: StopStage, grace: Duration) -> Vec<Action> {
        self.stop(stop, Signal::SIGTERM, grace)
    }

    fn stop(&mut self, stop: StopStage, signal: Signal, grace: Duration) -> Vec<Action> {
        match stop {
            StopStage::None | StopStage::GracePeriod => {
                self.state = State::Running(StopStage::TermSent);
                let mut actions = Vec::new();
                let runs_command = self.programs.is_running(Program::Command);
                if runs_command {
                    actions.extend([Action::ForgetCommit, Action::Signal(Program::Command, signal)]);
                }
                // What the command has computed is worth some time, unless the attempt is being ended.
                let is_late = !runs_command && (!self.is_completing() || self.end.is_some());
                if is_late {
                    actions.extend(self.terminate_companion());
                } else if self.programs.is_running(Program::Companion) {
                    // At the latest then: it has to cancel its query and to drop its table.
                    actions.push(Action::SetTimer(Timer::CompanionTerm, grace / 2));
                }
                actions.push(Action::SetTimer(Timer::Grace, grace));
                actions
            }
            StopStage::TermSent | StopStage::KillSent | StopStage::LastMoment => Vec::new(),
        }
    }

    fn kill(&mut self, stop: StopStage) -> Vec<Action> {
        match stop {
            StopStage::None | StopStage::GracePeriod | StopStage::TermSent => {
                self.state = State::Running(StopStage::KillSent);
                vec![Action::Kill, Action::SetTimer(Timer::GiveUp, KILL_TIMEOUT)]
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

    /// The attempt ends although a program does not.
    fn give_up(&mut self) -> Vec<Action> {
        self.state = State::Draining(Drain { stopping: true, ..Drain::default() });
        if self.streams_ended { self.drained() } else { vec![Action::StopReading] }
    }
}
