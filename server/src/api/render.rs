//! API v1's representation of log records and jobs.

use prost::Message as _;
use sqlflow_job::{Cause, Job, JobState};
use sqlflow_proto::record::{self, StoredRecord, notice, record::Payload};
use sqlflow_proto::v1::{self, response};

use sqlflow_job_store::JobRecord;

/// Records in API v1's representation: as many from the first one on as fit into `max_bytes` together, but at least
/// one.
pub(super) fn page(
    records: impl IntoIterator<Item = StoredRecord>,
    headings: &[String],
    max_bytes: usize,
) -> Vec<v1::Response> {
    /// Tag and length of the page's field.
    const OVERHEAD: usize = 6;
    let mut left = max_bytes;
    let mut results = Vec::new();
    for record in records {
        let shown = response(record, headings);
        let bytes = shown.encoded_len() + OVERHEAD;
        if bytes > left && !results.is_empty() {
            break;
        }
        left = left.saturating_sub(bytes);
        results.push(shown);
    }
    results
}

/// One record. `headings` are the first characters of the program's statements.
fn response(stored: StoredRecord, headings: &[String]) -> v1::Response {
    let StoredRecord { position, step, attempt, rank, record, shift: _ } = stored;
    let record = record.unwrap_or_default();
    let heading = |index: Option<u32>| {
        index.and_then(|index| headings.get(index as usize)).cloned().unwrap_or_default()
    };
    let shown = record.payload.map(|payload| match payload {
        Payload::Output(output) => {
            let stream = match output.stream() {
                record::output::Stream::Stdout => v1::log_chunk::Stream::Stdout,
                record::output::Stream::Stderr => v1::log_chunk::Stream::Stderr,
                record::output::Stream::Unspecified => v1::log_chunk::Stream::Unspecified,
            };
            response::Response::Log(v1::LogChunk {
                stream: stream.into(),
                offset: output.offset,
                data: output.data,
                step,
                attempt,
                rank,
            })
        }
        Payload::Head(head) => response::Response::Head(head),
        Payload::Rows(rows) => response::Response::Rows(rows),
        Payload::Started(_) => {
            response::Response::Started(v1::StatementStarted { sql: heading(record.statement) })
        }
        Payload::Ended(ended) => response::Response::Eoe(v1::EndOfExecution {
            sql: heading(record.statement),
            spent_time_seconds: i64::try_from(ended.duration_micros / 1_000_000).unwrap_or(i64::MAX),
            rows_affected: ended.rows_affected,
        }),
        Payload::Progress(progress) => response::Response::Progress(progress),
        Payload::Metrics(metrics) => response::Response::Metrics(metrics),
        Payload::Display(display) => response::Response::Display(display),
        Payload::Gap(gap) => {
            response::Response::Gap(v1::Gap { reason: gap_reason(gap.reason()).to_owned(), bytes: gap.bytes })
        }
        Payload::Notice(notice) => response::Response::Message(message(notice)),
        Payload::Model(model) => response::Response::Model(v1::Model {
            name: model.name,
            uri: model.uri,
            size_bytes: model.size_bytes,
            sha256: model.sha256,
            replaced: model.replaced.map(|earlier| v1::EarlierModel {
                made: Some(earlier.made_ms)
                    .filter(|ms| *ms != 0)
                    .map(|ms| timestamp_micros(ms.saturating_mul(1000))),
                trained_by: earlier.trained_by,
            }),
            removed: model.removed,
        }),
    });
    v1::Response {
        position,
        statement: record.statement,
        time: Some(timestamp_micros(record.time_unix_micros)),
        response: shown,
    }
}

fn message(notice: record::Notice) -> v1::Message {
    let (kind, message) = match notice.kind() {
        notice::Kind::Warning => (v1::message::Kind::Warning, format!("warning: {}", notice.text)),
        notice::Kind::Status => (v1::message::Kind::Status, notice.text),
        notice::Kind::End => (v1::message::Kind::End, notice.text),
        notice::Kind::Unspecified => (v1::message::Kind::Unspecified, notice.text),
    };
    v1::Message { message, kind: kind.into() }
}

fn gap_reason(reason: record::gap::Reason) -> &'static str {
    match reason {
        record::gap::Reason::Unspecified => "something is missing here",
        record::gap::Reason::AgentLost => "the agent died before it had delivered everything",
        record::gap::Reason::SpoolFull => "the agent's spool was full",
        record::gap::Reason::Retention => "older output was dropped to keep the job within its limit",
        record::gap::Reason::Limit => "the job's results had reached their limit",
        record::gap::Reason::LogRestored => "the server's log was restored from an older copy",
        record::gap::Reason::Damaged => "what was stored here was damaged; the server's log names the file",
        record::gap::Reason::Drain => "a process kept the output open after the program had ended",
    }
}

/// State of a job.
pub(super) fn status(job: &Job) -> v1::JobStatus {
    let (code, message, cause) = match &job.state {
        JobState::Pending => (v1::job_status::Code::Pending, String::new(), v1::Cause::Unspecified),
        JobState::Running => (v1::job_status::Code::Running, String::new(), v1::Cause::Unspecified),
        JobState::Succeeded => (v1::job_status::Code::Succeeded, String::new(), v1::Cause::Unspecified),
        JobState::Failed(failure) => {
            (v1::job_status::Code::Failed, failure.message.clone(), cause(failure.cause))
        }
    };
    v1::JobStatus { code: code.into(), message, cause: cause.into() }
}

fn cause(cause: Cause) -> v1::Cause {
    match cause {
        Cause::StatementFailed => v1::Cause::StatementFailed,
        Cause::Cancelled => v1::Cause::Cancelled,
        Cause::NotFetched => v1::Cause::NotFetched,
        Cause::OutOfMemory => v1::Cause::OutOfMemory,
        Cause::Lost => v1::Cause::Lost,
        Cause::MayHaveExecuted => v1::Cause::MayHaveExecuted,
        Cause::LaunchFailed => v1::Cause::LaunchFailed,
        Cause::Storage => v1::Cause::Storage,
        Cause::Limit => v1::Cause::Limit,
        Cause::Killed => v1::Cause::Killed,
        Cause::Deadline => v1::Cause::Deadline,
    }
}

/// A job in a listing, with its steps if `with_steps`.
pub(super) fn job(record: &JobRecord, with_steps: bool) -> v1::Job {
    v1::Job {
        job_id: record.job.id.to_string(),
        status: Some(status(&record.job)),
        user_id: record.user_id.clone(),
        created: Some(timestamp(record.created_ms)),
        ended: record.ended_ms.map(timestamp),
        steps: if with_steps { steps(&record.job) } else { Vec::new() },
        sql: String::new(),
        job_tracer_url: String::new(),
        last_position: 0,
        title: record.job.title.clone(),
    }
}

fn steps(job: &Job) -> Vec<v1::Step> {
    let step = |(index, step): (u32, &sqlflow_job::Step)| v1::Step {
        index,
        first_statement: step.first_statement,
        statement_count: step.statement_count,
        kind: step.kind.name().to_owned(),
        state: step_code(job, step).into(),
        attempts: (1_u32..).zip(&step.attempts).map(attempt).collect(),
    };
    (0_u32..).zip(&job.steps).map(step).collect()
}

fn step_code(job: &Job, step: &sqlflow_job::Step) -> v1::job_status::Code {
    match step.attempts.last() {
        None => v1::job_status::Code::Pending,
        Some(_) if step.succeeded() => v1::job_status::Code::Succeeded,
        Some(_) if job.state.is_final() => v1::job_status::Code::Failed,
        Some(_) => v1::job_status::Code::Running,
    }
}

fn attempt((number, attempt): (u32, &sqlflow_job::Attempt)) -> v1::Attempt {
    v1::Attempt {
        number,
        state: attempt.phase.name().to_owned(),
        launcher: attempt.launcher_id.kind.name().to_owned(),
        created: Some(timestamp(attempt.created_ms)),
        attached: attempt.attached_ms.map(timestamp),
        ended: attempt.ended_ms.map(timestamp),
        outcome: attempt.outcome().map(|outcome| outcome.message.clone()).unwrap_or_default(),
        cleans_up: attempt.role == sqlflow_job::Role::Cleanup,
        tracker_url: attempt.tracker_url.clone().unwrap_or_default(),
    }
}

fn timestamp(millis: i64) -> prost_types::Timestamp {
    timestamp_micros(millis.saturating_mul(1000))
}

fn timestamp_micros(micros: i64) -> prost_types::Timestamp {
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or(0);
    prost_types::Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::record::{Record, StatementStarted};

    use super::*;

    fn started(position: u64) -> StoredRecord {
        let payload = Some(Payload::Started(StatementStarted {}));
        let record = Record { statement: Some(0), payload, ..Record::default() };
        StoredRecord { position, record: Some(record), ..StoredRecord::default() }
    }

    #[test]
    fn page_is_bounded_by_its_encoded_size() {
        let headings = ["x".repeat(200)];
        let shown = page((1..=1000).map(started), &headings, 10_000);
        assert!((40..50).contains(&shown.len()), "{} of them", shown.len());
        let sent = v1::Result { results: shown, ..v1::Result::default() };
        assert!(sent.encoded_len() <= 10_000);
        assert_eq!(page([started(1), started(2)], &headings, 10).len(), 1, "at least one");
    }
}
