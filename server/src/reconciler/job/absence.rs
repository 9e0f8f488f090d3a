//! AgentLiveness of an agent that no server hears: the one that it is attached to has ended, is stopped or is cut off, and cannot
//! report it. So the reconciler of the job does.
//!
//! With the report the reconciler records that the agent is attached to no server. It is heard again once it is attached to one:
//! it said Hello, or a server that returned hears it on its stream. That such a server is there again tells nothing.

use std::time::Instant;

use sqlflow_job::{AttemptId, Event, Job};
use sqlflow_job_store::ServerId;
use sqlflow_proto::record::notice;

use super::watching::Look;
use super::{JobReconciler, Stop};
use crate::agent_liveness::{AgentLiveness, News};

/// The server that is to hear the agent, or to report that it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Listener {
    /// It is this server, or another whose lease lasts.
    There,
    /// It has ended.
    Ended(ServerId),
    /// Its lease has run out: it is stopped or cut off, or it cannot write the state.
    Silent(ServerId),
    /// The job has none.
    Nobody,
}

impl Listener {
    /// Why nothing is heard of the agent, for a person. `None`: it is heard, or a server reports that it is not.
    fn why_unheard(&self) -> Option<&'static str> {
        match self {
            Self::There => None,
            Self::Ended(_) => Some("the server that it was attached to has ended, and it has not come back"),
            Self::Silent(_) => Some(
                "the server that it is attached to is silent too (its lease has run out), and it has not attached to \
                 another one",
            ),
            Self::Nobody => Some("it is not known to be attached to any server"),
        }
    }

    /// The server that the job has the agent attached to, and that does not hear it.
    fn server(self) -> Option<ServerId> {
        match self {
            Self::Ended(server) | Self::Silent(server) => Some(server),
            Self::There | Self::Nobody => None,
        }
    }
}

impl JobReconciler {
    /// Says once that no server hears the agent, which runs; and that one does again, when that was said.
    pub(super) async fn note_absence(&mut self, job: &Job, attempt: &AttemptId) -> Result<Look, Stop> {
        let listener = self.listener(job, attempt).await?;
        let (allowed, now) = (self.context.limits.silence, Instant::now());
        let silence =
            self.attempt_view(attempt).silence.get_or_insert_with(|| AgentLiveness::begin(allowed, now));
        let Some(why) = listener.why_unheard() else {
            if silence.is_said() {
                self.warn(attempt, "the agent is heard again".to_owned()).await?;
            }
            // Not before that was said: if it fails, the next look says it.
            self.attempt_view(attempt).silence = Some(AgentLiveness::begin(allowed, now));
            return Ok(Look::Same);
        };
        if silence.look(now) != Some(News::Silent) {
            return Ok(Look::Same);
        }
        let text = format!("no word from the agent for {} s: {why}", allowed.as_secs());
        let reported = self.report_silence(attempt, listener.server(), text).await;
        if !matches!(reported, Ok(true)) {
            // Nothing was said, so no return is to be said either.
            self.attempt_view(attempt).silence = None;
        }
        // The job is another than it was.
        reported.map(|_| Look::Decided)
    }

    /// False: the agent is attached to another server by now, or the attempt is over.
    async fn report_silence(
        &mut self,
        attempt: &AttemptId,
        server: Option<ServerId>,
        text: String,
    ) -> Result<bool, Stop> {
        if let Some(server) = server {
            let unheard = Event::AgentUnheard { attempt: attempt.clone(), server: server.0 };
            if !self.try_update(unheard).await? {
                return Ok(false);
            }
        }
        self.warn(attempt, text).await?;
        Ok(true)
    }

    async fn warn(&self, attempt: &AttemptId, text: String) -> Result<(), Stop> {
        tracing::warn!(%attempt, "{text}");
        self.say(notice::Kind::Status, text).await
    }

    /// Whether this server hears the agent, or says that it does not.
    pub(super) fn is_heard_here(&self, job: &Job, attempt: &AttemptId) -> bool {
        job.attached_to(attempt) == Some(&self.context.membership.id().0)
    }

    /// Asks the store only about another server that holds its lock: one that is stopped does.
    async fn listener(&self, job: &Job, attempt: &AttemptId) -> Result<Listener, Stop> {
        if self.is_heard_here(job, attempt) {
            return Ok(Listener::There);
        }
        let Some(server) = job.attached_to(attempt) else { return Ok(Listener::Nobody) };
        let server = ServerId(server.to_owned());
        if self.context.membership.is_gone(&server) {
            return Ok(Listener::Ended(server));
        }
        let is_there = self.context.store.lease_lasts(&server).await?;
        Ok(if is_there { Listener::There } else { Listener::Silent(server) })
    }
}
