//! Jobs in listings and descriptions.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sqlflow_proto::v1::{Attempt, Cause, Job, JobStatus, Step, job_status::Code};
use sqlflow_text::escape::{self, escaped};

use super::description::{ago, full_time, push_field, push_program, short_time, span};
use super::result_set::Style;
use super::table::{Write, write_texts};

/// The failure in one sentence: `job 01j… failed: …`.
pub(crate) fn failure_sentence(job: &str, status: &JobStatus) -> String {
    let cause = cause_name(status.cause()).to_ascii_lowercase().replace('_', " ");
    let what = match status.cause() {
        Cause::Cancelled => "was cancelled",
        Cause::NotFetched => "was cancelled because no client fetched it",
        _ => "failed",
    };
    match (status.message.is_empty(), status.cause()) {
        // The server's message contains it already.
        (false, Cause::Cancelled) if status.message.starts_with("the job was cancelled") => {
            format!("job {job} {}", escaped(status.message.trim_start_matches("the job ")))
        }
        (false, Cause::NotFetched) => format!("job {job} was cancelled: {}", escaped(&status.message)),
        (false, _) => format!("job {job} {what}: {}", escaped(&status.message)),
        (true, Cause::Unspecified | Cause::Cancelled | Cause::NotFetched) => format!("job {job} {what}"),
        (true, _) => format!("job {job} {what}: {cause}"),
    }
}

/// Whether the job was cancelled, by a user or by its fetch timeout.
pub(crate) fn is_cancelled(status: &JobStatus) -> bool {
    status.code() == Code::Failed && matches!(status.cause(), Cause::Cancelled | Cause::NotFetched)
}

/// The state's name, such as `RUNNING`. A cancelled job is CANCELLED, although its code is FAILED.
pub(crate) fn state_name(status: &JobStatus) -> &'static str {
    if is_cancelled(status) { "CANCELLED" } else { status.code().as_str_name() }
}

fn cause_name(cause: Cause) -> &'static str {
    let name = cause.as_str_name();
    name.strip_prefix("CAUSE_").unwrap_or(name)
}

/// `code`, `state` (equal to `code`, or CANCELLED), `cause` (null if there is none) and `message`.
pub(crate) fn status_fields(status: &JobStatus) -> Map<String, Value> {
    let cause = match status.cause() {
        Cause::Unspecified => Value::Null,
        cause => cause_name(cause).into(),
    };
    Map::from_iter([
        ("code".to_owned(), status.code().as_str_name().into()),
        ("state".to_owned(), state_name(status).into()),
        ("cause".to_owned(), cause),
        ("message".to_owned(), status.message.clone().into()),
    ])
}

/// A time of a message, if it is valid.
pub(crate) fn instant(time: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok())
}

/// A time of a message in ISO 8601.
pub(crate) fn time_text(time: Option<&prost_types::Timestamp>) -> Option<String> {
    instant(time).map(|time| time.to_string())
}

/// A column of the listing: its name, and its value for a job.
type ListingColumn<'a> = (&'static str, &'a dyn Fn(&Job) -> String);
/// Maximum number of characters of a program on a terminal.
const MAX_PROGRAM: usize = 40;

/// Jobs as a table. On a terminal the last column is cut to fit.
pub(crate) fn write_listing(
    jobs: &[Job],
    now: Timestamp,
    Style { csv, width, .. }: Style,
    out: &mut Write<'_>,
) -> std::io::Result<()> {
    // Files and CSV have the whole title.
    let program = |job: &Job| match width {
        Some(_) if job.title.chars().count() > MAX_PROGRAM => {
            let begin: String = job.title.chars().take(MAX_PROGRAM - 1).collect();
            format!("{begin}…")
        }
        _ => job.title.clone(),
    };
    let columns: [ListingColumn<'_>; 7] = [
        ("job", &|job| job.job_id.clone()),
        ("state", &|job| state_name(&status(job)).to_owned()),
        ("user", &|job| job.user_id.clone()),
        ("created (UTC)", &|job| short_time(instant(job.created.as_ref()))),
        ("took", &|job| took(job, now)),
        ("program", &program),
        ("message", &|job| status(job).message),
    ];
    let row = |job: &Job| columns.iter().map(|(_, value)| value(job)).collect();
    let mut rows: Vec<Vec<String>> = jobs.iter().map(row).collect();
    let names = columns.map(|(name, _)| name);
    if let Some(width) = width {
        cut_last(&names, &mut rows, width);
    }
    write_texts(&names, rows.into_iter(), csv, out)
}

/// Cuts the last column so that each row takes one line.
fn cut_last(names: &[&str; 7], rows: &mut [Vec<String>], width: usize) {
    let widest = |column: usize| {
        let values = rows.iter().map(|row| escape::width(&escaped(&row[column])));
        values.max().unwrap_or(0).max(names[column].len())
    };
    let before: usize = (0..6).map(|column| widest(column) + 3).sum();
    // On a narrow terminal lines wrap, so that the beginning of a message is visible.
    let room = width.saturating_sub(before + 1).max(20);
    for row in rows {
        let Some(message) = row.last_mut() else { continue };
        if escape::width(&escaped(message)) > room {
            while escape::width(&escaped(message)) >= room && message.pop().is_some() {}
            message.push('…');
        }
    }
}

/// The duration of the job, so far if it runs.
fn took(job: &Job, now: Timestamp) -> String {
    let (created, ended) = (instant(job.created.as_ref()), instant(job.ended.as_ref()));
    created.map_or(String::new(), |created| span(created, ended.unwrap_or(now)))
}

fn status(job: &Job) -> JobStatus {
    job.status.clone().unwrap_or_default()
}

/// All that is known of a job, as text.
pub(crate) fn description(job: &Job, now: Timestamp) -> String {
    let status = status(job);
    let (created, ended) = (instant(job.created.as_ref()), instant(job.ended.as_ref()));
    let mut text = String::new();
    let mut field = |name: &str, value: &str| push_field(&mut text, name, value);
    field("job", &escaped(&job.job_id));
    field("state", state_name(&status));
    if status.cause() != Cause::Unspecified && status.cause() != Cause::Cancelled {
        field("cause", cause_name(status.cause()));
    }
    field("message", &escaped(&status.message));
    field("user", &escaped(&job.user_id));
    if job.sql.is_empty() {
        // Without the job's token only the title is known.
        field("program", &escaped(&job.title));
    }
    if let Some(created) = created {
        field("created", &format!("{} ({})", full_time(Some(created)), ago(created, now)));
    }
    match (created, ended) {
        (Some(created), Some(ended)) => {
            field("ended", &format!("{} (after {})", full_time(Some(ended)), span(created, ended)));
        }
        (Some(created), None) => field("takes", &format!("{} so far", span(created, now))),
        (None, _) => {}
    }
    field("page", &escaped(&job.job_tracer_url));
    field("position", &job.last_position.to_string());
    for step in &job.steps {
        text.push_str(&step_text(step, is_cancelled(&status), now));
    }
    push_program(&mut text, &job.sql);
    text
}

fn step_text(step: &Step, is_cancelled: bool, now: Timestamp) -> String {
    let first = u64::from(step.first_statement) + 1;
    let last = (first + u64::from(step.statement_count)).saturating_sub(1);
    let statements =
        if last <= first { format!("statement {first}") } else { format!("statements {first}-{last}") };
    let mut text = format!(
        "step {}    {}, {statements}: {}\n",
        // Numbered from 1, as on web pages. `--output json` has the index.
        u64::from(step.index) + 1,
        escaped(&step.kind),
        // A step that ended by a cancel has not failed.
        if is_cancelled && step.state() == Code::Failed { "CANCELLED" } else { step.state().as_str_name() }
    );
    for attempt in &step.attempts {
        text.push_str(&format!("{}\n", escaped(&attempt_text(attempt, now))));
    }
    text
}

fn attempt_text(attempt: &Attempt, now: Timestamp) -> String {
    let time = |time: &Option<prost_types::Timestamp>| instant(time.as_ref());
    let (created, attached, ended) = (time(&attempt.created), time(&attempt.attached), time(&attempt.ended));
    let mut parts = vec![format!("  attempt {} by {}: {}", attempt.number, attempt.launcher, attempt.state)];
    if attempt.cleans_up {
        parts.push("cleans up staging tables of killed attempts".to_owned());
    }
    if let Some(created) = created {
        parts.push(format!("created {}", full_time(Some(created))));
        parts.extend(attached.map(|attached| format!("attached after {}", span(created, attached))));
        parts.push(match ended {
            Some(ended) => format!("took {}", span(created, ended)),
            None => format!("takes {} so far", span(created, now)),
        });
    }
    if !attempt.tracker_url.is_empty() {
        parts.push(format!("see {}", attempt.tracker_url));
    }
    if !attempt.outcome.is_empty() {
        parts.push(attempt.outcome.clone());
    }
    parts.join("; ")
}

/// All that is known of a job, as JSON.
pub(crate) fn job_json(job: &Job) -> Value {
    let time = |time: &Option<prost_types::Timestamp>| time_text(time.as_ref());
    let attempt = |attempt: &Attempt| {
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
            "state": step.state().as_str_name(),
            "attempts": step.attempts.iter().map(attempt).collect::<Vec<_>>(),
        })
    };
    json!({
        "type": "job",
        "job": job.job_id,
        "status": status_fields(&status(job)),
        "user": job.user_id,
        "title": job.title,
        "created": time(&job.created),
        "ended": time(&job.ended),
        "last_position": job.last_position,
        "page": if job.job_tracer_url.is_empty() { Value::Null } else { job.job_tracer_url.clone().into() },
        "sql": if job.sql.is_empty() { Value::Null } else { job.sql.clone().into() },
        "steps": job.steps.iter().map(step).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(cause: Cause, message: &str) -> String {
        let status = JobStatus { code: Code::Failed.into(), message: message.into(), cause: cause.into() };
        failure_sentence("01j", &status)
    }

    #[test]
    fn failure_is_one_sentence() {
        assert_eq!(failed(Cause::StatementFailed, "no column\nx"), "job 01j failed: no column\\nx");
        assert_eq!(failed(Cause::OutOfMemory, ""), "job 01j failed: out of memory");
        assert_eq!(failed(Cause::Cancelled, ""), "job 01j was cancelled");
        let message = "the job was cancelled by its client";
        assert_eq!(failed(Cause::Cancelled, message), "job 01j was cancelled by its client");
        let message = "nobody fetched the job for 60 s";
        assert_eq!(
            failed(Cause::NotFetched, message),
            "job 01j was cancelled: nobody fetched the job for 60 s"
        );
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

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn description_has_steps_and_attempts() {
        let page = "http://here/jobs/01j?key=x";
        let job = Job { job_tracer_url: page.into(), ..job() };
        assert_eq!(
            description(&job, at(192)),
            "\
job       01j
state     RUNNING
user      ann\\x1b
created   1970-01-01 00:00:00 UTC (3 min ago)
takes     3 min 12 s so far
page      http://here/jobs/01j?key=x
position  0
step 2    , statements 2-3: PENDING
  attempt 1 by local: ended; created 1970-01-01 00:00:00 UTC; took 5.0 s; see https://cluster/app/1; exit status 1
program
  SELECT 1;
  SELECT 2
"
        );
    }

    #[test]
    fn cancelled_job_has_state_cancelled() {
        let status = |cause: Cause| JobStatus {
            code: Code::Failed.into(),
            cause: cause.into(),
            ..JobStatus::default()
        };
        assert_eq!(state_name(&status(Cause::Cancelled)), "CANCELLED");
        assert_eq!(state_name(&status(Cause::NotFetched)), "CANCELLED");
        assert_eq!(state_name(&status(Cause::Deadline)), "FAILED");
        let fields = status_fields(&status(Cause::Cancelled));
        assert_eq!((&fields["code"], &fields["state"]), (&json!("FAILED"), &json!("CANCELLED")));
    }

    fn listing(job: Job, width: Option<usize>) -> String {
        let mut text = String::new();
        write_listing(&[job], at(90), Style { width, ..Style::default() }, &mut |piece| {
            text.push_str(std::str::from_utf8(piece).unwrap());
            Ok(())
        })
        .unwrap();
        text
    }

    #[test]
    fn listing_is_a_table() {
        let text = listing(job(), None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(
            lines[2].starts_with(" 01j | RUNNING | ann\\x1b | 1970-01-01 00:00:00 | 1 min 30 s |"),
            "{text}"
        );
    }

    #[test]
    fn listing_has_the_title_of_each_program() {
        let title = "SELECT * FROM iris TO TRAIN xgboost.gbtree";
        let named = || Job { title: title.into(), ..job() };
        assert!(listing(named(), None).contains(&format!("| {title} |")));
        let cut = listing(named(), Some(200));
        assert!(cut.contains(&format!("| {}… |", &title[..MAX_PROGRAM - 1])), "{cut}");
        let described = description(&Job { sql: String::new(), ..named() }, at(9));
        assert!(described.contains(&format!("\nprogram   {title}\n")), "{described}");
    }

    #[test]
    fn cancelled_step_has_state_cancelled() {
        let failed =
            JobStatus { code: Code::Failed.into(), cause: Cause::Cancelled.into(), ..JobStatus::default() };
        let step = Step { state: Code::Failed.into(), kind: "train".into(), ..Step::default() };
        let cancelled = Job { status: Some(failed), steps: vec![step], ..job() };
        assert!(description(&cancelled, at(9)).contains("train, statement 1: CANCELLED\n"));
    }

    #[test]
    fn listing_has_one_line_per_job() {
        let parts = |message: String| {
            let status = JobStatus { message, ..JobStatus::default() };
            Job { status: Some(status), ..job() }
        };
        let two_lines = listing(parts("one\ntwo".to_owned()), None);
        assert!(two_lines.ends_with("| one\\ntwo\n"), "{two_lines}");
        let text = listing(parts("漢字 ".repeat(50)), Some(110));
        let row = text.lines().last().unwrap();
        assert!(row.ends_with('…') && escape::width(row) <= 110, "{row}");
    }
}
