//! The store in one SQLite file. Several processes on one machine may use it at the same time.

mod rows;
mod transactions;

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, QueryBuilder, Row as _, Sqlite, SqliteConnection, SqlitePool};
use tokio::sync::watch;

use self::rows::{RECORD_COLUMNS, damaged, job_id, record, stored};
use self::transactions::{apply, insert, take_leases};
use super::Store;
use super::hub::Hub;
use super::types::{Claim, JobFilter, JobRecord, Lease, NewJob, Secret, ServerId, StoreError, UpdateError};
use crate::job::{Change, Event, Job, JobId, TokenHash};

/// Readers at the same time; writers go one after another.
const READERS: u32 = 4;
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);

/// A handle to the store; clones share it.
#[derive(Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

struct Inner {
    writer: SqlitePool,
    readers: SqlitePool,
    hub: Hub,
}

impl SqliteStore {
    /// Opens the file, and makes it if it is not there. Older files are brought up to date; a file of a newer
    /// server is refused.
    ///
    /// # Errors
    /// The file cannot be opened, or is not a store that this server knows.
    pub async fn open(path: &Path) -> anyhow::Result<Self> {
        // It holds secrets. SQLite gives the files beside it the same permissions.
        std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A job that Run has answered for survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        sqlx::migrate!("src/store/migrations").run(&writer).await?;
        let readers =
            SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await?;
        Ok(Self { inner: Arc::new(Inner { writer, readers, hub: Hub::default() }) })
    }

    /// Runs a transaction to its end also when the caller is dropped: a connection never goes back to the pool
    /// with an open transaction.
    async fn write<T, E>(
        &self,
        work: impl for<'t> FnOnce(&'t mut SqliteConnection) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move {
            let mut connection = inner.writer.acquire().await.map_err(StoreError::from)?;
            let written = write_with(&mut connection, work).await;
            if matches!(written, Err(Failed { is_open: true, .. })) {
                // On a full disk SQLite ends the transaction by itself, which sqlx does not learn of: with this
                // connection nothing more could be written.
                connection.close_on_drop();
            }
            written.map_err(|failed| failed.error)
        });
        task.await.unwrap_or_else(|_| Err(StoreError::Closing.into()))
    }
}

/// A transaction that did not happen.
struct Failed<E> {
    error: E,
    /// Whether the connection may still be in it.
    is_open: bool,
}

async fn write_with<T, E: From<StoreError>>(
    connection: &mut SqliteConnection,
    work: impl for<'t> FnOnce(&'t mut SqliteConnection) -> BoxFuture<'t, Result<T, E>>,
) -> Result<T, Failed<E>> {
    let unclear = |error| Failed { error: E::from(StoreError::from(error)), is_open: true };
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(unclear)?;
    match work(&mut transaction).await {
        Ok(value) => transaction.commit().await.map(|()| value).map_err(unclear),
        Err(error) => Err(Failed { error, is_open: transaction.rollback().await.is_err() }),
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(&self, new: NewJob) -> Result<(), StoreError> {
        self.write(|tx| Box::pin(insert(tx, new))).await
    }

    async fn resolve(&self, token: TokenHash) -> Result<Option<JobId>, StoreError> {
        let row = sqlx::query("SELECT job_id FROM jobs WHERE token_hash = ?")
            .bind(token.0.as_slice())
            .fetch_optional(&self.inner.readers)
            .await?;
        row.as_ref().map(job_id).transpose()
    }

    async fn load(&self, id: &JobId) -> Result<Option<JobRecord>, StoreError> {
        let row = QueryBuilder::<Sqlite>::new("SELECT ")
            .push(RECORD_COLUMNS)
            .push(" FROM jobs WHERE job_id = ")
            .push_bind(id.as_str())
            .build()
            .fetch_optional(&self.inner.readers)
            .await?;
        row.as_ref().map(record).transpose()
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
        serde_json::from_str(row.try_get("headings")?).map_err(|error| damaged(&row, error))
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
        let (owned_id, lease) = (id.clone(), lease.cloned());
        let (job, change) = self.write(move |tx| Box::pin(apply(tx, owned_id, lease, event, now_ms))).await?;
        if change == Change::Changed {
            self.inner.hub.changed(id);
        }
        Ok((job, change))
    }

    async fn list(&self, filter: JobFilter) -> Result<Vec<JobRecord>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT ");
        query.push(RECORD_COLUMNS).push(" FROM jobs WHERE TRUE");
        if let Some(user) = filter.user_id {
            query.push(" AND user_id = ").push_bind(user);
        }
        if let Some(before) = filter.before {
            query.push(" AND job_id < ").push_bind(String::from(before));
        }
        if !filter.states.is_empty() {
            query.push(" AND state IN (");
            let mut states = query.separated(", ");
            for state in filter.states {
                states.push_bind(state);
            }
            query.push(")");
        }
        query.push(" ORDER BY job_id DESC LIMIT ").push_bind(filter.limit);
        let rows = query.build().fetch_all(&self.inner.readers).await?;
        rows.iter().map(record).collect()
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<(JobId, Lease)>, StoreError> {
        self.write(|tx| Box::pin(take_leases(tx, claim))).await
    }

    async fn lease_owners(&self, me: &ServerId, now_ms: i64) -> Result<Vec<ServerId>, StoreError> {
        let owners: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT lease_owner FROM jobs
             WHERE ended_ms IS NULL AND lease_until_ms > ? AND lease_owner <> ?",
        )
        .bind(now_ms)
        .bind(&me.0)
        .fetch_all(&self.inner.readers)
        .await?;
        Ok(owners.into_iter().map(ServerId).collect())
    }

    async fn heartbeat(
        &self,
        me: &ServerId,
        now_ms: i64,
        lease_until_ms: i64,
        tolerance_ms: i64,
    ) -> Result<(), StoreError> {
        let me = me.clone();
        self.write(move |tx| {
            Box::pin(async move {
                let alive: Option<i64> =
                    sqlx::query_scalar("SELECT alive_ms FROM presence").fetch_optional(&mut *tx).await?;
                let absent = now_ms - alive.unwrap_or(now_ms);
                if absent > tolerance_ms {
                    sqlx::query("UPDATE jobs SET fetched_ms = fetched_ms + ? WHERE ended_ms IS NULL")
                        .bind(absent)
                        .execute(&mut *tx)
                        .await?;
                }
                sqlx::query("INSERT INTO presence VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET alive_ms = excluded.alive_ms")
                    .bind(now_ms)
                    .execute(&mut *tx)
                    .await?;
                sqlx::query("UPDATE jobs SET lease_until_ms = ? WHERE ended_ms IS NULL AND lease_owner = ?")
                    .bind(lease_until_ms)
                    .bind(me.0)
                    .execute(&mut *tx)
                    .await?;
                Ok(())
            })
        })
        .await
    }

    async fn fetched(&self, id: &JobId, now_ms: i64) -> Result<(), StoreError> {
        let id = id.clone();
        self.write(move |tx| {
            Box::pin(async move {
                let query = sqlx::query("UPDATE jobs SET fetched_ms = MAX(fetched_ms, ?) WHERE job_id = ?");
                query.bind(now_ms).bind(id.as_str()).execute(tx).await?;
                Ok(())
            })
        })
        .await
    }

    async fn unfetched(&self, now_ms: i64) -> Result<Vec<(JobId, i64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT job_id, fetch_timeout_ms FROM jobs
             WHERE ended_ms IS NULL AND fetch_timeout_ms > 0 AND fetched_ms + fetch_timeout_ms < ?",
        )
        .bind(now_ms)
        .fetch_all(&self.inner.readers)
        .await?;
        rows.iter().map(|row| Ok((job_id(row)?, row.try_get("fetch_timeout_ms")?))).collect()
    }

    async fn advance_plain_cursor(&self, id: &JobId, from: u64, to: u64) -> Result<(), StoreError> {
        let id = id.clone();
        self.write(move |tx| {
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

    async fn ended_before(&self, ended_ms: i64, limit: u32) -> Result<Vec<JobId>, StoreError> {
        let rows = sqlx::query("SELECT job_id FROM jobs WHERE ended_ms < ? ORDER BY ended_ms LIMIT ?")
            .bind(ended_ms)
            .bind(limit)
            .fetch_all(&self.inner.readers)
            .await?;
        rows.iter().map(job_id).collect()
    }

    async fn counts(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let counted = sqlx::query_as("SELECT state, count(*) FROM jobs GROUP BY state");
        Ok(counted.fetch_all(&self.inner.readers).await?)
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

    fn watch(&self, id: &JobId) -> watch::Receiver<u64> {
        self.inner.hub.watch(id)
    }
}
