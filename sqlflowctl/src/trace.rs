//! The client's part of a job's trace: a span of the whole command if `OTEL_*` names a collector; otherwise the trace
//! context of the environment is passed on.

use std::time::Duration;

use sqlflow_os::clock::now_micros;
use sqlflow_telemetry::{
    Batch, ExportError, Exporter, Propagation, Settings, SpanDataExt as _, SpanKind, TraceContext, span,
};
use tonic::metadata::MetadataMap;

const SERVICE: &str = "sqlflowctl";
/// Timeout for the export of spans at the command's end.
const EXPORT_TIMEOUT: Duration = Duration::from_millis(1500);

/// Trace of a command.
pub(crate) struct Trace {
    exporter: Option<Exporter>,
    propagation: Propagation,
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
        let propagation = Propagation::from_variables(&variable)?;
        let settings = Settings::from_variables(&variable)?.map(|it| it.with_max_timeout(EXPORT_TIMEOUT));
        let parent = variable("TRACEPARENT").filter(|_| propagation.trace_context);
        let parent: Option<TraceContext> = parent.and_then(|text| text.parse().ok());
        let Some(settings) = settings else {
            let begin_micros = now_micros();
            return Ok(Self { exporter: None, propagation, parent, context: parent, begin_micros });
        };
        let unique = format!("{:016x}", rand::random::<u64>());
        let own = settings.begin(&format!("sqlflowctl {unique}"), parent);
        let exporter = Exporter::new(settings)?;
        let (context, begin_micros) = (Some(own), now_micros());
        Ok(Self { exporter: Some(exporter), propagation, parent, context, begin_micros })
    }

    /// Adds the context to a call's headers.
    pub(crate) fn inject(&self, headers: &mut MetadataMap) {
        let variable = |name: &str| std::env::var(name).ok();
        let parent = self.context.filter(|_| self.propagation.trace_context).map(|it| it.to_string());
        let state = variable("TRACESTATE").filter(|_| self.parent.is_some());
        let baggage = variable("BAGGAGE").filter(|_| self.propagation.baggage);
        for (name, value) in [("traceparent", parent), ("tracestate", state), ("baggage", baggage)] {
            if let Some(value) = value.and_then(|text| text.parse().ok()) {
                headers.insert(name, value);
            }
        }
    }

    /// Ends the span, with or without an error, and exports it.
    pub(crate) async fn end(self, error: Option<String>) -> Result<(), ExportError> {
        let (Some(exporter), Some(context)) = (self.exporter, self.context) else { return Ok(()) };
        let times = (self.begin_micros, now_micros());
        let span = span("sqlflowctl run", context, self.parent, times).kind(SpanKind::Client);
        let span = match error {
            Some(error) => span.failed(error),
            None => span,
        };
        let batch = Batch { service: SERVICE, spans: vec![span], ..Batch::default() };
        exporter.export(vec![batch]).await
    }
}
