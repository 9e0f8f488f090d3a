//! In place of `exporter`, for a program without the feature `otlp`.

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

/// Spans that did not arrive.
#[derive(Debug, Error)]
#[error("{reason}")]
pub struct Lost {
    /// Their number.
    pub spans: usize,
    /// Why, in one sentence.
    pub reason: String,
}

impl Exporter {
    /// # Errors
    /// Always.
    pub fn new(_: Settings, _: Vec<KeyValue>) -> anyhow::Result<Self> {
        anyhow::bail!("this program was built without OTLP")
    }

    /// # Errors
    /// None.
    pub async fn export(&self, _: Vec<Batch>) -> Result<(), Lost> {
        Ok(())
    }
}
