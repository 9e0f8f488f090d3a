//! After a stream: whether the agent comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::session::every;
use super::silence::{News, Silence};
use super::standing::Standing;
use super::{AttachContext, SAFETY_PERIOD, lock};
use crate::job::{AttemptId, InstanceHash};

/// How often it is looked whether the agent's records go on at another server.
const LOOK_PERIOD: Duration = Duration::from_secs(2);

/// An attempt that goes on, perhaps, without a stream in this process. There is at most one for each attempt: it keeps
/// the attempt's place among the streams, and the next stream ends it.
pub(super) struct Absence {
    pub(super) context: Arc<AttachContext>,
    pub(super) attempt: AttemptId,
    pub(super) instance: InstanceHash,
    /// Whether it was said already that nothing is heard.
    pub(super) silence: Silence,
    /// A newer stream is there, or the server is to stop.
    pub(super) replaced: CancellationToken,
}

/// How an absence ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The agent attached here, or its records go on at another server.
    HeardAgain,
    /// The attempt is over, or this server is to stop.
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
        }
    }

    async fn until_over(&mut self) -> End {
        let Ok(seq) = self.context.log.last_seq(&self.attempt).await else { return End::NotAwaited };
        let mut changes = self.context.store.watch(&self.attempt.job);
        let mut safety = every(SAFETY_PERIOD);
        let mut look = every(LOOK_PERIOD.min(self.silence.period()));
        if !self.is_awaited().await {
            return End::NotAwaited;
        }
        loop {
            let may_be_over = tokio::select! {
                _ = changes.changed() => true,
                _ = safety.tick() => true,
                _ = look.tick() => false,
            };
            if may_be_over {
                if !self.is_awaited().await {
                    return End::NotAwaited;
                }
                continue;
            }
            // A log that cannot be asked now is asked again.
            if self.context.log.last_seq(&self.attempt).await.is_ok_and(|last| last > seq) {
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

    /// Whether the attempt goes on with this agent, as far as the store can tell now.
    async fn is_awaited(&self) -> bool {
        let Ok(record) = self.context.store.load(&self.attempt.job).await else { return true };
        match record.map(|record| Standing::of(&record.job, &self.attempt, &self.instance)) {
            Some(Standing::Live | Standing::Cancelled(_)) => true,
            Some(Standing::Reported | Standing::Over(_)) | None => false,
        }
    }
}
