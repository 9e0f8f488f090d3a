//! Launches of attempts, and the queue for run slots.

use std::time::{Duration, Instant};

use sqlflow_job::{AttemptId, Basis, Event, Job, Outcome, Reason};
use sqlflow_launcher::{
    Execution, LaunchError, LaunchRequirements, Launched, PendingReason, PendingStatus, Ticket,
};
use sqlflow_os::clock;
use sqlflow_os::failpoint;

use super::pending::{QueuePosition, Timeout};
use super::{Changes, JobReconciler, POLL_PERIOD, ReconcileError};

/// Period of reloading a job that is queued for a run slot, since a lost lease is not signalled. 1,000 queued jobs
/// cost 100 reads a second.
const QUEUE_PERIOD: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// Timeout for a platform that cannot be reached or has no capacity, and for one that cannot verify an agent.
pub(super) const LAUNCH_TIMEOUT: Duration = Duration::from_secs(600);

impl JobReconciler {
    pub(super) async fn launch(
        &mut self,
        job: &Job,
        attempt: AttemptId,
        mut changes: Changes,
    ) -> Result<(), ReconcileError> {
        let observations = self.observations(&attempt);
        observations.missing.end();
        observations.pending.begin(PendingReason::Launch, Instant::now());
        let execution = self.context.launchers.of(job, &attempt);
        if self.has_records(&attempt).await? {
            return self.adopt(&execution).await;
        }
        let launched = match self.requirements(job, &execution).await? {
            Ok(requirements) => {
                self.launch_when_slot_is_free(&execution, &requirements, &mut changes).await?
            }
            Err(error) => Some(Err(error)),
        };
        // Without an answer the job changed: it is read again.
        let Some(launched) = launched else { return Ok(()) };
        match launched {
            Ok(Launched { tracker_url, executor_uid }) => {
                failpoint::server("after-launch");
                self.update(Event::AttemptLaunched { attempt, tracker_url, executor_uid }).await
            }
            Err(LaunchError::Refused { message, retryable }) => {
                let outcome = Outcome::by_server(Reason::LaunchFailed, message, retryable);
                let basis = Basis::NeverAttached;
                self.update(Event::AttemptFoundEnded { attempt, outcome, basis }).await
            }
            Err(LaunchError::NoFreeSlot { .. }) => Ok(()),
            Err(LaunchError::Later(why)) => {
                let pending =
                    PendingStatus { reason: PendingReason::Launch, message: why, timeout: LAUNCH_TIMEOUT };
                if self.note_pending(&attempt, &pending).await? == Timeout::Expired {
                    // It may have been launched, and only the answer was lost.
                    return self.give_up(job, attempt, pending.message).await;
                }
                tokio::time::sleep(POLL_PERIOD).await;
                Ok(())
            }
        }
    }

    /// Launches the attempt once there is a free run slot; `None`: its job changed meanwhile.
    async fn launch_when_slot_is_free(
        &mut self,
        execution: &Execution,
        requirements: &LaunchRequirements,
        changes: &mut Changes,
    ) -> Result<Option<Result<Launched, LaunchError>>, ReconcileError> {
        let attempt = execution.attempt();
        let mut ticket = execution.queue();
        let mut position = QueuePosition::default();
        let mut reload = clock::every(QUEUE_PERIOD);
        loop {
            let before = match execution.launch(requirements).await {
                Err(LaunchError::NoFreeSlot { before }) => before,
                launched => return Ok(Some(launched)),
            };
            let is_reported = self.report_queue_position(attempt, &mut position, before).await?;
            tokio::select! {
                // The job may have been cancelled.
                _ = changes.changed() => return Ok(None),
                // A reconciler without the lease must not keep its place in the queue.
                _ = reload.tick() => drop(self.load().await?),
                () = turn(ticket.as_mut()) => {}
                () = tokio::time::sleep(POLL_PERIOD), if !is_reported => {}
            }
        }
    }

    /// Reports that the attempt waits for a run slot. Returns whether the job's log has such a notice.
    async fn report_queue_position(
        &mut self,
        attempt: &AttemptId,
        position: &mut QueuePosition,
        before: usize,
    ) -> Result<bool, ReconcileError> {
        let message = format!("waiting for a run slot, {} before it", position.note(before));
        let pending = PendingStatus { reason: PendingReason::RunSlot, message, timeout: Duration::MAX };
        self.note_pending(attempt, &pending).await?;
        Ok(self.observations(attempt).pending.is_reported())
    }
}

/// Waits until the attempt may be first in the queue.
async fn turn(ticket: Option<&mut Ticket>) {
    match ticket {
        Some(ticket) => ticket.changed().await,
        None => tokio::time::sleep(POLL_PERIOD).await,
    }
}
