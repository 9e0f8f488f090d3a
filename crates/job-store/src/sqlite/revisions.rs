//! Revisions: each write of a job's state increments one number, in the same transaction, so that other processes can
//! query what was written.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use sqlflow_sync::lock;

use rusqlite::{Connection, params};

use super::Inner;
use super::rows::{job_id, readable};
use crate::types::{Changed, Changes, Revision, StoreError};

/// Poll interval for writes of other processes.
const PERIOD: Duration = Duration::from_secs(1);
/// Maximum number of jobs in a query.
const PAGE: u32 = 256;

/// Increments the number in this transaction, and returns it for the rows.
pub(super) fn next_revision(tx: &Connection) -> Result<Revision, StoreError> {
    let mut next = tx.prepare_cached("UPDATE revisions SET last = last + 1 RETURNING last")?;
    Ok(Revision(next.query_one([], |row| row.get(0))?))
}

fn last_revision(connection: &Connection) -> Result<Revision, StoreError> {
    let mut last = connection.prepare_cached("SELECT last FROM revisions")?;
    Ok(Revision(last.query_one([], |row| row.get(0))?))
}

impl Inner {
    pub(super) async fn revision(&self) -> Result<Revision, StoreError> {
        self.readers.read(last_revision).await
    }

    /// See [`crate::Store::changes`].
    pub(super) async fn changes(&self, since: Revision, limit: u32) -> Result<Changes, StoreError> {
        self.readers.read(move |connection| changes(connection, since, limit)).await
    }
}

fn changes(connection: &Connection, since: Revision, limit: u32) -> Result<Changes, StoreError> {
    let last = last_revision(connection)?;
    if last <= since {
        return Ok(Changes { jobs: Vec::new(), upto: last, has_more: false, is_older: last < since });
    }
    let mut query = connection
        .prepare_cached("SELECT job_id, revision FROM jobs WHERE revision > ? ORDER BY revision LIMIT ?")?;
    let (mut count, mut newest) = (0, since);
    let jobs = readable(query.query(params![since.0, limit])?, |row| {
        count += 1;
        newest = Revision(row.get("revision")?);
        Ok(Changed { id: job_id(row)?, revision: newest })
    })?;
    let has_more = count >= limit;
    // Either all writes up to `last` are in these rows, or there are more.
    let upto = if has_more { newest } else { newest.max(last) };
    Ok(Changes { jobs, upto, has_more, is_older: false })
}

/// The revisions that this process wrote and has not found again. Its own watchers know of them already.
#[derive(Default)]
pub(super) struct Own(Mutex<BTreeSet<Revision>>);

impl Own {
    pub(super) fn note(&self, revision: Revision) {
        lock(&self.0).insert(revision);
    }

    /// Whether this process wrote it. If so, the write came after all writes of other processes to the job.
    fn wrote(&self, revision: Revision) -> bool {
        lock(&self.0).contains(&revision)
    }

    /// They are not queried again.
    fn forget_upto(&self, revision: Revision) {
        let mut own = lock(&self.0);
        *own = own.split_off(&Revision(revision.0.saturating_add(1)));
    }
}

/// Wakes watchers of jobs that other processes wrote, as long as the store is open.
pub(super) async fn follow(store: Weak<Inner>, mut seen: Revision) {
    let mut has_failed = false;
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(inner) = store.upgrade() else { return };
        inner.watchers.forget_unwatched();
        match inner.wake_since(seen).await {
            Ok(upto) => (seen, has_failed) = (upto, false),
            Err(error) => {
                if !has_failed {
                    tracing::warn!(%error, "cannot query writes of other servers; will retry");
                }
                has_failed = true;
            }
        }
    }
}

impl Inner {
    /// Wakes watchers of jobs that others wrote after this revision; returns the last one.
    async fn wake_since(self: &Arc<Self>, mut seen: Revision) -> Result<Revision, StoreError> {
        loop {
            let changes = self.changes(seen, PAGE).await?;
            if changes.is_older {
                tracing::warn!("the store became older, as after a restore; all jobs are loaded again");
                self.watchers.restored();
                // These revisions are assigned again, also by other processes.
                self.own.forget_upto(Revision(i64::MAX));
            }
            for changed in &changes.jobs {
                if !self.own.wrote(changed.revision) {
                    self.watchers.written(&changed.id, changed.revision);
                }
            }
            seen = changes.upto;
            self.own.forget_upto(seen);
            if !changes.has_more {
                return Ok(seen);
            }
        }
    }
}
