//! Replaces `exporter` in a program without the feature `otlp`.

use opentelemetry::KeyValue;
use opentelemetry_sdk::trace::SpanData;
use thiserror::Error;

use crate::settings::Settings;

/// Sends nothing.
#[derive(Debug, Clone)]
pub struct Exporter;

/// Spans of one service.
#[derive(Debug, Default)]
pub struct Batch {
    /// Name of the service.
    pub service: &'static str,
    /// Attributes of the service's process.
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

impl Exporter {
    /// Fails.
    ///
    /// # Errors
    /// Always.
    pub fn new(_: Settings, _: Vec<KeyValue>) -> anyhow::Result<Self> {
        anyhow::bail!("this program was built without OTLP")
    }

    /// Does nothing.
    ///
    /// # Errors
    /// Never.
    pub async fn export(&self, _: Vec<Batch>) -> Result<(), ExportError> {
        Ok(())
    }
}
