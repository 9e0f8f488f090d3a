//! Silence of an agent whose server has ended: that server cannot report it any more, so the driver of the job does.

use std::time::Instant;

use sqlflow_proto::record::notice;

use super::{JobDriver, Stop};
use crate::job::{AttemptId, Job};
use crate::silence::{News, Silence};
use crate::store::ServerId;

impl JobDriver {
    /// Says once that the agent, which runs, has not come back; and that it has, when that was said.
    pub(super) async fn note_absence(&mut self, job: &Job, attempt: &AttemptId) -> Result<(), Stop> {
        let now = Instant::now();
        let allowed = self.context.limits.silence;
        let is_heard = self.is_heard(job, attempt);
        let silence = self.at_hand(attempt).silence.get_or_insert_with(|| Silence::begin(allowed, now));
        let news = if is_heard { silence.heard(now) } else { silence.look(now) };
        let text = match news {
            None => return Ok(()),
            Some(News::Silent) => format!(
                "no word from the agent for {} s: the server that it was attached to has ended, and it has not come \
                 back",
                allowed.as_secs()
            ),
            Some(News::HeardAgain) => "the agent is heard again".to_owned(),
        };
        tracing::warn!(%attempt, "{text}");
        self.say(notice::Kind::Status, text).await
    }

    /// Whether this server hears the agent, or says that it does not.
    pub(super) fn is_heard_here(&self, job: &Job, attempt: &AttemptId) -> bool {
        job.attached_to(attempt) == Some(&self.context.presence.id().0)
    }

    /// Whether a server is there that hears the agent, or says that it does not.
    fn is_heard(&self, job: &Job, attempt: &AttemptId) -> bool {
        let is_there = |server: &str| !self.context.presence.is_gone(&ServerId(server.to_owned()));
        self.is_heard_here(job, attempt) || job.attached_to(attempt).is_some_and(is_there)
    }
}
