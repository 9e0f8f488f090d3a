//! After a stream: whether the agent comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::standing::Standing;
use super::{AttachContext, lock};
use crate::job::{AttemptId, InstanceHash};
use crate::silence::{News, Silence};

/// How often it is looked whether the agent went to another server, or the attempt has ended.
const LOOK_PERIOD: Duration = Duration::from_secs(2);

/// An attempt that goes on, perhaps, without a stream in this process. There is at most one for each attempt: it keeps
/// the attempt's place among the streams, and the next stream ends it.
pub(super) struct Absence {
    pub(super) context: Arc<AttachContext>,
    pub(super) attempt: AttemptId,
    pub(super) instance: InstanceHash,
    /// Which of the attempt's agents is away.
    pub(super) rank: u32,
    /// Whether it was said already that nothing is heard.
    pub(super) silence: Silence,
    /// A newer stream is there, or the server is to stop.
    pub(super) replaced: CancellationToken,
}

/// How an absence ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The agent attached, here or to another server.
    HeardAgain,
    /// The attempt is over, or this server is to stop.
    NotAwaited,
}

/// What is known of the agent at another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Elsewhere {
    /// It is awaited, and nothing new came of it.
    Silent,
    /// It attached to another server, or its records go on.
    Heard,
    /// The attempt is over, or its agent is refused.
    Over,
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
        let Ok(seq) = self.context.log.last_seq(&self.attempt, self.rank).await else {
            return End::NotAwaited;
        };
        loop {
            match self.elsewhere(seq).await {
                Elsewhere::Silent => {}
                Elsewhere::Heard => return End::HeardAgain,
                Elsewhere::Over => return End::NotAwaited,
            }
            if self.silence.look(Instant::now()) == Some(News::Silent) {
                let allowed = self.silence.allowed().as_secs();
                let text = format!(
                    "no word from the agent for {allowed} s: its connection has ended, and it has not come back to this server"
                );
                self.context.say(&self.attempt, text).await;
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    }

    async fn elsewhere(&self, seq: u64) -> Elsewhere {
        let (record, last_seq) = tokio::join!(
            self.context.store.load(&self.attempt.job),
            self.context.log.last_seq(&self.attempt, self.rank)
        );
        // A store or a log that cannot be asked now is asked again.
        let Ok(record) = record else { return Elsewhere::Silent };
        let standing = record.as_ref().map(|it| Standing::of(&it.job, &self.attempt, &self.instance));
        match standing {
            Some(Standing::Live | Standing::Cancelled(_)) => {}
            Some(Standing::Reported | Standing::Over(_)) | None => return Elsewhere::Over,
        }
        let attached_to = record.as_ref().and_then(|it| it.job.attempt(&self.attempt)?.attached_to.as_ref());
        let is_elsewhere = attached_to.is_some_and(|server| *server != self.context.server.0);
        if is_elsewhere || last_seq.is_ok_and(|last| last > seq) {
            Elsewhere::Heard
        } else {
            Elsewhere::Silent
        }
    }
}
