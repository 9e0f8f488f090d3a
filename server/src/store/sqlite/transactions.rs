//! What is done in one transaction.

use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

use super::rows::{job, job_id, json};
use crate::job::{Change, Event, Job, JobId};
use crate::store::types::{Claim, Lease, NewJob, StoreError, UpdateError};

pub(super) async fn insert(tx: &mut SqliteConnection, new: NewJob) -> Result<(), StoreError> {
    let id = new.job.id.as_str();
    sqlx::query(
        "INSERT INTO jobs (job_id, token_hash, user_id, state, doc, created_ms, lease_owner, lease_epoch,
                           lease_until_ms, fetch_timeout_ms, fetched_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id)
    .bind(new.token.0.as_slice())
    .bind(&new.user_id)
    .bind(new.job.state.name())
    .bind(json(&new.job))
    .bind(new.created_ms)
    .bind(&new.owner.0)
    .bind(Lease::FIRST_EPOCH)
    .bind(new.lease_until_ms)
    .bind(new.fetch_timeout_ms)
    .bind(new.created_ms)
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
    Ok(())
}

pub(super) async fn apply(
    tx: &mut SqliteConnection,
    id: JobId,
    lease: Option<Lease>,
    event: Event,
    now_ms: i64,
) -> Result<(Job, Change), UpdateError> {
    let row = sqlx::query("SELECT job_id, doc, lease_owner, lease_epoch FROM jobs WHERE job_id = ?")
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
    let mut job = job(&row)?;
    let change = job.apply(event, now_ms)?;
    if change == Change::Changed {
        write_back(tx, &job, now_ms).await?;
    }
    Ok((job, change))
}

async fn write_back(tx: &mut SqliteConnection, job: &Job, now_ms: i64) -> Result<(), StoreError> {
    let ended_ms = job.state.is_final().then_some(now_ms);
    sqlx::query("UPDATE jobs SET doc = ?, state = ?, ended_ms = ? WHERE job_id = ?")
        .bind(json(job))
        .bind(job.state.name())
        .bind(ended_ms)
        .bind(job.id.as_str())
        .execute(&mut *tx)
        .await?;
    if ended_ms.is_some() {
        let query = sqlx::query("DELETE FROM secrets WHERE job_id = ?");
        query.bind(job.id.as_str()).execute(&mut *tx).await?;
    }
    Ok(())
}

pub(super) async fn take_leases(
    tx: &mut SqliteConnection,
    claim: Claim,
) -> Result<Vec<(JobId, Lease)>, StoreError> {
    let mut query = QueryBuilder::<Sqlite>::new("UPDATE jobs SET lease_owner = ");
    query.push_bind(claim.owner.0.clone());
    query.push(", lease_epoch = lease_epoch + 1, lease_until_ms = ").push_bind(claim.until_ms);
    query.push(" WHERE job_id IN (SELECT job_id FROM jobs WHERE ended_ms IS NULL AND (lease_until_ms <= ");
    query.push_bind(claim.now_ms);
    for dead in &claim.dead {
        query.push(" OR lease_owner = ").push_bind(dead.0.clone());
    }
    query.push(") ORDER BY job_id LIMIT ").push_bind(claim.limit);
    query.push(") RETURNING job_id, lease_epoch");
    let rows = query.build().fetch_all(tx).await?;
    let leases = rows.iter().map(|row| {
        let lease = Lease { owner: claim.owner.clone(), epoch: row.try_get("lease_epoch")? };
        Ok((job_id(row)?, lease))
    });
    leases.collect()
}
