//! The reading connections. Reads may block for as long as the disk does, so they run on blocking threads.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rusqlite::Connection;
use sqlflow_sync::blocking;
use sqlflow_sync::lock;
use tokio::sync::Semaphore;

use super::database::open_to_read;
use crate::types::StoreError;

/// Maximum number of concurrent reads; each has a connection and a thread.
const READERS: usize = 4;
/// Timeout for a read's turn, which comes within milliseconds unless the disk does not respond.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    turns: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn of(path: PathBuf) -> Self {
        Self { path, idle: Mutex::default(), turns: Arc::new(Semaphore::new(READERS)) }
    }

    /// Does the work, even if the caller is dropped.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = tokio::time::timeout(TURN_TIMEOUT, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| StoreError::Slow)?.map_err(|_| StoreError::Closing)?;
        let this = Arc::clone(self);
        let read = blocking::run(move || {
            let _turn = turn;
            let idle = this.idle().pop();
            let connection = idle.map_or_else(|| open_to_read(&this.path), Ok)?;
            let result = work(&connection);
            // A failed connection is replaced.
            if !matches!(result, Err(StoreError::Database(_))) {
                this.idle().push(connection);
            }
            result
        });
        read.await.unwrap_or(Err(StoreError::Closing))
    }

    /// Closes, after the current reads.
    pub(super) async fn close(&self) {
        let all = u32::try_from(READERS).unwrap_or(u32::MAX);
        let all = self.turns.acquire_many(all).await;
        self.turns.close();
        self.idle().clear();
        drop(all);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        lock(&self.idle)
    }
}
