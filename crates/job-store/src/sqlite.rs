//! The store in one SQLite file. Several processes on one machine may use it at the same time.

mod database;
mod leases;
mod listing;
mod lock_holder;
mod migrating;
mod migrations;
mod readers;
mod revisions;
mod rows;
mod secrets;
mod small_logs;
mod store;
mod survey;
mod transactions;
mod truncation;
mod writability;
mod writer;

use std::collections::BTreeSet;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rusqlite::{Connection, OptionalExtension as _, Row};

use self::database::open_to_write;
#[cfg(test)]
pub(super) use self::migrations::older_file;
use self::readers::Readers;
use self::revisions::Own;
use self::rows::{RECORD_COLUMNS, record};
pub use self::survey::{ServerLease, Survey, SurveyError, Surveyed, SurveyedDocument};
use sqlflow_job::{Change, Event, Job, JobId};
use sqlflow_os::clock;

use self::transactions::{apply, end_damaged};
use self::truncation::Remains;
use self::writability::Writability;
use self::writer::{Turn, WriteError, Writer};
use super::job_watchers::JobWatchers;
use super::secret_keys::SecretKeys;
use super::types::{JobRecord, Lease, Revision, StoreError, UpdateError};

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
    keys: Arc<SecretKeys>,
    writability: Writability,
    remains: Remains,
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
        Self::open_with_keys(path, SecretKeys::default()).await
    }

    /// Opens the file as a server with these keys. The secrets of live jobs are encrypted with the current one, if there is
    /// one.
    ///
    /// # Errors
    /// As of [`Self::open`]; or secrets are encrypted with a key that is not among these.
    pub async fn open_with_keys(path: &Path, keys: SecretKeys) -> anyhow::Result<Self> {
        Self::open_with(path, keys, Box::new(clock::now_ms)).await.map_err(with_store_errors)
    }

    /// With a custom clock. By default it is the system clock, so that all servers with the file judge leases by one
    /// clock.
    pub(super) async fn open_with(path: &Path, keys: SecretKeys, clock: Clock) -> anyhow::Result<Self> {
        let lock = migrating::lock(path).await?;
        let state_file = path.to_owned();
        let opening = move || open_up_to_date(&state_file, &keys).map(|writer| (writer, keys));
        let (writer, keys) = tokio::task::spawn_blocking(opening).await??;
        let keys = Arc::new(keys);
        drop(lock);
        let state_file = path.to_owned();
        let open = Box::new(move || open_to_write(&state_file));
        let writer = Writer::begin(writer, open, path.to_owned(), TURN_TIMEOUT)
            .context("cannot start the thread that writes the state")?;
        let readers = Arc::new(Readers::of(path.to_owned()));
        let (path, watchers, own) = (path.to_owned(), JobWatchers::default(), Own::default());
        let writability = Writability::begin(Instant::now());
        let remains = Remains::begin();
        let inner =
            Arc::new(Inner { path, writer, readers, watchers, own, clock, keys, writability, remains });
        let seen = inner.revision().await?;
        tokio::spawn(revisions::follow(Arc::downgrade(&inner), seen));
        tokio::spawn(truncation::keep_short(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    /// Closes the file after all current calls. The last process that closes it removes the files that SQLite keeps
    /// beside it.
    pub async fn close(self) {
        self.inner.readers.close().await;
        self.inner.writer.close().await;
        self.inner.truncate().await;
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
        if job.state.is_final() {
            self.inner.remains.note();
        }
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
        self.inner.remains.note();
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

    /// The number that a query of a principal finds.
    async fn number(&self, sql: &'static str, principal: &str) -> Result<u64, StoreError> {
        let principal = principal.to_owned();
        self.read(move |connection| {
            let found: i64 = connection.prepare_cached(sql)?.query_row([principal], |row| row.get(0))?;
            Ok(u64::try_from(found).unwrap_or(0))
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
fn open_up_to_date(path: &Path, keys: &SecretKeys) -> anyhow::Result<Connection> {
    // It holds secrets. SQLite gives the files beside it the same permissions.
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let mut connection = open_to_write(path)?;
    migrations::run(&mut connection, path)?;
    let renewed = secrets::renew(&mut connection, keys)?;
    if renewed > 0 {
        tracing::info!(secrets = renewed, "encrypted secrets of live jobs with the current key");
    }
    Ok(connection)
}

/// Reports a full disk as such.
fn with_store_errors(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<rusqlite::Error>() {
        Ok(error) => StoreError::from(error).into(),
        Err(error) => error,
    }
}
