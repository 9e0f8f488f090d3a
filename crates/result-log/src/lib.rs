//! The result log: all that a job said, in order. The trait is the only way to it; servers keep nothing of it that
//! another could not read there.
//!
//! Positions are those that readers see: they rise, and none is given twice, also where a log was restored from an older
//! copy. In the files, and so inside of this module, they are 1, 2, 3 and so on; `shift` leads from one to the other.
//!
//! A log is at home in one of two places. A small one is with the state of the jobs ([`SmallLogs`]); a longer one is in a
//! folder of its own ([`SegmentLog`]). Several server processes may use both at the same time, and [`TieredLog`] decides which
//! it is. What lives where:
//! - pure: `frame` (bytes of a file), `summary` (what must be known of all earlier records), `plan` (which records
//!   are taken and where), `compact` (what retention leaves), `salvage` (what damage leaves), `index` (where in a
//!   file a position is), `order` (what may follow what in a file), `shift` (what readers see of positions);
//! - I/O: `disk` (reading, syncing and errors), `contents` (a whole file, as far as the disk can read it), `folder` (a
//!   job's files and their names), `lock` (who may append, and how far the log is durable), `scan` and `log_state` (the log as
//!   this process knows it), `write`, `read`, `retention`, `repair`;
//! - `job_log` puts these together for one job, `segment_log` for all of them;
//! - `small` is what small logs are, `tiered` puts them and the folders together, `adopt` makes a folder of a small log, `known`
//!   is what a process keeps of logs in memory;
//! - `inspect` checks a whole log without its lock, and `upkeep` is what an operator's tool may do with logs.

mod adopt;
#[cfg(any(test, feature = "test-support"))]
mod bad_blocks;
mod blocking;
mod compact;
mod contents;
mod disk;
mod durability;
mod error;
#[cfg(any(test, feature = "test-support"))]
pub mod fixture;
mod folder;
mod frame;
mod index;
mod inspect;
mod job_log;
mod known;
mod lock;
mod log_state;
mod order;
mod part;
mod plan;
mod producer;
mod read;
mod repair;
mod retention;
mod salvage;
mod scan;
mod segment_log;
mod shift;
mod small;
mod summary;
#[cfg(test)]
mod tests;
mod tiered;
mod upkeep;
mod write;

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlflow_proto::record::{Record, StoredRecord};
use tokio::sync::watch;

pub use durability::Durability;
pub use error::LogError;
pub use inspect::{Damage, Health};
pub use producer::Producer;
pub use segment_log::{LogOptions, SegmentLog};
pub use small::{SmallLog, SmallLogError, SmallLogs};
pub use tiered::TieredLog;
pub use upkeep::{Aside, Found, Moved, Upkeep, free_name};

use sqlflow_job::{AttemptId, Change, Event, Evidence, Job, JobId};

/// A record on its way into the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Who says it.
    pub producer: Producer,
    /// The record; its `seq` is 0 when a server made it.
    pub record: Record,
}

/// What an append came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The log's last position. All records up to it are durable.
    pub last_position: u64,
    /// The last durable seq of each agent whose records are among the entries.
    pub last_seqs: BTreeMap<Producer, u64>,
    /// The log has reached its limit, and a result was not taken: the job cannot succeed any more.
    pub is_full: bool,
}

/// What an append came to, and the event that was applied with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Both {
    /// Of the append.
    pub appended: Appended,
    /// The job after the event.
    pub job: Job,
    /// Whether the event changed it.
    pub change: Change,
}

/// What an agent said more than the log may hold, and what stands for it there.
#[derive(Debug, Clone, PartialEq)]
pub struct Missing {
    /// The last seq that the agent of rank 0 has given.
    pub said: u64,
    /// Stands for those that are not there; its `seq` is 0.
    pub gap: Record,
}

/// Consecutive records of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// In order of their positions. Where retention removed output, positions are left out and a gap record says so.
    /// Others are left out where a server appended for the first time; nothing is missing there.
    pub records: Vec<StoredRecord>,
    /// The log's last position.
    pub last_position: u64,
    /// How many records there are after those of the page; less those that retention removed.
    pub behind: u64,
    /// Whether nothing durable lies behind `last_position`. It may after a power failure, while another process holds
    /// the log.
    pub is_current: bool,
}

impl Page {
    /// Whether the job's end is the last of the records.
    #[must_use]
    pub fn has_end(&self) -> bool {
        self.records.last().and_then(|stored| stored.record.as_ref()).is_some_and(summary::is_end)
    }
}

/// The logs of all jobs. A log begins with its first record; one without records is empty, not an error.
#[async_trait]
pub trait ResultLog: Send + Sync + 'static {
    /// Adds the entries, all or none; they are durable when it returns, and may become so when the caller is dropped. Only the
    /// job's end may be taken back by a power failure: it follows from the outcomes of the attempts, and is said again.
    ///
    /// After the job's end nothing is added: entries that servers made are dropped, new ones of attempts are
    /// [`LogError::Sealed`]. Before it, entries that servers made are always added. Of an agent's entries, those whose seq is there already are
    /// dropped; then a seq that leaves one out is [`LogError::Gap`] (but the gap of a lost agent stands for all up to its
    /// own), then anything new of a sealed attempt is
    /// [`LogError::Sealed`]. Where results would make the log longer than its limit, a gap stands for each.
    async fn append(&self, job: &JobId, entries: Vec<Entry>) -> Result<Appended, LogError>;

    /// Adds the entries and applies the event to the job, both or neither, where one transaction can do both. `None`: neither
    /// was done, for they are in different places, or one of them is refused. Then the caller does one after the other.
    async fn append_and_apply(
        &self,
        _job: &JobId,
        _entries: &[Entry],
        _event: Event,
        _now_ms: i64,
    ) -> Result<Option<Both>, LogError> {
        Ok(None)
    }

    /// The last durable seq of the attempt's agent of this rank; 0 when there is none.
    async fn last_seq(&self, attempt: &AttemptId, rank: u32) -> Result<u64, LogError>;

    /// Takes nothing more of the attempt, whatever its rank and from whatever server, and tells the last seq of each rank that
    /// said something, and of rank 0. Sealing twice is harmless: what is missing is said with the first seal only.
    async fn seal(
        &self,
        attempt: &AttemptId,
        missing: Option<Missing>,
    ) -> Result<BTreeMap<u32, u64>, LogError>;

    /// What the log shows of a step, over all its attempts.
    async fn evidence(&self, job: &JobId, step: u32) -> Result<Evidence, LogError>;

    /// The records after position `after`: at least one if there is one, and no more than `max_bytes` together
    /// otherwise. A log that ends before `after` was restored from an older copy: reading goes on at its end.
    async fn read(&self, job: &JobId, after: u64, max_bytes: usize) -> Result<Page, LogError>;

    /// The log's last position; 0 when it is empty.
    async fn last_position(&self, job: &JobId) -> Result<u64, LogError>;

    /// The position after which the last `count` records are; 0 when there are no more. Where retention removed some of
    /// them there are fewer.
    async fn tail(&self, job: &JobId, count: u64) -> Result<u64, LogError>;

    /// The log's last position, as far as this process knows: it learns of other processes' records only when it
    /// appends or reads itself.
    fn watch(&self, job: &JobId) -> watch::Receiver<u64>;

    /// Removes the job's log. Nothing happens when there is none.
    async fn delete(&self, job: &JobId) -> Result<(), LogError>;

    /// Whether logs can be read at all. A disk that is full does not matter here.
    async fn ready(&self) -> Result<(), LogError>;

    /// The jobs that have a log, in no order.
    async fn jobs(&self) -> Result<Vec<JobId>, LogError>;
}
