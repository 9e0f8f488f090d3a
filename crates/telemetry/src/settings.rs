//! Settings of traces, parsed from the `OTEL_*` variables. `docs/observing.md` has the table of all variables.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use opentelemetry::KeyValue;

use crate::variables::{self, Variable, Variables, boolean, choice, duration};
use crate::{Batching, Sampling, SpanLimits, TraceContext};

/// The specification's default.
const TIMEOUT: Duration = Duration::from_secs(10);
const HTTP_PORT: u16 = 4318;
const TRACES_PATH: &str = "/v1/traces";

/// Protocol of the export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, with Protocol Buffers.
    Http,
}

/// Files of a TLS connection to the collector.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates to trust, instead of the system's.
    pub trusted: Option<PathBuf>,
    /// Certificate and key of the client.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Settings of traces.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Complete URL of the collector.
    pub endpoint: Uri,
    /// Transport.
    pub protocol: Protocol,
    /// Headers of each request. Their values may be secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether requests are compressed with gzip.
    pub gzip: bool,
    /// Timeout of an export, its retries included.
    pub timeout: Duration,
    /// Files for TLS.
    pub tls: TlsFiles,
    /// Name of the service, which replaces the program's default.
    pub service: Option<String>,
    /// Attributes of the resource.
    pub resource: Vec<KeyValue>,
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
        let endpoint = variables.exporter("ENDPOINT");
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
        let uri = uri(given, variables)?;
        let protocol = match variables.exporter("PROTOCOL") {
            Some(it) if choice(&it, ["grpc", "http/protobuf"])? == "grpc" => Protocol::Grpc,
            Some(_) => Protocol::Http,
            None if uri.port_u16() == Some(HTTP_PORT) || is_traces_path(&uri) => Protocol::Http,
            None => Protocol::Grpc,
        };
        let gzip = variables.exporter("COMPRESSION").map(|it| choice(&it, ["gzip", "none"])).transpose()?;
        let timeout = variables.exporter("TIMEOUT").map(|it| duration(&it)).transpose()?;
        let timeout = timeout.filter(|it| !it.is_zero()).unwrap_or(TIMEOUT);
        let named = variables.get("OTEL_RESOURCE_ATTRIBUTES");
        let resource = named.map(|it| variables::pairs(&it)).transpose()?.unwrap_or_default();
        let of_resource = |name: &str| resource.iter().find(|(key, _)| key == name).map(|(_, it)| it.clone());
        let service = variables.get("OTEL_SERVICE_NAME").map(|it| it.value);
        Ok(Self {
            endpoint: if protocol == Protocol::Http { http_endpoint(given, uri)? } else { uri },
            protocol,
            headers: variables.exporter("HEADERS").map(|it| headers(&it)).transpose()?.unwrap_or_default(),
            gzip: gzip == Some("gzip"),
            timeout,
            tls: tls(variables)?,
            service: service.or_else(|| of_resource("service.name")),
            resource: resource.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect(),
            sampling: Sampling::of(variables)?,
            limits: SpanLimits::of(variables)?,
            batching: Batching::of(variables)?,
        })
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.endpoint.scheme_str() == Some("https")
    }

    /// Begins a trace with a span of this name, or a part of the parent's trace. The sampler decides whether it is kept.
    #[must_use]
    pub fn begin(&self, name: &str, parent: Option<TraceContext>) -> TraceContext {
        let own = parent.map_or_else(TraceContext::random, |parent| parent.child(name));
        own.sampled(self.sampling.keeps(own, parent))
    }

    /// Limits the timeout of an export to this maximum.
    #[must_use]
    pub fn with_max_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = self.timeout.min(timeout);
        self
    }
}

/// A warning for each variable that is set and not supported. They are no errors, since they may be meant for other programs.
#[must_use]
pub fn unsupported(get: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let all = [
        ("OTEL_CONFIG_FILE", "", "set the variables that it would set"),
        ("OTEL_LOGS_EXPORTER", "none", "log lines go to stderr"),
        ("OTEL_METRICS_EXPORTER", "none", "a collector's Prometheus receiver takes /metrics"),
        ("OTEL_LOG_LEVEL", "", "set RUST_LOG"),
    ];
    let set = |(name, harmless, instead): (&str, &str, &str)| {
        let it = Variables(get).get(name).filter(|it| it.value != harmless)?;
        Some(format!("{}={:?} is not supported; {instead}", it.name, it.value))
    };
    all.into_iter().filter_map(set).collect()
}

/// Parses an endpoint. That of gRPC may lack its scheme, which `OTEL_EXPORTER_OTLP_INSECURE` then decides.
fn uri(given: &Variable, variables: &Variables<'_>) -> anyhow::Result<Uri> {
    let hint = "it is not the URL of a collector, such as http://host:4317";
    let insecure = variables.exporter("INSECURE").map(|it| boolean(&it)).transpose()?.unwrap_or(false);
    let mut text = given.value.clone();
    if !text.contains("://") {
        text = format!("{}://{text}", if insecure { "http" } else { "https" });
    }
    let uri: Uri = text.parse().map_err(|_| given.error(hint))?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    if !is_http || uri.host().is_none_or(str::is_empty) {
        bail!(given.error(hint));
    }
    Ok(uri)
}

fn is_traces_path(uri: &Uri) -> bool {
    uri.path().trim_end_matches('/').ends_with(TRACES_PATH)
}

/// Appends the path of traces to the endpoint of all signals, unless the endpoint has it. An endpoint of traces only is
/// unchanged.
fn http_endpoint(given: &Variable, uri: Uri) -> anyhow::Result<Uri> {
    if given.name.contains("_TRACES_") || is_traces_path(&uri) {
        return Ok(uri);
    }
    let mut parts = uri.into_parts();
    let given_path = parts.path_and_query.as_ref();
    let path = given_path.map_or("", |it| it.path()).trim_end_matches('/');
    let query = given_path.and_then(|it| it.query()).map(|it| format!("?{it}")).unwrap_or_default();
    parts.path_and_query = Some(format!("{path}{TRACES_PATH}{query}").parse()?);
    Uri::from_parts(parts).with_context(|| given.error("it is not a URL"))
}

fn headers(it: &Variable) -> anyhow::Result<Vec<(HeaderName, HeaderValue)>> {
    let header = |(name, value): (String, String)| {
        let name = name
            .to_lowercase()
            .parse()
            .map_err(|_| it.error_without_value(format!("{name:?} is not a header name")))?;
        let value: Result<HeaderValue, _> = value.parse();
        let mut value = value.map_err(|_| it.error_without_value("a value is not allowed in a header"))?;
        value.set_sensitive(true);
        Ok((name, value))
    };
    variables::pairs(it)?.into_iter().map(header).collect()
}

fn tls(variables: &Variables<'_>) -> anyhow::Result<TlsFiles> {
    let file = |setting: &str| variables.exporter(setting);
    let identity = match (file("CLIENT_CERTIFICATE"), file("CLIENT_KEY")) {
        (Some(certificate), Some(key)) => Some((certificate.value.into(), key.value.into())),
        (None, None) => None,
        (Some(it), None) => bail!(it.error_without_value("OTEL_EXPORTER_OTLP_CLIENT_KEY is missing")),
        (None, Some(it)) => bail!(it.error_without_value("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE is missing")),
    };
    Ok(TlsFiles { trusted: file("CERTIFICATE").map(|it| it.value.into()), identity })
}

#[cfg(test)]
mod tests {
    use super::*;

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
                (it.protocol, it.endpoint.to_string().as_str()),
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
        let it = it.unwrap();
        assert_eq!((it.timeout, it.gzip), (Duration::from_millis(500), true));
        assert_eq!(it.clone().with_max_timeout(Duration::from_millis(9)).timeout, Duration::from_millis(9));
        assert_eq!(it.headers.len(), 1);
        assert_eq!((it.headers[0].0.as_str(), it.headers[0].1.to_str().unwrap()), ("api-key", "a b"));
        assert!(!format!("{:?}", it.headers).contains("a b"), "a key is printed");
    }

    #[test]
    fn unsupported_variable_is_reported() {
        let get = |name: &str| match name {
            "OTEL_LOGS_EXPORTER" => Some("otlp".to_owned()),
            "OTEL_METRICS_EXPORTER" => Some("none".to_owned()),
            _ => None,
        };
        assert_eq!(
            unsupported(&get),
            ["OTEL_LOGS_EXPORTER=\"otlp\" is not supported; log lines go to stderr"]
        );
    }

    #[test]
    fn service_name_overrides_the_resource_attribute() {
        let resource = ("OTEL_RESOURCE_ATTRIBUTES", "team=ml,service.name=x");
        let it = settings(&[(ENDPOINT, "http://host"), resource]).unwrap();
        assert_eq!((it.service.as_deref(), it.resource.len()), (Some("x"), 2));
        let it = settings(&[(ENDPOINT, "http://host"), resource, ("OTEL_SERVICE_NAME", "y")]).unwrap();
        assert_eq!(it.service.as_deref(), Some("y"));
    }
}
