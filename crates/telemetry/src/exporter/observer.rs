//! Details of an export that the library reports only as log events: what the collector rejected, and the cause
//! of a failure.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use sqlflow_sync::lock;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Metadata, Subscriber};

use super::Lost;

/// Target of the library's events.
const LIBRARY: &str = "opentelemetry-otlp";

/// Receives the library's events during an export.
#[derive(Debug)]
pub(super) struct Observer {
    seen: Arc<Mutex<Seen>>,
    dispatch: Dispatch,
}

#[derive(Debug, Default)]
struct Seen {
    rejected: i64,
    message: String,
    cause: Option<String>,
}

impl Observer {
    pub(super) fn new() -> Self {
        let seen = Arc::default();
        // One for all exports, because `tracing` re-evaluates all callsites of the program for each new dispatcher.
        let dispatch = Dispatch::new(Events(Arc::clone(&seen)));
        Self { seen, dispatch }
    }

    pub(super) fn dispatch(&self) -> Dispatch {
        self.dispatch.clone()
    }

    pub(super) fn clear(&self) {
        *lock(&self.seen) = Seen::default();
    }

    /// Rejected items of a partial success.
    pub(super) fn rejected(&self) -> Option<Lost> {
        let seen = lock(&self.seen);
        let count = usize::try_from(seen.rejected).ok().filter(|it| *it > 0)?;
        Some(Lost { count, reason: format!("the collector rejected them: {}", seen.message) })
    }

    /// Cause of a transport failure.
    pub(super) fn cause(&self) -> Option<String> {
        lock(&self.seen).cause.take()
    }
}

struct Events(Arc<Mutex<Seen>>);

impl Subscriber for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == LIBRARY && metadata.is_event()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut *lock(&self.0));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Seen {
    fn record_i64(&mut self, field: &Field, value: i64) {
        if matches!(field.name(), "rejected_spans" | "rejected_log_records" | "rejected_data_points") {
            self.rejected = value;
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "error_message" => value.clone_into(&mut self.message),
            "error" => self.cause = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}
