//! The trace of a job, OpenTelemetry's way: client → Run → step → attempt → the agent's own spans → the submitter's.
//!
//! A job's spans are a pure function of its record ([`spans`]) and are sent when it ends, by whichever server reconciles it
//! then: nothing has to be kept open, and a span that is sent again has the same id. [`Tracer`] sends them.

mod spans;
mod tracer;

use sqlflow_telemetry::TraceContext;

use sqlflow_job::{AttemptId, Job};

pub use spans::spans;
pub use tracer::Tracer;

/// What the client called from, if it was a span.
fn client(job: &Job) -> Option<TraceContext> {
    job.origin.as_ref()?.parent.parse().ok()
}

/// The span of the whole job.
fn run(job: &Job) -> TraceContext {
    let name = format!("sqlflow job {}", job.id);
    client(job).map_or_else(|| TraceContext::named(&name), |client| client.child(&name))
}

fn step(job: &Job, step: u32) -> TraceContext {
    run(job).child(&format!("step {step}"))
}

/// The span of an attempt.
#[must_use]
pub fn attempt(job: &Job, id: &AttemptId) -> TraceContext {
    step(job, id.step).child(&format!("attempt {}", id.number))
}

/// The id of the job's trace, as backends write it.
#[must_use]
pub fn id(job: &Job) -> String {
    run(job).trace_name()
}

/// Gives the log lines of the span that is entered the id of the job's trace, if the job has one.
pub fn name_log_lines(job: &Job, is_on: bool) {
    if is_on {
        tracing::Span::current().record("trace_id", id(job));
    } else if let Some(client) = client(job) {
        tracing::Span::current().record("trace_id", client.trace_name());
    }
}
