//! Spans of an attempt: its phases, and below the phase that ran it the submitter's own spans.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlflow_proto::agent::{self, Assignment, Outcome, Phase, outcome::Reason};

use sqlflow_os::clock::now_micros;
use sqlflow_telemetry::{
    Batch, Exporter, KeyValue, Settings, SpanData, SpanDataExt as _, TraceContext, Value, event, span,
};

use crate::supervisor::Program;

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
    submitter: Vec<SpanData>,
    /// What the submitter says of its process: `process.*` in its first span.
    submitter_process: Vec<KeyValue>,
    events: usize,
}

/// Shared with the reader of the channel, which adds spans.
pub type SharedTrace = Arc<Mutex<Trace>>;

impl Trace {
    /// For an attempt whose own span a server sends.
    ///
    /// # Errors
    /// The settings name a file that cannot be used.
    pub fn of_attempt(settings: Settings, attempt: TraceContext) -> anyhow::Result<Self> {
        let exporter = Exporter::new(settings.with_max_timeout(EXPORT_TIMEOUT))?;
        Ok(Self {
            exporter,
            attempt,
            own: None,
            submitter: Vec::new(),
            submitter_process: Vec::new(),
            events: 0,
        })
    }

    /// For an attempt without a server: below `traceparent`, or in a new trace. The sampler decides whether it is kept.
    ///
    /// # Errors
    /// As [`of_attempt`](Self::of_attempt).
    pub fn alone(settings: Settings, traceparent: Option<&str>) -> anyhow::Result<Self> {
        let parent = traceparent.and_then(|text| text.parse::<TraceContext>().ok());
        let unique = format!("attempt {:016x}", rand::random::<u64>());
        let attempt = settings.begin(&unique, parent);
        Ok(Self { own: Some(parent), ..Self::of_attempt(settings, attempt)? })
    }

    /// Of an assignment, with the collector of the agent's environment or of the assignment. `None`: there is no
    /// collector, or the variables are wrong, which is logged.
    pub fn assigned(assignment: &Assignment) -> Option<Self> {
        let attempt = assignment.traceparent.parse().ok()?;
        let variable =
            |name: &str| std::env::var(name).ok().or_else(|| assignment.environment.get(name).cloned());
        Self::from_variables(&variable, |settings| Self::of_attempt(settings, attempt))
    }

    /// Of the variables that `get` returns. `None`: there is no collector, or the variables are wrong, which is logged.
    pub fn from_variables(
        get: &dyn Fn(&str) -> Option<String>,
        create: impl FnOnce(Settings) -> anyhow::Result<Self>,
    ) -> Option<Self> {
        let trace = Settings::from_variables(get).and_then(|it| it.map(create).transpose());
        trace.unwrap_or_else(|error| {
            tracing::warn!("cannot send spans: {error:#}");
            None
        })
    }

    fn run(&self) -> TraceContext {
        self.attempt.child("run")
    }

    /// Trace id.
    pub fn trace_id(&self) -> String {
        self.attempt.trace_id_hex()
    }

    /// `TRACEPARENT` of the command.
    pub fn traceparent(&self) -> String {
        self.run().to_string()
    }

    /// Adds a span that a program reports. What exceeds the limits is left out.
    pub fn add(&mut self, program: Program, statement: Option<u32>, reported: agent::Span) {
        if self.submitter.len() >= MAX_SPANS {
            return;
        }
        // Each program numbers its spans from 1.
        let who = match program {
            Program::Command => "submitter",
            Program::Companion => "companion",
        };
        let of = |id: u32| self.run().child(&format!("{who} {} {id}", statement.unwrap_or(u32::MAX)));
        let parent = if reported.parent == 0 { self.run() } else { of(reported.parent) };
        let times = (reported.begin_unix_micros, reported.end_unix_micros);
        let mut span = span(cut(reported.name), of(reported.id), Some(parent), times);
        if let Some(statement) = statement {
            span = span.with("sqlflow.statement", i64::from(statement));
        }
        let is_of_process = |it: &KeyValue| it.key.as_str().starts_with("process.");
        let (process, own) = attributes(reported.attributes).partition::<Vec<_>, _>(is_of_process);
        span.attributes.extend(own);
        if self.submitter_process.is_empty() && program == Program::Command {
            self.submitter_process = process;
        }
        if !reported.error.is_empty() {
            span = span.failed(cut(reported.error));
        }
        let room = MAX_EVENTS - self.events;
        let events = reported.events.into_iter().take(room);
        let events =
            events.map(|it| event(cut(it.name), it.time_unix_micros, attributes(it.attributes).collect()));
        span.events.events = events.collect();
        self.events += span.events.len();
        self.submitter.push(span);
    }

    /// Sends the spans of an attempt that has just ended. Errors are logged.
    pub async fn export(self, command: &[String], outcome: &Outcome) {
        let agents = self.spans(command, outcome, now_micros());
        let batches = vec![
            Batch { service: AGENT, spans: agents, ..Batch::default() },
            Batch { service: SUBMITTER, process: self.submitter_process, spans: self.submitter },
        ];
        if let Err(lost) = self.exporter.export(batches).await {
            tracing::warn!(spans = lost.spans, "cannot send spans: {lost}; the spans are lost");
        }
    }

    /// The phases are contiguous, and the last one ends now.
    fn spans(&self, command: &[String], outcome: &Outcome, now: i64) -> Vec<SpanData> {
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
            let mut phase = span(name, self.attempt.child(name), Some(self.attempt), (at, end));
            if name == "run" {
                phase = exit(phase, command, outcome);
            }
            spans.push(phase);
            at = end;
        }
        if let Some(parent) = self.own {
            let attempt = span("attempt", self.attempt, parent, (now - total, at));
            spans.push(exit(attempt, command, outcome));
        }
        spans
    }
}

/// Adds how the command ended.
fn exit(span: SpanData, command: &[String], outcome: &Outcome) -> SpanData {
    let reason = outcome.reason().as_str_name().trim_start_matches("REASON_").to_lowercase();
    let mut span = span.with("sqlflow.outcome.reason", reason.clone());
    if let Some(program) = command.first() {
        span = span.with("process.command", program.clone());
    }
    if let Some(code) = outcome.exit_code {
        span = span.with("process.exit.code", i64::from(code));
    }
    // Not the message: it may quote the program and its data.
    if outcome.reason() == Reason::Succeeded { span } else { span.failed(reason) }
}

fn attributes(reported: Vec<agent::Attribute>) -> impl Iterator<Item = KeyValue> {
    use agent::attribute::Value as Reported;
    reported.into_iter().take(MAX_ATTRIBUTES).filter_map(|it| {
        let value = match it.value? {
            Reported::Text(text) => Value::from(cut(text)),
            Reported::Integer(number) => Value::from(number),
            Reported::Number(number) => Value::from(number),
        };
        Some(KeyValue::new(cut(it.key), value))
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
        let settings = Settings::for_collector("http://127.0.0.1:9", &|_: &str| None).unwrap();
        Trace::of_attempt(settings, TraceContext::named("attempt")).unwrap()
    }

    #[test]
    fn spans_of_a_submitter_are_bounded() {
        let mut trace = trace();
        let event = || agent::SpanEvent { name: "é".repeat(1000), ..agent::SpanEvent::default() };
        let span = agent::Span { events: vec![event(); 100], ..agent::Span::default() };
        for id in 1..=1000 {
            trace.add(Program::Command, Some(0), agent::Span { id, ..span.clone() });
        }
        assert_eq!(trace.submitter.len(), MAX_SPANS);
        let events: Vec<_> = trace.submitter.iter().flat_map(|it| &it.events.events).collect();
        assert_eq!(events.len(), MAX_EVENTS);
        assert!(events.iter().all(|it| it.name.len() <= MAX_TEXT));
    }

    #[test]
    fn span_ids_are_reproducible() {
        let span = |id, parent| agent::Span { id, parent, ..agent::Span::default() };
        let (mut one, mut other) = (trace(), trace());
        for trace in [&mut one, &mut other] {
            trace.add(Program::Command, Some(3), span(1, 0));
            trace.add(Program::Command, Some(3), span(2, 1));
            trace.add(Program::Companion, Some(3), span(1, 0));
        }
        assert_eq!(one.submitter, other.submitter);
        assert_eq!(one.submitter[0].parent_span_id.to_bytes(), one.run().span_id);
        assert_eq!(one.submitter[1].parent_span_id, one.submitter[0].span_context.span_id());
        assert_ne!(one.submitter[2].span_context.span_id(), one.submitter[0].span_context.span_id());
    }
}
