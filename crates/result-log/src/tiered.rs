//! The logs of all jobs. A log begins as a small one, and moves to a folder when it outgrows that.
//!
//! A move has three steps, and any server that finds a log between two of them continues: the small log is frozen, so
//! that nobody appends to it; the folder is created, and gets its name when its content is durable; the bytes of the
//! small log are removed. If there is a folder, it is the log, even if there is a small log.
//!
//! Nothing here waits for another process: an append states the length that it expects, and is planned again after a
//! conflict.

mod moving;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sqlflow_job::{AttemptId, Event, Evidence, JobId, StatementEnds};
use sqlflow_sync::lock;
use tokio::sync::watch;

use self::moving::Home;
use super::log_cache::{self, CachedLog, LogCache};
use super::small_log::{Planned, SmallLogState, SmallLogs, SmallWrite, page};
use super::summary::{SealedAttempt, Summary};
use super::write::Addition;
use super::{
    Appended, Both, Entry, LogError, Missing, Page, Producer, ResultLog, SegmentLog, reader_positions,
};

/// Maximum number of conflicts with other processes or tasks, after which an addition fails.
const TRIES: u32 = 32;

/// Small logs in one storage, all others in folders. Cheap to clone.
///
/// Memory: for each known job the summary of a small log, or what `SegmentLog` states.
#[derive(Clone)]
pub struct TieredLog {
    inner: Arc<Inner>,
}

struct Inner {
    small: Arc<dyn SmallLogs>,
    folders: SegmentLog,
    /// Maximum size of a small log.
    small_bytes: u64,
    cache: Mutex<LogCache<TieredJobLog>>,
}

/// A job's log in this process.
#[derive(Default)]
struct TieredJobLog {
    /// Last seen state of the small log.
    view: Mutex<Option<SmallLogState>>,
    is_in_folder: AtomicBool,
    /// Whether its folder was found beside a frozen log, so that its name may not be durable yet.
    is_unfinished: AtomicBool,
    position: watch::Sender<u64>,
    used: AtomicU64,
}

impl TieredLog {
    /// Opens logs: those of up to `small_bytes` bytes in `small`, longer ones in `folders`.
    #[must_use]
    pub fn new(small: Arc<dyn SmallLogs>, folders: SegmentLog, small_bytes: u64) -> Self {
        Self { inner: Arc::new(Inner { small, folders, small_bytes, cache: Mutex::default() }) }
    }

    fn log(&self, job: &JobId) -> Arc<TieredJobLog> {
        lock(&self.inner.cache).get(job, TieredJobLog::default)
    }

    async fn add(&self, job: &JobId, addition: Addition) -> Result<Appended, LogError> {
        let log = self.log(job);
        // The first try uses the last seen state. If that does not decide it, the current state is read.
        let mut seen = log.seen();
        for _ in 0..TRIES {
            let is_current = seen.is_none();
            let view = match seen.take() {
                Some(view) if !log.is_in_folder() => view,
                _ => match self.home(job, &log).await? {
                    Home::Folder => {
                        if log.is_unfinished.load(Ordering::Acquire) {
                            // The name must be durable before anything is acknowledged.
                            self.finish_move(job, &log).await?;
                            continue;
                        }
                        let appended = self.inner.folders.add(job, addition).await?;
                        log.notify(appended.last_position);
                        return Ok(appended);
                    }
                    Home::Small { is_frozen: true, .. } => {
                        self.move_frozen(job, &log).await?;
                        continue;
                    }
                    Home::Small { view, is_frozen: false } => view,
                },
            };
            if let Some(appended) = self.add_to_small(job, &log, view, &addition, is_current).await? {
                return Ok(appended);
            }
        }
        Err(self.too_many_changes(job))
    }

    fn too_many_changes(&self, job: &JobId) -> LogError {
        let busy = std::io::Error::other("too many concurrent changes");
        LogError::io("use", &self.inner.folders.folder(job).path)(busy)
    }

    /// `None`: the log differs from `view`, or has moved; read it again. `is_current`: it was just read.
    async fn add_to_small(
        &self,
        job: &JobId,
        log: &TieredJobLog,
        view: SmallLogState,
        addition: &Addition,
        is_current: bool,
    ) -> Result<Option<Appended>, LogError> {
        let small = &self.inner.small;
        match self.plan(job, &view, addition) {
            Ok(Planned::Append { bytes, next, appended }) => {
                if small.append(job, view.length, bytes, addition.durability()).await? == SmallWrite::Conflict
                {
                    return Ok(None);
                }
                log.saw(&next);
                Ok(Some(appended))
            }
            Ok(Planned::Nothing(appended)) => Ok(is_current.then_some(appended)),
            Ok(Planned::TooLong) => {
                if small.freeze(job, view.length).await? == SmallWrite::Done {
                    self.move_frozen(job, log).await?;
                }
                Ok(None)
            }
            Err(error) if is_current => Err(error),
            Err(_) => Ok(None),
        }
    }

    fn plan(&self, job: &JobId, view: &SmallLogState, addition: &Addition) -> Result<Planned, LogError> {
        let Inner { folders, small_bytes, .. } = &*self.inner;
        view.plan(addition, folders.floor(job), *small_bytes, folders.max_bytes_per_job())
    }

    /// Queries the summary of a small log, or the folder.
    async fn look<T>(
        &self,
        job: &JobId,
        small: impl FnOnce(&Summary) -> T,
        folder: impl AsyncFnOnce(&SegmentLog) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        match self.home(job, &self.log(job)).await? {
            Home::Small { view, .. } => Ok(small(&view.summary)),
            Home::Folder => folder(&self.inner.folders).await,
        }
    }

    /// `None`: the log is in a folder.
    async fn read_small(
        &self,
        job: &JobId,
        log: &TieredJobLog,
        after: u64,
        max_bytes: usize,
    ) -> Result<Option<Page>, LogError> {
        for _ in 0..TRIES {
            if log.is_in_folder() {
                return Ok(None);
            }
            let found = self.inner.small.read(job, 0).await?;
            if self.has_moved(job, log, &found).await? {
                return Ok(None);
            }
            let read = SmallLogState::of(&found.bytes)
                .and_then(|view| Ok((page(&view.summary, &found.bytes, after, max_bytes as u64)?, view)));
            match read {
                Ok((page, view)) => {
                    log.saw(&view);
                    return Ok(Some(page));
                }
                Err(what) => self.move_damaged(job, log, &found, what).await?,
            }
        }
        Err(self.too_many_changes(job))
    }

    #[cfg(any(test, feature = "test-support"))]
    pub fn cached_jobs(&self) -> usize {
        lock(&self.inner.cache).len()
    }
}

impl TieredJobLog {
    fn is_in_folder(&self) -> bool {
        self.is_in_folder.load(Ordering::Acquire)
    }

    fn seen(&self) -> Option<SmallLogState> {
        lock(&self.view).clone()
    }

    /// Requires another read.
    fn look_again(&self) {
        self.is_in_folder.store(false, Ordering::Release);
        self.is_unfinished.store(false, Ordering::Release);
        self.forget(&SmallLogState::default());
    }

    /// Removes this state and shorter ones; an empty one stands for all.
    fn forget(&self, view: &SmallLogState) {
        let mut seen = lock(&self.view);
        if view.length == 0 || seen.as_ref().is_some_and(|seen| seen.length <= view.length) {
            *seen = None;
        }
    }

    /// Stores the state, unless a longer one was seen.
    fn saw(&self, view: &SmallLogState) {
        let mut seen = lock(&self.view);
        if seen.as_ref().is_none_or(|seen| seen.length <= view.length) {
            *seen = Some(view.clone());
        }
        drop(seen);
        self.notify(view.summary.reader_last_position());
    }

    fn notify(&self, last: u64) {
        log_cache::notify_watchers(&self.position, last);
    }
}

impl CachedLog for TieredJobLog {
    fn is_watched(&self) -> bool {
        self.position.receiver_count() > 0
    }

    fn has_ended(&self) -> bool {
        self.is_in_folder()
            || lock(&self.view).as_ref().is_none_or(|view| view.summary.is_closed || view.length == 0)
    }

    fn used(&self) -> &AtomicU64 {
        &self.used
    }
}

#[async_trait]
impl ResultLog for TieredLog {
    async fn append(&self, job: &JobId, entries: Vec<Entry>) -> Result<Appended, LogError> {
        self.add(job, Addition::Entries(entries)).await
    }

    async fn append_and_apply(
        &self,
        job: &JobId,
        entries: &[Entry],
        event: Event,
        now_ms: i64,
    ) -> Result<Option<Both>, LogError> {
        let log = self.log(job);
        let Some(view) = log.seen().filter(|_| !log.is_in_folder()) else { return Ok(None) };
        let planned = self.plan(job, &view, &Addition::Entries(entries.to_vec()));
        let Ok(Planned::Append { bytes, next, appended }) = planned else { return Ok(None) };
        // The caller first cancels a job whose log is full.
        if appended.is_full {
            return Ok(None);
        }
        let applied = self.inner.small.append_and_apply(job, view.length, bytes, event, now_ms).await?;
        let Some((job, change)) = applied else { return Ok(None) };
        log.saw(&next);
        Ok(Some(Both { appended, job, change }))
    }

    async fn last_seq(&self, attempt: &AttemptId, rank: u32) -> Result<u64, LogError> {
        let producer = Producer::agent(attempt, rank);
        let folder = async |log: &SegmentLog| log.last_seq(attempt, rank).await;
        self.look(&attempt.job, |summary| summary.last_seq(producer), folder).await
    }

    async fn seal(
        &self,
        attempt: &AttemptId,
        missing: Option<Missing>,
    ) -> Result<BTreeMap<u32, u64>, LogError> {
        let seal = SealedAttempt { step: attempt.step, attempt: attempt.number };
        let sealed = self.add(&attempt.job, Addition::Seal(seal, missing)).await?;
        Ok(sealed.by_rank())
    }

    async fn statement_ends(&self, attempt: &AttemptId) -> Result<StatementEnds, LogError> {
        let producer = Producer::agent(attempt, 0);
        let folder = async |log: &SegmentLog| log.statement_ends(attempt).await;
        self.look(&attempt.job, |summary| summary.statement_ends(producer), folder).await
    }

    async fn evidence(&self, job: &JobId, step: u32) -> Result<Evidence, LogError> {
        let folder = async |log: &SegmentLog| log.evidence(job, step).await;
        self.look(job, |summary| summary.evidence(step), folder).await
    }

    async fn read(&self, job: &JobId, after: u64, max_bytes: usize) -> Result<Page, LogError> {
        let log = self.log(job);
        let page = match self.read_small(job, &log, after, max_bytes).await? {
            Some(page) => page,
            None => self.inner.folders.read(job, after, max_bytes).await?,
        };
        log.notify(page.last_position);
        Ok(page)
    }

    async fn last_position(&self, job: &JobId) -> Result<u64, LogError> {
        let folder = async |log: &SegmentLog| log.last_position(job).await;
        self.look(job, Summary::reader_last_position, folder).await
    }

    async fn tail(&self, job: &JobId, count: u64) -> Result<u64, LogError> {
        let before = |summary: &Summary| {
            reader_positions::to_readers(&summary.shifts, summary.last_position.saturating_sub(count))
        };
        self.look(job, before, async |log: &SegmentLog| log.tail(job, count).await).await
    }

    fn watch(&self, job: &JobId) -> watch::Receiver<u64> {
        self.log(job).position.subscribe()
    }

    async fn delete(&self, job: &JobId) -> Result<(), LogError> {
        // The small log may be older than its folder.
        self.inner.small.delete(job).await?;
        self.inner.folders.delete(job).await?;
        lock(&self.inner.cache).remove(job);
        Ok(())
    }

    async fn ready(&self) -> Result<(), LogError> {
        self.inner.folders.ready().await
    }

    async fn jobs(&self) -> Result<Vec<JobId>, LogError> {
        let mut jobs = BTreeSet::from_iter(self.inner.folders.jobs().await?);
        jobs.extend(self.inner.small.jobs().await?);
        Ok(jobs.into_iter().collect())
    }

    async fn bytes(&self, jobs: &[JobId]) -> Result<u64, LogError> {
        let in_folders = self.inner.folders.bytes(jobs).await?;
        Ok(in_folders.saturating_add(self.inner.small.bytes(jobs).await?))
    }
}
