//! Between rows and what they mean.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::job::{Job, JobId};
use crate::store::types::{JobRecord, StoreError};

pub(super) const RECORD_COLUMNS: &str =
    "job_id, user_id, doc, created_ms, ended_ms, plain_cursor, fetch_timeout_ms";

pub(super) fn record(row: &SqliteRow) -> Result<JobRecord, StoreError> {
    Ok(JobRecord {
        job: job(row)?,
        user_id: row.try_get("user_id")?,
        created_ms: row.try_get("created_ms")?,
        ended_ms: row.try_get("ended_ms")?,
        plain_cursor: position(row.try_get("plain_cursor")?),
        fetch_timeout_ms: row.try_get("fetch_timeout_ms")?,
    })
}

pub(super) fn job(row: &SqliteRow) -> Result<Job, StoreError> {
    let doc: &str = row.try_get("doc")?;
    serde_json::from_str(doc).map_err(|error| damaged(row, error))
}

pub(super) fn damaged(row: &SqliteRow, error: serde_json::Error) -> StoreError {
    StoreError::Damaged(row.try_get("job_id").unwrap_or_default(), error)
}

pub(super) fn job_id(row: &SqliteRow) -> Result<JobId, StoreError> {
    let text: String = row.try_get("job_id")?;
    text.parse().map_err(|error| StoreError::Damaged(text, serde::de::Error::custom(error)))
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
