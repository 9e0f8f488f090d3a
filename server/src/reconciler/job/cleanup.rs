//! Cleanup of ended attempts while the job continues. A node drain waits for their Pods, and processes that a killed
//! agent left must not run beside the next attempt. Housekeeping cleans up ended jobs only.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sqlflow_job::{AttemptId, Job};
use sqlflow_launcher::{Cleanup, Execution, Observation};

use super::{JobReconciler, POLL_PERIOD, attempts_of};

/// Delay before the next try, after a cleanup failed or the state of the attempt was unknown.
const CLEANUP_RETRY_DELAY: Duration =
    if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(30) };

/// Time of the next cleanup of each ended attempt; `None`: nothing is left of it.
pub(super) type Cleaned = HashMap<AttemptId, Option<Instant>>;

impl JobReconciler {
    /// The ended attempt to clean up next, and when.
    pub(super) fn next_cleanup(&self, job: &Job) -> Option<(Instant, AttemptId)> {
        let ended = attempts_of(job)
            .into_iter()
            .filter(|attempt| job.attempt(attempt).is_some_and(|it| it.outcome().is_some()));
        let due = ended.filter_map(|attempt| {
            let due = self.due(&attempt)?;
            Some((due, attempt))
        });
        due.min()
    }

    /// When to clean up the ended attempt; `None`: nothing is left of it.
    fn due(&self, attempt: &AttemptId) -> Option<Instant> {
        self.cleaned.get(attempt).copied().unwrap_or_else(|| Some(Instant::now()))
    }

    /// Cleans up earlier attempts of the same step, if that is due. A failure does not delay the launch: it is
    /// retried later.
    pub(super) async fn cleanup_before(&mut self, job: &Job, attempt: &AttemptId) {
        for number in 1..attempt.number {
            let earlier = AttemptId { number, ..attempt.clone() };
            if self.due(&earlier).is_some_and(|due| due <= Instant::now()) {
                self.cleanup_ended(job, earlier).await;
            }
        }
    }

    /// Cleans up an ended attempt, unless its agent still runs.
    pub(super) async fn cleanup_ended(&mut self, job: &Job, attempt: AttemptId) {
        let execution = self.context.launchers.of(job, &attempt);
        let goes_on = !job.steps[attempt.step as usize].succeeded();
        let pause = match execution.observe().await {
            // An agent that has reported its outcome may take a moment to exit.
            Observation::Running => Some(POLL_PERIOD),
            Observation::Unknown(_) => Some(CLEANUP_RETRY_DELAY),
            Observation::Pending(_) | Observation::Gone(_) => {
                match self.cleanup_one(&execution, goes_on).await {
                    Ok(Cleanup::Done) => None,
                    // Its agent started in between.
                    Ok(Cleanup::StillRuns) => Some(POLL_PERIOD),
                    Err(_) => Some(CLEANUP_RETRY_DELAY),
                }
            }
        };
        self.cleaned.insert(attempt, pause.map(|pause| Instant::now() + pause));
    }

    /// Cleans up the attempt. Logs a failure unless the same one was logged.
    pub(super) async fn cleanup_one(
        &mut self,
        execution: &Execution,
        step_goes_on: bool,
    ) -> anyhow::Result<Cleanup> {
        let cleaned = execution.cleanup(step_goes_on).await;
        let attempt = execution.attempt();
        if let Err(error) = &cleaned
            && self.logged_failures.should_log(attempt, error, Instant::now())
        {
            tracing::warn!(%attempt, error = format!("{error:#}"), "cannot clean up the attempt; will try again");
        }
        cleaned
    }
}
