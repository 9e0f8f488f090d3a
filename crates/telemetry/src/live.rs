//! Spans of a long-running program: a queue that never blocks, and *live* spans of the program's own work, which come from
//! `tracing`.
//!
//! Live spans form traces of their own, with links to jobs' traces. If a program is killed, its open spans are lost. As
//! children of a job's span, they would leave a gap in the job's trace.

use std::sync::Arc;
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

use crate::backlog::Backlog;
use crate::{Batch, Exporter, Sampling, Settings, Signal, TraceContext};

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
    ///
    /// # Errors
    /// As [`Exporter::new`].
    pub fn start(service: &'static str, settings: Settings) -> anyhow::Result<Self> {
        let (batching, sampling) = (settings.batching.clone(), settings.sampling.clone());
        let exporter = Exporter::new(settings.with_max_timeout(batching.export_timeout))?;
        let backlog = Arc::new(Backlog::new(Signal::Traces, batching.max_queue_size));
        let sending =
            QueueExporter { service, exporter, runtime: Handle::current(), backlog: Arc::clone(&backlog) };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(batching.max_queue_size)
            .with_max_export_batch_size(batching.max_export_batch_size)
            .with_scheduled_delay(batching.schedule_delay)
            .build();
        let processor = BatchSpanProcessor::builder(sending).with_batch_config(config).build();
        let queue = Queue { processor: Arc::new(processor), backlog };
        let provider = SdkTracerProvider::builder()
            .with_sampler(sampling.sampler())
            .with_span_processor(queue.clone())
            .build();
        Ok(Self(Arc::new(Shared { service, queue, provider, sampling })))
    }

    /// Sets the function that counts lost spans.
    pub fn count_losses(&self, count: impl Fn(usize) + Send + Sync + 'static) {
        self.0.queue.backlog.losses.set_counter(count);
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
        let shutdown = move || drop(queue.processor.shutdown_with_timeout(timeout));
        self.0.queue.backlog.end(timeout, shutdown).await;
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
    backlog: Arc<Backlog>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.backlog.admit().is_some() {
            self.processor.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.processor.shutdown_with_timeout(timeout)
    }
}

/// Exports batches of the SDK's queue.
#[derive(Debug)]
struct QueueExporter {
    service: &'static str,
    exporter: Exporter,
    runtime: Handle,
    backlog: Arc<Backlog>,
}

impl SpanExporter for QueueExporter {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        let (count, exporter) = (spans.len(), self.exporter.clone());
        let batch = Batch { service: self.service, spans, ..Batch::default() };
        let export = async move { exporter.export(vec![batch]).await.map_err(Into::into) };
        self.backlog.send(&self.runtime, count, export).await;
        Ok(())
    }
}
