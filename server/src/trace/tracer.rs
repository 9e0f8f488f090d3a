//! Sends spans, beside everything else: whoever has some leaves them here and goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlflow_telemetry::{Exporter, Span};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::metrics::Metrics;

const SERVICE: &str = "sqlflow-server";
/// Spans that wait at the most: some 20 MB. What comes on top is lost, and said to be.
const MAX_WAITING: usize = 65_536;
/// Spans of one request.
const BATCH: usize = 512;
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How long the end of the server waits for a collector.
const LAST_TIME: Duration = Duration::from_secs(2);

/// The way to a collector, if there is one.
#[derive(Clone, Default)]
pub struct Tracer {
    queue: Option<mpsc::UnboundedSender<Vec<Span>>>,
    waiting: Arc<AtomicUsize>,
    metrics: Metrics,
}

/// What sends them.
pub struct Sending(JoinHandle<()>);

impl Tracer {
    /// Sends to this collector from now on. Must be called in a runtime.
    #[must_use]
    pub fn start(exporter: Exporter, metrics: Metrics) -> (Self, Sending) {
        // Bounded by what is counted.
        let (queue, spans) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(send(exporter, spans, Arc::clone(&waiting), metrics.clone()));
        (Self { queue: Some(queue), waiting, metrics }, Sending(task))
    }

    /// Whether anything is sent at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Takes spans to be sent; returns at once.
    pub fn take(&self, mut spans: Vec<Span>) {
        let Some(queue) = &self.queue else { return };
        while !spans.is_empty() {
            let rest = spans.split_off(spans.len().min(BATCH));
            let count = spans.len();
            if self.waiting.fetch_add(count, Ordering::Relaxed) + count > MAX_WAITING {
                self.waiting.fetch_sub(count, Ordering::Relaxed);
                let count = count + rest.len();
                self.metrics.spans_lost(count);
                tracing::warn!(spans = count, "spans are lost: the collector is too slow");
                return;
            }
            let _ = queue.send(spans);
            spans = rest;
        }
    }
}

impl Sending {
    /// Waits a moment for what is still to be sent. Every [`Tracer`] must be gone.
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
                    tracing::warn!(spans = count, "spans are lost: {error:#}");
                }
                Err(error) => {
                    tracing::debug!("the collector did not take spans: {error:#}");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
            }
        }
        waiting.fetch_sub(count, Ordering::Relaxed);
    }
}
