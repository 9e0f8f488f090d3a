//! Spans that are made after the fact, with ids of our own.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Event, SpanId, SpanKind, Status};
use opentelemetry::{InstrumentationScope, Key, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::TraceContext;

/// A span of nothing but its name, its place and its times, in microseconds since the Unix epoch.
#[must_use]
pub fn span(
    name: impl Into<Cow<'static, str>>,
    context: TraceContext,
    parent: Option<TraceContext>,
    (begin_micros, end_micros): (i64, i64),
) -> SpanData {
    SpanData {
        span_context: context.into(),
        parent_span_id: parent.map_or(SpanId::INVALID, |it| SpanId::from_bytes(it.span_id)),
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: name.into(),
        start_time: time(begin_micros),
        // Clocks may be set back.
        end_time: time(end_micros.max(begin_micros)),
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::default(),
    }
}

/// An event of a span, at microseconds since the Unix epoch.
#[must_use]
pub fn event(name: String, micros: i64, attributes: Vec<KeyValue>) -> Event {
    Event::new(name, time(micros), attributes, 0)
}

fn time(micros: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros.max(0).unsigned_abs())
}

/// More about a span.
pub trait Describe {
    /// Adds an attribute.
    #[must_use]
    fn with(self, key: impl Into<Key>, value: impl Into<Value>) -> Self;

    /// Marks the span as failed. The reason is a kind of failure: a message may quote a program and its data.
    #[must_use]
    fn failed(self, reason: impl Into<Cow<'static, str>>) -> Self;

    /// Sets the kind.
    #[must_use]
    fn kind(self, kind: SpanKind) -> Self;
}

impl Describe for SpanData {
    fn with(mut self, key: impl Into<Key>, value: impl Into<Value>) -> Self {
        self.attributes.push(KeyValue::new(key, value));
        self
    }

    fn failed(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.status = Status::error(reason);
        self
    }

    fn kind(mut self, kind: SpanKind) -> Self {
        self.span_kind = kind;
        self
    }
}
