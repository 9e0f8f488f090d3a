//! An attempt of a place that this server has no launcher of: only another server can tell what became of it.

use std::time::Instant;

use sqlflow_job::AttemptId;
use sqlflow_launcher::PendingStatus;

use super::{Changes, JobReconciler, LOOK_PERIOD, Stop};
use crate::reconciler::released::REST;

impl JobReconciler {
    /// Says where the attempt runs, and gives the job back for a server of that place to claim. Nothing is decided about the
    /// attempt here.
    pub(super) async fn leave(
        &mut self,
        attempt: &AttemptId,
        pending: &PendingStatus,
        changes: &mut Changes,
    ) -> Result<(), Stop> {
        if !self.released.is_said(attempt) {
            self.note_pending(attempt, pending).await?;
            if !self.attempt_view(attempt).pending.is_told() {
                let _ = tokio::time::timeout(LOOK_PERIOD, changes.changed()).await;
                return Ok(());
            }
        }
        // Before it is free, so that this server does not claim it at once.
        self.released.begin(attempt, Instant::now());
        self.context.store.release(&self.id, &self.lease).await?;
        tracing::debug!(%attempt, "the job is given back, for a server that can ask after its attempt");
        // An agent that is attached may report its end, for example: that does not need the other server.
        if tokio::time::timeout(REST, changes.changed()).await.is_ok() {
            self.released.end(&self.id, Instant::now());
        }
        Err(Stop::Over)
    }
}
