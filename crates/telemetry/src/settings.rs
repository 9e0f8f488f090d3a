//! Settings of each signal, parsed from the `OTEL_*` variables. `docs/observing.md` has the table of all variables.

use std::time::Duration;

use opentelemetry::KeyValue;
#[cfg(feature = "live")]
use opentelemetry_sdk::metrics::Temporality;

use crate::collector::{Collector, Signal};
use crate::variables::{self, Variable, Variables};
use crate::{Batching, Sampling, SpanLimits, TraceContext};

/// The specification's defaults.
#[cfg(feature = "live")]
const METRIC_EXPORT_INTERVAL: Duration = Duration::from_secs(60);
#[cfg(feature = "live")]
const METRIC_EXPORT_TIMEOUT: Duration = Duration::from_secs(30);

/// The service that sends, as variables describe it.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// Its name, which replaces the program's default.
    pub service: Option<String>,
    /// Attributes of the resource.
    pub resource: Vec<KeyValue>,
}

impl Identity {
    fn of(variables: &Variables<'_>) -> anyhow::Result<Self> {
        let named = variables.get("OTEL_RESOURCE_ATTRIBUTES");
        let resource = named.map(|it| variables::pairs(&it)).transpose()?.unwrap_or_default();
        let of_resource = |name: &str| resource.iter().find(|(key, _)| key == name).map(|(_, it)| it.clone());
        let service = variables.get("OTEL_SERVICE_NAME").map(|it| it.value);
        Ok(Self {
            service: service.or_else(|| of_resource("service.name")),
            resource: resource.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect(),
        })
    }
}

/// Settings of traces.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where spans are sent.
    pub collector: Collector,
    /// Who sends them.
    pub identity: Identity,
    /// Sampler of traces.
    pub sampling: Sampling,
    /// Limits of each span.
    pub limits: SpanLimits,
    /// Queue of a long-running program.
    pub batching: Batching,
}

impl Settings {
    /// Parses the variables that `get` returns. `None` if they set no collector, or disable spans.
    ///
    /// # Errors
    /// A variable is malformed. The message names it, and never shows the value of a header.
    pub fn from_variables(get: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Option<Self>> {
        let variables = Variables(get);
        let is_disabled = variables.boolean("OTEL_SDK_DISABLED")?;
        let exporter = variables.choice("OTEL_TRACES_EXPORTER", ["otlp", "none"])?;
        let endpoint = variables.exporter(Signal::Traces, "ENDPOINT");
        if is_disabled || exporter == Some("none") {
            return Ok(None);
        }
        endpoint.map(|it| Self::for_endpoint(&it, &variables)).transpose()
    }

    /// Settings for this collector, with all other settings from the variables that `get` returns.
    ///
    /// # Errors
    /// As [`from_variables`](Self::from_variables).
    pub fn for_collector(url: &str, get: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let given = Variable { name: "--trace".to_owned(), value: url.to_owned() };
        Self::for_endpoint(&given, &Variables(get))
    }

    fn for_endpoint(given: &Variable, variables: &Variables<'_>) -> anyhow::Result<Self> {
        Ok(Self {
            collector: Collector::at(given, Signal::Traces, variables)?,
            identity: Identity::of(variables)?,
            sampling: Sampling::of(variables)?,
            limits: SpanLimits::of(variables)?,
            batching: Batching::of_spans(variables)?,
        })
    }

    /// Begins a trace with a span of this name, or a part of the parent's trace. The sampler decides whether it is kept.
    #[must_use]
    pub fn begin(&self, name: &str, parent: Option<TraceContext>) -> TraceContext {
        let own = parent.map_or_else(TraceContext::random, |parent| parent.child(name));
        own.sampled(self.sampling.keeps(own, parent))
    }

    /// Limits the timeout of an export to this maximum.
    #[must_use]
    pub fn with_max_timeout(self, timeout: Duration) -> Self {
        Self { collector: self.collector.with_max_timeout(timeout), ..self }
    }
}

/// Settings of log lines.
#[cfg(feature = "live")]
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// Where log lines are sent.
    pub collector: Collector,
    /// Who sends them.
    pub identity: Identity,
    /// Their queue.
    pub batching: Batching,
}

#[cfg(feature = "live")]
impl LogSettings {
    /// Parses the variables that `get` returns. `None` unless `OTEL_LOGS_EXPORTER` is `otlp`.
    ///
    /// # Errors
    /// A variable is malformed, or no collector is set. The message names the variable.
    pub fn from_variables(get: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Option<Self>> {
        let variables = Variables(get);
        let Some(collector) = Collector::if_requested(Signal::Logs, &variables)? else { return Ok(None) };
        let batching = Batching::of_log_lines(&variables)?;
        let collector = collector.with_max_timeout(batching.export_timeout);
        Ok(Some(Self { collector, identity: Identity::of(&variables)?, batching }))
    }
}

/// Settings of metrics.
#[cfg(feature = "live")]
#[derive(Debug, Clone)]
pub struct MetricSettings {
    /// Where metrics are sent.
    pub collector: Collector,
    /// Who sends them.
    pub identity: Identity,
    /// Time between two exports.
    pub interval: Duration,
    /// Whether sums are since the start, or since the last export.
    pub temporality: Temporality,
}

#[cfg(feature = "live")]
impl MetricSettings {
    /// Parses the variables that `get` returns. `None` unless `OTEL_METRICS_EXPORTER` is `otlp`.
    ///
    /// # Errors
    /// A variable is malformed, or no collector is set. The message names the variable.
    pub fn from_variables(get: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Option<Self>> {
        let variables = Variables(get);
        let Some(collector) = Collector::if_requested(Signal::Metrics, &variables)? else { return Ok(None) };
        let timeout = variables.positive_duration("OTEL_METRIC_EXPORT_TIMEOUT", METRIC_EXPORT_TIMEOUT)?;
        let preference = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        let temporality = match variables.choice(preference, ["cumulative", "delta", "lowmemory"])? {
            Some("delta") => Temporality::Delta,
            Some("lowmemory") => Temporality::LowMemory,
            _ => Temporality::Cumulative,
        };
        Ok(Some(Self {
            collector: collector.with_max_timeout(timeout),
            identity: Identity::of(&variables)?,
            interval: variables.positive_duration("OTEL_METRIC_EXPORT_INTERVAL", METRIC_EXPORT_INTERVAL)?,
            temporality,
        }))
    }
}

/// A warning for each variable that is set and not supported. They are no errors, since they may be meant for other programs.
#[must_use]
pub fn unsupported(get: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let all = [
        ("OTEL_CONFIG_FILE", "", "set the variables that it would set"),
        ("OTEL_LOG_LEVEL", "", "set RUST_LOG"),
        ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "", "log lines are sent whole"),
        ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "", "log lines are sent whole"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "always_off", "metrics have no exemplars"),
        (
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
            "explicit_bucket_histogram",
            "histograms have the buckets of /metrics",
        ),
    ];
    let set = |(name, harmless, instead): (&str, &str, &str)| {
        let it = Variables(get).get(name).filter(|it| it.value != harmless)?;
        Some(format!("{}={:?} is not supported; {instead}", it.name, it.value))
    };
    all.into_iter().filter_map(set).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

    fn settings(variables: &[(&str, &str)]) -> Option<Settings> {
        let get =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Settings::from_variables(&get).unwrap()
    }

    #[test]
    fn endpoint_and_protocol_follow_the_specification_and_the_port() {
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let grpc = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc");
        for (variables, protocol, endpoint) in [
            (vec![(ENDPOINT, "http://host:4317")], Protocol::Grpc, "http://host:4317/"),
            (vec![(ENDPOINT, "http://host:4318")], Protocol::Http, "http://host:4318/v1/traces"),
            (vec![(ENDPOINT, "http://host:4318/"), http], Protocol::Http, "http://host:4318/v1/traces"),
            (vec![(ENDPOINT, "https://host/otlp/"), http], Protocol::Http, "https://host/otlp/v1/traces"),
            (
                vec![(ENDPOINT, "https://host/otlp?key=1"), http],
                Protocol::Http,
                "https://host/otlp/v1/traces?key=1",
            ),
            (vec![(ENDPOINT, "http://host/v1/traces")], Protocol::Http, "http://host/v1/traces"),
            (vec![(TRACES_ENDPOINT, "http://host/mine"), http], Protocol::Http, "http://host/mine"),
            (vec![(ENDPOINT, "http://host:4318"), http, grpc], Protocol::Grpc, "http://host:4318/"),
            (vec![(ENDPOINT, "host:4317")], Protocol::Grpc, "https://host:4317/"),
            (
                vec![(ENDPOINT, "host:4317"), ("OTEL_EXPORTER_OTLP_INSECURE", "true")],
                Protocol::Grpc,
                "http://host:4317/",
            ),
            (
                vec![(ENDPOINT, "http://other"), (TRACES_ENDPOINT, "http://host")],
                Protocol::Grpc,
                "http://host/",
            ),
        ] {
            let it = settings(&variables).unwrap();
            assert_eq!(
                (it.collector.protocol, it.collector.endpoint.to_string().as_str()),
                (protocol, endpoint),
                "{variables:?}"
            );
        }
    }

    #[test]
    fn no_endpoint_or_a_disabled_sdk_means_no_spans() {
        assert!(settings(&[]).is_none());
        assert!(settings(&[(ENDPOINT, "")]).is_none());
        for off in [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert!(settings(&[(ENDPOINT, "http://host"), off]).is_none(), "{off:?}");
        }
        // Without a collector, other variables are not checked: they may be meant for other programs.
        assert!(settings(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]).is_none());
    }

    #[test]
    fn variable_for_traces_overrides_the_one_for_all_signals() {
        let it = settings(&[
            (ENDPOINT, "http://host"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "500"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "Api-Key=a%20b"),
        ]);
        let it = it.unwrap().collector;
        assert_eq!((it.timeout, it.gzip), (Duration::from_millis(500), true));
        assert_eq!(it.clone().with_max_timeout(Duration::from_millis(9)).timeout, Duration::from_millis(9));
        assert_eq!(it.headers.len(), 1);
        assert_eq!((it.headers[0].0.as_str(), it.headers[0].1.to_str().unwrap()), ("api-key", "a b"));
        assert!(!format!("{:?}", it.headers).contains("a b"), "a key is printed");
    }

    #[test]
    fn unsupported_variable_is_reported() {
        let get = |name: &str| match name {
            "OTEL_LOG_LEVEL" => Some("debug".to_owned()),
            "OTEL_METRICS_EXEMPLAR_FILTER" => Some("always_off".to_owned()),
            _ => None,
        };
        assert_eq!(unsupported(&get), ["OTEL_LOG_LEVEL=\"debug\" is not supported; set RUST_LOG"]);
    }

    #[test]
    fn service_name_overrides_the_resource_attribute() {
        let resource = ("OTEL_RESOURCE_ATTRIBUTES", "team=ml,service.name=x");
        let it = settings(&[(ENDPOINT, "http://host"), resource]).unwrap();
        assert_eq!((it.identity.service.as_deref(), it.identity.resource.len()), (Some("x"), 2));
        let it = settings(&[(ENDPOINT, "http://host"), resource, ("OTEL_SERVICE_NAME", "y")]).unwrap();
        assert_eq!(it.identity.service.as_deref(), Some("y"));
    }
}
