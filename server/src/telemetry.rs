//! What the server sends to collectors, by the `OTEL_*` variables: spans, and if they ask for it log lines and metrics.

use std::time::Duration;

use anyhow::Context as _;
use sqlflow_telemetry::logs::Logs;
use sqlflow_telemetry::metrics::{Metrics as MetricExport, Running};
use sqlflow_telemetry::{LogSettings, MetricSettings};

use crate::metrics::{Instruments, Metrics};
use crate::trace::Tracer;

/// Name of the service.
pub(crate) const SERVICE: &str = "sqlflow-server";
/// Timeout for everything that is to be sent at the end of the server.
const LAST_TIME: Duration = Duration::from_secs(2);

/// Export of spans, log lines and metrics, as far as they are exported.
#[derive(Default)]
pub struct Telemetry {
    tracer: Tracer,
    logs: Option<Logs>,
    metrics: Option<MetricExport>,
    running: Option<Running>,
}

impl Telemetry {
    /// Starts what the `OTEL_*` variables configure. Must be called in a Tokio runtime.
    ///
    /// # Errors
    /// A malformed variable, which the message names.
    pub fn from_env() -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let tracer =
            Tracer::from_variables(&variable).context("spans cannot be sent as the OTEL_* variables say")?;
        let logs = || LogSettings::from_variables(&variable)?.map(|it| Logs::start(SERVICE, it)).transpose();
        let logs = logs().context("log lines cannot be sent as the OTEL_* variables say")?;
        let metrics = || {
            MetricSettings::from_variables(&variable)?.map(|it| MetricExport::new(SERVICE, it)).transpose()
        };
        let metrics = metrics().context("metrics cannot be sent as the OTEL_* variables say")?;
        Ok(Self { tracer, logs, metrics, running: None })
    }

    /// Export of spans.
    #[must_use]
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Export of log lines.
    #[must_use]
    pub fn logs(&self) -> Option<&Logs> {
        self.logs.as_ref()
    }

    /// The server's metrics. Starts their export. They count what is lost of all signals.
    #[must_use]
    pub fn metrics(&mut self) -> Metrics {
        let export = self.metrics.take();
        let metrics = Metrics::new(export.as_ref().map(MetricExport::meter));
        self.tracer.count_losses(metrics.clone());
        if let Some(logs) = &self.logs {
            let metrics = metrics.clone();
            logs.count_losses(move |count| metrics.log_lines_lost(count));
        }
        self.running = export.map(|export| {
            let counting = metrics.clone();
            export.count_losses(move |count| counting.metric_values_lost(count));
            let mut instruments = Instruments::new(export.meter().clone(), metrics.clone());
            export.start(move || instruments.update())
        });
        metrics
    }

    /// Sends what waits, for a short time.
    pub async fn finish(self) {
        let logs = async {
            if let Some(logs) = self.logs {
                logs.finish(LAST_TIME).await;
            }
        };
        let metrics = async {
            if let Some(running) = self.running {
                running.finish(LAST_TIME).await;
            }
        };
        tokio::join!(self.tracer.finish(LAST_TIME), logs, metrics);
    }
}
