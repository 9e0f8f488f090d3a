//! Spans of a job, from its record. Pure.
//!
//! ```text
//! Run                     from the record of the job to its end
//!   step train            from the end of the step before
//!     queue, pause        until the first attempt, and between attempts
//!     attempt 1
//!       launch            until the platform took it
//!       schedule, pull    until a node was chosen, until its container was started: where there are such
//!       start             until its agent attached
//!       …                 the agent's own: fetch, run, drain, publish, report
//! ```

use std::borrow::Cow;

use sqlflow_job::{Attempt, AttemptId, Job, JobState, Stage, Step};
use sqlflow_job_store::JobRecord;
use sqlflow_telemetry::{SpanData, SpanDataExt as _, SpanKind, TraceContext};

use super::{attempt, client, run, step};

/// Spans of a job that has ended, or ends at `now_ms`.
#[must_use]
pub fn spans(record: &JobRecord, now_ms: i64) -> Vec<SpanData> {
    let job = &record.job;
    let (begin, end) = (record.created_ms, record.ended_ms.unwrap_or(now_ms));
    let mut all = vec![root(job, &record.user_id, (begin, end))];
    let mut at = begin;
    for (index, one) in (0_u32..).zip(&job.steps).filter(|(_, one)| !one.attempts.is_empty()) {
        at = step_spans(&mut all, job, index, one, (at, end));
    }
    all
}

fn root(job: &Job, user: &str, times: (i64, i64)) -> SpanData {
    let state = job.state.name();
    let mut root = span("Run", run(job), client(job), times)
        .kind(SpanKind::Server)
        .with("sqlflow.job.id", job.id.to_string())
        .with("sqlflow.job.state", state)
        .with("rpc.system.name", "grpc")
        .with("rpc.method", "sqlflow.v1.SQLFlow/Run");
    if !user.is_empty() {
        root = root.with("enduser.id", user.to_owned());
    }
    // Without the message: a database's errors quote the program and the data, and the collector is not protected.
    if let JobState::Failed(failure) = &job.state { root.failed(failure.cause.in_words()) } else { root }
}

/// Returns the step's end.
fn step_spans(all: &mut Vec<SpanData>, job: &Job, index: u32, one: &Step, (begin, end): (i64, i64)) -> i64 {
    let context = step(job, index);
    let ended = one.attempts.last().and_then(|it| it.ended_ms).unwrap_or(end);
    let mut itself = span(format!("step {}", one.kind), context, Some(run(job)), (begin, ended))
        .with("sqlflow.step", i64::from(index))
        .with("sqlflow.statements", i64::from(one.statement_count));
    if !one.succeeded() {
        let outcome = one.last_run().and_then(Attempt::outcome);
        itself = itself.failed(outcome.map_or("it did not end", |it| it.reason.name()));
    }
    all.push(itself);
    let mut at = begin;
    for (number, one) in (1_u32..).zip(&one.attempts) {
        let name = if number == 1 { "queue" } else { "pause" };
        let waited = context.child(&format!("{name} {number}"));
        all.push(span(name, waited, Some(context), (at, one.created_ms)));
        at = one.ended_ms.unwrap_or(end);
        let id = AttemptId { job: job.id.clone(), step: index, number };
        attempt_spans(all, attempt(job, &id), context, one, &id, at);
    }
    ended
}

fn attempt_spans(
    all: &mut Vec<SpanData>,
    context: TraceContext,
    parent: TraceContext,
    one: &Attempt,
    id: &AttemptId,
    end: i64,
) {
    let mut itself = span(format!("attempt {}", id.number), context, Some(parent), (one.created_ms, end))
        .with("sqlflow.attempt", id.to_string())
        .with("sqlflow.launcher", one.launcher_id.kind.name().to_owned());
    if let Some(outcome) = one.outcome() {
        let reason = outcome.reason.name();
        itself = itself.with("sqlflow.outcome.reason", reason);
        if !outcome.succeeded() {
            itself = itself.failed(reason);
        }
    }
    all.push(itself);
    for Stage { name, begin_ms, end_ms } in one.launch_stages(end) {
        all.push(span(name, context.child(name), Some(context), (begin_ms, end_ms)));
    }
}

/// Times are milliseconds.
fn span(
    name: impl Into<Cow<'static, str>>,
    context: TraceContext,
    parent: Option<TraceContext>,
    (begin, end): (i64, i64),
) -> SpanData {
    sqlflow_telemetry::span(name, context, parent, (begin * 1000, end * 1000))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use sqlflow_job::{
        Cause, Event, Failure, InstanceHash, JobId, LauncherId, LauncherKind, Outcome, Reason, Role,
    };
    use sqlflow_telemetry::{RemoteContext, Status};

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// A step whose first attempt was lost, and a step after it.
    fn record() -> JobRecord {
        let one = |kind: &str| Step {
            first_statement: 0,
            statement_count: 1,
            kind: kind.into(),
            model: String::new(),
            repeatable: true,
            writes_table: false,
            overwrites_input: false,
            attempts: Vec::new(),
        };
        let mut job = Job::new(JobId::generate(), vec![one("train"), one("predict")]);
        job.origin = Some(RemoteContext { parent: PARENT.to_owned(), ..RemoteContext::default() });
        let mut now = 1000;
        for (step, number, reason) in
            [(0, 1, Reason::Lost), (0, 2, Reason::Succeeded), (1, 1, Reason::Succeeded)]
        {
            let attempt = AttemptId { job: job.id.clone(), step, number };
            let instance = InstanceHash::of(b"key");
            for event in [
                Event::AttemptCreated {
                    step,
                    role: Role::Run,
                    launcher_id: LauncherId::of(LauncherKind::Local),
                },
                Event::AttemptLaunched { attempt: attempt.clone(), tracker_url: None, executor_uid: None },
                Event::AgentAttached {
                    attempt: attempt.clone(),
                    instance,
                    server: "s".to_owned(),
                    is_local: false,
                },
                Event::AttemptFoundEnded {
                    attempt,
                    outcome: Outcome::by_server(reason, "so", false),
                    basis: sqlflow_job::Basis::Attached,
                },
            ] {
                now += 10;
                job.apply(event, now).unwrap();
            }
        }
        job.apply(Event::Finished(JobState::Succeeded), now).unwrap();
        JobRecord {
            principal: None,
            job,
            lease_epoch: 1,
            user_id: "me".to_owned(),
            created_ms: 1000,
            ended_ms: Some(now + 10),
            plain_cursor: 0,
            fetch_timeout_ms: 0,
        }
    }

    #[test]
    fn spans_of_a_job_are_one_tree_and_equal_on_every_server() {
        let record = record();
        let all = spans(&record, 0);
        assert_eq!(all, spans(&record, 77), "another server says the same");
        let ids: HashSet<_> = all.iter().map(|it| it.span_context.span_id()).collect();
        assert_eq!(ids.len(), all.len());
        let client: TraceContext = PARENT.parse().unwrap();
        assert_eq!(all[0].parent_span_id.to_bytes(), client.span_id);
        assert!(all[1..].iter().all(|it| ids.contains(&it.parent_span_id)), "an orphan");
        assert!(all.iter().all(|it| it.span_context.trace_id().to_bytes() == client.trace_id));
        // The agent needs only the attempt's context to continue the trace.
        let id = AttemptId { job: record.job.id.clone(), step: 0, number: 2 };
        assert!(ids.iter().any(|it| it.to_bytes() == attempt(&record.job, &id).span_id));
    }

    #[test]
    fn child_spans_cover_their_parent() {
        let all = spans(&record(), 0);
        let length = |it: &SpanData| it.end_time.duration_since(it.start_time).unwrap();
        for whole in all.iter().filter(|it| it.name.starts_with("step")) {
            let whole_id = whole.span_context.span_id();
            let parts: Duration = all.iter().filter(|it| it.parent_span_id == whole_id).map(length).sum();
            assert_eq!(parts, length(whole), "{}", whole.name);
        }
    }

    #[test]
    fn span_errors_contain_the_cause_and_no_database_text() {
        let mut record = record();
        record.job.state = JobState::Failed(Failure::new(Cause::StatementFailed, "near 'secret'"));
        for step in &mut record.job.steps {
            step.attempts.pop();
        }
        let error = |it: SpanData| match it.status {
            Status::Error { description } => Some(description),
            Status::Ok | Status::Unset => None,
        };
        let errors: Vec<_> = spans(&record, 0).into_iter().filter_map(error).collect();
        assert_eq!(errors, ["a statement failed", "lost", "lost"]);
    }

    #[test]
    fn job_without_a_client_trace_starts_a_trace() {
        let mut record = record();
        record.job.origin = None;
        let all = spans(&record, 0);
        assert_eq!(all[0].parent_span_id.to_bytes(), [0; 8]);
        assert_ne!(all[0].span_context.trace_id().to_bytes(), [0; 16]);
    }
}
