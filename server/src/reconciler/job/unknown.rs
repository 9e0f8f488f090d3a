//! An attempt of which its platform says nothing: it cannot be asked, or its answer cannot be read. Nothing is decided
//! then, however long it lasts, so the client is told why.

use std::time::{Duration, Instant};

use sqlflow_job::AttemptId;
use sqlflow_launcher::{Observation, PendingReason, PendingStatus};
use sqlflow_proto::record::notice;

use super::{JobReconciler, Stop};

impl JobReconciler {
    /// Says that nothing is known of the attempt, when that is news. It has waits of its own: what the attempt waits for
    /// otherwise goes on meanwhile.
    pub(super) async fn note_unknown(
        &mut self,
        attempt: &AttemptId,
        observation: &Observation,
    ) -> Result<(), Stop> {
        let unknown = &mut self.attempt_view(attempt).unknown;
        let Observation::Unknown(why) = observation else {
            unknown.end();
            return Ok(());
        };
        let why = format!("the state of the attempt is not known: {why}");
        let pending =
            PendingStatus { reason: PendingReason::UnknownState, message: why, timeout: Duration::MAX };
        if unknown.note(&pending, Instant::now()).is_news {
            tracing::warn!(%attempt, "{}", pending.message);
            self.say(notice::Kind::Status, pending.message.clone()).await?;
            self.attempt_view(attempt).unknown.told(&pending.message);
        }
        Ok(())
    }
}
