//! The logs of all jobs in one folder.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sqlflow_job::{AttemptId, Evidence, JobId, StatementEnds};
use sqlflow_sync::lock;
use tokio::sync::watch;

use super::blocking::run_blocking;
use super::file_io::Disk;
use super::folder::{self, Folder};
use super::job_log::JobLog;
use super::log_cache::LogCache;
use super::summary::SealedAttempt;
use super::write::Addition;
use super::{Appended, Entry, LogError, Missing, Page, Producer, ResultLog};

/// Folder and limits of the logs.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The folder of all logs. It is created if it does not exist.
    pub dir: PathBuf,
    /// Size from which a segment gets no further records.
    pub segment_bytes: u64,
    /// Maximum size of a job's output and progress. The oldest is removed, and a gap record stands for it. The limit
    /// may be exceeded by up to one segment.
    pub retain_output_bytes_per_job: u64,
    /// Maximum size of all other records of a job's attempts. Results beyond it are not stored.
    pub max_bytes_per_job: u64,
    /// Start of this process, in microseconds since the Unix epoch. A copy was restored before it, if ever.
    pub opened_micros: i64,
    /// Whether appends wait for the disk. Otherwise records survive the end of the server, but not of its machine.
    pub fsync: bool,
}

/// Result logs in segment files below one folder, shared by several processes. Cheap to clone.
///
/// Memory: for each known job what `log_state` states. Idle logs beyond a limit are dropped from memory. No file stays
/// open between calls.
#[derive(Clone)]
pub struct SegmentLog {
    inner: Arc<Inner>,
}

struct Inner {
    options: Arc<LogOptions>,
    disk: Disk,
    jobs: Mutex<LogCache<JobLog>>,
}

impl SegmentLog {
    /// Opens the folder.
    ///
    /// # Errors
    /// It cannot be created, or not durably.
    pub fn open(options: LogOptions) -> Result<Self, LogError> {
        // Rows and output are private.
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&options.dir);
        made.map_err(LogError::io("create", &options.dir))?;
        let disk = Disk::new(options.fsync);
        // No append syncs the folder that contains it.
        options.dir.parent().map_or(Ok(()), |parent| disk.sync_folder(parent))?;
        let (options, jobs) = (Arc::new(options), Mutex::default());
        Ok(Self { inner: Arc::new(Inner { options, disk, jobs }) })
    }

    fn job(&self, id: &JobId) -> Arc<JobLog> {
        let make = || JobLog::new(self.folder(id), Arc::clone(&self.inner.options));
        lock(&self.inner.jobs).get(id, make)
    }

    pub(super) fn folder(&self, id: &JobId) -> Folder {
        Folder::of(&self.inner.options.dir, id, self.inner.disk.clone())
    }

    /// The lowest position that readers see for records of this process.
    pub(super) fn floor(&self, id: &JobId) -> u64 {
        self.folder(id).floor(self.inner.options.opened_micros)
    }

    pub(super) fn max_bytes_per_job(&self) -> u64 {
        self.inner.options.max_bytes_per_job
    }

    pub(super) async fn add(&self, id: &JobId, addition: Addition) -> Result<Appended, LogError> {
        self.job(id).add(addition).await
    }

    #[cfg(test)]
    pub(super) fn fail_syncs(&self, count: u32) {
        self.inner.disk.syncs_to_fail.store(count, std::sync::atomic::Ordering::SeqCst);
    }

    #[cfg(any(test, feature = "test-support"))]
    pub fn cached_jobs(&self) -> usize {
        lock(&self.inner.jobs).len()
    }

    #[cfg(test)]
    pub(super) fn knows(&self, job: &JobId) -> bool {
        lock(&self.inner.jobs).contains(job)
    }

    #[cfg(any(test, feature = "test-support"))]
    pub fn folder_of(&self, id: &JobId) -> PathBuf {
        self.folder(id).path
    }
}

#[async_trait]
impl ResultLog for SegmentLog {
    async fn append(&self, job: &JobId, entries: Vec<Entry>) -> Result<Appended, LogError> {
        self.add(job, Addition::Entries(entries)).await
    }

    async fn last_seq(&self, attempt: &AttemptId, rank: u32) -> Result<u64, LogError> {
        let producer = Producer::agent(attempt, rank);
        self.job(&attempt.job).look(move |view| view.summary.last_seq(producer)).await
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
        self.job(&attempt.job).look(move |view| view.summary.statement_ends(producer)).await
    }

    async fn evidence(&self, job: &JobId, step: u32) -> Result<Evidence, LogError> {
        self.job(job).look(move |view| view.summary.evidence(step)).await
    }

    async fn read(&self, job: &JobId, after: u64, max_bytes: usize) -> Result<Page, LogError> {
        self.job(job).read(after, max_bytes).await
    }

    async fn last_position(&self, job: &JobId) -> Result<u64, LogError> {
        self.job(job).position_before(0).await
    }

    async fn tail(&self, job: &JobId, count: u64) -> Result<u64, LogError> {
        self.job(job).position_before(count).await
    }

    fn watch(&self, job: &JobId) -> watch::Receiver<u64> {
        self.job(job).watch()
    }

    async fn delete(&self, job: &JobId) -> Result<(), LogError> {
        self.job(job).delete().await?;
        lock(&self.inner.jobs).remove(job);
        Ok(())
    }

    async fn ready(&self) -> Result<(), LogError> {
        let dir = self.inner.options.dir.clone();
        run_blocking(move || std::fs::read_dir(&dir).map(drop).map_err(LogError::io("list", &dir))).await
    }

    async fn jobs(&self) -> Result<Vec<JobId>, LogError> {
        let dir = self.inner.options.dir.clone();
        run_blocking(move || folder::jobs(&dir)).await
    }

    async fn bytes(&self, jobs: &[JobId]) -> Result<u64, LogError> {
        let folders: Vec<Folder> = jobs.iter().map(|job| self.folder(job)).collect();
        run_blocking(move || {
            folders.iter().try_fold(0_u64, |sum, folder| Ok(sum.saturating_add(folder.bytes()?)))
        })
        .await
    }
}
