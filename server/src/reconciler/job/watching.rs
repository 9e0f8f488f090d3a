//! How a reconciler follows an attempt that was launched: it looks when its platform tells of a change, and from time to time,
//! and decides by what it sees.

use std::time::{Duration, Instant};

use sqlflow_job::{AttemptId, Event, Job, Milestones, Outcome, Reason, Role};
use sqlflow_launcher::{Execution, Observation, PendingStatus, Supervision};
use sqlflow_os::clock;

use super::launching::LAUNCH_TIMEOUT;
use super::stopping::Agent;
use super::{Changes, JobReconciler, LOOK_PERIOD, SAFETY_PERIOD, Stop};
use crate::agent_liveness::AgentLiveness;

/// What a look at an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing that changes the job.
    Same,
    /// Something was recorded, or could not be since the job is another than it was: it is read again.
    Decided,
}

impl JobReconciler {
    /// Looks at the attempt from time to time, and when its platform tells of a change, until the job is to be read again.
    pub(super) async fn watch(
        &mut self,
        job: &Job,
        attempt: &AttemptId,
        changes: &mut Changes,
    ) -> Result<(), Stop> {
        let execution = self.context.launchers.of(job, attempt);
        let is_attached = Agent::of(job, attempt) != Agent::NeverAttached;
        let has_limit = job.attempt(attempt).is_some_and(|it| it.role == Role::CleanUp);
        // It may have come back to this server: the next look may be far.
        if is_attached && self.note_absence(job, attempt).await? == Look::Decided {
            return Ok(());
        }
        let read_again = tokio::time::sleep(SAFETY_PERIOD);
        tokio::pin!(read_again);
        // Before this the platform may have told of a change that the reconciler could not act on, for example while the disk was
        // full, and may have forgotten it since.
        let mut has_looked = false;
        loop {
            let is_told_of =
                has_looked && is_attached && self.attempt_view(attempt).seen_ms.is_some() && !has_limit;
            let period = if is_told_of { self.look_period(job, attempt, &execution) } else { LOOK_PERIOD };
            let clean_up = self.next_clean_up(job);
            let has_changed = tokio::select! {
                _ = changes.changed() => return Ok(()),
                () = &mut read_again => return Ok(()),
                () = self.platform_changed(job, attempt) => true,
                () = tokio::time::sleep(period) => false,
                // No more than one for each look: they may be slow.
                ended = due(clean_up) => {
                    self.clean_up_ended(job, ended).await;
                    false
                }
            };
            if self.is_overdue_clean_up(job, &execution, clock::now_ms()) {
                return self.end(job, attempt).await;
            }
            match self.look(job, attempt.clone(), has_changed).await? {
                Look::Same => {}
                Look::Decided => return Ok(()),
            }
            has_looked = true;
        }
    }

    /// How often to look at an attempt whose end its platform tells: for what else there is to see.
    fn look_period(&self, job: &Job, attempt: &AttemptId, execution: &Execution) -> Duration {
        if self.is_heard_here(job, attempt) {
            execution.look_period()
        } else {
            // The server that hears its agent may end, or be stopped.
            execution.look_period().min(AgentLiveness::period_of(self.context.limits.silence))
        }
    }

    /// PendingTracker until the platform has changed something about the attempt, and it is time to look.
    pub(super) async fn platform_changed(&mut self, job: &Job, attempt: &AttemptId) {
        self.context.launchers.of(job, attempt).changed().await;
        let changes = &mut self.attempt_view(attempt).changes;
        let look = changes.look_at(Instant::now());
        tokio::time::sleep_until(look.into()).await;
        changes.looked(look);
    }

    /// Looks whether the attempt still runs. `job` was read before that: if its agent was attached then and nothing runs
    /// now, the agent is gone. `has_changed`: the platform said so.
    pub(super) async fn look(
        &mut self,
        job: &Job,
        attempt: AttemptId,
        has_changed: bool,
    ) -> Result<Look, Stop> {
        let execution = self.context.launchers.of(job, &attempt);
        // Where no agent comes, the platform's word counts as an agent's.
        let attached = Agent::of(job, &attempt) != Agent::NeverAttached
            || execution.supervision() == Supervision::Controller;
        let observation = execution.observe().await;
        self.note_unknown(&attempt, &observation).await?;
        match observation {
            Observation::Running => {
                let attempt_view = self.attempt_view(&attempt);
                attempt_view.missing.end();
                attempt_view.seen_ms.get_or_insert_with(clock::now_ms);
                self.note_milestones(job, attempt.clone()).await?;
                if attached {
                    let attempt_view = self.attempt_view(&attempt);
                    attempt_view.pending.end();
                    attempt_view.refused = None;
                    return self.note_absence(job, &attempt).await;
                }
                let pending = self.attach_pending(job, &attempt);
                self.wait_or_give_up(job, attempt, pending).await
            }
            // The platform's word may be old: it is there.
            Observation::Pending(_) if attached && execution.supervision() == Supervision::Agent => {
                self.attempt_view(&attempt).pending.end();
                Ok(Look::Same)
            }
            Observation::Pending(pending) => {
                self.attempt_view(&attempt).missing.end();
                self.wait_or_give_up(job, attempt, pending).await
            }
            Observation::Unknown(_) => Ok(Look::Same),
            Observation::Gone(artifacts) if attached => {
                self.settle(attempt, *artifacts, None).await?;
                Ok(Look::Decided)
            }
            Observation::Gone(artifacts) => {
                let missing = self.attempt_view(&attempt).missing.note(Instant::now());
                // Without a sign of its end it may be starting: it takes its lock a moment after it was launched.
                if has_changed || artifacts.tell_of_an_end() || missing > self.context.limits.attach {
                    self.settle_without_agent(attempt, *artifacts, None).await?;
                    return Ok(Look::Decided);
                }
                Ok(Look::Same)
            }
        }
    }

    /// Goes on waiting for the attempt's agent, unless that was long enough.
    async fn wait_or_give_up(
        &mut self,
        job: &Job,
        attempt: AttemptId,
        pending: PendingStatus,
    ) -> Result<Look, Stop> {
        if !self.note_pending(&attempt, &pending).await? {
            return Ok(Look::Same);
        }
        // Records in the log count as an agent, whatever the state says: it is away, and not one that never came.
        if self.has_records(&attempt).await? {
            return Ok(Look::Same);
        }
        self.give_up(job, attempt, pending.message).await?;
        Ok(Look::Decided)
    }

    /// Records what the platform tells of the attempt's start, once.
    pub(super) async fn note_milestones(&mut self, job: &Job, attempt: AttemptId) -> Result<(), Stop> {
        if job.attempt(&attempt).is_none_or(|it| it.milestones.is_complete()) {
            return Ok(());
        }
        let milestones = self.context.launchers.of(job, &attempt).milestones().await;
        if milestones == Milestones::default() {
            return Ok(());
        }
        self.update(Event::MilestonesSeen { attempt, milestones }).await?;
        // The reconciler goes on with its look, for however long that takes.
        self.has_changed_job = false;
        Ok(())
    }

    /// Pending status of an attempt whose agent runs and is not attached.
    fn attach_pending(&mut self, job: &Job, attempt: &AttemptId) -> PendingStatus {
        let pending = self.context.launchers.of(job, attempt).attach_pending();
        let attach_errors = self.context.attach_errors.clone();
        let refused = self.attempt_view(attempt).refused.get_or_insert_with(|| attach_errors.of(attempt));
        let Some(refusal) = refused.last() else { return pending };
        let why = format!("its agent has reached the server and could not attach: {}", refusal.why);
        // A server that cannot tell who an agent is knows nothing against it.
        let timeout = if refusal.retryable { pending.timeout.max(LAUNCH_TIMEOUT) } else { pending.timeout };
        PendingStatus { message: why, timeout, ..pending }
    }

    /// Ends an attempt that was waited for long enough. That is recorded first: an agent that comes now is refused, and if
    /// one came just before, the attempt goes on.
    pub(super) async fn give_up(&mut self, job: &Job, attempt: AttemptId, why: String) -> Result<(), Stop> {
        let outcome = given_up(job, &attempt, why);
        let event = Event::AttemptGivenUp { attempt: attempt.clone(), outcome: outcome.clone() };
        if self.try_update(event).await? {
            self.log_end(&attempt, &outcome);
            self.context.launchers.of(job, &attempt).stop(true).await;
            // That may have taken long enough to lose the lease.
            self.has_changed_job = false;
        }
        Ok(())
    }
}

/// PendingTracker until it is time to clean up behind this attempt, for ever if there is none.
async fn due(clean_up: Option<(Instant, AttemptId)>) -> AttemptId {
    let Some((at, attempt)) = clean_up else { return std::future::pending().await };
    tokio::time::sleep_until(at.into()).await;
    attempt
}

/// The outcome of an attempt that was waited for long enough. That is the end, but for work that an earlier attempt kept:
/// to publish it is tried again.
fn given_up(job: &Job, attempt: &AttemptId, why: String) -> Outcome {
    let is_kept = job.steps.get(attempt.step as usize).is_some_and(|step| step.kept_output().is_some());
    Outcome::by_server(Reason::LaunchFailed, why, is_kept)
}
