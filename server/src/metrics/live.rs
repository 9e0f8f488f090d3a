//! Live spans of the server's own work, by OpenTelemetry's semantic conventions. They cost nothing without a collector:
//! then no layer wants their target.

use sqlflow_job::JobId;
use sqlflow_telemetry::live::{PART, ROOT};
use tonic::Code;
use tracing::Span;
use tracing::field::Empty;

use super::code_name;

/// A call of the clients' service.
pub(super) fn call(method: &'static str) -> Span {
    tracing::info_span!(
        target: ROOT,
        parent: None,
        "call",
        otel.name = format!("sqlflow.v1.SQLFlow/{method}"),
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system.name = "grpc",
        rpc.method = format!("sqlflow.v1.SQLFlow/{method}"),
        rpc.response.status_code = Empty,
        error.r#type = Empty,
    )
}

/// Adds how the call ended. By the conventions only some codes are the server's failures.
pub(super) fn answered(span: &Span, code: Code) {
    if span.is_disabled() {
        return;
    }
    span.record("rpc.response.status_code", code_name(code).to_uppercase());
    match code {
        Code::Unknown
        | Code::DeadlineExceeded
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => failed(span, &code_name(code).to_uppercase()),
        _ => {}
    }
}

/// A pass of a job's reconciler.
pub(crate) fn pass(id: &JobId) -> Span {
    tracing::info_span!(target: ROOT, parent: None, "reconcile", sqlflow.reconciled = %id)
}

/// A transaction of the store, below a live span.
pub(super) fn store(operation: &'static str) -> Span {
    tracing::info_span!(
        target: PART,
        "store",
        otel.name = operation,
        otel.kind = "client",
        otel.status_code = Empty,
        db.system.name = "sqlite",
        db.namespace = "state.db",
        db.operation.name = operation,
        error.r#type = Empty,
    )
}

/// Marks the span as failed.
pub(super) fn failed(span: &Span, error_type: &str) {
    span.record("error.type", error_type);
    span.record("otel.status_code", "ERROR");
}
