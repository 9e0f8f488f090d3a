//! An attempt's spans: its phases, with the submitter's own in the one that it ran in.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlflow_proto::agent::{self, Outcome, Phase, outcome::Reason};

use sqlflow_os::clock::now_micros;
use sqlflow_telemetry::{Event, Exporter, Span, TraceContext, Value};

/// For all of it, at the exit.
const EXPORT_TIMEOUT: Duration = Duration::from_millis(1500);
const AGENT: &str = "sqlflow-agent";
const SUBMITTER: &str = "sqlflow-submitter";
/// What is kept of a submitter's spans: so many, with so many events together; a text is cut to so many bytes.
const MAX_SPANS: usize = 512;
const MAX_EVENTS: usize = 4096;
const MAX_TEXT: usize = 256;
/// And so many attributes of a span or an event.
const MAX_ATTRIBUTES: usize = 16;

/// Where an attempt's spans belong, and where they go. At most some 4 MB: see the limits above.
#[derive(Debug, Clone)]
pub struct Trace {
    exporter: Exporter,
    attempt: TraceContext,
    /// The attempt's span is sent from here, as a part of this one.
    own: Option<Option<TraceContext>>,
    submitter: Vec<Span>,
    events: usize,
}

/// The reader of the channel adds to it.
pub type SharedTrace = Arc<Mutex<Trace>>;

impl Trace {
    /// Spans of an attempt whose own span a server sends.
    pub fn of_attempt(exporter: Exporter, attempt: TraceContext) -> Self {
        Self {
            exporter: exporter.within(EXPORT_TIMEOUT),
            attempt,
            own: None,
            submitter: Vec::new(),
            events: 0,
        }
    }

    /// Spans of an attempt without a server, as a part of the trace that `traceparent` names, or of a new one.
    pub fn alone(exporter: Exporter, traceparent: Option<&str>) -> Self {
        let parent = traceparent.and_then(|text| text.parse::<TraceContext>().ok());
        let unique = format!("attempt {:016x}", rand::random::<u64>());
        let attempt = parent.map_or_else(TraceContext::random, |parent| parent.child(&unique));
        Self { own: Some(parent), ..Self::of_attempt(exporter, attempt) }
    }

    fn run(&self) -> TraceContext {
        self.attempt.child("run")
    }

    /// The trace, as backends write it.
    pub fn trace_id(&self) -> String {
        self.attempt.trace_name()
    }

    /// `TRACEPARENT` of the command.
    pub fn traceparent(&self) -> String {
        self.run().to_string()
    }

    /// Takes in a span that the submitter tells of. What is beyond the limits is left out.
    pub fn take(&mut self, statement: Option<u32>, told: agent::Span) {
        if self.submitter.len() >= MAX_SPANS {
            return;
        }
        let of = |id: u32| self.run().child(&format!("submitter {} {id}", statement.unwrap_or(u32::MAX)));
        let parent = if told.parent == 0 { self.run() } else { of(told.parent) };
        let times = (told.begin_unix_micros, told.end_unix_micros);
        let mut span = Span::new(cut(told.name), of(told.id), Some(parent), times);
        if let Some(statement) = statement {
            span = span.integer("sqlflow.statement", statement.into());
        }
        span.attributes.extend(attributes(told.attributes));
        span.error = Some(cut(told.error)).filter(|it| !it.is_empty());
        let room = MAX_EVENTS - self.events;
        let events = told.events.into_iter().take(room).map(|it| Event {
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
            tracing::warn!("spans are lost: {error:#}");
        }
    }

    /// The phases follow each other without a gap, and the last of them ends now.
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

/// How the command ended.
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
        // Not the message: it may quote the program and the data.
        span.error = Some(reason);
    }
    span
}

fn attributes(told: Vec<agent::Attribute>) -> impl Iterator<Item = (String, Value)> {
    use agent::attribute::Value as SignaledProcesses;
    told.into_iter().take(MAX_ATTRIBUTES).filter_map(|it| {
        let value = match it.value? {
            SignaledProcesses::Text(text) => Value::Text(cut(text)),
            SignaledProcesses::Integer(number) => Value::Integer(number),
            SignaledProcesses::Number(number) => Value::Number(number),
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
    fn a_submitter_that_tells_without_end_is_kept_within_bounds() {
        let mut trace = trace();
        let event = || agent::SpanEvent { name: "é".repeat(1000), ..agent::SpanEvent::default() };
        let span = agent::Span { events: vec![event(); 100], ..agent::Span::default() };
        for id in 1..=1000 {
            trace.take(Some(0), agent::Span { id, ..span.clone() });
        }
        assert_eq!(trace.submitter.len(), MAX_SPANS);
        let events: Vec<_> = trace.submitter.iter().flat_map(|it| &it.events).collect();
        assert_eq!(events.len(), MAX_EVENTS);
        assert!(events.iter().all(|it| it.name.len() <= MAX_TEXT));
    }

    #[test]
    fn what_is_told_again_has_the_same_id() {
        let told = |id, parent| agent::Span { id, parent, ..agent::Span::default() };
        let (mut one, mut other) = (trace(), trace());
        for trace in [&mut one, &mut other] {
            trace.take(Some(3), told(1, 0));
            trace.take(Some(3), told(2, 1));
        }
        assert_eq!(one.submitter, other.submitter);
        assert_eq!(one.submitter[0].parent, Some(one.run().span_id));
        assert_eq!(one.submitter[1].parent, Some(one.submitter[0].context.span_id));
    }
}
