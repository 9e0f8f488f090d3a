//! What is done in one transaction.

use sqlx::{Row as _, SqliteConnection};

use super::changes::next_revision;
use super::leases::{prolong, until};
use super::rows::{DOC_VERSION, Document, check_version, document, job_id, json};
use crate::job::{Change, Event, Job, JobId};
use crate::store::types::{Created, Lease, NewJob, Revision, StoreError, UpdateError};

/// Records a job. Gives the revision of this write, if there was one.
pub(super) async fn insert(
    tx: &mut SqliteConnection,
    new: NewJob,
    now_ms: i64,
) -> Result<(Created, Option<Revision>), StoreError> {
    let id = new.job.id.as_str();
    if let Some(request) = new.request {
        let before = sqlx::query("SELECT job_id, request_hash FROM jobs WHERE token_hash = ?")
            .bind(new.token.0.as_slice())
            .fetch_optional(&mut *tx)
            .await?;
        if let Some(before) = before {
            let hash: Option<&[u8]> = before.try_get("request_hash")?;
            let is_same = hash == Some(request.0.as_slice());
            let created = if is_same { Created::Before(job_id(&before)?) } else { Created::Conflict };
            return Ok((created, None));
        }
    }
    prolong(tx, &new.owner, until(now_ms, new.lease)).await?;
    let revision = next_revision(tx).await?;
    sqlx::query(
        "INSERT INTO jobs (job_id, token_hash, user_id, state, doc, doc_version, created_ms, lease_owner,
                           lease_epoch, lease_until_ms, fetch_timeout_ms, fetched_ms, request_hash, revision)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id)
    .bind(new.token.0.as_slice())
    .bind(&new.user_id)
    .bind(new.job.state.name())
    .bind(json(&new.job))
    .bind(DOC_VERSION)
    .bind(new.created_ms)
    .bind(&new.owner.0)
    .bind(Lease::FIRST_EPOCH)
    // Only servers of before migration 0002 read it.
    .bind(i64::MAX)
    .bind(new.fetch_timeout_ms)
    .bind(now_ms)
    .bind(new.request.map(|request| request.0.to_vec()))
    .bind(revision.0)
    .execute(&mut *tx)
    .await?;
    sqlx::query("INSERT INTO programs (job_id, sql, headings) VALUES (?, ?, ?)")
        .bind(id)
        .bind(&new.sql)
        .bind(json(&new.headings))
        .execute(&mut *tx)
        .await?;
    for (step, spec) in (0_i64..).zip(&new.step_specs) {
        let query = sqlx::query("INSERT INTO step_specs (job_id, step, spec) VALUES (?, ?, ?)");
        query.bind(id).bind(step).bind(spec).execute(&mut *tx).await?;
    }
    for (name, secret) in &new.secrets {
        let query = sqlx::query("INSERT INTO secrets (job_id, name, value) VALUES (?, ?, ?)");
        query.bind(id).bind(name).bind(secret.expose()).execute(&mut *tx).await?;
    }
    Ok((Created::New, Some(revision)))
}

/// The job after the event, and the revision of this write; `None`: the event changed nothing.
pub(super) async fn apply(
    tx: &mut SqliteConnection,
    id: JobId,
    lease: Option<Lease>,
    event: Event,
    now_ms: i64,
) -> Result<(Job, Option<Revision>), UpdateError> {
    let row = sqlx::query(
        "SELECT job_id, state, doc, doc_version, lease_owner, lease_epoch FROM jobs WHERE job_id = ?",
    )
    .bind(id.as_str())
    .fetch_optional(&mut *tx)
    .await
    .map_err(StoreError::from)?
    .ok_or(UpdateError::NotFound)?;
    if let Some(lease) = lease {
        let owner: Option<String> = row.try_get("lease_owner").map_err(StoreError::from)?;
        let epoch: i64 = row.try_get("lease_epoch").map_err(StoreError::from)?;
        if owner != Some(lease.owner.0) || epoch != lease.epoch {
            return Err(UpdateError::Fenced);
        }
    }
    check_version(&row)?;
    let mut job = match document(&row)? {
        Document::Whole(job) => job,
        Document::Damaged(_, error) | Document::Newer(error) => return Err(error.into()),
    };
    let revision = match job.apply(event, now_ms)? {
        Change::Changed => Some(write_back(tx, &job, now_ms).await?),
        Change::Unchanged => None,
    };
    Ok((job, revision))
}

/// Ends a job whose document is damaged, if it is. Its state's name is all that is kept, and the document itself for a
/// person who looks into it. Gives the revision of this write, if there was one.
pub(super) async fn end_damaged(
    tx: &mut SqliteConnection,
    id: JobId,
    now_ms: i64,
) -> Result<Option<Revision>, StoreError> {
    let row = sqlx::query("SELECT job_id, state, doc, doc_version FROM jobs WHERE job_id = ?")
        .bind(id.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    let Some(row) = row else { return Ok(None) };
    match document(&row)? {
        Document::Damaged(job, _) => bury(tx, &job, now_ms).await.map(Some),
        Document::Whole(_) | Document::Newer(_) => Ok(None),
    }
}

async fn bury(tx: &mut SqliteConnection, job: &Job, now_ms: i64) -> Result<Revision, StoreError> {
    let revision = next_revision(tx).await?;
    sqlx::query(
        "UPDATE jobs SET damaged_doc = doc, doc = ?, doc_version = ?, state = ?,
                         ended_ms = COALESCE(ended_ms, ?), revision = ?
         WHERE job_id = ?",
    )
    .bind(json(job))
    .bind(DOC_VERSION)
    .bind(job.state.name())
    .bind(now_ms)
    .bind(revision.0)
    .bind(job.id.as_str())
    .execute(&mut *tx)
    .await?;
    forget_secrets(tx, &job.id).await?;
    Ok(revision)
}

async fn write_back(tx: &mut SqliteConnection, job: &Job, now_ms: i64) -> Result<Revision, StoreError> {
    let ended_ms = job.state.is_final().then_some(now_ms);
    let revision = next_revision(tx).await?;
    sqlx::query(
        "UPDATE jobs SET doc = ?, doc_version = ?, state = ?, ended_ms = ?, revision = ? WHERE job_id = ?",
    )
    .bind(json(job))
    .bind(DOC_VERSION)
    .bind(job.state.name())
    .bind(ended_ms)
    .bind(revision.0)
    .bind(job.id.as_str())
    .execute(&mut *tx)
    .await?;
    if ended_ms.is_some() {
        forget_secrets(tx, &job.id).await?;
    }
    Ok(revision)
}

async fn forget_secrets(tx: &mut SqliteConnection, id: &JobId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM secrets WHERE job_id = ?").bind(id.as_str()).execute(tx).await?;
    Ok(())
}
