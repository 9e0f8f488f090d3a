//! An attempt of which its platform says nothing: it cannot be asked, or its answer cannot be read. Nothing is decided
//! then, however long it lasts, so the client is told why.

use std::time::{Duration, Instant};

use sqlflow_job::AttemptId;
use sqlflow_launcher::{Observation, Waiting};
use sqlflow_proto::record::notice;

use super::{JobDriver, Stop};

/// The kind of wait for the platform's word.
const UNKNOWN: &str = "unknown";

impl JobDriver {
    /// Says that nothing is known of the attempt, when that is news. It has waits of its own: what the attempt waits for
    /// otherwise goes on meanwhile.
    pub(super) async fn note_unknown(
        &mut self,
        attempt: &AttemptId,
        observation: &Observation,
    ) -> Result<(), Stop> {
        let unknown = &mut self.at_hand(attempt).unknown;
        let Observation::Unknown(why) = observation else {
            unknown.end();
            return Ok(());
        };
        let why = format!("the state of the attempt is not known: {why}");
        let waiting = Waiting { kind: UNKNOWN, why, patience: Duration::MAX };
        if unknown.note(&waiting, Instant::now()).is_news {
            tracing::warn!(%attempt, "{}", waiting.why);
            self.say(notice::Kind::Status, waiting.why.clone()).await?;
            self.at_hand(attempt).unknown.told(&waiting.why);
        }
        Ok(())
    }
}
