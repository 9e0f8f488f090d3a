//! Metrics of a long-running program, sent periodically.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter as _;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Temporality};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

pub use opentelemetry::metrics::{AsyncInstrument, Histogram, Meter};

use crate::exporter::Connection;
use crate::loss_log::LossLog;
use crate::{MetricSettings, Signal, resource};

/// Sends metrics to a collector.
#[derive(Debug)]
pub struct Metrics {
    sender: Sender,
    meter: Meter,
    losses: Arc<LossLog>,
    interval: Duration,
}

impl Metrics {
    /// Prepares the export. Must be called in a Tokio runtime.
    ///
    /// # Errors
    /// A certificate, a key or the endpoint cannot be used. The message names the variable.
    pub fn new(service: &'static str, settings: MetricSettings) -> anyhow::Result<Self> {
        let temporality = settings.temporality;
        let connection = Connection::new(settings.collector)?;
        let exporter = connection.exporter(
            || MetricExporter::builder().with_temporality(temporality).with_tonic(),
            |it| it.build(),
            || MetricExporter::builder().with_temporality(temporality).with_http(),
            |it| it.build(),
        )?;
        let reader = Reader(Arc::new(ManualReader::builder().with_temporality(temporality).build()));
        let provider = SdkMeterProvider::builder()
            .with_resource(resource::of_service(service, Vec::new(), &settings.identity))
            .with_reader(reader.clone())
            .build();
        let meter = provider.meter(service);
        let losses = Arc::new(LossLog::new(Signal::Metrics));
        let sender = Sender {
            connection,
            exporter,
            reader,
            _provider: provider,
            waiting: Arc::default(),
            losses: Arc::clone(&losses),
        };
        Ok(Self { sender, meter, losses, interval: settings.interval })
    }

    /// Creates instruments.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Sets the function that counts lost values.
    pub fn count_losses(&self, count: impl Fn(usize) + Send + Sync + 'static) {
        self.losses.set_counter(count);
    }

    /// Starts the export. `prepare` is called before each export; it may create instruments.
    #[must_use]
    pub fn start(self, mut prepare: impl FnMut() + Send + 'static) -> Running {
        let (closing, mut closed) = oneshot::channel();
        let (sender, losses, interval) = (self.sender, self.losses, self.interval);
        let waiting = Arc::clone(&sender.waiting);
        let task = tokio::spawn(async move {
            let mut metrics = ResourceMetrics::default();
            let mut begun = Instant::now();
            loop {
                // Unlike `tokio::time::interval`, it takes any duration.
                let is_last = tokio::select! {
                    () = sleep(interval.saturating_sub(begun.elapsed())) => false,
                    _ = &mut closed => true,
                };
                begun = Instant::now();
                prepare();
                sender.send(&mut metrics).await;
                if is_last {
                    return;
                }
            }
        });
        Running { closing, task, losses, waiting }
    }
}

/// The periodic export.
#[derive(Debug)]
pub struct Running {
    closing: oneshot::Sender<()>,
    task: JoinHandle<()>,
    losses: Arc<LossLog>,
    waiting: Arc<AtomicUsize>,
}

impl Running {
    /// Sends the last values, and waits for at most this time.
    pub async fn finish(mut self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let _ = self.closing.send(());
        if timeout_at(deadline, &mut self.task).await.is_err() {
            self.task.abort();
            let rest = self.waiting.load(Ordering::Relaxed);
            self.losses.add(rest, "the collector did not accept the last ones within the timeout");
        }
        self.losses.flush();
    }
}

#[derive(Debug)]
struct Sender {
    connection: Connection,
    exporter: MetricExporter,
    reader: Reader,
    /// The reader holds it weakly.
    _provider: SdkMeterProvider,
    /// Values that are being sent.
    waiting: Arc<AtomicUsize>,
    losses: Arc<LossLog>,
}

impl Sender {
    async fn send(&self, metrics: &mut ResourceMetrics) {
        if let Err(error) = self.reader.collect(metrics) {
            return self.losses.add(1, &format!("they cannot be collected: {error}"));
        }
        let count = values(metrics);
        if count == 0 {
            return;
        }
        self.waiting.store(count, Ordering::Relaxed);
        let sent = self.connection.wait(count, self.exporter.export(metrics)).await;
        self.waiting.store(0, Ordering::Relaxed);
        if let Err(lost) = sent {
            self.losses.add(lost.count, &lost.reason);
        }
    }
}

/// The number of values.
fn values(metrics: &ResourceMetrics) -> usize {
    fn of<T>(data: &MetricData<T>) -> usize {
        match data {
            MetricData::Gauge(it) => it.data_points().count(),
            MetricData::Sum(it) => it.data_points().count(),
            MetricData::Histogram(it) => it.data_points().count(),
            MetricData::ExponentialHistogram(it) => it.data_points().count(),
        }
    }
    let all = metrics.scope_metrics().flat_map(|it| it.metrics());
    all.map(|it| match it.data() {
        AggregatedMetrics::F64(data) => of(data),
        AggregatedMetrics::U64(data) => of(data),
        AggregatedMetrics::I64(data) => of(data),
    })
    .sum()
}

/// A reader that this module and the SDK's provider share.
#[derive(Debug, Clone)]
struct Reader(Arc<ManualReader>);

impl MetricReader for Reader {
    fn register_pipeline(&self, pipeline: std::sync::Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}
