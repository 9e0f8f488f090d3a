//! The store in one SQLite file. Several processes on one machine may use it at the same time.

mod busy;
mod changes;
mod database;
mod leases;
mod listing;
mod migrating;
mod migrations;
mod readers;
mod rows;
mod small_logs;
mod survey;
mod transactions;
mod writability;
mod writer;

use std::collections::{BTreeSet, HashSet};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};
use tokio::sync::watch;

use self::changes::Own;
use self::database::open_to_write;
use self::listing::listing;
#[cfg(test)]
pub(super) use self::migrations::older_file;
use self::readers::Readers;
use self::rows::{RECORD_COLUMNS, job_id, json, listed, readable, record, stored};
pub use self::survey::{ServerLease, Survey, SurveyError, Surveyed, SurveyedDocument};
use sqlflow_job::{Change, Event, Job, JobId, TokenHash};
use sqlflow_os::clock;

use self::transactions::{apply, end_damaged, insert};
use self::writability::Writability;
use self::writer::{Turn, WriteError, Writer};
use super::Store;
use super::job_watchers::JobWatchers;
use super::known_job::KnownJob;
use super::types::{
    Changes, Claim, Created, EndedJob, JobFilter, JobRecord, Lease, NewJob, Revision, Secret, ServerId,
    StoreError, Unfetched, UpdateError,
};

/// Time for which a write waits for the other writes of this process.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// A handle to the store; clones share it.
#[derive(Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    writer: Writer,
    readers: Arc<Readers>,
    watchers: JobWatchers,
    own: Own,
    clock: Clock,
    writability: Writability,
}

/// The store's time, in milliseconds since the Unix epoch.
type Clock = Box<dyn Fn() -> i64 + Send + Sync>;

/// The path of a file beside the state file, with this suffix.
fn beside(state_file: &Path, suffix: &str) -> PathBuf {
    let mut path = state_file.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

impl SqliteStore {
    /// Opens the file, and creates it if it does not exist. Migrates an older file, and rejects one of a newer
    /// server.
    ///
    /// # Errors
    /// The file cannot be opened, or is no store of a version that this server knows.
    pub async fn open(path: &Path) -> anyhow::Result<Self> {
        Self::open_with(path, Box::new(clock::now_ms)).await
    }

    /// With a custom clock. By default it is the system clock, so that all servers with the file judge leases by one
    /// clock.
    pub(super) async fn open_with(path: &Path, clock: Clock) -> anyhow::Result<Self> {
        let lock = migrating::lock(path).await?;
        let state_file = path.to_owned();
        let writer = tokio::task::spawn_blocking(move || open_up_to_date(&state_file)).await??;
        drop(lock);
        let state_file = path.to_owned();
        let open = Box::new(move || open_to_write(&state_file));
        let writer = Writer::begin(writer, open, path.to_owned(), TURN_TIMEOUT)
            .context("cannot start the thread that writes the state")?;
        let readers = Arc::new(Readers::of(path.to_owned()));
        let (path, watchers, own) = (path.to_owned(), JobWatchers::default(), Own::default());
        let writability = Writability::begin(Instant::now());
        let inner = Arc::new(Inner { path, writer, readers, watchers, own, clock, writability });
        let seen = inner.revision().await?;
        tokio::spawn(changes::follow(Arc::downgrade(&inner), seen));
        Ok(Self { inner })
    }

    /// Closes the file after all current calls. The last process that closes it removes the files that SQLite keeps
    /// beside it.
    pub async fn close(self) {
        self.inner.readers.close().await;
        self.inner.writer.close().await;
    }

    fn now_ms(&self) -> i64 {
        (self.inner.clock)()
    }

    async fn apply(
        &self,
        id: &JobId,
        lease: Option<&Lease>,
        event: Event,
        now_ms: i64,
    ) -> Result<(Job, Change), UpdateError> {
        let (owned_id, lease) = (id.clone(), lease.cloned());
        let turn = if event.is_found_again() { Turn::Unsynced } else { Turn::InOrder };
        let (job, written) = self
            .inner
            .writer
            .write(turn, move |tx| apply(tx, &owned_id, lease.as_ref(), event, now_ms))
            .await?;
        let change = self.applied(&job, written);
        Ok((job, change))
    }

    /// Wakes the watchers of the job and hands them its state, if it was written.
    fn applied(&self, job: &Job, written: Option<Revision>) -> Change {
        let Some(revision) = written else { return Change::Unchanged };
        self.inner.own.note(revision);
        self.inner.watchers.wrote(job, revision);
        Change::Changed
    }

    /// Wakes the watchers of the job, if its state was written.
    fn written(&self, id: &JobId, written: Option<Revision>) {
        if let Some(revision) = written {
            self.inner.own.note(revision);
            self.inner.watchers.written(id, revision);
        }
    }

    async fn record(&self, id: &JobId) -> Result<Option<JobRecord>, StoreError> {
        let id = id.clone();
        let read = self.read(move |connection| {
            let sql = format!("SELECT {RECORD_COLUMNS}, revision FROM jobs WHERE job_id = ?");
            let mut query = connection.prepare_cached(&sql)?;
            let read = |row: &Row<'_>| Ok::<_, StoreError>((record(row)?, Revision(row.get("revision")?)));
            query.query_one([id.as_str()], |row| Ok(read(row))).optional()?.transpose()
        });
        let Some((record, revision)) = read.await? else { return Ok(None) };
        self.inner.watchers.loaded(&record.job, revision);
        Ok(Some(record))
    }

    async fn end_damaged(&self, id: &JobId, error: &StoreError) -> Result<(), StoreError> {
        tracing::error!(job = %id, %error, "the job ends: its stored state cannot be read");
        let (owned_id, now_ms) = (id.clone(), self.now_ms());
        let written = self.write(move |tx| end_damaged(tx, &owned_id, now_ms)).await?;
        self.written(id, written);
        Ok(())
    }

    /// See [`Readers::read`].
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.inner.readers.read(work).await
    }

    /// The first column of a single row, if there is one.
    async fn text(
        &self,
        sql: &'static str,
        key: impl rusqlite::Params + Send + 'static,
    ) -> Result<Option<String>, StoreError> {
        self.read(move |connection| {
            Ok(connection.prepare_cached(sql)?.query_one(key, |row| row.get(0)).optional()?)
        })
        .await
    }

    /// The owners of live jobs, and the known servers.
    async fn owners(&self, now_ms: i64) -> Result<(BTreeSet<String>, BTreeSet<String>), StoreError> {
        self.read(move |connection| Ok((leases::owners(connection)?, leases::alive(connection, now_ms)?)))
            .await
    }

    async fn execute(
        &self,
        turn: Turn,
        sql: &'static str,
        values: impl rusqlite::Params + Send + 'static,
    ) -> Result<(), StoreError> {
        self.inner
            .writer
            .write(turn, move |tx| {
                tx.prepare_cached(sql)?.execute(values)?;
                Ok(())
            })
            .await
    }

    /// See [`Writer::write`].
    pub(super) async fn write<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: WriteError + Send + 'static,
    {
        self.inner.writer.write(Turn::InOrder, work).await
    }
}

/// The writing connection, after the file is created and migrated.
fn open_up_to_date(path: &Path) -> anyhow::Result<Connection> {
    // It holds secrets. SQLite gives the files beside it the same permissions.
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let mut connection = open_to_write(path)?;
    migrations::run(&mut connection, path)?;
    Ok(connection)
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(&self, new: NewJob) -> Result<Created, StoreError> {
        let (id, now_ms) = (new.job.id.clone(), self.now_ms());
        let (created, written) = self.write(move |tx| insert(tx, &new, now_ms)).await?;
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
        let sql = "SELECT value FROM secrets WHERE job_id = ? AND name = ?";
        Ok(self.text(sql, [id.to_string(), name.to_owned()]).await?.map(Secret::new))
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

    async fn changes(&self, since: Revision, limit: u32) -> Result<Changes, StoreError> {
        self.inner.changes(since, limit).await
    }

    fn watch(&self, id: &JobId) -> watch::Receiver<KnownJob> {
        self.inner.watchers.watch(id)
    }
}
