//! A job as listings and descriptions show it.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sqlflow_proto::v1::{Cause, Job, JobStatus, Step, job_status::Code};

use super::description::{push_field, push_program, short_time};
use super::table::{Write, write_texts};
use sqlflow_server::text::escape::escaped;

/// Whether the job has ended, and its log with it.
pub(crate) fn is_terminal(status: &JobStatus) -> bool {
    matches!(status.code(), Code::Succeeded | Code::Failed)
}

/// The failure in one sentence: `job 01j… failed: …`.
pub(crate) fn failure_sentence(job: &str, status: &JobStatus) -> String {
    let cause = cause_name(status.cause()).to_ascii_lowercase().replace('_', " ");
    let what = match status.cause() {
        Cause::Cancelled => "was cancelled",
        Cause::NotFetched => "was cancelled, as nobody fetched it",
        _ => "failed",
    };
    match (status.message.is_empty(), status.cause()) {
        (false, _) => format!("job {job} {what}: {}", escaped(&status.message)),
        (true, Cause::Unspecified | Cause::Cancelled | Cause::NotFetched) => format!("job {job} {what}"),
        (true, _) => format!("job {job} {what}: {cause}"),
    }
}

/// The state's name: `RUNNING`.
pub(crate) fn state_name(code: Code) -> &'static str {
    code.as_str_name()
}

fn cause_name(cause: Cause) -> &'static str {
    let name = cause.as_str_name();
    name.strip_prefix("CAUSE_").unwrap_or(name)
}

/// `code`, `cause` (null while there is none) and `message`.
pub(crate) fn status_fields(status: &JobStatus) -> Map<String, Value> {
    let cause = match status.cause() {
        Cause::Unspecified => Value::Null,
        cause => cause_name(cause).into(),
    };
    Map::from_iter([
        ("code".to_owned(), state_name(status.code()).into()),
        ("cause".to_owned(), cause),
        ("message".to_owned(), status.message.clone().into()),
    ])
}

/// A time of the wire, if it is one.
pub(crate) fn instant(time: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok())
}

/// A time of the wire in ISO 8601.
pub(crate) fn time_text(time: Option<&prost_types::Timestamp>) -> Option<String> {
    instant(time).map(|time| time.to_string())
}

/// A column of the listing: its name, and what it shows of a job.
type ListingColumn = (&'static str, fn(&Job) -> String);

/// Jobs as a table.
pub(crate) fn write_listing(jobs: &[Job], out: &mut Write<'_>) -> std::io::Result<()> {
    let columns: [ListingColumn; 6] = [
        ("job", |job| job.job_id.clone()),
        ("state", |job| state_name(status(job).code()).to_owned()),
        ("user", |job| job.user_id.clone()),
        ("created", |job| short_time(instant(job.created.as_ref()))),
        ("ended", |job| short_time(instant(job.ended.as_ref()))),
        ("message", |job| status(job).message),
    ];
    let row = |job: &Job| columns.iter().map(|(_, value)| value(job)).collect();
    write_texts(&columns.map(|(name, _)| name), jobs.iter().map(row), out)
}

fn status(job: &Job) -> JobStatus {
    job.status.clone().unwrap_or_default()
}

/// All that is known of a job, as text.
pub(crate) fn description(job: &Job) -> String {
    let status = status(job);
    let mut text = String::new();
    let mut field = |name: &str, value: &str| push_field(&mut text, name, value);
    field("job", &escaped(&job.job_id));
    field("state", state_name(status.code()));
    if status.cause() != Cause::Unspecified {
        field("cause", cause_name(status.cause()));
    }
    field("message", &escaped(&status.message));
    field("user", &escaped(&job.user_id));
    field("created", &short_time(instant(job.created.as_ref())));
    field("ended", &short_time(instant(job.ended.as_ref())));
    field("position", &job.last_position.to_string());
    for step in &job.steps {
        text.push_str(&step_text(step));
    }
    push_program(&mut text, &job.sql);
    text
}

fn step_text(step: &Step) -> String {
    let first = u64::from(step.first_statement) + 1;
    let last = (first + u64::from(step.statement_count)).saturating_sub(1);
    let statements =
        if last <= first { format!("statement {first}") } else { format!("statements {first}-{last}") };
    let mut text = format!(
        "step {}    {}, {statements}: {}\n",
        step.index,
        escaped(&step.kind),
        state_name(step.state())
    );
    for attempt in &step.attempts {
        let mut said =
            vec![format!("  attempt {} by {}: {}", attempt.number, attempt.launcher, attempt.state)];
        if attempt.cleans_up {
            said.push("removes what killed attempts left in the database".to_owned());
        }
        let times =
            [("created", &attempt.created), ("attached", &attempt.attached), ("ended", &attempt.ended)];
        for (what, time) in times {
            if let Some(time) = time {
                said.push(format!("{what} {}", short_time(instant(Some(time)))));
            }
        }
        if !attempt.tracker_url.is_empty() {
            said.push(format!("see {}", attempt.tracker_url));
        }
        if !attempt.outcome.is_empty() {
            said.push(attempt.outcome.clone());
        }
        text.push_str(&format!("{}\n", escaped(&said.join("; "))));
    }
    text
}

/// All that is known of a job, as JSON.
pub(crate) fn job_json(job: &Job) -> Value {
    let time = |time: &Option<prost_types::Timestamp>| time_text(time.as_ref());
    let attempt = |attempt: &sqlflow_proto::v1::Attempt| {
        json!({
            "number": attempt.number,
            "state": attempt.state,
            "launcher": attempt.launcher,
            "created": time(&attempt.created),
            "attached": time(&attempt.attached),
            "ended": time(&attempt.ended),
            "outcome": attempt.outcome,
            "cleans_up": attempt.cleans_up,
            "tracker_url": attempt.tracker_url,
        })
    };
    let step = |step: &Step| {
        json!({
            "index": step.index,
            "first_statement": step.first_statement,
            "statement_count": step.statement_count,
            "kind": step.kind,
            "state": state_name(step.state()),
            "attempts": step.attempts.iter().map(attempt).collect::<Vec<_>>(),
        })
    };
    json!({
        "type": "job",
        "job": job.job_id,
        "status": status_fields(&status(job)),
        "user": job.user_id,
        "created": time(&job.created),
        "ended": time(&job.ended),
        "last_position": job.last_position,
        "sql": if job.sql.is_empty() { Value::Null } else { job.sql.clone().into() },
        "steps": job.steps.iter().map(step).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::v1::Attempt;

    use super::*;

    fn failed(cause: Cause, message: &str) -> String {
        let status = JobStatus { code: Code::Failed.into(), message: message.into(), cause: cause.into() };
        failure_sentence("01j", &status)
    }

    #[test]
    fn a_failure_is_one_sentence() {
        assert_eq!(failed(Cause::StatementFailed, "no column\nx"), "job 01j failed: no column\\nx");
        assert_eq!(failed(Cause::OutOfMemory, ""), "job 01j failed: out of memory");
        assert_eq!(failed(Cause::Cancelled, ""), "job 01j was cancelled");
    }

    fn job() -> Job {
        let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let attempt = Attempt {
            number: 1,
            state: "ended".into(),
            launcher: "local".into(),
            created: time(0),
            attached: None,
            ended: time(5),
            outcome: "exit status 1".into(),
            cleans_up: false,
            tracker_url: "https://cluster/app/1".into(),
        };
        let step = Step {
            index: 1,
            first_statement: 1,
            statement_count: 2,
            attempts: vec![attempt],
            ..Step::default()
        };
        Job {
            job_id: "01j".into(),
            status: Some(JobStatus { code: Code::Running.into(), ..JobStatus::default() }),
            user_id: "ann\x1b".into(),
            created: time(0),
            steps: vec![step],
            sql: "SELECT 1;\nSELECT 2".into(),
            ..Job::default()
        }
    }

    #[test]
    fn a_description_tells_steps_and_attempts() {
        assert_eq!(
            description(&job()),
            "\
job       01j
state     RUNNING
user      ann\\x1b
created   1970-01-01T00:00:00Z
position  0
step 1    , statements 2-3: PENDING
  attempt 1 by local: ended; created 1970-01-01T00:00:00Z; ended 1970-01-01T00:00:05Z; see https://cluster/app/1; exit status 1
program
  SELECT 1;
  SELECT 2
"
        );
    }

    #[test]
    fn a_listing_is_a_table() {
        let mut text = String::new();
        write_listing(&[job()], &mut |piece| {
            text.push_str(std::str::from_utf8(piece).unwrap());
            Ok(())
        })
        .unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[2].starts_with(" 01j | RUNNING | ann\\x1b | 1970-01-01T00:00:00Z |"), "{text}");
    }
}
