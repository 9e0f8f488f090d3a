//! Spans on their way to a collector, by OTLP over gRPC, as the standard variables `OTEL_*` say.

use std::time::Duration;

use anyhow::{Context as _, bail};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{self as wire, ResourceSpans, ScopeSpans, Status, status};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::{Kind, Span, Value};

/// The specification's default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends spans to a collector.
#[derive(Debug, Clone)]
pub struct Exporter {
    collector: Endpoint,
    headers: Vec<(MetadataKey<Ascii>, MetadataValue<Ascii>)>,
    timeout: Duration,
    /// Of `OTEL_RESOURCE_ATTRIBUTES`.
    resource: Vec<KeyValue>,
    service: Option<String>,
}

impl Exporter {
    /// To this collector, with everything else as the variables say that `get` gives.
    ///
    /// # Errors
    /// A variable that cannot be understood, in one sentence.
    pub fn to(collector: &str, get: &impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let either = |name: &str| {
            get(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
                .or_else(|| get(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        let mut endpoint = Endpoint::from_shared(collector.to_owned())
            .with_context(|| format!("{collector:?} is no collector, such as http://host:4317"))?;
        if collector.starts_with("https://") {
            let mut tls = ClientTlsConfig::new();
            if let Some(file) = either("CERTIFICATE") {
                let pem = std::fs::read(&file).with_context(|| format!("cannot read {file}"))?;
                tls = tls.ca_certificate(Certificate::from_pem(pem));
            }
            endpoint = endpoint.tls_config(tls)?;
        }
        let timeout = match either("TIMEOUT") {
            Some(text) => Duration::from_millis(
                text.parse().context("OTEL_EXPORTER_OTLP_TIMEOUT is a number of milliseconds")?,
            ),
            None => TIMEOUT,
        };
        let header = |(name, value): (String, String)| {
            let name = name.to_lowercase().parse::<MetadataKey<Ascii>>();
            // Nothing prints the value: it may be a key.
            let value = value.parse::<MetadataValue<Ascii>>();
            let mut value = value.context("a value in OTEL_EXPORTER_OTLP_HEADERS cannot be sent")?;
            value.set_sensitive(true);
            Ok((name.context("a name in OTEL_EXPORTER_OTLP_HEADERS cannot be sent")?, value))
        };
        let headers = pairs(&either("HEADERS").unwrap_or_default());
        let resource = pairs(&get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default());
        Ok(Self {
            collector: endpoint.timeout(timeout).connect_timeout(timeout),
            headers: headers.into_iter().map(header).collect::<anyhow::Result<_>>()?,
            timeout,
            service: get("OTEL_SERVICE_NAME"),
            resource: resource.into_iter().map(|(key, value)| attribute(&key, &Value::Text(value))).collect(),
        })
    }

    /// As the variables say that `get` gives; `None`: they name no collector, or want no spans.
    ///
    /// # Errors
    /// A variable that cannot be understood, in one sentence.
    pub fn from_env(get: &impl Fn(&str) -> Option<String>) -> anyhow::Result<Option<Self>> {
        let is = |name: &str, value: &str| get(name).is_some_and(|it| it.eq_ignore_ascii_case(value));
        if is("OTEL_SDK_DISABLED", "true")
            || is("OTEL_TRACES_EXPORTER", "none")
            || is("OTEL_TRACES_SAMPLER", "always_off")
        {
            return Ok(None);
        }
        let collector =
            get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| get("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let Some(collector) = collector.filter(|it| !it.is_empty()) else { return Ok(None) };
        // The port of another protocol could not parse the bytes.
        let names = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
        let set = names.into_iter().find_map(|name| Some((name, get(name)?)));
        if let Some((name, protocol)) = set.filter(|(_, it)| it.starts_with("http")) {
            bail!(
                "cannot send spans by {protocol}: only grpc is supported; set {name}=grpc, and the port for it"
            );
        }
        Self::to(&collector, get).map(Some)
    }

    /// The same, with no more than this for a request.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = self.timeout.min(timeout);
        self
    }

    /// Sends the spans that are to be kept, each group under the name of its service (unless `OTEL_SERVICE_NAME` gives
    /// one), and waits for the answer.
    ///
    /// # Errors
    /// The collector's, or that it did not answer in time.
    pub async fn send(&self, groups: Vec<(&'static str, Vec<Span>)>) -> anyhow::Result<()> {
        let groups = groups.into_iter().filter_map(|(service, spans)| {
            let spans: Vec<_> = spans.iter().filter(|it| it.context.is_sampled()).map(wire_span).collect();
            (!spans.is_empty()).then(|| self.group(service, spans))
        });
        let resource_spans: Vec<_> = groups.collect();
        if resource_spans.is_empty() {
            return Ok(());
        }
        let mut request = Request::new(ExportTraceServiceRequest { resource_spans });
        for (name, value) in &self.headers {
            request.metadata_mut().insert(name.clone(), value.clone());
        }
        let sent = async {
            let channel = self.collector.connect().await?;
            TraceServiceClient::new(channel).export(request).await?;
            anyhow::Ok(())
        };
        tokio::time::timeout(self.timeout, sent).await.context("the collector did not answer in time")?
    }

    fn group(&self, service: &'static str, spans: Vec<wire::Span>) -> ResourceSpans {
        let name = self.service.clone().unwrap_or_else(|| service.to_owned());
        let mut attributes = vec![attribute("service.name", &Value::Text(name))];
        attributes.extend(self.resource.iter().filter(|it| it.key != "service.name").cloned());
        let scope = InstrumentationScope {
            name: service.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }
    }
}

/// `key=value,key=value`, percent-encoded as W3C Baggage is.
fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        Some((key.trim().to_owned(), percent_decoded(value.trim())))
    };
    text.split(',').filter_map(pair).filter(|(key, _)| !key.is_empty()).collect()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|it| std::str::from_utf8(it).ok());
        let code = digits.and_then(|it| u8::from_str_radix(it, 16).ok()).filter(|_| first == b'%');
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn wire_span(span: &Span) -> wire::Span {
    let kind = match span.kind {
        Kind::Internal => wire::span::SpanKind::Internal,
        Kind::Server => wire::span::SpanKind::Server,
        Kind::Client => wire::span::SpanKind::Client,
    };
    let error = span.error.as_ref();
    wire::Span {
        trace_id: span.context.trace_id.to_vec(),
        span_id: span.context.span_id.to_vec(),
        parent_span_id: span.parent.map(Vec::from).unwrap_or_default(),
        name: span.name.clone(),
        kind: kind.into(),
        start_time_unix_nano: nanos(span.begin_micros),
        end_time_unix_nano: nanos(span.end_micros),
        attributes: attributes(&span.attributes),
        events: span
            .events
            .iter()
            .map(|it| wire::span::Event {
                time_unix_nano: nanos(it.micros),
                name: it.name.clone(),
                attributes: attributes(&it.attributes),
                ..wire::span::Event::default()
            })
            .collect(),
        status: error.map(|why| Status { code: status::StatusCode::Error.into(), message: why.clone() }),
        ..wire::Span::default()
    }
}

fn nanos(micros: i64) -> u64 {
    micros.unsigned_abs().saturating_mul(1000)
}

fn attributes(all: &[(String, Value)]) -> Vec<KeyValue> {
    all.iter().map(|(key, value)| attribute(key, value)).collect()
}

fn attribute(key: &str, value: &Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text.clone()),
        Value::Integer(number) => any_value::Value::IntValue(*number),
        Value::Number(number) => any_value::Value::DoubleValue(*number),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn the_standard_variables_are_obeyed() {
        let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://host:4317");
        let given = |more: (&'static str, &'static str)| Exporter::from_env(&env(&[collector, more]));
        assert!(Exporter::from_env(&env(&[])).unwrap().is_none());
        for off in [
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_TRACES_SAMPLER", "always_off"),
        ] {
            assert!(given(off).unwrap().is_none(), "{off:?}");
        }
        let headers = given(("OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=a%20b, x=y")).unwrap().unwrap().headers;
        assert_eq!(headers[0].1.to_str().unwrap(), "a b");
        assert_eq!(headers.len(), 2);
        assert!(!format!("{headers:?}").contains("a b"), "a key is printed");
        let resource = given(("OTEL_RESOURCE_ATTRIBUTES", "team=ml,service.name=x")).unwrap().unwrap();
        assert_eq!(resource.resource.len(), 2);
        let timeout = given(("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "500")).unwrap().unwrap().timeout;
        assert_eq!(timeout, Duration::from_millis(500));
        assert!(given(("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")).is_err());
        assert!(Exporter::from_env(&env(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url")])).is_err());
        assert!(given(("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")).is_err());
        assert!(given(("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")).unwrap().is_some());
        assert!(Exporter::from_env(&env(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")])).unwrap().is_none());
    }

    #[test]
    fn percent_signs_that_are_none_stay() {
        assert_eq!(percent_decoded("100%25 of 5% é%C3%A9"), "100% of 5% éé");
    }
}
