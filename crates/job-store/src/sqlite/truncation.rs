//! Truncates the write-ahead log after secrets were deleted. `secure_delete` overwrites them in the state file, but the
//! write-ahead log keeps what was written before until it is long enough to be written back.
//!
//! Not after each job, since it costs two syncs; the log is written back every few hundred jobs anyway.

use std::path::Path;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Inner;
use super::database::open_to_write;

/// Maximum time for which a deleted secret stays in the write-ahead log, unless reads of other processes take longer.
const PERIOD: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 3 });
/// Timeout for reads that use the log. Writes wait meanwhile.
const BUSY_TIME: Duration = Duration::from_millis(200);

/// Whether secrets may be in the write-ahead log that were deleted.
#[derive(Debug)]
pub(super) struct Remains(AtomicBool);

impl Remains {
    /// A killed server may have left some.
    pub(super) fn begin() -> Self {
        Self(AtomicBool::new(true))
    }

    /// A secret was deleted.
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Truncates it periodically, until the store is dropped.
pub(super) async fn keep_short(store: Weak<Inner>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(inner) = store.upgrade() else { return };
        inner.truncate().await;
    }
}

impl Inner {
    /// Truncates the write-ahead log if secrets were deleted since. A failure is tried again.
    pub(super) async fn truncate(&self) {
        if !self.remains.0.swap(false, Ordering::AcqRel) {
            return;
        }
        let path = self.path.clone();
        let done = tokio::task::spawn_blocking(move || truncate(&path)).await;
        if !matches!(done, Ok(Ok(true))) {
            self.remains.note();
        }
        if let Ok(Err(error)) = done {
            tracing::debug!(%error, "cannot truncate the write-ahead log of the state; will try again");
        }
    }
}

/// Returns whether it is empty now.
fn truncate(path: &Path) -> rusqlite::Result<bool> {
    let connection = open_to_write(path)?;
    connection.busy_timeout(BUSY_TIME)?;
    let is_busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(is_busy == 0)
}

#[cfg(test)]
mod tests {
    use sqlflow_job::{Cause, Event, Failure, Job, JobId, JobState, TokenHash};

    use super::*;
    use crate::fixture::new_job;
    use crate::{Secret, ServerId, SqliteStore, Store};

    const SECRET: &str = "mysql://ana:open-sesame@db/shop";

    /// The files of the state that contain this text.
    fn files_with(dir: &Path, text: &str) -> usize {
        let contains = |bytes: Vec<u8>| bytes.windows(text.len()).any(|it| it == text.as_bytes());
        let files = std::fs::read_dir(dir).unwrap();
        files.filter(|file| std::fs::read(file.as_ref().unwrap().path()).is_ok_and(contains)).count()
    }

    /// Records a job with this secret, which then ends.
    async fn job_ends(store: &SqliteStore, dir: &Path, token: u8) {
        let id = JobId::generate();
        let mut new = new_job(Job::new(id.clone(), Vec::new()), &ServerId::generate());
        new.token = TokenHash([token; 32]);
        new.secrets = vec![("datasource".to_owned(), Secret::new(SECRET))];
        store.create(new).await.unwrap();
        assert!(files_with(dir, SECRET) > 0);
        let ended = Event::Finished(JobState::Failed(Failure::new(Cause::Cancelled, "cancelled by a user")));
        let (job, _) = store.update(&id, None, ended, 1).await.unwrap();
        assert!(job.state.is_final(), "{:?}", job.state);
    }

    /// A second store keeps the write-ahead log open.
    #[tokio::test]
    async fn secret_of_an_ended_job_is_in_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let (store, other) =
            (SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap());
        job_ends(&store, dir.path(), 1).await;
        while files_with(dir.path(), SECRET) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        job_ends(&store, dir.path(), 2).await;
        // At once.
        store.close().await;
        assert_eq!(files_with(dir.path(), SECRET), 0);
        other.close().await;
    }
}
