//! After the end of all programs: their remaining processes are ended, and their pipes are read to their end.

use nix::sys::signal::Signal;

use super::super::event::{Action, CommandEvent, Event, Timer};
use super::super::exit_report::End;
use super::{Attempt, State};

/// The time after the end of the programs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Drain {
    /// No process of the attempt is left.
    pub(super) all_exited: bool,
    pub(super) remaining: Remaining,
    /// The reader has to stop.
    pub(super) stopping: bool,
}

/// Signals that the processes that outlive their command got.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remaining {
    /// None: the command ended by itself.
    #[default]
    NotSignaled,
    /// The attempt is being ended, and they got the signal of the command. They have the rest of its grace period.
    InGracePeriod,
    /// TERM, because the command has ended.
    TermSent,
    /// KILL.
    KillSent,
}

impl Attempt {
    pub(super) fn draining(&mut self, mut drain: Drain, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            // It was given up too early.
            Event::Command(CommandEvent::Exited { program, exit, told }) => self.exited(program, exit, told),
            Event::Command(CommandEvent::AllExited) => {
                drain.all_exited = true;
                if drain.remaining == Remaining::InGracePeriod {
                    actions.push(Action::SetTimer(Timer::Drain, self.plan.drain));
                }
            }
            Event::Command(CommandEvent::StreamsEnded { open }) => {
                self.streams_ended = true;
                if open {
                    actions.push(Action::RecordGap);
                }
            }
            Event::TimeUp(Timer::Settle) if !drain.all_exited => match drain.remaining {
                Remaining::NotSignaled => {
                    drain.remaining = Remaining::TermSent;
                    actions.push(Action::SignalRemaining(Signal::SIGTERM));
                    actions.push(Action::SetTimer(Timer::Grace, self.plan.grace.min(self.plan.drain)));
                }
                // For processes that were started after the first TERM.
                Remaining::InGracePeriod => actions.push(Action::SignalRemaining(Signal::SIGTERM)),
                Remaining::TermSent => {}
                Remaining::KillSent => actions.push(Action::SignalRemaining(Signal::SIGKILL)),
            },
            Event::TimeUp(Timer::Grace) if !drain.all_exited => match drain.remaining {
                Remaining::InGracePeriod => {
                    drain.remaining = Remaining::KillSent;
                    actions.push(Action::SignalRemaining(Signal::SIGKILL));
                    actions.push(Action::SetTimer(Timer::Drain, self.plan.drain));
                }
                Remaining::TermSent => {
                    drain.remaining = Remaining::KillSent;
                    actions.push(Action::SignalRemaining(Signal::SIGKILL));
                }
                Remaining::NotSignaled | Remaining::KillSent => {}
            },
            // A cancelled command has nothing to publish, and its grace period has its own timer.
            Event::TimeUp(Timer::PublishBy)
                if drain.remaining == Remaining::InGracePeriod
                    && !drain.all_exited
                    && self.is_cancelled() => {}
            Event::TimeUp(Timer::Drain | Timer::PublishBy | Timer::LeaveBy) => {
                drain.stopping = true;
                if !drain.all_exited {
                    drain.remaining = Remaining::KillSent;
                    actions.push(Action::SignalRemaining(Signal::SIGKILL));
                }
                actions.push(Action::StopReading);
            }
            Event::Command(CommandEvent::SubmitterFailed { program, failure }) => {
                self.programs.failed(program, failure);
            }
            Event::Command(CommandEvent::ChannelBroken(why)) => {
                self.channel_broken = Some(why.clone());
                actions.push(Action::Warn(why));
            }
            Event::Command(CommandEvent::ChannelCut) => self.channel_cut = true,
            Event::AttachRefused(why) => {
                let end = self.superseded(why);
                if self.succeeded() {
                    self.end_by(end);
                }
            }
            Event::Cancel { reason, .. } => self.cancel_publish(reason),
            Event::Terminate { .. } if self.terminations > 1 => {
                if self.succeeded() && self.plan.publishes {
                    self.end_by_termination();
                }
                drain.stopping = true;
                drain.remaining = Remaining::KillSent;
                actions.push(Action::SignalRemaining(Signal::SIGKILL));
                actions.push(Action::StopReading);
            }
            Event::Attach(_)
            | Event::Prepare(_)
            | Event::Command(
                CommandEvent::StartFailed { .. } | CommandEvent::CommitAsked | CommandEvent::CompanionSpoke,
            )
            | Event::Grant(_)
            | Event::Publish(_)
            | Event::Terminate { .. }
            | Event::Forward(_)
            | Event::Report(_)
            | Event::TimeUp(
                Timer::Linger
                | Timer::Grace
                | Timer::CompanionTerm
                | Timer::Completion
                | Timer::GiveUp
                | Timer::Settle
                | Timer::StartAgain,
            ) => {}
        }
        self.state = State::Draining(drain);
        // A process that even KILL does not end is left behind once reading has stopped.
        if self.streams_ended && (drain.all_exited || drain.stopping) {
            actions.extend(self.drained());
        }
        actions
    }

    pub(super) fn drained(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(running) = self.programs.running() {
            self.is_unended = true;
            if !self.programs.has_failed() {
                self.end_by_termination();
            }
            actions.push(Action::Warn(format!("{}; it is left behind", self.unended(running))));
        }
        if let Some(why) = self.channel_broken.clone()
            && self.succeeded()
        {
            self.end_by(End::ChannelBroken(why));
        }
        if self.channel_cut {
            let why = "the submitter channel ended within a frame: a result is missing".to_owned();
            if self.succeeded() {
                self.end_by(End::ChannelBroken(why.clone()));
            }
            actions.push(Action::Warn(why));
        }
        if let Some(exit) = self.programs.cause().map(|cause| cause.exit)
            && exit.oom_kills > 0
            && self.succeeded()
        {
            // The process may belong to another attempt in a shared cgroup, but the kill must be reported.
            actions.push(Action::Warn(format!("the command succeeded, but {}", exit.oom_sentence())));
        }
        if !(self.succeeded() && self.plan.publishes) {
            actions.extend(self.report());
        } else if self.is_publish_late {
            // The deadline has passed already, so no timer would end staging.
            actions.extend(self.abandon_by_termination());
        } else {
            self.state = State::Staging;
            actions.push(Action::Stage);
        }
        actions
    }
}
