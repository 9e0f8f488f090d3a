//! Revisions: each write of a job's state raises one number, in its own transaction, so that other processes can ask what
//! was written.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sqlx::{Row as _, SqliteConnection};

use super::Inner;
use super::rows::{job_id, readable};
use crate::store::types::{Changed, Changes, Revision, StoreError};

/// How often other processes' writes are looked for.
const PERIOD: Duration = Duration::from_secs(1);
/// Jobs that are asked for at once.
const PAGE: u32 = 256;

/// Raises the number in this transaction; the rows that it writes get it.
pub(super) async fn next_revision(tx: &mut SqliteConnection) -> Result<Revision, StoreError> {
    let next = sqlx::query_scalar("UPDATE revisions SET last = last + 1 RETURNING last");
    Ok(Revision(next.fetch_one(tx).await?))
}

impl Inner {
    pub(super) async fn revision(&self) -> Result<Revision, StoreError> {
        let last = sqlx::query_scalar("SELECT last FROM revisions");
        Ok(Revision(last.fetch_one(&self.readers).await?))
    }

    /// See [`crate::store::Store::changes`].
    pub(super) async fn changes(&self, since: Revision, limit: u32) -> Result<Changes, StoreError> {
        let last = self.revision().await?;
        if last <= since {
            return Ok(Changes { jobs: Vec::new(), upto: last, has_more: false, is_older: last < since });
        }
        let rows =
            sqlx::query("SELECT job_id, revision FROM jobs WHERE revision > ? ORDER BY revision LIMIT ?")
                .bind(since.0)
                .bind(limit)
                .fetch_all(&self.readers)
                .await?;
        let has_more = rows.len() >= limit as usize;
        let newest = rows.last().map(|row| row.try_get("revision")).transpose()?.map_or(since, Revision);
        // What was written up to `last` is in these rows, or they are not all.
        let upto = if has_more { newest } else { newest.max(last) };
        let jobs = readable(&rows, |row| {
            Ok(Changed { id: job_id(row)?, revision: Revision(row.try_get("revision")?) })
        });
        Ok(Changes { jobs, upto, has_more, is_older: false })
    }
}

/// The revisions that this process wrote and has not met again. Its own watchers know of them already.
#[derive(Default)]
pub(super) struct Own(Mutex<BTreeSet<Revision>>);

impl Own {
    pub(super) fn note(&self, revision: Revision) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(revision);
    }

    /// Whether this process wrote it. If so, then after all that others wrote of the job.
    fn wrote(&self, revision: Revision) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&revision)
    }

    /// They will not be asked about again.
    fn forget_upto(&self, revision: Revision) {
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *own = own.split_off(&Revision(revision.0.saturating_add(1)));
    }
}

/// Wakes those who watch jobs that other processes wrote, as long as the store is there.
pub(super) async fn follow(store: Weak<Inner>, mut seen: Revision) {
    let mut has_failed = false;
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(inner) = store.upgrade() else { return };
        match inner.wake_since(seen).await {
            Ok(upto) => (seen, has_failed) = (upto, false),
            Err(error) => {
                if !has_failed {
                    tracing::warn!(%error, "cannot look for what other servers wrote, will try again");
                }
                has_failed = true;
            }
        }
    }
}

impl Inner {
    /// Wakes those who watch what others wrote after this revision; gives how far that was.
    async fn wake_since(self: &Arc<Self>, mut seen: Revision) -> Result<Revision, StoreError> {
        loop {
            let changes = self.changes(seen, PAGE).await?;
            if changes.is_older {
                tracing::warn!("the store has become older, as a restored copy is: all jobs are looked at");
                self.hub.all_changed();
            }
            for changed in &changes.jobs {
                if !self.own.wrote(changed.revision) {
                    self.hub.changed(&changed.id);
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
