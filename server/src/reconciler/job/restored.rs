//! Attempts that were not launched according to the state, and that have records in the log. The state is older than
//! the log, for example after a restore from a backup. A second agent would take the first one's records for its own
//! acknowledged ones, and execute again what may have been executed.

use sqlflow_job::{AttemptId, Event};
use sqlflow_launcher::{Execution, Observation};

use super::ending::LEADER;
use super::{JobReconciler, POLL_PERIOD, ReconcileError};

impl JobReconciler {
    /// Whether the attempt had an agent, even if the state does not know it.
    pub(super) async fn has_records(&self, attempt: &AttemptId) -> Result<bool, ReconcileError> {
        Ok(self.context.log.last_seq(attempt, LEADER).await? > 0)
    }

    /// Continues the attempt without launching it: watches it if something of it runs, otherwise records its end.
    pub(super) async fn adopt(&mut self, execution: &Execution) -> Result<(), ReconcileError> {
        let attempt = execution.attempt().clone();
        tracing::warn!(%attempt, "the log has records of an attempt that was not launched according to the state; the state may be a restored backup");
        match execution.observe().await {
            Observation::Gone(artifacts) => self.settle(attempt, *artifacts, None).await,
            Observation::Running | Observation::Pending(_) => {
                self.update(Event::AttemptLaunched { attempt, tracker_url: None, executor_uid: None }).await
            }
            Observation::Unknown(why) => {
                tracing::debug!(%attempt, why, "cannot observe the attempt");
                tokio::time::sleep(POLL_PERIOD).await;
                Ok(())
            }
        }
    }
}
