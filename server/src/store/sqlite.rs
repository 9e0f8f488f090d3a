//! The store in one SQLite file. Several processes on one machine may use it at the same time.

mod busy;
mod changes;
mod leases;
mod listing;
mod migrating;
mod rows;
mod survey;
mod transactions;
mod writability;
mod writer;

use std::collections::HashSet;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::BoxFuture;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, QueryBuilder, Row as _, Sqlite, SqliteConnection, SqlitePool};
use tokio::sync::watch;

use self::changes::Own;
use self::listing::listing;
use self::rows::{RECORD_COLUMNS, job_id, listed, readable, record, stored};
pub use self::survey::{ServerLease, Survey, SurveyError, Surveyed, SurveyedDocument};
use self::transactions::{apply, end_damaged, insert};
use self::writability::Writability;
use self::writer::{Turn, WriteError, Writer};
use super::Store;
use super::hub::Hub;
use super::types::{
    Changes, Claim, Created, EndedJob, JobFilter, JobRecord, Lease, NewJob, Revision, Secret, ServerId,
    StoreError, Unfetched, UpdateError,
};
use crate::clock;
use crate::job::{Change, Event, Job, JobId, TokenHash};

/// Readers at the same time; writers go one after another.
const READERS: u32 = 4;
/// How long a write waits for one of another process. That one may be stopped, and must not stop this one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a write waits for those of this process.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// What brings the file to the version that this server knows.
static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations");

/// A handle to the store; clones share it.
#[derive(Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    writer: Writer,
    readers: SqlitePool,
    hub: Hub,
    own: Own,
    clock: Clock,
    writability: Writability,
}

/// The store's time, in milliseconds since the Unix epoch.
type Clock = Box<dyn Fn() -> i64 + Send + Sync>;

/// A file beside the state file, whose name goes on like this.
fn beside(state_file: &Path, suffix: &str) -> PathBuf {
    let mut path = state_file.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

impl SqliteStore {
    /// Opens the file, and makes it if it is not there. Older files are brought up to date; a file of a newer
    /// server is refused.
    ///
    /// # Errors
    /// The file cannot be opened, or is not a store that this server knows.
    pub async fn open(path: &Path) -> anyhow::Result<Self> {
        Self::open_with(path, Box::new(clock::now_ms)).await
    }

    /// With a clock of its own: by the machine's, all servers that share the file judge leases by one clock.
    pub(super) async fn open_with(path: &Path, clock: Clock) -> anyhow::Result<Self> {
        let lock = migrating::lock(path).await?;
        // It holds secrets. SQLite gives the files beside it the same permissions.
        std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A job that Run has answered for survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            // Savepoints and sorting need no temporary files: a container may have no folder for them.
            .pragma("temp_store", "memory")
            .busy_timeout(BUSY_TIMEOUT);
        let mut writer = options.connect().await?;
        MIGRATIONS.run(&mut writer).await?;
        drop(lock);
        let writer = Writer::begin(writer, options.clone(), path.to_owned(), TURN_TIMEOUT);
        let readers =
            SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await?;
        let (path, hub, own) = (path.to_owned(), Hub::default(), Own::default());
        let writability = Writability::begin(Instant::now());
        let inner = Arc::new(Inner { path, writer, readers, hub, own, clock, writability });
        let seen = inner.revision().await?;
        tokio::spawn(changes::follow(Arc::downgrade(&inner), seen));
        Ok(Self { inner })
    }

    /// Closes the file, once everything that goes on has ended. The files that SQLite keeps beside it go with the last
    /// process that has it open.
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
            .write(turn, move |tx| Box::pin(apply(tx, owned_id, lease, event, now_ms)))
            .await?;
        Ok((job, self.wrote(id, written)))
    }

    /// Wakes those who watch the job, if its state was written.
    fn wrote(&self, id: &JobId, written: Option<Revision>) -> Change {
        let Some(revision) = written else { return Change::Unchanged };
        self.inner.own.note(revision);
        self.inner.hub.changed(id);
        Change::Changed
    }

    async fn record(&self, id: &JobId) -> Result<Option<JobRecord>, StoreError> {
        let row = QueryBuilder::<Sqlite>::new("SELECT ")
            .push(RECORD_COLUMNS)
            .push(" FROM jobs WHERE job_id = ")
            .push_bind(id.as_str())
            .build()
            .fetch_optional(&self.inner.readers)
            .await?;
        row.as_ref().map(record).transpose()
    }

    async fn end_damaged(&self, id: &JobId, error: &StoreError) -> Result<(), StoreError> {
        tracing::error!(job = %id, %error, "the job ends: its stored state cannot be read");
        let (owned_id, now_ms) = (id.clone(), self.now_ms());
        let written = self.write(move |tx| Box::pin(end_damaged(tx, owned_id, now_ms))).await?;
        self.wrote(id, written);
        Ok(())
    }

    /// See [`Writer::write`].
    pub(super) async fn write<T, E>(
        &self,
        work: impl for<'t> FnOnce(&'t mut SqliteConnection) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: WriteError + Send + 'static,
    {
        self.inner.writer.write(Turn::InOrder, work).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(&self, new: NewJob) -> Result<Created, StoreError> {
        let (id, now_ms) = (new.job.id.clone(), self.now_ms());
        let (created, written) = self.write(move |tx| Box::pin(insert(tx, new, now_ms))).await?;
        self.wrote(&id, written);
        Ok(created)
    }

    async fn resolve(&self, token: TokenHash) -> Result<Option<JobId>, StoreError> {
        let row = sqlx::query("SELECT job_id FROM jobs WHERE token_hash = ?")
            .bind(token.0.as_slice())
            .fetch_optional(&self.inner.readers)
            .await?;
        row.as_ref().map(job_id).transpose()
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
        let sql = sqlx::query_scalar("SELECT sql FROM programs WHERE job_id = ?").bind(id.as_str());
        Ok(sql.fetch_optional(&self.inner.readers).await?)
    }

    async fn headings(&self, id: &JobId) -> Result<Vec<String>, StoreError> {
        let row = sqlx::query("SELECT job_id, headings FROM programs WHERE job_id = ?")
            .bind(id.as_str())
            .fetch_optional(&self.inner.readers)
            .await?;
        let Some(row) = row else { return Ok(Vec::new()) };
        // Headings are for people; the job goes on without them.
        let headings = serde_json::from_str(row.try_get("headings")?);
        Ok(headings.unwrap_or_else(|error| {
            tracing::error!(job = %id, %error, "the stored headings of the job are damaged");
            Vec::new()
        }))
    }

    async fn step_spec(&self, id: &JobId, step: u32) -> Result<Option<String>, StoreError> {
        let spec = sqlx::query_scalar("SELECT spec FROM step_specs WHERE job_id = ? AND step = ?")
            .bind(id.as_str())
            .bind(step);
        Ok(spec.fetch_optional(&self.inner.readers).await?)
    }

    async fn secret(&self, id: &JobId, name: &str) -> Result<Option<Secret>, StoreError> {
        let value: Option<String> =
            sqlx::query_scalar("SELECT value FROM secrets WHERE job_id = ? AND name = ?")
                .bind(id.as_str())
                .bind(name)
                .fetch_optional(&self.inner.readers)
                .await?;
        Ok(value.map(Secret::new))
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
        let rows = listing(filter).build().fetch_all(&self.inner.readers).await?;
        Ok(readable(&rows, listed))
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<(JobId, Lease)>, StoreError> {
        let now_ms = self.now_ms();
        let owners = leases::owners(&self.inner.readers).await?;
        let alive = leases::alive(&self.inner.readers, now_ms).await?;
        if leases::free(&claim, owners, &alive).is_empty() {
            return Ok(Vec::new());
        }
        self.write(move |tx| Box::pin(leases::claim(tx, claim, now_ms))).await
    }

    async fn release(&self, id: &JobId, lease: &Lease) -> Result<(), StoreError> {
        let (id, lease) = (id.clone(), lease.clone());
        self.write(move |tx| Box::pin(async move { leases::release(tx, &id, &lease).await })).await
    }

    async fn held(
        &self,
        me: &ServerId,
        after: Option<&JobId>,
        limit: u32,
    ) -> Result<Vec<(JobId, Lease)>, StoreError> {
        let rows = sqlx::query(
            "SELECT job_id, lease_epoch FROM jobs
             WHERE ended_ms IS NULL AND lease_owner = ? AND job_id > ? ORDER BY job_id LIMIT ?",
        )
        .bind(&me.0)
        .bind(after.map_or("", JobId::as_str))
        .bind(limit)
        .fetch_all(&self.inner.readers)
        .await?;
        Ok(readable(&rows, |row| {
            Ok((job_id(row)?, Lease { owner: me.clone(), epoch: row.try_get("lease_epoch")? }))
        }))
    }

    async fn live(&self, ids: &[JobId]) -> Result<HashSet<JobId>, StoreError> {
        let mut query =
            QueryBuilder::<Sqlite>::new("SELECT job_id FROM jobs WHERE ended_ms IS NULL AND job_id IN ");
        query.push_tuples(ids, |mut tuple, id| {
            tuple.push_bind(id.as_str());
        });
        let rows = query.build().fetch_all(&self.inner.readers).await?;
        Ok(readable(&rows, job_id).into_iter().collect())
    }

    async fn lease_owners(&self, me: &ServerId) -> Result<Vec<ServerId>, StoreError> {
        let owners = leases::owners(&self.inner.readers).await?;
        let alive = leases::alive(&self.inner.readers, self.now_ms()).await?;
        let others = owners.into_iter().filter(|owner| *owner != me.0 && alive.contains(owner));
        Ok(others.map(ServerId).collect())
    }

    async fn lease_lasts(&self, server: &ServerId) -> Result<bool, StoreError> {
        leases::lasts(&self.inner.readers, server, self.now_ms()).await
    }

    async fn heartbeat(&self, me: &ServerId, lease: Duration, tolerance: Duration) -> Result<(), StoreError> {
        let (me, this) = (me.clone(), self.clone());
        let written = self
            .inner
            .writer
            .write(Turn::First, move |tx| {
                Box::pin(async move {
                    // The time at which it is written, not that at which it was asked for.
                    leases::heartbeat(tx, &me, this.now_ms(), lease, tolerance).await
                })
            })
            .await;
        self.inner.writability.note(&written, Instant::now());
        written
    }

    async fn fetched(&self, id: &JobId) -> Result<(), StoreError> {
        let (id, now_ms) = (id.clone(), self.now_ms());
        self.inner
            .writer
            .write(Turn::Unsynced, move |tx| {
                Box::pin(async move {
                    let query =
                        sqlx::query("UPDATE jobs SET fetched_ms = MAX(fetched_ms, ?) WHERE job_id = ?");
                    query.bind(now_ms).bind(id.as_str()).execute(tx).await?;
                    Ok(())
                })
            })
            .await
    }

    async fn unfetched(&self, after: Option<&Unfetched>, limit: u32) -> Result<Vec<Unfetched>, StoreError> {
        let rows = sqlx::query(
            "SELECT job_id, fetch_timeout_ms, fetched_ms + fetch_timeout_ms AS due_ms FROM jobs
             WHERE ended_ms IS NULL AND fetch_timeout_ms > 0 AND fetched_ms + fetch_timeout_ms < (SELECT alive_ms FROM presence)
               AND (fetched_ms + fetch_timeout_ms, job_id) > (?, ?)
             ORDER BY fetched_ms + fetch_timeout_ms, job_id LIMIT ?",
        )
        .bind(after.map_or(i64::MIN, |it| it.due_ms))
        .bind(after.map_or("", |it| it.id.as_str()))
        .bind(limit)
        .fetch_all(&self.inner.readers)
        .await?;
        Ok(readable(&rows, |row| {
            Ok(Unfetched {
                id: job_id(row)?,
                timeout_ms: row.try_get("fetch_timeout_ms")?,
                due_ms: row.try_get("due_ms")?,
            })
        }))
    }

    async fn advance_plain_cursor(&self, id: &JobId, from: u64, to: u64) -> Result<(), StoreError> {
        let id = id.clone();
        self.inner
            .writer
            .write(Turn::Unsynced, move |tx| {
                Box::pin(async move {
                    sqlx::query("UPDATE jobs SET plain_cursor = ? WHERE job_id = ? AND plain_cursor = ?")
                        .bind(stored(to))
                        .bind(id.as_str())
                        .bind(stored(from))
                        .execute(tx)
                        .await?;
                    Ok(())
                })
            })
            .await
    }

    async fn ended_before(
        &self,
        ended_ms: i64,
        after: Option<&EndedJob>,
        limit: u32,
    ) -> Result<Vec<EndedJob>, StoreError> {
        let rows = sqlx::query(
            "SELECT job_id, ended_ms FROM jobs WHERE ended_ms < ? AND (ended_ms, job_id) > (?, ?)
             ORDER BY ended_ms, job_id LIMIT ?",
        )
        .bind(ended_ms)
        .bind(after.map_or(i64::MIN, |it| it.ended_ms))
        .bind(after.map_or("", |it| it.id.as_str()))
        .bind(limit)
        .fetch_all(&self.inner.readers)
        .await?;
        Ok(readable(&rows, |row| Ok(EndedJob { id: job_id(row)?, ended_ms: row.try_get("ended_ms")? })))
    }

    async fn counts(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let counted = sqlx::query_as("SELECT state, jobs FROM job_counts");
        Ok(counted.fetch_all(&self.inner.readers).await?)
    }

    async fn can_record(&self) -> Result<(), String> {
        let path = self.inner.path.clone();
        // First, as it says what to do: on a full disk the heartbeat may fail as well.
        let checked = tokio::task::spawn_blocking(move || writability::check_space(&path)).await;
        checked.unwrap_or_else(|_| Err("the server is shutting down".to_owned()))?;
        self.inner.writability.check(Instant::now())
    }

    async fn remove(&self, id: &JobId) -> Result<(), StoreError> {
        let id = id.clone();
        self.write(move |tx| {
            Box::pin(async move {
                let query = sqlx::query("DELETE FROM jobs WHERE job_id = ? AND ended_ms IS NOT NULL");
                query.bind(id.as_str()).execute(tx).await?;
                Ok(())
            })
        })
        .await
    }

    async fn changes(&self, since: Revision, limit: u32) -> Result<Changes, StoreError> {
        self.inner.changes(since, limit).await
    }

    fn watch(&self, id: &JobId) -> watch::Receiver<u64> {
        self.inner.hub.watch(id)
    }
}
