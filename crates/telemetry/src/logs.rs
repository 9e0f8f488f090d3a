//! Log lines of a long-running program, from `tracing`: a queue that never blocks, as for spans.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context as OtelContext, InstrumentationScope};
use opentelemetry_appender_tracing::layer::{OpenTelemetryTracingBridge, TracingSpanAttributes};
use opentelemetry_otlp::LogExporter;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{
    BatchConfigBuilder, BatchLogProcessor, LogBatch, LogExporter as _, LogProcessor, SdkLogRecord,
    SdkLoggerProvider,
};
use tokio::runtime::Handle;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

use crate::backlog::Backlog;
use crate::exporter::Connection;
use crate::{LogSettings, Signal, resource};

/// Libraries that send the log lines. A line of theirs about a request would be sent by a request, of which they log a line.
const TRANSPORT: [&str; 8] =
    ["h2", "hyper", "hyper_rustls", "hyper_util", "reqwest", "rustls", "tonic", "tower"];
/// The same for the crates of OpenTelemetry.
const LIBRARY: &str = "opentelemetry";

/// A queue of log lines for a collector. Clones share it.
#[derive(Debug, Clone)]
pub struct Logs {
    provider: SdkLoggerProvider,
    backlog: Arc<Backlog>,
}

impl Logs {
    /// Starts the export. Must be called in a Tokio runtime.
    ///
    /// Memory: a line and its fields, about 1 kB, for each of at most [`max_queue_size`](crate::Batching::max_queue_size) lines,
    /// those that are being sent included.
    ///
    /// # Errors
    /// A certificate, a key or the endpoint cannot be used. The message names the variable.
    pub fn start(service: &'static str, settings: LogSettings) -> anyhow::Result<Self> {
        let batching = settings.batching;
        let connection = Connection::new(settings.collector)?;
        let mut exporter = connection.exporter(
            || LogExporter::builder().with_tonic(),
            |it| it.build(),
            || LogExporter::builder().with_http(),
            |it| it.build(),
        )?;
        exporter.set_resource(&resource::of_service(service, Vec::new(), &settings.identity));
        let backlog = Arc::new(Backlog::new(Signal::Logs, batching.max_queue_size));
        let sending = QueueExporter {
            exporter: Arc::new((connection, exporter)),
            runtime: Handle::current(),
            backlog: Arc::clone(&backlog),
        };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(batching.max_queue_size)
            .with_max_export_batch_size(batching.max_export_batch_size)
            .with_scheduled_delay(batching.schedule_delay)
            .build();
        let processor = BatchLogProcessor::builder(sending).with_batch_config(config).build();
        let queue = Queue { processor, backlog: Arc::clone(&backlog) };
        let provider = SdkLoggerProvider::builder().with_log_processor(queue).build();
        Ok(Self { provider, backlog })
    }

    /// Sets the function that counts lost log lines.
    pub fn count_losses(&self, count: impl Fn(usize) + Send + Sync + 'static) {
        self.backlog.losses.set_counter(count);
    }

    /// The layer that receives log lines from `tracing`, if the filter lets them pass. Lines of the libraries that send them never
    /// pass.
    ///
    /// The fields `trace_id`, `span_id` and `trace_flags` of a line's spans become its trace context. `fields`, other fields of
    /// them, become its attributes.
    #[must_use]
    pub fn layer<S, F>(&self, filter: F, fields: &[&'static str]) -> impl Layer<S> + use<S, F>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
        F: Filter<S> + 'static,
    {
        let bridge = OpenTelemetryTracingBridge::builder(&self.provider)
            .with_tracing_span_attributes(TracingSpanAttributes::allowlist(fields.iter().copied()))
            .build();
        InTrace(bridge).with_filter(filter.and(filter_fn(|it| !is_of_transport(it.target()))))
    }

    /// Sends the queued lines, and waits for at most this time.
    pub async fn finish(self, timeout: Duration) {
        let provider = self.provider;
        let shutdown = move || drop(provider.shutdown_with_timeout(timeout));
        self.backlog.end(timeout, shutdown).await;
    }
}

fn is_of_transport(target: &str) -> bool {
    let name = target.split("::").next().unwrap_or(target);
    name.starts_with(LIBRARY) || TRANSPORT.contains(&name)
}

/// The SDK's queue, with a count of lost log lines.
#[derive(Debug)]
struct Queue {
    processor: BatchLogProcessor,
    backlog: Arc<Backlog>,
}

impl LogProcessor for Queue {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if self.backlog.admit().is_some() {
            self.processor.emit(record, scope);
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
    exporter: Arc<(Connection, LogExporter)>,
    runtime: Handle,
    backlog: Arc<Backlog>,
}

impl opentelemetry_sdk::logs::LogExporter for QueueExporter {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let records: Vec<_> = batch.iter().map(|(record, scope)| (record.clone(), scope.clone())).collect();
        let (count, shared) = (records.len(), Arc::clone(&self.exporter));
        let export = async move {
            let (connection, exporter) = &*shared;
            let records: Vec<_> = records.iter().map(|(record, scope)| (record, scope)).collect();
            connection.wait(count, exporter.export(LogBatch::new(&records))).await
        };
        self.backlog.send(&self.runtime, count, export).await;
        Ok(())
    }
}

/// Gives each log line the trace context that is in the fields of its spans.
struct InTrace<L>(L);

/// Trace context of a `tracing` span, from its fields.
#[derive(Debug, Clone, Copy, Default)]
struct Ids {
    trace: Option<TraceId>,
    span: Option<SpanId>,
    flags: TraceFlags,
}

impl Ids {
    fn context(self) -> Option<SpanContext> {
        Some(SpanContext::new(self.trace?, self.span?, self.flags, true, TraceState::NONE))
    }
}

impl Visit for Ids {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "trace_id" => self.trace = TraceId::from_hex(value).ok(),
            "span_id" => self.span = SpanId::from_hex(value).ok(),
            "trace_flags" => {
                self.flags = u8::from_str_radix(value, 16).map(TraceFlags::new).unwrap_or_default();
            }
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl<S, L> Layer<S> for InTrace<L>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    L: Layer<S>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut ids = Ids::default();
            attributes.record(&mut ids);
            span.extensions_mut().insert(ids);
        }
        self.0.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(ids) = span.extensions_mut().get_mut::<Ids>()
        {
            values.record(ids);
        }
        self.0.on_record(id, values, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let scope = context.event_scope(event);
        let found = scope.and_then(|mut it| {
            it.find_map(|span| span.extensions().get::<Ids>().copied().and_then(Ids::context))
        });
        // The SDK takes a line's trace context from the current context.
        let _current = found.map(|it| OtelContext::current().with_remote_span_context(it).attach());
        self.0.on_event(event, context);
    }
}
