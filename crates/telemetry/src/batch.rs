//! What an exporter is given, and what it did not deliver.

use opentelemetry::KeyValue;
use opentelemetry_sdk::trace::SpanData;
use thiserror::Error;

/// Spans of one service.
#[derive(Debug, Default)]
pub struct Batch {
    /// Name of the service, unless `OTEL_SERVICE_NAME` replaces it.
    pub service: &'static str,
    /// Attributes of the service's process, if it is not this one. Only those of a service's first batch are used.
    pub process: Vec<KeyValue>,
    /// The spans.
    pub spans: Vec<SpanData>,
}

/// Spans that the collector did not accept.
#[derive(Debug, Error)]
#[error("{reason}")]
pub struct ExportError {
    /// Their number.
    pub spans: usize,
    /// Reason, for a message.
    pub reason: String,
}
