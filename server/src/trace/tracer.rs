//! Spans of jobs and of the server itself on their way to a collector, if there is one.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use sqlflow_job::Job;
use sqlflow_telemetry::live::Pipeline;
use sqlflow_telemetry::{Exporter, Settings, SpanData, resource};

use crate::metrics::Metrics;

const SERVICE: &str = "sqlflow-server";
/// Timeout for the last spans at the end of the server.
const LAST_TIME: Duration = Duration::from_secs(2);
/// Variables that are about the server's process or its files, and do not go to agents.
const SERVERS_OWN: [&str; 8] = [
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
];

/// Exports spans, if a collector is set.
#[derive(Clone, Default)]
pub struct Tracer(Option<Pipeline>);

impl Tracer {
    /// As the `OTEL_*` variables say. Must be called in a runtime.
    ///
    /// # Errors
    /// A malformed variable, which the message names.
    pub fn from_env() -> anyhow::Result<Self> {
        Ok(Self(exporter()?.map(|exporter| Pipeline::start(SERVICE, exporter))))
    }

    /// The pipeline, if spans are exported.
    #[must_use]
    pub fn pipeline(&self) -> Option<&Pipeline> {
        self.0.as_ref()
    }

    /// Whether spans are exported.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Counts lost spans there.
    pub fn count_losses(&self, metrics: Metrics) {
        if let Some(pipeline) = &self.0 {
            pipeline.count_losses(move |count| metrics.spans_lost(count));
        }
    }

    /// Whether the trace of a new job is kept; `None`: spans are not exported, and nothing is decided.
    #[must_use]
    pub fn samples(&self, job: &Job) -> Option<bool> {
        self.0.as_ref().map(|pipeline| pipeline.keeps(super::run(job), super::client(job)))
    }

    /// Queues spans for export. Does not block.
    pub fn take(&self, spans: Vec<SpanData>) {
        if let Some(pipeline) = &self.0 {
            pipeline.take(spans);
        }
    }

    /// Waits shortly for the remaining spans.
    pub async fn finish(self) {
        if let Some(pipeline) = self.0 {
            pipeline.finish(LAST_TIME).await;
        }
    }
}

/// Exporter of the `OTEL_*` variables, if they name a collector.
///
/// # Errors
/// A malformed variable, which the message names.
pub fn exporter() -> anyhow::Result<Option<Exporter>> {
    let variable = |name: &str| std::env::var(name).ok();
    let exporter = || {
        let Some(settings) = Settings::from_variables(&variable)? else { return Ok(None) };
        let instance = format!("{:016x}", rand::random::<u64>());
        Exporter::new(settings, resource::process(instance, &variable)).map(Some)
    };
    exporter().context("spans cannot be sent as the OTEL_* variables say")
}

/// Settings for agents and submitters, which send spans of the same jobs, by variable name.
#[must_use]
pub fn variables_of_agents() -> HashMap<String, String> {
    let is_theirs = |name: &str| name.starts_with("OTEL_") && !SERVERS_OWN.contains(&name);
    std::env::vars().filter(|(name, _)| is_theirs(name)).collect()
}
