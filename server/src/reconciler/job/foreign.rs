//! Attempts of a launcher that this server does not have. Only another server can observe them.

use std::time::Instant;

use sqlflow_job::AttemptId;
use sqlflow_launcher::PendingStatus;

use super::{Changes, JobReconciler, POLL_PERIOD, ReconcileError};
use crate::reconciler::released::RELEASE_PERIOD;

impl JobReconciler {
    /// Reports where the attempt runs, and releases the job for a server with that launcher. Decides nothing about
    /// the attempt.
    pub(super) async fn release_foreign(
        &mut self,
        attempt: &AttemptId,
        pending: &PendingStatus,
        changes: &mut Changes,
    ) -> Result<(), ReconcileError> {
        if !self.released.has_logged_reason(attempt) {
            self.note_pending(attempt, pending).await?;
            if !self.observations(attempt).pending.is_reported() {
                let _ = tokio::time::timeout(POLL_PERIOD, changes.changed()).await;
                return Ok(());
            }
        }
        // Before the release, so that this server does not claim it at once.
        self.released.add(attempt, Instant::now());
        self.context.store.release(&self.id, &self.lease).await?;
        tracing::debug!(%attempt, "the job is released for a server with its attempt's launcher");
        // A change that does not need the other server, for example the outcome from an attached agent.
        if tokio::time::timeout(RELEASE_PERIOD, changes.changed()).await.is_ok() {
            self.released.make_claimable(&self.id, Instant::now());
        }
        Err(ReconcileError::JobOver)
    }
}
