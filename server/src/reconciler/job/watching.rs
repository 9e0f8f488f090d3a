//! Watches a launched attempt: observes it when the platform signals a change, and periodically, and decides what to
//! record.

use std::time::{Duration, Instant};

use sqlflow_job::{AttemptId, Event, Job, Milestones, Outcome, Reason, Role};
use sqlflow_launcher::{Execution, Observation, PendingStatus, Supervision};
use sqlflow_os::clock;

use super::launching::LAUNCH_TIMEOUT;
use super::pending::Timeout;
use super::stopping::Agent;
use super::{Changes, JobReconciler, POLL_PERIOD, RELOAD_PERIOD, ReconcileError, Update};
use crate::agent_liveness::AgentLiveness;

/// What to do after an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WatchStep {
    /// Continue watching.
    Continue,
    /// Read the job again: something was recorded, or the job has changed.
    Reload,
}

impl JobReconciler {
    /// Observes the attempt periodically, and when its platform signals a change, until the job must be read again.
    pub(super) async fn watch(
        &mut self,
        job: &Job,
        attempt: &AttemptId,
        changes: &mut Changes,
    ) -> Result<(), ReconcileError> {
        let execution = self.context.launchers.of(job, attempt);
        let is_attached = Agent::of(job, attempt) != Agent::NeverAttached;
        let has_limit = job.attempt(attempt).is_some_and(|it| it.role == Role::Cleanup);
        // The agent may have returned to this server, and the next observation may be far.
        if is_attached && self.check_liveness(job, attempt).await? == WatchStep::Reload {
            return Ok(());
        }
        let read_again = tokio::time::sleep(RELOAD_PERIOD);
        tokio::pin!(read_again);
        // The platform may have signalled a change earlier that the reconciler could not act on, for example while
        // the disk was full, and may have forgotten it.
        let mut has_observed = false;
        loop {
            let end_is_signalled = has_observed
                && is_attached
                && self.observations(attempt).first_running_ms.is_some()
                && !has_limit;
            let period =
                if end_is_signalled { self.poll_period(job, attempt, &execution) } else { POLL_PERIOD };
            let cleanup = self.next_cleanup(job);
            let has_changed = tokio::select! {
                _ = changes.changed() => return Ok(()),
                () = &mut read_again => return Ok(()),
                () = self.platform_changed(job, attempt) => true,
                () = tokio::time::sleep(period) => false,
                // At most one per observation: they may be slow.
                ended = due(cleanup) => {
                    self.cleanup_ended(job, ended).await;
                    false
                }
            };
            if self.is_overdue_cleanup(job, &execution, clock::now_ms()) {
                return self.end(job, attempt).await;
            }
            match self.observe(job, attempt.clone(), has_changed).await? {
                WatchStep::Continue => {}
                WatchStep::Reload => return Ok(()),
            }
            has_observed = true;
        }
    }

    /// Period of observing an attempt whose end the platform signals.
    fn poll_period(&self, job: &Job, attempt: &AttemptId, execution: &Execution) -> Duration {
        if self.is_heard_here(job, attempt) {
            execution.poll_interval()
        } else {
            // The server that hears its agent may end, or be stopped.
            execution.poll_interval().min(AgentLiveness::period_of(self.context.limits.silence))
        }
    }

    /// Waits until the platform signals a change of the attempt, and the backoff allows an observation.
    pub(super) async fn platform_changed(&mut self, job: &Job, attempt: &AttemptId) {
        self.context.launchers.of(job, attempt).changed().await;
        let changes = &mut self.observations(attempt).changes;
        let at = changes.next_observation(Instant::now());
        tokio::time::sleep_until(at.into()).await;
        changes.observed(at);
    }

    /// Observes whether the attempt still runs. `job` was read before: if its agent was attached then and nothing
    /// runs now, the agent has ended. `has_changed`: the platform signalled a change.
    pub(super) async fn observe(
        &mut self,
        job: &Job,
        attempt: AttemptId,
        has_changed: bool,
    ) -> Result<WatchStep, ReconcileError> {
        let execution = self.context.launchers.of(job, &attempt);
        // Without an agent, the platform's observation counts as an agent's.
        let attached = Agent::of(job, &attempt) != Agent::NeverAttached
            || execution.supervision() == Supervision::Controller;
        let observation = execution.observe().await;
        self.note_unknown(&attempt, &observation).await?;
        match observation {
            Observation::Running => {
                let observations = self.observations(&attempt);
                observations.missing.end();
                observations.first_running_ms.get_or_insert_with(clock::now_ms);
                self.note_milestones(job, attempt.clone()).await?;
                if attached {
                    let observations = self.observations(&attempt);
                    observations.pending.end();
                    observations.attach_errors = None;
                    return self.check_liveness(job, &attempt).await;
                }
                let pending = self.attach_pending(job, &attempt);
                self.check_pending(job, attempt, pending).await
            }
            // The platform's answer is outdated: the agent is attached.
            Observation::Pending(_) if attached && execution.supervision() == Supervision::Agent => {
                self.observations(&attempt).pending.end();
                Ok(WatchStep::Continue)
            }
            Observation::Pending(pending) => {
                self.observations(&attempt).missing.end();
                self.check_pending(job, attempt, pending).await
            }
            Observation::Unknown(_) => Ok(WatchStep::Continue),
            Observation::Gone(artifacts) if attached => {
                self.settle(attempt, *artifacts, None).await?;
                Ok(WatchStep::Reload)
            }
            Observation::Gone(artifacts) => {
                let missing = self.observations(&attempt).missing.note(Instant::now());
                // It may be starting: an agent takes its lock a moment after its launch.
                if has_changed || artifacts.has_known_end() || missing > self.context.limits.attach {
                    self.settle_without_agent(attempt, *artifacts, None).await?;
                    return Ok(WatchStep::Reload);
                }
                Ok(WatchStep::Continue)
            }
        }
    }

    /// Reports the pending reason, and gives the attempt up at its timeout.
    async fn check_pending(
        &mut self,
        job: &Job,
        attempt: AttemptId,
        pending: PendingStatus,
    ) -> Result<WatchStep, ReconcileError> {
        if self.note_pending(&attempt, &pending).await? == Timeout::Running {
            return Ok(WatchStep::Continue);
        }
        // Records in the log prove an agent, even if the state does not know it: it is disconnected.
        if self.has_records(&attempt).await? {
            return Ok(WatchStep::Continue);
        }
        self.give_up(job, attempt, pending.message).await?;
        Ok(WatchStep::Reload)
    }

    /// Records milestones of the attempt's start, once.
    pub(super) async fn note_milestones(
        &mut self,
        job: &Job,
        attempt: AttemptId,
    ) -> Result<(), ReconcileError> {
        if job.attempt(&attempt).is_none_or(|it| it.milestones.is_complete()) {
            return Ok(());
        }
        let milestones = self.context.launchers.of(job, &attempt).milestones().await;
        if milestones == Milestones::default() {
            return Ok(());
        }
        self.update(Event::MilestonesSeen { attempt, milestones }).await?;
        // The observation continues, for an unknown time.
        self.has_changed_job = false;
        Ok(())
    }

    /// Pending status of an attempt whose agent runs and is not attached.
    fn attach_pending(&mut self, job: &Job, attempt: &AttemptId) -> PendingStatus {
        let pending = self.context.launchers.of(job, attempt).attach_pending();
        let attach_errors = self.context.attach_errors.clone();
        let watch = self.observations(attempt).attach_errors.get_or_insert_with(|| attach_errors.of(attempt));
        let Some(error) = watch.last() else { return pending };
        let why = format!("its agent has reached the server and could not attach: {}", error.why);
        // A server that cannot verify an agent has nothing against it.
        let timeout = if error.retryable { pending.timeout.max(LAUNCH_TIMEOUT) } else { pending.timeout };
        PendingStatus { message: why, timeout, ..pending }
    }

    /// Ends an attempt whose pending reason timed out. That is recorded first: an agent that comes later is refused,
    /// and if one attached just before, the attempt continues.
    pub(super) async fn give_up(
        &mut self,
        job: &Job,
        attempt: AttemptId,
        why: String,
    ) -> Result<(), ReconcileError> {
        let outcome = outcome_of_giving_up(job, &attempt, why);
        let event = Event::AttemptGivenUp { attempt: attempt.clone(), outcome: outcome.clone() };
        if self.try_update(event).await? == Update::Accepted {
            self.log_end(&attempt, &outcome);
            self.context.launchers.of(job, &attempt).stop(true).await;
            // That may have taken long enough to lose the lease.
            self.has_changed_job = false;
        }
        Ok(())
    }
}

/// Waits until the cleanup of this attempt is due; never returns if there is none.
async fn due(cleanup: Option<(Instant, AttemptId)>) -> AttemptId {
    let Some((at, attempt)) = cleanup else { return std::future::pending().await };
    tokio::time::sleep_until(at.into()).await;
    attempt
}

/// Outcome of an attempt whose pending reason timed out. It is final, unless an earlier attempt kept its output:
/// publishing that is retried.
fn outcome_of_giving_up(job: &Job, attempt: &AttemptId, why: String) -> Outcome {
    let is_kept = job.steps.get(attempt.step as usize).is_some_and(|step| step.kept_output().is_some());
    Outcome::by_server(Reason::LaunchFailed, why, is_kept)
}
