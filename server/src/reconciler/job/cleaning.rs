//! How a reconciler cleans up behind ended attempts while the job goes on: a node that is drained waits for their Pods, and what
//! a killed agent left running must not run beside the next attempt. Housekeeping cleans up behind ended jobs only.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sqlflow_job::{AttemptId, Job};
use sqlflow_launcher::{CleanUp, Execution, Observation};

use super::{JobReconciler, LOOK_PERIOD, attempts_of};

/// Pause before another try, after a clean-up failed or nothing was known of the attempt.
const CLEAN_UP_PAUSE: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(30) };

/// Ended attempts that were cleaned up behind, with the time of the next try; `None`: nothing is left of the attempt.
pub(super) type Cleaned = HashMap<AttemptId, Option<Instant>>;

impl JobReconciler {
    /// The ended attempt to clean up behind next, and when.
    pub(super) fn next_clean_up(&self, job: &Job) -> Option<(Instant, AttemptId)> {
        let ended = attempts_of(job)
            .into_iter()
            .filter(|attempt| job.attempt(attempt).is_some_and(|it| it.outcome().is_some()));
        let due = ended.filter_map(|attempt| {
            let due = self.due(&attempt)?;
            Some((due, attempt))
        });
        due.min()
    }

    /// When to clean up behind the ended attempt; `None`: nothing is left of it.
    fn due(&self, attempt: &AttemptId) -> Option<Instant> {
        self.cleaned.get(attempt).copied().unwrap_or_else(|| Some(Instant::now()))
    }

    /// Cleans up behind the earlier attempts of the attempt's step, as far as that is due. One that fails does not hold up the
    /// launch: it is tried again later.
    pub(super) async fn clean_up_before(&mut self, job: &Job, attempt: &AttemptId) {
        for number in 1..attempt.number {
            let earlier = AttemptId { number, ..attempt.clone() };
            if self.due(&earlier).is_some_and(|due| due <= Instant::now()) {
                self.clean_up_ended(job, earlier).await;
            }
        }
    }

    /// Cleans up behind an ended attempt, unless its agent still runs.
    pub(super) async fn clean_up_ended(&mut self, job: &Job, attempt: AttemptId) {
        let execution = self.context.launchers.of(job, &attempt);
        let goes_on = !job.steps[attempt.step as usize].succeeded();
        let pause = match execution.observe().await {
            // An agent that has reported may take a moment to leave.
            Observation::Running => Some(LOOK_PERIOD),
            Observation::Unknown(_) => Some(CLEAN_UP_PAUSE),
            Observation::Pending(_) | Observation::Gone(_) => {
                match self.clean_up_one(&execution, goes_on).await {
                    Ok(CleanUp::Done) => None,
                    // Its agent has started in between.
                    Ok(CleanUp::StillRuns) => Some(LOOK_PERIOD),
                    Err(_) => Some(CLEAN_UP_PAUSE),
                }
            }
        };
        self.cleaned.insert(attempt, pause.map(|pause| Instant::now() + pause));
    }

    /// Cleans up behind the attempt, and logs why it cannot when that is news.
    pub(super) async fn clean_up_one(
        &mut self,
        execution: &Execution,
        step_goes_on: bool,
    ) -> anyhow::Result<CleanUp> {
        let cleaned = execution.clean_up(step_goes_on).await;
        let attempt = execution.attempt();
        if let Err(error) = &cleaned
            && self.reported.is_news(attempt, error, Instant::now())
        {
            tracing::warn!(%attempt, error = format!("{error:#}"), "cannot remove what the attempt left behind now, will try again");
        }
        cleaned
    }
}
