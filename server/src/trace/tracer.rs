//! Exporter task for spans. Callers queue spans and continue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlflow_telemetry::{Exporter, Span};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::metrics::Metrics;

const SERVICE: &str = "sqlflow-server";
/// Maximum number of queued spans, about 20 MB. Further ones are dropped and counted.
const MAX_WAITING: usize = 65_536;
/// Maximum number of spans per request.
const BATCH: usize = 512;
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Timeout for the last spans at the end of the server.
const LAST_TIME: Duration = Duration::from_secs(2);

/// Queue of spans for a collector, if there is one.
#[derive(Clone, Default)]
pub struct Tracer {
    queue: Option<mpsc::UnboundedSender<Vec<Span>>>,
    waiting: Arc<AtomicUsize>,
    metrics: Metrics,
}

/// The exporter task.
pub struct Sending(JoinHandle<()>);

impl Tracer {
    /// Starts exporting to this collector. Must be called in a runtime.
    #[must_use]
    pub fn start(exporter: Exporter, metrics: Metrics) -> (Self, Sending) {
        #[expect(clippy::disallowed_methods, reason = "bounded by the counter")]
        let (queue, spans) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(send(exporter, spans, Arc::clone(&waiting), metrics.clone()));
        (Self { queue: Some(queue), waiting, metrics }, Sending(task))
    }

    /// Whether spans are exported.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Queues spans for export. Does not block.
    pub fn take(&self, mut spans: Vec<Span>) {
        let Some(queue) = &self.queue else { return };
        while !spans.is_empty() {
            let rest = spans.split_off(spans.len().min(BATCH));
            let count = spans.len();
            if self.waiting.fetch_add(count, Ordering::Relaxed) + count > MAX_WAITING {
                self.waiting.fetch_sub(count, Ordering::Relaxed);
                let count = count + rest.len();
                self.metrics.spans_lost(count);
                tracing::warn!(spans = count, "dropped spans: the collector is too slow");
                return;
            }
            let _ = queue.send(spans);
            spans = rest;
        }
    }
}

impl Sending {
    /// Waits shortly for the remaining spans. Every [`Tracer`] must be dropped before.
    pub async fn finish(self) {
        let _ = tokio::time::timeout(LAST_TIME, self.0).await;
    }
}

async fn send(
    exporter: Exporter,
    mut spans: mpsc::UnboundedReceiver<Vec<Span>>,
    waiting: Arc<AtomicUsize>,
    metrics: Metrics,
) {
    while let Some(batch) = spans.recv().await {
        let count = batch.len();
        let mut pause = FIRST_PAUSE;
        for tried in 1..=TRIES {
            match exporter.send(vec![(SERVICE, batch.clone())]).await {
                Ok(()) => break,
                Err(error) if tried == TRIES => {
                    metrics.spans_lost(count);
                    tracing::warn!(
                        spans = count,
                        "dropped spans: cannot send them to the collector: {error:#}"
                    );
                }
                Err(error) => {
                    tracing::debug!("cannot send spans to the collector: {error:#}; will try again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
            }
        }
        waiting.fetch_sub(count, Ordering::Relaxed);
    }
}
