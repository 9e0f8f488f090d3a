//! Export of the spans of jobs and of the server itself, if a collector is set.

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::Duration;

use sqlflow_job::Job;
use sqlflow_telemetry::live::Pipeline;
use sqlflow_telemetry::{Settings, SpanData};

use crate::metrics::Metrics;
use crate::telemetry::SERVICE;

/// Variables that concern the server's process, and are not passed to agents.
const SERVERS_OWN: [&str; 2] = ["OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"];
/// Ends of the names of variables that are about files of the server, for any signal.
const SERVERS_FILES: [&str; 2] = ["_CERTIFICATE", "_CLIENT_KEY"];

/// Exports spans, if a collector is set.
#[derive(Clone, Default)]
pub struct Tracer(Option<Pipeline>);

impl Tracer {
    /// Starts the export that the variables configure. Must be called in a Tokio runtime.
    ///
    /// # Errors
    /// A malformed variable, which the message names.
    pub fn from_variables(get: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let settings = Settings::from_variables(get)?;
        settings.map(|it| Pipeline::start(SERVICE, it)).transpose().map(Self)
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

    /// Waits for the remaining spans for at most this time.
    pub async fn finish(self, timeout: Duration) {
        if let Some(pipeline) = self.0 {
            pipeline.finish(timeout).await;
        }
    }
}

/// Settings for agents and submitters, which send spans of the same jobs, by variable name.
#[must_use]
pub fn variables_of_agents() -> HashMap<String, String> {
    agent_variables(std::env::vars_os())
}

/// Variables that are not UTF-8 are left out: no setting of the SDK is.
fn agent_variables(all: impl Iterator<Item = (OsString, OsString)>) -> HashMap<String, String> {
    let is_file = |name: &str| SERVERS_FILES.iter().any(|it| name.ends_with(it));
    let is_for_agents =
        |name: &str| name.starts_with("OTEL_") && !SERVERS_OWN.contains(&name) && !is_file(name);
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
            variable("OTEL_EXPORTER_OTLP_CERTIFICATE", b"/etc/ca.pem"),
            variable("OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY", b"/etc/key.pem"),
            variable("PATH", b"/bin"),
            variable("OTEL_EXPORTER_OTLP_HEADERS", b"not UTF-8: \xff"),
            variable("LOCALE", b"\xff"),
        ];
        let expected = HashMap::from([("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), "http://host".to_owned())]);
        assert_eq!(agent_variables(all.into_iter()), expected);
    }
}
