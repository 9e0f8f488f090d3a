//! The queries and writes of the trait [`Store`].

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rusqlite::{OptionalExtension as _, Row, params, params_from_iter};
use tokio::sync::watch;

use sqlflow_job::{Change, Event, Job, JobId, TokenHash};

use super::listing::listing;
use super::rows::{job_id, json, listed, readable, stored};
use super::transactions::insert;
use super::writer::Turn;
use super::{SqliteStore, leases, secrets, writability};
use crate::Store;
use crate::known_job::KnownJob;
use crate::secret_keys::Place;
use crate::types::{
    Changes, Claim, Created, EndedJob, JobFilter, JobRecord, Lease, NewJob, Revision, Secret, ServerId,
    StoreError, Unfetched, UpdateError,
};

#[async_trait]
impl Store for SqliteStore {
    async fn create(&self, new: NewJob) -> Result<Created, StoreError> {
        let (id, now_ms) = (new.job.id.clone(), self.now_ms());
        let keys = Arc::clone(&self.inner.keys);
        let (created, written) = self.write(move |tx| insert(tx, &new, &keys, now_ms)).await?;
        self.written(&id, written);
        Ok(created)
    }

    async fn resolve(&self, token: TokenHash) -> Result<Option<JobId>, StoreError> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached("SELECT job_id FROM jobs WHERE token_hash = ?")?;
            query.query_one([token.0], |row| Ok(job_id(row))).optional()?.transpose()
        })
        .await
    }

    async fn load(&self, id: &JobId) -> Result<Option<JobRecord>, StoreError> {
        match self.record(id).await {
            Err(error @ StoreError::Damaged(..)) => {
                self.end_damaged(id, &error).await?;
                self.record(id).await
            }
            loaded => loaded,
        }
    }

    async fn program(&self, id: &JobId) -> Result<Option<String>, StoreError> {
        self.text("SELECT sql FROM programs WHERE job_id = ?", [id.to_string()]).await
    }

    async fn headings(&self, id: &JobId) -> Result<Vec<String>, StoreError> {
        let headings = self.text("SELECT headings FROM programs WHERE job_id = ?", [id.to_string()]).await?;
        // Headings are for display only, so the job continues without them.
        let headings = headings.map_or_else(|| Ok(Vec::new()), |text| serde_json::from_str(&text));
        Ok(headings.unwrap_or_else(|error| {
            tracing::error!(job = %id, %error, "the stored headings of the job are damaged");
            Vec::new()
        }))
    }

    async fn step_spec(&self, id: &JobId, step: u32) -> Result<Option<String>, StoreError> {
        let sql = "SELECT spec FROM step_specs WHERE job_id = ? AND step = ?";
        self.text(sql, (id.to_string(), step)).await
    }

    async fn secret(&self, id: &JobId, name: &str) -> Result<Option<Secret>, StoreError> {
        let place = (id.clone(), name.to_owned());
        let found = self.read(move |connection| secrets::find(connection, &place.0, &place.1)).await?;
        found.map(|stored| self.inner.keys.open(&Place { job: id, name }, &stored)).transpose()
    }

    async fn update(
        &self,
        id: &JobId,
        lease: Option<&Lease>,
        event: Event,
        now_ms: i64,
    ) -> Result<(Job, Change), UpdateError> {
        match self.apply(id, lease, event.clone(), now_ms).await {
            Err(UpdateError::Store(error @ StoreError::Damaged(..))) => {
                self.end_damaged(id, &error).await?;
                self.apply(id, lease, event, now_ms).await
            }
            applied => applied,
        }
    }

    async fn list(&self, filter: JobFilter) -> Result<Vec<JobRecord>, StoreError> {
        let (sql, values) = listing(filter);
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&sql)?;
            readable(query.query(params_from_iter(values))?, listed)
        })
        .await
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<(JobId, Lease)>, StoreError> {
        let now_ms = self.now_ms();
        let (owners, alive) = self.owners(now_ms).await?;
        if leases::free(&claim, owners, &alive).is_empty() {
            return Ok(Vec::new());
        }
        self.write(move |tx| leases::claim(tx, &claim, now_ms)).await
    }

    async fn release(&self, id: &JobId, lease: &Lease) -> Result<(), StoreError> {
        let (id, lease) = (id.clone(), lease.clone());
        self.write(move |tx| leases::release(tx, &id, &lease)).await
    }

    async fn held(
        &self,
        me: &ServerId,
        after: Option<&JobId>,
        limit: u32,
    ) -> Result<Vec<(JobId, Lease)>, StoreError> {
        let (me, after) = (me.clone(), after.map(JobId::to_string).unwrap_or_default());
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT job_id, lease_epoch FROM jobs
                 WHERE ended_ms IS NULL AND lease_owner = ? AND job_id > ? ORDER BY job_id LIMIT ?",
            )?;
            readable(query.query(params![me.0, after, limit])?, |row| {
                Ok((job_id(row)?, Lease { owner: me.clone(), epoch: row.get("lease_epoch")? }))
            })
        })
        .await
    }

    async fn live(&self, ids: &[JobId]) -> Result<HashSet<JobId>, StoreError> {
        let ids = json(&ids);
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT job_id FROM jobs WHERE ended_ms IS NULL AND job_id IN (SELECT value FROM json_each(?))",
            )?;
            Ok(readable(query.query([ids])?, job_id)?.into_iter().collect())
        })
        .await
    }

    async fn lease_owners(&self, me: &ServerId) -> Result<Vec<ServerId>, StoreError> {
        let (owners, alive) = self.owners(self.now_ms()).await?;
        let others = owners.into_iter().filter(|owner| *owner != me.0 && alive.contains(owner));
        Ok(others.map(ServerId).collect())
    }

    async fn lease_lasts(&self, server: &ServerId) -> Result<bool, StoreError> {
        let (server, now_ms) = (server.clone(), self.now_ms());
        self.read(move |connection| leases::lasts(connection, &server, now_ms)).await
    }

    async fn heartbeat(&self, me: &ServerId, lease: Duration, tolerance: Duration) -> Result<(), StoreError> {
        let (me, this) = (me.clone(), self.clone());
        let written = self
            .inner
            .writer
            .write(Turn::First, move |tx| {
                // The time of the write, not that of the call.
                leases::heartbeat(tx, &me, this.now_ms(), lease, tolerance)
            })
            .await;
        self.inner.writability.note(&written, Instant::now());
        written
    }

    async fn fetched(&self, id: &JobId) -> Result<(), StoreError> {
        let sql = "UPDATE jobs SET fetched_ms = MAX(fetched_ms, ?) WHERE job_id = ?";
        self.execute(Turn::Unsynced, sql, (self.now_ms(), id.to_string())).await
    }

    async fn unfetched(&self, after: Option<&Unfetched>, limit: u32) -> Result<Vec<Unfetched>, StoreError> {
        let due_ms = after.map_or(i64::MIN, |it| it.due_ms);
        let id = after.map(|it| it.id.to_string()).unwrap_or_default();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT job_id, fetch_timeout_ms, fetched_ms + fetch_timeout_ms AS due_ms FROM jobs
                 WHERE ended_ms IS NULL AND fetch_timeout_ms > 0 AND fetched_ms + fetch_timeout_ms < (SELECT alive_ms FROM presence)
                   AND (fetched_ms + fetch_timeout_ms, job_id) > (?, ?)
                 ORDER BY fetched_ms + fetch_timeout_ms, job_id LIMIT ?",
            )?;
            readable(query.query(params![due_ms, id, limit])?, |row| {
                Ok(Unfetched {
                    id: job_id(row)?,
                    timeout_ms: row.get("fetch_timeout_ms")?,
                    due_ms: row.get("due_ms")?,
                })
            })
        })
        .await
    }

    async fn advance_plain_cursor(&self, id: &JobId, from: u64, to: u64) -> Result<(), StoreError> {
        let sql = "UPDATE jobs SET plain_cursor = ? WHERE job_id = ? AND plain_cursor = ?";
        self.execute(Turn::Unsynced, sql, (stored(to), id.to_string(), stored(from))).await
    }

    async fn ended_before(
        &self,
        ended_ms: i64,
        after: Option<&EndedJob>,
        limit: u32,
    ) -> Result<Vec<EndedJob>, StoreError> {
        let after_ms = after.map_or(i64::MIN, |it| it.ended_ms);
        let id = after.map(|it| it.id.to_string()).unwrap_or_default();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT job_id, ended_ms FROM jobs WHERE ended_ms < ? AND (ended_ms, job_id) > (?, ?)
                 ORDER BY ended_ms, job_id LIMIT ?",
            )?;
            let ended = |row: &Row<'_>| Ok(EndedJob { id: job_id(row)?, ended_ms: row.get("ended_ms")? });
            readable(query.query(params![ended_ms, after_ms, id, limit])?, ended)
        })
        .await
    }

    async fn counts(&self) -> Result<Vec<(String, i64)>, StoreError> {
        self.read(|connection| {
            let mut query = connection.prepare_cached("SELECT state, jobs FROM job_counts")?;
            let counts = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(counts.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    async fn live_jobs_of(&self, principal: &str) -> Result<u64, StoreError> {
        // In the index of principals.
        let sql = "SELECT COUNT(*) FROM jobs WHERE principal = ? AND state IN ('pending', 'running')";
        self.number(sql, principal).await
    }

    async fn program_bytes_of(&self, principal: &str) -> Result<u64, StoreError> {
        // The length is in a row's header: the texts are not read.
        let sql = "SELECT COALESCE(SUM(OCTET_LENGTH(sql)), 0) FROM jobs JOIN programs USING (job_id) WHERE principal = ?";
        self.number(sql, principal).await
    }

    async fn jobs_of(&self, principal: &str) -> Result<Vec<JobId>, StoreError> {
        let principal = principal.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached("SELECT job_id FROM jobs WHERE principal = ?")?;
            readable(query.query([principal])?, job_id)
        })
        .await
    }

    async fn can_record(&self) -> Result<(), String> {
        let path = self.inner.path.clone();
        // This check is first, because its error names the fix. On a full disk the heartbeat may fail too.
        let checked = tokio::task::spawn_blocking(move || writability::check_space(&path)).await;
        checked.unwrap_or_else(|_| Err("the server is shutting down".to_owned()))?;
        self.inner.writability.check(Instant::now())
    }

    async fn remove(&self, id: &JobId) -> Result<(), StoreError> {
        let sql = "DELETE FROM jobs WHERE job_id = ? AND ended_ms IS NOT NULL";
        self.execute(Turn::InOrder, sql, [id.to_string()]).await
    }

    async fn model_owner(&self, model: &str) -> Result<Option<String>, StoreError> {
        self.text("SELECT principal FROM models WHERE name = ?", [model.to_owned()]).await
    }

    async fn models_of(&self, principal: &str, limit: u32) -> Result<Vec<String>, StoreError> {
        let principal = principal.to_owned();
        self.read(move |connection| {
            let sql = "SELECT name FROM models WHERE principal = ? ORDER BY name LIMIT ?";
            let mut query = connection.prepare_cached(sql)?;
            let names = query.query_map(params![principal, limit], |row| row.get(0))?;
            Ok(names.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn own_model(&self, job: &JobId, model: &str) -> Result<Option<String>, StoreError> {
        if let Some(owner) = self.model_owner(model).await? {
            return Ok(Some(owner));
        }
        let (job, model) = (job.to_string(), model.to_owned());
        self.write(move |tx| {
            tx.prepare_cached(
                "INSERT OR IGNORE INTO models (name, principal)
                 SELECT ?, principal FROM jobs WHERE job_id = ? AND principal IS NOT NULL",
            )?
            .execute(params![model, job])?;
            let mut query = tx.prepare_cached("SELECT principal FROM models WHERE name = ?")?;
            Ok(query.query_one([model], |row| row.get(0)).optional()?)
        })
        .await
    }

    async fn disown_model(&self, model: &str) -> Result<(), StoreError> {
        self.execute(Turn::InOrder, "DELETE FROM models WHERE name = ?", [model.to_owned()]).await
    }

    async fn changes(&self, since: Revision, limit: u32) -> Result<Changes, StoreError> {
        self.inner.changes(since, limit).await
    }

    fn watch(&self, id: &JobId) -> watch::Receiver<KnownJob> {
        self.inner.watchers.watch(id)
    }
}
