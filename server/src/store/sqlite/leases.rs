//! Leases: one row for each server, and who holds which job.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, SqliteExecutor};

use super::rows::{DOC_VERSION, job_id, json, readable};
use crate::job::JobId;
use crate::store::types::{Claim, Lease, ServerId, StoreError};

/// Owner of a job that was given back.
const NOBODY: &str = "";
/// How long the row of a server that is gone stays; it counts for nothing.
const KEEP_ROWS: Duration = Duration::from_secs(3600);

/// Prolongs the lease of this server, or begins it.
pub(super) async fn prolong(
    tx: &mut SqliteConnection,
    me: &ServerId,
    until_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO servers VALUES (?, ?)
         ON CONFLICT (server_id) DO UPDATE SET alive_until_ms = MAX(alive_until_ms, excluded.alive_until_ms)",
    )
    .bind(&me.0)
    .bind(until_ms)
    .execute(tx)
    .await?;
    Ok(())
}

/// Who holds jobs that have not ended: a look at the index for each, however many jobs there are.
pub(super) async fn owners(connection: impl SqliteExecutor<'_>) -> Result<BTreeSet<String>, StoreError> {
    let owners = sqlx::query_scalar(
        "WITH RECURSIVE owners (owner) AS (
             SELECT MIN(lease_owner) FROM jobs WHERE ended_ms IS NULL
             UNION ALL
             SELECT (SELECT MIN(lease_owner) FROM jobs WHERE ended_ms IS NULL AND lease_owner > owner)
             FROM owners WHERE owner IS NOT NULL
         ) SELECT owner FROM owners WHERE owner IS NOT NULL",
    );
    Ok(owners.fetch_all(connection).await?.into_iter().collect())
}

/// Servers whose lease has not run out.
pub(super) async fn alive(
    connection: impl SqliteExecutor<'_>,
    now_ms: i64,
) -> Result<BTreeSet<String>, StoreError> {
    let alive = sqlx::query_scalar("SELECT server_id FROM servers WHERE alive_until_ms > ?").bind(now_ms);
    Ok(alive.fetch_all(connection).await?.into_iter().collect())
}

/// Whether this server's lease has not run out.
pub(super) async fn lasts(
    connection: impl SqliteExecutor<'_>,
    server: &ServerId,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM servers WHERE server_id = ? AND alive_until_ms > ?");
    Ok(row.bind(&server.0).bind(now_ms).fetch_optional(connection).await?.is_some())
}

/// Whose jobs may be taken. A server never takes its own: they are its own until another has taken them.
pub(super) fn free(claim: &Claim, owners: BTreeSet<String>, alive: &BTreeSet<String>) -> Vec<String> {
    let is_dead = |owner: &String| claim.dead.iter().any(|dead| dead.0 == *owner);
    let is_free = |owner: &String| *owner != claim.owner.0 && (!alive.contains(owner) || is_dead(owner));
    owners.into_iter().filter(is_free).collect()
}

pub(super) async fn claim(
    tx: &mut SqliteConnection,
    claim: Claim,
    now_ms: i64,
) -> Result<Vec<(JobId, Lease)>, StoreError> {
    // What may be taken is looked at in the transaction that takes it.
    let free = free(&claim, owners(&mut *tx).await?, &alive(&mut *tx, now_ms).await?);
    if free.is_empty() {
        return Ok(Vec::new());
    }
    prolong(tx, &claim.owner, until(now_ms, claim.lease)).await?;
    let mut query = QueryBuilder::<Sqlite>::new("UPDATE jobs SET lease_owner = ");
    query.push_bind(claim.owner.0.clone());
    query.push(", lease_epoch = lease_epoch + 1 WHERE job_id IN (SELECT job_id FROM jobs");
    query.push(" WHERE ended_ms IS NULL AND doc_version <= ").push_bind(DOC_VERSION);
    query.push(" AND lease_owner IN (");
    let mut owners = query.separated(", ");
    for owner in free {
        owners.push_bind(owner);
    }
    query.push(") AND job_id NOT IN (SELECT value FROM json_each(").push_bind(json(&claim.except));
    query.push(")) ORDER BY job_id LIMIT ").push_bind(claim.limit);
    query.push(") RETURNING job_id, lease_epoch");
    let rows = query.build().fetch_all(tx).await?;
    Ok(readable(&rows, |row| {
        let lease = Lease { owner: claim.owner.clone(), epoch: row.try_get("lease_epoch")? };
        Ok((job_id(row)?, lease))
    }))
}

pub(super) async fn release(tx: &mut SqliteConnection, id: &JobId, lease: &Lease) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE jobs SET lease_owner = ?
         WHERE job_id = ? AND lease_owner = ? AND lease_epoch = ? AND ended_ms IS NULL",
    )
    .bind(NOBODY)
    .bind(id.as_str())
    .bind(&lease.owner.0)
    .bind(lease.epoch)
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn heartbeat(
    tx: &mut SqliteConnection,
    me: &ServerId,
    now_ms: i64,
    lease: Duration,
    tolerance: Duration,
) -> Result<(), StoreError> {
    let alive: Option<i64> =
        sqlx::query_scalar("SELECT alive_ms FROM presence").fetch_optional(&mut *tx).await?;
    let absent = now_ms - alive.unwrap_or(now_ms);
    if absent > millis(tolerance) {
        sqlx::query("UPDATE jobs SET fetched_ms = fetched_ms + ? WHERE ended_ms IS NULL")
            .bind(absent)
            .execute(&mut *tx)
            .await?;
    }
    sqlx::query(
        "INSERT INTO presence VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET alive_ms = excluded.alive_ms",
    )
    .bind(now_ms)
    .execute(&mut *tx)
    .await?;
    sqlx::query("DELETE FROM servers WHERE alive_until_ms < ?")
        .bind(now_ms.saturating_sub(millis(KEEP_ROWS)))
        .execute(&mut *tx)
        .await?;
    prolong(tx, me, until(now_ms, lease)).await
}

pub(super) fn until(now_ms: i64, lease: Duration) -> i64 {
    now_ms.saturating_add(millis(lease))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_of_the_living_and_the_claimers_own_are_not_free() {
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
        let claim = Claim {
            owner: ServerId("me".to_owned()),
            dead: vec![ServerId("killed".to_owned())],
            except: Vec::new(),
            lease: Duration::from_secs(1),
            limit: 1,
        };
        let owners = set(&[NOBODY, "me", "alive", "killed", "expired"]);
        assert_eq!(free(&claim, owners, &set(&["alive", "killed"])), [NOBODY, "expired", "killed"]);
    }
}
