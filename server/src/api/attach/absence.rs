//! Watch for an agent's return after its stream has ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlflow_job::{AttemptId, InstanceHash, Job};
use sqlflow_job_store::known_job;
use sqlflow_os::clock;
use tokio_util::sync::CancellationToken;

use super::agent_status::AgentStatus;
use super::{AttachContext, Changes, RELOAD_PERIOD, lock};
use crate::agent_liveness::{AgentLiveness, LivenessChange};

/// Period of checking whether the agent's records continue at another server.
const POLL_PERIOD: Duration = Duration::from_secs(2);

/// An attempt that may continue, without a stream in this process. There is at most one per attempt: it keeps the
/// attempt's entry among the streams, and the next stream ends it.
pub(super) struct Absence {
    pub(super) context: Arc<AttachContext>,
    pub(super) attempt: AttemptId,
    pub(super) instance: InstanceHash,
    /// Rank of the disconnected agent.
    pub(super) rank: u32,
    pub(super) changes: Changes,
    /// Time without a message, and whether it was reported.
    pub(super) silence: AgentLiveness,
    /// A newer stream is open, or the server shuts down.
    pub(super) replaced: CancellationToken,
}

/// How an absence ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The agent attached, here or to another server.
    HeardAgain,
    /// The attempt is over, this server shuts down, or the job's reconciler awaits the agent.
    NotAwaited,
}

impl Absence {
    /// Reports a long absence of the agent, and its return.
    pub(super) async fn watch(mut self) {
        let replaced = self.replaced.clone();
        let end = tokio::select! {
            end = self.until_over() => end,
            () = replaced.cancelled() => {
                if self.context.shutdown.is_cancelled() { End::NotAwaited } else { End::HeardAgain }
            }
        };
        if end == End::HeardAgain && self.silence.is_reported() {
            self.context.append_notice(&self.attempt, "the agent is heard again".to_owned()).await;
        }
        let mut streams = lock(&self.context.streams);
        if !self.replaced.is_cancelled() {
            streams.remove(&self.attempt);
            self.context.memory_peaks.forget(&self.attempt);
        }
    }

    async fn until_over(&mut self) -> End {
        // A failed query is repeated.
        let mut seq = self.context.log.last_seq(&self.attempt, self.rank).await.ok();
        let mut safety = clock::every(RELOAD_PERIOD);
        let mut look = clock::every(POLL_PERIOD.min(self.silence.period()));
        let mut job = self.current().await;
        let mut is_unread = job.is_none();
        loop {
            if let Some(end) = job.take().and_then(|job| self.end(job.as_deref())) {
                return end;
            }
            tokio::select! {
                _ = self.changes.changed() => {
                    job = self.current().await;
                    is_unread = job.is_none();
                    continue;
                }
                // Covers faults of the change signal.
                _ = safety.tick() => {
                    job = self.context.load(&self.attempt).await.ok();
                    is_unread = job.is_none();
                    continue;
                }
                _ = look.tick() => {}
            }
            if is_unread {
                // A change that could not be read is not signalled again.
                job = self.context.load(&self.attempt).await.ok();
                is_unread = job.is_none();
            }
            if let Ok(last) = self.context.log.last_seq(&self.attempt, self.rank).await
                && last > *seq.get_or_insert(last)
            {
                return End::HeardAgain;
            }
            if self.silence.check(Instant::now()) == Some(LivenessChange::Silent) {
                let allowed = self.silence.allowed().as_secs();
                let text = format!(
                    "no word from the agent for {allowed} s: its connection has ended, and it has not come back to this server"
                );
                self.context.append_notice(&self.attempt, text).await;
            }
        }
    }

    /// The job, if it exists; `None`: it cannot be read now.
    async fn current(&mut self) -> Option<Option<Arc<Job>>> {
        known_job::current(self.context.store.as_ref(), &self.attempt.job, &mut self.changes).await.ok()
    }

    /// Whether the absence has ended, according to the job.
    fn end(&self, job: Option<&Job>) -> Option<End> {
        let Some(job) = job else { return Some(End::NotAwaited) };
        match AgentStatus::of(job, &self.attempt, &self.instance) {
            AgentStatus::Live | AgentStatus::Cancelled(_) => {}
            AgentStatus::Reported | AgentStatus::Fenced(_) => return Some(End::NotAwaited),
        }
        match job.attached_to(&self.attempt) {
            Some(server) if server == self.context.server.0 => None,
            Some(_) => Some(End::HeardAgain),
            // The job's reconciler has reported that no server hears the agent, and will report its return.
            None => Some(End::NotAwaited),
        }
    }
}
