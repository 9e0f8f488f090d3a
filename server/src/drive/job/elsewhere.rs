//! An attempt of a place that this server has no launcher of: only another server can tell what became of it.

use std::time::Instant;

use sqlflow_job::AttemptId;
use sqlflow_launcher::Waiting;

use super::{Changes, JobDriver, LOOK_PERIOD, Stop};
use crate::drive::given_back::REST;

impl JobDriver {
    /// Says where the attempt runs, and gives the job back for a server of that place to claim. Nothing is decided about the
    /// attempt here.
    pub(super) async fn leave(
        &mut self,
        attempt: &AttemptId,
        waiting: &Waiting,
        changes: &mut Changes,
    ) -> Result<(), Stop> {
        if !self.given_back.is_said(attempt) {
            self.waits(attempt, waiting).await?;
            if !self.at_hand(attempt).waits.is_told() {
                let _ = tokio::time::timeout(LOOK_PERIOD, changes.changed()).await;
                return Ok(());
            }
        }
        // Before it is free, so that this server does not claim it at once.
        self.given_back.begin(attempt, Instant::now());
        self.context.store.release(&self.id, &self.lease).await?;
        tracing::debug!(%attempt, "the job is given back, for a server that can ask after its attempt");
        // An agent that is attached may report its end, for example: that does not need the other server.
        if tokio::time::timeout(REST, changes.changed()).await.is_ok() {
            self.given_back.end(&self.id, Instant::now());
        }
        Err(Stop::Over)
    }
}
