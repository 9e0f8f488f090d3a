//! Histograms of durations, for Prometheus and, if metrics are exported, for OpenTelemetry. Each has buckets of its own, with
//! the same bounds: OpenTelemetry's SDK takes observations, no finished histogram.

use std::fmt;
use std::hash::Hash;
use std::sync::OnceLock;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use sqlflow_telemetry::KeyValue;
use sqlflow_telemetry::metrics::{Histogram as OtlpHistogram, Meter};

/// Bucket bounds, each twice or four times the previous one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buckets {
    first: f64,
    factor: f64,
    count: u16,
}

/// 0.5 ms to 8 s: response times.
pub(super) const QUICK: Buckets = Buckets { first: 0.0005, factor: 2.0, count: 15 };
/// 10 ms to 12 days: durations of jobs.
pub(super) const LONG: Buckets = Buckets { first: 0.01, factor: 4.0, count: 14 };

impl Buckets {
    fn bounds(self) -> impl Iterator<Item = f64> {
        exponential_buckets(self.first, self.factor, self.count)
    }
}

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.bounds())
    }
}

/// Where histograms are registered.
pub(super) struct Registries<'a> {
    pub(super) prometheus: &'a mut Registry,
    /// `None`: metrics are not exported.
    pub(super) otlp: Option<&'a Meter>,
}

impl Registries<'_> {
    fn register(
        &mut self,
        name: &str,
        help: &str,
        histogram: impl prometheus_client::registry::Metric,
        Mirror { buckets, otlp }: &Mirror,
    ) {
        self.prometheus.register_with_unit(name, help, Unit::Seconds, histogram);
        if let Some(meter) = self.otlp {
            let mirror = meter
                .f64_histogram(format!("{}_{name}_seconds", super::PREFIX))
                .with_description(format!("{help}."))
                .with_unit(super::otlp::SECONDS)
                .with_boundaries(buckets.bounds().collect());
            let _ = otlp.set(mirror.build());
        }
    }
}

/// The same histogram for OpenTelemetry.
struct Mirror {
    buckets: Buckets,
    otlp: OnceLock<OtlpHistogram<f64>>,
}

impl Mirror {
    fn observe(&self, seconds: f64, attributes: impl FnOnce() -> Vec<KeyValue>) {
        if let Some(histogram) = self.otlp.get() {
            histogram.record(seconds, &attributes());
        }
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").finish_non_exhaustive()
    }
}

/// Labels as OpenTelemetry's attributes.
pub(super) trait Labels:
    EncodeLabelSet + Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static
{
    fn attributes(&self) -> Vec<KeyValue>;
}

/// A histogram for each set of labels.
#[derive(Debug)]
pub(super) struct Timings<L: Labels> {
    family: Family<L, Histogram, Buckets>,
    mirror: Mirror,
}

impl<L: Labels> Timings<L> {
    pub(super) fn new(buckets: Buckets) -> Self {
        let mirror = Mirror { buckets, otlp: OnceLock::new() };
        Self { family: Family::new_with_constructor(buckets), mirror }
    }

    pub(super) fn register(&self, name: &str, help: &str, registries: &mut Registries<'_>) {
        registries.register(name, help, self.family.clone(), &self.mirror);
    }

    pub(super) fn observe(&self, labels: &L, seconds: f64) {
        self.family.get_or_create(labels).observe(seconds);
        self.mirror.observe(seconds, || labels.attributes());
    }
}

/// A histogram without labels.
#[derive(Debug)]
pub(super) struct Timing {
    histogram: Histogram,
    mirror: Mirror,
}

impl Timing {
    pub(super) fn new(buckets: Buckets) -> Self {
        Self { histogram: buckets.new_metric(), mirror: Mirror { buckets, otlp: OnceLock::new() } }
    }

    pub(super) fn register(&self, name: &str, help: &str, registries: &mut Registries<'_>) {
        registries.register(name, help, self.histogram.clone(), &self.mirror);
    }

    pub(super) fn observe(&self, seconds: f64) {
        self.histogram.observe(seconds);
        self.mirror.observe(seconds, Vec::new);
    }
}
