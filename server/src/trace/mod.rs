//! Trace of a job in OpenTelemetry's model: client → Run → step → attempt → the agent's spans → the submitter's.
//!
//! A job's spans are a pure function of its record ([`spans`]). The server that reconciles it sends them at its end,
//! so no span is kept open, and a span that is sent again has the same id. [`Tracer`] sends them.

mod spans;
mod tracer;

use sqlflow_telemetry::TraceContext;

use sqlflow_job::{AttemptId, Job};

pub use spans::spans;
pub use tracer::Tracer;

/// Trace context of the client's span, if there is one.
fn client(job: &Job) -> Option<TraceContext> {
    job.origin.as_ref()?.parent.parse().ok()
}

/// Context of the job's span.
fn run(job: &Job) -> TraceContext {
    let name = format!("sqlflow job {}", job.id);
    client(job).map_or_else(|| TraceContext::named(&name), |client| client.child(&name))
}

fn step(job: &Job, step: u32) -> TraceContext {
    run(job).child(&format!("step {step}"))
}

/// Context of the attempt's span.
#[must_use]
pub fn attempt(job: &Job, id: &AttemptId) -> TraceContext {
    step(job, id.step).child(&format!("attempt {}", id.number))
}

/// Id of the job's trace, as backends write it.
#[must_use]
pub fn id(job: &Job) -> String {
    run(job).trace_name()
}

/// Adds the trace's id to the log lines of the current span, if the job has a trace.
pub fn name_log_lines(job: &Job, is_on: bool) {
    if is_on {
        tracing::Span::current().record("trace_id", id(job));
    } else if let Some(client) = client(job) {
        tracing::Span::current().record("trace_id", client.trace_name());
    }
}
