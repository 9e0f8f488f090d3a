//! The observations of one `Run`: the checker's input.

use std::collections::BTreeMap;
use std::fmt;

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{JobStatus, Response};

use super::program::Statement;

/// Who read a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// While the job ran, with cursors.
    Cursor,
    /// While the job ran, with the plain token; pages may repeat.
    Plain,
    /// From the start, after the end, through one server.
    AfterTheEnd,
}

/// One reader's history.
#[derive(Debug, Clone)]
pub struct History {
    pub reader: Reader,
    pub results: Vec<Response>,
    /// The status that ended the log; `None` if the reader gave up.
    pub end: Option<JobStatus>,
}

/// The test's own actions on a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Touched {
    /// Its agent or its submitter was killed.
    pub is_killed: bool,
    /// `Cancel` was answered.
    pub is_cancelled: bool,
    /// The disk was full for a time.
    pub is_without_space: bool,
}

/// Everything about one `Run`.
#[derive(Debug, Clone)]
pub struct Observed {
    pub job_id: String,
    pub statements: Vec<Statement>,
    pub histories: Vec<History>,
    pub touched: Touched,
    /// How often each insert was executed.
    pub marks: BTreeMap<u32, u64>,
    /// Leftovers after the job's end.
    pub left: Vec<String>,
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "job {} {:?}, executed {:?}", self.job_id, self.touched, self.marks)?;
        for history in &self.histories {
            writeln!(f, " read by {:?}: {:?}", history.reader, history.end)?;
            if history.reader != Reader::AfterTheEnd {
                write_results(f, &history.results)?;
            }
        }
        Ok(())
    }
}

/// One line for each record. Of consecutive records of one kind only the first and the last.
fn write_results(f: &mut fmt::Formatter<'_>, results: &[Response]) -> fmt::Result {
    let runs = results.chunk_by(|one, next| kind(one) == kind(next) && one.statement == next.statement);
    for run in runs {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        writeln!(f, "  {}", line(first))?;
        if run.len() > 1 {
            writeln!(f, "   … {} in all\n  {}", run.len(), line(last))?;
        }
    }
    Ok(())
}

fn kind(result: &Response) -> Option<std::mem::Discriminant<Payload>> {
    result.response.as_ref().map(std::mem::discriminant)
}

fn line(result: &Response) -> String {
    let what = match &result.response {
        Some(Payload::Head(head)) => format!("head {:?}", head.column_names),
        Some(Payload::Rows(rows)) => format!("{} rows {:?}", rows.count, ends(&numbers(rows))),
        Some(Payload::Log(log)) => {
            let (step, attempt, stream) = (log.step, log.attempt, log.stream);
            format!("log {step}-{attempt} stream {stream} offset {} of {} bytes", log.offset, log.data.len())
        }
        Some(other) => format!("{other:?}"),
        None => "nothing".to_owned(),
    };
    let seconds =
        result.time.as_ref().map_or(0.0, |it| (it.seconds % 1000) as f64 + f64::from(it.nanos) / 1e9);
    format!("{:>5} at {seconds:.3} s, statement {:?}: {what}", result.position, result.statement)
}

fn ends(numbers: &[i64]) -> (Option<&i64>, Option<&i64>) {
    (numbers.first(), numbers.last())
}

/// The numbers of the first column.
pub fn numbers(rows: &sqlflow_proto::v1::EncodedRows) -> Vec<i64> {
    match rows.decoded().unwrap().columns.first().and_then(|column| column.values.clone()) {
        Some(sqlflow_proto::v1::column::Values::Int64s(values)) => values.values,
        _ => Vec::new(),
    }
}
