//! Conversion between rows and types.

use std::sync::Arc;

use rusqlite::types::Type;
use rusqlite::{Row, Rows};
use sqlflow_job::{Cause, Failure, Job, JobId, JobState};

use crate::types::{JobRecord, StoreError};

/// Version of the documents that this server writes. It is incremented with every change that an older server would
/// lose when it writes the document back, and with every change of a job's log that it would not understand.
pub(super) const DOC_VERSION: i64 = 7;

pub(super) const RECORD_COLUMNS: &str = "job_id, principal, user_id, state, doc, doc_version, lease_epoch, created_ms, ended_ms, plain_cursor, fetch_timeout_ms";

/// A job's document.
pub(super) enum Document {
    /// A valid document.
    Whole(Job),
    /// A damaged document: the job as far as the row's other columns show it, and the damage.
    Damaged(Job, StoreError),
    /// A document of a newer server that cannot be read.
    Newer(StoreError),
}

/// The job's document; reads `job_id`, `state`, `doc` and `doc_version`.
pub(super) fn document(row: &Row<'_>) -> Result<Document, StoreError> {
    // As bytes, because a flipped bit may make it invalid text.
    let doc = row.get_ref("doc")?.as_bytes();
    let doc =
        doc.map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Null, Box::new(error)))?;
    let error = match serde_json::from_slice::<Job>(doc) {
        Ok(job) => return Ok(Document::Whole(job)),
        Err(error) => error,
    };
    if let Err(newer) = check_version(row) {
        return Ok(Document::Newer(newer));
    }
    let id = job_id(row)?;
    let error = StoreError::Damaged(id.to_string(), Arc::new(error));
    Ok(Document::Damaged(without_document(id, &row.get::<_, String>("state")?), error))
}

/// Whether this server may write the document back; reads `job_id` and `doc_version`.
pub(super) fn check_version(row: &Row<'_>) -> Result<(), StoreError> {
    let version: i64 = row.get("doc_version")?;
    if version <= DOC_VERSION {
        return Ok(());
    }
    let job = row.get("job_id").unwrap_or_default();
    Err(StoreError::Newer { job, version, known: DOC_VERSION })
}

/// A job whose document is lost. Its state's name is known; for a live one it is not known what it executed.
fn without_document(id: JobId, state: &str) -> Job {
    let failed = |cause, message: &str| JobState::Failed(Failure::new(cause, message));
    let state = match state {
        "succeeded" => JobState::Succeeded,
        "failed" => {
            failed(Cause::Lost, "the job failed; its stored state is damaged, so the cause cannot be read")
        }
        "cancelled" => failed(
            Cause::Cancelled,
            "the job was cancelled; its stored state is damaged, so nobody knows why",
        ),
        // Also for a pending one, because the record of a launch is not synced.
        _ => failed(
            Cause::MayHaveExecuted,
            "the stored state of the job is damaged; its statements may have executed",
        ),
    };
    Job { state, ..Job::new(id, Vec::new()) }
}

/// A job record.
pub(super) fn record(row: &Row<'_>) -> Result<JobRecord, StoreError> {
    match document(row)? {
        Document::Whole(job) => with(job, row),
        Document::Damaged(_, error) | Document::Newer(error) => Err(error),
    }
}

/// A job for a listing, which must not fail because of one row: of a newer server's job only the state is shown.
pub(super) fn listed(row: &Row<'_>) -> Result<JobRecord, StoreError> {
    match document(row)? {
        Document::Whole(job) | Document::Damaged(job, _) => with(job, row),
        Document::Newer(_) => {
            let job = Job::new(job_id(row)?, Vec::new());
            let state = match row.get::<_, String>("state")?.as_str() {
                "pending" => JobState::Pending,
                "running" => JobState::Running,
                "succeeded" => JobState::Succeeded,
                "cancelled" => {
                    JobState::Failed(Failure::new(Cause::Cancelled, "a newer server knows who cancelled it"))
                }
                _ => JobState::Failed(Failure::new(Cause::Lost, "a newer server knows the cause")),
            };
            with(Job { state, ..job }, row)
        }
    }
}

fn with(job: Job, row: &Row<'_>) -> Result<JobRecord, StoreError> {
    Ok(JobRecord {
        job,
        lease_epoch: row.get("lease_epoch")?,
        principal: row.get("principal")?,
        user_id: row.get("user_id")?,
        created_ms: row.get("created_ms")?,
        ended_ms: row.get("ended_ms")?,
        plain_cursor: position(row.get("plain_cursor")?),
        fetch_timeout_ms: row.get("fetch_timeout_ms")?,
    })
}

pub(super) fn job_id(row: &Row<'_>) -> Result<JobId, StoreError> {
    let text: String = row.get("job_id")?;
    text.parse().map_err(|error| StoreError::Damaged(text, Arc::new(serde::de::Error::custom(error))))
}

/// The values of these rows. A row that cannot be read is logged and skipped.
pub(super) fn readable<T>(
    mut rows: Rows<'_>,
    mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        match read(row) {
            Ok(one) => found.push(one),
            Err(error) => tracing::error!(%error, "skipped a row of the store that cannot be read"),
        }
    }
    Ok(found)
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data with string keys always serializes")
}

/// Log positions are kept as SQLite's signed integers.
fn position(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

pub(super) fn stored(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}
