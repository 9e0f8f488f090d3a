//! The client's part of a job's trace: a span from the command's start to its end, when `OTEL_*` names a collector; else
//! the context that the environment gives is passed on as it is.

use std::time::Duration;

use sqlflow_os::clock::now_micros;
use sqlflow_telemetry::{Exporter, Kind, Span, TraceContext};
use tonic::metadata::MetadataMap;

const SERVICE: &str = "sqlflowctl";
/// How long the command's end waits for a collector.
const EXPORT_TIMEOUT: Duration = Duration::from_millis(1500);

/// A command that is traced.
pub(crate) struct Trace {
    exporter: Option<Exporter>,
    parent: Option<TraceContext>,
    context: Option<TraceContext>,
    begin_micros: i64,
}

impl Trace {
    /// Begins now.
    ///
    /// # Errors
    /// An `OTEL_*` variable that cannot be understood.
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

    /// Puts it into a call's headers.
    pub(crate) fn inject(&self, headers: &mut MetadataMap) {
        let state = std::env::var("TRACESTATE").ok().filter(|_| self.parent.is_some());
        let parent = self.context.map(|it| it.to_string());
        for (name, value) in [("traceparent", parent), ("tracestate", state)] {
            if let Some(value) = value.and_then(|text| text.parse().ok()) {
                headers.insert(name, value);
            }
        }
    }

    /// Ends now, with an error or well, and sends the span.
    pub(crate) async fn end(self, error: Option<String>) -> anyhow::Result<()> {
        let (Some(exporter), Some(context)) = (self.exporter, self.context) else { return Ok(()) };
        let mut span = Span::new("sqlflowctl run", context, self.parent, (self.begin_micros, now_micros()));
        span.kind = Kind::Client;
        span.error = error;
        exporter.send(vec![(SERVICE, vec![span])]).await
    }
}
