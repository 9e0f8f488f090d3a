//! Spans of a long-running program: a queue that never blocks, and *live* spans of the program's own work, which come from
//! `tracing`.
//!
//! Live spans form traces of their own, with links to jobs' traces. If a program is killed, its open spans are lost. As
//! children of a job's span, they would leave a gap in the job's trace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor,
};
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::loss_log::LossLog;
use crate::{Batch, Exporter, Sampling, TraceContext};

/// Target of live spans that begin a trace. A layer that writes log lines must exclude this target and those below it.
pub const ROOT: &str = "sqlflow_live";
/// Target of live spans that are children of others. Without a parent they are omitted, as in periodic work.
pub const PART: &str = "sqlflow_live::part";
/// Target of the spans of the Kubernetes client's requests, which are children, too.
const KUBERNETES: &str = "kube_client::client::builder";

/// A queue of spans for a collector. Clones share it.
#[derive(Debug, Clone)]
pub struct Pipeline(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    service: &'static str,
    queue: Queue,
    provider: SdkTracerProvider,
    sampling: Sampling,
}

impl Pipeline {
    /// Starts the export. Must be called in a Tokio runtime.
    ///
    /// Memory: about 400 bytes for each span with its attributes. There are at most
    /// [`max_queue_size`](crate::Batching::max_queue_size), those that are being sent included.
    #[must_use]
    pub fn start(service: &'static str, exporter: Exporter) -> Self {
        let settings = exporter.settings().clone();
        let (waiting, losses) = (Arc::new(AtomicUsize::new(0)), Arc::new(LossLog::default()));
        let sending = QueueExporter {
            service,
            exporter,
            runtime: Handle::current(),
            timeout: settings.batching.export_timeout,
            waiting: Arc::clone(&waiting),
            losses: Arc::clone(&losses),
        };
        let batching = &settings.batching;
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(batching.max_queue_size)
            .with_max_export_batch_size(batching.max_export_batch_size)
            .with_scheduled_delay(batching.schedule_delay)
            .build();
        let processor = BatchSpanProcessor::builder(sending).with_batch_config(config).build();
        let (processor, is_closed) = (Arc::new(processor), Arc::default());
        let queue = Queue { processor, waiting, max: batching.max_queue_size, is_closed, losses };
        let provider = SdkTracerProvider::builder()
            .with_sampler(settings.sampling.sampler())
            .with_span_processor(queue.clone())
            .build();
        Self(Arc::new(Shared { service, queue, provider, sampling: settings.sampling }))
    }

    /// Sets the function that counts lost spans.
    pub fn count_losses(&self, count: impl Fn(usize) + Send + Sync + 'static) {
        self.0.queue.losses.set_counter(count);
    }

    /// Queues finished spans. Does not block: if the queue is full, spans are dropped and counted.
    pub fn take(&self, spans: Vec<SpanData>) {
        for span in spans.into_iter().filter(|it| it.span_context.is_sampled()) {
            self.0.queue.on_end(span);
        }
    }

    /// Whether the trace of this span is kept. `parent` is a span of another process.
    #[must_use]
    pub fn keeps(&self, span: TraceContext, parent: Option<TraceContext>) -> bool {
        self.0.sampling.keeps(span, parent)
    }

    /// The layer that receives live spans from `tracing`.
    #[must_use]
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let is_part = |it: &Metadata<'_>| matches!(it.target(), PART | KUBERNETES) && it.is_span();
        let is_root = |it: &Metadata<'_>| it.target() == ROOT;
        let live = dynamic_filter_fn(move |it, context| {
            is_root(it) || is_part(it) && context.lookup_current().is_some()
        });
        let live = live.with_max_level_hint(LevelFilter::DEBUG).with_callsite_filter(move |it| {
            if is_root(it) || is_part(it) { Interest::sometimes() } else { Interest::never() }
        });
        tracing_opentelemetry::layer()
            .with_tracer(self.0.provider.tracer(self.0.service))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_level(false)
            .with_target(false)
            .with_filter(live)
    }

    /// Sends the queued spans, and waits for at most this time.
    pub async fn finish(self, timeout: Duration) {
        let queue = self.0.queue.clone();
        queue.is_closed.store(true, Ordering::Relaxed);
        // The shutdown blocks.
        let ended = tokio::task::spawn_blocking(move || queue.processor.shutdown_with_timeout(timeout));
        let _ = tokio::time::timeout(timeout, ended).await;
        let rest = self.0.queue.waiting.swap(0, Ordering::Relaxed);
        if rest > 0 {
            self.0.queue.losses.add(rest, "the collector did not accept them within the timeout");
        }
        self.0.queue.losses.flush();
    }
}

/// Links a live span to the span of a job or a client.
pub fn link(live: &tracing::Span, to: TraceContext) {
    live.add_link(to.into());
}

/// The SDK's queue, with a count of lost spans.
#[derive(Debug, Clone)]
struct Queue {
    processor: Arc<BatchSpanProcessor>,
    waiting: Arc<AtomicUsize>,
    max: usize,
    is_closed: Arc<AtomicBool>,
    losses: Arc<LossLog>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.is_closed.load(Ordering::Relaxed) {
            // A live span of the shutdown.
            return;
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.losses.add(1, "the collector is too slow");
            return;
        }
        self.processor.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.processor.shutdown_with_timeout(timeout)
    }
}

/// Exports batches of the SDK's queue. The SDK calls it on a thread of its own, outside the Tokio runtime.
#[derive(Debug)]
struct QueueExporter {
    service: &'static str,
    exporter: Exporter,
    runtime: Handle,
    timeout: Duration,
    waiting: Arc<AtomicUsize>,
    losses: Arc<LossLog>,
}

impl SpanExporter for QueueExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let (service, exporter, timeout) = (self.service, self.exporter.clone(), self.timeout);
        let export = async move {
            let export = exporter.export(vec![Batch { service, spans: batch, ..Batch::default() }]);
            tokio::time::timeout(timeout, export).await
        };
        let exported = self.runtime.spawn(export).await;
        let subtract = |waiting: usize| waiting.checked_sub(count);
        if self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract).is_err() {
            // `finish` has counted them as lost.
            return Ok(());
        }
        match exported {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(lost))) => self.losses.add(lost.spans, &lost.reason),
            Ok(Err(_)) => self.losses.add(count, "no response from the collector within the timeout"),
            Err(_) => self.losses.add(count, "the program ends"),
        }
        Ok(())
    }
}
