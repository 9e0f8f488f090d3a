//! Removes what attempts left behind whose job is over, or that the store knows nothing of.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use futures::FutureExt as _;

use super::bounded::{self, PASS_ITEMS, Reported};
use super::task::{Progress, Work};
use crate::drive::Context;
use crate::job::AttemptId;
use crate::launch::Launcher;

/// Time to list what was left behind.
const LIST_TIME: Duration = Duration::from_secs(60);

/// Something of an attempt, at the launcher that has it.
type Left = (Arc<dyn Launcher>, AttemptId);

pub(super) struct Sweep {
    context: Arc<Context>,
    /// What this round has still to look at.
    left: Vec<Left>,
    reported: Reported<AttemptId>,
}

impl Sweep {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context, left: Vec::new(), reported: Reported::default() }
    }
}

async fn list(context: &Context) -> Vec<Left> {
    let mut left = Vec::new();
    for launcher in context.launchers.all() {
        left.extend(launcher.leftovers().await.into_iter().map(|attempt| (Arc::clone(launcher), attempt)));
    }
    left
}

#[async_trait]
impl Work for Sweep {
    async fn pass(&mut self) -> anyhow::Result<Progress> {
        let context = Arc::clone(&self.context);
        if self.left.is_empty() {
            self.left = tokio::time::timeout(LIST_TIME, list(&context))
                .await
                .context("cannot list what attempts left behind in time")?;
        }
        let clean_up = |(launcher, attempt): Left| {
            let context = Arc::clone(&context);
            async move {
                match context.store.load(&attempt.job).await? {
                    Some(record) if !record.job.state.is_final() => {}
                    Some(_) => launcher.clean_up(&attempt, false).await,
                    None => launcher.clean_up_orphan(&attempt).await,
                }
                Ok(())
            }
            .boxed()
        };
        let next = self.left.split_off(self.left.len().saturating_sub(PASS_ITEMS as usize));
        let done = bounded::each(&next, clean_up, |(_, attempt), error| {
            context.metrics.housekeeping_failed();
            if self.reported.is_new(attempt) {
                tracing::warn!(%attempt, error = format!("{error:#}"), "cannot remove what the attempt left behind");
            }
        });
        let done = done.await;
        self.left.extend(next.into_iter().skip(done));
        Ok(if self.left.is_empty() { Progress::Done } else { Progress::More })
    }
}
