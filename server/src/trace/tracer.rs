//! Export of the spans of jobs and of the server itself, if a collector is set.

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::Duration;

use anyhow::Context as _;
use sqlflow_job::Job;
use sqlflow_telemetry::live::Pipeline;
use sqlflow_telemetry::{Exporter, Settings, SpanData};

use crate::metrics::Metrics;

const SERVICE: &str = "sqlflow-server";
/// Timeout for the last spans at the end of the server.
const LAST_TIME: Duration = Duration::from_secs(2);
/// Variables that concern the server's process or its files, and are not passed to agents.
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
    /// Starts the export that the `OTEL_*` variables configure. Must be called in a Tokio runtime.
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

    /// Counts lost spans in these metrics.
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
        Exporter::new(settings).map(Some)
    };
    exporter().context("spans cannot be sent as the OTEL_* variables say")
}

/// Settings for agents and submitters, which send spans of the same jobs, by variable name.
#[must_use]
pub fn variables_of_agents() -> HashMap<String, String> {
    agent_variables(std::env::vars_os())
}

/// Variables that are not UTF-8 are left out: no setting of the SDK is.
fn agent_variables(all: impl Iterator<Item = (OsString, OsString)>) -> HashMap<String, String> {
    let is_for_agents = |name: &str| name.starts_with("OTEL_") && !SERVERS_OWN.contains(&name);
    let utf8 = all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    utf8.filter(|(name, _)| is_for_agents(name)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn agents_get_the_settings_that_are_not_about_the_server() {
        let variable = |name: &str, value: &[u8]| (OsString::from(name), OsString::from_vec(value.to_vec()));
        let all = [
            variable("OTEL_EXPORTER_OTLP_ENDPOINT", b"http://host"),
            variable("OTEL_SERVICE_NAME", b"server"),
            variable("PATH", b"/bin"),
            variable("OTEL_EXPORTER_OTLP_HEADERS", b"not UTF-8: \xff"),
            variable("LOCALE", b"\xff"),
        ];
        let expected = HashMap::from([("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), "http://host".to_owned())]);
        assert_eq!(agent_variables(all.into_iter()), expected);
    }
}
