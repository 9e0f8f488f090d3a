//! The client's part of a job's trace: a span of the whole command if `OTEL_*` names a collector; otherwise the trace
//! context of the environment is passed on.

use std::time::Duration;

use sqlflow_os::clock::now_micros;
use sqlflow_telemetry::{Exporter, Kind, Span, TraceContext};
use tonic::metadata::MetadataMap;

const SERVICE: &str = "sqlflowctl";
/// Timeout for the export of spans at the command's end.
const EXPORT_TIMEOUT: Duration = Duration::from_millis(1500);

/// Trace of a command.
pub(crate) struct Trace {
    exporter: Option<Exporter>,
    parent: Option<TraceContext>,
    context: Option<TraceContext>,
    begin_micros: i64,
}

impl Trace {
    /// Starts the span.
    ///
    /// # Errors
    /// An `OTEL_*` variable is invalid.
    pub(crate) fn begin() -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let exporter = Exporter::from_env(&variable)?.map(|it| it.within(EXPORT_TIMEOUT));
        let parent: Option<TraceContext> = variable("TRACEPARENT").and_then(|text| text.parse().ok());
        let own = || {
            let unique = format!("sqlflowctl {:016x}", rand::random::<u64>());
            parent.map_or_else(TraceContext::random, |parent| parent.child(&unique))
        };
        let context = if exporter.is_some() { Some(own()) } else { parent };
        Ok(Self { exporter, parent, context, begin_micros: now_micros() })
    }

    /// Adds the trace context to a call's headers.
    pub(crate) fn inject(&self, headers: &mut MetadataMap) {
        let state = std::env::var("TRACESTATE").ok().filter(|_| self.parent.is_some());
        let parent = self.context.map(|it| it.to_string());
        for (name, value) in [("traceparent", parent), ("tracestate", state)] {
            if let Some(value) = value.and_then(|text| text.parse().ok()) {
                headers.insert(name, value);
            }
        }
    }

    /// Ends the span, with or without an error, and exports it.
    pub(crate) async fn end(self, error: Option<String>) -> anyhow::Result<()> {
        let (Some(exporter), Some(context)) = (self.exporter, self.context) else { return Ok(()) };
        let mut span = Span::new("sqlflowctl run", context, self.parent, (self.begin_micros, now_micros()));
        span.kind = Kind::Client;
        span.error = error;
        exporter.send(vec![(SERVICE, vec![span])]).await
    }
}
