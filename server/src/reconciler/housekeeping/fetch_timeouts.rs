//! Cancels jobs whose fetch timeout has passed.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::FutureExt as _;
use sqlflow_job::{Cause, Event, Failure, JobId};
use sqlflow_job_store::Unfetched;
use sqlflow_os::clock;

use super::bounded::{self, PASS_ITEMS};
use super::task::{Progress, Work};
use crate::reconciler::Context;
use crate::reconciler::log_throttle::LogThrottle;

pub(super) struct FetchTimeouts {
    context: Arc<Context>,
    after: Option<Unfetched>,
    logged_failures: LogThrottle<JobId>,
}

impl FetchTimeouts {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context, after: None, logged_failures: LogThrottle::default() }
    }
}

#[async_trait]
impl Work for FetchTimeouts {
    async fn pass(&mut self) -> anyhow::Result<Progress> {
        let context = Arc::clone(&self.context);
        let due = context.store.unfetched(self.after.as_ref(), PASS_ITEMS).await?;
        let cancel = |it: Unfetched| {
            let context = Arc::clone(&context);
            async move {
                let message = format!("nobody fetched the job for {} s", it.timeout_ms / 1000);
                let event = Event::CancelRequested(Failure::new(Cause::NotFetched, message));
                // A job that is being cancelled appears in every round, which has no effect.
                context.store.update(&it.id, None, event, clock::now_ms()).await?;
                Ok(())
            }
            .boxed()
        };
        let done = bounded::each(&due, cancel, |it, error| {
            context.metrics.housekeeping_failed();
            if self.logged_failures.should_log(&it.id, &error, Instant::now()) {
                tracing::warn!(job = %it.id, error = format!("{error:#}"), "cannot cancel a job after its fetch timeout");
            }
        });
        let done = done.await;
        let is_last = done == due.len() && due.len() < PASS_ITEMS as usize;
        self.after = done.checked_sub(1).and_then(|last| due.get(last).cloned()).filter(|_| !is_last);
        Ok(if is_last { Progress::Done } else { Progress::More })
    }
}
