//! Retries of a start that failed for exhaustion, such as of processes, memory or descriptors. Only with a server.

use std::time::Duration;

use super::super::event::{Action, Event, Timer};
use super::super::exit_report::{End, StartFault};
use super::running::StopStage;
use super::{Attempt, State};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Sum of all pauses. After it the outcome says that another attempt may succeed.
pub(in super::super) const START_TIMEOUT: Duration = Duration::from_secs(60);

impl Attempt {
    pub(super) fn start_failed(&mut self, message: String, fault: StartFault) -> Vec<Action> {
        if !fault.is_retryable() {
            return self.report_end(End::StartFailed { message, fault });
        }
        // The attempt may have been ended between the start and its failure.
        self.end_by_termination();
        // The caller of `exec` waits for the command, and can run it again.
        if self.end.is_some() || !self.plan.has_server() {
            return self.report_end(End::StartFailed { message, fault });
        }
        if self.start_paused >= START_TIMEOUT {
            let message = format!("{message}; retried for {} s", START_TIMEOUT.as_secs());
            return self.report_end(End::StartFailed { message, fault });
        }
        let mut actions = Vec::new();
        if self.start_paused.is_zero() {
            let limit = START_TIMEOUT.as_secs();
            actions.push(Action::Warn(format!("{message}; retrying for up to {limit} s")));
        }
        // As long as all pauses before together: the time doubles.
        let pause = self.start_paused.clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.start_paused += pause;
        self.state = State::Starting;
        actions.push(Action::SetTimer(Timer::StartAgain, pause));
        actions
    }

    /// Nothing runs in a pause, so the attempt can end at once.
    pub(super) fn starting(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::TimeUp(Timer::StartAgain) => {
                self.state = State::Running(StopStage::None);
                vec![Action::Start]
            }
            Event::AttachRefused(why) => {
                let end = self.superseded(why);
                self.report_end(end)
            }
            Event::Cancel { reason, .. } => self.report_end(End::Cancelled(reason)),
            Event::Terminate { .. } => {
                self.end_by_termination();
                self.report()
            }
            Event::Attach(_)
            | Event::Prepare(_)
            | Event::Command(_)
            | Event::Grant(_)
            | Event::Publish(_)
            | Event::Forward(_)
            | Event::Report(_)
            | Event::TimeUp(
                Timer::Linger
                | Timer::Grace
                | Timer::CompanionTerm
                | Timer::Completion
                | Timer::GiveUp
                | Timer::Settle
                | Timer::Drain
                | Timer::PublishBy
                | Timer::LeaveBy,
            ) => Vec::new(),
        }
    }
}
