//! The lock under which a server creates or migrates the state file. SQLite locks each transaction, not the whole
//! migration, so one of two servers that start together could find the file busy, or a table that exists already.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sqlflow_os::locks::{self, Kind};

use super::beside;

/// Timeout for another server that holds the lock. A migration of a large file takes seconds.
const LOCK_WAIT: Duration = Duration::from_secs(60);
/// Pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The lock for the state file at this path, until the file is dropped.
///
/// # Errors
/// The lock's file cannot be opened or locked, or another process holds it for too long.
pub(super) async fn lock(state_file: &Path) -> anyhow::Result<File> {
    lock_within(state_file, LOCK_WAIT).await
}

async fn lock_within(state_file: &Path, wait: Duration) -> anyhow::Result<File> {
    let path = lock_path(state_file);
    let cannot = || format!("cannot lock {}", path.display());
    // The file is not removed: if it were, two servers could each lock a file of that name.
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).with_context(cannot)?;
    let begin = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begin.elapsed() < wait => tokio::time::sleep(LOCK_PAUSE).await,
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "{}: {} has held it for {} s; end that process",
                    cannot(),
                    holder(&file),
                    wait.as_secs()
                )
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
        }
    }
}

/// The lock file. It is not the state file itself, because some systems implement flock(2) with the kind of locks that
/// SQLite uses, and the two would conflict.
fn lock_path(state_file: &Path) -> PathBuf {
    beside(state_file, ".lock")
}

/// The holder of the lock, for people.
fn holder(file: &File) -> String {
    let pid = file.metadata().ok().and_then(|it| locks::holder(Kind::Flock, it.ino()));
    pid.map_or_else(|| "another process".to_owned(), locks::in_words)
}

#[cfg(test)]
mod tests {
    use super::super::{SqliteStore, older_file};
    use super::*;
    use crate::Membership;

    async fn open_together(path: &Path) {
        let opened = futures::future::join_all((0..4).map(|_| SqliteStore::open(path))).await;
        for store in opened {
            store.unwrap().close().await;
        }
    }

    #[tokio::test]
    async fn concurrent_starts_create_the_file_once() {
        for _ in 0..10 {
            let dir = tempfile::tempdir().unwrap();
            open_together(&dir.path().join("state.db")).await;
        }
    }

    #[tokio::test]
    async fn concurrent_starts_migrate_the_file_once() {
        for _ in 0..10 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("state.db");
            drop(older_file(&path, 1));
            open_together(&path).await;
        }
    }

    /// It would take the logs of new jobs for empty, and begin others.
    #[tokio::test]
    async fn file_of_a_running_older_server_is_not_migrated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        drop(older_file(&path, 4));
        let (runs, ended) = (
            Membership::join(&dir.path().join("servers")).unwrap(),
            Membership::join(&dir.path().join("servers")).unwrap(),
        );
        drop(ended);
        let error = SqliteStore::open(&path).await.map(drop).unwrap_err().to_string();
        assert!(error.contains(&runs.id().0) && error.contains("stop that server first"), "{error}");
        drop(runs);
        SqliteStore::open(&path).await.unwrap();
    }

    #[tokio::test]
    async fn lock_timeout_names_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let held = lock(&path).await.unwrap();
        let error = lock_within(&path, Duration::ZERO).await.unwrap_err().to_string();
        let me = format!("process {} has held it", std::process::id());
        assert!(error.contains("state.db.lock") && error.contains(&me), "{error}");
        drop(held);
        lock_within(&path, Duration::ZERO).await.unwrap();
    }
}
