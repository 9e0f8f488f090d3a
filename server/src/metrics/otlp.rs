//! Counters and gauges of the registries as instruments of OpenTelemetry, with the names that Prometheus sees. Histograms are
//! in `timing`.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use prometheus_client::encoding::prometheus_protobuf::encode;
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{
    Metric, MetricFamily, MetricType,
};
use sqlflow_sync::lock;
use sqlflow_telemetry::KeyValue;
use sqlflow_telemetry::metrics::{AsyncInstrument, Meter};

use super::Metrics;

/// Units by the Unified Code for Units of Measure, as the specification requires.
pub(super) const SECONDS: &str = "s";
const BYTES: &str = "By";

/// The values of a moment, by the name of the metric.
type Values = Arc<Mutex<HashMap<String, Vec<Value>>>>;

struct Value {
    attributes: Vec<KeyValue>,
    value: f64,
}

/// Instruments that report the values of the registries.
pub(crate) struct Instruments {
    meter: Meter,
    metrics: Metrics,
    values: Values,
    /// Names of the instruments.
    known: HashSet<String>,
}

impl Instruments {
    pub(crate) fn new(meter: Meter, metrics: Metrics) -> Self {
        Self { meter, metrics, values: Arc::default(), known: HashSet::new() }
    }

    /// Reads the registries. Must be called before each collection. A metric without a value is not in its registry, so
    /// instruments are created as they appear.
    pub(crate) fn update(&mut self) {
        let mut all = HashMap::new();
        for registry in [&self.metrics.0.registry, &self.metrics.0.common] {
            // Only an exemplar could fail, and there is none.
            for family in encode(registry).unwrap_or_default() {
                let values: Vec<_> = family.metric.iter().filter_map(value).collect();
                if values.is_empty() {
                    continue;
                }
                if self.known.insert(family.name.clone()) {
                    self.create(&family);
                }
                all.insert(family.name, values);
            }
        }
        *lock(&self.values) = all;
    }

    fn create(&self, family: &MetricFamily) {
        let (values, name) = (Arc::clone(&self.values), family.name.clone());
        let report = move |observer: &dyn AsyncInstrument<f64>| {
            for it in lock(&values).get(&name).into_iter().flatten() {
                observer.observe(it.value, &it.attributes);
            }
        };
        let (name, help, unit) = (family.name.clone(), family.help.clone(), unit(&family.unit));
        // The meter keeps an instrument.
        if family.r#type() == MetricType::Counter {
            let counter = self.meter.f64_observable_counter(name).with_description(help).with_unit(unit);
            counter.with_callback(report).build();
        } else {
            let gauge = self.meter.f64_observable_gauge(name).with_description(help).with_unit(unit);
            gauge.with_callback(report).build();
        }
    }
}

/// Value of a counter or a gauge.
fn value(metric: &Metric) -> Option<Value> {
    let counter = metric.counter.as_ref().map(|it| it.value);
    let value = counter.or_else(|| metric.gauge.as_ref().map(|it| it.value))?;
    let attributes = metric.label.iter().map(|it| KeyValue::new(it.name.clone(), it.value.clone())).collect();
    Some(Value { attributes, value })
}

fn unit(unit: &str) -> &'static str {
    match unit {
        "seconds" => SECONDS,
        "bytes" => BYTES,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A unit that is not translated would be lost.
    #[test]
    fn every_unit_is_translated() {
        let metrics = Metrics::default();
        metrics.set_jobs(&[]);
        let families = [&metrics.0.registry, &metrics.0.common].map(|it| encode(it).unwrap());
        let units: HashSet<_> = families.iter().flatten().map(|it| it.unit.as_str()).collect();
        assert_eq!(units, HashSet::from(["", "seconds", "bytes"]));
    }
}
