//! The result log: all records of a job, in order. The trait [`ResultLog`] is the only way to it, and servers hold
//! nothing of it that another server could not read there.
//!
//! Positions here are those that readers see: increasing and unique, even if a log was restored from an older copy. In
//! the files, and so within this crate, positions are 1, 2, 3 and so on; `reader_positions` converts between the two.
//!
//! A log is stored in one of two places. A small log is stored with the state of the jobs ([`SmallLogs`]), a longer one
//! in a folder ([`SegmentLog`]). [`TieredLog`] decides which. Several server processes may use both at the same time.
//! The modules:
//! - pure: `frame` (bytes of a file), `summary` (what must be known of all earlier records), `append_plan` (which
//!   records are taken and where), `compact` (what retention leaves), `salvage` (what damage leaves), `index` (where in
//!   a file a position is), `frame_reader` and `frame_order` (what may follow what in a file), `reader_positions` (what readers see of
//!   positions);
//! - I/O: `file_io` (reading, syncing and errors), `partial_read` (a whole file, as far as the disk can read it), `folder` (a
//!   job's files and their names), `lock` (who may append, and how far the log is durable), `scan` and `log_state` (the
//!   log as this process knows it), `write`, `read`, `retention`, `repair`;
//! - `job_log` puts these together for one job, `segment_log` for all of them;
//! - `small_log` is what small logs are, `tiered` puts them and the folders together, `move_to_folder` makes a folder of a
//!   small log, `log_cache` is what a process keeps of logs in memory;
//! - `inspect` checks a whole log without its lock, and `maintenance` is what an operator's tool may do with logs.

mod append_plan;
#[cfg(any(test, feature = "test-support"))]
mod bad_blocks;
mod blocking;
mod compact;
mod durability;
mod error;
mod file_io;
#[cfg(any(test, feature = "test-support"))]
pub mod fixture;
mod folder;
mod frame;
mod frame_order;
mod frame_reader;
mod index;
mod inspect;
mod job_log;
mod lock;
mod log_cache;
mod log_state;
mod maintenance;
mod move_to_folder;
mod partial_read;
mod producer;
mod read;
mod reader_positions;
mod repair;
mod retention;
mod salvage;
mod scan;
mod segment_log;
mod small_log;
mod summary;
#[cfg(test)]
mod tests;
mod tiered;
mod write;

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlflow_proto::record::{Record, StoredRecord};
use tokio::sync::watch;

pub use durability::Durability;
pub use error::LogError;
pub use inspect::{Damage, Health};
pub use maintenance::{Aside, Found, Maintenance, Moved, free_name};
pub use producer::Producer;
pub use segment_log::{LogOptions, SegmentLog};
pub use small_log::{SmallLog, SmallLogError, SmallLogs, SmallWrite};
pub use summary::note_ends;
pub use tiered::TieredLog;

use sqlflow_job::{AttemptId, Change, Event, Evidence, Job, JobId, StatementEnds};

/// A record to append.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Producer of the record.
    pub producer: Producer,
    /// The record. Its `seq` is 0 if a server made it.
    pub record: Record,
}

/// Result of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The log's last position; all records up to it are durable.
    pub last_position: u64,
    /// Last durable seq of each agent whose records are among the entries.
    pub last_seqs: BTreeMap<Producer, u64>,
    /// Whether the log has reached its limit and a result was not stored, so that the job cannot succeed.
    pub is_full: bool,
}

/// Result of an append together with an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Both {
    /// Result of the append.
    pub appended: Appended,
    /// The job after the event.
    pub job: Job,
    /// Whether the event changed it.
    pub change: Change,
}

/// Records of an agent that exist but cannot be appended, and the gap record in their place.
#[derive(Debug, Clone, PartialEq)]
pub struct Missing {
    /// Last seq that the agent of rank 0 used.
    pub said: u64,
    /// The gap record; its `seq` is 0.
    pub gap: Record,
}

/// Consecutive records of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// In order of their positions. Where retention removed output, positions are skipped and a gap record says so.
    /// Positions are also skipped at the first append of a server; no record is missing there.
    pub records: Vec<StoredRecord>,
    /// The log's last position.
    pub last_position: u64,
    /// Number of records after the page, without those that retention removed.
    pub behind: u64,
    /// Whether `last_position` is the last durable one. After a power failure there may be more, while another process
    /// holds the log's lock.
    pub is_current: bool,
}

impl Page {
    /// Whether the last record is the job's end.
    #[must_use]
    pub fn has_end(&self) -> bool {
        self.records.last().and_then(|stored| stored.record.as_ref()).is_some_and(summary::is_end)
    }
}

/// The result logs of all jobs. A log begins with its first record; a log without records is empty, and reading it is
/// no error.
///
/// ```
/// use sqlflow_job::JobId;
/// use sqlflow_proto::record::{Notice, Record, record::Payload};
/// use sqlflow_result_log::{Entry, LogOptions, Producer, ResultLog, SegmentLog};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = SegmentLog::open(LogOptions {
///     dir: dir.path().join("logs"),
///     segment_bytes: 8 << 20,
///     retain_output_bytes_per_job: 64 << 20,
///     max_bytes_per_job: 1 << 30,
///     opened_micros: 0,
///     fsync: true,
/// })?;
///
/// // Record 1 of the first attempt of step 0. A repeated append changes nothing.
/// let job = JobId::generate();
/// let notice = Payload::Notice(Notice { text: "hello".to_owned(), ..Notice::default() });
/// let entry = Entry {
///     producer: Producer { step: 0, attempt: 1, rank: 0 },
///     record: Record { seq: 1, payload: Some(notice), ..Record::default() },
/// };
/// let appended = log.append(&job, vec![entry.clone()]).await?;
/// assert_eq!(log.append(&job, vec![entry.clone()]).await?.last_position, appended.last_position);
///
/// let page = log.read(&job, 0, 1 << 20).await?;
/// assert_eq!(page.records[0].record, Some(entry.record));
/// assert_eq!(page.records.len(), 1);
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait ResultLog: Send + Sync + 'static {
    /// Appends the entries, all or none; they are durable when it returns. If the caller is dropped they may be
    /// appended or not. Only the job's end may be undone by a power failure: it follows from the outcomes of the
    /// attempts, and is appended again.
    ///
    /// Duplicates are dropped: entries of an agent whose seq is in the log. Of the others:
    /// - After the job's end, entries of servers are dropped, and entries of attempts are [`LogError::Sealed`].
    /// - An entry of an agent that skips a seq is [`LogError::Gap`]; but the gap record of a lost agent stands for all
    /// records up to its own seq.
    /// - An entry of a sealed attempt is [`LogError::Sealed`].
    /// - Where results exceed the log's limit, each is replaced by a gap record.
    async fn append(&self, job: &JobId, entries: Vec<Entry>) -> Result<Appended, LogError>;

    /// Appends the entries and applies the event to the job, both or neither, if both are in one database. `None`:
    /// neither was done, because they are in different places or one of them is refused; the caller then does one after
    /// the other.
    async fn append_and_apply(
        &self,
        _job: &JobId,
        _entries: &[Entry],
        _event: Event,
        _now_ms: i64,
    ) -> Result<Option<Both>, LogError> {
        Ok(None)
    }

    /// The last durable seq of the attempt's agent of this rank; 0: none.
    async fn last_seq(&self, attempt: &AttemptId, rank: u32) -> Result<u64, LogError>;

    /// Seals the attempt: no server accepts another record of it, of any rank. Returns the last seq of rank 0 and of
    /// each other rank with records. Idempotent: `missing` is appended with the first seal only.
    async fn seal(
        &self,
        attempt: &AttemptId,
        missing: Option<Missing>,
    ) -> Result<BTreeMap<u32, u64>, LogError>;

    /// The ends of statements that the attempt's agent of rank 0 recorded.
    async fn statement_ends(&self, attempt: &AttemptId) -> Result<StatementEnds, LogError>;

    /// Evidence in the log about a step, over all its attempts.
    async fn evidence(&self, job: &JobId, step: u32) -> Result<Evidence, LogError>;

    /// The records after position `after`: at most `max_bytes`, but at least one if there is one. If the log ends
    /// before `after`, because an older copy was restored, reading continues at its end.
    async fn read(&self, job: &JobId, after: u64, max_bytes: usize) -> Result<Page, LogError>;

    /// The log's last position; 0: it is empty.
    async fn last_position(&self, job: &JobId) -> Result<u64, LogError>;

    /// The position after which the last `count` records are; 0 if there are fewer. Where retention removed some of
    /// them, there are fewer.
    async fn tail(&self, job: &JobId, count: u64) -> Result<u64, LogError>;

    /// A watch of the log's last position as this process knows it. It learns of other processes' records only when it
    /// appends or reads.
    fn watch(&self, job: &JobId) -> watch::Receiver<u64>;

    /// Deletes the job's log; no effect if there is none.
    async fn delete(&self, job: &JobId) -> Result<(), LogError>;

    /// Checks whether logs can be read. A full disk is no error here.
    async fn ready(&self) -> Result<(), LogError>;

    /// The jobs that have a log, unordered.
    async fn jobs(&self) -> Result<Vec<JobId>, LogError>;

    /// Bytes that the logs of these jobs take in the storage.
    async fn bytes(&self, jobs: &[JobId]) -> Result<u64, LogError>;
}
