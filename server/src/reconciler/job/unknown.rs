//! Attempts whose state is unknown: the platform cannot be reached, or its answer cannot be read. Nothing is decided
//! in this time, so the client is notified.

use std::time::{Duration, Instant};

use sqlflow_job::AttemptId;
use sqlflow_launcher::{Observation, PendingReason, PendingStatus};
use sqlflow_proto::record::notice;

use super::{JobReconciler, ReconcileError};

impl JobReconciler {
    /// Reports that the attempt's state is unknown. Tracked apart from the pending reason, whose time continues.
    pub(super) async fn note_unknown(
        &mut self,
        attempt: &AttemptId,
        observation: &Observation,
    ) -> Result<(), ReconcileError> {
        let unknown = &mut self.observations(attempt).unknown;
        let Observation::Unknown(why) = observation else {
            unknown.end();
            return Ok(());
        };
        let why = format!("the state of the attempt is not known: {why}");
        let pending =
            PendingStatus { reason: PendingReason::UnknownState, message: why, timeout: Duration::MAX };
        if unknown.note(&pending, Instant::now()).should_report {
            tracing::warn!(%attempt, "{}", pending.message);
            self.append_notice(notice::Kind::Status, pending.message.clone()).await?;
            self.observations(attempt).unknown.mark_reported(&pending.message);
        }
        Ok(())
    }
}
