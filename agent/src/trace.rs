//! Spans of an attempt: its phases, and below the phase that ran it the submitter's own spans.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlflow_proto::agent::{self, Outcome, Phase, outcome::Reason};

use sqlflow_os::clock::now_micros;
use sqlflow_telemetry::{Event, Exporter, Span, TraceContext, Value};

/// Timeout for the export at the exit.
const EXPORT_TIMEOUT: Duration = Duration::from_millis(1500);
const AGENT: &str = "sqlflow-agent";
const SUBMITTER: &str = "sqlflow-submitter";
/// Bounds on a submitter's spans: their number, all their events, bytes of a text.
const MAX_SPANS: usize = 512;
const MAX_EVENTS: usize = 4096;
const MAX_TEXT: usize = 256;
/// Attributes of a span or an event.
const MAX_ATTRIBUTES: usize = 16;

/// Spans of an attempt, their place in the trace, and their exporter. Memory: about 4 MB, by the bounds above.
#[derive(Debug, Clone)]
pub struct Trace {
    exporter: Exporter,
    attempt: TraceContext,
    /// Set if this agent sends the attempt's span: then with its parent, if there is one.
    own: Option<Option<TraceContext>>,
    submitter: Vec<Span>,
    events: usize,
}

/// Shared with the reader of the channel, which adds spans.
pub type SharedTrace = Arc<Mutex<Trace>>;

impl Trace {
    /// For an attempt whose own span a server sends.
    pub fn of_attempt(exporter: Exporter, attempt: TraceContext) -> Self {
        Self {
            exporter: exporter.within(EXPORT_TIMEOUT),
            attempt,
            own: None,
            submitter: Vec::new(),
            events: 0,
        }
    }

    /// For an attempt without a server: below `traceparent`, or in a new trace.
    pub fn alone(exporter: Exporter, traceparent: Option<&str>) -> Self {
        let parent = traceparent.and_then(|text| text.parse::<TraceContext>().ok());
        let unique = format!("attempt {:016x}", rand::random::<u64>());
        let attempt = parent.map_or_else(TraceContext::random, |parent| parent.child(&unique));
        Self { own: Some(parent), ..Self::of_attempt(exporter, attempt) }
    }

    fn run(&self) -> TraceContext {
        self.attempt.child("run")
    }

    /// Trace id.
    pub fn trace_id(&self) -> String {
        self.attempt.trace_name()
    }

    /// `TRACEPARENT` of the command.
    pub fn traceparent(&self) -> String {
        self.run().to_string()
    }

    /// Adds a span that the submitter reports. What exceeds the limits is left out.
    pub fn add(&mut self, statement: Option<u32>, reported: agent::Span) {
        if self.submitter.len() >= MAX_SPANS {
            return;
        }
        let of = |id: u32| self.run().child(&format!("submitter {} {id}", statement.unwrap_or(u32::MAX)));
        let parent = if reported.parent == 0 { self.run() } else { of(reported.parent) };
        let times = (reported.begin_unix_micros, reported.end_unix_micros);
        let mut span = Span::new(cut(reported.name), of(reported.id), Some(parent), times);
        if let Some(statement) = statement {
            span = span.integer("sqlflow.statement", statement.into());
        }
        span.attributes.extend(attributes(reported.attributes));
        span.error = Some(cut(reported.error)).filter(|it| !it.is_empty());
        let room = MAX_EVENTS - self.events;
        let events = reported.events.into_iter().take(room).map(|it| Event {
            name: cut(it.name),
            micros: it.time_unix_micros,
            attributes: attributes(it.attributes).collect(),
        });
        span.events = events.collect();
        self.events += span.events.len();
        self.submitter.push(span);
    }

    /// Sends the spans of an attempt that has just ended. Errors are logged.
    pub async fn export(self, command: &[String], outcome: &Outcome) {
        let agents = self.spans(command, outcome, now_micros());
        let groups = vec![(AGENT, agents), (SUBMITTER, self.submitter)];
        if let Err(error) = self.exporter.send(groups).await {
            tracing::warn!("cannot send spans: {error:#}; the spans are lost");
        }
    }

    /// The phases are contiguous, and the last one ends now.
    fn spans(&self, command: &[String], outcome: &Outcome, now: i64) -> Vec<Span> {
        let micros = |duration: u64| i64::try_from(duration).unwrap_or(i64::MAX);
        let total = outcome.phases.iter().map(|it| micros(it.duration_micros)).sum::<i64>();
        let mut spans = Vec::new();
        let mut at = now - total;
        for phase in &outcome.phases {
            let name = match phase.phase() {
                Phase::Fetching => "fetch",
                Phase::Running => "run",
                Phase::Draining => "drain",
                Phase::Publishing => "publish",
                Phase::Reporting | Phase::Unspecified => "report",
            };
            let end = at + micros(phase.duration_micros);
            let mut span = Span::new(name, self.attempt.child(name), Some(self.attempt), (at, end));
            if name == "run" {
                span = exit(span, command, outcome);
            }
            spans.push(span);
            at = end;
        }
        if let Some(parent) = self.own {
            let attempt = Span::new("attempt", self.attempt, parent, (now - total, at));
            spans.push(exit(attempt, command, outcome));
        }
        spans
    }
}

/// Adds how the command ended.
fn exit(span: Span, command: &[String], outcome: &Outcome) -> Span {
    let reason = outcome.reason().as_str_name().trim_start_matches("REASON_").to_lowercase();
    let mut span = span.text("sqlflow.outcome.reason", reason.clone());
    if let Some(program) = command.first() {
        span = span.text("process.command", program);
    }
    if let Some(code) = outcome.exit_code {
        span = span.integer("process.exit.code", code.into());
    }
    if outcome.reason() != Reason::Succeeded {
        // Not the message: it may quote the program and its data.
        span.error = Some(reason);
    }
    span
}

fn attributes(reported: Vec<agent::Attribute>) -> impl Iterator<Item = (String, Value)> {
    use agent::attribute::Value as Reported;
    reported.into_iter().take(MAX_ATTRIBUTES).filter_map(|it| {
        let value = match it.value? {
            Reported::Text(text) => Value::Text(cut(text)),
            Reported::Integer(number) => Value::Integer(number),
            Reported::Number(number) => Value::Number(number),
        };
        Some((cut(it.key), value))
    })
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace() -> Trace {
        let exporter = Exporter::to("http://127.0.0.1:9", &|_: &str| None).unwrap();
        Trace::of_attempt(exporter, TraceContext::named("attempt"))
    }

    #[test]
    fn spans_of_a_submitter_are_bounded() {
        let mut trace = trace();
        let event = || agent::SpanEvent { name: "é".repeat(1000), ..agent::SpanEvent::default() };
        let span = agent::Span { events: vec![event(); 100], ..agent::Span::default() };
        for id in 1..=1000 {
            trace.add(Some(0), agent::Span { id, ..span.clone() });
        }
        assert_eq!(trace.submitter.len(), MAX_SPANS);
        let events: Vec<_> = trace.submitter.iter().flat_map(|it| &it.events).collect();
        assert_eq!(events.len(), MAX_EVENTS);
        assert!(events.iter().all(|it| it.name.len() <= MAX_TEXT));
    }

    #[test]
    fn span_ids_are_reproducible() {
        let span = |id, parent| agent::Span { id, parent, ..agent::Span::default() };
        let (mut one, mut other) = (trace(), trace());
        for trace in [&mut one, &mut other] {
            trace.add(Some(3), span(1, 0));
            trace.add(Some(3), span(2, 1));
        }
        assert_eq!(one.submitter, other.submitter);
        assert_eq!(one.submitter[0].parent, Some(one.run().span_id));
        assert_eq!(one.submitter[1].parent, Some(one.submitter[0].context.span_id));
    }
}
