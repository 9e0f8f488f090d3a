//! One periodic task.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Pause between two passes of unfinished work, so that other users of the store get their turn.
const SHORT_PAUSE: Duration = Duration::from_millis(100);

/// Periodic work.
#[async_trait]
pub(super) trait Work: Send + 'static {
    /// Does the due work, within bounds.
    async fn pass(&mut self) -> anyhow::Result<Progress>;
}

/// Result of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// All due work is done.
    Done,
    /// The pass reached its bounds; the next one continues.
    More,
}

/// Periodic work with its name and period. Its passes and their durations are counted under that name.
pub(super) struct Task {
    pub(super) name: &'static str,
    pub(super) period: Duration,
    pub(super) work: Box<dyn Work>,
    pub(super) metrics: Metrics,
}

impl Task {
    /// Runs until shutdown. A pass that fails or panics is reported, and the next one runs when it is due.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let begun = Instant::now();
            let progress = tokio::select! {
                progress = self.pass() => progress,
                () = shutdown.cancelled() => return,
            };
            self.metrics.note_housekeeping(self.name, begun.elapsed());
            let next = match progress {
                Progress::Done => begun + self.period,
                Progress::More => Instant::now() + SHORT_PAUSE,
            };
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn pass(&mut self) -> Progress {
        match AssertUnwindSafe(self.work.pass()).catch_unwind().await {
            Ok(Ok(progress)) => progress,
            Ok(Err(error)) => {
                self.metrics.housekeeping_failed();
                tracing::warn!(
                    task = self.name,
                    error = format!("{error:#}"),
                    "housekeeping failed; will try again"
                );
                Progress::Done
            }
            // The panic's message was logged already.
            Err(_) => {
                self.metrics.housekeeping_failed();
                tracing::error!(task = self.name, "housekeeping panicked; will try again");
                Progress::Done
            }
        }
    }
}
