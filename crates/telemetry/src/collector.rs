//! Where a signal is sent, and how: the `OTEL_EXPORTER_OTLP_*` variables.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};

use crate::variables::{self, Variable, Variables, boolean, choice, duration};

/// The specification's default.
const TIMEOUT: Duration = Duration::from_secs(10);
const HTTP_PORT: u16 = 4318;

/// A kind of telemetry. Each may have a collector of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Log lines.
    Logs,
    /// Values of metrics.
    Metrics,
}

impl Signal {
    const ALL: [Self; 3] = [Self::Traces, Self::Logs, Self::Metrics];

    /// Its part of the names of variables.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Logs => "LOGS",
            Self::Metrics => "METRICS",
        }
    }

    /// Path of its requests over HTTP.
    fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Logs => "/v1/logs",
            Self::Metrics => "/v1/metrics",
        }
    }

    /// What it consists of, for a message.
    #[cfg(feature = "live")]
    pub(crate) fn items(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Logs => "log lines",
            Self::Metrics => "values of metrics",
        }
    }
}

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

/// The collector of a signal.
#[derive(Debug, Clone)]
pub struct Collector {
    /// Complete URL.
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
}

impl Collector {
    /// The collector of a signal that is off by default. `None`: it is off.
    #[cfg(feature = "live")]
    pub(crate) fn if_requested(signal: Signal, variables: &Variables<'_>) -> anyhow::Result<Option<Self>> {
        let is_disabled = variables.boolean("OTEL_SDK_DISABLED")?;
        let exporter = variables.get(&format!("OTEL_{}_EXPORTER", signal.variable()));
        let Some(exporter) = exporter else { return Ok(None) };
        if choice(&exporter, ["otlp", "none"])? == "none" || is_disabled {
            return Ok(None);
        }
        let endpoint = variables.exporter(signal, "ENDPOINT");
        let endpoint = endpoint.with_context(|| exporter.error("set OTEL_EXPORTER_OTLP_ENDPOINT, too"))?;
        Self::at(&endpoint, signal, variables).map(Some)
    }

    /// The collector at this endpoint.
    pub(crate) fn at(given: &Variable, signal: Signal, variables: &Variables<'_>) -> anyhow::Result<Self> {
        let set = |setting: &str| variables.exporter(signal, setting);
        let insecure = set("INSECURE").map(|it| boolean(&it)).transpose()?.unwrap_or(false);
        let uri = uri(given, insecure)?;
        let protocol = match set("PROTOCOL") {
            Some(it) if choice(&it, ["grpc", "http/protobuf"])? == "grpc" => Protocol::Grpc,
            Some(_) => Protocol::Http,
            None if uri.port_u16() == Some(HTTP_PORT) || signal_path(uri.path()).is_some() => Protocol::Http,
            None => Protocol::Grpc,
        };
        let gzip = set("COMPRESSION").map(|it| choice(&it, ["gzip", "none"])).transpose()?;
        let timeout = set("TIMEOUT").map(|it| duration(&it)).transpose()?;
        Ok(Self {
            endpoint: if protocol == Protocol::Http { http_endpoint(given, signal, uri)? } else { uri },
            protocol,
            headers: set("HEADERS").map(|it| headers(&it)).transpose()?.unwrap_or_default(),
            gzip: gzip == Some("gzip"),
            timeout: timeout.filter(|it| !it.is_zero()).unwrap_or(TIMEOUT),
            tls: tls(signal, variables)?,
        })
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.endpoint.scheme_str() == Some("https")
    }

    /// Limits the timeout of an export to this maximum.
    #[must_use]
    pub fn with_max_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = self.timeout.min(timeout);
        self
    }
}

/// Parses an endpoint. That of gRPC may lack its scheme, which `OTEL_EXPORTER_OTLP_INSECURE` then decides.
fn uri(given: &Variable, insecure: bool) -> anyhow::Result<Uri> {
    let hint = "it is not the URL of a collector, such as http://host:4317";
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

/// The signal whose path this is, and what precedes it.
fn signal_path(path: &str) -> Option<(Signal, &str)> {
    let path = path.trim_end_matches('/');
    Signal::ALL.into_iter().find_map(|it| Some((it, path.strip_suffix(it.path())?)))
}

/// Appends the path of the signal to the endpoint of all signals, unless the endpoint has it. That of another signal is
/// replaced. An endpoint of this signal only is unchanged.
fn http_endpoint(given: &Variable, signal: Signal, uri: Uri) -> anyhow::Result<Uri> {
    let path = signal_path(uri.path());
    let is_own = given.name.contains(&format!("_{}_", signal.variable()));
    if is_own || path.is_some_and(|(it, _)| it == signal) {
        return Ok(uri);
    }
    let base = path.map_or_else(|| uri.path().trim_end_matches('/'), |(_, base)| base);
    let query = uri.query().map(|it| format!("?{it}")).unwrap_or_default();
    let whole = format!("{base}{}{query}", signal.path()).parse()?;
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(whole);
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

fn tls(signal: Signal, variables: &Variables<'_>) -> anyhow::Result<TlsFiles> {
    let file = |setting: &str| variables.exporter(signal, setting);
    let identity = match (file("CLIENT_CERTIFICATE"), file("CLIENT_KEY")) {
        (Some(certificate), Some(key)) => Some((certificate.value.into(), key.value.into())),
        (None, None) => None,
        (Some(it), None) => bail!(it.error_without_value("OTEL_EXPORTER_OTLP_CLIENT_KEY is missing")),
        (None, Some(it)) => bail!(it.error_without_value("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE is missing")),
    };
    Ok(TlsFiles { trusted: file("CERTIFICATE").map(|it| it.value.into()), identity })
}
