//! Retention: removes old jobs with their logs.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::FutureExt as _;
use sqlflow_job::JobId;
use sqlflow_job_store::EndedJob;
use sqlflow_os::clock;

use super::bounded::{self, PASS_ITEMS};
use super::task::{Progress, Work};
use crate::reconciler::Context;
use crate::reconciler::log_throttle::LogThrottle;

pub(super) struct Retention {
    context: Arc<Context>,
    /// Position of this round, so that a job that cannot be removed does not appear twice in it.
    after: Option<EndedJob>,
    logged_failures: LogThrottle<JobId>,
}

impl Retention {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context, after: None, logged_failures: LogThrottle::default() }
    }
}

#[async_trait]
impl Work for Retention {
    async fn pass(&mut self) -> anyhow::Result<Progress> {
        let context = Arc::clone(&self.context);
        let retain_ms = i64::try_from(context.limits.retain_jobs.as_millis()).unwrap_or(i64::MAX);
        let before = clock::now_ms().saturating_sub(retain_ms);
        let old = context.store.ended_before(before, self.after.as_ref(), PASS_ITEMS).await?;
        let forget = |job: EndedJob| {
            let context = Arc::clone(&context);
            async move {
                // The log first: a job without a log can be found and removed again, a log without a job cannot.
                context.log.delete(&job.id).await?;
                context.store.remove(&job.id).await?;
                tracing::info!(job = %job.id, "removed the job: it is older than the retention time");
                Ok(())
            }
            .boxed()
        };
        let done = bounded::each(&old, forget, |job, error| {
            context.metrics.housekeeping_failed();
            if self.logged_failures.should_log(&job.id, &error, Instant::now()) {
                tracing::warn!(job = %job.id, error = format!("{error:#}"), "cannot remove an old job; will try again");
            }
        });
        let done = done.await;
        let is_last = done == old.len() && old.len() < PASS_ITEMS as usize;
        self.after = done.checked_sub(1).and_then(|last| old.get(last).cloned()).filter(|_| !is_last);
        Ok(if is_last { Progress::Done } else { Progress::More })
    }
}
