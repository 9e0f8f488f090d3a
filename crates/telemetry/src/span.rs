//! Spans that are created when they have ended, with derived ids.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Event, SpanId, SpanKind, Status};
use opentelemetry::{InstrumentationScope, Key, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::TraceContext;

/// Creates a span from its name, its ids and its times, in microseconds since the Unix epoch.
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
        // The clock may have been set back meanwhile.
        end_time: time(end_micros.max(begin_micros)),
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::default(),
    }
}

/// Creates an event of a span, at a time in microseconds since the Unix epoch.
#[must_use]
pub fn event(name: String, micros: i64, attributes: Vec<KeyValue>) -> Event {
    Event::new(name, time(micros), attributes, 0)
}

fn time(micros: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros.max(0).unsigned_abs())
}

/// Builder methods for spans.
pub trait SpanDataExt {
    /// Adds an attribute.
    #[must_use]
    fn with(self, key: impl Into<Key>, value: impl Into<Value>) -> Self;

    /// Marks the span as failed. The reason must be a kind of failure, not a message, which may quote a program or its data.
    #[must_use]
    fn failed(self, reason: impl Into<Cow<'static, str>>) -> Self;

    /// Sets the kind.
    #[must_use]
    fn kind(self, kind: SpanKind) -> Self;
}

impl SpanDataExt for SpanData {
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
