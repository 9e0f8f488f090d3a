//! The parts of transactions.

use rusqlite::{Connection, OptionalExtension as _, params};
use sqlflow_job::{Change, Event, Job, JobId};

use super::leases::{prolong, until};
use super::revisions::next_revision;
use super::rows::{DOC_VERSION, Document, check_version, document, job_id, json};
use super::secrets;
use crate::secret_keys::SecretKeys;
use crate::types::{Created, Lease, NewJob, Revision, StoreError, UpdateError};

/// Records a job. Returns the revision of this write, if there was one.
pub(super) fn insert(
    tx: &Connection,
    new: &NewJob,
    keys: &SecretKeys,
    now_ms: i64,
) -> Result<(Created, Option<Revision>), StoreError> {
    let id = new.job.id.as_str();
    if let Some(request) = &new.request {
        let mut query = tx.prepare_cached("SELECT job_id, request_hash FROM jobs WHERE token_hash = ?")?;
        let mut rows = query.query([new.token.0])?;
        if let Some(before) = rows.next()? {
            let hash: Option<Vec<u8>> = before.get("request_hash")?;
            let is_same = hash.as_deref() == Some(request.0.as_slice());
            let created = if is_same { Created::Before(job_id(before)?) } else { Created::Conflict };
            return Ok((created, None));
        }
    }
    prolong(tx, &new.owner, until(now_ms, new.lease))?;
    let revision = next_revision(tx)?;
    tx.prepare_cached(
        "INSERT INTO jobs (job_id, token_hash, user_id, state, doc, doc_version, created_ms, lease_owner,
                           lease_epoch, lease_until_ms, fetch_timeout_ms, fetched_ms, request_hash, revision,
                           principal)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        id,
        new.token.0,
        new.user_id,
        new.job.state.name(),
        json(&new.job),
        DOC_VERSION,
        new.created_ms,
        new.owner.0,
        Lease::FIRST_EPOCH,
        // Only servers from before migration 0002 read it.
        i64::MAX,
        new.fetch_timeout_ms,
        now_ms,
        new.request.as_ref().map(|request| request.0),
        revision.0,
        new.principal,
    ])?;
    tx.prepare_cached("INSERT INTO programs (job_id, sql, headings) VALUES (?, ?, ?)")?.execute(params![
        id,
        new.sql,
        json(&new.headings)
    ])?;
    let mut query = tx.prepare_cached("INSERT INTO step_specs (job_id, step, spec) VALUES (?, ?, ?)")?;
    for (step, spec) in (0_i64..).zip(&new.step_specs) {
        query.execute(params![id, step, spec])?;
    }
    secrets::insert(tx, new, keys)?;
    Ok((Created::New, Some(revision)))
}

/// The job after the event, and the revision of this write; `None`: the event changed nothing.
pub(super) fn apply(
    tx: &Connection,
    id: &JobId,
    lease: Option<&Lease>,
    event: Event,
    now_ms: i64,
) -> Result<(Job, Option<Revision>), UpdateError> {
    let mut job = held(tx, id, lease)?;
    let revision = match job.apply(event, now_ms)? {
        Change::Changed => Some(write_back(tx, &job, now_ms)?),
        Change::Unchanged => None,
    };
    Ok((job, revision))
}

/// The job, if it is still held under the lease and this server may write it back.
fn held(tx: &Connection, id: &JobId, lease: Option<&Lease>) -> Result<Job, UpdateError> {
    let database = StoreError::from;
    let mut query = tx
        .prepare_cached(
            "SELECT job_id, state, doc, doc_version, lease_owner, lease_epoch FROM jobs WHERE job_id = ?",
        )
        .map_err(database)?;
    let mut rows = query.query([id.as_str()]).map_err(database)?;
    let row = rows.next().map_err(database)?.ok_or(UpdateError::NotFound)?;
    if let Some(lease) = lease {
        let owner: Option<String> = row.get("lease_owner").map_err(database)?;
        let epoch: i64 = row.get("lease_epoch").map_err(database)?;
        if owner.as_ref() != Some(&lease.owner.0) || epoch != lease.epoch {
            return Err(UpdateError::Fenced);
        }
    }
    check_version(row)?;
    match document(row)? {
        Document::Whole(job) => Ok(job),
        Document::Damaged(_, error) | Document::Newer(error) => Err(error.into()),
    }
}

/// Ends a job if its document is damaged. Only the state's name is kept, and the document itself for inspection.
/// Returns the revision of this write, if there was one.
pub(super) fn end_damaged(tx: &Connection, id: &JobId, now_ms: i64) -> Result<Option<Revision>, StoreError> {
    let mut query = tx.prepare_cached("SELECT job_id, state, doc, doc_version FROM jobs WHERE job_id = ?")?;
    let found = query.query_one([id.as_str()], |row| Ok(document(row))).optional()?;
    match found.transpose()? {
        Some(Document::Damaged(job, _)) => bury(tx, &job, now_ms).map(Some),
        Some(Document::Whole(_) | Document::Newer(_)) | None => Ok(None),
    }
}

fn bury(tx: &Connection, job: &Job, now_ms: i64) -> Result<Revision, StoreError> {
    let revision = next_revision(tx)?;
    tx.prepare_cached(
        "UPDATE jobs SET damaged_doc = doc, doc = ?, doc_version = ?, state = ?,
                         ended_ms = COALESCE(ended_ms, ?), revision = ?
         WHERE job_id = ?",
    )?
    .execute(params![json(job), DOC_VERSION, job.state.name(), now_ms, revision.0, job.id.as_str()])?;
    secrets::forget(tx, &job.id)?;
    Ok(revision)
}

fn write_back(tx: &Connection, job: &Job, now_ms: i64) -> Result<Revision, StoreError> {
    let ended_ms = job.state.is_final().then_some(now_ms);
    let revision = next_revision(tx)?;
    tx.prepare_cached(
        "UPDATE jobs SET doc = ?, doc_version = ?, state = ?, ended_ms = ?, revision = ? WHERE job_id = ?",
    )?
    .execute(params![
        json(job),
        DOC_VERSION,
        job.state.name(),
        ended_ms,
        revision.0,
        job.id.as_str()
    ])?;
    if ended_ms.is_some() {
        secrets::forget(tx, &job.id)?;
    }
    Ok(revision)
}
