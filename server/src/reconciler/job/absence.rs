//! Liveness of an agent that no server hears. The server that it attached to has ended, is stopped or is cut off, and
//! cannot report that, so the job's reconciler does.
//!
//! With the report, the reconciler records that the agent is attached to no server. It counts as heard again once it
//! is attached to one: it sent Hello, or a server that returned received a message on its stream. The return of such
//! a server alone does not prove that the agent lives.

use std::time::Instant;

use sqlflow_job::{AttemptId, Event, Job};
use sqlflow_job_store::ServerId;
use sqlflow_proto::record::notice;

use super::watching::WatchStep;
use super::{JobReconciler, ReconcileError, Update};
use crate::agent_liveness::{AgentLiveness, LivenessChange};

/// State of the server that should hear the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Listener {
    /// It is this server, or another one with a valid lease.
    Live,
    /// It has ended.
    Ended(ServerId),
    /// Its lease has expired: it is stopped or cut off, or cannot write the state.
    Silent(ServerId),
    /// The agent is attached to no server.
    None,
}

impl Listener {
    /// Why the agent is not heard. `None`: a server hears it, or reports that it does not.
    fn why_unheard(&self) -> Option<&'static str> {
        match self {
            Self::Live => None,
            Self::Ended(_) => Some("the server that it was attached to has ended, and it has not come back"),
            Self::Silent(_) => Some(
                "the server that it is attached to is silent too (its lease has run out), and it has not attached to \
                 another one",
            ),
            Self::None => Some("it is not known to be attached to any server"),
        }
    }

    /// The server that the agent is attached to in the store, and that does not hear it.
    fn server(self) -> Option<ServerId> {
        match self {
            Self::Ended(server) | Self::Silent(server) => Some(server),
            Self::Live | Self::None => None,
        }
    }
}

impl JobReconciler {
    /// Reports once that no server hears a running agent, and once that it is heard again.
    pub(super) async fn check_liveness(
        &mut self,
        job: &Job,
        attempt: &AttemptId,
    ) -> Result<WatchStep, ReconcileError> {
        let listener = self.listener(job, attempt).await?;
        let (allowed, now) = (self.context.limits.silence, Instant::now());
        let liveness =
            self.observations(attempt).liveness.get_or_insert_with(|| AgentLiveness::begin(allowed, now));
        let Some(why) = listener.why_unheard() else {
            if liveness.is_reported() {
                self.warn(attempt, "the agent is heard again".to_owned()).await?;
            }
            // After the notice: if writing it fails, the next check writes it.
            self.observations(attempt).liveness = Some(AgentLiveness::begin(allowed, now));
            return Ok(WatchStep::Continue);
        };
        if liveness.check(now) != Some(LivenessChange::Silent) {
            return Ok(WatchStep::Continue);
        }
        let text = format!("no word from the agent for {} s: {why}", allowed.as_secs());
        let reported = self.report_silence(attempt, listener.server(), text).await;
        if !matches!(reported, Ok(Update::Accepted)) {
            // No notice was written, so none about its return follows.
            self.observations(attempt).liveness = None;
        }
        // The job changed, or is stale.
        reported.map(|_| WatchStep::Reload)
    }

    /// Records that no server hears the agent, and reports it.
    async fn report_silence(
        &mut self,
        attempt: &AttemptId,
        server: Option<ServerId>,
        text: String,
    ) -> Result<Update, ReconcileError> {
        if let Some(server) = server {
            let unheard = Event::AgentUnheard { attempt: attempt.clone(), server: server.0 };
            if self.try_update(unheard).await? == Update::Rejected {
                return Ok(Update::Rejected);
            }
        }
        self.warn(attempt, text).await?;
        Ok(Update::Accepted)
    }

    async fn warn(&self, attempt: &AttemptId, text: String) -> Result<(), ReconcileError> {
        tracing::warn!(%attempt, "{text}");
        self.append_notice(notice::Kind::Status, text).await
    }

    /// Whether the agent is attached to this server.
    pub(super) fn is_heard_here(&self, job: &Job, attempt: &AttemptId) -> bool {
        job.attached_to(attempt) == Some(&self.context.membership.id().0)
    }

    /// Asks the store only about another server that holds its lock: a stopped one does.
    async fn listener(&self, job: &Job, attempt: &AttemptId) -> Result<Listener, ReconcileError> {
        if self.is_heard_here(job, attempt) {
            return Ok(Listener::Live);
        }
        let Some(server) = job.attached_to(attempt) else { return Ok(Listener::None) };
        let server = ServerId(server.to_owned());
        if self.context.membership.is_gone(&server) {
            return Ok(Listener::Ended(server));
        }
        let is_live = self.context.store.lease_lasts(&server).await?;
        Ok(if is_live { Listener::Live } else { Listener::Silent(server) })
    }
}
