//! Trace of a job in OpenTelemetry's model: client → Run → step → attempt → the agent's spans → the submitter's.
//!
//! A job's spans are a pure function of its record ([`spans`]). The server that reconciles it sends them at its end,
//! so no span is kept open, and a span that is sent again has the same id. [`Tracer`] sends them.

mod spans;
mod tracer;

use sqlflow_telemetry::{TraceContext, live};
use tracing::Span;

use sqlflow_job::{AttemptId, Job};

pub use spans::spans;
pub use tracer::{Tracer, variables_of_agents};

/// Trace context of the client's span, if there is one.
fn client(job: &Job) -> Option<TraceContext> {
    job.origin.as_ref()?.parent.parse().ok()
}

/// Context of the job's span. Whether its trace is kept was decided when the job was recorded.
fn run(job: &Job) -> TraceContext {
    let name = format!("sqlflow job {}", job.id);
    let run = client(job).map_or_else(|| TraceContext::named(&name), |client| client.child(&name));
    job.sampled.map_or(run, |is_kept| run.sampled(is_kept))
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
    run(job).trace_id_hex()
}

/// Links the server's live span, if it is current, to the job's.
pub fn link_current(job: &Job) {
    live::link(&Span::current(), run(job));
}

/// Adds the context of the job's span to the log lines of this span, or else the client's.
pub fn name_log_lines(log_span: &Span, job: &Job, is_on: bool) {
    let Some(context) = (if is_on { Some(run(job)) } else { client(job) }) else { return };
    log_span.record("trace_id", context.trace_id_hex());
    log_span.record("span_id", context.span_id_hex());
    log_span.record("trace_flags", if context.is_sampled() { "01" } else { "00" });
}
