//! Leases: one row for each server, and the owner of each job.

use std::collections::BTreeSet;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};
use sqlflow_job::JobId;

use super::rows::{DOC_VERSION, job_id, json, readable};
use crate::types::{Claim, Lease, ServerId, StoreError};

/// Owner of a released job.
const NOBODY: &str = "";
/// Time for which the row of a dead server stays. It has no effect.
const KEEP_ROWS: Duration = Duration::from_secs(3600);

/// Renews the lease of this server, or starts it.
pub(super) fn prolong(tx: &Connection, me: &ServerId, until_ms: i64) -> Result<(), StoreError> {
    let mut query = tx.prepare_cached(
        "INSERT INTO servers VALUES (?, ?)
         ON CONFLICT (server_id) DO UPDATE SET alive_until_ms = MAX(alive_until_ms, excluded.alive_until_ms)",
    )?;
    query.execute(params![me.0, until_ms])?;
    Ok(())
}

/// The owners of live jobs: one index lookup for each, however many jobs there are.
pub(super) fn owners(connection: &Connection) -> Result<BTreeSet<String>, StoreError> {
    let mut owners = connection.prepare_cached(
        "WITH RECURSIVE owners (owner) AS (
             SELECT MIN(lease_owner) FROM jobs WHERE ended_ms IS NULL
             UNION ALL
             SELECT (SELECT MIN(lease_owner) FROM jobs WHERE ended_ms IS NULL AND lease_owner > owner)
             FROM owners WHERE owner IS NOT NULL
         ) SELECT owner FROM owners WHERE owner IS NOT NULL",
    )?;
    let owners = owners.query_map([], |row| row.get(0))?;
    Ok(owners.collect::<rusqlite::Result<_>>()?)
}

/// Servers whose lease is valid.
pub(super) fn alive(connection: &Connection, now_ms: i64) -> Result<BTreeSet<String>, StoreError> {
    let mut alive = connection.prepare_cached("SELECT server_id FROM servers WHERE alive_until_ms > ?")?;
    let alive = alive.query_map([now_ms], |row| row.get(0))?;
    Ok(alive.collect::<rusqlite::Result<_>>()?)
}

/// Whether this server's lease is valid.
pub(super) fn lasts(connection: &Connection, server: &ServerId, now_ms: i64) -> Result<bool, StoreError> {
    let mut query =
        connection.prepare_cached("SELECT 1 FROM servers WHERE server_id = ? AND alive_until_ms > ?")?;
    Ok(query.exists(params![server.0, now_ms])?)
}

/// The owners whose jobs may be claimed. A server does not claim its own: it holds them until another server claims
/// them.
pub(super) fn free(claim: &Claim, owners: BTreeSet<String>, alive: &BTreeSet<String>) -> Vec<String> {
    let is_dead = |owner: &String| claim.dead.iter().any(|dead| dead.0 == *owner);
    let is_free = |owner: &String| *owner != claim.owner.0 && (!alive.contains(owner) || is_dead(owner));
    owners.into_iter().filter(is_free).collect()
}

pub(super) fn claim(tx: &Connection, claim: &Claim, now_ms: i64) -> Result<Vec<(JobId, Lease)>, StoreError> {
    // The candidates are read in the transaction that claims them.
    let free = free(claim, owners(tx)?, &alive(tx, now_ms)?);
    if free.is_empty() {
        return Ok(Vec::new());
    }
    prolong(tx, &claim.owner, until(now_ms, claim.lease))?;
    let mut query = tx.prepare_cached(
        "UPDATE jobs SET lease_owner = ?, lease_epoch = lease_epoch + 1 WHERE job_id IN (
             SELECT job_id FROM jobs
             WHERE ended_ms IS NULL AND doc_version <= ?
               AND lease_owner IN (SELECT value FROM json_each(?))
               AND job_id NOT IN (SELECT value FROM json_each(?))
             ORDER BY job_id LIMIT ?)
         RETURNING job_id, lease_epoch",
    )?;
    let rows =
        query.query(params![claim.owner.0, DOC_VERSION, json(&free), json(&claim.except), claim.limit])?;
    readable(rows, |row| {
        Ok((job_id(row)?, Lease { owner: claim.owner.clone(), epoch: row.get("lease_epoch")? }))
    })
}

pub(super) fn release(tx: &Connection, id: &JobId, lease: &Lease) -> Result<(), StoreError> {
    let mut query = tx.prepare_cached(
        "UPDATE jobs SET lease_owner = ?
         WHERE job_id = ? AND lease_owner = ? AND lease_epoch = ? AND ended_ms IS NULL",
    )?;
    query.execute(params![NOBODY, id.as_str(), lease.owner.0, lease.epoch])?;
    Ok(())
}

pub(super) fn heartbeat(
    tx: &Connection,
    me: &ServerId,
    now_ms: i64,
    lease: Duration,
    tolerance: Duration,
) -> Result<(), StoreError> {
    let mut alive = tx.prepare_cached("SELECT alive_ms FROM presence")?;
    let alive: Option<i64> = alive.query_one([], |row| row.get(0)).optional()?;
    let absent = now_ms - alive.unwrap_or(now_ms);
    if absent > millis(tolerance) {
        tx.prepare_cached("UPDATE jobs SET fetched_ms = fetched_ms + ? WHERE ended_ms IS NULL")?
            .execute([absent])?;
    }
    tx.prepare_cached(
        "INSERT INTO presence VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET alive_ms = excluded.alive_ms",
    )?
    .execute([now_ms])?;
    tx.prepare_cached("DELETE FROM servers WHERE alive_until_ms < ?")?
        .execute([now_ms.saturating_sub(millis(KEEP_ROWS))])?;
    prolong(tx, me, until(now_ms, lease))
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
    fn jobs_of_live_servers_and_of_the_claimer_are_not_claimable() {
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
