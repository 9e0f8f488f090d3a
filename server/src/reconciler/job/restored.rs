//! An attempt that the state says was not launched, and of which the log has records: the state is older than the log, as
//! after a backup was restored. A second agent would take the records of the first for its own acknowledged ones, and
//! execute again what may have been executed.

use sqlflow_job::{AttemptId, Event};
use sqlflow_launcher::{Execution, Observation};

use super::ending::LEADER;
use super::{JobReconciler, LOOK_PERIOD, Stop};

impl JobReconciler {
    /// Whether the attempt has had an agent, whatever the state says.
    pub(super) async fn has_records(&self, attempt: &AttemptId) -> Result<bool, Stop> {
        Ok(self.context.log.last_seq(attempt, LEADER).await? > 0)
    }

    /// Goes on with the attempt without launching it: it is watched if something of it runs, and has ended otherwise.
    pub(super) async fn take_up(&mut self, execution: &Execution) -> Result<(), Stop> {
        let attempt = execution.attempt().clone();
        tracing::warn!(%attempt, "the log has records of an attempt that was not launched; the state may be a restored backup");
        match execution.observe().await {
            Observation::Gone(artifacts) => self.settle(attempt, *artifacts, None).await,
            Observation::Running | Observation::Pending(_) => {
                self.update(Event::AttemptLaunched { attempt, tracker_url: None }).await
            }
            Observation::Unknown(why) => {
                tracing::debug!(%attempt, why, "cannot look at the attempt");
                tokio::time::sleep(LOOK_PERIOD).await;
                Ok(())
            }
        }
    }
}
