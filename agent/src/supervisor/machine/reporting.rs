//! The end of an attempt: its output is flushed, its outcome is reported, and the agent exits.

use std::time::Duration;

use super::super::event::{Action, CommandEvent, Event, OutputSink, ReportEvent, Timer};
use super::super::exit_report::{End, Evidence, Exit, exit_code, exit_report};
use super::super::programs::Program;
use super::{Attempt, State};

/// Time for the report if the deadline for leaving has passed before it.
const LATE_REPORT: Duration = Duration::from_secs(1);

impl Attempt {
    pub(super) fn report_end(&mut self, end: End) -> Vec<Action> {
        self.end_by(end);
        self.report()
    }

    /// The exit report includes lost output, so flushing comes first.
    pub(super) fn report(&mut self) -> Vec<Action> {
        if self.plan.has_server() {
            return self.report_now();
        }
        self.state = State::Flushing;
        let mut actions = vec![Action::Flush];
        if self.is_late || self.terminations > 1 {
            actions.push(Action::HurryFlush);
        }
        actions
    }

    /// A slow reader of the agent's stdout is awaited, but not after a termination.
    pub(super) fn flushing(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Report(ReportEvent::Flushed { unwritten, unlogged }) => self.flushed(unwritten, unlogged),
            Event::Command(CommandEvent::Exited { program, exit, told }) => {
                self.exited(program, exit, told);
                Vec::new()
            }
            Event::Terminate { .. } if self.terminations > 1 => vec![Action::HurryFlush],
            Event::TimeUp(Timer::PublishBy | Timer::LeaveBy) => vec![Action::HurryFlush],
            Event::Attach(_)
            | Event::AttachRefused(_)
            | Event::Prepare(_)
            | Event::Command(
                CommandEvent::StartFailed { .. }
                | CommandEvent::AllExited
                | CommandEvent::StreamsEnded { .. }
                | CommandEvent::SubmitterFailed { .. }
                | CommandEvent::ChannelBroken(_)
                | CommandEvent::ChannelCut
                | CommandEvent::CommitAsked
                | CommandEvent::CompanionSpoke,
            )
            | Event::Grant(_)
            | Event::Publish(_)
            | Event::Cancel { .. }
            | Event::Terminate { .. }
            | Event::Forward(_)
            | Event::Report(
                ReportEvent::OutcomeAcked | ReportEvent::AckedMeanwhile | ReportEvent::LogUnfinished(_),
            )
            | Event::TimeUp(
                Timer::Linger
                | Timer::Grace
                | Timer::CompanionTerm
                | Timer::Completion
                | Timer::GiveUp
                | Timer::Settle
                | Timer::Drain
                | Timer::StartAgain,
            ) => Vec::new(),
        }
    }

    fn flushed(&mut self, unwritten: Option<String>, unlogged: Option<String>) -> Vec<Action> {
        let is_logged = unlogged.is_none();
        let is_lost = !is_logged || self.plan.sink == OutputSink::Nowhere;
        let missing: Vec<_> = unwritten.into_iter().chain(unlogged).collect();
        let mut actions = Vec::new();
        if !missing.is_empty() {
            let missing = missing.join("; ");
            if is_lost && self.succeeded() {
                self.end_by(End::OutputLost(format!("the command succeeded, but {missing}")));
            } else {
                actions.push(Action::Warn(missing));
            }
        }
        actions.extend(self.report_now());
        if !is_logged {
            // The log that did not take the records would not take the outcome.
            actions.extend(self.finish());
        }
        actions
    }

    fn report_now(&mut self) -> Vec<Action> {
        self.state = State::Reporting;
        let cause = self.programs.cause();
        let evidence = Evidence {
            program: self.name(cause.map_or(Program::Command, |cause| cause.program)),
            exit: cause.map(|cause| cause.exit),
            is_by_agent: cause.is_some_and(|cause| cause.is_by_agent),
            failure: self.programs.failure(),
            leaves_open: self.programs.leave_open(),
        };
        let mut report = exit_report(self.end.as_ref(), evidence);
        if self.plan.publishes && self.end.as_ref().is_some_and(End::leaves_output) {
            report.say_what_becomes_of_output(self.plan.keeps_output);
        }
        if self.is_unended
            && let Some(running) = self.programs.running()
        {
            report.add(&self.unended(running));
        }
        let mut actions = vec![Action::Report(Box::new(report), std::mem::take(&mut self.models))];
        if self.superseded.is_some() {
            // No server takes it: only the outcome file and the spool remain.
            actions.extend(self.finish());
        } else {
            actions.push(Action::SetTimer(Timer::Linger, self.linger));
            if self.is_late {
                actions.push(Action::SetTimer(Timer::LeaveBy, LATE_REPORT));
            }
        }
        actions
    }

    pub(super) fn reporting(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Report(ReportEvent::OutcomeAcked) | Event::AttachRefused(_) => self.finish(),
            Event::Report(ReportEvent::AckedMeanwhile) => vec![Action::SetTimer(Timer::Linger, self.linger)],
            Event::TimeUp(Timer::Linger | Timer::LeaveBy) => {
                // The records are written, but not synced, and the outcome is missing.
                if self.plan.sink == OutputSink::LogFolder && self.succeeded() {
                    self.end_by(End::OutputLost("the log could not be finished in time".to_owned()));
                }
                self.finish()
            }
            Event::Report(ReportEvent::LogUnfinished(why)) => {
                if self.succeeded() {
                    self.end_by(End::OutputLost(why));
                }
                self.finish()
            }
            Event::Terminate { .. } if self.terminations > 1 => self.finish(),
            Event::Attach(_)
            | Event::Prepare(_)
            | Event::Command(_)
            | Event::Grant(_)
            | Event::Publish(_)
            | Event::Cancel { .. }
            | Event::Terminate { .. }
            | Event::Forward(_)
            | Event::Report(ReportEvent::Flushed { .. })
            | Event::TimeUp(
                Timer::Grace
                | Timer::CompanionTerm
                | Timer::Completion
                | Timer::GiveUp
                | Timer::Settle
                | Timer::Drain
                | Timer::StartAgain
                | Timer::PublishBy,
            ) => Vec::new(),
        }
    }

    fn finish(&mut self) -> Vec<Action> {
        self.exit(exit_code(self.end.as_ref(), self.cause_exit()))
    }

    fn cause_exit(&self) -> Option<Exit> {
        self.programs.cause().map(|cause| cause.exit)
    }

    /// For a program that KILL does not end: it hangs in the kernel, or belongs to another user.
    pub(super) fn unended(&self, program: Program) -> String {
        format!("{} did not end after KILL", self.name(program))
    }

    pub(super) fn exit(&mut self, code: u8) -> Vec<Action> {
        self.state = State::Done;
        vec![Action::Exit(code)]
    }
}
