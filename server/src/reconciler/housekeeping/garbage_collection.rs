//! Garbage collection: removes the executors of attempts whose job has ended or is unknown to the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use futures::FutureExt as _;
use sqlflow_job::{AttemptId, JobId};
use sqlflow_launcher::Execution;

use super::bounded::{self, PASS_ITEMS};
use super::task::{Progress, Work};
use crate::reconciler::Context;
use crate::reconciler::log_throttle::LogThrottle;

/// Timeout for listing attempts.
const LIST_TIME: Duration = Duration::from_secs(60);

pub(super) struct GarbageCollection {
    context: Arc<Context>,
    /// Attempts that this round has not processed yet.
    left: Vec<Execution>,
    logged_failures: LogThrottle<AttemptId>,
}

impl GarbageCollection {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context, left: Vec::new(), logged_failures: LogThrottle::default() }
    }
}

#[async_trait]
impl Work for GarbageCollection {
    async fn pass(&mut self) -> anyhow::Result<Progress> {
        let context = Arc::clone(&self.context);
        if self.left.is_empty() {
            self.left = tokio::time::timeout(LIST_TIME, context.launchers.attempts())
                .await
                .context("cannot list the attempts at the launchers in time")?;
        }
        let begin = self.left.len().saturating_sub(PASS_ITEMS as usize);
        // Most of them belong to jobs in progress, so one query covers all of them.
        let jobs: Vec<JobId> = self.left[begin..].iter().map(|left| left.attempt().job.clone()).collect();
        let live = context.store.live(&jobs).await?;
        let mut next = self.left.split_off(begin);
        next.retain(|left| !live.contains(&left.attempt().job));
        let cleanup = |left: Execution| {
            let context = Arc::clone(&context);
            async move {
                match context.store.load(&left.attempt().job).await? {
                    Some(record) if !record.job.state.is_final() => Ok(()),
                    // A running one is found again in the next round.
                    Some(record) => left.recorded_in(&record.job).cleanup(false).await.map(drop),
                    None => left.collect_garbage().await,
                }
            }
            .boxed()
        };
        let done = bounded::each(&next, cleanup, |left, error| {
            let attempt = left.attempt();
            context.metrics.housekeeping_failed();
            if self.logged_failures.should_log(attempt, &error, Instant::now()) {
                tracing::warn!(%attempt, error = format!("{error:#}"), "cannot collect the garbage of an ended attempt; will retry");
            }
        });
        let done = done.await;
        self.left.extend(next.into_iter().skip(done));
        Ok(if self.left.is_empty() { Progress::Done } else { Progress::More })
    }
}
