//! From the command's success to published models: staging → asking → committing, and back to staging after a write
//! conflict.

use sqlflow_proto::record::ModelPublished;

use super::super::event::{Action, Event, GrantEvent, PublishEvent, Timer};
use super::super::exit_report::{End, PublishFault};
use super::{Attempt, State};

/// Number of write conflicts after which publishing fails. Each one is the success of another writer, so this bounds
/// storages that report conflicts wrongly.
const MAX_WRITE_CONFLICTS: u32 = 10;

impl Attempt {
    pub(super) fn staging(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Publish(PublishEvent::Staged(models)) => {
                self.state = State::Asking;
                vec![Action::AskCommit(models), Action::SetTimer(Timer::Linger, self.linger)]
            }
            other => self.before_commit(other),
        }
    }

    pub(super) fn asking(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Grant(GrantEvent::Granted) => {
                self.state = State::Committing;
                vec![Action::Commit]
            }
            Event::Grant(GrantEvent::CommitRefused(why)) => self.abandon(End::Refused(why)),
            Event::TimeUp(Timer::Linger) => {
                let why = "no server granted the commit in time; the model was not replaced";
                self.abandon(End::PublishFailed { message: why.to_owned(), fault: PublishFault::Retryable })
            }
            other => self.before_commit(other),
        }
    }

    /// Events before the grant, when nothing is visible yet. A Cancel of the server ends publishing at once. TERM
    /// leaves it the time of the budget, since a finished training is worth seconds.
    fn before_commit(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Publish(PublishEvent::PublishFailed { message, committed, fault }) => {
                self.models = committed;
                self.abandon(End::PublishFailed { message, fault })
            }
            Event::AttachRefused(why) => {
                let end = self.superseded(why);
                self.abandon(end)
            }
            Event::Publish(PublishEvent::WriteConflict { message, committed }) => {
                self.write_conflict(message, committed)
            }
            Event::Cancel { reason, .. } => self.abandon(End::Cancelled(reason)),
            Event::Terminate { .. } if self.terminations > 1 => self.abandon_by_termination(),
            Event::TimeUp(Timer::PublishBy | Timer::LeaveBy) => self.abandon_by_termination(),
            Event::Attach(_)
            | Event::Prepare(_)
            | Event::Command(_)
            | Event::Grant(_)
            | Event::Publish(PublishEvent::Staged(_) | PublishEvent::Committed(_))
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
                | Timer::Drain
                | Timer::StartAgain,
            ) => Vec::new(),
        }
    }

    pub(super) fn abandon_by_termination(&mut self) -> Vec<Action> {
        let why = self.termination.clone().unwrap_or_default();
        self.abandon(End::Terminated(format!("{why}, before the model was published; it was not replaced")))
    }

    fn abandon(&mut self, end: End) -> Vec<Action> {
        let mut actions = vec![Action::ForgetCommit, Action::AbandonPublish];
        if !self.models.is_empty() {
            // Those before a write conflict are published.
            actions.push(Action::RecordModels(self.models.clone()));
        }
        actions.extend(self.report_end(end));
        actions
    }

    /// Granted: the commit is carried through, whatever happens.
    pub(super) fn committing(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Publish(PublishEvent::Committed(models)) => {
                self.models = models.clone();
                let mut actions = vec![Action::RecordModels(models), Action::RecordEnds];
                actions.extend(self.report());
                actions
            }
            Event::Publish(PublishEvent::PublishFailed { message, committed, fault }) => {
                self.models = committed.clone();
                let mut actions = vec![Action::RecordModels(committed), Action::AbandonPublish];
                actions.extend(self.report_end(End::PublishFailed { message, fault }));
                actions
            }
            Event::Publish(PublishEvent::WriteConflict { message, committed }) => {
                self.write_conflict(message, committed)
            }
            Event::AttachRefused(why) => {
                self.superseded = Some(why);
                Vec::new()
            }
            Event::Cancel { reason, .. } => {
                self.cancelled = Some(reason);
                Vec::new()
            }
            Event::Terminate { .. } if self.terminations > 1 => self.hurry(),
            Event::TimeUp(Timer::PublishBy | Timer::LeaveBy) => self.hurry(),
            Event::Attach(_)
            | Event::Prepare(_)
            | Event::Command(_)
            | Event::Grant(_)
            | Event::Publish(PublishEvent::Staged(_))
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
                | Timer::Drain
                | Timer::StartAgain,
            ) => Vec::new(),
        }
    }

    fn hurry(&mut self) -> Vec<Action> {
        self.hurried = true;
        vec![Action::HurryPublish]
    }

    /// The grant was for replacing another model. An attempt that may still publish asks again; one that was cancelled
    /// or superseded meanwhile does not.
    fn write_conflict(&mut self, message: String, committed: Vec<ModelPublished>) -> Vec<Action> {
        self.models = committed;
        self.write_conflicts += 1;
        if let Some(why) = self.superseded.clone() {
            return self.abandon(End::Superseded(why));
        }
        if let Some(reason) = self.cancelled.take() {
            return self.abandon(End::Cancelled(reason));
        }
        if self.hurried || self.write_conflicts > MAX_WRITE_CONFLICTS {
            return self.abandon(End::PublishFailed { message, fault: PublishFault::Retryable });
        }
        self.state = State::Staging;
        vec![Action::Stage]
    }
}
