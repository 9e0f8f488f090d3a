//! After a stream: whether the agent comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlflow_job::{AttemptId, InstanceHash, Job};
use sqlflow_job_store::known_job;
use sqlflow_os::clock;
use tokio_util::sync::CancellationToken;

use super::standing::Standing;
use super::{AttachContext, Changes, SAFETY_PERIOD, lock};
use crate::agent_liveness::{AgentLiveness, News};

/// How often it is looked whether the agent's records go on at another server.
const LOOK_PERIOD: Duration = Duration::from_secs(2);

/// An attempt that goes on, perhaps, without a stream in this process. There is at most one for each attempt: it keeps
/// the attempt's place among the streams, and the next stream ends it.
pub(super) struct Absence {
    pub(super) context: Arc<AttachContext>,
    pub(super) attempt: AttemptId,
    pub(super) instance: InstanceHash,
    /// Which of the attempt's agents is away.
    pub(super) rank: u32,
    pub(super) changes: Changes,
    /// Whether it was said already that nothing is heard.
    pub(super) silence: AgentLiveness,
    /// A newer stream is there, or the server is to stop.
    pub(super) replaced: CancellationToken,
}

/// How an absence ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The agent attached, here or to another server.
    HeardAgain,
    /// The attempt is over, this server is to stop, or the job's reconciler awaits the agent.
    NotAwaited,
}

impl Absence {
    /// Says that the agent is away when it is for long, and that it is heard again.
    pub(super) async fn watch(mut self) {
        let replaced = self.replaced.clone();
        let end = tokio::select! {
            end = self.until_over() => end,
            () = replaced.cancelled() => {
                if self.context.shutdown.is_cancelled() { End::NotAwaited } else { End::HeardAgain }
            }
        };
        if end == End::HeardAgain && self.silence.is_said() {
            self.context.say(&self.attempt, "the agent is heard again".to_owned()).await;
        }
        let mut streams = lock(&self.context.streams);
        if !self.replaced.is_cancelled() {
            streams.remove(&self.attempt);
            self.context.memory_peaks.forget(&self.attempt);
        }
    }

    async fn until_over(&mut self) -> End {
        // A log that cannot be asked now is asked again.
        let mut seq = self.context.log.last_seq(&self.attempt, self.rank).await.ok();
        let mut safety = clock::every(SAFETY_PERIOD);
        let mut look = clock::every(LOOK_PERIOD.min(self.silence.period()));
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
                // This is for faults of what tells of changes.
                _ = safety.tick() => {
                    job = self.context.load(&self.attempt).await.ok();
                    is_unread = job.is_none();
                    continue;
                }
                _ = look.tick() => {}
            }
            if is_unread {
                // A change that could not be read is not told again.
                job = self.context.load(&self.attempt).await.ok();
                is_unread = job.is_none();
            }
            if let Ok(last) = self.context.log.last_seq(&self.attempt, self.rank).await
                && last > *seq.get_or_insert(last)
            {
                return End::HeardAgain;
            }
            if self.silence.look(Instant::now()) == Some(News::Silent) {
                let allowed = self.silence.allowed().as_secs();
                let text = format!(
                    "no word from the agent for {allowed} s: its connection has ended, and it has not come back to this server"
                );
                self.context.say(&self.attempt, text).await;
            }
        }
    }

    /// The job, if there is one; `None`: it cannot be read now.
    async fn current(&mut self) -> Option<Option<Arc<Job>>> {
        known_job::current(self.context.store.as_ref(), &self.attempt.job, &mut self.changes).await.ok()
    }

    /// How the absence has ended, by what the job says.
    fn end(&self, job: Option<&Job>) -> Option<End> {
        let Some(job) = job else { return Some(End::NotAwaited) };
        match Standing::of(job, &self.attempt, &self.instance) {
            Standing::Live | Standing::Cancelled(_) => {}
            Standing::Reported | Standing::Over(_) => return Some(End::NotAwaited),
        }
        match job.attached_to(&self.attempt) {
            Some(server) if server == self.context.server.0 => None,
            Some(_) => Some(End::HeardAgain),
            // The job's reconciler has reported that no server hears the agent, and will report its return.
            None => Some(End::NotAwaited),
        }
    }
}
