//! How a reconciler launches an attempt, and waits for a run slot of its launcher.

use std::time::{Duration, Instant};

use sqlflow_job::{AttemptId, Basis, Event, Job, Outcome, Reason};
use sqlflow_launcher::{
    Execution, LaunchError, LaunchRequirements, Launched, PendingReason, PendingStatus, Ticket,
};
use sqlflow_os::clock;
use sqlflow_os::failpoint;

use super::pending::Queued;
use super::{Changes, JobReconciler, LOOK_PERIOD, Stop};

/// How often a job that waits in a queue of this server is read again: nothing tells of a lost lease. 1,000 such jobs cost
/// 100 reads a second.
const QUEUE_PERIOD: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// How long a platform that cannot be asked, or has no room, is asked again to start an attempt, or who its agent is.
pub(super) const LAUNCH_TIMEOUT: Duration = Duration::from_secs(600);

impl JobReconciler {
    pub(super) async fn launch(
        &mut self,
        job: &Job,
        attempt: AttemptId,
        mut changes: Changes,
    ) -> Result<(), Stop> {
        let attempt_view = self.attempt_view(&attempt);
        attempt_view.missing.end();
        attempt_view.pending.begin(PendingReason::Launch, Instant::now());
        let execution = self.context.launchers.of(job, &attempt);
        if self.has_records(&attempt).await? {
            return self.take_up(&execution).await;
        }
        let launched = match self.requirements(job, &execution).await? {
            Ok(requirements) => self.launch_in_turn(&execution, &requirements, &mut changes).await?,
            Err(error) => Some(Err(error)),
        };
        // It waits for a place no more: it is read again.
        let Some(launched) = launched else { return Ok(()) };
        match launched {
            Ok(Launched { tracker_url }) => {
                failpoint::server("after-launch");
                self.update(Event::AttemptLaunched { attempt, tracker_url }).await
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
                if self.note_pending(&attempt, &pending).await? {
                    // It may have been started all the same, and only the answer was lost.
                    return self.give_up(job, attempt, pending.message).await;
                }
                tokio::time::sleep(LOOK_PERIOD).await;
                Ok(())
            }
        }
    }

    /// Launches the attempt as soon as there is a run slot; `None`: its job has changed meanwhile.
    async fn launch_in_turn(
        &mut self,
        execution: &Execution,
        requirements: &LaunchRequirements,
        changes: &mut Changes,
    ) -> Result<Option<Result<Launched, LaunchError>>, Stop> {
        let attempt = execution.attempt();
        let mut ticket = execution.queue();
        let mut queued = Queued::default();
        let mut reload = clock::every(QUEUE_PERIOD);
        loop {
            let before = match execution.launch(requirements).await {
                Err(LaunchError::NoFreeSlot { before }) => before,
                launched => return Ok(Some(launched)),
            };
            let is_told = self.waits_for_place(attempt, &mut queued, before).await?;
            tokio::select! {
                // It may have been cancelled.
                _ = changes.changed() => return Ok(None),
                // One without a lease must not keep others from their turn.
                _ = reload.tick() => drop(self.load().await?),
                () = turn(ticket.as_mut()) => {}
                () = tokio::time::sleep(LOOK_PERIOD), if !is_told => {}
            }
        }
    }

    /// Says that the attempt waits for a run slot, when that is news; whether it has been said.
    async fn waits_for_place(
        &mut self,
        attempt: &AttemptId,
        queued: &mut Queued,
        before: usize,
    ) -> Result<bool, Stop> {
        let message = format!("waiting for a run slot, {} before it", queued.note(before));
        let pending = PendingStatus { reason: PendingReason::RunSlot, message, timeout: Duration::MAX };
        self.note_pending(attempt, &pending).await?;
        Ok(self.attempt_view(attempt).pending.is_told())
    }
}

/// PendingTracker until it may be the attempt's turn.
async fn turn(ticket: Option<&mut Ticket>) {
    match ticket {
        Some(ticket) => ticket.changed().await,
        None => tokio::time::sleep(LOOK_PERIOD).await,
    }
}
