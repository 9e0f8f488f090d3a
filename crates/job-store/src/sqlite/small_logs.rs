//! Small result logs, in the database of the jobs.

use async_trait::async_trait;
use bytes::BytesMut;
use rusqlite::{Connection, ErrorCode, params};
use sqlflow_job::{Change, Event, Job, JobId};
use sqlflow_result_log::{Durability, SmallLog, SmallLogError, SmallLogs, SmallWrite};
use sqlflow_text::with_causes;

use super::SqliteStore;
use super::rows::{DOC_VERSION, job_id, json};
use super::transactions::apply;
use super::writer::Turn;
use crate::types::{StoreError, UpdateError};

#[async_trait]
impl SmallLogs for SqliteStore {
    async fn read(&self, job: &JobId, known: u64) -> Result<SmallLog, SmallLogError> {
        let job = job.clone();
        Ok(self.read(move |connection| read(connection, &job, known)).await?)
    }

    async fn append(
        &self,
        job: &JobId,
        length: u64,
        bytes: Vec<u8>,
        durability: Durability,
    ) -> Result<SmallWrite, SmallLogError> {
        let turn = match durability {
            Durability::Synced => Turn::InOrder,
            Durability::Unsynced => Turn::Unsynced,
        };
        let job = job.clone();
        let append = move |tx: &Connection| add(tx, &job, length, Some(&bytes));
        Ok(self.inner.writer.write(turn, append).await?)
    }

    async fn append_and_apply(
        &self,
        job: &JobId,
        length: u64,
        bytes: Vec<u8>,
        event: Event,
        now_ms: i64,
    ) -> Result<Option<(Job, Change)>, SmallLogError> {
        let id = job.clone();
        let both = move |tx: &Connection| {
            if add(tx, &id, length, Some(&bytes))? == SmallWrite::Conflict {
                return Err(UpdateError::Fenced);
            }
            apply(tx, &id, None, event, now_ms)
        };
        match self.write(both).await {
            Ok((job, written)) => {
                let change = self.applied(&job, written);
                Ok(Some((job, change)))
            }
            Err(UpdateError::Store(error)) => Err(error.into()),
            Err(UpdateError::NotFound | UpdateError::Fenced | UpdateError::Rejected(_)) => Ok(None),
        }
    }

    async fn freeze(&self, job: &JobId, length: u64) -> Result<SmallWrite, SmallLogError> {
        let job = job.clone();
        // After a power failure it may be open again; then the folder is found, if it was created.
        Ok(self.inner.writer.write(Turn::Unsynced, move |tx| add(tx, &job, length, None)).await?)
    }

    async fn empty(&self, job: &JobId) -> Result<SmallWrite, SmallLogError> {
        let job = job.clone();
        let empty = move |tx: &Connection| {
            let deleted =
                tx.prepare_cached("DELETE FROM small_logs WHERE job_id = ?")?.execute([job.as_str()])?;
            if deleted == 0 {
                return Ok(SmallWrite::Conflict);
            }
            insert(tx, &job, 0, None)?;
            Ok::<_, StoreError>(SmallWrite::Done)
        };
        Ok(self.inner.writer.write(Turn::Unsynced, empty).await?)
    }

    async fn delete(&self, job: &JobId) -> Result<(), SmallLogError> {
        let sql = "DELETE FROM small_logs WHERE job_id = ?";
        Ok(self.execute(Turn::InOrder, sql, [job.as_str().to_owned()]).await?)
    }

    async fn jobs(&self) -> Result<Vec<JobId>, SmallLogError> {
        let jobs = self.read(|connection| {
            let mut query = connection
                .prepare_cached("SELECT DISTINCT job_id FROM small_logs WHERE bytes IS NOT NULL")?;
            let mut rows = query.query([])?;
            let mut jobs = Vec::new();
            while let Some(row) = rows.next()? {
                jobs.push(job_id(row)?);
            }
            Ok(jobs)
        });
        Ok(jobs.await?)
    }

    async fn bytes(&self, jobs: &[JobId]) -> Result<u64, SmallLogError> {
        let jobs = json(&jobs);
        let bytes = self.read(move |connection| {
            // The length is in a row's header: the logs are not read.
            let sql = "SELECT COALESCE(SUM(OCTET_LENGTH(bytes)), 0) FROM small_logs
                       WHERE job_id IN (SELECT value FROM json_each(?))";
            let bytes: i64 = connection.prepare_cached(sql)?.query_row([jobs], |row| row.get(0))?;
            Ok(u64::try_from(bytes).unwrap_or(0))
        });
        Ok(bytes.await?)
    }
}

/// The parts of a log, in order; [`None`] marks a frozen one.
pub(super) const PARTS: &str = "SELECT bytes FROM small_logs WHERE job_id = ? ORDER BY first_byte";

fn read(connection: &Connection, job: &JobId, known: u64) -> Result<SmallLog, StoreError> {
    let mut query = connection.prepare_cached(PARTS)?;
    let mut rows = query.query([job.as_str()])?;
    let mut found = Parts::behind(known);
    while let Some(row) = rows.next()? {
        found.add(row.get_ref(0)?.as_blob_or_null().map_err(rusqlite::Error::from)?);
    }
    Ok(found.into_log())
}

/// The parts of a log, joined.
#[derive(Default)]
pub(super) struct Parts {
    known: u64,
    length: u64,
    bytes: BytesMut,
    is_frozen: bool,
}

impl Parts {
    /// Without the first `known` bytes.
    pub(super) fn behind(known: u64) -> Self {
        Self { known, ..Self::default() }
    }

    /// Parts are consecutive, unless the database is damaged; then the checksums show it.
    pub(super) fn add(&mut self, part: Option<&[u8]>) {
        let Some(part) = part else {
            self.is_frozen = true;
            return;
        };
        let unknown = usize::try_from(self.known.saturating_sub(self.length)).unwrap_or(usize::MAX);
        self.bytes.extend_from_slice(part.get(unknown..).unwrap_or_default());
        self.length += part.len() as u64;
    }

    pub(super) fn into_log(self) -> SmallLog {
        SmallLog { length: self.length, bytes: self.bytes.freeze(), is_frozen: self.is_frozen }
    }
}

/// Adds a part, or freezes the log, if it has this length and is not frozen.
fn add(tx: &Connection, job: &JobId, length: u64, bytes: Option<&[u8]>) -> Result<SmallWrite, StoreError> {
    let mut query = tx.prepare_cached(
        "SELECT COALESCE(SUM(LENGTH(bytes)), 0), COUNT(*) > COUNT(bytes) FROM small_logs WHERE job_id = ?",
    )?;
    let (there, is_frozen): (i64, bool) =
        query.query_one([job.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if is_frozen || u64::try_from(there) != Ok(length) {
        return Ok(SmallWrite::Conflict);
    }
    if there == 0 {
        // A server without support for small logs must not continue the job: it would begin a log in a folder.
        tx.prepare_cached("UPDATE jobs SET doc_version = ? WHERE job_id = ? AND doc_version < ?")?
            .execute(params![DOC_VERSION, job.as_str(), DOC_VERSION])?;
    }
    insert(tx, job, there, bytes)?;
    Ok(SmallWrite::Done)
}

fn insert(tx: &Connection, job: &JobId, first_byte: i64, bytes: Option<&[u8]>) -> Result<(), StoreError> {
    tx.prepare_cached("INSERT INTO small_logs (job_id, first_byte, bytes) VALUES (?, ?, ?)")?
        .execute(params![job.as_str(), first_byte, bytes])?;
    Ok(())
}

impl From<StoreError> for SmallLogError {
    fn from(error: StoreError) -> Self {
        let is_full = matches!(error, StoreError::Full);
        let why = match &error {
            StoreError::Database(cause)
                if cause.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) =>
            {
                "cannot append to the log: its job does not exist any more".to_owned()
            }
            StoreError::Busy { .. } | StoreError::Full | StoreError::Slow | StoreError::Closing => {
                error.to_string()
            }
            StoreError::Database(_)
            | StoreError::Damaged(..)
            | StoreError::DamagedSecret(_)
            | StoreError::OtherKey { .. }
            | StoreError::Newer { .. } => with_causes(&error),
        };
        Self { why, is_full }
    }
}
