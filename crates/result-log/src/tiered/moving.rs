//! The place of a log, and its move from a small log to a folder.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlflow_job::JobId;
use tokio::time::Instant;

use super::{TRIES, TieredJobLog, TieredLog};
use crate::blocking::run_blocking;
use crate::lock::LOCK_WAIT;
use crate::move_to_folder::move_to_folder;
use crate::small_log::{SmallLog, SmallLogState, SmallWrite};
use crate::{LogError, ResultLog as _};

/// Poll interval while another process moves a log.
const MOVE_PAUSE: Duration = Duration::from_millis(20);

/// Place of a log.
pub(super) enum Home {
    /// A small log. `is_frozen`: it is about to move to a folder.
    Small {
        view: SmallLogState,
        is_frozen: bool,
    },
    Folder,
}

impl TieredLog {
    /// The current place of the log.
    pub(super) async fn home(&self, job: &JobId, log: &TieredJobLog) -> Result<Home, LogError> {
        for _ in 0..TRIES {
            if log.is_in_folder() {
                return Ok(Home::Folder);
            }
            let seen = log.seen();
            let mut view = seen.clone().unwrap_or_default();
            let found = self.inner.small.read(job, view.length).await?;
            if found.length < view.length {
                // It was deleted, and may have begun again with other records.
                log.forget(&view);
                continue;
            }
            if self.has_moved(job, log, &found).await? {
                return Ok(Home::Folder);
            }
            match view.follow(&found) {
                Ok(()) => {
                    log.saw(&view);
                    return Ok(Home::Small { view, is_frozen: found.is_frozen });
                }
                Err(what) => self.move_damaged(job, log, &found, what).await?,
            }
        }
        Err(self.too_many_changes(job))
    }

    /// Whether the log with this small log is in a folder. It may be if the small log is frozen, or was not seen here
    /// with bytes.
    pub(super) async fn has_moved(
        &self,
        job: &JobId,
        log: &TieredJobLog,
        found: &SmallLog,
    ) -> Result<bool, LogError> {
        let is_new = log.seen().is_none_or(|seen| seen.length == 0);
        let has_no_bytes = found.is_frozen && found.length == 0;
        if !has_no_bytes && !((found.is_frozen || is_new) && self.has_folder(job).await?) {
            return Ok(false);
        }
        // The process that moved it may have died before the last step, even after the rows were read.
        let is_finished = has_no_bytes || self.inner.small.read(job, 0).await?.length == 0;
        log.is_unfinished.store(!is_finished, Ordering::Release);
        log.is_in_folder.store(true, Ordering::Release);
        Ok(true)
    }

    /// Moves a damaged log to a folder, where it is repaired. No effect after a conflict: read it again.
    pub(super) async fn move_damaged(
        &self,
        job: &JobId,
        log: &TieredJobLog,
        found: &SmallLog,
        what: &'static str,
    ) -> Result<(), LogError> {
        tracing::error!(%job, what, "a small result log is damaged, and moves to a folder to be repaired");
        self.inner.small.freeze(job, found.length).await?;
        log.forget(&SmallLogState::default());
        self.move_frozen(job, log).await
    }

    async fn has_folder(&self, job: &JobId) -> Result<bool, LogError> {
        let path = self.inner.folders.folder(job).path;
        run_blocking(move || path.try_exists().map_err(LogError::io("check", &path))).await
    }

    /// Completes a move whose folder was found. A power failure may have undone the first step.
    pub(super) async fn finish_move(&self, job: &JobId, log: &TieredJobLog) -> Result<(), LogError> {
        let found = self.inner.small.read(job, 0).await?;
        if !found.is_frozen && found.length > 0 {
            self.inner.small.freeze(job, found.length).await?;
        }
        self.move_frozen(job, log).await
    }

    /// Moves a frozen log to its folder. No effect on one that is not frozen: read it again.
    pub(super) async fn move_frozen(&self, job: &JobId, log: &TieredJobLog) -> Result<(), LogError> {
        let begun = Instant::now();
        loop {
            let found = self.inner.small.read(job, 0).await?;
            if !found.is_frozen {
                log.look_again();
                return Ok(());
            }
            let folder = self.inner.folders.folder(job);
            let has_bytes = !found.bytes.is_empty();
            match run_blocking(move || move_to_folder(&folder, &found.bytes)).await {
                Ok(()) => {}
                // Another process moves it.
                Err(LogError::Busy { .. }) if begun.elapsed() < LOCK_WAIT => {
                    tokio::time::sleep(MOVE_PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error),
            }
            if self.inner.small.empty(job).await? == SmallWrite::Conflict && has_bytes {
                // It was deleted in the meantime.
                log.look_again();
                return self.inner.folders.delete(job).await;
            }
            log.is_in_folder.store(true, Ordering::Release);
            log.is_unfinished.store(false, Ordering::Release);
            return Ok(());
        }
    }
}
