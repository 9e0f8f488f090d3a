//! Spans, by OTLP over gRPC.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span, status};
use sqlflow_proto::agent::{Outcome, Phase, outcome::Reason};
use tonic::transport::Endpoint;

use super::Trace;
use super::context::TraceContext;
use crate::ship::now_unix_micros;

/// For all of it.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn send(trace: &Trace, command: &[String], outcome: &Outcome) {
    if !trace.attempt.is_sampled() {
        return;
    }
    let request = request(trace, command, outcome);
    let sent = async {
        let channel = Endpoint::from_shared(trace.collector.clone())?.connect().await?;
        TraceServiceClient::new(channel).export(request).await?;
        anyhow::Ok(())
    };
    match tokio::time::timeout(PATIENCE, sent).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("spans are lost: {error:#}"),
        Err(_) => tracing::warn!("spans are lost: the collector did not answer in time"),
    }
}

fn request(trace: &Trace, command: &[String], outcome: &Outcome) -> ExportTraceServiceRequest {
    let service = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "sqlflow-agent".to_owned());
    let scope = InstrumentationScope {
        name: "sqlflow-agent".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_spans =
        ScopeSpans { scope: Some(scope), spans: spans(trace, command, outcome), ..ScopeSpans::default() };
    let resource = Resource { attributes: vec![text("service.name", service)], ..Resource::default() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        }],
    }
}

/// The phases follow each other without a gap, and the last of them ends now.
fn spans(trace: &Trace, command: &[String], outcome: &Outcome) -> Vec<Span> {
    let micros = |duration: u64| i64::try_from(duration).unwrap_or(i64::MAX);
    let begin = now_unix_micros() - outcome.phases.iter().map(|it| micros(it.duration_micros)).sum::<i64>();
    let mut spans = Vec::new();
    let mut at = begin;
    for phase in &outcome.phases {
        let end = at + micros(phase.duration_micros);
        let (name, context) = match phase.phase() {
            Phase::Fetching => ("fetch", trace.attempt.child()),
            Phase::Running => ("run", trace.run),
            Phase::Draining => ("drain", trace.attempt.child()),
            Phase::Publishing => ("publish", trace.attempt.child()),
            Phase::Reporting | Phase::Unspecified => ("report", trace.attempt.child()),
        };
        spans.push(one(name, context, Some(trace.attempt), at, end));
        at = end;
    }
    let mut attempt = one("attempt", trace.attempt, trace.parent, begin, at);
    let reason = outcome.reason().as_str_name().trim_start_matches("REASON_").to_lowercase();
    attempt.attributes.push(text("sqlflow.outcome.reason", reason));
    attempt.attributes.push(text("process.command", command.first().cloned().unwrap_or_default()));
    if let Some(code) = outcome.exit_code {
        attempt.attributes.push(number("process.exit.code", code.into()));
    }
    if outcome.reason() != Reason::Succeeded {
        attempt.status =
            Some(Status { code: status::StatusCode::Error.into(), message: outcome.message.clone() });
    }
    spans.push(attempt);
    spans
}

fn one(name: &str, context: TraceContext, parent: Option<TraceContext>, begin: i64, end: i64) -> Span {
    let nanos = |micros: i64| micros.unsigned_abs() * 1000;
    Span {
        trace_id: context.trace_id.to_vec(),
        span_id: context.span_id.to_vec(),
        parent_span_id: parent.map(|it| it.span_id.to_vec()).unwrap_or_default(),
        name: name.to_owned(),
        kind: span::SpanKind::Internal.into(),
        start_time_unix_nano: nanos(begin),
        end_time_unix_nano: nanos(end),
        ..Span::default()
    }
}

fn text(key: &str, value: String) -> KeyValue {
    attribute(key, Value::StringValue(value))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
