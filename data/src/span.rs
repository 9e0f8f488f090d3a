//! The spans of a step, for the trace of its job. The agent exports them.

use std::time::{SystemTime, UNIX_EPOCH};

use sqlflow_proto::agent::{Attribute, Span, attribute::Value};

/// Whether the job is traced.
pub fn is_traced() -> bool {
    std::env::var_os("TRACEPARENT").is_some()
}

/// Microseconds since the Unix epoch.
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

/// The span of a statement.
pub fn statement(begin_unix_micros: i64, error: Option<&str>) -> Span {
    let attribute = |key: &str, value: Value| Attribute { key: key.to_owned(), value: Some(value) };
    Span {
        id: 1,
        name: "statement standard".to_owned(),
        begin_unix_micros,
        end_unix_micros: now(),
        attributes: vec![attribute("process.pid", Value::Integer(std::process::id().into()))],
        error: error.unwrap_or_default().to_owned(),
        ..Span::default()
    }
}
