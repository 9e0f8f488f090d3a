//! The agent's spans: one for the attempt, and one for each of its phases. Sent once, at the end, by OTLP; a collector
//! that is down or slow costs two seconds at most, and never the exit code.
//!
//! `context` is the W3C trace context, `export` makes the spans and sends them (feature `trace`).

mod context;
#[cfg(feature = "trace")]
mod export;

use sqlflow_proto::agent::Outcome;

use context::TraceContext;

/// Where an attempt's spans belong, and where they go.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "trace"), expect(dead_code, reason = "only the export needs all of it"))]
pub struct Trace {
    collector: String,
    /// What the attempt's span is a part of.
    parent: Option<TraceContext>,
    attempt: TraceContext,
    /// The command's spans are a part of this one.
    run: TraceContext,
}

impl Trace {
    /// Spans for this collector, as a part of the trace that `traceparent` names, or of a new one.
    pub fn new(collector: String, traceparent: Option<&str>) -> Self {
        let parent = traceparent.and_then(|text| text.parse::<TraceContext>().ok());
        let attempt = parent.map_or_else(TraceContext::new, TraceContext::child);
        Self { collector, parent, attempt, run: attempt.child() }
    }

    /// `TRACEPARENT` of the command.
    pub fn traceparent(&self) -> String {
        self.run.to_string()
    }

    /// Sends the spans of an attempt that has just ended. Errors are logged.
    #[cfg(feature = "trace")]
    pub async fn export(&self, command: &[String], outcome: &Outcome) {
        export::send(self, command, outcome).await;
    }

    /// This program was built without.
    #[cfg(not(feature = "trace"))]
    pub async fn export(&self, _: &[String], _: &Outcome) {
        tracing::warn!("spans are not sent: this agent was built without the feature `trace`");
    }
}
